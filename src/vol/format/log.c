/* Log entries: commits, and the fences that end an owner's time.
 *
 *     header, 256 bytes | objects, 32 each | extents, 32 each | records | padding to 64 | inline frames
 *
 * Replay needs only what stands before the frames, the front: its own checksum
 * covers header and tables, and the chain (`previous`) is SHA-256 over the same
 * bytes, so a log that was cut and continued by somebody else is noticed.  The
 * frames behind have checksums of their own.
 *
 * A decoded entry keeps every promise that the engine relies on without asking
 * again: extents ascend and do not overlap, every location lies inside its
 * object, every number fits what the map can hold.  entry_encode() asserts the
 * same, so nothing is written that will not be read.
 *
 * Reserved bytes of header and rows are written as 0 and ignored when read: a
 * later release may put there what readers can do without. What they cannot do
 * without has a feature bit, or is a record that must be understood. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/codec.h"

#define WHAT "log entry"
#define RECORD_HEADER_BYTES 8u
#define RECORD_MUST_UNDERSTAND 1u
#define EXTENT_UNITS_MIN 2u /* a header and at least one unit of payload */

static_assert(ENTRY_CHECKSUM_AT + XXH128_BYTES == COMMIT_HEADER_BYTES, "the checksum ends the header");

/* ---- what an entry must be ---- */

static int check_place(const struct commit_extent *extent, const struct entry *entry, size_t front, uint32_t index,
                       struct error *error)
{
    uint64_t first = 0, end; /* in FRAME_UNITs: where frames may lie */
    if (extent->object == 0) {
        first = front / FRAME_UNIT;
        end = first + entry->inline_bytes / FRAME_UNIT;
    } else if (extent->object <= entry->object_count) {
        end = entry->objects[extent->object - 1].bytes / FRAME_UNIT;
    } else {
        return error_set(error, EBADMSG, WHAT ": extent %" PRIu32 " lies in object %" PRIu32 " of %" PRIu32, index,
                         extent->object, entry->object_count);
    }
    uint64_t past = (uint64_t)extent->start + extent->units;
    if (extent->start < first || past > end)
        return error_set(error, EBADMSG,
                         WHAT ": extent %" PRIu32 " lies at units %" PRIu32 " to %" PRIu64
                              " where frames lie from %" PRIu64 " to %" PRIu64,
                         index, extent->start, past, first, end);
    return 0;
}

static int check_extent(const struct commit_extent *extent, const struct entry *entry, size_t front, uint32_t index,
                        struct error *error)
{
    if (extent->count == 0 || extent->page >= VOLUME_PAGES_MAX || extent->count > VOLUME_PAGES_MAX - extent->page)
        return error_set(error, EBADMSG, WHAT ": extent %" PRIu32 ": %" PRIu64 " pages from page %" PRIu64, index,
                         extent->count, extent->page);
    if (extent->kind == EXTENT_ZERO) {
        if (extent->object != 0 || extent->start != 0 || extent->units != 0 || extent->frame_page != 0 ||
            extent->frame_pages != 0)
            return error_set(error, EBADMSG, WHAT ": extent %" PRIu32 " is of zeroes and yet has a place", index);
        return 0;
    }
    if (extent->kind != EXTENT_PAGES)
        return error_set(error, EBADMSG, WHAT ": extent %" PRIu32 " is of kind %d", index, (int)extent->kind);
    if (extent->page / BLOCK_PAGES != (extent->page + extent->count - 1) / BLOCK_PAGES)
        return error_set(error, EBADMSG,
                         WHAT ": extent %" PRIu32 ": %" PRIu64 " pages from page %" PRIu64 " are not in one block",
                         index, extent->count, extent->page);
    if (extent->frame_pages > BLOCK_PAGES || extent->frame_page + extent->count > extent->frame_pages)
        return error_set(error, EBADMSG,
                         WHAT ": extent %" PRIu32 ": pages %" PRIu32 " and on, %" PRIu64
                              " of them, of a frame of %" PRIu32,
                         index, extent->frame_page, extent->count, extent->frame_pages);
    if (extent->units < EXTENT_UNITS_MIN ||
        (uint64_t)extent->units * FRAME_UNIT > frame_total_bytes(extent->frame_pages * PAGE_BYTES))
        return error_set(error, EBADMSG,
                         WHAT ": extent %" PRIu32 ": a frame of %" PRIu32 " units for %" PRIu32 " pages", index,
                         extent->units, extent->frame_pages);
    return check_place(extent, entry, front, index, error);
}

