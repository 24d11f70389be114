/* Checkpoints: the payloads of frames of the kinds 2 to 5.  doc/format.md is the specification.
 *
 * A checkpoint is a complete state of a volume as of one log entry: map, size
 * and object table.  It lies in data objects, as frames that are its pieces:
 *
 *     root      FRAME_ROOT     one; the register says where: what follows, the mids and chunks by place
 *       mid     FRAME_MIDS     one frame for each 2 GiB of disk that has pages: its leaves by place
 *         leaf  FRAME_LEAVES   one or many leaves a frame; a leaf: the runs of 2 MiB of disk
 *       chunk   FRAME_OBJECTS  rows of the object table, those of a range of ids
 *       graves  FRAME_OBJECTS  rows of objects that died since the root before; each names the graves before it
 *
 * A piece that has not changed since the root before stays where it is, and is
 * named again.  Pieces name objects by their 64-bit ids, and those are in the
 * chunks; the objects that a checkpoint itself made are in its root.
 *
 * Codecs as in format.h: pure functions; decoders take anything, allocate what
 * the input's length justifies, and answer -EBADMSG, -EMEDIUMTYPE or
 * -EPROTONOSUPPORT with a story.  Whether ids exist, places lie inside their
 * objects and counts agree with each other is the reader's to check. */
#ifndef CAIRN_VOL_FORMAT_CHECKPOINT_H
#define CAIRN_VOL_FORMAT_CHECKPOINT_H

#include "vol/format/format.h"

#define LEAF_BLOCKS 16u /* of a leaf: 2 MiB of disk */
#define LEAF_PAGES (LEAF_BLOCKS * BLOCK_PAGES)
#define MID_LEAVES 1024u /* of a mid: 2 GiB of disk */
#define LEAVES_MAX (VOLUME_PAGES_MAX / LEAF_PAGES)
#define MIDS_MAX (LEAVES_MAX / MID_LEAVES)
#define CHUNK_ROWS_MAX 256u /* of a chunk */
/* Frames of leaves, mids and chunks have a length that fits the 12 bits of a place in memory. */
#define PIECE_UNITS_MAX 4095u
#define PIECE_PAYLOAD_MAX (PIECE_UNITS_MAX * FRAME_UNIT - FRAME_HEADER_BYTES)
#define PIECE_OBJECT_NONE UINT64_C(0) /* no object has id 0 */

/* Where a piece's frame lies. */
struct piece_place {
    uint64_t object; /* id */
    uint32_t start;  /* FRAME_UNITs */
    uint32_t units;  /* of the whole frame */
};

/* ---- leaves ---- */

/* Consecutive pages of one frame, within one block. */
struct leaf_run {
    uint16_t first;      /* page in the leaf, 0 to LEAF_PAGES - 1 */
    uint8_t count;       /* 1 to 32; does not cross the end of its block */
    uint8_t frame_page;  /* of the first, 0 to 31 */
    uint8_t frame_pages; /* 1 to 32, at least frame_page + count */
    uint32_t start, units;
    uint64_t object; /* id */
};

struct leaf {
    uint64_t number;             /* byte offset / 2 MiB */
    const struct leaf_run *runs; /* ascending, disjoint; at least one */
    uint32_t run_count;
};

/* Puts leaves into the payload of one frame, as many as fit. */
struct leaves_writer;
struct leaves_writer *
leaves_writer_new(uint32_t payload_max); /* at most PIECE_PAYLOAD_MAX; room for one leaf at least */
/* Numbers ascend. false: no room, and nothing was done; a first leaf always fits. */
bool leaves_writer_add(struct leaves_writer *writer, const struct leaf *leaf);
uint32_t leaves_writer_count(const struct leaves_writer *writer);
/* Appends the payload; the writer is empty again. */
void leaves_writer_finish(struct leaves_writer *writer, struct buffer *ret_payload);
void leaves_writer_free(struct leaves_writer *writer);

struct leaves_frame {
    struct leaf *leaves; /* ascending */
    uint32_t leaf_count;
    struct leaf_run *runs; /* where the leaves' runs point into */
    uint32_t run_count;
};
int leaves_decode(const void *payload, size_t length, struct leaves_frame *ret_frame, struct error *error);
void leaves_frame_free(struct leaves_frame *frame);

