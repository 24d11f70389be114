/* Whether a store keeps its promises: it is asked to, and what it did is looked at.
 *
 * The checks are a table, run in order; the first that fails ends the run, since
 * those behind it stand on it.  All objects are below probe/ and a random number
 * of this run, so that any number of runs may go on at once, also in a store
 * full of disks; all of them are deleted at the end, whatever came of it.
 *
 * What is held against a store is only what it said and showed itself:
 *
 *   told of success where the condition did not hold     it ignores the condition
 *   told of refusal where it did hold                    likewise, unless what was written is there after all: an
 *                                                        earlier attempt of the same request, whose answer was lost
 *   two winners of a race                                it checks and writes in two steps
 *   something else is read than was written last         its reads are stale
 *
 * A request whose outcome is unknown is no evidence.  Alone it is sent again,
 * identical, a few times; in a race the others still count, and a race that
 * nobody is known to have won is run again.
 *
 * Races and looks are made by many coroutines at once, and the store gives each
 * request under way a connection of its own: so it is several clients that
 * write, and several that see each write.
 *
 * The verdict names the store that was probed: a bucket that was copied to
 * another store with a verdict in it is probed again. */
#include "store/probe.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/text.h"
#include "rt/loop.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "store/store.h"

#define KEY_VERDICT "probe/verdict"
#define VERDICT_BYTES_MAX 1024
#define DESCRIPTION_MAX 512 /* with the bytes around it, less than a verdict may have */
/* Of the checks below: when one is added or changed, older verdicts are void. */
#define PROBE_VERSION 2

#define RUN_BYTES 16  /* of randomness in the names of a run */
#define KEY_BYTES 80  /* "probe/", the run, a name, a number, a NUL */
#define BODY_BYTES 96 /* run, name and number: no two writes of a run have the same */
/* A store that decides in two steps is caught by one round in two, as measured on some that do. */
#define RACE_ROUNDS 4
#define LOOKERS 4 /* clients that look at what another has written */

/* Of a request whose outcome is unknown, and of a race: one bad moment must not keep a server from starting. */
#define ATTEMPTS 5
#define PAUSE_NS (100 * NS_PER_MS) /* before the second attempt; then twice as long each time */

struct probe {
    struct loop *loop;
    struct store *store;
    char run[2 * RUN_BYTES + 1];
    char etag[STORE_ETAG_MAX];     /* of the object as it was written last */
    char old_etag[STORE_ETAG_MAX]; /* as it was before */
    char body[BODY_BYTES];         /* what was written last */
};

/* ---- one request ---- */

static void make_key(const struct probe *probe, const char *name, unsigned number, char ret_key[KEY_BYTES])
{
    int length = snprintf(ret_key, KEY_BYTES, "probe/%s-%s-%u", probe->run, name, number);

    assert(length < KEY_BYTES);
}

static void make_body(const struct probe *probe, const char *name, unsigned number, char ret_body[BODY_BYTES])
{
    int length = snprintf(ret_body, BODY_BYTES, "cairn tries this store: %s %s %u\n", probe->run, name, number);

    assert(length < BODY_BYTES);
}

static CO int put(struct probe *probe, const char *key, const char *body, enum store_condition condition,
                  const char *etag, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct iovec piece = { .iov_base = (char *)body, .iov_len = strlen(body) };
    struct store_put request = {
        .key = key, .pieces = &piece, .count = 1, .condition = condition, .etag = etag, .urgent = true
    }; /* none waits for another: that would be no race */

    return store_put(probe->store, &request, ret_etag, error);
}

/* At most BODY_BYTES - 1 bytes, and a NUL; "" where there is no such object. */
static CO int get(struct probe *probe, const char *key, char ret_body[BODY_BYTES], char ret_etag[STORE_ETAG_MAX],
                  struct error *error)
{
    struct iovec piece = { .iov_base = ret_body, .iov_len = BODY_BYTES - 1 };
    struct store_get request = { .key = key, .pieces = &piece, .count = 1 };
    struct store_got got;

    int result = store_get(probe->store, &request, &got, error);
    if (result == -ENOENT) {
        ret_body[0] = '\0';
        return 0;
    }
    if (result < 0)
        return result;
    ret_body[got.length] = '\0';
    if (ret_etag != NULL)
        memcpy(ret_etag, got.etag, STORE_ETAG_MAX);
    return 0;
}

