/* A byte channel: a stream in both directions to one peer.
 *
 * At most one coroutine reads and at most one writes at any time (they may be
 * two).  Reading waits for readiness first and then takes what one system call
 * gives, so that many small requests arrive together; there is no read-ahead
 * inside the channel.
 *
 * Implementations: sockets (rt/channel_socket.c), the simulator's pipes
 * (rt/channel_sim.c), later TLS over either. */
#ifndef CAIRN_RT_CHANNEL_H
#define CAIRN_RT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "rt/coroutine.h"

struct channel;
struct error;
struct loop;

/* Who is at the other end.  Two connections with equal `identity` come from one client: what vouches best for who it is
 * stands there, a network address, or on a unix socket the user. */
#define PEER_TEXT_MAX 128
struct peer {
    char name[PEER_TEXT_MAX];     /* for people: "127.0.0.1:4711", "unix uid 1000 pid 17" */
    char identity[PEER_TEXT_MAX]; /* "127.0.0.1", "unix uid 1000" */
};

struct channel_ops {
    ssize_t (*read)(struct channel *channel, const struct iovec *pieces, int count);
    int (*write)(struct channel *channel, const struct iovec *pieces, int count);
    ssize_t (*write_some)(struct channel *channel, const struct iovec *pieces, int count);
    int (*wait_end)(struct channel *channel);
    size_t (*unread)(struct channel *channel);
    void (*shutdown)(struct channel *channel);
    void (*close)(struct channel *channel);
    int (*detach)(struct channel *channel);
};

struct channel {
    const struct channel_ops *ops;
    struct loop *loop;
    struct peer peer;
    bool reading, writing; /* a coroutine is in there */
};

/* Parks until there is something, then reads what there is, at most the sum of the pieces.
 * Bytes read (> 0), 0 at the end of the stream, -ECANCELED, or another -errno (reset, shut down). */
CO ssize_t channel_read(struct channel *channel, const struct iovec *pieces, int count);

/* Parks until the pieces are filled to the last byte.  0; -EPIPE when the stream ended before;
 * or as channel_read. */
CO int channel_read_full(struct channel *channel, void *bytes, size_t length);

/* Sends every byte, parking while the peer does not read.  Any number of pieces. 0 or -errno; after an
 * error, -ECANCELED too, an unknown part has been sent, and the stream is of no more use. */
CO int channel_write(struct channel *channel, const struct iovec *pieces, int count);

/* Sends what the peer's side takes at once.  When that is nothing, parks until more may go and returns 0: so that a
 * caller can look around before each byte that leaves.  Bytes sent (at least one piece must hold any), or -errno as
 * channel_write(). */
CO ssize_t channel_write_some(struct channel *channel, const struct iovec *pieces, int count);

/* Parks until the peer has hung up, whatever it sent before, or the connection is broken; reads nothing.  Counts as the
 * one that reads.  0; -ECANCELED; or another -errno (reset, shut down). */
CO int channel_wait_end(struct channel *channel);

/* Bytes that have arrived and were not read yet. */
size_t channel_unread(struct channel *channel);

/* Ends both directions: coroutines parked in read or write, and later calls, get -ESHUTDOWN.
 * From the channel's own thread, at any time. Harmless twice. */
void channel_shutdown(struct channel *channel);

/* Frees it.  Nobody may be inside. */
void channel_close(struct channel *channel);

/* Takes the socket out (freeing the channel) to give it to another thread's loop; nobody may be
 * inside.  A file descriptor; -ENOTSUP for channels that have none. */
int channel_detach(struct channel *channel);

/* ---- sockets (rt/channel_socket.c) ---- */

/* Takes over `fd`, a connected stream socket: sets it non-blocking and TCP_NODELAY, and names the peer.  How a peer
 * that has vanished is noticed is up to whoever made the socket.  On failure the fd is closed. */
int channel_socket_new(struct loop *loop, int fd, struct channel **ret_channel, struct error *error);

#endif
