/* The HTTP client against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/http_server.h"
#include "../lib/in_loop.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/text.h"
#include "rt/wait.h"
#include "store/http.h"

#define MIB (UINT64_C(1) << 20)

/* ---- a client and a server ---- */

struct stage {
    http_script *script;
    void *arg; /* of the script */
    void (*play)(struct stage *stage);
    const char *words; /* of the story that is expected */
    const struct http_identity *identity;
    const char *scheme, *host;
    struct http_setup setup;

    struct loop *loop;
    struct http *http;
    struct http_server *server;
    char base[128];
    struct http_response response;
    struct error error;
};

static void on_stage(struct loop *loop, void *arg)
{
    struct stage *stage = arg;
    stage->loop = loop;
    assert_int_equal(http_new(loop, &stage->setup, &stage->http, &stage->error), 0);
    stage->play(stage);
    http_free(stage->http);
}

static void run(struct stage *stage)
{
    stage->server = http_server_start(stage->script, stage->arg, stage->identity);
    snprintf(stage->base, sizeof stage->base, "%s://%s:%d", stage->scheme != NULL ? stage->scheme : "http",
             stage->host != NULL ? stage->host : "127.0.0.1", http_server_port(stage->server));
    if (stage->setup.connections_max == 0)
        stage->setup.connections_max = 16;
    if (stage->setup.idle_ms == 0)
        stage->setup.idle_ms = 60000;
    if (stage->setup.silence_ms == 0)
        stage->setup.silence_ms = 60000;
    in_real_loop(on_stage, stage);
    http_server_stop(stage->server);
}

static char ca_path[64];

static struct stage tls_stage(http_script *script, const struct http_identity *identity, const char *ca_file)
{
    return (struct stage){ .script = script, .identity = identity, .scheme = "https", .setup = { .ca_file = ca_file } };
}

static void run_simply(http_script *script, void (*play)(struct stage *stage))
{
    struct stage stage = { .script = script, .play = play };
    run(&stage);
}

struct url {
    char text[256];
};

static struct url url_of(const struct stage *stage, const char *path)
{
    struct url url;
    snprintf(url.text, sizeof url.text, "%s%s", stage->base, path);
    return url;
}

static struct http_request request_of(const char *method, const struct url *url)
{
    return (struct http_request){
        .method = method, .url = url->text, .body_max = 65536, .connect_timeout_ms = 30000, .deadline_ns = UINT64_MAX
    };
}

static int perform(struct stage *stage, const struct http_request *request)
{
    http_response_free(&stage->response);
    stage->error = (struct error)ERROR_NONE;
    int result = http_perform(stage->http, request, &stage->response, &stage->error);
    assert_int_equal(result, -stage->error.code);
    return result;
}

static int simply(struct stage *stage, const char *method, const char *path)
{
    struct url url = url_of(stage, path);
    struct http_request request = request_of(method, &url);
    return perform(stage, &request);
}

static void done(struct stage *stage)
{
    http_response_free(&stage->response);
}

static void expect_body(const struct stage *stage, const char *text)
{
    const struct buffer *body = &stage->response.body;
    assert_int_equal(body->length, strlen(text));
    assert_memory_equal(body->data, text, body->length);
}

static void expect_story(const struct stage *stage, const char *words)
{
    if (strstr(stage->error.story, words) == NULL)
        fail_msg("'%s' is not in the story: %s", words, stage->error.story);
}

static bool body_says(const struct stage *stage, const char *words)
{
    const struct buffer *body = &stage->response.body;
    return memmem(body->data, body->length, words, strlen(words)) != NULL;
}

/* ---- what is sent ---- */

/* Answers with the head of the request as the body. */
static void echo(struct http_peer *peer)
{
    while (http_peer_request(peer)) {
        http_peer_say(peer, "HTTP/1.1 200 OK\r\nServer: echo\r\nContent-Length: %zu\r\n\r\n", peer->head_length);
        if (strcmp(peer->method, "HEAD") != 0)
            http_peer_send(peer, peer->head, peer->head_length);
    }
}

static void play_methods(struct stage *stage)
{
    static const char *const methods[] = { "GET", "PUT", "POST", "DELETE", "HEAD" };
    struct url url = url_of(stage, "/a/../b//c%2f%20/.?x=1&y=%2e");
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct http_request request = request_of(methods[i], &url);
        request.headers[0] = (struct http_header){ "x-amz-thing", "some value" };
        request.headers[1] = (struct http_header){ "Host", "example.org:9" };
        request.headers[2] = (struct http_header){ "x-empty", "" };
        assert_int_equal(perform(stage, &request), 0);
        assert_int_equal(stage->response.status, 200);
        assert_string_equal(stage->response.server, "echo");
        bool head = strcmp(methods[i], "HEAD") == 0, uploads = methods[i][0] == 'P';
        assert_true(stage->response.length > 50);
        assert_int_equal(stage->response.body.length, head ? 0 : stage->response.length);
        if (head)
            continue;
        char line[128];
        snprintf(line, sizeof line, "%s /a/../b//c%%2f%%20/.?x=1&y=%%2e HTTP/1.1\r\n", methods[i]);
        assert_true(body_says(stage, line));
        assert_true(body_says(stage, "x-amz-thing: some value\r\n"));
        assert_true(body_says(stage, "Host: example.org:9\r\n"));
        assert_true(body_says(stage, "x-empty:"));
        assert_false(body_says(stage, "Expect"));
        assert_false(body_says(stage, "Accept"));
        assert_false(body_says(stage, "Content-Type"));
        assert_false(body_says(stage, "Transfer-Encoding"));
        assert_true(body_says(stage, "Content-Length: 0\r\n") == uploads);
    }
    assert_int_equal(http_server_connections(stage->server), 1);
    done(stage);
}

