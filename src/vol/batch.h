/* A batch: a piece of the write buffer on its way into the store.
 *
 *     OPEN ──seal──> SEALED ──(rides inline)──────────────┐
 *                      │                                  ├──> committed: gone
 *                      └──> UPLOADING ──> UPLOADED ───────┘
 *
 * The open batch takes writes.  It owns a reference to each of its pages; a
 * page written again while the batch is open replaces the older one.  A zeroed
 * range takes its pages out and is remembered; so inside a batch zero ranges
 * apply first, then pages.  Once sealed nothing in it changes.
 *
 * Each page and each zero range costs the gate of dirty bytes, until the batch
 * is committed. */
#ifndef CAIRN_VOL_BATCH_H
#define CAIRN_VOL_BATCH_H

#include <stdint.h>

#include "vol/gate.h"
#include "vol/layout.h"
#include "vol/page.h"
#include "vol/zero_set.h"

/* A batch is sealed at this many pages and zero ranges together: 2,048 pages make a data object of 8 MiB, the size
 * from which S3 gains nothing more from larger objects. */
#define BATCH_EXTENTS 2048u
/* What a zero range costs of the dirty bytes. */
#define ZERO_RANGE_COST 64u

enum batch_state { BATCH_OPEN, BATCH_SEALED, BATCH_UPLOADING, BATCH_UPLOADED };

struct batch {
    struct list link; /* volume.batches, oldest first */
    struct volume *volume;
    uint64_t number; /* 1, 2, 3, … in the order of opening */
    int state;
    uint64_t opened_ns;
    struct gate *gate;
    uint64_t charged; /* of the gate */

    struct list pages; /* page.in_batch; while OPEN */
    uint32_t page_count;
    struct zero_set zeroes;

    /* From SEALED on: */
    struct page **sorted; /* ascending by number */
    uint32_t extents_bound; /* how many runs of pages and zero ranges */
    /* UPLOADING, UPLOADED: */
    struct layout layout;
    uint64_t data_n;
};

struct batch *batch_new(struct volume *volume, struct gate *gate, uint64_t number, uint64_t now_ns);
/* Drops pages and charge; the caller has taken it out of its list. */
void batch_free(struct batch *batch);

bool batch_full(const struct batch *batch);
bool batch_empty(const struct batch *batch);

/* Takes over one reference of `page` and its charge of PAGE_BYTES. page->number is set. */
void batch_add(struct batch *batch, struct page *page);
/* `page` is one of the open batch's: drops it, with its charge. */
void batch_remove(struct batch *batch, struct page *page);
/* The range reads as zero; the caller has removed its pages. Charges what it adds even over the limit. */
void batch_zero(struct batch *batch, uint64_t first, uint64_t past);
void batch_seal(struct batch *batch);

struct state_table;
extern const struct state_table batch_states;

#endif
