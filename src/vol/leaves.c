/* Loading leaves of the map.
 *
 * After a volume was opened from a checkpoint its leaves are in the store; and
 * those that were evicted are there again.  A lookup then says
 * OBJECT_UNLOADED, and who needs the page calls leaves_need().
 *
 * One GET brings a frame with many leaves.  Each load is a task of the volume,
 * not of whoever asked, so everybody who misses a leaf of the frame waits for
 * the same answer, and nobody's leaving ends it.  What arrives is verified, and
 * given to the map, which takes what it waits for (vol/map.h); of the others as
 * many as its budget has room for.
 *
 * A leaf that a checkpoint has placed may be evicted before the object that it
 * lies in is in the store: it is read from memory then, where that object stays
 * until it is (vol/checkpoint_upload.c).
 *
 * Memory: those who read and write enter the fetch gate for the frame's bytes.
 * Checkpoints do not: who holds the gate may be waiting for pages, those for a
 * commit, and that for the checkpoint.  They bound their loads by themselves.
 * Either way the bytes are charged to the pool.
 *
 * What can fail, and what then:
 *   - the store, for a while: tried again until the read deadline, then -EIO;
 *   - the frame is gone: who waits looks again; if the map still says the same,
 *     that part of the disk is lost: -EIO;
 *   - bytes that do not verify, or that contradict the object table, or that
 *     lack the leaf that the map looks for there: fetched twice more, then -EIO
 *     and an event that names object and place. */
#include "vol/leaves.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/checkpoint.h"
#include "vol/fetch.h"
#include "vol/internal.h"
#include "vol/pieces.h"

#define FRAMES_A_LOAD 8u
#define DAMAGED_TRIES 3
#define BACKOFF_FIRST_NS (10 * NS_PER_MS)
#define BACKOFF_MOST_NS (2 * NS_PER_S)
/* Leaves behind the one that is missed which a reader who goes through the disk in order is about to need: 16 MiB. */
#define SEQUENCE_LEAVES 8u
/* Loading in the background: GETs at a time, leaves that are looked at between two yields, and how long it stands back
 * when clients have loads of their own under way. */
#define FILLERS 2u
#define FILL_SLICE 4096u
#define FILL_BACK_OFF_NS (20 * NS_PER_MS)

/* One GET: frames that lie one behind the other. */
struct leaf_load {
    struct list link; /* volume.leaf_loads */
    struct volume *volume;
    struct leaf_place frames[FRAMES_A_LOAD];
    uint32_t count, units;
    uint64_t first_wanted, past_wanted; /* leaves that are taken in however full the budget is */
    bool gated;
    uint32_t references;
    int status; /* UNDER_WAY, or what came of it */
    struct error error;
    struct waitq arrival;
};
#define UNDER_WAY 1

static uint64_t load_bytes(const struct leaf_load *load)
{
    return (uint64_t)load->units * FRAME_UNIT;
}

static uint64_t gate_cost(uint64_t bytes)
{
    return bytes > FETCH_COST_LEAST ? bytes : FETCH_COST_LEAST;
}

static void load_unref(struct leaf_load *load)
{
    assert(load->references > 0);
    if (--load->references == 0)
        free(load);
}

/* The load under way that brings the frame at `place`; NULL: none. */
static struct leaf_load *find_load(const struct volume *volume, const struct leaf_place *place)
{
    list_for_each (node, &volume->leaf_loads) {
        struct leaf_load *load = container_of(node, struct leaf_load, link);
        for (uint32_t i = 0; i < load->count; i++)
            if (load->frames[i].object == place->object && load->frames[i].start == place->start)
                return load;
    }
    return NULL;
}

uint32_t leaves_under_way(const struct volume *volume)
{
    return volume->leaf_load_count;
}

/* ---- one load ---- */

static struct frame_place place_of(const struct volume *volume, const struct leaf_place *place)
{
    const struct object *row = object_table_row(volume->objects, place->object);
    return (struct frame_place){ .uuid = row->uuid,
                                 .kind = OBJECT_DATA,
                                 .epoch = row->epoch,
                                 .n = row->n,
                                 .offset = (uint64_t)place->start * FRAME_UNIT };
}

