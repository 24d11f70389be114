#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "../lib/in_loop.h"
#include "rt/task.h"
#include "rt/wait.h"

struct waiters {
    struct waitq queue;
    int order[8];
    int count;
    int results[8];
    int next;
};

static void waits(void *arg)
{
    struct waiters *waiters = arg;
    int number = waiters->next++;
    waiters->results[number] = waitq_wait(&waiters->queue);
    waiters->order[waiters->count++] = number;
}

static void queue_in_order(struct loop *loop, void *arg)
{
    struct waiters waiters = { .count = 0 };
    waitq_init(&waiters.queue);
    struct group group;
    group_init(&group, loop);
    struct task *tasks[5];
    for (int i = 0; i < 5; i++)
        tasks[i] = group_spawn(&group, "waits", waits, &waiters);
    coroutine_yield();
    assert_false(waitq_empty(&waiters.queue));

    /* The first is cancelled: a wake goes to the second. */
    task_cancel(tasks[0]);
    coroutine_yield();
    waitq_wake_one(&waiters.queue);
    coroutine_yield();
    assert_int_equal(waiters.count, 2);
    assert_int_equal(waiters.order[0], 0);
    assert_int_equal(waiters.results[0], -ECANCELED);
    assert_int_equal(waiters.order[1], 1);
    assert_int_equal(waiters.results[1], 0);

    /* Woken and cancelled in one turn: the wake is not lost with it. */
    waitq_wake_one(&waiters.queue);
    task_cancel(tasks[2]);
    coroutine_yield();
    assert_int_equal(waiters.results[2], 0);

    waitq_wake_all(&waiters.queue);
    group_join(&group);
    assert_int_equal(waiters.order[3], 3);
    assert_int_equal(waiters.order[4], 4);
    assert_true(waitq_empty(&waiters.queue));
    waitq_wake_one(&waiters.queue);
    waitq_wake_all(&waiters.queue);
}

static void test_queue(void **state)
{
    in_real_loop(queue_in_order, NULL);
    in_sim_loop(1, queue_in_order, NULL);
}

static void waits_shielded(void *arg)
{
    struct waiters *waiters = arg;
    waitq_wait_shielded(&waiters->queue);
    waiters->count++;
}

static void shielded(struct loop *loop, void *arg)
{
    struct waiters waiters = { .count = 0 };
    waitq_init(&waiters.queue);
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "shielded", waits_shielded, &waiters);
    coroutine_yield();
    group_cancel(&group);
    coroutine_yield();
    coroutine_yield();
    assert_int_equal(waiters.count, 0);
    waitq_wake_all(&waiters.queue);
    group_join(&group);
    assert_int_equal(waiters.count, 1);
}

static void test_shielded(void **state)
{
    in_real_loop(shielded, NULL);
    in_sim_loop(1, shielded, NULL);
}

static void deadlines(struct loop *loop, void *arg)
{
    struct waitq queue;
    waitq_init(&queue);
    uint64_t start = loop_now_ns(loop);
    assert_int_equal(waitq_wait_until(&queue, start + 2 * NS_PER_MS), -ETIMEDOUT);
    assert_true(loop_now_ns(loop) >= start + 2 * NS_PER_MS);
    assert_true(waitq_empty(&queue));
    assert_int_equal(waitq_wait_until(&queue, 0), -ETIMEDOUT);
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    assert_int_equal(sleep_until_ns(0), 0);
}

static void test_deadlines(void **state)
{
    in_real_loop(deadlines, NULL);
    in_sim_loop(1, deadlines, NULL);
}

static void wakes_soon(void *arg)
{
    struct waitq *queue = arg;
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    waitq_wake_one(queue);
}

static void woken_before_deadline(struct loop *loop, void *arg)
{
    struct waitq queue;
    waitq_init(&queue);
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "wakes", wakes_soon, &queue);
    assert_int_equal(waitq_wait_until(&queue, UINT64_MAX), 0);
    group_join(&group);
    group_spawn(&group, "wakes", wakes_soon, &queue);
    assert_int_equal(waitq_wait_until(&queue, loop_now_ns(loop) + 3600 * NS_PER_S), 0);
    group_join(&group);
}

static void test_woken_before_deadline(void **state)
{
    in_real_loop(woken_before_deadline, NULL);
    in_sim_loop(1, woken_before_deadline, NULL);
}

static void sleeps_long(void *arg)
{
    struct waitq never;
    waitq_init(&never);
    assert_int_equal(sleep_ns(3600 * NS_PER_S), -ECANCELED);
    assert_int_equal(sleep_ns(0), -ECANCELED);
    assert_int_equal(waitq_wait_until(&never, UINT64_MAX), -ECANCELED);
    assert_int_equal(waitq_wait_until(&never, 0), -ECANCELED);
    assert_int_equal(waitq_wait(&never), -ECANCELED);
    ++*(int *)arg;
}

static void cancelled_sleep(struct loop *loop, void *arg)
{
    int ended = 0;
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "sleeps", sleeps_long, &ended);
    group_spawn(&group, "sleeps", sleeps_long, &ended);
    coroutine_yield();
    group_cancel(&group);
    group_spawn(&group, "late", sleeps_long, &ended);
    group_join(&group);
    assert_int_equal(ended, 3);
}

static void test_cancelled_sleep(void **state)
{
    in_real_loop(cancelled_sleep, NULL);
    in_sim_loop(1, cancelled_sleep, NULL);
}

struct outer {
    struct loop *loop;
    int inner_ended;
    bool joined;
};

static void inner(void *arg)
{
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    ++*(int *)arg;
}

static void joins(void *arg)
{
    struct outer *outer = arg;
    struct group *group = malloc(sizeof *group);
    group_init(group, outer->loop);
    for (int i = 0; i < 3; i++)
        group_spawn(group, "inner", inner, &outer->inner_ended);
    group_join(group);
    assert_int_equal(group->count, 0);
    free(group);
    assert_true(coroutine_cancelled());
    outer->joined = true;
}

/* A cancel of the one that joins neither ends the join nor reaches the tasks. */
static void shielded_join(struct loop *loop, void *arg)
{
    struct outer outer = { .loop = loop };
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "joins", joins, &outer);
    coroutine_yield();
    group_cancel(&group);
    coroutine_yield();
    assert_false(outer.joined);
    group_join(&group);
    assert_true(outer.joined);
    assert_int_equal(outer.inner_ended, 3);
    group_join(&group);
}

static void test_shielded_join(void **state)
{
    in_real_loop(shielded_join, NULL);
    in_sim_loop(1, shielded_join, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue),           cmocka_unit_test(test_shielded),
        cmocka_unit_test(test_deadlines),       cmocka_unit_test(test_woken_before_deadline),
        cmocka_unit_test(test_cancelled_sleep), cmocka_unit_test(test_shielded_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
