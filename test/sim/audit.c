/* See audit.h.  The decoders are the product's own: that they refuse damage is proven elsewhere (their unit tests and
 * fuzz targets); what is proven here is that writers keep the rules that no single object can show. */
#include "audit.h"
#include "audit_root.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/format.h"

struct audit {
    struct sim *sim;
    struct store *store;
};

/* The log of one volume, entry after entry. */
struct log_walk {
    struct uuid uuid;
    uint64_t next_seq;
    uint64_t epoch;
    uint64_t next_object_id;
    uint64_t pages; /* of the disk */
    bool cloned;    /* an owner was, perhaps while it opened the volume */
    uint8_t hash[SHA256_BYTES];
};

struct object {
    uint8_t *bytes;
    size_t length;
};

static bool fetch(struct audit *audit, const char *key, struct object *ret_object)
{
    struct error error = ERROR_NONE;
    char etag[STORE_ETAG_MAX];
    if (store_get_whole(audit->store, key, STORE_OBJECT_MAX, &ret_object->bytes, &ret_object->length, etag, &error) ==
        0)
        return true;
    sim_fail(audit->sim, "audit: %s", error.story);
    return false;
}

/* One frame, named by an extent: sound, and no page of it all zeroes. */
static bool audit_frame(struct audit *audit, const char *key, const struct object *object,
                        const struct frame_place *place, const struct commit_extent *extent)
{
    uint64_t at = place->offset, length = (uint64_t)extent->units * FRAME_UNIT;
    struct error error = ERROR_NONE;
    struct frame_header header;
    if (at + length > object->length || length < FRAME_HEADER_BYTES) {
        sim_fail(audit->sim, "audit: %s: a frame of %" PRIu64 " bytes at %" PRIu64 " lies beyond its end", key, length,
                 at);
        return false;
    }
    int code = frame_decode_header(object->bytes + at, &header, &error);
    struct iovec payload = { .iov_base = object->bytes + at + FRAME_HEADER_BYTES };
    if (code == 0 && frame_total_bytes(header.stored_bytes) != length)
        code = error_set(&error, EBADMSG, "its length is not the extent's");
    if (code == 0) {
        payload.iov_len = header.stored_bytes;
        code = frame_verify(object->bytes + at, place, &payload, 1, &header, &error);
    }
    if (code == 0 && (header.kind != FRAME_PAGES || header.block != extent->page / BLOCK_PAGES ||
                      (uint32_t)__builtin_popcount(header.pages) != extent->frame_pages))
        code = error_set(&error, EBADMSG, "it is not the frame that the extent means");
    if (code < 0) {
        sim_fail(audit->sim, "audit: %s: frame at %" PRIu64 ": %s", key, at, error.story);
        return false;
    }
    static const uint8_t zeroes[PAGE_BYTES];
    for (uint32_t i = 0; i < extent->frame_pages; i++) {
        if (memcmp((uint8_t *)payload.iov_base + (size_t)i * PAGE_BYTES, zeroes, PAGE_BYTES) != 0)
            continue;
        sim_fail(audit->sim, "audit: %s: frame at %" PRIu64 ": a page of zeroes is stored", key, at);
        return false;
    }
    return true;
}

/* The frames of `entry` that lie in one object: 0 for the entry itself, i for its i-th data object. */
static bool audit_frames(struct audit *audit, const char *key, const struct object *object, const struct entry *entry,
                         uint32_t which)
{
    struct frame_place place = { .uuid = entry->uuid, .kind = OBJECT_LOG, .seq = entry->seq };
    if (which > 0) {
        const struct commit_object *data = &entry->objects[which - 1];
        place = (struct frame_place){ .uuid = entry->uuid, .kind = OBJECT_DATA, .epoch = data->epoch, .n = data->n };
    }
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        if (extent->kind != EXTENT_PAGES || extent->object != which)
            continue;
        place.offset = (uint64_t)extent->start * FRAME_UNIT;
        if (!audit_frame(audit, key, object, &place, extent))
            return false;
    }
    return true;
}

