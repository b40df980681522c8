#include "gateway/base/cleanup.h"
#include "gateway/cli/command.h"

#include <stdbool.h>
#include <string.h>

/* command_NAME lies in NAME.c; the list of names is a file of its own, one a line. */
#define COMMAND(name) extern const struct command command_##name;
#include "gateway/cli/commands.inc"
#undef COMMAND

#define COMMAND(name) &command_##name,
const struct command *const commands[] = {
#include "gateway/cli/commands.inc"
};
#undef COMMAND
const size_t commands_count = ARRAY_SIZE(commands);

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < commands_count; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

enum { NAME_MAX_LEN = 24 };

/* Edit distance; names longer than NAME_MAX_LEN are never near. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_LEN + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > NAME_MAX_LEN || b_len > NAME_MAX_LEN) {
        return NAME_MAX_LEN;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

const char *command_nearest(const char *name)
{
    const char *nearest = NULL;
    size_t least = strlen(name) < 4 ? 2 : 3;
    for (size_t i = 0; i < commands_count; i++) {
        size_t d = distance(name, commands[i]->name);
        if (d < least) {
            least = d;
            nearest = commands[i]->name;
        }
    }
    return nearest;
}

void command_print_help(const struct command *command, FILE *out)
{
    fprintf(out, "windrow %s%s%s\n%s\n\nOptions\n", command->name,
            command->arguments[0] != '\0' ? " " : "", command->arguments, command->summary);
    fputs(command->help, out);
    size_t len = strlen(command->help);
    if (len > 0 && command->help[len - 1] != '\n') {
        fputc('\n', out);
    }
    fputs("  --json          print JSON instead of text\n"
          "  -c FILE         the configuration (/etc/windrow/windrow.ini)\n"
          "  --socket PATH   the daemon's socket (run_dir/windrow.sock)\n"
          "  --help          this text\n",
          out);
}

static void print_commands(FILE *out)
{
    fputs("windrow - the technician's command of the Windrow edge gateway\n\n"
          "windrow COMMAND [ARGUMENTS] [--json] [-c FILE]\n\n",
          out);
    for (size_t i = 0; i < commands_count; i++) {
        fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\nwindrow COMMAND --help says more.  Exit: 0 good, 1 something is not well,\n"
          "2 wrong usage or configuration.\n",
          out);
}

static int unknown_command(const char *name)
{
    const char *nearest = command_nearest(name);
    fprintf(stderr, "windrow: there is no command '%s'.", name);
    if (nearest != NULL) {
        fprintf(stderr, " Did you mean '%s'?", nearest);
    }
    fputs(" `windrow --help` lists them all.\n", stderr);
    return COMMAND_USAGE;
}

int commands_main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return COMMAND_USAGE;
    }
    const char *name = argv[1];
    bool help = strcmp(name, "help") == 0;
    if (help && argc > 2) {
        const struct command *command = command_find(argv[2]);
        if (command == NULL) {
            return unknown_command(argv[2]);
        }
        command_print_help(command, stdout);
        return COMMAND_GOOD;
    }
    if (help || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_commands(stdout);
        return COMMAND_GOOD;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        puts("windrow " WINDROW_VERSION);
        return COMMAND_GOOD;
    }
    const struct command *command = command_find(name);
    return command != NULL ? command->run(argc - 1, argv + 1) : unknown_command(name);
}
