/* Inside the engine: what the stories (read, write, flush, commit, recover) share.
 *
 * Nobody outside src/vol includes this.
 *
 * Lock-free by construction: one thread, and state changes only between parks.
 * What each story may assume across a park is nothing but this:
 *   - a struct volume lives until its group is joined;
 *   - a batch that is uploaded, or part of a commit that is under way, does not
 *     change, and is gone only once committed or the volume is torn down, which
 *     joins the tasks that use it first; one that is only sealed may be cut, or
 *     joined to another and gone (vol/upload.c);
 *   - an object table row that is held keeps its index. */
#ifndef CAIRN_VOL_INTERNAL_H
#define CAIRN_VOL_INTERNAL_H

#include "base/mutant.h"
#include "base/state.h"
#include "rt/task.h"
#include "rt/timer.h"
#include "rt/wait.h"
#include "vol/batch.h"
#include "vol/cache.h"
#include "vol/dirty.h"
#include "vol/gate.h"
#include "vol/lease.h"
#include "vol/map.h"
#include "vol/object_table.h"
#include "vol/page.h"
#include "vol/volume.h"

/* ---- limits ---- */

/* Settings' defaults.  Pages that ride inline when a FLUSH waits: a data object would cost a second round trip, but
 * commits are to be quick to read again. */
#define INLINE_PAGES_FLUSHED 1024u
/* The same when nobody waits. */
#define INLINE_PAGES 64u
/* 2.5 MiB: at some 80 MB/s for a stream smaller objects would hardly be there sooner. */
#define SPREAD_PAGES 640u

/* What is written in order makes objects of twice spread_pages until this is exceeded, while a FLUSH is likely to come
 * soon and to wait for the last of them: 256 MiB. */
#define ORDERED_PAGES_TOTAL 65536u
/* A batch of which more pages ride inline is hashed by a worker thread. */
#define INLINE_PAGES_AT_ONCE 64u
/* Data objects of a volume that are made ready, laid out and hashed, while all uploads are busy: so that the next is
 * sent as soon as one of them ends. */
#define UPLOADS_AHEAD 4u
/* A commit that nobody waits for gathers this many data objects: one commit per 64 MiB or more. */
#define COMMIT_OBJECTS_GATHERED 16u
/* Rows that fit into a commit's tables, with room for its records. A later batch may split runs of an earlier
 * one, each of its own runs at most one, hence the bound on twice the sum of the batches' bounds. */
#define COMMIT_EXTENTS_MAX ((COMMIT_TABLES_MAX - 16384u) / COMMIT_EXTENT_BYTES)
#define COMMIT_BATCHES_MAX 256u /* at 32 bytes of table each where they are objects */
/* Attempts that fail for less than this are nobody's concern: a store fails now and then, and the next goes well. */
#define TROUBLE_TOLD_NS (2 * NS_PER_S)
/* Uncommitted batches that zero something: each read of an unmapped page asks all of them. */
#define ZERO_BATCHES_MAX 64u
/* Writes that are remembered to tell writing in order, by several connections with several requests each. */
#define RECENT_WRITES 16u
/* The first part of a log entry that replay reads: header and tables of most. */
#define LOG_FRONT_GUESS (64u << 10)
/* Log entries read ahead during replay; each costs LOG_FRONT_GUESS of memory. */
#define REPLAY_WINDOW 32u
/* Opening a volume and releasing it give up on a store that does not answer after this. */
#define OWNERSHIP_DEADLINE_NS (45 * NS_PER_S)
/* Owner nonces of volumes that could not be given back; more than a server is likely to hold while its store is away.
 * A volume whose nonce is forgotten can be opened again after a restart, or by break-lease. */
#define UNRETURNED_MAX 256u
/* Neighbouring frames that one GET fetches: eight blocks. */
#define FETCH_BYTES_MAX (1u << 20)
/* Fetches under way on a shard: each is a task with a stack, which is two of the 65,530 memory mappings that Linux
 * allows a process.  So the fetch gate charges at least FETCH_COST_LEAST for each, and is never larger than the
 * product. */
#define FETCHES_MAX 2048u
#define FETCH_COST_LEAST (64u << 10)
/* Blocks that a large read looks ahead of where it is. */
#define READ_AHEAD_BLOCKS 64u
/* The limit of dirty bytes shrinks while the oldest of them took longer than this to be committed, so that a FLUSH
 * never waits long, but not below DIRTY_BYTES_LEAST; it grows again while writers wait and commits are quick. */
