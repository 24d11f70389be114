/* A shard's share of memory that grows and shrinks while volumes are in use. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"
#include "store/fault.h"

#define DISK_BYTES (256 * MIB)

static struct engine *engine_of(struct bench *bench)
{
    return &bench->engines[0];
}

static void count_done(void *arg)
{
    ++*(int *)arg;
}

static uint64_t in_use(const struct engine *engine)
{
    const struct page_pool *pool = engine->volumes->pool;
    return page_pool_used(pool) / PAGE_BYTES * PAGE_COST + page_pool_charged(pool);
}

static void expect_limits(const struct engine *engine, uint64_t memory, uint64_t dirty)
{
    const struct volumes *volumes = engine->volumes;
    assert_int_equal(page_pool_limit(volumes->pool), memory);
    assert_int_equal(volumes->dirty_gate.limit, dirty);
    assert_int_equal(volumes->reply_gate.limit, memory / 4);
    assert_int_equal(volumes->fetch_gate.limit, memory / 8);
}

static void pause_for(uint64_t milliseconds)
{
    assert_int_equal(sleep_ns(milliseconds * NS_PER_MS), 0);
}

static void hang(struct engine *engine, unsigned operations)
{
    store_script_add(engine->script, &(struct script_rule){ .operations = operations, .fate = SCRIPT_HANG });
}

static void rule_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    int done = 0;
    engine->settings.memory_bytes = 64 * MIB;
    engine->settings.dirty_bytes = 16 * MIB;
    engine_start(engine);
    expect_limits(engine, 64 * MIB, 16 * MIB);
    volumes_set_memory(engine->volumes, 256 * MIB, count_done, &done);
    assert_int_equal(done, 1);
    expect_limits(engine, 256 * MIB, 64 * MIB);
    volumes_set_memory(engine->volumes, 8 * MIB, count_done, &done); /* nothing is in use: at once */
    assert_int_equal(done, 2);
    expect_limits(engine, 8 * MIB, 2 * MIB);
    volumes_set_memory(engine->volumes, 64 * MIB, NULL, NULL);
    expect_limits(engine, 64 * MIB, 16 * MIB);
    engine_close(engine);

    engine->settings.dirty_bytes = 64 * MIB; /* more than half */
    engine_start(engine);
    expect_limits(engine, 64 * MIB, 32 * MIB);
    volumes_set_memory(engine->volumes, 20 * MIB, NULL, NULL);
    expect_limits(engine, 20 * MIB, 10 * MIB);
    engine_close(engine);
}

static void test_the_rule(void **state)
{
    bench_run(1, rule_body);
}

static void cache_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(24 * MIB);
    int done = 0;
    fill(bytes, 24 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    engine_put(engine, 0, bytes, 24 * MIB);
    engine_flush(engine);
    assert_true(in_use(engine) > 24 * MIB); /* what was committed is cache now */
    volumes_set_memory(engine->volumes, 6 * MIB, count_done, &done);
    pause_for(0);
    assert_int_equal(done, 1);
    assert_true(in_use(engine) <= 6 * MIB);
    assert_true(page_pool_mapped(engine->volumes->pool) <= 7 * MIB); /* the system has it back, but for a slab's rest */
    for (uint64_t at = 0; at < 24; at++)
        engine_expect(engine, at * MIB, bytes + at * MIB, MIB);
    assert_true(in_use(engine) <= 6 * MIB);
    volumes_set_memory(engine->volumes, 64 * MIB, count_done, &done);
    assert_int_equal(done, 2);
    engine_expect(engine, 0, bytes, 8 * MIB);
    engine_expect(engine, 8 * MIB, bytes + 8 * MIB, 8 * MIB);
    assert_true(in_use(engine) > 16 * MIB); /* more is kept again */
    engine_close(engine);
    free(bytes);
}

static void test_the_cache_gives_back(void **state)
{
    bench_run(1, cache_body);
}

static void dirty_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(24 * MIB);
    int done = 0;
    fill(bytes, 24 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    hang(engine, SCRIPT_PUT);
    engine_put(engine, 0, bytes, 24 * MIB);
    volumes_set_memory(engine->volumes, 8 * MIB, count_done, &done);
    struct volume_write write;
    assert_int_equal(volume_write_begin_try(engine->volume, 30 * MIB, 4096, &write), -EAGAIN); /* by the new measure */
    pause_for(3600 * 1000);
    assert_int_equal(done, 0); /* nothing that is not safe in the store is given up for it */
    engine_expect(engine, 0, bytes, 24 * MIB);
    store_script_clear(engine->script);
    pause_for(10 * 1000);
    assert_int_equal(done, 1); /* nobody flushed */
    assert_true(in_use(engine) <= 8 * MIB);
    expect_limits(engine, 8 * MIB, 4 * MIB);
    for (uint64_t at = 0; at < 24; at += 4) /* larger than its gate: alone, and still served */
        engine_expect(engine, at * MIB, bytes + at * MIB, 4 * MIB);
    engine_close(engine);
    free(bytes);
}

