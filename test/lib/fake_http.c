/* See fake_http.h.  What a request asks for is copied when it is sent, since it may arrive after its sender has gone.
 */
#include "fake_http.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/error.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/loop_sim.h"
#include "rt/wait.h"

#define SKEW_MOST_S 900

static struct fake_http *server;

struct http {
    uint64_t under_way;
};

struct flight {
    struct fake_request request;
    char *method, *path, *query, *key, *headers[HTTP_HEADERS_MAX], *values[HTTP_HEADERS_MAX];
    uint8_t *body;
    size_t length;
    struct fake_fate fate;
    struct waitq done;
    bool ended, abandoned;
    struct http_response response;
    struct buffer content; /* of an object, or a part of it */
};

/* ---- taking a request apart ---- */

static const char *header(const struct flight *flight, const char *name)
{
    for (int i = 0; i < HTTP_HEADERS_MAX && flight->headers[i] != NULL; i++)
        if (strcasecmp(flight->headers[i], name) == 0)
            return flight->values[i];
    return "";
}

static char *decode(const char *text, size_t length)
{
    char *decoded = memory_new(length + 1), *to = decoded;
    for (size_t i = 0; i < length; i++) {
        unsigned value = (unsigned char)text[i];
        if (text[i] == '%') {
            char digits[3] = { text[i + 1], text[i + 2], '\0' };
            value = (unsigned)strtoul(digits, NULL, 16);
            i += 2;
        }
        *to++ = (char)value;
    }
    return decoded;
}

/* A parameter of the query, decoded; NULL: there is none. */
static char *parameter(const struct flight *flight, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = flight->query; *at != '\0';) {
        size_t end = strcspn(at, "&");
        if (end > length && strncmp(at, name, length) == 0 && at[length] == '=')
            return decode(at + length + 1, end - length - 1);
        at += end + (at[end] == '&');
    }
    return NULL;
}

static const char *access_key_of(const struct flight *flight)
{
    static char key[64];
    const char *at = strstr(header(flight, "authorization"), "Credential=");
    key[0] = '\0';
    if (at != NULL)
        snprintf(key, sizeof key, "%.*s", (int)strcspn(at + 11, "/"), at + 11);
    return key;
}

static struct flight *flight_new(const struct http_request *request)
{
    struct flight *flight = memory_new(sizeof *flight);
    const char *path = strchr(strstr(request->url, "://") + 3, '/');
    size_t path_length = strcspn(path, "?");
    waitq_init(&flight->done);
    flight->method = memory_string(request->method);
    flight->path = decode(path, path_length);
    flight->query = memory_string(path[path_length] == '?' ? path + path_length + 1 : "");
    flight->key = memory_string(strncmp(flight->path, "/" FAKE_BUCKET "/", strlen("/" FAKE_BUCKET "/")) == 0
                                    ? flight->path + strlen("/" FAKE_BUCKET "/")
                                    : "");
    for (int i = 0; i < HTTP_HEADERS_MAX && request->headers[i].name != NULL; i++) {
        flight->headers[i] = memory_string(request->headers[i].name);
        flight->values[i] = memory_string(request->headers[i].value);
    }
    struct buffer body = BUFFER_EMPTY;
    for (int i = 0; i < request->body_count; i++)
        buffer_put(&body, request->body[i].iov_base, request->body[i].iov_len);
    flight->body = body.data;
    flight->length = body.length;
    flight->request = (struct fake_request){ .number = ++server->requests,
                                             .method = flight->method,
                                             .key = flight->key,
                                             .query = flight->query,
                                             .if_match = header(flight, "if-match"),
                                             .if_none_match = header(flight, "if-none-match"),
                                             .range = header(flight, "range"),
                                             .payload_hash = header(flight, "x-amz-content-sha256"),
                                             .checksum = header(flight, "x-amz-checksum-crc32"),
                                             .access_key = access_key_of(flight),
                                             .length = flight->length,
                                             .fresh = request->fresh,
                                             .connect_timeout_ms = request->connect_timeout_ms };
    return flight;
}

static void flight_free(struct flight *flight)
{
    free(flight->method);
    free(flight->path);
    free(flight->query);
    free(flight->key);
    for (int i = 0; i < HTTP_HEADERS_MAX; i++) {
        free(flight->headers[i]);
        free(flight->values[i]);
    }
    free(flight->body);
    buffer_free(&flight->response.body);
    buffer_free(&flight->content);
    free(flight);
}

/* ---- answers ---- */

