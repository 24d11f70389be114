/* A run, directed by one task: see scenario.h.
 *
 *     set up      the first server processes, the volumes
 *     chaos       clients work, accidents happen; an operator restarts what has
 *                 crashed, and breaks a lease when clients are refused for long
 *     settling    all faults end, paused processes go on; who was told to break
 *                 a lease may still do so; clients leave, and so all that servers
 *                 hold is given back
 *     calm        every client must reconnect, work, flush
 *     the end     all processes shut down cleanly; a fresh one, on any host,
 *                 without breaking a lease, must serve everything as the
 *                 checkers have it; the objects are audited
 *     damage      in some runs an object is damaged then, and one more server
 *                 must live with it
 *
 * The operator knows no more than a person would: who is dead, and who is
 * refused. */
#include "scenario.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "audit.h"
#include "base/memory.h"
#include "clone.h"
#include "damage.h"
#include "pinner.h"
#include "rt/task.h"

/* All of a run, in virtual time: the longest chaos, and then everything that waits for a deadline. */
#define RUN_NS (3600 * NS_PER_S)
/* A clean shutdown of a healthy server on a healthy store. */
#define STOP_PATIENCE_NS (60 * NS_PER_S)
/* In chaos people lose their patience sooner. */
#define STOP_HURRIED_NS (10 * NS_PER_S)
/* When faults have ended, what was late may still land so much later; and openings that were under way come to an end.
 */
#define SETTLING_NS (90 * NS_PER_S)
/* And when dead lines have been noticed, too. */
#define SILENCE_MOST_NS (110 * NS_PER_S)
#define SETTLING_SILENT_NS (SETTLING_NS + SILENCE_MOST_NS)
/* From when a disk of a dead owner is wanted, in calm, until it is served, beside the lease: to look, to take, to
 * replay. */
#define TAKEOVER_SLACK_NS (25 * NS_PER_S)
#define OPERATOR_NS (500 * NS_PER_MS) /* how often the operator looks */
#define NODES_MAX 24                  /* processes in a run, so that a run stays small */
#define CLIENTS_MAX 16

struct run {
    struct sim *sim;
    const struct plan *plan;
    struct client *clients[CLIENTS_MAX];
    int client_count;
    struct pinner *pinner; /* NULL: nobody pins */
    int node_count;
    struct group group;
    bool over;
};

static struct node *start_node(struct run *run, int host, bool break_lease)
{
    struct node_setup setup = run->plan->server;
    assert(host < SIM_HOSTS_MAX);
    setup.host = host;
    setup.break_lease = break_lease;
    run->node_count++;
    struct node *node = node_start(run->sim, &setup);
    if (run->sim->phase != SIM_CHAOS)
        node_weather(node, NODE_WEATHER_FAIR);
    return node;
}

static int random_host(struct run *run)
{
    return (int)world_random(run->sim->world, (uint64_t)run->plan->hosts);
}

static struct disk *random_disk(struct run *run)
{
    return &run->sim->disks[world_random(run->sim->world, (uint64_t)run->sim->disk_count)];
}

/* A process that is UP, if there is one. */
static struct node *random_node(struct run *run)
{
    struct node *found = NULL;
    uint64_t seen = 0;
    list_for_each (link, &run->sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        if (node->state == NODE_UP && world_random(run->sim->world, ++seen) == 0)
            found = node;
    }
    return found;
}

static void move_disk(struct disk *disk, struct node *node)
{
    disk->home = node;
    disk->refused_ns = 0;
    disk->healed_ns = node->sim->phase == SIM_CHAOS ? 0 : world_now_ns(node->sim->world);
}

/* ---- setting up ---- */

/* Creates the volumes as an administrator would, so that each has its own size. */
CO static void create_volumes(struct run *run, struct node *node)
{
    struct sim *sim = run->sim;
    for (int i = 0; i < sim->disk_count; i++) {
        struct disk *disk = &sim->disks[i];
        node_create_volume(node, disk->name, disk->size);
    }
}

