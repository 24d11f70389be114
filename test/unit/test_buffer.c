/* Buffers grow and keep byte order; readers stop at the end and stay stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/buffer.h"

static void numbers_both_ways(void **state)
{
    struct buffer buffer = BUFFER_EMPTY;
    buffer_put_u8(&buffer, 0x01);
    buffer_put_u16le(&buffer, 0x0203);
    buffer_put_u32le(&buffer, 0x04050607);
    buffer_put_u64le(&buffer, UINT64_C(0x08090a0b0c0d0e0f));
    buffer_put_u16be(&buffer, 0x0203);
    buffer_put_u32be(&buffer, 0x04050607);
    buffer_put_u64be(&buffer, UINT64_C(0x08090a0b0c0d0e0f));
    static const uint8_t expected[] = {
        0x01,                                           /* u8 */
        0x03, 0x02,                                     /* u16le */
        0x07, 0x06, 0x05, 0x04,                         /* u32le */
        0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, /* u64le */
        0x02, 0x03,                                     /* u16be */
        0x04, 0x05, 0x06, 0x07,                         /* u32be */
        0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, /* u64be */
    };
    assert_int_equal(buffer.length, sizeof expected);
    assert_memory_equal(buffer.data, expected, sizeof expected);

    struct reader reader = reader_over(buffer.data, buffer.length);
    assert_int_equal(reader_u8(&reader), 0x01);
    assert_int_equal(reader_u16le(&reader), 0x0203);
    assert_int_equal(reader_u32le(&reader), 0x04050607);
    assert_true(reader_u64le(&reader) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_int_equal(reader_u16be(&reader), 0x0203);
    assert_int_equal(reader_u32be(&reader), 0x04050607);
    assert_true(reader_u64be(&reader) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_int_equal(reader_left(&reader), 0);
    assert_false(reader.failed);
    buffer_free(&buffer);
    assert_null(buffer.data);
}

static void failure_sticks(void **state)
{
    const uint8_t bytes[] = { 1, 2, 3 };
    struct reader reader = reader_over(bytes, sizeof bytes);
    assert_int_equal(reader_u32le(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(reader_u8(&reader), 0);
    assert_null(reader_bytes(&reader, 0));

    reader = reader_over(bytes, sizeof bytes);
    assert_ptr_equal(reader_bytes(&reader, 2), bytes);
    assert_ptr_equal(reader_bytes(&reader, 0), bytes + 2);
    assert_null(reader_bytes(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void growing(void **state)
{
    struct buffer buffer = BUFFER_EMPTY;
    buffer_put(&buffer, NULL, 0);
    buffer_put_zeroes(&buffer, 0);
    assert_int_equal(buffer.length, 0);
    for (int i = 0; i < 10000; i++)
        buffer_put(&buffer, &(uint8_t){ (uint8_t)i }, 1);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buffer.data[i], (uint8_t)i);
    size_t capacity = buffer.capacity;
    buffer_clear(&buffer);
    assert_int_equal(buffer.length, 0);
    assert_int_equal(buffer.capacity, capacity);
    buffer_put_zeroes(&buffer, 300);
    for (int i = 0; i < 300; i++)
        assert_int_equal(buffer.data[i], 0);
    buffer_free(&buffer);
    buffer_free(&buffer);
}

static void printing(void **state)
{
    struct buffer buffer = BUFFER_EMPTY;
    size_t expected = 0;
    for (int i = 0; i < 200; i++) {
        buffer_printf(&buffer, "%d,", i);
        expected += i < 10 ? 2 : i < 100 ? 3 : 4;
        assert_int_equal(buffer.length, expected);
        assert_int_equal(buffer.data[buffer.length], 0);
    }
    assert_memory_equal(buffer.data, "0,1,2,3,", 8);
    buffer_free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_both_ways),
        cmocka_unit_test(failure_sticks),
        cmocka_unit_test(growing),
        cmocka_unit_test(printing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
