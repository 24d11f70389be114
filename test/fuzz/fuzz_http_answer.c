/* Answers of HTTP: store/http_answer.c.  The input: a byte that chooses the request, the head in lines, an empty line,
 * and the body, of which each piece has its length in front. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "store/http_internal.h"

#define ROOM 40
#define BODY_MAX 30

static bool ends_empty(const uint8_t *line, size_t length)
{
    return length == 1 || (length == 2 && line[0] == '\r');
}

/* Memory of its own for each, so that a read past its end is found. */
static bool give_line(struct answer *answer, const uint8_t *bytes, size_t length)
{
    char *line = memory_copy(bytes, length);
    bool more = answer_line(answer, line, length);
    free(line);
    return more;
}

static bool give_head(struct answer *answer, const uint8_t **data, size_t *size)
{
    for (;;) {
        const uint8_t *end = *size > 0 ? memchr(*data, '\n', *size) : NULL;
        if (end == NULL)
            return false;
        const uint8_t *line = *data;
        size_t length = (size_t)(end - line) + 1;
        *data += length;
        *size -= length;
        if (!give_line(answer, line, length))
            return false;
        if (ends_empty(line, length) && answer->state == ANSWER_BODY)
            return true;
    }
}

static void check(const struct answer *answer, const uint8_t *room)
{
    const struct http_response *response = &answer->response;
    PROMISE(response->body.length <= BODY_MAX);
    PROMISE(response->placed <= ROOM);
    for (size_t i = response->placed; i < ROOM; i++)
        PROMISE(room[i] == 0xee);
    PROMISE(memchr(response->etag, '\0', sizeof response->etag) != NULL);
    PROMISE(memchr(response->region, '\0', sizeof response->region) != NULL);
    PROMISE(memchr(response->location, '\0', sizeof response->location) != NULL);
    PROMISE(memchr(response->content_type, '\0', sizeof response->content_type) != NULL);
    PROMISE(memchr(response->server, '\0', sizeof response->server) != NULL);
    PROMISE((answer->state == ANSWER_BAD) == (answer->fault != NULL));
    if (answer->state != ANSWER_BODY && answer->state != ANSWER_ENOUGH)
        return;
    PROMISE(response->status >= 200 && response->status <= 599);
    PROMISE((response->range_first == UINT64_MAX) == (response->range_last == UINT64_MAX));
    PROMISE(response->range_first <= response->range_last);
    PROMISE(response->range_last == UINT64_MAX || response->range_last < response->range_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint8_t room[ROOM];
    memset(room, 0xee, sizeof room);
    struct iovec pieces[3] = { { room, 7 }, { NULL, 0 }, { room + 7, ROOM - 7 } };
    struct http_request request = { .method = "GET", .body_max = BODY_MAX, .offset = data[0] >> 1 };
    if ((data[0] & 1) != 0) {
        request.pieces = pieces;
        request.count = 3;
    }
    struct answer answer;
    answer_begin(&answer, &request);
    data++;
    size--;
    bool more = give_head(&answer, &data, &size);
    check(&answer, room);
    while (more && size > 0) {
        size_t length = data[0] < size - 1 ? data[0] : size - 1;
        void *piece = memory_copy(data + 1, length);
        more = answer_bytes(&answer, piece, length);
        free(piece);
        data += length + 1;
        size -= length + 1;
        check(&answer, room);
    }
    answer_end(&answer);
    return 0;
}