static void draw_client_profile(struct run *run, struct client_profile *profile)
{
    *profile = run->plan->profile;
    /* Clients of one run differ a little. */
    if (world_random(run->sim->world, 4) == 0)
        profile->depth = 1;
}

CO static void set_up(struct run *run)
{
    struct sim *sim = run->sim;
    const struct plan *plan = run->plan;
    static const char *const names[SIM_DISKS_MAX] = { "a", "b", "c" };
    for (int i = 0; i < plan->disks; i++)
        sim_add_disk(sim, names[i], plan->sizes[i]);
    struct node *node = start_node(run, 0, false);
    if (!plan->created_by_clients) {
        create_volumes(run, node);
        node_stop(node, STOP_PATIENCE_NS);
        while (node->state != NODE_GONE)
            waitq_wait(&node->ended);
        node = start_node(run, 0, false);
    }
    for (int i = 0; i < plan->disks; i++) {
        bool apart = i > 0 && world_random(sim->world, 2) == 0;
        move_disk(&sim->disks[i], apart ? start_node(run, random_host(run), false) : node);
    }
    for (int i = 0; i < plan->disks * plan->clients; i++) {
        struct client_profile profile;
        draw_client_profile(run, &profile);
        assert(run->client_count < CLIENTS_MAX);
        run->clients[run->client_count++] = client_start(sim, &sim->disks[i % plan->disks], i, &profile);
    }
    if (plan->pin_pause_ns > 0)
        run->pinner = pinner_start(sim, &plan->server.faults, plan->pin_pause_ns);
}

/* ---- accidents ---- */

static void resume_later(void *arg)
{
    node_resume(arg);
}

struct waking {
    struct sim *sim;
    int host;
    bool set_right;
    uint64_t wall_back_ns;
};

static void wake_later(void *arg)
{
    struct waking *waking = arg;
    struct sim *sim = waking->sim;
    host_wake(sim, waking->host, waking->set_right);
    /* It wakes with a clock that was wrong all along. */
    if (waking->wall_back_ns > 0 && sim->phase == SIM_CHAOS)
        host_set_wall(sim, waking->host, sim->hosts[waking->host].wall_offset_ns - (int64_t)waking->wall_back_ns);
    free(waking);
}

static void accident_stop_host(struct run *run, bool frozen)
{
    struct sim *sim = run->sim;
    struct waking *waking = memory_new(sizeof *waking);
    *waking = (struct waking){ .sim = sim, .host = random_host(run), .set_right = world_random(sim->world, 2) == 0 };
    if (!frozen && world_random(sim->world, 3) == 0)
        waking->wall_back_ns = sim_spread(sim, NS_PER_S, 3600 * NS_PER_S);
    host_stop(sim, waking->host, frozen);
    world_after(sim->world, sim_spread(sim, 10 * NS_PER_MS, 100 * NS_PER_S), wake_later, waking);
}

CO static void accident_clone(struct run *run)
{
    struct sim *sim = run->sim;
    struct node *node = random_disk(run)->home;
    if (sim->clone != NULL || node->state != NODE_UP || !node_is_steady(node))
        return;
    const struct clone_plan plan = {
        .snapshot_ns = world_random(sim->world, 2) == 0 ? 0 : sim_spread(sim, NS_PER_MS, 60 * NS_PER_S),
        .set_right = world_random(sim->world, 2) == 0,
        .life_ns = sim_spread(sim, NS_PER_S, 120 * NS_PER_S),
        .clients = (int)sim_between(sim, 1, 2),
        .profile = run->plan->profile,
    };
    clone_make(sim, node, &plan);
}

static void accident_clock(struct run *run)
{
    struct sim *sim = run->sim;
    int64_t offset_ns = (int64_t)sim_spread(sim, NS_PER_MS, 3 * 3600 * NS_PER_S);
    if (world_random(sim->world, 2) == 0)
        offset_ns = -offset_ns;
    if (world_random(sim->world, 4) == 0)
        sim->store_clock.offset_ns = offset_ns;
    else
        host_set_wall(sim, random_host(run), offset_ns);
}

