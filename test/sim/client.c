/* Clients.
 *
 * A client is a task that goes from connection to connection; on each, a second
 * task takes the answers.  Requests are registered with the checker before
 * their first byte is sent, and ended when their answer is there whole.
 *
 * What may happen depends on the phase.  In chaos a request may fail (in the
 * ways that a valid request can), a connection may break, a server may be
 * silent for longer than the client's patience.  In a connection that was made
 * when the run was calm, nothing of that may happen: a failure, a break or
 * silence ends the run as broken.  That is the check of liveness.
 *
 * A WRITE whose payload was not sent whole is not known to the checker at all:
 * not a byte of it may ever show. */
#include "client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "clone.h"
#include "court.h"
#include "rt/task.h"
#include "rt/timer.h"
#include "wire.h"

/* Virtual time in which a healed system must have answered anything: the longest deadline of the server (a FLUSH,
 * 120 s), and room for a back-off. */
#define CALM_PATIENCE_NS (200 * NS_PER_S)
/* Pauses before a refused client tries again. */
#define RETRY_NS (500 * NS_PER_MS)
/* A verifying client reads runs that are longer than this only at both ends and here and there. */
#define VERIFY_WHOLE_BYTES (UINT64_C(4) << 20)
#define VERIFY_READ_BYTES (256u << 10)

struct request {
    bool used;
    uint64_t handle;
    enum client_request kind;
    enum wire_command command;
    uint16_t flags;
    uint64_t offset;
    uint32_t length;
    enum checker_content content;
    struct checker_op *op; /* NULL: CACHE and wrong ones */
    uint8_t *bytes;        /* payload or destination */
    uint32_t filled;
    uint32_t error; /* of one of its chunks */
    uint32_t expected_error;
};

struct client {
    struct sim *sim;
    struct disk *disk;
    int number;
    struct client_profile profile;
    struct group group;
    struct timer silence;
    bool silence_in_calm; /* the watch was set when all was healed */
    bool done;

    /* the connection */
    struct node *node;
    struct cable cable;
    struct wire wire;
    struct checker_era *era;
    uint64_t epoch;
    bool calm;    /* made when the run was calm: nothing may fail */
    bool leaving; /* the end of the stream is expected */
    bool broken;  /* no more requests */
    struct group receiving;
    struct request requests[CLIENT_DEPTH_MAX];
    uint32_t in_flight;
    uint64_t next_handle;
    struct waitq change; /* an answer came, or it broke */
};

static const char *const request_names[] = { "read", "write", "flush", "trim", "zero", "cache", "wrong", "zero-huge" };

static uint64_t patience_of(const struct client *client)
{
    return client->sim->phase == SIM_CHAOS ? client->profile.patience_ns : CALM_PATIENCE_NS;
}

/* (Re)starts or ends the watch over a server's silence. */
static void watch_silence(struct client *client, bool waiting)
{
    client->silence_in_calm = client->sim->phase != SIM_CHAOS;
    if (waiting)
        timer_set(&client->silence, loop_now_ns(client->sim->outside) + patience_of(client));
    else
        timer_cancel(&client->silence);
}

static void on_silence(struct timer *timer)
{
    struct client *client = container_of(timer, struct client, silence);
    if (client->sim->phase != SIM_CHAOS && !client->silence_in_calm) {
        watch_silence(client, true); /* healed only meanwhile */
        return;
    }
    if (client->sim->phase != SIM_CHAOS) {
        char text[256];
        client_describe(client, text, sizeof text);
        sim_fail(client->sim, "no answer although all is healed: %s", text);
        return;
    }
    sim_trace(client->sim, "c%d lost its patience", client->number);
    client->broken = true;
    if (client->cable.channel != NULL)
        channel_shutdown(client->cable.channel);
    waitq_wake_all(&client->change);
}

