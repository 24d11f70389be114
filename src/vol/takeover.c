/* Becoming the owner of a volume: when it may be taken, and the wait until then.
 *
 * The register says whether somebody has the volume.  It may be taken at once
 *   - when its owner has released it;
 *   - when the owner ran on this host in this boot and is gone: its lock file
 *     tells (daemon/host.c);
 *   - when it was we ourselves, who could not give it back;
 *   - when we were told to break the lease.
 * Otherwise its owner may be alive, and we wait until the register has not moved
 * (epoch, owner, counter) for a whole lease, as long as it is by the register
 * itself: an owner that lives renews it twice in that time, and one that was
 * paused does not answer its clients any more (vol/lease.c).  Both ends of that
 * time are ours, by our boot-time clock: from after the first answer that showed
 * it so, to before the request whose answer showed it still so.  Clocks of two
 * hosts are never compared.
 *
 *     read ──> free? ──────────────> take (CAS) ──> owner
 *      ^        │ held                  │ somebody else was faster
 *      │        v                       v
 *      └── wait a second ────────── wait 1 to 3 s
 *
 * The wait is for those who want the volume: each user gives up by itself
 * (vol/volume.c), and with the last of them the wait ends.  What was seen is
 * remembered, so that those who are refused and come again do not begin anew.
 *
 * Also remembered is what this process has written itself.  A register that is
 * behind that was put back to an older state by somebody (a backup, perhaps),
 * and one that is gone was removed; neither is mended by guessing: the volume is
 * refused, with what to do.  The log tells the same after a restart: it then has
 * entries of later owners than the register.  It can be read only by who has
 * taken the register, which is then put back as it was. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vol/internal.h"

#define TRANSIENT_TRIES 8
#define BACKOFF_FIRST_NS (20 * NS_PER_MS)
/* A look at somebody else's register about every second, and no fewer than ten within a lease. */
#define LOOK_NS NS_PER_S
#define LOOKS_OF_LEASE 10u
/* After losing a race for the register: the winner, and those who write for it, go first. */
#define CONFLICT_LEAST_NS (1 * NS_PER_S)
#define CONFLICT_SPAN_NS (2 * NS_PER_S)
#define WHY_MAX 80 /* of the words for why it was taken */

/* What a silence is measured by. */
static uint64_t clock_ns(const struct volume *volume)
{
    return MUTANT(wait_by_wall_clock) ? loop_wall_ns(volume->loop) : loop_boottime_ns(volume->loop);
}

/* ---- what is remembered ---- */

struct past {
    uint8_t name_hash[XXH128_BYTES];
    bool written; /* by us, and this is what was: */
    uint64_t epoch, counter;
    bool seen; /* in the hands of another: */
    struct sighting sighting;
};

static void hash_name(const struct volume *volume, uint8_t ret_hash[XXH128_BYTES])
{
    struct iovec name = { .iov_base = volume->name, .iov_len = volume->name_length };
    hash_xxh128(&name, 1, ret_hash);
}

static struct past *find_past(const struct volume *volume)
{
    struct volumes *all = volume->all;
    uint8_t hash[XXH128_BYTES];
    hash_name(volume, hash);
    for (uint32_t i = 0; i < PASTS_MAX && i < all->past_count; i++)
        if (memcmp(all->pasts[i].name_hash, hash, sizeof hash) == 0)
            return &all->pasts[i];
    return NULL;
}

/* The volume's, made when there is none; the oldest goes. */
static struct past *make_past(struct volume *volume)
{
    struct volumes *all = volume->all;
    struct past *past = find_past(volume);
    if (past != NULL)
        return past;
    if (all->pasts == NULL)
        all->pasts = memory_array(PASTS_MAX, sizeof *all->pasts);
    past = &all->pasts[all->past_count++ % PASTS_MAX];
    *past = (struct past){ .written = false };
    hash_name(volume, past->name_hash);
    return past;
}

