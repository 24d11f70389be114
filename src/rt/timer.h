/* Timers of a loop: a callback on the loop's own stack at or after a moment.
 *
 * All timers of a loop stand in one heap (rt/timer.c), whatever drives the
 * loop; the real and the simulated loop only ask it for the next deadline. */
#ifndef CAIRN_RT_TIMER_H
#define CAIRN_RT_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;

struct timer {
    struct loop *loop;
    void (*fire)(struct timer *timer);
    uint64_t deadline_ns;
    size_t place; /* in the heap, 1-based; 0: not set */
};

void timer_init(struct timer *timer, struct loop *loop, void (*fire)(struct timer *timer));
/* Sets or moves it.  It fires once, no earlier than loop_now_ns() == deadline_ns. */
void timer_set(struct timer *timer, uint64_t deadline_ns);
void timer_cancel(struct timer *timer); /* harmless when not set; needed before its memory goes */

#endif
