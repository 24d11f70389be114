/* The map while it is checkpointed, evicted and loaded again, against a model that knows nothing of all that.
 *
 * A world is a map with its object table, a store (frames of leaves in an
 * array), what the last published root says, and the truth: an array of pages,
 * and a live count for each object, changed commit by commit.  At random,
 * commits are folded, pages looked up, leaves loaded, wanted or not, evicted;
 * and a checkpoint goes on step by step between all this.  When it is published,
 * a second map is made of what was written, and is compared with the truth as
 * it was when the checkpoint began; then the commits since are replayed onto it,
 * and it is compared with the truth as it is now, or goes on in the first one's
 * place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/walk_chunks.h"
#include "base/memory.h"
#include "vol/map.h"

#define IDS_MAX 40000u
#define FRAMES_MAX 40000u
#define FRAME_LEAVES_MAX 3u
#define COMMIT_OPS_MAX 8u
#define MIDS 3u
/* The disk ends within its last leaf. */
#define DISK_PAGES ((uint64_t)2 * MID_LEAVES * LEAF_PAGES + 3 * LEAF_PAGES + 100)

/* The leaves that are written: at the ends of mids, side by side, alone, the last one. */
static const uint64_t window[] = { 0, 1, 2, 700, 1022, 1023, 1024, 1025, 2047, 2048, 2051 };
#define WINDOW (sizeof window / sizeof window[0])

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % below;
}

static bool one_in(uint64_t count)
{
    return random_below(count) == 0;
}

/* ---- the world ---- */

struct truth_page {
    uint64_t object; /* id; 0: a hole */
    uint32_t start, units;
    uint8_t frame_page, frame_pages;
};

struct truth {
    uint64_t seq;
    struct truth_page pages[WINDOW][LEAF_PAGES];
};

struct truth_object {
    enum object_role role;
    uint64_t born, died; /* died: UINT64_MAX: not yet */
    uint32_t live;
};

struct op {
    bool set;
    uint64_t page, count;
    uint32_t object;          /* of the commit's */
    struct location location; /* without its object */
};

struct commit {
    uint64_t seq, first_id;
    uint32_t objects, ops;
    struct op op[COMMIT_OPS_MAX];
};

struct stored_leaf {
    struct leaf leaf;
    struct leaf_run *runs;
};

/* Its place starts at its number in world.frames. */
struct frame {
    uint64_t object;
    uint32_t units, leaf_count;
    struct stored_leaf leaves[FRAME_LEAVES_MAX];
};

struct written_chunk {
    uint64_t first_id;
    uint32_t count;
    struct object_row rows[CHUNK_IDS];
};

/* What the last published root says. */
struct published {
    uint64_t seq, mapped_pages;
    bool mid_there[MIDS];
    uint64_t slot_objects[MIDS][MID_LEAVES]; /* ids; 0: a hole */
    uint32_t slot_starts[MIDS][MID_LEAVES];
    struct written_chunk *chunks;
    size_t chunk_count;
    struct object_row *own;
    size_t own_count;
};

enum step { STEP_NONE, STEP_DOOMED, STEP_LEAVES };

struct world {
    struct object_table *objects;
    struct map *map;
    struct truth now, then;   /* then: when the snapshot began */
    struct truth_object *ids; /* by id */
    uint64_t *graves;         /* by id: the seq of death that a root told; 0: none did */
    uint64_t next_id;
    struct frame *frames;
    uint32_t frame_count;
    struct published root;
    struct commit *log; /* since the snapshot began */
    size_t log_count, log_capacity;

    enum step step;
    struct doomed_leaf *doomed;
    size_t doomed_count;
    uint64_t cursor;
    struct stored_leaf gathered[FRAME_LEAVES_MAX];
    uint32_t gathered_count;
    uint32_t own[512]; /* indexes */
    size_t own_count, own_frames;
    uint64_t checkpoints;
};

static const struct truth_page *truth_at(const struct truth *truth, uint64_t page)
{
    static const struct truth_page hole;
    for (uint32_t i = 0; i < WINDOW; i++)
        if (window[i] == page / LEAF_PAGES)
            return &truth->pages[i][page % LEAF_PAGES];
    return &hole;
}

