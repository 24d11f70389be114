/* Pages: every frame that is in use is read, verified, and compared with what
 * names it.
 *
 * Those of the newest checkpoint are named by its leaves, in the order of the
 * disk.  They are read in the order in which they lie, or each page of a disk
 * that was written at random would take a request of its own.  All runs at once
 * may be too many to remember: so the leaves are walked again for each lot of
 * objects that together hold a bounded number of pages.
 *
 * What was written since is named by log entries, and read with them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/check_internal.h"

/* Pages of the disk, and which of their frame's they are: in a part's `what`. */
struct run {
    uint64_t page;
    uint32_t count, frame_page, frame_pages;
};

static uint64_t run_pack(const struct run *run)
{
    return run->page << 15 | (uint64_t)(run->count - 1) << 10 | (uint64_t)run->frame_page << 5 |
           (uint64_t)(run->frame_pages - 1);
}

static struct run run_unpack(uint64_t packed)
{
    return (struct run){ .page = packed >> 15,
                         .count = (uint32_t)(packed >> 10 & 31) + 1,
                         .frame_page = (uint32_t)(packed >> 5 & 31),
                         .frame_pages = (uint32_t)(packed & 31) + 1 };
}

/* ---- a frame ---- */

static bool frame_has(const struct frame_header *header, const struct run *run)
{
    if (header->block != run->page / BLOCK_PAGES || run->frame_pages != (uint32_t)__builtin_popcount(header->pages))
        return false;
    uint32_t position = 0; /* of a page in the frame */
    for (uint32_t page = 0; page < BLOCK_PAGES; page++) {
        if ((header->pages & UINT32_C(1) << page) == 0)
            continue;
        bool wanted = position >= run->frame_page && position < run->frame_page + run->count;
        if (wanted && page != run->page % BLOCK_PAGES + (position - run->frame_page))
            return false;
        position++;
    }
    return true;
}

static void judge_frame(struct checking *checking, const struct part *parts, size_t count,
                        const struct frame_place *place, const char *key, const uint8_t *bytes)
{
    struct frame_header header;
    const uint8_t *payload;
    struct error error = ERROR_NONE;
    int status = check_frame(bytes, parts[0].units, place, FRAME_PAGES, &header, &payload, &error);
    checking->counts->frames++;
    checking->counts->frame_bytes += (uint64_t)parts[0].units * FRAME_UNIT;
    if (status < 0) {
        check_judge(checking, key, status, &error);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct run run = run_unpack(parts[i].what);
        if (!frame_has(&header, &run))
            check_found(checking, CHECK_INCONSISTENT, key,
                        "at byte %" PRIu64 ": frame: it does not have page %" PRIu64
                        " of the disk where it should, %" PRIu32 " pages from position %" PRIu32 " of %" PRIu32,
                        place->offset, run.page, run.count, run.frame_page, run.frame_pages);
    }
}

/* ---- the newest checkpoint ---- */

struct lot {
    struct checking *checking;
    struct check_root *root;
    uint32_t first, past; /* rows */
    struct part *parts;
    size_t count, capacity;
};

static void collect_runs(void *arg, struct check_root *root, const struct leaf *leaf)
{
    struct lot *lot = arg;
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *at = &leaf->runs[i];
        uint32_t row = id_hash_find(&root->by_id, at->object);
        if (row < lot->first || row >= lot->past)
            continue;
        if (lot->count == lot->capacity) {
            lot->capacity = lot->capacity == 0 ? 4096 : 2 * lot->capacity;
            lot->parts = memory_resize(lot->parts, lot->capacity, sizeof *lot->parts);
        }
        struct run run = { .page = leaf->number * LEAF_PAGES + at->first,
                           .count = at->count,
                           .frame_page = at->frame_page,
                           .frame_pages = at->frame_pages };
        lot->parts[lot->count++] = (struct part){ at->object, at->start, at->units, run_pack(&run) };
    }
}

static void place_in_root(void *arg, uint64_t object, struct frame_place *ret_place, char ret_key[KEY_MAX])
{
    struct lot *lot = arg;
    check_row_place(lot->checking, check_root_row(lot->root, object), ret_place, ret_key);
}

static void take_in_root(void *arg, const struct part *parts, size_t count, const struct frame_place *place,
                         const char *key, const uint8_t *bytes)
{
    struct lot *lot = arg;
    judge_frame(lot->checking, parts, count, place, key, bytes);
}

void check_frames_of_root(struct checking *checking)
{
    struct check_root *root = &checking->roots[0];
    struct lot lot = { .checking = checking, .root = root };
    const struct parts_reader reader = {
        .place = place_in_root, .take = take_in_root, .arg = &lot, .what = "frames of pages"
    };
    if (!root->readable)
        return;
    while (lot.past < root->row_count && checking->status == 0) {
        uint64_t pages = 0;
        for (lot.first = lot.past; lot.past < root->row_count; lot.past++) {
            const struct check_row *row = &root->rows[lot.past];
            pages += row->role == ROLE_PAGES ? row->counted : 0;
            if (pages > CHECK_RUNS_AT_ONCE && lot.past > lot.first)
                break;
        }
        lot.count = 0;
        if (pages > 0)
            check_leaves_walk(checking, root, false, collect_runs, &lot);
        parts_read(checking, &reader, lot.parts, lot.count);
    }
    free(lot.parts);
}

/* ---- a log entry ---- */

struct entry_frames {
    struct checking *checking;
    const struct entry *entry;
};

static void place_in_entry(void *arg, uint64_t object, struct frame_place *ret_place, char ret_key[KEY_MAX])
{
    const struct entry *entry = ((struct entry_frames *)arg)->entry;
    struct frame_place place = { .uuid = entry->uuid, .kind = object == 0 ? OBJECT_LOG : OBJECT_DATA };
    if (object == 0) {
        place.seq = entry->seq;
        key_log(&place.uuid, place.seq, ret_key);
    } else {
        place.epoch = entry->objects[object - 1].epoch;
        place.n = entry->objects[object - 1].n;
        key_data(&place.uuid, place.epoch, place.n, ret_key);
    }
    *ret_place = place;
}

static void take_in_entry(void *arg, const struct part *parts, size_t count, const struct frame_place *place,
                          const char *key, const uint8_t *bytes)
{
    judge_frame(((struct entry_frames *)arg)->checking, parts, count, place, key, bytes);
}

void check_frames_of_entry(struct checking *checking, const struct entry *entry)
{
    struct entry_frames frames = { .checking = checking, .entry = entry };
    const struct parts_reader reader = { .place = place_in_entry, .take = take_in_entry, .arg = &frames };
    struct part *parts = memory_array((size_t)entry->extent_count + 1, sizeof *parts);
    size_t count = 0;
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        if (extent->kind != EXTENT_PAGES)
            continue;
        struct run run = { .page = extent->page,
                           .count = (uint32_t)extent->count,
                           .frame_page = extent->frame_page,
                           .frame_pages = extent->frame_pages };
        parts[count++] = (struct part){ extent->object, extent->start, extent->units, run_pack(&run) };
    }
    parts_read(checking, &reader, parts, count);
    free(parts);
}
