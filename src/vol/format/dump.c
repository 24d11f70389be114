/* Objects for people: every field of any object, and everything wrong with it.
 *
 * A dump is asked for when something is broken, so it goes on where a decoder
 * stops: behind a checksum that does not match the fields are printed still,
 * behind a damaged frame the next one is looked for, and each problem gets a
 * line of its own.  The first problem is the answer of format_dump().
 *
 * What an object is, its key says and its magic says; where they differ that is
 * a problem, and the magic is believed.  A key that is not one of ours says
 * nothing: then nothing is asked of the object's place either. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/text.h"
#include "vol/format/codec.h"

#define HEX_SHOWN_MAX 64 /* bytes of a value that has no better form */

enum dump_kind { DUMP_UNKNOWN, DUMP_MARKER, DUMP_REGISTER, DUMP_ENTRY, DUMP_DATA };

struct dump {
    const char *key;
    const uint8_t *bytes;
    size_t length;
    struct buffer *text;
    enum dump_kind by_key;
    struct uuid uuid; /* from the key, as the next three */
    uint64_t epoch, n, seq;
    struct error first; /* problem */
    uint32_t problems;
};

/* A frame that the walk found, for comparing extents with it. */
struct dump_frame {
    uint64_t offset;
    struct frame_header header;
};
struct dump_frames {
    struct dump_frame *all; /* ascending by offset */
    size_t count, capacity;
};

static void problem(struct dump *dump, const struct error *error)
{
    if (dump->problems++ == 0)
        dump->first = *error;
    buffer_printf(dump->text, "problem: %s\n", error->story);
}

/* ---- small values ---- */

static void put_hex(struct buffer *text, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length && i < HEX_SHOWN_MAX; i++)
        buffer_printf(text, "%02x", bytes[i]);
    buffer_printf(text, length > HEX_SHOWN_MAX ? "...\n" : "\n");
}

static void put_quoted(struct buffer *text, const char *field, const char *bytes, size_t length)
{
    size_t capacity = 4 * length + 16; /* each byte as \xNN at worst, and what text_quote() wants at least */
    char *quoted = memory_new(capacity);
    text_quote(bytes, length, quoted, capacity);
    buffer_printf(text, "%s: '%s'\n", field, quoted);
    free(quoted);
}

static void put_uuid(struct buffer *text, const char *field, const struct uuid *uuid)
{
    char string[UUID_TEXT];
    uuid_format(uuid, string);
    buffer_printf(text, "%s: %s\n", field, string);
}

static void put_id(struct buffer *text, const char *field, const uint8_t *bytes, size_t length)
{
    buffer_printf(text, "%s: ", field);
    put_hex(text, bytes, length);
}

static void put_number(struct buffer *text, const char *field, uint64_t number)
{
    buffer_printf(text, "%s: %" PRIu64 "\n", field, number);
}

static void put_bits(struct buffer *text, const char *field, uint64_t bits)
{
    buffer_printf(text, "%s: %016" PRIx64 "\n", field, bits);
}

static void put_time(struct buffer *text, const char *field, uint64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    char date[32];
    /* Beyond the year 9999 it is damage, and no date. */
    if (seconds >= 0 && seconds < INT64_C(253402300800) && gmtime_r(&seconds, &utc) != NULL &&
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc) > 0)
        buffer_printf(text, "%s: %s.%03uZ\n", field, date, (unsigned)(wall_ms % 1000));
    else
        buffer_printf(text, "%s: %" PRIu64 " ms\n", field, wall_ms);
}

static void put_size(struct buffer *text, const char *field, uint64_t bytes)
{
    char size[TEXT_SIZE_MAX];
    text_format_size(bytes, size);
    buffer_printf(text, "%s: %" PRIu64 " (%s)\n", field, bytes, size);
}

/* "0-3,7" */
static void put_page_set(struct buffer *text, uint32_t pages)
{
    const char *comma = "";
    for (unsigned first = 0; first < BLOCK_PAGES; first++) {
        if ((pages & UINT32_C(1) << first) == 0)
            continue;
        unsigned last = first;
        while (last + 1 < BLOCK_PAGES && (pages & UINT32_C(1) << (last + 1)) != 0)
            last++;
        buffer_printf(text, "%s%u", comma, first);
        if (last > first)
            buffer_printf(text, "-%u", last);
        comma = ",";
        first = last;
    }
}

