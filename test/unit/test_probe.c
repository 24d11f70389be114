/* The probe: a store that keeps its promises passes, and each way of lying is caught by the check that is there for it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/in_loop.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/wait.h"
#include "store/probe.h"
#include "store/store.h"

enum lie {
    HONEST,
    IGNORES_IF_NONE_MATCH,
    IGNORES_IF_MATCH,
    REPLACES_WHAT_IS_ABSENT,
    REFUSES_AND_WRITES,
    REFUSES_MATCHES, /* whatever the ETag */
    REFUSES_ABSENT,  /* whatever is there */
    RACES_TO_CREATE,
    RACES_TO_REPLACE,
    KEEPS_THE_LOSER, /* of a race: one winner is told, another's content stays */
    NOBODY_WINS,     /* of a race: all are refused, and nothing is written */
    STALE_GETS,
    STALE_LISTS,
    FORGETS_TO_DELETE,
    ETAG_STAYS,
    OTHER_ETAG_IN_READS,
    IGNORES_RANGES,
    NOT_IMPLEMENTED, /* conditions are, as an error */
    /* No lies: */
    LOSES_ANSWERS, /* the client beneath sends again, and hears that it is there */
    SOME_RACERS_FAIL,
    FAILS_OFTEN, /* two of three puts, applied or not */
    UNREACHABLE,
};

struct liar {
    struct store store;
    struct store *inner;
    enum lie lie;
    const char *name;
    unsigned gets, puts, lists, requests;
    unsigned racing, raced; /* puts under way now; that have begun since there were none */
    char stale[256];        /* content of one key before its last write */
    char stale_key[STORE_KEY_MAX];
    size_t stale_length;
};

static struct liar *liar_of(struct store *store)
{
    return container_of(store, struct liar, store);
}

/* The store as it was before the last write to the key; every third look only, as of one replica in three. */
static bool stale(struct liar *liar, unsigned number, const struct store_get *get, struct store_got *ret_got)
{
    if (liar->lie != STALE_GETS || number % 3 != 0 || strcmp(get->key, liar->stale_key) != 0)
        return false;
    memcpy(get->pieces[0].iov_base, liar->stale, liar->stale_length);
    *ret_got = (struct store_got){ .length = liar->stale_length, .size = liar->stale_length, .etag = "old" };
    return true;
}

static void remember(struct liar *liar, const char *key)
{
    struct iovec piece = { .iov_base = liar->stale, .iov_len = sizeof liar->stale };
    struct store_get get = { .key = key, .pieces = &piece, .count = 1 };
    struct store_got got;

    if (liar->lie != STALE_GETS || store_get(liar->inner, &get, &got, NULL) < 0)
        return;
    strcpy(liar->stale_key, key);
    liar->stale_length = (size_t)got.length;
}

static int liar_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct liar *liar = liar_of(store);
    struct store_get other = *get;

    unsigned number = ++liar->gets;
    liar->requests++;
    coroutine_yield();
    if (liar->lie == UNREACHABLE)
        return error_set(error, ECONNREFUSED, "nobody answers");
    if (stale(liar, number, get, ret_got))
        return 0;
    if (liar->lie == IGNORES_RANGES)
        other.offset = 0;
    int result = store_get(liar->inner, &other, ret_got, error);
    if (result == 0 && liar->lie == OTHER_ETAG_IN_READS)
        strcat(ret_got->etag, "-read");
    return result;
}

/* Whether the condition holds. */
static bool holds(struct liar *liar, const struct store_put *put)
{
    char byte;
    struct iovec piece = { .iov_base = &byte, .iov_len = 1 };
    struct store_get get = { .key = put->key, .pieces = &piece, .count = 1 };
    struct store_got got;
    bool there = store_get(liar->inner, &get, &got, NULL) == 0;

    return put->condition == STORE_ANY ||
           (put->condition == STORE_ABSENT ? !there : there && strcmp(got.etag, put->etag) == 0);
}

