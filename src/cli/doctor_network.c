/* From the host's name to credentials: what stands between us and a store in S3, from below.
 *
 * One request without a signature goes to the endpoint.  Whatever the answer
 * says, that there is one shows that the server can be reached, that its
 * certificate is good, and what its clock says. */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/doctor.h"
#include "rt/loop.h"
#include "store/credentials.h"
#include "store/http.h"
#include "store/s3.h"

#define ADDRESSES_SHOWN 4
#define ANSWER_MAX 4096 /* of a body that nobody looks at */
#define IDLE_MS 1000
#define SILENCE_MS 10000
/* S3 refuses requests that are off by more than 15 minutes; of less than a minute it is not worth speaking. */
#define SKEW_WARN_S 60

/* ---- the name ---- */

struct lookup {
    char host[256];
    int code; /* of getaddrinfo() */
    char addresses[ADDRESSES_SHOWN * (NI_MAXHOST + 2)];
};

static void look_up(void *arg)
{
    struct lookup *lookup = arg;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
    unsigned shown = 0;

    lookup->code = getaddrinfo(lookup->host, NULL, &hints, &found);
    if (lookup->code != 0)
        return;
    for (struct addrinfo *at = found; at != NULL && shown < ADDRESSES_SHOWN; at = at->ai_next) {
        char text[NI_MAXHOST];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) != 0)
            continue;
        snprintf(lookup->addresses + strlen(lookup->addresses), sizeof lookup->addresses - strlen(lookup->addresses),
                 "%s%s", shown++ > 0 ? ", " : "", text);
    }
    freeaddrinfo(found);
}

