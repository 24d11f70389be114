/* See object_table.h.
 *
 * Rows lie in slabs of 256 that do not move; a row's index is its slab's
 * place in the table and its own in the slab.  A slab without rows is freed,
 * so the table's memory follows the number of rows down again.
 *
 *     row:   FREE ──add──> in use, in doubt ──live +n──> in use, live
 *              ^                  ^   │                     │
 *              │                  └───┼───live reaches 0────┘  (died = seq, a grave is dug)
 *              │                      ├──lives in the snapshot──> waiting ──its end──> in doubt
 *              └──forget_dead, when no holds──┘
 *
 * Rows with nothing live stand in the list of doubts: those that died, and
 * those just born whose commit is not folded yet.  A newborn row that gets its
 * pages stays there until the next object_table_forget_dead() looks at it.  So
 * that function looks at each row once, and again only while it is held or its
 * commit is still to come.
 *
 * Invariants: live > 0 implies died == OBJECT_ALIVE; live == 0 implies in doubt
 * or waiting; the sums over rows are kept with each change; each row is found by
 * its id, and is one of its slab's. */
#include "vol/object_table_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"

struct object_table *object_table_new(void)
{
    struct object_table *table = memory_new(sizeof *table);
    table->doubts = table->waiting = table->free_chunks = NO_ROW;
    table->phase = 1; /* a new row's marks are of phase 0: none */
    return table;
}

void object_table_free(struct object_table *table)
{
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < table->slab_count; i++)
        free(table->slabs[i]);
    free(table->slabs);
    free(table->vacant);
    free(table->with_room);
    free(table->chunks);
    free(table->dirty.chunks);
    free(table->snapshot_dirty.chunks);
    free(table->graves.graves);
    free(table->later_graves.graves);
    id_hash_free(&table->ids);
    id_hash_free(&table->chunk_numbers);
    free(table);
}

static void join_with_room(struct object_table *table, struct slab *slab)
{
    slab->with_room = table->with_room_count;
    table->with_room[table->with_room_count++] = slab->number;
}

static void leave_with_room(struct object_table *table, struct slab *slab)
{
    uint32_t last = table->with_room[--table->with_room_count];
    table->with_room[slab->with_room] = last;
    table->slabs[last]->with_room = slab->with_room;
    slab->with_room = NO_ROW;
}

/* A slab with a free row, or NULL when all indices are in use. */
static struct slab *slab_with_room(struct object_table *table)
{
    if (table->with_room_count > 0)
        return table->slabs[table->with_room[table->with_room_count - 1]];
    uint32_t number = table->slab_count;
    if (table->vacant_count > 0) {
        number = table->vacant[--table->vacant_count];
    } else {
        if (number == OBJECT_INDEX_MAX / SLAB_ROWS)
            return NULL;
        if (number == table->capacity) {
            table->capacity = number == 0 ? 16 : number * 2;
            table->slabs = memory_resize(table->slabs, table->capacity, sizeof *table->slabs);
            table->vacant = memory_resize(table->vacant, table->capacity, sizeof *table->vacant);
            table->with_room = memory_resize(table->with_room, table->capacity, sizeof *table->with_room);
        }
        table->slab_count++;
    }
    struct slab *slab = memory_new(sizeof *slab);
    slab->number = number;
    for (uint32_t i = 0; i < SLAB_ROWS; i++)
        slab->rows[i].next = i + 1 < SLAB_ROWS ? i + 1 : NO_ROW;
    table->slabs[number] = slab;
    join_with_room(table, slab);
    return slab;
}

static void doubt(struct object_table *table, struct row *row, uint32_t index)
{
    if (row->in_doubt)
        return;
    row->in_doubt = true;
    row->next = table->doubts;
    table->doubts = index;
}

