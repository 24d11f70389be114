/* What the files of the protocol layer share: the service and its exports.
 *
 * How a connection's data flows: transmission.c receives and parses,
 * request.c checks and carries out, reply.c answers. */
#ifndef CAIRN_NBD_INTERNAL_H
#define CAIRN_NBD_INTERNAL_H

#include "base/list.h"
#include "nbd/service.h"
#include "rt/task.h"
#include "rt/wait.h"

struct connection;

struct nbd_service {
    struct nbd_wiring wiring;
    struct nbd_settings settings;
    struct nbd_counts counts;
    struct group group;      /* each connection's first task */
    struct list connections; /* struct connection in_service */
    struct list exports;     /* struct nbd_export in_service */
    struct waitq empty;      /* nbd_service_drain() waits for the last connection's end */
    uint32_t tasks;          /* requests that wait for the store */
    struct waitq task_room;  /* readers wait for their number to fall */
    bool draining;
    bool full; /* the limit of connections was reached, and that was told */
};

/* A volume as clients see it: all connections that are attached to it, on this shard, that is, anywhere. */
struct nbd_export {
    struct list in_service;
    struct volume *volume;
    struct list connections; /* struct connection in_export, in the order in which they came */
};

/* Adds a connection, whose volume is set, unless the rules of sharing keep it out: -EBUSY, and who is in. */
int export_join(struct connection *connection, struct error *error);
void export_leave(struct connection *connection); /* harmless when it has not joined */

/* Lets a connection, which has freed itself otherwise, out of the books. */
void service_forget(struct nbd_service *service, struct connection *connection);

#endif
