/* Roots: what a checkpoint says, piece by piece, and whether it says the same
 * everywhere.
 *
 *     root     against the register: the same volume, entry, size, next id
 *     rows     own ones and those of chunks, as far as these can be found from
 *              each other; against the listing
 *     mids     and their leaves (check_leaves.c): against rows and the disk's size
 *     graves   the whole chain, for the newest root; against rows and the listing
 *     counts   of every row, against what was found to name its object
 *
 * Whether a log entry made what the rows say is asked when the log is read. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/check_internal.h"

/* ---- rows ---- */

struct check_row *check_root_row(const struct check_root *root, uint64_t id)
{
    uint32_t index = id_hash_find(&root->by_id, id);
    return index == ID_HASH_NONE ? NULL : &root->rows[index];
}

void check_row_place(const struct checking *checking, const struct check_row *row, struct frame_place *ret_place,
                     char ret_key[KEY_MAX])
{
    struct frame_place place = { .uuid = checking->body.uuid, .kind = (enum object_kind)row->kind };
    if (row->kind == OBJECT_LOG) {
        place.seq = row->epoch_or_seq;
        key_log(&place.uuid, place.seq, ret_key);
    } else {
        place.epoch = row->epoch_or_seq;
        place.n = row->n;
        key_data(&place.uuid, place.epoch, place.n, ret_key);
    }
    *ret_place = place;
}

/* The object of a row that is in use or has died, against the listing. Whether log entries are there is said once, of
 * the log. */
static void check_listed(struct checking *checking, const struct object_row *row)
{
    if (row->kind != OBJECT_DATA)
        return;
    struct listed_object *listed = listing_find(&checking->listing, row->epoch, row->n);
    char key[KEY_MAX];
    key_data(&row->uuid, row->epoch, row->n, key);
    if (listed == NULL) {
        check_found(checking, CHECK_MISSING, key, "it is not there: object %" PRIu64, row->id);
        return;
    }
    listed->named = true;
    if (listed->bytes != row->total_bytes)
        check_found(checking, CHECK_DAMAGED, key, "it has %" PRIu64 " bytes, and object %" PRIu64 " has %" PRIu64,
                    listed->bytes, row->id, row->total_bytes);
}

/* What every row must be, whether its object lives or has died. */
static bool check_row(struct checking *checking, const struct check_root *root, const struct object_row *row)
{
    const char *wrong = NULL;
    if (!uuid_equal(&row->uuid, &checking->body.uuid)) {
        check_found(checking, CHECK_FOREIGN, root->key, "object %" PRIu64 " is of another volume", row->id);
        return false;
    }
    if (row->id >= root->frame.next_object_id)
        wrong = "has an id that was not given out yet";
    else if (row->born > root->frame.seq || (row->died != UINT64_MAX && row->died > root->frame.seq))
        wrong = "was born or died after the checkpoint";
    else if (row->kind == OBJECT_LOG && row->born != row->seq)
        wrong = "is a log entry that was not born with itself";
    if (wrong != NULL)
        check_found(checking, CHECK_INCONSISTENT, root->key, "checkpoint %" PRIu64 ": object %" PRIu64 " %s",
                    root->frame.seq, row->id, wrong);
    check_listed(checking, row);
    return true;
}

static void add_row(struct checking *checking, struct check_root *root, const struct object_row *row)
{
    if (!check_row(checking, root, row)) {
        root->whole = false;
        return;
    }
    if (check_root_row(root, row->id) != NULL) {
        check_found(checking, CHECK_INCONSISTENT, root->key,
                    "checkpoint %" PRIu64 ": object %" PRIu64 " is listed twice", root->frame.seq, row->id);
        return;
    }
    if (root->row_count == root->row_capacity) {
        root->row_capacity = root->row_capacity == 0 ? 256 : 2 * root->row_capacity;
        root->rows = memory_resize(root->rows, root->row_capacity, sizeof *root->rows);
    }
    id_hash_add(&root->by_id, row->id, root->row_count);
    root->rows[root->row_count++] = (struct check_row){
        .id = row->id,
        .epoch_or_seq = row->kind == OBJECT_LOG ? row->seq : row->epoch,
        .n = row->n,
        .born = row->born,
        .bytes = (uint32_t)row->total_bytes,
        .live = row->live,
        .start = UINT32_MAX,
        .kind = (uint8_t)row->kind,
        .role = (uint8_t)row->role,
    };
}

