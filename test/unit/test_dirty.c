/* The dirty index against an array of pointers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vol/dirty.h"

/* The index borrows its pages, and looks at nothing of them but their number: no pool is needed. */
#define SPAN 4096u /* pages that the model knows */

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

struct model {
    struct dirty *dirty;
    uint64_t base; /* the number of the first page */
    struct page *slots[SPAN];
    struct page *dropped[SPAN]; /* by dirty_clear(), as it says */
    uint32_t dropped_count;
};

static struct page *make(struct model *model, uint64_t index)
{
    struct page *page = calloc(1, sizeof *page);
    page->number = model->base + index;
    return page;
}

static void take_note(void *arg, struct page *page)
{
    struct model *model = arg;
    assert_true(model->dropped_count < SPAN);
    model->dropped[model->dropped_count++] = page;
}

static void compare_range(const struct model *model, uint64_t first, uint64_t past)
{
    bool none = true;
    for (uint64_t i = first; i < past && i < SPAN; i++)
        none = none && model->slots[i] == NULL;
    assert_int_equal(dirty_none(model->dirty, model->base + first, model->base + past), none);
}

static void compare(const struct model *model)
{
    for (uint64_t i = 0; i < SPAN; i++)
        assert_ptr_equal(dirty_page(model->dirty, model->base + i), model->slots[i]);
    for (uint64_t i = 0; i < SPAN; i += BLOCK_PAGES) {
        uint32_t filled = 0;
        for (uint64_t j = i; j < i + BLOCK_PAGES; j++)
            filled += model->slots[j] != NULL;
        const struct dirty_block *block = dirty_find(model->dirty, (model->base + i) / BLOCK_PAGES);
        assert_int_equal(block != NULL, filled > 0); /* blocks without a page have left the table */
        if (block != NULL)
            assert_int_equal(block->filled, filled);
    }
    for (int i = 0; i < 20; i++) {
        uint64_t first = random_below(SPAN);
        compare_range(model, first, first + 1 + random_below(200));
        compare_range(model, first, first + (UINT64_C(1) << 33)); /* far more blocks than the table has places */
    }
}

static void clear(struct model *model, uint64_t first, uint64_t past)
{
    model->dropped_count = 0;
    dirty_clear(model->dirty, model->base + first, model->base + past, take_note, model);
    uint32_t expected = 0;
    for (uint64_t i = first; i < past && i < SPAN; i++)
        expected += model->slots[i] != NULL;
    assert_int_equal(model->dropped_count, expected);
    for (uint32_t i = 0; i < model->dropped_count; i++) {
        uint64_t index = model->dropped[i]->number - model->base;
        assert_true(index >= first && index < past);
        assert_ptr_equal(model->slots[index], model->dropped[i]); /* each once */
        model->slots[index] = NULL;
        free(model->dropped[i]);
    }
}

static void set(struct model *model, uint64_t index)
{
    struct page *page = make(model, index), *old = dirty_set(model->dirty, page);
    assert_ptr_equal(old, model->slots[index]);
    free(old);
    model->slots[index] = page;
}

/* As a commit does: only the page that is still the newest leaves. */
static void drop(struct model *model, uint64_t index)
{
    struct page *other = make(model, index);
    dirty_drop(model->dirty, other);
    free(other);
    if (model->slots[index] == NULL)
        return;
    assert_ptr_equal(dirty_page(model->dirty, model->base + index), model->slots[index]);
    dirty_drop(model->dirty, model->slots[index]);
    free(model->slots[index]);
    model->slots[index] = NULL;
}

static void step(struct model *model)
{
    uint64_t what = random_below(100), index = random_below(SPAN);
    if (what < 40)
        set(model, index);
    else if (what < 55)
        for (uint64_t i = index; i < index + 64 && i < SPAN; i++)
            set(model, i);
    else if (what < 75)
        drop(model, index);
    else if (what < 96)
        clear(model, index, index + 1 + random_below(150));
    else if (what < 98)
        clear(model, index, index + (UINT64_C(1) << (12 + random_below(21))));
    else
        clear(model, 0, random_below(2) == 0 ? SPAN : UINT64_C(1) << 34);
}

