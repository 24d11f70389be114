/* The map as of some moment, while folding goes on: see map.h.
 *
 * The snapshot shares what it can with the newest state.  At its begin it takes
 * down the DIRTY leaves and the patches, which are FROZEN from then on: a fold
 * into one gives the newest state a copy, or a patch on top, and leaves the
 * frozen one to the snapshot.  A CLEAN or STORED leaf is not taken down; what
 * the snapshot must know of it is where it is stored, and no fold changes that:
 * a leaf that is folded into goes on naming the place it came from, until it is
 * placed anew.  Only a slot that becomes a hole forgets its place, so before the
 * first one in a mid does, the places of that mid are copied (`kept`).  In a mid
 * without such a copy, the snapshot's places are those of the slots.
 *
 *     frozen leaf:   PATCH_FROZEN ──arrived──> FROZEN ──placed──> gone
 *
 * When it is placed, the newest state either still shares it, and it is CLEAN;
 * or has made something else of it, and that goes on from the new place; or has
 * dropped it (`detached`): then it never names the new piece, and gives it back
 * at the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/map_internal.h"

/* Frozen leaves that map_snapshot_ahead() looks at: what a writer comes by in a moment, and a bound for the cost. */
#define AHEAD_LEAVES 4096u

struct frozen *frozen_find(const struct map *map, uint64_t number)
{
    const struct map_snapshot *snapshot = map->snapshot;
    if (snapshot == NULL)
        return NULL;
    size_t low = 0, high = snapshot->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (snapshot->frozen[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < snapshot->count && snapshot->frozen[low].number == number ? &snapshot->frozen[low] : NULL;
}

void snapshot_keep(struct map *map, struct mid *mid)
{
    if (mid->kept != NULL)
        return;
    mid->kept = memory_array(MID_LEAVES, sizeof *mid->kept);
    map->memory_bytes += MID_LEAVES * sizeof *mid->kept;
    for (uint32_t i = 0; i < MID_LEAVES; i++)
        mid->kept[i] = slot_place(mid->slots[i]);
}

void piece_give_back(struct map *map, uint64_t place)
{
    struct map_snapshot *snapshot = map->snapshot;
    if (snapshot == NULL) {
        object_table_live(map->objects, place_unpack(place).object, -1);
        return;
    }
    if (snapshot->released_count == snapshot->released_capacity) {
        size_t capacity = snapshot->released_capacity == 0 ? 16 : snapshot->released_capacity * 2;
        snapshot->released = memory_resize(snapshot->released, capacity, sizeof *snapshot->released);
        map->memory_bytes += (capacity - snapshot->released_capacity) * sizeof *snapshot->released;
        snapshot->released_capacity = capacity;
    }
    snapshot->released[snapshot->released_count++] = place;
}

/* ---- begin ---- */

static void freeze(struct map_snapshot *snapshot, uint64_t number, uint64_t *slot, size_t *capacity)
{
    enum slot_tag tag = slot_tag(*slot);
    if (tag != SLOT_DIRTY && tag != SLOT_PATCH)
        return;
    if (snapshot->count == *capacity) {
        *capacity = *capacity == 0 ? 16 : *capacity * 2;
        snapshot->frozen = memory_resize(snapshot->frozen, *capacity, sizeof *snapshot->frozen);
    }
    if (tag == SLOT_DIRTY) {
        *slot = slot_of(slot_leaf(*slot), SLOT_FROZEN);
    } else {
        assert(slot_patch(*slot)->under == NULL);
        *slot = slot_of(slot_patch(*slot), SLOT_PATCH_FROZEN);
        snapshot->patched++;
    }
    snapshot->frozen[snapshot->count++] = (struct frozen){ .slot = *slot, .number = (uint32_t)number };
}

void map_snapshot_begin(struct map *map)
{
    assert(map->snapshot == NULL && map->doomed_later.count == 0);
    struct map_snapshot *snapshot = memory_new(sizeof *snapshot);
    size_t capacity = 0;
    for (uint64_t i = 0; i < map->mid_count; i++) {
        struct mid *mid = map->mids[i];
        if (mid == NULL)
            continue;
        assert(mid->kept == NULL && !mid->snapshot_dirty);
        mid->snapshot_dirty = mid->dirty;
        mid->dirty = false;
        for (uint32_t j = 0; mid->unclean > 0 && j < MID_LEAVES; j++)
            freeze(snapshot, i * MID_LEAVES + j, &mid->slots[j], &capacity);
    }
    snapshot->frozen = memory_resize(snapshot->frozen, snapshot->count, sizeof *snapshot->frozen);
    snapshot->unplaced = snapshot->count;
    snapshot->mapped_pages = map->mapped_pages;
    map->snapshot = snapshot;
    map->memory_bytes += sizeof *snapshot + snapshot->count * sizeof *snapshot->frozen;
}

void snapshot_free(struct map *map)
{
    struct map_snapshot *snapshot = map->snapshot;
    if (snapshot == NULL)
        return;
    map->memory_bytes -= sizeof *snapshot + snapshot->count * sizeof *snapshot->frozen +
                         snapshot->released_capacity * sizeof *snapshot->released;
    free(snapshot->frozen);
    free(snapshot->released);
    free(snapshot);
    map->snapshot = NULL;
}

/* ---- leaves ---- */

static uint32_t leaf_runs(const struct map *map, const struct map_leaf *leaf, struct leaf_run *ret_runs)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        struct run runs[RUNS_MAX];
        uint32_t count = block_read(leaf->entries[i], runs);
        for (uint32_t j = 0; j < count; j++) {
            const struct location *location = &runs[j].location;
            ret_runs[total++] = (struct leaf_run){ .first = (uint16_t)(i * BLOCK_PAGES + runs[j].first),
                                                   .count = (uint8_t)runs[j].count,
                                                   .frame_page = location->frame_page,
                                                   .frame_pages = location->frame_pages,
                                                   .start = location->start,
                                                   .units = location->units,
                                                   .object = object_table_row(map->objects, location->object)->id };
        }
    }
    return total;
}

