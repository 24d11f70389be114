/* A watchdog: see watchdog.h.
 *
 * Invariant: while there is something to watch, the timer is set, and not for
 * later than the deadline. */
#include "nbd/watchdog.h"

#include <assert.h>

#include "base/list.h"
#include "rt/loop.h"

static void fire(struct timer *timer)
{
    struct watchdog *watchdog = container_of(timer, struct watchdog, timer);
    if (watchdog->deadline_ns == 0)
        return;
    if (loop_now_ns(timer->loop) < watchdog->deadline_ns) {
        timer_set(timer, watchdog->deadline_ns);
        return;
    }
    watchdog->deadline_ns = 0;
    watchdog->bitten = true;
    channel_shutdown(watchdog->channel);
}

void watchdog_init(struct watchdog *watchdog, struct loop *loop, struct channel *channel)
{
    *watchdog = (struct watchdog){ .channel = channel };
    timer_init(&watchdog->timer, loop, fire);
}

void watchdog_start(struct watchdog *watchdog, uint64_t duration_ns)
{
    struct timer *timer = &watchdog->timer;
    watchdog->deadline_ns = loop_now_ns(timer->loop) + duration_ns;
    if (timer->place == 0 || timer->deadline_ns > watchdog->deadline_ns)
        timer_set(timer, watchdog->deadline_ns);
    assert(timer->place != 0 && timer->deadline_ns <= watchdog->deadline_ns);
}

void watchdog_hurry(struct watchdog *watchdog, uint64_t duration_ns)
{
    uint64_t deadline_ns = loop_now_ns(watchdog->timer.loop) + duration_ns;
    if (watchdog->deadline_ns == 0 || watchdog->deadline_ns > deadline_ns)
        watchdog_start(watchdog, duration_ns);
}

uint64_t watchdog_stop(struct watchdog *watchdog)
{
    uint64_t now_ns = loop_now_ns(watchdog->timer.loop);
    uint64_t left_ns = watchdog->deadline_ns > now_ns ? watchdog->deadline_ns - now_ns : 0;
    watchdog->deadline_ns = 0;
    return left_ns;
}

void watchdog_end(struct watchdog *watchdog)
{
    watchdog->deadline_ns = 0;
    timer_cancel(&watchdog->timer);
}
