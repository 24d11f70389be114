/* Volumes of a shard: their life from the first client to the last.
 *
 *              acquire                         idle, stopping
 *     (none) ──────────> OPENING ──> SERVING ───────────────> RELEASING ──> CLOSED
 *                           │           │                      ^  │            ^
 *                           │           └────────> FENCED <────│──┘            │
 *                           ├── failed ────────────────│───────┘               │
 *                           └── not taken ─────────────┴───────────────────────┘
 *
 * Each volume has a keeper: one task that opens it, waits until it is not
 * wanted any more or another owner has taken it, and closes it.  So whoever asked
 * first may leave in the middle of the opening, and nobody else is harmed.
 *
 * While it is OPENING it may have to wait for another owner (vol/takeover.c).
 * Each of those who want it waits as long as the settings say and then leaves;
 * when all have left, the opening is abandoned.
 *
 * A volume without users stays for a grace period, in case its client comes
 * back (not if that vanished, for then nobody knows when); everything it has is
 * committed first, then ownership is given back.  Users that come while it is
 * RELEASING wait, and open it anew.  What could not be given back, because the
 * store was away, is remembered: the register still names us, and this must not
 * keep ourselves from opening the volume again.
 *
 * A CLOSED volume is no longer found; it is freed when its last user has gone. */
#include "vol/volume.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "vol/checkpoint.h"
#include "vol/flush.h"
#include "vol/internal.h"
#include "vol/leaves.h"

/* Telling who took a volume is worth a few attempts; nobody waits for more of them. */
#define TAKER_TRIES 4
#define TAKER_PAUSE_NS (250 * NS_PER_MS)

static const char *const state_names[] = { "OPENING", "SERVING", "RELEASING", "FENCED", "CLOSED" };
static const uint32_t state_moves[] = {
    [VOLUME_OPENING] = 1u << VOLUME_SERVING | 1u << VOLUME_RELEASING | 1u << VOLUME_FENCED | 1u << VOLUME_CLOSED,
    [VOLUME_SERVING] = 1u << VOLUME_RELEASING | 1u << VOLUME_FENCED | 1u << VOLUME_CLOSED,
    [VOLUME_RELEASING] = 1u << VOLUME_FENCED | 1u << VOLUME_CLOSED,
    [VOLUME_FENCED] = 1u << VOLUME_CLOSED,
    [VOLUME_CLOSED] = 0,
};
const struct state_table volume_states = { "volume", state_names, state_moves, 5 };

struct volume_settings volume_settings_default(void)
{
    return (struct volume_settings){
        .memory_bytes = UINT64_C(512) << 20,
        .dirty_bytes = UINT64_C(256) << 20,
        .batch_age_ms = 5000,
        .flush_deadline_ms = 120 * 1000,
        .read_deadline_ms = 60 * 1000,
        .release_grace_ms = 5000,
        .uploads = 16,
        .inline_pages = INLINE_PAGES,
        .flushed_inline_pages = INLINE_PAGES_FLUSHED,
        .spread_pages = SPREAD_PAGES,
        .object_pages = BATCH_EXTENTS,
        /* Opening reads at most twice so many entries, 32 at a time: about a second at 15 ms each. */
        .checkpoint_slots = 1024,
        /* What a data object or two of pieces are little beside; and replayed within a second or two. */
        .checkpoint_bytes = UINT64_C(512) << 20,
        .settled_slots = 3, /* fewer requests than a checkpoint makes; each opening adds one */
        .checkpoint_object_bytes = UINT64_C(8) << 20, /* as data objects: larger ones gain nothing */
        /* One GET of that costs hardly more than one of the leaf that is needed, and brings up to 2 GiB of disk. */
        .checkpoint_frame_bytes = 128u << 10,
        .checkpoint_chunks = ROOT_CHUNKS_MAX / 2, /* what is packed is written whole each time */
        .lease_ms = 30 * 1000,
        .owner_wait_ms = 45 * 1000,
    };
}

