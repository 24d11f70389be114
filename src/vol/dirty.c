/* See dirty.h.  A chained hash table of blocks that grows by doubling; blocks
 * that become empty go to a free list, so that steady writing allocates
 * nothing.  Ranges are handled block by block, or, when the range has more
 * blocks than the table, by walking the table. */
#include "vol/dirty.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/mutant.h"
#include "vol/volume.h"

#define BUCKETS_AT_FIRST 256u
#define SPARE_BLOCKS_MAX 4096u /* 1.1 MiB kept for reuse */

struct dirty {
    struct dirty_block **buckets;
    uint64_t mask;
    uint64_t count;
    struct dirty_block *spare;
    uint32_t spare_count;
};

struct dirty *dirty_new(void)
{
    struct dirty *dirty = memory_new(sizeof *dirty);
    dirty->buckets = memory_array(BUCKETS_AT_FIRST, sizeof *dirty->buckets);
    dirty->mask = BUCKETS_AT_FIRST - 1;
    return dirty;
}

static void free_chain(struct dirty_block *block)
{
    while (block != NULL) {
        struct dirty_block *next = block->next;
        free(block);
        block = next;
    }
}

void dirty_free(struct dirty *dirty)
{
    if (dirty == NULL)
        return;
    for (uint64_t i = 0; i <= dirty->mask; i++)
        free_chain(dirty->buckets[i]);
    free_chain(dirty->spare);
    free(dirty->buckets);
    free(dirty);
}

static struct dirty_block **bucket(const struct dirty *dirty, uint64_t block)
{
    return &dirty->buckets[hash_u64(block) & dirty->mask];
}

static void grow(struct dirty *dirty)
{
    struct dirty_block **old = dirty->buckets;
    uint64_t old_mask = dirty->mask;
    dirty->mask = dirty->mask * 2 + 1;
    dirty->buckets = memory_array(dirty->mask + 1, sizeof *dirty->buckets);
    for (uint64_t i = 0; i <= old_mask; i++) {
        for (struct dirty_block *block = old[i], *next; block != NULL; block = next) {
            next = block->next;
            struct dirty_block **place = bucket(dirty, block->block);
            block->next = *place;
            *place = block;
        }
    }
    free(old);
}

struct dirty_block *dirty_find(const struct dirty *dirty, uint64_t block)
{
    if (dirty->count == 0)
        return NULL;
    struct dirty_block *found = *bucket(dirty, block);
    while (found != NULL && found->block != block)
        found = found->next;
    return found;
}

struct page *dirty_page(const struct dirty *dirty, uint64_t number)
{
    struct dirty_block *block = dirty_find(dirty, number / BLOCK_PAGES);
    return block == NULL ? NULL : block->slots[number % BLOCK_PAGES];
}

/* Each round finds in the processor's cache what the one before has asked for. */
void dirty_expect(const struct dirty *dirty, const uint64_t *numbers, uint32_t count)
{
    assert(count <= VOLUME_EXPECT_MOST);
    const struct page *pages[VOLUME_EXPECT_MOST];
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(bucket(dirty, numbers[i] / BLOCK_PAGES));
    for (uint32_t i = 0; i < count; i++) {
        const struct dirty_block *block = *bucket(dirty, numbers[i] / BLOCK_PAGES); /* most often the only one there */
        __builtin_prefetch(block);
        if (block != NULL)
            __builtin_prefetch(&block->slots[numbers[i] % BLOCK_PAGES]);
    }
    for (uint32_t i = 0; i < count; i++) {
        pages[i] = dirty_page(dirty, numbers[i]);
        __builtin_prefetch(pages[i]);
    }
    for (uint32_t i = 0; i < count; i++)
        if (pages[i] != NULL)
            __builtin_prefetch(pages[i]->data, 1);
}

struct page *dirty_set(struct dirty *dirty, struct page *page)
{
    uint64_t number = page->number / BLOCK_PAGES;
    struct dirty_block *block = dirty_find(dirty, number);
    if (block == NULL) {
        if (dirty->count > dirty->mask)
            grow(dirty);
        block = dirty->spare;
        if (block != NULL) {
            dirty->spare = block->next;
            dirty->spare_count--;
        } else {
            block = memory_new(sizeof *block);
        }
        struct dirty_block **place = bucket(dirty, number);
        block->block = number;
        block->next = *place;
        *place = block;
        dirty->count++;
    }
    struct page **slot = &block->slots[page->number % BLOCK_PAGES];
    struct page *old = *slot;
    *slot = page;
    block->filled += old == NULL;
    return old;
}

