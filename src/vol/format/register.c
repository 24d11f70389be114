/* The register: the one object of a volume that changes.
 *
 *     header, 64 bytes | field | field | ...        field: tag, flags, length, bytes, padding to 8
 *
 * Several versions of this program share a store, and each rewrites registers
 * that others wrote.  So what a reader does not know it keeps: unknown fields
 * are written back as they were, at their place in the order of tags, and so is
 * what later versions append to a root or a pin (struct extra).  What must not
 * be ignored says so: a field that must be understood, or a feature bit, stops
 * the reader.
 *
 * There is one encoding for each body: fields in ascending order, each at most
 * once, flags and padding fixed.  The decoder accepts nothing else, so whatever
 * it accepts is written back byte for byte until somebody changes the body. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "register"
#define ITEM_HEADER_BYTES 8u
#define ROOT_BYTES 112u /* without what later versions append */
#define PIN_BYTES 48u   /* before its base and its child's name */
#define PARENT_BYTES 56u
#define ROOT_EMPTY UINT64_C(1)
#define PIN_HAS_CHILD 1u

enum field_type {
    FIELD_NUMBER, /* uint64_t */
    FIELD_STATE,
    FIELD_HELD,
    FIELD_ID,   /* 16 bytes */
    FIELD_TEXT, /* a char array of REGISTER_TEXT_MAX */
    FIELD_NAME,
    FIELD_ROOT,
    FIELD_OLDER, /* absent when there is none, as the next three */
    FIELD_PINS,
    FIELD_PARENT,
    FIELD_RENEWAL,
};

#define REGISTER_TEXT_MAX 256
static_assert(REGISTER_HOST_MAX == REGISTER_TEXT_MAX && REGISTER_LOCK_PATH_MAX == REGISTER_TEXT_MAX,
              "one kind of text");
static_assert(BOOT_ID_BYTES == 16, "an id like the others");

struct field {
    uint16_t tag, flags;
    enum field_type type;
    size_t at; /* in struct register_body, for the types that need it */
    const char *name;
};

#define AT(member) offsetof(struct register_body, member)
static const struct field fields[] = {
    { TAG_NAME, FIELD_MUST_UNDERSTAND, FIELD_NAME, 0, "name" },
    { TAG_UUID, FIELD_MUST_UNDERSTAND, FIELD_ID, AT(uuid), "uuid" },
    { TAG_STATE, FIELD_MUST_UNDERSTAND, FIELD_STATE, 0, "state" },
    { TAG_CREATED, 0, FIELD_NUMBER, AT(created_wall_ms), "created" },
    { TAG_EPOCH, FIELD_MUST_UNDERSTAND, FIELD_NUMBER, AT(epoch), "epoch" },
    { TAG_OWNER, FIELD_MUST_UNDERSTAND, FIELD_ID, AT(owner), "owner" },
    { TAG_HELD, FIELD_MUST_UNDERSTAND, FIELD_HELD, 0, "held" },
    { TAG_WRITE, FIELD_MUST_UNDERSTAND, FIELD_ID, AT(write), "write" },
    { TAG_COUNTER, FIELD_MUST_UNDERSTAND, FIELD_NUMBER, AT(counter), "counter" },
    { TAG_LEASE, FIELD_MUST_UNDERSTAND, FIELD_NUMBER, AT(lease_ms), "lease" },
    { TAG_OWNED_SINCE, 0, FIELD_NUMBER, AT(owned_since_wall_ms), "owned since" },
    { TAG_HOST, 0, FIELD_TEXT, AT(host), "host" },
    { TAG_PROCESS, 0, FIELD_NUMBER, AT(process), "process" },
    { TAG_BOOT_ID, 0, FIELD_ID, AT(boot_id), "boot id" },
    { TAG_LOCK_PATH, 0, FIELD_TEXT, AT(lock_path), "lock path" },
    { TAG_LOCK_DEVICE, 0, FIELD_NUMBER, AT(lock_device), "lock device" },
    { TAG_LOCK_INODE, 0, FIELD_NUMBER, AT(lock_inode), "lock inode" },
    { TAG_RENEWAL, 0, FIELD_RENEWAL, 0, "renewal" },
    { TAG_NEWEST, FIELD_MUST_UNDERSTAND, FIELD_ROOT, 0, "newest root" },
    { TAG_OLDER, FIELD_MUST_UNDERSTAND, FIELD_OLDER, 0, "older roots" },
    { TAG_COMMITTED, FIELD_MUST_UNDERSTAND, FIELD_NUMBER, AT(committed), "committed" },
    { TAG_HORIZON, FIELD_MUST_UNDERSTAND, FIELD_NUMBER, AT(horizon), "horizon" },
    { TAG_PINS, FIELD_MUST_UNDERSTAND, FIELD_PINS, 0, "pins" },
    { TAG_PARENT, FIELD_MUST_UNDERSTAND, FIELD_PARENT, 0, "parent" },
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))
static_assert(FIELD_COUNT <= 32, "a bit for each that was seen");

