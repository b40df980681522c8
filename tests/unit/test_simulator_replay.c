/* CSV files as registers: traps of the form, and a real week against a second reading of it. */
#include "drivers/simulator/sim_replay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static int load_text(const char *text, struct sim_replay *replay, size_t *line)
{
    char path[] = "/tmp/test_replay_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    int r = sim_replay_load(path, replay, line);
    unlink(path);
    return r;
}

static void test_small(void **state)
{
    (void)state;
    struct sim_replay replay;
    size_t line;
    assert_int_equal(load_text("name,a,time,b,none,mixed\r\n"
                               "x,1.005,2017,-0.004,,7\n"
                               "\n"
                               "y,,2018,-21474836.47,,oops\n"
                               "z,0.77999997,2019,1e3,,\n",
                               &replay, &line),
                     0);
    assert_int_equal(replay.columns, 4);
    assert_int_equal(replay.rows, 3);
    assert_string_equal(replay.names[0], "a");
    assert_string_equal(replay.names[1], "time");
    assert_string_equal(replay.names[2], "b");
    assert_string_equal(replay.names[3], "none");
    const int32_t none = SIM_REPLAY_SENTINEL;
    const int32_t expected[] = {100,         201700, 0,  none,   none,   201800,
                                -2147483647, none,   78, 201900, 100000, none};
    assert_memory_equal(replay.cells, expected, sizeof expected);
    assert_int_equal(sim_replay_register(&replay, 1, 4), 0x8000);
    assert_int_equal(sim_replay_register(&replay, 1, 5), 0x0001);
    assert_int_equal(sim_replay_register(&replay, 0, 3), 201700 & 0xffff);
    sim_replay_finish(&replay);
}

static void test_broken(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t line;
    } bad[] = {
        {"", 0},          {"a,b\n", 1},
        {"a,b\n1\n", 2},  {"a,b\n1,2\n1,2,3\n", 3},
        {"a\n1e12\n", 2}, {"a\n21474836.48\n", 2},
        {"a\nx\n", 2},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct sim_replay replay;
        size_t line;
        if (load_text(bad[i].text, &replay, &line) != -EINVAL || line != bad[i].line) {
            fail_msg("%zu: taken, or line %zu", i, line);
        }
    }
    struct sim_replay replay;
    size_t line;
    assert_int_equal(sim_replay_load("/nonexistent/x.csv", &replay, &line), -ENOENT);
}

/* Bounds of a line and of the columns. */
static void test_bounds(void **state)
{
    (void)state;
    struct sim_replay replay;
    size_t line;
    char *text = malloc(SIM_REPLAY_LINE_MAX + 16);
    memset(text, '1', SIM_REPLAY_LINE_MAX + 8);
    memcpy(text, "a\n", 2);
    memcpy(text + SIM_REPLAY_LINE_MAX + 8, "\n", 2);
    assert_int_equal(load_text(text, &replay, &line), -EINVAL);
    assert_int_equal(line, 2);
    memset(text, ',', SIM_REPLAY_COLUMNS_MAX);
    memcpy(text + SIM_REPLAY_COLUMNS_MAX, "\n1\n", 4);
    assert_int_equal(load_text(text, &replay, &line), -EINVAL);
    assert_int_equal(line, 1);
    free(text);
}

/* The integer of a cell by another way than strtod: digits, rounded half up at the third. Only for
 * cells whose third decimal is no tie. */
static int64_t hundredths(const char *cell)
{
    bool negative = *cell == '-';
    int64_t value = 0;
    int decimals = -1;
    for (const char *at = cell + (negative ? 1 : 0); *at != '\0' && decimals < 3; at++) {
        if (*at == '.') {
            decimals = 0;
        } else {
            value = value * 10 + (*at - '0');
            decimals += decimals >= 0 ? 1 : 0;
        }
    }
    for (decimals = decimals < 0 ? 0 : decimals; decimals < 3; decimals++) {
        value *= 10;
    }
    value = (value + 5) / 10;
    return negative ? -value : value;
}

static void test_real_week(void **state)
{
    (void)state;
    static const char path[] = SHARED_DATA "/la_haute_borne/R80711_2017-10-29_dst_week.csv";
    FILE *file auto_fclose = fopen(path, "re");
    if (file == NULL) {
        skip();
    }
    struct sim_replay replay;
    size_t line_number, row = 0, compared = 0;
    assert_int_equal(sim_replay_load(path, &replay, &line_number), 0);
    assert_int_equal(replay.columns, 121); /* all but the name and the time */
    static char line[SIM_REPLAY_LINE_MAX];
    assert_non_null(fgets(line, sizeof line, file));
    for (; fgets(line, sizeof line, file) != NULL; row++) {
        char *rest = line;
        line[strcspn(line, "\r\n")] = '\0';
        size_t column = 0;
        for (size_t i = 0; i < 123; i++) {
            char *cell = strsep(&rest, ",");
            if (i == 0 || i == 2) {
                continue;
            }
            int32_t value = replay.cells[row * replay.columns + column];
            column++;
            if (*cell == '\0') {
                assert_int_equal(value, SIM_REPLAY_SENTINEL);
            } else if (strchr(cell, 'e') == NULL) {
                assert_int_equal(value, hundredths(cell));
                compared++;
            }
        }
    }
    assert_int_equal(row, replay.rows);
    assert_true(compared > 50000);
    sim_replay_finish(&replay);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_real_week),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
