/* The register while a volume is owned: what is written when, who may write beside the owner, and how an owner learns
 * that it is none any more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"
#include "base/memory.h"
#include "store/fault.h"

#define DISK_BYTES (64 * MIB)
#define LEASE_NS (30 * NS_PER_S)
#define RENEW_MOST_NS (17 * NS_PER_S) /* by then the next renewal has come */

static const struct script_rule of_register = { .operations = SCRIPT_PUT | SCRIPT_GET, .key = "volumes/" };

/* ---- the register, looked at and written from aside ---- */

struct body_read {
    struct register_body body;
    char etag[STORE_ETAG_MAX];
};

static void register_key(char ret_key[KEY_MAX])
{
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), ret_key);
}

static struct body_read read_body(struct bench *bench)
{
    struct body_read read;
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
    struct error error = ERROR_NONE;
    register_key(key);
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &bytes, &length, read.etag, &error), 0);
    assert_int_equal(register_decode(bytes, length, &read.body, &error), 0);
    free(bytes);
    return read;
}

static uint64_t counter_now(struct bench *bench)
{
    struct body_read read = read_body(bench);
    uint64_t counter = read.body.counter;
    register_free(&read.body);
    return counter;
}

static void write_bytes(struct bench *bench, const void *bytes, size_t length)
{
    char key[KEY_MAX];
    struct error error = ERROR_NONE;
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    register_key(key);
    struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = STORE_ANY };
    assert_int_equal(store_put(bench->direct, &put, NULL, &error), 0);
}

/* With a fresh write nonce, as everybody writes. */
static void write_body(struct bench *bench, struct register_body *body)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    loop_random(bench->loop, body->write.bytes, sizeof body->write.bytes);
    assert_int_equal(register_encode(body, &bytes, &error), 0);
    write_bytes(bench, bytes.data, bytes.length);
    buffer_free(&bytes);
}

static void add_pin(struct bench *bench)
{
    struct body_read read = read_body(bench);
    struct register_body *body = &read.body;
    body->pins = memory_resize(body->pins, body->pin_count + 1, sizeof *body->pins);
    struct pin *pin = &body->pins[body->pin_count++];
    *pin = (struct pin){ .seq = 1, .base = { .size = DISK_BYTES, .next_object_id = 1, .empty = true } };
    loop_random(bench->loop, pin->id.bytes, sizeof pin->id.bytes);
    write_body(bench, body);
    register_free(body);
}

/* For rules. */
static void pin_it(void *bench)
{
    add_pin(bench);
}

static void drop_pins(struct bench *bench)
{
    struct body_read read = read_body(bench);
    for (uint32_t i = 0; i < read.body.pin_count; i++)
        free(read.body.pins[i].child_name);
    read.body.pin_count = 0;
    write_body(bench, &read.body);
    register_free(&read.body);
}

static void pin_and_unpin(void *bench)
{
    add_pin(bench);
    drop_pins(bench);
}

static void expect_pins(struct bench *bench, uint32_t count)
{
    struct body_read read = read_body(bench);
    assert_int_equal(read.body.pin_count, count);
    register_free(&read.body);
}

static uint8_t *snapshot(struct bench *bench, size_t *ret_length)
{
    char key[KEY_MAX], etag[STORE_ETAG_MAX];
    uint8_t *bytes;
    struct error error = ERROR_NONE;
    register_key(key);
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &bytes, ret_length, etag, &error), 0);
    return bytes;
}

static void expect_unchanged(struct bench *bench, const uint8_t *bytes, size_t length)
{
    size_t now_length;
    uint8_t *now = snapshot(bench, &now_length);
    assert_int_equal(now_length, length);
    assert_memory_equal(now, bytes, length);
    free(now);
}

/* ---- watching ---- */

struct watcher {
    struct volume_watch watch;
    int gone, resumed;
};

static void on_gone(struct volume_watch *watch)
{
    container_of(watch, struct watcher, watch)->gone++;
}

static void on_resumed(struct volume_watch *watch)
{
    container_of(watch, struct watcher, watch)->resumed++;
}

static void watch(struct watcher *watcher, struct engine *engine)
{
    *watcher = (struct watcher){ .watch = { .gone = on_gone, .resumed = on_resumed } };
    list_init(&watcher->watch.link);
    volume_watch(engine->volume, &watcher->watch);
}

static uint64_t requests_of(const struct engine *engine)
{
    struct store_counts counts = store_count_read(engine->count);
    return counts.gets + counts.puts + counts.deletes + counts.lists;
}

