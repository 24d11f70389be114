/* The contract of store/store.h, held against a real server that speaks S3.
 *
 *   CAIRN_TEST_S3              its endpoint, "http://127.0.0.1:9000"; without it nothing is run
 *   CAIRN_TEST_S3_BUCKET       "cairn-test" unless given; made when it is not there
 *   CAIRN_TEST_S3_ACCESS_KEY, CAIRN_TEST_S3_SECRET_KEY    else the usual chain
 *   CAIRN_TEST_S3_REGION       "us-east-1" unless given
 *   CAIRN_TEST_S3_FOLDERS      1: the server keeps objects as files, so no key may be another's folder
 *
 * Everything is below one random prefix, and removed at the end of each case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/in_loop.h"
#include "../lib/store_contract.h"
#include "base/memory.h"
#include "store/put_once.h"
#include "store/s3.h"

static const char *variable(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : otherwise;
}

static struct store *open_store(struct loop *loop, const char *prefix)
{
    const struct s3_setup setup = { .endpoint = variable("CAIRN_TEST_S3", NULL),
                                    .region = variable("CAIRN_TEST_S3_REGION", "us-east-1"),
                                    .bucket = variable("CAIRN_TEST_S3_BUCKET", "cairn-test"),
                                    .prefix = prefix,
                                    .access_key = variable("CAIRN_TEST_S3_ACCESS_KEY", NULL),
                                    .secret_key = variable("CAIRN_TEST_S3_SECRET_KEY", NULL),
                                    .uploads = 16,
                                    .reads = 32,
                                    .connect_timeout_ms = 5000,
                                    .read_timeout_ms = 60000,
                                    .attempts = 5 };
    struct store *store;
    struct error error = ERROR_NONE;
    if (s3_open(loop, &setup, &store, &error) != 0)
        fail_msg("%s", error.story);
    return store;
}

static void remove_all(struct store *store)
{
    for (;;) {
        struct store_listing listing;
        struct error error = ERROR_NONE;
        if (store_list(store, "", "", STORE_LIST_MAX, &listing, &error) != 0)
            fail_msg("%s", error.story);
        size_t count = listing.count;
        for (size_t i = 0; i < count; i++)
            assert_int_equal(store_delete(store, listing.entries[i].key, NULL), 0);
        store_listing_free(&listing);
        if (count == 0)
            return;
    }
}

static void run_case(struct loop *loop, void *arg)
{
    void (**test)(struct bench * bench) = arg;
    char prefix[64], region[64] = "";
    snprintf(prefix, sizeof prefix, "contract/%016llx", (unsigned long long)loop_random_u64(loop));
    struct bench bench = { .loop = loop,
                           .store = open_store(loop, prefix),
                           .folders = atoi(variable("CAIRN_TEST_S3_FOLDERS", "0")) != 0,
                           .texts = true,
                           .vague = true };
    struct error error = ERROR_NONE;
    int failed = s3_bucket_check(bench.store, region, &error);
    if (failed == -ENOENT)
        failed = s3_bucket_create(bench.store, &error);
    if (failed != 0)
        fail_msg("%s", error.story);
    (*test)(&bench);
    remove_all(bench.store);
    store_close(bench.store);
}

static void on_server(void (*test)(struct bench *bench))
{
    if (variable("CAIRN_TEST_S3", NULL) == NULL)
        skip();
    in_real_loop(run_case, &test);
}

/* ---- what only S3 has ---- */

static void the_bucket(struct bench *bench)
{
    char region[64] = "", status[16] = "?", rule[128] = "?";
    bool expires = true;
    struct error error = ERROR_NONE;
    assert_int_equal(s3_bucket_create(bench->store, &error), 0);
    assert_int_equal(s3_bucket_check(bench->store, region, &error), 0);
    if (s3_bucket_versioning(bench->store, status, &error) != 0)
        fail_msg("%s", error.story);
    assert_string_equal(status, "");
    if (s3_bucket_expires(bench->store, &expires, rule, &error) != 0)
        fail_msg("%s", error.story);
    assert_false(expires);
    assert_in_range(s3_clock_skew_s(bench->store) + 5, 0, 10);
    assert_string_not_equal(s3_credentials_source(bench->store), "");
}

