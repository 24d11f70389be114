/* The NBD service of one shard: its settings, its books, its end.
 *
 * Draining takes the reader from every connection, so that what was received
 * is answered and nothing more is; connections then end by themselves.  Those
 * that do not until the deadline are cut: their tasks are cancelled, and every
 * park in them returns at once. */
#include "nbd/service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "nbd/connection.h"

struct nbd_settings nbd_settings_default(void)
{
    return (struct nbd_settings){
        .default_size = UINT64_C(1) << 30,
        .handshake_ms = NBD_HANDSHAKE_MS,
        .send_stall_ms = NBD_SEND_STALL_MS,
        .payload_stall_ms = NBD_PAYLOAD_STALL_MS,
        .elder_stall_ms = NBD_ELDER_STALL_MS,
        .elder_wait_ms = NBD_ELDER_WAIT_MS,
        .sharing = NBD_SHARING_PEER,
        .connections = NBD_CONNECTIONS,
        .requests_in_flight = NBD_REQUESTS_IN_FLIGHT,
        .tasks = NBD_TASKS,
        .bytes_in_flight = NBD_BYTES_IN_FLIGHT,
    };
}

uint64_t nbd_connection_bytes(void)
{
    return sizeof(struct connection) + NBD_RECEIVE_BYTES;
}

struct nbd_service *nbd_service_new(const struct nbd_wiring *wiring, const struct nbd_settings *settings)
{
    assert(wiring->loop != NULL && wiring->volumes != NULL && wiring->home != NULL);
    assert(settings->connections > 0 && settings->requests_in_flight > 0 && settings->default_size > 0);
    struct nbd_service *service = memory_new(sizeof *service);
    service->wiring = *wiring;
    service->settings = *settings;
    list_init(&service->connections);
    list_init(&service->exports);
    waitq_init(&service->empty);
    waitq_init(&service->task_room);
    group_init(&service->group, wiring->loop);
    return service;
}

void nbd_service_accept(struct nbd_service *service, struct channel *channel)
{
    assert(channel != NULL);
    connection_start(service, channel, NULL);
}

void service_forget(struct nbd_service *service, struct connection *connection)
{
    assert(service->counts.connections > 0);
    list_remove(&connection->in_service);
    service->counts.connections--;
    service->full = false;
    if (list_empty(&service->connections))
        waitq_wake_all(&service->empty);
}

CO void nbd_service_drain(struct nbd_service *service, uint64_t deadline_ns)
{
    service->draining = true;
    list_for_each_safe (node, &service->connections)
        connection_drain(container_of(node, struct connection, in_service));
    while (!list_empty(&service->connections)) {
        if (waitq_wait_until(&service->empty, deadline_ns) < 0)
            break;
    }
    nbd_service_abort(service);
}

void nbd_service_cut(struct nbd_service *service)
{
    service->draining = true;
    list_for_each_safe (node, &service->connections)
        connection_cut(container_of(node, struct connection, in_service));
    group_cancel(&service->group);
}

CO void nbd_service_abort(struct nbd_service *service)
{
    nbd_service_cut(service);
    group_join(&service->group);
    assert(list_empty(&service->connections) && list_empty(&service->exports) && service->tasks == 0);
}

void nbd_service_free(struct nbd_service *service)
{
    if (service == NULL)
        return;
    assert(service->draining && list_empty(&service->connections));
    free(service);
}

struct nbd_counts nbd_service_read_counts(const struct nbd_service *service)
{
    return service->counts;
}
