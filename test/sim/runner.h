/* Running many simulations in child processes, so that one that aborts, leaks or hangs is a failure like any other. */
#ifndef CAIRN_SIM_RUNNER_H
#define CAIRN_SIM_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

/* One run: returns true when it kept all promises; otherwise it has told why on stderr.  `arg` as given. */
typedef bool (*runner_fn)(void *arg, uint64_t number);

struct runner_result {
    uint64_t passed, failed;
};

/* Runs fn for each number in [first, first + count) in `jobs` processes.  A failure does not end the others.
 * `progress`: tell about failures as they come; otherwise children are silent. */
struct runner_result runner_run(runner_fn fn, void *arg, uint64_t first, uint64_t count, int jobs, bool progress);

#endif
