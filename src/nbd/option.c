/* Options of the handshake: EXPORT_NAME, ABORT, LIST, INFO, GO and
 * STRUCTURED_REPLY; every other one gets ERR_UNSUP, which is also the right
 * answer to STARTTLS on a server that has no TLS.
 *
 * EXPORT_NAME and GO end the handshake when the volume opens.  When it does
 * not, GO is answered with the reason and the client may try something else;
 * EXPORT_NAME knows no errors, so the connection is closed.  INFO only looks:
 * it opens and creates nothing.
 *
 * All replies to one option leave in one write, but those to LIST, which are
 * sent as they gather. */
#include "nbd/option.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/buffer.h"
#include "base/text.h"
#include "nbd/connection.h"
#include "nbd/opening.h"
#include "rt/loop.h"

/* The block sizes of every export; any request is served, these are what suits us. */
#define BLOCK_SIZE_MINIMUM 1
#define BLOCK_SIZE_PREFERRED 4096

/* ---- replies ---- */

static CO enum handshake_outcome send_replies(struct connection *connection, struct buffer *replies)
{
    const struct iovec piece = { .iov_base = replies->data, .iov_len = replies->length };
    int rc = channel_write(connection->channel, &piece, 1);
    buffer_clear(replies);
    if (rc == 0)
        return HANDSHAKE_GO_ON;
    connection->end = "left in the handshake";
    return HANDSHAKE_CLOSE;
}

static void put_reply(struct buffer *replies, uint32_t option, uint32_t reply, const void *data, uint32_t length)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    nbd_encode_option_reply(header, option, reply, length);
    buffer_put(replies, header, sizeof header);
    if (length > 0)
        buffer_put(replies, data, length);
}

/* A story may have been cut in the middle of a character; the wire wants whole ones. */
static uint32_t message_length(const char *text)
{
    size_t length = strlen(text);
    if (length > NBD_MESSAGE_MAX)
        length = NBD_MESSAGE_MAX;
    for (int cut = 0; cut < 4 && length > 0; cut++, length--) {
        if (text_is_utf8(text, length))
            return (uint32_t)length;
    }
    return 0;
}

static CO enum handshake_outcome send_one(struct connection *connection, uint32_t option, uint32_t reply,
                                          const void *data, uint32_t length)
{
    struct buffer replies = BUFFER_EMPTY;
    put_reply(&replies, option, reply, data, length);
    enum handshake_outcome outcome = send_replies(connection, &replies);
    buffer_free(&replies);
    return outcome;
}

static CO enum handshake_outcome refuse(struct connection *connection, uint32_t option, uint32_t reply,
                                        const char *story)
{
    return send_one(connection, option, reply, story, message_length(story));
}

/* The kind of refusal that a failure below means to the client. */
static uint32_t refusal_of(int code)
{
    switch (-code) {
    case ENOENT:
        return NBD_REP_ERR_UNKNOWN;
    case EBUSY:
    case EPERM:
    case EACCES:
        return NBD_REP_ERR_POLICY;
    case EINVAL:
        return NBD_REP_ERR_INVALID;
    case ESHUTDOWN:
    case ECANCELED:
        return NBD_REP_ERR_SHUTDOWN;
    default: /* damaged, out of reach, of a newer format: the volume is not available */
        return NBD_REP_ERR_UNKNOWN;
    }
}

static const char *story_of(const struct error *error, int code)
{
    return error->story[0] != '\0' ? error->story : strerror(-code);
}

/* ---- the export ---- */

static uint16_t transmission_flags(const struct connection *connection)
{
    uint16_t flags =
        NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    if (connection->service->settings.read_only)
        flags |= NBD_FLAG_READ_ONLY;
    else
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
    if (connection->handshake->structured)
        flags |= NBD_FLAG_SEND_DF;
    return flags;
}

