/* Objects in a directory: the embedded store, with the guarantees of the large
 * ones.  Any number of processes may use one directory at once.
 *
 *     README                     what this is, for people
 *     objects/cairn.obj          the object `cairn`
 *     objects/volumes/n.db.obj   the object `volumes/n.db`; see store/dir_name.c
 *     tmp/<pid>-<random>/<n>     objects being written, a directory for each open store
 *     locks/00 … ff              locks, see below
 *
 * Putting.  An object is written whole to a file below tmp/ and synced; then one
 * rename makes it appear under its name, and the sync of that name's directory
 * makes the appearance last.  Success is told only after that.  So a crash at
 * any point leaves the old object or the new one, never a part, and at most a
 * file below tmp/, which the next open removes (store/dir_open.c).  Directories
 * that a name needs are made on the way, and synced from the top down before this
 * process uses them first, also when others made them: those others may have
 * died before their sync.
 *
 * Conditions.  ABSENT is a rename that refuses to replace, which the kernel does
 * atomically (where a file system cannot, link and unlink).  MATCHES must read,
 * compare and replace with nobody in between: it does so under a lock (flock) of
 * the key, of which there are 256, chosen by the key's hash.  ANY and deletes
 * take the same lock, else they could slip in between.  ABSENT needs none: it
 * changes nothing while the object exists, and that cannot end without the lock.
 * A lock is tried and never waited for inside the kernel: whoever finds it taken
 * sleeps as a coroutine and tries again, up to LOCK_WAIT, so that a process that
 * was stopped in the middle costs others an error and not a thread.
 *
 * A refusal is a fact that callers build on ("it was me, earlier"), so the
 * directory is synced before it is told: an object that somebody renamed and did
 * not live to sync must not vanish after it has been seen to be there.
 *
 * ETags are a hash of the content wherever the content is at hand: of puts, and of
 * gets that cover the whole object.  Other gets tell file number, time and size,
 * which a condition never matches.
 *
 * What can fail.  ENOSPC, EDQUOT, EROFS, EACCES, EIO and so on come out with
 * their code.  A failed put has removed its file below tmp/.  If it failed at the
 * last sync the object may be there: unknown, as for any store.  A file that
 * failed to sync is never trusted again; the next attempt writes a new one.
 *
 * Threads.  Each call is one job for a worker thread (two when it must wait for a
 * lock); the job lives on the coroutine's stack, which loop_work() keeps until
 * the job is done.  Jobs share only file descriptors.  The descriptors of
 * directories that objects are put into are kept, in order of use; the loop's
 * thread looks them up and pins them for the time of a job. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/text.h"
#include "rt/loop.h"
#include "rt/wait.h"
#include "store/dir_internal.h"

/* A volume that is written to needs two (log and data): enough for 32 busy ones, and few beside a limit of 1,024. */
#define DIRECTORIES_MAX 64u

/* One lock is held for the time of two syncs at most; a disk under load can take seconds for them. */
#define LOCK_WAIT_NS (10 * NS_PER_S)
#define LOCK_RETRY_FIRST_NS (1 * NS_PER_MS)
#define LOCK_RETRY_MAX_NS (20 * NS_PER_MS)

/* How many pieces are given to the kernel at once: it takes no more. */
#define BATCH_PIECES 256
static_assert(BATCH_PIECES <= IOV_MAX, "a batch is one system call");

struct dir {
    struct store store;
    struct loop *loop;
    struct dir_root root;
    uint64_t next_temporary;
    struct list directories; /* struct directory, used last first */
    size_t directory_count;
    struct dir_window *window; /* of the last listing, between its pages */
};

/* A directory below objects/ whose existence is durable. */
struct directory {
    struct list node;
    char *path;
    size_t path_length;
    int fd;
    unsigned users; /* jobs that have the descriptor */
    bool gone;      /* somebody removed it: not to be used again */
};

static struct dir *dir_of(struct store *store)
{
    return container_of(store, struct dir, store);
}

/* ---- the descriptors of directories (loop's thread) ---- */

static void directory_free(struct dir *dir, struct directory *directory)
{
    list_remove(&directory->node);
    dir->directory_count--;
    close(directory->fd);
    free(directory->path);
    free(directory);
}

