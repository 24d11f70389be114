/* Which store is meant, of all that was said about it.
 *
 * There are three ways to say it: --store dir:PATH, --store s3://BUCKET/PREFIX,
 * and any setting of S3 without a --store, which means s3://BUCKET.  Where they
 * contradict each other, the stronger source wins, as everywhere, and what it
 * beats is passed over with a warning: disks that were expected elsewhere must
 * not seem to be gone without a word.  From sources of the same strength it is
 * an error.
 *
 * What cannot be right whatever the store says is refused here, as wrong usage:
 * an endpoint that is no URL, a bucket's name that is none, half a pair of keys. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "daemon/config_internal.h"
#include "daemon/store_url.h"
#include "store/s3_url.h"

static const struct candidate *said(const struct gathering *gathering, enum setting_id id)
{
    const struct candidate *candidate = &gathering->candidates[id];

    return candidate->text != NULL ? candidate : NULL;
}

/* The strongest word that speaks of S3; NULL: none does. */
static const struct candidate *strongest_s3(const struct gathering *gathering)
{
    const struct candidate *strongest = NULL;

    for (int i = 0; i < SETTING_COUNT; i++) {
        const struct candidate *candidate = said(gathering, (enum setting_id)i);
        if (candidate != NULL && setting_is_s3(&setting_table[i]) &&
            (strongest == NULL || candidate->source > strongest->source))
            strongest = candidate;
    }
    return strongest;
}

static const char *lookup(char **environment, const char *name)
{
    size_t length = strlen(name);

    for (; *environment != NULL; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=' &&
            (*environment)[length + 1] != '\0')
            return *environment + length + 1;
    return NULL;
}

/* STATE_DIRECTORY is systemd's word for where a service keeps its state; it may list several. */
static int default_directory(char **environment, char **ret_store, struct error *error)
{
    const char *state = lookup(environment, "STATE_DIRECTORY"), *data = lookup(environment, "XDG_DATA_HOME"),
               *home = lookup(environment, "HOME");
    char store[SETTING_VALUE_MAX];

    if (state != NULL)
        snprintf(store, sizeof store, "dir:%.*s", (int)strcspn(state, ":"), state);
    else if (data != NULL && data[0] == '/')
        snprintf(store, sizeof store, "dir:%s/cairn", data);
    else if (geteuid() == 0)
        snprintf(store, sizeof store, "dir:/var/lib/cairn");
    else if (home != NULL)
        snprintf(store, sizeof store, "dir:%s/.local/share/cairn", home);
    else
        return error_set(error, EINVAL, "there is no HOME to keep disks in: give --store dir:PATH");
    *ret_store = memory_string(store);
    return 0;
}

/* A directory was named.  Clears config->store where a stronger word asks for S3. */
static int weigh_directory(struct gathering *gathering, const struct candidate *s3, struct error *error)
{
    struct config *config = gathering->config;
    const struct candidate *store = said(gathering, SETTING_STORE);

    if (s3 == NULL)
        return 0;
    if (s3->source == store->source)
        return error_set(error, EINVAL,
                         "%s: '%s' is a directory, but %s speaks of S3: leave out one of them, or write "
                         "s3://BUCKET/PREFIX",
                         store->origin, store->text, s3->origin);
    if (s3->source < store->source) {
        config_warn(config, "%s is passed over: %s says %s", s3->origin, store->origin, store->text);
        return 0;
    }
    config_warn(config, "%s, %s, is passed over: %s speaks of S3", store->origin, store->text, s3->origin);
    free(config->store);
    config->store = NULL;
    return 0;
}

/* The bucket was named by a setting of its own: makes the URL of it. */
static int url_of_bucket(struct gathering *gathering, struct error *error)
{
    struct config *config = gathering->config;
    const struct candidate *named = said(gathering, SETTING_S3_BUCKET);
    char url[SETTING_VALUE_MAX + 8];

    if (strchr(config->s3_bucket, '/') != NULL)
        return error_set(error, EINVAL, "%s: '%s' is no bucket's name: a prefix is given by --store s3://BUCKET/PREFIX",
                         named->origin, config->s3_bucket);
    snprintf(url, sizeof url, "s3://%s", config->s3_bucket);
    if (store_url_check(url, error) < 0)
        return error_context(error, "%s", named->origin);
    free(config->store);
    config->store = memory_string(url);
    return 0;
}

