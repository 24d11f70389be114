/* From the settings to an open store that is known to be ours, and to work.
 *
 * Where a store is and how it is reached is settled once, in a struct
 * store_access; a server looks it over with store_access_prepare(), and then
 * each of its threads opens it without asking again. */
#ifndef CAIRN_DAEMON_STORE_ACCESS_H
#define CAIRN_DAEMON_STORE_ACCESS_H

#include "rt/coroutine.h"

struct buffer;
struct config;
struct error;
struct event_sink;
struct loop;
struct s3_setup;
struct store;
struct store_access;

/* Blocking: reads what AWS's files and variables say of region and endpoint.  `config` must outlive it. */
int store_access_new(const struct config *config, struct event_sink *events, struct store_access **ret_access,
                     struct error *error);
void store_access_free(struct store_access *access); /* NULL is fine */

/* Appends "dir:/srv/disks", "s3://disks at http://localhost:9000", "s3://disks at AWS in eu-west-1". */
void store_access_describe(const struct store_access *access, struct buffer *ret_text);
/* How S3 is set up; NULL: the store is a directory. */
const struct s3_setup *store_access_s3(const struct store_access *access);
/* "s3-endpoint", "AWS's settings", "the default": what says where endpoint and region are, for `cairn doctor`. */
const char *store_access_endpoint_origin(const struct store_access *access);
const char *store_access_region_origin(const struct store_access *access);

/* Opens the store.  A bucket is not asked for: for threads, once it has been.  May be called from several at once. */
CO int store_access_open(const struct store_access *access, struct loop *loop, struct store **ret_store,
                         struct error *error);

/* Opens the store and sees to it that it is there: -ENOENT with what to do where it is not.  A bucket in another region
 * is followed there, now and by later calls.  What lies in it may still be anything: see marker.h. */
CO int store_access_reach(struct store_access *access, struct loop *loop, struct store **ret_store,
                          struct error *error);

/* For a server: makes the store where there is none and that is permitted, refuses one that is not ours or does not
 * keep the promises that volumes stand on, and marks a new one as ours. */
CO int store_access_prepare(struct store_access *access, struct loop *loop, struct error *error);

/* The checks of a bucket's settings, one by one, for `cairn doctor`; of stores in S3 only.  0: as it should be;
 * 1: usable, and the story of `error` says what the operator should know; -errno: refused, or not known (-EACCES). */
CO int store_access_check_versioning(const struct store_access *access, struct store *store, struct error *error);
CO int store_access_check_lifecycle(const struct store_access *access, struct store *store, struct error *error);

#endif
