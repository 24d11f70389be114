/* Frames: up to 32 pages of one block, or a piece of a checkpoint, as they lie
 * in an object.
 *
 *      0  magic "CFRM"      8  raw bytes     24  pages (bitmap)   32  identity (16)
 *      4  kind             12  stored bytes  28  key id           48  checksum (16)
 *      5  codec            16  block
 *      6  cipher                                                  64  payload, padding to 64
 *      7  layout (0)
 *
 * The identity is a hash of the place where the frame belongs, the checksum one
 * of header, identity and payload.  So damage and misplacement are told apart:
 * a wrong checksum is damage; a sound checksum with another identity is a whole
 * frame that somebody put into the wrong place.  A reader that expects a frame
 * here can thus never take an older, newer or foreign one for it.
 *
 * With a cipher the checksum's field will carry the tag of the AEAD, whose
 * associated data is the same 48 bytes. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vol/format/codec.h"

#define CHECKED_BYTES 48u
#define LAYOUT_AT 7
/* Keeps the hash of a place apart from that of anything else. */
static const uint8_t place_magic[MAGIC_BYTES] = { 'C', 'A', 'I', 'R', 'N', 'P', 'L', 'C' };

static void frame_identity(const struct frame_place *place, uint8_t ret_identity[XXH128_BYTES])
{
    assert(place->kind == OBJECT_LOG || place->kind == OBJECT_DATA);
    bool data = place->kind == OBJECT_DATA;
    uint8_t bytes[64];
    memcpy(bytes, place_magic, sizeof(place_magic));
    memcpy(bytes + 8, place->uuid.bytes, sizeof(place->uuid.bytes));
    store_u64le(bytes + 24, place->kind);
    store_u64le(bytes + 32, data ? place->epoch : 0);
    store_u64le(bytes + 40, data ? place->n : 0);
    store_u64le(bytes + 48, data ? 0 : place->seq);
    store_u64le(bytes + 56, place->offset);
    struct iovec piece = { .iov_base = bytes, .iov_len = sizeof(bytes) };
    hash_xxh128(&piece, 1, ret_identity);
}

static void frame_checksum(const uint8_t *header, const struct iovec *payload, int count,
                           uint8_t ret_checksum[XXH128_BYTES])
{
    assert(count >= 0 && count <= FRAME_PIECES_MAX);
    struct iovec pieces[1 + FRAME_PIECES_MAX];
    pieces[0] = piece_of(header, CHECKED_BYTES);
    if (count > 0)
        memcpy(pieces + 1, payload, (size_t)count * sizeof(*payload));
    hash_xxh128(pieces, count + 1, ret_checksum);
}

static size_t payload_bytes(const struct iovec *payload, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += payload[i].iov_len;
    return bytes;
}

/* What this program can read at all: asked before the checksum, since another cipher has none. */
static int frame_check_readable(const uint8_t *bytes, const struct frame_header *header, struct error *error)
{
    if (bytes[LAYOUT_AT] != 0)
        return error_set(error, EPROTONOSUPPORT, "frame: layout %u, and this program knows 0: use a newer cairn",
                         bytes[LAYOUT_AT]);
    if (header->cipher != CIPHER_NONE)
        return error_set(error, EPROTONOSUPPORT, "frame: encrypted by cipher %d, which this program does not know",
                         (int)header->cipher);
    return 0;
}

/* Of a checkpoint: its place fits 12 bits of length, but for the root's, which the register has room for. */
static int frame_check_piece(const struct frame_header *header, struct error *error)
{
    if (header->kind != FRAME_ROOT && header->raw_bytes > PIECE_PAYLOAD_MAX)
        return error_set(error, EBADMSG, "frame: a piece of a checkpoint of %" PRIu32 " bytes, and %u are the most",
                         header->raw_bytes, PIECE_PAYLOAD_MAX);
    if (header->block != 0 || header->pages != 0)
        return error_set(error, EBADMSG, "frame: a piece of a checkpoint with pages %08" PRIx32 " of block %" PRIu64,
                         header->pages, header->block);
    return 0;
}

