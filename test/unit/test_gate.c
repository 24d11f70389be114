/* The gate: who is let in, in which order, and what becomes of those who leave the queue. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/in_loop.h"
#include "rt/wait.h"
#include "vol/gate.h"

#define GUESTS 8

struct guest {
    struct party *party;
    uint64_t amount;
    struct task *task;
    int status; /* 1: not answered yet */
    int place;  /* in the order of being let in, from 1 on; 0: not let in */
};

struct party {
    struct loop *loop;
    struct gate gate;
    struct group group;
    struct guest guests[GUESTS];
    int count, entered;
};

static void visit(void *arg)
{
    struct guest *guest = arg;
    guest->status = gate_enter(&guest->party->gate, guest->amount);
    if (guest->status == 0)
        guest->place = ++guest->party->entered;
}

/* One more who wants to enter; has run up to its wait when it returns. */
static struct guest *come(struct party *party, uint64_t amount)
{
    struct guest *guest = &party->guests[party->count++];
    *guest = (struct guest){ .party = party, .amount = amount, .status = 1 };
    guest->task = group_spawn(&party->group, "guest", visit, guest);
    assert_int_equal(coroutine_yield(), 0);
    return guest;
}

static void begin(struct party *party, struct loop *loop, uint64_t limit)
{
    *party = (struct party){ .loop = loop };
    gate_init(&party->gate, limit);
    group_init(&party->group, loop);
}

static void settle(void)
{
    assert_int_equal(coroutine_yield(), 0);
}

static void order_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 10);
    assert_true(gate_try(&party.gate, 8));
    struct guest *large = come(&party, 6), *small = come(&party, 1), *third = come(&party, 3);
    assert_true(gate_waited_for(&party.gate));
    assert_false(gate_try(&party.gate, 1)); /* would fit, and would overtake */
    assert_int_equal(large->status, 1);
    assert_int_equal(small->status, 1);
    gate_leave(&party.gate, 3); /* 5 in use: the large one does not fit yet, and nobody slips past it */
    settle();
    assert_int_equal(party.entered, 0);
    gate_leave(&party.gate, 1);
    assert_int_equal(party.gate.used, 10); /* taken by whoever made room, before the guest runs */
    settle();
    assert_int_equal(large->place, 1);
    assert_int_equal(small->status, 1);
    gate_leave(&party.gate, 4);
    settle();
    assert_int_equal(small->place, 2);
    assert_int_equal(third->place, 3);
    assert_int_equal(party.gate.used, 10);
    gate_leave(&party.gate, 10);
    assert_int_equal(party.gate.used, 0);
    group_join(&party.group);
}

static void test_first_come_first_served(void **state)
{
    in_sim_loop(1, order_body, NULL);
}

static void oversize_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 10);
    assert_true(gate_try(&party.gate, 25));
    struct guest *tiny = come(&party, 1), *huge = come(&party, 11), *after = come(&party, 1);
    assert_int_equal(party.entered, 0);
    gate_leave(&party.gate, 25);
    settle();
    assert_int_equal(tiny->place, 1);
    assert_int_equal(huge->status, 1); /* alone, or not at all */
    gate_leave(&party.gate, 1);
    settle();
    assert_int_equal(huge->place, 2);
    assert_int_equal(after->status, 1);
    gate_leave(&party.gate, 11);
    settle();
    assert_int_equal(after->place, 3);
    gate_leave(&party.gate, 1);
    group_join(&party.group);
}

static void test_what_is_larger_than_the_limit_enters_alone(void **state)
{
    in_sim_loop(1, oversize_body, NULL);
}

static void cancel_waiting_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 10);
    assert_true(gate_try(&party.gate, 5));
    struct guest *large = come(&party, 10), *small = come(&party, 5), *last = come(&party, 1);
    task_cancel(large->task);
    settle();
    assert_int_equal(large->status, -ECANCELED);
    settle();
    assert_int_equal(small->place, 1); /* it was only the large one that kept it out */
    assert_int_equal(last->status, 1);
    assert_int_equal(party.gate.used, 10);
    task_cancel(last->task);
    settle();
    assert_int_equal(last->status, -ECANCELED);
    assert_false(gate_waited_for(&party.gate));
    assert_int_equal(party.gate.used, 10);
    gate_leave(&party.gate, 10);
    group_join(&party.group);
}

