/* The least that a server of NBD can do: for each request one system call that
 * receives and one that sends, both blocking, and the copy of the data between
 * the socket and memory.
 *
 *     bare_nbd_server PATH BYTES            a unix socket
 *     bare_nbd_server HOST:PORT BYTES
 *
 * It keeps nothing, checks nothing and has one thread for each connection.  What
 * it costs beside another server, in the same run, is what the machine and the
 * kernel cost any of them (hotpath.py --bare). */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/codec.h"

#define RECEIVE_BYTES ((1u << 20) + NBD_REQUEST_BYTES)

static uint8_t *disk;
static uint64_t disk_bytes;

static void give_up(const char *what)
{
    fprintf(stderr, "bare_nbd_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the socket ---- */

static bool receive_all(int fd, void *bytes, size_t length)
{
    return length == 0 || recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

static bool send_all(int fd, struct iovec *pieces, size_t count)
{
    size_t at = 0;
    while (at < count) {
        struct msghdr message = { .msg_iov = pieces + at, .msg_iovlen = count - at };
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        while (at < count && (size_t)sent >= pieces[at].iov_len)
            sent -= (ssize_t)pieces[at++].iov_len;
        if (at < count) {
            pieces[at].iov_base = (uint8_t *)pieces[at].iov_base + sent;
            pieces[at].iov_len -= (size_t)sent;
        }
    }
    return true;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        give_up(path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 64) < 0)
        give_up(path);
    return fd;
}

static int listen_tcp(const char *host, const char *port)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST };
    struct addrinfo *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        give_up(host);
    int fd = socket(found->ai_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 64) < 0)
        give_up(host);
    freeaddrinfo(found);
    return fd;
}

/* ---- NBD ---- */

static bool answer_option(int fd, uint32_t option, uint32_t reply, void *data, uint32_t length)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    nbd_encode_option_reply(head, option, reply, length);
    struct iovec pieces[2] = { { head, sizeof head }, { data, length } };
    return send_all(fd, pieces, 2);
}

/* Every option but GO is unknown here, and GO gets the one disk whatever it names. */
static bool shake_hands(int fd)
{
    uint8_t greeting[NBD_GREETING_BYTES], flags[NBD_CLIENT_FLAGS_BYTES], head[NBD_OPTION_BYTES], data[65536];
    nbd_encode_greeting(greeting, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    struct iovec piece = { greeting, sizeof greeting };
    if (!send_all(fd, &piece, 1) || !receive_all(fd, flags, sizeof flags))
        return false;
    for (;;) {
        struct nbd_option option;
        if (!receive_all(fd, head, sizeof head) || nbd_decode_option(head, &option) < 0 ||
            option.length > sizeof data || !receive_all(fd, data, option.length))
            return false;
        if (option.type == NBD_OPT_GO) {
            uint8_t info[NBD_INFO_EXPORT_BYTES];
            nbd_encode_info_export(info, disk_bytes,
                                   NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN);
            return answer_option(fd, option.type, NBD_REP_INFO, info, sizeof info) &&
                   answer_option(fd, option.type, NBD_REP_ACK, NULL, 0);
        }
        if (!answer_option(fd, option.type, NBD_REP_ERR_UNSUP, NULL, 0))
            return false;
    }
}

/* Answers all requests of `received` bytes that are there whole; *ret_taken: how much of it that was. */
static bool answer_requests(int fd, const uint8_t *bytes, size_t received, size_t *ret_taken)
{
    struct nbd_request wire;
    for (*ret_taken = 0; received - *ret_taken >= NBD_REQUEST_BYTES;) {
        const uint8_t *at = bytes + *ret_taken;
        if (nbd_decode_request(at, &wire) < 0 || wire.command == NBD_CMD_DISC || wire.length > RECEIVE_BYTES ||
            wire.offset > disk_bytes || wire.length > disk_bytes - wire.offset)
            return false;
        size_t payload = wire.command == NBD_CMD_WRITE ? wire.length : 0;
        if (received - *ret_taken < NBD_REQUEST_BYTES + payload)
            return true;
        memcpy(disk + wire.offset, at + NBD_REQUEST_BYTES, payload);
        *ret_taken += NBD_REQUEST_BYTES + payload;
        uint8_t head[NBD_SIMPLE_REPLY_BYTES];
        nbd_encode_simple_reply(head, NBD_SUCCESS, wire.cookie);
        struct iovec pieces[2] = { { head, sizeof head }, { disk + wire.offset, wire.length } };
        if (!send_all(fd, pieces, wire.command == NBD_CMD_READ ? 2 : 1))
            return false;
    }
    return true;
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    uint8_t *bytes = malloc(RECEIVE_BYTES);
    size_t have = 0, taken;
    if (bytes != NULL && shake_hands(fd)) {
        for (ssize_t got; (got = recv(fd, bytes + have, RECEIVE_BYTES - have, 0)) > 0;) {
            have += (size_t)got;
            if (!answer_requests(fd, bytes, have, &taken))
                break;
            memmove(bytes, bytes + taken, have - taken);
            have -= taken;
        }
    }
    free(bytes);
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bare_nbd_server PATH|HOST:PORT BYTES\n");
        return 2;
    }
    disk_bytes = strtoull(argv[2], NULL, 10);
    disk = malloc(disk_bytes);
    if (disk == NULL)
        give_up("the disk's memory");
    memset(disk, 1, disk_bytes);
    char *colon = strrchr(argv[1], ':');
    if (colon != NULL)
        *colon = '\0';
    int listener = colon == NULL ? listen_unix(argv[1]) : listen_tcp(argv[1], colon + 1);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0 || pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
            give_up("a connection");
        pthread_detach(thread);
    }
}
