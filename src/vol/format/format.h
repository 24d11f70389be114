/* The store's format, version 1: what every codec shares.  doc/format.md is the specification.
 *
 * Codecs are pure functions over bytes: no I/O, no clock, no state.  Decoders
 * take anything: they answer -EBADMSG (damaged), -EMEDIUMTYPE (not one of ours,
 * or of another volume or place) or -EPROTONOSUPPORT (a newer format, or a
 * feature that must be understood and is not), with a story that says what was
 * wrong at which byte, and allocate only what the input's own length justifies.
 * All integers are little-endian. */
#ifndef CAIRN_VOL_FORMAT_FORMAT_H
#define CAIRN_VOL_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/hash.h"
#include "store/store.h"

#define FORMAT_VERSION 1

#define PAGE_BYTES 4096u /* the unit of writing and mapping */
#define BLOCK_PAGES 32u  /* the unit of fetching, caching, compressing: 128 KiB */
#define BLOCK_BYTES (PAGE_BYTES * BLOCK_PAGES)
#define FRAME_UNIT 64u /* frames start at multiples of this, and are padded to them */
#define FRAME_HEADER_BYTES 64u
#define VOLUME_BYTES_MAX (UINT64_C(64) << 40)
#define VOLUME_PAGES_MAX (VOLUME_BYTES_MAX / PAGE_BYTES)
#define VOLUME_SIZE_UNIT 512u                /* sizes of disks are multiples of this */
#define NUMBER_MAX ((UINT64_C(1) << 63) - 1) /* of what grows by one: decoders refuse more, so adding one is safe */
#define VOLUME_NAME_MAX 4096u                /* NBD's limit for a string; names hold any byte but NUL */
/* A frame's place is packed into memory and into maps as a start of 18 bits in FRAME_UNITs ... */
#define OBJECT_UNITS_MAX (1u << 18)
#define OBJECT_BYTES_MAX (OBJECT_UNITS_MAX * FRAME_UNIT) /* 16 MiB: of a log entry, of a data object */
/* ... beside the object's id, and both together are a key of 64 bits. */
#define OBJECT_ID_MAX ((UINT64_C(1) << 46) - 1)
/* Decoders refuse more, so that whatever was read leaves more ids than can ever be used. */
#define OBJECT_ID_READ_MAX ((UINT64_C(1) << 45) - 1)

struct uuid {
    uint8_t bytes[16];
};
struct nonce {
    uint8_t bytes[16];
};

/* ---- keys under the prefix (format/key.c) ---- */

#define KEY_MAX 256      /* of any key below, with its NUL */
#define KEY_NAME_MAX 200 /* bytes of an encoded name; longer ones are hashed: file systems stop at 255 */
void key_register(const char *name, size_t name_length, char ret_key[KEY_MAX]); /* volumes/n.… or volumes/h.… */
void key_log(const struct uuid *uuid, uint64_t seq, char ret_key[KEY_MAX]);     /* v/<uuid>/log/<20 digits> */
void key_data(const struct uuid *uuid, uint64_t epoch, uint64_t n, char ret_key[KEY_MAX]);
void key_log_prefix(const struct uuid *uuid, char ret_key[KEY_MAX]);
bool key_parse_log(const char *key, struct uuid *ret_uuid, uint64_t *ret_seq); /* exact form only */
bool key_parse_data(const char *key, struct uuid *ret_uuid, uint64_t *ret_epoch, uint64_t *ret_n);
/* The name in a register key of the `n.` form, raw; false for `h.` and anything malformed. */
bool key_parse_register(const char *key, char ret_name[VOLUME_NAME_MAX], size_t *ret_length);
#define KEY_MARKER "cairn"
#define KEY_REGISTERS "volumes/"

