#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "vol/map.h"

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

#define HUGE_PAGES (VOLUME_BYTES_MAX / PAGE_BYTES)
#define HOLE ((struct location){ .object = OBJECT_NONE })

static struct location frame_at(uint32_t object, uint32_t start, uint32_t page, uint32_t pages)
{
    return (struct location){ .object = object,
                              .start = start,
                              .units = 1 + 64 * pages,
                              .frame_page = (uint8_t)page,
                              .frame_pages = (uint8_t)pages };
}

static bool same(const struct location *a, const struct location *b)
{
    if (a->object == OBJECT_NONE || b->object == OBJECT_NONE)
        return a->object == b->object;
    return a->object == b->object && a->start == b->start && a->units == b->units && a->frame_page == b->frame_page &&
           a->frame_pages == b->frame_pages;
}

static void assert_at(const struct map *map, uint64_t page, uint64_t limit, struct location expected, uint64_t run)
{
    uint64_t got_run = 0;
    struct location got = map_lookup(map, page, limit, &got_run);
    assert_true(same(&got, &expected));
    assert_int_equal(got_run, run);
}

static uint32_t add_object(struct object_table *objects, uint64_t id)
{
    struct object object = { .id = id, .role = ROLE_PAGES, .kind = OBJECT_LOG, .seq = id };
    uint32_t index;
    assert_int_equal(object_table_add(objects, &object, &index), 0);
    return index;
}

static void test_forms(void **state)
{
    struct object_table *objects = object_table_new();
    struct map *map = map_new(objects, 1000);
    uint64_t empty = map_memory_bytes(map);
    uint32_t a = add_object(objects, 1), b = add_object(objects, 2), c = add_object(objects, 3);
    assert_at(map, 0, 1000, HOLE, 1000);
    assert_at(map, 999, 1, HOLE, 1);

    /* A whole frame takes no more than its leaf. */
    struct location whole = frame_at(a, 5, 0, 32);
    map_set(map, 32, 32, &whole);
    uint64_t packed = map_memory_bytes(map);
    assert_at(map, 0, 1000, HOLE, 32);
    assert_at(map, 32, 1000, frame_at(a, 5, 0, 32), 32);
    assert_at(map, 40, 1000, frame_at(a, 5, 8, 32), 24);
    assert_at(map, 40, 3, frame_at(a, 5, 8, 32), 3);
    assert_at(map, 64, 936, HOLE, 936);
    assert_int_equal(map_mapped_pages(map), 32);
    assert_int_equal(object_table_row(objects, a)->live, 32);

    /* One page of another frame splits it; setting it back joins it. */
    struct location one = frame_at(b, 77, 2, 3);
    map_set(map, 40, 1, &one);
    assert_true(map_memory_bytes(map) > packed);
    assert_at(map, 32, 32, frame_at(a, 5, 0, 32), 8);
    assert_at(map, 40, 32, frame_at(b, 77, 2, 3), 1);
    assert_at(map, 41, 32, frame_at(a, 5, 9, 32), 23);
    assert_int_equal(object_table_row(objects, a)->live, 31);
    struct location back = frame_at(a, 5, 8, 32);
    map_set(map, 40, 1, &back);
    assert_int_equal(map_memory_bytes(map), packed);
    assert_at(map, 32, 32, frame_at(a, 5, 0, 32), 32);
    assert_true(object_table_row(objects, b)->died != OBJECT_ALIVE);

    /* The last page of the disk, and of a frame that fills no block. */
    struct location last = frame_at(c, LOCATION_START_PAST - 1, 7, 8);
    map_set(map, 999, 1, &last);
    assert_at(map, 999, 1, last, 1);
    assert_at(map, 64, 936, HOLE, 935);

    /* Replaced by itself it does not die. */
    map_set(map, 999, 1, &last);
    assert_true(object_table_row(objects, c)->died == OBJECT_ALIVE);

    map_clear(map, 0, 1000);
    assert_int_equal(map_mapped_pages(map), 0);
    assert_int_equal(map_memory_bytes(map), empty);
    assert_int_equal(object_table_live_pages(objects), 0);
    map_clear(map, 0, 1000);
    map_clear(map, 1000, 0);
    map_free(map);
    map_free(NULL);
    object_table_free(objects);
}

