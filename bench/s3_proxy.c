/* A store that is far away, for measuring on one machine: a proxy in front of an S3 server on the loopback that delays
 * answers, limits streams, and counts.
 *
 *     s3_proxy --listen PORT (--to HOST:PORT | --sink) [--put-ms N] [--get-ms N] [--mbps N]
 *              [--keep BYTES] [--trace FILE]
 *
 * The answer to a GET or HEAD is held until --get-ms after the request's head
 * arrived, to anything else until --put-ms; each body moves at --mbps (millions
 * of bytes a second) at most, each way.  Zero, the default, leaves a limit out.
 * Heads pass unchanged, so that signatures hold over the Host that the client
 * named.  --sink answers from memory instead of passing on; of bodies beyond
 * --keep bytes it drops what they hold.
 *
 * GET /_proxy/counts tells what was counted, as JSON, POST /_proxy/reset begins
 * anew; at its end, on SIGTERM or SIGINT, the program prints the counts.  The
 * first line on stdout is the port.  --trace writes a line for each request:
 * when its head came, its body was passed on, the server answered, the answer
 * was through (milliseconds), method, kind, bytes each way, status, path.
 *
 * It is a tool for trusted traffic on one machine, and listens on 127.0.0.1 only. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "s3_proxy_connection.h"
#include "s3_proxy_count.h"
#include "s3_proxy_sink.h"

#define EVENTS_AT_ONCE 256

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "s3_proxy: %s%s%s\n", what, why != NULL ? ": " : "", why != NULL ? why : "");
    exit(1);
}

static double read_amount(const char *name, const char *text)
{
    char *end;
    double amount = strtod(text, &end);
    if (end == text || *end != '\0' || !(amount >= 0) || amount > 1e15)
        fail(name, "a number, not negative, is wanted");
    return amount;
}

static struct sockaddr_in read_address(const char *text)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    char host[64] = "";
    unsigned port;
    if (sscanf(text, "%63[^:]:%u", host, &port) != 2 || port == 0 || port > 65535)
        fail("--to", "HOST:PORT is wanted");
    address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &address.sin_addr) != 1)
        fail("--to", "the host must be an IPv4 address or localhost");
    return address;
}

struct options {
    struct settings settings;
    uint16_t port;
};

static struct options read_options(int argc, char **argv)
{
    enum { LISTEN = 1, TO, SINK, PUT_MS, GET_MS, MBPS, KEEP, TRACE };
    static const struct option table[] = {
        { "listen", required_argument, NULL, LISTEN },
        { "to", required_argument, NULL, TO },
        { "sink", no_argument, NULL, SINK },
        { "put-ms", required_argument, NULL, PUT_MS },
        { "get-ms", required_argument, NULL, GET_MS },
        { "mbps", required_argument, NULL, MBPS },
        { "keep", required_argument, NULL, KEEP },
        { "trace", required_argument, NULL, TRACE },
        { NULL, 0, NULL, 0 },
    };
    struct options options = { 0 };
    struct settings *settings = &options.settings;
    int choice;
    while ((choice = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (choice) {
        case LISTEN:
            options.port = (uint16_t)read_amount("--listen", optarg);
            break;
        case TO:
            settings->to = read_address(optarg);
            break;
        case SINK:
            settings->sink = true;
            break;
        case PUT_MS:
            settings->put_ns = (uint64_t)(read_amount("--put-ms", optarg) * 1e6);
            break;
        case GET_MS:
            settings->get_ns = (uint64_t)(read_amount("--get-ms", optarg) * 1e6);
            break;
        case MBPS:
            settings->bytes_per_ns = read_amount("--mbps", optarg) / 1e3;
            break;
        case KEEP:
            sink_keep((uint64_t)read_amount("--keep", optarg));
            break;
        case TRACE:
            if ((settings->trace = fopen(optarg, "we")) == NULL)
                fail(optarg, strerror(errno));
            setvbuf(settings->trace, NULL, _IOLBF, 0);
            break;
        default:
            fail("usage: s3_proxy --listen PORT (--to HOST:PORT | --sink) [--put-ms N] [--get-ms N] [--mbps N] "
                 "[--keep BYTES] [--trace FILE]",
                 NULL);
        }
    }
    if (optind != argc || settings->sink == (settings->to.sin_port != 0))
        fail("either --to HOST:PORT or --sink", "neither more nor less is wanted");
    return options;
}

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("listening on 127.0.0.1", strerror(errno));
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int await_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        fail("signalfd", strerror(errno));
    return fd;
}

static void accept_all(const struct settings *settings, int epoll, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        connection_new(settings, epoll, fd);
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        fail("accepting a connection", strerror(errno));
}

static void serve(const struct settings *settings, int listener, int signals)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    /* These two are told apart from connections by the addresses of their variables. */
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = &listener });
    epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = &signals });
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int count = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait", strerror(errno));
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &signals)
                return;
            if (events[i].data.ptr == &listener)
                accept_all(settings, epoll, listener);
            else
                connection_advance(events[i].data.ptr);
        }
        connections_bury();
    }
}

int main(int argc, char **argv)
{
    struct options options = read_options(argc, argv);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* three for each connection */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int signals = await_signals();
    serve(&options.settings, listen_on(options.port), signals);
    connections_end();
    sink_end();
    count_print(stdout);
    return 0;
}