void past_note(struct volume *volume)
{
    struct past *past = make_past(volume);
    past->written = true;
    past->epoch = volume->body.epoch;
    past->counter = volume->body.counter;
    past->seen = false;
}

static int refuse_gone(const struct volume *volume, struct error *error)
{
    const struct past *past = find_past(volume);
    if (past == NULL || !past->written)
        return 0;
    return error_set(error, EBADMSG,
                     "%s: its register, which this server has written (epoch %llu), is gone from the store; put it "
                     "back, or restart this server if the volume is meant to begin anew",
                     volume->subject, (unsigned long long)past->epoch);
}

static int refuse_older(const struct volume *volume, const struct register_body *body, struct error *error)
{
    const struct past *past = find_past(volume);
    if (past == NULL || !past->written || body->epoch > past->epoch ||
        (body->epoch == past->epoch && body->counter >= past->counter))
        return 0;
    return error_set(error, EBADMSG,
                     "%s: its register was put back to an older state (epoch %llu, write %llu; this server has written "
                     "epoch %llu, write %llu); nothing is written over it: put the newest one back, or restart this "
                     "server if all of the store was put back on purpose",
                     volume->subject, (unsigned long long)body->epoch, (unsigned long long)body->counter,
                     (unsigned long long)past->epoch, (unsigned long long)past->counter);
}

/* ---- what is refused ---- */

static int refuse_unknown(const struct volume *volume, const struct register_body *body, struct error *error)
{
    if ((body->features_incompatible & ~FEATURES_INCOMPATIBLE_KNOWN) != 0)
        return error_set(error, EPROTONOSUPPORT,
                         "%s needs features (bits 0x%llx) that this release does not have; "
                         "use a newer cairn",
                         volume->subject,
                         (unsigned long long)(body->features_incompatible & ~FEATURES_INCOMPATIBLE_KNOWN));
    if (body->state != REGISTER_LIVE)
        return error_set(error, EPROTONOSUPPORT, "%s is being deleted, or was deleted, by a newer cairn",
                         volume->subject);
    if (body->has_parent)
        return error_set(error, EPROTONOSUPPORT, "%s has a parent, which this release cannot read; use a newer cairn",
                         volume->subject);
    uint64_t size = body->newest.size;
    if (size == 0 || size % 512 != 0 || size > VOLUME_BYTES_MAX)
        return error_set(error, EBADMSG, "%s: its register gives it a size of %llu bytes, which no volume can have",
                         volume->subject, (unsigned long long)size);
    return refuse_older(volume, body, error);
}

int takeover_refuse(const struct volume *volume, struct error *error)
{
    const struct holder *holder = volume->holder;
    assert(holder != NULL);
    uint64_t silent_ns = clock_ns(volume) - holder->sighting.since_boottime_ns;
    return error_set(
        error, EBUSY,
        "%s is held by %s; that server %s %llu.%llu s ago; if it is gone for good, take the volume from it "
        "with: cairn break-lease",
        volume->subject, holder->text,
        holder->moved ? "has renewed its lease" : "has not renewed its lease since it was first looked at,",
        (unsigned long long)(silent_ns / NS_PER_S), (unsigned long long)(silent_ns % NS_PER_S / (NS_PER_S / 10)));
}

/* ---- looking and waiting ---- */

static bool is_transient(int status)
{
    return status < 0 && status != -ENOENT && status != -EBADMSG && status != -EMEDIUMTYPE &&
           status != -EPROTONOSUPPORT;
}

/* *ret_asked_ns: by the boot-time clock, before it was asked for. */
static int look(struct volume *volume, struct register_body *ret_body, char ret_etag[STORE_ETAG_MAX],
                uint64_t *ret_asked_ns, struct error *error)
{
    for (int i = 1;; i++) {
        *ret_asked_ns = clock_ns(volume);
        int status = ownership_read(volume, ret_body, ret_etag, error);
        if (!is_transient(status) || i == TRANSIENT_TRIES)
            return status;
        if (sleep_ns(BACKOFF_FIRST_NS << i) < 0)
            return error_set(error, ECANCELED, "opening was given up");
    }
}

