/* Channels, each scenario over a pair of unix sockets, over TCP, and over the simulator's pipes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "rt/channel.h"
#include "rt/wait.h"

struct scenario {
    void (*fn)(struct loop *loop, struct channel *ends[2]);
    enum { UNIX, TCP, SIM } kind;
    struct channel *ends[2];
};

static void tcp_pair(int fds[2])
{
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &length), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, sizeof address), 0);
    fds[1] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listening);
}

static void set_up(struct loop *loop, struct scenario *scenario)
{
    struct error error = ERROR_NONE;
    int fds[2];
    if (scenario->kind == SIM) {
        channel_sim_pair(loop, loop, &scenario->ends[0], &scenario->ends[1]);
        return;
    }
    if (scenario->kind == TCP)
        tcp_pair(fds);
    else
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(channel_socket_new(loop, fds[i], &scenario->ends[i], &error), 0);
}

static void play(struct loop *loop, void *arg)
{
    struct scenario *scenario = arg;
    set_up(loop, scenario);
    scenario->fn(loop, scenario->ends);
    channel_close(scenario->ends[0]);
    channel_close(scenario->ends[1]);
}

static void over_all(void (*fn)(struct loop *loop, struct channel *ends[2]))
{
    struct scenario over_unix = { .fn = fn, .kind = UNIX };
    struct scenario over_tcp = { .fn = fn, .kind = TCP };
    in_real_loop(play, &over_unix);
    in_real_loop(play, &over_tcp);
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct scenario simulated = { .fn = fn, .kind = SIM };
        in_sim_loop(seed, play, &simulated);
    }
}

/* One call in a task of its own, and what it returned. */
struct call {
    struct channel *channel;
    uint8_t *bytes;
    size_t length;
    int result;
    bool done;
};

static void read_task(void *arg)
{
    struct call *call = arg;
    call->result = channel_read_full(call->channel, call->bytes, call->length);
    call->done = true;
}

static void write_task(void *arg)
{
    struct call *call = arg;
    struct iovec piece = { call->bytes, call->length };
    call->result = channel_write(call->channel, &piece, 1);
    call->done = true;
}

static int write_text(struct channel *channel, const char *text)
{
    struct iovec piece = { (char *)text, strlen(text) };
    return channel_write(channel, &piece, 1);
}

static void small(struct loop *loop, struct channel *ends[2])
{
    char bytes[16];
    for (int i = 0; i < 100; i++) {
        assert_int_equal(write_text(ends[i % 2], "question"), 0);
        assert_int_equal(channel_read_full(ends[1 - i % 2], bytes, 8), 0);
        assert_memory_equal(bytes, "question", 8);
    }
    /* In pieces, some of them empty; and a short read gives what there is. */
    struct iovec out[] = { { (char *)"ab", 2 }, { NULL, 0 }, { (char *)"cde", 3 }, { (char *)"", 0 } };
    assert_int_equal(channel_write(ends[0], out, 4), 0);
    assert_int_equal(channel_write(ends[0], out, 0), 0);
    size_t got = 0;
    while (got < 5) {
        struct iovec in[] = { { bytes + got, 1 }, { bytes + got + 1, sizeof bytes - got - 1 } };
        ssize_t part = channel_read(ends[1], in, 2);
        assert_true(part > 0 && part <= (ssize_t)(5 - got));
        got += (size_t)part;
    }
    assert_memory_equal(bytes, "abcde", 5);
}

static void test_small(void **state)
{
    over_all(small);
}

#define LARGE ((size_t)3 << 20)
#define PIECES 3000

static void fill(uint8_t *bytes, size_t length)
{
    uint64_t value = 42;
    for (size_t i = 0; i < length; i++) {
        value = value * UINT64_C(6364136223846793005) + 1;
        bytes[i] = (uint8_t)(value >> 56);
    }
}

struct pieces {
    struct channel *channel;
    const uint8_t *bytes;
    int result;
};

/* More pieces than one system call takes, from empty to large. */
static void write_pieces(void *arg)
{
    struct pieces *pieces = arg;
    struct iovec *vector = calloc(PIECES, sizeof *vector);
    size_t at = 0;
    for (int i = 0; i < PIECES; i++) {
        size_t length = i == PIECES - 1 ? LARGE - at : (size_t)i % 7 * 300;
        if (length > LARGE - at)
            length = LARGE - at;
        vector[i] = (struct iovec){ (uint8_t *)pieces->bytes + at, length };
        at += length;
    }
    assert_int_equal(at, LARGE);
    pieces->result = channel_write(pieces->channel, vector, PIECES);
    free(vector);
}

