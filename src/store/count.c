/* Counts what passes to a store: for statistics, and for the tests that hold
 * cairn to its number of requests.  A request counts when it is made, whatever
 * comes of it; bytes count when they have arrived. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/memory.h"
#include "store/store.h"

struct count {
    struct store store;
    struct store *inner;
    struct store_counts counts;
};

static struct count *count_of(struct store *store)
{
    return container_of(store, struct count, store);
}

/* Answers that tell about the object, not about trouble with the store. */
static int tally(struct count *count, int result)
{
    if (result != 0 && result != -ENOENT && result != -EEXIST && result != -ESTALE)
        count->counts.failed++;
    return result;
}

static int count_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct count *count = count_of(store);
    count->counts.gets++;
    int failed = tally(count, store_get(count->inner, get, ret_got, error));
    if (failed == 0)
        count->counts.bytes_got += ret_got->length;
    return failed;
}

static int count_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                     struct error *error)
{
    struct count *count = count_of(store);
    uint64_t bytes = 0;
    for (int i = 0; i < put->count; i++)
        bytes += put->pieces[i].iov_len;
    count->counts.puts++;
    if (bytes > count->counts.put_bytes_max)
        count->counts.put_bytes_max = bytes;
    int failed = tally(count, store_put(count->inner, put, ret_etag, error));
    if (failed == 0)
        count->counts.bytes_put += bytes;
    return failed;
}

static int count_delete(struct store *store, const char *key, struct error *error)
{
    struct count *count = count_of(store);
    count->counts.deletes++;
    return tally(count, store_delete(count->inner, key, error));
}

static int count_list(struct store *store, const char *prefix, const char *after, size_t limit,
                      struct store_listing *ret_listing, struct error *error)
{
    struct count *count = count_of(store);
    count->counts.lists++;
    return tally(count, store_list(count->inner, prefix, after, limit, ret_listing, error));
}

static uint64_t count_date_ms(struct store *store)
{
    return store_date_ms(count_of(store)->inner);
}

static void count_describe(struct store *store, char *ret_text, size_t capacity)
{
    store_describe(count_of(store)->inner, ret_text, capacity);
}

static void count_close(struct store *store)
{
    struct count *count = count_of(store);
    store_close(count->inner);
    free(count);
}

static const struct store_ops count_ops = {
    .name = "count",
    .get = count_get,
    .put = count_put,
    .delete = count_delete,
    .list = count_list,
    .date_ms = count_date_ms,
    .describe = count_describe,
    .close = count_close,
};

struct store *store_count_new(struct store *inner)
{
    struct count *count = memory_new(sizeof *count);
    count->store.ops = &count_ops;
    count->inner = inner;
    return &count->store;
}

struct store_counts store_count_read(const struct store *store)
{
    assert(store->ops == &count_ops);
    return container_of(store, struct count, store)->counts;
}
