/* One small request of the credential chain, and the words for an answer that refuses.
 *
 * Answers are small and bounded; one that is cut is malformed to whoever reads
 * it.  Status 4xx is a refusal (-EACCES), except those by which a server says
 * "later". */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "rt/loop.h"
#include "store/credentials_internal.h"

#define REFUSAL_BYTES_MAX 512 /* of the body, looked at for the message */

int exchange_perform(const struct sourcing *sourcing, const struct exchange *exchange, int *ret_status,
                     struct buffer *ret_body, struct error *error)
{
    struct iovec body = { .iov_base = (char *)exchange->body,
                          .iov_len = exchange->body != NULL ? strlen(exchange->body) : 0 };
    struct http_request request = {
        .method = exchange->method,
        .url = exchange->url,
        .body = &body,
        .body_count = exchange->body != NULL ? 1 : 0,
        .body_max = EXCHANGE_BODY_MAX,
        .connect_timeout_ms = exchange->timeout_ms,
        .direct = exchange->direct,
        .deadline_ns = loop_now_ns(sourcing->loop) + exchange->timeout_ms * NS_PER_MS,
    };
    for (int i = 0; i < EXCHANGE_HEADERS_MAX && exchange->headers[i].name != NULL; i++)
        request.headers[i] = exchange->headers[i];
    assert(sourcing->http != NULL);
    struct http_response response;
    int failed = http_perform(sourcing->http, &request, &response, error);
    if (failed != 0)
        return failed;
    *ret_status = response.status;
    *ret_body = response.body;
    response.body = (struct buffer)BUFFER_EMPTY;
    http_response_free(&response);
    return 0;
}

static bool is_temporary(int status)
{
    return status >= 500 || status == 429 || status == 408;
}

int exchange_refused(const char *who, int status, const struct buffer *body, struct error *error)
{
    char message[256] = "";
    size_t length = body->length < REFUSAL_BYTES_MAX ? body->length : REFUSAL_BYTES_MAX;
    if (length > 0)
        secret_redact((const char *)body->data, length, message, sizeof message);
    return error_set(error, is_temporary(status) ? EIO : EACCES, "%s answered %d%s%s", who, status,
                     message[0] != '\0' ? ": " : "", message);
}