static void refuse(struct flight *flight, int status, const char *code, const char *more)
{
    struct http_response *response = &flight->response;
    response->status = status;
    buffer_clear(&response->body);
    if (code != NULL && strcmp(flight->method, "HEAD") != 0)
        buffer_printf(&response->body,
                      "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code>"
                      "<Message>In the words of the server.</Message>%s</Error>",
                      code, more);
    response->length = response->body.length;
}

/* The whole object; false: there is none, and that is the answer. */
static bool fetch(struct flight *flight, struct buffer *ret_bytes)
{
    struct store *objects = server->objects;
    struct store_get get = { .key = flight->key };
    struct store_got got = { 0 };
    if (objects->ops->get(objects, &get, &got, NULL) != 0) {
        refuse(flight, 404, "NoSuchKey", "");
        return false;
    }
    buffer_put_zeroes(ret_bytes, got.size);
    struct iovec piece = { .iov_base = ret_bytes->data, .iov_len = got.size };
    get.pieces = &piece;
    get.count = 1;
    objects->ops->get(objects, &get, &got, NULL);
    snprintf(flight->response.etag, STORE_ETAG_MAX, "\"%.64s\"", got.etag);
    return true;
}

static void answer_get(struct flight *flight)
{
    struct http_response *response = &flight->response;
    struct buffer whole = BUFFER_EMPTY;
    if (!fetch(flight, &whole))
        return;
    unsigned long long first = 0, last = 0;
    response->status = 200;
    size_t length = whole.length;
    if (sscanf(flight->request.range, "bytes=%llu-%llu", &first, &last) == 2) {
        if (first >= length) {
            refuse(flight, 416, "InvalidRange", "");
            response->etag[0] = '\0';
            buffer_free(&whole);
            return;
        }
        last = last < length - 1 ? last : length - 1;
        response->status = 206;
        response->range_first = first;
        response->range_last = last;
        response->range_size = length;
        length = last - first + 1;
    }
    response->length = length;
    if (strcmp(flight->method, "HEAD") != 0 && length > 0)
        buffer_put(&flight->content, whole.data + first, length);
    buffer_free(&whole);
}

static void answer_put(struct flight *flight)
{
    struct iovec piece = { .iov_base = flight->body, .iov_len = flight->length };
    struct store_put put = { .key = flight->key, .pieces = &piece, .count = 1 };
    char etag[STORE_ETAG_MAX], wanted[STORE_ETAG_MAX] = "";
    const char *match = flight->request.if_match;
    if (strcmp(flight->request.if_none_match, "*") == 0)
        put.condition = STORE_ABSENT;
    if (match[0] != '\0') {
        put.condition = STORE_MATCHES;
        size_t length = strlen(match);
        bool quoted = length > 2 && match[0] == '"';
        if (quoted != server->bare_etags)
            snprintf(wanted, sizeof wanted, "%.*s", (int)(quoted ? length - 2 : length), match + (quoted ? 1 : 0));
        put.etag = wanted[0] != '\0' ? wanted : "never";
    }
    int failed = server->objects->ops->put(server->objects, &put, etag, NULL);
    if (failed == 0) {
        flight->response.status = 200;
        flight->response.length = 0;
        snprintf(flight->response.etag, STORE_ETAG_MAX, "\"%.64s\"", etag);
    } else {
        refuse(flight, 412, "PreconditionFailed", "");
    }
}

static void encode_key(const char *key, struct buffer *xml)
{
    for (; *key != '\0'; key++) {
        bool plain = (*key >= 'a' && *key <= 'z') || (*key >= '0' && *key <= '9') || *key == '/' || *key == '.';
        buffer_printf(xml, plain ? "%c" : "%%%02X", (unsigned char)*key);
    }
}

static void answer_list(struct flight *flight)
{
    char *prefix = parameter(flight, "prefix"), *after = parameter(flight, "start-after"),
         *token = parameter(flight, "continuation-token"), *max = parameter(flight, "max-keys");
    struct buffer *xml = &flight->response.body;
    struct store_listing listing;
    if (token != NULL) {
        free(after);
        after = decode(token, strlen(token));
    }
    size_t limit = max != NULL ? (size_t)atoi(max) : STORE_LIST_MAX;
    if (server->page_max > 0 && limit > server->page_max)
        limit = server->page_max;
    if (server->early_end)
        limit -= 3;
    int failed = server->objects->ops->list(server->objects, prefix != NULL ? prefix : "", after != NULL ? after : "",
                                            limit, &listing, NULL);
    assert(failed == 0);
    (void)failed;
    listing.more = listing.more && !server->early_end;
    buffer_printf(xml, "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>%s</IsTruncated>",
                  listing.more ? "true" : "false");
    for (size_t i = 0; i < listing.count; i++) {
        buffer_printf(xml, "<Contents><Key>");
        encode_key(listing.entries[i].key, xml);
        buffer_printf(xml, "</Key><Size>%llu</Size></Contents>", (unsigned long long)listing.entries[i].size);
    }
    if (listing.more) { /* any text would do */
        buffer_printf(xml, "<NextContinuationToken>");
        encode_key(listing.entries[listing.count - 1].key, xml);
        buffer_printf(xml, "</NextContinuationToken>");
    }
    buffer_printf(xml, "</ListBucketResult>");
    flight->response.status = 200;
    flight->response.length = xml->length;
    store_listing_free(&listing);
    free(prefix);
    free(after);
    free(token);
    free(max);
}

