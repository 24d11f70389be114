/* The NBD service over simulated connections and a fake engine: what clients are told, what reaches the engine, and
 * what remains of it all when one side stops playing.  Time is virtual, so every deadline can be waited for; bytes
 * arrive in random pieces. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_volume.h"
#include "nbd_rig.h"

/* ---- the handshake ---- */

static void export_name(struct rig *rig)
{
    struct client client = greet(rig);
    uint8_t answer[NBD_EXPORT_BYTES], data[3] = "abc";
    say_option(&client, NBD_OPT_EXPORT_NAME, "db", 2);
    hear(&client, answer, sizeof answer);
    assert_int_equal(get_be(answer, 8), DISK_BYTES);
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 7, 3, data), 0);
    memset(data, 0, 3);
    assert_int_equal(call(&client, NBD_CMD_READ, 0, 7, 3, data), 0);
    assert_memory_equal(data, "abc", 3);
    ask(&client, NBD_CMD_DISC, 0xffff, 1, 2, 3);
    assert_ended(&client);
}

static void test_export_name(void **state)
{
    run(export_name);
}

static void info_creates_nothing(struct rig *rig)
{
    struct client client = greet(rig);
    char text[8192];
    assert_int_equal(choose(&client, NBD_OPT_INFO, "db", text), NBD_REP_ACK);
    assert_true(client.size == DISK_BYTES);
    say_option(&client, NBD_OPT_LIST, NULL, 0);
    assert_option(&client, NBD_OPT_LIST, NBD_REP_ACK);
    assert_int_equal(fake.opened, 0);
    say_option(&client, NBD_OPT_ABORT, NULL, 0);
    assert_option(&client, NBD_OPT_ABORT, NBD_REP_ACK);
    assert_ended(&client);
    assert_int_equal(nbd_service_read_counts(rig->service).handshakes_failed, 0);
}

static void test_info(void **state)
{
    run(info_creates_nothing);
}

static void long_list(struct rig *rig)
{
    char name[32], text[8192];
    uint32_t length;
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "volume-%d", i);
        fake_volume_create(rig->volumes, name, 4096);
    }
    struct client client = greet(rig);
    say_option(&client, NBD_OPT_LIST, NULL, 0);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "volume-%d", i);
        assert_int_equal(hear_option(&client, NBD_OPT_LIST, text, &length), NBD_REP_SERVER);
        assert_int_equal(get_be((uint8_t *)text, 4), length - 4);
        assert_string_equal(text + 4, name);
    }
    assert_option(&client, NBD_OPT_LIST, NBD_REP_ACK);
    /* One that goes away in the middle. */
    say_option(&client, NBD_OPT_LIST, NULL, 0);
    hang_up(&client);
}

static void test_long_list(void **state)
{
    run(long_list);
}

static void refused_then_served(struct rig *rig)
{
    struct client client = greet(rig);
    char text[8192];
    static const struct {
        int code;
        uint32_t reply;
    } pairs[] = {
        { -EBUSY, NBD_REP_ERR_POLICY },       { -EBADMSG, NBD_REP_ERR_UNKNOWN }, { -EIO, NBD_REP_ERR_UNKNOWN },
        { -EINVAL, NBD_REP_ERR_INVALID },     { -EACCES, NBD_REP_ERR_POLICY },   { -ENOENT, NBD_REP_ERR_UNKNOWN },
        { -ESHUTDOWN, NBD_REP_ERR_SHUTDOWN },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        fake.acquire_code = pairs[i].code;
        assert_int_equal(choose(&client, NBD_OPT_GO, "db", text), pairs[i].reply);
        assert_non_null(strstr(text, "volume 'db'"));
    }
    struct client old = greet(rig);
    say_option(&old, NBD_OPT_EXPORT_NAME, "db", 2);
    assert_ended(&old);
    fake.acquire_code = 0;
    assert_int_equal(choose(&client, NBD_OPT_GO, "db", text), NBD_REP_ACK);
    hang_up(&client);
}

static void test_refused(void **state)
{
    run(refused_then_served);
}

