/* registers.h - what the 16-bit registers and bits of a Modbus map mean.
 *
 * Pure, any thread. Data is as on the wire: registers big-endian one after another, bits packed
 * from the least significant up. Orders are named by where the bytes of a big-endian 32-bit value
 * stand; for 64 bits they are ABCDEFGH, GHEFCDAB, BADCFEHG and HGFEDCBA. BADC and DCBA also swap
 * the bytes of 16-bit types, bits and strings; strings never have their registers reversed. */
#pragma once

#include "gateway/base/scan.h"

enum registers_table {
    REGISTERS_HOLDING,
    REGISTERS_INPUT,
    REGISTERS_COIL,
    REGISTERS_DISCRETE,
    REGISTERS_TABLES
};

enum registers_type {
    REGISTERS_INT16,
    REGISTERS_UINT16,
    REGISTERS_INT32,
    REGISTERS_UINT32,
    REGISTERS_INT64,
    REGISTERS_UINT64,
    REGISTERS_FLOAT32,
    REGISTERS_FLOAT64,
    REGISTERS_BCD16,
    REGISTERS_BCD32,
    REGISTERS_STRING, /* string:N, N bytes in (N + 1) / 2 registers */
    REGISTERS_BIT,    /* bit:N of a register, 0 the least significant; or a coil, a discrete */
    REGISTERS_TYPES
};

enum registers_order { /* bit 0: words reversed, bit 1: bytes of each word swapped */
                       REGISTERS_ABCD = 0,
                       REGISTERS_CDAB = 1,
                       REGISTERS_BADC = 2,
                       REGISTERS_DCBA = 3
};

enum { REGISTERS_TEXT_MAX = 250 }; /* bytes: 125 registers */

/* One point of a map. */
struct registers_point {
    uint8_t table, type, order;
    bool has_invalid;
    uint16_t first;   /* as on the wire, from 0 */
    uint16_t width;   /* registers; 1 of a coil or discrete; 0: not known where it is */
    uint16_t detail;  /* N of string:N and bit:N */
    uint64_t invalid; /* raw pattern that means "not available", compared at the type's width */

    /* Of a point in a SunSpec model, which is a span of value and scale factor; else 0. */
    uint16_t model; /* then `first` counts from the model's id, until it is placed */
    uint8_t instance;
    uint8_t value_at; /* registers from first */
    uint8_t scale_at; /* of a sunssf: int16, -10 to 10, 0x8000 when there is none */
    bool has_scale, top_bit_invalid;
    int8_t exponent; /* of ten, fixed by the model */
};

static inline bool registers_table_has_bits(uint8_t table)
{
    return table == REGISTERS_COIL || table == REGISTERS_DISCRETE;
}

/* "holding", "float32", "CDAB"; and back, -EINVAL for an unknown word. A type's word may carry
 * ":N", which goes to ret_detail. */
const char *registers_table_name(unsigned table);
const char *registers_type_name(unsigned type);
const char *registers_order_name(unsigned order);
must_check int registers_parse_table(const char *word, uint8_t *ret_table);
must_check int registers_parse_type(const char *word, uint8_t *ret_type, uint16_t *ret_detail);
must_check int registers_parse_order(const char *word, uint8_t *ret_order);

/* The read function of a table (enum mbap_function). */
uint8_t registers_read_function(unsigned table);

/* How many registers the type takes. */
uint16_t registers_width(uint8_t type, uint16_t detail);

/* The raw pattern of a type of up to four registers, its bytes put in order. */
uint64_t registers_raw(const uint8_t *data, unsigned width, unsigned order);

/* Decodes a point of a register table whose first register stands at data. Sets kind, quality and
 * value of ret_reading. Integers, BCD included, are VALUE_DECIMAL with exponent 0, unscaled; a
 * uint64 above INT64_MAX is bad:range, NaN and the `invalid` pattern bad:invalid, a BCD digit above
 * 9 or a string that is not UTF-8 bad:type. A string ends at its first NUL and loses trailing
 * blanks; it goes to text, with its length in ret_reading->text.len. A scale factor becomes the
 * exponent of the reading; without it the value means nothing and is bad:invalid. */
void registers_decode(const struct registers_point *point, const uint8_t *data,
                      struct reading *ret_reading, char text[REGISTERS_TEXT_MAX]);

/* The same for bit number `index` of a coil or discrete reply. */
void registers_decode_bit(const uint8_t *data, unsigned index, struct reading *ret_reading);

/* The other way round: value (VALUE_DECIMAL with exponent 0, VALUE_FLOAT, VALUE_REAL, VALUE_BOOL,
 * or VALUE_TEXT at text) to the point's registers. For a bit the register's present content must
 * stand in data. -ERANGE when the type does not hold the value, -EINVAL for the wrong kind. */
must_check int registers_encode(const struct registers_point *point, const struct reading *value,
                                const char *text, uint8_t *data);