static void test_extremes(void **state)
{
    struct object_table *objects = object_table_new();
    struct map *map = map_new(objects, HUGE_PAGES);
    uint64_t empty = map_memory_bytes(map);
    assert_at(map, 0, HUGE_PAGES, HOLE, HUGE_PAGES);
    uint32_t a = add_object(objects, 1);
    struct location first = frame_at(a, 0, 0, 1), last = frame_at(a, 1000, 31, 32);
    last.units = LOCATION_UNITS_PAST - 1;
    map_set(map, HUGE_PAGES - 1, 1, &last);
    assert_at(map, 0, HUGE_PAGES, HOLE, HUGE_PAGES - 1);
    assert_at(map, HUGE_PAGES - 1, 1, last, 1);
    map_set(map, HUGE_PAGES / 2 + 17, 1, &first);
    assert_at(map, 5, HUGE_PAGES - 5, HOLE, HUGE_PAGES / 2 + 12);
    assert_at(map, HUGE_PAGES / 2 + 18, HUGE_PAGES / 2 - 18, HOLE, HUGE_PAGES / 2 - 19);

    /* A table with 32 runs: the worst block. */
    for (uint32_t i = 0; i < 32; i++) {
        struct location scattered = frame_at(a, 64 * (32 - i), i % 2, 2);
        map_set(map, 4096 + i, 1, &scattered);
    }
    for (uint32_t i = 0; i < 32; i++)
        assert_at(map, 4096 + i, 64, frame_at(a, 64 * (32 - i), i % 2, 2), 1);
    assert_int_equal(map_mapped_pages(map), 34);
    map_clear(map, 0, HUGE_PAGES);
    assert_int_equal(map_memory_bytes(map), empty);
    map_free(map);

    assert_true(location_valid(&last, 1));
    assert_false(location_valid(&last, 2));
    last.units = LOCATION_UNITS_PAST;
    assert_false(location_valid(&last, 1));
    first.start = LOCATION_START_PAST;
    assert_false(location_valid(&first, 1));
    first = frame_at(a, 0, 0, 33);
    assert_false(location_valid(&first, 1));
    first = frame_at(OBJECT_NONE, 0, 0, 1);
    assert_false(location_valid(&first, 1));
    object_table_free(objects);
}

/* ---- against a model: an array of locations ---- */

enum { OBJECTS = 20 };

struct model {
    struct object_table *objects;
    uint32_t indices[OBJECTS];
    uint64_t ids[OBJECTS], next_id;
    struct map *map;
    uint64_t base; /* of the disk, in pages, where the model's window begins */
    uint64_t pages;
    struct location *locations; /* object: 0 to OBJECTS - 1, or OBJECT_NONE */
    uint32_t live[OBJECTS];
};

/* Objects that died are gone: their places get new ones. */
static void renew_objects(struct model *model)
{
    object_table_forget_dead(model->objects);
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (model->live[i] == 0)
            model->indices[i] = add_object(model->objects, model->ids[i] = model->next_id++);
}

static void model_set(struct model *model)
{
    uint64_t page = random_below(model->pages);
    uint32_t room = BLOCK_PAGES - (uint32_t)(page % BLOCK_PAGES);
    if (room > model->pages - page)
        room = (uint32_t)(model->pages - page);
    uint32_t count = 1 + (uint32_t)random_below(random_below(2) == 0 ? room : 1);
    uint32_t frame_pages = count + (uint32_t)random_below(BLOCK_PAGES - count + 1);
    uint32_t frame_page = (uint32_t)random_below(frame_pages - count + 1);
    if (random_below(3) == 0) {
        page -= page % BLOCK_PAGES;
        count = frame_pages = BLOCK_PAGES;
        frame_page = 0;
        if (count > model->pages - page)
            return;
    } else if (random_below(3) == 0) {
        /* The place of the page in a frame of its whole block: such runs join. */
        frame_pages = BLOCK_PAGES;
        frame_page = (uint32_t)(page % BLOCK_PAGES);
    }
    uint32_t which = (uint32_t)random_below(OBJECTS);
    uint32_t start = (uint32_t)random_below(random_below(2) == 0 ? 2 : LOCATION_START_PAST);
    struct location location = frame_at(model->indices[which], start, frame_page, frame_pages);
    map_set(model->map, model->base + page, count, &location);
    for (uint32_t i = 0; i < count; i++) {
        struct location *place = &model->locations[page + i];
        if (place->object != OBJECT_NONE)
            model->live[place->object]--;
        *place = frame_at(which, start, frame_page + i, frame_pages);
        model->live[which]++;
    }
}

static void model_clear(struct model *model)
{
    uint64_t page = random_below(model->pages);
    uint64_t most = random_below(8) == 0 ? model->pages - page : random_below(200);
    uint64_t count = random_below((most < model->pages - page ? most : model->pages - page) + 1);
    map_clear(model->map, model->base + page, count);
    for (uint64_t i = page; i < page + count; i++) {
        if (model->locations[i].object != OBJECT_NONE)
            model->live[model->locations[i].object]--;
        model->locations[i] = HOLE;
    }
}

static struct location model_at(const struct model *model, uint64_t page)
{
    struct location location = model->locations[page];
    if (location.object != OBJECT_NONE)
        location.object = model->indices[location.object];
    return location;
}

