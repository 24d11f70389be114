/* See crash_points.h.
 *
 * The run is the same each time up to the accident: one disk, two clients, no
 * faults.  First it runs without an accident, which tells how many store
 * requests there are.  A point is then the number
 *
 *     (request - 1) * 12 + moment * 4 + kind
 *
 * with the moments of enum crash_moment, and four kinds of accident: a crash
 * with a restart on the same host; a crash with another host taking over when
 * the lease has run out; a process that stands still there for longer than that,
 * is taken over from, and goes on afterwards; and the same where the other breaks
 * the lease, for a short stand as well.
 *
 * The lease is short and checkpoints are frequent, so that renewals, roots and
 * releases are among the requests. */
#include "crash_points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "seeds.h"

#define CRASH_SEED 4711
enum kind { RESTART, TAKEOVER, PAUSE, PAUSE_BROKEN };
#define KINDS 4
#define LEASE_MS 2000
#define POINTS_PER_REQUEST (CRASH_MOMENTS * KINDS)
/* A point plus n times this: the same, and a crash n requests later. */
#define PAIR_STRIDE UINT64_C(100000)
#define SECOND_MAX 30 /* the successor has taken over and served by then */
#define MIB (UINT64_C(1) << 20)

static void fixed_plan(struct plan *ret_plan)
{
    struct plan plan = {
        .hosts = 2,
        .disks = 1,
        .sizes = { 8 * MIB + 512 },
        .created_by_clients = true,
        .clients = 2,
        .profile = {
            .depth = 3,
            .requests_least = 60,
            .requests_most = 60,
            .calm_requests = 8,
            .burst = 4,
            .think_ns = 150 * NS_PER_MS,
            .pause_ns = 600 * NS_PER_MS,
            .patience_ns = 2 * NS_PER_S,
            .orderly = true,
            .weights = { 10, 60, 16, 8, 8, 0, 0, 2 },
            .bytes_most = 600 * 1024,
            .fua_permille = 50,
        },
        .chaos_ns = 20 * NS_PER_S,
        .requests = 300,
        .accident_ns = 3600 * NS_PER_S,
    };
    plan.server.volume = volume_settings_default();
    plan.server.volume.memory_bytes = 32 * MIB;
    plan.server.volume.dirty_bytes = 4 * MIB;
    plan.server.volume.batch_age_ms = 200;
    plan.server.volume.release_grace_ms = 60;
    plan.server.volume.lease_ms = LEASE_MS;
    plan.server.volume.checkpoint_slots = 5;
    plan.server.volume.checkpoint_object_bytes = 8192;
    plan.server.volume.checkpoint_frame_bytes = CHECKPOINT_FRAME_LEAST;
    plan.server.volume.map_bytes = 65536;
    plan.server.nbd = nbd_settings_default();
    plan.server.nbd.default_size = plan.sizes[0];
    plan.server.faults.way_there = (struct fault_range){ .min_ns = NS_PER_MS, .max_ns = 8 * NS_PER_MS };
    plan.server.faults.way_back = plan.server.faults.way_there;
    plan.server.faults.timeout = (struct fault_range){ .min_ns = NS_PER_S, .max_ns = NS_PER_S };
    *ret_plan = plan;
}

/* The run without an accident: how many requests it makes before it heals. 0: it failed. */
static uint64_t count_requests(void)
{
    struct plan plan;
    struct sim *sim = sim_new(CRASH_SEED, false);
    uint64_t requests = 0;
    fixed_plan(&plan);
    plan.ret_chaos_requests = &requests;
    return run_plan(sim, &plan, "crash points, no accident", NULL) ? requests : 0;
}

bool crash_points_one(uint64_t point, bool verbose)
{
    static char what[64];
    struct plan plan;
    struct sim *sim = sim_new(CRASH_SEED, verbose);
    uint64_t first = point % PAIR_STRIDE, kind = first % KINDS;
    fixed_plan(&plan);
    plan.crash_at = first / POINTS_PER_REQUEST + 1;
    plan.crash_again = point / PAIR_STRIDE;
    plan.crash_moment = (int)(first / KINDS % CRASH_MOMENTS);
    plan.elsewhere = kind != RESTART;
    plan.successor_breaks = kind == PAUSE_BROKEN;
    plan.pause_instead = kind == PAUSE || kind == PAUSE_BROKEN;
    plan.resume_least_ns = kind == PAUSE ? 2 * LEASE_MS * NS_PER_MS : 10 * NS_PER_MS;
    snprintf(what, sizeof what, "crash point %" PRIu64, point);
    return run_plan(sim, &plan, what, NULL);
}

static bool one_point(void *arg, uint64_t point)
{
    return crash_points_one(point, false);
}

struct runner_result crash_points_run(int jobs)
{
    uint64_t requests = count_requests();
    if (requests == 0)
        return (struct runner_result){ .failed = 1 };
    printf("%" PRIu64 " store requests, %d points each\n", requests, POINTS_PER_REQUEST);
    return runner_run(one_point, NULL, 0, requests * POINTS_PER_REQUEST, jobs, true);
}

struct pairs {
    uint64_t points;
};

static bool one_pair(void *arg, uint64_t number)
{
    const struct pairs *pairs = arg;
    return crash_points_one(number % pairs->points + (number / pairs->points + 1) * PAIR_STRIDE, false);
}

struct runner_result crash_pairs_run(int jobs)
{
    struct pairs pairs = { .points = count_requests() * POINTS_PER_REQUEST };
    if (pairs.points == 0)
        return (struct runner_result){ .failed = 1 };
    return runner_run(one_pair, &pairs, 0, pairs.points * SECOND_MAX, jobs, true);
}
