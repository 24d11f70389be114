/* For unit tests: runs one function as a task of a fresh loop, real or simulated, until it returns. */
#ifndef CAIRN_TEST_LIB_IN_LOOP_H
#define CAIRN_TEST_LIB_IN_LOOP_H

#include <assert.h>

#include "base/error.h"
#include "rt/loop.h"
#include "rt/loop_sim.h"
#include "rt/task.h"

struct in_loop {
    struct loop *loop;
    void (*fn)(struct loop *loop, void *arg);
    void *arg;
    bool done;
};

static inline void in_loop_task(void *arg)
{
    struct in_loop *run = arg;
    run->fn(run->loop, run->arg);
    run->done = true;
}

static inline void in_loop_real_task(void *arg)
{
    struct in_loop *run = arg;
    in_loop_task(run);
    loop_stop(run->loop);
}

static inline void in_real_loop(void (*fn)(struct loop *loop, void *arg), void *arg)
{
    struct in_loop run = { .fn = fn, .arg = arg };
    struct error error = ERROR_NONE;
    int result = loop_uv_new(&run.loop, &error);
    assert(result == 0);
    (void)result;
    struct group group;
    group_init(&group, run.loop);
    group_spawn(&group, "test", in_loop_real_task, &run);
    loop_run(run.loop);
    assert(run.done && group.count == 0);
    loop_free(run.loop);
}

/* Returns the hash of the trace. */
static inline uint64_t in_sim_loop(uint64_t seed, void (*fn)(struct loop *loop, void *arg), void *arg)
{
    struct world *world = world_new(seed);
    struct in_loop run = { .loop = loop_sim_new(world, "test"), .fn = fn, .arg = arg };
    struct group group;
    group_init(&group, run.loop);
    group_spawn(&group, "test", in_loop_task, &run);
    world_run(world, UINT64_MAX);
    assert(run.done && group.count == 0);
    loop_free(run.loop);
    uint64_t hash = world_trace_hash(world);
    world_free(world);
    return hash;
}

#endif
