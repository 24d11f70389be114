/* The object table: every object that the map can name, under a short index.
 *
 * On disk objects have 64-bit ids that are never used again; in memory the map
 * has no room for those, so each object has a short index (26 bits) while it is
 * in the table.  An index is not reused while its row is held: by live pages in
 * the map, or by a task that reads from the object across a park.
 *
 * A row is born with no live page; those of its commit are added while the
 * commit is folded.  It dies when its last live page goes, or, when its commit
 * gave it none, with the fold itself.  Dead rows stay until
 * object_table_forget_dead(). */
#ifndef CAIRN_VOL_OBJECT_TABLE_H
#define CAIRN_VOL_OBJECT_TABLE_H

#include <stdint.h>

#include "vol/format/format.h"

#define OBJECT_NONE UINT32_MAX
#define OBJECT_INDEX_MAX (1u << 26)
#define OBJECT_ALIVE UINT64_MAX /* died: not yet */

struct object_table;

struct object {
    uint64_t id;
    enum object_kind kind;
    struct uuid uuid;
    uint64_t epoch, n;   /* OBJECT_DATA */
    uint64_t seq;        /* OBJECT_LOG */
    uint64_t born, died; /* seqs; died: that of the commit that took its last live page, or born; OBJECT_ALIVE */
    uint64_t total_bytes;
    uint32_t live_pages;
    uint32_t holds; /* of tasks */
};

struct object_table *object_table_new(void);
void object_table_free(struct object_table *table);

/* Adds a row with live_pages 0, holds 0, died OBJECT_ALIVE, whatever `object` says of them.
 * -ENOSPC when OBJECT_INDEX_MAX are in use. */
int object_table_add(struct object_table *table, const struct object *object, uint32_t *ret_index);
/* Valid until the row is forgotten: rows do not move. */
const struct object *object_table_row(const struct object_table *table, uint32_t index);

/* live_pages += change; when it reaches 0 by a decrease, died = the seq set by object_table_set_seq().
 * A row that has died gets no live page any more. */
void object_table_live(struct object_table *table, uint32_t index, int32_t change);
void object_table_set_seq(struct object_table *table, uint64_t seq); /* of the commit that is being folded; grows */

/* To be called when a commit has been folded whole: rows born by then that have no live page have died, and
 * those of them that nobody holds leave the table; the others leave at a later call.  Costs what became dead, not what
 * there is. */
void object_table_forget_dead(struct object_table *table);

void object_table_hold(struct object_table *table, uint32_t index);
void object_table_unhold(struct object_table *table, uint32_t index);

void object_table_walk(const struct object_table *table,
                       void (*visit)(void *arg, uint32_t index, const struct object *object), void *arg);
uint64_t object_table_count(const struct object_table *table); /* rows, dead ones not yet forgotten among them */
uint64_t object_table_bytes(const struct object_table *table); /* sum of total_bytes of rows that have not died */
uint64_t object_table_live_pages(const struct object_table *table);
uint64_t object_table_memory_bytes(const struct object_table *table);

#endif