static void slow_volume(struct rig *rig)
{
    /* Waiting for the volume is not the client's fault: the deadline stands still. */
    fake.hold = true;
    struct client client = greet(rig);
    say_choice(&client, NBD_OPT_GO, "db");
    assert_int_equal(sleep_ns(2 * NBD_HANDSHAKE_MS * NS_PER_MS), 0);
    fake.hold = false;
    assert_option(&client, NBD_OPT_GO, NBD_REP_INFO);
    hang_up(&client);
}

static void dawdling(struct rig *rig)
{
    struct client silent = connect_to(rig), half = greet(rig);
    say(&half, "IHAVEOPT\0\0", 10);
    uint64_t start_ns = loop_now_ns(rig->loop);
    uint8_t greeting[NBD_GREETING_BYTES];
    hear(&silent, greeting, sizeof greeting);
    assert_ended(&silent);
    assert_ended(&half);
    assert_true(loop_now_ns(rig->loop) - start_ns >= (NBD_HANDSHAKE_MS - 1000) * NS_PER_MS);
    assert_int_equal(nbd_service_read_counts(rig->service).handshakes_failed, 2);
}

static void test_handshake_deadline(void **state)
{
    run(dawdling);
    run(slow_volume);
}

static void too_many_options(struct rig *rig)
{
    struct client client = greet(rig);
    for (int i = 0; i < NBD_OPTIONS_MAX; i++) {
        say_option(&client, 77, "x", 1);
        assert_option(&client, 77, NBD_REP_ERR_UNSUP);
    }
    say_option(&client, 77, "x", 1);
    assert_ended(&client);
}

static void too_much_data(struct rig *rig)
{
    static uint8_t zeroes[NBD_OPTION_DATA_MAX * 2];
    struct client client = greet(rig);
    say_option(&client, NBD_OPT_INFO, zeroes, sizeof zeroes);
    assert_option(&client, NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG);
    say_option(&client, 77, zeroes, sizeof zeroes);
    assert_option(&client, 77, NBD_REP_ERR_UNSUP);
    say_option(&client, NBD_OPT_GO, NULL, UINT32_MAX);
    assert_ended(&client);
}

static void test_option_limits(void **state)
{
    run(too_many_options);
    run(too_much_data);
}

static void too_many_connections(struct rig *rig)
{
    struct client first = attach(rig, "db", false), second = connect_to(rig);
    assert_ended(&second);
    assert_int_equal(nbd_service_read_counts(rig->service).refused, 1);
    hang_up(&first);
}

static void test_connections_limit(void **state)
{
    struct nbd_settings settings = defaults();
    settings.connections = 1;
    run_with(&settings, too_many_connections);
}

/* ---- requests ---- */

