/* What is in a checkpoint: leaves, mids, chunks, graves, the root.
 *
 * All of it is the state as of the snapshots, whatever is committed meanwhile.
 * The order matters, because each step changes what a later one says:
 *
 *     doomed     leaves that were cleared without being in memory are read, and
 *                what they mapped is given back
 *     leaves     frozen ones; those that are patches only are read first.  Each
 *                counts in its new object, and no more in its old one
 *     mids       those with a leaf that moved
 *     releases   of pieces that are written anew, and of the root before.  Each
 *                changes a row, whose chunk must be written too, which releases
 *                that one: until nothing more comes of it
 *     chunks     rows with the counts that all this left, those of CHUNK_IDS ids each; packed where those are too many
 *     graves     rows that have died by now
 *     root       counts of its own objects, itself included
 *
 * Mids and chunks that did not change stay where they are.  But all of them are
 * written anew where that is cheap (then they lie beside the root, and opening
 * takes one GET), and where they are scattered over so many objects that
 * opening would take too many requests.
 *
 * The steps go on in slices: memory for what is laid out is bounded, and others
 * must run.  Between two slices only the newest state changes, not the
 * snapshots. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/checkpoint_internal.h"
#include "vol/leaves.h"
#include "vol/pieces.h"

/* Doomed leaves that are read at once. */
#define CHARGERS 8u
/* Chunks that are put in order on the loop's own thread, a millisecond's work; and those encoded before others run. */
#define SORT_HERE_MOST 8192u
#define CHUNKS_A_SLICE 64u

/* ---- what the newest root names ---- */

/* Index of the first that is not below `key`. */
static uint32_t placed_index(const struct placed_list *list, uint64_t key)
{
    uint32_t first = 0, past = list->count;
    while (first < past) {
        uint32_t middle = first + (past - first) / 2;
        if (list->at[middle].key < key)
            first = middle + 1;
        else
            past = middle;
    }
    return first;
}

struct placed *placed_find(const struct placed_list *list, uint64_t key)
{
    uint32_t index = placed_index(list, key);
    return index < list->count && list->at[index].key == key ? &list->at[index] : NULL;
}

void placed_set(struct placed_list *list, const struct placed *placed)
{
    uint32_t index = placed_index(list, placed->key);
    if (index == list->count || list->at[index].key != placed->key) {
        if (list->count == list->capacity) {
            list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
            list->at = memory_resize(list->at, list->capacity, sizeof *list->at);
        }
        memmove(&list->at[index + 1], &list->at[index], (list->count - index) * sizeof *list->at);
        list->count++;
    }
    list->at[index] = *placed;
}

/* Takes out those that were given back and not written anew. */
static void placed_drop_released(struct placed_list *list)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < list->count; i++)
        if (list->at[i].place.object != OBJECT_NONE)
            list->at[kept++] = list->at[i];
    list->count = kept;
}

static void release(struct checkpoint *checkpoint, struct placed *placed)
{
    if (placed == NULL || placed->place.object == OBJECT_NONE)
        return;
    object_table_live_both(checkpoint->volume->objects, placed->place.object, -1);
    placed->place.object = OBJECT_NONE;
}

static struct piece_place piece_place_of(const struct checkpoint *checkpoint, const struct leaf_place *place)
{
    return (struct piece_place){ .object = object_table_row(checkpoint->volume->objects, place->object)->id,
                                 .start = place->start,
                                 .units = place->units };
}

/* ---- doomed leaves ---- */

struct charging {
    struct checkpoint *checkpoint;
    struct doomed_leaf *doomed;
    size_t count, next; /* not yet taken by a charger */
    uint32_t chargers;
    bool cancelled;
};

