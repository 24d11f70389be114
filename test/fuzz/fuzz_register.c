/* The register: vol/format/register.c. */
#include <string.h>

#include "base/memory.h"
#include "fuzz.h"
#include "vol/format/codec.h"

/* Whatever is accepted is written back byte for byte: nothing of a later version gets lost. */
static void try_register(const uint8_t *bytes, size_t length)
{
    struct register_body body, copy;
    struct buffer again = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    if (register_decode(bytes, length, &body, &error) < 0) {
        PROMISE(error.code != 0 && error.story[0] != '\0');
        return;
    }
    PROMISE(body.name_length <= VOLUME_NAME_MAX && strlen(body.name) == body.name_length);
    PROMISE(body.epoch > 0 && body.committed >= body.newest.seq);
    PROMISE(body.newest.size > 0 && body.newest.size <= VOLUME_BYTES_MAX);
    register_copy(&body, &copy);
    register_free(&body);
    PROMISE(register_encode(&copy, &again, &error) == 0);
    PROMISE(again.length == length && memcmp(again.data, bytes, length) == 0);
    register_free(&copy);
    buffer_free(&again);
}

static uint32_t count_fields(const uint8_t *bytes, size_t length)
{
    struct reader reader = reader_over(bytes, length);
    uint32_t count = 0;
    for (; reader_left(&reader) > 0 && !reader.failed; count++) {
        reader_u32le(&reader);
        reader_bytes(&reader, round_up(reader_u32le(&reader), 8));
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_register(data, size);
    if (size < REGISTER_HEADER_BYTES || size > REGISTER_BYTES_MAX)
        return 0;
    uint8_t *sealed = memory_copy(data, size);
    store_u32le(sealed + 40, (uint32_t)size);
    store_u32le(sealed + 44, count_fields(sealed + REGISTER_HEADER_BYTES, size - REGISTER_HEADER_BYTES));
    register_seal(sealed, size);
    try_register(sealed, size);
    free(sealed);
    return 0;
}
