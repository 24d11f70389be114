/* The credential chain: what is at hand, how long it lasts, and one refresh at a time.
 *
 * What is at hand is, by the wall clock:
 *
 *     none      nothing yet: a get waits for a refresh
 *     fresh     a get returns it at once
 *     ageing    from `renew_s` on: a get returns it at once, and starts a refresh in the background
 *     stale     from `wait_s` on, or when the store has refused it: a get waits for a refresh
 *     expired   from `expires_s` on: likewise, and it is not returned any more
 *
 * A refresh is a task of the chain's own, so a get that is cancelled does not
 * cut off the others, however many wait.  It asks the source, and either
 * replaces what is at hand or leaves it.  After one that failed, none is started
 * before `retry_ns`, by a back-off that grows: meanwhile a get returns what has
 * not expired, or the failure's story.
 *
 * Gets drive everything: nothing runs while nobody asks, and a clock that jumps
 * or a host that was suspended needs no thought.  A volume renews its lease every
 * few seconds, so a get is never far.
 *
 * Invariants: secrets change only in adopt(), in the refresh's task; a
 * generation belongs to exactly one set of secrets. */
#include "store/credentials.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/event.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "store/credentials_internal.h"

/* The AWS SDKs' two windows. */
#define RENEW_AHEAD_S UINT64_C(900)
#define WAIT_AHEAD_S UINT64_C(600)
/* Servers that were started together do not ask together. */
#define JITTER_MAX_S UINT64_C(60)
/* After failures.  The longest is what an outage of a token service costs after its end, at most. */
#define BACKOFF_FIRST_NS (1 * NS_PER_S)
#define BACKOFF_MAX_NS (20 * NS_PER_S)
/* A store that refuses what was just asked for anew: the source is not to blame, and not asked again at once. */
#define REFUSED_PAUSE_NS (10 * NS_PER_S)

enum freshness { NONE, FRESH, AGEING, STALE, EXPIRED };

struct credential_chain {
    struct credentials_setup setup;
    struct sourcing sourcing;
    enum credential_source source; /* meaningful once generation > 0 */

    struct secrets secrets; /* of the generation, when that is not 0 */
    uint64_t generation;
    uint64_t renew_s, wait_s; /* wall clock; UINT64_MAX: never */
    bool refused;             /* by the store */
    uint64_t refused_until_ns;

    struct group group;
    struct waitq refreshed;
    bool refreshing;
    unsigned failures; /* in a row */
    uint64_t retry_ns;
    struct error failure; /* the last, while failures > 0 */
    bool told_expired;
};

static uint64_t wall_s(const struct credential_chain *chain)
{
    return loop_wall_ns(chain->sourcing.loop) / NS_PER_S;
}

static enum freshness freshness(const struct credential_chain *chain)
{
    if (chain->generation == 0)
        return NONE;
    if (chain->secrets.expires_s == UINT64_MAX)
        return chain->refused ? STALE : FRESH;
    uint64_t now_s = wall_s(chain);
    if (now_s >= chain->secrets.expires_s)
        return EXPIRED;
    if (chain->refused || now_s >= chain->wait_s)
        return STALE;
    return now_s >= chain->renew_s ? AGEING : FRESH;
}

/* ---- one refresh ---- */

static void format_time(uint64_t time_s, char ret_text[32])
{
    time_t time = (time_t)time_s;
    struct tm parts;
    gmtime_r(&time, &parts);
    strftime(ret_text, 32, "%Y-%m-%d %H:%M:%S UTC", &parts);
}

static void set_windows(struct credential_chain *chain)
{
    chain->renew_s = chain->wait_s = UINT64_MAX;
    if (chain->secrets.expires_s == UINT64_MAX)
        return;
    uint64_t now_s = wall_s(chain);
    uint64_t life_s = chain->secrets.expires_s - now_s;
    uint64_t renew_in_s = life_s > 2 * RENEW_AHEAD_S ? life_s - RENEW_AHEAD_S : life_s / 2;
    uint64_t wait_in_s = life_s > 3 * WAIT_AHEAD_S ? life_s - WAIT_AHEAD_S : life_s * 2 / 3;
    uint64_t between_s = wait_in_s - renew_in_s;
    uint64_t jitter_s = between_s / 2 < JITTER_MAX_S ? between_s / 2 : JITTER_MAX_S;
    chain->renew_s = now_s + renew_in_s + loop_random_u64(chain->sourcing.loop) % (jitter_s + 1);
    chain->wait_s = now_s + wait_in_s;
    assert(chain->renew_s <= chain->wait_s && chain->wait_s <= chain->secrets.expires_s);
}

