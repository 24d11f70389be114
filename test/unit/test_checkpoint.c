/* Checkpoints: what they save, when they come, what opening from one costs, what commits and readers go through
 * meanwhile, and what is made of damaged ones.  That their content is right at any moment is the simulator's part. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"
#include "base/memory.h"
#include "store/fault.h"
#include "vol/check.h"
#include "vol/format/checkpoint.h"

#define TIB (UINT64_C(1) << 40)
#define DISK_BYTES (64 * MIB)
#define MID_DISK_PAGES ((uint64_t)MID_LEAVES * LEAF_PAGES)

static struct register_body read_register(struct bench *bench)
{
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
    struct error error = ERROR_NONE;
    struct register_body body;
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), key);
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &bytes, &length, NULL, &error), 0);
    assert_int_equal(register_decode(bytes, length, &body, &error), 0);
    free(bytes);
    return body;
}

static struct root newest_root(struct bench *bench)
{
    struct register_body body = read_register(bench);
    struct root root = body.newest;
    register_free(&body);
    return root;
}

static void write_register(struct bench *bench, const struct register_body *body)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    char key[KEY_MAX];
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), key);
    assert_int_equal(register_encode(body, &bytes, &error), 0);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    assert_int_equal(
        store_put(bench->direct, &(struct store_put){ .key = key, .pieces = &piece, .count = 1 }, NULL, &error), 0);
    buffer_free(&bytes);
}

static uint64_t requests(const struct engine *engine)
{
    struct store_counts counts = store_count_read(engine->count);
    return counts.gets + counts.puts + counts.lists + counts.deletes;
}

static void commit_page(struct engine *engine, uint64_t page, uint64_t seed)
{
    engine_put_page(engine, page, seed);
    engine_flush(engine);
}

static void await_checkpoints(struct engine *engine, uint64_t count)
{
    for (int i = 0; i < 1000 && volume_read_counts(engine->volume).checkpoints < count; i++)
        sleep_ns(10 * NS_PER_MS);
    assert_true(volume_read_counts(engine->volume).checkpoints >= count);
}

/* ---- at release ---- */

static void release_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 50; i++)
        commit_page(engine, i * 7, i + 1);
    uint64_t last = volume_read_counts(engine->volume).committed_seq;
    engine_close(engine);
    struct root root = newest_root(bench);
    assert_int_equal(root.seq, last);
    assert_false(root.empty);
    for (int round = 0; round < 6; round++) { /* each opening adds an entry; now and then one makes a checkpoint */
        uint64_t before = requests(engine);
        engine_open(engine, 0);
        assert_in_range(requests(engine) - before, 5, 10);
        for (uint64_t i = 0; i < 50; i++)
            engine_expect_page(engine, i * 7, i + 1);
        engine_expect_page(engine, 1, 0);
        engine_close(engine);
        root = newest_root(bench);
        assert_in_range(root.seq, last, last + 1 + (uint64_t)round);
    }
    assert_true(root.seq > last);
}

static void test_a_released_volume_opens_from_its_checkpoint(void **state)
{
    bench_run(1, release_body);
}

static void nothing_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    for (int round = 0; round < 10; round++) {
        engine_open(engine, DISK_BYTES);
        engine_expect_page(engine, 5, 0);
        engine_close(engine);
    }
    struct root root = newest_root(bench);
    assert_true(root.seq > 3 && root.empty);
    engine_open(engine, DISK_BYTES);
    commit_page(engine, 5, 5);
    engine_close(engine);
    engine_open(engine, DISK_BYTES);
    engine_expect_page(engine, 5, 5);
    engine_close(engine);
}

static void test_a_volume_that_was_never_written_has_empty_roots(void **state)
{
    bench_run(1, nothing_body);
}

/* What has died must be told, though nothing lives. */
static void trimmed_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 10; i++)
        commit_page(engine, i * 600, i + 1);
    engine_close(engine);
    engine_open(engine, 0);
    engine_zero(engine, 0, DISK_BYTES);
    engine_flush(engine);
    commit_page(engine, 3, 3);
    engine_zero(engine, 0, DISK_BYTES);
    engine_flush(engine);
    assert_int_equal(volume_read_counts(engine->volume).mapped_pages, 0);
    engine_close(engine);
    assert_false(newest_root(bench).empty);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 10; i++)
        engine_expect_page(engine, i * 600, 0);
    commit_page(engine, 77, 77);
    engine_close(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 77, 77);
    engine_close(engine);
}

static void test_a_volume_that_was_trimmed_keeps_its_graves(void **state)
{
    bench_run(1, trimmed_body);
}

/* ---- when ---- */

static void slots_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 9; i++) /* and the fence */
        commit_page(engine, i, i + 1);
    await_checkpoints(engine, 1);
    assert_int_equal(volume_read_counts(engine->volume).root_seq, 10);
    for (uint64_t i = 0; i < 9; i++)
        commit_page(engine, i, i + 100);
    sleep_ns(10 * NS_PER_S);
    assert_int_equal(volume_read_counts(engine->volume).checkpoints, 1);
    engine_crash(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 9; i++)
        engine_expect_page(engine, i, i + 100);
    await_checkpoints(engine, 1);
    engine_close(engine);
}

static void test_one_comes_after_so_many_entries(void **state)
{
    bench_run(1, slots_body);
}

static void bytes_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_bytes = MIB;
    engine_open(engine, DISK_BYTES);
    uint8_t *bytes = memory_new(MIB / 2);
    for (uint64_t i = 0; i < 2; i++) {
        fill(bytes, MIB / 2, i + 1);
        engine_put(engine, i * MIB, bytes, MIB / 2);
        engine_flush(engine);
        assert_int_equal(volume_read_counts(engine->volume).checkpoints, 0);
    }
    await_checkpoints(engine, 1);
    free(bytes);
    engine_close(engine);
}

