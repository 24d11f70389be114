/* The dump of any object: vol/format/dump.c.  The first byte chooses key and sealing, the rest is the object. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

#define UUID "v/a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
static const char *const keys[] = {
    "some file",
    "cairn",
    "volumes/n.db",
    UUID "/log/00000000000000000001",
    UUID "/log/00000000000000000002",
    UUID "/data/00000000000000000001/00000000000000000006",
    UUID "/data/00000000000000000001/00000000000000000001",
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

static void seal_frames(uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at + FRAME_HEADER_BYTES <= length; at += FRAME_UNIT) {
        uint32_t stored = load_u32le(bytes + at + 12);
        if (load_u32le(bytes + at) != FRAME_MAGIC || stored > length - at - FRAME_HEADER_BYTES)
            continue;
        struct iovec payload = { .iov_base = bytes + at + FRAME_HEADER_BYTES, .iov_len = stored };
        frame_seal(bytes + at, &payload, 1);
    }
}

static void seal(uint8_t *bytes, size_t length)
{
    struct entry_lengths lengths;
    seal_frames(bytes, length);
    if (entry_read_lengths(bytes, length, &lengths, NULL) == 0 && lengths.front <= length)
        entry_seal(bytes, &lengths);
    if (length >= REGISTER_HEADER_BYTES && memcmp(bytes, REGISTER_MAGIC, MAGIC_BYTES) == 0)
        register_seal(bytes, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *bytes = memory_new(size); /* one more than needed, so that there is always something to point at */
    memcpy(bytes, data + 1, size - 1);
    if ((data[0] & 0x80) != 0)
        seal(bytes, size - 1);
    struct buffer text = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    int result = format_dump(keys[data[0] % 0x80 % KEY_COUNT], bytes, size - 1, &text, &error);
    PROMISE(result == -error.code);
    PROMISE(strlen((const char *)text.data) == text.length);
    PROMISE((strstr((const char *)text.data, "\nproblem: ") == NULL) == (result == 0));
    buffer_free(&text);
    free(bytes);
    return 0;
}