/* Many requests of all sizes at once, checked against a copy of the disk. */
static void random_requests(struct rig *rig, bool structured)
{
    enum { DEPTH = 20, AREA = 300 * 1024 };
    struct client client = attach(rig, "db", structured);
    uint8_t *model = calloc(1, DEPTH * AREA), *data = malloc(AREA);
    for (int round = 0; round < 20; round++) {
        uint32_t lengths[DEPTH], starts[DEPTH];
        uint16_t commands[DEPTH];
        for (int i = 0; i < DEPTH; i++) {
            /* Each request of a round has an area of its own, so their order does not matter. */
            uint32_t length = (uint32_t)world_random(rig->world, world_chance(rig->world, 300) ? AREA : 9000);
            uint32_t start = (uint32_t)world_random(rig->world, AREA - length) + (uint32_t)i * AREA;
            static const uint16_t kinds[] = { NBD_CMD_READ, NBD_CMD_READ,  NBD_CMD_WRITE, NBD_CMD_WRITE,
                                              NBD_CMD_TRIM, NBD_CMD_FLUSH, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES };
            commands[i] = kinds[world_random(rig->world, 8)];
            lengths[i] = length;
            starts[i] = start;
            bool plain = commands[i] == NBD_CMD_FLUSH;
            ask(&client, commands[i], world_chance(rig->world, 200) ? NBD_CMD_FLAG_FUA : 0, (uint64_t)i,
                plain ? 0 : start, plain ? 0 : length);
            if (commands[i] == NBD_CMD_WRITE) {
                memset(model + start, round + i + 1, length);
                say(&client, model + start, length);
            } else if (commands[i] == NBD_CMD_TRIM || commands[i] == NBD_CMD_WRITE_ZEROES) {
                memset(model + start, 0, length);
            }
            if (world_chance(rig->world, 300))
                fake.wait = !fake.wait;
        }
        for (int i = 0; i < DEPTH; i++) {
            uint8_t header[NBD_CHUNK_OFFSET_BYTES];
            hear(&client, header, structured ? NBD_CHUNK_BYTES : NBD_SIMPLE_REPLY_BYTES);
            uint64_t cookie = get_be(header + 8, 8);
            assert_true(cookie < DEPTH);
            bool reads = commands[cookie] == NBD_CMD_READ && lengths[cookie] > 0;
            if (!structured) {
                assert_int_equal(get_be(header + 4, 4), 0);
            } else {
                assert_int_equal(get_be(header + 6, 2), reads ? 1 : 0);
                assert_int_equal(get_be(header + 16, 4), reads ? lengths[cookie] + 8 : 0);
                hear(&client, header + NBD_CHUNK_BYTES, reads ? 8 : 0);
            }
            if (!reads)
                continue;
            hear(&client, data, lengths[cookie]);
            assert_memory_equal(data, model + starts[cookie], lengths[cookie]);
        }
    }
    free(model);
    free(data);
    hang_up(&client);
}

static void random_simple(struct rig *rig)
{
    random_requests(rig, false);
}

static void random_structured(struct rig *rig)
{
    random_requests(rig, true);
}

static void test_random_requests(void **state)
{
    run(random_simple);
    run(random_structured);
}

static void large_request(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint8_t *data = malloc(NBD_PAYLOAD_MAX), *copy = malloc(NBD_PAYLOAD_MAX);
    for (uint32_t i = 0; i < NBD_PAYLOAD_MAX; i++)
        data[i] = (uint8_t)(i * 7 + i / 4096);
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 12345, NBD_PAYLOAD_MAX, data), 0);
    assert_int_equal(call(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 12345, NBD_PAYLOAD_MAX, copy), 0);
    assert_memory_equal(data, copy, NBD_PAYLOAD_MAX);
    free(data);
    free(copy);
    hang_up(&client);
}

static void test_large_request(void **state)
{
    run(large_request);
}

