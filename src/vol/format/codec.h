/* The inside of the codecs: what they share with each other, with dump.c and
 * with the tests, and nobody else includes.
 *
 * Each decoder comes in two parts, so that dump can go on behind a damaged
 * checksum and the fuzzers get past it: a check of the seal (magic, version,
 * lengths, checksum) and a parse of what it seals.  The encoders put the seal
 * on with the same functions that the fuzzers use. */
#ifndef CAIRN_VOL_FORMAT_CODEC_H
#define CAIRN_VOL_FORMAT_CODEC_H

#include "vol/format/checkpoint.h"
#include "vol/format/format.h"

#define MAGIC_BYTES 8
#define ENTRY_MAGIC "CAIRNLOG"
#define REGISTER_MAGIC "CAIRNREG"
#define MARKER_MAGIC "cairn store\n"
#define FRAME_MAGIC UINT32_C(0x4d524643) /* the bytes "CFRM" */

/* For hashing: nobody writes through it. */
static inline struct iovec piece_of(const void *bytes, size_t length)
{
    return (struct iovec){ .iov_base = (void *)bytes, .iov_len = length };
}

static inline size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static inline void store_u16le(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void store_u32le(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline void store_u64le(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline uint16_t load_u16le(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t load_u32le(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t load_u64le(const uint8_t *at)
{
    return load_u32le(at) | (uint64_t)load_u32le(at + 4) << 32;
}

/* ---- what every object's reader asks (check.c) ---- */

bool bytes_are_zero(const uint8_t *bytes, size_t length);
/* -EMEDIUMTYPE, or -EBADMSG where there are too few bytes to tell. */
int check_magic(const char *what, const void *bytes, size_t length, const char *magic, struct error *error);
int check_version(const char *what, uint64_t version, struct error *error);
int check_features(const char *what, uint64_t incompatible, struct error *error);

/* ---- frames (frame.c) ---- */

/* The fields as they stand there, unjudged. */
void frame_read_header(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *ret_header);
/* The checksum for a header of 64 bytes and its payload, put in place. */
void frame_seal(uint8_t bytes[FRAME_HEADER_BYTES], const struct iovec *payload, int count);

/* ---- log entries (log.c) ---- */

#define ENTRY_CHECKSUM_AT 240
#define ENTRY_HEADER_MAX 4096u /* a later release may lengthen the header to this */

struct entry_lengths {
    uint32_t header, tables;
    uint32_t objects, extents, records; /* counts */
    size_t front;                       /* header, tables, padding */
};

/* Everything about the lengths that the first COMMIT_HEADER_BYTES say. */
int entry_read_lengths(const void *bytes, size_t length, struct entry_lengths *ret_lengths, struct error *error);
/* The header's fields, tables left out, unjudged: at least COMMIT_HEADER_BYTES. */
void entry_read_header(const uint8_t *bytes, struct entry *ret_entry);
int entry_check(const uint8_t *bytes, const struct entry_lengths *lengths, struct error *error);
int entry_parse(const uint8_t *bytes, const struct entry_lengths *lengths, struct entry *ret_entry,
                struct error *error);
/* Records that would have to be understood. */
int entry_understand(const struct entry *entry, struct error *error);
/* The checksum, put in place. The lengths have been read from these bytes. */
void entry_seal(uint8_t *bytes, const struct entry_lengths *lengths);

/* ---- the register (register.c) ---- */

#define REGISTER_HEADER_BYTES 64u
#define REGISTER_CHECKSUM_AT 48
#define REGISTER_FIELD_HEADER_BYTES 8u
#define FIELD_MUST_UNDERSTAND 1u

/* The numbers of the fields; those between are free. */
enum register_tag {
    TAG_NAME = 1,
    TAG_UUID = 2,
    TAG_STATE = 3,
    TAG_CREATED = 4,
    TAG_EPOCH = 16,
    TAG_OWNER = 17,
    TAG_HELD = 18,
    TAG_WRITE = 19,
    TAG_COUNTER = 20,
    TAG_LEASE = 21,
    TAG_OWNED_SINCE = 22,
    TAG_HOST = 23,
    TAG_PROCESS = 24,
    TAG_BOOT_ID = 25,
    TAG_LOCK_PATH = 26,
    TAG_LOCK_DEVICE = 27,
    TAG_LOCK_INODE = 28,
    TAG_RENEWAL = 30,
    TAG_NEWEST = 48,
    TAG_OLDER = 49,
    TAG_COMMITTED = 50,
    TAG_HORIZON = 51,
    TAG_PINS = 64,
    TAG_PARENT = 80,
};

const char *register_tag_name(uint16_t tag); /* NULL: unknown */
int register_check(const uint8_t *bytes, size_t length, struct error *error);
int register_parse(const uint8_t *bytes, size_t length, struct register_body *ret_body, struct error *error);
void register_seal(uint8_t *bytes, size_t length);

/* ---- pieces of checkpoints (checkpoint*.c) ----
 *
 * The frame around a payload has its checksum, so there is no seal here. What
 * is in two parts is the parse, which asks only that the lengths add up, so
 * that dump can print what breaks the rules, and the check of the rules. */

#define PIECE_LAYOUT 0u
#define PIECE_HEADER_MAX 4096u /* a later release may lengthen a header to this */
#define LEAVES_HEADER_BYTES 24u
#define LEAVES_ROW_BYTES 8u
#define LEAF_RUN_BYTES 10u
#define MID_HEADER_BYTES 24u
#define MID_SLOT_BYTES 8u
#define OBJECTS_HEADER_BYTES 64u
#define OBJECT_ROW_BYTES 56u
#define ROOT_HEADER_BYTES 192u
#define ROOT_MID_BYTES 16u
#define ROOT_CHUNK_BYTES 24u
#define PIECE_ID_BYTES 8u
#define PIECE_UUID_BYTES 16u

/* Layout and length of the header, and that the payload has so many bytes at least. */
int piece_read_header(const char *what, const void *payload, size_t length, uint32_t least, uint32_t *ret_header_bytes,
                      struct error *error);
/* The tables behind the header fill the payload. */
int piece_check_length(const char *what, size_t length, uint64_t expected, struct error *error);

/* The ids of objects that a payload names, by number: as they lie there. */
struct id_list {
    const uint8_t *at;
    uint32_t count;
};
uint64_t id_list_get(const struct id_list *list, uint32_t index); /* PIECE_OBJECT_NONE beyond the end */
int id_list_check(const char *what, const struct id_list *list, struct error *error);
uint32_t ids_sort(uint64_t *ids, uint32_t count); /* ascending, each once; returns how many are left */
uint32_t ids_find(const uint64_t *ids, uint32_t count, uint64_t id); /* its number; it is there */

/* Start and length in 32 bits. */
uint32_t place_pack(const struct piece_place *place);
struct piece_place place_unpack(uint64_t object, uint32_t packed);
/* `what` and `number` name the thing that lies there. */
int place_check(const char *what, uint64_t number, const struct piece_place *place, struct error *error);
/* The place of graves: 40 bytes. */
#define GRAVES_PLACE_BYTES 40u
void graves_place_put(bool present, const struct frame_place *place, uint32_t units, struct buffer *bytes);
void graves_place_read(const uint8_t *bytes, struct frame_place *ret_place, uint32_t *ret_units);
int graves_place_check(const char *what, bool present, const struct frame_place *place, uint32_t units,
                       struct error *error);

int leaves_parse(const void *payload, size_t length, struct leaves_frame *ret_frame, struct id_list *ret_ids,
                 struct error *error);
int leaves_check(const struct leaves_frame *frame, const struct id_list *ids, struct error *error);
int mid_parse(const void *payload, size_t length, struct mid_frame *ret_mid, struct id_list *ret_ids,
              struct error *error);
int mid_check(const struct mid_frame *mid, const struct id_list *ids, struct error *error);
int objects_parse(const void *payload, size_t length, struct objects_frame *ret_objects, const uint8_t **ret_uuids,
                  uint32_t *ret_uuid_count, struct error *error);
int objects_check(const struct objects_frame *objects, const uint8_t *uuids, uint32_t uuid_count, struct error *error);
void object_row_put(const struct object_row *row, uint16_t uuid_index, struct buffer *bytes);
/* Returns the number of its UUID, which is left zero. */
uint16_t object_row_read(const uint8_t bytes[OBJECT_ROW_BYTES], struct object_row *ret_row);
int object_row_check(const char *what, uint32_t number, const struct object_row *row, struct error *error);
/* The fields of the header, unjudged, without tables: at least ROOT_HEADER_BYTES. */
void root_frame_read_header(const uint8_t *bytes, struct root_frame *ret_root);
int root_frame_parse(const void *payload, size_t length, struct root_frame *ret_root, struct error *error);
int root_frame_check(const struct root_frame *root, struct error *error);

/* What a frame of the kinds 2 to 5 holds, for people (dump_piece.c): 0 or what is wrong with it. */
int dump_piece(enum frame_kind kind, const void *payload, size_t length, struct buffer *text, struct error *error);

#endif
