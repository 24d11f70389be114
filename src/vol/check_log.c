/* The log: every entry that the listing showed, from the first on.
 *
 * A window of fronts is on its way; they are judged in their order, since each
 * names the hash of the one before it.  Behind an entry that is missing or
 * damaged the chain is taken up again: after the next sound one, or where a root
 * says the hash.
 *
 * On the way each entry is compared with what others say of it: data objects
 * with the listing; rows of roots with the objects that it made; the register
 * with its epoch and owner. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "vol/check_internal.h"

#define FRONT_BYTES (64u << 10) /* as recovery fetches: most fronts are shorter */

struct slot {
    struct log_reading *log;
    uint64_t seq;
    bool arrived;
    int status;
    struct error error;
    struct entry entry;
    uint8_t hash[SHA256_BYTES];
    uint64_t bytes; /* of the whole object */
    size_t front;
};

struct log_reading {
    struct checking *checking;
    struct waitq arrival;
    bool chained; /* `hash` is that of the entry before */
    uint8_t hash[SHA256_BYTES];
    uint64_t next_object_id;
    uint64_t epoch; /* of the entry before, and who wrote it */
    struct nonce owner;
    uint64_t epoch_seq; /* the first of that epoch */
    bool whole;         /* so far all could be read */
};

/* ---- reading ---- */

static CO int read_front(struct slot *slot, const char *key)
{
    struct store *store = slot->log->checking->check->store;
    size_t length = FRONT_BYTES;
    int status;
    for (;;) {
        uint8_t *bytes = memory_new(length);
        struct iovec piece = { .iov_base = bytes, .iov_len = length };
        struct store_get get = { .key = key, .pieces = &piece, .count = 1 };
        struct store_got got = { 0 };
        status = store_get(store, &get, &got, &slot->error);
        slot->bytes = got.size;
        size_t placed = got.length;
        if (status == 0)
            status = entry_decode_front(bytes, placed, &slot->front, &slot->error);
        bool more = status == 0 && slot->front > placed && placed < got.size && length < slot->front;
        if (status == 0 && !more)
            status = entry_decode(bytes, placed, &slot->entry, slot->hash, &slot->error);
        free(bytes);
        if (!more)
            return status;
        length = slot->front;
    }
}

static CO void read_slot(void *arg)
{
    struct slot *slot = arg;
    char key[KEY_MAX];
    key_log(&slot->log->checking->body.uuid, slot->seq, key);
    slot->status = read_front(slot, key);
    slot->arrived = true;
    waitq_wake_all(&slot->log->arrival);
}

/* ---- what others say ---- */

static void judge_row(struct checking *checking, const struct check_root *root, const struct object_row *made,
                      const char *key)
{
    struct check_row *row = check_root_row(root, made->id);
    if (row == NULL) {
        if (root->whole && !check_root_buried(root, made->id))
            check_found(checking, CHECK_INCONSISTENT, root->key,
                        "checkpoint %" PRIu64 ": object %" PRIu64 " is neither in use nor in graves", root->frame.seq,
                        made->id);
        return;
    }
    row->seen = true;
    uint64_t epoch_or_seq = made->kind == OBJECT_LOG ? made->seq : made->epoch;
    if (row->kind != made->kind || row->role != ROLE_PAGES || row->epoch_or_seq != epoch_or_seq || row->n != made->n ||
        row->born != made->born || row->bytes != made->total_bytes)
        check_found(checking, CHECK_INCONSISTENT, root->key,
                    "checkpoint %" PRIu64 ": its row of object %" PRIu64 " does not agree with %s, which made it",
                    root->frame.seq, made->id, key);
}

/* Runs of frames that leaves place in the entry lie within its inline bytes. */
static void judge_inline(struct checking *checking, const struct check_root *root, const struct slot *slot,
                         const char *key)
{
    const struct check_row *row = check_root_row(root, slot->entry.object_id);
    if (row == NULL || row->past == 0)
        return;
    if ((uint64_t)row->start * FRAME_UNIT < slot->front ||
        (uint64_t)row->past * FRAME_UNIT > slot->front + slot->entry.inline_bytes)
        check_found(checking, CHECK_INCONSISTENT, root->key,
                    "checkpoint %" PRIu64 ": its leaves name frames outside of the inline bytes of %s", root->frame.seq,
                    key);
}

