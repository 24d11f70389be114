/* What one commit will hold: batches flattened.  Inside the engine only. */
#ifndef CAIRN_VOL_PLAN_H
#define CAIRN_VOL_PLAN_H

#include "vol/batch.h"
#include "vol/format/format.h"
#include "vol/layout.h"

struct plan {
    struct batch *const *batches; /* oldest first */
    uint32_t batch_count;
    struct entry entry; /* extents and objects are the plan's */
    struct page **inline_pages;
    struct layout inline_layout; /* of what rides behind the tables; not sealed yet */
    uint32_t inline_start;       /* where its first frame lies in the entry, in FRAME_UNITs */
};

/* `head`: the fixed fields of the entry (kind, uuid, epoch, owner, seq, previous, wall_ms, object_id). */
void plan_make(struct batch *const *batches, uint32_t batch_count, const struct entry *head, struct plan *ret_plan);
void plan_free(struct plan *plan);

#endif