static const struct field *find_field(uint16_t tag)
{
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (fields[i].tag == tag)
            return &fields[i];
    return NULL;
}

const char *register_tag_name(uint16_t tag)
{
    const struct field *field = find_field(tag);
    return field != NULL ? field->name : NULL;
}

static bool is_optional(const struct field *field)
{
    return field->type == FIELD_OLDER || field->type == FIELD_PINS || field->type == FIELD_PARENT ||
           field->type == FIELD_RENEWAL;
}

/* ---- what a body must be ---- */

static int check_root(const struct root *root, const char *which, struct error *error)
{
    if (root->size == 0 || root->size > VOLUME_BYTES_MAX || root->size % VOLUME_SIZE_UNIT != 0)
        return error_set(error, EBADMSG, WHAT ": %s: a disk of %" PRIu64 " bytes", which, root->size);
    if (root->next_object_id == 0 || root->next_object_id > OBJECT_ID_MAX)
        return error_set(error, EBADMSG, WHAT ": %s: next object id %" PRIu64, which, root->next_object_id);
    if (root->seq == 0 && (!root->empty || !bytes_are_zero(root->hash, sizeof(root->hash))))
        return error_set(error, EBADMSG, WHAT ": %s: something at seq 0, where nothing is", which);
    if (root->extra.length > EXTRA_BYTES_MAX)
        return error_set(error, EPROTONOSUPPORT,
                         WHAT ": %s: %" PRIu32 " bytes behind what this program knows: "
                              "use a newer cairn",
                         which, root->extra.length);
    if (root->empty) {
        if (!bytes_are_zero(root->uuid.bytes, sizeof(root->uuid.bytes)) || root->object_id != 0 || root->epoch != 0 ||
            root->n != 0 || root->start != 0 || root->units != 0)
            return error_set(error, EBADMSG, WHAT ": %s: empty, and yet it has a place", which);
        return 0;
    }
    if (root->object_id == 0 || root->object_id >= root->next_object_id || root->epoch == 0)
        return error_set(error, EBADMSG, WHAT ": %s: in object %" PRIu64 " of epoch %" PRIu64, which, root->object_id,
                         root->epoch);
    if (root->units < 2 || (uint64_t)root->start + root->units > OBJECT_UNITS_MAX)
        return error_set(error, EBADMSG, WHAT ": %s: %" PRIu32 " units from unit %" PRIu32, which, root->units,
                         root->start);
    return 0;
}

static int check_name(const char *name, size_t length, const char *which, struct error *error)
{
    if (length > VOLUME_NAME_MAX || (length > 0 && memchr(name, '\0', length) != NULL))
        return error_set(error, EBADMSG, WHAT ": %s: %zu bytes, or a NUL among them", which, length);
    return 0;
}

static int check_pin(const struct pin *pin, struct error *error)
{
    if (pin->seq == 0 || pin->base.seq > pin->seq)
        return error_set(error, EBADMSG, WHAT ": a pin of seq %" PRIu64 " on a base of seq %" PRIu64, pin->seq,
                         pin->base.seq);
    if (!pin->has_child && (!bytes_are_zero(pin->child.bytes, sizeof(pin->child.bytes)) || pin->child_name_length != 0))
        return error_set(error, EBADMSG, WHAT ": a pin without a child, and yet with its name");
    if (pin->extra.length > EXTRA_BYTES_MAX)
        return error_set(error, EPROTONOSUPPORT,
                         WHAT ": a pin with %" PRIu32 " bytes behind what this program knows: "
                              "use a newer cairn",
                         pin->extra.length);
    int result = check_name(pin->child_name, pin->child_name_length, "a pin's child's name", error);
    return result < 0 ? result : check_root(&pin->base, "a pin's base", error);
}

