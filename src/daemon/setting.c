/* The table of settings, and how the text of each kind becomes a value.
 *
 * Limits stand in the table with their reasons.  A value that does not fit is
 * refused with what was wrong with it and what would be right: there is no
 * rounding and no silent default. */
#include "daemon/setting.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "daemon/config.h"
#include "vol/format/format.h"
#include "vol/volume.h"

#define MIB (UINT64_C(1) << 20)
#define SECOND UINT64_C(1000) /* durations are kept in milliseconds */
#define HOUR (3600 * SECOND)

/* As MEMORY_PER_THREAD of server.c: one thread is the least. */
#define MEMORY_LEAST (128 * MIB)
#define MEMORY_MOST (UINT64_C(1) << 44)
/* Two data objects: one fills while the other is on its way. */
#define WRITE_BUFFER_LEAST (16 * MIB)
#define THREADS_MOST 64 /* as rt/shard.h */
#define CONNECTIONS_MOST 65536
#define REQUESTS_MOST 4096
/* Requests in flight for each thread, each with a connection of its own: more gain nothing, and exhaust the ports of a
 * small store. */
#define S3_IN_FLIGHT_MOST 256
#define S3_ATTEMPTS_MOST 100
/* As Linux has them, MAX_TCP_KEEPIDLE and its like. */
#define KEEPALIVE_MOST 32767
#define PROBES_MOST 127
/* Below, a server that is busy would make little else; beyond, opening would take minutes. */
#define CHECKPOINT_ENTRIES_LEAST 4
#define CHECKPOINT_ENTRIES_MOST 65536
#define CHECKPOINT_BYTES_LEAST MIB
#define CHECKPOINT_BYTES_MOST (UINT64_C(1) << 40)

static const char *const log_levels[] = { "DEBUG", "INFO", "WARNING", "ERROR", NULL };
/* As enum s3_addressing. */
static const char *const s3_addressings[] = { "auto", "path", "virtual", NULL };
/* As enum nbd_sharing. */
static const char *const sharings[] = { "single", "peer", "any", NULL };
static const char *const log_formats[] = { "text", "json", NULL };

#define AT(member) .offset = offsetof(struct config, member)

