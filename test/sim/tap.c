/* See tap.h.
 *
 * A request of a process that has crashed fails: its caller is about to unwind,
 * and what it makes of the failure cannot be seen by anybody.  At
 * CRASH_BEFORE_CHANGE the answer is handed on to a caller that can do no harm
 * any more. */
#include "tap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "clone.h"

struct tap {
    struct store store;
    struct store *inner;
    struct node *node;
    bool cut, full;
};

/* One request on its way through. */
struct passage {
    struct tap *tap;
    uint64_t number;
    const char *verb;
    const char *key;
};

static struct tap *tap_of(struct store *store)
{
    return container_of(store, struct tap, store);
}

/* This request is the one at which an accident was ordered. */
static bool is_chosen(const struct passage *passage, enum crash_moment moment)
{
    const struct sim *sim = passage->tap->node->sim;
    return passage->number == sim->crash_at && sim->crash_moment == (int)moment;
}

/* The accident that was ordered for this request, unless it is one that has to be made in another way. */
static void have_accident(struct tap *tap)
{
    struct sim *sim = tap->node->sim;
    if (sim->pause_at_crash) {
        node_pause(tap->node);
        sim->paused_at_request = tap->node;
    } else {
        node_crash(tap->node);
    }
    sim->crash_at = sim->crash_again > 0 ? sim->requests + sim->crash_again : 0;
    sim->crash_again = 0;
    sim->pause_at_crash = false;
}

/* 0: go on. */
CO static int enter(struct passage *passage, struct store *store, const char *verb, const char *key)
{
    struct tap *tap = tap_of(store);
    struct sim *sim = tap->node->sim;
    *passage = (struct passage){ .tap = tap, .verb = verb, .key = key };
    if (tap->cut) {
        coroutine_yield(); /* whoever tries again at once must not stop the world */
        return -ENETDOWN;
    }
    passage->number = ++sim->requests;
    sim_trace(sim, "%s store %" PRIu64 " %s %s", tap->node->name, passage->number, verb, key);
    bool pause = sim->pause_at_crash;
    /* A process that is paused when its request is on the way will find the answer when it goes on. */
    if (is_chosen(passage, CRASH_BEFORE_SENDING) || (pause && is_chosen(passage, CRASH_UNANSWERED))) {
        bool sends_first = is_chosen(passage, CRASH_UNANSWERED);
        have_accident(tap);
        if (pause && !sends_first)
            coroutine_yield(); /* until somebody resumes it */
    }
    return tap->cut ? -ENETDOWN : 0;
}

CO static int finish(const struct passage *passage, int code)
{
    struct tap *tap = passage->tap;
    struct sim *sim = tap->node->sim;
    if (tap->cut)
        return -ENETDOWN;
    sim_trace(sim, "%s store %" PRIu64 " %s: %d", tap->node->name, passage->number, passage->verb, code);
    if (is_chosen(passage, CRASH_UNANSWERED)) {
        have_accident(tap);
        return -ENETDOWN;
    }
    if (is_chosen(passage, CRASH_BEFORE_CHANGE)) {
        bool pause = sim->pause_at_crash;
        have_accident(tap);
        if (pause)
            coroutine_yield();
        return pause && tap->cut ? -ENETDOWN : code;
    }
    return code;
}

static int told(int code, struct error *error)
{
    return code == -ENETDOWN ? error_set(error, ENETDOWN, "the process has crashed") : code;
}

/* See clone.c. */
static void part_from_original(struct node *node, const char *key)
{
    struct sim *sim = node->sim;
    for (int i = 0; i < sim->disk_count && sim->remote >= 0; i++)
        if (strcmp(sim->disks[i].register_key, key) == 0 && node_epoch(node, sim->disks[i].name) == 0)
            loop_sim_reseed(node->loop);
}

static int tap_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct passage passage;
    int code = enter(&passage, store, "get", get->key);
    if (code < 0)
        return told(code, error);
    node_asks(tap_of(store)->node, get->key);
    part_from_original(tap_of(store)->node, get->key);
    return told(finish(&passage, store_get(tap_of(store)->inner, get, ret_got, error)), error);
}

static void tell_register(struct node *node, const struct store_put *put)
{
    struct sim *sim = node->sim;
    if (strncmp(put->key, KEY_REGISTERS, strlen(KEY_REGISTERS)) != 0 || put->count != 1)
        return;
    if (sim->remote >= 0)
        clone_sends(sim, put->key, put->pieces[0].iov_base, put->pieces[0].iov_len);
    else
        tenure_sends(sim, node, UNIVERSE_ORIGINAL, put->key, put->pieces[0].iov_base, put->pieces[0].iov_len);
}

static int tap_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct passage passage;
    int code = enter(&passage, store, "put", put->key);
    if (code < 0)
        return told(code, error);
    tell_register(tap_of(store)->node, put);
    if (tap_of(store)->full) {
        sleep_ns(NS_PER_MS);
        return error_set_errno(error, ENOSPC, "put %s", put->key);
    }
    return told(finish(&passage, store_put(tap_of(store)->inner, put, ret_etag, error)), error);
}

static int tap_delete(struct store *store, const char *key, struct error *error)
{
    struct passage passage;
    int code = enter(&passage, store, "delete", key);
    if (code < 0)
        return told(code, error);
    return told(finish(&passage, store_delete(tap_of(store)->inner, key, error)), error);
}

static int tap_list(struct store *store, const char *prefix, const char *after, size_t limit,
                    struct store_listing *ret_listing, struct error *error)
{
    struct passage passage;
    int code = enter(&passage, store, "list", prefix);
    if (code < 0)
        return told(code, error);
    code = store_list(tap_of(store)->inner, prefix, after, limit, ret_listing, error);
    int outcome = finish(&passage, code);
    if (code == 0 && outcome != 0)
        store_listing_free(ret_listing);
    return told(outcome, error);
}

static uint64_t tap_date_ms(struct store *store)
{
    return store_date_ms(tap_of(store)->inner);
}

static void tap_describe(struct store *store, char *ret_text, size_t capacity)
{
    store_describe(tap_of(store)->inner, ret_text, capacity);
}

static void tap_close(struct store *store)
{
    struct tap *tap = tap_of(store);
    store_close(tap->inner);
    free(tap);
}

static const struct store_ops tap_ops = {
    .name = "tap",
    .get = tap_get,
    .put = tap_put,
    .delete = tap_delete,
    .list = tap_list,
    .date_ms = tap_date_ms,
    .describe = tap_describe,
    .close = tap_close,
};

struct tap *tap_new(struct node *node, struct store *inner)
{
    struct tap *tap = memory_new(sizeof *tap);
    tap->store.ops = &tap_ops;
    tap->inner = inner;
    tap->node = node;
    return tap;
}

struct store *tap_store(struct tap *tap)
{
    return &tap->store;
}

void tap_cut(struct tap *tap)
{
    tap->cut = true;
}

void tap_set_full(struct tap *tap, bool full)
{
    tap->full = full;
}
