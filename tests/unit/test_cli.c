/* The words of the command line: options, mistakes, help, and the table of commands. */
#include "gateway/base/cleanup.h"
#include "gateway/cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

static const struct command example = {
    .name = "example",
    .arguments = "POINT",
    .summary = "for tests",
    .help = "  --last TIME     how far back\n",
};

struct parsed {
    struct cli cli;
    const char *last;
    bool csv;
};

static int parse(struct parsed *p, int argc, char **argv, int least, int most)
{
    *p = (struct parsed){0};
    const struct cli_option own[] = {{.name = "--last", .value = &p->last},
                                     {.name = "--csv", .flag = &p->csv}};
    return cli_parse(&example, argc, argv, own, ARRAY_SIZE(own), least, most, &p->cli);
}

#define PARSE(p, least, most, ...)                                                                 \
    ({                                                                                             \
        char *argv_[] = {"example", __VA_ARGS__};                                                  \
        parse(p, (int)ARRAY_SIZE(argv_), argv_, least, most);                                      \
    })

static void test_options_and_words(void **state)
{
    (void)state;
    struct parsed p;
    char *argv[] = {"example", "--last", "1h", "t01.power", "--csv", "-c", "x.ini", "--json"};
    assert_int_equal(parse(&p, 8, argv, 1, 1), CLI_GO);
    assert_string_equal(p.last, "1h");
    assert_true(p.csv && p.cli.json && p.cli.config_given);
    assert_string_equal(p.cli.config_path, "x.ini");
    assert_int_equal(p.cli.count, 1);
    assert_string_equal(p.cli.words[0], "t01.power");
    char *equals[] = {"example", "--last=2 h", "--socket=/run/s"};
    assert_int_equal(parse(&p, 3, equals, 0, 0), CLI_GO);
    assert_string_equal(p.last, "2 h");
    assert_string_equal(p.cli.socket_path, "/run/s");
    assert_string_equal(p.cli.config_path, CLI_DEFAULT_CONFIG);
}

static void test_numbers_are_words(void **state)
{
    (void)state;
    struct parsed p;
    char *argv[] = {"example", "-5", "-.5", "-", "--", "--last"};
    assert_int_equal(parse(&p, 6, argv, 0, -1), CLI_GO);
    assert_int_equal(p.cli.count, 4);
    assert_string_equal(p.cli.words[3], "--last");
    assert_null(p.last);
}

static void test_mistakes_are_usage(void **state)
{
    (void)state;
    struct parsed p;
    assert_int_equal(PARSE(&p, 0, -1, "--lats", "1h"), COMMAND_USAGE);
    assert_int_equal(PARSE(&p, 0, -1, "--last"), COMMAND_USAGE);
    assert_int_equal(PARSE(&p, 0, -1, "--csv=1"), COMMAND_USAGE);
    assert_int_equal(PARSE(&p, 1, 1, "--csv"), COMMAND_USAGE);
    assert_int_equal(PARSE(&p, 1, 1, "a", "b"), COMMAND_USAGE);
    assert_int_equal(PARSE(&p, 1, 1, "--help"), COMMAND_GOOD);
}

static void test_commands_are_sorted_and_described(void **state)
{
    (void)state;
    for (size_t i = 0; i < commands_count; i++) {
        const struct command *c = commands[i];
        assert_non_null(c->run);
        assert_true(c->summary[0] != '\0' && strlen(c->summary) <= 65);
        assert_non_null(c->help);
        assert_non_null(c->arguments);
        if (i > 0 && strcmp(commands[i - 1]->name, c->name) >= 0) {
            fail_msg("%s is out of order in commands.inc", c->name);
        }
    }
}

/* Each command answers --help with 0, and an unknown option with 2. */
static void test_every_command_has_help(void **state)
{
    (void)state;
    for (size_t i = 0; i < commands_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s", commands[i]->name);
        char help[] = "--help", bogus[] = "--no-such-option";
        char *argv[] = {"windrow", name, help, NULL};
        assert_int_equal(commands_main(3, argv), COMMAND_GOOD);
        char *wrong[] = {"windrow", name, bogus, NULL};
        assert_int_equal(commands_main(3, wrong), COMMAND_USAGE);
    }
}

static void test_unknown_command_names_the_nearest(void **state)
{
    (void)state;
    assert_string_equal(command_nearest("completoin"), "completion");
    assert_null(command_nearest("xyzzy"));
    assert_null(command_nearest("a-very-long-word-that-is-no-command-at-all"));
    char *argv[] = {"windrow", "completoin", NULL};
    assert_int_equal(commands_main(2, argv), COMMAND_USAGE);
    assert_int_equal(commands_main(1, argv), COMMAND_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_and_words),
        cmocka_unit_test(test_numbers_are_words),
        cmocka_unit_test(test_mistakes_are_usage),
        cmocka_unit_test(test_commands_are_sorted_and_described),
        cmocka_unit_test(test_every_command_has_help),
        cmocka_unit_test(test_unknown_command_names_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
