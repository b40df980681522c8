#include "drivers/modbus/registers.h"

#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    uint8_t width; /* 0: of its own */
} types[REGISTERS_TYPES] = {
    [REGISTERS_INT16] = {"int16", 1},     [REGISTERS_UINT16] = {"uint16", 1},
    [REGISTERS_INT32] = {"int32", 2},     [REGISTERS_UINT32] = {"uint32", 2},
    [REGISTERS_INT64] = {"int64", 4},     [REGISTERS_UINT64] = {"uint64", 4},
    [REGISTERS_FLOAT32] = {"float32", 2}, [REGISTERS_FLOAT64] = {"float64", 4},
    [REGISTERS_BCD16] = {"bcd16", 1},     [REGISTERS_BCD32] = {"bcd32", 2},
    [REGISTERS_STRING] = {"string", 0},   [REGISTERS_BIT] = {"bit", 1},
};
static const char *const tables[REGISTERS_TABLES] = {"holding", "input", "coil", "discrete"};
static const char *const orders[] = {"ABCD", "CDAB", "BADC", "DCBA"};

const char *registers_table_name(unsigned table)
{
    return table < REGISTERS_TABLES ? tables[table] : "?";
}

const char *registers_type_name(unsigned type)
{
    return type < REGISTERS_TYPES ? types[type].name : "?";
}

const char *registers_order_name(unsigned order)
{
    return order < ARRAY_SIZE(orders) ? orders[order] : "?";
}

int registers_parse_table(const char *word, uint8_t *ret_table)
{
    for (unsigned i = 0; i < REGISTERS_TABLES; i++) {
        if (strcmp(word, tables[i]) == 0) {
            *ret_table = (uint8_t)i;
            return 0;
        }
    }
    return -EINVAL;
}

