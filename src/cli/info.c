/* cairn info: one volume. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cli/command.h"
#include "cli/offline.h"
#include "cli/report.h"

static bool json_asked;
static const struct config_flag flags[] = {
    { "json", NULL, "print an object, for programs", &json_asked, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static void print_report(const struct volume_report *report)
{
    const struct register_body *body = &report->body;
    char name[REPORT_NAME_MAX], owner[REPORT_OWNER_MAX], size[TEXT_SIZE_MAX], stored[TEXT_SIZE_MAX],
        created[REPORT_TIME_MAX], uuid[UUID_TEXT];

    report_name(report, name);
    report_owner(report, owner);
    text_format_size(body->newest.size, size);
    text_format_size(report->stored_bytes, stored);
    report_time(body->created_wall_ms, created);
    uuid_format(&body->uuid, uuid);
    printf("volume '%s'\n", name);
    printf("  size       %s (%" PRIu64 " bytes)\n", size, body->newest.size);
    printf("  state      %s\n", report_state(report));
    printf("  owner      %s\n", owner);
    printf("  epoch      %" PRIu64 "\n", body->epoch);
    printf("  stored     %s (%" PRIu64 " bytes) in %" PRIu64 " log entries and %" PRIu64 " data objects\n", stored,
           report->stored_bytes, report->log_entries, report->data_objects);
    printf("  created    %s\n", created);
    printf("  uuid       %s\n", uuid);
    printf("  register   %s\n", report->key);
}

static CO int work_info(struct offline *offline, void *arg, struct error *error)
{
    const char *name = arg;
    struct volume_report report;
    char key[KEY_MAX];

    key_register(name, strlen(name), key);
    int result = report_read(offline->store, key, &report, error);
    if (result == -ENOENT)
        return error_set(error, ENOENT, "there is no volume '%s' in %s: cairn list shows those that are", name,
                         offline->config->store);
    if (result < 0)
        return result;
    if (json_asked)
        report_print_json(report_json(&report));
    else if (report.sound)
        print_report(&report);
    if (!report.sound)
        result = error_set(error, report.trouble.code, "the register of volume '%s', the object %s, is damaged: %s",
                           name, report.key, report.trouble.story);
    report_free(&report);
    return result;
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    return offline_run(config, false, work_info, (void *)arguments->positional[0], error) < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_info = {
    .name = "info",
    .arguments = "[FLAGS] VOLUME",
    .summary = "show one volume",
    .description = "Shows one volume: its size, state and owner, its epoch (how often it changed hands), and how much\n"
                   "is stored for it in how many objects.  Reads only, and may be used while servers work on the\n"
                   "store.",
    .examples = "  cairn info scratch\n"
                "  cairn info --json scratch | jq .stored_bytes",
    .groups = SETTINGS_STORE,
    .flags = flags,
    .positional_least = 1,
    .positional_most = 1,
    .run = run,
};