static void refusals(struct bench *bench)
{
    struct s3_setup setup = { .endpoint = variable("CAIRN_TEST_S3", NULL),
                              .region = variable("CAIRN_TEST_S3_REGION", "us-east-1"),
                              .bucket = "cairn-there-is-no-such-bucket",
                              .prefix = "x",
                              .access_key = variable("CAIRN_TEST_S3_ACCESS_KEY", NULL),
                              .secret_key = variable("CAIRN_TEST_S3_SECRET_KEY", NULL),
                              .uploads = 1,
                              .reads = 1,
                              .connect_timeout_ms = 5000,
                              .read_timeout_ms = 60000,
                              .attempts = 2 };
    char region[64] = "";
    uint8_t *bytes;
    size_t length;
    struct store *store;
    struct error error = ERROR_NONE;
    assert_int_equal(s3_open(bench->loop, &setup, &store, &error), 0);
    assert_int_equal(s3_bucket_check(store, region, &error), -ENOENT);
    assert_non_null(strstr(error.story, setup.bucket));
    int failed = store_get_whole(store, "x", 100, &bytes, &length, NULL, &error);
    assert_int_equal(failed, -ENXIO); /* not -ENOENT, which would say that the key is absent */
    failed = put_text(store, "x", "x", STORE_MATCHES, "\"0123\"", NULL);
    assert_true(failed != -ESTALE && failed != -EEXIST && failed != 0);
    store_close(store);

    setup.bucket = variable("CAIRN_TEST_S3_BUCKET", "cairn-test");
    setup.access_key = "NOSUCHKEYNOSUCHKEY";
    setup.secret_key = "geheim-geheim-geheim";
    assert_int_equal(s3_open(bench->loop, &setup, &store, &error), 0);
    assert_int_equal(s3_bucket_check(store, region, &error), -EACCES);
    assert_null(strstr(error.story, "geheim"));
    store_close(store);
}

static void written_once(struct bench *bench)
{
    struct iovec piece = { .iov_base = (void *)(uintptr_t) "once", .iov_len = 4 };
    struct put_once put = { .store = bench->store, .key = "log/1", .pieces = &piece, .count = 1, .urgent = true };
    assert_int_equal(put_once(&put, NULL), 0);
    assert_int_equal(put_once(&put, NULL), 0);
    piece.iov_base = (void *)(uintptr_t) "more";
    assert_int_equal(put_once(&put, NULL), -EEXIST);
    assert_object(bench->store, "log/1", "once", NULL);
}

#define ON_SERVER(name, case)                                                                                          \
    static void name(void **state)                                                                                     \
    {                                                                                                                  \
        on_server(case);                                                                                               \
    }

ON_SERVER(test_s3_conditions, contract_conditions)
ON_SERVER(test_s3_ranges, contract_ranges)
ON_SERVER(test_s3_whole_objects, contract_whole_objects)
ON_SERVER(test_s3_large_objects, contract_large_objects)
ON_SERVER(test_s3_listings, contract_listings)
ON_SERVER(test_s3_listing_while_it_changes, contract_listing_while_it_changes)
ON_SERVER(test_s3_unusual_keys, contract_unusual_keys)
ON_SERVER(test_s3_races, contract_races)
ON_SERVER(test_s3_bucket, the_bucket)
ON_SERVER(test_s3_refusals, refusals)
ON_SERVER(test_s3_written_once, written_once)

int main(void)
{
    if (variable("CAIRN_TEST_S3", NULL) == NULL)
        fprintf(stderr, "# skipped: no server is named in CAIRN_TEST_S3\n");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s3_conditions),    cmocka_unit_test(test_s3_ranges),
        cmocka_unit_test(test_s3_whole_objects), cmocka_unit_test(test_s3_large_objects),
        cmocka_unit_test(test_s3_listings),      cmocka_unit_test(test_s3_listing_while_it_changes),
        cmocka_unit_test(test_s3_unusual_keys),  cmocka_unit_test(test_s3_races),
        cmocka_unit_test(test_s3_bucket),        cmocka_unit_test(test_s3_refusals),
        cmocka_unit_test(test_s3_written_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
