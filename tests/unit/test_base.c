/* gateway/base: decimals, buffers and cursors, clocks and their texts, scans, log lines. */
#include "gateway/base/buffer.h"
#include "gateway/base/clock.h"
#include "gateway/base/decimal.h"
#include "gateway/base/log.h"
#include "gateway/base/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static void test_decimal_parse(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int result;
        int64_t mantissa;
        int8_t exponent;
    } cases[] = {
        {"0.01", 0, 1, -2},
        {"-12", 0, -12, 0},
        {"1e-3", 0, 1, -3},
        {"+1.50", 0, 15, -1},
        {"0", 0, 0, 0},
        {"0.000", 0, 0, 0},
        {"100", 0, 100, 0},
        {"9223372036854775807", 0, INT64_MAX, 0},
        {"9223372036854775808", -ERANGE, 0, 0},
        {"1e-18", 0, 1, -18},
        {"1e-19", -ERANGE, 0, 0},
        {"1e99", -ERANGE, 0, 0},
        {"", -EINVAL, 0, 0},
        {"-", -EINVAL, 0, 0},
        {".", -EINVAL, 0, 0},
        {"1.2.3", -EINVAL, 0, 0},
        {"0x10", -EINVAL, 0, 0},
        {"1e", -EINVAL, 0, 0},
        {"1 ", -EINVAL, 0, 0},
        {"nan", -EINVAL, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct decimal d = {.mantissa = 0, .exponent = 0};
        int r = decimal_parse(cases[i].text, &d);
        if (r != cases[i].result || d.mantissa != cases[i].mantissa ||
            d.exponent != cases[i].exponent) {
            fail_msg("\"%s\": %d, %lld e%d", cases[i].text, r, (long long)d.mantissa, d.exponent);
        }
    }
}

static struct decimal make_decimal(int64_t mantissa, int8_t exponent)
{
    return (struct decimal){.mantissa = mantissa, .exponent = exponent};
}

static void test_decimal_scale(void **state)
{
    (void)state;
    struct decimal d;
    assert_int_equal(
        decimal_scale(make_decimal(842, 0), make_decimal(1, -2), make_decimal(0, 0), &d), 0);
    assert_int_equal(d.mantissa, 842);
    assert_int_equal(d.exponent, -2);
    /* One exponent for the whole column, whatever the values. */
    for (int64_t raw = -3; raw <= 3; raw++) {
        assert_int_equal(
            decimal_scale(make_decimal(raw, 0), make_decimal(5, -1), make_decimal(-40, 0), &d), 0);
        assert_int_equal(d.exponent, -1);
        assert_int_equal(d.mantissa, raw * 5 - 400);
    }
    struct decimal kept = d;
    assert_int_equal(
        decimal_scale(make_decimal(INT64_MAX, 0), make_decimal(10, 0), make_decimal(0, 0), &d),
        -ERANGE);
    assert_int_equal(
        decimal_scale(make_decimal(1, -18), make_decimal(1, -1), make_decimal(0, 0), &d), -ERANGE);
    assert_memory_equal(&d, &kept, sizeof d);
}

static void expect_text(struct buffer *b, const char *text)
{
    const char *written = buffer_text(b);
    assert_non_null(written);
    assert_string_equal(written, text);
    buffer_clear(b);
}

static void test_decimal_write(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {0};
    const struct {
        int64_t mantissa;
        int8_t exponent;
        const char *text;
    } cases[] = {
        {13500, -3, "13.5"},
        {-842, -2, "-8.42"},
        {5, -3, "0.005"},
        {-5, -3, "-0.005"},
        {0, -4, "0"},
        {7, 3, "7000"},
        {INT64_MIN, 0, "-9223372036854775808"},
        {1, -18, "0.000000000000000001"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        decimal_write(&b, make_decimal(cases[i].mantissa, cases[i].exponent));
        expect_text(&b, cases[i].text);
    }
}

static void test_doubles_read_back(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {0};
    decimal_write_double(&b, 0.1);
    expect_text(&b, "0.1");
    decimal_write_float(&b, (double)0.1F);
    expect_text(&b, "0.1");
    decimal_write_double(&b, NAN);
    expect_text(&b, "null");
    decimal_write_double(&b, -INFINITY);
    expect_text(&b, "null");
    uint64_t bits = 88172645463325252u;
    for (size_t i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value)) {
            decimal_write_double(&b, value);
            assert_true(strtod(buffer_text(&b), NULL) == value);
            buffer_clear(&b);
        }
    }
}

