/* Objects of our own below probe/: what we may do with them, and how fast.
 *
 * The figures are those of one client on this host, through the same code as
 * the server's: a 4 KiB put is what the flush of a small write costs, a 4 KiB
 * get a read that is not in memory; 8 MiB is the size of data objects, and
 * eight at once are half of the uploads that a thread makes by default. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/doctor.h"
#include "rt/loop.h"
#include "rt/task.h"
#include "store/store.h"

#define KEY_BYTES 80
#define SMALL_BYTES ((size_t)4096)
#define SMALL_COUNT 20
#define LARGE_BYTES ((size_t)8 << 20)
#define LARGE_COUNT 8

#define MIB (1024.0 * 1024.0)

/* Keys that nobody else uses; the bytes are random, so that nothing on the way can make them smaller. */
struct objects {
    struct loop *loop;
    struct store *store;
    char run[33];
    uint8_t *bytes; /* LARGE_BYTES of them */
};

static void objects_init(struct objects *objects, struct loop *loop, struct store *store)
{
    uint8_t random[16];

    *objects = (struct objects){ .loop = loop, .store = store, .bytes = memory_resize(NULL, LARGE_BYTES, 1) };
    loop_random(loop, random, sizeof random);
    text_hex(random, sizeof random, objects->run);
    loop_random(loop, objects->bytes, LARGE_BYTES);
}

static void make_key(const struct objects *objects, const char *name, unsigned number, char ret_key[KEY_BYTES])
{
    int length = snprintf(ret_key, KEY_BYTES, "probe/%s-%s-%u", objects->run, name, number);

    assert(length < KEY_BYTES);
}

static CO int put(struct objects *objects, const char *key, size_t length, struct error *error)
{
    struct iovec piece = { .iov_base = objects->bytes, .iov_len = length };
    struct store_put request = { .key = key, .pieces = &piece, .count = 1, .condition = STORE_ANY };

    return store_put(objects->store, &request, NULL, error);
}

static CO int get(struct objects *objects, const char *key, void *destination, size_t length, struct error *error)
{
    struct iovec piece = { .iov_base = destination, .iov_len = length };
    struct store_get request = { .key = key, .pieces = &piece, .count = 1 };
    struct store_got got;

    int result = store_get(objects->store, &request, &got, error);
    if (result == 0 && (got.length != length || memcmp(destination, objects->bytes, length) != 0))
        result = error_set(error, EIO, "get %s: other bytes came back than were written", key);
    return result;
}

/* ---- permissions ---- */

static CO int list(struct objects *objects, const char *key, struct error *error)
{
    struct store_listing listing;

    int result = store_list(objects->store, key, "", STORE_LIST_MAX, &listing, error);
    if (result < 0)
        return result;
    if (listing.count != 1)
        result = error_set(error, EIO, "list %s: it is not there, though it was written", key);
    store_listing_free(&listing);
    return result;
}

CO int doctor_check_permissions(struct doctor_report *report, struct loop *loop, struct store *store)
{
    struct objects objects;
    struct error error = ERROR_NONE;
    char key[KEY_BYTES];
    uint8_t *back = memory_new(SMALL_BYTES);

    objects_init(&objects, loop, store);
    make_key(&objects, "permission", 0, key);
    int result = put(&objects, key, SMALL_BYTES, &error);
    doctor_judge(report, "put", result, "objects can be written", &error,
                 "allow s3:PutObject on the bucket and prefix to these credentials");
    if (result == 0) {
        result = get(&objects, key, back, SMALL_BYTES, &error);
        doctor_judge(report, "get", result, "objects can be read", &error,
                     "allow s3:GetObject on the bucket and prefix to these credentials");
        int listed = list(&objects, key, &error);
        doctor_judge(report, "list", listed, "objects can be listed", &error,
                     "allow s3:ListBucket on the bucket to these credentials");
        int deleted = store_delete(store, key, &error);
        doctor_judge(report, "delete", deleted, "objects can be deleted", &error,
                     "allow s3:DeleteObject on the bucket and prefix to these credentials");
        result = result < 0 ? result : listed < 0 ? listed : deleted;
    }
    free(objects.bytes);
    free(back);
    return result;
}

