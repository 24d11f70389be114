/* The wire format of NBD: see codec.h.
 *
 * Requests and replies are the hot path, so numbers are moved by one load or
 * store and a byte swap each; nothing here branches on more than a magic. */
#include "nbd/codec.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/buffer.h"

#define GREETING_MAGIC UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define OPTION_MAGIC UINT64_C(0x49484156454f5054)   /* "IHAVEOPT" */
#define OPTION_REPLY_MAGIC UINT64_C(0x3e889045565a9)
#define REQUEST_MAGIC UINT32_C(0x25609513)
#define SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define CHUNK_MAGIC UINT32_C(0x668e33ef)

#define CHUNK_FLAG_DONE 1
#define CHUNK_NONE 0
#define CHUNK_OFFSET_DATA 1
#define CHUNK_ERROR 0x8001

static uint16_t get_u16(const uint8_t *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return be16toh(value);
}

static uint32_t get_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return be32toh(value);
}

static uint64_t get_u64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}

static void put_u16(uint8_t *bytes, uint16_t value)
{
    value = htobe16(value);
    memcpy(bytes, &value, sizeof value);
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
    value = htobe32(value);
    memcpy(bytes, &value, sizeof value);
}

static void put_u64(uint8_t *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof value);
}

/* ---- handshake ---- */

void nbd_encode_greeting(uint8_t ret_bytes[NBD_GREETING_BYTES], uint16_t flags)
{
    put_u64(ret_bytes, GREETING_MAGIC);
    put_u64(ret_bytes + 8, OPTION_MAGIC);
    put_u16(ret_bytes + 16, flags);
}

uint32_t nbd_decode_client_flags(const uint8_t bytes[NBD_CLIENT_FLAGS_BYTES])
{
    return get_u32(bytes);
}

int nbd_decode_option(const uint8_t bytes[NBD_OPTION_BYTES], struct nbd_option *ret_option)
{
    if (get_u64(bytes) != OPTION_MAGIC)
        return -EBADMSG;
    *ret_option = (struct nbd_option){ .type = get_u32(bytes + 8), .length = get_u32(bytes + 12) };
    return 0;
}

int nbd_decode_choice(const uint8_t *bytes, size_t length, struct nbd_choice *ret_choice)
{
    struct reader reader = reader_over(bytes, length);
    struct nbd_choice choice = { .name_length = reader_u32be(&reader) };
    choice.name = (const char *)reader_bytes(&reader, choice.name_length);
    uint16_t count = reader_u16be(&reader);
    if (reader.failed || reader_left(&reader) != (size_t)count * 2)
        return -EINVAL;
    for (uint16_t i = 0; i < count; i++) {
        uint16_t info = reader_u16be(&reader);
        choice.wants_name |= info == NBD_INFO_NAME;
        choice.wants_block_size |= info == NBD_INFO_BLOCK_SIZE;
    }
    *ret_choice = choice;
    return 0;
}

void nbd_encode_option_reply(uint8_t ret_bytes[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t reply,
                             uint32_t length)
{
    put_u64(ret_bytes, OPTION_REPLY_MAGIC);
    put_u32(ret_bytes + 8, option);
    put_u32(ret_bytes + 12, reply);
    put_u32(ret_bytes + 16, length);
}

void nbd_encode_export(uint8_t ret_bytes[NBD_EXPORT_BYTES], uint64_t size, uint16_t flags)
{
    put_u64(ret_bytes, size);
    put_u16(ret_bytes + 8, flags);
}

void nbd_encode_info_export(uint8_t ret_bytes[NBD_INFO_EXPORT_BYTES], uint64_t size, uint16_t flags)
{
    put_u16(ret_bytes, NBD_INFO_EXPORT);
    nbd_encode_export(ret_bytes + 2, size, flags);
}

void nbd_encode_info_block_size(uint8_t ret_bytes[NBD_INFO_BLOCK_SIZE_BYTES], uint32_t minimum, uint32_t preferred,
                                uint32_t maximum)
{
    put_u16(ret_bytes, NBD_INFO_BLOCK_SIZE);
    put_u32(ret_bytes + 2, minimum);
    put_u32(ret_bytes + 6, preferred);
    put_u32(ret_bytes + 10, maximum);
}

/* ---- transmission ---- */

int nbd_decode_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request *ret_request)
{
    if (get_u32(bytes) != REQUEST_MAGIC)
        return -EBADMSG;
    ret_request->flags = get_u16(bytes + 4);
    ret_request->command = get_u16(bytes + 6);
    ret_request->cookie = get_u64(bytes + 8);
    ret_request->offset = get_u64(bytes + 16);
    ret_request->length = get_u32(bytes + 24);
    return 0;
}

uint32_t nbd_wire_error(int code)
{
    assert(code <= 0);
    switch (-code) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ESHUTDOWN:
    case ECANCELED:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

void nbd_encode_simple_reply(uint8_t ret_bytes[NBD_SIMPLE_REPLY_BYTES], uint32_t error, uint64_t cookie)
{
    put_u32(ret_bytes, SIMPLE_REPLY_MAGIC);
    put_u32(ret_bytes + 4, error);
    put_u64(ret_bytes + 8, cookie);
}

static void put_chunk(uint8_t *bytes, uint16_t type, uint64_t cookie, uint32_t length)
{
    put_u32(bytes, CHUNK_MAGIC);
    put_u16(bytes + 4, CHUNK_FLAG_DONE);
    put_u16(bytes + 6, type);
    put_u64(bytes + 8, cookie);
    put_u32(bytes + 16, length);
}

void nbd_encode_chunk_none(uint8_t ret_bytes[NBD_CHUNK_BYTES], uint64_t cookie)
{
    put_chunk(ret_bytes, CHUNK_NONE, cookie, 0);
}

void nbd_encode_chunk_offset_data(uint8_t ret_bytes[NBD_CHUNK_OFFSET_BYTES], uint64_t cookie, uint64_t offset,
                                  uint32_t length)
{
    assert(length > 0 && length <= UINT32_MAX - 8);
    put_chunk(ret_bytes, CHUNK_OFFSET_DATA, cookie, length + 8);
    put_u64(ret_bytes + NBD_CHUNK_BYTES, offset);
}

void nbd_encode_chunk_error(uint8_t ret_bytes[NBD_CHUNK_ERROR_BYTES], uint64_t cookie, uint32_t error,
                            uint16_t message_length)
{
    assert(error != NBD_SUCCESS);
    put_chunk(ret_bytes, CHUNK_ERROR, cookie, UINT32_C(6) + message_length);
    put_u32(ret_bytes + NBD_CHUNK_BYTES, error);
    put_u16(ret_bytes + NBD_CHUNK_BYTES + 4, message_length);
}
