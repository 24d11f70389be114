/* See node.h.
 *
 * A crash happens in two steps.  At once, wherever the simulation stands: the
 * tap and the fault wrapper let nothing more through to the store, and every
 * connection is cut; that is all that the world can see of a crash.  Then, as a
 * task of the node itself, everything is cancelled and unwinds, so that a run
 * of many crashes leaks nothing and the sanitizers can say so; a last event on
 * the world's own stack frees the memory.
 *
 * A process that is paused resumes for that: cut off, it can do no harm. */
#include "node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "base/memory.h"
#include "clone.h"
#include "court.h"
#include "rt/task.h"
#include "tap.h"

static const char *const event_levels[] = { "debug", "info", "warning", "error" };

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* Some events say something that can be held against the facts. */
static void on_volume_event(struct node *node, struct disk *disk, const char *text)
{
    struct audit_ownership ownership;
    char story[CHECKER_STORY_MAX];
    if (node->state >= NODE_CRASHING)
        return;
    uint64_t asked = node->asked[disk - node->sim->disks], epoch = node_epoch(node, disk->name);
    if (begins_with(text, "open") && (asked >> epoch % 64 & 1) == 0)
        sim_fail(node->sim, "%s serves '%s' and has not looked whether the register names it since it took it",
                 node->name, disk->name);
    if (begins_with(text, "open"))
        node->opened[disk - node->sim->disks] = epoch;
    if (begins_with(text, "released") && !court_era_released(node->sim, disk, epoch, story))
        sim_fail(node->sim, "%s released '%s': %s", node->name, disk->name, story);
    if (begins_with(text, "checkpoint at") && !node->sim->damaged && node->sim->remote < 0)
        audit_checkpoint(node->sim, disk->name);
    if (strstr(text, "its clients are dropped") == NULL)
        return;
    if (node->sim->remote >= 0)
        clone_lost(node->sim, disk, epoch);
    else
        tenure_lost(disk, epoch, UNIVERSE_ORIGINAL, world_now_ns(node->sim->world));
    /* Of two copies, each may find that it is not the one. */
    if (!node->sim->damaged && node->cloned_ns == 0 && audit_ownership(node->sim, disk->name, &ownership) &&
        ownership.process == node->process && ownership.epoch == epoch)
        sim_fail(node->sim, "%s, the lawful owner of '%s', believes to be fenced: %s", node->name, disk->name, text);
}

void node_asks(struct node *node, const char *key)
{
    struct audit_ownership ownership;
    for (int i = 0; i < node->sim->disk_count; i++) {
        char disk_key[KEY_MAX];
        key_register(node->sim->disks[i].name, strlen(node->sim->disks[i].name), disk_key);
        if (strcmp(key, disk_key) == 0 && audit_ownership(node->sim, node->sim->disks[i].name, &ownership))
            node->asked[i] |= UINT64_C(1) << ownership.epoch % 64;
    }
}

static void on_event(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    struct node *node = container_of(sink, struct node, events);
    sim_trace(node->sim, "%s %s %s: %s", node->name, event_levels[level], subject, text);
    for (int i = 0; i < node->sim->disk_count; i++) {
        struct disk *disk = &node->sim->disks[i];
        char expected[SIM_NAME_MAX + 16];
        snprintf(expected, sizeof expected, "volume '%s'", disk->name);
        if (strcmp(expected, subject) == 0)
            on_volume_event(node, disk, text);
    }
}

/* ---- the host ---- */

static void host_sign(struct host *host, struct register_body *body)
{
    struct node *node = container_of(host, struct node, host);
    snprintf(body->host, sizeof body->host, "host%d", node->setup.host);
    body->process = node->process;
    host_boot_id(node->sim, node->setup.host, body->boot_id);
    snprintf(body->lock_path, sizeof body->lock_path, "/lock/%" PRIu64, node->process);
    body->lock_device = 1;
    body->lock_inode = node->process;
}

