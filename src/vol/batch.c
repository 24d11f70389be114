/* See batch.h. */
#include "vol/batch.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/state.h"

static const char *const state_names[] = { "OPEN", "SEALED", "UPLOADING", "UPLOADED" };
static const uint32_t state_moves[] = {
    [BATCH_OPEN] = 1u << BATCH_SEALED,
    [BATCH_SEALED] = 1u << BATCH_UPLOADING,
    [BATCH_UPLOADING] = 1u << BATCH_UPLOADED,
    [BATCH_UPLOADED] = 0,
};
const struct state_table batch_states = { "batch", state_names, state_moves, 4 };

struct batch *batch_new(struct volume *volume, struct gate *gate, uint64_t number, uint64_t now_ns)
{
    struct batch *batch = memory_new(sizeof *batch);
    list_init(&batch->link);
    list_init(&batch->pages);
    batch->volume = volume;
    batch->gate = gate;
    batch->number = number;
    batch->opened_ns = now_ns;
    return batch;
}

void batch_free(struct batch *batch)
{
    if (batch == NULL)
        return;
    assert(!list_linked(&batch->link));
    if (batch->state == BATCH_OPEN) {
        list_for_each_safe(node, &batch->pages) {
            list_remove(node);
            page_unref(container_of(node, struct page, in_batch));
        }
    } else {
        for (uint32_t i = 0; i < batch->page_count; i++)
            page_unref(batch->sorted[i]);
    }
    gate_leave(batch->gate, batch->charged);
    zero_set_free(&batch->zeroes);
    layout_free(&batch->layout);
    free(batch->sorted);
    free(batch);
}

bool batch_full(const struct batch *batch)
{
    return batch->page_count + batch->zeroes.count >= BATCH_EXTENTS;
}

bool batch_empty(const struct batch *batch)
{
    return batch->page_count == 0 && batch->zeroes.count == 0;
}

void batch_add(struct batch *batch, struct page *page)
{
    assert(batch->state == BATCH_OPEN);
    page->batch = batch;
    list_init(&page->in_batch);
    list_push_back(&batch->pages, &page->in_batch);
    batch->page_count++;
    batch->charged += PAGE_BYTES;
}

void batch_remove(struct batch *batch, struct page *page)
{
    assert(batch->state == BATCH_OPEN && page->batch == batch);
    list_remove(&page->in_batch);
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

static int by_number(const void *a, const void *b)
{
    uint64_t left = (*(struct page *const *)a)->number, right = (*(struct page *const *)b)->number;
    return left < right ? -1 : left > right;
}

void batch_seal(struct batch *batch)
{
    state_move(&batch_states, &batch->state, BATCH_SEALED);
    batch->sorted = memory_array(batch->page_count, sizeof *batch->sorted);
    uint32_t count = 0;
    bool ascending = true;
    list_for_each_safe(node, &batch->pages) {
        struct page *page = container_of(node, struct page, in_batch);
        list_remove(node);
        ascending = ascending && (count == 0 || batch->sorted[count - 1]->number < page->number);
        batch->sorted[count++] = page;
    }
    assert(count == batch->page_count);
    if (!ascending)
        qsort(batch->sorted, count, sizeof *batch->sorted, by_number);
    uint32_t runs = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = batch->sorted[i]->number;
        runs += i == 0 || number % BLOCK_PAGES == 0 || batch->sorted[i - 1]->number + 1 != number;
    }
    batch->extents_bound = runs + batch->zeroes.count;
}
