#include "gateway/base/json_reading.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static void make_bad(struct reading *reading, enum quality quality)
{
    reading->kind = VALUE_NULL;
    reading->quality = (uint8_t)quality;
}

static bool take_number(struct json_in *p, struct reading *reading)
{
    struct decimal d;
    double real;
    bool exact;
    if (!json_in_number(p, &d, &real, &exact)) {
        return false;
    }
    reading->kind = exact ? VALUE_DECIMAL : VALUE_REAL;
    if (exact) {
        reading->integer = d.mantissa;
        reading->exponent = d.exponent;
    } else {
        reading->real = real;
    }
    return true;
}

static bool take_text(struct json_in *p, struct reading *reading, struct json_in_text *text)
{
    if (!json_in_string(p, text)) {
        return false;
    }
    if (text->len > JSON_READING_TEXT_MAX) {
        make_bad(reading, QUALITY_BAD_TYPE);
        return true;
    }
    reading->kind = VALUE_TEXT;
    reading->text.len = (uint32_t)text->len;
    return true;
}

bool json_reading_take(struct json_in *p, struct reading *ret_reading,
                       struct json_in_text *ret_text)
{
    bool flag;
    ret_reading->quality = QUALITY_GOOD;
    ret_reading->exponent = 0;
    ret_reading->integer = 0;
    *ret_text = (struct json_in_text){0};
    switch (json_in_peek(p)) {
    case JSON_IN_NUMBER:
        return take_number(p, ret_reading);
    case JSON_IN_STRING:
        return take_text(p, ret_reading, ret_text);
    case JSON_IN_TRUE:
    case JSON_IN_FALSE:
        if (!json_in_bool(p, &flag)) {
            return false;
        }
        ret_reading->kind = VALUE_BOOL;
        ret_reading->integer = flag;
        return true;
    case JSON_IN_NULL:
        make_bad(ret_reading, QUALITY_BAD_INVALID);
        return json_in_null(p);
    default:
        make_bad(ret_reading, QUALITY_BAD_TYPE);
        return json_in_skip(p);
    }
}

int json_reading_time(const struct reading *reading, struct json_in_text text, int64_t *ret_ms)
{
    int64_t time_ms;
    if (reading->kind == VALUE_TEXT) {
        char copy[CLOCK_TEXT_SIZE];
        if (text.len >= sizeof copy) {
            return -EINVAL;
        }
        memcpy(copy, text.at, text.len);
        copy[text.len] = '\0';
        if (strlen(copy) != text.len || clock_parse_utc(copy, &time_ms) < 0) {
            return -EINVAL;
        }
    } else if (reading->kind == VALUE_DECIMAL || reading->kind == VALUE_REAL) {
        double number = reading_double(reading);
        double ms = number < JSON_READING_SECONDS_BELOW ? number * 1000 : number;
        if (!(ms >= 1) || ms > 253402300799e3) { /* the end of year 9999 */
            return -EINVAL;
        }
        time_ms = llround(ms);
    } else {
        return -EINVAL;
    }
    if (time_ms <= 0) {
        return -EINVAL;
    }
    *ret_ms = time_ms;
    return 0;
}
