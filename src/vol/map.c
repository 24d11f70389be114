/* See map.h.
 *
 *     top    one pointer per mid, an array as long as the disk needs
 *     mid    one pointer per leaf, 1,024 of them: 2 GiB of disk
 *     leaf   one entry per block, 16 of them: 2 MiB of disk
 *
 * NULL pointers are holes at every level, so an empty disk costs the top alone.
 * An entry is 64 bits:
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
 * Whatever changes a block unpacks it into runs, cuts and inserts, and packs
 * the result into the smallest form; so forms never need repair, and entries
 * that became holes free their leaf and mid.
 *
 * Invariants:
 *   - forms are canonical: neighbouring runs that could be one are one, and a
 *     table that could be a packed run or a hole does not exist;
 *   - no leaf without an entry, no mid without a leaf;
 *   - sum of mapped pages per object == its live_pages, where this map is the
 *     object table's only one.  New pages are counted before old ones are
 *     given back, so an object that replaces itself does not die of it.
 *
 * Pointers to leaves and mids are reached through one place each (leaf_at,
 * leaf_make), and their low bits are free: a leaf that is in the store only is
 * to become a tagged location there. */
#include "vol/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define LEAF_BLOCKS 16u
#define MID_LEAVES 1024u
#define LEAF_PAGES (LEAF_BLOCKS * BLOCK_PAGES)
#define MID_PAGES ((uint64_t)MID_LEAVES * LEAF_PAGES)

#define TAG_BITS 3
#define TAG_MASK UINT64_C(7)
#define TAG_RUN UINT64_C(1)
#define TAG_TABLE UINT64_C(2)
#define HOLE UINT64_C(0)

#define RUNS_MAX BLOCK_PAGES /* they are disjoint, and none is empty */

struct leaf {
    uint64_t entries[LEAF_BLOCKS];
};

struct mid {
    uint32_t used;
    struct leaf *leaves[MID_LEAVES];
};

struct map {
    struct object_table *objects;
    uint64_t pages;
    uint64_t mapped_pages;
    uint64_t memory_bytes;
    uint64_t mid_count;
    struct mid *mids[];
};

struct table {
    uint32_t mapped, starts;
    uint64_t runs[]; /* packed; behind them a byte for each: its frame's pages */
};

struct run {
    uint32_t first, count;    /* pages of the block */
    struct location location; /* of the first */
};

/* ---- packing ---- */

static uint64_t pack_run(const struct location *location)
{
    uint64_t word = location->object;
    word = word << 18 | location->start;
    word = word << 12 | location->units;
    word = word << 5 | location->frame_page;
    return word << TAG_BITS | TAG_RUN;
}

static struct location unpack_run(uint64_t word, uint8_t frame_pages)
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

static size_t table_bytes(uint32_t runs)
{
    return sizeof(struct table) + runs * (sizeof(uint64_t) + 1);
}

static uint32_t table_runs(const struct table *table)
{
    return (uint32_t)__builtin_popcount(table->starts);
}

static uint8_t *table_frame_pages(const struct table *table, uint32_t runs)
{
    return (uint8_t *)(uintptr_t)(table->runs + runs);
}

static struct table *entry_table(uint64_t entry)
{
    return (entry & TAG_MASK) == TAG_TABLE ? (struct table *)(uintptr_t)(entry & ~TAG_MASK) : NULL;
}

/* Bits 0 to `bit`. */
static uint32_t bits_through(uint32_t bit)
{
    return UINT32_MAX >> (BLOCK_PAGES - 1 - bit);
}

static uint32_t lowest_bit(uint32_t bits)
{
    return bits == 0 ? BLOCK_PAGES : (uint32_t)__builtin_ctz(bits);
}

static uint32_t block_read(uint64_t entry, struct run runs[RUNS_MAX])
{
    if (entry == HOLE)
        return 0;
    const struct table *table = entry_table(entry);
    if (table == NULL) {
        runs[0] = (struct run){ .first = 0, .count = BLOCK_PAGES, .location = unpack_run(entry, BLOCK_PAGES) };
        return 1;
    }
    uint32_t count = table_runs(table), ends = table->starts | ~table->mapped, at = 0;
    const uint8_t *frame_pages = table_frame_pages(table, count);
    for (uint32_t starts = table->starts; starts != 0; starts &= starts - 1) {
        uint32_t first = lowest_bit(starts);
        uint32_t past = lowest_bit(ends & ~bits_through(first));
        runs[at].first = first;
        runs[at].count = past - first;
        runs[at].location = unpack_run(table->runs[at], frame_pages[at]);
        at++;
    }
    assert(at == count);
    return count;
}

static bool runs_join(const struct run *left, const struct run *right)
{
    const struct location *a = &left->location, *b = &right->location;
    return left->first + left->count == right->first && a->object == b->object && a->start == b->start &&
           a->units == b->units && a->frame_pages == b->frame_pages && a->frame_page + left->count == b->frame_page;
}

