/* Ownership: the register, the only object that ever changes, and the task that writes it.
 *
 * It is written by compare-and-swap alone.  Whoever wants to be the owner
 * replaces the body that it has just read by one with the next epoch and its own
 * nonce (ownership_take; when it may is up to vol/takeover.c).  From then on one
 * task, the writer, does all that the owner has to write, one write at a time,
 * merged:
 *
 *     renewal    at half of the lease after the first sending of the last body that landed
 *     a root     a checkpoint becomes the newest state (ownership_publish)
 *     release    the last body: nobody has the volume (ownership_release)
 *
 * Each of these bodies renews the lease, has a higher counter than any before,
 * and a fresh write nonce, which also stands in it as `renewal`.  Who may write
 * beside the owner (to pin a state) leaves epoch, owner, counter and renewal as
 * they are.  So when a put was refused, or its outcome is unknown, reading the
 * register tells:
 *
 *   our write nonce, or our owner nonce and our write nonce as renewal: it landed,
 *     perhaps with something of others on top;
 *   the version that it was to replace: it has not, or not yet: the identical bytes
 *     are sent again under the same condition;
 *   our owner nonce, and the renewal of the body before: somebody else has written
 *     on the body that it was to replace.  What they wrote is kept, ours is put
 *     on top, and sent at once;
 *   another owner: we have lost it;
 *   our owner nonce with a lower counter: somebody has put an old register back;
 *   our owner nonce and a renewal that we do not know: another copy of this process
 *     writes, its machine was cloned;
 *   nothing at all: somebody has removed it.
 *
 * In the last four cases the volume is fenced and the register left as it is.
 * Nothing else ends the writer but its release and cancelling: a store that does
 * not answer is asked again and again, each attempt cut off after a tenth of the
 * lease and queueing behind nothing.
 *
 * Whether clients may be answered meanwhile is judged by clocks, at the moment
 * of answering (vol/lease.c); who may serve is decided by the log
 * (vol/recover.c). */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "vol/internal.h"

#define BACKOFF_FIRST_NS (50 * NS_PER_MS)
#define DAMAGED_TRIES 3
/* Renewals are put off by up to this part of the lease, and at least by a tenth of that: so volumes that were opened at
 * once are not renewed at once for ever, and no more often than lease_renew_ns() says. */
#define RENEW_JITTER_PART 30u

static uint64_t attempt_ms(const struct volume *volume)
{
    return lease_attempt_ms(volume->all->settings.lease_ms);
}

struct lease_clocks ownership_clocks(const struct volume *volume)
{
    if (MUTANT(lease_by_monotonic_only))
        return (struct lease_clocks){ .boottime_ns = loop_now_ns(volume->loop) };
    return (struct lease_clocks){ .boottime_ns = loop_boottime_ns(volume->loop),
                                  .wall_ns = loop_wall_ns(volume->loop),
                                  .date_ms = store_date_ms(volume->all->store) };
}

void ownership_describe(const struct register_body *body, char ret_text[OWNER_TEXT_MAX])
{
    char since[32] = "an unknown time";
    time_t seconds = (time_t)(body->owned_since_wall_ms / 1000);
    struct tm tm;
    if (body->owned_since_wall_ms != 0 && gmtime_r(&seconds, &tm) != NULL)
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S UTC", &tm);
    snprintf(ret_text, OWNER_TEXT_MAX, "process %llu on host %s since %s", (unsigned long long)body->process,
             body->host[0] != '\0' ? body->host : "(unknown)", since);
}

