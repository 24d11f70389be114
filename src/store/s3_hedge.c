/* Sending a slow request a second time, beside the first.
 *
 * Now and then one connection or one disk of a store takes twenty times as long
 * as the others.  A request that is slow (s3_latency.c) is then likely to be
 * answered sooner when asked again.  Two kinds may be:
 *
 *   small gets     The double has a buffer of its own, since the first may be
 *                  writing to the destination until it has ended.  The first
 *                  answer that tells something wins.
 *   put if absent  The identical request: whichever is applied, the same bytes
 *                  stand there.  A 2xx wins.  "Exists" from one says nothing:
 *                  it may be due to the other, so the other's answer is awaited;
 *                  only two of them are a refusal.  One of them beside an
 *                  unknown outcome is an unknown outcome.
 *
 * A put on condition of an ETag never is: its double would find another ETag,
 * and a refusal would mean nothing.
 *
 * The loser is cancelled and joined before the call returns, because it uses
 * the caller's memory.  A put that lost may still be applied later; it then
 * finds the object there and is refused.
 *
 * No more than hedge_percent of the requests are doubled: each that may be adds
 * its share to a credit, each double takes one hundred shares. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rt/loop.h"
#include "rt/task.h"
#include "store/s3_internal.h"

#define HEDGE_COST 100u
#define CREDIT_MOST (10u * HEDGE_COST) /* so many at once, after a quiet time */

enum { FIRST, DOUBLE, ENTRANTS };

struct race;
struct entrant {
    struct race *race;
    struct s3_call call;
    struct s3_answer answer;
    bool sent, ended;
};

struct race {
    struct s3 *s3;
    struct entrant entrants[ENTRANTS];
    struct group group;
    struct waitq changed;
    struct iovec copy; /* the double's destination */
    uint64_t sent_ns;  /* when the first was */
};

/* ---- one entrant ---- */

static void timed_attempt(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer)
{
    uint64_t sent_ns = loop_now_ns(s3->loop);
    s3_attempt(s3, call, ret_answer);
    if (call->class != S3_CLASS_NONE && ret_answer->outcome == S3_DONE)
        s3_latency_note(&s3->latencies[call->class], loop_now_ns(s3->loop) - sent_ns);
}

static void run_entrant(void *arg)
{
    struct entrant *entrant = arg;
    timed_attempt(entrant->race->s3, &entrant->call, &entrant->answer);
    entrant->ended = true;
    waitq_wake_all(&entrant->race->changed);
}

static void send_entrant(struct race *race, int which)
{
    race->entrants[which].sent = true;
    group_spawn(&race->group, "s3", run_entrant, &race->entrants[which]);
}

/* ---- who wins ---- */

int s3_hedge_winner(bool put, const int outcomes[2], const bool sent[2])
{
    bool all_ended = true;
    for (int i = 0; i < ENTRANTS; i++) {
        all_ended = all_ended && (!sent[i] || outcomes[i] >= 0);
        if (!sent[i] || outcomes[i] < 0)
            continue;
        if (outcomes[i] == S3_DONE)
            return i;
        bool tells = !s3_may_retry((enum s3_outcome)outcomes[i]) && outcomes[i] != S3_CANCELLED;
        if (!put && tells)
            return i;
    }
    if (!all_ended)
        return -1;
    for (int i = 0; i < ENTRANTS; i++)
        if (sent[i] && outcomes[i] != S3_EXISTS)
            return i;
    return FIRST;
}

static int winner(const struct race *race)
{
    int outcomes[ENTRANTS];
    bool sent[ENTRANTS];
    for (int i = 0; i < ENTRANTS; i++) {
        const struct entrant *entrant = &race->entrants[i];
        sent[i] = entrant->sent;
        outcomes[i] = entrant->ended ? (int)entrant->answer.outcome : -1;
    }
    return s3_hedge_winner(race->entrants[FIRST].call.body != NULL, outcomes, sent);
}

/* ---- the race ---- */

