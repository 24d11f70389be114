#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/walk_chunks.h"
#include "base/memory.h"
#include "vol/object_table.h"

static uint32_t add(struct object_table *table, uint64_t id, uint64_t born, uint64_t bytes)
{
    struct object object = {
        .id = id, .role = ROLE_PAGES, .kind = OBJECT_DATA, .epoch = 1, .n = id, .born = born, .total_bytes = bytes
    };
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
    assert_int_equal(row->live, 32);
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
    walk->live += object->live;
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
        assert_int_equal(object_table_find(table, row->id), row->index);
        assert_int_equal(object_table_row(table, row->index)->live, row->live);
        if (round % 16 != 0)
            continue;
        object_table_forget_dead(table);
        for (int i = 0; i < ROWS; i++)
            if (rows[i].present && !rows[i].alive && rows[i].holds == 0) {
                assert_int_equal(object_table_find(table, rows[i].id), OBJECT_NONE);
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
    /* Graves are kept until a checkpoint has told of them, and are all there is. */
    assert_true(object_table_memory_bytes(table) > empty_bytes + present * 64);
    object_table_snapshot_begin(table, ROUNDS + 1);
    object_table_snapshot_end(table);
    assert_true(object_table_memory_bytes(table) < empty_bytes + 65536);
    object_table_free(table);
    free(rows);
}

/* ---- ids, chunks, snapshots ---- */

static struct object_row row_of(uint64_t id, uint32_t live)
{
    return (struct object_row){ .id = id,
                                .kind = OBJECT_LOG,
                                .role = ROLE_PIECES,
                                .seq = 5,
                                .born = 5,
                                .died = OBJECT_ALIVE,
                                .total_bytes = 70,
                                .live = live };
}

static void test_ids(void **state)
{
    struct object_table *table = object_table_new();
    assert_int_equal(object_table_find(table, 1), OBJECT_NONE);
    uint32_t a = add(table, 300, 1, 10), index = 77;
    assert_int_equal(object_table_find(table, 300), a);
    assert_int_equal(object_table_find(table, 301), OBJECT_NONE);
    assert_int_equal(object_table_add(table, object_table_row(table, a), &index), -EEXIST);
    struct object_row row = row_of(300, 4);
    assert_int_equal(object_table_restore(table, &row, true, &index), -EEXIST);
    assert_int_equal(index, 77);
    row.id = 301;
    assert_int_equal(object_table_restore(table, &row, true, &index), 0);
    const struct object *restored = object_table_row(table, index);
    assert_int_equal(restored->live, 4);
    assert_int_equal(restored->role, ROLE_PIECES);
    assert_int_equal(restored->born, 5);
    assert_true(restored->died == OBJECT_ALIVE);
    assert_int_equal(object_table_live_pages(table), 0); /* pieces are no pages */
    assert_int_equal(object_table_bytes(table), 80);
    object_table_set_total_bytes(table, index, 100);
    assert_int_equal(object_table_bytes(table), 110);
    object_table_forget_dead(table); /* what was restored alive is alive */
    assert_int_equal(object_table_find(table, 301), index);
    object_table_free(table);
}

/* What a checkpoint would write, as text: a chunk's first id, and its rows with their live counts. */
struct text {
    char text[1024];
};

static void add_text(struct text *text, const char *format, unsigned long long a, unsigned long long b)
{
    size_t length = strlen(text->text);
    snprintf(text->text + length, sizeof text->text - length, format, a, b);
}

static void chunk_text(void *arg, const struct objects_frame *chunk)
{
    assert_false(chunk->graves);
    add_text(arg, "[%llu", chunk->first_id, 0);
    for (uint32_t i = 0; i < chunk->row_count; i++) {
        assert_true(chunk->rows[i].died == OBJECT_ALIVE);
        add_text(arg, " %llu:%llu", chunk->rows[i].id, chunk->rows[i].live);
    }
    add_text(arg, "]", 0, 0);
}

static void grave_text(void *arg, const struct object_row *row)
{
    assert_int_equal(row->live, 0);
    add_text(arg, "(%llu:%llu)", row->id, row->died);
}

static void assert_chunks(struct object_table *table, const char *expected)
{
    for (int i = 0; i < 2; i++) { /* as often as wanted */
        struct text text = { "" };
        walk_chunks(table, WALK_DIRTY, chunk_text, &text);
        assert_string_equal(text.text, expected);
    }
}

static void assert_all_chunks(struct object_table *table, const char *expected)
{
    struct text text = { "" };
    walk_chunks(table, WALK_ALL, chunk_text, &text);
    assert_string_equal(text.text, expected);
}

static void assert_packed(struct object_table *table, const char *expected)
{
    struct text text = { "" };
    walk_chunks(table, WALK_PACKED, chunk_text, &text);
    assert_string_equal(text.text, expected);
}

static void assert_graves(struct object_table *table, const char *expected)
{
    struct text text = { "" };
    object_table_snapshot_graves(table, grave_text, &text);
    assert_string_equal(text.text, expected);
}

/* Chunks are written when something in them has changed, and then not again. */
static void test_chunks(void **state)
{
    struct object_table *table = object_table_new();
    object_table_set_seq(table, 1);
    uint32_t c = add(table, 512, 1, 0), a = add(table, 255, 1, 0), b = add(table, 256, 1, 0), index;
    object_table_live(table, a, 1);
    object_table_live(table, b, 2);
    object_table_live(table, c, 3);
    object_table_forget_dead(table);
    object_table_snapshot_begin(table, 600);
    assert_chunks(table, "[0 255:1][256 256:2][512 512:3]");
    object_table_snapshot_end(table);

    object_table_snapshot_begin(table, 600);
    assert_chunks(table, "");
    assert_all_chunks(table, "[0 255:1][256 256:2][512 512:3]");
    assert_packed(table, "[255 255:1 256:2 512:3]");
    object_table_live(table, b, 1);       /* since begin: for the next one */
    object_table_live_both(table, c, -1); /* the snapshot's own */
    assert_chunks(table, "[512 512:2]");
    object_table_snapshot_end(table);

    /* The last row of a chunk goes: once it must be said that there is none. */
    object_table_set_seq(table, 2);
    object_table_live(table, a, -1);
    object_table_forget_dead(table);
    assert_int_equal(object_table_find(table, 255), OBJECT_NONE);
    object_table_snapshot_begin(table, 600);
    assert_chunks(table, "[0][256 256:3]");
    assert_all_chunks(table, "[256 256:3][512 512:2]");
    assert_packed(table, "[256 256:3 512:2]");
    object_table_snapshot_end(table);

    /* Younger rows are left out, and written by the next one, whether they came before begin or after. */
    struct object own = { .id = 513, .role = ROLE_PIECES, .born = 2 };
    uint32_t d = add(table, 300, 3, 0);
    object_table_live(table, d, 9);
    object_table_snapshot_begin(table, 300);
    assert_int_equal(object_table_add(table, &own, &index), 0);
    object_table_forget_dead(table); /* nothing is in it yet */
    object_table_live_both(table, index, 2);
    object_table_live_both(table, b, -1);
    assert_chunks(table, "[256 256:2]");
    assert_int_equal(object_table_snapshot_row(table, index).live, 2);
    object_table_snapshot_end(table);
    object_table_snapshot_begin(table, 600);
    assert_chunks(table, "[256 256:2 300:9][512 512:2 513:2]");
    object_table_snapshot_end(table);

    struct object_row row = row_of(1000, 4);
    assert_int_equal(object_table_restore(table, &row, true, &index), 0);
    row.id = 2000;
    assert_int_equal(object_table_restore(table, &row, false, &index), 0);
    object_table_snapshot_begin(table, 3000);
    assert_chunks(table, "[1792 2000:4]");
    object_table_free(table);
}

/* Who dies for whom, and when. */
static void test_snapshot(void **state)
{
    struct object_table *table = object_table_new();
    object_table_set_seq(table, 4);
    uint32_t rows[8];
    for (uint32_t i = 1; i < 6; i++) {
        rows[i] = add(table, i, 4, 100);
        object_table_live(table, rows[i], 2);
    }
    rows[6] = add(table, 6, 4, 100); /* its commit gives it nothing, and nobody has looked at it yet */
    rows[7] = add(table, 7, 9, 100);
    object_table_live(table, rows[1], -2);
    object_table_hold(table, rows[1]);
    object_table_snapshot_begin(table, 100);

    object_table_set_seq(table, 6);
    object_table_live(table, rows[2], -2);      /* died for the table, lives in the snapshot */
    object_table_live_both(table, rows[3], -2); /* dead for both */
    object_table_live(table, rows[4], -1);
    object_table_live_both(table, rows[4], -1); /* dead for the table, one left in the snapshot */
    object_table_live(table, rows[5], 3);
    object_table_forget_dead(table);
    assert_int_equal(object_table_row(table, rows[2])->died, 6);
    assert_int_equal(object_table_row(table, rows[4])->died, 6);
    assert_int_equal(object_table_find(table, 3), OBJECT_NONE);
    assert_int_equal(object_table_find(table, 6), OBJECT_NONE);
    object_table_set_seq(table, 8);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 5); /* 1 is held, 2 and 4 wait, 5 lives, 7 is still to come */
    assert_chunks(table, "[0 2:2 4:1 5:2]");
    assert_graves(table, "(1:4)(3:4)(6:4)");
    struct object_row row = object_table_snapshot_row(table, rows[2]);
    assert_true(row.died == OBJECT_ALIVE && row.live == 2);
    assert_int_equal(row.total_bytes, 100);
    object_table_snapshot_end(table);
    assert_int_equal(object_table_count(table), 5);
    object_table_forget_dead(table);
    assert_int_equal(object_table_count(table), 3);

    object_table_unhold(table, rows[1]);
    object_table_set_seq(table, 9);
    object_table_forget_dead(table);
    object_table_snapshot_begin(table, 100);
    assert_chunks(table, "[0 5:5]");
    assert_graves(table, "(2:6)(4:6)(7:9)");
    object_table_snapshot_end(table);
    object_table_snapshot_begin(table, 100);
    assert_graves(table, "");
    object_table_free(table); /* in the middle */
}

