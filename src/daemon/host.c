/* Lock files: how the next owner of a volume knows that the last one is dead.
 *
 * A process that owns volumes holds an exclusive flock(2) on an empty file of
 * its own for as long as it lives; the kernel drops the lock when the process
 * ends, however that happens.  The file's path, device and inode, and the
 * kernel's boot id, stand in the register of each volume that it owns.  So a
 * restarted server need not wait for a lease of which nobody is left:
 *
 *   same boot, the file is there and the very same, its lock is free    dead
 *   same boot, the lock is held                                         alive
 *   same boot, no such file, or another one                             not known: taken for alive
 *   another boot, the store a local directory                           dead: it ran on this machine
 *   another boot, any other store                                       not known: taken for alive
 *
 * An absent file proves nothing: a container has the same boot id but its own
 * mounts, so the path may lead elsewhere or nowhere there (hence device and
 * inode, too), and a cleaner may have removed the file under a live process.
 * A name is a random number, so no path is ever used twice.
 *
 * A dead owner's file stays: other volumes' registers may name it as well.  Of
 * many crashes only the newest LOCK_FILES_KEPT files are kept.
 *
 * Being wrong here cannot damage a volume: the log's fence keeps two owners
 * apart (vol/recover.c).  It only decides who may try at once. */
#include "daemon/host.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

/* Each is an empty file in memory (a tmpfs, as a rule) that one crash left behind. */
#define LOCK_FILES_KEPT 1000
#define LOCK_NAME_BYTES 16 /* of randomness */
#define LOCK_SUFFIX ".lock"

struct host_real {
    struct host base;
    char name[REGISTER_HOST_MAX];
    uint8_t boot_id[BOOT_ID_BYTES];
    bool has_boot_id;
    bool store_is_local;
    char lock_path[REGISTER_LOCK_PATH_MAX]; /* "": none */
    int lock_fd;
    struct stat lock_stat;
};

static bool read_boot_id(uint8_t ret_id[BOOT_ID_BYTES])
{
    char line[64] = "";
    struct uuid uuid;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (file == NULL)
        return false;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    if (!read || !uuid_parse(line, &uuid))
        return false;
    static_assert(sizeof uuid.bytes == BOOT_ID_BYTES, "a boot id is a UUID");
    memcpy(ret_id, uuid.bytes, BOOT_ID_BYTES);
    return true;
}

char *host_lock_directory(void)
{
    const char *service = getenv("RUNTIME_DIRECTORY"), *runtime = getenv("XDG_RUNTIME_DIR");
    char path[PATH_MAX];

    if (service != NULL && service[0] == '/') /* systemd's; it may list several */
        snprintf(path, sizeof path, "%.*s/locks", (int)strcspn(service, ":"), service);
    else if (geteuid() == 0)
        snprintf(path, sizeof path, "/run/cairn");
    else if (runtime != NULL && runtime[0] == '/')
        snprintf(path, sizeof path, "%s/cairn", runtime);
    else
        snprintf(path, sizeof path, "/tmp/cairn-%u", (unsigned)geteuid());
    return memory_string(path);
}

/* Ours, and closed to all others: nobody else can have put files there. */
static int make_directory(const char *path, struct error *error)
{
    struct stat status;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_set_errno(error, errno, "cannot make %s for lock files", path);
    if (lstat(path, &status) < 0)
        return error_set_errno(error, errno, "cannot look at %s", path);
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077) != 0)
        return error_set(error, EPERM, "%s is not a directory that is ours alone (mode 0700)", path);
    return 0;
}

