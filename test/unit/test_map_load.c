/* Leaves of the map that are not in memory: restored, looked up, changed, loaded, refused, evicted, doomed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/map.h"

/* The disk ends 100 pages into its fifth leaf. */
#define DISK_PAGES ((uint64_t)4 * LEAF_PAGES + 100)

enum { OLD = 10, PIECES = 20, OTHER = 30, NEW = 40 }; /* ids */

/* Leaf 1 has 35 pages of object OLD, leaf 3 has 5 of it and one of OTHER; both lie in object PIECES. */
static const struct leaf_run runs_1[] = {
    { .first = 5, .count = 3, .frame_page = 1, .frame_pages = 4, .start = 64, .units = 257, .object = OLD },
    { .first = 32, .count = 32, .frame_page = 0, .frame_pages = 32, .start = 640, .units = 2049, .object = OLD },
};
static const struct leaf_run runs_3[] = {
    { .first = 0, .count = 5, .frame_page = 0, .frame_pages = 5, .start = 4096, .units = 321, .object = OLD },
    { .first = 511, .count = 1, .frame_page = 0, .frame_pages = 1, .start = 8192, .units = 65, .object = OTHER },
};
static const struct leaf leaf_1 = { .number = 1, .runs = runs_1, .run_count = 2 };
static const struct leaf leaf_3 = { .number = 3, .runs = runs_3, .run_count = 2 };

struct disk {
    struct object_table *objects;
    struct map *map;
    uint32_t old, pieces, other, new;
    struct leaf_place place_1, place_3;
};

static uint32_t restore_row(struct object_table *objects, uint64_t id, enum object_role role, uint32_t live)
{
    struct object_row row = {
        .id = id, .role = role, .kind = OBJECT_DATA, .born = 3, .died = OBJECT_ALIVE, .live = live
    };
    uint32_t index;
    assert_int_equal(object_table_restore(objects, &row, true, &index), 0);
    return index;
}

static void disk_make(struct disk *disk)
{
    disk->objects = object_table_new();
    disk->map = map_new(disk->objects, DISK_PAGES);
    object_table_set_seq(disk->objects, 5);
    disk->old = restore_row(disk->objects, OLD, ROLE_PAGES, 40);
    disk->pieces = restore_row(disk->objects, PIECES, ROLE_PIECES, 2);
    disk->other = restore_row(disk->objects, OTHER, ROLE_PAGES, 1);
    disk->place_1 = (struct leaf_place){ .object = disk->pieces, .start = 7, .units = 3 };
    disk->place_3 = (struct leaf_place){ .object = disk->pieces, .start = 10, .units = PIECE_UNITS_MAX };
    struct leaf_place slots[MID_LEAVES];
    for (uint32_t i = 0; i < MID_LEAVES; i++)
        slots[i].object = OBJECT_NONE;
    slots[1] = disk->place_1;
    slots[3] = disk->place_3;
    struct error error;
    assert_int_equal(map_restore_mid(disk->map, 0, slots, &error), 0);
    map_restore_mapped_pages(disk->map, 41);
    struct object new = { .id = NEW, .role = ROLE_PAGES, .kind = OBJECT_LOG, .seq = 6, .born = 6 };
    object_table_set_seq(disk->objects, 6);
    assert_int_equal(object_table_add(disk->objects, &new, &disk->new), 0);
}

static void give_stored(void *arg, const struct leaf_place *place, uint64_t number, struct leaf *ret_leaf)
{
    *ret_leaf = number == 1 ? leaf_1 : leaf_3;
    assert_int_equal(place->start, number == 1 ? 7 : 10);
}

static void audit(const struct disk *disk)
{
    map_audit(disk->map, &(struct map_audit){ .stored = give_stored, .pieces_too = true });
}

static void disk_free(struct disk *disk)
{
    audit(disk);
    map_free(disk->map);
    object_table_free(disk->objects);
}

static uint32_t live(const struct disk *disk, uint32_t index)
{
    return object_table_row(disk->objects, index)->live;
}

static void set(struct disk *disk, uint64_t page, uint32_t count)
{
    struct location location = { .object = disk->new, .start = 128, .units = 2049, .frame_pages = 32 };
    map_set(disk->map, page, count, &location);
}

static void arrive(struct disk *disk, const struct leaf *leaf, bool wanted)
{
    struct error error;
    const struct leaf_place *place = leaf == &leaf_1 ? &disk->place_1 : &disk->place_3;
    assert_int_equal(map_leaf_arrived(disk->map, place, leaf, wanted, &error), 0);
}

