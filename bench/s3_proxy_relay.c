/* See s3_proxy_relay.h. */
#include "s3_proxy_relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Moved at a time: 1.6 ms at 80 MB/s.  Smaller steps cost processor time, longer ones would come in visible bursts. */
#define PACE_STEP (128u << 10)
/* A step that comes late, because the machine is busy, may be made up for by this much. */
#define PACE_BURST (1u << 20)
/* Steps in a row, before other connections have their turn. */
#define RELAY_TURNS 16

uint64_t clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int link_fill(struct link *link)
{
    if (link->fd < 0 || link->ended)
        return -1;
    if (link->in == NULL && (link->in = malloc(LINK_BYTES)) == NULL)
        abort();
    if (link->begin == link->end)
        link->begin = link->end = 0;
    if (link->end == LINK_BYTES) {
        memmove(link->in, link->in + link->begin, link->end - link->begin);
        link->end -= link->begin;
        link->begin = 0;
    }
    if (link->end == LINK_BYTES)
        return 0;
    ssize_t got = recv(link->fd, link->in + link->end, LINK_BYTES - link->end, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        link->ended = true;
        return -1;
    }
    link->end += (size_t)got;
    return 1;
}

void link_close(struct link *link)
{
    if (link->fd >= 0)
        close(link->fd);
    free(link->in);
    *link = (struct link){ .fd = -1 };
}

size_t pace_allows(struct pace *pace, size_t want, uint64_t *ret_when_ns)
{
    if (pace->bytes_per_ns == 0)
        return want;
    uint64_t now = clock_ns();
    double allowed = (double)(now - pace->begun_ns) * pace->bytes_per_ns - (double)pace->moved;
    if (allowed > PACE_BURST) {
        pace->begun_ns = now - (uint64_t)((double)(pace->moved + PACE_BURST) / pace->bytes_per_ns);
        allowed = PACE_BURST;
    }
    size_t step = want < PACE_STEP ? want : PACE_STEP;
    if (allowed >= (double)step)
        return allowed < (double)want ? (size_t)allowed : want;
    *ret_when_ns = pace->begun_ns + (uint64_t)((double)(pace->moved + step) / pace->bytes_per_ns) + 1;
    return 0;
}

/* Sends from what was received; < 0: it never will go. */
static ssize_t pass_on(struct relay *relay, struct link *from, struct link *to, size_t length)
{
    ssize_t sent = relay->deaf ? (ssize_t)length : send(to->fd, from->in + from->begin, length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    from->begin += (size_t)sent;
    return sent;
}

/* Looks at what has come; receives more while there is less than a step. False: that makes no sense. */
static bool look_ahead(struct relay *relay, struct link *from)
{
    while (relay->ready < PACE_STEP && !relay->body.done) {
        size_t known = from->begin + relay->ready, taken = 0;
        if (known == from->end) {
            int got = link_fill(from);
            if (got < 0 && relay->body.framing == FRAMING_UNTIL_CLOSE)
                relay->body.done = true;
            if (got < 0 && relay->ready == 0)
                return relay->body.done;
            if (got <= 0)
                return true;
            known = from->begin + relay->ready;
        }
        if (!body_take(&relay->body, from->in + known, from->end - known, &taken))
            return false;
        relay->ready += taken;
    }
    return true;
}

enum progress relay_run(struct relay *relay, struct link *from, struct link *to, uint64_t *ret_when_ns)
{
    for (int turn = 0; turn < RELAY_TURNS; turn++) {
        if (relay->head_left > 0) {
            ssize_t sent = pass_on(relay, from, to, relay->head_left);
            if (sent <= 0)
                return sent < 0 ? PROGRESS_FAILED : PROGRESS_SOCKET;
            relay->head_left -= (size_t)sent;
            continue;
        }
        if (!look_ahead(relay, from))
            return PROGRESS_FAILED;
        if (relay->ready == 0)
            return relay->body.done ? PROGRESS_DONE : PROGRESS_SOCKET;
        size_t allowed = pace_allows(&relay->pace, relay->ready, ret_when_ns);
        if (allowed == 0)
            return PROGRESS_TIMER;
        ssize_t sent = pass_on(relay, from, to, allowed);
        if (sent <= 0)
            return sent < 0 ? PROGRESS_FAILED : PROGRESS_SOCKET;
        relay->ready -= (size_t)sent;
        relay->pace.moved += (uint64_t)sent;
    }
    *ret_when_ns = 1; /* at once, but after others */
    return PROGRESS_TIMER;
}