/* ---- the parts of a volume ---- */

/* Tags come round: one that an open volume has is passed over.  The last of all is never given, so that the key behind
 * a volume's keys exists. */
static uint64_t unused_tag(struct volumes *all)
{
    for (;;) {
        uint64_t tag = all->next_tag++ % ((UINT64_C(1) << (64 - CACHE_TAG_SHIFT)) - 1);
        bool used = false;
        list_for_each (node, &all->all)
            used = used || container_of(node, struct volume, link)->cache_tag == tag;
        if (!used)
            return tag;
    }
}

static struct volume *volume_new(struct volumes *all, const char *name, size_t name_length, uint64_t create_size)
{
    struct volume *volume = memory_new(sizeof *volume);
    list_init(&volume->link);
    list_init(&volume->watches);
    list_init(&volume->batches);
    list_init(&volume->zeroing);
    volume->all = all;
    volume->loop = all->loop;
    volume->name = memory_copy(name, name_length);
    volume->name_length = name_length;
    volume->create_size = create_size;
    volume->returned = true;
    char quoted[96];
    text_quote(name, name_length, quoted, sizeof quoted);
    snprintf(volume->subject, sizeof volume->subject, "volume '%s'", quoted);
    group_init(&volume->group, all->loop);
    group_init(&volume->writer.group, all->loop);
    waitq_init(&volume->writer.wanted);
    waitq_init(&volume->writer.landed);
    lease_init(&volume->lease, all->settings.lease_ms);
    list_init(&volume->leaf_loads);
    volume->checkpoint = checkpoint_new(volume);
    waitq_init(&volume->attention);
    waitq_init(&volume->committed);
    waitq_init(&volume->work);
    waitq_init(&volume->hurry);
    volume->dirty = dirty_new();
    volume->next_data_n = 1;
    volume->cache_tag = unused_tag(all);
    if (list_empty(&all->all) && all->on_busy != NULL)
        all->on_busy(all->busy_arg, true);
    list_push_back(&all->all, &volume->link);
    return volume;
}

static uint64_t drop_batches(struct volume *volume)
{
    uint64_t dropped = 0;
    while (!list_empty(&volume->batches)) {
        struct batch *batch = container_of(list_pop_front(&volume->batches), struct batch, link);
        dropped += (uint64_t)batch->page_count * PAGE_BYTES;
        list_remove(&batch->zero_link);
        batch_free(batch);
    }
    volume->open = NULL;
    volume->batch_count = volume->zero_batches = 0;
    dirty_free(volume->dirty);
    volume->dirty = dirty_new();
    return dropped;
}

static void volume_free(struct volume *volume)
{
    assert(volume->state == VOLUME_CLOSED && volume->users == 0 && !list_linked(&volume->link));
    assert(list_empty(&volume->watches) && volume->group.count == 0 && volume->writer.group.count == 0);
    drop_batches(volume);
    dirty_free(volume->dirty);
    map_free(volume->map);
    object_table_free(volume->objects);
    register_free(&volume->body);
    free(volume->name);
    free(volume);
}

/* ---- what happens to it ---- */

void volume_fence(struct volume *volume, const struct error *story)
{
    if (volume->state == VOLUME_FENCED || volume->state == VOLUME_CLOSED)
        return;
    error_copy(&volume->failure, story);
    state_move(&volume_states, &volume->state, VOLUME_FENCED);
    bool taken = story->code == ESHUTDOWN || story->code == EEXIST || story->code == ESTALE;
    event_raise(volume->all->events, EVENT_ERROR, volume->subject, "%s; its clients are dropped: %s",
                taken ? "another owner has taken it" : "it can be served no longer", story->story);
    waitq_wake_all(&volume->committed);
    waitq_wake_all(&volume->work);
    waitq_wake_all(&volume->writer.wanted);
    waitq_wake_all(&volume->writer.landed);
    waitq_wake_all(&volume->attention);
    waitq_wake_all(&volume->all->changed);
    /* A watch may take itself out, and no other. */
    list_for_each_safe (node, &volume->watches) {
        struct volume_watch *watch = container_of(node, struct volume_watch, link);
        watch->gone(watch);
    }
}

