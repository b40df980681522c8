/* point.h - the attributes of a `point.NAME = SOURCE, ATTRIBUTE, ...` line.
 *
 * Pure, one thread at a time. What SOURCE means is the driver's; everything behind the first comma
 * is read here. */
#pragma once

#include "config/config.h"
#include "config/value.h"

/* Fills ret_point but for its address; texts go to strings. 0 or -EINVAL with the fault. */
must_check int point_parse(const char *name, const char *value, struct strings *strings,
                           struct config_point *ret_point, struct value_fault *fault);
