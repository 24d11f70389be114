/* Exports: which connections serve which volume.
 *
 * What one client of a volume does may concern the others: who may share it,
 * and that nothing which a client's lost connection had sent overtakes what
 * its next one sends.  Both ask this list.
 *
 * Invariant: an export is in its service's list exactly while it has
 * connections. */
#include "nbd/connection.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"

static struct nbd_export *find(struct nbd_service *service, const struct volume *volume)
{
    list_for_each (node, &service->exports) {
        struct nbd_export *export = container_of(node, struct nbd_export, in_service);
        if (export->volume == volume)
            return export;
    }
    return NULL;
}

void export_join(struct connection *connection)
{
    struct nbd_service *service = connection->service;
    assert(connection->volume != NULL && !list_linked(&connection->in_export));
    struct nbd_export *export = find(service, connection->volume);
    if (export == NULL) {
        export = memory_new(sizeof *export);
        export->volume = connection->volume;
        list_init(&export->connections);
        list_push_back(&service->exports, &export->in_service);
    }
    list_push_back(&export->connections, &connection->in_export);
    volume_watch(connection->volume, &connection->watch);
}

void export_leave(struct connection *connection)
{
    if (!list_linked(&connection->in_export))
        return;
    volume_unwatch(&connection->watch);
    list_remove(&connection->in_export);
    struct nbd_export *export = find(connection->service, connection->volume);
    assert(export != NULL);
    if (!list_empty(&export->connections))
        return;
    list_remove(&export->in_service);
    free(export);
}
