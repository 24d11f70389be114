/* The committed map: page of the disk to where its committed content lies.
 *
 * Three levels: a leaf maps 2 MiB (16 blocks of 32 pages), a mid 1,024 leaves,
 * the top all mids of the disk.  A block's entry is 8 bytes: a hole, one whole
 * frame that holds all 32 pages in order, or a table of runs: consecutive
 * pages of one frame.  A run locates its frame by itself: short object index,
 * start and length in units, page in frame, and how many pages the frame has.
 *
 * Top and mids stay in memory, leaves come and go.  A leaf's slot in its mid is
 *
 *     a hole      nothing of its 2 MiB is mapped
 *     STORED      not in memory: where it lies in the store
 *     CLEAN       in memory, and equal to what lies in the store: may be evicted
 *     DIRTY       in memory, and differs from what lies in the store, or nothing lies there
 *     PATCHED     not in memory, but changed: where it lies, and what to change when it arrives
 *
 * The map keeps the object table's live counts right: whatever stops being
 * mapped is given back to its object (object_table_live()), and so are the
 * pieces in which leaves lie.  Of a leaf that is not in memory that happens
 * later: new pages of a patch count at once, what they replace counts when the
 * leaf arrives; and a leaf that is cleared whole without being in memory is
 * **doomed**: its pages count until it was read and charged.
 *
 * Folding (map_set, map_clear) never parks; nothing here does. */
#ifndef CAIRN_VOL_MAP_H
#define CAIRN_VOL_MAP_H

#include <stdint.h>

#include "vol/object_table.h"

struct map;

/* What an entry has room for: frames begin below 16 MiB and have at most 256 KiB.  Whoever makes locations of what a
 * store said checks them first: location_valid(). */
#define LOCATION_START_PAST (1u << 18)
#define LOCATION_UNITS_PAST (1u << 12)

#define OBJECT_UNLOADED (UINT32_MAX - 1) /* in a location: the leaf must be loaded first */

/* One page's location. */
struct location {
    uint32_t object;     /* short index in the object table; OBJECT_NONE: a hole; OBJECT_UNLOADED */
    uint32_t start;      /* FRAME_UNITs */
    uint32_t units;      /* of the whole frame */
    uint8_t frame_page;  /* 0 to 31 */
    uint8_t frame_pages; /* 1 to 32 */
};

/* `count` pages from this one on fit an entry and the frame. */
static inline bool location_valid(const struct location *first, uint32_t count)
{
    return first->object < OBJECT_INDEX_MAX && first->start < LOCATION_START_PAST && first->units > 0 &&
           first->units < LOCATION_UNITS_PAST && count > 0 && first->frame_pages <= BLOCK_PAGES &&
           first->frame_page < first->frame_pages && count <= (uint32_t)first->frame_pages - first->frame_page;
}

/* Where the frame lies that a leaf is in. */
struct leaf_place {
    uint32_t object;       /* short index; its row lives as long as the map names the place; OBJECT_NONE: nowhere */
    uint32_t start, units; /* FRAME_UNITs; of the whole frame: up to PIECE_UNITS_MAX */
};

struct map *map_new(struct object_table *objects, uint64_t pages);
void map_free(struct map *map); /* without touching live counts; at any time, during a snapshot too */

/* Where `page` lies.  ret_run: how many pages from it on, at most `limit` and up to the disk's end, are given by the
 * same answer: a run of holes (cheap over whole missing leaves and mids), consecutive pages of one frame, or the rest
 * of a leaf that is not in memory. */
struct location map_lookup(const struct map *map, uint64_t page, uint64_t limit, uint64_t *ret_run);

/* `count` pages from `page` on, within one block, are now pages frame_page.. of that frame; location_valid(). */
void map_set(struct map *map, uint64_t page, uint32_t count, const struct location *first);
/* `count` pages from `page` on are holes; whole leaves and mids go at once. */
void map_clear(struct map *map, uint64_t page, uint64_t count);
/* Visits runs of mapped pages in order, of the leaves in memory: for tests, dump and statistics. */
void map_walk(const struct map *map,
              void (*visit)(void *arg, uint64_t page, uint32_t count, const struct location *first), void *arg);

/* Too high as long as patched leaves have not arrived and doomed ones are not charged; exact otherwise. */
uint64_t map_mapped_pages(const struct map *map);
uint64_t map_memory_bytes(const struct map *map); /* as asked of malloc */

/* ---- leaves that come and go (map_load.c) ---- */

/* Where the leaf of `page` must be loaded from. false: it needs no loading. */
bool map_leaf_missing(const struct map *map, uint64_t page, struct leaf_place *ret_place);
/* A leaf was read from `place`: if its slot, or the snapshot's leaf, still names that place and waits, it is filled and
 * its patches are applied.  Otherwise nothing happens: it is an older one, or came along with another.
 * wanted: somebody waits for it; otherwise it stays only where the budget has room, or where the snapshot needs it.
 * -EBADMSG with a story when it does not fit this disk, names an object that does not live, or more pages of one than
 * live; nothing was changed then. */
