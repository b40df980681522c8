#include "uplink/sink/sink_value.h"

#include <math.h>

struct sink_value sink_value_decimal(struct decimal d)
{
    struct decimal whole = d;
    while (whole.exponent < 0 && whole.mantissa % 10 == 0 && whole.mantissa != 0) {
        whole.mantissa /= 10;
        whole.exponent++;
    }
    int64_t larger;
    while (whole.exponent > 0 && !__builtin_mul_overflow(whole.mantissa, (int64_t)10, &larger)) {
        whole.mantissa = larger;
        whole.exponent--;
    }
    if (whole.exponent == 0 || whole.mantissa == 0) {
        return (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = whole.mantissa};
    }
    return (struct sink_value){.kind = SINK_VALUE_REAL, .real = decimal_nearest(d)};
}

static struct sink_value value_of_number(struct decimal d, double real, bool exact)
{
    if (exact) {
        return sink_value_decimal(d);
    }
    if (real == trunc(real) && fabs(real) < 9007199254740992.0) {
        return (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = (int64_t)real};
    }
    return (struct sink_value){.kind = SINK_VALUE_REAL, .real = real};
}

bool sink_value_take(struct json_in *p, struct sink_value *ret_value)
{
    struct decimal d;
    double real;
    bool flag;
    *ret_value = (struct sink_value){.kind = SINK_VALUE_NULL};
    switch (json_in_peek(p)) {
    case JSON_IN_NUMBER:
        if (!json_in_number(p, &d, &real, &flag)) {
            return false;
        }
        *ret_value = value_of_number(d, real, flag);
        return true;
    case JSON_IN_STRING:
        ret_value->kind = SINK_VALUE_TEXT;
        return json_in_string(p, &ret_value->text);
    case JSON_IN_TRUE:
    case JSON_IN_FALSE:
        if (!json_in_bool(p, &flag)) {
            return false;
        }
        *ret_value = (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = flag};
        return true;
    case JSON_IN_NULL:
        return json_in_null(p);
    default:
        return json_in_fail(p, "a plain value is expected");
    }
}
