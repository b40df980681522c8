#include "drivers/simulator/power_curve.h"

double power_curve_kw(double wind)
{
    if (!(wind >= POWER_CURVE_CUT_IN) || wind >= POWER_CURVE_CUT_OUT) {
        return 0.0;
    }
    if (wind >= POWER_CURVE_RATED) {
        return POWER_CURVE_RATED_KW;
    }
    const double least = POWER_CURVE_CUT_IN * POWER_CURVE_CUT_IN * POWER_CURVE_CUT_IN;
    const double most = POWER_CURVE_RATED * POWER_CURVE_RATED * POWER_CURVE_RATED;
    return POWER_CURVE_RATED_KW * (wind * wind * wind - least) / (most - least);
}
