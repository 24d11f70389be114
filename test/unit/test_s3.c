/* The S3 store on simulated time, against a server that fares as a test says (test/lib/fake_http.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/fake_http.h"
#include "../lib/in_loop.h"
#include "../lib/store_contract.h"
#include "base/event.h"
#include "base/memory.h"
#include "rt/wait.h"
#include "store/put_once.h"
#include "store/s3_internal.h"

#define MS NS_PER_MS

struct scene {
    struct loop *loop;
    struct world *world;
    struct fake_http *fake;
    struct store *store;
    struct event_sink sink;
    int warnings, infos;
    char last_event[1024];
    void (*test)(struct scene *scene);
    struct s3_setup setup;
    uint64_t seed;
    /* For fates. */
    uint64_t until_ns;
    int remaining, code;
    uint64_t number;
    struct fake_fate given;
};

static void noted(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    struct scene *scene = container_of(sink, struct scene, sink);
    assert_null(strstr(text, FAKE_SECRET));
    assert_null(strstr(text, FAKE_TOKEN));
    if (strcmp(subject, "s3://bucket/p at http://fake:9000") != 0)
        return; /* the credential chain's */
    scene->warnings += level >= EVENT_WARNING;
    scene->infos += level == EVENT_INFO;
    snprintf(scene->last_event, sizeof scene->last_event, "%s", text);
}

static void open_scene(struct scene *scene, struct loop *loop)
{
    struct error error = ERROR_NONE;
    scene->loop = loop;
    scene->world = loop_sim_world(loop);
    scene->fake = fake_http_new(loop, scene->world);
    scene->fake->arg = scene;
    scene->sink = (struct event_sink){ .raise = noted };
    struct s3_setup *setup = &scene->setup;
    if (setup->endpoint == NULL)
        setup->endpoint = "http://fake:9000";
    setup->bucket = FAKE_BUCKET;
    setup->prefix = "p";
    setup->access_key = setup->secret_key == NULL ? FAKE_ACCESS_KEY : NULL;
    setup->secret_key = setup->secret_key == NULL ? FAKE_SECRET : NULL;
    setup->events = &scene->sink;
    setup->connect_timeout_ms = 5000;
    setup->read_timeout_ms = 60000;
    setup->attempts = 5;
    if (setup->uploads == 0)
        setup->uploads = setup->reads = 16;
    if (s3_open(loop, setup, &scene->store, &error) != 0)
        fail_msg("%s", error.story);
}

static void run_scene(struct loop *loop, void *arg)
{
    struct scene *scene = arg;
    open_scene(scene, loop);
    scene->test(scene);
    store_close(scene->store);
}

static void play_with(struct scene *scene, void (*test)(struct scene *scene))
{
    scene->test = test;
    in_sim_loop(scene->seed, run_scene, scene);
    fake_http_free(scene->fake);
}

static void play(void (*test)(struct scene *scene))
{
    struct scene scene = { .seed = 11 };
    play_with(&scene, test);
}

/* ---- fates ---- */

static void all_given(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    const struct scene *scene = arg;
    *ret_fate = scene->given;
}

/* The first `remaining` requests. */
static void first_given(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    if (scene->remaining == 0)
        return;
    scene->remaining--;
    *ret_fate = scene->given;
}

static void nth_given(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    const struct scene *scene = arg;
    ret_fate->way_there_ns = 10 * MS;
    ret_fate->way_back_ns = 10 * MS;
    if (request->number == scene->number)
        *ret_fate = scene->given;
}

static void given_until(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    const struct scene *scene = arg;
    if (loop_now_ns(scene->loop) < scene->until_ns)
        *ret_fate = scene->given;
}

static void give(struct scene *scene, int times, struct fake_fate fate)
{
    scene->fake->fate = first_given;
    scene->remaining = times;
    scene->given = fate;
}

/* ---- short forms ---- */

static int get_some(struct store *store, const char *key, uint64_t offset, char *bytes, size_t length,
                    struct store_got *ret_got, struct error *error)
{
    struct iovec piece = { .iov_base = bytes, .iov_len = length };
    const struct store_get get = { .key = key, .offset = offset, .pieces = &piece, .count = 1 };
    return store_get(store, &get, ret_got, error);
}

static int get_text(struct store *store, const char *key, const char *text)
{
    char bytes[100] = "";
    struct store_got got;
    struct error error = ERROR_NONE;
    int failed = get_some(store, key, 0, bytes, sizeof bytes - 1, &got, &error);
    assert_int_equal(failed, -error.code);
    assert_null(strstr(error.story, FAKE_SECRET));
    if (failed == 0) { /* what lies behind may be of an attempt that failed */
        assert_int_equal(got.length, strlen(text));
        assert_memory_equal(bytes, text, got.length);
    }
    return failed;
}

static int try_put(struct store *store, const char *key, const char *text, enum store_condition condition,
                   const char *etag, struct error *error)
{
    struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
    const struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = condition, .etag = etag };
    char ret_etag[STORE_ETAG_MAX];
    *error = (struct error)ERROR_NONE;
    int failed = store_put(store, &put, ret_etag, error);
    assert_null(strstr(error->story, FAKE_SECRET));
    return failed;
}

/* As the server has it. */
static void assert_there(struct scene *scene, const char *key, const char *text)
{
    char whole[100];
    snprintf(whole, sizeof whole, "p/%s", key);
    if (text == NULL)
        assert_absent(scene->fake->objects, whole);
    else
        assert_object(scene->fake->objects, whole, text, NULL);
}

/* ---- the contract ---- */

static void some_delay(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    ret_fate->way_there_ns = world_random(scene->world, 20 * MS);
    ret_fate->way_back_ns = world_random(scene->world, 20 * MS);
}

static void (*contract_case)(struct bench *bench);

static void keep_contract(struct scene *scene)
{
    struct bench bench = { .loop = scene->loop, .store = scene->store, .texts = true };
    scene->fake->fate = some_delay;
    scene->fake->bare_etags = scene->number == 1;
    scene->fake->page_max = scene->number == 1 ? 13 : 0;
    contract_case(&bench);
    assert_int_equal(scene->warnings, 0);
}

static void test_contract(void **state)
{
    static void (*const cases[])(struct bench * bench) = {
        contract_conditions, contract_ranges,        contract_whole_objects,
        contract_listings,   contract_large_objects, contract_listing_while_it_changes,
        contract_races,      contract_unusual_keys,
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint64_t bare = 0; bare < 2; bare++) {
            if (bare && cases[i] == contract_listing_while_it_changes)
                continue; /* it expects whole pages */
            struct scene scene = { .seed = 3, .number = bare, .setup.hedge_percent = 20 };
            contract_case = cases[i];
            play_with(&scene, keep_contract);
        }
}

/* A store that calls a page the last before the end. */
static void early_end(struct scene *scene)
{
    enum { KEYS = 2500 };
    scene->fake->early_end = true;
    for (int i = 0; i < KEYS; i++) {
        char key[32];
        snprintf(key, sizeof key, "log/%08d", i);
        put_named(scene->store, key);
    }
    static const size_t limits[] = { 1000, 999, 500, 100 };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        assert_int_equal(list_all(scene->store, "log/", "", limits[i], NULL, NULL), KEYS);
}

static void test_early_end(void **state)
{
    play(early_end);
}

/* ---- trying again ---- */