static void judge_rows(struct log_reading *log, const struct slot *slot, const char *key)
{
    struct checking *checking = log->checking;
    const struct entry *entry = &slot->entry;
    for (uint32_t i = 0; i < checking->root_count; i++) {
        const struct check_root *root = &checking->roots[i];
        if (!root->readable || root->frame.seq < entry->seq)
            continue;
        struct object_row made = { .id = entry->object_id,
                                   .kind = OBJECT_LOG,
                                   .seq = entry->seq,
                                   .born = entry->seq,
                                   .total_bytes = entry->inline_bytes };
        if (entry->inline_bytes > 0) { /* one that holds no frames has no row */
            judge_row(checking, root, &made, key);
            judge_inline(checking, root, slot, key);
        }
        for (uint32_t k = 0; k < entry->object_count; k++) {
            made = (struct object_row){ .id = entry->object_id + 1 + k,
                                        .kind = OBJECT_DATA,
                                        .epoch = entry->objects[k].epoch,
                                        .n = entry->objects[k].n,
                                        .born = entry->seq,
                                        .total_bytes = entry->objects[k].bytes };
            judge_row(checking, root, &made, key);
        }
    }
}

static void judge_objects(struct checking *checking, const struct entry *entry, const char *entry_key)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        const struct commit_object *object = &entry->objects[i];
        uint64_t id = entry->object_id + 1 + i;
        struct listed_object *listed = listing_find(&checking->listing, object->epoch, object->n);
        char key[KEY_MAX];
        key_data(&entry->uuid, object->epoch, object->n, key);
        if (listed == NULL) {
            check_found(checking, CHECK_MISSING, key, "it is not there: object %" PRIu64, id);
            continue;
        }
        if (listed->committed)
            check_found(checking, CHECK_INCONSISTENT, entry_key, "it commits %s, which an entry before it did", key);
        listed->committed = listed->named = true;
        if (listed->bytes != object->bytes)
            check_found(checking, CHECK_DAMAGED, key, "it has %" PRIu64 " bytes, and object %" PRIu64 " has %" PRIu64,
                        listed->bytes, id, object->bytes);
    }
}

/* Roots as of this entry, and as of the one before it. */
static void judge_roots(struct log_reading *log, const struct slot *slot, const char *key)
{
    struct checking *checking = log->checking;
    const struct entry *entry = &slot->entry;
    uint64_t past = entry->object_id + entry->object_count + 1;
    for (uint32_t i = 0; i < checking->root_count; i++) {
        const struct root *root = checking->roots[i].root;
        if (root->seq == entry->seq && memcmp(root->hash, slot->hash, SHA256_BYTES) != 0)
            check_found(checking, CHECK_INCONSISTENT, checking->register_key,
                        "the root at log entry %" PRIu64 " has another hash of it than it has", root->seq);
        if (root->seq >= entry->seq && past > root->next_object_id)
            check_found(checking, CHECK_INCONSISTENT, key,
                        "its object ids go up to %" PRIu64 ", and by the root at log entry %" PRIu64 " %" PRIu64
                        " was the next then",
                        past - 1, root->seq, root->next_object_id);
        if (root->seq < entry->seq && entry->object_id < root->next_object_id)
            check_found(checking, CHECK_INCONSISTENT, key,
                        "its object id is %" PRIu64 ", and by the root at log entry %" PRIu64 " %" PRIu64
                        " was the next",
                        entry->object_id, root->seq, root->next_object_id);
    }
}

/* ---- one entry ---- */

