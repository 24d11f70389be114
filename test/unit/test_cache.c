#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/in_loop.h"
#include "rt/task.h"
#include "vol/cache.h"

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static uint64_t shrink_cache(void *arg, uint64_t bytes)
{
    return cache_shrink(arg, bytes);
}

struct fixture {
    struct page_pool *pool;
    struct cache *cache;
};

static struct fixture fixture_new(struct loop *loop, uint64_t limit_bytes)
{
    struct fixture f;
    f.pool = page_pool_new(loop, limit_bytes);
    f.cache = cache_new(f.pool, 4711);
    page_pool_on_shortage(f.pool, shrink_cache, f.cache);
    return f;
}

/* Every page must have come back. */
static void fixture_free(struct fixture *f)
{
    cache_free(f->cache);
    assert_int_equal(page_pool_used(f->pool), 0);
    assert_int_equal(page_pool_charged(f->pool), 0);
    page_pool_free(f->pool);
}

/* What page i of that frame must hold. */
static uint64_t content(uint64_t object_id, uint32_t start, uint32_t page)
{
    return object_id * 1000003 + (uint64_t)start * 101 + page;
}

static void fill(struct page *const *pages, uint32_t count, uint64_t object_id, uint32_t start)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value = content(object_id, start, i);
        memcpy(pages[i]->data, &value, sizeof value);
    }
}

static void check(const struct frame *frame, uint64_t object_id, uint32_t start)
{
    assert_int_equal(frame->object_id, object_id);
    assert_int_equal(frame->start, start);
    for (uint32_t i = 0; i < frame->page_count; i++) {
        uint64_t value;
        memcpy(&value, frame->pages[i]->data, sizeof value);
        assert_int_equal(value, content(object_id, start, i));
    }
}

/* A frame as a fetch makes it; -errno when there is no memory for it. */
static int bring(struct fixture *f, uint64_t object_id, uint32_t start, uint32_t count)
{
    struct page *pages[BLOCK_PAGES];
    int status = page_pool_try(f->pool, count, pages);
    if (status < 0)
        return status;
    struct frame *frame = cache_begin(f->cache, object_id, start, pages, count);
    assert_int_equal(frame->state, FRAME_FETCHING);
    fill(frame->pages, count, object_id, start);
    cache_ready(f->cache, frame);
    frame_unref(f->cache, frame);
    return 0;
}

/* Reads through the cache, fetching when needed. Whether it was a hit. */
static bool read_through(struct fixture *f, uint64_t object_id, uint32_t start, uint32_t count)
{
    struct frame *frame = cache_lookup(f->cache, object_id, start);
    if (frame == NULL) {
        assert_int_equal(bring(f, object_id, start, count), 0);
        return false;
    }
    check(frame, object_id, start);
    frame_unref(f->cache, frame);
    return true;
}