/* The directory of `path`, pinned; NULL when it is not among those we know. */
static struct directory *directory_use(struct dir *dir, const struct dir_path *path)
{
    list_for_each (node, &dir->directories) {
        struct directory *directory = container_of(node, struct directory, node);
        if (directory->gone || directory->path_length != path->directory_length ||
            memcmp(directory->path, path->text, path->directory_length) != 0)
            continue;
        list_remove(node);
        list_push_front(&dir->directories, node);
        directory->users++;
        return directory;
    }
    return NULL;
}

static void directory_release(struct dir *dir, struct directory *directory)
{
    assert(directory->users > 0);
    directory->users--;
    if (directory->gone && directory->users == 0)
        directory_free(dir, directory);
}

/* Takes over `fd`, opened by a job that found `path` not to be known. */
static void directory_learn(struct dir *dir, const struct dir_path *path, int fd)
{
    struct directory *known = directory_use(dir, path);
    if (known != NULL) {
        directory_release(dir, known);
        close(fd);
        return;
    }
    if (dir->directory_count >= DIRECTORIES_MAX) {
        struct list *node = dir->directories.prev;
        while (node != &dir->directories && container_of(node, struct directory, node)->users > 0)
            node = node->prev;
        if (node != &dir->directories)
            directory_free(dir, container_of(node, struct directory, node));
    }
    struct directory *directory = memory_new(sizeof *directory);
    directory->path = memory_copy(path->text, path->directory_length);
    directory->path_length = path->directory_length;
    directory->fd = fd;
    list_init(&directory->node);
    list_push_front(&dir->directories, &directory->node);
    dir->directory_count++;
}

/* ---- reading and writing pieces (worker's thread) ---- */

/* Moves the bytes of `pieces`, at most `length`, from or to the start of what `move` (preadv, pwritev) knows as
 * `offset`.  Bytes moved, fewer at the end of the file; or -errno. */
static int64_t transfer(int fd, const struct iovec *pieces, int count, uint64_t offset, uint64_t length,
                        ssize_t (*move)(int fd, const struct iovec *pieces, int count, off_t offset))
{
    uint64_t done = 0;
    size_t skip = 0; /* of the first piece */
    while (done < length) {
        struct iovec batch[BATCH_PIECES];
        int batch_count = 0;
        uint64_t left = length - done;
        for (int i = 0; i < count && batch_count < BATCH_PIECES && left > 0; i++) {
            size_t from = i == 0 ? skip : 0, part = pieces[i].iov_len - from;
            if (part > left)
                part = (size_t)left;
            if (part == 0)
                continue;
            batch[batch_count++] = (struct iovec){ .iov_base = (char *)pieces[i].iov_base + from, .iov_len = part };
            left -= part;
        }
        assert(batch_count > 0);
        ssize_t moved = move(fd, batch, batch_count, (off_t)(offset + done));
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -errno;
        if (moved == 0)
            break;
        done += (uint64_t)moved;
        size_t step = skip + (size_t)moved;
        while (count > 0 && step >= pieces->iov_len) {
            step -= pieces->iov_len;
            pieces++;
            count--;
        }
        skip = step;
    }
    return (int64_t)done;
}

static uint64_t pieces_length(const struct iovec *pieces, int count)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += pieces[i].iov_len;
    return length;
}

static void content_etag(const struct iovec *pieces, int count, char ret_etag[STORE_ETAG_MAX])
{
    uint8_t hash[XXH128_BYTES];
    char text[2 * XXH128_BYTES + 1];
    hash_xxh128(pieces, count, hash);
    text_hex(hash, sizeof hash, text);
    snprintf(ret_etag, STORE_ETAG_MAX, "%s-%llu", text, (unsigned long long)pieces_length(pieces, count));
}

/* The ETag of the first `length` bytes of `pieces`. */
static void content_etag_of_part(const struct iovec *pieces, int count, uint64_t length, char ret_etag[STORE_ETAG_MAX])
{
    struct iovec *part = memory_array((size_t)count, sizeof *part);
    int used = 0;
    for (; used < count && length > 0; used++) {
        part[used] = pieces[used];
        if (part[used].iov_len > length)
            part[used].iov_len = (size_t)length;
        length -= part[used].iov_len;
    }
    content_etag(part, used, ret_etag);
    free(part);
}

