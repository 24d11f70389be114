/* The libuv loop inside a real loop, for the files of rt/ that watch descriptors. */
#ifndef CAIRN_RT_LOOP_UV_H
#define CAIRN_RT_LOOP_UV_H

#include <uv.h>

struct loop;

/* Asserts that `loop` is a real one. */
uv_loop_t *loop_uv_handle(struct loop *loop);

#endif