static void put_infos(struct connection *connection, struct buffer *replies, uint32_t option, uint64_t size)
{
    const struct handshake *handshake = connection->handshake;
    uint8_t export[NBD_INFO_EXPORT_BYTES];
    nbd_encode_info_export(export, size, transmission_flags(connection));
    put_reply(replies, option, NBD_REP_INFO, export, sizeof export);
    if (handshake->wants_name) {
        struct buffer name = BUFFER_EMPTY;
        buffer_put_u16be(&name, NBD_INFO_NAME);
        buffer_put(&name, handshake->name, handshake->name_length);
        put_reply(replies, option, NBD_REP_INFO, name.data, (uint32_t)name.length);
        buffer_free(&name);
    }
    if (handshake->wants_block_size) {
        uint8_t sizes[NBD_INFO_BLOCK_SIZE_BYTES];
        nbd_encode_info_block_size(sizes, BLOCK_SIZE_MINIMUM, BLOCK_SIZE_PREFERRED, NBD_PAYLOAD_MAX);
        put_reply(replies, option, NBD_REP_INFO, sizes, sizeof sizes);
    }
    put_reply(replies, option, NBD_REP_ACK, NULL, 0);
}

static CO enum handshake_outcome send_infos(struct connection *connection, uint32_t option, uint64_t size)
{
    struct buffer replies = BUFFER_EMPTY;
    put_infos(connection, &replies, option, size);
    enum handshake_outcome outcome = send_replies(connection, &replies);
    buffer_free(&replies);
    return outcome;
}

static CO enum handshake_outcome send_export(struct connection *connection, uint64_t size)
{
    uint8_t answer[NBD_EXPORT_BYTES + NBD_EXPORT_ZEROES] = { 0 };
    nbd_encode_export(answer, size, transmission_flags(connection));
    const struct iovec piece = {
        .iov_base = answer,
        .iov_len = connection->handshake->no_zeroes ? NBD_EXPORT_BYTES : sizeof answer,
    };
    if (channel_write(connection->channel, &piece, 1) == 0)
        return HANDSHAKE_SERVE;
    connection->end = "left in the handshake";
    return HANDSHAKE_CLOSE;
}

/* Of a volume that an option asks for but which does not exist; 0 where none is to be created. */
static uint64_t default_size(const struct connection *connection)
{
    const struct nbd_settings *settings = &connection->service->settings;
    return settings->read_only ? 0 : settings->default_size;
}

static CO enum handshake_outcome refuse_export(struct connection *connection, int code, const char *story)
{
    struct handshake *handshake = connection->handshake;
    uint32_t option = handshake->option;
    handshake->option = 0;
    event_raise(connection->service->wiring.events, EVENT_WARNING, connection->subject, "refused: %s", story);
    if (option == NBD_OPT_EXPORT_NAME) {
        connection->end = "asked for an export that is not available";
        return HANDSHAKE_CLOSE;
    }
    return refuse(connection, option, refusal_of(code), story);
}

struct nbd_service *option_home(const struct connection *connection)
{
    const struct nbd_wiring *wiring = &connection->service->wiring;
    const struct handshake *handshake = connection->handshake;
    return wiring->home(wiring->arg, handshake->name, handshake->name_length);
}

/* With the volume open; gives it back where others are in the way. */
static int join(struct connection *connection, struct error *error)
{
    int rc = export_join(connection, error);
    if (rc < 0) {
        volumes_release(connection->service->wiring.volumes, connection->volume, false);
        connection->volume = NULL;
    }
    return rc;
}