/* Verifies and decodes one frame. */
static int open_frame(const struct volume *volume, const uint8_t *bytes, const struct leaf_place *place,
                      struct leaves_frame *ret_frame, struct error *error)
{
    struct frame_place here = place_of(volume, place);
    const uint8_t *payload;
    size_t length;
    int status = piece_open(bytes, place->units, &here, FRAME_LEAVES, &payload, &length, error);
    if (status < 0)
        return status;
    status = leaves_decode(payload, length, ret_frame, error);
    return status < 0 ? piece_blame(&here, error) : 0;
}

static bool same_place(const struct leaf_place *a, const struct leaf_place *b)
{
    return a->object == b->object && a->start == b->start && a->units == b->units;
}

/* The map says that the leaf lies in this frame, and it does not: whoever needs it would ask for ever. */
static int check_wanted(const struct leaf_load *load, const struct leaf_place *place, const struct leaves_frame *frame,
                        struct error *error)
{
    struct leaf_place named;
    uint64_t number = load->first_wanted;
    if (number == load->past_wanted || !map_leaf_missing(load->volume->map, number * LEAF_PAGES, &named) ||
        !same_place(&named, place))
        return 0;
    for (uint32_t i = 0; i < frame->leaf_count; i++)
        if (frame->leaves[i].number == number)
            return 0;
    struct frame_place here = place_of(load->volume, place);
    error_set(error, EBADMSG, "leaf %llu is not in this frame, which the map names for it", (unsigned long long)number);
    return piece_blame(&here, error);
}

/* Gives the leaves of one frame to the map. */
static int arrive(struct leaf_load *load, const struct leaf_place *place, const uint8_t *bytes, struct error *error)
{
    struct volume *volume = load->volume;
    struct leaves_frame frame;
    int status = open_frame(volume, bytes, place, &frame, error);
    if (status < 0)
        return status;
    status = check_wanted(load, place, &frame, error);
    for (uint32_t i = 0; i < frame.leaf_count && status == 0; i++) {
        const struct leaf *leaf = &frame.leaves[i];
        bool wanted = leaf->number >= load->first_wanted && leaf->number < load->past_wanted;
        status = map_leaf_arrived(volume->map, place, leaf, wanted, error);
    }
    leaves_frame_free(&frame);
    budget_charge_map(volume);
    return status;
}

static int get_frames(struct volume *volume, const struct leaf_place *first, uint32_t units, uint8_t *bytes,
                      struct error *error)
{
    uint64_t id = object_table_row(volume->objects, first->object)->id;
    if (checkpoint_copy_frames(volume, id, first->start, units, bytes))
        return 0;
    struct frame_place place = place_of(volume, first);
    return pieces_get(volume, &place, bytes, (size_t)units * FRAME_UNIT, error);
}

static int load_once(struct leaf_load *load, uint8_t *bytes, struct error *error)
{
    int status = get_frames(load->volume, &load->frames[0], load->units, bytes, error);
    for (uint32_t i = 0; i < load->count && status == 0; i++) {
        const struct leaf_place *place = &load->frames[i];
        status = arrive(load, place, bytes + (size_t)(place->start - load->frames[0].start) * FRAME_UNIT, error);
    }
    return status;
}

/* Calls `attempt` until it succeeds, or more attempts make no sense, or the read deadline has come. */
static int with_retries(struct volume *volume, int (*attempt)(void *arg, struct error *error), void *arg,
                        struct error *error)
{
    uint64_t deadline = loop_now_ns(volume->loop) + volume->all->settings.read_deadline_ms * NS_PER_MS;
    uint64_t backoff = BACKOFF_FIRST_NS;
    for (int damaged = 0;;) {
        int status = attempt(arg, error);
        if (status == 0 || status == -ENOENT || status == -ECANCELED)
            return status;
        if (!piece_error_is_transient(status) && ++damaged == DAMAGED_TRIES)
            return status;
        if (loop_now_ns(volume->loop) + backoff > deadline)
            return status;
        if (sleep_ns(backoff) < 0)
            return error_set(error, ECANCELED, "load cancelled");
        backoff = backoff * 2 < BACKOFF_MOST_NS ? backoff * 2 : BACKOFF_MOST_NS;
    }
}

