/* The engine on a simulated loop over the memory store: what each request does to the disk, and what it costs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rt/loop_sim.h"
#include "rt/task.h"
#include "store/store.h"
#include "vol/volume.h"

#define MIB (UINT64_C(1) << 20)

static void sign(struct host *host, struct register_body *body)
{
    strcpy(body->host, "test");
    body->process = 1;
}

static bool nobody_is_dead(struct host *host, const struct register_body *body)
{
    return false;
}

static const struct host_ops host_ops = { .sign = sign, .owner_is_dead = nobody_is_dead };

struct bench {
    struct world *world;
    struct loop *loop;
    struct mem *mem;
    struct store *store;
    struct host host;
    struct volume_settings settings;
    struct volumes *volumes;
    struct volume *volume;
    void (*body)(struct bench *bench);
    bool done;
};

static void open_volume(struct bench *bench, uint64_t size)
{
    struct error error = ERROR_NONE;
    bench->volumes = volumes_new(bench->loop, bench->store, &bench->host, NULL, &bench->settings);
    int status = volumes_acquire(bench->volumes, "disk", 4, size, &bench->volume, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
}

static void close_volume(struct bench *bench)
{
    struct error error = ERROR_NONE;
    volumes_release(bench->volumes, bench->volume);
    assert_int_equal(volumes_shutdown(bench->volumes, UINT64_MAX, &error), 0);
    volumes_free(bench->volumes);
}

/* Without a word to the store: the next owner has to break the lease. */
static void crash(struct bench *bench)
{
    volumes_release(bench->volumes, bench->volume);
    volumes_abandon(bench->volumes);
    volumes_free(bench->volumes);
    bench->settings.break_lease = true;
}

static void run_body(void *arg)
{
    struct bench *bench = arg;
    bench->body(bench);
    bench->done = true;
}

static void in_a_world(void (*body)(struct bench *bench))
{
    struct bench bench = { .host.ops = &host_ops, .settings = volume_settings_default(), .body = body };
    bench.settings.memory_bytes = 64 * MIB;
    bench.settings.dirty_bytes = 32 * MIB;
    bench.world = world_new(1);
    bench.loop = loop_sim_new(bench.world, "server");
    bench.mem = mem_new();
    bench.store = store_count_new(store_mem_open(bench.mem));
    struct group group;
    group_init(&group, bench.loop);
    group_spawn(&group, "test", run_body, &bench);
    world_run(bench.world, UINT64_MAX);
    assert_true(bench.done);
    store_close(bench.store);
    mem_free(bench.mem);
    loop_free(bench.loop);
    world_free(bench.world);
}

static void fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(seed >> 56) | 1;
    }
}

static void put(struct bench *bench, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct volume_write write;
    assert_int_equal(volume_write_begin(bench->volume, offset, length, &write), 0);
    uint32_t at = 0;
    while (at < length) {
        struct iovec pieces[3];
        int count = volume_write_pieces(&write, at, pieces, 3);
        for (int i = 0; i < count; i++) {
            memcpy(pieces[i].iov_base, bytes + at, pieces[i].iov_len);
            at += (uint32_t)pieces[i].iov_len;
        }
    }
    struct error error = ERROR_NONE;
    int status = volume_write_finish_try(&write);
    if (status == -EAGAIN)
        status = volume_write_finish(&write, &error);
    assert_int_equal(status, 0);
}

