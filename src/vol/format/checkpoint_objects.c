/* Rows of the object table: chunks of those that live, graves of those that have died.
 *
 *     header, 64 bytes │ UUIDs, 16 each │ rows, 56 each
 *
 *      0  layout, u16      4  flags, u32: bit 0 graves, bit 1 there are older graves
 *      2  header bytes     8  rows, u32      12  UUIDs, u32    16  first id, u64    24  place of the older graves
 *
 * A row: id, epoch or seq, n, born, died (u64 each), live, bytes (u32 each),
 * number of its UUID (u16), kind, role (u8 each), reserved (u32).
 *
 * A chunk holds all living objects whose ids lie in its range, which ends where
 * the next chunk begins, so that a checkpoint writes anew only those in which
 * something changed.  What has died is in no chunk any more, but its object is
 * still in the store: graves remember it for whoever deletes, each frame naming
 * the one before it. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "objects"
#define FLAG_GRAVES 1u
#define FLAG_PREVIOUS 2u
#define FLAGS_KNOWN (FLAG_GRAVES | FLAG_PREVIOUS)
#define NOT_DEAD UINT64_MAX

_Static_assert(OBJECTS_HEADER_BYTES + GRAVES_MAX * (OBJECT_ROW_BYTES + PIECE_UUID_BYTES) <= PIECE_PAYLOAD_MAX,
               "graves fit a frame");

/* ---- a row, here and in roots ---- */

void object_row_put(const struct object_row *row, uint16_t uuid_index, struct buffer *bytes)
{
    buffer_put_u64le(bytes, row->id);
    buffer_put_u64le(bytes, row->kind == OBJECT_LOG ? row->seq : row->epoch);
    buffer_put_u64le(bytes, row->n);
    buffer_put_u64le(bytes, row->born);
    buffer_put_u64le(bytes, row->died);
    buffer_put_u32le(bytes, row->live);
    buffer_put_u32le(bytes, (uint32_t)row->total_bytes);
    buffer_put_u16le(bytes, uuid_index);
    buffer_put_u8(bytes, (uint8_t)row->kind);
    buffer_put_u8(bytes, (uint8_t)row->role);
    buffer_put_u32le(bytes, 0);
}

uint16_t object_row_read(const uint8_t bytes[OBJECT_ROW_BYTES], struct object_row *ret_row)
{
    struct object_row row = {
        .id = load_u64le(bytes),
        .n = load_u64le(bytes + 16),
        .born = load_u64le(bytes + 24),
        .died = load_u64le(bytes + 32),
        .live = load_u32le(bytes + 40),
        .total_bytes = load_u32le(bytes + 44),
        .kind = bytes[50],
        .role = bytes[51],
    };
    *(row.kind == OBJECT_LOG ? &row.seq : &row.epoch) = load_u64le(bytes + 8);
    *ret_row = row;
    return load_u16le(bytes + 48);
}

static int check_key(const char *what, const struct object_row *row, struct error *error)
{
    if (row->kind == OBJECT_LOG) {
        if (row->seq == 0 || row->seq > NUMBER_MAX || row->epoch != 0 || row->n != 0)
            return error_set(error, EBADMSG, "%s: object %" PRIu64 ": a log entry of seq %" PRIu64, what, row->id,
                             row->seq);
        if (row->role != ROLE_PAGES)
            return error_set(error, EBADMSG, "%s: object %" PRIu64 ": a log entry that holds pieces of checkpoints",
                             what, row->id);
        return 0;
    }
    if (row->epoch == 0 || row->epoch > NUMBER_MAX || row->seq != 0)
        return error_set(error, EBADMSG, "%s: object %" PRIu64 ": a data object of epoch %" PRIu64, what, row->id,
                         row->epoch);
    if (row->total_bytes == 0)
        return error_set(error, EBADMSG, "%s: object %" PRIu64 ": a data object of no bytes", what, row->id);
    return 0;
}

