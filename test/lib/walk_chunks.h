/* All chunks of a walk over a snapshot of the object table, at once: for tests. */
#ifndef CAIRN_TEST_LIB_WALK_CHUNKS_H
#define CAIRN_TEST_LIB_WALK_CHUNKS_H

#include "vol/object_table.h"

static inline void walk_chunks(const struct object_table *table, enum snapshot_walk_mode mode,
                               void (*visit)(void *arg, const struct objects_frame *chunk), void *arg)
{
    struct snapshot_walk *walk = snapshot_walk_new(table, mode);
    struct objects_frame chunk;
    while (snapshot_walk_gather(walk))
        ;
    snapshot_walk_sort(walk);
    while (snapshot_walk_next(walk, &chunk))
        visit(arg, &chunk);
    snapshot_walk_free(walk);
}

#endif
