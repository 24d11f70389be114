/* Credentials from the endpoint that a container is given: ECS's agent, EKS's
 * pod identity agent, and what imitates them.
 *
 * AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is a path on ECS's agent; _FULL_URI is
 * a whole URL, which must be https, or lead to this host or one of the agents'
 * link-local addresses: anything else could be read on its way.  The request
 * carries what AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE holds (read each time, it
 * is replaced now and then), else AWS_CONTAINER_AUTHORIZATION_TOKEN.
 *
 * The agents answer 5xx or not at all while they start: asked three times. */
#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/wait.h"
#include "store/credentials_internal.h"

#define AGENT "http://169.254.170.2"
#define ATTEMPTS 3
#define ATTEMPT_MS 2000
#define PAUSE_NS (1 * NS_PER_S)

/* Over plain HTTP.  `host` as libcurl has it: IPv6 in brackets. */
static bool host_allowed(const char *host)
{
    static const char *const agents[] = { "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost" };
    for (size_t i = 0; i < sizeof agents / sizeof agents[0]; i++)
        if (strcmp(host, agents[i]) == 0)
            return true;
    struct in_addr four;
    if (inet_pton(AF_INET, host, &four) == 1)
        return (ntohl(four.s_addr) >> 24) == 127;
    return strcmp(host, "[::1]") == 0;
}

/* Taken apart by the library that will connect, so that both see the same host. */
static int check_url(const char *url, struct error *error)
{
    char *scheme = NULL, *host = NULL, *user = NULL;
    CURLU *parts = curl_url();
    bool whole = parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                 curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                 curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK;
    bool plain = whole && curl_url_get(parts, CURLUPART_USER, &user, 0) != CURLUE_OK;
    bool allowed = plain && (strcmp(scheme, "https") == 0 || (strcmp(scheme, "http") == 0 && host_allowed(host)));
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(parts);
    if (!plain)
        return error_set(error, EINVAL,
                         "AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL such as http://127.0.0.1/path");
    if (!allowed)
        return error_set(error, EINVAL,
                         "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https://, or http:// on this host or on "
                         "169.254.170.2, 169.254.170.23 or [fd00:ec2::23]: credentials would be seen on their way");
    return 0;
}

/* The URL, owned by the caller. */
static int find_url(char **ret_url, struct error *error)
{
    const char *relative = environment_text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *whole = environment_text("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (relative == NULL && whole == NULL) {
        error_set(error, ENOENT, "not in a container that has them");
        return SOURCE_NONE;
    }
    if (relative != NULL && relative[0] != '/')
        return error_set(error, EINVAL, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with '/'");
    if (relative == NULL) {
        int failed = check_url(whole, error);
        if (failed != 0)
            return failed;
    }
    size_t size = relative != NULL ? sizeof AGENT + strlen(relative) : strlen(whole) + 1;
    *ret_url = memory_new(size);
    snprintf(*ret_url, size, "%s%s", relative != NULL ? AGENT : "", relative != NULL ? relative : whole);
    return 0;
}

/* *ret_token NULL: none is to be sent. */
static int find_token(const struct sourcing *sourcing, char **ret_token, struct error *error)
{
    const char *path = environment_text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = environment_text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    if (path != NULL) {
        int failed = credentials_read_token(sourcing->loop, path, ret_token, error);
        return failed != 0 ? error_context(error, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") : 0;
    }
    for (const char *at = token; at != NULL && *at != '\0'; at++)
        if (iscntrl((unsigned char)*at))
            return error_set(error, EINVAL, "AWS_CONTAINER_AUTHORIZATION_TOKEN has control bytes in it");
    *ret_token = token != NULL ? memory_string(token) : NULL;
    return 0;
}

static int ask_once(const struct sourcing *sourcing, const char *url, const char *token, struct secrets *ret_secrets,
                    struct error *error)
{
    struct exchange exchange = {
        .method = "GET", .url = url, .timeout_ms = ATTEMPT_MS, .headers = { { "Accept", "application/json" } }
    };
    /* Over plain HTTP it leads to an address of this host's surroundings, where a proxy has no business. */
    exchange.direct = strncasecmp(url, "http:", 5) == 0;
    if (token != NULL)
        exchange.headers[1] = (struct http_header){ "Authorization", token };
    struct buffer body;
    int status;
    int failed = exchange_perform(sourcing, &exchange, &status, &body, error);
    if (failed != 0)
        return failed;
    failed = status == 200 ? credentials_parse_json(DOCUMENT_SERVICE, body.data, body.length, ret_secrets, error)
                           : exchange_refused("it", status, &body, error);
    secret_buffer_free(&body);
    return failed;
}

int credentials_container(const struct sourcing *sourcing, struct secrets *ret_secrets, struct error *error)
{
    char *url = NULL, *token = NULL;
    int failed = find_url(&url, error);
    if (failed != 0)
        return failed;
    failed = find_token(sourcing, &token, error);
    if (failed != 0) {
        free(url);
        return failed;
    }
    for (int attempt = 1;; attempt++) {
        failed = ask_once(sourcing, url, token, ret_secrets, error);
        if (failed == 0 || failed == -EACCES || failed == -ECANCELED || attempt == ATTEMPTS)
            break;
        if (sleep_ns(PAUSE_NS) != 0) {
            failed = error_set(error, ECANCELED, "given up");
            break;
        }
    }
    secret_free(token);
    free(url);
    if (failed != 0)
        return error_context(error, "credentials of the container");
    snprintf(ret_secrets->source, sizeof ret_secrets->source, "the container's credentials");
    return 0;
}
