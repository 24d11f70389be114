/* Connections that move, with a real socket and two shards: wherever a client is accepted, its volume is served where
 * it lives. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_volume.h"
#include "nbd/codec.h"
#include "nbd/service.h"
#include "rt/shard.h"
#include "rt/task.h"

#define SHARDS 2
#define PATIENCE_S 30 /* a test that hangs fails */

struct place {
    struct loop *loop;
    struct volumes *volumes;
    struct nbd_service *service;
    struct group group;
    struct nbd_counts counts;
};

struct rig {
    struct shards *shards;
    struct place places[SHARDS];
    sem_t done;
};

struct order {
    struct rig *rig;
    struct place *place;
    int fd;
};

static struct nbd_service *home_of(void *arg, const char *name, size_t name_length)
{
    struct rig *rig = arg;
    return rig->places[name_length > 0 && name[0] == 'b'].service;
}

/* ---- on a shard's thread ---- */

static void accept_here(void *arg)
{
    struct order *order = arg;
    struct channel *channel;
    struct error error = ERROR_NONE;
    if (channel_socket_new(order->place->loop, order->fd, &channel, &error) == 0)
        nbd_service_accept(order->place->service, channel);
    sem_post(&order->rig->done);
}

static void set_up_here(void *arg)
{
    struct order *order = arg;
    struct place *place = order->place;
    struct nbd_settings settings = nbd_settings_default();
    settings.default_size = 1 << 20;
    struct nbd_wiring wiring = {
        .loop = place->loop,
        .volumes = place->volumes,
        .store = (struct store *)place->volumes,
        .home = home_of,
        .arg = order->rig,
    };
    group_init(&place->group, place->loop);
    place->service = nbd_service_new(&wiring, &settings);
    sem_post(&order->rig->done);
}

static void drain_task(void *arg)
{
    struct order *order = arg;
    nbd_service_drain(order->place->service, loop_now_ns(order->place->loop) + PATIENCE_S * NS_PER_S);
    order->place->counts = nbd_service_read_counts(order->place->service);
    sem_post(&order->rig->done);
}

static void drain_here(void *arg)
{
    struct order *order = arg;
    group_spawn(&order->place->group, "drain", drain_task, order);
}

static void free_here(void *arg)
{
    struct order *order = arg;
    nbd_service_free(order->place->service);
    sem_post(&order->rig->done);
}

static void on_shard(struct rig *rig, int shard, void (*fn)(void *arg), int fd)
{
    struct order order = { .rig = rig, .place = &rig->places[shard], .fd = fd };
    loop_post(order.place->loop, fn, &order);
    while (sem_wait(&rig->done) != 0)
        assert_int_equal(errno, EINTR);
}

/* ---- the client, on the test's own thread ---- */

static int connect_to(struct rig *rig, int shard)
{
    int ends[2];
    struct timeval patience = { .tv_sec = PATIENCE_S };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    on_shard(rig, shard, accept_here, ends[1]);
    return ends[0];
}

static void say(int fd, const void *bytes, size_t length)
{
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

static void hear(int fd, void *bytes, size_t length)
{
    assert_int_equal(recv(fd, bytes, length, MSG_WAITALL), length);
}

#define GO "IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1"
#define EXPORT_NAME "IHAVEOPT\0\0\0\1\0\0\0\1"
#define READ_SIXTEEN "\x25\x60\x95\x13\0\0\0\0ABCDEFGH\0\0\0\0\0\0\0\0\0\0\0\x10"
#define DISCONNECT "\x25\x60\x95\x13\0\0\0\2ABCDEFGH\0\0\0\0\0\0\0\0\0\0\0\0"

static void talk(struct rig *rig, int shard, char name, bool go)
{
    uint8_t bytes[64], end;
    int fd = connect_to(rig, shard);
    hear(fd, bytes, NBD_GREETING_BYTES);
    say(fd, "\0\0\0\3", 4);
    if (go) {
        /* A name that is wrong first: the handshake goes on. */
        say(fd, GO "\xff\0\0", sizeof GO + 2);
        hear(fd, bytes, NBD_OPTION_REPLY_BYTES);
        assert_memory_equal(bytes + 12, "\x80\0\0\3", 4);
        recv(fd, bytes, sizeof bytes, 0);
        say(fd, GO, sizeof GO - 1);
        say(fd, &name, 1);
        say(fd, "\0\0", 2);
        hear(fd, bytes, NBD_OPTION_REPLY_BYTES + NBD_INFO_EXPORT_BYTES);
        hear(fd, bytes, NBD_OPTION_REPLY_BYTES);
        assert_memory_equal(bytes + 12, "\0\0\0\1", 4);
    } else {
        say(fd, EXPORT_NAME, sizeof EXPORT_NAME - 1);
        say(fd, &name, 1);
        hear(fd, bytes, NBD_EXPORT_BYTES);
    }
    say(fd, READ_SIXTEEN, sizeof READ_SIXTEEN - 1);
    hear(fd, bytes, NBD_SIMPLE_REPLY_BYTES + 16);
    assert_memory_equal(bytes, "\x67\x44\x66\x98\0\0\0\0ABCDEFGH", 16);
    say(fd, DISCONNECT, sizeof DISCONNECT - 1);
    assert_int_equal(recv(fd, &end, 1, 0), 0);
    close(fd);
}

static void test_move(void **state)
{
    struct rig rig = { 0 };
    struct error error = ERROR_NONE;
    sem_init(&rig.done, 0, 0);
    assert_int_equal(shards_start(SHARDS, &rig.shards, &error), 0);
    for (int i = 0; i < SHARDS; i++) {
        rig.places[i].loop = shards_loop(rig.shards, i);
        rig.places[i].volumes = fake_volumes_new();
    }
    for (int i = 0; i < SHARDS; i++)
        on_shard(&rig, i, set_up_here, -1);

    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 8; i++)
            talk(&rig, i & 1, (i & 2) != 0 ? 'b' : 'a', (i & 4) != 0);
    }
    /* One that is at home on the other shard when that one stops. */
    int fd = connect_to(&rig, 0);
    say(fd, "\0\0\0\3" EXPORT_NAME "b", 4 + sizeof EXPORT_NAME);

    for (int i = 0; i < SHARDS; i++)
        on_shard(&rig, i, drain_here, -1);
    for (int i = 0; i < SHARDS; i++)
        on_shard(&rig, i, free_here, -1);
    close(fd);
    for (int i = 0; i < SHARDS; i++)
        assert_int_equal(rig.places[i].counts.requests[NBD_CMD_READ], 40);
    assert_true(fake.opened >= 80 && fake.opened == fake.closed);
    shards_stop(rig.shards);
    for (int i = 0; i < SHARDS; i++)
        fake_volumes_free(rig.places[i].volumes);
    sem_destroy(&rig.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
