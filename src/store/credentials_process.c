/* credential_process: a command of the user's own that prints credentials.
 *
 * The command goes to /bin/sh -c, as in most of the AWS SDKs; one that needs no
 * shell means the same with it.  It runs in a process group of its own, with
 * nothing on its standard input and no descriptor of ours, on a thread of the
 * pool: the thread reads its output until it has ended.
 *
 *     running    its output is collected
 *     ended      it has exited; what is still in the pipes is read, then done.  A child that it left behind may hold
 *                the pipes open: nobody waits for that
 *     killed     the whole group, with SIGKILL: it took too long, printed too much, or the chain is being closed
 *
 * What can fail: starting it, a time-out, endless output, an exit status, and
 * output that is no document.  What it complained on its standard error is in
 * the story, words that look like secrets left out. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "rt/loop.h"
#include "store/credentials_internal.h"

/* Longer than a slow token service, shorter than somebody who is asked for a code. */
#define PROCESS_TIMEOUT_NS (60 * NS_PER_S)
#define OUTPUT_MAX ((size_t)64 << 10)   /* of a document of 1 to 4 KiB */
#define COMPLAINT_MAX ((size_t)1 << 20) /* of its standard error */
#define COMPLAINT_SHOWN 240
/* How often it is looked whether it has ended: the pipes tell that at once, unless a child of its own holds them. */
#define LOOK_MS 20

struct process {
    const char *command;
    int stop_fd;
    pid_t pid;
    int output_fd, complaint_fd; /* -1: at its end */
    struct buffer output, complaint;
    bool ended;
    int status;
    int failed;
    struct error error;
};

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- starting ---- */

/* Only our end does not block: the process expects its own to.  And its own lies above the standard descriptors, which
 * may be closed in us: there it would be overwritten by the other that is put there. */
static int make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int theirs = fcntl(ends[1], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int failed = theirs < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
    close(ends[1]);
    ends[1] = theirs;
    if (failed != 0) {
        close(ends[0]);
        if (theirs >= 0)
            close(theirs);
    }
    return failed;
}

static int make_pipes(int output[2], int complaint[2])
{
    int failed = make_pipe(output);
    if (failed != 0)
        return failed;
    failed = make_pipe(complaint);
    if (failed != 0) {
        close(output[0]);
        close(output[1]);
    }
    return failed;
}

/* 0 or a positive errno. */
static int spawn(struct process *process, int output_fd, int complaint_fd)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output_fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, complaint_fd, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char *arguments[] = { (char *)"sh", (char *)"-c", (char *)process->command, NULL };
    int failed = posix_spawn(&process->pid, "/bin/sh", &files, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return failed;
}

static int start(struct process *process)
{
    int output[2], complaint[2];
    int failed = make_pipes(output, complaint);
    if (failed != 0)
        return error_set_errno(&process->error, -failed, "make a pipe");
    failed = spawn(process, output[1], complaint[1]);
    close(output[1]);
    close(complaint[1]);
    process->output_fd = output[0];
    process->complaint_fd = complaint[0];
    return failed != 0 ? error_set_errno(&process->error, failed, "start /bin/sh") : 0;
}

/* ---- reading ---- */

/* Takes what is there.  Returns false once more than `max` came. */
static bool drain(int *fd, struct buffer *buffer, size_t max)
{
    while (*fd >= 0) {
        buffer_reserve(buffer, 4096);
        ssize_t part = read(*fd, buffer->data + buffer->length, 4096);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0 && errno == EAGAIN)
            break;
        if (part <= 0) {
            close(*fd);
            *fd = -1;
            break;
        }
        buffer->length += (size_t)part;
        if (buffer->length > max)
            return false;
    }
    return true;
}

/* Without reaping it, so that its number stays its own as long as the group may have to be killed. */
static void look_whether_ended(struct process *process)
{
    siginfo_t info = { 0 };
    int failed = waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    process->ended = failed == 0 ? info.si_pid == process->pid : errno == ECHILD;
}

/* Where SIGCHLD is ignored (by whoever started us) nobody can tell the status: then its output decides. */
static void reap(struct process *process)
{
    pid_t pid;
    do
        pid = waitpid(process->pid, &process->status, 0);
    while (pid < 0 && errno == EINTR);
    if (pid < 0)
        process->status = 0;
}

static int read_to_end(struct process *process)
{
    uint64_t deadline_ns = clock_ns() + PROCESS_TIMEOUT_NS;
    for (;;) {
        look_whether_ended(process); /* before the pipes: what it wrote is in them by now */
        if (!drain(&process->output_fd, &process->output, OUTPUT_MAX))
            return error_set(&process->error, EPROTO, "it printed more than %zu KiB", OUTPUT_MAX >> 10);
        if (!drain(&process->complaint_fd, &process->complaint, COMPLAINT_MAX))
            return error_set(&process->error, EPROTO, "it complained more than %zu KiB", COMPLAINT_MAX >> 10);
        if (process->ended)
            return 0;
        if (clock_ns() >= deadline_ns)
            return error_set(&process->error, ETIMEDOUT, "it had not ended after %d s",
                             (int)(PROCESS_TIMEOUT_NS / NS_PER_S));
        struct pollfd watched[] = {
            { .fd = process->output_fd, .events = POLLIN },
            { .fd = process->complaint_fd, .events = POLLIN },
            { .fd = process->stop_fd, .events = POLLIN },
        };
        poll(watched, 3, LOOK_MS);
        if ((watched[2].revents & POLLIN) != 0)
            return error_set(&process->error, ECANCELED, "given up");
    }
}

static int judge(struct process *process)
{
    char shown[COMPLAINT_SHOWN] = "";
    size_t length = process->complaint.length < 1024 ? process->complaint.length : 1024;
    if (length > 0)
        secret_redact((const char *)process->complaint.data, length, shown, sizeof shown);
    const char *between = shown[0] != '\0' ? ": " : "";
    if (WIFSIGNALED(process->status))
        return error_set(&process->error, EIO, "it was ended by signal %d%s%s", WTERMSIG(process->status), between,
                         shown);
    if (WEXITSTATUS(process->status) != 0)
        return error_set(&process->error, EIO, "it ended with status %d%s%s", WEXITSTATUS(process->status), between,
                         shown);
    return 0;
}

static void run(void *arg)
{
    struct process *process = arg;
    process->failed = start(process);
    if (process->failed == 0) {
        process->failed = read_to_end(process);
        if (process->failed != 0)
            kill(-process->pid, SIGKILL);
        reap(process);
        if (process->failed == 0)
            process->failed = judge(process);
    }
    if (process->output_fd >= 0)
        close(process->output_fd);
    if (process->complaint_fd >= 0)
        close(process->complaint_fd);
}

int credentials_run_process(const struct sourcing *sourcing, const char *command, struct secrets *ret_secrets,
                            struct error *error)
{
    struct process process = { .command = command, .stop_fd = sourcing->stop_fd, .output_fd = -1, .complaint_fd = -1 };
    loop_work(sourcing->loop, run, &process);
    int failed = process.failed;
    if (failed == 0)
        failed = credentials_parse_json(DOCUMENT_PROCESS, process.output.data, process.output.length, ret_secrets,
                                        &process.error);
    secret_buffer_free(&process.output);
    secret_buffer_free(&process.complaint);
    if (failed != 0) {
        error_copy(error, &process.error);
        return error_context(error, "credential_process");
    }
    return 0;
}
