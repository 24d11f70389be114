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
#include "vol/page.h"

#define SLAB_BYTES (64u * PAGE_BYTES)

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static bool adjacent(struct page *const *pages, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (pages[i]->data != pages[i - 1]->data + PAGE_BYTES)
            return false;
    return true;
}

static void unref_all(struct page *const *pages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        page_unref(pages[i]);
}

static void test_limit(void **state)
{
    struct page_pool *pool = page_pool_new(NULL, 10 * PAGE_COST);
    struct page *pages[11];
    assert_int_equal(page_pool_try(pool, 11, pages), -ENOMEM);
    assert_int_equal(page_pool_used(pool), 0);
    assert_int_equal(page_pool_try(pool, 7, pages), 0);
    assert_int_equal(page_pool_try(pool, 4, pages + 7), -EAGAIN);
    assert_int_equal(page_pool_used(pool), 7 * PAGE_BYTES);
    assert_int_equal(page_pool_try(pool, 3, pages + 7), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(pages[i]->references, 1);
        assert_int_equal((uintptr_t)pages[i]->data % PAGE_BYTES, 0);
        memset(pages[i]->data, i, PAGE_BYTES);
    }
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < (int)PAGE_BYTES; j++)
            assert_int_equal(pages[i]->data[j], i);

    /* A page goes back with its last reference. */
    assert_ptr_equal(page_ref(pages[3]), pages[3]);
    page_unref(pages[3]);
    assert_int_equal(page_pool_used(pool), 10 * PAGE_BYTES);
    struct page *another;
    assert_int_equal(page_pool_try(pool, 1, &another), -EAGAIN);
    page_unref(pages[3]);
    assert_int_equal(page_pool_try(pool, 1, &pages[3]), 0);

    /* Charges count against the limit. */
    unref_all(pages, 10);
    page_pool_charge(pool, 4 * PAGE_COST + 1);
    assert_int_equal(page_pool_charged(pool), 4 * PAGE_COST + 1);
    assert_int_equal(page_pool_try(pool, 6, pages), -EAGAIN);
    assert_int_equal(page_pool_try(pool, 5, pages), 0);
    page_pool_charge(pool, 100 * PAGE_COST);
    assert_int_equal(page_pool_try(pool, 1, pages + 5), -EAGAIN);
    page_pool_uncharge(pool, 104 * PAGE_COST + 1);
    unref_all(pages, 5);

    page_pool_set_limit(pool, 2 * PAGE_COST);
    assert_int_equal(page_pool_limit(pool), 2 * PAGE_COST);
    assert_int_equal(page_pool_try(pool, 3, pages), -ENOMEM);
    page_pool_set_limit(pool, 3 * PAGE_COST);
    assert_int_equal(page_pool_try(pool, 3, pages), 0);
    unref_all(pages, 3);
    page_pool_free(pool);
    page_pool_free(NULL);
}

static void test_runs(void **state)
{
    struct page_pool *pool = page_pool_new(NULL, UINT64_C(64) << 20);
    struct page *blocks[16][32], *single[8];
    for (int i = 0; i < 16; i++) {
        assert_int_equal(page_pool_try(pool, 32, blocks[i]), 0);
        assert_true(adjacent(blocks[i], 32));
    }
    assert_int_equal(page_pool_mapped(pool), 8 * SLAB_BYTES);

    /* Single pages fill the gap of one slab, and leave the others whole. */
    unref_all(blocks[0], 1);
    unref_all(blocks[5], 32);
    assert_int_equal(page_pool_try(pool, 1, single), 0);
    assert_ptr_equal(single[0]->data, blocks[0][0]->data);
    assert_int_equal(page_pool_try(pool, 32, blocks[5]), 0);
    assert_true(adjacent(blocks[5], 32));
    assert_int_equal(page_pool_mapped(pool), 8 * SLAB_BYTES);

    /* 200 pages are three whole slabs and a piece. */
    struct page *many[200];
    assert_int_equal(page_pool_try(pool, 200, many), 0);
    for (int i = 0; i < 192; i += 64)
        assert_true(adjacent(many + i, 64));
    assert_true(adjacent(many + 192, 8));
    unref_all(many, 200);
    unref_all(single, 1);
    unref_all(blocks[0] + 1, 31);
    for (int i = 1; i < 16; i++)
        unref_all(blocks[i], 32);
    page_pool_free(pool);
}

