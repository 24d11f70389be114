/* Leaves: which pages of 2 MiB of disk lie where.
 *
 *     header, 24 bytes │ object ids, 8 each │ leaves, 8 each │ runs, 10 each
 *
 *      0  layout, u16      2  header bytes, u16    4  leaves, u32    8  runs, u32    12  ids, u32    16  reserved
 *
 * A leaf: its number (u32), how many runs (u16), reserved (u16).  A run: start
 * (18 bits), first page (9), count - 1 (5); units (12), page in frame (5), the
 * frame's pages - 1 (5), reserved (10); number of its object's id (u16).
 *
 * A volume that was written at random has 512 runs a leaf, one written in order
 * 16; many leaves of the second kind share a frame, so that a checkpoint does
 * not consist of frames of a few hundred bytes.  So leaves are put into a
 * writer one by one, and it says when the next one has no room.
 *
 * What can fail: only reading.  The writer's caller keeps the rules. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "leaves"
#define RUN_START_BITS 18
#define RUN_FIRST_BITS 9
#define RUN_UNITS_BITS 12
#define RUN_PAGE_BITS 5
/* Of a leaf whose runs are single pages, each of another object. */
#define LEAF_WORST_BYTES (LEAVES_ROW_BYTES + LEAF_PAGES * (LEAF_RUN_BYTES + PIECE_ID_BYTES))

static uint32_t frame_units_most(uint32_t pages)
{
    return frame_total_bytes(pages * PAGE_BYTES) / FRAME_UNIT;
}

/* ---- the rules ---- */

static int check_run(const struct leaf_run *run, uint64_t leaf, struct error *error)
{
    if (run->count == 0 || run->count > BLOCK_PAGES || run->first >= LEAF_PAGES ||
        run->first % BLOCK_PAGES + run->count > BLOCK_PAGES)
        return error_set(error, EBADMSG,
                         WHAT ": leaf %" PRIu64 ": a run of %u pages from page %u goes beyond its block", leaf,
                         run->count, run->first);
    if (run->frame_pages == 0 || run->frame_pages > BLOCK_PAGES || run->frame_page + run->count > run->frame_pages)
        return error_set(error, EBADMSG,
                         WHAT ": leaf %" PRIu64 ": a run of %u pages from page %u of a frame that has %u", leaf,
                         run->count, run->frame_page, run->frame_pages);
    if (run->object == PIECE_OBJECT_NONE || run->object > OBJECT_ID_MAX)
        return error_set(error, EBADMSG, WHAT ": leaf %" PRIu64 ": a run in object %" PRIu64 ", which cannot be", leaf,
                         run->object);
    if (run->units < 2 || run->units > frame_units_most(run->frame_pages) || run->start > OBJECT_UNITS_MAX - run->units)
        return error_set(error, EBADMSG,
                         WHAT ": leaf %" PRIu64 ": a frame of %u pages in %" PRIu32 " units from unit %" PRIu32, leaf,
                         run->frame_pages, run->units, run->start);
    return 0;
}

static int check_leaf(const struct leaf *leaf, struct error *error)
{
    if (leaf->number >= LEAVES_MAX)
        return error_set(error, EBADMSG, WHAT ": leaf %" PRIu64 " is beyond the largest disk", leaf->number);
    if (leaf->run_count == 0 || leaf->run_count > LEAF_PAGES)
        return error_set(error, EBADMSG, WHAT ": leaf %" PRIu64 ": %" PRIu32 " runs", leaf->number, leaf->run_count);
    uint32_t next = 0;
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *run = &leaf->runs[i];
        int result = check_run(run, leaf->number, error);
        if (result < 0)
            return result;
        if (run->first < next)
            return error_set(error, EBADMSG,
                             WHAT ": leaf %" PRIu64 ": run %" PRIu32 " begins at page %u, before the end of the one "
                                  "before it, %" PRIu32,
                             leaf->number, i + 1, run->first, next);
        next = (uint32_t)run->first + run->count;
    }
    return 0;
}

int leaves_check(const struct leaves_frame *frame, const struct id_list *ids, struct error *error)
{
    if (frame->leaf_count == 0)
        return error_set(error, EBADMSG, WHAT ": there are none");
    int result = id_list_check(WHAT, ids, error);
    for (uint32_t i = 0; result == 0 && i < frame->leaf_count; i++) {
        if (i > 0 && frame->leaves[i].number <= frame->leaves[i - 1].number)
            return error_set(error, EBADMSG, WHAT ": leaf %" PRIu64 " behind leaf %" PRIu64, frame->leaves[i].number,
                             frame->leaves[i - 1].number);
        result = check_leaf(&frame->leaves[i], error);
    }
    return result;
}

/* ---- writing ---- */

struct leaves_writer {
    uint32_t payload_max;
    struct leaf *leaves; /* runs: not set, they follow one another */
    uint32_t leaf_count;
    struct leaf_run *runs;
    uint32_t run_count;
    uint64_t *ids; /* each once */
    uint32_t id_count;
    uint64_t *slots; /* the same ids, hashed: open addressing, PIECE_OBJECT_NONE is free */
    uint32_t slot_mask;
};

