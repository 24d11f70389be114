/* Deliberate bugs in the engine (base/mutant.h), each of which the simulator must catch. */
#ifndef CAIRN_SIM_MUTANTS_H
#define CAIRN_SIM_MUTANTS_H

#include "runner.h"

/* `file`: lines "name seed what it breaks"; seed 0: none is known.  `only`: one name, or NULL.  Where the recorded seed
 * does not catch it, the first `search` seeds are tried, and the one that does is printed. */
struct runner_result mutants_run(const char *file, const char *only, uint64_t search, int jobs);
/* One run with a mutant active, to see how it breaks; returns whether all promises were kept nevertheless. */
bool mutant_seed(const char *name, uint64_t seed, bool verbose);

#endif