static void reads_are_tried_again(struct scene *scene)
{
    static const struct fake_fate fates[] = {
        { .status = 500, .code = "InternalError" },
        { .status = 503, .code = "SlowDown" },
        { .status = 429 },
        { .status = 404, .page = "<html>Not here.</html>" },
        { .fail = ECONNREFUSED, .lost = true },
        { .fail = ETIMEDOUT, .lost = true, .way_back_ns = 10 * NS_PER_S },
        { .fail = ECONNRESET },
        { .status = 200, .page = "" },
        { .garble = true },
        { .status = 409, .code = "OperationAborted" },
    };
    struct error error;
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    for (size_t i = 0; i < sizeof fates / sizeof *fates; i++) {
        uint64_t before = scene->fake->requests;
        give(scene, 4, fates[i]);
        assert_int_equal(get_text(scene->store, "a", "text"), 0);
        assert_int_equal(scene->fake->requests - before, 5);
        give(scene, 1, fates[i]);
        struct store_listing listing;
        assert_int_equal(store_list(scene->store, "", "", 10, &listing, NULL), 0);
        store_listing_free(&listing);
        give(scene, 1, fates[i]);
        assert_int_equal(try_put(scene->store, "b", "text", STORE_ANY, NULL, &error), 0);
        /* A number of attempts, then the story. */
        before = scene->fake->requests;
        give(scene, 100, fates[i]);
        char bytes[10];
        struct store_got got;
        int failed = get_some(scene->store, "a", 0, bytes, sizeof bytes, &got, &error);
        assert_true(failed < 0 && failed != -ENOENT);
        assert_int_equal(scene->fake->requests - before, 5);
        assert_non_null(strstr(error.story, "get a: 5 attempts: "));
        if (fates[i].status != 0 && fates[i].status != 200) {
            char status[16];
            snprintf(status, sizeof status, "%d", fates[i].status);
            assert_non_null(strstr(error.story, status));
        }
        scene->fake->fate = NULL;
        s3_of(scene->store)->budget.tokens = S3_BUDGET_TOKENS;
    }
}

static void test_reads_are_tried_again(void **state)
{
    play(reads_are_tried_again);
}

static void the_budget_ends_it(struct scene *scene)
{
    char bytes[10];
    struct store_got got;
    give(scene, 1 << 30, (struct fake_fate){ .status = 500 });
    for (int i = 0; i < 50; i++)
        assert_int_equal(get_some(scene->store, "a", 0, bytes, sizeof bytes, &got, NULL), -EIO);
    assert_in_range(scene->fake->requests, 50 + 500 / 14, 50 + 500 / 14);
}

static void test_the_budget_ends_it(void **state)
{
    play(the_budget_ends_it);
}

struct getter {
    struct scene *scene;
    uint64_t ended_ns;
    int result;
    struct error error;
};

static void read_a(void *arg)
{
    struct getter *getter = arg;
    char bytes[100] = "";
    struct store_got got;
    getter->result = get_some(getter->scene->store, "a", 0, bytes, 99, &got, &getter->error);
    getter->ended_ns = loop_now_ns(getter->scene->loop);
    if (getter->result == 0)
        assert_memory_equal(bytes, "text", 4);
}

#define READERS 100

/* Many readers, an outage of half a minute: all of them are served soon after it; one event each way. */
static void an_outage(struct scene *scene)
{
    struct getter readers[READERS];
    struct group group;
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    s3_patient(scene->store);
    group_init(&group, scene->loop);
    scene->fake->fate = given_until;
    scene->until_ns = loop_now_ns(scene->loop) + 30 * NS_PER_S;
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct getter){ .scene = scene };
        group_spawn(&group, "reader", read_a, &readers[i]);
    }
    group_join(&group);
    for (int i = 0; i < READERS; i++) {
        if (readers[i].result != 0)
            fail_msg("%s", readers[i].error.story);
        assert_in_range(readers[i].ended_ns, scene->until_ns, scene->until_ns + 5 * NS_PER_S);
    }
    assert_int_equal(scene->warnings, 1);
    assert_int_equal(scene->infos, 1);
    assert_non_null(strstr(scene->last_event, "answers again, after 3"));
    /* All the while it was asked about every two seconds by each, not more. */
    assert_true(scene->fake->requests < READERS * 45);
}

static void test_an_outage(void **state)
{
    static const struct fake_fate fates[] = { { .fail = ECONNREFUSED, .lost = true },
                                              { .status = 503, .code = "SlowDown" },
                                              { .status = 503, .code = "SlowDown", .retry_after_ms = 1000 },
                                              { .status = 500 },
                                              { .fail = ETIMEDOUT, .lost = true, .way_back_ns = NS_PER_S } };
    for (size_t i = 0; i < sizeof fates / sizeof *fates; i++) {
        struct scene scene = { .seed = i, .given = fates[i] };
        scene.setup.uploads = scene.setup.reads = 32;
        play_with(&scene, an_outage);
    }
}

static void a_long_outage(struct scene *scene)
{
    struct getter getter = { .scene = scene };
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    s3_patient(scene->store);
    uint64_t start_ns = loop_now_ns(scene->loop);
    give(scene, 1 << 30, (struct fake_fate){ .fail = ECONNREFUSED, .lost = true });
    read_a(&getter);
    assert_int_equal(getter.result, -ECONNREFUSED);
    assert_in_range(getter.ended_ns - start_ns, 57 * NS_PER_S, 60 * NS_PER_S);
    assert_non_null(strstr(getter.error.story, "get a: "));
    /* One that hangs ends in time, too. */
    start_ns = loop_now_ns(scene->loop);
    give(scene, 1 << 30, (struct fake_fate){ .lost = true, .way_back_ns = 1000 * NS_PER_S });
    read_a(&getter);
    assert_int_equal(getter.result, -ETIMEDOUT);
    assert_in_range(getter.ended_ns - start_ns, 50 * NS_PER_S, 60 * NS_PER_S);
    assert_int_equal(scene->warnings, 1);
    assert_int_equal(scene->infos, 0);
}

static void test_a_long_outage(void **state)
{
    play(a_long_outage);
}

/* A request that is never answered is given up, and sent on a new connection. */
static void an_answer_that_never_comes(struct scene *scene)
{
    const struct fake_fate never = { .lost = true, .way_back_ns = 1000 * NS_PER_S };
    struct getter getter = { .scene = scene };
    struct error error;
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    s3_patient(scene->store);
    uint64_t start_ns = loop_now_ns(scene->loop);
    give(scene, 1, never);
    read_a(&getter);
    assert_int_equal(getter.result, 0);
    assert_in_range(getter.ended_ns - start_ns, 10 * NS_PER_S, 11 * NS_PER_S);
    start_ns = loop_now_ns(scene->loop);
    give(scene, 1, never);
    assert_int_equal(try_put(scene->store, "b", "text", STORE_ABSENT, NULL, &error), -ETIMEDOUT);
    assert_in_range(loop_now_ns(scene->loop) - start_ns, 10 * NS_PER_S, 11 * NS_PER_S);
    assert_true(s3_of(scene->store)->health.timed_out);
    assert_int_equal(try_put(scene->store, "b", "text", STORE_ABSENT, NULL, &error), 0);
    assert_false(s3_of(scene->store)->health.timed_out);
    assert_int_equal(scene->warnings, 0);
}

static void test_an_answer_that_never_comes(void **state)
{
    play(an_answer_that_never_comes);
}

/* Failures now and then are nobody's concern. */
static void one_in_ten(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    ret_fate->way_there_ns = 10 * MS;
    if (world_chance(scene->world, 100))
        ret_fate->status = 500;
}

