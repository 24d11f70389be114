/* See wire.h.  Everything that the specification forbids a server is -EPROTO: a reply to nobody, a simple reply after
 * structured replies were agreed upon, a chunk outside of what was asked for, an unexpected type or length. */
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPTION_EXPORT_NAME 1u
#define OPTION_GO 7u
#define OPTION_STRUCTURED_REPLY 8u
#define REPLY_ACK 1u
#define REPLY_INFO 3u
#define REPLY_IS_ERROR UINT32_C(0x80000000)
#define INFO_EXPORT 0u
#define OPTION_MAGIC UINT64_C(0x3e889045565a9)
#define REQUEST_MAGIC UINT32_C(0x25609513)
#define SIMPLE_MAGIC UINT32_C(0x67446698)
#define STRUCTURED_MAGIC UINT32_C(0x668e33ef)
#define CHUNK_DONE 1u
#define CHUNK_NONE 0u
#define CHUNK_OFFSET_DATA 1u
#define CHUNK_OFFSET_HOLE 2u
#define CHUNK_ERROR 32769u
#define CHUNK_ERROR_OFFSET 32770u
/* Data of an option reply, or text of an error: nothing sensible is longer. */
#define TEXT_MAX 5000u

static void put_be(uint8_t *bytes, uint64_t value, int count)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> (8 * (count - 1 - i)));
}

