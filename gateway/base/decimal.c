#include "gateway/base/decimal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8, 1e9,
                                1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};

static int digits(const char **at, struct decimal *d, bool fraction, int *seen, int *exponent)
{
    for (; **at >= '0' && **at <= '9'; (*at)++, (*seen)++) {
        if (__builtin_mul_overflow(d->mantissa, (int64_t)10, &d->mantissa) ||
            __builtin_add_overflow(d->mantissa, (int64_t)(**at - '0'), &d->mantissa)) {
            return -ERANGE;
        }
        *exponent -= fraction ? 1 : 0;
    }
    return 0;
}

static int parse_exponent(const char *at, int *exponent)
{
    char *end;
    errno = 0;
    long e = strtol(at, &end, 10);
    if (end == at || *end != '\0') {
        return -EINVAL;
    }
    if (errno != 0 || e < -60 || e > 60) {
        return -ERANGE;
    }
    *exponent += (int)e;
    return 0;
}

int decimal_parse(const char *text, struct decimal *ret_decimal)
{
    const char *at = text;
    bool negative = *at == '-';
    at += (*at == '-' || *at == '+') ? 1 : 0;
    struct decimal d = {0};
    int seen = 0, exponent = 0;
    int r = digits(&at, &d, false, &seen, &exponent);
    if (r == 0 && *at == '.') {
        at++;
        r = digits(&at, &d, true, &seen, &exponent);
    }
    if (r < 0 || seen == 0) {
        return r < 0 ? r : -EINVAL;
    }
    if (*at == 'e' || *at == 'E') {
        r = parse_exponent(at + 1, &exponent);
        if (r < 0) {
            return r;
        }
    } else if (*at != '\0') {
        return -EINVAL;
    }
    while (exponent < 0 && d.mantissa != 0 && d.mantissa % 10 == 0) {
        d.mantissa /= 10;
        exponent++;
    }
    if (d.mantissa == 0) {
        exponent = 0;
    }
    if (exponent < DECIMAL_EXPONENT_MIN || exponent > DECIMAL_EXPONENT_MAX) {
        return -ERANGE;
    }
    d.mantissa = negative ? -d.mantissa : d.mantissa;
    d.exponent = (int8_t)exponent;
    *ret_decimal = d;
    return 0;
}

double decimal_to_double(struct decimal d)
{
    double m = (double)d.mantissa;
    if (d.exponent >= 0) {
        return d.exponent <= 18 ? m * powers[d.exponent] : m * pow(10.0, d.exponent);
    }
    return d.exponent >= -18 ? m / powers[-d.exponent] : m / pow(10.0, -d.exponent);
}

/* One correctly rounded operation where both sides are exact. */
double decimal_nearest(struct decimal d)
{
    if (d.mantissa >= -(INT64_C(1) << 53) && d.mantissa <= INT64_C(1) << 53) {
        return decimal_to_double(d);
    }
    char text[40];
    snprintf(text, sizeof text, "%llde%d", (long long)d.mantissa, d.exponent);
    return strtod(text, NULL);
}

/* Multiplies the mantissa until the exponent has come down to `exponent`. */
static int lower_exponent(struct decimal *d, int exponent)
{
    while (d->exponent > exponent) {
        if (__builtin_mul_overflow(d->mantissa, (int64_t)10, &d->mantissa)) {
            return -ERANGE;
        }
        d->exponent--;
    }
    return 0;
}

int decimal_scale(struct decimal raw, struct decimal scale, struct decimal offset,
                  struct decimal *ret_decimal)
{
    struct decimal d;
    if (__builtin_mul_overflow(raw.mantissa, scale.mantissa, &d.mantissa)) {
        return -ERANGE;
    }
    int exponent = raw.exponent + scale.exponent;
    if (exponent < DECIMAL_EXPONENT_MIN || exponent > DECIMAL_EXPONENT_MAX) {
        return -ERANGE;
    }
    d.exponent = (int8_t)exponent;
    if (offset.mantissa != 0) {
        if (lower_exponent(&d, offset.exponent) < 0 || lower_exponent(&offset, d.exponent) < 0 ||
            __builtin_add_overflow(d.mantissa, offset.mantissa, &d.mantissa)) {
            return -ERANGE;
        }
    }
    *ret_decimal = d;
    return 0;
}

void decimal_write(struct buffer *b, struct decimal d)
{
    char text[48]; /* sign, 19 digits, 18 zeros, point, leading zero */
    char *at = text + sizeof text;
    bool negative = d.mantissa < 0;
    uint64_t m = negative ? 0 - (uint64_t)d.mantissa : (uint64_t)d.mantissa;
    int exponent = m == 0 ? 0 : d.exponent;
    if (exponent < DECIMAL_EXPONENT_MIN || exponent > DECIMAL_EXPONENT_MAX) {
        decimal_write_double(b, decimal_to_double(d));
        return;
    }
    for (; exponent < 0 && m % 10 == 0; exponent++) {
        m /= 10;
    }
    for (int zeros = exponent; zeros > 0; zeros--) {
        *--at = '0';
    }
    if (exponent < 0) {
        for (; exponent < 0; exponent++) {
            *--at = (char)('0' + m % 10);
            m /= 10;
        }
        *--at = '.';
    }
    do {
        *--at = (char)('0' + m % 10);
        m /= 10;
    } while (m != 0);
    if (negative) {
        *--at = '-';
    }
    buffer_add(b, at, (size_t)(text + sizeof text - at));
}

static void write_shortest(struct buffer *b, double value, int from, int to, bool single)
{
    if (!isfinite(value)) {
        buffer_add_text(b, "null");
        return;
    }
    char text[40];
    for (int precision = from; precision <= to; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, value);
        if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value) {
            break;
        }
    }
    buffer_add_text(b, text);
}

void decimal_write_double(struct buffer *b, double value)
{
    write_shortest(b, value, 15, 17, false);
}

void decimal_write_float(struct buffer *b, double value)
{
    write_shortest(b, value, 6, 9, true);
}

size_t utf8_length(const uint8_t *at, size_t left)
{
    uint8_t c = at[0];
    size_t n = c < 0x80                ? 1
               : c >= 0xc2 && c < 0xe0 ? 2
               : (c & 0xf0) == 0xe0    ? 3
               : c >= 0xf0 && c < 0xf5 ? 4
                                       : 0;
    if (n == 0 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool bad = (c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) ||
               (c == 0xf0 && at[1] < 0x90) || (c == 0xf4 && at[1] > 0x8f);
    return bad ? 0 : n;
}

void json_write_string(struct buffer *b, const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + len;
    buffer_add_byte(b, '"');
    while (at < end) {
        size_t n = utf8_length(at, (size_t)(end - at));
        if (n == 0) {
            buffer_add_text(b, "\xef\xbf\xbd");
            at++;
        } else if (*at == '"' || *at == '\\') {
            buffer_add_byte(b, '\\');
            buffer_add_byte(b, *at++);
        } else if (*at < 0x20) {
            buffer_printf(b, "\\u%04x", *at++);
        } else {
            buffer_add(b, at, n);
            at += n;
        }
    }
    buffer_add_byte(b, '"');
}
