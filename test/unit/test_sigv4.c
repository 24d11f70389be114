/* AWS's published vectors, the encoding, and the keeping of the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

#include "base/buffer.h"
#include "store/sigv4.h"

#define HOST "examplebucket.s3.amazonaws.com"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define S3_ACCESS "AKIAIOSFODNN7EXAMPLE"
#define S3_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define S3_TIME "20130524T000000Z"
#define SUITE_ACCESS "AKIDEXAMPLE"
#define SUITE_SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define SUITE_TIME "20150830T123600Z"

struct vector {
    const char *name, *method, *path, *query;
    struct sigv4_header headers[8];
    const char *payload_hash;
    const char *names, *signature;
};

static int count_headers(const struct sigv4_header *headers)
{
    int count = 0;
    while (headers[count].name != NULL)
        count++;
    return count;
}

static void sign(const struct vector *vector, const char *time, const char *access, const char *secret,
                 const char *service, struct sigv4_key *key, struct buffer *ret_value)
{
    struct sigv4_request request = {
        .method = vector->method,
        .path = vector->path,
        .query = vector->query,
        .headers = vector->headers,
        .header_count = count_headers(vector->headers),
        .payload_hash = vector->payload_hash,
        .time = time,
    };
    sigv4_sign(&request, access, secret, "us-east-1", service, key, ret_value);
}

static void check(const struct vector *vectors, size_t count, const char *time, const char *access, const char *secret,
                  const char *service)
{
    struct sigv4_key key = { .scope = "" };
    for (size_t i = 0; i < count; i++) {
        struct buffer expected = BUFFER_EMPTY, value = BUFFER_EMPTY;
        print_message("# %s\n", vectors[i].name);
        buffer_printf(&expected,
                      "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, SignedHeaders=%s, Signature=%s",
                      access, time, service, vectors[i].names, vectors[i].signature);
        sign(&vectors[i], time, access, secret, service, &key, &value);
        assert_string_equal((char *)value.data, (char *)expected.data);
        assert_int_equal(value.length, strlen((char *)value.data));
        buffer_free(&value);
        buffer_free(&expected);
    }
}

#define COMMON                                                                                                         \
    { "Host", HOST },                                                                                                  \
    {                                                                                                                  \
        "x-amz-date", S3_TIME                                                                                          \
    }
#define SUITE                                                                                                          \
    { "Host", "example.amazonaws.com" },                                                                               \
    {                                                                                                                  \
        "X-Amz-Date", SUITE_TIME                                                                                       \
    }

/* "Signature Calculations for the Authorization Header", the examples of the S3 API reference. */
static void examples_of_s3(void **state)
{
    static const struct vector vectors[] = {
        { "get object",
          "GET",
          "/test.txt",
          "",
          { COMMON, { "Range", "bytes=0-9" }, { "x-amz-content-sha256", EMPTY } },
          EMPTY,
          "host;range;x-amz-content-sha256;x-amz-date",
          "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
        { "put object",
          "PUT",
          "/test%24file.text",
          "",
          { COMMON,
            { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
            { "x-amz-storage-class", "REDUCED_REDUNDANCY" },
            { "x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" } },
          "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
          "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
          "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
        { "get bucket lifecycle",
          "GET",
          "/",
          "lifecycle",
          { COMMON, { "x-amz-content-sha256", EMPTY } },
          EMPTY,
          "host;x-amz-content-sha256;x-amz-date",
          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
        { "list objects",
          "GET",
          "/",
          "prefix=J&max-keys=2",
          { COMMON, { "x-amz-content-sha256", EMPTY } },
          EMPTY,
          "host;x-amz-content-sha256;x-amz-date",
          "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
    };
    check(vectors, sizeof vectors / sizeof vectors[0], S3_TIME, S3_ACCESS, S3_SECRET, "s3");
}

/* Some of aws-sig-v4-test-suite, and the example of IAM from the "Signature Version 4 signing process". */
static void suite_of_aws(void **state)
{
    static const struct vector vectors[] = {
        { "get-vanilla",
          "GET",
          "/",
          "",
          { SUITE },
          EMPTY,
          "host;x-amz-date",
          "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" },
        { "get-vanilla-query-order-key-case",
          "GET",
          "/",
          "Param2=value2&Param1=value1",
          { SUITE },
          EMPTY,
          "host;x-amz-date",
          "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500" },
        { "get-vanilla-query-unreserved",
          "GET",
          "/",
          "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
          "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
          { SUITE },
          EMPTY,
          "host;x-amz-date",
          "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197" },
        { "get-unreserved",
          "GET",
          "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
          "",
          { SUITE },
          EMPTY,
          "host;x-amz-date",
          "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f" },
        { "get-header-value-trim",
          "GET",
          "/",
          "",
          { SUITE, { "My-Header1", " value1" }, { "My-Header2", " \"a   b   c\"" } },
          EMPTY,
          "host;my-header1;my-header2;x-amz-date",
          "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },
        { "post-vanilla",
          "POST",
          "/",
          "",
          { SUITE },
          EMPTY,
          "host;x-amz-date",
          "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },
        { "post-header-key-sort",
          "POST",
          "/",
          "",
          { SUITE, { "My-Header1", "value1" } },
          EMPTY,
          "host;my-header1;x-amz-date",
          "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c" },
    };
    check(vectors, sizeof vectors / sizeof vectors[0], SUITE_TIME, SUITE_ACCESS, SUITE_SECRET, "service");
    static const struct vector iam[] = {
        { "list users",
          "GET",
          "/",
          "Action=ListUsers&Version=2010-05-08",
          { { "content-type", "application/x-www-form-urlencoded; charset=utf-8" },
            { "host", "iam.amazonaws.com" },
            { "x-amz-date", SUITE_TIME } },
          EMPTY,
          "content-type;host;x-amz-date",
          "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7" },
    };
    check(iam, 1, SUITE_TIME, SUITE_ACCESS, SUITE_SECRET, "iam");
}

static const struct vector plain = {
    "plain", "GET", "/", "", { { "Host", HOST }, { "x-amz-date", S3_TIME } }, EMPTY, "host;x-amz-date", NULL,
};

static char *signature_of(const struct vector *vector, const char *time, const char *secret, const char *service,
                          struct sigv4_key *key)
{
    struct buffer value = BUFFER_EMPTY;
    sign(vector, time, S3_ACCESS, secret, service, key, &value);
    return (char *)value.data;
}

static void assert_signs_as_anew(struct sigv4_key *key, const char *time, const char *secret, const char *service)
{
    struct sigv4_key fresh = { .scope = "" };
    char *kept = signature_of(&plain, time, secret, service, key);
    char *anew = signature_of(&plain, time, secret, service, &fresh);
    assert_string_equal(kept, anew);
    assert_string_equal(key->scope, fresh.scope);
    free(kept);
    free(anew);
}

static void key_is_made_anew_when_it_does_not_fit(void **state)
{
    struct sigv4_key key = { .scope = "" };
    assert_signs_as_anew(&key, S3_TIME, S3_SECRET, "s3");
    assert_string_equal(key.scope, "20130524/us-east-1/s3/aws4_request");
    assert_signs_as_anew(&key, "20130525T000000Z", S3_SECRET, "s3");
    assert_signs_as_anew(&key, "20130525T000000Z", S3_SECRET, "sts");
    assert_signs_as_anew(&key, "20130525T000000Z", SUITE_SECRET, "sts");
    assert_signs_as_anew(&key, "20130525T000000Z", "", "sts");
    assert_signs_as_anew(&key, "20130525T010203Z", S3_SECRET, "s3");
}

static void key_is_kept_while_it_fits(void **state)
{
    struct sigv4_key key = { .scope = "" };
    char *first = signature_of(&plain, S3_TIME, S3_SECRET, "s3", &key);
    key.key[0] ^= 1; /* whoever signs otherwise now has used what was kept */
    char *second = signature_of(&plain, "20130524T235959Z", S3_SECRET, "s3", &key);
    char *third = signature_of(&plain, S3_TIME, S3_SECRET, "s3", &key);
    assert_string_not_equal(first, third);
    assert_string_not_equal(second, third);
    free(first);
    free(second);
    free(third);
}

static void region_longer_than_a_scope_is_signed_and_not_kept(void **state)
{
    char region[200];
    memset(region, 'r', sizeof region - 1);
    region[sizeof region - 1] = '\0';
    struct sigv4_request request = { plain.method,       plain.path, plain.query, plain.headers, 2,
                                     plain.payload_hash, S3_TIME };
    struct sigv4_key key = { .scope = "" };
    struct buffer first = BUFFER_EMPTY, second = BUFFER_EMPTY;
    sigv4_sign(&request, S3_ACCESS, S3_SECRET, region, "s3", &key, &first);
    assert_string_equal(key.scope, "");
    key.key[0] ^= 1;
    sigv4_sign(&request, S3_ACCESS, S3_SECRET, region, "s3", &key, &second);
    assert_string_equal((char *)first.data, (char *)second.data);
    assert_non_null(strstr((char *)first.data, region));
    buffer_free(&first);
    buffer_free(&second);
}

/* The order in which a request's parts travel, and space that HTTP does not count, make no difference. */
static void form_makes_no_difference(void **state)
{
    static const struct vector one = {
        "one", "GET", "/", "a=&a-b=1&a=0&b", { { "Host", HOST }, { "x-a", "1 2" }, { "x-b", "" } }, EMPTY, NULL, NULL,
    };
    static const struct vector other = {
        "other", "GET", "/",  "b=&a=0&a-b=1&a", { { "X-B", "  " }, { "X-A", " 1\t  2 " }, { "HOST", HOST } },
        EMPTY,   NULL,  NULL,
    };
    struct sigv4_key key = { .scope = "" };
    char *first = signature_of(&one, S3_TIME, S3_SECRET, "s3", &key);
    char *second = signature_of(&other, S3_TIME, S3_SECRET, "s3", &key);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static void appends(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    struct sigv4_key key = { .scope = "" };
    buffer_printf(&text, "before ");
    sign(&plain, S3_TIME, S3_ACCESS, S3_SECRET, "s3", &key, &text);
    assert_int_equal(strncmp((char *)text.data, "before AWS4-HMAC-SHA256 ", 24), 0);
    buffer_free(&text);
}

static void encodes(void **state)
{
    struct buffer text = BUFFER_EMPTY;
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte, expected[4];
        buffer_clear(&text);
        sigv4_encode(&c, 1, 0, &text);
        if (byte != 0 && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", byte) != NULL)
            snprintf(expected, sizeof expected, "%c", byte);
        else
            snprintf(expected, sizeof expected, "%%%02X", (unsigned)byte);
        assert_string_equal((char *)text.data, expected);
        assert_int_equal(text.length, strlen(expected));
    }
    buffer_clear(&text);
    sigv4_encode("a/b c", 5, 1, &text);
    sigv4_encode("/", 1, 0, &text);
    assert_string_equal((char *)text.data, "a/b%20c%2F");
    buffer_clear(&text);
    sigv4_encode("", 0, 0, &text);
    assert_string_equal((char *)text.data, "");
    buffer_free(&text);
}

static void times_and_hashes(void **state)
{
    char time[SIGV4_TIME_MAX], hash[SIGV4_HASH_MAX];
    static const struct {
        uint64_t wall_s;
        const char *time;
    } times[] = {
        { 0, "19700101T000000Z" },
        { 951782399, "20000228T235959Z" },
        { 951868800, "20000301T000000Z" },
        { 1369353600, S3_TIME },
        { 1440938160, SUITE_TIME },
        { 253402300799, "99991231T235959Z" },
        { 253402300800, "99991231T235959Z" },
        { UINT64_MAX, "99991231T235959Z" },
    };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        sigv4_time(times[i].wall_s, time);
        assert_string_equal(time, times[i].time);
    }
    char text[] = "Welcome to Amazon S3.";
    struct iovec pieces[2] = { { text, 7 }, { text + 7, sizeof text - 8 } };
    sigv4_hash(pieces, 2, hash);
    assert_string_equal(hash, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
    sigv4_hash(NULL, 0, hash);
    assert_string_equal(hash, EMPTY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_s3),
        cmocka_unit_test(suite_of_aws),
        cmocka_unit_test(key_is_made_anew_when_it_does_not_fit),
        cmocka_unit_test(key_is_kept_while_it_fits),
        cmocka_unit_test(region_longer_than_a_scope_is_signed_and_not_kept),
        cmocka_unit_test(form_makes_no_difference),
        cmocka_unit_test(appends),
        cmocka_unit_test(encodes),
        cmocka_unit_test(times_and_hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
