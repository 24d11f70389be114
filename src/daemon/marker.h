/* The store is ours: the object `cairn` says so. */
#ifndef CAIRN_DAEMON_MARKER_H
#define CAIRN_DAEMON_MARKER_H

#include <stdbool.h>

#include "rt/coroutine.h"

struct error;
struct loop;
struct store;

/* Checks the marker; with `create`, an empty store gets one.  Refused: a store that holds something and no marker,
 * one with a damaged marker, one of a newer format. */
CO int marker_check(struct loop *loop, struct store *store, bool create, struct error *error);

#endif
