/* Every type, order and sentinel of the contract, both ways. */
#include "drivers/modbus/registers.h"
#include "drivers/modbus/settings.h"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static struct registers_point point_of(const char *type, const char *order)
{
    struct registers_point point = {0};
    assert_int_equal(registers_parse_type(type, &point.type, &point.detail), 0);
    assert_int_equal(registers_parse_order(order, &point.order), 0);
    point.width = registers_width(point.type, point.detail);
    return point;
}

static struct reading decode(const struct registers_point *point, const void *data, char *text)
{
    struct reading reading;
    memset(&reading, 0x5a, sizeof(reading));
    char own[REGISTERS_TEXT_MAX];
    registers_decode(point, data, &reading, text != NULL ? text : own);
    return reading;
}

static void assert_integer(const char *type, const char *order, const void *data, int64_t value)
{
    struct registers_point point = point_of(type, order);
    struct reading reading = decode(&point, data, NULL);
    assert_int_equal(reading.kind, VALUE_DECIMAL);
    assert_int_equal(reading.quality, QUALITY_GOOD);
    assert_int_equal(reading.exponent, 0);
    assert_true(reading.integer == value);
    uint8_t back[8] = {0};
    assert_int_equal(registers_encode(&point, &reading, NULL, back), 0);
    assert_memory_equal(back, data, 2 * (size_t)point.width);
}

static void test_integers_in_every_order(void **state)
{
    (void)state;
    assert_integer("int16", "ABCD", "\xff\xfe", -2);
    assert_integer("uint16", "ABCD", "\xff\xfe", 65534);
    assert_integer("int16", "CDAB", "\xff\xfe", -2);
    assert_integer("int16", "BADC", "\xfe\xff", -2);
    assert_integer("uint16", "DCBA", "\x34\x12", 0x1234);
    const char *bytes32[] = {"\x12\x34\x56\x78", "\x56\x78\x12\x34", "\x34\x12\x78\x56",
                             "\x78\x56\x34\x12"};
    const char *bytes64[] = {"\x11\x22\x33\x44\x55\x66\x77\x88", "\x77\x88\x55\x66\x33\x44\x11\x22",
                             "\x22\x11\x44\x33\x66\x55\x88\x77",
                             "\x88\x77\x66\x55\x44\x33\x22\x11"};
    for (unsigned order = 0; order < 4; order++) {
        const char *name = registers_order_name(order);
        assert_integer("uint32", name, bytes32[order], 0x12345678);
        assert_integer("int32", name, bytes32[order], 0x12345678);
        assert_integer("int64", name, bytes64[order], 0x1122334455667788);
        assert_integer("uint64", name, bytes64[order], 0x1122334455667788);
    }
    assert_integer("int32", "ABCD", "\x80\x00\x00\x00", INT32_MIN);
    assert_integer("uint32", "ABCD", "\xff\xff\xff\xff", UINT32_MAX);
    assert_integer("int64", "ABCD", "\x80\x00\x00\x00\x00\x00\x00\x00", INT64_MIN);
}

static void test_uint64_beyond_the_exact_is_bad(void **state)
{
    (void)state;
    struct registers_point point = point_of("uint64", "ABCD");
    struct reading reading = decode(&point, "\x80\x00\x00\x00\x00\x00\x00\x00", NULL);
    assert_int_equal(reading.kind, VALUE_NULL);
    assert_int_equal(reading.quality, QUALITY_BAD_RANGE);
}

