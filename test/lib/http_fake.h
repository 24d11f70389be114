/* A small HTTP server on a port of its own of 127.0.0.1, for unit tests: real sockets, answers from a function.
 *
 * Every answer closes its connection.  The function runs on threads of the server, never two at once
 * (of all servers of a test); it must not use the assertions of cmocka, which jump.  A test that changes what the
 * function reads, or reads what it writes, does so while no request is under way and calls http_fake_settle() before
 * and after. */
#ifndef CAIRN_TEST_LIB_HTTP_FAKE_H
#define CAIRN_TEST_LIB_HTTP_FAKE_H

#include <stdbool.h>
#include <stddef.h>

struct http_fake;

struct http_fake_request {
    unsigned number;           /* from 1 */
    const char *method, *path; /* the path with its query */
    const char *head;          /* the lines of the header, ended by CR LF each */
    const char *body;          /* ended by a NUL */
};

enum http_fake_manner {
    HTTP_FAKE_ANSWER,
    HTTP_FAKE_DROP,    /* the connection is closed without a word */
    HTTP_FAKE_SILENCE, /* nothing comes until the client hangs up */
    HTTP_FAKE_ENDLESS, /* the body never ends */
};

struct http_fake_reply {
    enum http_fake_manner manner;
    int status;
    char *body; /* freed by the server; NULL: none */
};

typedef void http_fake_answer(void *arg, const struct http_fake_request *request, struct http_fake_reply *reply);

struct http_fake *http_fake_start(http_fake_answer *answer, void *arg);
void http_fake_stop(struct http_fake *fake);
const char *http_fake_url(const struct http_fake *fake); /* "http://127.0.0.1:PORT" */
unsigned http_fake_count(struct http_fake *fake);        /* of requests that came */
/* What the functions did happened before this, what they will do happens after. */
void http_fake_settle(void);

/* The value of a header of the request, freed by the caller; NULL: absent. */
char *http_fake_header(const struct http_fake_request *request, const char *name);

#endif