int object_row_check(const char *what, uint32_t number, const struct object_row *row, struct error *error)
{
    if (row->id == PIECE_OBJECT_NONE || row->id > OBJECT_ID_MAX)
        return error_set(error, EBADMSG, "%s: row %" PRIu32 " is of object %" PRIu64 ", which cannot be", what, number,
                         row->id);
    if (row->kind != OBJECT_LOG && row->kind != OBJECT_DATA)
        return error_set(error, EPROTONOSUPPORT,
                         "%s: object %" PRIu64 " is of kind %d, which this program does not know", what, row->id,
                         (int)row->kind);
    if (row->role != ROLE_PAGES && row->role != ROLE_PIECES)
        return error_set(error, EPROTONOSUPPORT, "%s: object %" PRIu64 " has role %d, which this program does not know",
                         what, row->id, (int)row->role);
    if (row->total_bytes > OBJECT_BYTES_MAX || row->total_bytes % FRAME_UNIT != 0)
        return error_set(error, EBADMSG, "%s: object %" PRIu64 ": %" PRIu64 " bytes of frames", what, row->id,
                         row->total_bytes);
    if (row->born == 0 || row->born > NUMBER_MAX)
        return error_set(error, EBADMSG, "%s: object %" PRIu64 ": born at seq %" PRIu64, what, row->id, row->born);
    if (row->died != NOT_DEAD && (row->died < row->born || row->died > NUMBER_MAX))
        return error_set(error, EBADMSG, "%s: object %" PRIu64 ": born at seq %" PRIu64 ", died at %" PRIu64, what,
                         row->id, row->born, row->died);
    if ((row->live == 0) != (row->died != NOT_DEAD))
        return error_set(error, EBADMSG, "%s: object %" PRIu64 " has %s, and %" PRIu32 " %s live", what, row->id,
                         row->died != NOT_DEAD ? "died" : "not died", row->live,
                         row->role == ROLE_PAGES ? "pages" : "pieces");
    return check_key(what, row, error);
}

/* ---- the rules of a frame of them ---- */

static int check_order(const struct objects_frame *objects, uint32_t i, struct error *error)
{
    const struct object_row *row = &objects->rows[i], *before = i > 0 ? row - 1 : NULL;
    if ((row->died != NOT_DEAD) != objects->graves)
        return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " has %s, among those that have %s", row->id,
                         objects->graves ? "not died" : "died", objects->graves ? "died" : "not");
    if (!objects->graves && row->id < objects->first_id)
        return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " in the chunk from id %" PRIu64, row->id,
                         objects->first_id);
    bool ascending = before == NULL ||
                     (objects->graves && row->died != before->died ? row->died > before->died : row->id > before->id);
    if (!ascending)
        return error_set(error, EBADMSG, WHAT ": object %" PRIu64 " behind object %" PRIu64, row->id, before->id);
    return 0;
}

static int check_uuids(const uint8_t *uuids, uint32_t count, struct error *error)
{
    for (uint32_t i = 1; i < count; i++)
        if (memcmp(uuids + (size_t)i * PIECE_UUID_BYTES, uuids + (size_t)(i - 1) * PIECE_UUID_BYTES,
                   PIECE_UUID_BYTES) <= 0)
            return error_set(error, EBADMSG, WHAT ": UUID %" PRIu32 " is not above the one before it", i + 1);
    return 0;
}

int objects_check(const struct objects_frame *objects, const uint8_t *uuids, uint32_t uuid_count, struct error *error)
{
    uint32_t most = objects->graves ? GRAVES_MAX : CHUNK_ROWS_MAX;
    if (objects->row_count == 0 || objects->row_count > most)
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " rows", objects->row_count);
    if (objects->first_id > OBJECT_ID_MAX || (objects->graves && objects->first_id != 0))
        return error_set(error, EBADMSG, WHAT ": %s from id %" PRIu64, objects->graves ? "graves" : "a chunk",
                         objects->first_id);
    if (objects->has_previous && !objects->graves)
        return error_set(error, EBADMSG, WHAT ": a chunk that names graves");
    int result = graves_place_check(WHAT, objects->has_previous, &objects->previous, objects->previous_units, error);
    if (result == 0)
        result = check_uuids(uuids, uuid_count, error);
    for (uint32_t i = 0; result == 0 && i < objects->row_count; i++) {
        result = object_row_check(WHAT, i + 1, &objects->rows[i], error);
        if (result == 0)
            result = check_order(objects, i, error);
    }
    return result;
}

/* ---- encoding ---- */

static int compare_uuids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct uuid));
}

/* Each that the rows name once, ascending; the caller frees them. */
static struct uuid *collect_uuids(const struct objects_frame *objects, uint32_t *ret_count)
{
    struct uuid *uuids = memory_array(objects->row_count, sizeof(*uuids));
    uint32_t count = 0;
    for (uint32_t i = 0; i < objects->row_count; i++)
        uuids[i] = objects->rows[i].uuid;
    qsort(uuids, objects->row_count, sizeof(*uuids), compare_uuids);
    for (uint32_t i = 0; i < objects->row_count; i++)
        if (count == 0 || !uuid_equal(&uuids[i], &uuids[count - 1]))
            uuids[count++] = uuids[i];
    *ret_count = count;
    return uuids;
}