/* ---- the store ---- */

static struct stored_leaf leaf_keep(const struct leaf *leaf)
{
    struct stored_leaf kept = { .leaf = *leaf };
    kept.runs = memory_copy(leaf->runs, leaf->run_count * sizeof *leaf->runs);
    kept.leaf.runs = kept.runs;
    return kept;
}

static const struct leaf *stored_at(const struct world *world, const struct leaf_place *place, uint64_t number)
{
    assert_true(place->start < world->frame_count);
    const struct frame *frame = &world->frames[place->start];
    assert_int_equal(frame->units, place->units);
    for (uint32_t i = 0; i < frame->leaf_count; i++)
        if (frame->leaves[i].leaf.number == number)
            return &frame->leaves[i].leaf;
    fail_msg("leaf %llu is not in frame %u", (unsigned long long)number, place->start);
    return NULL;
}

static void give_stored(void *arg, const struct leaf_place *place, uint64_t number, struct leaf *ret_leaf)
{
    *ret_leaf = *stored_at(arg, place, number);
}

static void audit(struct world *world, const struct map *map)
{
    map_audit(map, &(struct map_audit){ .stored = give_stored, .arg = world, .pieces_too = true });
}

/* All leaves of a frame arrive; `wanted` is the number of the one that is waited for, or UINT64_MAX. */
static void load(struct world *world, struct map *map, struct object_table *objects, const struct leaf_place *place,
                 uint64_t wanted)
{
    const struct frame *frame = &world->frames[place->start];
    assert_int_equal(object_table_row(objects, place->object)->id, frame->object);
    struct error error;
    for (uint32_t i = 0; i < frame->leaf_count; i++) {
        const struct leaf *leaf = &frame->leaves[i].leaf;
        assert_int_equal(map_leaf_arrived(map, place, leaf, leaf->number == wanted, &error), 0);
    }
}

static void load_page(struct world *world, struct map *map, struct object_table *objects, uint64_t page)
{
    struct leaf_place place;
    if (map_leaf_missing(map, page, &place))
        load(world, map, objects, &place, page / LEAF_PAGES);
    assert_false(map_leaf_missing(map, page, &place));
}

/* ---- folding ---- */

static void apply(struct map *map, const struct commit *commit, const uint32_t *indexes)
{
    for (uint32_t i = 0; i < commit->ops; i++) {
        const struct op *op = &commit->op[i];
        struct location location = op->location;
        location.object = indexes[op->object];
        if (op->set)
            map_set(map, op->page, (uint32_t)op->count, &location);
        else
            map_clear(map, op->page, op->count);
    }
}

static void fold(struct map *map, struct object_table *objects, const struct commit *commit)
{
    uint32_t indexes[2] = { 0 };
    object_table_set_seq(objects, commit->seq);
    for (uint32_t i = 0; i < commit->objects; i++) {
        struct object object = { .id = commit->first_id + i,
                                 .kind = i == 0 ? OBJECT_LOG : OBJECT_DATA,
                                 .role = ROLE_PAGES,
                                 .seq = i == 0 ? commit->seq : 0,
                                 .epoch = i == 0 ? 0 : 7,
                                 .n = i == 0 ? 0 : commit->first_id,
                                 .born = commit->seq,
                                 .total_bytes = 1000 + commit->first_id + i };
        assert_int_equal(object_table_add(objects, &object, &indexes[i]), 0);
    }
    apply(map, commit, indexes);
    object_table_forget_dead(objects);
}

static void truth_lose(struct world *world, uint64_t object)
{
    if (object != 0 && --world->ids[object].live == 0)
        world->ids[object].died = world->now.seq;
}

