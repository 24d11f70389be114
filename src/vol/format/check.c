/* What every object's reader asks first: is it ours, is it of a version that
 * we know, does it need a feature that we do not have.
 *
 * Version and magic are looked at before the checksum, because a later version
 * may keep its checksum elsewhere; so a flipped bit in one of them is reported
 * as a foreign or newer object.  It is refused either way. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vol/format/codec.h"

bool bytes_are_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

int check_magic(const char *what, const void *bytes, size_t length, const char *magic, struct error *error)
{
    size_t magic_length = strlen(magic);
    size_t shared = length < magic_length ? length : magic_length;
    if (shared > 0 && memcmp(bytes, magic, shared) != 0)
        return error_set(error, EMEDIUMTYPE, "%s: not one of cairn's: it does not begin with its magic", what);
    if (shared < magic_length)
        return error_set(error, EBADMSG, "%s: truncated: %zu bytes, not even its magic", what, length);
    return 0;
}

int check_version(const char *what, uint64_t version, struct error *error)
{
    if (version > FORMAT_VERSION)
        return error_set(error, EPROTONOSUPPORT,
                         "%s: format version %" PRIu64 ", and this program knows %d: use a newer cairn", what, version,
                         FORMAT_VERSION);
    if (version < 1)
        return error_set(error, EBADMSG, "%s: damaged: format version 0 does not exist", what);
    return 0;
}

int check_features(const char *what, uint64_t incompatible, struct error *error)
{
    uint64_t unknown = incompatible & ~FEATURES_INCOMPATIBLE_KNOWN;
    if (unknown == 0)
        return 0;
    return error_set(error, EPROTONOSUPPORT,
                     "%s: needs feature bit %d, which this program does not know: use a newer cairn", what,
                     __builtin_ctzll(unknown));
}
