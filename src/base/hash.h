/* The two hashes of the format: XXH3-128 for checksums, SHA-256 for the log's
 * chain and for names; and a fast 64-bit one for tables in memory. */
#ifndef CAIRN_BASE_HASH_H
#define CAIRN_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define SHA256_BYTES 32
#define XXH128_BYTES 16

/* Canonical (big-endian) form of XXH3-128 with seed 0 over the concatenated pieces. */
void hash_xxh128(const struct iovec *pieces, int count, uint8_t ret_hash[XXH128_BYTES]);
void hash_sha256(const struct iovec *pieces, int count, uint8_t ret_hash[SHA256_BYTES]);

/* Spreads a key over 64 bits (a bijection). Not for untrusted keys without a random seed mixed in. */
static inline uint64_t hash_u64(uint64_t key)
{
    key ^= key >> 32;
    key *= 0xd6e8feb86659fd93u;
    key ^= key >> 32;
    key *= 0xd6e8feb86659fd93u;
    return key ^ (key >> 32);
}

#endif