static int check_body(const struct register_body *body, struct error *error)
{
    int result = check_name(body->name, body->name_length, "name", error);
    if (result < 0)
        return result;
    if (body->state < REGISTER_LIVE || body->state > REGISTER_TOMBSTONE)
        return error_set(error, EPROTONOSUPPORT, WHAT ": state %d, which this program does not know", (int)body->state);
    if (body->epoch == 0)
        return error_set(error, EBADMSG, WHAT ": epoch 0, and they begin at 1");
    result = check_root(&body->newest, "newest root", error);
    if (result < 0)
        return result;
    if (body->committed < body->newest.seq)
        return error_set(error, EBADMSG, WHAT ": committed up to seq %" PRIu64 ", and a root of seq %" PRIu64,
                         body->committed, body->newest.seq);
    for (uint32_t i = 0; i < body->older_count; i++) {
        if (body->older[i].seq > body->newest.seq)
            return error_set(error, EBADMSG, WHAT ": an older root of seq %" PRIu64 ", the newest is of %" PRIu64,
                             body->older[i].seq, body->newest.seq);
        result = check_root(&body->older[i], "older root", error);
        if (result < 0)
            return result;
    }
    for (uint32_t i = 0; result == 0 && i < body->pin_count; i++)
        result = check_pin(&body->pins[i], error);
    return result;
}

/* ---- encoding ---- */

static void put_padding(struct buffer *bytes, size_t length)
{
    buffer_put_zeroes(bytes, round_up(length, 8) - length);
}

/* An item is a length and as many bytes; its length is known when its end is. */
static size_t begin_item(struct buffer *bytes)
{
    buffer_put_zeroes(bytes, ITEM_HEADER_BYTES);
    return bytes->length;
}

static void end_item(struct buffer *bytes, size_t begin)
{
    store_u64le(bytes->data + begin - ITEM_HEADER_BYTES, bytes->length - begin);
    put_padding(bytes, bytes->length - begin);
}

static void put_root(const struct root *root, struct buffer *bytes)
{
    size_t begin = begin_item(bytes);
    buffer_put_u64le(bytes, root->seq);
    buffer_put(bytes, root->hash, sizeof(root->hash));
    buffer_put_u64le(bytes, root->size);
    buffer_put_u64le(bytes, root->next_object_id);
    buffer_put_u64le(bytes, root->empty ? ROOT_EMPTY : 0);
    buffer_put(bytes, root->uuid.bytes, sizeof(root->uuid.bytes));
    buffer_put_u64le(bytes, root->object_id);
    buffer_put_u64le(bytes, root->epoch);
    buffer_put_u64le(bytes, root->n);
    buffer_put_u32le(bytes, root->start);
    buffer_put_u32le(bytes, root->units);
    assert(bytes->length == begin + ROOT_BYTES);
    buffer_put(bytes, root->extra.bytes, root->extra.length);
    end_item(bytes, begin);
}

static void put_pin(const struct pin *pin, struct buffer *bytes)
{
    size_t begin = begin_item(bytes);
    buffer_put(bytes, pin->id.bytes, sizeof(pin->id.bytes));
    buffer_put_u64le(bytes, pin->seq);
    buffer_put_u32le(bytes, pin->has_child ? PIN_HAS_CHILD : 0);
    buffer_put_u32le(bytes, (uint32_t)pin->child_name_length);
    buffer_put(bytes, pin->child.bytes, sizeof(pin->child.bytes));
    assert(bytes->length == begin + PIN_BYTES);
    put_root(&pin->base, bytes);
    buffer_put(bytes, pin->child_name, pin->child_name_length);
    put_padding(bytes, pin->child_name_length);
    buffer_put(bytes, pin->extra.bytes, pin->extra.length);
    end_item(bytes, begin);
}

