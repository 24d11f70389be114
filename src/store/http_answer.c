/* An answer of HTTP as it comes in: what its head says, where its body goes.
 *
 * Nothing here does any I/O; lines and bytes are handed in by libcurl, which
 * has split the head into lines and undone chunks.
 *
 *     BEGINS -> HEADERS     a status line
 *     HEADERS -> HEADERS    another status line: the former was informational (100 Continue)
 *     HEADERS -> BODY       the empty line; what comes in lines afterwards are trailers, which nobody reads
 *     BODY -> ENOUGH        nobody wants the rest
 *     any -> BAD            it is not HTTP
 *
 * A server may send anything: a header that is too long for its field, that
 * cannot be read, or that comes twice and contradicts itself counts as absent.
 * Only two lengths that contradict each other, or one that is no number, spoil
 * the whole answer, since nobody can tell then where it ends. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "store/http_internal.h"

/* Of the whole head: several times what stores send, and no harm when it comes on each connection at once. */
#define HEAD_BYTES_MAX 65536
/* Of a body that nobody wants: reading so much costs less than a new connection. */
#define DROPPED_MAX 65536
/* Copied to have a NUL behind it; the longest date there is has 33. */
#define DATE_BYTES_MAX 64

enum field {
    FIELD_LENGTH,
    FIELD_RANGE,
    FIELD_DATE,
    FIELD_RETRY_AFTER,
    FIELD_AMZ_RETRY_AFTER,
    FIELD_ETAG,
    FIELD_REGION,
    FIELD_LOCATION,
    FIELD_TYPE,
    FIELD_SERVER,
    FIELD_COUNT
};

static const char *const field_names[FIELD_COUNT] = {
    [FIELD_LENGTH] = "Content-Length",
    [FIELD_RANGE] = "Content-Range",
    [FIELD_DATE] = "Date",
    [FIELD_RETRY_AFTER] = "Retry-After",
    [FIELD_AMZ_RETRY_AFTER] = "x-amz-retry-after",
    [FIELD_ETAG] = "ETag",
    [FIELD_REGION] = "x-amz-bucket-region",
    [FIELD_LOCATION] = "Location",
    [FIELD_TYPE] = "Content-Type",
    [FIELD_SERVER] = "Server",
};

struct range {
    uint64_t first, last, size;
};

static const struct range no_range = { UINT64_MAX, UINT64_MAX, UINT64_MAX };

static bool spoil(struct answer *answer, const char *fault)
{
    answer->state = ANSWER_BAD;
    answer->fault = fault;
    return false;
}

void answer_begin(struct answer *answer, const struct http_request *request)
{
    *answer = (struct answer){ .request = request, .state = ANSWER_BEGINS };
}

void answer_end(struct answer *answer)
{
    buffer_free(&answer->response.body);
}

/* ---- values ---- */

/* Digits and nothing else, into less than UINT64_MAX. */
static bool read_number(const char *text, size_t length, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(text[i] - '0'), &number))
            return false;
    }
    if (length == 0 || number == UINT64_MAX)
        return false;
    *ret_number = number;
    return true;
}

/* "bytes 0-4095/8388608", "bytes 0-4095/" and a star, "bytes " star "/8388608". */
static struct range read_range(const char *text, size_t length)
{
    struct range range = no_range;
    if (length < 6 || strncasecmp(text, "bytes ", 6) != 0)
        return no_range;
    text += 6;
    length -= 6;
    const char *slash = memchr(text, '/', length);
    if (slash == NULL)
        return no_range;
    size_t before = (size_t)(slash - text), behind = length - before - 1;
    bool any_size = behind == 1 && slash[1] == '*';
    if (!any_size && !read_number(slash + 1, behind, &range.size))
        return no_range;
    if (before == 1 && text[0] == '*')
        return range;
    const char *dash = memchr(text, '-', before);
    if (dash == NULL)
        return no_range;
    size_t digits = (size_t)(dash - text);
    if (!read_number(text, digits, &range.first) || !read_number(dash + 1, before - digits - 1, &range.last))
        return no_range;
    if (range.first > range.last || (!any_size && range.last >= range.size))
        return no_range;
    return range;
}

/* Seconds since 1970; 0: it is none. */
static uint64_t read_date(const char *text, size_t length)
{
    char copy[DATE_BYTES_MAX];
    if (length >= sizeof copy)
        return 0;
    memcpy(copy, text, length);
    copy[length] = '\0';
    time_t seconds = curl_getdate(copy, NULL);
    return seconds > 0 ? (uint64_t)seconds : 0;
}

