/* How pages become frames, and that the frames are what a reader verifies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vol/layout.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static const struct frame_place place = {
    .uuid.bytes = { 1, 2, 3 }, .kind = OBJECT_DATA, .epoch = 3, .n = 17, .offset = 640
};

/* `count` pages with ascending numbers and content that tells them apart. */
static struct page **make_pages(struct page_pool *pool, const uint64_t *numbers, uint32_t count)
{
    struct page **pages = calloc(count, sizeof(struct page *));
    assert_int_equal(page_pool_try(pool, count, pages), 0);
    for (uint32_t i = 0; i < count; i++) {
        pages[i]->number = numbers[i];
        for (uint32_t j = 0; j < PAGE_BYTES / 8; j++)
            memcpy(pages[i]->data + 8 * (size_t)j, &(uint64_t){ numbers[i] * 1000 + j }, 8);
    }
    return pages;
}

static void drop_pages(struct page **pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        page_unref(pages[i]);
    free(pages);
}

/* All pieces, one behind the other. */
static uint8_t *gather(const struct layout *layout)
{
    uint8_t *bytes = malloc(layout->bytes + 1);
    size_t at = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        assert_true(at + layout->pieces[i].iov_len <= layout->bytes);
        memcpy(bytes + at, layout->pieces[i].iov_base, layout->pieces[i].iov_len);
        at += layout->pieces[i].iov_len;
    }
    assert_int_equal(at, layout->bytes);
    return bytes;
}

static void check_frame(const struct layout *layout, const struct layout_frame *frame, const uint8_t *bytes)
{
    const uint8_t *at = bytes + (size_t)frame->start * FRAME_UNIT;
    struct iovec payload = { .iov_base = (void *)(uintptr_t)(at + FRAME_HEADER_BYTES),
                             .iov_len = (size_t)frame->page_count * PAGE_BYTES };
    struct frame_place here = place;
    here.offset += (uint64_t)frame->start * FRAME_UNIT;
    struct frame_header header;
    struct error error = ERROR_NONE;
    assert_int_equal(frame_verify(at, &here, &payload, 1, &header, &error), 0);
    assert_int_equal(header.kind, FRAME_PAGES);
    assert_int_equal(header.block, frame->block);
    assert_int_equal(header.pages, frame->bitmap);
    uint32_t index = frame->first;
    for (uint32_t i = 0; i < BLOCK_PAGES; i++) {
        if ((frame->bitmap & 1u << i) == 0)
            continue;
        assert_int_equal(layout->pages[index]->number, frame->block * BLOCK_PAGES + i);
        assert_memory_equal(at + FRAME_HEADER_BYTES + (size_t)(index - frame->first) * PAGE_BYTES,
                            layout->pages[index]->data, PAGE_BYTES);
        index++;
    }
    assert_int_equal(index - frame->first, frame->page_count);
}

static void check(const uint64_t *numbers, uint32_t count)
{
    struct page_pool *pool = page_pool_new(NULL, UINT64_C(64) << 20);
    struct page **pages = make_pages(pool, numbers, count);
    struct layout layout;
    layout_make(pages, count, &layout);
    assert_int_equal(layout.page_count, count);
    uint32_t first = 0, start = 0, cursor = 0;
    for (uint32_t i = 0; i < layout.frame_count; i++) {
        const struct layout_frame *frame = &layout.frames[i];
        assert_int_equal(frame->first, first);
        assert_int_equal(frame->start, start);
        assert_true(i == 0 || layout.frames[i - 1].block < frame->block); /* one frame a block */
        for (uint32_t j = 0; j < frame->page_count; j++)
            assert_ptr_equal(layout_frame_of(&layout, first + j, &cursor), frame);
        first += frame->page_count;
        start += frame_total_bytes(frame->page_count * PAGE_BYTES) / FRAME_UNIT;
    }
    assert_int_equal(first, count);
    assert_int_equal(layout.bytes, (uint64_t)start * FRAME_UNIT);

    layout_seal(&layout, &place);
    uint8_t *bytes = gather(&layout);
    for (uint32_t i = 0; i < layout.frame_count; i++)
        check_frame(&layout, &layout.frames[i], bytes);
    free(bytes);
    layout_free(&layout);
    drop_pages(pages, count);
    assert_int_equal(page_pool_used(pool), 0);
    page_pool_free(pool);
}

static void test_a_few_shapes(void **state)
{
    check((const uint64_t[]){ 0 }, 1);
    check((const uint64_t[]){ 31, 32 }, 2);
    check((const uint64_t[]){ VOLUME_PAGES_MAX - 1 }, 1);
    uint64_t whole[100];
    for (uint64_t i = 0; i < 100; i++)
        whole[i] = i + 30; /* two pages, three whole blocks, two pages */
    check(whole, 100);
}

static void test_random_pages(void **state)
{
    uint64_t numbers[600];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        uint32_t count = 1 + (uint32_t)random_below(600);
        uint64_t number = random_below(1000), longest = 1 + random_below(60);
        for (uint32_t i = 0; i < count; i++, number += random_below(3) == 0 ? 1 + random_below(longest) : 1)
            numbers[i] = number;
        check(numbers, count);
    }
}

static void test_nothing(void **state)
{
    struct layout layout;
    layout_make(NULL, 0, &layout);
    assert_int_equal(layout.frame_count, 0);
    assert_int_equal(layout.bytes, 0);
    layout_seal(&layout, &place);
    assert_int_equal(layout.piece_count, 0);
    layout_free(&layout);
}

/* Pages that lie side by side in memory are sent as one piece. */
static void test_neighbours_in_memory_are_one_piece(void **state)
{
    struct page_pool *pool = page_pool_new(NULL, UINT64_C(64) << 20);
    uint64_t numbers[64];
    for (uint64_t i = 0; i < 64; i++)
        numbers[i] = i;
    struct page **pages = make_pages(pool, numbers, 64);
    struct layout layout;
    layout_make(pages, 64, &layout);
    layout_seal(&layout, &place);
    assert_int_equal(layout.frame_count, 2);
    assert_int_equal(layout.piece_count, 4);
    layout_free(&layout);
    drop_pages(pages, 64);
    page_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_few_shapes),
        cmocka_unit_test(test_random_pages),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_neighbours_in_memory_are_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
