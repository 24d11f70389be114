/* Nothing is written to a place that is not ours.
 *
 * The first thing that goes into an empty store is the marker, put on the
 * condition that there is none: of several servers that start at once one
 * makes it, and the others find it.  A directory full of somebody's photographs
 * has things in it and no marker, and is left alone. */
#include "daemon/marker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rt/loop.h"
#include "store/put_once.h"
#include "store/store.h"
#include "vol/format/format.h"

#define MARKER_BYTES_MAX 4096
#define PLACE_MAX 300
/* Of the probe (store/probe.h), which comes before the marker; and a key that sorts behind all of its. */
#define KEY_PROBE "probe/"
#define KEY_PROBE_LAST "probe/~"
/* At making a marker, with outcomes that are not known. */
#define ATTEMPTS 5

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

/* The first key that is not one of the probe's, which looks at a store before it is ours; "" : there is none. */
static CO int first_key(struct store *store, char ret_key[STORE_KEY_MAX + 1], struct error *error)
{
    const char *after = "";

    for (;;) {
        struct store_listing listing;
        int result = store_list(store, "", after, 1, &listing, error);
        if (result < 0)
            return result;
        snprintf(ret_key, STORE_KEY_MAX + 1, "%s", listing.count > 0 ? listing.entries[0].key : "");
        store_listing_free(&listing);
        if (strncmp(ret_key, KEY_PROBE, strlen(KEY_PROBE)) != 0 || strcmp(after, KEY_PROBE_LAST) == 0)
            return 0;
        after = KEY_PROBE_LAST;
    }
}

static CO int refuse_strangers(struct store *store, struct error *error)
{
    char place[PLACE_MAX], key[STORE_KEY_MAX + 1];

    int result = first_key(store, key, error);
    if (result < 0 || key[0] == '\0')
        return result;
    store_describe(store, place, sizeof place);
    return error_set(error, EMEDIUMTYPE,
                     "not a cairn store: %s holds '%s' and no marker '" KEY_MARKER
                     "': give a place that is empty or does not exist",
                     place, key);
}

CO int marker_check(struct store *store, bool *ret_ours, struct error *error)
{
    struct error why = ERROR_NONE;
    bool ours = false;

    int result = read_marker(store, &why);
    if (result == -ENOENT)
        result = refuse_strangers(store, &why);
    else if (result == 0)
        ours = true;
    if (result < 0)
        return error_copy(error, &why);
    *ret_ours = ours;
    return 0;
}

static bool enough(void *arg, const struct error *error)
{
    unsigned *attempts = arg;

    return ++*attempts >= ATTEMPTS;
}

CO int marker_make(struct loop *loop, struct store *store, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct error why = ERROR_NONE;
    struct uuid uuid;
    unsigned attempts = 0;

    loop_random(loop, &uuid, sizeof uuid);
    marker_encode(&uuid, &bytes);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    struct put_once put = {
        .store = store, .key = KEY_MARKER, .pieces = &piece, .count = 1, .give_up = enough, .arg = &attempts
    };
    int result = put_once(&put, &why);
    buffer_free(&bytes);
    if (result == -EEXIST) /* somebody else was quicker: it must be right all the same */
        return read_marker(store, error);
    return result < 0 ? error_copy(error, &why) : 0;
}
