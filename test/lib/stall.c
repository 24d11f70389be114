/* A store that stalls: loaded into the server with LD_PRELOAD, it lets nothing
 * reach the disk while the file that STALL_FILE names exists.
 *
 * Only the calls that make data durable wait, so a server under test goes on
 * to serve its clients; that is what a disk that hangs looks like.  While a file
 * of that name with `.reads` behind it exists, objects are not read either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
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

static void wait_while_reads_stall(void)
{
    const char *file = getenv("STALL_FILE");
    char name[PATH_MAX];

    if (file == NULL)
        return;
    snprintf(name, sizeof name, "%s.reads", file);
    while (access(name, F_OK) == 0)
        usleep(10000);
}

ssize_t preadv64(int fd, const struct iovec *pieces, int count, off64_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off64_t) =
        (ssize_t(*)(int, const struct iovec *, int, off64_t))dlsym(RTLD_NEXT, "preadv64");

    wait_while_reads_stall();
    return real(fd, pieces, count, offset);
}