static void large(struct loop *loop, struct channel *ends[2])
{
    uint8_t *sent = malloc(LARGE), *got = calloc(2, LARGE);
    fill(sent, LARGE);
    struct pieces writes[2] = { { ends[0], sent, 1 }, { ends[1], sent, 1 } };
    struct call reads[2] = { { ends[0], got, LARGE, 1, false }, { ends[1], got + LARGE, LARGE, 1, false } };
    struct group group;
    group_init(&group, loop);
    for (int i = 0; i < 2; i++) {
        group_spawn(&group, "write", write_pieces, &writes[i]);
        group_spawn(&group, "read", read_task, &reads[i]);
    }
    group_join(&group);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(writes[i].result, 0);
        assert_int_equal(reads[i].result, 0);
        assert_memory_equal(got + (size_t)i * LARGE, sent, LARGE);
    }
    free(sent);
    free(got);
}

static void test_large(void **state)
{
    over_all(large);
}

static void ends_after_data(struct loop *loop, struct channel *ends[2])
{
    char bytes[8];
    assert_int_equal(write_text(ends[0], "last"), 0);
    channel_shutdown(ends[0]);
    channel_shutdown(ends[0]);
    assert_int_equal(channel_read_full(ends[1], bytes, 4), 0);
    struct iovec piece = { bytes, sizeof bytes };
    assert_int_equal(channel_read(ends[1], &piece, 1), 0);
    assert_int_equal(channel_read(ends[1], &piece, 1), 0);
    assert_int_equal(channel_read_full(ends[1], bytes, 1), -EPIPE);
    assert_int_equal(channel_read(ends[0], &piece, 1), -ESHUTDOWN);
    assert_int_equal(write_text(ends[0], "x"), -ESHUTDOWN);
    int result = 0;
    for (int i = 0; i < 100 && result == 0; i++) /* TCP learns of it by the answer to the first */
        result = write_text(ends[1], "x") != 0 ? -1 : sleep_ns(NS_PER_MS);
    assert_int_equal(result, -1);
}

static void test_end(void **state)
{
    over_all(ends_after_data);
}

static void closed_peer(struct loop *loop, struct channel *ends[2])
{
    char bytes[4];
    assert_int_equal(write_text(ends[0], "bye"), 0);
    channel_close(ends[0]);
    ends[0] = NULL;
    assert_int_equal(channel_read_full(ends[1], bytes, 3), 0);
    assert_int_equal(channel_read_full(ends[1], bytes, 1), -EPIPE);
}

static void test_closed_peer(void **state)
{
    over_all(closed_peer);
}

/* Nobody reads: the writer, write_task or one like it, parks, with bounded memory; then somebody does. */
static void write_against_backpressure(struct loop *loop, struct channel *ends[2], void (*writer)(void *arg))
{
    size_t length = (size_t)24 << 20;
    uint8_t *sent = malloc(length), *got = malloc(length);
    fill(sent, length);
    struct call write = { ends[0], sent, length, 1, false }, read = { ends[1], got, length, 1, false };
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "write", writer, &write);
    assert_int_equal(sleep_ns(20 * NS_PER_MS), 0);
    assert_false(write.done);
    group_spawn(&group, "read", read_task, &read);
    group_join(&group);
    assert_int_equal(write.result, 0);
    assert_int_equal(read.result, 0);
    assert_memory_equal(got, sent, length);
    free(sent);
    free(got);
}

static void backpressure(struct loop *loop, struct channel *ends[2])
{
    write_against_backpressure(loop, ends, write_task);
}

static void test_backpressure(void **state)
{
    over_all(backpressure);
}

/* In parts, by one who looks around between them. */
static void write_parts_task(void *arg)
{
    struct call *call = arg;
    size_t done = 0;
    int parks = 0;
    while (done < call->length) {
        struct iovec pieces[2] = { { call->bytes + done, (call->length - done) / 2 },
                                   { call->bytes + done + (call->length - done) / 2,
                                     call->length - done - (call->length - done) / 2 } };
        ssize_t sent = channel_write_some(call->channel, pieces, 2);
        assert_true(sent >= 0);
        done += (size_t)sent;
        parks += sent == 0;
    }
    assert_true(parks > 0);
    call->result = 0;
    call->done = true;
}

