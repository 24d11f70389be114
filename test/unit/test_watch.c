/* Watches of descriptors that somebody else owns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "rt/wait.h"
#include "rt/watch.h"

struct seen {
    struct watch *watch;
    struct coroutine *waiting;
    int calls, events;
    int free_at; /* call, from 1; 0: never */
};

static void ready(void *arg, int events)
{
    struct seen *seen = arg;
    assert_null(coroutine_self()); /* on the loop's own stack */
    seen->calls++;
    seen->events |= events;
    if (seen->calls == seen->free_at) {
        watch_free(seen->watch);
        seen->watch = NULL;
    }
    coroutine_wake(seen->waiting);
}

static void wait_calls(struct seen *seen, int calls)
{
    while (seen->calls < calls)
        assert_int_equal(coroutine_park(), 0);
}

static struct watch *new_watch(struct loop *loop, int fd, struct seen *seen)
{
    struct error error = ERROR_NONE;
    *seen = (struct seen){ .waiting = coroutine_self() };
    assert_int_equal(watch_new(loop, fd, ready, seen, &seen->watch, &error), 0);
    return seen->watch;
}

static void make_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
}

static void close_pair(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static void levels(struct loop *loop, void *arg)
{
    int ends[2];
    make_pair(ends);
    struct seen seen;
    struct watch *watch = new_watch(loop, ends[0], &seen);
    assert_true((fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);

    /* Nothing is watched for at first. */
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    assert_int_equal(seen.calls, 0);

    /* What is there is told again and again. */
    watch_set(watch, WATCH_READABLE);
    wait_calls(&seen, 3);
    assert_int_equal(seen.events, WATCH_READABLE);

    watch_set(watch, 0);
    int calls = seen.calls;
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    assert_int_equal(seen.calls, calls);

    seen.events = 0;
    watch_set(watch, WATCH_WRITABLE);
    wait_calls(&seen, calls + 2);
    assert_int_equal(seen.events, WATCH_WRITABLE);
    watch_free(watch);
    close_pair(ends);
}

static void test_levels(void **state)
{
    in_real_loop(levels, NULL);
}

static void freeing(struct loop *loop, void *arg)
{
    int ends[2];
    make_pair(ends);
    struct seen seen;
    watch_set(new_watch(loop, ends[0], &seen), WATCH_READABLE | WATCH_WRITABLE);
    seen.free_at = 2;
    wait_calls(&seen, 2);
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    assert_int_equal(seen.calls, 2);

    /* The same descriptor can be watched anew at once, and another one that got its number. */
    watch_set(new_watch(loop, ends[0], &seen), WATCH_WRITABLE);
    wait_calls(&seen, 1);
    watch_free(seen.watch);
    close_pair(ends);
    make_pair(ends);
    watch_set(new_watch(loop, ends[0], &seen), WATCH_WRITABLE);
    wait_calls(&seen, 1);
    watch_free(seen.watch);
    watch_free(NULL);
    close_pair(ends);
}

static void test_freeing(void **state)
{
    in_real_loop(freeing, NULL);
}

static void errors(struct loop *loop, void *arg)
{
    /* A pipe without a reader is in error, which libuv tells only once. */
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    struct seen seen;
    watch_set(new_watch(loop, ends[1], &seen), WATCH_WRITABLE);
    wait_calls(&seen, 3);
    assert_int_equal(seen.events, WATCH_READABLE | WATCH_WRITABLE);
    struct watch *second = NULL;
    struct error error = ERROR_NONE;
    assert_int_equal(watch_new(loop, ends[1], ready, &seen, &second, &error), -EEXIST);
    assert_null(second);
    watch_set(seen.watch, 0);
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    int calls = seen.calls;
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    assert_int_equal(seen.calls, calls);
    watch_free(seen.watch);
    close(ends[1]);

    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(watch_new(loop, file, ready, &seen, &second, &error), -EPERM);
    close(file);
}

static void test_errors(void **state)
{
    in_real_loop(errors, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_freeing),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
