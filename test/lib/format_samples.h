/* Objects of the store for tests: fixed small ones, and random valid ones.
 *
 * The fixed ones are those of the examples in doc/format.md; golden bytes hang
 * on every value here.  The random ones reach the edges of what the format
 * allows.  The seed corpora of the fuzz targets are made of both. */
#ifndef CAIRN_TEST_FORMAT_SAMPLES_H
#define CAIRN_TEST_FORMAT_SAMPLES_H

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

/* ---- chance ---- */

struct chance {
    uint64_t state;
};

static inline uint64_t chance_u64(struct chance *chance)
{
    uint64_t z = chance->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t chance_below(struct chance *chance, uint64_t bound)
{
    return chance_u64(chance) % bound;
}

/* 0 to `most`, with the edges and small numbers as likely as all others together. */
static inline uint64_t chance_number(struct chance *chance, uint64_t most)
{
    uint64_t value = chance_u64(chance) >> chance_below(chance, 64);
    switch (chance_below(chance, 6)) {
    case 0:
        return 0;
    case 1:
        return most;
    default:
        return most == UINT64_MAX ? value : value % (most + 1);
    }
}

static inline void chance_bytes(struct chance *chance, void *ret_bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)ret_bytes)[i] = (uint8_t)chance_u64(chance);
}

/* A name: owned, NUL-terminated, without a NUL inside. */
static inline char *chance_name(struct chance *chance, size_t most, size_t *ret_length)
{
    size_t length = chance_number(chance, most);
    char *name = memory_new(length + 1);
    for (size_t i = 0; i < length; i++)
        name[i] = (char)(1 + chance_below(chance, 255));
    *ret_length = length;
    return name;
}

/* ---- the fixed ones ---- */

/* first, first + 1, … */
static inline void sample_bytes(uint8_t first, uint8_t *ret_bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ret_bytes[i] = (uint8_t)(first + i);
}

static inline struct uuid sample_uuid(void)
{
    struct uuid uuid;
    sample_bytes(0xa0, uuid.bytes, sizeof(uuid.bytes));
    return uuid;
}

#define SAMPLE_WALL_MS UINT64_C(1767225600123) /* 2026-01-01T00:00:00.123Z */

/* The register of 'db', 1 GiB, held by its first owner; nothing committed. */
static inline struct register_body sample_register(void)
{
    struct register_body body = {
        .name = memory_string("db"),
        .name_length = 2,
        .uuid = sample_uuid(),
        .state = REGISTER_LIVE,
        .created_wall_ms = SAMPLE_WALL_MS,
        .epoch = 1,
        .held = true,
        .counter = 1,
        .lease_ms = 30000,
        .owned_since_wall_ms = SAMPLE_WALL_MS,
        .host = "stone",
        .process = 4711,
        .lock_path = "/run/cairn/lock",
        .lock_device = 26,
        .lock_inode = 1234,
        .newest = { .size = UINT64_C(1) << 30, .next_object_id = 1, .empty = true },
    };
    sample_bytes(0x10, body.owner.bytes, sizeof(body.owner.bytes));
    sample_bytes(0x30, body.write.bytes, sizeof(body.write.bytes));
    sample_bytes(0x50, body.boot_id, sizeof(body.boot_id));
    return body;
}

/* A register that uses every field: roots in objects, pins, a parent, unknown fields. */
static inline struct register_body sample_register_full(void)
{
    struct register_body body = sample_register();
    body.newest = (struct root){ .seq = 2000,
                                 .size = UINT64_C(1) << 40,
                                 .next_object_id = 5000,
                                 .uuid = sample_uuid(),
                                 .object_id = 4999,
                                 .epoch = 3,
                                 .n = 17,
                                 .start = 100,
                                 .units = 9,
                                 .extra = { .length = 3, .bytes = "xyz" } };
    sample_bytes(0x70, body.newest.hash, sizeof(body.newest.hash));
    body.epoch = 3;
    body.committed = 2010;
    body.horizon = 1000;
    body.older_count = 2;
    body.older = memory_array(2, sizeof(*body.older));
    body.older[0] = (struct root){ .seq = 1000, .size = 512, .next_object_id = 1, .empty = true };
    body.older[1] = body.newest;
    body.older[1].extra.length = 0;
    memset(body.older[1].extra.bytes, 0, EXTRA_BYTES_MAX);
    body.pin_count = 2;
    body.pins = memory_array(2, sizeof(*body.pins));
    body.pins[0] = (struct pin){ .seq = 1500, .base = body.older[0], .child_name = memory_string("") };
    body.pins[1] = (struct pin){ .seq = 2000,
                                 .base = body.newest,
                                 .has_child = true,
                                 .child = sample_uuid(),
                                 .child_name = memory_string("db-test"),
                                 .child_name_length = 7,
                                 .extra = { .length = 8, .bytes = "later..." } };
    body.has_parent = true;
    body.parent = sample_uuid();
    body.parent_seq = 7;
    sample_bytes(0x90, body.parent_hash, sizeof(body.parent_hash));
    struct buffer unknown = BUFFER_EMPTY;
    buffer_put_u16le(&unknown, 29); /* between fields that are known */
    buffer_put_u16le(&unknown, 0);
    buffer_put_u32le(&unknown, 5);
    buffer_put(&unknown, "hello\0\0\0", 8);
    buffer_put_u16le(&unknown, 60000);
    buffer_put_u16le(&unknown, 4);
    buffer_put_u32le(&unknown, 0);
    body.unknown = unknown.data;
    body.unknown_length = unknown.length;
    return body;
}