int map_snapshot_next(struct map *map, uint64_t *cursor, struct leaf *ret_leaf, struct leaf_place *ret_place)
{
    struct map_snapshot *snapshot = map->snapshot;
    assert(snapshot != NULL);
    if (*cursor >= snapshot->count)
        return 0;
    const struct frozen *frozen = &snapshot->frozen[*cursor];
    assert(frozen->slot != HOLE);
    if (slot_is_patch(frozen->slot)) {
        *ret_place = place_unpack(slot_place(frozen->slot));
        return -EAGAIN;
    }
    ret_leaf->number = frozen->number;
    ret_leaf->runs = snapshot->runs;
    ret_leaf->run_count = leaf_runs(map, slot_leaf(frozen->slot), snapshot->runs);
    ++*cursor;
    return 1;
}

static bool is_among(const struct leaf_place *places, uint32_t count, const struct leaf_place *place)
{
    for (uint32_t i = 0; i < count; i++)
        if (place_pack(&places[i]) == place_pack(place))
            return true;
    return false;
}

uint32_t map_snapshot_ahead(const struct map *map, uint64_t cursor, struct leaf_place *ret_places, uint32_t capacity)
{
    const struct map_snapshot *snapshot = map->snapshot;
    assert(snapshot != NULL);
    uint32_t count = 0;
    for (uint64_t i = cursor; i < snapshot->count && i - cursor < AHEAD_LEAVES; i++) {
        if (count == capacity || snapshot->patched == 0)
            break;
        if (!slot_is_patch(snapshot->frozen[i].slot))
            continue;
        struct leaf_place place = place_unpack(slot_place(snapshot->frozen[i].slot));
        if (!is_among(ret_places, count, &place))
            ret_places[count++] = place;
    }
    return count;
}