void client_describe(const struct client *client, char *ret_text, size_t capacity)
{
    int at = snprintf(ret_text, capacity, "client %d of '%s' at %s, %u in flight", client->number, client->disk->name,
                      client->node != NULL ? client->node->name : "no server", client->in_flight);
    for (int i = 0; i < CLIENT_DEPTH_MAX && at > 0 && (size_t)at < capacity; i++)
        if (client->requests[i].used)
            at += snprintf(ret_text + at, capacity - (size_t)at, ", %s #%" PRIu64,
                           request_names[client->requests[i].kind], client->requests[i].handle);
}

/* ---- answers ---- */

static struct request *request_find(struct client *client, uint64_t handle)
{
    for (int i = 0; i < CLIENT_DEPTH_MAX; i++)
        if (client->requests[i].used && client->requests[i].handle == handle)
            return &client->requests[i];
    return NULL;
}

static void request_free(struct client *client, struct request *request)
{
    free(request->bytes);
    *request = (struct request){ .used = false };
    client->in_flight--;
    watch_silence(client, client->in_flight > 0);
    waitq_wake_all(&client->change);
}

/* Errors that a lawful request may get while things break. */
static bool error_is_excusable(uint32_t error)
{
    return error == WIRE_EIO || error == WIRE_ENOSPC || error == WIRE_ESHUTDOWN;
}

static void request_failed(struct client *client, struct request *request, uint32_t error)
{
    if (client->calm || !error_is_excusable(error))
        sim_fail(client->sim, "client %d of '%s': %s #%" PRIu64 " (%" PRIu64 " + %" PRIu32 ") answered with error %u%s",
                 client->number, client->disk->name, request_names[request->kind], request->handle, request->offset,
                 request->length, error, client->calm ? " although all is healed" : "");
    if (request->op != NULL)
        court_op_failed(client->sim, request->op);
}

static void told_success(struct client *client)
{
    struct sim *sim = client->sim;
    uint64_t sent_ns = channel_sim_written_ns(client->cable.channel);
    if (sim->remote >= 0)
        clone_answered(sim, client->disk, client->epoch, sent_ns);
    else
        tenure_answered(sim, client->disk, client->node, client->epoch, UNIVERSE_ORIGINAL,
                        sim->hosts[client->node->setup.host].lied_ns, sent_ns);
}

static void request_succeeded(struct client *client, struct request *request)
{
    char story[CHECKER_STORY_MAX];
    bool fine = true;
    told_success(client);
    if (request->command == WIRE_READ) {
        if (request->filled != request->length)
            sim_fail(client->sim, "read #%" PRIu64 " was answered with %" PRIu32 " of %" PRIu32 " bytes",
                     request->handle, request->filled, request->length);
        fine = court_read_end(client->sim, request->op, request->bytes, request->length, story);
    } else if (request->command == WIRE_FLUSH) {
        fine = court_flush_end(client->sim, request->op, story);
    } else if (request->op != NULL) {
        fine = court_write_end(client->sim, request->op, story);
    }
    if (!fine)
        sim_fail(client->sim, "client %d of '%s', answer to %s #%" PRIu64 ": %s", client->number, client->disk->name,
                 request_names[request->kind], request->handle, story);
}

static void request_answered(struct client *client, struct request *request)
{
    uint32_t error = request->error;
    sim_trace(client->sim, "c%d #%" PRIu64 " %s: %s %" PRIu32, client->number, request->handle,
              request_names[request->kind], error == 0 ? "done" : "error", error);
    if (request->expected_error != 0) {
        if (error != request->expected_error)
            sim_fail(client->sim, "request %u (%" PRIu64 " + %" PRIu32 ", flags %u) must be refused with %u, got %u",
                     request->command, request->offset, request->length, request->flags, request->expected_error,
                     error);
    } else if (error != 0) {
        request_failed(client, request, error);
    } else {
        request_succeeded(client, request);
    }
    request_free(client, request);
}

static struct wire_target find_target(void *arg, uint64_t handle)
{
    struct request *request = request_find(arg, handle);
    if (request == NULL)
        return (struct wire_target){ .known = false };
    return (struct wire_target){
        .known = true,
        .read = request->command == WIRE_READ,
        .offset = request->offset,
        .length = request->length,
        .bytes = request->bytes,
        .filled = &request->filled,
    };
}

