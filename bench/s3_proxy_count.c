/* See s3_proxy_count.h.  One process, one thread: one table. */
#include "s3_proxy_count.h"

#include <string.h>

#define STATUS_MAX 600

struct counter {
    uint64_t requests, sent, received, sent_most, received_most;
};

static struct counter counters[METHOD_COUNT][KIND_COUNT];
static uint64_t statuses[STATUS_MAX]; /* 0: unanswered */
static uint64_t connections;
static uint64_t under_way[METHOD_COUNT], under_way_most[METHOD_COUNT];

static const char *const method_names[METHOD_COUNT] = { "GET", "PUT", "LIST", "HEAD", "DELETE", "POST", "other" };
static const char *const kind_names[KIND_COUNT] = { "log", "data", "volumes", "probe", "other" };

const char *count_method_name(enum count_method method)
{
    return method_names[method];
}

const char *count_kind_name(enum count_kind kind)
{
    return kind_names[kind];
}

/* What a key is, wherever the prefix ends: /bucket/any/prefix/v/<uuid>/log/<number>. */
static enum count_kind kind_of(struct slice path)
{
    enum { UUID = 36 };
    for (size_t at = 0; at + UUID + 9 <= path.length; at++) {
        const char *rest = path.bytes + at + 3 + UUID;
        if (memcmp(path.bytes + at, "/v/", 3) != 0)
            continue;
        if (memcmp(rest, "/log/", 5) == 0)
            return KIND_LOG;
        if (memcmp(rest, "/data/", 6) == 0)
            return KIND_DATA;
    }
    if (memmem(path.bytes, path.length, "/volumes/", 9) != NULL)
        return KIND_VOLUMES;
    if (memmem(path.bytes, path.length, "/probe/", 7) != NULL)
        return KIND_PROBE;
    return KIND_OTHER;
}

static enum count_method method_of(const struct head *request)
{
    if (slice_is(request->method, "GET") && (slice_parameter(request->query, "list-type").bytes != NULL ||
                                             slice_parameter(request->query, "prefix").bytes != NULL))
        return METHOD_LIST;
    for (enum count_method method = 0; method < METHOD_OTHER; method++)
        if (method != METHOD_LIST && slice_is(request->method, method_names[method]))
            return method;
    return METHOD_OTHER;
}

struct tally count_begin(const struct head *request)
{
    struct tally tally = { .method = method_of(request), .kind = kind_of(request->path) };
    uint64_t now = ++under_way[tally.method];
    if (now > under_way_most[tally.method])
        under_way_most[tally.method] = now;
    return tally;
}

void count_connection(void)
{
    connections++;
}

void count_end(const struct tally *tally, int status)
{
    under_way[tally->method]--;
    statuses[status >= 0 && status < STATUS_MAX ? status : 0]++;
    struct counter *counter = &counters[tally->method][tally->kind];
    counter->requests++;
    counter->sent += tally->sent;
    counter->received += tally->received;
    if (tally->sent > counter->sent_most)
        counter->sent_most = tally->sent;
    if (tally->received > counter->received_most)
        counter->received_most = tally->received;
}

void count_reset(void)
{
    memset(counters, 0, sizeof counters);
    memset(statuses, 0, sizeof statuses);
    connections = 0;
    memcpy(under_way_most, under_way, sizeof under_way);
}

static void print_kinds(FILE *file, enum count_method method)
{
    const char *comma = "";
    for (enum count_kind kind = 0; kind < KIND_COUNT; kind++) {
        const struct counter *counter = &counters[method][kind];
        if (counter->requests == 0)
            continue;
        fprintf(file,
                "%s\"%s\": {\"requests\": %ju, \"sent\": %ju, \"received\": %ju, \"sent_most\": %ju, "
                "\"received_most\": %ju}",
                comma, kind_names[kind], (uintmax_t)counter->requests, (uintmax_t)counter->sent,
                (uintmax_t)counter->received, (uintmax_t)counter->sent_most, (uintmax_t)counter->received_most);
        comma = ", ";
    }
}

void count_print(FILE *file)
{
    fprintf(file, "{\"methods\": {");
    for (enum count_method method = 0; method < METHOD_COUNT; method++) {
        fprintf(file, "%s\"%s\": {", method == 0 ? "" : ", ", method_names[method]);
        print_kinds(file, method);
        fprintf(file, "}");
    }
    fprintf(file, "}, \"at_once\": {");
    for (enum count_method method = 0; method < METHOD_COUNT; method++)
        fprintf(file, "%s\"%s\": %ju", method == 0 ? "" : ", ", method_names[method],
                (uintmax_t)under_way_most[method]);
    fprintf(file, "}, \"statuses\": {");
    const char *comma = "";
    for (int status = 0; status < STATUS_MAX; status++) {
        if (statuses[status] == 0)
            continue;
        fprintf(file, "%s\"%d\": %ju", comma, status, (uintmax_t)statuses[status]);
        comma = ", ";
    }
    uint64_t all = 0;
    for (enum count_method method = 0; method < METHOD_COUNT; method++)
        all += under_way[method];
    fprintf(file, "}, \"connections\": %ju, \"under_way\": %ju}\n", (uintmax_t)connections, (uintmax_t)all);
}
