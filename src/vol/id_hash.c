/* See id_hash.h. */
#include "vol/id_hash.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"

#define CAPACITY_MIN 16u

static uint32_t home_of(const struct id_hash *hash, uint64_t key)
{
    return (uint32_t)hash_u64(key) & (hash->capacity - 1);
}

static uint32_t after(const struct id_hash *hash, uint32_t place)
{
    return (place + 1) & (hash->capacity - 1);
}

/* Where `key` is, or the empty place where it would go. */
static uint32_t place_of(const struct id_hash *hash, uint64_t key)
{
    uint32_t place = home_of(hash, key);
    while (hash->indexes[place] != ID_HASH_NONE && hash->keys[place] != key)
        place = after(hash, place);
    return place;
}

static void resize(struct id_hash *hash, uint32_t capacity)
{
    struct id_hash old = *hash;
    hash->capacity = capacity;
    hash->keys = memory_array(capacity, sizeof *hash->keys);
    hash->indexes = memory_array(capacity, sizeof *hash->indexes);
    for (uint32_t i = 0; i < capacity; i++)
        hash->indexes[i] = ID_HASH_NONE;
    for (uint32_t i = 0; i < old.capacity; i++) {
        if (old.indexes[i] == ID_HASH_NONE)
            continue;
        uint32_t place = place_of(hash, old.keys[i]);
        hash->keys[place] = old.keys[i];
        hash->indexes[place] = old.indexes[i];
    }
    free(old.keys);
    free(old.indexes);
}

uint32_t id_hash_find(const struct id_hash *hash, uint64_t key)
{
    return hash->count == 0 ? ID_HASH_NONE : hash->indexes[place_of(hash, key)];
}

void id_hash_add(struct id_hash *hash, uint64_t key, uint32_t index)
{
    assert(index != ID_HASH_NONE);
    if ((uint64_t)hash->count * 4 >= (uint64_t)hash->capacity * 3)
        resize(hash, hash->capacity == 0 ? CAPACITY_MIN : hash->capacity * 2);
    uint32_t place = place_of(hash, key);
    assert(hash->indexes[place] == ID_HASH_NONE);
    hash->keys[place] = key;
    hash->indexes[place] = index;
    hash->count++;
}

void id_hash_remove(struct id_hash *hash, uint64_t key)
{
    assert(hash->count > 0);
    uint32_t gap = place_of(hash, key);
    assert(hash->indexes[gap] != ID_HASH_NONE);
    hash->count--;
    /* Whatever follows without an empty place between, and would be found only across the gap, moves into it. */
    for (uint32_t at = after(hash, gap); hash->indexes[at] != ID_HASH_NONE; at = after(hash, at)) {
        uint32_t from_home = (at - home_of(hash, hash->keys[at])) & (hash->capacity - 1);
        uint32_t from_gap = (at - gap) & (hash->capacity - 1);
        if (from_home < from_gap)
            continue;
        hash->keys[gap] = hash->keys[at];
        hash->indexes[gap] = hash->indexes[at];
        gap = at;
    }
    hash->indexes[gap] = ID_HASH_NONE;
    if (hash->capacity > CAPACITY_MIN && hash->count < hash->capacity / 8)
        resize(hash, hash->capacity / 2);
}

void id_hash_free(struct id_hash *hash)
{
    free(hash->keys);
    free(hash->indexes);
    *hash = (struct id_hash){ 0 };
}

uint64_t id_hash_bytes(const struct id_hash *hash)
{
    return hash->capacity * (uint64_t)(sizeof *hash->keys + sizeof *hash->indexes);
}
