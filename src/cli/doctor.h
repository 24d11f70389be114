/* What the files of `cairn doctor` share. */
#ifndef CAIRN_CLI_DOCTOR_H
#define CAIRN_CLI_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>

#include "rt/coroutine.h"

struct error;
struct loop;
struct s3_setup;
struct store;

/* ---- the report (cli/doctor_report.c) ---- */

enum finding {
    FINDING_GOOD,
    FINDING_WARNING, /* it works, and there is something to know */
    FINDING_FAILED,
    FINDING_SKIPPED /* since another check failed, or because it does not apply */
};

struct doctor_report {
    json_t *checks; /* NULL: printed as they come */
    unsigned count, failed;
};

/* A line of the report.  `detail`: what was found; `advice`: what to do about it, of a warning or failure; NULL: the
 * detail says it.  `numbers`: what was measured, for programs; owned by the report from now on; NULL: nothing was. */
void doctor_found(struct doctor_report *report, const char *check, enum finding finding, const char *detail,
                  const char *advice, json_t *numbers);
/* The line of a check that returned `result`: 0 with `detail`, or -errno with what stands in `error`; 0 passes. */
int doctor_judge(struct doctor_report *report, const char *check, int result, const char *detail,
                 const struct error *error, const char *advice);

/* ---- the checks: each returns 0, or -errno where those behind it make no sense ---- */

/* Name, reach, TLS, clock, credentials (cli/doctor_network.c). */
CO int doctor_check_network(struct doctor_report *report, struct loop *loop, const struct s3_setup *setup);
/* Writing, reading, listing and deleting an object below probe/ (cli/doctor_objects.c). */
CO int doctor_check_permissions(struct doctor_report *report, struct loop *loop, struct store *store);
/* How long small requests take, and what large ones move. */
CO void doctor_measure(struct doctor_report *report, struct loop *loop, struct store *store);

#endif
