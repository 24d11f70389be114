/* One attempt at a request, on an easy handle of libcurl.
 *
 * Easy handles are used again and again, since each keeps what it learned of
 * TLS sessions.  Everything that is set for a request is set anew each time.
 *
 * libcurl would like to send a request again, unasked, when a kept connection
 * turns out to have been closed.  Only what reads may be sent twice: of the
 * rest nobody could tell whether the first was applied, and the answer to the
 * second (such as 412 to a conditional PUT that was applied the first time)
 * would be taken for the answer to the only one.  Bodies cannot be rewound, and
 * without a body the callback before each sending says no to the second.
 *
 * The callbacks copy bytes and note things; none calls libcurl. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/http_internal.h"

/* What goes into one system call.  An upload in large strides costs fewer turns of the loop; libcurl takes 16 KiB to
 * 2 MiB for the one, up to 512 KiB for the other. */
#define UPLOAD_BUFFER_MIN (64 * 1024)
#define UPLOAD_BUFFER_MAX (512 * 1024)
#define DOWNLOAD_BUFFER_MIN (16 * 1024)
#define DOWNLOAD_BUFFER_MAX (256 * 1024)
/* An answer's head comes in the same buffer as its body begins in. */
#define HEAD_ROOM (4 * 1024)

#define set_option(easy, option, value)                                                                                \
    do {                                                                                                               \
        CURLcode set_result = curl_easy_setopt(easy, option, value);                                                   \
        assert(set_result == CURLE_OK);                                                                                \
        (void)set_result;                                                                                              \
    } while (0)

/* ---- scattered bytes ---- */

void *http_cursor_next(struct http_cursor *cursor, size_t most, size_t *ret_length)
{
    while (cursor->count > 0 && cursor->skip == cursor->pieces->iov_len) {
        cursor->pieces++;
        cursor->count--;
        cursor->skip = 0;
    }
    *ret_length = 0;
    if (cursor->count == 0)
        return NULL;
    size_t left = cursor->pieces->iov_len - cursor->skip;
    void *at = (uint8_t *)cursor->pieces->iov_base + cursor->skip;
    *ret_length = left < most ? left : most;
    cursor->skip += *ret_length;
    return at;
}

uint64_t http_pieces_length(const struct iovec *pieces, int count)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += pieces[i].iov_len;
    return length;
}

/* ---- callbacks ---- */

static size_t on_read(char *to, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    size_t wanted = size * count, done = 0;
    while (done < wanted) {
        size_t part;
        const void *from = http_cursor_next(&transfer->body, wanted - done, &part);
        if (part == 0)
            break;
        memcpy(to + done, from, part);
        done += part;
    }
    return done;
}

/* A count that is not the one given makes libcurl stop. */
static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    transfer->moved += size * count;
    return answer_line(&transfer->answer, line, size * count) ? size * count : 0;
}

static size_t on_write(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    if (size * count == 0)
        return 0;
    transfer->moved += size * count;
    return answer_bytes(&transfer->answer, bytes, size * count) ? size * count : 0;
}

static int before_sending(void *arg, char *peer, char *own, int peer_port, int own_port)
{
    struct transfer *transfer = arg;
    if (transfer->sends > 0 && !transfer->may_resend)
        return CURL_PREREQFUNC_ABORT;
    transfer->sends++;
    return CURL_PREREQFUNC_OK;
}

/* ---- the request ---- */

static bool is_loopback_name(const char *host)
{
    static const char name[] = "localhost";
    size_t length = strlen(host);
    if (length > 0 && host[length - 1] == '.')
        length--;
    size_t tail = sizeof name - 1;
    if (length < tail || strncasecmp(host + length - tail, name, tail) != 0)
        return false;
    return length == tail || host[length - tail - 1] == '.';
}

/* `host` as libcurl takes it out of a URL: IPv6 in brackets, IPv4 in full. */
static bool is_loopback(const char *host)
{
    struct in_addr narrow;
    struct in6_addr wide;
    char inner[INET6_ADDRSTRLEN];
    size_t length = strlen(host);
    if (host[0] != '[')
        return inet_pton(AF_INET, host, &narrow) == 1 ? ntohl(narrow.s_addr) >> 24 == 127 : is_loopback_name(host);
    if (length < 2 || length - 2 >= sizeof inner)
        return false;
    memcpy(inner, host + 1, length - 2);
    inner[length - 2] = '\0';
    if (inet_pton(AF_INET6, inner, &wide) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&wide) || (IN6_IS_ADDR_V4MAPPED(&wide) && wide.s6_addr[12] == 127);
}

