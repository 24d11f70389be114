/* See batch.h. */
#include "vol/batch.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/mutant.h"
#include "base/state.h"

static const char *const state_names[] = { "OPEN", "SEALED", "UPLOADING", "UPLOADED" };
static const uint32_t state_moves[] = {
    [BATCH_OPEN] = 1u << BATCH_SEALED,
    [BATCH_SEALED] = 1u << BATCH_UPLOADING,
    [BATCH_UPLOADING] = 1u << BATCH_UPLOADED,
    [BATCH_UPLOADED] = 0,
};
const struct state_table batch_states = { "batch", state_names, state_moves, 4 };

struct batch *batch_new(struct volume *volume, struct gate *gate, uint64_t now_ns)
{
    struct batch *batch = memory_new(sizeof *batch);
    list_init(&batch->link);
    list_init(&batch->zero_link);
    batch->volume = volume;
    batch->gate = gate;
    batch->number = UINT64_MAX;
    batch->opened_ns = now_ns;
    return batch;
}

void batch_free(struct batch *batch)
{
    if (batch == NULL)
        return;
    assert(!list_linked(&batch->link) && !list_linked(&batch->zero_link));
    uint32_t places = batch->state == BATCH_OPEN ? batch->places : batch->page_count;
    for (uint32_t i = 0; i < places; i++)
        if (batch->pages[i] != NULL)
            page_unref(batch->pages[i]);
    gate_leave(batch->gate, batch->charged);
    zero_set_free(&batch->zeroes);
    layout_free(&batch->layout);
    free(batch->pages);
    free(batch);
}

bool batch_ordered(const struct batch *batch)
{
    return batch->in_order >= batch->page_count / 2;
}

bool batch_full(const struct batch *batch, uint64_t room, uint32_t ordered)
{
    if (batch->zeroes.count >= BATCH_EXTENTS || batch->page_count >= room)
        return true;
    return batch->page_count >= ordered && batch_ordered(batch);
}

bool batch_empty(const struct batch *batch)
{
    return batch->page_count == 0 && batch->zeroes.count == 0;
}

/* Closes the gaps. */
static void compact(struct batch *batch)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < batch->places; i++) {
        struct page *page = batch->pages[i];
        if (page == NULL)
            continue;
        page->place = kept;
        batch->pages[kept++] = page;
    }
    assert(kept == batch->page_count);
    batch->places = kept;
}

void batch_add(struct batch *batch, struct page *page)
{
    assert(batch->state == BATCH_OPEN);
    if (batch->places == batch->capacity && batch->page_count < batch->places / 2)
        compact(batch);
    if (batch->places == batch->capacity) {
        batch->capacity = batch->capacity == 0 ? 64 : batch->capacity * 2;
        batch->pages = memory_resize(batch->pages, batch->capacity, sizeof(struct page *));
    }
    page->batch = batch;
    page->place = batch->places;
    batch->pages[batch->places++] = page;
    batch->page_count++;
    batch->charged += PAGE_BYTES;
}

void batch_remove(struct batch *batch, struct page *page)
{
    assert(batch->state == BATCH_OPEN && page->batch == batch && batch->pages[page->place] == page);
    batch->pages[page->place] = NULL;
    page->batch = NULL;
    batch->page_count--;
    batch->charged -= PAGE_BYTES;
    gate_leave(batch->gate, PAGE_BYTES);
    page_unref(page);
}

void batch_zero(struct batch *batch, uint64_t first, uint64_t past)
{
    assert(batch->state == BATCH_OPEN);
    uint32_t before = batch->zeroes.count;
    zero_set_add(&batch->zeroes, first, past);
    uint32_t after = batch->zeroes.count;
    if (after > before) {
        /* At most one range more: small enough to go over the limit instead of waiting. */
        gate_force(batch->gate, ZERO_RANGE_COST);
        batch->charged += ZERO_RANGE_COST;
    } else {
        uint64_t saved = (uint64_t)(before - after) * ZERO_RANGE_COST;
        batch->charged -= saved;
        gate_leave(batch->gate, saved);
    }
}