/* Whether the owner that `body` names is one of this shard's volumes that ended without being given back. */
static bool is_unreturned(const struct volumes *all, const struct register_body *body)
{
    for (uint32_t i = 0; i < UNRETURNED_MAX && i < all->unreturned_next; i++)
        if (nonce_equal(&all->unreturned[i], &body->owner))
            return true;
    return false;
}

static bool is_same(const struct sighting *sighting, const struct register_body *body)
{
    return nonce_equal(&sighting->owner, &body->owner) && sighting->epoch == body->epoch &&
           (sighting->counter == body->counter || MUTANT(renewals_not_seen));
}

/* Keeps in mind that the register names another as its owner now. */
static void watch_holder(struct volume *volume, const struct register_body *body)
{
    struct past *past = make_past(volume);
    bool moved = volume->holder != NULL && volume->holder->moved;
    if (!past->seen || !is_same(&past->sighting, body)) {
        past->seen = true;
        past->sighting = (struct sighting){
            .owner = body->owner, .epoch = body->epoch, .counter = body->counter, .since_boottime_ns = clock_ns(volume)
        };
        moved = volume->holder != NULL;
    }
    if (volume->holder == NULL)
        volume->holder = memory_new(sizeof *volume->holder);
    *volume->holder =
        (struct holder){ .sighting = past->sighting, .lease_ms = lease_bounded_ms(body->lease_ms), .moved = moved };
    ownership_describe(body, volume->holder->text);
    waitq_wake_all(&volume->all->changed); /* those who do not want to wait */
}

/* Nobody is waited for any more. */
static void forget_holder(struct volume *volume)
{
    free(volume->holder);
    volume->holder = NULL;
}

static uint64_t patience_ns(const struct holder *holder)
{
    uint64_t lease_ns = holder->lease_ms * NS_PER_MS;
    return MUTANT(wait_not_whole_lease) ? lease_ns / 4 : lease_ns;
}

/* Whether the volume may be taken from its owner now, and why, in words. */
static bool may_take(struct volume *volume, const struct register_body *body, uint64_t asked_ns, char ret_why[WHY_MAX])
{
    struct volumes *all = volume->all;
    const char *why = NULL;
    if (all->settings.break_lease)
        why = "its lease is broken, as asked";
    else if (is_unreturned(all, body))
        why = "it was this server, which could not release it";
    else if (all->host->ops->owner_is_dead(all->host, body))
        why = "that process is gone";
    if (why != NULL) {
        snprintf(ret_why, WHY_MAX, "%s", why);
        return true;
    }
    watch_holder(volume, body);
    uint64_t since_ns = volume->holder->sighting.since_boottime_ns;
    uint64_t silent_ns = asked_ns > since_ns ? asked_ns - since_ns : 0;
    snprintf(ret_why, WHY_MAX, "it was silent for %llu s", (unsigned long long)(silent_ns / NS_PER_S));
    return silent_ns >= patience_ns(volume->holder);
}

static bool is_unwanted(const struct volume *volume)
{
    return volume->users == 0 || volume->all->stopping;
}

/* Until then, or until nobody waits for the volume any more: -EBUSY. */
static int wait_until(struct volume *volume, uint64_t deadline_ns, struct error *error)
{
    for (;;) {
        if (is_unwanted(volume)) {
            volume->abandoned = true;
            return volume->holder != NULL
                       ? takeover_refuse(volume, error)
                       : error_set(error, EBUSY, "%s: others keep taking it; try again", volume->subject);
        }
        int status = waitq_wait_until(&volume->attention, deadline_ns);
        if (status == -ECANCELED)
            return error_set(error, ECANCELED, "opening was given up");
        if (status == -ETIMEDOUT)
            return 0;
    }
}

