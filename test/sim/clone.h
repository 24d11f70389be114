/* A process that exists twice: a virtual machine was restored from a snapshot while the original runs on.
 *
 * The simulator clones itself, with fork(): so the copy has all of the server's memory, its random state and its
 * requests on their way included, as they were at that moment.  In the copied simulator everything stands still but the
 * cloned server and clients of its own; it has no store, no clock and no judge, but asks those of the original, which
 * lets it run from one of its events to the next, in step with its own time. */
#ifndef CAIRN_SIM_CLONE_H
#define CAIRN_SIM_CLONE_H

#include "client.h"
#include "node.h"
#include "sim.h"

struct clone;

struct clone_plan {
    uint64_t snapshot_ns; /* so long it stands still first, with all of its clocks: it is restored that much later */
    bool set_right;       /* its wall clock is set then */
    uint64_t life_ns;
    int clients; /* of its own, for each disk */
    struct client_profile profile;
};

/* Which of the two a process of the run is. */
enum universe { UNIVERSE_ORIGINAL, UNIVERSE_CLONE };
#define UNIVERSES 2

/* Clones a process that is UP; once in a run.  In a coroutine on sim->outside. */
CO void clone_make(struct sim *sim, struct node *node, const struct clone_plan *plan);
/* It ends now, as if by a crash; harmless when there is none or it has. */
void clone_end(struct sim *sim);
/* After that. */
void clone_free(struct sim *sim);

/* ---- what the clone asks of the original; sim->remote is set ---- */

struct store *clone_store(struct sim *sim);
void clone_fails(struct sim *sim, const char *story);
void clone_answered(struct sim *sim, const struct disk *disk, uint64_t epoch, uint64_t sent_ns);
void clone_sends(struct sim *sim, const char *key, const uint8_t *bytes, size_t length);
void clone_lost(struct sim *sim, const struct disk *disk, uint64_t epoch);

#endif
