/* The check of a volume: a small volume that is sound, and each inconsistency that there can be, one by one.
 *
 * The volume is made by hand through the codecs, so that every object of it is sound by itself:
 *
 *     log 1    page 37, inline                          object 1
 *     log 2    pages 96, 97 and pages 128, 129          object 2; data objects 3 (n 5) and 4 (n 6)
 *     log 3    zeroes over pages 96, 97: object 3 dies  object 5
 *     checkpoint as of 3, ids 6 to 21 set aside         data object 6 (n 10)
 *     log 4    page 40, inline                          object 22
 *     log 5    a fence of epoch 2                       object 23 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../lib/checkpoint_samples.h"
#include "../lib/in_loop.h"
#include "../lib/store_script.h"
#include "vol/check.h"

#define OWN_ID 6
#define NEXT_ID 22
#define LOG_ENTRIES 5
#define PIECES_N 10

/* ---- the volume, as structures that a test may change before they are encoded ---- */

struct volume_under_test {
    struct register_body body;
    struct commit_object objects[2];
    struct commit_extent extents[LOG_ENTRIES][4];
    struct entry entries[LOG_ENTRIES];
    uint8_t hashes[LOG_ENTRIES][SHA256_BYTES];
    struct leaf_run runs[2];
    struct leaf leaf;
    struct mid_slot slot;
    struct mid_frame mid;
    struct object_row rows[4];
    struct objects_frame chunk;
    struct object_row dead[2];
    struct objects_frame graves;
    struct object_row own;
    struct root_mid root_mid;
    struct root_chunk root_chunk;
    struct root_frame root;
    struct buffer pages[2];                                /* of the data objects */
    uint32_t other_frame;                                  /* of a page of log 4 is another block's */
    struct piece_place leaf_shift, mid_shift, chunk_shift; /* what is said of their places beyond the truth */
    bool own_bytes_set;
    bool no_entry[LOG_ENTRIES], no_pages[2], no_pieces;
    uint32_t tail; /* bytes behind log 4 */
};

static struct volume_under_test *volume;
static struct mem *mem;
static struct store *store;

static void make_entry(uint32_t index, uint64_t object_id, uint64_t epoch, uint32_t extent_count)
{
    struct entry *entry = &volume->entries[index];
    *entry = sample_entry(ENTRY_COMMIT, index + 1);
    entry->object_id = object_id;
    entry->epoch = epoch;
    entry->extents = volume->extents[index];
    entry->extent_count = extent_count;
}

static struct commit_extent inline_extent(uint64_t page)
{
    return (struct commit_extent){ .kind = EXTENT_PAGES,
                                   .page = page,
                                   .count = 1,
                                   .start = (uint32_t)(entry_front_bytes(1, 0, 0) / FRAME_UNIT),
                                   .units = 65,
                                   .frame_pages = 1 };
}

static void make_log(void)
{
    make_entry(0, 1, 1, 1);
    volume->extents[0][0] = inline_extent(37);
    volume->entries[0].inline_bytes = 65 * FRAME_UNIT;
    make_entry(1, 2, 1, 2);
    for (uint32_t i = 0; i < 2; i++) {
        volume->objects[i] = (struct commit_object){ .epoch = 1, .n = 5 + i, .bytes = 64 + 8192 };
        volume->extents[1][i] = (struct commit_extent){
            .kind = EXTENT_PAGES, .page = 96 + 32 * i, .count = 2, .object = 1 + i, .units = 129, .frame_pages = 2
        };
        struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 5 + i };
        sample_frame(&volume->pages[i], place, 3 + i, 3);
    }
    volume->entries[1].objects = volume->objects;
    volume->entries[1].object_count = 2;
    make_entry(2, 5, 1, 1);
    volume->extents[2][0] = (struct commit_extent){ .kind = EXTENT_ZERO, .page = 96, .count = 2 };
    make_entry(3, NEXT_ID, 1, 1);
    volume->extents[3][0] = inline_extent(40);
    volume->entries[3].inline_bytes = 65 * FRAME_UNIT;
    make_entry(4, NEXT_ID + 1, 2, 0);
    volume->entries[4].kind = ENTRY_FENCE;
    volume->entries[4].extents = NULL;
    sample_bytes(0xc0, volume->entries[4].owner.bytes, sizeof(volume->entries[4].owner.bytes));
}

static struct object_row data_row(uint64_t id, uint64_t n, enum object_role role, uint64_t born, uint32_t live)
{
    return (struct object_row){ .id = id,
                                .kind = OBJECT_DATA,
                                .role = role,
                                .uuid = sample_uuid(),
                                .epoch = 1,
                                .n = n,
                                .born = born,
                                .died = UINT64_MAX,
                                .total_bytes = 64 + 8192,
                                .live = live };
}

