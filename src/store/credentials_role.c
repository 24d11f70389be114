/* What a profile says about credentials, and web identities.
 *
 * A profile may have several kinds; they are looked for in the order of the AWS CLI:
 *
 *     role_arn with web_identity_token_file        a web identity
 *     role_arn with source_profile                 assumed with that profile's credentials
 *     role_arn with credential_source              assumed with those of the environment, container or instance
 *     aws_access_key_id, aws_secret_access_key     in the credentials file
 *     credential_process
 *     aws_access_key_id, aws_secret_access_key     in the config file
 *
 * Source profiles form a chain, each role assumed with the credentials below
 * it.  A profile may name itself, for the static keys that it has; any other
 * circle is an error, and so is a chain that is too long.  The whole chain is
 * gone through at each refresh, and the files read again, so whatever was
 * changed in them counts.
 *
 * What a server cannot do is refused by name, with what to write instead:
 * mfa_serial (nobody is there to type a code) and sign-in through a browser. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "store/credentials_internal.h"

/* Roles that are assumed with roles: AWS itself advises against more than a few. */
#define CHAIN_MAX 8

struct walk {
    const struct sourcing *sourcing;
    const struct profiles *profiles;
    const char *region, *endpoint; /* of the token service; see struct sts_role */
    const char *visited[CHAIN_MAX];
    int count;
};

static CO int resolve(struct walk *walk, const char *profile, struct secrets *ret_secrets, struct error *error);

static void name_source(struct secrets *secrets, const char *profile, const char *kind)
{
    snprintf(secrets->source, sizeof secrets->source, "profile '%.100s' (%s)", profile, kind);
}

/* ---- static keys ---- */

static bool has_static(const struct walk *walk, enum profile_file file, const char *profile)
{
    return profiles_get_from(walk->profiles, file, profile, "aws_access_key_id") != NULL ||
           profiles_get_from(walk->profiles, file, profile, "aws_secret_access_key") != NULL;
}

static int take_static(const struct walk *walk, enum profile_file file, const char *profile,
                       struct secrets *ret_secrets, struct error *error)
{
    const char *access_key = profiles_get_from(walk->profiles, file, profile, "aws_access_key_id");
    const char *secret_key = profiles_get_from(walk->profiles, file, profile, "aws_secret_access_key");
    const char *token = profiles_get_from(walk->profiles, file, profile, "aws_session_token");
    if (access_key == NULL || secret_key == NULL)
        return error_set(error, EINVAL, "profile '%s' has only one of aws_access_key_id and aws_secret_access_key",
                         profile);
    if (token == NULL)
        token = profiles_get_from(walk->profiles, file, profile, "aws_security_token");
    *ret_secrets = (struct secrets){
        .access_key = memory_string(access_key),
        .secret_key = memory_string(secret_key),
        .token = token != NULL ? memory_string(token) : NULL,
        .expires_s = UINT64_MAX,
    };
    name_source(ret_secrets, profile, "static keys");
    return 0;
}

/* ---- roles ---- */

static int take_credential_source(const struct walk *walk, const char *profile, const char *source,
                                  struct secrets *ret_secrets, struct error *error)
{
    int failed;
    if (strcmp(source, "Environment") == 0)
        failed = credentials_environment(walk->sourcing, ret_secrets, error);
    else if (strcmp(source, "EcsContainer") == 0)
        failed = credentials_container(walk->sourcing, ret_secrets, error);
    else if (strcmp(source, "Ec2InstanceMetadata") == 0)
        failed = credentials_instance(walk->sourcing, ret_secrets, error);
    else
        return error_set(error, EINVAL,
                         "profile '%s': credential_source is Environment, EcsContainer or Ec2InstanceMetadata",
                         profile);
    if (failed == SOURCE_NONE) {
        error_set(error, EINVAL, "profile '%s': credential_source = %s has no credentials", profile, source);
        return -EINVAL;
    }
    return failed;
}

