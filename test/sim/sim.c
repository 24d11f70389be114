/* What the parts of a run share: its trace, its verdict, its random numbers.
 *
 * The trace is formatted always, because its hash is what shows that the same
 * seed gives the same run; its last lines are kept for the report of a failure. */
#include "sim.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "clone.h"

struct sim *sim_new(uint64_t seed, bool verbose)
{
    struct sim *sim = memory_new(sizeof *sim);
    sim->seed = seed;
    sim->verbose = verbose;
    sim->world = world_new(seed);
    sim->remote = -1;
    sim->mem = mem_new();
    mem_set_clock(sim->mem, store_clock_ms, sim);
    sim->outside = loop_sim_new(sim->world, "clients");
    loop_sim_reseed(sim->outside);
    list_init(&sim->nodes);
    return sim;
}

void sim_free(struct sim *sim)
{
    for (int i = 0; i < sim->disk_count; i++) {
        checker_free(sim->disks[i].checker);
        tenures_free(&sim->disks[i]);
    }
    clone_free(sim);
    loop_free(sim->outside);
    world_free(sim->world);
    mem_free(sim->mem);
    free(sim);
}

void sim_trace(struct sim *sim, const char *format, ...)
{
    char *line = sim->trace[sim->trace_next++ % SIM_TRACE_LINES];
    uint64_t now = world_now_ns(sim->world);
    int at = snprintf(line, SIM_TRACE_LINE, "%6" PRIu64 ".%06" PRIu64 " ", now / NS_PER_S, now % NS_PER_S / 1000);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + at, (size_t)(SIM_TRACE_LINE - at), format, arguments);
    va_end(arguments);
    world_trace(sim->world, line, strlen(line));
    if (sim->verbose)
        fprintf(stderr, "%s%s\n", sim->remote >= 0 ? "                              clone: " : "", line);
}

void sim_print_trace(const struct sim *sim, FILE *out)
{
    uint64_t first = sim->trace_next > SIM_TRACE_LINES ? sim->trace_next - SIM_TRACE_LINES : 0;
    for (uint64_t i = first; i < sim->trace_next; i++)
        fprintf(out, "    %s\n", sim->trace[i % SIM_TRACE_LINES]);
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    if (sim->failed)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sim->story, sizeof sim->story, format, arguments);
    va_end(arguments);
    sim->failed = true;
    sim_trace(sim, "BROKEN: %s", sim->story);
    if (sim->remote >= 0)
        clone_fails(sim, sim->story);
    world_stop(sim->world);
}

struct store *sim_store(struct sim *sim)
{
    return sim->remote >= 0 ? clone_store(sim) : store_mem_open(sim->mem);
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    assert(low <= high);
    return low + world_random(sim->world, high - low + 1);
}

uint64_t sim_spread(struct sim *sim, uint64_t low, uint64_t high)
{
    assert(0 < low && low <= high);
    int low_bits = 64 - __builtin_clzll(low), high_bits = 64 - __builtin_clzll(high);
    int bits = (int)sim_between(sim, (uint64_t)low_bits, (uint64_t)high_bits);
    uint64_t from = UINT64_C(1) << (bits - 1), to = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    return sim_between(sim, from < low ? low : from, to > high ? high : to);
}

struct disk *sim_add_disk(struct sim *sim, const char *name, uint64_t size)
{
    assert(sim->disk_count < SIM_DISKS_MAX);
    struct disk *disk = &sim->disks[sim->disk_count++];
    snprintf(disk->name, sizeof disk->name, "%s", name);
    key_register(name, strlen(name), disk->register_key);
    disk->size = size;
    disk->checker = checker_new(size, sim->seed * 16 + (uint64_t)sim->disk_count);
    disk->zone_bytes = sim_spread(sim, 16384, 1u << 20);
    if (disk->zone_bytes > size)
        disk->zone_bytes = size;
    for (size_t i = 0; i < sizeof disk->zones / sizeof disk->zones[0]; i++) {
        uint64_t last = size - disk->zone_bytes;
        disk->zones[i] = i == 0 ? last : sim_between(sim, 0, last) / 4096 * 4096;
    }
    return disk;
}
