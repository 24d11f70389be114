/* The NBD service over simulated connections, and clients: see nbd_rig.h. */
#include "nbd_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake_volume.h"
#include "rt/loop_sim.h"

/* ---- a client that says what it is told ---- */

void put_be(uint8_t *bytes, uint64_t value, int count)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> 8 * (count - 1 - i));
}

uint64_t get_be(const uint8_t *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

void say(struct client *client, const void *bytes, size_t length)
{
    const struct iovec piece = { .iov_base = (void *)bytes, .iov_len = length };
    assert_int_equal(channel_write(client->channel, &piece, 1), 0);
}

void hear(struct client *client, void *bytes, size_t length)
{
    assert_int_equal(channel_read_full(client->channel, bytes, length), 0);
}

static struct client connect_as(struct rig *rig, const char *peer)
{
    struct client client = { 0 };
    struct channel *server;
    channel_sim_pair(rig->loop, rig->loop, &client.channel, &server);
    snprintf(server->peer.identity, sizeof server->peer.identity, "%s", peer);
    nbd_service_accept(rig->service, server);
    return client;
}

struct client connect_to(struct rig *rig)
{
    return connect_as(rig, "somebody");
}

struct client greet_as(struct rig *rig, const char *peer)
{
    struct client client = connect_as(rig, peer);
    uint8_t greeting[NBD_GREETING_BYTES];
    hear(&client, greeting, sizeof greeting);
    assert_memory_equal(greeting, "NBDMAGICIHAVEOPT\0\3", 18);
    say(&client, "\0\0\0\3", 4);
    return client;
}

struct client greet(struct rig *rig)
{
    return greet_as(rig, "somebody");
}

void hang_up(struct client *client)
{
    channel_shutdown(client->channel);
    channel_close(client->channel);
    client->channel = NULL;
}

void assert_ended(struct client *client)
{
    uint8_t byte;
    const struct iovec piece = { .iov_base = &byte, .iov_len = 1 };
    assert_true(channel_read(client->channel, &piece, 1) <= 0);
    hang_up(client);
}

void say_option(struct client *client, uint32_t type, const void *data, uint32_t length)
{
    uint8_t header[NBD_OPTION_BYTES];
    memcpy(header, "IHAVEOPT", 8);
    put_be(header + 8, type, 4);
    put_be(header + 12, length, 4);
    say(client, header, sizeof header);
    if (data != NULL)
        say(client, data, length);
}

uint32_t hear_option(struct client *client, uint32_t option, char text[8192], uint32_t *ret_length)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    hear(client, header, sizeof header);
    assert_true(get_be(header, 8) == UINT64_C(0x3e889045565a9));
    assert_int_equal(get_be(header + 8, 4), option);
    uint32_t length = (uint32_t)get_be(header + 16, 4);
    assert_true(length < 8192);
    hear(client, text, length);
    text[length] = '\0';
    *ret_length = length;
    return (uint32_t)get_be(header + 12, 4);
}

void assert_option(struct client *client, uint32_t option, uint32_t reply)
{
    char text[8192];
    uint32_t length;
    assert_int_equal(hear_option(client, option, text, &length), reply);
}

void say_choice(struct client *client, uint32_t option, const char *name)
{
    uint8_t data[4 + 256 + 2 + 2];
    size_t length = strlen(name);
    put_be(data, length, 4);
    memcpy(data + 4, name, length);
    put_be(data + 4 + length, 1, 2);
    put_be(data + 6 + length, NBD_INFO_BLOCK_SIZE, 2);
    say_option(client, option, data, (uint32_t)(8 + length));
}

uint32_t choose(struct client *client, uint32_t option, const char *name, char text[8192])
{
    say_choice(client, option, name);
    for (;;) {
        uint32_t length, reply = hear_option(client, option, text, &length);
        if (reply != NBD_REP_INFO)
            return reply;
        if (get_be((uint8_t *)text, 2) == NBD_INFO_EXPORT) {
            client->size = get_be((uint8_t *)text + 2, 8);
            client->flags = (uint16_t)get_be((uint8_t *)text + 10, 2);
        }
    }
}

