/* Opening a volume: what is refused, and what a refusal leaves behind; who wins when several want it; what a store
 * that fails or hangs makes of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"
#include "base/memory.h"
#include "store/fault.h"

#define DISK_BYTES (64 * MIB)
#define PAGES 5u /* written by make_log(), one commit each */

/* ---- the store, looked at from aside ---- */

/* Hashes all that is write-once: log and data. */
static void snapshot(struct bench *bench, uint8_t ret_hash[XXH128_BYTES])
{
    struct store_listing listing;
    struct error error = ERROR_NONE;
    uint8_t chain[2 * XXH128_BYTES] = { 0 };
    assert_int_equal(store_list(bench->direct, "v/", "", STORE_LIST_MAX, &listing, &error), 0);
    assert_false(listing.more);
    for (size_t i = 0; i < listing.count; i++) {
        uint8_t *bytes;
        size_t length;
        char etag[STORE_ETAG_MAX], *key = listing.entries[i].key;
        assert_int_equal(store_get_whole(bench->direct, key, STORE_OBJECT_MAX, &bytes, &length, etag, &error), 0);
        struct iovec pieces[2] = { { key, strlen(key) }, { bytes, length } };
        hash_xxh128(pieces, 2, chain + XXH128_BYTES);
        hash_xxh128(&(struct iovec){ chain, sizeof chain }, 1, chain);
        free(bytes);
    }
    store_listing_free(&listing);
    memcpy(ret_hash, chain, XXH128_BYTES);
}

static struct register_body read_register(struct bench *bench)
{
    char key[KEY_MAX], etag[STORE_ETAG_MAX];
    uint8_t *bytes;
    size_t length;
    struct error error = ERROR_NONE;
    struct register_body body;
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), key);
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &bytes, &length, etag, &error), 0);
    assert_int_equal(register_decode(bytes, length, &body, &error), 0);
    free(bytes);
    return body;
}

static bool is_held(struct bench *bench)
{
    struct register_body body = read_register(bench);
    bool held = body.held;
    register_free(&body);
    return held;
}

static uint8_t *read_slot(struct bench *bench, uint64_t seq, char ret_key[KEY_MAX], size_t *ret_length)
{
    struct register_body body = read_register(bench);
    struct error error = ERROR_NONE;
    uint8_t *bytes = NULL;
    char etag[STORE_ETAG_MAX];
    key_log(&body.uuid, seq, ret_key);
    register_free(&body);
    assert_int_equal(store_get_whole(bench->direct, ret_key, STORE_OBJECT_MAX, &bytes, ret_length, etag, &error), 0);
    return bytes;
}

static void put_bytes(struct bench *bench, const char *key, const void *bytes, size_t length)
{
    struct error error = ERROR_NONE;
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = STORE_ANY };
    assert_int_equal(store_put(bench->direct, &put, NULL, &error), 0);
}

static void delete_key(struct bench *bench, const char *key)
{
    struct error error = ERROR_NONE;
    assert_int_equal(store_delete(bench->direct, key, &error), 0);
}

/* ---- damaged logs ---- */

/* A volume of two owners: a fence, PAGES commits, a fence, one commit more; the number of the last. */
static uint64_t make_log(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    for (int i = 0; i < ENGINES; i++)
        bench->engines[i].settings.settled_slots = UINT64_MAX; /* no checkpoint: all of the log is read each time */
    engine_open(engine, DISK_BYTES);
    for (uint64_t i = 0; i < PAGES; i++) {
        engine_put_page(engine, i, i + 1);
        engine_flush(engine);
    }
    engine_close(engine);
    engine_open(engine, 0);
    engine_put_page(engine, PAGES, PAGES + 1);
    engine_flush(engine);
    uint64_t last = volume_read_counts(engine->volume).committed_seq;
    engine_close(engine);
    return last;
}

static void expect_pages(struct engine *engine)
{
    for (uint64_t i = 0; i <= PAGES; i++)
        engine_expect_page(engine, i, i + 1);
}

/* Opening is refused with `code` and a story that has `word`; nothing is overwritten, and the volume not kept. */
static void expect_refusal(struct bench *bench, int code, const char *word)
{
    struct engine *engine = &bench->engines[1];
    uint8_t before[XXH128_BYTES], after[XXH128_BYTES];
    struct error error = ERROR_NONE;
    snapshot(bench, before);
    for (int i = 0; i < 2; i++) { /* and again: a refusal is no step towards anything */
        assert_int_equal(engine_try_open(engine, DISK_BYTES, &error), -code);
        assert_non_null(strstr(error.story, word));
        assert_non_null(strstr(error.story, ENGINE_VOLUME));
    }
    engine_close(engine);
    snapshot(bench, after);
    assert_memory_equal(before, after, sizeof before);
    assert_false(is_held(bench));
}

/* What was damaged has been put right. */
static void expect_served(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    engine_open(engine, 0);
    expect_pages(engine);
    engine_close(engine);
}

