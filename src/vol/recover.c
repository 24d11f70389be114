/* Opening a volume: taking ownership, and reading the log.
 *
 * Every start is a takeover, of a crashed owner, a released volume or a living
 * owner alike, in this order:
 *
 *   1. CAS the register to the next epoch with our nonce.  The body replaced
 *      names the newest root: that is where the map begins.
 *   2. Restore map and object table from there (vol/restore.c).  Read the log
 *      upward, a window of entries in parallel, and fold each in, checking the
 *      chain of hashes.  An entry of a higher epoch:
 *      somebody took the volume after us; stop.
 *   3. At the first number that is missing nothing may stand above, neither in
 *      a LIST nor by the register's committed number: else an entry is lost,
 *      and the volume is refused, not served cut short.  Write a fence there,
 *      only if absent.  Somebody else's entry stands there after all: fold it
 *      in and go on with the next number.
 *   4. Read the register again.  Not ours any more: stop, we lost.
 *   5. Serve.
 *
 * Why that is safe: an older owner has at most one commit on its way.  Once our
 * fence stands at its number, that commit is refused for ever; what landed
 * before the fence we have read.  And an owner that was itself overtaken before
 * its fence landed finds that out in step 4.
 *
 * Whether and when the volume may be taken at all, while its register says that
 * it is held, is decided in vol/takeover.c.
 *
 * What else can fail: anything damaged, foreign or of a newer format is named
 * and refused, and nothing is written over it. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "store/put_once.h"
#include "vol/internal.h"

#define TRANSIENT_TRIES 8
#define ABSENT_TRIES 4
#define BACKOFF_FIRST_NS (20 * NS_PER_MS)
#define UNDER_WAY 1

/* ---- reading one entry ---- */

struct slot {
    struct volume *volume;
    uint64_t seq;
    int status; /* UNDER_WAY, 0, -ENOENT, or what is wrong */
    bool taken; /* its entry was folded in, and freed */
    struct waitq *arrival;
    struct error error;
    struct entry entry;
    uint8_t hash[SHA256_BYTES];
};

static int get_front(struct volume *volume, const char *key, size_t wanted, uint8_t **ret_bytes, size_t *ret_length,
                     uint64_t *ret_size, struct error *error)
{
    uint8_t *bytes = memory_new(wanted);
    struct iovec piece = { .iov_base = bytes, .iov_len = wanted };
    struct store_get get = { .key = key, .pieces = &piece, .count = 1 };
    struct store_got got;
    int status = store_get(volume->all->store, &get, &got, error);
    if (status < 0) {
        free(bytes);
        return status;
    }
    volume->answered_ns = loop_now_ns(volume->loop);
    *ret_bytes = bytes;
    *ret_length = got.length;
    *ret_size = got.size;
    return 0;
}

static int read_entry(struct slot *slot)
{
    char key[KEY_MAX];
    key_log(&slot->volume->body.uuid, slot->seq, key);
    uint8_t *bytes = NULL;
    size_t length = 0, front = 0;
    uint64_t size = 0;
    int status = get_front(slot->volume, key, LOG_FRONT_GUESS, &bytes, &length, &size, &slot->error);
    if (status == 0)
        status = entry_decode_front(bytes, length, &front, &slot->error);
    if (status == 0 && front > length && length == LOG_FRONT_GUESS) {
        free(bytes);
        bytes = NULL;
        status = get_front(slot->volume, key, front, &bytes, &length, &size, &slot->error);
    }
    if (status == 0)
        status = entry_decode(bytes, length, &slot->entry, slot->hash, &slot->error);
    free(bytes);
    if (status == 0 && size < front + slot->entry.inline_bytes) {
        status = error_set(&slot->error, EBADMSG, "the object is cut short: %llu of %llu bytes",
                           (unsigned long long)size, (unsigned long long)(front + slot->entry.inline_bytes));
        entry_free(&slot->entry);
    }
    if (status < 0 && status != -ENOENT)
        error_context(&slot->error, "%s", key);
    return status;
}

