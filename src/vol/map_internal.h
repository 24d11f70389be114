/* What the files of the map share: see map.h for what it is, and here for how it lies in memory.
 *
 *     map.c           levels and slots; asking and folding
 *     map_leaf.c      blocks and leaves: packing, cutting, copying
 *     map_patch.c     changes of leaves that are not in memory
 *     map_load.c      leaves arrive and are evicted; mids of a root; doomed leaves
 *     map_snapshot.c  the map as of some moment, while folding goes on
 *     map_audit.c     whether it all agrees, for tests
 *
 *     top    one pointer per mid, an array as long as the disk needs
 *     mid    one slot per leaf, 1,024 of them: 2 GiB of disk
 *     leaf   one entry per block, 16 of them: 2 MiB of disk
 *
 * **Slots** are 64 bits: pointers are aligned to 8 bytes, so the low three say what it is.
 *
 *     HOLE           0        nothing
 *     STORED         place    not in memory: object 26 | start 18 | units 12 | tag 3
 *     PATCH          pointer  to a patch: a stored leaf, not in memory, and what to change when it arrives
 *     PATCH_FROZEN   pointer  the same, shared with the snapshot; nobody changes it
 *     CLEAN          pointer  to a leaf that is equal to what is stored
 *     CLEAN_ASKED    pointer  the same, asked for since the evicting hand passed it
 *     DIRTY          pointer  to a leaf that is not
 *     FROZEN         pointer  the same, shared with the snapshot; nobody changes it
 *
 *     HOLE ──map_set──> DIRTY ──begin──> FROZEN ──placed──> CLEAN <──evicted, arrived──> STORED ──folded into──> PATCH
 *                         ^                │                  │                                                   │
 *                         │<──folded into──┘ (a copy)         │                                                   │
 *                         │<───────folded into────────────────┘                                                   │
 *                         │<──────────────────────────────────arrived─────────────────────────────────────────────┘
 *
 *     PATCH ──begin──> PATCH_FROZEN ──arrived──> FROZEN;  folded into: a PATCH on top of it
 *
 * Everything can become a hole by folding.  A STORED leaf or a patch that does is doomed, unless the snapshot waits for
 * that leaf anyway: then it is charged when it arrives.
 *
 * **Entries** are 64 bits:
 *
 *     0                       the whole block is a hole
 *     … | TAG_RUN             a packed run of all 32 pages of a frame, in order
 *     address | TAG_TABLE     a table of runs
 *
 * and a packed run, from the lowest bit on:
 *
 *     tag 3 | page in frame 5 | units 12 | start 18 | object 26
 *
 * A table holds two bitmaps of the block's pages, which are mapped and which
 * begin a run, then the packed runs in order, then a byte for each with the
 * number of pages in its frame, for which the 64 bits have no room.  The run of
 * a page is found by counting bits, without a search; a block that has one
 * scattered page costs 17 bytes, the worst block 296.
 *
 * Invariants, which map_audit() checks:
 *   - forms are canonical: neighbouring runs that could be one are one, and a
 *     table that could be a packed run or a hole does not exist;
 *   - no leaf without an entry, except a frozen one; no mid without a slot in
 *     use, except where a checkpoint must say so;
 *   - for each object: pages mapped by leaves in memory, by patches where no
 *     patch above hides them, and by the stored leaves of STORED slots, of
 *     patches and of doomed leaves == its live count, as this map is the object
 *     table's only one.  New pages are counted before old ones are given back,
 *     so an object that replaces itself does not die of it;
 *   - for each piece's object: slots, doomed leaves, frozen leaves that the
 *     newest state has dropped, and pieces to be released == its live count, as
 *     far as leaves go. */
#ifndef CAIRN_VOL_MAP_INTERNAL_H
#define CAIRN_VOL_MAP_INTERNAL_H

#include <assert.h>
#include <stddef.h>

#include "vol/map.h"

#define MID_PAGES ((uint64_t)MID_LEAVES * LEAF_PAGES)

#define TAG_BITS 3
#define TAG_MASK UINT64_C(7)
#define TAG_RUN UINT64_C(1)
#define TAG_TABLE UINT64_C(2)
#define HOLE UINT64_C(0)

#define RUNS_MAX BLOCK_PAGES /* they are disjoint, and none is empty */

