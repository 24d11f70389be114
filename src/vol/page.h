/* Pages of disk content, and the budget that bounds them.
 *
 * A page is 4 KiB of memory with a count of references.  It is filled while
 * only its maker knows it, and never changed once it is linked anywhere; a
 * write of the same disk page swaps the pointer.
 *
 * One pool per shard hands pages out, in runs of adjacent memory while it can,
 * and never has more than its limit: page_pool_take() first asks the pool's
 * `shrink` hook to give pages back (the cache), then waits. */
#ifndef CAIRN_VOL_PAGE_H
#define CAIRN_VOL_PAGE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "rt/coroutine.h"
#include "vol/format/format.h"

struct batch;
struct loop;
struct page_pool;
struct slab;

struct page {
    uint32_t references;
    uint32_t slot; /* in its slab */
    uint8_t *data; /* PAGE_BYTES */
    struct slab *slab;
    /* Set when the page is linked into the dirty index, and of no meaning before or after: */
    struct batch *batch;
    uint64_t number; /* which page of the disk */
    uint32_t place;  /* in the open batch's pages */
};

/* What a page costs of the limit: its memory, and its share of its slab's bookkeeping. */
#define PAGE_COST (PAGE_BYTES + 64u)

/* `loop`: whose coroutines may wait here; NULL when page_pool_take() is never called. */
struct page_pool *page_pool_new(struct loop *loop, uint64_t limit_bytes);
void page_pool_free(struct page_pool *pool); /* every page is back, nobody waits */
/* Lowering it asks the hook for what is over; the rest comes back as pages do. */
void page_pool_set_limit(struct page_pool *pool, uint64_t limit_bytes);
uint64_t page_pool_limit(const struct page_pool *pool);
uint64_t page_pool_used(const struct page_pool *pool); /* bytes in pages handed out */
/* Bytes of slabs that are mapped: what is resident at most. Beyond the limit only for slabs that were partly in use
 * when the limit was lowered or charges came, and by less than one slab. */
uint64_t page_pool_mapped(const struct page_pool *pool);
/* Called to give back about `bytes`; returns what it gave.  Must not take pages. */
void page_pool_on_shortage(struct page_pool *pool, uint64_t (*shrink)(void *arg, uint64_t bytes), void *arg);

/* `count` pages with one reference each, all or none.  Nobody overtakes those who wait.
 *   try: -EAGAIN instead of waiting.  take: -ECANCELED.
 *   both: -ENOMEM when the limit can never hold so many, or the system has no memory. */
int page_pool_try(struct page_pool *pool, size_t count, struct page **ret_pages);
CO int page_pool_take(struct page_pool *pool, size_t count, struct page **ret_pages);

/* Counts memory that is not pages, and lives and dies with them, against the limit. Never waits: a charge that goes
 * over is made good by the next who takes; those who wait see what was uncharged when the next page comes back. */
void page_pool_charge(struct page_pool *pool, uint64_t bytes);
void page_pool_uncharge(struct page_pool *pool, uint64_t bytes);
uint64_t page_pool_charged(const struct page_pool *pool);

/* Somebody waits for pages: whoever holds some only because they may be useful should let go now. */
bool page_pool_wanting(const struct page_pool *pool);
/* What the hook could not give before it can now: asks it again for those who wait. */
void page_pool_retry(struct page_pool *pool);

void page_release(struct page *page); /* for page_unref(): the last reference is gone */

static inline struct page *page_ref(struct page *page)
{
    assert(page->references > 0 && page->references < UINT32_MAX);
    page->references++;
    return page;
}

static inline void page_unref(struct page *page)
{
    assert(page->references > 0);
    if (--page->references == 0)
        page_release(page);
}

bool page_is_zero(const uint8_t *data);

#endif
