/* The simulated loop: see rt/loop_sim.h.
 *
 * A world repeats: enter every coroutine that is ready, node by node in the
 * order in which the nodes became ready; then take the earliest of all events
 * and timers, set the clock to it, and run it.  Events stand in one heap of the
 * world, timers in one heap per node (rt/timer.c); both draw their order among
 * equals from one counter of the world.
 *
 * A paused node is left out: its timers and its ready coroutines stay where
 * they are, an event that falls due is held, and all is caught up on resume.
 *
 * Every event and every timer that fires is mixed into the trace hash with its
 * time, so two runs that differ in anything soon differ in their hash.
 *
 * Nothing here can fail. */
#include "rt/loop_sim.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/coroutine_internal.h"
#include "rt/loop_internal.h"
#include "rt/loop_sim_internal.h"

/* What a wall clock of the simulation shows at the start: 2025-01-01. */
#define WALL_START_NS (UINT64_C(1735689600) * NS_PER_S)
/* Nodes were booted at different times, up to this long ago: no two boot-time clocks agree. */
#define BOOTED_AGO_NS (UINT64_C(30) * 24 * 3600 * NS_PER_S)
/* But no less: so far may a clock be set back. */
#define BOOTED_AGO_LEAST_NS (UINT64_C(24) * 3600 * NS_PER_S)
/* A turn of the events, for one that yields; without it, who polls would stop the clock. */
#define YIELD_NS UINT64_C(1000)
/* Blocking work commonly takes up to the first, and once in WORK_SLOW_ONE_IN up to the second. */
#define WORK_NS UINT64_C(200000)
#define WORK_SLOW_NS UINT64_C(20000000)
#define WORK_SLOW_ONE_IN 16

#define CHILDREN 4
#define FIRST_EVENTS 256

struct node;

struct event {
    uint64_t time_ns;
    uint64_t order;
    struct node *node;       /* NULL: the world's own */
    void (*fn)(void *arg);   /* NULL: its node is gone */
    void (*drop)(void *arg); /* may be NULL */
    void *arg;
};

struct world {
    uint64_t now_ns;
    uint64_t next_order;
    uint64_t random_state;
    uint64_t trace;
    bool stopped;
    void (*gate)(void *arg, uint64_t next_ns);
    void *gate_arg;
    struct event *events; /* a heap */
    size_t count, capacity;
    struct list nodes;
    struct list runnable; /* nodes with ready coroutines that are not paused */
};

struct node {
    struct loop loop;
    struct world *world;
    char *name;
    struct list in_world;
    struct list in_runnable;
    bool paused;
    int64_t wall_offset_ns, boottime_offset_ns;
    int32_t drift_ppm;
    uint64_t booted_ago_ns;
    uint64_t random_state;
    bool draws_own;          /* by that; else by the world's */
    uint64_t paused_ns;      /* when it was */
    uint64_t stood_still_ns; /* for so long, all in all, was the host suspended: loop_now_ns() does not count it */
    struct event *held;      /* fell due while paused */
    size_t held_count, held_capacity;
};