/* A row with nothing live, in no list but those of free rows and of its chunk. */
static int row_new(struct object_table *table, const struct object *object, uint32_t *ret_index)
{
    assert(object->role == ROLE_PAGES || object->role == ROLE_PIECES);
    if (object_table_find(table, object->id) != OBJECT_NONE)
        return -EEXIST;
    struct slab *slab = slab_with_room(table);
    if (slab == NULL)
        return -ENOSPC;
    uint32_t place = slab->first_free, index = slab->number * SLAB_ROWS + place;
    struct row *row = &slab->rows[place];
    assert(!row->in_use && !row->in_doubt);
    slab->first_free = row->next;
    slab->used++;
    if (slab->first_free == NO_ROW)
        leave_with_room(table, slab);
    *row = (struct row){ .object = *object, .in_use = true };
    row->object.died = OBJECT_ALIVE;
    row->object.live = 0;
    row->object.holds = 0;
    id_hash_add(&table->ids, object->id, index);
    chunk_join(table, row, index);
    table->count++;
    table->bytes += object->total_bytes;
    *ret_index = index;
    return 0;
}

int object_table_add(struct object_table *table, const struct object *object, uint32_t *ret_index)
{
    int status = row_new(table, object, ret_index);
    if (status < 0)
        return status;
    struct row *row = row_at(table, *ret_index);
    doubt(table, row, *ret_index);
    chunk_touch(table, row, MARK_NEWEST);
    return 0;
}

int object_table_restore(struct object_table *table, const struct object_row *row, bool clean, uint32_t *ret_index)
{
    assert(!table->snapshot && row->died == OBJECT_ALIVE);
    struct object object = { .id = row->id,
                             .kind = row->kind,
                             .role = row->role,
                             .uuid = row->uuid,
                             .epoch = row->epoch,
                             .n = row->n,
                             .seq = row->seq,
                             .born = row->born,
                             .total_bytes = row->total_bytes };
    int status = row_new(table, &object, ret_index);
    if (status < 0)
        return status;
    struct row *restored = row_at(table, *ret_index);
    restored->object.live = row->live;
    table->live[row->role] += row->live;
    if (row->live == 0)
        doubt(table, restored, *ret_index);
    if (!clean)
        chunk_touch(table, restored, MARK_NEWEST);
    return 0;
}

const struct object *object_table_row(const struct object_table *table, uint32_t index)
{
    return &row_at(table, index)->object;
}

uint32_t object_table_find(const struct object_table *table, uint64_t id)
{
    static_assert(ID_HASH_NONE == OBJECT_NONE, "what is not found has no index");
    return id_hash_find(&table->ids, id);
}

static void die(struct object_table *table, struct object *object, uint64_t seq, bool in_snapshot)
{
    assert(object->live == 0 && object->died == OBJECT_ALIVE);
    object->died = seq;
    table->bytes -= object->total_bytes;
    grave_dig(table, object, in_snapshot);
}

/* The last of what was live has gone; in the snapshot too, when `both`, unless something lives on there. */
static void lost_all(struct object_table *table, struct row *row, uint32_t index, bool both)
{
    bool in_snapshot = both && !is_younger(table, row) && snapshot_live(table, row) == 0;
    die(table, &row->object, in_snapshot ? table->snapshot_seq : table->seq, in_snapshot);
    doubt(table, row, index);
}

static inline void change_live(struct object_table *table, uint32_t index, int32_t change, bool both)
{
    struct row *row = row_at(table, index);
    struct object *object = &row->object;
    assert(object->died == OBJECT_ALIVE);
    assert(change >= 0 || object->live >= -(uint32_t)change);
    both = both && table->snapshot;
    enum row_mark mark = both ? MARK_SNAPSHOT : MARK_NEWEST;
    if (row->phase != table->phase || (row->marks & mark) == 0)
        chunk_touch(table, row, mark);
    if (!both)
        row->later += change;
    object->live += (uint32_t)change;
    table->live[object->role] += (uint64_t)change;
    if (change < 0 && object->live == 0)
        lost_all(table, row, index, both);
}

void object_table_live(struct object_table *table, uint32_t index, int32_t change)
{
    change_live(table, index, change, false);
}

void object_table_live_both(struct object_table *table, uint32_t index, int32_t change)
{
    change_live(table, index, change, true);
}

void object_table_set_total_bytes(struct object_table *table, uint32_t index, uint64_t total_bytes)
{
    struct row *row = row_at(table, index);
    struct object *object = &row->object;
    assert(object->died == OBJECT_ALIVE);
    chunk_touch(table, row, MARK_NEWEST);
    table->bytes += total_bytes - object->total_bytes;
    object->total_bytes = total_bytes;
}