static void make_checkpoint(void)
{
    volume->runs[0] =
        (struct leaf_run){ .first = 37, .count = 1, .frame_pages = 1, .start = 5, .units = 65, .object = 1 };
    volume->runs[1] = (struct leaf_run){ .first = 128, .count = 2, .frame_pages = 2, .units = 129, .object = 4 };
    volume->leaf = (struct leaf){ .runs = volume->runs, .run_count = 2 };
    volume->mid = (struct mid_frame){ .slots = &volume->slot, .slot_count = 1 };
    volume->rows[0] = (struct object_row){ .id = 1,
                                           .kind = OBJECT_LOG,
                                           .role = ROLE_PAGES,
                                           .uuid = sample_uuid(),
                                           .seq = 1,
                                           .born = 1,
                                           .died = UINT64_MAX,
                                           .total_bytes = 65 * FRAME_UNIT,
                                           .live = 1 };
    volume->rows[1] = data_row(4, 6, ROLE_PAGES, 2, 2);
    volume->chunk = (struct objects_frame){ .rows = volume->rows, .row_count = 2 };
    volume->dead[0] = data_row(3, 5, ROLE_PAGES, 2, 0);
    volume->dead[0].died = 3;
    volume->graves = (struct objects_frame){ .graves = true, .rows = volume->dead, .row_count = 1 };
    volume->own = data_row(OWN_ID, PIECES_N, ROLE_PIECES, 3, 5);
    volume->root = (struct root_frame){ .uuid = sample_uuid(),
                                        .seq = 3,
                                        .size = UINT64_C(1) << 30,
                                        .next_object_id = NEXT_ID,
                                        .mapped_pages = 3,
                                        .own = &volume->own,
                                        .own_count = 1,
                                        .mids = &volume->root_mid,
                                        .mid_count = 1,
                                        .chunks = &volume->root_chunk,
                                        .chunk_count = 1,
                                        .has_graves = true };
    volume->root_chunk.row_count = 2;
}

static int set_up(void **state)
{
    volume = memory_new(sizeof(*volume));
    mem = mem_new();
    store = store_script_new(store_mem_open(mem));
    make_log();
    make_checkpoint();
    volume->body = sample_register();
    volume->body.epoch = 2;
    volume->body.owner = volume->entries[4].owner;
    volume->body.committed = 4;
    volume->body.newest = (struct root){ .seq = 3,
                                         .size = UINT64_C(1) << 30,
                                         .next_object_id = NEXT_ID,
                                         .uuid = sample_uuid(),
                                         .object_id = OWN_ID,
                                         .epoch = 1,
                                         .n = PIECES_N };
    return 0;
}

static int tear_down(void **state)
{
    register_free(&volume->body);
    buffer_free(&volume->pages[0]);
    buffer_free(&volume->pages[1]);
    free(volume);
    store_close(store);
    mem_free(mem);
    return 0;
}

/* ---- into the store ---- */

static void put(const char *key, const struct buffer *bytes)
{
    struct iovec piece = { .iov_base = bytes->data, .iov_len = bytes->length };
    struct store_put request = { .key = key, .pieces = &piece, .count = 1 };
    assert_int_equal(store_put(store, &request, NULL, NULL), 0);
}

static void put_data(uint64_t n, const struct buffer *bytes)
{
    struct uuid uuid = sample_uuid();
    char key[KEY_MAX];
    key_data(&uuid, 1, n, key);
    put(key, bytes);
}

static void put_log(void)
{
    for (uint32_t i = 0; i < LOG_ENTRIES; i++) {
        struct entry *entry = &volume->entries[i];
        struct buffer bytes = BUFFER_EMPTY;
        if (i > 0 && bytes_are_zero(entry->previous, SHA256_BYTES))
            memcpy(entry->previous, volume->hashes[i - 1], SHA256_BYTES);
        entry_encode(entry, &bytes, volume->hashes[i]);
        if (entry->inline_bytes > 0) {
            struct frame_place place = {
                .uuid = sample_uuid(), .kind = OBJECT_LOG, .seq = i + 1, .offset = bytes.length
            };
            uint32_t page = (uint32_t)volume->extents[i][0].page % 32;
            sample_frame(&bytes, place, i == 3 ? 1 + volume->other_frame : 1, UINT32_C(1) << page);
        }
        if (i == 3)
            buffer_put_zeroes(&bytes, volume->tail);
        char key[KEY_MAX];
        struct uuid uuid = sample_uuid();
        key_log(&uuid, i + 1, key);
        if (!volume->no_entry[i])
            put(key, &bytes);
        buffer_free(&bytes);
    }
}

/* Appends a frame of the pieces' object; returns where. */
static struct piece_place append(struct buffer *bytes, enum frame_kind kind, struct buffer *payload)
{
    struct piece_place place = { .object = OWN_ID, .start = (uint32_t)(bytes->length / FRAME_UNIT) };
    sample_piece_frame_in(bytes, kind, payload, PIECES_N);
    place.units = (uint32_t)(bytes->length / FRAME_UNIT) - place.start;
    buffer_clear(payload);
    return place;
}

