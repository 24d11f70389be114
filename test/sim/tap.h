/* A store wrapper that stands between a process's engine and the (faulty) way to the store: it counts and traces the
 * requests, crashes the process at a chosen one, and once the process has crashed lets nothing more through. */
#ifndef CAIRN_SIM_TAP_H
#define CAIRN_SIM_TAP_H

#include "node.h"

struct tap;

/* `node` owns it; it owns `inner`. */
struct tap *tap_new(struct node *node, struct store *inner);
struct store *tap_store(struct tap *tap);
/* From now on every request fails, those under way too. */
void tap_cut(struct tap *tap);
/* While set, nothing can be put: no space. */
void tap_set_full(struct tap *tap, bool full);

#endif