static void test_one_comes_after_so_many_bytes(void **state)
{
    bench_run(1, bytes_body);
}

/* Commits go on while a checkpoint cannot, up to twice its distance; then they wait for it. */
struct flushing {
    struct engine *engine;
    uint64_t page, seed;
    bool done;
};

static void flush_task(void *arg)
{
    struct flushing *flushing = arg;
    commit_page(flushing->engine, flushing->page, flushing->seed);
    flushing->done = true;
}

static void lag_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, DISK_BYTES);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_PUT, .key = "/data/", .fate = SCRIPT_HANG });
    for (uint64_t i = 0; i < 19; i++) {
        commit_page(engine, i, i + 1);
        sleep_ns(NS_PER_S);
    }
    assert_int_equal(volume_read_counts(engine->volume).committed_seq, 20);
    struct flushing flushing = { .engine = engine, .page = 3, .seed = 333 };
    group_spawn(&bench->group, "flush", flush_task, &flushing);
    sleep_ns(20 * NS_PER_S);
    assert_false(flushing.done);
    assert_int_equal(volume_read_counts(engine->volume).committed_seq, 20);
    engine_expect_page(engine, 3, 333);
    store_script_clear(engine->script);
    sleep_ns(10 * NS_PER_S);
    assert_true(flushing.done);
    assert_in_range(volume_read_counts(engine->volume).root_seq, 20, 21);
    engine_close(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 3, 333);
    engine_expect_page(engine, 18, 19);
    engine_close(engine);
}

static void test_commits_wait_when_it_falls_behind(void **state)
{
    bench_run(1, lag_body);
}

/* A release that cannot have its checkpoint in time does without. */
static void hurried_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    struct error error = ERROR_NONE;
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 20; i++)
        commit_page(engine, i, i + 1);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_PUT, .key = "/data/", .fate = SCRIPT_HANG });
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    assert_int_equal(volumes_shutdown(engine->volumes, loop_now_ns(bench->loop) + 8 * NS_PER_S, &error), 0);
    volumes_free(engine->volumes);
    engine->volumes = NULL;
    store_script_clear(engine->script);
    struct register_body body = read_register(bench);
    assert_false(body.held);
    assert_int_equal(body.newest.seq, 0);
    register_free(&body);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 20; i++)
        engine_expect_page(engine, i, i + 1);
    engine_close(engine);
    assert_true(newest_root(bench).seq > 20);
}

static void test_a_release_does_not_wait_for_ever(void **state)
{
    bench_run(1, hurried_body);
}

/* ---- leaves that come and go ---- */

#define SCATTERED 3000u

static uint64_t scattered_page(uint64_t i)
{
    return (i * 2654435761u) % (8192 * MIB / PAGE_BYTES / LEAF_PAGES) * LEAF_PAGES + i % LEAF_PAGES;
}

/* A map that does not fit its budget by far, written, trimmed and read at random, through crashes. */
static void small_budget_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.map_bytes = 64 << 10;
    engine->settings.checkpoint_slots = 50;
    engine->settings.checkpoint_frame_bytes = CHECKPOINT_FRAME_LEAST;
    engine->settings.checkpoint_object_bytes = 64 << 10;
    engine_open(engine, 8192 * MIB);
    uint64_t *seeds = memory_array(SCATTERED, sizeof *seeds);
    for (uint64_t step = 0; step < 3 * SCATTERED; step++) {
        uint64_t i = world_random(bench->world, SCATTERED);
        uint64_t dice = world_random(bench->world, 100);
        if (dice < 60) {
            seeds[i] = step + 1;
            engine_put_page(engine, scattered_page(i), seeds[i]);
        } else if (dice < 70) {
            seeds[i] = 0;
            engine_zero(engine, scattered_page(i) * PAGE_BYTES, PAGE_BYTES);
        } else {
            engine_expect_page(engine, scattered_page(i), seeds[i]);
        }
        if (dice >= 97)
            engine_flush(engine);
        if (step % 2500 == 2499) {
            engine_flush(engine);
            engine_crash(engine);
            engine_open(engine, 0);
        }
        struct volume_counts counts = volume_read_counts(engine->volume);
        assert_true(counts.leaf_bytes <= (64 << 10) + counts.dirty_leaf_bytes + 8192);
    }
    engine_close(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < SCATTERED; i++)
        engine_expect_page(engine, scattered_page(i), seeds[i]);
    engine_close(engine);
    free(seeds);
}

static void test_a_map_larger_than_its_budget(void **state)
{
    bench_run(1, small_budget_body);
    bench_run(2, small_budget_body);
}

/* The budget is full of changed leaves that are not even in memory, and the store does not give them: writers wait, and
 * all goes on when it does. */
static void full_budget_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.map_bytes = 64 << 10;
    engine->settings.flush_deadline_ms = 3600 * 1000;
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < 1000; i++)
        engine_put_page(engine, scattered_page(i), i + 1);
    engine_close(engine);
    engine_open(engine, 0);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_GET, .key = "/data/", .fate = SCRIPT_HANG });
    struct flushing flushing[4];
    for (uint64_t i = 0; i < 1000; i++)
        engine_put_page(engine, scattered_page(i), i + 2);
    for (uint64_t i = 0; i < 4; i++) {
        flushing[i] = (struct flushing){ .engine = engine, .page = scattered_page(i), .seed = i + 1000 };
        group_spawn(&bench->group, "flush", flush_task, &flushing[i]);
        sleep_ns(5 * NS_PER_S);
    }
    assert_false(flushing[3].done);
    store_script_clear(engine->script);
    sleep_ns(20 * NS_PER_S);
    for (uint64_t i = 0; i < 4; i++)
        assert_true(flushing[i].done);
    engine_close(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 1000; i++)
        engine_expect_page(engine, scattered_page(i), i < 4 ? i + 1000 : i + 2);
    engine_close(engine);
}

