/* What the nouns under a cached READ and a buffered WRITE cost by themselves, in nanoseconds.
 *
 * Prints one line per operation.  Two working sets: one that the processor's
 * caches hold, and one of as many pages as the first argument says in MiB
 * (default 1,024 MiB of disk), visited at random, where the memory's latency
 * shows.  Single-threaded, as a shard is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vol/cache.h"
#include "vol/map.h"

#define OPERATIONS 1000000u
#define ROUNDS 7
#define OBJECT_BLOCKS 64u

static uint64_t random_state = 88172645463325252u;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* The best of ROUNDS: other work on the machine only ever adds. */
static void measure(const char *what, void (*operations)(void *arg), void *arg)
{
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double since = now_ns();
        operations(arg);
        double took = now_ns() - since;
        if (round == 0 || took < best)
            best = took;
    }
    printf("  %-52s %8.1f ns\n", what, best / OPERATIONS);
}

struct disk {
    struct object_table *objects;
    struct map *map;
    struct page_pool *pool;
    struct cache *cache;
    uint64_t pages;
    uint64_t next_id; /* of objects that fold() makes */
};

static uint32_t disk_add_object(struct disk *disk, uint64_t id)
{
    uint32_t index;
    if (object_table_add(disk->objects, &(struct object){ .id = id, .role = ROLE_PAGES }, &index) < 0)
        abort();
    return index;
}

/* Objects of whole frames in order, all in the cache. */
static void disk_write(struct disk *disk)
{
    uint32_t object = 0;
    uint64_t id = 0;
    for (uint64_t page = 0; page < disk->pages; page += BLOCK_PAGES) {
        uint32_t in_object = (uint32_t)(page / BLOCK_PAGES % OBJECT_BLOCKS);
        if (in_object == 0)
            object = disk_add_object(disk, ++id);
        struct location location = { object, in_object * 2049, 2049, 0, BLOCK_PAGES };
        map_set(disk->map, page, BLOCK_PAGES, &location);
        struct page *pages[BLOCK_PAGES];
        if (page_pool_try(disk->pool, BLOCK_PAGES, pages) < 0)
            abort();
        struct frame *frame = cache_begin(disk->cache, id, location.start, pages, BLOCK_PAGES);
        cache_ready(disk->cache, frame);
        frame_unref(disk->cache, frame);
    }
}

/* Then every fourth page again, in commits of 1,024 pages anywhere. */
static void disk_scatter(struct disk *disk)
{
    uint32_t object = 0;
    uint64_t id = UINT64_C(1) << 30;
    for (uint32_t i = 0; i < disk->pages / 4; i++) {
        if (i % 1024 == 0)
            object = disk_add_object(disk, ++id);
        struct location location = { object, i % 1024 * 65, 65, 0, 1 };
        map_set(disk->map, random_u64() % disk->pages, 1, &location);
        struct page *page;
        if (page_pool_try(disk->pool, 1, &page) < 0)
            abort();
        cache_insert(disk->cache, id, location.start, &page, 1);
        page_unref(page);
    }
}

static void disk_make(struct disk *disk, uint64_t pages, bool scattered)
{
    *disk = (struct disk){ .objects = object_table_new(), .pages = pages, .next_id = UINT64_C(1) << 31 };
    disk->map = map_new(disk->objects, pages);
    disk->pool = page_pool_new(NULL, pages * (PAGE_COST + 64) * 2 + (16 << 20));
    disk->cache = cache_new(disk->pool, random_u64());
    disk_write(disk);
    if (scattered)
        disk_scatter(disk);
}

static void disk_free(struct disk *disk)
{
    cache_free(disk->cache);
    page_pool_free(disk->pool);
    map_free(disk->map);
    object_table_free(disk->objects);
}

/* ---- a READ ---- */

static uint64_t sink; /* what keeps the compiler from leaving work out */

static void look_up_map(void *arg)
{
    const struct disk *disk = arg;
    uint64_t run;
    for (uint32_t i = 0; i < OPERATIONS; i++)
        sink += map_lookup(disk->map, random_u64() % disk->pages, 1, &run).start;
}

