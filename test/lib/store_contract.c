/* What every store must do, see store_contract.h. */
#include "store_contract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "rt/loop.h"
#include "rt/task.h"

/* ---- short forms ---- */

int put_bytes(struct store *store, const char *key, const void *bytes, size_t length, enum store_condition condition,
              const char *etag, char *ret_etag)
{
    struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    const struct store_put put = { .key = key, .pieces = &piece, .count = 1, .condition = condition, .etag = etag };
    struct error error = ERROR_NONE;
    int failed = store_put(store, &put, ret_etag, &error);
    assert_int_equal(failed, -error.code);
    return failed;
}

int put_text(struct store *store, const char *key, const char *text, enum store_condition condition, const char *etag,
             char *ret_etag)
{
    return put_bytes(store, key, text, strlen(text), condition, etag, ret_etag);
}

void assert_object(struct store *store, const char *key, const char *text, const char *etag)
{
    uint8_t *bytes;
    size_t length;
    char found[STORE_ETAG_MAX];
    assert_int_equal(store_get_whole(store, key, 1000, &bytes, &length, found, NULL), 0);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(bytes, text, length);
    if (etag != NULL)
        assert_string_equal(found, etag);
    free(bytes);
}

void assert_absent(struct store *store, const char *key)
{
    struct iovec none = { 0 };
    const struct store_get get = { .key = key, .pieces = &none, .count = 0 };
    struct store_got got;
    struct error error = ERROR_NONE;
    assert_int_equal(store_get(store, &get, &got, &error), -ENOENT);
    assert_int_equal(error.code, ENOENT);
    assert_non_null(strstr(error.story, key));
}

/* ---- the contract ---- */

void contract_conditions(struct bench *bench)
{
    struct store *store = bench->store;
    char first[STORE_ETAG_MAX], second[STORE_ETAG_MAX], third[STORE_ETAG_MAX];
    assert_absent(store, "volumes/n.db");
    assert_int_equal(put_text(store, "volumes/n.db", "one", STORE_MATCHES, "x", NULL), -ESTALE);
    assert_absent(store, "volumes/n.db");
    assert_int_equal(put_text(store, "volumes/n.db", "one", STORE_ABSENT, NULL, first), 0);
    assert_object(store, "volumes/n.db", "one", first);
    assert_int_equal(put_text(store, "volumes/n.db", "two", STORE_ABSENT, NULL, NULL), -EEXIST);
    assert_object(store, "volumes/n.db", "one", first);
    assert_int_equal(put_text(store, "volumes/n.db", "two", STORE_MATCHES, first, second), 0);
    assert_string_not_equal(first, second);
    assert_object(store, "volumes/n.db", "two", second);
    assert_int_equal(put_text(store, "volumes/n.db", "three", STORE_MATCHES, first, NULL), -ESTALE);
    assert_object(store, "volumes/n.db", "two", second);
    assert_int_equal(put_text(store, "volumes/n.db", "six", STORE_ANY, NULL, third), 0);
    assert_object(store, "volumes/n.db", "six", third);
    assert_string_not_equal(second, third);
    assert_int_equal(store_delete(store, "volumes/n.db", NULL), 0);
    assert_absent(store, "volumes/n.db");
    assert_int_equal(store_delete(store, "volumes/n.db", NULL), 0);
    assert_int_equal(store_delete(store, "no/such/directory", NULL), 0);
    assert_int_equal(put_text(store, "volumes/n.db", "x", STORE_MATCHES, third, NULL), -ESTALE);
    assert_int_equal(put_text(store, "volumes/n.db", "new", STORE_ANY, NULL, NULL), 0);
    assert_object(store, "volumes/n.db", "new", NULL);
}

static void assert_range(struct store *store, uint64_t offset, size_t wanted, const char *expected)
{
    char bytes[64];
    memset(bytes, '#', sizeof bytes);
    /* In pieces of one, none, and the rest. */
    struct iovec pieces[3] = { { bytes, wanted > 0 ? 1 : 0 }, { NULL, 0 }, { bytes + 1, wanted > 1 ? wanted - 1 : 0 } };
    const struct store_get get = { .key = "v/x/log/1", .offset = offset, .pieces = pieces, .count = 3 };
    struct store_got got;
    assert_int_equal(store_get(store, &get, &got, NULL), 0);
    assert_int_equal(got.size, 10);
    assert_int_equal(got.length, strlen(expected));
    assert_memory_equal(bytes, expected, strlen(expected));
    assert_int_equal(bytes[strlen(expected)], '#');
    assert_string_not_equal(got.etag, "");
}

