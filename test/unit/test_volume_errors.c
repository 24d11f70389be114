/* A volume whose store fails, whose owner is overtaken, and whose clients leave in the middle of what they asked for:
 * nothing is acknowledged that is not so, and nothing is left behind. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"

#define DISK_BYTES (256 * MIB)

static struct engine *engine_of(struct bench *bench)
{
    return &bench->engines[0];
}

static void fail_puts(struct engine *engine, const char *key, enum script_fate fate, int code)
{
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_PUT, .key = key, .fate = fate, .code = code });
}

static int flush_now(struct engine *engine, struct error *error)
{
    *error = (struct error)ERROR_NONE;
    return volume_flush(engine->volume, error);
}

/* ---- flushes that fail ---- */

static void no_space_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct error error;
    engine_open(engine, DISK_BYTES);
    const int codes[] = { ENOSPC, EDQUOT, EACCES, EPERM, EROFS };
    for (uint64_t i = 0; i < 5; i++) {
        fail_puts(engine, "/log/", SCRIPT_FAIL, codes[i]);
        engine_put_page(engine, i, i + 1);
        uint64_t before = loop_now_ns(bench->loop);
        assert_int_equal(flush_now(engine, &error), -codes[i]);
        assert_true(loop_now_ns(bench->loop) - before < NS_PER_S); /* told at once */
        assert_non_null(strstr(error.story, ENGINE_VOLUME));
        assert_non_null(strstr(error.story, strerror(codes[i])));
        assert_non_null(strstr(error.story, "/log/"));
        assert_int_equal(flush_now(engine, &error), -codes[i]); /* and not forgotten */
        engine_expect_page(engine, i, i + 1);
        assert_int_equal(volume_read_counts(engine->volume).dirty_bytes, PAGE_BYTES);
        store_script_clear(engine->script);
        engine_flush(engine);
        assert_int_equal(volume_read_counts(engine->volume).dirty_bytes, 0);
    }
    engine_crash(engine);
    engine_open(engine, 0);
    for (uint64_t i = 0; i < 5; i++)
        engine_expect_page(engine, i, i + 1);
    engine_close(engine);
}

static void test_no_space(void **state)
{
    bench_run(1, no_space_body);
}

/* The same for what goes into data objects: 10 MiB. */
static void no_space_for_data_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct error error;
    uint8_t *bytes = malloc(10 * MIB);
    fill(bytes, 10 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    fail_puts(engine, "/data/", SCRIPT_FAIL, ENOSPC);
    engine_put(engine, 0, bytes, 10 * MIB);
    assert_int_equal(flush_now(engine, &error), -ENOSPC);
    assert_non_null(strstr(error.story, "/data/"));
    uint64_t seq = volume_read_counts(engine->volume).committed_seq;
    assert_int_equal(sleep_ns(60 * NS_PER_S), 0);
    assert_int_equal(volume_read_counts(engine->volume).committed_seq, seq); /* nothing without its data */
    store_script_clear(engine->script);
    engine_flush(engine);
    engine_crash(engine);
    engine_open(engine, 0);
    engine_expect(engine, 0, bytes, 10 * MIB);
    engine_close(engine);
    free(bytes);
}

static void test_no_space_for_data_objects(void **state)
{
    bench_run(1, no_space_for_data_body);
}

/* What an earlier attempt found is no answer to a FLUSH that came later and has not been tried yet. */
static void stale_trouble_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct error error;
    engine_open(engine, DISK_BYTES);
    fail_puts(engine, "/log/", SCRIPT_FAIL, ENOSPC);
    engine_put_page(engine, 0, 1);
    assert_int_equal(flush_now(engine, &error), -ENOSPC);
    store_script_clear(engine->script);
    engine_put_page(engine, 1, 2);
    assert_int_equal(flush_now(engine, &error), 0);
    engine_close(engine);
}

static void test_old_trouble_is_no_answer(void **state)
{
    bench_run(1, stale_trouble_body);
}