static struct piece_place shifted(struct piece_place place, const struct piece_place *shift)
{
    return (struct piece_place){ .object = shift->object > 0 ? shift->object : place.object,
                                 .start = place.start + shift->start,
                                 .units = place.units + shift->units };
}

static void put_checkpoint(void)
{
    struct buffer bytes = BUFFER_EMPTY, payload = BUFFER_EMPTY;
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    leaves_writer_add(writer, &volume->leaf);
    leaves_writer_finish(writer, &payload);
    leaves_writer_free(writer);
    volume->slot.place = shifted(append(&bytes, FRAME_LEAVES, &payload), &volume->leaf_shift);
    mid_encode(&volume->mid, &payload);
    volume->root_mid.place = shifted(append(&bytes, FRAME_MIDS, &payload), &volume->mid_shift);
    objects_encode(&volume->chunk, &payload);
    volume->root_chunk.place = shifted(append(&bytes, FRAME_OBJECTS, &payload), &volume->chunk_shift);
    if (volume->graves.row_count > 0) {
        objects_encode(&volume->graves, &payload);
        struct piece_place place = append(&bytes, FRAME_OBJECTS, &payload);
        volume->root.graves = (struct frame_place){ .uuid = sample_uuid(),
                                                    .kind = OBJECT_DATA,
                                                    .epoch = 1,
                                                    .n = PIECES_N,
                                                    .offset = (uint64_t)place.start * FRAME_UNIT };
        volume->root.graves_units = place.units;
    }
    if (bytes_are_zero(volume->root.hash, SHA256_BYTES))
        memcpy(volume->root.hash, volume->hashes[2], SHA256_BYTES);
    if (bytes_are_zero(volume->body.newest.hash, SHA256_BYTES))
        memcpy(volume->body.newest.hash, volume->root.hash, SHA256_BYTES);
    if (!volume->own_bytes_set)
        volume->own.total_bytes =
            bytes.length + frame_total_bytes((uint32_t)root_payload_bytes(
                               volume->root.own_count, volume->root.mid_count, volume->root.chunk_count));
    root_frame_encode(&volume->root, &payload);
    struct piece_place place = append(&bytes, FRAME_ROOT, &payload);
    volume->body.newest.start = place.start;
    volume->body.newest.units = place.units;
    if (!volume->no_pieces)
        put_data(PIECES_N, &bytes);
    buffer_free(&payload);
    buffer_free(&bytes);
}

static void put_register(const char *name)
{
    struct buffer bytes = BUFFER_EMPTY;
    char key[KEY_MAX];
    key_register(name, strlen(name), key);
    assert_int_equal(register_encode(&volume->body, &bytes, NULL), 0);
    put(key, &bytes);
    buffer_free(&bytes);
}

static void put_all(void)
{
    put_log();
    put_checkpoint();
    for (uint32_t i = 0; i < 2; i++)
        if (!volume->no_pages[i])
            put_data(5 + i, &volume->pages[i]);
    put_register("db");
}

/* ---- checking it ---- */

struct result {
    bool data;
    int status;
    struct check_counts counts;
    struct error error;
    struct buffer text; /* "kind key: story\n" for each finding */
    uint32_t told;
};
static struct result result;

static void found(void *arg, const struct check_finding *finding)
{
    static const char *const kinds[] = { "damaged", "missing", "foreign", "newer", "inconsistent", "unreadable" };
    result.told++;
    buffer_printf(&result.text, "%s %s: %s\n", kinds[finding->kind], finding->key, finding->story);
}

static void progress(void *arg, const char *what, uint64_t done, uint64_t of)
{
    assert_true(of == 0 || done <= of);
}

static void check_task(struct loop *loop, void *arg)
{
    struct check check = { .loop = loop,
                           .store = store,
                           .name = "db",
                           .name_length = 2,
                           .data = result.data,
                           .found = found,
                           .progress = progress };
    result.status = volume_check(&check, &result.counts, &result.error);
}

static void check(bool data)
{
    buffer_free(&result.text);
    result = (struct result){ .data = data };
    buffer_printf(&result.text, "%s", "");
    in_sim_loop(1, check_task, NULL);
}

static void expect_sound(void)
{
    if (result.counts.findings != 0)
        print_error("not sound:\n%s", (const char *)result.text.data);
    assert_int_equal(result.status, 0);
    assert_int_equal(result.counts.findings, 0);
}

/* One finding and no other. */
static void expect(const char *line)
{
    put_all();
    check(false);
    if (result.counts.findings != 1 || strstr((const char *)result.text.data, line) == NULL)
        print_error("not there, or not alone: %s\nin:\n%s", line, (const char *)result.text.data);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr((const char *)result.text.data, line));
    assert_int_equal(result.counts.findings, 1);
}