static void test_pieces(void **state)
{
    /* Every second page is in use, and there is room for no further slab: a block is put together from what is left. */
    struct page_pool *pool = page_pool_new(NULL, 128 * PAGE_COST);
    struct page *all[128], *block[32];
    for (int i = 0; i < 128; i++)
        assert_int_equal(page_pool_try(pool, 1, &all[i]), 0);
    for (int i = 0; i < 128; i += 2)
        page_unref(all[i]);
    assert_int_equal(page_pool_try(pool, 32, block), 0);
    assert_false(adjacent(block, 32));
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(block[i], block[j]);
    assert_int_equal(page_pool_mapped(pool), 2 * SLAB_BYTES);
    unref_all(block, 32);
    for (int i = 1; i < 128; i += 2)
        page_unref(all[i]);
    page_pool_free(pool);
}

static void test_memory_falls(void **state)
{
    enum { COUNT = 8192 };
    struct page_pool *pool = page_pool_new(NULL, COUNT * PAGE_COST);
    struct page **pages = calloc(COUNT, sizeof *pages);
    assert_int_equal(page_pool_try(pool, COUNT, pages), 0);
    assert_int_equal(page_pool_mapped(pool), COUNT * PAGE_BYTES);
    unref_all(pages, COUNT);
    assert_int_equal(page_pool_used(pool), 0);
    assert_true(page_pool_mapped(pool) <= 8u << 20);

    /* A lower limit takes the reserve too. */
    page_pool_set_limit(pool, 4 * SLAB_BYTES);
    assert_true(page_pool_mapped(pool) <= 4 * SLAB_BYTES);
    free(pages);
    page_pool_free(pool);
}

/* Every other slab is empty when the limit falls, so that no region can go as a whole; later all come again. */
static void test_gaps(void **state)
{
    enum { SLABS = 64, COUNT = SLABS * 64 };
    struct page_pool *pool = page_pool_new(NULL, COUNT * PAGE_COST);
    struct page **pages = calloc(COUNT, sizeof *pages);
    for (int round = 0; round < 3; round++) {
        page_pool_set_limit(pool, COUNT * PAGE_COST);
        assert_int_equal(page_pool_try(pool, COUNT, pages), 0);
        assert_int_equal(page_pool_mapped(pool), COUNT * PAGE_BYTES);
        for (int i = 0; i < COUNT; i++)
            memcpy(pages[i]->data, &pages[i], sizeof(struct page *));
        struct page *kept[COUNT];
        int count = 0;
        for (int i = 0; i < COUNT; i++) {
            if ((uintptr_t)pages[i]->data / SLAB_BYTES % 2 == 0)
                kept[count++] = pages[i];
            else
                page_unref(pages[i]);
        }
        assert_int_equal(page_pool_mapped(pool), COUNT * PAGE_BYTES);
        page_pool_set_limit(pool, COUNT / 2 * PAGE_COST);
        assert_true(page_pool_mapped(pool) <= (COUNT / 2 + 64) * PAGE_BYTES);
        for (int i = 0; i < count; i++)
            assert_memory_equal(kept[i]->data, &kept[i], sizeof(struct page *));
        unref_all(kept, (size_t)count);
    }
    free(pages);
    page_pool_free(pool);
}

static void test_at_random(void **state)
{
    enum { LIMIT = 1000, HELD = 64 };
    struct page_pool *pool = page_pool_new(NULL, LIMIT * PAGE_COST);
    struct {
        struct page *pages[100];
        size_t count;
    } held[HELD] = { 0 };
    uint64_t used = 0;
    for (int round = 0; round < 30000; round++) {
        uint64_t i = random_below(HELD);
        if (held[i].count > 0) {
            for (size_t j = 0; j < held[i].count; j++) {
                assert_memory_equal(held[i].pages[j]->data, &held[i].pages[j], sizeof(struct page *));
                page_unref(held[i].pages[j]);
            }
            used -= held[i].count;
            held[i].count = 0;
        }
        size_t count = random_below(3) == 0 ? 1 + random_below(100) : 1 + random_below(4);
        int status = page_pool_try(pool, count, held[i].pages);
        assert_int_equal(status, used + count <= LIMIT ? 0 : -EAGAIN);
        if (status == 0) {
            held[i].count = count;
            used += count;
            for (size_t j = 0; j < count; j++)
                memcpy(held[i].pages[j]->data, &held[i].pages[j], sizeof(struct page *));
        }
        assert_int_equal(page_pool_used(pool), used * PAGE_BYTES);
        assert_true(page_pool_mapped(pool) < LIMIT * PAGE_BYTES + SLAB_BYTES);
    }
    for (int i = 0; i < HELD; i++)
        unref_all(held[i].pages, held[i].count);
    page_pool_free(pool);
}

