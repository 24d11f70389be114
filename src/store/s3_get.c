/* Reading an object, or a part of one.
 *
 * Always a ranged GET, so that the answer names the size of the whole.  What
 * the store may answer:
 *
 *   206   with exactly the range that was asked for, cut at the object's end
 *   200   with everything, which some do: good if we wanted everything
 *   416   the object ends before the range begins; its size and ETag are then
 *         asked for by HEAD, since the refusal need not tell them
 *   404   NoSuchKey: absent
 *
 * Anything else that claims success is a damaged answer, and is asked for
 * again; its bytes may have been placed already, so those behind what a good
 * answer brings may be anything.  Between GET and HEAD the object may change or vanish; then the GET is
 * sent again. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "rt/loop.h"
#include "store/s3_internal.h"
#include "store/s3_xml.h"

/* Beyond the largest object of any store, and small enough for ranges to be reckoned with. */
#define OFFSET_MAX (UINT64_C(1) << 62)
/* Rounds of GET and HEAD that contradict each other, before the store is not believed. */
#define ROUNDS_MAX 4
/* Hedged up to here: a block, with its frame's header, and somewhat more. */
#define HEDGED_BYTES_MAX ((uint64_t)256 << 10)
#define SMALL_BYTES_MAX ((uint64_t)16 << 10)
/* Of an answer in place of an object, an <Error> is looked for in so much. */
#define LOOKED_AT_BYTES 2048u

static uint64_t pieces_length(const struct iovec *pieces, int count)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += pieces[i].iov_len;
    return length;
}

/* Whether what was received is not the object but an error with the wrong status.  Objects are ours, and no XML. */
static bool is_error_inside(const struct s3_call *call, const struct http_response *response)
{
    if (strstr(response->content_type, "xml") == NULL)
        return false;
    uint8_t bytes[LOOKED_AT_BYTES];
    size_t length = 0;
    for (int i = 0; i < call->count && length < sizeof bytes && length < response->placed; i++) {
        size_t part = call->pieces[i].iov_len;
        if (part > sizeof bytes - length)
            part = sizeof bytes - length;
        if (part > response->placed - length)
            part = (size_t)(response->placed - length);
        if (part > 0)
            memcpy(bytes + length, call->pieces[i].iov_base, part);
        length += part;
    }
    struct s3_error told;
    return s3_xml_error(bytes, length, &told);
}

static void judge_get(const struct s3_call *call, struct s3_answer *answer)
{
    const struct http_response *response = &answer->response;
    uint64_t last = call->offset + call->size - 1;
    if (response->status == 206) {
        uint64_t size = response->range_size;
        if (response->range_first != call->offset || size == UINT64_MAX || size <= call->offset) {
            s3_answer_damaged(answer, "not with the range that was asked for");
            return;
        }
        uint64_t expected_last = last < size - 1 ? last : size - 1;
        if (response->range_last != expected_last || response->placed != expected_last - call->offset + 1) {
            s3_answer_damaged(answer, "with a range of another length than was asked for");
            return;
        }
    } else if (response->status == 200) {
        bool whole = call->offset == 0 && !response->truncated &&
                     (response->length == UINT64_MAX || response->length == response->placed);
        if (!whole) {
            s3_answer_damaged(answer, "with the whole object in place of a part");
            return;
        }
    } else {
        s3_answer_damaged(answer, "not with 206");
        return;
    }
    if (response->etag[0] == '\0')
        s3_answer_damaged(answer, "without an ETag");
    else if (is_error_inside(call, response))
        s3_answer_damaged(answer, "with an error inside");
}

static void judge_head(const struct s3_call *call, struct s3_answer *answer)
{
    if (answer->response.length == UINT64_MAX || answer->response.etag[0] == '\0')
        s3_answer_damaged(answer, "without length or ETag");
}

static struct s3_call call_for(const struct s3 *s3, const char *method, const char *key)
{
    return (struct s3_call){ .method = method,
                             .key = key,
                             .query = "",
                             .body_max = S3_ERROR_BYTES_MAX,
                             .connect_timeout_ms = s3->connect_timeout_ms,
                             .slowest = S3_SLOWEST_READ,
                             .class = S3_CLASS_NONE };
}

/* Who limits the time does not wait for others. */
static struct s3_slots *slots_for(struct s3 *s3, const struct store_get *get)
{
    return get->attempt_ms > 0 ? NULL : &s3->reads;
}

