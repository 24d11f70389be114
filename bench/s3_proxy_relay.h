/* Moving messages from one socket to the other, no faster than a stream may go. */
#ifndef CAIRN_BENCH_S3_PROXY_RELAY_H
#define CAIRN_BENCH_S3_PROXY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "s3_proxy_head.h"

#define LINK_BYTES (256u << 10) /* received ahead of what may be passed on; also the longest head */

uint64_t clock_ns(void);

/* A socket that does not block, and what has been received from it but not used. */
struct link {
    int fd; /* -1: none */
    char *in;
    size_t begin, end;
    bool ended; /* nothing more comes */
};

/* > 0: something more is there, 0: nothing is now, < 0: nothing ever will be. */
int link_fill(struct link *link);
void link_close(struct link *link);

/* When a stream may move on.  It must not catch up more than PACE_BURST of what it did not use. */
struct pace {
    double bytes_per_ns; /* 0: as fast as it goes */
    uint64_t begun_ns, moved;
};

/* How many of the `want` bytes may move now; 0: none before *ret_when_ns. */
size_t pace_allows(struct pace *pace, size_t want, uint64_t *ret_when_ns);

/* One message, being passed on byte for byte. */
struct relay {
    size_t head_left; /* of the head, at the beginning of what was received */
    struct body body;
    size_t ready; /* after the head: bytes known to belong to the body */
    struct pace pace;
    bool deaf; /* the receiver takes no more: the rest is dropped */
};

enum progress { PROGRESS_DONE, PROGRESS_SOCKET, PROGRESS_TIMER, PROGRESS_FAILED };

/* Goes on until the message has passed or something must be waited for; PROGRESS_TIMER: until *ret_when_ns. */
enum progress relay_run(struct relay *relay, struct link *from, struct link *to, uint64_t *ret_when_ns);

#endif
