/* The model of a disk.
 *
 * The disk is cut into segments: runs of bytes that have the same history.  A
 * segment has an entry for each write that may still be its content (trims and
 * zeroes are writes too), and an entry has three moments on the checker's clock:
 *
 *     end    from then on the write takes no effect any more: it was answered,
 *            failed, was seen by a read, or its server is gone
 *     done   by then it had taken effect for certain: it was answered with
 *            success, or a read that ended then returned it
 *     dead   by then something else had taken effect after it for certain: a
 *            read that begins later must not return it
 *
 * Write y is after write x for certain when y was invoked after x's end, or
 * when a read that began after x's end returned y.  When y is done, all entries
 * that are before it for certain are dead.  Since each write's bytes name the
 * write and the place, a read tells which write it returned, and these rules
 * amount to linearizability of every byte.  Bytes of one page that one read
 * returns come from one state of the page: a write that shows in one segment of
 * it cannot be missing in another that it covers ("torn").
 *
 * A flush that was sent at f and acknowledged makes durable what was there at
 * f: an entry that was dead before f cannot come back after a crash.
 *
 * Each owner of the volume (epoch) is an era with segments of its own.  A new
 * era starts with the entries of the era before it that a crash may leave:
 * exactly one of these `initial` entries is the segment's content, so the first
 * read of it settles it for good.  An old owner may live on beside a new one:
 * what it acknowledges late is struck from the candidates of the eras after it,
 * and if one of them was seen there already, something acknowledged was lost
 * (but for zeroes that were overwritten by zeroes: an old owner may well find
 * that such a trim changes nothing, and acknowledge it without a word to the
 * store);
 * writes that it takes late are not copied, so they must never show.
 *
 * An owner may be two, a process and its clone: then its era forks, and the next
 * one begins with what either may have left.  When one of the two is refused a log
 * entry because the other has written it, nothing that came to it since the fork
 * is a candidate any more.
 *
 * Zeroes do not tell who wrote them: a read that fits several entries settles
 * only what is common to all of them.  The checker may miss something there; it
 * never accuses wrongly. */
#include "checker.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/memory.h"

#define NEVER UINT64_MAX
#define PAGE 4096u /* what is written and recovered as a whole */
struct write_id {
    uint64_t id; /* 0: the blank disk */
    uint64_t invoked;
    uint64_t offset, length;
    enum checker_content content;
    uint64_t seed;
    bool lost; /* its connection broke before it was answered */
};

struct entry {
    const struct write_id *write;
    uint64_t end, done, dead;
    uint64_t dead_by_data; /* the same, where what overwrote it cannot be the same bytes: no zeroes by zeroes */
    bool initial;          /* one of the candidates that the era began with */
    bool seen;             /* an initial one that a read returned */
    bool dead_durably;     /* overwritten by a write that is durable by itself (FUA) */
    bool dead_durably_by_data;
};

struct segment {
    uint64_t start; /* up to the next one's start */
    struct entry *entries;
    uint32_t count, capacity;
};

struct checker_era {
    struct list link; /* checker->eras, in order of creation */
    struct checker *checker;
    struct checker_era *parent, *parent_too; /* the latter: the clone of the former, if there was one */
    uint64_t epoch;
    struct checker_era *twin; /* the process of this era was cloned: the era of the other of the two */
    bool forked;              /* this is the clone's */
    uint64_t forked_at;
    bool wrote;              /* of the two, it has written to the log since */
    bool beaten;             /* it has not, and will not */
    bool won;                /* it has acknowledged as durable what came to it since */
    uint64_t flushed_before; /* the latest moment at which a flush was sent that was acknowledged */
    bool has_children;
    struct segment *segments;
    size_t count, capacity;
};

enum op_kind { OP_WRITE, OP_READ, OP_FLUSH };

struct checker_op {
    struct list link; /* checker->active, in order of invocation */
    struct checker_era *era;
    enum op_kind kind;
    uint64_t invoked;
    uint64_t offset, length;
    struct write_id *write;
    bool fua;
};

struct checker {
    uint64_t size, salt;
    uint64_t clock;
    struct list eras;
    struct list active;
    struct write_id **writes; /* all, for their memory */
    size_t write_count, write_capacity;
};

/* What a read showed of [start, end), which lies in one segment. */
struct observation {
    uint64_t start, end;
    uint32_t length;      /* of its first piece, within one page */
    const uint8_t *bytes; /* that piece */
    uint32_t matches;     /* how many entries fit */
    uint32_t match;       /* one of them */
    uint64_t digest;      /* of which ones: pieces of one segment with equal digests show the same */
};

struct observations {
    struct observation *items;
    size_t count, capacity;
};