static int refuse(const struct store_put *put, struct error *error)
{
    return error_set(error, put->condition == STORE_ABSENT ? EEXIST : ESTALE, "refused");
}

static int put_any(struct liar *liar, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct store_put any = *put;

    any.condition = STORE_ANY;
    remember(liar, put->key);
    int result = store_put(liar->inner, &any, ret_etag, error);
    if (result == 0 && liar->lie == ETAG_STAYS && ret_etag != NULL)
        strcpy(ret_etag, "always");
    return result;
}

/* How a put with a condition is answered by a store that lies about them; -EAGAIN: it does not lie about this one. */
static int lie_about(struct liar *liar, unsigned number, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                     struct error *error)
{
    bool create = put->condition == STORE_ABSENT, true_one = holds(liar, put), race = liar->raced > 1;

    switch (liar->lie) {
    case NOT_IMPLEMENTED:
        return error_set(error, ENOTSUP, "501 NotImplemented");
    case IGNORES_IF_NONE_MATCH:
        return create ? put_any(liar, put, ret_etag, error) : -EAGAIN;
    case IGNORES_IF_MATCH:
        return create ? -EAGAIN : put_any(liar, put, ret_etag, error);
    case REPLACES_WHAT_IS_ABSENT:
        return !create && strstr(put->key, "absent") != NULL ? put_any(liar, put, ret_etag, error) : -EAGAIN;
    case REFUSES_AND_WRITES:
        if (true_one)
            return -EAGAIN;
        put_any(liar, put, ret_etag, error);
        return refuse(put, error);
    case REFUSES_MATCHES:
        return create ? -EAGAIN : refuse(put, error);
    case REFUSES_ABSENT:
        return create ? refuse(put, error) : -EAGAIN;
    case RACES_TO_CREATE:
    case RACES_TO_REPLACE:
        if (create != (liar->lie == RACES_TO_CREATE) || !true_one)
            return -EAGAIN;
        coroutine_yield();
        return put_any(liar, put, ret_etag, error);
    case KEEPS_THE_LOSER:
        if (!race || true_one)
            return -EAGAIN;
        put_any(liar, put, ret_etag, error);
        return refuse(put, error);
    case NOBODY_WINS:
        return race || strstr(put->key, "-create-") != NULL ? refuse(put, error) : -EAGAIN;
    case LOSES_ANSWERS:
        if (!true_one)
            return -EAGAIN;
        put_any(liar, put, ret_etag, error);
        return refuse(put, error);
    case SOME_RACERS_FAIL:
        return race && number % 3 == 0 ? error_set(error, EIO, "500 InternalError") : -EAGAIN;
    case FAILS_OFTEN:
        if (number % 3 == 0)
            return -EAGAIN;
        if (number % 3 == 1 && true_one)
            put_any(liar, put, ret_etag, error);
        return error_set(error, EIO, "503 ServiceUnavailable");
    default:
        return -EAGAIN;
    }
}

static int liar_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                    struct error *error)
{
    struct liar *liar = liar_of(store);

    unsigned number = ++liar->puts;
    liar->requests++;
    liar->raced = liar->racing == 0 ? 1 : liar->raced + 1;
    liar->racing++;
    coroutine_yield();
    int result = -EAGAIN;
    if (liar->lie == UNREACHABLE)
        result = error_set(error, ECONNREFUSED, "nobody answers");
    else if (put->condition != STORE_ANY)
        result = lie_about(liar, number, put, ret_etag, error);
    if (result == -EAGAIN)
        result = holds(liar, put) ? put_any(liar, put, ret_etag, error) : refuse(put, error);
    liar->racing--;
    return result;
}

static int liar_delete(struct store *store, const char *key, struct error *error)
{
    struct liar *liar = liar_of(store);

    liar->requests++;
    coroutine_yield();
    return liar->lie == FORGETS_TO_DELETE ? 0 : store_delete(liar->inner, key, error);
}