/* Size and ETag. *ret_answer: S3_ABSENT where it is gone. */
static void head(struct s3 *s3, const struct store_get *get, uint64_t deadline_ns, struct s3_answer *ret_answer)
{
    struct s3_call call = call_for(s3, "HEAD", get->key);
    call.judge = judge_head;
    call.deadline_ns = deadline_ns;
    call.apart = get->attempt_ms > 0;
    s3_guard_payload(s3, &call, false);
    s3_try(s3, slots_for(s3, get), &call, ret_answer);
}

static enum s3_class class_of(uint64_t wanted)
{
    return wanted <= SMALL_BYTES_MAX ? S3_GET_SMALL : wanted <= HEDGED_BYTES_MAX ? S3_GET_BLOCK : S3_CLASS_NONE;
}

static int refused(const struct s3_answer *answer, const char *key, struct error *error)
{
    error_copy(error, &answer->error);
    error_context(error, "get %s", key);
    return -answer->error.code;
}

/* Beyond the end, says the store: *ret_got; or -EAGAIN: it is not so any more. */
static int get_nothing(struct s3 *s3, const struct store_get *get, uint64_t deadline_ns, struct store_got *ret_got,
                       struct error *error)
{
    struct s3_answer answer;
    head(s3, get, deadline_ns, &answer);
    int failed = 0;
    bool done = answer.outcome == S3_DONE;
    if (answer.outcome == S3_ABSENT || (done && answer.response.length > get->offset)) {
        failed = -EAGAIN;
    } else if (!done) {
        failed = refused(&answer, get->key, error);
    } else {
        *ret_got = (struct store_got){ .length = 0, .size = answer.response.length };
        memcpy(ret_got->etag, answer.response.etag, sizeof ret_got->etag);
    }
    s3_answer_free(&answer);
    return failed;
}

/* One GET: 0, -ERANGE: beyond the end, or another error. */
static int get_range(struct s3 *s3, const struct store_get *get, uint64_t wanted, uint64_t deadline_ns,
                     struct store_got *ret_got, struct error *error)
{
    char range[64];
    snprintf(range, sizeof range, "bytes=%" PRIu64 "-%" PRIu64, get->offset, get->offset + wanted - 1);
    struct s3_call call = call_for(s3, "GET", get->key);
    call.headers[0] = (struct http_header){ .name = "range", .value = range };
    call.pieces = get->pieces;
    call.count = get->count;
    call.offset = get->offset;
    call.size = wanted;
    call.deadline_ns = deadline_ns;
    call.class = class_of(wanted);
    call.hedge = true;
    call.judge = judge_get;
    call.apart = get->attempt_ms > 0;
    s3_guard_payload(s3, &call, false);
    struct s3_answer answer;
    s3_try(s3, slots_for(s3, get), &call, &answer);
    const struct http_response *response = &answer.response;
    int failed = 0;
    if (answer.outcome == S3_DONE) {
        *ret_got = (struct store_got){ .length = response->placed,
                                       .size = response->status == 206 ? response->range_size : response->placed };
        memcpy(ret_got->etag, response->etag, sizeof ret_got->etag);
    } else {
        failed = answer.outcome == S3_BEYOND ? -ERANGE : refused(&answer, get->key, error);
    }
    s3_answer_free(&answer);
    return failed;
}

int s3_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct s3 *s3 = s3_of(store);
    uint64_t deadline_ns =
        get->attempt_ms > 0 ? loop_now_ns(s3->loop) + get->attempt_ms * NS_PER_MS : s3_read_deadline_ns(s3);
    uint64_t wanted = pieces_length(get->pieces, get->count);
    /* Asking for nothing still asks whether it is there: for one byte, of which nothing is said. */
    char aside;
    struct iovec aside_piece = { .iov_base = &aside, .iov_len = 1 };
    struct store_get asked = *get;
    if (wanted == 0) {
        asked.pieces = &aside_piece;
        asked.count = 1;
    }
    /* A GET even far beyond any end: HEAD cannot tell a key that is absent from a bucket that is. */
    if (asked.offset > OFFSET_MAX)
        asked.offset = OFFSET_MAX;
    for (int round = 0; round < ROUNDS_MAX; round++) {
        struct store_got got;
        int failed = get_range(s3, &asked, wanted == 0 ? 1 : wanted, deadline_ns, &got, error);
        if (failed == -ERANGE)
            failed = get_nothing(s3, &asked, deadline_ns, &got, error);
        if (failed == -EAGAIN)
            continue;
        if (failed == 0) {
            if (wanted == 0)
                got.length = 0;
            *ret_got = got;
        }
        return failed;
    }
    return error_set(error, EIO, "get %s: the store contradicts itself about its size", get->key);
}
