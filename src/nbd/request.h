/* One request: checked, carried out, answered. */
#ifndef CAIRN_NBD_REQUEST_H
#define CAIRN_NBD_REQUEST_H

#include <stdint.h>

#include "base/list.h"
#include "nbd/codec.h"
#include "vol/volume.h"

struct connection;

struct request {
    struct list link; /* in its connection's `spare`, `replies` or `held` */
    struct connection *connection;
    struct nbd_request wire;
    uint32_t counted_bytes; /* in the connection's bytes_in_flight */
    uint64_t place;         /* where it begins in the connection's stream */
    struct list in_changes; /* of its connection, while it waits and will change the disk (elders.c) */

    CO int (*work)(struct request *request, struct error *error); /* what its task does */

    struct volume_data data;   /* what a READ answers */
    struct volume_write write; /* of a WRITE, between begin and finish */

    /* The reply: the header, then either the data or the message. */
    uint8_t header[NBD_CHUNK_OFFSET_BYTES];
    uint32_t header_length;
    char *message; /* NULL: none */
    uint32_t message_length;
    bool failed;          /* it is an error */
    bool header_sent;     /* and the message */
    uint32_t pieces_sent; /* of the data */
};

/* Waits until the connection may have one more request that answers with `read_bytes`.
 * -ECANCELED when no more is to be started. */
CO int request_take(struct connection *connection, uint32_t read_bytes, struct request **ret_request);
/* Back into the pool: its reply was sent, or nobody wants it. */
void request_release(struct request *request);
void request_free_spare(struct connection *connection); /* when the connection ends */

/* 0, or -errno with the story: what is wrong with it.  Nothing but the request and the export's properties counts. */
int request_check(const struct connection *connection, const struct nbd_request *wire, struct error *error);

/* Whether a command, of any kind, would change the disk. */
bool request_changes(uint16_t command);

/* Carries out a request that passed the check and answers it, at once or from a task; waits while too many tasks are
 * under way.  Not for WRITE and DISC. */
CO void request_start(struct request *request);
/* Answers a change that the caller has made. */
CO void request_changed(struct request *request);
/* As request_start() for a WRITE whose payload was received. */
CO void request_start_write(struct request *request);
/* Answers at once. */
void request_fail(struct request *request, int code, const struct error *error);

#endif
