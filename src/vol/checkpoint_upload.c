/* The objects that a checkpoint makes: frames are laid out one behind the other, and uploaded by the object.
 *
 *     own_frame ──> filling ──full──> sealed ──> uploading ──> durable
 *                                       (at most CHECKPOINT_UPLOADS)
 *
 * An object's id and key are given out when its first frame comes, so places in
 * it can be named before it is there; whoever reads from such a place meanwhile
 * gets a copy of what is laid out (checkpoint_copy_frames()).
 *
 * Its memory is charged to the page pool without waiting: a commit may wait for
 * the checkpoint, and everybody else's pages for the commit.  It is bounded by
 * what may be laid out at once.
 *
 * Uploads count among the volume's (volume.uploads), so data makes way for
 * them, and do not wait for a place there: else a writer who keeps all places
 * busy would starve the checkpoint until commits stand still.
 *
 * What can fail: the store, which is tried for ever, as for data (vol/upload.c);
 * a conflict, which says that a copy of us writes: fenced. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/put_once.h"
#include "vol/checkpoint_internal.h"
#include "vol/upload.h"

/* Part of the shard's memory that may be laid out and not yet uploaded: with 256 MiB objects become as large as they
 * may, with 512 MiB four of them are on their way at once. */
#define LAID_OUT_SHARE 16u

static uint64_t laid_out_most(const struct checkpoint *checkpoint)
{
    return page_pool_limit(checkpoint->volume->all->pool) / LAID_OUT_SHARE;
}

uint64_t own_bytes_most(const struct checkpoint *checkpoint)
{
    uint64_t wanted = checkpoint->volume->all->settings.checkpoint_object_bytes;
    uint64_t most = laid_out_most(checkpoint) / 2; /* one is filled while another is on its way */
    return wanted < most ? wanted : most;
}

static struct object_row own_row(const struct own_object *own)
{
    const struct volume *volume = own->checkpoint->volume;
    return (struct object_row){ .id = own->id,
                                .kind = OBJECT_DATA,
                                .role = ROLE_PIECES,
                                .uuid = volume->body.uuid,
                                .epoch = volume->epoch,
                                .n = own->n,
                                .born = own->checkpoint->root.seq,
                                .died = OBJECT_ALIVE,
                                .total_bytes = own->total_bytes,
                                .live = own->live };
}

struct object_row own_object_row(const struct checkpoint *checkpoint, uint32_t number)
{
    return own_row(checkpoint->own[number]);
}

struct frame_place own_place(const struct checkpoint *checkpoint, const struct leaf_place *place)
{
    const struct object *row = object_table_row(checkpoint->volume->objects, place->object);
    return (struct frame_place){ .uuid = row->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = row->epoch,
                                 .n = row->n,
                                 .offset = (uint64_t)place->start * FRAME_UNIT };
}

/* ---- laying out ---- */

static struct own_object *open_object(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    assert(checkpoint->own_first + checkpoint->own_count < checkpoint->own_past);
    struct own_object *own = memory_new(sizeof *own);
    list_init(&own->link);
    own->checkpoint = checkpoint;
    own->id = checkpoint->own_first + checkpoint->own_count;
    own->n = volume->next_data_n++;
    struct object_row row = own_row(own);
    struct object object = { .id = row.id,
                             .kind = row.kind,
                             .role = row.role,
                             .uuid = row.uuid,
                             .epoch = row.epoch,
                             .n = row.n,
                             .born = row.born };
    if (object_table_add(volume->objects, &object, &own->index) < 0) {
        struct error error;
        error_set(&error, ENOSPC, "it has more than %u objects: this release can't hold it", OBJECT_INDEX_MAX);
        free(own);
        volume_fence(volume, &error);
        return NULL;
    }
    if (checkpoint->own_count == checkpoint->own_capacity) {
        checkpoint->own_capacity = checkpoint->own_capacity == 0 ? 4 : checkpoint->own_capacity * 2;
        checkpoint->own = memory_resize(checkpoint->own, checkpoint->own_capacity, sizeof(struct own_object *));
    }
    checkpoint->own[checkpoint->own_count++] = own;
    checkpoint->filling = own;
    return own;
}

