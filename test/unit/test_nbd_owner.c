/* What the NBD service owes to ownership: replies are held while the lease is in doubt, a client that waits for an
 * owner may go, one that vanishes is told from one that leaves, who may share is decided, and nothing of a client's old
 * connection comes after what its new one asks for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_volume.h"
#include "nbd_rig.h"

#define LONG_NS (3600 * NS_PER_S) /* past every deadline */

static void wait_ns(uint64_t duration_ns)
{
    assert_int_equal(sleep_ns(duration_ns), 0);
}

static uint64_t connections(const struct rig *rig)
{
    return nbd_service_read_counts(rig->service).connections;
}

static uint64_t asked(const struct rig *rig, int command)
{
    return nbd_service_read_counts(rig->service).requests[command];
}

/* Bytes that have come to the client within a second; nothing may be on its way after that. */
static size_t at_hand(struct client *client)
{
    wait_ns(NS_PER_S);
    return channel_unread(client->channel);
}

/* ---- holding replies ---- */

static void held(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint8_t data[512] = "held", got[512];
    uint64_t cookie;
    bool answered[4] = { false };
    fake.doubt = true;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    say(&client, data, sizeof data);
    ask(&client, NBD_CMD_READ, 0, 2, 0, sizeof got);
    ask(&client, NBD_CMD_FLUSH, 0, 3, 0, 0);
    assert_int_equal(at_hand(&client), 0);
    /* They are carried out all the same, and nobody is cut off for it. */
    assert_int_equal(fake.flushes, 1);
    wait_ns(LONG_NS);
    assert_int_equal(at_hand(&client), 0);
    /* Errors are told. */
    ask(&client, NBD_CMD_READ, 0, 4, DISK_BYTES, 1);
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), NBD_EINVAL);
    assert_true(cookie == 4);
    fake_volumes_resume(rig->volumes);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(hear_reply(&client, &cookie, got, sizeof got), 0);
        assert_in_range(cookie, 1, 3);
        assert_false(answered[cookie]);
        answered[cookie] = true;
    }
    assert_memory_equal(got, data, sizeof got);
    assert_int_equal(call(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), 0);
    hang_up(&client);
}

/* No end of what it asks for is taken in meanwhile. */
static void held_within_limits(struct rig *rig)
{
    enum { COUNT = 200 };
    struct client client = attach(rig, "db", false);
    static uint8_t data[4096];
    uint64_t cookie;
    fake.doubt = true;
    for (uint64_t i = 0; i < COUNT; i++)
        ask(&client, NBD_CMD_READ, 0, i, 0, sizeof data);
    assert_int_equal(at_hand(&client), 0);
    assert_in_range(asked(rig, NBD_CMD_READ), 4, 5); /* one waits for room */
    fake_volumes_resume(rig->volumes);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(hear_reply(&client, &cookie, data, sizeof data), 0);
    hang_up(&client);
}

/* A READ whose reply was begun. */
static void held_in_the_middle(struct rig *rig)
{
    enum { LENGTH = 4 << 20 };
    struct client client = attach(rig, "db", false);
    uint8_t *data = malloc(LENGTH), *got = malloc(LENGTH), header[NBD_SIMPLE_REPLY_BYTES];
    uint64_t cookie;
    for (uint32_t i = 0; i < LENGTH; i++)
        data[i] = (uint8_t)(i * 7919 >> 8);
    assert_int_equal(call(&client, NBD_CMD_WRITE, 0, 0, LENGTH, data), 0);
    ask(&client, NBD_CMD_READ, 0, 1, 0, LENGTH);
    size_t first = at_hand(&client); /* no more goes into the pipe */
    assert_in_range(first, 1, LENGTH / 2);
    fake.doubt = true;
    hear(&client, header, sizeof header);
    hear(&client, got, first - sizeof header);
    size_t had = first - sizeof header;
    /* Nothing follows, not even an error, which would be taken for data. */
    ask(&client, NBD_CMD_READ, 0, 2, DISK_BYTES, 1);
    wait_ns(LONG_NS);
    assert_int_equal(at_hand(&client), 0);
    fake_volumes_resume(rig->volumes);
    hear(&client, got + had, LENGTH - had);
    assert_memory_equal(got, data, LENGTH);
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), NBD_EINVAL);
    free(data);
    free(got);
    hang_up(&client);
}