static void judge_owner(struct log_reading *log, const struct entry *entry, const char *key)
{
    struct checking *checking = log->checking;
    if (log->epoch > 0 && entry->epoch < log->epoch)
        check_found(checking, CHECK_INCONSISTENT, key,
                    "its epoch is %" PRIu64 ", and that of an entry before it %" PRIu64, entry->epoch, log->epoch);
    else if (entry->epoch == log->epoch && !nonce_equal(&entry->owner, &log->owner))
        check_found(checking, CHECK_INCONSISTENT, key,
                    "another owner than that of entry %" PRIu64 " wrote it, in the same epoch %" PRIu64, log->epoch_seq,
                    log->epoch);
    if (entry->epoch == checking->body.epoch && !nonce_equal(&entry->owner, &checking->body.owner))
        check_found(checking, CHECK_INCONSISTENT, key,
                    "another owner wrote it than the register names for its epoch %" PRIu64, entry->epoch);
    if (entry->epoch > log->epoch) {
        log->epoch = entry->epoch;
        log->owner = entry->owner;
        log->epoch_seq = entry->seq;
    }
}

static void judge_extents(struct checking *checking, const struct entry *entry, const char *key)
{
    uint64_t pages = (checking->body.newest.size + PAGE_BYTES - 1) / PAGE_BYTES;
    if (entry->extent_count == 0)
        return;
    const struct commit_extent *last = &entry->extents[entry->extent_count - 1];
    if (last->page + last->count > pages)
        check_found(checking, CHECK_INCONSISTENT, key, "it writes up to page %" PRIu64 ", and the disk has %" PRIu64,
                    last->page + last->count - 1, pages);
}

static CO void judge_entry(struct log_reading *log, const struct slot *slot, const char *key)
{
    struct checking *checking = log->checking;
    const struct entry *entry = &slot->entry;
    if (slot->bytes != slot->front + entry->inline_bytes)
        check_found(checking, CHECK_DAMAGED, key, "it has %" PRIu64 " bytes, and should have %" PRIu64, slot->bytes,
                    slot->front + entry->inline_bytes);
    if (log->chained && memcmp(log->hash, entry->previous, SHA256_BYTES) != 0)
        check_found(checking, CHECK_INCONSISTENT, key, "it does not follow the entry before it: the hash is another");
    if (entry->object_id < log->next_object_id)
        check_found(checking, CHECK_INCONSISTENT, key,
                    "its object id is %" PRIu64 ", and %" PRIu64 " was the next: an entry before it has used it",
                    entry->object_id, log->next_object_id);
    else
        log->next_object_id = entry->object_id + 1 + entry->object_count;
    judge_owner(log, entry, key);
    judge_extents(checking, entry, key);
    judge_objects(checking, entry, key);
    judge_roots(log, slot, key);
    judge_rows(log, slot, key);
    if (checking->check->data && entry->seq > checking->body.newest.seq)
        check_frames_of_entry(checking, entry);
}

static CO void take_slot(struct log_reading *log, struct slot *slot)
{
    struct checking *checking = log->checking;
    char key[KEY_MAX];
    key_log(&checking->body.uuid, slot->seq, key);
    for (uint32_t i = 0; i < checking->root_count && !log->chained; i++) {
        if (checking->roots[i].root->seq + 1 != slot->seq)
            continue;
        log->chained = true;
        memcpy(log->hash, checking->roots[i].root->hash, SHA256_BYTES);
    }
    int status = slot->status;
    if (status == 0 && (!uuid_equal(&slot->entry.uuid, &checking->body.uuid) || slot->entry.seq != slot->seq)) {
        char real[KEY_MAX];
        key_log(&slot->entry.uuid, slot->entry.seq, real);
        status = error_set(&slot->error, EMEDIUMTYPE, "log entry: it is another's: %s", real);
        entry_free(&slot->entry);
    }
    if (status < 0) {
        check_judge(checking, key, status, &slot->error);
        log->chained = log->whole = false;
        return;
    }
    judge_entry(log, slot, key);
    log->chained = true;
    memcpy(log->hash, slot->hash, SHA256_BYTES);
    entry_free(&slot->entry);
}

/* ---- all of them ---- */

