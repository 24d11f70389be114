/* Listening sockets: TCP, unix, and inherited ones.
 *
 * A listener may hold several sockets: "localhost" commonly means ::1 and
 * 127.0.0.1, and both must answer.  Each is watched for readiness; then
 * connections are accepted until there are none, a bounded number at a time.
 *
 * What can fail:
 *   making one: told with the address it failed on;
 *   accept(): out of descriptors or memory pauses accepting (the connection
 *   stays in the kernel's queue; spinning on it would help nobody); errors of
 *   the one connection skip it.
 *
 * A unix socket's file is removed at the end, if it is still the one we made:
 * its device and inode are remembered. */
#include "rt/listener.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/loop_internal.h"
#include "rt/loop_uv.h"

/* Addresses of one host name that are listened on. */
#define SOCKETS_MAX 8
/* Connections accepted in one go, so that a flood of them does not shut out those that exist. */
#define ACCEPTS_PER_TURN 64
/* How long accepting pauses when descriptors have run out. */
#define PAUSE_NS (100 * NS_PER_MS)
/* Ports that the kernel may choose for the first address before one is free on the others too. */
#define PORT_ATTEMPTS 8
/* "127.0.0.1:10809", or the path of a unix socket (108 bytes at most), or the host name with the port. */
#define NAME_MAX_BYTES 300

struct accepting {
    uv_poll_t handle;
    struct listener *listener; /* NULL: closed */
    int fd;
};

struct listener {
    struct loop *loop;
    void (*accepted)(void *arg, int fd);
    void *arg;
    struct accepting *sockets[SOCKETS_MAX];
    int count;
    int port;
    char name[NAME_MAX_BYTES];
    struct timer resume;
    char *path; /* of a unix socket that we made */
    dev_t device;
    ino_t inode;
};

/* ---- accepting ---- */

static void became_ready(uv_poll_t *handle, int status, int events);

static void watch(struct listener *self, bool on)
{
    for (int i = 0; i < self->count; i++) {
        uv_poll_t *handle = &self->sockets[i]->handle;
        int result = on ? uv_poll_start(handle, UV_READABLE, became_ready) : uv_poll_stop(handle);
        assert(result == 0);
        (void)result;
    }
}

static void resume(struct timer *timer)
{
    watch(container_of(timer, struct listener, resume), true);
}

static void pause_accepting(struct listener *self)
{
    watch(self, false);
    timer_set(&self->resume, loop_now_ns(self->loop) + PAUSE_NS);
}

static bool is_shortage(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
}

static void became_ready(uv_poll_t *handle, int status, int events)
{
    struct accepting *accepting = container_of(handle, struct accepting, handle);
    /* The callback may close the listener. */
    for (int i = 0; i < ACCEPTS_PER_TURN && accepting->listener != NULL; i++) {
        struct listener *self = accepting->listener;
        int fd = accept4(accepting->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            self->accepted(self->arg, fd);
            continue;
        }
        if (is_shortage(errno))
            status = -errno;
        if (is_shortage(errno) || errno == EAGAIN)
            break;
    }
    /* After an error libuv has stopped the watch. */
    if (status < 0 && accepting->listener != NULL)
        pause_accepting(accepting->listener);
}

/* ---- making ---- */

static void accepting_closed(uv_handle_t *handle)
{
    free(container_of((uv_poll_t *)handle, struct accepting, handle));
}

void listener_close(struct listener *self)
{
    if (self == NULL)
        return;
    timer_cancel(&self->resume);
    for (int i = 0; i < self->count; i++) {
        struct accepting *accepting = self->sockets[i];
        accepting->listener = NULL;
        uv_close((uv_handle_t *)&accepting->handle, accepting_closed);
        close(accepting->fd);
    }
    struct stat status;
    if (self->path != NULL && lstat(self->path, &status) == 0 && status.st_dev == self->device &&
        status.st_ino == self->inode)
        unlink(self->path);
    self->loop->users--;
    free(self->path);
    free(self);
}

static struct listener *listener_new(struct loop *loop, void (*accepted)(void *arg, int fd), void *arg)
{
    struct listener *self = memory_new(sizeof *self);
    self->loop = loop;
    self->accepted = accepted;
    self->arg = arg;
    timer_init(&self->resume, loop, resume);
    loop->users++;
    return self;
}

/* Takes over `fd`, bound or listening already; on failure it is closed. */
static int add_socket(struct listener *self, int fd, const char *what, struct error *error)
{
    assert(self->count < SOCKETS_MAX);
    int result = listen(fd, SOMAXCONN) == 0 ? 0 : -errno;
    struct accepting *accepting = memory_new(sizeof *accepting);
    if (result == 0)
        result = uv_poll_init(loop_uv_handle(self->loop), &accepting->handle, fd); /* sets it non-blocking */
    if (result != 0) {
        free(accepting);
        close(fd);
        return error_set_errno(error, -result, "listen on %s", what);
    }
    accepting->listener = self;
    accepting->fd = fd;
    self->sockets[self->count++] = accepting;
    return 0;
}