static void write_parts(struct loop *loop, struct channel *ends[2])
{
    char byte = 0;
    struct iovec piece = { &byte, 1 };
    write_against_backpressure(loop, ends, write_parts_task);
    channel_shutdown(ends[0]);
    assert_int_equal(channel_write_some(ends[0], &piece, 1), -ESHUTDOWN);
}

static void test_write_parts(void **state)
{
    over_all(write_parts);
}

static void wait_end_task(void *arg)
{
    struct call *call = arg;
    call->result = channel_wait_end(call->channel);
    call->done = true;
}

/* The end is seen behind what nobody has read, and what nobody has read stays. */
static void wait_for_end(struct loop *loop, struct channel *ends[2], bool cancel)
{
    struct call wait = { .channel = ends[1], .result = 1 };
    char bytes[8];
    struct group group;
    group_init(&group, loop);
    assert_int_equal(write_text(ends[0], "first"), 0);
    assert_int_equal(channel_read_full(ends[1], bytes, 5), 0);
    assert_int_equal(channel_unread(ends[1]), 0);
    group_spawn(&group, "wait", wait_end_task, &wait);
    assert_int_equal(write_text(ends[0], "ahead"), 0);
    assert_int_equal(sleep_ns(20 * NS_PER_MS), 0);
    assert_false(wait.done);
    assert_int_equal(channel_unread(ends[1]), 5);
    if (cancel)
        group_cancel(&group);
    else
        channel_shutdown(ends[0]);
    group_join(&group);
    assert_int_equal(wait.result, cancel ? -ECANCELED : 0);
    assert_int_equal(channel_read_full(ends[1], bytes, 5), 0);
    assert_memory_equal(bytes, "ahead", 5);
    if (!cancel) {
        assert_int_equal(channel_wait_end(ends[1]), 0);
        assert_int_equal(channel_read_full(ends[1], bytes, 1), -EPIPE);
        return;
    }
    /* It goes on as before. */
    assert_int_equal(write_text(ends[0], "on"), 0);
    assert_int_equal(channel_read_full(ends[1], bytes, 2), 0);
    assert_int_equal(write_text(ends[1], "back"), 0);
    assert_int_equal(channel_read_full(ends[0], bytes, 4), 0);
}

static void end_seen(struct loop *loop, struct channel *ends[2])
{
    wait_for_end(loop, ends, false);
}

static void wait_for_end_cancelled(struct loop *loop, struct channel *ends[2])
{
    wait_for_end(loop, ends, true);
    struct call wait = { .channel = ends[1], .result = 1 };
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "wait", wait_end_task, &wait);
    assert_int_equal(sleep_ns(NS_PER_MS), 0);
    channel_shutdown(ends[1]);
    group_join(&group);
    assert_int_equal(wait.result, -ESHUTDOWN);
}

static void test_wait_end(void **state)
{
    over_all(end_seen);
    over_all(wait_for_end_cancelled);
}

/* A peer that resets the connection, by closing with bytes unread. */
static void reset_seen(struct loop *loop, void *arg)
{
    struct scenario over_tcp = { .kind = TCP };
    struct call wait = { .result = 1 };
    struct group group;
    set_up(loop, &over_tcp);
    wait.channel = over_tcp.ends[1];
    group_init(&group, loop);
    group_spawn(&group, "wait", wait_end_task, &wait);
    assert_int_equal(write_text(over_tcp.ends[1], "unread"), 0);
    assert_int_equal(sleep_ns(5 * NS_PER_MS), 0);
    channel_close(over_tcp.ends[0]);
    group_join(&group);
    assert_int_equal(wait.result, 0);
    channel_close(over_tcp.ends[1]);
}

/* The simulator's dead line: nothing arrives, and after a while both ends know. */
static void silence(struct loop *loop, void *arg)
{
    struct scenario simulated = { .kind = SIM };
    struct iovec piece = { (char *)"", 1 };
    uint8_t byte;
    set_up(loop, &simulated);
    struct channel **ends = simulated.ends;
    assert_int_equal(write_text(ends[0], "lost"), 0);
    channel_sim_silence(ends[1], 60 * NS_PER_S);
    assert_int_equal(write_text(ends[0], "too"), 0);
    uint64_t since_ns = loop_now_ns(loop);
    assert_int_equal(channel_read_full(ends[1], &byte, 1), -ETIMEDOUT);
    assert_in_range(loop_now_ns(loop) - since_ns, 60 * NS_PER_S, 70 * NS_PER_S);
    assert_int_equal(sleep_ns(10 * NS_PER_S), 0);
    assert_int_equal(channel_wait_end(ends[0]), -ETIMEDOUT);
    assert_int_equal(channel_write_some(ends[0], &piece, 1), -ETIMEDOUT);
    channel_close(ends[0]);
    channel_close(ends[1]);
}