/* Does `damage` to entry `seq`, expects the refusal, mends it. */
static void damage_slot(struct bench *bench, uint64_t seq, void (*damage)(uint8_t *bytes, size_t *length), int code,
                        const char *word)
{
    char key[KEY_MAX];
    size_t length;
    uint8_t *bytes = read_slot(bench, seq, key, &length);
    uint8_t *damaged = memory_copy(bytes, length);
    size_t damaged_length = length;
    if (damage == NULL)
        delete_key(bench, key);
    else {
        damage(damaged, &damaged_length);
        put_bytes(bench, key, damaged, damaged_length);
    }
    expect_refusal(bench, code, word);
    put_bytes(bench, key, bytes, length);
    expect_served(bench);
    free(damaged);
    free(bytes);
}

static void cut_table(uint8_t *bytes, size_t *length)
{
    *length = COMMIT_HEADER_BYTES + 10;
}

static void cut_header(uint8_t *bytes, size_t *length)
{
    *length = 100;
}

static void cut_all(uint8_t *bytes, size_t *length)
{
    *length = 0;
}

static void cut_frame(uint8_t *bytes, size_t *length)
{
    *length -= 1;
}

static void flip_table(uint8_t *bytes, size_t *length)
{
    bytes[COMMIT_HEADER_BYTES + 4] ^= 1;
}

static void flip_header(uint8_t *bytes, size_t *length)
{
    bytes[40] ^= 0x10;
}

static void missing_body(struct bench *bench)
{
    uint64_t last = make_log(bench);
    damage_slot(bench, 1, NULL, EBADMSG, "missing");
    damage_slot(bench, 3, NULL, EBADMSG, "missing");
    /* The next owner's fence stands behind it meanwhile; and `last` is the middle of the log now. */
    damage_slot(bench, last, NULL, EBADMSG, "missing");
}

static void test_an_entry_in_the_middle_is_missing(void **state)
{
    bench_run(1, missing_body);
}

static void missing_last_body(struct bench *bench)
{
    uint64_t last = make_log(bench);
    damage_slot(bench, last, NULL, EBADMSG, "register knows");
}

static void test_the_last_entry_that_the_register_knows_is_missing(void **state)
{
    bench_run(1, missing_last_body);
}

static void truncated_body(struct bench *bench)
{
    uint64_t last = make_log(bench);
    damage_slot(bench, last, cut_all, EBADMSG, "log/");
    damage_slot(bench, 2, cut_header, EBADMSG, "truncated");
    damage_slot(bench, last, cut_table, EBADMSG, "truncated");
    damage_slot(bench, 4, cut_frame, EBADMSG, "cut short");
    damage_slot(bench, last, flip_table, EBADMSG, "log/");
    damage_slot(bench, 3, flip_header, EBADMSG, "log/");
}

static void test_an_entry_is_cut_short_or_damaged(void **state)
{
    bench_run(1, truncated_body);
}

/* ---- entries that are sound and do not belong ---- */

struct forgery {
    struct entry entry; /* a commit behind the last that zeroes page 1000; valid as it comes */
    struct commit_extent extent;
    struct commit_record record;
    uint64_t slot; /* where it is put */
};

static void put_forgery(struct bench *bench, struct forgery *forgery)
{
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    char key[KEY_MAX];
    struct register_body body = read_register(bench);
    entry_encode(&forgery->entry, &bytes, hash);
    key_log(&body.uuid, forgery->slot, key);
    put_bytes(bench, key, bytes.data, bytes.length);
    register_free(&body);
    buffer_free(&bytes);
}

/* Makes a log and, behind it, the entry as `change` leaves it; code 0: it is served. */
struct forged {
    void (*change)(struct forgery *forgery);
    int code;
    const char *word;
};
static const struct forged *forged_now;

static void forged_body(struct bench *bench)
{
    uint64_t last = make_log(bench);
    char key[KEY_MAX];
    size_t length;
    struct error error = ERROR_NONE;
    struct forgery forgery = { .slot = last + 1 };
    struct entry before;
    uint8_t *bytes = read_slot(bench, last, key, &length);
    assert_int_equal(entry_decode(bytes, length, &before, forgery.entry.previous, &error), 0);
    free(bytes);
    forgery.entry.kind = ENTRY_COMMIT;
    forgery.entry.uuid = before.uuid;
    forgery.entry.epoch = before.epoch;
    forgery.entry.owner = before.owner;
    forgery.entry.seq = last + 1;
    forgery.entry.object_id = before.object_id + 1 + before.object_count;
    forgery.extent = (struct commit_extent){ .kind = EXTENT_ZERO, .page = 1000, .count = 1 };
    forgery.entry.extents = &forgery.extent;
    forgery.entry.extent_count = 1;
    forgery.record = (struct commit_record){ .type = 4711, .bytes = (const uint8_t *)"x", .length = 1 };
    forgery.entry.records = &forgery.record;
    entry_free(&before);
    if (forged_now->change != NULL)
        forged_now->change(&forgery);
    put_forgery(bench, &forgery);
    if (forged_now->code != 0)
        expect_refusal(bench, forged_now->code, forged_now->word);
    else
        expect_served(bench);
}

static void expect_forged(void (*change)(struct forgery *forgery), int code, const char *word)
{
    struct forged forged = { change, code, word };
    forged_now = &forged;
    bench_run(1, forged_body);
}

static void wrong_chain(struct forgery *forgery)
{
    forgery->entry.previous[7] ^= 1;
}

static void other_volume(struct forgery *forgery)
{
    forgery->entry.uuid.bytes[3] ^= 1;
}

static void other_slot(struct forgery *forgery)
{
    forgery->entry.seq++;
}

