/* The transmission phase: the reader of requests.
 *
 * One receive fetches as many requests as have arrived; each complete one is
 * started before the reader parks again, so that their replies leave together
 * (reply.c).  The payload of a WRITE is received into the pages that will
 * become part of the disk: what the buffer holds of it is copied, the rest is
 * received straight into them, and what follows behind it into the buffer in
 * the same call.
 *
 * The reader stops reading, for this client only, when the connection has as
 * much in flight as its limits allow (request_take()), and when too much
 * written data waits for the store (volume_write_begin()).
 *
 * What can fail: the client hangs up or sends something that is no request;
 * then nothing more can be understood, what was started is finished, and the
 * connection ends.  A WRITE whose payload does not come is forgotten, and has
 * changed nothing.  A refused WRITE's payload is read and dropped. */
#include "nbd/transmission.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "nbd/connection.h"
#include "nbd/elders.h"
#include "nbd/reply.h"
#include "nbd/request.h"
#include "rt/loop.h"

static uint32_t waiting_bytes(const struct connection *connection)
{
    assert(connection->taken <= connection->received && connection->received <= NBD_RECEIVE_BYTES);
    return connection->received - connection->taken;
}

static int end_because(struct connection *connection, const char *end)
{
    if (connection->end == NULL)
        connection->end = end;
    return -EPIPE;
}

static int end_of_stream(struct connection *connection, ssize_t rc)
{
    if (connection->payload_stall.bitten)
        return end_because(connection, "stopped in the middle of a WRITE");
    if (connection->send_stall.bitten)
        return end_because(connection, "did not take its replies");
    connection_note_error(connection, (int)rc);
    if (connection->vanished)
        return end_because(connection, "vanished: it has answered nothing for too long");
    if (rc == 0)
        return end_because(connection, "hung up");
    return end_because(connection, rc == -ECANCELED ? "was cut off" : strerror((int)-rc));
}

/* ---- payload ---- */

/* Copies what was received of the payload already; returns how much that is. */
static uint32_t copy_payload(struct connection *connection, const struct volume_write *write)
{
    uint32_t length = write->length < waiting_bytes(connection) ? write->length : waiting_bytes(connection);
    uint32_t done = 0;
    while (done < length) {
        int count = volume_write_pieces(write, done, connection->payload_pieces, NBD_PAYLOAD_PIECES);
        assert(count > 0);
        for (int i = 0; i < count && done < length; i++) {
            struct iovec *piece = &connection->payload_pieces[i];
            size_t part = piece->iov_len < length - done ? piece->iov_len : length - done;
            memcpy(piece->iov_base, connection->receive + connection->taken, part);
            connection->taken += (uint32_t)part;
            done += (uint32_t)part;
        }
    }
    return done;
}

/* A WRITE waits for memory with its client free to send on: who did not has had that time already.  Otherwise many who
 * send nothing, let in one after the other, would make others wait for each of them in turn. */
static void watch_payload(struct connection *connection, uint32_t done, uint64_t began_ns)
{
    uint64_t stall_ns = connection->service->settings.payload_stall_ms * NS_PER_MS;
    uint64_t pressed_ns = NBD_PRESSED_STALL_MS * NS_PER_MS, least_ns = NBD_PRESSED_STALL_LEAST_MS * NS_PER_MS;
    uint64_t waited_ns = loop_now_ns(connection->loop) - began_ns;
    pressed_ns = waited_ns < pressed_ns - least_ns ? pressed_ns - waited_ns : least_ns;
    watchdog_start(&connection->payload_stall, stall_ns, pressed_ns);
    watchdog_extend(&connection->payload_stall, done * NS_PER_S / NBD_PAYLOAD_BYTES_LEAST);
}