static void deadline_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct error error;
    engine->settings.flush_deadline_ms = 20 * 1000;
    engine_open(engine, DISK_BYTES);
    const enum script_fate fates[] = { SCRIPT_FAIL, SCRIPT_HANG };
    for (uint64_t i = 0; i < 2; i++) {
        fail_puts(engine, "/log/", fates[i], EIO);
        engine_put_page(engine, i, i + 1);
        uint64_t before = loop_now_ns(bench->loop);
        assert_int_equal(flush_now(engine, &error), -EIO);
        assert_int_equal(loop_now_ns(bench->loop) - before, 20 * NS_PER_S);
        assert_non_null(strstr(error.story, fates[i] == SCRIPT_FAIL ? "/log/" : "slow"));
        engine_expect_page(engine, i, i + 1);
        store_script_clear(engine->script);
        engine_flush(engine);
    }
    engine_close(engine);
}

static void test_the_deadline_of_a_flush(void **state)
{
    bench_run(1, deadline_body);
}

/* A commit whose answer is lost is found to have landed, and is made once. */
static void lost_answer_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    engine_open(engine, DISK_BYTES);
    store_script_add(
        engine->script,
        &(struct script_rule){
            .operations = SCRIPT_PUT, .key = "/log/", .times = 1, .fate = SCRIPT_APPLIED, .code = ETIMEDOUT });
    uint64_t seq = volume_read_counts(engine->volume).committed_seq;
    engine_put_page(engine, 0, 1);
    engine_flush(engine);
    assert_int_equal(volume_read_counts(engine->volume).committed_seq, seq + 1);
    engine_crash(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 0, 1);
    engine_close(engine);
}

static void test_an_answer_is_lost(void **state)
{
    bench_run(1, lost_answer_body);
}

/* ---- those who wait ---- */

enum request { REQUEST_READ, REQUEST_WRITE, REQUEST_PART, REQUEST_ZERO, REQUEST_FLUSH, REQUEST_CACHE, REQUESTS };

struct client {
    struct engine *engine;
    enum request request;
    uint64_t offset;
    uint32_t length;
    struct task *task; /* while it runs */
    bool started, ended;
    int status;
    struct error error;
};

static void ask(struct client *client)
{
    struct volume *volume = client->engine->volume;
    struct volume_data data;
    uint8_t *bytes = malloc(client->length);
    fill(bytes, client->length, 1);
    switch (client->request) {
    case REQUEST_READ:
        volume_data_init(&data);
        client->status = volume_read(volume, client->offset, client->length, &data, &client->error);
        volume_data_free(&data);
        break;
    case REQUEST_WRITE:
    case REQUEST_PART:
        client->status = engine_try_put(client->engine, client->offset, bytes, client->length);
        break;
    case REQUEST_ZERO:
        client->status = volume_zero(volume, client->offset, client->length, &client->error);
        break;
    case REQUEST_FLUSH:
        client->status = volume_flush(volume, &client->error);
        break;
    default:
        client->status = volume_cache(volume, client->offset, client->length, &client->error);
    }
    free(bytes);
}

static void client_task(void *arg)
{
    struct client *client = arg;
    client->started = true;
    ask(client);
    client->ended = true;
}

static void send(struct client *client, struct group *group)
{
    client->status = 1;
    client->task = group_spawn(group, "client", client_task, client);
}

#define CLIENTS 12

/* A volume with committed pages that are not in memory, uncommitted ones, no room for more dirty data, and a store
 * that does not answer: whatever is asked has to wait.  Then one of each kind asks. */
