/* Lock files: an owner is dead only when its very own file is there and free. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "daemon/host.h"

static char directory[] = "/tmp/cairn-test-host-XXXXXX";

static struct host *make_host(const char *path, bool local)
{
    struct host_setup setup = { .lock_directory = path, .store_is_local = local };
    struct host *host;
    struct error trouble;

    host_new(&setup, &host, &trouble);
    if (trouble.code != 0)
        fail_msg("%s", trouble.story);
    return host;
}

/* What a process that came and went had signed; `clean`: it ended as it should. */
static struct register_body signed_by_another(bool clean)
{
    struct register_body body = { 0 };
    int pipes[2], status;

    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct host *host = make_host(directory, false);
        host->ops->sign(host, &body);
        if (write(pipes[1], &body, sizeof body) != sizeof body)
            _exit(1);
        if (clean)
            host_free(host, true);
        _exit(0);
    }
    assert_int_equal(read(pipes[0], &body, sizeof body), sizeof body);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return body;
}

static void test_alive(void **state)
{
    struct host *owner = make_host(directory, false), *other = make_host(directory, false);
    struct register_body body = { 0 };

    owner->ops->sign(owner, &body);
    assert_int_equal(body.process, getpid());
    assert_true(body.host[0] != '\0');
    assert_int_equal(strncmp(body.lock_path, directory, strlen(directory)), 0);
    assert_false(other->ops->owner_is_dead(other, &body));
    host_free(owner, true);
    assert_false(other->ops->owner_is_dead(other, &body)); /* absent: no proof */
    host_free(other, true);
}

/* Dead stays dead: a server that crashed may have owned many volumes. */
static void test_dead(void **state)
{
    struct register_body body = signed_by_another(false);
    struct host *host = make_host(directory, false);

    assert_true(host->ops->owner_is_dead(host, &body));
    assert_true(host->ops->owner_is_dead(host, &body));
    assert_int_equal(unlink(body.lock_path), 0);
    assert_false(host->ops->owner_is_dead(host, &body));
    host_free(host, true);
}

static void test_ended_cleanly(void **state)
{
    struct register_body body = signed_by_another(true);
    struct host *host = make_host(directory, false);

    assert_int_equal(access(body.lock_path, F_OK), -1);
    assert_false(host->ops->owner_is_dead(host, &body));
    host_free(host, true);
}

/* Something else under the same path, as in a container with mounts of its own. */
static void test_another_file(void **state)
{
    struct register_body body = signed_by_another(false), changed;
    struct host *host = make_host(directory, false);

    changed = body;
    changed.lock_inode++;
    assert_false(host->ops->owner_is_dead(host, &changed));
    changed = body;
    changed.lock_device++;
    assert_false(host->ops->owner_is_dead(host, &changed));
    changed = body;
    changed.lock_path[0] = '\0';
    assert_false(host->ops->owner_is_dead(host, &changed));
    snprintf(changed.lock_path, sizeof changed.lock_path, "%s/link", directory);
    assert_int_equal(symlink(body.lock_path, changed.lock_path), 0);
    assert_false(host->ops->owner_is_dead(host, &changed));
    unlink(changed.lock_path);
    snprintf(changed.lock_path, sizeof changed.lock_path, "%s/pipe", directory);
    assert_int_equal(mkfifo(changed.lock_path, 0600), 0);
    assert_false(host->ops->owner_is_dead(host, &changed));
    unlink(changed.lock_path);
    assert_true(host->ops->owner_is_dead(host, &body));
    unlink(body.lock_path);
    host_free(host, true);
}

static void test_other_boot(void **state)
{
    struct register_body body = signed_by_another(false);
    struct host *near = make_host(directory, true), *far = make_host(directory, false);

    body.boot_id[3] ^= 0x55;
    assert_true(near->ops->owner_is_dead(near, &body));
    assert_false(far->ops->owner_is_dead(far, &body));
    memset(body.boot_id, 0, sizeof body.boot_id); /* the owner could not tell */
    assert_false(near->ops->owner_is_dead(near, &body));
    unlink(body.lock_path);
    host_free(near, true);
    host_free(far, true);
}

/* A server that could not save everything leaves its file, for the next one to find it dead. */
static void test_unclean_end(void **state)
{
    struct host *owner = make_host(directory, false), *other = make_host(directory, false);
    struct register_body body = { 0 };

    owner->ops->sign(owner, &body);
    host_free(owner, false);
    assert_true(other->ops->owner_is_dead(other, &body));
    unlink(body.lock_path);
    host_free(other, true);
}

/* A directory that others can write to is not used: there is no lock then. */
static void test_foreign_directory(void **state)
{
    char path[64];
    struct host_setup setup = { .lock_directory = path };
    struct host *host;
    struct error trouble;
    struct register_body body = { 0 };

    snprintf(path, sizeof path, "%s/open", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0777), 0);
    host_new(&setup, &host, &trouble);
    assert_int_not_equal(trouble.code, 0);
    host->ops->sign(host, &body);
    assert_string_equal(body.lock_path, "");
    host_free(host, true);
    rmdir(path);
}

static int make_paths(void **state)
{
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_paths(void **state)
{
    return rmdir(directory); /* fails where a test left something behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_ended_cleanly),
        cmocka_unit_test(test_another_file),
        cmocka_unit_test(test_other_boot),
        cmocka_unit_test(test_unclean_end),
        cmocka_unit_test(test_foreign_directory),
    };

    return cmocka_run_group_tests(tests, make_paths, remove_paths);
}
