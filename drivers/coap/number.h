/* number.h - numbers of JSON, CBOR and text as readings, exact where they are decimal.
 *
 * Pure, any thread. A number that has at most 15 significant decimal digits comes through a double
 * unharmed, so its shortest text is the text that the sensor wrote: it becomes a VALUE_DECIMAL.
 * What has more digits is a true double. */
#pragma once

#include "gateway/base/scan.h"

enum { NUMBER_DIGITS_MAX = 15 };

struct reading number_from_integer(int64_t value);
/* NaN and infinities: no value, bad:invalid. */
struct reading number_from_double(double value);

/* The sum, exactly where both are decimal and fit. Either may be absent (VALUE_NULL). */
struct reading number_add(const struct reading *a, const struct reading *b);

/* "23.5", "-1e3", "true", with white space around; -EINVAL: it is no number. */
must_check int number_parse(const char *text, size_t len, struct reading *ret_reading);