static void put_value(const struct register_body *body, const struct field *field, struct buffer *bytes)
{
    const uint8_t *member = (const uint8_t *)body + field->at;
    switch (field->type) {
    case FIELD_NUMBER:
        buffer_put_u64le(bytes, *(const uint64_t *)(const void *)member);
        break;
    case FIELD_STATE:
        buffer_put_u64le(bytes, body->state);
        break;
    case FIELD_HELD:
        buffer_put_u64le(bytes, body->held);
        break;
    case FIELD_ID:
        buffer_put(bytes, member, 16);
        break;
    case FIELD_TEXT: {
        const char *text = (const char *)member;
        assert(memchr(text, '\0', REGISTER_TEXT_MAX) != NULL);
        buffer_put(bytes, text, strlen(text));
        break;
    }
    case FIELD_NAME:
        buffer_put(bytes, body->name, body->name_length);
        break;
    case FIELD_ROOT:
        put_root(&body->newest, bytes);
        break;
    case FIELD_OLDER:
        for (uint32_t i = 0; i < body->older_count; i++)
            put_root(&body->older[i], bytes);
        break;
    case FIELD_PINS:
        for (uint32_t i = 0; i < body->pin_count; i++)
            put_pin(&body->pins[i], bytes);
        break;
    case FIELD_PARENT:
        buffer_put(bytes, body->parent.bytes, sizeof(body->parent.bytes));
        buffer_put_u64le(bytes, body->parent_seq);
        buffer_put(bytes, body->parent_hash, sizeof(body->parent_hash));
        break;
    case FIELD_RENEWAL:
        buffer_put(bytes, body->renewal.bytes, sizeof(body->renewal.bytes));
        break;
    }
}

static bool is_present(const struct register_body *body, const struct field *field)
{
    switch (field->type) {
    case FIELD_OLDER:
        return body->older_count > 0;
    case FIELD_PINS:
        return body->pin_count > 0;
    case FIELD_PARENT:
        return body->has_parent;
    case FIELD_RENEWAL:
        return !bytes_are_zero(body->renewal.bytes, sizeof(body->renewal.bytes));
    default:
        return true;
    }
}

/* Copies the unknown fields whose tags are below `past`; returns how many. */
static uint32_t put_unknown(struct reader *unknown, uint32_t past, struct buffer *bytes)
{
    uint32_t count = 0;
    while (reader_left(unknown) > 0) {
        struct reader peek = *unknown;
        uint16_t tag = reader_u16le(&peek);
        if (tag >= past)
            break;
        reader_u16le(&peek);
        size_t whole = REGISTER_FIELD_HEADER_BYTES + round_up(reader_u32le(&peek), 8);
        const uint8_t *field = reader_bytes(unknown, whole);
        assert(field != NULL && find_field(tag) == NULL);
        buffer_put(bytes, field, whole);
        count++;
    }
    return count;
}

static uint32_t put_fields(const struct register_body *body, struct buffer *bytes)
{
    struct reader unknown = reader_over(body->unknown, body->unknown_length);
    uint32_t count = 0;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const struct field *field = &fields[i];
        count += put_unknown(&unknown, field->tag, bytes);
        if (!is_present(body, field))
            continue;
        buffer_put_u16le(bytes, field->tag);
        buffer_put_u16le(bytes, field->flags);
        size_t length_at = bytes->length;
        buffer_put_u32le(bytes, 0);
        put_value(body, field, bytes);
        size_t length = bytes->length - length_at - 4;
        store_u32le(bytes->data + length_at, (uint32_t)length);
        put_padding(bytes, length);
        count++;
    }
    return count + put_unknown(&unknown, UINT32_MAX, bytes);
}

static void register_checksum(const uint8_t *bytes, size_t length, uint8_t ret_checksum[XXH128_BYTES])
{
    struct iovec pieces[] = {
        piece_of(bytes, REGISTER_CHECKSUM_AT),
        piece_of(bytes + REGISTER_HEADER_BYTES, length - REGISTER_HEADER_BYTES),
    };
    hash_xxh128(pieces, 2, ret_checksum);
}