static int liar_list(struct store *store, const char *prefix, const char *after, size_t limit,
                     struct store_listing *ret_listing, struct error *error)
{
    struct liar *liar = liar_of(store);

    unsigned number = ++liar->lists;
    liar->requests++;
    coroutine_yield();
    if (liar->lie == STALE_LISTS && number % 3 == 0) {
        *ret_listing = (struct store_listing){ 0 };
        return 0;
    }
    return store_list(liar->inner, prefix, after, limit, ret_listing, error);
}

static uint64_t liar_date_ms(struct store *store)
{
    return 0;
}

static void liar_describe(struct store *store, char *ret_text, size_t capacity)
{
    snprintf(ret_text, capacity, "%s", liar_of(store)->name);
}

static void liar_close(struct store *store)
{
    store_close(liar_of(store)->inner);
    free(liar_of(store));
}

static const struct store_ops liar_ops = {
    .name = "liar",
    .get = liar_get,
    .put = liar_put,
    .delete = liar_delete,
    .list = liar_list,
    .date_ms = liar_date_ms,
    .describe = liar_describe,
    .close = liar_close,
};

static struct store *liar_new(struct mem *mem, enum lie lie)
{
    struct liar *liar = memory_new(sizeof *liar);

    liar->store.ops = &liar_ops;
    liar->inner = store_mem_open(mem);
    liar->lie = lie;
    liar->name = "a store";
    return &liar->store;
}

/* ---- runs ---- */

struct run {
    enum lie lie;
    int result;
    struct error error;
    unsigned passed, failed, skipped;
    char failed_name[64];
    size_t left; /* objects, when it was over */
};

static void told(void *arg, const struct probe_check *check)
{
    struct run *run = arg;

    assert_non_null(check->name);
    if (check->result == 0) {
        assert_int_equal(run->failed + run->skipped, 0);
        run->passed++;
    } else if (check->result == 1) {
        assert_int_equal(run->failed, 1);
        run->skipped++;
    } else {
        run->failed++;
        snprintf(run->failed_name, sizeof run->failed_name, "%s", check->name);
        assert_int_equal(check->error->code, -check->result);
    }
}

static size_t count_objects(struct mem *mem)
{
    struct store *store = store_mem_open(mem);
    struct store_listing listing;

    assert_int_equal(store_list(store, "", "", STORE_LIST_MAX, &listing, NULL), 0);
    size_t count = listing.count;
    store_listing_free(&listing);
    store_close(store);
    return count;
}

static void run_probe(struct loop *loop, void *arg)
{
    struct run *run = arg;
    struct mem *mem = mem_new();
    struct store *store = liar_new(mem, run->lie);

    run->result = probe_run(loop, store, told, run, &run->error);
    run->left = count_objects(mem);
    store_close(store);
    mem_free(mem);
}

static void test_good_stores(void **state)
{
    static const enum lie good[] = { HONEST, LOSES_ANSWERS, SOME_RACERS_FAIL, FAILS_OFTEN };

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct run run = { .lie = good[i] };
        in_sim_loop(i + 1, run_probe, &run);
        if (run.result != 0)
            fail_msg("store %zu: %s", i, run.error.story);
        assert_int_equal(run.passed, 11);
        assert_int_equal(run.failed + run.skipped, 0);
        assert_int_equal(run.left, 0);
    }
}

