/* Opening from a root: map and object table as a checkpoint left them.
 *
 * The register says where the root's frame lies, the root where everything else
 * lies but for leaves, which mids name and which are loaded when they are needed
 * (vol/leaves.c).
 *
 *     root     one GET, with what lies right before it: a small volume's mids and
 *              chunks
 *     own      rows of the checkpoint's own objects stand in the root
 *     chunks   all other rows.  A chunk lies in an object whose row is one of the
 *              root's, or in a chunk that was written after it: so there may be
 *              several rounds, a few in practice
 *     mids     places of leaves
 *
 * What lies together is fetched together; several GETs are under way at once.
 *
 * What can fail: anything that is damaged, foreign, newer, missing, or does not
 * agree with the rest is named, and the volume is refused.  Whether live counts
 * are right shows when leaves arrive (map_leaf_arrived()). */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/checkpoint.h"
#include "vol/format/checkpoint.h"
#include "vol/internal.h"
#include "vol/pieces.h"

#define TRANSIENT_TRIES 8
#define BACKOFF_FIRST_NS (20 * NS_PER_MS)
/* What is read besides, before the root: more than the mids and chunks of a volume that all are written anew each time
 * (vol/checkpoint_internal.h). */
#define NEAR_BYTES (320u << 10)
/* GETs under way at once, of 8 MiB at most each. */
#define STRETCHES_AT_ONCE 8u

struct restoring {
    struct volume *volume;
    const struct root *root;
    struct root_frame frame;
    bool packed; /* see checkpoint_opened_from() */
    /* What was read together with the root, the root's own frame at its end. */
    uint8_t *near;
    uint32_t near_start, near_units;

    struct piece *pieces; /* of this round */
    uint32_t piece_count;
    struct stretch *stretches;
    uint32_t stretch_count, next;
    int status; /* the first failure */
    struct error error;
    uint32_t *named; /* pieces counted per object, by index in the table */
    uint32_t named_count;
};

static int refuse(struct restoring *restoring, int code, const char *what, uint64_t number, const char *why,
                  struct error *error)
{
    return error_set(error, code, "%s %llu %s", what, (unsigned long long)number, why);
}

static int get_patiently(struct volume *volume, const struct frame_place *place, uint8_t *bytes, size_t length,
                         struct error *error)
{
    uint64_t backoff = BACKOFF_FIRST_NS;
    for (int tries = 1;; tries++, backoff *= 2) {
        int status = pieces_get(volume, place, bytes, length, error);
        if (status == -ENOENT) {
            char key[KEY_MAX];
            key_data(&place->uuid, place->epoch, place->n, key);
            return error_set(error, EBADMSG, "%s is missing", key);
        }
        if (!piece_error_is_transient(status) || tries == TRANSIENT_TRIES)
            return status;
        if (sleep_ns(backoff) < 0)
            return error_set(error, ECANCELED, "opening was given up");
    }
}

/* ---- the root ---- */

static int compare_root(const struct restoring *restoring, struct error *error)
{
    const struct root *root = restoring->root;
    const struct root_frame *frame = &restoring->frame;
    const char *differs = NULL;
    if (!uuid_equal(&frame->uuid, &root->uuid))
        differs = "volume";
    else if (frame->seq != root->seq || memcmp(frame->hash, root->hash, SHA256_BYTES) != 0)
        differs = "log entry";
    else if (frame->size != root->size)
        differs = "size";
    else if (frame->next_object_id != root->next_object_id)
        differs = "next object id";
    if (differs != NULL)
        return error_set(error, EBADMSG, "the root is not the one that the register describes: it has another %s",
                         differs);
    for (uint32_t i = 0; i < frame->own_count; i++) {
        const struct object_row *row = &frame->own[i];
        if (row->id != root->object_id)
            continue;
        if (row->epoch != root->epoch || row->n != root->n)
            break;
        return 0;
    }
    return error_set(error, EBADMSG, "the root does not list the object that it lies in");
}

