/* The proxy as the store itself: objects in its memory, no signatures checked.  For measuring without a backend that
 * takes processor time of its own. */
#ifndef CAIRN_BENCH_S3_PROXY_SINK_H
#define CAIRN_BENCH_S3_PROXY_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "s3_proxy_head.h"

/* Bodies beyond this are counted and dropped; getting such an object fails. */
void sink_keep(uint64_t bytes_max);

/* A body on its way in. */
struct sink_object;
struct sink_object *sink_receive(uint64_t length);
/* Where the next bytes go, and how many may; NULL: they are to be dropped. */
char *sink_room(struct sink_object *object, size_t *ret_room);
void sink_received(struct sink_object *object, size_t length);

struct sink_answer {
    char head[1024];
    size_t head_length;
    const char *body;
    size_t body_length;
    int status;
    struct sink_object *object; /* that the body lies in, */
    char *text;                 /* or its own memory */
};

/* Carries the request out; takes `object` (NULL: no body came). */
void sink_perform(const struct head *request, struct sink_object *object, struct sink_answer *ret_answer);
void sink_text(struct sink_answer *ret_answer, int status, const char *type, char *text); /* takes the text */
void sink_answer_free(struct sink_answer *answer);
void sink_object_unref(struct sink_object *object); /* NULL is fine */
void sink_end(void);                                /* forgets all objects */

#endif