static int frame_check_shape(const struct frame_header *header, struct error *error)
{
    if (header->kind < FRAME_PAGES || header->kind > FRAME_OBJECTS)
        return error_set(error, EPROTONOSUPPORT, "frame: kind %d, which this program does not know", (int)header->kind);
    if (header->codec != CODEC_NONE)
        return error_set(error, EPROTONOSUPPORT, "frame: compressed by codec %d, which this program does not know",
                         (int)header->codec);
    if (header->key_id != 0)
        return error_set(error, EBADMSG, "frame: key id %" PRIu32 " on a frame that is not encrypted", header->key_id);
    if (header->raw_bytes == 0 || header->raw_bytes > FRAME_PAYLOAD_MAX)
        return error_set(error, EBADMSG, "frame: a payload of %" PRIu32 " bytes", header->raw_bytes);
    if (header->stored_bytes != header->raw_bytes)
        return error_set(error, EBADMSG, "frame: %" PRIu32 " bytes stored for %" PRIu32 ", and not compressed",
                         header->stored_bytes, header->raw_bytes);
    if (header->kind != FRAME_PAGES)
        return frame_check_piece(header, error);
    if (header->block >= VOLUME_BYTES_MAX / BLOCK_BYTES)
        return error_set(error, EBADMSG, "frame: block %" PRIu64 " is beyond the largest disk", header->block);
    if (header->raw_bytes != PAGE_BYTES * (uint32_t)__builtin_popcount(header->pages))
        return error_set(error, EBADMSG, "frame: %" PRIu32 " bytes for %d pages", header->raw_bytes,
                         __builtin_popcount(header->pages));
    return 0;
}

void frame_read_header(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *ret_header)
{
    *ret_header = (struct frame_header){
        .kind = bytes[4],
        .codec = bytes[5],
        .cipher = bytes[6],
        .raw_bytes = load_u32le(bytes + 8),
        .stored_bytes = load_u32le(bytes + 12),
        .block = load_u64le(bytes + 16),
        .pages = load_u32le(bytes + 24),
        .key_id = load_u32le(bytes + 28),
    };
}

void frame_seal(uint8_t bytes[FRAME_HEADER_BYTES], const struct iovec *payload, int count)
{
    frame_checksum(bytes, payload, count, bytes + CHECKED_BYTES);
}

void frame_encode(const struct frame_header *header, const struct frame_place *place, const struct iovec *payload,
                  int count, uint8_t ret_header[FRAME_HEADER_BYTES])
{
    assert(header->cipher == CIPHER_NONE);
    assert(frame_check_shape(header, NULL) == 0);
    assert(payload_bytes(payload, count) == header->stored_bytes);
    assert(place->offset % FRAME_UNIT == 0);
    store_u32le(ret_header, FRAME_MAGIC);
    ret_header[4] = (uint8_t)header->kind;
    ret_header[5] = (uint8_t)header->codec;
    ret_header[6] = (uint8_t)header->cipher;
    ret_header[LAYOUT_AT] = 0;
    store_u32le(ret_header + 8, header->raw_bytes);
    store_u32le(ret_header + 12, header->stored_bytes);
    store_u64le(ret_header + 16, header->block);
    store_u32le(ret_header + 24, header->pages);
    store_u32le(ret_header + 28, header->key_id);
    frame_identity(place, ret_header + 32);
    frame_seal(ret_header, payload, count);
}

static int frame_check_magic(const uint8_t *bytes, struct error *error)
{
    if (load_u32le(bytes) != FRAME_MAGIC)
        return error_set(error, EMEDIUMTYPE, "frame: none here: the bytes %02x%02x%02x%02x instead of its magic",
                         bytes[0], bytes[1], bytes[2], bytes[3]);
    return 0;
}

int frame_decode_header(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *ret_header, struct error *error)
{
    struct frame_header header;
    int result = frame_check_magic(bytes, error);
    if (result < 0)
        return result;
    frame_read_header(bytes, &header);
    result = frame_check_readable(bytes, &header, error);
    if (result == 0)
        result = frame_check_shape(&header, error);
    if (result == 0)
        *ret_header = header;
    return result;
}

int frame_verify(const uint8_t bytes[FRAME_HEADER_BYTES], const struct frame_place *place, const struct iovec *payload,
                 int count, struct frame_header *ret_header, struct error *error)
{
    struct frame_header header;
    int result = frame_check_magic(bytes, error);
    if (result < 0)
        return result;
    frame_read_header(bytes, &header);
    result = frame_check_readable(bytes, &header, error);
    if (result < 0)
        return result;

    size_t length = payload_bytes(payload, count);
    if (header.stored_bytes != length)
        return error_set(error, EBADMSG, "frame: damaged: %" PRIu32 " bytes of payload by its header, and %zu expected",
                         header.stored_bytes, length);
    uint8_t checksum[XXH128_BYTES], identity[XXH128_BYTES];
    frame_checksum(bytes, payload, count, checksum);
    if (memcmp(checksum, bytes + CHECKED_BYTES, sizeof(checksum)) != 0)
        return error_set(error, EBADMSG, "frame: damaged: its checksum does not match its bytes");
    if (place != NULL) {
        frame_identity(place, identity);
        if (memcmp(identity, bytes + 32, sizeof(identity)) != 0)
            return error_set(error, EMEDIUMTYPE, "frame: whole, but of another volume, object or place");
    }
    result = frame_check_shape(&header, error);
    if (result == 0)
        *ret_header = header;
    return result;
}
