/* The committed map: page of the disk to where its committed content lies.
 *
 * Three levels: a leaf maps 2 MiB (16 blocks of 32 pages), a mid 1,024 leaves,
 * the top all mids of the disk.  A block's entry is 8 bytes: a hole, one whole
 * frame that holds all 32 pages in order, or a table of runs: consecutive
 * pages of one frame.  A run locates its frame by itself: short object index,
 * start and length in units, page in frame, and how many pages the frame has.
 *
 * The map keeps the object table's live counts right: whatever stops being
 * mapped is given back to its object (object_table_live()).
 * Folding never parks. */
#ifndef CAIRN_VOL_MAP_H
#define CAIRN_VOL_MAP_H

#include <stdint.h>

#include "vol/object_table.h"

struct map;

/* What an entry has room for: frames begin below 16 MiB and have at most 256 KiB.  Whoever makes locations of what a
 * store said checks them first: location_valid(). */
#define LOCATION_START_PAST (1u << 18)
#define LOCATION_UNITS_PAST (1u << 12)

/* One page's location. */
struct location {
    uint32_t object;     /* short index in the object table; OBJECT_NONE: a hole */
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

struct map *map_new(struct object_table *objects, uint64_t pages);
void map_free(struct map *map); /* without touching live counts */

/* Where `page` lies.  ret_run: how many pages from it on, at most `limit` and up to the disk's end, are given by the
 * same answer: a run of holes (cheap over whole missing leaves and mids), or consecutive pages of one frame. */
struct location map_lookup(const struct map *map, uint64_t page, uint64_t limit, uint64_t *ret_run);

/* `count` pages from `page` on, within one block, are now pages frame_page.. of that frame; location_valid(). */
void map_set(struct map *map, uint64_t page, uint32_t count, const struct location *first);
/* `count` pages from `page` on are holes; whole leaves and mids go at once. */
void map_clear(struct map *map, uint64_t page, uint64_t count);
/* Visits runs of mapped pages in order: for tests, dump and statistics. */
void map_walk(const struct map *map,
              void (*visit)(void *arg, uint64_t page, uint32_t count, const struct location *first), void *arg);

uint64_t map_mapped_pages(const struct map *map);
uint64_t map_memory_bytes(const struct map *map); /* as asked of malloc */

#endif