static bool transient(int status)
{
    return status < 0 && status != -ENOENT && status != -EBADMSG && status != -EMEDIUMTYPE &&
           status != -EPROTONOSUPPORT;
}

/* A LIST showed the entry: a store that does not find it when asked for it is given a few chances. */
static int read_patiently(struct slot *slot)
{
    uint64_t backoff = BACKOFF_FIRST_NS;
    for (int tries = 1, absent = 0;; tries++, backoff *= 2) {
        int status = read_entry(slot);
        bool again = transient(status) || (status == -ENOENT && ++absent < ABSENT_TRIES);
        if (!again || tries == TRANSIENT_TRIES)
            return status;
        if (sleep_ns(backoff) < 0)
            return error_set(&slot->error, ECANCELED, "opening was given up");
    }
}

static void read_slot(void *arg)
{
    struct slot *slot = arg;
    slot->status = read_patiently(slot);
    waitq_wake_all(slot->arrival);
}

/* ---- applying it ---- */

/* Entries behind a root have ids above all that it set aside, unless its owner was cloned: one copy published the root,
 * the other one, who knew nothing of it, wrote the entries, and both are fenced by now.  The state is sound, as both
 * had the same log up to the root; but the ids of these objects stand for pieces of the root already.  They get the
 * next free ones, as they do with everybody who opens the volume from this root. */
static void part_ids(const struct volume *volume, struct entry *entry)
{
    const struct root *root = &volume->body.newest;
    if (!root->empty && entry->epoch == root->epoch && entry->object_id < volume->next_object_id &&
        !MUTANT(clone_ids_refused))
        entry->object_id = volume->next_object_id;
}

static int check(struct volume *volume, const struct slot *slot, uint64_t *highest_epoch, struct error *error)
{
    const struct entry *entry = &slot->entry;
    unsigned long long seq = slot->seq;
    if (memcmp(entry->uuid.bytes, volume->body.uuid.bytes, sizeof entry->uuid.bytes) != 0 || entry->seq != slot->seq)
        return error_set(error, EMEDIUMTYPE, "log entry %llu is that of another volume or place", seq);
    bool of_ours = entry->epoch == volume->epoch && nonce_equal(&entry->owner, &volume->owner);
    if (entry->epoch >= volume->epoch && !of_ours && !MUTANT(later_epochs_read_over))
        return error_set(error, ESHUTDOWN, "%s: another owner took it while it was being opened", volume->subject);
    if (entry->epoch < *highest_epoch)
        return error_set(error, EBADMSG, "log entry %llu is of epoch %llu, behind one of epoch %llu", seq,
                         (unsigned long long)entry->epoch, (unsigned long long)*highest_epoch);
    if (memcmp(entry->previous, volume->chain, SHA256_BYTES) != 0)
        return error_set(error, EBADMSG, "log entry %llu does not follow the one before it (its hash differs)", seq);
    if (entry->object_id < volume->next_object_id)
        return error_set(error, EBADMSG, "log entry %llu uses object id %llu again", seq,
                         (unsigned long long)entry->object_id);
    for (uint32_t i = 0; i < entry->record_count; i++)
        if (entry->records[i].must_understand)
            return error_set(error, EPROTONOSUPPORT,
                             "log entry %llu has a record of type %u, which this release "
                             "does not know; use a newer cairn",
                             seq, entry->records[i].type);
    *highest_epoch = entry->epoch;
    return 0;
}

static int apply(struct volume *volume, struct slot *slot, uint64_t *highest_epoch, struct error *error)
{
    part_ids(volume, &slot->entry);
    int status = check(volume, slot, highest_epoch, error);
    if (MUTANT(replay_ignores_zeroes))
        for (uint32_t i = 0; i < slot->entry.extent_count; i++)
            if (slot->entry.extents[i].kind == EXTENT_ZERO)
                slot->entry.extents[i].count = 1;
    if (status == 0)
        status = fold_entry(volume, &slot->entry, slot->hash, error);
    if (status < 0 && status != -ESHUTDOWN)
        error_context(error, "%s: its log is damaged or not readable here", volume->subject);
    return status;
}