static void assert_at(const struct disk *disk, uint64_t page, uint64_t limit, uint32_t object, uint64_t run)
{
    uint64_t got = 0;
    assert_int_equal(map_lookup(disk->map, page, limit, &got).object, object);
    assert_int_equal(got, run);
}

static void test_unloaded(void **state)
{
    struct disk disk;
    disk_make(&disk);
    struct leaf_place place;
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    assert_at(&disk, 0, DISK_PAGES, OBJECT_NONE, LEAF_PAGES); /* up to what is not known */
    assert_at(&disk, LEAF_PAGES, DISK_PAGES, OBJECT_UNLOADED, LEAF_PAGES);
    assert_at(&disk, LEAF_PAGES + 100, DISK_PAGES, OBJECT_UNLOADED, LEAF_PAGES - 100);
    assert_at(&disk, LEAF_PAGES + 100, 7, OBJECT_UNLOADED, 7);
    assert_false(map_leaf_missing(disk.map, 0, &place));
    assert_true(map_leaf_missing(disk.map, LEAF_PAGES + 3, &place));
    assert_memory_equal(&place, &disk.place_1, sizeof place);
    assert_true(map_leaf_missing(disk.map, 3 * LEAF_PAGES, &place));
    assert_memory_equal(&place, &disk.place_3, sizeof place);

    /* Of another place: an older one; of another number: not what lies there. */
    struct error error;
    struct leaf not_there = { .number = 2, .runs = runs_1, .run_count = 2 };
    assert_int_equal(map_leaf_arrived(disk.map, &disk.place_3, &leaf_1, true, &error), 0);
    assert_int_equal(map_leaf_arrived(disk.map, &disk.place_1, &not_there, true, &error), 0);
    not_there.number = UINT64_MAX;
    assert_int_equal(map_leaf_arrived(disk.map, &disk.place_1, &not_there, true, &error), 0);
    assert_int_equal(map_leaf_bytes(disk.map), 0);

    arrive(&disk, &leaf_1, true);
    assert_false(map_leaf_missing(disk.map, LEAF_PAGES + 3, &place));
    assert_at(&disk, LEAF_PAGES, 1000, OBJECT_NONE, 5);
    assert_at(&disk, LEAF_PAGES + 6, 1000, disk.old, 2);
    assert_at(&disk, LEAF_PAGES + 8, 1000, OBJECT_NONE, 24);
    assert_at(&disk, LEAF_PAGES + 32, 1000, disk.old, 32);
    assert_at(&disk, LEAF_PAGES + 64, DISK_PAGES, OBJECT_NONE, 2 * LEAF_PAGES - 64);
    assert_int_equal(live(&disk, disk.old), 40);
    assert_int_equal(map_mapped_pages(disk.map), 41);
    assert_int_equal(map_dirty_bytes(disk.map), 0);
    audit(&disk);

    /* Again: it is there. */
    uint64_t bytes = map_leaf_bytes(disk.map);
    arrive(&disk, &leaf_1, true);
    assert_int_equal(map_leaf_bytes(disk.map), bytes);
    assert_int_equal(map_evict(disk.map, 1), bytes);
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    assert_at(&disk, LEAF_PAGES, 1000, OBJECT_UNLOADED, LEAF_PAGES);
    assert_int_equal(map_evict(disk.map, 1), 0);
    disk_free(&disk);
}