static void against_a_model(uint64_t seed, uint64_t base)
{
    struct model model = { .dirty = dirty_new(), .base = base };
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 400; i++) {
        step(&model);
        if (i % 20 == 0)
            compare(&model);
    }
    clear(&model, 0, SPAN);
    compare(&model);
    dirty_free(model.dirty);
}

static void test_agrees_with_a_model(void **state)
{
    for (uint64_t seed = 1; seed <= 8; seed++)
        against_a_model(seed, 0);
    against_a_model(99, (VOLUME_PAGES_MAX - SPAN) / BLOCK_PAGES * BLOCK_PAGES);
}

static void count(void *arg, struct page *page)
{
    ++*(uint64_t *)arg;
}

/* Far-apart pages make the table grow; then it is walked for ranges that have more blocks than it has places. */
static void test_huge_ranges(void **state)
{
    enum { PAGES = 3000 };
    struct dirty *dirty = dirty_new();
    struct page *pages = calloc(PAGES, sizeof *pages);
    const uint64_t gap = VOLUME_PAGES_MAX / PAGES;
    for (uint64_t i = 0; i < PAGES; i++) {
        pages[i].number = i * gap + 5;
        assert_null(dirty_set(dirty, &pages[i]));
    }
    for (uint64_t i = 0; i < PAGES; i++) {
        assert_ptr_equal(dirty_page(dirty, i * gap + 5), &pages[i]);
        assert_false(dirty_none(dirty, i * gap + 5, i * gap + 6));
        assert_true(dirty_none(dirty, i * gap + 6, (i + 1) * gap + 5));
    }
    uint64_t dropped = 0;
    dirty_clear(dirty, 1000 * gap + 6, 2000 * gap + 5, count, &dropped); /* 1001 to 1999 */
    assert_int_equal(dropped, 999);
    assert_ptr_equal(dirty_page(dirty, 1000 * gap + 5), &pages[1000]);
    assert_ptr_equal(dirty_page(dirty, 2000 * gap + 5), &pages[2000]);
    assert_true(dirty_none(dirty, 1000 * gap + 6, 2000 * gap + 5));
    dirty_clear(dirty, 0, VOLUME_PAGES_MAX, count, &dropped);
    assert_int_equal(dropped, PAGES);
    assert_true(dirty_none(dirty, 0, VOLUME_PAGES_MAX));
    dirty_free(dirty);
    free(pages);
}

/* Steady writing and committing needs no more memory after the first round. */
static void test_blocks_are_used_again(void **state)
{
    enum { PAGES = 1024 };
    struct dirty *dirty = dirty_new();
    struct page *pages = calloc(PAGES, sizeof *pages);
    uint64_t bytes = 0;
    for (uint64_t round = 0; round < 20; round++) {
        for (uint64_t i = 0; i < PAGES; i++) {
            pages[i].number = (round * 7919 + i) * BLOCK_PAGES + i % BLOCK_PAGES;
            assert_null(dirty_set(dirty, &pages[i]));
        }
        for (uint64_t i = 0; i < PAGES; i++) {
            const struct dirty_block *block = dirty_find(dirty, pages[i].number / BLOCK_PAGES);
            assert_non_null(block);
            assert_int_equal(block->filled, 1);
            for (uint32_t slot = 0; slot < BLOCK_PAGES; slot++) /* nothing of its former life */
                assert_ptr_equal(block->slots[slot], slot == i % BLOCK_PAGES ? &pages[i] : NULL);
        }
        for (uint64_t i = 0; i < PAGES; i++)
            dirty_drop(dirty, &pages[i]);
        assert_true(dirty_none(dirty, 0, VOLUME_PAGES_MAX));
        assert_true(round == 0 || dirty_memory_bytes(dirty) == bytes);
        bytes = dirty_memory_bytes(dirty);
    }
    dirty_free(dirty);
    free(pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_a_model),
        cmocka_unit_test(test_huge_ranges),
        cmocka_unit_test(test_blocks_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
