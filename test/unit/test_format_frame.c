/* Frames: golden bytes, round trips, every flipped bit and every wrong place noticed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/format_golden.h"
#include "../lib/format_samples.h"

/* Verifies a frame that begins at `bytes` and has this much payload behind its header. */
static int verify(const uint8_t *bytes, const struct frame_place *place, size_t stored, struct error *error)
{
    struct iovec payload = piece_of(bytes + FRAME_HEADER_BYTES, stored);
    struct frame_header header;
    return frame_verify(bytes, place, &payload, 1, &header, error);
}

static void test_golden(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    sample_data(&bytes);
    assert_int_equal(bytes.length, 2 * (64 + 8192));
    assert_true(is_golden(bytes.data, 64, golden_data_frame_header));
    assert_true(is_golden(bytes.data + 64 + 8192, 64, golden_second_data_frame_header));
    buffer_free(&bytes);
}

static struct frame_header random_header(struct chance *chance, uint8_t *ret_payload)
{
    struct frame_header header = { .kind = 1 + (enum frame_kind)chance_below(chance, 5) };
    if (header.kind == FRAME_PAGES) {
        header.pages = (uint32_t)chance_u64(chance) | UINT32_C(1) << chance_below(chance, 32);
        if (chance_below(chance, 4) == 0)
            header.pages = UINT32_MAX;
        header.block = chance_number(chance, VOLUME_BYTES_MAX / BLOCK_BYTES - 1);
        header.raw_bytes = (uint32_t)__builtin_popcount(header.pages) * PAGE_BYTES;
    } else {
        header.raw_bytes = 1 + (uint32_t)chance_number(chance, BLOCK_BYTES - 1);
    }
    header.stored_bytes = header.raw_bytes;
    chance_bytes(chance, ret_payload, header.stored_bytes);
    return header;
}

static struct frame_place random_place(struct chance *chance)
{
    struct frame_place place = { .kind = chance_below(chance, 2) ? OBJECT_LOG : OBJECT_DATA };
    chance_bytes(chance, place.uuid.bytes, sizeof(place.uuid.bytes));
    if (place.kind == OBJECT_LOG) {
        place.seq = chance_number(chance, UINT64_MAX);
    } else {
        place.epoch = chance_number(chance, UINT64_MAX);
        place.n = chance_number(chance, UINT64_MAX);
    }
    place.offset = chance_number(chance, OBJECT_UNITS_MAX) * FRAME_UNIT;
    return place;
}

static void assert_headers_equal(const struct frame_header *a, const struct frame_header *b)
{
    assert_true(a->kind == b->kind && a->codec == b->codec && a->cipher == b->cipher && a->key_id == b->key_id);
    assert_true(a->block == b->block && a->pages == b->pages);
    assert_true(a->raw_bytes == b->raw_bytes && a->stored_bytes == b->stored_bytes);
}

static void test_round_trip(void **state)
{
    struct chance chance = { 2 };
    uint8_t *payload = memory_new(BLOCK_BYTES);
    for (int i = 0; i < 200; i++) {
        struct frame_header header = random_header(&chance, payload), decoded;
        struct frame_place place = random_place(&chance);
        uint8_t bytes[FRAME_HEADER_BYTES], again[FRAME_HEADER_BYTES];
        struct error error = ERROR_NONE;
        /* Any cut of the payload into pieces is the same payload. */
        struct iovec pieces[FRAME_PIECES_MAX];
        int count = 0;
        for (size_t at = 0; at < header.stored_bytes; count++) {
            size_t length = header.stored_bytes - at;
            if (count < FRAME_PIECES_MAX - 1)
                length = chance_number(&chance, length);
            pieces[count] = piece_of(payload + at, length);
            at += length;
        }
        struct iovec whole = piece_of(payload, header.stored_bytes);
        frame_encode(&header, &place, pieces, count, bytes);
        frame_encode(&header, &place, &whole, 1, again);
        assert_memory_equal(bytes, again, sizeof(bytes));
        assert_int_equal(frame_verify(bytes, &place, pieces, count, &decoded, &error), 0);
        assert_headers_equal(&decoded, &header);
        assert_int_equal(frame_verify(bytes, NULL, &whole, 1, &decoded, &error), 0);
        memset(&decoded, 0, sizeof(decoded));
        assert_int_equal(frame_decode_header(bytes, &decoded, &error), 0);
        assert_headers_equal(&decoded, &header);
    }
    free(payload);
}

static void test_every_bit_counts(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_LOG, .seq = 9, .offset = 320 };
    sample_frame(&bytes, place, 1, 1u << 5);
    assert_int_equal(verify(bytes.data, &place, PAGE_BYTES, NULL), 0);
    for (size_t i = 0; i < bytes.length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct error error = ERROR_NONE;
            bytes.data[i] ^= (uint8_t)(1 << bit);
            assert_true(verify(bytes.data, &place, PAGE_BYTES, &error) < 0);
            assert_true(error.story[0] != '\0');
            bytes.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buffer_free(&bytes);
}

static void test_other_lengths_are_damage(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_LOG, .seq = 9, .offset = 320 };
    sample_frame(&bytes, place, 1, 1u << 5);
    for (size_t length = 0; length < PAGE_BYTES; length++)
        assert_int_equal(verify(bytes.data, &place, length, NULL), -EBADMSG);
    buffer_free(&bytes);
}

