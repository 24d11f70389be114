/* Sets of zeroed ranges against a bitmap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vol/zero_set.h"

#define SPAN 300u

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

/* Ranges are sorted, none is empty, none touches another; they are what the bitmap says. */
static void compare(const struct zero_set *set, const bool *bits, uint64_t base)
{
    for (uint32_t i = 0; i < set->count; i++) {
        assert_true(set->ranges[i].first < set->ranges[i].past);
        assert_true(i == 0 || set->ranges[i - 1].past < set->ranges[i].first);
    }
    for (uint64_t page = 0; page < SPAN; page++) {
        uint64_t run = 0, expected = 1;
        assert_int_equal(zero_set_has(set, base + page, &run), bits[page]);
        assert_int_equal(zero_set_has(set, base + page, NULL), bits[page]);
        while (page + expected < SPAN && bits[page + expected] == bits[page])
            expected++;
        if (page + expected == SPAN && !bits[page])
            expected = UINT64_MAX; /* nothing is zeroed behind the span */
        assert_true(run == expected);
    }
}

static void against_a_bitmap(uint64_t seed, uint64_t base)
{
    struct zero_set set = { 0 };
    bool bits[SPAN] = { false };
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    uint64_t longest = 1 + random_below(40);
    for (int i = 0; i < 60; i++) {
        uint64_t first = random_below(SPAN), length = 1 + random_below(longest);
        uint64_t past = first + length < SPAN ? first + length : SPAN;
        zero_set_add(&set, base + first, base + past);
        memset(bits + first, true, past - first);
        compare(&set, bits, base);
    }
    zero_set_free(&set);
    assert_int_equal(set.count, 0);
    assert_false(zero_set_has(&set, base, NULL));
    zero_set_add(&set, base, base + 1);
    assert_true(zero_set_has(&set, base, NULL));
    zero_set_free(&set);
}

static void test_agrees_with_a_bitmap(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++)
        against_a_bitmap(seed, 0);
    for (uint64_t seed = 1; seed <= 10; seed++)
        against_a_bitmap(seed, (UINT64_C(1) << 34) - 7);
}

static void test_neighbours_become_one(void **state)
{
    struct zero_set set = { 0 };
    for (uint64_t i = 0; i < 1000; i++)
        zero_set_add(&set, 2 * i, 2 * i + 1);
    assert_int_equal(set.count, 1000);
    for (uint64_t i = 999; i-- > 0;)
        zero_set_add(&set, 2 * i + 1, 2 * i + 2);
    assert_int_equal(set.count, 1);
    uint64_t run;
    assert_true(zero_set_has(&set, 0, &run));
    assert_int_equal(run, 1999);
    zero_set_add(&set, 5, 10);
    assert_int_equal(set.count, 1);
    zero_set_add(&set, 0, UINT64_MAX);
    assert_int_equal(set.count, 1);
    assert_true(zero_set_has(&set, UINT64_MAX - 1, &run));
    assert_int_equal(run, 1);
    zero_set_free(&set);
}

static void test_the_empty_set(void **state)
{
    struct zero_set set = { 0 };
    uint64_t run = 0;
    assert_false(zero_set_has(&set, 17, &run));
    assert_true(run == UINT64_MAX);
    zero_set_free(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_a_bitmap),
        cmocka_unit_test(test_neighbours_become_one),
        cmocka_unit_test(test_the_empty_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