static void make_them_wait(struct engine *engine, struct group *group, struct client *clients)
{
    engine->settings.memory_bytes = 8 * MIB;
    engine->settings.dirty_bytes = MIB;
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 64; i++)
        engine_put_page(engine, 100 * i, i + 1);
    engine_flush(engine);
    engine_close(engine); /* nothing of it is in memory after this */
    engine_open(engine, 0);
    store_script_add(engine->script, &(struct script_rule){ .operations = SCRIPT_ALL, .fate = SCRIPT_HANG });
    for (uint64_t i = 0; i < 200; i++)
        engine_put_page(engine, 10000 + 2 * i, i + 1);
    static const struct client kinds[CLIENTS] = {
        { .request = REQUEST_FLUSH, .length = 1 },
        { .request = REQUEST_READ, .offset = 0, .length = 4096 },
        { .request = REQUEST_READ, .offset = 1000, .length = 3 * MIB },
        { .request = REQUEST_READ, .offset = 100 * 4096, .length = 5 },
        { .request = REQUEST_PART, .offset = 200 * 4096 + 100, .length = 100 },
        { .request = REQUEST_PART, .offset = 300 * 4096 + 100, .length = 100 * 4096 },
        { .request = REQUEST_ZERO, .offset = 400 * 4096 + 17, .length = 4096 },
        { .request = REQUEST_WRITE, .offset = 20000 * 4096, .length = MIB / 2 },
        { .request = REQUEST_WRITE, .offset = 30000 * 4096, .length = 2 * MIB },
        { .request = REQUEST_ZERO, .offset = 0, .length = 100 * MIB },
        { .request = REQUEST_CACHE, .offset = 0, .length = 4 * MIB },
        { .request = REQUEST_FLUSH, .length = 1 },
    };
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = kinds[i];
        clients[i].engine = engine;
        send(&clients[i], group);
    }
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    int waiting = 0;
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(clients[i].started);
        waiting += !clients[i].ended;
    }
    assert_true(waiting >= 10); /* a part of a page may fit in still */
}

static void fenced_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench), *other = &bench->engines[1];
    struct client clients[CLIENTS];
    struct group group;
    group_init(&group, bench->loop);
    make_them_wait(engine, &group, clients);
    other->settings.break_lease = true;
    engine_open(other, 0);
    store_script_clear(engine->script); /* its commit is refused now */
    group_join(&group);
    int lost = 0;
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(clients[i].status == 0 || clients[i].status == -ESHUTDOWN);
        assert_true(clients[i].request != REQUEST_FLUSH || clients[i].status == -ESHUTDOWN);
        lost += clients[i].status != 0;
    }
    assert_true(lost >= 5);
    struct error error;
    assert_int_equal(flush_now(engine, &error), -ESHUTDOWN);
    assert_int_equal(volume_flush_try(engine->volume), -ESHUTDOWN);
    struct volume_data data;
    volume_data_init(&data);
    assert_int_equal(volume_read_try(engine->volume, 0, 4096, &data), -ESHUTDOWN);
    assert_int_equal(volume_read(engine->volume, 0, 4096, &data, &error), -ESHUTDOWN);
    volume_data_free(&data);
    assert_int_equal(volume_zero(engine->volume, 0, 4096, &error), -ESHUTDOWN);
    assert_int_equal(volume_cache(engine->volume, 0, 4096, &error), -ESHUTDOWN);
    engine_close(engine);
    engine_expect_page(other, 0, 1);
    engine_expect_page(other, 10000, 0);
    engine_close(other);
}

static void test_fenced_while_others_wait(void **state)
{
    bench_run(1, fenced_body);
}

/* One of those who wait is cancelled, in each case, or several are; the others get their answers, and nothing leaks. */
static uint32_t cancelled_mask;

static void cancel_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct client clients[CLIENTS];
    struct group group;
    group_init(&group, bench->loop);
    make_them_wait(engine, &group, clients);
    for (int i = 0; i < CLIENTS; i++)
        if ((cancelled_mask & 1u << i) != 0 && !clients[i].ended)
            task_cancel(clients[i].task);
        else
            cancelled_mask &= ~(1u << i);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    for (int i = 0; i < CLIENTS; i++) {
        if ((cancelled_mask & 1u << i) == 0)
            continue;
        assert_true(clients[i].ended); /* at once, though the store still hangs */
        assert_int_equal(clients[i].status, -ECANCELED);
    }
    store_script_clear(engine->script);
    group_join(&group);
    for (int i = 0; i < CLIENTS; i++)
        assert_true((cancelled_mask & 1u << i) != 0 || clients[i].status == 0);
    engine_flush(engine);
    engine_holds_nothing(engine);
    engine_close(engine);
}