/* ---- the hook ---- */

struct hoard {
    struct page *pages[64];
    size_t count;
    int asked;
    uint64_t asked_bytes;
};

static uint64_t shrink_hoard(void *arg, uint64_t bytes)
{
    struct hoard *hoard = arg;
    hoard->asked++;
    hoard->asked_bytes = bytes;
    uint64_t given = 0;
    while (given < bytes && hoard->count > 0) {
        page_unref(hoard->pages[--hoard->count]);
        given += PAGE_COST;
    }
    return given;
}

static void test_hook(void **state)
{
    struct page_pool *pool = page_pool_new(NULL, 64 * PAGE_COST);
    struct hoard hoard = { .count = 60 };
    page_pool_on_shortage(pool, shrink_hoard, &hoard);
    assert_int_equal(page_pool_try(pool, 60, hoard.pages), 0);
    struct page *pages[64];
    assert_int_equal(page_pool_try(pool, 4, pages), 0);
    assert_int_equal(hoard.asked, 0);
    assert_int_equal(page_pool_try(pool, 20, pages + 4), 0);
    assert_int_equal(hoard.asked, 1);
    assert_int_equal(hoard.asked_bytes, 20 * PAGE_COST);
    assert_int_equal(hoard.count, 40);

    /* It has not enough: nothing is handed out, what it gave stays free. */
    assert_int_equal(page_pool_try(pool, 41, pages + 24), -EAGAIN);
    assert_int_equal(hoard.count, 0);
    assert_int_equal(page_pool_used(pool), 24 * PAGE_BYTES);
    unref_all(pages, 24);

    hoard.count = 30;
    assert_int_equal(page_pool_try(pool, 30, hoard.pages), 0);
    page_pool_set_limit(pool, 10 * PAGE_COST);
    assert_int_equal(hoard.count, 10);
    unref_all(hoard.pages, 10);
    page_pool_free(pool);
}

/* ---- waiting ---- */

struct taker {
    struct page_pool *pool;
    size_t count;
    struct page *pages[64];
    int status;
    int *turn;
    int order;
};

static void takes(void *arg)
{
    struct taker *taker = arg;
    taker->status = page_pool_take(taker->pool, taker->count, taker->pages);
    taker->order = ++*taker->turn;
}

static void take_in_order(struct loop *loop, void *arg)
{
    struct page_pool *pool = page_pool_new(loop, 64 * PAGE_COST);
    struct page *pages[64], *another;
    int turn = 0;
    assert_int_equal(page_pool_take(pool, 64, pages), 0);
    assert_int_equal(page_pool_take(pool, 65, pages), -ENOMEM);

    struct taker takers[5];
    static const size_t counts[5] = { 30, 1, 64, 10, 2 };
    struct group group;
    group_init(&group, loop);
    struct task *tasks[5];
    for (int i = 0; i < 5; i++) {
        takers[i] = (struct taker){ .pool = pool, .count = counts[i], .turn = &turn, .status = 1 };
        tasks[i] = group_spawn(&group, "takes", takes, &takers[i]);
    }
    coroutine_yield();
    assert_true(page_pool_wanting(pool));

    /* Small ones do not overtake the large one that waits. */
    unref_all(pages, 29);
    coroutine_yield();
    assert_int_equal(turn, 0);
    assert_int_equal(page_pool_try(pool, 1, &another), -EAGAIN);
    page_unref(pages[29]);
    page_unref(pages[30]);
    coroutine_yield();
    assert_int_equal(takers[0].order, 1);
    assert_int_equal(takers[1].order, 2);
    assert_int_equal(takers[0].status, 0);

    /* One that gives up lets those behind it in. */
    unref_all(pages + 31, 12);
    coroutine_yield();
    assert_int_equal(turn, 2);
    task_cancel(tasks[2]);
    coroutine_yield();
    coroutine_yield();
    assert_int_equal(takers[2].status, -ECANCELED);
    assert_int_equal(takers[3].status, 0);
    assert_int_equal(takers[4].status, 0);
    assert_false(page_pool_wanting(pool));
    assert_int_equal(page_pool_used(pool), 64 * PAGE_BYTES);

    group_join(&group);
    for (int i = 0; i < 5; i++)
        if (takers[i].status == 0)
            unref_all(takers[i].pages, takers[i].count);
    unref_all(pages + 43, 21);
    assert_int_equal(page_pool_used(pool), 0);
    page_pool_free(pool);
}

