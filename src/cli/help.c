/* cairn help [COMMAND] */
#include <errno.h>
#include <stdio.h>

#include "cli/command.h"

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    if (arguments->count == 0) {
        command_print_overview();
        return EXIT_DONE;
    }
    const struct command *command = command_find(arguments->positional[0]);
    if (command == NULL) {
        error_set(error, EINVAL, "there is no command '%s': cairn help lists them", arguments->positional[0]);
        return EXIT_USAGE;
    }
    command_print_help(command);
    return EXIT_DONE;
}

const struct command command_help = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "explain all commands, or one",
    .description = "Prints the list of commands, or the help of COMMAND.",
    .examples = "  cairn help serve",
    .positional_most = 1,
    .run = run,
};