/* Whether to try again, after a pause. */
static CO bool again(int result, unsigned attempt)
{
    if (result != -EIO && result != -EBUSY && result != -ETIMEDOUT && result != -ECONNRESET)
        return false;
    return attempt + 1 < ATTEMPTS && sleep_ns(PAUSE_NS << attempt) == 0;
}

/* ---- several clients look ---- */

struct look {
    struct probe *probe;
    const char *key;
    const char *body; /* what must be there; "" : nothing */
    int result;
    struct error error;
};

static CO void look_by_get(void *arg)
{
    struct look *look = arg;
    char body[BODY_BYTES];

    look->result = get(look->probe, look->key, body, NULL, &look->error);
    if (look->result == 0 && strcmp(body, look->body) != 0)
        look->result = error_set(&look->error, ENOTSUP, "a read right after it %s",
                                 body[0] == '\0' ? "found nothing" : "found something else than what was written last");
}

static CO void look_by_list(void *arg)
{
    struct look *look = arg;
    struct store_listing listing;
    bool listed = false, wanted = look->body[0] != '\0';

    look->result = store_list(look->probe->store, look->key, "", STORE_LIST_MAX, &listing, &look->error);
    if (look->result < 0)
        return;
    for (size_t i = 0; i < listing.count; i++)
        listed |= strcmp(listing.entries[i].key, look->key) == 0;
    store_listing_free(&listing);
    if (listed != wanted)
        look->result = error_set(&look->error, ENOTSUP, "a listing right after it %s",
                                 wanted ? "did not show what was written" : "still showed what was deleted");
}

/* 0: all of them saw it as it must be; else the first that did not. */
static CO int look_all(struct probe *probe, void (*fn)(void *arg), const char *key, const char *body,
                       struct error *error)
{
    struct look *looks = memory_array(LOOKERS, sizeof *looks);
    struct group group;
    int result = 0;

    group_init(&group, probe->loop);
    for (unsigned i = 0; i < LOOKERS; i++) {
        looks[i] = (struct look){ .probe = probe, .key = key, .body = body };
        group_spawn(&group, "look", fn, &looks[i]);
    }
    group_join(&group);
    for (unsigned i = 0; i < LOOKERS && result == 0; i++)
        if (looks[i].result < 0) {
            error_copy(error, &looks[i].error);
            result = looks[i].result;
        }
    free(looks);
    return result;
}

/* ---- the checks, one writer ---- */

/* Writes the object anew under a condition that holds. */
static CO int write_next(struct probe *probe, const char *name, enum store_condition condition, const char *given,
                         struct error *error)
{
    char key[KEY_BYTES], body[BODY_BYTES], etag[STORE_ETAG_MAX], there[BODY_BYTES];
    struct error why = ERROR_NONE;

    make_key(probe, "object", 0, key);
    make_body(probe, name, 0, body);
    int result;
    unsigned attempt = 0;
    do
        result = put(probe, key, body, condition, given, etag, &why);
    while (again(result, attempt++));
    if (result == -EEXIST || result == -ESTALE) { /* an earlier attempt of the same request may have done it */
        result = get(probe, key, there, etag, error);
        if (result == 0 && strcmp(there, body) != 0)
            result = error_set(error, ENOTSUP, "it was refused though its condition held (%s)", why.story);
    } else if (result < 0) {
        error_copy(error, &why);
    }
    if (result < 0)
        return result;
    strcpy(probe->old_etag, probe->etag);
    strcpy(probe->etag, etag);
    strcpy(probe->body, body);
    if (strcmp(probe->etag, probe->old_etag) == 0)
        return error_set(error, ENOTSUP, "the ETag stayed the same, %s, though the content is another", etag);
    return look_all(probe, look_by_get, key, body, error);
}

/* Tries to write an object under a condition that does not hold; `body`: what must be there afterwards. */
static CO int write_wrongly(struct probe *probe, const char *name, enum store_condition condition, const char *given,
                            const char *body, struct error *error)
{
    char key[KEY_BYTES], wrong[BODY_BYTES], etag[STORE_ETAG_MAX];

    make_key(probe, name, 0, key);
    make_body(probe, "wrong", condition, wrong);
    int result;
    unsigned attempt = 0;
    do
        result = put(probe, key, wrong, condition, given, etag, error);
    while (again(result, attempt++));
    if (result == 0)
        return error_set(error, ENOTSUP, "it was told to have succeeded: the store ignores the header %s",
                         condition == STORE_ABSENT ? "If-None-Match" : "If-Match");
    if (result != -EEXIST && result != -ESTALE)
        return result;
    result = look_all(probe, look_by_get, key, body, error);
    return result == -ENOTSUP ? error_context(error, "it was refused, but has changed the object") : result;
}

