/* See cache.h.
 *
 *                        begin
 *                          │
 *                       FETCHING ───failed──> FAILED (not in the table)
 *                          │ ready
 *     insert ────────────┐ │
 *                        v v      again while in small, or a ghost
 *                       SMALL ─────────────────────────────────────> MAIN ──┐
 *                          │ oldest, not read again                   │  ^  │ oldest, count > 0:
 *                          v                                          │  └──┘ count - 1, youngest
 *                       evicted, leaves a ghost                       v
 *                                                                  evicted
 *
 * S3-FIFO (Yang et al., SOSP 2023).  The small queue is held at a tenth of the
 * pages; most frames pass through it once and leave.  What is read again while
 * there, or comes back while its ghost is remembered, joins the main queue.
 * A hit only counts, on the frame itself.
 *
 * The table is a linear hash: it grows and shrinks by one bucket at a time, so
 * that no request pays for moving all.  Ghosts are fingerprints in a set-
 * associative table as large as the hash table; a ghost is remembered for as
 * many evictions as there are frames.
 *
 * Shrinking visits frames from the oldest on.  Frames that are in use, or whose
 * pages others hold too, move to the young end and are passed over.  At most
 * SPARED_MAX frames in a row are spared for their count: when everything is hot
 * something hot must go, and a search for the coldest would stop the shard.
 *
 * Invariants:
 *   - a frame is in a queue if and only if it is READY and in the table;
 *   - a frame in no queue lives as long as its references, one in a queue until it is evicted;
 *   - FETCHING frames have a reference (their fetcher's);
 *   - frames, the table and the ghosts are charged to the pool. */
#include "vol/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"

#define COUNT_MAX 3
#define SMALL_SHARE 10u /* the small queue's part of all pages: one in so many */
#define SPARED_MAX 64u
#define BUCKETS_LEAST 64u /* a power of two */
#define BUCKETS_A_FRAME                                                                                                \
    4u                     /* at most: well above the one at which it grows, so a steady coming and going moves none   \
                            */
#define GHOST_WAYS 8u      /* a cache line of ghosts is searched */
#define GHOSTS_A_BUCKET 2u /* of the hash table; room for the unevenness of the sets */

struct queue {
    struct list frames; /* oldest first */
    uint64_t count, pages;
};

struct ghost {
    uint32_t fingerprint; /* 0: none */
    uint32_t stamp;       /* cache.ghost_clock when it came */
};

struct cache {
    struct page_pool *pool;
    uint64_t seed;
    /* Buckets 0 to mask + split; those below `split`, and their other halves, use one bit of the hash more. */
    struct frame **buckets;
    uint64_t mask, split;
    struct ghost *ghosts;
    uint64_t ghost_sets; /* a power of two */
    uint32_t ghost_clock;
    struct queue small, main;
    bool busy; /* dropping frames: the pages that come back may make the pool ask for more */
    struct cache_counts counts;
};

/* ---- ghosts ---- */

static uint32_t fingerprint_of(uint64_t hash)
{
    uint32_t fingerprint = (uint32_t)(hash >> 32);
    return fingerprint == 0 ? 1 : fingerprint;
}

static struct ghost *ghost_set(const struct cache *cache, uint32_t fingerprint)
{
    return &cache->ghosts[(fingerprint & (cache->ghost_sets - 1)) * GHOST_WAYS];
}

static uint32_t ghost_age(const struct cache *cache, const struct ghost *ghost)
{
    return ghost->fingerprint == 0 ? UINT32_MAX : cache->ghost_clock - ghost->stamp;
}

static void ghost_put(struct cache *cache, struct ghost ghost)
{
    struct ghost *set = ghost_set(cache, ghost.fingerprint), *oldest = set;
    for (uint32_t i = 1; i < GHOST_WAYS; i++)
        if (ghost_age(cache, &set[i]) > ghost_age(cache, oldest))
            oldest = &set[i];
    *oldest = ghost;
}