int ownership_read(struct volume *volume, struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX],
                   struct error *error)
{
    char key[KEY_MAX];
    key_register(volume->name, volume->name_length, key);
    uint8_t *bytes = NULL;
    size_t length = 0;
    char etag[STORE_ETAG_MAX];
    int status = store_get_whole_urgent(volume->all->store, key, REGISTER_BYTES_MAX, attempt_ms(volume), &bytes,
                                        &length, etag, error);
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

/* ---- the lease in doubt ---- */

static void raise_doubt(struct volume *volume, const struct lease_clocks *now)
{
    const struct register_writer *writer = &volume->writer;
    unsigned long long seconds = lease_age_ns(&volume->lease, now) / NS_PER_S;
    volume->doubted = true;
    if (writer->trouble.code != 0)
        event_raise(volume->all->events, EVENT_WARNING, volume->subject,
                    "its lease could not be renewed for %llu s; replies are held: %s", seconds, writer->trouble.story);
    else
        event_raise(volume->all->events, EVENT_WARNING, volume->subject,
                    "its lease was not renewed for %llu s, as if this process or its host had stood still; replies "
                    "are held until it is",
                    seconds);
}

/* Whether the lease is beyond doubt; once it was not, only a renewal makes it so again. */
static bool is_certain(struct volume *volume)
{
    struct lease_clocks now = ownership_clocks(volume);
    lease_observe(&volume->lease, &now);
    if (!volume->doubted && !lease_is_valid(&volume->lease, &now))
        raise_doubt(volume, &now);
    return !volume->doubted;
}

bool volume_may_answer(struct volume *volume)
{
    if (volume->state != VOLUME_SERVING)
        return false;
    if (MUTANT(lease_ignored))
        return true;
    bool doubted = volume->doubted;
    if (is_certain(volume))
        return true;
    if (!doubted) { /* the writer's timer may be far away still, after a suspension */
        volume->writer.hurry = true;
        waitq_wake_all(&volume->writer.wanted);
    }
    return false;
}

static uint64_t next_renewal_ns(const struct volume *volume, uint64_t sent_ns)
{
    uint64_t lease_ms = volume->all->settings.lease_ms;
    uint64_t jitter_ns = lease_ms * NS_PER_MS / RENEW_JITTER_PART, least_ns = jitter_ns / 10;
    return sent_ns + lease_renew_ns(lease_ms) + least_ns + loop_random_u64(volume->loop) % (jitter_ns - least_ns);
}

/* A body first sent at `sent` (of the loop's time: `sent_ns`) has landed. */
static void renewed(struct volume *volume, const struct lease_clocks *sent, uint64_t sent_ns)
{
    volume->writer.renew_at_ns = next_renewal_ns(volume, sent_ns);
    struct lease_clocks now = ownership_clocks(volume);
    lease_observe(&volume->lease, &now);
    lease_landed(&volume->lease, sent);
    if (!volume->doubted)
        return;
    if (!lease_is_valid(&volume->lease, &now)) { /* it took too long; the next one will do */
        volume->writer.hurry = true;
        return;
    }
    volume->doubted = false;
    if (volume->state != VOLUME_SERVING)
        return;
    event_raise(volume->all->events, EVENT_INFO, volume->subject, "its lease is renewed; replies go out again");
    list_for_each_safe (node, &volume->watches) {
        struct volume_watch *watch = container_of(node, struct volume_watch, link);
        if (watch->resumed != NULL)
            watch->resumed(watch);
    }
}

/* ---- what became of a write ---- */

enum outcome { LANDED, NOT_YET, OVERTAKEN, LOST, UNREADABLE };

static bool is_ours(const struct register_body *found, const struct register_body *wrote)
{
    return nonce_equal(&found->owner, &wrote->owner) && found->epoch == wrote->epoch &&
           uuid_equal(&found->uuid, &wrote->uuid) && found->state == REGISTER_LIVE;
}

/* Neither what we have written nor what we meant to replace: OVERTAKEN, or LOST with its story. */
static enum outcome judge_strange(struct volume *volume, const struct register_body *wrote,
                                  const struct register_body *found, struct error *error)
{
    char owner[OWNER_TEXT_MAX];
    ownership_describe(found, owner);
    unsigned long long epoch = found->epoch, counter = found->counter;
    if (volume->epoch == 0) /* we were to become its owner, and were too slow */
        return LOST;
    if (!is_ours(found, wrote) && found->epoch >= wrote->epoch) {
        error_set(error, ESHUTDOWN, "%s: %s has it (epoch %llu)", volume->subject, owner, epoch);
        return LOST;
    }
    if (!is_ours(found, wrote) || found->counter < volume->body.counter) {
        error_set(error, EBADMSG,
                  "%s: its register was put back to an older state (epoch %llu, write %llu; ours was epoch %llu, write "
                  "%llu); nothing is written over it: put the newest one back",
                  volume->subject, epoch, counter, (unsigned long long)wrote->epoch,
                  (unsigned long long)volume->body.counter);
        return LOST;
    }
    if (nonce_equal(&found->renewal, &volume->body.renewal) || MUTANT(clone_not_noticed))
        return OVERTAKEN;
    error_set(error, ENOTUNIQ,
              "%s: another copy of this very process writes its register: this machine, or the other one, is a clone",
              volume->subject);
    return LOST;
}

/* What we wrote is there, whatever others have put on top of it.  Nonces alone do not tell: a clone of this process may
 * have drawn the same ones. */
static bool stands(const struct register_body *found, const struct register_body *wrote)
{
    bool named = nonce_equal(&found->write, &wrote->write) || nonce_equal(&found->renewal, &wrote->write);
    if (MUTANT(nonce_alone_tells))
        return named;
    return named && is_ours(found, wrote) && found->counter == wrote->counter && found->held == wrote->held &&
           found->committed == wrote->committed && found->newest.seq == wrote->newest.seq &&
           found->newest.object_id == wrote->newest.object_id &&
           memcmp(found->newest.hash, wrote->newest.hash, sizeof wrote->newest.hash) == 0;
}

/* What is damaged or foreign is fetched twice more: it may have been spoilt on its way, and the volume hangs by it. */
static int read_patiently(struct volume *volume, struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX],
                          struct error *error)
{
    for (int tries = 1;; tries++) {
        int status = ownership_read(volume, ret_body, ret_etag, error);
        if ((status != -EBADMSG && status != -EMEDIUMTYPE) || tries == DAMAGED_TRIES)
            return status;
        if (sleep_ns(BACKOFF_FIRST_NS) < 0)
            return error_set(error, ECANCELED, "%s: its register was not read again", volume->subject);
    }
}

