/* Pieces of checkpoints for tests: a small checkpoint whose bytes are those of
 * the example in doc/format.md, and random valid pieces that reach the edges. */
#ifndef CAIRN_TEST_CHECKPOINT_SAMPLES_H
#define CAIRN_TEST_CHECKPOINT_SAMPLES_H

#include "format_samples.h"

/* ---- leaves ---- */

/* What random leaves have their runs in. */
struct random_leaves {
    struct leaf leaves[8];
    uint32_t leaf_count;
    struct leaf_run runs[8 * LEAF_PAGES];
    uint32_t run_count;
};

static inline struct leaf_run random_run(struct chance *chance, uint32_t first)
{
    struct leaf_run run = { .first = (uint16_t)first };
    run.count = (uint8_t)(1 + chance_number(chance, BLOCK_PAGES - first % BLOCK_PAGES - 1));
    run.frame_page = (uint8_t)chance_number(chance, BLOCK_PAGES - run.count);
    run.frame_pages =
        (uint8_t)(run.frame_page + run.count + chance_number(chance, BLOCK_PAGES - run.frame_page - run.count));
    run.units = (uint32_t)(2 + chance_number(chance, frame_total_bytes(run.frame_pages * PAGE_BYTES) / FRAME_UNIT - 2));
    run.start = (uint32_t)chance_number(chance, OBJECT_UNITS_MAX - run.units);
    run.object = 1 + chance_number(chance, chance_below(chance, 2) ? OBJECT_ID_MAX - 1 : 20);
    return run;
}

static inline void random_leaves(struct chance *chance, struct random_leaves *ret_leaves)
{
    uint64_t number = chance_number(chance, LEAVES_MAX - 100);
    *ret_leaves = (struct random_leaves){ .leaf_count = 1 + (uint32_t)chance_below(chance, 8) };
    for (uint32_t i = 0; i < ret_leaves->leaf_count; i++) {
        struct leaf *leaf = &ret_leaves->leaves[i];
        uint32_t gap = (uint32_t)chance_below(chance, 100);
        leaf->number = number;
        leaf->runs = ret_leaves->runs + ret_leaves->run_count;
        number += 1 + chance_below(chance, 12);
        uint32_t page = (uint32_t)chance_number(chance, LEAF_PAGES - 1);
        while (page < LEAF_PAGES) {
            struct leaf_run run = random_run(chance, page);
            ret_leaves->runs[ret_leaves->run_count++] = run;
            leaf->run_count++;
            page += run.count + (uint32_t)chance_number(chance, gap);
        }
    }
}

/* A leaf of single pages, each of an object of its own: the longest there is. */
static inline void worst_leaf(uint64_t number, uint64_t first_object, struct leaf_run runs[LEAF_PAGES],
                              struct leaf *ret_leaf)
{
    for (uint32_t i = 0; i < LEAF_PAGES; i++)
        runs[i] = (struct leaf_run){ .first = (uint16_t)i,
                                     .count = 1,
                                     .frame_page = 31,
                                     .frame_pages = 32,
                                     .start = OBJECT_UNITS_MAX - 2049,
                                     .units = 2049,
                                     .object = first_object + i };
    *ret_leaf = (struct leaf){ .number = number, .runs = runs, .run_count = LEAF_PAGES };
}

/* ---- places and rows ---- */

static inline struct piece_place random_piece_place(struct chance *chance, uint64_t object_most)
{
    struct piece_place place = { .object = 1 + chance_number(chance, object_most - 1) };
    place.units = (uint32_t)(2 + chance_number(chance, PIECE_UNITS_MAX - 2));
    place.start = (uint32_t)chance_number(chance, OBJECT_UNITS_MAX - place.units);
    return place;
}

static inline struct frame_place random_graves_place(struct chance *chance, uint32_t *ret_units)
{
    struct piece_place place = random_piece_place(chance, 1);
    struct frame_place graves = { .kind = OBJECT_DATA,
                                  .epoch = 1 + chance_number(chance, NUMBER_MAX - 1),
                                  .n = chance_number(chance, UINT64_MAX),
                                  .offset = (uint64_t)place.start * FRAME_UNIT };
    chance_bytes(chance, graves.uuid.bytes, sizeof(graves.uuid.bytes));
    *ret_units = place.units;
    return graves;
}

