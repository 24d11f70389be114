/* Keys, UUIDs and the marker: exact text, exact parsing, nothing similar accepted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/format_samples.h"

#define UUID_TEXT_SAMPLE "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"

static void expect_register_key(const char *name, size_t length, const char *expected)
{
    char key[KEY_MAX];
    key_register(name, length, key);
    assert_string_equal(key, expected);
}

static void test_register_keys(void **state)
{
    expect_register_key("", 0, "volumes/n.");
    expect_register_key("db", 2, "volumes/n.db");
    expect_register_key("a-b_c9", 6, "volumes/n.a-b_c9");
    expect_register_key("DB", 2, "volumes/n.%44%42");
    expect_register_key("../..", 5, "volumes/n.%2e%2e%2f%2e%2e");
    expect_register_key("%2e", 3, "volumes/n.%252e");
    expect_register_key("\xc3\xa4", 2, "volumes/n.%c3%a4");
}

static void test_long_names_are_hashed(void **state)
{
    char name[VOLUME_NAME_MAX], key[KEY_MAX], plain[KEY_MAX] = "volumes/n.", parsed[VOLUME_NAME_MAX];
    size_t length;
    memset(name, 'a', sizeof(name));
    memset(plain + 10, 'a', 200);
    expect_register_key(name, 200, plain);
    /* SHA-256 of 201 times 'a' */
    expect_register_key(name, 201, "volumes/h.a92efd82109373e58f9a2056dee01e807e216ce6075f7051207c0a9f7d666e50");
    key_register(name, VOLUME_NAME_MAX, key);
    assert_false(key_parse_register(key, parsed, &length));
    name[0] = 'A'; /* three bytes encoded */
    key_register(name, 198, key);
    assert_memory_equal(key, "volumes/n.%41a", 14);
    key_register(name, 199, key);
    assert_memory_equal(key, "volumes/h.", 10);
}

static void test_register_keys_round_trip(void **state)
{
    struct chance chance = { 1 };
    for (int i = 0; i < 2000; i++) {
        size_t length, parsed_length;
        char *name = chance_name(&chance, 66, &length);
        char key[KEY_MAX], parsed[VOLUME_NAME_MAX];
        key_register(name, length, key);
        assert_true(key_parse_register(key, parsed, &parsed_length));
        assert_int_equal(parsed_length, length);
        assert_memory_equal(parsed, name, length);
        free(name);
    }
}

static void test_similar_register_keys_are_refused(void **state)
{
    static const char *const keys[] = { "",
                                        "volumes/",
                                        "volumes/n",
                                        "volumes/h.00",
                                        "volumes/n.A",
                                        "volumes/n.%",
                                        "volumes/n.%4",
                                        "volumes/n.%61", /* 'a', which stands for itself */
                                        "volumes/n.%2E",
                                        "volumes/n.%00",
                                        "volumes/n.a/b",
                                        "volumes/n.a.b",
                                        "Volumes/n.a",
                                        "x/volumes/n.a" };
    char name[VOLUME_NAME_MAX];
    size_t length = 42;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        assert_false(key_parse_register(keys[i], name, &length));
    char key[KEY_MAX] = "volumes/n.";
    memset(key + 10, 'a', 201);
    key[211] = '\0';
    assert_false(key_parse_register(key, name, &length));
    assert_int_equal(length, 42);
}

static void test_object_keys(void **state)
{
    struct uuid uuid = sample_uuid(), parsed;
    char key[KEY_MAX];
    uint64_t a, b;
    key_log_prefix(&uuid, key);
    assert_string_equal(key, "v/" UUID_TEXT_SAMPLE "/log/");
    key_log(&uuid, 17, key);
    assert_string_equal(key, "v/" UUID_TEXT_SAMPLE "/log/00000000000000000017");
    assert_true(key_parse_log(key, &parsed, &a));
    assert_true(uuid_equal(&parsed, &uuid));
    assert_int_equal(a, 17);
    key_log(&uuid, UINT64_MAX, key);
    assert_string_equal(key, "v/" UUID_TEXT_SAMPLE "/log/18446744073709551615");
    assert_true(key_parse_log(key, &parsed, &a));
    assert_true(a == UINT64_MAX);
    key_data(&uuid, 3, 12345, key);
    assert_string_equal(key, "v/" UUID_TEXT_SAMPLE "/data/00000000000000000003/00000000000000012345");
    assert_true(key_parse_data(key, &parsed, &a, &b));
    assert_int_equal(a, 3);
    assert_int_equal(b, 12345);
    assert_false(key_parse_log(key, &parsed, &a));
}

static void test_similar_object_keys_are_refused(void **state)
{
    static const char *const keys[] = {
        "v/" UUID_TEXT_SAMPLE "/log/18446744073709551616",
        "v/" UUID_TEXT_SAMPLE "/log/99999999999999999999",
        "v/" UUID_TEXT_SAMPLE "/log/0000000000000000001",
        "v/" UUID_TEXT_SAMPLE "/log/000000000000000000017",
        "v/" UUID_TEXT_SAMPLE "/log/0000000000000000001x",
        "v/" UUID_TEXT_SAMPLE "/log/",
        "v/" UUID_TEXT_SAMPLE "/data/00000000000000000003/0000000000000001234",
        "v/" UUID_TEXT_SAMPLE "/data/00000000000000000003",
        "v/" UUID_TEXT_SAMPLE "/data/00000000000000000003/00000000000000012345/",
        "v/A0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf/log/00000000000000000017",
        "v/a0a1a2a3a4a5-a6a7-a8a9-aaabacadaeaf-/log/00000000000000000017",
        "w/" UUID_TEXT_SAMPLE "/log/00000000000000000017",
        "",
        "v/",
    };
    struct uuid uuid;
    uint64_t a, b;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        assert_false(key_parse_log(keys[i], &uuid, &a));
        assert_false(key_parse_data(keys[i], &uuid, &a, &b));
    }
}

