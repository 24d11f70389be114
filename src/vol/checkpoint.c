/* A checkpoint: the state as of one log entry, written beside the log while the log goes on.
 *
 * Without it who opens a volume would have to read its log from the first entry.
 *
 *     begin    between two commits: snapshots of map and object table as of the
 *              last one, its hash, and ids set aside for the objects to come.
 *              Costs no request and never parks.
 *     write    leaves, mids, chunks, graves, root (vol/checkpoint_state.c), into
 *              data objects (vol/checkpoint_upload.c), while commits go on
 *     publish  once all is in the store: one compare-and-swap of the register
 *              names the root (vol/ownership.c)
 *     end      snapshots are dropped; what was written is clean
 *
 * What a root may say: nothing that is not committed.  Both snapshots hold what
 * was folded, and folded is what is durable in the log; the dirty index has no
 * part in it.  And nothing that is not in the store: publishing waits for all
 * uploads.  So whoever reads the register finds a whole state of some log entry,
 * and all entries after that one in the log.
 *
 * Ids: what is committed while a checkpoint is under way has ids above those of
 * its objects, which are set aside at begin; so the root's next id is above all
 * that it names, and not above those of any later entry.
 *
 * When: the log has grown by checkpoint_slots entries or checkpoint_bytes since
 * the root, so opening reads a bounded number of entries; or changed leaves, which
 * cannot leave memory, take a quarter of the map's budget, or so much of the shard's
 * that it runs short (vol/budget.c); or the volume is about to be given back.  At twice that (half the budget) commits
 * wait for it, and writers for commits.  A checkpoint waits for none of those in turn: what it needs of memory it
 * charges without waiting (its amount is bounded), and folding waits for nothing (a leaf that is not in memory gets a
 * patch).
 *
 * What can fail:
 *   - the store: every request is repeated until it succeeds.  FLUSH does not fail by that, as long as commits need
 *     not wait for the checkpoint;
 *   - a leaf that is needed is damaged or lost, or the store has not given it for a whole read deadline: told, tried
 *     again for ever.  Opening then reads a longer log; commits wait only for memory;
 *   - ownership: everything is dropped.  What was uploaded is named by nobody. */
#include "vol/checkpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/checkpoint_internal.h"
#include "vol/pieces.h"

/* So long the volume is kept for its checkpoint after all else is done; and at most half of what a shutdown has left.
 */
#define SETTLE_NS (20 * NS_PER_S)
#define SETTLE_LOOK_NS (NS_PER_S / 2)
/* Between two tries of what more tries are unlikely to mend, and of the rest. */
#define STUCK_RETRY_NS (60 * NS_PER_S)
#define TROUBLE_RETRY_NS NS_PER_S

struct checkpoint *checkpoint_new(struct volume *volume)
{
    struct checkpoint *checkpoint = memory_new(sizeof *checkpoint);
    checkpoint->volume = volume;
    waitq_init(&checkpoint->hurry);
    waitq_init(&checkpoint->progress);
    list_init(&checkpoint->sealed);
    return checkpoint;
}

void checkpoint_free(struct checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    own_clear(checkpoint);
    free(checkpoint->own);
    free(checkpoint->mids.at);
    free(checkpoint->chunks.at);
    free(checkpoint);
}

static struct leaf_place leaf_place_of(const struct volume *volume, const struct piece_place *place)
{
    return (struct leaf_place){ .object = object_table_find(volume->objects, place->object),
                                .start = place->start,
                                .units = place->units };
}

void checkpoint_opened_from(struct volume *volume, const struct root *root, const struct root_frame *frame, bool packed)
{
    struct checkpoint *checkpoint = volume->checkpoint;
    checkpoint->packed = packed;
    checkpoint->has_root = true;
    checkpoint->root_object = object_table_find(volume->objects, root->object_id);
    checkpoint->has_graves = frame->has_graves;
    checkpoint->graves = frame->graves;
    checkpoint->graves_units = frame->graves_units;
    for (uint32_t i = 0; i < frame->mid_count; i++)
        placed_set(&checkpoint->mids, &(struct placed){ .key = frame->mids[i].number,
                                                        .place = leaf_place_of(volume, &frame->mids[i].place) });
    for (uint32_t i = 0; i < frame->chunk_count; i++)
        placed_set(&checkpoint->chunks, &(struct placed){ .key = frame->chunks[i].first_id,
                                                          .rows = frame->chunks[i].row_count,
                                                          .place = leaf_place_of(volume, &frame->chunks[i].place) });
}

/* ---- when ---- */

