#include "drivers/coap/number.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

struct reading number_from_integer(int64_t value)
{
    return (struct reading){.kind = VALUE_DECIMAL, .integer = value};
}

static unsigned digits_of(int64_t mantissa)
{
    unsigned digits = 1;
    for (; mantissa / 10 != 0; mantissa /= 10) {
        digits++;
    }
    return digits;
}

struct reading number_from_double(double value)
{
    struct reading reading = {.kind = VALUE_REAL, .real = value};
    if (!isfinite(value)) {
        return (struct reading){.kind = VALUE_NULL, .quality = QUALITY_BAD_INVALID};
    }
    auto_buffer struct buffer text = {.max = 400};
    struct decimal decimal;
    decimal_write_double(&text, value);
    const char *shortest = buffer_text(&text);
    if (shortest != NULL && decimal_parse(shortest, &decimal) == 0 &&
        digits_of(decimal.mantissa) <= NUMBER_DIGITS_MAX) {
        reading.kind = VALUE_DECIMAL;
        reading.integer = decimal.mantissa;
        reading.exponent = decimal.exponent;
    }
    return reading;
}

struct reading number_add(const struct reading *a, const struct reading *b)
{
    if (a->kind == VALUE_NULL || b->kind == VALUE_NULL) {
        return a->kind == VALUE_NULL ? *b : *a;
    }
    struct decimal sum;
    if (a->kind == VALUE_DECIMAL && b->kind == VALUE_DECIMAL &&
        decimal_scale(reading_decimal(a), (struct decimal){1, 0}, reading_decimal(b), &sum) == 0) {
        return (struct reading){
            .kind = VALUE_DECIMAL, .integer = sum.mantissa, .exponent = sum.exponent};
    }
    return number_from_double(reading_double(a) + reading_double(b));
}

int number_parse(const char *text, size_t len, struct reading *ret_reading)
{
    enum { LONGEST = 64 };
    while (len > 0 && isspace((unsigned char)*text)) {
        text++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        len--;
    }
    char copy[LONGEST + 1];
    if (len == 0 || len > LONGEST || memchr(text, '\0', len) != NULL) {
        return -EINVAL;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (strcmp(copy, "true") == 0 || strcmp(copy, "false") == 0) {
        *ret_reading = (struct reading){.kind = VALUE_BOOL, .integer = copy[0] == 't'};
        return 0;
    }
    struct decimal decimal;
    int r = decimal_parse(copy, &decimal);
    if (r == 0) {
        *ret_reading = (struct reading){
            .kind = VALUE_DECIMAL, .integer = decimal.mantissa, .exponent = decimal.exponent};
        return 0;
    }
    char *end;
    double value = r == -ERANGE ? strtod(copy, &end) : NAN;
    if (!isfinite(value)) {
        return -EINVAL;
    }
    *ret_reading = (struct reading){.kind = VALUE_REAL, .real = value};
    return 0;
}
