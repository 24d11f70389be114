/* Keys, UUIDs and the marker: vol/format/key.c, vol/format/marker.c.  The input is a key, a name, and a marker. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

/* There is one key per object: what is parsed is made again to the same text. */
static void try_key(const char *key)
{
    char name[VOLUME_NAME_MAX], again[KEY_MAX];
    size_t length;
    struct uuid uuid;
    uint64_t a, b;
    if (key_parse_register(key, name, &length)) {
        key_register(name, length, again);
        PROMISE(strcmp(again, key) == 0);
    }
    if (key_parse_log(key, &uuid, &a)) {
        key_log(&uuid, a, again);
        PROMISE(strcmp(again, key) == 0);
    }
    if (key_parse_data(key, &uuid, &a, &b)) {
        key_data(&uuid, a, b, again);
        PROMISE(strcmp(again, key) == 0);
    }
    if (uuid_parse(key, &uuid)) {
        uuid_format(&uuid, again);
        PROMISE(strcmp(again, key) == 0);
    }
}

static void try_name(const char *name, size_t length)
{
    char key[KEY_MAX], parsed[VOLUME_NAME_MAX];
    size_t parsed_length;
    key_register(name, length, key);
    PROMISE(strlen(key) < KEY_MAX && strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_-%./") == strlen(key));
    PROMISE(strstr(key, "..") == NULL);
    if (key_parse_register(key, parsed, &parsed_length))
        PROMISE(parsed_length == length && memcmp(parsed, name, length) == 0);
    else
        PROMISE(strncmp(key, "volumes/h.", 10) == 0 || memchr(name, '\0', length) != NULL);
}

static void try_marker(const uint8_t *bytes, size_t length)
{
    struct uuid uuid;
    struct error error = ERROR_NONE;
    if (marker_decode(bytes, length, &uuid, &error) < 0)
        PROMISE(error.code != 0 && error.story[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = memory_new(size + 1);
    if (size > 0)
        memcpy(text, data, size);
    try_key(text);
    try_name(text, size < VOLUME_NAME_MAX ? size : VOLUME_NAME_MAX);
    try_marker(data, size);
    /* The last line is put right by the story that says how it should be. */
    struct uuid uuid;
    struct error error = ERROR_NONE;
    static const char told[] = "its last line should be '";
    marker_decode(data, size, &uuid, &error);
    const char *line = strstr(error.story, told);
    if (line != NULL) {
        struct buffer sealed = BUFFER_EMPTY;
        const size_t line_bytes = sizeof("check: ") - 1 + 2 * XXH128_BYTES;
        buffer_put(&sealed, data, size - line_bytes - 1);
        buffer_put(&sealed, line + sizeof(told) - 1, line_bytes);
        buffer_put_u8(&sealed, '\n');
        try_marker(sealed.data, sealed.length);
        buffer_free(&sealed);
    }
    free(text);
    return 0;
}
