/* See damage.h.  What the server owes then: it names the damage and refuses what depends on it, it never serves
 * anything wrong, never writes over the damaged object, and other volumes do not suffer. */
#include "damage.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "base/memory.h"
#include "vol/format/format.h"

static struct disk *owner_of(struct sim *sim, const char *key)
{
    struct uuid uuid = { .bytes = { 0 } };
    uint64_t ignored, ignored_too;
    bool under_uuid = key_parse_log(key, &uuid, &ignored) || key_parse_data(key, &uuid, &ignored, &ignored_too);
    for (int i = 0; i < sim->disk_count; i++) {
        struct audit_ownership ownership;
        char register_key[KEY_MAX];
        key_register(sim->disks[i].name, strlen(sim->disks[i].name), register_key);
        if (strcmp(register_key, key) == 0)
            return &sim->disks[i];
        if (under_uuid && audit_ownership(sim, sim->disks[i].name, &ownership) && uuid_equal(&ownership.uuid, &uuid))
            return &sim->disks[i];
    }
    return NULL;
}

/* Any object, but for the store's marker; or the last one of a log, whose loss is the hardest to notice. */
static bool pick_key(struct sim *sim, struct store *store, char ret_key[STORE_KEY_MAX + 1])
{
    struct store_listing listing;
    struct audit_ownership ownership;
    char prefix[KEY_MAX] = "v";
    bool last = world_random(sim->world, 4) == 0;
    if (last && audit_ownership(sim, sim->disks[0].name, &ownership))
        key_log_prefix(&ownership.uuid, prefix);
    if (store_list(store, prefix, "", STORE_LIST_MAX, &listing, NULL) < 0)
        return false;
    bool any = listing.count > 0;
    if (any) {
        size_t index = last ? listing.count - 1 : world_random(sim->world, listing.count);
        snprintf(ret_key, STORE_KEY_MAX + 1, "%s", listing.entries[index].key);
    }
    store_listing_free(&listing);
    return any;
}

static void change_bytes(struct sim *sim, struct damage *damage)
{
    if (damage->length > 0 && world_random(sim->world, 3) != 0)
        damage->bytes[world_random(sim->world, damage->length)] ^= (uint8_t)(1 << world_random(sim->world, 8));
    else
        damage->length = damage->length > 0 ? world_random(sim->world, damage->length) : 0;
}

bool damage_make(struct sim *sim, struct damage *ret_damage)
{
    struct damage damage = { .bytes = NULL };
    struct store *store = store_mem_open(sim->mem);
    bool fine = pick_key(sim, store, damage.key) &&
                store_get_whole(store, damage.key, STORE_OBJECT_MAX, &damage.bytes, &damage.length, NULL, NULL) == 0;
    if (fine) {
        damage.disk = owner_of(sim, damage.key);
        /* A register is never deleted by anybody: without one there is no volume. */
        damage.deleted =
            strncmp(damage.key, KEY_REGISTERS, strlen(KEY_REGISTERS)) != 0 && world_random(sim->world, 3) == 0;
        if (damage.deleted) {
            store_delete(store, damage.key, NULL);
        } else {
            change_bytes(sim, &damage);
            struct iovec piece = { .iov_base = damage.bytes, .iov_len = damage.length };
            store_put(store, &(struct store_put){ .key = damage.key, .pieces = &piece, .count = 1 }, NULL, NULL);
        }
        sim->damaged = true;
        sim_trace(sim, "damage: %s is %s", damage.key, damage.deleted ? "deleted" : "changed");
        *ret_damage = damage;
    }
    store_close(store);
    return fine;
}

void damage_check(struct sim *sim, struct damage *damage)
{
    struct store *store = store_mem_open(sim->mem);
    uint8_t *bytes = NULL;
    size_t length = 0;
    bool there = store_get_whole(store, damage->key, STORE_OBJECT_MAX, &bytes, &length, NULL, NULL) == 0;
    if (there == damage->deleted || (there && (length != damage->length || memcmp(bytes, damage->bytes, length) != 0)))
        sim_fail(sim, "%s was damaged, and somebody has written over it", damage->key);
    free(bytes);
    free(damage->bytes);
    store_close(store);
}
