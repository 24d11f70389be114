/* The HTTP client of a shard: libcurl's multi interface, driven by our loop.
 *
 *     http_perform()   takes a turn (connections_max at once, in order of arrival; those that stand apart need none),
 *                      hands a transfer to libcurl, parks
 *     libcurl          says which sockets to watch (watch_socket) and when to be called at the latest (set_alarm)
 *     drive()          on the loop's own stack: lets libcurl act, then takes the ended transfers out and wakes
 *                      their coroutines
 *
 * So libcurl's callbacks (http_transfer.c) only copy, coroutines only hand in
 * and take out, and all work happens on the loop's own stack, where it is deep
 * enough for TLS.
 *
 * A cancelled coroutine takes its transfer out itself: from then on libcurl
 * uses none of its memory, and its connection, being in the middle of
 * something, is closed.
 *
 * Turns are handed on, not fought for: whoever ends gives its turn to the one
 * that has waited longest, and `busy` stays.
 *
 * What can fail: a socket that cannot be watched for want of kernel memory
 * never becomes ready, and its transfer ends by its timeouts. */
#include "store/http.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/loop.h"
#include "rt/timer.h"
#include "rt/wait.h"
#include "rt/watch.h"
#include "store/http_internal.h"

/* Silence is looked for so often in the time after which it counts as such: a pulse is quiet when it has moved less
 * than 1 KB/s, and so many quiet ones in a row are silence. */
#define SILENCE_PULSES 8
#define SILENCE_BYTES_PER_MS 1

struct http {
    struct loop *loop;
    CURLM *multi;
    struct timer alarm;
    char *ca_file;
    uint64_t idle_ms, silence_ms;
    uint64_t busy, busy_max; /* transfers under way */
    uint64_t apart;          /* and beside them */
    struct waitq turns;
    struct list spare; /* transfers to be used again */
};

struct socket {
    struct http *http;
    curl_socket_t fd;
    struct watch *watch;
};

/* ---- between libcurl and the loop ---- */

static void take_ended(struct http *http)
{
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left)) != NULL;) {
        assert(message->msg == CURLMSG_DONE);
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        struct transfer *transfer = NULL;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
        assert(transfer->easy == easy && !transfer->done);
        curl_multi_remove_handle(http->multi, easy);
        transfer->code = code;
        transfer->done = true;
        coroutine_wake(transfer->coroutine);
    }
}

static void drive(struct http *http, curl_socket_t fd, int happened)
{
    int running;
    CURLMcode code = curl_multi_socket_action(http->multi, fd, happened, &running);
    assert(code == CURLM_OK);
    (void)code;
    take_ended(http);
}

