/* The dirty index: page of the disk to its newest content not yet committed.
 *
 * A table of blocks, each with a slot per page.  A slot borrows its page from
 * the batch that owns it: it is emptied when a later zeroing covers the page,
 * and when the batch is committed and the slot still shows that batch's page.
 * So an empty slot means: the newest uncommitted thing done to the page, if
 * any, was zeroing it. */
#ifndef CAIRN_VOL_DIRTY_H
#define CAIRN_VOL_DIRTY_H

#include <stdint.h>

#include "vol/page.h"

struct dirty_block {
    struct dirty_block *next;
    uint64_t block;
    uint32_t filled;
    struct page *slots[BLOCK_PAGES];
};

struct dirty;

struct dirty *dirty_new(void);
void dirty_free(struct dirty *dirty);

/* NULL when no page of the block is dirty. */
struct dirty_block *dirty_find(const struct dirty *dirty, uint64_t block);
struct page *dirty_page(const struct dirty *dirty, uint64_t number);
/* These pages, at most VOLUME_EXPECT_MOST, are about to be looked up, and overwritten where they are dirty: has the
 * processor fetch what lies far from it for all of them at once, rather than one after the other. */
void dirty_expect(const struct dirty *dirty, const uint64_t *numbers, uint32_t count);

/* Puts `page` (page->number) into its slot; returns what stood there, or NULL. */
struct page *dirty_set(struct dirty *dirty, struct page *page);
/* Empties the slot if it shows `page`. */
void dirty_drop(struct dirty *dirty, const struct page *page);
/* Empties all slots of pages in [first, past); calls dropped for each page that stood there. */
void dirty_clear(struct dirty *dirty, uint64_t first, uint64_t past, void (*dropped)(void *arg, struct page *page),
                 void *arg);
/* Whether all slots of [first, past) are empty. */
bool dirty_none(const struct dirty *dirty, uint64_t first, uint64_t past);
uint64_t dirty_memory_bytes(const struct dirty *dirty);

#endif
