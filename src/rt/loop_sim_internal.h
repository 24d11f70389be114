/* What the simulator's channels need of its loop. */
#ifndef CAIRN_RT_LOOP_SIM_INTERNAL_H
#define CAIRN_RT_LOOP_SIM_INTERNAL_H

#include "rt/loop_sim.h"

/* Runs fn(arg) as an event of that node: held while it is paused; when the node is freed before,
 * drop(arg) is called instead. */
void loop_sim_after(struct loop *node, uint64_t delay_ns, void (*fn)(void *arg), void (*drop)(void *arg), void *arg);

#endif
