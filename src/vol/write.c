/* What happens on WRITE, TRIM and WRITE_ZEROES.
 *
 * A WRITE is received into private pages, and becomes part of the disk in one
 * moment, when its payload is complete: each page is linked into the dirty index
 * and the open batch (vol/batch.c), without a park in between.  So a
 * half-received write shows nowhere, and overlapping writes take effect in the
 * order in which they were linked, each as a whole.
 *
 * An edge that covers a page in part is merged with what the page holds at that
 * moment.  If that is not in memory it is fetched first, and then looked up
 * anew: merging onto what was fetched could bring back what somebody wrote or
 * trimmed away meanwhile.
 *
 * What changes only pages of the open batch that nobody else has in hand is
 * copied into them (volume_write_over): the cheapest way, and the usual one for
 * what is written over and over.
 *
 * Zeroes are not stored: a page of zeroes, TRIM and WRITE_ZEROES are ranges in
 * the batch; and where nothing but zeroes was before, not even that.
 *
 * Memory: a write enters the dirty gate with its pages before it gets them, and
 * waits there when too much is uncommitted (vol/commit.c makes room).  The
 * charge goes with the pages into the batch and is returned by its commit. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/fetch.h"
#include "vol/internal.h"

/* Zero ranges outrun the commits: whoever adds more waits. */
static bool crowded(const struct volume *volume)
{
    return volume->zero_batches >= ZERO_BATCHES_MAX;
}

/* ---- linking ---- */

static bool reads_as_zero(const struct volume *volume, uint64_t first, uint64_t past)
{
    if (!dirty_none(volume->dirty, first, past))
        return false;
    while (first < past) {
        uint64_t run;
        if (map_lookup(volume->map, first, past - first, &run).object == OBJECT_NONE) {
            first += run;
            continue;
        }
        /* Mapped, so it needs a zero range that is on its way already. */
        uint64_t zero_run;
        if (!dirty_zeroed(volume, first, &zero_run))
            return false;
        first += zero_run < past - first ? zero_run : past - first;
    }
    return true;
}

static void dropped(void *arg, struct page *page)
{
    struct batch *open = arg;
    if (page->batch == open)
        batch_remove(open, page);
}

static void link_zeroes(struct volume *volume, uint64_t first, uint64_t past)
{
    if (reads_as_zero(volume, first, past))
        return;
    struct batch *batch = commit_open_batch(volume);
    dirty_clear(volume->dirty, first, past, dropped, batch);
    if (batch->zeroes.count == 0) {
        volume->zero_batches++;
        list_push_back(&volume->zeroing, &batch->zero_link);
    }
    batch_zero(batch, first, past);
    if (batch_full(batch, commit_open_room(volume), commit_ordered_pages(volume)))
        commit_seal(volume, false);
}

/* Takes over the reference and the charge of `page`. */
static void link_page(struct volume *volume, struct page *page, uint64_t number, bool in_order)
{
    struct batch *batch = commit_open_batch(volume);
    if (MUTANT(overwrite_in_place)) {
        struct page *linked = dirty_page(volume->dirty, number);
        if (linked != NULL) {
            memcpy(linked->data, page->data, PAGE_BYTES);
            page_unref(page);
            gate_leave(&volume->all->dirty_gate, PAGE_BYTES);
            return;
        }
    }
    page->number = number;
    struct page *old = dirty_set(volume->dirty, page);
    if (old != NULL && old->batch == batch)
        batch_remove(batch, old);
    batch_add(batch, page);
    batch->in_order += in_order;
    if (batch_full(batch, commit_open_room(volume), commit_ordered_pages(volume)))
        commit_seal(volume, false);
}

/* Whether a write begins where a recent one ended; remembers where it ends. */
static bool continues(struct volume *volume, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < RECENT_WRITES; i++) {
        if (volume->recent_ends[i] == first) {
            volume->recent_ends[i] = first + count;
            return true;
        }
    }
    volume->recent_ends[volume->recent_next++ % RECENT_WRITES] = first + count;
    return false;
}

