/* Channels over stream sockets, TCP and unix.
 *
 * Reading waits for readiness and then makes one system call, so that what a
 * client sent meanwhile arrives together.  When that call filled all that was
 * asked for there is probably more, and the next read tries at once.  Writing
 * tries at once and waits only when the kernel's buffer is full.  A request
 * that comes alone so costs one wait, one receive, one send.
 *
 * Readiness is level-triggered and what is watched changes lazily, because each
 * change costs system calls: the watch for reading stays while its reader works
 * on what it got, and ends only when readiness is reported and nobody waits for
 * it; likewise for writing.
 *
 *     watched    what the poll handle watches: UV_READABLE | UV_WRITABLE | UV_DISCONNECT
 *     ready      what was last reported and not yet found wrong by EAGAIN
 *
 * The poll handle lives apart from the channel: libuv needs it for a while
 * after it is closed.
 *
 * What can fail: everything that a peer or the network can do shows as an error
 * of recvmsg() or sendmsg() and is handed on. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/list.h"
#include "base/memory.h"
#include "rt/channel.h"
#include "rt/loop_internal.h"
#include "rt/loop_uv.h"

/* Pieces handed to one sendmsg(): what Linux takes at most. */
#define PIECES_MAX IOV_MAX
/* Pieces copied to continue in the middle of one: 4 KiB of stack. */
#define COPIED_PIECES 256
/* Reads in a row without a wait, after which other connections get their turn. */
#define EAGER_READS 16

struct socket_poll {
    uv_poll_t handle;
    struct socket_channel *channel; /* NULL: closed */
};

struct socket_channel {
    struct channel channel;
    struct socket_poll *poll;
    int fd;
    int watched;
    int ready;
    int eager;
    bool shut;
    bool full; /* the last write_some() left something over: readiness comes before the next */
    struct coroutine *reader, *writer, *listener; /* parked for readiness: to read, to write, for the end */
};

static const struct channel_ops socket_ops;

static struct socket_channel *socket_of(struct channel *channel)
{
    assert(channel->ops == &socket_ops);
    return container_of(channel, struct socket_channel, channel);
}

/* ---- readiness ---- */

static void became_ready(uv_poll_t *handle, int status, int events);

static void watch(struct socket_channel *self, int events)
{
    if (self->watched == events)
        return;
    self->watched = events;
    int result =
        events == 0 ? uv_poll_stop(&self->poll->handle) : uv_poll_start(&self->poll->handle, events, became_ready);
    assert(result == 0);
    (void)result;
}

static void became_ready(uv_poll_t *handle, int status, int events)
{
    struct socket_channel *self = container_of(handle, struct socket_poll, handle)->channel;
    if (self == NULL)
        return;
    if (status < 0) {
        /* libuv has stopped the watch; the next system call tells the error. */
        self->watched = 0;
        events = UV_READABLE | UV_WRITABLE | UV_DISCONNECT;
    }
    self->ready |= events;
    int unwanted = 0;
    if (self->reader != NULL && (events & UV_READABLE) != 0)
        coroutine_wake(self->reader);
    else
        unwanted |= UV_READABLE;
    if (self->writer != NULL && (events & UV_WRITABLE) != 0)
        coroutine_wake(self->writer);
    else
        unwanted |= UV_WRITABLE;
    if (self->listener != NULL && (events & UV_DISCONNECT) != 0)
        coroutine_wake(self->listener);
    else
        unwanted |= UV_DISCONNECT;
    if (self->watched != 0)
        watch(self, self->watched & ~(unwanted & events));
}

static int wait_ready(struct socket_channel *self, int event, struct coroutine **waiter)
{
    self->ready &= ~event;
    watch(self, self->watched | event);
    *waiter = coroutine_self();
    int result = 0;
    while (result == 0 && (self->ready & event) == 0 && !self->shut)
        result = coroutine_park();
    *waiter = NULL;
    return self->shut ? -ESHUTDOWN : result;
}

/* ---- reading ---- */

static ssize_t receive(int fd, const struct iovec *pieces, int count)
{
    if (count == 1)
        return recv(fd, pieces->iov_base, pieces->iov_len, MSG_DONTWAIT);
    struct msghdr message = { .msg_iov = (struct iovec *)pieces,
                              .msg_iovlen = (size_t)(count < PIECES_MAX ? count : PIECES_MAX) };
    return recvmsg(fd, &message, MSG_DONTWAIT);
}