static void misfits(struct rig *rig, bool structured)
{
    static uint8_t data[8192], longer[NBD_PAYLOAD_MAX + 1];
    struct client client = attach(rig, "db", structured);
    static const struct {
        uint16_t command, flags;
        uint64_t offset;
        uint32_t length, error;
    } cases[] = {
        { NBD_CMD_READ, 0, DISK_BYTES - 1, 2, NBD_EINVAL },
        { NBD_CMD_READ, 0, UINT64_MAX, 2, NBD_EINVAL },
        { NBD_CMD_READ, 0, DISK_BYTES, 0, 0 },
        { NBD_CMD_READ, 0, 0, NBD_PAYLOAD_MAX + 1, NBD_EINVAL },
        { NBD_CMD_READ, 0, 0, UINT32_MAX, NBD_EINVAL },
        { NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 1, NBD_EINVAL },
        { NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0, 8192, 0 },
        { NBD_CMD_WRITE, 0, DISK_BYTES - 1, 2, NBD_ENOSPC },
        { NBD_CMD_WRITE, 0, UINT64_MAX - 1, 4096, NBD_ENOSPC },
        { NBD_CMD_WRITE, 0, 0, 0, 0 },
        { NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 4096, NBD_EINVAL },
        { NBD_CMD_WRITE, 1 << 15, 0, 4096, NBD_EINVAL },
        { NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 0, 4096, NBD_EINVAL },
        { NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_MAX + 1, NBD_EINVAL },
        { NBD_CMD_TRIM, 0, DISK_BYTES - 1, 2, NBD_EINVAL },
        { NBD_CMD_TRIM, 0, 1, DISK_BYTES - 1, 0 },
        { NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 1, NBD_EINVAL },
        { NBD_CMD_CACHE, 0, DISK_BYTES, 1, NBD_EINVAL },
        { NBD_CMD_CACHE, NBD_CMD_FLAG_FUA, 0, DISK_BYTES, 0 },
        { NBD_CMD_WRITE_ZEROES, 0, DISK_BYTES - 1, 2, NBD_ENOSPC },
        { NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA, 0, DISK_BYTES, 0 },
        { NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 4096, NBD_EINVAL },
        { NBD_CMD_WRITE_ZEROES, 0, 4096, UINT32_MAX, NBD_ENOSPC },
        { NBD_CMD_FLUSH, 0, 0, 0, 0 },
        { NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0, 0 },
        { NBD_CMD_FLUSH, 0, 1, 0, NBD_EINVAL },
        { NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL },
        { NBD_CMD_BLOCK_STATUS, 0, 0, 4096, NBD_EINVAL },
        { 99, 0, 0, 0, NBD_EINVAL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *payload = cases[i].length > sizeof data ? longer : data;
        assert_int_equal(call(&client, cases[i].command, cases[i].flags, cases[i].offset, cases[i].length, payload),
                         cases[i].error);
    }
    /* DF belongs to structured replies. */
    assert_int_equal(call(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512, data), structured ? 0 : NBD_EINVAL);
    assert_int_equal((client.flags & NBD_FLAG_SEND_DF) != 0, structured);
    hang_up(&client);
}

static void misfits_simple(struct rig *rig)
{
    misfits(rig, false);
}

static void misfits_structured(struct rig *rig)
{
    misfits(rig, true);
}

static void test_misfits(void **state)
{
    run(misfits_simple);
    run(misfits_structured);
}

static void read_only(struct rig *rig)
{
    uint8_t data[512] = { 0 };
    struct client client = greet(rig);
    char text[8192];
    assert_int_equal(choose(&client, NBD_OPT_INFO, "db", text), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(choose(&client, NBD_OPT_GO, "db", text), NBD_REP_ERR_UNKNOWN);
    fake_volume_create(rig->volumes, "db", DISK_BYTES);
    assert_int_equal(choose(&client, NBD_OPT_GO, "db", text), NBD_REP_ACK);
    assert_int_equal(client.flags & (NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_TRIM), NBD_FLAG_READ_ONLY);
    assert_int_equal(call(&client, NBD_CMD_READ, 0, 0, 512, data), 0);
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, 512, data), NBD_EPERM);
    assert_int_equal(call(&client, NBD_CMD_TRIM, 0, 0, 512, NULL), NBD_EPERM);
    assert_int_equal(call(&client, NBD_CMD_WRITE_ZEROES, 0, 0, 512, NULL), NBD_EPERM);
    hang_up(&client);
}

static void test_read_only(void **state)
{
    struct nbd_settings settings = defaults();
    settings.read_only = true;
    run_with(&settings, read_only);
}

static void durability(struct rig *rig)
{
    static uint8_t data[4096];
    struct client client = attach(rig, "db", true);
    for (int wait = 0; wait <= 1; wait++) {
        fake.wait = wait;
        uint64_t before = fake.flushes;
        assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, 4096, data), 0);
        assert_int_equal(call(&client, NBD_CMD_TRIM, 0, 0, 4096, NULL), 0);
        assert_true(fake.flushes == before);
        assert_int_equal(call(&client, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 4096, data), 0);
        assert_true(fake.flushes == before + 1);
        assert_int_equal(call(&client, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096, NULL), 0);
        assert_int_equal(call(&client, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 0, 4096, NULL), 0);
        assert_true(fake.flushes == before + 3);
        assert_int_equal(call(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), 0);
        assert_true(fake.flushes == before + 4);
        fake.flush_code = -EIO;
        assert_int_equal(call(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), NBD_EIO);
        assert_int_equal(call(&client, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 4096, data), NBD_EIO);
        assert_int_equal(call(&client, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096, NULL), NBD_EIO);
        assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, 4096, data), 0);
        fake.flush_code = -ENOSPC;
        assert_int_equal(call(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), NBD_ENOSPC);
        fake.flush_code = 0;
        /* A change that failed is not flushed, but answered. */
        fake.operation_code = -ETIMEDOUT;
        before = fake.flushes;
        assert_int_equal(call(&client, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 4096, data), NBD_EIO);
        assert_int_equal(call(&client, NBD_CMD_READ, 0, 0, 4096, data), NBD_EIO);
        assert_true(fake.flushes == before);
        fake.operation_code = 0;
    }
    hang_up(&client);
}