static struct engine *owner_of(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine_open(engine, DISK_BYTES);
    return engine;
}

static bool is_served(const struct engine *engine)
{
    return engine->volume->state == VOLUME_SERVING && volume_may_answer(engine->volume);
}

/* The end of a test: what the owner writes is there. */
static void expect_works(struct engine *engine)
{
    assert_true(is_served(engine));
    engine_put_page(engine, 1, 11);
    engine_flush(engine);
    engine_close(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 1, 11);
    engine_close(engine);
}

/* The same, and nobody was ever fenced. */
static void expect_sound(struct engine *engine)
{
    expect_works(engine);
    assert_int_equal(bench_said(engine->bench, "dropped"), 0);
}

/* The owner was fenced, with `words` in the story, and reopening is refused with `code`, or served with 0. */
static void expect_fenced(struct engine *engine, struct watcher *watcher, const char *words, int code)
{
    struct error error = ERROR_NONE;
    assert_int_equal(watcher->gone, 1);
    assert_int_equal(watcher->resumed, 0);
    assert_false(volume_may_answer(engine->volume));
    assert_int_equal(bench_said(engine->bench, "its clients are dropped"), 1);
    assert_true(bench_said(engine->bench, words) >= 1);
    assert_int_equal(volume_flush(engine->volume, &error), -ESHUTDOWN);
    volume_unwatch(&watcher->watch);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    assert_int_equal(engine_try_open(engine, DISK_BYTES, &error), -code);
}

/* ---- renewing ---- */

static void idle_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    uint64_t counter = counter_now(bench);
    for (int minute = 0; minute < 30; minute++) {
        uint64_t before = requests_of(engine);
        for (int i = 0; i < 60; i++) {
            assert_true(volume_may_answer(engine->volume));
            sleep_ns(NS_PER_S);
        }
        uint64_t made = requests_of(engine) - before;
        assert_true(made >= 3 && made <= 4);
    }
    uint64_t renewals = volume_read_counts(engine->volume).renewals;
    assert_int_equal(counter_now(bench), counter + renewals);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    sleep_ns(10 * NS_PER_S);
    uint64_t released = requests_of(engine);
    sleep_ns(600 * NS_PER_S);
    assert_int_equal(requests_of(engine), released);
    engine_close(engine);
}

static void test_an_idle_volume_costs_four_requests_a_minute(void **state)
{
    bench_run(1, idle_body);
}

/* Whatever else the register has, a renewal writes it back. */
static void unknown_fields_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct body_read read = read_body(bench);
    const uint8_t field[] = { 0x60, 0xea, 4, 0, 5, 0, 0, 0, 'h', 'e', 'l', 'l', 'o', 0, 0, 0 };
    read.body.unknown = memory_copy(field, sizeof field);
    read.body.unknown_length = sizeof field;
    read.body.horizon = 77;
    write_body(bench, &read.body);
    uint64_t counter = read.body.counter;
    register_free(&read.body);
    sleep_ns(RENEW_MOST_NS);
    read = read_body(bench);
    assert_true(read.body.counter > counter);
    assert_int_equal(read.body.unknown_length, sizeof field);
    assert_memory_equal(read.body.unknown, field, sizeof field);
    assert_int_equal(read.body.horizon, 77);
    register_free(&read.body);
    expect_sound(engine);
}

static void test_what_is_unknown_is_kept(void **state)
{
    bench_run(1, unknown_fields_body);
}

/* ---- others who write beside the owner ---- */

/* A pin comes at a bad moment of a renewal, or of a checkpoint. */
struct moment {
    struct script_rule rule;
    uint32_t pins; /* afterwards */
    uint32_t puts; /* of the renewal */
};
static const struct moment moments[] = {
    /* it is refused, and goes on top of the pin */
    { { .before = pin_it, .fate = SCRIPT_PASS }, 1, 2 },
    /* it has landed, its answer is lost, and a pin stands on top of it */
    { { .after = pin_it, .fate = SCRIPT_APPLIED, .code = ETIMEDOUT }, 1, 1 },
    /* it never arrived, and a pin was written meanwhile */
    { { .before = pin_it, .fate = SCRIPT_FAIL, .code = ETIMEDOUT }, 1, 2 },
    /* the same with pins that have come and gone */
    { { .before = pin_and_unpin, .fate = SCRIPT_PASS }, 0, 2 },
    { { .after = pin_and_unpin, .fate = SCRIPT_APPLIED, .code = EIO }, 0, 1 },
    /* its answer is lost, nobody else writes */
    { { .fate = SCRIPT_APPLIED, .code = ETIMEDOUT }, 0, 1 },
    /* it is refused though it was applied: sent twice on the way */
    { { .fate = SCRIPT_APPLIED, .code = ESTALE }, 0, 1 },
    /* it never arrived */
    { { .fate = SCRIPT_FAIL, .code = EIO }, 0, 2 },
};
#define MOMENTS (sizeof moments / sizeof moments[0])
static const struct moment *moment;

