#include "drivers/modbus/show.h"

#include "drivers/modbus/mbap.h"

#include <math.h>

enum { ORDERS = 4 };

json_t *show_words(const uint8_t *data, unsigned registers)
{
    json_t *words = json_array();
    for (unsigned i = 0; i < registers && words != NULL; i++) {
        json_array_append_new(words, json_sprintf("0x%04x", mbap_get16(data + 2 * (size_t)i)));
    }
    return words;
}

json_t *show_reading(const struct reading *reading, const char *text)
{
    switch ((enum value_kind)reading->kind) {
    case VALUE_DECIMAL:
        return json_integer(reading->integer);
    case VALUE_REAL:
        return isfinite(reading->real) ? json_real(reading->real) : json_null();
    case VALUE_FLOAT: {
        /* The digits that a float has, not those of the double it is held in. */
        char digits[32];
        snprintf(digits, sizeof(digits), "%.9g", reading->real);
        for (int precision = 6; precision < 9; precision++) {
            char fewer[32];
            snprintf(fewer, sizeof(fewer), "%.*g", precision, reading->real);
            if (strtof(fewer, NULL) == (float)reading->real) {
                snprintf(digits, sizeof(digits), "%s", fewer);
                break;
            }
        }
        return isfinite(reading->real) ? json_real(strtod(digits, NULL)) : json_null();
    }
    case VALUE_BOOL:
        return json_boolean(reading->integer != 0);
    case VALUE_TEXT:
        return json_stringn(text, reading->text.len);
    default:
        return json_null();
    }
}

static json_t *decode_as(const uint8_t *data, enum registers_type type, unsigned order)
{
    char text[REGISTERS_TEXT_MAX];
    struct reading reading = {0};
    const struct registers_point point = {
        .type = (uint8_t)type,
        .order = (uint8_t)order,
        .width = registers_width((uint8_t)type, 0),
    };
    registers_decode(&point, data, &reading, text);
    return show_reading(&reading, text);
}

static void add_orders(json_t *object, const uint8_t *data, enum registers_type type)
{
    json_t *by_order = json_object();
    for (unsigned order = 0; order < ORDERS; order++) {
        json_object_set_new(by_order, registers_order_name(order), decode_as(data, type, order));
    }
    json_object_set_new(object, registers_type_name(type), by_order);
}

json_t *show_decodings(const uint8_t *data, unsigned registers)
{
    static const enum registers_type by_width[][3] = {
        [1] = {REGISTERS_INT16, REGISTERS_UINT16, REGISTERS_BCD16},
        [2] = {REGISTERS_INT32, REGISTERS_UINT32, REGISTERS_FLOAT32},
        [4] = {REGISTERS_INT64, REGISTERS_UINT64, REGISTERS_FLOAT64},
    };
    json_t *object = json_object();
    if (object == NULL || registers == 0 || registers == 3 || registers > 4) {
        return object;
    }
    for (size_t i = 0; i < ARRAY_SIZE(by_width[0]); i++) {
        add_orders(object, data, by_width[registers][i]);
    }
    return object;
}
