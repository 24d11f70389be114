/* The shard's memory: who may have how much of it, and what happens when its share changes.
 *
 * All pages come out of one pool with the share as its limit.  What cannot be
 * evicted has gates in front of it, so that it stays below the whole and nobody
 * waits for memory that only the waiting ones could free:
 *
 *     dirty    uncommitted pages     at most half of the share, or what is set
 *     reply    pages in replies      a quarter
 *     fetch    frames on their way   an eighth
 *
 * The rest, and whatever of this is not in use, is cache.
 *
 * Leaves of the maps are charged to the pool: an eighth of the share, divided
 * among the volumes that are open.  Leaves that wait for a checkpoint, at most
 * half of that before commits wait, cannot be evicted, nor can what a checkpoint
 * has laid out.  Since no volume gets less than a least part, many volumes
 * together may have changed more than that; so shortage makes checkpoints too.
 * All this comes back without needing memory that others hold, and so do
 * uncommitted pages.  So whoever waits in the pool gets his turn.  The levels
 * above the leaves stand outside the limit: 4 MiB for 1 TiB of disk.
 *
 * More takes effect at once.  Less must come in this order: first the gates
 * close, while the pool keeps its limit, so that all who were let in by the old
 * measure come to their end by it; when they have, the pool's limit falls and
 * the cache gives back what is over. */
#include <assert.h>
#include <errno.h>

#include "vol/checkpoint.h"
#include "vol/internal.h"

/* A shard of 512 MiB has 64 MiB for leaves: 1 TiB written in order, or 30 GiB written in single pages. */
#define MAP_SHARE 8u
#define MAP_BYTES_LEAST (UINT64_C(8) << 20)
/* Of each volume, however many there are: with less it would make checkpoints all the time. */
#define MAP_VOLUME_LEAST (UINT64_C(1) << 20)

/* A volume's checkpoint is due when its changed leaves take this part of what it may have (vol/checkpoint.c).  When the
 * pool is short, some are made, so many at a time, if those of all volumes together take this part of what all may
 * have, or this part of the pool, where that has less than maps were promised. */
#define CHANGED_SHARE 4u
#define CHANGED_POOL_SHARE 16u
#define SHORTAGE_CHECKPOINTS 4u

struct budget {
    uint64_t dirty, reply, fetch, map;
};

/* The write buffer was set for a certain share, and keeps its proportion to it: so the shards of a server together
 * never have more than was set, however the memory is divided between them. */
static struct budget budget_of(const struct volume_settings *settings, uint64_t memory)
{
    double growth = (double)memory / (double)settings->memory_bytes;
    uint64_t dirty = (uint64_t)((double)settings->dirty_bytes * growth);
    uint64_t fetch = memory / 8, most = (uint64_t)FETCHES_MAX * FETCH_COST_LEAST;
    uint64_t map = memory / MAP_SHARE > MAP_BYTES_LEAST ? memory / MAP_SHARE : MAP_BYTES_LEAST;
    if (settings->map_bytes != 0)
        map = settings->map_bytes;
    return (struct budget){ .dirty = dirty < memory / 2 ? dirty : memory / 2,
                            .reply = memory / 4,
                            .fetch = fetch < most ? fetch : most,
                            .map = map };
}

bool volumes_writers_wait(const struct volumes *all)
{
    return gate_waited_for(&all->dirty_gate);
}

bool volumes_readers_wait(const struct volumes *all)
{
    return gate_waited_for(&all->reply_gate);
}

void budget_init(struct volumes *all)
{
    struct budget budget = budget_of(&all->settings, all->settings.memory_bytes);
    all->pool = page_pool_new(all->loop, all->settings.memory_bytes);
    all->dirty_most = budget.dirty;
    all->map_most = budget.map;
    gate_init(&all->dirty_gate, budget.dirty);
    gate_init(&all->reply_gate, budget.reply);
    gate_init(&all->fetch_gate, budget.fetch);
}

static void set_gates(struct volumes *all, const struct budget *budget)
{
    /* A limit that was lowered because commits are slow (vol/commit.c) stays as low: it grows back by itself. */
    bool lowered = all->dirty_gate.limit < all->dirty_most;
    all->dirty_most = budget->dirty;
    if (!lowered || all->dirty_gate.limit > budget->dirty)
        gate_set_limit(&all->dirty_gate, budget->dirty);
    gate_set_limit(&all->reply_gate, budget->reply);
    gate_set_limit(&all->fetch_gate, budget->fetch);
    all->map_most = budget->map;
    budget_divide_maps(all);
}

/* ---- maps ---- */

void budget_divide_maps(struct volumes *all)
{
    uint64_t count = 0;
    list_for_each (node, &all->all)
        count += container_of(node, struct volume, link)->map != NULL;
    if (count == 0)
        return;
    uint64_t least = all->map_most < MAP_VOLUME_LEAST ? all->map_most : MAP_VOLUME_LEAST;
    uint64_t each = all->map_most / count > least ? all->map_most / count : least;
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        if (volume->map == NULL)
            continue;
        volume->map_budget = each;
        map_set_budget(volume->map, each);
        budget_charge_map(volume);
    }
}