#define V "v/a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf/"
#define LOG(digit) V "log/0000000000000000000" digit ": "
#define DATA(digits) V "data/00000000000000000001/000000000000000000" digits ": "
#define REGISTER "volumes/n.db: "

/* ---- sound ones ---- */

static void test_sound(void **state)
{
    put_all();
    check(false);
    expect_sound();
    assert_int_equal(result.counts.log_entries, 5);
    assert_int_equal(result.counts.data_objects, 3);
    assert_int_equal(result.counts.unreferenced, 0);
    assert_int_equal(result.counts.roots, 1);
    assert_int_equal(result.counts.pieces, 5);
    assert_int_equal(result.counts.frames, 0);
    check(true);
    expect_sound();
    assert_int_equal(result.counts.frames, 3);
    /* What nobody names is counted, and is no fault. */
    put_data(77, &volume->pages[0]);
    put(V "data/00000000000000000001/x", &volume->pages[0]);
    check(false);
    expect_sound();
    assert_int_equal(result.counts.unreferenced, 1);
    assert_int_equal(result.counts.unreferenced_bytes, 64 + 8192);
    assert_int_equal(result.counts.unknown, 1);
}

/* Several roots, the same one here; and a horizon below which entries may be gone. */
static void test_sound_with_more(void **state)
{
    volume->body.horizon = 2;
    volume->body.older_count = 1;
    volume->body.older = memory_array(1, sizeof(*volume->body.older));
    volume->body.pin_count = 1;
    volume->body.pins = memory_array(1, sizeof(*volume->body.pins));
    put_log();
    put_checkpoint();
    volume->body.older[0] = volume->body.newest;
    volume->body.pins[0] = (struct pin){ .seq = 4, .base = volume->body.newest, .child_name = memory_string("") };
    put_all();
    check(true);
    expect_sound();
    assert_int_equal(result.counts.roots, 3);
    assert_int_equal(result.counts.pieces, 15);
    volume->no_entry[0] = true;
    struct uuid uuid = sample_uuid();
    char key[KEY_MAX];
    key_log(&uuid, 1, key);
    assert_int_equal(store_delete(store, key, NULL), 0);
    check(false);
    expect_sound();
}

static void test_new_volume(void **state)
{
    register_free(&volume->body);
    volume->body = sample_register();
    put_register("db");
    check(true);
    expect_sound();
}

/* ---- the register ---- */

static void test_no_register(void **state)
{
    check(false);
    assert_int_equal(result.status, -ENOENT);
}

static void test_damaged_register(void **state)
{
    struct buffer bytes = BUFFER_EMPTY;
    volume->body.newest = (struct root){ .size = 512, .next_object_id = 1, .empty = true };
    assert_int_equal(register_encode(&volume->body, &bytes, NULL), 0);
    bytes.data[bytes.length - 1] ^= 1;
    put("volumes/n.db", &bytes);
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "damaged " REGISTER "register: "));
    store_u32le(bytes.data + 8, 2);
    put("volumes/n.db", &bytes);
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "newer " REGISTER "register: format version 2"));
    assert_int_equal(result.counts.findings, 1);
    buffer_free(&bytes);
}

static void test_other_register(void **state)
{
    volume->body.name[0] = 'x';
    expect("foreign " REGISTER "it is the register of another volume, 'xb'");
}

static void test_tombstone(void **state)
{
    volume->body.state = REGISTER_TOMBSTONE;
    expect("newer " REGISTER "the volume is not live");
}

static void test_forked(void **state)
{
    volume->body.has_parent = true;
    expect("newer " REGISTER "the volume was forked");
}

static void test_register_put_back(void **state)
{
    volume->body.epoch = 1;
    volume->body.owner = volume->entries[0].owner;
    expect("inconsistent " REGISTER "its epoch is 1, and log entry 5 is of epoch 2: it was put back to an older state");
}

/* Somebody takes the volume while it is being checked. */
static void take_it(void *arg)
{
    volume->body.epoch = 2;
    volume->body.owner = volume->entries[4].owner;
    put_register("db");
}

static void test_taken_meanwhile(void **state)
{
    volume->body.epoch = 1;
    volume->body.owner = volume->entries[0].owner;
    put_all();
    struct script_rule rule = { .operations = SCRIPT_GET, .key = V "log/", .times = 1, .before = take_it };
    store_script_add(store, &rule);
    check(false);
    expect_sound();
}

static void test_committed_is_lost(void **state)
{
    volume->body.committed = 7;
    expect("missing " LOG("6") "it is not there, nor are those up to entry 7: the disk cannot be read without");
}

/* ---- the root ---- */

