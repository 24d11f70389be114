/* The contract of store/store.h, held against every store; then what only the directory store can get wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/in_loop.h"
#include "../lib/store_contract.h"
#include "base/memory.h"
#include "rt/wait.h"
#include "store/dir_internal.h"
#include "store/fault.h"
#include "store/store.h"

/* ---- the kernel's part, made to order ---- */

static uint32_t pretended_file_system; /* 0: the true one */
static bool pretended_old_rename;      /* renameat2() does not know its flags */

int fstatfs(int fd, struct statfs *status)
{
    int failed = (int)syscall(SYS_fstatfs, fd, status);
    if (failed == 0 && pretended_file_system != 0)
        status->f_type = (__typeof__(status->f_type))pretended_file_system;
    return failed;
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (pretended_old_rename) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

/* ---- directories ---- */

static char *directory_below(const char *parent)
{
    char path[64];
    snprintf(path, sizeof path, "%s/cairn-test-store-XXXXXX", parent);
    assert_non_null(mkdtemp(path));
    return memory_string(path);
}

static char *temporary_directory(void)
{
    return directory_below("/tmp");
}

/* In memory where there is such a place: for tests of what is done, which need no disk that is waited for. */
static char *quick_directory(void)
{
    return directory_below(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

static void remove_tree(char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", path, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
    free(path);
}

static size_t count_entries(const char *path, const char *below)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", path, below);
    DIR *stream = opendir(whole);
    assert_non_null(stream);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(stream);
    return count;
}

/* ---- every store, on its loop ---- */

enum kind { MEM, COUNT, FAULT, DIRECTORY, DIRECTORY_SIM };

struct run {
    enum kind kind;
    void (*test)(struct bench *bench);
};

static void run_in_loop(struct loop *loop, void *arg)
{
    const struct run *run = arg;
    struct bench bench = { .loop = loop };
    struct mem *mem = NULL;
    char *path = NULL;
    struct error error = ERROR_NONE;
    if (run->kind == DIRECTORY || run->kind == DIRECTORY_SIM) {
        path = quick_directory();
        assert_int_equal(store_dir_open(loop, path, true, &bench.store, &error), 0);
    } else {
        mem = mem_new();
        bench.store = store_mem_open(mem);
        if (run->kind == COUNT)
            bench.store = store_count_new(bench.store);
        if (run->kind == FAULT)
            bench.store = store_fault_new(
                loop_sim_world(loop), bench.store,
                &(struct fault_settings){ .way_there = { 1000, 5 * NS_PER_MS }, .way_back = { 0, 20 * NS_PER_MS } });
    }
    run->test(&bench);
    store_close(bench.store);
    if (path != NULL) {
        assert_int_equal(count_entries(path, "tmp"), 0);
        remove_tree(path);
    }
    mem_free(mem);
}

static void on_all(void (*test)(struct bench *bench))
{
    for (enum kind kind = MEM; kind <= DIRECTORY_SIM; kind++) {
        struct run run = { .kind = kind, .test = test };
        if (kind == DIRECTORY)
            in_real_loop(run_in_loop, &run);
        else
            in_sim_loop(17, run_in_loop, &run);
    }
}

static void test_conditions(void **state)
{
    on_all(contract_conditions);
}

static void test_ranges(void **state)
{
    on_all(contract_ranges);
}

static void test_whole_objects(void **state)
{
    on_all(contract_whole_objects);
}

static void test_large_objects(void **state)
{
    on_all(contract_large_objects);
}

static void test_listings(void **state)
{
    on_all(contract_listings);
}

static void test_listing_while_it_changes(void **state)
{
    on_all(contract_listing_while_it_changes);
}

static void test_unusual_keys(void **state)
{
    on_all(contract_unusual_keys);
}

static void test_races(void **state)
{
    on_all(contract_races);
}

static void test_old_rename(void **state)
{
    pretended_old_rename = true;
    struct run run = { .kind = DIRECTORY, .test = contract_conditions };
    in_real_loop(run_in_loop, &run);
    run.test = contract_races;
    in_real_loop(run_in_loop, &run);
    pretended_old_rename = false;
}

static void counts(struct bench *bench)
{
    struct store *store = store_count_new(bench->store);
    put_named(store, "a");
    assert_int_equal(put_text(store, "a", "xyz", STORE_ABSENT, NULL, NULL), -EEXIST);
    assert_int_equal(put_text(store, "b", "xyz", STORE_ABSENT, NULL, NULL), 0);
    assert_object(store, "b", "xyz", NULL);
    assert_absent(store, "c");
    assert_int_equal(store_delete(store, "b", NULL), 0);
    assert_int_equal(list_all(store, "", "", 10, NULL, NULL), 1);
    struct store_counts counts = store_count_read(store);
    assert_int_equal(counts.gets, 2);
    assert_int_equal(counts.puts, 3);
    assert_int_equal(counts.deletes, 1);
    assert_int_equal(counts.lists, 1);
    assert_int_equal(counts.failed, 0);
    assert_int_equal(counts.bytes_got, 3);
    assert_int_equal(counts.bytes_put, 4);
    assert_int_equal(counts.put_bytes_max, 3);
    bench->store = store; /* it is closed with it */
}

static void test_counts(void **state)
{
    struct run run = { .kind = MEM, .test = counts };
    in_sim_loop(1, run_in_loop, &run);
}

/* ---- the directory: what it must refuse ---- */

static int open_result; /* of the last try_open() */
static char open_story[ERROR_STORY_MAX];

static void open_in_loop(struct loop *loop, void *arg)
{
    struct store *store;
    struct error error = ERROR_NONE;
    open_result = store_dir_open(loop, arg, true, &store, &error);
    strcpy(open_story, error.story);
    if (open_result == 0)
        store_close(store);
}

static int try_open(const char *path)
{
    in_sim_loop(1, open_in_loop, (void *)(uintptr_t)path);
    return open_result;
}

static void open_without_create(struct loop *loop, void *arg)
{
    struct store *store;
    assert_int_equal(store_dir_open(loop, arg, false, &store, NULL), -ENOENT);
}

static void test_refusals(void **state)
{
    char *path = temporary_directory();
    char below[256];
    snprintf(below, sizeof below, "%s/a/b//c/", path);
    in_sim_loop(1, open_without_create, below);
    in_sim_loop(1, open_without_create, path);
    assert_int_equal(count_entries(path, "."), 0);
    assert_int_equal(try_open(below), 0);
    struct stat status;
    assert_int_equal(stat(below, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(try_open(below), 0);
    assert_int_equal(try_open(""), -EINVAL);

    /* Somebody's home. */
    assert_int_equal(try_open(path), -ENOTEMPTY);
    assert_non_null(strstr(open_story, "'a'"));
    assert_int_equal(count_entries(path, "."), 1);

    snprintf(below, sizeof below, "%s/file", path);
    int fd = open(below, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(try_open(below), -ENOTDIR);
    assert_non_null(strstr(open_story, "is not a directory"));
    snprintf(below, sizeof below, "%s/file/below", path);
    assert_int_equal(try_open(below), -ENOTDIR);

    snprintf(below, sizeof below, "%s/network", path);
    static const uint32_t refused[] = { NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC,
                                        SMB2_SUPER_MAGIC, AFS_SUPER_MAGIC,  AFS_FS_MAGIC,
                                        V9FS_MAGIC,       CEPH_SUPER_MAGIC, CODA_SUPER_MAGIC };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        pretended_file_system = refused[i];
        assert_int_equal(try_open(below), -EOPNOTSUPP);
        assert_non_null(strstr(open_story, "network file system"));
        assert_int_equal(count_entries(below, "."), 0);
    }
    pretended_file_system = EXT4_SUPER_MAGIC;
    assert_int_equal(try_open(below), 0);
    pretended_file_system = 0;
    remove_tree(path);
}

static void test_read_only_directory(void **state)
{
    char *path = temporary_directory();
    assert_int_equal(try_open(path), 0);
    if (geteuid() != 0) {
        char below[256];
        snprintf(below, sizeof below, "%s/tmp", path);
        chmod(below, 0500);
        assert_int_equal(try_open(path), -EACCES);
        chmod(below, 0700);
    } else if (mount(path, path, NULL, MS_BIND, NULL) == 0) {
        assert_int_equal(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
        int result = try_open(path);
        umount(path);
        assert_int_equal(result, -EROFS);
        assert_non_null(strstr(open_story, "write to the directory"));
    } else {
        remove_tree(path);
        skip();
    }
    remove_tree(path);
}

/* ---- running out ---- */

static void run_out(struct bench *bench, int expected)
{
    enum { LENGTH = 1 << 20 };
    uint8_t *bytes = memory_new(LENGTH);
    struct store *store = bench->store;
    struct iovec piece = { bytes, LENGTH };
    const struct store_put put = { .key = "v/x/data/1/2", .pieces = &piece, .count = 1, .condition = STORE_ABSENT };
    struct error error = ERROR_NONE;
    put_named(store, "small");
    assert_int_equal(store_put(store, &put, NULL, &error), -expected);
    assert_non_null(strstr(error.story, "v/x/data/1/2"));
    assert_non_null(strstr(error.story, strerror(expected)));
    assert_absent(store, "v/x/data/1/2");
    /* What was half written has given its room back. */
    assert_int_equal(put_bytes(store, "v/x/data/1/3", bytes, 100000, STORE_ABSENT, NULL, NULL), 0);
    assert_int_equal(put_bytes(store, "small", bytes, LENGTH, STORE_ANY, NULL, NULL), -expected);
    assert_object(store, "small", "small", NULL);
    free(bytes);
}

static void run_out_of_file_size(struct bench *bench)
{
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 512 << 10;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    run_out(bench, EFBIG);
    setrlimit(RLIMIT_FSIZE, &before);
}

static void test_too_large_a_file(void **state)
{
    struct run run = { .kind = DIRECTORY, .test = run_out_of_file_size };
    in_real_loop(run_in_loop, &run);
}

static void run_out_of_space(struct loop *loop, void *arg)
{
    struct bench bench = { .loop = loop };
    assert_int_equal(store_dir_open(loop, arg, true, &bench.store, NULL), 0);
    run_out(&bench, ENOSPC);
    store_close(bench.store);
    assert_int_equal(count_entries(arg, "tmp"), 0);
}

static void test_no_space(void **state)
{
    char *path = temporary_directory();
    if (mount("cairn-test", path, "tmpfs", 0, "size=640k") != 0) {
        remove_tree(path);
        skip();
    }
    in_real_loop(run_out_of_space, path);
    umount(path);
    remove_tree(path);
}

/* ---- several processes ---- */

#define PROCESSES 4
#define INCREMENTS 20

/* Runs fn in processes of their own; each must end well.  (The tests that do so come first, and check in a process
 * too: a child of a process that has threads is something that the thread sanitizer does not understand.) */
static void in_processes(int count, void (*fn)(struct loop *loop, void *arg), void *arg)
{
    pid_t children[PROCESSES];
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            in_real_loop(fn, arg);
            _exit(0);
        }
    }
    for (int i = 0; i < count; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

/* Counts up by compare-and-swap; and each process tries to make each of many objects. */
static void contend(struct loop *loop, void *arg)
{
    struct store *store;
    assert(store_dir_open(loop, arg, true, &store, NULL) == 0);
    int won = 0;
    for (int done = 0; done < INCREMENTS;) {
        char text[32], etag[STORE_ETAG_MAX];
        uint8_t *bytes;
        size_t length;
        int failed = store_get_whole(store, "counter", 100, &bytes, &length, etag, NULL);
        if (failed == -ENOENT) {
            failed = put_text(store, "counter", "1", STORE_ABSENT, NULL, NULL);
            assert(failed == 0 || failed == -EEXIST);
            done += failed == 0;
            continue;
        }
        assert(failed == 0 && length < sizeof text);
        memcpy(text, bytes, length);
        text[length] = '\0';
        free(bytes);
        snprintf(text, sizeof text, "%d", atoi(text) + 1);
        failed = put_text(store, "counter", text, STORE_MATCHES, etag, NULL);
        assert(failed == 0 || failed == -ESTALE);
        done += failed == 0;
    }
    for (int i = 0; i < INCREMENTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "v/x/log/%d", i);
        int failed = put_text(store, key, key, STORE_ABSENT, NULL, NULL);
        assert(failed == 0 || failed == -EEXIST);
        won += failed == 0;
    }
    char key[32], text[32];
    snprintf(key, sizeof key, "won/%d", (int)getpid());
    snprintf(text, sizeof text, "%d", won);
    assert(put_text(store, key, text, STORE_ABSENT, NULL, NULL) == 0);
    store_close(store);
}

static void check_contention(struct loop *loop, void *arg)
{
    struct store *store;
    char expected[32];
    assert_int_equal(store_dir_open(loop, arg, false, &store, NULL), 0);
    snprintf(expected, sizeof expected, "%d", PROCESSES * INCREMENTS);
    assert_object(store, "counter", expected, NULL);
    assert_int_equal(list_all(store, "v/x/log/", "", 1000, NULL, NULL), INCREMENTS);
    struct store_listing listing;
    int won = 0;
    assert_int_equal(store_list(store, "won/", "", 1000, &listing, NULL), 0);
    assert_int_equal(listing.count, PROCESSES);
    for (size_t i = 0; i < listing.count; i++) {
        uint8_t *bytes;
        size_t length;
        assert_int_equal(store_get_whole(store, listing.entries[i].key, 10, &bytes, &length, NULL, NULL), 0);
        char text[16] = "";
        memcpy(text, bytes, length);
        won += atoi(text);
        free(bytes);
    }
    assert_int_equal(won, INCREMENTS);
    store_listing_free(&listing);
    store_close(store);
    assert_int_equal(count_entries(arg, "tmp"), 0);
}

static void test_processes(void **state)
{
    char *path = quick_directory();
    in_processes(PROCESSES, contend, path);
    in_processes(1, check_contention, path);
    remove_tree(path);
}

/* ---- killed at any point ---- */

#define KILLS 12

static void write_for_ever(struct loop *loop, void *arg)
{
    struct store *store;
    assert(store_dir_open(loop, arg, true, &store, NULL) == 0);
    uint8_t *bytes = memory_new(100000);
    for (unsigned i = 0;; i++) {
        char key[64];
        memset(bytes, (int)(i % 256), 100000);
        snprintf(key, sizeof key, "v/x/log/%d/%u", (int)getpid(), i);
        assert(put_bytes(store, key, bytes, 100000, STORE_ABSENT, NULL, NULL) == 0);
        assert(put_bytes(store, "register", bytes, 100000, STORE_ANY, NULL, NULL) == 0);
    }
}

static void check_objects(struct loop *loop, void *arg)
{
    struct store *store;
    struct store_listing listing;
    assert_int_equal(store_dir_open(loop, arg, true, &store, NULL), 0);
    assert_int_equal(store_list(store, "", "", 1000, &listing, NULL), 0);
    for (size_t i = 0; i < listing.count; i++) {
        uint8_t *bytes;
        size_t length;
        assert_int_equal(store_get_whole(store, listing.entries[i].key, 200000, &bytes, &length, NULL, NULL), 0);
        assert_int_equal(length, 100000);
        for (size_t at = 1; at < length; at++)
            assert_int_equal(bytes[at], bytes[0]);
        free(bytes);
    }
    store_listing_free(&listing);
    /* Only our own session is left. */
    assert_int_equal(count_entries(arg, "tmp"), 1);
    store_close(store);
}

static void test_killed(void **state)
{
    char *path = temporary_directory();
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t child = fork();
        if (child == 0) {
            in_real_loop(write_for_ever, path);
            _exit(0);
        }
        usleep(15000 + 1713 * i);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        in_processes(1, check_objects, path);
    }
    remove_tree(path);
}

/* Leftovers of the dead go, those of the living stay. */
static void check_leftovers(struct loop *loop, void *arg)
{
    const char *path = arg;
    char below[512], file[600];
    struct store *first, *second;
    assert_int_equal(store_dir_open(loop, path, true, &first, NULL), 0);
    snprintf(below, sizeof below, "%s/tmp/4711-dead", path);
    assert_int_equal(mkdir(below, 0700), 0);
    snprintf(file, sizeof file, "%s/0", below);
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(count_entries(path, "tmp"), 2);
    assert_int_equal(store_dir_open(loop, path, true, &second, NULL), 0);
    assert_int_equal(access(below, F_OK), -1);
    assert_int_equal(count_entries(path, "tmp"), 2);
    put_named(first, "by/first");
    put_named(second, "by/second");
    store_close(first);
    assert_object(second, "by/first", "by/first", NULL);
    put_named(second, "by/second2");
    store_close(second);
    assert_int_equal(count_entries(path, "tmp"), 0);
}

static void test_leftovers(void **state)
{
    char *path = temporary_directory();
    in_real_loop(check_leftovers, path);
    remove_tree(path);
}

/* ---- odd things in the directory ---- */

static void check_strangers(struct loop *loop, void *arg)
{
    const char *path = arg;
    char below[512];
    struct store *store;
    assert_int_equal(store_dir_open(loop, path, true, &store, NULL), 0);
    put_named(store, "v/a");
    static const char *const strangers[] = { "objects/notes.txt",   "objects/UPPER.obj", "objects/v/b=6.obj",
                                             "objects/v/b=7Eb.obj", "objects/v/x+.obj",  "objects/.x.obj",
                                             "objects/=2e=2e.obj",  "objects/v/=00.obj", "objects/=61.obj" };
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        snprintf(below, sizeof below, "%s/%s", path, strangers[i]);
        int fd = open(below, O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    snprintf(below, sizeof below, "%s/objects/pipe.obj", path);
    assert_int_equal(mkfifo(below, 0600), 0);
    snprintf(below, sizeof below, "%s/objects/link.obj", path);
    assert_int_equal(symlink("v/a.obj", below), 0);
    snprintf(below, sizeof below, "%s/objects/linked", path);
    assert_int_equal(symlink("v", below), 0);
    assert_int_equal(list_all(store, "", "", 1000, NULL, NULL), 1);

    char bytes[10];
    struct iovec piece = { bytes, sizeof bytes };
    struct store_get get = { .key = "pipe", .pieces = &piece, .count = 1 };
    struct store_got got;
    assert_int_equal(store_get(store, &get, &got, NULL), -EIO);
    get.key = "link";
    assert_int_equal(store_get(store, &get, &got, NULL), -ELOOP);

    /* A directory that is removed under us is made again. */
    put_named(store, "gone/1");
    snprintf(below, sizeof below, "%s/objects/gone/1.obj", path);
    assert_int_equal(unlink(below), 0);
    snprintf(below, sizeof below, "%s/objects/gone", path);
    assert_int_equal(rmdir(below), 0);
    assert_int_equal(put_text(store, "gone/2", "x", STORE_ABSENT, NULL, NULL), -ENOENT);
    assert_int_equal(put_text(store, "gone/2", "x", STORE_ABSENT, NULL, NULL), 0);
    store_close(store);
}

static void test_strangers(void **state)
{
    char *path = temporary_directory();
    in_real_loop(check_strangers, path);
    remove_tree(path);
}

static void many_directories(struct bench *bench)
{
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 150; i++) {
            char key[64];
            snprintf(key, sizeof key, "v/%d/log/%d", i, round);
            put_named(bench->store, key);
        }
    assert_int_equal(list_all(bench->store, "v/", "", 1000, NULL, NULL), 300);
}

static void test_many_directories(void **state)
{
    struct run run = { .kind = DIRECTORY, .test = many_directories };
    in_real_loop(run_in_loop, &run);
}

/* ---- a lock that somebody sits on ---- */

struct sitter {
    struct store *store;
    const char *path;
    int result;
    struct error error;
};

static void lock_all(const char *path, int fds[256])
{
    for (unsigned i = 0; i < 256; i++) {
        char below[512];
        snprintf(below, sizeof below, "%s/locks/%02x", path, i);
        fds[i] = open(below, O_CREAT | O_RDWR, 0600);
        assert_true(fds[i] >= 0);
        assert_int_equal(flock(fds[i], LOCK_EX | LOCK_NB), 0);
        assert_int_equal(write(fds[i], "4711 \n", 6), 6);
    }
}

static void unlock_all(const int fds[256])
{
    for (unsigned i = 0; i < 256; i++)
        close(fds[i]);
}

static void put_locked(void *arg)
{
    struct sitter *sitter = arg;
    struct iovec piece = { (void *)(uintptr_t) "x", 1 };
    const struct store_put put = { .key = "register", .pieces = &piece, .count = 1, .condition = STORE_ANY };
    sitter->result = store_put(sitter->store, &put, NULL, &sitter->error);
}

static void check_locks(struct loop *loop, void *arg)
{
    int fds[256];
    struct sitter sitter = { .path = arg };
    assert_int_equal(store_dir_open(loop, arg, true, &sitter.store, NULL), 0);
    lock_all(arg, fds);
    uint64_t start_ns = loop_now_ns(loop);
    put_locked(&sitter);
    assert_int_equal(sitter.result, -EBUSY);
    assert_non_null(strstr(sitter.error.story, "process 4711"));
    assert_true(loop_now_ns(loop) - start_ns >= 5 * NS_PER_S);
    assert_absent(sitter.store, "register");
    assert_int_equal(store_delete(sitter.store, "register", NULL), -EBUSY);
    /* Making an object needs none of them. */
    put_named(sitter.store, "v/x/log/1");

    /* A cancel ends the wait; so does the lock's being given back. */
    struct group group;
    group_init(&group, loop);
    struct task *task = group_spawn(&group, "put", put_locked, &sitter);
    sleep_ns(NS_PER_S);
    task_cancel(task);
    group_join(&group);
    assert_int_equal(sitter.result, -ECANCELED);
    group_spawn(&group, "put", put_locked, &sitter);
    sleep_ns(NS_PER_S);
    unlock_all(fds);
    group_join(&group);
    assert_int_equal(sitter.result, 0);
    assert_object(sitter.store, "register", "x", NULL);
    store_close(sitter.store);
    assert_int_equal(count_entries(arg, "tmp"), 0);
}

static void test_locks(void **state)
{
    char *path = temporary_directory();
    in_sim_loop(3, check_locks, path);
    remove_tree(path);
}

/* ---- names ---- */

static void assert_path(const char *key, const char *expected, size_t directory_length)
{
    struct dir_path path;
    dir_path_of(key, &path);
    assert_string_equal(path.text, expected);
    assert_int_equal(path.directory_length, directory_length);
    assert_int_equal(path.name_at, directory_length > 0 ? directory_length + 1 : 0);
}

static void test_names(void **state)
{
    assert_path("cairn", "cairn.obj", 0);
    assert_path("volumes/n.my%20disk", "volumes/n.my%20disk.obj", 7);
    assert_path("v/0af/log/00000000000000000001", "v/0af/log/00000000000000000001.obj", 9);
    assert_path("a.obj/b.obj", "a=2eobj/b.obj.obj", 7);
    assert_path(".x/Y", "=2ex/=59.obj", 4);
    char key[302], expected[310];
    memset(key, 'a', 301);
    key[301] = '\0';
    memset(expected, 'a', 240);
    strcpy(expected + 240, "+/");
    memset(expected + 242, 'a', 61);
    strcpy(expected + 303, ".obj");
    assert_path(key, expected, 241);
}

/* More keys than one window of a listing holds. */
static void test_long_listing(void **state)
{
    enum { KEYS = 70000 };
    char *path = quick_directory();
    assert_int_equal(try_open(path), 0);
    char below[512];
    snprintf(below, sizeof below, "%s/objects/v", path);
    assert_int_equal(mkdir(below, 0700), 0);
    int fd = open(below, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < KEYS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%08d.obj", i * 11 % KEYS);
        int file = openat(fd, name, O_CREAT | O_EXCL | O_WRONLY, 0600);
        assert_true(file >= 0);
        close(file);
    }
    int objects_fd = openat(fd, "..", O_RDONLY | O_DIRECTORY);
    struct dir_window *window = NULL;
    char last[32] = "";
    int count = 0;
    for (bool more = true; more;) {
        struct store_listing listing;
        assert_int_equal(dir_list_page(objects_fd, "v/", last, STORE_LIST_MAX, &window, &listing, NULL), 0);
        for (size_t i = 0; i < listing.count; i++) {
            char expected[32];
            snprintf(expected, sizeof expected, "v/%08d", count++);
            assert_string_equal(listing.entries[i].key, expected);
        }
        if (listing.count > 0)
            strcpy(last, listing.entries[listing.count - 1].key);
        more = listing.more;
        store_listing_free(&listing);
    }
    assert_int_equal(count, KEYS);
    assert_null(window);
    close(objects_fd);
    close(fd);
    remove_tree(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_whole_objects),
        cmocka_unit_test(test_large_objects),
        cmocka_unit_test(test_listings),
        cmocka_unit_test(test_listing_while_it_changes),
        cmocka_unit_test(test_unusual_keys),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_old_rename),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_read_only_directory),
        cmocka_unit_test(test_too_large_a_file),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_many_directories),
        cmocka_unit_test(test_locks),
        cmocka_unit_test(test_long_listing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
