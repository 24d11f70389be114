#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "../lib/in_loop.h"
#include "rt/shard.h"
#include "rt/wait.h"

#define SHARDS 3
#define HOPS 3000

/* A ball goes round the shards; at each a task is spawned that hands it on. */
struct ball {
    struct shards *shards;
    struct group groups[SHARDS]; /* one per shard, touched there only */
    int hops;
    atomic_int done;
};

static struct ball balls[4];

static void arrive(void *arg);

static void count_work(void *arg)
{
    ++*(int *)arg;
}

static void hand_on(void *arg)
{
    struct ball *ball = arg;
    int next = ++ball->hops % SHARDS;
    if (ball->hops % 100 == 0) {
        int works = 0;
        loop_work(loop_current(), count_work, &works);
        assert_int_equal(works, 1);
    }
    if (ball->hops == HOPS)
        atomic_store(&ball->done, 1);
    else
        loop_post(shards_loop(ball->shards, next), arrive, ball);
}

static void arrive(void *arg)
{
    struct ball *ball = arg;
    int here = ball->hops % SHARDS;
    assert_ptr_equal(loop_current(), shards_loop(ball->shards, here));
    if (ball->groups[here].loop == NULL)
        group_init(&ball->groups[here], loop_current());
    group_spawn(&ball->groups[here], "hand on", hand_on, ball);
}

static void wait_for_balls(struct loop *loop, void *arg)
{
    for (int i = 0; i < 4; i++)
        while (!atomic_load(&balls[i].done))
            assert_int_equal(sleep_ns(NS_PER_MS), 0);
}

static void test_posts(void **state)
{
    struct shards *shards;
    struct error error = ERROR_NONE;
    assert_int_equal(shards_start(SHARDS, &shards, &error), 0);
    assert_int_equal(shards_count(shards), SHARDS);
    for (int i = 0; i < 4; i++) {
        balls[i].shards = shards;
        loop_post(shards_loop(shards, 0), arrive, &balls[i]);
    }
    in_real_loop(wait_for_balls, NULL);
    shards_stop(shards);
    for (int i = 0; i < 4; i++)
        assert_int_equal(balls[i].hops, HOPS);
}

static void test_start_and_stop(void **state)
{
    struct error error = ERROR_NONE;
    for (int count = 1; count <= 8; count *= 2) {
        struct shards *shards;
        assert_int_equal(shards_start(count, &shards, &error), 0);
        shards_stop(shards);
    }
    shards_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts),
        cmocka_unit_test(test_start_and_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