static void expect(struct bench *bench, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct volume_data data;
    struct error error = ERROR_NONE;
    volume_data_init(&data);
    int status = volume_read_try(bench->volume, offset, length, &data);
    if (status == -EAGAIN)
        status = volume_read(bench->volume, offset, length, &data, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
    uint64_t at = 0;
    for (uint32_t i = 0; i < data.piece_count; i++) {
        assert_true(at + data.pieces[i].iov_len <= length);
        assert_memory_equal(data.pieces[i].iov_base, bytes + at, data.pieces[i].iov_len);
        at += data.pieces[i].iov_len;
    }
    assert_int_equal(at, length);
    volume_data_free(&data);
}

static void flush(struct bench *bench)
{
    struct error error = ERROR_NONE;
    assert_int_equal(volume_flush(bench->volume, &error), 0);
}

static void zero(struct bench *bench, uint64_t offset, uint64_t length)
{
    struct error error = ERROR_NONE;
    int status = volume_zero_try(bench->volume, offset, length);
    if (status == -EAGAIN)
        status = volume_zero(bench->volume, offset, length, &error);
    assert_int_equal(status, 0);
}

static uint64_t puts_so_far(struct bench *bench)
{
    return store_count_read(bench->store).puts;
}

static void small_flush_body(struct bench *bench)
{
    uint8_t page[4096];
    fill(page, sizeof page, 7);
    open_volume(bench, 1024 * MIB);
    put(bench, 8192, page, 4096);
    struct store_counts before = store_count_read(bench->store);
    flush(bench);
    struct store_counts after = store_count_read(bench->store);
    assert_int_equal(after.puts - before.puts, 1);
    assert_true(after.bytes_put - before.bytes_put <= 5 * 1024);
    flush(bench);
    assert_int_equal(store_count_read(bench->store).puts, after.puts);
    expect(bench, 8192, page, 4096);
    crash(bench);
    open_volume(bench, 0);
    expect(bench, 8192, page, 4096);
    close_volume(bench);
}

static void test_a_small_flush_is_one_put(void **state)
{
    in_a_world(small_flush_body);
}

static void random_pages_body(struct bench *bench)
{
    uint8_t page[4096];
    open_volume(bench, 1024 * MIB);
    for (uint64_t i = 0; i < 1000; i++) {
        fill(page, sizeof page, i + 1);
        put(bench, (i * 7919 % 262144) * 4096, page, 4096);
    }
    struct store_counts before = store_count_read(bench->store);
    flush(bench);
    struct store_counts after = store_count_read(bench->store);
    assert_int_equal(after.puts - before.puts, 1);
    assert_true(after.bytes_put - before.bytes_put <= 4404019);
    crash(bench);
    open_volume(bench, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        fill(page, sizeof page, i + 1);
        expect(bench, (i * 7919 % 262144) * 4096, page, 4096);
    }
    close_volume(bench);
}

static void test_a_thousand_random_pages_are_one_put(void **state)
{
    in_a_world(random_pages_body);
}

static void model_body(struct bench *bench)
{
    const uint32_t size = 3 * 1024 * 1024 + 512;
    uint8_t *model = calloc(1, size), *bytes = malloc(size);
    bench->settings.dirty_bytes = MIB;
    bench->settings.memory_bytes = 4 * MIB;
    open_volume(bench, size);
    for (uint32_t i = 0; i < 4000; i++) {
        uint32_t offset = (uint32_t)world_random(bench->world, size);
        uint32_t most = world_chance(bench->world, 100) ? size - offset : 20000;
        uint32_t length = 1 + (uint32_t)world_random(bench->world, most < size - offset ? most : size - offset);
        if (length > size - offset)
            length = size - offset;
        uint64_t what = world_random(bench->world, 100);
        if (what < 40) {
            fill(bytes, length, i);
            put(bench, offset, bytes, length);
            memcpy(model + offset, bytes, length);
        } else if (what < 60) {
            zero(bench, offset, length);
            memset(model + offset, 0, length);
        } else if (what < 95) {
            expect(bench, offset, model + offset, length);
        } else if (what < 99) {
            flush(bench);
        } else {
            flush(bench);
            if (world_chance(bench->world, 500))
                close_volume(bench);
            else
                crash(bench);
            open_volume(bench, 0);
            expect(bench, 0, model, size);
        }
    }
    expect(bench, 0, model, size);
    close_volume(bench);
    open_volume(bench, 0);
    expect(bench, 0, model, size);
    zero(bench, 0, size);
    flush(bench);
    assert_int_equal(volume_read_counts(bench->volume).mapped_pages, 0);
    close_volume(bench);
    free(model);
    free(bytes);
}

static void test_random_operations_agree_with_a_model(void **state)
{
    in_a_world(model_body);
}

static void empty_body(struct bench *bench)
{
    uint8_t *zeroes = calloc(1, MIB);
    open_volume(bench, MIB << 20); /* 1 TiB */
    uint64_t before = puts_so_far(bench);
    for (uint64_t i = 0; i < 100; i++)
        expect(bench, i * 10007 * MIB % (MIB << 20), zeroes, MIB);
    for (uint64_t at = 0; at < MIB << 20; at += UINT64_C(1) << 32)
        zero(bench, at, UINT64_C(1) << 32);
    put(bench, 12345, zeroes, MIB / 2);
    flush(bench);
    assert_int_equal(puts_so_far(bench), before);
    close_volume(bench);
    free(zeroes);
}

static void test_zeroes_where_zeroes_are_cost_nothing(void **state)
{
    in_a_world(empty_body);
}

static void sequential_body(struct bench *bench)
{
    uint8_t *bytes = malloc(MIB);
    bench->settings.memory_bytes = 512 * MIB;
    bench->settings.dirty_bytes = 256 * MIB;
    open_volume(bench, 1024 * MIB);
    uint64_t before = puts_so_far(bench);
    for (uint64_t i = 0; i < 256; i++) {
        fill(bytes, MIB, i);
        put(bench, i * MIB, bytes, MIB);
    }
    flush(bench);
    assert_true(puts_so_far(bench) - before <= 32 + 6);
    crash(bench);
    open_volume(bench, 0);
    for (uint64_t i = 0; i < 256; i++) {
        fill(bytes, MIB, i);
        expect(bench, i * MIB, bytes, MIB);
    }
    close_volume(bench);
    free(bytes);
}

static void test_writing_in_order_makes_few_large_objects(void **state)
{
    in_a_world(sequential_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_flush_is_one_put),
        cmocka_unit_test(test_a_thousand_random_pages_are_one_put),
        cmocka_unit_test(test_random_operations_agree_with_a_model),
        cmocka_unit_test(test_zeroes_where_zeroes_are_cost_nothing),
        cmocka_unit_test(test_writing_in_order_makes_few_large_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
