/* What must be true of the objects themselves when a run is over, whatever servers make of them. */
#ifndef CAIRN_SIM_AUDIT_H
#define CAIRN_SIM_AUDIT_H

#include "sim.h"

/* Reads every object of the run's store: keys that doc/format.md knows, registers that decode and bear their name, a
 * log without gaps whose chain holds, frames that verify, no page of zeroes stored.  Failures go to sim_fail(). */
void audit_store(struct sim *sim);

/* The process that the volume's register names as its owner; 0: there is none, or it has let go. */
uint64_t audit_owner(struct sim *sim, const char *name);

#endif
