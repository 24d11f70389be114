/* A run from a seed. */
#ifndef CAIRN_SIM_SEEDS_H
#define CAIRN_SIM_SEEDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "scenario.h"

/* Runs the plan, and tells about a failure on stderr: `what` names the run, then the story and the end of the trace.
 * Returns whether all promises were kept; `ret_hash` (may be NULL): of the trace. */
bool run_plan(struct sim *sim, const struct plan *plan, const char *what, uint64_t *ret_hash);

/* Adds up what happens in runs from now on, those of child processes too; and tells it. */
void seeds_count(void);
void seeds_tell(FILE *out);

bool seed_run(uint64_t seed, bool verbose);
/* As a runner_fn. */
bool seed_quietly(void *arg, uint64_t seed);
bool seed_twice(void *arg, uint64_t seed); /* the same seed must give the same trace */

#endif