static void lower_epoch(struct forgery *forgery)
{
    forgery->entry.epoch = 1;
}

static void higher_epoch(struct forgery *forgery)
{
    forgery->entry.epoch += 1000;
}

/* That of the next owner. */
static void same_epoch(struct forgery *forgery)
{
    forgery->entry.epoch++;
}

static void used_object_id(struct forgery *forgery)
{
    forgery->entry.object_id--;
}

static void beyond_the_disk(struct forgery *forgery)
{
    forgery->extent.page = DISK_BYTES / PAGE_BYTES;
}

static void unknown_record(struct forgery *forgery)
{
    forgery->entry.record_count = 1;
}

static void unknown_record_to_be_understood(struct forgery *forgery)
{
    forgery->entry.record_count = 1;
    forgery->record.must_understand = true;
}

static void frame_too_short(struct forgery *forgery)
{
    static struct commit_object object = { .n = 1, .bytes = MIB };
    object.epoch = forgery->entry.epoch;
    forgery->entry.objects = &object;
    forgery->entry.object_count = 1;
    forgery->extent = (struct commit_extent){
        .kind = EXTENT_PAGES, .page = 1000, .count = 1, .object = 1, .units = 60, .frame_pages = 1
    };
}

static void test_sound_entries_that_do_not_belong(void **state)
{
    expect_forged(NULL, 0, NULL);
    expect_forged(unknown_record, 0, NULL);
    expect_forged(wrong_chain, EBADMSG, "does not follow");
    expect_forged(other_volume, EMEDIUMTYPE, "another volume");
    expect_forged(other_slot, EMEDIUMTYPE, "another volume or place");
    expect_forged(lower_epoch, EBADMSG, "epoch 1");
    expect_forged(used_object_id, EBADMSG, "object id");
    expect_forged(beyond_the_disk, EBADMSG, "end of the disk");
    expect_forged(frame_too_short, EBADMSG, "wrong length");
    expect_forged(unknown_record_to_be_understood, EPROTONOSUPPORT, "type 4711");
    expect_forged(higher_epoch, EBADMSG, "older state");
    expect_forged(same_epoch, EBADMSG, "older state");
}

/* Somebody has put an old register back, and the servers were restarted since: the log tells. */
static void old_register_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    char key[KEY_MAX], etag[STORE_ETAG_MAX];
    uint8_t *old, *new;
    size_t old_length, new_length;
    struct error error = ERROR_NONE;
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), key);
    make_log(bench);
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &old, &old_length, etag, &error), 0);
    for (int i = 0; i < 4; i++) {
        engine_open(engine, 0);
        engine_put_page(engine, PAGES, PAGES + 1);
        engine_flush(engine);
        engine_close(engine);
    }
    assert_int_equal(store_get_whole(bench->direct, key, REGISTER_BYTES_MAX, &new, &new_length, etag, &error), 0);
    put_bytes(bench, key, old, old_length);
    struct register_body before = read_register(bench);
    for (int i = 0; i < 4; i++)
        expect_refusal(bench, EBADMSG, "older state");
    struct register_body after = read_register(bench);
    assert_int_equal(after.epoch, before.epoch);
    assert_true(nonce_equal(&after.owner, &before.owner));
    assert_int_equal(after.committed, before.committed);
    register_free(&before);
    register_free(&after);
    put_bytes(bench, key, new, new_length);
    expect_served(bench);
    free(old);
    free(new);
}

static void test_an_old_register_is_told_by_the_log(void **state)
{
    bench_run(1, old_register_body);
}

/* ---- late commits of an old owner ---- */

struct flushing {
    struct engine *engine;
    int status;
};

static void flush_task(void *arg)
{
    struct flushing *flushing = arg;
    struct error error = ERROR_NONE;
    flushing->status = volume_flush(flushing->engine->volume, &error);
}

/* Engine 0 has page 0 committed, and page 1 in a commit that hangs on its way to the store. */
static void leave_hanging(struct bench *bench, struct flushing *flushing)
{
    struct engine *old = &bench->engines[0];
    engine_open(old, DISK_BYTES);
    engine_put_page(old, 0, 10);
    engine_flush(old);
    engine_put_page(old, 1, 11);
    store_script_add(old->script,
                     &(struct script_rule){ .operations = SCRIPT_PUT, .key = "/log/", .fate = SCRIPT_HANG });
    *flushing = (struct flushing){ .engine = old, .status = 1 };
    group_spawn(&bench->group, "flush", flush_task, flushing);
    while (store_script_hanging(old->script) == 0)
        assert_int_equal(sleep_ns(NS_PER_MS), 0);
    bench->engines[1].settings.break_lease = true;
}

static void let_land(void *arg)
{
    struct engine *old = arg;
    store_script_clear(old->script);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
}