static void test_methods(void **state)
{
    run_simply(echo, play_methods);
}

static void answer_with_hash(struct http_peer *peer)
{
    while (http_peer_request(peer)) {
        uint8_t hash[SHA256_BYTES];
        char hex[2 * SHA256_BYTES + 1];
        struct iovec piece = { peer->body, peer->body_length };
        hash_sha256(&piece, 1, hash);
        text_hex(hash, sizeof hash, hex);
        http_peer_say(peer, "HTTP/1.1 200 OK\r\nETag: \"%zu\"\r\nContent-Length: 64\r\n\r\n%s", peer->body_length, hex);
    }
}

/* Scattered over many pieces, some of them empty. */
static void play_upload(struct stage *stage)
{
    size_t length = 8 * MIB + 12345;
    uint8_t *bytes = memory_new(length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    struct iovec pieces[600];
    int count = 0;
    for (size_t at = 0; at < length; count++) {
        assert_true(count < 600);
        size_t part = count % 7 == 3 ? 0 : count % 5 == 0 ? 1 : 1 + (size_t)count * 977 % 60000;
        part = part < length - at ? part : length - at;
        pieces[count] = (struct iovec){ part > 0 ? bytes + at : NULL, part };
        at += part;
    }
    uint8_t hash[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1], etag[32];
    hash_sha256(pieces, count, hash);
    text_hex(hash, sizeof hash, hex);
    snprintf(etag, sizeof etag, "\"%zu\"", length);
    static const char *const methods[] = { "PUT", "POST" };
    for (int i = 0; i < 2; i++) {
        struct url url = url_of(stage, "/up");
        struct http_request request = request_of(methods[i], &url);
        request.body = pieces;
        request.body_count = count;
        assert_int_equal(perform(stage, &request), 0);
        expect_body(stage, hex);
        assert_string_equal(stage->response.etag, etag);
    }
    assert_int_equal(http_server_connections(stage->server), 1);
    done(stage);
    free(bytes);
}

static void test_upload(void **state)
{
    run_simply(answer_with_hash, play_upload);
}

static void play_bad_requests(struct stage *stage)
{
    static const char *const urls[] = { "",
                                        "127.0.0.1/x",
                                        "ftp://127.0.0.1/x",
                                        "file:///etc/passwd",
                                        "http://",
                                        "http://127.0.0.1:99999/",
                                        "http://127.0.0.1 x/",
                                        "http://[::1/" };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct url url;
        snprintf(url.text, sizeof url.text, "%s", urls[i]);
        struct http_request request = request_of("GET", &url);
        assert_int_equal(perform(stage, &request), -EINVAL);
    }
    struct url url = url_of(stage, "/");
    struct http_request request = request_of("GET", &url);
    request.headers[0] = (struct http_header){ "x-secret", "hush\r\nx-other: 1" };
    assert_int_equal(perform(stage, &request), -EINVAL);
    assert_null(strstr(stage->error.story, "hush"));
    request.headers[0].name = NULL;
    request.deadline_ns = loop_now_ns(stage->loop);
    assert_int_equal(perform(stage, &request), -ETIMEDOUT);
    assert_int_equal(http_server_connections(stage->server), 0);
    assert_int_equal(simply(stage, "GET", "/"), 0);
    done(stage);
}

static void test_bad_requests(void **state)
{
    run_simply(echo, play_bad_requests);
}

/* ---- answers, one for each target "/0", "/1", … ---- */

struct canned {
    const char *bytes;
    enum { KEEP, CLOSE, RESET } then;
    int result;
    const char *expected; /* of 0: the body; else words of the story */
};

static void can(struct http_peer *peer)
{
    const struct canned *answers = peer->arg;
    while (http_peer_request(peer)) {
        const struct canned *answer = &answers[strtoul(peer->target + 1, NULL, 10)];
        http_peer_send(peer, answer->bytes, strlen(answer->bytes));
        if (answer->then == KEEP)
            continue;
        if (answer->then == RESET)
            http_peer_reset(peer);
        return;
    }
}

static void play_canned(struct stage *stage)
{
    const struct canned *answers = stage->arg;
    for (int i = 0; answers[i].bytes != NULL; i++) {
        char path[16];
        snprintf(path, sizeof path, "/%d", i);
        int result = simply(stage, "GET", path);
        if (result != answers[i].result)
            fail_msg("answer %d: %d, not %d: %s", i, result, answers[i].result, stage->error.story);
        if (result == 0)
            expect_body(stage, answers[i].expected);
        else
            expect_story(stage, answers[i].expected);
    }
    done(stage);
}

