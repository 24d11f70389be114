/* Ownership: the register, the only object that ever changes.
 *
 * It is written by compare-and-swap alone.  Whoever is named in it as owner
 * writes it as a merger of all it has to say; whoever wants to be the owner
 * replaces the body that it has just read by one with the next epoch and its
 * own nonce.  Who may serve is decided by the log (vol/recover.c), not here.
 *
 * The outcome of an attempt may be unknown.  Every body carries a fresh write
 * nonce, so reading the register tells:
 *   our write nonce, or our owner nonce with at least our counter: it landed;
 *   the body that we meant to replace: it has not, perhaps not yet: the
 *     identical bytes are sent again under the same condition;
 *   our owner nonce with a lower counter and another write nonce: somebody
 *     else, who may, has written on the body that we replace: merge and go on;
 *   another owner: we have lost it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/internal.h"

#define BACKOFF_FIRST_NS (50 * NS_PER_MS)
#define BACKOFF_MOST_NS (3 * NS_PER_S)

int ownership_read(struct volume *volume, struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX],
                   struct error *error)
{
    char key[KEY_MAX];
    key_register(volume->name, volume->name_length, key);
    uint8_t *bytes = NULL;
    size_t length = 0;
    char etag[STORE_ETAG_MAX];
    int status = store_get_whole(volume->all->store, key, REGISTER_BYTES_MAX, &bytes, &length, etag, error);
    if (status < 0)
        return error_context(error, "%s: its register", volume->subject);
    struct register_body body;
    status = register_decode(bytes, length, &body, error);
    free(bytes);
    if (status < 0) {
        error_context(error, "%s: its register %s", volume->subject, key);
        return status;
    }
    if (body.name_length != volume->name_length || memcmp(body.name, volume->name, body.name_length) != 0) {
        register_free(&body);
        return error_set(error, EMEDIUMTYPE, "%s: its register %s is that of another volume", volume->subject, key);
    }
    volume->answered_ns = loop_now_ns(volume->loop);
    *ret_body = body;
    memcpy(ret_etag, etag, STORE_ETAG_MAX);
    return 0;
}

/* What came of a write whose outcome is not known. */
enum outcome { LANDED, NOT_YET, OVERTAKEN, LOST, UNREADABLE };

static enum outcome find_out(struct volume *volume, const struct register_body *wrote, const char *replaced_etag,
                             struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    int status = ownership_read(volume, ret_body, ret_etag, error);
    if (status == -ENOENT)
        return replaced_etag == NULL ? NOT_YET : LOST;
    if (status < 0)
        return UNREADABLE;
    if (nonce_equal(&ret_body->write, &wrote->write))
        return LANDED;
    bool ours = nonce_equal(&ret_body->owner, &wrote->owner) && ret_body->epoch == wrote->epoch;
    if (ours && ret_body->counter >= wrote->counter)
        return LANDED;
    if (replaced_etag != NULL && strcmp(ret_etag, replaced_etag) == 0) {
        register_free(ret_body);
        return NOT_YET;
    }
    if (ours)
        return OVERTAKEN;
    register_free(ret_body);
    return LOST;
}

/* Adopts what now stands in the register as ours. Takes over `body`. */
static void adopt(struct volume *volume, struct register_body *body, const char *etag)
{
    register_free(&volume->body);
    volume->body = *body;
    snprintf(volume->register_etag, sizeof volume->register_etag, "%s", etag);
}

/* Writes `body` over the one with `etag` (NULL: where there is none), until it is known what became of it.
 *   0         volume->body is what stands there.
 *   -ESTALE   somebody else has written it: lost.
 *   -EAGAIN   it must be rebuilt upon *ret_body and ret_etag, which the caller gets.
 *   else      the store will not have it, or not in time: the outcome is unknown. */
static int write_register(struct volume *volume, const struct register_body *body, const char *etag,
                          struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    int status = register_encode(body, &bytes, error);
    if (status < 0)
        return status;
    char key[KEY_MAX];
    key_register(volume->name, volume->name_length, key);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    struct store_put put = { .key = key,
                             .pieces = &piece,
                             .count = 1,
                             .condition = etag == NULL ? STORE_ABSENT : STORE_MATCHES,
                             .etag = etag,
                             .urgent = true };
    uint64_t backoff = BACKOFF_FIRST_NS, deadline = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS;
    for (;;) {
        char new_etag[STORE_ETAG_MAX];
        status = store_put(volume->all->store, &put, new_etag, error);
        if (status == 0) {
            struct register_body copy;
            register_copy(body, &copy);
            adopt(volume, &copy, new_etag);
            break;
        }
        if (coroutine_cancelled()) {
            status = error_set(error, ECANCELED, "given up");
            break;
        }
        struct register_body found;
        char found_etag[STORE_ETAG_MAX];
        struct error why = ERROR_NONE;
        enum outcome outcome = find_out(volume, body, etag, &found, found_etag, &why);
        if (outcome == LANDED) {
            adopt(volume, &found, found_etag);
            status = 0;
            break;
        }
        if (outcome == LOST) {
            status = error_set(error, ESTALE, "%s: its register was written by another", volume->subject);
            break;
        }
        if (outcome == OVERTAKEN) {
            *ret_body = found;
            memcpy(ret_etag, found_etag, STORE_ETAG_MAX);
            status = -EAGAIN;
            break;
        }
        volume_troubled(volume, error);
        if (outcome == NOT_YET && (status == -EEXIST || status == -ESTALE))
            status = error_set(error, EIO, "%s: the store says both that it changed and that it did not", key);
        if (volume_is_hard(-status) || loop_now_ns(volume->loop) + backoff > deadline) {
            status = error_context(error, "%s: its register", volume->subject);
            break;
        }
        if (sleep_ns(backoff) < 0) {
            status = error_set(error, ECANCELED, "given up");
            break;
        }
        backoff = backoff * 2 < BACKOFF_MOST_NS ? backoff * 2 : BACKOFF_MOST_NS;
    }
    buffer_free(&bytes);
    if (status == 0)
        volume_untroubled(volume);
    return status;
}

