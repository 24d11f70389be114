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
#include "rt/loop_sim.h"
#include "rt/wait.h"
#include "store/store.h"

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

/* A volume as its clients know it. */
struct disk {
    char name[SIM_NAME_MAX];
    uint64_t size;
    struct checker *checker;
    struct node *home; /* where its clients connect */
    uint32_t refusals; /* in a row, by the home, because somebody else holds the volume */
    uint64_t zones[4]; /* where most requests fall */
    uint64_t zone_bytes;
};

struct sim {
    uint64_t seed;
    struct world *world;
    struct mem *mem;
    struct loop *outside; /* the node on which clients, and whoever directs the run, live */
    enum sim_phase phase;
    struct list nodes; /* struct node: every process that ever ran */
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

/* Uniform in [low, high]. */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
/* From log2-uniform sizes: small ones as likely as large ones. */
uint64_t sim_spread(struct sim *sim, uint64_t low, uint64_t high);

/* Makes the next disk of the run. */
struct disk *sim_add_disk(struct sim *sim, const char *name, uint64_t size);

#endif