struct client attach(struct rig *rig, const char *name, bool structured)
{
    struct client client = greet(rig);
    char text[8192];
    if (structured) {
        say_option(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        assert_option(&client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
        client.structured = true;
    }
    assert_int_equal(choose(&client, NBD_OPT_GO, name, text), NBD_REP_ACK);
    return client;
}

void ask(struct client *client, uint16_t command, uint16_t flags, uint64_t cookie, uint64_t offset, uint32_t length)
{
    uint8_t header[NBD_REQUEST_BYTES];
    put_be(header, 0x25609513, 4);
    put_be(header + 4, flags, 2);
    put_be(header + 6, command, 2);
    put_be(header + 8, cookie, 8);
    put_be(header + 16, offset, 8);
    put_be(header + 24, length, 4);
    say(client, header, sizeof header);
}

uint32_t hear_reply(struct client *client, uint64_t *ret_cookie, void *data, uint32_t length)
{
    uint8_t header[NBD_CHUNK_BYTES], rest[4096 + 8];
    hear(client, header, NBD_SIMPLE_REPLY_BYTES);
    if (!client->structured) {
        assert_int_equal(get_be(header, 4), 0x67446698);
        *ret_cookie = get_be(header + 8, 8);
        uint32_t error = (uint32_t)get_be(header + 4, 4);
        if (error == 0 && data != NULL)
            hear(client, data, length);
        return error;
    }
    assert_int_equal(get_be(header, 4), 0x668e33ef);
    assert_int_equal(get_be(header + 4, 2), 1);
    hear(client, header + 16, 4);
    uint32_t size = (uint32_t)get_be(header + 16, 4);
    *ret_cookie = get_be(header + 8, 8);
    switch (get_be(header + 6, 2)) {
    case 0:
        assert_int_equal(size, 0);
        return 0;
    case 1:
        assert_non_null(data);
        assert_int_equal(size, length + 8);
        hear(client, rest, 8);
        hear(client, data, length);
        return 0;
    case 0x8001:
        assert_in_range(size, 6, sizeof rest);
        hear(client, rest, size);
        assert_int_equal(get_be(rest + 4, 2), size - 6);
        return (uint32_t)get_be(rest, 4);
    default:
        fail_msg("chunk of an unknown type");
        return 0;
    }
}

uint32_t call(struct client *client, uint16_t command, uint16_t flags, uint64_t offset, uint32_t length, void *data)
{
    static uint64_t next = 1;
    uint64_t cookie, sent = next++;
    ask(client, command, flags, sent, offset, length);
    if (command == NBD_CMD_WRITE)
        say(client, data, length);
    uint32_t error = hear_reply(client, &cookie, command == NBD_CMD_READ ? data : NULL, length);
    assert_true(cookie == sent);
    return error;
}

/* ---- the rig ---- */

static struct nbd_service *only_home(void *arg, const char *name, size_t name_length)
{
    return ((struct rig *)arg)->service;
}

static void rig_main(void *arg)
{
    struct rig *rig = arg;
    struct nbd_wiring wiring = {
        .loop = rig->loop,
        .volumes = rig->volumes,
        .store = (struct store *)rig->volumes,
        .home = only_home,
        .arg = rig,
    };
    group_init(&rig->others, rig->loop);
    rig->service = nbd_service_new(&wiring, &rig->settings);
    rig->body(rig);
    group_join(&rig->others);
    nbd_service_drain(rig->service, loop_now_ns(rig->loop) + 100 * NS_PER_S);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 0);
    nbd_service_free(rig->service);
    rig->done = true;
}

void run_with(const struct nbd_settings *settings, void (*body)(struct rig *rig))
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct rig rig = { .world = world_new(seed), .settings = *settings, .body = body };
        struct group group;
        rig.loop = loop_sim_new(rig.world, "server");
        rig.volumes = fake_volumes_new();
        group_init(&group, rig.loop);
        group_spawn(&group, "test", rig_main, &rig);
        world_run(rig.world, UINT64_MAX);
        assert_true(rig.done);
        assert_int_equal(fake.opened, fake.closed);
        fake_volumes_free(rig.volumes);
        loop_free(rig.loop);
        world_free(rig.world);
    }
}

struct nbd_settings defaults(void)
{
    struct nbd_settings settings = nbd_settings_default();
    settings.default_size = DISK_BYTES;
    return settings;
}

void run(void (*body)(struct rig *rig))
{
    struct nbd_settings settings = defaults();
    run_with(&settings, body);
}
