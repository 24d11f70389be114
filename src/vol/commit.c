/* How what was written becomes durable: the committer.
 *
 * One task per volume turns sealed batches into commits, oldest first, one
 * commit in flight at a time, whether or not anybody waits in FLUSH:
 *
 *     writes ─> open batch ──seal──> sealed ──> inline ───────────┐
 *                                       └─> upload (vol/upload.c) ┴─> commit ─> map, cache
 *
 * A commit takes the longest run of batches from the oldest on that is ready
 * (rides inline, or uploaded) within the limits of tables and inline bytes, so
 * commits grow when the store is slow.  It is made
 *   - when a FLUSH waits, as soon as all that it needs is ready; before that
 *     when COMMIT_OBJECTS_GATHERED data objects are and others that it needs
 *     are not even on their way;
 *   - when nobody waits, once that many are ready, or the oldest batch is as
 *     old as batch_age, or writers wait for room.
 * The open batch is sealed when it is full (vol/batch.h), by FLUSH, at that
 * age, or when writers wait.
 *
 * The commit's number is one above the last; the bytes are frozen before they
 * are first sent and put_once() (store/put_once.h) finds out what became of
 * them.  Done: its table is folded into the map, its frames become cache, its
 * pages leave the dirty index, those who wait are woken.  Conflict: somebody
 * else wrote that number, so somebody else owns the volume: fenced.  Anything
 * else is trouble: those who wait are told, the identical bytes are tried
 * again, nothing is dropped.
 *
 * Between two commits a checkpoint may begin (vol/checkpoint.c); commits wait
 * when one that is under way has fallen behind. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/put_once.h"
#include "vol/checkpoint.h"
#include "vol/internal.h"
#include "vol/plan.h"
#include "vol/upload.h"

/* ---- batches ---- */

struct batch *commit_open_batch(struct volume *volume)
{
    if (volume->open == NULL) {
        struct batch *batch = batch_new(volume, &volume->all->dirty_gate, loop_now_ns(volume->loop));
        list_push_back(&volume->batches, &batch->link);
        volume->batch_count++;
        volume->open = batch;
        commit_kick(volume); /* it must look at the clock for this one */
    }
    return volume->open;
}

struct batch *commit_cut(struct volume *volume, struct batch *batch, uint32_t most)
{
    struct batch *rest = batch_cut(batch, most);
    if (rest != NULL) {
        list_insert_after(&batch->link, &rest->link);
        volume->batch_count++;
    }
    return rest;
}

uint64_t commit_open_room(const struct volume *volume)
{
    /* Half of the write buffer fills while the other half is on its way. */
    uint64_t pages = volume->all->dirty_gate.limit / 2 / PAGE_BYTES;
    return pages < BATCH_OPEN_PAGES_MAX ? pages : BATCH_OPEN_PAGES_MAX;
}

/* How large the objects of what is written in order are while nobody waits for them.  One stream to a store is much
 * slower than several: so the first objects are small enough that all uploads are soon busy, and those after them that
 * a FLUSH finds none that takes long.  When much was written and nobody flushed, fewer requests count for more; as far
 * as the write buffer holds twice what is on its way then. */
uint32_t commit_ordered_pages(const struct volume *volume)
{
    const struct volume_settings *settings = &volume->all->settings;
    if (volume->unflushed_pages < (uint64_t)settings->uploads * settings->spread_pages)
        return settings->spread_pages;
    if (volume->unflushed_pages < ORDERED_PAGES_TOTAL)
        return 2 * settings->spread_pages;
    uint64_t pages = volume->all->dirty_gate.limit / 2 / settings->uploads / PAGE_BYTES;
    return pages < settings->object_pages ? settings->object_pages
           : pages < BATCH_EXTENTS_MOST   ? (uint32_t)pages
                                          : BATCH_EXTENTS_MOST;
}

/* Cuts a sealed batch into pieces of at most so many pages, all of about the same size. */
static void cut(struct volume *volume, struct batch *batch, uint32_t most)
{
    uint32_t pieces = (batch->page_count + most - 1) / most;
    uint32_t pages = pieces > 1 ? (batch->page_count + pieces - 1) / pieces : most;
    while (batch != NULL)
        batch = commit_cut(volume, batch, pages);
}

/* A FLUSH comes.  What fits rides inline; beside uploads that are waited for anyway only what does not make the commit
 * slower.  What a commit that is under way carries inline stays there: either a FLUSH waits for it already, or it is
 * smaller. */
static void choose_apart(struct volume *volume)
{
    const struct volume_settings *settings = &volume->all->settings;
    uint32_t inlined = volume->uploads > 0 ? settings->spread_pages : settings->flushed_inline_pages;
    list_for_each (node, &volume->batches) {
        struct batch *batch = container_of(node, struct batch, link);
        if (batch->state == BATCH_SEALED && batch->number > volume->flush_target && batch->page_count > inlined)
            batch->apart = true;
    }
}