static void fresh_nonce(struct volume *volume, struct nonce *ret_nonce)
{
    loop_random(volume->loop, ret_nonce->bytes, sizeof ret_nonce->bytes);
}

/* The fields that say whose the volume is from now on. */
static void sign(struct volume *volume, struct register_body *body)
{
    body->owner = volume->owner;
    body->held = true;
    fresh_nonce(volume, &body->write);
    body->counter++;
    body->lease_ms = volume->all->settings.lease_ms;
    body->owned_since_wall_ms = loop_wall_ns(volume->loop) / NS_PER_MS;
    body->features_owner = FEATURES_OWNER_OURS;
    volume->all->host->ops->sign(volume->all->host, body);
}

int ownership_create(struct volume *volume, uint64_t size, struct error *error)
{
    struct register_body body = { .name = memory_copy(volume->name, volume->name_length),
                                  .name_length = volume->name_length,
                                  .state = REGISTER_LIVE,
                                  .created_wall_ms = loop_wall_ns(volume->loop) / NS_PER_MS,
                                  .epoch = 1,
                                  .newest = { .size = size, .next_object_id = 1, .empty = true } };
    loop_random(volume->loop, body.uuid.bytes, sizeof body.uuid.bytes);
    body.uuid.bytes[6] = (body.uuid.bytes[6] & 0x0f) | 0x40; /* RFC 9562: version 4, random */
    body.uuid.bytes[8] = (body.uuid.bytes[8] & 0x3f) | 0x80;
    fresh_nonce(volume, &volume->owner);
    sign(volume, &body);
    struct register_body found;
    char found_etag[STORE_ETAG_MAX];
    int status = write_register(volume, &body, NULL, &found, found_etag, error);
    if (status == -EAGAIN) { /* ours cannot be overtaken before it has landed */
        register_free(&found);
        status = -ESTALE;
    }
    if (status == 0)
        volume->epoch = 1;
    volume->returned = status == -ESTALE;
    register_free(&body);
    return status == -ESTALE ? -EEXIST : status;
}

int ownership_take(struct volume *volume, const struct register_body *body, const char *etag, struct error *error)
{
    struct register_body next;
    register_copy(body, &next);
    fresh_nonce(volume, &volume->owner);
    next.epoch += MUTANT(epoch_stands_still) ? 0 : 1;
    sign(volume, &next);
    struct register_body found;
    char found_etag[STORE_ETAG_MAX];
    int status = write_register(volume, &next, etag, &found, found_etag, error);
    if (status == -EAGAIN) {
        register_free(&found);
        status = -ESTALE;
    }
    if (status == 0)
        volume->epoch = next.epoch;
    volume->returned = status == -ESTALE;
    register_free(&next);
    return status;
}

int ownership_confirm(struct volume *volume, struct error *error)
{
    uint64_t backoff = BACKOFF_FIRST_NS, deadline = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS;
    for (;;) {
        struct register_body body;
        char etag[STORE_ETAG_MAX];
        int status = ownership_read(volume, &body, etag, error);
        if (status == 0) {
            bool ours = nonce_equal(&body.owner, &volume->owner) && body.epoch == volume->epoch;
            volume->returned = !ours;
            if (ours)
                adopt(volume, &body, etag);
            else
                register_free(&body);
            return ours ? 0
                        : error_set(error, ESHUTDOWN, "%s: another owner took it while it was being opened",
                                    volume->subject);
        }
        if (status == -ENOENT || status == -EBADMSG || status == -EMEDIUMTYPE || status == -EPROTONOSUPPORT ||
            volume_is_hard(-status) || loop_now_ns(volume->loop) + backoff > deadline)
            return status;
        if (sleep_ns(backoff) < 0)
            return error_set(error, ECANCELED, "given up");
        backoff = backoff * 2 < BACKOFF_MOST_NS ? backoff * 2 : BACKOFF_MOST_NS;
    }
}

int ownership_release(struct volume *volume, struct error *error)
{
    struct register_body body;
    char etag[STORE_ETAG_MAX];
    register_copy(&volume->body, &body);
    memcpy(etag, volume->register_etag, STORE_ETAG_MAX);
    for (;;) {
        body.held = false;
        body.counter++;
        /* It never falls: where the log could not be read to its end, it is all that tells of the rest. */
        if (body.committed < volume->committed_seq)
            body.committed = volume->committed_seq;
        fresh_nonce(volume, &body.write);
        struct register_body found;
        char found_etag[STORE_ETAG_MAX];
        int status = write_register(volume, &body, etag, &found, found_etag, error);
        register_free(&body);
        if (status != -EAGAIN) {
            volume->returned = status == 0 || status == -ESTALE;
            return status;
        }
        body = found;
        memcpy(etag, found_etag, STORE_ETAG_MAX);
    }
}
