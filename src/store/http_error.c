/* What went wrong with a transfer, in a code for the caller and in words for the operator.
 *
 * libcurl's own words are kept where they say more than we know; they name
 * hosts, ports and files, never headers. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "store/http_internal.h"

#define ORIGIN_MAX 128
#define DETAILS_MAX 160

/* "https://example.org:9000" of a URL: no path, no user. */
static void origin_of(const char *url, char ret_origin[ORIGIN_MAX])
{
    const char *authority = strstr(url, "://");
    authority = authority == NULL ? url : authority + 3;
    size_t length = strcspn(authority, "/?#");
    const char *user = memrchr(authority, '@', length);
    const char *host = user == NULL ? authority : user + 1;
    char quoted[ORIGIN_MAX - sizeof "https://" + 1];
    text_quote(host, length - (size_t)(host - authority), quoted, sizeof quoted);
    snprintf(ret_origin, ORIGIN_MAX, "%.*s%s", (int)(authority - url), url, quoted);
}

/* libcurl's words, or its name for the code. */
static void details_of(const struct transfer *transfer, char ret_details[DETAILS_MAX])
{
    const char *text = transfer->details[0] != '\0' ? transfer->details : curl_easy_strerror(transfer->code);
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '.'))
        length--;
    text_quote(text, length, ret_details, DETAILS_MAX);
}

static bool says(const struct transfer *transfer, const char *words)
{
    return strstr(transfer->details, words) != NULL;
}

static int system_errno(const struct transfer *transfer)
{
    long code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &code);
    return (int)code;
}

/* libcurl names whom it tried: somebody who is not in the URL is a proxy. */
static bool tried_proxy(const struct transfer *transfer, const char *origin)
{
    static const char words[] = "Failed to connect to ";
    const char *tried = strstr(transfer->details, words);
    if (tried == NULL)
        return false;
    tried += strlen(words);
    return memmem(origin, strlen(origin), tried, strcspn(tried, " ")) == NULL;
}

static int story_of_connecting(const struct transfer *transfer, const char *origin, struct error *error)
{
    int code = system_errno(transfer);
    char details[DETAILS_MAX];
    details_of(transfer, details);
    if (tried_proxy(transfer, origin))
        return error_set(error, code == ECONNREFUSED ? ECONNREFUSED : EHOSTUNREACH,
                         "%s: its proxy (http_proxy, https_proxy, all_proxy) cannot be reached: %s", origin, details);
    if (code == ECONNREFUSED)
        return error_set(error, ECONNREFUSED, "%s: the connection was refused; is a server running there?", origin);
    if (code == ETIMEDOUT)
        return error_set(error, ETIMEDOUT, "%s: nobody answers there", origin);
    if (code == ECONNRESET)
        return error_set(error, ECONNRESET, "%s: the connection was reset at once", origin);
    if (code != 0)
        return error_set_errno(error, EHOSTUNREACH, "%s: cannot be reached: %s", origin, strerror(code));
    return error_set(error, EHOSTUNREACH, "%s: cannot be reached: %s", origin, details);
}

static int story_of_handshake(const struct transfer *transfer, const char *origin, struct error *error)
{
    char details[DETAILS_MAX];
    details_of(transfer, details);
    /* The words of GnuTLS, and of OpenSSL. */
    if (says(transfer, "unexpected TLS packet") || says(transfer, "wrong version number"))
        return error_set(error, EPROTO, "%s: what answers there does not speak HTTPS; is it http:// ?", origin);
    int code = system_errno(transfer);
    if (code == ECONNRESET || code == EPIPE || says(transfer, "pull function") || says(transfer, "push function") ||
        says(transfer, "non-properly terminated") || says(transfer, "unexpected eof"))
        return error_set(error, ECONNRESET, "%s: the connection ended while TLS was agreed upon", origin);
    return error_set(error, EPROTO, "%s: no TLS: %s", origin, details);
}

