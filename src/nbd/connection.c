/* The life of a connection: see connection.h for its states.
 *
 * A connection moves to another shard as its socket and its handshake, never
 * as itself: here it ends, there a new one begins where this one stopped. */
#include "nbd/connection.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/state.h"
#include "base/text.h"
#include "nbd/elders.h"
#include "nbd/opening.h"
#include "nbd/reply.h"
#include "nbd/request.h"
#include "nbd/transmission.h"

static const char *const state_names[] = { "HANDSHAKE", "OPENING", "SERVING", "FINISHING", "ENDED" };
static const uint32_t state_moves[] = {
    [CONNECTION_HANDSHAKE] = 1u << CONNECTION_OPENING | 1u << CONNECTION_ENDED,
    [CONNECTION_OPENING] = 1u << CONNECTION_HANDSHAKE | 1u << CONNECTION_SERVING | 1u << CONNECTION_ENDED,
    [CONNECTION_SERVING] = 1u << CONNECTION_FINISHING,
    [CONNECTION_FINISHING] = 1u << CONNECTION_ENDED,
    [CONNECTION_ENDED] = 0,
};
static const struct state_table states = {
    .machine = "connection",
    .names = state_names,
    .moves = state_moves,
    .count = sizeof state_moves / sizeof *state_moves,
};

void connection_move(struct connection *connection, enum connection_state to)
{
    state_move(&states, &connection->state, (int)to);
}

/* ---- moving to the shard of the volume ---- */

struct transfer {
    struct nbd_service *to;
    int fd;
    struct handshake *handshake;
};

static void arrive(void *arg)
{
    struct transfer *transfer = arg;
    struct nbd_service *service = transfer->to;
    struct error error = ERROR_NONE;
    struct channel *channel;
    if (channel_socket_new(service->wiring.loop, transfer->fd, &channel, &error) < 0) {
        event_raise(service->wiring.events, EVENT_WARNING, "client", "lost between two shards: %s", error.story);
        free(transfer->handshake);
    } else {
        connection_start(service, channel, transfer->handshake);
    }
    free(transfer);
}

static void move_to(struct connection *connection, struct nbd_service *home)
{
    /* Only real sockets have more than one shard to live on. */
    int fd = channel_detach(connection->channel);
    assert(fd >= 0);
    connection->channel = NULL;
    struct transfer *transfer = memory_new(sizeof *transfer);
    *transfer = (struct transfer){ .to = home, .fd = fd, .handshake = connection->handshake };
    connection->handshake = NULL;
    loop_post(home->wiring.loop, arrive, transfer);
}

/* ---- from the first byte to the last ---- */

static void volume_gone(struct volume_watch *watch)
{
    struct connection *connection = container_of(watch, struct connection, watch);
    connection->lost = true;
    /* Requests under way fail by themselves; that can still be told. */
    connection_finish(connection, "its volume was lost to another owner");
    watchdog_hurry(&connection->patience, NBD_FAREWELL_MS * NS_PER_MS);
    reply_wake_sender(connection);
}

static void volume_resumed(struct volume_watch *watch)
{
    reply_wake_sender(container_of(watch, struct connection, watch));
}

static void tell_end(struct connection *connection, bool served)
{
    struct event_sink *events = connection->service->wiring.events;
    const char *end = connection->end != NULL ? connection->end : "was cut off";
    if (served)
        event_raise(events, EVENT_INFO, connection->subject, "detached from %s: %s", volume_subject(connection->volume),
                    end);
    else
        event_raise(events, EVENT_DEBUG, connection->subject, "%s", end);
}

static void connection_free(struct connection *connection)
{
    struct nbd_service *service = connection->service;
    connection_move(connection, CONNECTION_ENDED);
    assert(connection->group.count == 0 && connection->in_flight == 0 && list_empty(&connection->changes));
    watchdog_end(&connection->patience);
    watchdog_end(&connection->payload_stall);
    watchdog_end(&connection->send_stall);
    elders_leave(connection);
    export_leave(connection);
    if (connection->volume != NULL)
        volumes_release(service->wiring.volumes, connection->volume, connection->vanished);
    if (connection->channel != NULL)
        channel_close(connection->channel);
    request_free_spare(connection);
    free(connection->receive);
    free(connection->handshake);
    service_forget(service, connection);
    free(connection);
}

static CO void connection_main(void *arg)
{
    struct connection *connection = arg;
    struct nbd_service *service = connection->service;
    struct nbd_service *home = NULL;
    enum handshake_outcome outcome = handshake_run(connection, &home);
    if (outcome == HANDSHAKE_MOVE) {
        move_to(connection, home);
    } else if (outcome == HANDSHAKE_SERVE) {
        free(connection->handshake);
        connection->handshake = NULL;
        event_raise(service->wiring.events, EVENT_INFO, connection->subject, "attached to %s",
                    volume_subject(connection->volume));
        transmission_run(connection);
        tell_end(connection, true);
    } else {
        service->counts.handshakes_failed += !connection->handshake->aborted;
        tell_end(connection, false);
    }
    connection_free(connection);
}

