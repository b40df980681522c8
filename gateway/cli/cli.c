#include "gateway/cli/cli.h"

#include "gateway/base/cleanup.h"

#include <stdarg.h>
#include <string.h>

int cli_usage_error(const struct command *command, const char *format, ...)
{
    fprintf(stderr, "windrow %s: ", command->name);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nusage: windrow %s %s%s[options]; `windrow %s --help` says more\n",
            command->name, command->arguments, command->arguments[0] != '\0' ? " " : "",
            command->name);
    return COMMAND_USAGE;
}

/* The value behind '=' in `arg`, NULL when there is none, and the length of the name. */
static const char *split_value(const char *arg, size_t *ret_len)
{
    const char *equals = arg[0] == '-' && arg[1] == '-' ? strchr(arg, '=') : NULL;
    *ret_len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
    return equals != NULL ? equals + 1 : NULL;
}

static const struct cli_option *find_option(const struct cli_option *list, size_t count,
                                            const char *arg, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(list[i].name) == len && memcmp(list[i].name, arg, len) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0' && !(arg[1] >= '0' && arg[1] <= '9') && arg[1] != '.';
}

/* Takes argv[*i] (and its value) by one of the two tables. */
static int take_option(const struct command *command, char **argv, int argc, int *i,
                       const struct cli_option *own, size_t own_count,
                       const struct cli_option *common, size_t common_count)
{
    const char *arg = argv[*i];
    size_t len;
    const char *value = split_value(arg, &len);
    const struct cli_option *option = find_option(own, own_count, arg, len);
    if (option == NULL) {
        option = find_option(common, common_count, arg, len);
    }
    if (option == NULL) {
        return cli_usage_error(command, "there is no option %s", arg);
    }
    if (option->flag != NULL) {
        *option->flag = true;
        return value == NULL ? CLI_GO : cli_usage_error(command, "%s takes no value", option->name);
    }
    if (value == NULL && *i + 1 < argc) {
        value = argv[++*i];
    }
    if (value == NULL) {
        return cli_usage_error(command, "%s needs a value", option->name);
    }
    *option->value = value;
    return CLI_GO;
}

static int check_words(const struct command *command, const struct cli *cli, int least, int most)
{
    if (cli->count < least) {
        return cli_usage_error(command, "%s is missing", command->arguments);
    }
    if (most >= 0 && cli->count > most) {
        return cli_usage_error(command, "'%s' is one word too many", cli->words[most]);
    }
    return CLI_GO;
}

int cli_parse(const struct command *command, int argc, char **argv,
              const struct cli_option *options, size_t count, int least, int most,
              struct cli *ret_cli)
{
    struct cli cli = {.words = argv + 1};
    bool help = false;
    const char *config = NULL;
    const struct cli_option common[] = {
        {.name = "--help", .flag = &help},      {.name = "-h", .flag = &help},
        {.name = "--json", .flag = &cli.json},  {.name = "-c", .value = &config},
        {.name = "--config", .value = &config}, {.name = "--socket", .value = &cli.socket_path},
    };
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (only_words || !is_option(argv[i])) {
            cli.words[cli.count++] = argv[i];
        } else {
            int r = take_option(command, argv, argc, &i, options, count, common,
                                ARRAY_SIZE(common));
            if (r != CLI_GO) {
                return r;
            }
        }
    }
    if (help) {
        command_print_help(command, stdout);
        return COMMAND_GOOD;
    }
    cli.config_given = config != NULL;
    cli.config_path = config != NULL ? config : CLI_DEFAULT_CONFIG;
    int r = check_words(command, &cli, least, most);
    if (r == CLI_GO) {
        *ret_cli = cli;
    }
    return r;
}