static struct script_rule rule_of(struct bench *bench)
{
    struct script_rule rule = moment->rule;
    rule.operations = SCRIPT_PUT;
    rule.key = "volumes/";
    rule.times = 1;
    rule.arg = bench;
    return rule;
}

static void renewal_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct script_rule rule = rule_of(bench);
    uint64_t counter = counter_now(bench), puts = store_count_read(engine->count).puts;
    store_script_add(engine->script, &rule);
    sleep_ns(RENEW_MOST_NS);
    assert_int_equal(store_script_hits(engine->script), 1);
    assert_int_equal(store_count_read(engine->count).puts - puts, moment->puts);
    assert_true(counter_now(bench) > counter);
    expect_pins(bench, moment->pins);
    sleep_ns(10 * LEASE_NS);
    expect_pins(bench, moment->pins);
    expect_sound(engine);
}

static void test_a_renewal_and_a_pin_meet(void **state)
{
    for (size_t i = 0; i < MOMENTS; i++) {
        moment = &moments[i];
        bench_run(i + 1, renewal_body);
    }
}

static struct root root_at(struct bench *bench, uint64_t seq)
{
    struct root root = { .seq = seq, .size = DISK_BYTES, .next_object_id = 100 + seq, .object_id = seq, .epoch = 1 };
    root.units = 2;
    memset(root.hash, (int)seq, sizeof root.hash);
    return root;
}

static void publish(struct engine *engine, uint64_t seq)
{
    struct error error = ERROR_NONE;
    struct root root = root_at(engine->bench, seq);
    assert_int_equal(ownership_publish(engine->volume, &root, &error), 0);
}

static void publish_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct script_rule rule = rule_of(bench);
    publish(engine, 5);
    store_script_add(engine->script, &rule);
    uint64_t before = loop_now_ns(bench->loop);
    publish(engine, 7);
    assert_true(loop_now_ns(bench->loop) - before < NS_PER_S);
    struct body_read read = read_body(bench);
    assert_int_equal(read.body.pin_count, moment->pins);
    assert_int_equal(read.body.newest.seq, 7);
    assert_int_equal(read.body.older_count, 2);
    assert_int_equal(read.body.older[0].seq, 5);
    assert_int_equal(read.body.older[1].seq, 0);
    assert_true(read.body.committed >= 7);
    assert_int_equal(engine->volume->body.newest.seq, 7);
    assert_int_equal(engine->volume->body.pin_count, moment->pins);
    register_free(&read.body);
    assert_true(is_served(engine));
    assert_int_equal(bench_said(bench, "dropped"), 0);
    engine_die(engine);
}

static void test_a_checkpoint_and_a_pin_meet(void **state)
{
    for (size_t i = 0; i < MOMENTS; i++) {
        moment = &moments[i];
        bench_run(i + 1, publish_body);
    }
}

static void release_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct script_rule rule = rule_of(bench);
    store_script_add(engine->script, &rule);
    engine_close(engine);
    struct body_read read = read_body(bench);
    assert_false(read.body.held);
    assert_int_equal(read.body.pin_count, moment->pins);
    register_free(&read.body);
    assert_int_equal(bench_said(bench, "released"), 1);
}

static void test_a_release_and_a_pin_meet(void **state)
{
    for (size_t i = 0; i < MOMENTS; i++) {
        moment = &moments[i];
        bench_run(i + 1, release_body);
    }
}

/* ---- publishing ---- */

static void many_roots_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    for (uint64_t seq = 1; seq <= 10; seq++)
        publish(engine, seq);
    struct body_read read = read_body(bench);
    assert_int_equal(read.body.newest.seq, 10);
    assert_int_equal(read.body.older_count, ROOTS_OLDER_MAX);
    for (uint32_t i = 0; i < ROOTS_OLDER_MAX; i++)
        assert_int_equal(read.body.older[i].seq, 9 - i);
    register_free(&read.body);
    engine_die(engine);
}

