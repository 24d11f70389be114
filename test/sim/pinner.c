/* See pinner.h.
 *
 * The rules:  a pin keeps the state as of a log entry that exists, at or above the
 * root that the register names, which becomes its base.  Whoever writes beside the
 * owner leaves everything else as it was read, replaces only what it has read, and
 * waits 1 to 3 s when that has changed meanwhile, for the owner goes first.  What
 * became of a write of unknown outcome, the register tells: the pin's id is in it
 * or is not, and as long as it is the very version that was to be replaced, the
 * same bytes are sent again.
 *
 * That nobody else alters a pin is checked where registers are written
 * (tenure.c); that what it keeps can be read, when the run is over (audit.c). */
#include "pinner.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "clone.h"
#include "rt/task.h"
#include "vol/format/format.h"

/* Known pins at once: more than that says nothing new. */
#define PINS_MAX 12
#define CONFLICT_LEAST_NS (1 * NS_PER_S)
#define CONFLICT_MOST_NS (3 * NS_PER_S)

struct known {
    struct disk *disk;
    struct nonce id;
    uint64_t seq;
};

struct pinner {
    struct sim *sim;
    struct fault_settings faults;
    struct store *store;
    uint64_t pause_ns;
    struct group group;
    bool ending;
    struct known known[PINS_MAX];
    int count;
};

/* A register as it was read. */
struct version {
    struct register_body body;
    char etag[STORE_ETAG_MAX];
};

static void fresh_nonce(struct pinner *pinner, struct nonce *ret_nonce)
{
    loop_random(pinner->sim->outside, ret_nonce->bytes, sizeof ret_nonce->bytes);
}

/* 0, -ENOENT, or what the store said. */
CO static int read_register(struct pinner *pinner, const struct disk *disk, struct version *ret_version)
{
    uint8_t *bytes;
    size_t length;
    int code = store_get_whole(pinner->store, disk->register_key, REGISTER_BYTES_MAX, &bytes, &length,
                               ret_version->etag, NULL);
    if (code < 0)
        return code;
    code = register_decode(bytes, length, &ret_version->body, NULL);
    free(bytes);
    return code;
}

/* Until the store answers; false: there is no such register. */
CO static bool read_patiently(struct pinner *pinner, const struct disk *disk, struct version *ret_version)
{
    for (;;) {
        int code = read_register(pinner, disk, ret_version);
        if (code == 0 || code == -ENOENT)
            return code == 0;
        sleep_ns(sim_between(pinner->sim, 100 * NS_PER_MS, NS_PER_S));
    }
}

static struct pin *find_pin(const struct register_body *body, const struct nonce *id)
{
    for (uint32_t i = 0; i < body->pin_count; i++)
        if (nonce_equal(&body->pins[i].id, id))
            return &body->pins[i];
    return NULL;
}

/* Some entry from the newest root on; 0: there is none. */
CO static uint64_t pick_entry(struct pinner *pinner, const struct register_body *body)
{
    char prefix[KEY_MAX], after[KEY_MAX];
    struct store_listing listing;
    key_log_prefix(&body->uuid, prefix);
    key_log(&body->uuid, body->newest.seq, after);
    while (store_list(pinner->store, prefix, after, STORE_LIST_MAX, &listing, NULL) < 0)
        sleep_ns(sim_between(pinner->sim, 100 * NS_PER_MS, NS_PER_S));
    uint64_t seq = body->newest.seq + world_random(pinner->sim->world, listing.count + 1);
    store_listing_free(&listing);
    return seq;
}

static void add_pin(struct register_body *body, const struct nonce *id, uint64_t seq)
{
    body->pins = memory_resize(body->pins, body->pin_count + 1, sizeof *body->pins);
    body->pins[body->pin_count++] = (struct pin){ .id = *id, .seq = seq, .base = body->newest };
}

static void remove_pin(struct register_body *body, const struct pin *pin)
{
    size_t index = (size_t)(pin - body->pins);
    free(pin->child_name);
    memmove(&body->pins[index], &body->pins[index + 1], (body->pin_count - index - 1) * sizeof *body->pins);
    body->pin_count--;
}

/* Replaces `version`, whose body was changed.  Until it is known what came of it: true: it landed; false: the register
 * has become another one. */