struct leaves_writer *leaves_writer_new(uint32_t payload_max)
{
    assert(payload_max <= PIECE_PAYLOAD_MAX && payload_max >= LEAVES_HEADER_BYTES + LEAF_WORST_BYTES);
    struct leaves_writer *writer = memory_new(sizeof(*writer));
    /* All of it is bounded by the payload. An added leaf may be found too long after its ids were counted. */
    uint32_t ids_most = payload_max / (LEAF_RUN_BYTES + PIECE_ID_BYTES) + LEAF_PAGES;
    uint32_t slots = 1;
    while (slots < 2 * ids_most)
        slots *= 2;
    writer->payload_max = payload_max;
    writer->leaves = memory_array(payload_max / (LEAVES_ROW_BYTES + LEAF_RUN_BYTES), sizeof(*writer->leaves));
    writer->runs = memory_array(payload_max / LEAF_RUN_BYTES, sizeof(*writer->runs));
    writer->ids = memory_array(ids_most, sizeof(*writer->ids));
    writer->slots = memory_array(slots, sizeof(*writer->slots));
    writer->slot_mask = slots - 1;
    return writer;
}

/* Where the id is, or where it would be. */
static uint64_t *find_slot(const struct leaves_writer *writer, uint64_t id)
{
    uint32_t at = (uint32_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & writer->slot_mask;
    while (writer->slots[at] != PIECE_OBJECT_NONE && writer->slots[at] != id)
        at = (at + 1) & writer->slot_mask;
    return &writer->slots[at];
}

/* The youngest ids, youngest first: none of those that stay was put behind one of them. */
static void drop_ids(struct leaves_writer *writer, uint32_t kept)
{
    while (writer->id_count > kept)
        *find_slot(writer, writer->ids[--writer->id_count]) = PIECE_OBJECT_NONE;
}

static size_t payload_bytes(uint32_t leaves, uint32_t runs, uint32_t ids)
{
    return LEAVES_HEADER_BYTES + (size_t)ids * PIECE_ID_BYTES + (size_t)leaves * LEAVES_ROW_BYTES +
           (size_t)runs * LEAF_RUN_BYTES;
}

bool leaves_writer_add(struct leaves_writer *writer, const struct leaf *leaf)
{
    assert(check_leaf(leaf, NULL) == 0);
    assert(writer->leaf_count == 0 || leaf->number > writer->leaves[writer->leaf_count - 1].number);
    uint32_t ids_before = writer->id_count;
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        uint64_t *slot = find_slot(writer, leaf->runs[i].object);
        if (*slot != PIECE_OBJECT_NONE)
            continue;
        *slot = leaf->runs[i].object;
        writer->ids[writer->id_count++] = leaf->runs[i].object;
    }
    if (payload_bytes(writer->leaf_count + 1, writer->run_count + leaf->run_count, writer->id_count) >
        writer->payload_max) {
        assert(writer->leaf_count > 0);
        drop_ids(writer, ids_before);
        return false;
    }
    memcpy(writer->runs + writer->run_count, leaf->runs, leaf->run_count * sizeof(*leaf->runs));
    writer->run_count += leaf->run_count;
    writer->leaves[writer->leaf_count++] = (struct leaf){ .number = leaf->number, .run_count = leaf->run_count };
    return true;
}

uint32_t leaves_writer_count(const struct leaves_writer *writer)
{
    return writer->leaf_count;
}

static void put_run(const struct leaf_run *run, uint32_t id_number, struct buffer *payload)
{
    buffer_put_u32le(payload, run->start | (uint32_t)run->first << RUN_START_BITS |
                                  (run->count - 1u) << (RUN_START_BITS + RUN_FIRST_BITS));
    buffer_put_u32le(payload, run->units | (uint32_t)run->frame_page << RUN_UNITS_BITS |
                                  (run->frame_pages - 1u) << (RUN_UNITS_BITS + RUN_PAGE_BITS));
    buffer_put_u16le(payload, (uint16_t)id_number);
}