int registers_parse_order(const char *word, uint8_t *ret_order)
{
    for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
        if (strcasecmp(word, orders[i]) == 0) {
            *ret_order = (uint8_t)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* The N of "string:N" or "bit:N". */
static int parse_detail(unsigned type, const char *digits, uint16_t *ret_detail)
{
    unsigned long min = type == REGISTERS_STRING ? 1 : 0;
    unsigned long max = type == REGISTERS_STRING ? REGISTERS_TEXT_MAX : 15;
    if (digits[0] < '0' || digits[0] > '9') {
        return -EINVAL;
    }
    char *end = NULL;
    errno = 0;
    unsigned long n = strtoul(digits, &end, 10);
    if (errno != 0 || *end != '\0' || n < min || n > max) {
        return -EINVAL;
    }
    *ret_detail = (uint16_t)n;
    return 0;
}

int registers_parse_type(const char *word, uint8_t *ret_type, uint16_t *ret_detail)
{
    size_t len = strcspn(word, ":");
    for (unsigned i = 0; i < REGISTERS_TYPES; i++) {
        if (strncmp(word, types[i].name, len) != 0 || types[i].name[len] != '\0') {
            continue;
        }
        uint16_t detail = 0;
        bool wants_detail = i == REGISTERS_STRING || i == REGISTERS_BIT;
        if (wants_detail != (word[len] == ':') ||
            (wants_detail && parse_detail(i, word + len + 1, &detail) != 0)) {
            return -EINVAL;
        }
        *ret_type = (uint8_t)i;
        *ret_detail = detail;
        return 0;
    }
    return -EINVAL;
}

uint8_t registers_read_function(unsigned table)
{
    static const uint8_t functions[REGISTERS_TABLES] = {
        [REGISTERS_HOLDING] = MBAP_READ_HOLDING,
        [REGISTERS_INPUT] = MBAP_READ_INPUT,
        [REGISTERS_COIL] = MBAP_READ_COILS,
        [REGISTERS_DISCRETE] = MBAP_READ_DISCRETES,
    };
    return table < REGISTERS_TABLES ? functions[table] : 0;
}

uint16_t registers_width(uint8_t type, uint16_t detail)
{
    if (type == REGISTERS_STRING) {
        return (uint16_t)((detail + 1U) / 2U);
    }
    return type < REGISTERS_TYPES ? types[type].width : 0;
}

uint64_t registers_raw(const uint8_t *data, unsigned width, unsigned order)
{
    uint64_t raw = 0;
    for (unsigned i = 0; i < width; i++) {
        const uint8_t *word = data + 2 * ((order & 1) != 0 ? width - 1 - i : i);
        unsigned high = word[(order & 2) != 0], low = word[(order & 2) == 0];
        raw = raw << 16 | high << 8 | low;
    }
    return raw;
}

static void put_raw(uint8_t *data, unsigned width, unsigned order, uint64_t raw)
{
    for (unsigned i = width; i-- > 0; raw >>= 16) {
        uint8_t *word = data + 2 * ((order & 1) != 0 ? width - 1 - i : i);
        word[(order & 2) != 0] = (uint8_t)(raw >> 8);
        word[(order & 2) == 0] = (uint8_t)raw;
    }
}

static void set_bad(struct reading *reading, enum quality quality)
{
    reading->kind = VALUE_NULL;
    reading->quality = (uint8_t)quality;
    reading->integer = 0;
}

static void set_integer(struct reading *reading, int64_t value)
{
    reading->kind = VALUE_DECIMAL;
    reading->integer = value;
}

static void set_real(struct reading *reading, enum value_kind kind, double value)
{
    if (isnan(value)) {
        set_bad(reading, QUALITY_BAD_INVALID);
        return;
    }
    reading->kind = (uint8_t)kind;
    reading->real = value;
}

static void set_bcd(struct reading *reading, uint64_t raw, unsigned digits)
{
    int64_t value = 0;
    for (unsigned i = digits; i-- > 0;) {
        unsigned digit = (unsigned)(raw >> (4 * i)) & 15;
        if (digit > 9) {
            set_bad(reading, QUALITY_BAD_TYPE);
            return;
        }
        value = value * 10 + digit;
    }
    set_integer(reading, value);
}

static double float32_of(uint64_t raw)
{
    uint32_t bits = (uint32_t)raw;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return (double)value;
}

static double float64_of(uint64_t raw)
{
    double value;
    memcpy(&value, &raw, sizeof(value));
    return value;
}

/* The length of the UTF-8 sequence at text (RFC 3629), 0 when there is none. */
static size_t utf8_sequence(const uint8_t *text, size_t len)
{
    if (text[0] < 0x80) {
        return 1;
    }
    size_t n = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4 || n > len) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    bool outside = (text[0] == 0xed && text[1] > 0x9f) || (text[0] == 0xf4 && text[1] > 0x8f);
    return overlong || outside ? 0 : n;
}

static bool is_utf8(const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text;
    for (size_t n; len > 0; at += n, len -= n) {
        n = utf8_sequence(at, len);
        if (n == 0) {
            return false;
        }
    }
    return true;
}

static void decode_string(const struct registers_point *point, const uint8_t *data,
                          struct reading *reading, char text[REGISTERS_TEXT_MAX])
{
    size_t swap = (point->order & 2) != 0 ? 1 : 0;
    size_t len = 0;
    while (len < point->detail && data[len ^ swap] != 0) {
        text[len] = (char)data[len ^ swap];
        len++;
    }
    while (len > 0 && text[len - 1] == ' ') {
        len--;
    }
    if (!is_utf8(text, len)) {
        set_bad(reading, QUALITY_BAD_TYPE);
        return;
    }
    reading->kind = VALUE_TEXT;
    reading->text.offset = 0;
    reading->text.len = (uint32_t)len;
}

static bool is_invalid(const struct registers_point *point, unsigned width, uint64_t raw)
{
    unsigned bits = 16U * width;
    if (point->top_bit_invalid && bits > 0 && (raw >> (bits - 1) & 1) != 0) {
        return true;
    }
    uint64_t mask = bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    return point->has_invalid && raw == (point->invalid & mask);
}

static void decode_raw(const struct registers_point *point, uint64_t raw, struct reading *reading)
{
    switch ((enum registers_type)point->type) {
    case REGISTERS_INT16:
        set_integer(reading, (int16_t)raw);
        break;
    case REGISTERS_INT32:
        set_integer(reading, (int32_t)raw);
        break;
    case REGISTERS_UINT16:
    case REGISTERS_UINT32:
    case REGISTERS_INT64:
        set_integer(reading, (int64_t)raw);
        break;
    case REGISTERS_UINT64:
        if (raw > INT64_MAX) {
            set_bad(reading, QUALITY_BAD_RANGE);
        } else {
            set_integer(reading, (int64_t)raw);
        }
        break;
    case REGISTERS_FLOAT32:
        set_real(reading, VALUE_FLOAT, float32_of(raw));
        break;
    case REGISTERS_FLOAT64:
        set_real(reading, VALUE_REAL, float64_of(raw));
        break;
    case REGISTERS_BCD16:
    case REGISTERS_BCD32:
        set_bcd(reading, raw, point->type == REGISTERS_BCD16 ? 4 : 8);
        break;
    default: /* REGISTERS_BIT; strings do not come here */
        reading->kind = VALUE_BOOL;
        reading->integer = (int64_t)(raw >> point->detail & 1);
        break;
    }
}

/* A SunSpec scale factor; false when the device has none. */
static bool take_scale(const uint8_t *data, struct reading *reading)
{
    int scale = (int16_t)registers_raw(data, 1, REGISTERS_ABCD);
    if (scale < -10 || scale > 10) {
        return false;
    }
    reading->exponent = (int8_t)scale;
    return true;
}

void registers_decode(const struct registers_point *point, const uint8_t *data,
                      struct reading *ret_reading, char text[REGISTERS_TEXT_MAX])
{
    unsigned width = registers_width(point->type, point->detail);
    ret_reading->quality = QUALITY_GOOD;
    ret_reading->exponent = point->exponent;
    if (point->has_scale && !take_scale(data + 2 * (size_t)point->scale_at, ret_reading)) {
        set_bad(ret_reading, QUALITY_BAD_INVALID);
        return;
    }
    data += 2 * (size_t)point->value_at;
    if (point->type == REGISTERS_STRING) {
        decode_string(point, data, ret_reading, text);
        return;
    }
    uint64_t raw = registers_raw(data, width, point->order);
    if (is_invalid(point, width, raw)) {
        set_bad(ret_reading, QUALITY_BAD_INVALID);
        return;
    }
    decode_raw(point, raw, ret_reading);
}

void registers_decode_bit(const uint8_t *data, unsigned index, struct reading *ret_reading)
{
    ret_reading->kind = VALUE_BOOL;
    ret_reading->quality = QUALITY_GOOD;
    ret_reading->exponent = 0;
    ret_reading->integer = data[index / 8] >> (index % 8) & 1;
}

static int encode_integer(const struct registers_point *point, int64_t value, uint64_t *ret_raw)
{
    static const struct {
        int64_t min, max;
    } bounds[REGISTERS_TYPES] = {
        [REGISTERS_INT16] = {INT16_MIN, INT16_MAX},
        [REGISTERS_UINT16] = {0, UINT16_MAX},
        [REGISTERS_INT32] = {INT32_MIN, INT32_MAX},
        [REGISTERS_UINT32] = {0, UINT32_MAX},
        [REGISTERS_INT64] = {INT64_MIN, INT64_MAX},
        [REGISTERS_UINT64] = {0, INT64_MAX},
        [REGISTERS_BCD16] = {0, 9999},
        [REGISTERS_BCD32] = {0, 99999999},
    };
    if (value < bounds[point->type].min || value > bounds[point->type].max) {
        return -ERANGE;
    }
    uint64_t raw = (uint64_t)value;
    if (point->type == REGISTERS_BCD16 || point->type == REGISTERS_BCD32) {
        raw = 0;
        for (unsigned shift = 0; value > 0; shift += 4, value /= 10) {
            raw |= (uint64_t)(value % 10) << shift;
        }
    }
    *ret_raw = raw;
    return 0;
}

static int encode_real(const struct registers_point *point, double value, uint64_t *ret_raw)
{
    if (point->type == REGISTERS_FLOAT64) {
        memcpy(ret_raw, &value, sizeof(value));
        return 0;
    }
    float narrow = (float)value;
    if (isinf(narrow) && !isinf(value)) {
        return -ERANGE;
    }
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof(bits));
    *ret_raw = bits;
    return 0;
}