static void tell_adopted(const struct credential_chain *chain, bool first)
{
    char until[32] = "without an end";
    if (chain->secrets.expires_s != UINT64_MAX)
        format_time(chain->secrets.expires_s, until);
    /* What each thread finds, and each hour's renewal, is no news; that it works again is. */
    enum event_level level = chain->failures > 0 ? EVENT_INFO : EVENT_DEBUG;
    event_raise(chain->setup.events, level, "credentials", "%s: %s, valid %s%s", first ? "found" : "refreshed",
                chain->secrets.source, chain->secrets.expires_s != UINT64_MAX ? "until " : "", until);
}

/* Takes over `next`. */
static void adopt(struct credential_chain *chain, struct secrets *next)
{
    bool first = chain->generation == 0;
    if (first || !secrets_same(&chain->secrets, next))
        chain->generation++;
    if (chain->refused)
        chain->refused_until_ns = loop_now_ns(chain->sourcing.loop) + REFUSED_PAUSE_NS;
    secrets_free(&chain->secrets);
    chain->secrets = *next;
    set_windows(chain);
    tell_adopted(chain, first);
    chain->failures = 0;
    chain->told_expired = false;
}

static void tell_failed(struct credential_chain *chain)
{
    char until[32];
    if (chain->generation == 0)
        return; /* whoever asks is told */
    if (freshness(chain) == EXPIRED) {
        if (!chain->told_expired)
            event_raise(chain->setup.events, EVENT_ERROR, "credentials", "expired, and cannot be refreshed: %s",
                        chain->failure.story);
        chain->told_expired = true;
    } else if (chain->failures == 1 && chain->secrets.expires_s == UINT64_MAX) {
        event_raise(chain->setup.events, EVENT_WARNING, "credentials", "cannot be read again: %s",
                    chain->failure.story);
    } else if (chain->failures == 1) {
        format_time(chain->secrets.expires_s, until);
        event_raise(chain->setup.events, EVENT_WARNING, "credentials",
                    "cannot be refreshed, those at hand are valid until %s: %s", until, chain->failure.story);
    }
}

static void fail(struct credential_chain *chain, const struct error *error)
{
    struct loop *loop = chain->sourcing.loop;
    chain->failure = *error;
    chain->failures++;
    uint64_t backoff_ns = chain->failures < 8 ? BACKOFF_FIRST_NS << (chain->failures - 1) : BACKOFF_MAX_NS;
    if (backoff_ns > BACKOFF_MAX_NS)
        backoff_ns = BACKOFF_MAX_NS;
    /* Half fixed, half random: servers that failed together do not come back together. */
    chain->retry_ns = loop_now_ns(loop) + backoff_ns / 2 + loop_random_u64(loop) % (backoff_ns / 2 + 1);
    tell_failed(chain);
}

static int check_expiry(const struct credential_chain *chain, const struct secrets *next, struct error *error)
{
    char expired[32], now[32];
    if (next->expires_s > wall_s(chain))
        return 0;
    format_time(next->expires_s, expired);
    format_time(wall_s(chain), now);
    return error_set(error, EIO, "%s: expired on %s, by this machine's clock (%s)", next->source, expired, now);
}

static void refresh(void *arg)
{
    struct credential_chain *chain = arg;
    struct error error = ERROR_NONE;
    struct secrets next;
    int failed = chain->generation == 0 ? credential_source_first(&chain->sourcing, &chain->source, &next, &error)
                                        : credential_source_again(&chain->sourcing, chain->source, &next, &error);
    if (failed == 0) {
        failed = check_expiry(chain, &next, &error);
        if (failed != 0)
            secrets_free(&next);
    }
    if (failed == 0)
        adopt(chain, &next);
    else if (!coroutine_cancelled())
        fail(chain, &error);
    chain->refused = false;
    chain->refreshing = false;
    waitq_wake_all(&chain->refreshed);
}

