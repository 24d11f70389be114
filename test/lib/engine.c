/* See engine.h. */
#include "engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/fault.h"

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

static const struct fault_settings perfect;

static void keep_event(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    struct bench *bench = container_of(sink, struct bench, events);
    buffer_printf(&bench->said, "%s: %s\n", subject, text);
}

int bench_said(const struct bench *bench, const char *words)
{
    int count = 0;
    if (bench->said.length > 0)
        for (const char *at = (const char *)bench->said.data; (at = strstr(at, words)) != NULL; at++)
            count++;
    return count;
}

static void run_body(void *arg)
{
    struct bench *bench = arg;
    bench->body(bench);
    bench->done = true;
}

void bench_run(uint64_t seed, void (*body)(struct bench *bench))
{
    struct bench bench = { .host.ops = &host_ops, .body = body };
    bench.world = world_new(seed);
    bench.events = (struct event_sink){ .raise = keep_event, .least = EVENT_INFO };
    bench.loop = loop_sim_new(bench.world, "server");
    bench.mem = mem_new();
    bench.direct = store_mem_open(bench.mem);
    for (int i = 0; i < ENGINES; i++) {
        struct engine *engine = &bench.engines[i];
        engine->bench = &bench;
        engine->fault = store_fault_new(bench.world, store_mem_open(bench.mem), &perfect);
        engine->script = store_script_new(engine->fault);
        engine->count = store_count_new(engine->script);
        engine->settings = volume_settings_default();
        engine->settings.memory_bytes = 64 * MIB;
        engine->settings.dirty_bytes = 32 * MIB;
    }
    group_init(&bench.group, bench.loop);
    group_spawn(&bench.group, "test", run_body, &bench);
    world_run(bench.world, UINT64_MAX);
    assert_true(bench.done);
    assert_int_equal(bench.group.count, 0);
    for (int i = 0; i < ENGINES; i++) {
        assert_null(bench.engines[i].volumes);
        store_close(bench.engines[i].count);
    }
    world_run(bench.world, UINT64_MAX); /* what is still on its way lands */
    store_close(bench.direct);
    mem_free(bench.mem);
    loop_free(bench.loop);
    world_free(bench.world);
    buffer_free(&bench.said);
}

void engine_start(struct engine *engine)
{
    struct bench *bench = engine->bench;
    assert_null(engine->volumes);
    engine->volumes = volumes_new(bench->loop, engine->count, &bench->host, &bench->events, &engine->settings);
}

int engine_try_open(struct engine *engine, uint64_t create_size, struct error *error)
{
    if (engine->volumes == NULL)
        engine_start(engine);
    return volumes_acquire(engine->volumes, ENGINE_VOLUME, strlen(ENGINE_VOLUME), create_size, &engine->volume, error);
}

void engine_open(struct engine *engine, uint64_t create_size)
{
    struct error error = ERROR_NONE;
    int status = engine_try_open(engine, create_size, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
}

void engine_holds_nothing(const struct engine *engine)
{
    const struct volumes *volumes = engine->volumes;
    assert_int_equal(volumes->dirty_gate.used, 0);
    assert_int_equal(volumes->reply_gate.used, 0);
    assert_int_equal(volumes->fetch_gate.used, 0);
    assert_false(gate_waited_for(&volumes->dirty_gate));
    assert_false(gate_waited_for(&volumes->reply_gate));
    assert_false(gate_waited_for(&volumes->fetch_gate));
    assert_false(page_pool_wanting(volumes->pool));
    assert_int_equal(page_pool_used(volumes->pool), cache_read_counts(volumes->cache).bytes);
}

static void end(struct engine *engine)
{
    engine_holds_nothing(engine);
    assert_int_equal(page_pool_used(engine->volumes->pool), 0);
    volumes_free(engine->volumes);
    engine->volumes = NULL;
}

static void let_go(struct engine *engine)
{
    if (engine->volume != NULL)
        volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
}

void engine_close(struct engine *engine)
{
    struct error error = ERROR_NONE;
    let_go(engine);
    int status = volumes_shutdown(engine->volumes, UINT64_MAX, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
    end(engine);
}

void engine_die(struct engine *engine)
{
    let_go(engine);
    volumes_abandon(engine->volumes);
    end(engine);
}

void engine_crash(struct engine *engine)
{
    engine_die(engine);
    for (int i = 0; i < ENGINES; i++)
        engine->bench->engines[i].settings.break_lease = true;
}

void fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    uint64_t state = seed;
    for (size_t at = 0; at < length;) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t some = (state ^ state >> 29) | UINT64_C(0x0101010101010101);
        size_t part = length - at < sizeof some ? length - at : sizeof some;
        memcpy(bytes + at, &some, part);
        at += part;
    }
}

int engine_try_put(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct volume_write write;
    if (offset % 3 == 0 && volume_write_over(engine->volume, offset, length, bytes))
        return 0;
    int status = volume_write_begin_try(engine->volume, offset, length, &write);
    if (status == -EAGAIN)
        status = volume_write_begin(engine->volume, offset, length, &write);
    if (status < 0)
        return status;
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
    status = volume_write_finish_try(&write);
    return status == -EAGAIN ? volume_write_finish(&write, &error) : status;
}

void engine_put(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    assert_int_equal(engine_try_put(engine, offset, bytes, length), 0);
}

void engine_put_page(struct engine *engine, uint64_t page, uint64_t seed)
{
    uint8_t bytes[PAGE_BYTES];
    fill(bytes, sizeof bytes, seed);
    engine_put(engine, page * PAGE_BYTES, bytes, sizeof bytes);
}

void engine_expect(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length)
{
    struct volume_data data;
    struct error error = ERROR_NONE;
    volume_data_init(&data);
    int status = volume_read_try(engine->volume, offset, length, &data);
    if (status == -EAGAIN)
        status = volume_read(engine->volume, offset, length, &data, &error);
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

void engine_expect_page(struct engine *engine, uint64_t page, uint64_t seed)
{
    uint8_t bytes[PAGE_BYTES] = { 0 };
    if (seed != 0)
        fill(bytes, sizeof bytes, seed);
    engine_expect(engine, page * PAGE_BYTES, bytes, sizeof bytes);
}

void engine_flush(struct engine *engine)
{
    struct error error = ERROR_NONE;
    int status = volume_flush(engine->volume, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
}

void engine_zero(struct engine *engine, uint64_t offset, uint64_t length)
{
    struct error error = ERROR_NONE;
    int status = volume_zero_try(engine->volume, offset, length);
    if (status == -EAGAIN)
        status = volume_zero(engine->volume, offset, length, &error);
    assert_string_equal(error.story, "");
    assert_int_equal(status, 0);
}