static void test_those_who_wait_are_cancelled(void **state)
{
    for (int i = 0; i < CLIENTS; i++) {
        cancelled_mask = 1u << i;
        bench_run(1, cancel_body);
    }
    for (uint32_t seed = 1; seed <= 8; seed++) {
        cancelled_mask = seed * 2654435761u >> 12;
        bench_run(seed, cancel_body);
    }
    cancelled_mask = (1u << CLIENTS) - 1;
    bench_run(1, cancel_body);
}

/* The same for those who wait because no page of memory is left, not even for a fetch. */
static void no_pages_body(struct bench *bench)
{
    static const struct client kinds[] = {
        { .request = REQUEST_WRITE, .offset = 200 * 4096, .length = 8192 },
        { .request = REQUEST_READ, .offset = 0, .length = 4096 },
        { .request = REQUEST_PART, .offset = 4096 + 100, .length = 100 },
        { .request = REQUEST_ZERO, .offset = 8192 + 17, .length = 100 },
        { .request = REQUEST_CACHE, .offset = 3 * 4096, .length = 100 },
    };
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    struct engine *engine = engine_of(bench);
    struct client clients[KINDS];
    struct group group;
    group_init(&group, bench->loop);
    engine->settings.memory_bytes = 4 * MIB;
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < 4; i++)
        engine_put_page(engine, i, i + 1);
    engine_close(engine);
    for (int cancelled = 0; cancelled <= KINDS; cancelled++) { /* KINDS: nobody */
        engine_open(engine, 0);
        struct page **pages = calloc(2048, sizeof(struct page *));
        size_t taken = 0;
        while (page_pool_try(engine->volumes->pool, 1, &pages[taken]) == 0)
            taken++;
        for (int i = 0; i < KINDS; i++) {
            clients[i] = kinds[i];
            clients[i].engine = engine;
            send(&clients[i], &group);
        }
        assert_int_equal(sleep_ns(NS_PER_S), 0);
        for (int i = 0; i < KINDS; i++)
            assert_true(clients[i].started && !clients[i].ended);
        if (cancelled < KINDS) {
            task_cancel(clients[cancelled].task);
            assert_int_equal(sleep_ns(NS_PER_S), 0);
            assert_int_equal(clients[cancelled].status, -ECANCELED);
        }
        while (taken > 0)
            page_unref(pages[--taken]);
        free(pages);
        group_join(&group);
        for (int i = 0; i < KINDS; i++)
            assert_int_equal(clients[i].status, i == cancelled ? -ECANCELED : 0);
        engine_flush(engine);
        engine_holds_nothing(engine);
        engine_close(engine);
    }
}

static void test_those_who_wait_for_memory_are_cancelled(void **state)
{
    bench_run(1, no_pages_body);
}

/* The server ends with a store that hangs for good: those who wait are told, nothing is left. */
static void abandon_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct client clients[CLIENTS];
    struct group group;
    group_init(&group, bench->loop);
    make_them_wait(engine, &group, clients);
    group_cancel(&group);
    group_join(&group);
    volumes_release(engine->volumes, engine->volume, false);
    engine->volume = NULL;
    struct error error = ERROR_NONE;
    uint64_t deadline = loop_now_ns(bench->loop) + 30 * NS_PER_S;
    assert_int_equal(volumes_shutdown(engine->volumes, deadline, &error), -EIO);
    assert_non_null(strstr(error.story, "could not be saved"));
    assert_int_equal(loop_now_ns(bench->loop), deadline);
    struct volume *none;
    assert_int_equal(volumes_acquire(engine->volumes, "x", 1, MIB, &none, &error), -ESHUTDOWN);
    engine_crash(engine);
    store_script_clear(engine->script);
    engine_open(engine, 0);
    engine_expect_page(engine, 0, 1);
    engine_expect_page(engine, 10000, 0);
    engine_close(engine);
}

