/* Walks over the chunks of a snapshot of the object table: see object_table.h.
 *
 *     gather    which chunks there are, a portion at a time
 *     sort      by id, in memory of the walk's own, so that another thread may do it
 *     next      one after the other, with their rows as they are in the snapshot
 *
 * In between the table goes on changing, and none of that matters: a chunk with
 * rows of the snapshot was there when it began, and stays until its end, as those
 * rows do; whatever else is younger, and has no rows to be written.  So the list
 * of chunks that was gathered stays right, but for a place in the table that a
 * younger chunk has taken over meanwhile; its number tells.
 *
 * Packed, rows are dealt out as many at once as fit, however far apart their ids
 * are: a chunk then begins with the id of its first row. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/object_table_internal.h"

/* Chunks that are gathered at once: well below a millisecond. */
#define GATHER_SLICE 16384u

struct chunk_order {
    uint64_t number;
    uint32_t chunk;
};

struct snapshot_walk {
    const struct object_table *table;
    enum snapshot_walk_mode mode;
    size_t looked_at, past;
    struct chunk_order *order;
    size_t count, next;
    uint32_t indexes[CHUNK_IDS];       /* of the chunk at hand, by id */
    struct object_row rows[CHUNK_IDS]; /* of it, */
    uint32_t row_count, taken;         /* so many; and of those in a packed chunk already */
    struct object_row packed[CHUNK_ROWS_MAX];
};

static_assert(CHUNK_IDS <= CHUNK_ROWS_MAX, "all rows of a chunk's ids fit into it");

struct snapshot_walk *snapshot_walk_new(const struct object_table *table, enum snapshot_walk_mode mode)
{
    assert(table->snapshot);
    struct snapshot_walk *walk = memory_new(sizeof *walk);
    walk->table = table;
    walk->mode = mode;
    walk->past = mode == WALK_DIRTY ? table->snapshot_dirty.count : table->chunk_count;
    walk->order = memory_array(walk->past + 1, sizeof *walk->order);
    return walk;
}

void snapshot_walk_free(struct snapshot_walk *walk)
{
    if (walk == NULL)
        return;
    free(walk->order);
    free(walk);
}

bool snapshot_walk_gather(struct snapshot_walk *walk)
{
    const struct object_table *table = walk->table;
    size_t past = walk->past - walk->looked_at > GATHER_SLICE ? walk->looked_at + GATHER_SLICE : walk->past;
    for (; walk->looked_at < past; walk->looked_at++) {
        uint32_t at =
            walk->mode == WALK_DIRTY ? table->snapshot_dirty.chunks[walk->looked_at] : (uint32_t)walk->looked_at;
        if (table->chunks[at].in_use)
            walk->order[walk->count++] = (struct chunk_order){ table->chunks[at].number, at };
    }
    return walk->looked_at < walk->past;
}

static int compare_chunks(const void *left, const void *right)
{
    const struct chunk_order *a = left, *b = right;
    return (a->number > b->number) - (a->number < b->number);
}

void snapshot_walk_sort(struct snapshot_walk *walk)
{
    if (walk->count > 0)
        qsort(walk->order, walk->count, sizeof *walk->order, compare_chunks);
}

size_t snapshot_walk_count(const struct snapshot_walk *walk)
{
    return walk->count;
}

/* The chunk's rows that live in the snapshot, ascending by id. */
static void take_rows(struct snapshot_walk *walk, const struct chunk_order *order)
{
    const struct object_table *table = walk->table;
    const struct chunk *chunk = &table->chunks[order->chunk];
    walk->row_count = walk->taken = 0;
    if (!chunk->in_use || chunk->number != order->number)
        return;
    for (uint32_t i = 0; i < CHUNK_IDS; i++)
        walk->indexes[i] = NO_ROW;
    for (uint32_t index = chunk->first_row; index != NO_ROW;) {
        const struct row *row = row_at(table, index);
        if (!is_younger(table, row) && snapshot_live(table, row) > 0)
            walk->indexes[row->object.id % CHUNK_IDS] = index;
        index = row->chunk_next;
    }
    for (uint32_t i = 0; i < CHUNK_IDS; i++)
        if (walk->indexes[i] != NO_ROW)
            walk->rows[walk->row_count++] = object_table_snapshot_row(table, walk->indexes[i]);
}

static bool next_packed(struct snapshot_walk *walk, struct objects_frame *ret_chunk)
{
    uint32_t count = 0;
    for (;;) {
        uint32_t left = walk->row_count - walk->taken, room = CHUNK_ROWS_MAX - count;
        uint32_t part = left < room ? left : room;
        memcpy(walk->packed + count, walk->rows + walk->taken, part * sizeof walk->packed[0]);
        walk->taken += part;
        count += part;
        if (count == CHUNK_ROWS_MAX || walk->next == walk->count)
            break;
        take_rows(walk, &walk->order[walk->next++]);
    }
    if (count == 0)
        return false;
    *ret_chunk = (struct objects_frame){ .first_id = walk->packed[0].id, .rows = walk->packed, .row_count = count };
    return true;
}

bool snapshot_walk_next(struct snapshot_walk *walk, struct objects_frame *ret_chunk)
{
    assert(walk->looked_at == walk->past);
    if (walk->mode == WALK_PACKED)
        return next_packed(walk, ret_chunk);
    while (walk->next < walk->count) {
        const struct chunk_order *order = &walk->order[walk->next++];
        take_rows(walk, order);
        if (walk->row_count == 0 && walk->mode == WALK_ALL)
            continue;
        *ret_chunk = (struct objects_frame){ .first_id = order->number * CHUNK_IDS,
                                             .rows = walk->rows,
                                             .row_count = walk->row_count };
        return true;
    }
    return false;
}