static void file_etag(const struct stat *status, char ret_etag[STORE_ETAG_MAX])
{
    snprintf(ret_etag, STORE_ETAG_MAX, "file-%llu-%lld.%09ld-%lld", (unsigned long long)status->st_ino,
             (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec, (long long)status->st_size);
}

/* An object's file, opened for reading. */
static int open_object(const struct dir *dir, const char *verb, const char *key, const struct dir_path *path,
                       int *ret_fd, struct stat *ret_status, struct error *error)
{
    /* Without O_NONBLOCK, a pipe that somebody put there would hold the thread for ever. */
    int fd = openat(dir->root.objects_fd, path->text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(error, errno == ENOTDIR ? ENOENT : errno, "%s %s", verb, key);
    if (fstat(fd, ret_status) != 0 || !S_ISREG(ret_status->st_mode)) {
        close(fd);
        return error_set(error, EIO, "%s %s: objects/%s in %s is not a file", verb, key, path->text, dir->root.path);
    }
    *ret_fd = fd;
    return 0;
}

/* ---- get ---- */

struct get_job {
    const struct dir *dir;
    const struct store_get *get;
    struct store_got got;
    int failed;
    struct error error;
};

static int get_object(struct get_job *job)
{
    const struct store_get *get = job->get;
    struct dir_path path;
    int fd;
    struct stat status;
    dir_path_of(get->key, &path);
    int failed = open_object(job->dir, "get", get->key, &path, &fd, &status, &job->error);
    if (failed != 0)
        return failed;
    uint64_t size = (uint64_t)status.st_size;
    uint64_t wanted = pieces_length(get->pieces, get->count);
    uint64_t there = get->offset < size ? size - get->offset : 0;
    uint64_t length = wanted < there ? wanted : there;
    int64_t moved = transfer(fd, get->pieces, get->count, get->offset, length, preadv);
    close(fd);
    if (moved < 0)
        return error_set_errno(&job->error, (int)-moved, "get %s", get->key);
    if ((uint64_t)moved < length)
        return error_set(&job->error, EIO, "get %s: its file in %s became shorter", get->key, job->dir->root.path);
    job->got.length = length;
    job->got.size = size;
    if (length == size)
        content_etag_of_part(get->pieces, get->count, length, job->got.etag);
    else
        file_etag(&status, job->got.etag);
    return 0;
}

static void get_work(void *arg)
{
    struct get_job *job = arg;
    job->failed = get_object(job);
}

static int dir_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct dir *dir = dir_of(store);
    struct get_job job = { .dir = dir, .get = get };
    loop_work(dir->loop, get_work, &job);
    if (job.failed != 0)
        return error_copy(error, &job.error);
    *ret_got = job.got;
    return 0;
}

/* ---- locks ---- */

/* 0 and the lock, to be closed; -EBUSY when another has it. */
static int lock_try(const struct dir *dir, const char *key, int *ret_fd, struct error *error)
{
    struct iovec piece = { .iov_base = (void *)(uintptr_t)key, .iov_len = strlen(key) };
    uint8_t hash[XXH128_BYTES];
    char name[3], holder[32] = "";
    hash_xxh128(&piece, 1, hash);
    text_hex(hash, 1, name);
    int fd = openat(dir->root.locks_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set_errno(error, errno, "open the lock %s/locks/%s", dir->root.path, name);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        /* For the message below, in other processes; nothing depends on it. */
        int length = snprintf(holder, sizeof holder, "%-20d\n", (int)getpid());
        ssize_t written = pwrite(fd, holder, (size_t)length, 0);
        (void)written;
        *ret_fd = fd;
        return 0;
    }
    int code = errno;
    ssize_t length = pread(fd, holder, sizeof holder - 1, 0);
    close(fd);
    if (code != EWOULDBLOCK)
        return error_set_errno(error, code, "take the lock %s/locks/%s", dir->root.path, name);
    return error_set(error, EBUSY,
                     "the lock %s/locks/%s has been held for more than %d s by process %.*s: is it stopped?",
                     dir->root.path, name, (int)(LOCK_WAIT_NS / NS_PER_S), length > 0 ? (int)strcspn(holder, " \n") : 1,
                     length > 0 ? holder : "?");
}

/* A job that may find its lock taken: `work` is called again, a little later each time, until it does not.
 * 0, -ETIMEDOUT or -ECANCELED. */
CO static int work_with_lock(struct dir *dir, void (*work)(void *arg), void *arg, const bool *busy)
{
    uint64_t deadline_ns = loop_now_ns(dir->loop) + LOCK_WAIT_NS, pause_ns = LOCK_RETRY_FIRST_NS;
    for (;;) {
        loop_work(dir->loop, work, arg);
        if (!*busy)
            return 0;
        if (loop_now_ns(dir->loop) >= deadline_ns)
            return -ETIMEDOUT;
        if (sleep_ns(pause_ns) != 0)
            return -ECANCELED;
        pause_ns = pause_ns * 2 < LOCK_RETRY_MAX_NS ? pause_ns * 2 : LOCK_RETRY_MAX_NS;
    }
}

/* ---- put ---- */

struct put_job {
    const struct dir *dir;
    const struct store_put *put;
    struct dir_path path;
    int directory_fd;
    bool directory_opened; /* by this job: its owner keeps or closes it */
    char temporary[24];
    bool written; /* the temporary file is there, complete and synced */
    bool busy;    /* another has the lock: nothing was done but the writing */
    bool want_etag;
    char etag[STORE_ETAG_MAX];
    int failed;
    struct error error;
};

/* -EEXIST and -ESTALE are verdicts on the condition; from anywhere else they are mere trouble. */
static int trouble(struct put_job *job, int code, const char *what)
{
    if (code == EEXIST || code == ESTALE)
        code = EIO;
    return error_set_errno(&job->error, code, "put %s: %s in %s", job->put->key, what, job->dir->root.path);
}

/* Opens the directory of the object, makes what is missing on the way, and syncs every step of the way. */
static int open_object_directory(struct put_job *job)
{
    char path[DIR_PATH_MAX];
    memcpy(path, job->path.text, job->path.directory_length);
    path[job->path.directory_length] = '\0';
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(job->dir->root.objects_fd, ".", flags);
    if (fd < 0)
        return trouble(job, errno, "open objects/");
    for (char *rest = path, *name; (name = strsep(&rest, "/")) != NULL && *name != '\0';) {
        int made = mkdirat(fd, name, 0700);
        if (made != 0 && errno != EEXIST) {
            int code = errno;
            close(fd);
            return trouble(job, code, "make a directory");
        }
        int next = fsync(fd) == 0 ? openat(fd, name, flags) : -1;
        int code = errno;
        close(fd);
        if (next < 0)
            return trouble(job, code, "make a directory");
        fd = next;
    }
    job->directory_fd = fd;
    job->directory_opened = true;
    return 0;
}

static void remove_temporary(struct put_job *job)
{
    unlinkat(job->dir->root.session_fd, job->temporary, 0);
}

static int write_temporary(struct put_job *job)
{
    const struct store_put *put = job->put;
    int fd =
        openat(job->dir->root.session_fd, job->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return trouble(job, errno, "make a file");
    uint64_t length = pieces_length(put->pieces, put->count);
    int64_t moved = transfer(fd, put->pieces, put->count, 0, length, pwritev);
    const char *what = "write";
    int code = moved < 0 ? (int)-moved : (uint64_t)moved < length ? EIO : 0;
    if (code == 0 && fsync(fd) != 0) {
        what = "sync";
        code = errno;
    }
    if (close(fd) != 0 && code == 0)
        code = errno;
    if (code != 0) {
        remove_temporary(job);
        return trouble(job, code, what);
    }
    if (job->want_etag)
        content_etag(put->pieces, put->count, job->etag);
    job->written = true;
    return 0;
}

static int sync_directory(struct put_job *job)
{
    if (fsync(job->directory_fd) != 0)
        return trouble(job, errno, "sync the directory");
    return 0;
}

/* Gives the temporary file its name unless that exists: 0 or -errno; the temporary name is gone in any case. */
static int rename_if_absent(struct put_job *job)
{
    const char *name = job->path.text + job->path.name_at;
    int from = job->dir->root.session_fd;
    if (renameat2(from, job->temporary, job->directory_fd, name, RENAME_NOREPLACE) == 0)
        return 0;
    int code = errno;
    if (code == EINVAL || code == ENOSYS)
        code = linkat(from, job->temporary, job->directory_fd, name, 0) == 0 ? 0 : errno;
    remove_temporary(job);
    return -code;
}

static int publish_absent(struct put_job *job)
{
    int renamed = rename_if_absent(job);
    if (renamed != 0 && renamed != -EEXIST)
        return trouble(job, -renamed, "name the file");
    int failed = sync_directory(job);
    if (failed != 0)
        return failed;
    return renamed == 0 ? 0 : error_set_errno(&job->error, EEXIST, "put %s", job->put->key);
}

/* 0 when the object that is there has the ETag that it must have; -ESTALE; or other trouble. */
static int check_match(struct put_job *job)
{
    const char *key = job->put->key;
    int fd;
    struct stat status;
    int failed = open_object(job->dir, "put", key, &job->path, &fd, &status, &job->error);
    if (failed == -ENOENT)
        return error_set(&job->error, ESTALE, "put %s: the object to replace is gone", key);
    if (failed != 0)
        return trouble(job, -failed, "read the object to replace");
    if ((uint64_t)status.st_size > STORE_OBJECT_MAX) {
        close(fd);
        return error_set(&job->error, EFBIG, "put %s: the object to replace is none of ours, %lld bytes", key,
                         (long long)status.st_size);
    }
    size_t length = (size_t)status.st_size;
    uint8_t *bytes = memory_resize(NULL, length, 1);
    struct iovec piece = { .iov_base = bytes, .iov_len = length };
    int64_t moved = transfer(fd, &piece, 1, 0, length, preadv);
    close(fd);
    char etag[STORE_ETAG_MAX] = "";
    if (moved == (int64_t)length)
        content_etag(&piece, 1, etag);
    free(bytes);
    if (moved != (int64_t)length)
        return trouble(job, moved < 0 ? (int)-moved : EIO, "read the object to replace");
    if (strcmp(etag, job->put->etag) != 0)
        return error_set(&job->error, ESTALE, "put %s: the object has changed", key);
    return 0;
}

/* ANY and MATCHES. */
static int publish_locked(struct put_job *job)
{
    int lock;
    int failed = lock_try(job->dir, job->put->key, &lock, &job->error);
    if (failed == -EBUSY) {
        job->busy = true;
        return failed;
    }
    if (failed != 0) {
        remove_temporary(job);
        return trouble(job, -failed, "lock");
    }
    if (job->put->condition == STORE_MATCHES)
        failed = check_match(job);
    bool renamed = false;
    if (failed == 0) {
        renamed = renameat(job->dir->root.session_fd, job->temporary, job->directory_fd,
                           job->path.text + job->path.name_at) == 0;
        if (!renamed)
            failed = trouble(job, errno, "name the file");
    }
    if (!renamed)
        remove_temporary(job);
    if (renamed || failed == -ESTALE) {
        int synced = sync_directory(job);
        failed = synced != 0 ? synced : failed;
    }
    close(lock);
    return failed;
}

static int put_object(struct put_job *job)
{
    int failed = 0;
    job->busy = false;
    if (job->directory_fd < 0)
        failed = open_object_directory(job);
    if (failed == 0 && !job->written)
        failed = write_temporary(job);
    if (failed != 0)
        return failed;
    return job->put->condition == STORE_ABSENT ? publish_absent(job) : publish_locked(job);
}

static void put_work(void *arg)
{
    struct put_job *job = arg;
    job->failed = put_object(job);
}

static void put_abandon(void *arg)
{
    remove_temporary(arg);
}

static int dir_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX], struct error *error)
{
    struct dir *dir = dir_of(store);
    if (dir->root.session_fd < 0)
        return error_set(error, EROFS, "put %s: the directory %s cannot be written to", put->key, dir->root.path);
    struct put_job job = { .dir = dir, .put = put, .directory_fd = -1, .want_etag = ret_etag != NULL };
    dir_path_of(put->key, &job.path);
    struct directory *directory = directory_use(dir, &job.path);
    if (directory != NULL)
        job.directory_fd = directory->fd;
    snprintf(job.temporary, sizeof job.temporary, "%llu", (unsigned long long)dir->next_temporary++);

    int waited = work_with_lock(dir, put_work, &job, &job.busy);
    if (waited != 0) {
        loop_work(dir->loop, put_abandon, &job);
        job.failed = waited == -ETIMEDOUT ? error_context(&job.error, "put %s", put->key)
                                          : error_set(&job.error, ECANCELED, "put %s: given up", put->key);
    }

    if (directory != NULL) {
        directory->gone |= job.failed == -ENOENT;
        directory_release(dir, directory);
    } else if (job.directory_opened && job.failed != -ENOENT) {
        directory_learn(dir, &job.path, job.directory_fd);
    } else if (job.directory_opened) {
        close(job.directory_fd);
    }
    if (job.failed != 0)
        return error_copy(error, &job.error);
    if (ret_etag != NULL)
        memcpy(ret_etag, job.etag, STORE_ETAG_MAX);
    return 0;
}