/* All doomed leaves of one frame: [first, past). */
static int charge_frame(struct charging *charging, size_t first, size_t past, struct error *error)
{
    struct volume *volume = charging->checkpoint->volume;
    struct leaves_frame frame;
    int status = leaves_read(volume, &charging->doomed[first].place, &frame, error);
    if (status < 0)
        return status;
    uint32_t at = 0;
    size_t charged = first;
    for (; charged < past && status == 0; charged++) {
        const struct doomed_leaf *doomed = &charging->doomed[charged];
        while (at < frame.leaf_count && frame.leaves[at].number < doomed->number)
            at++;
        if (at == frame.leaf_count || frame.leaves[at].number != doomed->number)
            status = error_set(error, EBADMSG, "leaf %llu is not in the frame that the map names",
                               (unsigned long long)doomed->number);
        else
            status = map_charge_doomed(volume->map, doomed, &frame.leaves[at], error);
    }
    leaves_frame_free(&frame);
    assert(status < 0 || charged == past);
    return status;
}

static void charge_task(void *arg)
{
    struct charging *charging = arg;
    while (charging->next < charging->count && !charging->cancelled) {
        size_t first = charging->next, past = first + 1;
        const struct leaf_place *place = &charging->doomed[first].place;
        while (past < charging->count && charging->doomed[past].place.object == place->object &&
               charging->doomed[past].place.start == place->start)
            past++;
        charging->next = past;
        struct error error = ERROR_NONE;
        int status = charge_frame(charging, first, past, &error);
        while (status < 0 && checkpoint_wait_for_better(charging->checkpoint, status, &error) == 0)
            status = charge_frame(charging, first, past, &error);
        charging->cancelled = charging->cancelled || status < 0;
    }
    charging->chargers--;
    waitq_wake_all(&charging->checkpoint->progress);
}

int state_charge_doomed(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    struct charging charging = { .checkpoint = checkpoint };
    charging.doomed = map_take_doomed(volume->map, &charging.count);
    if (charging.count == 0)
        return 0;
    struct group group;
    group_init(&group, volume->loop);
    for (; charging.chargers < CHARGERS && charging.chargers < charging.count; charging.chargers++)
        group_spawn(&group, "charge", charge_task, &charging);
    while (charging.chargers > 0 && !charging.cancelled)
        if (waitq_wait(&checkpoint->progress) < 0)
            charging.cancelled = true;
    if (charging.cancelled)
        group_cancel(&group);
    group_join(&group);
    free(charging.doomed);
    return charging.cancelled ? -ECANCELED : 0;
}

/* ---- leaves ---- */

struct leaf_walk {
    struct checkpoint *checkpoint;
    struct leaves_writer *writer;
    uint64_t *numbers; /* of the leaves in it */
    uint32_t capacity;
    struct buffer payload;
};

static void remember_number(struct leaf_walk *walk, uint64_t number)
{
    uint32_t count = leaves_writer_count(walk->writer);
    if (count > walk->capacity) {
        walk->capacity = count * 2;
        walk->numbers = memory_resize(walk->numbers, walk->capacity, sizeof *walk->numbers);
    }
    walk->numbers[count - 1] = number;
}

/* The frame is complete: its leaves have a place. */
static void finish_frame(struct leaf_walk *walk)
{
    struct checkpoint *checkpoint = walk->checkpoint;
    uint32_t count = leaves_writer_count(walk->writer);
    if (count == 0)
        return;
    leaves_writer_finish(walk->writer, &walk->payload);
    struct leaf_place place = own_frame(checkpoint, FRAME_LEAVES, &walk->payload, count);
    for (uint32_t i = 0; i < count && place.object != OBJECT_NONE; i++)
        map_snapshot_placed(checkpoint->volume->map, walk->numbers[i], &place);
    budget_charge_map(checkpoint->volume);
    commit_kick(checkpoint->volume);                /* it may have waited for this, */
    page_pool_retry(checkpoint->volume->all->pool); /* and others for leaves that may be evicted now */
}

#ifdef CAIRN_MUTANTS
/* A checkpoint of what the disk reads now, in place of what is committed: pages that were written since are left out.
 */
static void mutant_leave_out_dirty(const struct volume *volume, struct leaf *leaf)
{
    static struct leaf_run kept[LEAF_PAGES];
    uint32_t count = 0;
    if (!MUTANT(checkpoint_of_dirty_index))
        return;
    for (uint32_t i = 0; i < leaf->run_count; i++)
        if (dirty_page(volume->dirty, leaf->number * LEAF_PAGES + leaf->runs[i].first) == NULL || count == 0)
            kept[count++] = leaf->runs[i];
    leaf->runs = kept;
    leaf->run_count = count;
}
#else
#define mutant_leave_out_dirty(volume, leaf) ((void)0)
#endif