/* ---- latency: one after the other ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void tell_latency(struct doctor_report *report, const char *check, double *ms)
{
    char detail[128];

    qsort(ms, SMALL_COUNT, sizeof *ms, compare);
    double p50 = ms[SMALL_COUNT / 2], most = ms[SMALL_COUNT - 1];
    snprintf(detail, sizeof detail, "p50 %.1f ms, max %.1f ms, of %d requests of 4 KiB", p50, most, SMALL_COUNT);
    doctor_found(report, check, FINDING_GOOD, detail, NULL,
                 json_pack("{s:f, s:f, s:i}", "p50_ms", p50, "max_ms", most, "requests", SMALL_COUNT));
}

static CO int measure_latency(struct doctor_report *report, struct objects *objects, bool write)
{
    const char *check = write ? "latency of put" : "latency of get";
    double ms[SMALL_COUNT];
    uint8_t back[SMALL_BYTES];
    struct error error = ERROR_NONE;

    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        char key[KEY_BYTES];
        make_key(objects, "small", i, key);
        uint64_t began_ns = loop_now_ns(objects->loop);
        int result = write ? put(objects, key, SMALL_BYTES, &error) : get(objects, key, back, SMALL_BYTES, &error);
        if (result < 0)
            return doctor_judge(report, check, result, "", &error, "try again when the store is well");
        ms[i] = (double)(loop_now_ns(objects->loop) - began_ns) / (double)NS_PER_MS;
    }
    tell_latency(report, check, ms);
    return 0;
}

/* ---- throughput: many at once ---- */

struct transfer {
    struct objects *objects;
    unsigned number;
    uint8_t *back; /* NULL: it is written */
    int result;
    struct error error;
};

static CO void transfer_large(void *arg)
{
    struct transfer *transfer = arg;
    char key[KEY_BYTES];

    make_key(transfer->objects, "large", transfer->number, key);
    transfer->result = transfer->back == NULL
                           ? put(transfer->objects, key, LARGE_BYTES, &transfer->error)
                           : get(transfer->objects, key, transfer->back, LARGE_BYTES, &transfer->error);
}

static CO int measure_throughput(struct doctor_report *report, struct objects *objects, bool write)
{
    const char *check = write ? "throughput of put" : "throughput of get";
    struct transfer *transfers = memory_array(LARGE_COUNT, sizeof *transfers);
    struct group group;
    char detail[128];
    int result = 0;

    group_init(&group, objects->loop);
    uint64_t began_ns = loop_now_ns(objects->loop);
    for (unsigned i = 0; i < LARGE_COUNT; i++) {
        transfers[i] = (struct transfer){ .objects = objects, .number = i };
        if (!write)
            transfers[i].back = memory_resize(NULL, LARGE_BYTES, 1);
        group_spawn(&group, "transfer", transfer_large, &transfers[i]);
    }
    group_join(&group);
    double seconds = (double)(loop_now_ns(objects->loop) - began_ns) / (double)NS_PER_S;
    double rate = (double)(LARGE_COUNT * LARGE_BYTES) / MIB / (seconds > 0 ? seconds : 1e-9);
    for (unsigned i = 0; i < LARGE_COUNT; i++) {
        free(transfers[i].back);
        if (transfers[i].result < 0 && result == 0)
            result = doctor_judge(report, check, transfers[i].result, "", &transfers[i].error,
                                  "try again when the store is well");
    }
    snprintf(detail, sizeof detail, "%.0f MiB/s, with %d requests of 8 MiB at once", rate, LARGE_COUNT);
    if (result == 0)
        doctor_found(report, check, FINDING_GOOD, detail, NULL,
                     json_pack("{s:f, s:i}", "mib_per_s", rate, "requests", LARGE_COUNT));
    free(transfers);
    return result;
}

CO void doctor_measure(struct doctor_report *report, struct loop *loop, struct store *store)
{
    struct objects objects;
    struct error nobody_cares = ERROR_NONE;
    char key[KEY_BYTES];

    objects_init(&objects, loop, store);
    if (measure_latency(report, &objects, true) == 0)
        measure_latency(report, &objects, false);
    if (measure_throughput(report, &objects, true) == 0)
        measure_throughput(report, &objects, false);
    for (unsigned i = 0; i < SMALL_COUNT + LARGE_COUNT; i++) {
        make_key(&objects, i < SMALL_COUNT ? "small" : "large", i < SMALL_COUNT ? i : i - SMALL_COUNT, key);
        (void)store_delete(store, key, &nobody_cares);
    }
    free(objects.bytes);
}