static uint64_t get_be(const uint8_t *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

CO static int send_bytes(struct wire *wire, const void *bytes, size_t length)
{
    struct iovec piece = { .iov_base = (void *)bytes, .iov_len = length };
    return channel_write(wire->channel, &piece, 1);
}

CO static int send_option(struct wire *wire, uint32_t option, const void *data, size_t length)
{
    uint8_t header[16];
    memcpy(header, "IHAVEOPT", 8);
    put_be(header + 8, option, 4);
    put_be(header + 12, length, 4);
    struct iovec pieces[2] = { { .iov_base = header, .iov_len = sizeof header },
                               { .iov_base = (void *)data, .iov_len = length } };
    return channel_write(wire->channel, pieces, length > 0 ? 2 : 1);
}

/* One reply to `option`, its data cut to `capacity` and terminated. */
CO static int receive_option_reply(struct wire *wire, uint32_t option, uint32_t *ret_type, uint8_t *ret_data,
                                   uint32_t capacity, uint32_t *ret_length)
{
    uint8_t header[20];
    int code = channel_read_full(wire->channel, header, sizeof header);
    if (code < 0)
        return code;
    uint32_t length = (uint32_t)get_be(header + 16, 4);
    if (get_be(header, 8) != OPTION_MAGIC || get_be(header + 8, 4) != option || length >= capacity)
        return -EPROTO;
    if (length > 0)
        code = channel_read_full(wire->channel, ret_data, length);
    if (code < 0)
        return code;
    ret_data[length] = '\0';
    *ret_type = (uint32_t)get_be(header + 12, 4);
    *ret_length = length;
    return 0;
}

CO static int negotiate_structured(struct wire *wire)
{
    uint8_t data[TEXT_MAX];
    uint32_t type, length;
    int code = send_option(wire, OPTION_STRUCTURED_REPLY, NULL, 0);
    if (code == 0)
        code = receive_option_reply(wire, OPTION_STRUCTURED_REPLY, &type, data, sizeof data, &length);
    if (code < 0)
        return code;
    if (type != REPLY_ACK || length != 0)
        return -EPROTO; /* this server has structured replies */
    wire->structured = true;
    return 0;
}

CO static int choose_by_go(struct wire *wire, const char *name, char *ret_refusal)
{
    uint8_t data[TEXT_MAX];
    uint32_t name_length = (uint32_t)strlen(name), type, length;
    put_be(data, name_length, 4);
    memcpy(data + 4, name, name_length);
    put_be(data + 4 + name_length, 0, 2);
    int code = send_option(wire, OPTION_GO, data, 4 + name_length + 2);
    bool told = false;
    while (code == 0) {
        code = receive_option_reply(wire, OPTION_GO, &type, data, sizeof data, &length);
        if (code < 0)
            return code;
        if (type == REPLY_ACK)
            return told ? 0 : -EPROTO;
        if (type & REPLY_IS_ERROR) {
            snprintf(ret_refusal, WIRE_REFUSAL_MAX, "error %u: %.150s", type & ~REPLY_IS_ERROR, (const char *)data);
            return -EBUSY;
        }
        if (type != REPLY_INFO || length < 2)
            return -EPROTO;
        if (get_be(data, 2) != INFO_EXPORT)
            continue;
        if (length != 12 || told)
            return -EPROTO;
        told = true;
        wire->size = get_be(data + 2, 8);
        wire->flags = (uint16_t)get_be(data + 10, 2);
    }
    return code;
}

CO static int choose_by_export_name(struct wire *wire, const char *name)
{
    uint8_t data[10];
    int code = send_option(wire, OPTION_EXPORT_NAME, name, strlen(name));
    if (code == 0)
        code = channel_read_full(wire->channel, data, sizeof data);
    if (code < 0)
        return code;
    wire->size = get_be(data, 8);
    wire->flags = (uint16_t)get_be(data + 8, 2);
    return 0;
}

CO int wire_handshake(struct wire *wire, struct channel *channel, const char *name, bool want_structured,
                      bool by_export_name, char ret_refusal[WIRE_REFUSAL_MAX])
{
    uint8_t greeting[18], flags[4] = { 0, 0, 0, 3 }; /* fixed newstyle, no zeroes */
    *wire = (struct wire){ .channel = channel };
    ret_refusal[0] = '\0';
    int code = channel_read_full(channel, greeting, sizeof greeting);
    if (code < 0)
        return code;
    if (memcmp(greeting, "NBDMAGICIHAVEOPT", 16) != 0 || (greeting[17] & 3) != 3)
        return -EPROTO;
    code = send_bytes(wire, flags, sizeof flags);
    if (code == 0 && want_structured)
        code = negotiate_structured(wire);
    if (code < 0)
        return code;
    return by_export_name ? choose_by_export_name(wire, name) : choose_by_go(wire, name, ret_refusal);
}

void wire_encode(uint16_t flags, enum wire_command command, uint64_t handle, uint64_t offset, uint32_t length,
                 uint8_t ret_bytes[WIRE_REQUEST_BYTES])
{
    put_be(ret_bytes, REQUEST_MAGIC, 4);
    put_be(ret_bytes + 4, flags, 2);
    put_be(ret_bytes + 6, (uint64_t)command, 2);
    put_be(ret_bytes + 8, handle, 8);
    put_be(ret_bytes + 16, offset, 8);
    put_be(ret_bytes + 24, length, 4);
}

CO static int receive_simple(struct wire *wire, const uint8_t *header, const struct wire_target *target,
                             struct wire_reply *ret_reply)
{
    *ret_reply = (struct wire_reply){
        .handle = get_be(header + 8, 8),
        .done = true,
        .error = (uint32_t)get_be(header + 4, 4),
    };
    if (wire->structured && target->read)
        return -EPROTO;
    if (!target->read || ret_reply->error != 0)
        return 0;
    *target->filled = target->length;
    return channel_read_full(wire->channel, target->bytes, target->length);
}

/* The payload of a chunk that carries content: `length` bytes of the disk from `offset`. */
static bool chunk_fits(const struct wire_target *target, uint64_t offset, uint32_t length)
{
    return target->read && length > 0 && offset >= target->offset && offset - target->offset <= target->length &&
           length <= target->length - (offset - target->offset) && *target->filled + length <= target->length;
}

CO static int receive_content(struct wire *wire, uint32_t type, uint32_t length, const struct wire_target *target)
{
    uint8_t head[12];
    bool hole = type == CHUNK_OFFSET_HOLE;
    if (hole ? length != 12 : length <= 8)
        return -EPROTO;
    int code = channel_read_full(wire->channel, head, hole ? 12 : 8);
    if (code < 0)
        return code;
    uint64_t offset = get_be(head, 8);
    uint32_t bytes = hole ? (uint32_t)get_be(head + 8, 4) : length - 8;
    if (!chunk_fits(target, offset, bytes))
        return -EPROTO;
    *target->filled += bytes;
    uint8_t *at = target->bytes + (offset - target->offset);
    if (!hole)
        return channel_read_full(wire->channel, at, bytes);
    memset(at, 0, bytes);
    return 0;
}

CO static int receive_chunk_error(struct wire *wire, uint32_t type, uint32_t length, uint32_t *ret_error)
{
    uint8_t data[TEXT_MAX];
    if (length < 6 || length > sizeof data)
        return -EPROTO;
    int code = channel_read_full(wire->channel, data, length);
    if (code < 0)
        return code;
    uint32_t text = (uint32_t)get_be(data + 4, 2);
    *ret_error = (uint32_t)get_be(data, 4);
    return *ret_error != 0 && length == 6 + text + (type == CHUNK_ERROR_OFFSET ? 8 : 0) ? 0 : -EPROTO;
}

CO static int receive_structured(struct wire *wire, const uint8_t *header, const struct wire_target *target,
                                 struct wire_reply *ret_reply)
{
    uint32_t flags = (uint32_t)get_be(header + 4, 2), type = (uint32_t)get_be(header + 6, 2), error = 0;
    uint8_t rest[4];
    int code = channel_read_full(wire->channel, rest, sizeof rest);
    uint32_t length = (uint32_t)get_be(rest, 4);
    if (code < 0)
        return code;
    if (!wire->structured || (flags & ~CHUNK_DONE) != 0)
        return -EPROTO;
    if (type == CHUNK_NONE)
        code = length == 0 && (flags & CHUNK_DONE) != 0 ? 0 : -EPROTO;
    else if (type == CHUNK_OFFSET_DATA || type == CHUNK_OFFSET_HOLE)
        code = receive_content(wire, type, length, target);
    else if (type == CHUNK_ERROR || type == CHUNK_ERROR_OFFSET)
        code = receive_chunk_error(wire, type, length, &error);
    else
        code = -EPROTO;
    *ret_reply =
        (struct wire_reply){ .handle = get_be(header + 8, 8), .done = (flags & CHUNK_DONE) != 0, .error = error };
    return code;
}

CO int wire_receive(struct wire *wire, struct wire_target (*target)(void *arg, uint64_t handle), void *arg,
                    struct wire_reply *ret_reply)
{
    uint8_t header[16];
    int code = channel_read_full(wire->channel, header, sizeof header);
    if (code < 0)
        return code;
    uint64_t magic = get_be(header, 4);
    struct wire_target where = target(arg, get_be(header + 8, 8));
    if (!where.known || (magic != SIMPLE_MAGIC && magic != STRUCTURED_MAGIC))
        return -EPROTO;
    return magic == SIMPLE_MAGIC ? receive_simple(wire, header, &where, ret_reply)
                                 : receive_structured(wire, header, &where, ret_reply);
}