/* Whether one is remembered; it is not any more. */
static bool ghost_take(struct cache *cache, uint64_t hash)
{
    uint32_t fingerprint = fingerprint_of(hash);
    struct ghost *set = ghost_set(cache, fingerprint);
    for (uint32_t i = 0; i < GHOST_WAYS; i++)
        if (set[i].fingerprint == fingerprint) {
            bool remembered = ghost_age(cache, &set[i]) < cache->counts.frames;
            set[i].fingerprint = 0;
            return remembered;
        }
    return false;
}

static void ghosts_resize(struct cache *cache, uint64_t sets)
{
    struct ghost *old = cache->ghosts;
    uint64_t old_count = cache->ghost_sets * GHOST_WAYS;
    cache->ghosts = memory_array(sets * GHOST_WAYS, sizeof *cache->ghosts);
    cache->ghost_sets = sets;
    page_pool_charge(cache->pool, sets * GHOST_WAYS * sizeof *old);
    for (uint64_t i = 0; i < old_count; i++)
        if (old[i].fingerprint != 0)
            ghost_put(cache, old[i]);
    page_pool_uncharge(cache->pool, old_count * sizeof *old);
    free(old);
}

/* ---- the hash table ---- */

static uint64_t hash_key(const struct cache *cache, uint64_t object_id, uint32_t start)
{
    return hash_u64((object_id ^ cache->seed) + start * UINT64_C(0x9e3779b97f4a7c15));
}

static struct frame **bucket_of(const struct cache *cache, uint64_t hash)
{
    uint64_t place = hash & cache->mask;
    if (place < cache->split)
        place = hash & (cache->mask * 2 + 1);
    return &cache->buckets[place];
}

/* Room for the buckets up to the next doubling, and ghosts to match. */
static void table_room(struct cache *cache, uint64_t old_capacity, uint64_t capacity)
{
    cache->buckets = memory_resize(cache->buckets, capacity, sizeof(struct frame *));
    page_pool_charge(cache->pool, capacity * sizeof(struct frame *));
    page_pool_uncharge(cache->pool, old_capacity * sizeof(struct frame *));
    ghosts_resize(cache, capacity / 2 * GHOSTS_A_BUCKET / GHOST_WAYS);
}

static void table_grow(struct cache *cache)
{
    uint64_t bit = cache->mask + 1;
    struct frame **from = &cache->buckets[cache->split], **to = &cache->buckets[cache->split + bit];
    *to = NULL;
    while (*from != NULL) {
        struct frame *frame = *from;
        if ((hash_key(cache, frame->object_id, frame->start) & bit) == 0) {
            from = &frame->hash_next;
            continue;
        }
        *from = frame->hash_next;
        frame->hash_next = *to;
        *to = frame;
    }
    if (++cache->split == bit) {
        cache->mask = cache->mask * 2 + 1;
        cache->split = 0;
        table_room(cache, bit * 2, bit * 4);
    }
}

static void table_narrow(struct cache *cache)
{
    if (cache->split == 0) {
        uint64_t bit = cache->mask + 1;
        cache->mask /= 2;
        cache->split = bit / 2;
        table_room(cache, bit * 2, bit);
    }
    cache->split--;
    struct frame **end = &cache->buckets[cache->split];
    while (*end != NULL)
        end = &(*end)->hash_next;
    *end = cache->buckets[cache->split + cache->mask + 1];
}

static void table_enter(struct cache *cache, struct frame *frame)
{
    if (cache->counts.frames > cache->mask + cache->split)
        table_grow(cache);
    struct frame **bucket = bucket_of(cache, hash_key(cache, frame->object_id, frame->start));
    frame->hash_next = *bucket;
    *bucket = frame;
    frame->in_table = true;
    cache->counts.frames++;
    cache->counts.bytes += (uint64_t)frame->page_count * PAGE_BYTES;
}