static int encode_string(const struct registers_point *point, const struct reading *value,
                         const char *text, uint8_t *data)
{
    if (value->kind != VALUE_TEXT) {
        return -EINVAL;
    }
    if (value->text.len > point->detail) {
        return -ERANGE;
    }
    size_t swap = (point->order & 2) != 0 ? 1 : 0;
    memset(data, 0, 2 * (size_t)point->width);
    for (size_t i = 0; i < value->text.len; i++) {
        data[i ^ swap] = (uint8_t)text[i];
    }
    return 0;
}

int registers_encode(const struct registers_point *point, const struct reading *value,
                     const char *text, uint8_t *data)
{
    uint64_t raw = 0;
    int r = -EINVAL;
    if (point->type == REGISTERS_STRING) {
        return encode_string(point, value, text, data);
    }
    if (point->type == REGISTERS_FLOAT32 || point->type == REGISTERS_FLOAT64) {
        bool real = value->kind == VALUE_REAL || value->kind == VALUE_FLOAT;
        bool whole = value->kind == VALUE_DECIMAL && value->exponent == 0;
        r = real || whole ? encode_real(point, reading_double(value), &raw) : -EINVAL;
    } else if (point->type == REGISTERS_BIT) {
        uint64_t bit = (uint64_t)1 << point->detail;
        raw = registers_raw(data, 1, point->order);
        raw = value->integer != 0 ? raw | bit : raw & ~bit;
        r = value->kind == VALUE_BOOL ? 0 : -EINVAL;
    } else if (value->kind == VALUE_DECIMAL && value->exponent == 0) {
        r = encode_integer(point, value->integer, &raw);
    }
    if (r == 0) {
        put_raw(data, point->width, point->order, raw);
    }
    return r;
}