/* False: there is no room for it in the frame. */
static bool write_leaf(struct leaf_walk *walk, struct leaf *leaf)
{
    if (leaf->run_count == 0) {
        map_snapshot_placed(walk->checkpoint->volume->map, leaf->number, &(struct leaf_place){ .object = OBJECT_NONE });
        return true;
    }
    uint64_t number = leaf->number;
    mutant_leave_out_dirty(walk->checkpoint->volume, leaf);
    if (!leaves_writer_add(walk->writer, leaf))
        return false;
    remember_number(walk, number);
    return true;
}

/* Loads of leaves that the walk will come to. */
static void load_ahead(struct checkpoint *checkpoint, uint64_t cursor)
{
    struct volume *volume = checkpoint->volume;
    struct leaf_place places[CHECKPOINT_LOADS];
    uint32_t count = map_snapshot_ahead(volume->map, cursor, places, CHECKPOINT_LOADS);
    for (uint32_t i = 0; i < count && leaves_under_way(volume) < CHECKPOINT_LOADS; i++)
        leaves_start(volume, &places[i]);
}

/* Loads what the walk needs at `cursor`; *loaded: where it was loaded last, and did not come if that is here. */
static int load_one(struct checkpoint *checkpoint, const struct leaf_place *place, uint64_t cursor, uint64_t *loaded)
{
    struct error error = ERROR_NONE;
    int status;
    if (*loaded == cursor) {
        struct frame_place here = own_place(checkpoint, place);
        error_set(&error, EBADMSG, "a leaf is not in this frame, which the map names for it");
        status = piece_blame(&here, &error);
    } else {
        status = leaves_load(checkpoint->volume, place, &error);
    }
    *loaded = status == 0 ? cursor : UINT64_MAX;
    if (status < 0 && !coroutine_cancelled())
        return checkpoint_wait_for_better(checkpoint, status, &error);
    return status;
}

static int walk_leaves(struct leaf_walk *walk)
{
    struct checkpoint *checkpoint = walk->checkpoint;
    struct map *map = checkpoint->volume->map;
    uint64_t cursor = 0, loaded = UINT64_MAX;
    load_ahead(checkpoint, cursor);
    for (;;) {
        struct leaf leaf;
        struct leaf_place place;
        uint64_t here = cursor;
        int status = map_snapshot_next(map, &cursor, &leaf, &place);
        if (status == 0)
            break;
        if (status == 1) {
            checkpoint->stuck = false;
            if (write_leaf(walk, &leaf))
                continue;
            finish_frame(walk);
            cursor = here; /* it is the first of the next frame; its runs are not valid any more */
            status = own_make_room(checkpoint);
        } else {
            status = load_one(checkpoint, &place, cursor, &loaded);
        }
        if (status == 0)
            status = coroutine_yield();
        if (status < 0)
            return status;
        load_ahead(checkpoint, cursor);
    }
    finish_frame(walk);
    return checkpoint->volume->state == VOLUME_FENCED ? -ESHUTDOWN : 0;
}

int state_write_leaves(struct checkpoint *checkpoint)
{
    struct leaf_walk walk = { .checkpoint = checkpoint, .payload = BUFFER_EMPTY };
    walk.writer = leaves_writer_new(checkpoint->volume->all->settings.checkpoint_frame_bytes);
    int status = walk_leaves(&walk);
    leaves_writer_free(walk.writer);
    free(walk.numbers);
    buffer_free(&walk.payload);
    return status;
}

/* ---- mids: encoded in a visit of the map, and laid out after it ---- */

struct encoded {
    uint64_t key;
    bool gone; /* has become empty */
    struct buffer payload;
};

struct encoding {
    struct checkpoint *checkpoint;
    uint64_t from; /* the slice begins with this key */
    uint64_t bytes, most;
    struct encoded *at;
    uint32_t count, capacity;
    bool more; /* there are others behind the slice */
};

