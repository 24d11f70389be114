/* Fetching committed content: from a missing page to a frame in the cache.
 *
 * The frame that holds the page is one GET; frames next to it in the same
 * object that the same request needs too ride along, up to FETCH_BYTES_MAX.
 * Each fetch is a task of the volume, not of whoever asked: the frames stand in
 * the cache as FETCHING from before the request is sent, so everybody who
 * misses one of them waits for the same answer, and nobody's leaving ends it.
 *
 * Memory: a fetch enters the fetch gate with the bytes of its frames and takes
 * their pages from the pool before it starts.  The asker waits for both where it must;
 * what it would like besides (look-ahead) is started only if it need not wait.
 *
 * Where a page lies may not be known yet: its leaf of the map is loaded first
 * (vol/leaves.c).
 *
 * What can fail, and what then:
 *   - the store, for a while: tried again until the read deadline, then -EIO;
 *   - the object is gone (-ENOENT): whoever waits looks its page up again; if
 *     the map still says the same, the volume is damaged: -EIO;
 *   - bytes that do not verify: fetched twice more, in case the transfer was at
 *     fault, then -EIO and an event that names object and place. */
#include "vol/fetch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/internal.h"
#include "vol/leaves.h"

#define FRAMES_A_FETCH 32u /* FETCH_BYTES_MAX of whole blocks are 8; isolated pages are smaller */
#define DAMAGED_TRIES 3
#define BACKOFF_FIRST_NS (10 * NS_PER_MS)
#define BACKOFF_MOST_NS (2 * NS_PER_S)
#define FAILURE_EVERY_NS (60 * NS_PER_S)

struct fetch {
    struct volume *volume;
    uint32_t object;          /* index, held */
    struct frame_place place; /* of the first frame */
    uint64_t bytes;
    uint32_t count;
    struct wanted {
        struct frame *frame;
        uint64_t block;
        uint32_t start, units;
    } frames[FRAMES_A_FETCH];
    uint8_t headers[FRAMES_A_FETCH][FRAME_HEADER_BYTES];
};

/* What a fetch counts in the gate: its bytes, and never less than its task is worth. */
static uint64_t gate_cost(uint64_t bytes)
{
    return bytes > FETCH_COST_LEAST ? bytes : FETCH_COST_LEAST;
}

/* The destination: each frame's header aside, its pages where they belong.  Returns the number of pieces. */
static int fetch_pieces(struct fetch *fetch, struct iovec *ret_pieces)
{
    int count = 0;
    for (uint32_t i = 0; i < fetch->count; i++) {
        struct frame *frame = fetch->frames[i].frame;
        ret_pieces[count++] = (struct iovec){ .iov_base = fetch->headers[i], .iov_len = FRAME_HEADER_BYTES };
        for (uint32_t j = 0; j < frame->page_count; j++)
            ret_pieces[count++] = (struct iovec){ .iov_base = frame->pages[j]->data, .iov_len = PAGE_BYTES };
    }
    return count;
}

static int verify(const struct fetch *fetch, uint32_t i, struct error *error)
{
    const struct wanted *wanted = &fetch->frames[i];
    struct iovec payload[BLOCK_PAGES];
    for (uint32_t j = 0; j < wanted->frame->page_count; j++)
        payload[j] = (struct iovec){ .iov_base = wanted->frame->pages[j]->data, .iov_len = PAGE_BYTES };
    struct frame_place place = fetch->place;
    place.offset = (uint64_t)wanted->start * FRAME_UNIT;
    struct frame_header header;
    int status = frame_verify(fetch->headers[i], &place, payload, (int)wanted->frame->page_count, &header, error);
    if (MUTANT(damage_is_served))
        return 0;
    if (status < 0)
        return status;
    if (header.kind != FRAME_PAGES || header.block != wanted->block ||
        (uint32_t)__builtin_popcount(header.pages) != wanted->frame->page_count)
        return error_set(error, EBADMSG, "the frame is not the one that the log describes");
    return 0;
}