static int check_objects(const struct entry *entry, struct error *error)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        const struct commit_object *object = &entry->objects[i];
        if (object->epoch == 0 || object->epoch > entry->epoch)
            return error_set(error, EBADMSG, WHAT ": object %" PRIu32 " is of epoch %" PRIu64 ", the entry of %" PRIu64,
                             i + 1, object->epoch, entry->epoch);
        if (object->bytes == 0 || object->bytes > OBJECT_BYTES_MAX || object->bytes % FRAME_UNIT != 0)
            return error_set(error, EBADMSG, WHAT ": object %" PRIu32 " has %" PRIu64 " bytes", i + 1, object->bytes);
    }
    return 0;
}

static int check_entry(const struct entry *entry, size_t front, struct error *error)
{
    if (entry->epoch == 0 || entry->seq == 0)
        return error_set(error, EBADMSG, WHAT ": epoch %" PRIu64 " and seq %" PRIu64 ", and both begin at 1",
                         entry->epoch, entry->seq);
    if (entry->object_id == 0 || entry->object_id > OBJECT_ID_MAX ||
        entry->object_count > OBJECT_ID_MAX - entry->object_id)
        return error_set(error, EBADMSG, WHAT ": object id %" PRIu64, entry->object_id);
    if (entry->inline_bytes % FRAME_UNIT != 0 || entry->inline_bytes > OBJECT_BYTES_MAX - front)
        return error_set(error, EBADMSG, WHAT ": %" PRIu64 " bytes of inline frames", entry->inline_bytes);
    if (entry->kind == ENTRY_FENCE &&
        (entry->object_count != 0 || entry->extent_count != 0 || entry->record_count != 0 || entry->inline_bytes != 0))
        return error_set(error, EBADMSG, WHAT ": a fence with tables or frames");

    int result = check_objects(entry, error);
    uint64_t next_page = 0;
    for (uint32_t i = 0; result == 0 && i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        result = check_extent(extent, entry, front, i + 1, error);
        if (result == 0 && extent->page < next_page)
            return error_set(error, EBADMSG,
                             WHAT ": extent %" PRIu32 " begins at page %" PRIu64
                                  ", before the end of the one before it, %" PRIu64,
                             i + 1, extent->page, next_page);
        next_page = extent->page + extent->count;
    }
    return result;
}

int entry_understand(const struct entry *entry, struct error *error)
{
    for (uint32_t i = 0; i < entry->record_count; i++)
        if (entry->records[i].must_understand)
            return error_set(error, EPROTONOSUPPORT,
                             WHAT ": record %" PRIu32 " is of type %u, must be understood, and this program does not: "
                                  "use a newer cairn",
                             i + 1, entry->records[i].type);
    return 0;
}

/* ---- encoding ---- */

size_t entry_front_bytes(uint32_t extent_count, uint32_t object_count, size_t record_bytes)
{
    size_t tables = (size_t)object_count * COMMIT_OBJECT_BYTES + (size_t)extent_count * COMMIT_EXTENT_BYTES;
    return round_up(COMMIT_HEADER_BYTES + tables + record_bytes, FRAME_UNIT);
}

static void entry_checksum(const uint8_t *bytes, const struct entry_lengths *lengths,
                           uint8_t ret_checksum[XXH128_BYTES])
{
    struct iovec pieces[] = {
        piece_of(bytes, ENTRY_CHECKSUM_AT),
        piece_of(bytes + COMMIT_HEADER_BYTES, lengths->header + lengths->tables - COMMIT_HEADER_BYTES),
    };
    hash_xxh128(pieces, 2, ret_checksum);
}

void entry_seal(uint8_t *bytes, const struct entry_lengths *lengths)
{
    entry_checksum(bytes, lengths, bytes + ENTRY_CHECKSUM_AT);
}

static void entry_hash(const uint8_t *bytes, const struct entry_lengths *lengths, uint8_t ret_hash[SHA256_BYTES])
{
    struct iovec piece = piece_of(bytes, lengths->header + lengths->tables);
    hash_sha256(&piece, 1, ret_hash);
}