void contract_ranges(struct bench *bench)
{
    struct store *store = bench->store;
    assert_int_equal(put_text(store, "v/x/log/1", "0123456789", STORE_ABSENT, NULL, NULL), 0);
    assert_range(store, 0, 10, "0123456789");
    assert_range(store, 0, 40, "0123456789");
    assert_range(store, 3, 4, "3456");
    assert_range(store, 8, 2, "89");
    assert_range(store, 8, 20, "89");
    assert_range(store, 10, 5, "");
    assert_range(store, 11, 5, "");
    assert_range(store, UINT64_MAX, 5, "");
    assert_range(store, 4, 0, "");
    assert_range(store, 0, 0, "");
    assert_int_equal(put_text(store, "v/x/log/2", "", STORE_ABSENT, NULL, NULL), 0);
    assert_object(store, "v/x/log/2", "", NULL);
    assert_int_equal(put_text(store, "v/x/log/2", "", STORE_ABSENT, NULL, NULL), -EEXIST);
}

void contract_whole_objects(struct bench *bench)
{
    static const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1 };
    uint8_t *bytes = memory_new((1 << 20) + 1);
    for (size_t i = 0; i <= 1 << 20; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 8));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char put_etag[STORE_ETAG_MAX], etag[STORE_ETAG_MAX];
        assert_int_equal(put_bytes(bench->store, "whole", bytes, sizes[i], STORE_ANY, NULL, put_etag), 0);
        uint8_t *read;
        size_t length;
        assert_int_equal(store_get_whole(bench->store, "whole", sizes[i], &read, &length, etag, NULL), 0);
        assert_int_equal(length, sizes[i]);
        assert_memory_equal(read, bytes, length);
        assert_string_equal(etag, put_etag);
        free(read);
        if (sizes[i] > 0)
            assert_int_equal(store_get_whole(bench->store, "whole", sizes[i] - 1, &read, &length, etag, NULL), -EFBIG);
        /* The ETag of a whole get is good for a condition. */
        assert_int_equal(put_text(bench->store, "whole", "x", STORE_MATCHES, etag, NULL), 0);
    }
    assert_int_equal(store_get_whole(bench->store, "none", 10, &bytes, &(size_t){ 0 }, NULL, NULL), -ENOENT);
    free(bytes);
}

void contract_large_objects(struct bench *bench)
{
    /* More pieces than one system call takes, of odd lengths, some empty. */
    enum { PIECES = 3000 };
    uint8_t *bytes = memory_new(PIECES * 5600);
    struct iovec *pieces = memory_array(PIECES, sizeof *pieces);
    size_t length = 0;
    for (size_t i = 0; i < PIECES; i++) {
        size_t part = i % 7 == 3 ? 0 : 5000 + i % 500;
        memset(bytes + length, (int)(i % 251), part);
        pieces[i] = (struct iovec){ bytes + length, part };
        length += part;
    }
    const struct store_put put = {
        .key = "v/x/data/1/1", .pieces = pieces, .count = PIECES, .condition = STORE_ABSENT
    };
    char etag[STORE_ETAG_MAX];
    assert_int_equal(store_put(bench->store, &put, etag, NULL), 0);
    uint8_t *copy = memory_new(PIECES * 5600);
    for (size_t i = 0; i < PIECES; i++)
        pieces[i].iov_base = copy + ((uint8_t *)pieces[i].iov_base - bytes);
    const struct store_get get = { .key = put.key, .offset = 0, .pieces = pieces, .count = PIECES };
    struct store_got got;
    assert_int_equal(store_get(bench->store, &get, &got, NULL), 0);
    assert_int_equal(got.length, length);
    assert_string_equal(got.etag, etag);
    assert_memory_equal(copy, bytes, length);
    free(copy);
    free(pieces);
    free(bytes);
}

