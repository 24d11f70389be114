/* A watchdog: shuts a channel down when something takes too long.
 *
 * It is started and stopped around every send and every payload, so starting
 * it is a store: the timer underneath stays set from one watch to the next and
 * is moved only when it fires too early. */
#ifndef CAIRN_NBD_WATCHDOG_H
#define CAIRN_NBD_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/channel.h"
#include "rt/timer.h"

struct watchdog {
    struct timer timer;
    struct channel *channel;
    uint64_t deadline_ns;         /* 0: nothing to watch */
    uint64_t pressed_deadline_ns; /* the deadline while `pressed` says that others wait for what this one holds */
    bool (*pressed)(const void *arg);
    const void *arg;
    bool bitten;
};

void watchdog_init(struct watchdog *watchdog, struct loop *loop, struct channel *channel,
                   bool (*pressed)(const void *arg), const void *arg);
/* The channel is shut down when `duration_ns` have passed, unless the watch is stopped or started anew before; while
 * `pressed` is true, after `pressed_ns` already. */
void watchdog_start(struct watchdog *watchdog, uint64_t duration_ns, uint64_t pressed_ns);
/* There was progress: that much more time, pressed or not. */
void watchdog_extend(struct watchdog *watchdog, uint64_t more_ns);
/* As watchdog_start, but never later than what is being watched for already. */
void watchdog_hurry(struct watchdog *watchdog, uint64_t duration_ns);
/* What was left of the duration. */
uint64_t watchdog_stop(struct watchdog *watchdog);
void watchdog_end(struct watchdog *watchdog); /* before its memory or its channel goes */

#endif
