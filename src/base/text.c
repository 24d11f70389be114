/* Text that people write and read: see base/text.h. */
#include "base/text.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

static const char units[] = "KMGTPE";

int text_parse_size(const char *text, uint64_t *ret_bytes, struct error *error)
{
    const uint64_t max = INT64_MAX;
    const char *at = text;
    uint64_t value = 0;
    bool too_large = false;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        too_large |= value > (max - digit) / 10;
        if (!too_large)
            value = value * 10 + digit;
    }
    unsigned shift = 0;
    const char *unit = *at != '\0' ? strchr(units, toupper((unsigned char)*at)) : NULL;
    if (at > text && unit != NULL) {
        shift = 10 * (unsigned)(unit - units + 1);
        at++;
        if (strcasecmp(at, "b") == 0 || strcasecmp(at, "ib") == 0)
            at += strlen(at);
    }
    if (at == text || *at != '\0') {
        char quoted[64];
        text_quote(text, strlen(text), quoted, sizeof quoted);
        return error_set(error, EINVAL, "'%s' is not a size: write bytes, or a number with K, M, G or T such as 512MB",
                         quoted);
    }
    if (too_large || value > max >> shift)
        return error_set(error, ERANGE, "the size '%.32s' is beyond 2^63-1 bytes", text);
    *ret_bytes = value << shift;
    return 0;
}

void text_format_size(uint64_t bytes, char ret_text[TEXT_SIZE_MAX])
{
    if (bytes < 1024) {
        snprintf(ret_text, TEXT_SIZE_MAX, "%u B", (unsigned)bytes);
        return;
    }
    unsigned unit = 0;
    while (unit + 1 < sizeof units - 1 && bytes >> (10 * (unit + 2)) != 0)
        unit++;
    /* Tenths, rounded; what rounds to 1024 of a unit is one of the next. */
    unsigned shift = 10 * (unit + 1);
    uint64_t whole = bytes >> shift, rest = bytes & ((UINT64_C(1) << shift) - 1);
    uint64_t tenths = whole * 10 + (((rest >> (shift - 10)) * 10 + 512) >> 10);
    if (tenths >= 10240 && unit + 1 < sizeof units - 1) {
        unit++;
        tenths = 10;
    }
    if (tenths % 10 == 0)
        snprintf(ret_text, TEXT_SIZE_MAX, "%u %ciB", (unsigned)(tenths / 10), units[unit]);
    else
        snprintf(ret_text, TEXT_SIZE_MAX, "%u.%u %ciB", (unsigned)(tenths / 10), (unsigned)(tenths % 10), units[unit]);
}

/* How long the well-formed sequence at `bytes` is (1 to 4), and its code point; 0 when there is none. */
static size_t utf8_sequence(const unsigned char *bytes, size_t left, uint32_t *ret_code)
{
    unsigned char lead = bytes[0];
    if (lead < 0x80) {
        *ret_code = lead;
        return 1;
    }
    size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || length > left)
        return 0;
    uint32_t code = lead & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (bytes[i] & 0x3fu);
    }
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *ret_code = code;
    return length;
}

bool text_is_utf8(const char *bytes, size_t length)
{
    const unsigned char *at = (const unsigned char *)bytes;
    while (length > 0) {
        uint32_t code;
        size_t step = utf8_sequence(at, length, &code);
        if (step == 0 || code == 0)
            return false;
        at += step;
        length -= step;
    }
    return true;
}

void text_quote(const char *bytes, size_t length, char *ret_text, size_t capacity)
{
    static const char ellipsis[] = "…";
    assert(capacity > sizeof ellipsis);
    const unsigned char *at = (const unsigned char *)bytes;
    size_t used = 0;
    size_t cut = 0; /* the last place at which the ellipsis would fit */
    while (length > 0) {
        uint32_t code = 0;
        size_t step = utf8_sequence(at, length, &code);
        /* U+0080 to U+009F are control characters too: terminals obey them. */
        bool plain = step > 0 && code >= 0x20 && !(code >= 0x7f && code < 0xa0) && strchr("'\"\\", (int)at[0]) == NULL;
        char piece[8];
        size_t piece_length = step;
        if (plain) {
            memcpy(piece, at, step);
        } else {
            step = 1;
            piece_length = (size_t)snprintf(piece, sizeof piece, "\\x%02x", at[0]);
        }
        if (used + sizeof ellipsis <= capacity)
            cut = used;
        if (used + piece_length + 1 > capacity) {
            memcpy(ret_text + cut, ellipsis, sizeof ellipsis);
            return;
        }
        memcpy(ret_text + used, piece, piece_length);
        used += piece_length;
        at += step;
        length -= step;
    }
    ret_text[used] = '\0';
}

void text_hex(const uint8_t *bytes, size_t length, char *ret_text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        ret_text[2 * i] = digits[bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_text[2 * length] = '\0';
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

bool text_unhex(const char *text, uint8_t *ret_bytes, size_t length)
{
    if (strlen(text) != 2 * length)
        return false;
    for (size_t i = 0; i < 2 * length; i++)
        if (hex_digit(text[i]) < 0)
            return false;
    for (size_t i = 0; i < length; i++)
        ret_bytes[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return true;
}