static void truth_apply(struct world *world, const struct commit *commit)
{
    for (uint32_t i = 0; i < commit->ops; i++) {
        const struct op *op = &commit->op[i];
        for (uint32_t w = 0; w < WINDOW; w++) {
            uint64_t base = window[w] * LEAF_PAGES, from = op->page > base ? op->page - base : 0;
            for (uint64_t p = from; p < LEAF_PAGES && base + p < op->page + op->count; p++) {
                struct truth_page *page = &world->now.pages[w][p], before = *page;
                *page = (struct truth_page){ 0 };
                if (op->set) {
                    *page = (struct truth_page){ .object = commit->first_id + op->object,
                                                 .start = op->location.start,
                                                 .units = op->location.units,
                                                 .frame_pages = op->location.frame_pages };
                    page->frame_page = (uint8_t)(op->location.frame_page + base + p - op->page);
                    world->ids[page->object].live++;
                }
                truth_lose(world, before.object);
            }
        }
    }
    for (uint32_t i = 0; i < commit->objects; i++)
        if (world->ids[commit->first_id + i].live == 0)
            world->ids[commit->first_id + i].died = commit->seq;
}

static bool overlaps(const struct commit *commit, uint64_t page, uint64_t count)
{
    for (uint32_t i = 0; i < commit->ops; i++)
        if (page < commit->op[i].page + commit->op[i].count && commit->op[i].page < page + count)
            return true;
    return false;
}

static uint64_t window_end(uint64_t number)
{
    uint64_t end = (number + 1) * LEAF_PAGES;
    return end < DISK_PAGES ? end : DISK_PAGES;
}

static struct op random_clear(void)
{
    uint64_t number = window[random_below(WINDOW)], base = number * LEAF_PAGES, end = window_end(number);
    struct op op = { .page = base, .count = end - base };
    if (one_in(200)) {
        op.page = 0;
        op.count = DISK_PAGES;
    } else if (one_in(6)) { /* several */
        uint64_t past = window_end(window[random_below(WINDOW)]);
        op.count = past > base ? past - base : end - base;
    } else if (!one_in(3)) {
        op.page += random_below(end - base);
        op.count = 1 + random_below(one_in(2) ? 3 : end - op.page);
    }
    if (op.count > DISK_PAGES - op.page)
        op.count = DISK_PAGES - op.page;
    return op;
}

static struct op random_set(uint32_t objects)
{
    uint64_t number = window[random_below(WINDOW)], base = number * LEAF_PAGES, end = window_end(number);
    struct op op = { .set = true, .object = (uint32_t)random_below(objects) };
    uint32_t frame_pages = one_in(3) ? BLOCK_PAGES : 1 + (uint32_t)random_below(4);
    op.page = base + random_below(end - base);
    if (frame_pages == BLOCK_PAGES && one_in(2))
        op.page = op.page / BLOCK_PAGES * BLOCK_PAGES;
    uint64_t room = BLOCK_PAGES - op.page % BLOCK_PAGES;
    room = room < end - op.page ? room : end - op.page;
    uint32_t frame_page = one_in(2) ? 0 : (uint32_t)random_below(frame_pages);
    op.count = frame_pages - frame_page < room ? frame_pages - frame_page : room;
    op.location = (struct location){ .start = (uint32_t)random_below(100) * 64,
                                     .units = 1 + 64 * frame_pages,
                                     .frame_page = (uint8_t)frame_page,
                                     .frame_pages = (uint8_t)frame_pages };
    return op;
}

static void do_commit(struct world *world)
{
    struct commit commit = { .seq = ++world->now.seq,
                             .first_id = world->next_id,
                             .objects = 1 + (uint32_t)random_below(2) };
    uint64_t ops = random_below(COMMIT_OPS_MAX + 1);
    for (uint64_t i = 0; i < ops; i++) {
        struct op op = one_in(4) ? random_clear() : random_set(commit.objects);
        if (!overlaps(&commit, op.page, op.count))
            commit.op[commit.ops++] = op;
    }
    for (uint32_t i = 0; i < commit.objects; i++)
        world->ids[world->next_id++] =
            (struct truth_object){ .role = ROLE_PAGES, .born = commit.seq, .died = UINT64_MAX };
    truth_apply(world, &commit);
    fold(world->map, world->objects, &commit);
    if (world->log_count == world->log_capacity) {
        world->log_capacity = world->log_capacity * 2 + 16;
        world->log = memory_resize(world->log, world->log_capacity, sizeof *world->log);
    }
    world->log[world->log_count++] = commit;
}

/* ---- comparing ---- */