/* Room for one more in this slice; NULL: it is full, or the key was in one before. */
static struct encoded *encoding_next(struct encoding *encoding, uint64_t key)
{
    if (key < encoding->from)
        return NULL;
    encoding->more = encoding->more || encoding->bytes >= encoding->most;
    if (encoding->more)
        return NULL;
    if (encoding->count == encoding->capacity) {
        encoding->capacity = encoding->capacity == 0 ? 16 : encoding->capacity * 2;
        encoding->at = memory_resize(encoding->at, encoding->capacity, sizeof *encoding->at);
    }
    struct encoded *encoded = &encoding->at[encoding->count++];
    *encoded = (struct encoded){ .key = key, .payload = BUFFER_EMPTY };
    return encoded;
}

static void encode_mid(void *arg, uint64_t number, const struct leaf_place *slots)
{
    struct encoding *encoding = arg;
    struct checkpoint *checkpoint = encoding->checkpoint;
    if (slots == NULL && MUTANT(root_loses_hole))
        return;
    struct encoded *encoded = encoding_next(encoding, number);
    if (encoded == NULL)
        return;
    encoded->gone = slots == NULL;
    if (encoded->gone)
        return;
    struct mid_slot *used = memory_array(MID_LEAVES, sizeof *used);
    struct mid_frame mid = { .number = number, .slots = used };
    for (uint32_t i = 0; i < MID_LEAVES; i++)
        if (slots[i].object != OBJECT_NONE)
            used[mid.slot_count++] =
                (struct mid_slot){ .leaf = (uint16_t)i, .place = piece_place_of(checkpoint, &slots[i]) };
    mid_encode(&mid, &encoded->payload);
    encoding->bytes += encoded->payload.length;
    free(used);
}

/* Visits mids by slices until there is no more, and lays them out. */
static int write_mids(struct checkpoint *checkpoint, bool all)
{
    struct object_table *objects = checkpoint->volume->objects;
    struct encoding encoding = { .checkpoint = checkpoint, .more = true };
    int status = 0;
    while (encoding.more && status == 0) {
        encoding.bytes = encoding.count = 0;
        encoding.more = false;
        encoding.most = checkpoint->volume->all->settings.checkpoint_object_bytes;
        if (all)
            map_snapshot_all_mids(checkpoint->volume->map, encode_mid, &encoding);
        else
            map_snapshot_mids(checkpoint->volume->map, encode_mid, &encoding);
        for (uint32_t i = 0; i < encoding.count; i++) {
            struct encoded *encoded = &encoding.at[i];
            encoding.from = encoded->key + 1;
            if (encoded->gone) /* its place was given back, if it had one */
                continue;
            struct placed placed = { .key = encoded->key };
            placed.place = own_frame(checkpoint, FRAME_MIDS, &encoded->payload, 1);
            buffer_free(&encoded->payload);
            if (placed.place.object == OBJECT_NONE) /* fenced */
                continue;
            object_table_live_both(objects, placed.place.object, 1);
            placed_set(&checkpoint->mids, &placed);
        }
        status = own_make_room(checkpoint);
    }
    free(encoding.at);
    placed_drop_released(&checkpoint->mids);
    return status;
}

/* ---- chunks ---- */

#ifdef CAIRN_MUTANTS
/* Live counts as they are now, in place of those of the snapshot. */
static void mutant_count_later(const struct checkpoint *checkpoint, struct objects_frame *chunk)
{
    for (uint32_t i = 0; i < chunk->row_count && MUTANT(checkpoint_counts_later); i++) {
        uint32_t index = object_table_find(checkpoint->volume->objects, chunk->rows[i].id);
        uint32_t live = object_table_row(checkpoint->volume->objects, index)->live;
        chunk->rows[i].live = live > 0 ? live : 1;
    }
}
#else
#define mutant_count_later(checkpoint, chunk) ((void)0)
#endif

static int write_chunk(struct checkpoint *checkpoint, struct objects_frame *chunk)
{
    struct buffer payload = BUFFER_EMPTY;
    mutant_count_later(checkpoint, chunk);
    objects_encode(chunk, &payload);
    struct placed placed = { .key = chunk->first_id, .rows = chunk->row_count };
    placed.place = own_frame(checkpoint, FRAME_OBJECTS, &payload, 1);
    buffer_free(&payload);
    if (placed.place.object == OBJECT_NONE)
        return -ESHUTDOWN;
    object_table_live_both(checkpoint->volume->objects, placed.place.object, 1);
    placed_set(&checkpoint->chunks, &placed);
    return own_make_room(checkpoint);
}

