/* What the setting `store` may say: dir:PATH, s3://BUCKET, s3://BUCKET/PREFIX. */
#ifndef CAIRN_DAEMON_STORE_URL_H
#define CAIRN_DAEMON_STORE_URL_H

#include <stdbool.h>

struct error;

/* Whether `url` is one of a store that this release knows; -EINVAL with what to write. */
int store_url_check(const char *url, struct error *error);

/* Of one that was checked. */
bool store_url_is_s3(const char *url);
const char *store_url_directory(const char *url); /* the PATH; NULL: in S3 */
/* No other host can reach it. */
bool store_url_is_local(const char *url);

#endif
