/* The dump: everything of a sound object, every problem of a damaged one, and never a crash. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/checkpoint_samples.h"

#define UUID_TEXT_SAMPLE "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
#define LOG_1 "v/" UUID_TEXT_SAMPLE "/log/00000000000000000001"
#define LOG_2 "v/" UUID_TEXT_SAMPLE "/log/00000000000000000002"
#define LOG_3 "v/" UUID_TEXT_SAMPLE "/log/00000000000000000003"
#define DATA_1_1 "v/" UUID_TEXT_SAMPLE "/data/00000000000000000001/00000000000000000001"
#define DATA_1_6 "v/" UUID_TEXT_SAMPLE "/data/00000000000000000001/00000000000000000006"

static struct buffer text = BUFFER_EMPTY;
static struct error story;

static int dump(const char *key, const struct buffer *bytes)
{
    buffer_clear(&text);
    story = (struct error)ERROR_NONE;
    int result = format_dump(key, bytes->data, bytes->length, &text, &story);
    assert_true(text.length > 0);
    assert_int_equal(strlen((const char *)text.data), text.length);
    assert_int_equal(result, -story.code);
    assert_true((result == 0) == (strstr((const char *)text.data, "verdict: sound\n") != NULL));
    assert_true((result == 0) == (strstr((const char *)text.data, "problem: ") == NULL));
    return result;
}

static void expect_line(const char *line)
{
    if (strstr((const char *)text.data, line) == NULL)
        print_error("not there: %s\nin:\n%s", line, (const char *)text.data);
    assert_non_null(strstr((const char *)text.data, line));
}

static struct buffer commit_small(void)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    sample_commit_small(&bytes, hash);
    return bytes;
}

static struct buffer encoded(struct register_body body)
{
    struct buffer bytes = BUFFER_EMPTY;
    assert_int_equal(register_encode(&body, &bytes, NULL), 0);
    register_free(&body);
    return bytes;
}

static void test_commit(void **state)
{
    struct buffer bytes = commit_small();
    assert_int_equal(dump(LOG_1, &bytes), 0);
    expect_line("key: '" LOG_1 "'\nbytes: 4480\nkind: log entry\nentry: 1 (commit)\n");
    expect_line("uuid: " UUID_TEXT_SAMPLE "\nseq: 1\nepoch: 1\nowner: 101112131415161718191a1b1c1d1e1f\n");
    expect_line("time: 2026-01-01T00:00:00.123Z\n");
    expect_line("front: 320 bytes\ninline: 4160\nobjects: 0\nextents: 1\nrecords: 0\n");
    expect_line("hash: 70a65f236ce166c0ea4fa0d1a77c9a0d825b69d1de6f1896ab5b2b5a06dcef97\n");
    expect_line("extent 1: pages 37 to 37 (1): inline, frame at 320, 4160 bytes, from page 0 of 1\n");
    expect_line("frame: at 320, kind 1 (pages), block 1, pages 5, 4096 bytes, 4096 stored, sound\n");
    buffer_clear(&bytes);
    uint8_t hash[SHA256_BYTES];
    sample_commit_full(&bytes, hash);
    assert_int_equal(dump(LOG_2, &bytes), 0);
    expect_line("object 2: id 4, 8256 bytes, " DATA_1_6 "\n");
    expect_line("extent 1: pages 0 to 4 (5): zeroes\n");
    expect_line("extent 4: pages 32 to 63 (32): object 1, frame at 16646080, 131136 bytes, from page 0 of 32\n");
    expect_line("record 1: type 77, 5 bytes: 68656c6c6f\n");
    expect_line("block 0, pages 5-6,9, ");
    buffer_clear(&bytes);
    sample_fence(&bytes, hash);
    assert_int_equal(dump(LOG_3, &bytes), 0);
    expect_line("entry: 2 (fence)\n");
    buffer_free(&bytes);
}

static void test_data(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    sample_data(&bytes);
    assert_int_equal(dump(DATA_1_6, &bytes), 0);
    expect_line("kind: data object\n");
    expect_line("frame: at 0, kind 1 (pages), block 3, pages 0-1, 8192 bytes, 8192 stored, sound\n");
    expect_line("frame: at 8256, kind 1 (pages), block 4, pages 0,31, 8192 bytes, 8192 stored, sound\n");
    buffer_free(&bytes);
}

static void test_checkpoint(void **state)
{
    struct buffer bytes = BUFFER_EMPTY, payload = BUFFER_EMPTY;
    sample_checkpoint(&bytes);
    assert_int_equal(dump(DATA_1_1, &bytes), 0);
    expect_line("frame: at 0, kind 2 (leaves), 50 bytes, 50 stored, sound\n  leaves: 1, runs: 1, objects: 1\n"
                "  leaf 0: pages 0 to 511, runs: 1\n"
                "    pages 37 to 37 (1): object 1, frame at 320, 4160 bytes, from page 0 of 1\n");
    expect_line("  mid: 0, leaves: 1, objects: 1\n  leaf 0: in object 2, at 0, 128 bytes\n");
    expect_line("  chunk: ids from 0, objects: 1, volumes: 1\n"
                "  object 1: " LOG_1 ", 4160 bytes of frames, born 1, 1 pages live\n");
    expect_line("  root: of " UUID_TEXT_SAMPLE ", seq 1, hash 70a65f236ce166c0ea4fa0d1a77c9a0d825b69d1de6f1896ab5b2b5a"
                "06dcef97\n  disk of 1073741824 bytes, 1 pages mapped, next object id 65538\n"
                "  objects of its own: 1, mids: 1, chunks: 1\n"
                "  object 2: " DATA_1_1 ", 896 bytes of frames, born 1, 4 pieces live\n"
                "  mid 0: in object 2, at 128, 128 bytes\n"
                "  chunk: ids from 0, objects: 1, in object 2, at 256, 256 bytes\n");
    buffer_clear(&bytes);
    sample_graves(&payload);
    sample_piece_frame(&bytes, FRAME_OBJECTS, &payload);
    assert_int_equal(dump(DATA_1_1, &bytes), 0);
    expect_line("  graves: 1, volumes: 1\n  older graves: in v/" UUID_TEXT_SAMPLE
                "/data/00000000000000000001/00000000000000000004, at 640, 320 bytes\n  object 77: ");
    expect_line(", 1048576 bytes of frames, born 3, died 9, 0 pages live\n");
    buffer_free(&payload);
    buffer_free(&bytes);
}

static void test_damaged_pieces_are_printed_still(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    sample_checkpoint(&bytes);
    bytes.data[110] ^= 1; /* the run's page in its frame */
    assert_int_equal(dump(DATA_1_1, &bytes), -EBADMSG);
    expect_line("50 stored, NOT SOUND\nproblem: at byte 0: frame: damaged: its checksum does not match its bytes\n");
    expect_line("    pages 37 to 37 (1): object 1, frame at 320, 4160 bytes, from page 16 of 1\n"
                "problem: at byte 0: leaves: leaf 0: a run of 1 pages from page 16 of a frame that has 1\n");
    struct iovec payload = piece_of(bytes.data + FRAME_HEADER_BYTES, 50);
    frame_seal(bytes.data, &payload, 1); /* sound as a frame, and breaks a rule all the same */
    assert_int_equal(dump(DATA_1_1, &bytes), -EBADMSG);
    expect_line("50 stored, sound\n");
    expect_line("verdict: NOT SOUND, 1 problem\n");
    bytes.length = 800; /* of a root that is cut off, the front */
    assert_int_equal(dump(DATA_1_1, &bytes), -EBADMSG);
    expect_line("  objects of its own: 1, mids: 1, chunks: 1\nproblem: at byte 512: root: 224 bytes, ");
    store_u16le(bytes.data + FRAME_HEADER_BYTES, 1);
    assert_int_equal(dump(DATA_1_1, &bytes), -EBADMSG);
    expect_line("problem: at byte 0: leaves: layout 1, and this program knows 0: use a newer cairn\n");
    buffer_free(&bytes);
}

