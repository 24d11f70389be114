/* The simulator's checker itself: histories made by hand, lawful ones that it must accept and broken ones that it
 * must reject.  A checker that cannot fail proves nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checker.h"

#define SIZE (1u << 20)

static char story[CHECKER_STORY_MAX];

/* A disk as a lawful server would keep it. */
struct disk {
    struct checker *checker;
    struct checker_era *era;
    uint8_t bytes[SIZE];
};

static struct disk *disk_new(void)
{
    struct disk *disk = calloc(1, sizeof *disk);
    assert_non_null(disk);
    disk->checker = checker_new(SIZE, 7);
    disk->era = checker_era(disk->checker, 1);
    return disk;
}

static void disk_free(struct disk *disk)
{
    checker_free(disk->checker);
    free(disk);
}

static struct checker_op *begin_write(struct disk *disk, uint64_t offset, uint64_t length, enum checker_content content)
{
    return checker_write_begin(disk->era, offset, length, content, false);
}

static void put(struct disk *disk, struct checker_op *op, uint64_t offset)
{
    checker_fill(op, disk->bytes + offset);
}

static void write_whole(struct disk *disk, uint64_t offset, uint64_t length, enum checker_content content)
{
    struct checker_op *op = begin_write(disk, offset, length, content);
    put(disk, op, offset);
    assert_true(checker_write_end(op, story));
}

static bool read_of(struct checker_era *era, const uint8_t *bytes, uint64_t offset, uint64_t length)
{
    return checker_read_end(checker_read_begin(era, offset, length), bytes + offset, story);
}

static bool reads(struct disk *disk, uint64_t offset, uint64_t length)
{
    return read_of(disk->era, disk->bytes, offset, length);
}

static void flush(struct disk *disk)
{
    assert_true(checker_flush_end(checker_flush_begin(disk->era), story));
}

static void test_lawful_history(void **state)
{
    struct disk *disk = disk_new();
    assert_true(reads(disk, 0, SIZE));
    write_whole(disk, 4096, 8192, CONTENT_DATA);
    write_whole(disk, 5000, 10, CONTENT_DATA);
    write_whole(disk, 65536, 65536, CONTENT_MIXED);
    assert_true(reads(disk, 0, SIZE));
    write_whole(disk, 5003, 4000, CONTENT_ZERO);
    assert_true(reads(disk, 0, SIZE));
    flush(disk);
    assert_true(reads(disk, 100, 70000));
    disk_free(disk);
}

static void test_lost_write(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 4096, CONTENT_DATA);
    memset(disk->bytes, 0, SIZE);
    assert_false(reads(disk, 4096, 512));
    disk_free(disk);
}

static void test_stale_read(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 4096, CONTENT_DATA);
    uint8_t old[4096];
    memcpy(old, disk->bytes + 4096, sizeof old);
    write_whole(disk, 4096, 4096, CONTENT_DATA);
    memcpy(disk->bytes + 4096, old, sizeof old);
    assert_false(reads(disk, 4096, 4096));
    disk_free(disk);
}

static void test_foreign_bytes(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 4096, CONTENT_DATA);
    disk->bytes[4096 + 4095] ^= 1;
    assert_false(reads(disk, 4096, 4096));
    disk_free(disk);
}

static void test_misplaced_bytes(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 8192, CONTENT_DATA);
    memmove(disk->bytes + 4096, disk->bytes + 8192, 4096);
    assert_false(reads(disk, 4096, 4096));
    disk_free(disk);
}

static void test_resurrected_trim(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 4096, CONTENT_DATA);
    uint8_t old[4096];
    memcpy(old, disk->bytes + 4096, sizeof old);
    write_whole(disk, 0, 65536, CONTENT_ZERO);
    assert_true(reads(disk, 0, 65536));
    memcpy(disk->bytes + 4096, old, sizeof old);
    assert_false(reads(disk, 0, 65536));
    disk_free(disk);
}

static void test_concurrent_writes_either_order(void **state)
{
    for (int winner = 0; winner < 2; winner++) {
        struct disk *disk = disk_new();
        struct checker_op *a = begin_write(disk, 0, 4096, CONTENT_DATA);
        struct checker_op *b = begin_write(disk, 0, 4096, CONTENT_DATA);
        uint8_t other[4096];
        checker_fill(winner == 0 ? a : b, disk->bytes);
        checker_fill(winner == 0 ? b : a, other);
        assert_true(checker_write_end(a, story));
        assert_true(checker_write_end(b, story));
        assert_true(reads(disk, 0, 4096));
        /* Once a read has told which was last, the other one must not come back. */
        memcpy(disk->bytes, other, sizeof other);
        assert_false(reads(disk, 0, 4096));
        disk_free(disk);
    }
}

