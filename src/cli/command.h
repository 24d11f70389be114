/* Subcommands: a table in main.c, one file each.
 *
 * A command gets its settings loaded and its arguments counted, does its work,
 * and returns the exit status: 0 done, 1 failed, 2 wrong usage.  What failed
 * stands in `error`; main.c prints it, as one line. */
#ifndef CAIRN_CLI_COMMAND_H
#define CAIRN_CLI_COMMAND_H

#include "base/error.h"
#include "daemon/config.h"

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name;
    const char *arguments;           /* behind the name, for the usage line */
    const char *summary;             /* one line, for the list of commands */
    const char *description;         /* paragraphs */
    const char *examples;            /* lines, each indented by two */
    unsigned groups;                 /* enum setting_group */
    const struct config_flag *flags; /* NULL: none of its own */
    int positional_least, positional_most;
    int (*run)(const struct config *config, const struct config_arguments *arguments, struct error *error);
};

extern const struct command *const commands[];        /* ends with NULL */
const struct command *command_find(const char *name); /* NULL: none */
void command_print_help(const struct command *command);
void command_print_overview(void);

extern const struct command command_serve, command_list, command_info, command_check, command_dump, command_break_lease,
    command_doctor, command_help, command_version;

#endif