/* ---- the root ---- */

static const char *difference(const struct root *root, const struct root_frame *frame)
{
    if (!uuid_equal(&root->uuid, &frame->uuid))
        return "volume";
    if (root->seq != frame->seq)
        return "log entry";
    if (memcmp(root->hash, frame->hash, SHA256_BYTES) != 0)
        return "hash";
    if (root->size != frame->size)
        return "size";
    return root->next_object_id != frame->next_object_id ? "next object id" : NULL;
}

static CO bool read_root_frame(struct checking *checking, struct check_root *root)
{
    const struct root *at = root->root;
    struct frame_place place = { .uuid = at->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = at->epoch,
                                 .n = at->n,
                                 .offset = (uint64_t)at->start * FRAME_UNIT };
    struct frame_header header;
    const uint8_t *payload;
    struct error error = ERROR_NONE;
    size_t length = (size_t)at->units * FRAME_UNIT;
    uint8_t *bytes = memory_new(length);
    int status = check_get(checking, root->key, place.offset, bytes, length, &error);
    if (status == 0)
        status = check_frame(bytes, at->units, &place, FRAME_ROOT, &header, &payload, &error);
    if (status == 0)
        status = root_frame_decode(payload, header.stored_bytes, &root->frame, &error);
    free(bytes);
    if (status < 0)
        check_judge(checking, root->key, status, &error);
    return status == 0;
}

static bool compare_root(struct checking *checking, struct check_root *root)
{
    const struct root *at = root->root;
    const char *differs = difference(at, &root->frame);
    if (differs != NULL) {
        check_found(checking, CHECK_INCONSISTENT, root->key,
                    "at byte %" PRIu64 ": root: it has another %s than the register says of it",
                    (uint64_t)at->start * FRAME_UNIT, differs);
        return false;
    }
    for (uint32_t i = 0; i < root->frame.own_count; i++) {
        const struct object_row *row = &root->frame.own[i];
        if (row->id == at->object_id && row->epoch == at->epoch && row->n == at->n)
            return true;
    }
    check_found(checking, CHECK_INCONSISTENT, root->key,
                "at byte %" PRIu64 ": root: it does not list the object that it lies in",
                (uint64_t)at->start * FRAME_UNIT);
    return true;
}

/* ---- pieces that the root names ---- */

bool check_count_piece(struct checking *checking, struct check_root *root, const char *what, uint64_t number,
                       const struct piece_place *place)
{
    struct check_row *row = check_root_row(root, place->object);
    const char *wrong = NULL;
    if (row == NULL)
        wrong = root->whole ? "which is in no list" : NULL;
    else if (row->kind != OBJECT_DATA || row->role != ROLE_PIECES)
        wrong = "which holds no pieces";
    else if (((uint64_t)place->start + place->units) * FRAME_UNIT > row->bytes)
        wrong = "which ends before";
    if (wrong != NULL)
        check_found(checking, CHECK_INCONSISTENT, root->key,
                    "checkpoint %" PRIu64 ": %s %" PRIu64 " lies in object %" PRIu64 ", %s", root->frame.seq, what,
                    number, place->object, wrong);
    if (row == NULL || wrong != NULL) {
        root->whole = false;
        return false;
    }
    row->counted++;
    return true;
}

void check_place_of_piece(void *arg, uint64_t object, struct frame_place *ret_place, char ret_key[KEY_MAX])
{
    struct piece_reading *reading = arg;
    check_row_place(reading->checking, check_root_row(reading->root, object), ret_place, ret_key);
}