static void sort_walk(void *walk)
{
    snapshot_walk_sort(walk);
}

/* Those without rows gave their places back, if they had one. */
static int write_walk(struct checkpoint *checkpoint, struct snapshot_walk *walk)
{
    int status = 0;
    while (status == 0 && snapshot_walk_gather(walk))
        status = coroutine_yield();
    if (status < 0)
        return status;
    if (snapshot_walk_count(walk) > SORT_HERE_MOST)
        loop_work(checkpoint->volume->loop, sort_walk, walk);
    else
        snapshot_walk_sort(walk);
    struct objects_frame chunk;
    for (uint32_t i = 1; status == 0 && snapshot_walk_next(walk, &chunk); i++) {
        if (chunk.row_count > 0)
            status = write_chunk(checkpoint, &chunk);
        if (status == 0 && i % CHUNKS_A_SLICE == 0)
            status = coroutine_yield();
    }
    return status;
}

static int write_chunks(struct checkpoint *checkpoint, enum snapshot_walk_mode mode)
{
    struct snapshot_walk *walk = snapshot_walk_new(checkpoint->volume->objects, mode);
    int status = write_walk(checkpoint, walk);
    snapshot_walk_free(walk);
    if (status == 0)
        status = own_make_room(checkpoint);
    placed_drop_released(&checkpoint->chunks);
    checkpoint->packed = mode == WALK_PACKED;
    return status;
}

/* ---- what must be written anew ---- */

struct marking {
    const struct placed_list *list;
    struct placed **found; /* of the newest root, to be written anew */
    uint32_t count, capacity;
    uint32_t fresh; /* that are in no root yet */
};

static void mark(struct marking *marking, uint64_t key)
{
    struct placed *placed = placed_find(marking->list, key);
    if (placed == NULL || placed->place.object == OBJECT_NONE) {
        marking->fresh += placed == NULL;
        return;
    }
    if (marking->count == marking->capacity) {
        marking->capacity = marking->capacity == 0 ? 16 : marking->capacity * 2;
        marking->found = memory_resize(marking->found, marking->capacity, sizeof(struct placed *));
    }
    marking->found[marking->count++] = placed;
}

static void mark_mid(void *arg, uint64_t number, const struct leaf_place *slots)
{
    if (slots != NULL || !MUTANT(root_loses_hole))
        mark(arg, number);
}

static int compare_pointers(const void *a, const void *b)
{
    const struct placed *left = *(struct placed *const *)a, *right = *(struct placed *const *)b;
    return (left > right) - (left < right);
}

/* In the list's order. */
static void mark_chunks(struct marking *marking, const struct object_table *objects)
{
    for (size_t i = 0; i < object_table_snapshot_dirty_count(objects); i++)
        mark(marking, object_table_snapshot_dirty_id(objects, i));
    if (marking->count > 0)
        qsort(marking->found, marking->count, sizeof(struct placed *), compare_pointers);
}

static uint64_t bytes_of(const struct placed_list *list)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < list->count; i++)
        bytes += (uint64_t)list->at[i].place.units * FRAME_UNIT;
    return bytes;
}

/* How many GETs bring those of the list that are not to be written anew. */
static uint32_t stretches_that_stay(const struct checkpoint *checkpoint, const struct marking *marking)
{
    const struct placed_list *list = marking->list;
    struct piece *pieces = memory_array((size_t)list->count + 1, sizeof *pieces);
    uint32_t count = 0, next = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (next < marking->count && marking->found[next] == &list->at[i])
            next++;
        else
            pieces[count++].place = piece_place_of(checkpoint, &list->at[i].place);
    }
    uint32_t stretches = pieces_stretch(pieces, count, NULL);
    free(pieces);
    return stretches;
}

struct tables {
    bool all_mids;
    enum snapshot_walk_mode chunks;
};

