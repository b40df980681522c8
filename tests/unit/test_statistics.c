/* Statistics of a window against values known from elsewhere: published formulas, numpy's
 * definitions, and two-pass sums in long double over a real week of turbine data. */
#include "gateway/pipeline/statistics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static void expect_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%.17g is not %.17g", value, expected);
    }
}

static struct reading decimal_reading(int64_t mantissa, int8_t exponent)
{
    return (struct reading){.kind = VALUE_DECIMAL, .integer = mantissa, .exponent = exponent};
}

static struct reading real_reading(double value)
{
    return (struct reading){.kind = VALUE_REAL, .real = value};
}

static struct statistic of_decimals(const int64_t *mantissas, size_t count, int8_t exponent,
                                    bool circular)
{
    struct statistic s = {0};
    for (size_t i = 0; i < count; i++) {
        struct reading r = decimal_reading(mantissas[i], exponent);
        assert_true(statistic_add(&s, &r, circular));
    }
    return s;
}

static struct statistic of_reals(const double *values, size_t count, bool circular)
{
    struct statistic s = {0};
    for (size_t i = 0; i < count; i++) {
        struct reading r = real_reading(values[i]);
        assert_true(statistic_add(&s, &r, circular));
    }
    return s;
}

static void expect_json(const struct statistic *s, enum config_functions function, bool circular,
                        const char *json)
{
    struct {
        struct scan scan;
        struct reading reading;
    } t = {0};
    struct reading *result = t.scan.readings;
    assert_int_equal(statistic_result(s, NULL, function, circular, result), 0);
    auto_buffer struct buffer text = {0};
    reading_write_json(&text, &t.scan, result);
    assert_string_equal(buffer_text(&text), json);
}

static double value_of(const struct statistic *s, struct samples *samples,
                       enum config_functions function, bool circular)
{
    struct reading result = {0};
    assert_int_equal(statistic_result(s, samples, function, circular, &result), 0);
    return reading_double(&result);
}

static void expect_none(const struct statistic *s, enum config_functions function, bool circular)
{
    struct reading result = {0};
    assert_int_equal(statistic_result(s, NULL, function, circular, &result), -ENODATA);
}

static void test_decimals_stay_decimals(void **state)
{
    (void)state;
    struct statistic s = of_decimals((int64_t[]){842, 840, 855, 843}, 4, -2, false);
    expect_json(&s, FUNCTION_COUNT, false, "4");
    expect_json(&s, FUNCTION_MEAN, false, "8.45");
    expect_json(&s, FUNCTION_MIN, false, "8.4");
    expect_json(&s, FUNCTION_MAX, false, "8.55");
    expect_json(&s, FUNCTION_FIRST, false, "8.42");
    expect_json(&s, FUNCTION_LAST, false, "8.43");
    expect_json(&s, FUNCTION_SUM, false, "33.8");
    /* sqrt((9 + 25 + 100 + 4) / 3) hundredths = 6.782329983 */
    expect_json(&s, FUNCTION_STD, false, "0.0678233");
}

static void test_turbulence_intensity(void **state)
{
    (void)state;
    /* Mean 10, sample deviation sqrt(10 / 4) = 1.58113883: IEC 61400-12-1 puts TI at 0.158. */
    struct statistic s = of_decimals((int64_t[]){800, 900, 1000, 1100, 1200}, 5, -2, false);
    expect_json(&s, FUNCTION_TI, false, "0.158114");
    s = of_decimals((int64_t[]){0, 0}, 2, -2, false);
    expect_none(&s, FUNCTION_TI, false);
}

static void test_spread_far_from_zero(void **state)
{
    (void)state;
    /* The textbook case for cancellation: mean 10^9 + 10, sample variance 30. */
    const double values[] = {1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16};
    struct statistic s = of_reals(values, 4, false);
    expect_near(value_of(&s, NULL, FUNCTION_MEAN, false), 1e9 + 10, 1e-6);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false), sqrt(30), 1e-9);
    s = of_decimals((int64_t[]){1000000004, 1000000007, 1000000013, 1000000016}, 4, 0, false);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false), sqrt(30), 1e-6);
}

