/* Watches: a poll handle of libuv for each.
 *
 *     watched    what the owner asked for
 *     freed      the owner is gone; libuv still needs the handle until its close callback
 *
 * libuv is level-triggered, with one exception: when it finds an error on the
 * descriptor it stops the handle and reports that once.  Here this counts as
 * both events, and the handle is started again for as long as the owner goes on
 * watching.
 *
 * What can fail: making a watch of something that cannot be polled, or for want
 * of kernel memory. */
#include "rt/watch.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/loop_internal.h"
#include "rt/loop_uv.h"

struct watch {
    uv_poll_t handle;
    struct loop *loop;
    void (*ready)(void *arg, int events);
    void *arg;
    int watched;
    bool freed;
};

static_assert(WATCH_READABLE == (int)UV_READABLE && WATCH_WRITABLE == (int)UV_WRITABLE, "events are libuv's");

static void became_ready(uv_poll_t *handle, int status, int events)
{
    struct watch *watch = container_of(handle, struct watch, handle);
    if (watch->freed)
        return;
    bool stopped = status < 0;
    watch->ready(watch->arg, stopped ? WATCH_READABLE | WATCH_WRITABLE : events);
    if (stopped && !watch->freed)
        watch_set(watch, watch->watched);
}

void watch_set(struct watch *watch, int events)
{
    assert(!watch->freed);
    assert((events & ~(WATCH_READABLE | WATCH_WRITABLE)) == 0);
    watch->watched = events;
    int result = events == 0 ? uv_poll_stop(&watch->handle) : uv_poll_start(&watch->handle, events, became_ready);
    assert(result == 0);
    (void)result;
}

int watch_new(struct loop *loop, int fd, void (*ready)(void *arg, int events), void *arg, struct watch **ret_watch,
              struct error *error)
{
    struct watch *watch = memory_new(sizeof *watch);
    int result = uv_poll_init(loop_uv_handle(loop), &watch->handle, fd); /* sets it non-blocking */
    if (result != 0) {
        free(watch);
        return error_set_errno(error, -result, "watch descriptor %d", fd);
    }
    watch->loop = loop;
    watch->ready = ready;
    watch->arg = arg;
    loop->users++;
    *ret_watch = watch;
    return 0;
}

static void closed(uv_handle_t *handle)
{
    free(container_of((uv_poll_t *)handle, struct watch, handle));
}

void watch_free(struct watch *watch)
{
    if (watch == NULL)
        return;
    assert(!watch->freed);
    watch->freed = true;
    watch->loop->users--;
    uv_close((uv_handle_t *)&watch->handle, closed);
}
