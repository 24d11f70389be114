/* Work on a store without a server: a loop, the store, one coroutine. */
#ifndef CAIRN_CLI_OFFLINE_H
#define CAIRN_CLI_OFFLINE_H

#include "daemon/config.h"
#include "rt/coroutine.h"
#include "store/store.h"

struct offline {
    struct loop *loop;
    struct store *store; /* open */
    const struct config *config;
};

/* Opens the store of `config` (which must exist, and be ours unless `any`), runs fn(offline, arg) as a coroutine until
 * it returns, and closes. What fn returned, or why it could not be run. */
int offline_run(const struct config *config, bool any,
                int (*fn)(struct offline *offline, void *arg, struct error *error), void *arg, struct error *error);

/* Runs fn(loop, arg) as a coroutine of a loop of its own until it returns: what fn returned, or why it could not be
 * run. */
int offline_loop(int (*fn)(struct loop *loop, void *arg, struct error *error), void *arg, struct error *error);

#endif