/* Each of these changes one thing of leaf 1's first run. */
static void test_refused(void **state)
{
    static const struct {
        const char *story;
        struct leaf_run run;
    } wrong[] = {
        { "not there", { .first = 5, .count = 3, .frame_pages = 4, .units = 257, .object = 11 } },
        { "no pages of the disk", { .first = 5, .count = 3, .frame_pages = 4, .units = 257, .object = PIECES } },
        { "more pages", { .first = 5, .count = 2, .frame_pages = 4, .units = 257, .object = OTHER } },
        { "no page of a frame", { .first = 5, .count = 3, .frame_pages = 2, .units = 257, .object = OLD } },
        { "no page of a frame", { .first = 5, .count = 0, .frame_pages = 2, .units = 257, .object = OLD } },
        { "no page of a frame", { .first = 5, .count = 1, .frame_pages = 2, .units = 4096, .object = OLD } },
        { "no page of a frame", { .first = 5, .count = 1, .frame_pages = 2, .units = 0, .object = OLD } },
        { "no page of a frame",
          { .first = 5, .count = 1, .frame_pages = 2, .start = LOCATION_START_PAST, .units = 1, .object = OLD } },
        { "end of a block", { .first = 31, .count = 2, .frame_pages = 2, .units = 1, .object = OLD } },
        { "not lie behind", { .first = 33, .count = 2, .frame_pages = 2, .units = 129, .object = OLD } },
        { "wrong length", { .first = 5, .count = 1, .frame_pages = 1, .units = 64, .object = OLD } },
        { "names more pages of an object", { .first = 5, .count = 9, .frame_pages = 9, .units = 577, .object = OLD } },
        { "end of the disk", { .first = 512, .count = 1, .frame_pages = 2, .units = 1, .object = OLD } },
        { "end of the disk", { .first = 65535, .count = 1, .frame_pages = 2, .units = 1, .object = OLD } },
    };
    struct disk disk;
    disk_make(&disk);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct leaf_run runs[] = { wrong[i].run, runs_1[1] };
        struct leaf leaf = { .number = 1, .runs = runs, .run_count = 2 };
        struct error error = ERROR_NONE;
        uint64_t bytes = map_memory_bytes(disk.map);
        set(&disk, LEAF_PAGES + 7, 1); /* patched or not */
        map_clear(disk.map, LEAF_PAGES + 7, 1);
        assert_int_equal(map_leaf_arrived(disk.map, &disk.place_1, &leaf, true, &error), -EBADMSG);
        assert_non_null(strstr(error.story, wrong[i].story));
        assert_non_null(strstr(error.story, "map leaf 1"));
        assert_int_equal(live(&disk, disk.old), 40);
        assert_true(map_memory_bytes(disk.map) == bytes || i == 0);
        assert_at(&disk, LEAF_PAGES + 7, 1, OBJECT_UNLOADED, 1);
        object_table_forget_dead(disk.objects);
        struct object new = { .id = NEW + 1 + i, .role = ROLE_PAGES, .kind = OBJECT_LOG, .born = 6 };
        assert_int_equal(object_table_add(disk.objects, &new, &disk.new), 0);
    }
    struct leaf nothing = { .number = 1, .runs = runs_1, .run_count = 0 };
    struct error error;
    assert_int_equal(map_leaf_arrived(disk.map, &disk.place_1, &nothing, true, &error), -EBADMSG);
    disk_free(&disk);
}

static void test_patched(void **state)
{
    struct disk disk;
    disk_make(&disk);
    set(&disk, LEAF_PAGES + 6, 26); /* over 2 old pages, up to the block's end */
    assert_int_equal(live(&disk, disk.new), 26);
    assert_int_equal(live(&disk, disk.old), 40); /* what it replaces is not known yet */
    assert_int_equal(map_mapped_pages(disk.map), 67);
    assert_at(&disk, LEAF_PAGES + 6, 1, OBJECT_UNLOADED, 1);
    assert_true(map_dirty_bytes(disk.map) > 1000); /* as it may become */

    set(&disk, LEAF_PAGES + 10, 4); /* over its own */
    assert_int_equal(live(&disk, disk.new), 26);
    map_clear(disk.map, LEAF_PAGES + 30, 20); /* 2 of its own, 18 old ones */
    assert_int_equal(live(&disk, disk.new), 24);
    audit(&disk);
    arrive(&disk, &leaf_1, false);
    assert_int_equal(live(&disk, disk.old), 40 - 2 - 18);
    assert_int_equal(map_mapped_pages(disk.map), 41 - 2 - 18 + 24);
    assert_at(&disk, LEAF_PAGES + 5, 99, disk.old, 1);
    assert_at(&disk, LEAF_PAGES + 6, 99, disk.new, 4);
    assert_at(&disk, LEAF_PAGES + 10, 99, disk.new, 4);
    assert_at(&disk, LEAF_PAGES + 30, 99, OBJECT_NONE, 20);
    assert_at(&disk, LEAF_PAGES + 50, 99, disk.old, 14);
    assert_true(map_dirty_bytes(disk.map) > 0 && map_dirty_bytes(disk.map) == map_leaf_bytes(disk.map));
    assert_int_equal(map_evict(disk.map, 1), 0); /* it is nowhere else */

    /* A patch that leaves nothing: a hole, and the piece is given back. */
    map_clear(disk.map, 3 * LEAF_PAGES, 100);
    map_clear(disk.map, 3 * LEAF_PAGES + 100, LEAF_PAGES - 100);
    assert_int_equal(live(&disk, disk.pieces), 2);
    arrive(&disk, &leaf_3, true);
    assert_int_equal(live(&disk, disk.pieces), 1);
    assert_int_equal(object_table_row(disk.objects, disk.other)->died, 6);
    assert_at(&disk, 3 * LEAF_PAGES, DISK_PAGES, OBJECT_NONE, LEAF_PAGES + 100);
    disk_free(&disk);
}