static int fetch_once(struct fetch *fetch, const char *key, struct error *error)
{
    int most = 0;
    for (uint32_t i = 0; i < fetch->count; i++)
        most += 1 + (int)fetch->frames[i].frame->page_count;
    struct iovec *pieces = memory_array((size_t)most, sizeof *pieces);
    int count = fetch_pieces(fetch, pieces);
    struct store_get get = { .key = key, .offset = fetch->place.offset, .pieces = pieces, .count = count };
    struct store_got got = { 0 };
    int status = store_get(fetch->volume->all->store, &get, &got, error);
    free(pieces);
    if (status < 0)
        return status;
    if (got.length < fetch->bytes)
        return error_set(error, EBADMSG, "%s ends at byte %llu, in the middle of a frame", key,
                         (unsigned long long)got.size);
    for (uint32_t i = 0; i < fetch->count; i++) {
        status = verify(fetch, i, error);
        if (status < 0) {
            error_context(error, "%s at byte %llu", key, (unsigned long long)fetch->frames[i].start * FRAME_UNIT);
            return status;
        }
    }
    return 0;
}

static bool worth_another_try(int status, int *damaged)
{
    if (status == -ECANCELED || status == -ENOENT)
        return false;
    if (status == -EBADMSG || status == -EMEDIUMTYPE || status == -EPROTONOSUPPORT)
        return ++*damaged < DAMAGED_TRIES;
    return true;
}

/* A client that scans a damaged disk must not flood the log. */
void fetch_tell_failure(struct volume *volume, const struct error *error)
{
    uint64_t now = loop_now_ns(volume->loop);
    volume->failures_untold++;
    if (volume->failure_told_ns != 0 && now < volume->failure_told_ns + FAILURE_EVERY_NS)
        return;
    event_raise(volume->all->events, EVENT_ERROR, volume->subject,
                "cannot read: %s (%llu failed reads since last told)", error->story,
                (unsigned long long)volume->failures_untold);
    volume->failure_told_ns = now;
    volume->failures_untold = 0;
}

static void fetch_task(void *arg)
{
    struct fetch *fetch = arg;
    struct volume *volume = fetch->volume;
    char key[KEY_MAX];
    if (fetch->place.kind == OBJECT_LOG)
        key_log(&fetch->place.uuid, fetch->place.seq, key);
    else
        key_data(&fetch->place.uuid, fetch->place.epoch, fetch->place.n, key);
    uint64_t deadline = loop_now_ns(volume->loop) + volume->all->settings.read_deadline_ms * NS_PER_MS;
    uint64_t backoff = BACKOFF_FIRST_NS;
    int damaged = 0, status;
    struct error error = ERROR_NONE;
    for (;;) {
        status = fetch_once(fetch, key, &error);
        if (status == 0 || !worth_another_try(status, &damaged) || loop_now_ns(volume->loop) + backoff > deadline)
            break;
        if (sleep_ns(backoff) < 0) {
            status = -ECANCELED;
            break;
        }
        backoff = backoff * 2 < BACKOFF_MOST_NS ? backoff * 2 : BACKOFF_MOST_NS;
    }
    if (status < 0 && status != -ECANCELED && status != -ENOENT)
        fetch_tell_failure(volume, &error);
    volume->counts.fetches++;
    volume->counts.fetched_bytes += fetch->bytes;
    for (uint32_t i = 0; i < fetch->count; i++) {
        if (status == 0)
            cache_ready(volume->all->cache, fetch->frames[i].frame);
        else
            cache_failed(volume->all->cache, fetch->frames[i].frame, status);
        frame_unref(volume->all->cache, fetch->frames[i].frame);
    }
    object_table_unhold(volume->objects, fetch->object);
    gate_leave(&volume->all->fetch_gate, gate_cost(fetch->bytes));
    free(fetch);
}

/* ---- deciding what to fetch ---- */

/* Where the content of page `number` must be fetched from: false when it is in memory, on its way, or nowhere; or not
 * known, then its leaf is fetched, so that the next look finds it. */