void check_piece_failed(void *arg)
{
    struct piece_reading *reading = arg;
    reading->root->whole = false;
}

static void take_chunk(void *arg, const struct part *parts, size_t count, const struct frame_place *place,
                       const char *key, const uint8_t *bytes)
{
    struct piece_reading *reading = arg;
    struct check_root *root = reading->root;
    const struct root_chunk *named = &root->frame.chunks[parts[0].what];
    struct frame_header header;
    const uint8_t *payload;
    struct objects_frame chunk = { .row_count = 0 };
    struct error error = ERROR_NONE;
    int status = check_frame(bytes, parts[0].units, place, FRAME_OBJECTS, &header, &payload, &error);
    if (status == 0 && (status = objects_decode(payload, header.stored_bytes, &chunk, &error)) < 0)
        error_context(&error, "at byte %" PRIu64, place->offset);
    if (status == 0 &&
        (count > 1 || chunk.graves || chunk.first_id != named->first_id || chunk.row_count != named->row_count)) {
        status = error_set(&error, EBADMSG,
                           "at byte %" PRIu64 ": it is not the chunk of %" PRIu32 " objects from id %" PRIu64
                           " that a root names",
                           place->offset, named->row_count, named->first_id);
    }
    uint64_t past = root_chunk_past(&root->frame, (uint32_t)parts[0].what);
    if (status == 0 && chunk.rows[chunk.row_count - 1].id >= past)
        status = error_set(&error, EBADMSG,
                           "at byte %" PRIu64 ": the chunk from id %" PRIu64 " has object %" PRIu64
                           ", and ends before id %" PRIu64,
                           place->offset, named->first_id, chunk.rows[chunk.row_count - 1].id, past);
    if (status < 0) {
        check_judge(reading->checking, key, status, &error);
        root->whole = false;
    }
    for (uint32_t i = 0; i < chunk.row_count && status == 0; i++)
        add_row(reading->checking, root, &chunk.rows[i]);
    objects_frame_free(&chunk);
}

/* A chunk may lie in an object whose row is in another chunk. */
static CO void read_chunks(struct checking *checking, struct check_root *root)
{
    const struct root_frame *frame = &root->frame;
    struct piece_reading reading = { .checking = checking, .root = root };
    const struct parts_reader reader = { .place = check_place_of_piece,
                                         .take = take_chunk,
                                         .failed = check_piece_failed,
                                         .arg = &reading,
                                         .what = "chunks" };
    struct part *parts = memory_array((size_t)frame->chunk_count + 1, sizeof *parts);
    bool *taken = memory_array((size_t)frame->chunk_count + 1, sizeof *taken);
    size_t round;
    do {
        round = 0;
        for (uint32_t i = 0; i < frame->chunk_count; i++) {
            const struct piece_place *place = &frame->chunks[i].place;
            if (taken[i] || check_root_row(root, place->object) == NULL)
                continue;
            taken[i] = true;
            if (check_count_piece(checking, root, "chunk", frame->chunks[i].first_id, place))
                parts[round++] = (struct part){ place->object, place->start, place->units, i };
        }
        checking->counts->pieces += round;
        parts_read(checking, &reader, parts, round);
    } while (round > 0 && checking->status == 0);
    for (uint32_t i = 0; i < frame->chunk_count; i++)
        if (!taken[i])
            check_count_piece(checking, root, "chunk", frame->chunks[i].first_id, &frame->chunks[i].place);
    free(taken);
    free(parts);
}

/* ---- graves ---- */

static int compare_row_keys(const void *a, const void *b)
{
    const struct check_row *left = *(struct check_row *const *)a, *right = *(struct check_row *const *)b;
    if (left->epoch_or_seq != right->epoch_or_seq)
        return left->epoch_or_seq < right->epoch_or_seq ? -1 : 1;
    return left->n < right->n ? -1 : left->n > right->n;
}

