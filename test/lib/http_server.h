/* A scripted server on 127.0.0.1 for tests of clients: real sockets, plain or TLS, one thread for each connection.
 *
 * A script is a function that reads requests and sends bytes, right or wrong ones; it runs once for each connection
 * that is accepted, and the connection ends when it returns. */
#ifndef CAIRN_TEST_LIB_HTTP_SERVER_H
#define CAIRN_TEST_LIB_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;

struct http_peer {
    struct http_server *server;
    int fd;
    void *tls;       /* NULL: plain */
    unsigned number; /* of the connection, from 0 */
    void *arg;       /* of http_server_start() */
    /* the request that was read last */
    char method[16], target[1024];
    char head[65536]; /* its lines, as they came */
    size_t head_length;
    uint8_t *body;
    size_t body_length;
};

typedef void http_script(struct http_peer *peer);

/* A certificate for 127.0.0.1 that signs itself. */
struct http_identity;
struct http_identity *http_identity_new(const char *name, long from_s, long until_s); /* relative to now */
void http_identity_write(const struct http_identity *identity, const char *path);     /* its certificate, in PEM */
void http_identity_free(struct http_identity *identity);

struct http_server *http_server_start(http_script *script, void *arg, const struct http_identity *identity);
int http_server_port(const struct http_server *server);
unsigned http_server_connections(struct http_server *server); /* accepted so far */
unsigned http_server_open(struct http_server *server);        /* right now */
unsigned http_server_open_max(struct http_server *server);    /* at the same time, so far */
/* Cuts off what is open, and waits for the scripts. */
void http_server_stop(struct http_server *server);

/* False: the connection has ended.  Reads the body too, by Content-Length. */
bool http_peer_request(struct http_peer *peer);
bool http_peer_head(struct http_peer *peer); /* the same without the body */
bool http_peer_read(struct http_peer *peer, void *bytes, size_t length);
/* The value of a header of the last request, in memory of the peer until the next call; NULL: there is none. */
const char *http_peer_header(struct http_peer *peer, const char *name);
void http_peer_send(struct http_peer *peer, const void *bytes, size_t length);
void http_peer_say(struct http_peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void http_peer_reset(struct http_peer *peer);        /* the next close sends RST */
void http_peer_until_closed(struct http_peer *peer); /* reads until the client goes, or the server is stopped */
void http_peer_hold(struct http_peer *peer);         /* the same without reading */

#endif