static void now_and_then(struct scene *scene)
{
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    s3_patient(scene->store);
    scene->fake->fate = one_in_ten;
    for (int i = 0; i < 500; i++)
        assert_int_equal(get_text(scene->store, "a", "text"), 0);
    assert_int_equal(scene->warnings, 0);
    assert_int_equal(scene->infos, 0);
}

static void test_now_and_then(void **state)
{
    play(now_and_then);
}

/* ---- puts ---- */

static void outcomes_of_puts(struct scene *scene)
{
    struct store *store = scene->store;
    struct error error;
    static const struct fake_fate unknown[] = {
        { .status = 500, .code = "InternalError" },
        { .status = 500, .code = "InternalError", .applied = true },
        { .status = 503, .code = "SlowDown" },
        { .status = 409, .code = "ConditionalRequestConflict" },
        { .status = 409, .code = "OperationAborted", .applied = true },
        { .status = 404, .page = "<html>Not here.</html>" },
        { .status = 404, .code = "NoSuchBucket" },
        { .status = 200, .code = "InternalError" },
        { .status = 200, .applied = true }, /* without an ETag */
        { .status = 500, .code = "PreconditionFailed" },
        { .fail = ECONNRESET },
        { .fail = ECONNRESET, .lost = true },
        { .fail = ETIMEDOUT },
        { .status = 507, .code = "XMinioStorageFull" },
        { .status = 403, .code = "AccessDenied" },
    };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        for (int there = 0; there < 2; there++) {
            char key[32], etag[STORE_ETAG_MAX];
            snprintf(key, sizeof key, "k/%zu/%d", i, there);
            if (there)
                assert_int_equal(put_text(store, key, "before", STORE_ABSENT, NULL, etag), 0);
            uint64_t before = scene->fake->requests;
            give(scene, 1, unknown[i]);
            int failed = try_put(store, key, "text", there ? STORE_MATCHES : STORE_ABSENT, there ? etag : NULL, &error);
            scene->fake->fate = NULL;
            assert_true(failed < 0 && failed != -EEXIST && failed != -ESTALE && failed != -ENOENT);
            assert_int_equal(scene->fake->requests - before, 1); /* its caller sends it again */
            bool landed = unknown[i].applied || (unknown[i].fail != 0 && !unknown[i].lost);
            assert_there(scene, key, landed ? "text" : there ? "before" : NULL);
        }
    }
    assert_int_equal(try_put(store, "full", "x", STORE_ANY, NULL, &error), 0);
    give(scene, 1, (struct fake_fate){ .status = 507, .code = "XMinioStorageFull" });
    assert_int_equal(try_put(store, "full", "x", STORE_ANY, NULL, &error), -ENOSPC);

    /* Definite ones. */
    scene->fake->fate = NULL;
    assert_int_equal(try_put(store, "one", "x", STORE_ABSENT, NULL, &error), 0);
    assert_int_equal(try_put(store, "one", "y", STORE_ABSENT, NULL, &error), -EEXIST);
    assert_int_equal(try_put(store, "one", "y", STORE_MATCHES, "\"other\"", &error), -ESTALE);
    give(scene, 1, (struct fake_fate){ .status = 404, .code = "NoSuchKey" });
    assert_int_equal(try_put(store, "two", "y", STORE_MATCHES, "\"other\"", &error), -ESTALE);
    give(scene, 1, (struct fake_fate){ .status = 412 });
    assert_int_equal(try_put(store, "two", "y", STORE_ANY, NULL, &error), -EIO);
    assert_there(scene, "one", "x");
    assert_there(scene, "two", NULL);
}

static void test_outcomes_of_puts(void **state)
{
    play(outcomes_of_puts);
}

#define CONNECTING_MS 3000

static void slow_to_connect(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    bool late = request->connect_timeout_ms < CONNECTING_MS;
    ret_fate->lost = late;
    ret_fate->fail = late ? ETIMEDOUT : 0;
    ret_fate->way_back_ns = (late ? request->connect_timeout_ms : CONNECTING_MS) * NS_PER_MS;
}

/* What is urgent has little time to connect, but not for ever too little. */
static void slow_connections(struct scene *scene)
{
    struct iovec piece = { .iov_base = (void *)(uintptr_t) "x", .iov_len = 1 };
    const struct store_put put = {
        .key = "k", .pieces = &piece, .count = 1, .condition = STORE_ABSENT, .urgent = true
    };
    scene->fake->fate = slow_to_connect;
    assert_int_equal(store_put(scene->store, &put, NULL, NULL), -ETIMEDOUT);
    assert_int_equal(store_put(scene->store, &put, NULL, NULL), 0);
    scene->fake->fate = NULL;
    assert_there(scene, "k", "x");
}

static void test_slow_connections(void **state)
{
    play(slow_connections);
}

/* A caller that tries again at once is kept from it. */
static void throttled_puts(struct scene *scene)
{
    struct error error;
    uint64_t start_ns = loop_now_ns(scene->loop);
    give(scene, 50, (struct fake_fate){ .status = 503, .code = "SlowDown" });
    for (int i = 0; i < 50; i++)
        assert_int_equal(try_put(scene->store, "k", "x", STORE_ABSENT, NULL, &error), -EBUSY);
    assert_in_range(loop_now_ns(scene->loop) - start_ns, 30 * NS_PER_S, 70 * NS_PER_S);
    assert_int_equal(try_put(scene->store, "k", "x", STORE_ABSENT, NULL, &error), 0);
    start_ns = loop_now_ns(scene->loop);
    give(scene, 1, (struct fake_fate){ .status = 503, .code = "SlowDown", .retry_after_ms = 2500 });
    assert_int_equal(try_put(scene->store, "l", "x", STORE_ABSENT, NULL, &error), -EBUSY);
    assert_in_range(loop_now_ns(scene->loop) - start_ns, 2500 * MS, 3500 * MS);
}

static void test_throttled_puts(void **state)
{
    play(throttled_puts);
}

/* ---- ETags without quotes ---- */

static void if_match_of_put(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    if (request->if_match[0] != '\0')
        scene->code = request->if_match[0];
    if (strcmp(request->method, "PUT") == 0 && scene->remaining > 0 && --scene->remaining == 0)
        *ret_fate = scene->given;
    if (strcmp(request->method, "GET") == 0 && scene->until_ns != 0)
        ret_fate->status = 500;
}

static void bare_etags(struct scene *scene)
{
    struct store *store = scene->store;
    struct error error;
    char first[STORE_ETAG_MAX], second[STORE_ETAG_MAX], third[STORE_ETAG_MAX];
    scene->fake->bare_etags = true;
    scene->fake->fate = if_match_of_put;
    assert_int_equal(put_text(store, "r", "one", STORE_ABSENT, NULL, first), 0);
    assert_int_equal(first[0], '"');

    /* Nothing is concluded from a refusal that is due, */
    assert_int_equal(try_put(store, "r", "two", STORE_MATCHES, "\"0123\"", &error), -ESTALE);
    assert_int_equal(scene->code, '"');
    assert_int_equal(s3_of(store)->etag_form, S3_ETAG_UNKNOWN);
    /* nor when it cannot be looked into: then it is unknown; */
    scene->until_ns = 1;
    assert_int_equal(try_put(store, "r", "two", STORE_MATCHES, first, &error), -EIO);
    scene->until_ns = 0;
    assert_there(scene, "r", "one");
    /* nor when the second attempt fails for another reason: it may have been applied. */
    scene->remaining = 2;
    scene->given = (struct fake_fate){ .fail = ECONNRESET };
    assert_int_equal(try_put(store, "r", "two", STORE_MATCHES, first, &error), -ECONNRESET);
    assert_int_equal(s3_of(store)->etag_form, S3_ETAG_UNKNOWN);
    assert_there(scene, "r", "two");
    struct store_got got;
    assert_int_equal(get_some(store, "r", 0, &(char){ 0 }, 1, &got, NULL), 0);
    memcpy(second, got.etag, sizeof second);

    /* One that holds succeeds, and the form is kept. */
    uint64_t before = scene->fake->requests;
    assert_int_equal(put_text(store, "r", "three", STORE_MATCHES, second, third), 0);
    assert_int_equal(scene->fake->requests - before, 3);
    assert_int_equal(scene->code, second[1]);
    assert_int_equal(try_put(store, "r", "four", STORE_MATCHES, second, &error), -ESTALE);
    assert_int_equal(scene->fake->requests - before, 4);
    assert_int_equal(put_text(store, "r", "four", STORE_MATCHES, third, NULL), 0);
    assert_int_equal(scene->fake->requests - before, 5);
    assert_there(scene, "r", "four");
}