/* All slots of `block` are empty: takes it out of the table. */
static void retire(struct dirty *dirty, struct dirty_block *block)
{
    assert(block->filled == 0);
    struct dirty_block **place = bucket(dirty, block->block);
    while (*place != block)
        place = &(*place)->next;
    *place = block->next;
    dirty->count--;
    if (dirty->spare_count < SPARE_BLOCKS_MAX) {
        block->next = dirty->spare;
        dirty->spare = block;
        dirty->spare_count++;
    } else {
        free(block);
    }
}

void dirty_drop(struct dirty *dirty, const struct page *page)
{
    struct dirty_block *block = dirty_find(dirty, page->number / BLOCK_PAGES);
    const struct page *linked = block == NULL ? NULL : block->slots[page->number % BLOCK_PAGES];
    if (linked == NULL || (linked != page && !MUTANT(commit_drops_newer)))
        return;
    block->slots[page->number % BLOCK_PAGES] = NULL;
    if (--block->filled == 0)
        retire(dirty, block);
}

/* The part of the block that lies in [first, past), as slots [from, to). */
static void slots_in(const struct dirty_block *block, uint64_t first, uint64_t past, uint32_t *ret_from,
                     uint32_t *ret_to)
{
    uint64_t base = block->block * BLOCK_PAGES;
    *ret_from = first > base ? (uint32_t)(first - base) : 0;
    *ret_to = past < base + BLOCK_PAGES ? (uint32_t)(past - base) : BLOCK_PAGES;
}

static void clear_block(struct dirty *dirty, struct dirty_block *block, uint64_t first, uint64_t past,
                        void (*dropped)(void *arg, struct page *page), void *arg)
{
    uint32_t from, to;
    slots_in(block, first, past, &from, &to);
    for (uint32_t i = from; i < to; i++) {
        struct page *page = block->slots[i];
        if (page == NULL)
            continue;
        block->slots[i] = NULL;
        block->filled--;
        dropped(arg, page);
    }
    if (block->filled == 0)
        retire(dirty, block);
}

static bool block_in(const struct dirty_block *block, uint64_t first, uint64_t past)
{
    return block->block >= first / BLOCK_PAGES && block->block <= (past - 1) / BLOCK_PAGES;
}

void dirty_clear(struct dirty *dirty, uint64_t first, uint64_t past, void (*dropped)(void *arg, struct page *page),
                 void *arg)
{
    assert(first < past);
    if (dirty->count == 0)
        return;
    uint64_t from = first / BLOCK_PAGES, to = (past - 1) / BLOCK_PAGES;
    if (to - from <= dirty->mask) {
        for (uint64_t number = from; number <= to && dirty->count > 0; number++) {
            struct dirty_block *block = dirty_find(dirty, number);
            if (block != NULL)
                clear_block(dirty, block, first, past, dropped, arg);
        }
        return;
    }
    for (uint64_t i = 0; i <= dirty->mask; i++) {
        for (struct dirty_block *block = dirty->buckets[i], *next; block != NULL; block = next) {
            next = block->next;
            if (block_in(block, first, past))
                clear_block(dirty, block, first, past, dropped, arg);
        }
    }
}

static bool block_none(const struct dirty_block *block, uint64_t first, uint64_t past)
{
    uint32_t from, to;
    slots_in(block, first, past, &from, &to);
    for (uint32_t i = from; i < to; i++)
        if (block->slots[i] != NULL)
            return false;
    return true;
}

bool dirty_none(const struct dirty *dirty, uint64_t first, uint64_t past)
{
    assert(first < past);
    if (dirty->count == 0)
        return true;
    uint64_t from = first / BLOCK_PAGES, to = (past - 1) / BLOCK_PAGES;
    if (to - from <= dirty->mask) {
        for (uint64_t number = from; number <= to; number++) {
            struct dirty_block *block = dirty_find(dirty, number);
            if (block != NULL && !block_none(block, first, past))
                return false;
        }
        return true;
    }
    for (uint64_t i = 0; i <= dirty->mask; i++)
        for (struct dirty_block *block = dirty->buckets[i]; block != NULL; block = block->next)
            if (block_in(block, first, past) && !block_none(block, first, past))
                return false;
    return true;
}

uint64_t dirty_memory_bytes(const struct dirty *dirty)
{
    return (dirty->mask + 1) * sizeof *dirty->buckets +
           (dirty->count + dirty->spare_count) * sizeof(struct dirty_block);
}
