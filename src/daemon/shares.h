/* How the memory is divided among the shards: most of it to those that have volumes open. */
#ifndef CAIRN_DAEMON_SHARES_H
#define CAIRN_DAEMON_SHARES_H

#include <stdbool.h>
#include <stdint.h>

struct shares;

/* Called to change a shard's share; shares_settled() is to follow once it has come into effect. */
typedef void shares_set(void *arg, int index, uint64_t bytes);

/* `count` shards begin with equal parts of `total`; each keeps `least`, also while it is idle. */
struct shares *shares_new(int count, uint64_t total, uint64_t least, shares_set *set, void *arg);
void shares_free(struct shares *shares); /* NULL is fine */

/* A shard has opened its first volume, or closed its last. */
void shares_busy(struct shares *shares, int index, bool busy);
/* The share that was set last is in effect. */
void shares_settled(struct shares *shares, int index);

#endif