CO enum handshake_outcome option_open(struct connection *connection)
{
    struct nbd_service *service = connection->service;
    struct handshake *handshake = connection->handshake;
    struct error error = ERROR_NONE;
    if (service->draining)
        return refuse_export(connection, -ESHUTDOWN, "the server is shutting down");

    connection_move(connection, CONNECTION_OPENING);
    handshake->patience_ns = watchdog_stop(&connection->patience);
    int rc = opening_run(connection, default_size(connection), &connection->volume, &error);
    if (rc == -EPIPE) {
        connection->end = "hung up while its volume was being opened";
        return HANDSHAKE_CLOSE;
    }
    watchdog_start(&connection->patience, handshake->patience_ns, handshake->patience_ns);
    if (service->draining)
        watchdog_hurry(&connection->patience, NBD_HANDSHAKE_DRAIN_MS * NS_PER_MS);
    connection->structured = handshake->structured;
    if (rc == 0)
        rc = join(connection, &error);
    if (rc < 0) {
        connection_move(connection, CONNECTION_HANDSHAKE);
        return refuse_export(connection, rc, story_of(&error, rc));
    }
    uint64_t size = volume_size(connection->volume);
    if (handshake->option == NBD_OPT_EXPORT_NAME)
        return send_export(connection, size);
    enum handshake_outcome outcome = send_infos(connection, NBD_OPT_GO, size);
    return outcome == HANDSHAKE_GO_ON ? HANDSHAKE_SERVE : outcome;
}

static CO enum handshake_outcome open_or_move(struct connection *connection, uint32_t option)
{
    connection->handshake->option = option;
    return option_home(connection) == connection->service ? option_open(connection) : HANDSHAKE_MOVE;
}

/* ---- names ---- */

/* Takes the name into the handshake.  0; or what to refuse it with, and why. */
static uint32_t take_name(struct handshake *handshake, const char *name, uint32_t length, const char **ret_story)
{
    if (length > NBD_STRING_MAX) {
        *ret_story = "the export's name is longer than 4096 bytes";
        return NBD_REP_ERR_TOO_BIG;
    }
    if (!text_is_utf8(name, length)) {
        *ret_story = "the export's name is not valid UTF-8, or contains a NUL";
        return NBD_REP_ERR_INVALID;
    }
    memcpy(handshake->name, name, length);
    handshake->name_length = length;
    return 0;
}

static uint32_t take_choice(struct handshake *handshake, const uint8_t *data, uint32_t length, const char **ret_story)
{
    struct nbd_choice choice;
    if (nbd_decode_choice(data, length, &choice) < 0) {
        *ret_story = "the option's lengths do not fit its data";
        return NBD_REP_ERR_INVALID;
    }
    uint32_t refusal = take_name(handshake, choice.name, choice.name_length, ret_story);
    if (refusal != 0)
        return refusal;
    handshake->wants_name = choice.wants_name;
    handshake->wants_block_size = choice.wants_block_size;
    return 0;
}

/* ---- one function for each option ---- */

static CO enum handshake_outcome answer_export_name(struct connection *connection, const uint8_t *data, uint32_t length)
{
    const char *story;
    connection->handshake->wants_name = connection->handshake->wants_block_size = false;
    if (take_name(connection->handshake, (const char *)data, length, &story) != 0) {
        connection->end = "asked for an export by an invalid name";
        return HANDSHAKE_CLOSE;
    }
    return open_or_move(connection, NBD_OPT_EXPORT_NAME);
}

static CO enum handshake_outcome answer_abort(struct connection *connection, const uint8_t *data, uint32_t length)
{
    /* The client may be gone already; that is as good as an answer. */
    (void)send_one(connection, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);
    connection->end = "ended the handshake";
    connection->handshake->aborted = true;
    return HANDSHAKE_CLOSE;
}

struct listing {
    struct connection *connection;
    struct buffer replies;
    bool closed;
};

static CO int list_one(void *arg, const char *name, size_t name_length)
{
    struct listing *listing = arg;
    assert(name_length <= NBD_STRING_MAX);
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    nbd_encode_option_reply(header, NBD_OPT_LIST, NBD_REP_SERVER, (uint32_t)(4 + name_length));
    buffer_put(&listing->replies, header, sizeof header);
    buffer_put_u32be(&listing->replies, (uint32_t)name_length);
    buffer_put(&listing->replies, name, name_length);
    if (listing->replies.length < NBD_LIST_CHUNK_BYTES)
        return 0;
    listing->closed = send_replies(listing->connection, &listing->replies) != HANDSHAKE_GO_ON;
    return listing->closed ? -EPIPE : 0;
}

