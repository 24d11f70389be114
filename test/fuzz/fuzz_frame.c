/* Frames: vol/format/frame.c.  The input is a header and its payload. */
#include <errno.h>
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

static void try_frame(const uint8_t *bytes, size_t length)
{
    struct frame_header header, verified;
    struct error error = ERROR_NONE;
    struct iovec payload = { .iov_base = (void *)(uintptr_t)(bytes + FRAME_HEADER_BYTES),
                             .iov_len = length - FRAME_HEADER_BYTES };
    struct frame_place place = { .kind = OBJECT_DATA, .epoch = 1, .n = 2, .offset = 192 };
    if (frame_decode_header(bytes, &header, &error) < 0) {
        PROMISE(error.code != 0 && error.story[0] != '\0');
        PROMISE(frame_verify(bytes, NULL, &payload, 1, &verified, &error) < 0);
        return;
    }
    PROMISE(header.raw_bytes > 0 && header.raw_bytes <= FRAME_PAYLOAD_MAX);
    PROMISE(header.stored_bytes <= FRAME_PAYLOAD_MAX);
    PROMISE(header.kind != FRAME_PAGES || header.raw_bytes <= BLOCK_BYTES);
    if (frame_verify(bytes, NULL, &payload, 1, &verified, &error) < 0)
        return;
    PROMISE(header.kind == verified.kind && header.block == verified.block && header.pages == verified.pages);
    PROMISE(header.raw_bytes == verified.raw_bytes && header.stored_bytes == verified.stored_bytes);
    uint8_t again[FRAME_HEADER_BYTES];
    frame_encode(&header, &place, &payload, 1, again);
    PROMISE(memcmp(again, bytes, 32) == 0);
    PROMISE(frame_verify(again, &place, &payload, 1, &verified, &error) == 0);
    place.offset += FRAME_UNIT;
    PROMISE(frame_verify(again, &place, &payload, 1, &verified, &error) == -EMEDIUMTYPE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < FRAME_HEADER_BYTES)
        return 0;
    try_frame(data, size);
    uint8_t *sealed = memory_copy(data, size);
    store_u32le(sealed + 12, (uint32_t)(size - FRAME_HEADER_BYTES));
    struct iovec payload = { .iov_base = sealed + FRAME_HEADER_BYTES, .iov_len = size - FRAME_HEADER_BYTES };
    frame_seal(sealed, &payload, 1);
    try_frame(sealed, size);
    free(sealed);
    return 0;
}
