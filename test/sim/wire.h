/* The client's half of the NBD protocol, as the simulator's clients speak it: written after the specification, not
 * with the server's own codec, so that a mistake there cannot hide itself. */
#ifndef CAIRN_SIM_WIRE_H
#define CAIRN_SIM_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/channel.h"

enum wire_command {
    WIRE_READ = 0,
    WIRE_WRITE = 1,
    WIRE_DISC = 2,
    WIRE_FLUSH = 3,
    WIRE_TRIM = 4,
    WIRE_CACHE = 5,
    WIRE_WRITE_ZEROES = 6,
};
#define WIRE_COMMANDS 7

#define WIRE_FLAG_FUA 1u
#define WIRE_FLAG_NO_HOLE 2u

/* Errors on the wire. */
#define WIRE_EIO 5u
#define WIRE_EINVAL 22u
#define WIRE_ENOSPC 28u
#define WIRE_ESHUTDOWN 108u

struct wire {
    struct channel *channel;
    bool structured; /* was negotiated */
    uint64_t size;   /* of the export */
    uint16_t flags;  /* of the export */
};

/* The whole handshake. 0; -EBUSY: the server refuses the export, `ret_refusal` says how; -EPROTO: the server broke the
 * protocol; or the channel's error, with -EPIPE for an end of the stream. */
#define WIRE_REFUSAL_MAX 200
CO int wire_handshake(struct wire *wire, struct channel *channel, const char *name, bool want_structured,
                      bool by_export_name, char ret_refusal[WIRE_REFUSAL_MAX]);

#define WIRE_REQUEST_BYTES 28
void wire_encode(uint16_t flags, enum wire_command command, uint64_t handle, uint64_t offset, uint32_t length,
                 uint8_t ret_bytes[WIRE_REQUEST_BYTES]);

/* Where the reply to a READ goes. */
struct wire_target {
    bool known; /* such a request is under way */
    bool read;
    uint64_t offset;
    uint32_t length;
    uint8_t *bytes;
    uint32_t *filled; /* bytes that came so far */
};

struct wire_reply {
    uint64_t handle;
    bool done;      /* no more of this handle */
    uint32_t error; /* on the wire; 0: none */
};

/* One simple reply or one chunk. 0, -EPROTO, or the channel's error. */
CO int wire_receive(struct wire *wire, struct wire_target (*target)(void *arg, uint64_t handle), void *arg,
                    struct wire_reply *ret_reply);

#endif
