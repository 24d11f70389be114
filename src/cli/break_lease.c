/* cairn break-lease: takes a volume from an owner that is gone, and gives it back free.
 *
 * It is the takeover that every start of a volume makes, but for the question
 * whether the old owner still lives.  Should that be alive after all, the fence
 * of the takeover (vol/recover.c) ends its ownership: it can acknowledge
 * nothing more, and what its clients had flushed is kept. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/command.h"
#include "cli/offline.h"
#include "cli/report.h"
#include "daemon/host.h"
#include "daemon/log.h"
#include "daemon/store_url.h"
#include "rt/loop.h"
#include "vol/volume.h"

/* Taking over reads the log once and writes a few small objects. */
#define RELEASE_PATIENCE_NS (30 * NS_PER_S)
#define BREAK_MEMORY_BYTES (UINT64_C(256) << 20)

static bool yes_given;
static const struct config_flag flags[] = {
    { "yes", NULL, "do not ask; needed where there is no terminal to ask on", &yes_given, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

struct break_work {
    const char *name;
    struct event_sink *log;
    bool declined, unasked;
};

static bool confirmed(const char *name, const char *owner)
{
    char answer[16] = "";

    fprintf(stderr,
            "Volume '%s' belongs to %s.\nIf that server still runs, its clients lose the volume now, and with it "
            "writes that they have not flushed.\nTake it? [y/N] ",
            name, owner);
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

static CO int take_and_release(struct offline *offline, struct break_work *work, struct host *host, struct error *error)
{
    struct volume_settings settings = volume_settings_default();
    struct volume *volume;
    struct error why = ERROR_NONE;

    settings.break_lease = true;
    settings.memory_bytes = BREAK_MEMORY_BYTES;
    settings.dirty_bytes = BREAK_MEMORY_BYTES / 4;
    struct volumes *volumes = volumes_new(offline->loop, offline->store, host, work->log, &settings);
    int result = volumes_acquire(volumes, work->name, strlen(work->name), 0, &volume, error);
    if (result == 0)
        volumes_release(volumes, volume, false);
    int ended = volumes_shutdown(volumes, loop_now_ns(offline->loop) + RELEASE_PATIENCE_NS, &why);
    if (ended < 0)
        volumes_abandon(volumes);
    volumes_free(volumes);
    if (result == 0 && ended < 0) {
        error_copy(error, &why);
        result = error_context(error, "volume '%s' was taken, but could not be released", work->name);
    }
    return result;
}

static CO int break_one(struct offline *offline, struct break_work *work, struct error *error)
{
    char *directory = host_lock_directory();
    struct host_setup setup = { .lock_directory = directory,
                                .store_is_local = store_url_is_local(offline->config->store) };
    struct host *host;
    struct error trouble;

    host_new(&setup, &host, &trouble);
    int result = take_and_release(offline, work, host, error);
    host_free(host, result == 0);
    free(directory);
    return result;
}

static CO int work_break(struct offline *offline, void *arg, struct error *error)
{
    struct break_work *work = arg;
    struct volume_report report;
    char key[KEY_MAX], owner[REPORT_OWNER_MAX];

    key_register(work->name, strlen(work->name), key);
    int result = report_read(offline->store, key, &report, error);
    if (result == -ENOENT)
        return error_set(error, ENOENT, "there is no volume '%s' in %s: cairn list shows those that are", work->name,
                         offline->config->store);
    if (result < 0)
        return result;
    if (!report.sound)
        return error_set(error, report.trouble.code, "the register of volume '%s', the object %s, is damaged: %s",
                         work->name, report.key, report.trouble.story);
    report_owner(&report, owner);
    bool held = report.body.held;
    report_free(&report);
    if (!held) {
        printf("volume '%s' belongs to nobody: nothing to do\n", work->name);
        return 0;
    }
    work->unasked = !yes_given && !isatty(STDIN_FILENO);
    work->declined = !work->unasked && !yes_given && !confirmed(work->name, owner);
    if (work->unasked)
        return error_set(error, EINVAL, "volume '%s' belongs to %s: give --yes to take it from there", work->name,
                         owner);
    if (work->declined)
        return error_set(error, ECANCELED, "volume '%s' was left to %s", work->name, owner);
    result = break_one(offline, work, error);
    if (result == 0)
        printf("volume '%s' was taken from %s, and is free now\n", work->name, owner);
    return result;
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    struct break_work work = { .name = arguments->positional[0],
                               .log = log_new(STDERR_FILENO, (enum log_format)config->log_format,
                                              (enum event_level)config->log_level) };

    int result = offline_run(config, false, work_break, &work, error);
    free(work.log);
    return result == 0 ? EXIT_DONE : work.unasked ? EXIT_USAGE : EXIT_FAILED;
}

const struct command command_break_lease = {
    .name = "break-lease",
    .arguments = "[FLAGS] VOLUME",
    .summary = "take a volume from a server that is gone",
    .description =
        "A volume belongs to the server that opened it until that server releases it.  When a server has\n"
        "ended without doing so, a restart on the same host notices and takes its volumes over by itself;\n"
        "from elsewhere nobody can tell whether it is gone, and the volume is refused.  If you know that it\n"
        "is gone, break-lease makes the volume free: nothing that was flushed is lost.\n\n"
        "Should the old server be alive after all, it is fenced off: its clients get errors, and nothing\n"
        "that it writes from then on is ever seen.  Writes that its clients had not flushed are lost.",
    .examples = "  cairn break-lease scratch\n"
                "  cairn break-lease --yes --store dir:/srv/disks scratch    # in a script",
    .groups = SETTINGS_STORE | SETTINGS_LOG,
    .flags = flags,
    .positional_least = 1,
    .positional_most = 1,
    .run = run,
};
