/* Pieces of checkpoints: golden bytes, round trips, every rule broken once, and the largest of each. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/checkpoint_samples.h"
#include "../lib/format_golden.h"

#define ROUNDS 300

static struct buffer bytes = BUFFER_EMPTY; /* of the payload in hand */
static struct error story;

static void put16(size_t at, uint16_t value)
{
    store_u16le(bytes.data + at, value);
}

static void put32(size_t at, uint32_t value)
{
    store_u32le(bytes.data + at, value);
}

static void put64(size_t at, uint64_t value)
{
    store_u64le(bytes.data + at, value);
}

static void expect(int result, int expected, const char *words)
{
    if (result != expected || strstr(story.story, words) == NULL)
        print_error("%d, and %d expected: '%s', and '%s' expected\n", result, expected, story.story, words);
    assert_int_equal(result, expected);
    assert_non_null(strstr(story.story, words));
}

/* ---- decoders that keep nothing ---- */

static int try_leaves(void)
{
    struct leaves_frame frame = { 0 };
    story = (struct error)ERROR_NONE;
    int result = leaves_decode(bytes.data, bytes.length, &frame, &story);
    leaves_frame_free(&frame);
    return result;
}

static int try_mid(void)
{
    struct mid_frame mid = { 0 };
    story = (struct error)ERROR_NONE;
    int result = mid_decode(bytes.data, bytes.length, &mid, &story);
    mid_frame_free(&mid);
    return result;
}

static int try_objects(void)
{
    struct objects_frame objects = { 0 };
    story = (struct error)ERROR_NONE;
    int result = objects_decode(bytes.data, bytes.length, &objects, &story);
    objects_frame_free(&objects);
    return result;
}

static int try_root(void)
{
    struct root_frame root = { 0 };
    story = (struct error)ERROR_NONE;
    int result = root_frame_decode(bytes.data, bytes.length, &root, &story);
    root_frame_free(&root);
    return result;
}

/* ---- samples, their changed bytes, and what becomes of them ---- */

struct piece {
    void (*make)(struct buffer *payload);
    int (*try)(void);
};

static void make_sample_root(struct buffer *payload)
{
    sample_root_payload(payload, 896);
}

static const struct piece leaves_piece = { sample_leaves, try_leaves };
static const struct piece mid_piece = { sample_mid, try_mid };
static const struct piece chunk_piece = { sample_chunk, try_objects };
static const struct piece graves_piece = { sample_graves, try_objects };
static const struct piece root_piece = { make_sample_root, try_root };
static const struct piece *const pieces[] = { &leaves_piece, &mid_piece, &chunk_piece, &graves_piece, &root_piece };
#define PIECE_COUNT (sizeof(pieces) / sizeof(pieces[0]))

static void fresh(const struct piece *piece)
{
    buffer_clear(&bytes);
    piece->make(&bytes);
}

static void bad16(const struct piece *piece, size_t at, uint16_t value, const char *words)
{
    fresh(piece);
    put16(at, value);
    expect(piece->try(), -EBADMSG, words);
}

static void bad32(const struct piece *piece, size_t at, uint32_t value, const char *words)
{
    fresh(piece);
    put32(at, value);
    expect(piece->try(), -EBADMSG, words);
}

static void bad64(const struct piece *piece, size_t at, uint64_t value, const char *words)
{
    fresh(piece);
    put64(at, value);
    expect(piece->try(), -EBADMSG, words);
}

/* What all pieces have in common. */
static void test_headers(void **state)
{
    for (size_t i = 0; i < PIECE_COUNT; i++) {
        fresh(pieces[i]);
        assert_int_equal(pieces[i]->try(), 0);
        uint16_t header_bytes = load_u16le(bytes.data + 2);
        put16(0, 1);
        expect(pieces[i]->try(), -EPROTONOSUPPORT, "layout 1");
        bad16(pieces[i], 2, header_bytes - 8, "a header of");
        bad16(pieces[i], 2, header_bytes + 8, "by its header");
        bad16(pieces[i], 2, header_bytes + 1, "a header of");
        bad16(pieces[i], 2, PIECE_HEADER_MAX + 8, "a header of");
        /* Every shorter length, and one byte more. */
        fresh(pieces[i]);
        size_t length = bytes.length;
        for (bytes.length = 0; bytes.length < length; bytes.length++)
            assert_int_equal(pieces[i]->try(), -EBADMSG);
        buffer_put_u8(&bytes, 0);
        expect(pieces[i]->try(), -EBADMSG, "by its header");
        /* A longer header is a later release's. */
        fresh(pieces[i]);
        struct buffer longer = BUFFER_EMPTY;
        buffer_put(&longer, bytes.data, header_bytes);
        buffer_put(&longer, "anything", 8);
        buffer_put(&longer, bytes.data + header_bytes, bytes.length - header_bytes);
        store_u16le(longer.data + 2, header_bytes + 8);
        buffer_free(&bytes);
        bytes = longer;
        assert_int_equal(pieces[i]->try(), 0);
        bytes.length = header_bytes;
        expect(pieces[i]->try(), -EBADMSG, "a header of");
    }
}

