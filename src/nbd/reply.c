/* Replies: put together as requests complete, sent in batches.
 *
 * Whoever completes a request queues its reply and makes the sender ready; it
 * runs after everybody who was ready before, above all the reader that is
 * still starting a batch of requests.  So the replies of a batch leave in one
 * system call without anyone waiting for a timer.
 *
 * A reply vouches for what it says: that the data is the disk's, that a write
 * counts.  Only the volume's owner can, so before each batch, and after each wait
 * in the middle of one, the volume is asked whether its lease is beyond doubt.
 * While it is not, replies are held back, half a READ's data if need be; the
 * sender waits for the volume's watch, and nobody is blamed for the time that
 * takes.  Errors vouch for nothing, and leave all the same: a client of a store
 * that is dead for good must hear of its failed FLUSH.  When the volume is lost,
 * what was held is dropped.
 *
 * Invariants: the first reply in the queue may be sent in part, all others are
 * untouched; `held` has none that is sent in part, and no errors.
 *
 * What can fail: the peer does not read.  The sender then parks, the queue
 * grows to the connection's limits, and the reader stops (request_take()).
 * When nothing moves for too long, or the peer is gone, replies are dropped as
 * they come, and the connection ends when nothing is in flight. */
#include "nbd/reply.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "nbd/connection.h"
#include "rt/loop.h"

void reply_wake_sender(struct connection *connection)
{
    if (!connection->sender_idle)
        return;
    connection->sender_idle = false;
    coroutine_wake(connection->sender);
}

static void queue(struct request *request)
{
    struct connection *connection = request->connection;
    if (connection->broken)
        request_release(request);
    else
        list_push_back(&connection->replies, &request->link);
    reply_wake_sender(connection);
}

void reply_success(struct request *request)
{
    const struct nbd_request *wire = &request->wire;
    assert(!request->header_sent && request->pieces_sent == 0);
    request->failed = false;
    if (!request->connection->structured) {
        nbd_encode_simple_reply(request->header, NBD_SUCCESS, wire->cookie);
        request->header_length = NBD_SIMPLE_REPLY_BYTES;
    } else if (wire->command == NBD_CMD_READ && wire->length > 0) {
        nbd_encode_chunk_offset_data(request->header, wire->cookie, wire->offset, wire->length);
        request->header_length = NBD_CHUNK_OFFSET_BYTES;
    } else {
        nbd_encode_chunk_none(request->header, wire->cookie);
        request->header_length = NBD_CHUNK_BYTES;
    }
    queue(request);
}

static void put_message(struct request *request, const char *text)
{
    size_t length = strnlen(text, NBD_MESSAGE_MAX);
    while (length > 0 && !text_is_utf8(text, length))
        length--;
    request->message = memory_copy(text, length);
    request->message_length = (uint32_t)length;
}

void reply_error(struct request *request, int code, const struct error *error)
{
    uint32_t number = nbd_wire_error(code);
    request->failed = true;
    assert(!request->header_sent && request->data.piece_count == 0);
    if (request->connection->structured) {
        put_message(request, error != NULL && error->story[0] != '\0' ? error->story : strerror(-code));
        nbd_encode_chunk_error(request->header, request->wire.cookie, number, (uint16_t)request->message_length);
        request->header_length = NBD_CHUNK_ERROR_BYTES;
    } else {
        nbd_encode_simple_reply(request->header, number, request->wire.cookie);
        request->header_length = NBD_SIMPLE_REPLY_BYTES;
    }
    queue(request);
}

/* ---- the sender ---- */

struct batch {
    int pieces;
    size_t bytes;
    struct list complete; /* requests all of whose reply is in it */
};

static void add_piece(struct connection *connection, struct batch *batch, const void *bytes, size_t length)
{
    connection->send_pieces[batch->pieces++] = (struct iovec){ .iov_base = (void *)bytes, .iov_len = length };
    batch->bytes += length;
}

/* Adds what fits of the first reply in the queue; true when that was all of it. */
static bool gather_reply(struct connection *connection, struct batch *batch, struct request *request)
{
    const struct volume_data *data = &request->data;
    if (!request->header_sent) {
        request->header_sent = true;
        add_piece(connection, batch, request->header, request->header_length);
        if (request->message_length > 0)
            add_piece(connection, batch, request->message, request->message_length);
    }
    while (request->pieces_sent < data->piece_count) {
        if (batch->pieces == NBD_SEND_PIECES || batch->bytes >= NBD_SEND_BYTES)
            return false;
        const struct iovec *piece = &data->pieces[request->pieces_sent++];
        add_piece(connection, batch, piece->iov_base, piece->iov_len);
    }
    return true;
}