static void quoted_etags(struct scene *scene)
{
    struct store *store = scene->store;
    char first[STORE_ETAG_MAX], second[STORE_ETAG_MAX];
    assert_int_equal(put_text(store, "r", "one", STORE_ABSENT, NULL, first), 0);
    assert_int_equal(put_text(store, "r", "two", STORE_MATCHES, first, second), 0);
    uint64_t before = scene->fake->requests;
    assert_int_equal(put_text(store, "r", "three", STORE_MATCHES, first, NULL), -ESTALE);
    assert_int_equal(put_text(store, "none", "three", STORE_MATCHES, first, NULL), -ESTALE);
    assert_int_equal(scene->fake->requests - before, 2);
}

/* What was found of the store when it was opened before holds, or not any more. */
static void hinted_etags(struct scene *scene)
{
    char etag[STORE_ETAG_MAX], next[STORE_ETAG_MAX];
    scene->fake->bare_etags = scene->number != 0;
    assert_int_equal(put_text(scene->store, "r", "one", STORE_ABSENT, NULL, etag), 0);
    uint64_t before = scene->fake->requests;
    assert_int_equal(put_text(scene->store, "r", "two", STORE_MATCHES, etag, next), 0);
    assert_int_equal(scene->fake->requests - before, scene->fake->bare_etags ? 1 : 3);
    assert_int_equal(put_text(scene->store, "r", "three", STORE_MATCHES, etag, NULL), -ESTALE);
    assert_int_equal(put_text(scene->store, "r", "three", STORE_MATCHES, next, NULL), 0);
    assert_int_equal(scene->fake->requests - before, scene->fake->bare_etags ? 3 : 5);
    bool bare = (s3_traits(scene->store) & S3_TRAIT_BARE_ETAGS) != 0;
    assert_true(bare == scene->fake->bare_etags);
}

static void test_hints_about_etags(void **state)
{
    for (uint64_t bare = 0; bare < 2; bare++) {
        struct scene scene = { .seed = 3, .number = bare, .setup.traits = S3_TRAIT_BARE_ETAGS };
        play_with(&scene, hinted_etags);
    }
}

static void test_etag_forms(void **state)
{
    play(bare_etags);
    play(quoted_etags);
}

/* ---- answers to gets ---- */

static void shift_range(struct http_response *response)
{
    response->range_first += 1;
}
static void short_range(struct http_response *response)
{
    response->range_last -= 1;
}
static void no_size(struct http_response *response)
{
    response->range_size = UINT64_MAX;
}
static void small_size(struct http_response *response)
{
    response->range_size = 2;
}
static void no_range(struct http_response *response)
{
    response->range_first = response->range_last = response->range_size = UINT64_MAX;
}
static void no_etag(struct http_response *response)
{
    response->etag[0] = '\0';
}
static void whole_object(struct http_response *response)
{
    no_range(response);
    response->status = 200;
    response->length = 10;
}
static void no_content(struct http_response *response)
{
    response->status = 204;
}

static void damaged_answers(struct scene *scene)
{
    static void (*const edits[])(struct http_response * response) = { shift_range,  short_range, no_size,
                                                                      small_size,   no_range,    no_etag,
                                                                      whole_object, no_content };
    assert_int_equal(put_text(scene->store, "a", "0123456789", STORE_ABSENT, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char bytes[4] = "";
        struct store_got got;
        struct error error = ERROR_NONE;
        give(scene, 100, (struct fake_fate){ .edit = edits[i] });
        assert_int_equal(get_some(scene->store, "a", 3, bytes, 3, &got, &error), -EIO);
        assert_non_null(strstr(error.story, "but "));
        give(scene, 2, (struct fake_fate){ .edit = edits[i] });
        assert_int_equal(get_some(scene->store, "a", 3, bytes, 3, &got, &error), 0);
        assert_string_equal(bytes, "345");
        assert_int_equal(got.size, 10);
        s3_of(scene->store)->budget.tokens = S3_BUDGET_TOKENS;
    }
    /* Everything in place of a part is good where everything was wanted. */
    char bytes[20] = "";
    struct store_got got;
    give(scene, 100, (struct fake_fate){ .edit = whole_object });
    assert_int_equal(get_some(scene->store, "a", 0, bytes, sizeof bytes - 1, &got, NULL), 0);
    assert_string_equal(bytes, "0123456789");
    assert_int_equal(got.size, 10);
    assert_int_equal(got.length, 10);
    assert_int_equal(get_some(scene->store, "a", 0, bytes, 5, &got, NULL), -EIO);
}

static void test_damaged_answers(void **state)
{
    play(damaged_answers);
}

/* Between the refusal of a range and the question for the size, others write. */
static void change_it(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    if (strcmp(request->method, "HEAD") != 0 || scene->remaining == 0)
        return;
    scene->remaining--;
    if (scene->code == 0)
        assert_int_equal(store_delete(scene->fake->objects, "p/a", NULL), 0);
    else
        put_text(scene->fake->objects, "p/a", "0123456789", STORE_ANY, NULL, NULL);
}

static void changing_sizes(struct scene *scene)
{
    char bytes[4] = "";
    struct store_got got;
    scene->fake->fate = change_it;
    assert_int_equal(put_text(scene->store, "a", "", STORE_ANY, NULL, NULL), 0);
    assert_int_equal(get_some(scene->store, "a", 0, bytes, 3, &got, NULL), 0);
    assert_int_equal(got.size, 0);
    scene->remaining = 1;
    scene->code = 1;
    assert_int_equal(get_some(scene->store, "a", 0, bytes, 3, &got, NULL), 0);
    assert_int_equal(got.size, 10);
    assert_string_equal(bytes, "012");
    scene->remaining = 1;
    scene->code = 0;
    assert_int_equal(get_some(scene->store, "a", 10, bytes, 3, &got, NULL), -ENOENT);
}

static void test_changing_sizes(void **state)
{
    play(changing_sizes);
}

/* ---- hedging ---- */

static void warm_up(struct scene *scene)
{
    scene->number = 0;
    scene->fake->fate = nth_given;
    assert_int_equal(put_text(scene->store, "a", "0123456789", STORE_ANY, NULL, NULL), 0);
    for (int i = 0; i < 64; i++) {
        char key[32];
        snprintf(key, sizeof key, "warm/%d", i);
        assert_int_equal(put_text(scene->store, key, "x", STORE_ABSENT, NULL, NULL), 0);
        assert_int_equal(get_text(scene->store, "a", "0123456789"), 0);
    }
}

/* The next request fares so. */
static void give_next(struct scene *scene, struct fake_fate fate)
{
    scene->number = scene->fake->requests + 1;
    scene->given = fate;
}

static void hedged_gets(struct scene *scene)
{
    warm_up(scene);
    char bytes[12];
    struct iovec pieces[3] = { { bytes, 2 }, { NULL, 0 }, { bytes + 2, 6 } };
    const struct store_get get = { .key = "a", .offset = 1, .pieces = pieces, .count = 3 };
    struct store_got got;
    static const struct fake_fate slow[] = {
        { .lost = true, .way_back_ns = 100 * NS_PER_S },
        { .way_there_ns = 5 * NS_PER_S },
        { .way_back_ns = 5 * NS_PER_S },
        { .way_back_ns = 65 * MS, .status = 500 },
    };
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        uint64_t before = scene->fake->requests, start_ns = loop_now_ns(scene->loop);
        memset(bytes, '#', sizeof bytes);
        give_next(scene, slow[i]);
        assert_int_equal(store_get(scene->store, &get, &got, NULL), 0);
        assert_memory_equal(bytes, "12345678####", 12);
        assert_int_equal(scene->fake->requests - before, 2);
        assert_int_equal(loop_now_ns(scene->loop) - start_ns, 80 * MS); /* three medians of 20, and another 20 */
    }
    /* The first, though slow, is there before its double. */
    give_next(scene, (struct fake_fate){ .way_back_ns = 70 * MS });
    uint64_t start_ns = loop_now_ns(scene->loop);
    assert_int_equal(store_get(scene->store, &get, &got, NULL), 0);
    assert_int_equal(loop_now_ns(scene->loop) - start_ns, 70 * MS);
    assert_int_equal(scene->warnings, 0);
    assert_int_equal(s3_of(scene->store)->reads.used, 0);
}

