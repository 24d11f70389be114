/* Whether map and object table agree with themselves and each other: for tests.
 *
 * What is counted while folding goes on, change by change, is counted here once
 * more from what there is: for the newest state from slots, patches, doomed
 * leaves, and what is owed on account of a snapshot; for the snapshot from its
 * places, its frozen leaves and what was doomed before it. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/map_internal.h"

struct tally {
    const struct map *map;
    const struct map_audit *audit;
    uint32_t *newest, *snapshot; /* live counts by index */
    uint32_t rows;               /* of the arrays */
    uint64_t leaf_bytes, clean_bytes, patches;
};

static void count_row(void *arg, uint32_t index, const struct object *object)
{
    struct tally *tally = arg;
    tally->rows = index + 1;
}

/* ---- what is mapped ---- */

static void add_entry(uint32_t *counts, uint64_t entry, uint32_t pages)
{
    struct run runs[RUNS_MAX];
    uint32_t count = block_read(entry, runs);
    for (uint32_t i = 0; i < count; i++)
        counts[runs[i].location.object] += (uint32_t)__builtin_popcount(pages & bits_of(runs[i].first, runs[i].count));
}

static void add_leaf(uint32_t *counts, const struct map_leaf *leaf)
{
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        add_entry(counts, leaf->entries[i], UINT32_MAX);
}

/* What the patch maps, without what `above` hides of it. */
static void add_patch(uint32_t *counts, const struct patch *patch, const struct patch *above)
{
    for (uint32_t i = 0; i < patch->block_count; i++) {
        uint32_t hidden = 0;
        for (uint32_t j = 0; above != NULL && j < above->block_count; j++)
            if (above->blocks[j].block == patch->blocks[i].block)
                hidden = above->blocks[j].touched;
        add_entry(counts, patch->blocks[i].entry, ~hidden);
    }
}

static void add_piece(uint32_t *counts, uint64_t place)
{
    if (place != HOLE)
        counts[place_unpack(place).object]++;
}

static void add_stored(const struct tally *tally, uint32_t *counts, uint64_t place, uint64_t number)
{
    struct leaf_place unpacked = place_unpack(place);
    struct leaf leaf;
    tally->audit->stored(tally->audit->arg, &unpacked, number, &leaf);
    for (uint32_t i = 0; i < leaf.run_count; i++) {
        uint32_t index = object_table_find(tally->map->objects, leaf.runs[i].object);
        assert(index != OBJECT_NONE);
        counts[index] += leaf.runs[i].count;
    }
}

static void add_doomed(const struct tally *tally, uint32_t *counts, const struct doomed_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        uint64_t place = place_pack(&list->leaves[i].place);
        add_stored(tally, counts, place, list->leaves[i].number);
        add_piece(counts, place);
    }
}

static void add_newest_slot(const struct tally *tally, uint64_t slot, uint64_t number)
{
    if (slot_tag(slot) >= SLOT_CLEAN)
        add_leaf(tally->newest, slot_leaf(slot));
    if (slot_is_patch(slot)) {
        const struct patch *patch = slot_patch(slot);
        add_patch(tally->newest, patch, NULL);
        if (patch->under != NULL)
            add_patch(tally->newest, patch->under, patch);
    }
    if (slot_is_patch(slot) || slot_tag(slot) == SLOT_STORED)
        add_stored(tally, tally->newest, slot_place(slot), number);
    add_piece(tally->newest, slot_place(slot));
}

/* ---- the snapshot ---- */

static void add_snapshot_slot(const struct tally *tally, uint64_t place, uint64_t number)
{
    const struct frozen *frozen = frozen_find(tally->map, number);
    uint64_t slot = frozen == NULL ? HOLE : frozen->slot;
    if (slot != HOLE)
        assert(place == slot_place(slot));
    if (slot_tag(slot) == SLOT_FROZEN)
        add_leaf(tally->snapshot, slot_leaf(slot));
    else if (place != HOLE)
        add_stored(tally, tally->snapshot, place, number);
    if (slot_is_patch(slot))
        add_patch(tally->snapshot, slot_patch(slot), NULL);
    add_piece(tally->snapshot, place);
}

