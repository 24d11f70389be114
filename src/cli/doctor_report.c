/* The lines of `cairn doctor`: a table that is printed as it grows, or an array for programs. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/doctor.h"

static const char *const words[] = {
    [FINDING_GOOD] = "ok", [FINDING_WARNING] = "warning", [FINDING_FAILED] = "FAILED", [FINDING_SKIPPED] = "skipped"
};

static json_t *make_entry(const char *check, enum finding finding, const char *detail, const char *advice,
                          json_t *numbers)
{
    const char *result = finding == FINDING_FAILED ? "failed" : words[finding];
    json_t *entry = json_pack("{s:s, s:s}", "check", check, "result", result);
    /* A story may quote what is no UTF-8, of which Jansson makes nothing. */
    json_t *text = json_string(detail);

    json_object_set_new(entry, "detail", text != NULL ? text : json_string("?"));
    if (advice != NULL)
        json_object_set_new(entry, "advice", json_string(advice));
    if (numbers != NULL)
        json_object_update(entry, numbers);
    return entry;
}

void doctor_found(struct doctor_report *report, const char *check, enum finding finding, const char *detail,
                  const char *advice, json_t *numbers)
{
    if (finding != FINDING_WARNING && finding != FINDING_FAILED)
        advice = NULL;
    report->count++;
    report->failed += finding == FINDING_FAILED;
    if (report->checks != NULL) {
        json_array_append_new(report->checks, make_entry(check, finding, detail, advice, numbers));
    } else {
        printf("%-8s %-34s %s\n", words[finding], check, detail);
        if (advice != NULL)
            printf("%-8s %-34s %s\n", "", "", advice);
        fflush(stdout);
    }
    json_decref(numbers);
}

int doctor_judge(struct doctor_report *report, const char *check, int result, const char *detail,
                 const struct error *error, const char *advice)
{
    doctor_found(report, check, result < 0 ? FINDING_FAILED : FINDING_GOOD, result < 0 ? error->story : detail, advice,
                 NULL);
    return result;
}