static void test_a_budget_full_of_changed_leaves_is_no_deadlock(void **state)
{
    bench_run(1, full_budget_body);
}

struct reading {
    struct engine *engine;
    uint64_t page, seed;
    bool done;
};

static void read_task(void *arg)
{
    struct reading *reading = arg;
    engine_expect_page(reading->engine, reading->page, reading->seed);
    reading->done = true;
}

/* Those who miss leaves of one frame share one GET. */
static void shared_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < 8; i++)
        engine_put_page(engine, i * LEAF_PAGES, i + 1);
    engine_flush(engine);
    for (uint64_t i = 0; i < 8; i++)
        commit_page(engine, 1000000, i + 1);
    engine_close(engine);
    engine_open(engine, 0);
    struct root root = newest_root(bench);
    char key[KEY_MAX];
    key_data(&root.uuid, root.epoch, root.n, key);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_GET, .key = key, .fate = SCRIPT_HANG });
    map_evict(engine->volume->map, UINT64_MAX);
    struct reading readings[8];
    for (uint64_t i = 0; i < 8; i++) {
        readings[i] = (struct reading){ .engine = engine, .page = i * LEAF_PAGES, .seed = i + 1 };
        group_spawn(&bench->group, "read", read_task, &readings[i]);
    }
    sleep_ns(NS_PER_S);
    assert_in_range(store_script_hanging(engine->script), 1, 2); /* one of the background's */
    store_script_clear(engine->script);
    sleep_ns(NS_PER_S);
    for (uint64_t i = 0; i < 8; i++)
        assert_true(readings[i].done);
    engine_close(engine);
}

static void test_who_misses_the_same_frame_shares_a_request(void **state)
{
    bench_run(1, shared_body);
}

/* ---- what opening costs ---- */

/* Each checkpoint touches another mid, far apart on a large disk: their number in the root grows, and the number of
 * requests does not. */
static void spread_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_slots = 4;
    engine_open(engine, 64 * TIB);
    for (uint64_t i = 0; i < 600; i++) {
        uint64_t mid = i * 97 % 4096;
        for (uint64_t j = 0; j < 16; j++)
            engine_put_page(engine, mid * MID_DISK_PAGES + j * LEAF_PAGES * 3, i + 1);
        engine_flush(engine);
        if (i % 5 == 0)
            sleep_ns(50 * NS_PER_MS);
        if (i % 100 == 99) {
            engine_close(engine);
            uint64_t before = requests(engine);
            engine_open(engine, 0);
            assert_in_range(requests(engine) - before, 1, 40);
        }
    }
    for (uint64_t i = 0; i < 600; i += 37)
        engine_expect_page(engine, i * 97 % 4096 * MID_DISK_PAGES, i + 1);
    engine_close(engine);
}

static void test_opening_a_scattered_map_takes_few_requests(void **state)
{
    bench_run(1, spread_body);
}

/* ---- damage ---- */

struct stored {
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
};

static struct stored get_object(struct bench *bench, const struct uuid *uuid, uint64_t epoch, uint64_t n)
{
    struct stored stored;
    struct error error = ERROR_NONE;
    key_data(uuid, epoch, n, stored.key);
    assert_int_equal(
        store_get_whole(bench->direct, stored.key, STORE_OBJECT_MAX, &stored.bytes, &stored.length, NULL, &error), 0);
    return stored;
}

static void put_object(struct bench *bench, const char *key, const uint8_t *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    assert_int_equal(
        store_put(bench->direct, &(struct store_put){ .key = key, .pieces = &piece, .count = 1 }, NULL, &error), 0);
}

static void make_checkpoint(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < 40; i++)
        commit_page(engine, i * LEAF_PAGES, i + 1);
    engine_close(engine);
}

static void expect_refused(struct bench *bench, const char *word)
{
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(engine_try_open(engine, 0, &error), -EBADMSG);
        assert_non_null(strstr(error.story, word));
        assert_non_null(strstr(error.story, "checkpoint"));
    }
    engine_close(engine);
    struct register_body body = read_register(bench);
    assert_false(body.held);
    register_free(&body);
}

static void expect_opens(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 40; i++)
        engine_expect_page(engine, i * LEAF_PAGES, i + 1);
    engine_close(engine);
}

/* Frames of that kind in the object: the first, and the last. */
static size_t find_frames(const struct stored *stored, enum frame_kind kind, size_t *ret_last)
{
    struct error error = ERROR_NONE;
    size_t first = SIZE_MAX;
    for (size_t at = 0; at < stored->length;) {
        struct frame_header header;
        assert_int_equal(frame_decode_header(stored->bytes + at, &header, &error), 0);
        if (header.kind == kind) {
            first = first == SIZE_MAX ? at : first;
            *ret_last = at;
        }
        at += frame_total_bytes(header.stored_bytes);
    }
    assert_true(first != SIZE_MAX);
    return first;
}

static size_t find_frame(const struct stored *stored, enum frame_kind kind)
{
    size_t last;
    return find_frames(stored, kind, &last);
}

static size_t find_last_frame(const struct stored *stored, enum frame_kind kind)
{
    size_t last;
    find_frames(stored, kind, &last);
    return last;
}

