/* Shards: threads, each with a loop of its own; they share nothing.
 *
 * A volume lives on one shard, and so do its connections from NBD_OPT_GO on.
 * What must cross goes by loop_post(). */
#ifndef CAIRN_RT_SHARD_H
#define CAIRN_RT_SHARD_H

struct error;
struct loop;
struct shards;

/* Starts `count` threads (1 to 64), each running a real loop. */
int shards_start(int count, struct shards **ret_shards, struct error *error);
int shards_count(const struct shards *shards);
struct loop *shards_loop(struct shards *shards, int index);
/* Stops each loop (whose owners have cleaned up by then), joins the threads, frees all. */
void shards_stop(struct shards *shards);

#endif
