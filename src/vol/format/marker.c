/* The marker: the object `cairn`, by which a store is known as ours.
 *
 * It is text, because the person who finds it in a bucket should be able to
 * read what it is.  Its last line is a checksum of all lines before it; lines
 * that a later version adds between `store` and `check` are ignored. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "vol/format/codec.h"

#define MARKER_BYTES_MAX 4096u /* room for a few lines more, and a bound for a reader */
#define MARKER_NOTE "note: the objects beside this one are virtual disks of cairn; change none of them by hand\n"
#define CHECK_LINE_BYTES (sizeof("check: \n") - 1 + 2 * XXH128_BYTES)

static void check_line(const void *bytes, size_t length, char ret_line[CHECK_LINE_BYTES + 1])
{
    struct iovec piece = piece_of(bytes, length);
    uint8_t hash[XXH128_BYTES];
    char hex[2 * XXH128_BYTES + 1];
    hash_xxh128(&piece, 1, hash);
    text_hex(hash, sizeof(hash), hex);
    snprintf(ret_line, CHECK_LINE_BYTES + 1, "check: %s\n", hex);
}

void marker_encode(const struct uuid *store_uuid, struct buffer *ret_bytes)
{
    struct buffer text = BUFFER_EMPTY;
    char uuid[UUID_TEXT], line[CHECK_LINE_BYTES + 1];
    uuid_format(store_uuid, uuid);
    buffer_printf(&text, MARKER_MAGIC "format: %d\nfeatures: %016x\nstore: %s\n" MARKER_NOTE, FORMAT_VERSION, 0, uuid);
    check_line(text.data, text.length, line);
    buffer_put(&text, line, CHECK_LINE_BYTES);
    buffer_put(ret_bytes, text.data, text.length);
    buffer_free(&text);
}

/* The value of the line at *at, which must be of that name; steps over it. At most `capacity` - 1 bytes. */
static bool take_line(const char **at, const char *end, const char *name, char *ret_value, size_t capacity)
{
    const char *line = *at;
    const char *newline = memchr(line, '\n', (size_t)(end - line));
    size_t prefix = strlen(name);
    if (newline == NULL || (size_t)(newline - line) < prefix || memcmp(line, name, prefix) != 0)
        return false;
    size_t length = (size_t)(newline - line) - prefix;
    if (length >= capacity || memchr(line, '\0', (size_t)(newline - line)) != NULL)
        return false;
    memcpy(ret_value, line + prefix, length);
    ret_value[length] = '\0';
    *at = newline + 1;
    return true;
}

static bool parse_version(const char *text, uint64_t *ret_version)
{
    size_t length = strlen(text);
    if (length == 0 || length > 9 || strspn(text, "0123456789") != length || text[0] == '0')
        return false;
    *ret_version = strtoull(text, NULL, 10);
    return true;
}

int marker_decode(const void *bytes, size_t length, struct uuid *ret_store_uuid, struct error *error)
{
    int result = check_magic("marker", bytes, length, MARKER_MAGIC, error);
    if (result < 0)
        return result;
    if (length > MARKER_BYTES_MAX)
        return error_set(error, EBADMSG, "marker: damaged: %zu bytes, more than the %u it may have", length,
                         MARKER_BYTES_MAX);

    const char *at = (const char *)bytes + sizeof(MARKER_MAGIC) - 1, *end = (const char *)bytes + length;
    char value[64], line[CHECK_LINE_BYTES + 1];
    uint64_t version;
    if (!take_line(&at, end, "format: ", value, sizeof(value)) || !parse_version(value, &version))
        return error_set(error, EBADMSG, "marker: damaged: its second line does not tell the format's version");
    result = check_version("marker", version, error);
    if (result < 0)
        return result;

    if (length < CHECK_LINE_BYTES)
        return error_set(error, EBADMSG, "marker: truncated: no checksum at its end");
    check_line(bytes, length - CHECK_LINE_BYTES, line);
    if (memcmp(end - CHECK_LINE_BYTES, line, CHECK_LINE_BYTES) != 0)
        return error_set(error, EBADMSG, "marker: damaged: its last line should be '%.*s'", (int)CHECK_LINE_BYTES - 1,
                         line);

    uint8_t features[8];
    struct uuid uuid;
    if (!take_line(&at, end, "features: ", value, sizeof(value)) || strlen(value) != 16 ||
        !text_unhex(value, features, sizeof(features)))
        return error_set(error, EBADMSG, "marker: damaged: its third line does not tell the features");
    uint64_t bits = 0;
    for (size_t i = 0; i < sizeof(features); i++)
        bits = bits << 8 | features[i];
    result = check_features("marker", bits, error);
    if (result < 0)
        return result;
    if (!take_line(&at, end, "store: ", value, sizeof(value)) || !uuid_parse(value, &uuid))
        return error_set(error, EBADMSG, "marker: damaged: its fourth line does not tell the store's UUID");
    *ret_store_uuid = uuid;
    return 0;
}
