/* The parts of the S3 store that need no store: outcomes, delays, quantiles, races, turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "../lib/in_loop.h"
#include "store/s3_internal.h"

static void test_classify(void **state)
{
    static const struct {
        int status;
        const char *code;
        enum s3_outcome outcome;
    } cases[] = {
        { 404, "NoSuchKey", S3_ABSENT },
        { 404, "NoSuchBucket", S3_NO_BUCKET },
        { 404, "", S3_RETRY }, /* some proxy's */
        { 404, "NoSuchLifecycleConfiguration", S3_FATAL },
        { 404, "XAdminUserNotFound", S3_EXPIRED },
        { 500, "NoSuchKey", S3_RETRY }, /* nobody may conclude from it that data is lost */
        { 200, "NoSuchKey", S3_RETRY },
        { 403, "NoSuchBucket", S3_DENIED },
        { 412, "PreconditionFailed", S3_EXISTS },
        { 412, "", S3_EXISTS },
        { 500, "PreconditionFailed", S3_RETRY },
        { 409, "PreconditionFailed", S3_RETRY },
        { 409, "ConditionalRequestConflict", S3_RETRY },
        { 409, "OperationAborted", S3_RETRY },
        { 409, "", S3_RETRY },
        { 416, "InvalidRange", S3_BEYOND },
        { 416, "", S3_BEYOND },
        { 400, "InvalidRange", S3_FATAL },
        { 429, "", S3_THROTTLED },
        { 503, "SlowDown", S3_THROTTLED },
        { 503, "ServiceUnavailable", S3_RETRY },
        { 503, "", S3_RETRY },
        { 400, "RequestTimeout", S3_RETRY },
        { 400, "ExpiredToken", S3_EXPIRED },
        { 403, "InvalidAccessKeyId", S3_EXPIRED },
        { 403, "RequestTimeTooSkewed", S3_SKEWED },
        { 403, "SignatureDoesNotMatch", S3_DENIED },
        { 403, "AccessDenied", S3_DENIED },
        { 403, "", S3_DENIED },
        { 401, "", S3_DENIED },
        { 301, "PermanentRedirect", S3_REGION },
        { 301, "", S3_REGION },
        { 308, "", S3_REGION },
        { 307, "", S3_RETRY },
        { 307, "TemporaryRedirect", S3_RETRY },
        { 400, "AuthorizationHeaderMalformed", S3_REGION },
        { 400, "IllegalLocationConstraintException", S3_REGION },
        { 501, "NotImplemented", S3_FATAL },
        { 501, "", S3_FATAL },
        { 400, "", S3_FATAL },
        { 400, "InvalidArgument", S3_FATAL },
        { 507, "XMinioStorageFull", S3_FULL },
        { 403, "QuotaExceeded", S3_FULL },
        { 500, "", S3_RETRY },
        { 502, "", S3_RETRY },
        { 504, "", S3_RETRY },
        { 599, "What", S3_RETRY },
        { 408, "", S3_RETRY },
        { 304, "", S3_RETRY },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (s3_classify(cases[i].status, cases[i].code) != cases[i].outcome)
            fail_msg("%d %s: %d", cases[i].status, cases[i].code, (int)s3_classify(cases[i].status, cases[i].code));
}

static void test_errors(void **state)
{
    /* What callers take for a fact about a key comes from nothing else. */
    for (int outcome = S3_DONE + 1; outcome <= S3_CANCELLED; outcome++) {
        int code = s3_outcome_errno((enum s3_outcome)outcome, 500, "");
        assert_true(code > 0);
        assert_int_equal(code == EEXIST, outcome == S3_EXISTS);
        assert_int_equal(code == ENOENT, outcome == S3_ABSENT);
        assert_int_not_equal(code, ESTALE);
    }
    assert_int_equal(s3_outcome_errno(S3_FATAL, 501, "NotImplemented"), EOPNOTSUPP);
    assert_int_equal(s3_outcome_errno(S3_FATAL, 400, "InvalidArgument"), EINVAL);
    assert_int_equal(s3_outcome_errno(S3_FULL, 507, ""), ENOSPC);
    /* What will pass must not fail a FLUSH at once, as a lack of permission does. */
    assert_int_equal(s3_outcome_errno(S3_EXPIRED, 400, "ExpiredToken"), EKEYEXPIRED);
    assert_int_equal(s3_outcome_errno(S3_EXPIRED, 403, "InvalidAccessKeyId"), EACCES);
}