/* ---- contents ---- */

static bool page_of_zeroes(const struct write_id *write, uint64_t offset)
{
    if (write->content == CONTENT_ZERO)
        return true;
    return write->content == CONTENT_MIXED && (hash_u64(write->seed ^ (offset / PAGE)) & 3) != 0;
}

/* Bytes of the write at [offset, offset + length), which lies in one page. */
static void fill_in_page(const struct write_id *write, uint64_t offset, uint32_t length, uint8_t *ret_bytes)
{
    if (page_of_zeroes(write, offset)) {
        memset(ret_bytes, 0, length);
        return;
    }
    while (length > 0) {
        uint64_t word = hash_u64(write->seed + offset / 8) | UINT64_C(0x0101010101010101); /* no byte is zero */
        uint32_t skip = (uint32_t)(offset % 8);
        uint32_t part = 8 - skip < length ? 8 - skip : length;
        memcpy(ret_bytes, (const uint8_t *)&word + skip, part);
        ret_bytes += part;
        offset += part;
        length -= part;
    }
}

static uint32_t in_page(uint64_t offset, uint64_t end)
{
    uint64_t left = PAGE - offset % PAGE;
    return (uint32_t)(end - offset < left ? end - offset : left);
}

void checker_fill(const struct checker_op *op, uint8_t *ret_bytes)
{
    uint64_t end = op->offset + op->length;
    for (uint64_t at = op->offset; at < end;) {
        uint32_t part = in_page(at, end);
        fill_in_page(op->write, at, part, ret_bytes);
        ret_bytes += part;
        at += part;
    }
}

/* Whether [offset, offset + length), within one page, holds what `write` put there. */
static bool content_matches(const struct write_id *write, uint64_t offset, uint32_t length, const uint8_t *bytes)
{
    uint8_t expected[PAGE];
    uint32_t first = length < 8 ? length : 8;
    fill_in_page(write, offset, first, expected);
    if (memcmp(expected, bytes, first) != 0)
        return false;
    fill_in_page(write, offset, length, expected);
    return memcmp(expected, bytes, length) == 0;
}

/* ---- segments ---- */

static uint64_t segment_end(const struct checker_era *era, size_t index)
{
    return index + 1 < era->count ? era->segments[index + 1].start : era->checker->size;
}