#define COMMIT_SLOW_NS (2 * NS_PER_S)
#define DIRTY_BYTES_LEAST (UINT64_C(32) << 20)
/* Bits of a volume's tag above its object ids in the cache's keys. */
#define CACHE_TAG_SHIFT 46

/* Roots before the newest that a register goes on naming: for those who read it while a newer one is published, and to
 * look at when something is wrong.  Pins carry the root that they need themselves. */
#define ROOTS_OLDER_MAX 3u
/* Volumes of which a shard remembers something though they are not open: more than a server is likely to have. */
#define PASTS_MAX 256u

/* ---- all volumes of a shard ---- */

/* What is remembered of a volume that is not open here (vol/takeover.c). */
struct past;

struct volumes {
    struct loop *loop;
    struct store *store;
    struct host *host;
    struct event_sink *events;
    struct volume_settings settings; /* as given; what became of its memory_bytes and dirty_bytes is below */
    struct page_pool *pool;
    struct cache *cache;
    uint64_t dirty_most;   /* of the dirty gate's limit, which may be lower (vol/commit.c) */
    uint64_t map_most;     /* leaves of the maps of all volumes (vol/budget.c) */
    uint64_t shrinking_to; /* the share while memory comes down to it; 0: it has */
    void (*shrunk)(void *arg);
    void *shrunk_arg;
    void (*on_busy)(void *arg, bool busy);
    void *busy_arg;
    struct gate dirty_gate; /* bytes of the write buffers of all volumes */
    struct gate reply_gate; /* bytes of pages that replies hold */
    struct gate fetch_gate; /* bytes of frames that are being fetched */
    struct list all;        /* struct volume */
    struct group group;     /* one task per volume: opening, closing */
    struct waitq changed;   /* a volume changed its state */
    uint32_t next_tag;
    bool stopping;
    uint64_t stop_by_ns; /* when stopping: volumes_shutdown()'s deadline */
    /* Under which registers may still name us, though nobody serves those volumes here any more; the oldest is
     * overwritten first. */
    struct nonce unreturned[UNRETURNED_MAX];
    uint64_t unreturned_next; /* how many there ever were */
    struct past *pasts;       /* PASTS_MAX, a ring (vol/takeover.c) */
    uint64_t past_count;      /* how many there ever were */
};

/* ---- one volume ---- */

enum volume_state {
    VOLUME_OPENING, /* the keeper task takes ownership and replays the log */
    VOLUME_SERVING,
    VOLUME_RELEASING, /* no users, or the opening failed; the keeper gives the volume back */
    VOLUME_FENCED,    /* another owner has it; whatever is dirty is lost */
    VOLUME_CLOSED,    /* the keeper is done with it; freed when the last user is gone */
};
extern const struct state_table volume_states;

/* The one task that writes the register of a volume that we own, see vol/ownership.c.  What others want written stands
 * here until it has landed. */
struct register_writer {
    struct group group;  /* the task */
    struct waitq wanted; /* it waits here */
    struct waitq landed; /* those wait here who want something written; woken also by trouble, and at its end */
    bool running;
    uint64_t counter;      /* the highest that was ever sent */
    uint64_t renew_at_ns;  /* when the next renewal is due */
    bool hurry;            /* renew now, whatever the time is */
    bool release;          /* give the volume back */
    bool released;         /* done, and the last thing */
    struct root root;      /* to be published */
    uint64_t root_wanted;  /* its ticket; 0: none */
    uint64_t root_landed;  /* the ticket of the last that was published */
    uint64_t root_tickets; /* how many were given out */
    struct error trouble;  /* of the last attempt; code 0 since the last that landed */
    bool fresh_trouble;    /* it came since somebody last looked */
};

/* "process 17 on host a since 2025-01-02 03:04:05 UTC" */
#define OWNER_TEXT_MAX (REGISTER_HOST_MAX + 96)

/* A register as another owner last wrote it. */
struct sighting {
    struct nonce owner;
    uint64_t epoch, counter;
    uint64_t since_boottime_ns; /* by our clock: as soon as it was seen to be so */
};

/* Another owner of a volume that is wanted here, and how alive it looks. */
struct holder {
    struct sighting sighting;
    uint64_t lease_ms;
    bool moved; /* it was seen to be otherwise before: so it has renewed then */
    char text[OWNER_TEXT_MAX];
};

struct volume {
    struct list link; /* volumes.all */
    struct volumes *all;
    struct loop *loop;
    char *name;
    size_t name_length;
    char subject[128];
    int state;
    struct error failure; /* why it went from OPENING to CLOSED, or was fenced */
    uint32_t users;
    struct list watches;
    uint64_t create_size; /* of the first acquire */
    uint64_t answered_ns; /* OPENING: when the store last answered */