static inline struct object_row random_row(struct chance *chance, uint64_t id)
{
    struct object_row row = {
        .id = id,
        .kind = chance_below(chance, 2) ? OBJECT_LOG : OBJECT_DATA,
        .role = ROLE_PAGES,
        .born = 1 + chance_number(chance, NUMBER_MAX - 1),
        .died = UINT64_MAX,
        .total_bytes = (1 + chance_number(chance, OBJECT_UNITS_MAX - 1)) * FRAME_UNIT,
        .live = 1 + (uint32_t)chance_number(chance, UINT32_MAX - 1),
    };
    memset(row.uuid.bytes, (int)chance_below(chance, 4), sizeof(row.uuid.bytes));
    if (row.kind == OBJECT_LOG) {
        row.seq = 1 + chance_number(chance, NUMBER_MAX - 1);
    } else {
        row.epoch = 1 + chance_number(chance, NUMBER_MAX - 1);
        row.n = chance_number(chance, UINT64_MAX);
        row.role = chance_below(chance, 2) ? ROLE_PIECES : ROLE_PAGES;
    }
    return row;
}

static inline struct mid_frame random_mid(struct chance *chance)
{
    struct mid_frame mid = { .number = chance_number(chance, MIDS_MAX - 1) };
    uint32_t gap = 1 + (uint32_t)chance_number(chance, MID_LEAVES);
    mid.slots = memory_array(MID_LEAVES, sizeof(*mid.slots));
    for (uint64_t leaf = chance_number(chance, MID_LEAVES - 1); leaf < MID_LEAVES;
         leaf += 1 + chance_below(chance, gap))
        mid.slots[mid.slot_count++] = (struct mid_slot){
            .leaf = (uint16_t)leaf,
            .place = random_piece_place(chance, chance_below(chance, 2) ? OBJECT_ID_MAX : 5),
        };
    return mid;
}

static inline struct objects_frame random_chunk(struct chance *chance)
{
    struct objects_frame chunk = { .first_id = chance_number(chance, OBJECT_ID_MAX / 2) };
    uint64_t id = chunk.first_id > 0 ? chunk.first_id : 1, gap = chance_below(chance, 2) ? 100 : UINT64_C(1) << 36;
    uint32_t count = 1 + (uint32_t)chance_below(chance, CHUNK_ROWS_MAX);
    chunk.rows = memory_array(count, sizeof(*chunk.rows));
    for (id += chance_number(chance, gap); chunk.row_count < count; id += 1 + chance_number(chance, gap))
        chunk.rows[chunk.row_count++] = random_row(chance, id);
    return chunk;
}

static inline struct objects_frame random_graves(struct chance *chance)
{
    struct objects_frame graves = { .graves = true, .has_previous = chance_below(chance, 2) };
    if (graves.has_previous)
        graves.previous = random_graves_place(chance, &graves.previous_units);
    uint32_t count = 1 + (uint32_t)chance_below(chance, 50);
    uint64_t died = 1 + chance_number(chance, NUMBER_MAX - 100000), id = 1;
    graves.rows = memory_array(count, sizeof(*graves.rows));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t later = chance_number(chance, 1000);
        id = later > 0 ? 1 + chance_number(chance, OBJECT_ID_MAX - 1000) : id + 1;
        died += later;
        struct object_row *row = &graves.rows[graves.row_count++];
        *row = random_row(chance, id);
        row->live = 0;
        row->died = died;
        row->born = 1 + chance_number(chance, died - 1);
        if (row->kind == OBJECT_LOG && chance_below(chance, 4) == 0)
            row->total_bytes = 0;
    }
    return graves;
}