/* Receives the rest of the payload, and into the empty buffer whatever comes with it. */
static CO int receive_payload(struct connection *connection, const struct volume_write *write, uint32_t done,
                              uint64_t began_ns)
{
    assert(waiting_bytes(connection) == 0);
    connection->taken = connection->received = 0;
    watch_payload(connection, done, began_ns);
    while (done < write->length) {
        uint32_t left = write->length - done, offered = 0;
        int count = volume_write_pieces(write, done, connection->payload_pieces, NBD_PAYLOAD_PIECES);
        for (int i = 0; i < count; i++)
            offered += (uint32_t)connection->payload_pieces[i].iov_len;
        assert(offered > 0 && offered <= left);
        if (offered == left)
            connection->payload_pieces[count++] = (struct iovec){
                .iov_base = connection->receive,
                .iov_len = connection->large_writes ? NBD_RECEIVE_TAIL_BYTES : NBD_RECEIVE_BYTES,
            };
        ssize_t rc = channel_read(connection->channel, connection->payload_pieces, count);
        if (rc <= 0) {
            watchdog_stop(&connection->payload_stall);
            return end_of_stream(connection, rc);
        }
        uint32_t more = (size_t)rc < left ? (uint32_t)rc : left;
        connection->stream_bytes += (size_t)rc;
        connection->received = (uint32_t)((size_t)rc - more);
        done += more;
        watchdog_extend(&connection->payload_stall, more * NS_PER_S / NBD_PAYLOAD_BYTES_LEAST);
    }
    watchdog_stop(&connection->payload_stall);
    return 0;
}

/* Reads the payload of a WRITE that is refused, and drops it. */
static CO int drop_payload(struct connection *connection, uint32_t length)
{
    for (;;) {
        uint32_t part = length < waiting_bytes(connection) ? length : waiting_bytes(connection);
        connection->taken += part;
        length -= part;
        if (length == 0)
            return 0;
        const struct iovec piece = { .iov_base = connection->receive, .iov_len = NBD_RECEIVE_BYTES };
        connection->taken = connection->received = 0;
        ssize_t rc = channel_read(connection->channel, &piece, 1);
        if (rc <= 0)
            return end_of_stream(connection, rc);
        connection->stream_bytes += (size_t)rc;
        connection->received = (uint32_t)rc;
    }
}

/* ---- requests ---- */

/* A WRITE is answered when all of it has come, or not at all: until then its client is still sending it. */
static CO int refuse(struct request *request, int code, const struct error *error)
{
    if (request->wire.command == NBD_CMD_WRITE) {
        int rc = drop_payload(request->connection, request->wire.length);
        if (rc < 0) {
            request_release(request);
            return rc;
        }
    }
    request_fail(request, code, error);
    return 0;
}

/* A request that does not pass the check, which is asked again for the story: the good ones should not pay for it. */
static CO int refuse_misfit(struct request *request)
{
    struct error error = ERROR_NONE;
    int rc = request_check(request->connection, &request->wire, &error);
    return refuse(request, rc, &error);
}

/* Its header was taken.  `wire` is the caller's, since the request may be gone once it is answered. */
static CO int take_write(struct connection *connection, struct request *request, const struct nbd_request *wire)
{
    struct volume_write *write = &request->write;
    if (waiting_bytes(connection) >= wire->length &&
        volume_write_over(connection->volume, wire->offset, wire->length, connection->receive + connection->taken)) {
        connection->taken += wire->length;
        request_changed(request);
        return 0;
    }
    uint64_t began_ns = loop_now_ns(connection->loop);
    connection->large_writes = wire->length >= NBD_LARGE_WRITE_BYTES;
    int rc = volume_write_begin_try(connection->volume, wire->offset, wire->length, write);
    if (rc == -EAGAIN) {
        elders_change_begins(request);
        rc = volume_write_begin(connection->volume, wire->offset, wire->length, write);
    }
    if (rc < 0) {
        elders_change_ends(request);
        return refuse(request, rc, NULL);
    }
    uint32_t done = copy_payload(connection, write);
    if (done < wire->length) {
        elders_change_begins(request);
        rc = receive_payload(connection, write, done, began_ns);
        if (rc < 0) {
            volume_write_abort(write);
            elders_change_ends(request);
            request_release(request);
            return rc;
        }
    }
    request_start_write(request);
    return 0;
}

/* The request at the head of what was received.  While it waits for room it stays there, untaken: a newer connection
 * sees that it is still to come, or forbids it (elders.c). */
static CO int take_request(struct connection *connection, const struct nbd_request *wire)
{
    struct request *request;
    int refused = request_check(connection, wire, NULL);
    int rc = request_take(connection, refused == 0 && wire->command == NBD_CMD_READ ? wire->length : 0, &request);
    if (rc < 0)
        return end_of_stream(connection, rc);
    request->wire = *wire;
    request->place = connection_place(connection);
    if (request->place < connection->barrier && request_changes(wire->command)) {
        request_release(request);
        connection_supersede(connection);
        return -EPIPE;
    }
    connection->taken += NBD_REQUEST_BYTES;
    if (wire->command < NBD_COMMANDS)
        connection->service->counts.requests[wire->command]++;
    if (refused < 0)
        return refuse_misfit(request);
    if (wire->command == NBD_CMD_WRITE && wire->length > 0)
        return take_write(connection, request, wire);
    request_start(request);
    return 0;
}

