/* What the files of rt/ know of a coroutine, and others do not. */
#ifndef CAIRN_RT_COROUTINE_INTERNAL_H
#define CAIRN_RT_COROUTINE_INTERNAL_H

#include "base/list.h"
#include "rt/coroutine.h"
#include "rt/switch.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CAIRN_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define CAIRN_TSAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CAIRN_ASAN
#endif
#if defined(__SANITIZE_THREAD__)
#define CAIRN_TSAN
#endif

/* One stack, as the switch and the sanitizers see it. */
struct fiber {
    struct switch_context context;
    void *low; /* of the usable stack; the loop's own is learned only where a sanitizer asks */
    size_t size;
#ifdef CAIRN_ASAN
    void *fake_stack;
#endif
#ifdef CAIRN_TSAN
    void *tsan;
#endif
};

/* The moves:  READY -> RUNNING -> READY (woken) | PARKED | YIELDED | ENDED;  PARKED -> READY;
 * YIELDED -> READY;  ENDED -> READY (the memory's next coroutine). */
enum coroutine_state { COROUTINE_ENDED, COROUTINE_READY, COROUTINE_RUNNING, COROUTINE_YIELDED, COROUTINE_PARKED };

/* The part that belongs to rt/task.c. */
struct task {
    struct group *group;
    struct list in_group;
};

struct coroutine {
    struct fiber fiber;
    struct list link; /* in the loop's ready or yielded queue, or in the pool */
    struct loop *loop;
    enum coroutine_state state;
    bool woken; /* a wake came while it was not parked: the next park returns at once */
    bool cancelled;
    const char *name;
    void (*fn)(void *arg);
    void *arg;
    struct task task;
};

/* A coroutine from this thread's pool, ready to run on `loop`. */
struct coroutine *coroutine_start(struct loop *loop, const char *name, void (*fn)(void *arg), void *arg);
/* Runs it until it parks, yields or ends; called on the loop's own stack.  True: it has ended. */
bool coroutine_enter(struct coroutine *coroutine);
void coroutine_cancel(struct coroutine *coroutine);

/* rt/stack_pool.c: memory of coroutines.  A taken one has low, size and fields for sanitizers set. */
struct coroutine *stack_pool_take(void);
void stack_pool_give(struct coroutine *coroutine);
/* Gives this thread's spare stacks back to the kernel; a thread that ran coroutines calls it at its end. */
void stack_pool_free(void);

#endif