const struct setting setting_table[SETTING_COUNT] = {
    [SETTING_HOST] = { "host", SETTING_TEXT, SETTINGS_SERVE, AT(host), .fallback = "localhost", .argument = "HOST",
                       .help = "name or address to listen on" },
    [SETTING_PORT] = { "port", SETTING_NUMBER, SETTINGS_SERVE, AT(port), .fallback = "10809", .least = 0, .most = 65535,
                       .argument = "PORT", .help = "TCP port to listen on; 0 takes any that is free" },
    [SETTING_UNIX] = { "unix", SETTING_TEXT, SETTINGS_SERVE, AT(unix_path), .argument = "PATH",
                       .help = "listen on a unix socket; without TCP, unless --host or --port is given too" },
    [SETTING_STORE] = { "store", SETTING_TEXT, SETTINGS_STORE, AT(store), .argument = "URL",
                        .help = "where the disks are kept: dir:PATH or s3://BUCKET/PREFIX" },
    [SETTING_S3_ENDPOINT] = { "s3-endpoint", SETTING_TEXT, SETTINGS_STORE, AT(s3_endpoint), .argument = "URL",
                              .help = "where S3 answers: http://HOST:PORT or https://HOST; unless given, what "
                                      "AWS_ENDPOINT_URL_S3 or the profile says, else AWS" },
    [SETTING_S3_ACCESS_KEY] = { "s3-access-key", SETTING_SECRET, SETTINGS_STORE, AT(s3_access_key), .argument = "KEY",
                                .help = "unless given, credentials are sought as AWS's tools do: AWS_ACCESS_KEY_ID, "
                                        "profile, container, instance; at an endpoint on a loopback address, at last "
                                        "minioadmin" },
    [SETTING_S3_SECRET_KEY] = { "s3-secret-key", SETTING_SECRET, SETTINGS_STORE, AT(s3_secret_key), .argument = "KEY",
                                .help = "the key that belongs to it; prefer NBD_S3_SECRET_KEY, since others can see a "
                                        "flag in the list of processes" },
    [SETTING_S3_SESSION_TOKEN] = { "s3-session-token", SETTING_SECRET, SETTINGS_STORE, AT(s3_session_token),
                                   .argument = "TOKEN",
                                   .help = "with keys that are valid for a time; prefer NBD_S3_SESSION_TOKEN" },
    [SETTING_S3_BUCKET] = { "s3-bucket", SETTING_TEXT, SETTINGS_STORE, AT(s3_bucket), .fallback = "nbd-storage",
                            .argument = "NAME", .help = "the bucket, where --store does not name it" },
    [SETTING_S3_REGION] = { "s3-region", SETTING_TEXT, SETTINGS_STORE, AT(s3_region), .fallback = "us-east-1",
                            .argument = "NAME",
                            .help = "the bucket's region; unless given, what AWS_REGION, AWS_DEFAULT_REGION or the "
                                    "profile says" },
    [SETTING_S3_PROFILE] = { "s3-profile", SETTING_TEXT, SETTINGS_STORE, AT(s3_profile), .argument = "NAME",
                             .help = "profile of ~/.aws/config and ~/.aws/credentials; unless given, AWS_PROFILE or "
                                     "default" },
    [SETTING_S3_ADDRESSING] = { "s3-addressing", SETTING_CHOICE, SETTINGS_STORE, AT(s3_addressing), .fallback = "auto",
                                .choices = s3_addressings, .argument = "auto|path|virtual",
                                .help = "where requests name the bucket: in the path, or in the name of the host; "
                                        "auto: in the host for AWS alone" },
    [SETTING_S3_CA] = { "s3-ca", SETTING_TEXT, SETTINGS_STORE, AT(s3_ca), .argument = "PATH",
                        .help = "certificates (PEM) that vouch for the endpoint; unless given, the system's" },
    [SETTING_S3_UPLOADS] = { "s3-uploads", SETTING_NUMBER, SETTINGS_STORE, AT(s3_uploads), .fallback = "16", .least = 1,
                             .most = S3_IN_FLIGHT_MOST, .argument = "N", .help = "uploads in flight, for each thread" },
    [SETTING_S3_READS] = { "s3-reads", SETTING_NUMBER, SETTINGS_STORE, AT(s3_reads), .fallback = "32", .least = 1,
                           .most = S3_IN_FLIGHT_MOST, .argument = "N",
                           .help = "other requests in flight, for each thread" },
    [SETTING_S3_ATTEMPTS] = { "s3-attempts", SETTING_NUMBER, SETTINGS_STORE, AT(s3_attempts), .fallback = "5",
                              .least = 1, .most = S3_ATTEMPTS_MOST, .argument = "N",
                              .help = "how often a request is tried before the store is known to work; a server that "
                                      "has started goes on until its deadlines" },
    [SETTING_S3_CONNECT_TIMEOUT] = { "s3-connect-timeout", SETTING_DURATION, SETTINGS_STORE, AT(s3_connect_timeout_ms),
                                     .fallback = "5s", .least = 100, .most = HOUR, .argument = "TIME",
                                     .help = "for making a connection" },
    [SETTING_S3_READ_TIMEOUT] = { "s3-read-timeout", SETTING_DURATION, SETTINGS_STORE, AT(s3_read_timeout_ms),
                                  .fallback = "60s", .least = SECOND, .most = HOUR, .argument = "TIME",
                                  .help = "a read that took this long, with all its attempts, is answered with an "
                                          "error" },
    [SETTING_S3_HEDGE] = { "s3-hedge", SETTING_NUMBER, SETTINGS_SERVE, AT(s3_hedge_percent), .fallback = "5",
                           .least = 0, .most = 100, .argument = "PERCENT",
                           .help = "share of requests that may be sent a second time when they are slow; 0: none" },
    [SETTING_S3_CREATE_BUCKET] = { "s3-create-bucket", SETTING_SWITCH, SETTINGS_SERVE, AT(s3_create_bucket),
                                   .argument = "yes|no",
                                   .help = "create the bucket where there is none, or with =no never; unless given, "
                                           "only at an endpoint on a loopback address" },
    [SETTING_SIZE] = { "size", SETTING_DISK_SIZE, SETTINGS_SERVE, AT(size_bytes), .fallback = "1GB", .argument = "SIZE",
                       .help = "size of a volume that is created on first use" },
    [SETTING_READ_ONLY] = { "read-only", SETTING_SWITCH, SETTINGS_SERVE, AT(read_only), .fallback = "no",
                            .argument = "yes|no", .help = "let no client write" },
    [SETTING_SHARING] = { "sharing", SETTING_CHOICE, SETTINGS_SERVE, AT(sharing), .fallback = "peer",
                          .choices = sharings, .argument = "single|peer|any",
                          .help =
                              "who may connect to a volume that is in use: nobody; who comes from the same address, "
                              "or as the same user of a unix socket; anybody" },
    [SETTING_MEMORY] = { "memory", SETTING_BYTES, SETTINGS_SERVE, AT(memory_bytes), .fallback = "1GB",
                         .least = MEMORY_LEAST, .most = MEMORY_MOST, .argument = "SIZE",
                         .help = "bound of read cache, write buffer and data on its way" },
    [SETTING_WRITE_BUFFER] = { "write-buffer", SETTING_BYTES, SETTINGS_SERVE, AT(write_buffer_bytes),
                               .least = WRITE_BUFFER_LEAST, .most = MEMORY_MOST, .argument = "SIZE",
                               .help = "how much of it may hold writes that are not in the store yet; half of "
                                       "--memory unless given" },
    [SETTING_THREADS] = { "threads", SETTING_NUMBER, SETTINGS_SERVE, AT(threads), .fallback = "0", .least = 0,
                          .most = THREADS_MOST, .argument = "N",
                          .help = "threads that serve volumes, each volume on one of them; 0: as many as CPUs, at "
                                  "most 4" },
    [SETTING_CONNECTIONS] = { "connections", SETTING_NUMBER, SETTINGS_SERVE, AT(connections), .fallback = "256",
                              .least = 1, .most = CONNECTIONS_MOST, .argument = "N",
                              .help = "connections at once, for each thread" },
    [SETTING_REQUESTS] = { "requests", SETTING_NUMBER, SETTINGS_SERVE, AT(requests), .fallback = "1024", .least = 1,
                           .most = REQUESTS_MOST, .argument = "N", .help = "requests in flight on one connection" },
    [SETTING_BATCH_AGE] = { "batch-age", SETTING_DURATION, SETTINGS_SERVE, AT(batch_age_ms), .fallback = "5s",
                            .least = 10, .most = HOUR, .argument = "TIME",
                            .help = "a write that nobody flushes is on its way to the store after this time" },
    [SETTING_RELEASE_GRACE] = { "release-grace", SETTING_DURATION, SETTINGS_SERVE, AT(release_grace_ms),
                                .fallback = "5s", .least = 0, .most = HOUR, .argument = "TIME",
                                .help = "how long a volume stays ours after its last client has gone" },
    [SETTING_LEASE] = { "lease", SETTING_DURATION, SETTINGS_SERVE, AT(lease_ms), .fallback = "30s",
                        .least = LEASE_MS_LEAST, .most = LEASE_MS_MOST, .argument = "TIME",
                        .help =
                            "when a server dies, others can have its volumes after this time; renewed twice in it" },
    [SETTING_OWNER_WAIT] = { "owner-wait", SETTING_DURATION, SETTINGS_SERVE, AT(owner_wait_ms), .fallback = "45s",
                             .least = 0, .most = HOUR, .argument = "TIME",
                             .help = "how long a client waits for a volume that another server owns, before it is "
                                     "refused; with a longer lease half as much again as that" },
    [SETTING_CHECKPOINT_ENTRIES] = { "checkpoint-entries", SETTING_NUMBER, SETTINGS_SERVE, AT(checkpoint_entries),
                                     .fallback = "1024", .least = CHECKPOINT_ENTRIES_LEAST,
                                     .most = CHECKPOINT_ENTRIES_MOST, .argument = "N",
                                     .help = "a checkpoint is written each time a volume's log has grown by so many "
                                             "entries; who opens it reads at most twice as many" },
    [SETTING_CHECKPOINT_BYTES] = { "checkpoint-bytes", SETTING_BYTES, SETTINGS_SERVE, AT(checkpoint_bytes),
                                   .fallback = "512MB", .least = CHECKPOINT_BYTES_LEAST, .most = CHECKPOINT_BYTES_MOST,
                                   .argument = "SIZE", .help = "or by so many bytes" },
    [SETTING_FLUSH_DEADLINE] = { "flush-deadline", SETTING_DURATION, SETTINGS_SERVE, AT(flush_deadline_ms),
                                 .fallback = "120s", .least = SECOND, .most = HOUR, .argument = "TIME",
                                 .help = "a flush that took this long is answered with an error; its data is kept and "
                                         "tried on" },
    [SETTING_HANDSHAKE_DEADLINE] = { "handshake-deadline", SETTING_DURATION, SETTINGS_SERVE, AT(handshake_deadline_ms),
                                     .fallback = "30s", .least = 100, .most = HOUR, .argument = "TIME",
                                     .help = "a client that has not chosen its export by then is cut off" },
    [SETTING_SHUTDOWN_DEADLINE] = { "shutdown-deadline", SETTING_DURATION, SETTINGS_SERVE, AT(shutdown_deadline_ms),
                                    .fallback = "30s", .least = 100, .most = HOUR, .argument = "TIME",
                                    .help = "how long a stopping server tries to save what is unwritten" },
    [SETTING_KEEPALIVE_IDLE] = { "keepalive-idle", SETTING_SECONDS, SETTINGS_SERVE, AT(keepalive_idle_s),
                                 .fallback = "60s", .least = 0, .most = KEEPALIVE_MOST, .argument = "TIME",
                                 .help = "a TCP client that was silent for so long is probed, to see whether it is "
                                         "there; 0: never" },
    [SETTING_KEEPALIVE_INTERVAL] = { "keepalive-interval", SETTING_SECONDS, SETTINGS_SERVE, AT(keepalive_interval_s),
                                     .fallback = "10s", .least = 1, .most = KEEPALIVE_MOST, .argument = "TIME",
                                     .help = "between one probe and the next" },
    [SETTING_KEEPALIVE_PROBES] = { "keepalive-probes", SETTING_NUMBER, SETTINGS_SERVE, AT(keepalive_probes),
                                   .fallback = "6", .least = 1, .most = PROBES_MOST, .argument = "N",
                                   .help = "unanswered ones after which the client is gone, where --tcp-user-timeout "
                                           "is 0" },
    [SETTING_TCP_USER_TIMEOUT] = { "tcp-user-timeout", SETTING_DURATION, SETTINGS_SERVE, AT(tcp_user_timeout_ms),
                                   .fallback = "110s", .least = 0, .most = HOUR, .argument = "TIME",
                                   .help = "a TCP client that has answered neither data nor probes for so long is "
                                           "gone; 0: as the kernel sees fit" },
    [SETTING_LOG_LEVEL] = { "log-level", SETTING_CHOICE, SETTINGS_LOG, AT(log_level), .fallback = "INFO",
                            .choices = log_levels, .argument = "LEVEL",
                            .help = "the least level that is logged: DEBUG, INFO, WARNING or ERROR" },
    [SETTING_LOG_FORMAT] = { "log-format", SETTING_CHOICE, SETTINGS_LOG, AT(log_format), .fallback = "text",
                             .choices = log_formats, .argument = "FORMAT",
                             .help = "text for people, json for programs: one object a line" },
    [SETTING_CONFIG] = { "config", SETTING_TEXT, SETTINGS_STORE, AT(config_path), .argument = "PATH",
                         .help = "configuration file; /etc/cairn.conf, where it exists, unless given" },
};