static void test_sum_of_doubles_is_compensated(void **state)
{
    (void)state;
    /* Neumaier (1974): plain and Kahan summation both give 0. */
    const double values[] = {1, 1e100, 1, -1e100};
    struct statistic s = of_reals(values, 4, false);
    assert_true(value_of(&s, NULL, FUNCTION_SUM, false) == 2.0);
}

static void test_integers_too_large_go_on_as_doubles(void **state)
{
    (void)state;
    const int64_t big = (int64_t)1 << 62;
    struct statistic s = of_decimals((int64_t[]){100, 300, big, big}, 4, 0, false);
    assert_false(s.exact);
    expect_near(value_of(&s, NULL, FUNCTION_SUM, false), 2.0 * (double)big, 1e4);
    assert_true(value_of(&s, NULL, FUNCTION_MIN, false) == 100.0);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false), (double)big / sqrt(3), 1e6);
    const int64_t edge = (int64_t)1 << 43;
    struct statistic exact = {0};
    struct reading high = decimal_reading(edge, 0), low = decimal_reading(edge - 2, 0);
    for (size_t i = 0; i < 500000; i++) {
        statistic_add(&exact, &high, false);
        statistic_add(&exact, &low, false);
    }
    assert_true(exact.exact);
    assert_true(value_of(&exact, NULL, FUNCTION_MEAN, false) == (double)(edge - 1));
    expect_near(value_of(&exact, NULL, FUNCTION_STD, false), 1.0, 1e-5);
}

static void test_exponents_meet(void **state)
{
    (void)state;
    struct statistic s = {0};
    struct reading readings[] = {decimal_reading(21, 0), decimal_reading(2150, -2),
                                 decimal_reading(2, 1)};
    for (size_t i = 0; i < 3; i++) {
        statistic_add(&s, &readings[i], false);
    }
    expect_json(&s, FUNCTION_SUM, false, "62.5");
    expect_json(&s, FUNCTION_MIN, false, "20");
    expect_json(&s, FUNCTION_MAX, false, "21.5");
    expect_json(&s, FUNCTION_MEAN, false, "20.83333333");
    struct reading real = real_reading(0.5);
    statistic_add(&s, &real, false);
    expect_near(value_of(&s, NULL, FUNCTION_MEAN, false), 15.75, 1e-12);
    const double all[] = {21, 21.5, 20, 0.5};
    struct statistic reals = of_reals(all, 4, false);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false),
                value_of(&reals, NULL, FUNCTION_STD, false), 1e-12);
}

static void test_floats_bools_and_texts(void **state)
{
    (void)state;
    struct statistic s = {0};
    struct reading f = {.kind = VALUE_FLOAT, .real = (double)0.1F};
    statistic_add(&s, &f, false);
    expect_json(&s, FUNCTION_MAX, false, "0.1");
    expect_none(&s, FUNCTION_STD, false);
    s = (struct statistic){0};
    struct reading on = {.kind = VALUE_BOOL, .integer = 1}, off = {.kind = VALUE_BOOL};
    statistic_add(&s, &on, false);
    statistic_add(&s, &off, false);
    statistic_add(&s, &on, false);
    statistic_add(&s, &on, false);
    expect_json(&s, FUNCTION_MEAN, false, "0.75");
    s = (struct statistic){0};
    struct reading text = {.kind = VALUE_TEXT};
    statistic_add(&s, &text, false);
    statistic_add(&s, &on, false);
    expect_json(&s, FUNCTION_COUNT, false, "2");
    expect_none(&s, FUNCTION_MEAN, false);
    expect_none(&s, FUNCTION_LAST, false);
}