static void seal(struct checkpoint *checkpoint)
{
    struct own_object *own = checkpoint->filling;
    if (own == NULL)
        return;
    checkpoint->filling = NULL;
    own->total_bytes = own->bytes.length;
    object_table_set_total_bytes(checkpoint->volume->objects, own->index, own->total_bytes);
    list_push_back(&checkpoint->sealed, &own->link);
}

/* The object that takes a frame of so many bytes, and grows to at most `most`; NULL: the volume was fenced. */
static struct own_object *object_for(struct checkpoint *checkpoint, uint64_t frame_bytes, uint64_t most)
{
    const struct own_object *own = checkpoint->filling;
    if (own != NULL && own->bytes.length + frame_bytes > most)
        seal(checkpoint);
    return checkpoint->filling != NULL ? checkpoint->filling : open_object(checkpoint);
}

static void append(struct own_object *own, enum frame_kind kind, const struct buffer *payload)
{
    struct checkpoint *checkpoint = own->checkpoint;
    uint64_t before = own->bytes.length;
    struct frame_header header = { .kind = kind,
                                   .codec = CODEC_NONE,
                                   .cipher = CIPHER_NONE,
                                   .raw_bytes = (uint32_t)payload->length,
                                   .stored_bytes = (uint32_t)payload->length };
    struct leaf_place place = { .object = own->index, .start = (uint32_t)(before / FRAME_UNIT) };
    struct frame_place here = own_place(checkpoint, &place);
    struct iovec piece = { .iov_base = payload->data, .iov_len = payload->length };
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, &here, &piece, 1, bytes);
    buffer_put(&own->bytes, bytes, sizeof bytes);
    buffer_put(&own->bytes, payload->data, payload->length);
    uint64_t total = frame_total_bytes((uint32_t)payload->length);
    buffer_put_zeroes(&own->bytes, before + total - own->bytes.length);
    checkpoint->laid_out += total;
    page_pool_charge(checkpoint->volume->all->pool, total);
}

struct leaf_place own_frame(struct checkpoint *checkpoint, enum frame_kind kind, struct buffer *payload,
                            uint32_t pieces)
{
    uint64_t total = frame_total_bytes((uint32_t)payload->length);
    struct own_object *own = object_for(checkpoint, total, own_bytes_most(checkpoint));
    struct leaf_place place = { .object = OBJECT_NONE };
    if (own != NULL) {
        place = (struct leaf_place){ .object = own->index,
                                     .start = (uint32_t)(own->bytes.length / FRAME_UNIT),
                                     .units = (uint32_t)(total / FRAME_UNIT) };
        append(own, kind, payload);
        own->live += pieces;
    }
    buffer_clear(payload);
    return place;
}

struct leaf_place own_reserve_root(struct checkpoint *checkpoint, uint32_t mid_count, uint32_t chunk_count)
{
    uint32_t own_count = checkpoint->own_count + (checkpoint->filling == NULL);
    uint64_t total = frame_total_bytes((uint32_t)root_payload_bytes(own_count, mid_count, chunk_count));
    if (checkpoint->filling != NULL && checkpoint->filling->bytes.length + total > OBJECT_BYTES_MAX) {
        own_count++;
        total = frame_total_bytes((uint32_t)root_payload_bytes(own_count, mid_count, chunk_count));
    }
    struct own_object *own = object_for(checkpoint, total, OBJECT_BYTES_MAX);
    if (own == NULL)
        return (struct leaf_place){ .object = OBJECT_NONE };
    assert(checkpoint->own_count == own_count);
    own->live++;
    own->total_bytes = own->bytes.length + total;
    return (struct leaf_place){ .object = own->index,
                                .start = (uint32_t)(own->bytes.length / FRAME_UNIT),
                                .units = (uint32_t)(total / FRAME_UNIT) };
}

void own_put_root(struct checkpoint *checkpoint, const struct leaf_place *place, struct buffer *payload)
{
    struct own_object *own = checkpoint->filling;
    assert(own->index == place->object && own->bytes.length == (uint64_t)place->start * FRAME_UNIT);
    append(own, FRAME_ROOT, payload);
    assert(own->bytes.length == own->total_bytes);
}

/* ---- uploading ---- */

static void launch(struct checkpoint *checkpoint);

static void upload_troubled(void *arg, const struct error *error)
{
    checkpoint_troubled(arg, error);
}

