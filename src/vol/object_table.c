/* See object_table.h.
 *
 * Rows lie in chunks of 256 that do not move; a row's index is its chunk's
 * place in the table and its own in the chunk.  A chunk without rows is freed,
 * so the table's memory follows the number of rows down again.
 *
 *     row:   FREE ──add──> in use, in doubt ──live +n──> in use, live
 *              ^                  ^                        │
 *              │                  └──────live reaches 0────┘  (died = seq)
 *              └──forget_dead, when no holds──┘
 *
 * Rows without a live page stand in the list of doubts: those that died, and
 * those just born whose commit is not folded yet.  A newborn row that gets its
 * pages stays there until the next object_table_forget_dead() looks at it. So
 * that function looks at each row once, and again only while it is held or its
 * commit is still to come.
 *
 * Invariants: live_pages > 0 implies died == OBJECT_ALIVE; live_pages == 0 implies in doubt;
 * the sums over rows are kept with each change. */
#include "vol/object_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"

#define CHUNK_ROWS 256u
#define NO_ROW UINT32_MAX

struct row {
    struct object object;
    uint32_t next; /* FREE: the chunk's next free row; in doubt: index of the next in doubt */
    bool in_use, in_doubt;
};

struct chunk {
    uint32_t used, first_free;
    uint32_t number;
    uint32_t with_room; /* place in table.with_room; NO_ROW: full */
    struct row rows[CHUNK_ROWS];
};

struct object_table {
    struct chunk **chunks; /* NULL where there is none now */
    uint32_t *vacant;      /* numbers of those */
    uint32_t *with_room;   /* numbers of chunks with a free row; all three arrays have `capacity` */
    uint32_t chunk_count, vacant_count, with_room_count, capacity;
    uint32_t doubts; /* the first; NO_ROW: none */
    uint64_t seq;
    uint64_t count, live_pages, bytes;
};

struct object_table *object_table_new(void)
{
    struct object_table *table = memory_new(sizeof *table);
    table->doubts = NO_ROW;
    return table;
}

void object_table_free(struct object_table *table)
{
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < table->chunk_count; i++)
        free(table->chunks[i]);
    free(table->chunks);
    free(table->vacant);
    free(table->with_room);
    free(table);
}

static struct row *row_at(const struct object_table *table, uint32_t index)
{
    assert(index / CHUNK_ROWS < table->chunk_count);
    struct chunk *chunk = table->chunks[index / CHUNK_ROWS];
    assert(chunk != NULL);
    struct row *row = &chunk->rows[index % CHUNK_ROWS];
    assert(row->in_use);
    return row;
}

static void join_with_room(struct object_table *table, struct chunk *chunk)
{
    chunk->with_room = table->with_room_count;
    table->with_room[table->with_room_count++] = chunk->number;
}

static void leave_with_room(struct object_table *table, struct chunk *chunk)
{
    uint32_t last = table->with_room[--table->with_room_count];
    table->with_room[chunk->with_room] = last;
    table->chunks[last]->with_room = chunk->with_room;
    chunk->with_room = NO_ROW;
}

/* A chunk with a free row, or NULL when all indices are in use. */
static struct chunk *chunk_with_room(struct object_table *table)
{
    if (table->with_room_count > 0)
        return table->chunks[table->with_room[table->with_room_count - 1]];
    uint32_t number = table->chunk_count;
    if (table->vacant_count > 0) {
        number = table->vacant[--table->vacant_count];
    } else {
        if (number == OBJECT_INDEX_MAX / CHUNK_ROWS)
            return NULL;
        if (number == table->capacity) {
            table->capacity = number == 0 ? 16 : number * 2;
            table->chunks = memory_resize(table->chunks, table->capacity, sizeof *table->chunks);
            table->vacant = memory_resize(table->vacant, table->capacity, sizeof *table->vacant);
            table->with_room = memory_resize(table->with_room, table->capacity, sizeof *table->with_room);
        }
        table->chunk_count++;
    }
    struct chunk *chunk = memory_new(sizeof *chunk);
    chunk->number = number;
    for (uint32_t i = 0; i < CHUNK_ROWS; i++)
        chunk->rows[i].next = i + 1 < CHUNK_ROWS ? i + 1 : NO_ROW;
    table->chunks[number] = chunk;
    join_with_room(table, chunk);
    return chunk;
}

