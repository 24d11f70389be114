/* A server process of a run: a node of the world with the engine and the NBD service on it, over a faulty connection
 * to the run's store.
 *
 * A process lives on one of a few hosts; a host tells which of its processes are gone, as lock files do.  A process
 * ends by a crash (at any moment, also within a store request), or by a clean shutdown; a paused one stands still, as
 * under SIGSTOP, while its requests on their way to the store go on.  It is never started again: a restart is a new
 * process. */
#ifndef CAIRN_SIM_NODE_H
#define CAIRN_SIM_NODE_H

#include "nbd/service.h"
#include "rt/task.h"
#include "sim.h"
#include "store/fault.h"
#include "vol/volume.h"

enum node_state {
    NODE_UP,
    NODE_PAUSED,
    NODE_STOPPING, /* a clean shutdown is under way */
    NODE_CRASHING, /* cut off from everything; its tasks are unwinding */
    NODE_GONE,     /* its memory is freed, but for this struct */
};

struct node_setup {
    int host; /* 0, 1, … */
    bool break_lease;
    struct volume_settings volume;
    struct nbd_settings nbd;
    struct fault_settings faults;
};

struct tap;

struct node {
    struct list link; /* sim->nodes */
    struct sim *sim;
    char name[SIM_NAME_MAX];
    enum node_state state;
    bool suspended;     /* PAUSED with all of its host */
    bool elsewhere;     /* this is a clone's memory, and the process lives in the original (clone.h) */
    uint64_t cloned_ns; /* when it was cloned; 0: it was not */
    struct node_setup setup;
    uint64_t process; /* stands in registers as process id and lock inode */
    struct loop *loop;
    struct host host;
    struct event_sink events;
    struct tap *tap;
    struct store *fault; /* below the tap */
    struct volumes *volumes;
    struct nbd_service *service;
    struct group group;                 /* crash, shutdown */
    struct list cables;                 /* struct cable: connections of clients */
    struct sent sent[SIM_DISKS_MAX][2]; /* by universe (clone.h) */
    uint64_t opened[SIM_DISKS_MAX];     /* the epoch in which it last began to serve the disk */
    uint64_t asked[SIM_DISKS_MAX]; /* bit (epoch % 64): it asked for the disk's register when that was of this epoch */
    struct waitq ended;            /* of sim->outside: it is GONE */
    int shutdown_code;             /* of a clean shutdown: what volumes_shutdown() said */
    char shutdown_story[ERROR_STORY_MAX];
};

/* A client's connection to a process; in the client's memory. */
struct cable {
    struct list link;
    struct channel *channel; /* the client's end */
};

struct node *node_start(struct sim *sim, const struct node_setup *setup);

/* A new connection; `cable` belongs to the client, which closes its channel after node_disconnect(). */
void node_connect(struct node *node, struct cable *cable);
void node_disconnect(struct cable *cable);

/* From now on nothing of the process reaches anything; its memory goes soon.  At any moment, in any coroutine. */
void node_crash(struct node *node);
void node_pause(struct node *node);
void node_resume(struct node *node);
/* The same when all of its host stands still (hosts.h); a process that is paused already stays so. */
void node_suspend(struct node *node);
void node_wake(struct node *node);
/* As on SIGTERM.  NODE_GONE when it is done, at the latest after `patience_ns`. */
void node_stop(struct node *node, uint64_t patience_ns);
bool node_alive(const struct node *node); /* UP, PAUSED or STOPPING */

/* Its way to the store: as its setup says; broken altogether; broken on the way back, so that requests take effect and
 * nobody hears of it; broken now and then in both directions; to a store that is full; or with delays only.  Harmless
 * when it is gone. */
enum node_weather {
    NODE_WEATHER_DRAWN,
    NODE_WEATHER_OUTAGE,
    NODE_WEATHER_DEAF,
    NODE_WEATHER_HALF,
    NODE_WEATHER_FULL,
    NODE_WEATHER_FAIR,
};
void node_weather(struct node *node, enum node_weather weather);

/* Creates a volume as an administrator would, trying until it works. */
CO void node_create_volume(struct node *node, const char *name, uint64_t size);

/* Whether it has a single connection left: the caller's.  (More may be those of others, or lost ones that it still
 * works on.) */
bool node_has_one_connection(const struct node *node);
/* No volume is being opened. */
bool node_is_steady(const struct node *node);
/* Of the volume while clients are connected to it; 0 when it is not open. */
uint64_t node_epoch(const struct node *node, const char *name);

/* Its lines to its clients fall silent, each with the chance given; each end notices only `notice_ns` later. */
void node_silence(struct node *node, uint32_t permille, uint64_t notice_ns);

/* Whether all that its volumes were given is durable; `ret_volume` (SIM_NAME_MAX): one of which it is not. */
bool node_settled(const struct node *node, char *ret_volume);

/* For sim_free(): ends what still lives and frees the structs. Runs the world meanwhile. */
void nodes_end(struct sim *sim);

/* Notes that it asks for an object now. */
void node_asks(struct node *node, const char *key);

/* The store requests of all nodes are counted in sim->requests, from 1.  When this one is reached, its process
 * crashes. */
enum crash_moment {
    CRASH_BEFORE_SENDING,
    CRASH_UNANSWERED,    /* applied, its answer on the way */
    CRASH_BEFORE_CHANGE, /* the answer is there, nothing was done with it yet */
};
#define CRASH_MOMENTS 3

#endif
