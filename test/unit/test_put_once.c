/* put_once() against every fate that a request can have; and the fault wrapper itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/in_loop.h"
#include "base/memory.h"
#include "rt/wait.h"
#include "store/fault.h"
#include "store/put_once.h"

#define KEY "v/x/log/00000000000000000001"

/* A world with a store in memory, seen directly and through a bad connection. */
struct bench {
    struct loop *loop;
    struct store *direct, *fault;
    unsigned troubles;
    int last_trouble;
    struct waitq hurry;
};

static const struct fault_settings plain = {
    .way_there = { 1 * NS_PER_MS, 9 * NS_PER_MS },
    .way_back = { 1 * NS_PER_MS, 9 * NS_PER_MS },
    .timeout = { 500 * NS_PER_MS, 1000 * NS_PER_MS },
    .late = { 1 * NS_PER_S, 60 * NS_PER_S },
};

struct run {
    void (*test)(struct bench *bench);
    struct mem *mem;
};

static void run_on_bench(struct loop *loop, void *arg)
{
    const struct run *run = arg;
    struct bench bench = { .loop = loop };
    bench.direct = store_mem_open(run->mem);
    bench.fault = store_fault_new(loop_sim_world(loop), store_mem_open(run->mem), &plain);
    waitq_init(&bench.hurry);
    run->test(&bench);
    store_close(bench.fault);
    store_close(bench.direct);
}

static uint64_t run_with_seed(uint64_t seed, void (*test)(struct bench *bench))
{
    struct run run = { .test = test, .mem = mem_new() };
    uint64_t hash = in_sim_loop(seed, run_on_bench, &run);
    mem_free(run.mem);
    return hash;
}

static void run_with_seeds(void (*test)(struct bench *bench))
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t hash = run_with_seed(seed, test);
        assert_true(hash == run_with_seed(seed, test));
    }
}

static void troubled(void *arg, const struct error *error)
{
    struct bench *bench = arg;
    bench->troubles++;
    bench->last_trouble = error->code;
    assert_string_not_equal(error->story, "");
}

static int put(struct bench *bench, const char *text, struct error *error)
{
    size_t half = strlen(text) / 2;
    char *copy = memory_string(text);
    struct iovec pieces[3] = { { copy, half }, { NULL, 0 }, { copy + half, strlen(text) - half } };
    const struct put_once once = { .store = bench->fault,
                                   .key = KEY,
                                   .pieces = pieces,
                                   .count = 3,
                                   .troubled = troubled,
                                   .arg = bench,
                                   .hurry = &bench->hurry };
    int failed = put_once(&once, error);
    free(copy);
    return failed;
}

static void put_direct(struct bench *bench, const char *text)
{
    char *copy = memory_string(text);
    struct iovec piece = { copy, strlen(text) };
    const struct store_put other = { .key = KEY, .pieces = &piece, .count = 1, .condition = STORE_ANY };
    assert_int_equal(store_put(bench->direct, &other, NULL, NULL), 0);
    free(copy);
}

static void assert_there(struct bench *bench, const char *text)
{
    uint8_t *bytes;
    size_t length;
    assert_int_equal(store_get_whole(bench->direct, KEY, 1000, &bytes, &length, NULL, NULL), 0);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(bytes, text, length);
    free(bytes);
}

/* What the request number `number` from now on will meet. */
static void script(struct bench *bench, uint64_t number, enum fault_fate fate, void (*reached)(void *arg))
{
    store_fault_script(bench->fault, store_fault_requests(bench->fault) + number, fate, reached, bench);
}

/* ---- put_once ---- */

static void all_well(struct bench *bench)
{
    assert_int_equal(put(bench, "commit one", NULL), 0);
    assert_there(bench, "commit one");
    assert_int_equal(bench->troubles, 0);
    assert_int_equal(store_fault_requests(bench->fault), 1);
}

static void one_fate(struct bench *bench, enum fault_fate fate, unsigned troubles, uint64_t requests)
{
    script(bench, 1, fate, NULL);
    assert_int_equal(put(bench, "commit one", NULL), 0);
    assert_there(bench, "commit one");
    assert_int_equal(bench->troubles, troubles);
    assert_int_equal(store_fault_requests(bench->fault), requests);
    /* Whatever is still to land changes nothing. */
    sleep_ns(100 * NS_PER_S);
    assert_there(bench, "commit one");
}

