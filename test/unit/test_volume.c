/* The engine on a simulated loop over the memory store: what each request does to the disk, and what it costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"

#define TIB (MIB << 20)

static struct engine *engine_of(struct bench *bench)
{
    return &bench->engines[0];
}

static uint64_t puts_so_far(const struct engine *engine)
{
    return store_count_read(engine->count).puts;
}

static void small_flush_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    engine_open(engine, 1024 * MIB);
    engine_put_page(engine, 2, 7);
    struct store_counts before = store_count_read(engine->count);
    engine_flush(engine);
    struct store_counts after = store_count_read(engine->count);
    assert_int_equal(after.puts - before.puts, 1);
    assert_true(after.bytes_put - before.bytes_put <= 5 * 1024);
    engine_flush(engine);
    assert_int_equal(puts_so_far(engine), after.puts);
    engine_expect_page(engine, 2, 7);
    engine_crash(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 2, 7);
    engine_close(engine);
}

static void test_a_small_flush_is_one_put(void **state)
{
    bench_run(1, small_flush_body);
}

static void random_pages_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    engine_open(engine, 1024 * MIB);
    for (uint64_t i = 0; i < 1000; i++)
        engine_put_page(engine, i * 7919 % 262144, i + 1);
    struct store_counts before = store_count_read(engine->count);
    engine_flush(engine);
    struct store_counts after = store_count_read(engine->count);
    assert_int_equal(after.puts - before.puts, 1);
    assert_true(after.bytes_put - before.bytes_put <= 4404019);
    engine_crash(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 1000; i++)
        engine_expect_page(engine, i * 7919 % 262144, i + 1);
    engine_close(engine);
}

static void test_a_thousand_random_pages_are_one_put(void **state)
{
    bench_run(1, random_pages_body);
}

/* More than rides inline: objects that go side by side, and one commit of them all. */
static void large_flush_body(struct bench *bench)
{
    const uint64_t pages = 1800, objects = (pages + SPREAD_PAGES - 1) / SPREAD_PAGES;
    struct engine *engine = engine_of(bench);
    engine_open(engine, 1024 * MIB);
    engine_zero(engine, 4096, 4096);
    for (uint64_t i = 0; i < pages; i++)
        engine_put_page(engine, i * 7919 % 262144, i + 1);
    struct store_counts before = store_count_read(engine->count);
    engine_flush(engine);
    struct store_counts after = store_count_read(engine->count);
    assert_int_equal(after.puts - before.puts, objects + 1);
    assert_true(after.put_bytes_max <= (SPREAD_PAGES + 64) * 4096);
    engine_crash(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < pages; i++)
        engine_expect_page(engine, i * 7919 % 262144, i + 1);
    engine_close(engine);
}

static void test_a_large_flush_is_spread(void **state)
{
    bench_run(1, large_flush_body);
}

/* Small enough that commits, evictions and waits for room happen all the time. */
#define MODEL_BYTES (3 * 1024 * 1024 + 512)
#define MODEL_STEPS 600
#define MODEL_SEEDS 6

static void reopen(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    engine_flush(engine);
    if (world_chance(bench->world, 500))
        engine_close(engine);
    else
        engine_crash(engine);
    engine_open(engine, 0);
}

static void model_step(struct bench *bench, uint64_t number, uint8_t *model, uint8_t *bytes)
{
    struct engine *engine = engine_of(bench);
    uint32_t offset = (uint32_t)world_random(bench->world, MODEL_BYTES), left = MODEL_BYTES - offset;
    uint32_t most = world_chance(bench->world, 60) || left < 20000 ? left : 20000;
    uint32_t length = 1 + (uint32_t)world_random(bench->world, most);
    uint64_t what = world_random(bench->world, 100);
    if (what < 40) {
        fill(bytes, length, number);
        engine_put(engine, offset, bytes, length);
        memcpy(model + offset, bytes, length);
    } else if (what < 60) {
        engine_zero(engine, offset, length);
        memset(model + offset, 0, length);
    } else if (what < 95) {
        engine_expect(engine, offset, model + offset, length);
    } else if (what < 99) {
        engine_flush(engine);
    } else {
        reopen(bench);
        engine_expect(engine, 0, model, MODEL_BYTES);
    }
}