bool volume_is_hard(int code)
{
    return code == ENOSPC || code == EDQUOT || code == EACCES || code == EPERM || code == EROFS;
}

void volume_troubled(struct volume *volume, const struct error *error)
{
    uint64_t now_ns = loop_now_ns(volume->loop);
    if (volume->trouble.code == 0) {
        volume->trouble_since_ns = now_ns;
        volume->trouble_told = false;
    }
    error_copy(&volume->trouble, error);
    volume->trouble_count++;
    waitq_wake_all(&volume->committed);
    bool lasting = now_ns - volume->trouble_since_ns >= TROUBLE_TOLD_NS || volume_is_hard(error->code);
    if (volume->trouble_told || !lasting)
        return;
    volume->trouble_told = true;
    event_raise(volume->all->events, EVENT_WARNING, volume->subject,
                "the store does not take what was written; trying on: %s", error->story);
}

void volume_put_troubled(void *arg, const struct error *error)
{
    volume_troubled(arg, error);
}

void volume_untroubled(struct volume *volume)
{
    if (volume->trouble.code == 0)
        return;
    volume->trouble = (struct error)ERROR_NONE;
    if (volume->trouble_told)
        event_raise(volume->all->events, EVENT_INFO, volume->subject, "the store takes what is written again");
}

/* ---- the keeper ---- */

/* Waits until the volume is not wanted: true; or false when it was fenced or the keeper cancelled. */
static bool keep_serving(struct volume *volume)
{
    for (;;) {
        if (volume->state != VOLUME_SERVING)
            return false;
        uint64_t deadline = UINT64_MAX;
        if (volume->users == 0) {
            uint64_t grace_ms = volume->vanished ? 0 : volume->all->settings.release_grace_ms;
            deadline = volume->idle_since_ns + grace_ms * NS_PER_MS;
            if (volume->all->stopping || loop_now_ns(volume->loop) >= deadline)
                return true;
        }
        if (waitq_wait_until(&volume->attention, deadline) == -ECANCELED)
            return false;
    }
}

/* Commits everything, and takes a checkpoint, while new users may still come. True: nothing is dirty and there are no
 * users. */
static bool settle(struct volume *volume)
{
    struct error error = ERROR_NONE;
    if (MUTANT(release_unsaved))
        return volume->users == 0;
    int status = flush_until(volume, UINT64_MAX, &error);
    if (status < 0 && status != -ECANCELED && volume->state == VOLUME_SERVING)
        sleep_ns(NS_PER_S); /* no space, no permission: its event was raised; what is dirty is kept and tried on */
    if (status == 0 && volume->users == 0 && list_empty(&volume->batches))
        checkpoint_settle(volume);
    return status == 0 && volume->users == 0 && list_empty(&volume->batches) && volume->state == VOLUME_SERVING;
}

static void give_back(struct volume *volume)
{
    struct error error = ERROR_NONE;
    int status = ownership_release(volume, &error);
    if (status == 0)
        event_raise(volume->all->events, EVENT_INFO, volume->subject, "released at log entry %llu",
                    (unsigned long long)volume->committed_seq);
    else if (volume->state != VOLUME_FENCED)
        event_raise(volume->all->events, EVENT_WARNING, volume->subject,
                    "everything is saved, but its register could not be released: %s", error.story);
}

static void serve(struct volume *volume)
{
    state_move(&volume_states, &volume->state, VOLUME_SERVING);
    volume->idle_since_ns = loop_now_ns(volume->loop);
    event_raise(volume->all->events, EVENT_INFO, volume->subject, "open: epoch %llu, log entry %llu",
                (unsigned long long)volume->epoch, (unsigned long long)volume->committed_seq);
    group_spawn(&volume->group, "commit", commit_task, volume);
    leaves_fill(volume);
    waitq_wake_all(&volume->all->changed);
    while (!coroutine_cancelled() && keep_serving(volume)) {
        if (!settle(volume))
            continue;
        state_move(&volume_states, &volume->state, VOLUME_RELEASING);
        group_cancel(&volume->group);
        group_join(&volume->group);
        give_back(volume);
        break;
    }
}