static void lost(struct bench *bench)
{
    one_fate(bench, FAULT_LOST, 1, 2);
    assert_int_equal(bench->last_trouble, ETIMEDOUT);
}

static void refused(struct bench *bench)
{
    one_fate(bench, FAULT_REFUSED, 1, 2);
    assert_int_equal(bench->last_trouble, EIO);
}

/* Applied: the second attempt finds it, and a get shows that it is ours. */
static void unanswered(struct bench *bench)
{
    one_fate(bench, FAULT_UNANSWERED, 1, 3);
}

static void failed_though_applied(struct bench *bench)
{
    one_fate(bench, FAULT_FAILED, 1, 3);
}

static void applied_late(struct bench *bench)
{
    one_fate(bench, FAULT_DELAYED, 1, 2);
}

static void repeated(struct bench *bench)
{
    one_fate(bench, FAULT_REPEATED, 0, 1);
}

/* Already the first answer is "exists", due to ourselves. */
static void resent(struct bench *bench)
{
    one_fate(bench, FAULT_RESENT, 0, 2);
}

static void trouble_in_the_read_back(struct bench *bench)
{
    script(bench, 1, FAULT_UNANSWERED, NULL);
    script(bench, 3, FAULT_REFUSED, NULL);
    script(bench, 5, FAULT_SHORT, NULL);
    assert_int_equal(put(bench, "commit one", NULL), 0);
    assert_there(bench, "commit one");
    assert_int_equal(bench->troubles, 3);
    assert_int_equal(store_fault_requests(bench->fault), 7);
}

static void assert_conflict(struct bench *bench, const char *there)
{
    struct error error = ERROR_NONE;
    assert_int_equal(put(bench, "commit one", &error), -EEXIST);
    assert_int_equal(error.code, EEXIST);
    assert_non_null(strstr(error.story, KEY));
    if (there != NULL)
        assert_there(bench, there);
}

static void conflicts(struct bench *bench)
{
    static const char *const others[] = { "", "c", "commit two", "commit onf", "commit one.", "commit on" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        put_direct(bench, others[i]);
        assert_conflict(bench, others[i]);
    }
    /* Also behind a lost answer. */
    script(bench, 1, FAULT_LOST, NULL);
    assert_conflict(bench, "commit on");
    assert_int_equal(bench->troubles, 1);
}

static void remove_it(void *arg)
{
    struct bench *bench = arg;
    store_delete(bench->direct, KEY, NULL);
}

/* There, and when it is read back not any more. */
static void gone_again(struct bench *bench)
{
    put_direct(bench, "commit two");
    script(bench, 1, FAULT_NONE, remove_it);
    assert_conflict(bench, NULL);
    struct iovec none = { 0 };
    const struct store_get get = { .key = KEY, .pieces = &none };
    struct store_got got;
    assert_int_equal(store_get(bench->direct, &get, &got, NULL), -ENOENT);
}

/* Larger than what is compared at once. */
static void large_bodies(struct bench *bench)
{
    enum { LENGTH = (2 << 20) + 12345 };
    uint8_t *bytes = memory_new(LENGTH);
    for (size_t i = 0; i < LENGTH; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 12));
    struct iovec pieces[5] = {
        { bytes, 1000000 }, { NULL, 0 }, { bytes + 1000000, 500 }, { bytes + 1000500, 48076 }, { bytes + 1048576, 0 },
    };
    pieces[4].iov_len = LENGTH - 1048576;
    const struct put_once once = {
        .store = bench->fault, .key = KEY, .pieces = pieces, .count = 5, .troubled = troubled, .arg = bench
    };
    script(bench, 1, FAULT_RESENT, NULL);
    assert_int_equal(put_once(&once, NULL), 0);
    bytes[LENGTH - 1] ^= 1;
    assert_int_equal(put_once(&once, NULL), -EEXIST);
    assert_int_equal(bench->troubles, 0);
    free(bytes);
}

struct putting {
    struct bench *bench;
    int result;
    uint64_t ended_ns;
};

static void put_in_task(void *arg)
{
    struct putting *putting = arg;
    putting->result = put(putting->bench, "commit one", NULL);
    putting->ended_ns = loop_now_ns(putting->bench->loop);
}