/* "8-4-4-4-12" lower case. */
#define UUID_TEXT 37
void uuid_format(const struct uuid *uuid, char ret_text[UUID_TEXT]);
bool uuid_parse(const char *text, struct uuid *ret_uuid);
bool uuid_equal(const struct uuid *a, const struct uuid *b);
bool nonce_equal(const struct nonce *a, const struct nonce *b);

/* ---- the store's marker, key `cairn` (format/marker.c): text that a person can read ---- */

void marker_encode(const struct uuid *store_uuid, struct buffer *ret_bytes);
int marker_decode(const void *bytes, size_t length, struct uuid *ret_store_uuid, struct error *error);

/* ---- frames (format/frame.c) ---- */

enum frame_kind { FRAME_PAGES = 1, FRAME_LEAVES = 2, FRAME_MIDS = 3, FRAME_ROOT = 4, FRAME_OBJECTS = 5 };
enum frame_codec { CODEC_NONE = 0 };
enum frame_cipher { CIPHER_NONE = 0 };

enum object_kind { OBJECT_LOG = 1, OBJECT_DATA = 2 };

/* Where a frame lies: mixed into it, so that misplaced bytes are noticed. */
struct frame_place {
    struct uuid uuid; /* of the volume under whose key the object stands */
    enum object_kind kind;
    uint64_t epoch, n; /* OBJECT_DATA */
    uint64_t seq;      /* OBJECT_LOG */
    uint64_t offset;   /* of the frame's header in the object, a multiple of FRAME_UNIT */
};

struct frame_header {
    enum frame_kind kind;
    enum frame_codec codec;
    enum frame_cipher cipher;
    uint32_t key_id;
    uint64_t block;        /* FRAME_PAGES: which block of the disk */
    uint32_t pages;        /* FRAME_PAGES: bit i: page i of the block is in it, in ascending order, with no gaps */
    uint32_t raw_bytes;    /* of the payload, decoded; FRAME_PAGES: PAGE_BYTES * number of bits */
    uint32_t stored_bytes; /* of the payload as it lies there, behind the header, without the padding */
};

/* Of a payload, decoded and as it lies there; FRAME_PAGES stay at BLOCK_BYTES. */
#define FRAME_PAYLOAD_MAX (OBJECT_BYTES_MAX - FRAME_HEADER_BYTES)
#define FRAME_PIECES_MAX 64 /* pieces of memory that a payload may lie in: 32 pages, and room */

/* Whole length with header and padding. */
static inline uint32_t frame_total_bytes(uint32_t stored_bytes)
{
    return (FRAME_HEADER_BYTES + stored_bytes + FRAME_UNIT - 1) / FRAME_UNIT * FRAME_UNIT;
}

/* Makes the 64 bytes of header, checksum over header and payload included. The payload is stored_bytes long. */
void frame_encode(const struct frame_header *header, const struct frame_place *place, const struct iovec *payload,
                  int count, uint8_t ret_header[FRAME_HEADER_BYTES]);
/* Header alone: shape only, for walking an object. What it says is not proven before frame_verify(). */
int frame_decode_header(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *ret_header, struct error *error);
/* Checksum (-EBADMSG), identity (-EMEDIUMTYPE), shape. -EBADMSG too when `payload` is not stored_bytes long:
 * where a frame lies was said by others, how long it is says its header. `place` may be NULL: where the frame
 * belongs is not known, and not asked. */
int frame_verify(const uint8_t bytes[FRAME_HEADER_BYTES], const struct frame_place *place, const struct iovec *payload,
                 int count, struct frame_header *ret_header, struct error *error);

/* ---- the log: commits and fences (format/log.c) ---- */

enum entry_kind { ENTRY_COMMIT = 1, ENTRY_FENCE = 2 };

#define COMMIT_TABLES_MAX (1u << 20) /* bytes of tables, so that a reader knows its bound */
#define COMMIT_HEADER_BYTES 256u     /* fixed; the tables follow, then padding to FRAME_UNIT, then inline frames */
#define COMMIT_EXTENT_BYTES 32u
#define COMMIT_OBJECT_BYTES 32u