static void test_durability(void **state)
{
    run(durability);
}

static void refused_payload(struct rig *rig)
{
    static uint8_t data[300 * 1024];
    struct client client = attach(rig, "db", false);
    fake.begin_code = -EIO;
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, sizeof data, data), NBD_EIO);
    fake.begin_code = 0;
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, sizeof data, data), 0);
    hang_up(&client);
}

static void test_refused_payload(void **state)
{
    run(refused_payload);
}

static void half_a_write(struct rig *rig)
{
    static uint8_t data[200 * 1024], copy[sizeof data];
    struct client client = attach(rig, "db", false), other = attach(rig, "db", false);
    memset(data, 0xab, sizeof data);
    /* What comes before counts, though the client hangs up without taking the reply. */
    ask(&client, NBD_CMD_WRITE, 0, 1, sizeof data, 4096);
    say(&client, data, 4096);
    ask(&client, NBD_CMD_WRITE, 0, 2, 0, sizeof data);
    say(&client, data, sizeof data - 1);
    hang_up(&client);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, 0, sizeof copy, copy), 0);
    memset(data, 0, sizeof data);
    assert_memory_equal(data, copy, sizeof data);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, sizeof data, 4096, copy), 0);
    assert_int_equal(copy[4095], 0xab);
    assert_int_equal(fake.aborted, 1);
    hang_up(&other);
}

static void test_half_a_write(void **state)
{
    run(half_a_write);
}

static void not_a_request(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint64_t cookie;
    ask(&client, NBD_CMD_FLUSH, 0, 5, 0, 0);
    say(&client, "GET / HTTP/1.1\r\nHost: nbd\r\n\r\n", 29);
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), 0);
    assert_true(cookie == 5);
    assert_ended(&client);
}

static void test_not_a_request(void **state)
{
    run(not_a_request);
}

/* ---- limits ---- */

static void drain(void *arg)
{
    struct rig *rig = arg;
    nbd_service_drain(rig->service, loop_now_ns(rig->loop) + 60 * NS_PER_S);
}

static void few_requests(struct rig *rig)
{
    enum { COUNT = 100 };
    struct client client = attach(rig, "db", false);
    bool seen[COUNT] = { false };
    fake.wait = fake.hold = true;
    for (uint64_t i = 0; i < COUNT; i++)
        ask(&client, NBD_CMD_TRIM, 0, i, i * 4096, 4096);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    assert_in_range(nbd_service_read_counts(rig->service).requests[NBD_CMD_TRIM], 3, 4);
    fake.hold = false;
    for (int i = 0; i < COUNT; i++) {
        uint64_t cookie;
        assert_int_equal(hear_reply(&client, &cookie, NULL, 0), 0);
        assert_true(cookie < COUNT && !seen[cookie]);
        seen[cookie] = true;
    }
    hang_up(&client);
}

static void test_requests_limit(void **state)
{
    struct nbd_settings settings = defaults();
    settings.requests_in_flight = 3;
    run_with(&settings, few_requests);
}