static void test_no_bit_crashes(void **state)
{
    for (size_t i = 0; i < PIECE_COUNT; i++) {
        fresh(pieces[i]);
        for (size_t at = 0; at < bytes.length; at++) {
            for (int bit = 0; bit < 8; bit++) {
                bytes.data[at] ^= (uint8_t)(1 << bit);
                int result = pieces[i]->try();
                assert_true(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
                assert_true((result == 0) == (story.story[0] == '\0'));
                bytes.data[at] ^= (uint8_t)(1 << bit);
            }
        }
    }
}

static void test_golden(void **state)
{
    struct buffer object = BUFFER_EMPTY;
    sample_checkpoint(&object);
    assert_true(is_golden(object.data, object.length, golden_checkpoint));
    assert_int_equal(object.length, 896);
    assert_int_equal(load_u32le(object.data + SAMPLE_ROOT_START * FRAME_UNIT), FRAME_MAGIC);
    buffer_clear(&object);
    sample_graves(&object);
    assert_true(is_golden(object.data, object.length, golden_graves));
    buffer_free(&object);
}

/* ---- leaves ---- */

static void assert_leaves_equal(const struct leaf *a, const struct leaf *b)
{
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->run_count, b->run_count);
    for (uint32_t i = 0; i < a->run_count; i++) {
        const struct leaf_run *x = &a->runs[i], *y = &b->runs[i];
        assert_true(x->first == y->first && x->count == y->count && x->frame_page == y->frame_page);
        assert_true(x->frame_pages == y->frame_pages && x->start == y->start && x->units == y->units);
        assert_int_equal(x->object, y->object);
    }
}

static void test_leaves_round_trip(void **state)
{
    struct chance chance = { 31 };
    struct random_leaves *random = memory_new(sizeof(*random));
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    for (int round = 0; round < ROUNDS; round++) {
        random_leaves(&chance, random);
        for (uint32_t i = 0; i < random->leaf_count; i++)
            assert_true(leaves_writer_add(writer, &random->leaves[i]));
        assert_int_equal(leaves_writer_count(writer), random->leaf_count);
        buffer_clear(&bytes);
        buffer_put_u8(&bytes, 99); /* appended to what is there */
        leaves_writer_finish(writer, &bytes);
        assert_int_equal(leaves_writer_count(writer), 0);
        struct leaves_frame frame;
        assert_int_equal(leaves_decode(bytes.data + 1, bytes.length - 1, &frame, &story), 0);
        assert_int_equal(frame.leaf_count, random->leaf_count);
        assert_int_equal(frame.run_count, random->run_count);
        for (uint32_t i = 0; i < frame.leaf_count; i++)
            assert_leaves_equal(&frame.leaves[i], &random->leaves[i]);
        leaves_frame_free(&frame);
    }
    leaves_writer_free(writer);
    free(random);
}

/* A frame is filled with the longest leaves: what is refused leaves no trace, and what was taken is whole. */
static void test_leaves_fill_a_frame(void **state)
{
    struct leaf_run runs[LEAF_PAGES];
    struct leaf leaf;
    struct leaves_frame frame;
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    for (int round = 0; round < 3; round++) {
        uint32_t count = 0;
        for (;; count++) {
            worst_leaf(LEAVES_MAX - 100 + count, 1 + UINT64_C(1000) * count, runs, &leaf);
            if (!leaves_writer_add(writer, &leaf))
                break;
        }
        assert_int_equal(count, (PIECE_PAYLOAD_MAX - LEAVES_HEADER_BYTES) / (8 + LEAF_PAGES * 18));
        assert_false(leaves_writer_add(writer, &leaf));
        /* One of few objects has room still. */
        for (uint32_t i = 0; i < LEAF_PAGES; i++)
            runs[i].object = 1;
        leaf.number = LEAVES_MAX - 1;
        leaf.run_count = 100;
        assert_true(leaves_writer_add(writer, &leaf));
        buffer_clear(&bytes);
        leaves_writer_finish(writer, &bytes);
        assert_true(bytes.length <= PIECE_PAYLOAD_MAX);
        assert_int_equal(leaves_decode(bytes.data, bytes.length, &frame, &story), 0);
        assert_int_equal(frame.leaf_count, count + 1);
        assert_int_equal(frame.run_count, count * LEAF_PAGES + 100);
        worst_leaf(LEAVES_MAX - 100, 1, runs, &leaf);
        assert_leaves_equal(&frame.leaves[0], &leaf);
        leaves_frame_free(&frame);
    }
    leaves_writer_free(writer);
    /* The least room that a writer takes is that of the longest leaf. */
    writer = leaves_writer_new(LEAVES_HEADER_BYTES + 8 + LEAF_PAGES * 18);
    worst_leaf(0, OBJECT_ID_MAX - LEAF_PAGES + 1, runs, &leaf);
    assert_true(leaves_writer_add(writer, &leaf));
    leaf.number = 1;
    leaf.run_count = 1;
    assert_false(leaves_writer_add(writer, &leaf));
    buffer_clear(&bytes);
    leaves_writer_finish(writer, &bytes);
    assert_int_equal(bytes.length, 9248);
    assert_int_equal(try_leaves(), 0);
    leaves_writer_free(writer);
    leaves_writer_free(NULL);
}

