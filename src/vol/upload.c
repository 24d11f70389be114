/* Uploading: a sealed batch becomes a data object.
 *
 * Data objects go in parallel and in any order; nothing refers to them before
 * the commit that lists them, so one whose commit never comes is an orphan and
 * harms nobody.  Hashing its pages runs on a worker thread, over memory that
 * nobody changes any more.
 *
 * A FLUSH waits for the last of its objects.  So how large the objects are that
 * it waits for is decided as late as can be, when each of them begins: batches
 * are cut and joined so that all uploads are busy and end together, by what
 * each has yet to send.  That is reckoned by the pace of those before it. */
#include "vol/upload.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "store/put_once.h"
#include "vol/internal.h"
#include "vol/share.h"

bool upload_wanted(const struct volume *volume, const struct batch *batch)
{
    const struct volume_settings *settings = &volume->all->settings;
    bool waited_for = batch->number <= volume->flush_target;
    if (batch->apart && batch->page_count > 0)
        return true;
    return batch->page_count > (waited_for ? settings->flushed_inline_pages : settings->inline_pages);
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

static void note_pace(struct volume *volume, const struct batch *batch)
{
    uint64_t spent = loop_now_ns(volume->loop) - batch->started_ns;
    if (batch->started_ns == 0 || spent < NS_PER_MS) /* its turn came otherwise than was thought */
        return;
    uint64_t rate = batch->page_count * NS_PER_S / spent;
    volume->upload_rate = volume->upload_rate == 0 ? rate : (volume->upload_rate + rate) / 2;
}

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
        note_pace(volume, batch);
        upload_start(volume);
        commit_kick(volume);
    } else if (status != -ECANCELED) {
        /* Epochs are taken by compare-and-swap and numbers are counted: whoever wrote this name is a copy of us. */
        error_context(&error, "data object %llu of epoch %llu", (unsigned long long)batch->data_n,
                      (unsigned long long)volume->epoch);
        volume_fence(volume, &error);
    }
}

/* Supposes that the store sends them in their order, as many at a time as the setting says.  Now and then one overtakes
 * another, or waits for an attempt that failed: then the shares are less even. */
static void note_turns(struct volume *volume)
{
    if (volume->uploads == 0)
        return;
    uint64_t now = loop_now_ns(volume->loop);
    uint32_t ahead = 0;
    list_for_each (node, &volume->batches) {
        const struct batch *batch = container_of(node, struct batch, link);
        ahead += batch->state == BATCH_UPLOADING && batch->started_ns == 0;
    }
    list_for_each (node, &volume->batches) {
        struct batch *batch = container_of(node, struct batch, link);
        if (ahead == 0 || volume->uploads - ahead >= volume->all->settings.uploads)
            return;
        if (batch->state == BATCH_UPLOADING && batch->started_ns == 0) {
            batch->started_ns = now;
            ahead--;
        }
    }
}

static uint64_t pages_to_send(const struct volume *volume, const struct batch *batch)
{
    if (batch->started_ns == 0)
        return batch->page_count;
    uint64_t spent_us = (loop_now_ns(volume->loop) - batch->started_ns) / 1000;
    uint64_t sent = volume->upload_rate * spent_us / 1000000;
    return sent < batch->page_count ? batch->page_count - sent : 0;
}

static bool waits(const struct volume *volume, const struct batch *batch)
{
    return batch->state == BATCH_SEALED && batch->number <= volume->flush_target && upload_wanted(volume, batch);
}

/* The share of the next upload in what a FLUSH waits for. */
static uint32_t next_share(const struct volume *volume)
{
    uint64_t *under_way = memory_array(volume->batch_count, sizeof *under_way), waiting = 0;
    uint32_t count = 0;
    list_for_each (node, &volume->batches) {
        const struct batch *batch = container_of(node, struct batch, link);
        if (batch->state == BATCH_UPLOADING)
            under_way[count++] = pages_to_send(volume, batch);
        else if (waits(volume, batch))
            waiting += batch->page_count;
    }
    const struct volume_settings *settings = &volume->all->settings;
    uint32_t others = volume->uploads > count ? volume->uploads - count : 0; /* of a checkpoint */
    uint32_t streams = settings->uploads > others ? settings->uploads - others : 1;
    uint32_t share = share_next(under_way, count, streams, waiting, settings->spread_pages, BATCH_EXTENTS_MOST);
    free(under_way);
    return share;
}

/* What can be joined to `batch`, and is waited for too; NULL: nothing. */
static struct batch *joining(const struct volume *volume, const struct batch *batch)
{
    if (batch->link.next == &volume->batches)
        return NULL;
    struct batch *next = container_of(batch->link.next, struct batch, link);
    return waits(volume, next) && batch_joins(batch, next) ? next : NULL;
}

/* Cuts from `batch`, which a FLUSH waits for, or joins to it what follows, so that it has its share. */
static void take_share(struct volume *volume, struct batch *batch)
{
    static_assert(BATCH_EXTENTS < BATCH_EXTENTS_MOST, "there is room for pages beside zero ranges");
    uint32_t share = next_share(volume), most = BATCH_EXTENTS_MOST - batch->zeroes.count;
    share = share < most ? share : most;
    bool crumb = batch->page_count > share && batch->page_count - share < volume->all->settings.spread_pages / 4;
    if (crumb && batch->page_count <= most && joining(volume, batch) == NULL)
        share = batch->page_count;
    batch->apart = true; /* small as it may become */
    commit_cut(volume, batch, share);
    for (struct batch *next; batch->page_count < share && (next = joining(volume, batch)) != NULL;) {
        next->apart = true;
        commit_cut(volume, next, share - batch->page_count);
        batch_join(batch, next);
        list_remove(&next->link);
        volume->batch_count--;
        batch_free(next);
    }
}

void upload_start(struct volume *volume)
{
    list_for_each (node, &volume->batches) {
        struct batch *batch = container_of(node, struct batch, link);
        if (volume->uploads >= volume->all->settings.uploads + UPLOADS_AHEAD)
            break;
        if (batch->state != BATCH_SEALED || !upload_wanted(volume, batch))
            continue;
        if (waits(volume, batch))
            take_share(volume, batch);
        state_move(&batch_states, &batch->state, BATCH_UPLOADING);
        batch->data_n = volume->next_data_n++;
        volume->uploads++;
        group_spawn(&volume->group, "upload", upload_task, batch);
    }
    note_turns(volume);
}