const struct setting *setting_find(const char *name)
{
    for (int i = 0; i < SETTING_COUNT; i++)
        if (strcmp(setting_table[i].name, name) == 0)
            return &setting_table[i];
    return NULL;
}

/* How many single letters must be put in, left out or changed to make `b` of `a`. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[SETTING_NAME_MAX + 1];
    size_t length = strlen(b);

    assert(length <= SETTING_NAME_MAX);
    for (size_t j = 0; j <= length; j++)
        row[j] = (unsigned)j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < length; j++) {
            unsigned changed = diagonal + (tolower((unsigned char)a[i]) != b[j]);
            unsigned shorter = row[j + 1] + 1, longer = row[j] + 1;
            diagonal = row[j + 1];
            row[j + 1] = shorter < longer ? shorter : longer;
            if (changed < row[j + 1])
                row[j + 1] = changed;
        }
    }
    return row[length];
}

const char *setting_suggest(const char *name)
{
    const char *nearest = NULL;
    unsigned least = 3; /* more than two slips, and the guess teaches nothing */

    if (strlen(name) > SETTING_NAME_MAX)
        return NULL;
    for (int i = 0; i < SETTING_COUNT; i++) {
        unsigned distance = edit_distance(name, setting_table[i].name);
        if (distance < least && distance < strlen(setting_table[i].name)) {
            least = distance;
            nearest = setting_table[i].name;
        }
    }
    return nearest;
}