enum slot_tag {
    SLOT_HOLE = 0,
    SLOT_STORED,
    SLOT_PATCH,
    SLOT_PATCH_FROZEN,
    SLOT_CLEAN, /* from here on: in memory */
    SLOT_CLEAN_ASKED,
    SLOT_DIRTY,
    SLOT_FROZEN,
};

/* What leaves and patches have in common. */
struct body {
    uint64_t place; /* where the leaf is stored, as a STORED slot; HOLE: nowhere */
    uint32_t bytes; /* of memory, its tables among them */
};

struct map_leaf {
    struct body body;
    uint64_t entries[LEAF_BLOCKS];
};

struct patch_block {
    uint64_t entry;   /* what is mapped now, of the pages that were touched */
    uint32_t touched; /* pages */
    uint32_t block;
};

struct patch {
    struct body body;
    struct patch *under; /* of the snapshot: it comes first; NULL: none */
    uint32_t block_count;
    struct patch_block blocks[]; /* in no order; each block once */
};

struct mid {
    uint16_t used, clean, unclean; /* slots; used: all but holes; unclean: those that begin freezes */
    bool dirty;                    /* to be written by the next checkpoint, whatever its leaves are */
    bool snapshot_dirty;           /* and by the one under way */
    uint64_t *kept;                /* places as of the snapshot; NULL: those of `slots` */
    uint64_t slots[MID_LEAVES];
};

struct table {
    uint32_t mapped, starts;
    uint64_t runs[]; /* packed; behind them a byte for each: its frame's pages */
};

struct run {
    uint32_t first, count;    /* pages of the block */
    struct location location; /* of the first */
};

struct doomed_list {
    struct doomed_leaf *leaves;
    size_t count, capacity;
};

/* A leaf of the snapshot. */
struct frozen {
    uint64_t slot;   /* FROZEN or PATCH_FROZEN; HOLE: placed, nothing is kept of it here */
    uint32_t number; /* of the leaf */
    bool detached;   /* the newest state has dropped it since begin: what it has now is not built on this leaf */
};

struct map_snapshot {
    struct frozen *frozen; /* ascending */
    size_t count, unplaced, patched;
    uint64_t mapped_pages;
    uint64_t *released; /* places of pieces that the newest state has given up, as STORED slots */
    size_t released_count, released_capacity;
    struct leaf_run runs[LEAF_PAGES]; /* what next() gives */
};

struct map {
    struct object_table *objects;
    uint64_t pages;
    uint64_t mapped_pages;
    uint64_t memory_bytes; /* of all there is */
    uint64_t leaf_bytes;   /* of leaves and patches */
    uint64_t clean_bytes;  /* of CLEAN leaves */
    uint64_t budget;       /* for leaf_bytes */
    uint64_t patches;
    uint64_t arrived_bytes;                  /* of a leaf that arrived: a moving average */
    uint64_t hand;                           /* number of the leaf that eviction looks at next */
    struct doomed_list doomed, doomed_later; /* later: since the snapshot began */
    struct map_snapshot *snapshot;           /* NULL: none */
    uint64_t mid_count;
    struct mid *mids[];
};

/* For whom pages are given back. */
enum charge { CHARGE_NOBODY, CHARGE_NEWEST, CHARGE_BOTH };

/* ---- slots and places ---- */

static inline enum slot_tag slot_tag(uint64_t slot)
{
    return (enum slot_tag)(slot & TAG_MASK);
}

static inline bool slot_is_clean(uint64_t slot)
{
    return slot_tag(slot) == SLOT_CLEAN || slot_tag(slot) == SLOT_CLEAN_ASKED;
}

static inline struct map_leaf *slot_leaf(uint64_t slot)
{
    assert(slot_tag(slot) >= SLOT_CLEAN);
    return (struct map_leaf *)(uintptr_t)(slot & ~TAG_MASK);
}

static inline bool slot_is_patch(uint64_t slot)
{
    return slot_tag(slot) == SLOT_PATCH || slot_tag(slot) == SLOT_PATCH_FROZEN;
}

static inline struct patch *slot_patch(uint64_t slot)
{
    assert(slot_is_patch(slot));
    return (struct patch *)(uintptr_t)(slot & ~TAG_MASK);
}

static inline uint64_t slot_of(const void *body, enum slot_tag tag)
{
    return (uint64_t)(uintptr_t)body | tag;
}