static void test_hedged_gets(void **state)
{
    struct scene scene = { .seed = 5, .setup.hedge_percent = 100 };
    play_with(&scene, hedged_gets);
}

static void no_hedging_before(struct scene *scene)
{
    scene->fake->fate = all_given;
    scene->given = (struct fake_fate){ .way_there_ns = 20 * MS };
    assert_int_equal(put_text(scene->store, "a", "x", STORE_ANY, NULL, NULL), 0);
    for (int i = 0; i < 40; i++)
        assert_int_equal(get_text(scene->store, "a", "x"), 0);
    scene->given.way_there_ns = NS_PER_S;
    for (int i = 0; i < 5; i++)
        assert_int_equal(get_text(scene->store, "a", "x"), 0);
    assert_int_equal(scene->fake->requests, 46);
}

/* A store that has become slow for all is not asked twice as much. */
static void hedging_is_rare(struct scene *scene)
{
    warm_up(scene);
    uint64_t before = scene->fake->requests;
    scene->fake->fate = some_delay;
    for (int i = 0; i < 1000; i++) {
        scene->fake->fate = i % 2 == 0 ? all_given : some_delay;
        scene->given = (struct fake_fate){ .way_there_ns = NS_PER_S };
        assert_int_equal(get_text(scene->store, "a", "0123456789"), 0);
    }
    assert_true(scene->fake->requests - before <= 1000 + 50 + 10);
}

static void no_hedging_at_all(struct scene *scene)
{
    warm_up(scene);
    uint64_t before = scene->fake->requests;
    give_next(scene, (struct fake_fate){ .way_there_ns = NS_PER_S });
    assert_int_equal(get_text(scene->store, "a", "0123456789"), 0);
    assert_int_equal(scene->fake->requests - before, 1);
}

static void test_hedging_has_limits(void **state)
{
    struct scene first = { .seed = 5, .setup.hedge_percent = 100 };
    play_with(&first, no_hedging_before);
    struct scene second = { .seed = 5, .setup.hedge_percent = 5 };
    play_with(&second, hedging_is_rare);
    struct scene third = { .seed = 5, .setup.hedge_percent = 0 };
    play_with(&third, no_hedging_at_all);
}

/* Number `number` and the one after it. */
static struct fake_fate second_given;

static void two_given(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    const struct scene *scene = arg;
    ret_fate->way_there_ns = ret_fate->way_back_ns = 10 * MS;
    if (request->number == scene->number)
        *ret_fate = scene->given;
    if (request->number == scene->number + 1)
        *ret_fate = second_given;
}

static int put_hedged(struct scene *scene, const char *key, struct fake_fate first, struct fake_fate second)
{
    struct error error;
    uint64_t before = scene->fake->requests;
    scene->fake->fate = two_given;
    give_next(scene, first);
    second_given = second;
    int failed = try_put(scene->store, key, "mine", STORE_ABSENT, NULL, &error);
    assert_int_equal(scene->fake->requests - before, 2);
    return failed;
}

static void hedged_puts(struct scene *scene)
{
    warm_up(scene);
    const struct fake_fate usual = { .way_there_ns = 10 * MS, .way_back_ns = 10 * MS };
    const struct fake_fate stalls = { .lost = true, .way_back_ns = 100 * NS_PER_S };
    const struct fake_fate late = { .way_there_ns = 5 * NS_PER_S };
    const struct fake_fate slow_answer = { .way_back_ns = NS_PER_S };
    const struct fake_fate answer_lost = { .way_back_ns = NS_PER_S, .fail = ECONNRESET };
    const struct fake_fate lost = { .lost = true, .way_back_ns = NS_PER_S, .fail = ECONNRESET };
    uint64_t start_ns = loop_now_ns(scene->loop);
    /* The double is applied; the first never, or later, when it is refused. */
    assert_int_equal(put_hedged(scene, "1", stalls, usual), 0);
    assert_int_equal(put_hedged(scene, "2", late, usual), 0);
    assert_int_equal(loop_now_ns(scene->loop) - start_ns, 160 * MS);
    /* The first is applied, and its double refused: what counts is the first's answer. */
    assert_int_equal(put_hedged(scene, "3", slow_answer, usual), 0);
    /* When that never comes, nobody knows. */
    assert_int_equal(put_hedged(scene, "4", answer_lost, usual), -ECONNRESET);
    assert_there(scene, "4", "mine");
    assert_int_equal(put_hedged(scene, "5", lost, lost), -ECONNRESET);
    assert_there(scene, "5", NULL);
    /* Somebody else's is there: both are refused. */
    assert_int_equal(put_text(scene->fake->objects, "p/6", "other", STORE_ABSENT, NULL, NULL), 0);
    assert_int_equal(put_hedged(scene, "6", slow_answer, usual), -EEXIST);
    assert_int_equal(put_text(scene->fake->objects, "p/7", "other", STORE_ABSENT, NULL, NULL), 0);
    assert_int_equal(put_hedged(scene, "7", lost, usual), -ECONNRESET);
    sleep_ns(20 * NS_PER_S);
    assert_there(scene, "2", "mine");
    assert_there(scene, "3", "mine");
}