/* Rows of objects that hold pieces, by their keys: graves are named by those. The caller frees it. */
static struct check_row **rows_by_key(const struct check_root *root, uint32_t *ret_count)
{
    struct check_row **rows = memory_array((size_t)root->row_count + 1, sizeof(struct check_row *));
    uint32_t count = 0;
    for (uint32_t i = 0; i < root->row_count; i++)
        if (root->rows[i].kind == OBJECT_DATA && root->rows[i].role == ROLE_PIECES)
            rows[count++] = &root->rows[i];
    qsort(rows, count, sizeof(struct check_row *), compare_row_keys);
    *ret_count = count;
    return rows;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void take_graves(struct checking *checking, struct check_root *root, const struct objects_frame *graves)
{
    for (uint32_t i = 0; i < graves->row_count; i++) {
        const struct object_row *row = &graves->rows[i];
        if (!check_row(checking, root, row))
            continue;
        if (check_root_row(root, row->id) != NULL)
            check_found(checking, CHECK_INCONSISTENT, root->key,
                        "checkpoint %" PRIu64 ": object %" PRIu64 " is in use, and in graves, too", root->frame.seq,
                        row->id);
        if (root->grave_count == root->grave_capacity) {
            root->grave_capacity = root->grave_capacity == 0 ? GRAVES_MAX : 2 * root->grave_capacity;
            root->graves = memory_resize(root->graves, root->grave_capacity, sizeof *root->graves);
        }
        root->graves[root->grave_count++] = row->id;
    }
}

/* One frame of graves; false: it could not be read. */
static CO bool read_grave_frame(struct checking *checking, const char *key, const struct frame_place *place,
                                uint32_t units, struct objects_frame *ret_graves)
{
    struct error error = ERROR_NONE;
    struct frame_header header;
    const uint8_t *payload;
    size_t length = (size_t)units * FRAME_UNIT;
    uint8_t *bytes = memory_new(length);
    int status = check_get(checking, key, place->offset, bytes, length, &error);
    if (status == 0)
        status = check_frame(bytes, units, place, FRAME_OBJECTS, &header, &payload, &error);
    if (status == 0 && (status = objects_decode(payload, header.stored_bytes, ret_graves, &error)) < 0)
        error_context(&error, "at byte %" PRIu64, place->offset);
    free(bytes);
    if (status == 0 && !ret_graves->graves) {
        objects_frame_free(ret_graves);
        status = error_set(&error, EBADMSG, "at byte %" PRIu64 ": it is a chunk, and graves by what names it",
                           place->offset);
    }
    if (status < 0)
        check_judge(checking, key, status, &error);
    return status == 0;
}

/* Each frame names what was written before it, so the chain ends. */
static bool lies_before(const struct frame_place *older, const struct frame_place *younger)
{
    if (older->epoch != younger->epoch)
        return older->epoch < younger->epoch;
    return older->n != younger->n ? older->n < younger->n : older->offset < younger->offset;
}

static CO void read_graves(struct checking *checking, struct check_root *root)
{
    uint32_t piece_count;
    struct check_row **pieces = rows_by_key(root, &piece_count);
    struct frame_place place = root->frame.graves;
    uint32_t units = root->frame.graves_units;
    for (bool more = root->frame.has_graves; more && checking->status == 0;) {
        struct check_row wanted = { .epoch_or_seq = place.epoch, .n = place.n }, *at = &wanted;
        struct check_row **found = bsearch(&at, pieces, piece_count, sizeof at, compare_row_keys);
        char key[KEY_MAX];
        key_data(&place.uuid, place.epoch, place.n, key);
        if (found != NULL)
            (*found)->counted++;
        else if (root->whole)
            check_found(checking, CHECK_INCONSISTENT, root->key,
                        "checkpoint %" PRIu64 ": graves lie in %s, which is not in use", root->frame.seq, key);
        struct objects_frame graves;
        if (!read_grave_frame(checking, key, &place, units, &graves)) {
            root->whole = false;
            break;
        }
        checking->counts->pieces++;
        take_graves(checking, root, &graves);
        more = graves.has_previous;
        if (more && !lies_before(&graves.previous, &place)) {
            check_found(checking, CHECK_INCONSISTENT, key, "at byte %" PRIu64 ": it names younger graves as older ones",
                        place.offset);
            more = root->whole = false;
        }
        place = graves.previous;
        units = graves.previous_units;
        objects_frame_free(&graves);
    }
    free(pieces);
    if (root->grave_count > 0)
        qsort(root->graves, root->grave_count, sizeof *root->graves, compare_ids);
    for (uint32_t i = 1; i < root->grave_count; i++)
        if (root->graves[i] == root->graves[i - 1])
            check_found(checking, CHECK_INCONSISTENT, root->key,
                        "checkpoint %" PRIu64 ": object %" PRIu64 " died twice", root->frame.seq, root->graves[i]);
}

bool check_root_buried(const struct check_root *root, uint64_t id)
{
    return root->grave_count > 0 &&
           bsearch(&id, root->graves, root->grave_count, sizeof *root->graves, compare_ids) != NULL;
}

/* ---- counts ---- */

static void count_leaf(void *arg, struct check_root *root, const struct leaf *leaf)
{
    for (uint32_t i = 0; i < leaf->run_count; i++) {
        const struct leaf_run *run = &leaf->runs[i];
        struct check_row *row = check_root_row(root, run->object);
        row->counted += run->count;
        root->pages += run->count;
        row->start = run->start < row->start ? run->start : row->start;
        row->past = run->start + run->units > row->past ? run->start + run->units : row->past;
    }
}

static void compare_counts(struct checking *checking, const struct check_root *root)
{
    const char *key = root->key;
    if (!root->whole) /* that was told */
        return;
    if (root->pages != root->frame.mapped_pages)
        check_found(checking, CHECK_INCONSISTENT, key,
                    "checkpoint %" PRIu64 ": %" PRIu64 " pages are mapped by its leaves, and %" PRIu64 " by its root",
                    root->frame.seq, root->pages, root->frame.mapped_pages);
    for (uint32_t i = 0; i < root->row_count; i++) {
        const struct check_row *row = &root->rows[i];
        if (row->counted != row->live)
            check_found(checking, CHECK_INCONSISTENT, key,
                        "checkpoint %" PRIu64 ": object %" PRIu64 " has %" PRIu32 " live %s by its row, and %" PRIu32
                        " are named",
                        root->frame.seq, row->id, row->live, row->role == ROLE_PAGES ? "pages" : "pieces",
                        row->counted);
    }
}

/* ---- all of it ---- */

void check_root_read(struct checking *checking, struct check_root *root)
{
    const struct root *at = root->root;
    key_data(&at->uuid, at->epoch, at->n, root->key);
    if (!uuid_equal(&at->uuid, &checking->body.uuid)) {
        check_found(checking, CHECK_FOREIGN, checking->register_key,
                    "the root at log entry %" PRIu64 " is of another volume", at->seq);
        return;
    }
    if (!read_root_frame(checking, root) || !compare_root(checking, root))
        return;
    root->readable = root->whole = true;
    for (uint32_t i = 0; i < root->frame.own_count; i++)
        add_row(checking, root, &root->frame.own[i]);
    struct check_row *row = check_root_row(root, at->object_id);
    if (row != NULL)
        row->counted++;
    else
        root->whole = false; /* told when it was compared */
    checking->counts->pieces++;
    read_chunks(checking, root);
    check_leaves_walk(checking, root, true, count_leaf, NULL);
    read_graves(checking, root);
    if (checking->status == 0)
        compare_counts(checking, root);
}

void check_root_free(struct check_root *root)
{
    root_frame_free(&root->frame);
    id_hash_free(&root->by_id);
    free(root->rows);
    free(root->graves);
}
