/* Where we listen, and how a dead peer is noticed.
 *
 * A client whose host has died sends nothing, not even a reset.  TCP's own
 * probes find out: by default after 60 s of silence, then every 10 s; and what
 * we sent to it, probes included, may stand unanswered for 110 s at most.  So
 * its connection, and with it its hold on a volume, is gone within about 120 s.
 * Where there is such a limit Linux counts the time and not the probes. */
#include "daemon/listen.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/event.h"
#include "base/memory.h"
#include "daemon/config.h"
#include "daemon/systemd.h"
#include "rt/listener.h"

#define LISTENERS_MAX 18 /* systemd.c passes on 16 */

struct listeners {
    struct listener *open[LISTENERS_MAX];
    int count;
    char host[256]; /* by which this host reaches its own TCP socket */
    const struct config *config;
    void (*accepted)(void *arg, int fd);
    void *arg;
};

static void set_option(int fd, int level, int option, uint64_t value)
{
    int number = (int)value;

    /* Fails on unix sockets, which need none of these. */
    (void)setsockopt(fd, level, option, &number, sizeof number);
}

static void notice_the_vanished(int fd, const struct config *config)
{
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, config->keepalive_idle_s > 0);
    if (config->keepalive_idle_s > 0) {
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, config->keepalive_idle_s);
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, config->keepalive_interval_s);
        set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, config->keepalive_probes);
    }
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, config->tcp_user_timeout_ms);
}

static void accept_one(void *arg, int fd)
{
    struct listeners *listeners = arg;

    notice_the_vanished(fd, listeners->config);
    listeners->accepted(listeners->arg, fd);
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return true; /* a unix socket */
}

static void warn_of_strangers(struct event_sink *events, const char *host)
{
    event_raise(events, EVENT_WARNING, host,
                "other hosts can connect, and neither TLS nor passwords protect the disks in this release: keep the "
                "port behind a firewall or a tunnel, or listen on localhost");
}

static void check_host(struct event_sink *events, const char *host)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
    bool all_loopback = true;

    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        all_loopback = all_loopback && is_loopback(at->ai_addr);
    freeaddrinfo(found);
    if (!all_loopback)
        warn_of_strangers(events, host);
}

static int open_inherited(struct loop *loop, struct event_sink *events, struct listeners *listeners,
                          struct error *error)
{
    int count = systemd_sockets();

    for (int i = 0; i < count; i++) {
        union {
            struct sockaddr any;
            struct sockaddr_storage room;
        } address;
        socklen_t length = sizeof address;
        int fd = SYSTEMD_FIRST_FD + i;
        int result = listener_fd(loop, fd, accept_one, listeners, &listeners->open[listeners->count], error);
        if (result < 0)
            return error_context(error, "cannot listen on the socket %d that systemd opened", fd);
        if (getsockname(fd, &address.any, &length) == 0 && !is_loopback(&address.any))
            warn_of_strangers(events, listener_name(listeners->open[listeners->count]));
        listeners->count++;
    }
    return 0;
}

static int open_tcp(struct loop *loop, const struct config *config, struct event_sink *events,
                    struct listeners *listeners, struct error *error)
{
    char port[16];

    snprintf(port, sizeof port, "%u", (unsigned)config->port);
    int result =
        listener_tcp(loop, config->host, port, accept_one, listeners, &listeners->open[listeners->count], error);
    if (result == -EADDRINUSE)
        return error_set(error, EADDRINUSE,
                         "cannot listen on %s port %s: another program does: stop that, or give "
                         "another --port",
                         config->host, port);
    if (result < 0)
        return error_context(error, "cannot listen on %s port %s", config->host, port);
    listeners->count++;
    if (strcmp(config->host, "0.0.0.0") != 0 && strcmp(config->host, "::") != 0)
        snprintf(listeners->host, sizeof listeners->host, "%s", config->host);
    check_host(events, config->host);
    return 0;
}

static int open_unix(struct loop *loop, const struct config *config, struct listeners *listeners, struct error *error)
{
    int result =
        listener_unix(loop, config->unix_path, accept_one, listeners, &listeners->open[listeners->count], error);
    if (result < 0)
        return error_context(error, "cannot listen on the unix socket %s", config->unix_path);
    listeners->count++;
    return 0;
}

int listeners_open(struct loop *loop, const struct config *config, struct event_sink *events,
                   void (*accepted)(void *arg, int fd), void *arg, struct listeners **ret_listeners,
                   struct error *error)
{
    struct listeners *listeners = memory_new(sizeof *listeners);
    bool tcp_asked =
             config->source[SETTING_HOST] >= SOURCE_ENVIRONMENT || config->source[SETTING_PORT] >= SOURCE_ENVIRONMENT,
         unix_asked = config->source[SETTING_UNIX] >= SOURCE_ENVIRONMENT;

    listeners->config = config;
    listeners->accepted = accepted;
    listeners->arg = arg;
    strcpy(listeners->host, "localhost");
    int result = open_inherited(loop, events, listeners, error);
    bool inherited = listeners->count > 0;
    if (result == 0 && config->unix_path != NULL && (!inherited || unix_asked))
        result = open_unix(loop, config, listeners, error);
    if (result == 0 && (tcp_asked || (!inherited && config->unix_path == NULL)))
        result = open_tcp(loop, config, events, listeners, error);
    if (result < 0) {
        listeners_close(listeners);
        return result;
    }
    assert(listeners->count > 0 && listeners->count <= LISTENERS_MAX);
    *ret_listeners = listeners;
    return 0;
}

void listeners_close(struct listeners *listeners)
{
    if (listeners == NULL)
        return;
    for (int i = 0; i < listeners->count; i++)
        listener_close(listeners->open[i]);
    free(listeners);
}

void listeners_describe(const struct listeners *listeners, struct buffer *ret_text)
{
    for (int i = 0; i < listeners->count; i++)
        buffer_printf(ret_text, "%s%s",
                      i == 0                     ? ""
                      : i + 1 < listeners->count ? ", "
                                                 : " and ",
                      listener_name(listeners->open[i]));
}

/* A path inside a URI's query. */
static void put_escaped(struct buffer *text, const char *path)
{
    for (; *path != '\0'; path++)
        if (isalnum((unsigned char)*path) || strchr("/-._~", *path) != NULL)
            buffer_printf(text, "%c", *path);
        else
            buffer_printf(text, "%%%02X", (unsigned char)*path);
}

void listeners_uri(const struct listeners *listeners, struct buffer *ret_text)
{
    for (int i = 0; i < listeners->count; i++) {
        int port = listener_port(listeners->open[i]);
        if (port != 0) {
            bool bare_ipv6 = strchr(listeners->host, ':') != NULL;
            buffer_printf(ret_text, "nbd://%s%s%s:%d/NAME", bare_ipv6 ? "[" : "", listeners->host, bare_ipv6 ? "]" : "",
                          port);
            return;
        }
    }
    char *here = realpath(listener_name(listeners->open[0]), NULL);
    buffer_printf(ret_text, "nbd+unix:///NAME?socket=");
    put_escaped(ret_text, here != NULL ? here : listener_name(listeners->open[0]));
    free(here);
}