/* All pages of a complete payload.  Runs of zero pages become ranges. */
static void link_all(struct volume *volume, struct page **pages, uint32_t count, uint64_t first)
{
    bool in_order = continues(volume, first, count);
    for (uint32_t i = 0; i < count;) {
        uint32_t zeroes = 0;
        while (i + zeroes < count && page_is_zero(pages[i + zeroes]->data) && !MUTANT(zeroes_are_stored))
            zeroes++;
        if (zeroes == 0) {
            link_page(volume, pages[i], first + i, in_order);
            i++;
            continue;
        }
        for (uint32_t j = 0; j < zeroes; j++)
            page_unref(pages[i + j]);
        gate_leave(&volume->all->dirty_gate, (uint64_t)zeroes * PAGE_BYTES);
        link_zeroes(volume, first + i, first + i + zeroes);
        i += zeroes;
    }
}

/* ---- WRITE ---- */

static void prepare(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    write->volume = volume;
    write->offset = offset;
    write->length = length;
    write->page_count = (uint32_t)((offset + length - 1) / PAGE_BYTES - offset / PAGE_BYTES + 1);
    write->pages = write->few;
    if (write->page_count > sizeof write->few / sizeof write->few[0])
        write->pages = memory_array(write->page_count, sizeof(struct page *));
}

static void drop_array(struct volume_write *write)
{
    if (write->pages != write->few)
        free(write->pages);
    write->pages = NULL;
}

int volume_write_begin_try(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    if (volume->state != VOLUME_SERVING)
        return -ESHUTDOWN;
    if (crowded(volume))
        return -EAGAIN;
    prepare(volume, offset, length, write);
    uint64_t bytes = (uint64_t)write->page_count * PAGE_BYTES;
    int status = -EAGAIN;
    if (gate_try(&volume->all->dirty_gate, bytes)) {
        status = page_pool_try(volume->all->pool, write->page_count, write->pages);
        if (status < 0)
            gate_leave(&volume->all->dirty_gate, bytes);
    }
    if (status < 0)
        drop_array(write);
    return status;
}

/* Makes every volume of the shard commit what it can: a writer waits for room. */
static void press(struct volumes *all)
{
    list_for_each (node, &all->all)
        commit_kick(container_of(node, struct volume, link));
}

/* Waits for `bytes` of the dirty gate. */
static int enter_dirty(struct volume *volume, uint64_t bytes)
{
    struct gate *gate = &volume->all->dirty_gate;
    while (crowded(volume) && volume->state == VOLUME_SERVING) {
        commit_kick(volume);
        if (waitq_wait(&volume->committed) < 0)
            return -ECANCELED;
    }
    if (!gate_try(gate, bytes)) {
        /* The committer looks at the gate when it wakes, which is after we have queued in it. */
        press(volume->all);
        if (gate_enter(gate, bytes) < 0)
            return -ECANCELED;
    }
    if (volume->state != VOLUME_SERVING) {
        gate_leave(gate, bytes);
        return -ESHUTDOWN;
    }
    return 0;
}

int volume_write_begin(struct volume *volume, uint64_t offset, uint32_t length, struct volume_write *write)
{
    prepare(volume, offset, length, write);
    uint64_t bytes = (uint64_t)write->page_count * PAGE_BYTES;
    int status = enter_dirty(volume, bytes);
    if (status == 0) {
        status = page_pool_take(volume->all->pool, write->page_count, write->pages);
        if (status < 0)
            gate_leave(&volume->all->dirty_gate, bytes);
    }
    if (status < 0)
        drop_array(write);
    return status;
}

