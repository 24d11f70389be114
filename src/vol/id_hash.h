/* A hash table from 64-bit numbers that do not recur to 32-bit indexes.
 *
 * Open addressing with linear probing, at most three quarters full; what is
 * taken out closes its gap, so that there are no marks of what once was, and
 * the table shrinks with its content.  A zeroed struct is an empty table. */
#ifndef CAIRN_VOL_ID_HASH_H
#define CAIRN_VOL_ID_HASH_H

#include <stdint.h>

#define ID_HASH_NONE UINT32_MAX /* no index */

struct id_hash {
    uint64_t *keys;
    uint32_t *indexes; /* ID_HASH_NONE: an empty place */
    uint32_t count, capacity;
};

uint32_t id_hash_find(const struct id_hash *hash, uint64_t key);
void id_hash_add(struct id_hash *hash, uint64_t key, uint32_t index); /* a key that is not there */
void id_hash_remove(struct id_hash *hash, uint64_t key);              /* one that is */
void id_hash_free(struct id_hash *hash);
uint64_t id_hash_bytes(const struct id_hash *hash);

#endif