static void test_read_beside_write(void **state)
{
    struct disk *disk = disk_new();
    struct checker_op *before = checker_read_begin(disk->era, 0, 4096);
    struct checker_op *after = checker_read_begin(disk->era, 0, 4096);
    uint8_t blank[4096] = { 0 };
    write_whole(disk, 0, 4096, CONTENT_DATA);
    assert_true(checker_read_end(before, disk->bytes, story));
    /* Began before the write ended: either is lawful, even though another one saw the new content. */
    assert_true(checker_read_end(after, blank, story));
    assert_false(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

static void test_unanswered_write_seen_must_stay(void **state)
{
    struct disk *disk = disk_new();
    struct checker_op *op = begin_write(disk, 0, 4096, CONTENT_DATA);
    uint8_t blank[4096] = { 0 };
    put(disk, op, 0);
    checker_op_lost(op);
    assert_true(read_of(disk->era, blank, 0, 4096));
    assert_true(reads(disk, 0, 4096));
    assert_false(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

static void test_failed_write_late(void **state)
{
    struct disk *disk = disk_new();
    struct checker_op *op = begin_write(disk, 0, 4096, CONTENT_DATA);
    put(disk, op, 0);
    checker_op_failed(op);
    uint8_t blank[4096] = { 0 };
    assert_true(read_of(disk->era, blank, 0, 4096));
    assert_false(reads(disk, 0, 4096));
    disk_free(disk);
}

static void test_torn_page_live(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 0, 4096, CONTENT_DATA);
    write_whole(disk, 512, 512, CONTENT_DATA); /* cuts the page into segments */
    struct checker_op *op = begin_write(disk, 0, 4096, CONTENT_DATA);
    uint8_t whole[4096];
    checker_fill(op, whole);
    memcpy(disk->bytes, whole, 512); /* the first sector shows it, the second does not yet */
    assert_false(reads(disk, 0, 4096));
    disk_free(disk);
}

/* Three writes of one page, a crash without a flush: each state whole is lawful, a mixture is not. */
static void test_crash_states(void **state)
{
    for (int survivor = 0; survivor < 5; survivor++) {
        struct disk *disk = disk_new();
        uint8_t states[5][4096] = { { 0 } };
        write_whole(disk, 0, 4096, CONTENT_DATA);
        memcpy(states[1], disk->bytes, 4096);
        write_whole(disk, 1024, 512, CONTENT_DATA);
        memcpy(states[2], disk->bytes, 4096);
        write_whole(disk, 0, 4096, CONTENT_DATA);
        memcpy(states[3], disk->bytes, 4096);
        memcpy(states[4], states[3], 4096);
        memcpy(states[4] + 1024, states[2] + 1024, 512); /* torn: the last write, but for one sector */
        checker_era_ended(disk->era);
        disk->era = checker_era(disk->checker, 2);
        assert_int_equal(read_of(disk->era, states[survivor], 0, 4096), survivor != 4);
        if (survivor != 4) {
            assert_true(read_of(disk->era, states[survivor], 0, 4096));
            assert_false(read_of(disk->era, states[(survivor + 1) % 4], 0, 4096));
        }
        disk_free(disk);
    }
}

static void test_recovered_content_survives_next_crash(void **state)
{
    struct disk *disk = disk_new();
    uint8_t blank[4096] = { 0 };
    write_whole(disk, 0, 4096, CONTENT_DATA);
    disk->era = checker_era(disk->checker, 2);
    assert_true(reads(disk, 0, 4096)); /* it made it into the log */
    disk->era = checker_era(disk->checker, 3);
    assert_false(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

static void test_flush_lost(void **state)
{
    struct disk *disk = disk_new();
    uint8_t blank[8192] = { 0 };
    write_whole(disk, 0, 8192, CONTENT_DATA);
    flush(disk);
    uint8_t flushed[4096];
    memcpy(flushed, disk->bytes, 4096);
    write_whole(disk, 0, 4096, CONTENT_DATA);
    disk->era = checker_era(disk->checker, 2);
    assert_true(read_of(disk->era, flushed, 0, 4096));   /* the write after the flush may go */
    assert_false(read_of(disk->era, blank, 4096, 4096)); /* what was flushed may not */
    disk_free(disk);
}

static void test_flush_covers_only_what_was_there(void **state)
{
    struct disk *disk = disk_new();
    uint8_t blank[4096] = { 0 };
    struct checker_op *op = checker_flush_begin(disk->era);
    write_whole(disk, 0, 4096, CONTENT_DATA);
    assert_true(checker_flush_end(op, story));
    disk->era = checker_era(disk->checker, 2);
    assert_true(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

static void test_fua_lost(void **state)
{
    struct disk *disk = disk_new();
    uint8_t blank[4096] = { 0 };
    struct checker_op *op = checker_write_begin(disk->era, 0, 4096, CONTENT_DATA, true);
    assert_true(checker_write_end(op, story));
    disk->era = checker_era(disk->checker, 2);
    assert_false(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

static void test_flushed_trim_lost(void **state)
{
    struct disk *disk = disk_new();
    uint8_t old[4096];
    write_whole(disk, 0, 4096, CONTENT_DATA);
    memcpy(old, disk->bytes, sizeof old);
    flush(disk);
    write_whole(disk, 0, SIZE, CONTENT_ZERO);
    flush(disk);
    disk->era = checker_era(disk->checker, 2);
    assert_false(read_of(disk->era, old, 0, 4096));
    disk_free(disk);
}

/* A superseded owner acknowledges a flush late: its successor must have it. */
static void test_late_acknowledgement(void **state)
{
    for (int shown = 0; shown < 2; shown++) {
        struct disk *disk = disk_new();
        uint8_t blank[4096] = { 0 };
        write_whole(disk, 0, 4096, CONTENT_DATA);
        struct checker_op *late = checker_flush_begin(disk->era);
        struct checker_era *next = checker_era(disk->checker, 2);
        assert_true(read_of(next, shown == 0 ? blank : disk->bytes, 0, 4096));
        assert_int_equal(checker_flush_end(late, story), shown == 1);
        disk_free(disk);
    }
    /* The same, with the successor read only afterwards. */
    struct disk *disk = disk_new();
    uint8_t blank[4096] = { 0 };
    write_whole(disk, 0, 4096, CONTENT_DATA);
    struct checker_op *late = checker_flush_begin(disk->era);
    struct checker_era *next = checker_era(disk->checker, 2);
    struct checker_era *after = checker_era(disk->checker, 3);
    assert_true(checker_flush_end(late, story));
    assert_false(read_of(next, blank, 0, 4096));
    assert_false(read_of(after, blank, 0, 4096));
    disk_free(disk);
}

/* What a superseded owner takes after its successor served must never show there; itself may show its own state. */
static void test_superseded_writes_stay_invisible(void **state)
{
    struct disk *disk = disk_new();
    struct checker_era *next = checker_era(disk->checker, 2);
    write_whole(disk, 0, 4096, CONTENT_DATA);
    assert_true(reads(disk, 0, 4096));
    assert_false(read_of(next, disk->bytes, 0, 4096));
    disk_free(disk);
}

/* A write whose connection broke may come late, but not once its server has finished with that connection. */
static void test_lost_write_is_over(void **state)
{
    for (int over = 0; over < 2; over++) {
        struct disk *disk = disk_new();
        struct checker_op *op = begin_write(disk, 0, 4096, CONTENT_DATA);
        uint8_t late[4096];
        checker_fill(op, late);
        checker_op_lost(op);
        if (over == 1)
            checker_era_lost_are_over(disk->era);
        write_whole(disk, 0, 4096, CONTENT_DATA);
        assert_int_equal(read_of(disk->era, late, 0, 4096), over == 0);
        disk_free(disk);
    }
}

/* An owner that gives the volume back in good order has lost nothing, flushed or not. */
static void test_release_loses_nothing(void **state)
{
    struct disk *disk = disk_new();
    uint8_t blank[4096] = { 0 };
    write_whole(disk, 0, 4096, CONTENT_DATA);
    assert_true(checker_era_released(disk->checker, 1, false, story));
    assert_true(checker_era_released(disk->checker, 7, false, story));
    disk->era = checker_era(disk->checker, 2);
    assert_false(read_of(disk->era, blank, 0, 4096));
    disk_free(disk);
}

/* An old owner finds that a trim of what is zero there changes nothing, and need not ask the store about it. */
static void test_superseded_trim_of_nothing(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 0, 4096, CONTENT_ZERO);
    struct checker_era *next = checker_era(disk->checker, 2);
    assert_true(read_of(next, disk->bytes, 0, 4096));
    write_whole(disk, 0, 4096, CONTENT_ZERO);
    flush(disk);
    write_whole(disk, 0, 4096, CONTENT_DATA);
    assert_false(checker_flush_end(checker_flush_begin(disk->era), story));
    disk_free(disk);
}

/* An owner and its clone: page 0 held `base`, each has written it since; later owners may see either, until one of the
 * two is known to have lost. */
struct fork {
    struct disk *disk;
    struct checker_era *clone;
    uint8_t base[4096], original[4096], cloned[4096];
};

static void fork_owner(struct fork *fork)
{
    struct disk *disk = disk_new();
    *fork = (struct fork){ .disk = disk };
    write_whole(disk, 0, 4096, CONTENT_DATA);
    memcpy(fork->base, disk->bytes, 4096);
    flush(disk);
    checker_fork(disk->checker, 1);
    fork->clone = checker_era_of_fork(disk->checker, 1);
    write_whole(disk, 0, 4096, CONTENT_DATA);
    memcpy(fork->original, disk->bytes, 4096);
    struct checker_op *op = checker_write_begin(fork->clone, 0, 4096, CONTENT_DATA, false);
    checker_fill(op, fork->cloned);
    assert_true(checker_write_end(op, story));
}

static void test_clone_has_a_state_of_its_own(void **state)
{
    struct fork fork;
    fork_owner(&fork);
    assert_true(read_of(fork.disk->era, fork.original, 0, 4096));
    assert_true(read_of(fork.clone, fork.cloned, 0, 4096));
    assert_false(read_of(fork.clone, fork.original, 0, 4096));
    assert_false(read_of(fork.disk->era, fork.cloned, 0, 4096));
    disk_free(fork.disk);
}

static void test_one_of_two_clones_is_seen(void **state)
{
    for (int lost = 0; lost < 3; lost++) { /* nobody, the original, the clone */
        for (int seen = 0; seen < 3; seen++) {
            struct fork fork;
            fork_owner(&fork);
            if (lost > 0)
                assert_true(checker_fork_lost(fork.disk->checker, 1, lost == 2, story));
            const uint8_t *bytes = seen == 0 ? fork.base : seen == 1 ? fork.original : fork.cloned;
            bool fine = read_of(checker_era(fork.disk->checker, 2), bytes, 0, 4096);
            assert_int_equal(fine, seen == 0 || seen != lost);
            disk_free(fork.disk);
        }
    }
}

static void test_one_of_two_clones_acknowledges(void **state)
{
    struct fork fork;
    fork_owner(&fork);
    flush(fork.disk);
    assert_false(read_of(checker_era(fork.disk->checker, 2), fork.cloned, 0, 4096));
    assert_false(checker_flush_end(checker_flush_begin(fork.clone), story));
    disk_free(fork.disk);
}

static void collect(void *arg, uint64_t offset, uint64_t length)
{
    uint64_t *sums = arg;
    sums[0]++;
    sums[1] += length;
}

static void test_touched(void **state)
{
    struct disk *disk = disk_new();
    write_whole(disk, 4096, 8192, CONTENT_DATA);
    write_whole(disk, 8192, 8192, CONTENT_DATA);
    write_whole(disk, 65537, 10, CONTENT_DATA);
    uint64_t sums[2] = { 0 };
    checker_touched(disk->checker, collect, sums);
    assert_int_equal(sums[0], 2);
    assert_int_equal(sums[1], 12298);
    disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lawful_history),
        cmocka_unit_test(test_lost_write),
        cmocka_unit_test(test_stale_read),
        cmocka_unit_test(test_foreign_bytes),
        cmocka_unit_test(test_misplaced_bytes),
        cmocka_unit_test(test_resurrected_trim),
        cmocka_unit_test(test_concurrent_writes_either_order),
        cmocka_unit_test(test_read_beside_write),
        cmocka_unit_test(test_unanswered_write_seen_must_stay),
        cmocka_unit_test(test_failed_write_late),
        cmocka_unit_test(test_torn_page_live),
        cmocka_unit_test(test_crash_states),
        cmocka_unit_test(test_recovered_content_survives_next_crash),
        cmocka_unit_test(test_flush_lost),
        cmocka_unit_test(test_flush_covers_only_what_was_there),
        cmocka_unit_test(test_fua_lost),
        cmocka_unit_test(test_flushed_trim_lost),
        cmocka_unit_test(test_late_acknowledgement),
        cmocka_unit_test(test_superseded_writes_stay_invisible),
        cmocka_unit_test(test_superseded_trim_of_nothing),
        cmocka_unit_test(test_release_loses_nothing),
        cmocka_unit_test(test_lost_write_is_over),
        cmocka_unit_test(test_clone_has_a_state_of_its_own),
        cmocka_unit_test(test_one_of_two_clones_is_seen),
        cmocka_unit_test(test_one_of_two_clones_acknowledges),
        cmocka_unit_test(test_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