static void test_take(void **state)
{
    in_sim_loop(1, take_in_order, NULL);
}

static void cancel_when_served(struct loop *loop, void *arg)
{
    struct page_pool *pool = page_pool_new(loop, 8 * PAGE_COST);
    struct page *pages[8];
    int turn = 0;
    assert_int_equal(page_pool_take(pool, 8, pages), 0);
    struct taker taker = { .pool = pool, .count = 5, .turn = &turn };
    struct group group;
    group_init(&group, loop);
    struct task *task = group_spawn(&group, "takes", takes, &taker);
    coroutine_yield();
    unref_all(pages, 8);
    task_cancel(task);
    group_join(&group);
    /* Whichever came first, no page is lost. */
    if (taker.status == 0)
        unref_all(taker.pages, 5);
    assert_int_equal(page_pool_used(pool), 0);
    page_pool_free(pool);
}

static void test_cancel_when_served(void **state)
{
    in_sim_loop(1, cancel_when_served, NULL);
}

static void wait_for_hook(struct loop *loop, void *arg)
{
    struct page_pool *pool = page_pool_new(loop, 64 * PAGE_COST);
    struct hoard hoard = { 0 };
    page_pool_on_shortage(pool, shrink_hoard, &hoard);
    struct page *pages[64];
    int turn = 0;
    assert_int_equal(page_pool_take(pool, 64, pages), 0);
    struct taker takers[2];
    struct group group;
    group_init(&group, loop);
    for (int i = 0; i < 2; i++) {
        takers[i] = (struct taker){ .pool = pool, .count = 8, .turn = &turn };
        group_spawn(&group, "takes", takes, &takers[i]);
    }
    coroutine_yield();
    assert_int_equal(turn, 0);

    /* What the hook gets to give later is asked for when told, … */
    memcpy(hoard.pages, pages, 16 * sizeof *pages);
    hoard.count = 8;
    page_pool_retry(pool);
    coroutine_yield();
    assert_int_equal(turn, 1);
    /* … or when what it had missing has come back otherwise and was not enough. */
    page_pool_charge(pool, 4 * PAGE_COST);
    hoard.pages[0] = pages[8];
    hoard.pages[1] = pages[9];
    hoard.pages[2] = pages[10];
    hoard.pages[3] = pages[11];
    hoard.count = 4;
    unref_all(pages + 16, 8);
    coroutine_yield();
    assert_int_equal(turn, 2);
    group_join(&group);
    assert_int_equal(hoard.count, 0);
    unref_all(takers[0].pages, 8);
    unref_all(takers[1].pages, 8);
    unref_all(pages + 12, 4);
    unref_all(pages + 24, 40);
    page_pool_uncharge(pool, 4 * PAGE_COST);
    page_pool_free(pool);
}

static void test_wait_for_hook(void **state)
{
    in_sim_loop(1, wait_for_hook, NULL);
}

static void test_is_zero(void **state)
{
    uint8_t *data = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
    memset(data, 0, PAGE_BYTES);
    assert_true(page_is_zero(data));
    for (uint32_t i = 0; i < PAGE_BYTES; i++) {
        data[i] = 1u << (i % 8);
        assert_false(page_is_zero(data));
        data[i] = 0;
    }
    memset(data, 0xff, PAGE_BYTES);
    assert_false(page_is_zero(data));
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),         cmocka_unit_test(test_runs),    cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_memory_falls),  cmocka_unit_test(test_gaps),    cmocka_unit_test(test_at_random),
        cmocka_unit_test(test_hook),          cmocka_unit_test(test_take),    cmocka_unit_test(test_cancel_when_served),
        cmocka_unit_test(test_wait_for_hook), cmocka_unit_test(test_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