static void few_tasks(struct rig *rig)
{
    enum { COUNT = 50 };
    struct client client = attach(rig, "db", false), other = attach(rig, "db", false);
    uint64_t cookie;
    fake.wait = fake.hold = true;
    for (uint64_t i = 0; i < COUNT; i++)
        ask(&client, NBD_CMD_TRIM, 0, i, i * 4096, 4096);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    assert_in_range(nbd_service_read_counts(rig->service).requests[NBD_CMD_TRIM], 5, 12);
    /* Nobody keeps another's requests from starting. */
    ask(&other, NBD_CMD_FLUSH, 0, COUNT, 0, 0);
    ask(&other, NBD_CMD_CACHE, 0, COUNT, 0, 4096);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    assert_int_equal(nbd_service_read_counts(rig->service).requests[NBD_CMD_CACHE], 1);
    fake.hold = false;
    for (int i = 0; i < 2; i++)
        assert_int_equal(hear_reply(&other, &cookie, NULL, 0), 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(hear_reply(&client, &cookie, NULL, 0), 0);
    hang_up(&client);
    hang_up(&other);
}

static void drained_with_few_tasks(struct rig *rig)
{
    static uint8_t data[4096];
    struct client client = attach(rig, "db", false);
    fake.hold = true;
    for (uint64_t i = 0; i < 20; i++)
        ask(&client, NBD_CMD_CACHE, 0, i, 0, 4096);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    fake.wait = true;
    ask(&client, NBD_CMD_WRITE, 0, 20, 0, sizeof data);
    say(&client, data, sizeof data);
    group_spawn(&rig->others, "drain", drain, rig);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    fake.hold = false;
    /* What was started is finished; what had been received besides is refused. */
    uint8_t reply[NBD_SIMPLE_REPLY_BYTES];
    int finished = 0, refused = 0;
    while (channel_read_full(client.channel, reply, sizeof reply) == 0) {
        uint64_t error = get_be(reply + 4, 4);
        assert_true(error == 0 || error == NBD_ESHUTDOWN);
        finished += error == 0;
        refused += error != 0;
    }
    assert_int_equal(finished, NBD_TASKS_OF_EACH);
    assert_true(refused >= 1);
    hang_up(&client);
}

static void test_tasks_limit(void **state)
{
    struct nbd_settings settings = defaults();
    settings.tasks = 2;
    run_with(&settings, few_tasks);
    run_with(&settings, drained_with_few_tasks);
}

static void deaf(struct rig *rig)
{
    enum { COUNT = 1000 };
    static uint8_t data[64 * 1024];
    struct client client = attach(rig, "db", true), other = attach(rig, "db", true);
    for (uint64_t i = 0; i < COUNT; i++)
        ask(&client, NBD_CMD_READ, 0, i, 0, sizeof data);
    assert_int_equal(sleep_ns(NBD_SEND_STALL_MS / 2 * NS_PER_MS), 0);
    /* It gets no further than its limits, and nobody else notices. */
    assert_in_range(nbd_service_read_counts(rig->service).requests[NBD_CMD_READ], 1, 30);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, 0, sizeof data, data), 0);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 2);
    assert_int_equal(sleep_ns(NBD_SEND_STALL_MS * NS_PER_MS), 0);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 1);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, 0, sizeof data, data), 0);
    hang_up(&client);
    hang_up(&other);
}

static void test_deaf_client(void **state)
{
    struct nbd_settings settings = defaults();
    settings.bytes_in_flight = 256 * 1024;
    run_with(&settings, deaf);
}

static void stalled_payload(struct rig *rig)
{
    struct client client = attach(rig, "db", true), idle = attach(rig, "db", true);
    uint8_t byte;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, 1 << 20);
    say(&client, "abc", 3);
    assert_ended(&client);
    assert_int_equal(fake.begun, 1);
    assert_int_equal(fake.aborted, 1);
    /* One that has nothing to say may be silent for ever. */
    assert_int_equal(sleep_ns(24 * 3600 * NS_PER_S), 0);
    assert_int_equal(call(&idle, NBD_CMD_READ, 0, 0, 1, &byte), 0);
    hang_up(&idle);
}

static void test_stalled_payload(void **state)
{
    run(stalled_payload);
}