static void test_few_older_roots_are_kept(void **state)
{
    bench_run(1, many_roots_body);
}

struct publication {
    struct engine *engine;
    uint64_t seq;
    int status;
};

static void publish_task(void *arg)
{
    struct publication *publication = arg;
    struct error error = ERROR_NONE;
    struct root root = root_at(publication->engine->bench, publication->seq);
    publication->status = ownership_publish(publication->engine->volume, &root, &error);
}

static void publish_in_outage_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct publication publication = { .engine = engine, .seq = 3, .status = 1 };
    struct script_rule rule = of_register;
    rule.fate = SCRIPT_HANG;
    store_script_add(engine->script, &rule);
    group_spawn(&bench->group, "publish", publish_task, &publication);
    sleep_ns(100 * NS_PER_S);
    assert_int_equal(publication.status, 1);
    assert_false(volume_may_answer(engine->volume));
    store_script_clear(engine->script);
    sleep_ns(5 * NS_PER_S);
    assert_int_equal(publication.status, 0);
    assert_int_equal(engine->volume->body.newest.seq, 3);
    assert_true(is_served(engine));
    engine_die(engine);
}

static void test_publishing_survives_an_outage(void **state)
{
    bench_run(1, publish_in_outage_body);
}

static void publish_cancelled_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct publication publication = { .engine = engine, .seq = 3, .status = 1 };
    struct script_rule rule = of_register;
    rule.fate = SCRIPT_HANG;
    store_script_add(engine->script, &rule);
    struct task *task = group_spawn(&bench->group, "publish", publish_task, &publication);
    sleep_ns(NS_PER_S);
    task_cancel(task);
    sleep_ns(NS_PER_S);
    assert_int_equal(publication.status, -ECANCELED);
    store_script_clear(engine->script);
    sleep_ns(RENEW_MOST_NS);
    assert_true(engine->volume->body.newest.seq == 0 || engine->volume->body.newest.seq == 3);
    publish(engine, 4);
    assert_int_equal(engine->volume->body.newest.seq, 4);
    engine_die(engine);
}

static void test_publishing_can_be_cancelled(void **state)
{
    bench_run(1, publish_cancelled_body);
}

static void publish_fenced_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench), *other = &bench->engines[1];
    struct publication publication = { .engine = engine, .seq = 3, .status = 1 };
    struct watcher watcher;
    watch(&watcher, engine);
    other->settings.break_lease = true;
    engine_open(other, 0);
    publish_task(&publication);
    assert_int_equal(publication.status, -ESHUTDOWN);
    expect_fenced(engine, &watcher, "process 1 on host test since", EBUSY);
    assert_int_equal(other->volume->body.newest.seq, 0);
    expect_works(other);
    engine_close(engine);
}

static void test_publishing_finds_out_who_owns(void **state)
{
    bench_run(1, publish_fenced_body);
}

/* ---- the lease in doubt ---- */

static void outage_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct script_rule rule = of_register;
    watch(&watcher, engine);
    rule.fate = SCRIPT_HANG;
    uint64_t renewals = volume_read_counts(engine->volume).renewals;
    while (volume_read_counts(engine->volume).renewals == renewals)
        sleep_ns(100 * NS_PER_MS);
    uint64_t since = loop_now_ns(bench->loop); /* of a renewal, or up to 100 ms later */
    store_script_add(engine->script, &rule);
    while (volume_may_answer(engine->volume)) {
        assert_true(store_script_hanging(engine->script) <= 1);
        sleep_ns(10 * NS_PER_MS);
    }
    uint64_t valid_ns = loop_now_ns(bench->loop) - since;
    assert_true(valid_ns <= 24 * NS_PER_S + 10 * NS_PER_MS && valid_ns >= 24 * NS_PER_S - 100 * NS_PER_MS);
    sleep_ns(60 * NS_PER_S);
    assert_false(volume_may_answer(engine->volume));
    assert_true(volume_read_counts(engine->volume).lease_in_doubt);
    assert_int_equal(bench_said(bench, "replies are held"), 1);
    assert_int_equal(watcher.resumed, 0);
    store_script_clear(engine->script);
    sleep_ns(5 * NS_PER_S);
    assert_true(is_served(engine));
    assert_int_equal(watcher.resumed, 1);
    assert_int_equal(watcher.gone, 0);
    assert_int_equal(bench_said(bench, "replies are held"), 1);
    assert_int_equal(bench_said(bench, "replies go out again"), 1);
    volume_unwatch(&watcher.watch);
    expect_sound(engine);
}