static void look_up_cache(void *arg)
{
    const struct disk *disk = arg;
    uint64_t objects = disk->pages / BLOCK_PAGES / OBJECT_BLOCKS;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        uint64_t number = random_u64();
        uint32_t start = (uint32_t)(number >> 32) % OBJECT_BLOCKS * 2049;
        struct frame *frame = cache_lookup_pages(disk->cache, 1 + number % objects, start, 1);
        frame_unref(disk->cache, frame);
    }
}

static void find_page(void *arg)
{
    const struct disk *disk = arg;
    uint64_t run;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        struct location location = map_lookup(disk->map, random_u64() % disk->pages, 1, &run);
        uint64_t id = object_table_row(disk->objects, location.object)->id;
        struct frame *frame = cache_lookup_pages(disk->cache, id, location.start, UINT32_C(1) << location.frame_page);
        struct page *page = page_ref(frame->pages[location.frame_page]);
        frame_unref(disk->cache, frame);
        sink += (uintptr_t)page->data;
        page_unref(page);
    }
}

/* ---- a WRITE and its commit ---- */

struct pages {
    struct page_pool *pool;
    struct page *held[256];
};

static void take(struct pages *pages, size_t count, struct page **ret_pages)
{
    if (page_pool_try(pages->pool, count, ret_pages) < 0)
        abort();
}

static void take_one(void *arg)
{
    struct page *page;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        take(arg, 1, &page);
        page_unref(page);
    }
}

static void take_block(void *arg)
{
    struct page *block[BLOCK_PAGES];
    for (uint32_t i = 0; i < OPERATIONS / BLOCK_PAGES; i++) {
        take(arg, BLOCK_PAGES, block);
        for (uint32_t j = 0; j < BLOCK_PAGES; j++)
            page_unref(block[j]);
    }
}

static void replace_one(void *arg)
{
    struct pages *pages = arg;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        struct page **place = &pages->held[random_u64() % 256];
        page_unref(*place);
        take(pages, 1, place);
    }
}

static void look_for_zeroes(void *arg)
{
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        __asm__ volatile("" ::: "memory");
        sink += page_is_zero(arg);
    }
}

static void measure_pages(void)
{
    struct pages pages = { .pool = page_pool_new(NULL, UINT64_C(256) << 20) };
    measure("take and unref a page", take_one, &pages);
    measure("the same for 32 pages at once, a page", take_block, &pages);
    take(&pages, 256, pages.held);
    measure("unref at random and take, 256 in use", replace_one, &pages);
    for (uint32_t i = 0; i < 256; i++)
        page_unref(pages.held[i]);
    page_pool_free(pages.pool);
    uint8_t *zeroes = calloc(1, PAGE_BYTES);
    measure("page_is_zero of a page that is", look_for_zeroes, zeroes);
    free(zeroes);
}

/* Commits of 1,024 scattered pages each. */
static void fold(void *arg)
{
    struct disk *disk = arg;
    uint32_t object = 0;
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        if (i % 1024 == 0) {
            object_table_forget_dead(disk->objects);
            object = disk_add_object(disk, ++disk->next_id);
        }
        struct location location = { object, i % 1024 * 65, 65, 0, 1 };
        map_set(disk->map, random_u64() % disk->pages, 1, &location);
    }
}

int main(int argc, char **argv)
{
    uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024;
    if (mib < 16) {
        fprintf(stderr, "usage: %s [MiB of disk, at least 16]\n", argv[0]);
        return 2;
    }
    printf("pages:\n");
    measure_pages();
    for (int large = 0; large < 2; large++)
        for (int scattered = 0; scattered < 2; scattered++) {
            uint64_t size = large ? mib : 16;
            struct disk disk;
            disk_make(&disk, size << 20 >> 12, scattered);
            printf("%" PRIu64 " MiB of disk in the cache, %s:\n", size,
                   scattered ? "a quarter of its pages scattered" : "written in order");
            measure("map_lookup", look_up_map, &disk);
            measure("cache_lookup, frame_unref", look_up_cache, &disk);
            measure("a cached page: map, object, cache, page_ref, unref", find_page, &disk);
            measure("map_set of a page", fold, &disk);
            printf("  %-52s %8.1f bytes\n", "memory of the map, a mapped page",
                   (double)map_memory_bytes(disk.map) / (double)map_mapped_pages(disk.map));
            disk_free(&disk);
        }
    return sink == 0; /* never: only so that what was summed up is used */
}