/* Between two looks at a register that somebody holds. */
static int wait_for_holder(struct volume *volume, struct error *error)
{
    const struct holder *holder = volume->holder;
    uint64_t wait_ns = holder->lease_ms * NS_PER_MS / LOOKS_OF_LEASE;
    wait_ns = wait_ns < LOOK_NS ? wait_ns : LOOK_NS;
    wait_ns = wait_ns * 3 / 4 + loop_random_u64(volume->loop) % (wait_ns / 2 + 1);
    /* The last one as soon as the lease is over. */
    uint64_t silent_ns = clock_ns(volume) - holder->sighting.since_boottime_ns;
    uint64_t most_ns = patience_ns(holder);
    if (silent_ns < most_ns && most_ns - silent_ns < wait_ns)
        wait_ns = most_ns - silent_ns + NS_PER_MS;
    return wait_until(volume, loop_now_ns(volume->loop) + wait_ns, error);
}

static int wait_after_conflict(struct volume *volume, struct error *error)
{
    uint64_t wait_ns = CONFLICT_LEAST_NS + loop_random_u64(volume->loop) % CONFLICT_SPAN_NS;
    return wait_until(volume, loop_now_ns(volume->loop) + wait_ns, error);
}

/* ---- taking ---- */

/* The volume does not exist. 0, -EEXIST, or why it stays so. */
static int create(struct volume *volume, uint64_t *ret_committed, struct error *error)
{
    int status = refuse_gone(volume, error);
    if (status < 0)
        return status;
    if (volume->create_size == 0)
        return error_set(error, ENOENT, "%s does not exist", volume->subject);
    *ret_committed = 0;
    return ownership_create(volume, volume->create_size, error);
}

/* Its register reads `body`. 0, -EAGAIN: not yet, -ESTALE: it changed, or why it cannot be opened. */
static int take(struct volume *volume, const struct register_body *body, const char *etag, uint64_t asked_ns,
                uint64_t *ret_committed, struct error *error)
{
    int status = refuse_unknown(volume, body, error);
    if (status < 0)
        return status;
    char why[WHY_MAX];
    if (body->held && !may_take(volume, body, asked_ns, why))
        return -EAGAIN;
    forget_holder(volume);
    status = ownership_take(volume, body, etag, error);
    if (status < 0)
        return status;
    *ret_committed = body->committed;
    char owner[OWNER_TEXT_MAX];
    ownership_describe(body, owner);
    if (body->held)
        event_raise(volume->all->events, EVENT_INFO, volume->subject, "took over from %s: %s", owner, why);
    return 0;
}

int takeover_recheck(struct volume *volume, struct error *error)
{
    int status = ownership_confirm(volume, error);
    if (status < 0)
        return status;
    volume->put_back = true;
    return error_set(
        error, EBADMSG,
        "%s: its log has entries of owners that its register (epoch %llu) does not know yet: the register was "
        "put back to an older state; it is left as it was: put the newest one back",
        volume->subject, (unsigned long long)volume->replaced.epoch);
}

int takeover(struct volume *volume, uint64_t *ret_committed, struct error *error)
{
    int status;
    for (;;) {
        struct register_body body;
        char etag[STORE_ETAG_MAX];
        uint64_t asked_ns;
        status = look(volume, &body, etag, &asked_ns, error);
        if (status == -ENOENT) {
            status = create(volume, ret_committed, error);
        } else if (status == 0) {
            status = take(volume, &body, etag, asked_ns, ret_committed, error);
            register_free(&body);
        }
        if (status == -EAGAIN)
            status = wait_for_holder(volume, error);
        else if (status == -ESTALE || status == -EEXIST)
            status = wait_after_conflict(volume, error);
        else
            break;
        if (status < 0)
            break;
    }
    forget_holder(volume);
    return status;
}