static void test_the_end_with_a_store_that_hangs(void **state)
{
    bench_run(1, abandon_body);
}

/* ---- random cancels, faults and waits, all at once ---- */

static void storm_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct group group;
    enum { STORM = 150 };
    struct client *clients = calloc(STORM, sizeof *clients);
    group_init(&group, bench->loop);
    engine->settings.memory_bytes = 4 * MIB;
    engine->settings.dirty_bytes = MIB;
    engine_open(engine, DISK_BYTES);
    store_script_add(
        engine->script,
        &(struct script_rule){
            .operations = SCRIPT_PUT, .key = "/log/", .skip = 3, .times = 4, .fate = SCRIPT_FAIL, .code = EIO });
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_GET, .skip = 10, .times = 3, .fate = SCRIPT_APPLIED, .code = EIO });
    store_script_add(engine->script,
                     &(struct script_rule){ .operations = SCRIPT_ALL, .skip = 40, .fate = SCRIPT_HANG });
    for (int i = 0; i < STORM; i++) {
        clients[i] = (struct client){ .engine = engine,
                                      .request = (enum request)world_random(bench->world, REQUESTS),
                                      .offset = world_random(bench->world, 4 * MIB),
                                      .length = 1 + (uint32_t)world_random(bench->world, MIB / 4) };
        send(&clients[i], &group);
        assert_int_equal(sleep_ns(world_random(bench->world, 2 * NS_PER_MS)), 0);
        uint64_t victim = world_random(bench->world, STORM);
        if (world_chance(bench->world, 300) && clients[victim].started && !clients[victim].ended)
            task_cancel(clients[victim].task);
        if (world_chance(bench->world, 50))
            store_script_clear(engine->script);
    }
    store_script_clear(engine->script);
    group_join(&group);
    for (int i = 0; i < STORM; i++)
        assert_true(clients[i].status == 0 || clients[i].status == -ECANCELED);
    engine_flush(engine);
    engine_holds_nothing(engine);
    engine_close(engine);
    free(clients);
}

static void test_a_storm_leaves_nothing_behind(void **state)
{
    for (uint64_t seed = 1; seed <= 8; seed++)
        bench_run(seed, storm_body);
}

/* ---- reads that fail ---- */

static void damage(struct bench *bench, const char *part, size_t from_end)
{
    struct store_listing listing;
    struct error error = ERROR_NONE;
    assert_int_equal(store_list(bench->direct, "v/", "", STORE_LIST_MAX, &listing, &error), 0);
    for (size_t i = 0; i < listing.count; i++) {
        uint8_t *bytes;
        size_t length;
        char etag[STORE_ETAG_MAX], *key = listing.entries[i].key;
        if (strstr(key, part) == NULL || listing.entries[i].size < 4096)
            continue;
        assert_int_equal(store_get_whole(bench->direct, key, STORE_OBJECT_MAX, &bytes, &length, etag, &error), 0);
        bytes[length - from_end] ^= 1;
        struct iovec piece = { .iov_base = bytes, .iov_len = length };
        struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = STORE_ANY };
        assert_int_equal(store_put(bench->direct, &put, NULL, &error), 0);
        free(bytes);
    }
    store_listing_free(&listing);
}

static void expect_unreadable(struct engine *engine, uint64_t page, const char *word)
{
    struct volume_data data;
    struct error error = ERROR_NONE;
    volume_data_init(&data);
    uint64_t first = page > 0 ? page - 1 : 0;
    uint32_t length = (uint32_t)(page + 1 - first) * PAGE_BYTES;
    assert_int_equal(volume_read(engine->volume, first * PAGE_BYTES, length, &data, &error), -EIO);
    assert_non_null(strstr(error.story, ENGINE_VOLUME));
    assert_non_null(strstr(error.story, word));
    assert_int_equal(data.piece_count, 0); /* nothing of the part that could be read */
    assert_int_equal(data.page_count, 0);
    assert_int_equal(data.held, 0);
    volume_data_free(&data);
    /* A write of a part of it cannot be completed either; a whole one mends it. */
    uint8_t byte = 1;
    assert_int_equal(engine_try_put(engine, page * PAGE_BYTES + 7, &byte, 1), -EIO);
    assert_int_equal(volume_zero(engine->volume, page * PAGE_BYTES + 7, 1, &error), -EIO);
    engine_put_page(engine, page, 77);
    engine_expect_page(engine, page, 77);
}

