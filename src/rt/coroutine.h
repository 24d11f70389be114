/* Stackful coroutines: code that waits, written straight on.
 *
 * A coroutine belongs to one loop (rt/loop.h) and never leaves its thread.  It
 * runs until it parks; whoever can tell that it may go on wakes it, which puts
 * it at the end of its loop's ready queue.  Ready coroutines are entered from
 * the loop's own stack only, never from inside a callback of a library.
 *
 * Functions that may park carry the mark CO; nothing that another task may
 * change may be assumed across a call of one.
 *
 * Cancelling a coroutine (through its task, rt/task.h) makes the park it is in,
 * and each later one, return -ECANCELED at once.
 */
#ifndef CAIRN_RT_COROUTINE_H
#define CAIRN_RT_COROUTINE_H

#include <stdbool.h>
#include <stddef.h>

#define CO /* may park */

struct coroutine;
struct loop;

/* The coroutine that runs now; NULL on a loop's own stack. */
struct coroutine *coroutine_self(void);
struct loop *coroutine_loop(struct coroutine *coroutine);

/* Waits for coroutine_wake().  A wake that came first is not lost: the next park returns at once.
 * Wakes may be spurious: callers loop on their condition.  0, or -ECANCELED. */
CO int coroutine_park(void);

/* For waits that must see their end, because somebody else (a worker thread) still uses memory of
 * ours: a cancel does not end it.  Callers loop on their condition here too. */
CO void coroutine_park_shielded(void);

/* Makes `coroutine` ready; harmless when it is. From the same thread only. */
void coroutine_wake(struct coroutine *coroutine);

/* Lets every other ready coroutine, and the loop's events, run first.  0, or -ECANCELED. */
CO int coroutine_yield(void);

bool coroutine_cancelled(void); /* of the running one */

#endif
