/* See s3_proxy_connection.h.
 *
 * A connection has three descriptors: the client's socket, a socket of its own
 * to the server behind, and a timer.  All are watched for edges; whatever
 * happens, connection_advance() goes on from where the exchange stands, as far
 * as it goes.  Nothing blocks.
 *
 *     IDLE ──head──> UP ──body has passed──> WAIT ──answer's head──> HOLD ──time──> DOWN ──> IDLE
 *
 * The answer is held until its time, counted from the end of the request's
 * head; the body has its own pace, so that a put takes the longer of the two.
 * An interim answer (100 Continue) goes through at once.  When the server
 * answers before the body has passed, the rest of the body still comes, so that
 * the client never sees the difference.  When either side hangs up in the
 * middle, so do we on the other. */
#include "s3_proxy_connection.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "s3_proxy_count.h"
#include "s3_proxy_relay.h"
#include "s3_proxy_sink.h"

#define WAKE_BYTES (64 << 10)

enum phase { IDLE, UP, WAIT, HOLD, DOWN, ENDED };

struct connection {
    const struct settings *settings;
    int epoll, timer;
    struct link client, server;
    enum phase phase;
    struct connection *next, **link; /* among all of them; then, by `next`, among those that have ended */

    /* The exchange. */
    struct head request; /* its slices are good until more is received from the client */
    bool counted;        /* the tally is of a request under way */
    bool close;          /* when it is over */
    bool local;          /* answered here */
    bool of_head;
    int status;
    struct tally tally;
    char path[256]; /* for the trace, cut */
    uint64_t head_ns, up_ns, answer_ns, due_ns;
    struct relay up, down;
    int wake_bytes; /* that must have come before the client's socket counts as readable */
    struct sink_object *object;
    struct sink_answer answer;
    size_t answered; /* bytes of its body */
};

static struct connection *all, *ended;

static void watch(struct connection *connection, int fd)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection };
    if (epoll_ctl(connection->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        perror("s3_proxy: epoll_ctl");
        exit(1);
    }
}

static void wake_at(struct connection *connection, uint64_t when_ns)
{
    struct itimerspec time = { .it_value = { .tv_sec = (time_t)(when_ns / 1000000000u),
                                             .tv_nsec = (long)(when_ns % 1000000000u) } };
    timerfd_settime(connection->timer, TFD_TIMER_ABSTIME, &time, NULL);
}

