/* What went through the proxy: requests and bytes, by method and by kind of key. */
#ifndef CAIRN_BENCH_S3_PROXY_COUNT_H
#define CAIRN_BENCH_S3_PROXY_COUNT_H

#include <stdint.h>
#include <stdio.h>

#include "s3_proxy_head.h"

/* A LIST is a GET of the bucket with a query, but is billed like a PUT. */
enum count_method {
    METHOD_GET,
    METHOD_PUT,
    METHOD_LIST,
    METHOD_HEAD,
    METHOD_DELETE,
    METHOD_POST,
    METHOD_OTHER,
    METHOD_COUNT
};

enum count_kind { KIND_LOG, KIND_DATA, KIND_VOLUMES, KIND_PROBE, KIND_OTHER, KIND_COUNT };

/* One request, kept by the connection while it is under way. */
struct tally {
    enum count_method method;
    enum count_kind kind;
    uint64_t sent, received; /* bytes of the body, as the client sees it */
};

struct tally count_begin(const struct head *request);
void count_connection(void);
/* status 0: no answer reached the client. */
void count_end(const struct tally *tally, int status);
void count_reset(void);       /* what is under way goes on being counted as such */
void count_print(FILE *file); /* JSON, on one line */

const char *count_method_name(enum count_method method);
const char *count_kind_name(enum count_kind kind);

#endif