static void check_page(const struct truth *truth, const struct map *map, struct object_table *objects, uint64_t page)
{
    uint64_t run = 0;
    struct location got = map_lookup(map, page, 40, &run);
    assert_true(run > 0 && run <= 40);
    if (got.object == OBJECT_UNLOADED) {
        assert_true(page % LEAF_PAGES + run <= LEAF_PAGES);
        return;
    }
    for (uint64_t i = 0; i < run; i++) {
        const struct truth_page *expected = truth_at(truth, page + i);
        if (got.object == OBJECT_NONE) {
            assert_int_equal(expected->object, 0);
            continue;
        }
        assert_int_equal(object_table_row(objects, got.object)->id, expected->object);
        assert_int_equal(got.start, expected->start);
        assert_int_equal(got.units, expected->units);
        assert_int_equal(got.frame_page + i, expected->frame_page);
        assert_int_equal(got.frame_pages, expected->frame_pages);
    }
}

static void check_all_pages(struct world *world, const struct truth *truth, struct map *map,
                            struct object_table *objects)
{
    for (uint32_t w = 0; w < WINDOW; w++) {
        uint64_t base = window[w] * LEAF_PAGES;
        for (uint64_t page = base; page < window_end(window[w]);) {
            uint64_t run;
            load_page(world, map, objects, page);
            check_page(truth, map, objects, page);
            map_lookup(map, page, 40, &run);
            page += run;
        }
    }
}

static void charge_doomed(struct world *world, struct map *map, const struct doomed_leaf *doomed)
{
    struct error error;
    assert_int_equal(map_charge_doomed(map, doomed, stored_at(world, &doomed->place, doomed->number), &error), 0);
}

/* Everything that is owed is paid: what the map says must be the truth then. */
static void settle(struct world *world, struct map *map, struct object_table *objects)
{
    size_t count;
    struct doomed_leaf *doomed = map_take_doomed(map, &count);
    for (size_t i = 0; i < count; i++)
        charge_doomed(world, map, &doomed[i]);
    free(doomed);
    for (uint32_t w = 0; w < WINDOW; w++)
        load_page(world, map, objects, window[w] * LEAF_PAGES);
    object_table_forget_dead(objects);
    audit(world, map);
}

static void check_settled(struct world *world, struct map *map, struct object_table *objects)
{
    settle(world, map, objects);
    uint64_t mapped = 0;
    for (uint64_t id = 1; id < world->next_id; id++) {
        const struct truth_object *truth = &world->ids[id];
        uint32_t index = object_table_find(objects, id);
        if (truth->role != ROLE_PAGES)
            continue;
        assert_int_equal(index != OBJECT_NONE, truth->live > 0);
        mapped += truth->live;
        if (index == OBJECT_NONE)
            continue;
        assert_int_equal(object_table_row(objects, index)->live, truth->live);
        assert_int_equal(object_table_row(objects, index)->born, truth->born);
    }
    assert_int_equal(map_mapped_pages(map), mapped);
    check_all_pages(world, &world->now, map, objects);
}

/* ---- a checkpoint ---- */

static void begin(struct world *world)
{
    world->then = world->now;
    world->log_count = 0;
    world->own_count = world->own_frames = world->gathered_count = 0;
    world->cursor = 0;
    if (one_in(2)) /* some are charged before */
        settle(world, world->map, world->objects);
    map_snapshot_begin(world->map);
    object_table_snapshot_begin(world->objects, world->next_id);
    world->doomed = map_take_doomed(world->map, &world->doomed_count);
    world->step = STEP_DOOMED;
}

static uint32_t own_object(struct world *world)
{
    if (world->own_frames++ % 3 != 0)
        return world->own[world->own_count - 1];
    struct object object = { .id = world->next_id++,
                             .kind = OBJECT_DATA,
                             .role = ROLE_PIECES,
                             .epoch = 7,
                             .n = world->own_frames,
                             .born = world->then.seq };
    world->ids[object.id] = (struct truth_object){ .role = ROLE_PIECES };
    assert_true(world->own_count < 512);
    assert_int_equal(object_table_add(world->objects, &object, &world->own[world->own_count]), 0);
    return world->own[world->own_count++];
}