static int set_url(CURL *easy, const char *url, struct error *error)
{
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
        return error_set(error, EINVAL, "'%s' is no URL: it must begin with http:// or https://", url);
    CURLU *parts = curl_url();
    char *host = NULL;
    if (parts == NULL)
        abort();
    CURLUcode code = curl_url_set(parts, CURLUPART_URL, url, CURLU_PATH_AS_IS);
    if (code == CURLUE_OK)
        code = curl_url_get(parts, CURLUPART_HOST, &host, 0);
    int result = 0;
    if (code != CURLUE_OK)
        result = error_set(error, EINVAL, "'%s' is no URL: %s", url, curl_url_strerror(code));
    else if (is_loopback(host))
        set_option(easy, CURLOPT_PROXY, ""); /* not even the one that the environment names */
    curl_free(host);
    curl_url_cleanup(parts);
    if (result == 0)
        set_option(easy, CURLOPT_URL, url);
    return result;
}

static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++)
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7f)
            return false;
    return true;
}

static void add_line(struct transfer *transfer, const char *line)
{
    struct curl_slist *longer = curl_slist_append(transfer->headers, line);
    if (longer == NULL)
        abort();
    transfer->headers = longer;
}

static int set_headers(struct transfer *transfer, const struct http_request *request, struct error *error)
{
    /* Without: libcurl would wait up to a second for the server's leave to send a body, and say what it accepts. */
    add_line(transfer, "Expect:");
    add_line(transfer, "Accept:");
    struct buffer line = BUFFER_EMPTY;
    int result = 0;
    for (int i = 0; i < HTTP_HEADERS_MAX && request->headers[i].name != NULL && result == 0; i++) {
        const struct http_header *header = &request->headers[i];
        buffer_clear(&line);
        /* The semicolon is libcurl's way to send a header without a value. */
        buffer_printf(&line, header->value[0] == '\0' ? "%s;" : "%s: %s", header->name, header->value);
        if (is_plain((const char *)line.data))
            add_line(transfer, (const char *)line.data);
        else
            result = error_set(error, EINVAL, "the header %s would hold control characters", header->name);
    }
    if (line.data != NULL)
        explicit_bzero(line.data, line.length);
    buffer_free(&line);
    if (result == 0)
        set_option(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
    return result;
}

static long clamp(uint64_t value, uint64_t least, uint64_t most)
{
    return (long)(value < least ? least : value > most ? most : value);
}

static void set_method(struct transfer *transfer, const struct http_request *request)
{
    CURL *easy = transfer->easy;
    const char *method = request->method;
    if (strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0) {
        uint64_t length = http_pieces_length(request->body, request->body_count);
        transfer->body = (struct http_cursor){ .pieces = request->body, .count = request->body_count };
        set_option(easy, CURLOPT_UPLOAD, 1L);
        set_option(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)length);
        set_option(easy, CURLOPT_UPLOAD_BUFFERSIZE, clamp(length, UPLOAD_BUFFER_MIN, UPLOAD_BUFFER_MAX));
    } else if (strcmp(method, "HEAD") == 0) {
        set_option(easy, CURLOPT_NOBODY, 1L);
    } else {
        set_option(easy, CURLOPT_HTTPGET, 1L);
        transfer->may_resend = strcmp(method, "GET") == 0;
    }
    if (strcmp(method, "HEAD") == 0)
        transfer->may_resend = true;
    else
        set_option(easy, CURLOPT_CUSTOMREQUEST, method);
    uint64_t wanted = http_pieces_length(request->pieces, request->pieces == NULL ? 0 : request->count);
    set_option(easy, CURLOPT_BUFFERSIZE, clamp(wanted + HEAD_ROOM, DOWNLOAD_BUFFER_MIN, DOWNLOAD_BUFFER_MAX));
}