struct work {
    struct coroutine *coroutine;
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static const struct loop_ops sim_ops;

static struct node *node_of(struct loop *loop)
{
    assert(loop->ops == &sim_ops);
    return container_of(loop, struct node, loop);
}

/* ---- the heap of events ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

static void push(struct world *world, const struct event *event)
{
    if (world->count == world->capacity) {
        world->capacity = world->capacity == 0 ? FIRST_EVENTS : world->capacity * 2;
        world->events = memory_resize(world->events, world->capacity, sizeof *world->events);
    }
    size_t index = world->count++;
    while (index > 0) {
        size_t parent = (index - 1) / CHILDREN;
        if (!before(event, &world->events[parent]))
            break;
        world->events[index] = world->events[parent];
        index = parent;
    }
    world->events[index] = *event;
}

static struct event pop(struct world *world)
{
    assert(world->count > 0);
    struct event top = world->events[0];
    const struct event last = world->events[--world->count];
    size_t index = 0;
    for (;;) {
        size_t first = index * CHILDREN + 1;
        if (first >= world->count)
            break;
        size_t least = first;
        for (size_t child = first + 1; child < first + CHILDREN && child < world->count; child++)
            if (before(&world->events[child], &world->events[least]))
                least = child;
        if (!before(&world->events[least], &last))
            break;
        world->events[index] = world->events[least];
        index = least;
    }
    world->events[index] = last;
    return top;
}

static void add_event(struct world *world, struct node *node, uint64_t delay_ns, void (*fn)(void *arg),
                      void (*drop)(void *arg), void *arg)
{
    assert(fn != NULL);
    uint64_t time_ns = delay_ns > UINT64_MAX - world->now_ns ? UINT64_MAX : world->now_ns + delay_ns;
    push(world,
         &(struct event){
             .time_ns = time_ns, .order = world->next_order++, .node = node, .fn = fn, .drop = drop, .arg = arg });
}

void loop_sim_after(struct loop *node, uint64_t delay_ns, void (*fn)(void *arg), void (*drop)(void *arg), void *arg)
{
    add_event(node_of(node)->world, node_of(node), delay_ns, fn, drop, arg);
}

void world_after(struct world *world, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
    add_event(world, NULL, delay_ns, fn, NULL, arg);
}

/* ---- the world ---- */

struct world *world_new(uint64_t seed)
{
    struct world *world = memory_new(sizeof *world);
    world->random_state = seed;
    world->trace = seed;
    list_init(&world->nodes);
    list_init(&world->runnable);
    return world;
}

void world_free(struct world *world)
{
    if (world == NULL)
        return;
    assert(list_empty(&world->nodes));
    free(world->events);
    free(world);
}

uint64_t world_now_ns(struct world *world)
{
    return world->now_ns;
}

/* SplitMix64: equidistributed, and any seed is as good as another. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint64_t world_random(struct world *world, uint64_t below)
{
    assert(below > 0);
    /* The high half of the product; its bias is below 2^-64 * `below`, of no account here. */
    return (uint64_t)((unsigned __int128)next_random(&world->random_state) * below >> 64);
}

bool world_chance(struct world *world, uint32_t permille)
{
    return world_random(world, 1000) < permille;
}

void world_trace(struct world *world, const void *bytes, size_t length)
{
    world->trace = XXH3_64bits_withSeed(bytes, length, world->trace);
}

uint64_t world_trace_hash(const struct world *world)
{
    return world->trace;
}

void world_stop(struct world *world)
{
    world->stopped = true;
}

void world_set_gate(struct world *world, void (*gate)(void *arg, uint64_t next_ns), void *arg)
{
    world->gate = gate;
    world->gate_arg = arg;
}

static void make_runnable(struct node *node)
{
    if (!node->paused && !list_empty(&node->loop.ready) && !list_linked(&node->in_runnable))
        list_push_back(&node->world->runnable, &node->in_runnable);
}

static void enter_ready(struct world *world)
{
    struct list *first;
    while (!world->stopped && (first = list_pop_front(&world->runnable)) != NULL) {
        struct node *node = container_of(first, struct node, in_runnable);
        loop_set_current(&node->loop);
        while (!world->stopped && !node->paused && !list_empty(&node->loop.ready))
            loop_enter_one(&node->loop);
        loop_set_current(NULL);
        make_runnable(node);
    }
}

/* When the node's first timer is due by the world's clock. */
static uint64_t first_due_ns(const struct node *node, const struct timer_entry *first)
{
    uint64_t left = UINT64_MAX - first->deadline_ns;
    return node->stood_still_ns > left ? UINT64_MAX : first->deadline_ns + node->stood_still_ns;
}

