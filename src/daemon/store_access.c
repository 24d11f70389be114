/* Opening the store, and what a server sees to before it trusts it.
 *
 * A directory is opened, and that is all.  In S3 a start asks, one after the
 * other, so that each failure has a line of its own:
 *
 *   the bucket      there, for us, in this region; else followed to its region,
 *                   or made where that is permitted
 *   the marker      ours, or empty: nothing is written to a place that is not
 *   its settings    no rule that deletes objects; no versioning where that breaks
 *                   conditional writes
 *   the promises    store/probe.h; from its verdict, if there is a fresh one
 *
 * With a verdict these are five small requests.  Commands that only look make
 * the first two.
 *
 * Region and endpoint may stand in the files and variables of AWS's tools as
 * well; they are read once, so that all threads mean the same place.  Keys are
 * sought by the store itself (store/credentials.h), since they change. */
#include "daemon/store_access.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/event.h"
#include "base/memory.h"
#include "daemon/config.h"
#include "daemon/marker.h"
#include "daemon/store_url.h"
#include "store/credentials.h"
#include "store/probe.h"
#include "store/s3.h"

#define SUBJECT "store"

struct store_access {
    const struct config *config;
    struct event_sink *events;
    const char *directory; /* NULL: in S3 */
    struct s3_setup s3;    /* its texts are the configuration's, or these: */
    char *endpoint, *region;
    const char *endpoint_origin, *region_origin;
    bool loopback; /* the endpoint is on this host */
};

/* ---- settings ---- */

static int find_endpoint_and_region(struct store_access *access, struct error *error)
{
    const struct config *config = access->config;
    bool region_given = config->source[SETTING_S3_REGION] != SOURCE_DEFAULT, endpoint_given = config->s3_endpoint;
    char *region = NULL, *endpoint = NULL;

    if (!region_given || !endpoint_given) {
        int result = credentials_read_settings(config->s3_profile, &region, &endpoint, error);
        if (result < 0)
            return error_context(error, "the settings of AWS's tools");
    }
    access->endpoint_origin = endpoint_given ? "s3-endpoint" : endpoint != NULL ? "AWS's settings" : "none is set";
    access->region_origin = region_given ? "s3-region" : region != NULL ? "AWS's settings" : "the default";
    if (endpoint_given) {
        free(endpoint);
        endpoint = memory_string(config->s3_endpoint);
    }
    if (region_given || region == NULL) {
        free(region);
        region = memory_string(config->s3_region);
    }
    access->endpoint = endpoint;
    access->region = region;
    return 0;
}

static int settle_s3(struct store_access *access, struct error *error)
{
    const struct config *config = access->config;
    struct s3_place place;

    int result = find_endpoint_and_region(access, error);
    if (result < 0)
        return result;
    access->s3 = (struct s3_setup){ .endpoint = access->endpoint,
                                    .region = access->region,
                                    .bucket = config->s3_bucket,
                                    .prefix = config->s3_prefix,
                                    .addressing = (enum s3_addressing)config->s3_addressing,
                                    .access_key = config->s3_access_key,
                                    .secret_key = config->s3_secret_key,
                                    .session_token = config->s3_session_token,
                                    .profile = config->s3_profile,
                                    .ca_file = config->s3_ca,
                                    .uploads = config->s3_uploads,
                                    .reads = config->s3_reads,
                                    .connect_timeout_ms = config->s3_connect_timeout_ms,
                                    .read_timeout_ms = config->s3_read_timeout_ms,
                                    .attempts = config->s3_attempts,
                                    .hedge_percent = config->s3_hedge_percent,
                                    .events = access->events };
    result = s3_place_new(access->s3.endpoint, access->s3.region, access->s3.bucket, access->s3.prefix,
                          access->s3.addressing, &place, error);
    if (result < 0)
        return error_context(error, "the endpoint (%s) or the region (%s)", access->endpoint_origin,
                             access->region_origin);
    access->loopback = access->endpoint != NULL && place.loopback;
    s3_place_free(&place);
    return 0;
}

int store_access_new(const struct config *config, struct event_sink *events, struct store_access **ret_access,
                     struct error *error)
{
    struct store_access *access = memory_new(sizeof *access);

    access->config = config;
    access->events = events;
    access->directory = store_url_directory(config->store);
    int result = access->directory == NULL ? settle_s3(access, error) : 0;
    if (result < 0) {
        store_access_free(access);
        return result;
    }
    *ret_access = access;
    return 0;
}

void store_access_free(struct store_access *access)
{
    if (access == NULL)
        return;
    free(access->endpoint);
    free(access->region);
    free(access);
}