static bool missing(struct volume *volume, uint64_t number, struct location *ret_location, uint64_t *ret_run)
{
    *ret_run = 1;
    uint64_t zero_run;
    if (dirty_page(volume->dirty, number) != NULL || dirty_zeroed(volume, number, &zero_run))
        return false;
    uint64_t limit = BLOCK_PAGES - number % BLOCK_PAGES;
    struct location location = map_lookup(volume->map, number, limit, ret_run);
    if (location.object == OBJECT_UNLOADED)
        leaves_ahead(volume, number, number + 1);
    if (location.object == OBJECT_NONE || location.object == OBJECT_UNLOADED)
        return false;
    uint64_t id = object_table_row(volume->objects, location.object)->id;
    if (cache_has(volume->all->cache, volume_cache_id(volume, id), location.start))
        return false;
    *ret_location = location;
    return true;
}

struct plan {
    uint32_t object;
    uint32_t count, page_count;
    uint64_t bytes;
    uint64_t next_page; /* behind the last page that was looked at */
    struct {
        uint64_t block;
        uint32_t start, units, pages;
    } frames[FRAMES_A_FETCH];
};

/* The first missing frame of [number, past), with its neighbours in the object. False: nothing is missing. */
static bool plan_next(struct volume *volume, uint64_t number, uint64_t past, struct plan *ret_plan)
{
    struct plan *plan = ret_plan;
    *plan = (struct plan){ .next_page = number };
    while (plan->next_page < past && plan->count < FRAMES_A_FETCH) {
        struct location location;
        uint64_t run;
        if (!missing(volume, plan->next_page, &location, &run)) {
            plan->next_page += run;
            continue;
        }
        if (plan->count > 0) {
            uint32_t last = plan->count - 1;
            uint32_t end = plan->frames[last].start + plan->frames[last].units;
            if (location.object == plan->object && location.start == plan->frames[last].start) {
                plan->next_page += run; /* another piece of the same frame */
                continue;
            }
            if (location.object != plan->object || location.start != end ||
                plan->bytes + (uint64_t)location.units * FRAME_UNIT > FETCH_BYTES_MAX)
                break;
        }
        plan->object = location.object;
        plan->frames[plan->count].block = plan->next_page / BLOCK_PAGES;
        plan->frames[plan->count].start = location.start;
        plan->frames[plan->count].units = location.units;
        plan->frames[plan->count].pages = location.frame_pages;
        plan->count++;
        plan->page_count += location.frame_pages;
        plan->bytes += (uint64_t)location.units * FRAME_UNIT;
        plan->next_page += run;
    }
    return plan->count > 0;
}

/* The plan still stands, its memory is had: makes it a task. Takes over the pages and the gate's bytes. */
static void start(struct volume *volume, const struct plan *plan, struct page **pages)
{
    const struct object *row = object_table_row(volume->objects, plan->object);
    struct fetch *fetch = memory_new(sizeof *fetch);
    fetch->volume = volume;
    fetch->object = plan->object;
    fetch->bytes = plan->bytes;
    fetch->count = plan->count;
    fetch->place = (struct frame_place){ .uuid = row->uuid,
                                         .kind = row->kind,
                                         .epoch = row->epoch,
                                         .n = row->n,
                                         .seq = row->seq,
                                         .offset = (uint64_t)plan->frames[0].start * FRAME_UNIT };
    uint32_t taken = 0;
    for (uint32_t i = 0; i < plan->count; i++) {
        struct wanted *wanted = &fetch->frames[i];
        wanted->block = plan->frames[i].block;
        wanted->start = plan->frames[i].start;
        wanted->units = plan->frames[i].units;
        assert(frame_total_bytes(plan->frames[i].pages * PAGE_BYTES) == wanted->units * FRAME_UNIT);
        wanted->frame = cache_begin(volume->all->cache, volume_cache_id(volume, row->id), wanted->start, &pages[taken],
                                    plan->frames[i].pages);
        taken += plan->frames[i].pages;
    }
    object_table_hold(volume->objects, plan->object);
    group_spawn(&volume->group, "fetch", fetch_task, fetch);
}

static bool same_plan(const struct plan *a, const struct plan *b)
{
    return a->object == b->object && a->count == b->count && a->page_count == b->page_count &&
           memcmp(a->frames, b->frames, a->count * sizeof a->frames[0]) == 0;
}