/* ---- frames ---- */

static void frames_add(struct dump_frames *frames, uint64_t offset, const struct frame_header *header)
{
    if (frames->count == frames->capacity) {
        frames->capacity = frames->capacity > 0 ? 2 * frames->capacity : 64;
        frames->all = memory_resize(frames->all, frames->capacity, sizeof(*frames->all));
    }
    frames->all[frames->count++] = (struct dump_frame){ .offset = offset, .header = *header };
}

static const struct dump_frame *frames_find(const struct dump_frames *frames, uint64_t offset)
{
    size_t low = 0, high = frames->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (frames->all[middle].offset == offset)
            return &frames->all[middle];
        if (frames->all[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void put_frame(struct dump *dump, uint64_t offset, const struct frame_header *header, bool sound)
{
    static const char *const kinds[] = { "unknown", "pages", "leaves", "mids", "root", "objects" };
    const char *kind = header->kind <= FRAME_OBJECTS ? kinds[header->kind] : kinds[0];
    buffer_printf(dump->text, "frame: at %" PRIu64 ", kind %d (%s)", offset, (int)header->kind, kind);
    if (header->kind == FRAME_PAGES) {
        buffer_printf(dump->text, ", block %" PRIu64 ", pages ", header->block);
        put_page_set(dump->text, header->pages);
    }
    if (header->codec != CODEC_NONE || header->cipher != CIPHER_NONE)
        buffer_printf(dump->text, ", codec %d, cipher %d, key %" PRIu32, (int)header->codec, (int)header->cipher,
                      header->key_id);
    buffer_printf(dump->text, ", %" PRIu32 " bytes, %" PRIu32 " stored, %s\n", header->raw_bytes, header->stored_bytes,
                  sound ? "sound" : "NOT SOUND");
}

/* What a piece of a checkpoint says, also behind a checksum that does not match. */
static void put_piece(struct dump *dump, size_t offset, const struct frame_header *header, size_t length)
{
    struct error error = ERROR_NONE;
    if (header->kind == FRAME_PAGES || header->codec != CODEC_NONE || header->cipher != CIPHER_NONE)
        return;
    if (dump_piece(header->kind, dump->bytes + offset + FRAME_HEADER_BYTES, length, dump->text, &error) == 0)
        return;
    error_context(&error, "at byte %zu", offset);
    problem(dump, &error);
}

/* Where the next frame may begin behind one that cannot be trusted. */
static size_t next_frame(const struct dump *dump, size_t offset, size_t end)
{
    for (offset += FRAME_UNIT; end - offset >= FRAME_HEADER_BYTES && offset < end; offset += FRAME_UNIT)
        if (load_u32le(dump->bytes + offset) == FRAME_MAGIC)
            return offset;
    return end;
}

/* Prints the frame at `offset`, returns where the next one begins. */
static size_t dump_frame(struct dump *dump, struct frame_place *place, size_t offset, size_t end,
                         struct dump_frames *frames)
{
    struct error error = ERROR_NONE;
    const uint8_t *bytes = dump->bytes + offset;
    struct frame_header header;
    if (end - offset < FRAME_HEADER_BYTES) {
        error_set(&error, EBADMSG, "at byte %zu: truncated: %zu bytes, no frame has less than %u", offset, end - offset,
                  FRAME_HEADER_BYTES);
        problem(dump, &error);
        return end;
    }
    if (load_u32le(bytes) != FRAME_MAGIC) {
        frame_decode_header(bytes, &header, &error);
        error_context(&error, "at byte %zu", offset);
        problem(dump, &error);
        return next_frame(dump, offset, end);
    }
    frame_read_header(bytes, &header);
    size_t total = header.stored_bytes <= FRAME_PAYLOAD_MAX ? frame_total_bytes(header.stored_bytes) : SIZE_MAX;
    if (total > end - offset) {
        put_frame(dump, offset, &header, false);
        error_set(&error, EBADMSG, "at byte %zu: frame: %" PRIu32 " bytes stored, and %zu are left", offset,
                  header.stored_bytes, end - offset - FRAME_HEADER_BYTES);
        problem(dump, &error);
        put_piece(dump, offset, &header, end - offset - FRAME_HEADER_BYTES);
        return next_frame(dump, offset, end);
    }

    struct iovec payload = piece_of(bytes + FRAME_HEADER_BYTES, header.stored_bytes);
    size_t used = FRAME_HEADER_BYTES + header.stored_bytes;
    if (place != NULL)
        place->offset = offset;
    int result = frame_verify(bytes, place, &payload, 1, &header, &error);
    if (result == 0 && !bytes_are_zero(bytes + used, total - used))
        result = error_set(&error, EBADMSG, "frame: its padding is not zeroes");
    put_frame(dump, offset, &header, result == 0);
    if (result < 0) {
        error_context(&error, "at byte %zu", offset);
        problem(dump, &error);
    }
    put_piece(dump, offset, &header, header.stored_bytes);
    if (result == -EBADMSG)
        return next_frame(dump, offset, end);
    if (result == 0)
        frames_add(frames, offset, &header);
    return offset + total;
}

static void dump_frames(struct dump *dump, struct frame_place *place, size_t begin, size_t end,
                        struct dump_frames *frames)
{
    for (size_t offset = begin; offset < end;)
        offset = dump_frame(dump, place, offset, end, frames);
}

/* ---- log entries ---- */

static void put_extent(struct dump *dump, const struct commit_extent *extent, uint32_t index)
{
    buffer_printf(dump->text, "extent %" PRIu32 ": pages %" PRIu64 " to %" PRIu64 " (%" PRIu64 ")", index, extent->page,
                  extent->page + extent->count - 1, extent->count);
    if (extent->kind == EXTENT_ZERO) {
        buffer_printf(dump->text, ": zeroes\n");
        return;
    }
    if (extent->object == 0)
        buffer_printf(dump->text, ": inline");
    else
        buffer_printf(dump->text, ": object %" PRIu32, extent->object);
    buffer_printf(dump->text, ", frame at %" PRIu64 ", %" PRIu32 " bytes, from page %" PRIu32 " of %" PRIu32 "\n",
                  (uint64_t)extent->start * FRAME_UNIT, extent->units * FRAME_UNIT, extent->frame_page,
                  extent->frame_pages);
}

static void put_tables(struct dump *dump, const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        char key[KEY_MAX];
        key_data(&entry->uuid, entry->objects[i].epoch, entry->objects[i].n, key);
        buffer_printf(dump->text, "object %" PRIu32 ": id %" PRIu64 ", %" PRIu64 " bytes, %s\n", i + 1,
                      entry->object_id + 1 + i, entry->objects[i].bytes, key);
    }
    for (uint32_t i = 0; i < entry->extent_count; i++)
        put_extent(dump, &entry->extents[i], i + 1);
    for (uint32_t i = 0; i < entry->record_count; i++) {
        const struct commit_record *record = &entry->records[i];
        buffer_printf(dump->text, "record %" PRIu32 ": type %u%s, %" PRIu32 " bytes: ", i + 1, record->type,
                      record->must_understand ? " (must be understood)" : "", record->length);
        put_hex(dump->text, record->bytes, record->length);
    }
}

static bool frame_has_extent(const struct dump_frame *frame, const struct commit_extent *extent)
{
    const struct frame_header *header = &frame->header;
    if (header->kind != FRAME_PAGES || header->block != extent->page / BLOCK_PAGES ||
        extent->units * FRAME_UNIT != frame_total_bytes(header->stored_bytes) ||
        extent->frame_pages != (uint32_t)__builtin_popcount(header->pages))
        return false;
    uint32_t position = 0; /* of a page in the frame */
    for (uint32_t page = 0; page < BLOCK_PAGES; page++) {
        if ((header->pages & UINT32_C(1) << page) == 0)
            continue;
        bool wanted = position >= extent->frame_page && position < extent->frame_page + extent->count;
        if (wanted && page != extent->page % BLOCK_PAGES + (position - extent->frame_page))
            return false;
        position++;
    }
    return true;
}

static void compare_extents(struct dump *dump, const struct entry *entry, const struct dump_frames *frames)
{
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        struct error error = ERROR_NONE;
        if (extent->kind != EXTENT_PAGES || extent->object != 0)
            continue;
        uint64_t offset = (uint64_t)extent->start * FRAME_UNIT;
        const struct dump_frame *frame = frames_find(frames, offset);
        if (frame == NULL)
            error_set(&error, EBADMSG, "extent %" PRIu32 ": no sound frame at byte %" PRIu64, i + 1, offset);
        else if (!frame_has_extent(frame, extent))
            error_set(&error, EBADMSG, "extent %" PRIu32 ": the frame at byte %" PRIu64 " holds other pages", i + 1,
                      offset);
        if (error.code != 0)
            problem(dump, &error);
    }
}

static void dump_inline(struct dump *dump, const struct entry *entry, size_t front, const struct entry *tables)
{
    struct error error = ERROR_NONE;
    if (entry->inline_bytes > OBJECT_BYTES_MAX) /* reported by the parser */
        return;
    size_t whole = front + entry->inline_bytes;
    if (dump->length < whole)
        error_set(&error, EBADMSG, "truncated: %zu bytes, header, tables and frames have %zu", dump->length, whole);
    else if (dump->length > whole)
        error_set(&error, EBADMSG, "%zu bytes behind the end, which is at byte %zu", dump->length - whole, whole);
    if (error.code != 0)
        problem(dump, &error);
    struct frame_place place = { .uuid = dump->uuid, .kind = OBJECT_LOG, .seq = dump->seq };
    struct dump_frames frames = { 0 };
    size_t end = dump->length < whole ? dump->length : whole;
    dump_frames(dump, dump->by_key == DUMP_ENTRY ? &place : NULL, front, end, &frames);
    if (tables != NULL)
        compare_extents(dump, tables, &frames);
    free(frames.all);
}

static void put_entry_header(struct dump *dump, const struct entry *entry, const struct entry_lengths *lengths)
{
    struct buffer *text = dump->text;
    const char *kind = entry->kind == ENTRY_COMMIT ? "commit" : entry->kind == ENTRY_FENCE ? "fence" : "unknown";
    buffer_printf(text, "entry: %d (%s)\n", (int)entry->kind, kind);
    put_bits(text, "incompatible features", entry->features_incompatible);
    put_uuid(text, "uuid", &entry->uuid);
    put_number(text, "seq", entry->seq);
    put_number(text, "epoch", entry->epoch);
    put_id(text, "owner", entry->owner.bytes, sizeof(entry->owner.bytes));
    put_id(text, "previous", entry->previous, sizeof(entry->previous));
    put_time(text, "time", entry->wall_ms);
    put_number(text, "object id", entry->object_id);
    buffer_printf(text, "header: %" PRIu32 " bytes\ntables: %" PRIu32 " bytes\nfront: %zu bytes\n", lengths->header,
                  lengths->tables, lengths->front);
    put_number(text, "inline", entry->inline_bytes);
    put_number(text, "objects", lengths->objects);
    put_number(text, "extents", lengths->extents);
    put_number(text, "records", lengths->records);
}

static void compare_entry_with_key(struct dump *dump, const struct entry *entry)
{
    struct error error = ERROR_NONE;
    if (dump->by_key != DUMP_ENTRY || (uuid_equal(&entry->uuid, &dump->uuid) && entry->seq == dump->seq))
        return;
    char key[KEY_MAX];
    key_log(&entry->uuid, entry->seq, key);
    error_set(&error, EMEDIUMTYPE, "log entry: belongs to another key, %s", key);
    problem(dump, &error);
}

static void dump_entry(struct dump *dump)
{
    struct error error = ERROR_NONE;
    struct entry_lengths lengths;
    if (entry_read_lengths(dump->bytes, dump->length, &lengths, &error) < 0) {
        problem(dump, &error);
        return;
    }
    struct entry header, entry;
    entry_read_header(dump->bytes, &header);
    put_entry_header(dump, &header, &lengths);
    if (dump->length < lengths.front) {
        error_set(&error, EBADMSG, "log entry: truncated: %zu bytes, header and tables have %zu", dump->length,
                  lengths.front);
        problem(dump, &error);
        return;
    }
    struct iovec sealed = piece_of(dump->bytes, (size_t)lengths.header + lengths.tables);
    uint8_t hash[SHA256_BYTES];
    hash_sha256(&sealed, 1, hash);
    put_id(dump->text, "hash", hash, sizeof(hash));
    if (entry_check(dump->bytes, &lengths, &error) < 0)
        problem(dump, &error);
    if (check_features("log entry", header.features_incompatible, &error) < 0)
        problem(dump, &error);
    compare_entry_with_key(dump, &header);
    if (entry_parse(dump->bytes, &lengths, &entry, &error) < 0) {
        problem(dump, &error);
        dump_inline(dump, &header, lengths.front, NULL);
        return;
    }
    put_tables(dump, &entry);
    if (entry_understand(&entry, &error) < 0)
        problem(dump, &error);
    dump_inline(dump, &entry, lengths.front, &entry);
    entry_free(&entry);
}

/* ---- the register ---- */

static void put_root(struct dump *dump, const char *which, const struct root *root)
{
    char hash[2 * SHA256_BYTES + 1], uuid[UUID_TEXT];
    text_hex(root->hash, sizeof(root->hash), hash);
    buffer_printf(dump->text, "%s: seq %" PRIu64 ", disk of %" PRIu64 " bytes, next object id %" PRIu64, which,
                  root->seq, root->size, root->next_object_id);
    if (root->empty) {
        buffer_printf(dump->text, ", empty");
    } else {
        uuid_format(&root->uuid, uuid);
        buffer_printf(dump->text,
                      ", in object %" PRIu64 " of %s, epoch %" PRIu64 ", n %" PRIu64 ", at %" PRIu64 ", %" PRIu64
                      " bytes",
                      root->object_id, uuid, root->epoch, root->n, (uint64_t)root->start * FRAME_UNIT,
                      (uint64_t)root->units * FRAME_UNIT);
    }
    buffer_printf(dump->text, ", hash %s", hash);
    if (root->extra.length > 0)
        buffer_printf(dump->text, ", and %" PRIu32 " bytes of a later version", root->extra.length);
    buffer_printf(dump->text, "\n");
}

static void put_pin(struct dump *dump, const struct pin *pin)
{
    put_id(dump->text, "pin", pin->id.bytes, sizeof(pin->id.bytes));
    put_number(dump->text, "  pinned seq", pin->seq);
    put_root(dump, "  base", &pin->base);
    if (pin->has_child) {
        put_uuid(dump->text, "  child", &pin->child);
        put_quoted(dump->text, "  child's name", pin->child_name, pin->child_name_length);
    }
    if (pin->extra.length > 0)
        put_number(dump->text, "  bytes of a later version", pin->extra.length);
}

/* The fields as they lie there: for what the parser refuses, and for those that it does not know. */
static void put_raw_fields(struct dump *dump, const uint8_t *bytes, size_t length)
{
    struct reader reader = reader_over(bytes, length);
    while (reader_left(&reader) >= REGISTER_FIELD_HEADER_BYTES) {
        uint16_t tag = reader_u16le(&reader), flags = reader_u16le(&reader);
        size_t value_length = reader_u32le(&reader);
        if (value_length > reader_left(&reader))
            value_length = reader_left(&reader);
        const uint8_t *value = reader_bytes(&reader, value_length);
        const char *name = register_tag_name(tag);
        buffer_printf(dump->text, "field %u (%s): flags %u, %zu bytes: ", tag, name != NULL ? name : "unknown", flags,
                      value_length);
        put_hex(dump->text, value, value_length);
        size_t padding = round_up(value_length, 8) - value_length;
        reader_bytes(&reader, padding < reader_left(&reader) ? padding : reader_left(&reader));
    }
}

static void put_register_body(struct dump *dump, const struct register_body *body)
{
    static const char *const states[] = { "", "live", "deleting", "tombstone" };
    struct buffer *text = dump->text;
    put_quoted(text, "name", body->name, body->name_length);
    put_uuid(text, "uuid", &body->uuid);
    buffer_printf(text, "state: %s\n", states[body->state]);
    put_time(text, "created", body->created_wall_ms);
    put_number(text, "epoch", body->epoch);
    put_id(text, "owner", body->owner.bytes, sizeof(body->owner.bytes));
    buffer_printf(text, "held: %s\n", body->held ? "yes" : "no");
    put_id(text, "write", body->write.bytes, sizeof(body->write.bytes));
    put_number(text, "counter", body->counter);
    buffer_printf(text, "lease: %" PRIu64 " ms\n", body->lease_ms);
    put_time(text, "owned since", body->owned_since_wall_ms);
    put_quoted(text, "host", body->host, strlen(body->host));
    put_number(text, "process", body->process);
    put_id(text, "boot id", body->boot_id, sizeof(body->boot_id));
    put_quoted(text, "lock path", body->lock_path, strlen(body->lock_path));
    put_number(text, "lock device", body->lock_device);
    put_number(text, "lock inode", body->lock_inode);
    put_id(text, "renewal", body->renewal.bytes, sizeof(body->renewal.bytes));
    put_size(text, "size", body->newest.size);
    put_root(dump, "newest root", &body->newest);
    for (uint32_t i = 0; i < body->older_count; i++)
        put_root(dump, "older root", &body->older[i]);
    put_number(text, "committed", body->committed);
    put_number(text, "horizon", body->horizon);
    for (uint32_t i = 0; i < body->pin_count; i++)
        put_pin(dump, &body->pins[i]);
    if (body->has_parent) {
        put_uuid(text, "parent", &body->parent);
        put_number(text, "parent seq", body->parent_seq);
        put_id(text, "parent hash", body->parent_hash, sizeof(body->parent_hash));
    }
    put_raw_fields(dump, body->unknown, body->unknown_length);
}

static void compare_register_with_key(struct dump *dump, const struct register_body *body)
{
    struct error error = ERROR_NONE;
    char key[KEY_MAX];
    key_register(body->name, body->name_length, key);
    if (dump->by_key != DUMP_REGISTER || strcmp(key, dump->key) == 0)
        return;
    error_set(&error, EMEDIUMTYPE, "register: belongs to another key, %s", key);
    problem(dump, &error);
}

static void dump_register(struct dump *dump)
{
    struct error error = ERROR_NONE;
    if (dump->length < REGISTER_HEADER_BYTES) {
        register_check(dump->bytes, dump->length, &error);
        problem(dump, &error);
        return;
    }
    put_bits(dump->text, "compatible features", load_u64le(dump->bytes + 16));
    put_bits(dump->text, "incompatible features", load_u64le(dump->bytes + 24));
    put_bits(dump->text, "owner's features", load_u64le(dump->bytes + 32));
    if (register_check(dump->bytes, dump->length, &error) < 0)
        problem(dump, &error);
    if (check_features("register", load_u64le(dump->bytes + 24), &error) < 0)
        problem(dump, &error);
    struct register_body body;
    if (register_parse(dump->bytes, dump->length, &body, &error) < 0) {
        if (dump->problems == 0 || dump->first.code == EBADMSG)
            problem(dump, &error);
        put_raw_fields(dump, dump->bytes + REGISTER_HEADER_BYTES, dump->length - REGISTER_HEADER_BYTES);
        return;
    }
    put_register_body(dump, &body);
    compare_register_with_key(dump, &body);
    register_free(&body);
}

/* ---- the others, and who is who ---- */

static void dump_marker(struct dump *dump)
{
    struct error error = ERROR_NONE;
    struct uuid store;
    if (marker_decode(dump->bytes, dump->length, &store, &error) == 0) {
        put_uuid(dump->text, "store", &store);
        return;
    }
    problem(dump, &error);
    put_quoted(dump->text, "text", (const char *)dump->bytes,
               dump->length < HEX_SHOWN_MAX * 4 ? dump->length : HEX_SHOWN_MAX * 4);
}

static void dump_data(struct dump *dump)
{
    struct error error = ERROR_NONE;
    struct frame_place place = { .uuid = dump->uuid, .kind = OBJECT_DATA, .epoch = dump->epoch, .n = dump->n };
    struct dump_frames frames = { 0 };
    if (dump->length == 0 || dump->length % FRAME_UNIT != 0 || dump->length > OBJECT_BYTES_MAX) {
        error_set(&error, EBADMSG, "data object: damaged: %zu bytes are no multiple of %u from %u to %u", dump->length,
                  FRAME_UNIT, FRAME_UNIT, OBJECT_BYTES_MAX);
        problem(dump, &error);
    }
    dump_frames(dump, dump->by_key == DUMP_DATA ? &place : NULL, 0, dump->length, &frames);
    free(frames.all);
}

static void classify_key(struct dump *dump)
{
    if (strcmp(dump->key, KEY_MARKER) == 0)
        dump->by_key = DUMP_MARKER;
    else if (strncmp(dump->key, KEY_REGISTERS, strlen(KEY_REGISTERS)) == 0)
        dump->by_key = DUMP_REGISTER;
    else if (key_parse_log(dump->key, &dump->uuid, &dump->seq))
        dump->by_key = DUMP_ENTRY;
    else if (key_parse_data(dump->key, &dump->uuid, &dump->epoch, &dump->n))
        dump->by_key = DUMP_DATA;
}

static enum dump_kind classify_bytes(const uint8_t *bytes, size_t length)
{
    if (check_magic("", bytes, length, ENTRY_MAGIC, NULL) == 0)
        return DUMP_ENTRY;
    if (check_magic("", bytes, length, REGISTER_MAGIC, NULL) == 0)
        return DUMP_REGISTER;
    if (check_magic("", bytes, length, MARKER_MAGIC, NULL) == 0)
        return DUMP_MARKER;
    return length >= 4 && load_u32le(bytes) == FRAME_MAGIC ? DUMP_DATA : DUMP_UNKNOWN;
}

int format_dump(const char *key, const void *bytes, size_t length, struct buffer *ret_text, struct error *error)
{
    static const char *const kinds[] = { "unknown", "marker", "register", "log entry", "data object" };
    struct dump dump = { .key = key, .bytes = bytes, .length = length, .text = ret_text, .first = ERROR_NONE };
    classify_key(&dump);
    enum dump_kind by_bytes = classify_bytes(bytes, length);
    enum dump_kind kind = by_bytes != DUMP_UNKNOWN ? by_bytes : dump.by_key;
    put_quoted(ret_text, "key", key, strlen(key));
    put_number(ret_text, "bytes", length);
    buffer_printf(ret_text, "kind: %s\n", kinds[kind]);

    struct error mismatch = ERROR_NONE;
    if (kind == DUMP_UNKNOWN)
        error_set(&mismatch, EMEDIUMTYPE, "neither the key nor the first bytes are those of an object of cairn");
    else if (dump.by_key != DUMP_UNKNOWN && by_bytes != DUMP_UNKNOWN && dump.by_key != by_bytes)
        error_set(&mismatch, EMEDIUMTYPE, "the key is that of a %s, the bytes are those of a %s", kinds[dump.by_key],
                  kinds[by_bytes]);
    if (mismatch.code != 0)
        problem(&dump, &mismatch);

    if (kind == DUMP_MARKER)
        dump_marker(&dump);
    else if (kind == DUMP_REGISTER)
        dump_register(&dump);
    else if (kind == DUMP_ENTRY)
        dump_entry(&dump);
    else if (kind == DUMP_DATA)
        dump_data(&dump);
    if (dump.problems == 0)
        buffer_printf(ret_text, "verdict: sound\n");
    else
        buffer_printf(ret_text, "verdict: NOT SOUND, %" PRIu32 " problem%s\n", dump.problems,
                      dump.problems == 1 ? "" : "s");
    return dump.problems == 0 ? 0 : error_copy(error, &dump.first);
}
