/* Blocks and leaves of the map: see map_internal.h for how they lie in memory.
 *
 * Whatever changes a block unpacks it into runs, cuts and inserts, and packs
 * the result into the smallest form; so forms never need repair.  The one
 * shortcut is replace_run(): scattered overwriting of a scattered block, which
 * is most of what folding does, changes a word of its table. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/map_internal.h"

/* ---- packing ---- */

static uint64_t pack_run(const struct location *location)
{
    uint64_t word = location->object;
    word = word << 18 | location->start;
    word = word << 12 | location->units;
    word = word << 5 | location->frame_page;
    return word << TAG_BITS | TAG_RUN;
}

uint32_t block_read(uint64_t entry, struct run runs[RUNS_MAX])
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

void block_free(struct map *map, struct body *body, uint64_t entry)
{
    struct table *table = entry_table(entry);
    if (table == NULL)
        return;
    body_shrink(map, body, table_bytes(table_runs(table)));
    free(table);
}

void block_write(struct map *map, struct body *body, uint64_t *entry, struct run *runs, uint32_t count)
{
    count = join_runs(runs, count);
    bool whole = count == 1 && runs[0].count == BLOCK_PAGES && runs[0].location.frame_pages == BLOCK_PAGES;
    if (count == 0 || whole) {
        block_free(map, body, *entry);
        *entry = whole ? pack_run(&runs[0].location) : HOLE;
        return;
    }
    struct table *table = entry_table(*entry);
    if (table == NULL || table_runs(table) != count) {
        block_free(map, body, *entry);
        table = memory_new(table_bytes(count));
        body_grow(map, body, table_bytes(count));
        *entry = (uint64_t)(uintptr_t)table | TAG_TABLE;
    }
    uint8_t *frame_pages = table_frame_pages(table, count);
    table->mapped = table->starts = 0;
    for (uint32_t i = 0; i < count; i++) {
        table->starts |= UINT32_C(1) << runs[i].first;
        table->mapped |= bits_of(runs[i].first, runs[i].count);
        table->runs[i] = pack_run(&runs[i].location);
        frame_pages[i] = runs[i].location.frame_pages;
    }
}

/* ---- blocks ---- */

uint32_t cut_runs(struct map *map, struct run runs[RUNS_MAX], uint32_t count, uint32_t from, uint32_t past,
                  enum charge charge)
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
        give_back(map, run->location.object, right - left, charge);
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

uint32_t insert_run(struct run runs[RUNS_MAX], uint32_t count, const struct run *run)
{
    assert(count < RUNS_MAX);
    uint32_t at = count;
    for (; at > 0 && runs[at - 1].first > run->first; at--)
        runs[at] = runs[at - 1];
    runs[at] = *run;
    return count + 1;
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
    give_back(map, unpack_run(*place, 1).object, count, CHARGE_NEWEST);
    *place = word;
    table_frame_pages(table, runs)[at] = first->frame_pages;
    return true;
}

void block_set(struct map *map, struct body *body, uint64_t *entry, uint32_t page, uint32_t count,
               const struct location *first)
{
    if (replace_run(map, *entry, page, count, first))
        return;
    struct run runs[RUNS_MAX], run = { .first = page, .count = count, .location = *first };
    uint32_t runs_count = cut_runs(map, runs, block_read(*entry, runs), page, page + count, CHARGE_NEWEST);
    block_write(map, body, entry, runs, insert_run(runs, runs_count, &run));
}

void block_clear(struct map *map, struct body *body, uint64_t *entry, uint32_t from, uint32_t past)
{
    if (*entry == HOLE)
        return;
    struct run runs[RUNS_MAX];
    uint32_t count = cut_runs(map, runs, block_read(*entry, runs), from, past, CHARGE_NEWEST);
    block_write(map, body, entry, runs, count);
}

uint32_t block_mapped(uint64_t entry)
{
    const struct table *table = entry_table(entry);
    return table != NULL ? table->mapped : entry == HOLE ? 0 : UINT32_MAX;
}

void block_charge(struct map *map, uint64_t entry, uint32_t pages, enum charge charge)
{
    struct run runs[RUNS_MAX];
    uint32_t count = block_read(entry, runs);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t hit = (uint32_t)__builtin_popcount(pages & bits_of(runs[i].first, runs[i].count));
        if (hit > 0)
            give_back(map, runs[i].location.object, hit, charge);
    }
}

/* ---- leaves ---- */

struct map_leaf *leaf_new(struct map *map, uint64_t place)
{
    struct map_leaf *leaf = memory_new(sizeof *leaf);
    leaf->body.place = place;
    body_grow(map, &leaf->body, sizeof *leaf);
    return leaf;
}

struct map_leaf *leaf_copy(struct map *map, const struct map_leaf *leaf)
{
    struct map_leaf *copy = leaf_new(map, leaf->body.place);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        const struct table *table = entry_table(leaf->entries[i]);
        copy->entries[i] = leaf->entries[i];
        if (table == NULL)
            continue;
        size_t bytes = table_bytes(table_runs(table));
        copy->entries[i] = (uint64_t)(uintptr_t)memory_copy(table, bytes) | TAG_TABLE;
        body_grow(map, &copy->body, bytes);
    }
    assert(copy->body.bytes == leaf->body.bytes);
    return copy;
}

void leaf_free(struct map *map, struct map_leaf *leaf)
{
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        block_free(map, &leaf->body, leaf->entries[i]);
    body_shrink(map, &leaf->body, sizeof *leaf);
    assert(leaf->body.bytes == 0);
    free(leaf);
}

bool leaf_is_empty(const struct map_leaf *leaf)
{
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        if (leaf->entries[i] != HOLE)
            return false;
    return true;
}

/* The part of [*from, past) that lies in the block of *from, as pages of it; *from is behind it then. */
static uint32_t next_block(uint32_t *from, uint32_t past, uint32_t *ret_from, uint32_t *ret_past)
{
    uint32_t block = *from / BLOCK_PAGES, base = block * BLOCK_PAGES;
    *ret_from = *from - base;
    *ret_past = past < base + BLOCK_PAGES ? past - base : BLOCK_PAGES;
    *from = base + *ret_past;
    return block;
}

bool leaf_maps(const struct map_leaf *leaf, uint32_t from, uint32_t past)
{
    while (from < past) {
        uint32_t first, end, block = next_block(&from, past, &first, &end);
        if ((block_mapped(leaf->entries[block]) & bits_of(first, end - first)) != 0)
            return true;
    }
    return false;
}

void leaf_clear(struct map *map, struct map_leaf *leaf, uint32_t from, uint32_t past)
{
    while (from < past) {
        uint32_t first, end, block = next_block(&from, past, &first, &end);
        block_clear(map, &leaf->body, &leaf->entries[block], first, end);
    }
}

void leaf_charge(struct map *map, const struct map_leaf *leaf, enum charge charge)
{
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        block_charge(map, leaf->entries[i], UINT32_MAX, charge);
}
