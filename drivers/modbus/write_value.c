#include "drivers/modbus/write_value.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

static int refuse(char why[WRITE_VALUE_WHY], int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(char why[WRITE_VALUE_WHY], int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, WRITE_VALUE_WHY, format, args);
    va_end(args);
    return error;
}

/* mantissa * 10^power, power >= 0. */
static bool raise(int64_t *mantissa, int power)
{
    for (int i = 0; i < power; i++) {
        if (__builtin_mul_overflow(*mantissa, (int64_t)10, mantissa)) {
            return false;
        }
    }
    return true;
}

/* value - offset, exactly. */
static bool subtract(struct decimal value, struct decimal offset, struct decimal *ret_difference)
{
    int exponent = value.exponent < offset.exponent ? value.exponent : offset.exponent;
    ret_difference->exponent = (int8_t)exponent;
    return raise(&value.mantissa, value.exponent - exponent) &&
           raise(&offset.mantissa, offset.exponent - exponent) &&
           !__builtin_sub_overflow(value.mantissa, offset.mantissa, &ret_difference->mantissa);
}

/* Says what would fit, one step below and one above. */
static int refuse_between(const struct config_point *point, int64_t quotient, char *why)
{
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "the register does not hold exactly that; next to it are ");
    for (int64_t i = 0; i < 2; i++) {
        struct decimal near, raw = {.mantissa = quotient + i};
        if (decimal_scale(raw, point->scale, point->offset, &near) < 0) {
            return refuse(why, -EINVAL, "the register does not hold exactly that");
        }
        buffer_add_text(&text, i > 0 ? " and " : "");
        decimal_write(&text, near);
    }
    const char *words = buffer_text(&text);
    return refuse(why, -EINVAL, "%s", words != NULL ? words : "out of memory");
}

static int raw_integer(const struct config_point *point, struct decimal value,
                       struct reading *ret_raw, char *why)
{
    struct decimal d;
    int64_t divisor = point->scale.mantissa;
    if (!subtract(value, point->offset, &d) || d.mantissa == INT64_MIN) {
        return refuse(why, -ERANGE, "the number is too large");
    }
    int power = d.exponent - point->scale.exponent;
    if (!raise(power > 0 ? &d.mantissa : &divisor, abs(power))) {
        return refuse(why, -ERANGE, "the number has too many digits");
    }
    int64_t quotient = divisor == -1 ? -d.mantissa : d.mantissa / divisor;
    int64_t rest = divisor == -1 ? 0 : d.mantissa % divisor;
    if (rest != 0) {
        bool below = (rest < 0) != (divisor < 0);
        return refuse_between(point, below ? quotient - 1 : quotient, why);
    }
    *ret_raw = (struct reading){.kind = VALUE_DECIMAL, .integer = quotient};
    return 0;
}

static int raw_float(const struct config_point *point, struct decimal value,
                     struct reading *ret_raw)
{
    double number = decimal_nearest(value);
    bool plain = point->scale.mantissa == 1 && point->scale.exponent == 0 &&
                 point->offset.mantissa == 0;
    if (!plain) {
        number = (number - decimal_to_double(point->offset)) / decimal_to_double(point->scale);
    }
    *ret_raw = (struct reading){.kind = VALUE_REAL, .real = number};
    return isfinite(number) ? 0 : -ERANGE;
}

static int raw_bit(struct decimal value, struct reading *ret_raw, char *why)
{
    bool one = value.mantissa == 1 && value.exponent == 0;
    if (!one && value.mantissa != 0) {
        return refuse(why, -EINVAL, "a bit is 0 or 1");
    }
    *ret_raw = (struct reading){.kind = VALUE_BOOL, .integer = one};
    return 0;
}

int write_value_raw(const struct config_point *point, const char *text, struct reading *ret_raw,
                    char ret_why[WRITE_VALUE_WHY])
{
    const struct registers_point *address = point->address;
    struct decimal value;
    int r = decimal_parse(text, &value);
    if (r < 0) {
        return refuse(ret_why, r, "'%.40s' is no number that fits", text);
    }
    switch ((enum registers_type)address->type) {
    case REGISTERS_STRING:
        return refuse(ret_why, -EINVAL, "texts are not written");
    case REGISTERS_BIT:
        return raw_bit(value, ret_raw, ret_why);
    case REGISTERS_FLOAT32:
    case REGISTERS_FLOAT64:
        r = raw_float(point, value, ret_raw);
        break;
    default:
        r = raw_integer(point, value, ret_raw, ret_why);
        break;
    }
    uint8_t data[WRITE_VALUE_BYTES] = {0};
    if (r == 0) {
        r = registers_encode(address, ret_raw, NULL, data);
        if (r < 0) {
            return refuse(ret_why, r, "the register's type, %s, does not hold that",
                          registers_type_name(address->type));
        }
    }
    return r;
}

int write_value_request(const struct registers_point *address, const struct reading *raw,
                        bool multiple, uint8_t data[WRITE_VALUE_BYTES],
                        struct mbap_request *ret_request)
{
    *ret_request = (struct mbap_request){
        .first = address->first, .count = address->width, .data = data};
    if (address->table == REGISTERS_COIL) {
        bool on = raw->integer != 0;
        ret_request->function = multiple ? MBAP_WRITE_COILS : MBAP_WRITE_COIL;
        ret_request->data_len = multiple ? 1 : 2;
        data[0] = multiple ? on : (on ? 0xff : 0);
        data[1] = 0;
        return 0;
    }
    if (address->table != REGISTERS_HOLDING || 2U * address->width > WRITE_VALUE_BYTES) {
        return -EINVAL;
    }
    bool single = address->width == 1 && !multiple;
    ret_request->function = single ? MBAP_WRITE_REGISTER : MBAP_WRITE_REGISTERS;
    ret_request->data_len = 2 * (size_t)address->width;
    return registers_encode(address, raw, NULL, data);
}

bool write_value_matches(const struct registers_point *address, const struct reading *raw,
                         const uint8_t *read_back)
{
    if (address->table == REGISTERS_COIL) {
        return (read_back[0] & 1) == (raw->integer != 0);
    }
    /* For a bit the other bits are those that were read: only its own is compared. */
    uint8_t expected[WRITE_VALUE_BYTES];
    memcpy(expected, read_back, 2 * (size_t)address->width);
    return registers_encode(address, raw, NULL, expected) == 0 &&
           memcmp(expected, read_back, 2 * (size_t)address->width) == 0;
}
