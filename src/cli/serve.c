/* cairn serve: the server. */
#include <stdlib.h>
#include <unistd.h>

#include "cli/command.h"
#include "daemon/log.h"
#include "daemon/server.h"

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    struct event_sink *log =
        log_new(STDERR_FILENO, (enum log_format)config->log_format, (enum event_level)config->log_level);

    for (size_t i = 0; i < config->warning_count; i++)
        event_raise(log, EVENT_WARNING, "settings", "%s", config->warnings[i]);
    int result = server_run(config, log, error);
    free(log);
    return result < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_serve = {
    .name = "serve",
    .arguments = "[FLAGS]",
    .summary = "serve disks over NBD",
    .description =
        "Serves disks over NBD.  Every export name is a disk of its own, which is created when it is first\n"
        "connected to.  A write is answered once it is in memory; a flush is answered once everything\n"
        "written before it is in the store.\n\n"
        "SIGTERM or SIGINT stops it: clients get their answers, everything is saved, and the exit status is\n"
        "0; a second signal hurries, a third ends it at once.  SIGUSR1 prints statistics.\n\n"
        "Each setting is also a variable, in the environment or in the file .env of the working directory\n"
        "(--port is NBD_PORT, --write-buffer is NBD_WRITE_BUFFER), and a key of the configuration file\n"
        "(write-buffer = 64MB).  A flag beats the environment, the environment beats .env, that beats the\n"
        "configuration file.\n\n"
        "Any setting of S3 says that the disks are kept there, unless a stronger source names a directory.\n\n"
        "Sizes are bytes, or numbers with K, M, G or T, in powers of 1024; times are seconds, or numbers\n"
        "with ms, s or m.",
    .examples = "  cairn serve                                     # on localhost:10809, disks in your home\n"
                "  cairn serve --store dir:/srv/disks --size 20GB  # new disks have 20 GiB\n"
                "  cairn serve --store s3://disks --s3-endpoint http://localhost:9000\n"
                "  cairn serve --unix /run/user/1000/cairn.sock    # for programs of this host alone\n"
                "  NBD_LOG_LEVEL=DEBUG cairn serve --port 10810\n\n"
                "then, in another terminal:\n\n"
                "  nbdinfo nbd://localhost/scratch\n"
                "  nbdcopy image.raw nbd://localhost/scratch\n"
                "  sudo nbd-client localhost -N scratch /dev/nbd0",
    .groups = SETTINGS_STORE | SETTINGS_LOG | SETTINGS_SERVE,
    .run = run,
};