static void test_decimal_to_double_is_the_nearest(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {0};
    for (int64_t m = -99999; m <= 99999; m += 7) {
        for (int8_t e = -6; e <= 3; e++) {
            decimal_write(&b, make_decimal(m, e));
            assert_true(strtod(buffer_text(&b), NULL) == decimal_to_double(make_decimal(m, e)));
            buffer_clear(&b);
        }
    }
}

static void expect_json(const char *bytes, size_t len, const char *json)
{
    auto_buffer struct buffer b = {0};
    json_write_string(&b, bytes, len);
    expect_text(&b, json);
}

static void test_json_strings(void **state)
{
    (void)state;
    expect_json("plain", 5, "\"plain\"");
    expect_json("a\"b\\c\n", 6, "\"a\\\"b\\\\c\\u000a\"");
    expect_json("\0", 1, "\"\\u0000\"");
    expect_json("m\xc2\xb3/s", 5, "\"m\xc2\xb3/s\"");
    /* Overlong, surrogate, cut short, beyond U+10FFFF, stray continuation. */
    expect_json("\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    expect_json("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    expect_json("\xe2\x82", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    expect_json("\xf4\x90\x80\x80", 4, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    expect_json("\x80x", 2, "\"\xef\xbf\xbdx\"");
}

static void test_buffer_bound_latches(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {.max = 100};
    for (size_t i = 0; i < 10; i++) {
        buffer_add(&b, "0123456789", 10);
    }
    assert_false(buffer_failed(&b));
    buffer_add_byte(&b, 'x');
    assert_true(buffer_failed(&b));
    assert_int_equal(b.len, 100);
    assert_null(buffer_text(&b));
    buffer_clear(&b);
    assert_false(buffer_failed(&b));
    buffer_printf(&b, "%s-%d", "t01", 7);
    expect_text(&b, "t01-7");
    assert_null(buffer_reserve(&b, SIZE_MAX));
    assert_true(buffer_failed(&b));
}

static void test_varints_come_back(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {0};
    const uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, UINT64_MAX};
    const int64_t signed_values[] = {0, -1, 1, -64, 64, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        buffer_add_varint(&b, values[i]);
        buffer_add_zigzag(&b, signed_values[i]);
    }
    struct cursor c = {.at = b.data, .end = b.data + b.len};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        assert_true(cursor_take_varint(&c) == values[i]);
        assert_true(cursor_take_zigzag(&c) == signed_values[i]);
    }
    assert_false(c.failed);
    assert_true(c.at == c.end);
    assert_int_equal(cursor_take_byte(&c), 0);
    assert_true(c.failed);
}

static void test_cursor_refuses_hostile_bytes(void **state)
{
    (void)state;
    const uint8_t endless[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    struct cursor c = {.at = endless, .end = endless + sizeof endless};
    assert_int_equal(cursor_take_varint(&c), 0);
    assert_true(c.failed);
    const uint8_t cut[] = {0x80};
    c = (struct cursor){.at = cut, .end = cut + 1};
    assert_int_equal(cursor_take_varint(&c), 0);
    assert_true(c.failed);
    c = (struct cursor){.at = cut, .end = cut + 1};
    assert_null(cursor_take(&c, 2));
    assert_true(c.failed);
    assert_null(cursor_take(&c, 0)); /* once failed, always failed */
}

static void test_held_clock_moves_by_hand_only(void **state)
{
    (void)state;
    clock_hold(1769853600000, 5000000000);
    assert_int_equal(clock_wall_ms(), 1769853600000);
    assert_int_equal(clock_mono_ms(), 5000);
    assert_int_equal(clock_boot_ms(), 5000);
    clock_advance_ms(250);
    assert_int_equal(clock_wall_ms(), 1769853600250);
    assert_int_equal(clock_mono_ns(), 5250000000);
    clock_release();
    assert_true(clock_wall_ms() != 1769853600250);
    int64_t before = clock_mono_ns();
    assert_true(clock_mono_ns() >= before);
}

static void test_utc_texts(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_SIZE];
    assert_int_equal(clock_format_utc(1769855400000, text), 24);
    assert_string_equal(text, "2026-01-31T10:30:00.000Z");
    clock_format_utc(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        {"2026-01-31T10:30:00.000Z", 1769855400000},
        {"2026-01-31T10:30:00Z", 1769855400000},
        {"2026-01-31T12:30:00+02:00", 1769855400000},
        {"2026-01-31 05:00:00.5-05:30", 1769855400500},
        {"2024-02-29T00:00:00Z", 1709164800000},
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t ms = 0;
        assert_int_equal(clock_parse_utc(good[i].text, &ms), 0);
        assert_int_equal(ms, good[i].ms);
    }
    const char *const bad[] = {"",
                               "2026-01-31",
                               "2026-01-31T10:30:00",
                               "2026-13-01T00:00:00Z",
                               "2026-01-32T00:00:00Z",
                               "2026-01-31T24:00:00Z",
                               "2026-01-31T10:30:00+2:00",
                               "2026-01-31T10:30:00Zx",
                               "2026-01-31T10:30:0xZ"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int64_t ms = 7;
        assert_int_equal(clock_parse_utc(bad[i], &ms), -EINVAL);
        assert_int_equal(ms, 7);
    }
}

static void test_names_of_streams_and_qualities(void **state)
{
    (void)state;
    assert_string_equal(stream_name(STREAM_AGGREGATE), "aggregate");
    for (int q = 0; q < QUALITY_COUNT; q++) {
        enum quality back;
        assert_int_equal(quality_parse(quality_name((enum quality)q), &back), 0);
        assert_int_equal(back, q);
    }
    enum quality none;
    assert_int_equal(quality_parse("bad:unknown", &none), -EINVAL);
}

static void test_scans(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct reading), 16);
    assert_int_equal(scan_size_for(0, 0) % 8, 0);
    assert_int_equal(scan_size_for(2, 3), sizeof(struct scan) + 2 * 16 + 8);
    struct {
        struct scan scan;
        struct reading readings[2];
        char text[8];
    } s = {.scan = {.count = 2, .text_len = 5}, .text = "hello"};
    s.scan.readings[0] = (struct reading){.kind = VALUE_TEXT, .text = {.offset = 1, .len = 4}};
    s.scan.readings[1] = (struct reading){.kind = VALUE_BOOL, .integer = 1};
    auto_buffer struct buffer b = {0};
    reading_write_json(&b, &s.scan, &s.scan.readings[0]);
    expect_text(&b, "\"ello\"");
    reading_write_json(&b, &s.scan, &s.scan.readings[1]);
    expect_text(&b, "true");
    struct reading null = {.kind = VALUE_NULL};
    reading_write_json(&b, &s.scan, &null);
    expect_text(&b, "null");
    assert_true(isnan(reading_double(&null)));
    assert_true(reading_double(&s.scan.readings[1]) == 1.0);
}

