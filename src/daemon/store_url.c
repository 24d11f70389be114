/* Which kind of store a URL names; what else may be meant is told apart here, so
 * that the message can say what to write. */
#include "daemon/store_url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "store/s3_url.h"

#define DIRECTORY "dir:"

static bool begins(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

static int check_s3(const char *url, struct error *error)
{
    char *bucket, *prefix;

    int result = s3_url_parse(url, &bucket, &prefix, error);
    if (result < 0)
        return result;
    free(bucket);
    free(prefix);
    return 0;
}

int store_url_check(const char *url, struct error *error)
{
    if (store_url_is_s3(url))
        return check_s3(url, error);
    if (strcmp(url, DIRECTORY) == 0)
        return error_set(error, EINVAL, "'%s' names no directory: write dir:PATH", url);
    if (begins(url, DIRECTORY))
        return 0;
    if (url[0] == '/' || url[0] == '.')
        return error_set(error, EINVAL, "'%s' is no store: write dir:%s", url, url);
    if (begins(url, "http://") || begins(url, "https://"))
        return error_set(error, EINVAL,
                         "'%s' is no store: write s3://BUCKET/PREFIX, and give the address of S3 with --s3-endpoint",
                         url);
    return error_set(error, EINVAL, "'%s' is no store: write dir:PATH or s3://BUCKET/PREFIX", url);
}

bool store_url_is_s3(const char *url)
{
    return strncasecmp(url, "s3:", 3) == 0;
}

const char *store_url_directory(const char *url)
{
    return begins(url, DIRECTORY) ? url + strlen(DIRECTORY) : NULL;
}

bool store_url_is_local(const char *url)
{
    /* store/dir.c refuses directories on network file systems. */
    return begins(url, DIRECTORY);
}