void objects_encode(const struct objects_frame *objects, struct buffer *ret_payload)
{
    assert(objects_check(objects, NULL, 0, NULL) == 0);
    uint32_t uuid_count;
    struct uuid *uuids = collect_uuids(objects, &uuid_count);
    size_t begin = ret_payload->length;
    size_t length =
        OBJECTS_HEADER_BYTES + (size_t)uuid_count * PIECE_UUID_BYTES + (size_t)objects->row_count * OBJECT_ROW_BYTES;
    buffer_reserve(ret_payload, length);
    buffer_put_u16le(ret_payload, PIECE_LAYOUT);
    buffer_put_u16le(ret_payload, OBJECTS_HEADER_BYTES);
    buffer_put_u32le(ret_payload, (objects->graves ? FLAG_GRAVES : 0) | (objects->has_previous ? FLAG_PREVIOUS : 0));
    buffer_put_u32le(ret_payload, objects->row_count);
    buffer_put_u32le(ret_payload, uuid_count);
    buffer_put_u64le(ret_payload, objects->first_id);
    graves_place_put(objects->has_previous, &objects->previous, objects->previous_units, ret_payload);
    for (uint32_t i = 0; i < uuid_count; i++)
        buffer_put(ret_payload, uuids[i].bytes, sizeof(uuids[i].bytes));
    for (uint32_t i = 0; i < objects->row_count; i++) {
        const struct uuid *uuid = bsearch(&objects->rows[i].uuid, uuids, uuid_count, sizeof(*uuids), compare_uuids);
        object_row_put(&objects->rows[i], (uint16_t)(uuid - uuids), ret_payload);
    }
    assert(ret_payload->length == begin + length);
    free(uuids);
}

/* ---- decoding ---- */

int objects_parse(const void *payload, size_t length, struct objects_frame *ret_objects, const uint8_t **ret_uuids,
                  uint32_t *ret_uuid_count, struct error *error)
{
    uint32_t header_bytes;
    int result = piece_read_header(WHAT, payload, length, OBJECTS_HEADER_BYTES, &header_bytes, error);
    if (result < 0)
        return result;
    const uint8_t *bytes = payload, *uuids = bytes + header_bytes;
    uint32_t flags = load_u32le(bytes + 4), uuid_count = load_u32le(bytes + 12);
    if ((flags & ~FLAGS_KNOWN) != 0)
        return error_set(error, EPROTONOSUPPORT, WHAT ": flags %08" PRIx32 ", not all of which this program knows",
                         flags);
    struct objects_frame objects = {
        .graves = (flags & FLAG_GRAVES) != 0,
        .has_previous = (flags & FLAG_PREVIOUS) != 0,
        .row_count = load_u32le(bytes + 8),
        .first_id = load_u64le(bytes + 16),
    };
    graves_place_read(bytes + 24, &objects.previous, &objects.previous_units);
    uint64_t rows_at = header_bytes + (uint64_t)uuid_count * PIECE_UUID_BYTES;
    result = piece_check_length(WHAT, length, rows_at + (uint64_t)objects.row_count * OBJECT_ROW_BYTES, error);
    if (result < 0)
        return result;
    objects.rows = objects.row_count > 0 ? memory_array(objects.row_count, sizeof(*objects.rows)) : NULL;
    for (uint32_t i = 0; i < objects.row_count; i++) {
        struct object_row *row = &objects.rows[i];
        uint16_t uuid = object_row_read(bytes + rows_at + (size_t)i * OBJECT_ROW_BYTES, row);
        if (uuid >= uuid_count) {
            result = error_set(error, EBADMSG, WHAT ": object %" PRIu64 " has UUID %u, and there are %" PRIu32, row->id,
                               uuid, uuid_count);
            objects_frame_free(&objects);
            return result;
        }
        memcpy(row->uuid.bytes, uuids + (size_t)uuid * PIECE_UUID_BYTES, PIECE_UUID_BYTES);
    }
    *ret_objects = objects;
    *ret_uuids = uuids;
    *ret_uuid_count = uuid_count;
    return 0;
}

int objects_decode(const void *payload, size_t length, struct objects_frame *ret_objects, struct error *error)
{
    struct objects_frame objects;
    const uint8_t *uuids;
    uint32_t uuid_count;
    int result = objects_parse(payload, length, &objects, &uuids, &uuid_count, error);
    if (result < 0)
        return result;
    result = objects_check(&objects, uuids, uuid_count, error);
    if (result < 0) {
        objects_frame_free(&objects);
        return result;
    }
    *ret_objects = objects;
    return 0;
}

void objects_frame_free(struct objects_frame *objects)
{
    free(objects->rows);
    *objects = (struct objects_frame){ 0 };
}
