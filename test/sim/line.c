/* See line.h.  Both sides are the same program, so a message goes as it lies in memory. */
#include "line.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

static bool send_bytes(int socket, const void *bytes, size_t length)
{
    for (const uint8_t *at = bytes; length > 0;) {
        ssize_t sent = send(socket, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool receive_bytes(int socket, void *bytes, size_t length)
{
    for (uint8_t *at = bytes; length > 0;) {
        ssize_t got = recv(socket, at, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        length -= (size_t)got;
    }
    return true;
}

bool line_send(int socket, const struct message *message)
{
    return send_bytes(socket, message, sizeof *message) && send_bytes(socket, message->bytes, message->length);
}

bool line_receive(int socket, struct message *ret_message)
{
    if (!receive_bytes(socket, ret_message, sizeof *ret_message))
        return false;
    ret_message->bytes = memory_resize(NULL, ret_message->length + 1, 1);
    if (receive_bytes(socket, ret_message->bytes, ret_message->length))
        return true;
    free(ret_message->bytes);
    return false;
}

void line_ask(int socket, struct message *message)
{
    if (!line_send(socket, message) || !line_receive(socket, message))
        _exit(0); /* the original is through */
}
