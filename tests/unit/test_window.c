/* Windows: where they begin and end, which points they take, what their results look like. */
#include "gateway/pipeline/window.h"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { MINUTE = 60000, TEN_MINUTES = 600000, HOUR = 3600000, DAY = 86400000 };

/* 2026-01-31T10:00:00Z */
#define TEN ((int64_t)1769853600000)

static void test_aligned_to_utc(void **state)
{
    (void)state;
    assert_int_equal(window_floor(TEN, TEN_MINUTES), TEN);
    assert_int_equal(window_floor(TEN + 599999, TEN_MINUTES), TEN);
    assert_int_equal(window_floor(TEN + 600000, TEN_MINUTES), TEN + 600000);
    assert_int_equal(window_floor(TEN + 1, DAY), TEN - 10 * (int64_t)HOUR);
    assert_int_equal(window_floor(TEN + 1, 2 * (int64_t)DAY) % DAY, 0);
    assert_int_equal(window_floor(-1, TEN_MINUTES), -TEN_MINUTES);
    assert_int_equal(window_floor(-TEN_MINUTES, TEN_MINUTES), -TEN_MINUTES);
}

static void test_globs(void **state)
{
    (void)state;
    const char *const words[] = {"wind_*", "t0?.power"};
    const struct config_list globs = {.items = words, .count = 2};
    assert_true(window_takes(&globs, "mast", "wind_speed"));
    assert_true(window_takes(&globs, "t01", "power"));
    assert_false(window_takes(&globs, "mast", "power"));
    assert_false(window_takes(&globs, "t01", "temperature"));
}

static const char *const some_points[] = {"speed", "direction"};

static const struct config_aggregate aggregate = {.name = "scada",
                                                  .window_ms = TEN_MINUTES,
                                                  .points = {.items = some_points, .count = 2},
                                                  .functions = FUNCTION_MEAN | FUNCTION_COUNT |
                                                               FUNCTION_MEDIAN};

static const struct config_point points[] = {
    {.name = "power", .scale = {.mantissa = 1}},
    {.name = "speed", .scale = {.mantissa = 1}},
    {.name = "direction", .scale = {.mantissa = 1}, .circular = true},
};
static const struct config_device device = {.name = "t01", .points = {.list = points, .count = 3}};

static struct window *make(void)
{
    struct window *w = NULL;
    assert_int_equal(window_create(&aggregate, &device, &w), 0);
    for (uint16_t i = 0; i < w->count * window_functions(w); i++) {
        w->ids[i] = (uint16_t)(100 + i);
    }
    return w;
}

struct whole_scan {
    struct scan scan;
    struct reading readings[16];
};

static void add(struct window *w, int64_t power, int64_t speed, int64_t direction)
{
    struct whole_scan s = {.scan = {.count = 3}};
    const int64_t values[] = {power, speed, direction};
    for (uint16_t i = 0; i < 3; i++) {
        s.scan.readings[i] = (struct reading){
            .point = i, .kind = VALUE_DECIMAL, .integer = values[i]};
    }
    window_add(w, &s.scan);
    assert_int_equal(window_takes_of(w, &s.scan), 2);
}

static void test_takes_its_points_only(void **state)
{
    (void)state;
    struct window *w = make();
    assert_int_equal(w->count, 2);
    window_open_at(w, TEN + 5);
    assert_true(window_is_empty(w));
    add(w, 1000, 7, 350);
    add(w, 1000, 9, 10);
    assert_false(window_is_empty(w));
    struct whole_scan result;
    size_t at = 0;
    window_result(w, &at, 16, &result.scan);
    assert_int_equal(at, 2);
    assert_int_equal(result.scan.time_ms, TEN);
    assert_int_equal(result.scan.window_s, 600);
    assert_int_equal(result.scan.stream, STREAM_AGGREGATE);
    /* speed: mean, count, median; direction has no median */
    assert_int_equal(result.scan.count, 5);
    assert_int_equal(result.scan.readings[0].point, 100);
    assert_true(reading_double(&result.scan.readings[0]) == 8.0);
    assert_int_equal(result.scan.readings[1].integer, 2);
    assert_true(reading_double(&result.scan.readings[2]) == 8.0);
    assert_int_equal(result.scan.readings[3].point, 103);
    assert_true(fabs(reading_double(&result.scan.readings[3])) < 1e-9);
    window_destroy(w);
}

