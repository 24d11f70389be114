/* What happens on READ.
 *
 * Page by page the newest content is looked for, from young to old:
 *
 *     dirty index   written and not yet committed            vol/dirty.c
 *     zero ranges   zeroed and not yet committed             vol/batch.c
 *     map           where the committed content lies         vol/map.c
 *     (leaf         of the map, if it is not in memory       vol/leaves.c)
 *     cache         that frame in memory                     vol/cache.c
 *     store         a ranged GET of the frame                vol/fetch.c
 *
 * As long as all of it is in memory the answer is put together at once, out of
 * references: no page is copied.  Where a frame is missing, the CO form has it
 * fetched, with what else of the request is missing nearby, waits for the one it needs
 * next, and goes on from there.  Across that wait anything may change, so each
 * page is looked up again when its turn comes; a read may thus see a write that
 * completed while it was under way, never less than what was complete when it
 * began.
 *
 * The frame that was waited for is used even if the cache dropped it in the
 * meantime, so a read makes progress however tight memory is.
 *
 * What can fail: the store, for longer than the read deadline; a damaged or
 * missing object (-EIO, and an event that names it). */
#include <assert.h>
#include <errno.h>

#include "vol/data.h"
#include "vol/fetch.h"
#include "vol/internal.h"
#include "vol/leaves.h"

bool dirty_zeroed(const struct volume *volume, uint64_t number, uint64_t *ret_run)
{
    uint64_t shortest = UINT64_MAX;
    list_for_each (node, &volume->zeroing) {
        const struct batch *batch = container_of(node, struct batch, zero_link);
        uint64_t run;
        if (zero_set_has(&batch->zeroes, number, &run)) {
            *ret_run = run;
            return true;
        }
        if (run < shortest)
            shortest = run;
    }
    *ret_run = shortest;
    return false;
}

/* The frame, if it is in memory and ready, with a reference; `count` pages of it are about to be read. */
static struct frame *ready_frame(struct volume *volume, const struct location *location, uint64_t count,
                                 struct frame *const *held, int held_count)
{
    uint64_t id = volume_cache_id(volume, object_table_row(volume->objects, location->object)->id);
    for (int i = 0; i < held_count; i++)
        if (held[i] != NULL && held[i]->object_id == id && held[i]->start == location->start) {
            held[i]->references++;
            return held[i];
        }
    uint32_t pages = (uint32_t)((UINT64_C(1) << count) - 1) << location->frame_page;
    struct frame *frame = cache_lookup_pages(volume->all->cache, id, location->start, pages);
    if (frame != NULL && frame->state != FRAME_READY) {
        frame_unref(volume->all->cache, frame);
        return NULL;
    }
    return frame;
}

int read_page_try(struct volume *volume, uint64_t number, struct frame *const *held, int held_count,
                  struct page **ret_page)
{
    bool fetched = false;
    for (int i = 0; i < held_count; i++)
        fetched = fetched || held[i] != NULL;
    bool blind = MUTANT(trim_resurrect) && fetched;
    struct page *page = dirty_page(volume->dirty, number);
    if (page != NULL && !blind) {
        *ret_page = page_ref(page);
        return 0;
    }
    uint64_t run;
    struct location location = { .object = OBJECT_NONE };
    if (blind || !dirty_zeroed(volume, number, &run))
        location = map_lookup(volume->map, number, 1, &run);
    if (location.object == OBJECT_NONE) {
        *ret_page = NULL;
        return 0;
    }
    if (location.object == OBJECT_UNLOADED)
        return -EAGAIN;
    struct frame *frame = ready_frame(volume, &location, 1, held, held_count);
    if (frame == NULL)
        return -EAGAIN;
    *ret_page = page_ref(frame->pages[location.frame_page]);
    frame_unref(volume->all->cache, frame);
    return 0;
}

/* How many pages from `page` on, at most `limit`, have an empty slot. */
static uint64_t empty_slots(const struct dirty_block *block, uint64_t page, uint64_t limit)
{
    if (block == NULL)
        return limit;
    uint64_t run = 0;
    while (run < limit && block->slots[(page + run) % BLOCK_PAGES] == NULL)
        run++;
    return run;
}

