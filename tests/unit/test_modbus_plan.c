/* Which requests read a map, and how few of them find a hole in it. */
#include "drivers/modbus/plan.h"

#include <errno.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static const struct plan_limits defaults = {.max_gap = 16, .largest_request = 125};

static void plan_of(struct plan *plan, const struct registers_point *points, const uint32_t *every,
                    size_t count, struct plan_limits limits)
{
    struct plan_source sources[2100];
    for (size_t i = 0; i < count; i++) {
        sources[i] = (struct plan_source){&points[i], every != NULL ? every[i] : 1};
    }
    assert_int_equal(plan_init(plan, sources, count, limits), 0);
}

/* Registers 0 to count - 1, one point each. */
static void plan_of_range(struct plan *plan, unsigned count, struct plan_limits limits)
{
    static struct registers_point points[2100];
    for (unsigned i = 0; i < count; i++) {
        points[i] = (struct registers_point){.first = (uint16_t)i, .width = 1};
    }
    plan_of(plan, points, NULL, count, limits);
}

static void assert_request(const struct plan *plan, size_t i, unsigned first, unsigned count)
{
    assert_true(i < plan->request_count);
    assert_int_equal(plan->requests[i].first, first);
    assert_int_equal(plan->requests[i].count, count);
}

static void test_types_and_gaps_are_read_together(void **state)
{
    (void)state;
    struct plan plan;
    const struct registers_point points[] = {
        {.table = REGISTERS_HOLDING, .first = 20, .width = 2}, /* out of order */
        {.table = REGISTERS_HOLDING, .first = 0, .width = 1},
        {.table = REGISTERS_HOLDING, .first = 1, .width = 4},
        {.table = REGISTERS_HOLDING, .first = 1, .width = 1},  /* overlapping */
        {.table = REGISTERS_HOLDING, .first = 38, .width = 1}, /* gap of 16 */
        {.table = REGISTERS_HOLDING, .first = 56, .width = 1}, /* gap of 17 */
        {.table = REGISTERS_INPUT, .first = 57, .width = 1},
        {.table = REGISTERS_COIL, .first = 0, .width = 1},
        {.table = REGISTERS_COIL, .first = 257, .width = 1}, /* 256 bits are 16 registers */
        {.table = REGISTERS_COIL, .first = 515, .width = 1},
    };
    plan_of(&plan, points, NULL, ARRAY_SIZE(points), defaults);
    assert_int_equal(plan.request_count, 5);
    assert_request(&plan, 0, 0, 39);
    assert_request(&plan, 1, 56, 1);
    assert_request(&plan, 2, 57, 1);
    assert_request(&plan, 3, 0, 258);
    assert_request(&plan, 4, 515, 1);
    plan_finish(&plan);
}

static void test_limits_of_a_request(void **state)
{
    (void)state;
    struct plan plan;
    plan_of_range(&plan, 300, defaults);
    assert_int_equal(plan.request_count, 3);
    assert_request(&plan, 0, 0, 125);
    assert_request(&plan, 2, 250, 50);
    plan_finish(&plan);
    plan_of_range(&plan, 300, (struct plan_limits){.max_gap = 16, .largest_request = 10});
    assert_int_equal(plan.request_count, 30);
    plan_finish(&plan);
    plan_of_range(&plan, 5, (struct plan_limits){16, 125, .one_request_per_point = true});
    assert_int_equal(plan.request_count, 5);
    plan_settle(&plan);
    assert_int_equal(plan.request_count, 5);
    plan_finish(&plan);
    /* A value is never cut in two: 62 doubles of 4 registers are 31 a request. */
    struct registers_point doubles[62], bits[2001];
    for (unsigned i = 0; i < 62; i++) {
        doubles[i] = (struct registers_point){.first = (uint16_t)(4 * i), .width = 4};
    }
    plan_of(&plan, doubles, NULL, 62, defaults);
    assert_int_equal(plan.request_count, 2);
    assert_request(&plan, 0, 0, 124);
    plan_finish(&plan);
    for (unsigned i = 0; i < 2001; i++) {
        bits[i] = (struct registers_point){
            .table = REGISTERS_DISCRETE, .first = (uint16_t)i, .width = 1};
    }
    plan_of(&plan, bits, NULL, 2001, defaults);
    assert_int_equal(plan.request_count, 2);
    assert_request(&plan, 0, 0, 2000);
    plan_finish(&plan);
}

static void test_slow_points_have_requests_of_their_own(void **state)
{
    (void)state;
    struct plan plan;
    const struct registers_point points[] = {
        {.first = 0, .width = 1}, {.first = 1, .width = 1}, {.first = 2, .width = 1}};
    plan_of(&plan, points, (uint32_t[]){1, 10, 1}, 3, defaults);
    assert_int_equal(plan.request_count, 2);
    assert_request(&plan, 0, 0, 3);
    assert_request(&plan, 1, 1, 1);
    assert_true(plan_is_due(&plan.requests[1], 0));
    assert_false(plan_is_due(&plan.requests[1], 9));
    assert_true(plan_is_due(&plan.requests[1], 20));
    assert_int_equal(plan_due_points(&plan, 0), 3);
    assert_int_equal(plan_due_points(&plan, 1), 2);
    plan_finish(&plan);
}

/* One round against a device whose registers hole..hole + count - 1 do not exist; returns the
 * requests it took. */
