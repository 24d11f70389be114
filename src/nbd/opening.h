/* Opening the volume that a client has named, which may take long when another server owns it. */
#ifndef CAIRN_NBD_OPENING_H
#define CAIRN_NBD_OPENING_H

#include <stdint.h>

#include "rt/coroutine.h"

struct connection;
struct error;
struct opening;
struct volume;

/* As volumes_acquire(); but the wait ends when the client hangs up, with -EPIPE, and when the service is drained, with
 * -ESHUTDOWN. */
CO int opening_run(struct connection *connection, uint64_t create_size, struct volume **ret_volume,
                   struct error *error);
/* The service is being drained. */
void opening_end(struct opening *opening);

#endif
