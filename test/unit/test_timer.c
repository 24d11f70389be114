#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "../lib/in_loop.h"
#include "rt/timer.h"
#include "rt/wait.h"

#define TIMERS 500

struct watched {
    struct timer timer;
    int number;
};

static uint64_t last_deadline_ns;
static int last_number;
static int fired;

static void fire(struct timer *timer)
{
    struct watched *watched = container_of(timer, struct watched, timer);
    assert_int_equal(timer->place, 0);
    assert_true(loop_now_ns(timer->loop) >= timer->deadline_ns);
    assert_null(coroutine_self());
    assert_true(timer->deadline_ns >= last_deadline_ns);
    if (timer->deadline_ns == last_deadline_ns)
        assert_true(watched->number > last_number);
    last_deadline_ns = timer->deadline_ns;
    last_number = watched->number;
    fired++;
}

/* Set, moved and cancelled at random, the timers that remain fire in order, equals in the order of setting. */
static void random_order(struct loop *loop, void *arg)
{
    struct watched *all = calloc(TIMERS, sizeof *all);
    uint64_t start = loop_now_ns(loop);
    unsigned seed = 7;
    int number = 0, set = 0;
    for (int i = 0; i < TIMERS; i++)
        timer_init(&all[i].timer, loop, fire);
    for (int step = 0; step < 5 * TIMERS; step++) {
        struct watched *watched = &all[rand_r(&seed) % TIMERS];
        if (rand_r(&seed) % 4 == 0) {
            timer_cancel(&watched->timer);
            timer_cancel(&watched->timer);
        } else {
            watched->number = ++number;
            timer_set(&watched->timer, start + (uint64_t)(rand_r(&seed) % 40) * NS_PER_MS / 2);
        }
    }
    for (int i = 0; i < TIMERS; i++)
        set += all[i].timer.place != 0;
    last_deadline_ns = 0;
    last_number = 0;
    fired = 0;
    assert_int_equal(sleep_until_ns(start + 21 * NS_PER_MS), 0);
    assert_int_equal(fired, set);
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(all[i].timer.place, 0);
    free(all);
}

static void test_random_order(void **state)
{
    in_real_loop(random_order, NULL);
    in_sim_loop(3, random_order, NULL);
}

struct ticker {
    struct timer timer;
    int ticks;
};

static void tick(struct timer *timer)
{
    struct ticker *ticker = container_of(timer, struct ticker, timer);
    if (++ticker->ticks < 100)
        timer_set(timer, 0); /* past already: again, in a later turn */
}

static void rearmed(struct loop *loop, void *arg)
{
    struct ticker ticker = { .ticks = 0 };
    timer_init(&ticker.timer, loop, tick);
    timer_set(&ticker.timer, 0);
    while (ticker.ticks < 100)
        assert_int_equal(sleep_ns(NS_PER_MS / 10), 0);
}

static void test_rearmed(void **state)
{
    in_real_loop(rearmed, NULL);
    in_sim_loop(3, rearmed, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_order),
        cmocka_unit_test(test_rearmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