static void put_header(const struct entry *entry, const struct entry_lengths *lengths, struct buffer *bytes)
{
    buffer_put(bytes, ENTRY_MAGIC, MAGIC_BYTES);
    buffer_put_u32le(bytes, FORMAT_VERSION);
    buffer_put_u32le(bytes, lengths->header);
    buffer_put_u64le(bytes, entry->features_incompatible);
    buffer_put_u64le(bytes, 0); /* compatible features: none yet, and nobody's to check */
    buffer_put_u32le(bytes, entry->kind);
    buffer_put_u32le(bytes, lengths->tables);
    buffer_put_u32le(bytes, lengths->objects);
    buffer_put_u32le(bytes, lengths->extents);
    buffer_put_u32le(bytes, lengths->records);
    buffer_put_u32le(bytes, 0);
    buffer_put(bytes, entry->uuid.bytes, sizeof(entry->uuid.bytes));
    buffer_put(bytes, entry->owner.bytes, sizeof(entry->owner.bytes));
    buffer_put_u64le(bytes, entry->epoch);
    buffer_put_u64le(bytes, entry->seq);
    buffer_put(bytes, entry->previous, sizeof(entry->previous));
    buffer_put_u64le(bytes, entry->wall_ms);
    buffer_put_u64le(bytes, entry->object_id);
    buffer_put_u64le(bytes, entry->inline_bytes);
}

static void put_tables(const struct entry *entry, struct buffer *bytes)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        const struct commit_object *object = &entry->objects[i];
        buffer_put_u64le(bytes, object->epoch);
        buffer_put_u64le(bytes, object->n);
        buffer_put_u64le(bytes, object->bytes);
        buffer_put_u64le(bytes, 0);
    }
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        buffer_put_u64le(bytes, extent->page);
        buffer_put_u64le(bytes, extent->count);
        buffer_put_u32le(bytes, extent->object);
        buffer_put_u32le(bytes, extent->start);
        buffer_put_u32le(bytes, extent->units);
        buffer_put_u8(bytes, (uint8_t)extent->kind);
        buffer_put_u8(bytes, (uint8_t)extent->frame_page);
        buffer_put_u8(bytes, (uint8_t)extent->frame_pages);
        buffer_put_u8(bytes, 0);
    }
    for (uint32_t i = 0; i < entry->record_count; i++) {
        const struct commit_record *record = &entry->records[i];
        buffer_put_u16le(bytes, record->type);
        buffer_put_u16le(bytes, record->must_understand ? RECORD_MUST_UNDERSTAND : 0);
        buffer_put_u32le(bytes, record->length);
        buffer_put(bytes, record->bytes, record->length);
        buffer_put_zeroes(bytes, record_total_bytes(record->length) - RECORD_HEADER_BYTES - record->length);
    }
}

void entry_encode(const struct entry *entry, struct buffer *ret_bytes, uint8_t ret_hash[SHA256_BYTES])
{
    uint64_t record_bytes = 0;
    for (uint32_t i = 0; i < entry->record_count; i++)
        record_bytes += record_total_bytes(entry->records[i].length);
    uint64_t tables = (uint64_t)entry->object_count * COMMIT_OBJECT_BYTES +
                      (uint64_t)entry->extent_count * COMMIT_EXTENT_BYTES + record_bytes;
    assert(tables <= COMMIT_TABLES_MAX);
    assert(entry->kind == ENTRY_COMMIT || entry->kind == ENTRY_FENCE);
    struct entry_lengths lengths = {
        .header = COMMIT_HEADER_BYTES,
        .tables = (uint32_t)tables,
        .objects = entry->object_count,
        .extents = entry->extent_count,
        .records = entry->record_count,
        .front = entry_front_bytes(entry->extent_count, entry->object_count, record_bytes),
    };
    assert(check_entry(entry, lengths.front, NULL) == 0);

    size_t begin = ret_bytes->length;
    buffer_reserve(ret_bytes, lengths.front);
    put_header(entry, &lengths, ret_bytes);
    buffer_put_zeroes(ret_bytes, begin + COMMIT_HEADER_BYTES - ret_bytes->length);
    put_tables(entry, ret_bytes);
    assert(ret_bytes->length == begin + lengths.header + lengths.tables);
    buffer_put_zeroes(ret_bytes, begin + lengths.front - ret_bytes->length);
    entry_seal(ret_bytes->data + begin, &lengths);
    entry_hash(ret_bytes->data + begin, &lengths, ret_hash);
}

/* ---- decoding ---- */

