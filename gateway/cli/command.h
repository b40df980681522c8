/* command.h - one subcommand of `windrow`.
 *
 * A command is a const struct command_NAME in its own file, with one line in commands.inc. It gets
 * argv from its own name on, prints to stdout (errors to stderr) and returns the exit status.
 * Every command takes --help, --json, -c FILE and --socket PATH: cli_parse() in cli.h does that.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

enum command_exit {
    COMMAND_GOOD = 0,
    COMMAND_NOT_WELL = 1, /* the thing asked about is not well */
    COMMAND_USAGE = 2,    /* wrong usage or configuration */
};

struct command {
    const char *name;
    const char *arguments; /* "DEVICE [POINT...]" */
    const char *summary;   /* one line */
    const char *help;      /* the options, a line each; "" when there are only the common ones */
    int (*run)(int argc, char **argv);
};

/* All of them, in alphabetical order. */
extern const struct command *const commands[];
extern const size_t commands_count;

/* The command of that name, or NULL. */
const struct command *command_find(const char *name);

/* The most similar command name when it is near enough for a "did you mean", or NULL. */
const char *command_nearest(const char *name);

/* What `windrow` does: finds argv[1] and runs it; returns the exit status. */
int commands_main(int argc, char **argv);

/* What --help prints: the usage, the summary, and the options, own and common. */
void command_print_help(const struct command *command, FILE *out);
