/* Levels and slots of the map, asking and folding: see map.h for what it is, map_internal.h for how it lies in memory.
 *
 * Folding goes by the slot's state.  What the newest state has alone in memory
 * (DIRTY) is changed in place, and that is the fast path; before anything else,
 * slot_open() makes it DIRTY, or a patch of its own where the leaf is not in
 * memory.  A slot becomes a hole in one place, slot_make_hole(), since much
 * hangs on it: the piece, the mid, and what a snapshot under way still needs. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/map_internal.h"

/* ---- the levels ---- */

struct mid *mid_make(struct map *map, uint64_t number)
{
    struct mid **mid = &map->mids[number];
    if (*mid == NULL) {
        *mid = memory_new(sizeof **mid);
        map->memory_bytes += sizeof **mid;
    }
    return *mid;
}

void mid_prune(struct map *map, uint64_t number)
{
    struct mid **mid = &map->mids[number];
    if (*mid == NULL || (*mid)->used > 0 || (*mid)->dirty || (*mid)->snapshot_dirty || (*mid)->kept != NULL)
        return;
    map->memory_bytes -= sizeof **mid;
    free(*mid);
    *mid = NULL;
}

static bool is_unclean(uint64_t slot)
{
    return slot_tag(slot) > SLOT_STORED && !slot_is_clean(slot);
}

void slot_change(struct map *map, struct mid *mid, uint64_t *slot, uint64_t to)
{
    uint64_t from = *slot;
    if (slot_is_clean(from)) {
        mid->clean--;
        map->clean_bytes -= slot_leaf(from)->body.bytes;
    }
    if (slot_is_clean(to)) {
        mid->clean++;
        map->clean_bytes += slot_leaf(to)->body.bytes;
    }
    mid->unclean = (uint16_t)(mid->unclean + is_unclean(to) - is_unclean(from));
    mid->used = (uint16_t)(mid->used + (to != HOLE) - (from != HOLE));
    *slot = to;
}

void slot_make_hole(struct map *map, uint64_t number, uint64_t place, bool doomed)
{
    struct mid *mid = map->mids[number / MID_LEAVES];
    uint64_t *slot = &mid->slots[number % MID_LEAVES];
    if (map->snapshot != NULL)
        snapshot_keep(map, mid);
    struct frozen *frozen = frozen_find(map, number);
    if (frozen != NULL && frozen->slot != HOLE && !frozen->detached) {
        assert(!doomed);
        frozen->detached = true; /* the snapshot answers for the piece until the leaf is placed */
    } else if (place != HOLE && !doomed) {
        piece_give_back(map, place);
    }
    if (place != HOLE)
        mid->dirty = true;
    slot_change(map, mid, slot, HOLE);
    mid_prune(map, number / MID_LEAVES);
}

struct map *map_new(struct object_table *objects, uint64_t pages)
{
    assert(pages <= VOLUME_BYTES_MAX / PAGE_BYTES);
    uint64_t mid_count = (pages + MID_PAGES - 1) / MID_PAGES;
    size_t bytes = sizeof(struct map) + mid_count * sizeof(struct mid *);
    struct map *map = memory_new(bytes);
    map->objects = objects;
    map->pages = pages;
    map->memory_bytes = bytes;
    map->budget = UINT64_MAX;
    map->arrived_bytes = LEAF_BYTES_MAX; /* until one is seen */
    map->mid_count = mid_count;
    return map;
}

static void slot_free(struct map *map, uint64_t slot)
{
    if (slot_tag(slot) >= SLOT_CLEAN)
        leaf_free(map, slot_leaf(slot));
    else if (slot_is_patch(slot))
        patch_free(map, slot_patch(slot));
}

void map_free(struct map *map)
{
    if (map == NULL)
        return;
    for (uint64_t i = 0; i < map->mid_count; i++) {
        struct mid *mid = map->mids[i];
        for (uint32_t j = 0; mid != NULL && j < MID_LEAVES; j++)
            if (slot_tag(mid->slots[j]) != SLOT_FROZEN && slot_tag(mid->slots[j]) != SLOT_PATCH_FROZEN)
                slot_free(map, mid->slots[j]);
        if (mid != NULL)
            free(mid->kept);
        free(mid);
    }
    for (size_t i = 0; map->snapshot != NULL && i < map->snapshot->count; i++)
        slot_free(map, map->snapshot->frozen[i].slot);
    snapshot_free(map);
    free(map->doomed.leaves);
    free(map->doomed_later.leaves);
    free(map);
}

/* ---- asking ---- */

static uint32_t entry_of(uint64_t page)
{
    return (uint32_t)(page / BLOCK_PAGES % LEAF_BLOCKS);
}