/* What every fixed entry shares. */
static inline struct entry sample_entry(enum entry_kind kind, uint64_t seq)
{
    struct entry entry = {
        .kind = kind,
        .uuid = sample_uuid(),
        .epoch = 1,
        .seq = seq,
        .wall_ms = SAMPLE_WALL_MS,
        .object_id = seq,
    };
    sample_bytes(0x10, entry.owner.bytes, sizeof(entry.owner.bytes));
    return entry;
}

/* Appends a frame of pages (bits in `pages`), each page filled with one byte that tells it apart, at `place`. */
static inline void sample_frame(struct buffer *bytes, struct frame_place place, uint64_t block, uint32_t pages)
{
    uint32_t count = (uint32_t)__builtin_popcount(pages);
    struct buffer payload = BUFFER_EMPTY;
    for (uint32_t i = 0; i < BLOCK_PAGES; i++) {
        if ((pages & UINT32_C(1) << i) == 0)
            continue;
        buffer_put_zeroes(&payload, PAGE_BYTES);
        memset(payload.data + payload.length - PAGE_BYTES, (int)('a' + i), PAGE_BYTES);
    }
    struct frame_header header = { .kind = FRAME_PAGES,
                                   .block = block,
                                   .pages = pages,
                                   .raw_bytes = count * PAGE_BYTES,
                                   .stored_bytes = count * PAGE_BYTES };
    struct iovec piece = { .iov_base = payload.data, .iov_len = payload.length };
    uint8_t head[FRAME_HEADER_BYTES];
    frame_encode(&header, &place, &piece, 1, head);
    buffer_put(bytes, head, sizeof(head));
    buffer_put(bytes, payload.data, payload.length);
    buffer_free(&payload);
}

/* The commit of one page, number 37, that rides inline: what a 4 KiB write and a flush make of the sample register. */
static inline void sample_commit_small(struct buffer *bytes, uint8_t ret_hash[SHA256_BYTES])
{
    size_t front = entry_front_bytes(1, 0, 0);
    struct commit_extent extent = { .kind = EXTENT_PAGES,
                                    .page = 37,
                                    .count = 1,
                                    .start = (uint32_t)(front / FRAME_UNIT),
                                    .units = frame_total_bytes(PAGE_BYTES) / FRAME_UNIT,
                                    .frame_pages = 1 };
    struct entry entry = sample_entry(ENTRY_COMMIT, 1);
    entry.inline_bytes = frame_total_bytes(PAGE_BYTES);
    entry.extents = &extent;
    entry.extent_count = 1;
    entry_encode(&entry, bytes, ret_hash);
    struct frame_place place = { .uuid = entry.uuid, .kind = OBJECT_LOG, .seq = 1, .offset = front };
    sample_frame(bytes, place, 1, 1u << 5);
}

