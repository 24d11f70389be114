/* dir:PATH is the one kind of store so far; what else may be meant is told apart
 * here, so that the message can say what to write. */
#include "daemon/store_url.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "store/store.h"

#define DIRECTORY "dir:"

int store_url_check(const char *url, struct error *error)
{
    if (strncmp(url, "s3:", 3) == 0)
        return error_set(error, EINVAL, "'%s': this release has no S3 yet: keep the disks in a directory, dir:PATH",
                         url);
    if (strcmp(url, DIRECTORY) == 0)
        return error_set(error, EINVAL, "'%s' names no directory: write dir:PATH", url);
    if (strncmp(url, DIRECTORY, strlen(DIRECTORY)) == 0)
        return 0;
    if (url[0] == '/' || url[0] == '.')
        return error_set(error, EINVAL, "'%s' is no store: write dir:%s", url, url);
    return error_set(error, EINVAL, "'%s' is no store: write dir:PATH", url);
}

bool store_url_is_local(const char *url)
{
    /* store/dir.c refuses directories on network file systems. */
    return strncmp(url, DIRECTORY, strlen(DIRECTORY)) == 0;
}

int store_url_open(struct loop *loop, const char *url, bool create, struct store **ret_store, struct error *error)
{
    int result = store_url_check(url, error);

    if (result < 0)
        return result;
    return store_dir_open(loop, url + strlen(DIRECTORY), create, ret_store, error);
}