#define MS NS_PER_MS

static void test_delays(void **state)
{
    const uint64_t none = UINT64_MAX, most = UINT64_MAX;
    for (unsigned retry = 1; retry < 100; retry++)
        for (int throttled = 0; throttled < 2; throttled++)
            for (int patient = 0; patient < 2; patient++) {
                uint64_t limit = patient ? 2000 * MS : 20000 * MS;
                uint64_t range = throttled ? 1000 * MS : 50 * MS;
                for (unsigned i = 1; i < retry && range < limit; i++)
                    range *= 2;
                range = range < limit ? range : limit;
                assert_int_equal(s3_retry_delay_ns(retry, throttled, none, patient, 0), 0);
                assert_int_equal(s3_retry_delay_ns(retry, throttled, none, patient, range), range);
                assert_in_range(s3_retry_delay_ns(retry, throttled, none, patient, most), 0, range);
                assert_in_range(s3_retry_delay_ns(retry, throttled, 300, patient, most), 300 * MS, 5300 * MS);
            }
    /* What is asked for is obeyed, within reason. */
    assert_int_equal(s3_retry_delay_ns(1, false, 0, false, 50 * MS), 50 * MS);
    assert_int_equal(s3_retry_delay_ns(1, false, 7000, false, 50 * MS), 7000 * MS);
    assert_int_equal(s3_retry_delay_ns(9, true, 7000, false, 20000 * MS), 12000 * MS);
    assert_int_equal(s3_retry_delay_ns(1, true, 86400000, false, 0), 20000 * MS);
    assert_int_equal(s3_retry_delay_ns(1, true, 86400000, true, 0), 5000 * MS);
    assert_int_equal(s3_retry_delay_ns(1, true, UINT64_MAX - 1, true, 0), 5000 * MS);
}

static void test_budget(void **state)
{
    struct s3_budget budget = { .tokens = S3_BUDGET_TOKENS };
    uint32_t paid = 0;
    int retries = 0;
    while (s3_budget_take(&budget, false, &paid))
        retries++;
    assert_int_equal(retries, 500 / 14);
    assert_int_equal(paid, 14);
    assert_int_equal(budget.tokens, 500 % 14);
    assert_true(s3_budget_take(&budget, true, &paid));
    assert_int_equal(paid, 5);
    s3_budget_refund(&budget, paid);
    assert_int_equal(budget.tokens, 500 % 14);
    s3_budget_refund(&budget, 0);
    assert_int_equal(budget.tokens, 500 % 14 + 1);
    for (int i = 0; i < 1000; i++)
        s3_budget_refund(&budget, 0);
    assert_int_equal(budget.tokens, S3_BUDGET_TOKENS);
}

static void test_latency(void **state)
{
    struct s3_latency latency = { 0 };
    for (int i = 0; i < 49; i++) {
        assert_int_equal(s3_latency_slow_ns(&latency), UINT64_MAX);
        s3_latency_note(&latency, 20 * MS);
    }
    s3_latency_note(&latency, 20 * MS);
    assert_int_equal(s3_latency_slow_ns(&latency), 60 * MS); /* three times the median */
    /* 30 of 300 take long: the 95th in a hundred does. */
    for (int i = 0; i < 300; i++)
        s3_latency_note(&latency, i % 10 == 0 ? 200 * MS : 20 * MS);
    assert_int_equal(s3_latency_slow_ns(&latency), 200 * MS);
    /* The floor. */
    for (int i = 0; i < 300; i++)
        s3_latency_note(&latency, MS / 2);
    assert_int_equal(s3_latency_slow_ns(&latency), 10 * MS);
    for (int i = 0; i < 300; i++)
        s3_latency_note(&latency, UINT64_MAX);
    assert_true(s3_latency_slow_ns(&latency) > 3600 * NS_PER_S);
}

/* ---- who wins ---- */

#define PENDING (-1)

static void expect_winner(bool put, int first, int second, int expected)
{
    const int outcomes[2] = { first, second };
    const bool sent[2] = { true, true };
    assert_int_equal(s3_hedge_winner(put, outcomes, sent), expected);
}

