/* What the pieces of checkpoints have in common.
 *
 * Each payload begins with its layout and the length of its header.  A later
 * release that adds something which readers may ignore makes the header longer;
 * one that changes what there is takes another layout, and is refused here.
 *
 * Pieces name objects by ids of 64 bits, and few objects many times, so leaves
 * and mids have a list of ids in front, and name each by its number there. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vol/format/codec.h"

#define PLACE_START_BITS 18

int piece_read_header(const char *what, const void *payload, size_t length, uint32_t least, uint32_t *ret_header_bytes,
                      struct error *error)
{
    struct reader reader = reader_over(payload, length);
    uint16_t layout = reader_u16le(&reader), header_bytes = reader_u16le(&reader);
    if (!reader.failed && layout != PIECE_LAYOUT)
        return error_set(error, EPROTONOSUPPORT, "%s: layout %u, and this program knows %u: use a newer cairn", what,
                         layout, PIECE_LAYOUT);
    if (length < least)
        return error_set(error, EBADMSG, "%s: %zu bytes, its header alone has %" PRIu32, what, length, least);
    if (header_bytes < least || header_bytes > PIECE_HEADER_MAX || header_bytes % 8 != 0 || header_bytes > length)
        return error_set(error, EBADMSG, "%s: a header of %u bytes", what, header_bytes);
    *ret_header_bytes = header_bytes;
    return 0;
}

int piece_check_length(const char *what, size_t length, uint64_t expected, struct error *error)
{
    if (length != expected)
        return error_set(error, EBADMSG, "%s: %zu bytes, and by its header it has %" PRIu64, what, length, expected);
    return 0;
}

/* ---- ids ---- */

uint64_t id_list_get(const struct id_list *list, uint32_t index)
{
    return index < list->count ? load_u64le(list->at + (size_t)index * PIECE_ID_BYTES) : PIECE_OBJECT_NONE;
}

int id_list_check(const char *what, const struct id_list *list, struct error *error)
{
    uint64_t before = PIECE_OBJECT_NONE;
    for (uint32_t i = 0; i < list->count; i++) {
        uint64_t id = id_list_get(list, i);
        if (id > OBJECT_ID_MAX)
            return error_set(error, EBADMSG, "%s: object id %" PRIu64 ", and none goes so far", what, id);
        if (id <= before)
            return error_set(error, EBADMSG, "%s: object id %" PRIu64 " behind %" PRIu64 " in its list", what, id,
                             before);
        before = id;
    }
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

uint32_t ids_sort(uint64_t *ids, uint32_t count)
{
    uint32_t kept = 0;
    if (count > 0)
        qsort(ids, count, sizeof(*ids), compare_ids);
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || ids[i] != ids[kept - 1])
            ids[kept++] = ids[i];
    return kept;
}

uint32_t ids_find(const uint64_t *ids, uint32_t count, uint64_t id)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    assert(low < count && ids[low] == id);
    return low;
}

/* ---- places ---- */

uint32_t place_pack(const struct piece_place *place)
{
    return place->start | place->units << PLACE_START_BITS;
}

struct piece_place place_unpack(uint64_t object, uint32_t packed)
{
    return (struct piece_place){
        .object = object,
        .start = packed % OBJECT_UNITS_MAX,
        .units = packed >> PLACE_START_BITS & PIECE_UNITS_MAX,
    };
}

int place_check(const char *what, uint64_t number, const struct piece_place *place, struct error *error)
{
    if (place->object == PIECE_OBJECT_NONE || place->object > OBJECT_ID_MAX)
        return error_set(error, EBADMSG, "%s %" PRIu64 ": in object %" PRIu64 ", which cannot be", what, number,
                         place->object);
    /* A header, and at least one byte. */
    if (place->units < 2 || place->units > PIECE_UNITS_MAX || place->start > OBJECT_UNITS_MAX - place->units)
        return error_set(error, EBADMSG, "%s %" PRIu64 ": %" PRIu32 " units from unit %" PRIu32 " of object %" PRIu64,
                         what, number, place->units, place->start, place->object);
    return 0;
}

void graves_place_put(bool present, const struct frame_place *place, uint32_t units, struct buffer *bytes)
{
    if (!present) {
        buffer_put_zeroes(bytes, GRAVES_PLACE_BYTES);
        return;
    }
    buffer_put(bytes, place->uuid.bytes, sizeof(place->uuid.bytes));
    buffer_put_u64le(bytes, place->epoch);
    buffer_put_u64le(bytes, place->n);
    buffer_put_u32le(bytes, (uint32_t)(place->offset / FRAME_UNIT));
    buffer_put_u32le(bytes, units);
}

void graves_place_read(const uint8_t *bytes, struct frame_place *ret_place, uint32_t *ret_units)
{
    struct frame_place place = {
        .kind = OBJECT_DATA,
        .epoch = load_u64le(bytes + 16),
        .n = load_u64le(bytes + 24),
        .offset = (uint64_t)load_u32le(bytes + 32) * FRAME_UNIT,
    };
    memcpy(place.uuid.bytes, bytes, sizeof(place.uuid.bytes));
    *ret_units = load_u32le(bytes + 36);
    *ret_place = place;
}

int graves_place_check(const char *what, bool present, const struct frame_place *place, uint32_t units,
                       struct error *error)
{
    uint64_t start = place->offset / FRAME_UNIT;
    if (!present) {
        if (!bytes_are_zero(place->uuid.bytes, sizeof(place->uuid.bytes)) || place->epoch != 0 || place->n != 0 ||
            place->offset != 0 || units != 0)
            return error_set(error, EBADMSG, "%s: a place of graves, and there are none", what);
        return 0;
    }
    if (place->kind != OBJECT_DATA || place->epoch == 0 || place->epoch > NUMBER_MAX)
        return error_set(error, EBADMSG, "%s: graves in an object of epoch %" PRIu64, what, place->epoch);
    if (place->offset % FRAME_UNIT != 0 || units < 2 || units > PIECE_UNITS_MAX || start > OBJECT_UNITS_MAX - units)
        return error_set(error, EBADMSG, "%s: graves of %" PRIu32 " units from unit %" PRIu64, what, units, start);
    return 0;
}