static void test_bad_stays_outside_uncertain_enters(void **state)
{
    (void)state;
    struct statistic s = {0};
    struct reading bad = {.kind = VALUE_NULL, .quality = QUALITY_BAD_TIMEOUT};
    assert_false(statistic_add(&s, &bad, false));
    expect_json(&s, FUNCTION_COUNT, false, "0");
    expect_none(&s, FUNCTION_MEAN, false);
    struct reading good = decimal_reading(5, 0);
    statistic_add(&s, &good, false);
    struct reading result = {.point = 77};
    assert_int_equal(statistic_result(&s, NULL, FUNCTION_MEAN, false, &result), 0);
    assert_int_equal(result.quality, QUALITY_GOOD);
    assert_int_equal(result.point, 77);
    good.quality = QUALITY_UNCERTAIN;
    statistic_add(&s, &good, false);
    assert_int_equal(statistic_result(&s, NULL, FUNCTION_COUNT, false, &result), 0);
    assert_int_equal(result.quality, QUALITY_UNCERTAIN);
    assert_int_equal(result.integer, 2);
}

static void test_directions(void **state)
{
    (void)state;
    struct statistic s = of_decimals((int64_t[]){3500, 100}, 2, -1, true);
    expect_json(&s, FUNCTION_MEAN, true, "0");
    /* Yamartino: e = sin 10 deg, asin(e) (1 + 0.1547 e^3) = 10.0081 deg */
    expect_near(value_of(&s, NULL, FUNCTION_STD, true), 10.0081006, 1e-6);
    expect_none(&s, FUNCTION_MIN, true);
    expect_none(&s, FUNCTION_SUM, true);
    expect_json(&s, FUNCTION_FIRST, true, "350");
    s = of_decimals((int64_t[]){3550, 50, 150}, 3, -1, true);
    expect_json(&s, FUNCTION_MEAN, true, "5");
    s = of_decimals((int64_t[]){2600, 2700, 2800}, 3, -1, true);
    expect_json(&s, FUNCTION_MEAN, true, "270");
    s = of_decimals((int64_t[]){900, 2700}, 2, -1, true);
    expect_none(&s, FUNCTION_MEAN, true);
    /* All around the compass: e = 1, so pi/2 * 2/sqrt(3) = 103.923 deg. */
    expect_near(value_of(&s, NULL, FUNCTION_STD, true), 103.923048, 1e-6);
    const double reals[] = {359.5, 0.5};
    s = of_reals(reals, 2, true);
    double mean = value_of(&s, NULL, FUNCTION_MEAN, true);
    assert_true(fmin(mean, 360 - mean) < 1e-9 && mean < 360.0);
}

static void fill(struct statistic *s, struct samples *samples, size_t count)
{
    /* A permutation of 1..count: 7919 is prime to it. */
    for (size_t i = 0; i < count; i++) {
        struct reading r = decimal_reading((int64_t)((i * 7919) % count) + 1, 0);
        statistic_add(s, &r, false);
        samples_add(samples, reading_double(&r));
    }
}

static void test_quantiles(void **state)
{
    (void)state;
    struct statistic s = {0};
    struct samples samples = {0};
    fill(&s, &samples, 100);
    /* numpy.percentile(range(1, 101), [50, 95]) */
    expect_near(value_of(&s, &samples, FUNCTION_MEDIAN, false), 50.5, 1e-12);
    expect_near(value_of(&s, &samples, FUNCTION_P95, false), 95.05, 1e-9);
    samples_finish(&samples);
    s = (struct statistic){0};
    fill(&s, &samples, 1);
    expect_near(value_of(&s, &samples, FUNCTION_P95, false), 1, 0);
    samples_finish(&samples);
}

