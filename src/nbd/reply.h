/* Replies: put together as requests complete, sent in batches. */
#ifndef CAIRN_NBD_REPLY_H
#define CAIRN_NBD_REPLY_H

#include "nbd/request.h"

struct connection;
struct error;

/* Both queue the reply; the request belongs to the sender from then on. */
void reply_success(struct request *request); /* a READ's data is complete */
void reply_error(struct request *request, int code, const struct error *error);

/* Sends replies as they are queued, until the reader has ended and nothing is in flight, or the peer takes no more
 * (-errno).  Runs in the connection's first coroutine. */
CO int reply_send_all(struct connection *connection);
/* Something that reply_send_all() waits for has changed. */
void reply_wake_sender(struct connection *connection);
/* From now on replies are dropped; those that are queued too. */
void reply_break(struct connection *connection);

#endif
