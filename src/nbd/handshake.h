/* The handshake: fixed newstyle, from the greeting to the chosen export. */
#ifndef CAIRN_NBD_HANDSHAKE_H
#define CAIRN_NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "nbd/limits.h"
#include "rt/coroutine.h"

struct connection;
struct nbd_service;

/* All that is known of a client that has not begun to send requests.  It owns nothing and refers to nothing, so it can
 * be handed to another thread with the socket. */
struct handshake {
    bool fixed; /* the client understands replies to options */
    bool no_zeroes;
    bool structured;
    bool aborted;           /* by the client, in the proper way */
    uint32_t options;       /* so far */
    uint64_t drained_bytes; /* of refused options' data */
    uint64_t patience_ns;   /* what is left of the deadline while it stands still */

    /* The export that the client named, once it has; `option` is EXPORT_NAME or GO, or 0. */
    uint32_t option;
    bool wants_name, wants_block_size;
    uint32_t name_length;
    char name[NBD_STRING_MAX];
};

enum handshake_outcome {
    HANDSHAKE_GO_ON, /* with the next option; handshake_run() never returns it */
    HANDSHAKE_CLOSE, /* the connection is at its end */
    HANDSHAKE_SERVE, /* the volume is open, the client has been told */
    HANDSHAKE_MOVE,  /* the named volume lives on another shard, to go on there with the option that is pending */
};

/* Runs the handshake of a new connection, or goes on with one that moved here.  For HANDSHAKE_MOVE `*ret_home` says
 * where to. */
CO enum handshake_outcome handshake_run(struct connection *connection, struct nbd_service **ret_home);

#endif
