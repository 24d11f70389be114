/* Writing an object, with or without a condition.
 *
 * A conditional put is one attempt (and its double, see s3_hedge.c), because
 * only its caller can resolve what is unknown about it:
 *
 *   2xx with an ETag          done
 *   412                       -EEXIST or -ESTALE: nothing was changed by it
 *   404 NoSuchKey on If-Match -ESTALE: the key is absent
 *   anything else             unknown: 409 and 5xx too, since stores in a race
 *                             or in trouble answer so and apply all the same
 *
 * A store that throttles is given time before its caller hears of it: callers
 * try again soon, and do not know why they should wait.
 *
 * The ETag of a condition goes out as it came, in quotes.  Ceph RGW compares it
 * as it stands with its own, which has none, and so refuses what holds.  So a
 * refusal of a quoted ETag is looked into once: if the object is there with
 * exactly that ETag, the same is sent without the quotes; the form that
 * succeeds is kept.  The outcome stays definite: what is refused twice has
 * changed nothing, and what cannot be looked into is told as unknown. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "rt/loop.h"
#include "store/s3_internal.h"

/* Doubled up to here: the largest commit, with its tables.  Data objects are larger: their time is that of the line. */
#define HEDGED_BYTES_MAX ((uint64_t)6 << 20)
#define SMALL_BYTES_MAX ((uint64_t)64 << 10)
#define BLOCK_BYTES_MAX ((uint64_t)1 << 20)

static enum s3_class class_of(uint64_t length)
{
    return length <= SMALL_BYTES_MAX    ? S3_PUT_SMALL
           : length <= BLOCK_BYTES_MAX  ? S3_PUT_BLOCK
           : length <= HEDGED_BYTES_MAX ? S3_PUT_COMMIT
                                        : S3_CLASS_NONE;
}

static void judge_put(const struct s3_call *call, struct s3_answer *answer)
{
    if (answer->response.etag[0] == '\0')
        s3_answer_damaged(answer, "without an ETag");
}

static struct s3_call call_for(struct s3 *s3, const struct store_put *put)
{
    struct s3_call call = { .method = "PUT",
                            .key = put->key,
                            .query = "",
                            .body = put->pieces,
                            .body_count = put->count,
                            .body_max = S3_ERROR_BYTES_MAX,
                            .connect_timeout_ms = s3->connect_timeout_ms,
                            .deadline_ns = UINT64_MAX,
                            .slowest = put->urgent ? S3_SLOWEST_URGENT : S3_SLOWEST_UPLOAD,
                            .judge = judge_put };
    for (int i = 0; i < put->count; i++)
        call.size += put->pieces[i].iov_len;
    call.class = class_of(call.size);
    if (put->attempt_ms > 0) {
        call.deadline_ns = loop_now_ns(s3->loop) + put->attempt_ms * NS_PER_MS;
        call.apart = true;
    }
    /* Unless it is just this that is too short here. */
    if (put->urgent && !s3->urgent_timed_out && call.connect_timeout_ms > S3_URGENT_CONNECT_MS)
        call.connect_timeout_ms = S3_URGENT_CONNECT_MS;
    return call;
}

static struct s3_slots *slots_for(struct s3 *s3, const struct store_put *put)
{
    return put->urgent || put->attempt_ms > 0 ? NULL : &s3->uploads;
}

/* ---- the form of ETags ---- */

static bool is_quoted(const char *etag)
{
    size_t length = strlen(etag);
    return length > 2 && etag[0] == '"' && etag[length - 1] == '"';
}

static const char *condition_etag(const char *etag, bool bare, char text[STORE_ETAG_MAX])
{
    if (!bare)
        return etag;
    size_t length = strlen(etag) - 2;
    memcpy(text, etag + 1, length);
    text[length] = '\0';
    return text;
}

/* Whether the object has exactly this ETag now: 0 and *ret_same, or why that is not known. */
static int look(struct s3 *s3, const struct store_put *put, bool *ret_same, struct error *error)
{
    const struct store_get get = { .key = put->key, .attempt_ms = put->attempt_ms };
    struct store_got got;
    int failed = s3_get(&s3->store, &get, &got, error);
    *ret_same = failed == 0 && strcmp(got.etag, put->etag) == 0;
    return failed == -ENOENT ? 0 : failed;
}