static void test_other_places_are_foreign(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct frame_place log = { .uuid = sample_uuid(), .kind = OBJECT_LOG, .seq = 9, .offset = 320 };
    sample_frame(&bytes, log, 1, 1u << 5);
    struct frame_place other = log;
    other.seq = 10;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    other = log;
    other.offset = 384;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    other = log;
    other.uuid.bytes[0] ^= 1;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    other = (struct frame_place){ .uuid = log.uuid, .kind = OBJECT_DATA, .n = 9, .offset = 320 };
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    bytes.length = 0;
    struct frame_place data = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 2, .offset = 0 };
    sample_frame(&bytes, data, 1, 1u << 5);
    other = data;
    other.epoch = 2;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    other = data;
    other.n = 1;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), -EMEDIUMTYPE);
    /* What a kind of object does not have is not part of its place. */
    other = data;
    other.seq = 77;
    assert_int_equal(verify(bytes.data, &other, PAGE_BYTES, NULL), 0);
    buffer_free(&bytes);
}

/* Changes `count` bytes of a sound frame's header, seals it anew, and says what becomes of it. */
static int with_change(size_t at, const char *change, size_t count, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_LOG, .seq = 9, .offset = 320 };
    sample_frame(&bytes, place, 1, 1u << 5);
    memcpy(bytes.data + at, change, count);
    struct iovec payload = piece_of(bytes.data + FRAME_HEADER_BYTES, PAGE_BYTES);
    struct frame_header header;
    frame_seal(bytes.data, &payload, 1);
    int result = verify(bytes.data, &place, PAGE_BYTES, error);
    assert_int_equal(frame_decode_header(bytes.data, &header, error), result);
    buffer_free(&bytes);
    return result;
}

static void test_shapes(void **state)
{
    struct error error = ERROR_NONE;
    assert_int_equal(with_change(4, "\1", 1, &error), 0);
    assert_int_equal(with_change(0, "X", 1, &error), -EMEDIUMTYPE);
    assert_int_equal(with_change(4, "\0", 1, &error), -EPROTONOSUPPORT);
    assert_int_equal(with_change(4, "\6", 1, &error), -EPROTONOSUPPORT);
    assert_non_null(strstr(error.story, "kind 6"));
    assert_int_equal(with_change(5, "\1", 1, &error), -EPROTONOSUPPORT);
    assert_non_null(strstr(error.story, "codec 1"));
    assert_int_equal(with_change(6, "\1", 1, &error), -EPROTONOSUPPORT);
    assert_non_null(strstr(error.story, "cipher 1"));
    assert_int_equal(with_change(7, "\1", 1, &error), -EPROTONOSUPPORT);
    assert_int_equal(with_change(8, "\1", 1, &error), -EBADMSG);
    assert_int_equal(with_change(8, "\0\0\0\0", 4, &error), -EBADMSG);
    assert_int_equal(with_change(16, "\0\0\0\x20", 4, &error), -EBADMSG); /* the first block beyond 64 TiB */
    assert_int_equal(with_change(16, "\xff\xff\xff\x1f", 4, &error), 0);
    assert_int_equal(with_change(24, "\3\0\0\0", 4, &error), -EBADMSG);
    assert_int_equal(with_change(24, "\0\0\0\0", 4, &error), -EBADMSG);
    assert_int_equal(with_change(28, "\1", 1, &error), -EBADMSG);
}

/* What a frame of a piece of a checkpoint says of blocks and pages is nothing; how long it may be depends on its kind.
 */
static void test_shapes_of_pieces(void **state)
{
    for (enum frame_kind kind = FRAME_LEAVES; kind <= FRAME_OBJECTS; kind++) {
        uint32_t most = kind == FRAME_ROOT ? FRAME_PAYLOAD_MAX : PIECE_PAYLOAD_MAX;
        struct frame_header header = { .kind = kind, .raw_bytes = most, .stored_bytes = most }, decoded;
        struct frame_place place = { .kind = OBJECT_DATA, .epoch = 1 };
        uint8_t *payload = memory_new(most), bytes[FRAME_HEADER_BYTES];
        struct iovec piece = piece_of(payload, most);
        struct error error = ERROR_NONE;
        frame_encode(&header, &place, &piece, 1, bytes);
        assert_int_equal(frame_verify(bytes, &place, &piece, 1, &decoded, &error), 0);
        assert_headers_equal(&decoded, &header);
        store_u32le(bytes + 8, most + 1);
        assert_int_equal(frame_decode_header(bytes, &decoded, &error), -EBADMSG);
        store_u32le(bytes + 8, most);
        bytes[16] = 1;
        assert_int_equal(frame_decode_header(bytes, &decoded, &error), -EBADMSG);
        assert_non_null(strstr(error.story, "of block 1"));
        bytes[16] = 0;
        bytes[27] = 1;
        assert_int_equal(frame_decode_header(bytes, &decoded, &error), -EBADMSG);
        free(payload);
    }
}

static void test_totals(void **state)
{
    assert_int_equal(frame_total_bytes(0), 64);
    assert_int_equal(frame_total_bytes(1), 128);
    assert_int_equal(frame_total_bytes(64), 128);
    assert_int_equal(frame_total_bytes(PAGE_BYTES), 4160);
    assert_int_equal(frame_total_bytes(FRAME_PAYLOAD_MAX), OBJECT_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_other_lengths_are_damage),
        cmocka_unit_test(test_other_places_are_foreign),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_shapes_of_pieces),
        cmocka_unit_test(test_totals),
    };
    return cmocka_run_group_tests_name("format_frame", tests, NULL, NULL);
}
