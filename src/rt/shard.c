/* Shards: see rt/shard.h.
 *
 * The loops are made by the thread that starts the shards, so that what can
 * fail does so where it can be told; each is then run, and its coroutines'
 * stacks given back, by its own thread, and freed by the one that stops them. */
#include "rt/shard.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/coroutine_internal.h"
#include "rt/loop.h"

/* More than the processors of the machines that serve disks; the struct stays small. */
#define SHARDS_MAX 64

struct shard {
    struct loop *loop;
    pthread_t thread;
};

struct shards {
    int count;
    struct shard shards[SHARDS_MAX];
};

static void *run(void *arg)
{
    struct shard *shard = arg;
    loop_run(shard->loop);
    stack_pool_free();
    return NULL;
}

/* Signals are for the main thread. */
static int start_thread(struct shard *shard, int index)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&shard->thread, NULL, run, shard);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result != 0)
        return -result;
    char name[24];
    snprintf(name, sizeof name, "shard-%u", (unsigned)index % 100);
    pthread_setname_np(shard->thread, name);
    return 0;
}

int shards_start(int count, struct shards **ret_shards, struct error *error)
{
    assert(count >= 1 && count <= SHARDS_MAX);
    struct shards *shards = memory_new(sizeof *shards);
    for (int i = 0; i < count; i++) {
        struct shard *shard = &shards->shards[i];
        int result = loop_uv_new(&shard->loop, error);
        if (result == 0) {
            result = start_thread(shard, i);
            if (result != 0) {
                loop_free(shard->loop);
                error_set_errno(error, -result, "start thread %d of %d", i + 1, count);
            }
        }
        if (result != 0) {
            shards_stop(shards);
            return result;
        }
        shards->count++;
    }
    *ret_shards = shards;
    return 0;
}

int shards_count(const struct shards *shards)
{
    return shards->count;
}

struct loop *shards_loop(struct shards *shards, int index)
{
    assert(index >= 0 && index < shards->count);
    return shards->shards[index].loop;
}

static void stop(void *arg)
{
    loop_stop(arg);
}

void shards_stop(struct shards *shards)
{
    if (shards == NULL)
        return;
    for (int i = 0; i < shards->count; i++)
        loop_post(shards->shards[i].loop, stop, shards->shards[i].loop);
    for (int i = 0; i < shards->count; i++)
        pthread_join(shards->shards[i].thread, NULL);
    for (int i = 0; i < shards->count; i++)
        loop_free(shards->shards[i].loop);
    free(shards);
}
