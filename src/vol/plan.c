/* Flattening batches into one commit.
 *
 * The batches of a commit are a history: what a later one writes or zeroes
 * hides what an earlier one did, and inside one batch zero ranges apply first,
 * then pages.  A commit is a state: each page of the disk appears in it at most
 * once.  So:
 *
 *   survivors   of each page the version of the youngest batch that has it,
 *               unless a batch younger than that zeroes it;
 *   zeroes      everything that some batch zeroes, minus the survivors.
 *
 * Survivors of batches that were uploaded lie in their data objects; those of
 * the others are laid out to ride inline.  A data object is listed even when
 * nothing of it survived: it exists, and somebody must know. */
#include "vol/plan.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/mutant.h"

struct survivor {
    uint64_t number; /* of the page */
    uint32_t batch;  /* index */
    uint32_t index;  /* in the batch's sorted pages */
};

static struct page *page_of(const struct plan *plan, const struct survivor *survivor)
{
    return plan->batches[survivor->batch]->pages[survivor->index];
}

static int by_number_youngest_first(const void *a, const void *b)
{
    const struct survivor *left = a, *right = b;
    if (left->number != right->number)
        return left->number < right->number ? -1 : 1;
    return left->batch > right->batch ? -1 : left->batch < right->batch;
}

static bool zeroed_later(const struct plan *plan, const struct survivor *survivor)
{
    uint32_t from = MUTANT(zeroes_after_pages) ? survivor->batch : survivor->batch + 1;
    for (uint32_t i = from; i < plan->batch_count; i++)
        if (zero_set_has(&plan->batches[i]->zeroes, survivor->number, NULL))
            return true;
    return false;
}

/* All pages of the batch, in order; where it was laid out, without a look at the pages themselves: of a large commit
 * there are tens of thousands, far from the processor. Returns how many. */
static uint32_t list_pages(const struct batch *batch, uint32_t number, struct survivor *ret_list)
{
    if (batch->state != BATCH_UPLOADED) {
        for (uint32_t i = 0; i < batch->page_count; i++)
            ret_list[i] = (struct survivor){ .number = batch->pages[i]->number, .batch = number, .index = i };
        return batch->page_count;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < batch->layout.frame_count; i++) {
        const struct layout_frame *frame = &batch->layout.frames[i];
        for (uint32_t bits = frame->bitmap; bits != 0; bits &= bits - 1, count++)
            ret_list[count] = (struct survivor){ .number = frame->block * BLOCK_PAGES + (uint32_t)__builtin_ctz(bits),
                                                 .batch = number,
                                                 .index = count };
    }
    assert(count == batch->page_count);
    return count;
}

/* Ascending by number. */
static uint32_t find_survivors(const struct plan *plan, struct survivor **ret_survivors)
{
    size_t total = 0;
    for (uint32_t i = 0; i < plan->batch_count; i++)
        total += plan->batches[i]->page_count;
    struct survivor *all = memory_array(total, sizeof *all);
    size_t count = 0;
    bool ascending = true;
    for (uint32_t i = 0; i < plan->batch_count; i++) {
        uint32_t listed = list_pages(plan->batches[i], i, all + count);
        ascending = ascending && (count == 0 || listed == 0 || all[count - 1].number < all[count].number);
        count += listed;
    }
    if (!ascending)
        qsort(all, count, sizeof *all, by_number_youngest_first);
    size_t kept = 0;
    uint64_t previous = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        bool hidden = all[i].number == previous;
        previous = all[i].number;
        if (!hidden && !zeroed_later(plan, &all[i]))
            all[kept++] = all[i];
    }
    *ret_survivors = all;
    return (uint32_t)kept;
}

/* The ranges that any of the batches zeroes. */
static void unite_zeroes(const struct plan *plan, struct zero_set *ret_set)
{
    *ret_set = (struct zero_set){ 0 };
    for (uint32_t i = 0; i < plan->batch_count; i++) {
        const struct zero_set *zeroes = &plan->batches[i]->zeroes;
        for (uint32_t j = 0; j < zeroes->count; j++)
            zero_set_add(ret_set, zeroes->ranges[j].first, zeroes->ranges[j].past);
    }
}

struct cursors {
    uint32_t inline_frame;
    uint32_t *frames; /* of each uploaded batch */
};

/* Where a survivor lies. `inline_index` counts the survivors that ride inline. */
static struct commit_extent extent_of(const struct plan *plan, const struct survivor *survivor,
                                      const uint32_t *object_of, uint32_t inline_index, struct cursors *cursors)
{
    const struct batch *batch = plan->batches[survivor->batch];
    const struct layout *layout = &batch->layout;
    uint32_t *cursor = &cursors->frames[survivor->batch];
    uint32_t index = survivor->index;
    if (object_of[survivor->batch] == 0) {
        layout = &plan->inline_layout;
        cursor = &cursors->inline_frame;
        index = inline_index;
    }
    const struct layout_frame *frame = layout_frame_of(layout, index, cursor);
    assert(layout->pages[index] == page_of(plan, survivor));
    return (struct commit_extent){
        .kind = EXTENT_PAGES,
        .page = survivor->number,
        .count = 1,
        .object = object_of[survivor->batch],
        .start = frame->start,
        .units = frame_total_bytes(frame->page_count * PAGE_BYTES) / FRAME_UNIT,
        .frame_page = index - frame->first,
        .frame_pages = frame->page_count,
    };
}