/* The segment that holds `offset`. */
static size_t segment_find(const struct checker_era *era, uint64_t offset)
{
    size_t low = 0, high = era->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (era->segments[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void entry_add(struct segment *segment, const struct entry *entry)
{
    if (segment->count == segment->capacity) {
        segment->capacity = segment->capacity == 0 ? 2 : segment->capacity * 2;
        segment->entries = memory_resize(segment->entries, segment->capacity, sizeof segment->entries[0]);
    }
    segment->entries[segment->count++] = *entry;
}

static void entry_remove(struct segment *segment, uint32_t index)
{
    memmove(&segment->entries[index], &segment->entries[index + 1],
            (segment->count - index - 1) * sizeof segment->entries[0]);
    segment->count--;
}

static struct entry *entry_of(struct segment *segment, const struct write_id *write)
{
    for (uint32_t i = segment->count; i-- > 0;)
        if (segment->entries[i].write == write)
            return &segment->entries[i];
    return NULL;
}

/* Makes a segment begin at `offset` (at most the disk's size); returns its index. */
static size_t segment_split(struct checker_era *era, uint64_t offset)
{
    if (offset >= era->checker->size)
        return era->count;
    size_t index = segment_find(era, offset);
    if (era->segments[index].start == offset)
        return index;
    if (era->count == era->capacity) {
        era->capacity *= 2;
        era->segments = memory_resize(era->segments, era->capacity, sizeof era->segments[0]);
    }
    memmove(&era->segments[index + 2], &era->segments[index + 1], (era->count - index - 1) * sizeof era->segments[0]);
    era->count++;
    struct segment *left = &era->segments[index], *right = &era->segments[index + 1];
    *right = (struct segment){ .start = offset, .count = left->count, .capacity = left->count };
    right->entries = memory_copy(left->entries, left->count * sizeof left->entries[0]);
    return index + 1;
}

/* ---- eras ---- */

static bool dead_after_crash(const struct checker_era *era, const struct entry *entry)
{
    return entry->dead_durably || entry->dead < era->flushed_before;
}

/* The same, in the eyes of other eras: bytes that differ are gone for good. */
static bool lost_to_others(const struct checker_era *era, const struct entry *entry)
{
    if (entry->write->content == CONTENT_DATA)
        return dead_after_crash(era, entry);
    return entry->dead_durably_by_data || entry->dead_by_data < era->flushed_before;
}

static void era_free(struct checker_era *era)
{
    for (size_t i = 0; i < era->count; i++)
        free(era->segments[i].entries);
    free(era->segments);
    free(era);
}

static struct checker_era *era_new(struct checker *checker, uint64_t epoch)
{
    struct checker_era *era = memory_new(sizeof *era);
    era->checker = checker;
    era->epoch = epoch;
    era->capacity = 16;
    era->segments = memory_array(era->capacity, sizeof era->segments[0]);
    list_push_back(&checker->eras, &era->link);
    return era;
}

static void entry_add_initial(struct segment *segment, const struct entry *entry, uint64_t now)
{
    entry_add(segment, &(struct entry){ .write = entry->write,
                                        .end = entry->end < now ? entry->end : now,
                                        .done = NEVER,
                                        .dead = NEVER,
                                        .dead_by_data = NEVER,
                                        .initial = true });
}

/* The entries of `parent` that its end may leave as content, as the initial ones of `era`. */
static bool may_be_inherited(const struct checker_era *parent, const struct entry *entry)
{
    if (parent->twin == NULL)
        return !dead_after_crash(parent, entry);
    /* What one of the two has overwritten with the same, without a word to the store, the other one may leave. */
    return !lost_to_others(parent, entry) && !(parent->beaten && entry->write->invoked > parent->forked_at);
}

static void era_inherit(struct checker_era *era, struct checker_era *parent)
{
    uint64_t now = ++era->checker->clock;
    era->parent = parent;
    parent->has_children = true;
    era->capacity = parent->count < 16 ? 16 : parent->count;
    era->segments = memory_resize(era->segments, era->capacity, sizeof era->segments[0]);
    for (size_t i = 0; i < parent->count; i++) {
        const struct segment *from = &parent->segments[i];
        struct segment *to = &era->segments[era->count++];
        *to = (struct segment){ .start = from->start };
        for (uint32_t k = 0; k < from->count; k++) {
            const struct entry *entry = &from->entries[k];
            if (may_be_inherited(parent, entry))
                entry_add_initial(to, entry, now);
        }
        assert(to->count > 0 || parent->twin != NULL);
    }
}

/* What the clone of the parent may have left, too: of either, nobody knows whether it could write to the log. */
static void era_inherit_more(struct checker_era *era, struct checker_era *parent)
{
    uint64_t now = ++era->checker->clock;
    era->parent_too = parent;
    parent->has_children = true;
    for (size_t i = 0; i < parent->count; i++)
        segment_split(era, parent->segments[i].start);
    for (size_t i = 0; i < era->count; i++) {
        const struct segment *from = &parent->segments[segment_find(parent, era->segments[i].start)];
        for (uint32_t k = 0; k < from->count; k++)
            if (may_be_inherited(parent, &from->entries[k]) &&
                entry_of(&era->segments[i], from->entries[k].write) == NULL)
                entry_add_initial(&era->segments[i], &from->entries[k], now);
        assert(era->segments[i].count > 0);
    }
}

struct checker_era *checker_era(struct checker *checker, uint64_t epoch)
{
    struct checker_era *below = NULL;
    list_for_each (node, &checker->eras) {
        struct checker_era *era = container_of(node, struct checker_era, link);
        if (era->forked)
            continue;
        if (era->epoch == epoch)
            return era;
        if (era->epoch < epoch && (below == NULL || era->epoch > below->epoch))
            below = era;
    }
    assert(below != NULL);
    struct checker_era *era = era_new(checker, epoch);
    era_inherit(era, below);
    if (below->twin != NULL)
        era_inherit_more(era, below->twin);
    return era;
}

static struct checker_era *find_era(struct checker *checker, uint64_t epoch, bool forked)
{
    list_for_each (node, &checker->eras) {
        struct checker_era *era = container_of(node, struct checker_era, link);
        if (era->epoch == epoch && era->forked == forked)
            return era;
    }
    return NULL;
}

void checker_fork(struct checker *checker, uint64_t epoch)
{
    struct checker_era *era = checker_era(checker, epoch), *twin = era_new(checker, epoch);
    struct list link = twin->link;
    free(twin->segments);
    *twin = *era;
    twin->link = link;
    twin->segments = memory_array(era->capacity, sizeof era->segments[0]);
    for (size_t i = 0; i < era->count; i++) {
        twin->segments[i] = era->segments[i];
        twin->segments[i].capacity = era->segments[i].count;
        twin->segments[i].entries =
            memory_copy(era->segments[i].entries, era->segments[i].count * sizeof era->segments[i].entries[0]);
    }
    twin->forked = true;
    twin->twin = era;
    era->twin = twin;
    era->forked_at = twin->forked_at = ++checker->clock;
    list_for_each (node, &checker->eras) {
        struct checker_era *later = container_of(node, struct checker_era, link);
        if (later->parent == era)
            later->parent_too = twin;
    }
}

struct checker_era *checker_era_of_fork(struct checker *checker, uint64_t epoch)
{
    struct checker_era *era = find_era(checker, epoch, true);
    return era != NULL ? era : checker_era(checker, epoch);
}

static void end_unanswered(struct checker_era *era, bool only_lost)
{
    uint64_t now = ++era->checker->clock;
    for (size_t i = 0; i < era->count; i++) {
        struct segment *segment = &era->segments[i];
        for (uint32_t k = 0; k < segment->count; k++)
            if (segment->entries[k].end == NEVER && (segment->entries[k].write->lost || !only_lost))
                segment->entries[k].end = now;
    }
}

void checker_era_ended(struct checker_era *era)
{
    end_unanswered(era, false);
}

void checker_era_lost_are_over(struct checker_era *era)
{
    end_unanswered(era, true);
}

static bool era_descends(const struct checker_era *era, const struct checker_era *ancestor)
{
    for (; era->parent != NULL; era = era->parent)
        if (era->parent == ancestor || era->parent_too == ancestor)
            return true;
    return false;
}

/* Strikes `write` from the candidates that `era` began with on [start, end). */
static bool era_strike(struct checker_era *era, const struct write_id *write, uint64_t start, uint64_t end,
                       uint64_t owner_epoch, char *ret_story)
{
    for (size_t i = segment_split(era, start); i < era->count && era->segments[i].start < end; i++) {
        if (segment_end(era, i) > end)
            segment_split(era, end);
        struct segment *segment = &era->segments[i];
        for (uint32_t k = 0; k < segment->count; k++) {
            const struct entry *entry = &segment->entries[k];
            if (entry->write != write || !entry->initial)
                continue;
            if (entry->seen) {
                snprintf(ret_story, CHECKER_STORY_MAX,
                         "epoch %" PRIu64 " acknowledged as durable what overwrites write %" PRIu64 " at byte %" PRIu64
                         ", but epoch %" PRIu64 " has shown that write there: a flush was lost",
                         owner_epoch, write->id, segment->start, era->epoch);
                return false;
            }
            entry_remove(segment, k--);
        }
        if (segment->count == 0) {
            snprintf(ret_story, CHECKER_STORY_MAX,
                     "epoch %" PRIu64 " acknowledged something at byte %" PRIu64 " as durable that epoch %" PRIu64
                     " cannot have: it took over before that was written",
                     owner_epoch, segment->start, era->epoch);
            return false;
        }
    }
    return true;
}

/* Something became durable in an era that has successors: what is dead in it is no candidate of theirs. */
static bool era_tell_descendants(struct checker_era *era, char *ret_story)
{
    if (!era->has_children)
        return true;
    for (size_t i = 0; i < era->count; i++) {
        for (uint32_t k = 0; k < era->segments[i].count; k++) {
            const struct entry *entry = &era->segments[i].entries[k];
            if (!lost_to_others(era, entry))
                continue;
            list_for_each (node, &era->checker->eras) {
                struct checker_era *other = container_of(node, struct checker_era, link);
                if (era_descends(other, era) && !era_strike(other, entry->write, era->segments[i].start,
                                                            segment_end(era, i), era->epoch, ret_story))
                    return false;
            }
        }
    }
    return true;
}

/* Forgets entries that can neither be read nor come back. An era that has successors is kept whole for them. */
static void segment_prune(struct checker_era *era, struct segment *segment)
{
    if (era->has_children)
        return;
    const struct list *active = &era->checker->active;
    uint64_t oldest = list_empty(active) ? NEVER : container_of(active->next, struct checker_op, link)->invoked;
    for (uint32_t k = 0; k < segment->count; k++)
        if (segment->entries[k].dead < oldest && dead_after_crash(era, &segment->entries[k]))
            entry_remove(segment, k--);
    assert(segment->count > 0);
}

/* ---- the disk ---- */

static struct write_id *write_new(struct checker *checker, uint64_t offset, uint64_t length,
                                  enum checker_content content)
{
    if (checker->write_count == checker->write_capacity) {
        checker->write_capacity = checker->write_capacity == 0 ? 64 : checker->write_capacity * 2;
        checker->writes = memory_resize(checker->writes, checker->write_capacity, sizeof(struct write_id *));
    }
    struct write_id *write = memory_new(sizeof *write);
    write->id = checker->write_count;
    write->invoked = checker->clock;
    write->offset = offset;
    write->length = length;
    write->content = content;
    write->seed = hash_u64(hash_u64(checker->salt) + write->id);
    checker->writes[checker->write_count++] = write;
    return write;
}

struct checker *checker_new(uint64_t size, uint64_t salt)
{
    assert(size > 0);
    struct checker *checker = memory_new(sizeof *checker);
    checker->size = size;
    checker->salt = salt;
    list_init(&checker->eras);
    list_init(&checker->active);
    const struct write_id *blank = write_new(checker, 0, size, CONTENT_ZERO);
    struct checker_era *root = era_new(checker, 0);
    root->segments[root->count++] = (struct segment){ .start = 0 };
    entry_add(&root->segments[0], &(struct entry){ .write = blank, .dead = NEVER, .dead_by_data = NEVER });
    return checker;
}

void checker_free(struct checker *checker)
{
    if (checker == NULL)
        return;
    list_for_each_safe (op, &checker->active) {
        free(container_of(op, struct checker_op, link));
    }
    list_for_each_safe (era, &checker->eras) {
        era_free(container_of(era, struct checker_era, link));
    }
    for (size_t i = 0; i < checker->write_count; i++)
        free(checker->writes[i]);
    free(checker->writes);
    free(checker);
}

static struct checker_op *op_begin(struct checker_era *era, enum op_kind kind, uint64_t offset, uint64_t length)
{
    struct checker *checker = era->checker;
    assert(offset <= checker->size && length <= checker->size - offset);
    struct checker_op *op = memory_new(sizeof *op);
    op->era = era;
    op->kind = kind;
    op->invoked = ++checker->clock;
    op->offset = offset;
    op->length = length;
    list_push_back(&checker->active, &op->link);
    return op;
}

static void op_free(struct checker_op *op)
{
    list_remove(&op->link);
    free(op);
}

struct checker_op *checker_write_begin(struct checker_era *era, uint64_t offset, uint64_t length,
                                       enum checker_content content, bool fua)
{
    struct checker_op *op = op_begin(era, OP_WRITE, offset, length);
    op->write = write_new(era->checker, offset, length, content);
    op->fua = fua;
    if (length == 0)
        return op;
    segment_split(era, offset + length);
    for (size_t i = segment_split(era, offset); i < era->count && era->segments[i].start < offset + length; i++)
        entry_add(
            &era->segments[i],
            &(struct entry){ .write = op->write, .end = NEVER, .done = NEVER, .dead = NEVER, .dead_by_data = NEVER });
    return op;
}

struct checker_op *checker_read_begin(struct checker_era *era, uint64_t offset, uint64_t length)
{
    return op_begin(era, OP_READ, offset, length);
}

struct checker_op *checker_flush_begin(struct checker_era *era)
{
    return op_begin(era, OP_FLUSH, 0, 0);
}

static void entry_kill(struct entry *entry, uint64_t when, bool by_data)
{
    if (when < entry->dead)
        entry->dead = when;
    if (by_data && when < entry->dead_by_data)
        entry->dead_by_data = when;
}

/* `entry` is known to have taken effect by `when`: whatever ended before it was invoked is dead. */
static void segment_settle(struct segment *segment, struct entry *entry, uint64_t when)
{
    entry->end = when < entry->end ? when : entry->end;
    entry->done = when < entry->done ? when : entry->done;
    for (uint32_t k = 0; k < segment->count; k++)
        if (&segment->entries[k] != entry && segment->entries[k].end < entry->write->invoked)
            entry_kill(&segment->entries[k], entry->done, entry->write->content == CONTENT_DATA);
}

/* Strikes what came to `era` since the fork from all later ones. */
static bool era_strike_later(struct checker_era *era, struct checker_era *later, char *ret_story)
{
    for (size_t i = 0; i < era->count; i++) {
        for (uint32_t k = 0; k < era->segments[i].count; k++) {
            const struct write_id *write = era->segments[i].entries[k].write;
            if (write->invoked > era->forked_at &&
                !era_strike(later, write, era->segments[i].start, segment_end(era, i), era->epoch, ret_story))
                return false;
        }
    }
    return true;
}

/* Nothing that came to it since the fork is ever seen. */
static bool era_beaten(struct checker_era *era, char *ret_story)
{
    era->beaten = true;
    list_for_each (node, &era->checker->eras) {
        struct checker_era *later = container_of(node, struct checker_era, link);
        if (era_descends(later, era) && !era_strike_later(era, later, ret_story))
            return false;
    }
    return true;
}

/* Whether a flush that was sent then made something durable that came to `era` since the fork, and is still there: so
 * it has written to the log. */
static bool made_durable(const struct checker_era *era, uint64_t sent)
{
    for (size_t i = 0; i < era->count; i++) {
        for (uint32_t k = 0; k < era->segments[i].count; k++) {
            const struct entry *entry = &era->segments[i].entries[k];
            if (entry->write->content == CONTENT_DATA && entry->write->invoked > era->forked_at && entry->done < sent &&
                entry->dead == NEVER)
                return true;
        }
    }
    return false;
}

/* Of an owner and its clone, one alone can do that. */
static bool era_wins(struct checker_era *era, uint64_t sent, char *ret_story)
{
    if (era->twin == NULL || era->won || !made_durable(era, sent))
        return true;
    era->won = true;
    if (era->twin->won) {
        snprintf(ret_story, CHECKER_STORY_MAX,
                 "epoch %" PRIu64 ": its owner and the clone of it have both acknowledged flushes", era->epoch);
        return false;
    }
    return era->twin->beaten || era_beaten(era->twin, ret_story);
}

static bool era_flushed(struct checker_era *era, uint64_t sent, char *ret_story)
{
    if (sent > era->flushed_before)
        era->flushed_before = sent;
    return era_wins(era, sent, ret_story) && era_tell_descendants(era, ret_story);
}

bool checker_write_end(struct checker_op *op, char ret_story[CHECKER_STORY_MAX])
{
    assert(op->kind == OP_WRITE);
    struct checker_era *era = op->era;
    uint64_t now = ++era->checker->clock, invoked = op->invoked, end = op->offset + op->length;
    const struct write_id *write = op->write;
    bool fua = op->fua;
    if (op->length > 0) {
        for (size_t i = segment_find(era, op->offset); i < era->count && era->segments[i].start < end; i++) {
            struct segment *segment = &era->segments[i];
            struct entry *entry = entry_of(segment, write);
            if (entry != NULL)
                segment_settle(segment, entry, now);
            for (uint32_t k = 0; fua && k < segment->count; k++)
                if (segment->entries[k].end < write->invoked) {
                    segment->entries[k].dead_durably = true;
                    segment->entries[k].dead_durably_by_data |= write->content == CONTENT_DATA;
                }
        }
    }
    uint64_t offset = op->offset;
    bool any = op->length > 0;
    op_free(op);
    for (size_t i = segment_find(era, offset); any && i < era->count && era->segments[i].start < end; i++)
        segment_prune(era, &era->segments[i]);
    return !fua || era_flushed(era, invoked, ret_story);
}

bool checker_flush_end(struct checker_op *op, char ret_story[CHECKER_STORY_MAX])
{
    assert(op->kind == OP_FLUSH);
    struct checker_era *era = op->era;
    uint64_t invoked = op->invoked;
    ++era->checker->clock;
    op_free(op);
    return era_flushed(era, invoked, ret_story);
}

bool checker_era_released(struct checker *checker, uint64_t epoch, bool forked, char ret_story[CHECKER_STORY_MAX])
{
    struct checker_era *era = find_era(checker, epoch, forked);
    if (era == NULL && forked)
        era = find_era(checker, epoch, false);
    return era == NULL || era_flushed(era, ++checker->clock, ret_story); /* NULL: nobody was served */
}

void checker_fork_wrote(struct checker *checker, uint64_t epoch, bool forked)
{
    struct checker_era *era = find_era(checker, epoch, forked);
    if (era != NULL)
        era->wrote = true;
}

bool checker_fork_lost(struct checker *checker, uint64_t epoch, bool forked, char ret_story[CHECKER_STORY_MAX])
{
    struct checker_era *era = find_era(checker, epoch, forked);
    if (era == NULL || era->twin == NULL || era->beaten || era->wrote)
        return true;
    return era_beaten(era, ret_story);
}

void checker_op_failed(struct checker_op *op)
{
    struct checker_era *era = op->era;
    uint64_t now = ++era->checker->clock, end = op->offset + op->length;
    if (op->kind == OP_WRITE && op->length > 0) {
        for (size_t i = segment_find(era, op->offset); i < era->count && era->segments[i].start < end; i++) {
            struct entry *entry = entry_of(&era->segments[i], op->write);
            if (entry != NULL && entry->end == NEVER)
                entry->end = now;
        }
    }
    op_free(op);
}

void checker_op_lost(struct checker_op *op)
{
    ++op->era->checker->clock;
    if (op->kind == OP_WRITE)
        op->write->lost = true;
    op_free(op);
}

/* ---- reads ---- */

/* Tells in `ret_story` what stands there and what might. */
static void tell_mismatch(const struct checker_era *era, const struct segment *segment, uint64_t offset,
                          uint32_t length, const uint8_t *bytes, uint64_t began, char *ret_story)
{
    const struct checker *checker = era->checker;
    const struct write_id *found = NULL;
    for (size_t i = checker->write_count; i-- > 0 && found == NULL;)
        if (content_matches(checker->writes[i], offset, length, bytes))
            found = checker->writes[i];
    int at = snprintf(ret_story, CHECKER_STORY_MAX, "epoch %" PRIu64 ": bytes %" PRIu64 " + %" PRIu32 " hold ",
                      era->epoch, offset, length);
    if (found != NULL)
        at +=
            snprintf(ret_story + at, (size_t)(CHECKER_STORY_MAX - at),
                     "write %" PRIu64 " (%s; bytes %" PRIu64 " + %" PRIu64 ", invoked at %" PRIu64 ")", found->id,
                     found->content == CONTENT_ZERO ? "zeroes" : "data", found->offset, found->length, found->invoked);
    else
        at += snprintf(ret_story + at, (size_t)(CHECKER_STORY_MAX - at), "what nobody wrote (%02x %02x %02x %02x…)",
                       bytes[0], length > 1 ? bytes[1] : 0, length > 2 ? bytes[2] : 0, length > 3 ? bytes[3] : 0);
    at += snprintf(ret_story + at, (size_t)(CHECKER_STORY_MAX - at), "; read began at %" PRIu64 "; allowed:", began);
    for (uint32_t k = 0; k < segment->count && at < CHECKER_STORY_MAX - 80; k++) {
        const struct entry *entry = &segment->entries[k];
        if (entry->dead >= began)
            at += snprintf(ret_story + at, (size_t)(CHECKER_STORY_MAX - at), " write %" PRIu64 "%s", entry->write->id,
                           entry->write->content == CONTENT_ZERO ? " (zeroes)" : "");
    }
}

static bool entry_fits(const struct entry *entry, const struct observation *seen, uint64_t began)
{
    return entry->dead >= began && content_matches(entry->write, seen->start, seen->length, seen->bytes);
}

/* Finds which entries of `segment` fit the bytes; false when none does that is allowed. */
static bool observe_piece(const struct checker_era *era, const struct segment *segment, uint64_t began, uint64_t offset,
                          uint32_t length, const uint8_t *bytes, struct observation *ret_seen, char *ret_story)
{
    *ret_seen = (struct observation){ .start = offset, .end = offset + length, .length = length, .bytes = bytes };
    for (uint32_t k = segment->count; k-- > 0;) {
        if (!entry_fits(&segment->entries[k], ret_seen, began))
            continue;
        ret_seen->matches++;
        ret_seen->match = k;
        ret_seen->digest += hash_u64(k + UINT64_C(1));
    }
    if (ret_seen->matches > 0)
        return true;
    tell_mismatch(era, segment, offset, length, bytes, began, ret_story);
    return false;
}

static bool covers(const struct write_id *write, const struct observation *seen)
{
    return write->offset <= seen->start && seen->end <= write->offset + write->length;
}

/* Two pieces of one page in one read: whether one write shows in `a` and is missing in `b`. */
static bool pieces_torn(struct checker_era *era, const struct observation *a, const struct observation *b)
{
    if (a->matches != 1 || b->matches != 1)
        return false;
    struct segment *segment_b = &era->segments[segment_find(era, b->start)];
    const struct write_id *x = era->segments[segment_find(era, a->start)].entries[a->match].write;
    const struct entry *y = &segment_b->entries[b->match];
    if (x == y->write || !covers(x, b))
        return false;
    return y->end < x->invoked || covers(y->write, a);
}

static bool page_torn(struct checker_era *era, const struct observation *pieces, size_t count, char *ret_story)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            if (i == k || !pieces_torn(era, &pieces[i], &pieces[k]))
                continue;
            const struct segment *a = &era->segments[segment_find(era, pieces[i].start)];
            const struct segment *b = &era->segments[segment_find(era, pieces[k].start)];
            snprintf(ret_story, CHECKER_STORY_MAX,
                     "epoch %" PRIu64 ": torn page: byte %" PRIu64 " holds write %" PRIu64 ", but byte %" PRIu64
                     " of the same page, which that write covers, holds write %" PRIu64,
                     era->epoch, pieces[i].start, a->entries[pieces[i].match].write->id, pieces[k].start,
                     b->entries[pieces[k].match].write->id);
            return true;
        }
    }
    return false;
}