static CO int check_create_absent(struct probe *probe, struct error *error)
{
    return write_next(probe, "first", STORE_ABSENT, NULL, error);
}

static CO int check_create_existing(struct probe *probe, struct error *error)
{
    return write_wrongly(probe, "object", STORE_ABSENT, NULL, probe->body, error);
}

static CO int check_read_part(struct probe *probe, struct error *error)
{
    size_t length = strlen(probe->body), offset = length / 3, wanted = length / 3;
    char key[KEY_BYTES], part[BODY_BYTES];
    struct iovec piece = { .iov_base = part, .iov_len = wanted };
    struct store_get request = { .key = key, .offset = offset, .pieces = &piece, .count = 1 };
    struct store_got got;

    make_key(probe, "object", 0, key);
    int result = store_get(probe->store, &request, &got, error);
    if (result < 0)
        return result;
    if (got.size != length || memcmp(part, probe->body + offset, wanted) != 0)
        return error_set(error, ENOTSUP, "other bytes were sent than those that were asked for");
    return 0;
}

static CO int check_list(struct probe *probe, struct error *error)
{
    char key[KEY_BYTES];

    make_key(probe, "object", 0, key);
    return look_all(probe, look_by_list, key, probe->body, error);
}

static CO int check_replace_current(struct probe *probe, struct error *error)
{
    return write_next(probe, "second", STORE_MATCHES, probe->etag, error);
}

static CO int check_replace_read(struct probe *probe, struct error *error)
{
    char key[KEY_BYTES], body[BODY_BYTES], etag[STORE_ETAG_MAX] = "";

    make_key(probe, "object", 0, key);
    int result = get(probe, key, body, etag, error);
    if (result < 0)
        return result;
    if (strcmp(body, probe->body) != 0)
        return error_set(error, ENOTSUP, "a read found something else than what was written last");
    return write_next(probe, "third", STORE_MATCHES, etag, error);
}

static CO int check_replace_old(struct probe *probe, struct error *error)
{
    return write_wrongly(probe, "object", STORE_MATCHES, probe->old_etag, probe->body, error);
}

static CO int check_replace_absent(struct probe *probe, struct error *error)
{
    return write_wrongly(probe, "absent", STORE_MATCHES, probe->etag, "", error);
}

static CO int check_delete(struct probe *probe, struct error *error)
{
    char key[KEY_BYTES];

    make_key(probe, "object", 0, key);
    int result = store_delete(probe->store, key, error);
    if (result == 0)
        result = look_all(probe, look_by_get, key, "", error);
    return result == 0 ? look_all(probe, look_by_list, key, "", error) : result;
}

/* ---- the checks, many writers ---- */

struct racer {
    struct probe *probe;
    const char *key;
    enum store_condition condition;
    const char *etag;
    char body[BODY_BYTES];
    int result;
    struct error error;
};

static CO void run_racer(void *arg)
{
    struct racer *racer = arg;
    char etag[STORE_ETAG_MAX];

    racer->result = put(racer->probe, racer->key, racer->body, racer->condition, racer->etag, etag, &racer->error);
}

/* Nobody was told to have won: then what is there must be somebody's, who did not hear of it. */
static CO int judge_unheard(struct probe *probe, const struct racer *racers, struct error *error)
{
    const struct racer *unknown = NULL;
    char body[BODY_BYTES];

    for (unsigned i = 0; i < PROBE_RACERS; i++)
        if (racers[i].result != -EEXIST && racers[i].result != -ESTALE)
            unknown = &racers[i];
    int result = get(probe, racers[0].key, body, NULL, error);
    if (result < 0)
        return result;
    for (unsigned i = 0; i < PROBE_RACERS; i++)
        if (strcmp(body, racers[i].body) == 0)
            return 0;
    if (unknown != NULL)
        return error_copy(error, &unknown->error);
    return error_set(error, ENOTSUP, "all of %d writers were refused, though the condition held for one", PROBE_RACERS);
}