static void socket_ready(void *arg, int events)
{
    struct socket *socket = arg; /* gone, perhaps, once libcurl has acted */
    drive(socket->http, socket->fd,
          ((events & WATCH_READABLE) != 0 ? CURL_CSELECT_IN : 0) |
              ((events & WATCH_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0));
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *http_arg, void *socket_arg)
{
    struct http *http = http_arg;
    struct socket *socket = socket_arg;
    struct transfer *transfer = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    if (transfer != NULL)
        transfer->fd = what == CURL_POLL_REMOVE ? -1 : (int)fd;
    if (what == CURL_POLL_REMOVE) {
        curl_multi_assign(http->multi, fd, NULL);
        if (socket != NULL)
            watch_free(socket->watch);
        free(socket);
        return 0;
    }
    if (socket == NULL) {
        socket = memory_new(sizeof *socket);
        socket->http = http;
        socket->fd = fd;
        if (watch_new(http->loop, fd, socket_ready, socket, &socket->watch, NULL) != 0) {
            free(socket);
            return 0;
        }
        curl_multi_assign(http->multi, fd, socket);
    }
    watch_set(socket->watch,
              ((what & CURL_POLL_IN) != 0 ? WATCH_READABLE : 0) | ((what & CURL_POLL_OUT) != 0 ? WATCH_WRITABLE : 0));
    return 0;
}

static int set_alarm(CURLM *multi, long timeout_ms, void *arg)
{
    struct http *http = arg;
    if (timeout_ms < 0)
        timer_cancel(&http->alarm);
    else
        timer_set(&http->alarm, loop_now_ns(http->loop) + (uint64_t)timeout_ms * NS_PER_MS);
    return 0;
}

static void alarm_rang(struct timer *alarm)
{
    drive(container_of(alarm, struct http, alarm), CURL_SOCKET_TIMEOUT, 0);
}

/* ---- turns ---- */

static CO int turn_take(struct http *http, uint64_t deadline_ns)
{
    if (coroutine_cancelled())
        return -ECANCELED;
    if (http->busy < http->busy_max) {
        http->busy++;
        return 0;
    }
    return waitq_wait_until(&http->turns, deadline_ns);
}

static void turn_give(struct http *http)
{
    assert(http->busy > 0);
    if (waitq_empty(&http->turns))
        http->busy--;
    else
        waitq_wake_one(&http->turns);
}

/* ---- performing ---- */

static struct transfer *take_spare(struct http *http)
{
    struct list *node = list_pop_front(&http->spare);
    return node != NULL ? container_of(node, struct transfer, link) : transfer_new();
}

/* Milliseconds until the deadline, at least 1; 0: there is none. */
static int time_left(struct http *http, uint64_t deadline_ns, uint64_t *ret_ms)
{
    uint64_t now_ns = loop_now_ns(http->loop);
    if (deadline_ns <= now_ns)
        return -ETIMEDOUT;
    *ret_ms = deadline_ns == UINT64_MAX ? 0 : (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
    return 0;
}

/* How much of the request the server's host has taken.  Not what libcurl has read of the body: that is half a megabyte
 * at once, which on a slow line is sent for longer than silence may last, and so is what the kernel holds. */
static uint64_t delivered(const struct transfer *transfer)
{
    curl_off_t sent = 0;
    int held = 0;
    if (curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_UPLOAD_T, &sent) != CURLE_OK)
        return 0;
    if (transfer->fd < 0 || ioctl(transfer->fd, SIOCOUTQ, &held) != 0)
        held = 0;
    return sent > held ? (uint64_t)(sent - held) : 0;
}

static void look_for_silence(struct timer *timer)
{
    struct transfer *transfer = container_of(timer, struct transfer, pulse);
    uint64_t now_delivered = delivered(transfer);
    if (now_delivered > transfer->delivered) {
        transfer->moved += now_delivered - transfer->delivered;
        transfer->delivered = now_delivered;
    }
    transfer->quiet = transfer->moved < transfer->pulse_ms * SILENCE_BYTES_PER_MS ? transfer->quiet + 1 : 0;
    transfer->moved = 0;
    if (transfer->quiet == SILENCE_PULSES)
        coroutine_wake(transfer->coroutine);
    else
        timer_set(timer, loop_now_ns(timer->loop) + transfer->pulse_ms * NS_PER_MS);
}

/* 0: it has ended.  -ECANCELED, -ETIMEDOUT (silence): it was cut off. */
static CO int transfer_run(struct http *http, struct transfer *transfer)
{
    transfer->coroutine = coroutine_self();
    transfer->pulse_ms = http->silence_ms / SILENCE_PULSES + 1;
    timer_init(&transfer->pulse, http->loop, look_for_silence);
    timer_set(&transfer->pulse, loop_now_ns(http->loop) + transfer->pulse_ms * NS_PER_MS);
    CURLMcode code = curl_multi_add_handle(http->multi, transfer->easy);
    assert(code == CURLM_OK);
    (void)code;
    int result = 0;
    while (result == 0 && !transfer->done && transfer->quiet < SILENCE_PULSES)
        result = coroutine_park();
    timer_cancel(&transfer->pulse);
    if (transfer->done)
        return 0;
    curl_multi_remove_handle(http->multi, transfer->easy);
    return result != 0 ? result : -ETIMEDOUT;
}

static CO int perform(struct http *http, const struct http_request *request, struct http_response *ret_response,
                      struct error *error)
{
    struct transfer_limits limits = { .ca_file = http->ca_file, .idle_ms = http->idle_ms };
    if (time_left(http, request->deadline_ns, &limits.timeout_ms) != 0)
        return error_set(error, ETIMEDOUT, "%s: there was no time left to send it", request->method);
    struct transfer *transfer = take_spare(http);
    int result = transfer_prepare(transfer, request, &limits, error);
    if (result == 0) {
        result = transfer_run(http, transfer);
        if (result == -ETIMEDOUT)
            http_was_silent(request->url, http->silence_ms, error);
        else if (result != 0)
            error_set(error, -result, "%s: cancelled", request->method);
        else
            result = http_outcome(transfer, request->url, error);
    }
    if (result == 0) {
        *ret_response = transfer->answer.response;
        transfer->answer.response.body = (struct buffer)BUFFER_EMPTY;
    }
    if (result == 0) {
        transfer_reset(transfer);
        list_push_front(&http->spare, &transfer->link);
    } else {
        transfer_free(transfer); /* libcurl leaves some of a failed one's state for its next time */
    }
    return result;
}

int http_perform(struct http *http, const struct http_request *request, struct http_response *ret_response,
                 struct error *error)
{
    assert(coroutine_self() != NULL && coroutine_loop(coroutine_self()) == http->loop);
    if (request->apart) {
        http->apart++;
        int done = perform(http, request, ret_response, error);
        http->apart--;
        return done;
    }
    int result = turn_take(http, request->deadline_ns);
    if (result == -ECANCELED)
        return error_set(error, ECANCELED, "%s: cancelled", request->method);
    if (result != 0)
        return error_set(error, -result, "%s: no connection became free in time", request->method);
    result = perform(http, request, ret_response, error);
    turn_give(http);
    return result;
}

void http_response_free(struct http_response *response)
{
    buffer_free(&response->body);
}

/* ---- making and freeing ---- */

static void start_library(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

/* libcurl would read it for each connection, and say little about what is wrong with it. */
static int check_ca_file(const char *path, struct error *error)
{
    gnutls_certificate_credentials_t credentials;
    if (gnutls_certificate_allocate_credentials(&credentials) != 0)
        abort();
    int count = gnutls_certificate_set_x509_trust_file(credentials, path, GNUTLS_X509_FMT_PEM);
    gnutls_certificate_free_credentials(credentials);
    if (count > 0)
        return 0;
    if (count == GNUTLS_E_FILE_ERROR)
        return error_set(error, ENOENT, "the certificates in '%s' cannot be read: is the file there, and readable?",
                         path);
    return error_set(error, EINVAL, "'%s' holds no certificates in PEM%s%s", path, count < 0 ? ": " : "",
                     count < 0 ? gnutls_strerror(count) : "");
}

/* libcurl reads the authorities anew for each connection.  Its own default on Debian is a directory of single files,
 * which takes 30 ms of the loop's time; the same in one file takes 8.  NULL: none of the usual files is there. */
static const char *system_ca_file(void)
{
    static const char *const usual[] = {
        "/etc/ssl/certs/ca-certificates.crt", /* Debian and its kin */
        "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora and its kin */
        "/etc/ssl/ca-bundle.pem",             /* SUSE */
        "/etc/ssl/cert.pem",                  /* Alpine */
    };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (access(usual[i], R_OK) == 0)
            return usual[i];
    return NULL;
}

int http_new(struct loop *loop, const struct http_setup *setup, struct http **ret_http, struct error *error)
{
    assert(setup->connections_max > 0);
    static pthread_once_t library_once = PTHREAD_ONCE_INIT;
    pthread_once(&library_once, start_library);
    int result = setup->ca_file == NULL ? 0 : check_ca_file(setup->ca_file, error);
    if (result != 0)
        return result;
    struct http *http = memory_new(sizeof *http);
    http->multi = curl_multi_init();
    if (http->multi == NULL)
        abort();
    http->loop = loop;
    timer_init(&http->alarm, loop, alarm_rang);
    const char *ca_file = setup->ca_file != NULL ? setup->ca_file : system_ca_file();
    http->ca_file = ca_file == NULL ? NULL : memory_string(ca_file);
    http->idle_ms = setup->idle_ms;
    http->silence_ms = setup->silence_ms;
    http->busy_max = setup->connections_max;
    waitq_init(&http->turns);
    list_init(&http->spare);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_alarm);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)setup->connections_max);
    *ret_http = http;
    return 0;
}

void http_free(struct http *http)
{
    if (http == NULL)
        return;
    assert(http->busy == 0 && http->apart == 0 && waitq_empty(&http->turns));
    for (struct list *node; (node = list_pop_front(&http->spare)) != NULL;)
        transfer_free(container_of(node, struct transfer, link));
    curl_multi_cleanup(http->multi);
    timer_cancel(&http->alarm);
    free(http->ca_file);
    free(http);
}