static int apply_slot(struct volume *volume, struct slot *slot, uint64_t last, uint64_t *highest_epoch,
                      struct error *error)
{
    if (slot->status == -ENOENT)
        return error_set(error, EBADMSG,
                         "%s: its log is damaged: entry %llu is missing, though later ones "
                         "exist; restore it, or what was written since is lost",
                         volume->subject, (unsigned long long)slot->seq);
    if (slot->status < 0) {
        error_copy(error, &slot->error);
        return error_context(error, "%s", volume->subject);
    }
    if (MUTANT(replay_skips_last) && slot->seq == last)
        slot->entry.extent_count = 0;
    int status = apply(volume, slot, highest_epoch, error);
    entry_free(&slot->entry);
    return status;
}

/* Entries up to `last`, all of which the LIST showed: a window of them is on its way all the time. */
static int replay(struct volume *volume, uint64_t last, uint64_t *highest_epoch, struct error *error)
{
    struct slot *slots = memory_array(REPLAY_WINDOW, sizeof *slots);
    struct group group;
    struct waitq arrival;
    group_init(&group, volume->loop);
    waitq_init(&arrival);
    uint64_t next = volume->committed_seq + 1; /* to be asked for */
    int status = 0;
    while (volume->committed_seq < last && status == 0) {
        for (; next <= last && next - volume->committed_seq <= REPLAY_WINDOW; next++) {
            struct slot *slot = &slots[next % REPLAY_WINDOW];
            *slot = (struct slot){ .volume = volume, .seq = next, .status = UNDER_WAY, .arrival = &arrival };
            group_spawn(&group, "replay", read_slot, slot);
        }
        struct slot *slot = &slots[(volume->committed_seq + 1) % REPLAY_WINDOW];
        while (slot->status == UNDER_WAY && status == 0)
            if (waitq_wait(&arrival) < 0)
                status = error_set(error, ECANCELED, "opening was given up");
        if (status == 0) {
            status = apply_slot(volume, slot, last, highest_epoch, error);
            slot->taken = true;
        }
    }
    if (status < 0)
        group_cancel(&group);
    group_join(&group);
    for (uint32_t i = 0; i < REPLAY_WINDOW; i++)
        if (slots[i].seq != 0 && slots[i].status == 0 && !slots[i].taken)
            entry_free(&slots[i].entry);
    free(slots);
    return status;
}

/* The highest entry number that a LIST shows above committed_seq; committed_seq when there is none. */
static int list_highest(struct volume *volume, uint64_t *ret_highest, struct error *error)
{
    char prefix[KEY_MAX], after[KEY_MAX];
    key_log_prefix(&volume->body.uuid, prefix);
    key_log(&volume->body.uuid, volume->committed_seq, after);
    uint64_t highest = volume->committed_seq, backoff = BACKOFF_FIRST_NS;
    bool more = true;
    for (int failures = 0; more;) {
        struct store_listing listing;
        int status = store_list(volume->all->store, prefix, after, STORE_LIST_MAX, &listing, error);
        if (status < 0) {
            if (++failures == TRANSIENT_TRIES)
                return error_context(error, "%s: its log", volume->subject);
            if (sleep_ns(backoff) < 0)
                return error_set(error, ECANCELED, "opening was given up");
            backoff *= 2;
            continue;
        }
        volume->answered_ns = loop_now_ns(volume->loop);
        for (size_t i = 0; i < listing.count; i++) {
            struct uuid uuid;
            uint64_t seq;
            if (key_parse_log(listing.entries[i].key, &uuid, &seq) && seq > highest)
                highest = seq;
        }
        more = listing.more;
        if (listing.count > 0 && strlen(listing.entries[listing.count - 1].key) < sizeof after)
            strcpy(after, listing.entries[listing.count - 1].key);
        else
            more = false;
        store_listing_free(&listing);
    }
    *ret_highest = highest;
    return 0;
}

/* ---- the fence ---- */