static void test_states(void **state)
{
    struct fixture f = fixture_new(NULL, 4 << 20);
    struct page *pages[2];
    assert_null(cache_lookup(f.cache, 1, 0));
    assert_int_equal(page_pool_try(f.pool, 2, pages), 0);
    struct frame *frame = cache_begin(f.cache, 1, 0, pages, 2);
    assert_int_equal(frame->state, FRAME_FETCHING);
    assert_ptr_equal(cache_lookup(f.cache, 1, 0), frame);
    assert_null(cache_lookup(f.cache, 1, 1));
    assert_null(cache_lookup(f.cache, 2, 0));
    assert_true(cache_has(f.cache, 1, 0));
    /* Nothing that is on its way leaves. */
    assert_int_equal(cache_shrink(f.cache, 1 << 20), 0);
    cache_ready(f.cache, frame);
    assert_int_equal(frame->state, FRAME_READY);
    frame_unref(f.cache, frame);
    frame_unref(f.cache, frame);
    frame = cache_lookup(f.cache, 1, 0);
    assert_int_equal(frame->state, FRAME_READY);
    assert_int_equal(cache_shrink(f.cache, 1 << 20), 0);
    frame_unref(f.cache, frame);

    /* A failed one leaves the table, and goes with its last user. */
    assert_int_equal(page_pool_try(f.pool, 2, pages), 0);
    frame = cache_begin(f.cache, 1, 5, pages, 2);
    assert_ptr_equal(cache_lookup(f.cache, 1, 5), frame);
    cache_failed(f.cache, frame, -EIO);
    assert_false(cache_has(f.cache, 1, 5));
    frame_unref(f.cache, frame);
    assert_int_equal(frame->state, FRAME_FAILED);
    assert_int_equal(frame->failure, -EIO);
    frame_unref(f.cache, frame);
    assert_int_equal(page_pool_used(f.pool), 2 * PAGE_BYTES);

    struct cache_counts counts = cache_read_counts(f.cache);
    assert_int_equal(counts.hits, 1);
    assert_int_equal(counts.misses, 2);
    assert_int_equal(counts.shared_misses, 2);
    assert_int_equal(counts.frames, 1);
    assert_int_equal(counts.bytes, 2 * PAGE_BYTES);
    assert_true(cache_shrink(f.cache, 1) >= 2 * PAGE_BYTES);
    assert_int_equal(page_pool_used(f.pool), 0);
    assert_int_equal(cache_read_counts(f.cache).evictions, 1);
    fixture_free(&f);
    cache_free(NULL);
}

static void test_insert(void **state)
{
    struct fixture f = fixture_new(NULL, 4 << 20);
    struct page *pages[3], *other[1];
    assert_int_equal(page_pool_try(f.pool, 3, pages), 0);
    assert_int_equal(page_pool_try(f.pool, 1, other), 0);
    fill(pages, 3, 9, 7);
    cache_insert(f.cache, 9, 7, pages, 3);
    cache_insert(f.cache, 9, 7, other, 1); /* there already */
    struct frame *frame = cache_lookup(f.cache, 9, 7);
    assert_int_equal(frame->state, FRAME_READY);
    assert_int_equal(frame->page_count, 3);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(frame->pages[i], pages[i]);
        assert_int_equal(pages[i]->references, 2);
    }
    assert_int_equal(other[0]->references, 1);
    frame_unref(f.cache, frame);
    page_unref(other[0]);

    /* Frames whose pages others hold go last, and give nothing at once. */
    assert_int_equal(bring(&f, 9, 8, 3), 0);
    cache_shrink(f.cache, 3 * PAGE_BYTES);
    assert_true(cache_has(f.cache, 9, 7));
    assert_false(cache_has(f.cache, 9, 8));
    cache_shrink(f.cache, 3 * PAGE_BYTES);
    assert_false(cache_has(f.cache, 9, 7));
    assert_int_equal(page_pool_used(f.pool), 3 * PAGE_BYTES);
    for (int i = 0; i < 3; i++)
        page_unref(pages[i]);
    fixture_free(&f);
}

static void test_forget(void **state)
{
    struct fixture f = fixture_new(NULL, 64 << 20);
    for (uint64_t id = 0; id < 3000; id++)
        assert_int_equal(bring(&f, id, (uint32_t)id % 7, 1), 0);
    struct frame *held = cache_lookup(f.cache, 150, 150 % 7);
    struct page *pages[1];
    assert_int_equal(page_pool_try(f.pool, 1, pages), 0);
    struct frame *coming = cache_begin(f.cache, 150, 77, pages, 1);
    cache_forget(f.cache, 100, 2900);
    for (uint64_t id = 0; id < 3000; id++)
        assert_int_equal(cache_has(f.cache, id, (uint32_t)id % 7), id < 100 || id >= 2900);
    assert_false(cache_has(f.cache, 150, 77));
    check(held, 150, 150 % 7);
    assert_int_equal(page_pool_used(f.pool), 202 * PAGE_BYTES);

    /* Those forgotten while in use may come again meanwhile. */
    assert_int_equal(bring(&f, 150, 77, 1), 0);
    cache_ready(f.cache, coming);
    frame_unref(f.cache, coming);
    frame_unref(f.cache, held);
    assert_true(cache_has(f.cache, 150, 77));
    assert_int_equal(page_pool_used(f.pool), 201 * PAGE_BYTES);
    cache_forget(f.cache, 0, UINT64_MAX);
    assert_int_equal(cache_read_counts(f.cache).frames, 0);
    assert_int_equal(cache_read_counts(f.cache).bytes, 0);
    fixture_free(&f);
}