/* Doubt that was right: what was held is never sent. */
static void lost_after_doubt(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint8_t data[512] = "held";
    uint64_t cookie;
    fake.doubt = true;
    ask(&client, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    say(&client, data, sizeof data);
    ask(&client, NBD_CMD_FLUSH, 0, 2, 0, 0);
    wait_ns(NS_PER_S);
    fake.wait = fake.hold = true;
    ask(&client, NBD_CMD_FLUSH, 0, 3, 0, 0);
    wait_ns(NS_PER_S);
    fake_volume_lose(rig->volumes, "db");
    fake.wait = fake.hold = false;
    assert_int_equal(hear_reply(&client, &cookie, NULL, 0), NBD_ESHUTDOWN);
    assert_true(cookie == 3);
    assert_ended(&client);
}

static void lost_in_the_middle(struct rig *rig)
{
    enum { LENGTH = 4 << 20 };
    struct client client = attach(rig, "db", false);
    uint8_t *got = malloc(LENGTH);
    ask(&client, NBD_CMD_READ, 0, 1, 0, LENGTH);
    size_t first = at_hand(&client);
    fake.doubt = true;
    hear(&client, got, first);
    fake_volume_lose(rig->volumes, "db");
    assert_ended(&client);
    free(got);
}

/* Who goes while its replies are held, and the end of the server meanwhile. */
static void left_while_held(struct rig *rig)
{
    for (int i = 0; i < 4; i++) {
        struct client client = attach(rig, "db", true), gone;
        fake.doubt = true;
        ask(&client, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wait_ns(NS_PER_S);
        gone = client;
        if (i == 3)
            break; /* and stays when the service is drained */
        hang_up(&gone);
        wait_ns(NS_PER_S);
        if (i == 1)
            fake_volume_lose(rig->volumes, "db");
        fake_volumes_resume(rig->volumes);
        wait_ns(NS_PER_S);
        assert_int_equal(connections(rig), 0);
        if (i == 1)
            break;
    }
}

static void drained_while_held(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    fake.doubt = true;
    ask(&client, NBD_CMD_FLUSH, 0, 1, 0, 0);
    wait_ns(NS_PER_S);
    nbd_service_drain(rig->service, loop_now_ns(rig->loop) + 10 * NS_PER_S);
    assert_ended(&client);
}

static void test_held_replies(void **state)
{
    struct nbd_settings settings = defaults();
    run(held);
    settings.requests_in_flight = 4;
    run_with(&settings, held_within_limits);
    run(held_in_the_middle);
    run(lost_after_doubt);
    run(lost_in_the_middle);
    run(left_while_held);
    run(drained_while_held);
}

/* ---- waiting for an owner ---- */

static void wait_for_owner(struct rig *rig)
{
    struct client patient = greet(rig), gone = greet(rig), broken = greet(rig);
    char text[8192];
    uint32_t length;
    fake.hold = true;
    say_choice(&patient, NBD_OPT_GO, "db");
    say_choice(&gone, NBD_OPT_GO, "db");
    say_choice(&broken, NBD_OPT_GO, "db");
    wait_ns(LONG_NS);
    assert_int_equal(connections(rig), 3);
    /* What it says ahead does not end its wait, and is not lost. */
    say_option(&patient, NBD_OPT_LIST, NULL, 0);
    wait_ns(NS_PER_S);
    hang_up(&gone);
    channel_sim_cut(broken.channel);
    wait_ns(10 * NS_PER_S);
    assert_int_equal(connections(rig), 1);
    assert_int_equal(fake.opened, 0);
    fake.acquire_code = -EBUSY;
    fake.hold = false;
    assert_int_equal(hear_option(&patient, NBD_OPT_GO, text, &length), NBD_REP_ERR_POLICY);
    assert_option(&patient, NBD_OPT_LIST, NBD_REP_ACK);
    hang_up(&patient);
    hang_up(&broken);
}

/* A server that stops does not wait for other servers. */
static void stopped_while_waiting(struct rig *rig)
{
    struct client client = greet(rig);
    char text[8192];
    uint32_t length;
    fake.hold = true;
    say_choice(&client, NBD_OPT_GO, "db");
    wait_ns(NS_PER_S);
    uint64_t start_ns = loop_now_ns(rig->loop);
    nbd_service_drain(rig->service, start_ns + 100 * NS_PER_S);
    assert_true(loop_now_ns(rig->loop) - start_ns < 10 * NS_PER_S);
    assert_int_equal(hear_option(&client, NBD_OPT_GO, text, &length), NBD_REP_ERR_SHUTDOWN);
    assert_ended(&client);
    fake.hold = false;
}

static void test_waiting_for_owner(void **state)
{
    run(wait_for_owner);
    run(stopped_while_waiting);
}

/* ---- clients that are gone ---- */

static void gone(struct rig *rig)
{
    struct client client = attach(rig, "db", true);
    uint8_t byte;
    hang_up(&client);
    wait_ns(10 * NS_PER_S);
    assert_int_equal(fake.closed, 1);
    client = attach(rig, "db", true);
    channel_sim_cut(client.channel);
    wait_ns(10 * NS_PER_S);
    assert_int_equal(fake.closed, 2);
    hang_up(&client);
    assert_int_equal(fake.vanished, 0);
    /* Nothing is under way: only the probes can tell. */
    client = attach(rig, "db", true);
    assert_int_equal(call(&client, NBD_CMD_READ, 0, 0, 1, &byte), 0);
    channel_sim_silence(client.channel, 110 * NS_PER_S);
    wait_ns(100 * NS_PER_S);
    assert_int_equal(fake.closed, 2);
    wait_ns(25 * NS_PER_S);
    assert_int_equal(fake.closed, 3);
    assert_int_equal(fake.vanished, 1);
    hang_up(&client);
    /* In the middle of a reply. */
    client = attach(rig, "db", true);
    ask(&client, NBD_CMD_READ, 0, 1, 0, 8 << 20);
    wait_ns(NS_PER_S);
    channel_sim_silence(client.channel, 110 * NS_PER_S);
    wait_ns(130 * NS_PER_S);
    assert_int_equal(fake.vanished, 2);
    hang_up(&client);
}

/* A refused WRITE is not answered before all of it has come: its client is still sending it. */
static void lost_in_a_refused_write(struct rig *rig)
{
    static const uint8_t half[2048];
    struct client client = attach(rig, "db", true);
    ask(&client, NBD_CMD_WRITE, 1 << 15, 7, 0, 4096);
    say(&client, half, sizeof half);
    wait_ns(NS_PER_S);
    fake_volume_lose(rig->volumes, "db");
    wait_ns(NS_PER_S);
    assert_ended(&client);
}

/* Who takes no replies is cut off while a WRITE, made at once, waits for a task to flush it: the request, which is
 * freed since there are answered ones enough, is not looked at again. */
static void gone_before_its_flush(struct rig *rig)
{
    struct client client = attach(rig, "db", false);
    /* In one piece with its payload. */
    uint8_t write[NBD_REQUEST_BYTES + 1] = { 0x25, 0x60, 0x95, 0x13, 0, NBD_CMD_FLAG_FUA, 0, NBD_CMD_WRITE }, byte;
    uint64_t cookie;
    put_be(write + 24, sizeof byte, 4);
    fake.doubt = fake.over = true;
    for (uint64_t i = 0; i < NBD_SPARE_REQUESTS; i++)
        ask(&client, NBD_CMD_READ, 0, i, 0, sizeof byte);
    ask(&client, NBD_CMD_READ, 0, 0, 0, 4 << 20);
    wait_ns(NS_PER_S);
    fake.hold = true;
    for (uint64_t i = 0; i < NBD_TASKS_OF_EACH; i++)
        ask(&client, NBD_CMD_FLUSH, 0, i, 0, 0);
    say(&client, write, sizeof write);
    wait_ns(NS_PER_S);
    fake_volumes_resume(rig->volumes);
    for (int i = 0; i < (int)NBD_SPARE_REQUESTS; i++)
        assert_int_equal(hear_reply(&client, &cookie, &byte, sizeof byte), 0);
    assert_int_equal(asked(rig, NBD_CMD_WRITE), 1);
    wait_ns(LONG_NS);
    assert_int_equal(connections(rig), 0);
    hang_up(&client);
}

static void test_gone_clients(void **state)
{
    struct nbd_settings settings = defaults();
    run(gone);
    run(lost_in_a_refused_write);
    settings.tasks = 1;
    run_with(&settings, gone_before_its_flush);
}

/* ---- sharing ---- */

static uint32_t go_as(struct rig *rig, const char *peer, struct client *ret_client, char text[8192])
{
    *ret_client = greet_as(rig, peer);
    return choose(ret_client, NBD_OPT_GO, "db", text);
}

static void shared_by_peer(struct rig *rig)
{
    struct client first, second, stranger, other;
    char text[8192];
    uint8_t byte;
    assert_int_equal(go_as(rig, "10.0.0.1", &first, text), NBD_REP_ACK);
    assert_int_equal(go_as(rig, "10.0.0.1", &second, text), NBD_REP_ACK);
    /* The beginning of a name is another name. */
    assert_int_equal(go_as(rig, "10.0.0.11", &stranger, text), NBD_REP_ERR_POLICY);
    assert_non_null(strstr(text, "volume 'db' is in use by 10.0.0.1 since "));
    assert_non_null(strstr(text, "with 2 connections"));
    /* It may look around, and have another one. */
    assert_int_equal(choose(&stranger, NBD_OPT_INFO, "db", text), NBD_REP_ACK);
    say_option(&stranger, NBD_OPT_LIST, NULL, 0);
    assert_option(&stranger, NBD_OPT_LIST, NBD_REP_SERVER);
    assert_option(&stranger, NBD_OPT_LIST, NBD_REP_ACK);
    assert_int_equal(choose(&stranger, NBD_OPT_GO, "elsewhere", text), NBD_REP_ACK);
    other = greet_as(rig, "10.0.0.11");
    say_option(&other, NBD_OPT_EXPORT_NAME, "db", 2);
    assert_ended(&other);
    hang_up(&first);
    wait_ns(NS_PER_S);
    assert_int_equal(go_as(rig, "10.0.0.11", &other, text), NBD_REP_ERR_POLICY);
    assert_null(strstr(text, "connections;"));
    hang_up(&second);
    wait_ns(NS_PER_S);
    assert_int_equal(choose(&other, NBD_OPT_GO, "db", text), NBD_REP_ACK);
    assert_int_equal(call(&other, NBD_CMD_READ, 0, 0, 1, &byte), 0);
    hang_up(&other);
    hang_up(&stranger);
}

/* Whose client has gone is not in the way, whatever it has left to do. */
static void shared_with_the_gone(struct rig *rig)
{
    struct client first, second;
    char text[8192];
    assert_int_equal(go_as(rig, "a", &first, text), NBD_REP_ACK);
    fake.wait = fake.hold_changes = true;
    ask(&first, NBD_CMD_TRIM, 0, 1, 0, 4096);
    ask(&first, NBD_CMD_DISC, 0, 2, 0, 0);
    wait_ns(NS_PER_S);
    assert_int_equal(go_as(rig, "b", &second, text), NBD_REP_ACK);
    /* But what it has left comes first. */
    ask(&second, NBD_CMD_TRIM, 0, 1, 0, 4096);
    wait_ns(NS_PER_S);
    assert_int_equal(asked(rig, NBD_CMD_TRIM), 1);
    fake.wait = fake.hold_changes = false;
    uint64_t cookie;
    assert_int_equal(hear_reply(&second, &cookie, NULL, 0), 0);
    hang_up(&first);
    hang_up(&second);
}

static void shared_by_nobody(struct rig *rig)
{
    struct client first, second;
    char text[8192];
    assert_int_equal(go_as(rig, "a", &first, text), NBD_REP_ACK);
    assert_int_equal(go_as(rig, "a", &second, text), NBD_REP_ERR_POLICY);
    assert_non_null(strstr(text, "one connection at a time"));
    ask(&first, NBD_CMD_DISC, 0, 1, 0, 0);
    assert_ended(&first);
    assert_int_equal(choose(&second, NBD_OPT_GO, "db", text), NBD_REP_ACK);
    hang_up(&second);
}

static void shared_by_anybody(struct rig *rig)
{
    struct client first, second;
    char text[8192];
    uint8_t byte;
    assert_int_equal(go_as(rig, "a", &first, text), NBD_REP_ACK);
    /* Half a WRITE of somebody else is nobody's concern. */
    ask(&first, NBD_CMD_WRITE, 0, 1, 0, 4096);
    wait_ns(NS_PER_S);
    assert_int_equal(go_as(rig, "b", &second, text), NBD_REP_ACK);
    uint64_t start_ns = loop_now_ns(rig->loop);
    assert_int_equal(call(&second, NBD_CMD_READ, 0, 0, 1, &byte), 0);
    assert_true(loop_now_ns(rig->loop) - start_ns < NS_PER_S);
    hang_up(&first);
    hang_up(&second);
}

/* Two who wait for the same owner: the first that gets it has it. */
static void shared_after_waiting(struct rig *rig)
{
    struct client first = greet_as(rig, "a"), second = greet_as(rig, "b");
    char text[8192];
    uint32_t length, refused = 0, served = 0;
    fake.hold = true;
    say_choice(&first, NBD_OPT_GO, "db");
    say_choice(&second, NBD_OPT_GO, "db");
    wait_ns(NS_PER_S);
    fake.hold = false;
    struct client *both[] = { &first, &second };
    for (int i = 0; i < 2; i++) {
        uint32_t reply;
        while ((reply = hear_option(both[i], NBD_OPT_GO, text, &length)) == NBD_REP_INFO)
            continue;
        served += reply == NBD_REP_ACK;
        refused += reply == NBD_REP_ERR_POLICY;
    }
    assert_int_equal(served, 1);
    assert_int_equal(refused, 1);
    hang_up(&first);
    hang_up(&second);
}

static void test_sharing(void **state)
{
    struct nbd_settings settings = defaults();
    assert_int_equal(settings.sharing, NBD_SHARING_PEER);
    run(shared_by_peer);
    run(shared_with_the_gone);
    run(shared_after_waiting);
    settings.sharing = NBD_SHARING_SINGLE;
    run_with(&settings, shared_by_nobody);
    settings.sharing = NBD_SHARING_ANY;
    run_with(&settings, shared_by_anybody);
}

/* ---- old connections ---- */

static void assert_content(struct client *client, char letter)
{
    uint8_t got[4096], wanted[4096];
    memset(wanted, letter, sizeof wanted);
    assert_int_equal(call(client, NBD_CMD_READ, 0, 0, sizeof got, got), 0);
    assert_memory_equal(got, wanted, sizeof got);
}

static void write_page(struct client *client, char letter)
{
    uint8_t data[4096];
    memset(data, letter, sizeof data);
    assert_int_equal(call(client, NBD_CMD_WRITE, 0, 0, sizeof data, data), 0);
}

/* Half a WRITE, the client silent: a new connection waits, then the old one goes. */
static void half_an_old_write(struct rig *rig)
{
    struct client old = attach(rig, "db", true);
    uint8_t data[4096];
    memset(data, 'o', sizeof data);
    ask(&old, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    say(&old, data, 1000);
    wait_ns(NS_PER_S);
    struct client new = attach(rig, "db", true);
    uint64_t start_ns = loop_now_ns(rig->loop);
    write_page(&new, 'n');
    uint64_t took_ns = loop_now_ns(rig->loop) - start_ns;
    assert_true(took_ns >= NBD_ELDER_STALL_MS * NS_PER_MS && took_ns < 2 * NBD_ELDER_STALL_MS * NS_PER_MS);
    assert_int_equal(fake.aborted, 1);
    assert_ended(&old);
    assert_content(&new, 'n');
    hang_up(&new);
}

/* Half a header: what comes of it is another matter when it is a WRITE, and when it is a READ. */
static void half_an_old_header(struct rig *rig)
{
    for (uint16_t command = NBD_CMD_READ; command <= NBD_CMD_WRITE; command++) {
        struct client old = attach(rig, "db", true);
        uint8_t header[NBD_REQUEST_BYTES] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, (uint8_t)command }, data[4096];
        uint64_t cookie;
        memset(data, 'o', sizeof data);
        put_be(header + 24, sizeof data, 4);
        say(&old, header, 6);
        wait_ns(NS_PER_S);
        struct client new = attach(rig, "db", true);
        write_page(&new, 'n');
        assert_int_equal(connections(rig), 2);
        say(&old, header + 6, sizeof header - 6);
        if (command == NBD_CMD_WRITE) {
            say(&old, data, sizeof data);
            assert_ended(&old);
        } else {
            assert_int_equal(hear_reply(&old, &cookie, data, sizeof data), 0);
            /* It may go on for good. */
            assert_int_equal(call(&old, NBD_CMD_WRITE, 0, 4096, sizeof data, data), 0);
            hang_up(&old);
        }
        assert_content(&new, 'n');
        hang_up(&new);
    }
}

/* The rest of it comes, slowly: the old one is alive, and first. */
static void slow_old_write(struct rig *rig)
{
    enum { LENGTH = 1 << 20, PARTS = 5 };
    struct client old = attach(rig, "db", false);
    uint8_t *data = malloc(LENGTH), page[4096], reply[NBD_SIMPLE_REPLY_BYTES];
    uint64_t cookie;
    memset(data, 'o', LENGTH);
    memset(page, 'n', sizeof page);
    ask(&old, NBD_CMD_WRITE, 0, 1, 0, LENGTH);
    wait_ns(NS_PER_S);
    struct client new = attach(rig, "db", true);
    ask(&new, NBD_CMD_WRITE, 0, 1, 0, sizeof page);
    say(&new, page, sizeof page);
    for (int i = 0; i < PARTS; i++) {
        wait_ns(NBD_ELDER_STALL_MS * NS_PER_MS * 3 / 4);
        assert_int_equal(channel_unread(new.channel), 0);
        say(&old, data + i * (LENGTH / PARTS), LENGTH / PARTS);
    }
    say(&old, data + PARTS * (LENGTH / PARTS), LENGTH - PARTS * (LENGTH / PARTS));
    hear(&old, reply, sizeof reply);
    assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
    assert_content(&new, 'n');
    free(data);
    hang_up(&old);
    hang_up(&new);
}

/* A client that took no replies, so that its WRITE still lies in the kernel's buffer. */
static void unread_old_write(struct rig *rig)
{
    struct client old = attach(rig, "db", true);
    uint8_t data[4096], *got = malloc(1 << 20);
    const struct iovec piece = { .iov_base = got, .iov_len = 1 << 20 };
    memset(data, 'o', sizeof data);
    for (uint64_t i = 0; i < 20; i++)
        ask(&old, NBD_CMD_READ, 0, i, 0, 1 << 20);
    ask(&old, NBD_CMD_WRITE, 0, 20, 0, sizeof data);
    say(&old, data, sizeof data);
    wait_ns(NS_PER_S);
    assert_int_equal(asked(rig, NBD_CMD_WRITE), 0);
    struct client new = attach(rig, "db", true);
    write_page(&new, 'n');
    assert_int_equal(asked(rig, NBD_CMD_WRITE), 1);
    assert_content(&new, 'n');
    /* It wakes up, and takes what it had asked for. */
    while (channel_read(old.channel, &piece, 1) > 0)
        continue;
    assert_int_equal(connections(rig), 1);
    assert_content(&new, 'n');
    free(got);
    hang_up(&old);
    hang_up(&new);
}

/* Whatever the old client hears of it now, what the new one wrote stands. */
static void old_wakes_up(struct client *old, struct client *new)
{
    uint8_t *got = malloc(1 << 20);
    const struct iovec piece = { .iov_base = got, .iov_len = 1 << 20 };
    while (at_hand(old) > 0)
        assert_true(channel_read(old->channel, &piece, 1) > 0);
    assert_content(new, 'n');
    assert_ended(old);
    free(got);
    hang_up(new);
}

static const int changes[] = { NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES };
#define CHANGES (sizeof changes / sizeof *changes)

static void ask_change(struct client *client, int command)
{
    uint8_t data[4096];
    memset(data, 'o', sizeof data);
    ask(client, (uint16_t)command, 0, 77, 0, sizeof data);
    if (command == NBD_CMD_WRITE)
        say(client, data, sizeof data);
}

/* A change was received, but may not begin before there is room for one more request: none is made by replies that
 * nobody takes. */
static void old_change_without_room(struct rig *rig)
{
    for (size_t i = 0; i < CHANGES; i++) {
        struct client old = attach(rig, "db", true);
        for (uint64_t j = 0; j < rig->settings.requests_in_flight; j++)
            ask(&old, NBD_CMD_READ, 0, j, 0, 1 << 20);
        ask_change(&old, changes[i]);
        wait_ns(NS_PER_S);
        struct client new = attach(rig, "db", true);
        uint64_t start_ns = loop_now_ns(rig->loop);
        write_page(&new, 'n');
        assert_true(loop_now_ns(rig->loop) - start_ns >= NBD_ELDER_STALL_MS * NS_PER_MS);
        old_wakes_up(&old, &new);
    }
}

/* The same, and its client comes back in time: then it is first. */
static void old_change_finds_room(struct rig *rig)
{
    for (size_t i = 0; i < CHANGES; i++) {
        struct client old = attach(rig, "db", true);
        uint8_t page[4096];
        static uint8_t got[1 << 20];
        uint64_t cookie;
        for (uint64_t j = 0; j < rig->settings.requests_in_flight; j++)
            ask(&old, NBD_CMD_READ, 0, j, 0, 1 << 20);
        ask_change(&old, changes[i]);
        wait_ns(NS_PER_S);
        struct client new = attach(rig, "db", true);
        memset(page, 'n', sizeof page);
        ask(&new, NBD_CMD_WRITE, 0, 1, 0, sizeof page);
        say(&new, page, sizeof page);
        wait_ns(NBD_ELDER_STALL_MS * NS_PER_MS / 2);
        assert_int_equal(channel_unread(new.channel), 0);
        for (uint64_t j = 0; j < rig->settings.requests_in_flight; j++)
            assert_int_equal(hear_reply(&old, &cookie, got, sizeof got), 0);
        assert_int_equal(hear_reply(&old, &cookie, NULL, 0), 0);
        assert_true(cookie == 77);
        assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
        assert_content(&new, 'n');
        assert_int_equal(connections(rig), 2);
        hang_up(&old);
        hang_up(&new);
    }
}

/* A change that waits until the connection may have one more task: nothing is left of it when there might be one. */
static void old_change_without_task(struct rig *rig)
{
    for (size_t i = 0; i < CHANGES; i++) {
        struct client old = attach(rig, "db", true), new = attach(rig, "db", true);
        uint64_t cookie;
        write_page(&new, 'n');
        hang_up(&new);
        fake.wait = fake.hold_changes = true;
        for (uint64_t j = 0; j < NBD_TASKS_OF_EACH; j++)
            ask(&old, NBD_CMD_TRIM, 0, j, 4096 * (j + 1), 4096);
        ask_change(&old, changes[i]);
        wait_ns(NS_PER_S);
        new = attach(rig, "db", true);
        ask(&new, NBD_CMD_FLUSH, 0, 1, 0, 0);
        uint64_t start_ns = loop_now_ns(rig->loop);
        assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
        assert_true(loop_now_ns(rig->loop) - start_ns >= NBD_ELDER_WAIT_MS * NS_PER_MS);
        fake.wait = fake.hold_changes = false;
        wait_ns(NS_PER_S);
        old_wakes_up(&old, &new);
    }
}

/* A change that waits for the store, of a client that lives, or has said good bye. */
static void old_change_in_store(struct rig *rig)
{
    for (int i = 0; i < 2; i++) {
        struct client old = attach(rig, "db", true);
        uint64_t cookie, before = asked(rig, NBD_CMD_FLUSH);
        uint8_t data[4096];
        memset(data, 'o', sizeof data);
        fake.wait = fake.hold_changes = true;
        ask(&old, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
        say(&old, data, sizeof data);
        if (i == 1)
            ask(&old, NBD_CMD_DISC, 0, 2, 0, 0);
        wait_ns(NS_PER_S);
        struct client new = attach(rig, "db", true);
        ask(&new, NBD_CMD_FLUSH, 0, 1, 0, 0);
        wait_ns(NBD_ELDER_STALL_MS * NS_PER_MS * 2);
        assert_int_equal(asked(rig, NBD_CMD_FLUSH), before); /* it waits, longer than for a client */
        fake.hold_changes = false;
        assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
        assert_int_equal(hear_reply(&old, &cookie, NULL, 0), 0);
        fake.wait = false;
        write_page(&new, 'n');
        assert_content(&new, 'n');
        hang_up(&old);
        hang_up(&new);
    }
}

/* The same, and the store never answers. */
static void old_change_never_done(struct rig *rig)
{
    struct client old = attach(rig, "db", true);
    uint64_t cookie;
    fake.wait = fake.hold_changes = true;
    ask(&old, NBD_CMD_TRIM, 0, 1, 0, 4096);
    wait_ns(NS_PER_S);
    struct client new = attach(rig, "db", true);
    ask(&new, NBD_CMD_FLUSH, 0, 1, 0, 0);
    uint64_t start_ns = loop_now_ns(rig->loop);
    assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
    assert_true(loop_now_ns(rig->loop) - start_ns >= NBD_ELDER_WAIT_MS * NS_PER_MS);
    assert_ended(&old);
    fake.wait = fake.hold_changes = false;
    hang_up(&new);
}

/* While the lease is in doubt nobody can be blamed. */
static void old_write_in_doubt(struct rig *rig)
{
    struct client old = attach(rig, "db", true);
    uint8_t data[4096];
    uint64_t cookie;
    ask(&old, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    wait_ns(NS_PER_S);
    struct client new = attach(rig, "db", true);
    fake.doubt = true;
    ask(&new, NBD_CMD_FLUSH, 0, 1, 0, 0);
    wait_ns(NBD_PAYLOAD_STALL_MS * NS_PER_MS / 2);
    assert_int_equal(connections(rig), 2);
    fake_volumes_resume(rig->volumes);
    assert_int_equal(hear_reply(&new, &cookie, NULL, 0), 0);
    assert_int_equal(connections(rig), 1);
    hang_up(&old);
    hang_up(&new);
}

/* The newer one goes first, or the service ends. */
static void junior_leaves(struct rig *rig)
{
    struct client old = attach(rig, "db", true), other, last;
    uint8_t data[4096] = { 0 };
    uint64_t cookie;
    ask(&old, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    wait_ns(NS_PER_S);
    struct client new = attach(rig, "db", true);
    hang_up(&new);
    other = attach(rig, "db", true);
    channel_sim_cut(other.channel);
    wait_ns(3 * NS_PER_S);
    assert_int_equal(connections(rig), 1);
    last = attach(rig, "db", true);
    ask(&last, NBD_CMD_READ, 0, 1, 0, 1);
    wait_ns(NS_PER_S);
    say(&old, data, sizeof data);
    assert_int_equal(hear_reply(&old, &cookie, NULL, 0), 0);
    assert_int_equal(hear_reply(&last, &cookie, data, 1), 0);
    ask(&old, NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    wait_ns(NS_PER_S);
    new = attach(rig, "db", true);
    ask(&new, NBD_CMD_READ, 0, 1, 0, 1);
    wait_ns(NS_PER_S);
    nbd_service_drain(rig->service, loop_now_ns(rig->loop) + NS_PER_S);
    hang_up(&old);
    hang_up(&new);
    hang_up(&last);
    hang_up(&other);
}

/* Connections that are opened side by side do not wait for each other, nor does the first request of one that idled. */
static void siblings(struct rig *rig)
{
    enum { COUNT = 8 };
    struct client clients[COUNT];
    uint8_t data[4096] = { 0 };
    uint64_t cookie, start_ns = loop_now_ns(rig->loop);
    for (int i = 0; i < COUNT; i++) {
        clients[i] = attach(rig, "db", true);
        ask(&clients[i], NBD_CMD_WRITE, 0, 1, 0, sizeof data);
        say(&clients[i], data, sizeof data);
    }
    for (int i = COUNT - 1; i >= 0; i--)
        assert_int_equal(hear_reply(&clients[i], &cookie, NULL, 0), 0);
    assert_true(loop_now_ns(rig->loop) - start_ns < NS_PER_S);
    struct client late = attach(rig, "db", true);
    ask(&clients[0], NBD_CMD_WRITE, 0, 1, 0, sizeof data);
    wait_ns(NS_PER_S);
    start_ns = loop_now_ns(rig->loop);
    assert_int_equal(call(&late, NBD_CMD_READ, 0, 0, 1, data), 0);
    assert_true(loop_now_ns(rig->loop) - start_ns < NS_PER_S);
    for (int i = 0; i < COUNT; i++)
        hang_up(&clients[i]);
    hang_up(&late);
}

/* One after the other, each leaving something undone in some way: what the last one wrote stands. */
static void chain_of_old(struct rig *rig)
{
    enum { COUNT = 12 };
    struct client clients[COUNT];
    static uint8_t data[64 * 1024];
    for (int i = 0; i < COUNT; i++) {
        clients[i] = attach(rig, "db", true);
        memset(data, 'a' + i, sizeof data);
        fake.wait = world_chance(rig->world, 500);
        for (uint64_t count = world_random(rig->world, 6); count > 0; count--) {
            bool writes = world_chance(rig->world, 500);
            ask(&clients[i], writes ? NBD_CMD_WRITE : NBD_CMD_READ, 0, count, 0, sizeof data);
            if (writes && world_chance(rig->world, 700))
                say(&clients[i], data, sizeof data);
            else if (writes) {
                say(&clients[i], data, world_random(rig->world, sizeof data));
                break;
            }
        }
        wait_ns(world_random(rig->world, NS_PER_S));
        if (world_chance(rig->world, 300))
            channel_sim_cut(clients[i].channel);
        else if (world_chance(rig->world, 300))
            channel_shutdown(clients[i].channel);
    }
    struct client last = attach(rig, "db", true);
    write_page(&last, 'z');
    wait_ns(NBD_ELDER_STALL_MS * NS_PER_MS);
    assert_content(&last, 'z');
    for (int i = 0; i < COUNT; i++)
        hang_up(&clients[i]);
    wait_ns(LONG_NS);
    assert_content(&last, 'z');
    hang_up(&last);
}

static void test_old_connections(void **state)
{
    struct nbd_settings settings = defaults();
    run(half_an_old_write);
    run(half_an_old_header);
    run(slow_old_write);
    run(old_change_in_store);
    run(old_change_never_done);
    run(old_write_in_doubt);
    run(junior_leaves);
    run(siblings);
    run(chain_of_old);
    settings.bytes_in_flight = 1 << 20;
    run_with(&settings, unread_old_write);
    settings = defaults();
    settings.requests_in_flight = 4;
    run_with(&settings, old_change_without_room);
    run_with(&settings, old_change_finds_room);
    settings = defaults();
    settings.tasks = 1;
    run_with(&settings, old_change_without_task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_replies),    cmocka_unit_test(test_waiting_for_owner),
        cmocka_unit_test(test_gone_clients),    cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_old_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
