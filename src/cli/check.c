/* cairn check: whether all that is stored of a volume agrees with itself. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/command.h"
#include "cli/offline.h"
#include "cli/report.h"
#include "rt/loop.h"
#include "vol/check.h"

#define PROGRESS_NS UINT64_C(200000000) /* as often as a person can follow */

static bool json_asked, data_asked;
static const struct config_flag flags[] = {
    { "data", NULL, "read all pages that are in use, too, and verify them", &data_asked, NULL },
    { "json", NULL, "print an object, for programs", &json_asked, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

struct check_work {
    const char *name;
    struct loop *loop;
    json_t *findings;     /* NULL: printed as they come */
    bool terminal;        /* somebody watches the progress */
    bool line_open;       /* and a line of it stands there */
    uint64_t progress_ns; /* when that was last written */
    struct check_counts counts;
};

static const char *const kinds[] = {
    [CHECK_DAMAGED] = "damaged", [CHECK_MISSING] = "missing",           [CHECK_FOREIGN] = "foreign",
    [CHECK_NEWER] = "newer",     [CHECK_INCONSISTENT] = "inconsistent", [CHECK_UNREADABLE] = "unreadable",
};

static void end_line(struct check_work *work)
{
    if (work->line_open)
        fputs("\r\033[K", stderr);
    work->line_open = false;
}

static void progress(void *arg, const char *what, uint64_t done, uint64_t of)
{
    struct check_work *work = arg;
    uint64_t now_ns = loop_now_ns(work->loop);

    if (!work->terminal || now_ns - work->progress_ns < PROGRESS_NS)
        return;
    work->progress_ns = now_ns;
    work->line_open = true;
    if (of > 0)
        fprintf(stderr, "\r\033[K%s: %" PRIu64 " of %" PRIu64, what, done, of);
    else
        fprintf(stderr, "\r\033[K%s: %" PRIu64, what, done);
    fflush(stderr);
}

/* Stories quote what the store gave us: nothing of it may steer a terminal. */
static void print_safely(const char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            printf("\\x%02x", (unsigned char)*at);
        else
            putchar(*at);
}

static void found(void *arg, const struct check_finding *finding)
{
    struct check_work *work = arg;

    if (work->findings != NULL) {
        /* A story may quote what is no UTF-8, of which Jansson makes nothing. */
        json_t *story = json_string(finding->story);
        json_array_append_new(work->findings,
                              json_pack("{s:s, s:s, s:o}", "kind", kinds[finding->kind], "object", finding->key,
                                        "detail", story != NULL ? story : json_string("?")));
        return;
    }
    end_line(work);
    printf("%-12s %s: ", kinds[finding->kind], finding->key);
    print_safely(finding->story);
    putchar('\n');
    fflush(stdout);
}

static CO int work_check(struct offline *offline, void *arg, struct error *error)
{
    struct check_work *work = arg;
    struct check check = {
        .loop = offline->loop,
        .store = offline->store,
        .name = work->name,
        .name_length = strlen(work->name),
        .data = data_asked,
        .found = found,
        .progress = progress,
        .arg = work,
    };

    work->loop = offline->loop;
    work->progress_ns = loop_now_ns(work->loop);
    int result = volume_check(&check, &work->counts, error);
    end_line(work);
    if (result == -ENOENT)
        return error_set(error, ENOENT, "there is no volume '%s' in %s: cairn list shows those that are", work->name,
                         offline->config->store);
    return result;
}

/* ---- what it comes to ---- */

static void print_counts(const struct check_work *work)
{
    const struct check_counts *counts = &work->counts;
    char size[TEXT_SIZE_MAX], read[TEXT_SIZE_MAX], unreferenced[TEXT_SIZE_MAX];

    text_format_size(counts->size, size);
    text_format_size(counts->frame_bytes, read);
    text_format_size(counts->unreferenced_bytes, unreferenced);
    printf("volume of %s, epoch %" PRIu64 ": %" PRIu64 " log entries, %" PRIu64 " data objects, %" PRIu64
           " checkpoints of %" PRIu64 " pieces\n",
           size, counts->epoch, counts->log_entries, counts->data_objects, counts->roots, counts->pieces);
    if (counts->unreferenced > 0)
        printf("%" PRIu64
               " data objects (%s) are named by nothing: what was not committed when a server ended, or is not "
               "yet\n",
               counts->unreferenced, unreferenced);
    if (counts->unknown > 0)
        printf("%" PRIu64 " objects beside them are none of cairn's\n", counts->unknown);
    if (data_asked)
        printf("%" PRIu64 " frames of pages read, %s\n", counts->frames, read);
    else
        printf("pages were not read: cairn check --data does\n");
    if (counts->findings > CHECK_FINDINGS_TOLD)
        printf("%u findings are shown, and there are more\n", CHECK_FINDINGS_TOLD);
    printf(counts->findings == 0 ? "sound\n" : "NOT SOUND\n");
}

static void print_json(struct check_work *work, int result)
{
    const struct check_counts *counts = &work->counts;
    json_t *name = json_string(work->name);
    json_t *object = json_pack("{s:o, s:b, s:b, s:I, s:o}", "volume", name != NULL ? name : json_string("?"),
                               "complete", result == 0, "sound", result == 0 && counts->findings == 0, "findings_total",
                               (json_int_t)counts->findings, "findings", json_incref(work->findings));
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        { "size", counts->size },
        { "epoch", counts->epoch },
        { "log_entries", counts->log_entries },
        { "data_objects", counts->data_objects },
        { "checkpoints", counts->roots },
        { "pieces", counts->pieces },
        { "unreferenced_objects", counts->unreferenced },
        { "unreferenced_bytes", counts->unreferenced_bytes },
        { "unknown_objects", counts->unknown },
        { "frames_read", counts->frames },
        { "frame_bytes_read", counts->frame_bytes },
    };

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        json_object_set_new(object, numbers[i].key, json_integer((json_int_t)numbers[i].value));
    report_print_json(object);
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    struct check_work work = {
        .name = arguments->positional[0],
        .findings = json_asked ? json_array() : NULL,
        .terminal = isatty(STDERR_FILENO) != 0,
    };

    int result = offline_run(config, false, work_check, &work, error);
    if (json_asked && result != -ENOENT)
        print_json(&work, result);
    else if (!json_asked && result == 0)
        print_counts(&work);
    json_decref(work.findings);
    if (result == 0 && work.counts.findings > 0)
        result = error_set(error, EBADMSG, "volume '%s' is not sound: %" PRIu64 " finding%s", work.name,
                           work.counts.findings, work.counts.findings == 1 ? "" : "s");
    return result < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_check = {
    .name = "check",
    .arguments = "[FLAGS] VOLUME",
    .summary = "see whether all that is stored of a volume agrees with itself",
    .description =
        "Reads the register of a volume, its checkpoints and its log, compares them with each other and with\n"
        "the data objects that are there, and names every inconsistency and the object that it is in.\n"
        "With --data, all pages that are in use are read, too.  Changes nothing, and may be used while\n"
        "servers work on the store.  The exit status is 0 if the volume is sound, and 1 if it is not or\n"
        "if that could not be told.",
    .examples = "  cairn check scratch                   # names, chains and counts, not the pages\n"
                "  cairn check --data scratch            # everything\n"
                "  cairn check --json scratch | jq .findings",
    .groups = SETTINGS_STORE,
    .flags = flags,
    .positional_least = 1,
    .positional_most = 1,
    .run = run,
};
