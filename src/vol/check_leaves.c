/* Mids and leaves of a root, a few mids at a time.
 *
 * A frame may hold leaves that nothing names any more, beside those that are
 * named: only of these anything is asked but that the frame as a whole is sound.
 *
 * It is walked once to count, and again for each lot of objects whose pages are
 * read (check_frames.c), since all runs of a large disk at once would be too
 * many to remember. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/check_internal.h"

struct leaf_walking {
    struct piece_reading reading; /* first: the arg of a parts reader */
    bool count;
    check_visit_leaf *visit;
    void *arg;
    uint64_t disk_pages;
    struct part *leaves; /* named by the mids at hand */
    size_t leaf_count, leaf_capacity;
};

/* ---- leaves ---- */

/* The first of its runs that cannot be. */
static const char *judge_runs(const struct leaf_walking *walking, const struct leaf *leaf, uint64_t *ret_object)
{
    const struct check_root *root = walking->reading.root;
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *run = &leaf->runs[i];
        const struct check_row *row = check_root_row(root, run->object);
        *ret_object = run->object;
        if (leaf->number * LEAF_PAGES + run->first + run->count > walking->disk_pages)
            return "whose pages are beyond the end of the disk";
        if (row == NULL)
            return "which is in no list";
        if (row->role != ROLE_PAGES)
            return "which holds no pages of the disk";
        /* Of a log entry the row has the length of its frames; where they begin is seen when the log is read. */
        if (row->kind == OBJECT_DATA && ((uint64_t)run->start + run->units) * FRAME_UNIT > row->bytes)
            return "which ends before";
    }
    return NULL;
}

static void judge_leaf(struct leaf_walking *walking, const struct leaf *leaf, const char *key,
                       const struct frame_place *place)
{
    struct check_root *root = walking->reading.root;
    uint64_t object;
    const char *wrong = judge_runs(walking, leaf, &object);
    if (wrong == NULL) {
        walking->visit(walking->arg, root, leaf);
        return;
    }
    if (root->whole)
        check_found(walking->reading.checking, CHECK_INCONSISTENT, key,
                    "at byte %" PRIu64 ": leaf %" PRIu64 " names object %" PRIu64 ", %s", place->offset, leaf->number,
                    object, wrong);
    root->whole = false;
}

static void take_leaves(void *arg, const struct part *parts, size_t count, const struct frame_place *place,
                        const char *key, const uint8_t *bytes)
{
    struct leaf_walking *walking = arg;
    struct checking *checking = walking->reading.checking;
    struct frame_header header;
    const uint8_t *payload;
    struct leaves_frame frame;
    struct error error = ERROR_NONE;
    int status = check_frame(bytes, parts[0].units, place, FRAME_LEAVES, &header, &payload, &error);
    if (status == 0 && (status = leaves_decode(payload, header.stored_bytes, &frame, &error)) < 0)
        error_context(&error, "at byte %" PRIu64, place->offset);
    if (status < 0) {
        check_judge(checking, key, status, &error);
        walking->reading.root->whole = false;
        return;
    }
    uint32_t at = 0; /* parts of one frame ascend by the number of the leaf */
    for (size_t i = 0; i < count; i++) {
        while (at < frame.leaf_count && frame.leaves[at].number < parts[i].what)
            at++;
        if (at < frame.leaf_count && frame.leaves[at].number == parts[i].what) {
            judge_leaf(walking, &frame.leaves[at], key, place);
            continue;
        }
        check_found(checking, CHECK_INCONSISTENT, key, "at byte %" PRIu64 ": leaf %" PRIu64 " is not in this frame",
                    place->offset, parts[i].what);
        walking->reading.root->whole = false;
    }
    leaves_frame_free(&frame);
}

/* ---- mids ---- */

