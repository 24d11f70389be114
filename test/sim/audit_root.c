/* See audit_root.h.
 *
 * The log is folded here once more, from its first entry, in the simplest way
 * there is: a table of pages and a table of objects.  The checkpoint is read by
 * the product's decoders, whole: root, rows, mids, leaves, graves.  Both must
 * agree.  Pieces are counted: each object of pieces must say how many of them
 * are named. */
#include "audit_root.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/format/checkpoint.h"

/* Where a page lies. */
struct place {
    uint64_t page;
    uint64_t object;
    uint32_t start, units;
    uint8_t frame_page, frame_pages;
    bool found;   /* in the checkpoint */
    bool adopted; /* its object's id is that of the checkpoint */
};

struct thing { /* an object */
    struct object_row row;
    uint32_t counted; /* of a checkpoint's row: what was found of it */
    bool found;
    bool adopted; /* its id is that of the checkpoint */
};

struct audit {
    struct sim *sim;
    struct store *store;
    const struct register_body *body;
    struct place *places; /* by the log: unsorted while folding, then by page */
    size_t place_count, place_capacity;
    struct thing *things; /* by the log, ascending by id */
    size_t thing_count, thing_capacity;
    struct thing *rows; /* by the checkpoint */
    size_t row_count, row_capacity;
    uint64_t next_object_id;
    uint8_t hash[SHA256_BYTES];
    uint64_t pages_found;
};

static bool broken(struct audit *audit, const char *what, uint64_t number, const char *why)
{
    sim_fail(audit->sim, "audit: '%.*s', checkpoint at log entry %" PRIu64 ": %s %" PRIu64 ": %s",
             (int)audit->body->name_length, audit->body->name, audit->body->newest.seq, what, number, why);
    return false;
}

static bool unreadable(struct audit *audit, const struct error *error)
{
    sim_fail(audit->sim, "audit: '%.*s', checkpoint at log entry %" PRIu64 ": %s", (int)audit->body->name_length,
             audit->body->name, audit->body->newest.seq, error->story);
    return false;
}

static bool fetch(struct audit *audit, const char *key, uint8_t **ret_bytes, size_t *ret_length)
{
    struct error error = ERROR_NONE;
    if (store_get_whole(audit->store, key, STORE_OBJECT_MAX, ret_bytes, ret_length, NULL, &error) < 0)
        return unreadable(audit, &error);
    return true;
}

/* ---- the log ---- */

static void remove_pages(struct audit *audit, uint64_t first, uint64_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < audit->place_count; i++) {
        const struct place *place = &audit->places[i];
        if (place->page < first || place->page - first >= count) {
            audit->places[kept++] = *place;
            continue;
        }
        for (size_t j = 0; j < audit->thing_count; j++)
            if (audit->things[j].row.id == place->object)
                audit->things[j].row.live--;
    }
    audit->place_count = kept;
}

static void add_page(struct audit *audit, const struct place *place)
{
    if (audit->place_count == audit->place_capacity) {
        audit->place_capacity = audit->place_capacity == 0 ? 256 : audit->place_capacity * 2;
        audit->places = memory_resize(audit->places, audit->place_capacity, sizeof *audit->places);
    }
    audit->places[audit->place_count++] = *place;
}

static void add_thing(struct thing **things, size_t *count, size_t *capacity, const struct object_row *row)
{
    if (*count == *capacity) {
        *capacity = *capacity == 0 ? 64 : *capacity * 2;
        *things = memory_resize(*things, *capacity, sizeof **things);
    }
    (*things)[(*count)++] = (struct thing){ .row = *row };
}

static void fold_extent(struct audit *audit, const struct entry *entry, const struct commit_extent *extent)
{
    remove_pages(audit, extent->page, extent->count);
    if (extent->kind == EXTENT_ZERO)
        return;
    uint64_t id = entry->object_id + extent->object;
    for (uint32_t i = 0; i < extent->count; i++)
        add_page(audit, &(struct place){ .page = extent->page + i,
                                         .object = id,
                                         .start = extent->start,
                                         .units = extent->units,
                                         .frame_page = (uint8_t)(extent->frame_page + i),
                                         .frame_pages = (uint8_t)extent->frame_pages });
    for (size_t j = 0; j < audit->thing_count; j++)
        if (audit->things[j].row.id == id)
            audit->things[j].row.live += (uint32_t)extent->count;
}

