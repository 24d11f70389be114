/* Runs from seeds; when the process dies inside one (a failed assertion), the end of its trace is told too. */
#include "seeds.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct sim *running;
static const char *running_what;
static struct sim_counts *totals; /* shared with child processes; NULL: nobody asks */

static void tell_and_die(int signal_number)
{
    signal(signal_number, SIG_DFL);
    fprintf(stderr, "%s: signal %d; the end of its trace:\n", running_what, signal_number);
    if (running != NULL)
        sim_print_trace(running, stderr);
    fflush(stderr);
    raise(signal_number);
}

void seeds_count(void)
{
    totals = mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
}

static void add(uint64_t *sum, uint64_t count)
{
    __atomic_fetch_add(sum, count, __ATOMIC_RELAXED);
}

static void add_counts(const struct sim_counts *counts)
{
    if (totals == NULL)
        return;
    add(&totals->virtual_ns, counts->virtual_ns);
    add(&totals->openings, counts->openings);
    add(&totals->takeovers, counts->takeovers);
    add(&totals->checkpoints, counts->checkpoints);
    add(&totals->pins, counts->pins);
    add(&totals->unpins, counts->unpins);
    add(&totals->clones, counts->clones);
}

void seeds_tell(FILE *out)
{
    fprintf(out,
            "%.1f virtual hours, %" PRIu64 " openings, %" PRIu64 " takeovers, %" PRIu64 " checkpoints, %" PRIu64
            " pins, %" PRIu64 " unpins, %" PRIu64 " clones\n",
            (double)totals->virtual_ns / NS_PER_S / 3600, totals->openings, totals->takeovers, totals->checkpoints,
            totals->pins, totals->unpins, totals->clones);
}

bool run_plan(struct sim *sim, const struct plan *plan, const char *what, uint64_t *ret_hash)
{
    running = sim;
    running_what = what;
    signal(SIGABRT, tell_and_die);
    signal(SIGPROF, tell_and_die);
    scenario_run(sim, plan);
    running = NULL;
    sim->counts.virtual_ns = world_now_ns(sim->world);
    add_counts(&sim->counts);
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
