/* The event loop: clock, timers, randomness, blocking work; real or simulated.
 *
 * A turn: wait for events or the next timer (real: libuv; simulated: virtual
 * time jumps), fire the timers that are due, then enter every coroutine that
 * became ready, until none is.  Everything above rt/ sees the world through
 * this, rt/channel.h and store/store.h, so that whole servers run in the
 * simulator unchanged.
 *
 * A loop is used from its own thread only, loop_post() excepted. */
#ifndef CAIRN_RT_LOOP_H
#define CAIRN_RT_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rt/coroutine.h"

struct loop;
struct error;

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* The loop whose turn this is, on this thread (also inside its coroutines); NULL outside. */
struct loop *loop_current(void);

/* Monotonic, from an arbitrary start; one value for a whole turn is allowed (cheap: no system call). */
uint64_t loop_now_ns(struct loop *loop);
/* Goes on while the host is suspended (CLOCK_BOOTTIME); read afresh each time. */
uint64_t loop_boottime_ns(struct loop *loop);
/* Since 1970 (CLOCK_REALTIME); may jump. */
uint64_t loop_wall_ns(struct loop *loop);

/* Fills `bytes`: from the kernel, or from the simulation's seed. */
void loop_random(struct loop *loop, void *bytes, size_t length);
uint64_t loop_random_u64(struct loop *loop);

/* Runs fn(arg) where it may block (a pool of threads; inline after a while in the simulation) and
 * parks until it has returned.  Not cut short by a cancel. */
CO void loop_work(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on the loop's own stack, on its thread, soon.  From any thread; arrives in order.
 * What has not run when the loop is freed never does. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* ---- the real one (rt/loop_uv.c) ---- */

int loop_uv_new(struct loop **ret_loop, struct error *error);
/* Until loop_stop(); returns on the loop's own stack with no coroutine ready. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* No coroutine, timer, channel or listener of it may be left. */
void loop_free(struct loop *loop);

/* Calls fn(arg, signal) on the loop's own stack for each of SIGTERM, SIGINT, SIGUSR1, …; until loop_free(). */
int loop_on_signal(struct loop *loop, int signal, void (*fn)(void *arg, int signal), void *arg, struct error *error);

#endif
