/* One attempt: a request is signed, sent, and its answer classified.
 *
 * Credentials are asked for each time, so an attempt after a refresh has the
 * new ones.  Two refusals are corrected here, because a request that was
 * refused for them has definitely changed nothing: credentials that have
 * expired, when the chain can get others; and a clock that is off, when the
 * answer's Date tells the right time.  That time is used in signatures alone.
 *
 * What stands in a story: the status, the code and the message of the <Error>,
 * or how the connection failed.  Never a header, so never a secret. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/event.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "store/credentials_internal.h" /* secret_redact(): nobody knows what a server quotes */
#include "store/s3_internal.h"
#include "store/s3_xml.h"

/* A clock that is off by less was not what a store minds (it allows 15 minutes): correcting it would not help. */
#define SKEW_LEAST_S 30
/* What is quoted of an answer that is not S3's; and of one that is. */
#define QUOTED_BYTES 60u
#define MESSAGE_MAX 200
/* Of the name of where credentials come from. */
#define SOURCE_MAX 128

/* What goes over the wire, and is kept until the answer has come.  Some of it is secret. */
struct wire {
    struct buffer path, url, authorization;
    char time[SIGV4_TIME_MAX];
    char *token;
    struct http_request request;
};

static void wire_free(struct wire *wire)
{
    buffer_free(&wire->path);
    buffer_free(&wire->url);
    if (wire->authorization.data != NULL)
        explicit_bzero(wire->authorization.data, wire->authorization.length);
    buffer_free(&wire->authorization);
    if (wire->token != NULL)
        explicit_bzero(wire->token, strlen(wire->token));
    free(wire->token);
}

static int64_t wall_s(struct s3 *s3)
{
    return (int64_t)(loop_wall_ns(s3->loop) / NS_PER_S);
}

/* ---- sending ---- */

static void add_header(struct http_header *headers, int *count, const char *name, const char *value)
{
    assert(*count < HTTP_HEADERS_MAX && *count < SIGV4_HEADERS_MAX);
    headers[(*count)++] = (struct http_header){ .name = name, .value = value };
}

static void sign(struct s3 *s3, const struct s3_call *call, const struct credentials *credentials, struct wire *wire)
{
    struct http_header *headers = wire->request.headers;
    int count = 0;
    wire->token = credentials->token != NULL ? memory_string(credentials->token) : NULL;
    add_header(headers, &count, "x-amz-date", wire->time);
    add_header(headers, &count, "x-amz-content-sha256", call->payload_hash);
    if (call->checksum[0] != '\0')
        add_header(headers, &count, "x-amz-checksum-crc32", call->checksum);
    if (wire->token != NULL)
        add_header(headers, &count, "x-amz-security-token", wire->token);
    for (int i = 0; i < S3_CALL_HEADERS_MAX && call->headers[i].name != NULL; i++)
        add_header(headers, &count, call->headers[i].name, call->headers[i].value);

    struct sigv4_header signed_headers[SIGV4_HEADERS_MAX];
    assert(count < SIGV4_HEADERS_MAX);
    for (int i = 0; i < count; i++)
        signed_headers[i] = (struct sigv4_header){ .name = headers[i].name, .value = headers[i].value };
    signed_headers[count] = (struct sigv4_header){ .name = "host", .value = s3->place.authority };
    const struct sigv4_request request = { .method = call->method,
                                           .path = (const char *)wire->path.data,
                                           .query = call->query,
                                           .headers = signed_headers,
                                           .header_count = count + 1,
                                           .payload_hash = call->payload_hash,
                                           .time = wire->time };
    sigv4_sign(&request, credentials->access_key, credentials->secret_key, s3->region, "s3", &s3->signing_key,
               &wire->authorization);
    add_header(headers, &count, "Authorization", (const char *)wire->authorization.data);
}

static uint64_t attempt_deadline_ns(const struct s3 *s3, const struct s3_call *call)
{
    assert(call->slowest > 0);
    uint64_t ms = S3_SILENCE_MS + call->size * 1000 / call->slowest;
    uint64_t deadline_ns = loop_now_ns(s3->loop) + ms * NS_PER_MS;
    return deadline_ns < call->deadline_ns ? deadline_ns : call->deadline_ns;
}