/* ---- snapshots against a model ---- */

enum { MODEL_IDS = 3000 };

struct snapshot_model {
    struct object_table *table;
    uint32_t index[MODEL_IDS], live[MODEL_IDS], then[MODEL_IDS]; /* by id; then: in the snapshot */
    bool born[MODEL_IDS];
    uint32_t written[MODEL_IDS]; /* live, as the last root has it */
    bool buried[MODEL_IDS];
    uint64_t next_id, own_first;
    bool snapshot;
};

static void model_chunk(void *arg, const struct objects_frame *chunk)
{
    struct snapshot_model *model = arg;
    for (uint64_t id = chunk->first_id; id < chunk->first_id + CHUNK_IDS && id < MODEL_IDS; id++)
        model->written[id] = 0;
    for (uint32_t i = 0; i < chunk->row_count; i++)
        model->written[chunk->rows[i].id] = chunk->rows[i].live;
}

/* The walks over all have what was written before and still stands. */
struct model_check {
    const struct snapshot_model *model;
    uint64_t next_id;
    bool packed, more;
};

static void check_model_chunk(void *arg, const struct objects_frame *chunk)
{
    struct model_check *check = arg;
    assert_true(check->more && chunk->row_count > 0 && chunk->first_id >= check->next_id);
    check->more = !check->packed || chunk->row_count == CHUNK_ROWS_MAX;
    for (uint32_t i = 0; i < chunk->row_count; i++) {
        for (; check->next_id < chunk->rows[i].id; check->next_id++)
            assert_int_equal(check->model->written[check->next_id], 0);
        assert_int_equal(check->model->written[check->next_id++], chunk->rows[i].live);
    }
}