enum extent_kind { EXTENT_ZERO = 1, EXTENT_PAGES = 2 };

/* A run of pages of the disk, and where its content lies. Extents of an entry are disjoint and ascending. */
struct commit_extent {
    enum extent_kind kind;
    uint64_t page;  /* first page of the disk */
    uint64_t count; /* pages: 1 to 32 and within one block for EXTENT_PAGES; any within the disk for EXTENT_ZERO */
    /* EXTENT_PAGES: */
    uint32_t object; /* 0: this entry itself (inline); i: objects[i - 1] of this entry; ids follow object_id in order */
    uint32_t start;  /* of the frame's header in that object, in FRAME_UNITs (from the object's first byte) */
    uint32_t units;  /* of the whole frame, in FRAME_UNITs */
    uint32_t frame_page;  /* which page of the frame the first one is, 0 to 31 */
    uint32_t frame_pages; /* how many pages the frame holds, 1 to 32: so a reader can size its fetch */
};

struct commit_object {
    uint64_t epoch, n; /* the key */
    uint64_t bytes;
};

/* Numbers that are taken. This release understands none of them: must_understand set, they stop it. */
enum record_type { RECORD_RESET = 1, RECORD_RESIZE = 2 };
struct commit_record {
    uint16_t type;
    bool must_understand;
    uint32_t length;
    const uint8_t *bytes; /* when decoded: into the input */
};

struct entry {
    enum entry_kind kind;
    struct uuid uuid;
    uint64_t epoch;
    struct nonce owner;
    uint64_t seq;
    uint8_t previous[SHA256_BYTES]; /* hash of the previous entry's header and tables (its `hash`) */
    uint64_t wall_ms;
    uint64_t object_id;    /* the id of this entry as an object, fences included; objects[i] has object_id + 1 + i */
    uint64_t inline_bytes; /* of the frames behind the tables, padding included */
    uint64_t features_incompatible; /* a reader that does not know a bit stops */
    /* ENTRY_COMMIT only: */
    struct commit_extent *extents;
    uint32_t extent_count;
    struct commit_object *objects;
    uint32_t object_count;
    struct commit_record *records;
    uint32_t record_count;
};

/* Of one record in the tables, with its head and padding. */
static inline size_t record_total_bytes(uint32_t length)
{
    return 8 + ((size_t)length + 7) / 8 * 8;
}

/* Appends header and tables and padding: the first inline frame begins at the length of ret_bytes then,
 * entry_front_bytes(entry).  ret_hash is what the next entry's `previous` must hold.
 * An entry that entry_decode() would refuse is a bug of the caller's, and asserted. */
void entry_encode(const struct entry *entry, struct buffer *ret_bytes, uint8_t ret_hash[SHA256_BYTES]);
/* record_bytes: the sum of record_total_bytes(). */
size_t entry_front_bytes(uint32_t extent_count, uint32_t object_count, size_t record_bytes);
/* How long header and tables are, from the first COMMIT_HEADER_BYTES bytes: how much to fetch at least. */
int entry_decode_front(const void *bytes, size_t length, size_t *ret_front_bytes, struct error *error);
/* From header, tables and padding (more bytes may follow and are ignored). Free with entry_free().
 * Whether uuid and seq are those of the key, and `previous` the hash of the entry before, is the caller's to compare.
 */
int entry_decode(const void *bytes, size_t length, struct entry *ret_entry, uint8_t ret_hash[SHA256_BYTES],
                 struct error *error);
void entry_free(struct entry *entry);

/* ---- the register (format/register.c) ---- */

#define REGISTER_BYTES_MAX (256u << 10)
#define REGISTER_HOST_MAX 256
#define REGISTER_LOCK_PATH_MAX 256
#define BOOT_ID_BYTES 16

