/* See tenure.h.
 *
 * Every write of a register that takes effect is held against the one before:
 *
 *   one owner      an epoch has one owner nonce; a new owner's epoch is one higher,
 *                  and one that has let go does not come back
 *   patience       who takes a disk from an owner that has not let go was told to,
 *                  or that owner is dead on the same host in the same boot, or was
 *                  the process itself, or it has written nothing for a whole lease
 *   forward        counter, number of committed entries and root never go back, and
 *                  what is said to be committed is there
 *   others' pins   an owner's write leaves them as they are; somebody who pins leaves
 *                  everything else as it is
 *
 * Every answer to a client that vouches for something must have left its server
 *
 *   within 24/30 of a lease, by the clocks of its host, after a write of its
 *   register took effect (it was sent before that).  For as long as all clocks of
 *   the host stood still it may be later;
 *   and before its server said that the disk is lost.
 *
 * Together: where owners wait for each other no two of them answer at once, but
 * for a frozen machine whose clock nobody sets right. */
#include "tenure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "clone.h"
#include "node.h"
#include "sim.h"

/* The latest writes of a tenure whose time is remembered: more than can land while an answer is on its way. */
#define LANDINGS_KEPT 32
#define ROUNDING_NS UINT64_C(1000) /* of clocks that drift */

struct landing {
    uint64_t ns;
    int universe;
    bool remote;
};

struct tenure {
    uint64_t epoch;
    uint64_t lease_ms;
    struct landing landed[LANDINGS_KEPT]; /* a ring */
    uint64_t landings;
    uint64_t lost_ns[UNIVERSES]; /* its owner knew; 0: not yet */
};

struct watch {
    struct store store;
    struct store *inner;
    struct sim *sim;
    struct node *node;
    int universe;
    bool remote;
};

static struct tenure *find(struct disk *disk, uint64_t epoch)
{
    for (size_t i = disk->tenure_count; i-- > 0;)
        if (disk->tenures[i].epoch == epoch)
            return &disk->tenures[i];
    return NULL;
}

static void landed(struct disk *disk, const struct register_body *body, int universe, uint64_t now_ns)
{
    struct tenure *tenure = find(disk, body->epoch);
    if (tenure == NULL) {
        disk->tenures = memory_resize(disk->tenures, disk->tenure_count + 1, sizeof *disk->tenures);
        tenure = &disk->tenures[disk->tenure_count++];
        *tenure = (struct tenure){ .epoch = body->epoch };
    }
    tenure->lease_ms = body->lease_ms;
    tenure->landed[tenure->landings++ % LANDINGS_KEPT] = (struct landing){ .ns = now_ns, .universe = universe };
}

/* The last one until `until_ns`; of that universe, or of both until `shared_ns`.  UINT64_MAX: too long ago to know. */
static uint64_t last_landed_ns(const struct tenure *tenure, int universe, uint64_t shared_ns, uint64_t until_ns)
{
    for (uint64_t i = tenure->landings; i-- > 0 && i + LANDINGS_KEPT >= tenure->landings;) {
        const struct landing *landing = &tenure->landed[i % LANDINGS_KEPT];
        if (landing->ns <= until_ns && (landing->universe == universe || landing->ns <= shared_ns))
            return landing->ns;
    }
    return UINT64_MAX;
}

static void landed_for_both(struct watch *watch, struct disk *disk, const struct register_body *body, uint64_t now_ns);

/* ---- writes of the register ---- */

static bool pin_equal(const struct pin *a, const struct pin *b)
{
    return nonce_equal(&a->id, &b->id) && a->seq == b->seq && a->base.seq == b->base.seq &&
           memcmp(a->base.hash, b->base.hash, SHA256_BYTES) == 0 && a->base.object_id == b->base.object_id &&
           a->base.epoch == b->base.epoch && a->base.n == b->base.n && a->base.start == b->base.start;
}