static void check_model_walk(const struct snapshot_model *model, enum snapshot_walk_mode mode)
{
    struct model_check check = { .model = model, .packed = mode == WALK_PACKED, .more = true };
    walk_chunks(model->table, mode, check_model_chunk, &check);
    for (; check.next_id < MODEL_IDS; check.next_id++)
        assert_int_equal(model->written[check.next_id], 0);
}

static void model_grave(void *arg, const struct object_row *row)
{
    struct snapshot_model *model = arg;
    assert_false(model->buried[row->id]);
    model->buried[row->id] = true;
}

static void model_change(struct snapshot_model *model, uint64_t id)
{
    uint32_t *live = &model->live[id];
    if (*live == 0)
        return;
    bool both = rand() % 2 == 0 && (!model->snapshot || (model->then[id] > 0 && id < model->own_first));
    int32_t change = rand() % 3 == 0 ? -(int32_t)*live : rand() % 5 - 2;
    if (change < 0 && -change > (int32_t)*live)
        change = -(int32_t)*live;
    if (both && model->snapshot && change < 0 && -change > (int32_t)model->then[id])
        change = -(int32_t)model->then[id];
    *live += (uint32_t)change;
    if (both) {
        object_table_live_both(model->table, model->index[id], change);
        model->then[id] += model->snapshot ? (uint32_t)change : 0;
    } else {
        object_table_live(model->table, model->index[id], change);
    }
}