/* One conditional put; *ret_answer is S3_EXISTS where the condition does not hold. */
static void put_matching(struct s3 *s3, const struct store_put *put, struct s3_call *call, struct s3_answer *ret_answer)
{
    char text[STORE_ETAG_MAX];
    bool can_be_bare = is_quoted(put->etag), known = s3->etag_form != S3_ETAG_UNKNOWN;
    bool bare = can_be_bare && (known ? s3->etag_form == S3_ETAG_BARE : (s3->traits & S3_TRAIT_BARE_ETAGS) != 0);
    call->headers[0] = (struct http_header){ "if-match", condition_etag(put->etag, bare, text) };
    s3_perform(s3, slots_for(s3, put), call, ret_answer);
    if (ret_answer->outcome == S3_DONE && can_be_bare)
        s3->etag_form = bare ? S3_ETAG_BARE : S3_ETAG_QUOTED;
    if (ret_answer->outcome != S3_EXISTS || !can_be_bare || s3->etag_form != S3_ETAG_UNKNOWN)
        return;
    bool same = false;
    struct error error = ERROR_NONE;
    int failed = look(s3, put, &same, &error);
    if (failed == 0 && !same)
        return;
    s3_answer_free(ret_answer);
    if (failed != 0) {
        *ret_answer = (struct s3_answer){ .outcome = failed == -ECANCELED ? S3_CANCELLED : S3_RETRY, .error = error };
        return;
    }
    call->headers[0].value = condition_etag(put->etag, !bare, text);
    s3_perform(s3, slots_for(s3, put), call, ret_answer);
    if (ret_answer->outcome == S3_DONE)
        s3->etag_form = bare ? S3_ETAG_QUOTED : S3_ETAG_BARE;
}

/* ---- what came of it ---- */

/* Callers of conditional puts try again within milliseconds. */
static void honour_throttling(struct s3 *s3, const struct s3_answer *answer)
{
    uint64_t asked_ms = answer->response.status > 0 ? answer->response.retry_after_ms : UINT64_MAX;
    s3->throttles++;
    sleep_ns(s3_retry_delay_ns(s3->throttles, true, asked_ms, true, loop_random_u64(s3->loop)));
}

static int conclude(struct s3 *s3, const struct store_put *put, const struct s3_answer *answer,
                    char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    enum s3_outcome outcome = answer->outcome;
    if (outcome == S3_DONE) {
        s3->throttles = 0;
        if (ret_etag != NULL)
            memcpy(ret_etag, answer->response.etag, STORE_ETAG_MAX);
        return 0;
    }
    bool absent = outcome == S3_ABSENT && put->condition == STORE_MATCHES;
    if (outcome == S3_EXISTS && put->condition == STORE_ABSENT)
        return error_set(error, EEXIST, "put %s: it exists already", put->key);
    if ((outcome == S3_EXISTS && put->condition == STORE_MATCHES) || absent)
        return error_set(error, ESTALE, "put %s: the object has %s", put->key, absent ? "gone" : "changed");
    if (outcome == S3_THROTTLED && put->attempt_ms == 0) /* who limits attempts paces them himself */
        honour_throttling(s3, answer);
    error_copy(error, &answer->error);
    int code = answer->error.code;
    if (code == EEXIST || code == ESTALE || code == ENOENT) /* which mean something else here */
        code = EIO;
    if (error != NULL)
        error->code = code;
    error_context(error, "put %s", put->key);
    return -code;
}

int s3_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct s3 *s3 = s3_of(store);
    struct s3_call call = call_for(s3, put);
    struct s3_answer answer;
    s3_guard_payload(s3, &call, put->urgent);
    switch (put->condition) {
    case STORE_ABSENT:
        call.headers[0] = (struct http_header){ "if-none-match", "*" };
        call.hedge = true;
        s3_perform(s3, slots_for(s3, put), &call, &answer);
        break;
    case STORE_MATCHES:
        put_matching(s3, put, &call, &answer);
        break;
    default:
        call.deadline_ns = s3_read_deadline_ns(s3);
        s3_try(s3, slots_for(s3, put), &call, &answer);
    }
    if (put->urgent)
        s3->urgent_timed_out = answer.outcome == S3_RETRY && answer.error.code == ETIMEDOUT;
    int failed = conclude(s3, put, &answer, ret_etag, error);
    s3_answer_free(&answer);
    return failed;
}

int s3_delete(struct store *store, const char *key, struct error *error)
{
    struct s3 *s3 = s3_of(store);
    struct s3_call call = { .method = "DELETE",
                            .key = key,
                            .query = "",
                            .body_max = S3_ERROR_BYTES_MAX,
                            .connect_timeout_ms = s3->connect_timeout_ms,
                            .deadline_ns = s3_read_deadline_ns(s3),
                            .slowest = S3_SLOWEST_READ,
                            .class = S3_CLASS_NONE };
    struct s3_answer answer;
    s3_guard_payload(s3, &call, false);
    s3_try(s3, &s3->reads, &call, &answer);
    int failed = 0;
    if (answer.outcome != S3_DONE && answer.outcome != S3_ABSENT) {
        error_copy(error, &answer.error);
        error_context(error, "delete %s", key);
        failed = -answer.error.code;
    }
    s3_answer_free(&answer);
    return failed;
}
