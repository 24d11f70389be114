/* The tags of volumes in the cache's keys come round: two volumes that are open never share one, else each would read
 * what the other has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../lib/engine.h"

/* Tags that there are.  The highest that the bits could hold is not among them. */
#define TAGS ((UINT64_C(1) << (64 - CACHE_TAG_SHIFT)) - 1)
#define VOLUMES 8

static struct volume *acquire(struct engine *engine, int number)
{
    struct volume *volume;
    struct error error = ERROR_NONE;
    char name[16];
    snprintf(name, sizeof name, "v%d", number);
    assert_int_equal(volumes_acquire(engine->volumes, name, strlen(name), MIB, &volume, &error), 0);
    return volume;
}

/* What the keys of one volume are, and the end of them, which a volume that is closed forgets up to, lie apart from the
 * other's. */
static void assert_apart(const struct volume *a, const struct volume *b)
{
    uint64_t width = UINT64_C(1) << CACHE_TAG_SHIFT;
    uint64_t first_a = volume_cache_id(a, 0), first_b = volume_cache_id(b, 0);
    assert_true(a->cache_tag < TAGS && b->cache_tag < TAGS);
    assert_true(first_a + width > first_a && first_b + width > first_b);
    assert_true(first_a + width <= first_b || first_b + width <= first_a);
}

static void assert_all_apart(struct volume *const volumes[], int count)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            assert_apart(volumes[i], volumes[j]);
}

static void with_volume(struct engine *engine, struct volume *volume, void (*fn)(struct engine *engine, int number),
                        int number)
{
    struct volume *own = engine->volume;
    engine->volume = volume;
    fn(engine, number);
    engine->volume = own;
}

static void put(struct engine *engine, int number)
{
    engine_put_page(engine, 0, (uint64_t)number + 1);
    engine_flush(engine);
}

static void expect(struct engine *engine, int number)
{
    engine_expect_page(engine, 0, (uint64_t)number + 1);
}

/* Opens volumes from the tag `next` on while some of before are open, writes and reads each. */
static void round_from(struct engine *engine, struct volume *volumes[VOLUMES], uint32_t next)
{
    engine->volumes->next_tag = next;
    for (int i = 2; i < VOLUMES; i++) {
        volumes[i] = acquire(engine, i);
        with_volume(engine, volumes[i], put, i);
    }
    assert_all_apart(volumes, VOLUMES);
    for (int i = 0; i < VOLUMES; i++)
        with_volume(engine, volumes[i], expect, i);
    for (int i = 2; i < VOLUMES; i++)
        volumes_release(engine->volumes, volumes[i], false);
    assert_int_equal(sleep_ns(60 * NS_PER_S), 0);
    /* What closed ones forgot was their own. */
    struct volume_counts before = volume_read_counts(volumes[0]);
    for (int i = 0; i < 2; i++)
        with_volume(engine, volumes[i], expect, i);
    assert_true(volume_read_counts(volumes[0]).fetches == before.fetches);
}

static void wrap_body(struct bench *bench)
{
    struct engine *engine = &bench->engines[0];
    struct volume *volumes[VOLUMES];
    /* Where the first two lie: at the beginning; over the end of the tags; over the end of the counter. */
    const uint32_t firsts[] = { 0, TAGS - 1, UINT32_MAX };
    for (size_t first = 0; first < sizeof firsts / sizeof *firsts; first++) {
        engine_start(engine);
        engine->volumes->next_tag = firsts[first];
        for (int i = 0; i < 2; i++) {
            volumes[i] = acquire(engine, i);
            with_volume(engine, volumes[i], put, i);
        }
        assert_all_apart(volumes, 2);
        const uint32_t nexts[] = { firsts[first], 0, TAGS - 3, TAGS - 1, TAGS, TAGS + 1, 2 * TAGS - 2, UINT32_MAX - 2 };
        for (size_t next = 0; next < sizeof nexts / sizeof *nexts; next++)
            round_from(engine, volumes, nexts[next]);
        for (int i = 0; i < 2; i++)
            volumes_release(engine->volumes, volumes[i], false);
        engine_close(engine);
    }
}

static void test_tags_come_round(void **state)
{
    bench_run(1, wrap_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags_come_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
