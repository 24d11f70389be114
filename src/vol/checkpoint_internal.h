/* What the files of a checkpoint share: checkpoint.c (when, and the story), checkpoint_state.c (what is in it) and
 * checkpoint_upload.c (the objects that it makes). */
#ifndef CAIRN_VOL_CHECKPOINT_INTERNAL_H
#define CAIRN_VOL_CHECKPOINT_INTERNAL_H

#include "vol/checkpoint.h"
#include "vol/format/checkpoint.h"
#include "vol/internal.h"

/* ---- limits ---- */

/* Ids that a checkpoint may use for its objects, at most: they are set aside when it begins, since what is committed
 * meanwhile has ids behind them.  256 GiB of pieces, as a root can list. */
#define CHECKPOINT_IDS_MAX (2 * ROOT_OWN_MAX)
/* A few for the small ones; and as many as are needed for CHECKPOINT_SAFETY times what leaves, mids and chunks take in
 * memory, where they take about as much as in the store.  Ids that lie close together share a chunk, so no more are set
 * aside than that. */
#define CHECKPOINT_IDS_LEAST 32u
#define CHECKPOINT_SAFETY 16u
/* Uploads of a checkpoint at once: it is in nobody's way, and nobody waits for it in the usual case. */
#define CHECKPOINT_UPLOADS 4u
/* Leaf frames that are loaded ahead of the walk, 4 MiB at most. */
#define CHECKPOINT_LOADS 16u
/* Mids and chunks that together take less than this are all written anew by each checkpoint: then they lie beside its
 * root, and one GET brings everything.  A quarter of it each. */
#define CHECKPOINT_ALL_ANEW_BYTES (256u << 10)
/* GETs of mids and chunks that opening may need.  With the root, the log's end, the register and the fence it must stay
 * within 40. */
#define CHECKPOINT_STRETCHES_MAX 24u
/* What a mid or a chunk that is to be written takes, for guesses. */
#define CHECKPOINT_PIECE_GUESS (16u << 10)

/* ---- what the newest root names ---- */

/* A mid or a chunk, and where it lies. */
struct placed {
    uint64_t key;            /* number of the mid; first id of the chunk */
    uint32_t rows;           /* of a chunk */
    struct leaf_place place; /* its row is held by its live count; OBJECT_NONE: given back, to be written anew */
};

struct placed_list { /* ascending by key */
    struct placed *at;
    uint32_t count, capacity;
};

/* ---- an object that the checkpoint makes ---- */

struct own_object {
    struct list link; /* checkpoint.sealed */
    struct checkpoint *checkpoint;
    uint64_t id, n;
    uint32_t index; /* in the object table */
    uint32_t live;  /* pieces of the checkpoint in it, as the root will say */
    uint64_t total_bytes;
    struct buffer bytes; /* until it is durable */
    bool durable;
};

struct checkpoint {
    struct volume *volume;

    /* the newest root */
    struct placed_list mids, chunks;
    bool packed; /* a chunk is not rows of CHUNK_IDS ids, so all of them are to be written anew */
    bool has_root;
    uint32_t root_object; /* index of the object that its frame lies in */
    bool has_graves;
    struct frame_place graves;
    uint32_t graves_units;

    /* when */
    bool running, wanted;
    bool stuck;             /* what it needs is damaged or lost, or could not be had within the read deadline */
    uint64_t bytes_at_root; /* volume->committed_bytes as of the newest root */
    struct error trouble;   /* of the last attempt that failed; code 0 since one has succeeded */
    uint64_t trouble_count;
    struct waitq hurry;    /* uploads wait here before they try again */
    struct waitq progress; /* an upload has ended, or the checkpoint */

    /* the one under way */
    uint64_t bytes_at_begin;
    struct root root;
    uint64_t own_first, own_past; /* ids set aside */
    struct own_object **own;      /* in the order of their ids */
    uint32_t own_count, own_capacity;
    struct own_object *filling; /* the last of them, if it takes more */
    struct list sealed;         /* to be uploaded */
    uint64_t laid_out;          /* bytes of theirs, charged to the pool */
    uint32_t uploading;
};

/* ---- checkpoint_upload.c ---- */

/* Appends a frame to the objects.  The caller counts what is in it in the object table before the next park; `pieces`
 * is that number. `payload` is left empty. */
struct leaf_place own_frame(struct checkpoint *checkpoint, enum frame_kind kind, struct buffer *payload,
                            uint32_t pieces);
/* The place that the root will have, in the last object, which is complete then but for it; and its bytes.  The caller
 * counts it at once. */
struct leaf_place own_reserve_root(struct checkpoint *checkpoint, uint32_t mid_count, uint32_t chunk_count);
void own_put_root(struct checkpoint *checkpoint, const struct leaf_place *place, struct buffer *payload);
/* Waits until there is memory for more. 0, -ECANCELED, or -ESHUTDOWN when the volume was fenced. */
CO int own_make_room(struct checkpoint *checkpoint);
uint64_t own_bytes_most(const struct checkpoint *checkpoint); /* how large its objects become */
/* Waits until all is in the store. */
CO int own_finish(struct checkpoint *checkpoint);
/* Frees what the checkpoint under way has of objects; none is being uploaded. */
void own_clear(struct checkpoint *checkpoint);
/* What the root says of its own object `number`. */
struct object_row own_object_row(const struct checkpoint *checkpoint, uint32_t number);
struct frame_place own_place(const struct checkpoint *checkpoint, const struct leaf_place *place);

/* ---- checkpoint_state.c ---- */

CO int state_charge_doomed(struct checkpoint *checkpoint);
CO int state_write_leaves(struct checkpoint *checkpoint);
CO int state_write_tables(struct checkpoint *checkpoint); /* mids, chunks, graves, and the root */

struct placed *placed_find(const struct placed_list *list, uint64_t key);
void placed_set(struct placed_list *list, const struct placed *placed);

/* ---- checkpoint.c ---- */

/* An attempt for it has failed.  FLUSH goes by that only where it waits for the checkpoint. */
void checkpoint_troubled(struct checkpoint *checkpoint, const struct error *error);
/* What the checkpoint needs could not be had, tried for a whole read deadline where that makes sense: it is stuck.
 * Tells that, and waits before the next try. 0 or -ECANCELED. */
CO int checkpoint_wait_for_better(struct checkpoint *checkpoint, int status, const struct error *error);

#endif
