/* Uploading: a sealed batch becomes a data object.
 *
 * Data objects go in parallel and in any order; nothing refers to them before
 * the commit that lists them, so one whose commit never comes is an orphan and
 * harms nobody.  Hashing its pages runs on a worker thread, over memory that
 * nobody changes any more. */
#include "vol/upload.h"

#include <errno.h>

#include "store/put_once.h"
#include "vol/internal.h"

bool upload_wanted(const struct volume *volume, const struct batch *batch)
{
    bool waited_for = batch->number <= volume->flush_target;
    if (batch->apart && batch->page_count > 0)
        return true;
    return batch->page_count > (waited_for ? INLINE_PAGES_FLUSHED : INLINE_PAGES_UNHURRIED);
}

struct sealing {
    struct batch *batch;
    struct frame_place place;
};

static void lay_out(void *arg)
{
    struct sealing *sealing = arg;
    layout_make(sealing->batch->pages, sealing->batch->page_count, &sealing->batch->layout);
    layout_seal(&sealing->batch->layout, &sealing->place);
}

#ifdef CAIRN_MUTANTS
static int store_put_and_hope(const struct put_once *put)
{
    struct store_put once = { .key = put->key, .pieces = put->pieces, .count = put->count, .condition = STORE_ABSENT };
    store_put(put->store, &once, NULL, NULL);
    return coroutine_cancelled() ? -ECANCELED : 0;
}
#else
#define store_put_and_hope(put) 0
#endif

static void upload_task(void *arg)
{
    struct batch *batch = arg;
    struct volume *volume = batch->volume;
    struct sealing sealing = {
        .batch = batch,
        .place = { .uuid = volume->body.uuid, .kind = OBJECT_DATA, .epoch = volume->epoch, .n = batch->data_n }
    };
    loop_work(volume->loop, lay_out, &sealing);
    char key[KEY_MAX];
    key_data(&volume->body.uuid, volume->epoch, batch->data_n, key);
    struct put_once put = { .store = volume->all->store,
                            .key = key,
                            .pieces = batch->layout.pieces,
                            .count = batch->layout.piece_count,
                            .troubled = volume_put_troubled,
                            .arg = volume,
                            .hurry = &volume->hurry };
    struct error error = ERROR_NONE;
    int status = MUTANT(upload_taken_for_done) ? store_put_and_hope(&put) : put_once(&put, &error);
    volume->uploads--;
    if (status == 0) {
        state_move(&batch_states, &batch->state, BATCH_UPLOADED);
        volume->counts.objects++;
        volume->counts.object_bytes += batch->layout.bytes;
        upload_start(volume);
        commit_kick(volume);
    } else if (status != -ECANCELED) {
        /* Epochs are taken by compare-and-swap and numbers are counted: whoever wrote this name is a copy of us. */
        error_context(&error, "data object %llu of epoch %llu", (unsigned long long)batch->data_n,
                      (unsigned long long)volume->epoch);
        volume_fence(volume, &error);
    }
}

void upload_start(struct volume *volume)
{
    list_for_each (node, &volume->batches) {
        struct batch *batch = container_of(node, struct batch, link);
        if (volume->uploads >= volume->all->settings.uploads + UPLOADS_AHEAD)
            return;
        if (batch->state != BATCH_SEALED || !upload_wanted(volume, batch))
            continue;
        state_move(&batch_states, &batch->state, BATCH_UPLOADING);
        batch->data_n = volume->next_data_n++;
        volume->uploads++;
        group_spawn(&volume->group, "upload", upload_task, batch);
    }
}