/* The same front shape with everything in it: two objects, five extents, two records, two inline frames. */
static inline void sample_commit_full(struct buffer *bytes, uint8_t ret_hash[SHA256_BYTES])
{
    struct commit_object objects[] = { { 1, 5, 16u << 20 }, { 1, 6, 64 + 2 * PAGE_BYTES } };
    struct commit_record records[] = { { .type = 77, .length = 5, .bytes = (const uint8_t *)"hello" },
                                       { .type = 78, .length = 0, .bytes = (const uint8_t *)"" } };
    struct entry entry = sample_entry(ENTRY_COMMIT, 2);
    size_t front = entry_front_bytes(5, 2, record_total_bytes(5) + record_total_bytes(0));
    uint32_t first = (uint32_t)(front / FRAME_UNIT);
    struct commit_extent extents[] = {
        { .kind = EXTENT_ZERO, .page = 0, .count = 5 },
        { .kind = EXTENT_PAGES,
          .page = 5,
          .count = 2,
          .start = first,
          .units = 193,
          .frame_page = 0,
          .frame_pages = 3 },
        { .kind = EXTENT_PAGES,
          .page = 9,
          .count = 1,
          .start = first,
          .units = 193,
          .frame_page = 2,
          .frame_pages = 3 },
        { .kind = EXTENT_PAGES,
          .page = 32,
          .count = 32,
          .object = 1,
          .start = OBJECT_UNITS_MAX - 2049,
          .units = 2049,
          .frame_pages = 32 },
        { .kind = EXTENT_PAGES,
          .page = VOLUME_PAGES_MAX - 1,
          .count = 1,
          .start = first + 193,
          .units = 65,
          .frame_pages = 1 },
    };
    entry.inline_bytes = (193 + 65) * FRAME_UNIT;
    sample_bytes(0x70, entry.previous, sizeof(entry.previous));
    entry.objects = objects;
    entry.object_count = 2;
    entry.extents = extents;
    entry.extent_count = 5;
    entry.records = records;
    entry.record_count = 2;
    entry_encode(&entry, bytes, ret_hash);
    struct frame_place place = { .uuid = entry.uuid, .kind = OBJECT_LOG, .seq = 2, .offset = front };
    sample_frame(bytes, place, 0, 1u << 5 | 1u << 6 | 1u << 9);
    place.offset += 193 * FRAME_UNIT;
    sample_frame(bytes, place, (VOLUME_PAGES_MAX - 1) / BLOCK_PAGES, 1u << 31);
}

static inline void sample_fence(struct buffer *bytes, uint8_t ret_hash[SHA256_BYTES])
{
    struct entry entry = sample_entry(ENTRY_FENCE, 3);
    entry.epoch = 2;
    entry_encode(&entry, bytes, ret_hash);
}

/* A data object of epoch 1, n 6, with two frames. */
static inline void sample_data(struct buffer *bytes)
{
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 6 };
    sample_frame(bytes, place, 3, 0x3);
    place.offset = bytes->length;
    sample_frame(bytes, place, 4, 0x80000001);
}

/* ---- the random ones ---- */

static inline struct root random_root(struct chance *chance, uint64_t seq_most)
{
    struct root root = { .seq = chance_number(chance, seq_most), .empty = chance_below(chance, 2) };
    root.empty |= root.seq == 0;
    if (root.seq > 0)
        chance_bytes(chance, root.hash, sizeof(root.hash));
    root.size = (1 + chance_number(chance, VOLUME_BYTES_MAX / VOLUME_SIZE_UNIT - 1)) * VOLUME_SIZE_UNIT;
    root.next_object_id = root.empty ? 1 + chance_number(chance, OBJECT_ID_READ_MAX - 1)
                                     : 2 + chance_number(chance, OBJECT_ID_READ_MAX - 2);
    root.extra.length = (uint32_t)chance_number(chance, EXTRA_BYTES_MAX);
    chance_bytes(chance, root.extra.bytes, root.extra.length);
    if (root.empty)
        return root;
    chance_bytes(chance, root.uuid.bytes, sizeof(root.uuid.bytes));
    root.object_id = 1 + chance_number(chance, root.next_object_id - 2);
    root.epoch = 1 + chance_number(chance, UINT64_MAX - 1);
    root.n = chance_number(chance, UINT64_MAX);
    root.units = (uint32_t)(2 + chance_number(chance, OBJECT_UNITS_MAX - 2));
    root.start = (uint32_t)chance_number(chance, OBJECT_UNITS_MAX - root.units);
    return root;
}

static inline struct pin random_pin(struct chance *chance)
{
    struct pin pin = { .seq = 1 + chance_number(chance, UINT64_MAX - 1), .has_child = chance_below(chance, 2) };
    chance_bytes(chance, pin.id.bytes, sizeof(pin.id.bytes));
    pin.base = random_root(chance, pin.seq);
    if (pin.has_child)
        chance_bytes(chance, pin.child.bytes, sizeof(pin.child.bytes));
    pin.child_name = chance_name(chance, pin.has_child ? VOLUME_NAME_MAX : 0, &pin.child_name_length);
    pin.extra.length = (uint32_t)chance_number(chance, EXTRA_BYTES_MAX);
    chance_bytes(chance, pin.extra.bytes, pin.extra.length);
    return pin;
}