/* What a compact leaf takes: one that was written in order has 16 frames in one object. */
static void test_leaves_written_in_order(void **state)
{
    struct leaf_run runs[LEAF_BLOCKS];
    struct leaf leaf = { .runs = runs, .run_count = LEAF_BLOCKS };
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        runs[i] = (struct leaf_run){
            .first = (uint16_t)(i * 32), .count = 32, .frame_pages = 32, .units = 2049, .object = 5
        };
    while (leaves_writer_add(writer, &leaf))
        leaf.number++;
    assert_int_equal(leaf.number, (PIECE_PAYLOAD_MAX - LEAVES_HEADER_BYTES - 8) / (8 + LEAF_BLOCKS * 10));
    buffer_clear(&bytes);
    leaves_writer_finish(writer, &bytes);
    assert_int_equal(try_leaves(), 0);
    leaves_writer_free(writer);
}

/* The sample: header 24, id at 24, leaf at 32, run at 40. Page 37, start 5, units 65. */
static void test_leaves_rules(void **state)
{
    const struct piece *piece = &leaves_piece;
    bad32(piece, 4, 0, "by its header");
    bad32(piece, 4, 2, "by its header");
    bad32(piece, 4, UINT32_MAX, "by its header");
    bad32(piece, 8, UINT32_MAX, "by its header");
    bad32(piece, 12, UINT32_MAX, "by its header");
    bad64(piece, 24, 0, "object id 0");
    bad64(piece, 24, OBJECT_ID_MAX + 1, "none goes so far");
    bad32(piece, 32, LEAVES_MAX, "beyond the largest disk");
    bad16(piece, 36, 0, "the leaves have 0");
    bad16(piece, 36, 2, "the leaves have 2");
    bad32(piece, 40, 5 | 37u << 18 | 27u << 27, "beyond its block");
    bad32(piece, 40, 5 | 37u << 18 | 1u << 27, "of a frame that has 1");
    bad32(piece, 44, 65 | 1u << 12, "of a frame that has 1");
    bad32(piece, 44, 1, "in 1 units");
    bad32(piece, 44, 66, "in 66 units");
    bad32(piece, 40, (OBJECT_UNITS_MAX - 64) | 37u << 18, "in 65 units");
    bad16(piece, 48, 1, "in object 0");
    fresh(piece);
    put32(40, (OBJECT_UNITS_MAX - 65) | 37u << 18);
    put32(32, LEAVES_MAX - 1);
    put64(24, OBJECT_ID_MAX);
    put64(16, UINT64_MAX); /* reserved, as the next two */
    put16(38, UINT16_MAX);
    put32(44, 65 | 0x3ffu << 22);
    assert_int_equal(try_leaves(), 0);
}

/* Two leaves, with two runs and one, of objects 7 and 9: ids at 24, leaves at 40, runs at 56. */
static void make_two_leaves(struct buffer *payload)
{
    struct leaf_run runs[] = { { .first = 0, .count = 3, .frame_pages = 3, .start = 5, .units = 65, .object = 9 },
                               { .first = 3, .count = 1, .frame_pages = 1, .start = 5, .units = 65, .object = 7 } };
    struct leaf first = { .number = 4, .runs = runs, .run_count = 2 };
    struct leaf second = { .number = 6, .runs = runs, .run_count = 1 };
    struct leaves_writer *writer = leaves_writer_new(9248);
    assert_true(leaves_writer_add(writer, &first));
    assert_true(leaves_writer_add(writer, &second));
    leaves_writer_finish(writer, payload);
    leaves_writer_free(writer);
}

static void test_leaves_order(void **state)
{
    const struct piece piece = { make_two_leaves, try_leaves };
    fresh(&piece);
    assert_int_equal(bytes.length, 86);
    assert_int_equal(load_u64le(bytes.data + 24), 7);
    assert_int_equal(try_leaves(), 0);
    bad64(&piece, 24, 9, "behind 9");
    bad64(&piece, 24, 10, "behind 10");
    bad32(&piece, 40, 6, "leaf 6 behind leaf 6");
    bad32(&piece, 40, 7, "leaf 6 behind leaf 7");
    bad32(&piece, 66, 5 | 2u << 18, "before the end of the one before it, 3");
    /* Runs that change hands: a leaf without one, and one with too many. */
    fresh(&piece);
    put16(44, 3);
    put16(52, 0);
    expect(try_leaves(), -EBADMSG, "before the end of the one before it");
    fresh(&piece);
    put16(44, 0);
    put16(52, 3);
    expect(try_leaves(), -EBADMSG, "leaf 4: 0 runs");
    fresh(&leaves_piece); /* no leaf at all */
    put32(4, 0);
    put32(8, 0);
    put32(12, 0);
    bytes.length = 24;
    expect(try_leaves(), -EBADMSG, "there are none");
}