struct numbered {
    uint64_t number;
    struct page *page;
};

static int by_number(const void *a, const void *b)
{
    uint64_t left = ((const struct numbered *)a)->number, right = ((const struct numbered *)b)->number;
    return left < right ? -1 : left > right;
}

/* Sorting moves the numbers along, so that it does not have to visit each page at each comparison. */
static void sort_pages(struct page **pages, uint32_t count)
{
    struct numbered *sorted = memory_array(count, sizeof *sorted);
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = (struct numbered){ .number = pages[i]->number, .page = pages[i] };
    qsort(sorted, count, sizeof *sorted, by_number);
    for (uint32_t i = 0; i < count; i++)
        pages[i] = sorted[i].page;
    free(sorted);
}

static uint32_t count_extents(const struct batch *batch)
{
    uint32_t runs = 0;
    for (uint32_t i = 0; i < batch->page_count; i++) {
        uint64_t number = batch->pages[i]->number;
        runs += i == 0 || number % BLOCK_PAGES == 0 || batch->pages[i - 1]->number + 1 != number;
    }
    return runs + batch->zeroes.count;
}

uint64_t batch_seal(struct batch *batch, uint64_t before)
{
    state_move(&batch_states, &batch->state, BATCH_SEALED);
    compact(batch);
    bool ascending = true;
    for (uint32_t i = 1; i < batch->page_count && ascending; i++)
        ascending = batch->pages[i - 1]->number < batch->pages[i]->number;
    if (!ascending)
        sort_pages(batch->pages, batch->page_count);
    batch->extents_bound = count_extents(batch);
    batch->number = before + batch->page_count + 1;
    return batch->number;
}

struct batch *batch_cut(struct batch *batch, uint32_t most)
{
    assert(batch->state == BATCH_SEALED && !batch->joined && most > 0);
    uint32_t kept = batch->zeroes.count < BATCH_EXTENTS_MOST ? BATCH_EXTENTS_MOST - batch->zeroes.count : 0;
    if (kept > most)
        kept = most;
    if (batch->page_count <= kept)
        return NULL;
    /* Zero ranges stay in the older one: they apply before all pages. */
    struct batch *rest = batch_new(batch->volume, batch->gate, batch->opened_ns);
    rest->state = BATCH_SEALED;
    rest->number = batch->number;
    rest->sealed_ns = batch->sealed_ns;
    rest->apart = batch->apart;
    rest->page_count = batch->page_count - kept;
    rest->pages = memory_copy(batch->pages + kept, rest->page_count * sizeof(struct page *));
    for (uint32_t i = 0; i < rest->page_count; i++)
        rest->pages[i]->batch = rest;
    rest->charged = (uint64_t)rest->page_count * PAGE_BYTES;
    batch->page_count = kept;
    batch->number -= MUTANT(cut_counts_whole) ? 0 : rest->page_count;
    batch->charged -= rest->charged;
    batch->extents_bound = count_extents(batch);
    rest->extents_bound = count_extents(rest);
    return rest;
}

bool batch_joins(const struct batch *batch, const struct batch *next)
{
    if (batch->page_count == 0 || next->page_count == 0 || (next->zeroes.count > 0 && !MUTANT(join_drops_zeroes)))
        return false;
    return batch->pages[batch->page_count - 1]->number < next->pages[0]->number;
}

void batch_join(struct batch *batch, struct batch *next)
{
    assert(batch->state == BATCH_SEALED && next->state == BATCH_SEALED && batch_joins(batch, next));
    uint32_t count = batch->page_count + next->page_count;
    assert(count + batch->zeroes.count <= BATCH_EXTENTS_MOST);
    batch->pages = memory_resize(batch->pages, count, sizeof(struct page *));
    for (uint32_t i = 0; i < next->page_count; i++) {
        next->pages[i]->batch = batch;
        batch->pages[batch->page_count + i] = next->pages[i];
    }
    batch->page_count = count;
    batch->number = next->number;
    batch->charged += next->charged;
    batch->extents_bound += next->extents_bound;
    batch->joined = true;
    next->page_count = next->extents_bound = 0;
    next->charged = 0;
}