/* ---- mids ---- */

struct mid_slot {
    uint16_t leaf; /* in the mid, 0 to MID_LEAVES - 1 */
    struct piece_place place;
};
struct mid_frame {
    uint64_t number;        /* byte offset / 2 GiB */
    struct mid_slot *slots; /* ascending by leaf; at least one */
    uint32_t slot_count;
};
void mid_encode(const struct mid_frame *mid, struct buffer *ret_payload); /* appends */
int mid_decode(const void *payload, size_t length, struct mid_frame *ret_mid, struct error *error);
void mid_frame_free(struct mid_frame *mid);

/* ---- rows of the object table ---- */

enum object_role { ROLE_PAGES = 1, ROLE_PIECES = 2 };

struct object_row {
    uint64_t id;
    enum object_kind kind;
    enum object_role role;
    struct uuid uuid;    /* of the volume under whose key the object stands */
    uint64_t epoch, n;   /* OBJECT_DATA */
    uint64_t seq;        /* OBJECT_LOG */
    uint64_t born, died; /* seqs; died: UINT64_MAX: not yet */
    uint64_t total_bytes;
    uint32_t
        live; /* ROLE_PAGES: pages of the disk; ROLE_PIECES: pieces that the root names, directly or through others */
};

/* A chunk: rows of ids from first_id on, below the first one of the next chunk that the root names, none of which has
 * died; or graves: rows that have. */
struct objects_frame {
    bool graves;
    uint64_t first_id; /* 0 for graves */
    struct object_row
        *rows; /* of a chunk at most CHUNK_ROWS_MAX, by id; of graves at most GRAVES_MAX, by died, then id */
    uint32_t row_count;
    bool has_previous;           /* graves: there are older ones, */
    struct frame_place previous; /* whose frame lies here, */
    uint32_t previous_units;     /* so long */
};
#define GRAVES_MAX 2048u /* rows that surely fit a frame of PIECE_PAYLOAD_MAX, each of another volume */
void objects_encode(const struct objects_frame *objects, struct buffer *ret_payload); /* appends */
int objects_decode(const void *payload, size_t length, struct objects_frame *ret_objects, struct error *error);
void objects_frame_free(struct objects_frame *objects);

/* ---- the root ---- */

struct root_mid {
    uint64_t number;
    struct piece_place place;
};
struct root_chunk {
    uint64_t first_id;
    uint32_t row_count;
    struct piece_place place;
};

struct root_frame {
    /* As in the register's root: */
    struct uuid uuid; /* of the volume whose checkpoint this is */
    uint64_t seq;
    uint8_t hash[SHA256_BYTES];
    uint64_t size;
    uint64_t next_object_id;
    uint64_t mapped_pages;
    struct object_row *own; /* the objects that this checkpoint made, this root's among them: ROLE_PIECES, ascending */
    uint32_t own_count;
    struct root_mid *mids; /* ascending */
    uint32_t mid_count;
    struct root_chunk *chunks; /* ascending */
    uint32_t chunk_count;
    bool has_graves; /* the newest: */
    struct frame_place graves;
    uint32_t graves_units;
};
/* All ids of the root's chunk `number` are below this; for the last one its next object id alone is the bound. */
uint64_t root_chunk_past(const struct root_frame *root, uint32_t number);
/* How long the payload becomes: whoever lays the root out needs to know before the root's own place is in it. */
size_t root_payload_bytes(uint32_t own_count, uint32_t mid_count, uint32_t chunk_count);
#define ROOT_CHUNKS_MAX (1u << 18) /* with all else a root may have, within FRAME_PAYLOAD_MAX */
#define ROOT_OWN_MAX (1u << 15)    /* objects of one checkpoint: 256 GiB of pieces */
void root_frame_encode(const struct root_frame *root, struct buffer *ret_payload); /* appends */
int root_frame_decode(const void *payload, size_t length, struct root_frame *ret_root, struct error *error);
void root_frame_free(struct root_frame *root);

#endif