void budget_charge_map(struct volume *volume)
{
    uint64_t now = map_leaf_bytes(volume->map);
    if (now > volume->map_charged)
        page_pool_charge(volume->all->pool, now - volume->map_charged);
    else
        page_pool_uncharge(volume->all->pool, volume->map_charged - now);
    volume->map_charged = now;
}

void budget_drop_map(struct volume *volume)
{
    if (volume->map == NULL)
        return;
    map_free(volume->map);
    volume->map = NULL;
    page_pool_uncharge(volume->all->pool, volume->map_charged);
    volume->map_charged = 0;
    budget_divide_maps(volume->all);
}

/* Changed leaves of all volumes together take too much, though those of each may be fewer than make its own checkpoint
 * due. */
static bool too_many_changed(const struct volumes *all, uint32_t *ret_coming)
{
    uint64_t changed = 0;
    uint32_t coming = 0;
    list_for_each (node, &all->all) {
        const struct volume *volume = container_of(node, struct volume, link);
        if (volume->map == NULL)
            continue;
        changed += map_dirty_bytes(volume->map);
        coming += checkpoint_is_coming(volume);
    }
    *ret_coming = coming;
    uint64_t of_maps = all->map_most / CHANGED_SHARE, of_pool = page_pool_limit(all->pool) / CHANGED_POOL_SHARE;
    return changed >= (of_maps < of_pool ? of_maps : of_pool);
}

/* The one with most changed leaves that can have a checkpoint gets one; false: there is none. */
static bool want_checkpoint(const struct volumes *all)
{
    struct volume *most = NULL;
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        if (volume->map != NULL && map_dirty_bytes(volume->map) > 0 && checkpoint_is_possible(volume) &&
            (most == NULL || map_dirty_bytes(volume->map) > map_dirty_bytes(most->map)))
            most = volume;
    }
    if (most != NULL)
        checkpoint_want(most);
    return most != NULL;
}

/* Only checkpoints make changed leaves something that can be evicted. Whoever waits in the pool is served as they do.
 */
static void want_checkpoints(const struct volumes *all)
{
    uint32_t coming;
    if (!too_many_changed(all, &coming))
        return;
    while (coming < SHORTAGE_CHECKPOINTS && want_checkpoint(all))
        coming++;
}

/* Pages of the cache first: a leaf is little, and without it each read of its 2 MiB needs one request more. */
uint64_t budget_shrink(void *arg, uint64_t bytes)
{
    struct volumes *all = arg;
    uint64_t came = cache_shrink(all->cache, bytes);
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        if (came >= bytes)
            break;
        if (volume->map == NULL)
            continue;
        came += map_evict(volume->map, bytes - came);
        budget_charge_map(volume);
    }
    if (came < bytes)
        want_checkpoints(all);
    return came;
}

/* ---- a share that changes ---- */

static bool gates_are_kept(const struct volumes *all)
{
    return all->dirty_gate.used <= all->dirty_gate.limit && all->reply_gate.used <= all->reply_gate.limit &&
           all->fetch_gate.used <= all->fetch_gate.limit;
}

static bool pool_is_kept(const struct page_pool *pool, uint64_t limit)
{
    return page_pool_used(pool) / PAGE_BYTES * PAGE_COST + page_pool_charged(pool) <= limit;
}

/* Waits until what is behind the gate was within its limit once; it stays so from then on. */
static int await_gate(struct gate *gate)
{
    if (gate_enter(gate, 1) < 0)
        return -1;
    gate_leave(gate, 1);
    return 0;
}

/* The pool hands out a page only where it stays within its limit: so who gets one knows that it does. */
static int await_pool(struct page_pool *pool)
{
    struct page *page;
    int status = page_pool_take(pool, 1, &page);
    if (status == 0)
        page_unref(page);
    return status == -ECANCELED ? -1 : 0; /* -ENOMEM: it was our turn, and the system has no memory */
}

static void shrink_task(void *arg)
{
    struct volumes *all = arg;
    /* Committers look at the dirty gate when they wake, which is after we have queued in it. */
    list_for_each (node, &all->all)
        commit_kick(container_of(node, struct volume, link));
    if (await_gate(&all->dirty_gate) < 0 || await_gate(&all->reply_gate) < 0 || await_gate(&all->fetch_gate) < 0)
        return;
    page_pool_set_limit(all->pool, all->shrinking_to);
    if (await_pool(all->pool) < 0)
        return;
    all->shrinking_to = 0;
    if (all->shrunk != NULL)
        all->shrunk(all->shrunk_arg);
}

void volumes_set_memory(struct volumes *all, uint64_t memory_bytes, void (*done)(void *arg), void *arg)
{
    if (all->stopping)
        return;
    assert(memory_bytes > 0 && all->shrinking_to == 0);
    struct budget budget = budget_of(&all->settings, memory_bytes);
    set_gates(all, &budget);
    bool less = memory_bytes < page_pool_limit(all->pool);
    bool kept = !less || gates_are_kept(all);
    if (kept)
        page_pool_set_limit(all->pool, memory_bytes);
    if (kept && pool_is_kept(all->pool, memory_bytes)) {
        if (done != NULL)
            done(arg);
        return;
    }
    all->shrinking_to = memory_bytes;
    all->shrunk = done;
    all->shrunk_arg = arg;
    group_spawn(&all->group, "shrink", shrink_task, all);
}
