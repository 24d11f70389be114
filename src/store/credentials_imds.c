/* Credentials of the machine's own role: the instance metadata service of EC2,
 * version 2.
 *
 *     PUT latest/api/token                                    a session token, by which forwarded requests are told
 *     GET latest/meta-data/iam/security-credentials/          the role's name
 *     GET latest/meta-data/iam/security-credentials/ROLE      credentials
 *
 * This source is asked without anybody having named it, on machines that are no
 * instances too.  So one attempt, with a second at most for each step; and
 * silence, a refused connection or a strange answer to the first step mean "no
 * instance", which is no error.  What goes wrong after that is one.
 *
 * Never through a proxy, whose own instance would answer.  Version 1 has no token and is not spoken. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/credentials_internal.h"

#define ENDPOINT_4 "http://169.254.169.254"
#define ENDPOINT_6 "http://[fd00:ec2::254]"
#define ROLES "latest/meta-data/iam/security-credentials/"
#define STEP_MS 1000
#define TOKEN_LIFE_S "21600" /* the longest; used at once */
#define TOKEN_MAX 1024
#define ROLE_MAX 128 /* IAM allows 64 */
#define URL_MAX 1024

static const char *endpoint(void)
{
    const char *set = environment_text("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = environment_text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    if (set != NULL)
        return set;
    return mode != NULL && strcasecmp(mode, "IPv6") == 0 ? ENDPOINT_6 : ENDPOINT_4;
}

static int make_url(const char *path, const char *role, char ret_url[URL_MAX], struct error *error)
{
    const char *base = endpoint();
    const char *slash = base[strlen(base) - 1] == '/' ? "" : "/";
    if (snprintf(ret_url, URL_MAX, "%s%s%s%s", base, slash, path, role) >= URL_MAX)
        return error_set(error, EINVAL, "AWS_EC2_METADATA_SERVICE_ENDPOINT is longer than any URL should be");
    return 0;
}

/* A line of text that may become part of a request; NULL: it is none. */
static char *line_of(const struct buffer *body, size_t max)
{
    size_t length = body->length;
    while (length > 0 && isspace(body->data[length - 1]))
        length--;
    if (length == 0 || length > max)
        return NULL;
    for (size_t i = 0; i < length; i++)
        if (body->data[i] <= ' ' || body->data[i] >= 0x7f)
            return NULL;
    char *line = memory_new(length + 1);
    memcpy(line, body->data, length);
    return line;
}

static int begin_session(const struct sourcing *sourcing, char **ret_token, struct error *error)
{
    char url[URL_MAX];
    int failed = make_url("latest/api/token", "", url, error);
    if (failed != 0)
        return failed;
    const struct exchange exchange = {
        .method = "PUT",
        .url = url,
        .body = "",
        .timeout_ms = STEP_MS,
        .direct = true,
        .headers = { { "X-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE_S } },
    };
    struct buffer body;
    int status;
    failed = exchange_perform(sourcing, &exchange, &status, &body, error);
    if (failed == -ECANCELED || failed == -EINVAL)
        return failed;
    if (failed != 0) {
        error_set(error, ENOENT, "no answer from %s", endpoint());
        return SOURCE_NONE;
    }
    char *token = status == 200 ? line_of(&body, TOKEN_MAX) : NULL;
    secret_buffer_free(&body);
    if (token == NULL) {
        error_set(error, ENOENT, "%s answered %d, without a token", endpoint(), status);
        return SOURCE_NONE;
    }
    *ret_token = token;
    return 0;
}

static int get(const struct sourcing *sourcing, const char *role, const char *token, int *ret_status,
               struct buffer *ret_body, struct error *error)
{
    char url[URL_MAX];
    int failed = make_url(ROLES, role, url, error);
    if (failed != 0)
        return failed;
    const struct exchange exchange = { .method = "GET",
                                       .url = url,
                                       .timeout_ms = STEP_MS,
                                       .direct = true,
                                       .headers = { { "X-aws-ec2-metadata-token", token } } };
    return exchange_perform(sourcing, &exchange, ret_status, ret_body, error);
}

static int find_role(const struct sourcing *sourcing, const char *token, char **ret_role, struct error *error)
{
    struct buffer body;
    int status;
    int failed = get(sourcing, "", token, &status, &body, error);
    if (failed != 0)
        return failed;
    if (status == 404) {
        error_set(error, ENOENT, "the instance has no role");
        failed = SOURCE_NONE;
    } else if (status != 200) {
        failed = exchange_refused("the list of roles", status, &body, error);
    } else {
        char *role = line_of(&body, ROLE_MAX);
        if (role != NULL && strpbrk(role, "/?#%") == NULL) {
            *ret_role = role;
        } else {
            free(role);
            failed = error_set(error, EPROTO, "the name of its role is none");
        }
    }
    secret_buffer_free(&body);
    return failed;
}

static int get_credentials(const struct sourcing *sourcing, const char *role, const char *token,
                           struct secrets *ret_secrets, struct error *error)
{
    struct buffer body;
    int status;
    int failed = get(sourcing, role, token, &status, &body, error);
    if (failed != 0)
        return failed;
    failed = status == 200 ? credentials_parse_json(DOCUMENT_SERVICE, body.data, body.length, ret_secrets, error)
                           : exchange_refused("it", status, &body, error);
    secret_buffer_free(&body);
    return failed != 0 ? error_context(error, "role '%s'", role) : 0;
}

int credentials_instance(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    char *token, *role = NULL;
    if (environment_true("AWS_EC2_METADATA_DISABLED")) {
        error_set(error, ENOENT, "AWS_EC2_METADATA_DISABLED");
        return SOURCE_NONE;
    }
    int failed = begin_session(sourcing, &token, error);
    if (failed == SOURCE_NONE)
        return failed;
    if (failed == 0) {
        failed = find_role(sourcing, token, &role, error);
        if (failed == 0)
            failed = get_credentials(sourcing, role, token, ret_secrets, error);
        secret_free(token);
    }
    if (failed == 0)
        snprintf(ret_secrets->source, sizeof ret_secrets->source, "the instance's role '%s'", role);
    free(role);
    if (failed < 0)
        return error_context(error, "credentials of the instance");
    return failed;
}