static struct observation *observations_add(struct observations *all)
{
    if (all->count == all->capacity) {
        all->capacity = all->capacity == 0 ? 16 : all->capacity * 2;
        all->items = memory_resize(all->items, all->capacity, sizeof all->items[0]);
    }
    return &all->items[all->count++];
}

/* First pass: compares, changes nothing. */
static bool read_compare(struct checker_era *era, const struct checker_op *op, const uint8_t *bytes,
                         struct observations *ret_all, char *ret_story)
{
    uint64_t end = op->offset + op->length;
    for (uint64_t page = op->offset; page < end;) {
        uint64_t page_end = page + in_page(page, end);
        size_t first = ret_all->count;
        for (uint64_t at = page; at < page_end;) {
            size_t index = segment_find(era, at);
            uint64_t stop = segment_end(era, index) < page_end ? segment_end(era, index) : page_end;
            struct observation seen;
            if (!observe_piece(era, &era->segments[index], op->invoked, at, (uint32_t)(stop - at),
                               bytes + (at - op->offset), &seen, ret_story))
                return false;
            *observations_add(ret_all) = seen;
            at = stop;
        }
        if (page_torn(era, ret_all->items + first, ret_all->count - first, ret_story))
            return false;
        page = page_end;
    }
    return true;
}