static void add_owed(const struct tally *tally)
{
    const struct map_snapshot *snapshot = tally->map->snapshot;
    size_t unplaced = 0, patched = 0;
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct frozen *frozen = &snapshot->frozen[i];
        assert(i == 0 || frozen->number > snapshot->frozen[i - 1].number);
        unplaced += frozen->slot != HOLE;
        patched += slot_is_patch(frozen->slot);
        if (frozen->slot == HOLE || !frozen->detached)
            continue;
        add_piece(tally->newest, slot_place(frozen->slot));
        if (slot_is_patch(frozen->slot))
            add_stored(tally, tally->newest, slot_place(frozen->slot), frozen->number);
    }
    assert(unplaced == snapshot->unplaced && patched == snapshot->patched);
    for (size_t i = 0; i < snapshot->released_count; i++)
        add_piece(tally->newest, snapshot->released[i]);
}

/* ---- forms and sizes ---- */

static uint32_t check_entry(uint64_t entry)
{
    struct run runs[RUNS_MAX];
    uint32_t count = block_read(entry, runs), past = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct location *location = &runs[i].location;
        assert(runs[i].first >= past && location_valid(location, runs[i].count));
        past = runs[i].first + runs[i].count;
        if (i == 0)
            continue;
        struct location *before = &runs[i - 1].location;
        assert(runs[i - 1].first + runs[i - 1].count != runs[i].first || before->object != location->object ||
               before->start != location->start || before->frame_page + runs[i - 1].count != location->frame_page ||
               before->units != location->units || before->frame_pages != location->frame_pages);
    }
    if (entry_table(entry) == NULL)
        return 0;
    assert(count > 0 && (runs[0].count < BLOCK_PAGES || runs[0].location.frame_pages < BLOCK_PAGES));
    return (uint32_t)table_bytes(count);
}

static void check_leaf(struct tally *tally, const struct map_leaf *leaf)
{
    uint32_t bytes = sizeof *leaf;
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        bytes += check_entry(leaf->entries[i]);
    assert(bytes == leaf->body.bytes && bytes <= LEAF_BYTES_MAX);
    tally->leaf_bytes += bytes;
}

static void check_patch(struct tally *tally, const struct patch *patch)
{
    uint32_t bytes = (uint32_t)(sizeof *patch + patch->block_count * sizeof *patch->blocks), blocks = 0;
    for (uint32_t i = 0; i < patch->block_count; i++) {
        const struct patch_block *block = &patch->blocks[i];
        bytes += check_entry(block->entry);
        assert((block_mapped(block->entry) & ~block->touched) == 0 && block->block < LEAF_BLOCKS);
        assert((blocks >> block->block & 1) == 0);
        blocks |= UINT32_C(1) << block->block;
    }
    assert(bytes == patch->body.bytes && slot_tag(patch->body.place) == SLOT_STORED);
    tally->leaf_bytes += bytes;
    tally->patches++;
}

/* A CLEAN leaf says what is stored. */
static void check_clean(const struct tally *tally, const struct map_leaf *leaf, uint64_t number)
{
    struct leaf_place place = place_unpack(leaf->body.place);
    struct leaf stored;
    tally->audit->stored(tally->audit->arg, &place, number, &stored);
    uint32_t at = 0;
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        struct run runs[RUNS_MAX];
        uint32_t count = block_read(leaf->entries[i], runs);
        for (uint32_t j = 0; j < count; j++) {
            const struct location *location = &runs[j].location;
            assert(at < stored.run_count);
            const struct leaf_run *run = &stored.runs[at++];
            assert(run->first == i * BLOCK_PAGES + runs[j].first && run->count == runs[j].count);
            assert(run->object == object_table_row(tally->map->objects, location->object)->id);
            assert(run->start == location->start && run->units == location->units);
            assert(run->frame_page == location->frame_page && run->frame_pages == location->frame_pages);
        }
    }
    assert(at == stored.run_count);
}

