/* How long a lease is good, by clocks that stand still, jump, or are not there at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rt/loop.h"
#include "vol/lease.h"
#include "vol/volume.h"

#define LEASE_MS 30000u
#define BOOTED_NS (77 * NS_PER_S)
#define WALL_NS (UINT64_C(1700000000) * NS_PER_S)
#define DATE_MS (UINT64_C(1700000003) * 1000)

/* So many seconds after the beginning, by each clock. */
static struct lease_clocks at(int64_t boottime_s, int64_t wall_s, int64_t date_s)
{
    return (struct lease_clocks){ .boottime_ns = BOOTED_NS + (uint64_t)boottime_s * NS_PER_S,
                                  .wall_ns = WALL_NS + (uint64_t)wall_s * NS_PER_S,
                                  .date_ms = DATE_MS + (uint64_t)date_s * 1000 };
}

/* One whose body was sent at the beginning. */
static struct lease renewed(void)
{
    struct lease lease;
    struct lease_clocks now = at(0, 0, 0);
    lease_init(&lease, LEASE_MS);
    lease_observe(&lease, &now);
    struct lease_clocks sent = lease_sending(&lease, &now);
    lease_landed(&lease, &sent);
    return lease;
}

static bool valid(const struct lease *lease, int64_t boottime_s, int64_t wall_s, int64_t date_s)
{
    struct lease_clocks now = at(boottime_s, wall_s, date_s);
    return lease_is_valid(lease, &now);
}

static void test_nothing_has_landed(void **state)
{
    struct lease lease;
    lease_init(&lease, LEASE_MS);
    assert_false(valid(&lease, 0, 0, 0));
    struct lease_clocks now = at(0, 0, 0);
    lease_sending(&lease, &now);
    assert_false(valid(&lease, 0, 0, 0));
}

static void test_the_clock_that_says_most_decides(void **state)
{
    struct lease lease = renewed();
    assert_true(valid(&lease, 0, 0, 0));
    assert_true(valid(&lease, 23, 23, 23));
    assert_false(valid(&lease, 24, 24, 24));
    assert_false(valid(&lease, 24, 0, 0));
    assert_false(valid(&lease, 0, 24, 0));
    assert_false(valid(&lease, 0, 0, 24));
    assert_false(valid(&lease, 1000000, 1, 1));
}

static void test_clocks_that_go_back_do_not_make_it_younger(void **state)
{
    struct lease lease = renewed();
    assert_true(valid(&lease, 23, -3600, 0));
    assert_false(valid(&lease, 24, -3600, 0));
    struct lease_clocks now = at(24, -3600, -3600);
    assert_int_equal(lease_age_ns(&lease, &now), 24 * NS_PER_S);
}

/* Without a date of the store, as in a directory, the other two decide. */
static void test_a_store_without_a_clock(void **state)
{
    struct lease lease;
    struct lease_clocks now = at(0, 0, 0);
    now.date_ms = 0;
    lease_init(&lease, LEASE_MS);
    struct lease_clocks sent = lease_sending(&lease, &now);
    lease_landed(&lease, &sent);
    assert_true(valid(&lease, 23, 23, 1000000)); /* not known at the sending: nothing to compare with */
    assert_false(valid(&lease, 24, 0, 0));
}

/* The last answer before the sending is old: what has passed since counts for the store's clock, too. */
static void test_an_old_date_at_the_sending(void **state)
{
    struct lease lease;
    struct lease_clocks first = at(0, 0, 0), second = at(15, 15, 0), third = at(25, 25, 25);
    lease_init(&lease, LEASE_MS);
    lease_observe(&lease, &first);
    struct lease_clocks sent = lease_sending(&lease, &second);
    assert_int_equal(sent.date_ms, DATE_MS + 15000);
    lease_landed(&lease, &sent);
    assert_int_equal(lease_age_ns(&lease, &third), 10 * NS_PER_S);
    assert_true(lease_is_valid(&lease, &third));
}

/* The boot-time clock stood still between that answer and the sending: then the store's date is what tells, and the
 * sending is taken to have been earlier than it was, never later. */
static void test_a_sending_is_never_dated_too_late(void **state)
{
    struct lease lease;
    struct lease_clocks first = at(0, 0, 0), frozen = at(1, 1, 0), later = at(2, 2, 100);
    lease_init(&lease, LEASE_MS);
    lease_observe(&lease, &first);
    struct lease_clocks sent = lease_sending(&lease, &frozen); /* in truth 100 s later */
    lease_landed(&lease, &sent);
    assert_false(lease_is_valid(&lease, &later));
    /* The next one is sent with that date in mind. */
    sent = lease_sending(&lease, &later);
    assert_int_equal(sent.date_ms, DATE_MS + 100000);
    lease_landed(&lease, &sent);
    assert_true(lease_is_valid(&lease, &later));
}

/* A boot-time clock that runs fast does not push the estimate ahead for ever: every new date begins anew. */
static void test_a_drifting_clock_is_corrected_by_each_date(void **state)
{
    struct lease lease;
    lease_init(&lease, LEASE_MS);
    struct lease_clocks sent = { 0 };
    for (int64_t i = 0; i <= 1000; i++) { /* 10 % fast */
        struct lease_clocks now = at(i * 110 / 10, i * 10, i * 10);
        lease_observe(&lease, &now);
        sent = lease_sending(&lease, &now);
        lease_landed(&lease, &sent);
    }
    assert_true(sent.date_ms <= DATE_MS + 1000 * 10 * 1000 + 1000);
}

/* A machine goes on from a snapshot: both of its clocks know nothing of it, the first answer does. */
static void test_a_snapshot_is_told_by_the_first_answer(void **state)
{
    struct lease lease = renewed();
    assert_true(valid(&lease, 1, 1, 0));
    assert_false(valid(&lease, 1, 1, 3600));
    assert_false(valid(&lease, 1, 3600, 0));
}

static void test_what_follows_from_the_length(void **state)
{
    assert_int_equal(lease_valid_ns(30000), 24 * NS_PER_S);
    assert_int_equal(lease_renew_ns(30000), 15 * NS_PER_S);
    assert_int_equal(lease_retry_ns(30000), 3 * NS_PER_S);
    assert_int_equal(lease_attempt_ms(30000), 3000);
    assert_int_equal(lease_attempt_ms(LEASE_MS_LEAST), 500);
    assert_int_equal(lease_bounded_ms(0), LEASE_MS_LEAST);
    assert_int_equal(lease_bounded_ms(30000), 30000);
    assert_int_equal(lease_bounded_ms(UINT64_MAX), LEASE_MS_MOST);
    for (uint64_t lease_ms = LEASE_MS_LEAST; lease_ms <= LEASE_MS_MOST; lease_ms = lease_ms * 2 + 1) {
        assert_true(lease_renew_ns(lease_ms) < lease_valid_ns(lease_ms));
        assert_true(lease_valid_ns(lease_ms) < lease_ms * NS_PER_MS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_has_landed),
        cmocka_unit_test(test_the_clock_that_says_most_decides),
        cmocka_unit_test(test_clocks_that_go_back_do_not_make_it_younger),
        cmocka_unit_test(test_a_store_without_a_clock),
        cmocka_unit_test(test_an_old_date_at_the_sending),
        cmocka_unit_test(test_a_sending_is_never_dated_too_late),
        cmocka_unit_test(test_a_drifting_clock_is_corrected_by_each_date),
        cmocka_unit_test(test_a_snapshot_is_told_by_the_first_answer),
        cmocka_unit_test(test_what_follows_from_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
