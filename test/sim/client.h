/* A client of one disk: connects, sends requests of all kinds, checks every answer, leaves in one way or another, and
 * comes back, until the run is calm; then it shows that everything works, and is done. */
#ifndef CAIRN_SIM_CLIENT_H
#define CAIRN_SIM_CLIENT_H

#include "node.h"
#include "sim.h"

struct client;

struct client_profile {
    uint32_t depth;                         /* requests in flight, at most CLIENT_DEPTH_MAX */
    uint32_t requests_least, requests_most; /* of one connection */
    uint32_t calm_requests;                 /* of the last connection, when all is calm */
    uint32_t burst;                         /* up to that many requests at once, */
    uint64_t think_ns;                      /* and up to that long until the next ones */
    uint64_t pause_ns;                      /* up to that long between two connections */
    uint64_t patience_ns;                   /* without any answer, before it leaves; in chaos */
    bool orderly;                           /* leaves by DISC only */
    uint64_t deaf_ns;                       /* takes no answers for up to that long, now and then; 0: never */
    uint32_t weights[8];                    /* of enum client_request */
    uint32_t bytes_most;                    /* of one request with data */
    uint32_t fua_permille;
};
#define CLIENT_DEPTH_MAX 64

enum client_request {
    CLIENT_READ,
    CLIENT_WRITE,
    CLIENT_FLUSH,
    CLIENT_TRIM,
    CLIENT_ZERO,
    CLIENT_CACHE,
    CLIENT_WRONG,     /* out of bounds, unknown command or flag: must be refused in the right way */
    CLIENT_ZERO_HUGE, /* up to the whole disk */
};

struct client *client_start(struct sim *sim, struct disk *disk, int number, const struct client_profile *profile);
bool client_done(const struct client *client);
/* For reports of liveness: what it is waiting for. */
void client_describe(const struct client *client, char *ret_text, size_t capacity);
CO void client_join(struct client *client);
void client_free(struct client *client);

/* Reads all of the disk that was ever touched, and some that was not, from the disk's home, and checks it; then a
 * flush.  Parks until it is done; failures go to sim_fail().  `damaged`: the home may refuse the disk, and requests
 * may fail, but nothing that is answered may be wrong. */
CO void client_verify(struct sim *sim, struct disk *disk, bool damaged);

#endif