static void accident_pause(struct run *run)
{
    struct node *node = random_node(run);
    if (node == NULL)
        return;
    node_pause(node);
    world_after(run->sim->world, sim_spread(run->sim, 10 * NS_PER_MS, 100 * NS_PER_S), resume_later, node);
}

/* At one of the next store requests, whoever makes it. */
static void accident_at_request(struct run *run, bool pause)
{
    struct sim *sim = run->sim;
    sim->crash_at = sim->requests + sim_spread(sim, 1, 64);
    sim->crash_moment = (int)world_random(sim->world, CRASH_MOMENTS);
    sim->pause_at_crash = pause;
}

static void take_over(struct run *run, struct disk *disk, int host, bool break_lease)
{
    struct sim *sim = run->sim;
    struct node *old = disk->home, *node = start_node(run, host, break_lease);
    bool all = world_random(sim->world, 2) == 0;
    for (int i = 0; i < sim->disk_count; i++)
        if (&sim->disks[i] == disk || (all && sim->disks[i].home == old))
            move_disk(&sim->disks[i], node);
}

static void accident_move(struct run *run)
{
    struct node *node = random_node(run);
    if (run->node_count < NODES_MAX && world_random(run->sim->world, 2) == 0)
        node = start_node(run, random_host(run), false);
    if (node != NULL)
        move_disk(random_disk(run), node);
}

static void end_weather(void *arg)
{
    struct node *node = arg;
    node_weather(node, node->sim->phase == SIM_CHAOS ? NODE_WEATHER_DRAWN : NODE_WEATHER_FAIR);
}

static void accident_weather(struct run *run, enum node_weather weather)
{
    struct node *node = random_node(run);
    if (node == NULL)
        return;
    node_weather(node, weather);
    world_after(run->sim->world, sim_spread(run->sim, 100 * NS_PER_MS, 150 * NS_PER_S), end_weather, node);
}

static const char *const accident_names[ACCIDENTS] = {
    "none",   "crash",    "crash at a request",
    "pause",  "takeover", "paused takeover",
    "move",   "stop",     "outage",
    "deaf",   "half",     "full",
    "clock",  "suspend",  "freeze",
    "reboot", "clone",    "silence",
};

static void accident(struct run *run)
{
    struct sim *sim = run->sim;
    uint32_t sum = 0, kind = 0;
    for (int i = 0; i < ACCIDENTS; i++)
        sum += run->plan->accidents[i];
    if (sum == 0)
        return;
    uint64_t dice = world_random(sim->world, sum);
    while (dice >= run->plan->accidents[kind])
        dice -= run->plan->accidents[kind++];
    struct node *node = random_node(run);
    sim_trace(sim, "accident: %s", accident_names[kind]);
    switch ((enum accident)kind) {
    case ACCIDENT_CRASH:
        if (node != NULL)
            node_crash(node);
        break;
    case ACCIDENT_CRASH_AT_REQUEST:
    case ACCIDENT_PAUSED_TAKEOVER:
        accident_at_request(run, kind == ACCIDENT_PAUSED_TAKEOVER);
        break;
    case ACCIDENT_PAUSE:
        accident_pause(run);
        break;
    case ACCIDENT_TAKEOVER:
        if (run->node_count < NODES_MAX)
            take_over(run, random_disk(run), random_host(run), true);
        break;
    case ACCIDENT_MOVE:
        accident_move(run);
        break;
    case ACCIDENT_STOP:
        if (node != NULL)
            node_stop(node, STOP_HURRIED_NS);
        break;
    case ACCIDENT_OUTAGE:
        accident_weather(run, NODE_WEATHER_OUTAGE);
        break;
    case ACCIDENT_FULL:
        accident_weather(run, NODE_WEATHER_FULL);
        break;
    case ACCIDENT_DEAF:
        accident_weather(run, NODE_WEATHER_DEAF);
        break;
    case ACCIDENT_HALF:
        accident_weather(run, NODE_WEATHER_HALF);
        break;
    case ACCIDENT_CLOCK:
        accident_clock(run);
        break;
    case ACCIDENT_SUSPEND:
    case ACCIDENT_FREEZE:
        accident_stop_host(run, kind == ACCIDENT_FREEZE);
        break;
    case ACCIDENT_REBOOT:
        host_reboot(sim, random_host(run));
        break;
    case ACCIDENT_CLONE:
        accident_clone(run);
        break;
    case ACCIDENT_SILENCE:
        if (node != NULL)
            node_silence(node, 500, sim_spread(sim, NS_PER_S, SILENCE_MOST_NS));
        break;
    case ACCIDENT_NONE:
    case ACCIDENTS:
        break;
    }
}

