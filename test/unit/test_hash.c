/* Known answers, and pieces that make no difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"

static void known_answers(void **state)
{
    char text_abc[] = "abc";
    struct iovec abc = { .iov_base = text_abc, .iov_len = 3 }, empty = { .iov_base = text_abc, .iov_len = 0 };
    uint8_t sha[SHA256_BYTES], xxh[XXH128_BYTES];
    char text[2 * SHA256_BYTES + 1];

    hash_sha256(&abc, 1, sha);
    text_hex(sha, sizeof sha, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_sha256(NULL, 0, sha);
    text_hex(sha, sizeof sha, text);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hash_xxh128(&empty, 1, xxh);
    text_hex(xxh, sizeof xxh, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    hash_xxh128(NULL, 0, xxh);
    text_hex(xxh, sizeof xxh, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    hash_xxh128(&abc, 1, xxh);
    text_hex(xxh, sizeof xxh, text);
    assert_string_equal(text, "06b05ab6733a618578af5f94892f3950");
}

static void pieces_make_no_difference(void **state)
{
    uint8_t bytes[1000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    struct iovec whole = { bytes, sizeof bytes };
    uint8_t sha[SHA256_BYTES], xxh[XXH128_BYTES];
    hash_sha256(&whole, 1, sha);
    hash_xxh128(&whole, 1, xxh);
    for (size_t cut = 0; cut <= sizeof bytes; cut += 125) {
        struct iovec pieces[3] = { { bytes, cut }, { NULL, 0 }, { bytes + cut, sizeof bytes - cut } };
        uint8_t other_sha[SHA256_BYTES], other_xxh[XXH128_BYTES];
        hash_sha256(pieces, 3, other_sha);
        hash_xxh128(pieces, 3, other_xxh);
        assert_memory_equal(sha, other_sha, sizeof sha);
        assert_memory_equal(xxh, other_xxh, sizeof xxh);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(pieces_make_no_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
