/* Heads of HTTP/1.1 messages, and where their bodies end.  Pure functions over bytes: just enough for a proxy that
 * passes everything on unchanged. */
#ifndef CAIRN_BENCH_S3_PROXY_HEAD_H
#define CAIRN_BENCH_S3_PROXY_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of bytes in somebody else's buffer. */
struct slice {
    const char *bytes;
    size_t length;
};

bool slice_is(struct slice slice, const char *text); /* case matters not */
/* The value of `name` in a query "a=1&b=2", still encoded; bytes NULL: it is not there. */
struct slice slice_parameter(struct slice query, const char *name);

enum framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_UNTIL_CLOSE };

struct head {
    struct slice method, path, query; /* of a request */
    int status;                       /* of an answer */
    enum framing framing;
    uint64_t length; /* with FRAMING_LENGTH */
    bool close;      /* the sender will close the connection */
    bool expects_continue;
    struct slice range, if_match, if_none_match, crc32; /* bytes NULL: absent */
};

/* Length of the head at the beginning of the bytes, its empty line included; 0: it is not whole yet. */
size_t head_length(const char *bytes, size_t length);

/* Of a whole head; the slices point into it. False: this is no HTTP/1. */
bool head_parse_request(const char *bytes, size_t length, struct head *ret_head);
/* `of_head`: the request's method was HEAD, so no body comes, whatever the length says. */
bool head_parse_answer(const char *bytes, size_t length, bool of_head, struct head *ret_head);

/* How much of a body is still to come, as its bytes go by. */
struct body {
    enum framing framing;
    uint64_t left;  /* of the length, or of the chunk */
    int state;      /* of chunks */
    uint64_t moved; /* bytes so far, chunk sizes included */
    bool done;
};

void body_begin(struct body *body, const struct head *head);
/* The most that may be received without reading beyond the body; SIZE_MAX: that is not known. */
size_t body_wants(const struct body *body);
/* Takes what belongs to the body from the bytes and says how much that was; false: the chunks make no sense. */
bool body_take(struct body *body, const char *bytes, size_t length, size_t *ret_taken);

#endif
