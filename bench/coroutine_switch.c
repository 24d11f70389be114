/* What a switch between stacks costs, and a task from spawn to end, beside swapcontext() of the C library.
 *
 * Everything is measured in processor time, in one run, several times in turn, and the median is printed: compare the
 * rows with each other, not with those of another machine. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

#include "base/error.h"
#include "rt/loop.h"
#include "rt/switch.h"
#include "rt/task.h"

#define ROUNDS 9
#define SWITCHES 2000000
#define SLOW_SWITCHES 200000
#define SPAWNS 500000
#define STACK_BYTES 65536

enum { BARE, CONTEXT, YIELD, SPAWN, KINDS };

static const char *const labels[KINDS] = {
    [BARE] = "bare switch of stacks",
    [CONTEXT] = "swapcontext()",
    [YIELD] = "park and wake through the ready queue",
    [SPAWN] = "spawn, run and end of a task",
};

static double results[KINDS][ROUNDS];

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static struct switch_context bare_main, bare_other;
static ucontext_t context_main, context_other;
static char bare_stack[STACK_BYTES], context_stack[STACK_BYTES];

static void bare_loop(void *arg)
{
    for (;;)
        switch_to(&bare_other, &bare_main);
}

static void context_loop(void)
{
    for (;;)
        swapcontext(&context_other, &context_main);
}

static double measure_bare(void)
{
    switch_prepare(&bare_other, bare_stack, sizeof bare_stack, bare_loop, NULL);
    double start = now_ns();
    for (int i = 0; i < SWITCHES / 2; i++)
        switch_to(&bare_main, &bare_other);
    return (now_ns() - start) / SWITCHES;
}

static double measure_context(void)
{
    getcontext(&context_other);
    context_other.uc_stack.ss_sp = context_stack;
    context_other.uc_stack.ss_size = sizeof context_stack;
    makecontext(&context_other, context_loop, 0);
    double start = now_ns();
    for (int i = 0; i < SLOW_SWITCHES / 2; i++)
        swapcontext(&context_main, &context_other);
    return (now_ns() - start) / SLOW_SWITCHES;
}

static struct coroutine *players[2];
static bool over;

static void plays(void *arg)
{
    int self = (int)(intptr_t)arg;
    players[self] = coroutine_self();
    if (players[1 - self] == NULL)
        coroutine_park();
    for (int i = 0; i < SWITCHES / 4; i++) {
        coroutine_wake(players[1 - self]);
        coroutine_park();
    }
    if (!over)
        coroutine_wake(players[1 - self]);
    over = true;
}

/* Each park and wake is two switches: to the loop's own stack and on. */
static double measure_yield(struct loop *loop)
{
    struct group group;
    group_init(&group, loop);
    players[0] = players[1] = NULL;
    over = false;
    group_spawn(&group, "plays", plays, (void *)0);
    group_spawn(&group, "plays", plays, (void *)1);
    double start = now_ns();
    group_join(&group);
    return (now_ns() - start) / (SWITCHES / 2);
}

static void ends(void *arg)
{
    ++*(int *)arg;
}

static double measure_spawn(struct loop *loop)
{
    struct group group;
    group_init(&group, loop);
    int ended = 0;
    double start = now_ns();
    for (int i = 0; i < SPAWNS / 32; i++) {
        for (int j = 0; j < 32; j++)
            group_spawn(&group, "ends", ends, &ended);
        group_join(&group);
    }
    return (now_ns() - start) / ended;
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void measure(void *arg)
{
    struct loop *loop = arg;
    for (int round = 0; round < ROUNDS; round++) {
        results[BARE][round] = measure_bare();
        results[CONTEXT][round] = measure_context();
        results[YIELD][round] = measure_yield(loop);
        results[SPAWN][round] = measure_spawn(loop);
    }
    loop_stop(loop);
}

int main(void)
{
    struct loop *loop;
    struct error error = ERROR_NONE;
    if (loop_uv_new(&loop, &error) != 0) {
        fprintf(stderr, "coroutine-switch: %s\n", error.story);
        return 1;
    }
    struct group group;
    group_init(&group, loop);
    group_spawn(&group, "measure", measure, loop);
    loop_run(loop);
    loop_free(loop);
    printf("%-40s %8s\n", "", "ns each");
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(results[kind], ROUNDS, sizeof results[kind][0], compare);
        printf("%-40s %8.1f\n", labels[kind], results[kind][ROUNDS / 2]);
    }
    return 0;
}