/* Never parks: `credentials` are valid until then. */
static void prepare(struct s3 *s3, const struct s3_call *call, const struct credentials *credentials, struct wire *wire)
{
    int64_t now_s = wall_s(s3) + s3->signing_skew_s;
    sigv4_time(now_s > 0 ? (uint64_t)now_s : 0, wire->time);
    s3_place_path(&s3->place, call->key, &wire->path);
    buffer_printf(&wire->url, "%s://%s%s%s%s", s3->place.scheme, s3->place.authority, (const char *)wire->path.data,
                  call->query[0] != '\0' ? "?" : "", call->query);
    wire->request.method = call->method;
    wire->request.url = (const char *)wire->url.data;
    wire->request.body = call->body;
    wire->request.body_count = call->body_count;
    wire->request.pieces = call->pieces;
    wire->request.count = call->count;
    wire->request.offset = call->offset;
    wire->request.body_max = call->body_max;
    wire->request.connect_timeout_ms = call->connect_timeout_ms;
    wire->request.deadline_ns = attempt_deadline_ns(s3, call);
    wire->request.apart = call->apart;
    /* After silence the connections that are open are not to be trusted. */
    wire->request.fresh = s3->health.timed_out;
    sign(s3, call, credentials, wire);
}

/* ---- the answer ---- */

void s3_answer_free(struct s3_answer *answer)
{
    if (answer->response.status != 0)
        http_response_free(&answer->response);
    answer->response.status = 0;
}

void s3_answer_damaged(struct s3_answer *answer, const char *what)
{
    answer->outcome = S3_RETRY;
    error_set(&answer->error, EIO, "the store answered %d, but %s", answer->response.status, what);
}

/* What the operator may want to do. */
static const char *advice(enum s3_outcome outcome, const char *code)
{
    if (strcmp(code, "SignatureDoesNotMatch") == 0)
        return "; the secret key does not belong to the access key";
    switch (outcome) {
    case S3_SKEWED:
        return "; set this host's clock";
    case S3_NO_BUCKET:
        return "; make the bucket, or correct its name";
    case S3_DENIED:
        return "; give these credentials the permission, or use others";
    case S3_FULL:
        return "; the store is full";
    default:
        return "";
    }
}

/* " (credentials: AWS_ACCESS_KEY_ID)", where they matter. */
static void tell_source(const struct s3 *s3, enum s3_outcome outcome, char text[SOURCE_MAX])
{
    text[0] = '\0';
    if (outcome == S3_EXPIRED || outcome == S3_DENIED)
        snprintf(text, SOURCE_MAX, " (credentials: %s)", credential_chain_source(s3->credentials));
}

static void tell_refusal(struct s3 *s3, struct s3_answer *answer, const struct s3_error *told)
{
    const struct http_response *response = &answer->response;
    int code = s3_outcome_errno(answer->outcome, response->status, told->code);
    if (answer->outcome == S3_REGION) {
        const char *region = response->region[0] != '\0' ? response->region : told->region;
        memcpy(answer->region, region, strlen(region) + 1); /* both have the same size */
        if (region[0] != '\0' && strcmp(region, s3->region) != 0) {
            error_set(&answer->error, code, "the store answered %d%s%s: the bucket is in region %s, not %s",
                      response->status, told->code[0] != '\0' ? " " : "", told->code, region, s3->region);
            return;
        }
    }
    if (response->status >= 300 && response->status < 400) {
        error_set(&answer->error, code, "the store answered %d%s%s: the bucket, or the store, is elsewhere%s%.120s",
                  response->status, told->code[0] != '\0' ? " " : "", told->code,
                  response->location[0] != '\0' ? ", at " : "", response->location);
        return;
    }
    char source[SOURCE_MAX], said[MESSAGE_MAX];
    tell_source(s3, answer->outcome, source);
    if (told->code[0] != '\0') {
        size_t length = strlen(told->message);
        while (length > 0 && told->message[length - 1] == '.')
            length--;
        secret_redact(told->message, length, said, sizeof said);
        error_set(&answer->error, code, "the store answered %d %s%s%s%s%s", response->status, told->code,
                  said[0] != '\0' ? ": " : "", said, source, advice(answer->outcome, told->code));
        return;
    }
    size_t length = response->body.length < QUOTED_BYTES ? response->body.length : QUOTED_BYTES;
    secret_redact((const char *)response->body.data, length, said, sizeof said);
    error_set(&answer->error, code, "the store answered %d%s%s%s%s%s", response->status,
              said[0] != '\0' ? ", not in the words of S3: \"" : "", said, said[0] != '\0' ? "\"" : "", source,
              advice(answer->outcome, ""));
}

