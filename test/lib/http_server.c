/* See http_server.h.  Threads that block, since nothing here has to be fast.
 *
 * Stopping shuts every socket down, so that each script finds its connection
 * ended; therefore no script may wait for anything but its socket. */
#include "http_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/memory.h"

struct http_identity {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
};

struct connection {
    struct list link;
    pthread_t thread;
    struct http_peer peer;
    bool open;
};

struct http_server {
    http_script *script;
    void *arg;
    gnutls_certificate_credentials_t credentials; /* NULL: plain */
    int listening, port;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    struct list connections;
    unsigned accepted, open, open_max;
    bool stopping;
};

/* ---- identities ---- */

static void must(int result)
{
    if (result < 0) {
        fprintf(stderr, "gnutls: %s\n", gnutls_strerror(result));
        abort();
    }
}

struct http_identity *http_identity_new(const char *name, long from_s, long until_s)
{
    struct http_identity *identity = memory_new(sizeof *identity);
    must(gnutls_x509_privkey_init(&identity->key));
    must(gnutls_x509_privkey_generate(identity->key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                      0));
    gnutls_x509_crt_t certificate;
    must(gnutls_x509_crt_init(&certificate));
    must(gnutls_x509_crt_set_version(certificate, 3));
    must(gnutls_x509_crt_set_serial(certificate, "\1", 1));
    must(gnutls_x509_crt_set_activation_time(certificate, time(NULL) + from_s));
    must(gnutls_x509_crt_set_expiration_time(certificate, time(NULL) + until_s));
    must(gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name)));
    struct in_addr address;
    if (inet_pton(AF_INET, name, &address) == 1)
        must(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, &address, sizeof address,
                                                  GNUTLS_FSAN_SET));
    else
        must(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
                                                  GNUTLS_FSAN_SET));
    must(gnutls_x509_crt_set_basic_constraints(certificate, 1, -1));
    must(gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_CERT_SIGN));
    must(gnutls_x509_crt_set_key(certificate, identity->key));
    must(gnutls_x509_crt_sign2(certificate, certificate, identity->key, GNUTLS_DIG_SHA256, 0));
    identity->certificate = certificate;
    return identity;
}

void http_identity_write(const struct http_identity *identity, const char *path)
{
    gnutls_datum_t text;
    must(gnutls_x509_crt_export2(identity->certificate, GNUTLS_X509_FMT_PEM, &text));
    FILE *file = fopen(path, "w");
    assert(file != NULL);
    fwrite(text.data, 1, text.size, file);
    fclose(file);
    gnutls_free(text.data);
}

void http_identity_free(struct http_identity *identity)
{
    gnutls_x509_crt_deinit(identity->certificate);
    gnutls_x509_privkey_deinit(identity->key);
    free(identity);
}

/* ---- bytes ---- */

static ssize_t receive(struct http_peer *peer, void *bytes, size_t length)
{
    if (peer->tls == NULL)
        return recv(peer->fd, bytes, length, 0);
    ssize_t got;
    do
        got = gnutls_record_recv(peer->tls, bytes, length);
    while (got == GNUTLS_E_INTERRUPTED || got == GNUTLS_E_AGAIN);
    return got;
}

bool http_peer_read(struct http_peer *peer, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = receive(peer, (uint8_t *)bytes + done, length - done);
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

void http_peer_send(struct http_peer *peer, const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        const uint8_t *from = (const uint8_t *)bytes + done;
        ssize_t sent = peer->tls == NULL ? send(peer->fd, from, length - done, MSG_NOSIGNAL)
                                         : gnutls_record_send(peer->tls, from, length - done);
        if (sent <= 0)
            return; /* the client has gone; the script will find out */
        done += (size_t)sent;
    }
}

void http_peer_say(struct http_peer *peer, const char *format, ...)
{
    char text[8192];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    assert(length >= 0 && (size_t)length < sizeof text);
    http_peer_send(peer, text, (size_t)length);
}

void http_peer_reset(struct http_peer *peer)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

void http_peer_until_closed(struct http_peer *peer)
{
    char bytes[4096];
    while (receive(peer, bytes, sizeof bytes) > 0)
        continue;
}

void http_peer_hold(struct http_peer *peer)
{
    struct pollfd waited = { .fd = peer->fd, .events = POLLRDHUP };
    while (poll(&waited, 1, -1) < 0 && errno == EINTR)
        continue;
}

/* ---- requests ---- */

bool http_peer_head(struct http_peer *peer)
{
    peer->head_length = 0;
    free(peer->body);
    peer->body = NULL;
    peer->body_length = 0;
    /* One byte at a time, so that none of the body is taken. */
    for (;;) {
        assert(peer->head_length + 1 < sizeof peer->head);
        if (!http_peer_read(peer, &peer->head[peer->head_length], 1))
            return false;
        peer->head[++peer->head_length] = '\0';
        if (peer->head_length >= 4 && memcmp(&peer->head[peer->head_length - 4], "\r\n\r\n", 4) == 0)
            break;
    }
    return sscanf(peer->head, "%15s %1023s", peer->method, peer->target) == 2;
}