/* Appends what is in memory of [at, end); returns where it had to stop: `end`, or a page whose frame is missing. */
static uint64_t read_some(struct volume *volume, uint64_t at, uint64_t end, struct frame *held,
                          struct volume_data *data)
{
    const struct dirty_block *block = NULL;
    uint64_t block_end = at;
    while (at < end) {
        uint64_t page = at / PAGE_BYTES;
        uint32_t skip = at % PAGE_BYTES;
        if (at >= block_end) {
            block = MUTANT(stale_read) && held != NULL ? NULL : dirty_find(volume->dirty, page / BLOCK_PAGES);
            block_end = (page / BLOCK_PAGES + 1) * BLOCK_BYTES;
        }
        uint64_t stop = end < block_end ? end : block_end;
        struct page *dirty = block == NULL ? NULL : block->slots[page % BLOCK_PAGES];
        if (dirty != NULL) {
            uint64_t length = PAGE_BYTES - skip < stop - at ? PAGE_BYTES - skip : stop - at;
            data_append_page(data, dirty, skip, (uint32_t)length);
            at += length;
            continue;
        }
        uint64_t run = empty_slots(block, page, (stop + PAGE_BYTES - 1) / PAGE_BYTES - page), zero_run;
        struct location location = { .object = OBJECT_NONE };
        bool zeroed = dirty_zeroed(volume, page, &zero_run);
        if (zero_run < run)
            run = zero_run;
        if (!zeroed)
            location = map_lookup(volume->map, page, run, &run);
        uint64_t run_end = (page + run) * PAGE_BYTES < stop ? (page + run) * PAGE_BYTES : stop;
        if (location.object == OBJECT_NONE) {
            data_append_zeroes(data, run_end - at);
            at = run_end;
            continue;
        }
        if (location.object == OBJECT_UNLOADED)
            return at;
        struct frame *frame = ready_frame(volume, &location, run, &held, 1);
        if (frame == NULL)
            return at;
        for (uint32_t i = location.frame_page; at < run_end; i++, skip = 0) {
            assert(i < frame->page_count);
            uint64_t length = PAGE_BYTES - skip < run_end - at ? PAGE_BYTES - skip : run_end - at;
            data_append_page(data, frame->pages[i], skip, (uint32_t)length);
            at += length;
        }
        frame_unref(volume->all->cache, frame);
    }
    return at;
}

int volume_read_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data)
{
    assert(offset <= volume->size && length <= volume->size - offset);
    if (volume->state != VOLUME_SERVING)
        return -ESHUTDOWN;
    struct gate *gate = &volume->all->reply_gate;
    struct data_mark mark = data_mark(data);
    if (read_some(volume, offset, offset + length, NULL, data) == offset + length) {
        uint64_t pinned = (uint64_t)(data->page_count - mark.pages) * PAGE_BYTES;
        if (pinned == 0)
            return 0;
        if (gate_try(gate, pinned)) {
            data_hold(data, gate, pinned);
            return 0;
        }
    }
    data_rollback(data, &mark);
    return -EAGAIN;
}

int volume_read(struct volume *volume, uint64_t offset, uint32_t length, struct volume_data *data, struct error *error)
{
    assert(offset <= volume->size && length <= volume->size - offset);
    uint64_t at = offset, end = offset + length;
    /* What it may pin: whole pages, however little of them is asked for.  Holes pin nothing, and are let go of. */
    uint64_t most = ((end + PAGE_BYTES - 1) / PAGE_BYTES - offset / PAGE_BYTES) * PAGE_BYTES;
    if (gate_enter(&volume->all->reply_gate, most) < 0)
        return error_set(error, ECANCELED, "read cancelled");
    struct data_mark mark = data_mark(data);
    data_hold(data, &volume->all->reply_gate, most);
    struct frame *frame = NULL;
    for (;;) {
        int status = volume->state == VOLUME_SERVING
                         ? 0
                         : error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
        if (status == 0) {
            at = read_some(volume, at, end, frame, data);
            if (at == end) {
                if (frame != NULL)
                    frame_unref(volume->all->cache, frame);
                data_let_go(data, most - (uint64_t)(data->page_count - mark.pages) * PAGE_BYTES);
                return 0;
            }
            status = fetch_missing(volume, at / PAGE_BYTES, (end - 1) / PAGE_BYTES + 1, &frame, error);
        }
        if (status < 0) {
            if (frame != NULL)
                frame_unref(volume->all->cache, frame);
            data_rollback(data, &mark);
            return status;
        }
    }
}

int volume_cache(struct volume *volume, uint64_t offset, uint64_t length, struct error *error)
{
    assert(offset <= volume->size && length <= volume->size - offset);
    if (length == 0)
        return 0;
    /* More than this would only push out what it brought in before. */
    uint64_t room = page_pool_limit(volume->all->pool) / 4;
    if (length > room)
        length = room;
    uint64_t page = offset / PAGE_BYTES, past = (offset + length + PAGE_BYTES - 1) / PAGE_BYTES;
    while (page < past) {
        if (volume->state != VOLUME_SERVING)
            return error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
        uint64_t run;
        struct location location = map_lookup(volume->map, page, past - page, &run);
        if (location.object == OBJECT_UNLOADED) {
            int status = leaves_need(volume, page, error);
            if (status < 0)
                return status;
            continue;
        }
        if (location.object != OBJECT_NONE) {
            struct frame *frame = NULL;
            int status = fetch_page(volume, page, past, &frame, error);
            if (status < 0)
                return status;
            if (frame != NULL)
                frame_unref(volume->all->cache, frame);
        }
        page += run;
    }
    return 0;
}
