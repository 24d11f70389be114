/* See gate.h.  A waiter is let in by whoever leaves, not by itself: so that the
 * amount is taken at the moment it fits, and one that is cancelled between
 * being let in and running gives it back. */
#include "vol/gate.h"

#include <assert.h>
#include <errno.h>

struct waiter {
    struct list link;
    struct coroutine *coroutine;
    uint64_t amount;
    bool entered;
};

void gate_init(struct gate *gate, uint64_t limit)
{
    gate->limit = limit;
    gate->used = 0;
    list_init(&gate->waiters);
}

static bool fits(const struct gate *gate, uint64_t amount)
{
    return gate->used == 0 || (gate->used < gate->limit && amount <= gate->limit - gate->used);
}

static void let_in(struct gate *gate)
{
    while (!list_empty(&gate->waiters)) {
        struct waiter *first = container_of(gate->waiters.next, struct waiter, link);
        if (!fits(gate, first->amount))
            return;
        gate->used += first->amount;
        first->entered = true;
        list_remove(&first->link);
        coroutine_wake(first->coroutine);
    }
}

void gate_set_limit(struct gate *gate, uint64_t limit)
{
    gate->limit = limit;
    let_in(gate);
}

bool gate_try(struct gate *gate, uint64_t amount)
{
    if (gate_waited_for(gate) || !fits(gate, amount))
        return false;
    gate->used += amount;
    return true;
}

int gate_enter(struct gate *gate, uint64_t amount)
{
    if (gate_try(gate, amount))
        return 0;
    struct waiter waiter = { .coroutine = coroutine_self(), .amount = amount };
    list_init(&waiter.link);
    list_push_back(&gate->waiters, &waiter.link);
    while (!waiter.entered) {
        if (coroutine_park() == 0)
            continue;
        if (waiter.entered)
            gate_leave(gate, amount);
        else {
            list_remove(&waiter.link);
            let_in(gate);
        }
        return -ECANCELED;
    }
    return 0;
}

void gate_leave(struct gate *gate, uint64_t amount)
{
    assert(amount <= gate->used);
    gate->used -= amount;
    let_in(gate);
}

void gate_force(struct gate *gate, uint64_t amount)
{
    gate->used += amount;
}