static inline void random_text(struct chance *chance, char *ret_text, size_t capacity)
{
    size_t length = chance_number(chance, capacity - 1);
    for (size_t i = 0; i < length; i++)
        ret_text[i] = (char)(1 + chance_below(chance, 255));
    ret_text[length] = '\0';
}

/* Unknown fields with ascending tags that no version 1 knows. */
static inline void random_unknown(struct chance *chance, struct register_body *body)
{
    struct buffer unknown = BUFFER_EMPTY;
    for (uint32_t tag = 1 + (uint32_t)chance_below(chance, 40); tag <= UINT16_MAX;
         tag += 1 + (uint32_t)chance_number(chance, UINT16_MAX)) {
        if (register_tag_name((uint16_t)tag) != NULL)
            continue;
        uint32_t length = (uint32_t)chance_below(chance, 40);
        uint8_t bytes[40];
        chance_bytes(chance, bytes, length);
        buffer_put_u16le(&unknown, (uint16_t)tag);
        buffer_put_u16le(&unknown, (uint16_t)chance_u64(chance) & ~FIELD_MUST_UNDERSTAND);
        buffer_put_u32le(&unknown, length);
        buffer_put(&unknown, bytes, length);
        buffer_put_zeroes(&unknown, round_up(length, 8) - length);
        if (unknown.length > 4096)
            break;
    }
    body->unknown = unknown.data;
    body->unknown_length = unknown.length;
}

static inline struct register_body random_register(struct chance *chance)
{
    struct register_body body = {
        .features_compatible = chance_u64(chance),
        .features_owner = chance_u64(chance),
        .state = (enum register_state)(1 + chance_below(chance, 3)),
        .created_wall_ms = chance_number(chance, UINT64_MAX),
        .epoch = 1 + chance_number(chance, NUMBER_MAX - 1),
        .held = chance_below(chance, 2),
        .counter = chance_number(chance, NUMBER_MAX),
        .lease_ms = chance_number(chance, UINT64_MAX),
        .owned_since_wall_ms = chance_number(chance, UINT64_MAX),
        .process = chance_number(chance, UINT64_MAX),
        .lock_device = chance_number(chance, UINT64_MAX),
        .lock_inode = chance_number(chance, UINT64_MAX),
        .committed = chance_number(chance, NUMBER_MAX),
        .horizon = chance_number(chance, UINT64_MAX),
        .has_parent = chance_below(chance, 2),
    };
    body.name = chance_name(chance, VOLUME_NAME_MAX, &body.name_length);
    chance_bytes(chance, body.uuid.bytes, sizeof(body.uuid.bytes));
    chance_bytes(chance, body.owner.bytes, sizeof(body.owner.bytes));
    chance_bytes(chance, body.write.bytes, sizeof(body.write.bytes));
    if (chance_below(chance, 2) == 0)
        chance_bytes(chance, body.renewal.bytes, sizeof(body.renewal.bytes));
    chance_bytes(chance, body.boot_id, sizeof(body.boot_id));
    random_text(chance, body.host, sizeof(body.host));
    random_text(chance, body.lock_path, sizeof(body.lock_path));
    body.newest = random_root(chance, body.committed);
    body.older_count = (uint32_t)chance_number(chance, 5);
    body.older = memory_array(body.older_count + 1, sizeof(*body.older));
    for (uint32_t i = 0; i < body.older_count; i++)
        body.older[i] = random_root(chance, body.newest.seq);
    body.pin_count = (uint32_t)chance_number(chance, 5);
    body.pins = memory_array(body.pin_count + 1, sizeof(*body.pins));
    for (uint32_t i = 0; i < body.pin_count; i++)
        body.pins[i] = random_pin(chance);
    if (body.has_parent) {
        chance_bytes(chance, body.parent.bytes, sizeof(body.parent.bytes));
        body.parent_seq = chance_number(chance, UINT64_MAX);
        chance_bytes(chance, body.parent_hash, sizeof(body.parent_hash));
    }
    random_unknown(chance, &body);
    return body;
}

