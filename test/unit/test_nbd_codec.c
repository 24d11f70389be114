/* The wire format of NBD, byte by byte as the specification has it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nbd/codec.h"

#define assert_bytes(bytes, text) assert_memory_equal(bytes, text, sizeof(text) - 1)

static void test_greeting(void **state)
{
    uint8_t bytes[NBD_GREETING_BYTES];
    nbd_encode_greeting(bytes, 3);
    assert_bytes(bytes, "NBDMAGICIHAVEOPT\0\3");
    assert_int_equal(nbd_decode_client_flags((const uint8_t *)"\x80\0\0\3"), 0x80000003);
}

static void test_option(void **state)
{
    struct nbd_option option = { 0 };
    assert_int_equal(nbd_decode_option((const uint8_t *)"IHAVEOPT\0\0\0\7\xff\xff\xff\xff", &option), 0);
    assert_int_equal(option.type, NBD_OPT_GO);
    assert_int_equal(option.length, UINT32_MAX);
    assert_int_equal(nbd_decode_option((const uint8_t *)"IHAVEOPS\0\0\0\1\0\0\0\0", &option), -EBADMSG);
    assert_int_equal(option.type, NBD_OPT_GO);

    uint8_t bytes[NBD_OPTION_REPLY_BYTES];
    nbd_encode_option_reply(bytes, NBD_OPT_GO, NBD_REP_ERR_POLICY, 5);
    assert_bytes(bytes, "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\7\x80\0\0\2\0\0\0\5");
}

static int decode_choice(const void *bytes, size_t length, struct nbd_choice *ret_choice)
{
    /* Exactly as long as told, so that a sanitizer sees each step too far. */
    uint8_t copy[64];
    assert_true(length <= sizeof copy);
    memcpy(copy + sizeof copy - length, bytes, length);
    return nbd_decode_choice(copy + sizeof copy - length, length, ret_choice);
}
#define choice_of(text, ret) decode_choice(text, sizeof(text) - 1, ret)

static void test_choice(void **state)
{
    struct nbd_choice choice;
    assert_int_equal(choice_of("\0\0\0\0\0\0", &choice), 0);
    assert_int_equal(choice.name_length, 0);
    assert_false(choice.wants_name || choice.wants_block_size);
    assert_int_equal(choice_of("\0\0\0\2db\0\3\0\3\0\1\xff\xff", &choice), 0);
    assert_int_equal(choice.name_length, 2);
    assert_true(choice.wants_name && choice.wants_block_size);

    assert_int_equal(choice_of("", &choice), -EINVAL);
    assert_int_equal(choice_of("\0\0\0\0\0", &choice), -EINVAL);
    assert_int_equal(choice_of("\0\0\0\3db\0\0", &choice), -EINVAL);
    assert_int_equal(choice_of("\xff\xff\xff\xff"
                               "db\0\0",
                               &choice),
                     -EINVAL);
    assert_int_equal(choice_of("\xff\xff\xff\xfa"
                               "db\0\0",
                               &choice),
                     -EINVAL);
    assert_int_equal(choice_of("\0\0\0\2db\0\1", &choice), -EINVAL);
    assert_int_equal(choice_of("\0\0\0\2db\0\0\0", &choice), -EINVAL);
    assert_int_equal(choice_of("\0\0\0\2db\xff\xff\0\3", &choice), -EINVAL);
}

static void test_infos(void **state)
{
    uint8_t bytes[32];
    nbd_encode_export(bytes, UINT64_C(0x123456789abcdef0), 0x1234);
    assert_bytes(bytes, "\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12\x34");
    nbd_encode_info_export(bytes, 1 << 20, 0x0103);
    assert_bytes(bytes, "\0\0\0\0\0\0\0\x10\0\0\1\3");
    nbd_encode_info_block_size(bytes, 1, 4096, 32 << 20);
    assert_bytes(bytes, "\0\3\0\0\0\1\0\0\x10\0\2\0\0\0");
}

static void test_request(void **state)
{
    static const char bytes[] = "\x25\x60\x95\x13\0\1\0\6ABCDEFGH\1\2\3\4\5\6\7\x8\xff\xff\xff\xff";
    struct nbd_request request;
    assert_int_equal(nbd_decode_request((const uint8_t *)bytes, &request), 0);
    assert_int_equal(request.flags, NBD_CMD_FLAG_FUA);
    assert_int_equal(request.command, NBD_CMD_WRITE_ZEROES);
    assert_true(request.cookie == UINT64_C(0x4142434445464748));
    assert_true(request.offset == UINT64_C(0x0102030405060708));
    assert_int_equal(request.length, UINT32_MAX);

    char bad[sizeof bytes];
    memcpy(bad, bytes, sizeof bytes);
    bad[0] = 0x26;
    assert_int_equal(nbd_decode_request((const uint8_t *)bad, &request), -EBADMSG);
}

static void test_replies(void **state)
{
    const uint64_t cookie = UINT64_C(0x4142434445464748);
    uint8_t bytes[NBD_CHUNK_OFFSET_BYTES];
    nbd_encode_simple_reply(bytes, NBD_ENOSPC, cookie);
    assert_bytes(bytes, "\x67\x44\x66\x98\0\0\0\x1c"
                        "ABCDEFGH");
    nbd_encode_chunk_none(bytes, cookie);
    assert_bytes(bytes, "\x66\x8e\x33\xef\0\1\0\0ABCDEFGH\0\0\0\0");
    nbd_encode_chunk_offset_data(bytes, cookie, UINT64_C(0x0102030405060708), 4096);
    assert_bytes(bytes, "\x66\x8e\x33\xef\0\1\0\1ABCDEFGH\0\0\x10\x8\1\2\3\4\5\6\7\x8");
    nbd_encode_chunk_error(bytes, cookie, NBD_EIO, 10);
    assert_bytes(bytes, "\x66\x8e\x33\xef\0\1\x80\1ABCDEFGH\0\0\0\x10\0\0\0\5\0\xa");
}

static void test_errors(void **state)
{
    static const struct {
        int code;
        uint32_t wire;
    } pairs[] = {
        { 0, 0 },           { -EPERM, 1 },       { -EROFS, 1 },       { -EIO, 5 },     { -ENOMEM, 5 },
        { -ETIMEDOUT, 5 },  { -EBADMSG, 5 },     { -EINVAL, 22 },     { -ENOSPC, 28 }, { -EDQUOT, 28 },
        { -EOVERFLOW, 75 }, { -ESHUTDOWN, 108 }, { -ECANCELED, 108 },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_int_equal(nbd_wire_error(pairs[i].code), pairs[i].wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting), cmocka_unit_test(test_option),  cmocka_unit_test(test_choice),
        cmocka_unit_test(test_infos),    cmocka_unit_test(test_request), cmocka_unit_test(test_replies),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