static void upload_own(void *arg)
{
    struct own_object *own = arg;
    struct checkpoint *checkpoint = own->checkpoint;
    struct volume *volume = checkpoint->volume;
    char key[KEY_MAX];
    key_data(&volume->body.uuid, volume->epoch, own->n, key);
    struct iovec piece = { .iov_base = own->bytes.data, .iov_len = own->bytes.length };
    struct put_once put = { .store = volume->all->store,
                            .key = key,
                            .pieces = &piece,
                            .count = 1,
                            .troubled = upload_troubled,
                            .arg = checkpoint,
                            .hurry = &checkpoint->hurry };
    struct error error = ERROR_NONE;
    int status = put_once(&put, &error);
    volume->uploads--;
    checkpoint->uploading--;
    if (status == 0) {
        own->durable = true;
        checkpoint->trouble = (struct error)ERROR_NONE;
        volume->counts.checkpoint_bytes += own->bytes.length;
        checkpoint->laid_out -= own->bytes.length;
        page_pool_uncharge(volume->all->pool, own->bytes.length);
        buffer_free(&own->bytes);
        page_pool_retry(volume->all->pool);
        launch(checkpoint);
        upload_start(volume);
    } else if (status != -ECANCELED) {
        error_context(&error, "data object %llu of epoch %llu", (unsigned long long)own->n,
                      (unsigned long long)volume->epoch);
        volume_fence(volume, &error);
    }
    waitq_wake_all(&checkpoint->progress);
}

static void launch(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    while (checkpoint->uploading < CHECKPOINT_UPLOADS && !list_empty(&checkpoint->sealed)) {
        struct own_object *own = container_of(list_pop_front(&checkpoint->sealed), struct own_object, link);
        checkpoint->uploading++;
        volume->uploads++;
        group_spawn(&volume->group, "checkpoint upload", upload_own, own);
    }
}

static bool has_room(const struct checkpoint *checkpoint)
{
    return checkpoint->laid_out < laid_out_most(checkpoint);
}

/* What is being filled goes to the store as it is. */
static void seal_and_launch(struct checkpoint *checkpoint)
{
    seal(checkpoint);
    launch(checkpoint);
}

int own_make_room(struct checkpoint *checkpoint)
{
    launch(checkpoint);
    while (!has_room(checkpoint)) {
        if (checkpoint->uploading == 0) /* all of it is in the object that is being filled */
            seal_and_launch(checkpoint);
        if (waitq_wait(&checkpoint->progress) < 0)
            return -ECANCELED;
        if (checkpoint->volume->state == VOLUME_FENCED)
            return -ESHUTDOWN;
    }
    return checkpoint->volume->state == VOLUME_FENCED ? -ESHUTDOWN : 0;
}

int own_finish(struct checkpoint *checkpoint)
{
    seal_and_launch(checkpoint);
    while (checkpoint->uploading > 0 || !list_empty(&checkpoint->sealed)) {
        if (waitq_wait(&checkpoint->progress) < 0)
            return -ECANCELED;
        if (checkpoint->volume->state == VOLUME_FENCED)
            return -ESHUTDOWN;
    }
    return 0;
}

void own_clear(struct checkpoint *checkpoint)
{
    for (uint32_t i = 0; i < checkpoint->own_count; i++) {
        buffer_free(&checkpoint->own[i]->bytes);
        free(checkpoint->own[i]);
    }
    page_pool_uncharge(checkpoint->volume->all->pool, checkpoint->laid_out);
    checkpoint->laid_out = 0;
    checkpoint->own_count = 0;
    checkpoint->filling = NULL;
    list_init(&checkpoint->sealed);
}

bool checkpoint_copy_frames(const struct volume *volume, uint64_t id, uint32_t start, uint32_t units, uint8_t *bytes)
{
    const struct checkpoint *checkpoint = volume->checkpoint;
    if (id < checkpoint->own_first || id - checkpoint->own_first >= checkpoint->own_count)
        return false;
    const struct own_object *own = checkpoint->own[id - checkpoint->own_first];
    if (own->durable)
        return false;
    assert(((uint64_t)start + units) * FRAME_UNIT <= own->bytes.length);
    memcpy(bytes, own->bytes.data + (size_t)start * FRAME_UNIT, (size_t)units * FRAME_UNIT);
    return true;
}