static void fold(struct audit *audit, const struct entry *entry)
{
    bool rides = false;
    for (uint32_t i = 0; i < entry->extent_count; i++)
        rides = rides || (entry->extents[i].kind == EXTENT_PAGES && entry->extents[i].object == 0);
    for (uint32_t i = 0; i <= entry->object_count; i++) {
        struct object_row row = { .id = entry->object_id + i,
                                  .kind = i == 0 ? OBJECT_LOG : OBJECT_DATA,
                                  .role = ROLE_PAGES,
                                  .uuid = entry->uuid,
                                  .seq = i == 0 ? entry->seq : 0,
                                  .epoch = i == 0 ? 0 : entry->objects[i - 1].epoch,
                                  .n = i == 0 ? 0 : entry->objects[i - 1].n,
                                  .born = entry->seq,
                                  .died = UINT64_MAX,
                                  .total_bytes = i == 0 ? entry->inline_bytes : entry->objects[i - 1].bytes };
        if (i > 0 || rides)
            add_thing(&audit->things, &audit->thing_count, &audit->thing_capacity, &row);
    }
    for (uint32_t i = 0; i < entry->extent_count; i++)
        fold_extent(audit, entry, &entry->extents[i]);
}

static bool read_entry(struct audit *audit, uint64_t seq, struct entry *ret_entry, uint8_t ret_hash[SHA256_BYTES])
{
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
    struct error error = ERROR_NONE;
    key_log(&audit->body->uuid, seq, key);
    if (!fetch(audit, key, &bytes, &length))
        return false;
    int status = entry_decode(bytes, length, ret_entry, ret_hash, &error);
    free(bytes);
    return status == 0 || unreadable(audit, &error);
}

static int by_page(const void *a, const void *b)
{
    const struct place *left = a, *right = b;
    return left->page < right->page ? -1 : left->page > right->page;
}

static bool fold_log(struct audit *audit)
{
    audit->next_object_id = 1;
    for (uint64_t seq = 1; seq <= audit->body->newest.seq; seq++) {
        struct entry entry;
        if (!read_entry(audit, seq, &entry, audit->hash))
            return false;
        fold(audit, &entry);
        audit->next_object_id = entry.object_id + 1 + entry.object_count;
        entry_free(&entry);
    }
    if (audit->place_count > 0)
        qsort(audit->places, audit->place_count, sizeof *audit->places, by_page);
    return true;
}

/* ---- the checkpoint ---- */

static bool same_object(const struct object_row *a, const struct object_row *b)
{
    return a->kind == b->kind && a->seq == b->seq && a->epoch == b->epoch && a->n == b->n &&
           uuid_equal(&a->uuid, &b->uuid);
}

static struct thing *find(struct thing *things, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (things[i].row.id == id)
            return &things[i];
    return NULL;
}

/* The payload of the frame at `place`, in memory of its own. */
static bool read_frame(struct audit *audit, const struct frame_place *place, uint32_t units, enum frame_kind kind,
                       uint8_t **ret_payload, size_t *ret_length)
{
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
    struct error error = ERROR_NONE;
    struct frame_header header;
    key_data(&place->uuid, place->epoch, place->n, key);
    if (!fetch(audit, key, &bytes, &length))
        return false;
    bool fits = place->offset + (uint64_t)units * FRAME_UNIT <= length;
    int status = fits ? frame_decode_header(bytes + place->offset, &header, &error)
                      : error_set(&error, EBADMSG, "%s: a frame lies beyond its end", key);
    struct iovec piece = { .iov_base = bytes + place->offset + FRAME_HEADER_BYTES };
    if (status == 0 && (frame_total_bytes(header.stored_bytes) != units * FRAME_UNIT || header.kind != kind))
        status = error_set(&error, EBADMSG, "%s: not the frame that is meant", key);
    if (status == 0) {
        piece.iov_len = header.stored_bytes;
        status = frame_verify(bytes + place->offset, place, &piece, 1, &header, &error);
    }
    if (status == 0) {
        *ret_payload = memory_copy(piece.iov_base, piece.iov_len);
        *ret_length = piece.iov_len;
    }
    free(bytes);
    return status == 0 || unreadable(audit, &error);
}

