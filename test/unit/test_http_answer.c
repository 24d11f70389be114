/* Answers of HTTP, line by line and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/http_internal.h"

static struct answer answer;

static bool lines(const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n") + 1;
        /* Memory of its own, so that the sanitizer finds a read past its end. */
        char *line = memory_copy(text, length);
        bool more = answer_line(&answer, line, length);
        free(line);
        if (!more)
            return false;
        text += length;
    }
    return true;
}

static const struct http_request plain = { .method = "GET", .body_max = 100 };

static void expect_head(const char *text)
{
    answer_end(&answer);
    answer_begin(&answer, &plain);
    assert_true(lines(text));
    assert_int_equal(answer.state, ANSWER_BODY);
}

static void expect_bad(const char *text)
{
    answer_end(&answer);
    answer_begin(&answer, &plain);
    assert_false(lines(text));
    assert_int_equal(answer.state, ANSWER_BAD);
    assert_non_null(answer.fault);
}

static void test_fields(void **state)
{
    struct http_response *response = &answer.response;
    expect_head("HTTP/1.1 206 Partial Content\r\n"
                "content-length: 12 \r\n"
                "CONTENT-RANGE:bytes 4-15/99\r\n"
                "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
                "Retry-After: 3\r\n"
                "ETag: \"abc\"\r\n"
                "X-Amz-Bucket-Region: eu-west-1\r\n"
                "Location: http://other/\r\n"
                "Content-Type: text/html; charset=utf-8\r\n"
                "Server: Ceph Object Gateway\r\n"
                "X-Other: 1\r\n"
                "no colon at all\r\n"
                ": no name\r\n"
                "\r\n");
    assert_int_equal(response->status, 206);
    assert_int_equal(response->length, 12);
    assert_int_equal(response->range_first, 4);
    assert_int_equal(response->range_last, 15);
    assert_int_equal(response->range_size, 99);
    assert_int_equal(response->date_s, 1767323045);
    assert_int_equal(response->retry_after_ms, 3000);
    assert_string_equal(response->etag, "\"abc\"");
    assert_string_equal(response->region, "eu-west-1");
    assert_string_equal(response->location, "http://other/");
    assert_string_equal(response->content_type, "text/html; charset=utf-8");
    assert_string_equal(response->server, "Ceph Object Gateway");
}

static void expect_no_fields(void)
{
    const struct http_response *response = &answer.response;
    assert_int_equal(response->length, UINT64_MAX);
    assert_int_equal(response->range_first, UINT64_MAX);
    assert_int_equal(response->range_last, UINT64_MAX);
    assert_int_equal(response->range_size, UINT64_MAX);
    assert_int_equal(response->date_s, 0);
    assert_int_equal(response->retry_after_ms, UINT64_MAX);
    assert_string_equal(response->etag, "");
    assert_string_equal(response->region, "");
    assert_string_equal(response->location, "");
    assert_string_equal(response->content_type, "");
    assert_string_equal(response->server, "");
}