static void tell_missing(struct checking *checking, uint64_t first, uint64_t last)
{
    const struct register_body *body = &checking->body;
    char key[KEY_MAX], range[64] = "";
    key_log(&body->uuid, first, key);
    if (last > first)
        snprintf(range, sizeof range, ", nor are those up to entry %" PRIu64, last);
    if (last > body->newest.seq)
        check_found(checking, CHECK_MISSING, key,
                    "it is not there%s: the disk cannot be read without what is above entry %" PRIu64
                    ", its newest checkpoint",
                    range, body->newest.seq);
    else
        check_found(checking, CHECK_MISSING, key,
                    "it is not there%s: the disk can be read, since its newest checkpoint is at entry %" PRIu64, range,
                    body->newest.seq);
}

/* Below the horizon, and below what any root needs, entries may be gone. */
static uint64_t first_needed(const struct checking *checking)
{
    uint64_t floor = checking->body.horizon;
    for (uint32_t i = 0; i < checking->root_count; i++)
        floor = checking->roots[i].root->seq < floor ? checking->roots[i].root->seq : floor;
    return floor + 1;
}

static void tell_all_missing(struct checking *checking)
{
    const struct listing *listing = &checking->listing;
    uint64_t needed = first_needed(checking);
    for (size_t i = 0; i < listing->missing_count; i++) {
        uint64_t first = listing->missing[i].first > needed ? listing->missing[i].first : needed;
        if (first <= listing->missing[i].last)
            tell_missing(checking, first, listing->missing[i].last);
    }
    uint64_t highest = listing->log_highest + 1 > needed ? listing->log_highest + 1 : needed;
    if (highest <= checking->body.committed)
        tell_missing(checking, highest, checking->body.committed);
}

/* Rows of objects that hold pages, and that no entry made. */
static void tell_unmade(struct checking *checking, const struct check_root *root)
{
    for (uint32_t i = 0; i < root->row_count; i++)
        if (root->rows[i].role == ROLE_PAGES && !root->rows[i].seen)
            check_found(checking, CHECK_INCONSISTENT, root->key,
                        "checkpoint %" PRIu64 ": no log entry made object %" PRIu64 ", which it has in use",
                        root->frame.seq, root->rows[i].id);
}

static CO void read_all(struct log_reading *log)
{
    struct checking *checking = log->checking;
    const struct check *check = checking->check;
    struct slot *slots = memory_array(CHECK_WORKERS, sizeof *slots);
    struct group group;
    group_init(&group, check->loop);
    uint64_t last = checking->listing.log_highest, asked = 1;
    for (uint64_t seq = 1; seq <= last && checking->status == 0; seq++) {
        for (; asked <= last && asked - seq < CHECK_WORKERS; asked++) {
            if (listing_lacks_entry(&checking->listing, asked))
                continue;
            struct slot *slot = &slots[asked % CHECK_WORKERS];
            *slot = (struct slot){ .log = log, .seq = asked, .error = ERROR_NONE };
            group_spawn(&group, "check log", read_slot, slot);
        }
        struct slot *slot = &slots[seq % CHECK_WORKERS];
        if (slot->seq != seq) { /* it is missing */
            log->chained = log->whole = false;
            continue;
        }
        while (!slot->arrived && waitq_wait(&log->arrival) == 0)
            ;
        take_slot(log, slot);
        check->progress(check->arg, "log entries", seq, last);
    }
    group_join(&group);
    for (uint32_t i = 0; i < CHECK_WORKERS && checking->status < 0; i++)
        if (slots[i].arrived && slots[i].status == 0 && slots[i].seq > 0)
            entry_free(&slots[i].entry);
    free(slots);
}

void check_log_read(struct checking *checking)
{
    struct log_reading log = { .checking = checking, .chained = true, .next_object_id = 1, .whole = true };
    waitq_init(&log.arrival);
    tell_all_missing(checking);
    read_all(&log);
    if (checking->status < 0)
        return;
    for (uint32_t i = 0; i < checking->root_count && log.whole; i++)
        if (checking->roots[i].readable)
            tell_unmade(checking, &checking->roots[i]);
    check_epoch(checking, log.epoch, log.epoch_seq);
}