static void gather(struct connection *connection, struct batch *batch)
{
    list_init(&batch->complete);
    batch->pieces = 0;
    batch->bytes = 0;
    for (int replies = 0; replies < NBD_SEND_REPLIES && !list_empty(&connection->replies); replies++) {
        /* Room for a header and a message. */
        if (batch->pieces + 2 > NBD_SEND_PIECES || batch->bytes >= NBD_SEND_BYTES)
            break;
        struct request *request = container_of(connection->replies.next, struct request, link);
        if (!gather_reply(connection, batch, request))
            break;
        list_remove(&request->link);
        list_push_back(&batch->complete, &request->link);
    }
}

static void release_all(struct list *requests)
{
    struct list *link;
    while ((link = list_pop_front(requests)) != NULL)
        request_release(container_of(link, struct request, link));
}

/* ---- what may leave ---- */

static bool may_vouch(const struct connection *connection)
{
    return !connection->lost && volume_may_answer(connection->volume);
}

/* Whether a reply was begun and is not sent to its end. */
static bool in_the_middle(const struct connection *connection)
{
    return !list_empty(&connection->replies) &&
           container_of(connection->replies.next, struct request, link)->header_sent;
}

static void hold_back(struct connection *connection)
{
    list_for_each_safe (node, &connection->replies) {
        if (!container_of(node, struct request, link)->failed) {
            list_remove(node);
            list_push_back(&connection->held, node);
        }
    }
    if (connection->lost)
        release_all(&connection->held);
}

/* Whether there is something to send, and `replies` has nothing else.  *ret_vouching: not errors alone. */
static bool something_may_leave(struct connection *connection, bool *ret_vouching)
{
    if (list_empty(&connection->replies) && list_empty(&connection->held))
        return false;
    *ret_vouching = may_vouch(connection);
    if (*ret_vouching) {
        if (!list_empty(&connection->held)) {
            list_append_all(&connection->held, &connection->replies);
            list_append_all(&connection->replies, &connection->held);
        }
        return true;
    }
    if (in_the_middle(connection))
        return false;
    hold_back(connection);
    return !list_empty(&connection->replies);
}

/* Parks until something has changed. */
static CO int idle(struct connection *connection)
{
    connection->sender_idle = true;
    int rc = coroutine_park();
    connection->sender_idle = false;
    return rc;
}

/* In the middle of a batch: parks until the rest may leave. */
static CO int await_lease(struct connection *connection)
{
    while (!may_vouch(connection)) {
        if (connection->lost || connection->broken)
            return -ESHUTDOWN;
        int rc = idle(connection);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void watch_sending(struct connection *connection)
{
    watchdog_start(&connection->send_stall, connection->service->settings.send_stall_ms * NS_PER_MS,
                   NBD_PRESSED_STALL_MS * NS_PER_MS);
}

static CO int send_pieces(struct connection *connection, int count, bool vouching)
{
    struct iovec *piece = connection->send_pieces, *end = piece + count;
    for (;;) {
        ssize_t sent = channel_write_some(connection->channel, piece, (int)(end - piece));
        if (sent < 0)
            return (int)sent;
        size_t left = (size_t)sent;
        for (; piece < end && left >= piece->iov_len; piece++)
            left -= piece->iov_len;
        if (piece == end)
            return 0;
        *piece = (struct iovec){ .iov_base = (uint8_t *)piece->iov_base + left, .iov_len = piece->iov_len - left };
        if (!vouching || may_vouch(connection))
            continue;
        watchdog_stop(&connection->send_stall);
        int rc = await_lease(connection);
        if (rc < 0)
            return rc;
        watch_sending(connection);
    }
}

static CO int send_batch(struct connection *connection, bool vouching)
{
    struct batch batch;
    gather(connection, &batch);
    assert(batch.pieces > 0);
    watch_sending(connection);
    int rc = send_pieces(connection, batch.pieces, vouching);
    watchdog_stop(&connection->send_stall);
    release_all(&batch.complete);
    return rc;
}

CO int reply_send_all(struct connection *connection)
{
    assert(connection->sender == coroutine_self());
    for (;;) {
        int rc = 0;
        bool vouching;
        if (something_may_leave(connection, &vouching))
            rc = send_batch(connection, vouching);
        else if (connection->broken || (connection->lost && in_the_middle(connection)))
            rc = -ESHUTDOWN;
        else if (connection->reader == NULL && connection->in_flight == 0)
            return 0;
        else
            rc = idle(connection);
        if (rc < 0)
            return rc;
    }
}

void reply_break(struct connection *connection)
{
    connection->broken = true;
    release_all(&connection->replies);
    release_all(&connection->held);
}