/* ---- the operator ---- */

/* Who follows a process that is dead, or refuses to serve. */
static struct node *successor(struct run *run, const struct node *old, bool refused)
{
    const struct plan *plan = run->plan;
    if (plan->crash_at > 0)
        return start_node(run, plan->elsewhere ? (old->setup.host + 1) % SIM_HOSTS_MAX : old->setup.host,
                          plan->successor_breaks);
    bool breaks = world_chance(run->sim->world, plan->breaks_permille);
    return start_node(run, refused || world_random(run->sim->world, 2) == 0 ? random_host(run) : old->setup.host,
                      breaks);
}

/* How long the operator lets a disk be refused before trying another server; in chaos that may be too soon. */
static uint64_t patience_ns(struct run *run)
{
    uint64_t lease_ns = run->plan->server.volume.lease_ms * NS_PER_MS;
    return sim_spread(run->sim, lease_ns / 8, lease_ns * 4);
}

/* In calm there is nothing but a lease to wait for. */
static void check_served(struct run *run, const struct disk *disk)
{
    struct sim *sim = run->sim;
    uint64_t lease_ns = host_true_ns(sim, disk->home->setup.host, run->plan->server.volume.lease_ms * NS_PER_MS);
    if (disk->healed_ns != 0 && world_now_ns(sim->world) > disk->healed_ns + lease_ns + TAKEOVER_SLACK_NS)
        sim_fail(sim, "%s does not serve '%s' though it had a whole lease and %" PRIu64 " s to take it",
                 disk->home->name, disk->name, TAKEOVER_SLACK_NS / NS_PER_S);
}

/* Every disk has a living home, which is let to serve it. */
static void look_after_disks(struct run *run)
{
    struct sim *sim = run->sim;
    for (int i = 0; i < sim->disk_count; i++) {
        struct disk *disk = &sim->disks[i];
        struct node *old = disk->home;
        bool refused = sim->phase == SIM_CHAOS && disk->refused_ns != 0 &&
                       world_now_ns(sim->world) > disk->refused_ns + patience_ns(run);
        if (sim->phase == SIM_CALM)
            check_served(run, disk);
        if (old->state < NODE_CRASHING && !refused)
            continue;
        struct node *node = successor(run, old, refused);
        for (int k = i; k < sim->disk_count; k++)
            if (sim->disks[k].home == old)
                move_disk(&sim->disks[k], node);
    }
}

/* A process stands still at a store request: its volumes are taken over. */
static void look_after_paused(struct run *run)
{
    struct sim *sim = run->sim;
    struct node *node = sim->paused_at_request;
    sim->paused_at_request = NULL;
    if (node == NULL)
        return;
    for (int i = 0; i < sim->disk_count; i++)
        if (sim->disks[i].home == node && run->node_count < NODES_MAX)
            take_over(run, &sim->disks[i], (node->setup.host + 1) % SIM_HOSTS_MAX,
                      run->plan->crash_at > 0 ? run->plan->successor_breaks
                                              : world_chance(sim->world, run->plan->breaks_permille));
    uint64_t least_ns = run->plan->crash_at > 0 ? run->plan->resume_least_ns : 10 * NS_PER_MS;
    world_after(sim->world, sim_spread(sim, least_ns, 60 * NS_PER_S), resume_later, node);
}