    struct group group;     /* uploads, fetches, the committer */
    struct waitq attention; /* the keeper waits here: users gone, fenced, stopping */
    uint64_t idle_since_ns; /* since when there are no users */

    /* ownership (vol/ownership.c) */
    struct register_body body; /* as last written by us */
    char register_etag[STORE_ETAG_MAX];
    struct nonce owner;
    uint64_t epoch; /* 0: not taken */
    bool returned;  /* the register does not name us, and will not */
    struct register_writer writer;
    struct register_body replaced; /* of the body that we took it by: who owned it; nothing on the heap */
    bool put_back;                 /* release leaves it to that one again, as if we had not taken it */
    struct lease lease;
    bool doubted;          /* the lease was found invalid, and has not been renewed since */
    bool abandoned;        /* OPENING ended because nobody wanted it any more */
    bool vanished;         /* the last user to go had vanished */
    struct holder *holder; /* OPENING: who holds it, while we wait for that to end */

    /* the disk */
    uint64_t size, pages;
    struct dirty *dirty;
    struct list batches;                 /* uncommitted, oldest first; the open one, if any, is last */
    struct list zeroing;                 /* those of them with zero ranges (batch.zero_link) */
    struct batch *open;                  /* NULL: none */
    uint32_t batch_count;                /* in `batches` */
    uint32_t zero_batches;               /* of those, with zero ranges */
    uint64_t recent_ends[RECENT_WRITES]; /* the pages behind the last writes: who begins there writes in order */
    uint32_t recent_next;
    struct map *map;
    struct object_table *objects;
    uint64_t cache_tag;

    /* leaves of the map (vol/leaves.c, vol/budget.c) */
    uint64_t map_budget;      /* bytes of leaves in memory */
    uint64_t map_charged;     /* of the pool, for them */
    struct list leaf_loads;   /* under way */
    uint32_t leaf_load_count; /* of them */
    uint64_t last_leaf;       /* the last that a client had to wait for */
    uint64_t fill_leaf;       /* the next to be looked at in the background */

    /* the log (vol/commit.c) */
    uint64_t committed_seq;
    uint8_t chain[SHA256_BYTES];
    uint64_t next_object_id;
    uint64_t next_data_n;
    uint64_t committed_bytes; /* of objects and inline frames that were committed, since the volume was opened from its
                                 root */
    struct checkpoint *checkpoint;
    uint64_t newest_sealed;   /* number of the batch that was sealed last */
    uint64_t committed_batch; /* all batches up to this number are durable */
    uint64_t flush_target;    /* the newest batch that a FLUSH waits for */
    uint64_t unflushed_pages; /* sealed since the last FLUSH */
    uint32_t uploads;         /* data objects on their way */
    uint64_t upload_rate;     /* of one of them: pages in a second, of late; 0: not known */
    struct waitq committed;   /* woken by each commit, failure of an attempt, and fencing */
    struct waitq work;        /* the committer waits here */
    struct waitq hurry;       /* ends back-offs */
    struct error trouble;     /* of the last attempt that failed; code 0 since the last that did not */
    uint64_t trouble_count;
    uint64_t trouble_since_ns; /* with a code in `trouble` */
    bool trouble_told;         /* an event was raised for it */

    uint64_t failure_told_ns, failures_untold; /* of reads (vol/fetch.c) */
    struct volume_counts counts;
};

static inline uint64_t volume_cache_id(const struct volume *volume, uint64_t object_id)
{
    return volume->cache_tag << CACHE_TAG_SHIFT | object_id;
}

/* ---- vol/budget.c ---- */

void budget_init(struct volumes *all); /* the pool and the gates, as all->settings has them */
/* Divides what the maps may have of memory among the volumes that have one: to be called when one got its map. */
void budget_divide_maps(struct volumes *all);
/* Counts what the volume's map has grown or shrunk by against the pool: to be called after whatever changes it. */
void budget_charge_map(struct volume *volume);
/* Frees the map. */
void budget_drop_map(struct volume *volume);
/* The pool is short of pages: about `bytes` are to come back (page_pool_on_shortage()). */
uint64_t budget_shrink(void *volumes, uint64_t bytes);

/* ---- vol/read.c ---- */

/* Whether page `number` reads as zero on account of an uncommitted batch; its slot is empty.
 * ret_run: so many pages from it on have the same answer. */
bool dirty_zeroed(const struct volume *volume, uint64_t number, uint64_t *ret_run);
/* The content of one page as it is now, in memory (or in one of the frames that the caller holds): 0 and a
 * reference (NULL: zeroes), or -EAGAIN. */
