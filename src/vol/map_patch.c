/* Patches: changes of leaves that are not in memory.
 *
 * A patch is for some blocks of a leaf what a leaf is for all: an entry, with
 * what is mapped now; and a bitmap of the pages that were touched, so that a
 * page that was cleared is told from one that nobody changed.  A later change
 * of the same page finds the earlier one in the entry and gives it back, as in
 * a leaf; what the stored leaf has there is given back when it arrives.
 *
 * During a snapshot, a patch that was there at its begin is the snapshot's, and
 * folding goes on with a second one above it.  The upper one hides pages of the
 * lower one, which are given back for the newest state at that moment.  So,
 * whatever happens, these are still owed for a page of the stored leaf when it
 * arrives:
 *
 *     touched by the lower one         the snapshot and the newest state (CHARGE_BOTH)
 *     by the upper one, or any alone
 *     that is not the snapshot's       the newest state (CHARGE_NEWEST)
 *     by both                          as by the lower one; the upper one replaced that
 *     by none                          nothing: the page is mapped still
 *
 * A leaf that was dropped whole while the snapshot has a patch of it is as if
 * there were an upper patch that touches all. */
#include <stdlib.h>

#include "base/memory.h"
#include "vol/map_internal.h"

static size_t patch_bytes(uint32_t blocks)
{
    return sizeof(struct patch) + blocks * sizeof(struct patch_block);
}

struct patch *patch_new(struct map *map, uint64_t place, struct patch *under)
{
    struct patch *patch = memory_new(patch_bytes(0));
    patch->body.place = place;
    patch->under = under;
    body_grow(map, &patch->body, patch_bytes(0));
    map->patches++;
    return patch;
}

void patch_free(struct map *map, struct patch *patch)
{
    for (uint32_t i = 0; i < patch->block_count; i++)
        block_free(map, &patch->body, patch->blocks[i].entry);
    body_shrink(map, &patch->body, patch_bytes(patch->block_count));
    assert(patch->body.bytes == 0);
    map->patches--;
    free(patch);
}

static const struct patch_block *block_find(const struct patch *patch, uint32_t block)
{
    for (uint32_t i = 0; i < patch->block_count; i++)
        if (patch->blocks[i].block == block)
            return &patch->blocks[i];
    return NULL;
}

static struct patch_block *block_make(struct map *map, struct patch **patch, uint32_t block)
{
    const struct patch_block *there = block_find(*patch, block);
    if (there != NULL)
        return &(*patch)->blocks[there - (*patch)->blocks];
    uint32_t at = (*patch)->block_count;
    *patch = memory_resize(*patch, 1, patch_bytes(at + 1));
    (*patch)->block_count++;
    (*patch)->blocks[at] = (struct patch_block){ .entry = HOLE, .block = block };
    body_grow(map, &(*patch)->body, sizeof(struct patch_block));
    return &(*patch)->blocks[at];
}

/* Pages that the patch hides from now on; what the one under it maps there goes. */
static struct patch_block *touch(struct map *map, struct patch **patch, uint32_t block, uint32_t pages)
{
    struct patch_block *touched = block_make(map, patch, block);
    const struct patch *under = (*patch)->under;
    const struct patch_block *hidden = under == NULL ? NULL : block_find(under, block);
    if (hidden != NULL)
        block_charge(map, hidden->entry, pages & ~touched->touched, CHARGE_NEWEST);
    touched->touched |= pages;
    return touched;
}

void patch_set(struct map *map, struct patch **patch, uint32_t page, uint32_t count, const struct location *first)
{
    uint32_t in_block = page % BLOCK_PAGES;
    struct patch_block *block = touch(map, patch, page / BLOCK_PAGES, bits_of(in_block, count));
    block_set(map, &(*patch)->body, &block->entry, in_block, count, first);
}

void patch_clear(struct map *map, struct patch **patch, uint32_t from, uint32_t past)
{
    while (from < past) {
        uint32_t base = from / BLOCK_PAGES * BLOCK_PAGES;
        uint32_t to = past < base + BLOCK_PAGES ? past : base + BLOCK_PAGES;
        struct patch_block *block = touch(map, patch, base / BLOCK_PAGES, bits_of(from - base, to - from));
        block_clear(map, &(*patch)->body, &block->entry, from - base, to - base);
        from = to;
    }
}

uint32_t patch_touched(const struct patch *patch, uint32_t block)
{
    uint32_t touched = 0;
    for (; patch != NULL; patch = patch->under) {
        const struct patch_block *found = block_find(patch, block);
        touched |= found == NULL ? 0 : found->touched;
    }
    return touched;
}

void patch_charge(struct map *map, const struct patch *patch)
{
    for (uint32_t i = 0; i < patch->block_count; i++)
        block_charge(map, patch->blocks[i].entry, UINT32_MAX, CHARGE_NEWEST);
    const struct patch *under = patch->under;
    for (uint32_t i = 0; under != NULL && i < under->block_count; i++) {
        const struct patch_block *hidden = block_find(patch, under->blocks[i].block);
        block_charge(map, under->blocks[i].entry, hidden == NULL ? UINT32_MAX : ~hidden->touched, CHARGE_NEWEST);
    }
}

void patch_apply(struct map *map, const struct patch *patch, struct map_leaf *leaf)
{
    for (uint32_t i = 0; i < patch->block_count; i++) {
        const struct patch_block *block = &patch->blocks[i];
        struct run runs[RUNS_MAX], added[RUNS_MAX];
        uint32_t count = block_read(leaf->entries[block->block], runs);
        for (uint32_t left = block->touched; left != 0;) {
            uint32_t first = lowest_bit(left), past = lowest_bit(~left & ~bits_through(first));
            count = cut_runs(map, runs, count, first, past, CHARGE_NOBODY);
            left &= ~bits_of(first, past - first);
        }
        uint32_t added_count = block_read(block->entry, added);
        for (uint32_t j = 0; j < added_count; j++)
            count = insert_run(runs, count, &added[j]);
        block_write(map, &leaf->body, &leaf->entries[block->block], runs, count);
    }
}