static inline void random_root_own(struct chance *chance, struct root_frame *root)
{
    root->own_count = 1 + (uint32_t)chance_below(chance, 10);
    root->own = memory_array(root->own_count, sizeof(*root->own));
    for (uint32_t i = 0; i < root->own_count; i++) {
        root->own[i] = (struct object_row){
            .id = root->next_object_id - root->own_count + i,
            .kind = OBJECT_DATA,
            .role = ROLE_PIECES,
            .uuid = root->uuid,
            .epoch = 1 + chance_number(chance, NUMBER_MAX - 1),
            .n = chance_number(chance, UINT64_MAX),
            .born = 1 + chance_number(chance, NUMBER_MAX - 1),
            .died = UINT64_MAX,
            .total_bytes = (2 + chance_number(chance, OBJECT_UNITS_MAX - 2)) * FRAME_UNIT,
            .live = 1 + (uint32_t)chance_number(chance, UINT32_MAX - 1),
        };
    }
}

static inline struct root_frame random_root_frame(struct chance *chance)
{
    struct root_frame root = {
        .seq = 1 + chance_number(chance, NUMBER_MAX - 1),
        .size = (1 + chance_number(chance, VOLUME_BYTES_MAX / VOLUME_SIZE_UNIT - 1)) * VOLUME_SIZE_UNIT,
        .next_object_id = 100 + chance_number(chance, OBJECT_ID_READ_MAX - 100),
        .has_graves = chance_below(chance, 2),
    };
    chance_bytes(chance, root.uuid.bytes, sizeof(root.uuid.bytes));
    chance_bytes(chance, root.hash, sizeof(root.hash));
    if (root.has_graves)
        root.graves = random_graves_place(chance, &root.graves_units);
    random_root_own(chance, &root);
    uint64_t mid_bytes = (uint64_t)MID_LEAVES * LEAF_PAGES * PAGE_BYTES;
    uint64_t mids = (root.size + mid_bytes - 1) / mid_bytes;
    root.mids = memory_array(100, sizeof(*root.mids));
    for (uint64_t i = chance_number(chance, mids); i < mids && root.mid_count < 100; i += 1 + chance_number(chance, 10))
        root.mids[root.mid_count++] =
            (struct root_mid){ .number = i, .place = random_piece_place(chance, root.next_object_id - 1) };
    if (root.mid_count > 0)
        root.mapped_pages = 1 + chance_number(chance, (root.size + PAGE_BYTES - 1) / PAGE_BYTES - 1);
    root.chunks = memory_array(100, sizeof(*root.chunks));
    for (uint64_t id = chance_number(chance, root.next_object_id - 1);
         id < root.next_object_id && root.chunk_count < 100; id += 1 + chance_number(chance, 10000))
        root.chunks[root.chunk_count++] =
            (struct root_chunk){ .first_id = id,
                                 .row_count = 1 + (uint32_t)chance_below(chance, CHUNK_ROWS_MAX),
                                 .place = random_piece_place(chance, root.next_object_id - 1) };
    return root;
}

/* ---- the fixed ones: a checkpoint as of seq 1 of the volume whose first commit is the sample commit ---- */

#define SAMPLE_ROOT_START 8u /* units: behind leaves, mid and chunk */
#define SAMPLE_OWN_ID UINT64_C(2)
#define SAMPLE_NEXT_ID (SAMPLE_OWN_ID + 65536)

/* Appends a frame of the data object of epoch 1 with this n, whose bytes begin at those of the buffer. */
static inline void sample_piece_frame_in(struct buffer *bytes, enum frame_kind kind, const struct buffer *payload,
                                         uint64_t n)
{
    struct frame_place place = {
        .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = n, .offset = bytes->length
    };
    struct frame_header header = { .kind = kind,
                                   .raw_bytes = (uint32_t)payload->length,
                                   .stored_bytes = (uint32_t)payload->length };
    struct iovec piece = piece_of(payload->data, payload->length);
    uint8_t head[FRAME_HEADER_BYTES];
    frame_encode(&header, &place, &piece, 1, head);
    buffer_put(bytes, head, sizeof(head));
    buffer_put(bytes, payload->data, payload->length);
    buffer_put_zeroes(bytes, round_up(bytes->length, FRAME_UNIT) - bytes->length);
}

static inline void sample_piece_frame(struct buffer *bytes, enum frame_kind kind, const struct buffer *payload)
{
    sample_piece_frame_in(bytes, kind, payload, 1);
}