static void before_fence_body(struct bench *bench)
{
    struct engine *old = &bench->engines[0], *young = &bench->engines[1];
    struct flushing flushing;
    leave_hanging(bench, &flushing);
    store_script_add(young->script, &(struct script_rule){ .operations = SCRIPT_PUT,
                                                           .key = "/log/",
                                                           .times = 1,
                                                           .fate = SCRIPT_PASS,
                                                           .before = let_land,
                                                           .arg = old });
    engine_open(young, 0);
    assert_int_equal(store_script_hits(young->script), 1);
    assert_int_equal(flushing.status, 0); /* it was acknowledged, so it must be seen */
    engine_expect_page(young, 0, 10);
    engine_expect_page(young, 1, 11);
    assert_int_equal(old->volume->state, VOLUME_SERVING); /* does not know yet */
    engine_put_page(old, 2, 12);
    struct error error = ERROR_NONE;
    assert_int_equal(volume_flush(old->volume, &error), -ESHUTDOWN);
    engine_close(young);
    engine_open(young, 0);
    engine_expect_page(young, 1, 11);
    engine_expect_page(young, 2, 0);
    engine_close(young);
    engine_close(old);
}

static void test_a_late_commit_lands_before_the_fence(void **state)
{
    bench_run(1, before_fence_body);
}

static void after_fence_body(struct bench *bench)
{
    struct engine *old = &bench->engines[0], *young = &bench->engines[1];
    struct flushing flushing;
    leave_hanging(bench, &flushing);
    engine_open(young, 0);
    engine_expect_page(young, 0, 10);
    engine_expect_page(young, 1, 0);
    assert_int_equal(flushing.status, 1);
    let_land(old);
    assert_int_equal(flushing.status, -ESHUTDOWN);
    assert_int_equal(old->volume->state, VOLUME_CLOSED);
    engine_put_page(young, 1, 99);
    engine_flush(young);
    engine_close(young);
    engine_open(young, 0);
    engine_expect_page(young, 0, 10);
    engine_expect_page(young, 1, 99);
    engine_close(young);
    engine_close(old);
}

static void test_a_late_commit_lands_after_the_fence(void **state)
{
    bench_run(1, after_fence_body);
}

/* ---- several who want it ---- */

struct opening {
    struct engine *engine;
    uint64_t delay_ns;
    int status;
};

static void open_task(void *arg)
{
    struct opening *opening = arg;
    struct error error = ERROR_NONE;
    sleep_ns(opening->delay_ns);
    opening->status = engine_try_open(opening->engine, DISK_BYTES, &error);
}

/* Both engines at about the same time, on connections of changing speed. */
static void race(struct bench *bench, struct opening openings[ENGINES])
{
    static const struct fault_settings slow = { .way_there = { 0, 20 * NS_PER_MS }, .way_back = { 0, 20 * NS_PER_MS } };
    struct group group;
    group_init(&group, bench->loop);
    for (int i = 0; i < ENGINES; i++) {
        store_fault_change(bench->engines[i].fault, &slow);
        openings[i] =
            (struct opening){ .engine = &bench->engines[i], .delay_ns = world_random(bench->world, 60 * NS_PER_MS) };
        group_spawn(&group, "open", open_task, &openings[i]);
    }
    group_join(&group);
}

static void exactly_one(struct bench *bench)
{
    struct opening openings[ENGINES];
    race(bench, openings);
    int served = 0;
    for (int i = 0; i < ENGINES; i++) {
        if (openings[i].status == 0)
            served++;
        else
            assert_true(openings[i].status == -EBUSY || openings[i].status == -ESHUTDOWN);
    }
    assert_int_equal(served, 1);
    for (int i = 0; i < ENGINES; i++)
        engine_close(&bench->engines[i]);
}

static void create_race_body(struct bench *bench)
{
    exactly_one(bench);
}

static void open_race_body(struct bench *bench)
{
    make_log(bench);
    exactly_one(bench);
    expect_served(bench);
}

static int try_flush(struct engine *engine, uint64_t page, uint64_t seed)
{
    uint8_t bytes[PAGE_BYTES];
    struct error error = ERROR_NONE;
    fill(bytes, sizeof bytes, seed);
    int status = engine_try_put(engine, page * PAGE_BYTES, bytes, sizeof bytes);
    return status < 0 ? status : volume_flush(engine->volume, &error);
}

/* Who breaks leases may open even what another one serves already: then only the last one's flushes succeed. */
static void break_race_body(struct bench *bench)
{
    struct opening openings[ENGINES];
    make_log(bench);
    for (int i = 0; i < ENGINES; i++)
        bench->engines[i].settings.break_lease = true;
    race(bench, openings);
    int winner = -1;
    for (int i = 0; i < ENGINES; i++) {
        int status = openings[i].status == 0 ? try_flush(&bench->engines[i], 100, 200 + (uint64_t)i) : -ESHUTDOWN;
        assert_true(status == 0 || status == -ESHUTDOWN);
        assert_true(status != 0 || winner == -1);
        winner = status == 0 ? i : winner;
    }
    assert_true(winner >= 0);
    for (int i = 0; i < ENGINES; i++)
        engine_close(&bench->engines[i]);
    engine_open(&bench->engines[0], 0);
    engine_expect_page(&bench->engines[0], 100, 200 + (uint64_t)winner);
    expect_pages(&bench->engines[0]);
    engine_close(&bench->engines[0]);
}

static void test_two_openers_race(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        bench_run(seed, create_race_body);
        bench_run(seed, open_race_body);
        bench_run(seed, break_race_body);
    }
}

struct watcher {
    struct volume_watch watch;
    int calls;
};

static void gone(struct volume_watch *watch)
{
    container_of(watch, struct watcher, watch)->calls++;
}

