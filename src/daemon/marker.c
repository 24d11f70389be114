/* Nothing is written to a place that is not ours.
 *
 * The first thing that goes into an empty store is the marker, put on the
 * condition that there is none: of several servers that start at once one
 * makes it, and the others find it.  A directory full of somebody's photographs
 * has things in it and no marker, and is left alone. */
#include "daemon/marker.h"

#include <errno.h>
#include <stdlib.h>

#include "rt/loop.h"
#include "store/store.h"
#include "vol/format/format.h"

#define MARKER_BYTES_MAX 4096
#define PLACE_MAX 300

static CO int read_marker(struct store *store, struct error *error)
{
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX], place[PLACE_MAX];
    struct uuid uuid;

    int result = store_get_whole(store, KEY_MARKER, MARKER_BYTES_MAX, &bytes, &length, etag, error);
    if (result < 0)
        return result;
    result = marker_decode(bytes, length, &uuid, error);
    free(bytes);
    if (result < 0) {
        store_describe(store, place, sizeof place);
        return error_context(error, "%s: the object '" KEY_MARKER "'", place);
    }
    return 0;
}

static CO int refuse_strangers(struct store *store, struct error *error)
{
    struct store_listing listing;
    char place[PLACE_MAX];

    int result = store_list(store, "", "", 1, &listing, error);
    if (result < 0)
        return result;
    if (listing.count > 0) {
        store_describe(store, place, sizeof place);
        result = error_set(error, EMEDIUMTYPE,
                           "not a cairn store: %s holds '%s' and no marker '" KEY_MARKER
                           "': give a directory that is empty or does not exist",
                           place, listing.entries[0].key);
    }
    store_listing_free(&listing);
    return result;
}

static CO int write_marker(struct loop *loop, struct store *store, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct uuid uuid;

    loop_random(loop, &uuid, sizeof uuid);
    marker_encode(&uuid, &bytes);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    struct store_put put = { .key = KEY_MARKER, .pieces = &piece, .count = 1, .condition = STORE_ABSENT };
    int result = store_put(store, &put, NULL, error);
    buffer_free(&bytes);
    return result;
}

CO int marker_check(struct loop *loop, struct store *store, bool create, struct error *error)
{
    struct error why = ERROR_NONE;
    char place[PLACE_MAX];

    int result = read_marker(store, &why);
    if (result != -ENOENT)
        return result < 0 ? error_copy(error, &why) : 0;
    result = refuse_strangers(store, error);
    if (result < 0)
        return result;
    if (!create) {
        store_describe(store, place, sizeof place);
        return error_set(error, ENOENT,
                         "there is no cairn store in %s: start `cairn serve` on it once, or give another "
                         "--store",
                         place);
    }
    result = write_marker(loop, store, &why);
    if (result == -EEXIST) /* somebody else was quicker: it must be right all the same */
        return read_marker(store, error);
    return result < 0 ? error_copy(error, &why) : 0;
}