void store_access_describe(const struct store_access *access, struct buffer *ret_text)
{
    buffer_printf(ret_text, "%s", access->config->store);
    if (access->directory == NULL && access->endpoint != NULL)
        buffer_printf(ret_text, " at %s", access->endpoint);
    else if (access->directory == NULL)
        buffer_printf(ret_text, " at AWS in %s", access->region);
}

const struct s3_setup *store_access_s3(const struct store_access *access)
{
    return access->directory == NULL ? &access->s3 : NULL;
}

const char *store_access_endpoint_origin(const struct store_access *access)
{
    return access->endpoint_origin;
}

const char *store_access_region_origin(const struct store_access *access)
{
    return access->region_origin;
}

/* ---- opening ---- */

CO int store_access_open(const struct store_access *access, struct loop *loop, struct store **ret_store,
                         struct error *error)
{
    struct store *store;

    if (access->directory != NULL)
        return store_dir_open(loop, access->directory, false, ret_store, error);
    int result = s3_open(loop, &access->s3, &store, error);
    if (result < 0)
        return result;
    s3_patient(store);
    *ret_store = store;
    return 0;
}

static void describe_bucket(const struct store_access *access, struct buffer *text)
{
    buffer_printf(text, "'%s' ", access->s3.bucket);
    if (access->endpoint != NULL)
        buffer_printf(text, "at %s", access->endpoint);
    else
        buffer_printf(text, "at AWS in %s", access->region);
}

static int explain_no_bucket(const struct store_access *access, struct error *error)
{
    struct buffer bucket = BUFFER_EMPTY;

    describe_bucket(access, &bucket);
    error_set(error, ENOENT,
              "there is no bucket %s: correct --store or --s3-endpoint, or create it: cairn serve --s3-create-bucket, "
              "or aws s3 mb s3://%s%s%s",
              (char *)bucket.data, access->s3.bucket, access->endpoint != NULL ? " --endpoint-url " : "",
              access->endpoint != NULL ? access->endpoint : "");
    buffer_free(&bucket);
    return -ENOENT;
}

/* Opens the store and asks for its bucket; once more in the region where it is said to be. */
static CO int open_bucket(struct store_access *access, struct loop *loop, struct store **ret_store, bool *ret_absent,
                          struct error *error)
{
    struct error why = ERROR_NONE;
    struct store *store;

    for (bool followed = false;; followed = true) {
        char region[64] = "";
        int result = s3_open(loop, &access->s3, &store, error);
        if (result < 0)
            return result;
        result = s3_bucket_check(store, region, &why);
        if (result == 0 || result == -ENOENT) {
            *ret_store = store;
            *ret_absent = result == -ENOENT;
            return 0;
        }
        store_close(store);
        if (result != -EXDEV || region[0] == '\0' || strcmp(region, access->region) == 0 || followed)
            return error_copy(error, &why);
        event_raise(access->events, EVENT_WARNING, SUBJECT,
                    "bucket '%s' is in region %s, not %s (%s): following it; set --s3-region to save this detour",
                    access->s3.bucket, region, access->region, access->region_origin);
        free(access->region);
        access->s3.region = access->region = memory_string(region);
    }
}

CO int store_access_reach(struct store_access *access, struct loop *loop, struct store **ret_store, struct error *error)
{
    struct store *store;
    bool absent;

    if (access->directory != NULL)
        return store_dir_open(loop, access->directory, false, ret_store, error);
    int result = open_bucket(access, loop, &store, &absent, error);
    if (result < 0)
        return result;
    if (absent) {
        store_close(store);
        return explain_no_bucket(access, error);
    }
    *ret_store = store;
    return 0;
}

/* ---- what a server sees to ---- */

static CO int make_bucket(struct store_access *access, struct store *store, struct error *error)
{
    const struct config *config = access->config;
    bool permitted =
        config->source[SETTING_S3_CREATE_BUCKET] == SOURCE_DEFAULT ? access->loopback : config->s3_create_bucket != 0;
    struct buffer bucket = BUFFER_EMPTY;

    if (!permitted)
        return explain_no_bucket(access, error);
    describe_bucket(access, &bucket);
    int result = s3_bucket_create(store, error);
    if (result < 0)
        error_context(error, "the bucket %s does not exist, and cannot be created", (char *)bucket.data);
    else
        event_raise(access->events, EVENT_INFO, SUBJECT, "created the bucket %s", (char *)bucket.data);
    buffer_free(&bucket);
    return result;
}

static CO int open_or_make(struct store_access *access, struct loop *loop, struct store **ret_store,
                           struct error *error)
{
    struct store *store;
    bool absent;