static void model_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *model = calloc(1, MODEL_BYTES), *bytes = malloc(MODEL_BYTES);
    engine->settings.dirty_bytes = MIB;
    engine->settings.memory_bytes = 4 * MIB;
    engine_open(engine, MODEL_BYTES);
    for (uint64_t i = 1; i <= MODEL_STEPS; i++)
        model_step(bench, i, model, bytes);
    engine_expect(engine, 0, model, MODEL_BYTES);
    engine_close(engine);
    engine_open(engine, 0);
    engine_expect(engine, 0, model, MODEL_BYTES);
    engine_zero(engine, 0, MODEL_BYTES);
    engine_flush(engine);
    assert_int_equal(volume_read_counts(engine->volume).mapped_pages, 0);
    engine_close(engine);
    free(model);
    free(bytes);
}

static void test_random_operations_agree_with_a_model(void **state)
{
    for (uint64_t seed = 1; seed <= MODEL_SEEDS; seed++)
        bench_run(seed, model_body);
}

static void empty_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *zeroes = calloc(1, MIB);
    engine_open(engine, TIB);
    uint64_t before = puts_so_far(engine);
    for (uint64_t i = 0; i < 100; i++)
        engine_expect(engine, i * 10007 * MIB % TIB, zeroes, MIB);
    for (uint64_t at = 0; at < TIB; at += UINT64_C(1) << 32)
        engine_zero(engine, at, UINT64_C(1) << 32);
    engine_put(engine, 12345, zeroes, MIB / 2);
    engine_flush(engine);
    assert_int_equal(puts_so_far(engine), before);
    engine_close(engine);
    free(zeroes);
}

static void test_zeroes_where_zeroes_are_cost_nothing(void **state)
{
    bench_run(1, empty_body);
}

#define SEQUENTIAL_MIB 128u

static void sequential_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(MIB);
    engine->settings.memory_bytes = 2 * SEQUENTIAL_MIB * MIB;
    engine->settings.dirty_bytes = SEQUENTIAL_MIB * MIB;
    engine_open(engine, 1024 * MIB);
    uint64_t before = puts_so_far(engine);
    for (uint64_t i = 0; i < SEQUENTIAL_MIB; i++) {
        fill(bytes, MIB, i);
        engine_put(engine, i * MIB, bytes, MIB);
    }
    engine_flush(engine);
    uint64_t large = SEQUENTIAL_MIB * MIB / PAGE_BYTES / (2 * SPREAD_PAGES), small = 2 * engine->settings.uploads;
    assert_true(puts_so_far(engine) - before <= large + small + large / COMMIT_OBJECTS_GATHERED + 4);
    engine_crash(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < SEQUENTIAL_MIB; i++) {
        fill(bytes, MIB, i);
        engine_expect(engine, i * MIB, bytes, MIB);
    }
    engine_close(engine);
    free(bytes);
}

static void test_writing_in_order_makes_few_large_objects(void **state)
{
    bench_run(1, sequential_body);
}

static uint64_t pages_in_cache(const struct engine *engine)
{
    return cache_read_counts(engine->volumes->cache).bytes / PAGE_BYTES;
}

/* What was written over takes no memory once the new content is committed; what was written over in part still does. */
static void replaced_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    uint8_t *bytes = malloc(MIB);
    engine_open(engine, 64 * MIB);
    for (uint64_t round = 1; round <= 3; round++) {
        fill(bytes, MIB, round);
        engine_put(engine, 0, bytes, MIB);
        engine_put_page(engine, 1000, round);
        engine_flush(engine);
        assert_int_equal(pages_in_cache(engine), MIB / PAGE_BYTES + 1);
    }
    engine_put_page(engine, 5, 9);
    engine_flush(engine);
    assert_int_equal(pages_in_cache(engine), MIB / PAGE_BYTES + 2);
    memcpy(bytes + 5 * PAGE_BYTES, bytes + 6 * PAGE_BYTES, PAGE_BYTES); /* which is compared below */
    engine_put(engine, 5 * PAGE_BYTES, bytes + 6 * PAGE_BYTES, PAGE_BYTES);
    engine_expect(engine, 0, bytes, MIB);
    engine_flush(engine);
    assert_int_equal(pages_in_cache(engine), MIB / PAGE_BYTES + 2);
    engine_close(engine);
    free(bytes);
}

static void test_what_is_replaced_leaves_the_cache(void **state)
{
    bench_run(1, replaced_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_flush_is_one_put),
        cmocka_unit_test(test_a_thousand_random_pages_are_one_put),
        cmocka_unit_test(test_a_large_flush_is_spread),
        cmocka_unit_test(test_random_operations_agree_with_a_model),
        cmocka_unit_test(test_zeroes_where_zeroes_are_cost_nothing),
        cmocka_unit_test(test_writing_in_order_makes_few_large_objects),
        cmocka_unit_test(test_what_is_replaced_leaves_the_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
