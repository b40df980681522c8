/* Scale and quality, thinning, and what a device says of itself. */
#include "gateway/base/clock.h"
#include "gateway/pipeline/device.h"
#include "gateway/pipeline/scale.h"
#include "gateway/pipeline/thin.h"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static struct config_point make_point(const char *scale, const char *offset)
{
    struct config_point point = {.name = "p", .unit = "", .min = -INFINITY, .max = INFINITY};
    assert_int_equal(decimal_parse(scale, &point.scale), 0);
    assert_int_equal(decimal_parse(offset, &point.offset), 0);
    return point;
}

static struct reading decimal_reading(int64_t mantissa)
{
    return (struct reading){.kind = VALUE_DECIMAL, .integer = mantissa};
}

static void test_scale_is_exact(void **state)
{
    (void)state;
    struct config_point point = make_point("0.1", "-40");
    struct reading r = decimal_reading(613);
    scale_reading(&point, &r);
    assert_int_equal(r.kind, VALUE_DECIMAL);
    assert_int_equal(r.integer, 213);
    assert_int_equal(r.exponent, -1);
    assert_int_equal(r.quality, QUALITY_GOOD);
}

static void test_scale_overflows_into_doubles(void **state)
{
    (void)state;
    struct config_point point = make_point("25", "0");
    struct reading r = decimal_reading(INT64_MAX / 2);
    scale_reading(&point, &r);
    assert_int_equal(r.kind, VALUE_REAL);
    assert_true(fabs(r.real - (double)(INT64_MAX / 2) * 25) < 1e5);
}

static void test_floats(void **state)
{
    (void)state;
    struct config_point plain = make_point("1", "0"), scaled = make_point("0.5", "1");
    struct reading r = {.kind = VALUE_FLOAT, .real = 3};
    scale_reading(&plain, &r);
    assert_int_equal(r.kind, VALUE_FLOAT);
    scale_reading(&scaled, &r);
    assert_int_equal(r.kind, VALUE_REAL);
    assert_true(r.real == 2.5);
    const double none[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        r = (struct reading){.kind = VALUE_REAL, .real = none[i]};
        scale_reading(&scaled, &r);
        assert_int_equal(r.kind, VALUE_NULL);
        assert_int_equal(r.quality, QUALITY_BAD_INVALID);
    }
}

static void test_range(void **state)
{
    (void)state;
    struct config_point point = make_point("0.1", "0");
    point.min = -40;
    point.max = 150;
    const struct {
        int64_t raw;
        enum quality quality;
    } cases[] = {{1500, QUALITY_GOOD},
                 {1501, QUALITY_BAD_RANGE},
                 {-400, QUALITY_GOOD},
                 {-401, QUALITY_BAD_RANGE}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct reading r = decimal_reading(cases[i].raw);
        scale_reading(&point, &r);
        assert_int_equal(r.quality, cases[i].quality);
        assert_int_equal(r.kind, cases[i].quality == QUALITY_GOOD ? VALUE_DECIMAL : VALUE_NULL);
    }
}

static void test_quality_passes_through(void **state)
{
    (void)state;
    struct config_point point = make_point("0.1", "0");
    struct reading r = decimal_reading(10);
    r.quality = QUALITY_UNCERTAIN;
    scale_reading(&point, &r);
    assert_int_equal(r.quality, QUALITY_UNCERTAIN);
    assert_int_equal(r.integer, 10);
    /* A value that came with a bad quality does not survive it. */
    r.quality = QUALITY_BAD_TYPE;
    scale_reading(&point, &r);
    assert_int_equal(r.kind, VALUE_NULL);
    assert_int_equal(r.quality, QUALITY_BAD_TYPE);
    /* No value and no reason: the reason is that there is none. */
    r = (struct reading){.kind = VALUE_NULL};
    scale_reading(&point, &r);
    assert_int_equal(r.quality, QUALITY_BAD_INVALID);
    struct reading text = {.kind = VALUE_TEXT, .text = {.offset = 3, .len = 4}};
    scale_reading(&point, &text);
    assert_int_equal(text.text.offset, 3);
}

struct one {
    struct scan scan;
    struct reading reading;
    char text[8];
};

static struct one make_one(int64_t time_ms, struct reading reading, const char *text)
{
    struct one one = {.scan = {.time_ms = time_ms, .count = 1, .text_len = 8}, .reading = reading};
    snprintf(one.text, sizeof one.text, "%s", text);
    one.reading.text.len = reading.kind == VALUE_TEXT ? (uint32_t)strlen(text)
                                                      : one.reading.text.len;
    return one;
}

static bool passes(struct thin *thin, const struct config_points *points, int64_t time_ms,
                   struct reading reading)
{
    struct one one = make_one(time_ms, reading, "");
    return thin_passes(thin, points, &one.scan, one.scan.readings);
}

static bool text_passes(struct thin *thin, const struct config_points *points, int64_t time_ms,
                        const char *text)
{
    struct one one = make_one(time_ms, (struct reading){.kind = VALUE_TEXT}, text);
    return thin_passes(thin, points, &one.scan, one.scan.readings);
}

