/* Batches, and how plan_make() flattens a history of them into one commit.
 *
 * Histories are made as vol/write.c makes them, at random; what is expected of
 * the commit is what a reader who saw the history go by would say of each page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/state.h"
#include "vol/batch.h"
#include "vol/dirty.h"
#include "vol/plan.h"

#define SPAN 8192u /* pages of the disk */
#define BATCHES_MAX 48
#define INLINE_MOST 512u /* larger ones never ride inline: an entry has its bound */

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

enum fate { UNTOUCHED, ZERO, WRITTEN };

struct history {
    struct page_pool *pool;
    struct gate gate;
    struct dirty *dirty;
    struct batch *batches[BATCHES_MAX];
    uint32_t count;
    uint64_t sealed; /* number of the batch that was sealed last */
    enum fate fates[SPAN];
    struct page *newest[SPAN]; /* WRITTEN: its last version */
};

/* ---- making it, as vol/write.c does ---- */

static struct batch *open_batch(struct history *history)
{
    struct batch *last = history->count == 0 ? NULL : history->batches[history->count - 1];
    if (last != NULL && last->state == BATCH_OPEN)
        return last;
    assert_true(history->count < BATCHES_MAX);
    return history->batches[history->count++] = batch_new(NULL, &history->gate, 0);
}

static void write_page(struct history *history, uint64_t number)
{
    struct batch *batch = open_batch(history);
    struct page *page;
    assert_int_equal(page_pool_try(history->pool, 1, &page), 0);
    assert_true(gate_try(&history->gate, PAGE_BYTES));
    page->number = number;
    struct page *old = dirty_set(history->dirty, page);
    if (old != NULL && old->batch == batch)
        batch_remove(batch, old);
    batch_add(batch, page);
    history->fates[number] = WRITTEN;
    history->newest[number] = page;
}

static void hidden(void *arg, struct page *page)
{
    struct batch *open = arg;
    if (page->batch == open)
        batch_remove(open, page);
}

static void zero_pages(struct history *history, uint64_t first, uint64_t past)
{
    struct batch *batch = open_batch(history);
    dirty_clear(history->dirty, first, past, hidden, batch);
    batch_zero(batch, first, past);
    for (uint64_t i = first; i < past; i++)
        history->fates[i] = ZERO;
}

static void check_charges(const struct history *history)
{
    uint64_t charged = 0;
    for (uint32_t i = 0; i < history->count; i++) {
        const struct batch *batch = history->batches[i];
        assert_int_equal(batch->charged,
                         (uint64_t)batch->page_count * PAGE_BYTES + (uint64_t)batch->zeroes.count * ZERO_RANGE_COST);
        charged += batch->charged;
    }
    assert_int_equal(history->gate.used, charged);
}

/* A sealed batch in two, and together again. */
static void cut_and_join(struct batch *batch)
{
    uint64_t number = batch->number, charged = batch->charged;
    uint32_t pages = batch->page_count, extents = batch->extents_bound;
    struct batch *rest = batch_cut(batch, 1 + (uint32_t)random_below(pages + 1));
    if (rest == NULL)
        return;
    assert_true(batch->number < number && rest->number == number);
    assert_false(batch_joins(rest, batch));
    assert_true(batch_joins(batch, rest));
    batch_join(batch, rest);
    assert_true(batch_empty(rest));
    batch_free(rest);
    assert_int_equal(batch->number, number);
    assert_int_equal(batch->charged, charged);
    assert_int_equal(batch->page_count, pages);
    assert_in_range(batch->extents_bound, extents, extents + 1); /* the cut may go through a run */
    batch->joined = false;
    batch->extents_bound = extents;
}