static bool host_owner_is_dead(struct host *host, const struct register_body *body)
{
    struct node *self = container_of(host, struct node, host);
    uint8_t boot_id[BOOT_ID_BYTES];
    host_boot_id(self->sim, self->setup.host, boot_id);
    if (memcmp(boot_id, body->boot_id, BOOT_ID_BYTES) != 0)
        return false;
    list_for_each (link, &self->sim->nodes) {
        const struct node *node = container_of(link, struct node, link);
        if (node->process == body->lock_inode)
            return !node_alive(node);
    }
    return false;
}

static const struct host_ops host_ops = { .sign = host_sign, .owner_is_dead = host_owner_is_dead };

/* ---- life ---- */

static struct nbd_service *home_of(void *arg, const char *name, size_t name_length)
{
    return ((struct node *)arg)->service;
}

struct node *node_start(struct sim *sim, const struct node_setup *setup)
{
    struct node *node = memory_new(sizeof *node);
    node->sim = sim;
    node->setup = *setup;
    node->setup.volume.break_lease = setup->break_lease;
    node->process = ++sim->next_process;
    snprintf(node->name, sizeof node->name, "s%" PRIu64 "@%d", node->process, setup->host);
    node->loop = loop_sim_new(sim->world, node->name);
    loop_sim_reseed(node->loop);
    node->host.ops = &host_ops;
    node->events.raise = on_event;
    node->events.least = EVENT_DEBUG;
    host_join(node);
    node->fault = store_fault_new(sim->world, tenure_watch(sim, node, UNIVERSE_ORIGINAL, store_mem_open(sim->mem)),
                                  &setup->faults);
    node->tap = tap_new(node, node->fault);
    node->volumes = volumes_new(node->loop, tap_store(node->tap), &node->host, &node->events, &node->setup.volume);
    const struct nbd_wiring wiring = {
        .loop = node->loop,
        .volumes = node->volumes,
        .store = tap_store(node->tap),
        .events = &node->events,
        .home = home_of,
        .arg = node,
    };
    node->service = nbd_service_new(&wiring, &setup->nbd);
    group_init(&node->group, node->loop);
    list_init(&node->cables);
    waitq_init(&node->ended);
    list_push_back(&sim->nodes, &node->link);
    sim_trace(sim, "%s starts%s", node->name, setup->break_lease ? ", breaks leases" : "");
    if (sim->hosts[setup->host].stopped_ns != 0)
        node_suspend(node);
    return node;
}

bool node_alive(const struct node *node)
{
    return node->state == NODE_UP || node->state == NODE_PAUSED || node->state == NODE_STOPPING;
}

static void free_memory(void *arg)
{
    struct node *node = arg;
    assert(node->group.count == 0);
    nbd_service_free(node->service);
    volumes_free(node->volumes);
    store_close(tap_store(node->tap));
    loop_free(node->loop);
    node->service = NULL;
    node->volumes = NULL;
    node->tap = NULL;
    node->fault = NULL;
    node->loop = NULL;
    node->state = NODE_GONE;
    sim_trace(node->sim, "%s is gone", node->name);
    waitq_wake_all(&node->ended);
}

static void unwind(void *arg)
{
    struct node *node = arg;
    nbd_service_abort(node->service);
    volumes_abandon(node->volumes);
    world_after(node->sim->world, 0, free_memory, node);
}

void node_crash(struct node *node)
{
    if (node->state >= NODE_CRASHING)
        return;
    sim_trace(node->sim, "%s crashes", node->name);
    bool stopping = node->state == NODE_STOPPING;
    node_wake(node);
    node_resume(node);
    node->state = NODE_CRASHING;
    tap_cut(node->tap);
    store_fault_cut(node->fault);
    list_for_each (link, &node->cables)
        channel_sim_cut(container_of(link, struct cable, link)->channel);
    /* A shutdown under way unwinds by itself (see stop_task). */
    if (!stopping)
        group_spawn(&node->group, "unwind", unwind, node);
}

