/* Two small protocols over environment variables, spoken by hand: a datagram to
 * $NOTIFY_SOCKET, and descriptors that are open already, $LISTEN_FDS of them.
 *
 * A notification that cannot be sent is nobody's loss but systemd's, which
 * notices by itself: errors are passed over. */
#include "daemon/systemd.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKETS_MOST 16

void systemd_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract namespace */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
    (void)sent;
    close(fd);
}

int systemd_sockets(void)
{
    const char *for_whom = getenv("LISTEN_PID"), *many = getenv("LISTEN_FDS");

    if (for_whom == NULL || many == NULL || atol(for_whom) != (long)getpid())
        return 0;
    int count = atoi(many);
    if (count < 0 || count > SOCKETS_MOST)
        return 0;
    for (int i = 0; i < count; i++)
        fcntl(SYSTEMD_FIRST_FD + i, F_SETFD, FD_CLOEXEC);
    return count;
}