static void read_answer(struct s3 *s3, const struct s3_call *call, struct s3_answer *answer)
{
    const struct http_response *response = &answer->response;
    if (response->date_s != 0)
        s3->clock_skew_s = (int64_t)response->date_s - wall_s(s3);
    if (response->date_s * 1000 > s3->date_ms)
        s3->date_ms = response->date_s * 1000;
    if (response->server[0] != '\0')
        memcpy(s3->server, response->server, sizeof s3->server);
    struct s3_error told = { 0 };
    bool is_error = response->body.length > 0 && s3_xml_error(response->body.data, response->body.length, &told);
    if (response->status >= 200 && response->status < 300) {
        answer->outcome = S3_DONE;
        if (is_error) {
            /* Whatever it says: that the request was carried out, and was not, are both possible. */
            enum s3_outcome meant = s3_classify(500, told.code);
            answer->outcome = meant == S3_THROTTLED ? S3_THROTTLED : S3_RETRY;
            error_set(&answer->error, EIO, "the store answered %d with an error inside: %s", response->status,
                      told.code);
        } else if (strncmp(response->content_type, "text/html", strlen("text/html")) == 0) {
            s3_answer_damaged(answer, "with a web page: what answers there is not S3");
        } else if (call->judge != NULL) {
            call->judge(call, answer);
        }
    } else {
        answer->outcome = s3_classify(response->status, told.code);
        /* The answer to HEAD has no body that could tell which it is; s3_get() sends it for keys that were there. */
        if (response->status == 404 && strcmp(call->method, "HEAD") == 0)
            answer->outcome = S3_ABSENT;
        tell_refusal(s3, answer, &told);
    }
    memcpy(answer->code, told.code, sizeof answer->code);
}

/* No answer came. */
static void read_failure(struct s3_answer *answer, int failed)
{
    switch (failed) {
    case -ECANCELED:
        answer->outcome = S3_CANCELLED;
        break;
    case -EKEYREJECTED:
    case -EINVAL:
        answer->outcome = S3_FATAL;
        break;
    default:
        answer->outcome = S3_RETRY;
    }
}

/* Credentials could not be had. What is not there stays away; what did not answer may do so later. */
static void read_no_credentials(struct s3_answer *answer, int failed)
{
    bool transient = failed == -ETIMEDOUT || failed == -ECONNREFUSED || failed == -ECONNRESET ||
                     failed == -EHOSTUNREACH || failed == -EIO || failed == -EBUSY;
    answer->outcome = failed == -ECANCELED ? S3_CANCELLED : transient ? S3_RETRY : S3_FATAL;
    /* The caller's ENOENT means that a key is absent. */
    if (failed == -ENOENT || failed == -EEXIST || failed == -ESTALE)
        answer->error.code = EACCES;
}

static void attempt_once(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer)
{
    struct s3_answer *answer = ret_answer;
    *answer = (struct s3_answer){ .skew_s = s3->signing_skew_s };
    struct credentials credentials;
    int failed = credential_chain_get(s3->credentials, &credentials, &answer->error);
    if (failed != 0) {
        read_no_credentials(answer, failed);
        return;
    }
    answer->generation = credentials.generation;
    answer->skew_s = s3->signing_skew_s;
    answer->sent = true;
    struct wire wire = { 0 };
    prepare(s3, call, &credentials, &wire);
    uint64_t sent_ns = loop_now_ns(s3->loop);
    failed = http_perform(s3->http, &wire.request, &answer->response, &answer->error);
    wire_free(&wire);
    if (failed != 0)
        read_failure(answer, failed);
    else
        read_answer(s3, call, answer);
    if (s3_may_retry(answer->outcome))
        s3_health_failed(s3, sent_ns, &answer->error);
    else if (failed == 0)
        s3_health_answered(s3);
}

/* Whether signing by the store's clock may help. */
static bool correct_clock(struct s3 *s3, struct s3_answer *answer)
{
    if (answer->response.date_s == 0)
        return false;
    if (llabs(s3->clock_skew_s - answer->skew_s) < SKEW_LEAST_S) {
        /* It refuses the very time that it tells: some part of it is off, and another may not be. */
        answer->outcome = S3_RETRY;
        answer->error.code = EIO;
        return false;
    }
    if (llabs(s3->clock_skew_s - s3->signing_skew_s) >= SKEW_LEAST_S)
        event_raise(s3->events, EVENT_WARNING, s3->subject,
                    "this host's clock is %lld s %s the store's, which refuses it; requests are signed by the store's",
                    llabs(s3->clock_skew_s), s3->clock_skew_s > 0 ? "behind" : "ahead of");
    s3->signing_skew_s = s3->clock_skew_s;
    return true;
}

void s3_attempt(struct s3 *s3, const struct s3_call *call, struct s3_answer *ret_answer)
{
    attempt_once(s3, call, ret_answer);
    bool corrected = false;
    if (ret_answer->outcome == S3_EXPIRED)
        corrected = credential_chain_refused(s3->credentials, ret_answer->generation);
    else if (ret_answer->outcome == S3_SKEWED)
        corrected = correct_clock(s3, ret_answer);
    if (!corrected)
        return;
    s3_answer_free(ret_answer);
    attempt_once(s3, call, ret_answer);
    if (ret_answer->outcome == S3_SKEWED)
        correct_clock(s3, ret_answer);
}