/* A root can list so many chunks and no more: where objects are far apart, rows are packed. Which of them a change
 * touches is not known then, so all are written anew, and once more when they need not be packed any longer. */
static enum snapshot_walk_mode choose_chunks(const struct checkpoint *checkpoint, bool all)
{
    const struct volume *volume = checkpoint->volume;
    assert(volume->all->settings.checkpoint_chunks <= ROOT_CHUNKS_MAX);
    if (object_table_chunk_count(volume->objects) > volume->all->settings.checkpoint_chunks)
        return WALK_PACKED;
    return all || checkpoint->packed ? WALK_ALL : WALK_DIRTY;
}

static struct tables choose_what_to_write(const struct checkpoint *checkpoint, const struct marking *mids,
                                          const struct marking *chunks)
{
    uint64_t fresh = (uint64_t)(mids->fresh + mids->count + chunks->fresh + chunks->count) * CHECKPOINT_PIECE_GUESS;
    uint64_t mid_bytes = bytes_of(&checkpoint->mids), chunk_bytes = bytes_of(&checkpoint->chunks);
    uint32_t stays = stretches_that_stay(checkpoint, mids) + stretches_that_stay(checkpoint, chunks);
    uint64_t now = stays + fresh / STRETCH_BYTES_MAX;
    uint64_t anew = (mid_bytes + chunk_bytes + fresh) / STRETCH_BYTES_MAX;
    bool scattered = now > CHECKPOINT_STRETCHES_MAX - 2 && anew < now - now / 4;
    bool few_chunks = chunk_bytes <= CHECKPOINT_ALL_ANEW_BYTES / 2;
    bool few_mids = mid_bytes <= CHECKPOINT_ALL_ANEW_BYTES / 2 && !MUTANT(root_loses_hole);
    return (struct tables){ .all_mids = scattered || few_mids,
                            .chunks = choose_chunks(checkpoint, scattered || few_chunks) };
}

static void release_all(struct checkpoint *checkpoint, struct placed_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        release(checkpoint, &list->at[i]);
    list->count = 0;
}

/* Gives back the chunks that must be written anew, and those that therefore must be, until there are no more. */
static void release_dirty_chunks(struct checkpoint *checkpoint)
{
    const struct object_table *objects = checkpoint->volume->objects;
    for (size_t i = 0; i < object_table_snapshot_dirty_count(objects); i++)
        release(checkpoint, placed_find(&checkpoint->chunks, object_table_snapshot_dirty_id(objects, i)));
}

/* ---- graves ---- */

struct graves {
    struct object_row *rows;
    uint32_t count, capacity;
};

static void collect_grave(void *arg, const struct object_row *row)
{
    struct graves *graves = arg;
    if (graves->count == graves->capacity) {
        graves->capacity = graves->capacity == 0 ? 64 : graves->capacity * 2;
        graves->rows = memory_resize(graves->rows, graves->capacity, sizeof *graves->rows);
    }
    graves->rows[graves->count++] = *row;
}

/* Each frame names the one before it; the root will name the last. */
static int write_graves(struct checkpoint *checkpoint)
{
    struct object_table *objects = checkpoint->volume->objects;
    struct graves graves = { .count = 0 };
    struct buffer payload = BUFFER_EMPTY;
    int status = 0;
    object_table_snapshot_graves(objects, collect_grave, &graves);
    for (uint32_t at = 0; at < graves.count && status == 0; at += GRAVES_MAX) {
        uint32_t count = graves.count - at < GRAVES_MAX ? graves.count - at : GRAVES_MAX;
        struct objects_frame frame = { .graves = true,
                                       .rows = graves.rows + at,
                                       .row_count = count,
                                       .has_previous = checkpoint->has_graves,
                                       .previous = checkpoint->graves,
                                       .previous_units = checkpoint->graves_units };
        objects_encode(&frame, &payload);
        struct leaf_place place = own_frame(checkpoint, FRAME_OBJECTS, &payload, 1);
        if (place.object != OBJECT_NONE) {
            object_table_live_both(objects, place.object, 1);
            checkpoint->has_graves = true;
            checkpoint->graves = own_place(checkpoint, &place);
            checkpoint->graves_units = place.units;
        }
        status = own_make_room(checkpoint);
    }
    buffer_free(&payload);
    free(graves.rows);
    return status;
}