void commit_seal(struct volume *volume, bool flushed)
{
    struct batch *batch = volume->open;
    if (batch != NULL) {
        uint32_t ordered = commit_ordered_pages(volume);
        volume->newest_sealed = batch_seal(batch, volume->newest_sealed);
        batch->sealed_ns = loop_now_ns(volume->loop);
        volume->open = NULL;
        volume->unflushed_pages += batch->page_count;
        batch->apart = batch->page_count >= ordered && batch_ordered(batch);
        cut(volume, batch, batch->apart ? ordered : volume->all->settings.object_pages);
    }
    if (flushed) { /* before uploads are chosen: what is waited for rides inline where it can */
        choose_apart(volume);
        volume->flush_target = volume->newest_sealed;
        volume->unflushed_pages = 0;
    }
    upload_start(volume);
    commit_kick(volume);
}

void commit_kick(struct volume *volume)
{
    waitq_wake_all(&volume->work);
}

static struct batch *oldest(const struct volume *volume)
{
    return list_empty(&volume->batches) ? NULL : container_of(volume->batches.next, struct batch, link);
}

/* When the oldest batch must go, whether anybody waits or not. */
static uint64_t due_ns(const struct volume *volume)
{
    const struct batch *batch = oldest(volume);
    return batch == NULL ? UINT64_MAX : batch->opened_ns + volume->all->settings.batch_age_ms * NS_PER_MS;
}

/* ---- choosing ---- */

struct choice {
    struct batch *batches[COMMIT_BATCHES_MAX];
    uint32_t count;
    uint32_t objects;
    uint64_t object_pages;
    bool full; /* no more fits */
    bool all;  /* nothing sealed is left behind */
};

static bool rides_inline(const struct volume *volume, const struct batch *batch)
{
    return batch->state == BATCH_SEALED && !upload_wanted(volume, batch);
}

/* The longest ready prefix. */
static void choose(const struct volume *volume, struct choice *ret_choice)
{
    struct choice *choice = ret_choice;
    *choice = (struct choice){ .all = true };
    uint32_t extents = 0, inline_pages = 0;
    list_for_each (node, &volume->batches) {
        struct batch *batch = container_of(node, struct batch, link);
        bool inlined = rides_inline(volume, batch);
        if (batch->state == BATCH_OPEN)
            return;
        if (!inlined && batch->state != BATCH_UPLOADED) {
            choice->all = false;
            return;
        }
        extents += 2 * batch->extents_bound;
        inline_pages += inlined ? batch->page_count : 0;
        if (choice->count > 0 &&
            (extents > COMMIT_EXTENTS_MAX || inline_pages > volume->all->settings.flushed_inline_pages ||
             choice->count == COMMIT_BATCHES_MAX)) {
            choice->full = true;
            choice->all = false;
            return;
        }
        choice->batches[choice->count++] = batch;
        choice->objects += !inlined;
        choice->object_pages += inlined ? 0 : batch->page_count;
    }
}

static bool pressed(const struct volume *volume)
{
    return gate_waited_for(&volume->all->dirty_gate) || volume->zero_batches >= ZERO_BATCHES_MAX;
}

/* Whether all that a FLUSH waits for is in the store, or on its way, or rides inline: then it would have to wait for a
 * commit that began now. */
static bool under_way(const struct volume *volume)
{
    list_for_each (node, &volume->batches) {
        const struct batch *batch = container_of(node, struct batch, link);
        if (batch->number > volume->flush_target)
            break;
        if (batch->state == BATCH_SEALED && upload_wanted(volume, batch))
            return false;
    }
    return true;
}

static bool worth_committing(const struct volume *volume, const struct choice *choice)
{
    if (choice->count == 0)
        return false;
    const struct batch *last = choice->batches[choice->count - 1];
    bool waited_for = volume->flush_target > volume->committed_batch;
    if (choice->full || (waited_for && last->number >= volume->flush_target))
        return true;
    bool gathered = choice->objects >= COMMIT_OBJECTS_GATHERED;
    if (waited_for)
        return gathered && !under_way(volume);
    if (gathered)
        return true;
    if (loop_now_ns(volume->loop) >= due_ns(volume))
        return true;
    /* Writers wait for room: what is ready goes when that is a good part of it, or when nothing else is coming. */
    uint64_t ready_bytes = choice->object_pages * PAGE_BYTES;
    return pressed(volume) && (choice->all || ready_bytes >= volume->all->dirty_gate.limit / 4);
}

/* ---- committing ---- */

