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
 * More takes effect at once.  Less must come in this order: first the gates
 * close, while the pool keeps its limit, so that all who were let in by the old
 * measure come to their end by it; when they have, the pool's limit falls and
 * the cache gives back what is over. */
#include <assert.h>
#include <errno.h>

#include "vol/internal.h"

struct budget {
    uint64_t dirty, reply, fetch;
};

/* The write buffer was set for a certain share, and keeps its proportion to it: so the shards of a server together
 * never have more than was set, however the memory is divided between them. */
static struct budget budget_of(const struct volume_settings *settings, uint64_t memory)
{
    double growth = (double)memory / (double)settings->memory_bytes;
    uint64_t dirty = (uint64_t)((double)settings->dirty_bytes * growth);
    uint64_t fetch = memory / 8, most = (uint64_t)FETCHES_MAX * FETCH_COST_LEAST;
    return (struct budget){ .dirty = dirty < memory / 2 ? dirty : memory / 2,
                            .reply = memory / 4,
                            .fetch = fetch < most ? fetch : most };
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
}

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