static bool audit_data(struct audit *audit, const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->object_count; i++) {
        const struct commit_object *data = &entry->objects[i];
        char key[KEY_MAX];
        struct object object;
        key_data(&entry->uuid, data->epoch, data->n, key);
        if (!fetch(audit, key, &object))
            return false;
        bool fine = object.length == data->bytes;
        if (!fine)
            sim_fail(audit->sim, "audit: %s has %zu bytes, its commit says %" PRIu64, key, object.length, data->bytes);
        fine = fine && audit_frames(audit, key, &object, entry, i + 1);
        free(object.bytes);
        if (!fine)
            return false;
    }
    return true;
}

static const char *entry_fault(const struct log_walk *walk, const struct entry *entry)
{
    if (!uuid_equal(&entry->uuid, &walk->uuid))
        return "it names another volume";
    if (entry->seq != walk->next_seq)
        return "it is not where its number belongs, or one before it is missing";
    if (memcmp(entry->previous, walk->hash, SHA256_BYTES) != 0)
        return "it does not continue the chain";
    if (entry->epoch < walk->epoch)
        return "its epoch is lower than the one before";
    if (entry->kind == ENTRY_FENCE && entry->epoch == walk->epoch && !walk->cloned)
        return "a second fence of one epoch";
    if (entry->kind == ENTRY_COMMIT && entry->epoch != walk->epoch)
        return "a commit of an epoch that has no fence";
    if (entry->object_id < walk->next_object_id)
        return "its object id was used before";
    for (uint32_t i = 0; i < entry->extent_count; i++)
        if (entry->extents[i].page >= walk->pages || entry->extents[i].count > walk->pages - entry->extents[i].page)
            return "an extent lies beyond the end of the disk";
    return NULL;
}

static bool audit_entry(struct audit *audit, const char *key, struct log_walk *walk)
{
    struct object object;
    struct entry entry;
    struct error error = ERROR_NONE;
    uint8_t hash[SHA256_BYTES];
    if (!fetch(audit, key, &object))
        return false;
    if (entry_decode(object.bytes, object.length, &entry, hash, &error) < 0) {
        sim_fail(audit->sim, "audit: %s: %s", key, error.story);
        free(object.bytes);
        return false;
    }
    const char *fault = entry_fault(walk, &entry);
    if (fault != NULL)
        sim_fail(audit->sim, "audit: %s: %s", key, fault);
    bool fine = fault == NULL && audit_frames(audit, key, &object, &entry, 0) && audit_data(audit, &entry);
    walk->next_seq++;
    walk->epoch = entry.epoch;
    walk->next_object_id = entry.object_id + 1 + entry.object_count;
    memcpy(walk->hash, hash, SHA256_BYTES);
    entry_free(&entry);
    free(object.bytes);
    return fine;
}

/* Calls visit() for each key under the prefix until it says no. */
static void each_key(struct audit *audit, const char *prefix, bool (*visit)(struct audit *, const char *key, void *arg),
                     void *arg)
{
    char after[STORE_KEY_MAX + 1] = "";
    bool more = true;
    while (more) {
        struct store_listing listing;
        struct error error = ERROR_NONE;
        if (store_list(audit->store, prefix, after, STORE_LIST_MAX, &listing, &error) < 0) {
            sim_fail(audit->sim, "audit: %s", error.story);
            return;
        }
        more = listing.more;
        for (size_t i = 0; i < listing.count; i++) {
            snprintf(after, sizeof after, "%s", listing.entries[i].key);
            if (!visit(audit, after, arg)) {
                store_listing_free(&listing);
                return;
            }
        }
        store_listing_free(&listing);
    }
}

static bool visit_entry(struct audit *audit, const char *key, void *arg)
{
    return audit_entry(audit, key, arg);
}

static bool audit_register(struct audit *audit, const char *key, struct register_body *ret_body)
{
    struct object object;
    struct error error = ERROR_NONE;
    char expected[KEY_MAX];
    if (!fetch(audit, key, &object))
        return false;
    int code = register_decode(object.bytes, object.length, ret_body, &error);
    free(object.bytes);
    if (code < 0) {
        sim_fail(audit->sim, "audit: %s: %s", key, error.story);
        return false;
    }
    key_register(ret_body->name, ret_body->name_length, expected);
    if (strcmp(expected, key) == 0 && ret_body->state == REGISTER_LIVE)
        return true;
    sim_fail(audit->sim, "audit: %s: the register inside is another volume's, or in a wrong state", key);
    register_free(ret_body);
    return false;
}