static void test_uuids(void **state)
{
    struct uuid uuid = sample_uuid(), other = uuid, parsed;
    char text[UUID_TEXT];
    uuid_format(&uuid, text);
    assert_string_equal(text, UUID_TEXT_SAMPLE);
    assert_true(uuid_parse(text, &parsed));
    assert_true(uuid_equal(&uuid, &parsed));
    other.bytes[15] ^= 1;
    assert_false(uuid_equal(&uuid, &other));
    assert_false(uuid_parse(UUID_TEXT_SAMPLE "0", &parsed));
    assert_false(uuid_parse("A0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf", &parsed));
    struct nonce one = { { 1 } }, two = { { 2 } };
    assert_true(nonce_equal(&one, &one));
    assert_false(nonce_equal(&one, &two));
}

/* ---- the marker ---- */

static const char marker_golden[] =
    "cairn store\n"
    "format: 1\n"
    "features: 0000000000000000\n"
    "store: " UUID_TEXT_SAMPLE "\n"
    "note: the objects beside this one are virtual disks of cairn; change none of them by hand\n"
    "check: 9158365b024e4ce4e19b480c829a6c94\n";

static void test_marker_golden(void **state)
{
    struct uuid uuid = sample_uuid(), decoded;
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    marker_encode(&uuid, &bytes);
    assert_int_equal(bytes.length, sizeof(marker_golden) - 1);
    assert_memory_equal(bytes.data, marker_golden, bytes.length);
    assert_int_equal(marker_decode(bytes.data, bytes.length, &decoded, &error), 0);
    assert_true(uuid_equal(&uuid, &decoded));
    buffer_free(&bytes);
}

static void test_marker_damage(void **state)
{
    struct uuid uuid = sample_uuid(), decoded;
    struct buffer bytes = BUFFER_EMPTY;
    marker_encode(&uuid, &bytes);
    for (size_t i = 0; i < bytes.length; i++) {
        struct error error = ERROR_NONE;
        assert_true(marker_decode(bytes.data, i, &decoded, &error) < 0);
        assert_true(error.story[0] != '\0');
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[i] ^= (uint8_t)(1 << bit);
            assert_true(marker_decode(bytes.data, bytes.length, &decoded, &error) < 0);
            bytes.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buffer_put_u8(&bytes, '\n');
    assert_int_equal(marker_decode(bytes.data, bytes.length, &decoded, NULL), -EBADMSG);
    buffer_free(&bytes);
}

/* Text with its check line put right. */
static int decode_marker_text(const char *text, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct uuid decoded;
    struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
    uint8_t hash[XXH128_BYTES];
    hash_xxh128(&piece, 1, hash);
    buffer_printf(&bytes, "%scheck: ", text);
    for (int i = 0; i < XXH128_BYTES; i++)
        buffer_printf(&bytes, "%02x", hash[i]);
    buffer_printf(&bytes, "\n");
    int result = marker_decode(bytes.data, bytes.length, &decoded, error);
    buffer_free(&bytes);
    return result;
}

static void test_marker_versions(void **state)
{
    struct error error = ERROR_NONE;
    assert_int_equal(decode_marker_text("cairn store\nformat: 1\nfeatures: 0000000000000000\nstore: " UUID_TEXT_SAMPLE
                                        "\nlater: whatever\n",
                                        &error),
                     0);
    assert_int_equal(decode_marker_text("cairn store\nformat: 2\nwho knows\n", &error), -EPROTONOSUPPORT);
    assert_non_null(strstr(error.story, "version 2"));
    assert_int_equal(
        decode_marker_text("cairn store\nformat: 1\nfeatures: 0000000000000020\nstore: " UUID_TEXT_SAMPLE "\n", &error),
        -EPROTONOSUPPORT);
    assert_non_null(strstr(error.story, "feature bit 5"));
    assert_int_equal(decode_marker_text("cairn store\nformat: 0\n", &error), -EBADMSG);
    assert_int_equal(decode_marker_text("cairn store\nformat: 1\nfeatures: 0000000000000000\nstore: x\n", &error),
                     -EBADMSG);
    assert_int_equal(decode_marker_text("something else\n", &error), -EMEDIUMTYPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register_keys),
        cmocka_unit_test(test_long_names_are_hashed),
        cmocka_unit_test(test_register_keys_round_trip),
        cmocka_unit_test(test_similar_register_keys_are_refused),
        cmocka_unit_test(test_object_keys),
        cmocka_unit_test(test_similar_object_keys_are_refused),
        cmocka_unit_test(test_uuids),
        cmocka_unit_test(test_marker_golden),
        cmocka_unit_test(test_marker_damage),
        cmocka_unit_test(test_marker_versions),
    };
    return cmocka_run_group_tests_name("format_key", tests, NULL, NULL);
}
