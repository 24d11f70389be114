/* The sources, in their order, and the simplest of them.
 *
 * A source has credentials, or has none (then the next is asked), or is broken:
 * that ends the search, since whoever set up a source wants it and no other.
 * Once found, the source stays: a refresh asks that one alone.
 *
 * A profile that a setting names goes before the variables with keys and the
 * web identity of the environment, as in the AWS SDKs: it was said to us, they
 * to everybody. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/credentials_internal.h"

struct source {
    CO int (*fetch)(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error);
    bool general;    /* of the environment: not asked where a setting names a profile */
    bool can_change; /* while the server runs */
};

static const struct source sources[SOURCE_COUNT] = {
    [SOURCE_GIVEN] = { credentials_given, false, false },
    [SOURCE_ENVIRONMENT] = { credentials_environment, true, false },
    [SOURCE_WEB_IDENTITY] = { credentials_web_identity, true, true },
    [SOURCE_PROFILE] = { credentials_profile, false, true },
    [SOURCE_CONTAINER] = { credentials_container, false, true },
    [SOURCE_INSTANCE] = { credentials_instance, false, true },
    [SOURCE_LOCAL] = { credentials_local, false, false },
};

static void fill(struct secrets *ret_secrets, const char *access_key, const char *secret_key, const char *token,
                 const char *source)
{
    *ret_secrets = (struct secrets){
        .access_key = memory_string(access_key),
        .secret_key = memory_string(secret_key),
        .token = token != NULL && token[0] != '\0' ? memory_string(token) : NULL,
        .expires_s = UINT64_MAX,
    };
    snprintf(ret_secrets->source, sizeof ret_secrets->source, "%s", source);
}

int credentials_given(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    const struct credentials_setup *setup = sourcing->setup;
    if (setup->access_key == NULL)
        return SOURCE_NONE;
    fill(ret_secrets, setup->access_key, setup->secret_key, setup->session_token, "the settings");
    return 0;
}

int credentials_environment(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    const char *access_key = environment_text("AWS_ACCESS_KEY_ID");
    const char *secret_key = environment_text("AWS_SECRET_ACCESS_KEY");
    const char *token = environment_text("AWS_SESSION_TOKEN");
    if (access_key == NULL && secret_key == NULL)
        return SOURCE_NONE;
    if (access_key == NULL || secret_key == NULL)
        return error_set(error, EINVAL, "%s is set, but not %s",
                         access_key != NULL ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                         access_key != NULL ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (token == NULL)
        token = environment_text("AWS_SECURITY_TOKEN"); /* its older name */
    fill(ret_secrets, access_key, secret_key, token, "AWS_ACCESS_KEY_ID");
    return 0;
}

/* What a MinIO that nobody configured has. */
int credentials_local(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    if (!sourcing->setup->local_defaults)
        return SOURCE_NONE;
    fill(ret_secrets, "minioadmin", "minioadmin", NULL, "MinIO's defaults for a local server");
    return 0;
}

bool credential_source_can_change(enum credential_source source)
{
    return sources[source].can_change;
}

int credential_source_again(const struct sourcing *sourcing, enum credential_source source, struct secrets *ret_secrets,
                            struct error *error)
{
    struct error trouble = ERROR_NONE;
    int failed = sources[source].fetch(sourcing, ret_secrets, &trouble);
    if (failed == 0)
        return 0;
    if (failed == SOURCE_NONE)
        return error_set(error, EIO, "the source of the credentials has none any more: %s", trouble.story);
    return error_copy(error, &trouble);
}

int credential_source_first(const struct sourcing *sourcing, enum credential_source *ret_source,
                            struct secrets *ret_secrets, struct error *error)
{
    const char *profile = sourcing->setup->profile;
    bool profile_given = profile != NULL && profile[0] != '\0';
    struct error why[SOURCE_COUNT] = { 0 };
    for (int source = 0; source < SOURCE_COUNT; source++) {
        if (sources[source].general && profile_given)
            continue;
        int failed = sources[source].fetch(sourcing, ret_secrets, &why[source]);
        if (failed == 0) {
            *ret_source = (enum credential_source)source;
            return 0;
        }
        if (failed != SOURCE_NONE)
            return error_copy(error, &why[source]);
    }
    return error_set(
        error, ENOENT,
        "no credentials for S3: not given, none in AWS_ACCESS_KEY_ID; %s; no web identity; %s; instance: %s. "
        "Set NBD_S3_ACCESS_KEY and NBD_S3_SECRET_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or AWS_PROFILE",
        why[SOURCE_PROFILE].story, why[SOURCE_CONTAINER].story, why[SOURCE_INSTANCE].story);
}