void node_pause(struct node *node)
{
    if (node->state != NODE_UP)
        return;
    sim_trace(node->sim, "%s is paused", node->name);
    node->state = NODE_PAUSED;
    loop_sim_pause(node->loop);
}

void node_resume(struct node *node)
{
    if (node->state != NODE_PAUSED || node->suspended || node->elsewhere)
        return;
    sim_trace(node->sim, "%s goes on", node->name);
    node->state = NODE_UP;
    loop_sim_resume(node->loop);
}

void node_suspend(struct node *node)
{
    if (node->state != NODE_UP || node->elsewhere)
        return;
    node->state = NODE_PAUSED;
    node->suspended = true;
    loop_sim_pause(node->loop);
}

void node_wake(struct node *node)
{
    if (!node->suspended || node->elsewhere)
        return;
    node->suspended = false;
    node->state = NODE_UP;
    loop_sim_wake(node->loop);
}

struct stopping {
    struct node *node;
    uint64_t deadline_ns;
};

static void stop_task(void *arg)
{
    struct stopping *stopping = arg;
    struct node *node = stopping->node;
    struct error error = ERROR_NONE;
    nbd_service_drain(node->service, stopping->deadline_ns);
    node->shutdown_code = volumes_shutdown(node->volumes, stopping->deadline_ns, &error);
    snprintf(node->shutdown_story, sizeof node->shutdown_story, "%s", error.story);
    sim_trace(node->sim, "%s has shut down: %d %s", node->name, node->shutdown_code, error.story);
    if (node->shutdown_code < 0)
        volumes_abandon(node->volumes);
    free(stopping);
    node->state = NODE_CRASHING; /* no way back: its memory goes next */
    world_after(node->sim->world, 0, free_memory, node);
}

void node_stop(struct node *node, uint64_t patience_ns)
{
    node_resume(node);
    if (node->state != NODE_UP)
        return;
    sim_trace(node->sim, "%s is told to stop", node->name);
    node->state = NODE_STOPPING;
    struct stopping *stopping = memory_new(sizeof *stopping);
    *stopping = (struct stopping){ .node = node, .deadline_ns = loop_now_ns(node->loop) + patience_ns };
    group_spawn(&node->group, "stop", stop_task, stopping);
}

void nodes_end(struct sim *sim)
{
    list_for_each (link, &sim->nodes)
        node_crash(container_of(link, struct node, link));
    world_run(sim->world, world_now_ns(sim->world) + 3600 * NS_PER_S);
    list_for_each_safe (link, &sim->nodes) {
        struct node *node = container_of(link, struct node, link);
        assert(node->state == NODE_GONE);
        list_remove(&node->link);
        free(node);
    }
}

void node_weather(struct node *node, enum node_weather weather)
{
    if (!node_alive(node))
        return;
    struct fault_settings faults = node->setup.faults;
    if (weather == NODE_WEATHER_FAIR)
        faults = (struct fault_settings){ .way_there = faults.way_there, .way_back = faults.way_back };
    if (weather == NODE_WEATHER_OUTAGE)
        faults.lost_permille = 1000;
    if (weather == NODE_WEATHER_DEAF)
        faults = (struct fault_settings){ .way_there = faults.way_there,
                                          .way_back = faults.way_back,
                                          .timeout = faults.timeout,
                                          .unanswered_permille = 1000 };
    if (weather == NODE_WEATHER_HALF) {
        faults.lost_permille = 400;
        faults.unanswered_permille = 600;
    }
    tap_set_full(node->tap, weather == NODE_WEATHER_FULL);
    sim_trace(node->sim, "%s has weather %d", node->name, (int)weather);
    store_fault_change(node->fault, &faults);
}

struct creation {
    struct node *node;
    const char *name;
    uint64_t size;
    bool over;
};