static uint32_t join_runs(struct run *runs, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (kept > 0 && runs_join(&runs[kept - 1], &runs[i]))
            runs[kept - 1].count += runs[i].count;
        else
            runs[kept++] = runs[i];
    }
    return kept;
}

static void table_free(struct map *map, uint64_t entry)
{
    struct table *table = entry_table(entry);
    if (table == NULL)
        return;
    map->memory_bytes -= table_bytes(table_runs(table));
    free(table);
}

/* Replaces *entry by the smallest form of `runs`. */
static void block_write(struct map *map, uint64_t *entry, struct run *runs, uint32_t count)
{
    count = join_runs(runs, count);
    bool whole = count == 1 && runs[0].count == BLOCK_PAGES && runs[0].location.frame_pages == BLOCK_PAGES;
    if (count == 0 || whole) {
        table_free(map, *entry);
        *entry = whole ? pack_run(&runs[0].location) : HOLE;
        return;
    }
    struct table *table = entry_table(*entry);
    if (table == NULL || table_runs(table) != count) {
        table_free(map, *entry);
        table = memory_new(table_bytes(count));
        map->memory_bytes += table_bytes(count);
        *entry = (uint64_t)(uintptr_t)table | TAG_TABLE;
    }
    uint8_t *frame_pages = table_frame_pages(table, count);
    table->mapped = table->starts = 0;
    for (uint32_t i = 0; i < count; i++) {
        table->starts |= UINT32_C(1) << runs[i].first;
        table->mapped |= bits_through(runs[i].count - 1) << runs[i].first;
        table->runs[i] = pack_run(&runs[i].location);
        frame_pages[i] = runs[i].location.frame_pages;
    }
}

/* ---- the levels ---- */

static struct mid *mid_at(const struct map *map, uint64_t page)
{
    return map->mids[page / MID_PAGES];
}

static struct leaf *leaf_at(const struct mid *mid, uint64_t page)
{
    return mid->leaves[page / LEAF_PAGES % MID_LEAVES];
}

static uint32_t entry_of(uint64_t page)
{
    return (uint32_t)(page / BLOCK_PAGES % LEAF_BLOCKS);
}

static struct leaf *leaf_make(struct map *map, uint64_t page)
{
    struct mid **mid = &map->mids[page / MID_PAGES];
    if (*mid == NULL) {
        *mid = memory_new(sizeof **mid);
        map->memory_bytes += sizeof **mid;
    }
    struct leaf **leaf = &(*mid)->leaves[page / LEAF_PAGES % MID_LEAVES];
    if (*leaf == NULL) {
        *leaf = memory_new(sizeof **leaf);
        map->memory_bytes += sizeof **leaf;
        (*mid)->used++;
    }
    return *leaf;
}

/* Frees the leaf of `page`, and its mid, when there is nothing left in them. */
static void leaf_prune(struct map *map, uint64_t page)
{
    struct mid **mid = &map->mids[page / MID_PAGES];
    struct leaf **leaf = &(*mid)->leaves[page / LEAF_PAGES % MID_LEAVES];
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        if ((*leaf)->entries[i] != HOLE)
            return;
    free(*leaf);
    *leaf = NULL;
    map->memory_bytes -= sizeof **leaf;
    if (--(*mid)->used > 0)
        return;
    free(*mid);
    *mid = NULL;
    map->memory_bytes -= sizeof **mid;
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
    map->mid_count = mid_count;
    return map;
}

void map_free(struct map *map)
{
    if (map == NULL)
        return;
    for (uint64_t i = 0; i < map->mid_count; i++) {
        struct mid *mid = map->mids[i];
        if (mid == NULL)
            continue;
        for (uint32_t j = 0; j < MID_LEAVES; j++) {
            struct leaf *leaf = mid->leaves[j];
            if (leaf == NULL)
                continue;
            for (uint32_t k = 0; k < LEAF_BLOCKS; k++)
                table_free(map, leaf->entries[k]);
            free(leaf);
        }
        free(mid);
    }
    free(map);
}

/* ---- asking ---- */

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
        const struct leaf *leaf = leaf_at(mid, at);
        if (leaf == NULL) {
            at = (at / LEAF_PAGES + 1) * LEAF_PAGES;
            continue;
        }
        uint64_t entry = leaf->entries[entry_of(at)];
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