/* Whether the observation tells anything that the segment's entries do not say yet. */
static bool observation_is_news(const struct segment *segment, const struct observation *seen, uint64_t began)
{
    if (seen->matches == 1) {
        const struct entry *match = &segment->entries[seen->match];
        if (match->done == NEVER || match->end == NEVER || (match->initial && !match->seen))
            return true;
    }
    for (uint32_t k = 0; k < segment->count; k++)
        if (segment->entries[k].end < began && segment->entries[k].dead == NEVER &&
            !entry_fits(&segment->entries[k], seen, began))
            return true;
    return false;
}

/* Second pass, for one observation that has a segment of its own by now. */
static void observation_apply(struct segment *segment, const struct observation *seen, uint64_t began, uint64_t now)
{
    bool by_data = seen->matches == 1 && segment->entries[seen->match].write->content == CONTENT_DATA;
    bool all_initial = true;
    for (uint32_t k = 0; k < segment->count; k++)
        if (entry_fits(&segment->entries[k], seen, began))
            all_initial = all_initial && segment->entries[k].initial;
    /* Where only initial entries fit, the era began with one of them: the others never were its content. */
    for (uint32_t k = segment->count; k-- > 0;) {
        struct entry *entry = &segment->entries[k];
        if (entry_fits(entry, seen, began))
            continue;
        if (all_initial && entry->initial)
            entry_remove(segment, k);
        else if (entry->end < began)
            entry_kill(entry, now, by_data);
    }
    if (seen->matches != 1)
        return;
    for (uint32_t k = 0; k < segment->count; k++) {
        struct entry *entry = &segment->entries[k];
        if (entry_fits(entry, seen, began)) {
            entry->seen = entry->initial;
            segment_settle(segment, entry, now);
            return;
        }
    }
}

