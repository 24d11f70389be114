/* Log entries: golden bytes, round trips, the chain, every damage, and every rule of the tables. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/format_golden.h"
#include "../lib/format_samples.h"

static void test_golden(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    sample_commit_small(&bytes, hash);
    assert_int_equal(bytes.length, 320 + 64 + PAGE_BYTES);
    assert_true(bytes.length < 5 * 1024); /* a flush of 4 KiB */
    assert_true(is_golden(bytes.data, 320, golden_commit_front));
    assert_true(is_golden(bytes.data + 320, 64, golden_inline_frame_header));
    assert_true(is_golden(hash, sizeof(hash), golden_commit_hash));
    buffer_clear(&bytes);
    sample_commit_full(&bytes, hash);
    assert_true(is_golden(bytes.data, bytes.length - 258 * FRAME_UNIT, golden_full_commit_front));
    assert_true(is_golden(hash, sizeof(hash), golden_full_commit_hash));
    buffer_clear(&bytes);
    sample_fence(&bytes, hash);
    assert_true(is_golden(bytes.data, bytes.length, golden_fence));
    assert_true(is_golden(hash, sizeof(hash), golden_fence_hash));
    buffer_free(&bytes);
}

static void assert_entries_equal(const struct entry *a, const struct entry *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_memory_equal(&a->uuid, &b->uuid, sizeof(a->uuid));
    assert_true(a->epoch == b->epoch && a->seq == b->seq && a->wall_ms == b->wall_ms);
    assert_memory_equal(&a->owner, &b->owner, sizeof(a->owner));
    assert_memory_equal(a->previous, b->previous, sizeof(a->previous));
    assert_true(a->object_id == b->object_id && a->inline_bytes == b->inline_bytes);
    assert_true(a->features_incompatible == b->features_incompatible);
    assert_int_equal(a->object_count, b->object_count);
    assert_int_equal(a->extent_count, b->extent_count);
    assert_int_equal(a->record_count, b->record_count);
    for (uint32_t i = 0; i < a->object_count; i++)
        assert_memory_equal(&a->objects[i], &b->objects[i], sizeof(a->objects[i]));
    for (uint32_t i = 0; i < a->extent_count; i++) {
        const struct commit_extent *x = &a->extents[i], *y = &b->extents[i];
        assert_true(x->kind == y->kind && x->page == y->page && x->count == y->count);
        assert_true(x->object == y->object && x->start == y->start && x->units == y->units);
        assert_true(x->frame_page == y->frame_page && x->frame_pages == y->frame_pages);
    }
    for (uint32_t i = 0; i < a->record_count; i++) {
        const struct commit_record *x = &a->records[i], *y = &b->records[i];
        assert_true(x->type == y->type && x->must_understand == y->must_understand && x->length == y->length);
        if (x->length > 0)
            assert_memory_equal(x->bytes, y->bytes, x->length);
    }
}

static void test_round_trip(void **state)
{
    struct chance chance = { 3 };
    struct buffer bytes = BUFFER_EMPTY, again = BUFFER_EMPTY;
    for (int i = 0; i < 2000; i++) {
        struct entry entry = random_entry(&chance), decoded;
        uint8_t hash[SHA256_BYTES], decoded_hash[SHA256_BYTES], again_hash[SHA256_BYTES];
        struct error error = ERROR_NONE;
        size_t front;
        size_t garbage = chance_below(&chance, 3);
        buffer_clear(&bytes);
        buffer_clear(&again);
        buffer_put_zeroes(&bytes, garbage); /* it appends */
        entry_encode(&entry, &bytes, hash);
        size_t length = bytes.length - garbage;
        const uint8_t *at = bytes.data + garbage;
        assert_int_equal(entry_decode_front(at, COMMIT_HEADER_BYTES, &front, &error), 0);
        assert_int_equal(front, length);
        buffer_put(&bytes, "what follows is not looked at", 29);
        at = bytes.data + garbage;
        assert_int_equal(entry_decode(at, bytes.length - garbage, &decoded, decoded_hash, &error), 0);
        assert_memory_equal(hash, decoded_hash, sizeof(hash));
        assert_entries_equal(&entry, &decoded);
        entry_encode(&decoded, &again, again_hash);
        assert_int_equal(again.length, length);
        assert_memory_equal(again.data, at, length);
        entry_free(&decoded);
        random_entry_free(&entry);
    }
    buffer_free(&bytes);
    buffer_free(&again);
}

static void test_hash_covers_header_and_tables(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES], expected[SHA256_BYTES];
    sample_commit_small(&bytes, hash);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = COMMIT_HEADER_BYTES + COMMIT_EXTENT_BYTES };
    hash_sha256(&piece, 1, expected);
    assert_memory_equal(hash, expected, sizeof(hash));
    buffer_free(&bytes);
}