static bool pins_equal(const struct register_body *a, const struct register_body *b)
{
    bool equal = a->pin_count == b->pin_count;
    for (uint32_t i = 0; i < a->pin_count && equal; i++)
        equal = pin_equal(&a->pins[i], &b->pins[i]);
    return equal;
}

/* Why it is wrong to write `next` over `before`, by a server; NULL: it is not. */
static const char *fault_of_owner(const struct register_body *before, const struct register_body *next)
{
    if (!pins_equal(before, next))
        return "it changes the pins of others";
    if (next->committed < before->committed)
        return "it knows of fewer commits";
    if (next->newest.seq < before->newest.seq)
        return "its root is older";
    if (next->counter <= before->counter)
        return "its counter does not grow";
    if (next->epoch == before->epoch && !nonce_equal(&next->owner, &before->owner))
        return "two owners have one epoch";
    if (next->epoch == before->epoch && !before->held)
        return "its owner had let go";
    if (next->epoch != before->epoch && next->epoch != before->epoch + 1)
        return "its epoch does not follow";
    return NULL;
}

/* All pins of `fewer` stand in `more` too, unchanged, beside one other. */
static bool one_pin_more(const struct register_body *fewer, const struct register_body *more)
{
    if (more->pin_count != fewer->pin_count + 1)
        return false;
    for (uint32_t i = 0; i < fewer->pin_count; i++) {
        bool there = false;
        for (uint32_t k = 0; k < more->pin_count; k++)
            there = there || pin_equal(&fewer->pins[i], &more->pins[k]);
        if (!there)
            return false;
    }
    return true;
}

static const char *fault_of_other(const struct register_body *before, const struct register_body *next)
{
    if (!one_pin_more(before, next) && !one_pin_more(next, before))
        return "somebody who pins changes more than one pin";
    bool same = next->epoch == before->epoch && nonce_equal(&next->owner, &before->owner) &&
                nonce_equal(&next->renewal, &before->renewal) && next->counter == before->counter &&
                next->held == before->held && next->committed == before->committed &&
                next->newest.seq == before->newest.seq && next->older_count == before->older_count;
    return same ? NULL : "somebody who pins changes what is the owner's";
}

static int last_universe(const struct tenure *tenure)
{
    return tenure->landed[(tenure->landings - 1) % LANDINGS_KEPT].universe;
}

/* Whoever is on that host can have seen it: the host may have been rebooted since. */
static bool died_on(const struct sim *sim, int host, const struct register_body *body)
{
    list_for_each (link, &sim->nodes) {
        const struct node *node = container_of(link, struct node, link);
        if (node->process == body->process)
            return node->setup.host == host && !node_alive(node);
    }
    return false;
}

/* The same when a new owner takes it at `now_ns`. */
static const char *fault_of_taker(struct watch *watch, struct disk *disk, const struct register_body *before,
                                  uint64_t now_ns)
{
    struct sim *sim = watch->sim;
    struct node *node = watch->node;
    const struct tenure *tenure = find(disk, before->epoch);
    bool own = before->process == node->process && last_universe(tenure) == watch->universe;
    if (!before->held || node->setup.break_lease || own || died_on(sim, node->setup.host, before))
        return NULL;
    uint64_t waited_ns = now_ns - last_landed_ns(tenure, watch->universe, now_ns, now_ns);
    uint64_t lease_ns = host_true_ns(sim, node->setup.host, before->lease_ms * NS_PER_MS);
    return waited_ns >= lease_ns ? NULL : "it was renewed within the lease";
}

static bool slot_exists(struct store *store, const struct register_body *body, uint64_t seq)
{
    char key[KEY_MAX];
    uint8_t byte;
    struct iovec piece = { .iov_base = &byte, .iov_len = 1 };
    struct store_got got;
    key_log(&body->uuid, seq, key);
    return store_get(store, &(struct store_get){ .key = key, .pieces = &piece, .count = 1 }, &got, NULL) == 0;
}