/* `volume->body` is what we know to have landed last, where we own it. */
static enum outcome find_out(struct volume *volume, const struct register_body *wrote, const char *replaced_etag,
                             struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct register_body found;
    char etag[STORE_ETAG_MAX];
    int status = read_patiently(volume, &found, etag, error);
    if (status == -ENOENT && replaced_etag == NULL)
        return NOT_YET;
    if (status == -ENOENT) {
        error_set(error, ENOENT, "%s: its register was removed from the store; it is not made anew: put it back",
                  volume->subject);
        return LOST;
    }
    if (status == -EBADMSG || status == -EMEDIUMTYPE || status == -EPROTONOSUPPORT)
        return LOST;
    if (status < 0)
        return UNREADABLE;
    enum outcome outcome;
    if (stands(&found, wrote) || (volume->epoch == 0 && is_ours(&found, wrote)))
        outcome = LANDED;
    else if (replaced_etag != NULL && strcmp(etag, replaced_etag) == 0)
        outcome = NOT_YET;
    else
        outcome = judge_strange(volume, wrote, &found, error);
    if (outcome == NOT_YET && MUTANT(look_is_renewal) && volume->epoch != 0) {
        struct lease_clocks now = ownership_clocks(volume);
        renewed(volume, &now, volume->answered_ns);
    }
    if (outcome == LOST && MUTANT(renew_after_conflict) && volume->epoch != 0) {
        found.epoch = volume->epoch;
        found.owner = volume->owner;
        outcome = OVERTAKEN;
    }
    if (outcome == LANDED || outcome == OVERTAKEN) {
        *ret_body = found;
        memcpy(ret_etag, etag, STORE_ETAG_MAX);
    } else {
        register_free(&found);
    }
    return outcome;
}

/* ---- one write ---- */