/* ---- mids ---- */

static void test_mid_round_trip(void **state)
{
    struct chance chance = { 32 };
    for (int round = 0; round < ROUNDS; round++) {
        struct mid_frame mid = random_mid(&chance), decoded;
        buffer_clear(&bytes);
        buffer_put_u8(&bytes, 99);
        mid_encode(&mid, &bytes);
        assert_int_equal(mid_decode(bytes.data + 1, bytes.length - 1, &decoded, &story), 0);
        assert_int_equal(decoded.number, mid.number);
        assert_int_equal(decoded.slot_count, mid.slot_count);
        for (uint32_t i = 0; i < mid.slot_count; i++) {
            const struct mid_slot *a = &mid.slots[i], *b = &decoded.slots[i];
            assert_true(a->leaf == b->leaf && a->place.object == b->place.object);
            assert_true(a->place.start == b->place.start && a->place.units == b->place.units);
        }
        mid_frame_free(&decoded);
        mid_frame_free(&mid);
    }
}

static void test_mid_at_its_largest(void **state)
{
    struct mid_frame mid = { .number = MIDS_MAX - 1, .slot_count = MID_LEAVES };
    mid.slots = memory_array(MID_LEAVES, sizeof(*mid.slots));
    for (uint32_t i = 0; i < MID_LEAVES; i++) {
        mid.slots[i].leaf = (uint16_t)i;
        mid.slots[i].place = (struct piece_place){ .object = OBJECT_ID_MAX - i,
                                                   .start = OBJECT_UNITS_MAX - PIECE_UNITS_MAX,
                                                   .units = PIECE_UNITS_MAX };
    }
    buffer_clear(&bytes);
    mid_encode(&mid, &bytes);
    assert_int_equal(bytes.length, 24 + 1024 * 16);
    assert_int_equal(try_mid(), 0);
    mid_frame_free(&mid);
}

/* Header 24, id at 24, slot at 32. */
static void test_mid_rules(void **state)
{
    const struct piece *piece = &mid_piece;
    bad32(piece, 4, MIDS_MAX, "beyond the largest disk");
    bad32(piece, 8, 0, "by its header");
    bad32(piece, 8, UINT32_MAX, "by its header");
    bad32(piece, 12, UINT32_MAX, "by its header");
    bad64(piece, 24, 0, "object id 0");
    bad64(piece, 24, OBJECT_ID_MAX + 1, "none goes so far");
    bad32(piece, 32, 1u << 18, "1 units");
    bad32(piece, 32, 0, "0 units");
    bad32(piece, 32, (OBJECT_UNITS_MAX - 1) | 2u << 18, "2 units from unit 262143");
    bad16(piece, 36, 1, "in object 0");
    bad16(piece, 38, MID_LEAVES, "leaf 1024");
    fresh(piece);
    put32(32, (OBJECT_UNITS_MAX - 2) | 2u << 18 | 3u << 30); /* the highest two are reserved */
    put64(16, UINT64_MAX);
    assert_int_equal(try_mid(), 0);
    fresh(piece);
    put32(8, 0);
    put32(12, 0);
    bytes.length = 24;
    expect(try_mid(), -EBADMSG, "0 leaves");
    fresh(piece);
    put32(8, 2);
    uint8_t slot[8];
    memcpy(slot, bytes.data + 32, 8);
    buffer_put(&bytes, slot, 8);
    expect(try_mid(), -EBADMSG, "leaf 0 behind leaf 0");
    put16(46, 1);
    assert_int_equal(try_mid(), 0);
    put32(8, MID_LEAVES + 1);
    for (uint32_t i = 2; i <= MID_LEAVES; i++)
        buffer_put(&bytes, slot, 8);
    expect(try_mid(), -EBADMSG, "1025 leaves");
}

/* ---- rows ---- */

static void assert_rows_equal(const struct object_row *a, const struct object_row *b)
{
    assert_true(a->id == b->id && a->kind == b->kind && a->role == b->role && uuid_equal(&a->uuid, &b->uuid));
    assert_true(a->epoch == b->epoch && a->n == b->n && a->seq == b->seq);
    assert_true(a->born == b->born && a->died == b->died && a->total_bytes == b->total_bytes && a->live == b->live);
}

static void assert_graves_equal(const struct frame_place *a, const struct frame_place *b)
{
    assert_true(uuid_equal(&a->uuid, &b->uuid) && b->kind == OBJECT_DATA);
    assert_true(a->epoch == b->epoch && a->n == b->n && a->offset == b->offset);
}

