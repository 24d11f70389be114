/* Address space for pages, from the system and back to it: see page_region.c. */
#ifndef CAIRN_VOL_PAGE_REGION_H
#define CAIRN_VOL_PAGE_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the processor's tables can map by one entry, where that is larger than a page. */
#define REGION_BYTES ((size_t)2 << 20)

/* `bytes` of zeroes, all resident: REGION_BYTES, aligned to that and of one piece if the system has one, or less than
 * that. NULL: the system has no memory. */
uint8_t *region_map(size_t bytes);
/* False when the system would not take it back. */
bool region_unmap(uint8_t *data, size_t bytes);
/* A part that is not needed for now: its memory goes back, its addresses stay ours. False as above. */
bool region_discard(uint8_t *data, size_t bytes);
/* A discarded part becomes resident again. False: the system has no memory. */
bool region_restore(uint8_t *data, size_t bytes);

#endif
