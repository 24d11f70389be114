/* cairn: the table of subcommands, and what they have in common. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "cli/command.h"

#define DOTENV_PATH ".env"
#define CONFIG_PATH "/etc/cairn.conf"

const struct command *const commands[] = {
    &command_serve,       &command_list,   &command_info, &command_check,   &command_dump,
    &command_break_lease, &command_doctor, &command_help, &command_version, NULL
};

const struct command *command_find(const char *name)
{
    for (int i = 0; commands[i] != NULL; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

void command_print_overview(void)
{
    printf("cairn serves virtual disks over NBD and keeps them in an object store.\n\n"
           "Usage: cairn COMMAND [FLAGS] [ARGUMENTS]\n\n");
    for (int i = 0; commands[i] != NULL; i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n`cairn COMMAND --help` explains a command with examples.  To begin:\n\n"
           "  cairn serve                               # disks in a directory of your own\n"
           "  cairn serve --store s3://BUCKET           # or in S3; cairn doctor tells why it does not work\n"
           "  nbdinfo nbd://localhost:10809/scratch     # in another terminal: the disk 'scratch'\n\n"
           "Settings are flags, or variables (--log-level is NBD_LOG_LEVEL) in the environment or in ./.env,\n"
           "or keys in /etc/cairn.conf (log-level = DEBUG); the former beat the latter.\n");
}

void command_print_help(const struct command *command)
{
    struct buffer settings = BUFFER_EMPTY;

    config_describe(command->groups, command->flags, &settings);
    printf("Usage: cairn %s%s%s\n\n%s\n\nFlags:\n%.*s\nExamples:\n%s\n", command->name,
           command->arguments[0] != '\0' ? " " : "", command->arguments, command->description, (int)settings.length,
           (char *)settings.data, command->examples);
    buffer_free(&settings);
}

/* One line, whatever is in it: errors quote what people and stores gave us. */
static int complain(const char *command, const struct error *error, int status)
{
    fprintf(stderr, "cairn%s%s: ", command != NULL ? " " : "", command != NULL ? command : "");
    for (const char *at = error->story; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            fprintf(stderr, "\\x%02x", (unsigned char)*at);
        else
            fputc(*at, stderr);
    fputc('\n', stderr);
    return status;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct config_request request = { .groups = command->groups,
                                      .flags = command->flags,
                                      .positional_most = command->positional_most,
                                      .argc = argc,
                                      .argv = argv,
                                      .environment = environ,
                                      .dotenv_path = DOTENV_PATH,
                                      .default_config_path = CONFIG_PATH };
    struct config config;
    struct config_arguments arguments;
    struct error error = ERROR_NONE;

    int result = config_load(&request, &config, &arguments, &error);
    if (result < 0)
        return complain(command->name, &error, result == -EINVAL || result == -ERANGE ? EXIT_USAGE : EXIT_FAILED);
    if (arguments.help) {
        command_print_help(command);
        return EXIT_DONE;
    }
    if (arguments.count < command->positional_least) {
        error_set(&error, EINVAL, "an argument is missing: cairn %s %s", command->name, command->arguments);
        config_free(&config);
        return complain(command->name, &error, EXIT_USAGE);
    }
    int status = command->run(&config, &arguments, &error);
    config_free(&config);
    if (error.code != 0)
        complain(command->name, &error, status);
    if (fflush(stdout) != 0 && status == EXIT_DONE) {
        error_set_errno(&error, errno, "cannot write to standard output");
        return complain(command->name, &error, EXIT_FAILED);
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    struct error error = ERROR_NONE;

    if (name == NULL) {
        error_set(&error, EINVAL, "a command is missing: cairn --help tells all, cairn serve starts a server");
        return complain(NULL, &error, EXIT_USAGE);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    const struct command *command = command_find(name);
    if (command == NULL) {
        error_set(&error, EINVAL, "there is no command '%s': cairn --help lists them", name);
        return complain(NULL, &error, EXIT_USAGE);
    }
    return run(command, argc - 2, argv + 2);
}