/* The same for a place whose object has a row; counts the piece. */
static bool read_piece(struct audit *audit, const struct piece_place *place, enum frame_kind kind,
                       uint8_t **ret_payload, size_t *ret_length)
{
    struct thing *thing = find(audit->rows, audit->row_count, place->object);
    if (thing == NULL || thing->row.role != ROLE_PIECES)
        return broken(audit, "object", place->object, "holds a piece, and is in no list of those that do");
    thing->counted++;
    struct frame_place here = { .uuid = thing->row.uuid,
                                .kind = OBJECT_DATA,
                                .epoch = thing->row.epoch,
                                .n = thing->row.n,
                                .offset = (uint64_t)place->start * FRAME_UNIT };
    return read_frame(audit, &here, place->units, kind, ret_payload, ret_length);
}

static bool compare_run(struct audit *audit, const struct leaf *leaf, const struct leaf_run *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        struct place wanted = { .page = leaf->number * LEAF_PAGES + run->first + i };
        struct place *place = audit->place_count == 0
                                  ? NULL
                                  : bsearch(&wanted, audit->places, audit->place_count, sizeof *audit->places, by_page);
        if (place == NULL)
            return broken(audit, "page", wanted.page, "is mapped, and a hole by the log");
        if (place->object != run->object || place->start != run->start || place->units != run->units ||
            place->frame_page != run->frame_page + i || place->frame_pages != run->frame_pages)
            return broken(audit, "page", wanted.page, "lies elsewhere by the log");
        if (place->found)
            return broken(audit, "page", wanted.page, "is mapped twice");
        place->found = true;
        audit->pages_found++;
    }
    return true;
}

static bool compare_leaf(struct audit *audit, uint64_t number, const struct piece_place *place)
{
    uint8_t *payload;
    size_t length;
    struct leaves_frame frame;
    struct error error = ERROR_NONE;
    if (!read_piece(audit, place, FRAME_LEAVES, &payload, &length))
        return false;
    int status = leaves_decode(payload, length, &frame, &error);
    free(payload);
    if (status < 0)
        return unreadable(audit, &error);
    bool there = false, fine = true;
    for (uint32_t i = 0; i < frame.leaf_count && fine; i++) {
        if (frame.leaves[i].number != number)
            continue;
        there = true;
        for (uint32_t j = 0; j < frame.leaves[i].run_count && fine; j++)
            fine = compare_run(audit, &frame.leaves[i], &frame.leaves[i].runs[j]);
    }
    leaves_frame_free(&frame);
    return fine && (there || broken(audit, "leaf", number, "is not in its frame"));
}

/* Where an owner was cloned, one copy may have published a root and the other one gone on with the log: then later
 * owners know the objects of that one by other ids than it did. */
static void adopt_ids(struct audit *audit, const struct object_row *row)
{
    for (size_t i = 0; i < audit->thing_count && audit->sim->clone != NULL; i++) {
        struct thing *thing = &audit->things[i];
        uint64_t id = thing->row.id;
        if (thing->adopted || id == row->id || row->role != ROLE_PAGES || !same_object(&thing->row, row))
            continue;
        thing->row.id = row->id;
        thing->adopted = true;
        for (size_t k = 0; k < audit->place_count; k++) {
            struct place *place = &audit->places[k];
            if (place->object != id || place->adopted)
                continue;
            place->object = row->id;
            place->adopted = true;
        }
    }
}

static bool compare_mid(struct audit *audit, const struct root_mid *mid)
{
    uint8_t *payload;
    size_t length;
    struct mid_frame frame;
    struct error error = ERROR_NONE;
    if (!read_piece(audit, &mid->place, FRAME_MIDS, &payload, &length))
        return false;
    int status = mid_decode(payload, length, &frame, &error);
    free(payload);
    if (status < 0)
        return unreadable(audit, &error);
    bool fine = frame.number == mid->number || broken(audit, "mid", mid->number, "is another one");
    for (uint32_t i = 0; i < frame.slot_count && fine; i++)
        fine = compare_leaf(audit, mid->number * MID_LEAVES + frame.slots[i].leaf, &frame.slots[i].place);
    mid_frame_free(&frame);
    return fine;
}

static bool add_row(struct audit *audit, const struct object_row *row)
{
    if (find(audit->rows, audit->row_count, row->id) != NULL)
        return broken(audit, "object", row->id, "is listed twice");
    add_thing(&audit->rows, &audit->row_count, &audit->row_capacity, row);
    return true;
}

