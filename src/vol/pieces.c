/* See pieces.h. */
#include "vol/pieces.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/internal.h"

static int by_place(const void *a, const void *b)
{
    const struct piece_place *left = &((const struct piece *)a)->place, *right = &((const struct piece *)b)->place;
    if (left->object != right->object)
        return left->object < right->object ? -1 : 1;
    return left->start < right->start ? -1 : left->start > right->start;
}

/* Whether `piece` can ride along with the stretch before it. */
static bool joins(const struct stretch *stretch, const struct piece *piece)
{
    const struct piece_place *place = &piece->place;
    uint64_t past = (uint64_t)place->start + place->units, end = (uint64_t)stretch->start + stretch->units;
    return place->object == stretch->object && (past - stretch->start) * FRAME_UNIT <= STRETCH_BYTES_MAX &&
           place->start <= end + STRETCH_GAP_BYTES / FRAME_UNIT;
}

uint32_t pieces_stretch(struct piece *pieces, uint32_t count, struct stretch **ret_stretches)
{
    if (count > 0)
        qsort(pieces, count, sizeof *pieces, by_place);
    struct stretch *stretches = ret_stretches == NULL ? NULL : memory_array((size_t)count + 1, sizeof *stretches);
    struct stretch now = { .object = 0 };
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct piece_place *place = &pieces[i].place;
        if (found == 0 || !joins(&now, &pieces[i])) {
            now = (struct stretch){ .object = place->object, .start = place->start, .first = i };
            found++;
        }
        uint32_t units = place->start + place->units - now.start;
        now.units = units > now.units ? units : now.units;
        now.count++;
        if (stretches != NULL)
            stretches[found - 1] = now;
    }
    if (ret_stretches != NULL)
        *ret_stretches = stretches;
    return found;
}

bool piece_error_is_transient(int status)
{
    return status < 0 && status != -ENOENT && status != -EBADMSG && status != -EMEDIUMTYPE &&
           status != -EPROTONOSUPPORT && status != -ECANCELED;
}

int pieces_get(struct volume *volume, const struct frame_place *place, uint8_t *bytes, size_t length,
               struct error *error)
{
    assert(place->kind == OBJECT_DATA);
    char key[KEY_MAX];
    key_data(&place->uuid, place->epoch, place->n, key);
    struct iovec piece = { .iov_base = bytes, .iov_len = length };
    struct store_get get = { .key = key, .offset = place->offset, .pieces = &piece, .count = 1 };
    struct store_got got = { 0 };
    int status = store_get(volume->all->store, &get, &got, error);
    if (status < 0)
        return status;
    volume->answered_ns = loop_now_ns(volume->loop);
    if (got.length < length)
        return error_set(error, EBADMSG, "%s ends at byte %llu, in the middle of a frame", key,
                         (unsigned long long)got.size);
    return 0;
}

int piece_blame(const struct frame_place *place, struct error *error)
{
    char key[KEY_MAX];
    key_data(&place->uuid, place->epoch, place->n, key);
    return error_context(error, "%s at byte %llu", key, (unsigned long long)place->offset);
}

int piece_open(const uint8_t *bytes, uint32_t units, const struct frame_place *place, enum frame_kind kind,
               const uint8_t **ret_payload, size_t *ret_length, struct error *error)
{
    struct frame_header header;
    int status = frame_decode_header(bytes, &header, error);
    if (status == 0 && frame_total_bytes(header.stored_bytes) != units * FRAME_UNIT)
        status = error_set(error, EBADMSG, "the frame has another length than what names it says");
    struct iovec payload = { .iov_base = (void *)(uintptr_t)(bytes + FRAME_HEADER_BYTES), .iov_len = 0 };
    if (status == 0) {
        payload.iov_len = header.stored_bytes;
        status = frame_verify(bytes, place, &payload, 1, &header, error);
    }
    if (status == 0 && header.kind != kind)
        status =
            error_set(error, EBADMSG, "the frame is of kind %d, where %d was expected", (int)header.kind, (int)kind);
    if (status < 0)
        return piece_blame(place, error);
    *ret_payload = payload.iov_base;
    *ret_length = payload.iov_len;
    return 0;
}