/* The opening failed.  Nothing was served: other servers, and our own next attempt, need not wait for us.  Those who
 * wait here are told before. */
static void undo_take(struct volume *volume)
{
    if (volume->returned || volume->epoch == 0 || volume->state == VOLUME_FENCED)
        return;
    state_move(&volume_states, &volume->state, VOLUME_RELEASING);
    waitq_wake_all(&volume->all->changed);
    struct error error = ERROR_NONE;
    ownership_release(volume, &error);
}

/* It was fenced by what stands in the log, which does not say who has it now; the register does.  If that still names
 * us, another copy of this very process has written there, and serves the volume.  So whatever the register says, and
 * whether or not it can be read, it is not ours to take back at once. */
static void tell_taker(struct volume *volume)
{
    struct register_body body;
    char etag[STORE_ETAG_MAX], owner[OWNER_TEXT_MAX];
    struct error error = ERROR_NONE;
    if (volume->failure.code != EEXIST)
        return;
    volume->returned = !MUTANT(clone_takes_back);
    int status = ownership_read(volume, &body, etag, &error);
    for (int i = 1; status < 0 && i < TAKER_TRIES && sleep_ns(TAKER_PAUSE_NS) == 0; i++)
        status = ownership_read(volume, &body, etag, &error);
    if (status < 0)
        return;
    ownership_describe(&body, owner);
    volume->returned = volume->returned || !nonce_equal(&body.owner, &volume->owner);
    if (nonce_equal(&body.owner, &volume->owner))
        event_raise(volume->all->events, EVENT_ERROR, volume->subject,
                    "another copy of this very process has it: this machine, or the other one, is a clone");
    else
        event_raise(volume->all->events, EVENT_INFO, volume->subject, "it was taken by %s (epoch %llu)", owner,
                    (unsigned long long)body.epoch);
    register_free(&body);
}

static void keeper(void *arg)
{
    struct volume *volume = arg;
    struct volumes *all = volume->all;
    struct error error = ERROR_NONE;
    int status = recover_open(volume, &error);
    if (status == 0 && volume->state == VOLUME_OPENING) {
        serve(volume);
    } else if (volume->state == VOLUME_OPENING) {
        error_copy(&volume->failure, &error);
        undo_take(volume);
    }
    if (volume->state == VOLUME_FENCED)
        tell_taker(volume);
    group_cancel(&volume->group);
    group_join(&volume->group);
    ownership_end(volume);
    static const struct nonce never;
    if (!volume->returned && !nonce_equal(&volume->owner, &never)) /* it may be named in the register, now or later */
        all->unreturned[all->unreturned_next++ % UNRETURNED_MAX] = volume->owner;
    uint64_t dropped = drop_batches(volume);
    if (dropped > 0)
        event_raise(all->events, EVENT_ERROR, volume->subject, "%llu bytes that were written but not flushed are lost",
                    (unsigned long long)dropped);
    checkpoint_free(volume->checkpoint);
    volume->checkpoint = NULL;
    budget_drop_map(volume);
    cache_forget(all->cache, volume_cache_id(volume, 0), volume_cache_id(volume, 0) + (UINT64_C(1) << CACHE_TAG_SHIFT));
    state_move(&volume_states, &volume->state, VOLUME_CLOSED);
    list_remove(&volume->link);
    if (list_empty(&all->all) && all->on_busy != NULL)
        all->on_busy(all->busy_arg, false);
    waitq_wake_all(&all->changed);
    if (volume->users == 0)
        volume_free(volume);
}

/* ---- users ---- */