static const char *fault_of(struct watch *watch, struct disk *disk, const struct register_body *next, uint64_t now_ns)
{
    const struct register_body *before = &disk->body;
    if (next->committed > 0 && !slot_exists(watch->inner, next, next->committed))
        return "it says that an entry is committed which is not there";
    if (!disk->has_body)
        return next->epoch == 1 ? NULL : "a new volume has epoch 1";
    if (watch->node == NULL)
        return fault_of_other(before, next);
    const char *fault = fault_of_owner(before, next);
    if (fault == NULL && next->epoch != before->epoch)
        fault = fault_of_taker(watch, disk, before, now_ns);
    return fault;
}

static void count(struct sim *sim, const struct disk *disk, const struct register_body *next)
{
    if (!disk->has_body)
        return;
    sim->counts.takeovers += next->epoch != disk->body.epoch && disk->body.held;
    sim->counts.openings += next->epoch != disk->body.epoch;
    sim->counts.checkpoints += next->newest.seq != disk->body.newest.seq;
}

/* `bytes` are the register of `disk` from now on. */
static void judge(struct watch *watch, struct disk *disk, const uint8_t *bytes, size_t length)
{
    struct sim *sim = watch->sim;
    struct register_body next;
    struct error error = ERROR_NONE;
    uint64_t now_ns = world_now_ns(sim->world);
    const char *writer = watch->universe == UNIVERSE_CLONE ? "the clone"
                         : watch->node != NULL             ? watch->node->name
                                                           : "somebody";
    if (sim->damaged)
        return;
    if (register_decode(bytes, length, &next, &error) < 0) {
        sim_fail(sim, "%s writes a register of '%s' that nobody can read: %s", writer, disk->name, error.story);
        return;
    }
    sim_trace(sim,
              "register of '%s' by %s: epoch %" PRIu64 ", write %" PRIu64 ", root %" PRIu64 ", committed %" PRIu64
              ", %u pins%s",
              disk->name, writer, next.epoch, next.counter, next.newest.seq, next.committed, next.pin_count,
              next.held ? "" : ", free");
    const char *fault = fault_of(watch, disk, &next, now_ns);
    if (fault != NULL)
        sim_fail(sim, "%s writes the register of '%s' (epoch %" PRIu64 ", write %" PRIu64 "): %s", writer, disk->name,
                 next.epoch, next.counter, fault);
    if (watch->node != NULL)
        landed_for_both(watch, disk, &next, now_ns);
    count(sim, disk, &next);
    register_free(&disk->body);
    disk->body = next;
    disk->has_body = true;
}

/* ---- answers ---- */

void tenure_lost(struct disk *disk, uint64_t epoch, int universe, uint64_t now_ns)
{
    struct tenure *tenure = find(disk, epoch);
    if (tenure != NULL && tenure->lost_ns[universe] == 0)
        tenure->lost_ns[universe] = now_ns;
}

void tenure_answered(struct sim *sim, struct disk *disk, struct node *node, uint64_t epoch, int universe,
                     uint64_t lied_ns, uint64_t sent_ns)
{
    const struct tenure *tenure = find(disk, epoch);
    if (sim->damaged)
        return;
    if (tenure == NULL) {
        sim_fail(sim, "%s answers as the owner of '%s' in epoch %" PRIu64 ", which was never written", node->name,
                 disk->name, epoch);
        return;
    }
    uint64_t landed_ns = last_landed_ns(tenure, universe, node->cloned_ns, sent_ns);
    uint64_t valid_ns = host_true_ns(sim, node->setup.host, tenure->lease_ms * NS_PER_MS / 30 * 24) + ROUNDING_NS;
    if (landed_ns != UINT64_MAX && sent_ns > landed_ns && sent_ns - landed_ns > valid_ns + lied_ns)
        sim_fail(sim,
                 "%s answered a client of '%s' though its lease (epoch %" PRIu64 ") was renewed %" PRIu64
                 " ms before at the latest, and is good for %" PRIu64 " ms",
                 node->name, disk->name, epoch, (sent_ns - landed_ns) / NS_PER_MS, valid_ns / NS_PER_MS);
    if (tenure->lost_ns[universe] != 0 && sent_ns > tenure->lost_ns[universe])
        sim_fail(sim, "%s answered a client of '%s' after it said that it lost it (epoch %" PRIu64 ")", node->name,
                 disk->name, epoch);
}

