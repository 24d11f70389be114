/* A bad connection to a store: see store/fault.h.
 *
 * A request is copied when it is made, with all its bytes, so that it can be
 * applied at any later time and more than once, although its caller, and the
 * whole server of its caller, may be gone.  It has these stations, each an event
 * of the world:
 *
 *     made -> landed: applied, its outcome kept -> answered: the caller is woken
 *
 * Fates leave out a station, repeat one or move it.  The caller waits for the
 * answer in its own coroutine, and only there are results given to it; when it is
 * cancelled or cut off it leaves, and the request goes on without it.
 *
 * A request is freed when its caller has left and no event knows it any more; a
 * closed wrapper is freed with its last request. */
#include "store/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "rt/loop_sim.h"
#include "rt/wait.h"

enum verb { VERB_GET, VERB_PUT, VERB_DELETE, VERB_LIST };

static const char *const verb_names[] = { "get", "put", "delete", "list" };

struct fault {
    struct store store;
    struct world *world;
    struct store *inner;
    struct fault_settings settings;
    uint64_t made;       /* requests so far */
    uint64_t date_ms;    /* the latest that an answer bore */
    struct list waiting; /* requests whose callers wait */
    struct list scripts;
    size_t requests; /* not yet freed */
    bool cut, closed;
};

struct script {
    struct list link;
    uint64_t number;
    enum fault_fate fate;
    void (*reached)(void *arg);
    void *arg;
};

struct outcome {
    int failed;
    struct error error;
    struct store_got got;
    uint8_t *bytes;            /* of a get */
    char etag[STORE_ETAG_MAX]; /* of a put */
    struct store_listing listing;
};

struct request {
    struct fault *fault;
    struct list link; /* waiting */
    struct waitq answer;
    bool answered;
    uint64_t date_ms;      /* that the answer bears */
    bool dropped;          /* was on its way when the connection was cut, and is lost */
    unsigned users;        /* the caller, and events */
    struct script *script; /* owned; NULL: left to chance */

    enum verb verb;
    enum fault_fate fate;
    char *key;       /* or prefix */
    uint64_t offset; /* get */
    size_t length;   /* of bytes: to put, or wanted */
    uint8_t *bytes;  /* put: the body */
    enum store_condition condition;
    char etag[STORE_ETAG_MAX];
    char *after; /* list */
    size_t limit;

    struct outcome outcome; /* what the caller will get */
};

static struct fault *fault_of(struct store *store)
{
    return container_of(store, struct fault, store);
}

/* ---- lives and times ---- */

static void outcome_clear(struct outcome *outcome)
{
    free(outcome->bytes);
    store_listing_free(&outcome->listing);
    *outcome = (struct outcome){ 0 };
}

static void fault_free(struct fault *fault)
{
    struct list *link;
    while ((link = list_pop_front(&fault->scripts)) != NULL)
        free(container_of(link, struct script, link));
    store_close(fault->inner);
    free(fault);
}

static void release(struct request *request)
{
    assert(request->users > 0);
    if (--request->users > 0)
        return;
    struct fault *fault = request->fault;
    outcome_clear(&request->outcome);
    free(request->script);
    free(request->after);
    free(request->bytes);
    free(request->key);
    free(request);
    fault->requests--;
    if (fault->closed && fault->requests == 0)
        fault_free(fault);
}

static uint64_t draw(struct fault *fault, const struct fault_range *range)
{
    assert(range->min_ns <= range->max_ns);
    return range->min_ns + world_random(fault->world, range->max_ns - range->min_ns + 1);
}

/* The event keeps the request; its function releases it. */
static void schedule(struct request *request, uint64_t delay_ns, void (*station)(void *arg))
{
    request->users++;
    world_after(request->fault->world, delay_ns, station, request);
}

/* ---- stations ---- */

static void apply_get(const struct request *request, struct outcome *outcome)
{
    outcome->bytes = memory_resize(NULL, request->length, 1);
    struct iovec piece = { .iov_base = outcome->bytes, .iov_len = request->length };
    const struct store_get get = { .key = request->key, .offset = request->offset, .pieces = &piece, .count = 1 };
    outcome->failed = store_get(request->fault->inner, &get, &outcome->got, &outcome->error);
}

