/* The NBD service of one shard: the front door of the protocol.
 *
 * A connection is a channel handed to nbd_service_accept(): it handshakes on
 * whatever shard accepted it, and moves, once its client has named an export
 * (EXPORT_NAME, GO), to the shard where that volume lives (`home`).  There
 * nbd/transmission.c serves its requests until either side leaves.
 *
 * All calls come from the service's own thread. */
#ifndef CAIRN_NBD_SERVICE_H
#define CAIRN_NBD_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/event.h"
#include "rt/channel.h"
#include "rt/loop.h"
#include "vol/volume.h"

struct nbd_service;

/* Who may connect to a volume that somebody is connected to (nbd/export.c).  A peer is what struct peer's `identity`
 * says. */
enum nbd_sharing {
    NBD_SHARING_SINGLE, /* nobody */
    NBD_SHARING_PEER,   /* the same peer */
    NBD_SHARING_ANY,    /* anybody */
};

/* All of them have a default and a reason in nbd/limits.h. */
struct nbd_settings {
    uint64_t default_size;       /* of a volume that is created on first connection */
    bool read_only;              /* every export is */
    enum nbd_sharing sharing;    /* peer */
    uint64_t handshake_ms;       /* for the whole handshake */
    uint64_t send_stall_ms;      /* a peer that takes nothing of its replies for so long is cut off */
    uint64_t payload_stall_ms;   /* one that sends nothing more of a WRITE's payload likewise */
    uint64_t elder_stall_ms;     /* a connection that a newer one of its client waits for, and that does nothing */
    uint64_t elder_wait_ms;      /* the newer one's whole wait for it */
    uint32_t connections;        /* at once, on this shard */
    uint32_t requests_in_flight; /* per connection */
    uint32_t tasks;           /* requests that wait for the store at once, on this shard; a few more per connection */
    uint64_t bytes_in_flight; /* per connection: replies not yet sent, and reads under way */
};
struct nbd_settings nbd_settings_default(void);

struct nbd_wiring {
    struct loop *loop;
    struct volumes *volumes; /* of this shard */
    struct store *store;     /* of this shard, for LIST */
    struct event_sink *events;
    /* The service on whose shard the volume of that name lives; may be this one.  Called on any shard's thread. */
    struct nbd_service *(*home)(void *arg, const char *name, size_t name_length);
    void *arg;
};

struct nbd_service *nbd_service_new(const struct nbd_wiring *wiring, const struct nbd_settings *settings);

/* Memory that a connection takes beside its requests: `settings.connections` times this is what a shard's connections
 * may take. */
uint64_t nbd_connection_bytes(void);

/* Takes over the channel and serves it in a task of its own; over the cap of connections, closes it at once. */
void nbd_service_accept(struct nbd_service *service, struct channel *channel);

/* No new connections and requests; what was received is finished and answered, then each connection is closed.
 * Returns when all are gone, or at `deadline_ns` after cutting off those that remain. */
CO void nbd_service_drain(struct nbd_service *service, uint64_t deadline_ns);
/* Cuts all connections at once and accepts no more, without waiting: a drain under way then ends soon. */
void nbd_service_cut(struct nbd_service *service);
/* The same; returns when their tasks are gone.  Not while a drain is under way. */
CO void nbd_service_abort(struct nbd_service *service);
/* After one of the two, on every service: a connection that was on its way from one shard to another has arrived, and
 * was closed, once a loop_post() made after all are drained has run. */
void nbd_service_free(struct nbd_service *service);

struct nbd_counts {
    uint64_t connections, connections_total, refused;
    uint64_t requests[8]; /* by command: READ 0, WRITE 1, DISC 2, FLUSH 3, TRIM 4, CACHE 5, WRITE_ZEROES 6 */
    uint64_t errors;      /* requests answered with an error */
    uint64_t bytes_read, bytes_written;
    uint64_t handshakes_failed;
};
struct nbd_counts nbd_service_read_counts(const struct nbd_service *service);

#endif