static void break_lease_body(struct bench *bench)
{
    struct engine *old = &bench->engines[0], *young = &bench->engines[1];
    struct error error = ERROR_NONE;
    struct watcher watcher = { .watch.gone = gone };
    list_init(&watcher.watch.link);
    engine_open(old, DISK_BYTES);
    volume_watch(old->volume, &watcher.watch);
    engine_put_page(old, 0, 10);
    engine_flush(old);
    engine_put_page(old, 1, 11); /* not flushed */
    young->settings.owner_wait_ms = 0;
    assert_int_equal(engine_try_open(young, 0, &error), -EBUSY);
    assert_non_null(strstr(error.story, "host test"));
    assert_non_null(strstr(error.story, "break-lease"));
    engine_close(young);
    young->settings.break_lease = true;
    engine_open(young, 0);
    engine_expect_page(young, 1, 0);
    assert_int_equal(old->volume->state, VOLUME_SERVING);
    engine_expect_page(old, 0, 10); /* its own state, as of when it was superseded */
    engine_expect_page(old, 1, 11);
    assert_int_equal(watcher.calls, 0);
    assert_int_equal(volume_flush(old->volume, &error), -ESHUTDOWN);
    assert_int_equal(watcher.calls, 1);
    assert_int_equal(try_flush(old, 2, 12), -ESHUTDOWN);
    assert_int_equal(volume_flush_try(old->volume), -ESHUTDOWN);
    volume_unwatch(&watcher.watch);
    engine_close(old);
    assert_int_equal(try_flush(young, 3, 13), 0);
    engine_close(young);
    engine_open(young, 0);
    engine_expect_page(young, 1, 0);
    engine_expect_page(young, 3, 13);
    engine_close(young);
}

static void test_a_lease_is_broken_while_its_owner_lives(void **state)
{
    bench_run(1, break_lease_body);
}

/* ---- waiting for another owner ---- */

#define LEASE_NS (30 * NS_PER_S)
#define LOOK_NS (1500 * NS_PER_MS) /* between two looks at a register, at most */

/* Engine 0 owned it, and is dead without anybody knowing. */
static void leave_dead(struct bench *bench)
{
    struct engine *dead = &bench->engines[0];
    engine_open(dead, DISK_BYTES);
    engine_put_page(dead, 0, 10);
    engine_flush(dead);
    engine_die(dead);
}

/* It opens, after so long. */
static void expect_opened_after(struct engine *engine, uint64_t least_ns, uint64_t most_ns)
{
    uint64_t before = loop_now_ns(engine->bench->loop);
    engine_open(engine, 0);
    uint64_t took = loop_now_ns(engine->bench->loop) - before;
    assert_true(took >= least_ns && took <= most_ns);
    engine_expect_page(engine, 0, 10);
}

static void dead_owner_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    leave_dead(bench);
    sleep_ns(world_random(bench->world, 100 * NS_PER_S)); /* what passed before nobody has watched */
    uint64_t gets = store_count_read(engine->count).gets;
    expect_opened_after(engine, LEASE_NS, LEASE_NS + NS_PER_S);
    assert_int_equal(bench_said(bench, "took over from process 1 on host test since"), 1);
    assert_int_equal(bench_said(bench, "silent for 30 s"), 1);
    gets = store_count_read(engine->count).gets - gets;
    assert_true(gets >= 25 && gets <= 50);
    engine_close(engine);
}

static void test_a_dead_owner_is_waited_for(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        bench_run(seed, dead_owner_body);
}

static void set_lease(struct bench *bench, uint64_t lease_ms)
{
    struct register_body body = read_register(bench);
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    char key[KEY_MAX];
    body.lease_ms = lease_ms;
    key_register(ENGINE_VOLUME, strlen(ENGINE_VOLUME), key);
    assert_int_equal(register_encode(&body, &bytes, &error), 0);
    put_bytes(bench, key, bytes.data, bytes.length);
    buffer_free(&bytes);
    register_free(&body);
}

/* It is the dead one's lease that counts, within reason. */
static void other_lease_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    engine->settings.owner_wait_ms = UINT32_MAX;
    leave_dead(bench);
    set_lease(bench, 3000);
    expect_opened_after(engine, 3 * NS_PER_S, 4 * NS_PER_S);
    engine_die(engine);
    set_lease(bench, 0);
    expect_opened_after(engine, LEASE_MS_LEAST * NS_PER_MS, 2 * NS_PER_S);
    engine_die(engine);
    set_lease(bench, UINT64_MAX);
    expect_opened_after(engine, LEASE_MS_MOST * NS_PER_MS, (LEASE_MS_MOST + 1000) * NS_PER_MS);
    engine_close(engine);
}

static void test_the_lease_of_the_owner_counts(void **state)
{
    bench_run(1, other_lease_body);
}

/* Clocks of this host that jump while it waits: the wall clock does not matter, time in suspension counts. */
static void jumping_clocks_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct opening opening = { .engine = engine, .status = 1 };
    leave_dead(bench);
    uint64_t before = loop_now_ns(bench->loop);
    group_spawn(&bench->group, "open", open_task, &opening);
    sleep_ns(10 * NS_PER_S);
    loop_sim_set_wall_offset(bench->loop, (int64_t)(100000 * NS_PER_S));
    sleep_ns(NS_PER_S);
    loop_sim_set_wall_offset(bench->loop, -(int64_t)(100000 * NS_PER_S));
    sleep_ns(NS_PER_S);
    assert_int_equal(opening.status, 1);
    loop_sim_set_boottime_offset(bench->loop, (int64_t)(10 * NS_PER_S));
    while (opening.status == 1)
        sleep_ns(10 * NS_PER_MS);
    assert_int_equal(opening.status, 0);
    uint64_t took = loop_now_ns(bench->loop) - before;
    assert_true(took >= LEASE_NS - 10 * NS_PER_S && took <= LEASE_NS - 8 * NS_PER_S);
    engine_close(engine);
}

