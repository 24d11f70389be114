/* Waiting for older connections: see elders.h.
 *
 * What a connection has received is a stream of bytes, and each request stands
 * at a place in it.  When a new connection joins the export, the place that each
 * older one's stream has come to is noted, with what still lies in the kernel's
 * buffer.  The new connection's first request waits until each has looked at its
 * stream up to there, and has made those changes (WRITE, TRIM, WRITE_ZEROES) that
 * stand before it: a read or a flush that comes late does no harm.  What a living
 * sibling receives later is nobody's concern: the first request may come long
 * after the connection.
 *
 *     elder's stream   | looked at |  received  | in the kernel |
 *                         ^change     ^half a WRITE             ^ the junior waits up to here
 *
 * An elder is a connection of the same client to the same volume that joined
 * before, or of anybody who has hung up.  Nobody waits for younger ones, so no
 * two ever wait for each other.
 *
 * With several connections that a client opens side by side there is nothing to
 * wait for: as a rule nothing was received, and what was is looked at in the same
 * turn of the loop, where most changes are made.  What can take long: half a WRITE whose rest does not come, since
 * its client is gone without a word; replies that nobody takes, so that the
 * reader has stopped; a change of a part of a page, which needs the store.  The
 * junior waits for a short time when its elder waits for its client, and for a
 * longer one when it waits for the store (limits.h).  Then an elder that has begun
 * a change is cut off.  One that has not may be a living sibling that is slow to
 * take what it has read, so it stays; but should a change turn up before the place
 * that the junior waited for, it is cut off then.  What is not done so is never
 * done, and its client was never told otherwise.  Time does not count while the
 * lease is in doubt: replies are held then, and nobody can make progress. */
#include "nbd/elders.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "nbd/connection.h"
#include "nbd/reply.h"
#include "nbd/request.h"
#include "rt/loop.h"

/* How often a junior looks whether its elders do anything, within their time to do so. */
#define LOOKS 10

struct elder_wait {
    struct list in_elder, in_junior;
    struct connection *elder, *junior;
    uint64_t until; /* the place in the elder's stream */
    /* As of the last look: */
    uint64_t progress;
    uint64_t stalled_ns; /* how long nothing has changed */
    uint64_t waited_ns;
};

static struct request *first_change(const struct connection *connection)
{
    return list_empty(&connection->changes) ? NULL : container_of(connection->changes.next, struct request, in_changes);
}

static bool settled(const struct connection *elder, uint64_t until)
{
    if (!connection_hung_up(elder) && connection_place(elder) < until)
        return false;
    const struct request *first = first_change(elder);
    return first == NULL || first->place >= until;
}

static void wait_over(struct elder_wait *wait)
{
    struct connection *junior = wait->junior;
    list_remove(&wait->in_elder);
    list_remove(&wait->in_junior);
    free(wait);
    if (list_empty(&junior->elders))
        waitq_wake_all(&junior->elders_done);
}

void elders_progress(struct connection *connection)
{
    list_for_each_safe (node, &connection->juniors) {
        struct elder_wait *wait = container_of(node, struct elder_wait, in_elder);
        if (settled(connection, wait->until))
            wait_over(wait);
    }
}

void elders_change_begins(struct request *request)
{
    struct connection *connection = request->connection;
    if (list_linked(&request->in_changes))
        return;
    list_push_back(&connection->changes, &request->in_changes);
    /* It may stand behind what others wait for, and take long. */
    elders_progress(connection);
}

void elders_change_ends(struct request *request)
{
    if (!list_linked(&request->in_changes))
        return;
    list_remove(&request->in_changes);
    elders_progress(request->connection);
}

/* ---- the junior ---- */

static bool is_elder(const struct connection *other, const struct connection *connection)
{
    return connection_hung_up(other) || connection_same_peer(other, connection);
}

static uint64_t measure(const struct connection *elder)
{
    const struct request *first = first_change(elder);
    return elder->stream_bytes + connection_place(elder) + (first != NULL ? first->place : 0);
}

void elders_note(struct connection *connection)
{
    if (connection->service->settings.read_only)
        return;
    /* Those that joined the export before stand before us. */
    for (struct list *node = connection->in_export.prev; node != &connection->export->connections; node = node->prev) {
        struct connection *other = container_of(node, struct connection, in_export);
        uint64_t until = other->stream_bytes + (connection_hung_up(other) ? 0 : channel_unread(other->channel));
        if (!is_elder(other, connection) || settled(other, until))
            continue;
        struct elder_wait *wait = memory_new(sizeof *wait);
        *wait = (struct elder_wait){ .elder = other, .junior = connection, .until = until, .progress = measure(other) };
        list_init(&wait->in_elder);
        list_init(&wait->in_junior);
        list_push_back(&other->juniors, &wait->in_elder);
        list_push_back(&connection->elders, &wait->in_junior);
    }
}

/* Whether it is the elder's client that keeps it from going on. */
static bool waits_for_client(const struct elder_wait *wait)
{
    const struct connection *elder = wait->elder;
    if (elder->payload_stall.deadline_ns != 0)
        return true;
    return connection_place(elder) < wait->until && (elder->channel->reading || elder->channel->writing);
}

/* Whether the elder has had its time; `passed_ns` since the last look. */
static bool time_is_up(struct elder_wait *wait, uint64_t passed_ns)
{
    const struct nbd_settings *settings = &wait->junior->service->settings;
    uint64_t progress = measure(wait->elder);
    /* One that waits itself will go on when those before it do. */
    if (!list_empty(&wait->elder->elders) || !volume_may_answer(wait->elder->volume))
        return false;
    wait->waited_ns += passed_ns;
    wait->stalled_ns = progress == wait->progress && waits_for_client(wait) ? wait->stalled_ns + passed_ns : 0;
    wait->progress = progress;
    return wait->stalled_ns >= settings->elder_stall_ms * NS_PER_MS ||
           wait->waited_ns >= settings->elder_wait_ms * NS_PER_MS;
}

/* Not to be waited for any longer. */
static void go_ahead(struct elder_wait *wait)
{
    struct connection *elder = wait->elder;
    const struct request *first = first_change(elder);
    if (first != NULL && first->place < wait->until) {
        connection_supersede(elder); /* the wait is over when it has let go of the change */
        return;
    }
    if (elder->barrier < wait->until)
        elder->barrier = wait->until;
    wait_over(wait);
}

static void look(struct connection *connection, uint64_t passed_ns)
{
    list_for_each_safe (node, &connection->elders) {
        struct elder_wait *wait = container_of(node, struct elder_wait, in_junior);
        if (settled(wait->elder, wait->until))
            wait_over(wait);
        else if (time_is_up(wait, passed_ns))
            go_ahead(wait);
    }
}

CO int elders_await(struct connection *connection)
{
    uint64_t pause_ns = connection->service->settings.elder_stall_ms * NS_PER_MS / LOOKS;
    int rc = 0;
    while (!list_empty(&connection->elders) && rc != -ECANCELED) {
        uint64_t since_ns = loop_now_ns(connection->loop);
        rc = waitq_wait_until(&connection->elders_done, since_ns + pause_ns);
        look(connection, loop_now_ns(connection->loop) - since_ns);
    }
    return rc == -ECANCELED ? rc : 0;
}

void elders_leave(struct connection *connection)
{
    list_for_each_safe (node, &connection->elders)
        wait_over(container_of(node, struct elder_wait, in_junior));
    list_for_each_safe (node, &connection->juniors)
        wait_over(container_of(node, struct elder_wait, in_elder));
}