static void test_doomed(void **state)
{
    struct disk disk;
    disk_make(&disk);
    size_t count = 77;
    assert_null(map_take_doomed(disk.map, &count));
    assert_int_equal(count, 0);
    set(&disk, 3 * LEAF_PAGES, 10);
    map_clear(disk.map, LEAF_PAGES, 3 * LEAF_PAGES); /* at once, without a look at what is in them */
    assert_at(&disk, 0, DISK_PAGES, OBJECT_NONE, DISK_PAGES);
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    assert_int_equal(live(&disk, disk.new), 0);
    assert_int_equal(live(&disk, disk.old), 40);
    assert_int_equal(live(&disk, disk.pieces), 2);
    arrive(&disk, &leaf_1, true); /* nobody waits for it */
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    audit(&disk);

    struct doomed_leaf *doomed = map_take_doomed(disk.map, &count);
    assert_int_equal(count, 2);
    assert_int_equal(doomed[0].number, 1);
    assert_int_equal(doomed[1].number, 3);
    assert_memory_equal(&doomed[1].place, &disk.place_3, sizeof disk.place_3);
    struct error error;
    struct leaf wrong = { .number = 1, .runs = runs_3, .run_count = 0 };
    assert_int_equal(map_charge_doomed(disk.map, &doomed[0], &leaf_3, &error), -EBADMSG);
    assert_int_equal(map_charge_doomed(disk.map, &doomed[0], &wrong, &error), -EBADMSG);
    assert_int_equal(live(&disk, disk.old), 40);
    assert_int_equal(map_charge_doomed(disk.map, &doomed[0], &leaf_1, &error), 0);
    assert_int_equal(live(&disk, disk.old), 5);
    assert_int_equal(live(&disk, disk.pieces), 1);
    assert_int_equal(map_charge_doomed(disk.map, &doomed[1], &leaf_3, &error), 0);
    assert_int_equal(map_mapped_pages(disk.map), 0);
    object_table_forget_dead(disk.objects);
    assert_int_equal(object_table_count(disk.objects), 0);
    assert_null(map_take_doomed(disk.map, &count));
    free(doomed);
    disk_free(&disk);
}

static void test_budget(void **state)
{
    struct disk disk;
    disk_make(&disk);
    arrive(&disk, &leaf_1, true);
    uint64_t one = map_leaf_bytes(disk.map);
    arrive(&disk, &leaf_3, true);
    uint64_t both = map_leaf_bytes(disk.map);

    /* The one that is asked for stays. */
    map_evict(disk.map, both);
    arrive(&disk, &leaf_1, false);
    arrive(&disk, &leaf_3, false);
    assert_at(&disk, LEAF_PAGES + 5, 99, disk.old, 3);
    map_set_budget(disk.map, both - 1);
    assert_at(&disk, LEAF_PAGES + 5, 99, disk.old, 3);
    assert_at(&disk, 3 * LEAF_PAGES, 99, OBJECT_UNLOADED, 99);

    /* What only came along takes no room; what is wanted does, whatever the budget, and is there for who wanted it. */
    arrive(&disk, &leaf_3, false);
    assert_int_equal(map_leaf_bytes(disk.map), one);
    map_set_budget(disk.map, 0);
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    arrive(&disk, &leaf_3, false);
    assert_int_equal(map_leaf_bytes(disk.map), 0);
    arrive(&disk, &leaf_1, true);
    arrive(&disk, &leaf_3, false);
    assert_at(&disk, LEAF_PAGES + 5, 99, disk.old, 3);
    arrive(&disk, &leaf_3, true);
    assert_at(&disk, LEAF_PAGES + 5, 99, OBJECT_UNLOADED, 99);
    assert_at(&disk, 3 * LEAF_PAGES, 99, disk.old, 5);

    /* What is dirty stays beyond the budget, and drives out what is not. */
    set(&disk, 0, 32);
    assert_at(&disk, 3 * LEAF_PAGES, 99, OBJECT_UNLOADED, 99);
    assert_at(&disk, 0, 32, disk.new, 32);
    assert_int_equal(map_dirty_bytes(disk.map), map_leaf_bytes(disk.map));

    /* Clearing what is a hole makes nothing dirty. */
    map_set_budget(disk.map, UINT64_MAX);
    arrive(&disk, &leaf_1, true);
    uint64_t dirty = map_dirty_bytes(disk.map);
    map_clear(disk.map, LEAF_PAGES + 100, 300);
    assert_int_equal(map_dirty_bytes(disk.map), dirty);
    map_clear(disk.map, LEAF_PAGES + 5, 1);
    assert_true(map_dirty_bytes(disk.map) > dirty);
    disk_free(&disk);
}