static void test_floats_in_every_order(void **state)
{
    (void)state;
    const char *f32[] = {"\x41\x48\x00\x01", "\x00\x01\x41\x48", "\x48\x41\x01\x00",
                         "\x01\x00\x48\x41"};
    const char *f64[] = {"\xc0\x29\x00\x00\x00\x00\x00\x01", "\x00\x01\x00\x00\x00\x00\xc0\x29",
                         "\x29\xc0\x00\x00\x00\x00\x01\x00", "\x01\x00\x00\x00\x00\x00\x29\xc0"};
    for (unsigned order = 0; order < 4; order++) {
        uint8_t back[8];
        struct registers_point point = point_of("float32", registers_order_name(order));
        struct reading reading = decode(&point, f32[order], NULL);
        assert_int_equal(reading.kind, VALUE_FLOAT);
        assert_true(fabs(reading.real - 12.50000095367431640625) < 1e-15);
        assert_int_equal(registers_encode(&point, &reading, NULL, back), 0);
        assert_memory_equal(back, f32[order], 4);
        point = point_of("float64", registers_order_name(order));
        reading = decode(&point, f64[order], NULL);
        assert_int_equal(reading.kind, VALUE_REAL);
        assert_true(fabs(reading.real + 12.5) < 1e-12);
        assert_int_equal(registers_encode(&point, &reading, NULL, back), 0);
        assert_memory_equal(back, f64[order], 8);
    }
}

static void test_nan_is_invalid_and_infinity_is_not(void **state)
{
    (void)state;
    struct registers_point point = point_of("float32", "ABCD");
    struct reading reading = decode(&point, "\x7f\xc0\x00\x00", NULL);
    assert_int_equal(reading.kind, VALUE_NULL);
    assert_int_equal(reading.quality, QUALITY_BAD_INVALID);
    reading = decode(&point, "\x7f\x80\x00\x00", NULL);
    assert_int_equal(reading.kind, VALUE_FLOAT);
    point = point_of("float64", "ABCD");
    reading = decode(&point, "\x7f\xf8\x00\x00\x00\x00\x00\x00", NULL);
    assert_int_equal(reading.quality, QUALITY_BAD_INVALID);
}

static void test_sentinels_compare_raw_patterns_at_the_width(void **state)
{
    (void)state;
    const struct {
        const char *type, *order, *data;
        uint64_t invalid;
    } cases[] = {
        {"int16", "ABCD", "\x80\x00", 0x8000},             /* SunSpec */
        {"int16", "ABCD", "\x80\x00", (uint64_t)-32768},   /* the same, said as a number */
        {"uint16", "ABCD", "\xff\xff", 0xffff},            /* SunSpec, Lufft */
        {"int16", "ABCD", "\x7f\xff", 32767},              /* Vaisala WXT */
        {"int16", "ABCD", "\xd8\xf1", 0xd8f1},             /* Lambrecht */
        {"int32", "ABCD", "\x80\x00\x00\x00", 0x80000000}, /* demo-turbine */
        {"uint32", "CDAB", "\xff\xff\xff\xff", 0xffffffff},
        {"int32", "CDAB", "\x00\x00\x80\x00", 0x80000000},
        {"float32", "ABCD", "\xff\x7f\xff\xff", 0xff7fffff},
        {"uint64", "ABCD", "\xff\xff\xff\xff\xff\xff\xff\xff", UINT64_MAX},
        {"bcd16", "ABCD", "\xff\xff", 0xffff},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct registers_point point = point_of(cases[i].type, cases[i].order);
        point.has_invalid = true;
        point.invalid = cases[i].invalid;
        struct reading reading = decode(&point, cases[i].data, NULL);
        assert_int_equal(reading.kind, VALUE_NULL);
        assert_int_equal(reading.quality, QUALITY_BAD_INVALID);
        point.has_invalid = false;
        reading = decode(&point, cases[i].data, NULL);
        assert_int_not_equal(reading.quality, QUALITY_BAD_INVALID);
    }
    struct registers_point wide = point_of("int32", "ABCD");
    wide.has_invalid = true;
    wide.invalid = 0x8000; /* not the pattern of a 32-bit point */
    struct reading reading = decode(&wide, "\xff\xff\x80\x00", NULL);
    assert_int_equal(reading.integer, -32768);
}

