/* Variables and small files that the credential chain reads.
 *
 * A variable that is empty counts as not set, as in the AWS SDKs: that is how
 * people switch one off.  A file is read whole, in one go, by somebody who may
 * block; only regular files are (a FIFO could keep a thread for ever), and
 * /dev/null and the like count as empty.
 *
 * What can fail: a file that is not there, not readable, too large, or holds a
 * NUL. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "store/credentials_internal.h"

const char *environment_text(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

bool environment_true(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && strcasecmp(value, "true") == 0;
}

static int read_all(int fd, const char *path, struct buffer *bytes, struct error *error)
{
    for (;;) {
        buffer_reserve(bytes, 4096 + 1);
        ssize_t part = read(fd, bytes->data + bytes->length, 4096);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return error_set_errno(error, errno, "read %s", path);
        bytes->length += (size_t)part;
        if (bytes->length > CREDENTIALS_FILE_MAX)
            return error_set(error, EINVAL, "%s has more than %zu KiB", path, CREDENTIALS_FILE_MAX >> 10);
        if (part == 0)
            break;
    }
    if (bytes->length > 0 && memchr(bytes->data, 0, bytes->length) != NULL)
        return error_set(error, EINVAL, "%s is not text: it has a NUL in it", path);
    bytes->data[bytes->length] = '\0';
    return 0;
}

int credentials_read_file(const char *path, struct buffer *ret_bytes, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(error, errno, "open %s", path);
    struct buffer bytes = BUFFER_EMPTY;
    struct stat status;
    int failed;
    if (fstat(fd, &status) < 0)
        failed = error_set_errno(error, errno, "look at %s", path);
    else if (S_ISREG(status.st_mode) || S_ISCHR(status.st_mode))
        failed = read_all(fd, path, &bytes, error);
    else
        failed = error_set(error, EINVAL, "%s is not a regular file", path);
    close(fd);
    if (failed == 0)
        *ret_bytes = bytes;
    else
        secret_buffer_free(&bytes);
    return failed;
}

/* ---- tokens ---- */

struct token_work {
    const char *path;
    char *token;
    int failed;
    struct error error;
};

static void read_token(void *arg)
{
    struct token_work *work = arg;
    struct buffer bytes;
    work->failed = credentials_read_file(work->path, &bytes, &work->error);
    if (work->failed != 0)
        return;
    const char *text = (const char *)bytes.data;
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    bool one_line = true;
    for (size_t i = 0; i < length; i++)
        one_line &= (unsigned char)text[i] >= ' ' && text[i] != 0x7f;
    if (length == 0) {
        work->failed = error_set(&work->error, EINVAL, "%s is empty", work->path);
    } else if (!one_line) {
        work->failed = error_set(&work->error, EINVAL, "%s holds more than one line, or control bytes", work->path);
    } else {
        work->token = memory_new(length + 1);
        memcpy(work->token, text, length);
    }
    secret_buffer_free(&bytes);
}

int credentials_read_token(struct loop *loop, const char *path, char **ret_token, struct error *error)
{
    struct token_work work = { .path = path };
    loop_work(loop, read_token, &work);
    /* A file that is not there is a mistake here, not an absence. */
    if (work.failed == -ENOENT)
        work.error.code = EINVAL;
    if (work.failed != 0)
        return error_copy(error, &work.error);
    *ret_token = work.token;
    return 0;
}
