/* What tells the store that it has got all of a payload, and got it right.
 *
 * Without that a server may take what has come for the whole when a connection
 * breaks in the middle of a body, or when this process dies (versitygw 1.8.0
 * does).  Our own checksums would find it when it is read; by then it would have
 * been acknowledged.  There are three ways:
 *
 *     none       AWS over HTTPS: it keeps to Content-Length, and TLS guards the bytes
 *     SHA-256    in the signature, which every store checks, and nobody on the way can
 *                forge.  It costs as much of the processor as all else in an upload
 *     CRC-32     in a header, a thirtieth of that.  Only large payloads; only where nobody
 *                is on the way who could forge (HTTPS, or this host); and only to a store
 *                that compares it, which is found out before: the right one must be
 *                taken, a wrong one refused
 *
 * A server asks when it starts, once for all its shards; where the answer is not
 * clear payloads have SHA-256. */
#include <assert.h>
#include <gnutls/gnutls.h>
#include <isa-l/crc.h>
#include <string.h>

#include "rt/loop.h"
#include "store/s3_internal.h"

#define PROBE_KEY "probe/checksum"

/* ---- on a worker thread ---- */

struct guarding {
    const struct iovec *pieces;
    int count;
    bool by_checksum;
    struct s3_call *call;
};

static uint32_t crc32_of(const struct iovec *pieces, int count)
{
    uint32_t crc = 0;
    for (int i = 0; i < count; i++)
        crc = crc32_gzip_refl(crc, pieces[i].iov_base, pieces[i].iov_len);
    return crc;
}

/* As x-amz-checksum-crc32 has it: four bytes, the highest first, in base 64. */
static void put_checksum(struct s3_call *call, uint32_t crc)
{
    const uint8_t bytes[4] = { (uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8), (uint8_t)crc };
    gnutls_datum_t datum = { .data = (void *)bytes, .size = sizeof bytes }, text;
    int failed = gnutls_base64_encode2(&datum, &text);
    assert(failed == 0 && text.size < sizeof call->checksum); /* it only fails without memory */
    memcpy(call->checksum, text.data, text.size);
    call->checksum[text.size] = '\0';
    gnutls_free(text.data);
    memcpy(call->payload_hash, SIGV4_UNSIGNED, sizeof SIGV4_UNSIGNED);
}

static void guard(void *arg)
{
    const struct guarding *guarding = arg;
    if (guarding->by_checksum)
        put_checksum(guarding->call, crc32_of(guarding->pieces, guarding->count));
    else
        sigv4_hash(guarding->pieces, guarding->count, guarding->call->payload_hash);
}

static void guard_in_turn(struct s3 *s3, struct guarding *guarding)
{
    /* Not even a cancel keeps it from hashing: whoever is cancelled will not send it. */
    bool entered = s3_slots_enter(&s3->hashers, UINT64_MAX) == 0;
    loop_work(s3->loop, guard, guarding);
    if (entered)
        s3_slots_leave(&s3->hashers);
}

/* ---- whether the store compares checksums ---- */

enum verdict { TAKEN, REFUSED, UNCLEAR };

/* Puts a few bytes with a checksum that is off by `wrong`. */
static enum verdict try_checksum(struct s3 *s3, uint32_t wrong)
{
    char text[] = "Whoever reads this has a store that was asked whether it compares checksums.\n";
    struct iovec piece = { .iov_base = text, .iov_len = sizeof text - 1 };
    struct s3_call call = { .method = "PUT",
                            .key = PROBE_KEY,
                            .query = "",
                            .body = &piece,
                            .body_count = 1,
                            .size = piece.iov_len,
                            .body_max = S3_ERROR_BYTES_MAX,
                            .connect_timeout_ms = s3->connect_timeout_ms,
                            .deadline_ns = s3_read_deadline_ns(s3),
                            .slowest = S3_SLOWEST_UPLOAD,
                            .class = S3_CLASS_NONE };
    put_checksum(&call, crc32_of(&piece, 1) ^ wrong);
    struct s3_answer answer;
    s3_perform(s3, &s3->reads, &call, &answer);
    bool compared = strcmp(answer.code, "BadDigest") == 0 || strcmp(answer.code, "XAmzContentChecksumMismatch") == 0;
    enum verdict verdict = UNCLEAR;
    if (answer.outcome == S3_DONE)
        verdict = TAKEN;
    else if (answer.response.status == 400 && compared)
        verdict = REFUSED;
    s3_answer_free(&answer);
    return verdict;
}

/* Nobody on the way can forge. */
static bool is_guarded_on_its_way(const struct s3 *s3)
{
    return s3->place.loopback || strcmp(s3->place.scheme, "https") == 0;
}

static bool needs_nothing(const struct s3 *s3)
{
    return s3->place.aws && strcmp(s3->place.scheme, "https") == 0;
}

bool s3_compares_checksums(struct s3 *s3)
{
    if (!is_guarded_on_its_way(s3) || needs_nothing(s3))
        return false;
    bool compares = try_checksum(s3, 0) == TAKEN && try_checksum(s3, 1) == REFUSED;
    struct error nobody_cares = ERROR_NONE;
    (void)store_delete(&s3->store, PROBE_KEY, &nobody_cares); /* what is left of it harms nobody */
    return compares;
}

/* ---- what is done ---- */

void s3_guard_payload(struct s3 *s3, struct s3_call *call, bool urgent)
{
    uint64_t length = 0;
    for (int i = 0; i < call->body_count; i++)
        length += call->body[i].iov_len;
    bool large = length > S3_HASH_INLINE_BYTES;
    struct guarding guarding = { .pieces = call->body,
                                 .count = call->body_count,
                                 .by_checksum = large && (s3->traits & S3_TRAIT_COMPARES_CHECKSUMS) != 0,
                                 .call = call };
    if (needs_nothing(s3))
        memcpy(call->payload_hash, SIGV4_UNSIGNED, sizeof SIGV4_UNSIGNED);
    else if (!large)
        guard(&guarding);
    else if (urgent)
        loop_work(s3->loop, guard, &guarding);
    else
        guard_in_turn(s3, &guarding);
}
