/* Dividing the memory: busy shards get most, and never more than the whole is in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/shares.h"

#define MIB (UINT64_C(1) << 20)
#define SHARDS 4
#define TOTAL (1000 * MIB)
#define LEAST (64 * MIB)

/* Shards that come down only when they are told to. */
struct shards {
    struct shares *shares;
    uint64_t uses[SHARDS], asked[SHARDS];
    bool changing[SHARDS];
};

static void set(void *arg, int index, uint64_t bytes)
{
    struct shards *shards = arg;
    uint64_t sum = 0;

    assert_false(shards->changing[index]);
    shards->changing[index] = true;
    shards->asked[index] = bytes;
    if (bytes > shards->uses[index])
        shards->uses[index] = bytes;
    for (int i = 0; i < SHARDS; i++)
        sum += shards->uses[i];
    assert_true(sum <= TOTAL);
    assert_true(bytes >= LEAST);
}

static void settle(struct shards *shards, int index)
{
    assert_true(shards->changing[index]);
    shards->changing[index] = false;
    shards->uses[index] = shards->asked[index];
    shares_settled(shards->shares, index);
}

static void settle_all(struct shards *shards)
{
    for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < SHARDS; i++)
            if (shards->changing[i]) {
                settle(shards, i);
                again = true;
            }
    }
}

static void begin(struct shards *shards)
{
    *shards = (struct shards){ 0 };
    shards->shares = shares_new(SHARDS, TOTAL, LEAST, set, shards);
    for (int i = 0; i < SHARDS; i++)
        shards->uses[i] = TOTAL / SHARDS;
}

static void test_one_gets_most(void **state)
{
    struct shards shards;

    begin(&shards);
    shares_busy(shards.shares, 2, true);
    assert_true(shards.uses[2] == TOTAL / SHARDS); /* nothing is free yet */
    settle_all(&shards);
    assert_true(shards.uses[2] == TOTAL - 3 * LEAST);
    assert_true(shards.uses[0] == LEAST);
    shares_busy(shards.shares, 2, false);
    assert_false(shards.changing[2]); /* it may come back */
    shares_free(shards.shares);
}

static void test_second_comes(void **state)
{
    struct shards shards;

    begin(&shards);
    shares_busy(shards.shares, 2, true);
    settle_all(&shards);
    shares_busy(shards.shares, 0, true);
    assert_true(shards.uses[0] == LEAST);
    settle(&shards, 2);
    settle_all(&shards);
    assert_true(shards.uses[0] == (TOTAL - 2 * LEAST) / 2);
    assert_true(shards.uses[2] == shards.uses[0]);
    shares_busy(shards.shares, 2, false);
    settle_all(&shards);
    assert_true(shards.uses[0] == TOTAL - 3 * LEAST);
    shares_free(shards.shares);
}

/* One that cannot come down stops no other. */
static void test_stuck(void **state)
{
    struct shards shards;

    begin(&shards);
    shares_busy(shards.shares, 0, true);
    settle(&shards, 1);
    settle(&shards, 3);
    assert_true(shards.uses[0] > TOTAL / SHARDS);
    assert_true(shards.changing[2]);
    shares_free(shards.shares);
}

/* Whatever comes in whatever order, it ends where it should; set() looks at the sum all along. */
static void test_any_order(void **state)
{
    srand(1);
    for (int round = 0; round < 2000; round++) {
        struct shards shards;
        bool busy[SHARDS] = { false };
        begin(&shards);
        for (int step = 0; step < 50; step++) {
            int index = rand() % SHARDS;
            if (rand() % 2 == 0) {
                busy[index] = !busy[index];
                shares_busy(shards.shares, index, busy[index]);
            } else if (shards.changing[index]) {
                settle(&shards, index);
            }
        }
        settle_all(&shards);
        int count = 0;
        for (int i = 0; i < SHARDS; i++)
            count += busy[i];
        for (int i = 0; i < SHARDS && count > 0; i++)
            assert_true(shards.uses[i] ==
                        (busy[i] ? (TOTAL - (uint64_t)(SHARDS - count) * LEAST) / (uint64_t)count : LEAST));
        shares_free(shards.shares);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_gets_most),
        cmocka_unit_test(test_second_comes),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