/* Then the proxy looks the name up, and nobody else need be able to. */
static bool has_proxy(const struct s3_place *place)
{
    static const char *const variables[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY" };

    for (size_t i = 0; i < sizeof variables / sizeof *variables && !place->loopback; i++) {
        const char *value = getenv(variables[i]);
        if (value != NULL && value[0] != '\0')
            return true;
    }
    return false;
}

static CO int check_name(struct doctor_report *report, struct loop *loop, const struct s3_place *place)
{
    struct lookup lookup = { .code = 0 };
    const char *authority = place->authority + (place->authority[0] == '[');
    struct error error = ERROR_NONE;
    char detail[sizeof lookup.host + sizeof lookup.addresses + 8];

    snprintf(lookup.host, sizeof lookup.host, "%.*s", (int)strcspn(authority, authority > place->authority ? "]" : ":"),
             authority);
    loop_work(loop, look_up, &lookup);
    if (lookup.code != 0 && has_proxy(place)) {
        snprintf(detail, sizeof detail, "%s: not known here; the proxy of the environment is asked", lookup.host);
        doctor_found(report, "name", FINDING_WARNING, detail, NULL, NULL);
        return 0;
    }
    if (lookup.code != 0)
        error_set(&error, EHOSTUNREACH, "%s: %s", lookup.host, gai_strerror(lookup.code));
    snprintf(detail, sizeof detail, "%s: %s", lookup.host, lookup.addresses);
    return doctor_judge(report, "name", -error.code, detail, &error,
                        "correct the host in --s3-endpoint, or mend this host's name resolution");
}

/* ---- one answer ---- */

static void judge_clock(struct doctor_report *report, struct loop *loop, uint64_t date_s)
{
    int64_t ahead_s = (int64_t)(loop_wall_ns(loop) / NS_PER_S) - (int64_t)date_s;
    char detail[128];

    if (date_s == 0) {
        doctor_found(report, "clock", FINDING_SKIPPED, "the server tells no time", NULL, NULL);
        return;
    }
    bool off = ahead_s > SKEW_WARN_S || ahead_s < -SKEW_WARN_S;
    snprintf(detail, sizeof detail, "this host's clock is %" PRId64 " s %s the server's",
             ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "ahead of");
    doctor_found(report, "clock", off ? FINDING_WARNING : FINDING_GOOD, detail,
                 "set this host's clock (timedatectl set-ntp true); until then the server's is used for signatures",
                 json_pack("{s:I}", "ahead_s", (json_int_t)ahead_s));
}

static void judge_tls(struct doctor_report *report, const struct s3_place *place, int result, const struct error *error)
{
    if (strcmp(place->scheme, "https") == 0)
        doctor_judge(report, "TLS", result, "the server's certificate is good", error,
                     "give the certificate of the authority that signed it with --s3-ca, or name the server as its "
                     "certificate does");
    else if (place->loopback)
        doctor_found(report, "TLS", FINDING_SKIPPED, "none, and none needed: the server is on this host", NULL, NULL);
    else
        doctor_found(report, "TLS", FINDING_WARNING, "none: everything but the secret key can be read on the way",
                     "write https:// in --s3-endpoint if the server speaks it", NULL);
}

static CO int check_reach(struct doctor_report *report, struct loop *loop, struct http *http,
                          const struct s3_setup *setup, const struct s3_place *place)
{
    struct buffer url = BUFFER_EMPTY;
    struct http_response response;
    struct error error = ERROR_NONE;
    char detail[160];

    buffer_printf(&url, "%s://%s/", place->scheme, place->authority);
    uint64_t began_ns = loop_now_ns(loop);
    struct http_request request = { .method = "GET",
                                    .url = (const char *)url.data,
                                    .body_max = ANSWER_MAX,
                                    .connect_timeout_ms = setup->connect_timeout_ms,
                                    .deadline_ns = began_ns + setup->read_timeout_ms * NS_PER_MS,
                                    .fresh = true };
    int result = http_perform(http, &request, &response, &error);
    double ms = (double)(loop_now_ns(loop) - began_ns) / (double)NS_PER_MS;
    buffer_free(&url);
    if (result == -EKEYREJECTED) {
        doctor_found(report, "reach", FINDING_GOOD, "a connection was made", NULL, NULL);
        judge_tls(report, place, result, &error);
        return result;
    }
    snprintf(detail, sizeof detail, "%s://%.100s answers, in %.1f ms with connecting", place->scheme, place->authority,
             ms);
    doctor_judge(report, "reach", result, detail, &error,
                 "see that the server runs and that no firewall is in between; --s3-endpoint says where it is");
    if (result < 0)
        return result;
    judge_tls(report, place, 0, &error);
    judge_clock(report, loop, response.date_s);
    http_response_free(&response);
    return 0;
}

/* ---- credentials ---- */

static CO int check_credentials(struct doctor_report *report, struct loop *loop, struct http *http,
                                const struct s3_setup *setup, const struct s3_place *place)
{
    struct credentials_setup sources = { .access_key = setup->access_key,
                                         .secret_key = setup->secret_key,
                                         .session_token = setup->session_token,
                                         .profile = setup->profile,
                                         .region = setup->region,
                                         .local_defaults = setup->endpoint != NULL && place->loopback };
    struct credential_chain *chain;
    struct credentials credentials;
    struct error error = ERROR_NONE;
    const char *source = "";

    int result = credential_chain_new(loop, http, &sources, &chain, &error);
    if (result == 0) {
        result = credential_chain_get(chain, &credentials, &error);
        source = result == 0 ? credential_chain_source(chain) : "";
        doctor_judge(report, "credentials", result, source, &error,
                     "set NBD_S3_ACCESS_KEY and NBD_S3_SECRET_KEY, or what AWS's tools use");
        credential_chain_close(chain);
        return result;
    }
    return doctor_judge(report, "credentials", result, "", &error, "give both keys, or neither");
}

CO int doctor_check_network(struct doctor_report *report, struct loop *loop, const struct s3_setup *setup)
{
    const struct http_setup http_setup = {
        .ca_file = setup->ca_file, .connections_max = 1, .idle_ms = IDLE_MS, .silence_ms = SILENCE_MS
    };
    struct error error = ERROR_NONE;
    struct s3_place place;
    struct http *http;

    int result =
        s3_place_new(setup->endpoint, setup->region, setup->bucket, setup->prefix, setup->addressing, &place, &error);
    if (result < 0)
        return doctor_judge(report, "endpoint", result, "", &error, "correct --s3-endpoint");
    result = http_new(loop, &http_setup, &http, &error);
    if (result < 0) {
        doctor_judge(report, "TLS", result, "", &error, "correct --s3-ca");
    } else {
        result = check_name(report, loop, &place);
        if (result == 0)
            result = check_reach(report, loop, http, setup, &place);
        if (result == 0)
            result = check_credentials(report, loop, http, setup, &place);
        http_free(http);
    }
    s3_place_free(&place);
    return result;
}
