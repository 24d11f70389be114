/* The life of a server, told by one coroutine on the main thread:
 *
 *   open     the store is opened and known to be ours, a lock file is made, the
 *            shards are started
 *   serve    sockets are accepted here and handed to the shards in turn; a
 *            connection moves on to the shard of its volume by itself
 *   drain    no new sockets; clients get their answers and are sent away
 *   save     what is unwritten goes to the store; volumes are released
 *   close
 *
 * SIGTERM or SIGINT begins the end.  A second one does not wait for clients any
 * more: they are cut off, and there are a few seconds for saving what they
 * wrote.  A third one ends the process on the spot.  SIGUSR1 prints statistics, and so does the end.
 *
 * The main thread's loop does little: everything that costs happens on the
 * shards, whose threads never wait for this one. */
#include "daemon/server.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "base/text.h"
#include "daemon/config.h"
#include "daemon/host.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/server_shard.h"
#include "daemon/shares.h"
#include "daemon/statistics.h"
#include "daemon/store_access.h"
#include "daemon/store_url.h"
#include "daemon/systemd.h"
#include "rt/loop.h"
#include "rt/shard.h"

/* More threads by default would cut the memory into shares too small for one busy volume. */
#define THREADS_DEFAULT_MOST 4
/* A thread's least share: receive buffers of its connections (a quarter at the default of 256), data objects that are
 * filling and on their way, and a cache worth its name. */
#define MEMORY_PER_THREAD (UINT64_C(128) << 20)

struct server {
    const struct config *config;
    struct event_sink *log;
    struct loop *loop;
    struct store_access *store;
    struct host *host;
    struct shards *threads;
    struct shard_common common;
    struct listeners *listeners;
    unsigned next_shard; /* takes the next socket */
    struct waitq signalled;
    int stop_signals; /* how often we were told to stop */
    bool statistics_wanted;
    bool held; /* registers in the store still name this process: its lock file must stay, to show that it is gone */
    int result;
    struct error error;
};

/* ---- signals: on the main loop's own stack ---- */

static void on_stop(void *arg, int signal)
{
    struct server *server = arg;

    server->stop_signals++;
    if (server->stop_signals == 2) {
        event_raise(server->log, EVENT_WARNING, "cairn",
                    "a second signal: clients are cut off, and saving gets a few seconds; a third signal ends at "
                    "once");
        for (int i = 0; i < server->common.count; i++)
            shard_hurry(&server->common.all[i]);
    }
    if (server->stop_signals == 3) {
        event_raise(server->log, EVENT_ERROR, "cairn",
                    "a third signal: ended at once; writes that no client had flushed may be lost");
        _exit(1);
    }
    waitq_wake_all(&server->signalled);
}

static void on_statistics(void *arg, int signal)
{
    struct server *server = arg;

    server->statistics_wanted = true;
    waitq_wake_all(&server->signalled);
}

static int catch_signals(struct server *server, struct error *error)
{
    signal(SIGPIPE, SIG_IGN); /* a client that is gone is an errno */
    int result = loop_on_signal(server->loop, SIGTERM, on_stop, server, error);
    if (result == 0)
        result = loop_on_signal(server->loop, SIGINT, on_stop, server, error);
    if (result == 0)
        result = loop_on_signal(server->loop, SIGUSR1, on_statistics, server, error);
    return result;
}

/* ---- open ---- */

/* One for each connection, and one for each file of the directory store on its way. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int count_threads(const struct config *config, int *ret_count, struct error *error)
{
    uint64_t room = config->memory_bytes / MEMORY_PER_THREAD;
    cpu_set_t cpus;
    uint64_t count = config->threads;

    if (count > room)
        return error_set(error, EINVAL,
                         "%llu threads need at least %llu MiB of memory: lower --threads, or raise "
                         "--memory",
                         (unsigned long long)count, (unsigned long long)(count * (MEMORY_PER_THREAD >> 20)));
    if (count == 0) {
        count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (uint64_t)CPU_COUNT(&cpus) : 1;
        count = count > THREADS_DEFAULT_MOST ? THREADS_DEFAULT_MOST : count;
        count = count > room ? room : count;
    }
    assert(count > 0);
    if (config->connections * nbd_connection_bytes() + VOLUMES_MEMORY_LEAST > config->memory_bytes / count)
        return error_set(error, EINVAL,
                         "the buffers of %llu connections would leave less than %llu MiB of a thread's memory for "
                         "disks: lower --connections, or raise --memory",
                         (unsigned long long)config->connections, (unsigned long long)(VOLUMES_MEMORY_LEAST >> 20));
    *ret_count = (int)count;
    return 0;
}

static void make_host(struct server *server)
{
    char *directory = host_lock_directory();
    struct host_setup setup = { .lock_directory = directory,
                                .store_is_local = store_url_is_local(server->config->store) };
    struct error trouble;

    host_new(&setup, &server->host, &trouble);
    free(directory);
    if (trouble.code != 0)
        event_raise(server->log, EVENT_WARNING, "lock file",
                    "%s: volumes of a server that crashed on this host will have to be taken with cairn break-lease",
                    trouble.story);
}

static void set_share(void *arg, int index, uint64_t bytes)
{
    struct server *server = arg;
    char size[TEXT_SIZE_MAX];

    text_format_size(bytes, size);
    event_raise(server->log, EVENT_DEBUG, "memory", "thread %d: %s for its volumes", index, size);
    shard_set_memory(&server->common.all[index], bytes);
}

static CO int start_shards(struct server *server, struct error *error)
{
    struct shard_common *common = &server->common;
    int count = 0;

    int result = count_threads(server->config, &count, error);
    if (result == 0)
        result = shards_start(count, &server->threads, error);
    if (result < 0)
        return result;
    common->config = server->config;
    common->store = server->store;
    common->host = server->host;
    common->events = server->log;
    common->main_loop = server->loop;
    common->all = memory_array((size_t)count, sizeof *common->all);
    common->count = count;
    common->shares = shares_new(count, (uint64_t)count * shard_memory_at_first(server->config, count),
                                VOLUMES_MEMORY_LEAST, set_share, server);
    for (int i = 0; i < count; i++) {
        common->all[i].common = common;
        common->all[i].index = i;
        common->all[i].loop = shards_loop(server->threads, i);
        group_init(&common->all[i].tasks, common->all[i].loop);
    }
    return shard_each(common, shard_open, error);
}

/* ---- serve ---- */

