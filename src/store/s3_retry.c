/* Trying again: for requests that may be sent any number of times.
 *
 * Reads, deletes and unconditional puts are.  A conditional put is not: what
 * became of it concerns its caller, who sends it again himself (put_once.c,
 * vol/ownership.c).
 *
 * The delay is drawn from a range that doubles from retry to retry, so that
 * those who failed together do not return together; what the store asks for
 * (Retry-After) is obeyed.  A budget of tokens, shared by all requests, keeps a
 * store that is in trouble from being asked several times as much as usual.
 *
 *   at first   the number of attempts decides, and an empty budget: so a wrong
 *              setting is told soon.
 *   patient    (s3_patient) the deadline alone decides.  The range stays small,
 *              so that the end of an outage is noticed at once, and an empty
 *              budget slows down to that range's end: it never makes an outage
 *              an error. */
#include <assert.h>
#include <errno.h>

#include "rt/loop.h"
#include "store/s3_internal.h"

/* As the AWS SDKs have them. */
#define BASE_NS (50 * NS_PER_MS)
#define BASE_THROTTLED_NS NS_PER_S
#define DELAY_MOST_NS (20 * NS_PER_S)
#define RETRY_COST 14u
#define THROTTLED_COST 5u
#define SUCCESS_REFUND 1u
#define RETRY_AFTER_SPAN_NS (5 * NS_PER_S) /* it is obeyed within [t, t + this] */

/* A disk that hangs must go on soon after the store does. */
#define DELAY_PATIENT_NS (2 * NS_PER_S)
/* The most that a store may ask for; more would be a disk that hangs because of a header. */
#define RETRY_AFTER_PATIENT_NS (5 * NS_PER_S)

bool s3_budget_take(struct s3_budget *budget, bool throttled, uint32_t *ret_paid)
{
    uint32_t cost = throttled ? THROTTLED_COST : RETRY_COST;
    if (budget->tokens < cost)
        return false;
    budget->tokens -= cost;
    *ret_paid = cost;
    return true;
}

void s3_budget_refund(struct s3_budget *budget, uint32_t paid)
{
    uint32_t refund = paid > 0 ? paid : SUCCESS_REFUND;
    budget->tokens = budget->tokens + refund < S3_BUDGET_TOKENS ? budget->tokens + refund : S3_BUDGET_TOKENS;
}

uint64_t s3_retry_delay_ns(unsigned retry, bool throttled, uint64_t retry_after_ms, bool patient, uint64_t random)
{
    assert(retry > 0);
    uint64_t most = patient ? DELAY_PATIENT_NS : DELAY_MOST_NS;
    uint64_t delay = throttled ? BASE_THROTTLED_NS : BASE_NS;
    for (unsigned i = 1; i < retry && delay < most; i++)
        delay *= 2;
    if (delay > most)
        delay = most;
    delay = random % (delay + 1);
    if (retry_after_ms == UINT64_MAX)
        return delay;
    uint64_t asked_most = patient ? RETRY_AFTER_PATIENT_NS : DELAY_MOST_NS;
    uint64_t asked = retry_after_ms < asked_most / NS_PER_MS ? retry_after_ms * NS_PER_MS : asked_most;
    if (delay < asked)
        delay = asked;
    return delay < asked + RETRY_AFTER_SPAN_NS ? delay : asked + RETRY_AFTER_SPAN_NS;
}

uint64_t s3_read_deadline_ns(const struct s3 *s3)
{
    return loop_now_ns(s3->loop) + s3->read_timeout_ms * NS_PER_MS;
}

void s3_perform(struct s3 *s3, struct s3_slots *slots, const struct s3_call *call, struct s3_answer *ret_answer)
{
    if (slots == NULL) {
        s3_hedged(s3, call, ret_answer);
        return;
    }
    int failed = s3_slots_enter(slots, call->deadline_ns);
    if (failed == 0) {
        s3_hedged(s3, call, ret_answer);
        s3_slots_leave(slots);
        return;
    }
    *ret_answer = (struct s3_answer){ .outcome = failed == -ECANCELED ? S3_CANCELLED : S3_RETRY };
    if (failed == -ECANCELED)
        error_set(&ret_answer->error, ECANCELED, "given up before it was sent");
    else
        error_set(&ret_answer->error, ETIMEDOUT, "not sent in time: %llu requests before it are not done",
                  (unsigned long long)slots->limit);
}

/* Waits before the next attempt: true; or false: that was the last. */
static bool wait_for_next(struct s3 *s3, const struct s3_call *call, struct s3_answer *answer, unsigned tries,
                          uint32_t *paid)
{
    bool throttled = answer->outcome == S3_THROTTLED;
    if (!s3->patient && tries >= s3->attempts)
        return false;
    uint64_t delay =
        s3_retry_delay_ns(tries, throttled, answer->response.status > 0 ? answer->response.retry_after_ms : UINT64_MAX,
                          s3->patient, loop_random_u64(s3->loop));
    if (!s3_budget_take(&s3->budget, throttled, paid)) {
        if (!s3->patient)
            return false;
        *paid = 0;
        if (delay < DELAY_PATIENT_NS / 2)
            delay = DELAY_PATIENT_NS / 2 + delay;
    }
    uint64_t next_ns = loop_now_ns(s3->loop) + delay;
    if (next_ns >= call->deadline_ns)
        return false;
    if (sleep_until_ns(next_ns) == 0)
        return true;
    s3_answer_free(answer);
    *answer = (struct s3_answer){ .outcome = S3_CANCELLED };
    error_set(&answer->error, ECANCELED, "given up between two attempts");
    return false;
}

void s3_try(struct s3 *s3, struct s3_slots *slots, const struct s3_call *call, struct s3_answer *ret_answer)
{
    uint32_t paid = 0;
    for (unsigned tries = 1;; tries++) {
        s3_perform(s3, slots, call, ret_answer);
        if (!s3_may_retry(ret_answer->outcome)) {
            if (ret_answer->outcome != S3_CANCELLED)
                s3_budget_refund(&s3->budget, paid);
            return;
        }
        if (!wait_for_next(s3, call, ret_answer, tries, &paid)) {
            if (tries > 1)
                error_context(&ret_answer->error, "%u attempts", tries);
            return;
        }
        s3_answer_free(ret_answer);
    }
}
