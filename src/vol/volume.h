/* The volume: the front door of the engine.
 *
 * What happens on READ is vol/read.c, on WRITE vol/write.c, on FLUSH
 * vol/flush.c; how commits are made vol/commit.c; how a volume is opened and
 * taken over vol/recover.c.
 *
 * All calls for a volume come from its shard's thread.  Offsets and lengths
 * are bytes; the caller has checked them against volume_size() (asserted).
 * The _try forms never park and never wait: -EAGAIN says use the CO form.
 * Errors are -errno; after -ESHUTDOWN (fenced: another owner has the volume)
 * the connection must go. */
#ifndef CAIRN_VOL_VOLUME_H
#define CAIRN_VOL_VOLUME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/event.h"
#include "base/list.h"
#include "rt/loop.h"
#include "store/store.h"
#include "vol/format/format.h"

struct gate;
struct page;
struct volume;
struct volumes;

/* Who we are and who else lives on this host: real (daemon/host.c) or simulated. */
struct host_ops;
struct host {
    const struct host_ops *ops;
};
struct host_ops {
    /* Fills host, process, boot_id, lock_* of a register that we are about to own. */
    void (*sign)(struct host *host, struct register_body *body);
    /* The owner that `body` names ran on this host, in this boot, and is gone for certain. */
    bool (*owner_is_dead)(struct host *host, const struct register_body *body);
};

/* What a shard must have for requests of up to 32 MiB.  One that is larger than its gate's part is let in alone; so a
 * READ may hold 32 MiB while it waits for more, and so may a WRITE: with less than both and what they need besides they
 * could wait for each other for ever. */
#define VOLUMES_MEMORY_LEAST (UINT64_C(80) << 20)

/* Bounds of a lease: below, renewing would be all that a server does; beyond, nobody waits for a dead owner.  What a
 * register says is taken to be within them. */
#define LEASE_MS_LEAST 1000u
#define LEASE_MS_MOST (10u * 60 * 1000)

/* The longest that 2 MiB of disk can make of a leaf, with room. */
#define CHECKPOINT_FRAME_LEAST (16u << 10)

/* Settings of the engine; all of them have a default in volume_settings_default(). */
struct volume_settings {
    uint64_t memory_bytes; /* this shard's share: cache, dirty data, data on its way */
    uint64_t dirty_bytes;  /* at most this much of it uncommitted */
    uint64_t batch_age_ms; /* an open batch is sealed after */
    uint64_t flush_deadline_ms;
    uint64_t read_deadline_ms;
    uint64_t release_grace_ms; /* after the last client has gone; not for one that vanished */
    uint32_t uploads;          /* data objects on their way at once, per volume */
    /* What rides inline behind a commit's tables, in pages: when nobody waits, and when a FLUSH does; above that they
     * go into a data object first. 1 <= inline_pages < spread_pages <= BATCH_EXTENTS_MOST, inline_pages <=
     * flushed_inline_pages. */
    uint32_t inline_pages, flushed_inline_pages;
    uint32_t spread_pages; /* of data objects that are small so that all uploads have something to do */
    uint32_t object_pages; /* of others, about; 1 to BATCH_EXTENTS (vol/batch.h) */
    /* A checkpoint is begun after so many log entries since the last, or so many bytes committed; commits wait at twice
     * that. */
    uint64_t checkpoint_slots, checkpoint_bytes;
    uint64_t settled_slots;           /* so many entries may be left for the next owner to read when it is given back */
    uint64_t checkpoint_object_bytes; /* of its objects */
    uint32_t checkpoint_frame_bytes;  /* of leaves that are read together; at least CHECKPOINT_FRAME_LEAST */
    uint32_t checkpoint_chunks;       /* beyond so many chunks their rows are packed; at most ROOT_CHUNKS_MAX */
    uint64_t map_bytes;               /* leaves of maps in memory; 0: a part of memory_bytes */
    uint64_t lease_ms;                /* LEASE_MS_LEAST to LEASE_MS_MOST; renewed at half of it */
    uint64_t owner_wait_ms; /* how long an acquire waits for another owner to go, or to be silent for its lease */
    bool break_lease;       /* take volumes whatever their register says of the owner */
};
struct volume_settings volume_settings_default(void);

