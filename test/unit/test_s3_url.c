/* Endpoints, buckets and prefixes as people write them, and the paths of keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "store/s3_url.h"

/* ---- URLs of buckets ---- */

static void assert_url(const char *url, const char *expected_bucket, const char *expected_prefix)
{
    char *bucket = NULL, *prefix = NULL;
    struct error error = ERROR_NONE;
    assert_int_equal(s3_url_parse(url, &bucket, &prefix, &error), 0);
    assert_string_equal(bucket, expected_bucket);
    assert_string_equal(prefix, expected_prefix);
    free(bucket);
    free(prefix);
}

static void assert_no_url(const char *url, const char *story)
{
    char *bucket = NULL, *prefix = NULL;
    struct error error = ERROR_NONE;
    assert_int_equal(s3_url_parse(url, &bucket, &prefix, &error), -EINVAL);
    assert_null(bucket);
    assert_null(prefix);
    if (strstr(error.story, story) == NULL)
        fail_msg("'%s' is told as: %s", url, error.story);
    assert_null(strstr(error.story, "hunter2"));
}

static void urls(void **state)
{
    assert_url("s3://disks", "disks", "");
    assert_url("S3://disks/", "disks", "");
    assert_url("s3://disks/a", "disks", "a");
    assert_url("s3://disks/a/", "disks", "a");
    assert_url("s3://my.disks-1/a/b c/%20/M\xc3\xbcller@home?x", "my.disks-1", "a/b c/%20/M\xc3\xbcller@home?x");
    assert_url("s3://0aa/...", "0aa", "...");

    assert_no_url("", "write s3://BUCKET");
    assert_no_url("disks", "write s3://BUCKET");
    assert_no_url("s3:disks", "write s3://BUCKET");
    assert_no_url("http://localhost:9000/disks", "write s3://BUCKET");
    assert_no_url("s3://", "names no bucket");
    assert_no_url("s3:///a", "names no bucket");
    assert_no_url("s3://key:hunter2@disks/a", "a user's name");
    assert_no_url("https://key:hunter2@disks/a", "a user's name");
    assert_no_url("key:hunter2@disks", "a user's name");
    assert_no_url("s3://\x01\xff'\n/", "'\\x01\\xff\\x27\\x0a' is not a bucket's name");
}

static void bucket_rules(void **state)
{
    char url[5 + 64 + 1] = "s3://";
    memset(url + 5, 'b', 63);
    char *bucket, *prefix;
    assert_int_equal(s3_url_parse(url, &bucket, &prefix, NULL), 0);
    free(bucket);
    free(prefix);
    url[5 + 63] = 'b';
    assert_no_url(url, "3 to 63 characters");
    assert_no_url("s3://ab", "3 to 63 characters");
    assert_no_url("s3://Disks", "lower-case");
    assert_no_url("s3://di_sks", "lower-case");
    assert_no_url("s3://disks:9000", "lower-case");
    assert_no_url("s3://disks?region=x", "lower-case");
    assert_no_url("s3://-disks", "begin and end");
    assert_no_url("s3://disks-", "begin and end");
    assert_no_url("s3://.disks", "begin and end");
    assert_no_url("s3://disks.", "begin and end");
    assert_no_url("s3://di..sks", "two dots");
    assert_no_url("s3://192.168.0.1", "IP address");
}

static void prefix_rules(void **state)
{
    char url[9 + 256 + 1] = "s3://bkt/";
    memset(url + 9, 'p', 255);
    assert_url(url, "bkt", url + 9);
    url[9 + 255] = '/';
    char *bucket, *prefix;
    assert_int_equal(s3_url_parse(url, &bucket, &prefix, NULL), 0);
    assert_int_equal(strlen(prefix), 255);
    free(bucket);
    free(prefix);
    url[9 + 255] = 'p';
    assert_no_url(url, "255 bytes");
    assert_no_url("s3://bkt//", "is empty");
    assert_no_url("s3://bkt//a", "is empty");
    assert_no_url("s3://bkt/a//b", "is empty");
    assert_no_url("s3://bkt/a//", "is empty");
    assert_no_url("s3://bkt/.", "'.' or '..'");
    assert_no_url("s3://bkt/./a", "'.' or '..'");
    assert_no_url("s3://bkt/a/..", "'.' or '..'");
    assert_no_url("s3://bkt/a/../b", "'.' or '..'");
    assert_no_url("s3://bkt/a\nb", "control characters");
    assert_no_url("s3://bkt/a\x7f", "control characters");
    assert_no_url("s3://bkt/a\xff", "UTF-8");
}

