/* A watchdog: see watchdog.h.
 *
 * Invariant: while there is something to watch, the timer is set, and not for
 * later than the deadline.  While others wait for what the watched one holds a
 * shorter deadline counts; whether they do is looked at when that one has
 * passed, and from then on every few seconds. */
#include "nbd/watchdog.h"

#include <assert.h>

#include "base/list.h"
#include "rt/loop.h"

/* Past the deadline for when others wait, they may begin to at any time. */
#define LOOK_AGAIN_NS (5 * NS_PER_S)

static uint64_t next_look(const struct watchdog *watchdog, uint64_t now_ns)
{
    uint64_t look_ns = watchdog->pressed_deadline_ns > now_ns ? watchdog->pressed_deadline_ns : now_ns + LOOK_AGAIN_NS;
    return look_ns < watchdog->deadline_ns ? look_ns : watchdog->deadline_ns;
}

static void fire(struct timer *timer)
{
    struct watchdog *watchdog = container_of(timer, struct watchdog, timer);
    if (watchdog->deadline_ns == 0)
        return;
    uint64_t now_ns = loop_now_ns(timer->loop);
    bool pressed = now_ns >= watchdog->pressed_deadline_ns && watchdog->pressed(watchdog->arg);
    if (now_ns < watchdog->deadline_ns && !pressed) {
        timer_set(timer, next_look(watchdog, now_ns));
        return;
    }
    watchdog->deadline_ns = 0;
    watchdog->bitten = true;
    channel_shutdown(watchdog->channel);
}

void watchdog_init(struct watchdog *watchdog, struct loop *loop, struct channel *channel,
                   bool (*pressed)(const void *arg), const void *arg)
{
    *watchdog = (struct watchdog){ .channel = channel, .pressed = pressed, .arg = arg };
    timer_init(&watchdog->timer, loop, fire);
}

void watchdog_start(struct watchdog *watchdog, uint64_t duration_ns, uint64_t pressed_ns)
{
    struct timer *timer = &watchdog->timer;
    uint64_t now_ns = loop_now_ns(timer->loop);
    watchdog->deadline_ns = now_ns + duration_ns;
    watchdog->pressed_deadline_ns = now_ns + pressed_ns;
    uint64_t look_ns = next_look(watchdog, now_ns);
    if (timer->place == 0 || timer->deadline_ns > look_ns)
        timer_set(timer, look_ns);
    assert(timer->place != 0 && timer->deadline_ns <= watchdog->deadline_ns);
}

void watchdog_extend(struct watchdog *watchdog, uint64_t more_ns)
{
    watchdog->deadline_ns += more_ns;
    watchdog->pressed_deadline_ns += more_ns;
}

void watchdog_hurry(struct watchdog *watchdog, uint64_t duration_ns)
{
    uint64_t deadline_ns = loop_now_ns(watchdog->timer.loop) + duration_ns;
    if (watchdog->deadline_ns == 0 || watchdog->deadline_ns > deadline_ns)
        watchdog_start(watchdog, duration_ns, duration_ns);
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
