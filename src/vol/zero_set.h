/* A set of pages as sorted, disjoint, merged ranges: what a batch makes zero.
 *
 * An array with binary search: a batch is sealed at a few thousand ranges
 * (BATCH_EXTENTS), so moving the tail of the array costs less than a tree. */
#ifndef CAIRN_VOL_ZERO_SET_H
#define CAIRN_VOL_ZERO_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zero_range {
    uint64_t first, past; /* pages */
};

struct zero_set {
    struct zero_range *ranges;
    uint32_t count, capacity;
};

void zero_set_add(struct zero_set *set, uint64_t first, uint64_t past);
/* Whether `page` is in it; ret_run (may be NULL): from `page` on, how many pages have the same answer (UINT64_MAX:
 * all). */
bool zero_set_has(const struct zero_set *set, uint64_t page, uint64_t *ret_run);
void zero_set_free(struct zero_set *set); /* leaves it empty */

#endif
