#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "vol/object_table.h"

static uint32_t add(struct object_table *table, uint64_t id, uint64_t born, uint64_t bytes)
{
    struct object object = { .id = id, .kind = OBJECT_DATA, .epoch = 1, .n = id, .born = born, .total_bytes = bytes };
    object.uuid.bytes[0] = (uint8_t)id;
    uint32_t index;
    assert_int_equal(object_table_add(table, &object, &index), 0);
    assert_true(index < OBJECT_INDEX_MAX);
    return index;
}

static void test_life(void **state)
{
    struct object_table *table = object_table_new();
    assert_int_equal(object_table_count(table), 0);
    object_table_set_seq(table, 7);
    uint32_t a = add(table, 100, 7, 1000), b = add(table, 101, 7, 2000);
    assert_int_not_equal(a, b);
    object_table_live(table, a, 32);
    object_table_live(table, b, 1);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 2);
    assert_int_equal(object_table_bytes(table), 3000);
    assert_int_equal(object_table_live_pages(table), 33);
    const struct object *row = object_table_row(table, a);
    assert_int_equal(row->id, 100);
    assert_int_equal(row->n, 100);
    assert_int_equal(row->uuid.bytes[0], 100);
    assert_int_equal(row->live_pages, 32);
    assert_true(row->died == OBJECT_ALIVE);

    object_table_set_seq(table, 9);
    object_table_live(table, a, -31);
    assert_true(row->died == OBJECT_ALIVE);
    object_table_live(table, a, -1);
    assert_int_equal(row->died, 9);
    assert_int_equal(object_table_bytes(table), 2000);
    assert_int_equal(object_table_live_pages(table), 1);
    assert_int_equal(object_table_count(table), 2);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 1);

    /* Its index is free again. */
    assert_int_equal(add(table, 102, 10, 1), a);
    object_table_free(table);
    object_table_free(NULL);
}

static void test_held(void **state)
{
    struct object_table *table = object_table_new();
    object_table_set_seq(table, 1);
    uint32_t a = add(table, 1, 1, 10);
    object_table_live(table, a, 4);
    object_table_hold(table, a);
    object_table_hold(table, a);
    object_table_live(table, a, -4);
    for (int i = 0; i < 2; i++) {
        object_table_forget_dead(table);
        assert_int_equal(object_table_count(table), 1);
        assert_int_equal(object_table_row(table, a)->id, 1);
        assert_int_not_equal(add(table, 2, 1, 0), a);
        object_table_unhold(table, a);
    }
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 0);
    object_table_free(table);
}

static void test_born_dead(void **state)
{
    struct object_table *table = object_table_new();
    object_table_set_seq(table, 4);
    uint32_t zeroes = add(table, 1, 4, 256); /* a commit that holds no page */
    uint32_t later = add(table, 2, 5, 256);  /* known before its commit is folded */
    uint32_t pages = add(table, 3, 4, 256);
    object_table_live(table, pages, 1);
    object_table_hold(table, zeroes);
    object_table_forget_dead(table);
    assert_int_equal(object_table_row(table, zeroes)->died, 4);
    assert_true(object_table_row(table, later)->died == OBJECT_ALIVE);
    assert_int_equal(object_table_bytes(table), 512);
    object_table_unhold(table, zeroes);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 2);

    object_table_set_seq(table, 5);
    object_table_live(table, later, 2);
    object_table_forget_dead(table);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 2);
    object_table_live(table, later, -2);
    object_table_live(table, pages, -1);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 0);
    assert_int_equal(object_table_bytes(table), 0);
    object_table_free(table);
}

struct walk {
    uint64_t next_index, count, bytes, live;
};

static void walk_row(void *arg, uint32_t index, const struct object *object)
{
    struct walk *walk = arg;
    assert_true(index >= walk->next_index);
    walk->next_index = index + 1u;
    walk->count++;
    walk->live += object->live_pages;
    if (object->died == OBJECT_ALIVE)
        walk->bytes += object->total_bytes;
}

/* Rows come, live, are held and go at random; the table is held against an array of what should be in it. */
static void test_at_random(void **state)
{
    enum { ROWS = 2000, ROUNDS = 200000 };
    struct expected {
        bool present, alive;
        uint32_t index, live, holds;
        uint64_t id;
    } *rows = calloc(ROWS, sizeof *rows);
    struct object_table *table = object_table_new();
    uint64_t empty_bytes = object_table_memory_bytes(table), present = 0;
    srand(1);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        struct expected *row = &rows[rand() % ROWS];
        object_table_set_seq(table, round);
        if (!row->present) {
            if (round > ROUNDS / 2 && present > 100)
                continue;
            *row = (struct expected){ .present = true, .alive = true, .id = round, .live = 1 };
            row->index = add(table, round, round, round % 1000);
            object_table_live(table, row->index, 1);
            present++;
        } else if (row->live > 0 && rand() % 3 != 0) {
            object_table_live(table, row->index, -1);
            row->alive = --row->live > 0;
        } else if (row->holds > 0 && rand() % 2 != 0) {
            object_table_unhold(table, row->index);
            row->holds--;
        } else if (row->alive && rand() % 2 != 0) {
            object_table_live(table, row->index, 1);
            row->live++;
        } else if (rand() % 4 == 0) {
            object_table_hold(table, row->index);
            row->holds++;
        }
        assert_int_equal(object_table_row(table, row->index)->id, row->id);
        assert_int_equal(object_table_row(table, row->index)->live_pages, row->live);
        if (round % 16 != 0)
            continue;
        object_table_forget_dead(table);
        for (int i = 0; i < ROWS; i++)
            if (rows[i].present && !rows[i].alive && rows[i].holds == 0) {
                rows[i].present = false;
                present--;
            }
        assert_int_equal(object_table_count(table), present);
    }
    struct walk walk = { 0 };
    object_table_walk(table, walk_row, &walk);
    assert_int_equal(walk.count, object_table_count(table));
    assert_int_equal(walk.bytes, object_table_bytes(table));
    assert_int_equal(walk.live, object_table_live_pages(table));

    for (int i = 0; i < ROWS; i++) {
        if (!rows[i].present)
            continue;
        for (; rows[i].holds > 0; rows[i].holds--)
            object_table_unhold(table, rows[i].index);
        if (rows[i].live > 0)
            object_table_live(table, rows[i].index, -(int32_t)rows[i].live);
    }
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 0);
    assert_int_equal(object_table_live_pages(table), 0);
    assert_true(object_table_memory_bytes(table) < empty_bytes + 4096);
    object_table_free(table);
    free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_born_dead),
        cmocka_unit_test(test_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