static void test_each_lie_is_caught(void **state)
{
    static const struct {
        enum lie lie;
        const char *check, *word;
    } cases[] = {
        { IGNORES_IF_NONE_MATCH, "create what exists", "ignores the header If-None-Match" },
        { REFUSES_ABSENT, "create what is absent", "refused though its condition held" },
        { REFUSES_MATCHES, "replace, given the current ETag", "refused though its condition held" },
        { IGNORES_IF_MATCH, "replace, given an old ETag", "ignores the header If-Match" },
        { REPLACES_WHAT_IS_ABSENT, "replace what is absent", "ignores the header If-Match" },
        { REFUSES_AND_WRITES, "create what exists", "refused, but has changed the object" },
        { RACES_TO_CREATE, "16 writers create at once", "of 16 writers were told to have succeeded" },
        { RACES_TO_REPLACE, "16 writers replace at once", "of 16 writers were told to have succeeded" },
        { KEEPS_THE_LOSER, "16 writers create at once", "the content is not the winner's" },
        { NOBODY_WINS, "16 writers create at once", "all of 16 writers were refused" },
        { STALE_GETS, "replace, given the current ETag", "found something else than what was written last" },
        { STALE_LISTS, "list what was written", "did not show what was written" },
        { FORGETS_TO_DELETE, "read and list after a delete", "found something else" },
        { ETAG_STAYS, "replace, given the current ETag", "" },
        { OTHER_ETAG_IN_READS, "replace, given the ETag of a read", "refused though its condition held" },
        { IGNORES_RANGES, "read a part", "other bytes were sent" },
        { NOT_IMPLEMENTED, "create what is absent", "501" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run run = { .lie = cases[i].lie };
        in_sim_loop(i + 1, run_probe, &run);
        if (run.result != -ENOTSUP)
            fail_msg("lie %d is not caught: %d, %s", cases[i].lie, run.result, run.error.story);
        assert_string_equal(run.failed_name, cases[i].check);
        assert_non_null(strstr(run.error.story, cases[i].check));
        if (strstr(run.error.story, cases[i].word) == NULL)
            fail_msg("lie %d: '%s' is not in: %s", cases[i].lie, cases[i].word, run.error.story);
        assert_non_null(strstr(run.error.story, "stores known to work: AWS S3"));
        assert_int_equal(run.passed + run.failed + run.skipped, 11);
        assert_int_equal(run.failed, 1);
        if (cases[i].lie != FORGETS_TO_DELETE)
            assert_int_equal(run.left, 0);
    }
}

static void test_no_answer_is_no_verdict(void **state)
{
    struct run run = { .lie = UNREACHABLE };

    in_sim_loop(1, run_probe, &run);
    assert_int_equal(run.result, -ECONNREFUSED);
    assert_non_null(strstr(run.error.story, "nobody answers"));
    assert_null(strstr(run.error.story, "stores known to work"));
}

/* ---- the verdict ---- */

static unsigned traits, kept;
static unsigned (*asked_for)(struct store *store);
static unsigned *traits_kept;

static unsigned tell_traits(struct store *store)
{
    return traits;
}

static unsigned ensure(struct loop *loop, struct store *store, int expected)
{
    struct error error = ERROR_NONE;
    unsigned before = liar_of(store)->requests;

    int result = probe_ensure(loop, store, asked_for, traits_kept, &error);
    if (result != expected)
        fail_msg("%d: %s", result, error.story);
    return liar_of(store)->requests - before;
}

static void overwrite_verdict(struct store *store, const char *text)
{
    struct iovec piece = { .iov_base = (char *)text, .iov_len = strlen(text) };
    struct store_put put = { .key = "probe/verdict", .pieces = &piece, .count = 1, .condition = STORE_ANY };

    assert_int_equal(store_put(store, &put, NULL, NULL), 0);
}

static void keep_verdict(struct loop *loop, void *arg)
{
    struct mem *mem = mem_new();
    struct store *store = liar_new(mem, HONEST);

    assert_true(ensure(loop, store, 0) > 100);
    assert_int_equal(ensure(loop, store, 0), 1);
    assert_int_equal(count_objects(mem), 1);
    sleep_ns((PROBE_VALID_S - 60) * NS_PER_S);
    assert_int_equal(ensure(loop, store, 0), 1);
    sleep_ns(61 * NS_PER_S);
    assert_true(ensure(loop, store, 0) > 100);
    assert_int_equal(ensure(loop, store, 0), 1);

    /* One of another store, that came along with a copy of its objects. */
    liar_of(store)->name = "another store";
    assert_true(ensure(loop, store, 0) > 100);

    static const char *const useless[] = { "",
                                           "\n",
                                           "cairn probe 2\n",
                                           "cairn probe 2\nanother store\npassed ",
                                           "cairn probe 2\nanother store\npassed 99999999999\n",
                                           "cairn probe 0\nanother store\npassed 1\n",
                                           "cairn probe 2\nanother store\npassed 1x\n",
                                           "cairn probe 2\nanother store\npassed 1\ntraits 0\nx" };
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++) {
        overwrite_verdict(store, useless[i]);
        assert_true(ensure(loop, store, 0) > 100);
    }
    char *huge = memory_resize(NULL, 100001, 1);
    memset(huge, 'x', 100000);
    huge[100000] = '\0';
    overwrite_verdict(store, huge);
    free(huge);
    assert_true(ensure(loop, store, 0) > 100);
    store_close(store);
    mem_free(mem);
}

