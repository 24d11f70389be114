/* Region and endpoints, as the AWS SDKs find them.
 *
 * Region: AWS_REGION, AWS_DEFAULT_REGION, the profile's `region`.
 * Endpoint of a service: AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, then the
 * profile: `endpoint_url` inside the service of the [services …] section that it
 * names, its own `endpoint_url`.  AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true, or
 * the same in the profile, switches all of them off. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/credentials_internal.h"

#define VARIABLE_MAX 48 /* "AWS_ENDPOINT_URL_" and a service's name */

const char *profile_chosen(const char *given, bool *ret_named)
{
    const char *name = given != NULL && given[0] != '\0' ? given : environment_text("AWS_PROFILE");
    *ret_named = name != NULL;
    return name != NULL ? name : "default";
}

int profile_check(const struct profiles *profiles, const char *given, struct error *error)
{
    bool named;
    const char *profile = profile_chosen(given, &named);
    if (!named || profiles_have(profiles, profile))
        return 0;
    return error_set(error, EINVAL, "profile '%s' is neither in %s", profile, profiles_where(profiles));
}

static const char *environment_region(void)
{
    const char *region = environment_text("AWS_REGION");
    return region != NULL ? region : environment_text("AWS_DEFAULT_REGION");
}

const char *settings_region(const struct profiles *profiles, const char *profile)
{
    const char *region = environment_region();
    return region != NULL ? region : profiles_get(profiles, profile, "region");
}

static const char *environment_endpoint(const char *service)
{
    char variable[VARIABLE_MAX];
    int length = snprintf(variable, sizeof variable, "AWS_ENDPOINT_URL_%s", service);
    assert(length > 0 && length < VARIABLE_MAX);
    for (char *at = variable; *at != '\0'; at++)
        *at = (char)toupper((unsigned char)*at);
    const char *endpoint = environment_text(variable);
    return endpoint != NULL ? endpoint : environment_text("AWS_ENDPOINT_URL");
}

int settings_endpoint(const struct profiles *profiles, const char *profile, const char *service,
                      const char **ret_endpoint, struct error *error)
{
    const char *ignore = profiles_get(profiles, profile, "ignore_configured_endpoint_urls");
    if (environment_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") ||
        (ignore != NULL && strcasecmp(ignore, "true") == 0)) {
        *ret_endpoint = NULL;
        return 0;
    }
    const char *endpoint = environment_endpoint(service);
    const char *services = profiles_get(profiles, profile, "services");
    if (endpoint == NULL && services != NULL) {
        if (!profiles_have_services(profiles, services))
            return error_set(error, EINVAL,
                             "profile '%s' names services that are not in %s: write a section [services %s]", profile,
                             profiles_where(profiles), services);
        endpoint = profiles_service(profiles, services, service, "endpoint_url");
    }
    *ret_endpoint = endpoint != NULL ? endpoint : profiles_get(profiles, profile, "endpoint_url");
    return 0;
}

static char *copy_or_null(const char *text)
{
    return text != NULL ? memory_string(text) : NULL;
}

int credentials_read_settings(const char *given, char **ret_region, char **ret_endpoint, struct error *error)
{
    struct profiles *profiles;
    const char *endpoint;
    bool named;
    int failed = profiles_read(&profiles, error);
    if (failed != 0)
        return failed;
    const char *profile = profile_chosen(given, &named);
    failed = profile_check(profiles, given, error);
    if (failed == 0)
        failed = settings_endpoint(profiles, profile, "s3", &endpoint, error);
    if (failed == 0) {
        *ret_region = copy_or_null(settings_region(profiles, profile));
        *ret_endpoint = copy_or_null(endpoint);
    }
    profiles_free(profiles);
    return failed;
}