static struct volume *find(struct volumes *all, const char *name, size_t name_length)
{
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        if (volume->name_length == name_length && memcmp(volume->name, name, name_length) == 0)
            return volume;
    }
    return NULL;
}

void volumes_release(struct volumes *all, struct volume *volume, bool vanished)
{
    assert(volume->users > 0 && volume->all == all);
    if (--volume->users > 0)
        return;
    volume->vanished = vanished;
    volume->idle_since_ns = loop_now_ns(all->loop);
    if (volume->state == VOLUME_CLOSED)
        volume_free(volume);
    else
        waitq_wake_all(&volume->attention);
}

/* 0: it is OPENING no more.  -EBUSY: another owner has had it for as long as this user waits.  -ETIMEDOUT: for too long
 * the store has not answered; a long log alone takes its time. */
static int await_opening(struct volume *volume)
{
    uint64_t since = loop_now_ns(volume->loop);
    uint64_t patience = since + volume->all->settings.owner_wait_ms * NS_PER_MS;
    while (volume->state == VOLUME_OPENING) {
        since = volume->answered_ns > since ? volume->answered_ns : since;
        uint64_t deadline = since + OWNERSHIP_DEADLINE_NS, now = loop_now_ns(volume->loop);
        if (volume->holder != NULL && now >= patience)
            return -EBUSY;
        if (now >= deadline)
            return -ETIMEDOUT;
        if (volume->holder != NULL && patience < deadline)
            deadline = patience;
        if (waitq_wait_until(&volume->all->changed, deadline) == -ECANCELED)
            return -ECANCELED;
    }
    return 0;
}

int volumes_acquire(struct volumes *all, const char *name, size_t name_length, uint64_t create_size,
                    struct volume **ret_volume, struct error *error)
{
    assert(name_length <= VOLUME_NAME_MAX);
    uint64_t patience = loop_now_ns(all->loop) + 2 * OWNERSHIP_DEADLINE_NS; /* a release ends within one */
    for (;;) {
        if (all->stopping)
            return error_set(error, ESHUTDOWN, "the server is shutting down");
        struct volume *volume = find(all, name, name_length);
        if (volume == NULL) {
            volume = volume_new(all, name, name_length, create_size);
            group_spawn(&all->group, "keeper", keeper, volume);
        }
        if (volume->state == VOLUME_RELEASING || volume->state == VOLUME_FENCED) {
            int waited = waitq_wait_until(&all->changed, patience);
            if (waited == -ECANCELED)
                return error_set(error, ECANCELED, "given up while the volume was being released");
            if (waited == -ETIMEDOUT)
                return error_set(error, EIO, "%s is still being released: the store does not answer", volume->subject);
            continue;
        }
        volume->users++;
        int status = await_opening(volume);
        if (volume->state == VOLUME_SERVING && status == 0) {
            *ret_volume = volume;
            return 0;
        }
        if (status == 0 && volume->abandoned && !all->stopping) { /* by all who had waited; we had just come */
            volumes_release(all, volume, false);
            continue;
        }
        if (status == -EBUSY)
            takeover_refuse(volume, error);
        else if (status == -ECANCELED)
            error_set(error, ECANCELED, "given up while the volume was being opened");
        else if (status < 0)
            status = error_set(error, EIO, "%s could not be opened: the store does not answer%s%s", volume->subject,
                               volume->trouble.code != 0 ? ": " : "", volume->trouble.story);
        else if (volume->failure.code != 0)
            status = error_copy(error, &volume->failure);
        else
            status = error_set(error, ESHUTDOWN, "%s was closed again", volume->subject);
        volumes_release(all, volume, false);
        return status;
    }
}

void volume_watch(struct volume *volume, struct volume_watch *watch)
{
    list_push_back(&volume->watches, &watch->link);
    if (volume->state != VOLUME_SERVING)
        watch->gone(watch);
}

void volume_unwatch(struct volume_watch *watch)
{
    list_remove(&watch->link);
}

/* ---- the shard ---- */

