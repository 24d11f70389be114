/* See s3_proxy_head.h.
 *
 * Chunked bodies go through as they are; their sizes are read only to see where
 * the body ends.  A small state machine does that, since a chunk's size line
 * may come in pieces:
 *
 *     SIZE ─> SIZE_REST ─> DATA ─> DATA_END ─> SIZE …
 *                └─ size 0 ─> TRAILER ⇄ TRAILER_LINE ─> done */
#include "s3_proxy_head.h"

#include <string.h>
#include <strings.h>

bool slice_is(struct slice slice, const char *text)
{
    return slice.bytes != NULL && slice.length == strlen(text) && strncasecmp(slice.bytes, text, slice.length) == 0;
}

struct slice slice_parameter(struct slice query, const char *name)
{
    size_t length = strlen(name);
    const char *at = query.bytes, *end = query.bytes + query.length;
    while (at < end) {
        const char *next = memchr(at, '&', (size_t)(end - at));
        const char *stop = next != NULL ? next : end;
        if ((size_t)(stop - at) >= length && memcmp(at, name, length) == 0) {
            if (at + length == stop)
                return (struct slice){ stop, 0 };
            if (at[length] == '=')
                return (struct slice){ at + length + 1, (size_t)(stop - at) - length - 1 };
        }
        at = next != NULL ? next + 1 : end;
    }
    return (struct slice){ NULL, 0 };
}

static bool slice_holds(struct slice slice, const char *word)
{
    size_t length = strlen(word);
    for (size_t i = 0; i + length <= slice.length; i++)
        if (strncasecmp(slice.bytes + i, word, length) == 0)
            return true;
    return false;
}