void register_seal(uint8_t *bytes, size_t length)
{
    register_checksum(bytes, length, bytes + REGISTER_CHECKSUM_AT);
}

int register_encode(const struct register_body *body, struct buffer *ret_bytes, struct error *error)
{
    assert(check_body(body, NULL) == 0);
    struct buffer bytes = BUFFER_EMPTY;
    buffer_put(&bytes, REGISTER_MAGIC, MAGIC_BYTES);
    buffer_put_u32le(&bytes, FORMAT_VERSION);
    buffer_put_u32le(&bytes, REGISTER_HEADER_BYTES);
    buffer_put_u64le(&bytes, body->features_compatible);
    buffer_put_u64le(&bytes, body->features_incompatible);
    buffer_put_u64le(&bytes, body->features_owner);
    buffer_put_zeroes(&bytes, REGISTER_HEADER_BYTES - bytes.length);
    uint32_t count = put_fields(body, &bytes);

    int result = 0;
    if (bytes.length > REGISTER_BYTES_MAX) {
        result = error_set(error, E2BIG,
                           WHAT ": %zu bytes, and %u are the most: %" PRIu32 " pins and %" PRIu32 " older roots",
                           bytes.length, REGISTER_BYTES_MAX, body->pin_count, body->older_count);
    } else {
        store_u32le(bytes.data + 40, (uint32_t)bytes.length);
        store_u32le(bytes.data + 44, count);
        register_seal(bytes.data, bytes.length);
        buffer_put(ret_bytes, bytes.data, bytes.length);
    }
    buffer_free(&bytes);
    return result;
}

/* ---- decoding ---- */

int register_check(const uint8_t *bytes, size_t length, struct error *error)
{
    int result = check_magic(WHAT, bytes, length, REGISTER_MAGIC, error);
    if (result < 0)
        return result;
    if (length < REGISTER_HEADER_BYTES || length > REGISTER_BYTES_MAX)
        return error_set(error, EBADMSG, WHAT ": damaged: %zu bytes, between %u and %u are possible", length,
                         REGISTER_HEADER_BYTES, REGISTER_BYTES_MAX);
    result = check_version(WHAT, load_u32le(bytes + 8), error);
    if (result < 0)
        return result;
    if (load_u32le(bytes + 12) != REGISTER_HEADER_BYTES)
        return error_set(error, EBADMSG, WHAT ": damaged: a header of %" PRIu32 " bytes", load_u32le(bytes + 12));
    if (load_u32le(bytes + 40) != length)
        return error_set(error, EBADMSG, WHAT ": damaged: %zu bytes, and %" PRIu32 " by its header", length,
                         load_u32le(bytes + 40));
    uint8_t checksum[XXH128_BYTES];
    register_checksum(bytes, length, checksum);
    if (memcmp(checksum, bytes + REGISTER_CHECKSUM_AT, sizeof(checksum)) != 0)
        return error_set(error, EBADMSG, WHAT ": damaged: its checksum does not match its bytes");
    return 0;
}

/* The bytes of the next item, `padded` to 8 in the reader. */
static int get_item(struct reader *reader, const char *which, struct reader *ret_item, struct error *error)
{
    uint64_t length = reader_u64le(reader);
    if (reader->failed || length > reader_left(reader) || round_up(length, 8) > reader_left(reader))
        return error_set(error, EBADMSG, WHAT ": %s: goes beyond the end of its field", which);
    const uint8_t *bytes = reader_bytes(reader, round_up(length, 8));
    if (!bytes_are_zero(bytes + length, round_up(length, 8) - length))
        return error_set(error, EBADMSG, WHAT ": %s: its padding is not zeroes", which);
    *ret_item = reader_over(bytes, length);
    return 0;
}

static int get_extra(struct reader *item, const char *which, struct extra *ret_extra, struct error *error)
{
    size_t length = reader_left(item);
    if (item->failed)
        return error_set(error, EBADMSG, WHAT ": %s: too short", which);
    if (length > EXTRA_BYTES_MAX)
        return error_set(error, EPROTONOSUPPORT,
                         WHAT ": %s: %zu bytes behind what this program knows: use a newer cairn", which, length);
    ret_extra->length = (uint32_t)length;
    if (length > 0)
        memcpy(ret_extra->bytes, reader_bytes(item, length), length);
    return 0;
}