/* While others wait for memory, who sends nothing is cut off soon; sooner, who sent nothing while waiting itself. */
static void pressed_payload(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    fake.writers_wait = true;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, 1 << 20);
    uint64_t start_ns = loop_now_ns(rig->loop);
    assert_ended(&client);
    uint64_t took_ns = loop_now_ns(rig->loop) - start_ns;
    assert_true(took_ns >= NBD_PRESSED_STALL_MS * NS_PER_MS && took_ns < NBD_PAYLOAD_STALL_MS * NS_PER_MS / 2);

    client = attach(rig, "db", true);
    fake.wait = fake.hold = true;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, 1 << 20);
    assert_int_equal(sleep_ns(NBD_PRESSED_STALL_MS * NS_PER_MS), 0);
    assert_int_equal(fake.begun, 1);
    fake.wait = fake.hold = false;
    start_ns = loop_now_ns(rig->loop);
    assert_ended(&client);
    took_ns = loop_now_ns(rig->loop) - start_ns;
    assert_true(took_ns >= NBD_PRESSED_STALL_LEAST_MS * NS_PER_MS && took_ns < NBD_PRESSED_STALL_MS * NS_PER_MS / 2);
    assert_int_equal(fake.begun, 2);
    assert_int_equal(fake.aborted, 2);
}

static void test_pressed_payload(void **state)
{
    run(pressed_payload);
}

/* One that sends, however slowly, as long as it is not slower than the least. */
static void slow_payload(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint32_t length = 4u << 20, part = NBD_PAYLOAD_BYTES_LEAST;
    uint8_t *bytes = calloc(1, part), header[NBD_CHUNK_BYTES];
    fake.writers_wait = true;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, length);
    for (uint32_t at = 0; at < length; at += part) {
        say(&client, bytes, part);
        assert_int_equal(sleep_ns(NS_PER_S), 0);
    }
    hear(&client, header, sizeof header);
    assert_int_equal(fake.aborted, 0);
    free(bytes);
    hang_up(&client);
}

static void test_slow_payload(void **state)
{
    run(slow_payload);
}

/* While others wait for what replies hold, who does not take them is cut off soon, and nothing waits on its account. */
static void pressed_deaf(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    for (uint64_t cookie = 1; cookie <= 8; cookie++)
        ask(&client, NBD_CMD_READ, 0, cookie, 0, 1 << 20);
    assert_int_equal(sleep_ns(NBD_PRESSED_STALL_MS * NS_PER_MS * 2), 0);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 1);
    /* What it asks for now waits for a store that does not answer. */
    fake.wait = fake.hold = true;
    ask(&client, NBD_CMD_READ, 0, 9, 0, 1 << 20);
    fake.readers_wait = true;
    assert_int_equal(sleep_ns(NBD_PRESSED_STALL_MS * NS_PER_MS), 0);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 0);
    fake.wait = fake.hold = false;
    hang_up(&client);
}

static void test_pressed_deaf(void **state)
{
    run(pressed_deaf);
}

/* ---- the end ---- */

static void drained(struct rig *rig)
{
    struct client client = attach(rig, "db", true), waiting = greet(rig), shaking = greet(rig), late;
    char text[8192];
    uint32_t length;
    uint64_t cookie;
    fake.wait = fake.hold = true;
    ask(&client, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 7, 0, 4096);
    say_choice(&waiting, NBD_OPT_GO, "db");
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    group_spawn(&rig->others, "drain", drain, rig);
    assert_int_equal(sleep_ns(NS_PER_S / 4), 0);
    late = connect_to(rig);
    assert_ended(&late);
    assert_int_equal(choose(&shaking, NBD_OPT_GO, "db", text), NBD_REP_ERR_SHUTDOWN);
    assert_ended(&shaking);
    fake.hold = false;
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), 0);
    assert_true(cookie == 7 && fake.flushes == 1);
    assert_ended(&client);
    assert_int_equal(hear_option(&waiting, NBD_OPT_GO, text, &length), NBD_REP_ERR_SHUTDOWN);
    assert_ended(&waiting);
}

