/* What concerns the bucket as a whole: whether it is there and ours, making
 * it, and the two settings of a bucket that could take objects away from us.
 *
 * That it is there is asked by a LIST of one key rather than by HEAD: it needs
 * the same permission, and its refusal says why. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "store/s3_internal.h"
#include "store/s3_xml.h"

typedef void judging(const struct s3_call *call, struct s3_answer *answer);

static void ask(struct s3 *s3, const char *method, const char *query, const struct iovec *body, judging *judge,
                void *arg, struct s3_answer *ret_answer)
{
    struct s3_call call = { .method = method,
                            .query = query,
                            .body = body,
                            .body_count = body != NULL,
                            .body_max = S3_ERROR_BYTES_MAX,
                            .connect_timeout_ms = s3->connect_timeout_ms,
                            .deadline_ns = s3_read_deadline_ns(s3),
                            .slowest = S3_SLOWEST_READ,
                            .class = S3_CLASS_NONE,
                            .judge = judge,
                            .arg = arg };
    s3_guard_payload(s3, &call, false);
    s3_try(s3, &s3->reads, &call, ret_answer);
}

static int tell(const struct s3 *s3, const struct s3_answer *answer, struct error *error)
{
    error_copy(error, &answer->error);
    error_context(error, "bucket %s", s3->place.bucket);
    return -answer->error.code;
}

int s3_bucket_check(struct store *store, char ret_region[64], struct error *error)
{
    struct s3 *s3 = s3_of(store);
    struct buffer query = BUFFER_EMPTY;
    s3_query_add(&query, "list-type", "2");
    s3_query_add(&query, "max-keys", "1");
    s3_query_add(&query, "prefix", s3->place.prefix);
    struct s3_answer answer;
    ask(s3, "GET", (const char *)query.data, NULL, NULL, NULL, &answer);
    buffer_free(&query);
    int failed = 0;
    if (answer.outcome != S3_DONE)
        failed = tell(s3, &answer, error);
    if (answer.outcome == S3_NO_BUCKET) {
        failed = -ENOENT;
        if (error != NULL)
            error->code = ENOENT;
    }
    if (answer.outcome == S3_REGION)
        memcpy(ret_region, answer.region, sizeof answer.region);
    s3_answer_free(&answer);
    return failed;
}

/* `constrained`: naming our region. */
static void create(struct s3 *s3, bool constrained, struct s3_answer *ret_answer)
{
    struct buffer xml = BUFFER_EMPTY;
    if (constrained)
        buffer_printf(&xml,
                      "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                      "<LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>",
                      s3->region);
    struct iovec body = { .iov_base = xml.data, .iov_len = xml.length };
    ask(s3, "PUT", "", &body, NULL, NULL, ret_answer);
    buffer_free(&xml);
}

int s3_bucket_create(struct store *store, struct error *error)
{
    struct s3 *s3 = s3_of(store);
    /* The first region has no name in this call. */
    bool constrained = strcmp(s3->region, "us-east-1") != 0;
    struct s3_answer answer;
    create(s3, constrained, &answer);
    /* Other stores may know one region only, whatever we sign for. */
    if (constrained && !s3->place.aws &&
        (strcmp(answer.code, "InvalidLocationConstraint") == 0 || strcmp(answer.code, "InvalidRegion") == 0)) {
        s3_answer_free(&answer);
        create(s3, false, &answer);
    }
    int failed = 0;
    if (strcmp(answer.code, "BucketAlreadyExists") == 0) {
        char region[64];
        if (s3_bucket_check(store, region, NULL) != 0)
            failed = error_set(error, EEXIST, "bucket %s: it belongs to another account; choose another name",
                               s3->place.bucket);
    } else if (answer.outcome != S3_DONE && strcmp(answer.code, "BucketAlreadyOwnedByYou") != 0) {
        failed = tell(s3, &answer, error);
        if (failed == -EEXIST || failed == -ENOENT)
            failed = -EIO;
    }
    s3_answer_free(&answer);
    return failed;
}

/* Stores without the call say so in many ways. */
static bool is_unknown_call(const struct s3_answer *answer)
{
    return answer->outcome == S3_FATAL;
}

static void judge_versioning(const struct s3_call *call, struct s3_answer *answer)
{
    const struct buffer *body = &answer->response.body;
    struct error error = ERROR_NONE;
    if (s3_xml_versioning(body->data, body->length, call->arg, &error) != 0)
        s3_answer_damaged(answer, error.story);
}

int s3_bucket_versioning(struct store *store, char ret_status[16], struct error *error)
{
    struct s3 *s3 = s3_of(store);
    char status[16] = "";
    struct s3_answer answer;
    ask(s3, "GET", "versioning=", NULL, judge_versioning, status, &answer);
    int failed = 0;
    if (answer.outcome != S3_DONE && !is_unknown_call(&answer))
        failed = tell(s3, &answer, error);
    else
        memcpy(ret_status, status, sizeof status);
    s3_answer_free(&answer);
    return failed;
}

struct expiry {
    const char *prefix;
    bool expires;
    char rule[128];
};

static void judge_lifecycle(const struct s3_call *call, struct s3_answer *answer)
{
    struct expiry *expiry = call->arg;
    const struct buffer *body = &answer->response.body;
    struct error error = ERROR_NONE;
    if (s3_xml_lifecycle_expires(body->data, body->length, expiry->prefix, &expiry->expires, expiry->rule, &error) != 0)
        s3_answer_damaged(answer, error.story);
}

int s3_bucket_expires(struct store *store, bool *ret_expires, char ret_rule[128], struct error *error)
{
    struct s3 *s3 = s3_of(store);
    struct expiry expiry = { .prefix = s3->place.prefix };
    struct s3_answer answer;
    ask(s3, "GET", "lifecycle=", NULL, judge_lifecycle, &expiry, &answer);
    int failed = 0;
    /* Unknown: or NoSuchLifecycleConfiguration, since none was ever set. */
    if (answer.outcome != S3_DONE && !is_unknown_call(&answer)) {
        failed = tell(s3, &answer, error);
    } else {
        *ret_expires = expiry.expires;
        memcpy(ret_rule, expiry.rule, sizeof expiry.rule);
    }
    s3_answer_free(&answer);
    return failed;
}