struct volumes *volumes_new(struct loop *loop, struct store *store, struct host *host, struct event_sink *events,
                            const struct volume_settings *settings)
{
    assert(settings->uploads >= 1 && settings->object_pages >= 1 && settings->object_pages <= BATCH_EXTENTS);
    assert(settings->inline_pages >= 1 && settings->inline_pages <= settings->flushed_inline_pages &&
           settings->inline_pages < settings->spread_pages && settings->spread_pages <= BATCH_EXTENTS_MOST);
    struct volumes *all = memory_new(sizeof *all);
    all->loop = loop;
    all->store = store;
    all->host = host;
    all->events = events;
    all->settings = *settings;
    list_init(&all->all);
    group_init(&all->group, loop);
    waitq_init(&all->changed);
    budget_init(all);
    all->cache = cache_new(all->pool, loop_random_u64(loop));
    page_pool_on_shortage(all->pool, budget_shrink, all);
    return all;
}

void volumes_on_busy(struct volumes *all, void (*fn)(void *arg, bool busy), void *arg)
{
    assert(list_empty(&all->all));
    all->on_busy = fn;
    all->busy_arg = arg;
}

bool volumes_all_returned(const struct volumes *all)
{
    return all->unreturned_next == 0;
}

static void wake_keepers(struct volumes *all)
{
    waitq_wake_all(&all->changed);
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        waitq_wake_all(&volume->attention);
        waitq_wake_all(&volume->hurry);
    }
}

int volumes_shutdown(struct volumes *all, uint64_t deadline_ns, struct error *error)
{
    all->stopping = true;
    all->stop_by_ns = deadline_ns;
    wake_keepers(all);
    int status = 0;
    while (!list_empty(&all->all) && status == 0)
        status = waitq_wait_until(&all->changed, deadline_ns);
    if (!list_empty(&all->all)) {
        const struct volume *volume = container_of(all->all.next, struct volume, link);
        status = error_set(error, EIO, "%s could not be saved in time: %s", volume->subject,
                           volume->trouble.code != 0 ? volume->trouble.story : "the store is slow");
    } else {
        status = 0;
    }
    volumes_abandon(all);
    return status;
}

void volumes_abandon(struct volumes *all)
{
    all->stopping = true;
    group_cancel(&all->group);
    list_for_each (node, &all->all) {
        struct volume *volume = container_of(node, struct volume, link);
        group_cancel(&volume->group);
        group_cancel(&volume->writer.group);
    }
    group_join(&all->group);
}

void volumes_free(struct volumes *all)
{
    if (all == NULL)
        return;
    assert(list_empty(&all->all));
    cache_free(all->cache);
    page_pool_free(all->pool);
    free(all->pasts);
    free(all);
}

void volumes_walk(struct volumes *all, void (*visit)(void *arg, struct volume *volume), void *arg)
{
    list_for_each (node, &all->all)
        visit(arg, container_of(node, struct volume, link));
}

/* ---- questions ---- */

uint64_t volume_size(const struct volume *volume)
{
    return volume->size;
}

const char *volume_subject(const struct volume *volume)
{
    return volume->subject;
}

struct volume_counts volume_read_counts(const struct volume *volume)
{
    struct volume_counts counts = volume->counts;
    list_for_each (node, &volume->batches)
        counts.dirty_bytes += container_of(node, struct batch, link)->charged;
    counts.uncommitted_batches = volume->batch_count;
    counts.committed_seq = volume->committed_seq;
    counts.epoch = volume->epoch;
    counts.lease_in_doubt = volume->doubted;
    if (volume->map != NULL) {
        counts.mapped_pages = map_mapped_pages(volume->map);
        counts.map_bytes = map_memory_bytes(volume->map);
        counts.leaf_bytes = map_leaf_bytes(volume->map);
        counts.dirty_leaf_bytes = map_dirty_bytes(volume->map);
        counts.object_table_bytes = object_table_memory_bytes(volume->objects);
        counts.root_seq = volume->body.newest.seq;
    }
    return counts;
}
