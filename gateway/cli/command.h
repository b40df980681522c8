/* command.h - one subcommand of `windrow`.
 *
 * A command is a const struct in its own file, listed in commands.c. It gets argv from its own name
 * on, prints to stdout (errors to stderr) and returns the exit status: 0 good, 1 the thing asked
 * about is not well, 2 wrong usage or configuration. Every command takes --help, --json, -c FILE.
 */
#pragma once

#include <stddef.h>

enum command_exit { COMMAND_GOOD = 0, COMMAND_NOT_WELL = 1, COMMAND_USAGE = 2 };

struct command {
    const char *name;
    const char *arguments; /* "DEVICE [POINT...]" */
    const char *summary;   /* one line */
    const char *help;      /* the options, a line each; "" when there are only the common ones */
    int (*run)(int argc, char **argv);
};

extern const struct command *const commands[];
extern const size_t commands_count;
