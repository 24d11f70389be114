/* Assumed roles: AWS's Security Token Service, and stores that have one too.
 *
 *     AssumeRole                     signed with other credentials
 *     AssumeRoleWithWebIdentity      unsigned; a token of an identity provider speaks, read anew from its file each
 *                                    time, since it is replaced before it expires
 *
 * Both are one POST of a form, answered in XML.  A call that is throttled, not
 * answered or answered 5xx is made again, three times in all; a refusal is
 * final for now (-EACCES).
 *
 * Source: the AWS STS API reference, version 2011-06-15. */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/wait.h"
#include "store/credentials_internal.h"
#include "store/s3_xml.h"
#include "store/sigv4.h"

#define ATTEMPTS 3
#define ATTEMPT_MS 10000
#define BACKOFF_NS (200 * NS_PER_MS) /* half of it random; doubled for the last */
#define ENDPOINT_MAX 256
#define CONTENT_TYPE "application/x-www-form-urlencoded"

struct call {
    const struct sourcing *sourcing;
    const struct sts_role *role;
    const struct secrets *with; /* NULL: unsigned */
    char *url, *host, *path;
    struct buffer form; /* holds the token of a web identity */
};

/* ---- where ---- */

static void regional_endpoint(const char *region, char ret_endpoint[ENDPOINT_MAX])
{
    const char *china = strncmp(region, "cn-", 3) == 0 ? ".cn" : "";
    snprintf(ret_endpoint, ENDPOINT_MAX, "https://sts.%.64s.amazonaws.com%s", region, china);
}

/* What curl puts into the header Host, so that it can be signed: the default port is left out. */
static char *host_of(CURLU *parts)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *name = NULL;
    if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
        bool shown = curl_url_get(parts, CURLUPART_PORT, &port, 0) == CURLUE_OK &&
                     strcmp(port, strcmp(scheme, "https") == 0 ? "443" : "80") != 0;
        size_t size = strlen(host) + (shown ? strlen(port) : 0) + 2;
        name = memory_new(size);
        snprintf(name, size, "%s%s%s", host, shown ? ":" : "", shown ? port : "");
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    return name;
}

static char *copy_part(CURLU *parts, CURLUPart which)
{
    char *text = NULL, *copy = NULL;
    if (curl_url_get(parts, which, &text, 0) == CURLUE_OK)
        copy = memory_string(text);
    curl_free(text);
    return copy;
}

static int find_place(struct call *call, struct error *error)
{
    char regional[ENDPOINT_MAX];
    const char *endpoint = call->role->endpoint;
    bool named = false;
    if (endpoint == NULL) {
        regional_endpoint(call->role->region, regional);
        endpoint = regional;
    }
    CURLU *parts = curl_url();
    if (parts != NULL && curl_url_set(parts, CURLUPART_URL, endpoint, 0) == CURLUE_OK) {
        call->host = host_of(parts);
        call->path = copy_part(parts, CURLUPART_PATH);
        call->url = copy_part(parts, CURLUPART_URL);
        char *user = NULL;
        named = curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK;
        curl_free(user);
    }
    curl_url_cleanup(parts);
    if (call->host != NULL && call->path != NULL && call->url != NULL && !named)
        return 0;
    if (named) /* and perhaps with a password: not quoted */
        return error_set(error, EINVAL, "the endpoint of STS has a user's name in it: write it without");
    return error_set(error, EINVAL, "'%.200s' is not a URL such as https://sts.eu-west-1.amazonaws.com", endpoint);
}

/* ---- what ---- */

static void put_field(struct buffer *form, const char *name, const char *value)
{
    if (value == NULL)
        return;
    buffer_printf(form, "&%s=", name);
    sigv4_encode(value, strlen(value), 0, form);
}

/* For the audit trail of whoever owns the role. */
static void make_session_name(struct loop *loop, char ret_name[40])
{
    snprintf(ret_name, 40, "cairn-%016" PRIx64, loop_random_u64(loop));
}

static int make_form(struct call *call, struct error *error)
{
    const struct sts_role *role = call->role;
    char made[40];
    char *token = NULL;
    if (role->token_file != NULL) {
        int failed = credentials_read_token(call->sourcing->loop, role->token_file, &token, error);
        if (failed != 0)
            return failed;
    }
    make_session_name(call->sourcing->loop, made);
    /* So large that it is not moved, which would leave a copy behind. */
    buffer_reserve(&call->form, 3 * (token != NULL ? strlen(token) : 0) + 4096);
    buffer_printf(&call->form, "Action=%s&Version=2011-06-15",
                  token != NULL ? "AssumeRoleWithWebIdentity" : "AssumeRole");
    put_field(&call->form, "RoleArn", role->role_arn);
    put_field(&call->form, "RoleSessionName", role->session_name != NULL ? role->session_name : made);
    put_field(&call->form, "ExternalId", role->external_id);
    put_field(&call->form, "DurationSeconds", role->duration_s);
    put_field(&call->form, "WebIdentityToken", token);
    buffer_put_u8(&call->form, '\0');
    secret_free(token);
    return 0;
}