static CO int judge(struct probe *probe, const struct racer *racers, struct error *error)
{
    const struct racer *winner = NULL;
    unsigned winners = 0;

    for (unsigned i = 0; i < PROBE_RACERS; i++)
        if (racers[i].result == 0) {
            winner = &racers[i];
            winners++;
        }
    if (winners > 1)
        return error_set(error, ENOTSUP, "%u of %d writers were told to have succeeded, where only one can have",
                         winners, PROBE_RACERS);
    if (winner == NULL)
        return judge_unheard(probe, racers, error);
    int result = look_all(probe, look_by_get, winner->key, winner->body, error);
    return result == -ENOTSUP ? error_context(error, "the content is not the winner's") : result;
}

static CO int race(struct probe *probe, const char *name, unsigned round, enum store_condition condition,
                   const char *etag, struct error *error)
{
    struct racer *racers = memory_array(PROBE_RACERS, sizeof *racers);
    struct group group;
    char key[KEY_BYTES];

    make_key(probe, name, round, key);
    group_init(&group, probe->loop);
    int result;
    unsigned attempt = 0;
    do {
        for (unsigned i = 0; i < PROBE_RACERS; i++) {
            racers[i] = (struct racer){ .probe = probe, .key = key, .condition = condition, .etag = etag };
            make_body(probe, name, i, racers[i].body);
            group_spawn(&group, "racer", run_racer, &racers[i]);
        }
        group_join(&group);
        result = judge(probe, racers, error);
    } while (again(result, attempt++));
    free(racers);
    return result;
}

static CO int check_race_to_create(struct probe *probe, struct error *error)
{
    int result = 0;

    for (unsigned round = 0; round < RACE_ROUNDS && result == 0; round++)
        result = race(probe, "create", round, STORE_ABSENT, NULL, error);
    return result;
}

static CO int check_race_to_replace(struct probe *probe, struct error *error)
{
    int result = 0;

    for (unsigned round = 0; round < RACE_ROUNDS && result == 0; round++) {
        char key[KEY_BYTES], body[BODY_BYTES], etag[STORE_ETAG_MAX];
        make_key(probe, "replace", round, key);
        make_body(probe, "before", round, body);
        result = put(probe, key, body, STORE_ANY, NULL, etag, error);
        if (result == 0)
            result = race(probe, "replace", round, STORE_MATCHES, etag, error);
    }
    return result;
}

/* ---- the run ---- */

static const struct {
    const char *name;
    int (*fn)(struct probe *probe, struct error *error);
} checks[] = {
    { "create what is absent", check_create_absent },
    { "create what exists", check_create_existing },
    { "read a part", check_read_part },
    { "list what was written", check_list },
    { "replace, given the current ETag", check_replace_current },
    { "replace, given the ETag of a read", check_replace_read },
    { "replace, given an old ETag", check_replace_old },
    { "replace what is absent", check_replace_absent },
    { "16 writers create at once", check_race_to_create },
    { "16 writers replace at once", check_race_to_replace },
    { "read and list after a delete", check_delete },
};
#define CHECK_COUNT (sizeof checks / sizeof *checks)

static_assert(PROBE_RACERS == 16, "the names of the checks say so");

struct removal {
    struct probe *probe;
    char key[KEY_BYTES];
};

static CO void remove_object(void *arg)
{
    struct removal *removal = arg;
    struct error nobody_cares = ERROR_NONE;

    /* What stays is a few bytes; the next request will tell of a store that has gone. */
    (void)store_delete(removal->probe->store, removal->key, &nobody_cares);
}

static CO void clean_up(struct probe *probe)
{
    static const struct {
        const char *name;
        unsigned count;
    } made[] = { { "object", 1 }, { "absent", 1 }, { "create", RACE_ROUNDS }, { "replace", RACE_ROUNDS } };
    struct removal *removals = memory_array(2 + 2 * RACE_ROUNDS, sizeof *removals), *next = removals;
    struct group group;

    group_init(&group, probe->loop);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        for (unsigned number = 0; number < made[i].count; number++, next++) {
            next->probe = probe;
            make_key(probe, made[i].name, number, next->key);
            group_spawn(&group, "remove", remove_object, next);
        }
    group_join(&group);
    free(removals);
}