static void no_delay(int fd)
{
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

void connection_new(const struct settings *settings, int epoll, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (connection == NULL || timer < 0) {
        perror("s3_proxy: a connection is refused");
        free(connection);
        close(fd);
        return;
    }
    connection->settings = settings;
    connection->epoll = epoll;
    connection->timer = timer;
    connection->client.fd = fd;
    connection->server.fd = -1;
    connection->wake_bytes = 1;
    connection->link = &all;
    connection->next = all;
    if (all != NULL)
        all->link = &connection->next;
    all = connection;
    no_delay(fd);
    count_connection();
    watch(connection, fd);
    watch(connection, timer);
}

static void finish_count(struct connection *connection, int status)
{
    if (!connection->counted)
        return;
    connection->counted = false;
    connection->tally.sent = connection->up.pace.moved;
    connection->tally.received = connection->local ? connection->answered : connection->down.body.moved;
    count_end(&connection->tally, status);
    FILE *trace = connection->settings->trace;
    if (trace != NULL)
        fprintf(trace, "%.3f %.3f %.3f %.3f %s %s %ju %ju %d %s\n", (double)connection->head_ns / 1e6,
                (double)connection->up_ns / 1e6, (double)connection->answer_ns / 1e6, (double)clock_ns() / 1e6,
                count_method_name(connection->tally.method), count_kind_name(connection->tally.kind),
                (uintmax_t)connection->tally.sent, (uintmax_t)connection->tally.received, status, connection->path);
}

static void hang_up(struct connection *connection)
{
    finish_count(connection, 0);
    link_close(&connection->client);
    link_close(&connection->server);
    close(connection->timer);
    sink_object_unref(connection->object);
    sink_answer_free(&connection->answer);
    connection->phase = ENDED;
    *connection->link = connection->next;
    if (connection->next != NULL)
        connection->next->link = connection->link;
    connection->next = ended;
    ended = connection;
}

void connections_bury(void)
{
    while (ended != NULL) {
        struct connection *connection = ended;
        ended = connection->next;
        free(connection);
    }
}

void connections_end(void)
{
    while (all != NULL)
        hang_up(all);
    connections_bury();
}

/* Has the other side closed, or sent what nobody asked for? */
static bool is_stale(const struct link *link)
{
    char byte;
    ssize_t got = recv(link->fd, &byte, 1, MSG_PEEK);
    return got >= 0 || errno != EAGAIN;
}

static bool reach_server(struct connection *connection)
{
    struct link *server = &connection->server;
    if (server->fd >= 0 && (server->ended || is_stale(server)))
        link_close(server);
    if (server->fd >= 0)
        return true;
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->fd < 0)
        return false;
    no_delay(server->fd);
    const struct sockaddr_in *to = &connection->settings->to;
    if (connect(server->fd, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS)
        return false;
    watch(connection, server->fd);
    return true;
}

/* ---- control ---- */

static bool is_control(const struct head *request)
{
    return request->path.length >= 8 && memcmp(request->path.bytes, "/_proxy/", 8) == 0;
}

static void answer_control(struct connection *connection)
{
    char *text = NULL;
    size_t size;
    const struct head *request = &connection->request;
    struct slice what = { request->path.bytes + 8, request->path.length - 8 };
    if (slice_is(what, "counts") && slice_is(request->method, "GET")) {
        FILE *file = open_memstream(&text, &size);
        count_print(file);
        fclose(file);
        sink_text(&connection->answer, 200, "application/json", text);
    } else if (slice_is(what, "reset") && slice_is(request->method, "POST")) {
        count_reset();
        sink_text(&connection->answer, 200, "application/json", strdup("{}\n"));
    } else {
        sink_text(&connection->answer, 404, "text/plain", strdup("GET /_proxy/counts or POST /_proxy/reset\n"));
    }
}

/* ---- the phases; each returns whether there is more to do at once ---- */

static bool begin_exchange(struct connection *connection, size_t length)
{
    const struct settings *settings = connection->settings;
    struct head *request = &connection->request;
    bool control = is_control(request), asks = slice_is(request->method, "GET") || slice_is(request->method, "HEAD");
    connection->head_ns = clock_ns();
    connection->due_ns = control ? 0 : connection->head_ns + (asks ? settings->get_ns : settings->put_ns);
    connection->local = control || settings->sink;
    connection->close = request->close;
    connection->of_head = slice_is(request->method, "HEAD");
    connection->answered = 0;
    connection->status = 0;
    connection->up = (struct relay){ .pace = { settings->bytes_per_ns, connection->head_ns, 0 } };
    connection->down = (struct relay){ .pace = { .bytes_per_ns = settings->bytes_per_ns } };
    body_begin(&connection->up.body, request);
    if (!control) {
        connection->tally = count_begin(request);
        connection->counted = true;
        snprintf(connection->path, sizeof connection->path, "%.*s%s%.*s", (int)request->path.length,
                 request->path.bytes, request->query.length > 0 ? "?" : "", (int)request->query.length,
                 request->query.bytes);
    }
    if (connection->local) {
        connection->client.begin += length;
        if (request->framing == FRAMING_CHUNKED)
            return false;
        if (request->framing == FRAMING_LENGTH && !control)
            connection->object = sink_receive(request->length);
        if (request->expects_continue)
            return send(connection->client.fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) == 25;
        return true;
    }
    connection->up.head_left = length;
    return reach_server(connection);
}

static bool advance_idle(struct connection *connection)
{
    struct link *client = &connection->client;
    size_t length;
    while ((length = head_length(client->in + client->begin, client->end - client->begin)) == 0) {
        bool too_long = client->end - client->begin == LINK_BYTES;
        int got = too_long ? -1 : link_fill(client);
        if (got < 0)
            hang_up(connection);
        if (got <= 0)
            return false;
    }
    if (!head_parse_request(client->in + client->begin, length, &connection->request) ||
        !begin_exchange(connection, length)) {
        hang_up(connection);
        return false;
    }
    connection->phase = UP;
    return true;
}

/* A large body need not wake us for every segment. Less than that at the end of one does. */
static void set_wake_bytes(struct connection *connection)
{
    uint64_t left = connection->up.body.left;
    int wanted = left >= 2 * WAKE_BYTES ? WAKE_BYTES : 1;
    if (wanted != connection->wake_bytes)
        setsockopt(connection->client.fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted);
    connection->wake_bytes = wanted;
}

/* The body into the sink's memory; what came along with the head first. */
static enum progress receive_body(struct connection *connection, uint64_t *ret_when_ns)
{
    struct relay *up = &connection->up;
    struct link *client = &connection->client;
    while (!up->body.done) {
        size_t room, taken, had = client->end - client->begin;
        char *at = sink_room(connection->object, &room);
        ssize_t got;
        if (had > 0) {
            got = (ssize_t)(had < room ? had : room);
            if (at != NULL)
                memcpy(at, client->in + client->begin, (size_t)got);
            client->begin += (size_t)got;
        } else {
            set_wake_bytes(connection);
            size_t allowed = pace_allows(&up->pace, room, ret_when_ns);
            if (allowed == 0)
                return PROGRESS_TIMER;
            got = recv(client->fd, at, allowed, at == NULL ? MSG_TRUNC : 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                return PROGRESS_SOCKET;
            if (got <= 0)
                return PROGRESS_FAILED;
        }
        sink_received(connection->object, (size_t)got);
        body_take(&up->body, NULL, (size_t)got, &taken);
        up->pace.moved += (uint64_t)got;
    }
    set_wake_bytes(connection);
    return PROGRESS_DONE;
}

/* Interim answers of the server, which go through at once; false: it cannot be done. */
static bool pass_interim(struct connection *connection)
{
    struct link *server = &connection->server;
    for (;;) {
        size_t length = head_length(server->in + server->begin, server->end - server->begin);
        struct head head;
        if (length == 0) {
            if (server->end - server->begin == LINK_BYTES)
                return false;
            if (link_fill(server) <= 0)
                return true;
            continue;
        }
        if (!head_parse_answer(server->in + server->begin, length, connection->of_head, &head))
            return false;
        if (head.status >= 200)
            return true;
        if (send(connection->client.fd, server->in + server->begin, length, MSG_NOSIGNAL) != (ssize_t)length)
            return false;
        server->begin += length;
    }
}

/* After progress that is none: waits for what it needs, or hangs up. */
static bool pause_for(struct connection *connection, enum progress progress, uint64_t when_ns)
{
    if (progress == PROGRESS_TIMER)
        wake_at(connection, when_ns);
    if (progress == PROGRESS_FAILED)
        hang_up(connection);
    return false;
}

static bool advance_up(struct connection *connection)
{
    uint64_t when_ns;
    enum progress progress;
    if (connection->local && connection->object == NULL) {
        progress = connection->up.body.done ? PROGRESS_DONE : PROGRESS_FAILED;
    } else if (connection->local) {
        progress = receive_body(connection, &when_ns);
    } else {
        if (!pass_interim(connection))
            return pause_for(connection, PROGRESS_FAILED, 0);
        progress = relay_run(&connection->up, &connection->client, &connection->server, &when_ns);
        if (progress == PROGRESS_FAILED && !connection->up.deaf && !connection->client.ended) {
            connection->up.deaf = true; /* perhaps it has answered already */
            return true;
        }
    }
    if (progress != PROGRESS_DONE)
        return pause_for(connection, progress, when_ns);
    connection->up_ns = clock_ns();
    connection->phase = WAIT;
    return true;
}

static bool advance_wait(struct connection *connection)
{
    connection->phase = HOLD;
    if (connection->local) {
        if (is_control(&connection->request))
            answer_control(connection);
        else
            sink_perform(&connection->request, connection->object, &connection->answer);
        connection->object = NULL;
        connection->status = connection->answer.status;
        connection->answer_ns = clock_ns();
        return true;
    }
    struct link *server = &connection->server;
    if (!pass_interim(connection))
        return pause_for(connection, PROGRESS_FAILED, 0);
    size_t length = head_length(server->in + server->begin, server->end - server->begin);
    if (length == 0) {
        connection->phase = WAIT;
        return pause_for(connection, server->ended ? PROGRESS_FAILED : PROGRESS_SOCKET, 0);
    }
    struct head head;
    head_parse_answer(server->in + server->begin, length, connection->of_head, &head);
    connection->status = head.status;
    connection->close = connection->close || head.close;
    connection->down.head_left = length;
    body_begin(&connection->down.body, &head);
    connection->answer_ns = clock_ns();
    return true;
}

static bool advance_hold(struct connection *connection)
{
    if (clock_ns() < connection->due_ns) {
        wake_at(connection, connection->due_ns);
        return false;
    }
    connection->down.pace.begun_ns = clock_ns();
    connection->phase = DOWN;
    return true;
}

/* Head and body of an answer that is in memory. */
static enum progress send_answer(struct connection *connection, uint64_t *ret_when_ns)
{
    struct sink_answer *answer = &connection->answer;
    while (answer->head_length > 0) {
        ssize_t sent = send(connection->client.fd, answer->head, answer->head_length,
                            MSG_NOSIGNAL | (answer->body_length > 0 ? MSG_MORE : 0));
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR ? PROGRESS_SOCKET : PROGRESS_FAILED;
        answer->head_length -= (size_t)sent;
        memmove(answer->head, answer->head + sent, answer->head_length);
    }
    while (connection->answered < answer->body_length) {
        size_t allowed = pace_allows(&connection->down.pace, answer->body_length - connection->answered, ret_when_ns);
        if (allowed == 0)
            return PROGRESS_TIMER;
        ssize_t sent = send(connection->client.fd, answer->body + connection->answered, allowed, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR ? PROGRESS_SOCKET : PROGRESS_FAILED;
        connection->answered += (size_t)sent;
        connection->down.pace.moved += (uint64_t)sent;
    }
    return PROGRESS_DONE;
}

static bool advance_down(struct connection *connection)
{
    uint64_t when_ns;
    enum progress progress = connection->local
                                 ? send_answer(connection, &when_ns)
                                 : relay_run(&connection->down, &connection->server, &connection->client, &when_ns);
    if (progress != PROGRESS_DONE)
        return pause_for(connection, progress, when_ns);
    finish_count(connection, connection->status);
    sink_answer_free(&connection->answer);
    if (connection->close) {
        hang_up(connection);
        return false;
    }
    connection->phase = IDLE;
    return true;
}

/* While nothing is read from the client: has it gone? Half a connection is none. */
static bool client_left(const struct connection *connection)
{
    char byte;
    return (connection->phase == WAIT || connection->phase == HOLD) &&
           recv(connection->client.fd, &byte, 1, MSG_PEEK) == 0;
}

void connection_advance(struct connection *connection)
{
    bool more = true;
    if (connection->phase != ENDED && client_left(connection))
        hang_up(connection);
    while (more) {
        switch (connection->phase) {
        case IDLE:
            more = advance_idle(connection);
            break;
        case UP:
            more = advance_up(connection);
            break;
        case WAIT:
            more = advance_wait(connection);
            break;
        case HOLD:
            more = advance_hold(connection);
            break;
        case DOWN:
            more = advance_down(connection);
            break;
        case ENDED:
            more = false;
            break;
        }
    }
}