static void test_objects_round_trip(void **state)
{
    struct chance chance = { 33 };
    for (int round = 0; round < ROUNDS; round++) {
        struct objects_frame objects = round % 2 == 0 ? random_chunk(&chance) : random_graves(&chance), decoded;
        if (objects.row_count == 0) { /* began beyond the chunk's end */
            objects_frame_free(&objects);
            continue;
        }
        buffer_clear(&bytes);
        buffer_put_u8(&bytes, 99);
        objects_encode(&objects, &bytes);
        assert_int_equal(objects_decode(bytes.data + 1, bytes.length - 1, &decoded, &story), 0);
        assert_true(decoded.graves == objects.graves && decoded.first_id == objects.first_id);
        assert_true(decoded.has_previous == objects.has_previous);
        assert_int_equal(decoded.previous_units, objects.previous_units);
        assert_graves_equal(&objects.previous, &decoded.previous);
        assert_int_equal(decoded.row_count, objects.row_count);
        for (uint32_t i = 0; i < objects.row_count; i++)
            assert_rows_equal(&decoded.rows[i], &objects.rows[i]);
        objects_frame_free(&decoded);
        objects_frame_free(&objects);
    }
}

static void test_graves_at_their_most(void **state)
{
    struct objects_frame graves = { .graves = true, .row_count = GRAVES_MAX };
    graves.rows = memory_array(GRAVES_MAX + 1, sizeof(*graves.rows));
    for (uint32_t i = 0; i <= GRAVES_MAX; i++) {
        graves.rows[i] = (struct object_row){
            .id = 1 + i, .kind = OBJECT_LOG, .role = ROLE_PAGES, .seq = 1 + i, .born = 1, .died = NUMBER_MAX
        };
        store_u32le(graves.rows[i].uuid.bytes, i);
    }
    buffer_clear(&bytes);
    objects_encode(&graves, &bytes);
    assert_int_equal(bytes.length, 64 + GRAVES_MAX * 72);
    assert_true(bytes.length <= PIECE_PAYLOAD_MAX);
    assert_int_equal(try_objects(), 0);
    /* One more than that. */
    struct buffer more = BUFFER_EMPTY;
    buffer_put(&more, bytes.data, bytes.length);
    buffer_put(&more, bytes.data + bytes.length - OBJECT_ROW_BYTES, OBJECT_ROW_BYTES);
    buffer_free(&bytes);
    bytes = more;
    put32(8, GRAVES_MAX + 1);
    expect(try_objects(), -EBADMSG, "2049 rows");
    objects_frame_free(&graves);
}

/* Header 64, UUID at 64, row at 80: id, seq, n, born, died, live at +40, bytes +44, UUID +48, kind +50, role +51. */
static void test_chunk_rules(void **state)
{
    const struct piece *piece = &chunk_piece;
    bad32(piece, 8, 0, "by its header");
    bad32(piece, 8, UINT32_MAX, "by its header");
    bad32(piece, 12, UINT32_MAX, "by its header");
    bad64(piece, 16, 2, "object 1 in the chunk from id 2");
    bad64(piece, 16, OBJECT_ID_MAX + 1, "a chunk from id");
    bad64(piece, 16, 256, "object 1 in the chunk from id 256");
    bad32(piece, 4, 1, "has not died, among those that have");
    bad32(piece, 4, 2, "a chunk that names graves");
    bad64(piece, 24, 1, "and there are none");
    bad32(piece, 60, 1, "and there are none");
    bad64(piece, 80, 0, "of object 0");
    bad64(piece, 80, OBJECT_ID_MAX + 1, "which cannot be");
    bad64(piece, 88, 0, "a log entry of seq 0");
    bad64(piece, 88, NUMBER_MAX + 1, "a log entry of seq");
    bad64(piece, 96, 1, "a log entry of seq");
    bad64(piece, 104, 0, "born at seq 0");
    bad64(piece, 104, NUMBER_MAX + 1, "born at seq");
    bad64(piece, 112, 0, "died at 0");
    bad64(piece, 112, NUMBER_MAX + 1, "died at");
    bad64(piece, 112, 1, "has died, and 1 pages live");
    bad32(piece, 120, 0, "has not died, and 0 pages live");
    bad32(piece, 124, 63, "63 bytes of frames");
    bad32(piece, 124, OBJECT_BYTES_MAX + 64, "bytes of frames");
    bad16(piece, 128, 1, "has UUID 1");
    fresh(piece);
    put32(4, 4);
    expect(try_objects(), -EPROTONOSUPPORT, "flags 00000004");
    fresh(piece);
    bytes.data[130] = 3;
    expect(try_objects(), -EPROTONOSUPPORT, "kind 3");
    fresh(piece);
    bytes.data[131] = 3;
    expect(try_objects(), -EPROTONOSUPPORT, "role 3");
    fresh(piece);
    bytes.data[131] = ROLE_PIECES;
    expect(try_objects(), -EBADMSG, "a log entry that holds pieces");
    fresh(piece);
    put32(132, UINT32_MAX); /* reserved */
    put32(124, 0);
    assert_int_equal(try_objects(), 0);
}