int entry_read_lengths(const void *bytes, size_t length, struct entry_lengths *ret_lengths, struct error *error)
{
    int result = check_magic(WHAT, bytes, length, ENTRY_MAGIC, error);
    if (result < 0)
        return result;
    if (length < COMMIT_HEADER_BYTES)
        return error_set(error, EBADMSG, WHAT ": truncated: %zu bytes, its header alone has %u", length,
                         COMMIT_HEADER_BYTES);
    struct reader reader = reader_over(bytes, length);
    reader_bytes(&reader, MAGIC_BYTES);
    result = check_version(WHAT, reader_u32le(&reader), error);
    if (result < 0)
        return result;

    struct entry_lengths lengths = { .header = reader_u32le(&reader) };
    reader_bytes(&reader, 20); /* features, kind */
    lengths.tables = reader_u32le(&reader);
    lengths.objects = reader_u32le(&reader);
    lengths.extents = reader_u32le(&reader);
    lengths.records = reader_u32le(&reader);
    assert(!reader.failed);
    if (lengths.header < COMMIT_HEADER_BYTES || lengths.header > ENTRY_HEADER_MAX || lengths.header % FRAME_UNIT != 0)
        return error_set(error, EBADMSG, WHAT ": damaged: a header of %" PRIu32 " bytes", lengths.header);
    if (lengths.tables > COMMIT_TABLES_MAX)
        return error_set(error, EBADMSG, WHAT ": damaged: %" PRIu32 " bytes of tables, and %u are the most",
                         lengths.tables, COMMIT_TABLES_MAX);
    lengths.front = round_up((size_t)lengths.header + lengths.tables, FRAME_UNIT);
    *ret_lengths = lengths;
    return 0;
}

int entry_decode_front(const void *bytes, size_t length, size_t *ret_front_bytes, struct error *error)
{
    struct entry_lengths lengths = { 0 };
    int result = entry_read_lengths(bytes, length, &lengths, error);
    if (result == 0)
        *ret_front_bytes = lengths.front;
    return result;
}

void entry_read_header(const uint8_t *bytes, struct entry *ret_entry)
{
    struct reader reader = reader_over(bytes, COMMIT_HEADER_BYTES);
    struct entry entry = { 0 };
    reader_bytes(&reader, 16); /* magic, version, length */
    entry.features_incompatible = reader_u64le(&reader);
    reader_bytes(&reader, 8);
    entry.kind = reader_u32le(&reader);
    reader_bytes(&reader, 20); /* lengths */
    memcpy(entry.uuid.bytes, reader_bytes(&reader, sizeof(entry.uuid.bytes)), sizeof(entry.uuid.bytes));
    memcpy(entry.owner.bytes, reader_bytes(&reader, sizeof(entry.owner.bytes)), sizeof(entry.owner.bytes));
    entry.epoch = reader_u64le(&reader);
    entry.seq = reader_u64le(&reader);
    memcpy(entry.previous, reader_bytes(&reader, SHA256_BYTES), SHA256_BYTES);
    entry.wall_ms = reader_u64le(&reader);
    entry.object_id = reader_u64le(&reader);
    entry.inline_bytes = reader_u64le(&reader);
    assert(!reader.failed);
    *ret_entry = entry;
}

int entry_check(const uint8_t *bytes, const struct entry_lengths *lengths, struct error *error)
{
    uint8_t checksum[XXH128_BYTES];
    entry_checksum(bytes, lengths, checksum);
    if (memcmp(checksum, bytes + ENTRY_CHECKSUM_AT, sizeof(checksum)) != 0)
        return error_set(error, EBADMSG,
                         WHAT ": damaged: the checksum of header and tables (%" PRIu32 " bytes) does not match",
                         lengths->header + lengths->tables);
    size_t used = (size_t)lengths->header + lengths->tables;
    if (!bytes_are_zero(bytes + used, lengths->front - used))
        return error_set(error, EBADMSG, WHAT ": damaged: its padding, from byte %zu on, is not zeroes", used);
    return 0;
}

static void parse_rows(struct reader *reader, struct entry *entry)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        struct commit_object *object = &entry->objects[i];
        object->epoch = reader_u64le(reader);
        object->n = reader_u64le(reader);
        object->bytes = reader_u64le(reader);
        reader_u64le(reader);
    }
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        struct commit_extent *extent = &entry->extents[i];
        extent->page = reader_u64le(reader);
        extent->count = reader_u64le(reader);
        extent->object = reader_u32le(reader);
        extent->start = reader_u32le(reader);
        extent->units = reader_u32le(reader);
        extent->kind = reader_u8(reader);
        extent->frame_page = reader_u8(reader);
        extent->frame_pages = reader_u8(reader);
        reader_u8(reader);
    }
}

