/* A growing run of bytes for encoders, and a cursor for decoders.
 *
 * Encoders append; running out of memory aborts (see base/memory.h), so none
 * of the calls can fail.  Decoders read through a struct reader whose failure
 * sticks: a read past the end returns zeroes and sets `failed`, so a decoder
 * reads a whole structure straight on and checks once. */
#ifndef CAIRN_BASE_BUFFER_H
#define CAIRN_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *data;
    size_t length, capacity;
};

#define BUFFER_EMPTY                                                                                                   \
    {                                                                                                                  \
        .data = NULL, .length = 0, .capacity = 0                                                                       \
    }

void buffer_free(struct buffer *buffer);  /* leaves it empty, ready for use */
void buffer_clear(struct buffer *buffer); /* keeps the memory */
void buffer_reserve(struct buffer *buffer, size_t more);
void buffer_put(struct buffer *buffer, const void *bytes, size_t length);
void buffer_put_zeroes(struct buffer *buffer, size_t length);
void buffer_put_u8(struct buffer *buffer, uint8_t value);
void buffer_put_u16le(struct buffer *buffer, uint16_t value);
void buffer_put_u32le(struct buffer *buffer, uint32_t value);
void buffer_put_u64le(struct buffer *buffer, uint64_t value);
void buffer_put_u16be(struct buffer *buffer, uint16_t value);
void buffer_put_u32be(struct buffer *buffer, uint32_t value);
void buffer_put_u64be(struct buffer *buffer, uint64_t value);
void buffer_printf(struct buffer *buffer, const char *format, ...) /* no NUL counted, one stands behind the end */
    __attribute__((format(printf, 2, 3)));

struct reader {
    const uint8_t *at, *end;
    bool failed;
};

static inline struct reader reader_over(const void *bytes, size_t length)
{
    const uint8_t *begin = bytes; /* may be NULL when there is nothing to read, and has then no end to point at */
    return (struct reader){ .at = begin, .end = length > 0 ? begin + length : begin, .failed = false };
}
static inline size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}
uint8_t reader_u8(struct reader *reader);
uint16_t reader_u16le(struct reader *reader);
uint32_t reader_u32le(struct reader *reader);
uint64_t reader_u64le(struct reader *reader);
uint16_t reader_u16be(struct reader *reader);
uint32_t reader_u32be(struct reader *reader);
uint64_t reader_u64be(struct reader *reader);
/* A pointer to the next `length` bytes, which it steps over; NULL when there are fewer. */
const uint8_t *reader_bytes(struct reader *reader, size_t length);

#endif