static void place_gathered(struct world *world)
{
    if (world->gathered_count == 0)
        return;
    assert_true(world->frame_count < FRAMES_MAX);
    struct frame *frame = &world->frames[world->frame_count];
    struct leaf_place nowhere = { .object = OBJECT_NONE }, place = { .start = world->frame_count };
    place.units = frame->units = 1 + (uint32_t)random_below(PIECE_UNITS_MAX);
    for (uint32_t i = 0; i < world->gathered_count; i++) {
        struct stored_leaf *leaf = &world->gathered[i];
        if (leaf->leaf.run_count == 0) {
            map_snapshot_placed(world->map, leaf->leaf.number, &nowhere);
            free(leaf->runs);
            continue;
        }
        if (frame->leaf_count == 0) {
            place.object = own_object(world);
            frame->object = object_table_row(world->objects, place.object)->id;
            world->frame_count++;
        }
        frame->leaves[frame->leaf_count++] = *leaf;
        map_snapshot_placed(world->map, leaf->leaf.number, &place);
    }
    world->gathered_count = 0;
}

static void check_leaf(const struct truth *truth, const struct leaf *leaf)
{
    uint32_t mapped = 0, expected = 0;
    for (uint32_t i = 0; i < leaf->run_count; i++)
        mapped += leaf->runs[i].count;
    for (uint32_t p = 0; p < LEAF_PAGES; p++)
        expected += truth_at(truth, leaf->number * LEAF_PAGES + p)->object != 0;
    assert_int_equal(mapped, expected);
    for (uint32_t i = 0; i < leaf->run_count; i++)
        assert_int_equal(truth_at(truth, leaf->number * LEAF_PAGES + leaf->runs[i].first)->object,
                         leaf->runs[i].object);
}

static void load_ahead(struct world *world)
{
    struct leaf_place places[4];
    uint32_t count = map_snapshot_ahead(world->map, world->cursor, places, 4);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++)
            assert_true(places[i].start != places[j].start);
        load(world, world->map, world->objects, &places[i], UINT64_MAX);
    }
}

/* false: all leaves are placed. */
static bool write_leaf(struct world *world)
{
    struct leaf leaf;
    struct leaf_place place;
    if (one_in(10))
        load_ahead(world);
    int status = map_snapshot_next(world->map, &world->cursor, &leaf, &place);
    if (status == 0) {
        place_gathered(world);
        return false;
    }
    if (status == -EAGAIN) {
        load(world, world->map, world->objects, &place, UINT64_MAX);
        return true;
    }
    assert_int_equal(status, 1);
    check_leaf(&world->then, &leaf);
    world->gathered[world->gathered_count++] = leaf_keep(&leaf);
    if (world->gathered_count == FRAME_LEAVES_MAX || one_in(3))
        place_gathered(world);
    return true;
}

static void write_mid(void *arg, uint64_t number, const struct leaf_place *slots)
{
    struct world *world = arg;
    assert_true(number < MIDS);
    world->root.mid_there[number] = slots != NULL;
    for (uint32_t i = 0; slots != NULL && i < MID_LEAVES; i++) {
        bool there = slots[i].object != OBJECT_NONE;
        world->root.slot_objects[number][i] = there ? object_table_row(world->objects, slots[i].object)->id : 0;
        world->root.slot_starts[number][i] = slots[i].start;
    }
}

/* What is written when all is written anew must be what was there with what has changed. */
static void check_mid(void *arg, uint64_t number, const struct leaf_place *slots)
{
    struct world *world = arg;
    assert_true(world->root.mid_there[number]);
    for (uint32_t i = 0; i < MID_LEAVES; i++) {
        bool there = slots[i].object != OBJECT_NONE;
        assert_int_equal(there, world->root.slot_objects[number][i] != 0);
        assert_true(!there || slots[i].start == world->root.slot_starts[number][i]);
    }
}

