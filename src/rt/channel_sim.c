/* The simulator's connections: two pipes, one in each direction.
 *
 * What is written goes into the pipe's ring at once, as far as there is room,
 * and arrives in pieces after random delays, in order; the writer parks while
 * the ring is full.  A piece that arrives is counted, no more: the bytes stay
 * in the ring until they are read.
 *
 *     ring       | read | arrived, to be read | under way | free |
 *
 * One event per pipe is pending at a time, for its first piece under way, and
 * it belongs to the receiving node: a paused node receives nothing.
 *
 * States of an end: open; shut (by its owner: EOF follows what was written; the
 * peer's writes fail from then on, a while later); broken (a cut has reached it,
 * or it has noticed that the line is dead); closed (the channel is gone).  The connection is freed when both ends are
 * closed and no event of it is pending.  Closing with unread bytes does not
 * reset the peer, as a kernel might.
 *
 * Every arrival is traced, with its bytes. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "rt/channel.h"
#include "rt/coroutine_internal.h"
#include "rt/loop_internal.h"
#include "rt/loop_sim_internal.h"

/* Unread and under way in one direction; the ring starts small, as most connections need little. */
#define RING_MAX ((size_t)256 * 1024)
#define RING_FIRST ((size_t)4096)
#define MARKS_FIRST ((size_t)16)

/* Pieces under way in one direction; further ones join the last. */
#define PIECES_MAX 32
/* A write is split once in so many. */
#define SPLIT_ONE_IN 8
/* A piece commonly takes up to the first, and once in SLOW_ONE_IN up to the second. */
#define DELAY_NS UINT64_C(100000)
#define DELAY_SLOW_NS UINT64_C(5000000)
#define SLOW_ONE_IN 32
/* How long after a cut an end learns of it, at most. */
#define RESET_NS (UINT64_C(2) * NS_PER_S)
/* TCP's probes go out at an interval. */
#define NOTICE_MORE_NS (UINT64_C(10) * NS_PER_S)

struct piece {
    uint64_t arrives_ns;
    size_t length; /* 0: the end of the stream */
};

/* Bytes of the stream up to `end` (and behind those of the mark before) were written then. */
struct mark {
    uint64_t end, written_ns;
};

struct pipe {
    struct end *from, *to;
    uint8_t *ring;
    size_t ring_size; /* a power of two */
    size_t start;     /* of the bytes not yet read */
    size_t arrived, under_way;
    struct piece pieces[PIECES_MAX]; /* under way, from first_piece on, in a ring too */
    unsigned first_piece, piece_count;
    uint64_t bytes_written, bytes_read;
    struct mark *marks; /* that of the last byte read, and all behind it */
    size_t first_mark, mark_count, mark_capacity;
    bool scheduled; /* an event for the first piece is pending */
    bool ending;    /* the writer's end is shut: nothing follows */
    bool ended;     /* and the reader's end has been told */
};

struct end {
    struct channel channel;
    struct connection *connection;
    struct pipe *in, *out;
    struct coroutine *reader, *writer; /* parked */
    bool shut, closed;
    int broken; /* -errno of all that is tried from now on; 0: it is not */
};

struct connection {
    struct world *world;
    struct end ends[2];
    struct pipe pipes[2];
    bool cut;     /* nothing arrives any more */
    int cut_code; /* what the ends will be told */
    int pending;  /* events */
};

static const struct channel_ops sim_channel_ops;

static struct end *end_of(struct channel *channel)
{
    assert(channel->ops == &sim_channel_ops);
    return container_of(channel, struct end, channel);
}

static void wake(struct coroutine *coroutine)
{
    if (coroutine != NULL)
        coroutine_wake(coroutine);
}

static void free_if_done(struct connection *connection)
{
    if (connection->pending > 0 || !connection->ends[0].closed || !connection->ends[1].closed)
        return;
    for (int i = 0; i < 2; i++) {
        free(connection->pipes[i].ring);
        free(connection->pipes[i].marks);
    }
    free(connection);
}

/* ---- events: each counts in `pending` from add_event() to event_over() ---- */

static void event_over(struct connection *connection)
{
    assert(connection->pending > 0);
    connection->pending--;
    free_if_done(connection);
}

static void pipe_dropped(void *arg)
{
    event_over(((struct pipe *)arg)->from->connection);
}

static void end_dropped(void *arg)
{
    event_over(((struct end *)arg)->connection);
}

/* ---- what is under way ---- */

static void schedule(struct pipe *pipe);

