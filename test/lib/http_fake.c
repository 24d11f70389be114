/* A small HTTP server for unit tests: see http_fake.h.
 *
 * One thread accepts, and one more for each connection reads a request, asks
 * the test's function, answers and closes.  Stopping shuts all sockets down, so
 * that every thread sees an end of its stream, and joins them. */
#include "http_fake.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

#define CONNECTIONS_MAX 512 /* of one test */
#define REQUEST_MAX 65536

struct connection {
    struct http_fake *fake;
    pthread_t thread;
    int fd;
};

/* Of all servers, so that what the test and their functions share needs no other. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct http_fake {
    http_fake_answer *answer;
    void *arg;
    int listener;
    pthread_t accepting;
    bool stopping;
    unsigned requests;
    struct connection connections[CONNECTIONS_MAX];
    size_t count;
    char url[64];
};

static bool send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t part = send(fd, bytes, length, MSG_NOSIGNAL);
        if (part <= 0)
            return false;
        bytes += part;
        length -= (size_t)part;
    }
    return true;
}

char *http_fake_header(const struct http_fake_request *request, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = request->head; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        const char *value = line + length + 1 + strspn(line + length + 1, " ");
        size_t value_length = strcspn(value, "\r\n");
        char *copy = memory_new(value_length + 1);
        memcpy(copy, value, value_length);
        return copy;
    }
    return NULL;
}

/* Reads one whole request into `bytes` and cuts it into its parts. */
static bool read_request(int fd, char *bytes, struct http_fake_request *ret_request)
{
    size_t length = 0;
    char *end = NULL;
    while (end == NULL) {
        ssize_t part = length < REQUEST_MAX ? recv(fd, bytes + length, REQUEST_MAX - length, 0) : 0;
        if (part <= 0)
            return false;
        length += (size_t)part;
        bytes[length] = '\0';
        end = strstr(bytes, "\r\n\r\n");
    }
    char *line_end = strstr(bytes, "\r\n");
    char *body = end + 4;
    end[2] = '\0';
    ret_request->head = line_end == end ? "" : line_end + 2;
    *line_end = '\0';
    char *rest = bytes;
    ret_request->method = strsep(&rest, " ");
    ret_request->path = strsep(&rest, " ");
    char *declared = http_fake_header(ret_request, "Content-Length");
    size_t wanted = declared != NULL ? strtoul(declared, NULL, 10) : 0;
    free(declared);
    size_t have = length - (size_t)(body - bytes);
    while (have < wanted) {
        size_t room = REQUEST_MAX - (size_t)(body - bytes) - have;
        ssize_t part = room > 0 ? recv(fd, body + have, room, 0) : 0;
        if (part <= 0)
            return false;
        have += (size_t)part;
    }
    body[have] = '\0';
    ret_request->body = body;
    return ret_request->path != NULL;
}

static void send_reply(int fd, const struct http_fake_reply *reply)
{
    char head[256], junk[1024];
    const char *body = reply->body != NULL ? reply->body : "";
    switch (reply->manner) {
    case HTTP_FAKE_DROP:
        return;
    case HTTP_FAKE_SILENCE:
        while (recv(fd, junk, sizeof junk, 0) > 0)
            continue;
        return;
    case HTTP_FAKE_ENDLESS:
        snprintf(head, sizeof head, "HTTP/1.1 %d Fake\r\nConnection: close\r\n\r\n", reply->status);
        memset(junk, 'x', sizeof junk);
        if (send_all(fd, head, strlen(head)))
            while (send_all(fd, junk, sizeof junk))
                continue;
        return;
    case HTTP_FAKE_ANSWER:
        snprintf(head, sizeof head, "HTTP/1.1 %d Fake\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                 reply->status, strlen(body));
        if (send_all(fd, head, strlen(head)))
            send_all(fd, body, strlen(body));
        return;
    }
}

static void *serve(void *arg)
{
    struct connection *connection = arg;
    struct http_fake *fake = connection->fake;
    char *bytes = memory_new(REQUEST_MAX + 1);
    struct http_fake_request request;
    if (read_request(connection->fd, bytes, &request)) {
        struct http_fake_reply reply = { .status = 200 };
        pthread_mutex_lock(&lock);
        request.number = ++fake->requests;
        fake->answer(fake->arg, &request, &reply);
        pthread_mutex_unlock(&lock);
        send_reply(connection->fd, &reply);
        free(reply.body);
    }
    free(bytes);
    shutdown(connection->fd, SHUT_RDWR); /* closed when it is joined: its number must not be another's until then */
    return NULL;
}

static void *accept_all(void *arg)
{
    struct http_fake *fake = arg;
    for (;;) {
        int fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            return NULL;
        pthread_mutex_lock(&lock);
        if (fake->stopping) {
            close(fd);
        } else {
            assert(fake->count < CONNECTIONS_MAX);
            struct connection *connection = &fake->connections[fake->count++];
            *connection = (struct connection){ .fake = fake, .fd = fd };
            int failed = pthread_create(&connection->thread, NULL, serve, connection);
            assert(failed == 0);
        }
        pthread_mutex_unlock(&lock);
    }
}

struct http_fake *http_fake_start(http_fake_answer *answer, void *arg)
{
    struct http_fake *fake = memory_new(sizeof *fake);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    fake->answer = answer;
    fake->arg = arg;
    fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ready = fake->listener >= 0 && bind(fake->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
                 listen(fake->listener, 64) == 0 &&
                 getsockname(fake->listener, (struct sockaddr *)&address, &length) == 0;
    assert(ready);
    snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    int failed = pthread_create(&fake->accepting, NULL, accept_all, fake);
    assert(failed == 0);
    return fake;
}

void http_fake_stop(struct http_fake *fake)
{
    pthread_mutex_lock(&lock);
    fake->stopping = true;
    pthread_mutex_unlock(&lock);
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->accepting, NULL);
    for (size_t i = 0; i < fake->count; i++) {
        shutdown(fake->connections[i].fd, SHUT_RDWR);
        pthread_join(fake->connections[i].thread, NULL);
        close(fake->connections[i].fd);
    }
    close(fake->listener);
    free(fake);
}

const char *http_fake_url(const struct http_fake *fake)
{
    return fake->url;
}

unsigned http_fake_count(struct http_fake *fake)
{
    pthread_mutex_lock(&lock);
    unsigned count = fake->requests;
    pthread_mutex_unlock(&lock);
    return count;
}

void http_fake_settle(void)
{
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
}