/* Lists in pages of `limit` and returns how many keys there were; they are checked to ascend. */
size_t list_all(struct store *store, const char *prefix, const char *after, size_t limit, char *ret_first,
                char *ret_last)
{
    char last[STORE_KEY_MAX + 1];
    size_t count = 0;
    snprintf(last, sizeof last, "%s", after);
    for (bool more = true; more;) {
        struct store_listing listing;
        assert_int_equal(store_list(store, prefix, last, limit, &listing, NULL), 0);
        assert_true(listing.count <= limit);
        assert_true(!listing.more || listing.count > 0);
        if (count == 0 && listing.count > 0 && ret_first != NULL)
            strcpy(ret_first, listing.entries[0].key);
        for (size_t i = 0; i < listing.count; i++) {
            assert_true(strcmp(listing.entries[i].key, last) > 0);
            assert_int_equal(strncmp(listing.entries[i].key, prefix, strlen(prefix)), 0);
            assert_int_equal(listing.entries[i].size, strlen(listing.entries[i].key));
            strcpy(last, listing.entries[i].key);
        }
        count += listing.count;
        more = listing.more;
        store_listing_free(&listing);
    }
    if (ret_last != NULL)
        strcpy(ret_last, last);
    return count;
}

void put_named(struct store *store, const char *key)
{
    assert_int_equal(put_text(store, key, key, STORE_ABSENT, NULL, NULL), 0);
}

struct putter {
    struct store *store;
    char **keys;
    size_t count, *next;
};

static void run_putter(void *arg)
{
    const struct putter *putter = arg;
    while (*putter->next < putter->count)
        put_named(putter->store, putter->keys[(*putter->next)++]);
}

/* Several at once, for the sake of stores that are far away. */
static void put_all_named(struct bench *bench, char **keys, size_t count)
{
    size_t next = 0;
    struct putter putter = { .store = bench->store, .keys = keys, .count = count, .next = &next };
    struct group group;
    group_init(&group, bench->loop);
    for (int i = 0; i < 16; i++)
        group_spawn(&group, "putter", run_putter, &putter);
    group_join(&group);
}

/* What a list must show of `keys`, against what it shows. */
static void expect_list(struct store *store, char **keys, size_t key_count, const char *prefix, const char *after,
                        size_t limit)
{
    const char *lowest = NULL, *highest = NULL;
    size_t count = 0;
    for (size_t i = 0; i < key_count; i++) {
        const char *key = keys[i];
        if (strncmp(key, prefix, strlen(prefix)) != 0 || strcmp(key, after) <= 0)
            continue;
        count++;
        if (lowest == NULL || strcmp(key, lowest) < 0)
            lowest = key;
        if (highest == NULL || strcmp(key, highest) > 0)
            highest = key;
    }
    char first[STORE_KEY_MAX + 1], last[STORE_KEY_MAX + 1];
    assert_int_equal(list_all(store, prefix, after, limit, first, last), count);
    if (count > 0) {
        assert_string_equal(first, lowest);
        assert_string_equal(last, highest);
    }
}

void contract_listings(struct bench *bench)
{
    enum { LOGS = 1100, OBJECTS = 30 };
    struct store *store = bench->store;
    /* Those that are others' directories come last. */
    static const char *const others[] = { "cairn",      "volumes/n.db", "volumes/n.db2", "volumes/n.d", "volumes/h.0",
                                          "v/ab-c",     "v/ab!",        "v/ab.obj/x",    "v/ab0",       "v/ab/lo",
                                          "v/ab/log-x", "v/ab/logs/1",  "zz/y/x/w",      "v/ab",        "v/ab/log" };
    const size_t other_count = sizeof others / sizeof *others - (bench->folders ? 2 : 0);
    const size_t count = LOGS + OBJECTS + other_count;
    char **keys = memory_array(count, sizeof *keys);
    for (size_t i = 0; i < count; i++) {
        char key[STORE_KEY_MAX + 1];
        if (i < LOGS)
            snprintf(key, sizeof key, "v/ab/log/%020zu", i * 7 % LOGS);
        else if (i < LOGS + OBJECTS)
            snprintf(key, sizeof key, "v/ab/data/%020zu/%020zu", i % 3 + 9, i);
        else
            snprintf(key, sizeof key, "%s", others[i - LOGS - OBJECTS]);
        keys[i] = memory_string(key);
    }
    assert_int_equal(list_all(store, "", "", 10, NULL, NULL), 0);
    assert_int_equal(list_all(store, "volumes/", "", 10, NULL, NULL), 0);
    put_all_named(bench, keys, count);

    static const size_t limits[] = { 1, 7, 499, 1000 };
    for (size_t i = 1; i < 4; i++)
        expect_list(store, keys, count, "", "", limits[i]);
    for (size_t i = 0; i < 4; i++) {
        expect_list(store, keys, count, "volumes/", "", limits[i]);
        expect_list(store, keys, count, "v/ab/data/", "", limits[i]);
    }
    expect_list(store, keys, count, "v/ab/log/", "", 1000);
    expect_list(store, keys, count, "v/ab/log", "", 1000);
    expect_list(store, keys, count, "v/ab/lo", "", 1000);
    expect_list(store, keys, count, "v/ab", "", 70);
    expect_list(store, keys, count, "v/ab/", "v/ab/log/00000000000000001097", 1);
    /* Places that are no keys, before, inside and behind. */
    expect_list(store, keys, count, "v/ab/log/", "a", 1000);
    expect_list(store, keys, count, "v/ab/log/", "v/ab/log/0000000000000000100", 1000);
    expect_list(store, keys, count, "v/ab/log/", "z", 1000);
    expect_list(store, keys, count, "v/ab/log/0000000000000000105", "", 1000);
    expect_list(store, keys, count, "v/ab/log/x/y/z", "", 1000);
    expect_list(store, keys, count, "nothing/", "", 1000);
    for (size_t i = 0; i < count; i++)
        free(keys[i]);
    free(keys);
}

