/* A store whose requests go wrong as a script says: a wrapper for tests.
 *
 * Rules are looked at in the order of their adding; the first that fits a
 * request decides.  A request that no rule fits passes. */
#ifndef CAIRN_TEST_LIB_STORE_SCRIPT_H
#define CAIRN_TEST_LIB_STORE_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

enum script_operation { SCRIPT_GET = 1, SCRIPT_PUT = 2, SCRIPT_DELETE = 4, SCRIPT_LIST = 8, SCRIPT_ALL = 15 };

enum script_fate {
    SCRIPT_PASS,    /* for the sake of `before` and `after` */
    SCRIPT_FAIL,    /* not applied */
    SCRIPT_APPLIED, /* applied, and failed all the same */
    SCRIPT_HANG,    /* parked until store_script_clear(), then passes; or until cancelled, or as long as it may take,
                     * not applied */
};

struct script_rule {
    unsigned operations;
    const char *key; /* part of the key, or of the prefix of a list; NULL: any */
    uint32_t skip;   /* so many that fit pass first */
    uint32_t times;  /* then so many are fated; 0: all */
    enum script_fate fate;
    int code; /* positive errno, for SCRIPT_FAIL and SCRIPT_APPLIED */
    /* Called before and after the request is applied, or would be; NULL: nobody cares.  They may park. */
    void (*before)(void *arg);
    void (*after)(void *arg);
    void *arg;
};

/* Owns `inner`. */
struct store *store_script_new(struct store *inner);
void store_script_add(struct store *store, const struct script_rule *rule);
/* Forgets all rules, and lets go what hangs. */
void store_script_clear(struct store *store);
/* Requests that hang now. */
uint32_t store_script_hanging(const struct store *store);
/* Requests that a rule fated, since the beginning. */
uint32_t store_script_hits(const struct store *store);

#endif
