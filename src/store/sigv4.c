/* AWS Signature Version 4: see store/sigv4.h.
 *
 * A request is brought into one canonical form, of which both sides make the
 * same bytes although headers and parameters may travel in any order:
 *
 *     METHOD \n path \n sorted query \n
 *     sorted header:value lines \n \n names of these headers \n hash of the payload
 *
 * Its hash, the time and the scope (day/region/service/aws4_request) are the
 * string to sign.  The key is HMAC(HMAC(HMAC(HMAC("AWS4" secret, day), region),
 * service), "aws4_request"), the same for a whole day, and kept in struct
 * sigv4_key with what it was made from.
 *
 * Path and query are taken as they are sent.  S3 encodes paths once, unlike
 * AWS's other services; those cairn calls (STS) have the path "/", for which
 * both are one.
 *
 * Nothing here can fail: GnuTLS could only for want of a few hundred bytes.
 * What holds the secret, or a session token among the headers, is wiped. */
#include "store/sigv4.h"

#include <assert.h>
#include <ctype.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/buffer.h"
#include "base/hash.h"
#include "base/text.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define TERMINATOR "aws4_request"
#define DAY_BYTES 8u                       /* of "20260102", with which a time begins */
#define LAST_SECOND UINT64_C(253402300799) /* 9999-12-31T23:59:59Z */

static_assert(sizeof(((struct sigv4_key *)0)->key) == SHA256_BYTES, "the key is an HMAC-SHA-256");

void sigv4_time(uint64_t wall_s, char ret_time[SIGV4_TIME_MAX])
{
    time_t seconds = (time_t)(wall_s < LAST_SECOND ? wall_s : LAST_SECOND);
    struct tm parts;
    struct tm *made = gmtime_r(&seconds, &parts);
    assert(made != NULL);
    size_t length = strftime(ret_time, SIGV4_TIME_MAX, "%Y%m%dT%H%M%SZ", &parts);
    assert(length == SIGV4_TIME_MAX - 1);
}

void sigv4_hash(const struct iovec *pieces, int count, char ret_hash[SIGV4_HASH_MAX])
{
    uint8_t hash[SHA256_BYTES];
    hash_sha256(pieces, count, hash);
    text_hex(hash, sizeof hash, ret_hash);
}

static void put_text(struct buffer *buffer, const char *text)
{
    buffer_put(buffer, text, strlen(text));
}

/* Readers of text find its end, writers of more overwrite it. */
static void terminate(struct buffer *buffer)
{
    buffer_reserve(buffer, 1);
    buffer->data[buffer->length] = '\0';
}

void sigv4_encode(const char *text, size_t length, int keep_slash, struct buffer *ret_text)
{
    static const char digits[] = "0123456789ABCDEF";
    buffer_reserve(ret_text, 3 * length + 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
                     byte == '-' || byte == '.' || byte == '_' || byte == '~' || (byte == '/' && keep_slash);
        if (plain) {
            buffer_put_u8(ret_text, byte);
        } else {
            const char escaped[3] = { '%', digits[byte >> 4], digits[byte & 15] };
            buffer_put(ret_text, escaped, sizeof escaped);
        }
    }
    terminate(ret_text);
}

/* ---- the canonical request ---- */

struct parameter {
    const char *name, *value;
    size_t name_length, value_length;
};

static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

/* By name, then by value: "a=" comes before "a-b=", although '-' comes before '='. */
static int compare_parameters(const void *left, const void *right)
{
    const struct parameter *a = left, *b = right;
    int order = compare_bytes(a->name, a->name_length, b->name, b->name_length);
    return order != 0 ? order : compare_bytes(a->value, a->value_length, b->value, b->value_length);
}

