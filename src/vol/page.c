/* See page.h.
 *
 * Memory comes from the system in regions (page_region.c) of eight slabs, or of
 * one where the limit has no room for eight.  A slab has 64 pages, and keeps its
 * free ones as a bitmap of 64 bits, so a run of adjacent pages is found with a few
 * shifts.  Slabs stand in lists by rank:
 *
 *     rank 0      no page is free
 *     rank 1..6   the longest run of free pages is 2^(rank-1) to 2^rank - 1
 *     rank 7      all 64 are free
 *
 * A request takes the smallest run that is long enough: small ones fill the
 * gaps, long runs stay whole for large ones, and slabs become empty again.  A
 * slab whose rank changes goes to the front of its list, so memory that was
 * in use a moment ago, and is still in the processor's caches, goes out first.
 * Where no run is long enough another slab is made resident if the limit has
 * room for it; otherwise the request is put together from pieces.
 *
 * Memory goes back by regions of which all slabs are empty.  Only when the limit
 * demands it, single slabs of others are discarded; they are the first to come
 * again.
 *
 * Invariants:
 *   - used + charged <= limit whenever a page is handed out (charges alone may
 *     push the sum over: then nothing is handed out until it has come down);
 *   - slabs are resident only while they all fit the limit, the last one in part:
 *     so what is resident exceeds the limit by less than one slab, except that
 *     after the limit is lowered, or charges grow, slabs that are partly in use
 *     cannot be given back before their last page is (at worst one page of 64
 *     in each; filling gaps first keeps that rare);
 *   - at most SPARE_SLABS empty ones are kept, or as many as are in use, up to a
 *     half of the limit: what was written over comes back in large amounts,
 *     and is asked for again; not counted are those of regions that are in use
 *     otherwise.
 *
 * Waiting.  Those who wait are served in order of arrival, by whoever gives
 * pages back, so a large request cannot be starved by small ones.  The hook is
 * asked when a request comes to stand first, when somebody says it may have
 * more (page_pool_retry), and after as many pages came back as were missing
 * when it was last asked: then what it counted on has arrived, and if that was
 * not enough it may try anew.
 *
 * What can fail: the system may refuse to map memory (-ENOMEM; nothing is
 * handed out then), or to unmap it (the slab is kept as a spare). */
#include "vol/page.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/page_region.h"

#define SLAB_PAGES 64u
#define SLAB_BYTES (SLAB_PAGES * PAGE_BYTES)
#define RANKS 8u
#define REGION_SLABS (uint32_t)(REGION_BYTES / SLAB_BYTES)
/* Slabs of the same rank that are looked at for a run longer than the rank promises: enough to find the usual one,
 * few enough to cost nothing. */
#define RANK_PROBES 4u
/* Empty slabs that are kept in any case, 8 MiB: one data object's worth of pages comes and goes without system calls.
 */
#define SPARE_SLABS 32u

struct region {
    uint8_t *data;
    uint32_t slabs;    /* that it has room for */
    uint32_t resident; /* of them */
    uint32_t spare;    /* of those, empty */
    struct list idle;  /* pool.idle: all that are resident are empty */
    struct list gap;   /* pool.gaps: not all are resident */
    struct slab *at[]; /* NULL: discarded */
};

struct slab {
    struct page_pool *pool;
    struct region *region;
    uint32_t place; /* in it */
    uint8_t *data;
    uint64_t free; /* bit i: page i is free */
    uint32_t rank;
    struct list link; /* pool.ranks[rank] */
    struct page pages[SLAB_PAGES];
};
_Static_assert(sizeof(struct slab) <= SLAB_PAGES * (PAGE_COST - PAGE_BYTES), "PAGE_COST covers a slab's bookkeeping");

struct page_pool {
    struct loop *loop;
    uint64_t limit, charged;
    uint64_t used_pages, mapped_pages;
    struct list ranks[RANKS];
    uint32_t spare_slabs; /* in ranks[7] */
    struct list idle;     /* regions; the last one has been for longest */
    struct list gaps;
    uint64_t (*shrink)(void *arg, uint64_t bytes);
    void *shrink_arg;
    struct list waiters;
    uint64_t until_retry; /* pages to come back before the hook is asked again */
    bool serving;         /* guards against recursion: the hook gives pages back */
};

