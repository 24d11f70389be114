/* Data for a reply: pieces of memory and what keeps them alive (struct volume_data, vol/volume.h). */
#include "vol/data.h"

#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "vol/gate.h"

/* What holes read as; a piece points here as often as needed. */
static const uint8_t zeroes[BLOCK_BYTES] __attribute__((aligned(PAGE_BYTES)));

void volume_data_init(struct volume_data *data)
{
    *data = (struct volume_data){ 0 };
}

void volume_data_clear(struct volume_data *data)
{
    for (uint32_t i = 0; i < data->page_count; i++)
        page_unref(data->pages[i]);
    data->page_count = data->piece_count = 0;
    if (data->held > 0)
        gate_leave(data->gate, data->held);
    data->held = 0;
}

void volume_data_free(struct volume_data *data)
{
    volume_data_clear(data);
    free(data->pages);
    free(data->pieces);
    *data = (struct volume_data){ 0 };
}

void data_hold(struct volume_data *data, struct gate *gate, uint64_t bytes)
{
    assert(data->held == 0 || data->gate == gate);
    data->gate = gate;
    data->held += bytes;
}

void data_let_go(struct volume_data *data, uint64_t bytes)
{
    assert(bytes <= data->held);
    data->held -= bytes;
    if (bytes > 0)
        gate_leave(data->gate, bytes);
}

static void append_piece(struct volume_data *data, const uint8_t *base, size_t length)
{
    if (data->piece_count > 0) {
        struct iovec *last = &data->pieces[data->piece_count - 1];
        if ((const uint8_t *)last->iov_base + last->iov_len == base) {
            last->iov_len += length;
            return;
        }
    }
    if (data->piece_count == data->piece_capacity) {
        data->piece_capacity = data->piece_capacity == 0 ? 4 : data->piece_capacity * 2;
        data->pieces = memory_resize(data->pieces, data->piece_capacity, sizeof *data->pieces);
    }
    data->pieces[data->piece_count++] = (struct iovec){ .iov_base = (void *)(uintptr_t)base, .iov_len = length };
}

void data_append_page(struct volume_data *data, struct page *page, uint32_t skip, uint32_t length)
{
    assert(skip + length <= PAGE_BYTES);
    if (data->page_count == data->page_capacity) {
        data->page_capacity = data->page_capacity == 0 ? 4 : data->page_capacity * 2;
        data->pages = memory_resize(data->pages, data->page_capacity, sizeof(struct page *));
    }
    data->pages[data->page_count++] = page_ref(page);
    append_piece(data, page->data + skip, length);
}

void data_append_zeroes(struct volume_data *data, uint64_t length)
{
    while (length > 0) {
        size_t some = length < sizeof zeroes ? length : sizeof zeroes;
        append_piece(data, zeroes, some);
        length -= some;
    }
}

struct data_mark data_mark(const struct volume_data *data)
{
    return (struct data_mark){
        .pieces = data->piece_count,
        .pages = data->page_count,
        .last_length = data->piece_count == 0 ? 0 : data->pieces[data->piece_count - 1].iov_len,
        .held = data->held,
    };
}

void data_rollback(struct volume_data *data, const struct data_mark *mark)
{
    while (data->page_count > mark->pages)
        page_unref(data->pages[--data->page_count]);
    data->piece_count = mark->pieces;
    if (mark->pieces > 0)
        data->pieces[mark->pieces - 1].iov_len = mark->last_length;
    if (data->held > mark->held)
        gate_leave(data->gate, data->held - mark->held);
    data->held = mark->held;
}
