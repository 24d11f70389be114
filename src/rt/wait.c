/* Waiting for each other, and for time.
 *
 * A waiter stands on its coroutine's stack and is linked into the queue while
 * it waits.  Whoever wakes it takes it out of the queue first: so "no longer
 * linked" means "woken through the queue", and a waiter that finds itself
 * unlinked reports 0 even when a cancel or its deadline came in the same turn.
 * Otherwise a wake meant for one waiter would be lost together with it. */
#include "rt/wait.h"

#include <assert.h>
#include <errno.h>

#include "rt/loop.h"
#include "rt/timer.h"

struct waiter {
    struct list link;
    struct coroutine *coroutine;
};

struct alarm {
    struct timer timer;
    struct coroutine *coroutine;
    bool rung;
};

static void ring(struct timer *timer)
{
    struct alarm *alarm = container_of(timer, struct alarm, timer);
    alarm->rung = true;
    coroutine_wake(alarm->coroutine);
}

static void alarm_init(struct alarm *alarm, struct coroutine *self)
{
    timer_init(&alarm->timer, coroutine_loop(self), ring);
    alarm->coroutine = self;
    alarm->rung = false;
}

void waitq_init(struct waitq *queue)
{
    list_init(&queue->waiters);
}

int waitq_wait(struct waitq *queue)
{
    if (coroutine_cancelled())
        return -ECANCELED;
    struct waiter waiter = { .coroutine = coroutine_self() };
    list_push_back(&queue->waiters, &waiter.link);
    int result = 0;
    while (result == 0 && list_linked(&waiter.link))
        result = coroutine_park();
    if (!list_linked(&waiter.link))
        return 0;
    list_remove(&waiter.link);
    return result;
}

int waitq_wait_until(struct waitq *queue, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return waitq_wait(queue);
    if (coroutine_cancelled())
        return -ECANCELED;
    struct waiter waiter = { .coroutine = coroutine_self() };
    struct alarm alarm;
    alarm_init(&alarm, waiter.coroutine);
    list_push_back(&queue->waiters, &waiter.link);
    timer_set(&alarm.timer, deadline_ns);
    int result = 0;
    while (result == 0 && list_linked(&waiter.link) && !alarm.rung)
        result = coroutine_park();
    timer_cancel(&alarm.timer);
    if (!list_linked(&waiter.link))
        return 0;
    list_remove(&waiter.link);
    return result != 0 ? result : -ETIMEDOUT;
}

void waitq_wait_shielded(struct waitq *queue)
{
    struct waiter waiter = { .coroutine = coroutine_self() };
    assert(waiter.coroutine != NULL);
    list_push_back(&queue->waiters, &waiter.link);
    while (list_linked(&waiter.link))
        coroutine_park_shielded();
}

void waitq_wake_one(struct waitq *queue)
{
    struct list *node = list_pop_front(&queue->waiters);
    if (node != NULL)
        coroutine_wake(container_of(node, struct waiter, link)->coroutine);
}

void waitq_wake_all(struct waitq *queue)
{
    while (!waitq_empty(queue))
        waitq_wake_one(queue);
}

int sleep_until_ns(uint64_t deadline_ns)
{
    if (coroutine_cancelled())
        return -ECANCELED;
    struct alarm alarm;
    alarm_init(&alarm, coroutine_self());
    timer_set(&alarm.timer, deadline_ns);
    int result = 0;
    while (result == 0 && !alarm.rung)
        result = coroutine_park();
    timer_cancel(&alarm.timer);
    return alarm.rung ? 0 : result;
}

int sleep_ns(uint64_t duration_ns)
{
    uint64_t now_ns = loop_now_ns(coroutine_loop(coroutine_self()));
    return sleep_until_ns(duration_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + duration_ns);
}
