/* The transmission phase: requests in, replies out. */
#ifndef CAIRN_NBD_TRANSMISSION_H
#define CAIRN_NBD_TRANSMISSION_H

#include "rt/coroutine.h"

struct connection;

/* Serves a connection whose volume is open until either side leaves; returns when nothing of it is under way. */
CO void transmission_run(struct connection *connection);

#endif
