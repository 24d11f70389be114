/* One shard of the server: its store, its volumes, its connections.
 *
 * The main thread steers shards with shard_each(): a function that runs as a
 * coroutine on each shard's own thread, all at once, while the main coroutine
 * waits.  Apart from that only sockets are handed over. */
#ifndef CAIRN_DAEMON_SERVER_SHARD_H
#define CAIRN_DAEMON_SERVER_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "nbd/service.h"
#include "rt/task.h"
#include "rt/timer.h"
#include "rt/wait.h"
#include "store/store.h"
#include "vol/volume.h"

struct config;
struct shares;
struct store_access;

#define SHARD_SUBJECT_MAX 160

/* What all shards share; nothing in it changes while they run. */
struct shard_common {
    const struct config *config;
    const struct store_access *store;
    struct host *host; /* its calls are safe from any thread */
    struct event_sink *events;
    struct loop *main_loop;
    struct server_shard *all;
    int count;
    struct shares *shares; /* main thread only */
};

/* A volume that is open, for statistics. */
struct volume_line {
    char subject[SHARD_SUBJECT_MAX]; /* "volume 'db'" */
    uint64_t size;
    struct volume_counts counts;
};

struct shard_counts {
    struct nbd_counts nbd;
    struct store_counts store;
    struct volume_line *volumes; /* owned */
    size_t volume_count;
};

struct server_shard {
    const struct shard_common *common;
    int index;
    struct loop *loop;
    struct group tasks; /* the calls of the main thread */
    struct store *store;
    struct volumes *volumes;
    struct nbd_service *service;
    bool accepting;             /* sockets that are handed over are served; otherwise closed */
    bool saved;                 /* shard_save() succeeded */
    bool returned;              /* and every volume that was ever open was given back */
    uint64_t save_by_ns;        /* when saving must be over; UINT64_MAX until somebody hurries */
    struct task *saving;        /* shard_save() while it waits */
    struct timer hurry;         /* ends it */
    uint64_t memory_bytes;      /* of its volumes; written by the main thread while no change is under way */
    struct shard_counts counts; /* as of the last shard_count() */

    /* The call under way; written by the main thread before it is posted, and by the shard until it has answered. */
    int (*fn)(struct server_shard *shard, struct error *error);
    struct task *task; /* that runs it */
    int result;
    struct error error;
    bool busy;              /* main thread only */
    struct waitq *answered; /* of the main thread */
};

/* Runs fn on every shard, and parks the main coroutine until the last has answered; results stand in each shard.
 * Not cut short by a cancel.  0, or the first failure. */
CO int shard_each(const struct shard_common *common, int (*fn)(struct server_shard *shard, struct error *error),
                  struct error *error);

/* Changes the memory of its volumes, from the main thread; shares_settled() follows. */
void shard_set_memory(struct server_shard *shard, uint64_t bytes);
/* What its volumes may have in the beginning. */
uint64_t shard_memory_at_first(const struct config *config, int shards);
/* Gives a connected socket to the shard, from the main thread. */
void shard_hand_over(struct server_shard *shard, int fd);
/* Cuts the shard's clients off, and leaves little time for saving, from the main thread: harmless whatever the shard is
 * doing. */
void shard_hurry(struct server_shard *shard);

/* ---- for shard_each() ---- */

CO int shard_open(struct server_shard *shard, struct error *error);
/* Clients get their answers and are sent away. */
CO int shard_drain(struct server_shard *shard, struct error *error);
/* What is unwritten goes to the store, and volumes are released; -EIO with what could not be saved. */
CO int shard_save(struct server_shard *shard, struct error *error);
/* Fills `counts`. */
CO int shard_count(struct server_shard *shard, struct error *error);
/* After shard_save(), or after a shard_open() that failed on any shard. */
CO int shard_close(struct server_shard *shard, struct error *error);

#endif