/* ---- damage ---- */

static int decode(const uint8_t *bytes, size_t length, struct error *error)
{
    struct entry entry;
    uint8_t hash[SHA256_BYTES];
    int result = entry_decode(bytes, length, &entry, hash, error);
    if (result == 0)
        entry_free(&entry);
    return result;
}

static void expect_damage_noticed(struct buffer *bytes, size_t front)
{
    assert_int_equal(decode(bytes->data, front, NULL), 0);
    for (size_t i = 0; i < front; i++) {
        struct error error = ERROR_NONE;
        uint8_t *cut = memory_copy(bytes->data, i + 1); /* of its own, so that a read beyond is seen */
        assert_true(decode(cut, i, &error) < 0);
        assert_true(error.story[0] != '\0');
        free(cut);
        for (int bit = 0; bit < 8; bit++) {
            bytes->data[i] ^= (uint8_t)(1 << bit);
            assert_true(decode(bytes->data, front, &error) < 0);
            bytes->data[i] ^= (uint8_t)(1 << bit);
        }
    }
}

static void test_every_bit_and_length_counts(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    sample_commit_small(&bytes, hash);
    expect_damage_noticed(&bytes, 320);
    buffer_clear(&bytes);
    sample_commit_full(&bytes, hash);
    expect_damage_noticed(&bytes, bytes.length - 258 * FRAME_UNIT);
    buffer_clear(&bytes);
    sample_fence(&bytes, hash);
    expect_damage_noticed(&bytes, 256);
    buffer_free(&bytes);
}

/* ---- rules: a change to the full sample, sealed anew ---- */

#define OBJECTS_AT COMMIT_HEADER_BYTES
#define EXTENTS_AT (OBJECTS_AT + 2 * COMMIT_OBJECT_BYTES)
#define RECORDS_AT (EXTENTS_AT + 5 * COMMIT_EXTENT_BYTES)
#define EXTENT_AT(i) (EXTENTS_AT + (i)*COMMIT_EXTENT_BYTES)

struct change {
    size_t at;
    int width; /* bytes */
    uint64_t value;
    int expected;
};

static void apply(uint8_t *bytes, const struct change *change)
{
    for (int i = 0; i < change->width; i++)
        bytes[change->at + (size_t)i] = (uint8_t)(change->value >> (8 * i));
}

static int decode_changed(const struct change *changes, size_t count, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct entry_lengths lengths;
    uint8_t hash[SHA256_BYTES];
    sample_commit_full(&bytes, hash);
    for (size_t i = 0; i < count; i++)
        apply(bytes.data, &changes[i]);
    if (entry_read_lengths(bytes.data, bytes.length, &lengths, NULL) == 0 && lengths.front <= bytes.length)
        entry_seal(bytes.data, &lengths);
    int result = decode(bytes.data, bytes.length, error);
    buffer_free(&bytes);
    return result;
}