static int make_lock(struct host_real *host, const char *directory, struct error *error)
{
    uint8_t random[LOCK_NAME_BYTES];
    char name[2 * LOCK_NAME_BYTES + 1], path[REGISTER_LOCK_PATH_MAX];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return error_set_errno(error, errno, "no random numbers");
    text_hex(random, sizeof random, name);
    if (snprintf(path, sizeof path, "%s/%s" LOCK_SUFFIX, directory, name) >= (int)sizeof path)
        return error_set(error, ENAMETOOLONG, "%s is too long a path for lock files", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(error, errno, "cannot make the lock file %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &host->lock_stat) < 0) {
        error_set_errno(error, errno, "cannot lock %s", path);
        unlink(path);
        close(fd);
        return -error->code;
    }
    host->lock_fd = fd;
    strcpy(host->lock_path, path);
    return 0;
}

/* ---- sweeping what crashes left ---- */

struct lock_file {
    struct timespec made;
    char name[2 * LOCK_NAME_BYTES + sizeof LOCK_SUFFIX];
};

static int compare_age(const void *a, const void *b)
{
    const struct timespec *x = &((const struct lock_file *)a)->made, *y = &((const struct lock_file *)b)->made;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static bool is_lock_name(const char *name)
{
    uint8_t bytes[LOCK_NAME_BYTES];
    char digits[2 * LOCK_NAME_BYTES + 1];

    if (strlen(name) != 2 * LOCK_NAME_BYTES + strlen(LOCK_SUFFIX) ||
        strcmp(name + 2 * LOCK_NAME_BYTES, LOCK_SUFFIX) != 0)
        return false;
    memcpy(digits, name, 2 * LOCK_NAME_BYTES);
    digits[2 * LOCK_NAME_BYTES] = '\0';
    return text_unhex(digits, bytes, sizeof bytes);
}

static void remove_if_dead(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(directory, name, 0);
    close(fd);
}

/* Best effort: what cannot be read or removed stays. */
static void sweep(const char *path)
{
    DIR *directory = opendir(path);
    struct lock_file *files = NULL;
    size_t count = 0;

    if (directory == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct stat status;
        if (!is_lock_name(entry->d_name) || fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        files = memory_resize(files, count + 1, sizeof *files);
        files[count].made = status.st_mtim;
        strcpy(files[count++].name, entry->d_name);
    }
    if (count > LOCK_FILES_KEPT) {
        qsort(files, count, sizeof *files, compare_age);
        for (size_t i = 0; i < count - LOCK_FILES_KEPT; i++)
            remove_if_dead(dirfd(directory), files[i].name);
    }
    free(files);
    closedir(directory);
}

/* ---- the two questions of the engine ---- */

static void sign(struct host *base, struct register_body *body)
{
    struct host_real *host = container_of(base, struct host_real, base);

    snprintf(body->host, sizeof body->host, "%s", host->name);
    body->process = (uint64_t)getpid();
    memcpy(body->boot_id, host->boot_id, BOOT_ID_BYTES);
    memcpy(body->lock_path, host->lock_path, sizeof body->lock_path);
    body->lock_device = host->lock_path[0] != '\0' ? (uint64_t)host->lock_stat.st_dev : 0;
    body->lock_inode = host->lock_path[0] != '\0' ? (uint64_t)host->lock_stat.st_ino : 0;
}

static bool lock_is_free(const struct register_body *body)
{
    struct stat status;

    if (body->lock_path[0] != '/')
        return false;
    int fd = open(body->lock_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool free_now = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
                    (uint64_t)status.st_dev == body->lock_device && (uint64_t)status.st_ino == body->lock_inode &&
                    flock(fd, LOCK_SH | LOCK_NB) == 0;
    close(fd);
    return free_now;
}

static bool owner_is_dead(struct host *base, const struct register_body *body)
{
    static const uint8_t no_boot_id[BOOT_ID_BYTES];
    struct host_real *host = container_of(base, struct host_real, base);

    if (!host->has_boot_id || memcmp(body->boot_id, no_boot_id, BOOT_ID_BYTES) == 0)
        return false;
    if (memcmp(body->boot_id, host->boot_id, BOOT_ID_BYTES) != 0)
        return host->store_is_local;
    return lock_is_free(body);
}

static const struct host_ops host_real_ops = { .sign = sign, .owner_is_dead = owner_is_dead };

void host_new(const struct host_setup *setup, struct host **ret_host, struct error *ret_trouble)
{
    struct host_real *host = memory_new(sizeof *host);
    struct error trouble = ERROR_NONE;

    host->base.ops = &host_real_ops;
    host->store_is_local = setup->store_is_local;
    host->lock_fd = -1;
    if (gethostname(host->name, sizeof host->name - 1) < 0)
        strcpy(host->name, "a host without a name");
    host->has_boot_id = read_boot_id(host->boot_id);
    if (!host->has_boot_id)
        error_set(&trouble, ENOENT, "/proc/sys/kernel/random/boot_id cannot be read");
    else if (make_directory(setup->lock_directory, &trouble) == 0 &&
             make_lock(host, setup->lock_directory, &trouble) == 0)
        sweep(setup->lock_directory);
    *ret_host = &host->base;
    *ret_trouble = trouble;
}

void host_free(struct host *base, bool clean)
{
    if (base == NULL)
        return;
    struct host_real *host = container_of(base, struct host_real, base);
    assert(base->ops == &host_real_ops);
    if (clean && host->lock_path[0] != '\0')
        unlink(host->lock_path);
    if (host->lock_fd >= 0)
        close(host->lock_fd);
    free(host);
}
