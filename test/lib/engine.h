/* The volume engine on a simulated loop over the memory store, for tests.
 *
 * A bench is a world with one store in it and a few engines, each of them as if
 * it were another server: volumes of its own, its own way to the store, which
 * can be made to fail (store_script.h).  What is expected to succeed is asserted
 * to. */
#ifndef CAIRN_TEST_LIB_ENGINE_H
#define CAIRN_TEST_LIB_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/event.h"
#include "rt/loop_sim.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "store/store.h"
#include "store_script.h"
#include "vol/internal.h"
#include "vol/volume.h"

#define MIB (UINT64_C(1) << 20)
#define ENGINES 2
#define ENGINE_VOLUME "disk"

struct bench;

struct engine {
    struct bench *bench;
    struct store *count;  /* what volumes are given: store_count over */
    struct store *script; /* store_script over */
    struct store *fault;  /* store_fault, perfect unless it is changed, over the bench's memory */
    struct volume_settings settings;
    struct volumes *volumes;
    struct volume *volume;
};

struct bench {
    struct world *world;
    struct loop *loop;
    struct mem *mem;
    struct store *direct; /* the store as it is */
    struct host host;
    struct event_sink events; /* of all engines */
    struct buffer said;       /* lines: what they raised */
    struct engine engines[ENGINES];
    struct group group; /* of the test's own tasks, and the test itself */
    void (*body)(struct bench *bench);
    bool done;
};

/* Runs `body` as a task of a new world until nothing is left to do. */
void bench_run(uint64_t seed, void (*body)(struct bench *bench));

/* How many of the events so far have `words` in them. */
int bench_said(const struct bench *bench, const char *words);

/* Starts an engine without opening anything. */
void engine_start(struct engine *engine);
/* Starts it unless it runs; opens ENGINE_VOLUME. */
int engine_try_open(struct engine *engine, uint64_t create_size, struct error *error);
void engine_open(struct engine *engine, uint64_t create_size);
/* Releases the volume if it is open, shuts down; asserts that all was saved and nothing is held any more. */
void engine_close(struct engine *engine);
/* The end without a word to the store: the next owner has to break the lease, and is told to. */
void engine_crash(struct engine *engine);
/* The same, and nobody is told anything. */
void engine_die(struct engine *engine);
/* Nothing is held of pages and gates, but for what the cache has. */
void engine_holds_nothing(const struct engine *engine);

void fill(uint8_t *bytes, size_t length, uint64_t seed); /* without a zero byte */
/* 0, or what WRITE answers. */
int engine_try_put(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length);
void engine_put(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length);
/* A page of fill(…, seed). */
void engine_put_page(struct engine *engine, uint64_t page, uint64_t seed);
void engine_expect(struct engine *engine, uint64_t offset, const uint8_t *bytes, uint32_t length);
void engine_expect_page(struct engine *engine, uint64_t page, uint64_t seed); /* 0: zeroes */
void engine_flush(struct engine *engine);
void engine_zero(struct engine *engine, uint64_t offset, uint64_t length);

#endif
