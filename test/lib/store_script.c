/* See store_script.h. */
#include "store_script.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/wait.h"

#define RULES_MAX 16

struct script {
    struct store store;
    struct store *inner;
    struct script_rule rules[RULES_MAX];
    uint32_t count;
    uint32_t hanging, hits;
    uint64_t cleared; /* how often */
    struct waitq released;
};

static struct script *script_of(const struct store *store)
{
    return container_of(store, struct script, store);
}

static bool fits(const struct script_rule *rule, enum script_operation operation, const char *key)
{
    return (rule->operations & operation) != 0 && (rule->key == NULL || strstr(key, rule->key) != NULL);
}

/* The rule that decides, as it stood; counts it down. */
static struct script_rule fate_of(struct script *script, enum script_operation operation, const char *key)
{
    for (uint32_t i = 0; i < script->count; i++) {
        struct script_rule *rule = &script->rules[i];
        if (!fits(rule, operation, key))
            continue;
        if (rule->skip > 0) {
            rule->skip--;
            continue;
        }
        struct script_rule decided = *rule;
        if (rule->times == 1)
            rule->operations = 0;
        else if (rule->times > 1)
            rule->times--;
        script->hits++;
        return decided;
    }
    return (struct script_rule){ .fate = SCRIPT_PASS };
}

/* Up to the moment at which the request is applied: 0, or it is not applied. */
static int begin(struct script *script, const struct script_rule *rule, const char *key, uint64_t attempt_ms,
                 struct error *error)
{
    if (rule->before != NULL)
        rule->before(rule->arg);
    if (rule->fate == SCRIPT_FAIL)
        return error_set_errno(error, rule->code, "%s", key);
    if (rule->fate != SCRIPT_HANG)
        return 0;
    uint64_t cleared = script->cleared;
    int status = 0;
    uint64_t deadline_ns =
        attempt_ms == 0 ? UINT64_MAX : loop_now_ns(coroutine_loop(coroutine_self())) + attempt_ms * NS_PER_MS;
    script->hanging++;
    while (script->cleared == cleared && status == 0)
        status = waitq_wait_until(&script->released, deadline_ns);
    script->hanging--;
    return status == 0 ? 0 : error_set_errno(error, -status, "%s", key);
}

static int end(const struct script_rule *rule, int status, const char *key, struct error *error)
{
    if (rule->after != NULL)
        rule->after(rule->arg);
    return rule->fate == SCRIPT_APPLIED ? error_set_errno(error, rule->code, "%s", key) : status;
}

static int script_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct script *script = script_of(store);
    struct script_rule rule = fate_of(script, SCRIPT_GET, get->key);
    int status = begin(script, &rule, get->key, get->attempt_ms, error);
    return status < 0 ? status : end(&rule, store_get(script->inner, get, ret_got, error), get->key, error);
}

static int script_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                      struct error *error)
{
    struct script *script = script_of(store);
    struct script_rule rule = fate_of(script, SCRIPT_PUT, put->key);
    int status = begin(script, &rule, put->key, put->attempt_ms, error);
    return status < 0 ? status : end(&rule, store_put(script->inner, put, ret_etag, error), put->key, error);
}

static int script_delete(struct store *store, const char *key, struct error *error)
{
    struct script *script = script_of(store);
    struct script_rule rule = fate_of(script, SCRIPT_DELETE, key);
    int status = begin(script, &rule, key, 0, error);
    return status < 0 ? status : end(&rule, store_delete(script->inner, key, error), key, error);
}

static int script_list(struct store *store, const char *prefix, const char *after, size_t limit,
                       struct store_listing *ret_listing, struct error *error)
{
    struct script *script = script_of(store);
    struct script_rule rule = fate_of(script, SCRIPT_LIST, prefix);
    assert(rule.fate != SCRIPT_APPLIED); /* the listing would leak */
    int status = begin(script, &rule, prefix, 0, error);
    return status < 0 ? status
                      : end(&rule, store_list(script->inner, prefix, after, limit, ret_listing, error), prefix, error);
}

static uint64_t script_date_ms(struct store *store)
{
    return store_date_ms(script_of(store)->inner);
}

static void script_describe(struct store *store, char *ret_text, size_t capacity)
{
    store_describe(script_of(store)->inner, ret_text, capacity);
}

static void script_close(struct store *store)
{
    struct script *script = script_of(store);
    assert(script->hanging == 0);
    store_close(script->inner);
    free(script);
}

static const struct store_ops script_ops = {
    .name = "script",
    .get = script_get,
    .put = script_put,
    .delete = script_delete,
    .list = script_list,
    .date_ms = script_date_ms,
    .describe = script_describe,
    .close = script_close,
};

struct store *store_script_new(struct store *inner)
{
    struct script *script = memory_new(sizeof *script);
    script->store.ops = &script_ops;
    script->inner = inner;
    waitq_init(&script->released);
    return &script->store;
}

void store_script_add(struct store *store, const struct script_rule *rule)
{
    struct script *script = script_of(store);
    assert(script->count < RULES_MAX);
    script->rules[script->count++] = *rule;
}

void store_script_clear(struct store *store)
{
    struct script *script = script_of(store);
    script->count = 0;
    script->cleared++;
    waitq_wake_all(&script->released);
}

uint32_t store_script_hanging(const struct store *store)
{
    return script_of(store)->hanging;
}

uint32_t store_script_hits(const struct store *store)
{
    return script_of(store)->hits;
}