/* What the newest state makes of it that a leaf of the snapshot lies at `place` now. */
static void place_newest(struct map *map, struct mid *mid, const struct frozen *frozen, uint64_t place)
{
    struct map_leaf *leaf = slot_leaf(frozen->slot);
    uint64_t *slot = &mid->slots[frozen->number % MID_LEAVES];
    if (frozen->detached) {
        if (place != HOLE) {
            piece_give_back(map, place);
            mid->dirty = true;
        }
        leaf_free(map, leaf);
    } else if (*slot != frozen->slot) {
        assert(slot_tag(*slot) == SLOT_DIRTY);
        slot_leaf(*slot)->body.place = place;
        leaf_free(map, leaf);
    } else if (place == HOLE) {
        slot_change(map, mid, slot, HOLE);
        leaf_free(map, leaf);
    } else {
        leaf->body.place = place;
        slot_change(map, mid, slot, slot_of(leaf, SLOT_CLEAN));
    }
}

void map_snapshot_placed(struct map *map, uint64_t number, const struct leaf_place *place)
{
    struct frozen *frozen = frozen_find(map, number);
    assert(frozen != NULL && slot_tag(frozen->slot) == SLOT_FROZEN);
    assert((place->units == 0) == leaf_is_empty(slot_leaf(frozen->slot)));
    assert(place->units < LOCATION_UNITS_PAST && place->start < LOCATION_START_PAST);
    uint64_t old = slot_place(frozen->slot), packed = place->units == 0 ? HOLE : place_pack(place);
    if (packed != HOLE)
        object_table_live_both(map->objects, place->object, 1);
    struct mid *mid = map->mids[number / MID_LEAVES];
    mid->snapshot_dirty = true;
    if (mid->kept != NULL)
        mid->kept[number % MID_LEAVES] = packed;
    place_newest(map, mid, frozen, packed);
    frozen->slot = HOLE;
    map->snapshot->unplaced--;
    if (old != HOLE)
        object_table_live_both(map->objects, place_unpack(old).object, -1);
    evict_beyond_budget(map);
}

/* ---- mids ---- */

static void visit_mids(const struct map *map, bool all, map_visit_mid *visit, void *arg)
{
    assert(map->snapshot != NULL && map->snapshot->unplaced == 0);
    struct leaf_place *places = memory_array(MID_LEAVES, sizeof *places);
    for (uint64_t i = 0; i < map->mid_count; i++) {
        const struct mid *mid = map->mids[i];
        if (mid == NULL || (!all && !mid->snapshot_dirty))
            continue;
        bool used = false;
        for (uint32_t j = 0; j < MID_LEAVES; j++) {
            uint64_t place = mid->kept != NULL ? mid->kept[j] : slot_place(mid->slots[j]);
            used = used || place != HOLE;
            places[j] = place == HOLE ? (struct leaf_place){ .object = OBJECT_NONE } : place_unpack(place);
        }
        if (used || !all)
            visit(arg, i, used ? places : NULL);
    }
    free(places);
}

void map_snapshot_mids(const struct map *map, map_visit_mid *visit, void *arg)
{
    visit_mids(map, false, visit, arg);
}

void map_snapshot_all_mids(const struct map *map, map_visit_mid *visit, void *arg)
{
    visit_mids(map, true, visit, arg);
}

uint64_t map_snapshot_mapped_pages(const struct map *map)
{
    assert(map->snapshot != NULL);
    return map->snapshot->mapped_pages;
}

/* ---- end ---- */

void map_snapshot_end(struct map *map)
{
    struct map_snapshot *snapshot = map->snapshot;
    assert(snapshot != NULL && snapshot->unplaced == 0 && map->doomed.count == 0);
    for (size_t i = 0; i < snapshot->released_count; i++)
        object_table_live(map->objects, place_unpack(snapshot->released[i]).object, -1);
    snapshot_free(map);
    map->doomed = map->doomed_later;
    map->doomed_later = (struct doomed_list){ 0 };
    for (uint64_t i = 0; i < map->mid_count; i++) {
        struct mid *mid = map->mids[i];
        if (mid == NULL)
            continue;
        if (mid->kept != NULL)
            map->memory_bytes -= MID_LEAVES * sizeof *mid->kept;
        free(mid->kept);
        mid->kept = NULL;
        mid->snapshot_dirty = false;
        mid_prune(map, i);
    }
}
