/* Tasks: the coroutines of a group, from spawn to join.
 *
 * A task is linked into its group from group_spawn() until its function has
 * returned and its stack has been left; only then does it count as ended, so
 * after group_join() nothing of it touches the group or its owner's memory. */
#include "rt/task.h"

#include <assert.h>

#include "rt/coroutine_internal.h"
#include "rt/loop_internal.h"

void group_init(struct group *group, struct loop *loop)
{
    group->loop = loop;
    list_init(&group->tasks);
    group->count = 0;
    group->joiner = NULL;
    group->cancelled = false;
}

struct task *group_spawn(struct group *group, const char *name, void (*fn)(void *arg), void *arg)
{
    struct coroutine *coroutine = coroutine_start(group->loop, name, fn, arg);
    struct task *task = &coroutine->task;
    coroutine->cancelled = group->cancelled;
    task->group = group;
    list_push_back(&group->tasks, &task->in_group);
    group->count++;
    return task;
}

void task_run(struct coroutine *coroutine)
{
    if (!coroutine_enter(coroutine))
        return;
    struct group *group = coroutine->task.group;
    assert(group->count > 0);
    list_remove(&coroutine->task.in_group);
    group->count--;
    if (group->count == 0 && group->joiner != NULL)
        coroutine_wake(group->joiner);
    stack_pool_give(coroutine);
}

void group_join(struct group *group)
{
    struct coroutine *self = coroutine_self();
    assert(self != NULL && self->task.group != group);
    if (group->count == 0)
        return;
    assert(group->joiner == NULL);
    group->joiner = self;
    while (group->count > 0)
        coroutine_park_shielded();
    group->joiner = NULL;
}

void group_cancel(struct group *group)
{
    group->cancelled = true;
    list_for_each (node, &group->tasks)
        task_cancel(container_of(node, struct task, in_group));
}

void task_cancel(struct task *task)
{
    coroutine_cancel(container_of(task, struct coroutine, task));
}