/* What was found out with a probe is told by its verdict. */
static void keep_traits(struct loop *loop, void *arg)
{
    struct mem *mem = mem_new();
    struct store *store = liar_new(mem, HONEST);
    asked_for = tell_traits;
    traits_kept = &kept;
    for (int i = 0; i < 4; i++) {
        traits = (unsigned)i;
        assert_true(ensure(loop, store, 0) > 100);
        assert_int_equal(kept, i);
        traits = kept = 17;
        assert_int_equal(ensure(loop, store, 0), 1);
        assert_int_equal(kept, i);
        sleep_ns((PROBE_VALID_S + 1) * NS_PER_S);
    }
    overwrite_verdict(store, "");
    asked_for = NULL;
    traits_kept = NULL;
    assert_true(ensure(loop, store, 0) > 100);
    store_close(store);
    mem_free(mem);
}

static void test_traits_are_kept(void **state)
{
    in_sim_loop(1, keep_traits, NULL);
}

static void test_verdict_is_kept(void **state)
{
    in_sim_loop(1, keep_verdict, NULL);
}

static void refuse_each_time(struct loop *loop, void *arg)
{
    struct mem *mem = mem_new();
    struct store *store = liar_new(mem, IGNORES_IF_MATCH);

    assert_true(ensure(loop, store, -ENOTSUP) > 10);
    assert_int_equal(count_objects(mem), 0);
    assert_true(ensure(loop, store, -ENOTSUP) > 10);
    liar_of(store)->lie = UNREACHABLE;
    assert_int_equal(ensure(loop, store, -ECONNREFUSED), 1);
    store_close(store);
    mem_free(mem);
}

static void test_bad_verdict_is_not_kept(void **state)
{
    in_sim_loop(1, refuse_each_time, NULL);
}

/* ---- a real store ---- */

static void probe_directory(struct loop *loop, void *arg)
{
    struct error error = ERROR_NONE;
    struct run run = { 0 };
    struct store *store;

    assert_int_equal(store_dir_open(loop, arg, true, &store, &error), 0);
    run.result = probe_run(loop, store, told, &run, &error);
    if (run.result != 0)
        fail_msg("%s", error.story);
    assert_int_equal(run.passed, 11);
    store_close(store);
}

static void test_directory(void **state)
{
    char path[] = "/tmp/cairn-test-probe-XXXXXX", command[64];

    assert_non_null(mkdtemp(path));
    in_real_loop(probe_directory, path);
    snprintf(command, sizeof command, "rm -r %s", path);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_stores),
        cmocka_unit_test(test_each_lie_is_caught),
        cmocka_unit_test(test_no_answer_is_no_verdict),
        cmocka_unit_test(test_verdict_is_kept),
        cmocka_unit_test(test_traits_are_kept),
        cmocka_unit_test(test_bad_verdict_is_not_kept),
        cmocka_unit_test(test_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