static void doubt(struct object_table *table, struct row *row, uint32_t index)
{
    if (row->in_doubt)
        return;
    row->in_doubt = true;
    row->next = table->doubts;
    table->doubts = index;
}

int object_table_add(struct object_table *table, const struct object *object, uint32_t *ret_index)
{
    struct chunk *chunk = chunk_with_room(table);
    if (chunk == NULL)
        return -ENOSPC;
    uint32_t place = chunk->first_free, index = chunk->number * CHUNK_ROWS + place;
    struct row *row = &chunk->rows[place];
    assert(!row->in_use && !row->in_doubt);
    chunk->first_free = row->next;
    chunk->used++;
    if (chunk->first_free == NO_ROW)
        leave_with_room(table, chunk);
    row->object = *object;
    row->object.died = OBJECT_ALIVE;
    row->object.live_pages = 0;
    row->object.holds = 0;
    row->in_use = true;
    doubt(table, row, index);
    table->count++;
    table->bytes += object->total_bytes;
    *ret_index = index;
    return 0;
}

const struct object *object_table_row(const struct object_table *table, uint32_t index)
{
    return &row_at(table, index)->object;
}

static void die(struct object_table *table, struct object *object, uint64_t seq)
{
    assert(object->live_pages == 0 && object->died == OBJECT_ALIVE);
    object->died = seq;
    table->bytes -= object->total_bytes;
}

void object_table_live(struct object_table *table, uint32_t index, int32_t change)
{
    struct row *row = row_at(table, index);
    struct object *object = &row->object;
    assert(object->died == OBJECT_ALIVE);
    assert(change >= 0 || object->live_pages >= -(uint32_t)change);
    object->live_pages += (uint32_t)change;
    table->live_pages += (uint64_t)change;
    if (change < 0 && object->live_pages == 0) {
        die(table, object, table->seq);
        doubt(table, row, index);
    }
}

void object_table_set_seq(struct object_table *table, uint64_t seq)
{
    assert(seq >= table->seq);
    table->seq = seq;
}

static void forget(struct object_table *table, struct row *row, uint32_t index)
{
    assert(row->in_use && row->object.holds == 0 && row->object.live_pages == 0);
    struct chunk *chunk = table->chunks[index / CHUNK_ROWS];
    row->in_use = false;
    row->next = chunk->first_free;
    chunk->first_free = index % CHUNK_ROWS;
    if (chunk->used-- == CHUNK_ROWS)
        join_with_room(table, chunk);
    table->count--;
    if (chunk->used == 0) {
        leave_with_room(table, chunk);
        table->chunks[chunk->number] = NULL;
        table->vacant[table->vacant_count++] = chunk->number;
        free(chunk);
    }
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
        if (object->live_pages == 0) {
            if (object->died == OBJECT_ALIVE && object->born <= table->seq)
                die(table, object, object->born);
            if (object->died == OBJECT_ALIVE || object->holds > 0)
                doubt(table, row, index);
            else
                forget(table, row, index);
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
    for (uint32_t i = 0; i < table->chunk_count; i++) {
        const struct chunk *chunk = table->chunks[i];
        if (chunk == NULL)
            continue;
        for (uint32_t j = 0; j < CHUNK_ROWS; j++)
            if (chunk->rows[j].in_use)
                visit(arg, i * CHUNK_ROWS + j, &chunk->rows[j].object);
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
    return table->live_pages;
}

uint64_t object_table_memory_bytes(const struct object_table *table)
{
    uint64_t chunks = table->chunk_count - table->vacant_count;
    uint64_t arrays = sizeof *table->chunks + sizeof *table->vacant + sizeof *table->with_room;
    return sizeof *table + chunks * sizeof(struct chunk) + table->capacity * arrays;
}
