/* Objects in a store: the one interface, and its asserting front door.
 *
 * A store maps keys to immutable runs of bytes; a put replaces the whole
 * object.  Each object has an ETag, an opaque string that changes whenever its
 * content does.  All calls park (CO) and any number may be under way at once,
 * each in its own coroutine.
 *
 * Keys are runs of components between slashes: none empty, `.` or `..`, no
 * control bytes; what components hold otherwise is up to the caller.
 *
 * A condition MATCHES takes the ETag of a put, or of a get that covered the
 * whole object (whoever replaces an object has read it).  The ETag of a get of
 * a part tells that an object changed between two gets of parts, no more: the
 * directory store would have to read the whole object for a better one.
 *
 * Outcomes.  Every call returns 0 or -errno with a story.  For puts:
 *   -EEXIST    condition ABSENT and the key exists: definitely not applied BY THIS ATTEMPT
 *   -ESTALE    condition MATCHES and it does not, or the key is absent: likewise
 *   anything else: the outcome is UNKNOWN: applied, not applied, or still to be applied later.
 * store/put_once.h resolves that for objects that are written once.
 *
 * A store is used from one loop's thread.  Wrappers (count, fault) own what they wrap. */
#ifndef CAIRN_STORE_STORE_H
#define CAIRN_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "rt/coroutine.h"

/* S3 allows 1,024 bytes of key including the user's prefix. */
#define STORE_KEY_MAX 768
#define STORE_ETAG_MAX 128 /* with its NUL */
/* The largest object that cairn writes is a data object of 16 MiB; a commit is smaller. */
#define STORE_OBJECT_MAX (UINT64_C(32) << 20)

enum store_condition { STORE_ANY, STORE_ABSENT, STORE_MATCHES };

struct store_put {
    const char *key;
    const struct iovec *pieces; /* unchanged until the call returns */
    int count;
    enum store_condition condition;
    const char *etag; /* with STORE_MATCHES */
    bool urgent;      /* somebody waits for it: it does not queue behind others (commits, the register) */
    /* Its outcome is unknown to the caller (-ETIMEDOUT) when there is none after so long, and nothing else makes it
     * wait: neither other requests nor what the store asks for.  0: as long as the store thinks fit.  A store whose
     * requests cannot hang need not look at it. */
    uint64_t attempt_ms;
};

struct store_get {
    const char *key;
    uint64_t offset;
    const struct iovec *pieces; /* the destination; its sum is how much is wanted */
    int count;
    uint64_t attempt_ms; /* as store_put.attempt_ms; above 0 it is urgent, too */
};

struct store_got {
    uint64_t length; /* bytes placed: less than wanted where the object ends sooner, 0 beyond its end */
    uint64_t size;   /* of the whole object */
    char etag[STORE_ETAG_MAX];
};

struct store_entry {
    char *key; /* whole, as for get */
    uint64_t size;
};

struct store_listing {
    struct store_entry *entries; /* sorted by key (bytewise) */
    size_t count;
    bool more; /* go on after the last key */
};

#define STORE_LIST_MAX 1000 /* keys a page, as S3 */

/* Whether calls may be made with this key, or with `open_ended`, with this beginning of keys. */
bool store_key_allowed(const char *key, bool open_ended);

struct store;

struct store_ops {
    const char *name; /* "dir" */
    int (*get)(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error);
    /* ret_etag may be NULL: nobody wants it, so it need not be computed. */
    int (*put)(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error);
    int (*delete)(struct store *store, const char *key, struct error *error);
    int (*list)(struct store *store, const char *prefix, const char *after, size_t limit,
                struct store_listing *ret_listing, struct error *error);
    uint64_t (*date_ms)(struct store *store);
    void (*describe)(struct store *store, char *ret_text, size_t capacity);
    void (*close)(struct store *store);
};

struct store {
    const struct store_ops *ops;
};

/* -ENOENT when there is no such key.  -EIO for anything the store should not have answered. */
CO int store_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error);

/* A whole object of at most `max` bytes (-EFBIG beyond) into memory of its own; the caller frees *ret_bytes. */
CO int store_get_whole(struct store *store, const char *key, size_t max, uint8_t **ret_bytes, size_t *ret_length,
                       char ret_etag[STORE_ETAG_MAX], struct error *error);
/* The same for somebody who waits: with attempt_ms above 0 as in struct store_get. */
CO int store_get_whole_urgent(struct store *store, const char *key, size_t max, uint64_t attempt_ms,
                              uint8_t **ret_bytes, size_t *ret_length, char ret_etag[STORE_ETAG_MAX],
                              struct error *error);

/* ret_etag may be NULL. */
CO int store_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error);

/* 0 also when there is no such key. */
CO int store_delete(struct store *store, const char *key, struct error *error);

/* At most min(limit, STORE_LIST_MAX) keys that begin with `prefix` and sort after `after` ("" : from the first).
 * The caller frees with store_listing_free(). */
CO int store_list(struct store *store, const char *prefix, const char *after, size_t limit,
                  struct store_listing *ret_listing, struct error *error);
void store_listing_free(struct store_listing *listing);

/* The store's own clock as far as it is known: the latest date that any of its answers bore, in ms since 1970; 0: none,
 * or it has no clock but ours.  It may stand up to a second behind what the clock showed when that answer was made
 * (HTTP's Date has whole seconds), and however much further behind by now.  Never goes back.  Cheap. */
uint64_t store_date_ms(struct store *store);

/* "directory /var/lib/cairn", for messages. */
void store_describe(struct store *store, char *ret_text, size_t capacity);
void store_close(struct store *store); /* NULL is fine; no call may be under way */

/* ---- the stores ---- */

struct loop;

/* A directory (store/dir.c).  With `create` it is made where it does not exist, and made a store where it is empty;
 * without, it must be a store already, else -ENOENT. */
int store_dir_open(struct loop *loop, const char *path, bool create, struct store **ret_store, struct error *error);
/* In memory (store/mem.c); several stores over one struct mem see the same objects.  Its calls never
 * park, so they may also be made outside of coroutines. */
struct mem;
struct mem *mem_new(void);
void mem_free(struct mem *mem);
struct store *store_mem_open(struct mem *mem);
/* What its store_date_ms() says; NULL, as at first: 0. */
void mem_set_clock(struct mem *mem, uint64_t (*date_ms)(void *arg), void *arg);

/* ---- wrappers (and store/fault.h, for the simulator) ---- */

struct store_counts {
    uint64_t gets, puts, deletes, lists; /* requests made */
    uint64_t failed;                     /* of these, with anything but 0, -ENOENT, -EEXIST, -ESTALE */
    uint64_t bytes_got, bytes_put;
    uint64_t put_bytes_max; /* the largest single put */
};

/* Counts what passes (store/count.c); owns `inner`. */
struct store *store_count_new(struct store *inner);
struct store_counts store_count_read(const struct store *store); /* of one made by store_count_new */

#endif