/* ---- all volumes of one shard ---- */

/* `store`, `host`, `events` outlive it. */
struct volumes *volumes_new(struct loop *loop, struct store *store, struct host *host, struct event_sink *events,
                            const struct volume_settings *settings);
/* Flushes and releases every volume, until `deadline_ns`; then gives up: -EIO with what was not saved.
 * New acquires fail with -ESHUTDOWN from the call on.  Users of volumes must be gone. */
CO int volumes_shutdown(struct volumes *volumes, uint64_t deadline_ns, struct error *error);
/* The end of a crashed node in the simulator, or after a failed shutdown: cancels everything, saves nothing. */
CO void volumes_abandon(struct volumes *volumes);
void volumes_free(struct volumes *volumes); /* after one of the two */

/* Whether every volume that was ever opened here was given back; the registers of the others still name this process as
 * their owner. */
bool volumes_all_returned(const struct volumes *volumes);

/* Changes the shard's share of memory, from what the settings say to `memory_bytes`; the part of it that may be
 * uncommitted keeps its proportion.  More counts at once.  Less is what new requests are measured by at once, and what
 * is in use comes down to it as those under way end.  Then `done` (NULL: nobody cares) is called, perhaps before this
 * returns; until then it must not be called again.  Once volumes are shut down or abandoned nothing happens. */
void volumes_set_memory(struct volumes *volumes, uint64_t memory_bytes, void (*done)(void *arg), void *arg);
/* Somebody waits for memory that payloads not yet received, or replies not yet taken, may be holding: who holds
 * some and makes no progress should be cut off. */
bool volumes_writers_wait(const struct volumes *volumes);
bool volumes_readers_wait(const struct volumes *volumes);
/* Calls fn(arg, true) when a first volume is about to be opened, and fn(arg, false) when the last one has been closed.
 * None may be open yet. */
void volumes_on_busy(struct volumes *volumes, void (*fn)(void *arg, bool busy), void *arg);

/* What the store knows of a volume, without opening it. */
struct volume_brief {
    bool exists;
    uint64_t size;
};
/* -ENOENT is not an error here: exists is false. */
CO int volumes_look(struct volumes *volumes, const char *name, size_t name_length, struct volume_brief *ret_brief,
                    struct error *error);

/* Opens the volume, creating it with `create_size` bytes when it does not exist (0: -ENOENT instead);
 * takes ownership in the store; counts one user.  Concurrent calls share one opening.
 *   -EBUSY: another owner holds it, and did so for owner_wait_ms; the story says who, since when, how alive it looked
 *   and what to do.  (With break_lease it is taken at once.)  -EBADMSG and others: refused, why. */
CO int volumes_acquire(struct volumes *volumes, const char *name, size_t name_length, uint64_t create_size,
                       struct volume **ret_volume, struct error *error);
/* One user less; the last one's going starts the grace period, after which it is flushed and released.  `vanished`: the
 * client did not leave, but is not there any more (keepalive, a timeout), so it will not come back within moments: no
 * grace if it was the last. */
void volumes_release(struct volumes *volumes, struct volume *volume, bool vanished);

/* Names of volumes that exist, in the order of their keys; the callback's memory is its own. */
CO int volumes_list(struct store *store, int (*visit)(void *arg, const char *name, size_t name_length), void *arg,
                    struct error *error);
/* One for each connection.  A callback may unwatch its own watch, and no other. */
struct volume_watch {
    struct list link; /* list_init() before the first use */
    /* The volume is fenced or lost: drop the client. */
    void (*gone)(struct volume_watch *watch);
    /* volume_may_answer() is true again, after it was false.  NULL: nobody cares. */
    void (*resumed)(struct volume_watch *watch);
};
void volume_watch(struct volume *volume, struct volume_watch *watch);
void volume_unwatch(struct volume_watch *watch);

/* Whether replies to clients may leave now: our lease is valid beyond doubt, by every clock.  To be asked right before
 * they are sent, once for a batch: it reads the clocks.  While it is false, replies are held: until resumed(), or for
 * ever, once gone() was called. */
bool volume_may_answer(struct volume *volume);

/* ---- one volume ---- */

uint64_t volume_size(const struct volume *volume);
const char *volume_subject(const struct volume *volume); /* "volume 'db'", quoted for messages */

