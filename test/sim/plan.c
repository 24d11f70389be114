/* Drawing a plan from a seed: what a run is like.
 *
 * Everything is drawn wide, and so that a few seeds hit each corner: sizes that
 * are no multiple of anything, limits that are reached, stores that are quick,
 * slow, or mostly broken. Most runs are small, because a bug that needs much
 * needs it seldom, and many small runs find more than a few large ones. */
#include <string.h>

#include "base/hash.h"
#include "scenario.h"

#define MIB (UINT64_C(1) << 20)
/* An answer leaves within 24/30 of a lease by one clock, and another server takes over after a whole one by its own: so
 * much may they differ, together, and much more than any clock that is not broken. */
#define DRIFT_MOST_PPM 50000

static uint64_t draw_size(struct sim *sim)
{
    uint64_t dice = world_random(sim->world, 16);
    if (dice == 0)
        return 512 * sim_between(sim, 1, 64);
    if (dice <= 2) /* sparse, up to the largest that there is */
        return 512 * sim_spread(sim, MIB, VOLUME_BYTES_MAX / 512);
    if (dice <= 4)
        return MIB * sim_between(sim, 1, 64);
    return 512 * sim_between(sim, MIB / 512, 64 * MIB / 512);
}

static void draw_profile(struct sim *sim, struct client_profile *profile)
{
    static const uint32_t mixes[][8] = {
        /* read, write, flush, trim, zero, cache, wrong, huge */
        { 30, 50, 8, 6, 4, 1, 1, 0 },  { 45, 40, 4, 4, 4, 2, 0, 1 },   { 10, 70, 2, 10, 8, 0, 0, 0 },
        { 25, 35, 25, 6, 6, 1, 1, 1 }, { 30, 20, 5, 20, 20, 1, 1, 3 },
    };
    static const uint32_t depths[] = { 1, 2, 4, 8, 16, 32, 64 };
    *profile = (struct client_profile){
        .depth = depths[world_random(sim->world, 7)],
        .requests_least = 1,
        .requests_most = (uint32_t)sim_spread(sim, 8, 128),
        .calm_requests = 6,
        .burst = (uint32_t)sim_spread(sim, 1, 40),
        .pause_ns = sim_spread(sim, NS_PER_MS, 3 * NS_PER_S),
        .patience_ns = sim_spread(sim, NS_PER_S, 200 * NS_PER_S),
        .orderly = world_random(sim->world, 4) == 0,
        .deaf_ns = world_random(sim->world, 4) == 0 ? sim_spread(sim, NS_PER_MS, 5 * NS_PER_S) : 0,
        .bytes_most = (uint32_t)sim_spread(sim, 65536, 512 * 1024),
        .fua_permille = (uint32_t)(world_random(sim->world, 2) * world_random(sim->world, 200)),
    };
    memcpy(profile->weights, mixes[world_random(sim->world, sizeof mixes / sizeof mixes[0])], sizeof profile->weights);
}

/* Very many small commits: a log that takes more than one LIST. */
static void draw_long_log(struct plan *plan)
{
    static const uint32_t weights[8] = { 10, 45, 45, 0, 0, 0, 0, 0 };
    plan->requests = 4000;
    plan->clients = plan->disks = 1;
    plan->profile.bytes_most = 4096;
    plan->profile.depth = 3;
    plan->profile.requests_least = plan->profile.requests_most = 1000;
    plan->profile.burst = 64;
    plan->profile.think_ns = plan->profile.deaf_ns = 0;
    memcpy(plan->profile.weights, weights, sizeof weights);
}

/* Up to `most`, small ones as likely as large ones. */
static uint32_t derived(uint64_t *number, uint32_t most)
{
    *number = hash_u64(*number);
    uint32_t bound = most >> *number % 8;
    return bound == 0 ? 0 : (uint32_t)(*number / 8 % (bound + 1));
}

/* Data objects of few pages, and hardly anything inline: then batches are cut and joined.  Derived from what was drawn,
 * so that the runs without, and the seeds in mutants.txt that they stand for, stay as they are. */
static void derive_object_sizes(struct volume_settings *settings)
{
    uint64_t number = settings->memory_bytes ^ settings->dirty_bytes;
    if (hash_u64(number) % 2 == 0)
        return;
    settings->inline_pages = 1 + derived(&number, settings->inline_pages - 1);
    settings->flushed_inline_pages =
        settings->inline_pages + derived(&number, settings->flushed_inline_pages - settings->inline_pages);
    settings->spread_pages =
        settings->inline_pages + 1 + derived(&number, settings->spread_pages - settings->inline_pages);
    settings->object_pages = settings->inline_pages + derived(&number, settings->object_pages - settings->inline_pages);
}

static void draw_volume_settings(struct sim *sim, struct volume_settings *settings)
{
    *settings = volume_settings_default();
    settings->memory_bytes = sim_spread(sim, 4 * MIB, 64 * MIB);
    settings->dirty_bytes = sim_spread(sim, MIB, settings->memory_bytes / 2);
    settings->batch_age_ms = sim_spread(sim, 20, 5000);
    settings->release_grace_ms = sim_spread(sim, 1, 10000);
    settings->flush_deadline_ms = sim_spread(sim, 20000, 120000);
    settings->read_deadline_ms = sim_spread(sim, 20000, 60000);
    settings->lease_ms = sim_spread(sim, 3000, 30000);
    settings->owner_wait_ms = sim_spread(sim, 500, 60000);
    settings->uploads = (uint32_t)sim_spread(sim, 1, 8);
    if (world_random(sim->world, 4) == 0)
        return; /* checkpoints at release only */
    settings->checkpoint_slots = sim_spread(sim, 1, 256);
    settings->checkpoint_bytes = sim_spread(sim, 65536, 64 * MIB);
    settings->checkpoint_object_bytes = sim_spread(sim, 8192, 8 * MIB);
    settings->checkpoint_frame_bytes = (uint32_t)sim_spread(sim, CHECKPOINT_FRAME_LEAST, 128 * 1024);
    if (settings->checkpoint_slots % 4 == 0)
        settings->checkpoint_chunks = 1; /* as soon as there are two, their rows are packed */
    settings->map_bytes = sim_spread(sim, 65536, 4 * MIB);
}