/* The node whose first timer is the earliest of all and earlier than the first event; NULL: none. */
static struct node *first_timer(struct world *world)
{
    struct node *found = NULL;
    uint64_t time_ns = UINT64_MAX, order = UINT64_MAX;
    if (world->count > 0) {
        time_ns = world->events[0].time_ns;
        order = world->events[0].order;
    }
    list_for_each (item, &world->nodes) {
        struct node *node = container_of(item, struct node, in_world);
        const struct timer_entry *first = timers_first(&node->loop.timers);
        if (node->paused || first == NULL)
            continue;
        uint64_t due_ns = first_due_ns(node, first);
        if (due_ns < time_ns || (due_ns == time_ns && first->order < order)) {
            time_ns = due_ns;
            order = first->order;
            found = node;
        }
    }
    return found;
}

static void hold(struct node *node, const struct event *event)
{
    if (node->held_count == node->held_capacity) {
        node->held_capacity = node->held_capacity == 0 ? 16 : node->held_capacity * 2;
        node->held = memory_resize(node->held, node->held_capacity, sizeof *node->held);
    }
    node->held[node->held_count++] = *event;
}

static void run_event(struct world *world)
{
    struct event event = pop(world);
    if (event.fn == NULL)
        return;
    if (event.node != NULL && event.node->paused) {
        hold(event.node, &event);
        return;
    }
    world->trace = hash_u64(world->trace ^ (world->now_ns + event.order));
    loop_set_current(event.node == NULL ? NULL : &event.node->loop);
    event.fn(event.arg);
    loop_set_current(NULL);
}

static void run_timer(struct world *world, struct node *node)
{
    world->trace = hash_u64(world->trace ^ (world->now_ns + timers_first(&node->loop.timers)->order));
    loop_set_current(&node->loop);
    timers_fire_first(&node->loop.timers);
    loop_set_current(NULL);
}

bool world_run(struct world *world, uint64_t until_ns)
{
    assert(coroutine_self() == NULL && loop_current() == NULL);
    world->stopped = false;
    for (;;) {
        enter_ready(world);
        if (world->stopped)
            return false;
        struct node *node = first_timer(world);
        if (node == NULL && world->count == 0)
            return true;
        uint64_t time_ns =
            node == NULL ? world->events[0].time_ns : first_due_ns(node, timers_first(&node->loop.timers));
        if (world->gate != NULL && time_ns > world->now_ns)
            world->gate(world->gate_arg, time_ns);
        if (time_ns > until_ns) {
            if (world->now_ns < until_ns)
                world->now_ns = until_ns;
            return false;
        }
        if (world->now_ns < time_ns)
            world->now_ns = time_ns;
        if (node == NULL)
            run_event(world);
        else
            run_timer(world, node);
    }
}

/* ---- a node as a loop ---- */

static uint64_t sim_now_ns(struct loop *loop)
{
    return node_of(loop)->world->now_ns - node_of(loop)->stood_still_ns;
}

/* The time since the world began by a clock that drifts. */
static uint64_t drifted_ns(const struct node *node)
{
    __int128 ahead_ns = (__int128)node->world->now_ns * node->drift_ppm / 1000000;
    return node->world->now_ns + (uint64_t)(int64_t)ahead_ns;
}

static uint64_t sim_boottime_ns(struct loop *loop)
{
    const struct node *node = node_of(loop);
    return drifted_ns(node) + node->booted_ago_ns + (uint64_t)node->boottime_offset_ns;
}

static uint64_t sim_wall_ns(struct loop *loop)
{
    return WALL_START_NS + drifted_ns(node_of(loop)) + (uint64_t)node_of(loop)->wall_offset_ns;
}

static void sim_random(struct loop *loop, void *bytes, size_t length)
{
    struct node *node = node_of(loop);
    for (size_t done = 0; done < length;) {
        uint64_t value = next_random(node->draws_own ? &node->random_state : &node->world->random_state);
        size_t part = length - done < sizeof value ? length - done : sizeof value;
        memcpy((char *)bytes + done, &value, part);
        done += part;
    }
}

static void run_work(void *arg)
{
    struct work *work = arg;
    work->fn(work->arg);
    work->done = true;
    coroutine_wake(work->coroutine);
}