void setting_variable(const struct setting *setting, char ret_variable[SETTING_NAME_MAX + 4])
{
    char *out = ret_variable + sprintf(ret_variable, "NBD_");

    assert(strlen(setting->name) < SETTING_NAME_MAX);
    for (const char *in = setting->name; *in != '\0'; in++)
        *out++ = *in == '-' ? '_' : (char)toupper((unsigned char)*in);
    *out = '\0';
}

const struct setting *setting_of_variable(const char *variable)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        char own[SETTING_NAME_MAX + 4];
        setting_variable(&setting_table[i], own);
        if (strcmp(own, variable) == 0)
            return &setting_table[i];
    }
    return NULL;
}

bool setting_is_s3(const struct setting *setting)
{
    return strncmp(setting->name, "s3-", 3) == 0;
}

/* Decimal digits only: strtoull() would take signs, blanks and 0x. */
static bool parse_digits(const char *text, uint64_t *ret_value, const char **ret_end)
{
    uint64_t value = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    if (at == text)
        return false;
    *ret_value = value;
    *ret_end = at;
    return true;
}

static int parse_number(const struct setting *setting, const char *text, uint64_t *ret_value, struct error *error)
{
    uint64_t value;
    const char *end;

    if (!parse_digits(text, &value, &end) || *end != '\0' || value < setting->least || value > setting->most)
        return error_set(error, EINVAL, "'%s' is not %s: write a number from %llu to %llu", text,
                         strcmp(setting->argument, "PORT") == 0 ? "a port" : "a number that fits",
                         (unsigned long long)setting->least, (unsigned long long)setting->most);
    *ret_value = value;
    return 0;
}