static void test_cancelled_while_waiting(void **state)
{
    in_sim_loop(1, cancel_waiting_body, NULL);
}

static void cancel_entered_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 10);
    assert_true(gate_try(&party.gate, 10));
    struct guest *first = come(&party, 7), *next = come(&party, 8);
    gate_leave(&party.gate, 10);
    assert_int_equal(party.gate.used, 7); /* let in, and has not run yet */
    task_cancel(first->task);
    settle();
    assert_int_equal(first->status, -ECANCELED);
    settle();
    assert_int_equal(next->place, 1);
    assert_int_equal(party.gate.used, 8);
    gate_leave(&party.gate, 8);
    group_join(&party.group);
}

static void test_cancelled_between_being_let_in_and_running(void **state)
{
    in_sim_loop(1, cancel_entered_body, NULL);
}

static void limit_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 4);
    assert_true(gate_try(&party.gate, 4));
    struct guest *first = come(&party, 3), *second = come(&party, 3);
    gate_set_limit(&party.gate, 6);
    settle();
    assert_int_equal(party.entered, 0);
    gate_set_limit(&party.gate, 7);
    settle();
    assert_int_equal(first->place, 1);
    assert_int_equal(second->status, 1);
    gate_set_limit(&party.gate, 2); /* below what is in use: nobody enters until enough have left */
    gate_leave(&party.gate, 5);
    settle();
    assert_int_equal(second->status, 1);
    gate_leave(&party.gate, 2);
    settle();
    assert_int_equal(second->place, 2);
    assert_int_equal(party.gate.used, 3);
    gate_leave(&party.gate, 3);
    group_join(&party.group);
}

static void test_the_limit_moves(void **state)
{
    in_sim_loop(1, limit_body, NULL);
}

static void force_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 4);
    gate_force(&party.gate, 3);
    gate_force(&party.gate, 3);
    assert_int_equal(party.gate.used, 6);
    assert_false(gate_try(&party.gate, 1));
    struct guest *guest = come(&party, 1);
    gate_leave(&party.gate, 2); /* full, no more than that */
    settle();
    assert_int_equal(guest->status, 1);
    gate_leave(&party.gate, 1);
    settle();
    assert_int_equal(guest->status, 0);
    gate_leave(&party.gate, 4);
    group_join(&party.group);
}

static void test_what_is_forced_counts(void **state)
{
    in_sim_loop(1, force_body, NULL);
}

/* Many guests who come, wait, leave and are cancelled at random: the limit holds, nobody stays outside for ever. */
struct crowd {
    struct party *party;
    uint64_t most;
    uint32_t served, cancelled;
};

static void live(void *arg)
{
    struct crowd *crowd = arg;
    struct gate *gate = &crowd->party->gate;
    struct world *world = loop_sim_world(crowd->party->loop);
    uint64_t amount = 1 + world_random(world, 12);
    sleep_ns(world_random(world, 1000));
    if (gate_enter(gate, amount) < 0) {
        crowd->cancelled++;
        return;
    }
    assert_true(gate->used <= gate->limit || gate->used == amount);
    sleep_ns(1 + world_random(world, 100));
    gate_leave(gate, amount);
    crowd->served++;
}

static void crowd_body(struct loop *loop, void *arg)
{
    struct party party;
    begin(&party, loop, 10);
    struct world *world = loop_sim_world(loop);
    struct crowd crowd = { .party = &party };
    struct task *tasks[200];
    for (int i = 0; i < 200; i++)
        tasks[i] = group_spawn(&party.group, "live", live, &crowd);
    sleep_ns(1);
    for (int i = 0; i < 20; i++)
        task_cancel(tasks[world_random(world, 10) + 10 * (uint64_t)i]); /* none has ended so early */
    group_join(&party.group);
    assert_int_equal(crowd.served + crowd.cancelled, 200);
    assert_true(crowd.served >= 180);
    assert_int_equal(party.gate.used, 0);
}

static void test_a_crowd(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        in_sim_loop(seed, crowd_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_what_is_larger_than_the_limit_enters_alone),
        cmocka_unit_test(test_cancelled_while_waiting),
        cmocka_unit_test(test_cancelled_between_being_let_in_and_running),
        cmocka_unit_test(test_the_limit_moves),
        cmocka_unit_test(test_what_is_forced_counts),
        cmocka_unit_test(test_a_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