/* past: behind its ids. */
static bool read_chunk(struct audit *audit, const struct root_chunk *chunk, uint64_t past)
{
    uint8_t *payload;
    size_t length;
    struct objects_frame frame;
    struct error error = ERROR_NONE;
    if (!read_piece(audit, &chunk->place, FRAME_OBJECTS, &payload, &length))
        return false;
    int status = objects_decode(payload, length, &frame, &error);
    free(payload);
    if (status < 0)
        return unreadable(audit, &error);
    bool fine = (!frame.graves && frame.first_id == chunk->first_id && frame.row_count == chunk->row_count) ||
                broken(audit, "chunk", chunk->first_id, "is another one");
    fine = fine && (frame.rows[frame.row_count - 1].id < past ||
                    broken(audit, "chunk", chunk->first_id, "has rows of the next one"));
    for (uint32_t i = 0; i < frame.row_count && fine; i++)
        fine = add_row(audit, &frame.rows[i]);
    objects_frame_free(&frame);
    return fine;
}

/* Those whose object is known, until there are no others. */
static bool read_chunks(struct audit *audit, const struct root_frame *root)
{
    bool *read = memory_array((size_t)root->chunk_count + 1, sizeof *read);
    bool progress = true, fine = true;
    uint32_t left = root->chunk_count;
    while (left > 0 && progress && fine) {
        progress = false;
        for (uint32_t i = 0; i < root->chunk_count && fine; i++) {
            if (read[i] || find(audit->rows, audit->row_count, root->chunks[i].place.object) == NULL)
                continue;
            fine = read_chunk(audit, &root->chunks[i], root_chunk_past(root, i));
            read[i] = progress = true;
            left--;
        }
    }
    free(read);
    return fine && (left == 0 || broken(audit, "object of a chunk", left, "is in no list"));
}

/* A dead object of the log, or one of pieces, which the log knows nothing of. */
static bool compare_grave(struct audit *audit, const struct object_row *grave)
{
    if (find(audit->rows, audit->row_count, grave->id) != NULL)
        return broken(audit, "object", grave->id, "is alive and in a grave");
    if (grave->died > audit->body->newest.seq || grave->died < grave->born)
        return broken(audit, "object", grave->id, "died at a wrong time");
    if (grave->role != ROLE_PAGES)
        return true;
    adopt_ids(audit, grave);
    struct thing *thing = find(audit->things, audit->thing_count, grave->id);
    if (thing == NULL || thing->row.live > 0)
        return broken(audit, "object", grave->id, "is in a grave, and not dead by the log");
    if (thing->found)
        return broken(audit, "object", grave->id, "is in two graves");
    thing->found = true;
    return true;
}

static bool compare_graves(struct audit *audit, const struct root_frame *root)
{
    bool more = root->has_graves, fine = true;
    struct frame_place place = root->graves;
    uint32_t units = root->graves_units;
    while (more && fine) {
        uint8_t *payload;
        size_t length;
        struct objects_frame frame;
        struct error error = ERROR_NONE;
        for (size_t i = 0; i < audit->row_count; i++)
            audit->rows[i].counted += audit->rows[i].row.role == ROLE_PIECES &&
                                      audit->rows[i].row.epoch == place.epoch && audit->rows[i].row.n == place.n;
        if (!read_frame(audit, &place, units, FRAME_OBJECTS, &payload, &length))
            return false;
        int status = objects_decode(payload, length, &frame, &error);
        free(payload);
        if (status < 0)
            return unreadable(audit, &error);
        for (uint32_t i = 0; i < frame.row_count && fine; i++)
            fine = compare_grave(audit, &frame.rows[i]);
        more = frame.has_previous;
        place = frame.previous;
        units = frame.previous_units;
        objects_frame_free(&frame);
    }
    return fine;
}

/* ---- the verdict ---- */

static bool compare_row(struct audit *audit, struct thing *row)
{
    if (row->row.role == ROLE_PIECES)
        return row->counted == row->row.live ||
               broken(audit, "object", row->row.id, "does not hold as many pieces as it says");
    struct thing *thing = find(audit->things, audit->thing_count, row->row.id);
    if (thing == NULL)
        return broken(audit, "object", row->row.id, "is not in the log");
    const struct object_row *a = &row->row, *b = &thing->row;
    thing->found = true;
    if (a->live != b->live)
        return broken(audit, "object", row->row.id, "has another number of live pages than by the log");
    return (a->kind == b->kind && a->epoch == b->epoch && a->n == b->n && a->seq == b->seq && a->born == b->born &&
            a->died == b->died && a->total_bytes == b->total_bytes && uuid_equal(&a->uuid, &b->uuid)) ||
           broken(audit, "object", row->row.id, "is not as the log describes it");
}