static int parse_bytes(const struct setting *setting, const char *text, uint64_t *ret_value, struct error *error)
{
    uint64_t bytes;
    char least[TEXT_SIZE_MAX], most[TEXT_SIZE_MAX];

    int result = text_parse_size(text, &bytes, error);
    if (result < 0)
        return result;
    text_format_size(setting->least, least);
    text_format_size(setting->most, most);
    if (bytes < setting->least)
        return error_set(error, ERANGE, "'%s' is too little: write at least %s", text, least);
    if (bytes > setting->most)
        return error_set(error, ERANGE, "'%s' is too much: write at most %s", text, most);
    *ret_value = bytes;
    return 0;
}

static int parse_disk_size(const char *text, uint64_t *ret_value, struct error *error)
{
    uint64_t bytes;

    int result = text_parse_size(text, &bytes, error);
    if (result < 0)
        return result;
    if (bytes == 0)
        return error_set(error, EINVAL, "'%s' is no size for a disk: write at least 512 bytes", text);
    if (bytes > VOLUME_BYTES_MAX)
        return error_set(error, ERANGE, "'%s' is too large for a disk: write at most 64TB", text);
    if (bytes % 512 != 0)
        return error_set(error, EINVAL, "'%s' is not a multiple of 512 bytes: write %llu or %llu", text,
                         (unsigned long long)(bytes / 512 * 512 > 0 ? bytes / 512 * 512 : 512),
                         (unsigned long long)(bytes / 512 * 512 + 512));
    *ret_value = bytes;
    return 0;
}

