/* What the store has of a volume, by LIST alone.
 *
 * Of data objects each is remembered, with its size.  Of the log, which may be
 * long, only the highest entry, and which are missing below it: their sizes are
 * seen when they are read. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/check_internal.h"

static void add_missing(struct listing *listing, uint64_t first, uint64_t last)
{
    if (listing->missing_count == listing->missing_capacity) {
        listing->missing_capacity = listing->missing_capacity == 0 ? 16 : 2 * listing->missing_capacity;
        listing->missing = memory_resize(listing->missing, listing->missing_capacity, sizeof *listing->missing);
    }
    listing->missing[listing->missing_count++] = (struct missing_range){ .first = first, .last = last };
}

static void add_object(struct listing *listing, uint64_t epoch, uint64_t n, uint64_t bytes)
{
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity == 0 ? 256 : 2 * listing->capacity;
        listing->objects = memory_resize(listing->objects, listing->capacity, sizeof *listing->objects);
    }
    listing->objects[listing->count++] = (struct listed_object){ .epoch = epoch, .n = n, .bytes = bytes };
}

static void take_entry(struct checking *checking, const struct store_entry *entry)
{
    struct listing *listing = &checking->listing;
    struct uuid uuid;
    uint64_t seq, epoch, n;
    if (key_parse_log(entry->key, &uuid, &seq) && seq > listing->log_highest) {
        if (seq > listing->log_highest + 1)
            add_missing(listing, listing->log_highest + 1, seq - 1);
        listing->log_highest = seq;
        checking->counts->log_entries++;
    } else if (key_parse_data(entry->key, &uuid, &epoch, &n)) {
        add_object(listing, epoch, n, entry->size);
        checking->counts->data_objects++;
    } else {
        checking->counts->unknown++;
    }
}

/* Everything whose key begins with `prefix`. */
static CO int list(struct checking *checking, const char *prefix, struct error *error)
{
    const struct check *check = checking->check;
    char after[STORE_KEY_MAX] = "";
    for (bool more = true; more;) {
        struct store_listing listing;
        int status = store_list(check->store, prefix, after, STORE_LIST_MAX, &listing, error);
        if (status < 0)
            return status;
        for (size_t i = 0; i < listing.count; i++)
            take_entry(checking, &listing.entries[i]);
        more = listing.more && listing.count > 0;
        if (more)
            snprintf(after, sizeof after, "%s", listing.entries[listing.count - 1].key);
        store_listing_free(&listing);
        check->progress(check->arg, "objects listed", checking->counts->log_entries + checking->counts->data_objects,
                        0);
    }
    return 0;
}

static int compare_objects(const void *a, const void *b)
{
    const struct listed_object *left = a, *right = b;
    if (left->epoch != right->epoch)
        return left->epoch < right->epoch ? -1 : 1;
    return left->n < right->n ? -1 : left->n > right->n;
}

int listing_read(struct checking *checking, struct error *error)
{
    char uuid[UUID_TEXT], log[KEY_MAX], data[KEY_MAX];
    uuid_format(&checking->body.uuid, uuid);
    snprintf(log, sizeof log, "v/%s/log/", uuid);
    snprintf(data, sizeof data, "v/%s/data/", uuid);
    int status = list(checking, log, error);
    return status < 0 ? status : list(checking, data, error);
}

struct listed_object *listing_find(struct listing *listing, uint64_t epoch, uint64_t n)
{
    struct listed_object wanted = { .epoch = epoch, .n = n };
    if (listing->count == 0)
        return NULL;
    return bsearch(&wanted, listing->objects, listing->count, sizeof *listing->objects, compare_objects);
}

bool listing_lacks_entry(const struct listing *listing, uint64_t seq)
{
    size_t low = 0, high = listing->missing_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (listing->missing[middle].last < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return seq > listing->log_highest || (low < listing->missing_count && listing->missing[low].first <= seq);
}

void listing_free(struct listing *listing)
{
    free(listing->objects);
    free(listing->missing);
    *listing = (struct listing){ 0 };
}
