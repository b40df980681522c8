#include "gateway/pipeline/scale.h"

#include <math.h>

static bool is_identity(const struct config_point *point)
{
    return point->scale.mantissa == 1 && point->scale.exponent == 0 && point->offset.mantissa == 0;
}

static void make_bad(struct reading *reading, enum quality quality)
{
    reading->kind = VALUE_NULL;
    reading->quality = (uint8_t)quality;
    reading->exponent = 0;
    reading->integer = 0;
}

static void scale_decimal(const struct config_point *point, struct reading *reading)
{
    struct decimal scaled;
    if (decimal_scale(reading_decimal(reading), point->scale, point->offset, &scaled) == 0) {
        reading->integer = scaled.mantissa;
        reading->exponent = scaled.exponent;
        return;
    }
    reading->real = reading_double(reading) * decimal_to_double(point->scale) +
                    decimal_to_double(point->offset);
    reading->kind = VALUE_REAL;
    reading->exponent = 0;
}

static void scale_real(const struct config_point *point, struct reading *reading)
{
    reading->real = reading->real * decimal_to_double(point->scale) +
                    decimal_to_double(point->offset);
    reading->kind = VALUE_REAL;
}

/* Comparing costs a conversion: only where the point has bounds, or a double may be no number. */
static void judge(const struct config_point *point, struct reading *reading)
{
    bool real = reading->kind != VALUE_DECIMAL;
    bool bounded = isfinite(point->min) || isfinite(point->max);
    if (!real && !bounded) {
        return;
    }
    double value = reading_double(reading);
    if (real && !isfinite(value)) {
        make_bad(reading, QUALITY_BAD_INVALID);
    } else if (bounded && (value < point->min || value > point->max)) {
        make_bad(reading, QUALITY_BAD_RANGE);
    }
}

void scale_reading(const struct config_point *point, struct reading *reading)
{
    if (reading->quality >= QUALITY_BAD_TIMEOUT || reading->kind == VALUE_NULL) {
        bool explained = reading->quality >= QUALITY_BAD_TIMEOUT;
        make_bad(reading, explained ? reading->quality : QUALITY_BAD_INVALID);
        return;
    }
    switch ((enum value_kind)reading->kind) {
    case VALUE_DECIMAL:
        if (!is_identity(point)) {
            scale_decimal(point, reading);
        }
        judge(point, reading);
        break;
    case VALUE_REAL:
    case VALUE_FLOAT:
        if (!is_identity(point)) {
            scale_real(point, reading);
        }
        judge(point, reading);
        break;
    default:
        break;
    }
}