static void test_result_in_parts(void **state)
{
    (void)state;
    struct window *w = make();
    window_open_at(w, TEN);
    add(w, 1, 2, 3);
    struct whole_scan result;
    size_t at = 0;
    window_result(w, &at, 5, &result.scan);
    assert_int_equal(at, 1);
    assert_int_equal(result.scan.count, 3);
    window_result(w, &at, 5, &result.scan);
    assert_int_equal(at, 2);
    assert_int_equal(result.scan.readings[0].point, 103);
    window_destroy(w);
}

static void test_no_points_no_window(void **state)
{
    (void)state;
    struct config_aggregate other = aggregate;
    const char *const none[] = {"nothing*"};
    other.points.items = none;
    other.points.count = 1;
    struct window *w = NULL;
    assert_int_equal(window_create(&other, &device, &w), -ENOENT);
    assert_null(w);
}

static void test_places(void **state)
{
    (void)state;
    struct window *w = make();
    window_open_at(w, TEN + 300000);
    int64_t now_ms = TEN + 300000;
    assert_int_equal(window_place(w, TEN, now_ms), WINDOW_FITS);
    assert_int_equal(window_place(w, TEN + 599999, now_ms), WINDOW_FITS);
    assert_int_equal(window_place(w, TEN + 600000, now_ms), WINDOW_CLOSE);
    assert_int_equal(window_place(w, TEN - 1, now_ms), WINDOW_LATE);
    assert_int_equal(window_place(w, TEN - HOUR, TEN - HOUR), WINDOW_SHORT);
    assert_false(window_is_over(w, TEN + TEN_MINUTES + WINDOW_GRACE_MS - 1));
    assert_true(window_is_over(w, TEN + TEN_MINUTES + WINDOW_GRACE_MS));
    w->open = false;
    assert_false(window_is_over(w, TEN + DAY));
    window_destroy(w);
}

static void test_cut_and_rest_share_no_start(void **state)
{
    (void)state;
    struct window *w = make();
    window_open_at(w, TEN);
    window_cut(w, TEN + 240000);
    assert_int_equal(w->end_ms - w->start_ms, 240000);
    window_open_rest(w, TEN + 240000);
    assert_int_equal(w->start_ms, TEN + 240000);
    assert_int_equal(w->end_ms, TEN + TEN_MINUTES);
    window_cut(w, TEN + HOUR); /* outside: the window stays whole */
    assert_int_equal(w->end_ms, TEN + TEN_MINUTES);
    window_open_at(w, TEN + TEN_MINUTES);
    assert_int_equal(w->start_ms, TEN + TEN_MINUTES);
    window_destroy(w);
}

static void test_memory_of_a_large_site(void **state)
{
    (void)state;
    /* 770 turbines of 20 points with mean min max std count stay below 3 MiB: per point the
     * statistic, its place in the window (two numbers and a flag), and five ids. */
    size_t point = sizeof(struct statistic) + 2 * sizeof(uint16_t) + 1 + 5 * sizeof(uint16_t);
    assert_true(770 * (20 * point + sizeof(struct window)) < 3 << 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_to_utc),
        cmocka_unit_test(test_globs),
        cmocka_unit_test(test_takes_its_points_only),
        cmocka_unit_test(test_result_in_parts),
        cmocka_unit_test(test_no_points_no_window),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_cut_and_rest_share_no_start),
        cmocka_unit_test(test_memory_of_a_large_site),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
