/* The front door of every store: what callers promise is asserted, what stores
 * answer is checked.
 *
 * Keys, prefixes, pieces and conditions are made by cairn itself, so a bad one
 * is a bug and aborts.  Answers come from elsewhere: a short range, a listing
 * out of order or a refusal that does not fit the condition become -EIO with a
 * story, and never reach the layers above, which may rely on what store.h says.
 *
 * A get that the store cut short is such an error too: the bytes that are
 * missing can be told from the end of the object, because the store names the
 * object's size. */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Registers, markers and the fronts of most commits fit; what does not takes a second get. */
#define WHOLE_FIRST_BYTES ((size_t)64 << 10)

static bool component_allowed(const char *component, size_t length)
{
    return length > 0 && !(length == 1 && component[0] == '.') &&
           !(length == 2 && component[0] == '.' && component[1] == '.');
}

static bool bytes_allowed(const char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return false;
    return true;
}

bool store_key_allowed(const char *key, bool open_ended)
{
    if (strlen(key) > STORE_KEY_MAX || !bytes_allowed(key))
        return false;
    const char *component = key;
    for (const char *slash = strchr(key, '/'); slash != NULL; slash = strchr(component, '/')) {
        if (!component_allowed(component, (size_t)(slash - component)))
            return false;
        component = slash + 1;
    }
    return open_ended || component_allowed(component, strlen(component));
}

static uint64_t pieces_length(const struct iovec *pieces, int count)
{
    assert(count >= 0 && (count == 0 || pieces != NULL));
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += pieces[i].iov_len;
    return length;
}

int store_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    assert(store_key_allowed(get->key, false));
    uint64_t wanted = pieces_length(get->pieces, get->count);
    struct store_got got = { 0 };
    int failed = store->ops->get(store, get, &got, error);
    if (failed != 0) {
        assert(failed < 0);
        return failed;
    }
    uint64_t there = get->offset < got.size ? got.size - get->offset : 0;
    uint64_t expected = wanted < there ? wanted : there;
    if (got.length != expected)
        return error_set(error, EIO, "get %s: the store sent %llu bytes from %llu on instead of %llu", get->key,
                         (unsigned long long)got.length, (unsigned long long)get->offset, (unsigned long long)expected);
    if (got.etag[0] == '\0' || memchr(got.etag, '\0', sizeof got.etag) == NULL)
        return error_set(error, EIO, "get %s: the store named no ETag", get->key);
    *ret_got = got;
    return 0;
}

int store_get_whole(struct store *store, const char *key, size_t max, uint8_t **ret_bytes, size_t *ret_length,
                    char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    return store_get_whole_urgent(store, key, max, 0, ret_bytes, ret_length, ret_etag, error);
}

int store_get_whole_urgent(struct store *store, const char *key, size_t max, uint64_t attempt_ms, uint8_t **ret_bytes,
                           size_t *ret_length, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    assert(max <= STORE_OBJECT_MAX);
    /* One get must deliver it all: two could see two different objects under the key. */
    size_t capacity = max < WHOLE_FIRST_BYTES ? max : WHOLE_FIRST_BYTES;
    for (;;) {
        uint8_t *bytes = memory_resize(NULL, capacity, 1);
        struct iovec piece = { .iov_base = bytes, .iov_len = capacity };
        struct store_get get = { .key = key, .offset = 0, .pieces = &piece, .count = 1, .attempt_ms = attempt_ms };
        struct store_got got;
        int failed = store_get(store, &get, &got, error);
        if (failed == 0 && got.size <= capacity) {
            *ret_bytes = bytes;
            *ret_length = (size_t)got.length;
            if (ret_etag != NULL)
                memcpy(ret_etag, got.etag, STORE_ETAG_MAX);
            return 0;
        }
        free(bytes);
        if (failed != 0)
            return failed;
        if (got.size > max)
            return error_set(error, EFBIG, "get %s: %llu bytes, which is more than the %zu that it may have", key,
                             (unsigned long long)got.size, max);
        capacity = (size_t)got.size;
    }
}

int store_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    assert(store_key_allowed(put->key, false));
    assert(pieces_length(put->pieces, put->count) <= STORE_OBJECT_MAX);
    assert(put->condition == STORE_ANY || put->condition == STORE_ABSENT || put->condition == STORE_MATCHES);
    if (put->condition == STORE_MATCHES)
        assert(put->etag != NULL && put->etag[0] != '\0' && strlen(put->etag) < STORE_ETAG_MAX);

    char etag[STORE_ETAG_MAX] = "";
    int failed = store->ops->put(store, put, ret_etag != NULL ? etag : NULL, error);
    assert(failed <= 0);
    if ((failed == -EEXIST && put->condition != STORE_ABSENT) || (failed == -ESTALE && put->condition != STORE_MATCHES))
        return error_set(error, EIO, "put %s: the store refused a condition that was not asked for", put->key);
    if (failed != 0)
        return failed;
    if (ret_etag != NULL) {
        /* It may have been applied, but its ETag is not known: an unknown outcome. */
        if (etag[0] == '\0' || memchr(etag, '\0', sizeof etag) == NULL)
            return error_set(error, EIO, "put %s: the store named no ETag", put->key);
        memcpy(ret_etag, etag, sizeof etag);
    }
    return 0;
}

int store_delete(struct store *store, const char *key, struct error *error)
{
    assert(store_key_allowed(key, false));
    int failed = store->ops->delete (store, key, error);
    assert(failed <= 0);
    return failed == -ENOENT ? 0 : failed;
}

static bool listing_in_order(const struct store_listing *listing, const char *prefix, const char *after, size_t limit)
{
    if (listing->count > limit || (listing->more && listing->count == 0))
        return false;
    const char *previous = after;
    for (size_t i = 0; i < listing->count; i++) {
        const char *key = listing->entries[i].key;
        if (strncmp(key, prefix, strlen(prefix)) != 0 || strcmp(key, previous) <= 0 || !store_key_allowed(key, false))
            return false;
        previous = key;
    }
    return true;
}

int store_list(struct store *store, const char *prefix, const char *after, size_t limit,
               struct store_listing *ret_listing, struct error *error)
{
    assert(store_key_allowed(prefix, true) && store_key_allowed(after, true));
    assert(limit > 0);
    if (limit > STORE_LIST_MAX)
        limit = STORE_LIST_MAX;
    struct store_listing listing = { 0 };
    int failed = store->ops->list(store, prefix, after, limit, &listing, error);
    if (failed != 0) {
        assert(failed < 0);
        return failed;
    }
    if (!listing_in_order(&listing, prefix, after, limit)) {
        store_listing_free(&listing);
        return error_set(error, EIO, "list %s: the store sent keys that were not asked for, or out of order", prefix);
    }
    *ret_listing = listing;
    return 0;
}

void store_listing_free(struct store_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].key);
    free(listing->entries);
    *listing = (struct store_listing){ 0 };
}

uint64_t store_date_ms(struct store *store)
{
    return store->ops->date_ms(store);
}

void store_describe(struct store *store, char *ret_text, size_t capacity)
{
    assert(capacity > 0);
    store->ops->describe(store, ret_text, capacity);
}

void store_close(struct store *store)
{
    if (store != NULL)
        store->ops->close(store);
}