static void trace_arrival(struct pipe *pipe, size_t length)
{
    struct world *world = pipe->from->connection->world;
    size_t at = (pipe->start + pipe->arrived) & (pipe->ring_size - 1);
    size_t first = length < pipe->ring_size - at ? length : pipe->ring_size - at;
    world_trace(world, pipe->ring + at, first);
    if (first < length)
        world_trace(world, pipe->ring, length - first);
}

static void piece_arrives(void *arg)
{
    struct pipe *pipe = arg;
    struct connection *connection = pipe->from->connection;
    pipe->scheduled = false;
    if (!connection->cut && !pipe->to->closed) {
        struct piece piece = pipe->pieces[pipe->first_piece];
        assert(pipe->piece_count > 0 && piece.length <= pipe->under_way);
        pipe->first_piece = (pipe->first_piece + 1) % PIECES_MAX;
        pipe->piece_count--;
        if (piece.length > 0)
            trace_arrival(pipe, piece.length);
        else
            pipe->ended = true;
        pipe->arrived += piece.length;
        pipe->under_way -= piece.length;
        wake(pipe->to->reader);
        if (pipe->ended)
            wake(pipe->to->writer);
        schedule(pipe);
    }
    event_over(connection);
}

static void schedule(struct pipe *pipe)
{
    struct connection *connection = pipe->from->connection;
    if (pipe->scheduled || pipe->piece_count == 0 || connection->cut || pipe->to->closed)
        return;
    uint64_t now_ns = world_now_ns(connection->world);
    uint64_t arrives_ns = pipe->pieces[pipe->first_piece].arrives_ns;
    pipe->scheduled = true;
    connection->pending++;
    loop_sim_after(pipe->to->channel.loop, arrives_ns > now_ns ? arrives_ns - now_ns : 0, piece_arrives, pipe_dropped,
                   pipe);
}

static void add_piece(struct pipe *pipe, size_t length)
{
    struct world *world = pipe->from->connection->world;
    struct piece *last = &pipe->pieces[(pipe->first_piece + pipe->piece_count - 1) % PIECES_MAX];
    if (length > 0 && pipe->piece_count >= PIECES_MAX - 1) { /* one stays free for the end of the stream */
        last->length += length;
        return;
    }
    uint64_t longest_ns = world_random(world, SLOW_ONE_IN) == 0 ? DELAY_SLOW_NS : DELAY_NS;
    uint64_t arrives_ns = world_now_ns(world) + 1 + world_random(world, longest_ns);
    if (pipe->piece_count > 0 && arrives_ns < last->arrives_ns)
        arrives_ns = last->arrives_ns;
    pipe->pieces[(pipe->first_piece + pipe->piece_count++) % PIECES_MAX] =
        (struct piece){ .arrives_ns = arrives_ns, .length = length };
}

static void set_mark(struct pipe *pipe, size_t length)
{
    uint64_t now_ns = world_now_ns(pipe->from->connection->world);
    pipe->bytes_written += length;
    if (pipe->mark_count > pipe->first_mark && pipe->marks[pipe->mark_count - 1].written_ns == now_ns) {
        pipe->marks[pipe->mark_count - 1].end = pipe->bytes_written;
        return;
    }
    if (pipe->mark_count == pipe->mark_capacity && pipe->first_mark > pipe->mark_capacity / 2) {
        pipe->mark_count -= pipe->first_mark;
        memmove(pipe->marks, pipe->marks + pipe->first_mark, pipe->mark_count * sizeof *pipe->marks);
        pipe->first_mark = 0;
    } else if (pipe->mark_count == pipe->mark_capacity) {
        pipe->mark_capacity = pipe->mark_capacity == 0 ? MARKS_FIRST : pipe->mark_capacity * 2;
        pipe->marks = memory_resize(pipe->marks, pipe->mark_capacity, sizeof *pipe->marks);
    }
    pipe->marks[pipe->mark_count++] = (struct mark){ .end = pipe->bytes_written, .written_ns = now_ns };
}

static void send_off(struct pipe *pipe, size_t length)
{
    struct world *world = pipe->from->connection->world;
    pipe->under_way += length;
    set_mark(pipe, length);
    while (length > 1 && world_random(world, SPLIT_ONE_IN) == 0) {
        size_t part = 1 + (size_t)world_random(world, length - 1);
        add_piece(pipe, part);
        length -= part;
    }
    add_piece(pipe, length);
    schedule(pipe);
}

static void send_end(struct pipe *pipe)
{
    if (pipe->ending)
        return;
    pipe->ending = true;
    add_piece(pipe, 0);
    schedule(pipe);
}

/* ---- the ring ---- */