CO static void chaos(struct run *run)
{
    struct sim *sim = run->sim;
    uint64_t end = world_now_ns(sim->world) + run->plan->chaos_ns;
    uint64_t glance_ns = OPERATOR_NS * 2 < run->plan->accident_ns / 2 ? OPERATOR_NS * 2 : run->plan->accident_ns / 2;
    uint64_t next_accident = world_now_ns(sim->world) + world_random(sim->world, run->plan->accident_ns * 2);
    while (world_now_ns(sim->world) < end && sim->client_requests < sim->client_requests_max) {
        sleep_ns(world_random(sim->world, glance_ns));
        if (world_now_ns(sim->world) >= next_accident) {
            accident(run);
            next_accident = world_now_ns(sim->world) + world_random(sim->world, run->plan->accident_ns * 2);
        }
        look_after_paused(run);
        if (run->node_count < NODES_MAX)
            look_after_disks(run);
    }
}

/* ---- the end ---- */

/* Whether clients flushed, left or vanished: what they wrote does not lie in memory for ever. */
static void check_settled(struct sim *sim)
{
    char volume[SIM_NAME_MAX];
    list_for_each (link, &sim->nodes) {
        const struct node *node = container_of(link, struct node, link);
        if (!node_settled(node, volume))
            sim_fail(sim, "%s still has uncommitted writes of %s though all has been well for long", node->name,
                     volume);
    }
}

/* Its home owns the disk, or nobody does.  One that lost it without knowing would drop its clients once more: that may
 * happen, but it is no calm. */
static bool home_is_lawful(struct sim *sim, const struct disk *disk)
{
    struct audit_ownership ownership;
    if (!audit_ownership(sim, disk->name, &ownership))
        return true; /* nobody has created it yet */
    uint64_t open_epoch = node_epoch(disk->home, disk->name);
    return open_epoch == 0 ? ownership.process == 0 || ownership.process == disk->home->process
                           : ownership.process == disk->home->process && ownership.epoch == open_epoch;
}

/* All that is open anywhere has clients: what had none any more was given back. */
static void check_released(struct sim *sim)
{
    list_for_each (link, &sim->nodes) {
        const struct node *node = container_of(link, struct node, link);
        for (int i = 0; i < sim->disk_count; i++)
            if (node_epoch(node, sim->disks[i].name) != 0)
                sim_fail(sim, "%s still has '%s' open though its clients left or vanished long ago", node->name,
                         sim->disks[i].name);
    }
}

/* They leave registers behind that name them; only the lease tells others that they are gone. */
static void kill_homes(struct sim *sim)
{
    for (int i = 0; i < sim->disk_count; i++)
        node_crash(sim->disks[i].home);
}

CO static void heal(struct run *run)
{
    struct sim *sim = run->sim;
    sim_trace(sim, "all is healed");
    sim->phase = SIM_SETTLING;
    sim->crash_at = 0;
    clone_end(sim);
    if (world_random(sim->world, 4) == 0)
        kill_homes(sim);
    if (run->pinner != NULL)
        pinner_heal(run->pinner);
    for (int i = 0; i < SIM_HOSTS_MAX; i++)
        host_wake(sim, i, true);
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        node_resume(node);
        node_weather(node, NODE_WEATHER_FAIR);
    }
    sleep_ns(run->plan->accidents[ACCIDENT_SILENCE] > 0 ? SETTLING_SILENT_NS : SETTLING_NS);
    check_settled(sim);
    check_released(sim);
    sim->phase = SIM_CALM;
    bool anew = world_random(sim->world, 2) == 0;
    struct node *node = NULL;
    for (int i = 0; i < sim->disk_count; i++) {
        struct disk *disk = &sim->disks[i];
        if (!anew && home_is_lawful(sim, disk) && disk->home->state == NODE_UP) {
            move_disk(disk, disk->home);
            continue;
        }
        if (node == NULL)
            node = start_node(run, random_host(run), world_chance(sim->world, run->plan->breaks_permille));
        move_disk(disk, node);
    }
}

CO static void calm(struct run *run)
{
    for (;;) {
        bool done = true;
        for (int i = 0; i < run->client_count; i++)
            done = done && client_done(run->clients[i]);
        if (done)
            break;
        sleep_ns(OPERATOR_NS);
        look_after_disks(run);
    }
    for (int i = 0; i < run->client_count; i++) {
        client_join(run->clients[i]);
        client_free(run->clients[i]);
    }
    run->client_count = 0;
    if (run->pinner != NULL)
        pinner_finish(run->pinner);
}

