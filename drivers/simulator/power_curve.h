/* power_curve.h - what a simulated turbine makes of the wind.
 *
 * Pure, any thread. The shape is the usual one of a pitch-regulated machine: nothing below cut-in,
 * with the cube of the wind up to rated, constant above, stopped from cut-out on. */
#pragma once

#define POWER_CURVE_CUT_IN   4.0    /* m/s */
#define POWER_CURVE_RATED    11.0   /* m/s */
#define POWER_CURVE_CUT_OUT  25.0   /* m/s */
#define POWER_CURVE_RATED_KW 2000.0 /* kW */

/* kW at a wind speed in m/s. */
double power_curve_kw(double wind);
