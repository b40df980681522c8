/* The simulated turbine against the published curves: other machines, the same shape. */
#include "drivers/simulator/power_curve.h"
#include "gateway/base/cleanup.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static void test_bounds(void **state)
{
    (void)state;
    assert_true(power_curve_kw(0.0) == 0.0);
    assert_true(power_curve_kw(-1.0) == 0.0);
    assert_true(power_curve_kw(NAN) == 0.0);
    assert_true(power_curve_kw(3.99) == 0.0);
    assert_true(power_curve_kw(POWER_CURVE_CUT_IN) == 0.0);
    assert_true(power_curve_kw(4.1) > 0.0);
    assert_true(power_curve_kw(10.99) < POWER_CURVE_RATED_KW);
    assert_true(power_curve_kw(11.0) == POWER_CURVE_RATED_KW);
    assert_true(power_curve_kw(24.99) == POWER_CURVE_RATED_KW);
    assert_true(power_curve_kw(25.0) == 0.0);
}

static void test_rises(void **state)
{
    (void)state;
    for (double wind = 4.0; wind < 10.9; wind += 0.1) {
        assert_true(power_curve_kw(wind + 0.1) > power_curve_kw(wind));
    }
}

/* The published columns are wind in m/s and power in kW, at the start of each line. */
static void test_like_a_published_curve(void **state)
{
    (void)state;
    FILE *file auto_fclose = fopen(SHARED_DATA "/power_curves/NREL_Reference_5MW_126.csv", "re");
    if (file == NULL) {
        skip();
    }
    char line[512];
    int compared = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        double wind, kw;
        if (sscanf(line, "%lf,%lf", &wind, &kw) == 2 && wind >= 5.0 && wind < 25.0) {
            double share = kw / 5000.0, ours = power_curve_kw(wind) / POWER_CURVE_RATED_KW;
            assert_true(fabs(share - ours) < 0.15);
            compared++;
        }
    }
    assert_true(compared >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_rises),
        cmocka_unit_test(test_like_a_published_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