void tenures_free(struct disk *disk)
{
    if (disk->has_body)
        register_free(&disk->body);
    free(disk->tenures);
}

/* ---- the store ---- */

static struct watch *watch_of(struct store *store)
{
    return container_of(store, struct watch, store);
}

/* In a clone, what others had on its way takes effect in the original, and not here. */
static bool is_elsewhere(const struct watch *watch)
{
    return watch->sim->remote >= 0 && watch->node != watch->sim->cloned;
}

static int refuse(const char *verb, const char *key, struct error *error)
{
    return error_set(error, ENETDOWN, "%s %s: this is a clone", verb, key);
}

/* In a clone, the original's objects instead of the copied ones. */
static void go_remote(struct watch *watch)
{
    if (watch->sim->remote < 0 || watch->remote)
        return;
    store_close(watch->inner);
    watch->inner = clone_store(watch->sim);
    watch->remote = true;
}

static int watch_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    if (is_elsewhere(watch_of(store)))
        return refuse("get", get->key, error);
    go_remote(watch_of(store));
    return store_get(watch_of(store)->inner, get, ret_got, error);
}

/* A log entry of one of the two could not be written, because another one of the same epoch stands there: that one of
 * them will never write a log entry again.  (An equal one is its own as well.) */
static void note_conflict(struct watch *watch, const struct store_put *put, const struct entry *mine, struct disk *disk)
{
    uint8_t *bytes;
    size_t length;
    struct entry there;
    uint8_t hash[SHA256_BYTES];
    char story[CHECKER_STORY_MAX];
    const struct iovec *body = &put->pieces[0];
    if (store_get_whole(watch->inner, put->key, STORE_OBJECT_MAX, &bytes, &length, NULL, NULL) < 0)
        return;
    bool equal = length == body->iov_len && memcmp(bytes, body->iov_base, length) == 0;
    if (equal)
        checker_fork_wrote(disk->checker, mine->epoch, watch->universe == UNIVERSE_CLONE);
    bool readable = !equal && entry_decode(bytes, length, &there, hash, NULL) == 0;
    free(bytes);
    if (!readable)
        return;
    if (mine->epoch == there.epoch) {
        sim_trace(watch->sim, "epoch %" PRIu64 " of '%s': the %s was too slow", mine->epoch, disk->name,
                  watch->universe == UNIVERSE_CLONE ? "clone" : "original");
        if (!checker_fork_lost(disk->checker, mine->epoch, watch->universe == UNIVERSE_CLONE, story))
            sim_fail(watch->sim, "'%s': %s", disk->name, story);
    }
    entry_free(&there);
}

/* A log entry that took effect, or did not because there is one. */
static void judge_entry(struct watch *watch, const struct store_put *put, int code)
{
    struct uuid uuid;
    uint64_t seq;
    struct entry mine;
    uint8_t hash[SHA256_BYTES];
    const struct iovec *body = &put->pieces[0]; /* faults put it into one piece */
    if (!key_parse_log(put->key, &uuid, &seq) || entry_decode(body->iov_base, body->iov_len, &mine, hash, NULL) < 0)
        return;
    for (int i = 0; i < watch->sim->disk_count; i++) {
        struct disk *disk = &watch->sim->disks[i];
        if (!disk->has_body || !uuid_equal(&disk->body.uuid, &uuid))
            continue;
        if (code == 0)
            checker_fork_wrote(disk->checker, mine.epoch, watch->universe == UNIVERSE_CLONE);
        else
            note_conflict(watch, put, &mine, disk);
    }
    entry_free(&mine);
}

/* ---- what a process means to write ---- */

static void keep_sent(struct sent *sent, const struct register_body *body)
{
    *sent = (struct sent){ .write = body->write,
                           .counter = body->counter,
                           .committed = body->committed,
                           .held = body->held,
                           .seq = body->newest.seq,
                           .object_id = body->newest.object_id };
}