static bool may_refresh(const struct credential_chain *chain)
{
    return !chain->refreshing && (chain->failures == 0 || loop_now_ns(chain->sourcing.loop) >= chain->retry_ns);
}

static void start_refresh(struct credential_chain *chain)
{
    chain->refreshing = true;
    group_spawn(&chain->group, "refresh credentials", refresh, chain);
}

/* ---- for callers ---- */

int credential_chain_get(struct credential_chain *chain, struct credentials *ret_credentials, struct error *error)
{
    enum freshness now;
    for (;;) {
        now = freshness(chain);
        if (now == FRESH)
            break;
        if (may_refresh(chain))
            start_refresh(chain);
        if (now == AGEING || !chain->refreshing)
            break;
        if (waitq_wait(&chain->refreshed) != 0)
            return error_set(error, ECANCELED, "waiting for credentials was given up");
    }
    if (now == NONE)
        return error_copy(error, &chain->failure);
    if (now == EXPIRED) {
        error_copy(error, &chain->failure);
        return error_context(error, "the credentials have expired, and cannot be refreshed");
    }
    *ret_credentials = (struct credentials){
        .access_key = chain->secrets.access_key,
        .secret_key = chain->secrets.secret_key,
        .token = chain->secrets.token,
        .generation = chain->generation,
    };
    return 0;
}

bool credential_chain_refused(struct credential_chain *chain, uint64_t generation)
{
    if (generation != chain->generation)
        return true;
    if (generation == 0 || !credential_source_can_change(chain->source))
        return false;
    if (chain->refreshing)
        return true;
    if (!may_refresh(chain) || loop_now_ns(chain->sourcing.loop) < chain->refused_until_ns)
        return false;
    chain->refused = true;
    return true;
}

const char *credential_chain_source(const struct credential_chain *chain)
{
    return chain->generation > 0 ? chain->secrets.source : "";
}

/* ---- from start to end ---- */

static char *copy_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? memory_string(text) : NULL;
}

int credential_chain_new(struct loop *loop, struct http *http, const struct credentials_setup *setup,
                         struct credential_chain **ret_chain, struct error *error)
{
    bool access_key = setup->access_key != NULL && setup->access_key[0] != '\0';
    bool secret_key = setup->secret_key != NULL && setup->secret_key[0] != '\0';
    if (access_key != secret_key)
        return error_set(error, EINVAL, "an access key and a secret key belong together: the %s key is missing",
                         access_key ? "secret" : "access");
    int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0)
        return error_set_errno(error, errno, "make an eventfd");
    struct credential_chain *chain = memory_new(sizeof *chain);
    chain->setup = (struct credentials_setup){
        .access_key = copy_or_null(setup->access_key),
        .secret_key = copy_or_null(setup->secret_key),
        .session_token = copy_or_null(setup->session_token),
        .profile = copy_or_null(setup->profile),
        .region = copy_or_null(setup->region),
        .local_defaults = setup->local_defaults,
        .events = setup->events,
    };
    chain->sourcing = (struct sourcing){ .loop = loop, .http = http, .setup = &chain->setup, .stop_fd = stop_fd };
    group_init(&chain->group, loop);
    waitq_init(&chain->refreshed);
    *ret_chain = chain;
    return 0;
}

void credential_chain_close(struct credential_chain *chain)
{
    if (chain == NULL)
        return;
    assert(waitq_empty(&chain->refreshed));
    uint64_t stop = 1;
    ssize_t written = write(chain->sourcing.stop_fd, &stop, sizeof stop);
    assert(written == sizeof stop);
    group_cancel(&chain->group);
    group_join(&chain->group);
    close(chain->sourcing.stop_fd);
    secrets_free(&chain->secrets);
    secret_free((char *)chain->setup.access_key);
    secret_free((char *)chain->setup.secret_key);
    secret_free((char *)chain->setup.session_token);
    free((char *)chain->setup.profile);
    free((char *)chain->setup.region);
    free(chain);
}