static uint64_t slots_since_root(const struct volume *volume)
{
    return volume->committed_seq - volume->body.newest.seq;
}

static uint64_t bytes_since_root(const struct volume *volume)
{
    return volume->committed_bytes - volume->checkpoint->bytes_at_root;
}

static bool is_due(const struct volume *volume)
{
    const struct volume_settings *settings = &volume->all->settings;
    if (slots_since_root(volume) == 0)
        return false;
    return volume->checkpoint->wanted || slots_since_root(volume) >= settings->checkpoint_slots ||
           bytes_since_root(volume) >= settings->checkpoint_bytes ||
           map_dirty_bytes(volume->map) >= volume->map_budget / 4;
}

bool checkpoint_is_under_way(const struct volume *volume)
{
    return volume->checkpoint->running;
}

bool checkpoint_is_possible(const struct volume *volume)
{
    const struct checkpoint *checkpoint = volume->checkpoint;
    return volume->state == VOLUME_SERVING && !checkpoint->running && !checkpoint->wanted &&
           slots_since_root(volume) > 0;
}

void checkpoint_want(struct volume *volume)
{
    if (!checkpoint_is_possible(volume))
        return;
    volume->checkpoint->wanted = true;
    commit_kick(volume);
}

bool checkpoint_is_coming(const struct volume *volume)
{
    const struct checkpoint *checkpoint = volume->checkpoint;
    return volume->state == VOLUME_SERVING &&
           (checkpoint->running ? !checkpoint->stuck : checkpoint->wanted && slots_since_root(volume) > 0);
}

bool checkpoint_lags(const struct volume *volume)
{
    const struct volume_settings *settings = &volume->all->settings;
    const struct checkpoint *checkpoint = volume->checkpoint;
    if (!checkpoint->running)
        return false;
    if (map_dirty_bytes(volume->map) >= volume->map_budget / 2)
        return true;
    return !checkpoint->stuck && (slots_since_root(volume) >= 2 * (uint64_t)settings->checkpoint_slots ||
                                  bytes_since_root(volume) >= 2 * settings->checkpoint_bytes);
}

/* ---- the story ---- */

static uint64_t ids_needed(const struct checkpoint *checkpoint)
{
    const struct volume *volume = checkpoint->volume;
    uint64_t tables = (uint64_t)(checkpoint->mids.count + checkpoint->chunks.count) * CHECKPOINT_PIECE_GUESS +
                      map_memory_bytes(volume->map) - map_leaf_bytes(volume->map) +
                      object_table_memory_bytes(volume->objects);
    uint64_t bytes = map_dirty_bytes(volume->map) + tables;
    uint64_t ids = CHECKPOINT_IDS_LEAST + bytes * CHECKPOINT_SAFETY / own_bytes_most(checkpoint);
    return ids < CHECKPOINT_IDS_MAX ? ids : CHECKPOINT_IDS_MAX;
}

/* Publishes the root, whose pieces are all there. */
static int publish(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    struct error error = ERROR_NONE;
    if (MUTANT(root_of_later_seq)) {
        checkpoint->root.seq = volume->committed_seq;
        memcpy(checkpoint->root.hash, volume->chain, SHA256_BYTES);
    }
    return ownership_publish(volume, &checkpoint->root, &error);
}

static int write_and_publish(struct checkpoint *checkpoint)
{
    int status = state_charge_doomed(checkpoint);
    if (status == 0)
        status = state_write_leaves(checkpoint);
    if (status == 0)
        status = state_write_tables(checkpoint);
    if (status == 0 && MUTANT(publish_before_upload))
        status = publish(checkpoint);
    if (status == 0)
        status = own_finish(checkpoint);
    if (status == 0 && !MUTANT(publish_before_upload))
        status = publish(checkpoint);
    return status;
}

static void checkpoint_task(void *arg)
{
    struct checkpoint *checkpoint = arg;
    struct volume *volume = checkpoint->volume;
    uint64_t began_ns = loop_now_ns(volume->loop), bytes = volume->counts.checkpoint_bytes;
    if (write_and_publish(checkpoint) < 0)
        return; /* cancelled or fenced: the volume, its snapshots and all go together */
    map_snapshot_end(volume->map);
    object_table_snapshot_end(volume->objects);
    own_clear(checkpoint);
    budget_charge_map(volume);
    checkpoint->running = false;
    checkpoint->stuck = false;
    checkpoint->bytes_at_root = checkpoint->bytes_at_begin;
    volume->counts.checkpoints++;
    event_raise(volume->all->events, EVENT_DEBUG, volume->subject,
                "checkpoint at log entry %llu: %llu bytes in %llu ms", (unsigned long long)checkpoint->root.seq,
                (unsigned long long)(volume->counts.checkpoint_bytes - bytes),
                (unsigned long long)((loop_now_ns(volume->loop) - began_ns) / NS_PER_MS));
    commit_kick(volume);
    page_pool_retry(volume->all->pool);
    waitq_wake_all(&checkpoint->progress);
}