static void apply_put(const struct request *request, struct outcome *outcome)
{
    struct iovec piece = { .iov_base = request->bytes, .iov_len = request->length };
    const struct store_put put = { .key = request->key,
                                   .pieces = &piece,
                                   .count = 1,
                                   .condition = request->condition,
                                   .etag = request->condition == STORE_MATCHES ? request->etag : NULL };
    outcome->failed = store_put(request->fault->inner, &put, outcome->etag, &outcome->error);
}

static void apply(const struct request *request, struct outcome *outcome)
{
    struct store *inner = request->fault->inner;
    switch (request->verb) {
    case VERB_GET:
        apply_get(request, outcome);
        break;
    case VERB_PUT:
        apply_put(request, outcome);
        break;
    case VERB_DELETE:
        outcome->failed = store_delete(inner, request->key, &outcome->error);
        break;
    case VERB_LIST:
        outcome->failed =
            store_list(inner, request->key, request->after, request->limit, &outcome->listing, &outcome->error);
        break;
    }
    world_trace(request->fault->world, request->key, strlen(request->key));
    world_trace(request->fault->world, &outcome->failed, sizeof outcome->failed);
}

static void call_script(struct request *request)
{
    struct script *script = request->script;
    if (script != NULL && script->reached != NULL)
        script->reached(script->arg);
}

static void answer(void *arg)
{
    struct request *request = arg;
    struct fault *fault = request->fault;
    if (request->date_ms > fault->date_ms && !fault->cut)
        fault->date_ms = request->date_ms;
    if (!request->answered) {
        request->answered = true;
        waitq_wake_all(&request->answer);
    }
    release(request);
}

static void land_unseen(void *arg)
{
    struct request *request = arg;
    if (!request->dropped) {
        struct outcome outcome = { 0 };
        apply(request, &outcome);
        outcome_clear(&outcome);
    }
    release(request);
}

/* As land_unseen, for the fates whose caller learns nothing of it. */
static void land_and_call(void *arg)
{
    struct request *request = arg;
    request->users++;
    land_unseen(request);
    call_script(request);
    release(request);
}

static void land(void *arg)
{
    struct request *request = arg;
    struct fault *fault = request->fault;
    if (!request->dropped) {
        apply(request, &request->outcome);
        request->date_ms = store_date_ms(fault->inner);
        schedule(request, draw(fault, &fault->settings.way_back), answer);
        call_script(request);
    }
    release(request);
}

static void call_only(void *arg)
{
    call_script(arg);
    release(arg);
}

/* ---- fates ---- */

static bool changes(enum verb verb)
{
    return verb == VERB_PUT || verb == VERB_DELETE;
}

static enum fault_fate draw_fate(struct fault *fault, enum verb verb)
{
    const struct fault_settings *settings = &fault->settings;
    const uint32_t permille[] = {
        [FAULT_LOST] = settings->lost_permille,
        [FAULT_REFUSED] = settings->refused_permille,
        [FAULT_UNANSWERED] = settings->unanswered_permille,
        [FAULT_FAILED] = settings->failed_permille,
        [FAULT_DELAYED] = changes(verb) ? settings->delayed_permille : 0,
        [FAULT_REPEATED] = changes(verb) ? settings->repeated_permille : 0,
        [FAULT_RESENT] = changes(verb) ? settings->resent_permille : 0,
        [FAULT_SHORT] = verb == VERB_GET ? settings->short_permille : 0,
    };
    for (int fate = 0; fate < FAULT_NONE; fate++)
        if (permille[fate] > 0 && world_chance(fault->world, permille[fate]))
            return (enum fault_fate)fate;
    return FAULT_NONE;
}

static void will_fail(struct request *request, int code, const char *why, uint64_t delay_ns)
{
    request->outcome.failed =
        error_set(&request->outcome.error, code, "%s %s: %s", verb_names[request->verb], request->key, why);
    schedule(request, delay_ns, answer);
}