static void test_an_outage_puts_the_lease_in_doubt(void **state)
{
    bench_run(1, outage_body);
}

/* Attempts that hang are cut off: of an outage of 20 s after the sending of a renewal nobody learns. */
static void short_outage_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct script_rule rule = of_register;
    rule.fate = SCRIPT_HANG;
    uint64_t renewals = volume_read_counts(engine->volume).renewals;
    store_script_add(engine->script, &rule);
    sleep_ns(18 * NS_PER_S); /* so one attempt hangs */
    assert_int_equal(store_script_hanging(engine->script), 1);
    store_script_clear(engine->script);
    rule.times = 2; /* and the next two requests do */
    store_script_add(engine->script, &rule);
    for (int i = 0; i < 100; i++) {
        assert_true(volume_may_answer(engine->volume));
        sleep_ns(100 * NS_PER_MS);
    }
    assert_true(volume_read_counts(engine->volume).renewals > renewals);
    expect_sound(engine);
}

static void test_a_stalled_attempt_is_cut_off(void **state)
{
    bench_run(1, short_outage_body);
}

/* The process stood still, or its host: the next reply is held, until a renewal has shown that nobody took over. */
static void expect_doubt(struct engine *engine)
{
    struct watcher watcher;
    watch(&watcher, engine);
    assert_false(volume_may_answer(engine->volume));
    assert_false(volume_may_answer(engine->volume));
    sleep_ns(100 * NS_PER_MS);
    assert_int_equal(watcher.resumed, 1);
    assert_true(is_served(engine));
    volume_unwatch(&watcher.watch);
}

static void jumps_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    sleep_ns(5 * NS_PER_S);
    assert_true(is_served(engine));
    loop_sim_set_boottime_offset(bench->loop, (int64_t)(25 * NS_PER_S));
    expect_doubt(engine);
    loop_sim_set_wall_offset(bench->loop, (int64_t)(3600 * NS_PER_S));
    expect_doubt(engine);
    loop_sim_set_wall_offset(bench->loop, -(int64_t)(3600 * NS_PER_S)); /* back: nothing that would matter */
    assert_true(is_served(engine));
    assert_int_equal(bench_said(bench, "had stood still"), 2);
    assert_int_equal(bench_said(bench, "replies go out again"), 2);
    expect_sound(engine);
}

static void test_clocks_that_jump_ahead_put_the_lease_in_doubt(void **state)
{
    bench_run(1, jumps_body);
}

static uint64_t store_clock_ms(void *arg)
{
    return *(const uint64_t *)arg;
}

/* Both clocks of the machine stood still (it goes on from a snapshot); the store's has not, as the first answer says.
 */
static void snapshot_body(struct bench *bench)
{
    uint64_t date_ms = UINT64_C(1700000000000);
    mem_set_clock(bench->mem, store_clock_ms, &date_ms);
    struct engine *engine = owner_of(bench);
    sleep_ns(NS_PER_S);
    date_ms += 24000;
    assert_true(is_served(engine));
    engine_put_page(engine, 1, 1);
    engine_flush(engine);
    expect_doubt(engine);
    /* A store whose clock runs with ours is none that matters. */
    for (int i = 0; i < 100; i++) {
        sleep_ns(NS_PER_S);
        date_ms += 1000;
        engine_put_page(engine, 1, 2 + (uint64_t)i);
        engine_flush(engine);
        assert_true(is_served(engine));
    }
    expect_sound(engine);
    mem_set_clock(bench->mem, NULL, NULL);
}

static void test_the_store_knows_the_time(void **state)
{
    bench_run(1, snapshot_body);
}

/* ---- losing it ---- */

static void taken_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench), *other = &bench->engines[1];
    struct watcher watcher;
    watch(&watcher, engine);
    other->settings.break_lease = true;
    engine_open(other, 0);
    assert_int_equal(bench_said(bench, "took over from process 1 on host test since"), 1);
    assert_int_equal(watcher.gone, 0);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "process 1 on host test since", EBUSY);
    assert_int_equal(bench_said(bench, "another owner has taken it"), 1);
    assert_true(is_served(other));
    expect_works(other);
    engine_close(engine);
}

static void test_a_renewal_finds_another_owner(void **state)
{
    bench_run(1, taken_body);
}