static inline void sample_leaves(struct buffer *payload)
{
    struct leaf_run run = { .first = 37, .count = 1, .frame_pages = 1, .start = 5, .units = 65, .object = 1 };
    struct leaf leaf = { .number = 0, .runs = &run, .run_count = 1 };
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    leaves_writer_add(writer, &leaf);
    leaves_writer_finish(writer, payload);
    leaves_writer_free(writer);
}

static inline void sample_mid(struct buffer *payload)
{
    struct mid_slot slot = { .leaf = 0, .place = { .object = SAMPLE_OWN_ID, .start = 0, .units = 2 } };
    struct mid_frame mid = { .number = 0, .slots = &slot, .slot_count = 1 };
    mid_encode(&mid, payload);
}

static inline void sample_chunk(struct buffer *payload)
{
    struct object_row row = { .id = 1,
                              .kind = OBJECT_LOG,
                              .role = ROLE_PAGES,
                              .uuid = sample_uuid(),
                              .seq = 1,
                              .born = 1,
                              .died = UINT64_MAX,
                              .total_bytes = 64 + PAGE_BYTES,
                              .live = 1 };
    struct objects_frame chunk = { .rows = &row, .row_count = 1 };
    objects_encode(&chunk, payload);
}

static inline void sample_graves(struct buffer *payload)
{
    struct object_row row = { .id = 77,
                              .kind = OBJECT_DATA,
                              .role = ROLE_PAGES,
                              .uuid = sample_uuid(),
                              .epoch = 1,
                              .n = 5,
                              .born = 3,
                              .died = 9,
                              .total_bytes = 1 << 20 };
    struct objects_frame graves = { .graves = true, .rows = &row, .row_count = 1, .has_previous = true };
    graves.previous =
        (struct frame_place){ .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 4, .offset = 640 };
    graves.previous_units = 5;
    objects_encode(&graves, payload);
}

static inline void sample_root_payload(struct buffer *payload, uint64_t object_bytes)
{
    struct object_row own = { .id = SAMPLE_OWN_ID,
                              .kind = OBJECT_DATA,
                              .role = ROLE_PIECES,
                              .uuid = sample_uuid(),
                              .epoch = 1,
                              .n = 1,
                              .born = 1,
                              .died = UINT64_MAX,
                              .total_bytes = object_bytes,
                              .live = 4 };
    struct root_mid mid = { .number = 0, .place = { .object = SAMPLE_OWN_ID, .start = 2, .units = 2 } };
    struct root_chunk chunk = { .row_count = 1, .place = { .object = SAMPLE_OWN_ID, .start = 4, .units = 4 } };
    struct root_frame root = { .uuid = sample_uuid(),
                               .seq = 1,
                               .size = UINT64_C(1) << 30,
                               .next_object_id = SAMPLE_NEXT_ID,
                               .mapped_pages = 1,
                               .own = &own,
                               .own_count = 1,
                               .mids = &mid,
                               .mid_count = 1,
                               .chunks = &chunk,
                               .chunk_count = 1 };
    struct buffer commit = BUFFER_EMPTY;
    sample_commit_small(&commit, root.hash);
    buffer_free(&commit);
    root_frame_encode(&root, payload);
}

/* The data object of epoch 1, n 1, that is the whole checkpoint. */
static inline void sample_checkpoint(struct buffer *bytes)
{
    struct buffer payload = BUFFER_EMPTY;
    sample_leaves(&payload);
    sample_piece_frame(bytes, FRAME_LEAVES, &payload);
    buffer_clear(&payload);
    sample_mid(&payload);
    sample_piece_frame(bytes, FRAME_MIDS, &payload);
    buffer_clear(&payload);
    sample_chunk(&payload);
    sample_piece_frame(bytes, FRAME_OBJECTS, &payload);
    buffer_clear(&payload);
    sample_root_payload(&payload, bytes->length + frame_total_bytes((uint32_t)root_payload_bytes(1, 1, 1)));
    sample_piece_frame(bytes, FRAME_ROOT, &payload);
    buffer_free(&payload);
}

#endif