static int parse_records(struct reader *reader, struct entry *entry, struct error *error)
{
    for (uint32_t i = 0; i < entry->record_count; i++) {
        struct commit_record *record = &entry->records[i];
        record->type = reader_u16le(reader);
        record->must_understand = (reader_u16le(reader) & RECORD_MUST_UNDERSTAND) != 0;
        record->length = reader_u32le(reader);
        size_t padded = record_total_bytes(record->length) - RECORD_HEADER_BYTES;
        record->bytes = reader_bytes(reader, padded);
        if (reader->failed)
            return error_set(error, EBADMSG, WHAT ": record %" PRIu32 " goes beyond the end of the tables", i + 1);
        if (!bytes_are_zero(record->bytes + record->length, padded - record->length))
            return error_set(error, EBADMSG, WHAT ": the padding of record %" PRIu32 " is not zeroes", i + 1);
    }
    if (reader_left(reader) != 0)
        return error_set(error, EBADMSG, WHAT ": %zu bytes in the tables behind the last record", reader_left(reader));
    return 0;
}

int entry_parse(const uint8_t *bytes, const struct entry_lengths *lengths, struct entry *ret_entry, struct error *error)
{
    struct entry entry;
    entry_read_header(bytes, &entry);
    if (entry.kind != ENTRY_COMMIT && entry.kind != ENTRY_FENCE)
        return error_set(error, EPROTONOSUPPORT, WHAT ": of kind %d, which this program does not know",
                         (int)entry.kind);
    uint64_t least = (uint64_t)lengths->objects * COMMIT_OBJECT_BYTES +
                     (uint64_t)lengths->extents * COMMIT_EXTENT_BYTES +
                     (uint64_t)lengths->records * RECORD_HEADER_BYTES;
    if (least > lengths->tables)
        return error_set(error, EBADMSG,
                         WHAT ": %" PRIu32 " objects, %" PRIu32 " extents and %" PRIu32 " records in %" PRIu32
                              " bytes of tables",
                         lengths->objects, lengths->extents, lengths->records, lengths->tables);

    entry.object_count = lengths->objects;
    entry.extent_count = lengths->extents;
    entry.record_count = lengths->records;
    entry.objects = lengths->objects > 0 ? memory_array(lengths->objects, sizeof(*entry.objects)) : NULL;
    entry.extents = lengths->extents > 0 ? memory_array(lengths->extents, sizeof(*entry.extents)) : NULL;
    entry.records = lengths->records > 0 ? memory_array(lengths->records, sizeof(*entry.records)) : NULL;
    struct reader reader = reader_over(bytes + lengths->header, lengths->tables);
    parse_rows(&reader, &entry);
    int result = parse_records(&reader, &entry, error);
    if (result == 0 && (entry.epoch > NUMBER_MAX || entry.seq > NUMBER_MAX))
        result = error_set(error, EBADMSG, WHAT ": epoch %" PRIu64 " and seq %" PRIu64 ", and neither goes so far",
                           entry.epoch, entry.seq);
    if (result == 0 && entry.object_id > OBJECT_ID_READ_MAX)
        result = error_set(error, EBADMSG, WHAT ": object id %" PRIu64 ", and none goes so far", entry.object_id);
    if (result == 0)
        result = check_entry(&entry, lengths->front, error);
    if (result < 0) {
        entry_free(&entry);
        return result;
    }
    *ret_entry = entry;
    return 0;
}

int entry_decode(const void *bytes, size_t length, struct entry *ret_entry, uint8_t ret_hash[SHA256_BYTES],
                 struct error *error)
{
    struct entry_lengths lengths = { 0 };
    int result = entry_read_lengths(bytes, length, &lengths, error);
    if (result < 0)
        return result;
    if (length < lengths.front)
        return error_set(error, EBADMSG, WHAT ": truncated: %zu bytes, header and tables have %zu", length,
                         lengths.front);
    result = entry_check(bytes, &lengths, error);
    if (result < 0)
        return result;

    struct entry entry;
    entry_read_header(bytes, &entry);
    result = check_features(WHAT, entry.features_incompatible, error);
    if (result == 0)
        result = entry_parse(bytes, &lengths, &entry, error);
    if (result < 0)
        return result;
    result = entry_understand(&entry, error);
    if (result < 0) {
        entry_free(&entry);
        return result;
    }
    entry_hash(bytes, &lengths, ret_hash);
    *ret_entry = entry;
    return 0;
}

void entry_free(struct entry *entry)
{
    free(entry->objects);
    free(entry->extents);
    free(entry->records);
    *entry = (struct entry){ 0 };
}
