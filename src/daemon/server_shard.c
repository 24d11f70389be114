/* A shard's life: open, serve, drain, save, close, each a call of the main thread.
 *
 * Everything here but shard_each(), shard_hand_over() and shard_hurry()
 * runs on the shard's own thread.  A call is a post there and a post back; posts
 * arrive in order, so a socket that was handed over before a drain is served
 * before it. */
#include "daemon/server_shard.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/memory.h"
#include "daemon/config.h"
#include "daemon/shares.h"
#include "daemon/store_access.h"
#include "daemon/store_url.h"
#include "rt/channel.h"
#include "rt/loop.h"

/* What is left for saving once an operator has lost patience: time for a store that works, not for one that hangs. */
#define HURRIED_SAVE_NS (5 * NS_PER_S)

/* ---- calls ---- */

static void call_answered(void *arg)
{
    struct server_shard *shard = arg;

    shard->busy = false;
    waitq_wake_all(shard->answered);
}

static CO void run_call(void *arg)
{
    struct server_shard *shard = arg;

    shard->result = shard->fn(shard, &shard->error);
    loop_post(shard->common->main_loop, call_answered, shard);
}

static void begin_call(void *arg)
{
    struct server_shard *shard = arg;

    shard->task = group_spawn(&shard->tasks, "call", run_call, shard);
}

CO int shard_each(const struct shard_common *common, int (*fn)(struct server_shard *shard, struct error *error),
                  struct error *error)
{
    struct waitq answered;

    waitq_init(&answered);
    for (int i = 0; i < common->count; i++) {
        struct server_shard *shard = &common->all[i];
        assert(!shard->busy);
        shard->fn = fn;
        shard->result = 0;
        shard->error = (struct error)ERROR_NONE;
        shard->answered = &answered;
        shard->busy = true;
        loop_post(shard->loop, begin_call, shard);
    }
    for (int i = 0; i < common->count; i++)
        while (common->all[i].busy)
            waitq_wait_shielded(&answered);
    for (int i = 0; i < common->count; i++)
        if (common->all[i].result < 0) {
            error_copy(error, &common->all[i].error);
            return common->all[i].result;
        }
    return 0;
}

/* ---- sockets ---- */

struct handed_over {
    struct server_shard *shard;
    int fd;
};

static void receive(void *arg)
{
    struct handed_over handed = *(struct handed_over *)arg;
    struct channel *channel;
    struct error error = ERROR_NONE;

    free(arg);
    if (!handed.shard->accepting)
        close(handed.fd);
    else if (channel_socket_new(handed.shard->loop, handed.fd, &channel, &error) < 0)
        event_raise(handed.shard->common->events, EVENT_WARNING, "a new connection", "%s", error.story);
    else
        nbd_service_accept(handed.shard->service, channel);
}

void shard_hand_over(struct server_shard *shard, int fd)
{
    struct handed_over *handed = memory_new(sizeof *handed);

    handed->shard = shard;
    handed->fd = fd;
    loop_post(shard->loop, receive, handed);
}

/* ---- hurry ---- */

static void give_up_saving(struct timer *timer)
{
    struct server_shard *shard = container_of(timer, struct server_shard, hurry);

    if (shard->saving != NULL)
        task_cancel(shard->saving);
}

static void hurry(void *arg)
{
    struct server_shard *shard = arg;

    if (shard->service == NULL)
        return;
    nbd_service_cut(shard->service);
    shard->save_by_ns = loop_now_ns(shard->loop) + HURRIED_SAVE_NS;
    timer_set(&shard->hurry, shard->save_by_ns);
}

void shard_hurry(struct server_shard *shard)
{
    loop_post(shard->loop, hurry, shard);
}

/* ---- memory ---- */

/* The memory of a shard is its connections' and its volumes'; server.c has made sure that enough of it is left. */
uint64_t shard_memory_at_first(const struct config *config, int shards)
{
    return config->memory_bytes / (unsigned)shards - config->connections * nbd_connection_bytes();
}

static void busy_on_main(void *arg)
{
    struct server_shard *shard = arg;

    shares_busy(shard->common->shares, shard->index, true);
}

static void idle_on_main(void *arg)
{
    struct server_shard *shard = arg;

    shares_busy(shard->common->shares, shard->index, false);
}

static void busy_changed(void *arg, bool busy)
{
    struct server_shard *shard = arg;

    loop_post(shard->common->main_loop, busy ? busy_on_main : idle_on_main, shard);
}

static void settled_on_main(void *arg)
{
    struct server_shard *shard = arg;

    shares_settled(shard->common->shares, shard->index);
}

static void memory_settled(void *arg)
{
    struct server_shard *shard = arg;

    loop_post(shard->common->main_loop, settled_on_main, shard);
}

static void set_memory(void *arg)
{
    struct server_shard *shard = arg;

    if (shard->volumes != NULL)
        volumes_set_memory(shard->volumes, shard->memory_bytes, memory_settled, shard);
}

void shard_set_memory(struct server_shard *shard, uint64_t bytes)
{
    shard->memory_bytes = bytes;
    loop_post(shard->loop, set_memory, shard);
}

/* ---- its life ---- */

