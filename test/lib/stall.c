/* A store that stalls: loaded into the server with LD_PRELOAD, it lets nothing
 * reach the disk while the file that STALL_FILE names exists.
 *
 * Only the calls that make data durable wait, so a server under test goes on
 * to serve its clients; that is what a disk that hangs looks like. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_while_stalled(void)
{
    const char *file = getenv("STALL_FILE");

    while (file != NULL && access(file, F_OK) == 0)
        usleep(10000);
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");

    wait_while_stalled();
    return real(fd);
}

int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

    wait_while_stalled();
    return real(fd);
}

int syncfs(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "syncfs");

    wait_while_stalled();
    return real(fd);
}