/* Seals the open batch, and cuts it as vol/commit.c does. */
static void seal(struct history *history)
{
    if (history->count == 0 || history->batches[history->count - 1]->state != BATCH_OPEN)
        return;
    struct batch *batch = history->batches[history->count - 1];
    uint64_t before = history->sealed;
    history->sealed = batch_seal(batch, before);
    assert_int_equal(history->sealed, batch->number);
    uint32_t most =
        random_below(2) == 0 ? BATCH_EXTENTS_MOST : BATCH_EXTENTS / 2 + (uint32_t)random_below(BATCH_EXTENTS_MOST);
    for (struct batch *rest; (rest = batch_cut(batch, most)) != NULL; batch = rest) {
        assert_true(before < batch->number && batch->number < rest->number);
        assert_int_equal(rest->number, history->sealed);
        assert_int_equal(rest->zeroes.count, 0);
        before = batch->number;
        cut_and_join(batch);
        assert_true(history->count < BATCHES_MAX);
        history->batches[history->count++] = rest;
    }
    for (uint32_t i = 0; i < history->count; i++) {
        const struct batch *sealed = history->batches[i];
        assert_true(sealed->page_count + sealed->zeroes.count <= BATCH_EXTENTS_MOST || sealed->page_count == 0);
        assert_true(i + 1 < history->count || sealed->page_count <= most);
        for (uint32_t j = 0; j < sealed->page_count; j++) {
            assert_ptr_equal(sealed->pages[j]->batch, sealed);
            assert_true(j == 0 || sealed->pages[j - 1]->number < sealed->pages[j]->number);
        }
    }
}

static void upload(struct batch *batch, uint64_t n)
{
    state_move(&batch_states, &batch->state, BATCH_UPLOADING);
    batch->data_n = n;
    layout_make(batch->pages, batch->page_count, &batch->layout);
    state_move(&batch_states, &batch->state, BATCH_UPLOADED);
}

struct style {
    uint32_t batches, steps, longest; /* steps of each batch; pages of a step, at most */
    uint32_t zero_percent, upload_percent;
    uint64_t span;
};

static void make_history(struct history *history, const struct style *style)
{
    for (uint32_t i = 0; i < style->batches; i++) {
        for (uint32_t j = 0; j < style->steps; j++) {
            uint64_t first = random_below(style->span), past = first + 1 + random_below(style->longest);
            past = past < style->span ? past : style->span;
            if (random_below(100) < style->zero_percent)
                zero_pages(history, first, past);
            else
                for (uint64_t number = first; number < past; number++)
                    write_page(history, number);
        }
        check_charges(history);
        seal(history);
        check_charges(history);
    }
    for (uint32_t i = 0; i < history->count; i++) {
        uint32_t pages = history->batches[i]->page_count;
        if (pages > INLINE_MOST || (pages > 0 && random_below(100) < style->upload_percent))
            upload(history->batches[i], 100 + i);
    }
}

/* ---- checking the commit ---- */

/* The layout that an extent's object has, and from where its starts count. */
static const struct layout *layout_of(const struct history *history, const struct plan *plan, uint32_t object,
                                      uint32_t *ret_base)
{
    *ret_base = object == 0 ? plan->inline_start : 0;
    if (object == 0)
        return &plan->inline_layout;
    for (uint32_t i = 0; i < history->count; i++)
        if (history->batches[i]->state == BATCH_UPLOADED && --object == 0)
            return &history->batches[i]->layout;
    fail_msg("an extent names an object that is not listed");
    return NULL;
}

static const struct layout_frame *frame_at(const struct layout *layout, uint32_t start)
{
    for (uint32_t i = 0; i < layout->frame_count; i++)
        if (layout->frames[i].start == start)
            return &layout->frames[i];
    fail_msg("no frame starts there");
    return NULL;
}

static void check_pages(const struct history *history, const struct plan *plan, const struct commit_extent *extent)
{
    uint32_t base;
    const struct layout *layout = layout_of(history, plan, extent->object, &base);
    assert_true(extent->start >= base);
    const struct layout_frame *frame = frame_at(layout, extent->start - base);
    assert_int_equal(extent->frame_pages, frame->page_count);
    assert_int_equal(extent->units * FRAME_UNIT, frame_total_bytes(frame->page_count * PAGE_BYTES));
    assert_int_equal(extent->page / BLOCK_PAGES, (extent->page + extent->count - 1) / BLOCK_PAGES);
    assert_int_equal(extent->page / BLOCK_PAGES, frame->block);
    assert_true(extent->frame_page + extent->count <= frame->page_count);
    for (uint64_t i = 0; i < extent->count; i++) {
        const struct page *page = layout->pages[frame->first + extent->frame_page + i];
        assert_int_equal(page->number, extent->page + i);
        assert_ptr_equal(page, history->newest[extent->page + i]);
    }
}