static void receive_task(void *arg)
{
    struct client *client = arg;
    int code;
    for (;;) {
        struct wire_reply reply;
        code = wire_receive(&client->wire, find_target, client, &reply);
        if (code < 0)
            break;
        if (client->in_flight > 0)
            watch_silence(client, true);
        struct request *request = request_find(client, reply.handle);
        assert(request != NULL);
        if (reply.error != 0)
            request->error = reply.error;
        if (reply.done)
            request_answered(client, request);
        if (client->profile.deaf_ns > 0 && world_random(client->sim->world, 16) == 0)
            sleep_ns(world_random(client->sim->world, client->profile.deaf_ns));
    }
    sim_trace(client->sim, "c%d stream ended: %d", client->number, code);
    if (code == -EPROTO)
        sim_fail(client->sim, "client %d of '%s': the server broke the protocol", client->number, client->disk->name);
    else if (client->calm && !client->leaving && !client->sim->failed)
        sim_fail(client->sim, "client %d of '%s': the server hung up (%d) although all is healed", client->number,
                 client->disk->name, code);
    client->broken = true;
    waitq_wake_all(&client->change);
}

/* ---- requests ---- */

static uint64_t pick_length(struct client *client)
{
    struct sim *sim = client->sim;
    uint32_t most = client->profile.bytes_most;
    switch (world_random(sim->world, 8)) {
    case 0:
        return sim_between(sim, 1, 4095);
    case 1:
        return 512 * sim_between(sim, 1, 16);
    case 2:
    case 3:
        return 4096;
    case 4:
        return 4096 * sim_between(sim, 1, 32);
    case 5:
        return most < 131072 ? most : 131072;
    default:
        return sim_spread(sim, 1, most);
    }
}

static void pick_range(struct client *client, struct request *request, uint64_t length)
{
    struct sim *sim = client->sim;
    const struct disk *disk = client->disk;
    static const uint32_t grains[] = { 1, 512, 512, 4096, 4096, 4096, 4096, 131072 };
    uint32_t grain = grains[world_random(sim->world, 8)];
    uint64_t base = 0, room = disk->size;
    if (world_random(sim->world, 16) != 0) {
        base = disk->zones[world_random(sim->world, 4)];
        room = disk->zone_bytes;
    }
    uint64_t offset = (base + world_random(sim->world, room)) / grain * grain;
    request->offset = offset;
    request->length = (uint32_t)(length < disk->size - offset ? length : disk->size - offset);
}

static void pick_wrong(struct client *client, struct request *request)
{
    uint64_t size = client->disk->size;
    request->expected_error = WIRE_EINVAL;
    request->length = (uint32_t)sim_between(client->sim, 1, 4096);
    request->offset = size - request->length / 2;
    switch (world_random(client->sim->world, 5)) {
    case 0:
        request->command = WIRE_READ;
        break;
    case 1:
        request->command = WIRE_WRITE;
        request->expected_error = WIRE_ENOSPC;
        break;
    case 2:
        request->command = WIRE_TRIM;
        break;
    case 3:
        request->command = WIRE_WRITE_ZEROES;
        request->expected_error = WIRE_ENOSPC;
        break;
    default:
        request->command = WIRE_READ;
        request->offset = 0;
        request->flags = 0x8000;
        break;
    }
}

static void pick_content(struct client *client, struct request *request)
{
    uint64_t dice = world_random(client->sim->world, 16);
    request->content = dice == 0 ? CONTENT_ZERO : dice < 3 ? CONTENT_MIXED : CONTENT_DATA;
}

static void pick_huge(struct client *client, struct request *request)
{
    uint64_t size = client->disk->size, offset = 0, most = UINT32_MAX;
    if (world_random(client->sim->world, 2) == 0)
        offset = world_random(client->sim->world, size);
    uint64_t length = size - offset < most ? size - offset : most;
    request->command = world_random(client->sim->world, 2) == 0 ? WIRE_TRIM : WIRE_WRITE_ZEROES;
    request->offset = offset;
    request->length =
        (uint32_t)(world_random(client->sim->world, 2) == 0 ? length : sim_spread(client->sim, 1, length));
}