static void damaged_body(struct bench *bench)
{
    make_checkpoint(bench);
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    static const enum frame_kind kinds[] = { FRAME_ROOT, FRAME_MIDS, FRAME_OBJECTS };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t at = find_frame(&stored, kinds[i]) + FRAME_HEADER_BYTES + 20;
        stored.bytes[at] ^= 4;
        put_object(bench, stored.key, stored.bytes, stored.length);
        expect_refused(bench, stored.key);
        stored.bytes[at] ^= 4;
    }
    put_object(bench, stored.key, stored.bytes, stored.length - 64);
    expect_refused(bench, stored.key);
    struct error error = ERROR_NONE;
    assert_int_equal(store_delete(bench->direct, stored.key, &error), 0);
    expect_refused(bench, stored.key);
    put_object(bench, stored.key, stored.bytes, stored.length);
    expect_opens(bench);
    free(stored.bytes);
}

static void test_a_damaged_checkpoint_is_named_and_refused(void **state)
{
    bench_run(1, damaged_body);
}

/* What the register says of the root, and the root does not. */
static void mismatch_body(struct bench *bench)
{
    make_checkpoint(bench);
    struct register_body body = read_register(bench);
    struct root sound = body.newest;
    for (int i = 0; i < 4; i++) {
        body.newest = sound;
        if (i == 0)
            body.newest.size += 512;
        else if (i == 1)
            body.newest.hash[5] ^= 1;
        else if (i == 2)
            body.newest.next_object_id++;
        else
            body.newest.object_id--;
        write_register(bench, &body);
        expect_refused(bench, "root");
        register_free(&body);
        body = read_register(bench);
    }
    body.newest = sound;
    write_register(bench, &body);
    register_free(&body);
    expect_opens(bench);
}

static void test_a_root_that_the_register_does_not_describe_is_refused(void **state)
{
    bench_run(1, mismatch_body);
}

/* A leaf that is damaged costs its part of the disk; the rest is served, and commits go on without checkpoints. */
static void damaged_leaf_body(struct bench *bench)
{
    make_checkpoint(bench);
    struct engine *engine = &bench->engines[1];
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    size_t at = find_frame(&stored, FRAME_LEAVES) + FRAME_HEADER_BYTES + 20;
    stored.bytes[at] ^= 4;
    put_object(bench, stored.key, stored.bytes, stored.length);
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, 0);
    struct volume_data data;
    struct error error = ERROR_NONE;
    volume_data_init(&data);
    assert_int_equal(volume_read(engine->volume, 0, PAGE_BYTES, &data, &error), -EIO);
    assert_non_null(strstr(error.story, "map"));
    assert_true(bench_said(bench, stored.key) >= 1);
    for (uint64_t i = 0; i < 40; i++)
        commit_page(engine, i, 500 + i);
    engine_expect_page(engine, 900000, 0);
    sleep_ns(200 * NS_PER_S);
    assert_int_equal(volume_read_counts(engine->volume).checkpoints, 0);
    assert_int_equal(bench_said(bench, "no checkpoint can be made"), 1);
    stored.bytes[at] ^= 4;
    put_object(bench, stored.key, stored.bytes, stored.length);
    sleep_ns(100 * NS_PER_S);
    assert_true(volume_read_counts(engine->volume).checkpoints > 0);
    for (uint64_t i = 1; i < 40; i++)
        engine_expect_page(engine, i * LEAF_PAGES, i + 1);
    volume_data_free(&data);
    engine_close(engine);
    free(stored.bytes);
}

static void test_a_damaged_leaf_costs_its_part_of_the_disk(void **state)
{
    bench_run(1, damaged_leaf_body);
}

/* ---- a checkpoint that cannot be made is in nobody's way ---- */

/* FLUSH is true and quick while the store refuses the checkpoint's objects; it fails only when commits must wait. */
static void refused_objects_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    struct error error = ERROR_NONE;
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, DISK_BYTES);
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_PUT, .key = "/data/", .fate = SCRIPT_FAIL, .code = ENOSPC });
    for (uint64_t i = 0; i < 18; i++) {
        commit_page(engine, i, i + 1);
        sleep_ns(NS_PER_S);
    }
    assert_int_equal(bench_said(bench, "does not take its checkpoint"), 1);
    int refused = 0;
    for (uint64_t i = 18; i < 24; i++) {
        engine_put_page(engine, i, i + 1);
        int status = volume_flush(engine->volume, &error);
        assert_true(status == 0 || status == -ENOSPC);
        refused += status != 0;
        sleep_ns(NS_PER_S);
    }
    assert_true(refused > 0);
    store_script_clear(engine->script);
    engine_flush(engine);
    await_checkpoints(engine, 1);
    for (uint64_t i = 0; i < 24; i++)
        engine_expect_page(engine, i, i + 1);
    engine_close(engine);
}

static void test_a_refused_checkpoint_fails_no_flush(void **state)
{
    bench_run(1, refused_objects_body);
}

