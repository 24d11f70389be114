#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "rt/coroutine.h"
#include "rt/task.h"

struct order {
    char text[64];
    struct coroutine *parked;
    struct task *task;
    int result;
};

static void append(struct order *order, char letter)
{
    size_t length = strlen(order->text);
    assert_true(length + 1 < sizeof order->text);
    order->text[length] = letter;
}

static void parks_once(void *arg)
{
    struct order *order = arg;
    append(order, 'b');
    order->parked = coroutine_self();
    order->result = coroutine_park();
    append(order, 'e');
}

static void spawn_runs_last(struct loop *loop, void *arg)
{
    struct order *order = arg;
    struct group group;
    group_init(&group, loop);
    append(order, 'a');
    group_spawn(&group, "parks", parks_once, order);
    assert_int_equal(coroutine_yield(), 0);
    append(order, 'c');
    coroutine_wake(order->parked);
    coroutine_wake(order->parked);
    append(order, 'd');
    group_join(&group);
    append(order, 'f');
}

static void test_order(void **state)
{
    struct order order = { .text = "" };
    in_real_loop(spawn_runs_last, &order);
    assert_string_equal(order.text, "abcdef");
    assert_int_equal(order.result, 0);
}

static void wakes_itself(struct loop *loop, void *arg)
{
    coroutine_wake(coroutine_self());
    assert_int_equal(coroutine_park(), 0);
    coroutine_wake(coroutine_self());
    coroutine_park_shielded();
    coroutine_wake(coroutine_self());
    assert_int_equal(coroutine_yield(), 0);
    assert_int_equal(coroutine_park(), 0);
    assert_ptr_equal(coroutine_loop(coroutine_self()), loop);
    assert_ptr_equal(loop_current(), loop);
    assert_false(coroutine_cancelled());
}

static void test_wake_first(void **state)
{
    in_real_loop(wakes_itself, NULL);
    assert_null(coroutine_self());
    assert_null(loop_current());
}

static void cancelled_task(void *arg)
{
    struct order *order = arg;
    order->parked = coroutine_self();
    order->result = coroutine_park();
    assert_int_equal(coroutine_park(), -ECANCELED);
    assert_int_equal(coroutine_yield(), -ECANCELED);
    assert_true(coroutine_cancelled());
    /* A shielded park waits all the same. */
    order->parked = coroutine_self();
    append(order, 'x');
    coroutine_park_shielded();
    append(order, 'z');
}

static void cancels(struct loop *loop, void *arg)
{
    struct order *order = arg;
    struct group group;
    group_init(&group, loop);
    order->task = group_spawn(&group, "cancelled", cancelled_task, order);
    coroutine_yield();
    task_cancel(order->task);
    coroutine_yield();
    coroutine_yield();
    append(order, 'y');
    coroutine_wake(order->parked);
    group_join(&group);
}

static void test_cancel(void **state)
{
    struct order order = { .text = "" };
    in_real_loop(cancels, &order);
    assert_int_equal(order.result, -ECANCELED);
    assert_string_equal(order.text, "xyz");
}

/* Uses most of the stack, and checks that parking leaves it alone. */
static uint64_t deep(unsigned level)
{
    volatile uint8_t local[512];
    memset((uint8_t *)local, (int)level, sizeof local);
    uint64_t sum = level > 0 ? deep(level - 1) : (uint64_t)coroutine_yield();
    for (size_t i = 0; i < sizeof local; i++)
        assert_int_equal(local[i], (uint8_t)level);
    return sum + level;
}

static void goes_deep(void *arg)
{
    *(uint64_t *)arg = deep(60);
}

static void deep_stacks(struct loop *loop, void *arg)
{
    struct group group;
    group_init(&group, loop);
    uint64_t sums[50];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 50; i++)
            group_spawn(&group, "deep", goes_deep, &sums[i]);
        group_join(&group);
        for (int i = 0; i < 50; i++)
            assert_int_equal(sums[i], 60 * 61 / 2);
    }
}

static void test_deep_stacks(void **state)
{
    in_real_loop(deep_stacks, NULL);
}

static unsigned bottomless(unsigned level)
{
    volatile uint8_t local[2048];
    local[level % sizeof local] = (uint8_t)level;
    return level == 1u << 30 ? 0 : bottomless(level + 1) + local[level % sizeof local];
}

static void overflows(struct loop *loop, void *arg)
{
    *(volatile unsigned *)arg = bottomless(0);
}

/* Running over the end of a stack kills the process instead of corrupting the next stack. */
static void test_overflow(void **state)
{
    static unsigned result;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit no_core = { 0, 0 };
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        close(STDERR_FILENO);
        in_real_loop(overflows, &result);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void yields(void *arg)
{
    double sum = 0.5;
    for (int i = 0; i < 20; i++) {
        sum += 1.0;
        assert_int_equal(coroutine_yield(), 0);
    }
    assert_true(sum == 20.5);
    ++*(int *)arg;
}

static void many(struct loop *loop, void *arg)
{
    struct group group;
    group_init(&group, loop);
    int ended = 0;
    for (int i = 0; i < 2000; i++) /* more than the pool keeps */
        group_spawn(&group, "yields", yields, &ended);
    group_join(&group);
    assert_int_equal(ended, 2000);
}

static void test_many(void **state)
{
    in_real_loop(many, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),       cmocka_unit_test(test_wake_first), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_deep_stacks), cmocka_unit_test(test_many),       cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