/* What nobody asks for any more gives its pages back at once, or when it is let go. */
static void test_discard(void **state)
{
    struct fixture f = fixture_new(NULL, 4 << 20);
    assert_int_equal(bring(&f, 1, 5, 4), 0);
    assert_int_equal(bring(&f, 1, 9, 2), 0);
    assert_int_equal(bring(&f, 1, 12, 3), 0);
    struct frame *held = cache_lookup(f.cache, 1, 9);
    struct page *pages[1];
    assert_int_equal(page_pool_try(f.pool, 1, pages), 0);
    struct frame *coming = cache_begin(f.cache, 1, 77, pages, 1);
    cache_discard(f.cache, 1, 5);
    cache_discard(f.cache, 1, 9);
    cache_discard(f.cache, 1, 77);
    cache_discard(f.cache, 2, 5); /* not there */
    assert_false(cache_has(f.cache, 1, 5) || cache_has(f.cache, 1, 9) || cache_has(f.cache, 1, 77));
    assert_true(cache_has(f.cache, 1, 12));
    assert_int_equal(page_pool_used(f.pool), (2 + 3 + 1) * PAGE_BYTES);
    check(held, 1, 9);
    frame_unref(f.cache, held);
    cache_ready(f.cache, coming);
    frame_unref(f.cache, coming);
    assert_int_equal(page_pool_used(f.pool), 3 * PAGE_BYTES);
    fixture_free(&f);
}

/* Everything at random, with little memory: content is always right, what is held stays, the limit holds. */
static void test_at_random(void **state)
{
    enum { LIMIT = 600 * PAGE_COST, HELD = 8, OBJECTS = 50, STARTS = 40 };
    struct fixture f = fixture_new(NULL, LIMIT);
    struct frame *held[HELD] = { NULL };
    struct {
        struct page *pages[BLOCK_PAGES];
        uint32_t count;
    } written = { .count = 0 };
    for (int round = 0; round < 100000; round++) {
        uint64_t id = random_below(OBJECTS);
        uint32_t start = (uint32_t)random_below(STARTS), count = 1 + (uint32_t)(id * 31 + start * 17) % BLOCK_PAGES;
        struct frame **place = &held[random_below(HELD)];
        if (*place != NULL) {
            check(*place, (*place)->object_id, (*place)->start);
            frame_unref(f.cache, *place);
            *place = NULL;
        }
        switch (random_below(8)) {
        case 0: /* a committed frame, whose pages its batch keeps a while */
            for (uint32_t i = 0; i < written.count; i++)
                page_unref(written.pages[i]);
            written.count = 0;
            if (page_pool_try(f.pool, count, written.pages) == 0) {
                fill(written.pages, count, id, start);
                cache_insert(f.cache, id, start, written.pages, count);
                written.count = count;
            }
            break;
        case 1:
            if (random_below(100) == 0)
                cache_forget(f.cache, id, id + 5);
            else
                cache_shrink(f.cache, random_below(20) * PAGE_BYTES);
            break;
        default:
            *place = cache_lookup(f.cache, id, start);
            if (*place == NULL && bring(&f, id, start, count) == 0)
                *place = cache_lookup(f.cache, id, start);
            if (*place != NULL)
                check(*place, id, start);
        }
        assert_true(page_pool_used(f.pool) / PAGE_BYTES * PAGE_COST + page_pool_charged(f.pool) <=
                    LIMIT + (BLOCK_PAGES + 2) * sizeof(struct page *) + sizeof(struct frame) + 8192);
    }
    for (int i = 0; i < HELD; i++)
        if (held[i] != NULL)
            frame_unref(f.cache, held[i]);
    for (uint32_t i = 0; i < written.count; i++)
        page_unref(written.pages[i]);
    fixture_free(&f);
}