int map_leaf_arrived(struct map *map, const struct leaf_place *place, const struct leaf *leaf, bool wanted,
                     struct error *error);

/* Bytes of leaves and patches in memory, at most: CLEAN leaves are evicted beyond it, those that were not asked for
 * since the last time first.  DIRTY and PATCHED ones are not: checkpoints make them CLEAN.  No budget at first. */
void map_set_budget(struct map *map, uint64_t bytes);
uint64_t map_leaf_bytes(const struct map *map);
/* Of those that cannot be evicted; PATCHED ones as they will be in memory, by what leaves that arrived had. */
uint64_t map_dirty_bytes(const struct map *map);
/* Evicts CLEAN leaves, of so many bytes at least if there are; what was freed. */
uint64_t map_evict(struct map *map, uint64_t bytes);

/* While a volume is opened: a mid as the root names it, MID_LEAVES places.  Counts are those of the restored rows, and
 * do not change.  -EBADMSG: no such mid on this disk, restored already, without a leaf, or a place that cannot be. */
int map_restore_mid(struct map *map, uint64_t number, const struct leaf_place *slots, struct error *error);
void map_restore_mapped_pages(struct map *map, uint64_t pages);

struct doomed_leaf {
    struct leaf_place place;
    uint64_t number; /* of the leaf */
};
/* Takes the list, sorted by place; the caller charges each and frees the array.  NULL and 0: none.  During a snapshot:
 * those that were doomed when it began; what is doomed since is there when it has ended. */
struct doomed_leaf *map_take_doomed(struct map *map, size_t *ret_count);
/* All that the leaf maps, and the leaf itself as a piece, is given back (object_table_live_both()).  -EBADMSG as
 * map_leaf_arrived(), or another leaf's number. */
int map_charge_doomed(struct map *map, const struct doomed_leaf *doomed, const struct leaf *leaf, struct error *error);

/* ---- snapshots (map_snapshot.c) ----
 *
 * The map as of begin, for a checkpoint, while folding goes on; one at a time, together with one of the object table
 * (begun and ended without a park between the two).  The order of things:
 *
 *     begin, map_take_doomed() and charge those, next() until 0 and placed() for each, mids(), end
 *
 * Begin freezes DIRTY and PATCHED leaves.  A fold into a frozen leaf first gives the newest state a copy of its own, or
 * a patch on top of the frozen one.  What frozen leaves owe to the object table goes through object_table_live_both(),
 * all later changes through object_table_live().  Pieces that the newest state gives up meanwhile are given back at
 * the end, so that no object of this checkpoint dies while it is being filled. */

void map_snapshot_begin(struct map *map);
/* The next frozen leaf, ascending, from `*cursor` on (0 at first; advanced):
 *   1        *ret_leaf is its content; runs valid until the next call for this map; 0 runs: it has become a hole;
 *   0        none is left;
 *   -EAGAIN  it is not in memory: load *ret_place (map_leaf_arrived), and call again. */
int map_snapshot_next(struct map *map, uint64_t *cursor, struct leaf *ret_leaf, struct leaf_place *ret_place);
/* Places of frozen leaves that are not in memory, from `cursor` on, each once and at most `capacity`, so that loads run
 * ahead of the writer.  Looks ahead a bounded way: 0 does not say that there is none. */
uint32_t map_snapshot_ahead(const struct map *map, uint64_t cursor, struct leaf_place *ret_places, uint32_t capacity);
/* A frozen leaf that next() gave has a new place, whose object is durable in the store: the new piece counts, the old
 * one does so no more.  Where the newest state has not changed it since begin it is CLEAN now; else it goes on from
 * there.  units 0: it had no runs, and lies nowhere. */
void map_snapshot_placed(struct map *map, uint64_t number, const struct leaf_place *place);
/* Mids that must be written, ascending, once all frozen leaves are placed: slots (MID_LEAVES of them) as of the
 * snapshot; NULL: all holes now, the root names it no more. */
typedef void map_visit_mid(void *arg, uint64_t number, const struct leaf_place *slots);
void map_snapshot_mids(const struct map *map, map_visit_mid *visit, void *arg);
/* All mids that have leaves, for a checkpoint that writes everything anew. */
void map_snapshot_all_mids(const struct map *map, map_visit_mid *visit, void *arg);
/* Once all frozen leaves are placed and all doomed ones charged. */
uint64_t map_snapshot_mapped_pages(const struct map *map);
/* The root that names all this is published.  Before object_table_snapshot_end() or after. */
void map_snapshot_end(struct map *map);

/* ---- for tests (map_audit.c) ---- */

/* Aborts unless all counts and sizes agree with what is there; and live counts, those of the snapshot too, with what is
 * mapped.  `stored` gives the content of a leaf that is not in memory.  Whatever map_take_doomed() gave must be
 * charged. pieces_too: all live pieces are leaves (no mids, no chunks), so that their counts must agree as well. */
struct map_audit {
    void (*stored)(void *arg, const struct leaf_place *place, uint64_t number, struct leaf *ret_leaf);
    void *arg;
    bool pieces_too;
};
void map_audit(const struct map *map, const struct map_audit *audit);

#endif
