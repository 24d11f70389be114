/* Writing an object once, until it is known what became of it.
 *
 * Each attempt sends the same bytes under the same key with the condition
 * ABSENT.  What may happen:
 *
 *   done      the store says so: ours is there.
 *   exists    somebody's is there, which may be us: an earlier attempt whose
 *             answer was lost, or even this one, if the transport beneath sent
 *             it twice.  Reading it back tells: the same bytes are ours, for
 *             all that anybody can ever see.
 *   gone      exists, but not any more when read back: others delete here, so
 *             the name is not ours alone: conflict.
 *   unknown   everything else, a read-back that failed included.  It may still
 *             be applied at any later time, so there is nothing to do but to
 *             send the same again; giving up, or sending anything else under
 *             the name, could leave two truths.
 *
 * The read-back compares piece by piece, so that it needs little memory however
 * large the object is; parts of two different objects are told by their ETag. */
#include "store/put_once.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/mutant.h"
#include "rt/loop.h"

/* The first back-off is about one slow request; the last is short enough that
 * writing goes on soon after a store has come back. */
#define BACKOFF_FIRST_NS (20 * NS_PER_MS)
#define BACKOFF_MAX_NS (2 * NS_PER_S)

/* Most commits in one get. */
#define COMPARE_BYTES ((size_t)1 << 20)

static uint64_t total_length(const struct put_once *put)
{
    uint64_t length = 0;
    for (int i = 0; i < put->count; i++)
        length += put->pieces[i].iov_len;
    return length;
}

/* Whether the body's bytes from `offset` on are `bytes`. */
static bool body_equals(const struct put_once *put, uint64_t offset, const uint8_t *bytes, size_t length)
{
    for (int i = 0; i < put->count && length > 0; i++) {
        const struct iovec *piece = &put->pieces[i];
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t part = piece->iov_len - (size_t)offset;
        if (part > length)
            part = length;
        if (memcmp((const uint8_t *)piece->iov_base + offset, bytes, part) != 0)
            return false;
        bytes += part;
        length -= part;
        offset = 0;
    }
    return length == 0;
}

/* 0: the object is ours; -EEXIST: conflict; else unknown. */
static int read_back(const struct put_once *put, struct error *error)
{
    uint64_t total = total_length(put);
    size_t capacity = total < COMPARE_BYTES ? (size_t)total : COMPARE_BYTES;
    uint8_t *bytes = memory_resize(NULL, capacity, 1);
    char etag[STORE_ETAG_MAX] = "";
    bool ours = true;
    int failed = 0;
    uint64_t offset = 0;
    do {
        uint64_t left = total - offset;
        struct iovec piece = { .iov_base = bytes, .iov_len = left < capacity ? (size_t)left : capacity };
        struct store_get get = { .key = put->key, .offset = offset, .pieces = &piece, .count = 1 };
        struct store_got got;
        failed = store_get(put->store, &get, &got, error);
        if (failed != 0)
            break;
        bool same_object = offset == 0 || strcmp(etag, got.etag) == 0;
        ours = got.size == total && same_object && body_equals(put, offset, bytes, (size_t)got.length);
        memcpy(etag, got.etag, sizeof etag);
        offset += piece.iov_len;
    } while (ours && offset < total);
    free(bytes);

    if (failed == -ENOENT)
        return error_set(error, EEXIST, "put %s: an object was there already, and is gone again", put->key);
    if (failed == 0 && !ours)
        return error_set(error, EEXIST, "put %s: another object is there already", put->key);
    return failed;
}

/* 0, or -ECANCELED. */
static int back_off(const struct put_once *put, uint64_t backoff_ns)
{
    struct loop *loop = loop_current();
    /* Half fixed, half random: many writers that failed together do not come back together. */
    uint64_t half_ns = backoff_ns / 2;
    uint64_t deadline_ns = loop_now_ns(loop) + half_ns + loop_random_u64(loop) % (half_ns + 1);
    if (put->hurry == NULL)
        return sleep_until_ns(deadline_ns);
    int ended = waitq_wait_until(put->hurry, deadline_ns);
    return ended == -ETIMEDOUT ? 0 : ended;
}

int put_once(const struct put_once *put, struct error *error)
{
    const struct store_put attempt = {
        .key = put->key, .pieces = put->pieces, .count = put->count, .condition = STORE_ABSENT,
        .urgent = put->urgent
    };
    uint64_t backoff_ns = BACKOFF_FIRST_NS;
    for (;;) {
        struct error trouble = ERROR_NONE;
        int failed = store_put(put->store, &attempt, NULL, &trouble);
        if (failed == -EEXIST && !MUTANT(no_read_back))
            failed = read_back(put, &trouble);
        if (failed == 0)
            return 0;
        if (failed == -EEXIST)
            return error_copy(error, &trouble);
        if (!coroutine_cancelled()) {
            if (put->troubled != NULL)
                put->troubled(put->arg, &trouble);
            if (put->give_up != NULL && put->give_up(put->arg, &trouble))
                return error_copy(error, &trouble);
            failed = back_off(put, backoff_ns);
            assert(failed == 0 || failed == -ECANCELED);
            backoff_ns = backoff_ns * 2 < BACKOFF_MAX_NS ? backoff_ns * 2 : BACKOFF_MAX_NS;
        }
        if (coroutine_cancelled())
            return error_set(error, ECANCELED, "put %s: given up, its outcome unknown", put->key);
    }
}
