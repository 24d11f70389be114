/* A whole NBD service for a fuzz target: it is told some bytes by a client that then falls silent, and hangs up at
 * last; it must end with nothing left.  The engine below is a fake that asserts what the real one does of its
 * arguments. */
#ifndef CAIRN_TEST_FUZZ_NBD_H
#define CAIRN_TEST_FUZZ_NBD_H

#include "../lib/fake_volume.h"
#include "base/buffer.h"
#include "fuzz.h"
#include "nbd/service.h"
#include "rt/loop_sim.h"
#include "rt/task.h"
#include "rt/wait.h"

#define FUZZ_DISK_BYTES (UINT64_C(1) << 20)
#define FUZZ_SILENCE_NS (300 * NS_PER_S)

struct fuzz_nbd {
    struct loop *loop;
    struct volumes *volumes;
    struct nbd_service *service;
    struct channel *client;
    const struct buffer *said;
    struct buffer answered;
    bool done;
};

static inline struct nbd_service *fuzz_nbd_home(void *arg, const char *name, size_t name_length)
{
    PROMISE(name_length <= 4096);
    return ((struct fuzz_nbd *)arg)->service;
}

static inline void fuzz_nbd_say(void *arg)
{
    struct fuzz_nbd *fuzz = arg;
    const struct iovec piece = { .iov_base = fuzz->said->data, .iov_len = fuzz->said->length };
    channel_write(fuzz->client, &piece, 1);
    /* Long enough for every deadline of the service to pass. */
    sleep_ns(FUZZ_SILENCE_NS);
    channel_shutdown(fuzz->client);
}

static inline void fuzz_nbd_listen(void *arg)
{
    struct fuzz_nbd *fuzz = arg;
    for (;;) {
        buffer_reserve(&fuzz->answered, 65536);
        const struct iovec piece = { .iov_base = fuzz->answered.data + fuzz->answered.length, .iov_len = 65536 };
        ssize_t got = channel_read(fuzz->client, &piece, 1);
        if (got <= 0)
            return;
        fuzz->answered.length += (size_t)got;
    }
}

static inline void fuzz_nbd_main(void *arg)
{
    struct fuzz_nbd *fuzz = arg;
    struct nbd_settings settings = nbd_settings_default();
    struct nbd_wiring wiring = {
        .loop = fuzz->loop,
        .volumes = fuzz->volumes,
        .store = (struct store *)fuzz->volumes,
        .home = fuzz_nbd_home,
        .arg = fuzz,
    };
    struct channel *server;
    struct group talk;
    settings.default_size = FUZZ_DISK_BYTES;
    fuzz->service = nbd_service_new(&wiring, &settings);
    channel_sim_pair(fuzz->loop, fuzz->loop, &fuzz->client, &server);
    nbd_service_accept(fuzz->service, server);
    group_init(&talk, fuzz->loop);
    group_spawn(&talk, "say", fuzz_nbd_say, fuzz);
    group_spawn(&talk, "listen", fuzz_nbd_listen, fuzz);
    group_join(&talk);
    channel_close(fuzz->client);
    nbd_service_drain(fuzz->service, loop_now_ns(fuzz->loop) + 100 * NS_PER_S);
    nbd_service_free(fuzz->service);
    fuzz->done = true;
}

/* What the service answered to `said`, which the caller frees; `wait`: the engine never answers at once. */
static inline struct buffer fuzz_nbd_play(const struct buffer *said, bool wait)
{
    struct world *world = world_new(1);
    struct fuzz_nbd fuzz = { .said = said, .answered = BUFFER_EMPTY };
    struct group group;
    fuzz.loop = loop_sim_new(world, "server");
    fuzz.volumes = fake_volumes_new();
    fake.wait = wait;
    group_init(&group, fuzz.loop);
    group_spawn(&group, "fuzz", fuzz_nbd_main, &fuzz);
    world_run(world, UINT64_MAX);
    PROMISE(fuzz.done && fake.opened == fake.closed);
    fake_volumes_free(fuzz.volumes);
    loop_free(fuzz.loop);
    world_free(world);
    return fuzz.answered;
}

#endif