static void run_canned(struct canned *answers)
{
    struct stage stage = { .script = can, .arg = answers, .play = play_canned };
    run(&stage);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void test_good_answers(void **state)
{
    struct canned answers[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", KEEP, 0, "hello" },
        { CHUNKED "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", KEEP, 0, "hello" },
        { CHUNKED "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nETag: \"t\"\r\nContent-Length: 99\r\n\r\n", KEEP, 0, "hello" },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
          "2\r\n\r\nok",
          KEEP, 0, "ok" },
        { "HTTP/1.1 204 No Content\r\n\r\n", KEEP, 0, "" },
        { "HTTP/1.1 200 OK\r\n\r\nuntil the end", CLOSE, 0, "until the end" },
        { "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", CLOSE, 0, "<html>" },
        { "HTTP/1.1 301 Moved\r\nLocation: /0\r\nContent-Length: 5\r\n\r\nmoved", KEEP, 0, "moved" },
        { "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", KEEP, 0, "" },
        { "HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 3\r\n\r\nwho", KEEP, 0, "who" },
        { "HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", CLOSE, 0,
          "Client sent an HTTP request to an HTTPS server.\n" },
        { "HTTP/1.1 503 Slow Down\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n", KEEP, 0, "" },
        { NULL },
    };
    run_canned(answers);
}