/* Two rows of one chunk; they are at 80 and 136. */
static void make_two_rows(struct buffer *payload)
{
    struct object_row rows[] = {
        { .id = 256, .kind = OBJECT_DATA, .role = ROLE_PIECES, .epoch = 1, .born = 1, .total_bytes = 64, .live = 1 },
        { .id = 511,
          .kind = OBJECT_DATA,
          .role = ROLE_PAGES,
          .epoch = 1,
          .n = 1,
          .born = 2,
          .total_bytes = 64,
          .live = 1 },
    };
    rows[0].died = rows[1].died = UINT64_MAX;
    struct objects_frame chunk = { .first_id = 256, .rows = rows, .row_count = 2 };
    objects_encode(&chunk, payload);
}

static void test_chunk_order(void **state)
{
    const struct piece piece = { make_two_rows, try_objects };
    fresh(&piece);
    assert_int_equal(bytes.length, 64 + 16 + 2 * 56);
    assert_int_equal(try_objects(), 0);
    bad64(&piece, 80, 511, "object 511 behind object 511");
    bad64(&piece, 80, 255, "in the chunk from id 256");
    bad64(&piece, 88, 0, "a data object of epoch 0");
    bad64(&piece, 88, NUMBER_MAX + 1, "a data object of epoch");
    bad32(&piece, 124, 0, "a data object of no bytes");
    fresh(&piece);
    put64(136, OBJECT_ID_MAX); /* however far away: the root says where the next chunk begins */
    assert_int_equal(try_objects(), 0);
    put32(120, 0);
    put64(112, 7);
    expect(try_objects(), -EBADMSG, "object 256 has died, among those that have not");
}

/* Two UUIDs that do not ascend. */
static void test_uuids_ascend(void **state)
{
    struct objects_frame chunk = { .row_count = 2 };
    struct chance chance = { 34 };
    struct object_row rows[2] = { random_row(&chance, 1), random_row(&chance, 2) };
    memset(rows[0].uuid.bytes, 9, 16);
    memset(rows[1].uuid.bytes, 8, 16);
    chunk.rows = rows;
    buffer_clear(&bytes);
    objects_encode(&chunk, &bytes);
    assert_int_equal(bytes.data[64], 8);
    assert_int_equal(try_objects(), 0);
    bytes.data[64] = 9;
    memset(bytes.data + 64, 9, 16);
    expect(try_objects(), -EBADMSG, "UUID 2 is not above");
}

/* Header 64, with the older graves' place from 24 on: UUID, epoch 40, n 48, start 56, units 60. UUID 64, row 80. */
static void test_graves_rules(void **state)
{
    const struct piece *piece = &graves_piece;
    bad32(piece, 4, 2, "a chunk that names graves");
    bad64(piece, 16, 256, "graves from id 256");
    bad32(piece, 4, 1, "and there are none");
    bad64(piece, 40, 0, "of epoch 0");
    bad64(piece, 40, NUMBER_MAX + 1, "of epoch");
    bad32(piece, 60, 1, "graves of 1 units");
    bad32(piece, 60, PIECE_UNITS_MAX + 1, "graves of 4096 units");
    bad32(piece, 56, OBJECT_UNITS_MAX - 4, "graves of 5 units");
    bad64(piece, 112, UINT64_MAX, "has not died, and 0 pages live");
    bad64(piece, 112, 2, "died at 2");
    bad32(piece, 120, 1, "has died, and 1 pages live");
    fresh(piece);
    put32(120, 1);
    put64(112, UINT64_MAX);
    expect(try_objects(), -EBADMSG, "has not died, among those that have died");
}

static void test_graves_order(void **state)
{
    struct object_row rows[2];
    struct chance chance = { 35 };
    for (int i = 0; i < 2; i++) {
        rows[i] = random_row(&chance, 10);
        rows[i].live = 0;
        rows[i].born = 1;
        rows[i].died = 5 + (uint64_t)i;
    }
    struct objects_frame graves = { .graves = true, .rows = rows, .row_count = 2 };
    rows[1].id = 3; /* younger dead may have smaller ids */
    buffer_clear(&bytes);
    objects_encode(&graves, &bytes);
    assert_int_equal(try_objects(), 0);
    size_t second = bytes.length - OBJECT_ROW_BYTES;
    put64(second + 32, 5);
    expect(try_objects(), -EBADMSG, "object 3 behind object 10");
    put64(second, 10);
    expect(try_objects(), -EBADMSG, "object 10 behind object 10");
    put64(second, 11);
    assert_int_equal(try_objects(), 0);
    put64(second + 32, 4);
    expect(try_objects(), -EBADMSG, "object 11 behind object 10");
}

/* ---- the root ---- */