int read_page_try(struct volume *volume, uint64_t number, struct frame *const *held, int held_count,
                  struct page **ret_page);

/* ---- vol/commit.c ---- */

struct batch *commit_open_batch(struct volume *volume); /* the open one, made when there is none */
/* Seals the open batch, if there is one.  `flushed`: a FLUSH waits for it and for all before it. */
void commit_seal(struct volume *volume, bool flushed);
/* Cuts off what a sealed batch has beyond `most` pages, into one that follows it; NULL: nothing. */
struct batch *commit_cut(struct volume *volume, struct batch *batch, uint32_t most);
/* How many pages the open batch may grow to. */
uint64_t commit_open_room(const struct volume *volume);
/* The same for one that is written in order. */
uint32_t commit_ordered_pages(const struct volume *volume);
void commit_task(void *volume);          /* runs as long as the volume is served */
void commit_kick(struct volume *volume); /* something changed that the committer may act upon */
/* ---- vol/fold.c ---- */

/* Applies a commit to map and object table, and moves the end of the log behind it. Never parks. */
int fold_entry(struct volume *volume, const struct entry *entry, const uint8_t hash[SHA256_BYTES], struct error *error);

/* ---- vol/ownership.c ---- */

/* GET and decode; checks that the name inside is ours. -ENOENT when there is none. */
CO int ownership_read(struct volume *volume, struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX],
                      struct error *error);
/* A new volume's register, with us as its owner, whose lease is renewed from then on. -EEXIST: somebody else made one.
 */
CO int ownership_create(struct volume *volume, uint64_t size, struct error *error);
/* Takes the volume whose register reads `body` now, likewise. -ESTALE: it changed meanwhile. */
CO int ownership_take(struct volume *volume, const struct register_body *body, const char *etag, struct error *error);
/* Whether the register still names us: 0, or -ESHUTDOWN. */
CO int ownership_confirm(struct volume *volume, struct error *error);
/* Makes `root`, of which all pieces are in the store, the newest one in the register; the one before becomes the first
 * of the older ones.  One at a time.  Store trouble is tried on until the task is cancelled. 0           it stands
 * there; volume->body shows it, and whatever others wrote beside (pins) -ESHUTDOWN  we are not the owner any more
 *   -ECANCELED  it may still become the newest */
CO int ownership_publish(struct volume *volume, const struct root *root, struct error *error);
/* Gives the volume back; nothing is written to the register after that.  -ESHUTDOWN: it is not ours any more. */
CO int ownership_release(struct volume *volume, struct error *error);
/* Ends the writer, where it has not ended by itself: what is on its way may still land. */
CO void ownership_end(struct volume *volume);
void ownership_describe(const struct register_body *body, char ret_text[OWNER_TEXT_MAX]);
/* What the clocks show now. */
struct lease_clocks ownership_clocks(const struct volume *volume);

/* ---- vol/takeover.c ---- */

/* Makes us the owner named in the register, when and if that may be; *ret_committed: what the register said of the log.
 * volume->body is what stands there then. */
CO int takeover(struct volume *volume, uint64_t *ret_committed, struct error *error);
/* The log has an entry of an owner after us.  -ESHUTDOWN: so says the register.  -EBADMSG: it does not; it was put back
 * to an older state, and is to be left as it was. */
CO int takeover_recheck(struct volume *volume, struct error *error);
/* While volume->holder is set: -EBUSY, with who that is and what to do. */
int takeover_refuse(const struct volume *volume, struct error *error);
/* Remembers what the register says now that we have written it. */
void past_note(struct volume *volume);

/* ---- vol/restore.c ---- */

/* Map and object table as the register's newest root says. */
CO int restore_from_root(struct volume *volume, struct error *error);

/* ---- vol/recover.c ---- */

/* Takes ownership and brings map and object table to the end of the log. */
CO int recover_open(struct volume *volume, struct error *error);

/* ---- vol/volume.c ---- */

/* Another owner has the volume: everybody is told, nothing more is acknowledged. */
void volume_fence(struct volume *volume, const struct error *story);
/* Errors that more attempts within the next seconds are unlikely to mend: no space, no permission. */
bool volume_is_hard(int code);
/* For put_once.troubled, with the volume as its arg: volume_troubled(). */
void volume_put_troubled(void *volume, const struct error *error);
/* Notes a failed attempt (for those who wait in FLUSH), and raises an event once when they go on failing. */
void volume_troubled(struct volume *volume, const struct error *error);
void volume_untroubled(struct volume *volume);

#endif
