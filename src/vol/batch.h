/* A batch: a piece of the write buffer on its way into the store.
 *
 *     OPEN ──seal──> SEALED ──(rides inline)──────────────┐
 *                      │                                  ├──> committed: gone
 *                      └──> UPLOADING ──> UPLOADED ───────┘
 *
 * The open batch takes writes.  It owns a reference to each of its pages; a
 * page written again while the batch is open replaces the older one, which then
 * never reaches the store.  A zeroed range takes its pages out and is
 * remembered; so inside a batch zero ranges apply first, then pages.  Once
 * sealed it keeps its pages, except that the end of it may be cut off, into a
 * batch that follows it, or the one that follows be joined to it, before it is
 * uploaded.
 *
 * Sealed batches are numbered in their order, each by the place of its last
 * page among all that were sealed (a batch counts as one place more than it has
 * pages, as there are some without).  So whoever waits for a number goes on
 * waiting for the same pages when batches are cut and joined meanwhile; what
 * was joined is not cut again.
 *
 * How long a batch stays open is a bet on whether its pages are written again.
 * What is written in order hardly ever is: such a batch is full as soon as it
 * makes a data object, and is on its way while the next one fills.  Other
 * batches grow further, and are sealed by age, by FLUSH or for want of room;
 * then they are cut into pieces of a data object each, in page order, which
 * besides puts neighbours together.
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

/* Pages and zero ranges of a sealed batch: 2,048 pages make a data object of 8 MiB, the size from which S3 gains
 * nothing more from larger objects. An open batch that grew larger is cut into several. */
#define BATCH_EXTENTS 2048u
/* The same of one that was written in order, when there is much of that (vol/commit.c): fewer requests. As large as an
 * object may be, with a header for each page. */
#define BATCH_EXTENTS_MOST 3840u
/* The most that an open batch grows to, for pages that may be written again: 512 MiB, sorted in about ten milliseconds.
 */
#define BATCH_OPEN_PAGES_MAX 131072u
/* What a zero range costs of the dirty bytes. */
#define ZERO_RANGE_COST 64u

enum batch_state { BATCH_OPEN, BATCH_SEALED, BATCH_UPLOADING, BATCH_UPLOADED };

struct batch {
    struct list link;      /* volume.batches, oldest first */
    struct list zero_link; /* volume.zeroing */
    struct volume *volume;
    uint64_t number; /* from SEALED on: ascending; UINT64_MAX before */
    int state;
    uint64_t opened_ns, sealed_ns;
    struct gate *gate;
    uint64_t charged; /* of the gate */
    bool apart;       /* becomes a data object however small it is */
    bool joined;      /* of several, and so without the numbers of their last pages */

    /* OPEN: in the order of writing, NULL where a page was dropped, page_count of them there.
     * From SEALED on: ascending by number, page_count of them. */
    struct page **pages;
    uint32_t page_count, places, capacity;
    uint32_t in_order; /* how many of them came with a write that began where a recent one ended */
    struct zero_set zeroes;

    /* From SEALED on: */
    uint32_t extents_bound; /* how many runs of pages and zero ranges */
    /* UPLOADING, UPLOADED: */
    struct layout layout;
    uint64_t data_n;
    uint64_t started_ns; /* when it was its turn to be sent; 0: not yet */
};

struct batch *batch_new(struct volume *volume, struct gate *gate, uint64_t now_ns);
/* Drops pages and charge; the caller has taken it out of its list. */
void batch_free(struct batch *batch);

/* Whether it was mostly written in order. */
bool batch_ordered(const struct batch *batch);
/* `room`: pages that it may grow to if they are likely to be written again; `ordered`: if they are not. */
bool batch_full(const struct batch *batch, uint64_t room, uint32_t ordered);
bool batch_empty(const struct batch *batch);

/* Takes over one reference of `page` and its charge of PAGE_BYTES. page->number is set. */
void batch_add(struct batch *batch, struct page *page);
/* `page` is one of the open batch's: drops it, with its charge. */
void batch_remove(struct batch *batch, struct page *page);
/* The range reads as zero; the caller has removed its pages. Charges what it adds even over the limit. */
void batch_zero(struct batch *batch, uint64_t first, uint64_t past);
/* `before`: the number of the batch that was sealed last. Returns the number of this one. */
uint64_t batch_seal(struct batch *batch, uint64_t before);
/* Of a sealed batch that was not joined: cuts off what is beyond `most` pages, and beyond BATCH_EXTENTS_MOST, into a
 * new one that follows it; NULL: nothing is. */
struct batch *batch_cut(struct batch *batch, uint32_t most);
/* Whether `next`, the sealed batch that follows the sealed `batch`, can be joined to it: where it has pages behind
 * those and nothing else. */
bool batch_joins(const struct batch *batch, const struct batch *next);
/* Takes all that `next` has, and its number; it is empty then.  Not more than BATCH_EXTENTS_MOST together. */
void batch_join(struct batch *batch, struct batch *next);

struct state_table;
extern const struct state_table batch_states;

#endif