static void damaged_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct error error = ERROR_NONE;
    engine->settings.read_deadline_ms = 10 * 1000;
    engine_open(engine, DISK_BYTES);
    engine_put_page(engine, 0, 1);
    engine_flush(engine);
    engine_put_page(engine, 50, 2);
    engine_flush(engine);
    engine_close(engine);
    damage(bench, "/log/", 100); /* frames, not tables: replay does not notice */
    engine_open(engine, 0);
    expect_unreadable(engine, 0, "page 0");
    expect_unreadable(engine, 50, "page 50");
    engine_put_page(engine, 90, 3);
    engine_flush(engine);
    engine_close(engine);
    engine_open(engine, 0);
    engine_expect_page(engine, 0, 77);
    engine_expect_page(engine, 90, 3);

    /* The store fails for longer than the read deadline; then it is well again. */
    engine_close(engine);
    engine_open(engine, 0);
    store_script_add(engine->script, &(struct script_rule){
                                         .operations = SCRIPT_GET, .key = "/log/", .fate = SCRIPT_FAIL, .code = EIO });
    struct volume_data data;
    volume_data_init(&data);
    assert_int_equal(volume_read(engine->volume, 90 * PAGE_BYTES, PAGE_BYTES, &data, &error), -EIO);
    volume_data_free(&data);
    store_script_clear(engine->script);
    engine_expect_page(engine, 90, 3);
    engine_holds_nothing(engine);
    engine_close(engine);
}

static void test_what_cannot_be_read(void **state)
{
    bench_run(1, damaged_body);
}

static void lost_object_body(struct bench *bench)
{
    struct engine *engine = engine_of(bench);
    struct store_listing listing;
    struct error error = ERROR_NONE;
    uint8_t *bytes = malloc(10 * MIB);
    fill(bytes, 10 * MIB, 1);
    engine_open(engine, DISK_BYTES);
    engine_put(engine, 0, bytes, 10 * MIB);
    engine_flush(engine);
    engine_close(engine);
    assert_int_equal(store_list(bench->direct, "v/", "", STORE_LIST_MAX, &listing, &error), 0);
    for (size_t i = 0; i < listing.count; i++)
        if (strstr(listing.entries[i].key, "/data/") != NULL)
            assert_int_equal(store_delete(bench->direct, listing.entries[i].key, &error), 0);
    store_listing_free(&listing);
    engine_open(engine, 0);
    expect_unreadable(engine, 0, "is lost");
    expect_unreadable(engine, 1, "is lost");
    engine_flush(engine);
    engine_close(engine);
    free(bytes);
}

static void test_an_object_that_is_gone(void **state)
{
    bench_run(1, lost_object_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_no_space_for_data_objects),
        cmocka_unit_test(test_old_trouble_is_no_answer),
        cmocka_unit_test(test_the_deadline_of_a_flush),
        cmocka_unit_test(test_an_answer_is_lost),
        cmocka_unit_test(test_fenced_while_others_wait),
        cmocka_unit_test(test_those_who_wait_are_cancelled),
        cmocka_unit_test(test_those_who_wait_for_memory_are_cancelled),
        cmocka_unit_test(test_the_end_with_a_store_that_hangs),
        cmocka_unit_test(test_a_storm_leaves_nothing_behind),
        cmocka_unit_test(test_what_cannot_be_read),
        cmocka_unit_test(test_an_object_that_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
