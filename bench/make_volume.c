/* Makes a large volume in an S3 store, as if it had been written at random for long: its register, a checkpoint, and
 * log entries above it.  What is made of the data itself is one object, so that something can be read.
 *
 *     make_volume --gib N --slots N --prefix P [--name NAME]
 *
 * The server is named by CAIRN_TEST_S3, CAIRN_TEST_S3_BUCKET, CAIRN_TEST_S3_ACCESS_KEY, CAIRN_TEST_S3_SECRET_KEY.
 * Prints the pages that can be read, by their numbers.
 *
 * The disk was written in pieces of PIECE_PAGES, each at a random place among all that lie in the store: so every leaf
 * of the map has LEAF_PIECES runs, each of another object. */
#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rt/loop.h"
#include "rt/task.h"
#include "store/s3.h"
#include "vol/format/checkpoint.h"

#define PIECE_PAGES 16u
#define LEAF_PIECES (LEAF_PAGES / PIECE_PAGES)
#define OBJECT_PIECES 128u
#define PIECE_UNITS ((FRAME_HEADER_BYTES + PIECE_PAGES * PAGE_BYTES) / FRAME_UNIT)
#define OBJECT_UNITS (OBJECT_PIECES * PIECE_UNITS)
#define SCATTER UINT64_C(0x9e3779b1) /* odd: a permutation of the pieces */
#define OBJECT_TARGET (8u << 20)
#define FRAME_TARGET (128u << 10)
#define SLOT_PAGES 4u
#define PUTS_AT_ONCE 32u
#define DATA_EPOCH 3u
#define OWN_EPOCH 7u
#define ROOT_SEQ UINT64_C(1000000)

struct maker {
    struct loop *loop;
    struct store *store;
    uint64_t gib, slots;
    const char *name, *prefix;
    struct uuid uuid;
    uint64_t pieces, objects, leaves; /* of the disk */
    struct object_row *own;
    uint32_t own_count, own_capacity;
    struct buffer filling; /* the last of them */
    struct piece_place *leaf_places;
    struct root_frame frame;
    struct root root;
    /* log entries */
    struct buffer *entries;
    uint64_t next_entry;
};

static void must(int status, const struct error *error)
{
    if (status == 0)
        return;
    fprintf(stderr, "make_volume: %s\n", error->story);
    exit(1);
}

static void put(struct maker *maker, const char *key, const void *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    must(store_put(maker->store, &(struct store_put){ .key = key, .pieces = &piece, .count = 1 }, NULL, &error),
         &error);
}

/* ---- the disk's own data: where piece `number` lies, and the other way round ---- */

static uint64_t scatter(const struct maker *maker, uint64_t number)
{
    return number * SCATTER & (maker->pieces - 1);
}

static uint64_t inverse(const struct maker *maker, uint64_t place)
{
    uint64_t factor = SCATTER;
    for (int i = 0; i < 5; i++)
        factor *= 2 - SCATTER * factor;
    return place * factor & (maker->pieces - 1);
}

static void put_first_object(struct maker *maker)
{
    uint8_t *bytes = memory_new(OBJECT_UNITS * FRAME_UNIT);
    for (uint32_t i = 0; i < OBJECT_PIECES; i++) {
        uint64_t page = inverse(maker, i) * PIECE_PAGES;
        uint8_t *at = bytes + (size_t)i * PIECE_UNITS * FRAME_UNIT;
        memset(at + FRAME_HEADER_BYTES, 'x', PIECE_PAGES * PAGE_BYTES);
        struct frame_header header = { .kind = FRAME_PAGES,
                                       .block = page / BLOCK_PAGES,
                                       .pages = 0xffffu << page % BLOCK_PAGES,
                                       .raw_bytes = PIECE_PAGES * PAGE_BYTES,
                                       .stored_bytes = PIECE_PAGES * PAGE_BYTES };
        struct frame_place place = {
            .uuid = maker->uuid, .kind = OBJECT_DATA, .epoch = DATA_EPOCH, .n = 1, .offset = (uint64_t)(at - bytes)
        };
        struct iovec payload = { .iov_base = at + FRAME_HEADER_BYTES, .iov_len = PIECE_PAGES * PAGE_BYTES };
        frame_encode(&header, &place, &payload, 1, at);
        printf("%" PRIu64 "\n", page);
    }
    char key[KEY_MAX];
    key_data(&maker->uuid, DATA_EPOCH, 1, key);
    put(maker, key, bytes, OBJECT_UNITS * FRAME_UNIT);
    free(bytes);
}

