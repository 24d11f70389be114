/* Opening a volume: taking ownership, and reading the log.
 *
 * Every start is a takeover, of a crashed owner, a released volume or a living
 * owner alike, in this order:
 *
 *   1. CAS the register to the next epoch with our nonce.  The body replaced
 *      names the newest root: that is where the map begins.
 *   2. Read the log upward from there, a window of entries in parallel, and
 *      fold each in, checking the chain of hashes.  An entry of a higher epoch:
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
 * Whether the volume may be taken at all, while its register says that it is held:
 * yes if the owner ran on this host in this boot and is gone (its lock file
 * tells), if it was we ourselves, who could not give the volume back, or if we
 * were told to break the lease; else -EBUSY.
 *
 * What else can fail: anything damaged, foreign or of a newer format is named
 * and refused, and nothing is written over it. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "store/put_once.h"
#include "vol/internal.h"

#define TRANSIENT_TRIES 8
#define BACKOFF_FIRST_NS (20 * NS_PER_MS)
#define OPEN_TRIES 8 /* of losing the register to somebody else who is opening the volume */

/* ---- reading one entry ---- */

struct slot {
    struct volume *volume;
    uint64_t seq;
    int status; /* 0, -ENOENT, or what is wrong */
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

static void read_slot(void *arg)
{
    struct slot *slot = arg;
    uint64_t backoff = BACKOFF_FIRST_NS;
    for (int i = 0; i < TRANSIENT_TRIES; i++, backoff *= 2) {
        slot->status = read_entry(slot);
        if (!transient(slot->status))
            return;
        if (sleep_ns(backoff) < 0) {
            slot->status = error_set(&slot->error, ECANCELED, "opening was given up");
            return;
        }
    }
}

/* ---- applying it ---- */

static int check(struct volume *volume, const struct slot *slot, uint64_t *highest_epoch, struct error *error)
{
    const struct entry *entry = &slot->entry;
    unsigned long long seq = slot->seq;
    if (memcmp(entry->uuid.bytes, volume->body.uuid.bytes, sizeof entry->uuid.bytes) != 0 || entry->seq != slot->seq)
        return error_set(error, EMEDIUMTYPE, "log entry %llu is that of another volume or place", seq);
    if (entry->epoch > volume->epoch)
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

/* Entries up to `last`, all of which the LIST showed. */
static int replay(struct volume *volume, uint64_t last, uint64_t *highest_epoch, struct error *error)
{
    struct slot *slots = memory_array(REPLAY_WINDOW, sizeof *slots);
    int status = 0;
    while (volume->committed_seq < last && status == 0) {
        uint64_t first = volume->committed_seq + 1;
        uint64_t count = last - volume->committed_seq < REPLAY_WINDOW ? last - volume->committed_seq : REPLAY_WINDOW;
        for (uint64_t i = 0; i < count; i++) {
            slots[i] = (struct slot){ .volume = volume, .seq = first + i };
            group_spawn(&volume->group, "replay", read_slot, &slots[i]);
        }
        group_join(&volume->group); /* nothing else is in it before the volume is served */
        for (uint64_t i = 0; i < count; i++) {
            if (status == 0 && slots[i].status == -ENOENT)
                status = error_set(error, EBADMSG,
                                   "%s: its log is damaged: entry %llu is missing, though later ones "
                                   "exist; restore it, or what was written since is lost",
                                   volume->subject, (unsigned long long)slots[i].seq);
            if (status == 0 && slots[i].status < 0) {
                error_copy(error, &slots[i].error);
                status = error_context(error, "%s", volume->subject);
            }
            if (MUTANT(replay_skips_last) && status == 0 && slots[i].seq == last)
                slots[i].entry.extent_count = 0;
            if (status == 0)
                status = apply(volume, &slots[i], highest_epoch, error);
            if (slots[i].status == 0)
                entry_free(&slots[i].entry);
        }
        if (coroutine_cancelled() && status == 0)
            status = error_set(error, ECANCELED, "opening was given up");
    }
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
    uint64_t highest_epoch = 0;
    for (;;) {
        uint64_t highest;
        int status = list_highest(volume, &highest, error);
        if (status < 0)
            return status;
        if (highest == volume->committed_seq && committed > highest && !MUTANT(lost_end_is_served))
            return error_set(error, EBADMSG,
                             "%s: its log is damaged: its register knows of entry %llu, but the store "
                             "has none behind %llu",
                             volume->subject, (unsigned long long)committed, (unsigned long long)highest);
        if (highest > volume->committed_seq) {
            status = replay(volume, highest, &highest_epoch, error);
            if (status < 0)
                return status;
            continue;
        }
        if (MUTANT(skip_fence))
            return 0;
        status = put_fence(volume, error);
        if (status != -EEXIST)
            return status;
    }
}

/* ---- opening ---- */

static int refuse_held(const struct volume *volume, const struct register_body *body, struct error *error)
{
    char since[32] = "an unknown time";
    time_t seconds = (time_t)(body->owned_since_wall_ms / 1000);
    struct tm tm;
    if (body->owned_since_wall_ms != 0 && gmtime_r(&seconds, &tm) != NULL)
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S UTC", &tm);
    return error_set(error, EBUSY,
                     "%s is held by process %llu on host %s since %s; if that server is gone for good, "
                     "take the volume from it with: cairn break-lease",
                     volume->subject, (unsigned long long)body->process,
                     body->host[0] != '\0' ? body->host : "(unknown)", since);
}

/* Whether the owner that `body` names is one of this shard's volumes that ended without being given back. */
static bool is_unreturned(const struct volumes *all, const struct register_body *body)
{
    for (uint32_t i = 0; i < UNRETURNED_MAX && i < all->unreturned_next; i++)
        if (nonce_equal(&all->unreturned[i], &body->owner))
            return true;
    return false;
}

static int refuse_unknown(const struct volume *volume, const struct register_body *body, struct error *error)
{
    if ((body->features_incompatible & ~FEATURES_INCOMPATIBLE_KNOWN) != 0)
        return error_set(error, EPROTONOSUPPORT,
                         "%s needs features (bits 0x%llx) that this release does not have; "
                         "use a newer cairn",
                         volume->subject,
                         (unsigned long long)(body->features_incompatible & ~FEATURES_INCOMPATIBLE_KNOWN));
    if (body->state != REGISTER_LIVE)
        return error_set(error, EPROTONOSUPPORT, "%s is being deleted, or was deleted, by a newer cairn",
                         volume->subject);
    if (!body->newest.empty || body->has_parent || body->newest.seq != 0)
        return error_set(error, EPROTONOSUPPORT,
                         "%s has a checkpoint or a parent, which this release cannot read; "
                         "use a newer cairn",
                         volume->subject);
    uint64_t size = body->newest.size;
    if (size == 0 || size % 512 != 0 || size > VOLUME_BYTES_MAX)
        return error_set(error, EBADMSG, "%s: its register gives it a size of %llu bytes, which no volume can have",
                         volume->subject, (unsigned long long)size);
    return 0;
}

/* One try to become the owner. *ret_committed: what the register said of the log. -ESTALE: try again. */
static int become_owner(struct volume *volume, uint64_t *ret_committed, struct error *error)
{
    struct register_body body;
    char etag[STORE_ETAG_MAX];
    int status = ownership_read(volume, &body, etag, error);
    for (int i = 1; i < TRANSIENT_TRIES && transient(status); i++) {
        if (sleep_ns(BACKOFF_FIRST_NS << i) < 0)
            return error_set(error, ECANCELED, "opening was given up");
        status = ownership_read(volume, &body, etag, error);
    }
    if (status == -ENOENT) {
        if (volume->create_size == 0)
            return error_set(error, ENOENT, "%s does not exist", volume->subject);
        status = ownership_create(volume, volume->create_size, error);
        *ret_committed = 0;
        return status == -EEXIST ? -ESTALE : status;
    }
    if (status < 0)
        return status;
    struct volumes *all = volume->all;
    status = refuse_unknown(volume, &body, error);
    if (status == 0 && body.held && !all->settings.break_lease && !is_unreturned(all, &body) &&
        !all->host->ops->owner_is_dead(all->host, &body))
        status = refuse_held(volume, &body, error);
    if (status == 0)
        status = ownership_take(volume, &body, etag, error);
    *ret_committed = body.committed;
    register_free(&body);
    return status;
}

int recover_open(struct volume *volume, struct error *error)
{
    uint64_t committed = 0;
    int status = -ESTALE;
    for (int i = 0; i < OPEN_TRIES && status == -ESTALE; i++)
        status = become_owner(volume, &committed, error);
    if (status < 0)
        return status == -ESTALE ? error_set(error, EBUSY, "%s: others keep taking it; try again", volume->subject)
                                 : status;
    const struct root *root = &volume->body.newest;
    volume->size = root->size;
    volume->pages = (root->size + PAGE_BYTES - 1) / PAGE_BYTES;
    volume->committed_seq = root->seq;
    volume->next_object_id = root->next_object_id;
    memcpy(volume->chain, root->hash, SHA256_BYTES);
    volume->objects = object_table_new();
    volume->map = map_new(volume->objects, volume->pages);
    status = replay_and_fence(volume, committed, error);
    if (status < 0)
        return status;
    if (MUTANT(skip_register_reread))
        return 0;
    return ownership_confirm(volume, error);
}
