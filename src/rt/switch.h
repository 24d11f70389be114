/* Exchanging one stack for another: the only place that knows how.
 *
 * A context is a stack that rests: where its registers are kept.  It is made by
 * switch_prepare(), or by leaving a running stack with switch_to().  The switch
 * itself keeps what the platform's calling convention says a function must
 * keep, and nothing else: no signal mask, no floating-point control words
 * (nobody here changes either). */
#ifndef CAIRN_RT_SWITCH_H
#define CAIRN_RT_SWITCH_H

#include <stddef.h>

/* The portable form costs a system call or two per switch; it can be asked for, to test it. */
#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(CAIRN_SWITCH_UCONTEXT)
#define CAIRN_SWITCH_UCONTEXT
#endif

#ifdef CAIRN_SWITCH_UCONTEXT
#include <ucontext.h>
struct switch_context {
    ucontext_t registers;
};
#else
struct switch_context {
    void *stack_pointer;
};
#endif

/* Makes a context that, when first switched to, calls entry(arg) on the stack [low, low + size).
 * `entry` must never return. */
void switch_prepare(struct switch_context *context, void *low, size_t size, void (*entry)(void *arg), void *arg);

/* Rests the running stack in `from` and goes on where `to` rested. */
void switch_to(struct switch_context *from, struct switch_context *to);

#endif