static void check_slot(struct tally *tally, uint64_t slot, uint64_t number)
{
    const struct frozen *frozen = frozen_find(tally->map, number);
    bool is_frozen = slot_tag(slot) == SLOT_FROZEN || slot_tag(slot) == SLOT_PATCH_FROZEN;
    if (is_frozen)
        assert(frozen != NULL && frozen->slot == slot && !frozen->detached);
    else if (slot_is_patch(slot))
        check_patch(tally, slot_patch(slot));
    else if (slot_tag(slot) >= SLOT_CLEAN)
        check_leaf(tally, slot_leaf(slot));
    if (slot_is_patch(slot) && slot_patch(slot)->under != NULL)
        assert(!is_frozen && slot_patch(slot)->under == slot_patch(frozen->slot));
    if (slot_tag(slot) == SLOT_DIRTY)
        assert(!leaf_is_empty(slot_leaf(slot)));
    if (slot_is_clean(slot)) {
        check_clean(tally, slot_leaf(slot), number);
        tally->clean_bytes += slot_leaf(slot)->body.bytes;
    }
}

static void check_mid(struct tally *tally, const struct mid *mid, uint64_t number)
{
    uint32_t used = 0, clean = 0, unclean = 0;
    for (uint32_t i = 0; i < MID_LEAVES; i++) {
        uint64_t slot = mid->slots[i], leaf = number * MID_LEAVES + i;
        assert(slot == HOLE || leaf * LEAF_PAGES < tally->map->pages);
        used += slot != HOLE;
        clean += slot_is_clean(slot);
        unclean += slot != HOLE && slot_tag(slot) != SLOT_STORED && !slot_is_clean(slot);
        check_slot(tally, slot, leaf);
        add_newest_slot(tally, slot, leaf);
        if (tally->map->snapshot != NULL)
            add_snapshot_slot(tally, mid->kept != NULL ? mid->kept[i] : slot_place(slot), leaf);
    }
    assert(used == mid->used && clean == mid->clean && unclean == mid->unclean);
    assert(used > 0 || mid->dirty || mid->snapshot_dirty || mid->kept != NULL);
    assert(tally->map->snapshot != NULL || (mid->kept == NULL && !mid->snapshot_dirty));
}

static void check_row(void *arg, uint32_t index, const struct object *object)
{
    const struct tally *tally = arg;
    if (object->role == ROLE_PIECES && !tally->audit->pieces_too)
        return;
    assert(object->live == tally->newest[index]);
    if (tally->map->snapshot != NULL)
        assert(object_table_snapshot_row(tally->map->objects, index).live == tally->snapshot[index]);
}

static void check_mapped(const struct tally *tally)
{
    uint64_t newest = 0, snapshot = 0;
    for (uint32_t i = 0; i < tally->rows; i++) {
        if (tally->newest[i] == 0 && tally->snapshot[i] == 0)
            continue;
        bool pages = object_table_row(tally->map->objects, i)->role == ROLE_PAGES;
        newest += pages ? tally->newest[i] : 0;
        snapshot += pages ? tally->snapshot[i] : 0;
    }
    assert(newest == tally->map->mapped_pages && newest == object_table_live_pages(tally->map->objects));
    assert(tally->map->snapshot == NULL || snapshot == tally->map->snapshot->mapped_pages);
}

void map_audit(const struct map *map, const struct map_audit *audit)
{
    struct tally tally = { .map = map, .audit = audit };
    object_table_walk(map->objects, count_row, &tally);
    tally.newest = memory_array(tally.rows, sizeof *tally.newest);
    tally.snapshot = memory_array(tally.rows, sizeof *tally.snapshot);
    for (uint64_t i = 0; i < map->mid_count; i++)
        if (map->mids[i] != NULL)
            check_mid(&tally, map->mids[i], i);
    add_doomed(&tally, tally.newest, &map->doomed);
    add_doomed(&tally, tally.newest, &map->doomed_later);
    for (size_t i = 0; map->snapshot != NULL && i < map->snapshot->count; i++) {
        uint64_t slot = map->snapshot->frozen[i].slot;
        if (slot_is_patch(slot))
            check_patch(&tally, slot_patch(slot));
        else if (slot != HOLE)
            check_leaf(&tally, slot_leaf(slot));
    }
    if (map->snapshot != NULL) {
        add_owed(&tally);
        add_doomed(&tally, tally.snapshot, &map->doomed);
    }
    assert(tally.leaf_bytes == map->leaf_bytes && tally.clean_bytes == map->clean_bytes);
    assert(tally.patches == map->patches && map->memory_bytes >= map->leaf_bytes);
    check_mapped(&tally);
    object_table_walk(map->objects, check_row, &tally);
    free(tally.newest);
    free(tally.snapshot);
}