static void write_chunk(void *arg, const struct objects_frame *chunk)
{
    uint64_t first_id = chunk->first_id;
    const struct object_row *rows = chunk->rows;
    uint32_t count = chunk->row_count;
    struct published *root = arg;
    size_t at = 0;
    while (at < root->chunk_count && root->chunks[at].first_id != first_id)
        at++;
    if (at == root->chunk_count) {
        root->chunks = memory_resize(root->chunks, ++root->chunk_count, sizeof *root->chunks);
        root->chunks[at].first_id = first_id;
    }
    root->chunks[at].count = count;
    for (uint32_t i = 0; i < count; i++) {
        root->chunks[at].rows[i] = rows[i];
        assert_true(rows[i].id >= first_id && rows[i].id < first_id + CHUNK_IDS);
        assert_true(i == 0 || rows[i].id > rows[i - 1].id);
    }
}

struct chunk_check {
    const struct published *root;
    uint64_t next;
    uint32_t rows;
};

static void check_chunk(void *arg, const struct objects_frame *chunk)
{
    uint64_t first_id = chunk->first_id;
    const struct object_row *rows = chunk->rows;
    uint32_t count = chunk->row_count;
    struct chunk_check *check = arg;
    assert_true(first_id >= check->next && count > 0);
    check->next = first_id + 1;
    check->rows += count;
    size_t at = 0;
    while (at < check->root->chunk_count && check->root->chunks[at].first_id != first_id)
        at++;
    assert_true(at < check->root->chunk_count);
    assert_int_equal(check->root->chunks[at].count, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(check->root->chunks[at].rows[i].id, rows[i].id);
        assert_int_equal(check->root->chunks[at].rows[i].live, rows[i].live);
    }
}

struct grave_check {
    struct world *world;
    uint64_t *graves, last_died, last_id;
};

static void bury(void *arg, const struct object_row *row)
{
    struct grave_check *check = arg;
    assert_true(row->died > check->last_died || (row->died == check->last_died && row->id > check->last_id));
    check->last_died = row->died;
    check->last_id = row->id;
    assert_int_equal(row->live, 0);
    assert_int_equal(check->graves[row->id], 0); /* once */
    check->graves[row->id] = row->died;
    assert_int_equal(row->role, check->world->ids[row->id].role);
    if (row->role != ROLE_PAGES)
        return;
    assert_int_equal(row->born, check->world->ids[row->id].born);
    assert_int_equal(row->total_bytes, 1000 + row->id);
    assert_int_equal(row->kind == OBJECT_LOG ? row->seq : row->epoch, row->kind == OBJECT_LOG ? row->born : 7);
}

static void write_root(struct world *world)
{
    struct published *root = &world->root;
    root->seq = world->then.seq;
    map_snapshot_mids(world->map, write_mid, world);
    map_snapshot_all_mids(world->map, check_mid, world);
    walk_chunks(world->objects, WALK_DIRTY, write_chunk, root);
    struct chunk_check check = { .root = root };
    walk_chunks(world->objects, WALK_ALL, check_chunk, &check);
    for (size_t i = 0; i < root->chunk_count; i++)
        check.rows -= root->chunks[i].count;
    assert_int_equal(check.rows, 0);
    object_table_snapshot_graves(world->objects, bury, &(struct grave_check){ world, world->graves, 0, 0 });
    root->own = memory_resize(root->own, world->own_count, sizeof *root->own);
    root->own_count = world->own_count;
    for (size_t i = 0; i < world->own_count; i++)
        root->own[i] = object_table_snapshot_row(world->objects, world->own[i]);
    root->mapped_pages = map_snapshot_mapped_pages(world->map);
}

/* ---- the next owner ---- */

static void restore_row(struct world *world, struct object_table *objects, const struct object_row *row, bool clean)
{
    uint32_t index;
    assert_true(row->live > 0 && row->died == OBJECT_ALIVE);
    assert_int_equal(row->role, world->ids[row->id].role);
    assert_int_equal(world->graves[row->id], 0);
    assert_int_equal(object_table_restore(objects, row, clean, &index), 0);
    assert_int_equal(object_table_restore(objects, row, clean, &index), -EEXIST);
    assert_int_equal(object_table_find(objects, row->id), index);
}