static void test_restore_refused(void **state)
{
    struct disk disk;
    disk_make(&disk);
    struct error error;
    struct leaf_place *slots = memory_array(MID_LEAVES, sizeof *slots);
    struct map *map = map_new(disk.objects, DISK_PAGES);
    static const struct {
        uint32_t slot;
        uint32_t object, start, units;
        const char *story;
    } wrong[] = {
        { 5, 0, 1, 1, "end of the disk" },
        { 0, OBJECT_NONE - 1, 1, 1, "not there" },
        { 4, 0, 1, 0, "no frame" },
        { 4, 0, 1, PIECE_UNITS_MAX + 1, "no frame" },
        { 4, 0, LOCATION_START_PAST, 1, "no frame" },
    };
    for (size_t i = 0; i <= sizeof wrong / sizeof wrong[0]; i++) {
        for (uint32_t j = 0; j < MID_LEAVES; j++)
            slots[j].object = OBJECT_NONE;
        if (i == sizeof wrong / sizeof wrong[0])
            break;
        uint32_t object = wrong[i].object == 0 ? disk.pieces : wrong[i].object;
        slots[wrong[i].slot] = (struct leaf_place){ object, wrong[i].start, wrong[i].units };
        assert_int_equal(map_restore_mid(map, 0, slots, &error), -EBADMSG);
        assert_non_null(strstr(error.story, wrong[i].story));
    }
    assert_int_equal(map_restore_mid(map, 0, slots, &error), -EBADMSG); /* empty */
    slots[0] = (struct leaf_place){ disk.old, 1, 1 };
    assert_int_equal(map_restore_mid(map, 0, slots, &error), -EBADMSG); /* no object of pieces */
    slots[0].object = disk.pieces;
    assert_int_equal(map_restore_mid(map, 1, slots, &error), -EBADMSG); /* no such mid */
    assert_int_equal(map_restore_mid(map, 0, slots, &error), 0);
    assert_int_equal(map_restore_mid(map, 0, slots, &error), -EBADMSG); /* twice */
    map_free(map);
    free(slots);
    disk_free(&disk);
}

static void count_mid(void *arg, uint64_t number, const struct leaf_place *slots)
{
    uint32_t *counts = arg;
    counts[slots == NULL ? 0 : 1]++;
}

/* Nothing has changed: nothing is to be written.  A mid that loses its last leaf is to be named no more, once. */
static void test_idle_checkpoints(void **state)
{
    struct disk disk;
    disk_make(&disk);
    set(&disk, 0, 1);
    map_clear(disk.map, 0, 1);
    object_table_forget_dead(disk.objects);
    for (int round = 0; round < 4; round++) {
        uint64_t cursor = 0;
        struct leaf leaf;
        struct leaf_place place;
        map_snapshot_begin(disk.map);
        object_table_snapshot_begin(disk.objects, 1000);
        assert_int_equal(map_snapshot_next(disk.map, &cursor, &leaf, &place), 0);
        assert_int_equal(map_snapshot_ahead(disk.map, 0, &place, 1), 0);
        uint32_t mids[2] = { 0 };
        map_snapshot_mids(disk.map, count_mid, mids);
        size_t chunks = object_table_snapshot_dirty_count(disk.objects);
        assert_int_equal(mids[0], round == 3);
        assert_int_equal(mids[1], 0);
        assert_int_equal(chunks, round == 0 || round == 3); /* at first NEW has come and gone */
        assert_int_equal(map_snapshot_mapped_pages(disk.map), round == 3 ? 0 : 41);
        if (round == 2) { /* is for the next one */
            arrive(&disk, &leaf_1, true);
            arrive(&disk, &leaf_3, true);
            object_table_set_seq(disk.objects, 9);
            map_clear(disk.map, 0, DISK_PAGES);
            assert_int_equal(map_snapshot_mapped_pages(disk.map), 41);
            assert_int_equal(live(&disk, disk.pieces), 2); /* until the end */
        }
        map_snapshot_end(disk.map);
        object_table_snapshot_end(disk.objects);
        assert_int_equal(object_table_row(disk.objects, disk.old)->live, round < 2 ? 40 : 0);
        if (round == 2)
            assert_int_equal(object_table_row(disk.objects, disk.pieces)->died, 9);
    }
    disk_free(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unloaded),         cmocka_unit_test(test_refused), cmocka_unit_test(test_patched),
        cmocka_unit_test(test_doomed),           cmocka_unit_test(test_budget),  cmocka_unit_test(test_restore_refused),
        cmocka_unit_test(test_idle_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