struct waiter {
    struct list link;
    struct coroutine *coroutine;
    size_t count;
    struct page **pages;
    int outcome; /* -EAGAIN: still waiting */
};

/* ---- bitmaps ---- */

/* Bits where a run of at least `length` set bits begins. */
static uint64_t run_starts(uint64_t bits, uint32_t length)
{
    for (uint32_t have = 1; have < length && bits != 0;) {
        uint32_t step = have < length - have ? have : length - have;
        bits &= bits >> step;
        have += step;
    }
    return bits;
}

static uint32_t rank_of(uint64_t free)
{
    uint32_t rank = 0;
    for (uint32_t step = 1; free != 0; step *= 2) {
        rank++;
        if (step == SLAB_PAGES)
            break;
        free &= free >> step;
    }
    return rank;
}

/* The lowest rank in which a run of `length` can be at all. */
static uint32_t rank_for(uint32_t length)
{
    return 32u - (uint32_t)__builtin_clz(length);
}

static uint64_t run_mask(uint32_t first, uint32_t length)
{
    return (length == SLAB_PAGES ? UINT64_MAX : (UINT64_C(1) << length) - 1) << first;
}

/* ---- slabs ---- */

static void count_spare(struct page_pool *pool, struct region *region, bool more)
{
    pool->spare_slabs += more ? 1u : -1u;
    region->spare += more ? 1u : -1u;
    list_remove(&region->idle);
    if (region->spare == region->resident)
        list_push_front(&pool->idle, &region->idle);
}

static void slab_rank(struct page_pool *pool, struct slab *slab)
{
    uint32_t rank = rank_of(slab->free), before = slab->rank;
    if (rank == before)
        return;
    slab->rank = rank;
    list_remove(&slab->link);
    list_push_front(&pool->ranks[rank], &slab->link);
    if (rank == RANKS - 1 || before == RANKS - 1)
        count_spare(pool, slab->region, rank == RANKS - 1);
}

/* Its memory is resident. */
static struct slab *slab_new(struct page_pool *pool, struct region *region, uint32_t place)
{
    struct slab *slab = memory_new(sizeof *slab);
    slab->pool = pool;
    slab->region = region;
    slab->place = place;
    slab->data = region->data + place * SLAB_BYTES;
    slab->free = UINT64_MAX;
    list_init(&slab->link);
    ASAN_POISON_MEMORY_REGION(slab->data, SLAB_BYTES);
    for (uint32_t i = 0; i < SLAB_PAGES; i++) {
        struct page *page = &slab->pages[i];
        page->slot = i;
        page->slab = slab;
        page->data = slab->data + (size_t)i * PAGE_BYTES;
    }
    region->at[place] = slab;
    region->resident++;
    pool->mapped_pages += SLAB_PAGES;
    slab_rank(pool, slab);
    return slab;
}

/* It is empty; its memory is the caller's business. */
static void slab_free(struct slab *slab)
{
    struct page_pool *pool = slab->pool;
    struct region *region = slab->region;
    assert(slab->free == UINT64_MAX);
    ASAN_UNPOISON_MEMORY_REGION(slab->data, SLAB_BYTES);
    list_remove(&slab->link);
    region->at[slab->place] = NULL;
    region->resident--;
    pool->mapped_pages -= SLAB_PAGES;
    count_spare(pool, region, false);
    free(slab);
}

static struct slab *region_new(struct page_pool *pool, uint32_t slabs)
{
    uint8_t *data = region_map(slabs * SLAB_BYTES);
    if (data == NULL)
        return NULL;
    struct region *region = memory_new(sizeof *region + slabs * sizeof region->at[0]);
    region->data = data;
    region->slabs = slabs;
    list_init(&region->idle);
    list_init(&region->gap);
    for (uint32_t i = slabs; i-- > 0;)
        slab_new(pool, region, i);
    return region->at[0];
}

