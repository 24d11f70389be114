/* From the setting `store` to an open store that is known to be ours. */
#ifndef CAIRN_DAEMON_STORE_URL_H
#define CAIRN_DAEMON_STORE_URL_H

#include <stdbool.h>

#include "rt/coroutine.h"

struct error;
struct loop;
struct store;

/* Whether `url` is one of a store that this release knows: dir:PATH. */
int store_url_check(const char *url, struct error *error);
/* No other host can reach it. */
bool store_url_is_local(const char *url);

/* Opens it; `create` makes it where it does not exist.  What lies there may still be anything: see marker.h. */
int store_url_open(struct loop *loop, const char *url, bool create, struct store **ret_store, struct error *error);

#endif
