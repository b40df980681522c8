#include "gateway/cli/cli.h"

/* The words come from `windrow completion words`, so that the script never goes stale. */
static const char bash_script[] =
    "# windrow(1) completion for bash: windrow completion > "
    "/usr/share/bash-completion/completions/windrow\n"
    "_windrow() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]}\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
    "        COMPREPLY=($(compgen -W \"$(windrow completion words)\" -- \"$current\"))\n"
    "    elif [[ $current == -* ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$(windrow completion words \"${COMP_WORDS[1]}\")\" "
    "-- \"$current\"))\n"
    "    else\n"
    "        COMPREPLY=($(compgen -f -- \"$current\"))\n"
    "    fi\n"
    "}\n"
    "complete -F _windrow windrow\n";

/* Every "--option" that the help of a command names at the start of a line. */
static void print_options(const struct command *command)
{
    for (const char *at = command->help; *at != '\0'; at++) {
        if ((at == command->help || at[-1] == ' ' || at[-1] == '\n') && at[0] == '-' &&
            at[1] == '-') {
            const char *end = at;
            while (*end == '-' || (*end >= 'a' && *end <= 'z')) {
                end++;
            }
            printf("%.*s\n", (int)(end - at), at);
            at = end - 1;
        }
    }
    puts("--json\n-c\n--socket\n--help");
}

static int run_completion(int argc, char **argv);

const struct command command_completion = {
    .name = "completion",
    .arguments = "[bash | words [COMMAND]]",
    .summary = "prints the completion script for bash",
    .help = "",
    .run = run_completion,
};

static int print_words(const struct cli *cli)
{
    if (cli->count < 2) {
        for (size_t i = 0; i < commands_count; i++) {
            puts(commands[i]->name);
        }
        return COMMAND_GOOD;
    }
    const struct command *command = command_find(cli->words[1]);
    if (command == NULL) {
        return COMMAND_NOT_WELL;
    }
    print_options(command);
    return COMMAND_GOOD;
}

static int run_completion(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_completion, argc, argv, NULL, 0, 0, 2, &cli);
    if (r != CLI_GO) {
        return r;
    }
    if (cli.count > 0 && cli.words[0][0] == 'w') {
        return print_words(&cli);
    }
    fputs(bash_script, stdout);
    return COMMAND_GOOD;
}