static void accepted(void *arg, int fd)
{
    struct server *server = arg;
    unsigned index = server->next_shard++ % (unsigned)server->common.count;

    shard_hand_over(&server->common.all[index], fd);
}

static void announce(struct server *server)
{
    struct buffer store = BUFFER_EMPTY, where = BUFFER_EMPTY, uri = BUFFER_EMPTY;
    char size[TEXT_SIZE_MAX];

    store_access_describe(server->store, &store);
    listeners_describe(server->listeners, &where);
    listeners_uri(server->listeners, &uri);
    text_format_size(server->config->size_bytes, size);
    log_always(server->log, "cairn",
               "serving disks of %s on %s; any export NAME is a disk, a new one has %s; try: nbdinfo '%s'",
               (char *)store.data, (char *)where.data, size, (char *)uri.data);
    buffer_free(&store);
    buffer_free(&where);
    buffer_free(&uri);
}

static CO void print_statistics(struct server *server)
{
    struct error error = ERROR_NONE;

    if (shard_each(&server->common, shard_count, &error) == 0)
        statistics_print(&server->common);
}

static CO void serve(struct server *server)
{
    announce(server);
    systemd_notify("READY=1\nSTATUS=serving");
    while (server->stop_signals == 0) {
        if (server->statistics_wanted) {
            server->statistics_wanted = false;
            print_statistics(server);
            continue;
        }
        waitq_wait_shielded(&server->signalled);
    }
}

/* ---- drain, save, close ---- */

static CO int stop(struct server *server, struct error *error)
{
    systemd_notify("STOPPING=1\nSTATUS=saving what is unwritten");
    event_raise(server->log, EVENT_INFO, "cairn", "stopping: clients are answered and sent away, then all is saved");
    listeners_close(server->listeners);
    server->listeners = NULL;
    shard_each(&server->common, shard_drain, error);
    int result = shard_each(&server->common, shard_save, error);
    for (int i = 0; i < server->common.count; i++)
        server->held |= !server->common.all[i].returned;
    for (int i = 0; i < server->common.count; i++)
        if (server->common.all[i].result < 0)
            event_raise(server->log, EVENT_ERROR, "cairn", "%s", server->common.all[i].error.story);
    print_statistics(server);
    if (result == 0)
        event_raise(server->log, EVENT_INFO, "cairn", "stopped: everything is saved");
    return result;
}

static CO int live(struct server *server, struct error *error)
{
    int result = store_access_new(server->config, server->log, &server->store, error);

    if (result == 0)
        result = store_access_prepare(server->store, server->loop, error);
    if (result < 0)
        return result;
    make_host(server);
    result = start_shards(server, error);
    if (result == 0)
        result = listeners_open(server->loop, server->config, server->log, accepted, server, &server->listeners, error);
    if (result == 0) {
        serve(server);
        result = stop(server, error);
    }
    if (server->common.count > 0)
        shard_each(&server->common, shard_close, NULL);
    return result;
}

static CO void live_task(void *arg)
{
    struct server *server = arg;

    server->result = live(server, &server->error);
    loop_stop(server->loop);
}

int server_run(const struct config *config, struct event_sink *log, struct error *error)
{
    struct server server = { .config = config, .log = log };
    struct group group;

    raise_descriptor_limit();
    int result = loop_uv_new(&server.loop, error);
    if (result < 0)
        return result;
    waitq_init(&server.signalled);
    result = catch_signals(&server, error);
    if (result == 0) {
        group_init(&group, server.loop);
        group_spawn(&group, "server", live_task, &server);
        loop_run(server.loop);
        result = server.result;
        error_copy(error, &server.error);
    }
    if (server.threads != NULL)
        shards_stop(server.threads);
    loop_free(server.loop);
    host_free(server.host, !server.held);
    store_access_free(server.store);
    shares_free(server.common.shares);
    free(server.common.all);
    return result;
}
