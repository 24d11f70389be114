/* Text that people write and read: sizes, UTF-8, hexadecimal. */
#ifndef CAIRN_BASE_TEXT_H
#define CAIRN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* "512MB", "1GB", "2TB", "128K", "64KiB": powers of 1024, case ignored; or plain bytes.
 * -EINVAL for anything else, -ERANGE beyond 2^63-1. */
int text_parse_size(const char *text, uint64_t *ret_bytes, struct error *error);

/* "1.5 GiB": at most 16 bytes with its NUL. */
#define TEXT_SIZE_MAX 16
void text_format_size(uint64_t bytes, char ret_text[TEXT_SIZE_MAX]);

/* Whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms) without a NUL. */
bool text_is_utf8(const char *bytes, size_t length);

/* For messages: control bytes, bad UTF-8, quotes and backslashes as \xNN, cut at the capacity with "…".
 * Always terminated. */
void text_quote(const char *bytes, size_t length, char *ret_text, size_t capacity);

void text_hex(const uint8_t *bytes, size_t length, char *ret_text);   /* 2 * length + 1 bytes, lower case */
bool text_unhex(const char *text, uint8_t *ret_bytes, size_t length); /* exactly 2 * length digits */

#endif
