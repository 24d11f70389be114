/* An accident at every store request of a short run, at each of its moments, with each kind of successor. */
#ifndef CAIRN_SIM_CRASH_POINTS_H
#define CAIRN_SIM_CRASH_POINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "runner.h"

struct runner_result crash_points_run(int jobs);
/* Each of them with a second crash at each of the next store requests: takes minutes. */
struct runner_result crash_pairs_run(int jobs);
/* One of them again, by the number that its failure told. */
bool crash_points_one(uint64_t point, bool verbose);

#endif