static int read_root(struct restoring *restoring, struct error *error)
{
    const struct root *root = restoring->root;
    uint32_t before = root->start < NEAR_BYTES / FRAME_UNIT ? root->start : NEAR_BYTES / FRAME_UNIT;
    restoring->near_start = root->start - before;
    restoring->near_units = before + root->units;
    struct frame_place place = { .uuid = root->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = root->epoch,
                                 .n = root->n,
                                 .offset = (uint64_t)restoring->near_start * FRAME_UNIT };
    size_t bytes = (size_t)restoring->near_units * FRAME_UNIT;
    restoring->near = memory_new(bytes);
    int status = get_patiently(restoring->volume, &place, restoring->near, bytes, error);
    const uint8_t *payload;
    size_t length;
    if (status == 0) {
        place.offset = (uint64_t)root->start * FRAME_UNIT;
        status = piece_open(restoring->near + (size_t)before * FRAME_UNIT, root->units, &place, FRAME_ROOT, &payload,
                            &length, error);
    }
    if (status == 0)
        status = root_frame_decode(payload, length, &restoring->frame, error);
    return status == 0 ? compare_root(restoring, error) : status;
}

/* ---- rows ---- */

static int restore_row(struct restoring *restoring, const struct object_row *row, bool clean, struct error *error)
{
    uint32_t index;
    const char *wrong = NULL;
    if (row->id >= restoring->root->next_object_id)
        wrong = "has an id that was not given out yet";
    else if (row->born > restoring->root->seq)
        wrong = "was made after the checkpoint";
    if (wrong != NULL)
        return refuse(restoring, EBADMSG, "object", row->id, wrong, error);
    int status = object_table_restore(restoring->volume->objects, row, clean, &index);
    if (status == -EEXIST)
        return refuse(restoring, EBADMSG, "object", row->id, "is listed twice", error);
    if (status < 0)
        return refuse(restoring, ENOSPC, "object", row->id, "is one too many for this release", error);
    if (index >= restoring->named_count) {
        uint32_t count = index < 64 ? 128 : index * 2;
        restoring->named = memory_resize(restoring->named, count, sizeof *restoring->named);
        memset(restoring->named + restoring->named_count, 0,
               (count - restoring->named_count) * sizeof *restoring->named);
        restoring->named_count = count;
    }
    return 0;
}

static int restore_own(struct restoring *restoring, struct error *error)
{
    int status = 0;
    for (uint32_t i = 0; i < restoring->frame.own_count && status == 0; i++)
        status = restore_row(restoring, &restoring->frame.own[i], false, error);
    return status;
}

/* Counts a piece in its object. */
static int name_place(struct restoring *restoring, const struct piece_place *place, uint32_t *ret_index,
                      struct error *error)
{
    uint32_t index = object_table_find(restoring->volume->objects, place->object);
    if (index == OBJECT_NONE)
        return refuse(restoring, EBADMSG, "object", place->object, "holds a piece, and is in no list", error);
    const struct object *row = object_table_row(restoring->volume->objects, index);
    if (row->role != ROLE_PIECES || ((uint64_t)place->start + place->units) * FRAME_UNIT > row->total_bytes)
        return refuse(restoring, EBADMSG, "object", place->object, "cannot hold a piece that is named in it", error);
    if (++restoring->named[index] > row->live)
        return refuse(restoring, EBADMSG, "object", place->object, "holds more pieces than it says", error);
    *ret_index = index;
    return 0;
}

/* Number `piece->key` of the root's chunks. */
static int take_chunk(struct restoring *restoring, const struct piece *piece, const uint8_t *payload, size_t length,
                      struct error *error)
{
    uint32_t number = (uint32_t)piece->key;
    const struct root_chunk *named = &restoring->frame.chunks[number];
    struct objects_frame chunk;
    int status = objects_decode(payload, length, &chunk, error);
    if (status < 0)
        return status;
    uint64_t last = chunk.rows[chunk.row_count - 1].id;
    if (chunk.graves || chunk.first_id != named->first_id || chunk.row_count != named->row_count)
        status = refuse(restoring, EBADMSG, "chunk", named->first_id, "is another one than the root describes", error);
    else if (last >= root_chunk_past(&restoring->frame, number))
        status = refuse(restoring, EBADMSG, "chunk", named->first_id, "has rows of another one", error);
    restoring->packed = restoring->packed || chunk.first_id % CHUNK_IDS != 0 || last - chunk.first_id >= CHUNK_IDS;
    for (uint32_t i = 0; i < chunk.row_count && status == 0; i++)
        status = restore_row(restoring, &chunk.rows[i], true, error);
    objects_frame_free(&chunk);
    return status;
}