static void test_on_change(void **state)
{
    (void)state;
    struct config_point point = make_point("1", "0");
    point.on_change = true;
    const struct config_points points = {.list = &point, .count = 1};
    struct thin *thin;
    assert_int_equal(thin_create(&points, &thin), 0);
    assert_true(passes(thin, &points, 0, decimal_reading(5)));
    assert_false(passes(thin, &points, 1000, decimal_reading(5)));
    assert_true(passes(thin, &points, 2000, decimal_reading(6)));
    struct reading same = {.kind = VALUE_DECIMAL, .integer = 60, .exponent = -1};
    assert_false(passes(thin, &points, 3000, same)); /* 6.0 is 6 */
    struct reading uncertain = decimal_reading(6);
    uncertain.quality = QUALITY_UNCERTAIN;
    assert_true(passes(thin, &points, 4000, uncertain));
    struct reading bad = {.kind = VALUE_NULL, .quality = QUALITY_BAD_TIMEOUT};
    assert_true(passes(thin, &points, 5000, bad));
    assert_false(passes(thin, &points, 6000, bad));
    assert_true(passes(thin, &points, 7000, decimal_reading(6)));
    assert_true(passes(thin, &points, 7000 + THIN_ALWAYS_MS, decimal_reading(6)));
    assert_false(passes(thin, &points, 8000 + THIN_ALWAYS_MS, decimal_reading(6)));
    assert_true(passes(thin, &points, 1000, decimal_reading(6))); /* the clock was set back */
    assert_true(text_passes(thin, &points, 2000, "on"));
    assert_false(text_passes(thin, &points, 3000, "on"));
    assert_true(text_passes(thin, &points, 4000, "off"));
    thin_destroy(thin);
}

static void test_deadband_against_what_was_stored(void **state)
{
    (void)state;
    struct config_point point = make_point("1", "0");
    point.deadband = 3;
    const struct config_points points = {.list = &point, .count = 1};
    struct thin *thin;
    assert_int_equal(thin_create(&points, &thin), 0);
    assert_true(passes(thin, &points, 0, decimal_reading(10)));
    assert_false(passes(thin, &points, 1, decimal_reading(12)));
    assert_false(passes(thin, &points, 2, decimal_reading(13)));
    assert_true(passes(thin, &points, 3, decimal_reading(14))); /* the drift shows */
    assert_false(passes(thin, &points, 4, decimal_reading(11)));
    assert_true(passes(thin, &points, 5, decimal_reading(10)));
    thin_destroy(thin);
}

static void test_points_without_either_cost_nothing(void **state)
{
    (void)state;
    struct config_point point = make_point("1", "0");
    const struct config_points points = {.list = &point, .count = 1};
    struct thin *thin;
    assert_int_equal(thin_create(&points, &thin), 0);
    assert_null(thin);
    assert_true(passes(NULL, &points, 0, decimal_reading(1)));
}

static struct device make_device(const struct config_device *config)
{
    return (struct device){.config = config};
}

static void test_reports(void **state)
{
    (void)state;
    const struct config_device config = {.name = "t01", .timeout_ms = 500};
    struct device device = make_device(&config);
    char text[120];
    clock_hold(1769853600000, 0);
    device_describe_error(&device, text, sizeof text);
    assert_string_equal(text, "");
    device_report_good(&device, 1500);
    assert_int_equal(device.health.state, DEVICE_GOOD);
    assert_int_equal(device.health.last_good_ms, 1769853600000);
    assert_int_equal(device.health.rtt_us, 1500);
    device_report_error(&device, DEVICE_ERROR_TIMEOUT, 0, false);
    assert_int_equal(device.health.state, DEVICE_FAILING);
    assert_int_equal(device.health.failures, 1);
    device_describe_error(&device, text, sizeof text);
    assert_string_equal(text, "timeout: no answer within 500 ms");
    device_report_error(&device, DEVICE_ERROR_EXCEPTION, 2, true);
    assert_int_equal(device.health.state, DEVICE_DEAD);
    device_describe_error(&device, text, sizeof text);
    assert_string_equal(text, "exception: illegal data address (2)");
    device_report_error(&device, DEVICE_ERROR_CONNECT, ECONNREFUSED, true);
    device_describe_error(&device, text, sizeof text);
    assert_string_equal(text, "connect: Connection refused");
    device_report_error(&device, DEVICE_ERROR_OVERRUN, 0, false);
    assert_int_equal(device.health.state, DEVICE_DEAD); /* says nothing of the device */
    assert_int_equal(device.health.failures, 3);
    assert_int_equal(device.health.errors[DEVICE_ERROR_OVERRUN], 1);
    clock_release();
}

static void test_every_state_and_error_has_words(void **state)
{
    (void)state;
    const struct config_device config = {.name = "t01", .timeout_ms = 500};
    for (int i = 0; i < DEVICE_STATES; i++) {
        assert_string_not_equal(device_state_name((enum device_state)i), "?");
    }
    for (int i = 1; i < DEVICE_ERRORS; i++) {
        struct device device = make_device(&config);
        char text[120];
        device_report_error(&device, (enum device_error)i, 9999, false);
        device_describe_error(&device, text, sizeof text);
        const char *name = device_error_name((enum device_error)i);
        assert_memory_equal(text, name, strlen(name));
        assert_true(strlen(text) > strlen(name) + 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_is_exact),
        cmocka_unit_test(test_scale_overflows_into_doubles),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_quality_passes_through),
        cmocka_unit_test(test_on_change),
        cmocka_unit_test(test_deadband_against_what_was_stored),
        cmocka_unit_test(test_points_without_either_cost_nothing),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_every_state_and_error_has_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
