/* How large the next object is while somebody waits for all of them.  Inside the engine only. */
#ifndef CAIRN_VOL_SHARE_H
#define CAIRN_VOL_SHARE_H

#include <stdint.h>

/* `streams` objects are sent at a time; `under_way`: pages that each of the `count` that were begun has yet to send, in
 * the order of their turns, more than `streams` only when some still wait for theirs; `waiting`: pages that no object
 * has yet, at least 1. Returns how many of these the next object takes, so that all streams end at the same time: 1 to
 * `waiting`, not less than half of `least` where there are as many, and at most `most`; 1 <= least <= most. */
uint32_t share_next(const uint64_t *under_way, uint32_t count, uint32_t streams, uint64_t waiting, uint32_t least,
                    uint32_t most);

#endif
