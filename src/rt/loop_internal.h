/* What every kind of loop has, for the files of rt/. */
#ifndef CAIRN_RT_LOOP_INTERNAL_H
#define CAIRN_RT_LOOP_INTERNAL_H

#include <pthread.h>

#include "base/list.h"
#include "rt/loop.h"
#include "rt/timer.h"

struct coroutine;

struct timer_entry {
    uint64_t deadline_ns;
    uint64_t order; /* among equal deadlines: the one set first fires first */
    struct timer *timer;
};

/* A heap of timers; places are 1-based. */
struct timers {
    struct timer_entry *entries;
    size_t count, capacity;
    uint64_t *next_order; /* the loop's own, or its world's */
};

struct loop_ops {
    uint64_t (*now_ns)(struct loop *loop);
    uint64_t (*boottime_ns)(struct loop *loop);
    uint64_t (*wall_ns)(struct loop *loop);
    void (*random)(struct loop *loop, void *bytes, size_t length);
    void (*work)(struct loop *loop, void (*fn)(void *arg), void *arg);
    void (*post)(struct loop *loop, void (*fn)(void *arg), void *arg);
    /* The ready queue, or the queue of those that yielded, was empty and is no longer. */
    void (*became_ready)(struct loop *loop);
    void (*became_yielded)(struct loop *loop);
    void (*free)(struct loop *loop);
};

struct loop {
    const struct loop_ops *ops;
    pthread_t thread;    /* the only one that may use it */
    struct list ready;   /* coroutines to enter, in this order */
    struct list yielded; /* to become ready when events have had their turn */
    struct timers timers;
    size_t coroutines; /* not yet ended */
    size_t users;      /* channels and listeners not yet closed */
};

void loop_init(struct loop *loop, const struct loop_ops *ops, uint64_t *next_order);
/* Asserts that nothing of the loop is left; frees what loop_init() made. */
void loop_fini(struct loop *loop);

/* Sets loop_current() for this thread; returns what it was. */
struct loop *loop_set_current(struct loop *loop);

static inline void loop_make_ready(struct loop *loop, struct list *link)
{
    bool first = list_empty(&loop->ready);
    list_push_back(&loop->ready, link);
    if (first)
        loop->ops->became_ready(loop);
}

static inline void loop_make_yielded(struct loop *loop, struct list *link)
{
    bool first = list_empty(&loop->yielded);
    list_push_back(&loop->yielded, link);
    if (first)
        loop->ops->became_yielded(loop);
}

/* Those that yielded become ready, behind those that are. */
void loop_end_yield(struct loop *loop);
/* Enters the first of the ready queue, which is not empty. */
void loop_enter_one(struct loop *loop);

/* rt/task.c: enters a coroutine and, when it has ended, tells its group. */
void task_run(struct coroutine *coroutine);

/* rt/timer.c */
void timers_init(struct timers *timers, uint64_t *next_order);
void timers_fini(struct timers *timers);
static inline const struct timer_entry *timers_first(const struct timers *timers)
{
    return timers->count == 0 ? NULL : &timers->entries[0];
}
/* Takes out the first and fires it. */
void timers_fire_first(struct timers *timers);

#endif
