/* The part that all loops share: the front door of rt/loop.h, and the queue of
 * coroutines that are ready.
 *
 * A loop of whatever kind alternates between events, which make coroutines
 * ready, and entering those that are.  A coroutine that yields waits in a queue
 * of its own until events have had their turn. */
#include "rt/loop.h"

#include <assert.h>

#include "rt/coroutine_internal.h"
#include "rt/loop_internal.h"

static _Thread_local struct loop *current;

void loop_init(struct loop *loop, const struct loop_ops *ops, uint64_t *next_order)
{
    loop->ops = ops;
    loop->thread = pthread_self();
    list_init(&loop->ready);
    list_init(&loop->yielded);
    timers_init(&loop->timers, next_order);
    loop->coroutines = 0;
    loop->users = 0;
}

void loop_fini(struct loop *loop)
{
    assert(loop != current);
    assert(loop->coroutines == 0);
    assert(loop->users == 0);
    timers_fini(&loop->timers);
}

struct loop *loop_current(void)
{
    return current;
}

struct loop *loop_set_current(struct loop *loop)
{
    struct loop *before = current;
    current = loop;
    return before;
}

void loop_end_yield(struct loop *loop)
{
    if (list_empty(&loop->yielded))
        return;
    bool first = list_empty(&loop->ready);
    list_for_each (node, &loop->yielded)
        container_of(node, struct coroutine, link)->state = COROUTINE_READY;
    list_append_all(&loop->ready, &loop->yielded);
    if (first)
        loop->ops->became_ready(loop);
}

void loop_enter_one(struct loop *loop)
{
    assert(loop == current);
    task_run(container_of(list_pop_front(&loop->ready), struct coroutine, link));
}

uint64_t loop_now_ns(struct loop *loop)
{
    return loop->ops->now_ns(loop);
}

uint64_t loop_boottime_ns(struct loop *loop)
{
    return loop->ops->boottime_ns(loop);
}

uint64_t loop_wall_ns(struct loop *loop)
{
    return loop->ops->wall_ns(loop);
}

void loop_random(struct loop *loop, void *bytes, size_t length)
{
    loop->ops->random(loop, bytes, length);
}

uint64_t loop_random_u64(struct loop *loop)
{
    uint64_t value;
    loop_random(loop, &value, sizeof value);
    return value;
}

void loop_work(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == loop);
    loop->ops->work(loop, fn, arg);
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    loop->ops->post(loop, fn, arg);
}

void loop_free(struct loop *loop)
{
    if (loop != NULL)
        loop->ops->free(loop);
}
