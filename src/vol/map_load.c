/* Leaves come and go: see map.h.
 *
 * A leaf that arrives is built first, and that is where what the store said is
 * checked; nothing has changed when it is refused.  Then it goes where it is
 * waited for:
 *
 *     the slot is STORED there          it is CLEAN
 *     the slot is a patch of it         what the patch replaces is given back, the patch applied: DIRTY
 *     the snapshot has a patch of it    the same for both states: FROZEN; and if the newest state has a patch on top of
 *                                       that, a copy gets it: DIRTY; or if that has dropped the leaf, it is charged
 *
 * Eviction is a second chance for those that were asked for: a hand goes round
 * the leaves in order and takes CLEAN ones, and those that are CLEAN_ASKED when
 * it comes by again.  Mids count their CLEAN leaves, so that the hand goes over
 * the others at once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/mutant.h"
#include "vol/map_internal.h"

/* What map->arrived_bytes remembers: that of some dozen leaves. */
#define ARRIVED_WEIGHT 16

/* ---- eviction ---- */

static void evict(struct map *map, struct mid *mid, uint64_t *slot)
{
    struct map_leaf *leaf = slot_leaf(*slot);
    assert(slot_tag(leaf->body.place) == SLOT_STORED);
    slot_change(map, mid, slot, leaf->body.place);
    leaf_free(map, leaf);
}

/* Lets the hand pass to the next leaf; what it frees. */
static void hand_step(struct map *map)
{
    struct mid *mid = map->mids[map->hand / MID_LEAVES];
    if (mid == NULL || mid->clean == 0) {
        map->hand = (map->hand / MID_LEAVES + 1) % map->mid_count * MID_LEAVES;
        return;
    }
    uint64_t *slot = &mid->slots[map->hand % MID_LEAVES];
    if (slot_tag(*slot) == SLOT_CLEAN)
        evict(map, mid, slot);
    else if (slot_tag(*slot) == SLOT_CLEAN_ASKED)
        *slot ^= (uint64_t)SLOT_CLEAN ^ SLOT_CLEAN_ASKED;
    map->hand = (map->hand + 1) % (map->mid_count * MID_LEAVES);
}

uint64_t map_evict(struct map *map, uint64_t bytes)
{
    uint64_t before = map->leaf_bytes;
    while (before - map->leaf_bytes < bytes && map->clean_bytes > 0)
        hand_step(map);
    return before - map->leaf_bytes;
}

void evict_beyond_budget(struct map *map)
{
    if (map->leaf_bytes > map->budget)
        map_evict(map, map->leaf_bytes - map->budget);
}

void map_set_budget(struct map *map, uint64_t bytes)
{
    map->budget = bytes;
    evict_beyond_budget(map);
}

uint64_t map_leaf_bytes(const struct map *map)
{
    return map->leaf_bytes;
}

uint64_t map_dirty_bytes(const struct map *map)
{
    return map->leaf_bytes - map->clean_bytes + map->patches * map->arrived_bytes;
}

/* ---- building ---- */

/* Why a run cannot be; NULL: it can. ret_index: of its object. */
static const char *run_wrong(const struct map *map, const struct leaf *leaf, const struct leaf_run *run,
                             uint32_t *ret_index)
{
    struct location location = { .object = 0,
                                 .start = run->start,
                                 .units = run->units,
                                 .frame_page = run->frame_page,
                                 .frame_pages = run->frame_pages };
    uint32_t past = (uint32_t)run->first + run->count;
    if (!location_valid(&location, run->count))
        return "lies where no page of a frame can";
    if (past > leaf_pages(map, leaf->number))
        return "lies behind the end of the disk";
    if (run->first / BLOCK_PAGES != (past - 1) / BLOCK_PAGES)
        return "crosses the end of a block";
    if (run->units * FRAME_UNIT != frame_total_bytes(run->frame_pages * PAGE_BYTES))
        return "names a frame of the wrong length";
    uint32_t index = object_table_find(map->objects, run->object);
    if (index == OBJECT_NONE)
        return "names an object that is not there";
    const struct object *object = object_table_row(map->objects, index);
    if (object->role != ROLE_PAGES)
        return "names an object that has no pages of the disk";
    if (object->live < run->count)
        return "names more pages of its object than are in use";
    *ret_index = index;
    return NULL;
}