/* ---- the checkpoint's objects ---- */

static struct object_row *last_own(struct maker *maker)
{
    return &maker->own[maker->own_count - 1];
}

static void seal(struct maker *maker)
{
    if (maker->filling.length == 0)
        return;
    char key[KEY_MAX];
    key_data(&maker->uuid, OWN_EPOCH, last_own(maker)->n, key);
    put(maker, key, maker->filling.data, maker->filling.length);
    buffer_clear(&maker->filling);
}

static void open_own(struct maker *maker)
{
    if (maker->own_count == maker->own_capacity) {
        maker->own_capacity = maker->own_capacity == 0 ? 16 : maker->own_capacity * 2;
        maker->own = memory_resize(maker->own, maker->own_capacity, sizeof *maker->own);
    }
    uint32_t number = ++maker->own_count;
    *last_own(maker) = (struct object_row){ .id = maker->objects + number,
                                            .kind = OBJECT_DATA,
                                            .role = ROLE_PIECES,
                                            .uuid = maker->uuid,
                                            .epoch = OWN_EPOCH,
                                            .n = number,
                                            .born = ROOT_SEQ,
                                            .died = UINT64_MAX };
}

static struct piece_place append(struct maker *maker, enum frame_kind kind, struct buffer *payload, uint32_t pieces)
{
    uint32_t total = frame_total_bytes((uint32_t)payload->length);
    if (maker->filling.length > 0 && maker->filling.length + total > OBJECT_TARGET && kind != FRAME_ROOT)
        seal(maker);
    if (maker->filling.length == 0)
        open_own(maker);
    struct object_row *own = last_own(maker);
    uint64_t at = maker->filling.length;
    struct frame_header header = { .kind = kind,
                                   .raw_bytes = (uint32_t)payload->length,
                                   .stored_bytes = (uint32_t)payload->length };
    struct frame_place place = {
        .uuid = maker->uuid, .kind = OBJECT_DATA, .epoch = OWN_EPOCH, .n = own->n, .offset = at
    };
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, &place, &(struct iovec){ payload->data, payload->length }, 1, bytes);
    buffer_put(&maker->filling, bytes, sizeof bytes);
    buffer_put(&maker->filling, payload->data, payload->length);
    buffer_put_zeroes(&maker->filling, at + total - maker->filling.length);
    buffer_clear(payload);
    own->live += pieces;
    own->total_bytes = maker->filling.length;
    return (struct piece_place){ .object = own->id, .start = (uint32_t)(at / FRAME_UNIT), .units = total / FRAME_UNIT };
}

static void finish_frame(struct maker *maker, struct leaves_writer *writer, uint64_t past)
{
    uint32_t count = leaves_writer_count(writer);
    struct buffer payload = BUFFER_EMPTY;
    if (count == 0)
        return;
    leaves_writer_finish(writer, &payload);
    struct piece_place place = append(maker, FRAME_LEAVES, &payload, count);
    for (uint64_t number = past - count; number < past; number++)
        maker->leaf_places[number] = place;
    buffer_free(&payload);
}

