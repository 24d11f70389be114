/* Opening a directory as a store: what it must be, what is made in it, and
 * what dead processes left behind.
 *
 * The directory must be on a local file system.  Network file systems are
 * refused by name: what they promise of link, rename, flock and fsync differs by
 * server and by mount option, and a store that only seems to lock is worse than
 * none.
 *
 * A directory with other things in it and no objects/ is not taken over; that
 * would mostly be somebody's home, given by mistake.
 *
 * Leftovers.  Each open store has a session: a directory of its own below tmp/,
 * with a lock (flock) held on it for as long as it is open, which the kernel
 * gives back however the process ends.  A session whose lock can be had is dead,
 * and is removed with what is in it.  Between making its directory and locking
 * it, a new session can be taken for a dead one: so after locking, it looks
 * whether its directory is still there under its name, and tries again if not. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/memory.h"
#include "store/dir_internal.h"

/* Each try loses only to a process that cleans up at that very moment. */
#define SESSION_TRIES 16

static const char readme[] = "This directory is an object store of cairn, an NBD server.\n"
                             "\n"
                             "objects/  the disks: what cairn calls an object is a file ending in .obj\n"
                             "tmp/      objects being written, by process\n"
                             "locks/    locks that processes hold on objects while they change them\n"
                             "\n"
                             "Change nothing below objects/ by hand.  To look at it: `cairn list`, `cairn dump`.\n"
                             "A copy of the whole directory is a backup if no server was running meanwhile.\n";

static int check_file_system(int fd, const char *path, struct error *error)
{
    static const struct {
        uint32_t magic; /* statfs.f_type */
        const char *name;
    } refused[] = {
        { 0x00006969, "NFS" },  { 0x0000517b, "SMB" },    { 0xff534d42, "CIFS" }, { 0xfe534d42, "SMB" },
        { 0x5346414f, "AFS" },  { 0x6b414653, "AFS" },    { 0x01021997, "9P" },   { 0x00c36400, "CephFS" },
        { 0x73757245, "Coda" }, { 0x0bd00bd0, "Lustre" },
    };
    struct statfs status;
    if (fstatfs(fd, &status) != 0)
        return error_set_errno(error, errno, "directory %s", path);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if ((uint32_t)status.f_type == refused[i].magic)
            return error_set(error, EOPNOTSUPP,
                             "directory %s is on a network file system (%s), whose locks and syncs cannot be relied "
                             "on: give a directory on a local disk",
                             path, refused[i].name);
    return 0;
}

static int sync_parent(const char *path)
{
    char *parent = memory_string(path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL)
        strcpy(parent, ".");
    else if (slash == parent)
        parent[1] = '\0';
    else
        *slash = '\0';
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(parent);
    if (fd < 0)
        return -errno;
    int failed = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return failed;
}

/* mkdir -p, each made directory synced into its parent. */
static int make_directories(const char *path, struct error *error)
{
    char *part = memory_string(path);
    size_t length = strlen(part);
    while (length > 1 && part[length - 1] == '/')
        part[--length] = '\0';
    int failed = 0;
    for (char *slash = part; slash != NULL && failed == 0;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(part, 0700) == 0)
            failed = sync_parent(part);
        else if (errno != EEXIST)
            failed = -errno;
        if (failed != 0)
            error_set_errno(error, -failed, "make the directory %s", part);
        if (slash != NULL)
            *slash = '/';
    }
    free(part);
    return failed;
}

static int open_directory(const char *path, bool create, int *ret_fd, struct error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && create) {
        int failed = make_directories(path, error);
        if (failed != 0)
            return failed;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0 && errno == ENOTDIR)
        return error_set(error, ENOTDIR, "%s, or something on the way to it, is not a directory", path);
    if (fd < 0)
        return error_set_errno(error, errno, "open the directory %s", path);
    *ret_fd = fd;
    return 0;
}

/* What may lie in a directory that becomes a store: nothing, or what another process just now made of it. */
static bool may_be_there(const char *name)
{
    static const char *const names[] = { "objects", "tmp", "locks", "README", "lost+found" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int check_empty(int root_fd, const char *path, struct error *error)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return error_set_errno(error, code, "read the directory %s", path);
    }
    int failed = 0;
    for (const struct dirent *entry; failed == 0 && (entry = readdir(stream)) != NULL;)
        if (!may_be_there(entry->d_name))
            failed = error_set(error, ENOTEMPTY,
                               "directory %s is not a store of cairn and has other things in it ('%.64s'): give one "
                               "that is empty, or that does not exist",
                               path, entry->d_name);
    closedir(stream);
    return failed;
}

static int cannot_write(const char *path, int code, struct error *error)
{
    return error_set_errno(error, code, "write to the directory %s", path);
}