static void sim_work(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct world *world = node_of(loop)->world;
    struct work work = { .coroutine = coroutine_self(), .fn = fn, .arg = arg };
    uint64_t longest_ns = world_random(world, WORK_SLOW_ONE_IN) == 0 ? WORK_SLOW_NS : WORK_NS;
    loop_sim_after(loop, world_random(world, longest_ns), run_work, NULL, &work);
    while (!work.done)
        coroutine_park_shielded();
}

static void sim_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    loop_sim_after(loop, 0, fn, NULL, arg);
}

static void sim_became_ready(struct loop *loop)
{
    make_runnable(node_of(loop));
}

static void end_yield(void *arg)
{
    loop_end_yield(arg);
}

static void sim_became_yielded(struct loop *loop)
{
    loop_sim_after(loop, YIELD_NS, end_yield, NULL, loop);
}

static void forget_events(struct world *world, const struct node *node)
{
    for (size_t i = 0; i < world->count; i++) {
        struct event *event = &world->events[i];
        if (event->node != node)
            continue;
        if (event->fn != NULL && event->drop != NULL)
            event->drop(event->arg);
        event->node = NULL;
        event->fn = NULL;
    }
    for (size_t i = 0; i < node->held_count; i++)
        if (node->held[i].drop != NULL)
            node->held[i].drop(node->held[i].arg);
}

static void sim_free(struct loop *loop)
{
    struct node *node = node_of(loop);
    loop_fini(loop);
    forget_events(node->world, node);
    list_remove(&node->in_runnable);
    list_remove(&node->in_world);
    free(node->held);
    free(node->name);
    free(node);
}

static const struct loop_ops sim_ops = {
    .now_ns = sim_now_ns,
    .boottime_ns = sim_boottime_ns,
    .wall_ns = sim_wall_ns,
    .random = sim_random,
    .work = sim_work,
    .post = sim_post,
    .became_ready = sim_became_ready,
    .became_yielded = sim_became_yielded,
    .free = sim_free,
};

struct loop *loop_sim_new(struct world *world, const char *name)
{
    struct node *node = memory_new(sizeof *node);
    loop_init(&node->loop, &sim_ops, &world->next_order);
    node->world = world;
    node->name = memory_string(name);
    node->booted_ago_ns = BOOTED_AGO_LEAST_NS + world_random(world, BOOTED_AGO_NS);
    list_init(&node->in_runnable);
    list_push_back(&world->nodes, &node->in_world);
    return &node->loop;
}

const char *loop_sim_name(const struct loop *loop)
{
    return node_of((struct loop *)loop)->name;
}

struct world *loop_sim_world(const struct loop *loop)
{
    return node_of((struct loop *)loop)->world;
}

void loop_sim_pause(struct loop *loop)
{
    struct node *node = node_of(loop);
    if (!node->paused)
        node->paused_ns = node->world->now_ns;
    node->paused = true;
    list_remove(&node->in_runnable);
}

void loop_sim_resume(struct loop *loop)
{
    struct node *node = node_of(loop);
    struct world *world = node->world;
    if (!node->paused)
        return;
    node->paused = false;
    for (size_t i = 0; i < node->held_count; i++) {
        struct event *event = &node->held[i];
        event->time_ns = world->now_ns;
        event->order = world->next_order++;
        push(world, event);
    }
    node->held_count = 0;
    make_runnable(node);
}

void loop_sim_wake(struct loop *loop)
{
    struct node *node = node_of(loop);
    if (node->paused)
        node->stood_still_ns += node->world->now_ns - node->paused_ns;
    loop_sim_resume(loop);
}

void loop_sim_set_boottime_offset(struct loop *loop, int64_t offset_ns)
{
    node_of(loop)->boottime_offset_ns = offset_ns;
}

void loop_sim_set_wall_offset(struct loop *loop, int64_t offset_ns)
{
    node_of(loop)->wall_offset_ns = offset_ns;
}

void loop_sim_set_drift(struct loop *loop, int32_t ppm)
{
    node_of(loop)->drift_ppm = ppm;
}

void loop_sim_reseed(struct loop *loop)
{
    struct node *node = node_of(loop);
    node->random_state = next_random(&node->world->random_state);
    node->draws_own = true;
}
