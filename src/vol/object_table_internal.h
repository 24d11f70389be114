/* What object_table.c (rows) and object_table_snapshot.c (chunks, snapshots, graves) share. */
#ifndef CAIRN_VOL_OBJECT_TABLE_INTERNAL_H
#define CAIRN_VOL_OBJECT_TABLE_INTERNAL_H

#include <assert.h>
#include <stddef.h>

#include "vol/id_hash.h"
#include "vol/object_table.h"

#define SLAB_ROWS 256u
#define NO_ROW UINT32_MAX

enum row_mark {
    MARK_NEWEST = 1,   /* the row's chunk is known to be dirty for the next checkpoint */
    MARK_SNAPSHOT = 2, /* and for the one under way */
};

struct row {
    struct object object;
    uint32_t next; /* FREE: the slab's next free row; in doubt: index of the next in doubt */
    bool in_use, in_doubt;
    uint8_t marks;                       /* enum row_mark, valid in `phase` */
    uint32_t phase;                      /* of the table, when the row was changed last */
    int32_t later;                       /* of live: what the snapshot does not have; valid in `phase` */
    uint32_t chunk_next, chunk_previous; /* rows of one chunk */
};

struct slab {
    uint32_t used, first_free;
    uint32_t number;
    uint32_t with_room; /* place in table.with_room; NO_ROW: full */
    struct row rows[SLAB_ROWS];
};

/* CHUNK_IDS ids, as long as there are rows of them or a checkpoint must say that there are none. */
struct chunk {
    uint64_t number; /* first id / CHUNK_IDS */
    uint32_t first_row;
    uint32_t next_free; /* of those not in use */
    bool in_use;
    bool dirty;       /* in table.dirty: to be written by the next checkpoint */
    bool in_snapshot; /* in table.snapshot_dirty: to be written by the one under way */
};

struct chunk_list {
    uint32_t *chunks; /* indexes */
    size_t count, capacity;
};

/* What remains of an object that has died, until a root tells of it. */
struct grave {
    uint64_t id, born, died;
    uint64_t seq_or_epoch, n;
    struct uuid uuid;
    uint64_t total_bytes;
    uint8_t kind, role;
};

struct grave_list {
    struct grave *graves;
    size_t count, capacity;
};

struct object_table {
    struct slab **slabs; /* NULL where there is none now */
    uint32_t *vacant;    /* numbers of those */
    uint32_t *with_room; /* numbers of slabs with a free row; all three arrays have `capacity` */
    uint32_t slab_count, vacant_count, with_room_count, capacity;
    uint32_t doubts; /* the first; NO_ROW: none */
    uint64_t seq;
    uint64_t count, bytes;
    uint64_t live[ROLE_PIECES + 1]; /* sums by role */

    struct id_hash ids; /* to row */

    struct id_hash chunk_numbers; /* to place in `chunks` */
    struct chunk *chunks;
    uint32_t chunk_count, chunk_capacity, free_chunks; /* free_chunks: the first; NO_ROW: none */
    struct chunk_list dirty, snapshot_dirty;
    struct grave_list graves;       /* for the snapshot under way, or the next one when there is none */
    struct grave_list later_graves; /* for the one after it */

    bool snapshot;
    uint32_t phase; /* grows with each begin */
    uint64_t snapshot_seq, own_first;
    uint32_t waiting; /* rows that are dead and wait for the snapshot's end; NO_ROW: none */
};

static inline struct row *row_at(const struct object_table *table, uint32_t index)
{
    assert(index / SLAB_ROWS < table->slab_count);
    struct slab *slab = table->slabs[index / SLAB_ROWS];
    assert(slab != NULL);
    struct row *row = &slab->rows[index % SLAB_ROWS];
    assert(row->in_use);
    return row;
}

/* What is live of the row in the snapshot, or in the newest state when there is none. */
static inline uint32_t snapshot_live(const struct object_table *table, const struct row *row)
{
    int32_t later = row->phase == table->phase ? row->later : 0;
    assert(later <= 0 || row->object.live >= (uint32_t)later);
    return row->object.live - (uint32_t)later;
}

/* The row is of the checkpoint under way, or younger: not in the snapshot's chunks. */
static inline bool is_younger(const struct object_table *table, const struct row *row)
{
    return table->snapshot && row->object.id >= table->own_first;
}

/* object_table_snapshot.c: */
void chunk_join(struct object_table *table, struct row *row, uint32_t index);
void chunk_leave(struct object_table *table, struct row *row, uint32_t index);
/* The row changes: its chunk is dirty, its marks are set. */
void chunk_touch(struct object_table *table, struct row *row, enum row_mark mark);
void grave_dig(struct object_table *table, const struct object *object, bool in_snapshot);

#endif