static int refuse(const struct map *map, uint64_t number, const char *what, struct error *error)
{
    return error_set(error, EBADMSG, "map leaf %llu (of a disk of %llu pages): %s", (unsigned long long)number,
                     (unsigned long long)map->pages, what);
}

/* Builds one block of the runs from *at on, which is behind them then, or at the one that is wrong.  page: behind the
 * last run before. */
static const char *block_build(struct map *map, struct map_leaf *built, const struct leaf *leaf, uint32_t *at,
                               uint32_t *page)
{
    struct run runs[RUNS_MAX];
    uint32_t block = leaf->runs[*at].first / BLOCK_PAGES, count = 0;
    for (; *at < leaf->run_count && leaf->runs[*at].first / BLOCK_PAGES == block; ++*at) {
        const struct leaf_run *run = &leaf->runs[*at];
        if (run->first < *page)
            return "does not lie behind the one before";
        uint32_t object;
        const char *wrong = run_wrong(map, leaf, run, &object);
        if (wrong != NULL)
            return wrong;
        *page = (uint32_t)run->first + run->count;
        runs[count++] = (struct run){ .first = run->first % BLOCK_PAGES,
                                      .count = run->count,
                                      .location = { .object = object,
                                                    .start = run->start,
                                                    .units = run->units,
                                                    .frame_page = run->frame_page,
                                                    .frame_pages = run->frame_pages } };
    }
    block_write(map, &built->body, &built->entries[block], runs, count);
    return NULL;
}

struct use {
    uint32_t object, pages;
};

static int compare_uses(const void *left, const void *right)
{
    const struct use *a = left, *b = right;
    return (a->object > b->object) - (a->object < b->object);
}

/* Whether its runs together name more pages of an object than are in use; each for itself does not (run_wrong()). */
static bool names_too_many(const struct map *map, const struct map_leaf *leaf, uint32_t run_count)
{
    struct use *uses = memory_array(run_count, sizeof *uses);
    uint32_t count = 0;
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        struct run runs[RUNS_MAX];
        uint32_t here = block_read(leaf->entries[i], runs);
        for (uint32_t j = 0; j < here; j++)
            if (object_table_row(map->objects, runs[j].location.object)->live < LEAF_PAGES)
                uses[count++] = (struct use){ runs[j].location.object, runs[j].count };
    }
    bool too_many = false;
    if (count > 1)
        qsort(uses, count, sizeof *uses, compare_uses);
    for (uint32_t i = 1; i < count && !too_many; i++) {
        if (uses[i].object == uses[i - 1].object)
            uses[i].pages += uses[i - 1].pages;
        too_many = uses[i].pages > object_table_row(map->objects, uses[i].object)->live;
    }
    free(uses);
    return too_many;
}

/* The leaf in memory's form; nothing is counted but its bytes. */
static int leaf_build(struct map *map, uint64_t place, const struct leaf *leaf, struct map_leaf **ret_leaf,
                      struct error *error)
{
    if (map->pages == 0 || leaf->number > (map->pages - 1) / LEAF_PAGES)
        return refuse(map, leaf->number, "it lies behind the end of the disk", error);
    if (leaf->run_count == 0)
        return refuse(map, leaf->number, "it maps nothing", error);
    struct map_leaf *built = leaf_new(map, place);
    uint32_t at = 0, page = 0;
    const char *wrong = NULL;
    while (at < leaf->run_count && wrong == NULL)
        wrong = block_build(map, built, leaf, &at, &page);
    if (wrong != NULL) {
        char what[128];
        snprintf(what, sizeof what, "the run at page %u of it, of object %llu, %s", leaf->runs[at].first,
                 (unsigned long long)leaf->runs[at].object, wrong);
        leaf_free(map, built);
        return refuse(map, leaf->number, what, error);
    }
    if (names_too_many(map, built, leaf->run_count)) {
        leaf_free(map, built);
        return refuse(map, leaf->number, "it names more pages of an object than are in use", error);
    }
    *ret_leaf = built;
    return 0;
}

/* ---- arrival ---- */

bool map_leaf_missing(const struct map *map, uint64_t page, struct leaf_place *ret_place)
{
    assert(page < map->pages);
    const struct mid *mid = mid_at(map, page);
    uint64_t slot = mid == NULL ? HOLE : mid->slots[slot_in_mid(page)];
    if (slot == HOLE || slot_tag(slot) >= SLOT_CLEAN)
        return false;
    *ret_place = place_unpack(slot_place(slot));
    return true;
}

