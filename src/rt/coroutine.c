/* Coroutines: entering, parking, waking.
 *
 * A coroutine is entered from its loop's own stack and goes back there when it
 * parks, yields or ends; coroutines never enter each other.  So of each thread
 * at most one runs, and "the loop's own stack" is whatever stack called
 * coroutine_enter().
 *
 * A wake of a coroutine that is not parked is kept as a token, `woken`, that
 * its next park consumes.  A cancel sticks: every park that is not shielded
 * returns -ECANCELED from then on.
 *
 * Sanitizers must be told of each change of stacks: AddressSanitizer which
 * stack runs, so that it finds the frames' padding; ThreadSanitizer which
 * fiber, so that it follows what happens before what. */
#include "rt/coroutine_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>

#include "rt/loop_internal.h"

#ifdef CAIRN_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CAIRN_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static _Thread_local struct coroutine *running;
static _Thread_local struct fiber own_stack; /* of the loop */

static inline void fiber_switch(struct fiber *from, struct fiber *to, bool ends)
{
#ifdef CAIRN_ASAN
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake_stack, to->low, to->size);
#endif
#ifdef CAIRN_TSAN
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    switch_to(&from->context, &to->context);
#ifdef CAIRN_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

static void begin(void *arg)
{
    struct coroutine *self = arg;
#ifdef CAIRN_ASAN
    const void *low;
    __sanitizer_finish_switch_fiber(NULL, &low, &own_stack.size);
    own_stack.low = (void *)(uintptr_t)low;
#endif
    self->fn(self->arg);
    assert(running == self);
    self->state = COROUTINE_ENDED;
    fiber_switch(&self->fiber, &own_stack, true);
    assert(!"an ended coroutine was entered");
}

struct coroutine *coroutine_start(struct loop *loop, const char *name, void (*fn)(void *arg), void *arg)
{
    struct coroutine *coroutine = stack_pool_take();
    assert(coroutine->state == COROUTINE_ENDED);
    list_init(&coroutine->link);
    coroutine->loop = loop;
    coroutine->woken = false;
    coroutine->cancelled = false;
    coroutine->name = name;
    coroutine->fn = fn;
    coroutine->arg = arg;
    switch_prepare(&coroutine->fiber.context, coroutine->fiber.low, coroutine->fiber.size, begin, coroutine);
    coroutine->state = COROUTINE_READY;
    loop->coroutines++;
    loop_make_ready(loop, &coroutine->link);
    return coroutine;
}

bool coroutine_enter(struct coroutine *coroutine)
{
    assert(running == NULL);
    assert(coroutine->state == COROUTINE_READY);
#ifdef CAIRN_TSAN
    own_stack.tsan = __tsan_get_current_fiber();
#endif
    coroutine->state = COROUTINE_RUNNING;
    running = coroutine;
    fiber_switch(&own_stack, &coroutine->fiber, false);
    running = NULL;
    assert(coroutine->state != COROUTINE_RUNNING);
    if (coroutine->state != COROUTINE_ENDED)
        return false;
    coroutine->loop->coroutines--;
    return true;
}

struct coroutine *coroutine_self(void)
{
    return running;
}

struct loop *coroutine_loop(struct coroutine *coroutine)
{
    return coroutine->loop;
}

/* Back to the loop's own stack until somebody makes us ready. */
static void leave(struct coroutine *self, enum coroutine_state state)
{
    self->state = state;
    fiber_switch(&self->fiber, &own_stack, false);
    assert(running == self);
}

int coroutine_park(void)
{
    struct coroutine *self = running;
    assert(self != NULL);
    if (self->cancelled)
        return -ECANCELED;
    if (!self->woken)
        leave(self, COROUTINE_PARKED);
    self->woken = false;
    return self->cancelled ? -ECANCELED : 0;
}

void coroutine_park_shielded(void)
{
    struct coroutine *self = running;
    assert(self != NULL);
    if (!self->woken)
        leave(self, COROUTINE_PARKED);
    self->woken = false;
}

void coroutine_wake(struct coroutine *coroutine)
{
    assert(pthread_equal(coroutine->loop->thread, pthread_self()));
    switch (coroutine->state) {
    case COROUTINE_PARKED:
        coroutine->state = COROUTINE_READY;
        loop_make_ready(coroutine->loop, &coroutine->link);
        return;
    case COROUTINE_RUNNING:
    case COROUTINE_YIELDED:
        coroutine->woken = true;
        return;
    case COROUTINE_READY:
        return;
    case COROUTINE_ENDED:
        break;
    }
    assert(!"an ended coroutine was woken");
}

int coroutine_yield(void)
{
    struct coroutine *self = running;
    assert(self != NULL);
    if (self->cancelled)
        return -ECANCELED;
    loop_make_yielded(self->loop, &self->link);
    leave(self, COROUTINE_YIELDED);
    return self->cancelled ? -ECANCELED : 0;
}

bool coroutine_cancelled(void)
{
    assert(running != NULL);
    return running->cancelled;
}

void coroutine_cancel(struct coroutine *coroutine)
{
    coroutine->cancelled = true;
    if (coroutine->state == COROUTINE_PARKED)
        coroutine_wake(coroutine);
}
