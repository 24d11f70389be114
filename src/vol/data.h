/* Filling a struct volume_data: inside the engine only. */
#ifndef CAIRN_VOL_DATA_H
#define CAIRN_VOL_DATA_H

#include "vol/page.h"
#include "vol/volume.h"

/* The data holds `bytes` of the gate until it is cleared. */
void data_hold(struct volume_data *data, struct gate *gate, uint64_t bytes);
/* Some of what it holds is not needed. */
void data_let_go(struct volume_data *data, uint64_t bytes);
void data_append_page(struct volume_data *data, struct page *page, uint32_t skip, uint32_t length);
void data_append_zeroes(struct volume_data *data, uint64_t length);

/* To undo everything appended since. */
struct data_mark {
    uint32_t pieces, pages;
    size_t last_length;
    uint64_t held;
};
struct data_mark data_mark(const struct volume_data *data);
void data_rollback(struct volume_data *data, const struct data_mark *mark);

#endif
