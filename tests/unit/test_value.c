/* Values as text: every type, its bounds, and the defaults of all key tables. */
#include "config/describe.h"
#include "config/files.h"
#include "config/lines.h"
#include "config/nearest.h"
#include "config/range.h"
#include "config/tables.h"
#include "config/value.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } cases[] = {
        {"500 ms", 500},
        {"1 s", 1000},
        {"1s", 1000},
        {"10 min", 600000},
        {"7 d", 604800000},
        {"2h", 7200000},
        {"0.5 s", 500},
        {"1.5\tmin", 90000},
        {"0", 0},
        {"0 s", 0},
        {"1", -1},
        {"s", -1},
        {"-1 s", -1},
        {"1 S", -1},
        {"1 m", -1},
        {"1 s s", -1},
        {"0x10 s", -1},
        {"nan s", -1},
        {"inf d", -1},
        {"1e3 s", 1000000},
        {"1e300 d", -1},
        {"", -1},
        {"1..2 s", -1},
        {"--1 s", -1},
        {"999999999 d", -1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct value_fault fault = {0};
        int64_t ms = -1;
        int error = value_duration(cases[i].text, &ms, &fault);
        if (ms != cases[i].ms || (error != 0) != (cases[i].ms < 0) ||
            (error != 0 && fault.why[0] == '\0')) {
            fail_msg("'%s' gave %lld, %d", cases[i].text, (long long)ms, error);
        }
    }
}

static void test_sizes_and_rates(void **state)
{
    (void)state;
    struct value_fault fault = {0};
    int64_t value = 0;
    assert_int_equal(value_size("64 KiB", &value, &fault), 0);
    assert_int_equal(value, 65536);
    assert_int_equal(value_size("4GiB", &value, &fault), 0);
    assert_int_equal(value, 4294967296);
    assert_int_equal(value_size("1.5 MB", &value, &fault), 0);
    assert_int_equal(value, 1500000);
    assert_int_equal(value_rate("20 MiB/min", &value, &fault), 0);
    assert_int_equal(value, 20971520);
    assert_int_equal(value_rate("64 KiB / s", &value, &fault), 0);
    assert_int_equal(value, 65536 * 60);
    assert_int_equal(value_rate("6 kB/h", &value, &fault), 0);
    assert_int_equal(value, 100);
    assert_int_equal(value_rate("6 kB", &value, &fault), -EINVAL);
    assert_int_equal(value_rate("6/s", &value, &fault), -EINVAL);
    assert_int_equal(value_rate("-6 B/s", &value, &fault), -EINVAL);
    assert_int_equal(value_size("4 GiB x", &value, &fault), -EINVAL);
    assert_int_equal(value, 100);
}

static void test_numbers(void **state)
{
    (void)state;
    struct value_fault fault = {0};
    int64_t whole = 0;
    double real = 0;
    assert_int_equal(value_integer("0x1F", &whole, &fault), 0);
    assert_int_equal(whole, 31);
    assert_int_equal(value_integer("-12", &whole, &fault), 0);
    assert_int_equal(whole, -12);
    static const char *const wrong[] = {
        "", "-", "1 2", "0x", "12x", "1.0", " 1", "+-1", "99999999999999999999"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(value_integer(wrong[i], &whole, &fault), -EINVAL);
    }
    assert_int_equal(value_real("-0.25e1", &real, &fault), 0);
    assert_true(real == -2.5);
    assert_int_equal(value_real("0x1p3", &real, &fault), -EINVAL);
    assert_int_equal(value_real("infinity", &real, &fault), -EINVAL);
    assert_int_equal(value_real("1e999", &real, &fault), -EINVAL);
}

static void test_endpoints(void **state)
{
    (void)state;
    static const char *const right[] = {"127.0.0.1:502", "plc-1.site_a.example:1", "[::1]:65535",
                                        "[fe80::1%2]:502", "host:80"};
    static const char *const wrong[] = {
        "host",   "host:",   "host:0",   "host:65536", ":1",           "[::1]",       "[]:1",
        "[::1:1", "::1:502", "a b:1",    "1.2.3:1",    "1.2.3.4.5:1",  "1.2.3.256:1", "-h:1",
        "h:1 ",   "h:1x",    "[::1]x:1", "http://h:1", "h:99999999999"};
    struct value_fault fault = {0};
    for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
        if (value_endpoint(right[i], &fault) != 0) {
            fail_msg("'%s': %s", right[i], fault.why);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        if (value_endpoint(wrong[i], &fault) == 0) {
            fail_msg("'%s' was taken", wrong[i]);
        }
    }
}