static void test_root_of_another_seq(void **state)
{
    volume->body.newest.seq = 4;
    put_all();
    check(false);
    assert_non_null(strstr((const char *)result.text.data,
                           DATA("10") "at byte 832: root: it has another log entry than the register says of it"));
    assert_non_null(strstr((const char *)result.text.data, REGISTER "the root at log entry 4 has another hash of it"));
    assert_non_null(strstr((const char *)result.text.data,
                           LOG("4") "its object ids go up to 22, and by the root at log entry 4 22 was the next then"));
    assert_int_equal(result.counts.findings, 3);
}

static void test_root_of_another_size(void **state)
{
    volume->body.newest.size *= 2;
    expect("root: it has another size than");
}

static void test_root_of_another_next_id(void **state)
{
    volume->body.newest.next_object_id--;
    expect("root: it has another next object id than");
}

static void test_root_of_another_hash(void **state)
{
    volume->body.newest.hash[3] = 1;
    put_all();
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "root: it has another hash than"));
    assert_non_null(strstr((const char *)result.text.data,
                           "inconsistent " REGISTER "the root at log entry 3 has another hash of it than it has"));
}

static void test_root_in_an_unlisted_object(void **state)
{
    volume->body.newest.object_id = OWN_ID + 1;
    expect("root: it does not list the object that it lies in");
}

static void test_root_is_missing(void **state)
{
    volume->no_pieces = true;
    expect("missing " DATA("10") "it is not there");
}

static void test_root_of_another_volume(void **state)
{
    volume->body.newest.uuid.bytes[0] = 1;
    expect("foreign " REGISTER "the root at log entry 3 is of another volume");
}

static void test_mapped_pages(void **state)
{
    volume->root.mapped_pages = 4;
    expect("inconsistent " DATA("10") "checkpoint 3: 3 pages are mapped by its leaves, and 4 by its root");
}

/* ---- rows ---- */

static void test_live_pieces(void **state)
{
    volume->own.live = 6;
    expect("checkpoint 3: object 6 has 6 live pieces by its row, and 5 are named");
}

static void test_live_pages(void **state)
{
    volume->rows[1].live = 1;
    expect("checkpoint 3: object 4 has 1 live pages by its row, and 2 are named");
}

static void test_row_of_another_size(void **state)
{
    volume->own_bytes_set = true;
    volume->own.total_bytes = 1 << 20;
    expect("damaged " DATA("10") "it has 1216 bytes, and object 6 has 1048576");
}

static void test_row_born_elsewhere(void **state)
{
    volume->rows[1].born = 1;
    expect("checkpoint 3: its row of object 4 does not agree with " V "log/00000000000000000002, which made it");
}

static void test_row_born_later(void **state)
{
    volume->own.born = 4;
    expect("checkpoint 3: object 6 was born or died after the checkpoint");
}

static void test_log_row_born_elsewhere(void **state)
{
    volume->rows[0].born = 2;
    put_all();
    check(false);
    assert_non_null(
        strstr((const char *)result.text.data, "checkpoint 3: object 1 is a log entry that was not born with"));
}

static void test_row_with_a_future_id(void **state)
{
    volume->rows[2] = data_row(30, 6, ROLE_PAGES, 2, 1);
    volume->chunk.row_count = volume->root_chunk.row_count = 3;
    put_all();
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "object 30 has an id that was not given out yet"));
    assert_non_null(strstr((const char *)result.text.data, "object 30 has 1 live pages by its row, and 0 are named"));
    assert_non_null(strstr((const char *)result.text.data, "no log entry made object 30, which it has in use"));
    assert_int_equal(result.counts.findings, 3);
}

static void test_row_of_another_volume(void **state)
{
    volume->rows[1].uuid.bytes[0] = 1;
    expect("foreign " DATA("10") "object 4 is of another volume");
}

static void test_row_twice(void **state)
{
    volume->rows[2] = data_row(OWN_ID, PIECES_N, ROLE_PIECES, 3, 5);
    volume->rows[2].total_bytes = 1280; /* with one more row */
    volume->chunk.row_count = volume->root_chunk.row_count = 3;
    expect("checkpoint 3: object 6 is listed twice");
}

static void test_row_is_missing(void **state)
{
    volume->chunk.row_count = volume->root_chunk.row_count = 1;
    expect("inconsistent " DATA("10") "at byte 0: leaf 0 names object 4, which is in no list");
}

/* ---- chunks and mids ---- */

static void test_another_chunk(void **state)
{
    volume->root_chunk.row_count = 3;
    expect("damaged " DATA("10") "at byte 320: it is not the chunk of 3 objects from id 0 that a root names");
}

/* A row that belongs to the next chunk. */
static void test_chunk_beyond_its_range(void **state)
{
    put_all();
    struct root_chunk chunks[2] = { volume->root_chunk, volume->root_chunk };
    chunks[1].first_id = 4;
    chunks[1].place.start += 4000;
    volume->root.chunks = chunks;
    volume->root.chunk_count = 2;
    put_all();
    check(false);
    assert_non_null(
        strstr((const char *)result.text.data, "at byte 320: the chunk from id 0 has object 4, and ends before id 4"));
}