/* All its slabs are empty.  False when the system would not take it back. */
static bool region_free(struct region *region)
{
    assert(region->spare == region->resident);
    if (!region_unmap(region->data, region->slabs * SLAB_BYTES))
        return false;
    for (uint32_t i = 0; i < region->slabs; i++)
        if (region->at[i] != NULL)
            slab_free(region->at[i]);
    list_remove(&region->idle);
    list_remove(&region->gap);
    free(region);
    return true;
}

static struct slab *fill_gap(struct page_pool *pool, struct region *region)
{
    uint32_t place = 0;
    while (region->at[place] != NULL)
        place++;
    if (!region_restore(region->data + place * SLAB_BYTES, SLAB_BYTES))
        return NULL;
    if (region->resident + 1 == region->slabs)
        list_remove(&region->gap);
    return slab_new(pool, region, place);
}

/* False when the system would not take it back. */
static bool make_gap(struct slab *slab)
{
    struct region *region = slab->region;
    struct page_pool *pool = slab->pool;
    if (!region_discard(slab->data, SLAB_BYTES))
        return false;
    list_remove(&region->gap);
    list_push_front(&pool->gaps, &region->gap);
    slab_free(slab);
    return true;
}

/* ---- handing out ---- */

/* How many pages the limit has room for, in use or not. */
static uint64_t pages_allowed(const struct page_pool *pool)
{
    return pool->charged < pool->limit ? (pool->limit - pool->charged) / PAGE_COST : 0;
}

/* Another slab, as the limit has room; NULL: the system has no memory. */
static struct slab *slab_add(struct page_pool *pool)
{
    if (!list_empty(&pool->gaps))
        return fill_gap(pool, container_of(pool->gaps.next, struct region, gap));
    bool room = pool->mapped_pages + (REGION_SLABS - 1) * SLAB_PAGES < pages_allowed(pool);
    struct slab *slab = room ? region_new(pool, REGION_SLABS) : NULL;
    return slab != NULL ? slab : region_new(pool, 1);
}

static bool is_over_limit(const struct page_pool *pool)
{
    return pool->mapped_pages >= pages_allowed(pool) + SLAB_PAGES;
}

static uint64_t reserve(const struct page_pool *pool)
{
    uint64_t used = pool->used_pages / SLAB_PAGES, most = pool->limit / 2 / SLAB_BYTES;
    uint64_t slabs = used < most ? used : most;
    return slabs > SPARE_SLABS ? slabs : SPARE_SLABS;
}

/* Empty slabs beyond the reserve, and beyond what the limit has room for, go back. */
static void trim(struct page_pool *pool)
{
    while (!list_empty(&pool->idle)) {
        struct region *coldest = container_of(pool->idle.prev, struct region, idle);
        bool is_reserve = pool->spare_slabs < reserve(pool) + coldest->spare;
        if ((is_reserve && !is_over_limit(pool)) || !region_free(coldest))
            break;
    }
    while (pool->spare_slabs > 0 && is_over_limit(pool))
        if (!make_gap(container_of(pool->ranks[RANKS - 1].prev, struct slab, link)))
            return;
}

/* The slab with the smallest run of at least `length` free pages, as far as a few looks can tell; NULL: none. */
static struct slab *slab_with_run(struct page_pool *pool, uint32_t length)
{
    uint32_t rank = rank_for(length), probes = 0;
    list_for_each (node, &pool->ranks[rank]) {
        struct slab *slab = container_of(node, struct slab, link);
        if (run_starts(slab->free, length) != 0)
            return slab;
        if (++probes == RANK_PROBES)
            break;
    }
    while (++rank < RANKS)
        if (!list_empty(&pool->ranks[rank]))
            return container_of(pool->ranks[rank].next, struct slab, link);
    return NULL;
}

static struct slab *slab_with_longest_run(struct page_pool *pool)
{
    for (uint32_t rank = RANKS - 1; rank > 0; rank--)
        if (!list_empty(&pool->ranks[rank]))
            return container_of(pool->ranks[rank].next, struct slab, link);
    return NULL;
}