/* Starts fetching what is missing of [number, past): waits for memory for the first piece only. */
static int start_missing(struct volume *volume, uint64_t number, uint64_t past)
{
    uint64_t ahead = number + READ_AHEAD_BLOCKS * BLOCK_PAGES;
    if (past > ahead)
        past = ahead;
    struct page *pages[FRAMES_A_FETCH * BLOCK_PAGES];
    bool first = true;
    struct plan plan, again;
    while (plan_next(volume, number, past, &plan)) {
        uint64_t cost = gate_cost(plan.bytes);
        if (!first && !gate_try(&volume->all->fetch_gate, cost))
            return 0;
        if (first && gate_enter(&volume->all->fetch_gate, cost) < 0)
            return -ECANCELED;
        int status = page_pool_try(volume->all->pool, plan.page_count, pages);
        if (status == -EAGAIN && first)
            status = page_pool_take(volume->all->pool, plan.page_count, pages);
        if (status < 0) {
            gate_leave(&volume->all->fetch_gate, cost);
            return first ? status : 0;
        }
        /* Shrinking the cache, or a wait, may have changed what is missing. */
        bool stands =
            volume->state == VOLUME_SERVING && plan_next(volume, number, past, &again) && same_plan(&plan, &again);
        if (!stands) {
            for (uint32_t i = 0; i < plan.page_count; i++)
                page_unref(pages[i]);
            gate_leave(&volume->all->fetch_gate, cost);
            return 0;
        }
        start(volume, &plan, pages);
        number = plan.next_page;
        first = false;
    }
    return 0;
}

/* Waits until the frame has come, or not; drops the reference unless it is READY. */
static int await(struct volume *volume, struct frame *frame)
{
    int status = 0;
    while (frame->state == FRAME_FETCHING && status == 0)
        status = waitq_wait(&frame->arrival);
    if (status == 0 && frame->state == FRAME_FAILED)
        status = frame->failure;
    if (status < 0)
        frame_unref(volume->all->cache, frame);
    return status;
}

int fetch_page(struct volume *volume, uint64_t number, uint64_t past, struct frame **ret_frame, struct error *error)
{
    uint64_t failed_object = UINT64_MAX;
    uint32_t failed_start = 0;
    for (;;) {
        if (volume->state != VOLUME_SERVING)
            return error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
        uint64_t run;
        struct location location = { .object = OBJECT_NONE };
        if (dirty_page(volume->dirty, number) == NULL && !dirty_zeroed(volume, number, &run))
            location = map_lookup(volume->map, number, 1, &run);
        if (location.object == OBJECT_NONE) {
            *ret_frame = NULL;
            return 0;
        }
        if (location.object == OBJECT_UNLOADED) {
            int status = leaves_need(volume, number, error);
            if (status < 0)
                return status;
            continue;
        }
        uint64_t id = object_table_row(volume->objects, location.object)->id;
        if (id == failed_object && location.start == failed_start)
            return error_set(error, EIO, "%s: page %llu is lost: its object %llu is not in the store", volume->subject,
                             (unsigned long long)number, (unsigned long long)id);
        struct frame *frame = cache_lookup(volume->all->cache, volume_cache_id(volume, id), location.start);
        if (frame == NULL) {
            int status = start_missing(volume, number, past);
            if (status == -ECANCELED)
                return error_set(error, ECANCELED, "read cancelled");
            if (status < 0)
                return error_set_errno(error, -status, "%s: no memory to read page %llu into", volume->subject,
                                       (unsigned long long)number);
            continue;
        }
        int status = await(volume, frame);
        if (status == 0) {
            *ret_frame = frame;
            return 0;
        }
        if (coroutine_cancelled())
            return error_set(error, ECANCELED, "read cancelled");
        if (status != -ENOENT && status != -ECANCELED)
            return error_set(error, EIO, "%s: page %llu cannot be read from the store", volume->subject,
                             (unsigned long long)number);
        if (status == -ENOENT) {
            failed_object = id;
            failed_start = location.start;
        }
    }
}

int fetch_missing(struct volume *volume, uint64_t number, uint64_t past, struct frame **held, struct error *error)
{
    struct leaf_place place;
    bool covered = dirty_page(volume->dirty, number) != NULL;
    if (!covered && map_leaf_missing(volume->map, number, &place))
        return leaves_need(volume, number, error);
    if (*held != NULL)
        frame_unref(volume->all->cache, *held);
    *held = NULL;
    return fetch_page(volume, number, past, held, error);
}