enum register_state { REGISTER_LIVE = 1, REGISTER_DELETING = 2, REGISTER_TOMBSTONE = 3 };

/* Features of format 1, to be known by readers, writers and owners. None so far. */
#define FEATURES_INCOMPATIBLE_KNOWN UINT64_C(0)
#define FEATURES_OWNER_OURS UINT64_C(0) /* what this program's owners understand; bit 0 will be pins */

/* What later versions append to a structure: kept with it and written back, not understood. */
#define EXTRA_BYTES_MAX 64
struct extra {
    uint32_t length;
    uint8_t bytes[EXTRA_BYTES_MAX];
};

/* A complete state of a volume as of log entry `seq`: an empty disk, or a root written by a checkpoint. */
struct root {
    uint64_t seq;
    uint8_t hash[SHA256_BYTES]; /* of the log entry at seq; zeroes for seq 0 */
    uint64_t size;              /* bytes of the disk as of seq */
    uint64_t next_object_id;
    bool empty; /* no map and no object table: nothing was ever written */
    /* Where the root's own frame lies, unless empty: */
    struct uuid uuid;
    uint64_t object_id, epoch, n;
    uint32_t start, units;
    struct extra extra;
};

struct pin {
    struct nonce id;
    uint64_t seq; /* t: the log entry that it keeps */
    struct root base;
    bool has_child;
    struct uuid child;
    char *child_name; /* owned; may hold any byte but NUL */
    size_t child_name_length;
    struct extra extra;
};

struct register_body {
    char *name; /* owned, raw bytes */
    size_t name_length;
    struct uuid uuid;
    uint64_t features_compatible, features_incompatible, features_owner;
    enum register_state state;
    uint64_t created_wall_ms;

    uint64_t epoch;
    struct nonce owner; /* of the owner that took `epoch` */
    bool held;          /* false: released, the next owner need not wait */
    struct nonce write; /* fresh in every body, so no two bodies are equal */
    uint64_t counter;   /* grows with every write of the owner's */
    uint64_t lease_ms;
    uint64_t owned_since_wall_ms;
    char host[REGISTER_HOST_MAX]; /* for people */
    uint64_t process;             /* pid, for people */
    uint8_t boot_id[BOOT_ID_BYTES];
    char lock_path[REGISTER_LOCK_PATH_MAX]; /* "" : none */
    uint64_t lock_device, lock_inode;
    struct nonce renewal; /* `write` of the last body that the owner wrote: others leave it alone; zeroes: not told */

    struct root newest;
    struct root *older; /* owned */
    uint32_t older_count;
    uint64_t committed; /* seq known to be committed as of this write */
    uint64_t horizon;   /* H */
    struct pin *pins;   /* owned */
    uint32_t pin_count;

    bool has_parent;
    struct uuid parent;
    uint64_t parent_seq;
    uint8_t parent_hash[SHA256_BYTES];

    uint8_t *unknown; /* owned: whole fields of later versions, in order, written back unchanged */
    size_t unknown_length;
};

/* Appends. -E2BIG over REGISTER_BYTES_MAX; a body that register_decode() would refuse for anything else is a bug of the
 * caller's, and asserted. */
int register_encode(const struct register_body *body, struct buffer *ret_bytes, struct error *error);
/* Whether `name` is the one of the key is the caller's to compare. */
int register_decode(const void *bytes, size_t length, struct register_body *ret_body, struct error *error);
void register_free(struct register_body *body);
void register_copy(const struct register_body *body, struct register_body *ret_copy);

/* ---- for people (format/dump.c): `cairn dump` ---- */

/* Prints the object under `key` (relative to the prefix) to `ret_text`, and says what is wrong with it:
 * as much as can be made out of a damaged one is printed still.  0: sound; otherwise the decoder's error. */
int format_dump(const char *key, const void *bytes, size_t length, struct buffer *ret_text, struct error *error);

#endif