static void test_rules(void **state)
{
    static const struct change changes[] = {
        /* header */
        { 8, 4, 2, -EPROTONOSUPPORT },
        { 8, 4, 0, -EBADMSG },
        { 12, 4, 255, -EBADMSG },
        { 12, 4, 192, -EBADMSG },
        { 12, 4, 8192, -EBADMSG },
        { 16, 8, 1, -EPROTONOSUPPORT },
        { 16, 8, UINT64_C(1) << 63, -EPROTONOSUPPORT },
        { 24, 8, UINT64_MAX, 0 }, /* compatible features are nobody's to refuse */
        { 32, 4, 0, -EPROTONOSUPPORT },
        { 32, 4, 3, -EPROTONOSUPPORT },
        { 32, 4, ENTRY_FENCE, -EBADMSG }, /* with tables */
        { 36, 4, COMMIT_TABLES_MAX + 1, -EBADMSG },
        { 36, 4, 247, -EBADMSG }, /* the last record is cut */
        { 36, 4, 0, -EBADMSG },
        { 40, 4, 1, -EBADMSG },
        { 44, 4, 4, -EBADMSG },
        { 44, 4, UINT32_MAX, -EBADMSG },
        { 48, 4, 1, -EBADMSG },
        { 48, 4, 3, -EBADMSG },
        { 52, 4, 1, 0 },        /* reserved */
        { 88, 8, 0, -EBADMSG }, /* epoch */
        { 88, 8, NUMBER_MAX, 0 },
        { 88, 8, NUMBER_MAX + 1, -EBADMSG },
        { 96, 8, 0, -EBADMSG }, /* seq */
        { 96, 8, NUMBER_MAX, 0 },
        { 96, 8, UINT64_MAX, -EBADMSG },
        { 144, 8, 0, -EBADMSG }, /* object id */
        { 144, 8, OBJECT_ID_READ_MAX, 0 },
        { 144, 8, OBJECT_ID_READ_MAX + 1, -EBADMSG },
        { 144, 8, UINT64_MAX, -EBADMSG },
        { 152, 8, 0, -EBADMSG }, /* inline bytes */
        { 152, 8, 258 * 64 + 1, -EBADMSG },
        { 152, 8, 257 * 64, -EBADMSG },
        { 152, 8, OBJECT_BYTES_MAX, -EBADMSG },
        { 152, 8, UINT64_MAX - 63, -EBADMSG },
        { 160, 8, UINT64_MAX, 0 }, /* reserved */
        /* objects */
        { OBJECTS_AT, 8, 0, -EBADMSG },
        { OBJECTS_AT, 8, 2, -EBADMSG },
        { OBJECTS_AT + 16, 8, 0, -EBADMSG },
        { OBJECTS_AT + 16, 8, OBJECT_BYTES_MAX + 64, -EBADMSG },
        { OBJECTS_AT + 16, 8, 65, -EBADMSG },
        { OBJECTS_AT + 16, 8, OBJECT_BYTES_MAX - 64, -EBADMSG }, /* an extent reaches beyond */
        { OBJECTS_AT + 24, 8, 1, 0 },
        /* extents: 0 zeroes, 1 and 2 inline, 3 in object 1, 4 the last page of the largest disk */
        { EXTENT_AT(0), 8, 1, -EBADMSG },
        { EXTENT_AT(0) + 8, 8, 0, -EBADMSG },
        { EXTENT_AT(0) + 8, 8, 6, -EBADMSG },
        { EXTENT_AT(0) + 8, 8, UINT64_MAX, -EBADMSG },
        { EXTENT_AT(0) + 16, 4, 1, -EBADMSG },
        { EXTENT_AT(0) + 20, 4, 1, -EBADMSG },
        { EXTENT_AT(0) + 24, 4, 1, -EBADMSG },
        { EXTENT_AT(0) + 28, 1, 0, -EBADMSG },
        { EXTENT_AT(0) + 28, 1, 3, -EBADMSG },
        { EXTENT_AT(0) + 29, 1, 1, -EBADMSG },
        { EXTENT_AT(0) + 30, 1, 1, -EBADMSG },
        { EXTENT_AT(0) + 31, 1, 1, 0 },
        { EXTENT_AT(1), 8, 4, -EBADMSG },
        { EXTENT_AT(1), 8, 8, -EBADMSG },
        { EXTENT_AT(1) + 16, 4, 3, -EBADMSG },
        { EXTENT_AT(1) + 20, 4, 7, -EBADMSG }, /* in the tables */
        { EXTENT_AT(1) + 20, 4, 8 + 65, 0 },
        { EXTENT_AT(1) + 20, 4, 8 + 66, -EBADMSG },
        { EXTENT_AT(1) + 20, 4, UINT32_MAX, -EBADMSG },
        { EXTENT_AT(1) + 24, 4, 1, -EBADMSG },
        { EXTENT_AT(1) + 24, 4, 2, 0 }, /* compressed, as it were */
        { EXTENT_AT(1) + 24, 4, 194, -EBADMSG },
        { EXTENT_AT(1) + 24, 4, UINT32_MAX, -EBADMSG },
        { EXTENT_AT(1) + 29, 1, 1, 0 },
        { EXTENT_AT(1) + 29, 1, 2, -EBADMSG },
        { EXTENT_AT(1) + 30, 1, 1, -EBADMSG },
        { EXTENT_AT(1) + 30, 1, 33, -EBADMSG },
        { EXTENT_AT(2), 8, 31, 0 },
        { EXTENT_AT(2), 8, 32, -EBADMSG },
        { EXTENT_AT(3), 8, 33, -EBADMSG }, /* two blocks */
        { EXTENT_AT(3) + 8, 8, 33, -EBADMSG },
        { EXTENT_AT(3) + 16, 4, 2, -EBADMSG },
        { EXTENT_AT(3) + 20, 4, 0, 0 },
        { EXTENT_AT(3) + 20, 4, OBJECT_UNITS_MAX - 2048, -EBADMSG },
        { EXTENT_AT(4), 8, VOLUME_PAGES_MAX, -EBADMSG },
        { EXTENT_AT(4), 8, UINT64_MAX, -EBADMSG },
        { EXTENT_AT(4) + 8, 8, 2, -EBADMSG },
        { EXTENT_AT(4) + 8, 8, UINT64_MAX, -EBADMSG },
        /* records: 77 with "hello", 78 empty */
        { RECORDS_AT, 2, RECORD_RESET, 0 },
        { RECORDS_AT + 2, 2, 1, -EPROTONOSUPPORT },
        { RECORDS_AT + 2, 2, 2, 0 },
        { RECORDS_AT + 4, 4, 4, -EBADMSG }, /* its padding is not zeroes then */
        { RECORDS_AT + 4, 4, 9, -EBADMSG },
        { RECORDS_AT + 4, 4, UINT32_MAX, -EBADMSG },
        { RECORDS_AT + 13, 1, 1, -EBADMSG },
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct error error = ERROR_NONE;
        int result = decode_changed(&changes[i], 1, &error);
        if (result != changes[i].expected)
            print_error("change %zu at %zu: %d, %s\n", i, changes[i].at, result, error.story);
        assert_int_equal(result, changes[i].expected);
    }
}