/* Notes what stands in the register now, as of our own write and perhaps others'.  Takes over `body`. */
static void adopt(struct volume *volume, struct register_body *body, const char *etag)
{
    register_free(&volume->body);
    volume->body = *body;
    memcpy(volume->register_etag, etag, strlen(etag) + 1);
}

/* What others may see of a failed attempt. */
static void tell_trouble(struct volume *volume, const struct error *error)
{
    struct register_writer *writer = &volume->writer;
    error_copy(&writer->trouble, error);
    writer->fresh_trouble = true;
    waitq_wake_all(&writer->landed);
    if (volume->state == VOLUME_SERVING)
        is_certain(volume);
    else
        volume_troubled(volume, error); /* those who wait for it to open want to know */
}

struct write {
    const struct register_body *body;
    const char *etag; /* of what it replaces; NULL: there is nothing */
    bool persistent;  /* only a cancel ends it before its outcome is known */
    uint64_t deadline_ns;
};

/* One attempt and, if need be, a look at what came of it.
 *   0           volume->body is what stands there.
 *   -ESTALE     it will never land: somebody else has written, the story says what.
 *   -EAGAIN     likewise, but it is ours still: volume->body is what stands there; write on that.
 *   -EINPROGRESS  not known, or not yet; the story says why. */
static int attempt(struct volume *volume, const struct write *write, const struct store_put *put, struct error *error)
{
    char etag[STORE_ETAG_MAX];
    struct register_body found;
    int status = store_put(volume->all->store, put, etag, error);
    if (status == 0 || (status == -ESTALE && MUTANT(take_412_as_landed) && volume->epoch != 0)) {
        if (status != 0)
            snprintf(etag, sizeof etag, "%s", volume->register_etag);
        register_copy(write->body, &found);
        adopt(volume, &found, etag);
        return 0;
    }
    if (coroutine_cancelled())
        return -EINPROGRESS;
    struct error why = ERROR_NONE;
    enum outcome outcome = find_out(volume, write->body, write->etag, &found, etag, &why);
    if (outcome == LANDED || outcome == OVERTAKEN) {
        if (outcome == OVERTAKEN && MUTANT(drop_pins_on_renewal))
            found.pin_count = 0;
        adopt(volume, &found, etag);
        return outcome == LANDED ? 0 : -EAGAIN;
    }
    if (outcome == LOST) {
        error_copy(error, &why);
        return -ESTALE;
    }
    if (outcome == NOT_YET && (status == -EEXIST || status == -ESTALE))
        error_set(error, EIO, "%s: the store says both that it changed and that it did not", put->key);
    return -EINPROGRESS;
}

/* Writes a body until it is known what became of it: 0, -ESTALE and -EAGAIN as attempt(); -ECANCELED; or, unless it is
 * persistent, what the store said when that was hard or time was up: the outcome is unknown. */
static int write_register(struct volume *volume, const struct write *write, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    int status = register_encode(write->body, &bytes, error);
    if (status < 0)
        return status;
    char key[KEY_MAX];
    key_register(volume->name, volume->name_length, key);
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    struct store_put put = { .key = key,
                             .pieces = &piece,
                             .count = 1,
                             .condition = write->etag == NULL ? STORE_ABSENT : STORE_MATCHES,
                             .etag = write->etag,
                             .urgent = true,
                             .attempt_ms = attempt_ms(volume) };
    if (write->etag != NULL && MUTANT(resurrect_deleted_register) && volume->epoch != 0)
        put.condition = STORE_ANY;
    if (write->etag != NULL && MUTANT(take_unconditionally) && volume->epoch == 0)
        put.condition = STORE_ANY;
    uint64_t backoff = BACKOFF_FIRST_NS, backoff_most = lease_retry_ns(volume->all->settings.lease_ms);
    struct lease_clocks now = ownership_clocks(volume), sent = lease_sending(&volume->lease, &now);
    uint64_t sent_ns = loop_now_ns(volume->loop);
    for (;;) {
        status = attempt(volume, write, &put, error);
        if (MUTANT(lease_from_landing))
            sent = ownership_clocks(volume);
        if (status == 0)
            renewed(volume, &sent, sent_ns);
        if (status != -EINPROGRESS)
            break;
        if (!coroutine_cancelled())
            tell_trouble(volume, error);
        if (!write->persistent &&
            (volume_is_hard(error->code) || loop_now_ns(volume->loop) + backoff > write->deadline_ns)) {
            status = error_context(error, "%s: its register", volume->subject);
            break;
        }
        /* A new wish ends it early. */
        if (coroutine_cancelled() ||
            waitq_wait_until(&volume->writer.wanted, loop_now_ns(volume->loop) + backoff) == -ECANCELED) {
            status = error_set(error, ECANCELED, "given up");
            break;
        }
        backoff = backoff * 2 < backoff_most ? backoff * 2 : backoff_most;
    }
    buffer_free(&bytes);
    if (status == 0) {
        volume->writer.trouble = (struct error)ERROR_NONE;
        if (volume->state != VOLUME_SERVING)
            volume_untroubled(volume);
    }
    return status;
}