static void get_bytes(struct reader *reader, uint8_t *ret_bytes, size_t length)
{
    const uint8_t *bytes = reader_bytes(reader, length);
    if (bytes != NULL)
        memcpy(ret_bytes, bytes, length);
}

static int get_root(struct reader *reader, const char *which, struct root *ret_root, struct error *error)
{
    struct reader item;
    int result = get_item(reader, which, &item, error);
    if (result < 0)
        return result;
    struct root root = { .seq = reader_u64le(&item) };
    get_bytes(&item, root.hash, sizeof(root.hash));
    root.size = reader_u64le(&item);
    root.next_object_id = reader_u64le(&item);
    uint64_t flags = reader_u64le(&item);
    get_bytes(&item, root.uuid.bytes, sizeof(root.uuid.bytes));
    root.object_id = reader_u64le(&item);
    root.epoch = reader_u64le(&item);
    root.n = reader_u64le(&item);
    root.start = reader_u32le(&item);
    root.units = reader_u32le(&item);
    if ((flags & ~ROOT_EMPTY) != 0)
        return error_set(error, EPROTONOSUPPORT, WHAT ": %s: flags %" PRIx64 ", which this program does not know",
                         which, flags);
    root.empty = (flags & ROOT_EMPTY) != 0;
    if (root.next_object_id > OBJECT_ID_READ_MAX)
        return error_set(error, EBADMSG, WHAT ": %s: next object id %" PRIu64 ", and none goes so far", which,
                         root.next_object_id);
    result = get_extra(&item, which, &root.extra, error);
    if (result == 0)
        *ret_root = root;
    return result;
}

static int get_older(struct reader *value, struct register_body *body, struct error *error)
{
    do {
        struct root root;
        int result = get_root(value, "older root", &root, error);
        if (result < 0)
            return result;
        body->older = memory_resize(body->older, body->older_count + 1, sizeof(*body->older));
        body->older[body->older_count++] = root;
    } while (reader_left(value) > 0);
    return 0;
}

/* NUL-terminated, for those who print it. */
static char *copy_name(const void *bytes, size_t length)
{
    char *name = memory_new(length + 1);
    if (length > 0)
        memcpy(name, bytes, length);
    return name;
}

static int get_pin(struct reader *value, struct pin *ret_pin, struct error *error)
{
    struct reader item;
    int result = get_item(value, "pin", &item, error);
    if (result < 0)
        return result;
    struct pin pin = { 0 };
    get_bytes(&item, pin.id.bytes, sizeof(pin.id.bytes));
    pin.seq = reader_u64le(&item);
    uint32_t flags = reader_u32le(&item);
    uint32_t name_length = reader_u32le(&item);
    get_bytes(&item, pin.child.bytes, sizeof(pin.child.bytes));
    if (item.failed)
        return error_set(error, EBADMSG, WHAT ": pin: too short");
    if ((flags & ~PIN_HAS_CHILD) != 0)
        return error_set(error, EPROTONOSUPPORT, WHAT ": pin: flags %" PRIx32 ", which this program does not know",
                         flags);
    pin.has_child = (flags & PIN_HAS_CHILD) != 0;
    result = get_root(&item, "a pin's base", &pin.base, error);
    if (result < 0)
        return result;
    const uint8_t *name = reader_bytes(&item, round_up(name_length, 8));
    if (name == NULL || !bytes_are_zero(name + name_length, round_up(name_length, 8) - name_length))
        return error_set(error, EBADMSG, WHAT ": pin: its child's name of %" PRIu32 " bytes", name_length);
    result = get_extra(&item, "pin", &pin.extra, error);
    if (result < 0)
        return result;
    pin.child_name = copy_name(name, name_length);
    pin.child_name_length = name_length;
    *ret_pin = pin;
    return 0;
}

