/* The newest checkpoint of a volume, held against its log. */
#ifndef CAIRN_SIM_AUDIT_ROOT_H
#define CAIRN_SIM_AUDIT_ROOT_H

#include "sim.h"
#include "vol/format/format.h"

/* What the register's newest root says must be what the log says up to its entry: the same pages at the same places,
 * the same objects with the same counts.  Breaks the run where it is not so. */
void audit_root(struct sim *sim, struct store *store, const struct register_body *body);

#endif
