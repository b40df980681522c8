/* scale.h - from a register's number to the point's value: scale, offset, range.
 *
 * Pure, any thread. Decimals stay decimals, exactly, as long as 64 bits hold the result; a float
 * with a scale becomes a double. A value outside min..max, or that is no number at all, loses its
 * value and says so in its quality; a quality that a driver set passes through. */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"

void scale_reading(const struct config_point *point, struct reading *reading);