static void check_extents(const struct history *history, const struct plan *plan)
{
    const struct entry *entry = &plan->entry;
    uint64_t next = 0;
    uint32_t inline_pages = 0, last_zero = UINT32_MAX;
    for (uint32_t i = 0; i < entry->extent_count; i++) {
        const struct commit_extent *extent = &entry->extents[i];
        assert_true(extent->page >= next && extent->count > 0);
        for (; next < extent->page; next++)
            assert_int_equal(history->fates[next], UNTOUCHED);
        enum fate fate = extent->kind == EXTENT_ZERO ? ZERO : WRITTEN;
        for (; next < extent->page + extent->count; next++)
            assert_int_equal(history->fates[next], fate);
        if (fate == WRITTEN) {
            check_pages(history, plan, extent);
            inline_pages += extent->object == 0 ? (uint32_t)extent->count : 0;
        } else {
            /* Zero extents are as long as they can be. */
            assert_true(last_zero == UINT32_MAX || last_zero + 1 < i ||
                        entry->extents[last_zero].page + entry->extents[last_zero].count < extent->page);
            last_zero = i;
        }
    }
    for (; next < SPAN; next++)
        assert_int_equal(history->fates[next], UNTOUCHED);
    assert_int_equal(plan->inline_layout.page_count, inline_pages); /* nothing rides along that nobody can reach */
    assert_int_equal(entry->inline_bytes, plan->inline_layout.bytes);
}

static void check_objects(const struct history *history, const struct plan *plan)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < history->count; i++) {
        const struct batch *batch = history->batches[i];
        if (batch->state != BATCH_UPLOADED)
            continue;
        assert_true(count < plan->entry.object_count);
        const struct commit_object *object = &plan->entry.objects[count++];
        assert_int_equal(object->n, batch->data_n);
        assert_int_equal(object->epoch, plan->entry.epoch);
        assert_int_equal(object->bytes, batch->layout.bytes);
    }
    assert_int_equal(plan->entry.object_count, count);
}

static void check_room(const struct history *history, const struct plan *plan)
{
    uint32_t bound = 0;
    for (uint32_t i = 0; i < history->count; i++)
        bound += 2 * history->batches[i]->extents_bound;
    assert_true(plan->entry.extent_count <= bound); /* what vol/commit.c counts on when it chooses */
}

static void check_codec(const struct plan *plan)
{
    const struct entry *entry = &plan->entry;
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES], read_hash[SHA256_BYTES];
    struct entry read;
    struct error error = ERROR_NONE;
    entry_encode(entry, &bytes, hash);
    assert_int_equal(bytes.length, (uint64_t)plan->inline_start * FRAME_UNIT);
    assert_int_equal(entry_decode(bytes.data, bytes.length, &read, read_hash, &error), 0);
    assert_memory_equal(hash, read_hash, sizeof hash);
    assert_int_equal(read.seq, entry->seq);
    assert_int_equal(read.object_id, entry->object_id);
    assert_int_equal(read.inline_bytes, entry->inline_bytes);
    assert_int_equal(read.object_count, entry->object_count);
    for (uint32_t i = 0; i < read.object_count; i++) {
        assert_int_equal(read.objects[i].epoch, entry->objects[i].epoch);
        assert_int_equal(read.objects[i].n, entry->objects[i].n);
        assert_int_equal(read.objects[i].bytes, entry->objects[i].bytes);
    }
    assert_int_equal(read.extent_count, entry->extent_count);
    for (uint32_t i = 0; i < read.extent_count; i++) {
        const struct commit_extent *left = &read.extents[i], *right = &entry->extents[i];
        assert_int_equal(left->kind, right->kind);
        assert_int_equal(left->page, right->page);
        assert_int_equal(left->count, right->count);
        if (left->kind == EXTENT_ZERO)
            continue;
        assert_int_equal(left->object, right->object);
        assert_int_equal(left->start, right->start);
        assert_int_equal(left->units, right->units);
        assert_int_equal(left->frame_page, right->frame_page);
        assert_int_equal(left->frame_pages, right->frame_pages);
    }
    entry_free(&read);
    buffer_free(&bytes);
}