static void draw_faults(struct sim *sim, struct fault_settings *faults)
{
    uint64_t dice = world_random(sim->world, 4), slow = sim_spread(sim, 10000, 100 * NS_PER_MS);
    *faults = (struct fault_settings){
        .way_there = { .min_ns = slow / 8, .max_ns = slow },
        .way_back = { .min_ns = slow / 8, .max_ns = slow },
        .timeout = { .min_ns = 100 * NS_PER_MS, .max_ns = 10 * NS_PER_S },
        .late = { .min_ns = 0, .max_ns = sim_spread(sim, 10 * NS_PER_MS, 60 * NS_PER_S) },
        .cut_lost_permille = (uint32_t)world_random(sim->world, 1001),
    };
    if (dice == 0)
        return;
    uint64_t most = dice == 3 ? 150 : 30;
    faults->lost_permille = (uint32_t)world_random(sim->world, most);
    faults->refused_permille = (uint32_t)world_random(sim->world, most);
    faults->unanswered_permille = (uint32_t)world_random(sim->world, most);
    faults->failed_permille = (uint32_t)world_random(sim->world, most);
    faults->delayed_permille = (uint32_t)world_random(sim->world, most);
    faults->repeated_permille = (uint32_t)world_random(sim->world, most);
    faults->resent_permille = (uint32_t)world_random(sim->world, most);
    faults->short_permille = (uint32_t)world_random(sim->world, most);
}

static void draw_accidents(struct sim *sim, struct plan *plan)
{
    plan->accident_ns = plan->chaos_ns / sim_between(sim, 2, 30);
    if (world_random(sim->world, 8) == 0)
        return; /* none: what breaks here is broken in fair weather */
    for (int i = 1; i < ACCIDENTS; i++)
        plan->accidents[i] = (uint32_t)world_random(sim->world, 8);
    /* One kind of accident only, now and then: long stretches of the others hide its own bugs. */
    if (world_random(sim->world, 4) == 0) {
        memset(plan->accidents, 0, sizeof plan->accidents);
        plan->accidents[1 + world_random(sim->world, ACCIDENTS - 1)] = 1;
    }
}

/* Of either sign. */
static int64_t draw_offset(struct sim *sim, uint64_t most)
{
    return (int64_t)world_random(sim->world, 2 * most + 1) - (int64_t)most;
}

static void draw_clocks(struct sim *sim, struct plan *plan)
{
    if (world_random(sim->world, 3) == 0)
        return; /* all clocks agree */
    for (int i = 0; i < SIM_HOSTS_MAX; i++) {
        plan->drift_ppm[i] = (int32_t)draw_offset(sim, DRIFT_MOST_PPM);
        plan->wall_offset_ns[i] = draw_offset(sim, 24 * 3600 * NS_PER_S);
    }
    plan->store_drift_ppm = (int32_t)draw_offset(sim, DRIFT_MOST_PPM);
    plan->store_offset_ns = draw_offset(sim, 24 * 3600 * NS_PER_S);
}

void plan_draw(struct sim *sim, struct plan *ret_plan)
{
    struct plan plan = {
        .hosts = (int)sim_between(sim, 1, 4),
        .breaks_permille = (uint32_t)(world_random(sim->world, 2) * world_random(sim->world, 500)),
        .disks = (int)sim_between(sim, 1, SIM_DISKS_MAX),
        .created_by_clients = world_random(sim->world, 2) == 0,
        .clients = (int)sim_between(sim, 1, 4),
        .chaos_ns = sim_spread(sim, 4 * NS_PER_S, 500 * NS_PER_S),
        .requests = sim_spread(sim, 200, 2500),
    };
    for (int i = 0; i < plan.disks; i++)
        plan.sizes[i] = i > 0 && plan.created_by_clients ? plan.sizes[0] : draw_size(sim);
    draw_profile(sim, &plan.profile);
    /* The requests are spread over the time, in bursts: there is work whenever an accident happens. */
    plan.profile.think_ns = plan.chaos_ns * (uint64_t)(plan.disks * plan.clients) * plan.profile.burst / plan.requests;
    if (world_random(sim->world, 128) == 0)
        draw_long_log(&plan);
    draw_clocks(sim, &plan);
    draw_volume_settings(sim, &plan.server.volume);
    derive_object_sizes(&plan.server.volume);
    draw_faults(sim, &plan.server.faults);
    plan.server.nbd = nbd_settings_default();
    plan.server.nbd.default_size = plan.sizes[0];
    draw_accidents(sim, &plan);
    if (world_random(sim->world, 3) > 0)
        plan.pin_pause_ns = sim_spread(sim, 200 * NS_PER_MS, 30 * NS_PER_S);
    *ret_plan = plan;
}