static void table_leave(struct cache *cache, struct frame *frame)
{
    struct frame **place = bucket_of(cache, hash_key(cache, frame->object_id, frame->start));
    while (*place != frame)
        place = &(*place)->hash_next;
    *place = frame->hash_next;
    frame->hash_next = NULL;
    frame->in_table = false;
    cache->counts.frames--;
    cache->counts.bytes -= (uint64_t)frame->page_count * PAGE_BYTES;
    for (uint32_t i = 0; i < BUCKETS_A_FRAME && cache->mask + cache->split >= BUCKETS_LEAST &&
                         cache->counts.frames < (cache->mask + cache->split) / BUCKETS_A_FRAME;
         i++)
        table_narrow(cache);
}

static struct frame *table_find(const struct cache *cache, uint64_t object_id, uint32_t start)
{
    struct frame *frame = *bucket_of(cache, hash_key(cache, object_id, start));
    while (frame != NULL && (frame->object_id != object_id || frame->start != start))
        frame = frame->hash_next;
    return frame;
}

/* ---- frames and queues ---- */

static size_t frame_bytes(uint32_t page_count)
{
    return sizeof(struct frame) + page_count * sizeof(struct page *);
}

static struct frame *frame_new(struct cache *cache, uint64_t object_id, uint32_t start, struct page *const *pages,
                               uint32_t page_count)
{
    assert(page_count > 0 && page_count <= BLOCK_PAGES);
    struct frame *frame = memory_new(frame_bytes(page_count));
    page_pool_charge(cache->pool, frame_bytes(page_count));
    frame->object_id = object_id;
    frame->start = start;
    frame->page_count = (uint8_t)page_count;
    list_init(&frame->queue);
    waitq_init(&frame->arrival);
    memcpy(frame->pages, pages, page_count * sizeof *pages);
    return frame;
}

static void frame_free(struct cache *cache, struct frame *frame)
{
    assert(frame->references == 0 && !frame->in_table && !list_linked(&frame->queue));
    assert(waitq_empty(&frame->arrival));
    page_pool_uncharge(cache->pool, frame_bytes(frame->page_count));
    for (uint32_t i = 0; i < frame->page_count; i++)
        page_unref(frame->pages[i]);
    free(frame);
}

static void queue_enter(struct cache *cache, struct frame *frame, bool main)
{
    struct queue *queue = main ? &cache->main : &cache->small;
    frame->in_main = main;
    frame->count = 0;
    list_push_back(&queue->frames, &frame->queue);
    queue->count++;
    queue->pages += frame->page_count;
}

static void queue_leave(struct cache *cache, struct frame *frame)
{
    struct queue *queue = frame->in_main ? &cache->main : &cache->small;
    list_remove(&frame->queue);
    queue->count--;
    queue->pages -= frame->page_count;
}

static void admit(struct cache *cache, struct frame *frame)
{
    frame->state = FRAME_READY;
    queue_enter(cache, frame, ghost_take(cache, hash_key(cache, frame->object_id, frame->start)));
}

/* ---- the interface ---- */

struct cache *cache_new(struct page_pool *pool, uint64_t seed)
{
    struct cache *cache = memory_new(sizeof *cache);
    cache->pool = pool;
    cache->seed = seed;
    cache->mask = BUCKETS_LEAST - 1;
    table_room(cache, 0, BUCKETS_LEAST * 2);
    memset(cache->buckets, 0, BUCKETS_LEAST * sizeof(struct frame *));
    list_init(&cache->small.frames);
    list_init(&cache->main.frames);
    return cache;
}

void cache_free(struct cache *cache)
{
    if (cache == NULL)
        return;
    cache_forget(cache, 0, UINT64_MAX);
    assert(cache->counts.frames == 0);
    page_pool_uncharge(cache->pool, (cache->mask + 1) * 2 * sizeof(struct frame *));
    page_pool_uncharge(cache->pool, cache->ghost_sets * GHOST_WAYS * sizeof(struct ghost));
    free(cache->buckets);
    free(cache->ghosts);
    free(cache);
}