/* Where the slot's leaf is stored; HOLE: nowhere. */
static inline uint64_t slot_place(uint64_t slot)
{
    if (slot_tag(slot) <= SLOT_STORED)
        return slot;
    return ((const struct body *)(uintptr_t)(slot & ~TAG_MASK))->place;
}

static inline uint64_t place_pack(const struct leaf_place *place)
{
    return (((uint64_t)place->object << 18 | place->start) << 12 | place->units) << TAG_BITS | SLOT_STORED;
}

static inline struct leaf_place place_unpack(uint64_t place)
{
    assert(slot_tag(place) == SLOT_STORED);
    return (struct leaf_place){ .object = (uint32_t)(place >> (TAG_BITS + 12 + 18)),
                                .start = (uint32_t)(place >> (TAG_BITS + 12)) & (LOCATION_START_PAST - 1),
                                .units = (uint32_t)(place >> TAG_BITS) & (LOCATION_UNITS_PAST - 1) };
}

/* ---- map.c ---- */

static inline struct mid *mid_at(const struct map *map, uint64_t page)
{
    return map->mids[page / MID_PAGES];
}

static inline uint32_t slot_in_mid(uint64_t page)
{
    return (uint32_t)(page / LEAF_PAGES % MID_LEAVES);
}

/* Pages of leaf `number` that the disk has. */
static inline uint32_t leaf_pages(const struct map *map, uint64_t number)
{
    uint64_t left = map->pages - number * LEAF_PAGES;
    return left < LEAF_PAGES ? (uint32_t)left : LEAF_PAGES;
}

struct mid *mid_make(struct map *map, uint64_t number);
/* Frees the mid if there is nothing left in it, or to say of it. */
void mid_prune(struct map *map, uint64_t number);
/* Changes a slot and all that is counted of slots.  A leaf that is or becomes CLEAN has its full size now. */
void slot_change(struct map *map, struct mid *mid, uint64_t *slot, uint64_t to);
/* The slot becomes a hole; what it had is the caller's to free, after this.  doomed: somebody else answers for the
 * piece at `place`; otherwise it is given back. */
void slot_make_hole(struct map *map, uint64_t number, uint64_t place, bool doomed);
/* Of that object, `pages` are mapped no more. */
static inline void give_back(struct map *map, uint32_t object, uint32_t pages, enum charge charge)
{
    if (charge == CHARGE_NOBODY)
        return;
    map->mapped_pages -= pages;
    if (charge == CHARGE_NEWEST) {
        object_table_live(map->objects, object, -(int32_t)pages);
        return;
    }
    object_table_live_both(map->objects, object, -(int32_t)pages);
    if (map->snapshot != NULL)
        map->snapshot->mapped_pages -= pages;
}

/* ---- map_leaf.c ---- */

static inline size_t table_bytes(uint32_t runs)
{
    return sizeof(struct table) + runs * (sizeof(uint64_t) + 1);
}

/* In memory, at most. */
#define LEAF_BYTES_MAX (sizeof(struct map_leaf) + LEAF_BLOCKS * table_bytes(RUNS_MAX))

static inline uint32_t table_runs(const struct table *table)
{
    return (uint32_t)__builtin_popcount(table->starts);
}

static inline uint8_t *table_frame_pages(const struct table *table, uint32_t runs)
{
    return (uint8_t *)(uintptr_t)(table->runs + runs);
}

static inline struct table *entry_table(uint64_t entry)
{
    return (entry & TAG_MASK) == TAG_TABLE ? (struct table *)(uintptr_t)(entry & ~TAG_MASK) : NULL;
}

/* Bits 0 to `bit`. */
static inline uint32_t bits_through(uint32_t bit)
{
    return UINT32_MAX >> (BLOCK_PAGES - 1 - bit);
}

/* `count` bits from `first` on; at least one. */
static inline uint32_t bits_of(uint32_t first, uint32_t count)
{
    return bits_through(count - 1) << first;
}

static inline uint32_t lowest_bit(uint32_t bits)
{
    return bits == 0 ? BLOCK_PAGES : (uint32_t)__builtin_ctz(bits);
}