static int take_source_profile(struct walk *walk, const char *profile, const char *source, struct secrets *ret_secrets,
                               struct error *error)
{
    if (strcmp(profile, source) == 0) {
        enum profile_file file = has_static(walk, PROFILE_CREDENTIALS, profile) ? PROFILE_CREDENTIALS : PROFILE_CONFIG;
        if (has_static(walk, file, profile))
            return take_static(walk, file, profile, ret_secrets, error);
    }
    if (!profiles_have(walk->profiles, source))
        return error_set(error, EINVAL, "profile '%s': its source_profile '%s' is neither in %s", profile, source,
                         profiles_where(walk->profiles));
    for (int i = 0; i < walk->count; i++)
        if (strcmp(walk->visited[i], source) == 0)
            return error_set(error, EINVAL, "profile '%s': its source_profile '%s' leads back to itself", profile,
                             source);
    int failed = resolve(walk, source, ret_secrets, error);
    if (failed == SOURCE_NONE)
        return error_set(error, EINVAL, "profile '%s': its source_profile '%s' has no credentials", profile, source);
    return failed;
}

static int check_duration(const char *profile, const char *duration, struct error *error)
{
    if (duration == NULL || (strspn(duration, "0123456789") == strlen(duration) && strlen(duration) < 10))
        return 0;
    return error_set(error, EINVAL, "profile '%s': duration_seconds is not a number of seconds", profile);
}

static int assume(struct walk *walk, const char *profile, const char *role_arn, struct secrets *ret_secrets,
                  struct error *error)
{
    const struct profiles *profiles = walk->profiles;
    const char *source_profile = profiles_get(profiles, profile, "source_profile");
    const char *credential_source = profiles_get(profiles, profile, "credential_source");
    const struct sts_role role = {
        .endpoint = walk->endpoint,
        .region = walk->region,
        .role_arn = role_arn,
        .session_name = profiles_get(profiles, profile, "role_session_name"),
        .external_id = profiles_get(profiles, profile, "external_id"),
        .duration_s = profiles_get(profiles, profile, "duration_seconds"),
        .token_file = profiles_get(profiles, profile, "web_identity_token_file"),
    };
    struct secrets with = { 0 };
    int failed = check_duration(profile, role.duration_s, error);
    if (failed != 0)
        return failed;
    if (profiles_get(profiles, profile, "mfa_serial") != NULL)
        return error_set(error, EINVAL,
                         "profile '%s' asks for a code from a device (mfa_serial), which a server cannot type: use "
                         "credential_process, or a role without it",
                         profile);
    if (role.token_file == NULL && (source_profile != NULL) == (credential_source != NULL))
        return error_set(error, EINVAL,
                         "profile '%s' has a role_arn and %s source_profile %s credential_source: write one", profile,
                         source_profile != NULL ? "both" : "neither", source_profile != NULL ? "and" : "nor");
    if (role.token_file == NULL) {
        failed = source_profile != NULL ? take_source_profile(walk, profile, source_profile, &with, error)
                                        : take_credential_source(walk, profile, credential_source, &with, error);
        if (failed != 0)
            return failed;
    }
    failed = sts_assume_role(walk->sourcing, &role, role.token_file == NULL ? &with : NULL, ret_secrets, error);
    secrets_free(&with);
    if (failed != 0)
        return error_context(error, "profile '%s'", profile);
    name_source(ret_secrets, profile, role.token_file != NULL ? "web identity" : "assumed role");
    return 0;
}

/* ---- a profile ---- */

static bool signs_in_by_browser(const struct walk *walk, const char *profile)
{
    static const char *const keys[] = { "sso_session", "sso_start_url", "sso_account_id", "login_session" };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (profiles_get(walk->profiles, profile, keys[i]) != NULL)
            return true;
    return false;
}

