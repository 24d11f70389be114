/* What the store knows of volumes, without opening them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/internal.h"

static int read_register(struct store *store, const char *key, struct register_body *ret_body, struct error *error)
{
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX];
    int status = store_get_whole(store, key, REGISTER_BYTES_MAX, &bytes, &length, etag, error);
    if (status < 0)
        return status;
    status = register_decode(bytes, length, ret_body, error);
    free(bytes);
    return status < 0 ? error_context(error, "%s", key) : 0;
}

int volumes_look(struct volumes *volumes, const char *name, size_t name_length, struct volume_brief *ret_brief,
                 struct error *error)
{
    char key[KEY_MAX];
    key_register(name, name_length, key);
    struct register_body body;
    int status = read_register(volumes->store, key, &body, error);
    if (status == -ENOENT) {
        *ret_brief = (struct volume_brief){ .exists = false };
        return 0;
    }
    if (status < 0)
        return status;
    *ret_brief = (struct volume_brief){ .exists = body.state == REGISTER_LIVE, .size = body.newest.size };
    register_free(&body);
    return 0;
}

/* The name of the volume whose register has this key; names too long for a key are read from the register. */
static int name_of(struct store *store, const char *key, char *name, size_t *ret_length, struct error *error)
{
    if (key_parse_register(key, name, ret_length))
        return 0;
    struct register_body body;
    int status = read_register(store, key, &body, error);
    if (status < 0)
        return status;
    memcpy(name, body.name, body.name_length);
    *ret_length = body.name_length;
    register_free(&body);
    return 0;
}

int volumes_list(struct store *store, int (*visit)(void *arg, const char *name, size_t name_length), void *arg,
                 struct error *error)
{
    char after[STORE_KEY_MAX + 1] = "";
    char *name = memory_new(VOLUME_NAME_MAX);
    bool more = true;
    int status = 0;
    while (more && status == 0) {
        struct store_listing listing;
        status = store_list(store, KEY_REGISTERS, after, STORE_LIST_MAX, &listing, error);
        if (status < 0)
            break;
        more = listing.more && listing.count > 0;
        for (size_t i = 0; i < listing.count && status == 0; i++) {
            size_t length = 0;
            struct error ignored =
                ERROR_NONE; /* a register that can't be read has no name to tell: `cairn list` says so */
            if (name_of(store, listing.entries[i].key, name, &length, &ignored) == 0)
                status = visit(arg, name, length);
        }
        if (more)
            snprintf(after, sizeof after, "%s", listing.entries[listing.count - 1].key);
        store_listing_free(&listing);
    }
    free(name);
    return status;
}