/* Leaves that a checkpoint has laid out, and that have left memory since, can be read while it is stuck on another. */
static void stuck_body(struct bench *bench)
{
    enum { LEAVES = 400 };
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_frame_bytes = CHECKPOINT_FRAME_LEAST;
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < LEAVES; i++)
        for (uint64_t j = 0; j < 32; j++)
            engine_put_page(engine, i * LEAF_PAGES + j * 2, i * 100 + j + 1);
    for (int i = 0; i < 8; i++)
        commit_page(engine, 1, 5);
    engine_close(engine);
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    stored.bytes[find_last_frame(&stored, FRAME_LEAVES) + FRAME_HEADER_BYTES + 20] ^= 4;
    put_object(bench, stored.key, stored.bytes, stored.length);
    free(stored.bytes);

    engine->settings.checkpoint_slots = 10;
    engine_open(engine, 0);
    for (uint64_t i = 0; i < LEAVES; i++)
        engine_put_page(engine, i * LEAF_PAGES + 1, i + 1);
    for (int i = 0; i < 12; i++)
        commit_page(engine, 3, 5);
    sleep_ns(10 * NS_PER_S);
    assert_int_equal(bench_said(bench, "no checkpoint can be made"), 1);
    map_evict(engine->volume->map, UINT64_MAX);
    struct leaf_place place;
    assert_true(map_leaf_missing(engine->volume->map, 2 * LEAF_PAGES, &place));
    uint64_t began_ns = loop_now_ns(bench->loop);
    engine_expect_page(engine, 2 * LEAF_PAGES, 201);
    engine_expect_page(engine, 2 * LEAF_PAGES + 1, 3);
    assert_true(loop_now_ns(bench->loop) - began_ns < NS_PER_S);
    engine_close(engine);
}

static void test_a_stuck_checkpoint_keeps_nobody_from_reading(void **state)
{
    bench_run(1, stuck_body);
}

/* Objects that cannot be had for good, while all that is written can: commits go on without checkpoints. */
static void unreadable_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < 40; i++)
        commit_page(engine, i * LEAF_PAGES, i + 1);
    engine_close(engine);
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, 0);
    map_evict(engine->volume->map, UINT64_MAX);
    store_script_add(engine->script, &(struct script_rule){
                                         .operations = SCRIPT_GET, .key = "/data/", .fate = SCRIPT_FAIL, .code = EIO });
    engine_put_page(engine, 3, 33);
    for (uint64_t i = 0; i < 60; i++) {
        commit_page(engine, 100 * LEAF_PAGES + i, i + 1);
        sleep_ns(NS_PER_S);
    }
    assert_int_equal(volume_read_counts(engine->volume).checkpoints, 0);
    assert_int_equal(bench_said(bench, "no checkpoint can be made"), 1);
    for (uint64_t i = 0; i < 30; i++)
        commit_page(engine, 100 * LEAF_PAGES + i, i + 500);
    store_script_clear(engine->script);
    sleep_ns(10 * NS_PER_S);
    await_checkpoints(engine, 1);
    engine_expect_page(engine, 3, 33);
    engine_expect_page(engine, LEAF_PAGES, 2);
    engine_close(engine);
}

static void test_leaves_that_the_store_does_not_give_stop_no_commit(void **state)
{
    bench_run(1, unreadable_body);
}

/* Leaves that a checkpoint has laid out, and that have left memory since, are read while the store refuses its objects.
 */
static void full_store_body(struct bench *bench)
{
    enum { LEAVES = 400 };
    struct engine *engine = &bench->engines[0];
    struct error error = ERROR_NONE;
    engine->settings.checkpoint_frame_bytes = CHECKPOINT_FRAME_LEAST;
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < LEAVES; i++)
        for (uint64_t j = 0; j < 32; j++)
            engine_put_page(engine, i * LEAF_PAGES + j * 2, i * 100 + j + 1);
    engine_flush(engine);
    engine_close(engine);
    engine_open(engine, 0);
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_PUT, .key = "/data/", .fate = SCRIPT_FAIL, .code = ENOSPC });
    for (uint64_t i = 0; i < LEAVES; i += 8) {
        for (uint64_t j = 0; j < 8; j++)
            engine_put_page(engine, (i + j) * LEAF_PAGES + 1, 7777 + i);
        volume_flush(engine->volume, &error);
    }
    sleep_ns(10 * NS_PER_S);
    cache_shrink(engine->volumes->cache, UINT64_MAX / 2);
    map_evict(engine->volume->map, UINT64_MAX);
    struct leaf_place place;
    assert_true(map_leaf_missing(engine->volume->map, 0, &place));
    uint64_t began_ns = loop_now_ns(bench->loop);
    for (uint64_t i = 0; i < LEAVES; i += 20)
        engine_expect_page(engine, i * LEAF_PAGES, i * 100 + 1);
    engine_expect_page(engine, 1, 7777);
    assert_true(loop_now_ns(bench->loop) - began_ns < NS_PER_S);
    store_script_clear(engine->script);
    engine_flush(engine);
    await_checkpoints(engine, 1);
    cache_shrink(engine->volumes->cache, UINT64_MAX / 2);
    map_evict(engine->volume->map, UINT64_MAX);
    for (uint64_t i = 0; i < LEAVES; i += 20)
        engine_expect_page(engine, i * LEAF_PAGES, i * 100 + 1);
    engine_close(engine);
}

static void test_a_full_store_keeps_nobody_from_reading(void **state)
{
    bench_run(1, full_store_body);
}

/* Leaves full of changes, as commits would leave them. */
static void fold_changes(struct volume *volume, uint64_t dirty_bytes)
{
    static struct commit_extent extents[LEAF_PAGES / 2];
    struct error error = ERROR_NONE;
    const uint8_t hash[SHA256_BYTES] = { 1 };
    for (uint64_t leaf = 0; map_dirty_bytes(volume->map) + 6000 < dirty_bytes; leaf++) {
        for (uint32_t i = 0; i < LEAF_PAGES / 2; i++)
            extents[i] = (struct commit_extent){ .kind = EXTENT_PAGES,
                                                 .page = leaf * LEAF_PAGES + 2 * i,
                                                 .count = 1,
                                                 .start = 200 + 65 * i,
                                                 .units = 65,
                                                 .frame_pages = 1 };
        struct entry entry = { .kind = ENTRY_COMMIT,
                               .uuid = volume->body.uuid,
                               .epoch = volume->epoch,
                               .owner = volume->owner,
                               .seq = volume->committed_seq + 1,
                               .object_id = volume->next_object_id,
                               .inline_bytes = LEAF_PAGES / 2 * 65 * FRAME_UNIT,
                               .extents = extents,
                               .extent_count = LEAF_PAGES / 2 };
        assert_int_equal(fold_entry(volume, &entry, hash, &error), 0);
    }
}