/* ---- becoming the owner ---- */

/* A copy of this process may draw the same random numbers: so that what the two send at different moments is told apart,
 * the clocks are in it, too. */
static void fresh_nonce(struct volume *volume, struct nonce *ret_nonce)
{
    const uint64_t moment[] = { loop_wall_ns(volume->loop), loop_boottime_ns(volume->loop) };
    uint8_t bytes[sizeof moment];
    static_assert(sizeof bytes == sizeof ret_nonce->bytes, "the clocks cover all of it");
    memcpy(bytes, moment, sizeof bytes);
    loop_random(volume->loop, ret_nonce->bytes, sizeof ret_nonce->bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        ret_nonce->bytes[i] ^= MUTANT(nonce_without_clocks) ? 0 : bytes[i];
}

/* What is new in every body of ours. */
static void number(struct volume *volume, struct register_body *body)
{
    struct register_writer *writer = &volume->writer;
    fresh_nonce(volume, &body->write);
    body->renewal = body->write;
    writer->counter = (body->counter > writer->counter ? body->counter : writer->counter) + 1;
    body->counter = writer->counter;
    body->lease_ms = volume->all->settings.lease_ms;
}

/* The fields that say whose the volume is from now on. */
static void sign(struct volume *volume, struct register_body *body)
{
    fresh_nonce(volume, &volume->owner);
    body->owner = volume->owner;
    body->held = true;
    number(volume, body);
    body->owned_since_wall_ms = loop_wall_ns(volume->loop) / NS_PER_MS;
    body->features_owner = FEATURES_OWNER_OURS;
    volume->all->host->ops->sign(volume->all->host, body);
}

static void writer_task(void *arg);

/* Writes the first body of an owner. -ESTALE: somebody else was faster. */
static int begin(struct volume *volume, const struct register_body *body, const char *etag, struct error *error)
{
    assert(volume->epoch == 0 && !volume->writer.running);
    volume->returned = false;
    struct write write = { .body = body,
                           .etag = etag,
                           .deadline_ns = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS };
    int status = write_register(volume, &write, error);
    volume->returned = status == -ESTALE;
    if (status < 0)
        return status;
    volume->epoch = body->epoch;
    past_note(volume);
    volume->writer.running = true;
    group_spawn(&volume->writer.group, "register", writer_task, volume);
    return 0;
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
    sign(volume, &body);
    int status = begin(volume, &body, NULL, error);
    register_free(&body);
    return status == -ESTALE ? -EEXIST : status;
}

int ownership_take(struct volume *volume, const struct register_body *body, const char *etag, struct error *error)
{
    struct register_body next;
    register_copy(body, &next);
    volume->replaced = *body;
    volume->replaced.name = NULL;
    volume->replaced.older = NULL;
    volume->replaced.pins = NULL;
    volume->replaced.unknown = NULL;
    next.epoch += MUTANT(epoch_stands_still) ? 0 : 1;
    if (MUTANT(take_drops_pins))
        next.pin_count = 0;
    if (MUTANT(counter_restarts))
        next.counter = 0;
    sign(volume, &next);
    int status = begin(volume, &next, etag, error);
    register_free(&next);
    return status;
}

int ownership_confirm(struct volume *volume, struct error *error)
{
    uint64_t backoff = BACKOFF_FIRST_NS, deadline = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS;
    for (;;) {
        /* Not adopted: the writer may have gone on since it was read. */
        struct register_body body;
        char etag[STORE_ETAG_MAX], owner[OWNER_TEXT_MAX];
        int status = ownership_read(volume, &body, etag, error);
        if (status == 0) {
            bool ours = nonce_equal(&body.owner, &volume->owner) && body.epoch == volume->epoch;
            ownership_describe(&body, owner);
            register_free(&body);
            volume->returned = volume->returned || !ours;
            return ours ? 0
                        : error_set(error, ESHUTDOWN, "%s: another owner took it while it was being opened: %s",
                                    volume->subject, owner);
        }
        if (status == -ENOENT || status == -EBADMSG || status == -EMEDIUMTYPE || status == -EPROTONOSUPPORT ||
            volume_is_hard(-status) || loop_now_ns(volume->loop) + backoff > deadline)
            return status;
        if (sleep_ns(backoff) < 0)
            return error_set(error, ECANCELED, "given up");
        backoff *= 2;
    }
}

/* ---- the writer ---- */

/* The newest root steps back for `root`. */
static void push_root(struct register_body *body, const struct root *root)
{
    uint32_t count = body->older_count < ROOTS_OLDER_MAX ? body->older_count + 1 : ROOTS_OLDER_MAX;
    struct root *older = memory_array(count, sizeof *older);
    older[0] = body->newest;
    for (uint32_t i = 1; i < count; i++)
        older[i] = body->older[i - 1];
    free(body->older);
    body->older = older;
    body->older_count = count;
    body->newest = *root;
}

/* Makes those fields again what they were that say whose the volume is.  Nothing was written to it under our epoch. */
static void put_back(const struct register_body *replaced, struct register_body *body)
{
    body->epoch = replaced->epoch;
    body->owner = replaced->owner;
    body->held = replaced->held;
    body->lease_ms = replaced->lease_ms;
    body->owned_since_wall_ms = replaced->owned_since_wall_ms;
    body->features_owner = replaced->features_owner;
    memcpy(body->host, replaced->host, sizeof body->host);
    body->process = replaced->process;
    memcpy(body->boot_id, replaced->boot_id, sizeof body->boot_id);
    memcpy(body->lock_path, replaced->lock_path, sizeof body->lock_path);
    body->lock_device = replaced->lock_device;
    body->lock_inode = replaced->lock_inode;
    body->renewal = replaced->renewal;
}

/* The next body, on top of the one that stands there, with all that is wanted now. */
static void compose(struct volume *volume, struct register_body *ret_body)
{
    const struct register_writer *writer = &volume->writer;
    struct register_body body;
    register_copy(&volume->body, &body);
    number(volume, &body);
    bool stands = body.newest.seq == writer->root.seq && body.newest.object_id == writer->root.object_id;
    if (writer->root_wanted != 0 && !stands)
        push_root(&body, &writer->root);
    if (writer->release)
        body.held = false;
    if (writer->release && volume->put_back) {
        put_back(&volume->replaced, &body);
        *ret_body = body;
        return;
    }
    /* It never falls: where the log could not be read to its end, it is all that tells of the rest. */
    if (body.committed < volume->committed_seq)
        body.committed = volume->committed_seq + (MUTANT(committed_ahead) ? 1 : 0);
    if (body.committed < body.newest.seq)
        body.committed = body.newest.seq;
    *ret_body = body;
}

/* Writes what is wanted: 0, -EAGAIN: to be done again, or the writer's end. */
static int write_wanted(struct volume *volume)
{
    struct register_writer *writer = &volume->writer;
    uint64_t root = writer->root_wanted;
    bool release = writer->release;
    char etag[STORE_ETAG_MAX];
    struct register_body body;
    struct error error = ERROR_NONE;
    compose(volume, &body);
    memcpy(etag, volume->register_etag, sizeof etag);
    writer->hurry = false;
    struct write write = { .body = &body, .etag = etag, .persistent = true };
    int status = write_register(volume, &write, &error);
    register_free(&body);
    if (status == -EAGAIN)
        writer->hurry = true;
    if (status == -ESTALE) {
        volume->returned = error.code != EBADMSG;
        volume_fence(volume, &error);
    } else if (status < 0 && status != -EAGAIN && status != -ECANCELED) { /* it cannot be encoded */
        volume_fence(volume, &error);
    }
    if (status < 0)
        return status;
    past_note(volume);
    volume->counts.renewals++;
    if (root != 0)
        writer->root_landed = root;
    if (writer->root_wanted == root)
        writer->root_wanted = 0;
    writer->released = release;
    waitq_wake_all(&writer->landed);
    return 0;
}

static bool is_wanted(const struct volume *volume)
{
    const struct register_writer *writer = &volume->writer;
    return writer->hurry || writer->release || writer->root_wanted != 0 ||
           loop_now_ns(volume->loop) >= writer->renew_at_ns;
}

static void writer_task(void *arg)
{
    struct volume *volume = arg;
    struct register_writer *writer = &volume->writer;
    while (volume->state != VOLUME_FENCED && !writer->released) {
        int status = is_wanted(volume) ? write_wanted(volume) : waitq_wait_until(&writer->wanted, writer->renew_at_ns);
        if (status < 0 && status != -EAGAIN && status != -ETIMEDOUT)
            break;
    }
    writer->running = false;
    waitq_wake_all(&writer->landed);
}

int ownership_publish(struct volume *volume, const struct root *root, struct error *error)
{
    struct register_writer *writer = &volume->writer;
    assert(writer->root_wanted == 0 && !writer->release && root->seq >= volume->body.newest.seq);
    uint64_t ticket = ++writer->root_tickets;
    writer->root = *root;
    writer->root_wanted = ticket;
    waitq_wake_all(&writer->wanted);
    int status = 0;
    while (writer->root_landed != ticket && writer->running && volume->state != VOLUME_FENCED && status == 0)
        status = waitq_wait(&writer->landed);
    if (writer->root_landed == ticket)
        return 0;
    writer->root_wanted = 0;
    if (status == -ECANCELED)
        return error_set(error, ECANCELED, "%s: its checkpoint was given up", volume->subject);
    return error_set(error, ESHUTDOWN, "%s is not ours any more: %s", volume->subject, volume->failure.story);
}

int ownership_release(struct volume *volume, struct error *error)
{
    struct register_writer *writer = &volume->writer;
    uint64_t deadline_ns = loop_now_ns(volume->loop) + OWNERSHIP_DEADLINE_NS;
    writer->release = true;
    writer->fresh_trouble = false;
    waitq_wake_all(&writer->wanted);
    int status = 0;
    while (writer->running && !writer->released && volume->state != VOLUME_FENCED && status == 0) {
        status = waitq_wait_until(&writer->landed, deadline_ns);
        if (writer->fresh_trouble && volume_is_hard(writer->trouble.code) && !writer->released)
            return error_copy(error, &writer->trouble);
        writer->fresh_trouble = false;
    }
    volume->returned = volume->returned || writer->released;
    if (writer->released)
        return 0;
    if (volume->state == VOLUME_FENCED)
        return error_set(error, ESHUTDOWN, "%s is not ours any more: %s", volume->subject, volume->failure.story);
    if (status == -ETIMEDOUT)
        return error_set(error, EIO, "%s: its register: %s", volume->subject,
                         writer->trouble.code != 0 ? writer->trouble.story : "the store does not answer");
    return error_set(error, ECANCELED, "given up");
}

void ownership_end(struct volume *volume)
{
    group_cancel(&volume->writer.group);
    group_join(&volume->writer.group);
}