/* ---- the root ---- */

static void fill_root_lists(const struct checkpoint *checkpoint, struct root_frame *frame)
{
    frame->own_count = checkpoint->own_count;
    frame->own = memory_array((size_t)frame->own_count + 1, sizeof *frame->own);
    for (uint32_t i = 0; i < frame->own_count; i++)
        frame->own[i] = own_object_row(checkpoint, i);
    frame->mid_count = checkpoint->mids.count;
    frame->mids = memory_array((size_t)frame->mid_count + 1, sizeof *frame->mids);
    for (uint32_t i = 0; i < frame->mid_count; i++)
        frame->mids[i] = (struct root_mid){ .number = checkpoint->mids.at[i].key,
                                            .place = piece_place_of(checkpoint, &checkpoint->mids.at[i].place) };
    frame->chunk_count = checkpoint->chunks.count;
    frame->chunks = memory_array((size_t)frame->chunk_count + 1, sizeof *frame->chunks);
    for (uint32_t i = 0; i < frame->chunk_count; i++)
        frame->chunks[i] = (struct root_chunk){ .first_id = checkpoint->chunks.at[i].key,
                                                .row_count = checkpoint->chunks.at[i].rows,
                                                .place = piece_place_of(checkpoint, &checkpoint->chunks.at[i].place) };
}

static int write_root(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    struct root *root = &checkpoint->root;
    root->empty = !checkpoint->has_root && !checkpoint->has_graves && checkpoint->own_count == 0;
    if (root->empty)
        return 0;
    struct leaf_place place = own_reserve_root(checkpoint, checkpoint->mids.count, checkpoint->chunks.count);
    if (place.object == OBJECT_NONE)
        return -ESHUTDOWN;
    object_table_live_both(volume->objects, place.object, 1);
    const struct object *row = object_table_row(volume->objects, place.object);
    root->uuid = row->uuid;
    root->object_id = row->id;
    root->epoch = row->epoch;
    root->n = row->n;
    root->start = place.start;
    root->units = place.units;
    struct root_frame frame = { .uuid = row->uuid,
                                .seq = root->seq,
                                .size = root->size,
                                .next_object_id = root->next_object_id,
                                .mapped_pages = map_snapshot_mapped_pages(volume->map),
                                .has_graves = checkpoint->has_graves,
                                .graves = checkpoint->graves,
                                .graves_units = checkpoint->graves_units };
    memcpy(frame.hash, root->hash, sizeof frame.hash);
    fill_root_lists(checkpoint, &frame);
    struct buffer payload = BUFFER_EMPTY;
    root_frame_encode(&frame, &payload);
    own_put_root(checkpoint, &place, &payload);
    buffer_free(&payload);
    root_frame_free(&frame);
    checkpoint->has_root = true;
    checkpoint->root_object = place.object;
    return 0;
}

int state_write_tables(struct checkpoint *checkpoint)
{
    struct volume *volume = checkpoint->volume;
    struct marking mids = { .list = &checkpoint->mids }, chunks = { .list = &checkpoint->chunks };
    map_snapshot_mids(volume->map, mark_mid, &mids);
    mark_chunks(&chunks, volume->objects);
    struct tables tables = choose_what_to_write(checkpoint, &mids, &chunks);
    for (uint32_t i = 0; i < mids.count; i++)
        release(checkpoint, mids.found[i]);
    free(mids.found);
    free(chunks.found);
    if (tables.all_mids)
        release_all(checkpoint, &checkpoint->mids);
    int status = write_mids(checkpoint, tables.all_mids);
    if (status < 0)
        return status;
    if (checkpoint->has_root)
        object_table_live_both(volume->objects, checkpoint->root_object, -1);
    if (tables.chunks == WALK_DIRTY)
        release_dirty_chunks(checkpoint);
    else
        release_all(checkpoint, &checkpoint->chunks);
    status = write_chunks(checkpoint, tables.chunks);
    if (status < 0)
        return status;
    status = write_graves(checkpoint);
    return status < 0 ? status : write_root(checkpoint);
}