bool checker_read_end(struct checker_op *op, const uint8_t *bytes, char ret_story[CHECKER_STORY_MAX])
{
    assert(op->kind == OP_READ);
    struct checker_era *era = op->era;
    struct checker *checker = era->checker;
    uint64_t now = ++checker->clock, began = op->invoked;
    struct observations all = { .items = NULL };
    bool fine = read_compare(era, op, bytes, &all, ret_story);
    op_free(op);
    for (size_t i = 0; fine && i < all.count;) {
        struct observation seen = all.items[i++];
        size_t index = segment_find(era, seen.start);
        while (i < all.count && all.items[i].start < segment_end(era, index) && all.items[i].matches == seen.matches &&
               all.items[i].digest == seen.digest)
            seen.end = all.items[i++].end;
        if (!observation_is_news(&era->segments[index], &seen, began))
            continue;
        segment_split(era, seen.end);
        index = segment_split(era, seen.start);
        observation_apply(&era->segments[index], &seen, began, now);
        segment_prune(era, &era->segments[index]);
    }
    free(all.items);
    return fine;
}

void checker_touched(const struct checker *checker, void (*visit)(void *arg, uint64_t offset, uint64_t length),
                     void *arg)
{
    const struct checker_era *latest = NULL;
    list_for_each (node, &checker->eras) {
        const struct checker_era *era = container_of(node, struct checker_era, link);
        if (latest == NULL || era->epoch > latest->epoch)
            latest = era;
    }
    for (size_t i = 0; i < latest->count;) {
        uint64_t start = latest->segments[i].start;
        size_t past = i;
        while (past < latest->count &&
               (latest->segments[past].count != 1 || latest->segments[past].entries[0].write->id != 0))
            past++;
        if (past > i)
            visit(arg, start, (past < latest->count ? latest->segments[past].start : checker->size) - start);
        i = past > i ? past : i + 1;
    }
}