static void deleted_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct error error = ERROR_NONE;
    struct store_listing listing;
    char key[KEY_MAX];
    size_t length;
    watch(&watcher, engine);
    uint8_t *bytes = snapshot(bench, &length);
    register_key(key);
    assert_int_equal(store_delete(bench->direct, key, &error), 0);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "was removed", EBADMSG);
    assert_int_equal(store_list(bench->direct, key, "", 1, &listing, &error), 0);
    assert_int_equal(listing.count, 0);
    store_listing_free(&listing);
    /* Put back, it is served again. */
    write_bytes(bench, bytes, length);
    engine_close(engine);
    engine->settings.break_lease = true;
    engine_open(engine, 0);
    expect_works(engine);
    free(bytes);
}

static void test_a_register_that_was_removed_is_not_made_anew(void **state)
{
    bench_run(1, deleted_body);
}

/* An old register of our own, put back while we own the volume. */
static void rolled_back_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    size_t old_length, new_length;
    watch(&watcher, engine);
    uint8_t *old = snapshot(bench, &old_length);
    sleep_ns(2 * RENEW_MOST_NS);
    uint8_t *new = snapshot(bench, &new_length);
    write_bytes(bench, old, old_length);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "older state", EBADMSG);
    expect_unchanged(bench, old, old_length);
    write_bytes(bench, new, new_length);
    struct error error = ERROR_NONE;
    assert_int_equal(engine_try_open(engine, 0, &error), 0);
    expect_works(engine);
    free(old);
    free(new);
}

/* One of an epoch before, put back while nobody has it open. */
static void rolled_back_epoch_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct error error = ERROR_NONE;
    size_t length;
    volumes_release(engine->volumes, engine->volume, true);
    engine->volume = NULL;
    sleep_ns(NS_PER_S);
    uint8_t *old = snapshot(bench, &length);
    engine_open(engine, 0);
    volumes_release(engine->volumes, engine->volume, true);
    engine->volume = NULL;
    sleep_ns(NS_PER_S);
    write_bytes(bench, old, length);
    assert_int_equal(engine_try_open(engine, 0, &error), -EBADMSG);
    assert_non_null(strstr(error.story, "older state"));
    expect_unchanged(bench, old, length);
    engine_close(engine);
    free(old);
}

static void test_a_register_that_was_put_back_is_refused(void **state)
{
    bench_run(1, rolled_back_body);
    bench_run(1, rolled_back_epoch_body);
}

static void damaged_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    size_t length;
    watch(&watcher, engine);
    uint8_t *bytes = snapshot(bench, &length);
    bytes[length / 2] ^= 1;
    write_bytes(bench, bytes, length);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "damaged", EBADMSG);
    expect_unchanged(bench, bytes, length);
    engine_close(engine);
    free(bytes);
}

static void foreign_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct body_read read = read_body(bench);
    watch(&watcher, engine);
    read.body.name[0]++;
    write_body(bench, &read.body);
    register_free(&read.body);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "another volume", EMEDIUMTYPE);
    engine_close(engine);
}

static void newer_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct body_read read = read_body(bench);
    watch(&watcher, engine);
    read.body.state = REGISTER_DELETING;
    read.body.epoch++;
    write_body(bench, &read.body);
    register_free(&read.body);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "epoch 2", EPROTONOSUPPORT);
    engine_close(engine);
}

/* An answer is lost, and what became of the write is looked up; bytes that were spoilt on their way then are no reason
 * to let go of the volume. */
struct spoilt {
    struct bench *bench;
    uint8_t *bytes;
    size_t length;
};

static void spoil(void *arg)
{
    struct spoilt *spoilt = arg;
    spoilt->bytes = snapshot(spoilt->bench, &spoilt->length);
    spoilt->bytes[spoilt->length / 2] ^= 1;
    write_bytes(spoilt->bench, spoilt->bytes, spoilt->length);
    spoilt->bytes[spoilt->length / 2] ^= 1;
}

static void make_good(void *arg)
{
    struct spoilt *spoilt = arg;
    write_bytes(spoilt->bench, spoilt->bytes, spoilt->length);
    free(spoilt->bytes);
}

static void spoilt_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct spoilt spoilt = { .bench = bench };
    store_script_add(
        engine->script,
        &(struct script_rule){
            .operations = SCRIPT_PUT, .key = "volumes/", .times = 1, .fate = SCRIPT_APPLIED, .code = ETIMEDOUT });
    store_script_add(engine->script, &(struct script_rule){ .operations = SCRIPT_GET,
                                                            .key = "volumes/",
                                                            .times = 1,
                                                            .before = spoil,
                                                            .after = make_good,
                                                            .arg = &spoilt });
    sleep_ns(RENEW_MOST_NS);
    assert_int_equal(store_script_hits(engine->script), 2);
    assert_true(is_served(engine));
    expect_works(engine);
}