/* Takes a run of at most `wanted` pages, as long as there is; returns its length, 0 when the system has no memory. */
static uint32_t take_run(struct page_pool *pool, uint32_t wanted, struct page **ret_pages)
{
    struct slab *slab = slab_with_run(pool, wanted);
    if (slab == NULL && pool->mapped_pages < pages_allowed(pool))
        slab = slab_add(pool);
    if (slab == NULL) {
        slab = slab_with_longest_run(pool);
        if (slab == NULL)
            return 0;
    }
    uint32_t length = wanted;
    uint64_t starts = run_starts(slab->free, length);
    if (starts == 0) {
        length = 1u << (slab->rank - 1);
        starts = run_starts(slab->free, length);
    }
    assert(starts != 0 && length <= wanted);
    uint32_t first = (uint32_t)__builtin_ctzll(starts);
    slab->free &= ~run_mask(first, length);
    slab_rank(pool, slab);
    pool->used_pages += length;
    ASAN_UNPOISON_MEMORY_REGION(slab->pages[first].data, (size_t)length * PAGE_BYTES);
    for (uint32_t i = 0; i < length; i++) {
        struct page *page = &slab->pages[first + i];
        assert(page->references == 0);
        page->references = 1;
        ret_pages[i] = page;
    }
    return length;
}

static void give_back(struct page *page)
{
    struct slab *slab = page->slab;
    struct page_pool *pool = slab->pool;
    uint64_t bit = UINT64_C(1) << page->slot;
    assert((slab->free & bit) == 0 && page->references == 0);
    ASAN_POISON_MEMORY_REGION(page->data, PAGE_BYTES);
    slab->free |= bit;
    pool->used_pages--;
    slab_rank(pool, slab);
}

/* The limit has room for them. */
static int hand_out(struct page_pool *pool, size_t count, struct page **ret_pages)
{
    for (size_t done = 0; done < count;) {
        size_t left = count - done;
        uint32_t length = take_run(pool, left < SLAB_PAGES ? (uint32_t)left : SLAB_PAGES, ret_pages + done);
        if (length == 0) {
            for (size_t i = 0; i < done; i++) {
                ret_pages[i]->references = 0;
                give_back(ret_pages[i]);
            }
            return -ENOMEM;
        }
        done += length;
    }
    return 0;
}

static bool fits(const struct page_pool *pool, size_t count)
{
    uint64_t allowed = pages_allowed(pool);
    return pool->used_pages <= allowed && count <= allowed - pool->used_pages;
}

static void ask_hook(struct page_pool *pool, size_t count)
{
    uint64_t needed = (pool->used_pages + count) * PAGE_COST + pool->charged;
    if (pool->shrink == NULL || needed <= pool->limit)
        return;
    uint64_t missing = needed - pool->limit;
    pool->until_retry = (missing + PAGE_COST - 1) / PAGE_COST;
    bool was_serving = pool->serving;
    pool->serving = true;
    pool->shrink(pool->shrink_arg, missing);
    pool->serving = was_serving;
}

/* -EAGAIN when there is not enough, even after `ask`ing the hook. */
static int obtain(struct page_pool *pool, size_t count, bool ask, struct page **ret_pages)
{
    if (count > pool->limit / PAGE_COST)
        return -ENOMEM;
    if (!fits(pool, count) && ask)
        ask_hook(pool, count);
    return fits(pool, count) ? hand_out(pool, count, ret_pages) : -EAGAIN;
}

/* Gives those who wait what there is. `ask`: the hook too, for the first; always for those who come to stand first. */
static void serve(struct page_pool *pool, bool ask)
{
    if (pool->serving)
        return;
    pool->serving = true;
    while (!list_empty(&pool->waiters)) {
        struct waiter *first = container_of(pool->waiters.next, struct waiter, link);
        int outcome = obtain(pool, first->count, ask, first->pages);
        if (outcome == -EAGAIN)
            break;
        first->outcome = outcome;
        list_remove(&first->link);
        coroutine_wake(first->coroutine);
        ask = true;
    }
    pool->serving = false;
}