static ssize_t socket_read(struct channel *channel, const struct iovec *pieces, int count)
{
    struct socket_channel *self = socket_of(channel);
    size_t wanted = 0;
    for (int i = 0; i < count && i < PIECES_MAX; i++)
        wanted += pieces[i].iov_len;
    if (self->eager >= EAGER_READS)
        self->ready &= ~UV_READABLE;
    for (;;) {
        if (self->shut)
            return -ESHUTDOWN;
        if (coroutine_cancelled())
            return -ECANCELED;
        if ((self->ready & UV_READABLE) == 0) {
            self->eager = 0;
            int result = wait_ready(self, UV_READABLE, &self->reader);
            if (result != 0)
                return result;
        }
        ssize_t got = receive(self->fd, pieces, count);
        if (got >= 0) {
            self->eager++;
            if ((size_t)got < wanted)
                self->ready &= ~UV_READABLE;
            return got;
        }
        if (errno == EAGAIN)
            self->ready &= ~UV_READABLE;
        else if (errno != EINTR)
            return -errno;
    }
}

/* ---- writing ---- */

/* Bytes of the pieces that are still to be sent. */
struct rest {
    const struct iovec *pieces;
    int count;
    size_t skip; /* bytes of the first that are sent */
};

static void advance(struct rest *rest, size_t sent)
{
    sent += rest->skip;
    while (rest->count > 0 && sent >= rest->pieces->iov_len) {
        sent -= rest->pieces->iov_len;
        rest->pieces++;
        rest->count--;
    }
    rest->skip = sent;
    assert(rest->count > 0 || sent == 0);
}

