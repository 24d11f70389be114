/* Objects in memory: for tests, and behind the simulator's faults.
 *
 * Objects stand in one array sorted by key, so finding is a binary search and
 * listing is a walk.  Inserting moves pointers, which is cheap for the tens of
 * thousands of objects that a test makes.
 *
 * The ETag is a hash of the content, as S3's is: a caller whose register could
 * return to an earlier content would be caught here as it would be there.
 *
 * Nothing parks and nothing fails but for the conditions. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/memory.h"
#include "base/text.h"
#include "store/store.h"

struct object {
    char *key;
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX];
};

struct mem {
    struct object **objects; /* sorted by key */
    size_t count, capacity;
    size_t users; /* stores open over it */
    uint64_t (*date_ms)(void *arg);
    void *date_arg;
};

struct mem_store {
    struct store store;
    struct mem *mem;
};

static struct mem *mem_of(struct store *store)
{
    return container_of(store, struct mem_store, store)->mem;
}

/* The index of the first object whose key is not below `key`. */
static size_t find(const struct mem *mem, const char *key, bool *ret_found)
{
    size_t low = 0, high = mem->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(mem->objects[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = low < mem->count && strcmp(mem->objects[low]->key, key) == 0;
    return low;
}

static void object_free(struct object *object)
{
    free(object->key);
    free(object->bytes);
    free(object);
}

static int mem_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct mem *mem = mem_of(store);
    bool found;
    size_t index = find(mem, get->key, &found);
    if (!found)
        return error_set_errno(error, ENOENT, "get %s", get->key);
    const struct object *object = mem->objects[index];
    uint64_t at = get->offset < object->length ? get->offset : object->length;
    uint64_t length = 0;
    for (int i = 0; i < get->count && at < object->length; i++) {
        size_t part = get->pieces[i].iov_len;
        if (part > object->length - at)
            part = (size_t)(object->length - at);
        if (part > 0)
            memcpy(get->pieces[i].iov_base, object->bytes + at, part);
        at += part;
        length += part;
    }
    ret_got->length = length;
    ret_got->size = object->length;
    memcpy(ret_got->etag, object->etag, STORE_ETAG_MAX);
    return 0;
}

static struct object *object_new(const struct store_put *put)
{
    struct object *object = memory_new(sizeof *object);
    object->key = memory_string(put->key);
    for (int i = 0; i < put->count; i++)
        object->length += put->pieces[i].iov_len;
    object->bytes = memory_resize(NULL, object->length, 1);
    size_t at = 0;
    for (int i = 0; i < put->count; i++) {
        if (put->pieces[i].iov_len > 0)
            memcpy(object->bytes + at, put->pieces[i].iov_base, put->pieces[i].iov_len);
        at += put->pieces[i].iov_len;
    }
    struct iovec whole = { .iov_base = object->bytes, .iov_len = object->length };
    uint8_t hash[XXH128_BYTES];
    hash_xxh128(&whole, 1, hash);
    text_hex(hash, sizeof hash, object->etag);
    return object;
}

static void insert(struct mem *mem, size_t index, struct object *object)
{
    if (mem->count == mem->capacity) {
        mem->capacity = mem->capacity > 0 ? 2 * mem->capacity : 64;
        mem->objects = memory_resize(mem->objects, mem->capacity, sizeof(*mem->objects));
    }
    memmove(mem->objects + index + 1, mem->objects + index, (mem->count - index) * sizeof(*mem->objects));
    mem->objects[index] = object;
    mem->count++;
}

static int mem_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct mem *mem = mem_of(store);
    bool found;
    size_t index = find(mem, put->key, &found);
    if (put->condition == STORE_ABSENT && found)
        return error_set_errno(error, EEXIST, "put %s", put->key);
    if (put->condition == STORE_MATCHES && (!found || strcmp(mem->objects[index]->etag, put->etag) != 0))
        return error_set(error, ESTALE, "put %s: the object has changed", put->key);

    struct object *object = object_new(put);
    if (found) {
        object_free(mem->objects[index]);
        mem->objects[index] = object;
    } else {
        insert(mem, index, object);
    }
    if (ret_etag != NULL)
        memcpy(ret_etag, object->etag, STORE_ETAG_MAX);
    return 0;
}

static int mem_delete(struct store *store, const char *key, struct error *error)
{
    struct mem *mem = mem_of(store);
    bool found;
    size_t index = find(mem, key, &found);
    if (!found)
        return 0;
    object_free(mem->objects[index]);
    mem->count--;
    memmove(mem->objects + index, mem->objects + index + 1, (mem->count - index) * sizeof(*mem->objects));
    return 0;
}

static int mem_list(struct store *store, const char *prefix, const char *after, size_t limit,
                    struct store_listing *ret_listing, struct error *error)
{
    struct mem *mem = mem_of(store);
    bool found;
    size_t index;
    if (strcmp(after, prefix) < 0) {
        index = find(mem, prefix, &found);
    } else {
        index = find(mem, after, &found);
        index += found ? 1 : 0;
    }
    struct store_listing listing = { .entries = memory_array(limit, sizeof(struct store_entry)) };
    for (; index < mem->count; index++) {
        const struct object *object = mem->objects[index];
        if (strncmp(object->key, prefix, strlen(prefix)) != 0)
            break;
        if (listing.count == limit) {
            listing.more = true;
            break;
        }
        listing.entries[listing.count++] =
            (struct store_entry){ .key = memory_string(object->key), .size = object->length };
    }
    *ret_listing = listing;
    return 0;
}

static uint64_t mem_date_ms(struct store *store)
{
    struct mem *mem = mem_of(store);
    return mem->date_ms == NULL ? 0 : mem->date_ms(mem->date_arg);
}

static void mem_describe(struct store *store, char *ret_text, size_t capacity)
{
    snprintf(ret_text, capacity, "memory");
}

static void mem_close(struct store *store)
{
    struct mem_store *opened = container_of(store, struct mem_store, store);
    opened->mem->users--;
    free(opened);
}

static const struct store_ops mem_ops = {
    .name = "mem",
    .get = mem_get,
    .put = mem_put,
    .delete = mem_delete,
    .list = mem_list,
    .date_ms = mem_date_ms,
    .describe = mem_describe,
    .close = mem_close,
};

struct mem *mem_new(void)
{
    return memory_new(sizeof(struct mem));
}

void mem_free(struct mem *mem)
{
    if (mem == NULL)
        return;
    assert(mem->users == 0);
    for (size_t i = 0; i < mem->count; i++)
        object_free(mem->objects[i]);
    free(mem->objects);
    free(mem);
}

void mem_set_clock(struct mem *mem, uint64_t (*date_ms)(void *arg), void *arg)
{
    mem->date_ms = date_ms;
    mem->date_arg = arg;
}

struct store *store_mem_open(struct mem *mem)
{
    struct mem_store *opened = memory_new(sizeof *opened);
    opened->store.ops = &mem_ops;
    opened->mem = mem;
    mem->users++;
    return &opened->store;
}