/* With another condition, or none, there is one request. */
static void unhedged_puts(struct scene *scene)
{
    warm_up(scene);
    char etag[STORE_ETAG_MAX], next[STORE_ETAG_MAX];
    assert_int_equal(put_text(scene->store, "r", "1", STORE_ABSENT, NULL, etag), 0);
    for (char number = '2'; number < '9'; number++) {
        char text[2] = { number, '\0' };
        give_next(scene, (struct fake_fate){ .way_back_ns = NS_PER_S });
        uint64_t before = scene->fake->requests;
        assert_int_equal(put_text(scene->store, "r", text, STORE_MATCHES, etag, next), 0);
        memcpy(etag, next, sizeof etag);
        give_next(scene, (struct fake_fate){ .way_back_ns = NS_PER_S });
        assert_int_equal(put_text(scene->store, "s", text, STORE_ANY, NULL, NULL), 0);
        assert_int_equal(scene->fake->requests - before, 2);
    }
}

static void test_hedged_puts(void **state)
{
    struct scene first = { .seed = 5, .setup.hedge_percent = 100 };
    play_with(&first, hedged_puts);
    struct scene second = { .seed = 5, .setup.hedge_percent = 100 };
    play_with(&second, unhedged_puts);
}

/* ---- turns, and being cancelled ---- */

struct putter {
    struct scene *scene;
    char key[32];
    bool urgent;
    uint64_t attempt_ms;
    int result;
    uint64_t ended_ns;
};

static void run_put(void *arg)
{
    struct putter *putter = arg;
    struct iovec piece = { .iov_base = (void *)(uintptr_t) "x", .iov_len = 1 };
    const struct store_put put = { .key = putter->key,
                                   .pieces = &piece,
                                   .count = 1,
                                   .condition = STORE_ABSENT,
                                   .urgent = putter->urgent,
                                   .attempt_ms = putter->attempt_ms };
    putter->result = store_put(putter->scene->store, &put, NULL, NULL);
    putter->ended_ns = loop_now_ns(putter->scene->loop);
}

/* ---- what guards a payload ---- */

#define UPLOAD_BYTES ((size_t)200000)
#define PROBES_SEEN 8

struct payloads {
    int by_hash, by_checksum; /* uploads */
    int probes;
    char probed[PROBES_SEEN][16]; /* their checksums */
    int right_status, wrong_status;
    const char *wrong_code;
} payloads;

static void note_payload(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    if (strcmp(request->method, "PUT") != 0)
        return;
    bool summed = request->checksum[0] != '\0';
    assert_true(summed == (strcmp(request->payload_hash, "UNSIGNED-PAYLOAD") == 0));
    if (strcmp(request->key, "p/probe/checksum") != 0) {
        payloads.by_checksum += summed;
        payloads.by_hash += !summed;
        return;
    }
    assert_true(summed && payloads.probes < PROBES_SEEN);
    int earlier = payloads.probes++;
    snprintf(payloads.probed[earlier], sizeof payloads.probed[0], "%s", request->checksum);
    bool wrong = earlier > 0 && strcmp(request->checksum, payloads.probed[0]) != 0;
    ret_fate->status = wrong ? payloads.wrong_status : payloads.right_status;
    ret_fate->code = wrong ? payloads.wrong_code : NULL;
    ret_fate->applied = ret_fate->status == 200;
}

static void upload(struct scene *scene, char name, size_t length)
{
    char key[] = { 'k', '/', name, '\0' };
    char *bytes = memory_new(length);
    memset(bytes, name, length);
    struct iovec pieces[] = { { bytes, 1000 }, { bytes + 1000, length - 1000 } };
    struct store_put put = { .key = key, .pieces = pieces, .count = 2, .condition = STORE_ABSENT };
    struct error error = ERROR_NONE;
    assert_int_equal(store_put(scene->store, &put, NULL, &error), 0);
    free(bytes);
}

static void payloads_of_a_store(struct scene *scene)
{
    scene->fake->fate = note_payload;
    s3_of(scene->store)->traits = s3_traits(scene->store);
    upload(scene, 'a', 60000); /* small ones are hashed anywhere */
    upload(scene, 'b', UPLOAD_BYTES);
    upload(scene, 'c', UPLOAD_BYTES);
}

static void expect_payloads(const char *endpoint, struct payloads store, int probes, int by_checksum)
{
    struct scene scene = { .seed = 7, .setup.endpoint = endpoint };
    payloads = store;
    play_with(&scene, payloads_of_a_store);
    assert_int_equal(payloads.probes, probes);
    assert_int_equal(payloads.by_checksum, by_checksum);
    assert_int_equal(payloads.by_hash, 3 - by_checksum);
}

static void test_payloads_are_guarded(void **state)
{
    static const char here[] = "http://127.0.0.1:9000", tls[] = "https://fake:9000", open[] = "http://fake:9000";
    const struct payloads compares = { .wrong_status = 400, .wrong_code = "BadDigest" };
    expect_payloads(here, compares, 2, 2);
    expect_payloads(tls, compares, 2, 2);
    expect_payloads(open, compares, 0, 0); /* somebody on the way could forge both */
    const struct payloads of_minio = { .wrong_status = 400, .wrong_code = "XAmzContentChecksumMismatch" };
    expect_payloads(tls, of_minio, 2, 2);
    expect_payloads(tls, (struct payloads){ .wrong_status = 0 }, 2, 0);   /* takes any */
    expect_payloads(tls, (struct payloads){ .right_status = 501 }, 1, 0); /* knows of none */
    expect_payloads(tls, (struct payloads){ .wrong_status = 400, .wrong_code = "MalformedXML" }, 2, 0);
    expect_payloads(tls, (struct payloads){ .right_status = 503 }, 1, 0);
}

#define PUTTERS 12

static void puts_take_turns(struct scene *scene)
{
    struct putter putters[PUTTERS];
    struct task *tasks[PUTTERS];
    struct group group;
    group_init(&group, scene->loop);
    scene->fake->fate = all_given;
    scene->given.way_there_ns = NS_PER_S;
    uint64_t start_ns = loop_now_ns(scene->loop);
    for (int i = 0; i < PUTTERS; i++) {
        putters[i] = (struct putter){ .scene = scene, .urgent = i == PUTTERS - 1 };
        snprintf(putters[i].key, sizeof putters[i].key, "k/%d", i);
        tasks[i] = group_spawn(&group, "putter", run_put, &putters[i]);
    }
    sleep_ns(NS_PER_S / 2);
    assert_int_equal(scene->fake->in_flight, 3);
    task_cancel(tasks[0]);  /* on its way: it lands all the same */
    task_cancel(tasks[10]); /* in the queue */
    group_join(&group);
    assert_int_equal(scene->fake->in_flight_most, 3 + 1); /* what is cut off goes on, beside its successor */
    for (int i = 0; i < PUTTERS; i++)
        assert_int_equal(putters[i].result, i == 0 || i == 10 ? -ECANCELED : 0);
    assert_int_equal(putters[PUTTERS - 1].ended_ns - start_ns, NS_PER_S);
    assert_int_equal(putters[9].ended_ns - start_ns, 5 * NS_PER_S);
    assert_there(scene, "k/0", "x");
    assert_there(scene, "k/10", NULL);
    assert_int_equal(s3_of(scene->store)->uploads.used, 0);
}

static void test_puts_take_turns(void **state)
{
    struct scene scene = { .seed = 5, .setup.uploads = 2, .setup.reads = 2 };
    play_with(&scene, puts_take_turns);
}