static void test_samples_are_bounded(void **state)
{
    (void)state;
    struct statistic s = {0};
    struct samples samples = {0};
    fill(&s, &samples, STATISTICS_SAMPLES_MAX);
    assert_int_equal(samples.count, STATISTICS_SAMPLES_MAX);
    expect_near(value_of(&s, &samples, FUNCTION_MEDIAN, false), 2048.5, 0);
    samples_finish(&samples);
    s = (struct statistic){0};
    fill(&s, &samples, 100000);
    assert_true(samples.capacity <= STATISTICS_SAMPLES_MAX);
    assert_true(samples.count >= STATISTICS_SAMPLES_MAX / 2);
    expect_near(value_of(&s, &samples, FUNCTION_MEDIAN, false), 50000, 1500);
    expect_near(value_of(&s, &samples, FUNCTION_P95, false), 95000, 1500);
    samples_finish(&samples);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(statistics_function_name(FUNCTION_MEAN), "mean");
    assert_string_equal(statistics_function_name(FUNCTION_TI), "ti");
    assert_string_equal(statistics_function_name(FUNCTION_P95), "p95");
    assert_true(statistics_has_unit(FUNCTION_STD));
    assert_false(statistics_has_unit(FUNCTION_COUNT));
}

enum { ROWS_MAX = 2000, COLUMN_MAX = 200 };

static size_t column_of(const char *header, const char *name)
{
    size_t column = 0, len = strlen(name);
    for (const char *at = header; *at != '\0'; column++) {
        size_t cell = strcspn(at, ",\r\n");
        if (cell == len && strncmp(at, name, len) == 0) {
            return column;
        }
        at += cell;
        at += *at == ',' ? 1 : 0;
        if (*at == '\r' || *at == '\n') {
            break;
        }
    }
    fail_msg("no column %s", name);
    return 0;
}

/* The numbers of one column, in hundredths; empty cells are left out. */
static size_t read_column(const char *name, int64_t values[ROWS_MAX])
{
    auto_fclose FILE *file = fopen(SHARED_DATA "/la_haute_borne/R80711_2017-10-29_dst_week.csv",
                                   "re");
    if (file == NULL) {
        skip();
    }
    char line[8192];
    assert_non_null(fgets(line, sizeof line, file));
    size_t column = column_of(line, name), count = 0;
    while (count < ROWS_MAX && fgets(line, sizeof line, file) != NULL) {
        const char *at = line;
        for (size_t i = 0; i < column; i++) {
            at += strcspn(at, ",");
            at += *at == ',' ? 1 : 0;
        }
        char *end;
        double value = strtod(at, &end);
        if (end != at) {
            values[count++] = llround(value * 100);
        }
    }
    return count;
}

static void check_column(const char *name)
{
    int64_t values[ROWS_MAX];
    size_t count = read_column(name, values);
    assert_true(count > 900);
    long double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
    }
    for (size_t i = 0; i < count; i++) {
        long double delta = values[i] - sum / count;
        squares += delta * delta;
    }
    double mean = (double)(sum / count / 100), std = (double)(sqrtl(squares / (count - 1)) / 100);
    struct statistic s = of_decimals(values, count, -2, false);
    expect_near(value_of(&s, NULL, FUNCTION_MEAN, false), mean, 1e-8);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false), std, 1e-8);
    double reals[ROWS_MAX];
    for (size_t i = 0; i < count; i++) {
        reals[i] = (double)values[i] / 100;
    }
    s = of_reals(reals, count, false);
    expect_near(value_of(&s, NULL, FUNCTION_MEAN, false), mean, fabs(mean) * 1e-13);
    expect_near(value_of(&s, NULL, FUNCTION_STD, false), std, std * 1e-12);
}

static void test_a_week_of_a_turbine(void **state)
{
    (void)state;
    check_column("Ws_avg");
    check_column("P_avg");
    check_column("Ot_avg");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decimals_stay_decimals),
        cmocka_unit_test(test_turbulence_intensity),
        cmocka_unit_test(test_spread_far_from_zero),
        cmocka_unit_test(test_sum_of_doubles_is_compensated),
        cmocka_unit_test(test_integers_too_large_go_on_as_doubles),
        cmocka_unit_test(test_exponents_meet),
        cmocka_unit_test(test_floats_bools_and_texts),
        cmocka_unit_test(test_bad_stays_outside_uncertain_enters),
        cmocka_unit_test(test_directions),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_samples_are_bounded),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_a_week_of_a_turbine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
