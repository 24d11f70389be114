/* The read cache: frames of committed data, within the shard's budget.
 *
 * A frame is immutable, so an entry never needs invalidating; its key is the
 * object it lies in and where.  Frames get in by being fetched, and committed
 * batches become cache as they are.  Who leaves is decided by S3-FIFO (a small
 * queue for what is seen once, a main queue with a two-bit count, ghosts of
 * those that left the small queue), so one long scan does not push out what is
 * read often, and a hit costs no list move.
 *
 * A missing frame that is being fetched is in the table too, as a place where
 * others wait: concurrent misses share one request.
 *
 * The cache has no size of its own: it keeps what it has until the pool is
 * short of pages and calls cache_shrink() (page_pool_on_shortage()). */
#ifndef CAIRN_VOL_CACHE_H
#define CAIRN_VOL_CACHE_H

#include <stdint.h>

#include "rt/wait.h"
#include "vol/page.h"

struct cache;

enum frame_state { FRAME_FETCHING, FRAME_READY, FRAME_FAILED };

struct frame {
    struct frame *hash_next;
    uint64_t object_id;
    uint32_t start;      /* in FRAME_UNITs */
    uint32_t references; /* users; the cache itself holds none: an unused frame in no queue is freed */
    uint32_t touched;    /* bit i: page i was read since it came */
    uint8_t state;       /* enum frame_state */
    uint8_t count;       /* of pages read again, 0 to 3 */
    uint8_t page_count;
    bool in_table, in_main;
    int failure;          /* FRAME_FAILED: -errno */
    struct list queue;    /* the cache's: small or main; not linked: in none (evicted, or being fetched) */
    struct waitq arrival; /* FRAME_FETCHING: woken when it is READY or FAILED */
    struct page *pages[]; /* page_count */
};

struct cache *cache_new(struct page_pool *pool, uint64_t seed);
void cache_free(struct cache *cache); /* nobody may hold a frame */

/* The frame with a reference more, in whatever state; NULL when it is not there.
 *
 * `pages` says which pages of the frame are about to be read, bit i for page i: a page that was read before makes the
 * lookup count for keeping the frame, so a scan that reads a frame page by page counts no more than one that
 * reads it whole. */
struct frame *cache_lookup_pages(struct cache *cache, uint64_t object_id, uint32_t start, uint32_t pages);
/* The same for all pages. */
struct frame *cache_lookup(struct cache *cache, uint64_t object_id, uint32_t start);
/* Whether it is there, ready or on its way; counts nothing. */
bool cache_has(const struct cache *cache, uint64_t object_id, uint32_t start);

/* A new frame in state FETCHING with one reference, in the table for others to find. It takes over the
 * references of `pages`. It must not be there yet. */
struct frame *cache_begin(struct cache *cache, uint64_t object_id, uint32_t start, struct page **pages,
                          uint32_t page_count);
/* Its content is there, and verified: wakes those who wait. The caller keeps its reference. */
void cache_ready(struct cache *cache, struct frame *frame);
/* It could not be had: leaves the table; those who wait see FAILED. The caller keeps its reference. */
void cache_failed(struct cache *cache, struct frame *frame, int failure);
/* A frame that is ready from the start (a committed batch). Takes over nothing: references the pages itself.
 * Does nothing when the frame is there already, or while somebody waits for pages. */
void cache_insert(struct cache *cache, uint64_t object_id, uint32_t start, struct page *const *pages,
                  uint32_t page_count);

/* Nobody will ask for this frame any more: its pages come back, when those who hold it let go. Nothing when it is not
 * there. */
void cache_discard(struct cache *cache, uint64_t object_id, uint32_t start);

void frame_unref(struct cache *cache, struct frame *frame);

/* Gives back about `bytes`; returns what came back at once.  Takes only frames that nobody uses, first those whose
 * pages nobody else references; then others, whose pages come back when their other users let go. */
uint64_t cache_shrink(struct cache *cache, uint64_t bytes);
/* Frames of objects whose ids are in [first, past): for tests and for volumes that are closed. Those that are
 * held leave the table, and go when they are let go. */
void cache_forget(struct cache *cache, uint64_t first_object_id, uint64_t past_object_id);

struct cache_counts {
    uint64_t hits;          /* lookups that found a READY frame */
    uint64_t misses;        /* frames begun: requests to the store */
    uint64_t shared_misses; /* lookups that found one being fetched */
    uint64_t evictions;
    uint64_t frames, bytes; /* in the table; bytes of their pages */
};
struct cache_counts cache_read_counts(const struct cache *cache);

#endif
