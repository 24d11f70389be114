/* Where coroutines wait for each other: a queue, in order of arrival, and sleeping. */
#ifndef CAIRN_RT_WAIT_H
#define CAIRN_RT_WAIT_H

#include <stdint.h>

#include "base/list.h"
#include "rt/coroutine.h"

struct waitq {
    struct list waiters;
};

void waitq_init(struct waitq *queue);
static inline bool waitq_empty(const struct waitq *queue)
{
    return list_empty(&queue->waiters);
}

/* Parks until woken through the queue.  0 or -ECANCELED.  Callers loop on their condition. */
CO int waitq_wait(struct waitq *queue);

/* The same, at most until loop_now_ns() reaches `deadline_ns` (UINT64_MAX: for ever): then -ETIMEDOUT. */
CO int waitq_wait_until(struct waitq *queue, uint64_t deadline_ns);

/* The same as waitq_wait(), but a cancel does not end it. */
CO void waitq_wait_shielded(struct waitq *queue);

void waitq_wake_one(struct waitq *queue); /* the one that has waited longest */
void waitq_wake_all(struct waitq *queue);

/* 0 or -ECANCELED. */
CO int sleep_ns(uint64_t duration_ns);
CO int sleep_until_ns(uint64_t deadline_ns);

#endif