void contract_listing_while_it_changes(struct bench *bench)
{
    enum { KEYS = 1050 };
    struct store *store = bench->store;
    char key[STORE_KEY_MAX + 1];
    char **keys = memory_array(KEYS, sizeof *keys);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k/%04d", 2 * i);
        keys[i] = memory_string(key);
    }
    put_all_named(bench, keys, KEYS);
    for (int i = 0; i < KEYS; i++)
        free(keys[i]);
    free(keys);
    struct store_listing listing;
    assert_int_equal(store_list(store, "k/", "", 1000, &listing, NULL), 0);
    assert_int_equal(listing.count, 1000);
    assert_true(listing.more);
    assert_string_equal(listing.entries[999].key, "k/1998");
    store_listing_free(&listing);
    /* The rest goes while we are between two pages. */
    for (int i = 2000; i < 2100; i += 2) {
        snprintf(key, sizeof key, "k/%04d", i);
        assert_int_equal(store_delete(store, key, NULL), 0);
    }
    assert_int_equal(store_list(store, "k/", "k/1998", 1000, &listing, NULL), 0);
    assert_int_equal(listing.count, 0);
    assert_false(listing.more);
    store_listing_free(&listing);
    /* A question is answered as of now, also right behind a page. */
    put_named(store, "k/2999");
    assert_int_equal(store_list(store, "k/", "k/1998", 1, &listing, NULL), 0);
    assert_int_equal(listing.count, 1);
    assert_string_equal(listing.entries[0].key, "k/2999");
    store_listing_free(&listing);
    assert_int_equal(list_all(store, "k/", "", 1000, NULL, NULL), 1001);
}

/* Of keys that only a file system would mind. */
static bool is_others_folder(const char *const *keys, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(keys[i], key, strlen(key)) == 0 && keys[i][strlen(key)] == '/')
            return true;
    return false;
}

