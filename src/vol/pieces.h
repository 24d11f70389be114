/* Pieces of checkpoints: where they lie, and getting them out of the store.
 *
 * A piece is a frame of the kinds FRAME_LEAVES, FRAME_MIDS, FRAME_ROOT or
 * FRAME_OBJECTS in a data object.  Inside the engine only. */
#ifndef CAIRN_VOL_PIECES_H
#define CAIRN_VOL_PIECES_H

#include "vol/format/checkpoint.h"

struct volume;

/* One GET brings at most this much: more would gain nothing, and several of them are in memory at once. */
#define STRETCH_BYTES_MAX (8u << 20)
/* Pieces with less than this between them are fetched together: the bytes cost less than another request. */
#define STRETCH_GAP_BYTES (256u << 10)

/* A piece that is to be read. */
struct piece {
    struct piece_place place;
    uint64_t key; /* the caller's: which one it is */
    bool is_mid;  /* likewise */
};

/* Part of an object that one GET brings. */
struct stretch {
    uint64_t object; /* id */
    uint32_t start, units;
    uint32_t first, count; /* of the sorted pieces */
};

/* Sorts the pieces by place, and finds the fewest stretches that cover them. Returns how many; the caller frees them.
 * ret_stretches NULL: only how many is asked. */
uint32_t pieces_stretch(struct piece *pieces, uint32_t count, struct stretch **ret_stretches);

/* Bytes [place->offset, place->offset + length) of a data object.  -EBADMSG when it ends before; what the store says of
 * one attempt otherwise. */
CO int pieces_get(struct volume *volume, const struct frame_place *place, uint8_t *bytes, size_t length,
                  struct error *error);

/* The payload of the frame at `bytes`, `units` long: verified, and of that kind and place.  Points into `bytes`. */
int piece_open(const uint8_t *bytes, uint32_t units, const struct frame_place *place, enum frame_kind kind,
               const uint8_t **ret_payload, size_t *ret_length, struct error *error);

/* Puts in front of the story where the piece lies: its object's key and the byte. Returns -code. */
int piece_blame(const struct frame_place *place, struct error *error);

/* Whether more attempts may mend it: not what is absent, damaged, foreign or newer, and not a cancel. */
bool piece_error_is_transient(int status);

#endif
