/* The two hashes of the format: see base/hash.h.
 *
 * Both libraries can only fail for want of a few hundred bytes of memory, which
 * is an assertion here as everywhere (base/memory.h).  One piece, the common
 * case, is hashed in one call without a state. */
#include "base/hash.h"

#include <assert.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <xxhash.h>
#ifdef HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* the same functions, with the widest vectors that the processor has: three times as fast */
#endif

void hash_xxh128(const struct iovec *pieces, int count, uint8_t ret_hash[XXH128_BYTES])
{
    assert(count >= 0);
    XXH128_hash_t hash;
    if (count == 1) {
        hash = XXH3_128bits(pieces[0].iov_base, pieces[0].iov_len);
    } else {
        XXH3_state_t *state = XXH3_createState();
        assert(state != NULL);
        XXH3_128bits_reset(state);
        for (int i = 0; i < count; i++)
            if (pieces[i].iov_len > 0)
                XXH3_128bits_update(state, pieces[i].iov_base, pieces[i].iov_len);
        hash = XXH3_128bits_digest(state);
        XXH3_freeState(state);
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    static_assert(sizeof canonical.digest == XXH128_BYTES, "the canonical form is the hash's 16 bytes");
    for (int i = 0; i < XXH128_BYTES; i++)
        ret_hash[i] = canonical.digest[i];
}

void hash_sha256(const struct iovec *pieces, int count, uint8_t ret_hash[SHA256_BYTES])
{
    assert(count >= 0);
    int failed;
    if (count == 1) {
        failed = gnutls_hash_fast(GNUTLS_DIG_SHA256, pieces[0].iov_base, pieces[0].iov_len, ret_hash);
        assert(failed == 0);
        return;
    }
    gnutls_hash_hd_t hash;
    failed = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
    assert(failed == 0);
    for (int i = 0; i < count; i++) {
        if (pieces[i].iov_len == 0)
            continue;
        failed = gnutls_hash(hash, pieces[i].iov_base, pieces[i].iov_len);
        assert(failed == 0);
    }
    gnutls_hash_deinit(hash, ret_hash);
}