struct frame *cache_lookup_pages(struct cache *cache, uint64_t object_id, uint32_t start, uint32_t pages)
{
    struct frame *frame = table_find(cache, object_id, start);
    if (frame == NULL)
        return NULL;
    frame->references++;
    if (frame->state != FRAME_READY) {
        cache->counts.shared_misses++;
        return frame;
    }
    cache->counts.hits++;
    if ((frame->touched & pages) != 0 && frame->count < COUNT_MAX)
        frame->count++;
    frame->touched |= pages;
    return frame;
}

struct frame *cache_lookup(struct cache *cache, uint64_t object_id, uint32_t start)
{
    return cache_lookup_pages(cache, object_id, start, UINT32_MAX);
}

bool cache_has(const struct cache *cache, uint64_t object_id, uint32_t start)
{
    return table_find(cache, object_id, start) != NULL;
}

struct frame *cache_begin(struct cache *cache, uint64_t object_id, uint32_t start, struct page **pages,
                          uint32_t page_count)
{
    assert(!cache_has(cache, object_id, start));
    struct frame *frame = frame_new(cache, object_id, start, pages, page_count);
    frame->state = FRAME_FETCHING;
    frame->references = 1;
    table_enter(cache, frame);
    cache->counts.misses++;
    return frame;
}

void cache_ready(struct cache *cache, struct frame *frame)
{
    assert(frame->state == FRAME_FETCHING && frame->references > 0);
    if (frame->in_table)
        admit(cache, frame);
    frame->state = FRAME_READY;
    waitq_wake_all(&frame->arrival);
}

void cache_failed(struct cache *cache, struct frame *frame, int failure)
{
    assert(frame->state == FRAME_FETCHING && frame->references > 0 && failure < 0);
    if (frame->in_table)
        table_leave(cache, frame);
    frame->state = FRAME_FAILED;
    frame->failure = failure;
    waitq_wake_all(&frame->arrival);
}

void cache_insert(struct cache *cache, uint64_t object_id, uint32_t start, struct page *const *pages,
                  uint32_t page_count)
{
    if (page_pool_wanting(cache->pool) || cache_has(cache, object_id, start))
        return;
    for (uint32_t i = 0; i < page_count; i++)
        page_ref(pages[i]);
    struct frame *frame = frame_new(cache, object_id, start, pages, page_count);
    table_enter(cache, frame);
    admit(cache, frame);
}

void frame_unref(struct cache *cache, struct frame *frame)
{
    assert(frame->references > 0);
    if (--frame->references > 0)
        return;
    assert(frame->state != FRAME_FETCHING);
    if (!list_linked(&frame->queue))
        frame_free(cache, frame);
    else if (page_pool_wanting(cache->pool))
        page_pool_retry(cache->pool);
}

/* Out of queue and table; freed unless it is held. */
static void drop(struct cache *cache, struct frame *frame)
{
    if (list_linked(&frame->queue))
        queue_leave(cache, frame);
    table_leave(cache, frame);
    if (frame->references == 0)
        frame_free(cache, frame);
}

/* ---- shrinking ---- */

struct shrink {
    uint64_t wanted;
    uint64_t given, coming; /* back already; when others let go of the pages */
    uint32_t spared;        /* in a row, for their count */
    bool shared_too;
};

static uint32_t shared_pages(const struct frame *frame)
{
    uint32_t shared = 0;
    for (uint32_t i = 0; i < frame->page_count; i++)
        shared += frame->pages[i]->references > 1;
    return shared;
}