static void flatten_and_check(const struct history *history)
{
    const struct entry head = { .kind = ENTRY_COMMIT,
                                .uuid.bytes = { 1, 2 },
                                .epoch = 3,
                                .owner.bytes = { 4, 5 },
                                .seq = 6,
                                .previous = { 7 },
                                .wall_ms = 8,
                                .object_id = 9 };
    struct plan plan;
    plan_make(history->batches, history->count, &head, &plan);
    check_extents(history, &plan);
    check_objects(history, &plan);
    check_room(history, &plan);
    check_codec(&plan);
    plan_free(&plan);
}

static struct page_pool *pool;

static struct history *history_new(void)
{
    struct history *history = calloc(1, sizeof *history);
    history->pool = pool;
    history->dirty = dirty_new();
    gate_init(&history->gate, UINT64_MAX);
    return history;
}

static void history_free(struct history *history)
{
    for (uint32_t i = 0; i < history->count; i++)
        batch_free(history->batches[i]);
    assert_int_equal(history->gate.used, 0);
    assert_int_equal(page_pool_used(pool), 0);
    dirty_free(history->dirty);
    free(history);
}

static void run_styles(const struct style *style, uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        struct history *history = history_new();
        make_history(history, style);
        flatten_and_check(history);
        history_free(history);
    }
}

static void test_small_histories(void **state)
{
    run_styles(
        &(struct style){
            .batches = 4, .steps = 5, .longest = 20, .zero_percent = 40, .upload_percent = 40, .span = 80 },
        300);
}

static void test_mixed_histories(void **state)
{
    run_styles(
        &(struct style){
            .batches = 8, .steps = 30, .longest = 40, .zero_percent = 30, .upload_percent = 50, .span = 1500 },
        30);
}

static void test_all_inline_and_all_uploaded(void **state)
{
    run_styles(
        &(struct style){
            .batches = 5, .steps = 20, .longest = 9, .zero_percent = 25, .upload_percent = 0, .span = 500 },
        20);
    run_styles(
        &(struct style){
            .batches = 5, .steps = 20, .longest = 9, .zero_percent = 25, .upload_percent = 100, .span = 500 },
        20);
}

static void test_only_zeroes_and_only_writes(void **state)
{
    run_styles(&(struct style){ .batches = 6, .steps = 20, .longest = 30, .zero_percent = 100, .span = 900 }, 20);
    run_styles(&(struct style){ .batches = 6, .steps = 20, .longest = 30, .upload_percent = 50, .span = 900 }, 20);
}

/* Batches so large that they are cut: their pieces are batches of one moment. */
static void test_cut_batches(void **state)
{
    run_styles(
        &(struct style){
            .batches = 2, .steps = 120, .longest = 120, .zero_percent = 15, .upload_percent = 60, .span = SPAN },
        6);
}

/* What comes of a batch whose every page was hidden by a later one: its object is listed, and has no extent. */
static void test_a_batch_of_which_nothing_survives(void **state)
{
    struct history *history = history_new();
    for (uint64_t i = 0; i < 40; i++)
        write_page(history, i);
    seal(history);
    upload(history->batches[0], 1);
    zero_pages(history, 0, 20);
    seal(history);
    for (uint64_t i = 10; i < 40; i++)
        write_page(history, i);
    seal(history);
    flatten_and_check(history);
    history_free(history);
}

/* Inside one batch zero ranges apply first, then pages; a page that is zeroed leaves, a zeroed one is written again. */
static void test_order_inside_a_batch(void **state)
{
    struct history *history = history_new();
    write_page(history, 3);
    write_page(history, 4);
    zero_pages(history, 4, 9);
    write_page(history, 6);
    write_page(history, 6);
    struct batch *batch = history->batches[0];
    assert_int_equal(batch->page_count, 2);
    assert_int_equal(batch->zeroes.count, 1);
    check_charges(history);
    seal(history);
    flatten_and_check(history);
    history_free(history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_histories),
        cmocka_unit_test(test_mixed_histories),
        cmocka_unit_test(test_all_inline_and_all_uploaded),
        cmocka_unit_test(test_only_zeroes_and_only_writes),
        cmocka_unit_test(test_cut_batches),
        cmocka_unit_test(test_a_batch_of_which_nothing_survives),
        cmocka_unit_test(test_order_inside_a_batch),
    };
    pool = page_pool_new(NULL, UINT64_C(256) << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    page_pool_free(pool);
    return failed;
}