/* Whether the model's next page goes on where this one's frame is. */
static bool model_joins(const struct model *model, uint64_t page)
{
    struct location left = model_at(model, page), right = model_at(model, page + 1);
    if (left.object != OBJECT_NONE) {
        if ((page + 1) % BLOCK_PAGES == 0)
            return false;
        left.frame_page++;
    }
    return same(&left, &right);
}

static void check_lookup(const struct model *model, uint64_t page)
{
    uint64_t limit = 1 + random_below(model->pages - page), run = 1;
    while (run < limit && model_joins(model, page + run - 1))
        run++;
    assert_at(model->map, model->base + page, limit, model_at(model, page), run);
}

struct walk {
    const struct model *model;
    uint64_t next, mapped;
};

static void walk_run(void *arg, uint64_t page, uint32_t count, const struct location *first)
{
    struct walk *walk = arg;
    assert_true(page >= walk->next && count > 0);
    for (uint32_t i = 0; i < count; i++) {
        struct location expected = model_at(walk->model, page - walk->model->base + i), got = *first;
        got.frame_page = (uint8_t)(got.frame_page + i);
        assert_true(same(&expected, &got));
    }
    walk->next = page + count;
    walk->mapped += count;
}

static void check_all(const struct model *model)
{
    uint64_t mapped = 0;
    for (uint32_t i = 0; i < OBJECTS; i++) {
        mapped += model->live[i];
        const struct object *row = object_table_row(model->objects, model->indices[i]);
        assert_int_equal(row->id, model->ids[i]);
        assert_int_equal(row->live, model->live[i]);
    }
    assert_int_equal(map_mapped_pages(model->map), mapped);
    assert_int_equal(object_table_live_pages(model->objects), mapped);
    struct walk walk = { .model = model };
    map_walk(model->map, walk_run, &walk);
    assert_int_equal(walk.mapped, mapped);
}

static void against_model(uint64_t disk_pages, uint64_t base, uint64_t pages, int rounds)
{
    struct model model = { .objects = object_table_new(), .base = base, .pages = pages, .next_id = 1 };
    model.map = map_new(model.objects, disk_pages);
    uint64_t empty = map_memory_bytes(model.map);
    model.locations = calloc(pages, sizeof *model.locations);
    for (uint64_t i = 0; i < pages; i++)
        model.locations[i] = HOLE;
    for (int round = 0; round < rounds; round++) {
        renew_objects(&model);
        if (random_below(20) == 0)
            model_clear(&model);
        else
            model_set(&model);
        check_lookup(&model, random_below(pages));
        if (round % (rounds / 20) == 0)
            check_all(&model);
    }
    check_all(&model);
    map_clear(model.map, 0, disk_pages);
    assert_int_equal(map_mapped_pages(model.map), 0);
    assert_int_equal(map_memory_bytes(model.map), empty);
    assert_int_equal(object_table_live_pages(model.objects), 0);
    object_table_forget_dead(model.objects);
    assert_int_equal(object_table_count(model.objects), 0);
    map_free(model.map);
    object_table_free(model.objects);
    free(model.locations);
}

static void test_tiny(void **state)
{
    against_model(45, 0, 45, 40000);
}

static void test_small(void **state)
{
    against_model(5000, 0, 5000, 60000);
}

/* The window lies across the border of two mids. */
static void test_huge(void **state)
{
    uint64_t mid = 1024 * 16 * 32;
    against_model(HUGE_PAGES, 20000 * mid - 2112, 4200, 40000);
}

static void test_whole_mids_go(void **state)
{
    struct object_table *objects = object_table_new();
    struct map *map = map_new(objects, HUGE_PAGES);
    uint64_t empty = map_memory_bytes(map);
    uint32_t a = add_object(objects, 1);
    for (int i = 0; i < 20000; i++) {
        struct location location = frame_at(a, (uint32_t)random_below(1000), 0, 32);
        map_set(map, random_below(HUGE_PAGES / 32 / 64) * 32, 32, &location);
    }
    assert_int_equal(object_table_row(objects, a)->live, map_mapped_pages(map));
    map_clear(map, 3, HUGE_PAGES - 3);
    map_clear(map, 0, 3);
    assert_int_equal(map_memory_bytes(map), empty);
    assert_int_equal(object_table_row(objects, a)->live, 0);
    map_free(map);
    object_table_free(objects);
}

/* Freed with content in it: nothing leaks, live counts stay. */
static void test_freed_full(void **state)
{
    struct object_table *objects = object_table_new();
    struct map *map = map_new(objects, HUGE_PAGES);
    uint32_t a = add_object(objects, 1);
    struct location location = frame_at(a, 9, 0, 1);
    map_set(map, 12345678, 1, &location);
    map_set(map, 0, 1, &location);
    map_free(map);
    assert_int_equal(object_table_row(objects, a)->live, 2);
    object_table_free(objects);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_extremes), cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_small),      cmocka_unit_test(test_huge),     cmocka_unit_test(test_whole_mids_go),
        cmocka_unit_test(test_freed_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