/* ---- waiting ---- */

struct waiter {
    struct fixture *f;
    uint64_t object_id;
    int state;
    int done;
};

static void awaits_frame(void *arg)
{
    struct waiter *waiter = arg;
    struct frame *frame = cache_lookup(waiter->f->cache, waiter->object_id, 0);
    while (frame->state == FRAME_FETCHING)
        assert_int_equal(waitq_wait(&frame->arrival), 0);
    waiter->state = frame->state;
    frame_unref(waiter->f->cache, frame);
    waiter->done = 1;
}

static void share_misses(struct loop *loop, void *arg)
{
    struct fixture f = fixture_new(loop, 4 << 20);
    struct page *pages[2];
    assert_int_equal(page_pool_try(f.pool, 2, pages), 0);
    struct frame *good = cache_begin(f.cache, 1, 0, &pages[0], 1), *bad = cache_begin(f.cache, 2, 0, &pages[1], 1);
    struct waiter waiters[6];
    struct group group;
    group_init(&group, loop);
    for (int i = 0; i < 6; i++) {
        waiters[i] = (struct waiter){ .f = &f, .object_id = 1 + (uint64_t)i % 2 };
        group_spawn(&group, "awaits", awaits_frame, &waiters[i]);
    }
    coroutine_yield();
    assert_int_equal(good->references, 4);
    cache_ready(f.cache, good);
    frame_unref(f.cache, good);
    cache_failed(f.cache, bad, -EIO);
    frame_unref(f.cache, bad);
    group_join(&group);
    for (int i = 0; i < 6; i++)
        assert_int_equal(waiters[i].state, i % 2 == 0 ? FRAME_READY : FRAME_FAILED);
    assert_int_equal(cache_read_counts(f.cache).shared_misses, 6);
    fixture_free(&f);
}

static void test_shared_misses(void **state)
{
    in_sim_loop(1, share_misses, NULL);
}

static void takes(void *arg)
{
    struct waiter *waiter = arg;
    struct page *pages[BLOCK_PAGES];
    assert_int_equal(page_pool_take(waiter->f->pool, BLOCK_PAGES, pages), 0);
    for (uint32_t i = 0; i < BLOCK_PAGES; i++)
        page_unref(pages[i]);
    waiter->done = 1;
}

/* Who waits for pages gets those of a frame as soon as its last user lets go, and of pages as soon as theirs does. */
static void wait_for_users(struct loop *loop, void *arg)
{
    struct fixture f = fixture_new(loop, 40 * PAGE_COST);
    struct waiter waiter = { .f = &f };
    struct group group;
    group_init(&group, loop);
    assert_int_equal(bring(&f, 1, 0, BLOCK_PAGES), 0);
    struct frame *frame = cache_lookup(f.cache, 1, 0);
    group_spawn(&group, "takes", takes, &waiter);
    coroutine_yield();
    assert_int_equal(waiter.done, 0);
    frame_unref(f.cache, frame);
    group_join(&group);
    assert_int_equal(waiter.done, 1);

    struct page *pages[BLOCK_PAGES];
    waiter.done = 0;
    assert_int_equal(page_pool_take(f.pool, BLOCK_PAGES, pages), 0);
    cache_insert(f.cache, 2, 0, pages, BLOCK_PAGES);
    group_spawn(&group, "takes", takes, &waiter);
    coroutine_yield();
    assert_int_equal(waiter.done, 0);
    cache_insert(f.cache, 3, 0, pages, BLOCK_PAGES); /* not now */
    assert_false(cache_has(f.cache, 3, 0));
    for (uint32_t i = 0; i < BLOCK_PAGES; i++)
        page_unref(pages[i]);
    group_join(&group);
    assert_int_equal(waiter.done, 1);
    fixture_free(&f);
}

