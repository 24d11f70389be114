/* Sizes, UTF-8, quoting, hexadecimal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },
        { "512", 512 },
        { "512MB", UINT64_C(512) << 20 },
        { "1GB", UINT64_C(1) << 30 },
        { "2TB", UINT64_C(2) << 40 },
        { "128K", 128 << 10 },
        { "64KiB", 64 << 10 },
        { "3gib", UINT64_C(3) << 30 },
        { "1p", UINT64_C(1) << 50 },
        { "7E", UINT64_C(7) << 60 },
        { "9223372036854775807", INT64_MAX },
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t bytes = 1;
        assert_int_equal(text_parse_size(good[i].text, &bytes, NULL), 0);
        assert_true(bytes == good[i].bytes);
    }
}

static void bad_sizes_are_refused(void **state)
{
    static const char *const bad[] = { "",    "K",     "-1",  "+1",   "1.5G", "1 G", " 1", "1X", "1KBB",
                                       "1iB", "1KiBx", "1\n", "0x10", "1GBs", "1Ki", "B",  "1B", "1G\xff" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t bytes = 17;
        struct error error = ERROR_NONE;
        assert_int_equal(text_parse_size(bad[i], &bytes, &error), -EINVAL);
        assert_true(bytes == 17);
        assert_true(text_is_utf8(error.story, strlen(error.story)));
    }
    static const char *const large[] = { "8E", "9223372036854775808", "99999999999999999999999999",
                                         "9007199254740992K" };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        uint64_t bytes = 17;
        assert_int_equal(text_parse_size(large[i], &bytes, NULL), -ERANGE);
        assert_true(bytes == 17);
    }
}

static void sizes_are_written(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 B" },
        { 1023, "1023 B" },
        { 1024, "1 KiB" },
        { 1536, "1.5 KiB" },
        { UINT64_C(3) << 29, "1.5 GiB" },
        { (UINT64_C(1) << 20) - 1, "1 MiB" },
        { UINT64_C(10) << 40, "10 TiB" },
        { UINT64_MAX, "16 EiB" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[TEXT_SIZE_MAX];
        text_format_size(cases[i].bytes, text);
        assert_string_equal(text, cases[i].text);
    }
}

static bool utf8(const char *text)
{
    return text_is_utf8(text, strlen(text));
}

static void well_formed_text(void **state)
{
    assert_true(utf8(""));
    assert_true(utf8("plain"));
    assert_true(utf8("\u00e9 \u20ac \U0001f5ff"));
    assert_true(utf8("\xf4\x8f\xbf\xbf"));
    assert_false(text_is_utf8("a\0b", 3));
    assert_false(utf8("\x80"));
    assert_false(utf8("\xc0\xaf"));
    assert_false(utf8("\xe0\x9f\xbf"));
    assert_false(utf8("\xed\xa0\x80"));
    assert_false(utf8("\xf0\x8f\xbf\xbf"));
    assert_false(utf8("\xf4\x90\x80\x80"));
    assert_false(utf8("\xf5\x80\x80\x80"));
    assert_false(utf8("\xff"));
    assert_false(text_is_utf8("\u20ac", 2));
    assert_false(utf8("\xc3(")); /* the second byte is no continuation */
}

static void assert_quoted(const char *bytes, size_t length, size_t capacity, const char *expected)
{
    char text[64];
    memset(text, 'Z', sizeof text);
    text_quote(bytes, length, text, capacity);
    assert_string_equal(text, expected);
    if (capacity < sizeof text)
        assert_int_equal(text[capacity], 'Z');
}

static void quoting(void **state)
{
    assert_quoted("db", 2, 64, "db");
    assert_quoted("", 0, 64, "");
    assert_quoted("a'b\"c\\d", 7, 64, "a\\x27b\\x22c\\x5cd");
    assert_quoted("a\0\n\x7f", 4, 64, "a\\x00\\x0a\\x7f");
    assert_quoted("\xc3\xa9\xff", 3, 64, "\u00e9\\xff");
    assert_quoted("\xc2\x9b", 2, 64, "\\xc2\\x9b"); /* a control character of terminals */
    assert_quoted("0123456789", 10, 11, "0123456789");
    assert_quoted("0123456789", 10, 10, "012345…");
    assert_quoted("01234567\n", 9, 11, "0123456…");
    assert_quoted("\n\n\n\n", 4, 8, "\\x0a…");
    assert_quoted("\n\n\n\n", 4, 5, "…");
}

static void hexadecimal(void **state)
{
    const uint8_t bytes[] = { 0x00, 0x7f, 0xab, 0xff };
    char text[9];
    text_hex(bytes, 4, text);
    assert_string_equal(text, "007fabff");
    uint8_t back[4] = { 1, 1, 1, 1 };
    assert_true(text_unhex("007fABff", back, 4));
    assert_memory_equal(back, bytes, 4);
    assert_false(text_unhex("007fabf", back, 4));
    assert_false(text_unhex("007fabff0", back, 4));
    assert_false(text_unhex("007fabfg", back, 4));
    assert_memory_equal(back, bytes, 4);
    assert_true(text_unhex("", back, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read),    cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(sizes_are_written), cmocka_unit_test(well_formed_text),
        cmocka_unit_test(quoting),           cmocka_unit_test(hexadecimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
