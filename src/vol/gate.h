/* A gate: a limit on how much of something may be under way at once, first come first served.
 *
 * Whoever is let in counts until it leaves.  Nobody overtakes: a small request
 * does not slip past a large one that waits.  What is larger than the whole
 * limit is let in alone. */
#ifndef CAIRN_VOL_GATE_H
#define CAIRN_VOL_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "rt/coroutine.h"

struct gate {
    uint64_t limit, used;
    struct list waiters;
};

void gate_init(struct gate *gate, uint64_t limit);
/* Raising it lets in those who fit now. */
void gate_set_limit(struct gate *gate, uint64_t limit);
bool gate_try(struct gate *gate, uint64_t amount);
CO int gate_enter(struct gate *gate, uint64_t amount); /* 0 or -ECANCELED */
void gate_leave(struct gate *gate, uint64_t amount);
/* Counts `amount` whether it fits or not: for small things that cannot wait where they arise. */
void gate_force(struct gate *gate, uint64_t amount);
static inline bool gate_waited_for(const struct gate *gate)
{
    return !list_empty(&gate->waiters);
}

#endif