void contract_unusual_keys(struct bench *bench)
{
    struct store *store = bench->store;
    char longest[STORE_KEY_MAX + 1], deepest[STORE_KEY_MAX + 1], escaped[STORE_KEY_MAX + 1];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    for (size_t i = 0; i < sizeof deepest - 1; i++)
        deepest[i] = i % 2 == 0 ? 'd' : '/';
    deepest[sizeof deepest - 2] = '\0';
    for (size_t i = 0; i < sizeof escaped - 1; i++)
        escaped[i] = i < 200 ? "\xf0\x9f\x97\xbf"[i % 4] : '.';
    escaped[sizeof escaped - 1] = '\0';
    char longest_with_child[300], longest_dots[260];
    memset(longest_with_child, 'a', 298);
    strcpy(longest_with_child + 240, "/a");
    memset(longest_dots, '.', 259);
    longest_dots[259] = '\0';
    const char *const all[] = {
        "UPPER",
        "upper",
        "a",
        "a/b",
        "a/b/c",
        "a.obj",
        "a.obj/b",
        "a.obj.obj",
        "a.obj/b.obj/c",
        "a.obj=2e",
        "a=2eobj/b",
        ".hidden",
        "...",
        ".../...",
        "..a/.b",
        "x y",
        "x%20y",
        "x=20y",
        "+",
        "a+/b",
        "a+",
        "~",
        "*?[]{}$`'\"\\|<>;&",
        "\xff\xfe",
        "tmp",
        "locks/00",
        "objects",
        "%",
        "=",
        "==",
        "=0",
        "-",
        "-rf",
        "CON",
        "n.%e2%82%ac",
        ".obj",
        ".obj/x",
        "x/.obj",
        ":",
        longest,
        deepest,
        escaped,
        longest_with_child,
        longest_dots,
    };
    const size_t all_count = sizeof all / sizeof *all;
    const char *keys[sizeof all / sizeof *all];
    size_t count = 0;
    for (size_t i = 0; i < all_count; i++) {
        bool too_long_a_name = all[i] == longest || all[i] == longest_dots || all[i] == escaped;
        bool kept = !bench->folders || (!is_others_folder(all, all_count, all[i]) && !too_long_a_name);
        if (kept && (!bench->texts || text_is_utf8(all[i], strlen(all[i]))))
            keys[count++] = all[i];
    }
    for (size_t i = 0; i < count; i++)
        put_named(store, keys[i]);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(put_text(store, keys[i], "x", STORE_ABSENT, NULL, NULL), -EEXIST);
        uint8_t *bytes;
        size_t length;
        assert_int_equal(store_get_whole(store, keys[i], 1000, &bytes, &length, NULL, NULL), 0);
        assert_int_equal(length, strlen(keys[i]));
        assert_memory_equal(bytes, keys[i], length);
        free(bytes);
        assert_true(list_all(store, keys[i], "", 1000, NULL, NULL) >= 1);
    }
    assert_int_equal(list_all(store, "", "", 1000, NULL, NULL), count);
    assert_int_equal(list_all(store, "", "", 3, NULL, NULL), count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(store_delete(store, keys[i], NULL), 0);
    assert_int_equal(list_all(store, "", "", 1000, NULL, NULL), 0);
}

/* ---- many at once ---- */

#define RACERS 16
#define ROUNDS 8

struct race {
    struct store *store;
    char key[64];
    char etag[STORE_ETAG_MAX]; /* "" : ABSENT */
    int round;
};

struct racer {
    struct race *race;
    char text[64];
    int result;
};

static void run_racer(void *arg)
{
    struct racer *racer = arg;
    const struct race *race = racer->race;
    bool absent = race->etag[0] == '\0';
    racer->result =
        put_text(race->store, race->key, racer->text, absent ? STORE_ABSENT : STORE_MATCHES, race->etag, NULL);
}

/* One wins, and its text stands there; the others know that they have not, or (`vague`) may have won unawares. */
static void run_race(struct bench *bench, struct race *race)
{
    struct racer racers[RACERS];
    struct group group;
    int won = 0, unknown = 0, found = 0;
    const int lost = race->etag[0] == '\0' ? -EEXIST : -ESTALE;
    race->round++;
    group_init(&group, bench->loop);
    for (int i = 0; i < RACERS; i++) {
        racers[i].race = race;
        /* Different each time: an earlier content would bring back an earlier ETag. */
        snprintf(racers[i].text, sizeof racers[i].text, "racer %d in round %d", i, race->round);
        group_spawn(&group, "racer", run_racer, &racers[i]);
    }
    group_join(&group);
    uint8_t *bytes;
    size_t length;
    assert_int_equal(store_get_whole(race->store, race->key, 100, &bytes, &length, NULL, NULL), 0);
    for (int i = 0; i < RACERS; i++) {
        bool is_there = length == strlen(racers[i].text) && memcmp(bytes, racers[i].text, length) == 0;
        won += racers[i].result == 0;
        unknown += racers[i].result != 0 && racers[i].result != lost;
        found += is_there;
        if (is_there)
            assert_int_not_equal(racers[i].result, lost);
        else
            assert_int_not_equal(racers[i].result, 0);
    }
    free(bytes);
    assert_int_equal(found, 1);
    assert_true(won == 1 || (bench->vague && won == 0 && unknown > 0));
    assert_true(bench->vague || unknown == 0);
}

void contract_races(struct bench *bench)
{
    struct race race = { .store = bench->store };
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(race.key, sizeof race.key, "race/%d", round);
        race.etag[0] = '\0';
        run_race(bench, &race);
        for (int i = 0; i < 2; i++) {
            uint8_t *bytes;
            size_t length;
            assert_int_equal(store_get_whole(race.store, race.key, 100, &bytes, &length, race.etag, NULL), 0);
            free(bytes);
            run_race(bench, &race);
        }
    }
}