static void test_the_wait_is_measured_by_the_boot_time_clock(void **state)
{
    bench_run(1, jumping_clocks_body);
}

static void living_owner_body(struct bench *bench)
{
    struct engine *owner = &bench->engines[0], *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    engine_open(owner, DISK_BYTES);
    uint64_t before = loop_now_ns(bench->loop);
    assert_int_equal(engine_try_open(engine, 0, &error), -EBUSY);
    assert_int_equal(loop_now_ns(bench->loop) - before, 45 * NS_PER_S);
    assert_non_null(strstr(error.story, "process 1 on host test since"));
    assert_non_null(strstr(error.story, "has renewed its lease"));
    assert_non_null(strstr(error.story, "cairn break-lease"));
    sleep_ns(NS_PER_S);
    assert_true(list_empty(&engine->volumes->all)); /* it does not go on waiting for nobody */
    assert_int_equal(owner->volume->state, VOLUME_SERVING);
    assert_true(volume_may_answer(owner->volume));
    engine_close(engine);
    engine_close(owner);
}

static void test_a_living_owner_is_left_alone(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        bench_run(seed, living_owner_body);
}

/* Who does not wait is told at once; and what was seen by then counts when he comes again. */
static void refused_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    engine->settings.owner_wait_ms = 0;
    leave_dead(bench);
    for (int i = 0; i < 3; i++) {
        uint64_t before = loop_now_ns(bench->loop);
        assert_int_equal(engine_try_open(engine, 0, &error), -EBUSY);
        assert_int_equal(loop_now_ns(bench->loop), before);
        assert_non_null(strstr(error.story, "has not renewed its lease since"));
        sleep_ns(9 * NS_PER_S);
    }
    sleep_ns(4 * NS_PER_S);
    expect_opened_after(engine, 0, 0);
    engine_close(engine);
}

static void test_refusals_are_not_for_ever(void **state)
{
    bench_run(1, refused_body);
}

static void released_meanwhile_body(struct bench *bench)
{
    struct engine *owner = &bench->engines[0], *engine = &bench->engines[1];
    struct opening opening = { .engine = engine, .status = 1 };
    engine_open(owner, DISK_BYTES);
    group_spawn(&bench->group, "open", open_task, &opening);
    sleep_ns(20 * NS_PER_S);
    assert_int_equal(opening.status, 1);
    engine_close(owner);
    uint64_t before = loop_now_ns(bench->loop);
    while (opening.status == 1)
        sleep_ns(10 * NS_PER_MS);
    assert_int_equal(opening.status, 0);
    assert_true(loop_now_ns(bench->loop) - before <= LOOK_NS);
    assert_int_equal(bench_said(bench, "took over"), 0);
    engine_close(engine);
}

static void test_a_release_ends_the_wait(void **state)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        bench_run(seed, released_meanwhile_body);
}

static bool everybody_is_dead(struct host *host, const struct register_body *body)
{
    return true;
}

static void ignore_sign(struct host *host, struct register_body *body)
{
    body->process = 1;
}

static const struct host_ops dead_host = { .sign = ignore_sign, .owner_is_dead = everybody_is_dead };

static void dead_here_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    leave_dead(bench);
    bench->host.ops = &dead_host;
    expect_opened_after(engine, 0, 0);
    assert_int_equal(bench_said(bench, "that process is gone"), 1);
    engine_close(engine);
}

static void test_a_process_known_to_be_dead_is_not_waited_for(void **state)
{
    bench_run(1, dead_here_body);
}

/* Clients lose patience one after the other; the wait ends with the last, and whoever comes then begins anew. */
static void impatient_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct opening openings[3];
    struct task *tasks[3];
    engine_open(&bench->engines[0], DISK_BYTES);
    engine_start(engine);
    for (int i = 0; i < 3; i++) {
        openings[i] = (struct opening){ .engine = engine, .status = 1 };
        tasks[i] = group_spawn(&bench->group, "open", open_task, &openings[i]);
    }
    sleep_ns(5 * NS_PER_S);
    for (int i = 0; i < 3; i++) {
        assert_false(list_empty(&engine->volumes->all));
        task_cancel(tasks[i]);
        sleep_ns(NS_PER_S);
        assert_int_equal(openings[i].status, -ECANCELED);
    }
    assert_true(list_empty(&engine->volumes->all));
    uint64_t gets = store_count_read(engine->count).gets;
    sleep_ns(100 * NS_PER_S);
    assert_int_equal(store_count_read(engine->count).gets, gets);
    engine_close(engine);
    engine_close(&bench->engines[0]);
}

static void test_the_wait_ends_with_those_who_wait(void **state)
{
    bench_run(1, impatient_body);
}

