/* What a client's older connections had received comes before the requests of its newest.
 *
 * A client that lost its connection comes back with another.  A WRITE that the
 * old one had sent, and that was never answered, is sent again on the new one,
 * or followed by another WRITE to the same place; it must not be carried out
 * after that. */
#ifndef CAIRN_NBD_ELDERS_H
#define CAIRN_NBD_ELDERS_H

#include "base/list.h"
#include "rt/coroutine.h"

struct connection;
struct request;

/* The connection has joined its export: notes what older ones of the same client have received by now. */
void elders_note(struct connection *connection);
/* Parks until the changes among it are made, or have come to nothing; before the first request is looked at.
 * -ECANCELED. */
CO int elders_await(struct connection *connection);

/* A change of the disk that is not made at once: from its beginning to its end it stands in its connection's list. */
void elders_change_begins(struct request *request);
void elders_change_ends(struct request *request); /* made, or never to be made; harmless when it did not begin */

/* The connection has looked at more of what it received, or takes no more: those who wait for it may go on. */
void elders_progress(struct connection *connection);
/* It ends: it waits for nobody, and nobody for it. */
void elders_leave(struct connection *connection);

#endif