static inline struct location unpack_run(uint64_t word, uint8_t frame_pages)
{
    assert((word & TAG_MASK) == TAG_RUN);
    return (struct location){
        .object = (uint32_t)(word >> (TAG_BITS + 5 + 12 + 18)),
        .start = (uint32_t)(word >> (TAG_BITS + 5 + 12)) & (LOCATION_START_PAST - 1),
        .units = (uint32_t)(word >> (TAG_BITS + 5)) & (LOCATION_UNITS_PAST - 1),
        .frame_page = (uint8_t)(word >> TAG_BITS) & (BLOCK_PAGES - 1),
        .frame_pages = frame_pages,
    };
}

static inline void body_grow(struct map *map, struct body *body, size_t bytes)
{
    body->bytes += (uint32_t)bytes;
    map->leaf_bytes += bytes;
    map->memory_bytes += bytes;
}

static inline void body_shrink(struct map *map, struct body *body, size_t bytes)
{
    assert(body->bytes >= bytes && map->leaf_bytes >= bytes);
    body->bytes -= (uint32_t)bytes;
    map->leaf_bytes -= bytes;
    map->memory_bytes -= bytes;
}

/* A block is an entry of a leaf or of a patch, `body`.  Pages are those of the block. */
uint32_t block_read(uint64_t entry, struct run runs[RUNS_MAX]);
/* Replaces *entry by the smallest form of `runs`. */
void block_write(struct map *map, struct body *body, uint64_t *entry, struct run *runs, uint32_t count);
/* Takes pages [from, past) out of `runs`, in place. */
uint32_t cut_runs(struct map *map, struct run runs[RUNS_MAX], uint32_t count, uint32_t from, uint32_t past,
                  enum charge charge);
/* Puts a run between others, where no page of it is mapped. */
uint32_t insert_run(struct run runs[RUNS_MAX], uint32_t count, const struct run *run);
void block_set(struct map *map, struct body *body, uint64_t *entry, uint32_t page, uint32_t count,
               const struct location *first);
void block_clear(struct map *map, struct body *body, uint64_t *entry, uint32_t from, uint32_t past);
uint32_t block_mapped(uint64_t entry);
/* Gives back those of `pages` that are mapped; changes nothing of the entry. */
void block_charge(struct map *map, uint64_t entry, uint32_t pages, enum charge charge);
void block_free(struct map *map, struct body *body, uint64_t entry);

struct map_leaf *leaf_new(struct map *map, uint64_t place);
struct map_leaf *leaf_copy(struct map *map, const struct map_leaf *leaf);
void leaf_free(struct map *map, struct map_leaf *leaf);
bool leaf_is_empty(const struct map_leaf *leaf);
bool leaf_maps(const struct map_leaf *leaf, uint32_t from, uint32_t past); /* any of these pages */
void leaf_clear(struct map *map, struct map_leaf *leaf, uint32_t from, uint32_t past);
void leaf_charge(struct map *map, const struct map_leaf *leaf, enum charge charge); /* all pages of it */

/* ---- map_patch.c ---- */

/* Of the leaf stored at `place`; under: the snapshot's patch of it, or NULL. */
struct patch *patch_new(struct map *map, uint64_t place, struct patch *under);
void patch_free(struct map *map, struct patch *patch); /* without `under` */
/* Pages are those of the leaf; a patch that grows may move. */
void patch_set(struct map *map, struct patch **patch, uint32_t page, uint32_t count, const struct location *first);
void patch_clear(struct map *map, struct patch **patch, uint32_t from, uint32_t past);
/* Pages of the block that the patch, or the one under it, touches. */
uint32_t patch_touched(const struct patch *patch, uint32_t block);
/* Gives back what the patch maps, and what the one under it maps where nothing hides it: for the newest state. */
void patch_charge(struct map *map, const struct patch *patch);
/* Makes the leaf what it is with the patch (not with the one under it); counts nothing. */
void patch_apply(struct map *map, const struct patch *patch, struct map_leaf *leaf);

/* ---- map_load.c ---- */

/* Evicts until the budget holds, or nothing is left to evict. */
void evict_beyond_budget(struct map *map);
void doomed_add(struct map *map, uint64_t place, uint64_t number);

/* ---- map_snapshot.c ---- */

/* The leaf in the snapshot; NULL: it is not frozen, or there is no snapshot. */
struct frozen *frozen_find(const struct map *map, uint64_t number);
/* Before a slot becomes a hole: the snapshot goes on knowing the places of the mid. */
void snapshot_keep(struct map *map, struct mid *mid);
/* The newest state names a piece no more. */
void piece_give_back(struct map *map, uint64_t place);
void snapshot_free(struct map *map);

#endif
