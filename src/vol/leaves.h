/* Leaves of the map that are in the store only: inside the engine. */
#ifndef CAIRN_VOL_LEAVES_H
#define CAIRN_VOL_LEAVES_H

#include <stdint.h>

#include "rt/coroutine.h"
#include "vol/map.h"

struct error;
struct leaves_frame;
struct volume;

/* Brings the leaf of page `page` into memory, so that a lookup that follows without a park finds it.  0 also when it
 * needs no loading (any more).  -EIO (with an event that tells more), -ESHUTDOWN, -ECANCELED. */
CO int leaves_need(struct volume *volume, uint64_t page, struct error *error);

/* Starts loading what is missing of the leaves of [page, past), as far as that needs no waiting. */
void leaves_ahead(struct volume *volume, uint64_t page, uint64_t past);

/* For checkpoints, which everybody may be waiting for: these wait for no gate and no page.
 *
 * start: begins to load the frame at `place`, unless it is under way.
 * load: waits until its leaves have arrived.  read: hands them out instead.  Both say what the attempts within the read
 * deadline came to. */
void leaves_start(struct volume *volume, const struct leaf_place *place);
CO int leaves_load(struct volume *volume, const struct leaf_place *place, struct error *error);
CO int leaves_read(struct volume *volume, const struct leaf_place *place, struct leaves_frame *ret_frame,
                   struct error *error);
uint32_t leaves_under_way(const struct volume *volume);

/* Loads leaves, gently, until the budget is full: a task that begins when the volume is served. */
void leaves_fill(struct volume *volume);

#endif