/* What a patched leaf becomes for the newest state: DIRTY, or a hole. */
static void install_patched(struct map *map, uint64_t number, struct map_leaf *leaf)
{
    struct mid *mid = map->mids[number / MID_LEAVES];
    uint64_t *slot = &mid->slots[number % MID_LEAVES];
    struct patch *patch = slot_patch(*slot);
    patch_apply(map, patch, leaf);
    if (leaf_is_empty(leaf)) {
        slot_make_hole(map, number, leaf->body.place, false);
        leaf_free(map, leaf);
    } else {
        slot_change(map, mid, slot, slot_of(leaf, SLOT_DIRTY));
    }
    patch_free(map, patch);
}

static void arrived_for_patch(struct map *map, uint64_t number, struct map_leaf *leaf)
{
    const struct patch *patch = slot_patch(map->mids[number / MID_LEAVES]->slots[number % MID_LEAVES]);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        block_charge(map, leaf->entries[i], patch_touched(patch, i), CHARGE_NEWEST);
    install_patched(map, number, leaf);
}

/* See map_patch.c for who owes what. */
static void arrived_for_snapshot(struct map *map, struct frozen *frozen, struct map_leaf *leaf)
{
    struct patch *patch = slot_patch(frozen->slot);
    struct mid *mid = map->mids[frozen->number / MID_LEAVES];
    uint64_t *slot = &mid->slots[frozen->number % MID_LEAVES];
    bool shared = !frozen->detached && *slot == frozen->slot;
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        uint32_t both = patch_touched(patch, i);
        uint32_t newest = frozen->detached ? UINT32_MAX : shared ? 0 : patch_touched(slot_patch(*slot), i);
        block_charge(map, leaf->entries[i], both, CHARGE_BOTH);
        block_charge(map, leaf->entries[i], newest & ~both, CHARGE_NEWEST);
    }
    if (!MUTANT(checkpoint_drops_patches))
        patch_apply(map, patch, leaf);
    frozen->slot = slot_of(leaf, SLOT_FROZEN);
    map->snapshot->patched--;
    if (shared)
        slot_change(map, mid, slot, frozen->slot);
    else if (!frozen->detached)
        install_patched(map, frozen->number, leaf_copy(map, leaf));
    patch_free(map, patch);
}

static void count_arrived(struct map *map, const struct map_leaf *leaf)
{
    map->arrived_bytes = (map->arrived_bytes * (ARRIVED_WEIGHT - 1) + leaf->body.bytes) / ARRIVED_WEIGHT;
}

/* The snapshot's leaf, or else the slot, that names the place and has not got what lies there; NULL and NULL: it is an
 * older leaf, or came along with another. */
static void find_waiter(const struct map *map, uint64_t number, uint64_t place, struct frozen **ret_frozen,
                        uint64_t **ret_slot)
{
    *ret_frozen = NULL;
    *ret_slot = NULL;
    struct mid *mid = number / MID_LEAVES < map->mid_count ? map->mids[number / MID_LEAVES] : NULL;
    if (mid == NULL)
        return;
    struct frozen *frozen = frozen_find(map, number);
    uint64_t *slot = &mid->slots[number % MID_LEAVES];
    if (frozen != NULL && slot_is_patch(frozen->slot) && slot_place(frozen->slot) == place)
        *ret_frozen = frozen;
    else if (*slot == place || (slot_is_patch(*slot) && slot_place(*slot) == place))
        *ret_slot = slot;
}

int map_leaf_arrived(struct map *map, const struct leaf_place *place, const struct leaf *leaf, bool wanted,
                     struct error *error)
{
    struct frozen *frozen;
    uint64_t *slot, packed = place_pack(place);
    find_waiter(map, leaf->number, packed, &frozen, &slot);
    bool optional = !wanted && frozen == NULL;
    if ((frozen == NULL && slot == NULL) || (optional && map->leaf_bytes >= map->budget))
        return 0;
    struct map_leaf *built;
    int status = leaf_build(map, packed, leaf, &built, error);
    if (status < 0)
        return status;
    count_arrived(map, built);
    /* Others make room, and before this one is in its slot; what is not wanted takes no room from others, so that it
     * does not drive out what came along with it and is. */
    if (wanted)
        evict_beyond_budget(map);
    if (frozen != NULL)
        arrived_for_snapshot(map, frozen, built);
    else if (optional && map->leaf_bytes > map->budget)
        leaf_free(map, built);
    else if (*slot == packed)
        slot_change(map, map->mids[leaf->number / MID_LEAVES], slot,
                    slot_of(built, wanted ? SLOT_CLEAN_ASKED : SLOT_CLEAN));
    else
        arrived_for_patch(map, leaf->number, built);
    return 0;
}