/* What is longer than its field, or has other bytes than visible ones and blanks, counts as empty. */
static size_t readable(const char *text, size_t length, size_t capacity)
{
    if (length >= capacity)
        return 0;
    for (size_t i = 0; i < length; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return 0;
    return length;
}

/* ---- headers ---- */

/* True: keep the value, it is the first.  Another one that is not the same contradicts it. */
static bool is_first(struct answer *answer, enum field field, bool same)
{
    uint32_t bit = UINT32_C(1) << field;
    bool first = (answer->seen & bit) == 0;
    answer->seen |= bit;
    if (!first && !same)
        answer->contradicted |= bit;
    return first;
}

static void take_number(struct answer *answer, enum field field, uint64_t *place, uint64_t number)
{
    if (is_first(answer, field, *place == number))
        *place = number;
}

static void take_text(struct answer *answer, enum field field, char *place, size_t capacity, const char *text,
                      size_t length)
{
    length = readable(text, length, capacity);
    bool same = strlen(place) == length && memcmp(place, text, length) == 0;
    if (is_first(answer, field, same)) {
        memcpy(place, text, length);
        place[length] = '\0';
    }
}

static void take_range(struct answer *answer, struct range range)
{
    struct http_response *response = &answer->response;
    bool same = response->range_first == range.first && response->range_last == range.last &&
                response->range_size == range.size;
    if (is_first(answer, FIELD_RANGE, same)) {
        response->range_first = range.first;
        response->range_last = range.last;
        response->range_size = range.size;
    }
}

static uint64_t number_or_none(const char *text, size_t length, uint64_t most)
{
    uint64_t number;
    return read_number(text, length, &number) && number <= most ? number : UINT64_MAX;
}

static bool take_field(struct answer *answer, enum field field, const char *text, size_t length)
{
    struct http_response *response = &answer->response;
    uint64_t number;
    switch (field) {
    case FIELD_LENGTH:
        if (!read_number(text, length, &number))
            return spoil(answer, "its Content-Length is no number");
        take_number(answer, field, &response->length, number);
        break;
    case FIELD_RANGE:
        take_range(answer, read_range(text, length));
        break;
    case FIELD_DATE:
        take_number(answer, field, &response->date_s, read_date(text, length));
        break;
    case FIELD_RETRY_AFTER:
        number = number_or_none(text, length, UINT64_MAX / 1000 - 1);
        take_number(answer, field, &answer->retry_after_ms, number == UINT64_MAX ? UINT64_MAX : number * 1000);
        break;
    case FIELD_AMZ_RETRY_AFTER:
        take_number(answer, field, &answer->amz_retry_after_ms, number_or_none(text, length, UINT64_MAX));
        break;
    case FIELD_ETAG:
        take_text(answer, field, response->etag, sizeof response->etag, text, length);
        break;
    case FIELD_REGION:
        take_text(answer, field, response->region, sizeof response->region, text, length);
        break;
    case FIELD_LOCATION:
        take_text(answer, field, response->location, sizeof response->location, text, length);
        break;
    case FIELD_TYPE:
        take_text(answer, field, response->content_type, sizeof response->content_type, text, length);
        break;
    case FIELD_SERVER:
        take_text(answer, field, response->server, sizeof response->server, text, length);
        break;
    case FIELD_COUNT:
        assert(!"no field");
    }
    return true;
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static bool header_line(struct answer *answer, const char *line, size_t length)
{
    const char *colon = memchr(line, ':', length);
    if (colon == NULL)
        return true;
    size_t name = (size_t)(colon - line);
    const char *text = colon + 1;
    length -= name + 1;
    for (; length > 0 && is_blank(*text); length--)
        text++;
    while (length > 0 && is_blank(text[length - 1]))
        length--;
    for (int field = 0; field < FIELD_COUNT; field++)
        if (strlen(field_names[field]) == name && strncasecmp(field_names[field], line, name) == 0)
            return take_field(answer, field, text, length);
    return true;
}

/* "HTTP/1.1 200 OK": begins an answer, perhaps after informational ones. */
static bool status_line(struct answer *answer, const char *line, size_t length)
{
    const char *space = memchr(line, ' ', length);
    size_t left = space == NULL ? 0 : length - (size_t)(space - line) - 1;
    uint64_t status;
    if (left < 3 || (left > 3 && !is_blank(space[4])) || !read_number(space + 1, 3, &status))
        return spoil(answer, "its first line has no status");
    if (status < 100 || status > 599)
        return spoil(answer, "its status is not one of HTTP");
    answer->response = (struct http_response){ .status = (int)status,
                                               .length = UINT64_MAX,
                                               .range_first = UINT64_MAX,
                                               .range_last = UINT64_MAX,
                                               .range_size = UINT64_MAX,
                                               .retry_after_ms = UINT64_MAX };
    answer->seen = answer->contradicted = 0;
    answer->retry_after_ms = answer->amz_retry_after_ms = UINT64_MAX;
    answer->state = ANSWER_HEADERS;
    return true;
}

static void forget(struct answer *answer, enum field field)
{
    struct http_response *response = &answer->response;
    switch (field) {
    case FIELD_RANGE:
        response->range_first = response->range_last = response->range_size = UINT64_MAX;
        break;
    case FIELD_DATE:
        response->date_s = 0;
        break;
    case FIELD_RETRY_AFTER:
        answer->retry_after_ms = UINT64_MAX;
        break;
    case FIELD_AMZ_RETRY_AFTER:
        answer->amz_retry_after_ms = UINT64_MAX;
        break;
    case FIELD_ETAG:
        response->etag[0] = '\0';
        break;
    case FIELD_REGION:
        response->region[0] = '\0';
        break;
    case FIELD_LOCATION:
        response->location[0] = '\0';
        break;
    case FIELD_TYPE:
        response->content_type[0] = '\0';
        break;
    case FIELD_SERVER:
        response->server[0] = '\0';
        break;
    case FIELD_LENGTH:
    case FIELD_COUNT:
        assert(!"not one to forget");
    }
}

static bool head_ended(struct answer *answer)
{
    struct http_response *response = &answer->response;
    if (response->status < 200)
        return true; /* another status line follows */
    if ((answer->contradicted & UINT32_C(1) << FIELD_LENGTH) != 0)
        return spoil(answer, "it has two lengths");
    for (int field = 0; field < FIELD_COUNT; field++)
        if ((answer->contradicted & UINT32_C(1) << field) != 0)
            forget(answer, field);
    response->retry_after_ms =
        answer->amz_retry_after_ms != UINT64_MAX ? answer->amz_retry_after_ms : answer->retry_after_ms;
    const struct http_request *request = answer->request;
    if (request->pieces != NULL)
        answer->placing = (response->status == 206 && response->range_first == request->offset) ||
                          (response->status == 200 && request->offset == 0);
    if (answer->placing)
        answer->destination = (struct http_cursor){ .pieces = request->pieces, .count = request->count };
    answer->state = ANSWER_BODY;
    return true;
}

bool answer_line(struct answer *answer, const char *line, size_t length)
{
    answer->header_bytes += length;
    if (answer->header_bytes > HEAD_BYTES_MAX)
        return spoil(answer, "its head is longer than 64 KiB");
    if (answer->state == ANSWER_BODY)
        return true;
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        length--;
    if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
        return status_line(answer, line, length);
    if (answer->state != ANSWER_HEADERS)
        return spoil(answer, "it does not begin as HTTP does");
    return length == 0 ? head_ended(answer) : header_line(answer, line, length);
}

/* ---- the body ---- */

static bool drop(struct answer *answer, size_t length)
{
    answer->dropped += length;
    if (answer->dropped > DROPPED_MAX)
        answer->state = ANSWER_ENOUGH;
    return answer->state == ANSWER_BODY;
}

static bool place(struct answer *answer, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        size_t part;
        void *to = http_cursor_next(&answer->destination, length, &part);
        if (part == 0)
            break;
        memcpy(to, bytes, part);
        answer->response.placed += part;
        bytes += part;
        length -= part;
    }
    if (length == 0)
        return true;
    if (answer->response.status == 206)
        return spoil(answer, "it holds more bytes than were asked for");
    answer->response.truncated = true;
    return drop(answer, length);
}

bool answer_bytes(struct answer *answer, const void *bytes, size_t length)
{
    if (answer->state == ANSWER_BEGINS || answer->state == ANSWER_HEADERS) {
        const uint8_t *first = bytes;
        answer->tls_alert = length >= 2 && first[0] == 0x15 && first[1] == 0x03;
        return spoil(answer, "it does not begin as HTTP does");
    }
    if (answer->placing)
        return place(answer, bytes, length);
    struct http_response *response = &answer->response;
    size_t room = answer->request->body_max - response->body.length;
    size_t kept = length < room ? length : room;
    buffer_put(&response->body, bytes, kept);
    if (kept == length)
        return true;
    response->truncated = true;
    return drop(answer, length - kept);
}
