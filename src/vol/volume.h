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

/* Settings of the engine; all of them have a default in volume_settings_default(). */
struct volume_settings {
    uint64_t memory_bytes; /* this shard's share: cache, dirty data, data on its way */
    uint64_t dirty_bytes;  /* at most this much of it uncommitted */
    uint64_t batch_age_ms; /* an open batch is sealed after */
    uint64_t flush_deadline_ms;
    uint64_t read_deadline_ms;
    uint64_t release_grace_ms; /* after the last client has gone */
    uint32_t uploads;          /* data objects on their way at once, per volume */
    uint64_t lease_ms;
    bool break_lease; /* take volumes whatever their register says of the owner */
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
 *   -EBUSY: another owner holds it; the story says who and what to do.  -EBADMSG and others: refused, why. */
CO int volumes_acquire(struct volumes *volumes, const char *name, size_t name_length, uint64_t create_size,
                       struct volume **ret_volume, struct error *error);
/* One user less; the last one's going starts the grace period, after which it is flushed and released. */
void volumes_release(struct volumes *volumes, struct volume *volume);

/* Names of volumes that exist, in the order of their keys; the callback's memory is its own. */
CO int volumes_list(struct store *store, int (*visit)(void *arg, const char *name, size_t name_length), void *arg,
                    struct error *error);
/* Called once per connection: `gone` is called when the volume is fenced or lost, so that it drops its client. */
struct volume_watch {
    struct list link; /* list_init() before the first use */
    void (*gone)(struct volume_watch *watch);
};
void volume_watch(struct volume *volume, struct volume_watch *watch);
void volume_unwatch(struct volume_watch *watch);

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
    uint64_t fetches, fetched_bytes;
};
struct volume_counts volume_read_counts(const struct volume *volume);

/* Walks volumes that are open, for statistics. */
void volumes_walk(struct volumes *volumes, void (*visit)(void *arg, struct volume *volume), void *arg);

#endif