static void put_query(struct buffer *canonical, const char *query)
{
    struct parameter parameters[SIGV4_PARAMETERS_MAX];
    int count = 0;
    for (const char *at = query; *at != '\0';) {
        assert(count < SIGV4_PARAMETERS_MAX);
        struct parameter *parameter = &parameters[count++];
        size_t length = strcspn(at, "&");
        parameter->name = at;
        parameter->name_length = strcspn(at, "=&");
        parameter->value = at + parameter->name_length + (parameter->name_length < length ? 1 : 0);
        parameter->value_length = length - (size_t)(parameter->value - at);
        at += length + (at[length] == '&' ? 1 : 0);
    }
    qsort(parameters, (size_t)count, sizeof parameters[0], compare_parameters);
    for (int i = 0; i < count; i++) {
        if (i > 0)
            buffer_put_u8(canonical, '&');
        buffer_put(canonical, parameters[i].name, parameters[i].name_length);
        buffer_put_u8(canonical, '=');
        buffer_put(canonical, parameters[i].value, parameters[i].value_length);
    }
}

static int compare_headers(const void *left, const void *right)
{
    const struct sigv4_header *const *a = left, *const *b = right;
    return strcasecmp((*a)->name, (*b)->name);
}

static void sort_headers(const struct sigv4_request *request, const struct sigv4_header *ret_sorted[SIGV4_HEADERS_MAX])
{
    int count = request->header_count;
    assert(count > 0 && count <= SIGV4_HEADERS_MAX);
    for (int i = 0; i < count; i++)
        ret_sorted[i] = &request->headers[i];
    qsort(ret_sorted, (size_t)count, sizeof ret_sorted[0], compare_headers);
    for (int i = 1; i < count; i++)
        assert(strcasecmp(ret_sorted[i - 1]->name, ret_sorted[i]->name) != 0);
}

static void put_lower(struct buffer *buffer, const char *name)
{
    for (const char *at = name; *at != '\0'; at++)
        buffer_put_u8(buffer, (uint8_t)tolower((unsigned char)*at));
}

/* Without space at its ends, and with one for each run of it. */
static void put_folded(struct buffer *buffer, const char *value)
{
    static const char space[] = " \t";
    for (const char *at = value + strspn(value, space); *at != '\0';) {
        size_t word = strcspn(at, space);
        buffer_put(buffer, at, word);
        at += word;
        at += strspn(at, space);
        if (*at != '\0')
            buffer_put_u8(buffer, ' ');
    }
}

static void put_names(struct buffer *buffer, const struct sigv4_header *const *sorted, int count)
{
    for (int i = 0; i < count; i++) {
        if (i > 0)
            buffer_put_u8(buffer, ';');
        put_lower(buffer, sorted[i]->name);
    }
}

/* At least as long as the canonical request becomes, so that it never moves and leaves no copy of a token behind. */
static size_t canonical_room(const struct sigv4_request *request)
{
    size_t room = strlen(request->method) + strlen(request->path) + strlen(request->query) + SIGV4_PARAMETERS_MAX +
                  strlen(request->payload_hash);
    for (int i = 0; i < request->header_count; i++)
        room += 2 * strlen(request->headers[i].name) + strlen(request->headers[i].value) + sizeof ":\n;";
    return room + sizeof "\n\n\n\n\n";
}

static void hash_canonical(const struct sigv4_request *request, const struct sigv4_header *const *sorted,
                           char ret_hash[SIGV4_HASH_MAX])
{
    struct buffer canonical = BUFFER_EMPTY;
    buffer_reserve(&canonical, canonical_room(request));
    const uint8_t *begin = canonical.data;
    put_text(&canonical, request->method);
    buffer_put_u8(&canonical, '\n');
    put_text(&canonical, request->path);
    buffer_put_u8(&canonical, '\n');
    put_query(&canonical, request->query);
    buffer_put_u8(&canonical, '\n');
    for (int i = 0; i < request->header_count; i++) {
        put_lower(&canonical, sorted[i]->name);
        buffer_put_u8(&canonical, ':');
        put_folded(&canonical, sorted[i]->value);
        buffer_put_u8(&canonical, '\n');
    }
    buffer_put_u8(&canonical, '\n');
    put_names(&canonical, sorted, request->header_count);
    buffer_put_u8(&canonical, '\n');
    put_text(&canonical, request->payload_hash);
    assert(canonical.data == begin);
    struct iovec piece = { .iov_base = canonical.data, .iov_len = canonical.length };
    sigv4_hash(&piece, 1, ret_hash);
    explicit_bzero(canonical.data, canonical.length);
    buffer_free(&canonical);
}