/* A client comes in the very moment in which the last one has given up. */
static void late_comer_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct opening first = { .engine = engine, .status = 1 }, second = first;
    engine_open(&bench->engines[0], DISK_BYTES);
    engine_put_page(&bench->engines[0], 0, 10);
    engine_start(engine);
    struct task *task = group_spawn(&bench->group, "open", open_task, &first);
    sleep_ns(5 * NS_PER_S);
    task_cancel(task);
    coroutine_yield();
    while (first.status == 1)
        coroutine_yield();
    group_spawn(&bench->group, "open", open_task, &second);
    sleep_ns(10 * NS_PER_S);
    engine_close(&bench->engines[0]);
    sleep_ns(10 * NS_PER_S);
    assert_int_equal(second.status, 0);
    engine_expect_page(engine, 0, 10);
    engine_close(engine);
}

static void test_who_comes_late_waits_anew(void **state)
{
    bench_run(1, late_comer_body);
}

/* Two wait for the same dead owner: one gets it, the other one waits on, and gets it when it is released. */
static void two_wait_body(struct bench *bench)
{
    struct opening openings[ENGINES];
    leave_dead(bench);
    for (int i = 0; i < ENGINES; i++) {
        openings[i] = (struct opening){ .engine = &bench->engines[i], .status = 1 };
        group_spawn(&bench->group, "open", open_task, &openings[i]);
    }
    while (openings[0].status == 1 && openings[1].status == 1)
        sleep_ns(10 * NS_PER_MS);
    int winner = openings[0].status == 1;
    assert_int_equal(openings[winner].status, 0);
    sleep_ns(5 * NS_PER_S);
    assert_int_equal(openings[!winner].status, 1);
    assert_int_equal(bench->engines[winner].volume->state, VOLUME_SERVING);
    engine_close(&bench->engines[winner]);
    sleep_ns(2 * LOOK_NS);
    assert_int_equal(openings[!winner].status, 0);
    engine_expect_page(&bench->engines[!winner], 0, 10);
    engine_close(&bench->engines[!winner]);
}

static void test_of_two_that_wait_one_gets_it(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        bench_run(seed, two_wait_body);
}

/* ---- giving it back ---- */

static void grace_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    for (int vanished = 0; vanished < 2; vanished++) {
        engine_open(engine, DISK_BYTES);
        engine_put_page(engine, 0, 10);
        volumes_release(engine->volumes, engine->volume, vanished);
        engine->volume = NULL;
        sleep_ns(NS_PER_S);
        assert_int_equal(is_held(bench), !vanished);
        sleep_ns(5 * NS_PER_S);
        assert_false(is_held(bench));
        engine_open(engine, 0);
        engine_expect_page(engine, 0, 10);
        engine_close(engine);
    }
}

static void test_who_vanished_gets_no_grace(void **state)
{
    bench_run(1, grace_body);
}

/* ---- stores that fail or hang during the opening ---- */

/* Every request that the opening of an existing volume makes, one kind after the other. */
static const struct script_rule stages[] = {
    { .operations = SCRIPT_GET, .key = "volumes/" }, /* reading the register */
    { .operations = SCRIPT_PUT, .key = "volumes/" }, /* taking it */
    { .operations = SCRIPT_LIST },
    { .operations = SCRIPT_GET, .key = "/log/" },
    { .operations = SCRIPT_PUT, .key = "/log/" },               /* the fence */
    { .operations = SCRIPT_GET, .key = "volumes/", .skip = 1 }, /* reading the register again */
};
#define STAGES (sizeof stages / sizeof stages[0])

struct misfortune {
    size_t stage;
    enum script_fate fate;
    int code;
    uint64_t patience_ns; /* after which there must be an answer */
    int expected;         /* 0: any of what the store says, or EIO, or ETIMEDOUT */
};
static struct misfortune misfortune;

static void misfortune_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    make_log(bench);
    struct script_rule rule = stages[misfortune.stage];
    rule.fate = misfortune.fate;
    rule.code = misfortune.code;
    store_script_add(engine->script, &rule);
    uint64_t before = loop_now_ns(bench->loop);
    int status = engine_try_open(engine, 0, &error);
    assert_true(loop_now_ns(bench->loop) - before <= misfortune.patience_ns);
    assert_true(status < 0);
    assert_int_equal(error.code, -status);
    if (misfortune.expected != 0)
        assert_int_equal(status, -misfortune.expected);
    else
        assert_true(status == -misfortune.code || status == -EIO || status == -ETIMEDOUT);
    assert_non_null(strstr(error.story, ENGINE_VOLUME));

    /* The store is well again, and this very server opens the volume without ado, whatever it left there. */
    store_script_clear(engine->script);
    engine_open(engine, 0);
    expect_pages(engine);
    engine_close(engine);
    assert_false(is_held(bench));
}

static void with_misfortune(size_t stage, enum script_fate fate, int code, uint64_t patience_ns, int expected)
{
    misfortune = (struct misfortune){ stage, fate, code, patience_ns, expected };
    bench_run(1, misfortune_body);
}

static void test_no_space_and_no_permission_are_told_at_once(void **state)
{
    const int codes[] = { ENOSPC, EROFS, EACCES, EDQUOT };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        with_misfortune(1, SCRIPT_FAIL, codes[i], NS_PER_S, codes[i]);
        with_misfortune(4, SCRIPT_FAIL, codes[i], NS_PER_S, codes[i]);
        with_misfortune(5, SCRIPT_FAIL, codes[i], NS_PER_S, codes[i]);
    }
}

