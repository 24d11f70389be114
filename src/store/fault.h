/* A bad connection to a store, for the simulator: what can go wrong between a
 * server and its objects, drawn from the world's randomness.
 *
 * One wrapper is one server's connection; several of them over one struct mem
 * are several servers on one store.  The inner store must never park (mem),
 * because requests are applied on the world's own stack, at their own time,
 * whatever has become of the caller.
 *
 * Without faults a request takes its way there, is applied, and takes its way
 * back.  As different requests take different times, they overtake each other. */
#ifndef CAIRN_STORE_FAULT_H
#define CAIRN_STORE_FAULT_H

#include <stdint.h>

#include "store/store.h"

struct world;

struct fault_range {
    uint64_t min_ns, max_ns; /* uniform in between, both included */
};

/* All zero: a perfect and immediate connection. Of the fates at most one befalls a request, tried in this order. */
struct fault_settings {
    struct fault_range way_there, way_back;
    struct fault_range timeout; /* after which a caller is told that no answer came */
    struct fault_range late;    /* how much later than expected something is applied */

    uint32_t lost_permille;       /* never arrives: -ETIMEDOUT */
    uint32_t refused_permille;    /* arrives, and is answered with a 5xx and not applied: -EIO */
    uint32_t unanswered_permille; /* is applied, its answer is lost: -ETIMEDOUT */
    uint32_t failed_permille;     /* is applied, and answered with a 5xx: -EIO */
    uint32_t delayed_permille;    /* puts and deletes: -ETIMEDOUT, and applied `late` after that */
    uint32_t repeated_permille;   /* puts and deletes: all well, and applied once more `late` after that */
    uint32_t resent_permille; /* puts and deletes: applied twice in a row, the second answer is what the caller gets:
                               * an -EEXIST or -ESTALE may then be due to the request itself */
    uint32_t short_permille;  /* gets: the end of the answer is missing, which the front door notices: -EIO */

    uint32_t cut_lost_permille; /* of the requests on their way there at store_fault_cut(): never arrive */
};

/* Owns `inner`.  It lives on after store_close() until the last request on its way has landed: run the world until
 * nothing is left in it before freeing it. */
struct store *store_fault_new(struct world *world, struct store *inner, const struct fault_settings *settings);

/* From now on; what is on its way is not changed. */
void store_fault_change(struct store *store, const struct fault_settings *settings);

/* The server is cut off for good: its callers get -ENETDOWN, now and ever after. What is on its way may still land. */
void store_fault_cut(struct store *store);

/* How many requests were made so far. */
uint64_t store_fault_requests(const struct store *store);

enum fault_fate {
    FAULT_LOST,
    FAULT_REFUSED,
    FAULT_UNANSWERED,
    FAULT_FAILED,
    FAULT_DELAYED,
    FAULT_REPEATED,
    FAULT_RESENT,
    FAULT_SHORT,
    FAULT_NONE
};

/* Decides the fate of the request number `number` (the first ever is 1), instead of chance.  `reached`, unless NULL, is
 * called on the world's own stack at the moment at which the request has had its effect, if any, and its caller still
 * waits: for FAULT_LOST right away, for FAULT_DELAYED before it is applied.  (A crash belongs there.) */
void store_fault_script(struct store *store, uint64_t number, enum fault_fate fate, void (*reached)(void *arg),
                        void *arg);

#endif
