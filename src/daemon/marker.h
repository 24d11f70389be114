/* The store is ours: the object `cairn` says so. */
#ifndef CAIRN_DAEMON_MARKER_H
#define CAIRN_DAEMON_MARKER_H

#include <stdbool.h>

#include "rt/coroutine.h"

struct error;
struct loop;
struct store;

/* *ret_ours: the marker is there, and right; otherwise the store is empty.  Refused: a store that holds something and
 * no marker, one with a damaged marker, one of a newer format. */
CO int marker_check(struct store *store, bool *ret_ours, struct error *error);
/* Marks an empty store; what another server has made meanwhile is as good. */
CO int marker_make(struct loop *loop, struct store *store, struct error *error);

#endif
