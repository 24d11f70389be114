/* Pieces of checkpoints: vol/format/checkpoint_*.c.  The first byte chooses the kind of frame, the rest is its payload.
 *
 * No checksum stands in the way: that is the frame's.  What is accepted must hold
 * what the decoder promises, and encoded again it is the same piece; the same
 * bytes unless something stood in reserved places or ids in their list unused. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

static void check_place(const struct piece_place *place, uint64_t below)
{
    PROMISE(place->object > 0 && place->object < below && place->units >= 2 && place->units <= PIECE_UNITS_MAX);
    PROMISE((uint64_t)place->start + place->units <= OBJECT_UNITS_MAX);
}

static void check_row(const struct object_row *row)
{
    PROMISE(row->id > 0 && row->id <= OBJECT_ID_MAX);
    PROMISE(row->kind == OBJECT_LOG || row->kind == OBJECT_DATA);
    PROMISE(row->role == ROLE_PAGES || (row->role == ROLE_PIECES && row->kind == OBJECT_DATA));
    PROMISE(row->total_bytes <= OBJECT_BYTES_MAX && row->total_bytes % FRAME_UNIT == 0);
    PROMISE(row->born > 0 && row->born <= NUMBER_MAX && row->died >= row->born);
    PROMISE((row->live == 0) == (row->died != UINT64_MAX));
}

/* ---- leaves ---- */

static void check_leaf(const struct leaf *leaf)
{
    uint32_t next = 0;
    PROMISE(leaf->number < LEAVES_MAX && leaf->run_count > 0 && leaf->run_count <= LEAF_PAGES);
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *run = &leaf->runs[i];
        PROMISE(run->first >= next && run->count > 0);
        next = (uint32_t)run->first + run->count;
        PROMISE(next <= LEAF_PAGES && run->first / BLOCK_PAGES == (next - 1) / BLOCK_PAGES);
        PROMISE(run->frame_page + run->count <= run->frame_pages && run->frame_pages <= BLOCK_PAGES);
        PROMISE(run->object > 0 && run->object <= OBJECT_ID_MAX && run->units <= PIECE_UNITS_MAX);
        PROMISE((uint64_t)run->start + run->units <= OBJECT_UNITS_MAX);
    }
}

static void encode_leaves(const struct leaves_frame *frame, struct buffer *ret_bytes)
{
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    for (uint32_t i = 0; i < frame->leaf_count; i++)
        PROMISE(leaves_writer_add(writer, &frame->leaves[i]));
    PROMISE(leaves_writer_count(writer) == frame->leaf_count);
    leaves_writer_finish(writer, ret_bytes);
    leaves_writer_free(writer);
}

static int try_leaves(const uint8_t *bytes, size_t length, struct buffer *ret_again, struct error *error)
{
    struct leaves_frame frame;
    int result = leaves_decode(bytes, length, &frame, error);
    if (result < 0)
        return result;
    PROMISE(frame.leaf_count > 0);
    for (uint32_t i = 0; i < frame.leaf_count; i++) {
        PROMISE(i == 0 || frame.leaves[i].number > frame.leaves[i - 1].number);
        check_leaf(&frame.leaves[i]);
    }
    encode_leaves(&frame, ret_again);
    leaves_frame_free(&frame);
    return 0;
}

/* ---- the others ---- */

static int try_mid(const uint8_t *bytes, size_t length, struct buffer *ret_again, struct error *error)
{
    struct mid_frame mid;
    int result = mid_decode(bytes, length, &mid, error);
    if (result < 0)
        return result;
    PROMISE(mid.number < MIDS_MAX && mid.slot_count > 0 && mid.slot_count <= MID_LEAVES);
    for (uint32_t i = 0; i < mid.slot_count; i++) {
        PROMISE(mid.slots[i].leaf < MID_LEAVES && (i == 0 || mid.slots[i].leaf > mid.slots[i - 1].leaf));
        check_place(&mid.slots[i].place, OBJECT_ID_MAX + 1);
    }
    mid_encode(&mid, ret_again);
    mid_frame_free(&mid);
    return 0;
}

static int try_objects(const uint8_t *bytes, size_t length, struct buffer *ret_again, struct error *error)
{
    struct objects_frame objects;
    int result = objects_decode(bytes, length, &objects, error);
    if (result < 0)
        return result;
    PROMISE(objects.row_count > 0 && objects.row_count <= (objects.graves ? GRAVES_MAX : CHUNK_ROWS_MAX));
    PROMISE(objects.graves || !objects.has_previous);
    for (uint32_t i = 0; i < objects.row_count; i++) {
        const struct object_row *row = &objects.rows[i];
        check_row(row);
        PROMISE((row->died != UINT64_MAX) == objects.graves);
        PROMISE(objects.graves || row->id >= objects.first_id);
        PROMISE(objects.graves || i == 0 || row->id > row[-1].id);
    }
    objects_encode(&objects, ret_again);
    objects_frame_free(&objects);
    return 0;
}

static int try_root(const uint8_t *bytes, size_t length, struct buffer *ret_again, struct error *error)
{
    struct root_frame root;
    int result = root_frame_decode(bytes, length, &root, error);
    if (result < 0)
        return result;
    PROMISE(root.seq > 0 && root.size > 0 && root.size <= VOLUME_BYTES_MAX && root.own_count > 0);
    PROMISE(root.own_count <= ROOT_OWN_MAX && root.mid_count <= MIDS_MAX && root.chunk_count <= ROOT_CHUNKS_MAX);
    for (uint32_t i = 0; i < root.own_count; i++) {
        check_row(&root.own[i]);
        PROMISE(root.own[i].id < root.next_object_id && (i == 0 || root.own[i].id > root.own[i - 1].id));
    }
    for (uint32_t i = 0; i < root.mid_count; i++) {
        PROMISE(i == 0 || root.mids[i].number > root.mids[i - 1].number);
        check_place(&root.mids[i].place, root.next_object_id);
    }
    for (uint32_t i = 0; i < root.chunk_count; i++) {
        PROMISE(i == 0 || root.chunks[i].first_id > root.chunks[i - 1].first_id);
        check_place(&root.chunks[i].place, root.next_object_id);
    }
    root_frame_encode(&root, ret_again);
    PROMISE(ret_again->length == root_payload_bytes(root.own_count, root.mid_count, root.chunk_count));
    root_frame_free(&root);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int (*const tries[])(const uint8_t *, size_t, struct buffer *, struct error *) = { try_leaves, try_mid,
                                                                                              try_root, try_objects };
    if (size == 0 || size - 1 > FRAME_PAYLOAD_MAX)
        return 0;
    int which = data[0] % 4;
    enum frame_kind kind = (enum frame_kind)(FRAME_LEAVES + which);
    if (kind != FRAME_ROOT && size - 1 > PIECE_PAYLOAD_MAX)
        return 0;
    struct buffer once = BUFFER_EMPTY, twice = BUFFER_EMPTY, text = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    int result = tries[which](data + 1, size - 1, &once, &error);
    PROMISE((result < 0) == (error.code != 0) && (result < 0) == (error.story[0] != '\0'));
    if (result == 0) {
        PROMISE(once.length <= size - 1);
        PROMISE(tries[which](once.data, once.length, &twice, &error) == 0);
        PROMISE(once.length == twice.length && memcmp(once.data, twice.data, once.length) == 0);
    }
    struct error told = ERROR_NONE;
    PROMISE(dump_piece(kind, data + 1, size - 1, &text, &told) == result);
    buffer_free(&once);
    buffer_free(&twice);
    buffer_free(&text);
    return 0;
}