static void test_register(void **state)
{
    struct buffer bytes = encoded(sample_register());
    assert_int_equal(dump("volumes/n.db", &bytes), 0);
    expect_line("kind: register\n");
    expect_line("name: 'db'\nuuid: " UUID_TEXT_SAMPLE "\nstate: live\n");
    expect_line("held: yes\n");
    expect_line("host: 'stone'\nprocess: 4711\n");
    expect_line("size: 1073741824 (1 GiB)\n");
    expect_line("newest root: seq 0, disk of 1073741824 bytes, next object id 1, empty, ");
    buffer_free(&bytes);
    bytes = encoded(sample_register_full());
    assert_int_equal(dump("volumes/n.db", &bytes), 0);
    expect_line("in object 4999 of " UUID_TEXT_SAMPLE ", epoch 3, n 17, at 6400, 576 bytes, ");
    expect_line("  child's name: 'db-test'\n  bytes of a later version: 8\n");
    expect_line("parent: " UUID_TEXT_SAMPLE "\nparent seq: 7\n");
    expect_line("field 29 (unknown): flags 0, 5 bytes: 68656c6c6f\n");
    buffer_free(&bytes);
}

static void test_marker(void **state)
{
    struct uuid uuid = sample_uuid();
    struct buffer bytes = BUFFER_EMPTY;
    marker_encode(&uuid, &bytes);
    assert_int_equal(dump("cairn", &bytes), 0);
    expect_line("kind: marker\nstore: " UUID_TEXT_SAMPLE "\n");
    bytes.data[60] ^= 1;
    assert_int_equal(dump("cairn", &bytes), -EBADMSG);
    expect_line("text: 'cairn store\\x0aformat: 1");
    buffer_free(&bytes);
}