void leaves_writer_finish(struct leaves_writer *writer, struct buffer *ret_payload)
{
    assert(writer->leaf_count > 0);
    size_t begin = ret_payload->length;
    size_t length = payload_bytes(writer->leaf_count, writer->run_count, writer->id_count);
    buffer_reserve(ret_payload, length);
    buffer_put_u16le(ret_payload, PIECE_LAYOUT);
    buffer_put_u16le(ret_payload, LEAVES_HEADER_BYTES);
    buffer_put_u32le(ret_payload, writer->leaf_count);
    buffer_put_u32le(ret_payload, writer->run_count);
    buffer_put_u32le(ret_payload, writer->id_count);
    buffer_put_u64le(ret_payload, 0);
    memset(writer->slots, 0, ((size_t)writer->slot_mask + 1) * sizeof(*writer->slots));
    ids_sort(writer->ids, writer->id_count);
    for (uint32_t i = 0; i < writer->id_count; i++)
        buffer_put_u64le(ret_payload, writer->ids[i]);
    for (uint32_t i = 0; i < writer->leaf_count; i++) {
        buffer_put_u32le(ret_payload, (uint32_t)writer->leaves[i].number);
        buffer_put_u16le(ret_payload, (uint16_t)writer->leaves[i].run_count);
        buffer_put_u16le(ret_payload, 0);
    }
    for (uint32_t i = 0; i < writer->run_count; i++)
        put_run(&writer->runs[i], ids_find(writer->ids, writer->id_count, writer->runs[i].object), ret_payload);
    assert(ret_payload->length == begin + length);
    writer->leaf_count = writer->run_count = writer->id_count = 0;
}

void leaves_writer_free(struct leaves_writer *writer)
{
    if (writer == NULL)
        return;
    free(writer->leaves);
    free(writer->runs);
    free(writer->ids);
    free(writer->slots);
    free(writer);
}

/* ---- reading ---- */

static struct leaf_run get_run(const uint8_t *bytes, const struct id_list *ids)
{
    uint32_t where = load_u32le(bytes), frame = load_u32le(bytes + 4);
    return (struct leaf_run){
        .start = where % OBJECT_UNITS_MAX,
        .first = (uint16_t)(where >> RUN_START_BITS & (LEAF_PAGES - 1)),
        .count = (uint8_t)((where >> (RUN_START_BITS + RUN_FIRST_BITS)) + 1),
        .units = frame & ((1u << RUN_UNITS_BITS) - 1),
        .frame_page = (uint8_t)(frame >> RUN_UNITS_BITS & (BLOCK_PAGES - 1)),
        .frame_pages = (uint8_t)((frame >> (RUN_UNITS_BITS + RUN_PAGE_BITS) & (BLOCK_PAGES - 1)) + 1),
        .object = id_list_get(ids, load_u16le(bytes + 8)),
    };
}

int leaves_parse(const void *payload, size_t length, struct leaves_frame *ret_frame, struct id_list *ret_ids,
                 struct error *error)
{
    uint32_t header_bytes;
    int result = piece_read_header(WHAT, payload, length, LEAVES_HEADER_BYTES, &header_bytes, error);
    if (result < 0)
        return result;
    const uint8_t *bytes = payload;
    struct leaves_frame frame = { .leaf_count = load_u32le(bytes + 4), .run_count = load_u32le(bytes + 8) };
    struct id_list ids = { .at = bytes + header_bytes, .count = load_u32le(bytes + 12) };
    uint64_t ids_end = header_bytes + (uint64_t)ids.count * PIECE_ID_BYTES;
    uint64_t leaves_end = ids_end + (uint64_t)frame.leaf_count * LEAVES_ROW_BYTES;
    result = piece_check_length(WHAT, length, leaves_end + (uint64_t)frame.run_count * LEAF_RUN_BYTES, error);
    if (result < 0)
        return result;
    const uint8_t *row = bytes + ids_end;
    uint64_t runs = 0;
    for (uint32_t i = 0; i < frame.leaf_count; i++)
        runs += load_u16le(row + (size_t)i * LEAVES_ROW_BYTES + 4);
    if (runs != frame.run_count)
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " runs, and the leaves have %" PRIu64, frame.run_count,
                         runs);

    frame.leaves = frame.leaf_count > 0 ? memory_array(frame.leaf_count, sizeof(*frame.leaves)) : NULL;
    frame.runs = frame.run_count > 0 ? memory_array(frame.run_count, sizeof(*frame.runs)) : NULL;
    struct leaf_run *next = frame.runs;
    for (uint32_t i = 0; i < frame.leaf_count; i++, row += LEAVES_ROW_BYTES) {
        frame.leaves[i] = (struct leaf){ .number = load_u32le(row), .run_count = load_u16le(row + 4), .runs = next };
        if (frame.leaves[i].run_count > 0)
            next += frame.leaves[i].run_count;
    }
    for (uint32_t i = 0; i < frame.run_count; i++)
        frame.runs[i] = get_run(bytes + leaves_end + (size_t)i * LEAF_RUN_BYTES, &ids);
    *ret_frame = frame;
    *ret_ids = ids;
    return 0;
}

int leaves_decode(const void *payload, size_t length, struct leaves_frame *ret_frame, struct error *error)
{
    struct leaves_frame frame;
    struct id_list ids;
    int result = leaves_parse(payload, length, &frame, &ids, error);
    if (result < 0)
        return result;
    result = leaves_check(&frame, &ids, error);
    if (result < 0) {
        leaves_frame_free(&frame);
        return result;
    }
    *ret_frame = frame;
    return 0;
}

void leaves_frame_free(struct leaves_frame *frame)
{
    free(frame->leaves);
    free(frame->runs);
    *frame = (struct leaves_frame){ 0 };
}