/* ---- mids ---- */

static int take_mid(struct restoring *restoring, const struct piece *piece, const uint8_t *payload, size_t length,
                    struct error *error)
{
    struct mid_frame mid;
    int status = mid_decode(payload, length, &mid, error);
    if (status < 0)
        return status;
    if (mid.number != piece->key)
        status = refuse(restoring, EBADMSG, "mid", piece->key, "is another one than the root describes", error);
    struct leaf_place *slots = memory_array(MID_LEAVES, sizeof *slots);
    for (uint32_t i = 0; i < MID_LEAVES; i++)
        slots[i].object = OBJECT_NONE;
    for (uint32_t i = 0; i < mid.slot_count && status == 0; i++) {
        struct leaf_place *slot = &slots[mid.slots[i].leaf];
        slot->start = mid.slots[i].place.start;
        slot->units = mid.slots[i].place.units;
        status = name_place(restoring, &mid.slots[i].place, &slot->object, error);
    }
    if (status == 0)
        status = map_restore_mid(restoring->volume->map, mid.number, slots, error);
    free(slots);
    mid_frame_free(&mid);
    return status;
}

/* ---- fetching pieces ---- */

/* One piece whose frame lies at `bytes`. */
static int take_piece(struct restoring *restoring, const struct piece *piece, const uint8_t *bytes, struct error *error)
{
    uint32_t index;
    int status = name_place(restoring, &piece->place, &index, error);
    if (status < 0)
        return status;
    const struct object *row = object_table_row(restoring->volume->objects, index);
    struct frame_place place = { .uuid = row->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = row->epoch,
                                 .n = row->n,
                                 .offset = (uint64_t)piece->place.start * FRAME_UNIT };
    const uint8_t *payload;
    size_t length;
    status = piece_open(bytes, piece->place.units, &place, piece->is_mid ? FRAME_MIDS : FRAME_OBJECTS, &payload,
                        &length, error);
    if (status < 0)
        return status;
    status = piece->is_mid ? take_mid(restoring, piece, payload, length, error)
                           : take_chunk(restoring, piece, payload, length, error);
    return status < 0 ? piece_blame(&place, error) : 0;
}

static bool is_near(const struct restoring *restoring, const struct stretch *stretch)
{
    return stretch->object == restoring->root->object_id && stretch->start >= restoring->near_start &&
           stretch->start + stretch->units <= restoring->near_start + restoring->near_units;
}

static int fetch_stretch(struct restoring *restoring, const struct stretch *stretch, uint8_t *bytes,
                         struct error *error)
{
    uint32_t index = object_table_find(restoring->volume->objects, stretch->object);
    assert(index != OBJECT_NONE);
    const struct object *row = object_table_row(restoring->volume->objects, index);
    if (row->kind != OBJECT_DATA)
        return refuse(restoring, EBADMSG, "object", stretch->object, "cannot hold a piece that is named in it", error);
    struct frame_place place = { .uuid = row->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = row->epoch,
                                 .n = row->n,
                                 .offset = (uint64_t)stretch->start * FRAME_UNIT };
    return get_patiently(restoring->volume, &place, bytes, (size_t)stretch->units * FRAME_UNIT, error);
}

static int take_stretch(struct restoring *restoring, const struct stretch *stretch, struct error *error)
{
    size_t length = (size_t)stretch->units * FRAME_UNIT;
    struct page_pool *pool = restoring->volume->all->pool;
    const uint8_t *bytes = restoring->near;
    uint8_t *fetched = NULL;
    int status = 0;
    if (is_near(restoring, stretch)) {
        bytes += (size_t)(stretch->start - restoring->near_start) * FRAME_UNIT;
    } else {
        page_pool_charge(pool, length);
        bytes = fetched = memory_new(length);
        status = fetch_stretch(restoring, stretch, fetched, error);
    }
    for (uint32_t i = 0; i < stretch->count && status == 0; i++) {
        const struct piece *piece = &restoring->pieces[stretch->first + i];
        status =
            take_piece(restoring, piece, bytes + (size_t)(piece->place.start - stretch->start) * FRAME_UNIT, error);
    }
    if (fetched != NULL)
        page_pool_uncharge(pool, length);
    free(fetched);
    return status;
}