/* What stands there was meant to be written by that one of the two as well, with the very same content: it takes it for
 * its own, and is right. */
static bool is_meant(const struct sent *sent, const struct register_body *there)
{
    return nonce_equal(&there->renewal, &sent->write) && there->counter == sent->counter &&
           there->committed == sent->committed && there->held == sent->held && there->newest.seq == sent->seq &&
           there->newest.object_id == sent->object_id;
}

void tenure_sends(struct sim *sim, struct node *node, int universe, const char *key, const uint8_t *bytes,
                  size_t length)
{
    struct register_body body;
    for (int i = 0; i < sim->disk_count; i++) {
        struct disk *disk = &sim->disks[i];
        if (strcmp(key, disk->register_key) != 0 || register_decode(bytes, length, &body, NULL) < 0)
            continue;
        keep_sent(&node->sent[i][universe], &body);
        struct tenure *tenure = find(disk, body.epoch);
        if (node->cloned_ns != 0 && tenure != NULL && is_meant(&node->sent[i][universe], &disk->body))
            landed(disk, &body, universe, tenure->landed[(tenure->landings - 1) % LANDINGS_KEPT].ns);
        register_free(&body);
    }
}

/* It landed; and for the other one of the two, too, if that means the same. */
static void landed_for_both(struct watch *watch, struct disk *disk, const struct register_body *body, uint64_t now_ns)
{
    const struct node *node = watch->node;
    int other = 1 - watch->universe;
    landed(disk, body, watch->universe, now_ns);
    if (node->cloned_ns != 0 && is_meant(&node->sent[disk - watch->sim->disks][other], body))
        landed(disk, body, other, now_ns);
}

static int watch_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                     struct error *error)
{
    struct watch *watch = watch_of(store);
    if (is_elsewhere(watch))
        return refuse("put", put->key, error);
    go_remote(watch);
    int code = store_put(watch->inner, put, ret_etag, error);
    if (watch->remote)
        return code;
    if ((code == 0 || code == -EEXIST) && watch->sim->clone != NULL)
        judge_entry(watch, put, code);
    for (int i = 0; i < watch->sim->disk_count && code == 0; i++)
        if (strcmp(put->key, watch->sim->disks[i].register_key) == 0)
            judge(watch, &watch->sim->disks[i], put->pieces[0].iov_base, put->pieces[0].iov_len);
    return code;
}

static int watch_delete(struct store *store, const char *key, struct error *error)
{
    if (is_elsewhere(watch_of(store)))
        return refuse("delete", key, error);
    go_remote(watch_of(store));
    return store_delete(watch_of(store)->inner, key, error);
}

static int watch_list(struct store *store, const char *prefix, const char *after, size_t limit,
                      struct store_listing *ret_listing, struct error *error)
{
    if (is_elsewhere(watch_of(store)))
        return refuse("list", prefix, error);
    go_remote(watch_of(store));
    return store_list(watch_of(store)->inner, prefix, after, limit, ret_listing, error);
}

static uint64_t watch_date_ms(struct store *store)
{
    return store_date_ms(watch_of(store)->inner);
}

static void watch_describe(struct store *store, char *ret_text, size_t capacity)
{
    store_describe(watch_of(store)->inner, ret_text, capacity);
}

static void watch_close(struct store *store)
{
    store_close(watch_of(store)->inner);
    free(watch_of(store));
}

static const struct store_ops watch_ops = {
    .name = "watch",
    .get = watch_get,
    .put = watch_put,
    .delete = watch_delete,
    .list = watch_list,
    .date_ms = watch_date_ms,
    .describe = watch_describe,
    .close = watch_close,
};

struct store *tenure_watch(struct sim *sim, struct node *node, int universe, struct store *inner)
{
    struct watch *watch = memory_new(sizeof *watch);
    *watch = (struct watch){ .store.ops = &watch_ops, .inner = inner, .sim = sim, .node = node, .universe = universe };
    return &watch->store;
}