static void test_what_is_uncommitted_is_waited_for(void **state)
{
    bench_run(1, dirty_body);
}

static void reply_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(12 * MIB);
    int done = 0;
    struct volume_data data;
    struct error error = ERROR_NONE;
    fill(bytes, 12 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    engine_put(engine, 0, bytes, 12 * MIB);
    engine_flush(engine);
    volume_data_init(&data);
    assert_int_equal(volume_read(engine->volume, 0, 12 * MIB, &data, &error), 0); /* a client that takes its time */
    volumes_set_memory(engine->volumes, 8 * MIB, count_done, &done);
    pause_for(60 * 1000);
    assert_int_equal(done, 0);
    uint8_t *at = bytes;
    for (uint32_t i = 0; i < data.piece_count; at += data.pieces[i++].iov_len)
        assert_memory_equal(data.pieces[i].iov_base, at, data.pieces[i].iov_len);
    volume_data_free(&data);
    pause_for(1);
    assert_int_equal(done, 1);
    assert_true(in_use(engine) <= 8 * MIB);
    engine_close(engine);
    free(bytes);
}

static void test_what_replies_hold_is_waited_for(void **state)
{
    bench_run(1, reply_body);
}

/* Requests of all kinds that were let in by a large measure, while it falls to a small one: all come to their end. */
struct requester {
    struct engine *engine;
    uint64_t offset;
    uint32_t length;
    int status;
};

static void read_task(void *arg)
{
    struct requester *requester = arg;
    struct volume_data data;
    struct error error = ERROR_NONE;
    volume_data_init(&data);
    requester->status = volume_read(requester->engine->volume, requester->offset, requester->length, &data, &error);
    volume_data_free(&data);
}

static void busy_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    enum { REQUESTERS = 16 };
    struct requester requesters[REQUESTERS];
    struct group group;
    int done = 0;
    uint8_t *bytes = malloc(64 * MIB);
    fill(bytes, 64 * MIB, 1);
    group_init(&group, bench->loop);
    engine_open(engine, DISK_BYTES);
    for (uint64_t at = 0; at < 64; at += 8)
        engine_put(engine, at * MIB, bytes + at * MIB, 8 * MIB);
    engine_close(engine);
    engine_open(engine, 0);
    hang(engine, SCRIPT_GET);
    for (uint64_t i = 0; i < REQUESTERS; i++) { /* 64 MiB, of which 16 are let in */
        requesters[i] = (struct requester){ .engine = engine, .offset = i * 4 * MIB, .length = 4 * MIB, .status = 1 };
        group_spawn(&group, "read", read_task, &requesters[i]);
    }
    pause_for(10);
    volumes_set_memory(engine->volumes, 5 * MIB, count_done, &done);
    store_script_clear(engine->script);
    group_join(&group);
    for (int i = 0; i < REQUESTERS; i++)
        assert_int_equal(requesters[i].status, 0);
    pause_for(1);
    assert_int_equal(done, 1);
    assert_true(in_use(engine) <= 5 * MIB);
    engine_close(engine);
    free(bytes);
}

static void test_requests_under_way_come_to_their_end(void **state)
{
    bench_run(1, busy_body);
}

/* The longest READs and WRITEs that there are, with the least memory: nobody waits for the other for ever. */
struct longest {
    struct engine *engine;
    uint64_t offset;
    uint8_t *bytes;
    int ended;
};

#define LONGEST (32 * MIB)
#define LONGEST_EACH 4

static void read_longest(void *arg)
{
    struct longest *longest = arg;
    for (int i = 0; i < LONGEST_EACH; i++) {
        sleep_ns(world_random(longest->engine->bench->world, 30 * NS_PER_MS));
        engine_expect(longest->engine, longest->offset, longest->bytes, LONGEST);
    }
    longest->ended++;
}

static void write_longest(void *arg)
{
    struct longest *longest = arg;
    for (int i = 0; i < LONGEST_EACH; i++) {
        sleep_ns(world_random(longest->engine->bench->world, 30 * NS_PER_MS));
        engine_put(longest->engine, longest->offset, longest->bytes, LONGEST);
    }
    longest->ended++;
}

static void least_body(struct bench *bench)
{
    static const struct fault_settings slow = { .way_there = { 0, 3 * NS_PER_MS }, .way_back = { 0, 3 * NS_PER_MS } };
    struct engine *engine = engine_of(bench);
    struct group group;
    uint8_t *bytes = malloc(LONGEST);
    fill(bytes, LONGEST, 1);
    group_init(&group, bench->loop);
    engine->settings.memory_bytes = VOLUMES_MEMORY_LEAST;
    engine->settings.dirty_bytes = VOLUMES_MEMORY_LEAST / 4;
    engine_open(engine, DISK_BYTES);
    engine_put(engine, 0, bytes, LONGEST);
    engine_close(engine);
    engine_open(engine, 0);
    store_fault_change(engine->fault, &slow);
    struct longest reads = { engine, 0, bytes, 0 }, writes = { engine, 100 * MIB + 512, bytes, 0 };
    group_spawn(&group, "read", read_longest, &reads);
    group_spawn(&group, "read", read_longest, &reads);
    group_spawn(&group, "write", write_longest, &writes);
    pause_for(300 * 1000);
    assert_int_equal(reads.ended + writes.ended, 3);
    group_join(&group);
    engine_close(engine);
    free(bytes);
}