static void test_keys_that_say_nothing(void **state)
{
    struct buffer bytes = commit_small();
    assert_int_equal(dump("some/file", &bytes), 0);
    expect_line("frame: at 320, ");
    buffer_clear(&bytes);
    sample_data(&bytes);
    assert_int_equal(dump("", &bytes), 0);
    buffer_free(&bytes);
    bytes = encoded(sample_register());
    assert_int_equal(dump("register.bin", &bytes), 0);
    buffer_clear(&bytes);
    buffer_put(&bytes, "what is this", 12);
    assert_int_equal(dump("some/file", &bytes), -EMEDIUMTYPE);
    buffer_clear(&bytes);
    assert_int_equal(dump("some/file", &bytes), -EMEDIUMTYPE);
    assert_int_equal(dump(LOG_1, &bytes), -EBADMSG);
    assert_int_equal(dump(DATA_1_6, &bytes), -EBADMSG);
    assert_int_equal(dump("volumes/n.db", &bytes), -EBADMSG);
    assert_int_equal(dump("cairn", &bytes), -EBADMSG);
    buffer_free(&bytes);
}

static void test_wrong_keys(void **state)
{
    struct buffer bytes = commit_small();
    assert_int_equal(dump(LOG_2, &bytes), -EMEDIUMTYPE);
    expect_line("problem: log entry: belongs to another key, " LOG_1 "\n");
    expect_line("problem: at byte 320: frame: whole, but of another volume, object or place\n");
    assert_int_equal(dump(DATA_1_6, &bytes), -EMEDIUMTYPE);
    expect_line("problem: the key is that of a data object, the bytes are those of a log entry\n");
    expect_line("extent 1: pages 37 ");
    buffer_free(&bytes);
    bytes = encoded(sample_register());
    assert_int_equal(dump("volumes/n.dc", &bytes), -EMEDIUMTYPE);
    expect_line("problem: register: belongs to another key, volumes/n.db\n");
    buffer_clear(&bytes);
    sample_data(&bytes);
    assert_int_equal(dump("v/" UUID_TEXT_SAMPLE "/data/00000000000000000001/00000000000000000007", &bytes),
                     -EMEDIUMTYPE);
    expect_line("verdict: NOT SOUND, 2 problems\n");
    buffer_free(&bytes);
}

static void test_damaged_objects_are_printed_still(void **state)
{
    struct buffer bytes = commit_small();
    bytes.data[96] ^= 4; /* seq 1 becomes 5 */
    assert_int_equal(dump(LOG_1, &bytes), -EBADMSG);
    expect_line("seq: 5\n");
    expect_line("problem: log entry: damaged: the checksum of header and tables (288 bytes) does not match\n");
    expect_line("extent 1: pages 37 ");
    expect_line("frame: at 320, kind 1 (pages), block 1, pages 5, 4096 bytes, 4096 stored, sound\n");
    bytes.data[96] ^= 4;
    bytes.data[1000] ^= 4;
    assert_int_equal(dump(LOG_1, &bytes), -EBADMSG);
    expect_line("4096 stored, NOT SOUND\n");
    expect_line("problem: at byte 320: frame: damaged: its checksum does not match its bytes\n");
    expect_line("problem: extent 1: no sound frame at byte 320\n");
    buffer_clear(&bytes);
    sample_data(&bytes);
    bytes.data[0] ^= 1; /* behind a frame without its magic the next one is found */
    assert_int_equal(dump(DATA_1_6, &bytes), -EMEDIUMTYPE);
    expect_line("frame: at 8256, kind 1 (pages), block 4, pages 0,31, 8192 bytes, 8192 stored, sound\n");
    bytes.data[0] ^= 1;
    bytes.data[14] ^= 1; /* a length that leads far beyond the end */
    assert_int_equal(dump(DATA_1_6, &bytes), -EBADMSG);
    expect_line("frame: at 8256, kind 1 (pages), block 4, pages 0,31, 8192 bytes, 8192 stored, sound\n");
    buffer_free(&bytes);
    bytes = encoded(sample_register());
    bytes.data[bytes.length - 1] ^= 1;
    assert_int_equal(dump("volumes/n.db", &bytes), -EBADMSG);
    expect_line("name: 'db'\n");
    bytes.data[72] = 0; /* no name, and no parse */
    assert_int_equal(dump("volumes/n.db", &bytes), -EBADMSG);
    expect_line("field 23 (host): flags 0, 5 bytes: 73746f6e65\n");
    buffer_free(&bytes);
}

