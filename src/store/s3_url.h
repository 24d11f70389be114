/* Where the objects of a bucket are: endpoint, addressing, keys as URLs. */
#ifndef CAIRN_STORE_S3_URL_H
#define CAIRN_STORE_S3_URL_H

#include <stdbool.h>

struct buffer;
struct error;

/* With its slash at the end: S3 allows keys of 1,024 bytes, of which STORE_KEY_MAX are the store's own. */
#define S3_PREFIX_MAX 256

enum s3_addressing { S3_ADDRESSING_AUTO, S3_ADDRESSING_PATH, S3_ADDRESSING_VIRTUAL };

struct s3_place {
    char *scheme;          /* "http" or "https" */
    char *authority;       /* what stands in the URL and in the header Host: "localhost:9000", "[::1]:9000",
                              "bucket.s3.eu-west-1.amazonaws.com"; in lower case, the scheme's default port left out */
    char *bucket, *prefix; /* the prefix "" or ending in '/' */
    bool virtual;          /* the bucket's name is in the authority, not in the path */
    bool loopback;         /* the endpoint's host is localhost or a loopback address */
    bool aws; /* no endpoint was given, or one of amazonaws.com (and the domains of AWS's other partitions) */
};

/* "s3://BUCKET" or "s3://BUCKET/PREFIX" into its parts, each owned by the caller.  The prefix comes without slashes at
 * its ends, and is checked: UTF-8, no empty components, no `.` or `..`, no control bytes, below S3_PREFIX_MAX bytes.
 * The bucket by S3's rules (3 to 63 of a-z 0-9 . -).  -EINVAL with what is wrong and what to write. */
int s3_url_parse(const char *url, char **ret_bucket, char **ret_prefix, struct error *error);

/* `endpoint`: NULL for AWS, else "http://HOST[:PORT]" or "https://…", IPv6 in brackets, nothing behind the port but one
 * '/' .  -EINVAL: without scheme, with a path, …: the story says what to write, and never repeats a password.  AUTO:
 * virtual-hosted for AWS (path for a bucket with dots, whose certificate would not match), path for all else.
 * Bucket and prefix are checked as above; the prefix may end in a slash or not. */
int s3_place_new(const char *endpoint, const char *region, const char *bucket, const char *prefix,
                 enum s3_addressing addressing, struct s3_place *ret_place, struct error *error);
void s3_place_free(struct s3_place *place); /* leaves it zeroed, which is fine to free again */

/* Appends the encoded path of the object `key` (under the prefix), or of the bucket itself when `key` is NULL: "/" or
 * "/bucket".  A NUL that is not counted stands behind it. */
void s3_place_path(const struct s3_place *place, const char *key, struct buffer *ret_path);

#endif