static void answer_bucket(struct flight *flight)
{
    bool put = strcmp(flight->method, "PUT") == 0;
    if (put && server->bucket_of_others) {
        refuse(flight, 409, "BucketAlreadyExists", "");
    } else if (server->bucket_of_others) {
        refuse(flight, 403, "AccessDenied", "");
    } else if (put && server->constraint_refused && flight->length > 0) {
        refuse(flight, 400, "InvalidLocationConstraint", "");
    } else if (put && !server->bucket_missing) {
        refuse(flight, 409, "BucketAlreadyOwnedByYou", "");
    } else if (put) {
        server->bucket_missing = false;
        flight->response.status = 200;
    } else if (server->bucket_missing) {
        refuse(flight, 404, "NoSuchBucket", "");
    } else if (strcmp(flight->query, "lifecycle=") == 0 && server->without_lifecycle) {
        refuse(flight, 501, "NotImplemented", "");
    } else if (strcmp(flight->query, "lifecycle=") == 0) {
        refuse(flight, 404, "NoSuchLifecycleConfiguration", "");
    } else if (strcmp(flight->query, "versioning=") == 0) {
        buffer_printf(&flight->response.body,
                      "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>");
        flight->response.status = 200;
    } else {
        answer_list(flight);
    }
}

static int64_t now_s(void)
{
    return (int64_t)(loop_wall_ns(server->loop) / NS_PER_S) + server->ahead_s;
}

/* Whether it may be looked at at all. */
static bool admit(struct flight *flight)
{
    struct tm tm = { 0 };
    const char *date = header(flight, "x-amz-date");
    const char *end = strptime(date, "%Y%m%dT%H%M%SZ", &tm);
    assert(end != NULL && *end == '\0');
    (void)end;
    flight->response.date_s = (uint64_t)now_s();
    if (strcmp(flight->request.access_key, server->access_key) != 0)
        refuse(flight, 403, "InvalidAccessKeyId", "");
    else if (llabs((long long)timegm(&tm) - now_s()) > SKEW_MOST_S)
        refuse(flight, 403, "RequestTimeTooSkewed", "");
    else if (server->region != NULL && strstr(header(flight, "authorization"), server->region) == NULL)
        refuse(flight, 301, "PermanentRedirect", "<Region>elsewhere-1</Region>");
    else if (server->bucket_missing && flight->key[0] != '\0')
        refuse(flight, 404, "NoSuchBucket", "");
    else
        return true;
    return false;
}

static void apply(struct flight *flight)
{
    if (!admit(flight))
        return;
    if (flight->key[0] == '\0') {
        answer_bucket(flight);
    } else if (strcmp(flight->method, "GET") == 0 || strcmp(flight->method, "HEAD") == 0) {
        answer_get(flight);
    } else if (strcmp(flight->method, "PUT") == 0) {
        answer_put(flight);
    } else {
        assert(strcmp(flight->method, "DELETE") == 0);
        int failed = server->objects->ops->delete (server->objects, flight->key, NULL);
        assert(failed == 0);
        (void)failed;
        flight->response.status = 204;
    }
}

/* As a container's endpoint does. */
static void issue_credentials(struct flight *flight)
{
    server->issued++;
    buffer_printf(&flight->response.body,
                  "{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"" FAKE_SECRET "\",\"Token\":\"" FAKE_TOKEN
                  "\",\"Expiration\":\"2999-01-01T00:00:00Z\"}",
                  server->access_key);
    flight->response.status = 200;
    flight->response.length = flight->response.body.length;
    strcpy(flight->response.content_type, "application/json");
}

/* ---- the way ---- */