static void test_chunk_in_no_object(void **state)
{
    volume->chunk_shift.object = 7;
    expect("checkpoint 3: chunk 0 lies in object 7, which is in no list");
}

static void test_chunk_elsewhere(void **state)
{
    volume->chunk_shift.start = 1;
    expect("foreign " DATA("10") "at byte 384: frame: none here");
}

static void test_another_mid(void **state)
{
    volume->mid.number = 1;
    expect("damaged " DATA("10") "at byte 192: it is mid 1, and by what names it 0");
}

static void test_mid_beyond_its_object(void **state)
{
    volume->mid_shift.start = 1000;
    expect("checkpoint 3: mid 0 lies in object 6, which ends before");
}

static void test_mid_among_pages(void **state)
{
    volume->mid_shift.object = 4;
    expect("checkpoint 3: mid 0 lies in object 4, which holds no pieces");
}

static void test_another_leaf(void **state)
{
    volume->slot.leaf = 1;
    expect("inconsistent " DATA("10") "at byte 0: leaf 1 is not in this frame");
}

static void test_leaf_of_another_length(void **state)
{
    volume->leaf_shift.units = 1;
    expect("damaged " DATA("10") "at byte 0: frame: 192 bytes with its padding, and 256 by what names it");
}

/* ---- leaves ---- */

static void test_leaf_beyond_the_disk(void **state)
{
    volume->root.size = volume->body.newest.size = 129 * PAGE_BYTES;
    put_all();
    check(false);
    assert_non_null(
        strstr((const char *)result.text.data, "leaf 0 names object 4, whose pages are beyond the end of the"));
    assert_non_null(strstr((const char *)result.text.data, LOG("2") "it writes up to page 129, and the disk has 129"));
}

static void test_run_beyond_its_object(void **state)
{
    volume->runs[1].start = 1;
    expect("leaf 0 names object 4, which ends before");
}

static void test_run_among_pieces(void **state)
{
    volume->runs[1].object = OWN_ID;
    expect("leaf 0 names object 6, which holds no pages of the disk");
}

static void test_run_beyond_inline_bytes(void **state)
{
    volume->runs[0].start = 6;
    expect("checkpoint 3: its leaves name frames outside of the inline bytes of " V "log/00000000000000000001");
}

/* ---- graves ---- */

static void test_grave_of_the_living(void **state)
{
    volume->dead[1] = volume->rows[1];
    volume->dead[1].live = 0;
    volume->dead[1].died = 3;
    volume->graves.row_count = 2;
    expect("checkpoint 3: object 4 is in use, and in graves, too");
}

static void test_no_grave(void **state)
{
    volume->graves.row_count = 0;
    volume->root.has_graves = false;
    volume->own.live = 4;
    expect("checkpoint 3: object 3 is neither in use nor in graves");
}

static void test_graves_name_themselves(void **state)
{
    volume->graves.has_previous = true;
    volume->graves.previous =
        (struct frame_place){ .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = PIECES_N, .offset = 576 };
    volume->graves.previous_units = 4;
    expect("inconsistent " DATA("10") "at byte 576: it names younger graves as older ones");
}

static void test_graves_are_missing(void **state)
{
    volume->graves.has_previous = true;
    volume->graves.previous = (struct frame_place){ .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 9 };
    volume->graves.previous_units = 4;
    put_all();
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "missing " DATA("09") "it is not there"));
    assert_non_null(strstr((const char *)result.text.data, "000009, which is not in use"));
    assert_int_equal(result.counts.findings, 2);
}

static void test_buried_object_is_missing(void **state)
{
    volume->no_pages[0] = true;
    expect("missing " DATA("05") "it is not there: object 3");
}

/* ---- the log ---- */

static void test_entry_is_missing_above_the_root(void **state)
{
    volume->no_entry[3] = true;
    expect("missing " LOG("4") "it is not there: the disk cannot be read without what is above entry 3");
}

static void test_entry_is_missing_below_the_root(void **state)
{
    volume->no_entry[0] = volume->no_entry[1] = true;
    expect("missing " LOG("1") "it is not there, nor are those up to entry 2: the disk can be read");
}

static void test_broken_chain(void **state)
{
    volume->entries[3].previous[0] = 1;
    expect("inconsistent " LOG("4") "it does not follow the entry before it: the hash is another");
}

/* The chain is taken up again where the root says the hash, though entry 3 is lost. */
static void test_chain_from_the_root(void **state)
{
    volume->entries[3].previous[0] = 1;
    volume->no_entry[2] = true;
    put_all();
    check(false);
    assert_non_null(strstr((const char *)result.text.data, "inconsistent " LOG("4") "it does not follow"));
    assert_non_null(
        strstr((const char *)result.text.data, "missing " LOG("3") "it is not there: the disk can be read"));
    assert_int_equal(result.counts.findings, 2);
}