static CO enum handshake_outcome answer_list(struct connection *connection, const uint8_t *data, uint32_t length)
{
    if (length != 0)
        return refuse(connection, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
    struct listing listing = { .connection = connection, .replies = BUFFER_EMPTY };
    struct error error = ERROR_NONE;
    enum handshake_outcome outcome = HANDSHAKE_CLOSE;
    int rc = volumes_list(connection->service->wiring.store, list_one, &listing, &error);
    if (!listing.closed) {
        const char *story = story_of(&error, rc);
        if (rc == 0)
            put_reply(&listing.replies, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
        else
            put_reply(&listing.replies, NBD_OPT_LIST, refusal_of(rc), story, message_length(story));
        outcome = send_replies(connection, &listing.replies);
    }
    buffer_free(&listing.replies);
    return outcome;
}

static CO enum handshake_outcome answer_info(struct connection *connection, const uint8_t *data, uint32_t length)
{
    struct handshake *handshake = connection->handshake;
    struct volume_brief brief = { .exists = false };
    struct error error = ERROR_NONE;
    const char *story;
    uint32_t refusal = take_choice(handshake, data, length, &story);
    if (refusal != 0)
        return refuse(connection, NBD_OPT_INFO, refusal, story);
    int rc = volumes_look(connection->service->wiring.volumes, handshake->name, handshake->name_length, &brief, &error);
    if (rc < 0)
        return refuse(connection, NBD_OPT_INFO, refusal_of(rc), story_of(&error, rc));
    uint64_t size = brief.exists ? brief.size : default_size(connection);
    if (size == 0)
        return refuse(connection, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, "there is no volume of that name");
    return send_infos(connection, NBD_OPT_INFO, size);
}

static CO enum handshake_outcome answer_go(struct connection *connection, const uint8_t *data, uint32_t length)
{
    const char *story;
    uint32_t refusal = take_choice(connection->handshake, data, length, &story);
    if (refusal != 0)
        return refuse(connection, NBD_OPT_GO, refusal, story);
    return open_or_move(connection, NBD_OPT_GO);
}

static CO enum handshake_outcome answer_structured_reply(struct connection *connection, const uint8_t *data,
                                                         uint32_t length)
{
    if (length != 0)
        return refuse(connection, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
    connection->handshake->structured = true;
    return send_one(connection, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
}

/* ---- which is which ---- */

static const struct {
    uint32_t type;
    CO enum handshake_outcome (*answer)(struct connection *connection, const uint8_t *data, uint32_t length);
} options[] = {
    { NBD_OPT_EXPORT_NAME, answer_export_name },
    { NBD_OPT_ABORT, answer_abort },
    { NBD_OPT_LIST, answer_list },
    { NBD_OPT_INFO, answer_info },
    { NBD_OPT_GO, answer_go },
    { NBD_OPT_STRUCTURED_REPLY, answer_structured_reply },
};
#define OPTION_COUNT (sizeof options / sizeof *options)

CO enum handshake_outcome option_answer(struct connection *connection, const struct nbd_option *option,
                                        const uint8_t *data)
{
    assert(option->length <= NBD_OPTION_DATA_MAX);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (options[i].type == option->type)
            return options[i].answer(connection, data, option->length);
    }
    return refuse(connection, option->type, NBD_REP_ERR_UNSUP, "this server does not know the option");
}

CO enum handshake_outcome option_refuse_long(struct connection *connection, const struct nbd_option *option)
{
    assert(option->length > NBD_OPTION_DATA_MAX);
    if (option->type == NBD_OPT_ABORT)
        return answer_abort(connection, NULL, 0);
    if (option->type == NBD_OPT_EXPORT_NAME) {
        connection->end = "asked for an export by an invalid name";
        return HANDSHAKE_CLOSE;
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (options[i].type == option->type)
            return refuse(connection, option->type, NBD_REP_ERR_TOO_BIG, "the option's data is too long");
    }
    return refuse(connection, option->type, NBD_REP_ERR_UNSUP, "this server does not know the option");
}
