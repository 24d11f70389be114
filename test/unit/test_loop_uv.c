#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "rt/wait.h"

struct work {
    pthread_t thread;
    int runs;
};

static void blocking(void *arg)
{
    struct work *work = arg;
    work->thread = pthread_self();
    usleep(1000);
    work->runs++;
}

static void works(void *arg)
{
    struct work *work = arg;
    loop_work(loop_current(), blocking, work);
    loop_work(loop_current(), blocking, work);
}

static void work_in_parallel(struct loop *loop, void *arg)
{
    struct work work[20] = { 0 };
    struct group group;
    group_init(&group, loop);
    for (int i = 0; i < 20; i++)
        group_spawn(&group, "works", works, &work[i]);
    coroutine_yield();
    group_cancel(&group); /* cuts no work short */
    group_join(&group);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(work[i].runs, 2);
        assert_false(pthread_equal(work[i].thread, pthread_self()));
    }
}

static void test_work(void **state)
{
    in_real_loop(work_in_parallel, NULL);
}

struct posted {
    struct loop *loop;
    struct waitq queue;
    int next;
    int numbers[1000];
};

struct post {
    struct posted *posted;
    int number;
};
static struct post posts[1000];

static void arrived(void *arg)
{
    struct post *post = arg;
    assert_null(coroutine_self());
    assert_ptr_equal(loop_current(), post->posted->loop);
    post->posted->numbers[post->posted->next++] = post->number;
    waitq_wake_all(&post->posted->queue);
}

static void *poster(void *arg)
{
    struct posted *posted = arg;
    for (int i = 0; i < 1000; i++)
        loop_post(posted->loop, arrived, &posts[i]);
    return NULL;
}

static void post_in_order(struct loop *loop, void *arg)
{
    struct posted *posted = arg;
    posted->loop = loop;
    waitq_init(&posted->queue);
    for (int i = 0; i < 1000; i++)
        posts[i] = (struct post){ posted, i };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, poster, posted), 0);
    while (posted->next < 1000)
        assert_int_equal(waitq_wait(&posted->queue), 0);
    pthread_join(thread, NULL);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(posted->numbers[i], i);
}

static void test_post(void **state)
{
    static struct posted posted;
    in_real_loop(post_in_order, &posted);
}

static void signalled(void *arg, int signal)
{
    assert_int_equal(signal, SIGUSR1);
    assert_null(coroutine_self());
    waitq_wake_all(arg);
}

static void signals(struct loop *loop, void *arg)
{
    struct waitq queue;
    struct error error = ERROR_NONE;
    waitq_init(&queue);
    assert_int_equal(loop_on_signal(loop, SIGUSR1, signalled, &queue, &error), 0);
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    assert_int_equal(waitq_wait(&queue), 0);
    assert_int_not_equal(loop_on_signal(loop, 4711, signalled, &queue, &error), 0);
    assert_non_null(strstr(error.story, "4711"));
}

static void test_signal(void **state)
{
    in_real_loop(signals, NULL);
}

static void clocks(struct loop *loop, void *arg)
{
    uint64_t monotonic = loop_now_ns(loop), boottime = loop_boottime_ns(loop);
    assert_int_equal(sleep_ns(2 * NS_PER_MS), 0);
    assert_true(loop_now_ns(loop) >= monotonic + 2 * NS_PER_MS);
    assert_true(loop_boottime_ns(loop) >= boottime + NS_PER_MS);
    assert_true(loop_wall_ns(loop) > UINT64_C(1600000000) * NS_PER_S);
    assert_true(loop_random_u64(loop) != loop_random_u64(loop));
    uint8_t bytes[64] = { 0 }, zeroes[64] = { 0 };
    loop_random(loop, bytes, sizeof bytes);
    assert_memory_not_equal(bytes, zeroes, sizeof bytes);
}

static void test_clocks(void **state)
{
    in_real_loop(clocks, NULL);
}

static void pings(void *arg)
{
    struct waitq *queues = arg;
    for (;;) {
        if (waitq_wait(&queues[0]) != 0)
            return;
        waitq_wake_one(&queues[1]);
    }
}

/* Two tasks that wake each other without end do not shut out timers. */
static void no_starvation(struct loop *loop, void *arg)
{
    struct waitq queues[2];
    waitq_init(&queues[0]);
    waitq_init(&queues[1]);
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "ping", pings, queues);
    uint64_t start = loop_now_ns(loop);
    coroutine_yield();
    while (loop_now_ns(loop) < start + 3 * NS_PER_MS) {
        waitq_wake_one(&queues[0]);
        assert_int_equal(waitq_wait(&queues[1]), 0);
    }
    group_cancel(&group);
    group_join(&group);
}

static void test_no_starvation(void **state)
{
    in_real_loop(no_starvation, NULL);
}

static void free_empty(void **state)
{
    struct loop *loop;
    struct error error = ERROR_NONE;
    assert_int_equal(loop_uv_new(&loop, &error), 0);
    loop_free(loop);
    loop_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),   cmocka_unit_test(test_post),          cmocka_unit_test(test_signal),
        cmocka_unit_test(test_clocks), cmocka_unit_test(test_no_starvation), cmocka_unit_test(free_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