/* Data for a reply: pieces in order, and what keeps their memory alive.  May be large: never on a coroutine's
 * stack with many pieces; grows on the heap, reusable. */
struct volume_data {
    struct iovec *pieces;
    uint32_t piece_count, piece_capacity;
    struct page **pages; /* references held */
    uint32_t page_count, page_capacity;
    struct gate *gate; /* of the shard's pages on their way out; NULL: holds nothing of it */
    uint64_t held;
};
void volume_data_init(struct volume_data *data);
void volume_data_clear(struct volume_data *data); /* drops references, keeps the arrays */
void volume_data_free(struct volume_data *data);

/* Appends `length` bytes of the disk to `data`. On failure `data` is as it was. */
int volume_read_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data);
CO int volume_read(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data,
                   struct error *error);

/* A WRITE in three steps: begin gives memory to receive the payload into; finish makes it part of the disk, at once
 * and whole; abort drops it (the payload did not come). */
struct volume_write {
    struct volume *volume;
    uint64_t offset;
    uint32_t length;
    uint32_t page_count;
    struct page **pages; /* covers offset … offset + length, the edges in part */
    struct page *few[4]; /* where `pages` points for small writes */
};
/* Reserves memory; waits while too much is dirty (the CO form). */
int volume_write_begin_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write);
CO int volume_write_begin(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write);
/* Where to receive: fills at most `capacity` pieces for the payload's bytes from `skip` on; returns how many. */
int volume_write_pieces(const struct volume_write *write, uint32_t skip, struct iovec *ret_pieces, int capacity);
/* Done with `write` in any case, but for -EAGAIN from the try form (an edge needs the store: call the CO form). */
int volume_write_finish_try(struct volume_write *write);
CO int volume_write_finish(struct volume_write *write, struct error *error);
void volume_write_abort(struct volume_write *write);

/* WRITEs to come soon, by their offsets: makes them cheaper, changes nothing. At most VOLUME_EXPECT_MOST. */
#define VOLUME_EXPECT_MOST 32u
void volume_write_expect(const struct volume *volume, const uint64_t *offsets, uint32_t count);

/* The whole WRITE at once, where it changes only pages that were written a moment ago and that nobody but the open
 * batch has seen: true.  Otherwise false, and nothing was done. */
bool volume_write_over(struct volume *volume, uint64_t offset, uint32_t length, const uint8_t *payload);

/* TRIM and WRITE_ZEROES: the range reads as zeroes from then on.  Any length.  Zeroes are never stored, so
 * there is nothing to distinguish (NO_HOLE asks for space that cannot run out here). */
int volume_zero_try(struct volume *volume, uint64_t offset, uint64_t length);
CO int volume_zero(struct volume *volume, uint64_t offset, uint64_t length, struct error *error);

/* Everything completed before the call is durable in the store when it returns 0. */
int volume_flush_try(struct volume *volume); /* 0 only when nothing is unwritten */
CO int volume_flush(struct volume *volume, struct error *error);

/* Fetches what of the range is not in memory, as far as the cache has room. */
CO int volume_cache(struct volume *volume, uint64_t offset, uint64_t length, struct error *error);

struct volume_counts {
    uint64_t commits, commit_bytes, objects, object_bytes; /* written since it was opened */
    uint64_t dirty_bytes, uncommitted_batches;
    uint64_t committed_seq, epoch;
    uint64_t mapped_pages, map_bytes;
    uint64_t leaf_bytes, dirty_leaf_bytes; /* of map_bytes: leaves, and what of them waits for a checkpoint */
    uint64_t object_table_bytes;
    uint64_t leaf_loads;                    /* GETs of leaves that were fetched */
    uint64_t checkpoints, checkpoint_bytes; /* made since it was opened */
    uint64_t root_seq;                      /* log entry of the newest */
    uint64_t fetches, fetched_bytes;
    uint64_t renewals;   /* writes of the register that landed since it was opened */
    bool lease_in_doubt; /* replies are held */
};
struct volume_counts volume_read_counts(const struct volume *volume);

/* Walks volumes that are open, for statistics. */
void volumes_walk(struct volumes *volumes, void (*visit)(void *arg, struct volume *volume), void *arg);

#endif
