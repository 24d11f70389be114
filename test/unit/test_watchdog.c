/* The watchdog of a channel: what ends a watch, and when, on virtual time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/in_loop.h"
#include "nbd/watchdog.h"
#include "rt/wait.h"

/* All watches here are for a minute, and for ten seconds while others wait. */
#define LONG_NS (60 * NS_PER_S)
#define PRESSED_NS (10 * NS_PER_S)
/* Past the ten seconds the watchdog looks now and then whether others wait; so often at least. */
#define LOOKS_WITHIN_NS (5 * NS_PER_S)

struct watch {
    struct channel *ends[2];
    struct watchdog dog; /* of the first end */
    bool pressed;
    int looks;
};

static bool is_pressed(const void *arg)
{
    struct watch *watch = (struct watch *)arg;
    watch->looks++;
    return watch->pressed;
}

static void begin(struct loop *loop, struct watch *watch)
{
    *watch = (struct watch){ .pressed = false };
    channel_sim_pair(loop, loop, &watch->ends[0], &watch->ends[1]);
    watchdog_init(&watch->dog, loop, watch->ends[0], is_pressed, watch);
}

static void end(struct watch *watch)
{
    watchdog_end(&watch->dog);
    assert_int_equal(watch->dog.timer.place, 0);
    channel_close(watch->ends[0]);
    channel_close(watch->ends[1]);
}

static void pass(uint64_t duration_ns)
{
    assert_int_equal(sleep_ns(duration_ns), 0);
}

/* It has not bitten just before `after_ns` from now, and has just behind. */
static void assert_bites(struct watch *watch, uint64_t after_ns)
{
    pass(after_ns - 1);
    assert_false(watch->dog.bitten);
    pass(2);
    assert_true(watch->dog.bitten);
}

static void run(void (*fn)(struct loop *loop, void *arg))
{
    in_sim_loop(1, fn, NULL);
}

static void not_pressed(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    assert_bites(&watch, LONG_NS);
    assert_true(watch.looks > 1);
    end(&watch);
}

static void test_not_pressed(void **state)
{
    run(not_pressed);
}

static void pressed_from_the_start(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    assert_bites(&watch, PRESSED_NS);
    end(&watch);
}

static void test_pressed_from_the_start(void **state)
{
    run(pressed_from_the_start);
}

/* Others begin to wait when the ten seconds have long passed. */
static void pressed_later(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    pass(33 * NS_PER_S);
    assert_false(watch.dog.bitten);
    watch.pressed = true;
    pass(LOOKS_WITHIN_NS + 1);
    assert_true(watch.dog.bitten);
    end(&watch);
}

static void test_pressed_later(void **state)
{
    run(pressed_later);
}

/* They waited, but got what they waited for before it came to that. */
static void pressed_for_a_while(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    pass(PRESSED_NS - 1);
    watch.pressed = false;
    assert_bites(&watch, LONG_NS - PRESSED_NS + 1);
    end(&watch);
}

static void test_pressed_for_a_while(void **state)
{
    run(pressed_for_a_while);
}

/* A watch that is shorter than what it would be given while others wait. */
static void shorter_than_pressed(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watchdog_start(&watch.dog, NS_PER_S, PRESSED_NS);
    assert_bites(&watch, NS_PER_S);
    assert_int_equal(watch.looks, 0);
    end(&watch);
}

static void test_shorter_than_pressed(void **state)
{
    run(shorter_than_pressed);
}

/* Progress moves both deadlines, and no further than it is worth. */
static void extended(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    for (int i = 0; i < 200; i++) {
        pass(NS_PER_S);
        assert_false(watch.dog.bitten);
        watchdog_extend(&watch.dog, NS_PER_S);
    }
    assert_bites(&watch, PRESSED_NS);
    end(&watch);

    begin(loop, &watch);
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    watchdog_extend(&watch.dog, 7 * NS_PER_S);
    assert_bites(&watch, LONG_NS + 7 * NS_PER_S);
    end(&watch);

    /* A drop a second is not worth a second. */
    begin(loop, &watch);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    for (int i = 0; i < 10; i++) {
        watchdog_extend(&watch.dog, NS_PER_MS);
        pass(NS_PER_S);
    }
    assert_bites(&watch, 10 * NS_PER_MS);
    end(&watch);
}

static void test_extended(void **state)
{
    run(extended);
}

static void stopped(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    pass(4 * NS_PER_S);
    assert_true(watchdog_stop(&watch.dog) == LONG_NS - 4 * NS_PER_S);
    assert_true(watchdog_stop(&watch.dog) == 0);
    pass(10 * LONG_NS);
    assert_false(watch.dog.bitten);
    assert_int_equal(watch.looks, 0);

    /* Anew, and in quick succession, as for each batch of replies. */
    for (int i = 0; i < 50; i++) {
        watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
        pass(PRESSED_NS - NS_PER_S);
        watchdog_stop(&watch.dog);
        assert_false(watch.dog.bitten);
    }
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    pass(NS_PER_S);
    watchdog_start(&watch.dog, NS_PER_S, NS_PER_S); /* sooner than what the timer is set for */
    assert_bites(&watch, NS_PER_S);
    end(&watch);
}

static void test_stopped(void **state)
{
    run(stopped);
}

static void hurried(struct loop *loop, void *arg)
{
    struct watch watch;
    begin(loop, &watch);
    watchdog_start(&watch.dog, 3 * NS_PER_S, 3 * NS_PER_S);
    watchdog_hurry(&watch.dog, LONG_NS); /* never later */
    assert_bites(&watch, 3 * NS_PER_S);
    end(&watch);

    begin(loop, &watch);
    watchdog_start(&watch.dog, LONG_NS, LONG_NS);
    watchdog_hurry(&watch.dog, 3 * NS_PER_S);
    assert_bites(&watch, 3 * NS_PER_S);
    end(&watch);

    begin(loop, &watch);
    watchdog_hurry(&watch.dog, 3 * NS_PER_S); /* nothing was watched */
    assert_bites(&watch, 3 * NS_PER_S);
    end(&watch);
}

static void test_hurried(void **state)
{
    run(hurried);
}

/* Who is parked in the channel learns of it. */
static void read_is_cut(struct loop *loop, void *arg)
{
    struct watch watch;
    uint8_t byte;
    begin(loop, &watch);
    uint64_t start_ns = loop_now_ns(loop);
    watch.pressed = true;
    watchdog_start(&watch.dog, LONG_NS, PRESSED_NS);
    assert_int_equal(channel_read_full(watch.ends[0], &byte, 1), -ESHUTDOWN);
    assert_true(watch.dog.bitten);
    assert_true(loop_now_ns(loop) == start_ns + PRESSED_NS);
    end(&watch);
}

static void test_read_is_cut(void **state)
{
    run(read_is_cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_pressed),
        cmocka_unit_test(test_pressed_from_the_start),
        cmocka_unit_test(test_pressed_later),
        cmocka_unit_test(test_pressed_for_a_while),
        cmocka_unit_test(test_shorter_than_pressed),
        cmocka_unit_test(test_extended),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_hurried),
        cmocka_unit_test(test_read_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