static void test_bcd(void **state)
{
    (void)state;
    assert_integer("bcd16", "ABCD", "\x12\x34", 1234);
    assert_integer("bcd32", "ABCD", "\x12\x34\x56\x78", 12345678);
    assert_integer("bcd32", "CDAB", "\x56\x78\x12\x34", 12345678);
    struct registers_point point = point_of("bcd16", "ABCD");
    assert_int_equal(decode(&point, "\x12\x3a", NULL).quality, QUALITY_BAD_TYPE);
}

static void assert_text(const char *type, const char *order, const char *data, const char *expected)
{
    char text[REGISTERS_TEXT_MAX];
    struct registers_point point = point_of(type, order);
    struct reading reading = decode(&point, data, text);
    assert_int_equal(reading.kind, VALUE_TEXT);
    assert_int_equal(reading.text.len, strlen(expected));
    assert_memory_equal(text, expected, strlen(expected));
    uint8_t back[REGISTERS_TEXT_MAX];
    assert_int_equal(registers_encode(&point, &reading, text, back), 0);
    struct reading again = decode(&point, back, text);
    assert_int_equal(again.text.len, strlen(expected));
    assert_memory_equal(text, expected, strlen(expected));
}

static void test_strings(void **state)
{
    (void)state;
    assert_text("string:4", "ABCD", "Wind", "Wind");
    assert_text("string:4", "CDAB", "Wind", "Wind");
    assert_text("string:4", "BADC", "iWdn", "Wind");
    assert_text("string:3", "DCBA", "iW\0n", "Win");
    assert_text("string:8", "ABCD", "ab  \0\0xy", "ab");
    assert_text("string:4", "ABCD", "\0\0\0\0", "");
    assert_text("string:4", "ABCD",
                "\xc2\xb0"
                "C ",
                "\xc2\xb0"
                "C");
    const char *bad[] = {"\xb0"
                         "C\0\0",
                         "\xc2\0\0\0",
                         "\xed\xa0\x80\0",
                         "\xf8\x88\x80\x80",
                         "\xe0\x80\xaf\0",
                         "ab\xf0\x9f"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct registers_point point = point_of("string:4", "ABCD");
        assert_int_equal(decode(&point, bad[i], NULL).quality, QUALITY_BAD_TYPE);
    }
}

static void test_bits(void **state)
{
    (void)state;
    struct reading reading;
    for (unsigned n = 0; n < 16; n++) {
        char type[8];
        snprintf(type, sizeof(type), "bit:%u", n);
        struct registers_point point = point_of(type, "ABCD");
        reading = decode(&point, "\x80\x01", NULL);
        assert_int_equal(reading.kind, VALUE_BOOL);
        assert_int_equal(reading.integer, n == 0 || n == 15);
        uint8_t back[2] = {0x80, 0x01};
        reading.integer = !reading.integer;
        assert_int_equal(registers_encode(&point, &reading, NULL, back), 0);
        assert_int_equal(back[0] << 8 | back[1], 0x8001 ^ 1 << n);
    }
    const uint8_t packed[] = {0x01, 0x80};
    registers_decode_bit(packed, 0, &reading);
    assert_int_equal(reading.integer, 1);
    registers_decode_bit(packed, 15, &reading);
    assert_int_equal(reading.integer, 1);
    registers_decode_bit(packed, 7, &reading);
    assert_int_equal(reading.integer, 0);
    assert_int_equal(reading.quality, QUALITY_GOOD);
}

