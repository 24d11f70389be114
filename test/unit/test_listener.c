#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "rt/listener.h"
#include "rt/wait.h"

struct door {
    struct waitq queue;
    int count;
};

static void accepted(void *arg, int fd)
{
    struct door *door = arg;
    assert_null(coroutine_self());
    door->count++;
    close(fd);
    waitq_wake_all(&door->queue);
}

static void wait_for(struct door *door, int count)
{
    while (door->count < count)
        assert_int_equal(waitq_wait(&door->queue), 0);
}

static int connect_tcp(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int connect_unix(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return result;
}

static void tcp(struct loop *loop, void *arg)
{
    struct error error = ERROR_NONE;
    struct door door = { .count = 0 };
    waitq_init(&door.queue);
    struct listener *listener, *second;
    assert_int_equal(listener_tcp(loop, "127.0.0.1", "0", accepted, &door, &listener, &error), 0);
    int port = listener_port(listener);
    char text[32];
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    assert_string_equal(listener_name(listener), text);
    for (int i = 1; i <= 10; i++) {
        close(connect_tcp(port));
        wait_for(&door, i);
    }

    snprintf(text, sizeof text, "%d", port);
    assert_int_equal(listener_tcp(loop, "127.0.0.1", text, accepted, &door, &second, &error), -EADDRINUSE);
    assert_non_null(strstr(error.story, text));
    assert_true(listener_tcp(loop, "127.0.0.1", "no-such-port", accepted, &door, &second, &error) < 0);
    assert_non_null(strstr(error.story, "no-such-port"));
    listener_close(listener);

    /* Whatever addresses it has, the name is listened on under one port. */
    assert_int_equal(listener_tcp(loop, "localhost", "0", accepted, &door, &listener, &error), 0);
    close(connect_tcp(listener_port(listener)));
    wait_for(&door, 11);
    listener_close(listener);
    listener_close(NULL);
}

static void test_tcp(void **state)
{
    in_real_loop(tcp, NULL);
}

static void inherited(struct loop *loop, void *arg)
{
    struct error error = ERROR_NONE;
    struct door door = { .count = 0 };
    waitq_init(&door.queue);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 5), 0);
    struct listener *listener;
    assert_int_equal(listener_fd(loop, fd, accepted, &door, &listener, &error), 0);
    assert_true(listener_port(listener) > 0);
    close(connect_tcp(listener_port(listener)));
    wait_for(&door, 1);
    listener_close(listener);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(listener_fd(loop, fd, accepted, &door, &listener, &error), -ENOTSOCK);
}

static void test_inherited(void **state)
{
    in_real_loop(inherited, NULL);
}

static void over_unix(struct loop *loop, void *arg)
{
    struct error error = ERROR_NONE;
    struct door door = { .count = 0 };
    waitq_init(&door.queue);
    char directory[] = "/tmp/cairn-listener-XXXXXX", path[64], other[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    struct listener *listener, *second;
    assert_int_equal(listener_unix(loop, path, accepted, &door, &listener, &error), 0);
    assert_string_equal(listener_name(listener), path);
    assert_int_equal(listener_port(listener), 0);
    assert_int_equal(connect_unix(path), 0);
    wait_for(&door, 1);

    /* Somebody listens there. */
    assert_int_equal(listener_unix(loop, path, accepted, &door, &second, &error), -EADDRINUSE);
    assert_non_null(strstr(error.story, path));
    wait_for(&door, 2);

    /* Moved away, and the path taken by another: that one's file is left alone. */
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(listener_unix(loop, path, accepted, &door, &second, &error), 0);
    listener_close(listener);
    assert_int_equal(access(path, F_OK), 0);
    listener_close(second);
    assert_int_equal(access(path, F_OK), -1);

    /* A stale socket is replaced. */
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(connect_unix(path), -1);
    assert_int_equal(listener_unix(loop, path, accepted, &door, &listener, &error), 0);
    listener_close(listener);

    /* A file that is no socket is not. */
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(listener_unix(loop, path, accepted, &door, &listener, &error), -EADDRINUSE);
    unlink(path);
    rmdir(directory);

    char longer[200];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(listener_unix(loop, longer, accepted, &door, &listener, &error), -ENAMETOOLONG);
}

static void test_unix(void **state)
{
    in_real_loop(over_unix, NULL);
}

/* Without a free descriptor accepting pauses; the connection gets its turn when there is one again. */
static void shortage(struct loop *loop, void *arg)
{
    struct error error = ERROR_NONE;
    struct door door = { .count = 0 };
    waitq_init(&door.queue);
    struct listener *listener;
    assert_int_equal(listener_tcp(loop, "127.0.0.1", "0", accepted, &door, &listener, &error), 0);
    int client = connect_tcp(listener_port(listener));
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(sleep_ns(5 * NS_PER_MS), 0);
    assert_int_equal(door.count, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    wait_for(&door, 1);
    close(client);
    listener_close(listener);
}

static void test_shortage(void **state)
{
    in_real_loop(shortage, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_shortage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
