/* See layout.h. */
#include "vol/layout.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/batch.h"

_Static_assert((uint64_t)BATCH_EXTENTS_MOST *(PAGE_BYTES + FRAME_HEADER_BYTES) <= OBJECT_BYTES_MAX,
               "a batch fits an object, even with a frame for each page");

void layout_make(struct page *const *pages, uint32_t page_count, struct layout *ret_layout)
{
    struct layout layout = { .pages = pages, .page_count = page_count };
    uint32_t frames = 0;
    for (uint32_t i = 0; i < page_count; i++) {
        assert(i == 0 || pages[i - 1]->number < pages[i]->number);
        frames += i == 0 || pages[i - 1]->number / BLOCK_PAGES != pages[i]->number / BLOCK_PAGES;
    }
    layout.frames = memory_array(frames, sizeof *layout.frames);
    uint32_t start = 0;
    for (uint32_t i = 0; i < page_count;) {
        struct layout_frame *frame = &layout.frames[layout.frame_count++];
        *frame = (struct layout_frame){ .block = pages[i]->number / BLOCK_PAGES, .first = i, .start = start };
        for (; i < page_count && pages[i]->number / BLOCK_PAGES == frame->block; i++) {
            frame->bitmap |= 1u << (pages[i]->number % BLOCK_PAGES);
            frame->page_count++;
        }
        start += frame_total_bytes(frame->page_count * PAGE_BYTES) / FRAME_UNIT;
    }
    layout.bytes = (uint64_t)start * FRAME_UNIT;
    *ret_layout = layout;
}

void layout_seal(struct layout *layout, const struct frame_place *place)
{
    assert(layout->headers == NULL);
    layout->headers = memory_array(layout->frame_count, FRAME_HEADER_BYTES);
    layout->pieces = memory_array((size_t)layout->frame_count + layout->page_count, sizeof *layout->pieces);
    int count = 0;
    for (uint32_t i = 0; i < layout->frame_count; i++) {
        const struct layout_frame *frame = &layout->frames[i];
        struct iovec *payload = &layout->pieces[count + 1];
        int payload_count = 0;
        for (uint32_t j = 0; j < frame->page_count; j++) {
            uint8_t *data = layout->pages[frame->first + j]->data;
            struct iovec *last = payload_count == 0 ? NULL : &payload[payload_count - 1];
            if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == data)
                last->iov_len += PAGE_BYTES;
            else
                payload[payload_count++] = (struct iovec){ .iov_base = data, .iov_len = PAGE_BYTES };
        }
        uint32_t bytes = frame->page_count * PAGE_BYTES;
        /* Uncompressed frames are multiples of the unit: there is no padding to send. */
        assert(frame_total_bytes(bytes) == FRAME_HEADER_BYTES + bytes);
        struct frame_header header = { .kind = FRAME_PAGES,
                                       .codec = CODEC_NONE,
                                       .cipher = CIPHER_NONE,
                                       .block = frame->block,
                                       .pages = frame->bitmap,
                                       .raw_bytes = bytes,
                                       .stored_bytes = bytes };
        struct frame_place here = *place;
        here.offset += (uint64_t)frame->start * FRAME_UNIT;
        frame_encode(&header, &here, payload, payload_count, layout->headers[i]);
        layout->pieces[count] = (struct iovec){ .iov_base = layout->headers[i], .iov_len = FRAME_HEADER_BYTES };
        count += 1 + payload_count;
    }
    layout->piece_count = count;
}

const struct layout_frame *layout_frame_of(const struct layout *layout, uint32_t index, uint32_t *at_frame)
{
    assert(index < layout->page_count);
    while (index >= layout->frames[*at_frame].first + layout->frames[*at_frame].page_count)
        ++*at_frame;
    assert(index >= layout->frames[*at_frame].first);
    return &layout->frames[*at_frame];
}

void layout_free(struct layout *layout)
{
    free(layout->frames);
    free(layout->headers);
    free(layout->pieces);
    *layout = (struct layout){ 0 };
}