static void test_encoding_keeps_the_range(void **state)
{
    (void)state;
    const struct {
        const char *type;
        int64_t least, most;
    } cases[] = {{"int16", -32768, 32767},  {"uint16", 0, 65535}, {"int32", INT32_MIN, INT32_MAX},
                 {"uint32", 0, UINT32_MAX}, {"bcd16", 0, 9999},   {"bcd32", 0, 99999999}};
    uint8_t data[8];
    struct reading value = {.kind = VALUE_DECIMAL};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct registers_point point = point_of(cases[i].type, "ABCD");
        value.integer = cases[i].most;
        assert_int_equal(registers_encode(&point, &value, NULL, data), 0);
        value.integer++;
        assert_int_equal(registers_encode(&point, &value, NULL, data), -ERANGE);
        value.integer = cases[i].least - 1;
        assert_int_equal(registers_encode(&point, &value, NULL, data), -ERANGE);
    }
    struct registers_point point = point_of("float32", "ABCD");
    value = (struct reading){.kind = VALUE_REAL, .real = 1e39};
    assert_int_equal(registers_encode(&point, &value, NULL, data), -ERANGE);
    value = (struct reading){.kind = VALUE_TEXT};
    assert_int_equal(registers_encode(&point, &value, "", data), -EINVAL);
    point = point_of("string:2", "ABCD");
    value.text.len = 3;
    assert_int_equal(registers_encode(&point, &value, "abc", data), -ERANGE);
}

static void test_words_of_points(void **state)
{
    (void)state;
    const struct {
        const char *source, *order;
        int64_t base;
        int first; /* -1: refused */
        unsigned type;
    } cases[] = {
        {"holding 0 uint16", NULL, 0, 0, REGISTERS_UINT16},
        {"holding 1 uint16", NULL, 1, 0, REGISTERS_UINT16},
        {"input 0x0BB7 float32", "cdab", 0, 0x0bb7, REGISTERS_FLOAT32},
        {"  holding\t7   string:20 ", NULL, 0, 7, REGISTERS_STRING},
        {"coil 65535", NULL, 0, 65535, REGISTERS_BIT},
        {"holding 65535 uint16", NULL, 0, 65535, REGISTERS_UINT16},
        {"holding 65536 uint16", NULL, 1, 65535, REGISTERS_UINT16},
        {"holding 65535 int32", NULL, 0, -1, 0},
        {"holding 65536 uint16", NULL, 0, -1, 0},
        {"holding 0 uint16", NULL, 1, -1, 0},
        {"holding -1 uint16", NULL, 0, -1, 0},
        {"holding 1x uint16", NULL, 0, -1, 0},
        {"holding 1", NULL, 0, -1, 0},
        {"holding 1 uint17", NULL, 0, -1, 0},
        {"holding 1 uint16 more", NULL, 0, -1, 0},
        {"coil 1 uint16", NULL, 0, -1, 0},
        {"holdings 1 uint16", NULL, 0, -1, 0},
        {"", NULL, 0, -1, 0},
        {"holding 1 bit:16", NULL, 0, -1, 0},
        {"holding 1 bit", NULL, 0, -1, 0},
        {"holding 1 string:0", NULL, 0, -1, 0},
        {"holding 1 string:251", NULL, 0, -1, 0},
        {"holding 1 uint16:3", NULL, 0, -1, 0},
        {"holding 1 uint16", "ACBD", 0, -1, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct modbus_settings settings = {.address_base = cases[i].base};
        const struct config_point config = {.source = cases[i].source, .order = cases[i].order};
        struct registers_point point;
        char why[160] = "";
        int r = modbus_parse_point(&config, &settings, &point, why, sizeof(why));
        assert_int_equal(r, cases[i].first < 0 ? -EINVAL : 0);
        if (r == 0) {
            assert_int_equal(point.first, cases[i].first);
            assert_int_equal(point.type, cases[i].type);
            assert_int_equal(point.order, cases[i].order != NULL ? REGISTERS_CDAB : 0);
        } else {
            assert_true(strlen(why) > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_in_every_order),
        cmocka_unit_test(test_uint64_beyond_the_exact_is_bad),
        cmocka_unit_test(test_floats_in_every_order),
        cmocka_unit_test(test_nan_is_invalid_and_infinity_is_not),
        cmocka_unit_test(test_sentinels_compare_raw_patterns_at_the_width),
        cmocka_unit_test(test_bcd),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_encoding_keeps_the_range),
        cmocka_unit_test(test_words_of_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