struct attempt {
    struct leaf_load *load;
    uint8_t *bytes;
};

static int attempt_load(void *arg, struct error *error)
{
    const struct attempt *attempt = arg;
    return load_once(attempt->load, attempt->bytes, error);
}

static void load_task(void *arg)
{
    struct leaf_load *load = arg;
    struct volume *volume = load->volume;
    struct page_pool *pool = volume->all->pool;
    uint64_t bytes = load_bytes(load);
    page_pool_charge(pool, bytes);
    struct attempt attempt = { .load = load, .bytes = memory_new(bytes) };
    int status = with_retries(volume, attempt_load, &attempt, &load->error);
    free(attempt.bytes);
    page_pool_uncharge(pool, bytes);
    if (status < 0 && status != -ECANCELED && status != -ENOENT)
        fetch_tell_failure(volume, &load->error);
    volume->counts.leaf_loads++;
    volume->counts.fetched_bytes += bytes;
    object_table_unhold(volume->objects, load->frames[0].object);
    if (load->gated)
        gate_leave(&volume->all->fetch_gate, gate_cost(bytes));
    load->status = status;
    list_remove(&load->link);
    volume->leaf_load_count--;
    waitq_wake_all(&load->arrival);
    load_unref(load);
}

/* Makes it a task; `load` says what is to be loaded. The task's reference alone is there. */
static struct leaf_load *start(struct volume *volume, const struct leaf_load *what)
{
    struct leaf_load *load = memory_copy(what, sizeof *what);
    load->volume = volume;
    load->references = 1;
    load->status = UNDER_WAY;
    load->error = (struct error)ERROR_NONE;
    waitq_init(&load->arrival);
    list_init(&load->link);
    list_push_back(&volume->leaf_loads, &load->link);
    volume->leaf_load_count++;
    object_table_hold(volume->objects, load->frames[0].object);
    group_spawn(&volume->group, "leaves", load_task, load);
    return load;
}

static struct leaf_load one_frame(const struct leaf_place *place)
{
    return (struct leaf_load){ .frames = { *place }, .count = 1, .units = place->units };
}

/* Waits for a load, and says what came of it. */
static int await(struct leaf_load *load, struct error *error)
{
    int status = 0;
    load->references++;
    while (load->status == UNDER_WAY && status == 0)
        status = waitq_wait(&load->arrival);
    if (status < 0)
        error_set(error, ECANCELED, "load cancelled");
    else if (load->status < 0)
        status = error_copy(error, &load->error);
    load_unref(load);
    return status;
}

/* ---- for who needs a page ---- */

/* A reader who goes through the disk in order is about to need the leaves behind this one too. */
static uint64_t wanted_leaves(struct volume *volume, uint64_t number)
{
    bool in_order = number > volume->last_leaf && number <= volume->last_leaf + SEQUENCE_LEAVES;
    volume->last_leaf = number;
    return in_order ? SEQUENCE_LEAVES : 1;
}

/* The load that brings the leaf of `page`, begun where there was none; NULL: it is not missing any more, or the wait
 * for the gate was cancelled. */
