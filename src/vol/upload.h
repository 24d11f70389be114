/* Uploading sealed batches as data objects. Inside the engine only. */
#ifndef CAIRN_VOL_UPLOAD_H
#define CAIRN_VOL_UPLOAD_H

#include <stdbool.h>

struct batch;
struct volume;

/* Whether a sealed batch goes into a data object of its own rather than inline. */
bool upload_wanted(const struct volume *volume, const struct batch *batch);

/* Starts uploads, oldest batch first, as many as may be under way. Sealed batches that a FLUSH waits for are cut and
 * joined for that: no pointer to one is good after it. */
void upload_start(struct volume *volume);

#endif