/* ---- a root's mids ---- */

static const char *place_wrong(const struct map *map, const struct leaf_place *place)
{
    if (place->object >= OBJECT_INDEX_MAX)
        return "names an object that is not there";
    if (place->start >= LOCATION_START_PAST || place->units == 0 || place->units >= LOCATION_UNITS_PAST)
        return "lies where no frame can";
    const struct object *object = object_table_row(map->objects, place->object);
    if (object->role != ROLE_PIECES)
        return "names an object that has no pieces";
    return object->live == 0 ? "names an object that is not in use" : NULL;
}

int map_restore_mid(struct map *map, uint64_t number, const struct leaf_place *slots, struct error *error)
{
    unsigned long long reported = number;
    if (number >= map->mid_count)
        return error_set(error, EBADMSG, "map mid %llu: it lies behind the end of the disk", reported);
    if (map->mids[number] != NULL)
        return error_set(error, EBADMSG, "map mid %llu: the root names it twice", reported);
    uint32_t used = 0;
    for (uint32_t i = 0; i < MID_LEAVES; i++) {
        if (slots[i].object == OBJECT_NONE)
            continue;
        const char *wrong = (number * MID_LEAVES + i) * LEAF_PAGES >= map->pages ? "lies behind the end of the disk"
                                                                                 : place_wrong(map, &slots[i]);
        if (wrong != NULL)
            return error_set(error, EBADMSG, "map mid %llu: leaf %u of it %s", reported, i, wrong);
        used++;
    }
    if (used == 0)
        return error_set(error, EBADMSG, "map mid %llu: it has no leaf", reported);
    struct mid *mid = mid_make(map, number);
    for (uint32_t i = 0; i < MID_LEAVES; i++)
        if (slots[i].object != OBJECT_NONE)
            slot_change(map, mid, &mid->slots[i], place_pack(&slots[i]));
    return 0;
}

void map_restore_mapped_pages(struct map *map, uint64_t pages)
{
    map->mapped_pages = pages;
}

/* ---- doomed leaves ---- */

void doomed_add(struct map *map, uint64_t place, uint64_t number)
{
    struct doomed_list *list = map->snapshot != NULL ? &map->doomed_later : &map->doomed;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->leaves = memory_resize(list->leaves, capacity, sizeof *list->leaves);
        map->memory_bytes += (capacity - list->capacity) * sizeof *list->leaves;
        list->capacity = capacity;
    }
    list->leaves[list->count++] = (struct doomed_leaf){ .place = place_unpack(place), .number = number };
}

static int compare_doomed(const void *left, const void *right)
{
    const struct doomed_leaf *a = left, *b = right;
    uint64_t place = place_pack(&a->place), other = place_pack(&b->place);
    if (place != other)
        return place < other ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

struct doomed_leaf *map_take_doomed(struct map *map, size_t *ret_count)
{
    struct doomed_leaf *leaves = map->doomed.leaves;
    *ret_count = map->doomed.count;
    if (map->doomed.count > 0)
        qsort(leaves, map->doomed.count, sizeof *leaves, compare_doomed);
    map->memory_bytes -= map->doomed.capacity * sizeof *leaves;
    map->doomed = (struct doomed_list){ 0 };
    return leaves;
}

int map_charge_doomed(struct map *map, const struct doomed_leaf *doomed, const struct leaf *leaf, struct error *error)
{
    if (leaf->number != doomed->number)
        return refuse(map, leaf->number, "another leaf should lie there", error);
    struct map_leaf *built;
    int status = leaf_build(map, place_pack(&doomed->place), leaf, &built, error);
    if (status < 0)
        return status;
    leaf_charge(map, built, CHARGE_BOTH);
    leaf_free(map, built);
    object_table_live_both(map->objects, doomed->place.object, -1);
    return 0;
}
