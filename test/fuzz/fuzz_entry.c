/* Log entries, commits and fences: vol/format/log.c. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

/* What the engine builds on without asking again. */
static void check_promises(const struct entry *entry)
{
    uint64_t next_page = 0;
    PROMISE(entry->kind == ENTRY_COMMIT || entry->kind == ENTRY_FENCE);
    PROMISE(entry->epoch > 0 && entry->seq > 0);
    PROMISE(entry->object_id > 0 && entry->object_id + entry->object_count <= OBJECT_ID_MAX);
    PROMISE((entry->features_incompatible & ~FEATURES_INCOMPATIBLE_KNOWN) == 0);
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        PROMISE(extent->page >= next_page && extent->count > 0);
        next_page = extent->page + extent->count;
        PROMISE(next_page > extent->page && next_page <= VOLUME_PAGES_MAX);
        if (extent->kind == EXTENT_ZERO)
            continue;
        PROMISE(extent->count <= BLOCK_PAGES && extent->object <= entry->object_count);
        PROMISE(extent->frame_page + extent->count <= extent->frame_pages && extent->frame_pages <= BLOCK_PAGES);
        PROMISE((uint64_t)extent->start + extent->units <= OBJECT_UNITS_MAX);
    }
    for (uint32_t i = 0; i < entry->record_count; i++)
        PROMISE(!entry->records[i].must_understand);
}

/* Encoded again it is the same entry; the same bytes unless a later release left something in reserved places. */
static void check_encoding(const struct entry *entry)
{
    struct buffer once = BUFFER_EMPTY, twice = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES], decoded_hash[SHA256_BYTES];
    struct entry decoded;
    entry_encode(entry, &once, hash);
    PROMISE(entry_decode(once.data, once.length, &decoded, decoded_hash, NULL) == 0);
    PROMISE(memcmp(hash, decoded_hash, sizeof(hash)) == 0);
    entry_encode(&decoded, &twice, hash);
    PROMISE(once.length == twice.length && memcmp(once.data, twice.data, once.length) == 0);
    entry_free(&decoded);
    buffer_free(&once);
    buffer_free(&twice);
}

static void try_entry(const uint8_t *bytes, size_t length)
{
    struct entry entry;
    struct entry_lengths lengths;
    uint8_t hash[SHA256_BYTES];
    struct error error = ERROR_NONE;
    if (entry_decode(bytes, length, &entry, hash, &error) < 0) {
        PROMISE(error.code != 0 && error.story[0] != '\0');
        return;
    }
    PROMISE(entry_read_lengths(bytes, length, &lengths, NULL) == 0 && lengths.front <= length);
    check_promises(&entry);
    if (lengths.header == COMMIT_HEADER_BYTES) /* behind a longer one frames begin later than behind ours */
        check_encoding(&entry);
    entry_free(&entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct entry_lengths lengths;
    try_entry(data, size);
    if (entry_read_lengths(data, size, &lengths, NULL) < 0 || lengths.front > size)
        return 0;
    uint8_t *sealed = memory_copy(data, size);
    entry_seal(sealed, &lengths);
    try_entry(sealed, size);
    free(sealed);
    return 0;
}