static void test_the_longest_requests_with_the_least_memory(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++)
        bench_run(seed, least_body);
}

static void random_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    const uint32_t size = 6 * MIB;
    uint8_t *model = calloc(1, size), *bytes = malloc(MIB);
    int done = 0, asked = 0;
    engine->settings.memory_bytes = 16 * MIB;
    engine->settings.dirty_bytes = 4 * MIB;
    engine_open(engine, size);
    for (uint64_t i = 0; i < 300; i++) {
        uint32_t offset = (uint32_t)world_random(bench->world, size - MIB);
        uint32_t length = 1 + (uint32_t)world_random(bench->world, MIB);
        if (world_chance(bench->world, 500)) {
            fill(bytes, length, i);
            engine_put(engine, offset, bytes, length);
            memcpy(model + offset, bytes, length);
        } else {
            engine_expect(engine, offset, model + offset, length);
        }
        if (done < asked)
            continue;
        uint64_t memory = MIB * (3 + world_random(bench->world, 20));
        volumes_set_memory(engine->volumes, memory, count_done, &done);
        asked++;
        if (world_chance(bench->world, 300)) {
            pause_for(20 * 1000);
            assert_int_equal(done, asked);
            /* What the cache charges for its frames may go over by a little until the next page is taken. */
            assert_true(page_pool_used(engine->volumes->pool) <= memory);
        }
    }
    for (uint64_t at = 0; at < size; at += MIB)
        engine_expect(engine, at, model + at, MIB);
    engine_close(engine);
    free(model);
    free(bytes);
}

static void test_the_share_changes_all_the_time(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        bench_run(seed, random_body);
}

/* The end comes while memory is still coming down: it is not waited for, and asks nothing more. */
static void ended_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(24 * MIB);
    int done = 0;
    fill(bytes, 24 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    hang(engine, SCRIPT_PUT);
    engine_put(engine, 0, bytes, 24 * MIB);
    volumes_set_memory(engine->volumes, 8 * MIB, count_done, &done);
    pause_for(1000);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    struct error error = ERROR_NONE;
    assert_int_equal(volumes_shutdown(engine->volumes, loop_now_ns(bench->loop) + NS_PER_S, &error), -EIO);
    volumes_set_memory(engine->volumes, 4 * MIB, count_done, &done);
    engine_crash(engine);
    assert_int_equal(done, 0);
    store_script_clear(engine->script);
    free(bytes);
}

static void test_the_end_comes_first(void **state)
{
    bench_run(1, ended_body);
}

/* ---- busy and idle ---- */

struct moods {
    bool busy;
    int changes;
};

static void note_mood(void *arg, bool busy)
{
    struct moods *moods = arg;
    assert_true(moods->busy != busy);
    moods->busy = busy;
    moods->changes++;
}

static void busy_idle_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct moods moods = { 0 };
    struct error error = ERROR_NONE;
    struct volume *other;
    engine_start(engine);
    volumes_on_busy(engine->volumes, note_mood, &moods);
    engine_open(engine, DISK_BYTES);
    assert_true(moods.busy);
    assert_int_equal(volumes_acquire(engine->volumes, "other", 5, MIB, &other, &error), 0);
    assert_int_equal(moods.changes, 1);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    pause_for(60 * 1000);
    assert_true(moods.busy);
    volumes_release(engine->volumes, other, false);
    assert_true(moods.busy); /* it is kept for a while */
    pause_for(60 * 1000);
    assert_int_equal(moods.changes, 2);
    assert_int_equal(volumes_acquire(engine->volumes, "none", 4, 0, &other, &error), -ENOENT);
    pause_for(1);
    assert_int_equal(moods.changes, 4);
    engine_open(engine, 0);
    assert_int_equal(moods.changes, 5);
    engine_close(engine);
    assert_int_equal(moods.changes, 6);
    assert_false(moods.busy);
}

static void test_busy_and_idle_are_told(void **state)
{
    bench_run(1, busy_idle_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rule),
        cmocka_unit_test(test_the_cache_gives_back),
        cmocka_unit_test(test_what_is_uncommitted_is_waited_for),
        cmocka_unit_test(test_what_replies_hold_is_waited_for),
        cmocka_unit_test(test_requests_under_way_come_to_their_end),
        cmocka_unit_test(test_the_longest_requests_with_the_least_memory),
        cmocka_unit_test(test_the_share_changes_all_the_time),
        cmocka_unit_test(test_the_end_comes_first),
        cmocka_unit_test(test_busy_and_idle_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