static void model_end(struct snapshot_model *model)
{
    walk_chunks(model->table, WALK_DIRTY, model_chunk, model);
    check_model_walk(model, WALK_ALL);
    check_model_walk(model, WALK_PACKED);
    object_table_snapshot_graves(model->table, model_grave, model);
    for (uint64_t id = 1; id < model->next_id; id++) {
        if (id >= model->own_first)
            continue;
        assert_int_equal(model->written[id], model->then[id]);
        if (model->then[id] > 0)
            assert_int_equal(object_table_snapshot_row(model->table, model->index[id]).live, model->then[id]);
        assert_false(model->buried[id] && (model->live[id] > 0 || model->then[id] > 0));
    }
    object_table_snapshot_end(model->table);
    model->snapshot = false;
}

static void test_snapshots_at_random(void **state)
{
    struct snapshot_model *model = memory_new(sizeof *model);
    model->table = object_table_new();
    model->next_id = 1;
    srand(2);
    for (uint64_t round = 1; model->next_id < MODEL_IDS; round++) {
        object_table_set_seq(model->table, round);
        if (rand() % 20 == 0) {
            uint64_t id = model->next_id;
            model->next_id += 1 + (uint64_t)(rand() % 3 == 0 ? rand() % 20 : 0);
            model->index[id] = add(model->table, id, round, 1);
            model->live[id] = 1 + (uint32_t)rand() % 9;
            model->born[id] = true;
            object_table_live(model->table, model->index[id], (int32_t)model->live[id]);
        }
        for (int i = 0; i < 4; i++)
            model_change(model, 1 + (uint64_t)rand() % model->next_id);
        object_table_forget_dead(model->table);
        if (rand() % 50 != 0)
            continue;
        if (model->snapshot) {
            model_end(model);
            continue;
        }
        memcpy(model->then, model->live, sizeof model->then);
        model->own_first = model->next_id;
        model->snapshot = true;
        object_table_snapshot_begin(model->table, model->own_first);
    }
    if (model->snapshot)
        model_end(model);
    /* With nothing going on, everybody who was born is either written or buried. */
    memcpy(model->then, model->live, sizeof model->then);
    model->own_first = model->next_id;
    object_table_snapshot_begin(model->table, model->own_first);
    model_end(model);
    for (uint64_t id = 1; id < MODEL_IDS; id++)
        assert_int_equal(model->born[id], model->written[id] > 0 || model->buried[id]);
    object_table_free(model->table);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),      cmocka_unit_test(test_held),
        cmocka_unit_test(test_born_dead), cmocka_unit_test(test_at_random),
        cmocka_unit_test(test_ids),       cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_snapshot),  cmocka_unit_test(test_snapshots_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