int page_pool_try(struct page_pool *pool, size_t count, struct page **ret_pages)
{
    return page_pool_wanting(pool) ? -EAGAIN : obtain(pool, count, true, ret_pages);
}

int page_pool_take(struct page_pool *pool, size_t count, struct page **ret_pages)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == pool->loop);
    int outcome = page_pool_try(pool, count, ret_pages);
    if (outcome != -EAGAIN)
        return outcome;
    struct waiter waiter = { .coroutine = coroutine_self(), .count = count, .pages = ret_pages, .outcome = -EAGAIN };
    list_init(&waiter.link);
    list_push_back(&pool->waiters, &waiter.link);
    while (waiter.outcome == -EAGAIN) {
        if (coroutine_park() == 0)
            continue;
        list_remove(&waiter.link);
        if (waiter.outcome == 0) {
            for (size_t i = 0; i < count; i++)
                page_unref(ret_pages[i]);
        }
        serve(pool, true);
        return -ECANCELED;
    }
    return waiter.outcome;
}

void page_release(struct page *page)
{
    struct page_pool *pool = page->slab->pool;
    give_back(page);
    if (pool->spare_slabs > 0)
        trim(pool);
    if (list_empty(&pool->waiters) || pool->serving)
        return;
    bool ask = pool->until_retry <= 1;
    pool->until_retry -= !ask;
    serve(pool, ask);
}

/* ---- the budget ---- */

struct page_pool *page_pool_new(struct loop *loop, uint64_t limit_bytes)
{
    struct page_pool *pool = memory_new(sizeof *pool);
    pool->loop = loop;
    pool->limit = limit_bytes;
    for (uint32_t rank = 0; rank < RANKS; rank++)
        list_init(&pool->ranks[rank]);
    list_init(&pool->idle);
    list_init(&pool->gaps);
    list_init(&pool->waiters);
    return pool;
}

void page_pool_free(struct page_pool *pool)
{
    if (pool == NULL)
        return;
    assert(pool->used_pages == 0 && pool->charged == 0 && list_empty(&pool->waiters));
    list_for_each_safe (node, &pool->idle)
        region_free(container_of(node, struct region, idle));
    free(pool);
}

void page_pool_set_limit(struct page_pool *pool, uint64_t limit_bytes)
{
    bool lowered = limit_bytes < pool->limit;
    pool->limit = limit_bytes;
    if (lowered)
        ask_hook(pool, 0);
    trim(pool);
    serve(pool, true);
}

uint64_t page_pool_limit(const struct page_pool *pool)
{
    return pool->limit;
}

uint64_t page_pool_used(const struct page_pool *pool)
{
    return pool->used_pages * PAGE_BYTES;
}

uint64_t page_pool_mapped(const struct page_pool *pool)
{
    return pool->mapped_pages * PAGE_BYTES;
}

void page_pool_on_shortage(struct page_pool *pool, uint64_t (*shrink)(void *arg, uint64_t bytes), void *arg)
{
    pool->shrink = shrink;
    pool->shrink_arg = arg;
}

void page_pool_charge(struct page_pool *pool, uint64_t bytes)
{
    pool->charged += bytes;
    if (pool->spare_slabs > 0)
        trim(pool);
}

void page_pool_uncharge(struct page_pool *pool, uint64_t bytes)
{
    assert(bytes <= pool->charged);
    pool->charged -= bytes;
}

uint64_t page_pool_charged(const struct page_pool *pool)
{
    return pool->charged;
}

bool page_pool_wanting(const struct page_pool *pool)
{
    return !list_empty(&pool->waiters);
}

void page_pool_retry(struct page_pool *pool)
{
    serve(pool, true);
}

bool page_is_zero(const uint8_t *data)
{
    /* Content that is not zero mostly shows it in its first bytes. */
    uint64_t head[4];
    memcpy(head, data, sizeof head);
    if ((head[0] | head[1] | head[2] | head[3]) != 0)
        return false;
    /* A run whose first bytes are zero and that equals itself shifted by those is zero all over. */
    return memcmp(data, data + sizeof head, PAGE_BYTES - sizeof head) == 0;
}