static bool url_names_bucket(const char *url, const char *bucket)
{
    size_t length = strlen(bucket);
    const char *in_url = url + strlen("s3://");

    return strncmp(in_url, bucket, length) == 0 && (in_url[length] == '\0' || in_url[length] == '/');
}

/* Both the URL and a setting of its own name a bucket. */
static int weigh_buckets(struct gathering *gathering, struct error *error)
{
    struct config *config = gathering->config;
    const struct candidate *url = said(gathering, SETTING_STORE), *named = said(gathering, SETTING_S3_BUCKET);

    if (url_names_bucket(config->store, config->s3_bucket))
        return 0;
    if (named->source == url->source)
        return error_set(error, EINVAL, "%s and %s name different buckets: leave out one of them", url->origin,
                         named->origin);
    if (named->source < url->source) {
        config_warn(config, "%s is passed over: %s names another bucket", named->origin, url->origin);
        return 0;
    }
    config_warn(config, "%s, %s, is passed over: %s names another bucket", url->origin, url->text, named->origin);
    return url_of_bucket(gathering, error);
}

static int settle_bucket(struct gathering *gathering, struct error *error)
{
    struct config *config = gathering->config;
    char *bucket, *prefix, whole[SETTING_VALUE_MAX + 8];
    int result = 0;

    if (config->store == NULL)
        result = url_of_bucket(gathering, error);
    else if (said(gathering, SETTING_S3_BUCKET) != NULL)
        result = weigh_buckets(gathering, error);
    if (result == 0)
        result = s3_url_parse(config->store, &bucket, &prefix, error);
    if (result < 0)
        return result;
    free(config->s3_bucket);
    config->s3_bucket = bucket;
    config->s3_prefix = prefix;
    snprintf(whole, sizeof whole, "s3://%s%s%s", bucket, prefix[0] != '\0' ? "/" : "", prefix);
    free(config->store);
    config->store = memory_string(whole);
    return 0;
}

/* Both keys, or neither; a token only with both. */
static int check_keys(const struct gathering *gathering, struct error *error)
{
    const struct candidate *access = said(gathering, SETTING_S3_ACCESS_KEY),
                           *secret = said(gathering, SETTING_S3_SECRET_KEY),
                           *token = said(gathering, SETTING_S3_SESSION_TOKEN);

    if (access != NULL && secret == NULL)
        return error_set(error, EINVAL, "%s: the secret key that belongs to it is missing: set NBD_S3_SECRET_KEY too",
                         access->origin);
    if (access == NULL && secret != NULL)
        return error_set(error, EINVAL, "%s: the access key that belongs to it is missing: set NBD_S3_ACCESS_KEY too",
                         secret->origin);
    if (access == NULL && token != NULL)
        return error_set(error, EINVAL,
                         "%s: the keys that belong to it are missing: set NBD_S3_ACCESS_KEY and NBD_S3_SECRET_KEY too",
                         token->origin);
    return 0;
}

static int check_endpoint(const struct gathering *gathering, struct error *error)
{
    const struct config *config = gathering->config;
    const struct candidate *endpoint = said(gathering, SETTING_S3_ENDPOINT);
    struct s3_place place;

    if (s3_place_new(config->s3_endpoint, config->s3_region, config->s3_bucket, config->s3_prefix,
                     (enum s3_addressing)config->s3_addressing, &place, error) < 0)
        return endpoint != NULL ? error_context(error, "%s", endpoint->origin) : -error->code;
    s3_place_free(&place);
    return 0;
}

int config_settle_store(struct gathering *gathering, struct error *error)
{
    struct config *config = gathering->config;
    const struct candidate *store = said(gathering, SETTING_STORE), *s3 = strongest_s3(gathering);

    if ((gathering->request->groups & SETTINGS_STORE) == 0)
        return 0;
    if (store == NULL && s3 == NULL)
        return default_directory(gathering->request->environment, &config->store, error);
    if (store != NULL && store_url_check(config->store, error) < 0)
        return error_context(error, "%s", store->origin);
    if (store != NULL && !store_url_is_s3(config->store)) {
        int result = weigh_directory(gathering, s3, error);
        if (result < 0 || config->store != NULL)
            return result;
    }
    int result = settle_bucket(gathering, error);
    if (result == 0)
        result = check_keys(gathering, error);
    return result == 0 ? check_endpoint(gathering, error) : result;
}