CO static bool replace(struct pinner *pinner, const struct disk *disk, struct version *version, const struct nonce *id,
                       bool add)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    fresh_nonce(pinner, &version->body.write);
    if (register_encode(&version->body, &bytes, &error) < 0) {
        sim_fail(pinner->sim, "a pin cannot be encoded: %s", error.story);
        buffer_free(&bytes);
        return false;
    }
    struct iovec piece = { .iov_base = bytes.data, .iov_len = bytes.length };
    const struct store_put put = {
        .key = disk->register_key, .pieces = &piece, .count = 1, .condition = STORE_MATCHES, .etag = version->etag
    };
    bool landed = store_put(pinner->store, &put, NULL, NULL) == 0, known = landed;
    while (!known) {
        sleep_ns(sim_between(pinner->sim, CONFLICT_LEAST_NS, CONFLICT_MOST_NS));
        struct version now;
        if (!read_patiently(pinner, disk, &now))
            break;
        landed = (find_pin(&now.body, id) != NULL) == add;
        known = landed || strcmp(now.etag, version->etag) != 0;
        register_free(&now.body);
        if (!known)
            landed = known = store_put(pinner->store, &put, NULL, NULL) == 0;
    }
    buffer_free(&bytes);
    return landed;
}

CO static void pin(struct pinner *pinner, struct disk *disk)
{
    struct known pin = { .disk = disk };
    struct version version;
    bool landed = false;
    fresh_nonce(pinner, &pin.id);
    while (!landed && !pinner->ending && read_patiently(pinner, disk, &version)) {
        pin.seq = pick_entry(pinner, &version.body);
        if (pin.seq > 0) {
            add_pin(&version.body, &pin.id, pin.seq);
            landed = replace(pinner, disk, &version, &pin.id, true);
        }
        register_free(&version.body);
        if (pin.seq == 0)
            return;
    }
    if (!landed)
        return;
    sim_trace(pinner->sim, "somebody pinned '%s' at entry %" PRIu64, disk->name, pin.seq);
    pinner->sim->counts.pins++;
    pinner->known[pinner->count++] = pin;
}

CO static void unpin(struct pinner *pinner, int index)
{
    const struct known pin = pinner->known[index];
    struct version version;
    bool landed = false;
    while (!landed && !pinner->sim->failed && read_patiently(pinner, pin.disk, &version)) {
        struct pin *found = find_pin(&version.body, &pin.id);
        if (found == NULL) {
            sim_fail(pinner->sim, "the pin of '%s' at entry %" PRIu64 " is gone", pin.disk->name, pin.seq);
        } else {
            remove_pin(&version.body, found);
            landed = replace(pinner, pin.disk, &version, &pin.id, false);
        }
        register_free(&version.body);
    }
    if (!landed)
        return;
    sim_trace(pinner->sim, "somebody let go of '%s' at entry %" PRIu64, pin.disk->name, pin.seq);
    pinner->sim->counts.unpins++;
    pinner->known[index] = pinner->known[--pinner->count];
}

static void pinner_task(void *arg)
{
    struct pinner *pinner = arg;
    struct sim *sim = pinner->sim;
    while (!pinner->ending && !sim->failed) {
        uint64_t wait_ns = world_random(sim->world, pinner->pause_ns);
        for (; wait_ns > NS_PER_S && !pinner->ending; wait_ns -= NS_PER_S)
            sleep_ns(NS_PER_S);
        sleep_ns(wait_ns % NS_PER_S);
        bool removes = pinner->count == PINS_MAX || (pinner->count > 0 && world_random(sim->world, 3) == 0);
        if (removes)
            unpin(pinner, (int)world_random(sim->world, (uint64_t)pinner->count));
        else
            pin(pinner, &sim->disks[world_random(sim->world, (uint64_t)sim->disk_count)]);
    }
}

struct pinner *pinner_start(struct sim *sim, const struct fault_settings *faults, uint64_t pause_ns)
{
    struct pinner *pinner = memory_new(sizeof *pinner);
    pinner->sim = sim;
    pinner->faults = *faults;
    pinner->pause_ns = pause_ns;
    pinner->store =
        store_fault_new(sim->world, tenure_watch(sim, NULL, UNIVERSE_ORIGINAL, store_mem_open(sim->mem)), faults);
    group_init(&pinner->group, sim->outside);
    group_spawn(&pinner->group, "pinner", pinner_task, pinner);
    return pinner;
}

void pinner_heal(struct pinner *pinner)
{
    const struct fault_settings fair = { .way_there = pinner->faults.way_there, .way_back = pinner->faults.way_back };
    store_fault_change(pinner->store, &fair);
}

CO void pinner_finish(struct pinner *pinner)
{
    struct sim *sim = pinner->sim;
    pinner->ending = true;
    group_join(&pinner->group);
    for (int i = 0; i < pinner->count && !sim->failed; i++) {
        const struct known *known = &pinner->known[i];
        const struct pin *pin = known->disk->has_body ? find_pin(&known->disk->body, &known->id) : NULL;
        if (pin == NULL || pin->seq != known->seq)
            sim_fail(sim, "the pin of '%s' at entry %" PRIu64 " is gone", known->disk->name, known->seq);
    }
}

void pinner_free(struct pinner *pinner)
{
    if (pinner == NULL)
        return;
    store_close(pinner->store);
    free(pinner);
}
