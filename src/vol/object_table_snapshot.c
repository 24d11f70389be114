/* Chunks, snapshots and graves of the object table: see object_table.h.
 *
 * Nothing is copied when a snapshot begins.  Each row carries what has changed
 * since then (`later`), so what it was is what it is without that.  Such a
 * number, and the marks that say for whom the row's chunk is known to be dirty,
 * are worth something only in the table's present phase; begin starts a new
 * phase, and with that all rows' numbers are zero and no row is marked, without
 * a visit to any.
 *
 *     chunk:  clean ──a row changes──> dirty ──begin──> in the snapshot ──end──> clean
 *                                       ^                    │
 *                                       └─────changes for the newest state───────┘
 *
 * A chunk can be both: written by the checkpoint under way, and changed since.
 * Chunks with younger rows than the snapshot's stay dirty, since these were left
 * out.
 *
 * Graves lie in two lists, those of the snapshot (or of the next one) and those
 * of the one after; a row's death chooses the list, and end drops the first. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/object_table_internal.h"

/* ---- chunks ---- */

static void chunk_list_add(struct chunk_list *list, uint32_t chunk)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->chunks = memory_resize(list->chunks, list->capacity, sizeof *list->chunks);
    }
    list->chunks[list->count++] = chunk;
}

static uint32_t chunk_of(const struct object_table *table, const struct row *row)
{
    uint32_t chunk = id_hash_find(&table->chunk_numbers, row->object.id / CHUNK_IDS);
    assert(chunk != ID_HASH_NONE);
    return chunk;
}

static uint32_t chunk_new(struct object_table *table, uint64_t number)
{
    uint32_t at = table->free_chunks;
    if (at != NO_ROW) {
        table->free_chunks = table->chunks[at].next_free;
    } else {
        if (table->chunk_count == table->chunk_capacity) {
            table->chunk_capacity = table->chunk_capacity == 0 ? 16 : table->chunk_capacity * 2;
            table->chunks = memory_resize(table->chunks, table->chunk_capacity, sizeof *table->chunks);
        }
        at = table->chunk_count++;
    }
    table->chunks[at] = (struct chunk){ .number = number, .first_row = NO_ROW, .in_use = true };
    id_hash_add(&table->chunk_numbers, number, at);
    return at;
}

/* Nobody needs a chunk any more that has no rows and that no checkpoint must write. */
static void chunk_release(struct object_table *table, uint32_t at)
{
    struct chunk *chunk = &table->chunks[at];
    if (chunk->first_row != NO_ROW || chunk->dirty || chunk->in_snapshot)
        return;
    id_hash_remove(&table->chunk_numbers, chunk->number);
    chunk->in_use = false;
    chunk->next_free = table->free_chunks;
    table->free_chunks = at;
}

uint32_t object_table_chunk_count(const struct object_table *table)
{
    return table->chunk_numbers.count;
}

void chunk_join(struct object_table *table, struct row *row, uint32_t index)
{
    uint64_t number = row->object.id / CHUNK_IDS;
    uint32_t at = id_hash_find(&table->chunk_numbers, number);
    if (at == ID_HASH_NONE)
        at = chunk_new(table, number);
    struct chunk *chunk = &table->chunks[at];
    row->chunk_next = chunk->first_row;
    row->chunk_previous = NO_ROW;
    if (chunk->first_row != NO_ROW)
        row_at(table, chunk->first_row)->chunk_previous = index;
    chunk->first_row = index;
}

void chunk_leave(struct object_table *table, struct row *row, uint32_t index)
{
    uint32_t at = chunk_of(table, row);
    if (row->chunk_previous != NO_ROW) {
        row_at(table, row->chunk_previous)->chunk_next = row->chunk_next;
    } else {
        assert(table->chunks[at].first_row == index);
        table->chunks[at].first_row = row->chunk_next;
    }
    if (row->chunk_next != NO_ROW)
        row_at(table, row->chunk_next)->chunk_previous = row->chunk_previous;
    chunk_release(table, at);
}

static void chunk_dirty(struct object_table *table, uint32_t at)
{
    struct chunk *chunk = &table->chunks[at];
    if (!chunk->dirty)
        chunk_list_add(&table->dirty, at);
    chunk->dirty = true;
}

void chunk_touch(struct object_table *table, struct row *row, enum row_mark mark)
{
    if (row->phase != table->phase) {
        row->phase = table->phase;
        row->marks = 0;
        row->later = 0;
    }
    row->marks |= mark;
    uint32_t at = chunk_of(table, row);
    /* The snapshot's chunks leave younger rows out. */
    if (mark == MARK_NEWEST || is_younger(table, row)) {
        chunk_dirty(table, at);
    } else if (!table->chunks[at].in_snapshot) {
        table->chunks[at].in_snapshot = true;
        chunk_list_add(&table->snapshot_dirty, at);
    }
}