static void test_an_answer_that_is_spoilt_costs_no_volume(void **state)
{
    bench_run(1, spoilt_body);
}

static void test_a_strange_register_is_left_as_it_is(void **state)
{
    bench_run(1, damaged_body);
    bench_run(1, foreign_body);
    bench_run(1, newer_body);
}

/* The machine was cloned with this process in it, and the other copy renews. */
static void clone_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct body_read read = read_body(bench);
    watch(&watcher, engine);
    read.body.counter++;
    loop_random(bench->loop, read.body.renewal.bytes, sizeof read.body.renewal.bytes);
    struct nonce renewal = read.body.renewal;
    write_body(bench, &read.body);
    register_free(&read.body);
    sleep_ns(RENEW_MOST_NS);
    read = read_body(bench);
    assert_true(nonce_equal(&read.body.renewal, &renewal));
    register_free(&read.body);
    expect_fenced(engine, &watcher, "clone", 0); /* the other copy is as silent as the dead are, here */
    expect_works(engine);
}

static void test_a_clone_is_told(void **state)
{
    bench_run(1, clone_body);
}

/* As a clone that has drawn the same nonces writes: they are ours, and the rest is not. */
static void write_other_content(void *arg)
{
    struct bench *bench = arg;
    struct body_read read = read_body(bench);
    read.body.committed = 0;
    write_body(bench, &read.body);
    register_free(&read.body);
}

static void clone_same_nonce_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    watch(&watcher, engine);
    struct script_rule rule = { .operations = SCRIPT_PUT,
                                .key = "volumes/",
                                .times = 1,
                                .fate = SCRIPT_APPLIED,
                                .code = ESTALE,
                                .after = write_other_content,
                                .arg = bench };
    store_script_add(engine->script, &rule);
    sleep_ns(RENEW_MOST_NS);
    expect_fenced(engine, &watcher, "clone", 0);
    expect_works(engine);
}

static void test_a_nonce_alone_proves_nothing(void **state)
{
    bench_run(1, clone_same_nonce_body);
}

/* The next entry of the log, as the other copy of the volume's owner would commit it. */
static void write_entry_of_copy(struct bench *bench, const struct volume *volume, uint64_t object_id)
{
    struct entry entry = { .kind = ENTRY_COMMIT,
                           .uuid = volume->body.uuid,
                           .epoch = volume->epoch,
                           .owner = volume->owner,
                           .seq = volume->committed_seq + 1,
                           .object_id = object_id };
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    uint8_t hash[SHA256_BYTES];
    char key[KEY_MAX];
    memcpy(entry.previous, volume->chain, SHA256_BYTES);
    entry_encode(&entry, &bytes, hash);
    key_log(&entry.uuid, entry.seq, key);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = STORE_ABSENT };
    assert_int_equal(store_put(bench->direct, &put, NULL, &error), 0);
    buffer_free(&bytes);
}

/* The other copy commits.  It may be alive, so the volume is not taken back before its lease has run out. */
static void clone_commits_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct watcher watcher;
    struct error error = ERROR_NONE;
    watch(&watcher, engine);
    write_entry_of_copy(bench, engine->volume, engine->volume->next_object_id);
    engine_put_page(engine, 1, 1);
    assert_int_equal(volume_flush(engine->volume, &error), -ESHUTDOWN);
    sleep_ns(NS_PER_S);
    uint64_t before_ns = loop_now_ns(bench->loop);
    expect_fenced(engine, &watcher, "clone", 0);
    assert_true(loop_now_ns(bench->loop) - before_ns >= LEASE_NS);
    expect_works(engine);
}

/* The same while the register cannot be read. */
static void clone_commits_unseen_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    struct error error = ERROR_NONE;
    write_entry_of_copy(bench, engine->volume, engine->volume->next_object_id);
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_GET, .key = "volumes/", .fate = SCRIPT_FAIL, .code = EIO });
    engine_put_page(engine, 1, 1);
    assert_int_equal(volume_flush(engine->volume, &error), -ESHUTDOWN);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    sleep_ns(5 * NS_PER_S); /* it has given up asking */
    store_script_clear(engine->script);
    uint64_t before_ns = loop_now_ns(bench->loop);
    engine_open(engine, 0);
    assert_true(loop_now_ns(bench->loop) - before_ns >= LEASE_NS - NS_PER_S);
    expect_works(engine);
}