/* GnuTLS knows more than libcurl says; with another library behind libcurl its number means something else. */
static bool describe_certificate(const struct transfer *transfer, char ret_details[DETAILS_MAX])
{
    const char *library = curl_version_info(CURLVERSION_NOW)->ssl_version;
    long status = 0;
    if (library == NULL || strncmp(library, "GnuTLS", 6) != 0 ||
        curl_easy_getinfo(transfer->easy, CURLINFO_SSL_VERIFYRESULT, &status) != CURLE_OK || status <= 0)
        return false;
    gnutls_datum_t text = { 0 };
    if (gnutls_certificate_verification_status_print((unsigned)status, GNUTLS_CRT_X509, &text, 0) != 0)
        return false;
    size_t length = strlen((char *)text.data);
    while (length > 0 && (text.data[length - 1] == ' ' || text.data[length - 1] == '.'))
        length--;
    text_quote((char *)text.data, length, ret_details, DETAILS_MAX);
    gnutls_free(text.data);
    return true;
}

static int story_of_certificate(const struct transfer *transfer, const char *origin, struct error *error)
{
    char details[DETAILS_MAX];
    if (!describe_certificate(transfer, details))
        details_of(transfer, details);
    return error_set(
        error, EKEYREJECTED,
        "%s: the server's certificate is not accepted: %s; if an authority of your own has signed it, name "
        "that one's certificate with --s3-ca",
        origin, details);
}

static int story_of_answer(const struct transfer *transfer, const char *origin, struct error *error)
{
    if (transfer->answer.tls_alert)
        return error_set(error, EPROTO, "%s: what answers there speaks TLS, not HTTP: write https://", origin);
    return error_set(error, EPROTO, "%s: this is no proper answer of HTTP: %s", origin, transfer->answer.fault);
}

static int story_of_ended(const struct transfer *transfer, const char *origin, struct error *error)
{
    char details[DETAILS_MAX];
    details_of(transfer, details);
    long proxy_status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
    if (proxy_status >= 300)
        return error_set(error, EIO, "%s: the proxy does not let us through: it answers %ld", origin, proxy_status);
    if (transfer->code == CURLE_ABORTED_BY_CALLBACK || transfer->code == CURLE_SEND_FAIL_REWIND)
        return error_set(error, ECONNRESET, "%s: a connection that was kept open had ended", origin);
    if (transfer->code == CURLE_GOT_NOTHING)
        return error_set(error, ECONNRESET, "%s: the connection ended without an answer", origin);
    if (transfer->code == CURLE_PARTIAL_FILE)
        return error_set(error, ECONNRESET, "%s: the answer ended early: %s", origin, details);
    return error_set(error, ECONNRESET, "%s: the connection broke: %s", origin, details);
}

int http_was_silent(const char *url, uint64_t silence_ms, struct error *error)
{
    char origin[ORIGIN_MAX];
    origin_of(url, origin);
    return error_set(error, ETIMEDOUT, "%s: less than 1 KB/s for %.1f s", origin, (double)silence_ms / 1000);
}

int http_outcome(const struct transfer *transfer, const char *url, struct error *error)
{
    char origin[ORIGIN_MAX], details[DETAILS_MAX];
    enum answer_state state = transfer->answer.state;
    if (transfer->code == CURLE_OK && state == ANSWER_BODY)
        return 0;
    if (state == ANSWER_ENOUGH)
        return 0;
    origin_of(url, origin);
    if (state == ANSWER_BAD)
        return story_of_answer(transfer, origin, error);
    details_of(transfer, details);
    switch (transfer->code) {
    case CURLE_URL_MALFORMAT:
        return error_set(error, EINVAL, "%s: is no URL: %s", origin, details);
    case CURLE_COULDNT_RESOLVE_HOST:
        return error_set(error, EHOSTUNREACH, "%s: its name is not known: %s", origin, details);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return error_set(error, EHOSTUNREACH, "%s: the name of the proxy is not known: %s", origin, details);
    case CURLE_COULDNT_CONNECT:
        return story_of_connecting(transfer, origin, error);
    case CURLE_OPERATION_TIMEDOUT:
        return error_set(error, ETIMEDOUT, "%s: it took too long: %s", origin, details);
    case CURLE_SSL_CONNECT_ERROR:
        return story_of_handshake(transfer, origin, error);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return story_of_certificate(transfer, origin, error);
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_ABORTED_BY_CALLBACK:
        return story_of_ended(transfer, origin, error);
    case CURLE_OK:
        return error_set(error, ECONNRESET, "%s: the answer ended early: in its head", origin);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* such as HTTP/7 */
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_OUT_OF_MEMORY: /* a line that is longer than libcurl takes */
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE:
#endif
        return error_set(error, EPROTO, "%s: this is no proper answer of HTTP: %s", origin, details);
    default:
        return error_set(error, EIO, "%s: %s", origin, details);
    }
}
