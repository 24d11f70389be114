/* Exports: which connections serve which volume, and who may share one.
 *
 * A file system that two hosts mount at once is soon no file system.  So by
 * default all connections to a volume must come from one peer: the same address,
 * or on a unix socket the same user.  Who is kept out is told who is in.  Those
 * whose client has hung up are not in any more, even while what it had sent is
 * being carried out (elders.c sees to it that nothing comes too late).
 *
 * Invariant: an export is in its service's list exactly while it has
 * connections. */
#include "nbd/connection.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "nbd/elders.h"

static struct nbd_export *find(struct nbd_service *service, const struct volume *volume)
{
    list_for_each (node, &service->exports) {
        struct nbd_export *export = container_of(node, struct nbd_export, in_service);
        if (export->volume == volume)
            return export;
    }
    return NULL;
}

/* ---- who may share ---- */

static bool in_the_way(const struct connection *connection, const struct connection *other)
{
    switch (connection->service->settings.sharing) {
    case NBD_SHARING_SINGLE:
        return !connection_hung_up(other);
    case NBD_SHARING_PEER:
        return !connection_hung_up(other) && !connection_same_peer(connection, other);
    case NBD_SHARING_ANY:
        return false;
    }
    assert(!"a policy that there is");
    return true;
}

static int refuse(const struct connection *first, unsigned count, struct error *error)
{
    char since[32] = "an unknown time", others[48] = "";
    time_t seconds = (time_t)(first->joined_wall_ns / NS_PER_S);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) != NULL)
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S UTC", &tm);
    if (count > 1)
        snprintf(others, sizeof others, ", with %u connections", count);
    if (first->service->settings.sharing == NBD_SHARING_SINGLE)
        return error_set(error, EBUSY,
                         "%s is in use by %s since %s: with --sharing=single it takes one connection at a time; a "
                         "client that needs several can have them with --sharing=peer",
                         volume_subject(first->volume), first->channel->peer.name, since);
    return error_set(error, EBUSY,
                     "%s is in use by %s since %s%s: disconnect that first; if the two can share a disk, as a cluster "
                     "file system does, the server's --sharing=any lets both in",
                     volume_subject(first->volume), first->channel->peer.identity, since, others);
}

static int admit(const struct connection *connection, const struct nbd_export *export, struct error *error)
{
    const struct connection *first = NULL;
    unsigned count = 0;
    list_for_each (node, &export->connections) {
        const struct connection *other = container_of(node, struct connection, in_export);
        if (!in_the_way(connection, other))
            continue;
        if (first == NULL)
            first = other;
        count++;
    }
    return first != NULL ? refuse(first, count, error) : 0;
}

/* ---- joining and leaving ---- */

int export_join(struct connection *connection, struct error *error)
{
    struct nbd_service *service = connection->service;
    assert(connection->volume != NULL && connection->export == NULL && !list_linked(&connection->in_export));
    struct nbd_export *export = find(service, connection->volume);
    int rc = export != NULL ? admit(connection, export, error) : 0;
    if (rc < 0)
        return rc;
    if (export == NULL) {
        export = memory_new(sizeof *export);
        export->volume = connection->volume;
        list_init(&export->connections);
        list_push_back(&service->exports, &export->in_service);
    }
    list_push_back(&export->connections, &connection->in_export);
    connection->export = export;
    connection->joined_wall_ns = loop_wall_ns(connection->loop);
    elders_note(connection);
    volume_watch(connection->volume, &connection->watch);
    return 0;
}

void export_leave(struct connection *connection)
{
    struct nbd_export *export = connection->export;
    if (export == NULL)
        return;
    assert(list_empty(&connection->juniors) && list_empty(&connection->elders));
    volume_unwatch(&connection->watch);
    list_remove(&connection->in_export);
    connection->export = NULL;
    if (!list_empty(&export->connections))
        return;
    list_remove(&export->in_service);
    free(export);
}