/* What log_line() wrote, caught where stderr was. */
static void catch_line(char *line, size_t size, const char *journal, enum log_level level,
                       const char *words)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(saved >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    if (journal != NULL) {
        setenv("JOURNAL_STREAM", journal, 1);
    } else {
        unsetenv("JOURNAL_STREAM");
    }
    log_line(level, "%s", words);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(ends[1]);
    ssize_t n = read(ends[0], line, size - 1);
    line[n > 0 ? n : 0] = '\0';
    close(ends[0]);
}

static void test_log_lines(void **state)
{
    (void)state;
    char line[2 * LOG_LINE_MAX];
    catch_line(line, sizeof line, "8:1", LOG_LEVEL_WARNING, "t01: timeout");
    assert_string_equal(line, "<4>t01: timeout\n");
    clock_hold(1769855400000, 0);
    catch_line(line, sizeof line, NULL, LOG_LEVEL_ERROR, "two\nlines\x1b[31m");
    assert_string_equal(line, "2026-01-31T10:30:00.000Z error: two?lines?[31m\n");
    clock_release();
    catch_line(line, sizeof line, "8:1", LOG_LEVEL_DEBUG, "hidden");
    assert_string_equal(line, "");
    char longer[LOG_LINE_MAX + 200];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    catch_line(line, sizeof line, "8:1", LOG_LEVEL_ERROR, longer);
    assert_int_equal(strlen(line), LOG_LINE_MAX);
    assert_int_equal(line[LOG_LINE_MAX - 1], '\n');
    enum log_level level;
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("loud", &level), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decimal_parse),
        cmocka_unit_test(test_decimal_scale),
        cmocka_unit_test(test_decimal_write),
        cmocka_unit_test(test_doubles_read_back),
        cmocka_unit_test(test_decimal_to_double_is_the_nearest),
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_buffer_bound_latches),
        cmocka_unit_test(test_varints_come_back),
        cmocka_unit_test(test_cursor_refuses_hostile_bytes),
        cmocka_unit_test(test_held_clock_moves_by_hand_only),
        cmocka_unit_test(test_utc_texts),
        cmocka_unit_test(test_names_of_streams_and_qualities),
        cmocka_unit_test(test_scans),
        cmocka_unit_test(test_log_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
