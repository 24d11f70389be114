/* The root of a checkpoint: what its state is, and where the other pieces lie.
 *
 *     header, 192 bytes │ own objects, 56 each │ mids, 16 each │ chunks, 24 each
 *
 *      0  layout, u16      2  header bytes, u16    4  flags, u32: bit 0 there are graves
 *      8  uuid            24  seq                 32  hash              64  size
 *     72  next object id  80  mapped pages        88  own, mids, chunks, u32 each
 *    104  place of the newest graves             144  reserved
 *
 * The register names the root, and says of it what the header says: so a root
 * that somebody put into the place of another is noticed, and one that was found
 * without its register can be understood.
 *
 * The objects that the checkpoint itself wrote are in none of its chunks, since
 * those are written before all of them are known.  Their rows are here. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "root"
#define FLAG_GRAVES 1u
#define FLAGS_KNOWN FLAG_GRAVES
#define GRAVES_AT 104
#define MID_BYTES ((uint64_t)MID_LEAVES * LEAF_PAGES * PAGE_BYTES) /* of the disk */

_Static_assert(ROOT_HEADER_BYTES + (uint64_t)ROOT_OWN_MAX * OBJECT_ROW_BYTES + MIDS_MAX * ROOT_MID_BYTES +
                       (uint64_t)ROOT_CHUNKS_MAX * ROOT_CHUNK_BYTES <=
                   FRAME_PAYLOAD_MAX,
               "the largest root fits a frame");

/* ---- the rules ---- */

static int check_state(const struct root_frame *root, struct error *error)
{
    if (root->seq == 0 || root->seq > NUMBER_MAX)
        return error_set(error, EBADMSG, WHAT ": of seq %" PRIu64, root->seq);
    if (root->size == 0 || root->size > VOLUME_BYTES_MAX || root->size % VOLUME_SIZE_UNIT != 0)
        return error_set(error, EBADMSG, WHAT ": a disk of %" PRIu64 " bytes", root->size);
    if (root->next_object_id == 0 || root->next_object_id > OBJECT_ID_READ_MAX)
        return error_set(error, EBADMSG, WHAT ": next object id %" PRIu64, root->next_object_id);
    uint64_t pages = (root->size + PAGE_BYTES - 1) / PAGE_BYTES;
    if (root->mapped_pages > pages || (root->mapped_pages == 0) != (root->mid_count == 0))
        return error_set(error, EBADMSG, WHAT ": %" PRIu64 " of %" PRIu64 " pages mapped, by %" PRIu32 " mids",
                         root->mapped_pages, pages, root->mid_count);
    if (root->own_count == 0 || root->own_count > ROOT_OWN_MAX)
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " objects of its own", root->own_count);
    if (root->chunk_count > ROOT_CHUNKS_MAX)
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " chunks, and %u are the most", root->chunk_count,
                         ROOT_CHUNKS_MAX);
    return graves_place_check(WHAT, root->has_graves, &root->graves, root->graves_units, error);
}

static int check_own(const struct root_frame *root, struct error *error)
{
    for (uint32_t i = 0; i < root->own_count; i++) {
        const struct object_row *row = &root->own[i];
        int result = object_row_check(WHAT, i + 1, row, error);
        if (result < 0)
            return result;
        if (i > 0 && row->id <= row[-1].id)
            return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " behind object %" PRIu64, row->id, row[-1].id);
        if (row->id >= root->next_object_id)
            return error_set(error, EBADMSG, WHAT ": object %" PRIu64 ", and the next id is %" PRIu64, row->id,
                             root->next_object_id);
        if (row->kind != OBJECT_DATA || row->role != ROLE_PIECES || row->died != UINT64_MAX ||
            !uuid_equal(&row->uuid, &root->uuid))
            return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " is not one that its checkpoint could have made",
                             row->id);
    }
    return 0;
}

/* A place of a mid or a chunk. */
static int check_place(const struct root_frame *root, const char *what, uint64_t number,
                       const struct piece_place *place, struct error *error)
{
    int result = place_check(what, number, place, error);
    if (result == 0 && place->object >= root->next_object_id)
        result = error_set(error, EBADMSG, "%s %" PRIu64 ": in object %" PRIu64 ", and the next id is %" PRIu64, what,
                           number, place->object, root->next_object_id);
    return result;
}

