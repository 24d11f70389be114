/* One simulated run: what its parts share.
 *
 * A run is a world (rt/loop_sim.h) with one store in memory, some server
 * processes on it (node.h), clients that speak NBD to them (client.h), and a
 * checker for each disk (checker.h).  scenario.c draws a run from a seed and
 * lets accidents happen; crash_points.c makes one accident at a chosen place.
 *
 * The first broken promise ends the run: sim_fail() keeps the story and stops
 * the world. */
#ifndef CAIRN_SIM_SIM_H
#define CAIRN_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/list.h"
#include "checker.h"
#include "hosts.h"
#include "rt/loop_sim.h"
#include "rt/wait.h"
#include "store/store.h"
#include "tenure.h"

struct clone;
struct node;

#define SIM_TRACE_LINES 400 /* kept for a failure */
#define SIM_TRACE_LINE 200
#define SIM_DISKS_MAX 3
#define SIM_NAME_MAX 64

enum sim_phase {
    SIM_CHAOS,    /* accidents happen, requests may fail */
    SIM_SETTLING, /* faults have ended; clients finish what they have begun, servers what they were told */
    SIM_CALM,     /* everything is healed: every request must be answered, and succeed */
};

/* What the store's clock shows at the start, in seconds since 1970. */
#define STORE_CLOCK_START_S INT64_C(1735689600)

/* A volume as its clients know it. */
struct disk {
    char name[SIM_NAME_MAX];
    char register_key[KEY_MAX];
    bool has_body;
    struct register_body body; /* the register as it stands; owned */
    struct tenure *tenures;    /* owned */
    size_t tenure_count;
    uint64_t size;
    struct checker *checker;
    struct node *home;   /* where its clients connect */
    uint64_t refused_ns; /* since then the home refuses it, because somebody else holds it; 0: it does not */
    uint64_t healed_ns;  /* when its home was given to it, in calm, and nobody was served there yet; else 0 */
    uint64_t zones[4];   /* where most requests fall */
    uint64_t zone_bytes;
};

/* What happened in a run, for the report. */
struct sim_counts {
    uint64_t virtual_ns;
    uint64_t openings;    /* by a new owner */
    uint64_t takeovers;   /* of these, from an owner that had not let go */
    uint64_t checkpoints; /* that were published */
    uint64_t pins, unpins;
    uint64_t clones;
};

struct sim {
    uint64_t seed;
    struct world *world;
    struct mem *mem;
    struct loop *outside; /* the node on which clients, and whoever directs the run, live */
    enum sim_phase phase;
    struct list nodes; /* struct node: every process that ever ran */
    struct sim_host hosts[SIM_HOSTS_MAX];
    struct store_clock store_clock;
    struct sim_counts counts;
    uint64_t next_process;
    struct disk disks[SIM_DISKS_MAX];
    int disk_count;
    uint64_t requests;              /* store requests made so far, by all nodes */
    uint64_t crash_at;              /* the one of these at which its process crashes; 0: none */
    int crash_moment;               /* enum crash_moment */
    uint64_t crash_again;           /* a crash follows so many requests later; 0: none */
    bool pause_at_crash;            /* it stands still instead */
    struct node *paused_at_request; /* that happened to this one; the director takes note and clears it */
    uint64_t client_requests;       /* of all clients so far */
    uint64_t client_requests_max;   /* in chaos; more would only take longer */

    struct clone *clone; /* the one that was made; NULL: none was */
    int remote;          /* this is that clone: its line to the original; else -1 */
    struct node *cloned; /* this is that clone: of which process */
    uint64_t remote_date_ms;

    bool verbose; /* the trace goes to stderr as it comes */
    bool damaged; /* an object was, on purpose: what the store holds is not to be judged any more */
    bool failed;
    char story[CHECKER_STORY_MAX + 256];
    uint64_t trace_next;
    char trace[SIM_TRACE_LINES][SIM_TRACE_LINE];
};

struct sim *sim_new(uint64_t seed, bool verbose);
void sim_free(struct sim *sim); /* after the run's nodes and clients are gone */

/* A line of the trace; it counts for the trace's hash. */
void sim_trace(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_print_trace(const struct sim *sim, FILE *out);

/* A promise was broken. Only the first one is kept. */
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The objects, as they are and without any fault. */
struct store *sim_store(struct sim *sim);

/* Uniform in [low, high]. */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
/* From log2-uniform sizes: small ones as likely as large ones. */
uint64_t sim_spread(struct sim *sim, uint64_t low, uint64_t high);

/* Makes the next disk of the run. */
struct disk *sim_add_disk(struct sim *sim, const char *name, uint64_t size);

#endif