static int get_pins(struct reader *value, struct register_body *body, struct error *error)
{
    do {
        struct pin pin;
        int result = get_pin(value, &pin, error);
        if (result < 0)
            return result;
        body->pins = memory_resize(body->pins, body->pin_count + 1, sizeof(*body->pins));
        body->pins[body->pin_count++] = pin;
    } while (reader_left(value) > 0);
    return 0;
}

static int get_text(struct reader *value, const struct field *field, char *ret_text, struct error *error)
{
    size_t length = reader_left(value);
    const uint8_t *bytes = reader_bytes(value, length);
    if (length >= REGISTER_TEXT_MAX || memchr(bytes, '\0', length) != NULL)
        return error_set(error, EBADMSG, WHAT ": field '%s': %zu bytes, or a NUL among them", field->name, length);
    memcpy(ret_text, bytes, length);
    ret_text[length] = '\0';
    return 0;
}

static int get_value(struct reader *value, const struct field *field, struct register_body *body, struct error *error)
{
    uint8_t *member = (uint8_t *)body + field->at;
    uint64_t number = 0;
    int result = 0;
    switch (field->type) {
    case FIELD_NUMBER:
        *(uint64_t *)(void *)member = reader_u64le(value);
        break;
    case FIELD_STATE:
        number = reader_u64le(value);
        body->state = number <= REGISTER_TOMBSTONE ? (enum register_state)number : REGISTER_TOMBSTONE + 1;
        break;
    case FIELD_HELD:
        number = reader_u64le(value);
        if (number > 1)
            return error_set(error, EBADMSG, WHAT ": field 'held': neither 0 nor 1");
        body->held = number == 1;
        break;
    case FIELD_ID:
        get_bytes(value, member, 16);
        break;
    case FIELD_TEXT:
        result = get_text(value, field, (char *)member, error);
        break;
    case FIELD_NAME:
        body->name_length = reader_left(value);
        body->name = copy_name(reader_bytes(value, body->name_length), body->name_length);
        break;
    case FIELD_ROOT:
        result = get_root(value, "newest root", &body->newest, error);
        break;
    case FIELD_OLDER:
        result = get_older(value, body, error);
        break;
    case FIELD_PINS:
        result = get_pins(value, body, error);
        break;
    case FIELD_PARENT:
        body->has_parent = true;
        get_bytes(value, body->parent.bytes, sizeof(body->parent.bytes));
        body->parent_seq = reader_u64le(value);
        get_bytes(value, body->parent_hash, sizeof(body->parent_hash));
        break;
    case FIELD_RENEWAL:
        get_bytes(value, body->renewal.bytes, sizeof(body->renewal.bytes));
        if (!value->failed && bytes_are_zero(body->renewal.bytes, sizeof(body->renewal.bytes)))
            return error_set(error, EBADMSG, WHAT ": field 'renewal': zeroes, which are not written");
        break;
    }
    if (result == 0 && (value->failed || reader_left(value) != 0))
        return error_set(error, EBADMSG, WHAT ": field '%s' has not the length that it must have", field->name);
    return result;
}

/* One field, known or not. `begin` is where its header begins. */
static int get_field(uint16_t tag, uint16_t flags, const uint8_t *begin, size_t length, struct register_body *body,
                     struct buffer *unknown, struct error *error)
{
    const struct field *field = find_field(tag);
    const uint8_t *bytes = begin + REGISTER_FIELD_HEADER_BYTES;
    if (field == NULL) {
        if ((flags & FIELD_MUST_UNDERSTAND) != 0)
            return error_set(error, EPROTONOSUPPORT,
                             WHAT ": field %u must be understood, and this program does not: use a newer cairn", tag);
        buffer_put(unknown, begin, REGISTER_FIELD_HEADER_BYTES + round_up(length, 8));
        return 0;
    }
    if (flags != field->flags)
        return error_set(error, EPROTONOSUPPORT, WHAT ": field '%s' with flags %u: use a newer cairn", field->name,
                         flags);
    struct reader value = reader_over(bytes, length);
    return get_value(&value, field, body, error);
}