static struct handshake *handshake_new(const struct nbd_settings *settings)
{
    struct handshake *handshake = memory_new(sizeof *handshake);
    handshake->patience_ns = settings->handshake_ms * NS_PER_MS;
    return handshake;
}

static void refuse_connection(struct nbd_service *service, struct channel *channel)
{
    service->counts.refused++;
    /* Once each time that the limit is reached: whoever hammers at the door should not fill the log too. */
    if (!service->draining && !service->full)
        event_raise(service->wiring.events, EVENT_WARNING, channel->peer.name,
                    "refused, as more will be: there are %u connections, which is the limit",
                    service->settings.connections);
    service->full = true;
    channel_close(channel);
}

/* Whether others wait for memory that this connection may be holding (nbd/watchdog.h). */

static bool never(const void *arg)
{
    return false;
}

static bool writers_wait(const void *arg)
{
    const struct connection *connection = arg;
    return volumes_writers_wait(connection->service->wiring.volumes);
}

static bool readers_wait(const void *arg)
{
    const struct connection *connection = arg;
    return volumes_readers_wait(connection->service->wiring.volumes);
}

void connection_start(struct nbd_service *service, struct channel *channel, struct handshake *handshake)
{
    struct loop *loop = service->wiring.loop;
    if (service->draining || service->counts.connections >= service->settings.connections) {
        refuse_connection(service, channel);
        free(handshake);
        return;
    }
    struct connection *connection = memory_new(sizeof *connection);
    connection->service = service;
    connection->loop = loop;
    connection->channel = channel;
    connection->state = CONNECTION_HANDSHAKE;
    connection->handshake = handshake != NULL ? handshake : handshake_new(&service->settings);
    connection->receive = memory_resize(NULL, NBD_RECEIVE_BYTES, 1); /* pages that are never used are never touched */
    connection->watch.gone = volume_gone;
    connection->watch.resumed = volume_resumed;
    snprintf(connection->subject, sizeof connection->subject, "client %s", channel->peer.name);
    list_init(&connection->watch.link);
    list_init(&connection->in_export);
    list_init(&connection->spare);
    list_init(&connection->replies);
    list_init(&connection->held);
    list_init(&connection->changes);
    list_init(&connection->juniors);
    list_init(&connection->elders);
    waitq_init(&connection->elders_done);
    waitq_init(&connection->room);
    group_init(&connection->group, loop);
    watchdog_init(&connection->patience, loop, channel, never, connection);
    watchdog_init(&connection->payload_stall, loop, channel, writers_wait, connection);
    watchdog_init(&connection->send_stall, loop, channel, readers_wait, connection);
    list_init(&connection->in_service);
    list_push_back(&service->connections, &connection->in_service);
    service->counts.connections++;
    service->counts.connections_total++;
    group_spawn(&service->group, "connection", connection_main, connection);
}

/* ---- who is there ---- */

bool connection_same_peer(const struct connection *a, const struct connection *b)
{
    return strcmp(a->channel->peer.identity, b->channel->peer.identity) == 0;
}

void connection_note_error(struct connection *connection, int code)
{
    /* TCP's own timeouts; what a router said of the way there comes in their place. */
    if (code == -ETIMEDOUT || code == -EHOSTUNREACH || code == -ENETUNREACH || code == -EHOSTDOWN)
        connection->vanished = true;
}

/* ---- ending it from outside ---- */

void connection_finish(struct connection *connection, const char *end)
{
    if (connection->end == NULL)
        connection->end = end;
    if (connection->reader != NULL)
        task_cancel(connection->reader);
}

void connection_drain(struct connection *connection)
{
    if (connection->state == CONNECTION_HANDSHAKE)
        watchdog_hurry(&connection->patience, NBD_HANDSHAKE_DRAIN_MS * NS_PER_MS);
    else
        connection_finish(connection, "the server is shutting down");
    if (connection->opening != NULL)
        opening_end(connection->opening);
}

void connection_supersede(struct connection *connection)
{
    if (connection->end == NULL)
        connection->end = "gave way to a newer connection of its client, which waited for it; what it had begun was "
                          "not done";
    connection->broken = true;
    channel_shutdown(connection->channel);
    reply_wake_sender(connection);
}

void connection_cut(struct connection *connection)
{
    channel_shutdown(connection->channel);
    group_cancel(&connection->group);
}
