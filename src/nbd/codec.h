/* The wire format of NBD: pure encoders and decoders.
 *
 * Source: doc/proto.md of the NetworkBlockDevice project, whose names are kept
 * (without the NBD_ of each constant's group where ours already says it).  All
 * numbers on the wire are big-endian.  Nothing here knows of connections,
 * limits of this server, or state; everything takes bytes of untrusted origin
 * and a length. */
#ifndef CAIRN_NBD_CODEC_H
#define CAIRN_NBD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- handshake ---- */

#define NBD_GREETING_BYTES 18
#define NBD_CLIENT_FLAGS_BYTES 4
#define NBD_OPTION_BYTES 16
#define NBD_OPTION_REPLY_BYTES 20
#define NBD_EXPORT_BYTES 10
#define NBD_EXPORT_ZEROES 124
#define NBD_INFO_EXPORT_BYTES 12
#define NBD_INFO_BLOCK_SIZE_BYTES 14

enum nbd_handshake_flag {
    NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
    NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum nbd_option_type {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERROR(number) (UINT32_C(0x80000000) + (number))
enum nbd_option_reply_type {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
};
#define NBD_REP_ERR_UNSUP NBD_REP_ERROR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERROR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERROR(3)
#define NBD_REP_ERR_PLATFORM NBD_REP_ERROR(4)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERROR(6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERROR(7)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERROR(9)

enum nbd_info_type {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

enum nbd_transmission_flag {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
};

struct nbd_option {
    uint32_t type;   /* enum nbd_option_type, or anything else */
    uint32_t length; /* of its data, which follows */
};

/* The data of INFO and GO. */
struct nbd_choice {
    const char *name; /* inside the bytes that were decoded; neither checked nor terminated */
    uint32_t name_length;
    bool wants_name, wants_block_size; /* informations asked for; unknown ones are skipped */
};

void nbd_encode_greeting(uint8_t ret_bytes[NBD_GREETING_BYTES], uint16_t flags);
uint32_t nbd_decode_client_flags(const uint8_t bytes[NBD_CLIENT_FLAGS_BYTES]);
/* -EBADMSG: not an option. */
int nbd_decode_option(const uint8_t bytes[NBD_OPTION_BYTES], struct nbd_option *ret_option);
/* -EINVAL: the lengths inside do not fit each other. */
int nbd_decode_choice(const uint8_t *bytes, size_t length, struct nbd_choice *ret_choice);
void nbd_encode_option_reply(uint8_t ret_bytes[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t reply,
                             uint32_t length);
/* The answer to EXPORT_NAME, but for its zeroes. */
void nbd_encode_export(uint8_t ret_bytes[NBD_EXPORT_BYTES], uint64_t size, uint16_t flags);
void nbd_encode_info_export(uint8_t ret_bytes[NBD_INFO_EXPORT_BYTES], uint64_t size, uint16_t flags);
void nbd_encode_info_block_size(uint8_t ret_bytes[NBD_INFO_BLOCK_SIZE_BYTES], uint32_t minimum, uint32_t preferred,
                                uint32_t maximum);

/* ---- transmission ---- */

#define NBD_REQUEST_BYTES 28
#define NBD_SIMPLE_REPLY_BYTES 16
#define NBD_CHUNK_BYTES 20
#define NBD_CHUNK_OFFSET_BYTES (NBD_CHUNK_BYTES + 8)
#define NBD_CHUNK_ERROR_BYTES (NBD_CHUNK_BYTES + 6)

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};
#define NBD_COMMANDS 8

enum nbd_command_flag {
    NBD_CMD_FLAG_FUA = 1 << 0,
    NBD_CMD_FLAG_NO_HOLE = 1 << 1,
    NBD_CMD_FLAG_DF = 1 << 2,
    NBD_CMD_FLAG_REQ_ONE = 1 << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
    NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

enum nbd_error {
    NBD_SUCCESS = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

struct nbd_request {
    uint64_t cookie; /* the client's own, kept as the eight bytes that came */
    uint64_t offset;
    uint32_t length;
    uint16_t flags;   /* enum nbd_command_flag, or anything else */
    uint16_t command; /* enum nbd_command, or anything else */
};

/* -EBADMSG: not a request, so nothing behind it can be understood either. */
int nbd_decode_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request *ret_request);

/* The number that stands for -errno `code` (0 or negative) on the wire.  What the protocol has no number for is EIO:
 * such an error came from below, and is no fault of the request. */
uint32_t nbd_wire_error(int code);

void nbd_encode_simple_reply(uint8_t ret_bytes[NBD_SIMPLE_REPLY_BYTES], uint32_t error, uint64_t cookie);
/* Structured replies; each of these is the only chunk of its reply (the flag DONE is set). */
void nbd_encode_chunk_none(uint8_t ret_bytes[NBD_CHUNK_BYTES], uint64_t cookie);
/* `length` bytes of content follow; more than 0. */
void nbd_encode_chunk_offset_data(uint8_t ret_bytes[NBD_CHUNK_OFFSET_BYTES], uint64_t cookie, uint64_t offset,
                                  uint32_t length);
/* A text of `message_length` bytes follows. */
void nbd_encode_chunk_error(uint8_t ret_bytes[NBD_CHUNK_ERROR_BYTES], uint64_t cookie, uint32_t error,
                            uint16_t message_length);

#endif