static int resolve(struct walk *walk, const char *profile, struct secrets *ret_secrets, struct error *error)
{
    if (walk->count == CHAIN_MAX)
        return error_set(error, EINVAL, "profile '%s' ends a chain of more than %d profiles", walk->visited[0],
                         CHAIN_MAX);
    walk->visited[walk->count++] = profile;
    const char *role_arn = profiles_get(walk->profiles, profile, "role_arn");
    const char *command = profiles_get(walk->profiles, profile, "credential_process");
    /* Below another profile its static keys come first, also when it names that other one. */
    bool source = walk->count > 1;
    if (role_arn != NULL && !(source && has_static(walk, PROFILE_CREDENTIALS, profile)) &&
        !(source && has_static(walk, PROFILE_CONFIG, profile)))
        return assume(walk, profile, role_arn, ret_secrets, error);
    if (has_static(walk, PROFILE_CREDENTIALS, profile))
        return take_static(walk, PROFILE_CREDENTIALS, profile, ret_secrets, error);
    if (command != NULL) {
        int failed = credentials_run_process(walk->sourcing, command, ret_secrets, error);
        if (failed != 0)
            return error_context(error, "profile '%s'", profile);
        name_source(ret_secrets, profile, "credential_process");
        return 0;
    }
    if (has_static(walk, PROFILE_CONFIG, profile))
        return take_static(walk, PROFILE_CONFIG, profile, ret_secrets, error);
    if (profiles_get(walk->profiles, profile, "web_identity_token_file") != NULL)
        return error_set(error, EINVAL, "profile '%s' has a web_identity_token_file, but no role_arn", profile);
    if (signs_in_by_browser(walk, profile))
        return error_set(error, EINVAL,
                         "profile '%s' signs in through a browser, which a server cannot: make another profile with "
                         "credential_process = aws configure export-credentials --profile %s --format process",
                         profile, profile);
    error_set(error, ENOENT, "profile '%s' has none", profile);
    return SOURCE_NONE;
}

/* ---- the sources ---- */

struct reading {
    struct profiles *profiles;
    int failed;
    struct error error;
};

static void read_profiles(void *arg)
{
    struct reading *reading = arg;
    reading->failed = profiles_read(&reading->profiles, &reading->error);
}

static int begin(struct walk *walk, struct profiles **ret_profiles, struct error *error)
{
    const struct sourcing *sourcing = walk->sourcing;
    struct reading reading = { 0 };
    loop_work(sourcing->loop, read_profiles, &reading);
    if (reading.failed != 0)
        return error_copy(error, &reading.error);
    bool named;
    const char *profile = profile_chosen(sourcing->setup->profile, &named);
    walk->profiles = reading.profiles;
    walk->region = settings_region(reading.profiles, profile);
    if (walk->region == NULL)
        walk->region = sourcing->setup->region != NULL ? sourcing->setup->region : "us-east-1";
    int failed = settings_endpoint(reading.profiles, profile, "sts", &walk->endpoint, error);
    if (failed != 0)
        profiles_free(reading.profiles);
    else
        *ret_profiles = reading.profiles;
    return failed;
}

int credentials_profile(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    struct walk walk = { .sourcing = sourcing };
    struct profiles *profiles = NULL;
    bool named;
    int failed = begin(&walk, &profiles, error);
    if (failed != 0)
        return failed;
    failed = profile_check(profiles, sourcing->setup->profile, error);
    if (failed == 0)
        failed = resolve(&walk, profile_chosen(sourcing->setup->profile, &named), ret_secrets, error);
    profiles_free(profiles);
    return failed;
}

int credentials_web_identity(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    struct sts_role role = {
        .token_file = environment_text("AWS_WEB_IDENTITY_TOKEN_FILE"),
        .role_arn = environment_text("AWS_ROLE_ARN"),
        .session_name = environment_text("AWS_ROLE_SESSION_NAME"),
    };
    if (role.token_file == NULL) {
        error_set(error, ENOENT, "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
        return SOURCE_NONE;
    }
    if (role.role_arn == NULL)
        return error_set(error, EINVAL, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but not AWS_ROLE_ARN");
    struct walk walk = { .sourcing = sourcing };
    struct profiles *profiles = NULL;
    int failed = begin(&walk, &profiles, error);
    if (failed != 0)
        return failed;
    role.endpoint = walk.endpoint;
    role.region = walk.region;
    failed = sts_assume_role(sourcing, &role, NULL, ret_secrets, error);
    profiles_free(profiles);
    if (failed != 0)
        return error_context(error, "AWS_WEB_IDENTITY_TOKEN_FILE");
    snprintf(ret_secrets->source, sizeof ret_secrets->source, "AWS_WEB_IDENTITY_TOKEN_FILE");
    return 0;
}