/* One copy published a root, and the other one committed the next entry, with ids that the root has used. */
static void clone_root_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    engine->settings.checkpoint_slots = 1;
    engine_open(engine, DISK_BYTES);
    engine_put_page(engine, 1, 11);
    engine_flush(engine);
    sleep_ns(NS_PER_S);
    const struct root *root = &engine->volume->body.newest;
    assert_int_equal(root->seq, engine->volume->committed_seq);
    write_entry_of_copy(bench, engine->volume, root->object_id);
    engine_crash(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 1, 11);
    expect_works(engine);
}

static void test_a_clones_root_and_log_fit(void **state)
{
    bench_run(1, clone_root_body);
}

static void test_a_clone_is_waited_for(void **state)
{
    bench_run(1, clone_commits_unseen_body);
    bench_run(1, clone_commits_body);
}

/* ---- while it is being opened ---- */

static void slow_list(void *arg)
{
    sleep_ns(100 * NS_PER_S);
}

static void long_opening_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench);
    engine_close(engine);
    uint64_t counter = counter_now(bench), before = loop_now_ns(bench->loop);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_LIST, .times = 1, .before = slow_list });
    struct error error = ERROR_NONE;
    assert_int_equal(engine_try_open(engine, 0, &error), -EIO); /* too long for this one, but it goes on */
    assert_int_equal(engine_try_open(engine, 0, &error), -EIO);
    engine_open(engine, 0);
    assert_true(loop_now_ns(bench->loop) - before >= 100 * NS_PER_S);
    assert_true(counter_now(bench) >= counter + 6);
    assert_true(is_served(engine));
    expect_sound(engine);
}

static void test_the_lease_is_renewed_while_it_is_opened(void **state)
{
    bench_run(1, long_opening_body);
}

static void lost_in_opening_body(struct bench *bench)
{
    struct engine *engine = owner_of(bench), *other = &bench->engines[1];
    struct error error = ERROR_NONE;
    engine_close(engine);
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_LIST, .times = 1, .before = slow_list });
    other->settings.break_lease = true;
    assert_int_equal(engine_try_open(engine, 0, &error), -EIO);
    engine_open(other, 0);
    sleep_ns(RENEW_MOST_NS);
    assert_int_equal(bench_said(bench, "another owner has taken it"), 1);
    assert_int_equal(bench_said(bench, "open: epoch 2"), 0);
    engine_close(engine);
    expect_works(other);
}

static void test_it_is_lost_while_it_is_opened(void **state)
{
    bench_run(1, lost_in_opening_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_volume_costs_four_requests_a_minute),
        cmocka_unit_test(test_what_is_unknown_is_kept),
        cmocka_unit_test(test_a_renewal_and_a_pin_meet),
        cmocka_unit_test(test_a_checkpoint_and_a_pin_meet),
        cmocka_unit_test(test_a_release_and_a_pin_meet),
        cmocka_unit_test(test_few_older_roots_are_kept),
        cmocka_unit_test(test_publishing_survives_an_outage),
        cmocka_unit_test(test_publishing_can_be_cancelled),
        cmocka_unit_test(test_publishing_finds_out_who_owns),
        cmocka_unit_test(test_an_outage_puts_the_lease_in_doubt),
        cmocka_unit_test(test_a_stalled_attempt_is_cut_off),
        cmocka_unit_test(test_clocks_that_jump_ahead_put_the_lease_in_doubt),
        cmocka_unit_test(test_the_store_knows_the_time),
        cmocka_unit_test(test_a_renewal_finds_another_owner),
        cmocka_unit_test(test_a_register_that_was_removed_is_not_made_anew),
        cmocka_unit_test(test_a_register_that_was_put_back_is_refused),
        cmocka_unit_test(test_a_strange_register_is_left_as_it_is),
        cmocka_unit_test(test_an_answer_that_is_spoilt_costs_no_volume),
        cmocka_unit_test(test_a_clone_is_told),
        cmocka_unit_test(test_a_nonce_alone_proves_nothing),
        cmocka_unit_test(test_a_clone_is_waited_for),
        cmocka_unit_test(test_a_clones_root_and_log_fit),
        cmocka_unit_test(test_the_lease_is_renewed_while_it_is_opened),
        cmocka_unit_test(test_it_is_lost_while_it_is_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