static void make_leaves(struct maker *maker)
{
    struct leaves_writer *writer = leaves_writer_new(FRAME_TARGET);
    maker->leaf_places = memory_array(maker->leaves, sizeof *maker->leaf_places);
    for (uint64_t number = 0; number < maker->leaves; number++) {
        struct leaf_run runs[LEAF_PIECES];
        for (uint32_t i = 0; i < LEAF_PIECES; i++) {
            uint64_t place = scatter(maker, number * LEAF_PIECES + i);
            runs[i] = (struct leaf_run){ .first = (uint16_t)(i * PIECE_PAGES),
                                         .count = PIECE_PAGES,
                                         .frame_pages = PIECE_PAGES,
                                         .start = (uint32_t)(place % OBJECT_PIECES * PIECE_UNITS),
                                         .units = PIECE_UNITS,
                                         .object = 1 + place / OBJECT_PIECES };
        }
        struct leaf leaf = { .number = number, .runs = runs, .run_count = LEAF_PIECES };
        if (!leaves_writer_add(writer, &leaf)) {
            finish_frame(maker, writer, number);
            leaves_writer_add(writer, &leaf);
        }
    }
    finish_frame(maker, writer, maker->leaves);
    leaves_writer_free(writer);
}

static void make_mids(struct maker *maker)
{
    struct root_frame *frame = &maker->frame;
    struct mid_slot slots[MID_LEAVES];
    struct buffer payload = BUFFER_EMPTY;
    frame->mids = memory_array(maker->leaves / MID_LEAVES + 1, sizeof *frame->mids);
    for (uint64_t first = 0; first < maker->leaves; first += MID_LEAVES) {
        struct mid_frame mid = { .number = first / MID_LEAVES, .slots = slots };
        for (; mid.slot_count < MID_LEAVES && first + mid.slot_count < maker->leaves; mid.slot_count++)
            slots[mid.slot_count] = (struct mid_slot){ .leaf = (uint16_t)mid.slot_count,
                                                       .place = maker->leaf_places[first + mid.slot_count] };
        mid_encode(&mid, &payload);
        frame->mids[frame->mid_count++] =
            (struct root_mid){ .number = mid.number, .place = append(maker, FRAME_MIDS, &payload, 1) };
    }
    buffer_free(&payload);
}

static void make_chunks(struct maker *maker)
{
    struct root_frame *frame = &maker->frame;
    struct object_row rows[CHUNK_IDS];
    struct buffer payload = BUFFER_EMPTY;
    frame->chunks = memory_array(maker->objects / CHUNK_IDS + 2, sizeof *frame->chunks);
    for (uint64_t first = 0; first <= maker->objects; first += CHUNK_IDS) {
        struct objects_frame chunk = { .first_id = first, .rows = rows };
        for (uint64_t id = first > 0 ? first : 1; id < first + CHUNK_IDS && id <= maker->objects; id++)
            rows[chunk.row_count++] = (struct object_row){ .id = id,
                                                           .kind = OBJECT_DATA,
                                                           .role = ROLE_PAGES,
                                                           .uuid = maker->uuid,
                                                           .epoch = DATA_EPOCH,
                                                           .n = id,
                                                           .born = 1 + id,
                                                           .died = UINT64_MAX,
                                                           .total_bytes = OBJECT_UNITS * FRAME_UNIT,
                                                           .live = OBJECT_PIECES * PIECE_PAGES };
        if (chunk.row_count == 0)
            break;
        objects_encode(&chunk, &payload);
        frame->chunks[frame->chunk_count++] = (struct root_chunk){ .first_id = first,
                                                                   .row_count = chunk.row_count,
                                                                   .place = append(maker, FRAME_OBJECTS, &payload, 1) };
    }
    buffer_free(&payload);
}