static bool has_younger_row(const struct object_table *table, const struct chunk *chunk)
{
    for (uint32_t index = chunk->first_row; index != NO_ROW;) {
        const struct row *row = row_at(table, index);
        if (is_younger(table, row))
            return true;
        index = row->chunk_next;
    }
    return false;
}

/* ---- graves ---- */

void grave_dig(struct object_table *table, const struct object *object, bool in_snapshot)
{
    struct grave_list *list = table->snapshot && !in_snapshot ? &table->later_graves : &table->graves;
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->graves = memory_resize(list->graves, list->capacity, sizeof *list->graves);
    }
    list->graves[list->count++] = (struct grave){
        .id = object->id,
        .born = object->born,
        .died = object->died,
        .seq_or_epoch = object->kind == OBJECT_LOG ? object->seq : object->epoch,
        .n = object->n,
        .uuid = object->uuid,
        .total_bytes = object->total_bytes,
        .kind = (uint8_t)object->kind,
        .role = (uint8_t)object->role,
    };
}

static int compare_graves(const void *left, const void *right)
{
    const struct grave *a = left, *b = right;
    if (a->died != b->died)
        return a->died < b->died ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

void object_table_snapshot_graves(struct object_table *table, void (*visit)(void *arg, const struct object_row *row),
                                  void *arg)
{
    assert(table->snapshot);
    if (table->graves.count > 0)
        qsort(table->graves.graves, table->graves.count, sizeof *table->graves.graves, compare_graves);
    for (size_t i = 0; i < table->graves.count; i++) {
        const struct grave *grave = &table->graves.graves[i];
        bool log = grave->kind == OBJECT_LOG;
        struct object_row row = { .id = grave->id,
                                  .kind = (enum object_kind)grave->kind,
                                  .role = (enum object_role)grave->role,
                                  .uuid = grave->uuid,
                                  .epoch = log ? 0 : grave->seq_or_epoch,
                                  .n = grave->n,
                                  .seq = log ? grave->seq_or_epoch : 0,
                                  .born = grave->born,
                                  .died = grave->died,
                                  .total_bytes = grave->total_bytes };
        visit(arg, &row);
    }
}

/* ---- the snapshot ---- */

void object_table_snapshot_begin(struct object_table *table, uint64_t own_first)
{
    assert(!table->snapshot);
    assert(table->snapshot_dirty.count == 0 && table->later_graves.count == 0 && table->waiting == NO_ROW);
    struct chunk_list empty = table->snapshot_dirty;
    table->snapshot_dirty = table->dirty;
    table->dirty = empty;
    for (size_t i = 0; i < table->snapshot_dirty.count; i++) {
        struct chunk *chunk = &table->chunks[table->snapshot_dirty.chunks[i]];
        chunk->dirty = false;
        chunk->in_snapshot = true;
    }
    table->snapshot = true;
    table->phase++;
    table->snapshot_seq = table->seq;
    table->own_first = own_first;
}

struct object_row object_table_snapshot_row(const struct object_table *table, uint32_t index)
{
    assert(table->snapshot);
    const struct row *row = row_at(table, index);
    const struct object *object = &row->object;
    uint32_t live = snapshot_live(table, row);
    return (struct object_row){ .id = object->id,
                                .kind = object->kind,
                                .role = object->role,
                                .uuid = object->uuid,
                                .epoch = object->epoch,
                                .n = object->n,
                                .seq = object->seq,
                                .born = object->born,
                                .died = live > 0 ? OBJECT_ALIVE : object->died,
                                .total_bytes = object->total_bytes,
                                .live = live };
}

size_t object_table_snapshot_dirty_count(const struct object_table *table)
{
    assert(table->snapshot);
    return table->snapshot_dirty.count;
}

uint64_t object_table_snapshot_dirty_id(const struct object_table *table, size_t number)
{
    assert(number < table->snapshot_dirty.count);
    return table->chunks[table->snapshot_dirty.chunks[number]].number * CHUNK_IDS;
}

/* What waited for the snapshot is in doubt again. */
static void stop_waiting(struct object_table *table)
{
    uint32_t last = table->waiting;
    if (last == NO_ROW)
        return;
    while (row_at(table, last)->next != NO_ROW)
        last = row_at(table, last)->next;
    row_at(table, last)->next = table->doubts;
    table->doubts = table->waiting;
    table->waiting = NO_ROW;
}

void object_table_snapshot_end(struct object_table *table)
{
    assert(table->snapshot);
    for (size_t i = 0; i < table->snapshot_dirty.count; i++) {
        uint32_t at = table->snapshot_dirty.chunks[i];
        struct chunk *chunk = &table->chunks[at];
        chunk->in_snapshot = false;
        if (has_younger_row(table, chunk))
            chunk_dirty(table, at);
        chunk_release(table, at);
    }
    table->snapshot_dirty.count = 0;
    free(table->graves.graves);
    table->graves = table->later_graves;
    table->later_graves = (struct grave_list){ 0 };
    stop_waiting(table);
    table->snapshot = false;
}