static void set_out(struct request *request)
{
    struct fault *fault = request->fault;
    const struct fault_settings *settings = &fault->settings;
    uint64_t there_ns = draw(fault, &settings->way_there), back_ns = draw(fault, &settings->way_back);
    uint64_t timeout_ns = there_ns + back_ns + draw(fault, &settings->timeout), late_ns = draw(fault, &settings->late);
    switch (request->fate) {
    case FAULT_LOST:
        schedule(request, 0, call_only);
        will_fail(request, ETIMEDOUT, "no answer", timeout_ns);
        break;
    case FAULT_REFUSED:
        schedule(request, there_ns, call_only);
        will_fail(request, EIO, "503 Service Unavailable", there_ns + back_ns);
        break;
    case FAULT_UNANSWERED:
        schedule(request, there_ns, land_and_call);
        will_fail(request, ETIMEDOUT, "no answer", timeout_ns);
        break;
    case FAULT_FAILED:
        schedule(request, there_ns, land_and_call);
        will_fail(request, EIO, "500 Internal Server Error", there_ns + back_ns);
        break;
    case FAULT_DELAYED:
        schedule(request, 0, call_only);
        will_fail(request, ETIMEDOUT, "no answer", timeout_ns);
        schedule(request, timeout_ns + late_ns, land_unseen);
        break;
    case FAULT_REPEATED:
        schedule(request, there_ns, land);
        schedule(request, there_ns + late_ns, land_unseen);
        break;
    case FAULT_RESENT:
        schedule(request, there_ns, land_unseen);
        schedule(request, there_ns, land);
        break;
    case FAULT_SHORT:
    case FAULT_NONE:
        schedule(request, there_ns, land);
        break;
    }
}

/* ---- the caller's side ---- */

static struct request *request_new(struct fault *fault, enum verb verb, const char *key)
{
    struct request *request = memory_new(sizeof *request);
    request->fault = fault;
    request->verb = verb;
    request->key = memory_string(key);
    request->users = 1;
    list_init(&request->link);
    waitq_init(&request->answer);
    fault->requests++;
    return request;
}

static struct script *take_script(struct fault *fault, uint64_t number)
{
    list_for_each (link, &fault->scripts) {
        struct script *script = container_of(link, struct script, link);
        if (script->number == number) {
            list_remove(link);
            return script;
        }
    }
    return NULL;
}

/* Until there is an answer: 0, its outcome in `request`; or the caller must leave without: -errno.  attempt_ms as in
 * store.h. */
CO static int ask(struct request *request, uint64_t attempt_ms, struct error *error)
{
    struct fault *fault = request->fault;
    const char *verb = verb_names[request->verb];
    fault->made++;
    if (!fault->cut) {
        request->script = take_script(fault, fault->made);
        request->fate = request->script != NULL ? request->script->fate : draw_fate(fault, request->verb);
        set_out(request);
    }
    list_push_back(&fault->waiting, &request->link);
    int failed = 0;
    uint64_t deadline_ns =
        attempt_ms == 0 ? UINT64_MAX : loop_now_ns(coroutine_loop(coroutine_self())) + attempt_ms * NS_PER_MS;
    while (!request->answered && !fault->cut && failed == 0)
        failed = waitq_wait_until(&request->answer, deadline_ns);
    list_remove(&request->link);
    if (fault->cut)
        return error_set_errno(error, ENETDOWN, "%s %s", verb, request->key);
    if (!request->answered)
        return error_set(error, -failed, "%s %s: given up", verb, request->key);
    return 0;
}

/* The end of every call. */
static int leave(struct request *request, int failed, struct error *error)
{
    if (failed == 0 && request->outcome.failed != 0)
        failed = error_copy(error, &request->outcome.error);
    release(request);
    return failed;
}

static void scatter(const struct iovec *pieces, int count, const uint8_t *bytes, size_t length)
{
    for (int i = 0; i < count && length > 0; i++) {
        size_t part = pieces[i].iov_len < length ? pieces[i].iov_len : length;
        if (part > 0)
            memcpy(pieces[i].iov_base, bytes, part);
        bytes += part;
        length -= part;
    }
}

static int fault_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct request *request = request_new(fault_of(store), VERB_GET, get->key);
    request->offset = get->offset;
    for (int i = 0; i < get->count; i++)
        request->length += get->pieces[i].iov_len;
    int failed = ask(request, get->attempt_ms, error);
    struct outcome *outcome = &request->outcome;
    if (failed == 0 && outcome->failed == 0) {
        if (request->fate == FAULT_SHORT)
            outcome->got.length /= 2;
        scatter(get->pieces, get->count, outcome->bytes, (size_t)outcome->got.length);
        *ret_got = outcome->got;
    }
    return leave(request, failed, error);
}

