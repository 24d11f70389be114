#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rt/channel.h"
#include "rt/loop_sim.h"
#include "rt/task.h"
#include "rt/timer.h"
#include "rt/wait.h"

struct host {
    struct loop *loop;
    struct channel *channel;
    struct group group;
    int rounds;
    int result;
    bool done;
};

static void start(struct host *host, struct world *world, const char *name, void (*fn)(void *arg))
{
    *host = (struct host){ .loop = loop_sim_new(world, name) };
    group_init(&host->group, host->loop);
    group_spawn(&host->group, name, fn, host);
}

static void end(struct host *host)
{
    assert_int_equal(host->group.count, 0);
    channel_close(host->channel);
    loop_free(host->loop);
}

static void count_up(void *arg)
{
    ++*(int *)arg;
}

static void asks(void *arg)
{
    struct host *host = arg;
    int worked = 0;
    uint8_t bytes[700] = { 0 }, back[700];
    for (int i = 0; i < 50 && host->result == 0; i++) {
        struct iovec piece = { bytes, 1 + loop_random_u64(host->loop) % sizeof bytes };
        loop_random(host->loop, bytes, piece.iov_len);
        host->result = channel_write(host->channel, &piece, 1);
        if (host->result == 0)
            host->result = channel_read_full(host->channel, back, piece.iov_len);
        if (host->result != 0)
            break;
        assert_memory_equal(bytes, back, piece.iov_len);
        loop_work(host->loop, count_up, &worked);
        sleep_ns(loop_random_u64(host->loop) % NS_PER_MS);
        host->rounds++;
    }
    assert_int_equal(worked, host->rounds);
    channel_shutdown(host->channel);
    host->done = true;
}

static void answers(void *arg)
{
    struct host *host = arg;
    uint8_t bytes[256];
    struct iovec piece = { bytes, sizeof bytes };
    ssize_t got;
    while ((got = channel_read(host->channel, &piece, 1)) > 0) {
        struct iovec back = { bytes, (size_t)got };
        host->result = channel_write(host->channel, &back, 1);
        if (host->result != 0)
            break;
    }
    if (got < 0)
        host->result = (int)got;
    host->done = true;
}

struct summary {
    uint64_t hash, time_ns;
    int asked, answered;
};

static struct summary conversation(uint64_t seed, uint64_t cut_ns)
{
    struct world *world = world_new(seed);
    struct host client, server;
    start(&client, world, "client", asks);
    start(&server, world, "server", answers);
    channel_sim_pair(client.loop, server.loop, &client.channel, &server.channel);
    assert_string_equal(client.channel->peer.name, "node server");
    if (cut_ns > 0) {
        assert_false(world_run(world, cut_ns));
        assert_int_equal(world_now_ns(world), cut_ns);
        channel_sim_cut(client.channel);
        channel_sim_cut(server.channel);
    }
    assert_true(world_run(world, UINT64_MAX));
    assert_true(client.done && server.done);
    struct summary summary = { world_trace_hash(world), world_now_ns(world), client.result, server.result };
    end(&client);
    end(&server);
    world_free(world);
    return summary;
}

static void test_same_seed(void **state)
{
    uint64_t last = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct summary once = conversation(seed, 0);
        void *disturbance = malloc(seed * 100); /* moves what is allocated next */
        struct summary again = conversation(seed, 0);
        free(disturbance);
        assert_int_equal(once.hash, again.hash);
        assert_int_equal(once.time_ns, again.time_ns);
        assert_int_equal(once.asked, 0);
        assert_int_equal(once.answered, 0);
        assert_true(once.hash != last);
        last = once.hash;
    }
}

static void test_cut(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct summary cut = conversation(seed, 2 * NS_PER_MS);
        assert_int_equal(cut.asked, -ECONNRESET);
        assert_int_equal(cut.answered, -ECONNRESET);
    }
}

static void ticks(void *arg)
{
    struct host *host = arg;
    while (host->rounds < 100) {
        assert_int_equal(sleep_ns(NS_PER_MS), 0);
        host->rounds++;
    }
    host->done = true;
}

static void resume(void *arg)
{
    loop_sim_resume(arg);
}

/* A paused node stands still; the world and its other nodes do not. */
static void test_pause(void **state)
{
    struct world *world = world_new(1);
    struct host one, other;
    start(&one, world, "one", ticks);
    start(&other, world, "other", ticks);
    int posted = 0;
    assert_false(world_run(world, 10 * NS_PER_MS));
    assert_int_equal(one.rounds, 10);
    loop_sim_pause(one.loop);
    loop_sim_pause(one.loop);
    loop_post(one.loop, count_up, &posted);
    world_after(world, 40 * NS_PER_MS, resume, one.loop);
    assert_false(world_run(world, 30 * NS_PER_MS));
    assert_int_equal(one.rounds, 10);
    assert_int_equal(other.rounds, 30);
    assert_int_equal(posted, 0);
    assert_true(world_run(world, UINT64_MAX));
    assert_true(one.done && other.done);
    assert_int_equal(posted, 1);
    assert_true(world_now_ns(world) >= 139 * NS_PER_MS);
    end(&one);
    end(&other);
    world_free(world);
}

static void test_pause_delays_arrival(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct world *world = world_new(seed);
        struct host client, server;
        start(&client, world, "client", asks);
        start(&server, world, "server", answers);
        channel_sim_pair(client.loop, server.loop, &client.channel, &server.channel);
        world_run(world, 2 * NS_PER_MS);
        loop_sim_pause(server.loop);
        assert_true(world_run(world, 3600 * NS_PER_S)); /* nothing can happen */
        assert_false(client.done || server.done);
        loop_sim_resume(server.loop);
        assert_true(world_run(world, UINT64_MAX));
        assert_true(client.done && server.done);
        assert_int_equal(client.result, 0);
        end(&client);
        end(&server);
        world_free(world);
    }
}

