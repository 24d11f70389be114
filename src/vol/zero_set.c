/* See zero_set.h. */
#include "vol/zero_set.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The first range that ends after `page`; count when there is none. */
static uint32_t find(const struct zero_set *set, uint64_t page)
{
    uint32_t low = 0, high = set->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (set->ranges[middle].past > page)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void zero_set_add(struct zero_set *set, uint64_t first, uint64_t past)
{
    assert(first < past);
    /* All ranges that overlap or touch [first, past) become one with it. */
    uint32_t from = first == 0 ? 0 : find(set, first - 1);
    uint32_t to = from;
    while (to < set->count && set->ranges[to].first <= past) {
        if (set->ranges[to].first < first)
            first = set->ranges[to].first;
        if (set->ranges[to].past > past)
            past = set->ranges[to].past;
        to++;
    }
    if (to == from && set->count == set->capacity) {
        set->capacity = set->capacity == 0 ? 8 : set->capacity * 2;
        set->ranges = memory_resize(set->ranges, set->capacity, sizeof *set->ranges);
    }
    memmove(&set->ranges[from + 1], &set->ranges[to], (set->count - to) * sizeof *set->ranges);
    set->count = set->count - (to - from) + 1;
    set->ranges[from] = (struct zero_range){ .first = first, .past = past };
}

bool zero_set_has(const struct zero_set *set, uint64_t page, uint64_t *ret_run)
{
    uint32_t place = find(set, page);
    bool has = place < set->count && set->ranges[place].first <= page;
    if (ret_run != NULL) {
        if (has)
            *ret_run = set->ranges[place].past - page;
        else
            *ret_run = place < set->count ? set->ranges[place].first - page : UINT64_MAX;
    }
    return has;
}

void zero_set_free(struct zero_set *set)
{
    free(set->ranges);
    *set = (struct zero_set){ 0 };
}