int volume_write_pieces(const struct volume_write *write, uint32_t skip, struct iovec *ret_pieces, int capacity)
{
    assert(skip <= write->length);
    uint64_t at = write->offset + skip, end = write->offset + write->length;
    uint64_t first = write->offset / PAGE_BYTES;
    int count = 0;
    while (at < end) {
        uint64_t page_end = (at / PAGE_BYTES + 1) * PAGE_BYTES;
        size_t some = (size_t)((page_end < end ? page_end : end) - at);
        uint8_t *to = write->pages[at / PAGE_BYTES - first]->data + at % PAGE_BYTES;
        struct iovec *last = count == 0 ? NULL : &ret_pieces[count - 1];
        if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == to)
            last->iov_len += some;
        else if (count == capacity)
            break;
        else
            ret_pieces[count++] = (struct iovec){ .iov_base = to, .iov_len = some };
        at += some;
    }
    return count;
}

void volume_write_abort(struct volume_write *write)
{
    if (MUTANT(half_write_shows) && write->volume->state == VOLUME_SERVING && volume_write_finish_try(write) == 0)
        return;
    for (uint32_t i = 0; i < write->page_count; i++)
        page_unref(write->pages[i]);
    gate_leave(&write->volume->all->dirty_gate, (uint64_t)write->page_count * PAGE_BYTES);
    drop_array(write);
}

/* Completes `page`, of which [from, to) was received, with what the disk holds around it now. */
static int merge(struct volume *volume, struct page *page, uint64_t number, uint32_t from, uint32_t to,
                 struct frame *const held[2])
{
    struct page *base;
    int status = read_page_try(volume, number, held, 2, &base);
    if (status < 0)
        return status;
    if (base == NULL) {
        memset(page->data, 0, from);
        memset(page->data + to, 0, PAGE_BYTES - to);
        return 0;
    }
    memcpy(page->data, base->data, from);
    memcpy(page->data + to, base->data + to, PAGE_BYTES - to);
    page_unref(base);
    return 0;
}

/* 0: linked, `write` is done.  -EAGAIN: *ret_missing is a page whose content must be fetched. */
static int finish_now(struct volume_write *write, struct frame *const held[2], uint64_t *ret_missing)
{
    struct volume *volume = write->volume;
    uint64_t first = write->offset / PAGE_BYTES, last = first + write->page_count - 1;
    uint32_t from = write->offset % PAGE_BYTES;
    uint32_t to = (uint32_t)((write->offset + write->length - 1) % PAGE_BYTES + 1);
    if (from != 0 || (first == last && to != PAGE_BYTES)) {
        if (merge(volume, write->pages[0], first, from, first == last ? to : PAGE_BYTES, held) < 0) {
            *ret_missing = first;
            return -EAGAIN;
        }
    }
    if (first != last && to != PAGE_BYTES) {
        if (merge(volume, write->pages[write->page_count - 1], last, 0, to, held) < 0) {
            *ret_missing = last;
            return -EAGAIN;
        }
    }
    link_all(volume, write->pages, write->page_count, first);
    drop_array(write);
    return 0;
}

int volume_write_finish_try(struct volume_write *write)
{
    if (write->volume->state != VOLUME_SERVING) {
        volume_write_abort(write);
        return -ESHUTDOWN;
    }
    struct frame *const none[2] = { NULL, NULL };
    uint64_t missing;
    return finish_now(write, none, &missing);
}

int volume_write_finish(struct volume_write *write, struct error *error)
{
    struct volume *volume = write->volume;
    struct frame *held[2] = { NULL, NULL };
    uint64_t first = write->offset / PAGE_BYTES, missing = 0;
    int status;
    for (;;) {
        status = volume->state == VOLUME_SERVING ? finish_now(write, held, &missing) : -ESHUTDOWN;
        if (status != -EAGAIN)
            break;
        status = fetch_missing(volume, missing, missing + 1, &held[missing == first ? 0 : 1], error);
        if (status < 0)
            break;
    }
    for (int i = 0; i < 2; i++)
        if (held[i] != NULL)
            frame_unref(volume->all->cache, held[i]);
    if (status == 0)
        return 0;
    volume_write_abort(write);
    if (status == -ESHUTDOWN)
        error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
    return status;
}