static void test_bad_answers(void **state)
{
    struct canned answers[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", CLOSE, -ECONNRESET, "ended early" },
        { CHUNKED "5\r\nhel", CLOSE, -ECONNRESET, "ended early" },
        { CHUNKED "5\r\nhello\r\n", CLOSE, -ECONNRESET, "ended early" },
        { CHUNKED "xyz\r\nhello", CLOSE, -ECONNRESET, "" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\nhello", RESET, -ECONNRESET, "" },
        { "HTTP/1.1 200 OK\r\nContent-Le", CLOSE, -ECONNRESET, "" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", CLOSE, -ECONNRESET, "" },
        { "HTTP/1.1 100 Continue\r\n\r\n", CLOSE, -ECONNRESET, "" },
        { "HTTP/1.1 200 OK\r\nContent-Length: pear\r\n\r\n", CLOSE, -EPROTO, "Content-Length" },
        { "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", CLOSE, -EPROTO, "Content-Length" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", CLOSE, -EPROTO, "Content-Length" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", CLOSE, -EPROTO, "two lengths" },
        { "HTTP/1.1 700 What\r\n\r\n", CLOSE, -EPROTO, "status" },
        { "HTTP/1.1 what\r\n\r\n", CLOSE, -EPROTO, "" },
        { "SSH-2.0-OpenSSH_9.2\r\n", CLOSE, -EPROTO, "no proper answer of HTTP" },
        { "<html>no head</html>", CLOSE, -EPROTO, "no proper answer of HTTP" },
        { "\x15\x03\x03", CLOSE, -EPROTO, "https://" },
        { "\x15\x03\x01\n\x02\x02\n", CLOSE, -EPROTO, "https://" },
        { "\n\n\n", CLOSE, -EPROTO, "no proper answer of HTTP" },
        { NULL },
    };
    run_canned(answers);
}

static void test_no_answer(void **state)
{
    struct canned answers[] = { { "", CLOSE, -ECONNRESET, "without an answer" }, { NULL } };
    run_canned(answers);
    struct canned reset[] = { { "", RESET, -ECONNRESET, "" }, { NULL } };
    run_canned(reset);
}

static void say_endless_head(struct http_peer *peer)
{
    char filler[8001];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    if (!http_peer_request(peer))
        return;
    http_peer_say(peer, "HTTP/1.1 200 OK\r\nX: ");
    bool lines = strcmp(peer->target, "/lines") == 0;
    for (int i = 0; i < 300; i++)
        http_peer_say(peer, "%s%s", filler, lines ? "\r\nX: " : "");
    http_peer_say(peer, "\r\n\r\n");
    http_peer_until_closed(peer);
}

static void play_endless_head(struct stage *stage)
{
    assert_int_equal(simply(stage, "GET", "/lines"), -EPROTO);
    expect_story(stage, "head");
    assert_int_equal(simply(stage, "GET", "/line"), -EPROTO);
}

static void test_endless_head(void **state)
{
    run_simply(say_endless_head, play_endless_head);
}

/* ---- where bodies go ---- */

/* "/STATUS/FIRST/LAST": those bytes of an object of 1 MiB whose byte i is i % 251; "/…/x": chunked. */
static void serve_ranges(struct http_peer *peer)
{
    uint8_t *object = memory_new(MIB);
    for (size_t i = 0; i < MIB; i++)
        object[i] = (uint8_t)(i % 251);
    while (http_peer_request(peer)) {
        unsigned status;
        size_t first, last;
        assert(sscanf(peer->target, "/%u/%zu/%zu", &status, &first, &last) == 3);
        http_peer_say(peer, "HTTP/1.1 %u OK\r\n", status);
        if (status == 206)
            http_peer_say(peer, "Content-Range: bytes %zu-%zu/%d\r\n", first, last, (int)MIB);
        size_t length = last - first + 1;
        if (strchr(peer->target, 'x') == NULL) {
            http_peer_say(peer, "Content-Length: %zu\r\n\r\n", length);
            http_peer_send(peer, object + first, length);
            continue;
        }
        http_peer_say(peer, "Transfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < length;) {
            size_t part = 1 + at % 30000 < length - at ? 1 + at % 30000 : length - at;
            http_peer_say(peer, "%zx\r\n", part);
            http_peer_send(peer, object + first + at, part);
            http_peer_say(peer, "\r\n");
            at += part;
        }
        http_peer_say(peer, "0\r\n\r\n");
    }
    free(object);
}

static int fetch(struct stage *stage, const char *path, uint64_t offset, uint8_t *bytes, size_t length)
{
    struct iovec pieces[] = { { bytes, length / 3 }, { NULL, 0 }, { bytes + length / 3, length - length / 3 } };
    struct url url = url_of(stage, path);
    struct http_request request = request_of("GET", &url);
    request.pieces = pieces;
    request.count = 3;
    request.offset = offset;
    request.body_max = 16;
    memset(bytes, 0xff, length);
    return perform(stage, &request);
}

static void expect_placed(const struct stage *stage, const uint8_t *bytes, uint64_t offset, uint64_t placed)
{
    assert_int_equal(stage->response.placed, placed);
    for (uint64_t i = 0; i < placed; i++)
        if (bytes[i] != (offset + i) % 251)
            fail_msg("byte %u is wrong", (unsigned)i);
    assert_int_equal(stage->response.body.length, 0);
}

static void play_ranges(struct stage *stage)
{
    size_t length = 300000;
    uint8_t *bytes = memory_new(length);
    assert_int_equal(fetch(stage, "/206/1000/300999", 1000, bytes, length), 0);
    expect_placed(stage, bytes, 1000, length);
    assert_int_equal(stage->response.range_first, 1000);
    assert_int_equal(stage->response.range_last, 300999);
    assert_int_equal(stage->response.range_size, MIB);
    assert_int_equal(fetch(stage, "/206/1000/300999/x", 1000, bytes, length), 0);
    expect_placed(stage, bytes, 1000, length);
    assert_int_equal(fetch(stage, "/206/1000/1999", 1000, bytes, length), 0);
    expect_placed(stage, bytes, 1000, 1000);
    assert_int_equal(bytes[1000], 0xff);
    assert_int_equal(fetch(stage, "/200/0/299999", 0, bytes, length), 0);
    expect_placed(stage, bytes, 0, length);
    /* Not where it was asked for. */
    assert_int_equal(fetch(stage, "/206/999/1998", 1000, bytes, length), 0);
    assert_int_equal(stage->response.placed, 0);
    assert_int_equal(stage->response.range_first, 999);
    assert_int_equal(bytes[0], 0xff);
    assert_int_equal(stage->response.body.length, 16);
    assert_true(stage->response.truncated);
    /* An error's body does not go there. */
    assert_int_equal(fetch(stage, "/404/0/9", 0, bytes, length), 0);
    assert_int_equal(stage->response.placed, 0);
    assert_int_equal(stage->response.body.length, 10);
    assert_false(stage->response.truncated);
    assert_int_equal(http_server_connections(stage->server), 1);

    /* More than fits: of a range a mistake, of a whole object cut off. */
    assert_int_equal(fetch(stage, "/206/1000/301000", 1000, bytes, length), -EPROTO);
    expect_story(stage, "more bytes than were asked for");
    assert_int_equal(fetch(stage, "/200/0/1048575", 0, bytes, length), 0);
    expect_placed(stage, bytes, 0, length);
    assert_int_equal(stage->response.length, MIB);
    assert_int_equal(fetch(stage, "/200/0/1048575", 1000, bytes, length), 0);
    assert_int_equal(stage->response.placed, 0);
    assert_true(stage->response.truncated);
    done(stage);
    free(bytes);
}

static void test_ranges(void **state)
{
    run_simply(serve_ranges, play_ranges);
}

/* ---- connections ---- */

static atomic_uint puts_seen;

/* Connection 0 answers once, and goes when it has read another request. */
static void go_at_second(struct http_peer *peer)
{
    while (http_peer_request(peer)) {
        if (strcmp(peer->method, "PUT") == 0)
            atomic_fetch_add(&puts_seen, 1);
        else if (strcmp(peer->target, "/first") != 0 && peer->number == 0)
            return;
        if (strcmp(peer->method, "PUT") == 0 && peer->number == 0)
            return;
        http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
}

static void play_resent_get(struct stage *stage)
{
    assert_int_equal(simply(stage, "GET", "/first"), 0);
    assert_int_equal(simply(stage, "GET", "/second"), 0);
    expect_body(stage, "ok");
    assert_int_equal(http_server_connections(stage->server), 2);
    done(stage);
}

/* Nobody can tell whether it was applied: it is for the caller to send it again. */
static void play_put_not_resent(struct stage *stage)
{
    atomic_store(&puts_seen, 0);
    assert_int_equal(simply(stage, "GET", "/first"), 0);
    struct url url = url_of(stage, "/second");
    struct http_request request = request_of("PUT", &url);
    char bytes[] = "body";
    struct iovec piece = { bytes, 4 };
    request.body = &piece;
    request.body_count = stage->words != NULL ? 1 : 0;
    assert_int_equal(perform(stage, &request), -ECONNRESET);
    assert_int_equal(atomic_load(&puts_seen), 1);
    assert_int_equal(perform(stage, &request), 0);
    assert_int_equal(atomic_load(&puts_seen), 2);
    done(stage);
}

static void test_kept_connection_that_goes(void **state)
{
    run_simply(go_at_second, play_resent_get);
    struct stage empty = { .script = go_at_second, .play = play_put_not_resent };
    run(&empty);
    struct stage full = { .script = go_at_second, .play = play_put_not_resent, .words = "with a body" };
    run(&full);
}

static void answer_once(struct http_peer *peer)
{
    if (http_peer_request(peer))
        http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

static void wait_gone(struct stage *stage)
{
    while (http_server_open(stage->server) > 0)
        assert_int_equal(sleep_ns(NS_PER_MS), 0);
}

/* A kept connection whose end has arrived is not used, whatever is to be sent. */
static void play_stale(struct stage *stage)
{
    static const char *const methods[] = { "GET", "PUT", "POST", "DELETE" };
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(simply(stage, methods[i], "/"), 0);
        assert_int_equal(http_server_connections(stage->server), i + 1);
        wait_gone(stage);
    }
    done(stage);
}

static void test_stale(void **state)
{
    run_simply(answer_once, play_stale);
}

static void play_fresh(struct stage *stage)
{
    struct url url = url_of(stage, "/");
    struct http_request request = request_of("GET", &url);
    assert_int_equal(perform(stage, &request), 0);
    request.fresh = true;
    for (int i = 0; i < 3; i++)
        assert_int_equal(perform(stage, &request), 0);
    assert_int_equal(http_server_connections(stage->server), 4);
    request.fresh = false;
    assert_int_equal(perform(stage, &request), 0);
    assert_int_equal(http_server_connections(stage->server), 4);
    done(stage);
}

static void test_fresh(void **state)
{
    run_simply(echo, play_fresh);
}

static void play_idle(struct stage *stage)
{
    assert_int_equal(simply(stage, "GET", "/"), 0);
    assert_int_equal(sleep_ns(2 * NS_PER_S + 20 * NS_PER_MS), 0);
    assert_int_equal(simply(stage, "GET", "/"), 0);
    assert_int_equal(http_server_connections(stage->server), 2);
    done(stage);
}

static void test_idle(void **state)
{
    struct stage stage = { .script = echo, .play = play_idle, .setup = { .idle_ms = 2000 } };
    run(&stage);
}

/* ---- many at once ---- */

struct call {
    struct stage *stage;
    const char *method, *path;
    const struct iovec *body;
    uint64_t deadline_ns;
    int result;
    struct http_response response;
    struct task *task;
};

static void call_run(void *arg)
{
    struct call *call = arg;
    struct url url = url_of(call->stage, call->path);
    struct http_request request = request_of(call->method, &url);
    request.body = call->body;
    request.body_count = call->body != NULL;
    if (call->deadline_ns != 0)
        request.deadline_ns = call->deadline_ns;
    call->result = http_perform(call->stage->http, &request, &call->response, NULL);
}

#define CALLS 100

static void play_many(struct stage *stage)
{
    static struct call calls[CALLS];
    static char paths[CALLS][16];
    static char bytes[100000];
    struct iovec body = { bytes, sizeof bytes };
    struct group group;
    group_init(&group, stage->loop);
    for (int i = 0; i < CALLS; i++) {
        snprintf(paths[i], sizeof paths[i], "/%d", i);
        calls[i] = (struct call){ .stage = stage,
                                  .path = paths[i],
                                  .method = i % 2 == 0 ? "GET" : "PUT",
                                  .body = i % 2 == 0 ? NULL : &body,
                                  .result = 1 };
        group_spawn(&group, "call", call_run, &calls[i]);
    }
    group_join(&group);
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(calls[i].result, 0);
        char line[64];
        snprintf(line, sizeof line, "%s /%d HTTP/1.1\r\n", calls[i].method, i);
        assert_memory_equal(calls[i].response.body.data, line, strlen(line));
        http_response_free(&calls[i].response);
    }
    assert_int_equal(http_server_connections(stage->server), 8);
}

static void test_many(void **state)
{
    struct stage stage = { .script = echo, .play = play_many, .setup = { .connections_max = 8 } };
    run(&stage);
}

/* ---- giving up ---- */

static atomic_uint heads_seen;

/* "/swallow": reads no body and says nothing; "/drip": half an answer; else an answer. */
static void stall(struct http_peer *peer)
{
    while (http_peer_head(peer)) {
        atomic_fetch_add(&heads_seen, 1);
        if (strcmp(peer->target, "/ok") == 0) {
            http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            continue;
        }
        if (strcmp(peer->target, "/drip") == 0)
            http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\nhello");
        http_peer_hold(peer); /* a body is left unread */
        return;
    }
}

static void wait_heads(unsigned count)
{
    while (atomic_load(&heads_seen) < count)
        assert_int_equal(sleep_ns(NS_PER_MS), 0);
}

/* The body's memory may go as soon as a cancelled call has returned. */
static void play_cancel(struct stage *stage)
{
    static const struct {
        const char *method, *path;
    } cases[] = { { "PUT", "/swallow" }, { "GET", "/swallow" }, { "GET", "/drip" }, { "HEAD", "/swallow" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atomic_store(&heads_seen, 0);
        struct iovec body = { memory_new(32 * MIB), 32 * MIB };
        struct call call = { .stage = stage, .method = cases[i].method, .path = cases[i].path, .body = &body };
        if (strcmp(call.method, "PUT") != 0)
            call.body = NULL;
        /* There is one connection: this one waits for its turn. */
        struct call waiting = { .stage = stage, .method = "GET", .path = "/ok" };
        struct group group;
        group_init(&group, stage->loop);
        call.task = group_spawn(&group, "call", call_run, &call);
        waiting.task = group_spawn(&group, "waiting", call_run, &waiting);
        wait_heads(1);
        assert_int_equal(sleep_ns(5 * NS_PER_MS), 0);
        if (i % 2 == 0)
            task_cancel(waiting.task);
        task_cancel(call.task);
        group_join(&group);
        free(body.iov_base);
        assert_int_equal(call.result, -ECANCELED);
        assert_int_equal(waiting.result, i % 2 == 0 ? -ECANCELED : 0);
        http_response_free(&waiting.response);
        assert_int_equal(simply(stage, "GET", "/ok"), 0);
        done(stage);
    }
}

static void test_cancel(void **state)
{
    struct stage stage = { .script = stall, .play = play_cancel, .setup = { .connections_max = 1 } };
    run(&stage);
}

/* Also with TLS, which ends connections in its own way, on the coroutine's stack. */
static void test_cancel_over_tls(void **state)
{
    struct http_identity *identity = http_identity_new("127.0.0.1", -3600, 3600);
    http_identity_write(identity, ca_path);
    struct stage stage = tls_stage(stall, identity, ca_path);
    stage.play = play_cancel;
    stage.setup.connections_max = 1;
    run(&stage);
    http_identity_free(identity);
    unlink(ca_path);
}

/* While a name is looked up, in a thread that goes on. */
static void play_cancel_lookup(struct stage *stage)
{
    stage->base[0] = '\0';
    for (int i = 0; i < 3; i++) {
        struct call call = { .stage = stage, .method = "GET", .path = "http://nobody.invalid/" };
        struct group group;
        group_init(&group, stage->loop);
        call.task = group_spawn(&group, "call", call_run, &call);
        for (int turn = 0; turn < i; turn++)
            coroutine_yield();
        task_cancel(call.task);
        group_join(&group);
        assert_true(call.result == -ECANCELED || call.result == -EHOSTUNREACH);
    }
}

static void test_cancel_lookup(void **state)
{
    run_simply(echo, play_cancel_lookup);
}

static void play_cancelled_before(struct stage *stage)
{
    struct call call = { .stage = stage, .method = "GET", .path = "/" };
    struct group group;
    group_init(&group, stage->loop);
    call.task = group_spawn(&group, "call", call_run, &call);
    task_cancel(call.task);
    group_join(&group);
    assert_int_equal(call.result, -ECANCELED);
    assert_int_equal(http_server_connections(stage->server), 0);
}

static void test_cancelled_before(void **state)
{
    run_simply(echo, play_cancelled_before);
}

/* Says no before the body has come, and goes or stays. */
static void refuse_early(struct http_peer *peer)
{
    if (!http_peer_head(peer))
        return;
    http_peer_say(peer, "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 4\r\n\r\nslow");
    if (strcmp(peer->target, "/stay") == 0)
        http_peer_hold(peer);
}

static void play_refused_early(struct stage *stage)
{
    struct iovec body = { memory_new(32 * MIB), 32 * MIB };
    struct url url = url_of(stage, "/stay");
    struct http_request request = request_of("PUT", &url);
    request.body = &body;
    request.body_count = 1;
    assert_int_equal(perform(stage, &request), 0);
    assert_int_equal(stage->response.status, 503);
    expect_body(stage, "slow");
    /* Its end may overtake the answer. */
    url = url_of(stage, "/go");
    int result = perform(stage, &request);
    assert_true(result == -ECONNRESET || (result == 0 && stage->response.status == 503));
    assert_int_equal(http_server_connections(stage->server), 2);
    done(stage);
    free(body.iov_base);
}

static void test_refused_early(void **state)
{
    run_simply(refuse_early, play_refused_early);
}

static void play_deadline(struct stage *stage)
{
    struct url url = url_of(stage, "/swallow");
    struct http_request request = request_of("GET", &url);
    request.deadline_ns = loop_now_ns(stage->loop) + 50 * NS_PER_MS;
    assert_int_equal(perform(stage, &request), -ETIMEDOUT);
    assert_true(loop_now_ns(stage->loop) >= request.deadline_ns);

    /* Also for those that wait for their turn. */
    struct call calls[2];
    struct group group;
    group_init(&group, stage->loop);
    for (int i = 0; i < 2; i++) {
        calls[i] = (struct call){ .stage = stage, .method = "GET", .path = "/swallow" };
        calls[i].deadline_ns = loop_now_ns(stage->loop) + (i == 0 ? 100 : 20) * NS_PER_MS;
        group_spawn(&group, "call", call_run, &calls[i]);
    }
    group_join(&group);
    assert_int_equal(calls[0].result, -ETIMEDOUT);
    assert_int_equal(calls[1].result, -ETIMEDOUT);
    assert_int_equal(simply(stage, "GET", "/ok"), 0);
    done(stage);
}

static void test_deadline(void **state)
{
    struct stage stage = { .script = stall, .play = play_deadline, .setup = { .connections_max = 1 } };
    run(&stage);
}

static void play_silence(struct stage *stage)
{
    struct call calls[3] = { { .method = "GET", .path = "/swallow" },
                             { .method = "GET", .path = "/drip" },
                             { .method = "PUT", .path = "/swallow" } };
    struct iovec body = { memory_new(32 * MIB), 32 * MIB };
    calls[2].body = &body;
    struct group group;
    group_init(&group, stage->loop);
    for (int i = 0; i < 3; i++) {
        calls[i].stage = stage;
        group_spawn(&group, "call", call_run, &calls[i]);
    }
    group_join(&group);
    for (int i = 0; i < 3; i++)
        assert_int_equal(calls[i].result, -ETIMEDOUT);
    free(body.iov_base);
    assert_int_equal(simply(stage, "GET", "/swallow"), -ETIMEDOUT);
    expect_story(stage, "less than 1 KB/s");
}

static void test_silence(void **state)
{
    struct stage stage = { .script = stall, .play = play_silence, .setup = { .silence_ms = 150 } };
    run(&stage);
}

#define SIPPED (6 * MIB)

/* Reads so slowly that what the client's kernel holds is on its way for longer than silence may last. */
static void sip(struct http_peer *peer)
{
    static uint8_t bytes[64 * 1024];
    int window = 128 * 1024;
    setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    if (!http_peer_head(peer))
        return;
    for (size_t left = SIPPED; left > 0; left -= sizeof bytes) {
        usleep(15000);
        if (!http_peer_read(peer, bytes, sizeof bytes))
            return;
    }
    http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

static void play_slow_upload(struct stage *stage)
{
    struct iovec body = { memory_new(SIPPED), SIPPED };
    struct call call = { .stage = stage, .method = "PUT", .path = "/", .body = &body };
    call_run(&call);
    assert_int_equal(call.result, 0);
    free(body.iov_base);
}

/* A slow line is no silence. */
static void test_slow_upload(void **state)
{
    struct stage stage = { .script = sip, .play = play_slow_upload, .setup = { .silence_ms = 400 } };
    run(&stage);
}

static void be_silent(struct http_peer *peer)
{
    http_peer_until_closed(peer);
}

static void play_connect_timeout(struct stage *stage)
{
    struct url url = url_of(stage, "/");
    struct http_request request = request_of("GET", &url);
    request.connect_timeout_ms = 100;
    assert_int_equal(perform(stage, &request), -ETIMEDOUT);
}

/* TLS counts as a part of connecting. */
static void test_connect_timeout(void **state)
{
    struct stage stage = { .script = be_silent, .play = play_connect_timeout, .scheme = "https" };
    run(&stage);
}

static void play_refused(struct stage *stage)
{
    int port = http_server_port(stage->server);
    http_server_stop(stage->server);
    assert_int_equal(simply(stage, "GET", "/"), -ECONNREFUSED);
    char origin[64];
    snprintf(origin, sizeof origin, "http://127.0.0.1:%d: ", port);
    expect_story(stage, origin);
    stage->server = http_server_start(echo, NULL, NULL);
}

static void test_refused(void **state)
{
    run_simply(echo, play_refused);
}

/* ---- TLS ---- */

static void play_ok(struct stage *stage)
{
    for (int i = 0; i < 3; i++)
        assert_int_equal(simply(stage, "GET", "/"), 0);
    assert_int_equal(http_server_connections(stage->server), 1);
    done(stage);
}

static void play_upload_over_tls(struct stage *stage)
{
    play_upload(stage);
}

static void play_rejected(struct stage *stage)
{
    assert_int_equal(simply(stage, "GET", "/"), -EKEYREJECTED);
    expect_story(stage, "--s3-ca");
    expect_story(stage, stage->words);
}

static void test_tls(void **state)
{
    struct http_identity *identity = http_identity_new("127.0.0.1", -3600, 3600);
    http_identity_write(identity, ca_path);

    struct stage stage = tls_stage(echo, identity, NULL);
    stage.play = play_rejected;
    stage.words = "issuer";
    run(&stage);
    stage = tls_stage(echo, identity, ca_path);
    stage.play = play_ok;
    run(&stage);
    stage = tls_stage(answer_with_hash, identity, ca_path);
    stage.play = play_upload_over_tls;
    run(&stage);
    stage = tls_stage(echo, identity, ca_path);
    stage.host = "localhost";
    stage.play = play_rejected;
    stage.words = "does not match";
    run(&stage);
    http_identity_free(identity);

    identity = http_identity_new("127.0.0.1", -7200, -3600);
    http_identity_write(identity, ca_path);
    stage = tls_stage(echo, identity, ca_path);
    stage.play = play_rejected;
    stage.words = "expired";
    run(&stage);
    http_identity_free(identity);
    unlink(ca_path);
}

static void play_wrong_scheme(struct stage *stage)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(simply(stage, "GET", "/"), -EPROTO);
        expect_story(stage, stage->words);
    }
}

/* What a server without TLS does with a greeting of TLS. */
static void answer_plainly(struct http_peer *peer)
{
    char greeting[5];
    if (http_peer_read(peer, greeting, sizeof greeting))
        http_peer_say(peer, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    http_peer_until_closed(peer);
}

static void hang_up(struct http_peer *peer)
{
    char greeting[5];
    http_peer_read(peer, greeting, sizeof greeting);
    if (peer->number % 2 == 0)
        http_peer_reset(peer);
}

static void play_hung_up(struct stage *stage)
{
    for (int i = 0; i < 4; i++)
        assert_int_equal(simply(stage, "GET", "/"), -ECONNRESET);
}

static void test_wrong_scheme(void **state)
{
    struct http_identity *identity = http_identity_new("127.0.0.1", -3600, 3600);
    struct stage stage = { .script = echo, .identity = identity, .play = play_wrong_scheme, .words = "write https://" };
    run(&stage);
    http_identity_free(identity);

    stage = (struct stage){
        .script = answer_plainly, .scheme = "https", .play = play_wrong_scheme, .words = "does not speak HTTPS"
    };
    run(&stage);
    stage = (struct stage){ .script = hang_up, .scheme = "https", .play = play_hung_up };
    run(&stage);
}

static void play_nothing(struct stage *stage)
{
}

static void bad_ca_files(struct loop *loop, void *arg)
{
    struct http *http = NULL;
    struct error error = ERROR_NONE;
    struct http_setup setup = { .ca_file = "/does/not/exist.pem", .connections_max = 1 };
    assert_int_equal(http_new(loop, &setup, &http, &error), -ENOENT);
    assert_non_null(strstr(error.story, setup.ca_file));
    FILE *file = fopen(ca_path, "w");
    assert_non_null(file);
    fprintf(file, "this is no certificate\n");
    fclose(file);
    setup.ca_file = ca_path;
    assert_int_equal(http_new(loop, &setup, &http, &error), -EINVAL);
    unlink(ca_path);
    assert_null(http);
    http_free(NULL);
}

static void test_bad_ca_files(void **state)
{
    in_real_loop(bad_ca_files, NULL);
    run_simply(echo, play_nothing);
}

/* ---- proxies ---- */

/* The server itself is the proxy that the variables name. */
static void play_proxy(struct stage *stage)
{
    setenv("http_proxy", stage->base, 1);
    setenv("https_proxy", stage->base, 1);
    struct url url = { "http://store.example/object" };
    struct http_request request = request_of("GET", &url);
    assert_int_equal(perform(stage, &request), 0);
    assert_true(body_says(stage, "GET http://store.example/object HTTP/1.1\r\n"));

    url = (struct url){ "https://store.example/object" };
    assert_int_equal(perform(stage, &request), -EIO);
    expect_story(stage, "the proxy does not let us through");

    static const char *const hosts[] = { "127.0.0.1",   "127.1",     "localhost",         "LOCALHOST.",
                                         "x.localhost", "127.9.9.9", "[::ffff:127.0.0.1]" };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        snprintf(url.text, sizeof url.text, "http://%s:%d/x", hosts[i], http_server_port(stage->server));
        int result = perform(stage, &request);
        if (result != 0)
            continue; /* not everywhere each of them is an address; but none goes to the proxy */
        assert_true(body_says(stage, "GET /x HTTP/1.1\r\n"));
    }
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    done(stage);
}

static void echo_or_refuse(struct http_peer *peer)
{
    while (http_peer_request(peer)) {
        if (strcmp(peer->method, "CONNECT") == 0)
            http_peer_say(peer, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        else
            http_peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", peer->head_length, peer->head);
    }
}

static void test_proxy(void **state)
{
    run_simply(echo_or_refuse, play_proxy);
}

int main(void)
{
    snprintf(ca_path, sizeof ca_path, "/tmp/cairn-test-http-%d.pem", (int)getpid());
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    unsetenv("ALL_PROXY");
    unsetenv("all_proxy");
    unsetenv("NO_PROXY");
    unsetenv("no_proxy");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_good_answers),
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_endless_head),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_kept_connection_that_goes),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_fresh),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_over_tls),
        cmocka_unit_test(test_cancel_lookup),
        cmocka_unit_test(test_cancelled_before),
        cmocka_unit_test(test_refused_early),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_slow_upload),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_wrong_scheme),
        cmocka_unit_test(test_bad_ca_files),
        cmocka_unit_test(test_proxy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