static int fault_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                     struct error *error)
{
    struct request *request = request_new(fault_of(store), VERB_PUT, put->key);
    for (int i = 0; i < put->count; i++)
        request->length += put->pieces[i].iov_len;
    request->bytes = memory_resize(NULL, request->length, 1);
    size_t at = 0;
    for (int i = 0; i < put->count; i++) {
        if (put->pieces[i].iov_len > 0)
            memcpy(request->bytes + at, put->pieces[i].iov_base, put->pieces[i].iov_len);
        at += put->pieces[i].iov_len;
    }
    request->condition = put->condition;
    if (put->condition == STORE_MATCHES)
        memcpy(request->etag, put->etag, strlen(put->etag) + 1);
    int failed = ask(request, put->attempt_ms, error);
    if (failed == 0 && request->outcome.failed == 0 && ret_etag != NULL)
        memcpy(ret_etag, request->outcome.etag, STORE_ETAG_MAX);
    return leave(request, failed, error);
}

static int fault_delete(struct store *store, const char *key, struct error *error)
{
    struct request *request = request_new(fault_of(store), VERB_DELETE, key);
    int failed = ask(request, 0, error);
    return leave(request, failed, error);
}

static int fault_list(struct store *store, const char *prefix, const char *after, size_t limit,
                      struct store_listing *ret_listing, struct error *error)
{
    struct request *request = request_new(fault_of(store), VERB_LIST, prefix);
    request->after = memory_string(after);
    request->limit = limit;
    int failed = ask(request, 0, error);
    if (failed == 0 && request->outcome.failed == 0) {
        *ret_listing = request->outcome.listing;
        request->outcome.listing = (struct store_listing){ 0 };
    }
    return leave(request, failed, error);
}

static uint64_t fault_date_ms(struct store *store)
{
    return fault_of(store)->date_ms;
}

static void fault_describe(struct store *store, char *ret_text, size_t capacity)
{
    store_describe(fault_of(store)->inner, ret_text, capacity);
}

static void fault_close(struct store *store)
{
    struct fault *fault = fault_of(store);
    assert(list_empty(&fault->waiting) && !fault->closed);
    fault->closed = true;
    if (fault->requests == 0)
        fault_free(fault);
}

static const struct store_ops fault_ops = {
    .name = "fault",
    .get = fault_get,
    .put = fault_put,
    .delete = fault_delete,
    .list = fault_list,
    .date_ms = fault_date_ms,
    .describe = fault_describe,
    .close = fault_close,
};

struct store *store_fault_new(struct world *world, struct store *inner, const struct fault_settings *settings)
{
    struct fault *fault = memory_new(sizeof *fault);
    fault->store.ops = &fault_ops;
    fault->world = world;
    fault->inner = inner;
    fault->settings = *settings;
    list_init(&fault->waiting);
    list_init(&fault->scripts);
    return &fault->store;
}

void store_fault_change(struct store *store, const struct fault_settings *settings)
{
    fault_of(store)->settings = *settings;
}

void store_fault_cut(struct store *store)
{
    struct fault *fault = fault_of(store);
    if (fault->cut)
        return;
    fault->cut = true;
    list_for_each (link, &fault->waiting) {
        struct request *request = container_of(link, struct request, link);
        request->dropped = world_chance(fault->world, fault->settings.cut_lost_permille);
        waitq_wake_all(&request->answer);
    }
}

uint64_t store_fault_requests(const struct store *store)
{
    assert(store->ops == &fault_ops);
    return container_of(store, struct fault, store)->made;
}

void store_fault_script(struct store *store, uint64_t number, enum fault_fate fate, void (*reached)(void *arg),
                        void *arg)
{
    struct fault *fault = fault_of(store);
    assert(number > fault->made);
    struct script *script = memory_new(sizeof *script);
    script->number = number;
    script->fate = fate;
    script->reached = reached;
    script->arg = arg;
    list_push_back(&fault->scripts, &script->link);
}