/* Tells the engine of the WRITEs that have arrived whole, where they are several. */
static void announce_writes(const struct connection *connection)
{
    uint64_t offsets[VOLUME_EXPECT_MOST];
    uint32_t count = 0;
    const uint8_t *at = connection->receive + connection->taken, *end = connection->receive + connection->received;
    struct nbd_request wire;
    while (count < VOLUME_EXPECT_MOST && (size_t)(end - at) >= NBD_REQUEST_BYTES &&
           nbd_decode_request(at, &wire) == 0) {
        at += NBD_REQUEST_BYTES;
        if (wire.command != NBD_CMD_WRITE)
            continue;
        if ((size_t)(end - at) < wire.length)
            break;
        at += wire.length;
        offsets[count++] = wire.offset;
    }
    if (count > 1)
        volume_write_expect(connection->volume, offsets, count);
}

/* Starts every request that has arrived whole, and the last one's payload. */
static CO int take_requests(struct connection *connection)
{
    struct nbd_request wire;
    announce_writes(connection);
    while (waiting_bytes(connection) >= NBD_REQUEST_BYTES) {
        if (nbd_decode_request(connection->receive + connection->taken, &wire) < 0)
            return end_because(connection, "sent something that is not a request");
        if (wire.command == NBD_CMD_DISC) {
            connection->service->counts.requests[NBD_CMD_DISC]++;
            return end_because(connection, "disconnected");
        }
        int rc = take_request(connection, &wire);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static CO int receive_some(struct connection *connection)
{
    uint32_t rest = waiting_bytes(connection);
    assert(rest < NBD_REQUEST_BYTES);
    if (rest > 0 && connection->taken > 0)
        memmove(connection->receive, connection->receive + connection->taken, rest);
    connection->taken = 0;
    connection->received = rest;
    uint32_t room = connection->large_writes ? NBD_RECEIVE_TAIL_BYTES : NBD_RECEIVE_BYTES;
    const struct iovec piece = { .iov_base = connection->receive + rest, .iov_len = room - rest };
    ssize_t rc = channel_read(connection->channel, &piece, 1);
    if (rc <= 0)
        return end_of_stream(connection, rc);
    connection->stream_bytes += (size_t)rc;
    connection->received += (uint32_t)rc;
    return 0;
}

static CO void reader_main(void *arg)
{
    struct connection *connection = arg;
    int rc = receive_some(connection);
    if (rc == 0)
        rc = elders_await(connection) < 0 ? end_of_stream(connection, -ECANCELED) : 0;
    while (rc == 0) {
        rc = take_requests(connection);
        if (!list_empty(&connection->juniors))
            elders_progress(connection);
        if (rc == 0)
            rc = receive_some(connection);
    }
    connection->reader = NULL;
    elders_progress(connection);
    reply_wake_sender(connection);
}

/* ---- the whole ---- */

static const char *end_of_replies(const struct connection *connection)
{
    if (connection->send_stall.bitten)
        return "did not take its replies";
    return connection->vanished ? "vanished: it took nothing of its replies for too long" : "left without its replies";
}

CO void transmission_run(struct connection *connection)
{
    connection_move(connection, CONNECTION_SERVING);
    connection->sender = coroutine_self();
    /* What the handshake left there is no part of the stream of requests. */
    connection->taken = connection->received = 0;
    /* An end that is known by now, such as the loss of the volume, came before the first request. */
    if (connection->end == NULL)
        connection->reader = group_spawn(&connection->group, "reader", reader_main, connection);
    int rc = reply_send_all(connection);
    connection_move(connection, CONNECTION_FINISHING);
    if (rc < 0) {
        connection_note_error(connection, rc);
        if (connection->end == NULL)
            connection->end = end_of_replies(connection);
        reply_break(connection);
        channel_shutdown(connection->channel);
        /* Nobody will hear of what is still under way; it must not wait for memory or for the store on that account. */
        group_cancel(&connection->group);
    }
    group_join(&connection->group);
    assert(connection->reader == NULL && list_empty(&connection->replies) && list_empty(&connection->held));
}