static void test_entry_of_another_volume(void **state)
{
    volume->entries[4].uuid.bytes[0] = 1;
    expect("foreign " LOG("5") "log entry: it is another's: v/01a1a2a3-");
}

static void test_entry_of_another_seq(void **state)
{
    volume->entries[4].seq = 6;
    expect("foreign " LOG("5") "log entry: it is another's: " V "log/00000000000000000006");
}

static void test_object_id_used_again(void **state)
{
    volume->entries[4].object_id = NEXT_ID;
    expect("inconsistent " LOG("5") "its object id is 22, and 23 was the next: an entry before it has used it");
}

static void test_object_id_set_aside(void **state)
{
    volume->entries[3].object_id = NEXT_ID - 1;
    expect("inconsistent " LOG("4") "its object id is 21, and by the root at log entry 3 22 was the next");
}

static void test_epoch_falls(void **state)
{
    volume->entries[0].epoch = 2;
    volume->entries[0].owner = volume->entries[4].owner;
    put_all();
    check(false);
    for (char digit = '2'; digit <= '4'; digit++) {
        char line[200];
        snprintf(line, sizeof(line), V "log/0000000000000000000%c: its epoch is 1, and that of an entry before it 2",
                 digit);
        assert_non_null(strstr((const char *)result.text.data, line));
    }
    assert_int_equal(result.counts.findings, 3);
}

static void test_two_owners(void **state)
{
    volume->entries[2].owner.bytes[0] = 99;
    expect("inconsistent " LOG("3") "another owner than that of entry 1 wrote it, in the same epoch 1");
}

static void test_another_owner_than_registered(void **state)
{
    volume->entries[4].owner.bytes[0] = 99;
    expect("inconsistent " LOG("5") "another owner wrote it than the register names for its epoch 2");
}

static void test_object_committed_twice(void **state)
{
    volume->objects[1].n = 5;
    volume->rows[1].n = 5;
    volume->no_pages[1] = true;
    expect("inconsistent " LOG("2") "it commits " V
                                    "data/00000000000000000001/00000000000000000005, which an entry before");
}

static void test_committed_object_of_another_size(void **state)
{
    volume->pages[1].length -= 64;
    expect("damaged " DATA("06") "it has 8192 bytes, and object 4 has 8256");
}

static void test_entry_with_a_tail(void **state)
{
    volume->tail = 64;
    expect("damaged " LOG("4") "it has 4544 bytes, and should have 4480");
}

/* A front that is longer than what is fetched at first. */
static void test_long_front(void **state)
{
    struct commit_extent *extents = memory_array(5000, sizeof(*extents));
    for (uint32_t i = 0; i < 5000; i++)
        extents[i] = (struct commit_extent){ .kind = EXTENT_ZERO, .page = 1000 + 2 * i, .count = 1 };
    volume->entries[3].extents = extents;
    volume->entries[3].extent_count = 5000;
    volume->entries[3].inline_bytes = 0;
    put_all();
    check(true);
    expect_sound();
    free(extents);
}

/* ---- pages ---- */

static void expect_in_pages(const char *line)
{
    put_all();
    check(false);
    expect_sound();
    check(true);
    if (strstr((const char *)result.text.data, line) == NULL)
        print_error("not there: %s\nin:\n%s", line, (const char *)result.text.data);
    assert_non_null(strstr((const char *)result.text.data, line));
    assert_int_equal(result.counts.findings, 1);
}

static void test_damaged_page(void **state)
{
    volume->pages[1].data[5000] ^= 1;
    expect_in_pages("damaged " DATA("06") "at byte 0: frame: damaged: its checksum does not match its bytes");
}

static void test_damaged_page_that_is_dead(void **state)
{
    volume->pages[0].data[5000] ^= 1;
    put_all();
    check(true);
    expect_sound();
}

static void test_page_of_another_block(void **state)
{
    volume->other_frame = 1;
    expect_in_pages(
        "inconsistent " LOG("4") "at byte 320: frame: it does not have page 40 of the disk where it should");
}

static void test_page_of_another_place(void **state)
{
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 7 };
    buffer_clear(&volume->pages[1]);
    sample_frame(&volume->pages[1], place, 4, 3);
    expect_in_pages("foreign " DATA("06") "at byte 0: frame: whole, but of another volume, object or place");
}

static void test_pages_at_other_positions(void **state)
{
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 6 };
    buffer_clear(&volume->pages[1]);
    sample_frame(&volume->pages[1], place, 4, 5);
    expect_in_pages("it does not have page 128 of the disk where it should, 2 pages from position 0 of 2");
}

/* ---- the store ---- */