static void add_leaf(struct leaf_walking *walking, uint64_t number, const struct piece_place *place)
{
    struct check_root *root = walking->reading.root;
    if (walking->count) {
        if (!check_count_piece(walking->reading.checking, root, "leaf", number, place))
            return;
        walking->reading.checking->counts->pieces++;
    } else if (check_root_row(root, place->object) == NULL) {
        return;
    }
    if (walking->leaf_count == walking->leaf_capacity) {
        walking->leaf_capacity = walking->leaf_capacity == 0 ? MID_LEAVES : 2 * walking->leaf_capacity;
        walking->leaves = memory_resize(walking->leaves, walking->leaf_capacity, sizeof *walking->leaves);
    }
    walking->leaves[walking->leaf_count++] = (struct part){ place->object, place->start, place->units, number };
}

static void take_mid(void *arg, const struct part *parts, size_t count, const struct frame_place *place,
                     const char *key, const uint8_t *bytes)
{
    struct leaf_walking *walking = arg;
    struct frame_header header;
    const uint8_t *payload;
    struct mid_frame mid = { .slot_count = 0 };
    struct error error = ERROR_NONE;
    int status = check_frame(bytes, parts[0].units, place, FRAME_MIDS, &header, &payload, &error);
    if (status == 0 && (status = mid_decode(payload, header.stored_bytes, &mid, &error)) < 0)
        error_context(&error, "at byte %" PRIu64, place->offset);
    if (status == 0 && (count > 1 || mid.number != parts[0].what))
        status = error_set(&error, EBADMSG, "at byte %" PRIu64 ": it is mid %" PRIu64 ", and by what names it %" PRIu64,
                           place->offset, mid.number, parts[count - 1].what);
    if (status < 0) {
        check_judge(walking->reading.checking, key, status, &error);
        walking->reading.root->whole = false;
    }
    for (uint32_t i = 0; i < mid.slot_count && status == 0; i++)
        add_leaf(walking, mid.number * MID_LEAVES + mid.slots[i].leaf, &mid.slots[i].place);
    mid_frame_free(&mid);
}

/* Those that can be where the root says. */
static size_t list_mids(const struct leaf_walking *walking, uint32_t first, struct part parts[CHECK_MIDS_AT_ONCE])
{
    struct check_root *root = walking->reading.root;
    size_t count = 0;
    for (uint32_t i = first; i < root->frame.mid_count && i < first + CHECK_MIDS_AT_ONCE; i++) {
        const struct root_mid *mid = &root->frame.mids[i];
        if (walking->count ? check_count_piece(walking->reading.checking, root, "mid", mid->number, &mid->place)
                           : check_root_row(root, mid->place.object) != NULL)
            parts[count++] = (struct part){ mid->place.object, mid->place.start, mid->place.units, mid->number };
    }
    if (walking->count)
        walking->reading.checking->counts->pieces += count;
    return count;
}

void check_leaves_walk(struct checking *checking, struct check_root *root, bool count, check_visit_leaf *visit,
                       void *arg)
{
    struct leaf_walking walking = { .reading = { .checking = checking, .root = root },
                                    .count = count,
                                    .visit = visit,
                                    .arg = arg,
                                    .disk_pages = (root->frame.size + PAGE_BYTES - 1) / PAGE_BYTES };
    const struct parts_reader mids = {
        .place = check_place_of_piece, .take = take_mid, .failed = check_piece_failed, .arg = &walking
    };
    struct parts_reader leaves = mids;
    leaves.take = take_leaves;
    struct part *parts = memory_array(CHECK_MIDS_AT_ONCE, sizeof *parts);
    for (uint32_t i = 0; i < root->frame.mid_count && checking->status == 0; i += CHECK_MIDS_AT_ONCE) {
        parts_read(checking, &mids, parts, list_mids(&walking, i, parts));
        parts_read(checking, &leaves, walking.leaves, walking.leaf_count);
        walking.leaf_count = 0;
        checking->check->progress(checking->check->arg, count ? "mids" : "mids again", i, root->frame.mid_count);
    }
    free(parts);
    free(walking.leaves);
}