static void set_callbacks(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    set_option(easy, CURLOPT_PRIVATE, transfer);
    set_option(easy, CURLOPT_ERRORBUFFER, transfer->details);
    set_option(easy, CURLOPT_READFUNCTION, on_read);
    set_option(easy, CURLOPT_READDATA, transfer);
    set_option(easy, CURLOPT_HEADERFUNCTION, on_header);
    set_option(easy, CURLOPT_HEADERDATA, transfer);
    set_option(easy, CURLOPT_WRITEFUNCTION, on_write);
    set_option(easy, CURLOPT_WRITEDATA, transfer);
    set_option(easy, CURLOPT_PREREQFUNCTION, before_sending);
    set_option(easy, CURLOPT_PREREQDATA, transfer);
}

static void set_protocol(CURL *easy)
{
    set_option(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    set_option(easy, CURLOPT_PATH_AS_IS, 1L);
    set_option(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    /* What does not begin with a status line comes to on_write(), which can tell what it is. */
    set_option(easy, CURLOPT_HTTP09_ALLOWED, 1L);
    set_option(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* or better */
    set_option(easy, CURLOPT_NOSIGNAL, 1L);
    set_option(easy, CURLOPT_TCP_KEEPALIVE, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Giving up while a name is looked up leaves that to its thread; else libcurl waits for the thread. */
    set_option(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
}

/* libcurl counts these in whole seconds, of which 0 means for ever, and a connection as too old from the second after.
 */
static void set_limits(CURL *easy, const struct http_request *request, const struct transfer_limits *limits)
{
    uint64_t idle_s = limits->idle_ms / 1000;
    set_option(easy, CURLOPT_MAXAGE_CONN, clamp(idle_s > 0 ? idle_s - 1 : 0, 1, INT_MAX));
    set_option(easy, CURLOPT_CONNECTTIMEOUT_MS, clamp(request->connect_timeout_ms, 1, INT_MAX));
    set_option(easy, CURLOPT_TIMEOUT_MS, clamp(limits->timeout_ms, 0, INT_MAX));
    if (limits->ca_file != NULL) {
        set_option(easy, CURLOPT_CAINFO, limits->ca_file);
        set_option(easy, CURLOPT_CAPATH, NULL); /* that file and no other */
    }
    if (request->direct)
        set_option(easy, CURLOPT_PROXY, "");
    if (request->fresh) {
        set_option(easy, CURLOPT_FRESH_CONNECT, 1L);
        set_option(easy, CURLOPT_FORBID_REUSE, 1L);
    }
}

int transfer_prepare(struct transfer *transfer, const struct http_request *request,
                     const struct transfer_limits *limits, struct error *error)
{
    answer_begin(&transfer->answer, request);
    int result = set_url(transfer->easy, request->url, error);
    if (result == 0)
        result = set_headers(transfer, request, error);
    if (result != 0)
        return result;
    set_callbacks(transfer);
    set_method(transfer, request);
    set_protocol(transfer->easy);
    set_limits(transfer->easy, request, limits);
    return 0;
}

/* ---- making and using again ---- */

struct transfer *transfer_new(void)
{
    struct transfer *transfer = memory_new(sizeof *transfer);
    list_init(&transfer->link);
    transfer->fd = -1;
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL)
        abort();
    return transfer;
}

/* Headers may hold a session's token. */
static void wipe_headers(struct transfer *transfer)
{
    for (struct curl_slist *line = transfer->headers; line != NULL; line = line->next)
        explicit_bzero(line->data, strlen(line->data));
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
}

void transfer_reset(struct transfer *transfer)
{
    curl_easy_reset(transfer->easy);
    wipe_headers(transfer);
    answer_end(&transfer->answer);
    transfer->answer = (struct answer){ 0 };
    transfer->body = (struct http_cursor){ 0 };
    transfer->coroutine = NULL;
    transfer->fd = -1;
    transfer->moved = transfer->delivered = 0;
    transfer->quiet = 0;
    transfer->sends = 0;
    transfer->may_resend = transfer->done = false;
    transfer->code = CURLE_OK;
    transfer->details[0] = '\0';
}

void transfer_free(struct transfer *transfer)
{
    transfer_reset(transfer);
    curl_easy_cleanup(transfer->easy);
    free(transfer);
}