struct location map_lookup(const struct map *map, uint64_t page, uint64_t limit, uint64_t *ret_run)
{
    assert(page < map->pages && limit > 0);
    if (limit > map->pages - page)
        limit = map->pages - page;
    const struct mid *mid = mid_at(map, page);
    const struct leaf *leaf = mid == NULL ? NULL : leaf_at(mid, page);
    uint64_t entry = leaf == NULL ? HOLE : leaf->entries[entry_of(page)];
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
    for (uint64_t page = hole_run(map, 0, map->pages); page < map->pages;) {
        struct run runs[RUNS_MAX];
        uint64_t base = page / BLOCK_PAGES * BLOCK_PAGES;
        uint32_t count = block_read(leaf_at(mid_at(map, page), page)->entries[entry_of(page)], runs);
        for (uint32_t i = 0; i < count; i++)
            visit(arg, base + runs[i].first, runs[i].count, &runs[i].location);
        page = base + BLOCK_PAGES;
        if (page < map->pages)
            page += hole_run(map, page, map->pages - page);
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

static void give_back(struct map *map, const struct run *run, uint32_t count)
{
    object_table_live(map->objects, run->location.object, -(int32_t)count);
    map->mapped_pages -= count;
}

/* Takes pages [from, past) of the block out of `runs`, in place. */
static uint32_t cut_runs(struct map *map, struct run runs[RUNS_MAX], uint32_t count, uint32_t from, uint32_t past)
{
    struct run kept[RUNS_MAX];
    uint32_t kept_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct run *run = &runs[i];
        uint32_t run_past = run->first + run->count;
        uint32_t left = run->first > from ? run->first : from;
        uint32_t right = run_past < past ? run_past : past;
        if (left >= right) {
            kept[kept_count++] = *run;
            continue;
        }
        give_back(map, run, right - left);
        if (run->first < left) {
            kept[kept_count] = *run;
            kept[kept_count++].count = left - run->first;
        }
        if (right < run_past) {
            struct run *rest = &kept[kept_count++];
            *rest = *run;
            rest->first = right;
            rest->count = run_past - right;
            rest->location.frame_page = (uint8_t)(rest->location.frame_page + right - run->first);
        }
    }
    assert(kept_count <= RUNS_MAX);
    memcpy(runs, kept, kept_count * sizeof *runs);
    return kept_count;
}

/* Whether two packed runs are of one frame, whatever their pages. */
static bool same_frame(uint64_t left, uint64_t right)
{
    return left >> (TAG_BITS + 5) == right >> (TAG_BITS + 5);
}

/* Pages that were one run become one run of another frame: what scattered overwriting keeps doing to a scattered
 * block.  Needs nothing but a new word in the table; false when it is not that. */
static bool replace_run(struct map *map, uint64_t entry, uint32_t from, uint32_t count, const struct location *first)
{
    struct table *table = entry_table(entry);
    if (table == NULL || (table->starts >> from & 1) == 0)
        return false;
    uint32_t past = lowest_bit((table->starts | ~table->mapped) & ~bits_through(from));
    if (past != from + count)
        return false;
    uint32_t runs = table_runs(table);
    uint32_t at = (uint32_t)__builtin_popcount(table->starts & bits_through(from)) - 1;
    uint64_t word = pack_run(first), *place = &table->runs[at];
    if ((at > 0 && same_frame(place[-1], word)) || (at + 1 < runs && same_frame(place[1], word)) ||
        (runs == 1 && count == BLOCK_PAGES))
        return false;
    object_table_live(map->objects, unpack_run(*place, 1).object, -(int32_t)count);
    map->mapped_pages -= count;
    *place = word;
    table_frame_pages(table, runs)[at] = first->frame_pages;
    return true;
}

void map_set(struct map *map, uint64_t page, uint32_t count, const struct location *first)
{
    uint32_t in_block = (uint32_t)(page % BLOCK_PAGES);
    assert(location_valid(first, count) && count <= BLOCK_PAGES - in_block);
    assert(page < map->pages && count <= map->pages - page);
    object_table_live(map->objects, first->object, (int32_t)count);
    map->mapped_pages += count;

    uint64_t *entry = &leaf_make(map, page)->entries[entry_of(page)];
    if (replace_run(map, *entry, in_block, count, first))
        return;
    struct run runs[RUNS_MAX];
    uint32_t runs_count = cut_runs(map, runs, block_read(*entry, runs), in_block, in_block + count);
    assert(runs_count < RUNS_MAX);
    uint32_t at = runs_count;
    for (; at > 0 && runs[at - 1].first > in_block; at--)
        runs[at] = runs[at - 1];
    runs[at] = (struct run){ .first = in_block, .count = count, .location = *first };
    block_write(map, entry, runs, runs_count + 1);
}

/* Pages [from, past) of the leaf. */
static void leaf_clear(struct map *map, struct leaf *leaf, uint32_t from, uint32_t past)
{
    while (from < past) {
        uint64_t *entry = &leaf->entries[from / BLOCK_PAGES];
        uint32_t base = from / BLOCK_PAGES * BLOCK_PAGES;
        uint32_t to = past < base + BLOCK_PAGES ? past : base + BLOCK_PAGES;
        if (*entry != HOLE) {
            struct run runs[RUNS_MAX];
            uint32_t count = cut_runs(map, runs, block_read(*entry, runs), from - base, to - base);
            block_write(map, entry, runs, count);
        }
        from = to;
    }
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
        uint64_t base = page / LEAF_PAGES * LEAF_PAGES;
        uint64_t to = past < base + LEAF_PAGES ? past : base + LEAF_PAGES;
        struct leaf *leaf = leaf_at(mid, page);
        if (leaf != NULL) {
            leaf_clear(map, leaf, (uint32_t)(page - base), (uint32_t)(to - base));
            leaf_prune(map, page);
        }
        page = to;
    }
}
