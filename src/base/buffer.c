/* Growing buffers and sticky readers: see base/buffer.h.
 *
 * Capacity doubles, so appending n bytes one by one costs O(n).  buffer_printf
 * needs room for a NUL behind the end; the NUL is not part of the length. */
#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define CAPACITY_FIRST 64u

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer)BUFFER_EMPTY;
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
}

void buffer_reserve(struct buffer *buffer, size_t more)
{
    assert(more <= SIZE_MAX / 2 - buffer->length);
    size_t needed = buffer->length + more;
    if (needed <= buffer->capacity)
        return;
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : CAPACITY_FIRST;
    while (capacity < needed)
        capacity *= 2;
    buffer->data = memory_resize(buffer->data, capacity, 1);
    buffer->capacity = capacity;
}

void buffer_put(struct buffer *buffer, const void *bytes, size_t length)
{
    if (length == 0)
        return;
    buffer_reserve(buffer, length);
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
}

void buffer_put_zeroes(struct buffer *buffer, size_t length)
{
    if (length == 0)
        return;
    buffer_reserve(buffer, length);
    memset(buffer->data + buffer->length, 0, length);
    buffer->length += length;
}

static void put_little(struct buffer *buffer, uint64_t value, size_t width)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    buffer_put(buffer, bytes, width);
}

static void put_big(struct buffer *buffer, uint64_t value, size_t width)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    buffer_put(buffer, bytes, width);
}

void buffer_put_u8(struct buffer *buffer, uint8_t value)
{
    buffer_put(buffer, &value, 1);
}

void buffer_put_u16le(struct buffer *buffer, uint16_t value)
{
    put_little(buffer, value, 2);
}

void buffer_put_u32le(struct buffer *buffer, uint32_t value)
{
    put_little(buffer, value, 4);
}

void buffer_put_u64le(struct buffer *buffer, uint64_t value)
{
    put_little(buffer, value, 8);
}

void buffer_put_u16be(struct buffer *buffer, uint16_t value)
{
    put_big(buffer, value, 2);
}

void buffer_put_u32be(struct buffer *buffer, uint32_t value)
{
    put_big(buffer, value, 4);
}

void buffer_put_u64be(struct buffer *buffer, uint64_t value)
{
    put_big(buffer, value, 8);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    /* Most texts fit at once; one that did not is made again with the room that it said it needs. */
    buffer_reserve(buffer, CAPACITY_FIRST);
    for (;;) {
        size_t room = buffer->capacity - buffer->length;
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf((char *)buffer->data + buffer->length, room, format, arguments);
        va_end(arguments);
        assert(length >= 0);
        if ((size_t)length < room) {
            buffer->length += (size_t)length;
            return;
        }
        buffer_reserve(buffer, (size_t)length + 1);
    }
}

const uint8_t *reader_bytes(struct reader *reader, size_t length)
{
    if (reader->failed || length > reader_left(reader)) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *bytes = reader->at;
    reader->at += length;
    return bytes;
}

static uint64_t take_little(struct reader *reader, size_t width)
{
    const uint8_t *bytes = reader_bytes(reader, width);
    uint64_t value = 0;
    for (size_t i = 0; bytes != NULL && i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static uint64_t take_big(struct reader *reader, size_t width)
{
    const uint8_t *bytes = reader_bytes(reader, width);
    uint64_t value = 0;
    for (size_t i = 0; bytes != NULL && i < width; i++)
        value = value << 8 | bytes[i];
    return value;
}

uint8_t reader_u8(struct reader *reader)
{
    return (uint8_t)take_little(reader, 1);
}

uint16_t reader_u16le(struct reader *reader)
{
    return (uint16_t)take_little(reader, 2);
}

uint32_t reader_u32le(struct reader *reader)
{
    return (uint32_t)take_little(reader, 4);
}

uint64_t reader_u64le(struct reader *reader)
{
    return take_little(reader, 8);
}

uint16_t reader_u16be(struct reader *reader)
{
    return (uint16_t)take_big(reader, 2);
}

uint32_t reader_u32be(struct reader *reader)
{
    return (uint32_t)take_big(reader, 4);
}

uint64_t reader_u64be(struct reader *reader)
{
    return take_big(reader, 8);
}