static void long_outage(struct bench *bench)
{
    struct fault_settings down = plain;
    down.refused_permille = 1000;
    store_fault_change(bench->fault, &down);
    struct putting putting = { .bench = bench, .result = 1 };
    struct group group;
    group_init(&group, bench->loop);
    group_spawn(&group, "put", put_in_task, &putting);
    sleep_ns(600 * NS_PER_S);
    /* Attempts grow rarer, but not rarer than every two seconds. */
    assert_in_range(bench->troubles, 290, 640);
    store_fault_change(bench->fault, &plain);
    uint64_t back_ns = loop_now_ns(bench->loop);
    group_join(&group);
    assert_int_equal(putting.result, 0);
    assert_true(putting.ended_ns - back_ns <= 3 * NS_PER_S);
    assert_there(bench, "commit one");
}

static void hurry_up(struct bench *bench)
{
    struct fault_settings down = plain;
    down.refused_permille = 1000;
    store_fault_change(bench->fault, &down);
    struct putting putting = { .bench = bench, .result = 1 };
    struct group group;
    group_init(&group, bench->loop);
    group_spawn(&group, "put", put_in_task, &putting);
    sleep_ns(60 * NS_PER_S);
    while (waitq_empty(&bench->hurry))
        sleep_ns(NS_PER_MS);
    store_fault_change(bench->fault, &plain);
    uint64_t back_ns = loop_now_ns(bench->loop);
    waitq_wake_all(&bench->hurry);
    group_join(&group);
    assert_int_equal(putting.result, 0);
    assert_true(putting.ended_ns - back_ns <= 18 * NS_PER_MS);
}

/* Whenever it is given up, its outcome is one of two, and it says so. */
static void given_up(struct bench *bench)
{
    struct fault_settings bad = plain;
    bad.refused_permille = bad.unanswered_permille = 400;
    store_fault_change(bench->fault, &bad);
    struct putting putting = { .bench = bench, .result = 1 };
    struct group group;
    group_init(&group, bench->loop);
    struct task *task = group_spawn(&group, "put", put_in_task, &putting);
    sleep_ns(loop_random_u64(bench->loop) % (3 * NS_PER_S));
    if (putting.result == 1)
        task_cancel(task);
    group_join(&group);
    assert_true(putting.result == 0 || putting.result == -ECANCELED);
    if (putting.result == 0)
        assert_there(bench, "commit one");
}

/* Two writers of one name, over a connection that does everything it can. */
static void two_writers(struct bench *bench)
{
    struct fault_settings bad = plain;
    bad.lost_permille = bad.refused_permille = bad.unanswered_permille = bad.failed_permille = 150;
    bad.delayed_permille = bad.repeated_permille = bad.resent_permille = bad.short_permille = 200;
    store_fault_change(bench->fault, &bad);
    struct putting putting = { .bench = bench, .result = 1 };
    struct group group;
    group_init(&group, bench->loop);
    group_spawn(&group, "put", put_in_task, &putting);
    int other = put(bench, "commit two", NULL);
    group_join(&group);
    assert_true((putting.result == 0 && other == -EEXIST) || (putting.result == -EEXIST && other == 0));
    assert_there(bench, other == 0 ? "commit two" : "commit one");
    sleep_ns(200 * NS_PER_S);
    assert_there(bench, other == 0 ? "commit two" : "commit one");
}

/* ---- the wrapper ---- */

static void cut_off(void *arg)
{
    struct bench *bench = arg;
    store_fault_cut(bench->fault);
}

static int put_and_be_cut(struct bench *bench, enum fault_fate fate)
{
    char text[] = "commit one";
    struct iovec piece = { text, strlen(text) };
    const struct store_put request = { .key = KEY, .pieces = &piece, .count = 1, .condition = STORE_ABSENT };
    struct store_listing listing;
    script(bench, 1, fate, cut_off);
    assert_int_equal(store_put(bench->fault, &request, NULL, NULL), -ENETDOWN);
    memset(text, 'x', sizeof text); /* its memory is ours again */
    assert_int_equal(store_delete(bench->fault, KEY, NULL), -ENETDOWN);
    assert_int_equal(store_list(bench->direct, "", "", 10, &listing, NULL), 0);
    int count = (int)listing.count;
    store_listing_free(&listing);
    return count;
}

static void cut_before_sending(struct bench *bench)
{
    assert_int_equal(put_and_be_cut(bench, FAULT_LOST), 0);
    sleep_ns(200 * NS_PER_S);
    struct store_listing listing;
    assert_int_equal(store_list(bench->direct, "", "", 10, &listing, NULL), 0);
    assert_int_equal(listing.count, 0);
    store_listing_free(&listing);
}

