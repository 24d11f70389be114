/* Inside the engine only: see flush.c. */
#ifndef CAIRN_VOL_FLUSH_H
#define CAIRN_VOL_FLUSH_H

#include <stdint.h>

struct error;
struct volume;

/* volume_flush() with a deadline of its own. */
int flush_until(struct volume *volume, uint64_t deadline_ns, struct error *error);

#endif