void object_table_set_seq(struct object_table *table, uint64_t seq)
{
    assert(seq >= table->seq);
    table->seq = seq;
}

static void forget(struct object_table *table, struct row *row, uint32_t index)
{
    assert(row->in_use && row->object.holds == 0 && row->object.live == 0);
    struct slab *slab = table->slabs[index / SLAB_ROWS];
    id_hash_remove(&table->ids, row->object.id);
    chunk_leave(table, row, index);
    row->in_use = false;
    row->next = slab->first_free;
    slab->first_free = index % SLAB_ROWS;
    if (slab->used-- == SLAB_ROWS)
        join_with_room(table, slab);
    table->count--;
    if (slab->used == 0) {
        leave_with_room(table, slab);
        table->slabs[slab->number] = NULL;
        table->vacant[table->vacant_count++] = slab->number;
        free(slab);
    }
}

/* Born, and of a commit that is folded: what it has not got by now it never gets.  The objects of a checkpoint under
 * way are still being filled. */
static bool born_for_nothing(const struct object_table *table, const struct row *row)
{
    return row->object.died == OBJECT_ALIVE && row->object.born <= table->seq &&
           !(is_younger(table, row) && row->object.role == ROLE_PIECES);
}

void object_table_forget_dead(struct object_table *table)
{
    uint32_t index = table->doubts;
    table->doubts = NO_ROW;
    while (index != NO_ROW) {
        struct row *row = row_at(table, index);
        struct object *object = &row->object;
        uint32_t next = row->next;
        row->in_doubt = false;
        if (object->live == 0) {
            if (born_for_nothing(table, row))
                die(table, object, object->born,
                    table->snapshot && !is_younger(table, row) && object->born <= table->snapshot_seq);
            if (table->snapshot && snapshot_live(table, row) > 0) {
                row->in_doubt = true;
                row->next = table->waiting;
                table->waiting = index;
            } else if (object->died == OBJECT_ALIVE || object->holds > 0) {
                doubt(table, row, index);
            } else {
                forget(table, row, index);
            }
        }
        index = next;
    }
}

void object_table_hold(struct object_table *table, uint32_t index)
{
    struct row *row = row_at(table, index);
    assert(row->object.holds < UINT32_MAX);
    row->object.holds++;
}

void object_table_unhold(struct object_table *table, uint32_t index)
{
    struct row *row = row_at(table, index);
    assert(row->object.holds > 0);
    row->object.holds--;
}

void object_table_walk(const struct object_table *table,
                       void (*visit)(void *arg, uint32_t index, const struct object *object), void *arg)
{
    for (uint32_t i = 0; i < table->slab_count; i++) {
        const struct slab *slab = table->slabs[i];
        if (slab == NULL)
            continue;
        for (uint32_t j = 0; j < SLAB_ROWS; j++)
            if (slab->rows[j].in_use)
                visit(arg, i * SLAB_ROWS + j, &slab->rows[j].object);
    }
}

uint64_t object_table_count(const struct object_table *table)
{
    return table->count;
}

uint64_t object_table_bytes(const struct object_table *table)
{
    return table->bytes;
}

uint64_t object_table_live_pages(const struct object_table *table)
{
    return table->live[ROLE_PAGES];
}

uint64_t object_table_memory_bytes(const struct object_table *table)
{
    uint64_t slabs = table->slab_count - table->vacant_count;
    uint64_t arrays = sizeof *table->slabs + sizeof *table->vacant + sizeof *table->with_room;
    uint64_t graves = table->graves.capacity + table->later_graves.capacity;
    uint64_t lists = table->dirty.capacity + table->snapshot_dirty.capacity;
    return sizeof *table + slabs * sizeof(struct slab) + table->capacity * arrays +
           table->chunk_capacity * sizeof *table->chunks + lists * sizeof *table->dirty.chunks +
           graves * sizeof(struct grave) + id_hash_bytes(&table->ids) + id_hash_bytes(&table->chunk_numbers);
}
