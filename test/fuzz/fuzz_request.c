/* The transmission phase: nbd/transmission.c, nbd/request.c, nbd/reply.c and their codec.  The input's first byte
 * chooses the kind of replies and how the engine answers, the rest is the stream of requests. */
#include <string.h>

#include "fuzz_nbd.h"
#include "nbd/codec.h"

#define STRUCTURED "IHAVEOPT\0\0\0\x8\0\0\0\0"
#define GO "IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1a\0\0"
/* The greeting, the ACK of STRUCTURED_REPLY, the INFO and the ACK of GO. */
#define HANDSHAKE_BYTES (18 + 20 + 20 + 12 + 20)

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Whole chunks, each of a known kind and the only one of its reply. */
static void check_chunks(const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        PROMISE(length >= NBD_CHUNK_BYTES && get_u32(bytes) == 0x668e33ef);
        uint32_t kind = get_u32(bytes + 4), size = get_u32(bytes + 16);
        PROMISE(kind == 0x10000 ? size == 0 : kind == 0x10001 ? size > 8 : kind == 0x18001 && size >= 6);
        PROMISE(length - NBD_CHUNK_BYTES >= size);
        bytes += NBD_CHUNK_BYTES + size;
        length -= NBD_CHUNK_BYTES + size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer said = BUFFER_EMPTY;
    if (size == 0)
        return 0;
    bool structured = (data[0] & 1) != 0;
    buffer_put(&said, "\0\0\0\3", 4);
    if (structured)
        buffer_put(&said, STRUCTURED, sizeof STRUCTURED - 1);
    buffer_put(&said, GO, sizeof GO - 1);
    buffer_put(&said, data + 1, size - 1);
    struct buffer answered = fuzz_nbd_play(&said, (data[0] & 2) != 0);
    if (structured && answered.length >= HANDSHAKE_BYTES)
        check_chunks(answered.data + HANDSHAKE_BYTES, answered.length - HANDSHAKE_BYTES);
    buffer_free(&answered);
    buffer_free(&said);
    return 0;
}