static void test_clocks(void **state)
{
    struct world *world = world_new(5);
    struct loop *a = loop_sim_new(world, "a"), *b = loop_sim_new(world, "b");
    assert_int_equal(loop_now_ns(a), world_now_ns(world));
    assert_int_equal(loop_wall_ns(a), loop_wall_ns(b));
    assert_int_not_equal(loop_boottime_ns(a), loop_boottime_ns(b));
    uint64_t wall_ns = loop_wall_ns(a), boottime_ns = loop_boottime_ns(a);
    loop_sim_set_wall_offset(a, -(int64_t)NS_PER_S);
    assert_int_equal(loop_wall_ns(a), wall_ns - NS_PER_S);
    assert_int_equal(loop_wall_ns(b), wall_ns);
    int fired = 0;
    world_after(world, NS_PER_S, count_up, &fired);
    world_run(world, UINT64_MAX);
    assert_int_equal(fired, 1);
    assert_int_equal(loop_wall_ns(a), wall_ns);
    assert_int_equal(loop_boottime_ns(a), boottime_ns + NS_PER_S);
    loop_sim_set_boottime_offset(a, -(int64_t)(2 * NS_PER_S));
    assert_int_equal(loop_boottime_ns(a), boottime_ns - NS_PER_S);
    assert_string_equal(loop_sim_name(a), "a");
    assert_ptr_equal(loop_sim_world(a), world);
    loop_free(a);
    loop_free(b);
    world_free(world);
}

static void wake(void *arg)
{
    loop_sim_wake(arg);
}

/* A host that was suspended finds its timers as far away as they were, and its boot-time and wall clocks ahead. */
static void test_suspension(void **state)
{
    struct world *world = world_new(1);
    struct host one, other;
    start(&one, world, "one", ticks);
    start(&other, world, "other", ticks);
    uint64_t now_ns = loop_now_ns(one.loop), boottime_ns = loop_boottime_ns(one.loop), wall_ns = loop_wall_ns(one.loop);
    assert_false(world_run(world, 10 * NS_PER_MS + 1));
    assert_int_equal(one.rounds, 10);
    loop_sim_pause(one.loop);
    world_after(world, NS_PER_S, wake, one.loop);
    assert_false(world_run(world, 10 * NS_PER_MS + 1 + NS_PER_S));
    assert_int_equal(one.rounds, 10);
    assert_int_equal(loop_now_ns(one.loop), now_ns + 10 * NS_PER_MS + 1);
    assert_int_equal(loop_boottime_ns(one.loop), boottime_ns + NS_PER_S + 10 * NS_PER_MS + 1);
    assert_int_equal(loop_wall_ns(one.loop), wall_ns + NS_PER_S + 10 * NS_PER_MS + 1);
    assert_false(world_run(world, 15 * NS_PER_MS + NS_PER_S));
    assert_int_equal(one.rounds, 15);
    assert_true(world_run(world, UINT64_MAX));
    assert_true(one.done && other.done);
    assert_int_equal(loop_now_ns(other.loop) - loop_now_ns(one.loop), NS_PER_S);
    end(&one);
    end(&other);
    world_free(world);
}

/* Events of a node that is gone are dropped, and what they own is freed. */
static void test_freed_node(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        struct world *world = world_new(9);
        struct host client, server;
        start(&client, world, "client", asks);
        start(&server, world, "server", answers);
        channel_sim_pair(client.loop, server.loop, &client.channel, &server.channel);
        world_run(world, NS_PER_MS);
        int posted = 0;
        loop_post(server.loop, count_up, &posted);
        group_cancel(&server.group);
        world_run(world, world_now_ns(world));
        posted = 0;
        if (paused)
            loop_sim_pause(server.loop);
        loop_post(server.loop, count_up, &posted);
        if (paused)
            world_run(world, 10 * NS_PER_S);
        end(&server);
        world_run(world, 20 * NS_PER_S);
        assert_int_equal(posted, 0);
        group_cancel(&client.group);
        world_run(world, UINT64_MAX);
        end(&client);
        world_free(world);
    }
}

static void stop(void *arg)
{
    world_stop(arg);
}

static void polls(void *arg)
{
    struct host *host = arg;
    while (coroutine_yield() == 0)
        host->rounds++;
}

static void test_stop_and_yield(void **state)
{
    struct world *world = world_new(2);
    struct host host;
    start(&host, world, "host", polls);
    world_after(world, NS_PER_MS, stop, world);
    assert_false(world_run(world, UINT64_MAX));
    assert_int_equal(world_now_ns(world), NS_PER_MS);
    assert_true(host.rounds > 100);
    group_cancel(&host.group);
    assert_true(world_run(world, UINT64_MAX));
    end(&host);
    world_free(world);
}

static void test_random(void **state)
{
    struct world *world = world_new(77);
    unsigned counts[6] = { 0 };
    for (int i = 0; i < 6000; i++)
        counts[world_random(world, 6)]++;
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 850, 1150);
    int chances = 0;
    for (int i = 0; i < 10000; i++)
        chances += world_chance(world, 100);
    assert_in_range(chances, 850, 1150);
    uint64_t hash = world_trace_hash(world);
    world_trace(world, "x", 1);
    assert_true(world_trace_hash(world) != hash);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed),      cmocka_unit_test(test_cut),
        cmocka_unit_test(test_pause),          cmocka_unit_test(test_pause_delays_arrival),
        cmocka_unit_test(test_clocks),         cmocka_unit_test(test_freed_node),
        cmocka_unit_test(test_stop_and_yield), cmocka_unit_test(test_random),
        cmocka_unit_test(test_suspension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
