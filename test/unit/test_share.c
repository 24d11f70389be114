/* share_next(): what each object takes, so that all streams end together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vol/share.h"

#define LEAST 640u
#define MOST 3840u
#define STREAMS 16u

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static void test_idle_streams_share_alike(void **state)
{
    assert_int_equal(share_next(NULL, 0, STREAMS, 16 * 1000, LEAST, MOST), 1000);
    assert_int_equal(share_next(NULL, 0, STREAMS, 16 * 1000 + 1, LEAST, MOST), 1001);
    assert_int_equal(share_next(NULL, 0, 1, 3000, LEAST, MOST), 3000);
}

static void test_who_is_free_first_gets_most(void **state)
{
    const uint64_t under_way[] = { 900, 0, 300, 5000 };
    /* Level: (900 + 0 + 300 + 4800) / 3, below the fourth's 5000. */
    assert_int_equal(share_next(under_way, 4, 4, 4800, LEAST, MOST), 2000);
    /* Only the two that are free first reach the level. */
    assert_int_equal(share_next(under_way, 4, 4, 900, 100, MOST), 600);
}

/* Those that are behind the streams' number wait for whoever is free first. */
static void test_those_ahead_take_their_turn(void **state)
{
    const uint64_t under_way[] = { 1000, 200, 800 };
    assert_int_equal(share_next(under_way, 3, 2, 2000, LEAST, MOST), 1000);
}

static void test_few_pages_make_few_objects(void **state)
{
    assert_int_equal(share_next(NULL, 0, STREAMS, 1, LEAST, MOST), 1);
    assert_int_equal(share_next(NULL, 0, STREAMS, LEAST, LEAST, MOST), LEAST);
    assert_int_equal(share_next(NULL, 0, STREAMS, 1800, LEAST, MOST), 600);
}

static void test_much_is_several_objects(void **state)
{
    assert_int_equal(share_next(NULL, 0, 2, 2 * 2 * MOST, LEAST, MOST), MOST);
    assert_int_equal(share_next(NULL, 0, 2, 2 * (2 * MOST + 3), LEAST, MOST), (2 * MOST + 3 + 2) / 3);
}

/* All is taken in the end, within the bounds, and the streams end nearly together. */
static void check_schedule(uint32_t streams, uint64_t waiting)
{
    uint64_t left[STREAMS], total = waiting, largest = 0;
    for (uint32_t i = 0; i < streams; i++) {
        left[i] = random_below(2) == 0 ? 0 : random_below(2000);
        total += left[i];
        largest = left[i] > largest ? left[i] : largest;
    }
    while (waiting > 0) {
        uint32_t share = share_next(left, streams, streams, waiting, LEAST, MOST);
        assert_in_range(share, 1, waiting < MOST ? waiting : MOST);
        assert_true(share >= LEAST / 2 || share == waiting);
        uint32_t first = 0;
        for (uint32_t i = 1; i < streams; i++)
            if (left[i] < left[first])
                first = i;
        left[first] += share;
        waiting -= share;
    }
    uint64_t even = total / streams, last = 0;
    for (uint32_t i = 0; i < streams; i++)
        last = left[i] > last ? left[i] : last;
    assert_true(last <= largest || last <= even + LEAST + streams);
}

static void test_schedules(void **state)
{
    for (int i = 0; i < 20000; i++)
        check_schedule(1 + (uint32_t)random_below(STREAMS), 1 + random_below(200000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_streams_share_alike),    cmocka_unit_test(test_who_is_free_first_gets_most),
        cmocka_unit_test(test_those_ahead_take_their_turn), cmocka_unit_test(test_few_pages_make_few_objects),
        cmocka_unit_test(test_much_is_several_objects),     cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
