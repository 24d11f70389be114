/* The start-up probe: whether a store keeps the promises that everything above stands on.
 *
 * Conditional writes must hold, also when 16 writers race, and what was written
 * must be seen at once by everybody.  A store that only pretends would lose
 * data, quietly; it is refused.  The checks are told one by one, so that `cairn
 * doctor` can print them; the verdict is kept in the store (probe/verdict) for
 * PROBE_VALID_S, so that a start costs one GET. */
#ifndef CAIRN_STORE_PROBE_H
#define CAIRN_STORE_PROBE_H

#include <stdbool.h>

#include "rt/coroutine.h"

struct error;
struct loop;
struct store;

#define PROBE_VALID_S (24 * 3600)
#define PROBE_RACERS 16
/* For those whose store is refused. */
#define PROBE_KNOWN_TO_WORK "stores known to work: AWS S3, MinIO, Ceph RGW, Cloudflare R2, versitygw 1.8"

struct probe_check {
    const char *name;    /* "create what exists" */
    int result;          /* 0: as it must be; -errno; 1: not run, since an earlier one failed */
    struct error *error; /* of a failure, valid during the call */
};

/* Runs all checks under a random key below probe/, which is deleted afterwards.  `told` (NULL: nobody) is called after
 * each, in order.  0, or -ENOTSUP with which check failed, what was seen, and stores that are known to work; other
 * errors: the store did not answer. */
CO int probe_run(struct loop *loop, struct store *store, void (*told)(void *arg, const struct probe_check *check),
                 void *arg, struct error *error);

/* probe_run(), unless a verdict of this version, not too old by our clock, is in the store; writes one when it passed.
 * `traits` (NULL: none) finds out more about a store that has passed, a small number that stands in the verdict from
 * then on; *ret_traits (only with `traits`) is what it said, then or now. */
CO int probe_ensure(struct loop *loop, struct store *store, unsigned (*traits)(struct store *store),
                    unsigned *ret_traits, struct error *error);

#endif