struct sealing {
    struct layout *layout;
    struct frame_place place;
};

static void seal_layout(void *arg)
{
    struct sealing *sealing = arg;
    layout_seal(sealing->layout, &sealing->place);
}

/* The front, then the inline frames. */
static struct iovec *body_pieces(const struct buffer *front, const struct layout *layout, int *ret_count)
{
    struct iovec *pieces = memory_array((size_t)layout->piece_count + 1, sizeof *pieces);
    pieces[0] = (struct iovec){ .iov_base = front->data, .iov_len = front->length };
    if (layout->piece_count > 0)
        memcpy(pieces + 1, layout->pieces, (size_t)layout->piece_count * sizeof *pieces);
    *ret_count = layout->piece_count + 1;
    return pieces;
}

static void frames_to_cache(struct volume *volume, uint64_t object_id, uint32_t start, const struct layout *layout)
{
    for (uint32_t i = 0; i < layout->frame_count; i++) {
        const struct layout_frame *frame = &layout->frames[i];
        cache_insert(volume->all->cache, volume_cache_id(volume, object_id), start + frame->start,
                     &layout->pages[frame->first], frame->page_count);
    }
}

/* What the commit replaces whole is in the cache for nothing, as soon as it is folded in. */
static void discard_replaced(struct volume *volume, const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        uint64_t page = extent->page, past = page + extent->count, run;
        for (; extent->kind == EXTENT_PAGES && page < past; page += run) {
            struct location old = map_lookup(volume->map, page, past - page, &run);
            if (old.object >= OBJECT_INDEX_MAX || old.frame_page > 0 || run < old.frame_pages)
                continue;
            uint64_t id = object_table_row(volume->objects, old.object)->id;
            cache_discard(volume->all->cache, volume_cache_id(volume, id), old.start);
        }
    }
}

static void release_batch(struct volume *volume, struct batch *batch)
{
    for (uint32_t i = 0; i < batch->page_count; i++)
        dirty_drop(volume->dirty, batch->pages[i]);
    volume->batch_count--;
    volume->zero_batches -= batch->zeroes.count > 0;
    list_remove(&batch->zero_link);
    volume->committed_batch = batch->number;
    list_remove(&batch->link);
    batch_free(batch);
}

/* The write buffer shrinks while commits are slow, and grows back while writers wait and they are quick. */
static void adapt_limit(struct volume *volume, uint64_t sealed_ns, bool waited_for)
{
    struct volumes *all = volume->all;
    uint64_t most = all->dirty_most;
    uint64_t least = most < DIRTY_BYTES_LEAST ? most : DIRTY_BYTES_LEAST;
    uint64_t limit = all->dirty_gate.limit;
    bool slow = loop_now_ns(volume->loop) - sealed_ns > COMMIT_SLOW_NS;
    if (slow && waited_for)
        limit = limit - limit / 4 > least ? limit - limit / 4 : least;
    else if (!slow && waited_for)
        limit = limit + limit / 4 < most ? limit + limit / 4 : most;
    if (limit != all->dirty_gate.limit)
        gate_set_limit(&all->dirty_gate, limit);
}

/* The commit is durable. */
static void conclude(struct volume *volume, const struct choice *choice, struct plan *plan,
                     const uint8_t hash[SHA256_BYTES], uint64_t bytes)
{
    struct error error = ERROR_NONE;
    discard_replaced(volume, &plan->entry);
    if (fold_entry(volume, &plan->entry, hash, &error) < 0) {
        volume_fence(volume, &error); /* durable, but beyond what we can serve */
        return;
    }
    frames_to_cache(volume, plan->entry.object_id, plan->inline_start, &plan->inline_layout);
    uint32_t object = 0;
    for (uint32_t i = 0; i < choice->count; i++)
        if (choice->batches[i]->state == BATCH_UPLOADED)
            frames_to_cache(volume, plan->entry.object_id + ++object, 0, &choice->batches[i]->layout);
    volume->counts.commits++;
    volume->counts.commit_bytes += bytes;
    volume_untroubled(volume);
    uint64_t sealed_ns = choice->batches[0]->sealed_ns;
    bool waited_for = gate_waited_for(&volume->all->dirty_gate);
    for (uint32_t i = 0; i < choice->count; i++)
        release_batch(volume, choice->batches[i]);
    adapt_limit(volume, sealed_ns, waited_for);
    waitq_wake_all(&volume->committed);
}