/* ---- places ---- */

struct expected {
    const char *endpoint, *region, *bucket, *prefix;
    enum s3_addressing addressing;
    const char *scheme, *authority, *path; /* of the key "a b" */
    bool virtual, loopback, aws;
};

static void assert_place(const struct expected *expected)
{
    struct s3_place place;
    struct buffer path = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    int failed = s3_place_new(expected->endpoint, expected->region, expected->bucket, expected->prefix,
                              expected->addressing, &place, &error);
    if (failed != 0)
        fail_msg("%s: %s", expected->endpoint, error.story);
    assert_string_equal(place.scheme, expected->scheme);
    assert_string_equal(place.authority, expected->authority);
    assert_string_equal(place.bucket, expected->bucket);
    assert_int_equal(place.virtual, expected->virtual);
    assert_int_equal(place.loopback, expected->loopback);
    assert_int_equal(place.aws, expected->aws);
    s3_place_path(&place, "a b", &path);
    assert_string_equal((char *)path.data, expected->path);
    buffer_free(&path);
    s3_place_free(&place);
    s3_place_free(&place);
}

static void places_of_aws(void **state)
{
    static const struct expected places[] = {
        { NULL, "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "https", "disks.s3.us-east-1.amazonaws.com", "/a%20b",
          true, false, true },
        { NULL, "us-east-1", "disks", "p/q", S3_ADDRESSING_PATH, "https", "s3.us-east-1.amazonaws.com",
          "/disks/p/q/a%20b", false, false, true },
        { NULL, "eu-west-1", "my.disks", "p/", S3_ADDRESSING_AUTO, "https", "s3.eu-west-1.amazonaws.com",
          "/my.disks/p/a%20b", false, false, true },
        { NULL, "eu-west-1", "my.disks", "", S3_ADDRESSING_VIRTUAL, "https", "my.disks.s3.eu-west-1.amazonaws.com",
          "/a%20b", true, false, true },
        { NULL, "cn-north-1", "disks", "", S3_ADDRESSING_AUTO, "https", "disks.s3.cn-north-1.amazonaws.com.cn",
          "/a%20b", true, false, true },
        { NULL, "us-gov-west-1", "disks", "", S3_ADDRESSING_PATH, "https", "s3.us-gov-west-1.amazonaws.com",
          "/disks/a%20b", false, false, true },
        { NULL, "us-isob-east-1", "disks", "", S3_ADDRESSING_PATH, "https", "s3.us-isob-east-1.sc2s.sgov.gov",
          "/disks/a%20b", false, false, true },
        { "https://s3.eu-west-1.amazonaws.com", "eu-west-1", "disks", "", S3_ADDRESSING_AUTO, "https",
          "disks.s3.eu-west-1.amazonaws.com", "/a%20b", true, false, true },
        { "http://S3.Amazonaws.Com:80/", "eu-west-1", "disks", "", S3_ADDRESSING_AUTO, "http", "disks.s3.amazonaws.com",
          "/a%20b", true, false, true },
        { "https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com", "us-east-1", "disks", "", S3_ADDRESSING_AUTO,
          "https", "disks.bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com", "/a%20b", true, false, true },
        { "https://notamazonaws.com", "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "https", "notamazonaws.com",
          "/disks/a%20b", false, false, false },
        { "https://s3.amazonaws.com.example.org", "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "https",
          "s3.amazonaws.com.example.org", "/disks/a%20b", false, false, false },
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        assert_place(&places[i]);
}

static void places_of_others(void **state)
{
    static const struct expected places[] = {
        { "http://localhost:9000", "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "http", "localhost:9000",
          "/disks/a%20b", false, true, false },
        { "HTTP://LocalHost:09000/", "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "http", "localhost:9000",
          "/disks/a%20b", false, true, false },
        { "http://s3.localhost:9000", "x", "disks", "", S3_ADDRESSING_VIRTUAL, "http", "disks.s3.localhost:9000",
          "/a%20b", true, true, false },
        { "http://127.9.9.9", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "127.9.9.9", "/disks/a%20b", false, true,
          false },
        { "http://[::1]:9000", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "[::1]:9000", "/disks/a%20b", false, true,
          false },
        { "http://[0:0:0:0:0:0:0:1]:80", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "[::1]", "/disks/a%20b", false,
          true, false },
        { "http://[::ffff:127.0.0.1]", "x", "disks", "", S3_ADDRESSING_PATH, "http", "[::ffff:127.0.0.1]",
          "/disks/a%20b", false, true, false },
        { "https://[2001:DB8::1]:443", "x", "disks", "", S3_ADDRESSING_AUTO, "https", "[2001:db8::1]", "/disks/a%20b",
          false, false, false },
        { "http://10.0.0.1:443", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "10.0.0.1:443", "/disks/a%20b", false,
          false, false },
        { "https://minio_1.lan:65535", "x", "disks", "p", S3_ADDRESSING_VIRTUAL, "https", "disks.minio_1.lan:65535",
          "/p/a%20b", true, false, false },
        { "http://notlocalhost", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "notlocalhost", "/disks/a%20b", false,
          false, false },
        { "http://1a.2b", "x", "disks", "", S3_ADDRESSING_AUTO, "http", "1a.2b", "/disks/a%20b", false, false, false },
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        assert_place(&places[i]);
}

static void assert_no_place(const char *endpoint, const char *region, const char *bucket, const char *prefix,
                            enum s3_addressing addressing, const char *story)
{
    struct s3_place place, untouched;
    struct error error = ERROR_NONE;
    memset(&place, 0x5a, sizeof place);
    memcpy(&untouched, &place, sizeof place);
    assert_int_equal(s3_place_new(endpoint, region, bucket, prefix, addressing, &place, &error), -EINVAL);
    assert_memory_equal(&place, &untouched, sizeof place);
    if (strstr(error.story, story) == NULL)
        fail_msg("'%s' is told as: %s", endpoint, error.story);
    assert_null(strstr(error.story, "hunter2"));
}

static void endpoints_that_are_none(void **state)
{
    char long_host[300] = "http://";
    memset(long_host + 7, 'h', 254);
    static const struct {
        const char *endpoint, *story;
    } wrong[] = {
        { "", "has no scheme: write http://HOST:PORT" },
        { "localhost:9000", "'localhost:9000' has no scheme" },
        { "//localhost:9000", "has no scheme" },
        { "s3.example.org/path?key=hunter2", "'s3.example.org' has no scheme" },
        { "ftp://localhost", "'ftp' is neither http nor https" },
        { "s3://disks", "neither http nor https" },
        { "://localhost", "neither http nor https" },
        { "http://", "names no host" },
        { "http://:9000", "names no host" },
        { "http:///disks", "is followed by '/disks'" },
        { "http://localhost:9000/disks", "'http://localhost:9000' is followed by '/disks'" },
        { "http://localhost:9000//", "is followed by '//'" },
        { "http://localhost:9000?X-Amz-Signature=hunter2", "is followed by '?X-Amz-Signature'" },
        { "http://localhost:9000/?key=hunter2", "is followed by '/'" },
        { "http://localhost#a", "is followed by '#a'" },
        { "http://localhost\\a", "is followed by '\\x5ca'" },
        { "http://key:hunter2@localhost", "has a user's name in it" },
        { "key:hunter2@localhost", "has a user's name in it" },
        { "http://localhost:", "no good port" },
        { "http://localhost:0", "no good port" },
        { "http://localhost:65536", "no good port" },
        { "http://localhost:123456", "no good port" },
        { "http://localhost:90a", "no good port" },
        { "http://localhost:-1", "no good port" },
        { "http://localhost:+90", "no good port" },
        { "http://[::1]9000", "no good port" },
        { "http://[::1]:", "no good port" },
        { "http://::1", "write an IPv6 address like [::1]:9000" },
        { "http://::1:9000", "write an IPv6 address like [::1]:9000" },
        { "http://[::1", "not an IPv6 address" },
        { "http://[]", "not an IPv6 address" },
        { "http://[localhost]", "not an IPv6 address" },
        { "http://[fe80::1%25eth0]", "not an IPv6 address" },
        { "http://[1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20]", "not an IPv6 address" },
        { "http://local host", "only letters, digits" },
        { "http://local\nhost", "only letters, digits" },
        { "http://m\xc3\xbcller.de", "only letters, digits" },
        { "http://%6cocalhost", "only letters, digits" },
        { "http://localhost.", "between the dots" },
        { "http://.localhost", "between the dots" },
        { "http://a..b", "between the dots" },
        { "http://hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh", "between the dots" },
        { "http://127.1", "neither a name nor an IPv4 address" },
        { "http://2130706433", "neither a name nor an IPv4 address" },
        { "http://256.0.0.1", "neither a name nor an IPv4 address" },
        { "http://host.1", "neither a name nor an IPv4 address" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_no_place(wrong[i].endpoint, "us-east-1", "disks", "", S3_ADDRESSING_AUTO, wrong[i].story);
    assert_no_place(long_host, "us-east-1", "disks", "", S3_ADDRESSING_AUTO, "longer than 253");
}

static void places_that_are_none(void **state)
{
    const char *local = "http://localhost:9000";
    assert_no_place(local, "", "disks", "", S3_ADDRESSING_AUTO, "is not a region");
    assert_no_place(local, "a/b", "disks", "", S3_ADDRESSING_AUTO, "is not a region");
    assert_no_place(local, "a\nb", "disks", "", S3_ADDRESSING_AUTO, "'a\\x0ab' is not a region");
    assert_no_place(NULL, "us..east", "disks", "", S3_ADDRESSING_AUTO, "between the dots");
    assert_no_place(local, "us-east-1", "Disks", "", S3_ADDRESSING_AUTO, "not a bucket's name");
    assert_no_place(local, "us-east-1", "", "", S3_ADDRESSING_AUTO, "not a bucket's name");
    assert_no_place(local, "us-east-1", "disks", "/", S3_ADDRESSING_AUTO, "is empty");
    assert_no_place(local, "us-east-1", "disks", "a//", S3_ADDRESSING_AUTO, "is empty");
    assert_no_place("http://127.0.0.1", "us-east-1", "disks", "", S3_ADDRESSING_VIRTUAL,
                    "choose the addressing 'path'");
    assert_no_place("http://[::1]", "us-east-1", "disks", "", S3_ADDRESSING_VIRTUAL, "choose the addressing 'path'");
    assert_no_place("https://disks.s3.eu-west-1.amazonaws.com", "us-east-1", "disks", "", S3_ADDRESSING_AUTO,
                    "begins with the bucket's name: write https://s3.eu-west-1.amazonaws.com");
    assert_no_place("https://disks.s3-eu-west-1.amazonaws.com", "us-east-1", "disks", "", S3_ADDRESSING_PATH,
                    "begins with the bucket's name");
}

static void paths(void **state)
{
    struct s3_place place;
    struct buffer path = BUFFER_EMPTY;
    assert_int_equal(s3_place_new("http://localhost", "x", "disks", "a%/\xc3\xbc+", S3_ADDRESSING_AUTO, &place, NULL),
                     0);
    assert_string_equal(place.prefix, "a%/\xc3\xbc+/");
    s3_place_path(&place, NULL, &path);
    assert_string_equal((char *)path.data, "/disks");
    buffer_clear(&path);
    s3_place_path(&place, "v/n.%41~", &path);
    assert_string_equal((char *)path.data, "/disks/a%25/%C3%BC%2B/v/n.%2541~");
    s3_place_free(&place);
    assert_int_equal(s3_place_new("http://localhost", "x", "disks", "", S3_ADDRESSING_VIRTUAL, &place, NULL), 0);
    buffer_clear(&path);
    s3_place_path(&place, NULL, &path);
    assert_string_equal((char *)path.data, "/");
    s3_place_path(&place, "k", &path); /* appends */
    assert_string_equal((char *)path.data, "//k");
    assert_int_equal(path.length, 3);
    s3_place_free(&place);
    buffer_free(&path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(bucket_rules),
        cmocka_unit_test(prefix_rules),
        cmocka_unit_test(places_of_aws),
        cmocka_unit_test(places_of_others),
        cmocka_unit_test(endpoints_that_are_none),
        cmocka_unit_test(places_that_are_none),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
