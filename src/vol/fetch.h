/* Fetching committed content from the store into the cache: inside the engine only. */
#ifndef CAIRN_VOL_FETCH_H
#define CAIRN_VOL_FETCH_H

#include <stdint.h>

#include "rt/coroutine.h"

struct error;
struct frame;
struct volume;

/* Brings the frame with the content of page `number` into memory.  Besides, starts fetching other missing frames of the
 * pages up to `past`, a bounded way ahead.
 * 0 and a READY frame with a reference for the caller; 0 and NULL when the page does not need one (any more): it
 * was overwritten, zeroed, or moved.  -EIO (with an event that tells more), -ESHUTDOWN, -ECANCELED. */
CO int fetch_page(struct volume *volume, uint64_t number, uint64_t past, struct frame **ret_frame, struct error *error);

/* Brings what read_page_try() or a look at the map missed of page `number`: its leaf, or its frame.  *held (may be
 * NULL) is a READY frame with a reference that was brought before; it is kept while a leaf is brought, and replaced by
 * another frame or NULL otherwise: so leaf and frame are there together, however tight memory is. */
CO int fetch_missing(struct volume *volume, uint64_t number, uint64_t past, struct frame **held, struct error *error);

/* Raises an event for a read that failed: one a minute. */
void fetch_tell_failure(struct volume *volume, const struct error *error);

#endif