static void create_task(void *arg)
{
    struct creation *creation = arg;
    struct volume *volume;
    struct error error = ERROR_NONE;
    struct node *node = creation->node;
    while (volumes_acquire(node->volumes, creation->name, strlen(creation->name), creation->size, &volume, &error) <
           0) {
        sim_trace(node->sim, "%s cannot create %s: %s", node->name, creation->name, error.story);
        sleep_ns(100 * NS_PER_MS);
    }
    volumes_release(node->volumes, volume, false);
    creation->over = true;
}

CO void node_create_volume(struct node *node, const char *name, uint64_t size)
{
    struct creation creation = { .node = node, .name = name, .size = size };
    group_spawn(&node->group, "create", create_task, &creation);
    while (!creation.over)
        sleep_ns(10 * NS_PER_MS);
}

/* ---- clients ---- */

void node_connect(struct node *node, struct cable *cable)
{
    struct sim *sim = node->sim;
    list_init(&cable->link);
    if (!node_alive(node)) {
        /* Nobody listens: a connection to nowhere, reset soon. */
        struct channel *nowhere;
        channel_sim_pair(sim->outside, sim->outside, &cable->channel, &nowhere);
        channel_sim_cut(cable->channel);
        channel_close(nowhere);
        return;
    }
    struct channel *server;
    channel_sim_pair(sim->outside, node->loop, &cable->channel, &server);
    list_push_back(&node->cables, &cable->link);
    nbd_service_accept(node->service, server);
}

void node_disconnect(struct cable *cable)
{
    list_remove(&cable->link);
}

void node_silence(struct node *node, uint32_t permille, uint64_t notice_ns)
{
    list_for_each (link, &node->cables)
        if (world_chance(node->sim->world, permille))
            channel_sim_silence(container_of(link, struct cable, link)->channel, notice_ns);
}

bool node_has_one_connection(const struct node *node)
{
    return node_alive(node) && nbd_service_read_counts(node->service).connections == 1;
}

struct epoch_search {
    char subject[SIM_NAME_MAX + 16];
    uint64_t epoch;
};

static void compare_epoch(void *arg, struct volume *volume)
{
    struct epoch_search *search = arg;
    if (strcmp(volume_subject(volume), search->subject) == 0)
        search->epoch = volume_read_counts(volume).epoch;
}

uint64_t node_epoch(const struct node *node, const char *name)
{
    if (node->state >= NODE_CRASHING)
        return 0;
    struct epoch_search search = { .epoch = 0 };
    snprintf(search.subject, sizeof search.subject, "volume '%s'", name);
    volumes_walk(node->volumes, compare_epoch, &search);
    return search.epoch;
}

struct steadiness {
    const struct node *node;
    bool steady;
};

static void look_for_opening(void *arg, struct volume *volume)
{
    struct steadiness *steadiness = arg;
    uint64_t epoch = volume_read_counts(volume).epoch;
    bool open = false;
    for (int i = 0; i < steadiness->node->sim->disk_count; i++) {
        char subject[SIM_NAME_MAX + 16];
        snprintf(subject, sizeof subject, "volume '%s'", steadiness->node->sim->disks[i].name);
        open = open || (strcmp(volume_subject(volume), subject) == 0 && steadiness->node->opened[i] == epoch);
    }
    steadiness->steady = steadiness->steady && open && epoch != 0;
}

bool node_is_steady(const struct node *node)
{
    struct steadiness steadiness = { .node = node, .steady = true };
    volumes_walk(node->volumes, look_for_opening, &steadiness);
    return steadiness.steady;
}

static void look_for_unsettled(void *arg, struct volume *volume)
{
    if (volume_read_counts(volume).uncommitted_batches > 0)
        snprintf(arg, SIM_NAME_MAX, "%s", volume_subject(volume));
}

bool node_settled(const struct node *node, char *ret_volume)
{
    ret_volume[0] = '\0';
    if (node_alive(node))
        volumes_walk(node->volumes, look_for_unsettled, ret_volume);
    return ret_volume[0] == '\0';
}
