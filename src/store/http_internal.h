/* What the files of the HTTP client share: an answer as it comes in (http_answer.c), one attempt on an easy handle of
 * libcurl (http_transfer.c), and the words for what went wrong (http_error.c). */
#ifndef CAIRN_STORE_HTTP_INTERNAL_H
#define CAIRN_STORE_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "base/list.h"
#include "rt/timer.h"
#include "store/http.h"

/* A walk over scattered bytes. */
struct http_cursor {
    const struct iovec *pieces;
    int count;
    size_t skip; /* of the first piece */
};

/* Where the next bytes lie, at most `most`, and steps over them; *ret_length is 0 at the end. */
void *http_cursor_next(struct http_cursor *cursor, size_t most, size_t *ret_length);
uint64_t http_pieces_length(const struct iovec *pieces, int count);

/* ---- answers ---- */

enum answer_state {
    ANSWER_BEGINS, /* no status line yet */
    ANSWER_HEADERS,
    ANSWER_BODY,   /* after the empty line of the last status */
    ANSWER_ENOUGH, /* all is there that anybody wants; the rest is not waited for */
    ANSWER_BAD,    /* `fault` says why */
};

struct answer {
    const struct http_request *request;
    struct http_response response;
    enum answer_state state;
    const char *fault;
    bool tls_alert; /* of a fault: instead of an answer came what a TLS server says to those who do not speak TLS */
    uint32_t seen, contradicted; /* bits of the known headers */
    uint64_t retry_after_ms, amz_retry_after_ms;
    size_t header_bytes;
    uint64_t dropped; /* bytes of the body */
    bool placing;
    struct http_cursor destination;
};

void answer_begin(struct answer *answer, const struct http_request *request);
/* One line of the head, or the empty line behind it, with its line end.  False: stop, see `state`. */
bool answer_line(struct answer *answer, const char *line, size_t length);
/* Bytes of the body.  False: stop, see `state`. */
bool answer_bytes(struct answer *answer, const void *bytes, size_t length);
void answer_end(struct answer *answer); /* frees what it holds */

/* ---- transfers ---- */

struct transfer {
    CURL *easy;
    struct list link; /* among those that wait to be used again */
    struct coroutine *coroutine;
    struct curl_slist *headers;
    struct http_cursor body;
    struct answer answer;
    struct timer pulse; /* silence is looked for at each */
    uint64_t pulse_ms;
    int fd;             /* that libcurl last waited for on its behalf; -1: none */
    uint64_t moved;     /* bytes since the last pulse, either way */
    uint64_t delivered; /* bytes of the request that the server's host had taken at the last pulse */
    unsigned quiet;     /* pulses in a row that moved too little */
    unsigned sends;     /* how often the request was begun */
    bool may_resend;
    bool done;
    CURLcode code;
    char details[CURL_ERROR_SIZE];
};

struct transfer_limits {
    const char *ca_file;
    uint64_t idle_ms;
    uint64_t timeout_ms; /* of the attempt, 0: none */
};

struct transfer *transfer_new(void);
void transfer_free(struct transfer *transfer);
/* Makes it ready to be added to a multi handle.  -EINVAL: the request is none. */
int transfer_prepare(struct transfer *transfer, const struct http_request *request,
                     const struct transfer_limits *limits, struct error *error);
/* Forgets the request; its memory is not used any more. */
void transfer_reset(struct transfer *transfer);

/* ---- words ---- */

/* 0, or what http_perform() returns of a transfer that has ended, with the story. */
int http_outcome(const struct transfer *transfer, const char *url, struct error *error);
/* -ETIMEDOUT: the transfer was cut off, nothing having moved for so long. */
int http_was_silent(const char *url, uint64_t silence_ms, struct error *error);

#endif