/* How many pages from `page` on are holes, at most `limit`. */
static uint64_t hole_run(const struct map *map, uint64_t page, uint64_t limit)
{
    uint64_t at = page, past = page + limit;
    while (at < past) {
        const struct mid *mid = mid_at(map, at);
        if (mid == NULL) {
            at = (at / MID_PAGES + 1) * MID_PAGES;
            continue;
        }
        uint64_t slot = mid->slots[slot_in_mid(at)];
        if (slot == HOLE) {
            at = (at / LEAF_PAGES + 1) * LEAF_PAGES;
            continue;
        }
        if (slot_tag(slot) < SLOT_CLEAN)
            break;
        uint64_t entry = slot_leaf(slot)->entries[entry_of(at)];
        if (entry != HOLE) {
            const struct table *table = entry_table(entry);
            uint32_t from = (uint32_t)(at % BLOCK_PAGES);
            uint32_t to = table == NULL ? from : lowest_bit(table->mapped & ~(bits_through(from) >> 1));
            at += to - from;
            if (to < BLOCK_PAGES)
                break;
            continue;
        }
        at = (at / BLOCK_PAGES + 1) * BLOCK_PAGES;
    }
    return at < past ? at - page : limit;
}

static struct location no_location(const struct map *map, uint64_t page, uint64_t limit, uint64_t *ret_run)
{
    *ret_run = hole_run(map, page, limit);
    return (struct location){ .object = OBJECT_NONE };
}

static struct location unloaded(uint64_t page, uint64_t limit, uint64_t *ret_run)
{
    uint64_t left = LEAF_PAGES - page % LEAF_PAGES;
    *ret_run = left < limit ? left : limit;
    return (struct location){ .object = OBJECT_UNLOADED };
}

struct location map_lookup(const struct map *map, uint64_t page, uint64_t limit, uint64_t *ret_run)
{
    assert(page < map->pages && limit > 0);
    if (limit > map->pages - page)
        limit = map->pages - page;
    struct mid *mid = mid_at(map, page);
    uint64_t *slot = mid == NULL ? NULL : &mid->slots[slot_in_mid(page)];
    if (slot == NULL || *slot == HOLE)
        return no_location(map, page, limit, ret_run);
    if (slot_tag(*slot) < SLOT_CLEAN)
        return unloaded(page, limit, ret_run);
    if (slot_tag(*slot) == SLOT_CLEAN)
        *slot ^= (uint64_t)SLOT_CLEAN ^ SLOT_CLEAN_ASKED;
    uint64_t entry = slot_leaf(*slot)->entries[entry_of(page)];
    if (entry == HOLE)
        return no_location(map, page, limit, ret_run);

    uint32_t in_block = (uint32_t)(page % BLOCK_PAGES), first = 0, past = BLOCK_PAGES;
    struct location location;
    const struct table *table = entry_table(entry);
    if (table == NULL) {
        location = unpack_run(entry, BLOCK_PAGES);
    } else {
        if ((table->mapped >> in_block & 1) == 0)
            return no_location(map, page, limit, ret_run);
        uint32_t through = table->starts & bits_through(in_block);
        uint32_t at = (uint32_t)__builtin_popcount(through) - 1;
        first = BLOCK_PAGES - 1 - (uint32_t)__builtin_clz(through);
        past = lowest_bit((table->starts | ~table->mapped) & ~bits_through(in_block));
        location = unpack_run(table->runs[at], table_frame_pages(table, table_runs(table))[at]);
    }
    location.frame_page = (uint8_t)(location.frame_page + in_block - first);
    *ret_run = past - in_block < limit ? past - in_block : limit;
    return location;
}

void map_walk(const struct map *map,
              void (*visit)(void *arg, uint64_t page, uint32_t count, const struct location *first), void *arg)
{
    for (uint64_t leaf = 0; leaf < map->mid_count * MID_LEAVES; leaf++) {
        const struct mid *mid = map->mids[leaf / MID_LEAVES];
        if (mid == NULL) {
            leaf += MID_LEAVES - 1;
            continue;
        }
        uint64_t slot = mid->slots[leaf % MID_LEAVES];
        for (uint32_t i = 0; slot_tag(slot) >= SLOT_CLEAN && i < LEAF_BLOCKS; i++) {
            struct run runs[RUNS_MAX];
            uint64_t base = leaf * LEAF_PAGES + i * BLOCK_PAGES;
            uint32_t count = block_read(slot_leaf(slot)->entries[i], runs);
            for (uint32_t j = 0; j < count; j++)
                visit(arg, base + runs[j].first, runs[j].count, &runs[j].location);
        }
    }
}

uint64_t map_mapped_pages(const struct map *map)
{
    return map->mapped_pages;
}

uint64_t map_memory_bytes(const struct map *map)
{
    return map->memory_bytes;
}

/* ---- changing ---- */