static void test_absent(void **state)
{
    expect_head("HTTP/1.0 200\r\n\r\n");
    assert_int_equal(answer.response.status, 200);
    expect_no_fields();
    /* What an informational answer said does not count. */
    expect_head("HTTP/1.1 103 Early Hints\r\nETag: \"no\"\r\nLocation: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
    expect_no_fields();
}

static void test_trailers(void **state)
{
    expect_head("HTTP/1.1 200 OK\r\nETag: \"yes\"\r\n\r\n");
    assert_true(answer_bytes(&answer, "body", 4));
    assert_true(lines("ETag: \"no\"\r\nContent-Length: x\r\nHTTP/1.1 500 No\r\n\r\n"));
    assert_string_equal(answer.response.etag, "\"yes\"");
    assert_int_equal(answer.response.status, 200);
    assert_memory_equal(answer.response.body.data, "body", 4);
}

static void test_unreadable(void **state)
{
    char text[1024], etag[200];
    memset(etag, 'e', sizeof etag);
    snprintf(text, sizeof text,
             "HTTP/1.1 200 OK\r\nETag: %.*s\r\nDate: when it pleases\r\nRetry-After: soon\r\n"
             "x-amz-bucket-region: a\tb\r\nServer: \x80\r\nContent-Type: \x7f\r\n\r\n",
             STORE_ETAG_MAX, etag);
    expect_head(text);
    expect_no_fields();
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nETag: %.*s\r\n\r\n", STORE_ETAG_MAX - 1, etag);
    expect_head(text);
    assert_int_equal(strlen(answer.response.etag), STORE_ETAG_MAX - 1);
}

static void expect_range(const char *value, uint64_t first, uint64_t last, uint64_t size)
{
    char text[256];
    snprintf(text, sizeof text, "HTTP/1.1 206 OK\r\nContent-Range: %s\r\n\r\n", value);
    expect_head(text);
    assert_int_equal(answer.response.range_first, first);
    assert_int_equal(answer.response.range_last, last);
    assert_int_equal(answer.response.range_size, size);
}

static void test_ranges(void **state)
{
    static const char *const unreadable[] = { "",
                                              "bytes",
                                              "bytes ",
                                              "bytes 0-1",
                                              "bytes 0-1/",
                                              "bytes -1/2",
                                              "bytes 1-/2",
                                              "bytes 2-1/3",
                                              "bytes 0-3/3",
                                              "items 0-1/3",
                                              "bytes 0 - 1/3",
                                              "bytes 0-1/x",
                                              "bytes /3",
                                              "bytes 0-0x1/3",
                                              "bytes +0-1/3",
                                              "bytes 0-1/3/4",
                                              "bytes 0-18446744073709551615/*",
                                              "bytes 99999999999999999999-1/*" };
    for (size_t i = 0; i < sizeof unreadable / sizeof *unreadable; i++)
        expect_range(unreadable[i], UINT64_MAX, UINT64_MAX, UINT64_MAX);
    expect_range("bytes 0-0/1", 0, 0, 1);
    expect_range("Bytes 5-9/*", 5, 9, UINT64_MAX);
    expect_range("bytes */77", UINT64_MAX, UINT64_MAX, 77);
    expect_range("bytes */*", UINT64_MAX, UINT64_MAX, UINT64_MAX);
    expect_range("bytes 0-18446744073709551613/18446744073709551614", 0, UINT64_MAX - 2, UINT64_MAX - 1);
}

static void test_twice(void **state)
{
    expect_head("HTTP/1.1 206 OK\r\n"
                "Content-Length: 5\r\nContent-Length: 5\r\n"
                "ETag: \"a\"\r\nEtag: \"a\"\r\n"
                "Content-Range: bytes 0-4/9\r\nContent-Range: bytes 0-4/9\r\n\r\n");
    assert_int_equal(answer.response.length, 5);
    assert_string_equal(answer.response.etag, "\"a\"");
    assert_int_equal(answer.response.range_last, 4);

    expect_head("HTTP/1.1 206 OK\r\n"
                "ETag: \"a\"\r\nETag: \"b\"\r\nETag: \"a\"\r\n"
                "Content-Range: bytes 0-4/9\r\nContent-Range: bytes 0-4/8\r\n"
                "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nDate: nonsense\r\n"
                "Retry-After: nonsense\r\nRetry-After: 1\r\n"
                "x-amz-retry-after: 1\r\nx-amz-retry-after: 2\r\n"
                "Location: a\r\nLocation: b\r\nServer: a\r\nServer:\r\n"
                "Content-Type: a\r\nContent-Type: b\r\nx-amz-bucket-region: a\r\nx-amz-bucket-region: b\r\n\r\n");
    expect_no_fields();
    expect_bad("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
}

static void expect_retry(const char *headers, uint64_t ms)
{
    char text[256];
    snprintf(text, sizeof text, "HTTP/1.1 503 Slow Down\r\n%s\r\n\r\n", headers);
    expect_head(text);
    assert_int_equal(answer.response.retry_after_ms, ms);
}

static void test_retry_after(void **state)
{
    expect_retry("Retry-After: 0", 0);
    expect_retry("Retry-After: 120", 120000);
    expect_retry("x-amz-retry-after: 120", 120);
    expect_retry("Retry-After: 7\r\nx-amz-retry-after: 120", 120);
    expect_retry("x-amz-retry-after: no\r\nRetry-After: 7", 7000);
    expect_retry("Retry-After: -1", UINT64_MAX);
    expect_retry("Retry-After: 18446744073709551", UINT64_MAX);
    expect_retry("Retry-After: 99999999999999999999999", UINT64_MAX);
    expect_retry("Retry-After: Fri, 02 Jan 2026 03:04:05 GMT", UINT64_MAX);
}

static void test_bad_heads(void **state)
{
    expect_bad("HTTP/1.1\r\n");
    expect_bad("HTTP/1.1 \r\n");
    expect_bad("HTTP/1.1 20\r\n");
    expect_bad("HTTP/1.1 2000 OK\r\n");
    expect_bad("HTTP/1.1 abc OK\r\n");
    expect_bad("HTTP/1.1 099 OK\r\n");
    expect_bad("HTTP/1.1 600 OK\r\n");
    expect_bad("ICY 200 OK\r\n");
    expect_bad("\r\n");
    expect_bad("HTTP/1.1 200 OK\r\nContent-Length: \r\n");
    expect_bad("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n");
    expect_bad("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n");
    expect_bad("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n");
}

static void test_long_head(void **state)
{
    answer_end(&answer);
    answer_begin(&answer, &plain);
    assert_true(lines("HTTP/1.1 200 OK\r\n"));
    int count = 0;
    while (lines("X-Filler: 0123456789012345678901234567890123456789\r\n"))
        count++;
    assert_int_equal(answer.state, ANSWER_BAD);
    assert_in_range(count, 1000, 1400);
}

static void test_not_http(void **state)
{
    answer_begin(&answer, &plain);
    assert_false(answer_bytes(&answer, "\x15\x03\x03\0\2\2\x0a", 7));
    assert_true(answer.tls_alert);
    answer_begin(&answer, &plain);
    assert_false(answer_bytes(&answer, "\x15", 1));
    assert_false(answer.tls_alert);
    answer_begin(&answer, &plain);
    assert_false(answer_bytes(&answer, "SSH-2.0-x\r\n", 11));
    assert_int_equal(answer.state, ANSWER_BAD);
}

/* ---- where bodies go ---- */

struct destination {
    char first[3], second[5];
    struct iovec pieces[4];
    struct http_request request;
};

static void begin_placing(struct destination *to, uint64_t offset, const char *head)
{
    memset(to->first, '.', sizeof to->first);
    memset(to->second, '.', sizeof to->second);
    to->pieces[0] = (struct iovec){ .iov_base = to->first, .iov_len = 0 };
    to->pieces[1] = (struct iovec){ .iov_base = to->first, .iov_len = 3 };
    to->pieces[2] = (struct iovec){ .iov_base = NULL, .iov_len = 0 };
    to->pieces[3] = (struct iovec){ .iov_base = to->second, .iov_len = 5 };
    to->request =
        (struct http_request){ .method = "GET", .pieces = to->pieces, .count = 4, .offset = offset, .body_max = 4 };
    answer_end(&answer);
    answer_begin(&answer, &to->request);
    assert_true(lines(head));
    assert_int_equal(answer.state, ANSWER_BODY);
}

static void test_placing(void **state)
{
    struct destination to;
    begin_placing(&to, 10, "HTTP/1.1 206 OK\r\nContent-Range: bytes 10-17/99\r\n\r\n");
    assert_true(answer_bytes(&answer, "ab", 2));
    assert_true(answer_bytes(&answer, "cdef", 4));
    assert_int_equal(answer.response.placed, 6);
    assert_true(answer_bytes(&answer, "gh", 2));
    assert_int_equal(answer.response.placed, 8);
    assert_memory_equal(to.first, "abc", 3);
    assert_memory_equal(to.second, "defgh", 5);
    assert_int_equal(answer.response.body.length, 0);
    assert_false(answer_bytes(&answer, "i", 1));
    assert_int_equal(answer.state, ANSWER_BAD);
}

static void test_placing_elsewhere(void **state)
{
    static const char *const heads[] = {
        "HTTP/1.1 206 OK\r\nContent-Range: bytes 11-18/99\r\n\r\n",
        "HTTP/1.1 206 OK\r\nContent-Range: bytes */99\r\n\r\n",
        "HTTP/1.1 206 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Range: bytes 10-18/99\r\n\r\n",
    };
    struct destination to;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        begin_placing(&to, 10, heads[i]);
        assert_true(answer_bytes(&answer, "abcd", 4));
        assert_false(answer.response.truncated);
        assert_true(answer_bytes(&answer, "efgh", 4));
        assert_true(answer.response.truncated);
        assert_int_equal(answer.response.placed, 0);
        assert_memory_equal(to.first, "...", 3);
        assert_int_equal(answer.response.body.length, 4);
        assert_memory_equal(answer.response.body.data, "abcd", 4);
    }
}

static void test_placing_whole(void **state)
{
    static const char filler[32768];
    struct destination to;
    begin_placing(&to, 0, "HTTP/1.1 200 OK\r\n\r\n");
    assert_true(answer_bytes(&answer, "abcdefghijkl", 12));
    assert_int_equal(answer.response.placed, 8);
    assert_memory_equal(to.second, "defgh", 5);
    assert_true(answer_bytes(&answer, filler, sizeof filler));
    assert_false(answer_bytes(&answer, filler, sizeof filler));
    assert_int_equal(answer.state, ANSWER_ENOUGH);
    assert_int_equal(answer.response.placed, 8);
    answer_end(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_trailers),      cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_ranges),        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_retry_after),   cmocka_unit_test(test_bad_heads),
        cmocka_unit_test(test_long_head),     cmocka_unit_test(test_not_http),
        cmocka_unit_test(test_placing),       cmocka_unit_test(test_placing_elsewhere),
        cmocka_unit_test(test_placing_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