static void test_stories_name_the_reason(void **state)
{
    struct error error = ERROR_NONE;
    decode_changed(&(struct change){ 16, 8, UINT64_C(1) << 40, 0 }, 1, &error);
    assert_non_null(strstr(error.story, "feature bit 40"));
    decode_changed(&(struct change){ 8, 4, 9, 0 }, 1, &error);
    assert_non_null(strstr(error.story, "version 9"));
    decode_changed(&(struct change){ RECORDS_AT + 2, 2, 1, 0 }, 1, &error);
    assert_non_null(strstr(error.story, "type 77"));
    assert_int_equal(decode_changed(&(struct change){ 0, 1, 'X', 0 }, 1, &error), -EMEDIUMTYPE);
}

/* What a later release may do within version 1: a longer header. */
static void test_longer_header(void **state)
{
    struct buffer bytes = BUFFER_EMPTY, longer = BUFFER_EMPTY;
    struct entry_lengths lengths;
    struct entry entry;
    uint8_t hash[SHA256_BYTES];
    struct error error = ERROR_NONE;
    sample_commit_small(&bytes, hash);
    store_u32le(bytes.data + 12, 320);
    buffer_put(&longer, bytes.data, 256);
    buffer_put(&longer, "something new", 13);
    buffer_put_zeroes(&longer, 64 - 13);
    buffer_put(&longer, bytes.data + 256, bytes.length - 256);
    store_u32le(longer.data + 320 + 20, 6); /* the frame lies behind the longer front */
    assert_int_equal(entry_read_lengths(longer.data, longer.length, &lengths, &error), 0);
    assert_int_equal(lengths.front, 384);
    entry_seal(longer.data, &lengths);
    assert_int_equal(entry_decode(longer.data, longer.length, &entry, hash, &error), 0);
    assert_int_equal(entry.extent_count, 1);
    assert_int_equal(entry.extents[0].page, 37);
    entry_free(&entry);
    buffer_free(&bytes);
    buffer_free(&longer);
}

static void test_outputs_are_untouched_on_failure(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES], before[SHA256_BYTES];
    sample_fence(&bytes, hash);
    bytes.data[100] ^= 1;
    struct entry entry, untouched;
    size_t front = 42;
    memset(&entry, 0x55, sizeof(entry));
    memcpy(&untouched, &entry, sizeof(entry));
    memcpy(before, hash, sizeof(hash));
    assert_int_equal(entry_decode(bytes.data, bytes.length, &entry, hash, NULL), -EBADMSG);
    assert_memory_equal(&entry, &untouched, sizeof(entry));
    assert_memory_equal(hash, before, sizeof(hash));
    assert_int_equal(entry_decode_front(bytes.data, 255, &front, NULL), -EBADMSG);
    assert_int_equal(front, 42);
    buffer_free(&bytes);
}

static void test_largest_tables(void **state)
{
    uint32_t count = COMMIT_TABLES_MAX / COMMIT_EXTENT_BYTES;
    struct entry entry = sample_entry(ENTRY_COMMIT, 1), decoded;
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    uint8_t hash[SHA256_BYTES];
    entry.extents = memory_array(count, sizeof(*entry.extents));
    entry.extent_count = count;
    for (uint32_t i = 0; i < count; i++)
        entry.extents[i] = (struct commit_extent){ .kind = EXTENT_ZERO, .page = UINT64_C(2) * i, .count = 1 };
    entry_encode(&entry, &bytes, hash);
    assert_int_equal(bytes.length, COMMIT_HEADER_BYTES + COMMIT_TABLES_MAX);
    assert_int_equal(entry_decode(bytes.data, bytes.length, &decoded, hash, &error), 0);
    assert_entries_equal(&entry, &decoded);
    entry_free(&decoded);
    entry_free(&entry);
    buffer_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_hash_covers_header_and_tables),
        cmocka_unit_test(test_every_bit_and_length_counts),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_stories_name_the_reason),
        cmocka_unit_test(test_longer_header),
        cmocka_unit_test(test_outputs_are_untouched_on_failure),
        cmocka_unit_test(test_largest_tables),
    };
    return cmocka_run_group_tests_name("format_log", tests, NULL, NULL);
}
