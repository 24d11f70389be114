/* The object table: every object that the map can name, under a short index.
 *
 * On disk objects have 64-bit ids that are never used again; in memory the map
 * has no room for those, so each object has a short index (26 bits) while it is
 * in the table.  An index is not reused while its row is held: by live pages or
 * pieces in the map, by a snapshot, or by a task that reads from the object
 * across a park.
 *
 * A row is born with nothing live; the pages of its commit are added while the
 * commit is folded.  It dies when the last of what was live goes, or, when its
 * commit gave it nothing, with the fold itself.  Dead rows stay until
 * object_table_forget_dead(); what a checkpoint must say of them is kept as a
 * grave.
 *
 * Pages that a patch of the map replaces are given back when the leaf that has
 * them was read, so live counts may be too high for a while, and an object may
 * die later than its last page was replaced; never too early. */
#ifndef CAIRN_VOL_OBJECT_TABLE_H
#define CAIRN_VOL_OBJECT_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "vol/format/checkpoint.h"

#define OBJECT_NONE UINT32_MAX
#define OBJECT_INDEX_MAX (1u << 26)
#define OBJECT_ALIVE UINT64_MAX /* died: not yet */
#define CHUNK_IDS 256u          /* that are written together; those that came together mostly change together */

struct object_table;

struct object {
    uint64_t id;
    struct uuid uuid;
    uint64_t epoch, n; /* OBJECT_DATA */
    uint64_t seq;      /* OBJECT_LOG */
    uint64_t total_bytes;
    uint64_t born, died; /* seqs; died: of the commit that took the last of what was live, or born; OBJECT_ALIVE */
    enum object_kind kind;
    enum object_role role;
    uint32_t live;  /* ROLE_PAGES: pages of the disk; ROLE_PIECES: pieces that the newest state names */
    uint32_t holds; /* of tasks */
};

struct object_table *object_table_new(void);
void object_table_free(struct object_table *table); /* at any time, during a snapshot too */

/* Adds a row with live 0, holds 0, died OBJECT_ALIVE, whatever `object` says of them.
 * -ENOSPC when OBJECT_INDEX_MAX are in use; -EEXIST: the id is there already. */
int object_table_add(struct object_table *table, const struct object *object, uint32_t *ret_index);
/* Adds a row as a root describes it, with its live count.  clean: it is a row of a chunk that the root names;
 * otherwise (the root's own objects) its chunk must be written by the next checkpoint.  Errors as above. */
int object_table_restore(struct object_table *table, const struct object_row *row, bool clean, uint32_t *ret_index);
/* Valid until the row is forgotten: rows do not move. */
const struct object *object_table_row(const struct object_table *table, uint32_t index);
/* Index of the row with this id, dead ones not yet forgotten among them; OBJECT_NONE. */
uint32_t object_table_find(const struct object_table *table, uint64_t id);

/* live += change; when it reaches 0 by a decrease, died = the seq set by object_table_set_seq().
 * A row that has died gets nothing live any more.
 * During a snapshot: for the newest state only, see below. */
void object_table_live(struct object_table *table, uint32_t index, int32_t change);
/* The same; during a snapshot for both. */
void object_table_live_both(struct object_table *table, uint32_t index, int32_t change);
/* Of an object of the checkpoint under way: how long it has become. */
void object_table_set_total_bytes(struct object_table *table, uint32_t index, uint64_t total_bytes);
void object_table_set_seq(struct object_table *table, uint64_t seq); /* of the commit that is being folded; grows */

/* To be called when a commit has been folded whole: rows born by then that have nothing live have died, and
 * those of them that nobody holds leave the table; the others leave at a later call.  Costs what became dead, not what
 * there is. */
void object_table_forget_dead(struct object_table *table);

void object_table_hold(struct object_table *table, uint32_t index);
void object_table_unhold(struct object_table *table, uint32_t index);

void object_table_walk(const struct object_table *table,
                       void (*visit)(void *arg, uint32_t index, const struct object *object), void *arg);
uint64_t object_table_count(const struct object_table *table);      /* rows, dead ones not yet forgotten among them */
uint64_t object_table_bytes(const struct object_table *table);      /* sum of total_bytes of rows that have not died */
uint64_t object_table_live_pages(const struct object_table *table); /* of all rows of ROLE_PAGES */
uint64_t object_table_memory_bytes(const struct object_table *table); /* graves among them */
uint32_t object_table_chunk_count(const struct object_table *table);  /* chunks with rows, and a few more */

/* ---- snapshots (object_table_snapshot.c) ----
 *
 * A **chunk** is here the rows of the ids [CHUNK_IDS * c, CHUNK_IDS * (c + 1)).  It is dirty when a row of it was
 * added, changed or removed since a checkpoint wrote it.
 *
 * A **snapshot** is the table as of its begin, while the table goes on changing; one at a time.  Between begin and end
 *     object_table_live()       counts for the newest state only,
 *     object_table_live_both()  counts for both: a debt that the snapshot's own state had (a patch that was there when
 *                               it began is applied, a doomed leaf is charged, a piece of it moves).
 * Without a snapshot both do the same.
 *
 * Rows with ids at or above `own_first` are the objects that the checkpoint makes, and all that is younger: its chunks
 * leave them out (the root lists its own ones), and stay dirty for their sake.  What lives in the snapshot stays in the
 * table until its end, dead or not.  What dies by object_table_live_both() in the snapshot too has died there at the
 * seq at which it began.
 *
 * Begin and end cost dirty chunks and graves, not rows. */

void object_table_snapshot_begin(struct object_table *table, uint64_t own_first);
/* Chunks that must be written, in the order in which that became known: their first ids.  Giving back pieces makes more
 * of them; once all object_table_live_both() are done there are no more. */
size_t object_table_snapshot_dirty_count(const struct object_table *table);
uint64_t object_table_snapshot_dirty_id(const struct object_table *table, size_t number);

/* What a checkpoint is to write of chunks, in portions, since there may be millions: others run between the calls.  All
 * object_table_live_both() for rows of the snapshot are done. */
enum snapshot_walk_mode {
    WALK_DIRTY,  /* those that must be written; of no rows: the root names the chunk no more */
    WALK_ALL,    /* all that have rows */
    WALK_PACKED, /* all rows, CHUNK_ROWS_MAX at once, however far apart their ids are */
};
struct snapshot_walk;
struct snapshot_walk *snapshot_walk_new(const struct object_table *table, enum snapshot_walk_mode mode);
void snapshot_walk_free(struct snapshot_walk *walk); /* before the table */
/* To be called until it says false. */
bool snapshot_walk_gather(struct snapshot_walk *walk);
size_t snapshot_walk_count(const struct snapshot_walk *walk); /* gathered */
/* Then once; uses nothing but the walk, so another thread may do it. */
void snapshot_walk_sort(struct snapshot_walk *walk);
/* Then the chunks, ascending, with rows as they live in the snapshot; they stay until the next call.  false: no more.
 */
bool snapshot_walk_next(struct snapshot_walk *walk, struct objects_frame *ret_chunk);
/* Rows that had died, as of the snapshot, and that no snapshot before it wrote: by died, then id. */
void object_table_snapshot_graves(struct object_table *table, void (*visit)(void *arg, const struct object_row *row),
                                  void *arg);
/* One row as of the snapshot (live 0 and alive: not there): what the root says of its own objects. */
struct object_row object_table_snapshot_row(const struct object_table *table, uint32_t index);
/* The root that names all this is published: what was written is clean, its graves are buried. */
void object_table_snapshot_end(struct object_table *table);

#endif
