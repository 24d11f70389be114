/* Errors that carry a story: see base/error.h.
 *
 * Every story is formatted beside the old one and copied over at the end, so
 * that a caller may quote the story that it replaces.  A story that does not
 * fit loses its tail, and is cut between characters, never inside one: stories
 * reach terminals and JSON, which want well-formed UTF-8. */
#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Takes away an incomplete UTF-8 sequence at the end of a text that was cut. */
static size_t whole_characters(const char *text, size_t length)
{
    size_t start = length;
    while (start > 0 && length - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return length;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return wanted > length - (start - 1) ? start - 1 : length;
}

static size_t append(char story[ERROR_STORY_MAX], size_t length, const char *text)
{
    size_t more = strlen(text), room = ERROR_STORY_MAX - 1 - length;
    if (more > room)
        more = whole_characters(text, room);
    memcpy(story + length, text, more);
    story[length + more] = '\0';
    return length + more;
}

__attribute__((format(printf, 2, 0))) static size_t format_story(char story[ERROR_STORY_MAX], const char *format,
                                                                 va_list arguments)
{
    int length = vsnprintf(story, ERROR_STORY_MAX, format, arguments);
    assert(length >= 0);
    if (length < ERROR_STORY_MAX)
        return (size_t)length;
    size_t kept = whole_characters(story, ERROR_STORY_MAX - 1);
    story[kept] = '\0';
    return kept;
}

static int store_story(struct error *error, int code, const char story[ERROR_STORY_MAX], size_t length)
{
    error->code = code;
    memcpy(error->story, story, length + 1);
    return -code;
}

int error_set(struct error *error, int code, const char *format, ...)
{
    assert(code > 0);
    if (error == NULL)
        return -code;
    char story[ERROR_STORY_MAX];
    va_list arguments;
    va_start(arguments, format);
    size_t length = format_story(story, format, arguments);
    va_end(arguments);
    return store_story(error, code, story, length);
}

int error_set_errno(struct error *error, int code, const char *format, ...)
{
    assert(code > 0);
    if (error == NULL)
        return -code;
    char story[ERROR_STORY_MAX];
    va_list arguments;
    va_start(arguments, format);
    size_t length = format_story(story, format, arguments);
    va_end(arguments);

    char number[32];
    const char *reason = strerrordesc_np(code);
    if (reason == NULL) {
        snprintf(number, sizeof number, "error %d", code);
        reason = number;
    }
    length = append(story, length, ": ");
    length = append(story, length, reason);
    return store_story(error, code, story, length);
}

int error_context(struct error *error, const char *format, ...)
{
    if (error == NULL)
        return -EIO;
    char story[ERROR_STORY_MAX];
    va_list arguments;
    va_start(arguments, format);
    size_t length = format_story(story, format, arguments);
    va_end(arguments);
    length = append(story, length, ": ");
    length = append(story, length, error->story);
    return store_story(error, error->code, story, length);
}

int error_copy(struct error *to, const struct error *from)
{
    if (from == NULL)
        return -EIO;
    if (to != NULL && to != from)
        *to = *from;
    return -from->code;
}