static int explain(const char *name, int result, struct error *error)
{
    if (result != -ENOTSUP)
        return error_context(error, "trying out the store, '%s'", name);
    error_context(error, "this store cannot keep disks safe: '%s'", name);
    size_t length = strlen(error->story);
    snprintf(error->story + length, sizeof error->story - length, "; " PROBE_KNOWN_TO_WORK);
    return -ENOTSUP;
}

CO int probe_run(struct loop *loop, struct store *store, void (*told)(void *arg, const struct probe_check *check),
                 void *arg, struct error *error)
{
    struct probe probe = { .loop = loop, .store = store };
    uint8_t random[RUN_BYTES];
    int result = 0;

    loop_random(loop, random, sizeof random);
    text_hex(random, sizeof random, probe.run);
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        struct error why = ERROR_NONE;
        int outcome = result < 0 ? 1 : checks[i].fn(&probe, &why);
        struct probe_check check = { .name = checks[i].name, .result = outcome, .error = &why };
        assert(outcome <= 0 || result < 0);
        if (told != NULL)
            told(arg, &check);
        if (outcome < 0) {
            result = explain(checks[i].name, outcome, &why);
            error_copy(error, &why);
        }
    }
    clean_up(&probe);
    return result;
}

/* ---- the verdict ---- */

/* All of a verdict but its time, which comes last. */
static void make_verdict(struct store *store, struct buffer *text)
{
    char description[DESCRIPTION_MAX];

    store_describe(store, description, sizeof description);
    buffer_printf(text, "cairn probe %d\n%s\npassed ", PROBE_VERSION, description);
}

/* What stands behind "passed ": when, and traits.  Whether they make sense, and it was not too long ago. */
static bool parse_verdict(struct loop *loop, const char *text, unsigned *ret_traits)
{
    unsigned long long then_s;
    int length = 0;
    if (sscanf(text, "%20llu\ntraits %8u\n%n", &then_s, ret_traits, &length) != 2 || length == 0 ||
        text[length] != '\0')
        return false;
    uint64_t now_s = loop_wall_ns(loop) / NS_PER_S;
    return then_s <= now_s && now_s - then_s < PROBE_VALID_S;
}

/* 1: there is one that holds; 0: there is none, or one that does not; -errno. */
static CO int read_verdict(struct loop *loop, struct store *store, unsigned *ret_traits, struct error *error)
{
    struct buffer expected = BUFFER_EMPTY;
    struct error why = ERROR_NONE;
    char text[VERDICT_BYTES_MAX + 1], etag[STORE_ETAG_MAX];
    uint8_t *bytes;
    size_t length;

    int result = store_get_whole(store, KEY_VERDICT, VERDICT_BYTES_MAX, &bytes, &length, etag, &why);
    if (result == -ENOENT || result == -EFBIG)
        return 0;
    if (result < 0)
        return error_copy(error, &why);
    memcpy(text, bytes, length);
    text[length] = '\0';
    free(bytes);
    make_verdict(store, &expected);
    if (length > expected.length && memcmp(text, expected.data, expected.length) == 0) {
        result = parse_verdict(loop, text + expected.length, ret_traits);
    }
    buffer_free(&expected);
    return result;
}

static CO void write_verdict(struct loop *loop, struct store *store, unsigned traits)
{
    struct error nobody_cares = ERROR_NONE;
    struct buffer text = BUFFER_EMPTY;

    make_verdict(store, &text);
    buffer_printf(&text, "%llu\ntraits %u\n", (unsigned long long)(loop_wall_ns(loop) / NS_PER_S), traits);
    struct iovec piece = { .iov_base = text.data, .iov_len = text.length };
    struct store_put put = { .key = KEY_VERDICT, .pieces = &piece, .count = 1, .condition = STORE_ANY };
    /* Without it the next start probes again: nothing is lost. */
    (void)store_put(store, &put, NULL, &nobody_cares);
    buffer_free(&text);
}

CO int probe_ensure(struct loop *loop, struct store *store, unsigned (*traits)(struct store *store),
                    unsigned *ret_traits, struct error *error)
{
    unsigned found = 0;
    int result = read_verdict(loop, store, &found, error);

    if (result < 0)
        return result;
    if (result == 0) {
        result = probe_run(loop, store, NULL, NULL, error);
        if (result < 0)
            return result;
        found = traits != NULL ? traits(store) : 0;
        write_verdict(loop, store, found);
    }
    if (traits != NULL)
        *ret_traits = found;
    return 0;
}
