/* HTTP/1.1 requests, over libcurl's multi interface in a loop.
 *
 * One struct http per shard holds the connections that are kept alive.  A call
 * parks until the answer is complete; any number may be under way at once, of
 * which `connections_max` have a connection and the rest wait in order, but for
 * those that are said to stand apart.  Bodies
 * are sent from where they lie, and answers to ranged GETs are received where
 * they belong.
 *
 * One call is one attempt: nothing is retried here, except that a GET or HEAD is
 * sent again on another connection when a kept one turns out to have been
 * closed by the server before a byte of an answer came.  Anything else then
 * fails with -ECONNRESET, for it may have been applied, and the answer to a
 * second one would be taken for the answer to the first.
 *
 * Redirects are not followed; proxies are used as curl's variables say
 * (HTTPS_PROXY, NO_PROXY, …), never for a loopback address. */
#ifndef CAIRN_STORE_HTTP_H
#define CAIRN_STORE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buffer.h"
#include "rt/coroutine.h"
#include "store/store.h"

struct error;
struct http;
struct loop;

struct http_setup {
    const char *ca_file;      /* certificates in PEM; NULL: the system's */
    uint64_t connections_max; /* that are open, busy or idle; above 0 */
    uint64_t idle_ms;         /* a connection that was idle for longer is not used again; whole seconds, 2 at least */
    uint64_t silence_ms;      /* an attempt that moves less than 1 KB/s for so long is given up: -ETIMEDOUT */
};

#define HTTP_HEADERS_MAX 24

struct http_header {
    const char *name, *value;
};

struct http_request {
    const char *method; /* "GET", "PUT", "POST", "DELETE", "HEAD" */
    const char *url;    /* whole, encoded: sent as it stands ("..", "//" and "%" are left alone) */
    struct http_header headers[HTTP_HEADERS_MAX]; /* the first without a name ends them */
    const struct iovec *body;                     /* PUT, POST; unchanged until the call returns */
    int body_count;
    /* Where the body of an answer 206 goes whose Content-Range begins at `offset`, or of a 200 when `offset` is 0:
     * no more than fits, the rest is an error (-EPROTO) for a 206 and dropped for a 200.  Other answers' bodies, and
     * all when `pieces` is NULL, go to http_response.body.  Of what is dropped up to 64 KiB are read; beyond, the
     * connection is closed instead. */
    const struct iovec *pieces;
    int count;
    uint64_t offset;
    size_t body_max;             /* of http_response.body; more is dropped and told by `truncated` */
    uint64_t connect_timeout_ms; /* including name look-up and TLS */
    uint64_t deadline_ns;        /* of loop_now_ns(), for the whole attempt; UINT64_MAX: none */
    bool fresh;                  /* on a new connection, closed afterwards */
    bool apart;  /* one of few that must not wait for others: it counts for nothing in connections_max */
    bool direct; /* past any proxy: to an address that means this host's own surroundings */
};

/* Headers that are too long for their field, unreadable, or given twice and not the same, count as absent. */
struct http_response {
    int status;      /* 200 … */
    uint64_t length; /* of Content-Length; UINT64_MAX: not told */
    uint64_t placed; /* bytes in the request's pieces */
    bool truncated;
    uint64_t range_first, range_last, range_size; /* of Content-Range; UINT64_MAX each where absent or unreadable */
    uint64_t date_s;                              /* of Date, since 1970; 0: none */
    uint64_t retry_after_ms;                      /* of x-amz-retry-after (ms) or Retry-After (s); UINT64_MAX: none */
    char etag[STORE_ETAG_MAX];                    /* as sent, quotes included; "" : none, or too long */
    char region[64];                              /* of x-amz-bucket-region */
    char location[512];                           /* of Location */
    char content_type[64];
    char server[64];    /* of Server: what it calls itself */
    struct buffer body; /* the caller frees with http_response_free() */
};

int http_new(struct loop *loop, const struct http_setup *setup, struct http **ret_http, struct error *error);
void http_free(struct http *http); /* no call may be under way; NULL is fine */

/* 0: an answer arrived whole, whatever its status.  Otherwise ret_response is untouched, and the story says what
 * happened in words for the operator:
 *   -ECANCELED     the task was cancelled: the attempt was cut off, its outcome is unknown
 *   -ETIMEDOUT     connecting, or silence, or the deadline
 *   -ECONNREFUSED, -EHOSTUNREACH (also: the name is not known), -ECONNRESET (reset, or ended early)
 *   -EKEYREJECTED  the server's certificate is not good; the story says why, and names --s3-ca
 *   -EPROTO        not HTTP, or not as HTTP should be; HTTPS where HTTP was said and the reverse are told apart
 *   -EINVAL        the URL is none
 *   -EIO           anything else */
CO int http_perform(struct http *http, const struct http_request *request, struct http_response *ret_response,
                    struct error *error);
void http_response_free(struct http_response *response);

#endif