static void restore(struct world *world, struct map *map, struct object_table *objects)
{
    const struct published *root = &world->root;
    object_table_set_seq(objects, root->seq);
    for (size_t i = 0; i < root->chunk_count; i++)
        for (uint32_t j = 0; j < root->chunks[i].count; j++)
            restore_row(world, objects, &root->chunks[i].rows[j], true);
    for (size_t i = 0; i < root->own_count; i++)
        restore_row(world, objects, &root->own[i], false);
    struct error error;
    struct leaf_place *slots = memory_array(MID_LEAVES, sizeof *slots);
    for (uint64_t m = 0; m < MIDS; m++) {
        for (uint32_t i = 0; i < MID_LEAVES; i++) {
            slots[i] = (struct leaf_place){ .object = OBJECT_NONE };
            if (!root->mid_there[m] || root->slot_objects[m][i] == 0)
                continue;
            slots[i].object = object_table_find(objects, root->slot_objects[m][i]);
            slots[i].start = root->slot_starts[m][i];
            slots[i].units = world->frames[slots[i].start].units;
        }
        if (root->mid_there[m]) {
            assert_int_equal(map_restore_mid(map, m, slots, &error), 0);
            assert_int_equal(map_restore_mid(map, m, slots, &error), -EBADMSG);
        }
    }
    free(slots);
    map_restore_mapped_pages(map, root->mapped_pages);
}

/* What was written, against the truth of then. */
static void check_written(struct world *world, struct object_table *objects)
{
    uint32_t *live = memory_array(world->next_id, sizeof *live);
    for (uint32_t w = 0; w < WINDOW; w++)
        for (uint32_t p = 0; p < LEAF_PAGES; p++)
            live[world->then.pages[w][p].object]++;
    for (uint64_t id = 1; id < world->next_id; id++) {
        const struct truth_object *truth = &world->ids[id];
        uint32_t index = object_table_find(objects, id);
        if (truth->role == ROLE_PIECES) {
            assert_true((index == OBJECT_NONE) == (world->graves[id] != 0));
            continue;
        }
        assert_int_equal(index == OBJECT_NONE ? 0 : object_table_row(objects, index)->live, live[id]);
        bool dead = truth->died <= world->then.seq;
        assert_int_equal(dead, world->graves[id] != 0);
        assert_true(!dead || (world->graves[id] >= truth->died && world->graves[id] <= world->then.seq));
    }
    free(live);
}

/* Graves since then. */
static void check_later_graves(struct world *world, struct object_table *objects, bool exact)
{
    uint64_t *graves = memory_array(world->next_id, sizeof *graves);
    object_table_snapshot_begin(objects, world->next_id);
    object_table_snapshot_graves(objects, bury, &(struct grave_check){ world, graves, 0, 0 });
    for (uint64_t id = 1; id < world->next_id; id++) {
        const struct truth_object *truth = &world->ids[id];
        if (truth->role != ROLE_PAGES)
            continue;
        bool dead = truth->died > world->then.seq && truth->died != UINT64_MAX;
        assert_int_equal(dead, graves[id] != 0);
        if (dead && exact)
            assert_int_equal(graves[id], truth->died);
        if (dead)
            assert_true(graves[id] >= truth->died && graves[id] <= world->now.seq);
    }
    free(graves);
}

static void take_over(struct world *world)
{
    struct object_table *objects = object_table_new();
    struct map *map = map_new(objects, DISK_PAGES);
    bool exact = one_in(2);
    if (!exact)
        map_set_budget(map, random_below(20000));
    restore(world, map, objects);
    check_written(world, objects);
    audit(world, map);
    if (exact)
        check_all_pages(world, &world->then, map, objects);
    for (size_t i = 0; i < world->log_count; i++) {
        if (one_in(5))
            load_page(world, map, objects, window[random_below(WINDOW)] * LEAF_PAGES);
        fold(map, objects, &world->log[i]);
    }
    audit(world, map);
    if (one_in(3)) { /* and goes on: the next checkpoint is its */
        map_free(world->map);
        object_table_free(world->objects);
        world->map = map;
        world->objects = objects;
        return;
    }
    check_settled(world, map, objects);
    check_later_graves(world, objects, exact);
    map_free(map);
    object_table_free(objects);
}