static bool is_home(const struct sim *sim, const struct node *node)
{
    for (int i = 0; i < sim->disk_count; i++)
        if (sim->disks[i].home == node)
            return true;
    return false;
}

CO static void stop_all(struct run *run)
{
    struct sim *sim = run->sim;
    list_for_each (link, &sim->nodes)
        node_stop(container_of(link, struct node, link), STOP_PATIENCE_NS);
    list_for_each (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        while (node->state != NODE_GONE)
            waitq_wait(&node->ended);
        if (is_home(sim, node) && node->shutdown_code < 0)
            sim_fail(sim, "%s did not shut down cleanly although all is healed: %s", node->name, node->shutdown_story);
    }
}

/* An object is damaged: a server must neither show anything wrong nor make it worse, and other volumes work on. */
CO static void live_with_damage(struct run *run)
{
    struct sim *sim = run->sim;
    struct damage damage;
    if (!damage_make(sim, &damage))
        return;
    struct node *node = start_node(run, random_host(run), false);
    for (int i = 0; i < sim->disk_count && !sim->failed; i++) {
        move_disk(&sim->disks[i], node);
        client_verify(sim, &sim->disks[i], &sim->disks[i] == damage.disk);
    }
    for (int i = 0; i < sim->disk_count; i++)
        sim->disks[i].home = NULL; /* whether it shuts down in good order is not the question any more */
    if (!sim->failed)
        stop_all(run);
    damage_check(sim, &damage);
}

static void set_clocks(struct run *run)
{
    struct sim *sim = run->sim;
    for (int i = 0; i < SIM_HOSTS_MAX; i++) {
        sim->hosts[i].drift_ppm = run->plan->drift_ppm[i];
        sim->hosts[i].wall_offset_ns = run->plan->wall_offset_ns[i];
    }
    sim->store_clock.drift_ppm = run->plan->store_drift_ppm;
    sim->store_clock.offset_ns = run->plan->store_offset_ns;
}

static void direct(void *arg)
{
    struct run *run = arg;
    struct sim *sim = run->sim;
    set_clocks(run);
    set_up(run);
    chaos(run);
    if (run->plan->ret_chaos_requests != NULL)
        *run->plan->ret_chaos_requests = sim->requests;
    heal(run);
    calm(run);
    stop_all(run);
    struct node *fresh = start_node(run, random_host(run), false);
    for (int i = 0; i < sim->disk_count && !sim->failed; i++) {
        move_disk(&sim->disks[i], fresh);
        client_verify(sim, &sim->disks[i], false);
    }
    if (!sim->failed)
        stop_all(run);
    if (!sim->failed)
        audit_store(sim);
    if (!sim->failed && world_random(sim->world, 2) == 0)
        live_with_damage(run);
    run->over = true;
    world_stop(sim->world);
}

/* The time is up, or nothing happens any more. */
static void tell_hang(struct run *run, bool no_events)
{
    char text[512] = "no client waits";
    for (int i = 0; i < run->client_count; i++)
        if (!client_done(run->clients[i]))
            client_describe(run->clients[i], text, sizeof text);
    sim_fail(run->sim, "%s; %s",
             no_events ? "deadlock: nothing can happen any more" : "the run does not come to its end", text);
}

void scenario_run(struct sim *sim, const struct plan *plan)
{
    struct run run = { .sim = sim, .plan = plan };
    sim->client_requests_max = plan->requests;
    sim->crash_at = plan->crash_at;
    sim->crash_moment = plan->crash_moment;
    sim->crash_again = plan->crash_again;
    sim->pause_at_crash = plan->pause_instead;
    group_init(&run.group, sim->outside);
    group_spawn(&run.group, "direct", direct, &run);
    bool no_events = world_run(sim->world, RUN_NS);
    if (!run.over && !sim->failed)
        tell_hang(&run, no_events);
    if (sim->failed)
        return;
    pinner_free(run.pinner);
    nodes_end(sim);
}
