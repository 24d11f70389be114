/* Runs from seeds; when the process dies inside one (a failed assertion), the end of its trace is told too. */
#include "seeds.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct sim *running;
static const char *running_what;

static void tell_and_die(int signal_number)
{
    signal(signal_number, SIG_DFL);
    fprintf(stderr, "%s: signal %d; the end of its trace:\n", running_what, signal_number);
    if (running != NULL)
        sim_print_trace(running, stderr);
    fflush(stderr);
    raise(signal_number);
}

bool run_plan(struct sim *sim, const struct plan *plan, const char *what, uint64_t *ret_hash)
{
    running = sim;
    running_what = what;
    signal(SIGABRT, tell_and_die);
    signal(SIGPROF, tell_and_die);
    scenario_run(sim, plan);
    running = NULL;
    if (sim->failed) {
        if (!sim->verbose)
            sim_print_trace(sim, stderr);
        fprintf(stderr, "%s: %s\n", what, sim->story);
        return false;
    }
    if (ret_hash != NULL)
        *ret_hash = world_trace_hash(sim->world);
    sim_free(sim);
    return true;
}

static bool seed_hash(uint64_t seed, bool verbose, uint64_t *ret_hash)
{
    static char what[64];
    struct sim *sim = sim_new(seed, verbose);
    struct plan plan;
    snprintf(what, sizeof what, "seed %" PRIu64, seed);
    plan_draw(sim, &plan);
    return run_plan(sim, &plan, what, ret_hash);
}

bool seed_run(uint64_t seed, bool verbose)
{
    return seed_hash(seed, verbose, NULL);
}

bool seed_quietly(void *arg, uint64_t seed)
{
    return seed_hash(seed, false, NULL);
}

bool seed_twice(void *arg, uint64_t seed)
{
    uint64_t first, second;
    if (!seed_hash(seed, false, &first) || !seed_hash(seed, false, &second))
        return false;
    if (first == second)
        return true;
    fprintf(stderr, "seed %" PRIu64 ": two runs differ: traces %016" PRIx64 " and %016" PRIx64 "\n", seed, first,
            second);
    return false;
}
