/* Mids: where the leaves of 2 GiB of disk lie.
 *
 *     header, 24 bytes │ object ids, 8 each │ slots, 8 each
 *
 *      0  layout, u16      2  header bytes, u16    4  number, u32    8  slots, u32    12  ids, u32    16  reserved
 *
 * A slot: start (18 bits), units (12), reserved (2); number of its object's id
 * (u16); leaf in the mid (u16).  A full mid has 8 KiB and its ids, so the mids
 * of a disk, 4 MiB for each TiB, are read whole when it is opened.  A leaf that
 * has no slot maps nothing.
 *
 * Several slots name the same place: the leaves that lie in one frame. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "mid"

int mid_check(const struct mid_frame *mid, const struct id_list *ids, struct error *error)
{
    if (mid->number >= MIDS_MAX)
        return error_set(error, EBADMSG, WHAT ": number %" PRIu64 " is beyond the largest disk", mid->number);
    if (mid->slot_count == 0 || mid->slot_count > MID_LEAVES)
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " leaves", mid->slot_count);
    int result = id_list_check(WHAT, ids, error);
    for (uint32_t i = 0; result == 0 && i < mid->slot_count; i++) {
        const struct mid_slot *slot = &mid->slots[i];
        if (slot->leaf >= MID_LEAVES)
            return error_set(error, EBADMSG, WHAT ": leaf %u, and it has %u", slot->leaf, MID_LEAVES);
        if (i > 0 && slot->leaf <= mid->slots[i - 1].leaf)
            return error_set(error, EBADMSG, WHAT ": leaf %u behind leaf %u", slot->leaf, mid->slots[i - 1].leaf);
        result = place_check(WHAT ": leaf", slot->leaf, &slot->place, error);
    }
    return result;
}

void mid_encode(const struct mid_frame *mid, struct buffer *ret_payload)
{
    const struct id_list none = { 0 };
    assert(mid_check(mid, &none, NULL) == 0);
    uint64_t *ids = memory_array(mid->slot_count, sizeof(*ids));
    for (uint32_t i = 0; i < mid->slot_count; i++)
        ids[i] = mid->slots[i].place.object;
    uint32_t id_count = ids_sort(ids, mid->slot_count);
    buffer_reserve(ret_payload,
                   MID_HEADER_BYTES + (size_t)id_count * PIECE_ID_BYTES + (size_t)mid->slot_count * MID_SLOT_BYTES);
    buffer_put_u16le(ret_payload, PIECE_LAYOUT);
    buffer_put_u16le(ret_payload, MID_HEADER_BYTES);
    buffer_put_u32le(ret_payload, (uint32_t)mid->number);
    buffer_put_u32le(ret_payload, mid->slot_count);
    buffer_put_u32le(ret_payload, id_count);
    buffer_put_u64le(ret_payload, 0);
    for (uint32_t i = 0; i < id_count; i++)
        buffer_put_u64le(ret_payload, ids[i]);
    for (uint32_t i = 0; i < mid->slot_count; i++) {
        buffer_put_u32le(ret_payload, place_pack(&mid->slots[i].place));
        buffer_put_u16le(ret_payload, (uint16_t)ids_find(ids, id_count, mid->slots[i].place.object));
        buffer_put_u16le(ret_payload, mid->slots[i].leaf);
    }
    free(ids);
}

int mid_parse(const void *payload, size_t length, struct mid_frame *ret_mid, struct id_list *ret_ids,
              struct error *error)
{
    uint32_t header_bytes;
    int result = piece_read_header(WHAT, payload, length, MID_HEADER_BYTES, &header_bytes, error);
    if (result < 0)
        return result;
    const uint8_t *bytes = payload;
    struct mid_frame mid = { .number = load_u32le(bytes + 4), .slot_count = load_u32le(bytes + 8) };
    struct id_list ids = { .at = bytes + header_bytes, .count = load_u32le(bytes + 12) };
    uint64_t slots_at = header_bytes + (uint64_t)ids.count * PIECE_ID_BYTES;
    result = piece_check_length(WHAT, length, slots_at + (uint64_t)mid.slot_count * MID_SLOT_BYTES, error);
    if (result < 0)
        return result;
    mid.slots = mid.slot_count > 0 ? memory_array(mid.slot_count, sizeof(*mid.slots)) : NULL;
    for (uint32_t i = 0; i < mid.slot_count; i++) {
        const uint8_t *slot = bytes + slots_at + (size_t)i * MID_SLOT_BYTES;
        mid.slots[i].leaf = load_u16le(slot + 6);
        mid.slots[i].place = place_unpack(id_list_get(&ids, load_u16le(slot + 4)), load_u32le(slot));
    }
    *ret_mid = mid;
    *ret_ids = ids;
    return 0;
}

int mid_decode(const void *payload, size_t length, struct mid_frame *ret_mid, struct error *error)
{
    struct mid_frame mid;
    struct id_list ids;
    int result = mid_parse(payload, length, &mid, &ids, error);
    if (result < 0)
        return result;
    result = mid_check(&mid, &ids, error);
    if (result < 0) {
        mid_frame_free(&mid);
        return result;
    }
    *ret_mid = mid;
    return 0;
}

void mid_frame_free(struct mid_frame *mid)
{
    free(mid->slots);
    *mid = (struct mid_frame){ 0 };
}