/* Requests with a limit of their own wait for nobody, and are cut off at it; whatever the store asks for. */
static void limited_attempts(struct scene *scene)
{
    struct putter putters[PUTTERS];
    struct group group;
    char bytes[8];
    struct iovec piece = { .iov_base = bytes, .iov_len = sizeof bytes };
    const struct store_get get = { .key = "a", .pieces = &piece, .count = 1, .attempt_ms = 3000 };
    struct store_got got;
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    assert_int_equal(store_date_ms(scene->store) / 1000, loop_wall_ns(scene->loop) / NS_PER_S);
    s3_patient(scene->store);
    group_init(&group, scene->loop);
    scene->fake->fate = all_given;
    scene->given.way_there_ns = 5 * NS_PER_S;
    for (int i = 0; i < PUTTERS; i++) { /* the slots are taken, and nothing is answered before 5 s */
        putters[i] = (struct putter){ .scene = scene, .attempt_ms = i == PUTTERS - 1 ? 3000 : 0 };
        snprintf(putters[i].key, sizeof putters[i].key, "k/%d", i);
        group_spawn(&group, "putter", run_put, &putters[i]);
    }
    sleep_ns(NS_PER_MS);
    assert_int_equal(scene->fake->in_flight, 3);
    uint64_t start_ns = loop_now_ns(scene->loop);
    assert_int_equal(store_get(scene->store, &get, &got, NULL), -ETIMEDOUT);
    assert_int_equal(loop_now_ns(scene->loop) - start_ns, 3 * NS_PER_S);
    assert_int_equal(putters[PUTTERS - 1].result, -ETIMEDOUT);
    group_join(&group);
    assert_there(scene, "k/11", "x");
    scene->given = (struct fake_fate){ .status = 503, .code = "SlowDown", .retry_after_ms = 60000 };
    start_ns = loop_now_ns(scene->loop);
    snprintf(putters[0].key, sizeof putters[0].key, "other");
    putters[0].attempt_ms = 3000;
    run_put(&putters[0]);
    assert_true(putters[0].result < 0);
    assert_int_equal(loop_now_ns(scene->loop), start_ns);
    scene->given = (struct fake_fate){ .way_there_ns = NS_PER_S };
    assert_int_equal(store_get(scene->store, &get, &got, NULL), 0);
    assert_int_equal(got.length, 4);
}

static void test_limited_attempts(void **state)
{
    struct scene scene = { .seed = 5, .setup.uploads = 2, .setup.reads = 2 };
    play_with(&scene, limited_attempts);
}

/* Cancelled at any moment, with and without a double, nothing is left behind. */
static void cancelled_anywhere(struct scene *scene)
{
    warm_up(scene);
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    s3_patient(scene->store);
    for (uint64_t at = 0; at < 200 * MS; at += 7 * MS) {
        struct getter getter = { .scene = scene };
        struct putter putter = { .scene = scene };
        struct group group;
        group_init(&group, scene->loop);
        scene->fake->fate = all_given;
        scene->given = (struct fake_fate){ .way_there_ns = 50 * MS,
                                           .way_back_ns = 80 * MS,
                                           .status = at / (7 * MS) % 3 == 0 ? 500 : 0 };
        snprintf(putter.key, sizeof putter.key, "c/%llu", (unsigned long long)at);
        group_spawn(&group, "reader", read_a, &getter);
        group_spawn(&group, "putter", run_put, &putter);
        sleep_ns(at);
        group_cancel(&group);
        group_join(&group);
        if (at < 130 * MS) {
            assert_int_equal(getter.result, -ECANCELED);
            assert_int_equal(putter.result, -ECANCELED);
        }
        assert_int_equal(s3_of(scene->store)->uploads.used, 0);
        assert_int_equal(s3_of(scene->store)->reads.used, 0);
    }
}

static void test_cancelled_anywhere(void **state)
{
    struct scene scene = { .seed = 5, .setup.hedge_percent = 100 };
    play_with(&scene, cancelled_anywhere);
}

/* ---- clocks and credentials ---- */

static void a_clock_that_is_off(struct scene *scene)
{
    struct error error;
    put_text(scene->store, "a", "text", STORE_ANY, NULL, NULL);
    assert_int_equal(s3_clock_skew_s(scene->store), 0);
    for (int i = 0; i < 3; i++) {
        scene->fake->ahead_s = (int64_t[]){ 1200, -7200, 100 }[i];
        uint64_t before = scene->fake->requests;
        char key[8] = { (char)('b' + i), '\0' };
        assert_int_equal(try_put(scene->store, key, "text", STORE_ABSENT, NULL, &error), 0);
        assert_int_equal(scene->fake->requests - before, 2);
        assert_int_equal(s3_clock_skew_s(scene->store), scene->fake->ahead_s);
        assert_int_equal(get_text(scene->store, "a", "text"), 0);
        assert_int_equal(scene->fake->requests - before, 3);
        assert_int_equal(scene->warnings, i + 1);
    }
    /* A store that refuses the very time that it tells: another part of it may know better. */
    uint64_t before = scene->fake->requests;
    give(scene, 100, (struct fake_fate){ .status = 403, .code = "RequestTimeTooSkewed" });
    assert_int_equal(try_put(scene->store, "x", "text", STORE_ABSENT, NULL, &error), -EIO);
    assert_non_null(strstr(error.story, "set this host's clock"));
    assert_int_equal(scene->fake->requests - before, 1);
    give(scene, 3, (struct fake_fate){ .status = 403, .code = "RequestTimeTooSkewed" });
    assert_int_equal(get_text(scene->store, "a", "text"), 0);
}

static void test_a_clock_that_is_off(void **state)
{
    play(a_clock_that_is_off);
}

static void wrong_keys(struct scene *scene)
{
    struct error error;
    char bytes[4];
    struct store_got got;
    scene->fake->access_key = "AKOTHER";
    assert_int_equal(get_some(scene->store, "a", 0, bytes, 4, &got, &error), -EACCES);
    assert_int_equal(scene->fake->requests, 1);
    assert_non_null(strstr(error.story, "403 InvalidAccessKeyId"));
    assert_non_null(strstr(error.story, s3_credentials_source(scene->store)));
    assert_int_equal(try_put(scene->store, "a", "b", STORE_MATCHES, "\"1\"", &error), -EACCES);
}

static void test_wrong_keys(void **state)
{
    play(wrong_keys);
}

#define REFRESHERS 20

/* Credentials that expire under load: all who are refused wait for one refresh, and nobody sees an error. */
static void expiring_credentials(struct scene *scene)
{
    struct error error;
    assert_int_equal(try_put(scene->store, "a", "text", STORE_ABSENT, NULL, &error), 0);
    assert_int_equal(scene->fake->issued, 1);
    for (int round = 0; round < 3; round++) {
        struct getter readers[REFRESHERS];
        struct putter putters[REFRESHERS];
        struct group group;
        static const char *const keys[] = { "AKSECOND", "AKTHIRD", "AKFOURTH" };
        scene->fake->access_key = keys[round];
        scene->fake->fate = some_delay;
        sleep_ns(11 * NS_PER_S); /* the chain does not ask again at once */
        group_init(&group, scene->loop);
        for (int i = 0; i < REFRESHERS; i++) {
            readers[i] = (struct getter){ .scene = scene };
            putters[i] = (struct putter){ .scene = scene };
            snprintf(putters[i].key, sizeof putters[i].key, "e/%d/%d", round, i);
            group_spawn(&group, "reader", read_a, &readers[i]);
            group_spawn(&group, "putter", run_put, &putters[i]);
        }
        group_join(&group);
        for (int i = 0; i < REFRESHERS; i++) {
            if (readers[i].result != 0)
                fail_msg("%s", readers[i].error.story);
            assert_int_equal(putters[i].result, 0);
        }
        assert_int_equal(scene->fake->issued, round + 2);
    }
    assert_int_equal(scene->warnings, 0);
}