static void prepare_double(struct race *race)
{
    struct s3_call *call = &race->entrants[DOUBLE].call;
    if (call->pieces == NULL)
        return;
    race->copy = (struct iovec){ .iov_base = memory_resize(NULL, call->size, 1), .iov_len = call->size };
    call->pieces = &race->copy;
    call->count = 1;
}

/* The double's bytes go where the caller wants them. */
static void copy_out(const struct race *race)
{
    const struct s3_call *call = &race->entrants[FIRST].call;
    const uint8_t *from = race->copy.iov_base;
    uint64_t left = race->entrants[DOUBLE].answer.response.placed;
    assert(left <= race->copy.iov_len);
    for (int i = 0; i < call->count && left > 0; i++) {
        size_t part = call->pieces[i].iov_len < left ? call->pieces[i].iov_len : (size_t)left;
        if (part > 0)
            memcpy(call->pieces[i].iov_base, from, part);
        from += part;
        left -= part;
    }
}

/* The first is cut off because its double has won.  It took at least so long: without it the slow ones would be missing
 * from the picture. */
static void note_slow(const struct race *race)
{
    struct s3 *s3 = race->s3;
    const struct entrant *first = &race->entrants[FIRST];
    if (!first->ended)
        s3_latency_note(&s3->latencies[first->call.class], loop_now_ns(s3->loop) - race->sent_ns);
}

/* Until somebody has won; false: the caller's task was cancelled. */
static bool run_race(struct race *race, uint64_t slow_ns)
{
    struct s3 *s3 = race->s3;
    race->sent_ns = loop_now_ns(s3->loop);
    uint64_t deadline_ns = race->sent_ns + slow_ns;
    send_entrant(race, FIRST);
    while (winner(race) < 0) {
        int ended = waitq_wait_until(&race->changed, deadline_ns);
        if (ended == -ECANCELED)
            return false;
        if (ended == 0)
            continue;
        deadline_ns = UINT64_MAX;
        if (s3->hedge_credit < HEDGE_COST)
            continue;
        s3->hedge_credit -= HEDGE_COST;
        prepare_double(race);
        send_entrant(race, DOUBLE);
    }
    return true;
}

static void hedge(struct s3 *s3, const struct s3_call *call, uint64_t slow_ns, struct s3_answer *ret_answer)
{
    /* Not on the stack: it is large, and other tasks use it. */
    struct race *race = memory_new(sizeof *race);
    race->s3 = s3;
    group_init(&race->group, s3->loop);
    waitq_init(&race->changed);
    for (int i = 0; i < ENTRANTS; i++) {
        race->entrants[i].race = race;
        race->entrants[i].call = *call;
    }
    int won = run_race(race, slow_ns) ? winner(race) : -1;
    if (won == DOUBLE)
        note_slow(race);
    group_cancel(&race->group);
    group_join(&race->group);
    if (won < 0) /* cancelled; but what has ended meanwhile still counts */
        won = winner(race);
    assert(won >= 0);
    if (won == DOUBLE && race->entrants[DOUBLE].answer.outcome == S3_DONE)
        copy_out(race);
    s3_answer_free(&race->entrants[won == FIRST ? DOUBLE : FIRST].answer);
    *ret_answer = race->entrants[won].answer;
    free(race->copy.iov_base);
    free(race);
}

void s3_hedged(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer)
{
    if (!call->hedge || call->class == S3_CLASS_NONE || s3->hedge_percent == 0) {
        timed_attempt(s3, call, ret_answer);
        return;
    }
    s3->hedge_credit += s3->hedge_percent;
    if (s3->hedge_credit > CREDIT_MOST)
        s3->hedge_credit = CREDIT_MOST;
    uint64_t slow_ns = s3_latency_slow_ns(&s3->latencies[call->class]);
    if (slow_ns == UINT64_MAX || s3->hedge_credit < HEDGE_COST)
        timed_attempt(s3, call, ret_answer);
    else
        hedge(s3, call, slow_ns, ret_answer);
}