static void cut_at_deadline(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    fake.wait = fake.hold = true;
    for (uint64_t i = 0; i < 50; i++)
        ask(&client, NBD_CMD_READ, 0, i, 0, 4096);
    ask(&client, NBD_CMD_WRITE, 0, 50, 0, 4096);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    drain(rig);
    assert_int_equal(nbd_service_read_counts(rig->service).connections, 0);
    hang_up(&client);
}

static void aborted(struct rig *rig)
{
    struct client client = attach(rig, "db", true), shaking = greet(rig), opening = greet(rig);
    fake.wait = fake.hold = true;
    for (uint64_t i = 0; i < 50; i++)
        ask(&client, NBD_CMD_READ, 0, i, 0, 4096);
    say_choice(&opening, NBD_OPT_GO, "db");
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    nbd_service_abort(rig->service);
    hang_up(&client);
    hang_up(&shaking);
    hang_up(&opening);
}

static void test_drain_and_abort(void **state)
{
    run(drained);
    run(cut_at_deadline);
    run(aborted);
}

static void volume_lost(struct rig *rig)
{
    struct client client = attach(rig, "db", true), other = attach(rig, "elsewhere", true);
    uint8_t byte;
    uint64_t cookie;
    fake.wait = true;
    ask(&client, NBD_CMD_TRIM, 0, 1, 0, 4096);
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), 0);
    fake.hold = true;
    ask(&client, NBD_CMD_FLUSH, 0, 2, 0, 0);
    assert_int_equal(sleep_ns(NS_PER_S), 0);
    fake_volume_lose(rig->volumes, "db");
    fake.hold = false;
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), NBD_ESHUTDOWN);
    assert_true(cookie == 2);
    assert_ended(&client);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, 0, 1, &byte), 0);
    hang_up(&other);
}

static void test_volume_lost(void **state)
{
    run(volume_lost);
}

/* Clients that end anyhow, at any point of anything. */
static void vanish(struct rig *rig)
{
    static uint8_t data[64 * 1024];
    for (int i = 0; i < 200; i++) {
        struct client client = attach(rig, "db", world_chance(rig->world, 500));
        fake.wait = world_chance(rig->world, 500);
        for (uint64_t count = world_random(rig->world, 8); count > 0; count--) {
            bool writes = world_chance(rig->world, 400);
            ask(&client, writes ? NBD_CMD_WRITE : NBD_CMD_READ, 0, count, 0, sizeof data);
            if (writes)
                say(&client, data, world_chance(rig->world, 800) ? sizeof data : 1000);
        }
        if (world_chance(rig->world, 500))
            assert_int_equal(sleep_ns(world_random(rig->world, NS_PER_MS)), 0);
        if (world_chance(rig->world, 500))
            channel_sim_cut(client.channel);
        hang_up(&client);
    }
}

static void test_vanishing_clients(void **state)
{
    run(vanish);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_name),        cmocka_unit_test(test_info),
        cmocka_unit_test(test_long_list),          cmocka_unit_test(test_refused),
        cmocka_unit_test(test_handshake_deadline), cmocka_unit_test(test_option_limits),
        cmocka_unit_test(test_connections_limit),  cmocka_unit_test(test_random_requests),
        cmocka_unit_test(test_large_request),      cmocka_unit_test(test_misfits),
        cmocka_unit_test(test_read_only),          cmocka_unit_test(test_durability),
        cmocka_unit_test(test_refused_payload),    cmocka_unit_test(test_half_a_write),
        cmocka_unit_test(test_not_a_request),      cmocka_unit_test(test_requests_limit),
        cmocka_unit_test(test_tasks_limit),        cmocka_unit_test(test_deaf_client),
        cmocka_unit_test(test_stalled_payload),    cmocka_unit_test(test_drain_and_abort),
        cmocka_unit_test(test_pressed_payload),    cmocka_unit_test(test_slow_payload),
        cmocka_unit_test(test_pressed_deaf),       cmocka_unit_test(test_volume_lost),
        cmocka_unit_test(test_vanishing_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