static struct leaf_load *find_or_start(struct volume *volume, uint64_t page, struct leaf_place *place)
{
    struct leaf_load *load = find_load(volume, place);
    if (load != NULL)
        return load;
    uint64_t cost = gate_cost((uint64_t)place->units * FRAME_UNIT);
    if (gate_enter(&volume->all->fetch_gate, cost) < 0)
        return NULL;
    struct leaf_place now;
    bool stands = volume->state == VOLUME_SERVING && map_leaf_missing(volume->map, page, &now) &&
                  same_place(&now, place) && find_load(volume, place) == NULL;
    if (!stands) {
        gate_leave(&volume->all->fetch_gate, cost);
        return NULL;
    }
    struct leaf_load what = one_frame(place);
    what.gated = true;
    what.first_wanted = page / LEAF_PAGES;
    what.past_wanted = what.first_wanted + wanted_leaves(volume, what.first_wanted);
    return start(volume, &what);
}

int leaves_need(struct volume *volume, uint64_t page, struct error *error)
{
    uint64_t lost_object = UINT64_MAX;
    uint32_t lost_start = 0;
    for (;;) {
        struct leaf_place place;
        if (volume->state != VOLUME_SERVING)
            return error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
        if (!map_leaf_missing(volume->map, page, &place))
            return 0;
        uint64_t id = object_table_row(volume->objects, place.object)->id;
        if (id == lost_object && place.start == lost_start)
            return error_set(error, EIO,
                             "%s: page %llu is lost: its part of the map, in object %llu, is not in the store",
                             volume->subject, (unsigned long long)page, (unsigned long long)id);
        struct leaf_load *load = find_or_start(volume, page, &place);
        if (coroutine_cancelled())
            return error_set(error, ECANCELED, "read cancelled");
        if (load == NULL)
            continue;
        int status = await(load, error);
        if (coroutine_cancelled())
            return error_set(error, ECANCELED, "read cancelled");
        if (status == -ENOENT) {
            lost_object = id;
            lost_start = place.start;
        } else if (status < 0 && status != -ECANCELED) {
            return error_set(error, EIO, "%s: page %llu cannot be read from the store: its part of the map",
                             volume->subject, (unsigned long long)page);
        }
    }
}

void leaves_ahead(struct volume *volume, uint64_t page, uint64_t past)
{
    for (; page < past; page = (page / LEAF_PAGES + 1) * LEAF_PAGES) {
        struct leaf_place place;
        if (!map_leaf_missing(volume->map, page, &place) || find_load(volume, &place) != NULL)
            continue;
        if (!gate_try(&volume->all->fetch_gate, gate_cost((uint64_t)place.units * FRAME_UNIT)))
            return;
        struct leaf_load what = one_frame(&place);
        what.gated = true;
        what.first_wanted = page / LEAF_PAGES;
        what.past_wanted = (past - 1) / LEAF_PAGES + 1;
        start(volume, &what);
    }
}

/* ---- for checkpoints ---- */

void leaves_start(struct volume *volume, const struct leaf_place *place)
{
    if (find_load(volume, place) != NULL)
        return;
    struct leaf_load what = one_frame(place);
    start(volume, &what);
}

int leaves_load(struct volume *volume, const struct leaf_place *place, struct error *error)
{
    leaves_start(volume, place);
    return await(find_load(volume, place), error);
}

struct reading {
    struct volume *volume;
    const struct leaf_place *place;
    uint8_t *bytes;
    struct leaves_frame *frame;
};

static int attempt_read(void *arg, struct error *error)
{
    const struct reading *reading = arg;
    int status = get_frames(reading->volume, reading->place, reading->place->units, reading->bytes, error);
    if (status == 0)
        status = open_frame(reading->volume, reading->bytes, reading->place, reading->frame, error);
    return status;
}

int leaves_read(struct volume *volume, const struct leaf_place *place, struct leaves_frame *ret_frame,
                struct error *error)
{
    size_t bytes = (size_t)place->units * FRAME_UNIT;
    page_pool_charge(volume->all->pool, bytes);
    object_table_hold(volume->objects, place->object);
    struct reading reading = { .volume = volume, .place = place, .bytes = memory_new(bytes), .frame = ret_frame };
    int status = with_retries(volume, attempt_read, &reading, error);
    free(reading.bytes);
    object_table_unhold(volume->objects, place->object);
    page_pool_uncharge(volume->all->pool, bytes);
    volume->counts.leaf_loads++;
    return status;
}