/* A volume lives on the shard that its name's hash says. */
static struct nbd_service *home(void *arg, const char *name, size_t name_length)
{
    const struct shard_common *common = arg;
    struct iovec piece = { .iov_base = (char *)name, .iov_len = name_length };
    uint8_t hash[XXH128_BYTES];

    hash_xxh128(&piece, 1, hash);
    unsigned number = (unsigned)hash[0] << 8 | hash[1];
    return common->all[number % (unsigned)common->count].service;
}

static struct volume_settings engine_settings(const struct config *config, int shards)
{
    struct volume_settings settings = volume_settings_default();

    settings.memory_bytes = shard_memory_at_first(config, shards);
    settings.dirty_bytes = config->write_buffer_bytes / (unsigned)shards;
    settings.batch_age_ms = config->batch_age_ms;
    settings.flush_deadline_ms = config->flush_deadline_ms;
    if (store_url_is_s3(config->store)) {
        settings.read_deadline_ms = config->s3_read_timeout_ms;
        settings.uploads = (uint32_t)config->s3_uploads;
    }
    settings.release_grace_ms = config->release_grace_ms;
    settings.lease_ms = config->lease_ms;
    settings.owner_wait_ms = config->owner_wait_ms;
    settings.checkpoint_slots = config->checkpoint_entries;
    settings.checkpoint_bytes = config->checkpoint_bytes;
    return settings;
}

static struct nbd_settings protocol_settings(const struct config *config)
{
    struct nbd_settings settings = nbd_settings_default();

    settings.default_size = config->size_bytes;
    settings.read_only = config->read_only != 0;
    settings.sharing = (enum nbd_sharing)config->sharing;
    settings.handshake_ms = config->handshake_deadline_ms;
    settings.connections = (uint32_t)config->connections;
    settings.requests_in_flight = (uint32_t)config->requests;
    return settings;
}

CO int shard_open(struct server_shard *shard, struct error *error)
{
    const struct shard_common *common = shard->common;
    struct volume_settings engine = engine_settings(common->config, common->count);
    struct nbd_settings protocol = protocol_settings(common->config);
    struct store *store;

    int result = store_access_open(common->store, shard->loop, &store, error);
    if (result < 0)
        return result;
    shard->store = store_count_new(store);
    shard->volumes = volumes_new(shard->loop, shard->store, common->host, common->events, &engine);
    volumes_on_busy(shard->volumes, busy_changed, shard);
    struct nbd_wiring wiring = { .loop = shard->loop,
                                 .volumes = shard->volumes,
                                 .store = shard->store,
                                 .events = common->events,
                                 .home = home,
                                 .arg = (void *)common };
    shard->service = nbd_service_new(&wiring, &protocol);
    timer_init(&shard->hurry, shard->loop, give_up_saving);
    shard->save_by_ns = UINT64_MAX;
    shard->accepting = true;
    return 0;
}

CO int shard_drain(struct server_shard *shard, struct error *error)
{
    /* Half of the time for the clients' last answers, so that the rest is left for saving what they wrote. */
    uint64_t patience_ms = shard->common->config->shutdown_deadline_ms / 2;

    shard->accepting = false;
    nbd_service_drain(shard->service, loop_now_ns(shard->loop) + patience_ms * NS_PER_MS);
    return 0;
}

CO int shard_save(struct server_shard *shard, struct error *error)
{
    uint64_t patience_ms = shard->common->config->shutdown_deadline_ms / 2,
             deadline_ns = loop_now_ns(shard->loop) + patience_ms * NS_PER_MS;

    shard->saving = shard->task;
    int result =
        volumes_shutdown(shard->volumes, deadline_ns < shard->save_by_ns ? deadline_ns : shard->save_by_ns, error);
    shard->saving = NULL;
    shard->saved = result == 0;
    shard->returned = volumes_all_returned(shard->volumes);
    return result;
}

static void count_volume(void *arg, struct volume *volume)
{
    struct shard_counts *counts = arg;

    counts->volumes = memory_resize(counts->volumes, counts->volume_count + 1, sizeof *counts->volumes);
    struct volume_line *line = &counts->volumes[counts->volume_count++];
    snprintf(line->subject, sizeof line->subject, "%s", volume_subject(volume));
    line->size = volume_size(volume);
    line->counts = volume_read_counts(volume);
}

CO int shard_count(struct server_shard *shard, struct error *error)
{
    struct shard_counts *counts = &shard->counts;

    counts->nbd = nbd_service_read_counts(shard->service);
    counts->store = store_count_read(shard->store);
    counts->volume_count = 0;
    volumes_walk(shard->volumes, count_volume, counts);
    return 0;
}

CO int shard_close(struct server_shard *shard, struct error *error)
{
    if (shard->service != NULL) {
        timer_cancel(&shard->hurry);
        shard->accepting = false;
        nbd_service_abort(shard->service);
        nbd_service_free(shard->service);
        shard->service = NULL;
    }
    if (shard->volumes != NULL) {
        if (!shard->saved)
            volumes_abandon(shard->volumes);
        volumes_free(shard->volumes);
        shard->volumes = NULL;
    }
    store_close(shard->store);
    shard->store = NULL;
    free(shard->counts.volumes);
    shard->counts = (struct shard_counts){ 0 };
    return 0;
}
