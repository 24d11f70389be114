/* Taking turns: so many requests of a kind in flight at most, in order of arrival.
 *
 * A slot that becomes free goes to whoever has waited longest, without being
 * free in between, so nobody overtakes: `used` stays as it is, and being woken
 * means having the slot.  (A waiter that is woken and cancelled in one turn is
 * told that it was woken, see rt/wait.c; so no slot is lost.) */
#include <assert.h>

#include "store/s3_internal.h"

void s3_slots_init(struct s3_slots *slots, uint64_t limit)
{
    assert(limit > 0);
    slots->limit = limit;
    slots->used = 0;
    waitq_init(&slots->waiting);
}

int s3_slots_enter(struct s3_slots *slots, uint64_t deadline_ns)
{
    if (slots->used < slots->limit) {
        assert(waitq_empty(&slots->waiting));
        slots->used++;
        return 0;
    }
    return waitq_wait_until(&slots->waiting, deadline_ns);
}

void s3_slots_leave(struct s3_slots *slots)
{
    assert(slots->used > 0 && slots->used <= slots->limit);
    if (waitq_empty(&slots->waiting))
        slots->used--;
    else
        waitq_wake_one(&slots->waiting);
}
