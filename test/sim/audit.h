/* What must be true of the objects themselves when a run is over, whatever servers make of them. */
#ifndef CAIRN_SIM_AUDIT_H
#define CAIRN_SIM_AUDIT_H

#include "sim.h"
#include "vol/format/format.h"

/* Reads every object of the run's store: keys that doc/format.md knows, registers that decode and bear their name, a
 * log without gaps whose chain holds, frames that verify, no page of zeroes stored.  Failures go to sim_fail(). */
void audit_store(struct sim *sim);

/* What the volume's register says of its owner: false when there is none. */
struct audit_ownership {
    uint64_t process; /* 0: it has let go */
    uint64_t epoch;
    struct uuid uuid; /* of the volume */
};
bool audit_ownership(struct sim *sim, const char *name, struct audit_ownership *ret_ownership);

/* Holds the newest checkpoint of the disk against its log. */
void audit_checkpoint(struct sim *sim, const char *name);

#endif
