/* The handshake: the greeting, the client's flags, and options until one of
 * them names an export (option.c answers each).
 *
 * What can fail: a client that speaks something else, hangs up, dawdles past
 * the deadline, or sends more options or data than anybody needs.  Each ends
 * the connection.  Everything else that is wrong with an option is answered by
 * an error, after its data was read, and the stream stays in step. */
#include "nbd/handshake.h"

#include <assert.h>
#include <errno.h>

#include "nbd/codec.h"
#include "nbd/connection.h"
#include "nbd/option.h"
#include "rt/loop.h"

#define OFFERED_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

static enum handshake_outcome close_because(struct connection *connection, const char *end)
{
    if (connection->end == NULL)
        connection->end = end;
    return HANDSHAKE_CLOSE;
}

static CO enum handshake_outcome greet(struct connection *connection)
{
    struct handshake *handshake = connection->handshake;
    uint8_t greeting[NBD_GREETING_BYTES], answer[NBD_CLIENT_FLAGS_BYTES];
    nbd_encode_greeting(greeting, OFFERED_FLAGS);
    const struct iovec piece = { .iov_base = greeting, .iov_len = sizeof greeting };
    if (channel_write(connection->channel, &piece, 1) < 0 ||
        channel_read_full(connection->channel, answer, sizeof answer) < 0)
        return close_because(connection, "left before the handshake");
    uint32_t flags = nbd_decode_client_flags(answer);
    if ((flags & ~(uint32_t)OFFERED_FLAGS) != 0)
        return close_because(connection, "answered the greeting with flags that were not offered");
    handshake->fixed = (flags & NBD_FLAG_FIXED_NEWSTYLE) != 0;
    handshake->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
    return HANDSHAKE_GO_ON;
}

/* Reads and forgets the data of an option that is too long to look at. */
static CO enum handshake_outcome drain_data(struct connection *connection, uint32_t length)
{
    struct handshake *handshake = connection->handshake;
    if (length > NBD_OPTION_DRAIN_MAX - handshake->drained_bytes)
        return close_because(connection, "sent an option of senseless length");
    handshake->drained_bytes += length;
    for (uint32_t left = length; left > 0;) {
        uint32_t part = left < NBD_RECEIVE_BYTES ? left : NBD_RECEIVE_BYTES;
        if (channel_read_full(connection->channel, connection->receive, part) < 0)
            return close_because(connection, "left in the middle of an option");
        left -= part;
    }
    return HANDSHAKE_GO_ON;
}

static CO enum handshake_outcome take_option(struct connection *connection)
{
    struct handshake *handshake = connection->handshake;
    uint8_t header[NBD_OPTION_BYTES];
    struct nbd_option option;
    int rc = channel_read_full(connection->channel, header, sizeof header);
    if (rc < 0)
        return close_because(connection, "left in the handshake");
    if (nbd_decode_option(header, &option) < 0)
        return close_because(connection, "sent something that is not an option");
    if (++handshake->options > NBD_OPTIONS_MAX)
        return close_because(connection, "sent too many options");
    if (!handshake->fixed && option.type != NBD_OPT_EXPORT_NAME)
        return close_because(connection, "sent an option without having agreed to the fixed newstyle");

    if (option.length > NBD_OPTION_DATA_MAX) {
        enum handshake_outcome outcome = drain_data(connection, option.length);
        return outcome == HANDSHAKE_GO_ON ? option_refuse_long(connection, &option) : outcome;
    }
    if (channel_read_full(connection->channel, connection->receive, option.length) < 0)
        return close_because(connection, "left in the middle of an option");
    return option_answer(connection, &option, connection->receive);
}

/* What ended the handshake when the connection itself cannot tell: the deadline shuts the channel down. */
static void explain_end(struct connection *connection)
{
    if (connection->patience.bitten)
        connection->end = connection->service->draining ? "was in the handshake when the server stopped"
                                                        : "did not finish the handshake in time";
}

CO enum handshake_outcome handshake_run(struct connection *connection, struct nbd_service **ret_home)
{
    struct handshake *handshake = connection->handshake;
    enum handshake_outcome outcome = HANDSHAKE_GO_ON;
    watchdog_start(&connection->patience, handshake->patience_ns, handshake->patience_ns);
    if (connection->service->draining)
        watchdog_hurry(&connection->patience, NBD_HANDSHAKE_DRAIN_MS * NS_PER_MS);
    outcome = handshake->option == 0 ? greet(connection) : option_open(connection);
    while (outcome == HANDSHAKE_GO_ON)
        outcome = take_option(connection);

    handshake->patience_ns = watchdog_stop(&connection->patience);
    explain_end(connection);
    if (outcome == HANDSHAKE_MOVE) {
        assert(handshake->option != 0);
        *ret_home = option_home(connection);
    }
    return outcome;
}