static bool continues(const struct commit_extent *last, const struct commit_extent *next)
{
    return last->kind == EXTENT_PAGES && last->object == next->object && last->start == next->start &&
           last->page + last->count == next->page && last->frame_page + last->count == next->frame_page;
}

/* Zero extents for [first, past) as far as the set covers it. */
static void put_zeroes(const struct zero_set *zeroes, uint32_t *at_range, uint64_t first, uint64_t past,
                       struct entry *entry)
{
    while (*at_range < zeroes->count && first < past) {
        const struct zero_range *range = &zeroes->ranges[*at_range];
        uint64_t from = range->first > first ? range->first : first;
        uint64_t to = range->past < past ? range->past : past;
        if (from < to)
            entry->extents[entry->extent_count++] =
                (struct commit_extent){ .kind = EXTENT_ZERO, .page = from, .count = to - from };
        if (range->past > past)
            return;
        ++*at_range;
    }
}

/* All extents in ascending order; starts of inline frames are still relative to the first. */
static void make_extents(struct plan *plan, const struct survivor *survivors, uint32_t count, const uint32_t *object_of)
{
    struct zero_set zeroes;
    unite_zeroes(plan, &zeroes);
    struct entry *entry = &plan->entry;
    entry->extents = memory_array((size_t)2 * count + zeroes.count + 1, sizeof *entry->extents);
    struct cursors cursors = { .frames = memory_array(plan->batch_count, sizeof(uint32_t)) };
    uint32_t at_range = 0, inline_index = 0;
    uint64_t next = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct commit_extent extent = extent_of(plan, &survivors[i], object_of, inline_index, &cursors);
        inline_index += object_of[survivors[i].batch] == 0;
        put_zeroes(&zeroes, &at_range, next, extent.page, entry);
        struct commit_extent *last = entry->extent_count == 0 ? NULL : &entry->extents[entry->extent_count - 1];
        if (last != NULL && continues(last, &extent))
            last->count++;
        else
            entry->extents[entry->extent_count++] = extent;
        next = extent.page + 1;
    }
    put_zeroes(&zeroes, &at_range, next, UINT64_MAX, entry);
    free(cursors.frames);
    zero_set_free(&zeroes);
}

void plan_make(struct batch *const *batches, uint32_t batch_count, const struct entry *head, struct plan *ret_plan)
{
    struct plan plan = { .batches = batches, .batch_count = batch_count, .entry = *head };
    struct entry *entry = &plan.entry;
    struct survivor *survivors;
    uint32_t count = find_survivors(&plan, &survivors);

    uint32_t *object_of = memory_array(batch_count, sizeof *object_of); /* 0: inline */
    entry->objects = memory_array(batch_count, sizeof *entry->objects);
    for (uint32_t i = 0; i < batch_count; i++) {
        assert(batches[i]->state == BATCH_SEALED || batches[i]->state == BATCH_UPLOADED);
        if (batches[i]->state != BATCH_UPLOADED)
            continue;
        entry->objects[entry->object_count++] =
            (struct commit_object){ .epoch = entry->epoch, .n = batches[i]->data_n, .bytes = batches[i]->layout.bytes };
        object_of[i] = entry->object_count;
    }

    plan.inline_pages = memory_array(count, sizeof *plan.inline_pages);
    uint32_t inline_count = 0;
    for (uint32_t i = 0; i < count; i++)
        if (object_of[survivors[i].batch] == 0)
            plan.inline_pages[inline_count++] = page_of(&plan, &survivors[i]);
    layout_make(plan.inline_pages, inline_count, &plan.inline_layout);

    make_extents(&plan, survivors, count, object_of);
    plan.inline_start = (uint32_t)(entry_front_bytes(entry->extent_count, entry->object_count, 0) / FRAME_UNIT);
    for (uint32_t i = 0; i < entry->extent_count; i++)
        if (entry->extents[i].kind == EXTENT_PAGES && entry->extents[i].object == 0)
            entry->extents[i].start += plan.inline_start;
    entry->inline_bytes = plan.inline_layout.bytes;
    free(object_of);
    free(survivors);
    *ret_plan = plan;
}

void plan_free(struct plan *plan)
{
    layout_free(&plan->inline_layout);
    free(plan->inline_pages);
    free(plan->entry.extents);
    free(plan->entry.objects);
    *plan = (struct plan){ 0 };
}