static void stretch_task(void *arg)
{
    struct restoring *restoring = arg;
    while (restoring->next < restoring->stretch_count && restoring->status == 0) {
        struct error error = ERROR_NONE;
        int status = take_stretch(restoring, &restoring->stretches[restoring->next++], &error);
        if (status < 0 && restoring->status == 0) {
            restoring->status = status;
            restoring->error = error;
        }
    }
}

/* Takes in all pieces of the round. */
static int take_round(struct restoring *restoring, struct error *error)
{
    restoring->stretch_count = pieces_stretch(restoring->pieces, restoring->piece_count, &restoring->stretches);
    restoring->next = 0;
    struct group group;
    group_init(&group, restoring->volume->loop);
    for (uint32_t i = 0; i < STRETCHES_AT_ONCE && i < restoring->stretch_count; i++)
        group_spawn(&group, "restore", stretch_task, restoring);
    if (coroutine_cancelled())
        group_cancel(&group);
    group_join(&group);
    free(restoring->stretches);
    restoring->stretches = NULL;
    if (restoring->status < 0)
        return error_copy(error, &restoring->error);
    return coroutine_cancelled() ? error_set(error, ECANCELED, "opening was given up") : 0;
}

static int restore_chunks(struct restoring *restoring, struct error *error)
{
    const struct root_frame *frame = &restoring->frame;
    bool *taken = memory_array((size_t)frame->chunk_count + 1, sizeof *taken);
    restoring->pieces = memory_array((size_t)frame->chunk_count + 1, sizeof *restoring->pieces);
    uint32_t left = frame->chunk_count;
    int status = 0;
    while (left > 0 && status == 0) {
        restoring->piece_count = 0;
        for (uint32_t i = 0; i < frame->chunk_count; i++) {
            const struct root_chunk *chunk = &frame->chunks[i];
            if (taken[i] || object_table_find(restoring->volume->objects, chunk->place.object) == OBJECT_NONE)
                continue;
            taken[i] = true;
            restoring->pieces[restoring->piece_count++] = (struct piece){ .place = chunk->place, .key = i };
        }
        left -= restoring->piece_count;
        status = restoring->piece_count > 0
                     ? take_round(restoring, error)
                     : error_set(error, EBADMSG, "the root names chunks in objects that no chunk lists");
    }
    free(taken);
    free(restoring->pieces);
    restoring->pieces = NULL;
    return status;
}

static int restore_mids(struct restoring *restoring, struct error *error)
{
    const struct root_frame *frame = &restoring->frame;
    restoring->pieces = memory_array((size_t)frame->mid_count + 1, sizeof *restoring->pieces);
    restoring->piece_count = frame->mid_count;
    for (uint32_t i = 0; i < frame->mid_count; i++) {
        const struct root_mid *mid = &frame->mids[i];
        restoring->pieces[i] = (struct piece){ .place = mid->place, .key = mid->number, .is_mid = true };
        if (object_table_find(restoring->volume->objects, mid->place.object) == OBJECT_NONE)
            return refuse(restoring, EBADMSG, "mid", mid->number, "lies in an object that is in no list", error);
    }
    return take_round(restoring, error);
}

int restore_from_root(struct volume *volume, struct error *error)
{
    const struct root *root = &volume->body.newest;
    object_table_set_seq(volume->objects, root->seq);
    if (root->empty)
        return 0;
    struct restoring restoring = { .volume = volume, .root = root };
    int status = read_root(&restoring, error);
    if (status == 0)
        status = restore_own(&restoring, error);
    if (status == 0) {
        uint32_t index;
        status = name_place(
            &restoring, &(struct piece_place){ .object = root->object_id, .start = root->start, .units = root->units },
            &index, error);
    }
    if (status == 0)
        status = restore_chunks(&restoring, error);
    if (status == 0)
        status = restore_mids(&restoring, error);
    if (status == 0) {
        map_restore_mapped_pages(volume->map, restoring.frame.mapped_pages);
        checkpoint_opened_from(volume, root, &restoring.frame, restoring.packed);
    }
    free(restoring.near);
    free(restoring.named);
    free(restoring.pieces);
    root_frame_free(&restoring.frame);
    if (status < 0 && status != -ECANCELED)
        error_context(error, "%s: its checkpoint at log entry %llu is damaged or not readable here", volume->subject,
                      (unsigned long long)root->seq);
    return status;
}
