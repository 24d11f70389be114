/* Layout: how pages become frames of an object.
 *
 * Pages in ascending order, those of one block together in one frame, frames
 * one behind the other.  The result is what a data object consists of, or what
 * rides inline behind a commit's tables: a list of pieces that point at frame
 * headers and at the pages' own memory, so nothing is copied. */
#ifndef CAIRN_VOL_LAYOUT_H
#define CAIRN_VOL_LAYOUT_H

#include <stdint.h>
#include <sys/uio.h>

#include "vol/page.h"

struct layout_frame {
    uint64_t block;
    uint32_t bitmap; /* of the block's pages in it */
    uint32_t first;  /* its first page, in layout.pages */
    uint32_t start;  /* FRAME_UNITs from the first frame of the layout */
    uint32_t page_count;
};

struct layout {
    struct page *const *pages; /* borrowed: page_count of them, ascending by number, each number once */
    uint32_t page_count;
    struct layout_frame *frames;
    uint32_t frame_count;
    uint8_t (*headers)[FRAME_HEADER_BYTES]; /* filled by layout_seal() */
    struct iovec *pieces;                   /* likewise */
    int piece_count;
    uint64_t bytes; /* of all frames */
};

/* Decides the frames; cheap. `pages` must live as long as the layout. */
void layout_make(struct page *const *pages, uint32_t page_count, struct layout *ret_layout);

/* Hashes the pages into the headers and makes the pieces.  `place` says where the first frame will lie.
 * Pure over memory that nobody changes: may run on a worker thread. */
void layout_seal(struct layout *layout, const struct frame_place *place);

/* The frame of page `index`, going forward from *at_frame (0 at first): for walks in ascending order. */
const struct layout_frame *layout_frame_of(const struct layout *layout, uint32_t index, uint32_t *at_frame);

void layout_free(struct layout *layout);

#endif
