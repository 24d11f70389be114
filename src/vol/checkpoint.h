/* Checkpoints: a complete state of the volume, so that the log need not be read from its beginning.  Inside the engine
 * only; vol/checkpoint.c tells the story. */
#ifndef CAIRN_VOL_CHECKPOINT_H
#define CAIRN_VOL_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/coroutine.h"

struct checkpoint;
struct error;
struct root;
struct root_frame;
struct volume;

struct checkpoint *checkpoint_new(struct volume *volume);
/* Its tasks have ended. Must come before the object table is freed. */
void checkpoint_free(struct checkpoint *checkpoint);

/* The volume was opened from this root: what it names is what the next one may name again.  All its rows are in the
 * object table.  packed: not each of its chunks has only rows of the CHUNK_IDS ids that it begins. */
void checkpoint_opened_from(struct volume *volume, const struct root *root, const struct root_frame *frame,
                            bool packed);

/* Begins one if it is time.  Never parks.  No commit may be frozen or in flight. */
void checkpoint_begin_if_due(struct volume *volume);
bool checkpoint_is_under_way(const struct volume *volume);
/* One could begin as soon as no commit is in flight, and would have something to write. */
bool checkpoint_is_possible(const struct volume *volume);
/* Asks for one, if it is possible, though it is not time yet. */
void checkpoint_want(struct volume *volume);
/* One is under way and gets on, or has been asked for. */
bool checkpoint_is_coming(const struct volume *volume);
/* Commits must wait for the one under way. */
bool checkpoint_lags(const struct volume *volume);
/* Before the volume is given back: takes one if the log since the root is longer than a few entries, as far as that
 * works out within a fair time.  The log has everything, so nothing is lost if it does not. */
CO void checkpoint_settle(struct volume *volume);

/* Frames of an object that the checkpoint under way has laid out, and that is not in the store for certain yet: copies
 * them from memory.  false: it is not such an object. */
bool checkpoint_copy_frames(const struct volume *volume, uint64_t id, uint32_t start, uint32_t units, uint8_t *bytes);

/* How many attempts for checkpoints have failed, and the last such error: code 0 since one has succeeded. */
uint64_t checkpoint_trouble(const struct volume *volume, const struct error **ret_error);
/* Uploads that wait before they try again do so now. */
void checkpoint_hurry(struct volume *volume);

#endif