static enum client_request pick_kind(struct client *client)
{
    const uint32_t *weights = client->profile.weights;
    uint32_t sum = 0, kind = 0;
    for (int i = 0; i < 8; i++)
        sum += weights[i];
    uint64_t dice = world_random(client->sim->world, sum);
    while (dice >= weights[kind])
        dice -= weights[kind++];
    return (enum client_request)kind;
}

static void pick_request(struct client *client, struct request *request)
{
    static const enum wire_command commands[] = {
        [CLIENT_READ] = WIRE_READ, [CLIENT_WRITE] = WIRE_WRITE,       [CLIENT_FLUSH] = WIRE_FLUSH,
        [CLIENT_TRIM] = WIRE_TRIM, [CLIENT_ZERO] = WIRE_WRITE_ZEROES, [CLIENT_CACHE] = WIRE_CACHE,
    };
    request->kind = pick_kind(client);
    request->content = CONTENT_ZERO;
    if (request->kind == CLIENT_WRONG) {
        pick_wrong(client, request);
        return;
    }
    if (request->kind == CLIENT_ZERO_HUGE) {
        pick_huge(client, request);
    } else {
        request->command = commands[request->kind];
        if (request->command != WIRE_FLUSH)
            pick_range(client, request, pick_length(client));
    }
    if (request->command == WIRE_WRITE)
        pick_content(client, request);
    bool changes = request->command != WIRE_READ && request->command != WIRE_FLUSH && request->command != WIRE_CACHE;
    if (changes && world_chance(client->sim->world, client->profile.fua_permille))
        request->flags |= WIRE_FLAG_FUA;
    if (request->command == WIRE_WRITE_ZEROES && world_random(client->sim->world, 4) == 0)
        request->flags |= WIRE_FLAG_NO_HOLE;
}

/* Tells the checker, and makes the payload or the destination. */
static void request_prepare(struct client *client, struct request *request)
{
    bool fua = (request->flags & WIRE_FLAG_FUA) != 0;
    if (request->command == WIRE_READ || request->command == WIRE_WRITE)
        request->bytes = memory_new(request->length + 1);
    if (request->expected_error != 0 || request->command == WIRE_CACHE)
        return;
    if (request->command == WIRE_READ) {
        request->op = court_read_begin(client->sim, client->era, request->offset, request->length);
    } else if (request->command == WIRE_FLUSH) {
        request->op = court_flush_begin(client->sim, client->era);
    } else {
        request->op = court_write_begin(client->sim, client->era, request->offset, request->length, request->content,
                                        fua, request->bytes);
    }
}

static struct request *request_new(struct client *client)
{
    for (int i = 0; i < CLIENT_DEPTH_MAX; i++) {
        struct request *request = &client->requests[i];
        if (request->used)
            continue;
        *request = (struct request){ .used = true, .handle = ++client->next_handle };
        client->in_flight++;
        return request;
    }
    assert(!"more requests in flight than the profile allows");
    return NULL;
}

CO static int send_request(struct client *client, struct request *request)
{
    uint8_t header[WIRE_REQUEST_BYTES];
    wire_encode(request->flags, request->command, request->handle, request->offset, request->length, header);
    sim_trace(client->sim, "c%d #%" PRIu64 " %s %" PRIu64 "+%" PRIu32 "%s", client->number, request->handle,
              request_names[request->kind], request->offset, request->length,
              (request->flags & WIRE_FLAG_FUA) != 0 ? " fua" : "");
    uint8_t *payload = NULL;
    struct iovec pieces[2] = { { .iov_base = header, .iov_len = sizeof header } };
    if (request->command == WIRE_WRITE) {
        /* The answer may come, and free the request, before the call below returns. */
        payload = request->bytes;
        request->bytes = NULL;
        pieces[1] = (struct iovec){ .iov_base = payload, .iov_len = request->length };
    }
    watch_silence(client, true);
    int code = channel_write(client->cable.channel, pieces, payload != NULL ? 2 : 1);
    free(payload);
    return code;
}