static ssize_t send_pieces(int fd, const struct iovec *pieces, int count, bool more)
{
    struct msghdr message = { .msg_iov = (struct iovec *)pieces, .msg_iovlen = (size_t)count };
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

/* Continues in the middle of a piece; apart from send_some() for the sake of its large frame. */
static __attribute__((noinline)) ssize_t send_from_middle(int fd, const struct rest *rest, size_t *ret_asked)
{
    struct iovec copied[COPIED_PIECES];
    int count = rest->count < COPIED_PIECES ? rest->count : COPIED_PIECES;
    memcpy(copied, rest->pieces, (size_t)count * sizeof *copied);
    copied[0].iov_base = (char *)copied[0].iov_base + rest->skip;
    copied[0].iov_len -= rest->skip;
    *ret_asked = 0;
    for (int i = 0; i < count; i++)
        *ret_asked += copied[i].iov_len;
    return send_pieces(fd, copied, count, count < rest->count);
}

static ssize_t send_some(int fd, const struct rest *rest, size_t *ret_asked)
{
    if (rest->skip > 0)
        return send_from_middle(fd, rest, ret_asked);
    int count = rest->count < PIECES_MAX ? rest->count : PIECES_MAX;
    *ret_asked = 0;
    for (int i = 0; i < count; i++)
        *ret_asked += rest->pieces[i].iov_len;
    return send_pieces(fd, rest->pieces, count, count < rest->count);
}

/* What goes out without waiting: how much, 0 for nothing, or -errno. *ret_full: the kernel has no room for more. */
static ssize_t send_now(const struct socket_channel *self, const struct rest *rest, bool *ret_full)
{
    for (;;) {
        if (self->shut)
            return -ESHUTDOWN;
        if (coroutine_cancelled())
            return -ECANCELED;
        size_t asked;
        ssize_t sent = send_some(self->fd, rest, &asked);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return -errno;
        *ret_full = sent < 0 || (size_t)sent < asked;
        return sent < 0 ? 0 : sent;
    }
}

static int socket_write(struct channel *channel, const struct iovec *pieces, int count)
{
    struct socket_channel *self = socket_of(channel);
    struct rest rest = { .pieces = pieces, .count = count };
    advance(&rest, 0);
    while (rest.count > 0) {
        bool full;
        ssize_t sent = send_now(self, &rest, &full);
        if (sent < 0)
            return (int)sent;
        if (sent > 0)
            advance(&rest, (size_t)sent);
        int result = full ? wait_ready(self, UV_WRITABLE, &self->writer) : 0;
        if (result != 0)
            return result;
    }
    return 0;
}

static ssize_t socket_write_some(struct channel *channel, const struct iovec *pieces, int count)
{
    struct socket_channel *self = socket_of(channel);
    struct rest rest = { .pieces = pieces, .count = count };
    while (!self->full) {
        ssize_t sent = send_now(self, &rest, &self->full);
        if (sent != 0)
            return sent;
    }
    int result = wait_ready(self, UV_WRITABLE, &self->writer);
    self->full = false;
    return result;
}

/* ---- ending ---- */

static int socket_wait_end(struct channel *channel)
{
    struct socket_channel *self = socket_of(channel);
    if (self->shut)
        return -ESHUTDOWN;
    int result = wait_ready(self, UV_DISCONNECT, &self->listener);
    if (!self->shut)
        watch(self, self->watched & ~UV_DISCONNECT);
    return result;
}

static size_t socket_unread(struct channel *channel)
{
    int bytes = 0;
    return ioctl(socket_of(channel)->fd, FIONREAD, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

static void poll_closed(uv_handle_t *handle)
{
    free(container_of((uv_poll_t *)handle, struct socket_poll, handle));
}

static void socket_shutdown(struct channel *channel)
{
    struct socket_channel *self = socket_of(channel);
    if (self->shut)
        return;
    self->shut = true;
    shutdown(self->fd, SHUT_RDWR);
    if (self->reader != NULL)
        coroutine_wake(self->reader);
    if (self->writer != NULL)
        coroutine_wake(self->writer);
    if (self->listener != NULL)
        coroutine_wake(self->listener);
}

static int socket_detach(struct channel *channel)
{
    struct socket_channel *self = socket_of(channel);
    int fd = self->fd;
    self->poll->channel = NULL;
    uv_close((uv_handle_t *)&self->poll->handle, poll_closed);
    channel->loop->users--;
    free(self);
    return fd;
}

static void socket_close(struct channel *channel)
{
    close(socket_detach(channel));
}

static const struct channel_ops socket_ops = {
    .read = socket_read,
    .write = socket_write,
    .write_some = socket_write_some,
    .wait_end = socket_wait_end,
    .unread = socket_unread,
    .shutdown = socket_shutdown,
    .close = socket_close,
    .detach = socket_detach,
};

/* ---- making ---- */

static void name_unix_peer(int fd, struct peer *peer)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        snprintf(peer->name, sizeof peer->name, "unix");
        snprintf(peer->identity, sizeof peer->identity, "unix");
        return;
    }
    snprintf(peer->name, sizeof peer->name, "unix uid %u pid %d", (unsigned)credentials.uid, (int)credentials.pid);
    snprintf(peer->identity, sizeof peer->identity, "unix uid %u", (unsigned)credentials.uid);
}

/* An IPv4 peer of an IPv6 socket gets its IPv4 name. */
static void unmap_address(struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in6 wide;
    if (address->ss_family != AF_INET6)
        return;
    memcpy(&wide, address, sizeof wide);
    if (!IN6_IS_ADDR_V4MAPPED(&wide.sin6_addr))
        return;
    struct sockaddr_in narrow = { .sin_family = AF_INET, .sin_port = wide.sin6_port };
    memcpy(&narrow.sin_addr, &wide.sin6_addr.s6_addr[12], sizeof narrow.sin_addr);
    memcpy(address, &narrow, sizeof narrow);
    *length = sizeof narrow;
}

static int name_peer(int fd, struct peer *peer, bool *ret_tcp, struct error *error)
{
    struct sockaddr_storage address = { 0 };
    socklen_t length = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &length) != 0)
        return error_set_errno(error, errno, "name the peer of a connection");
    *ret_tcp = address.ss_family == AF_INET || address.ss_family == AF_INET6;
    if (!*ret_tcp) {
        name_unix_peer(fd, peer);
        return 0;
    }
    unmap_address(&address, &length);
    char host[64], port[8];
    int result = getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                             NI_NUMERICHOST | NI_NUMERICSERV);
    if (result != 0)
        return error_set(error, EINVAL, "name the peer of a connection: %s", gai_strerror(result));
    snprintf(peer->name, sizeof peer->name, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    snprintf(peer->identity, sizeof peer->identity, "%s", host);
    return 0;
}

/* A reply should not wait for the next one. */
static void send_at_once(int fd)
{
    int yes = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

int channel_socket_new(struct loop *loop, int fd, struct channel **ret_channel, struct error *error)
{
    struct peer peer;
    bool tcp = false;
    int result = name_peer(fd, &peer, &tcp, error);
    if (result != 0)
        goto failed;
    if (tcp)
        send_at_once(fd);
    struct socket_poll *poll = memory_new(sizeof *poll);
    result = uv_poll_init(loop_uv_handle(loop), &poll->handle, fd); /* sets it non-blocking */
    if (result != 0) {
        free(poll);
        error_set_errno(error, -result, "watch the socket of %s", peer.name);
        goto failed;
    }
    struct socket_channel *self = memory_new(sizeof *self);
    self->channel = (struct channel){ .ops = &socket_ops, .loop = loop, .peer = peer };
    self->poll = poll;
    self->fd = fd;
    poll->channel = self;
    loop->users++;
    *ret_channel = &self->channel;
    return 0;
failed:
    close(fd);
    return result;
}
