/* cairn doctor: why a store does not work, or how well it does.
 *
 * The checks go from the ground up, as a request does: settings, the network,
 * credentials, the bucket, what lies in it, what we may do there, whether it
 * keeps its promises, and how fast it is.  The first thing that is broken is
 * mostly the reason for all that follows, so checks that stand on it are left
 * out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "base/event.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/offline.h"
#include "cli/report.h"
#include "daemon/marker.h"
#include "daemon/store_access.h"
#include "store/probe.h"
#include "store/s3.h"

static bool json_asked;
static const struct config_flag flags[] = {
    { "json", NULL, "print an object, for programs", &json_asked, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

struct doctor_work {
    const struct config *config;
    struct doctor_report report;
};

/* ---- settings ---- */

static int check_settings(struct doctor_work *work, struct store_access **ret_access)
{
    static const char *const addressings[] = { "auto", "path", "virtual" };
    struct buffer detail = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    struct store_access *access;

    int result = store_access_new(work->config, NULL, &access, &error);
    if (result == 0) {
        const struct s3_setup *s3 = store_access_s3(access);
        store_access_describe(access, &detail);
        if (s3 != NULL)
            buffer_printf(&detail, " (endpoint: %s), region %s (%s), addressing %s",
                          store_access_endpoint_origin(access), s3->region, store_access_region_origin(access),
                          addressings[s3->addressing]);
        *ret_access = access;
    }
    doctor_judge(&work->report, "settings", result, (char *)detail.data, &error, NULL);
    buffer_free(&detail);
    for (size_t i = 0; i < work->config->warning_count; i++)
        doctor_found(&work->report, "settings", FINDING_WARNING, work->config->warnings[i], NULL, NULL);
    return result;
}

/* ---- the store and its settings ---- */

static CO int check_store(struct doctor_work *work, struct loop *loop, struct store_access *access,
                          struct store **ret_store)
{
    bool s3 = store_access_s3(access) != NULL;
    const char *advice = s3 ? NULL : "cairn serve makes it a store; or give another --store";
    struct error error = ERROR_NONE;
    char place[512] = "", detail[640];
    struct store *store;

    int result = store_access_reach(access, loop, &store, &error);
    if (result == 0)
        store_describe(store, place, sizeof place);
    const char *server = result == 0 && s3 ? s3_server_name(store) : "";
    snprintf(detail, sizeof detail, "%s is there%s%s", place, server[0] != '\0' ? "; the server is " : "", server);
    if (result == -EACCES && s3)
        advice = "see that the keys are right, and allow s3:ListBucket on the bucket to them";
    doctor_judge(&work->report, s3 ? "bucket" : "directory", result, detail, &error, advice);
    if (result == 0)
        *ret_store = store;
    return result;
}

static CO int check_content(struct doctor_work *work, struct store *store)
{
    struct error error = ERROR_NONE;
    bool ours = false;

    int result = marker_check(store, &ours, &error);
    return doctor_judge(&work->report, "content", result,
                        ours ? "a cairn store" : "empty: cairn serve will make it a cairn store", &error,
                        result == -EMEDIUMTYPE ? "give another place, such as --store s3://BUCKET/PREFIX" : NULL);
}

static void judge_bucket_setting(struct doctor_work *work, const char *check, const char *good, int result,
                                 const struct error *error, const char *advice)
{
    enum finding finding = result == 0                        ? FINDING_GOOD
                           : result == 1 || result == -EACCES ? FINDING_WARNING
                                                              : FINDING_FAILED;

    doctor_found(&work->report, check, finding, result == 0 ? good : error->story, result == -EACCES ? advice : NULL,
                 NULL);
}

static CO void check_bucket_settings(struct doctor_work *work, const struct store_access *access, struct store *store)
{
    struct error error = ERROR_NONE;

    int result = store_access_check_versioning(access, store, &error);
    judge_bucket_setting(work, "versioning", "off", result, &error, "allow s3:GetBucketVersioning to know it");
    result = store_access_check_lifecycle(access, store, &error);
    judge_bucket_setting(work, "lifecycle", "no rule deletes objects", result, &error,
                         "allow s3:GetLifecycleConfiguration to know it");
}

/* ---- promises ---- */

static void told(void *arg, const struct probe_check *check)
{
    struct doctor_work *work = arg;
    char name[64];

    snprintf(name, sizeof name, "%s", check->name);
    if (check->result == 1)
        doctor_found(&work->report, name, FINDING_SKIPPED, "an earlier one failed", NULL, NULL);
    else
        doctor_judge(&work->report, name, check->result, "as it must be", check->error,
                     check->result == -ENOTSUP ? PROBE_KNOWN_TO_WORK : NULL);
}

/* ---- all of it ---- */

static CO int examine(struct loop *loop, void *arg, struct error *error)
{
    struct doctor_work *work = arg;
    struct store_access *access = NULL;
    struct store *store = NULL;
    struct error why = ERROR_NONE;

    int result = check_settings(work, &access);
    if (result == 0 && store_access_s3(access) != NULL)
        result = doctor_check_network(&work->report, loop, store_access_s3(access));
    if (result == 0)
        result = check_store(work, loop, access, &store);
    if (result == 0)
        result = check_content(work, store);
    if (result == 0 && store_access_s3(access) != NULL)
        check_bucket_settings(work, access, store);
    if (result == 0)
        result = doctor_check_permissions(&work->report, loop, store);
    if (result == 0)
        result = probe_run(loop, store, told, work, &why);
    if (result == 0)
        doctor_measure(&work->report, loop, store);
    store_close(store);
    store_access_free(access);
    return 0;
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    struct doctor_work work = { .config = config, .report.checks = json_asked ? json_array() : NULL };
    struct doctor_report *report = &work.report;

    int result = offline_loop(examine, &work, error);
    if (result == 0 && report->checks != NULL)
        report_print_json(json_pack("{s:s, s:b, s:O}", "store", config->store, "healthy", report->failed == 0, "checks",
                                    report->checks));
    json_decref(report->checks);
    if (result == 0 && report->failed > 0)
        result = error_set(error, EIO, "%u of %u checks failed", report->failed, report->count);
    return result < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_doctor = {
    .name = "doctor",
    .arguments = "[FLAGS]",
    .summary = "examine a store: reach, permissions, promises, speed",
    .description =
        "Examines the store from the ground up, and says of each failure what to do about it: settings and\n"
        "where credentials come from, name and reach of the server, TLS, clocks, the bucket, permissions,\n"
        "whether conditional writes hold (also when 16 writers race), versioning and lifecycle rules, and\n"
        "how long requests take.  The exit status is 1 when something failed.\n\n"
        "It writes objects below probe/, some 70 MiB in all, and deletes them again; disks are not touched,\n"
        "and servers may work on the store meanwhile.",
    .examples = "  cairn doctor\n"
                "  cairn doctor --store s3://disks --s3-endpoint http://localhost:9000\n"
                "  cairn doctor --json | jq '.checks[] | select(.result == \"failed\")'",
    .groups = SETTINGS_STORE,
    .flags = flags,
    .run = run,
};
