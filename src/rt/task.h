/* Tasks: coroutines in groups.
 *
 * Every coroutine is a task of a group, and a group belongs to the thing whose
 * work its tasks do: a connection, a volume, one function's fan-out.  Whoever
 * owns a group joins it before the memory goes, so no task outlives what it
 * works on, and cancelling a thing is cancelling its group.
 *
 *     struct group group;
 *     group_init(&group, loop);
 *     for (…) group_spawn(&group, "fetch", fetch_one, &work[i]);
 *     group_join(&group);           // CO: waits for all
 *
 * A task's outcome stands in memory that it shares with its owner. */
#ifndef CAIRN_RT_TASK_H
#define CAIRN_RT_TASK_H

#include "base/list.h"
#include "rt/coroutine.h"

struct loop;
struct task;

struct group {
    struct loop *loop;
    struct list tasks;
    size_t count;             /* of tasks not yet ended */
    struct coroutine *joiner; /* at most one at a time */
    bool cancelled;
};

void group_init(struct group *group, struct loop *loop);

/* Starts fn(arg) as a coroutine of the group's loop; it runs first at the end of the ready queue.
 * In a cancelled group it runs too, and its first park returns -ECANCELED.
 * `name` (static) is for debugging.  The handle is valid until the task ends. */
struct task *group_spawn(struct group *group, const char *name, void (*fn)(void *arg), void *arg);

/* Waits until the group is empty, cancelled or not; a cancel of the waiting task itself is not
 * passed on and does not end the wait (the memory of the tasks' owner is at stake). */
CO void group_join(struct group *group);

/* Every task of the group, now and later, gets -ECANCELED at its parks. */
void group_cancel(struct group *group);

void task_cancel(struct task *task);

#endif
