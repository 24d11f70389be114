/* Keys: where each object lies under the prefix.
 *
 *     cairn                                        the marker
 *     volumes/n.<name>   volumes/h.<64 hex>        registers
 *     v/<uuid>/log/<20 digits>                     commits and fences
 *     v/<uuid>/data/<20 digits>/<20 digits>        data objects: epoch, n
 *
 * A volume's name may hold any byte, a key only a-z, 0-9, '_', '-' and '%', so
 * that names which differ by case stay apart on any store, and no name can
 * climb out of its directory.  Numbers are padded, so that keys sort as numbers
 * do.  Parsers take exactly what the makers make: there is one key per object,
 * and a key that merely looks similar is somebody else's. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "vol/format/codec.h"

#define KEY_NUMBER_DIGITS 20
#define KEY_PLAIN_PREFIX KEY_REGISTERS "n."
#define KEY_HASHED_PREFIX KEY_REGISTERS "h."

static_assert(sizeof(KEY_PLAIN_PREFIX) + KEY_NAME_MAX <= KEY_MAX, "a plain register key fits");

/* ---- UUIDs and nonces ---- */

void uuid_format(const struct uuid *uuid, char ret_text[UUID_TEXT])
{
    char hex[2 * sizeof(uuid->bytes) + 1];
    text_hex(uuid->bytes, sizeof(uuid->bytes), hex);
    snprintf(ret_text, UUID_TEXT, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* Reads exactly UUID_TEXT - 1 bytes; lower case only. */
static bool uuid_scan(const char *text, size_t length, struct uuid *ret_uuid)
{
    if (length < UUID_TEXT - 1)
        return false;
    char hex[2 * sizeof(ret_uuid->bytes) + 1];
    size_t digits = 0;
    for (size_t i = 0; i < UUID_TEXT - 1; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        char c = text[i];
        if (dash != (c == '-') || (c >= 'A' && c <= 'F'))
            return false;
        if (!dash)
            hex[digits++] = c;
    }
    hex[digits] = '\0';
    struct uuid uuid;
    if (!text_unhex(hex, uuid.bytes, sizeof(uuid.bytes)))
        return false;
    *ret_uuid = uuid;
    return true;
}

bool uuid_parse(const char *text, struct uuid *ret_uuid)
{
    size_t length = strlen(text);
    return length == UUID_TEXT - 1 && uuid_scan(text, length, ret_uuid);
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool nonce_equal(const struct nonce *a, const struct nonce *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* ---- registers ---- */

static bool is_plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static size_t encoded_length(const char *name, size_t length)
{
    size_t encoded = 0;
    for (size_t i = 0; i < length; i++)
        encoded += is_plain((uint8_t)name[i]) ? 1 : 3;
    return encoded;
}

void key_register(const char *name, size_t name_length, char ret_key[KEY_MAX])
{
    assert(name_length <= VOLUME_NAME_MAX);
    if (encoded_length(name, name_length) > KEY_NAME_MAX) {
        struct iovec piece = piece_of(name, name_length);
        uint8_t hash[SHA256_BYTES];
        char hex[2 * SHA256_BYTES + 1];
        hash_sha256(&piece, 1, hash);
        text_hex(hash, sizeof(hash), hex);
        snprintf(ret_key, KEY_MAX, KEY_HASHED_PREFIX "%s", hex);
        return;
    }
    static const char digits[] = "0123456789abcdef";
    memcpy(ret_key, KEY_PLAIN_PREFIX, sizeof(KEY_PLAIN_PREFIX) - 1);
    char *to = ret_key + sizeof(KEY_PLAIN_PREFIX) - 1;
    for (size_t i = 0; i < name_length; i++) {
        uint8_t c = (uint8_t)name[i];
        if (is_plain(c)) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = digits[c >> 4];
            *to++ = digits[c & 15];
        }
    }
    *to = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool key_parse_register(const char *key, char ret_name[VOLUME_NAME_MAX], size_t *ret_length)
{
    size_t prefix = sizeof(KEY_PLAIN_PREFIX) - 1;
    if (strncmp(key, KEY_PLAIN_PREFIX, prefix) != 0)
        return false;
    const char *from = key + prefix;
    if (strlen(from) > KEY_NAME_MAX)
        return false;
    char name[KEY_NAME_MAX];
    size_t length = 0;
    for (; *from != '\0'; from++) {
        uint8_t c = (uint8_t)*from;
        if (!is_plain(c)) {
            int high = c == '%' ? hex_value(from[1]) : -1;
            int low = high >= 0 ? hex_value(from[2]) : -1;
            if (low < 0)
                return false;
            c = (uint8_t)(high << 4 | low);
            if (is_plain(c) || c == 0) /* would have been written as itself; is in no name */
                return false;
            from += 2;
        }
        name[length++] = (char)c;
    }
    memcpy(ret_name, name, length);
    *ret_length = length;
    return true;
}

/* ---- log entries and data objects ---- */

static void volume_prefix(const struct uuid *uuid, char ret_text[UUID_TEXT + 2])
{
    ret_text[0] = 'v';
    ret_text[1] = '/';
    uuid_format(uuid, ret_text + 2);
}

void key_log_prefix(const struct uuid *uuid, char ret_key[KEY_MAX])
{
    char volume[UUID_TEXT + 2];
    volume_prefix(uuid, volume);
    snprintf(ret_key, KEY_MAX, "%s/log/", volume);
}

void key_log(const struct uuid *uuid, uint64_t seq, char ret_key[KEY_MAX])
{
    char volume[UUID_TEXT + 2];
    volume_prefix(uuid, volume);
    snprintf(ret_key, KEY_MAX, "%s/log/%020" PRIu64, volume, seq);
}

void key_data(const struct uuid *uuid, uint64_t epoch, uint64_t n, char ret_key[KEY_MAX])
{
    char volume[UUID_TEXT + 2];
    volume_prefix(uuid, volume);
    snprintf(ret_key, KEY_MAX, "%s/data/%020" PRIu64 "/%020" PRIu64, volume, epoch, n);
}

/* Steps over "v/<uuid>" and `between`. */
static bool skip_volume(const char **key, const char *between, struct uuid *ret_uuid)
{
    const char *at = *key;
    if (strncmp(at, "v/", 2) != 0 || !uuid_scan(at + 2, strlen(at + 2), ret_uuid))
        return false;
    at += 2 + UUID_TEXT - 1;
    if (strncmp(at, between, strlen(between)) != 0)
        return false;
    *key = at + strlen(between);
    return true;
}

static bool skip_number(const char **key, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (int i = 0; i < KEY_NUMBER_DIGITS; i++) {
        char c = (*key)[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(c - '0'), &number))
            return false;
    }
    *key += KEY_NUMBER_DIGITS;
    *ret_number = number;
    return true;
}

bool key_parse_log(const char *key, struct uuid *ret_uuid, uint64_t *ret_seq)
{
    struct uuid uuid;
    uint64_t seq;
    if (!skip_volume(&key, "/log/", &uuid) || !skip_number(&key, &seq) || *key != '\0')
        return false;
    *ret_uuid = uuid;
    *ret_seq = seq;
    return true;
}

bool key_parse_data(const char *key, struct uuid *ret_uuid, uint64_t *ret_epoch, uint64_t *ret_n)
{
    struct uuid uuid;
    uint64_t epoch, n;
    if (!skip_volume(&key, "/data/", &uuid) || !skip_number(&key, &epoch) || *key++ != '/' || !skip_number(&key, &n) ||
        *key != '\0')
        return false;
    *ret_uuid = uuid;
    *ret_epoch = epoch;
    *ret_n = n;
    return true;
}
