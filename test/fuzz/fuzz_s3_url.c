/* Settings that people type, and keys as URLs: store/s3_url.c, and the encoding of store/sigv4.c.
 *
 * The input's first byte chooses the addressing; the rest is endpoint, region, bucket, prefix and a key, a NUL between
 * each.  An endpoint "-" is none. */
#include <errno.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "fuzz.h"
#include "store/s3_url.h"
#include "store/store.h"

enum { ENDPOINT, REGION, BUCKET, PREFIX, KEY, FIELDS };

static void check_refusal(int result, const struct error *error)
{
    PROMISE(result == -EINVAL && error->code == EINVAL && error->story[0] != '\0');
    PROMISE(text_is_utf8(error->story, strlen(error->story)));
}

/* What a URL and the header Host may hold, and nothing that could end either. */
static void check_authority(const struct s3_place *place)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.:[]";
    size_t length = strlen(place->authority);
    PROMISE(length > 0 && strspn(place->authority, allowed) == length);
    PROMISE(strcmp(place->scheme, "http") == 0 || strcmp(place->scheme, "https") == 0);
    if (place->virtual)
        PROMISE(strncmp(place->authority, place->bucket, strlen(place->bucket)) == 0);
}

static char *decode(const char *path)
{
    char *text = memory_string(path), *to = text;
    for (const char *at = path; *at != '\0'; to++) {
        char digits[3] = { at[0], 0, 0 };
        uint8_t byte = (uint8_t)*at;
        if (*at == '%') {
            memcpy(digits, at + 1, 2);
            PROMISE(text_unhex(digits, &byte, 1));
            at += 2;
        }
        *to = (char)byte;
        at++;
    }
    *to = '\0';
    return text;
}

/* Decoded, the path is bucket, prefix and key, byte for byte. */
static void check_path(const struct s3_place *place, const char *key)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%";
    struct buffer path = BUFFER_EMPTY, expected = BUFFER_EMPTY;
    s3_place_path(place, key, &path);
    PROMISE(strlen((char *)path.data) == path.length && strspn((char *)path.data, allowed) == path.length);
    buffer_printf(&expected, "/%s%s%s%s", place->virtual ? "" : place->bucket, place->virtual ? "" : "/", place->prefix,
                  key);
    char *decoded = decode((char *)path.data);
    PROMISE(strcmp(decoded, (char *)expected.data) == 0);
    free(decoded);
    buffer_free(&path);
    buffer_free(&expected);
}

static void try_place(char *const fields[FIELDS], enum s3_addressing addressing)
{
    struct s3_place place;
    struct error error = ERROR_NONE;
    const char *endpoint = strcmp(fields[ENDPOINT], "-") == 0 ? NULL : fields[ENDPOINT];
    int result = s3_place_new(endpoint, fields[REGION], fields[BUCKET], fields[PREFIX], addressing, &place, &error);
    if (result != 0) {
        check_refusal(result, &error);
        return;
    }
    check_authority(&place);
    PROMISE(strlen(place.prefix) <= S3_PREFIX_MAX);
    struct buffer longest = BUFFER_EMPTY;
    buffer_printf(&longest, "%sk", place.prefix);
    PROMISE(store_key_allowed((char *)longest.data, false));
    buffer_free(&longest);
    check_path(&place, fields[KEY]);
    /* Its own scheme and authority are an endpoint that names the same place. */
    if (!place.virtual) {
        struct buffer again = BUFFER_EMPTY;
        struct s3_place same;
        buffer_printf(&again, "%s://%s/", place.scheme, place.authority);
        PROMISE(s3_place_new((char *)again.data, fields[REGION], place.bucket, place.prefix, S3_ADDRESSING_PATH, &same,
                             NULL) == 0);
        PROMISE(strcmp(same.authority, place.authority) == 0 && strcmp(same.prefix, place.prefix) == 0);
        PROMISE(same.loopback == place.loopback && same.aws == place.aws);
        s3_place_free(&same);
        buffer_free(&again);
    }
    s3_place_free(&place);
}

static void try_url(const char *url)
{
    struct error error = ERROR_NONE;
    char *bucket, *prefix;
    int result = s3_url_parse(url, &bucket, &prefix, &error);
    if (result != 0) {
        check_refusal(result, &error);
        return;
    }
    struct s3_place place;
    PROMISE(s3_place_new(NULL, "us-east-1", bucket, prefix, S3_ADDRESSING_AUTO, &place, NULL) == 0);
    s3_place_free(&place);
    free(bucket);
    free(prefix);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = memory_new(size);
    memcpy(text, data + 1, size - 1);
    char *fields[FIELDS], *at = text, *end = text + size - 1; /* where the last NUL stands */
    for (int i = 0; i < FIELDS; i++) {
        fields[i] = at;
        at += strlen(at);
        if (at < end)
            at++;
    }
    try_place(fields, (enum s3_addressing)(data[0] % (S3_ADDRESSING_VIRTUAL + 1)));
    try_url(text);
    free(text);
    return 0;
}