/* ---- the key ---- */

static void authenticate(const void *key, size_t key_length, const void *text, size_t length,
                         uint8_t ret_code[SHA256_BYTES])
{
    int failed = gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, key_length, text, length, ret_code);
    assert(failed == 0);
}

static void make_key(const char *secret_key, const char *time, const char *region, const char *service,
                     uint8_t ret_key[SHA256_BYTES])
{
    static const char first[] = "AWS4";
    const size_t first_length = sizeof first - 1, secret_length = strlen(secret_key);
    struct buffer secret = BUFFER_EMPTY;
    buffer_reserve(&secret, first_length + secret_length);
    buffer_put(&secret, first, first_length);
    buffer_put(&secret, secret_key, secret_length);
    uint8_t code[SHA256_BYTES];
    authenticate(secret.data, secret.length, time, DAY_BYTES, code);
    authenticate(code, sizeof code, region, strlen(region), code);
    authenticate(code, sizeof code, service, strlen(service), code);
    authenticate(code, sizeof code, TERMINATOR, sizeof TERMINATOR - 1, ret_key);
    explicit_bzero(code, sizeof code);
    explicit_bzero(secret.data, secret.length);
    buffer_free(&secret);
}

/* Makes `key` fit, unless it does already.  What a store calls its region may be longer than a scope has room for: such
 * a key fits only once. */
static void refresh_key(struct sigv4_key *key, const struct buffer *scope, const char *secret_key, const char *time,
                        const char *region, const char *service)
{
    struct iovec secret = { .iov_base = (void *)(uintptr_t)secret_key, .iov_len = strlen(secret_key) };
    uint8_t secret_hash[SHA256_BYTES];
    hash_sha256(&secret, 1, secret_hash);
    bool keepable = scope->length < sizeof key->scope;
    if (!keepable || strcmp(key->scope, (const char *)scope->data) != 0 ||
        memcmp(key->secret_hash, secret_hash, sizeof secret_hash) != 0) {
        make_key(secret_key, time, region, service, key->key);
        memcpy(key->secret_hash, secret_hash, sizeof secret_hash);
        key->scope[0] = '\0';
        if (keepable)
            memcpy(key->scope, scope->data, scope->length + 1);
    }
    explicit_bzero(secret_hash, sizeof secret_hash);
}

/* ---- the signature ---- */

void sigv4_sign(const struct sigv4_request *request, const char *access_key, const char *secret_key, const char *region,
                const char *service, struct sigv4_key *key, struct buffer *ret_value)
{
    assert(strlen(request->time) == SIGV4_TIME_MAX - 1);
    assert(request->path[0] == '/');

    const struct sigv4_header *sorted[SIGV4_HEADERS_MAX];
    char canonical_hash[SIGV4_HASH_MAX];
    sort_headers(request, sorted);
    hash_canonical(request, sorted, canonical_hash);

    struct buffer scope = BUFFER_EMPTY, text = BUFFER_EMPTY;
    buffer_printf(&scope, "%.*s/%s/%s/" TERMINATOR, (int)DAY_BYTES, request->time, region, service);
    buffer_printf(&text, ALGORITHM "\n%s\n%s\n%s", request->time, (const char *)scope.data, canonical_hash);
    refresh_key(key, &scope, secret_key, request->time, region, service);
    uint8_t code[SHA256_BYTES];
    char signature[2 * SHA256_BYTES + 1];
    authenticate(key->key, sizeof key->key, text.data, text.length, code);
    text_hex(code, sizeof code, signature);

    buffer_printf(ret_value, ALGORITHM " Credential=%s/%s, SignedHeaders=", access_key, (const char *)scope.data);
    put_names(ret_value, sorted, request->header_count);
    buffer_printf(ret_value, ", Signature=%s", signature);
    buffer_free(&text);
    buffer_free(&scope);
}