static void grow_ring(struct pipe *pipe, size_t needed)
{
    size_t size = pipe->ring_size == 0 ? RING_FIRST : pipe->ring_size;
    while (size < needed && size < RING_MAX)
        size *= 2;
    if (size == pipe->ring_size)
        return;
    uint8_t *ring = memory_array(size, 1);
    size_t used = pipe->arrived + pipe->under_way;
    size_t first = used < pipe->ring_size - pipe->start ? used : pipe->ring_size - pipe->start;
    if (used > 0) {
        memcpy(ring, pipe->ring + pipe->start, first);
        memcpy(ring + first, pipe->ring, used - first);
    }
    free(pipe->ring);
    pipe->ring = ring;
    pipe->ring_size = size;
    pipe->start = 0;
}

static void copy_in(struct pipe *pipe, size_t offset, const uint8_t *bytes, size_t length)
{
    size_t at = (pipe->start + pipe->arrived + pipe->under_way + offset) & (pipe->ring_size - 1);
    size_t first = length < pipe->ring_size - at ? length : pipe->ring_size - at;
    memcpy(pipe->ring + at, bytes, first);
    memcpy(pipe->ring, bytes + first, length - first);
}

static void copy_out(struct pipe *pipe, uint8_t *bytes, size_t length)
{
    size_t first = length < pipe->ring_size - pipe->start ? length : pipe->ring_size - pipe->start;
    memcpy(bytes, pipe->ring + pipe->start, first);
    memcpy(bytes + first, pipe->ring, length - first);
    pipe->start = (pipe->start + length) & (pipe->ring_size - 1);
    pipe->arrived -= length;
    pipe->bytes_read += length;
    while (pipe->marks[pipe->first_mark].end < pipe->bytes_read)
        pipe->first_mark++;
}

/* ---- the channel ---- */

static int park(struct coroutine **waiter)
{
    *waiter = coroutine_self();
    int result = coroutine_park();
    *waiter = NULL;
    return result;
}

static ssize_t sim_read(struct channel *channel, const struct iovec *pieces, int count)
{
    struct end *self = end_of(channel);
    struct pipe *pipe = self->in;
    for (;;) {
        if (self->shut)
            return -ESHUTDOWN;
        if (self->broken != 0)
            return self->broken;
        if (coroutine_cancelled())
            return -ECANCELED;
        if (pipe->arrived > 0)
            break;
        if (pipe->ended)
            return 0;
        int result = park(&self->reader);
        if (result != 0)
            return result;
    }
    ssize_t got = 0;
    for (int i = 0; i < count && pipe->arrived > 0; i++) {
        size_t part = pieces[i].iov_len < pipe->arrived ? pieces[i].iov_len : pipe->arrived;
        copy_out(pipe, pieces[i].iov_base, part);
        got += (ssize_t)part;
    }
    wake(pipe->from->writer);
    return got;
}

/* Bytes not yet written. */
struct rest {
    const struct iovec *pieces;
    int count;
    size_t skip; /* of the first piece */
};

static size_t rest_length(const struct rest *rest, size_t at_most)
{
    size_t length = 0;
    for (int i = 0; i < rest->count && length < rest->skip + at_most; i++)
        length += rest->pieces[i].iov_len;
    return length - rest->skip < at_most ? length - rest->skip : at_most;
}

/* Puts into the ring what fits, and steps over it. */
static void fill(struct pipe *pipe, struct rest *rest)
{
    size_t used = pipe->arrived + pipe->under_way;
    size_t length = rest_length(rest, RING_MAX - used), filled = 0;
    if (length > 0)
        grow_ring(pipe, used + length);
    while (rest->count > 0) {
        size_t left = rest->pieces->iov_len - rest->skip;
        size_t part = left < length - filled ? left : length - filled;
        if (part > 0)
            copy_in(pipe, filled, (const uint8_t *)rest->pieces->iov_base + rest->skip, part);
        filled += part;
        rest->skip += part;
        if (part < left)
            break;
        rest->skip = 0;
        rest->pieces++;
        rest->count--;
    }
    if (filled > 0)
        send_off(pipe, filled);
}

/* 0, or why nothing can be written. */
static int writable(const struct end *self)
{
    if (self->shut)
        return -ESHUTDOWN;
    if (self->broken != 0)
        return self->broken;
    if (self->in->ended)
        return -EPIPE;
    return coroutine_cancelled() ? -ECANCELED : 0;
}

static int sim_write(struct channel *channel, const struct iovec *pieces, int count)
{
    struct end *self = end_of(channel);
    struct pipe *pipe = self->out;
    struct rest rest = { .pieces = pieces, .count = count };
    for (;;) {
        int state = writable(self);
        if (state != 0)
            return state;
        fill(pipe, &rest);
        if (rest.count == 0)
            return 0;
        int result = park(&self->writer);
        if (result != 0)
            return result;
    }
}