static void test_wait_for_users(void **state)
{
    in_sim_loop(1, wait_for_users, NULL);
}

/* ---- which frames stay: beside plain LRU ---- */

struct lru {
    uint32_t capacity, clock;
    uint32_t *used; /* by key: when last, 0: not in it */
    uint32_t keys, count;
};

static bool lru_read(struct lru *lru, uint32_t key)
{
    bool hit = lru->used[key] != 0;
    if (!hit && lru->count == lru->capacity) {
        uint32_t oldest = UINT32_MAX;
        for (uint32_t i = 0; i < lru->keys; i++)
            if (lru->used[i] != 0 && (oldest == UINT32_MAX || lru->used[i] < lru->used[oldest]))
                oldest = i;
        lru->used[oldest] = 0;
        lru->count--;
    }
    lru->count += !hit;
    lru->used[key] = ++lru->clock;
    return hit;
}

/* Both hold about `frames` frames of one page. */
static void contest_new(struct fixture *f, struct lru *lru, uint32_t frames, uint32_t keys)
{
    *f = fixture_new(NULL, (uint64_t)frames * (PAGE_COST + sizeof(struct frame) + 32) + 8192);
    *lru = (struct lru){ .keys = keys };
    lru->used = calloc(keys, sizeof *lru->used);
    /* As many as the cache really holds. */
    for (uint32_t i = 0; i < frames * 2; i++)
        read_through(f, 1000, i, 1);
    lru->capacity = (uint32_t)cache_read_counts(f->cache).frames;
    assert_true(lru->capacity > frames / 2);
    cache_forget(f->cache, 1000, 1001);
}

static void contest_free(struct fixture *f, struct lru *lru)
{
    free(lru->used);
    fixture_free(f);
}

/* A hot set that is read now and then, while a scan reads ten times what fits, each frame page by page. */
static void test_scan(void **state)
{
    enum { FRAMES = 64, HOT = 32, SCAN = 640 };
    struct fixture f = fixture_new(NULL, FRAMES * BLOCK_PAGES * PAGE_COST + (64 << 10));
    struct lru lru = { .keys = HOT + SCAN, .capacity = FRAMES, .used = calloc(HOT + SCAN, sizeof(uint32_t)) };
    for (int round = 0; round < 4; round++)
        for (uint32_t i = 0; i < HOT; i++) {
            read_through(&f, 1, i, BLOCK_PAGES);
            lru_read(&lru, i);
        }
    uint32_t hits = 0, lru_hits = 0, reads = 0, scan_hits = 0;
    for (uint32_t i = 0; i < SCAN; i++) {
        for (uint32_t page = 0; page < BLOCK_PAGES; page++) {
            struct frame *frame = cache_lookup_pages(f.cache, 2, i, UINT32_C(1) << page);
            scan_hits += frame != NULL;
            if (frame == NULL)
                assert_int_equal(bring(&f, 2, i, BLOCK_PAGES), 0);
            else
                frame_unref(f.cache, frame);
        }
        lru_read(&lru, HOT + i);
        /* Each hot frame once in 128 frames of the scan: seldom enough for LRU to lose it. */
        if (i % 4 == 0) {
            reads++;
            hits += read_through(&f, 1, i / 4 % HOT, BLOCK_PAGES);
            lru_hits += lru_read(&lru, i / 4 % HOT);
        }
    }
    assert_int_equal(scan_hits, SCAN * (BLOCK_PAGES - 1));
    assert_int_equal(hits, reads);
    assert_true(lru_hits < reads / 2);
    free(lru.used);
    fixture_free(&f);
}