struct fencing {
    struct volume *volume;
    uint64_t deadline_ns;
};

static void fence_troubled(void *arg, const struct error *error)
{
    const struct fencing *fencing = arg;
    volume_troubled(fencing->volume, error);
}

/* A fence that lands after we gave up is one that the next owner reads and steps over. */
static bool give_up_fencing(void *arg, const struct error *error)
{
    const struct fencing *fencing = arg;
    return volume_is_hard(error->code) || loop_now_ns(fencing->volume->loop) >= fencing->deadline_ns;
}

/* Puts a fence behind the last entry. 0, -EEXIST: an entry is there, or another error. */
static int put_fence(struct volume *volume, struct error *error)
{
    struct entry fence = { .kind = ENTRY_FENCE,
                           .uuid = volume->body.uuid,
                           .epoch = volume->epoch,
                           .owner = volume->owner,
                           .seq = volume->committed_seq + 1,
                           .wall_ms = loop_wall_ns(volume->loop) / NS_PER_MS,
                           .object_id = volume->next_object_id };
    memcpy(fence.previous, volume->chain, SHA256_BYTES);
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    entry_encode(&fence, &bytes, hash);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    char key[KEY_MAX];
    key_log(&fence.uuid, fence.seq, key);
    struct fencing fencing = { .volume = volume, .deadline_ns = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS };
    struct put_once put = { .store = volume->all->store,
                            .key = key,
                            .pieces = &piece,
                            .count = 1,
                            .urgent = true,
                            .troubled = fence_troubled,
                            .give_up = give_up_fencing,
                            .arg = &fencing };
    int status = put_once(&put, error);
    buffer_free(&bytes);
    if (status == 0)
        status = fold_entry(volume, &fence, hash, error);
    else
        error_context(error, "%s: its log", volume->subject);
    return status;
}

/* Brings the volume to the end of its log and closes that end against everybody before us. */
static int replay_and_fence(struct volume *volume, uint64_t committed, struct error *error)
{
    uint64_t highest_epoch = volume->body.newest.epoch;
    for (;;) {
        uint64_t highest;
        int status = list_highest(volume, &highest, error);
        if (status < 0)
            return status;
        if (committed > highest && !MUTANT(lost_end_is_served))
            return error_set(error, EBADMSG,
                             "%s: its log is damaged: its register knows of entry %llu, but the store "
                             "has none behind %llu",
                             volume->subject, (unsigned long long)committed, (unsigned long long)highest);
        if (highest > volume->committed_seq) {
            status = replay(volume, highest, &highest_epoch, error);
            if (status < 0)
                return status;
        }
        if (MUTANT(skip_fence))
            return 0;
        if (volume->state != VOLUME_OPENING) /* lost meanwhile, as the register's writer knows: close nobody's log */
            return error_copy(error, &volume->failure);
        status = put_fence(volume, error);
        if (status == -EEXIST && MUTANT(fence_conflict_is_fence))
            return 0;
        if (status != -EEXIST)
            return status;
    }
}

/* ---- opening ---- */

int recover_open(struct volume *volume, struct error *error)
{
    uint64_t committed = 0;
    int status = takeover(volume, &committed, error);
    if (status < 0)
        return status;
    const struct root *root = &volume->body.newest;
    volume->size = root->size;
    volume->pages = (root->size + PAGE_BYTES - 1) / PAGE_BYTES;
    volume->committed_seq = root->seq;
    volume->next_object_id = root->next_object_id;
    memcpy(volume->chain, root->hash, SHA256_BYTES);
    volume->objects = object_table_new();
    volume->map = map_new(volume->objects, volume->pages);
    budget_divide_maps(volume->all);
    status = restore_from_root(volume, error);
    if (status < 0)
        return status;
    status = replay_and_fence(volume, committed, error);
    if (status == -ESHUTDOWN)
        return takeover_recheck(volume, error);
    if (status < 0)
        return status;
    if (MUTANT(skip_register_reread))
        return 0;
    return ownership_confirm(volume, error);
}