static void make_root(struct maker *maker)
{
    struct root *root = &maker->root;
    struct root_frame *frame = &maker->frame;
    struct buffer payload = BUFFER_EMPTY;
    if (maker->filling.length == 0)
        open_own(maker);
    frame->uuid = maker->uuid;
    frame->seq = ROOT_SEQ;
    memset(frame->hash, 0xaa, sizeof frame->hash);
    frame->size = maker->gib << 30;
    frame->next_object_id = maker->objects + 65536;
    frame->mapped_pages = maker->pieces * PIECE_PAGES;
    frame->own = maker->own;
    frame->own_count = maker->own_count;
    uint32_t bytes = (uint32_t)root_payload_bytes(frame->own_count, frame->mid_count, frame->chunk_count);
    last_own(maker)->live++;
    last_own(maker)->total_bytes = maker->filling.length + frame_total_bytes(bytes);
    root_frame_encode(frame, &payload);
    last_own(maker)->live--;
    struct piece_place place = append(maker, FRAME_ROOT, &payload, 1);
    *root = (struct root){ .seq = frame->seq,
                           .size = frame->size,
                           .next_object_id = frame->next_object_id,
                           .uuid = maker->uuid,
                           .object_id = place.object,
                           .epoch = OWN_EPOCH,
                           .n = last_own(maker)->n,
                           .start = place.start,
                           .units = place.units };
    memcpy(root->hash, frame->hash, sizeof root->hash);
    seal(maker);
    buffer_free(&payload);
}

/* ---- the log above it ---- */

static void make_entry(struct maker *maker, uint64_t number, uint8_t chain[SHA256_BYTES], struct buffer *ret_bytes)
{
    struct commit_extent extents[SLOT_PAGES];
    struct entry entry = { .kind = ENTRY_COMMIT,
                           .uuid = maker->uuid,
                           .epoch = OWN_EPOCH,
                           .seq = ROOT_SEQ + 1 + number,
                           .object_id = maker->root.next_object_id + number,
                           .extents = extents,
                           .extent_count = SLOT_PAGES,
                           .inline_bytes = SLOT_PAGES * (FRAME_HEADER_BYTES + PAGE_BYTES) };
    memcpy(entry.previous, chain, SHA256_BYTES);
    uint64_t stride = maker->pieces / SLOT_PAGES * PIECE_PAGES;
    uint32_t front = (uint32_t)(entry_front_bytes(SLOT_PAGES, 0, 0) / FRAME_UNIT);
    uint32_t units = (FRAME_HEADER_BYTES + PAGE_BYTES) / FRAME_UNIT;
    for (uint32_t i = 0; i < SLOT_PAGES; i++)
        extents[i] = (struct commit_extent){ .kind = EXTENT_PAGES,
                                             .page = i * stride + hash_u64(number + 1) % stride,
                                             .count = 1,
                                             .start = front + i * units,
                                             .units = units,
                                             .frame_pages = 1 };
    entry_encode(&entry, ret_bytes, chain);
    for (uint32_t i = 0; i < SLOT_PAGES; i++) {
        uint8_t page[PAGE_BYTES], header[FRAME_HEADER_BYTES];
        memset(page, 'y', sizeof page);
        struct frame_header head = { .kind = FRAME_PAGES,
                                     .block = extents[i].page / BLOCK_PAGES,
                                     .pages = 1u << extents[i].page % BLOCK_PAGES,
                                     .raw_bytes = PAGE_BYTES,
                                     .stored_bytes = PAGE_BYTES };
        struct frame_place place = {
            .uuid = maker->uuid, .kind = OBJECT_LOG, .seq = entry.seq, .offset = ret_bytes->length
        };
        frame_encode(&head, &place, &(struct iovec){ page, sizeof page }, 1, header);
        buffer_put(ret_bytes, header, sizeof header);
        buffer_put(ret_bytes, page, sizeof page);
    }
}

static void put_entries(void *arg)
{
    struct maker *maker = arg;
    while (maker->next_entry < maker->slots) {
        uint64_t number = maker->next_entry++;
        char key[KEY_MAX];
        key_log(&maker->uuid, ROOT_SEQ + 1 + number, key);
        put(maker, key, maker->entries[number].data, maker->entries[number].length);
        buffer_free(&maker->entries[number]);
    }
}

