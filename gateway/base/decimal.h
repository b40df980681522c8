/* decimal.h - exact decimal numbers, and numbers as text.
 *
 * Pure, any thread. A decimal is mantissa * 10^exponent. A register with a decimal scale is always
 * exact in this form, which is why readings, the block codec and the JSON writers use it; a double
 * enters only where a device sends one. */
#pragma once

#include "gateway/base/buffer.h"

struct decimal {
    int64_t mantissa;
    int8_t exponent; /* DECIMAL_EXPONENT_MIN..MAX */
};

enum { DECIMAL_EXPONENT_MIN = -18, DECIMAL_EXPONENT_MAX = 18 };

/* "0.01", "-12", "1e-3": the whole text; trailing zeros behind the point are kept out of the
 * mantissa. -EINVAL when it is no number, -ERANGE when it does not fit. */
must_check int decimal_parse(const char *text, struct decimal *ret_decimal);

double decimal_to_double(struct decimal d);
/* The same, correctly rounded for mantissas beyond 2^53, too; slower for those. */
double decimal_nearest(struct decimal d);

/* raw * scale + offset, exactly; -ERANGE when 64 bits do not hold it (use doubles then). The
 * exponent of the result depends on scale, offset and raw.exponent only, never on the values, so
 * that a column keeps one exponent. */
must_check int decimal_scale(struct decimal raw, struct decimal scale, struct decimal offset,
                             struct decimal *ret_decimal);

/* Appends the number as JSON: no exponent form, no trailing zeros behind the point ("13.5"). */
void decimal_write(struct buffer *b, struct decimal d);

/* Appends the shortest text that reads back as the same double, or the same float for a value that
 * came from a float32 register. NaN and infinities, which JSON lacks, become null. */
void decimal_write_double(struct buffer *b, double value);
void decimal_write_float(struct buffer *b, double value);

/* Appends text as a JSON string with its quotes (RFC 8259 section 7); bytes that are no UTF-8
 * become U+FFFD, so that a hostile device cannot break a document. */
void json_write_string(struct buffer *b, const char *text, size_t len);

/* The bytes of the UTF-8 sequence at `at` (RFC 3629), at most `left`; 0: it is none. */
size_t utf8_length(const uint8_t *at, size_t left);