static void test_unreadable_object(void **state)
{
    put_all();
    struct script_rule rule = { .operations = SCRIPT_GET, .key = LOG("4"), .fate = SCRIPT_FAIL, .code = EIO };
    rule.key = V "log/00000000000000000004";
    store_script_add(store, &rule);
    check(false);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr((const char *)result.text.data, "unreadable " LOG("4")));
    assert_int_equal(result.counts.findings, 1);
}

static void test_unreachable_store(void **state)
{
    static const char *const keys[] = { "volumes/",
                                        V "log",
                                        V "data",
                                        V "log/00000000000000000003",
                                        V "data/00000000000000000001/00000000000000000010",
                                        V "data/00000000000000000001/00000000000000000006" };
    put_all();
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct script_rule rule = { .operations = SCRIPT_ALL, .key = keys[i], .fate = SCRIPT_FAIL, .code = ETIMEDOUT };
        store_script_add(store, &rule);
        check(true);
        assert_int_equal(result.status, -ETIMEDOUT);
        assert_true(result.error.story[0] != '\0');
        store_script_clear(store);
    }
    check(true);
    expect_sound();
}

/* A broken store has no end of findings: they are counted, and the first are told. */
static void test_many_findings(void **state)
{
    uint32_t count = CHECK_FINDINGS_TOLD + 100;
    struct commit_object *objects = memory_array(count, sizeof(*objects));
    for (uint32_t i = 0; i < count; i++)
        objects[i] = (struct commit_object){ .epoch = 1, .n = 1000 + i, .bytes = 64 };
    volume->entries[3].objects = objects;
    volume->entries[3].object_count = count;
    volume->extents[3][0].start = (uint32_t)(entry_front_bytes(1, count, 0) / FRAME_UNIT);
    volume->entries[4].object_id = NEXT_ID + 1 + count;
    put_all();
    check(false);
    assert_int_equal(result.status, 0);
    assert_int_equal(result.counts.findings, count);
    assert_int_equal(result.told, CHECK_FINDINGS_TOLD);
    free(objects);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static int finish(void **state)
{
    buffer_free(&result.text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sound),
        TEST(test_sound_with_more),
        TEST(test_new_volume),
        TEST(test_no_register),
        TEST(test_damaged_register),
        TEST(test_other_register),
        TEST(test_tombstone),
        TEST(test_forked),
        TEST(test_register_put_back),
        TEST(test_taken_meanwhile),
        TEST(test_committed_is_lost),
        TEST(test_root_of_another_seq),
        TEST(test_root_of_another_size),
        TEST(test_root_of_another_next_id),
        TEST(test_root_of_another_hash),
        TEST(test_root_in_an_unlisted_object),
        TEST(test_root_is_missing),
        TEST(test_root_of_another_volume),
        TEST(test_mapped_pages),
        TEST(test_live_pieces),
        TEST(test_live_pages),
        TEST(test_row_of_another_size),
        TEST(test_row_born_elsewhere),
        TEST(test_row_born_later),
        TEST(test_log_row_born_elsewhere),
        TEST(test_row_with_a_future_id),
        TEST(test_row_of_another_volume),
        TEST(test_row_twice),
        TEST(test_row_is_missing),
        TEST(test_another_chunk),
        TEST(test_chunk_beyond_its_range),
        TEST(test_chunk_in_no_object),
        TEST(test_chunk_elsewhere),
        TEST(test_another_mid),
        TEST(test_mid_beyond_its_object),
        TEST(test_mid_among_pages),
        TEST(test_another_leaf),
        TEST(test_leaf_of_another_length),
        TEST(test_leaf_beyond_the_disk),
        TEST(test_run_beyond_its_object),
        TEST(test_run_among_pieces),
        TEST(test_run_beyond_inline_bytes),
        TEST(test_grave_of_the_living),
        TEST(test_no_grave),
        TEST(test_graves_name_themselves),
        TEST(test_graves_are_missing),
        TEST(test_buried_object_is_missing),
        TEST(test_entry_is_missing_above_the_root),
        TEST(test_entry_is_missing_below_the_root),
        TEST(test_broken_chain),
        TEST(test_chain_from_the_root),
        TEST(test_entry_of_another_volume),
        TEST(test_entry_of_another_seq),
        TEST(test_object_id_used_again),
        TEST(test_object_id_set_aside),
        TEST(test_epoch_falls),
        TEST(test_two_owners),
        TEST(test_another_owner_than_registered),
        TEST(test_object_committed_twice),
        TEST(test_committed_object_of_another_size),
        TEST(test_entry_with_a_tail),
        TEST(test_long_front),
        TEST(test_damaged_page),
        TEST(test_damaged_page_that_is_dead),
        TEST(test_page_of_another_block),
        TEST(test_page_of_another_place),
        TEST(test_pages_at_other_positions),
        TEST(test_unreadable_object),
        TEST(test_unreachable_store),
        TEST(test_many_findings),
    };
    return cmocka_run_group_tests_name("check", tests, NULL, finish);
}
