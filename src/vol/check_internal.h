/* What the files of a check share: check.c (the story, the register), check_listing.c (what the store has),
 * check_checkpoint.c and check_leaves.c (roots), check_log.c and check_frames.c (pages). */
#ifndef CAIRN_VOL_CHECK_INTERNAL_H
#define CAIRN_VOL_CHECK_INTERNAL_H

#include "store/store.h"
#include "vol/check.h"
#include "vol/format/checkpoint.h"
#include "vol/id_hash.h"

/* Requests under way at once. */
#define CHECK_WORKERS 16u
/* What is fetched together, and what may lie between: fewer requests for a few bytes more. */
#define CHECK_STRETCH_BYTES (2u << 20)
#define CHECK_STRETCH_GAP_BYTES (64u << 10)
/* Mids whose leaves are walked together: 65,536 leaves, of 24 bytes each. */
#define CHECK_MIDS_AT_ONCE 64u
/* Runs of pages that are remembered at once, 24 bytes each, before the objects that hold them are read. */
#define CHECK_RUNS_AT_ONCE (2u << 20)

/* ---- what the store has (check_listing.c) ---- */

struct listed_object { /* under data/ */
    uint64_t epoch, n;
    uint64_t bytes;
    bool named;     /* by something that was read */
    bool committed; /* by a log entry */
};

struct missing_range { /* of the log */
    uint64_t first, last;
};

struct listing {
    struct listed_object *objects; /* ascending */
    size_t count, capacity;
    uint64_t log_highest;          /* entry; 0: there is none */
    struct missing_range *missing; /* ascending, below log_highest */
    size_t missing_count, missing_capacity;
};

struct check_root;
struct checking {
    const struct check *check;
    struct check_counts *counts;
    struct register_body body;
    char register_key[KEY_MAX];
    struct listing listing;
    struct check_root *roots; /* the newest first; those of pins last */
    uint32_t root_count;
    uint8_t *told; /* XXH128_BYTES for each finding that was told */
    uint32_t told_count;
    int status; /* the store failed: all stop */
    struct error error;
};

CO int listing_read(struct checking *checking, struct error *error);
void listing_free(struct listing *listing);
struct listed_object *listing_find(struct listing *listing, uint64_t epoch, uint64_t n); /* NULL: it is not there */
bool listing_lacks_entry(const struct listing *listing, uint64_t seq);

/* ---- findings (check.c) ---- */

void check_found(struct checking *checking, enum check_kind kind, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* One for what a decoder or the store said of an object.  True: it is a finding; false: the store failed, which ends
 * the check. */
bool check_judge(struct checking *checking, const char *key, int status, const struct error *error);
/* Bytes of an object. -EBADMSG where it ends before; what the store said otherwise. */
CO int check_get(struct checking *checking, const char *key, uint64_t offset, uint8_t *bytes, size_t length,
                 struct error *error);
/* The payload of the frame at `bytes`, which is `units` long by those who name it: verified, of that kind and place.
 * Stories say at which byte. */
int check_frame(const uint8_t *bytes, uint32_t units, const struct frame_place *place, enum frame_kind kind,
                struct frame_header *ret_header, const uint8_t **ret_payload, struct error *error);

/* The log goes up to this epoch, which began with that entry; the register must know of it. */
CO void check_epoch(struct checking *checking, uint64_t epoch, uint64_t seq);

/* ---- reading what lies together (check_parts.c) ---- */

/* A frame that something names. */
struct part {
    uint64_t object; /* a number of the caller's */
    uint32_t start, units;
    uint64_t what; /* the caller's */
};

struct parts_reader {
    void (*place)(void *arg, uint64_t object, struct frame_place *ret_place, char ret_key[KEY_MAX]);
    /* `count` parts that name the same frame, whose bytes these are. */
    void (*take)(void *arg, const struct part *parts, size_t count, const struct frame_place *place, const char *key,
                 const uint8_t *bytes);
    void (*failed)(void *arg); /* some could not be read; it was told why.  NULL: nobody asks */
    void *arg;
    const char *what; /* for the progress; NULL: too small to be told */
};
/* Reads all of them, many at once, in the order of their places; sorts them. */
CO void parts_read(struct checking *checking, const struct parts_reader *reader, struct part *parts, size_t count);

/* ---- checkpoints (check_checkpoint.c, check_leaves.c) ---- */

struct check_row {
    uint64_t id;
    uint64_t epoch_or_seq, n;
    uint64_t born;
    uint32_t bytes, live;
    uint32_t counted;     /* pages or pieces that were found in it */
    uint32_t start, past; /* units in which frames of pages were named */
    uint8_t kind, role;
    bool seen; /* a log entry made it */
};

struct check_root {
    const struct root *root; /* in the register */
    struct root_frame frame;
    char key[KEY_MAX]; /* of the object that it lies in */
    bool readable;     /* its frame is sound: `frame` is filled */
    bool whole; /* so are all pieces; if not, what they would name is not known, and nothing is said of what lacks it */
    struct check_row *rows;
    uint32_t row_count, row_capacity;
    struct id_hash by_id; /* index in rows */
    uint64_t *graves;     /* ids, ascending */
    uint32_t grave_count, grave_capacity;
    uint64_t pages; /* that its leaves map */
};

/* Reads everything that the root names, and counts it. */
CO void check_root_read(struct checking *checking, struct check_root *root);
void check_root_free(struct check_root *root);
struct check_row *check_root_row(const struct check_root *root, uint64_t id); /* NULL: there is none */
bool check_root_buried(const struct check_root *root, uint64_t id);           /* its object has died by then */
void check_row_place(const struct checking *checking, const struct check_row *row, struct frame_place *ret_place,
                     char ret_key[KEY_MAX]);

/* Counts a piece in the object that holds it; false: it can't be there, which was told. */
bool check_count_piece(struct checking *checking, struct check_root *root, const char *what, uint64_t number,
                       const struct piece_place *place);
/* For reading pieces of a root, by the ids of their objects: of a struct parts_reader, whose arg is this. */
struct piece_reading {
    struct checking *checking;
    struct check_root *root;
};
void check_place_of_piece(void *arg, uint64_t object, struct frame_place *ret_place, char ret_key[KEY_MAX]);
void check_piece_failed(void *arg);

/* Reads all mids, and all leaves that they name, and counts them if `count`; `visit` gets each leaf, whose runs lie
 * within the disk and within objects of the root. */
typedef void check_visit_leaf(void *arg, struct check_root *root, const struct leaf *leaf);
CO void check_leaves_walk(struct checking *checking, struct check_root *root, bool count, check_visit_leaf *visit,
                          void *arg);

/* ---- the log (check_log.c) ---- */

CO void check_log_read(struct checking *checking);

/* ---- pages (check_frames.c) ---- */

/* All frames of pages that the newest root names. */
CO void check_frames_of_root(struct checking *checking);
/* All that the entry names. */
CO void check_frames_of_entry(struct checking *checking, const struct entry *entry);

#endif