static inline struct commit_extent random_extent(struct chance *chance, uint64_t page, const struct entry *entry,
                                                 uint64_t inline_first)
{
    struct commit_extent extent = { .kind = EXTENT_ZERO, .page = page, .count = 1 + chance_number(chance, 100) };
    if (extent.count > VOLUME_PAGES_MAX - page)
        extent.count = VOLUME_PAGES_MAX - page;
    uint32_t object = (uint32_t)chance_below(chance, entry->object_count + 1);
    uint64_t first = object == 0 ? inline_first : 0;
    uint64_t units = (object == 0 ? entry->inline_bytes : entry->objects[object - 1].bytes) / FRAME_UNIT;
    if (units < 2 || chance_below(chance, 3) == 0)
        return extent;
    extent.kind = EXTENT_PAGES;
    extent.object = object;
    extent.count = 1 + chance_below(chance, BLOCK_PAGES - page % BLOCK_PAGES);
    extent.frame_page = (uint32_t)chance_below(chance, BLOCK_PAGES - extent.count + 1);
    extent.frame_pages =
        extent.frame_page +
        (uint32_t)(extent.count + chance_below(chance, BLOCK_PAGES - extent.frame_page - extent.count + 1));
    uint64_t most = frame_total_bytes(extent.frame_pages * PAGE_BYTES) / FRAME_UNIT;
    extent.units = (uint32_t)(2 + chance_number(chance, (most < units ? most : units) - 2));
    extent.start = (uint32_t)(first + chance_number(chance, units - extent.units));
    return extent;
}

/* Everything in it is owned: free with random_entry_free(). */
static inline struct entry random_entry(struct chance *chance)
{
    struct entry entry = {
        .kind = chance_below(chance, 4) == 0 ? ENTRY_FENCE : ENTRY_COMMIT,
        .epoch = 1 + chance_number(chance, NUMBER_MAX - 1),
        .seq = 1 + chance_number(chance, NUMBER_MAX - 1),
        .wall_ms = chance_number(chance, UINT64_MAX),
        .object_id = 1 + chance_number(chance, OBJECT_ID_READ_MAX - 1),
    };
    chance_bytes(chance, entry.uuid.bytes, sizeof(entry.uuid.bytes));
    chance_bytes(chance, entry.owner.bytes, sizeof(entry.owner.bytes));
    chance_bytes(chance, entry.previous, sizeof(entry.previous));
    if (entry.kind == ENTRY_FENCE)
        return entry;
    entry.object_count = (uint32_t)chance_number(chance, 20);
    entry.objects = memory_array(entry.object_count + 1, sizeof(*entry.objects));
    for (uint32_t i = 0; i < entry.object_count; i++)
        entry.objects[i] = (struct commit_object){
            .epoch = 1 + chance_number(chance, entry.epoch - 1),
            .n = chance_number(chance, UINT64_MAX),
            .bytes = (1 + chance_number(chance, OBJECT_UNITS_MAX - 1)) * FRAME_UNIT,
        };
    size_t record_bytes = 0;
    entry.record_count = (uint32_t)chance_number(chance, 4);
    entry.records = memory_array(entry.record_count + 1, sizeof(*entry.records));
    for (uint32_t i = 0; i < entry.record_count; i++) {
        uint32_t length = (uint32_t)chance_number(chance, 100);
        uint8_t *bytes = memory_new(length + 1);
        chance_bytes(chance, bytes, length);
        entry.records[i] =
            (struct commit_record){ .type = (uint16_t)chance_u64(chance), .length = length, .bytes = bytes };
        record_bytes += record_total_bytes(length);
    }
    uint32_t extents = (uint32_t)chance_number(chance, 100);
    size_t front = entry_front_bytes(extents, entry.object_count, record_bytes);
    entry.inline_bytes = chance_number(chance, (OBJECT_BYTES_MAX - front) / FRAME_UNIT) * FRAME_UNIT;
    entry.extents = memory_array(extents + 1, sizeof(*entry.extents));
    uint64_t page = chance_number(chance, VOLUME_PAGES_MAX - 1);
    while (entry.extent_count < extents && page < VOLUME_PAGES_MAX) {
        struct commit_extent extent = random_extent(chance, page, &entry, front / FRAME_UNIT);
        entry.extents[entry.extent_count++] = extent;
        page = extent.page + extent.count + chance_number(chance, 40);
    }
    /* Fewer extents than planned leave a shorter front: what lies inline keeps clear of it all the more. */
    size_t shorter = entry_front_bytes(entry.extent_count, entry.object_count, record_bytes);
    entry.inline_bytes += front - shorter;
    return entry;
}

static inline void random_entry_free(struct entry *entry)
{
    for (uint32_t i = 0; i < entry->record_count; i++)
        free((void *)(uintptr_t)entry->records[i].bytes);
    entry_free(entry);
}

#endif