/* The pool is full of changed leaves, of which no volume has enough for a checkpoint of its own. */
static void many_volumes_body(struct bench *bench)
{
    enum { VOLUMES = 40 };
    struct engine *engine = &bench->engines[0];
    struct error error = ERROR_NONE;
    struct volume *volumes[VOLUMES];
    engine->settings.memory_bytes = 8 * MIB;
    engine->settings.dirty_bytes = 4 * MIB;
    engine_start(engine);
    for (uint32_t i = 0; i < VOLUMES; i++) {
        char name[16];
        snprintf(name, sizeof name, "disk-%u", i);
        assert_int_equal(volumes_acquire(engine->volumes, name, strlen(name), 1024 * MIB, &volumes[i], &error), 0);
    }
    for (uint32_t i = 0; i < VOLUMES; i++)
        fold_changes(volumes[i], volumes[i]->map_budget / 4);
    assert_true(page_pool_charged(engine->volumes->pool) > page_pool_limit(engine->volumes->pool));
    engine->volume = volumes[VOLUMES - 1];
    struct flushing flushing = { .engine = engine, .page = 1000, .seed = 1 };
    group_spawn(&bench->group, "flush", flush_task, &flushing);
    sleep_ns(60 * NS_PER_S);
    assert_true(flushing.done);
    uint64_t checkpoints = 0;
    for (uint32_t i = 0; i < VOLUMES; i++)
        checkpoints += volume_read_counts(volumes[i]).checkpoints;
    assert_in_range(checkpoints, 1, VOLUMES - 1);
    for (uint32_t i = 0; i + 1 < VOLUMES; i++)
        volumes_release(engine->volumes, volumes[i], false);
    engine_die(engine);
}

static void test_changed_leaves_of_many_volumes(void **state)
{
    bench_run(1, many_volumes_body);
}

/* As if all but one of each 256 commits had been written over. */
static void fold_sparse_commits(struct volume *volume, uint64_t count)
{
    struct error error = ERROR_NONE;
    const uint8_t hash[SHA256_BYTES] = { 1 };
    for (uint64_t i = 0; i < count; i++) {
        struct commit_extent extent = {
            .kind = EXTENT_PAGES, .page = i, .count = 1, .start = 5, .units = 65, .frame_pages = 1
        };
        struct entry entry = { .kind = ENTRY_COMMIT,
                               .uuid = volume->body.uuid,
                               .epoch = volume->epoch,
                               .owner = volume->owner,
                               .seq = volume->committed_seq + 1,
                               .object_id = volume->next_object_id + CHUNK_IDS - 1,
                               .inline_bytes = 65 * FRAME_UNIT,
                               .extents = &extent,
                               .extent_count = 1 };
        assert_int_equal(fold_entry(volume, &entry, hash, &error), 0);
    }
}

/* What the root that is the newest says. */
static struct root_frame read_root_frame(struct bench *bench)
{
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    const uint8_t *payload = stored.bytes + (size_t)root.start * FRAME_UNIT + FRAME_HEADER_BYTES;
    struct frame_header header;
    struct error error = ERROR_NONE;
    struct root_frame frame;
    assert_int_equal(frame_decode_header(payload - FRAME_HEADER_BYTES, &header, &error), 0);
    assert_int_equal(root_frame_decode(payload, header.stored_bytes, &frame, &error), 0);
    free(stored.bytes);
    return frame;
}

/* Says anew of the frame at `at` that it is whole. */
static void reframe(struct stored *stored, const struct root *root, size_t at)
{
    struct frame_header header;
    struct error error = ERROR_NONE;
    assert_int_equal(frame_decode_header(stored->bytes + at, &header, &error), 0);
    struct frame_place place = {
        .uuid = root->uuid, .kind = OBJECT_DATA, .epoch = root->epoch, .n = root->n, .offset = at
    };
    struct iovec piece = { .iov_base = stored->bytes + at + FRAME_HEADER_BYTES, .iov_len = header.stored_bytes };
    frame_encode(&header, &place, &piece, 1, stored->bytes + at);
}

/* The frame of the 40 leaves, with something else in it. */
static void forge_leaves(struct stored *stored, const struct root *root, void (*forge)(struct leaves_frame *frame))
{
    size_t at = find_frame(stored, FRAME_LEAVES);
    uint8_t *payload = stored->bytes + at + FRAME_HEADER_BYTES;
    struct frame_header header;
    struct leaves_frame frame;
    struct buffer again = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    assert_int_equal(frame_decode_header(stored->bytes + at, &header, &error), 0);
    assert_int_equal(leaves_decode(payload, header.stored_bytes, &frame, &error), 0);
    forge(&frame);
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    for (uint32_t i = 0; i < frame.leaf_count; i++)
        assert_true(leaves_writer_add(writer, &frame.leaves[i]));
    leaves_writer_finish(writer, &again);
    assert_int_equal(again.length, header.stored_bytes);
    memcpy(payload, again.data, again.length);
    buffer_free(&again);
    leaves_writer_free(writer);
    leaves_frame_free(&frame);
    reframe(stored, root, at);
}

static void forge_length(struct leaves_frame *frame)
{
    frame->runs[0].units--;
}

