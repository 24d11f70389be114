/* What a store knows of its volumes, for `cairn list` and `cairn info`: read-only, and harmless to a server that
 * works on the same store. */
#ifndef CAIRN_CLI_REPORT_H
#define CAIRN_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"
#include "vol/format/format.h"

struct volume_report {
    char key[KEY_MAX]; /* of its register */
    bool sound;        /* the register could be read; otherwise `trouble` says why not, and `body` is empty */
    struct error trouble;
    struct register_body body;
    uint64_t log_entries, data_objects, stored_bytes; /* of all objects under its UUID */
};

/* A register that is damaged is reported as such: 0.  -ENOENT: there is none.  Others: the store failed. */
CO int report_read(struct store *store, const char *key, struct volume_report *ret_report, struct error *error);
void report_free(struct volume_report *report);

/* The name for people, quoted; of a damaged register: what its key tells. */
#define REPORT_NAME_MAX 256
void report_name(const struct volume_report *report, char ret_name[REPORT_NAME_MAX]);
/* "live", "deleting", "deleted", "damaged" */
const char *report_state(const struct volume_report *report);
/* "laptop, pid 17, since 2026-11-23 04:15:07", or "nobody" */
#define REPORT_OWNER_MAX (REGISTER_HOST_MAX + 64)
void report_owner(const struct volume_report *report, char ret_owner[REPORT_OWNER_MAX]);
/* "2026-11-23 04:15:07", in local time */
#define REPORT_TIME_MAX 32
void report_time(uint64_t wall_ms, char ret_time[REPORT_TIME_MAX]);
json_t *report_json(const struct volume_report *report);
/* Prints it, with a newline, and drops it. */
void report_print_json(json_t *json);

#endif