static int check_mids(const struct root_frame *root, struct error *error)
{
    uint64_t most = (root->size + MID_BYTES - 1) / MID_BYTES;
    for (uint32_t i = 0; i < root->mid_count; i++) {
        const struct root_mid *mid = &root->mids[i];
        if (mid->number >= most)
            return error_set(error, EBADMSG, WHAT ": mid %" PRIu64 " is beyond the end of the disk", mid->number);
        if (i > 0 && mid->number <= mid[-1].number)
            return error_set(error, EBADMSG, WHAT ": mid %" PRIu64 " behind mid %" PRIu64, mid->number, mid[-1].number);
        int result = check_place(root, WHAT ": mid", mid->number, &mid->place, error);
        if (result < 0)
            return result;
    }
    return 0;
}

static int check_chunks(const struct root_frame *root, struct error *error)
{
    for (uint32_t i = 0; i < root->chunk_count; i++) {
        const struct root_chunk *chunk = &root->chunks[i];
        if (chunk->first_id >= root->next_object_id)
            return error_set(error, EBADMSG, WHAT ": a chunk from id %" PRIu64 ", and the next id is %" PRIu64,
                             chunk->first_id, root->next_object_id);
        if (i > 0 && chunk->first_id <= chunk[-1].first_id)
            return error_set(error, EBADMSG, WHAT ": chunk %" PRIu64 " behind chunk %" PRIu64, chunk->first_id,
                             chunk[-1].first_id);
        if (chunk->row_count == 0 || chunk->row_count > CHUNK_ROWS_MAX)
            return error_set(error, EBADMSG, WHAT ": chunk %" PRIu64 ": %" PRIu32 " rows", chunk->first_id,
                             chunk->row_count);
        int result = check_place(root, WHAT ": chunk", chunk->first_id, &chunk->place, error);
        if (result < 0)
            return result;
    }
    return 0;
}

int root_frame_check(const struct root_frame *root, struct error *error)
{
    int result = check_state(root, error);
    if (result == 0)
        result = check_own(root, error);
    if (result == 0)
        result = check_mids(root, error);
    if (result == 0)
        result = check_chunks(root, error);
    return result;
}

uint64_t root_chunk_past(const struct root_frame *root, uint32_t number)
{
    assert(number < root->chunk_count);
    return number + 1 < root->chunk_count ? root->chunks[number + 1].first_id : UINT64_MAX;
}

/* ---- encoding ---- */

size_t root_payload_bytes(uint32_t own_count, uint32_t mid_count, uint32_t chunk_count)
{
    return ROOT_HEADER_BYTES + (size_t)own_count * OBJECT_ROW_BYTES + (size_t)mid_count * ROOT_MID_BYTES +
           (size_t)chunk_count * ROOT_CHUNK_BYTES;
}

static void put_header(const struct root_frame *root, struct buffer *payload)
{
    buffer_put_u16le(payload, PIECE_LAYOUT);
    buffer_put_u16le(payload, ROOT_HEADER_BYTES);
    buffer_put_u32le(payload, root->has_graves ? FLAG_GRAVES : 0);
    buffer_put(payload, root->uuid.bytes, sizeof(root->uuid.bytes));
    buffer_put_u64le(payload, root->seq);
    buffer_put(payload, root->hash, sizeof(root->hash));
    buffer_put_u64le(payload, root->size);
    buffer_put_u64le(payload, root->next_object_id);
    buffer_put_u64le(payload, root->mapped_pages);
    buffer_put_u32le(payload, root->own_count);
    buffer_put_u32le(payload, root->mid_count);
    buffer_put_u32le(payload, root->chunk_count);
    buffer_put_u32le(payload, 0);
    graves_place_put(root->has_graves, &root->graves, root->graves_units, payload);
}

void root_frame_encode(const struct root_frame *root, struct buffer *ret_payload)
{
    assert(root_frame_check(root, NULL) == 0);
    size_t begin = ret_payload->length;
    size_t length = root_payload_bytes(root->own_count, root->mid_count, root->chunk_count);
    buffer_reserve(ret_payload, length);
    put_header(root, ret_payload);
    buffer_put_zeroes(ret_payload, begin + ROOT_HEADER_BYTES - ret_payload->length);
    for (uint32_t i = 0; i < root->own_count; i++)
        object_row_put(&root->own[i], 0, ret_payload);
    for (uint32_t i = 0; i < root->mid_count; i++) {
        buffer_put_u64le(ret_payload, root->mids[i].place.object);
        buffer_put_u32le(ret_payload, place_pack(&root->mids[i].place));
        buffer_put_u32le(ret_payload, (uint32_t)root->mids[i].number);
    }
    for (uint32_t i = 0; i < root->chunk_count; i++) {
        buffer_put_u64le(ret_payload, root->chunks[i].place.object);
        buffer_put_u64le(ret_payload, root->chunks[i].first_id);
        buffer_put_u32le(ret_payload, place_pack(&root->chunks[i].place));
        buffer_put_u32le(ret_payload, root->chunks[i].row_count);
    }
    assert(ret_payload->length == begin + length);
}