static void test_winner(void **state)
{
    /* One 2xx is enough. */
    for (int put = 0; put < 2; put++)
        for (int other = PENDING; other <= S3_CANCELLED; other++) {
            if (other == S3_DONE)
                continue;
            if (put || other < 0 || other == S3_CANCELLED || s3_may_retry((enum s3_outcome)other))
                expect_winner(put, other, S3_DONE, 1);
            expect_winner(put, S3_DONE, other, 0);
        }
    /* Of puts, a refusal decides nothing while the other is under way, */
    for (int outcome = S3_EXISTS; outcome <= S3_CANCELLED; outcome++) {
        expect_winner(true, outcome, PENDING, -1);
        expect_winner(true, PENDING, outcome, -1);
    }
    /* nor beside an unknown outcome; */
    for (int outcome = S3_ABSENT; outcome <= S3_CANCELLED; outcome++) {
        expect_winner(true, S3_EXISTS, outcome, 1);
        expect_winner(true, outcome, S3_EXISTS, 0);
    }
    /* only two are one. */
    expect_winner(true, S3_EXISTS, S3_EXISTS, 0);
    /* Of gets, the first that tells something. */
    expect_winner(false, S3_RETRY, PENDING, -1);
    expect_winner(false, PENDING, S3_THROTTLED, -1);
    expect_winner(false, PENDING, S3_CANCELLED, -1);
    expect_winner(false, PENDING, S3_ABSENT, 1);
    expect_winner(false, S3_DENIED, PENDING, 0);
    expect_winner(false, S3_RETRY, S3_ABSENT, 1);
    expect_winner(false, S3_RETRY, S3_THROTTLED, 0);
    /* One alone. */
    const bool alone[2] = { true, false };
    for (int outcome = S3_DONE; outcome <= S3_CANCELLED; outcome++)
        assert_int_equal(s3_hedge_winner(true, (int[2]){ outcome, PENDING }, alone), 0);
    assert_int_equal(s3_hedge_winner(true, (int[2]){ PENDING, PENDING }, alone), -1);
}

/* ---- turns ---- */

struct line {
    struct s3_slots slots;
    int order[8], count;
    struct task *tasks[8];
};

struct stander {
    struct line *line;
    int number;
    uint64_t deadline_ns;
    int result;
};

static void stand(void *arg)
{
    struct stander *stander = arg;
    struct line *line = stander->line;
    stander->result = s3_slots_enter(&line->slots, stander->deadline_ns);
    if (stander->result != 0)
        return;
    assert_true(line->slots.used <= 2);
    line->order[line->count++] = stander->number;
    sleep_ns(NS_PER_S);
    s3_slots_leave(&line->slots);
}

static void run_line(struct loop *loop, void *arg)
{
    struct line line = { .count = 0 };
    struct stander standers[8];
    struct group group;
    s3_slots_init(&line.slots, 2);
    group_init(&group, loop);
    uint64_t now_ns = loop_now_ns(loop);
    for (int i = 0; i < 8; i++) {
        standers[i] = (struct stander){ .line = &line, .number = i, .deadline_ns = UINT64_MAX };
        if (i == 3)
            standers[i].deadline_ns = now_ns + NS_PER_S / 2;
        line.tasks[i] = group_spawn(&group, "stander", stand, &standers[i]);
    }
    sleep_ns(NS_PER_S / 4);
    task_cancel(line.tasks[5]);
    group_join(&group);
    static const int expected[] = { 0, 1, 2, 4, 6, 7 };
    assert_int_equal(line.count, 6);
    assert_memory_equal(line.order, expected, sizeof expected);
    assert_int_equal(standers[3].result, -ETIMEDOUT);
    assert_int_equal(standers[5].result, -ECANCELED);
    assert_int_equal(line.slots.used, 0);
    assert_int_equal(loop_now_ns(loop) - now_ns, 3 * NS_PER_S);
}

static void test_turns(void **state)
{
    in_sim_loop(1, run_line, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classify), cmocka_unit_test(test_errors),  cmocka_unit_test(test_delays),
        cmocka_unit_test(test_budget),   cmocka_unit_test(test_latency), cmocka_unit_test(test_winner),
        cmocka_unit_test(test_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
