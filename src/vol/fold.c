/* Folding: a commit's whole table becomes part of map and object table.
 *
 * The same for a commit just made and for one replayed from the log, so that a
 * volume which was taken over stands exactly where its last owner stood.  All
 * extents are folded in, also of pages that were written again since: the map
 * shows committed content and nothing else, the dirty index lies above it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/checkpoint.h"
#include "vol/internal.h"

static int add_objects(struct volume *volume, const struct entry *entry, uint32_t *indexes, struct error *error)
{
    bool rides = false;
    for (uint32_t i = 0; i < entry->extent_count && !rides; i++)
        rides = entry->extents[i].kind == EXTENT_PAGES && entry->extents[i].object == 0;
    for (uint32_t i = 0; i <= entry->object_count; i++) {
        struct object row = { .id = entry->object_id + i,
                              .role = ROLE_PAGES,
                              .uuid = entry->uuid,
                              .born = entry->seq,
                              .died = OBJECT_ALIVE };
        if (i == 0) {
            if (!rides)
                continue;
            row.kind = OBJECT_LOG;
            row.seq = entry->seq;
            row.total_bytes = entry->inline_bytes;
        } else {
            row.kind = OBJECT_DATA;
            row.epoch = entry->objects[i - 1].epoch;
            row.n = entry->objects[i - 1].n;
            row.total_bytes = entry->objects[i - 1].bytes;
        }
        int status = object_table_add(volume->objects, &row, &indexes[i]);
        if (status == -EEXIST)
            return error_set(error, EBADMSG, "log entry %llu: makes object %llu, which is there already",
                             (unsigned long long)entry->seq, (unsigned long long)row.id);
        if (status < 0)
            return error_set(error, ENOSPC, "%s has more than %u objects: this release can't hold it", volume->subject,
                             OBJECT_INDEX_MAX);
    }
    return 0;
}

static bool beyond_the_disk(const struct volume *volume, const struct commit_extent *extent)
{
    return extent->page >= volume->pages || extent->count > volume->pages - extent->page;
}

/* What the codec leaves to us: that extents fit the disk, and that all extents of a frame agree about it.  Frames of
 * one object come in the order of their pages. */
static int check_extents(const struct volume *volume, const struct entry *entry, struct error *error)
{
    const struct commit_extent **last = memory_array((size_t)entry->object_count + 1, sizeof(struct commit_extent *));
    const char *wrong = NULL;
    for (uint32_t i = 0; i < entry->extent_count && wrong == NULL; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        if (beyond_the_disk(volume, extent))
            wrong = "lies behind the end of the disk";
        if (extent->kind != EXTENT_PAGES || wrong != NULL)
            continue;
        const struct commit_extent *before = last[extent->object];
        last[extent->object] = extent;
        if (extent->units * FRAME_UNIT != frame_total_bytes(extent->frame_pages * PAGE_BYTES))
            wrong = "names a frame of the wrong length";
        else if (before == NULL)
            continue;
        else if (before->start == extent->start)
            wrong = before->frame_pages == extent->frame_pages ? NULL : "contradicts another one of the same frame";
        else if (extent->start < before->start + before->units)
            wrong = "names a frame that overlaps another one";
    }
    free(last);
    if (wrong != NULL)
        return error_set(error, EBADMSG, "log entry %llu: an extent %s", (unsigned long long)entry->seq, wrong);
    return 0;
}

/* Whether the disk's newest content of the extent's first page is another one than this commit's. */
static bool superseded(const struct volume *volume, const struct commit_extent *extent)
{
    const struct page *page = dirty_page(volume->dirty, extent->page);
    return page != NULL && page->batch == volume->open;
}

int fold_entry(struct volume *volume, const struct entry *entry, const uint8_t hash[SHA256_BYTES], struct error *error)
{
    uint32_t *indexes = memory_array((size_t)entry->object_count + 1, sizeof *indexes);
    int status = check_extents(volume, entry, error);
    if (status == 0)
        status = add_objects(volume, entry, indexes, error);
    if (status < 0) {
        free(indexes);
        return status;
    }
    object_table_set_seq(volume->objects, entry->seq);
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        if (MUTANT(skip_fold_during_snapshot) && checkpoint_is_under_way(volume))
            continue;
        if (extent->kind == EXTENT_ZERO) {
            map_clear(volume->map, extent->page, extent->count);
            continue;
        }
        if (MUTANT(fold_newest_only) && superseded(volume, extent))
            continue;
        struct location location = { .object = indexes[extent->object],
                                     .start = extent->start,
                                     .units = extent->units,
                                     .frame_page = (uint8_t)extent->frame_page,
                                     .frame_pages = (uint8_t)extent->frame_pages };
        map_set(volume->map, extent->page, (uint32_t)extent->count, &location);
    }
    free(indexes);
    object_table_forget_dead(volume->objects);
    budget_charge_map(volume);
    volume->committed_bytes += entry->inline_bytes;
    for (uint32_t i = 0; i < entry->object_count; i++)
        volume->committed_bytes += entry->objects[i].bytes;
    volume->committed_seq = entry->seq;
    volume->next_object_id = entry->object_id + 1 + (MUTANT(object_ids_recur) ? 0 : entry->object_count);
    memcpy(volume->chain, hash, SHA256_BYTES);
    return 0;
}