static void test_broken(void **state)
{
    in_real_loop(reset_seen, NULL);
    for (uint64_t seed = 1; seed <= 20; seed++)
        in_sim_loop(seed, silence, NULL);
}

static void parked(struct loop *loop, struct channel *ends[2], bool cancel, int expected)
{
    size_t length = (size_t)24 << 20;
    uint8_t *bytes = calloc(1, length);
    uint8_t byte;
    struct call write = { ends[0], bytes, length, 1, false }, read = { ends[0], &byte, 1, 1, false };
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "write", write_task, &write);
    group_spawn(&group, "read", read_task, &read);
    assert_int_equal(sleep_ns(5 * NS_PER_MS), 0);
    assert_false(write.done || read.done);
    if (cancel)
        group_cancel(&group);
    else
        channel_shutdown(ends[0]);
    group_join(&group);
    assert_int_equal(write.result, expected);
    assert_int_equal(read.result, expected);
    free(bytes);
}

static void shut_while_parked(struct loop *loop, struct channel *ends[2])
{
    parked(loop, ends, false, -ESHUTDOWN);
}

static void cancelled_while_parked(struct loop *loop, struct channel *ends[2])
{
    parked(loop, ends, true, -ECANCELED);
    /* The other direction works as before. */
    char bytes[4];
    assert_int_equal(write_text(ends[1], "on"), 0);
    assert_int_equal(channel_read_full(ends[0], bytes, 2), 0);
}

static void test_parked(void **state)
{
    over_all(shut_while_parked);
    over_all(cancelled_while_parked);
}

/* What arrives while nobody reads is there later. */
static void unread(struct loop *loop, struct channel *ends[2])
{
    char bytes[8];
    for (int i = 0; i < 5; i++) {
        assert_int_equal(write_text(ends[0], "ab"), 0);
        assert_int_equal(channel_read_full(ends[1], bytes, 2), 0);
        assert_int_equal(write_text(ends[0], "later"), 0);
        assert_int_equal(sleep_ns(10 * NS_PER_MS), 0);
        assert_int_equal(channel_read_full(ends[1], bytes, 5), 0);
        assert_memory_equal(bytes, "later", 5);
    }
}

static void test_unread(void **state)
{
    over_all(unread);
}

static void names(struct loop *loop, void *arg)
{
    struct scenario over_unix = { .kind = UNIX }, over_tcp = { .kind = TCP };
    char expected[64];
    set_up(loop, &over_unix);
    snprintf(expected, sizeof expected, "unix uid %u", (unsigned)getuid());
    assert_string_equal(over_unix.ends[0]->peer.identity, expected);
    snprintf(expected, sizeof expected, "unix uid %u pid %d", (unsigned)getuid(), (int)getpid());
    assert_string_equal(over_unix.ends[0]->peer.name, expected);
    set_up(loop, &over_tcp);
    assert_string_equal(over_tcp.ends[0]->peer.identity, "127.0.0.1");
    assert_memory_equal(over_tcp.ends[0]->peer.name, "127.0.0.1:", 10);

    /* Taken out, the socket lives on in another channel. */
    char bytes[2];
    struct error error = ERROR_NONE;
    assert_int_equal(write_text(over_unix.ends[0], "hi"), 0);
    int fd = channel_detach(over_unix.ends[1]);
    assert_true(fd >= 0);
    assert_int_equal(channel_socket_new(loop, fd, &over_unix.ends[1], &error), 0);
    assert_int_equal(channel_read_full(over_unix.ends[1], bytes, 2), 0);
    for (int i = 0; i < 2; i++) {
        channel_close(over_unix.ends[i]);
        channel_close(over_tcp.ends[i]);
    }
    /* Not a connected socket: refused, and closed. */
    struct channel *channel = NULL;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(channel_socket_new(loop, fd, &channel, &error), -ENOTCONN);
    assert_null(channel);
    assert_int_equal(close(fd), -1);
}

static void test_names(void **state)
{
    in_real_loop(names, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),       cmocka_unit_test(test_large),        cmocka_unit_test(test_end),
        cmocka_unit_test(test_closed_peer), cmocka_unit_test(test_backpressure), cmocka_unit_test(test_parked),
        cmocka_unit_test(test_unread),      cmocka_unit_test(test_names),        cmocka_unit_test(test_write_parts),
        cmocka_unit_test(test_wait_end),    cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