bool http_peer_request(struct http_peer *peer)
{
    if (!http_peer_head(peer))
        return false;
    const char *length = http_peer_header(peer, "Content-Length");
    peer->body_length = length == NULL ? 0 : strtoul(length, NULL, 10);
    peer->body = memory_array(peer->body_length + 1, 1);
    return http_peer_read(peer, peer->body, peer->body_length);
}

const char *http_peer_header(struct http_peer *peer, const char *name)
{
    static _Thread_local char value[4096];
    size_t length = strlen(name);
    for (const char *line = peer->head; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        const char *text = line + length + 1 + strspn(line + length + 1, " ");
        size_t count = strcspn(text, "\r");
        assert(count < sizeof value);
        memcpy(value, text, count);
        value[count] = '\0';
        return value;
    }
    return NULL;
}

/* ---- connections ---- */

static bool handshake(struct http_peer *peer)
{
    gnutls_session_t session;
    must(gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NO_SIGNAL));
    must(gnutls_set_default_priority(session));
    must(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, peer->server->credentials));
    gnutls_transport_set_int(session, peer->fd);
    peer->tls = session;
    int result;
    do
        result = gnutls_handshake(session);
    while (result < 0 && !gnutls_error_is_fatal(result));
    if (result < 0)
        gnutls_alert_send_appropriate(session, result);
    return result == 0;
}

static void *serve(void *arg)
{
    struct connection *connection = arg;
    struct http_peer *peer = &connection->peer;
    struct http_server *server = peer->server;
    if (server->credentials == NULL || handshake(peer))
        server->script(peer);
    if (peer->tls != NULL) {
        gnutls_bye(peer->tls, GNUTLS_SHUT_WR);
        gnutls_deinit(peer->tls);
    }
    free(peer->body);
    pthread_mutex_lock(&server->lock);
    close(peer->fd);
    connection->open = false;
    server->open--;
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static void *listen_on(void *arg)
{
    struct http_server *server = arg;
    for (;;) {
        int fd = accept4(server->listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        struct connection *connection = memory_new(sizeof *connection);
        pthread_mutex_lock(&server->lock);
        connection->peer =
            (struct http_peer){ .server = server, .fd = fd, .number = server->accepted++, .arg = server->arg };
        connection->open = true;
        server->open++;
        if (server->open > server->open_max)
            server->open_max = server->open;
        if (server->stopping)
            shutdown(fd, SHUT_RDWR);
        list_push_back(&server->connections, &connection->link);
        if (pthread_create(&connection->thread, NULL, serve, connection) != 0)
            abort();
        pthread_mutex_unlock(&server->lock);
    }
}

struct http_server *http_server_start(http_script *script, void *arg, const struct http_identity *identity)
{
    struct http_server *server = memory_new(sizeof *server);
    server->script = script;
    server->arg = arg;
    if (identity != NULL) {
        gnutls_x509_crt_t certificate = identity->certificate;
        must(gnutls_certificate_allocate_credentials(&server->credentials));
        must(gnutls_certificate_set_x509_key(server->credentials, &certificate, 1, identity->key));
    }
    pthread_mutex_init(&server->lock, NULL);
    list_init(&server->connections);
    server->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    if (bind(server->listening, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(server->listening, 128) != 0 ||
        getsockname(server->listening, (struct sockaddr *)&address, &length) != 0 ||
        pthread_create(&server->thread, NULL, listen_on, server) != 0)
        abort();
    server->port = ntohs(address.sin_port);
    return server;
}

int http_server_port(const struct http_server *server)
{
    return server->port;
}

unsigned http_server_connections(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    unsigned count = server->accepted;
    pthread_mutex_unlock(&server->lock);
    return count;
}

unsigned http_server_open(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    unsigned count = server->open;
    pthread_mutex_unlock(&server->lock);
    return count;
}

unsigned http_server_open_max(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    unsigned count = server->open_max;
    pthread_mutex_unlock(&server->lock);
    return count;
}

void http_server_stop(struct http_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    list_for_each (node, &server->connections) {
        struct connection *connection = container_of(node, struct connection, link);
        if (connection->open)
            shutdown(connection->peer.fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&server->lock);
    shutdown(server->listening, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listening);
    for (struct list *node; (node = list_pop_front(&server->connections)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, link);
        pthread_join(connection->thread, NULL);
        free(connection);
    }
    if (server->credentials != NULL)
        gnutls_certificate_free_credentials(server->credentials);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