static void test_urls(void **state)
{
    (void)state;
    static const char *const right[] = {"https://h", "https://ingest.example.com:8443/v1/readings",
                                        "coaps://[::1]:5684/senml", "http://127.0.0.1/x?q=a:b@c",
                                        "mqtts://h:8883"};
    static const char *const wrong[] = {"",
                                        "h/x",
                                        "https:/h",
                                        "https://",
                                        "https:///x",
                                        "https://h:/x",
                                        "https://h:0",
                                        "https://a@h",
                                        "https://h x",
                                        "1://\"",
                                        "https://h:80a/",
                                        "://h",
                                        "https://1.2.3.999/",
                                        "https://h,i/"};
    struct value_fault fault = {0};
    for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
        if (value_url(right[i], &fault) != 0) {
            fail_msg("'%s': %s", right[i], fault.why);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        if (value_url(wrong[i], &fault) == 0) {
            fail_msg("'%s' was taken", wrong[i]);
        }
    }
}

static const char *expand(const char *text, size_t i, size_t count, struct buffer *out, int *error)
{
    size_t other = 0;
    buffer_clear(out);
    *error = range_expand(text, i, count, out, &other);
    return buffer_text(out);
}

static void test_ranges(void **state)
{
    (void)state;
    auto_buffer struct buffer out = {0};
    int error;
    assert_string_equal(expand("t{01..24}", 23, 24, &out, &error), "t24");
    assert_string_equal(expand("t{1..24}", 4, 24, &out, &error), "t5");
    assert_string_equal(expand("{9..11}:{a, b ,c}", 2, 3, &out, &error), "11:c");
    assert_string_equal(expand("{3..1}", 0, 3, &out, &error), "3");
    assert_string_equal(expand("{008..010}", 2, 3, &out, &error), "010");
    assert_string_equal(expand("{device}/{x", 0, 3, &out, &error), "{device}/{x");
    assert_int_equal(error, 0);
    (void)expand("{1..2}", 0, 3, &out, &error);
    assert_int_equal(error, -ERANGE);
    static const char *const wrong[] = {"{1..}", "{..2}",     "{a..b}",  "{,}",
                                        "{a,}",  "{1..2..3}", "{-1..2}", "{ ,b}"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        (void)expand(wrong[i], 0, 2, &out, &error);
        assert_int_equal(error, -EINVAL);
    }
    struct range range;
    assert_int_equal(range_find("{1..10000}", 0, &range), 1);
    assert_int_equal(range.count, RANGE_MEMBERS_MAX);
    assert_int_equal(range_find("{1..10001}", 0, &range), -E2BIG);
}

static void test_nearest(void **state)
{
    (void)state;
    struct nearest nearest = {.given = "tiemout"};
    nearest_try(&nearest, "poll");
    assert_null(nearest.best);
    nearest_try(&nearest, "timeout");
    nearest_try(&nearest, "tiemaut1");
    assert_string_equal(nearest.best, "timeout");
    struct nearest brief = {.given = "xyz"};
    nearest_try(&brief, "abc");
    nearest_try(&brief, "");
    assert_null(brief.best);
}

static void test_clean_text(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "\xff", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xc3", "\x1b[0m",  "\x7f"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_false(lines_text_is_clean(wrong[i], strlen(wrong[i])));
    }
    assert_false(lines_text_is_clean("a\0b", 3));
    static const char right[] = "tab\t, caf\xc3\xa9, \xe2\x82\xac, \xf0\x9f\x8c\xac";
    assert_true(lines_text_is_clean(right, sizeof right - 1));
}

/* Every default of every module is taken by its own type, and every key says what it is for. */
static void test_tables(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct strings strings = {.arena = &arena};
    struct files files = {.arena = &arena};
    struct value_home home = {&strings, &files, ""};
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        for (size_t j = 0; j < table->key_count; j++) {
            const struct config_key *key = &table->keys[j];
            struct value_fault fault = {0};
            uint64_t place[4];
            assert_true(key->help != NULL && key->help[0] != '\0');
            assert_false(key->required && key->fallback != NULL);
            assert_true(key_is_family(key) || key->offset + value_width(key->type) <= table->size);
            if (key->fallback != NULL &&
                value_parse(key, key->fallback, &home, place, &fault) != 0) {
                fail_msg("[%s] %s: %s", table->section, key->name, fault.why);
            }
        }
    }
    files_finish(&files);
    strings_finish(&strings);
    arena_finish(&arena);
}

static void hold_to_file(void (*describe)(struct buffer *out), const char *path)
{
    auto_buffer struct buffer made = {0}, kept = {0};
    describe(&made);
    assert_int_equal(files_read(path, 1 << 20, &kept), 0);
    if (made.len != kept.len || memcmp(made.data, kept.data, made.len) != 0) {
        fail_msg("%s is behind the key tables: run packaging/generate", path);
    }
}

static void test_generated_files(void **state)
{
    (void)state;
    hold_to_file(describe_example, TEST_SOURCE_DIR "/config/windrow.ini.example");
    hold_to_file(describe_manual, TEST_SOURCE_DIR "/packaging/man/windrow.ini.5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations), cmocka_unit_test(test_sizes_and_rates),
        cmocka_unit_test(test_numbers),   cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_urls),      cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_nearest),   cmocka_unit_test(test_clean_text),
        cmocka_unit_test(test_tables),    cmocka_unit_test(test_generated_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