static void test_frames_and_extents_are_compared(void **state)
{
    struct buffer bytes = commit_small();
    struct entry_lengths lengths;
    store_u64le(bytes.data + 256, 38); /* the extent's page; the frame holds 37 */
    assert_int_equal(entry_read_lengths(bytes.data, bytes.length, &lengths, NULL), 0);
    entry_seal(bytes.data, &lengths);
    assert_int_equal(dump(LOG_1, &bytes), -EBADMSG);
    expect_line("problem: extent 1: the frame at byte 320 holds other pages\nverdict: NOT SOUND, 1 problem\n");
    buffer_free(&bytes);
}

static void test_newer_objects_are_printed_still(void **state)
{
    struct buffer bytes = commit_small();
    struct entry_lengths lengths;
    store_u64le(bytes.data + 16, 2);
    assert_int_equal(entry_read_lengths(bytes.data, bytes.length, &lengths, NULL), 0);
    entry_seal(bytes.data, &lengths);
    assert_int_equal(dump(LOG_1, &bytes), -EPROTONOSUPPORT);
    expect_line("problem: log entry: needs feature bit 1, ");
    expect_line("extent 1: pages 37 ");
    buffer_free(&bytes);
    bytes = encoded(sample_register());
    store_u64le(bytes.data + 24, 2);
    register_seal(bytes.data, bytes.length);
    assert_int_equal(dump("volumes/n.db", &bytes), -EPROTONOSUPPORT);
    expect_line("name: 'db'\n");
    buffer_free(&bytes);
}

static void expect_every_damage_noticed(const char *key, struct buffer *bytes)
{
    assert_int_equal(dump(key, bytes), 0);
    for (size_t i = 0; i < bytes->length; i++) {
        struct buffer cut = { .data = memory_copy(bytes->data, i + 1), .length = i, .capacity = i + 1 };
        assert_true(dump(key, &cut) < 0);
        buffer_free(&cut);
        int first = bytes->length > 1024 && i % 16 != 0 ? 7 : 0; /* each bit of a long payload proves little */
        for (int bit = first; bit < 8; bit++) {
            bytes->data[i] ^= (uint8_t)(1 << bit);
            assert_true(dump(key, bytes) < 0);
            bytes->data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buffer_put_zeroes(bytes, FRAME_UNIT);
    assert_true(dump(key, bytes) < 0);
    buffer_free(bytes);
}

static void test_every_damage_is_noticed(void **state)
{
    struct buffer bytes = commit_small(), payload = BUFFER_EMPTY;
    sample_root_payload(&payload, 896);
    expect_every_damage_noticed(LOG_1, &bytes);
    bytes = encoded(sample_register());
    expect_every_damage_noticed("volumes/n.db", &bytes);
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 6 };
    sample_frame(&bytes, place, 3, 1);
    expect_every_damage_noticed(DATA_1_6, &bytes);
    sample_piece_frame(&bytes, FRAME_ROOT, &payload);
    expect_every_damage_noticed(DATA_1_1, &bytes);
    buffer_free(&payload);
}

static int tear_down(void **state)
{
    buffer_free(&text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_damaged_pieces_are_printed_still),
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_marker),
        cmocka_unit_test(test_keys_that_say_nothing),
        cmocka_unit_test(test_wrong_keys),
        cmocka_unit_test(test_damaged_objects_are_printed_still),
        cmocka_unit_test(test_frames_and_extents_are_compared),
        cmocka_unit_test(test_newer_objects_are_printed_still),
        cmocka_unit_test(test_every_damage_is_noticed),
    };
    return cmocka_run_group_tests_name("format_dump", tests, NULL, tear_down);
}