/* ---- in the background ---- */

static bool clients_wait(const struct volume *volume)
{
    return gate_waited_for(&volume->all->fetch_gate) || page_pool_wanting(volume->all->pool) ||
           volume->leaf_load_count >= FILLERS;
}

static bool budget_is_full(const struct volume *volume)
{
    return map_leaf_bytes(volume->map) >= volume->map_budget - volume->map_budget / 8;
}

/* Adds the frame, if it lies right behind those that are there. */
static bool append_frame(struct leaf_load *what, const struct leaf_place *place)
{
    const struct leaf_place *last = what->count == 0 ? NULL : &what->frames[what->count - 1];
    if (last != NULL && last->object == place->object && last->start == place->start)
        return true;
    if (last != NULL &&
        (last->object != place->object || last->start + last->units != place->start || what->count == FRAMES_A_LOAD ||
         (uint64_t)(what->units + place->units) * FRAME_UNIT > FETCH_BYTES_MAX))
        return false;
    what->frames[what->count++] = *place;
    what->units += place->units;
    return true;
}

/* The next frames that are missing, from volume->fill_leaf on, which it advances.  False: none in this slice. */
static bool next_frames(struct volume *volume, struct leaf_load *ret_what)
{
    *ret_what = (struct leaf_load){ .count = 0 };
    uint64_t leaves = (volume->pages + LEAF_PAGES - 1) / LEAF_PAGES;
    for (uint32_t i = 0; i < FILL_SLICE && volume->fill_leaf < leaves; i++, volume->fill_leaf++) {
        struct leaf_place place;
        uint64_t page = volume->fill_leaf * LEAF_PAGES, run;
        if (!map_leaf_missing(volume->map, page, &place)) {
            bool hole = map_lookup(volume->map, page, volume->pages - page, &run).object == OBJECT_NONE;
            volume->fill_leaf += hole && run > LEAF_PAGES ? run / LEAF_PAGES - 1 : 0;
            continue;
        }
        if (ret_what->count == 0 && find_load(volume, &place) != NULL)
            continue;
        if (ret_what->count == 0)
            ret_what->first_wanted = ret_what->past_wanted = volume->fill_leaf;
        if (!append_frame(ret_what, &place))
            break;
    }
    return ret_what->count > 0;
}

/* Whether the first of them is. */
static bool still_missing(const struct volume *volume, const struct leaf_load *what)
{
    struct leaf_place place;
    return volume->state == VOLUME_SERVING && map_leaf_missing(volume->map, what->first_wanted * LEAF_PAGES, &place) &&
           same_place(&place, &what->frames[0]);
}

static void fill_task(void *arg)
{
    struct volume *volume = arg;
    uint64_t leaves = (volume->pages + LEAF_PAGES - 1) / LEAF_PAGES;
    while (volume->state == VOLUME_SERVING && volume->fill_leaf < leaves && !budget_is_full(volume)) {
        if (clients_wait(volume)) {
            if (sleep_ns(FILL_BACK_OFF_NS) < 0)
                return;
            continue;
        }
        struct leaf_load what;
        if (!next_frames(volume, &what)) {
            if (coroutine_yield() < 0)
                return;
            continue;
        }
        while (!gate_try(&volume->all->fetch_gate, gate_cost((uint64_t)what.units * FRAME_UNIT)))
            if (sleep_ns(FILL_BACK_OFF_NS) < 0)
                return;
        if (!still_missing(volume, &what)) {
            gate_leave(&volume->all->fetch_gate, gate_cost((uint64_t)what.units * FRAME_UNIT));
            continue;
        }
        what.gated = true;
        struct error ignored = ERROR_NONE; /* whoever needs such a leaf is told */
        if (await(start(volume, &what), &ignored) == -ECANCELED)
            return;
    }
}

void leaves_fill(struct volume *volume)
{
    for (uint32_t i = 0; i < FILLERS; i++)
        group_spawn(&volume->group, "fill", fill_task, volume);
}