    if (access->directory != NULL)
        return store_dir_open(loop, access->directory, true, ret_store, error);
    int result = open_bucket(access, loop, &store, &absent, error);
    if (result < 0)
        return result;
    if (absent)
        result = make_bucket(access, store, error);
    if (result < 0)
        store_close(store);
    else
        *ret_store = store;
    return result;
}

/* Servers in whose versioned buckets conditional writes are known to hold. */
static bool keeps_conditions_in_versions(const char *server)
{
    static const char *const known[] = { "AmazonS3", "MinIO", "cloudflare", "VERSITYGW" };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncasecmp(server, known[i], strlen(known[i])) == 0)
            return true;
    return false;
}

CO int store_access_check_versioning(const struct store_access *access, struct store *store, struct error *error)
{
    char status[16] = "";

    int result = s3_bucket_versioning(store, status, error);
    if (result < 0)
        return error_context(error, "whether the bucket is versioned");
    if (status[0] == '\0')
        return 0;
    if (strstr(s3_server_name(store), "Ceph") != NULL)
        return error_set(error, EPERM,
                         "bucket '%s' is versioned (%s), and in such a bucket Ceph RGW does not keep to conditional "
                         "writes: give a bucket for which versioning was never turned on",
                         access->s3.bucket, status);
    error_set(error, EPERM,
              "bucket '%s' is versioned (%s): what is deleted stays as an old version and takes space, unless a "
              "lifecycle rule ends old versions",
              access->s3.bucket, status);
    return 1;
}

CO int store_access_check_lifecycle(const struct store_access *access, struct store *store, struct error *error)
{
    bool expires = false;
    char rule[128] = "";

    int result = s3_bucket_expires(store, &expires, rule, error);
    if (result < 0)
        return error_context(error, "whether a lifecycle rule deletes objects");
    if (expires)
        return error_set(error, EPERM,
                         "the lifecycle rule '%s' of bucket '%s' deletes objects of %s, and with them data of disks: "
                         "remove the rule, restrict it to another prefix, or give another --store",
                         rule, access->s3.bucket, access->config->store);
    return 0;
}

/* What may not be asked is told, and does not stand in the way.  *ret_sure: it is as it should be, without a doubt. */
static int weigh(const struct store_access *access, int result, const struct error *why, bool *ret_sure,
                 struct error *error)
{
    if (result < 0 && result != -EACCES)
        return error_copy(error, why);
    if (result == -EACCES)
        event_raise(access->events, EVENT_INFO, SUBJECT, "not known: %s", why->story);
    else if (result == 1)
        event_raise(access->events, EVENT_WARNING, SUBJECT, "%s", why->story);
    *ret_sure = result == 0;
    return 0;
}

/* The store has gone back on its word since versions were turned on. */
static int explain_versions(const struct store_access *access, const struct error *why, struct error *error)
{
    return error_set(error, ENOTSUP,
                     "bucket '%s' is versioned, or may be, and this store does not keep to conditional writes there: "
                     "give a bucket for which versioning was never turned on (%s)",
                     access->s3.bucket, why->story);
}

static CO int check_bucket(struct store_access *access, struct loop *loop, struct store *store, struct error *error)
{
    struct error why = ERROR_NONE;
    bool no_rule = false, no_versions = false;

    int result = store_access_check_lifecycle(access, store, &why);
    result = weigh(access, result, &why, &no_rule, error);
    if (result < 0)
        return result;
    result = store_access_check_versioning(access, store, &why);
    result = weigh(access, result, &why, &no_versions, error);
    if (result < 0)
        return result;
    if (no_versions || keeps_conditions_in_versions(s3_server_name(store)))
        return probe_ensure(loop, store, s3_traits, &access->s3.traits, error);
    /* A verdict may be from before versions were turned on. */
    result = probe_run(loop, store, NULL, NULL, &why);
    if (result == -ENOTSUP)
        return explain_versions(access, &why, error);
    if (result < 0)
        return error_copy(error, &why);
    access->s3.traits = s3_traits(store);
    return 0;
}

CO int store_access_prepare(struct store_access *access, struct loop *loop, struct error *error)
{
    struct store *store;
    bool ours;

    int result = open_or_make(access, loop, &store, error);
    if (result < 0)
        return result;
    result = marker_check(store, &ours, error);
    if (result == 0 && access->directory == NULL)
        result = check_bucket(access, loop, store, error);
    if (result == 0 && !ours)
        result = marker_make(loop, store, error);
    store_close(store);
    return result;
}