static void come_back(void *arg)
{
    struct flight *flight = arg;
    server->in_flight--;
    flight->ended = true;
    if (flight->abandoned)
        flight_free(flight);
    else
        waitq_wake_all(&flight->done);
}

static void arrive(void *arg)
{
    struct flight *flight = arg;
    const struct fake_fate *fate = &flight->fate;
    flight->response = (struct http_response){ .length = UINT64_MAX,
                                               .range_first = UINT64_MAX,
                                               .range_last = UINT64_MAX,
                                               .range_size = UINT64_MAX,
                                               .retry_after_ms = UINT64_MAX,
                                               .server = "Fake" };
    if (strcmp(flight->path, FAKE_CREDENTIALS_PATH) == 0)
        issue_credentials(flight);
    else if (!fate->lost && (fate->status == 0 || fate->applied))
        apply(flight);
    if (fate->status != 0) {
        flight->response.etag[0] = '\0';
        flight->response.date_s = (uint64_t)now_s();
        buffer_clear(&flight->content);
        refuse(flight, fate->status, fate->code, "");
        if (fate->page != NULL)
            buffer_put(&flight->response.body, fate->page, strlen(fate->page));
        flight->response.retry_after_ms = fate->retry_after_ms > 0 ? fate->retry_after_ms : UINT64_MAX;
    }
    if (fate->garble) {
        buffer_clear(&flight->content);
        buffer_printf(&flight->content, "<Error><Code>InternalError</Code><Message>Oh.</Message></Error>");
        strcpy(flight->response.content_type, "application/xml");
    }
    if (fate->edit != NULL)
        fate->edit(&flight->response);
    world_after(server->world, fate->way_back_ns, come_back, flight);
}

/* As store/http.h says of bodies. */
static void place(const struct flight *flight, const struct http_request *request, struct http_response *response)
{
    bool placing = request->pieces != NULL && ((response->status == 206 && response->range_first == request->offset) ||
                                               (response->status == 200 && request->offset == 0));
    const uint8_t *from = flight->content.data;
    size_t left = flight->content.length;
    for (int i = 0; placing && i < request->count && left > 0; i++) {
        size_t part = request->pieces[i].iov_len < left ? request->pieces[i].iov_len : left;
        if (part > 0)
            memcpy(request->pieces[i].iov_base, from, part);
        response->placed += part;
        from += part;
        left -= part;
    }
}

int http_perform(struct http *http, const struct http_request *request, struct http_response *ret_response,
                 struct error *error)
{
    if (coroutine_cancelled())
        return error_set(error, ECANCELED, "cancelled");
    if (request->deadline_ns <= loop_now_ns(server->loop))
        return error_set(error, ETIMEDOUT, "no time left");
    struct flight *flight = flight_new(request);
    if (server->fate != NULL)
        server->fate(server->arg, &flight->request, &flight->fate);
    http->under_way++;
    if (++server->in_flight > server->in_flight_most)
        server->in_flight_most = server->in_flight;
    world_after(server->world, flight->fate.way_there_ns, arrive, flight);
    int failed = 0;
    while (!flight->ended && failed == 0)
        failed = waitq_wait_until(&flight->done, request->deadline_ns);
    http->under_way--;
    if (!flight->ended) {
        flight->abandoned = true;
        return error_set(error, -failed, failed == -ECANCELED ? "cancelled" : "it took too long");
    }
    if (flight->fate.fail != 0) {
        failed = error_set(error, flight->fate.fail, "the wire is cut");
    } else {
        place(flight, request, &flight->response);
        *ret_response = flight->response;
        flight->response.body = (struct buffer)BUFFER_EMPTY;
        failed = 0;
    }
    flight_free(flight);
    return failed;
}

void http_response_free(struct http_response *response)
{
    buffer_free(&response->body);
}

int http_new(struct loop *loop, const struct http_setup *setup, struct http **ret_http, struct error *error)
{
    *ret_http = memory_new(sizeof **ret_http);
    return 0;
}

void http_free(struct http *http)
{
    assert(http == NULL || http->under_way == 0);
    free(http);
}

struct fake_http *fake_http_new(struct loop *loop, struct world *world)
{
    struct fake_http *fake = memory_new(sizeof *fake);
    fake->world = world;
    fake->loop = loop;
    fake->mem = mem_new();
    fake->objects = store_mem_open(fake->mem);
    fake->access_key = FAKE_ACCESS_KEY;
    server = fake;
    return fake;
}

void fake_http_free(struct fake_http *fake)
{
    assert(fake->in_flight == 0);
    store_close(fake->objects);
    mem_free(fake->mem);
    free(fake);
    server = NULL;
}