static ssize_t sim_write_some(struct channel *channel, const struct iovec *pieces, int count)
{
    struct end *self = end_of(channel);
    struct pipe *pipe = self->out;
    struct rest rest = { .pieces = pieces, .count = count };
    int state = writable(self);
    if (state != 0)
        return state;
    size_t before = pipe->arrived + pipe->under_way;
    fill(pipe, &rest);
    size_t sent = pipe->arrived + pipe->under_way - before;
    return sent > 0 ? (ssize_t)sent : park(&self->writer);
}

static int sim_wait_end(struct channel *channel)
{
    struct end *self = end_of(channel);
    for (;;) {
        if (self->shut)
            return -ESHUTDOWN;
        if (self->broken != 0)
            return self->broken;
        if (self->in->ended)
            return 0;
        int result = park(&self->reader);
        if (result != 0)
            return result;
    }
}

static size_t sim_unread(struct channel *channel)
{
    return end_of(channel)->in->arrived;
}

static void sim_shutdown(struct channel *channel)
{
    struct end *self = end_of(channel);
    if (self->shut)
        return;
    self->shut = true;
    send_end(self->out);
    wake(self->reader);
    wake(self->writer);
}

static void sim_close(struct channel *channel)
{
    struct end *self = end_of(channel);
    struct connection *connection = self->connection;
    send_end(self->out);
    self->closed = true;
    channel->loop->users--;
    free_if_done(connection);
}

static int sim_detach(struct channel *channel)
{
    return -ENOTSUP;
}

static const struct channel_ops sim_channel_ops = {
    .read = sim_read,
    .write = sim_write,
    .write_some = sim_write_some,
    .wait_end = sim_wait_end,
    .unread = sim_unread,
    .shutdown = sim_shutdown,
    .close = sim_close,
    .detach = sim_detach,
};

static void init_end(struct connection *connection, int index, struct loop *loop, struct loop *peer)
{
    struct end *self = &connection->ends[index];
    self->connection = connection;
    self->out = &connection->pipes[index];
    self->in = &connection->pipes[1 - index];
    self->out->from = self;
    self->in->to = self;
    self->channel = (struct channel){ .ops = &sim_channel_ops, .loop = loop };
    snprintf(self->channel.peer.name, sizeof self->channel.peer.name, "node %s", loop_sim_name(peer));
    snprintf(self->channel.peer.identity, sizeof self->channel.peer.identity, "node %s", loop_sim_name(peer));
    loop->users++;
}

void channel_sim_pair(struct loop *a, struct loop *b, struct channel **ret_a, struct channel **ret_b)
{
    struct connection *connection = memory_new(sizeof *connection);
    connection->world = loop_sim_world(a);
    assert(loop_sim_world(b) == connection->world);
    init_end(connection, 0, a, b);
    init_end(connection, 1, b, a);
    *ret_a = &connection->ends[0].channel;
    *ret_b = &connection->ends[1].channel;
}

static void end_notices(void *arg)
{
    struct end *end = arg;
    if (!end->closed) {
        end->broken = end->connection->cut_code;
        wake(end->reader);
        wake(end->writer);
    }
    event_over(end->connection);
}

/* From now on nothing arrives; each end is told `code` after `least_ns` and up to `more_ns` more. */
static void break_line(struct connection *connection, int code, uint64_t least_ns, uint64_t more_ns)
{
    if (connection->cut)
        return;
    connection->cut = true;
    connection->cut_code = code;
    for (int i = 0; i < 2; i++) {
        struct end *end = &connection->ends[i];
        if (end->closed)
            continue;
        connection->pending++;
        loop_sim_after(end->channel.loop, least_ns + world_random(connection->world, more_ns), end_notices, end_dropped,
                       end);
    }
}

void channel_sim_cut(struct channel *channel)
{
    break_line(end_of(channel)->connection, -ECONNRESET, 0, RESET_NS);
}

void channel_sim_silence(struct channel *channel, uint64_t notice_ns)
{
    break_line(end_of(channel)->connection, -ETIMEDOUT, notice_ns, NOTICE_MORE_NS);
}

uint64_t channel_sim_written_ns(const struct channel *channel)
{
    assert(channel->ops == &sim_channel_ops);
    const struct pipe *pipe = container_of(channel, struct end, channel)->in;
    return pipe->bytes_read == 0 ? 0 : pipe->marks[pipe->first_mark].written_ns;
}