static void forge_number(struct leaves_frame *frame)
{
    frame->leaves[39].number = 4000;
}

static int try_read(struct engine *engine, uint64_t page, struct error *error)
{
    struct volume_data data;
    volume_data_init(&data);
    int status = volume_read(engine->volume, page * PAGE_BYTES, PAGE_BYTES, &data, error);
    volume_data_free(&data);
    return status;
}

static void forged_length_body(struct bench *bench)
{
    make_checkpoint(bench);
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    forge_leaves(&stored, &root, forge_length);
    put_object(bench, stored.key, stored.bytes, stored.length);
    free(stored.bytes);
    engine_open(engine, 0);
    assert_int_equal(try_read(engine, 0, &error), -EIO);
    assert_true(bench_said(bench, "wrong length") >= 1);
    engine_close(engine);
}

/* The map names a frame for a leaf that is not in it: who needs it is told, and nobody asks for ever. */
static void forged_number_body(struct bench *bench)
{
    make_checkpoint(bench);
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    struct stored sound = get_object(bench, &root.uuid, root.epoch, root.n);
    forge_leaves(&stored, &root, forge_number);
    put_object(bench, stored.key, stored.bytes, stored.length);
    engine->settings.checkpoint_slots = 10;
    engine_open(engine, 0);
    assert_int_equal(try_read(engine, 39 * LEAF_PAGES, &error), -EIO);
    assert_true(bench_said(bench, "leaf 39 is not in this frame") >= 1);
    engine_expect_page(engine, 38 * LEAF_PAGES, 39);
    for (uint64_t i = 0; i < 40; i++)
        commit_page(engine, 39 * LEAF_PAGES + 1 + i, i + 1);
    uint64_t before = requests(engine);
    sleep_ns(600 * NS_PER_S);
    assert_in_range(requests(engine) - before, 0, 200);
    assert_int_equal(volume_read_counts(engine->volume).checkpoints, 0);
    assert_int_equal(bench_said(bench, "no checkpoint can be made"), 1);
    put_object(bench, sound.key, sound.bytes, sound.length);
    sleep_ns(200 * NS_PER_S);
    await_checkpoints(engine, 1);
    engine_expect_page(engine, 39 * LEAF_PAGES, 40);
    engine_expect_page(engine, 39 * LEAF_PAGES + 40, 40);
    engine_close(engine);
    free(stored.bytes);
    free(sound.bytes);
}

static void test_leaves_that_do_not_fit_are_told(void **state)
{
    bench_run(1, forged_length_body);
    bench_run(1, forged_number_body);
}

/* A chunk that has a row of the next one. */
static void overlapping_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 40; i++) {
        commit_page(engine, i, i + 1);
        engine->volume->next_object_id += i == 20 ? CHUNK_IDS : 0;
    }
    engine_close(engine);
    struct root root = newest_root(bench);
    struct stored stored = get_object(bench, &root.uuid, root.epoch, root.n);
    struct root_frame frame = read_root_frame(bench);
    assert_int_equal(frame.chunk_count, 2);
    struct frame_header header;
    struct objects_frame chunk;
    struct error error = ERROR_NONE;
    uint8_t *first = stored.bytes + (size_t)frame.chunks[0].place.start * FRAME_UNIT;
    assert_int_equal(frame_decode_header(first, &header, &error), 0);
    assert_int_equal(objects_decode(first + FRAME_HEADER_BYTES, header.stored_bytes, &chunk, &error), 0);
    uint64_t id = chunk.rows[chunk.row_count - 1].id;
    size_t at = (size_t)frame.chunks[1].place.start * FRAME_UNIT, root_at = (size_t)root.start * FRAME_UNIT;
    memcpy(stored.bytes + at + FRAME_HEADER_BYTES + 16, &id, sizeof id); /* its first id */
    reframe(&stored, &root, at);
    frame.chunks[1].first_id = id;
    struct buffer payload = BUFFER_EMPTY;
    root_frame_encode(&frame, &payload);
    memcpy(stored.bytes + root_at + FRAME_HEADER_BYTES, payload.data, payload.length);
    reframe(&stored, &root, root_at);
    put_object(bench, stored.key, stored.bytes, stored.length);
    expect_refused(bench, "has rows of another one");
    buffer_free(&payload);
    objects_frame_free(&chunk);
    root_frame_free(&frame);
    free(stored.bytes);
}

static void test_chunks_that_overlap_are_refused(void **state)
{
    bench_run(1, overlapping_body);
}

/* More chunks of neighbouring ids than a root can list: their rows are packed, and found again. */
static void sparse_body(struct bench *bench)
{
    enum { COMMITS = ROOT_CHUNKS_MAX + 1 };
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_slots = UINT64_C(1) << 40;
    engine->settings.checkpoint_bytes = UINT64_C(1) << 60;
    engine->settings.map_bytes = UINT64_C(8) << 30;
    engine_open(engine, UINT64_C(2) << 30);
    fold_sparse_commits(engine->volume, COMMITS);
    engine->volume->all->settings.checkpoint_slots = 10;
    uint64_t page = (UINT64_C(2) << 30) / PAGE_BYTES - 1;
    for (uint64_t i = 0; i < 15; i++)
        commit_page(engine, page, i + 1);
    await_checkpoints(engine, 1);
    struct root_frame frame = read_root_frame(bench);
    assert_in_range(frame.chunk_count, COMMITS / CHUNK_ROWS_MAX, COMMITS / CHUNK_ROWS_MAX + 2);
    root_frame_free(&frame);
    engine_crash(engine);
    engine_open(engine, 0);
    struct volume_counts counts = volume_read_counts(engine->volume);
    assert_int_equal(counts.mapped_pages, COMMITS + 1);
    assert_in_range(object_table_count(engine->volume->objects), COMMITS + 1, COMMITS + 100);
    engine_expect_page(engine, page, 15);
    engine_crash(engine);
}