/* ---- overwriting ---- */

void volume_write_expect(const struct volume *volume, const uint64_t *offsets, uint32_t count)
{
    uint64_t numbers[VOLUME_EXPECT_MOST];
    assert(count <= VOLUME_EXPECT_MOST);
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = offsets[i] / PAGE_BYTES;
    if (volume->open != NULL && volume->state == VOLUME_SERVING)
        dirty_expect(volume->dirty, numbers, count);
}

/* Whether there is nothing but zeroes. */
static bool bytes_are_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* As memcpy(), and a call of it: where GCC knows that no more than a page is copied it uses the processor's string
 * instructions instead, which take twice as long. */
static inline void copy(uint8_t *to, const uint8_t *from, size_t length)
{
    __asm__("" : "+r"(length)); /* forgets what is known of it */
    memcpy(to, from, length);
}

bool volume_write_over(struct volume *volume, uint64_t offset, uint32_t length, const uint8_t *payload)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    struct page *pages[BLOCK_PAGES];
    uint64_t first = offset / PAGE_BYTES, last = (offset + length - 1) / PAGE_BYTES;
    if (volume->open == NULL || volume->state != VOLUME_SERVING || last - first >= BLOCK_PAGES)
        return false;
    uint32_t skip = offset % PAGE_BYTES;
    const uint8_t *at = payload;
    for (uint64_t number = first; number <= last; number++) {
        struct page *page = dirty_page(volume->dirty, number);
        /* One reference is the batch's: no reply, no other task and no cache has the page in hand. */
        if (page == NULL || page->batch != volume->open || page->references != 1)
            return false;
        pages[number - first] = page;
        uint32_t from = number == first ? skip : 0;
        uint32_t left = length - (uint32_t)(at - payload);
        uint32_t part = PAGE_BYTES - from < left ? PAGE_BYTES - from : left;
        if (bytes_are_zero(at, part)) /* perhaps a page of zeroes now, which must not be stored */
            return false;
        at += part;
    }
    at = payload;
    for (uint64_t number = first; number <= last; number++, skip = 0) {
        uint32_t left = length - (uint32_t)(at - payload);
        uint32_t part = PAGE_BYTES - skip < left ? PAGE_BYTES - skip : left;
        copy(pages[number - first]->data + skip, at, part);
        at += part;
    }
    return true;
}

/* ---- TRIM, WRITE_ZEROES ---- */

/* A part of a page at the edge of a range. */
struct edge {
    uint64_t number;
    uint32_t from, to;
};

/* The whole pages [*ret_first, *ret_past) of the range (none: equal), and what is left at its edges. */
static int split(uint64_t offset, uint64_t length, struct edge ret_edges[2], uint64_t *ret_first, uint64_t *ret_past)
{
    uint64_t end = offset + length;
    uint64_t first = (offset + PAGE_BYTES - 1) / PAGE_BYTES, past = end / PAGE_BYTES;
    int count = 0;
    if (MUTANT(trim_takes_whole_pages)) {
        *ret_first = offset / PAGE_BYTES;
        *ret_past = (end + PAGE_BYTES - 1) / PAGE_BYTES;
        return 0;
    }
    if (first > past) { /* inside one page */
        ret_edges[count++] = (struct edge){ past, offset % PAGE_BYTES, end % PAGE_BYTES };
        past = first;
    } else {
        if (offset % PAGE_BYTES != 0)
            ret_edges[count++] = (struct edge){ first - 1, offset % PAGE_BYTES, PAGE_BYTES };
        if (end % PAGE_BYTES != 0)
            ret_edges[count++] = (struct edge){ past, 0, end % PAGE_BYTES };
    }
    *ret_first = first;
    *ret_past = past;
    return count;
}