/* ---- decoding ---- */

void root_frame_read_header(const uint8_t *bytes, struct root_frame *ret_root)
{
    struct root_frame root = {
        .has_graves = (load_u32le(bytes + 4) & FLAG_GRAVES) != 0,
        .seq = load_u64le(bytes + 24),
        .size = load_u64le(bytes + 64),
        .next_object_id = load_u64le(bytes + 72),
        .mapped_pages = load_u64le(bytes + 80),
        .own_count = load_u32le(bytes + 88),
        .mid_count = load_u32le(bytes + 92),
        .chunk_count = load_u32le(bytes + 96),
    };
    memcpy(root.uuid.bytes, bytes + 8, sizeof(root.uuid.bytes));
    memcpy(root.hash, bytes + 32, sizeof(root.hash));
    graves_place_read(bytes + GRAVES_AT, &root.graves, &root.graves_units);
    *ret_root = root;
}

static int get_own(const uint8_t *bytes, struct root_frame *root, struct error *error)
{
    for (uint32_t i = 0; i < root->own_count; i++) {
        uint16_t uuid = object_row_read(bytes + (size_t)i * OBJECT_ROW_BYTES, &root->own[i]);
        if (uuid != 0)
            return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " has UUID %u, and there is one", root->own[i].id,
                             uuid);
        root->own[i].uuid = root->uuid;
    }
    return 0;
}

int root_frame_parse(const void *payload, size_t length, struct root_frame *ret_root, struct error *error)
{
    uint32_t header_bytes;
    int result = piece_read_header(WHAT, payload, length, ROOT_HEADER_BYTES, &header_bytes, error);
    if (result < 0)
        return result;
    const uint8_t *bytes = payload;
    uint32_t flags = load_u32le(bytes + 4);
    if ((flags & ~FLAGS_KNOWN) != 0)
        return error_set(error, EPROTONOSUPPORT, WHAT ": flags %08" PRIx32 ", not all of which this program knows",
                         flags);
    struct root_frame root;
    root_frame_read_header(bytes, &root);
    uint64_t mids_at = header_bytes + (uint64_t)root.own_count * OBJECT_ROW_BYTES;
    uint64_t chunks_at = mids_at + (uint64_t)root.mid_count * ROOT_MID_BYTES;
    result = piece_check_length(WHAT, length, chunks_at + (uint64_t)root.chunk_count * ROOT_CHUNK_BYTES, error);
    if (result < 0)
        return result;
    root.own = root.own_count > 0 ? memory_array(root.own_count, sizeof(*root.own)) : NULL;
    root.mids = root.mid_count > 0 ? memory_array(root.mid_count, sizeof(*root.mids)) : NULL;
    root.chunks = root.chunk_count > 0 ? memory_array(root.chunk_count, sizeof(*root.chunks)) : NULL;
    result = get_own(bytes + header_bytes, &root, error);
    if (result < 0) {
        root_frame_free(&root);
        return result;
    }
    for (uint32_t i = 0; i < root.mid_count; i++) {
        const uint8_t *mid = bytes + mids_at + (size_t)i * ROOT_MID_BYTES;
        root.mids[i].number = load_u32le(mid + 12);
        root.mids[i].place = place_unpack(load_u64le(mid), load_u32le(mid + 8));
    }
    for (uint32_t i = 0; i < root.chunk_count; i++) {
        const uint8_t *chunk = bytes + chunks_at + (size_t)i * ROOT_CHUNK_BYTES;
        root.chunks[i].first_id = load_u64le(chunk + 8);
        root.chunks[i].row_count = load_u32le(chunk + 20);
        root.chunks[i].place = place_unpack(load_u64le(chunk), load_u32le(chunk + 16));
    }
    *ret_root = root;
    return 0;
}

int root_frame_decode(const void *payload, size_t length, struct root_frame *ret_root, struct error *error)
{
    struct root_frame root;
    int result = root_frame_parse(payload, length, &root, error);
    if (result < 0)
        return result;
    result = root_frame_check(&root, error);
    if (result < 0) {
        root_frame_free(&root);
        return result;
    }
    *ret_root = root;
    return 0;
}

void root_frame_free(struct root_frame *root)
{
    free(root->own);
    free(root->mids);
    free(root->chunks);
    *root = (struct root_frame){ 0 };
}