static void test_root_round_trip(void **state)
{
    struct chance chance = { 36 };
    for (int round = 0; round < ROUNDS; round++) {
        struct root_frame root = random_root_frame(&chance), decoded;
        buffer_clear(&bytes);
        buffer_put_u8(&bytes, 99);
        root_frame_encode(&root, &bytes);
        assert_int_equal(bytes.length - 1, root_payload_bytes(root.own_count, root.mid_count, root.chunk_count));
        assert_int_equal(root_frame_decode(bytes.data + 1, bytes.length - 1, &decoded, &story), 0);
        assert_true(uuid_equal(&root.uuid, &decoded.uuid) && root.seq == decoded.seq && root.size == decoded.size);
        assert_memory_equal(root.hash, decoded.hash, SHA256_BYTES);
        assert_true(root.next_object_id == decoded.next_object_id && root.mapped_pages == decoded.mapped_pages);
        assert_true(root.has_graves == decoded.has_graves && root.graves_units == decoded.graves_units);
        assert_graves_equal(&root.graves, &decoded.graves);
        assert_true(root.own_count == decoded.own_count && root.mid_count == decoded.mid_count);
        assert_int_equal(root.chunk_count, decoded.chunk_count);
        for (uint32_t i = 0; i < root.own_count; i++)
            assert_rows_equal(&root.own[i], &decoded.own[i]);
        for (uint32_t i = 0; i < root.mid_count; i++) {
            assert_int_equal(root.mids[i].number, decoded.mids[i].number);
            assert_memory_equal(&root.mids[i].place, &decoded.mids[i].place, sizeof(struct piece_place));
        }
        for (uint32_t i = 0; i < root.chunk_count; i++) {
            assert_int_equal(root.chunks[i].first_id, decoded.chunks[i].first_id);
            assert_int_equal(root.chunks[i].row_count, decoded.chunks[i].row_count);
            assert_memory_equal(&root.chunks[i].place, &decoded.chunks[i].place, sizeof(struct piece_place));
        }
        root_frame_free(&decoded);
        root_frame_free(&root);
    }
}

/* As many of everything as the limits allow: it fits the largest frame. */
static void test_root_at_its_largest(void **state)
{
    struct root_frame root = { .seq = NUMBER_MAX,
                               .size = VOLUME_BYTES_MAX,
                               .next_object_id = OBJECT_ID_READ_MAX,
                               .mapped_pages = VOLUME_PAGES_MAX,
                               .own_count = ROOT_OWN_MAX,
                               .mid_count = MIDS_MAX,
                               .chunk_count = ROOT_CHUNKS_MAX };
    struct piece_place place = { .object = root.next_object_id - 1,
                                 .start = OBJECT_UNITS_MAX - PIECE_UNITS_MAX,
                                 .units = PIECE_UNITS_MAX };
    root.own = memory_array(root.own_count, sizeof(*root.own));
    root.mids = memory_array(root.mid_count, sizeof(*root.mids));
    root.chunks = memory_array(root.chunk_count + 1, sizeof(*root.chunks));
    for (uint32_t i = 0; i < root.own_count; i++)
        root.own[i] = (struct object_row){ .id = 1 + i,
                                           .kind = OBJECT_DATA,
                                           .role = ROLE_PIECES,
                                           .epoch = 1,
                                           .born = 1,
                                           .died = UINT64_MAX,
                                           .total_bytes = OBJECT_BYTES_MAX,
                                           .live = 1 };
    for (uint32_t i = 0; i < root.mid_count; i++)
        root.mids[i] = (struct root_mid){ .number = i, .place = place };
    for (uint32_t i = 0; i < root.chunk_count; i++)
        root.chunks[i] = (struct root_chunk){ .first_id = (uint64_t)i * 300, .row_count = 256, .place = place };
    buffer_clear(&bytes);
    root_frame_encode(&root, &bytes);
    assert_true(bytes.length <= FRAME_PAYLOAD_MAX);
    assert_int_equal(try_root(), 0);
    uint8_t chunk[ROOT_CHUNK_BYTES];
    memcpy(chunk, bytes.data + bytes.length - sizeof(chunk), sizeof(chunk));
    buffer_put(&bytes, chunk, sizeof(chunk));
    put32(96, ROOT_CHUNKS_MAX + 1);
    expect(try_root(), -EBADMSG, "262145 chunks");
    root_frame_free(&root);
}

/* Header 192 (uuid 8, seq 24, size 64, next 72, mapped 80, counts 88, graves 104), own 192, mid 248, chunk 264. */
static void test_root_rules(void **state)
{
    const struct piece *piece = &root_piece;
    bad64(piece, 24, 0, "of seq 0");
    bad64(piece, 24, NUMBER_MAX + 1, "of seq");
    bad64(piece, 64, 0, "a disk of 0 bytes");
    bad64(piece, 64, 513, "a disk of 513 bytes");
    bad64(piece, 64, VOLUME_BYTES_MAX + 512, "a disk of");
    bad64(piece, 72, 0, "next object id 0");
    bad64(piece, 72, OBJECT_ID_READ_MAX + 1, "next object id");
    bad64(piece, 72, SAMPLE_OWN_ID, "object 2, and the next id is 2");
    bad64(piece, 80, 0, "0 of 262144 pages mapped, by 1 mids");
    bad64(piece, 80, 262145, "262145 of 262144 pages mapped");
    for (size_t at = 88; at < 100; at += 4) {
        bad32(piece, at, 0, "by its header");
        bad32(piece, at, UINT32_MAX, "by its header");
    }
    bad64(piece, 104, 1, "and there are none");
    bad32(piece, 144 - 4, 1, "and there are none");
    bad32(piece, 4, 1, "graves in an object of epoch 0");
    fresh(piece);
    put32(4, 2);
    expect(try_root(), -EPROTONOSUPPORT, "flags 00000002");
    fresh(piece);
    put32(4, 1);
    put64(120, 1);
    put32(140, 2);
    put32(100, UINT32_MAX); /* reserved, as the next */
    put64(184, UINT64_MAX);
    assert_int_equal(try_root(), 0);
    put64(64, 512); /* the last page of a disk is not whole */
    assert_int_equal(try_root(), 0);
}