/* ---- delete ---- */

struct delete_job {
    const struct dir *dir;
    const char *key;
    bool busy;
    int failed;
    struct error error;
};

static int unlink_and_sync(struct delete_job *job)
{
    struct dir_path path;
    dir_path_of(job->key, &path);
    if (unlinkat(job->dir->root.objects_fd, path.text, 0) != 0 && errno != ENOENT && errno != ENOTDIR)
        return error_set_errno(&job->error, errno, "delete %s in %s", job->key, job->dir->root.path);
    /* Also when it was gone already: whoever deleted it may not have lived to sync. */
    path.text[path.directory_length] = '\0';
    int fd = openat(job->dir->root.objects_fd, path.directory_length > 0 ? path.text : ".",
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    int code = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return code == 0 ? 0 : error_set_errno(&job->error, code, "delete %s: sync in %s", job->key, job->dir->root.path);
}

static void delete_work(void *arg)
{
    struct delete_job *job = arg;
    int lock;
    job->failed = lock_try(job->dir, job->key, &lock, &job->error);
    job->busy = job->failed == -EBUSY;
    if (job->failed != 0)
        return;
    job->failed = unlink_and_sync(job);
    close(lock);
}

static int dir_delete(struct store *store, const char *key, struct error *error)
{
    struct dir *dir = dir_of(store);
    if (dir->root.session_fd < 0)
        return error_set(error, EROFS, "delete %s: the directory %s cannot be written to", key, dir->root.path);
    struct delete_job job = { .dir = dir, .key = key };
    int waited = work_with_lock(dir, delete_work, &job, &job.busy);
    if (waited == -ECANCELED)
        return error_set(error, ECANCELED, "delete %s: given up", key);
    if (waited != 0)
        error_context(&job.error, "delete %s", key);
    return job.failed == 0 ? 0 : error_copy(error, &job.error);
}

/* ---- list ---- */

struct list_job {
    const struct dir *dir;
    const char *prefix, *after;
    size_t limit;
    struct dir_window *window;
    struct store_listing listing;
    int failed;
    struct error error;
};

static void list_work(void *arg)
{
    struct list_job *job = arg;
    job->failed = dir_list_page(job->dir->root.objects_fd, job->prefix, job->after, job->limit, &job->window,
                                &job->listing, &job->error);
}

static int dir_list(struct store *store, const char *prefix, const char *after, size_t limit,
                    struct store_listing *ret_listing, struct error *error)
{
    struct dir *dir = dir_of(store);
    struct list_job job = { .dir = dir, .prefix = prefix, .after = after, .limit = limit, .window = dir->window };
    /* Another listing may run meanwhile: the window is one job's at a time, and the last one's stays. */
    dir->window = NULL;
    loop_work(dir->loop, list_work, &job);
    if (job.window != NULL) {
        dir_window_free(dir->window);
        dir->window = job.window;
    }
    if (job.failed != 0) {
        error_context(&job.error, "list %s in %s", prefix, dir->root.path);
        return error_copy(error, &job.error);
    }
    *ret_listing = job.listing;
    return 0;
}

/* ---- the store ---- */

/* What it could tell is this host's own wall clock. */
static uint64_t dir_date_ms(struct store *store)
{
    return 0;
}

static void dir_describe(struct store *store, char *ret_text, size_t capacity)
{
    snprintf(ret_text, capacity, "directory %s", dir_of(store)->root.path);
}

static void dir_close(struct store *store)
{
    struct dir *dir = dir_of(store);
    list_for_each_safe (node, &dir->directories) {
        struct directory *directory = container_of(node, struct directory, node);
        assert(directory->users == 0);
        directory_free(dir, directory);
    }
    dir_window_free(dir->window);
    dir_root_close(&dir->root);
    free(dir);
}

static const struct store_ops dir_ops = {
    .name = "dir",
    .get = dir_get,
    .put = dir_put,
    .delete = dir_delete,
    .list = dir_list,
    .date_ms = dir_date_ms,
    .describe = dir_describe,
    .close = dir_close,
};

int store_dir_open(struct loop *loop, const char *path, bool create, struct store **ret_store, struct error *error)
{
    struct dir_root root;
    int failed = dir_root_open(path, create, loop_random_u64(loop), &root, error);
    if (failed != 0)
        return failed;
    struct dir *dir = memory_new(sizeof *dir);
    dir->store.ops = &dir_ops;
    dir->loop = loop;
    dir->root = root;
    list_init(&dir->directories);
    *ret_store = &dir->store;
    return 0;
}