static void cut_when_applied(struct bench *bench)
{
    assert_int_equal(put_and_be_cut(bench, FAULT_UNANSWERED), 1);
    assert_there(bench, "commit one");
}

static void cut_and_applied_later(struct bench *bench)
{
    assert_int_equal(put_and_be_cut(bench, FAULT_DELAYED), 0);
    sleep_ns(200 * NS_PER_S);
    assert_there(bench, "commit one");
}

static void landed_after_closing(struct bench *bench)
{
    assert_int_equal(put_and_be_cut(bench, FAULT_DELAYED), 0);
    struct store_listing listing;
    store_close(bench->fault);
    sleep_ns(200 * NS_PER_S);
    assert_there(bench, "commit one");
    assert_int_equal(store_list(bench->direct, "", "", 10, &listing, NULL), 0);
    store_listing_free(&listing);
    bench->fault = NULL;
}

static void short_answers(struct bench *bench)
{
    put_direct(bench, "commit one");
    char bytes[32];
    struct iovec piece = { bytes, sizeof bytes };
    const struct store_get get = { .key = KEY, .pieces = &piece, .count = 1 };
    struct store_got got;
    struct error error = ERROR_NONE;
    script(bench, 1, FAULT_SHORT, NULL);
    assert_int_equal(store_get(bench->fault, &get, &got, &error), -EIO);
    assert_non_null(strstr(error.story, "5 bytes"));
    assert_int_equal(store_get(bench->fault, &get, &got, NULL), 0);
    assert_int_equal(got.length, 10);
}

struct asking {
    struct bench *bench;
    int number;
    int *order, *next;
};

static void ask_in_task(void *arg)
{
    struct asking *asking = arg;
    assert_int_equal(store_delete(asking->bench->fault, "x", NULL), 0);
    asking->order[(*asking->next)++] = asking->number;
}

/* Of 20 requests made at once some overtake others. */
static void overtaking(struct bench *bench)
{
    struct asking asking[20];
    int order[20], next = 0, overtaken = 0;
    struct group group;
    group_init(&group, bench->loop);
    for (int i = 0; i < 20; i++) {
        asking[i] = (struct asking){ .bench = bench, .number = i, .order = order, .next = &next };
        group_spawn(&group, "ask", ask_in_task, &asking[i]);
    }
    group_join(&group);
    assert_int_equal(next, 20);
    for (int i = 1; i < 20; i++)
        overtaken += order[i] < order[i - 1];
    assert_true(overtaken > 0);
}

#define SEEDS_TEST(name)                                                                                               \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        run_with_seeds(name);                                                                                          \
    }
SEEDS_TEST(all_well)
SEEDS_TEST(lost)
SEEDS_TEST(refused)
SEEDS_TEST(unanswered)
SEEDS_TEST(failed_though_applied)
SEEDS_TEST(applied_late)
SEEDS_TEST(repeated)
SEEDS_TEST(resent)
SEEDS_TEST(trouble_in_the_read_back)
SEEDS_TEST(conflicts)
SEEDS_TEST(gone_again)
SEEDS_TEST(large_bodies)
SEEDS_TEST(long_outage)
SEEDS_TEST(hurry_up)
SEEDS_TEST(given_up)
SEEDS_TEST(two_writers)
SEEDS_TEST(cut_before_sending)
SEEDS_TEST(cut_when_applied)
SEEDS_TEST(cut_and_applied_later)
SEEDS_TEST(landed_after_closing)
SEEDS_TEST(short_answers)
SEEDS_TEST(overtaking)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_well),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unanswered),
        cmocka_unit_test(test_failed_though_applied),
        cmocka_unit_test(test_applied_late),
        cmocka_unit_test(test_repeated),
        cmocka_unit_test(test_resent),
        cmocka_unit_test(test_trouble_in_the_read_back),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_gone_again),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_long_outage),
        cmocka_unit_test(test_hurry_up),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_two_writers),
        cmocka_unit_test(test_cut_before_sending),
        cmocka_unit_test(test_cut_when_applied),
        cmocka_unit_test(test_cut_and_applied_later),
        cmocka_unit_test(test_landed_after_closing),
        cmocka_unit_test(test_short_answers),
        cmocka_unit_test(test_overtaking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