static void make_log(struct maker *maker)
{
    uint8_t chain[SHA256_BYTES];
    memcpy(chain, maker->root.hash, sizeof chain);
    maker->entries = memory_array(maker->slots + 1, sizeof *maker->entries);
    for (uint64_t i = 0; i < maker->slots; i++)
        make_entry(maker, i, chain, &maker->entries[i]);
    struct group group;
    group_init(&group, maker->loop);
    for (uint32_t i = 0; i < PUTS_AT_ONCE; i++)
        group_spawn(&group, "put", put_entries, maker);
    group_join(&group);
    free(maker->entries);
}

static void make_register(struct maker *maker)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    struct register_body body = { .name = memory_string(maker->name),
                                  .name_length = strlen(maker->name),
                                  .uuid = maker->uuid,
                                  .state = REGISTER_LIVE,
                                  .epoch = OWN_EPOCH,
                                  .counter = 1,
                                  .lease_ms = 30000,
                                  .newest = maker->root,
                                  .committed = ROOT_SEQ + maker->slots };
    loop_random(maker->loop, body.write.bytes, sizeof body.write.bytes);
    must(register_encode(&body, &bytes, &error), &error);
    char key[KEY_MAX];
    key_register(maker->name, body.name_length, key);
    put(maker, key, bytes.data, bytes.length);
    register_free(&body);
    buffer_free(&bytes);
}

static void make_task(void *arg)
{
    struct maker *maker = arg;
    struct error error = ERROR_NONE;
    const struct s3_setup setup = { .endpoint = getenv("CAIRN_TEST_S3"),
                                    .region = "us-east-1",
                                    .bucket = getenv("CAIRN_TEST_S3_BUCKET"),
                                    .prefix = maker->prefix,
                                    .access_key = getenv("CAIRN_TEST_S3_ACCESS_KEY"),
                                    .secret_key = getenv("CAIRN_TEST_S3_SECRET_KEY"),
                                    .uploads = PUTS_AT_ONCE,
                                    .reads = PUTS_AT_ONCE,
                                    .connect_timeout_ms = 5000,
                                    .read_timeout_ms = 60000,
                                    .attempts = 5 };
    must(s3_open(maker->loop, &setup, &maker->store, &error), &error);
    loop_random(maker->loop, maker->uuid.bytes, sizeof maker->uuid.bytes);
    maker->leaves = (maker->gib << 30) / PAGE_BYTES / LEAF_PAGES;
    maker->pieces = maker->leaves * LEAF_PIECES;
    maker->objects = maker->pieces / OBJECT_PIECES;
    assert((maker->pieces & (maker->pieces - 1)) == 0);
    put_first_object(maker);
    make_leaves(maker);
    make_mids(maker);
    make_chunks(maker);
    make_root(maker);
    make_log(maker);
    make_register(maker);
    fprintf(stderr, "%u objects of pieces, %u mids, %u chunks, root of %u bytes\n", maker->own_count,
            maker->frame.mid_count, maker->frame.chunk_count, maker->root.units * FRAME_UNIT);
    free(maker->leaf_places);
    root_frame_free(&maker->frame); /* its own rows are the maker's */
    buffer_free(&maker->filling);
    store_close(maker->store);
    loop_stop(maker->loop);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "gib", required_argument, NULL, 'g' },
                                             { "slots", required_argument, NULL, 's' },
                                             { "prefix", required_argument, NULL, 'p' },
                                             { "name", required_argument, NULL, 'n' },
                                             { 0 } };
    struct maker maker = { .gib = 1024, .slots = 1024, .name = "large", .prefix = "" };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'g')
            maker.gib = strtoull(optarg, NULL, 10);
        else if (option == 's')
            maker.slots = strtoull(optarg, NULL, 10);
        else if (option == 'p')
            maker.prefix = optarg;
        else if (option == 'n')
            maker.name = optarg;
        else
            return 2;
    }
    struct error error = ERROR_NONE;
    must(loop_uv_new(&maker.loop, &error), &error);
    struct group group;
    group_init(&group, maker.loop);
    group_spawn(&group, "make", make_task, &maker);
    loop_run(maker.loop);
    loop_free(maker.loop);
    return 0;
}
