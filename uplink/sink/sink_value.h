/* sink_value.h - a value as the sink's database holds it.
 *
 * Pure, any thread. A number that is whole is always an INTEGER, whether it came as 13, 13.0 or
 * 1.3e1, so that two forms of one value compare equal; true is 1. */
#pragma once

#include "gateway/base/json_in.h"

enum sink_value_kind { SINK_VALUE_NULL, SINK_VALUE_INTEGER, SINK_VALUE_REAL, SINK_VALUE_TEXT };

struct sink_value {
    enum sink_value_kind kind;
    union {
        int64_t integer;
        double real;
        struct json_in_text text;
    };
};

/* Any scalar; an object or array latches an error. */
bool sink_value_take(struct json_in *p, struct sink_value *ret_value);

/* mantissa * 10^exponent as the database holds it, correctly rounded where it is a fraction. */
struct sink_value sink_value_decimal(struct decimal d);