static void test_root_rows(void **state)
{
    const struct piece *piece = &root_piece;
    bad64(piece, 192, 0, "row 1 is of object 0");
    bad64(piece, 192, SAMPLE_NEXT_ID, "and the next id is");
    bad16(piece, 192 + 48, 1, "has UUID 1");
    bad16(piece, 192 + 50, OBJECT_DATA | ROLE_PAGES << 8, "not one that its checkpoint could have made");
    bad16(piece, 192 + 50, OBJECT_LOG | ROLE_PAGES << 8, "a log entry of seq 1"); /* of an epoch and an n */
    fresh(piece);
    put64(192 + 32, 5);
    put32(192 + 40, 0);
    expect(try_root(), -EBADMSG, "not one that its checkpoint could have made");
    bad64(piece, 248, 0, "mid 0: in object 0");
    bad64(piece, 248, SAMPLE_NEXT_ID, "mid 0: in object 65538, and the next id is 65538");
    bad32(piece, 256, 1 << 18, "mid 0: 1 units");
    bad32(piece, 260, 1, "mid 1 is beyond the end of the disk");
    bad64(piece, 264, 0, "chunk 0: in object 0");
    bad64(piece, 272, SAMPLE_NEXT_ID / 256 * 256 + 256, "a chunk from id");
    bad32(piece, 280, 0, "chunk 0: 0 units");
    bad32(piece, 284, 0, "chunk 0: 0 rows");
    bad32(piece, 284, CHUNK_ROWS_MAX + 1, "chunk 0: 257 rows");
}

static void test_root_order(void **state)
{
    struct chance chance = { 37 };
    struct root_frame root;
    do {
        root = random_root_frame(&chance);
        if (root.own_count >= 2 && root.mid_count >= 2 && root.chunk_count >= 2)
            break;
        root_frame_free(&root);
    } while (true);
    buffer_clear(&bytes);
    root_frame_encode(&root, &bytes);
    size_t own = 192, mids = own + root.own_count * (size_t)56, chunks = mids + root.mid_count * (size_t)16;
    put64(own + 56, root.own[0].id);
    expect(try_root(), -EBADMSG, "behind object");
    put64(own + 56, root.own[1].id);
    put32(mids + 16 + 12, (uint32_t)root.mids[0].number);
    expect(try_root(), -EBADMSG, "behind mid");
    put32(mids + 16 + 12, (uint32_t)root.mids[1].number);
    put64(chunks + 24 + 8, root.chunks[0].first_id);
    expect(try_root(), -EBADMSG, "behind chunk");
    put64(chunks + 24 + 8, root.chunks[1].first_id);
    assert_int_equal(try_root(), 0);
    root_frame_free(&root);
    /* Nothing of its own: not even the root could be anywhere. */
    fresh(&root_piece);
    put32(88, 0);
    memmove(bytes.data + 192, bytes.data + 248, bytes.length - 248);
    bytes.length -= 56;
    expect(try_root(), -EBADMSG, "0 objects of its own");
}

static int finish(void **state)
{
    buffer_free(&bytes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_no_bit_crashes),
        cmocka_unit_test(test_leaves_round_trip),
        cmocka_unit_test(test_leaves_fill_a_frame),
        cmocka_unit_test(test_leaves_written_in_order),
        cmocka_unit_test(test_leaves_rules),
        cmocka_unit_test(test_leaves_order),
        cmocka_unit_test(test_mid_round_trip),
        cmocka_unit_test(test_mid_at_its_largest),
        cmocka_unit_test(test_mid_rules),
        cmocka_unit_test(test_objects_round_trip),
        cmocka_unit_test(test_graves_at_their_most),
        cmocka_unit_test(test_chunk_rules),
        cmocka_unit_test(test_chunk_order),
        cmocka_unit_test(test_uuids_ascend),
        cmocka_unit_test(test_graves_rules),
        cmocka_unit_test(test_graves_order),
        cmocka_unit_test(test_root_round_trip),
        cmocka_unit_test(test_root_at_its_largest),
        cmocka_unit_test(test_root_rules),
        cmocka_unit_test(test_root_rows),
        cmocka_unit_test(test_root_order),
    };
    return cmocka_run_group_tests_name("format_checkpoint", tests, NULL, finish);
}
