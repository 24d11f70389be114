/* Exchanging one stack for another: see rt/switch.h.
 *
 * x86-64 and aarch64 have a few lines of assembly each: push what a callee must
 * keep, exchange the stack pointer, pop, jump.  Leaving by a jump rather than a
 * return on x86-64 spares the processor's prediction of returns, which would be
 * wrong every time.
 *
 * A prepared stack looks as if it had been left by a switch just in front of
 * cairn_switch_start, with entry and argument in two of the kept registers.
 * The first frame's return address is marked undefined, so that debuggers and
 * sanitizers see the stack end there.
 *
 * Nothing here can fail: an entry that returns runs into a trap. */
#include "rt/switch.h"

#include <assert.h>
#include <stdint.h>

#ifdef CAIRN_SWITCH_UCONTEXT

#include <stdlib.h>

/* makecontext() hands on ints only: both pointers go in halves. */
static void start(unsigned entry_high, unsigned entry_low, unsigned arg_high, unsigned arg_low)
{
    void (*entry)(void *) = (void (*)(void *))(uintptr_t)((uint64_t)entry_high << 32 | entry_low);
    entry((void *)(uintptr_t)((uint64_t)arg_high << 32 | arg_low));
    abort();
}

void switch_prepare(struct switch_context *context, void *low, size_t size, void (*entry)(void *arg), void *arg)
{
    uint64_t entry_bits = (uintptr_t)entry, arg_bits = (uintptr_t)arg;
    int result = getcontext(&context->registers);
    assert(result == 0);
    (void)result;
    context->registers.uc_stack.ss_sp = low;
    context->registers.uc_stack.ss_size = size;
    context->registers.uc_link = NULL;
    makecontext(&context->registers, (void (*)(void))start, 4, (unsigned)(entry_bits >> 32), (unsigned)entry_bits,
                (unsigned)(arg_bits >> 32), (unsigned)arg_bits);
}

void switch_to(struct switch_context *from, struct switch_context *to)
{
    int result = swapcontext(&from->registers, &to->registers);
    assert(result == 0);
    (void)result;
}

#else

void cairn_switch_swap(void **ret_stack_pointer, void *stack_pointer);
void cairn_switch_start(void);

#if defined(__x86_64__)

__asm__(".text\n"
        ".p2align 4\n"
        ".globl cairn_switch_swap\n"
        ".hidden cairn_switch_swap\n"
        ".type cairn_switch_swap, @function\n"
        "cairn_switch_swap:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmpq *%rcx\n"
        ".size cairn_switch_swap, . - cairn_switch_swap\n"
        ".p2align 4\n"
        ".globl cairn_switch_start\n"
        ".hidden cairn_switch_start\n"
        ".type cairn_switch_start, @function\n"
        "cairn_switch_start:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n"
        "    movq %r13, %rdi\n"
        "    callq *%r12\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size cairn_switch_start, . - cairn_switch_start\n");

/* Words on the resting stack, lowest first. */
enum { KEPT_R15, KEPT_R14, KEPT_R13, KEPT_R12, KEPT_RBX, KEPT_RBP, KEPT_RETURN, KEPT_WORDS };
#define KEPT_ENTRY KEPT_R12
#define KEPT_ARG KEPT_R13

#elif defined(__aarch64__)

__asm__(".text\n"
        ".p2align 4\n"
        ".globl cairn_switch_swap\n"
        ".hidden cairn_switch_swap\n"
        ".type cairn_switch_swap, %function\n"
        "cairn_switch_swap:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x2, sp\n"
        "    str x2, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size cairn_switch_swap, . - cairn_switch_swap\n"
        ".p2align 4\n"
        ".globl cairn_switch_start\n"
        ".hidden cairn_switch_start\n"
        ".type cairn_switch_start, %function\n"
        "cairn_switch_start:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined x30\n"
        "    mov x0, x20\n"
        "    blr x19\n"
        "    brk #1\n"
        "    .cfi_endproc\n"
        ".size cairn_switch_start, . - cairn_switch_start\n");

enum { KEPT_ENTRY = 0, KEPT_ARG = 1, KEPT_RETURN = 11, KEPT_WORDS = 20 };

#endif

void switch_prepare(struct switch_context *context, void *low, size_t size, void (*entry)(void *arg), void *arg)
{
    /* Both conventions want 16-byte alignment where cairn_switch_start calls. */
    uintptr_t top = ((uintptr_t)low + size) & ~(uintptr_t)15;
    uintptr_t *words = (uintptr_t *)top - 2 - KEPT_WORDS;
    assert((uintptr_t)words > (uintptr_t)low);
    for (int i = 0; i < KEPT_WORDS + 2; i++)
        words[i] = 0;
    words[KEPT_ENTRY] = (uintptr_t)entry;
    words[KEPT_ARG] = (uintptr_t)arg;
    words[KEPT_RETURN] = (uintptr_t)cairn_switch_start;
    context->stack_pointer = words;
}

void switch_to(struct switch_context *from, struct switch_context *to)
{
    cairn_switch_swap(&from->stack_pointer, to->stack_pointer);
}

#endif