#ifdef CAIRN_MUTANTS
/* Deliberate bugs in what is made of an attempt's outcome. *ret_settled: `status` stands. */
static int mutant_put(struct volume *volume, const struct choice *choice, const struct put_once *put, bool *ret_settled,
                      struct error *error)
{
    struct store_put once = { .key = put->key, .pieces = put->pieces, .count = put->count, .condition = STORE_ABSENT };
    *ret_settled = false;
    if (MUTANT(conflict_is_success)) {
        *ret_settled = true;
        int status = put_once(put, error);
        return status == -EEXIST ? 0 : status;
    }
    if (MUTANT(rebatch_unknown)) { /* the name tried before, now with other bytes; "exists" must be our own */
        *ret_settled = true;
        int status = store_put(put->store, &once, NULL, error);
        return status == -EEXIST ? 0 : status == 0 || coroutine_cancelled() ? status : -EAGAIN;
    }
    if (MUTANT(drop_batch_on_error)) {
        int status = store_put(put->store, &once, NULL, error);
        if (status == 0 || status == -EEXIST || coroutine_cancelled())
            return 0;
        *ret_settled = true;
        for (uint32_t i = 0; i < choice->count; i++)
            release_batch(volume, choice->batches[i]);
        waitq_wake_all(&volume->committed);
        return -EAGAIN;
    }
    return 0;
}
#endif

/* 0, -EEXIST: conflict, -ECANCELED. */
static int commit(struct volume *volume, const struct choice *choice, struct error *error)
{
    struct entry head = { .kind = ENTRY_COMMIT,
                          .uuid = volume->body.uuid,
                          .epoch = volume->epoch,
                          .owner = volume->owner,
                          .seq = volume->committed_seq + 1,
                          .wall_ms = loop_wall_ns(volume->loop) / NS_PER_MS,
                          .object_id = volume->next_object_id };
    memcpy(head.previous, volume->chain, SHA256_BYTES);
    struct plan plan;
    plan_make(choice->batches, choice->count, &head, &plan);

    struct buffer front = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    entry_encode(&plan.entry, &front, hash);
    assert(front.length == (size_t)plan.inline_start * FRAME_UNIT);
    struct sealing sealing = { .layout = &plan.inline_layout,
                               .place = {
                                   .uuid = head.uuid, .kind = OBJECT_LOG, .seq = head.seq, .offset = front.length } };
    if (plan.inline_layout.page_count > INLINE_PAGES_AT_ONCE)
        loop_work(volume->loop, seal_layout, &sealing);
    else
        seal_layout(&sealing);

    char key[KEY_MAX];
    key_log(&head.uuid, head.seq, key);
    int count;
    struct iovec *pieces = body_pieces(&front, &plan.inline_layout, &count);
    struct put_once put = { .store = volume->all->store,
                            .key = key,
                            .pieces = pieces,
                            .count = count,
                            .urgent = true,
                            .troubled = volume_put_troubled,
                            .arg = volume,
                            .hurry = &volume->hurry };
    bool settled = false;
    int status = 0;
#ifdef CAIRN_MUTANTS
    status = mutant_put(volume, choice, &put, &settled, error);
#endif
    if (!settled)
        status = put_once(&put, error);
    if (status == 0 && volume->state != VOLUME_FENCED)
        conclude(volume, choice, &plan, hash, front.length + plan.inline_layout.bytes);
    free(pieces);
    buffer_free(&front);
    plan_free(&plan);
    return status;
}

/* The open batch goes when its time has come; and when writers wait for room, if it makes an object, or all that they
 * wait for is in it. */
static bool seal_is_due(const struct volume *volume, bool old)
{
    const struct batch *open = volume->open;
    if (open == NULL || batch_empty(open))
        return false;
    if (open == oldest(volume))
        return old || pressed(volume);
    uint32_t enough = batch_ordered(open) ? commit_ordered_pages(volume) : volume->all->settings.object_pages;
    return pressed(volume) && open->page_count + open->zeroes.count >= enough;
}

void commit_task(void *arg)
{
    struct volume *volume = arg;
    while (volume->state != VOLUME_FENCED) {
        checkpoint_begin_if_due(volume); /* between two commits */
        bool old = loop_now_ns(volume->loop) >= due_ns(volume);
        if (seal_is_due(volume, old))
            commit_seal(volume, false);
        struct choice choice;
        choose(volume, &choice);
        bool lags = checkpoint_lags(volume);
        if (lags || !worth_committing(volume, &choice)) {
            if (waitq_wait_until(&volume->work, old || lags ? UINT64_MAX : due_ns(volume)) == -ECANCELED)
                return;
            continue;
        }
        struct error error = ERROR_NONE;
        int status = commit(volume, &choice, &error);
        if (status == -ECANCELED)
            return;
        if (status < 0 && status != -EAGAIN) { /* -EAGAIN: only from a mutant */
            error_context(&error, "commit %llu", (unsigned long long)volume->committed_seq + 1);
            volume_fence(volume, &error);
        }
    }
}
