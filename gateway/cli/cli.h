/* cli.h - what every command does with its arguments.
 *
 * A command names its own options in a table and calls cli_parse() first; the common ones are
 * added. Single-threaded; texts point into argv. */
#pragma once

#include "gateway/cli/command.h"

#include <stdbool.h>

#define CLI_DEFAULT_CONFIG "/etc/windrow/windrow.ini"

/* One own option: `--name` sets *flag; `--name VALUE` or `--name=VALUE` sets *value. */
struct cli_option {
    const char *name; /* "--last" */
    bool *flag;
    const char **value;
};

struct cli {
    bool json;
    bool config_given;       /* -c was used */
    const char *config_path; /* never NULL */
    const char *socket_path; /* NULL: by the configuration */
    int count;               /* words that are no options, in their order: points into argv */
    char **words;
};

/* Sorts argv (of struct command.run) into options and words. Returns CLI_GO, or the exit status:
 * COMMAND_GOOD after printing --help, COMMAND_USAGE after saying what is wrong. A word that starts
 * with '-' and a digit is a number, no option; all words after `--` are words. Fewer words than
 * `least` or more than `most` (negative: any number) is wrong usage. */
enum { CLI_GO = -1 };
int cli_parse(const struct command *command, int argc, char **argv,
              const struct cli_option *options, size_t count, int least, int most,
              struct cli *ret_cli);

/* "windrow NAME: MESSAGE" and the usage line, to stderr; returns COMMAND_USAGE. */
int cli_usage_error(const struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