/* Makes `page` a copy of `base` with the edge zeroed, and links it. */
static void link_edge(struct volume *volume, const struct edge *edge, const struct page *base, struct page *page)
{
    memcpy(page->data, base->data, PAGE_BYTES);
    memset(page->data + edge->from, 0, edge->to - edge->from);
    link_all(volume, &page, 1, edge->number);
}

int volume_zero_try(struct volume *volume, uint64_t offset, uint64_t length)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    if (volume->state != VOLUME_SERVING)
        return -ESHUTDOWN;
    if (crowded(volume) || gate_waited_for(&volume->all->dirty_gate))
        return -EAGAIN;
    struct edge edges[2];
    uint64_t first, past;
    int count = split(offset, length, edges, &first, &past);
    struct page *bases[2] = { NULL, NULL }, *pages[2] = { NULL, NULL };
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = read_page_try(volume, edges[i].number, NULL, 0, &bases[i]);
    for (int i = 0; i < count && status == 0; i++) {
        if (bases[i] == NULL)
            continue;
        if (!gate_try(&volume->all->dirty_gate, PAGE_BYTES)) {
            status = -EAGAIN;
            break;
        }
        status = page_pool_try(volume->all->pool, 1, &pages[i]);
        if (status < 0)
            gate_leave(&volume->all->dirty_gate, PAGE_BYTES);
    }
    for (int i = 0; i < count; i++) {
        if (status == 0 && pages[i] != NULL) {
            link_edge(volume, &edges[i], bases[i], pages[i]);
        } else if (pages[i] != NULL) {
            page_unref(pages[i]);
            gate_leave(&volume->all->dirty_gate, PAGE_BYTES);
        }
        if (bases[i] != NULL)
            page_unref(bases[i]);
    }
    if (status == 0 && first < past)
        link_zeroes(volume, first, past);
    return status;
}

/* One edge, with whatever must be waited for. */
static int zero_edge(struct volume *volume, const struct edge *edge, struct error *error)
{
    int status = enter_dirty(volume, PAGE_BYTES);
    if (status < 0)
        return error_set(error, -status, "zeroing given up");
    struct page *page = NULL, *base = NULL;
    struct frame *held = NULL;
    status = page_pool_take(volume->all->pool, 1, &page);
    while (status == 0) {
        status = volume->state == VOLUME_SERVING ? read_page_try(volume, edge->number, &held, 1, &base) : -ESHUTDOWN;
        if (status != -EAGAIN)
            break;
        status = fetch_missing(volume, edge->number, edge->number + 1, &held, error);
    }
    if (held != NULL)
        frame_unref(volume->all->cache, held);
    if (status == 0 && base != NULL) {
        link_edge(volume, edge, base, page);
        page_unref(base);
        return 0;
    }
    if (page != NULL)
        page_unref(page);
    gate_leave(&volume->all->dirty_gate, PAGE_BYTES);
    if (status == -ESHUTDOWN)
        error_set(error, ESHUTDOWN, "%s is not served here any more", volume->subject);
    return status;
}

int volume_zero(struct volume *volume, uint64_t offset, uint64_t length, struct error *error)
{
    assert(length > 0 && offset <= volume->size && length <= volume->size - offset);
    struct edge edges[2];
    uint64_t first, past;
    int count = split(offset, length, edges, &first, &past);
    int status = 0;
    for (int i = 0; i < count && status == 0; i++)
        status = zero_edge(volume, &edges[i], error);
    if (status < 0 || first == past)
        return status;
    status = enter_dirty(volume, ZERO_RANGE_COST);
    if (status < 0)
        return error_set(error, -status, "zeroing given up");
    gate_leave(&volume->all->dirty_gate, ZERO_RANGE_COST);
    link_zeroes(volume, first, past);
    return 0;
}