static void test_expiring_credentials(void **state)
{
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1" FAKE_CREDENTIALS_PATH, 1);
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
    struct scene scene = { .seed = 5, .setup.secret_key = "" /* none given */ };
    scene.setup.uploads = scene.setup.reads = 64;
    play_with(&scene, expiring_credentials);
    unsetenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    unsetenv("AWS_CONFIG_FILE");
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
}

/* ---- the bucket ---- */

static void buckets(struct scene *scene)
{
    struct error error = ERROR_NONE;
    char region[64] = "", status[16] = "", rule[128] = "?";
    bool expires = true;
    uint8_t *bytes;
    size_t length;
    assert_int_equal(s3_bucket_check(scene->store, region, &error), 0);
    assert_string_equal(s3_server_name(scene->store), "Fake");
    assert_int_equal(s3_bucket_create(scene->store, &error), 0); /* ours already */
    assert_int_equal(s3_bucket_versioning(scene->store, status, &error), 0);
    assert_string_equal(status, "Suspended");
    for (int i = 0; i < 2; i++) {
        uint64_t before = scene->fake->requests;
        scene->fake->without_lifecycle = i == 1;
        assert_int_equal(s3_bucket_expires(scene->store, &expires, rule, &error), 0);
        assert_false(expires);
        assert_int_equal(scene->fake->requests - before, 1);
    }
    scene->fake->bucket_missing = true;
    assert_int_equal(s3_bucket_check(scene->store, region, &error), -ENOENT);
    assert_non_null(strstr(error.story, "bucket bucket: the store answered 404 NoSuchBucket"));
    assert_int_equal(store_get_whole(scene->store, "a", 10, &bytes, &length, NULL, &error), -ENXIO);
    assert_int_equal(put_text(scene->store, "a", "x", STORE_MATCHES, "\"e\"", NULL), -ENXIO);
    assert_int_equal(s3_bucket_create(scene->store, &error), 0);
    assert_int_equal(s3_bucket_check(scene->store, region, &error), 0);

    scene->fake->bucket_of_others = true;
    assert_int_equal(s3_bucket_create(scene->store, &error), -EEXIST);
    assert_int_equal(s3_bucket_check(scene->store, region, &error), -EACCES);
    scene->fake->bucket_of_others = false;

    scene->fake->region = "elsewhere-1";
    assert_int_equal(s3_bucket_check(scene->store, region, &error), -EXDEV);
    assert_string_equal(region, "elsewhere-1");
    assert_non_null(strstr(error.story, "in region elsewhere-1, not us-east-1"));
    assert_int_equal(store_get_whole(scene->store, "a", 10, &bytes, &length, NULL, &error), -EXDEV);
}

static void other_regions(struct scene *scene)
{
    struct error error = ERROR_NONE;
    scene->fake->bucket_missing = true;
    scene->fake->constraint_refused = true;
    assert_int_equal(s3_bucket_create(scene->store, &error), 0);
    assert_int_equal(scene->fake->requests, 2);
}

static void test_buckets(void **state)
{
    play(buckets);
    struct scene scene = { .seed = 5, .setup.region = "home" };
    play_with(&scene, other_regions);
}

/* ---- written once, whatever happens ---- */

static void any_fate(void *arg, const struct fake_request *request, struct fake_fate *ret_fate)
{
    struct scene *scene = arg;
    static const struct fake_fate fates[] = {
        { .status = 500 },
        { .status = 500, .applied = true },
        { .status = 503, .code = "SlowDown" },
        { .status = 409, .code = "ConditionalRequestConflict" },
        { .status = 200, .code = "InternalError", .applied = true },
        { .status = 200, .applied = true },
        { .fail = ECONNRESET },
        { .fail = ECONNRESET, .lost = true },
        { .garble = true },
        { .lost = true, .way_back_ns = 20 * NS_PER_S },
        { .way_back_ns = 20 * NS_PER_S },
        { .edit = shift_range },
        { .edit = no_etag },
    };
    if (world_chance(scene->world, 500))
        *ret_fate = fates[world_random(scene->world, sizeof fates / sizeof *fates)];
    ret_fate->way_there_ns += world_random(scene->world, 40 * MS);
    if (world_chance(scene->world, 100))
        ret_fate->way_there_ns += world_random(scene->world, 5 * NS_PER_S);
    ret_fate->way_back_ns += world_random(scene->world, 40 * MS);
}

struct author {
    struct scene *scene;
    int number, slot, result;
};

#define SLOTS 6
#define AUTHORS 3 /* of each slot */

static void write_slot(void *arg)
{
    struct author *author = arg;
    char key[32], text[64];
    snprintf(key, sizeof key, "log/%d", author->slot);
    snprintf(text, sizeof text, "slot %d by %d", author->slot, author->number);
    struct iovec piece = { .iov_base = text, .iov_len = strlen(text) };
    struct put_once put = { .store = author->scene->store, .key = key, .pieces = &piece, .count = 1, .urgent = true };
    author->result = put_once(&put, NULL);
}

static void written_once(struct scene *scene)
{
    struct author authors[SLOTS][AUTHORS];
    struct group group;
    warm_up(scene);
    s3_patient(scene->store);
    scene->fake->fate = any_fate;
    group_init(&group, scene->loop);
    for (int slot = 0; slot < SLOTS; slot++)
        for (int i = 0; i < AUTHORS; i++) {
            authors[slot][i] = (struct author){ .scene = scene, .number = i, .slot = slot };
            group_spawn(&group, "author", write_slot, &authors[slot][i]);
        }
    group_join(&group);
    scene->fake->fate = NULL;
    for (int slot = 0; slot < SLOTS; slot++) {
        int winners = 0;
        for (int i = 0; i < AUTHORS; i++) {
            char key[32], text[64];
            snprintf(key, sizeof key, "log/%d", slot);
            snprintf(text, sizeof text, "slot %d by %d", slot, i);
            assert_true(authors[slot][i].result == 0 || authors[slot][i].result == -EEXIST);
            if (authors[slot][i].result == 0)
                assert_there(scene, key, text);
            winners += authors[slot][i].result == 0;
        }
        assert_int_equal(winners, 1);
    }
}

static void test_written_once(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct scene scene = { .seed = seed, .setup.hedge_percent = seed % 2 == 0 ? 100 : 0 };
        play_with(&scene, written_once);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_early_end),
        cmocka_unit_test(test_reads_are_tried_again),
        cmocka_unit_test(test_the_budget_ends_it),
        cmocka_unit_test(test_an_outage),
        cmocka_unit_test(test_a_long_outage),
        cmocka_unit_test(test_an_answer_that_never_comes),
        cmocka_unit_test(test_now_and_then),
        cmocka_unit_test(test_outcomes_of_puts),
        cmocka_unit_test(test_slow_connections),
        cmocka_unit_test(test_throttled_puts),
        cmocka_unit_test(test_etag_forms),
        cmocka_unit_test(test_hints_about_etags),
        cmocka_unit_test(test_damaged_answers),
        cmocka_unit_test(test_changing_sizes),
        cmocka_unit_test(test_hedged_gets),
        cmocka_unit_test(test_hedging_has_limits),
        cmocka_unit_test(test_hedged_puts),
        cmocka_unit_test(test_payloads_are_guarded),
        cmocka_unit_test(test_puts_take_turns),
        cmocka_unit_test(test_limited_attempts),
        cmocka_unit_test(test_cancelled_anywhere),
        cmocka_unit_test(test_a_clock_that_is_off),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_expiring_credentials),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_written_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
