/* The inside of the codecs: what they share with each other, with dump.c and
 * with the tests, and nobody else includes.
 *
 * Each decoder comes in two parts, so that dump can go on behind a damaged
 * checksum and the fuzzers get past it: a check of the seal (magic, version,
 * lengths, checksum) and a parse of what it seals.  The encoders put the seal
 * on with the same functions that the fuzzers use. */
#ifndef CAIRN_VOL_FORMAT_CODEC_H
#define CAIRN_VOL_FORMAT_CODEC_H

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

#endif