CO static int one_request(struct client *client, const struct request *wanted)
{
    while (client->in_flight >= client->profile.depth && !client->broken)
        if (waitq_wait(&client->change) < 0)
            return -ECANCELED;
    if (client->broken)
        return -EPIPE;
    struct request *request = request_new(client);
    client->sim->client_requests++;
    if (wanted == NULL) {
        pick_request(client, request);
    } else {
        request->kind = wanted->kind;
        request->command = wanted->command;
        request->offset = wanted->offset;
        request->length = wanted->length;
    }
    request_prepare(client, request);
    return send_request(client, request);
}

CO static int wait_all_answered(struct client *client)
{
    while (client->in_flight > 0 && !client->broken)
        if (waitq_wait(&client->change) < 0)
            return -ECANCELED;
    return client->broken ? -EPIPE : 0;
}

/* ---- connections ---- */

/* A WRITE that the server never gets whole. */
CO static void send_half_a_write(struct client *client)
{
    uint8_t bytes[WIRE_REQUEST_BYTES + 8192];
    uint64_t offset = client->disk->zones[0], room = client->disk->size - offset;
    uint32_t length = (uint32_t)(room < 8192 ? room : 8192);
    wire_encode(0, WIRE_WRITE, ++client->next_handle, offset, length, bytes);
    memset(bytes + WIRE_REQUEST_BYTES, 0xee, length);
    struct iovec piece = { .iov_base = bytes,
                           .iov_len = sim_between(client->sim, 1, WIRE_REQUEST_BYTES + (uint64_t)length - 1) };
    sim_trace(client->sim, "c%d sends %zu bytes of a write", client->number, piece.iov_len);
    channel_write(client->cable.channel, &piece, 1);
    if (world_random(client->sim->world, 2) == 0)
        sleep_ns(sim_spread(client->sim, 1000, 100 * NS_PER_MS));
}

CO static void say_goodbye(struct client *client)
{
    uint8_t header[WIRE_REQUEST_BYTES];
    wire_encode(0, WIRE_DISC, ++client->next_handle, 0, 0, header);
    struct iovec piece = { .iov_base = header, .iov_len = sizeof header };
    client->leaving = true;
    sim_trace(client->sim, "c%d DISC, %u in flight", client->number, client->in_flight);
    watch_silence(client, true);
    if (channel_write(client->cable.channel, &piece, 1) == 0)
        while (!client->broken && waitq_wait(&client->change) == 0)
            ;
}

/* Ends the connection in one of the ways that clients have. */
CO static void leave(struct client *client)
{
    struct sim *sim = client->sim;
    uint64_t way = client->calm || client->profile.orderly ? 0 : world_random(sim->world, 6);
    if (way < 3)
        wait_all_answered(client);
    if (!client->broken && way < 4)
        say_goodbye(client);
    if (!client->broken && way == 4)
        send_half_a_write(client);
    client->leaving = true;
    if (!client->broken && world_random(sim->world, 2) == 0)
        channel_sim_cut(client->cable.channel);
}

static void disconnect(struct client *client)
{
    bool server_gone = client->node->state >= NODE_CRASHING;
    client->leaving = true;
    channel_shutdown(client->cable.channel);
    group_join(&client->receiving);
    watch_silence(client, false);
    for (int i = 0; i < CLIENT_DEPTH_MAX; i++) {
        struct request *request = &client->requests[i];
        if (!request->used)
            continue;
        if (request->op != NULL)
            court_op_lost(client->sim, request->op);
        request_free(client, request);
    }
    if (server_gone && client->era != NULL)
        court_era_ended(client->sim, client->era);
    node_disconnect(&client->cable);
    channel_close(client->cable.channel);
    client->cable.channel = NULL;
    client->node = NULL;
    client->era = NULL;
}

static bool export_is_right(struct client *client)
{
    /* HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE */
    const uint16_t needed = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10;
    if (client->wire.size == client->disk->size && (client->wire.flags & needed) == needed)
        return true;
    sim_fail(client->sim, "'%s' has %" PRIu64 " bytes and is offered with %" PRIu64 " and flags %#x",
             client->disk->name, client->disk->size, client->wire.size, client->wire.flags);
    return false;
}