static int get_fields(const uint8_t *bytes, size_t length, struct register_body *body, struct buffer *unknown,
                      struct error *error)
{
    struct reader reader = reader_over(bytes + REGISTER_HEADER_BYTES, length - REGISTER_HEADER_BYTES);
    uint32_t count = 0, seen = 0, last_tag = 0;
    while (reader_left(&reader) > 0) {
        const uint8_t *begin = reader.at;
        uint16_t tag = reader_u16le(&reader), flags = reader_u16le(&reader);
        uint32_t value_length = reader_u32le(&reader);
        size_t padded = round_up(value_length, 8);
        if (reader.failed || reader_bytes(&reader, padded) == NULL)
            return error_set(error, EBADMSG, WHAT ": the field at byte %td goes beyond the end", begin - bytes);
        if (tag <= last_tag)
            return error_set(error, EBADMSG, WHAT ": field %u at byte %td stands behind field %" PRIu32, tag,
                             begin - bytes, last_tag);
        if (!bytes_are_zero(begin + REGISTER_FIELD_HEADER_BYTES + value_length, padded - value_length))
            return error_set(error, EBADMSG, WHAT ": the padding of field %u at byte %td is not zeroes", tag,
                             begin - bytes);
        int result = get_field(tag, flags, begin, value_length, body, unknown, error);
        if (result < 0)
            return result;
        for (size_t i = 0; i < FIELD_COUNT; i++)
            if (fields[i].tag == tag)
                seen |= UINT32_C(1) << i;
        last_tag = tag;
        count++;
    }
    if (count != load_u32le(bytes + 44))
        return error_set(error, EBADMSG, WHAT ": %" PRIu32 " fields, and %" PRIu32 " by its header", count,
                         load_u32le(bytes + 44));
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (!is_optional(&fields[i]) && (seen & UINT32_C(1) << i) == 0)
            return error_set(error, EBADMSG, WHAT ": field '%s' is missing", fields[i].name);
    return 0;
}

int register_parse(const uint8_t *bytes, size_t length, struct register_body *ret_body, struct error *error)
{
    struct register_body body = {
        .features_compatible = load_u64le(bytes + 16),
        .features_incompatible = load_u64le(bytes + 24),
        .features_owner = load_u64le(bytes + 32),
    };
    struct buffer unknown = BUFFER_EMPTY;
    int result = get_fields(bytes, length, &body, &unknown, error);
    body.unknown = unknown.data;
    body.unknown_length = unknown.length;
    if (result == 0 && (body.epoch > NUMBER_MAX || body.counter > NUMBER_MAX || body.committed > NUMBER_MAX))
        result = error_set(error, EBADMSG,
                           WHAT ": epoch %" PRIu64 ", counter %" PRIu64 ", committed %" PRIu64 ", and none goes so far",
                           body.epoch, body.counter, body.committed);
    if (result == 0)
        result = check_body(&body, error);
    if (result < 0) {
        register_free(&body);
        return result;
    }
    *ret_body = body;
    return 0;
}

int register_decode(const void *bytes, size_t length, struct register_body *ret_body, struct error *error)
{
    int result = register_check(bytes, length, error);
    if (result == 0)
        result = check_features(WHAT, load_u64le((const uint8_t *)bytes + 24), error);
    return result < 0 ? result : register_parse(bytes, length, ret_body, error);
}

/* ---- memory ---- */

void register_free(struct register_body *body)
{
    for (uint32_t i = 0; i < body->pin_count; i++)
        free(body->pins[i].child_name);
    free(body->pins);
    free(body->older);
    free(body->name);
    free(body->unknown);
    *body = (struct register_body){ 0 };
}

void register_copy(const struct register_body *body, struct register_body *ret_copy)
{
    struct register_body copy = *body;
    copy.name = copy_name(body->name, body->name_length);
    copy.older = body->older_count > 0 ? memory_copy(body->older, body->older_count * sizeof(*body->older)) : NULL;
    copy.pins = body->pin_count > 0 ? memory_copy(body->pins, body->pin_count * sizeof(*body->pins)) : NULL;
    for (uint32_t i = 0; i < body->pin_count; i++)
        copy.pins[i].child_name = copy_name(body->pins[i].child_name, body->pins[i].child_name_length);
    copy.unknown = body->unknown_length > 0 ? memory_copy(body->unknown, body->unknown_length) : NULL;
    *ret_copy = copy;
}
