/* cairn list: the volumes of a store. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/offline.h"
#include "cli/report.h"

struct list_work {
    bool json;
    json_t *array;
    size_t count, damaged;
};

static bool json_asked;
static const struct config_flag flags[] = {
    { "json", NULL, "print an array of objects, for programs", &json_asked, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static void print_line(const struct volume_report *report)
{
    char name[REPORT_NAME_MAX], owner[REPORT_OWNER_MAX], size[TEXT_SIZE_MAX] = "-", stored[TEXT_SIZE_MAX] = "-";

    report_name(report, name);
    report_owner(report, owner);
    if (report->sound) {
        text_format_size(report->body.newest.size, size);
        text_format_size(report->stored_bytes, stored);
    }
    printf("%-24s %10s %10s  %-8s  %s\n", name[0] != '\0' ? name : "\"\"", size, stored, report_state(report),
           report->sound ? owner : report->trouble.story);
}

static CO int show(struct offline *offline, const char *key, struct list_work *work, struct error *error)
{
    struct volume_report report;

    int result = report_read(offline->store, key, &report, error);
    if (result < 0)
        return result;
    work->count++;
    work->damaged += !report.sound;
    if (work->json) {
        json_array_append_new(work->array, report_json(&report));
    } else {
        if (work->count == 1)
            printf("%-24s %10s %10s  %-8s  %s\n", "NAME", "SIZE", "STORED", "STATE", "OWNER");
        print_line(&report);
    }
    report_free(&report);
    return 0;
}

static CO int work_list(struct offline *offline, void *arg, struct error *error)
{
    struct list_work *work = arg;
    char after[STORE_KEY_MAX] = "";
    int result = 0;

    for (bool more = true; more && result == 0;) {
        struct store_listing listing;
        result = store_list(offline->store, KEY_REGISTERS, after, STORE_LIST_MAX, &listing, error);
        if (result < 0)
            return result;
        for (size_t i = 0; i < listing.count && result == 0; i++)
            result = show(offline, listing.entries[i].key, work, error);
        more = listing.more && listing.count > 0;
        if (more)
            snprintf(after, sizeof after, "%s", listing.entries[listing.count - 1].key);
        store_listing_free(&listing);
    }
    return result;
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    struct list_work work = { .json = json_asked, .array = json_array() };

    int result = offline_run(config, false, work_list, &work, error);
    if (result == 0 && work.damaged > 0)
        result = error_set(error, EBADMSG,
                           "%zu of %zu registers are damaged: cairn info VOLUME or cairn dump KEY says "
                           "what is wrong; the other volumes are not touched by it",
                           work.damaged, work.count);
    if (work.json)
        report_print_json(json_incref(work.array));
    else if (work.count == 0 && result == 0)
        fprintf(stderr, "cairn list: no volumes yet in %s\n", config->store);
    json_decref(work.array);
    return result < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_list = {
    .name = "list",
    .arguments = "[FLAGS]",
    .summary = "show the volumes of a store, and who owns them",
    .description = "Shows each volume: its size, how many bytes are stored for it, its state, and which server owns\n"
                   "it.  Reads only, and may be used while servers work on the store.  A volume whose register is\n"
                   "damaged is shown as such, with the reason; then the exit status is 1.",
    .examples = "  cairn list\n"
                "  cairn list --store dir:/srv/disks --json",
    .groups = SETTINGS_STORE,
    .flags = flags,
    .run = run,
};