/* Register and fence are written, and the answers are lost: what became of them is found out. */
static void lost_answers_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    make_log(bench);
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_PUT, .times = 2, .fate = SCRIPT_APPLIED, .code = ETIMEDOUT });
    engine_open(engine, 0);
    assert_int_equal(store_script_hits(engine->script), 2);
    expect_pages(engine);
    assert_int_equal(volume_read_counts(engine->volume).epoch, 3);
    engine_close(engine);
}

static void test_lost_answers_do_no_harm(void **state)
{
    bench_run(1, lost_answers_body);
}

static void test_a_store_that_only_fails_is_given_up(void **state)
{
    for (size_t stage = 0; stage < STAGES; stage++) {
        with_misfortune(stage, SCRIPT_FAIL, ETIMEDOUT, OWNERSHIP_DEADLINE_NS + 10 * NS_PER_S, 0);
        with_misfortune(stage, SCRIPT_FAIL, EIO, OWNERSHIP_DEADLINE_NS + 10 * NS_PER_S, 0);
    }
}

static void test_a_store_that_hangs_is_given_up(void **state)
{
    for (size_t stage = 0; stage < STAGES; stage++)
        with_misfortune(stage, SCRIPT_HANG, 0, OWNERSHIP_DEADLINE_NS + 10 * NS_PER_S, 0);
}

/* Opening goes on behind the back of those who lost patience, and is of use to the next. */
static void hang_on_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[1];
    struct error error = ERROR_NONE;
    make_log(bench);
    store_script_add(engine->script, &(struct script_rule){ .operations = SCRIPT_LIST, .fate = SCRIPT_HANG });
    assert_int_equal(engine_try_open(engine, 0, &error), -EIO);
    assert_non_null(strstr(error.story, "does not answer"));
    assert_int_equal(engine_try_open(engine, 0, &error), -EIO);
    store_script_clear(engine->script);
    engine_open(engine, 0);
    assert_int_equal(volume_read_counts(engine->volume).epoch, 3);
    engine_close(engine);
}

static void test_a_hung_opening_goes_on(void **state)
{
    bench_run(1, hang_on_body);
}

/* Saved, and not given back for want of an answer: the register names us still, and that must be no obstacle to us. */
static void unreturned_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    struct error error = ERROR_NONE;
    engine_open(engine, DISK_BYTES);
    engine_put_page(engine, 0, 10);
    engine_flush(engine);
    store_script_add(
        engine->script,
        &(struct script_rule){ .operations = SCRIPT_PUT, .key = "volumes/", .fate = SCRIPT_FAIL, .code = ETIMEDOUT });
    volumes_release(engine->volumes, engine->volume, false);
    assert_int_equal(sleep_ns(300 * NS_PER_S), 0);
    assert_true(list_empty(&engine->volumes->all));
    store_script_clear(engine->script);
    assert_true(is_held(bench));
    bench->engines[1].settings.owner_wait_ms = 0;
    assert_int_equal(engine_try_open(&bench->engines[1], 0, &error), -EBUSY);
    engine_close(&bench->engines[1]);
    engine_open(engine, 0);
    engine_expect_page(engine, 0, 10);
    engine_close(engine);
    assert_false(is_held(bench));
}

static void test_what_could_not_be_given_back_can_be_opened_again(void **state)
{
    bench_run(1, unreturned_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_entry_in_the_middle_is_missing),
        cmocka_unit_test(test_the_last_entry_that_the_register_knows_is_missing),
        cmocka_unit_test(test_an_entry_is_cut_short_or_damaged),
        cmocka_unit_test(test_sound_entries_that_do_not_belong),
        cmocka_unit_test(test_an_old_register_is_told_by_the_log),
        cmocka_unit_test(test_a_late_commit_lands_before_the_fence),
        cmocka_unit_test(test_a_late_commit_lands_after_the_fence),
        cmocka_unit_test(test_two_openers_race),
        cmocka_unit_test(test_a_lease_is_broken_while_its_owner_lives),
        cmocka_unit_test(test_a_dead_owner_is_waited_for),
        cmocka_unit_test(test_the_lease_of_the_owner_counts),
        cmocka_unit_test(test_the_wait_is_measured_by_the_boot_time_clock),
        cmocka_unit_test(test_a_living_owner_is_left_alone),
        cmocka_unit_test(test_refusals_are_not_for_ever),
        cmocka_unit_test(test_a_release_ends_the_wait),
        cmocka_unit_test(test_a_process_known_to_be_dead_is_not_waited_for),
        cmocka_unit_test(test_the_wait_ends_with_those_who_wait),
        cmocka_unit_test(test_who_comes_late_waits_anew),
        cmocka_unit_test(test_of_two_that_wait_one_gets_it),
        cmocka_unit_test(test_who_vanished_gets_no_grace),
        cmocka_unit_test(test_no_space_and_no_permission_are_told_at_once),
        cmocka_unit_test(test_lost_answers_do_no_harm),
        cmocka_unit_test(test_a_store_that_only_fails_is_given_up),
        cmocka_unit_test(test_a_store_that_hangs_is_given_up),
        cmocka_unit_test(test_a_hung_opening_goes_on),
        cmocka_unit_test(test_what_could_not_be_given_back_can_be_opened_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