/* 0: connected, and the answers are being taken. */
CO static int connect_to_home(struct client *client)
{
    struct sim *sim = client->sim;
    char refusal[WIRE_REFUSAL_MAX];
    client->node = client->disk->home;
    client->broken = client->leaving = false;
    client->calm = sim->phase == SIM_CALM;
    node_connect(client->node, &client->cable);
    watch_silence(client, true);
    int code = wire_handshake(&client->wire, client->cable.channel, client->disk->name,
                              world_random(sim->world, 2) == 0, world_random(sim->world, 4) == 0, refusal);
    watch_silence(client, false);
    uint64_t epoch = code == 0 ? node_epoch(client->node, client->disk->name) : 0;
    sim_trace(sim, "c%d connects to %s at %s: %d, epoch %" PRIu64 " %s", client->number, client->disk->name,
              client->node->name, code, epoch, refusal);
    if (code == -EBUSY && client->disk->refused_ns == 0 && client->node == client->disk->home)
        client->disk->refused_ns = world_now_ns(sim->world);
    if (code == -EPROTO)
        sim_fail(sim, "client %d of '%s': the server broke the protocol of the handshake", client->number,
                 client->disk->name);
    if (code < 0 || epoch == 0 || !export_is_right(client)) {
        disconnect(client);
        return code < 0 ? code : -EPIPE;
    }
    client->disk->refused_ns = 0;
    if (client->calm)
        client->disk->healed_ns = 0;
    client->epoch = epoch;
    client->era = court_era(sim, client->disk, epoch);
    if (node_has_one_connection(client->node))
        court_era_lost_are_over(sim, client->era);
    group_spawn(&client->receiving, "receive", receive_task, client);
    return 0;
}

static bool may_go_on(const struct client *client)
{
    const struct sim *sim = client->sim;
    if (client->calm)
        return sim->phase == SIM_CALM;
    return sim->phase == SIM_CHAOS && sim->client_requests < sim->client_requests_max;
}

/* Until the next burst, or until it has to leave. */
CO static void think(struct client *client)
{
    uint64_t left_ns = world_random(client->sim->world, client->profile.think_ns + 1);
    while (left_ns > 0 && may_go_on(client)) {
        uint64_t part_ns = left_ns < NS_PER_S ? left_ns : NS_PER_S;
        if (sleep_ns(part_ns) < 0)
            return;
        left_ns -= part_ns;
    }
}

CO static void one_connection(struct client *client)
{
    struct sim *sim = client->sim;
    if (connect_to_home(client) < 0) {
        sleep_ns(sim_between(sim, RETRY_NS / 2, RETRY_NS * 2));
        return;
    }
    bool calm = client->calm;
    uint64_t count = calm ? client->profile.calm_requests
                          : sim_between(sim, client->profile.requests_least, client->profile.requests_most);
    uint64_t burst = 0;
    for (uint64_t i = 0; i < count; i++, burst--) {
        if (burst == 0 && i > 0)
            think(client);
        if (!may_go_on(client))
            break;
        if (burst == 0)
            burst = sim_between(sim, 1, client->profile.burst);
        if (one_request(client, NULL) < 0)
            break;
    }
    if (calm) {
        const struct request flush = { .kind = CLIENT_FLUSH, .command = WIRE_FLUSH };
        client->done =
            wait_all_answered(client) == 0 && one_request(client, &flush) == 0 && wait_all_answered(client) == 0;
    }
    leave(client);
    disconnect(client);
}

static void client_task(void *arg)
{
    struct client *client = arg;
    sleep_ns(world_random(client->sim->world, client->profile.pause_ns + 1));
    while (!client->done && !coroutine_cancelled() && !client->sim->failed) {
        if (client->sim->phase == SIM_SETTLING)
            sleep_ns(RETRY_NS);
        else
            one_connection(client);
        if (client->sim->phase == SIM_CHAOS)
            sleep_ns(world_random(client->sim->world, client->profile.pause_ns + 1));
    }
}