static bool compare(struct audit *audit, const struct root_frame *root)
{
    bool fine = true;
    for (size_t i = 0; i < audit->row_count; i++)
        adopt_ids(audit, &audit->rows[i].row);
    for (uint32_t i = 0; i < root->mid_count && fine; i++)
        fine = compare_mid(audit, &root->mids[i]);
    fine = fine && compare_graves(audit, root);
    for (size_t i = 0; i < audit->row_count && fine; i++)
        fine = compare_row(audit, &audit->rows[i]);
    for (size_t i = 0; i < audit->place_count && fine; i++)
        if (!audit->places[i].found)
            fine = broken(audit, "page", audit->places[i].page, "is mapped by the log, and not here");
    for (size_t i = 0; i < audit->thing_count && fine; i++)
        if (!audit->things[i].found)
            fine = broken(audit, "object", audit->things[i].row.id, "is of the log, and neither alive nor in a grave");
    return fine &&
           (audit->pages_found == root->mapped_pages || broken(audit, "mapped pages", root->mapped_pages, "is wrong"));
}

static bool read_root(struct audit *audit, struct root_frame *ret_frame)
{
    const struct root *root = &audit->body->newest;
    struct frame_place place = { .uuid = root->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = root->epoch,
                                 .n = root->n,
                                 .offset = (uint64_t)root->start * FRAME_UNIT };
    uint8_t *payload;
    size_t length;
    struct error error = ERROR_NONE;
    if (!read_frame(audit, &place, root->units, FRAME_ROOT, &payload, &length))
        return false;
    int status = root_frame_decode(payload, length, ret_frame, &error);
    free(payload);
    return status == 0 || unreadable(audit, &error);
}

static bool audit_frame(struct audit *audit)
{
    const struct root *root = &audit->body->newest;
    struct root_frame frame;
    if (!read_root(audit, &frame))
        return false;
    bool fine = true;
    for (uint32_t i = 0; i < frame.own_count && fine; i++)
        fine = add_row(audit, &frame.own[i]);
    struct thing *holder = find(audit->rows, audit->row_count, root->object_id);
    fine = fine && (holder != NULL || broken(audit, "object", root->object_id, "of the root is not its own"));
    if (fine)
        holder->counted++;
    fine = fine && read_chunks(audit, &frame) && compare(audit, &frame);
    root_frame_free(&frame);
    return fine;
}

/* The entry above the root has an id above all that the root set aside. */
static bool check_next_entry(struct audit *audit)
{
    char key[KEY_MAX];
    uint8_t *bytes;
    size_t length;
    struct entry entry;
    uint8_t hash[SHA256_BYTES];
    const struct root *root = &audit->body->newest;
    if (audit->next_object_id > root->next_object_id)
        return broken(audit, "next object id", root->next_object_id, "was used before");
    key_log(&audit->body->uuid, root->seq + 1, key);
    if (store_get_whole(audit->store, key, STORE_OBJECT_MAX, &bytes, &length, NULL, NULL) < 0)
        return true;
    int status = entry_decode(bytes, length, &entry, hash, NULL);
    free(bytes);
    if (status < 0)
        return true;                                                       /* the walk of the log tells */
    bool parted = audit->sim->clone != NULL && entry.epoch == root->epoch; /* see adopt_ids() */
    bool fine = entry.object_id >= root->next_object_id || parted ||
                broken(audit, "object id of the next entry", entry.object_id, "was set aside by the root");
    entry_free(&entry);
    return fine;
}

void audit_root(struct sim *sim, struct store *store, const struct register_body *body)
{
    const struct root *root = &body->newest;
    struct audit audit = { .sim = sim, .store = store, .body = body };
    if (root->seq == 0)
        return;
    bool fine = fold_log(&audit);
    if (fine && memcmp(audit.hash, root->hash, SHA256_BYTES) != 0)
        fine = broken(&audit, "log entry", root->seq, "has another hash than the root says");
    fine = fine && check_next_entry(&audit);
    if (fine && root->empty && audit.thing_count > 0)
        fine = broken(&audit, "log entries", root->seq, "hold something, and the root is empty");
    if (fine && !root->empty)
        fine = audit_frame(&audit);
    sim_trace(sim, "audit of the root at %" PRIu64 ": %zu pages, %zu objects: %s", root->seq, audit.place_count,
              audit.row_count, fine ? "fine" : "broken");
    free(audit.places);
    free(audit.things);
    free(audit.rows);
}