static int parse_duration(const struct setting *setting, const char *text, uint64_t *ret_value, struct error *error)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = { { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "min", 60 * 1000 } };
    uint64_t count, ms = 0;
    const char *end;
    bool known = false;

    if (parse_digits(text, &count, &end))
        for (size_t i = 0; i < sizeof units / sizeof *units && !known; i++)
            known = strcmp(end, units[i].unit) == 0 && !__builtin_mul_overflow(count, units[i].ms, &ms);
    if (!known)
        return error_set(error, EINVAL, "'%s' is not a time: write seconds, or a number with ms, s or m, such as 30s",
                         text);
    if (ms < setting->least || ms > setting->most)
        return error_set(error, ERANGE, "'%s' is out of range: write a time from %llums to %llum", text,
                         (unsigned long long)setting->least, (unsigned long long)(setting->most / (60 * SECOND)));
    *ret_value = ms;
    return 0;
}

static int parse_seconds(const struct setting *setting, const char *text, uint64_t *ret_value, struct error *error)
{
    const struct setting in_ms = { .least = 0, .most = setting->most * SECOND };
    uint64_t ms;

    int result = parse_duration(&in_ms, text, &ms, error);
    if (result < 0)
        return result;
    if (ms % SECOND != 0 || ms < setting->least * SECOND)
        return error_set(error, ERANGE, "'%s' is not a time that fits: write whole seconds, from %llu to %llu", text,
                         (unsigned long long)setting->least, (unsigned long long)setting->most);
    *ret_value = ms / SECOND;
    return 0;
}

static int parse_switch(const char *text, uint64_t *ret_value, struct error *error)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *ret_value = i % 2;
            return 0;
        }
    return error_set(error, EINVAL, "'%s' is neither yes nor no", text);
}

static int parse_choice(const struct setting *setting, const char *text, uint64_t *ret_value, struct error *error)
{
    char list[128] = "";

    for (int i = 0; setting->choices[i] != NULL; i++) {
        if (strcasecmp(text, setting->choices[i]) == 0) {
            *ret_value = (uint64_t)i;
            return 0;
        }
        size_t length = strlen(list);
        snprintf(list + length, sizeof list - length, "%s%s",
                 i == 0                    ? ""
                 : setting->choices[i + 1] ? ", "
                                           : " or ",
                 setting->choices[i]);
    }
    return error_set(error, EINVAL, "'%s' is not known: write %s", text, list);
}

int setting_parse(const struct setting *setting, const char *text, struct config *config, struct error *error)
{
    void *place = (char *)config + setting->offset;

    if (text[0] == '\0')
        return error_set(error, EINVAL, "the value is empty: write a %s", setting->argument);
    switch (setting->kind) {
    case SETTING_TEXT:
    case SETTING_SECRET:
        free(*(char **)place);
        *(char **)place = memory_string(text);
        return 0;
    case SETTING_NUMBER:
        return parse_number(setting, text, place, error);
    case SETTING_BYTES:
        return parse_bytes(setting, text, place, error);
    case SETTING_DISK_SIZE:
        return parse_disk_size(text, place, error);
    case SETTING_DURATION:
        return parse_duration(setting, text, place, error);
    case SETTING_SECONDS:
        return parse_seconds(setting, text, place, error);
    case SETTING_SWITCH:
        return parse_switch(text, place, error);
    case SETTING_CHOICE:
        return parse_choice(setting, text, place, error);
    }
    assert(!"a setting of no kind");
    return -EINVAL;
}