static struct client *client_new(struct sim *sim, struct disk *disk, int number, const struct client_profile *profile)
{
    struct client *client = memory_new(sizeof *client);
    assert(profile->depth >= 1 && profile->depth <= CLIENT_DEPTH_MAX);
    client->sim = sim;
    client->disk = disk;
    client->number = number;
    client->profile = *profile;
    group_init(&client->group, sim->outside);
    group_init(&client->receiving, sim->outside);
    timer_init(&client->silence, sim->outside, on_silence);
    waitq_init(&client->change);
    return client;
}

struct client *client_start(struct sim *sim, struct disk *disk, int number, const struct client_profile *profile)
{
    struct client *client = client_new(sim, disk, number, profile);
    group_spawn(&client->group, "client", client_task, client);
    return client;
}

bool client_done(const struct client *client)
{
    return client->done;
}

CO void client_join(struct client *client)
{
    group_join(&client->group);
}

void client_free(struct client *client)
{
    if (client == NULL)
        return;
    assert(client->group.count == 0);
    timer_cancel(&client->silence);
    free(client);
}

/* ---- the end: everything is read once more ---- */

struct range {
    uint64_t offset, length;
};

struct ranges {
    struct range *items;
    size_t count, capacity;
    struct client *client;
};

static void ranges_add(struct ranges *ranges, uint64_t offset, uint64_t length)
{
    if (ranges->count == ranges->capacity) {
        ranges->capacity = ranges->capacity == 0 ? 16 : ranges->capacity * 2;
        ranges->items = memory_resize(ranges->items, ranges->capacity, sizeof ranges->items[0]);
    }
    ranges->items[ranges->count++] = (struct range){ .offset = offset, .length = length };
}

static void ranges_collect(void *arg, uint64_t offset, uint64_t length)
{
    struct ranges *ranges = arg;
    if (length <= VERIFY_WHOLE_BYTES) {
        ranges_add(ranges, offset, length);
        return;
    }
    ranges_add(ranges, offset, VERIFY_READ_BYTES);
    ranges_add(ranges, offset + length - VERIFY_READ_BYTES, VERIFY_READ_BYTES);
    for (int i = 0; i < 8; i++)
        ranges_add(ranges, offset + world_random(ranges->client->sim->world, length - VERIFY_READ_BYTES),
                   VERIFY_READ_BYTES);
}

CO static int verify_range(struct client *client, const struct range *range)
{
    for (uint64_t at = 0; at < range->length; at += VERIFY_READ_BYTES) {
        uint64_t left = range->length - at;
        struct request read = { .kind = CLIENT_READ, .command = WIRE_READ, .offset = range->offset + at };
        read.length = (uint32_t)(left < VERIFY_READ_BYTES ? left : VERIFY_READ_BYTES);
        int code = one_request(client, &read);
        if (code < 0)
            return code;
    }
    return 0;
}

CO void client_verify(struct sim *sim, struct disk *disk, bool damaged)
{
    const struct client_profile profile = { .depth = 8 };
    const struct request flush = { .kind = CLIENT_FLUSH, .command = WIRE_FLUSH };
    struct client *client = client_new(sim, disk, 99, &profile);
    struct ranges ranges = { .client = client };
    int code = connect_to_home(client);
    if (code < 0) {
        if (!damaged)
            sim_fail(sim, "a fresh server does not serve '%s' although all is healed: %d", disk->name, code);
        client_free(client);
        return;
    }
    client->calm = !damaged;
    checker_touched(disk->checker, ranges_collect, &ranges);
    for (int i = 0; i < 4; i++) {
        uint64_t length = disk->size < 65536 ? disk->size : 65536;
        ranges_add(&ranges, world_random(sim->world, disk->size - length + 1), length);
    }
    for (size_t i = 0; i < ranges.count && code == 0; i++)
        code = verify_range(client, &ranges.items[i]);
    if (code == 0 && wait_all_answered(client) == 0 && one_request(client, &flush) == 0)
        wait_all_answered(client);
    leave(client);
    disconnect(client);
    free(ranges.items);
    client_free(client);
}
