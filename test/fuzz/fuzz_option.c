/* The handshake: nbd/handshake.c, nbd/option.c and their decoders.  The input is what a client says after the
 * greeting; when it ends in the middle, the deadline must end the connection. */
#include <string.h>

#include "fuzz_nbd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer said = BUFFER_EMPTY;
    buffer_put(&said, data, size);
    struct buffer answered = fuzz_nbd_play(&said, false);
    PROMISE(answered.length >= 18 && memcmp(answered.data, "NBDMAGICIHAVEOPT\0\3", 18) == 0);
    buffer_free(&answered);
    buffer_free(&said);
    return 0;
}