static void evict(struct cache *cache, struct frame *frame, uint32_t shared, struct shrink *shrink)
{
    if (!frame->in_main) {
        uint64_t hash = hash_key(cache, frame->object_id, frame->start);
        cache->ghost_clock++;
        ghost_put(cache, (struct ghost){ .fingerprint = fingerprint_of(hash), .stamp = cache->ghost_clock });
    }
    shrink->spared = 0;
    shrink->given += (uint64_t)(frame->page_count - shared) * PAGE_COST + frame_bytes(frame->page_count);
    shrink->coming += (uint64_t)shared * PAGE_COST;
    cache->counts.evictions++;
    drop(cache, frame);
}

/* The oldest frame of `queue`: evicts it, or moves it to where it belongs. */
static void visit_oldest(struct cache *cache, struct queue *queue, struct shrink *shrink)
{
    struct frame *frame = container_of(queue->frames.next, struct frame, queue);
    if (frame->count > 0 && shrink->spared < SPARED_MAX) {
        shrink->spared++;
        uint8_t count = frame->in_main ? frame->count - 1 : 0;
        queue_leave(cache, frame);
        queue_enter(cache, frame, true);
        frame->count = count;
        return;
    }
    uint32_t shared = frame->references > 0 ? frame->page_count : shared_pages(frame);
    if (frame->references == 0 && (shared == 0 || shrink->shared_too)) {
        evict(cache, frame, shared, shrink);
        return;
    }
    list_remove(&frame->queue);
    list_push_back(&queue->frames, &frame->queue);
}

/* Visits each frame often enough to use up its count, unless enough came back before. */
static void shrink_pass(struct cache *cache, struct shrink *shrink)
{
    uint64_t small_visits = cache->small.count;
    uint64_t main_visits = (cache->small.count + cache->main.count) * (COUNT_MAX + 1);
    while (shrink->given + shrink->coming < shrink->wanted) {
        bool small_over = cache->small.pages * SMALL_SHARE >= cache->small.pages + cache->main.pages;
        if (small_visits > 0 && (small_over || main_visits == 0 || cache->main.count == 0)) {
            small_visits--;
            if (cache->small.count > 0)
                visit_oldest(cache, &cache->small, shrink);
        } else if (main_visits > 0 && cache->main.count > 0) {
            main_visits--;
            visit_oldest(cache, &cache->main, shrink);
        } else {
            return;
        }
    }
}

uint64_t cache_shrink(struct cache *cache, uint64_t bytes)
{
    if (cache->busy)
        return 0;
    cache->busy = true;
    struct shrink shrink = { .wanted = bytes };
    shrink_pass(cache, &shrink);
    shrink.shared_too = true;
    shrink_pass(cache, &shrink);
    cache->busy = false;
    return shrink.given;
}

void cache_discard(struct cache *cache, uint64_t object_id, uint32_t start)
{
    struct frame *frame = table_find(cache, object_id, start);
    if (frame == NULL || cache->busy)
        return;
    cache->busy = true;
    drop(cache, frame);
    cache->busy = false;
}

static struct frame *first_of_objects(struct frame *chain, uint64_t first_object_id, uint64_t past_object_id)
{
    while (chain != NULL && (chain->object_id < first_object_id || chain->object_id >= past_object_id))
        chain = chain->hash_next;
    return chain;
}

void cache_forget(struct cache *cache, uint64_t first_object_id, uint64_t past_object_id)
{
    assert(!cache->busy);
    cache->busy = true;
    /* Downwards: a bucket that goes as the table narrows is the last, and what is left in it moves to a lower one. */
    for (uint64_t i = cache->mask + cache->split + 1; i-- > 0;) {
        struct frame *frame;
        while (i <= cache->mask + cache->split &&
               (frame = first_of_objects(cache->buckets[i], first_object_id, past_object_id)) != NULL)
            drop(cache, frame);
    }
    cache->busy = false;
    if (page_pool_wanting(cache->pool))
        page_pool_retry(cache->pool);
}

struct cache_counts cache_read_counts(const struct cache *cache)
{
    return cache->counts;
}