/* What more tries will not mend soon. */
static void become_stuck(struct checkpoint *checkpoint, const struct error *error)
{
    struct volume *volume = checkpoint->volume;
    if (checkpoint->stuck)
        return;
    event_raise(volume->all->events, EVENT_ERROR, volume->subject,
                "no checkpoint can be made, so opening it takes longer and longer: %s", error->story);
    checkpoint->stuck = true;
    commit_kick(volume);
    waitq_wake_all(&checkpoint->progress);
}

void checkpoint_begin_if_due(struct volume *volume)
{
    struct checkpoint *checkpoint = volume->checkpoint;
    if (checkpoint->running || volume->state != VOLUME_SERVING || !is_due(volume))
        return;
    checkpoint->wanted = false;
    checkpoint->running = true;
    checkpoint->bytes_at_begin = volume->committed_bytes;
    checkpoint->own_first = volume->next_object_id;
    checkpoint->own_past = checkpoint->own_first + ids_needed(checkpoint);
    checkpoint->root =
        (struct root){ .seq = volume->committed_seq, .size = volume->size, .next_object_id = checkpoint->own_past };
    memcpy(checkpoint->root.hash, volume->chain, SHA256_BYTES);
    if (!MUTANT(ids_not_reserved))
        volume->next_object_id = checkpoint->own_past;
    map_snapshot_begin(volume->map);
    object_table_snapshot_begin(volume->objects, checkpoint->own_first);
    budget_charge_map(volume);
    group_spawn(&volume->group, "checkpoint", checkpoint_task, checkpoint);
}

/* ---- trouble ---- */

void checkpoint_troubled(struct checkpoint *checkpoint, const struct error *error)
{
    struct volume *volume = checkpoint->volume;
    bool news = checkpoint->trouble.code == 0;
    error_copy(&checkpoint->trouble, error);
    checkpoint->trouble_count++;
    waitq_wake_all(&volume->committed);
    waitq_wake_all(&checkpoint->progress);
    if (news && volume_is_hard(error->code))
        event_raise(volume->all->events, EVENT_WARNING, volume->subject,
                    "the store does not take its checkpoint; trying on: %s", error->story);
}

uint64_t checkpoint_trouble(const struct volume *volume, const struct error **ret_error)
{
    *ret_error = &volume->checkpoint->trouble;
    return volume->checkpoint->trouble_count;
}

void checkpoint_hurry(struct volume *volume)
{
    waitq_wake_all(&volume->checkpoint->hurry);
}

int checkpoint_wait_for_better(struct checkpoint *checkpoint, int status, const struct error *error)
{
    if (coroutine_cancelled())
        return -ECANCELED;
    bool transient = piece_error_is_transient(status);
    if (transient)
        checkpoint_troubled(checkpoint, error);
    become_stuck(checkpoint, error);
    return sleep_ns(transient ? TROUBLE_RETRY_NS : STUCK_RETRY_NS);
}

void checkpoint_settle(struct volume *volume)
{
    struct checkpoint *checkpoint = volume->checkpoint;
    uint64_t began_ns = loop_now_ns(volume->loop), deadline_ns = began_ns + SETTLE_NS;
    while (volume->state == VOLUME_SERVING && volume->users == 0 && !checkpoint->stuck) {
        if ((volume->trouble.code != 0 && volume->trouble_told) || volume_is_hard(checkpoint->trouble.code))
            return;
        if (!checkpoint->running && slots_since_root(volume) <= volume->all->settings.settled_slots)
            return;
        uint64_t now_ns = loop_now_ns(volume->loop), stop_ns = volume->all->stop_by_ns;
        if (volume->all->stopping && stop_ns != UINT64_MAX) {
            uint64_t half_ns = stop_ns > began_ns ? began_ns + (stop_ns - began_ns) / 2 : began_ns;
            deadline_ns = half_ns < deadline_ns ? half_ns : deadline_ns;
        }
        if (now_ns >= deadline_ns)
            return;
        checkpoint_want(volume);
        uint64_t look_ns = now_ns + SETTLE_LOOK_NS;
        if (waitq_wait_until(&checkpoint->progress, look_ns < deadline_ns ? look_ns : deadline_ns) == -ECANCELED)
            return;
    }
}