/* Afterwards the slot is DIRTY, or a PATCH where the leaf is not in memory: of the newest state alone. */
static void slot_open(struct map *map, struct mid *mid, uint64_t *slot)
{
    switch (slot_tag(*slot)) {
    case SLOT_HOLE:
        slot_change(map, mid, slot, slot_of(leaf_new(map, HOLE), SLOT_DIRTY));
        break;
    case SLOT_STORED:
        slot_change(map, mid, slot, slot_of(patch_new(map, *slot, NULL), SLOT_PATCH));
        break;
    case SLOT_PATCH_FROZEN:
        slot_change(map, mid, slot, slot_of(patch_new(map, slot_place(*slot), slot_patch(*slot)), SLOT_PATCH));
        break;
    case SLOT_CLEAN:
    case SLOT_CLEAN_ASKED:
        slot_change(map, mid, slot, slot_of(slot_leaf(*slot), SLOT_DIRTY));
        break;
    case SLOT_FROZEN:
        slot_change(map, mid, slot, slot_of(leaf_copy(map, slot_leaf(*slot)), SLOT_DIRTY));
        break;
    case SLOT_PATCH:
    case SLOT_DIRTY:
        break;
    }
}

void map_set(struct map *map, uint64_t page, uint32_t count, const struct location *first)
{
    uint32_t in_block = (uint32_t)(page % BLOCK_PAGES);
    assert(location_valid(first, count) && count <= BLOCK_PAGES - in_block);
    assert(page < map->pages && count <= map->pages - page);
    object_table_live(map->objects, first->object, (int32_t)count);
    map->mapped_pages += count;

    struct mid *mid = mid_make(map, page / MID_PAGES);
    uint64_t *slot = &mid->slots[slot_in_mid(page)];
    if (slot_tag(*slot) != SLOT_DIRTY)
        slot_open(map, mid, slot);
    if (slot_tag(*slot) == SLOT_DIRTY) {
        struct map_leaf *leaf = slot_leaf(*slot);
        block_set(map, &leaf->body, &leaf->entries[entry_of(page)], in_block, count, first);
    } else {
        struct patch *patch = slot_patch(*slot);
        patch_set(map, &patch, (uint32_t)(page % LEAF_PAGES), count, first);
        *slot = slot_of(patch, SLOT_PATCH);
    }
    if (map->leaf_bytes > map->budget)
        evict_beyond_budget(map);
}

/* All of the leaf goes. */
static void clear_whole(struct map *map, uint64_t number, uint64_t slot)
{
    uint64_t place = slot_place(slot);
    if (slot_tag(slot) >= SLOT_CLEAN) {
        leaf_charge(map, slot_leaf(slot), CHARGE_NEWEST);
        slot_make_hole(map, number, place, false);
    } else if (slot_is_patch(slot)) {
        const struct patch *patch = slot_patch(slot);
        patch_charge(map, patch);
        /* A leaf that the snapshot waits for is charged when it arrives, for the newest state too. */
        bool awaited = slot_tag(slot) == SLOT_PATCH_FROZEN || patch->under != NULL;
        if (!awaited)
            doomed_add(map, place, number);
        slot_make_hole(map, number, place, !awaited);
    } else {
        doomed_add(map, place, number);
        slot_make_hole(map, number, place, true);
    }
    if (slot_tag(slot) != SLOT_FROZEN && slot_tag(slot) != SLOT_PATCH_FROZEN)
        slot_free(map, slot);
}

/* Pages [from, past) of the leaf. */
static void clear_part(struct map *map, uint64_t number, uint32_t from, uint32_t past)
{
    struct mid *mid = map->mids[number / MID_LEAVES];
    uint64_t *slot = &mid->slots[number % MID_LEAVES];
    /* What is a hole already makes no leaf dirty. */
    if (slot_tag(*slot) >= SLOT_CLEAN && !leaf_maps(slot_leaf(*slot), from, past))
        return;
    slot_open(map, mid, slot);
    if (slot_tag(*slot) == SLOT_PATCH) {
        struct patch *patch = slot_patch(*slot);
        patch_clear(map, &patch, from, past);
        *slot = slot_of(patch, SLOT_PATCH);
        return;
    }
    struct map_leaf *leaf = slot_leaf(*slot);
    leaf_clear(map, leaf, from, past);
    if (!leaf_is_empty(leaf))
        return;
    slot_make_hole(map, number, leaf->body.place, false);
    leaf_free(map, leaf);
}

void map_clear(struct map *map, uint64_t page, uint64_t count)
{
    assert(page <= map->pages && count <= map->pages - page);
    uint64_t past = page + count;
    while (page < past) {
        const struct mid *mid = mid_at(map, page);
        if (mid == NULL) {
            page = (page / MID_PAGES + 1) * MID_PAGES;
            continue;
        }
        uint64_t number = page / LEAF_PAGES, base = number * LEAF_PAGES;
        uint32_t has = leaf_pages(map, number), from = (uint32_t)(page - base);
        uint32_t to = past - base < has ? (uint32_t)(past - base) : has;
        uint64_t slot = mid->slots[slot_in_mid(page)];
        if (slot != HOLE && from == 0 && to == has)
            clear_whole(map, number, slot);
        else if (slot != HOLE)
            clear_part(map, number, from, to);
        page = base + LEAF_PAGES;
    }
    if (map->leaf_bytes > map->budget)
        evict_beyond_budget(map);
}