/* Frames that are read at random by the law of Zipf and Mandelbrot. */
static void test_zipf(void **state)
{
    enum { KEYS = 5000, READS = 60000 };
    static const uint32_t flattenings[] = { 0, 20, 200 };
    double *sums = calloc(KEYS, sizeof *sums);
    uint32_t *order = calloc(KEYS, sizeof *order);
    for (size_t s = 0; s < sizeof flattenings / sizeof flattenings[0]; s++) {
        struct fixture f;
        struct lru lru;
        contest_new(&f, &lru, 500, KEYS);
        double sum = 0;
        for (uint32_t i = 0; i < KEYS; i++) {
            sums[i] = sum += 1.0 / (i + 1 + flattenings[s]);
            order[i] = i;
        }
        for (uint32_t i = KEYS - 1; i > 0; i--) {
            uint32_t j = (uint32_t)random_below(i + 1), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        uint32_t hits = 0, lru_hits = 0;
        for (int i = 0; i < READS; i++) {
            double point = (double)random_below(1u << 30) / (1u << 30) * sum;
            uint32_t low = 0, high = KEYS - 1;
            while (low < high) {
                uint32_t middle = (low + high) / 2;
                if (sums[middle] > point)
                    high = middle;
                else
                    low = middle + 1;
            }
            hits += read_through(&f, 1, order[low], 1);
            lru_hits += lru_read(&lru, order[low]);
        }
        assert_true(hits >= lru_hits);
        contest_free(&f, &lru);
    }
    free(sums);
    free(order);
}

/* What was seen, left, and comes back soon is kept longer than what is seen once. */
static void test_ghosts(void **state)
{
    enum { FRAMES = 100 };
    struct fixture f = fixture_new(NULL, FRAMES * (PAGE_COST + sizeof(struct frame) + 8) + 8192);
    for (uint32_t i = 0; i < FRAMES; i++)
        read_through(&f, 1, i, 1);
    uint32_t fresh = 0;
    while (cache_has(f.cache, 1, 7))
        read_through(&f, 2, fresh++, 1);
    read_through(&f, 1, 7, 1);
    for (int i = 0; i < FRAMES * 2; i++)
        read_through(&f, 2, fresh++, 1);
    assert_true(cache_has(f.cache, 1, 7));
    fixture_free(&f);
}

/* The table grows by a hundred times and back; nothing is lost on the way. */
static void test_growth(void **state)
{
    struct fixture f = fixture_new(NULL, UINT64_C(128) << 20);
    uint64_t charged = page_pool_charged(f.pool);
    for (uint32_t i = 0; i < 20000; i++) {
        assert_int_equal(bring(&f, i / 100, i % 100, 1), 0);
        uint32_t known = (uint32_t)random_below(i + 1);
        assert_true(read_through(&f, known / 100, known % 100, 1));
    }
    assert_int_equal(cache_read_counts(f.cache).frames, 20000);
    while (cache_read_counts(f.cache).frames > 10) {
        uint64_t before = cache_read_counts(f.cache).frames, there = 0;
        cache_shrink(f.cache, 100 * PAGE_BYTES);
        assert_true(cache_read_counts(f.cache).frames < before);
        if (before % 16 == 0) {
            for (uint32_t i = 0; i < 20000; i++)
                there += cache_has(f.cache, i / 100, i % 100);
            assert_int_equal(there, cache_read_counts(f.cache).frames);
        }
    }
    cache_shrink(f.cache, UINT64_MAX);
    assert_int_equal(page_pool_charged(f.pool), charged);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),         cmocka_unit_test(test_insert),    cmocka_unit_test(test_forget),
        cmocka_unit_test(test_discard),        cmocka_unit_test(test_at_random), cmocka_unit_test(test_shared_misses),
        cmocka_unit_test(test_wait_for_users), cmocka_unit_test(test_scan),      cmocka_unit_test(test_zipf),
        cmocka_unit_test(test_ghosts),         cmocka_unit_test(test_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