/* ---- asking ---- */

static void sign(const struct call *call, const char time[SIGV4_TIME_MAX], struct buffer *ret_value)
{
    struct iovec form = { call->form.data, call->form.length - 1 };
    char hash[SIGV4_HASH_MAX];
    struct sigv4_header headers[4] = { { "host", call->host },
                                       { "content-type", CONTENT_TYPE },
                                       { "x-amz-date", time } };
    int count = 3;
    if (call->with->token != NULL)
        headers[count++] = (struct sigv4_header){ "x-amz-security-token", call->with->token };
    sigv4_hash(&form, 1, hash);
    const struct sigv4_request request = {
        .method = "POST",
        .path = call->path,
        .query = "",
        .headers = headers,
        .header_count = count,
        .payload_hash = hash,
        .time = time,
    };
    struct sigv4_key key = { 0 };
    sigv4_sign(&request, call->with->access_key, call->with->secret_key, call->role->region, "sts", &key, ret_value);
    buffer_put_u8(ret_value, '\0');
    explicit_bzero(&key, sizeof key);
}

static bool temporary(const char *code)
{
    static const char *const codes[] = { "Throttling", "ThrottlingException", "RequestThrottled",
                                         "SlowDown",   "ServiceUnavailable",  "IDPCommunicationError" };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(code, codes[i]) == 0)
            return true;
    return false;
}

static int refused(int status, const struct buffer *body, struct error *error)
{
    struct s3_error said;
    char code[96], message[300];
    if (!s3_xml_error(body->data, body->length, &said))
        return exchange_refused("it", status, body, error);
    secret_redact(said.code, strlen(said.code), code, sizeof code);
    secret_redact(said.message, strlen(said.message), message, sizeof message);
    bool again = status >= 500 || status == 429 || temporary(said.code);
    return error_set(error, again ? EIO : EACCES, "it answered %d %s: %s", status, code, message);
}

static int take(const struct buffer *body, struct secrets *ret_secrets, struct error *error)
{
    struct s3_xml_credentials said;
    int failed = s3_xml_credentials(body->data, body->length, &said, error);
    if (failed != 0)
        return failed;
    *ret_secrets = (struct secrets){
        .access_key = said.access_key,
        .secret_key = said.secret_key,
        .token = said.token,
        .expires_s = said.expires_s,
    };
    return 0;
}

static int ask_once(const struct call *call, struct secrets *ret_secrets, struct error *error)
{
    struct exchange exchange = {
        .method = "POST",
        .url = call->url,
        .body = (const char *)call->form.data,
        .timeout_ms = ATTEMPT_MS,
        .headers = { { "Host", call->host }, { "Content-Type", CONTENT_TYPE } },
    };
    char time[SIGV4_TIME_MAX];
    struct buffer authorization = BUFFER_EMPTY, body;
    int status;
    if (call->with != NULL) {
        sigv4_time(loop_wall_ns(call->sourcing->loop) / NS_PER_S, time);
        sign(call, time, &authorization);
        exchange.headers[2] = (struct http_header){ "X-Amz-Date", time };
        exchange.headers[3] = (struct http_header){ "Authorization", (const char *)authorization.data };
        if (call->with->token != NULL)
            exchange.headers[4] = (struct http_header){ "X-Amz-Security-Token", call->with->token };
    }
    int failed = exchange_perform(call->sourcing, &exchange, &status, &body, error);
    buffer_free(&authorization);
    if (failed != 0)
        return failed;
    failed = status == 200 ? take(&body, ret_secrets, error) : refused(status, &body, error);
    secret_buffer_free(&body);
    return failed;
}

static int back_off(struct loop *loop, int attempt)
{
    uint64_t half_ns = (BACKOFF_NS << (attempt - 1)) / 2;
    return sleep_ns(half_ns + loop_random_u64(loop) % half_ns);
}

static int ask(const struct call *call, struct secrets *ret_secrets, struct error *error)
{
    for (int attempt = 1;; attempt++) {
        int failed = ask_once(call, ret_secrets, error);
        bool final =
            failed == 0 || failed == -EACCES || failed == -EINVAL || failed == -ECANCELED || failed == -EKEYREJECTED;
        if (final || attempt == ATTEMPTS)
            return failed;
        if (back_off(call->sourcing->loop, attempt) != 0)
            return error_set(error, ECANCELED, "given up");
    }
}

int sts_assume_role(const struct sourcing *sourcing, const struct sts_role *role, const struct secrets *with,
                    struct secrets *ret_secrets, struct error *error)
{
    struct call call = { .sourcing = sourcing, .role = role, .with = with };
    int failed = find_place(&call, error);
    if (failed == 0)
        failed = make_form(&call, error);
    if (failed == 0) {
        failed = ask(&call, ret_secrets, error);
        if (failed != 0)
            error_context(error, "%s", call.url);
    }
    secret_buffer_free(&call.form);
    free(call.url);
    free(call.host);
    free(call.path);
    return failed != 0 ? error_context(error, "assume the role %.200s", role->role_arn) : 0;
}
