/* Pieces of checkpoints for people: what a frame of leaves, of a mid, of rows
 * of the object table, or of a root says.
 *
 * Whatever has lengths that add up is printed, whether it keeps the rules or
 * not: which rule it breaks is the answer. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/text.h"
#include "vol/format/codec.h"

static void put_place(const struct piece_place *place, struct buffer *text)
{
    buffer_printf(text, "in object %" PRIu64 ", at %" PRIu64 ", %" PRIu64 " bytes\n", place->object,
                  (uint64_t)place->start * FRAME_UNIT, (uint64_t)place->units * FRAME_UNIT);
}

static void put_graves(const char *which, const struct frame_place *place, uint32_t units, struct buffer *text)
{
    char key[KEY_MAX];
    key_data(&place->uuid, place->epoch, place->n, key);
    buffer_printf(text, "  %s: in %s, at %" PRIu64 ", %" PRIu64 " bytes\n", which, key, place->offset,
                  (uint64_t)units * FRAME_UNIT);
}

static void put_row(const struct object_row *row, struct buffer *text)
{
    char key[KEY_MAX] = "an object of an unknown kind", died[32] = "";
    if (row->kind == OBJECT_LOG)
        key_log(&row->uuid, row->seq, key);
    else if (row->kind == OBJECT_DATA)
        key_data(&row->uuid, row->epoch, row->n, key);
    if (row->died != UINT64_MAX)
        snprintf(died, sizeof(died), ", died %" PRIu64, row->died);
    buffer_printf(text,
                  "  object %" PRIu64 ": %s, %" PRIu64 " bytes of frames, born %" PRIu64 "%s, %" PRIu32 " %s live\n",
                  row->id, key, row->total_bytes, row->born, died, row->live,
                  row->role == ROLE_PAGES    ? "pages"
                  : row->role == ROLE_PIECES ? "pieces"
                                             : "of something unknown");
}

static void put_leaf(const struct leaf *leaf, struct buffer *text)
{
    uint64_t page = leaf->number * LEAF_PAGES;
    buffer_printf(text, "  leaf %" PRIu64 ": pages %" PRIu64 " to %" PRIu64 ", runs: %" PRIu32 "\n", leaf->number, page,
                  page + LEAF_PAGES - 1, leaf->run_count);
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *run = &leaf->runs[i];
        buffer_printf(text,
                      "    pages %" PRIu64 " to %" PRIu64 " (%u): object %" PRIu64 ", frame at %" PRIu64 ", %" PRIu64
                      " bytes, from page %u of %u\n",
                      page + run->first, page + run->first + run->count - 1, run->count, run->object,
                      (uint64_t)run->start * FRAME_UNIT, (uint64_t)run->units * FRAME_UNIT, run->frame_page,
                      run->frame_pages);
    }
}

static int dump_leaves(const void *payload, size_t length, struct buffer *text, struct error *error)
{
    struct leaves_frame frame;
    struct id_list ids;
    int result = leaves_parse(payload, length, &frame, &ids, error);
    if (result < 0)
        return result;
    buffer_printf(text, "  leaves: %" PRIu32 ", runs: %" PRIu32 ", objects: %" PRIu32 "\n", frame.leaf_count,
                  frame.run_count, ids.count);
    for (uint32_t i = 0; i < frame.leaf_count; i++)
        put_leaf(&frame.leaves[i], text);
    result = leaves_check(&frame, &ids, error);
    leaves_frame_free(&frame);
    return result;
}

static int dump_mid(const void *payload, size_t length, struct buffer *text, struct error *error)
{
    struct mid_frame mid;
    struct id_list ids;
    int result = mid_parse(payload, length, &mid, &ids, error);
    if (result < 0)
        return result;
    buffer_printf(text, "  mid: %" PRIu64 ", leaves: %" PRIu32 ", objects: %" PRIu32 "\n", mid.number, mid.slot_count,
                  ids.count);
    for (uint32_t i = 0; i < mid.slot_count; i++) {
        buffer_printf(text, "  leaf %" PRIu64 ": ", mid.number * MID_LEAVES + mid.slots[i].leaf);
        put_place(&mid.slots[i].place, text);
    }
    result = mid_check(&mid, &ids, error);
    mid_frame_free(&mid);
    return result;
}

static int dump_objects(const void *payload, size_t length, struct buffer *text, struct error *error)
{
    struct objects_frame objects;
    const uint8_t *uuids;
    uint32_t uuid_count;
    int result = objects_parse(payload, length, &objects, &uuids, &uuid_count, error);
    if (result < 0)
        return result;
    if (objects.graves)
        buffer_printf(text, "  graves: %" PRIu32 ", volumes: %" PRIu32 "\n", objects.row_count, uuid_count);
    else
        buffer_printf(text, "  chunk: ids from %" PRIu64 ", objects: %" PRIu32 ", volumes: %" PRIu32 "\n",
                      objects.first_id, objects.row_count, uuid_count);
    if (objects.has_previous)
        put_graves("older graves", &objects.previous, objects.previous_units, text);
    for (uint32_t i = 0; i < objects.row_count; i++)
        put_row(&objects.rows[i], text);
    result = objects_check(&objects, uuids, uuid_count, error);
    objects_frame_free(&objects);
    return result;
}

static void put_root_header(const struct root_frame *root, struct buffer *text)
{
    char hash[2 * SHA256_BYTES + 1], uuid[UUID_TEXT];
    text_hex(root->hash, sizeof(root->hash), hash);
    uuid_format(&root->uuid, uuid);
    buffer_printf(text, "  root: of %s, seq %" PRIu64 ", hash %s\n", uuid, root->seq, hash);
    buffer_printf(text, "  disk of %" PRIu64 " bytes, %" PRIu64 " pages mapped, next object id %" PRIu64 "\n",
                  root->size, root->mapped_pages, root->next_object_id);
    buffer_printf(text, "  objects of its own: %" PRIu32 ", mids: %" PRIu32 ", chunks: %" PRIu32 "\n", root->own_count,
                  root->mid_count, root->chunk_count);
    if (root->has_graves)
        put_graves("newest graves", &root->graves, root->graves_units, text);
}

static int dump_root(const void *payload, size_t length, struct buffer *text, struct error *error)
{
    struct root_frame root;
    if (length >= ROOT_HEADER_BYTES) { /* the little that says most, also when the rest is not all there */
        root_frame_read_header(payload, &root);
        put_root_header(&root, text);
    }
    int result = root_frame_parse(payload, length, &root, error);
    if (result < 0)
        return result;
    for (uint32_t i = 0; i < root.own_count; i++)
        put_row(&root.own[i], text);
    for (uint32_t i = 0; i < root.mid_count; i++) {
        buffer_printf(text, "  mid %" PRIu64 ": ", root.mids[i].number);
        put_place(&root.mids[i].place, text);
    }
    for (uint32_t i = 0; i < root.chunk_count; i++) {
        buffer_printf(text, "  chunk: ids from %" PRIu64 ", objects: %" PRIu32 ", ", root.chunks[i].first_id,
                      root.chunks[i].row_count);
        put_place(&root.chunks[i].place, text);
    }
    result = root_frame_check(&root, error);
    root_frame_free(&root);
    return result;
}

int dump_piece(enum frame_kind kind, const void *payload, size_t length, struct buffer *text, struct error *error)
{
    switch (kind) {
    case FRAME_LEAVES:
        return dump_leaves(payload, length, text, error);
    case FRAME_MIDS:
        return dump_mid(payload, length, text, error);
    case FRAME_ROOT:
        return dump_root(payload, length, text, error);
    case FRAME_OBJECTS:
        return dump_objects(payload, length, text, error);
    case FRAME_PAGES:
        break;
    }
    return 0;
}