static void test_objects_that_are_far_apart(void **state)
{
    bench_run(1, sparse_body);
}

static void print_finding(void *arg, const struct check_finding *finding)
{
    print_error("%s: %s\n", finding->key, finding->story);
}

static void no_progress(void *arg, const char *what, uint64_t done, uint64_t of)
{
}

static void expect_sound(struct bench *bench)
{
    struct check check = { .loop = bench->loop,
                           .store = bench->direct,
                           .name = ENGINE_VOLUME,
                           .name_length = strlen(ENGINE_VOLUME),
                           .found = print_finding,
                           .progress = no_progress };
    struct check_counts counts;
    struct error error = ERROR_NONE;
    assert_int_equal(volume_check(&check, &counts, &error), 0);
    assert_int_equal(counts.findings, 0);
}

static bool root_is_packed(struct bench *bench)
{
    struct root_frame frame = read_root_frame(bench);
    bool packed = false;
    for (uint32_t i = 0; i < frame.chunk_count; i++)
        packed = packed || frame.chunks[i].first_id % CHUNK_IDS != 0;
    root_frame_free(&frame);
    return packed;
}

/* To and fro between packed chunks and others, through crashes and openings. */
static void to_and_fro_body(struct bench *bench)
{
    enum { PAGES = SCATTERED, ROUNDS = 12 };
    struct engine *engine = &bench->engines[0];
    uint64_t *seeds = memory_array(PAGES, sizeof *seeds);
    uint32_t packed = 0;
    engine->settings.checkpoint_object_bytes = 16 << 10;
    engine->settings.checkpoint_slots = 1 << 20;
    engine_open(engine, 8192 * MIB);
    for (uint64_t i = 0; i < PAGES; i++) { /* so many rows that not all are written anew each time */
        seeds[i] = i + 1;
        engine->volume->next_object_id += CHUNK_IDS;
        commit_page(engine, scattered_page(i), seeds[i]);
    }
    engine->settings.checkpoint_slots = engine->volume->all->settings.checkpoint_slots = 8;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (uint64_t step = 0; step < 40; step++) {
            uint64_t i = world_random(bench->world, PAGES);
            seeds[i] = world_random(bench->world, 5) == 0 ? 0 : round * 100 + step;
            if (seeds[i] == 0)
                engine_zero(engine, scattered_page(i) * PAGE_BYTES, PAGE_BYTES);
            else
                engine_put_page(engine, scattered_page(i), seeds[i]);
            engine_flush(engine);
            engine->volume->next_object_id += world_random(bench->world, CHUNK_IDS);
        }
        await_checkpoints(engine, 1);
        if (world_random(bench->world, 3) == 0)
            engine->volume->all->settings.checkpoint_chunks = world_random(bench->world, 2) == 0 ? 0 : 1000;
        if (world_random(bench->world, 3) != 0)
            continue;
        if (world_random(bench->world, 2) == 0)
            engine_crash(engine);
        else
            engine_close(engine);
        packed += root_is_packed(bench);
        expect_sound(bench);
        engine->settings.checkpoint_chunks = world_random(bench->world, 2) == 0 ? 3 : ROOT_CHUNKS_MAX;
        engine_open(engine, 0);
        for (uint64_t i = round % 16; i < PAGES; i += 16)
            engine_expect_page(engine, scattered_page(i), seeds[i]);
    }
    engine_close(engine);
    assert_in_range(packed, 1, ROUNDS);
    free(seeds);
}

static void test_chunks_are_packed_when_there_are_too_many(void **state)
{
    bench_run(1, to_and_fro_body);
    bench_run(2, to_and_fro_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_released_volume_opens_from_its_checkpoint),
        cmocka_unit_test(test_a_volume_that_was_never_written_has_empty_roots),
        cmocka_unit_test(test_a_volume_that_was_trimmed_keeps_its_graves),
        cmocka_unit_test(test_one_comes_after_so_many_entries),
        cmocka_unit_test(test_one_comes_after_so_many_bytes),
        cmocka_unit_test(test_commits_wait_when_it_falls_behind),
        cmocka_unit_test(test_a_release_does_not_wait_for_ever),
        cmocka_unit_test(test_a_map_larger_than_its_budget),
        cmocka_unit_test(test_a_budget_full_of_changed_leaves_is_no_deadlock),
        cmocka_unit_test(test_who_misses_the_same_frame_shares_a_request),
        cmocka_unit_test(test_opening_a_scattered_map_takes_few_requests),
        cmocka_unit_test(test_a_damaged_checkpoint_is_named_and_refused),
        cmocka_unit_test(test_a_root_that_the_register_does_not_describe_is_refused),
        cmocka_unit_test(test_a_damaged_leaf_costs_its_part_of_the_disk),
        cmocka_unit_test(test_a_refused_checkpoint_fails_no_flush),
        cmocka_unit_test(test_a_stuck_checkpoint_keeps_nobody_from_reading),
        cmocka_unit_test(test_leaves_that_the_store_does_not_give_stop_no_commit),
        cmocka_unit_test(test_a_full_store_keeps_nobody_from_reading),
        cmocka_unit_test(test_changed_leaves_of_many_volumes),
        cmocka_unit_test(test_leaves_that_do_not_fit_are_told),
        cmocka_unit_test(test_chunks_that_overlap_are_refused),
        cmocka_unit_test(test_objects_that_are_far_apart),
        cmocka_unit_test(test_chunks_are_packed_when_there_are_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