/* What a pin keeps is there: its base agrees with the log, which goes on from there to the pinned entry. */
static void audit_pins(struct audit *audit, const struct register_body *body, uint64_t last_seq)
{
    for (uint32_t i = 0; i < body->pin_count && !audit->sim->failed; i++) {
        const struct pin *pin = &body->pins[i];
        struct register_body then = *body;
        then.newest = pin->base;
        audit_root(audit->sim, audit->store, &then);
        if (pin->seq < pin->base.seq || pin->seq > last_seq)
            sim_fail(audit->sim, "audit: entry %" PRIu64 " is pinned, and cannot be reached from the root at %" PRIu64,
                     pin->seq, pin->base.seq);
    }
}

static bool visit_register(struct audit *audit, const char *key, void *arg)
{
    struct register_body body;
    if (!audit_register(audit, key, &body))
        return false;
    struct log_walk walk = {
        .uuid = body.uuid,
        .next_seq = 1,
        .epoch = 0,
        .next_object_id = 1,
        .cloned = audit->sim->clone != NULL,
        .pages = (body.newest.size + PAGE_BYTES - 1) / PAGE_BYTES,
    };
    char prefix[KEY_MAX];
    key_log_prefix(&body.uuid, prefix);
    each_key(audit, prefix, visit_entry, &walk);
    if (!audit->sim->failed)
        audit_root(audit->sim, audit->store, &body);
    if (!audit->sim->failed)
        audit_pins(audit, &body, walk.next_seq - 1);
    if (!audit->sim->failed && body.committed >= walk.next_seq)
        sim_fail(audit->sim, "audit: %s says that slot %" PRIu64 " is committed, the log ends at %" PRIu64, key,
                 body.committed, walk.next_seq - 1);
    register_free(&body);
    return !audit->sim->failed;
}

static bool visit_any(struct audit *audit, const char *key, void *arg)
{
    struct uuid uuid;
    uint64_t seq, epoch, n;
    if (strcmp(key, KEY_MARKER) == 0 || strncmp(key, KEY_REGISTERS, strlen(KEY_REGISTERS)) == 0 ||
        key_parse_log(key, &uuid, &seq) || key_parse_data(key, &uuid, &epoch, &n))
        return true;
    sim_fail(audit->sim, "audit: %s: no such kind of object", key);
    return false;
}

void audit_store(struct sim *sim)
{
    struct audit audit = { .sim = sim, .store = sim_store(sim) };
    each_key(&audit, "", visit_any, NULL);
    if (!sim->failed)
        each_key(&audit, KEY_REGISTERS, visit_register, NULL);
    store_close(audit.store);
}

void audit_checkpoint(struct sim *sim, const char *name)
{
    struct audit audit = { .sim = sim, .store = sim_store(sim) };
    struct register_body body;
    char key[KEY_MAX];
    key_register(name, strlen(name), key);
    if (audit_register(&audit, key, &body)) {
        audit_root(sim, audit.store, &body);
        register_free(&body);
    }
    store_close(audit.store);
}

bool audit_ownership(struct sim *sim, const char *name, struct audit_ownership *ret_ownership)
{
    struct store *store = sim_store(sim);
    struct object object;
    struct register_body body;
    char key[KEY_MAX];
    bool found = false;
    key_register(name, strlen(name), key);
    if (store_get_whole(store, key, REGISTER_BYTES_MAX, &object.bytes, &object.length, NULL, NULL) == 0) {
        found = register_decode(object.bytes, object.length, &body, NULL) == 0;
        free(object.bytes);
    }
    store_close(store);
    if (!found)
        return false;
    *ret_ownership =
        (struct audit_ownership){ .process = body.held ? body.process : 0, .epoch = body.epoch, .uuid = body.uuid };
    register_free(&body);
    return true;
}