static bool read_number(struct slice slice, uint64_t *ret_number)
{
    if (slice.length == 0 || slice.length > 18)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < slice.length; i++) {
        if (slice.bytes[i] < '0' || slice.bytes[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(slice.bytes[i] - '0');
    }
    *ret_number = number;
    return true;
}

size_t head_length(const char *bytes, size_t length)
{
    const char *end = length == 0 ? NULL : memmem(bytes, length, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - bytes) + 4;
}

static bool read_field(struct slice name, struct slice value, struct head *head)
{
    if (slice_is(name, "content-length")) {
        if (head->framing == FRAMING_CHUNKED)
            return true;
        head->framing = FRAMING_LENGTH;
        return read_number(value, &head->length);
    }
    if (slice_is(name, "transfer-encoding")) {
        head->framing = FRAMING_CHUNKED;
        return slice_holds(value, "chunked");
    }
    if (slice_is(name, "connection"))
        head->close = slice_holds(value, "close") || (head->close && !slice_holds(value, "keep-alive"));
    else if (slice_is(name, "expect"))
        head->expects_continue = slice_is(value, "100-continue");
    else if (slice_is(name, "range"))
        head->range = value;
    else if (slice_is(name, "if-match"))
        head->if_match = value;
    else if (slice_is(name, "if-none-match"))
        head->if_none_match = value;
    else if (slice_is(name, "x-amz-checksum-crc32"))
        head->crc32 = value;
    return true;
}

/* All lines after the first. */
static bool read_fields(const char *at, const char *end, struct head *head)
{
    while (at < end && *at != '\r') {
        const char *stop = memchr(at, '\r', (size_t)(end - at));
        const char *colon = memchr(at, ':', (size_t)(stop - at));
        if (colon == NULL)
            return false;
        struct slice name = { at, (size_t)(colon - at) };
        const char *value = colon + 1;
        while (value < stop && (*value == ' ' || *value == '\t'))
            value++;
        const char *past = stop;
        while (past > value && (past[-1] == ' ' || past[-1] == '\t'))
            past--;
        if (!read_field(name, (struct slice){ value, (size_t)(past - value) }, head))
            return false;
        at = stop + 2;
    }
    return true;
}

bool head_parse_request(const char *bytes, size_t length, struct head *ret_head)
{
    struct head head = { 0 };
    const char *stop = memchr(bytes, '\r', length);
    const char *method = memchr(bytes, ' ', (size_t)(stop - bytes));
    if (method == NULL)
        return false;
    const char *target = method + 1;
    const char *past = memchr(target, ' ', (size_t)(stop - target));
    if (past == NULL || stop - past != 9 || memcmp(past, " HTTP/1.", 8) != 0)
        return false;
    head.method = (struct slice){ bytes, (size_t)(method - bytes) };
    const char *mark = memchr(target, '?', (size_t)(past - target));
    head.path = (struct slice){ target, (size_t)((mark != NULL ? mark : past) - target) };
    head.query = mark != NULL ? (struct slice){ mark + 1, (size_t)(past - mark) - 1 } : (struct slice){ past, 0 };
    head.close = past[8] == '0';
    if (!read_fields(stop + 2, bytes + length, &head))
        return false;
    *ret_head = head;
    return true;
}

bool head_parse_answer(const char *bytes, size_t length, bool of_head, struct head *ret_head)
{
    struct head head = { .framing = FRAMING_UNTIL_CLOSE };
    uint64_t status;
    if (length < 16 || memcmp(bytes, "HTTP/1.", 7) != 0 || !read_number((struct slice){ bytes + 9, 3 }, &status))
        return false;
    head.status = (int)status;
    head.close = bytes[7] == '0';
    const char *stop = memchr(bytes, '\r', length);
    if (!read_fields(stop + 2, bytes + length, &head))
        return false;
    if (of_head || status < 200 || status == 204 || status == 304)
        head.framing = FRAMING_NONE;
    head.close = head.close || head.framing == FRAMING_UNTIL_CLOSE;
    *ret_head = head;
    return true;
}

/* ---- bodies ---- */

enum chunk_state { SIZE, SIZE_REST, DATA, DATA_END, TRAILER, TRAILER_LINE };

void body_begin(struct body *body, const struct head *head)
{
    *body = (struct body){ .framing = head->framing,
                           .left = head->framing == FRAMING_LENGTH ? head->length : 0,
                           .done = head->framing == FRAMING_NONE ||
                                   (head->framing == FRAMING_LENGTH && head->length == 0) };
}

size_t body_wants(const struct body *body)
{
    return body->framing == FRAMING_LENGTH ? (size_t)body->left : SIZE_MAX;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte outside of a chunk's data; false: it makes no sense. */
static bool chunk_step(struct body *body, char c)
{
    switch ((enum chunk_state)body->state) {
    case SIZE:
        if (hex_digit(c) >= 0) {
            body->left = body->left << 4 | (uint64_t)hex_digit(c);
            return body->left < UINT64_C(1) << 50;
        }
        body->state = SIZE_REST;
        return chunk_step(body, c);
    case SIZE_REST: /* an extension, the end of the line */
        if (c == '\n')
            body->state = body->left == 0 ? TRAILER : DATA;
        return true;
    case DATA_END:
        if (c == '\n')
            body->state = SIZE;
        return c == '\n' || c == '\r';
    case TRAILER: /* at the beginning of a line */
        if (c == '\n')
            body->done = true;
        else if (c != '\r')
            body->state = TRAILER_LINE;
        return true;
    case TRAILER_LINE:
        if (c == '\n')
            body->state = TRAILER;
        return true;
    case DATA:
        break;
    }
    return false;
}

static bool chunks_take(struct body *body, const char *bytes, size_t length, size_t *ret_taken)
{
    size_t at = 0;
    while (at < length && !body->done) {
        if (body->state == DATA) {
            size_t part = length - at < body->left ? length - at : (size_t)body->left;
            at += part;
            body->left -= part;
            if (body->left == 0)
                body->state = DATA_END;
        } else if (!chunk_step(body, bytes[at++])) {
            return false;
        }
    }
    *ret_taken = at;
    return true;
}

bool body_take(struct body *body, const char *bytes, size_t length, size_t *ret_taken)
{
    size_t taken = body->done ? 0 : length;
    if (body->framing == FRAMING_CHUNKED) {
        if (!chunks_take(body, bytes, length, &taken))
            return false;
    } else if (body->framing == FRAMING_LENGTH) {
        taken = length < body->left ? length : (size_t)body->left;
        body->left -= taken;
        body->done = body->left == 0;
    }
    body->moved += taken;
    *ret_taken = taken;
    return true;
}
