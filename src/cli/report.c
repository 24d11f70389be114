/* A register tells most; how much is stored is the sum over the volume's objects,
 * so a report of a large volume takes as many LISTs as it has thousands of objects. */
#include "cli/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"

static CO int count_objects(struct store *store, struct volume_report *report, struct error *error)
{
    char uuid[UUID_TEXT], prefix[UUID_TEXT + 8], after[STORE_KEY_MAX] = "";

    uuid_format(&report->body.uuid, uuid);
    snprintf(prefix, sizeof prefix, "v/%s/", uuid);
    for (bool more = true; more;) {
        struct store_listing listing;
        int result = store_list(store, prefix, after, STORE_LIST_MAX, &listing, error);
        if (result < 0)
            return result;
        for (size_t i = 0; i < listing.count; i++) {
            struct uuid owner;
            uint64_t number, epoch;
            report->log_entries += key_parse_log(listing.entries[i].key, &owner, &number);
            report->data_objects += key_parse_data(listing.entries[i].key, &owner, &epoch, &number);
            report->stored_bytes += listing.entries[i].size;
        }
        more = listing.more && listing.count > 0;
        if (more)
            snprintf(after, sizeof after, "%s", listing.entries[listing.count - 1].key);
        store_listing_free(&listing);
    }
    return 0;
}

/* A register that was copied under another volume's key is as bad as a broken one. */
static int check_place(const struct volume_report *report, struct error *error)
{
    char key[KEY_MAX], name[64];

    key_register(report->body.name, report->body.name_length, key);
    if (strcmp(key, report->key) == 0)
        return 0;
    text_quote(report->body.name, report->body.name_length, name, sizeof name);
    return error_set(error, EMEDIUMTYPE, "this is the register of another volume, '%s'", name);
}

CO int report_read(struct store *store, const char *key, struct volume_report *ret_report, struct error *error)
{
    struct volume_report *report = ret_report;
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX];
    struct error why = ERROR_NONE;

    int result = store_get_whole(store, key, REGISTER_BYTES_MAX, &bytes, &length, etag, &why);
    if (result < 0 && result != -EFBIG && result != -EIO)
        return error_copy(error, &why);
    memset(report, 0, sizeof *report);
    snprintf(report->key, sizeof report->key, "%s", key);
    if (result < 0) {
        report->trouble = why;
        return 0;
    }
    result = register_decode(bytes, length, &report->body, &report->trouble);
    free(bytes);
    if (result < 0)
        return 0;
    if (check_place(report, &report->trouble) < 0) {
        register_free(&report->body);
        memset(&report->body, 0, sizeof report->body);
        return 0;
    }
    report->sound = true;
    result = count_objects(store, report, error);
    if (result < 0)
        report_free(report);
    return result;
}

void report_free(struct volume_report *report)
{
    if (report->sound)
        register_free(&report->body);
    report->sound = false;
}

void report_name(const struct volume_report *report, char ret_name[REPORT_NAME_MAX])
{
    char raw[VOLUME_NAME_MAX];
    size_t length;

    if (report->sound)
        text_quote(report->body.name, report->body.name_length, ret_name, REPORT_NAME_MAX);
    else if (key_parse_register(report->key, raw, &length))
        text_quote(raw, length, ret_name, REPORT_NAME_MAX);
    else
        text_quote(report->key, strlen(report->key), ret_name, REPORT_NAME_MAX);
}

const char *report_state(const struct volume_report *report)
{
    if (!report->sound)
        return "damaged";
    switch (report->body.state) {
    case REGISTER_LIVE:
        return "live";
    case REGISTER_DELETING:
        return "deleting";
    case REGISTER_TOMBSTONE:
        return "deleted";
    }
    return "damaged";
}

static void format_wall(uint64_t wall_ms, const char *pattern, bool utc, char ret_time[REPORT_TIME_MAX])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;

    if ((utc ? gmtime_r(&seconds, &parts) : localtime_r(&seconds, &parts)) == NULL ||
        strftime(ret_time, REPORT_TIME_MAX, pattern, &parts) == 0)
        strcpy(ret_time, "?");
}

void report_time(uint64_t wall_ms, char ret_time[REPORT_TIME_MAX])
{
    format_wall(wall_ms, "%Y-%m-%d %H:%M:%S", false, ret_time);
}

void report_owner(const struct volume_report *report, char ret_owner[REPORT_OWNER_MAX])
{
    char since[REPORT_TIME_MAX], host[REGISTER_HOST_MAX];

    if (!report->sound || !report->body.held) {
        strcpy(ret_owner, "nobody");
        return;
    }
    report_time(report->body.owned_since_wall_ms, since);
    text_quote(report->body.host, strlen(report->body.host), host, sizeof host);
    snprintf(ret_owner, REPORT_OWNER_MAX, "%s, pid %" PRIu64 ", since %s", host, report->body.process, since);
}

/* A name is UTF-8 in a store of ours; should it be something else, quoted. */
static json_t *json_name(const char *bytes, size_t length)
{
    char quoted[REPORT_NAME_MAX];
    json_t *string = json_stringn(bytes, length);

    if (string != NULL)
        return string;
    text_quote(bytes, length, quoted, sizeof quoted);
    return json_string(quoted);
}

static json_t *json_moment(uint64_t wall_ms)
{
    char moment[REPORT_TIME_MAX];

    format_wall(wall_ms, "%Y-%m-%dT%H:%M:%SZ", true, moment);
    return json_string(moment);
}

json_t *report_json(const struct volume_report *report)
{
    const struct register_body *body = &report->body;
    char name[REPORT_NAME_MAX], uuid[UUID_TEXT];
    json_t *owner;

    if (!report->sound) {
        report_name(report, name);
        return json_pack("{s:s, s:s, s:s, s:s}", "name", name, "key", report->key, "state", report_state(report),
                         "error", report->trouble.story);
    }
    uuid_format(&body->uuid, uuid);
    owner = !body->held ? json_null()
                        : json_pack("{s:o, s:I, s:o}", "host", json_name(body->host, strlen(body->host)), "pid",
                                    (json_int_t)body->process, "since", json_moment(body->owned_since_wall_ms));
    return json_pack("{s:o, s:s, s:s, s:s, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "name",
                     json_name(body->name, body->name_length), "key", report->key, "uuid", uuid, "state",
                     report_state(report), "size", (json_int_t)body->newest.size, "owner", owner, "epoch",
                     (json_int_t)body->epoch, "committed", (json_int_t)body->committed, "log_entries",
                     (json_int_t)report->log_entries, "data_objects", (json_int_t)report->data_objects, "stored_bytes",
                     (json_int_t)report->stored_bytes, "created", json_moment(body->created_wall_ms));
}

void report_print_json(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
}
