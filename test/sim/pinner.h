/* Somebody who is no server and writes registers too: pins states of disks, and lets go of them later, with one
 * compare-and-swap each and by the rules for that. */
#ifndef CAIRN_SIM_PINNER_H
#define CAIRN_SIM_PINNER_H

#include "sim.h"
#include "store/fault.h"

struct pinner;

/* Up to `pause_ns` between two changes. */
struct pinner *pinner_start(struct sim *sim, const struct fault_settings *faults, uint64_t pause_ns);
/* Its way to the store has no faults any more. */
void pinner_heal(struct pinner *pinner);
/* Comes to the end of what it is doing, and holds what it believes to have pinned against the registers. */
CO void pinner_finish(struct pinner *pinner);
/* After that; NULL is fine. */
void pinner_free(struct pinner *pinner);

#endif