static void describe(const struct sockaddr *address, socklen_t length, char text[NAME_MAX_BYTES], int *ret_port)
{
    char host[64], port[8];
    int result = getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    if (result != 0) {
        snprintf(text, NAME_MAX_BYTES, "a socket");
        return;
    }
    snprintf(text, NAME_MAX_BYTES, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    *ret_port = atoi(port);
}

static void set_port(struct sockaddr *address, int port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
}

/* Binds one address and learns its port.  Further addresses of a listener share the port of the first. */
static int listen_on(struct listener *self, const struct addrinfo *info, struct error *error)
{
    char text[NAME_MAX_BYTES];
    int port = 0, yes = 1;
    if (self->port != 0)
        set_port(info->ai_addr, self->port);
    describe(info->ai_addr, info->ai_addrlen, text, &port);
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, info->ai_protocol);
    if (fd < 0)
        return error_set_errno(error, errno, "listen on %s", text);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0) {
        int code = errno;
        close(fd);
        return error_set_errno(error, code, "listen on %s", text);
    }
    struct sockaddr_storage bound = { 0 };
    socklen_t length = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &length) == 0)
        describe((struct sockaddr *)&bound, length, text, &port);
    int result = add_socket(self, fd, text, error);
    if (result != 0)
        return result;
    self->port = port;
    if (self->count == 1)
        memcpy(self->name, text, sizeof self->name);
    return 0;
}

/* An address that this host does not have, as ::1 where IPv6 is off; of no account if another one works. */
static bool is_absent(int result)
{
    return result == -EADDRNOTAVAIL || result == -EAFNOSUPPORT;
}

static int listen_on_all(struct listener *self, const struct addrinfo *all, struct error *error)
{
    struct error absent = ERROR_NONE;
    for (const struct addrinfo *info = all; info != NULL && self->count < SOCKETS_MAX; info = info->ai_next) {
        struct error failure = ERROR_NONE;
        int result = listen_on(self, info, &failure);
        if (is_absent(result))
            absent = failure;
        else if (result != 0)
            return error_copy(error, &failure);
    }
    return self->count > 0 ? 0 : error_copy(error, &absent);
}

int listener_tcp(struct loop *loop, const char *host, const char *port, void (*accepted)(void *arg, int fd), void *arg,
                 struct listener **ret_listener, struct error *error)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *all;
    if (host != NULL && (host[0] == '\0' || strcmp(host, "*") == 0))
        host = NULL;
    int result = getaddrinfo(host, port, &hints, &all);
    if (result != 0)
        return error_set(error, result == EAI_SYSTEM ? errno : EINVAL, "listen on host '%s' port '%s': %s",
                         host == NULL ? "*" : host, port, gai_strerror(result));
    struct listener *self = NULL;
    int attempts = strcmp(port, "0") == 0 ? PORT_ATTEMPTS : 1;
    do {
        listener_close(self);
        self = listener_new(loop, accepted, arg);
        result = listen_on_all(self, all, error);
    } while (result == -EADDRINUSE && --attempts > 0);
    freeaddrinfo(all);
    if (result != 0) {
        listener_close(self);
        return result;
    }
    if (self->count > 1)
        snprintf(self->name, sizeof self->name, "%.255s:%d", host == NULL ? "*" : host, self->port);
    watch(self, true);
    *ret_listener = self;
    return 0;
}

/* ---- unix sockets ---- */

/* 0: there is no such file, or there was a socket that nobody listens on. */
static int make_room(const struct sockaddr_un *address, struct error *error)
{
    const char *path = address->sun_path;
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT ? 0 : error_set_errno(error, errno, "listen on %s", path);
    if (!S_ISSOCK(status.st_mode))
        return error_set(error, EADDRINUSE, "listen on %s: a file that is not a socket is in the way", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_errno(error, errno, "listen on %s", path);
    int result = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
    close(fd);
    if (result != ECONNREFUSED)
        return error_set(error, EADDRINUSE, "listen on %s: another server is listening there", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set_errno(error, errno, "remove the stale socket %s", path);
    return 0;
}

static int bind_unix(const struct sockaddr_un *address, struct error *error)
{
    int result = make_room(address, error);
    if (result != 0)
        return result;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set_errno(error, errno, "listen on %s", address->sun_path);
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) != 0) {
        int code = errno;
        close(fd);
        return error_set_errno(error, code, "listen on %s", address->sun_path);
    }
    return fd;
}

int listener_unix(struct loop *loop, const char *path, void (*accepted)(void *arg, int fd), void *arg,
                  struct listener **ret_listener, struct error *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return error_set(error, ENAMETOOLONG, "listen on %s: a socket's path has at most %zu bytes", path,
                         sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path));
    int fd = bind_unix(&address, error);
    if (fd < 0)
        return fd;
    struct listener *self = listener_new(loop, accepted, arg);
    struct stat status;
    if (lstat(path, &status) == 0) {
        self->path = memory_string(path);
        self->device = status.st_dev;
        self->inode = status.st_ino;
    }
    snprintf(self->name, sizeof self->name, "%s", path);
    int result = add_socket(self, fd, path, error);
    if (result != 0) {
        listener_close(self);
        return result;
    }
    watch(self, true);
    *ret_listener = self;
    return 0;
}

int listener_fd(struct loop *loop, int fd, void (*accepted)(void *arg, int fd), void *arg,
                struct listener **ret_listener, struct error *error)
{
    struct sockaddr_storage address = { 0 };
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        int code = errno;
        close(fd);
        return error_set_errno(error, code, "listen on inherited descriptor %d", fd);
    }
    struct listener *self = listener_new(loop, accepted, arg);
    if (address.ss_family == AF_UNIX) {
        const struct sockaddr_un *name = (const struct sockaddr_un *)&address;
        snprintf(self->name, sizeof self->name, "%.*s", (int)sizeof name->sun_path, name->sun_path);
    } else {
        describe((struct sockaddr *)&address, length, self->name, &self->port);
    }
    int result = add_socket(self, fd, self->name, error);
    if (result != 0) {
        listener_close(self);
        return result;
    }
    watch(self, true);
    *ret_listener = self;
    return 0;
}

const char *listener_name(const struct listener *listener)
{
    return listener->name;
}

int listener_port(const struct listener *listener)
{
    return listener->port;
}
