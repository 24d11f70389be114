/* See runner.h.
 *
 * Each child takes every jobs-th number and notes in shared memory where it is.
 * A run that fails leaves a world that cannot be cleaned up, so its child ends
 * and another one goes on behind it; a child that dies by a signal (a failed
 * assertion, the timer that tells a real hang) is the same. */
#include "runner.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* Processor time for one run, which never waits for anything.  It takes some tens of milliseconds, under the sanitizers
 * some hundreds. */
#define HANG_SECONDS 60

#define JOBS_MAX 64
#define CHILD_FAILED 1

struct lane {
    pid_t child;
    uint64_t next; /* the number that runs now, or will next */
    uint64_t passed, failed;
};

struct runner {
    runner_fn fn;
    void *arg;
    uint64_t past;
    int jobs;
    bool progress;
    struct lane *lanes; /* shared with the children */
};

static void watch_for_hang(time_t seconds)
{
    setitimer(ITIMER_PROF, &(struct itimerval){ .it_value = { .tv_sec = seconds } }, NULL);
}

static void run_child(const struct runner *runner, struct lane *lane)
{
    if (!runner->progress && (freopen("/dev/null", "w", stderr) == NULL || freopen("/dev/null", "w", stdout) == NULL))
        exit(CHILD_FAILED);
    while (lane->next < runner->past) {
        watch_for_hang(HANG_SECONDS);
        if (!runner->fn(runner->arg, lane->next)) {
            fflush(stderr);
            _exit(CHILD_FAILED);
        }
        lane->passed++;
        lane->next += (uint64_t)runner->jobs;
    }
    watch_for_hang(0);
    exit(0); /* the leak checker has its say */
}

static void start_lane(const struct runner *runner, struct lane *lane)
{
    fflush(stdout);
    fflush(stderr);
    pid_t child = fork();
    if (child == 0)
        run_child(runner, lane);
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    lane->child = child; /* here alone: the child shares this memory */
}

/* A child ended: 0 when its lane is through, else it must be started again. */
static bool lane_ended(const struct runner *runner, struct lane *lane, int status)
{
    lane->child = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    if (runner->progress && WIFSIGNALED(status))
        fprintf(stderr, "number %" PRIu64 ": killed by signal %d (%s)\n", lane->next, WTERMSIG(status),
                WTERMSIG(status) == SIGPROF ? "a real hang" : strsignal(WTERMSIG(status)));
    else if (runner->progress)
        fprintf(stderr, "number %" PRIu64 ": failed (exit status %d)\n", lane->next, WEXITSTATUS(status));
    lane->failed++;
    lane->next += (uint64_t)runner->jobs;
    return lane->next < runner->past;
}

struct runner_result runner_run(runner_fn fn, void *arg, uint64_t first, uint64_t count, int jobs, bool progress)
{
    struct runner runner = { .fn = fn, .arg = arg, .past = first + count, .progress = progress };
    struct runner_result result = { .passed = 0 };
    runner.jobs = jobs < 1 ? 1 : jobs > JOBS_MAX ? JOBS_MAX : jobs;
    runner.lanes =
        mmap(NULL, sizeof(struct lane) * JOBS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (runner.lanes == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    int running = 0;
    for (int i = 0; i < runner.jobs && first + (uint64_t)i < runner.past; i++, running++) {
        runner.lanes[i].next = first + (uint64_t)i;
        start_lane(&runner, &runner.lanes[i]);
    }
    while (running > 0) {
        int status;
        pid_t child = wait(&status);
        for (int i = 0; i < runner.jobs && child > 0; i++) {
            if (runner.lanes[i].child != child)
                continue;
            if (lane_ended(&runner, &runner.lanes[i], status))
                start_lane(&runner, &runner.lanes[i]);
            else
                running--;
        }
    }
    for (int i = 0; i < runner.jobs; i++) {
        result.passed += runner.lanes[i].passed;
        result.failed += runner.lanes[i].failed;
    }
    munmap(runner.lanes, sizeof(struct lane) * JOBS_MAX);
    return result;
}