static int make_readme(int root_fd)
{
    int fd = openat(root_fd, "README", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? 0 : -errno;
    ssize_t written = write(fd, readme, sizeof readme - 1);
    int failed = written == (ssize_t)sizeof readme - 1 ? 0 : written < 0 ? -errno : -ENOSPC;
    close(fd);
    if (failed != 0)
        unlinkat(root_fd, "README", 0);
    return failed;
}

static const char *const skeleton[] = { "objects", "tmp", "locks" };

/* All of it: `objects` alone stands in many a directory, of git for one. */
static bool has_skeleton(int root_fd)
{
    for (size_t i = 0; i < sizeof skeleton / sizeof *skeleton; i++)
        if (faccessat(root_fd, skeleton[i], F_OK, 0) != 0)
            return false;
    return true;
}

/* The directories in it; with `create` made where they are not, and synced whoever made them. */
static int make_skeleton(int root_fd, const char *path, bool create, struct error *error)
{
    if (!has_skeleton(root_fd)) {
        if (!create)
            return error_set(error, ENOENT, "directory %s is not a store of cairn", path);
        int failed = check_empty(root_fd, path, error);
        if (failed != 0)
            return failed;
        failed = make_readme(root_fd);
        if (failed != 0)
            return cannot_write(path, -failed, error);
    }
    if (!create)
        return 0;
    for (size_t i = 0; i < sizeof skeleton / sizeof *skeleton; i++)
        if (mkdirat(root_fd, skeleton[i], 0700) != 0 && errno != EEXIST)
            return cannot_write(path, errno, error);
    if (fsync(root_fd) != 0)
        return error_set_errno(error, errno, "sync the directory %s", path);
    return 0;
}

static int open_below(int root_fd, const char *path, const char *name, int *ret_fd, struct error *error)
{
    int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set_errno(error, errno, "open the directory %s/%s", path, name);
    *ret_fd = fd;
    return 0;
}

static void empty_directory(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
    if (stream == NULL) {
        if (copy >= 0)
            close(copy);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(fd, entry->d_name, 0);
    closedir(stream);
}

/* Removes dead sessions.  Failing to is no harm: the next open tries again. */
static void remove_leftovers(int temporaries_fd)
{
    int fd = openat(temporaries_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        int session = openat(temporaries_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (session < 0)
            continue;
        if (flock(session, LOCK_EX | LOCK_NB) == 0) {
            empty_directory(session);
            unlinkat(temporaries_fd, entry->d_name, AT_REMOVEDIR);
        }
        close(session);
    }
    closedir(stream);
}

/* A locked directory of our own; -EAGAIN when somebody took it for a dead one. */
static int try_session(struct dir_root *root, uint64_t number)
{
    snprintf(root->session, sizeof root->session, "%d-%016llx", (int)getpid(), (unsigned long long)number);
    if (mkdirat(root->temporaries_fd, root->session, 0700) != 0)
        return errno == EEXIST ? -EAGAIN : -errno;
    int fd = openat(root->temporaries_fd, root->session, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? -EAGAIN : -errno;
    struct stat ours, there;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 &&
        fstatat(root->temporaries_fd, root->session, &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == there.st_ino) {
        root->session_fd = fd;
        return 0;
    }
    int code = errno;
    close(fd);
    return code == EWOULDBLOCK || code == ENOENT || code == 0 ? -EAGAIN : -code;
}

static int open_session(struct dir_root *root, uint64_t random, struct error *error)
{
    int failed = -EAGAIN;
    for (uint64_t i = 0; i < SESSION_TRIES && failed == -EAGAIN; i++)
        failed = try_session(root, random + i);
    if (failed != 0)
        return cannot_write(root->path, -failed, error);
    return 0;
}

int dir_root_open(const char *path, bool create, uint64_t random, struct dir_root *ret_root, struct error *error)
{
    struct dir_root root = { .root_fd = -1, .objects_fd = -1, .locks_fd = -1, .temporaries_fd = -1, .session_fd = -1 };
    root.path = memory_string(path);
    int failed = path[0] != '\0' ? 0 : error_set(error, EINVAL, "a directory store needs the path of its directory");
    if (failed == 0)
        failed = open_directory(path, create, &root.root_fd, error);
    if (failed == 0)
        failed = check_file_system(root.root_fd, path, error);
    if (failed == 0)
        failed = make_skeleton(root.root_fd, path, create, error);
    if (failed == 0)
        failed = open_below(root.root_fd, path, "objects", &root.objects_fd, error);
    if (failed == 0)
        failed = open_below(root.root_fd, path, "locks", &root.locks_fd, error);
    if (failed == 0)
        failed = open_below(root.root_fd, path, "tmp", &root.temporaries_fd, error);
    if (failed == 0)
        failed = open_session(&root, random, error);
    /* Who only looks at a store may do so where nothing can be written: a backup, somebody else's. */
    bool can_be_read = !create && (failed == -EROFS || failed == -EACCES || failed == -EPERM || failed == -ENOSPC);
    if (failed != 0 && !(can_be_read && root.temporaries_fd >= 0)) {
        dir_root_close(&root);
        return failed;
    }
    if (failed == 0)
        remove_leftovers(root.temporaries_fd);
    *ret_root = root;
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void dir_root_close(struct dir_root *root)
{
    if (root->session_fd >= 0) {
        empty_directory(root->session_fd);
        unlinkat(root->temporaries_fd, root->session, AT_REMOVEDIR);
    }
    close_if_open(root->session_fd);
    close_if_open(root->temporaries_fd);
    close_if_open(root->locks_fd);
    close_if_open(root->objects_fd);
    close_if_open(root->root_fd);
    free(root->path);
}