static void step(struct world *world)
{
    switch (world->step) {
    case STEP_NONE:
        if (one_in(10))
            begin(world);
        break;
    case STEP_DOOMED:
        if (world->doomed_count > 0) {
            charge_doomed(world, world->map, &world->doomed[--world->doomed_count]);
            break;
        }
        free(world->doomed);
        world->doomed = NULL;
        world->step = STEP_LEAVES;
        break;
    case STEP_LEAVES:
        if (write_leaf(world))
            break;
        audit(world, world->map);
        write_root(world);
        if (one_in(2)) {
            map_snapshot_end(world->map);
            object_table_snapshot_end(world->objects);
        } else {
            object_table_snapshot_end(world->objects);
            map_snapshot_end(world->map);
        }
        world->step = STEP_NONE;
        world->checkpoints++;
        audit(world, world->map);
        take_over(world);
        break;
    }
}

/* ---- all of it ---- */

static struct world *world_new(void)
{
    struct world *world = memory_new(sizeof *world);
    world->objects = object_table_new();
    world->map = map_new(world->objects, DISK_PAGES);
    world->ids = memory_array(IDS_MAX, sizeof *world->ids);
    world->graves = memory_array(IDS_MAX, sizeof *world->graves);
    world->frames = memory_array(FRAMES_MAX, sizeof *world->frames);
    world->next_id = 1;
    return world;
}

static void world_free(struct world *world)
{
    map_free(world->map);
    object_table_free(world->objects);
    for (uint32_t i = 0; i < world->frame_count; i++)
        for (uint32_t j = 0; j < world->frames[i].leaf_count; j++)
            free(world->frames[i].leaves[j].runs);
    for (uint32_t i = 0; i < world->gathered_count; i++)
        free(world->gathered[i].runs);
    free(world->frames);
    free(world->ids);
    free(world->graves);
    free(world->root.chunks);
    free(world->root.own);
    free(world->log);
    free(world->doomed);
    free(world);
}

/* A frame that was read some time, whether or not anybody wants it now. */
static void load_anything(struct world *world)
{
    if (world->frame_count == 0)
        return;
    struct leaf_place place = { .start = (uint32_t)random_below(world->frame_count) };
    const struct frame *frame = &world->frames[place.start];
    place.units = frame->units;
    place.object = object_table_find(world->objects, frame->object);
    if (place.object != OBJECT_NONE)
        load(world, world->map, world->objects, &place, UINT64_MAX);
}

static void round_of(struct world *world, uint64_t commits_in)
{
    uint64_t page = window[random_below(WINDOW)] * LEAF_PAGES + random_below(100);
    if (one_in(commits_in))
        do_commit(world);
    if (one_in(3)) {
        if (one_in(3))
            load_page(world, world->map, world->objects, page);
        check_page(&world->now, world->map, world->objects, page);
    }
    if (one_in(8))
        load_anything(world);
    if (one_in(20))
        map_evict(world->map, random_below(6000));
    if (one_in(50))
        map_set_budget(world->map, one_in(4) ? UINT64_MAX : random_below(30000));
    step(world);
    if (world->doomed_count == 0 && one_in(100))
        audit(world, world->map);
    if (world->step == STEP_NONE && one_in(300))
        check_settled(world, world->map, world->objects);
}

static void run_world(uint64_t seed, uint64_t rounds, uint64_t commits_in)
{
    random_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    struct world *world = world_new();
    map_set_budget(world->map, one_in(2) ? 0 : random_below(40000));
    for (uint64_t round = 0; round < rounds && world->next_id < IDS_MAX - 100; round++)
        round_of(world, commits_in);
    if (rounds > 2000)
        assert_true(world->checkpoints > 10);
    world_free(world); /* in the middle of a checkpoint, often */
}

static void test_at_random(void **state)
{
    const char *worlds = getenv("MAP_SNAPSHOT_WORLDS");
    uint64_t count = worlds == NULL ? 12 : strtoull(worlds, NULL, 10);
    for (uint64_t seed = 0; seed < count; seed++)
        run_world(seed, 3000, 1 + seed % 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