static unsigned round_with_hole(struct plan *plan, unsigned hole, unsigned count)
{
    unsigned requests = 0;
    bool learned = false;
    for (size_t i = 0; i < plan->request_count;) {
        unsigned first = plan->requests[i].first, end = first + plan->requests[i].count;
        requests++;
        if (count > 0 && first < hole + count && end > hole) {
            plan_refuse(plan, i);
            learned = true;
        } else {
            plan_accept(plan, i++);
        }
    }
    if (!learned) {
        plan_settle(plan);
    }
    return requests;
}

static void test_a_hole_of_ten_in_sixty_takes_few_requests(void **state)
{
    (void)state;
    struct plan plan;
    plan_of_range(&plan, 60, defaults);
    assert_in_range(round_with_hole(&plan, 25, 10), 20, 33);
    for (size_t i = 0; i < 60; i++) {
        assert_int_equal(plan.parts[i].refused, i >= 25 && i < 35);
    }
    while (!plan.settled) {
        round_with_hole(&plan, 25, 10);
    }
    assert_int_equal(plan.request_count, 2);
    assert_request(&plan, 0, 0, 25);
    assert_request(&plan, 1, 35, 25);
    assert_int_equal(plan.refused_count, 10);
    plan_finish(&plan);
    unsigned sum = 0;
    for (unsigned hole = 0; hole <= 50; hole++) {
        plan_of_range(&plan, 60, defaults);
        sum += round_with_hole(&plan, hole, 10);
        plan_finish(&plan);
    }
    assert_in_range(sum / 51, 20, 31);
}

static void test_the_exact_point_is_named(void **state)
{
    (void)state;
    struct plan plan;
    plan_of_range(&plan, 60, defaults);
    struct plan_refusal refusal = {0};
    for (size_t i = 0; i < plan.request_count && refusal.parts == 0;) {
        const struct plan_request *request = &plan.requests[i];
        if (request->first <= 41 && request->first + request->count > 41) {
            refusal = plan_refuse(&plan, i);
        } else {
            i++;
        }
    }
    assert_int_equal(refusal.parts, 1);
    assert_int_equal(plan.parts[refusal.part].point, 41);
    plan_finish(&plan);
}

/* A gap between points that the device refuses to read: no point is lost, and the wall stays. */
static void test_a_hole_in_a_gap_costs_no_point(void **state)
{
    (void)state;
    struct plan plan;
    struct registers_point points[40];
    for (unsigned i = 0; i < 40; i++) {
        points[i] = (struct registers_point){.first = (uint16_t)(2 * i + (i >= 20 ? 8 : 0)),
                                             .width = 1};
    }
    plan_of(&plan, points, NULL, 40, defaults);
    assert_int_equal(plan.request_count, 1);
    for (int round = 0; round < 60 && !(plan.settled && round > 0); round++) {
        round_with_hole(&plan, 41, 1);
    }
    assert_true(plan.settled);
    assert_int_equal(plan.refused_count, 0);
    assert_int_equal(plan.request_count, 2);
    assert_request(&plan, 0, 0, 39);
    assert_int_equal(round_with_hole(&plan, 41, 1), 2);
    plan_finish(&plan);
}

static void test_bits_of_one_register_are_refused_together(void **state)
{
    (void)state;
    struct plan plan;
    struct registers_point points[16];
    for (unsigned i = 0; i < 16; i++) {
        points[i] = (struct registers_point){
            .first = 9, .width = 1, .type = REGISTERS_BIT, .detail = (uint16_t)i};
    }
    plan_of(&plan, points, NULL, 16, defaults);
    assert_int_equal(round_with_hole(&plan, 9, 1), 1);
    assert_int_equal(plan.refused_count, 16);
    assert_int_equal(plan.request_count, 0);
    plan_finish(&plan);
}

static void test_refused_points_are_tried_again(void **state)
{
    (void)state;
    struct plan plan;
    plan_of_range(&plan, 60, defaults);
    while (!plan.settled || plan.refused_count == 0) {
        round_with_hole(&plan, 25, 10);
    }
    assert_int_equal(plan_retry(&plan), 10);
    assert_int_equal(plan.request_count, 12);
    assert_int_equal(round_with_hole(&plan, 25, 10), 12);
    assert_int_equal(plan.refused_count, 10);
    /* the device has got its registers now */
    assert_int_equal(plan_retry(&plan), 10);
    assert_int_equal(plan_retry(&plan), 0);
    do {
        round_with_hole(&plan, 0, 0);
    } while (!plan.settled);
    assert_int_equal(plan.request_count, 1);
    assert_request(&plan, 0, 0, 60);
    plan_finish(&plan);
}

static void test_no_points_and_too_many(void **state)
{
    (void)state;
    struct plan plan;
    const struct registers_point point = {.width = 1};
    const struct plan_source one = {&point, 1};
    plan_of(&plan, NULL, NULL, 0, defaults);
    assert_int_equal(plan.request_count, 0);
    plan_finish(&plan);
    assert_int_equal(plan_init(&plan, &one, SCAN_READINGS_MAX + 1, defaults), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_gaps_are_read_together),
        cmocka_unit_test(test_limits_of_a_request),
        cmocka_unit_test(test_slow_points_have_requests_of_their_own),
        cmocka_unit_test(test_a_hole_of_ten_in_sixty_takes_few_requests),
        cmocka_unit_test(test_the_exact_point_is_named),
        cmocka_unit_test(test_a_hole_in_a_gap_costs_no_point),
        cmocka_unit_test(test_bits_of_one_register_are_refused_together),
        cmocka_unit_test(test_refused_points_are_tried_again),
        cmocka_unit_test(test_no_points_and_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
