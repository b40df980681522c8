/* SenML: every example of RFC 8428 section 5 and the CBOR of section 6, the rules for base fields,
 * times and versions, and what hostile senders try. */
#include "drivers/coap/payload.h"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

/* 2026-11-21T12:00:00Z */
#define NOW INT64_C(1795262400000)
#define ONE "urn:dev:ow:10e2073a01080063"

static struct senml_pack pack;

static int tear_down(void **state)
{
    (void)state;
    senml_finish(&pack);
    return 0;
}

static int parse_json(const char *text)
{
    senml_finish(&pack);
    return senml_parse_json((const uint8_t *)text, strlen(text), NOW, &pack);
}

static void expect_json(const char *text, size_t count)
{
    assert_int_equal(parse_json(text), 0);
    assert_int_equal(pack.count, count);
}

static void expect_name(size_t i, const char *name, int64_t time_ms)
{
    const struct senml_record *record = &pack.records[i];
    assert_int_equal(record->name_len, strlen(name));
    assert_memory_equal(senml_name(&pack, record), name, strlen(name));
    assert_int_equal(record->time_ms, time_ms);
    assert_int_equal(record->timed, time_ms != NOW);
}

/* A number that must have come through exactly. */
static void expect(size_t i, const char *name, int64_t time_ms, int64_t mantissa, int exponent)
{
    expect_name(i, name, time_ms);
    const struct reading *value = &pack.records[i].value;
    assert_int_equal(value->kind, VALUE_DECIMAL);
    assert_int_equal(value->quality, QUALITY_GOOD);
    assert_int_equal(value->integer, mantissa);
    assert_int_equal(value->exponent, exponent);
}

static void expect_text(size_t i, const char *name, const char *text)
{
    expect_name(i, name, NOW);
    const struct reading *value = &pack.records[i].value;
    assert_int_equal(value->kind, VALUE_TEXT);
    assert_int_equal(value->text.len, strlen(text));
    assert_memory_equal(pack.text.data + value->text.offset, text, strlen(text));
}

static void single_datapoint(void **state) /* 5.1.1 */
{
    (void)state;
    expect_json("[{\"n\":\"" ONE "\",\"u\":\"Cel\",\"v\":23.1}]", 1);
    expect(0, ONE, NOW, 231, -1);
}

static void multiple_datapoints(void **state) /* 5.1.2 */
{
    (void)state;
    expect_json("[{\"bn\":\"" ONE ":\",\"n\":\"voltage\",\"u\":\"V\",\"v\":120.1},"
                "{\"n\":\"current\",\"u\":\"A\",\"v\":1.2}]",
                2);
    expect(0, ONE ":voltage", NOW, 1201, -1);
    expect(1, ONE ":current", NOW, 12, -1);
    assert_int_equal(pack.records[1].base_len, strlen(ONE ":"));
}

static void expect_currents(void)
{
    static const int tenths[] = {12, 13, 14, 15, 16, 17};
    expect(0, "urn:dev:ow:10e2073a0108006:voltage", 1276020076001, 1201, -1);
    for (size_t i = 0; i < ARRAY_SIZE(tenths); i++) {
        int64_t time_ms = 1276020076001 - 5000 + (int64_t)i * 1000;
        const struct senml_record *record = &pack.records[i + 1];
        expect_name(i + 1, "urn:dev:ow:10e2073a0108006:current", time_ms);
        assert_true(fabs(reading_double(&record->value) - tenths[i] / 10.0) < 1e-12);
    }
}

static void historical_values(void **state) /* 5.1.2, second */
{
    (void)state;
    expect_json("[{\"bn\":\"urn:dev:ow:10e2073a0108006:\",\"bt\":1.276020076001e+09,\"bu\":\"A\","
                "\"bver\":5,\"n\":\"voltage\",\"u\":\"V\",\"v\":120.1},"
                "{\"n\":\"current\",\"t\":-5,\"v\":1.2},{\"n\":\"current\",\"t\":-4,\"v\":1.3},"
                "{\"n\":\"current\",\"t\":-3,\"v\":1.4},{\"n\":\"current\",\"t\":-2,\"v\":1.5},"
                "{\"n\":\"current\",\"t\":-1,\"v\":1.6},{\"n\":\"current\",\"v\":1.7}]",
                7);
    expect_currents();
}

static void multiple_measurements(void **state) /* 5.1.3 */
{
    (void)state;
    expect_json("[{\"bn\":\"" ONE "\",\"bt\":1.320067464e+09,\"bu\":\"%RH\",\"v\":20},"
                "{\"u\":\"lon\",\"v\":24.30621},{\"u\":\"lat\",\"v\":60.07965},"
                "{\"t\":60,\"v\":20.3},{\"u\":\"lon\",\"t\":60,\"v\":24.30622},"
                "{\"u\":\"lat\",\"t\":60,\"v\":60.07965},{\"t\":120,\"v\":20.7},"
                "{\"u\":\"lon\",\"t\":120,\"v\":24.30623},{\"u\":\"lat\",\"t\":120,\"v\":60.07966},"
                "{\"u\":\"%EL\",\"t\":150,\"v\":98},{\"t\":180,\"v\":21.2},"
                "{\"u\":\"lon\",\"t\":180,\"v\":24.30628},{\"u\":\"lat\",\"t\":180,"
                "\"v\":60.07967}]",
                13);
    expect(0, ONE, 1320067464000, 20, 0);
    expect(1, ONE, 1320067464000, 2430621, -5);
    expect(5, ONE, 1320067524000, 6007965, -5);
    expect(9, ONE, 1320067614000, 98, 0);
    expect(12, ONE, 1320067644000, 6007967, -5);
}

static void resolved_data(void **state) /* 5.1.4 */
{
    (void)state;
    expect_json("[{\"n\":\"" ONE "\",\"u\":\"%RH\",\"t\":1.320067464e+09,\"v\":20},"
                "{\"n\":\"" ONE "\",\"u\":\"lon\",\"t\":1.320067464e+09,\"v\":24.30621},"
                "{\"n\":\"" ONE "\",\"u\":\"lat\",\"t\":1.320067464e+09,\"v\":60.07965},"
                "{\"n\":\"" ONE "\",\"u\":\"%EL\",\"t\":1.320067614e+09,\"v\":98}]",
                4);
    expect(0, ONE, 1320067464000, 20, 0);
    expect(3, ONE, 1320067614000, 98, 0);
}

static void multiple_data_types(void **state) /* 5.1.5 */
{
    (void)state;
    expect_json("[{\"bn\":\"" ONE ":\",\"n\":\"temp\",\"u\":\"Cel\",\"v\":23.1},"
                "{\"n\":\"label\",\"vs\":\"Machine Room\"},{\"n\":\"open\",\"vb\":false},"
                "{\"n\":\"nfv-reader\",\"vd\":\"aGkgCg\"}]",
                4);
    expect(0, ONE ":temp", NOW, 231, -1);
    expect_text(1, ONE ":label", "Machine Room");
    assert_int_equal(pack.records[2].value.kind, VALUE_BOOL);
    assert_int_equal(pack.records[2].value.integer, 0);
    expect_text(3, ONE ":nfv-reader", "aGkgCg");
}

static void collection_of_resources(void **state) /* 5.1.6 */
{
    (void)state;
    expect_json("[{\"bn\":\"2001:db8::2/\",\"bt\":1.320078429e+09,\"n\":\"temperature\","
                "\"u\":\"Cel\",\"v\":25.2},{\"n\":\"humidity\",\"u\":\"%RH\",\"v\":30},"
                "{\"bn\":\"2001:db8::1/\",\"n\":\"temperature\",\"u\":\"Cel\",\"v\":12.3},"
                "{\"n\":\"humidity\",\"u\":\"%RH\",\"v\":67}]",
                4);
    expect(0, "2001:db8::2/temperature", 1320078429000, 252, -1);
    expect(1, "2001:db8::2/humidity", 1320078429000, 30, 0);
    expect(2, "2001:db8::1/temperature", 1320078429000, 123, -1);
    expect(3, "2001:db8::1/humidity", 1320078429000, 67, 0);
}

static void setting_an_actuator(void **state) /* 5.1.7, all three */
{
    (void)state;
    expect_json("[{\"bn\":\"" ONE ":\"},{\"n\":\"temp\",\"u\":\"Cel\",\"v\":23.1},"
                "{\"n\":\"heat\",\"u\":\"/\",\"v\":1},{\"n\":\"fan\",\"u\":\"/\",\"v\":0}]",
                3);
    expect(2, ONE ":fan", NOW, 0, 0);
    expect_json("[{\"bt\":1.320078429e+09,\"bu\":\"/\",\"n\":\"2001:db8::3\",\"v\":1},"
                "{\"n\":\"2001:db8::4\",\"v\":1}]",
                2);
    expect(1, "2001:db8::4", 1320078429000, 1, 0);
    expect_json("[{\"bt\":1.320078429e+09,\"bu\":\"/\",\"n\":\"2001:db8::3\",\"v\":0.5},"
                "{\"n\":\"2001:db8::4\",\"v\":0.5},{\"n\":\"2001:db8::3\",\"t\":0.1,\"v\":0},"
                "{\"n\":\"2001:db8::4\",\"t\":0.1,\"v\":0}]",
                4);
    expect(0, "2001:db8::3", 1320078429000, 5, -1);
    expect(3, "2001:db8::4", 1320078429100, 0, 0);
}

static size_t unhex(const char *hex, uint8_t *bytes)
{
    size_t len = 0;
    for (; *hex != '\0'; hex++) {
        unsigned byte;
        if (*hex != ' ') {
            assert_int_equal(sscanf(hex, "%2x", &byte), 1);
            bytes[len++] = (uint8_t)byte;
            hex++;
        }
    }
    return len;
}

static int parse_cbor(const char *hex)
{
    uint8_t bytes[1024];
    size_t len = unhex(hex, bytes);
    senml_finish(&pack);
    /* On the heap to the byte, so that a look beyond the end is seen. */
    auto_free uint8_t *copy = malloc(len + 1);
    memcpy(copy, bytes, len);
    return senml_parse_cbor(copy, len, NOW, &pack);
}

static void cbor_of_section_6(void **state)
{
    (void)state;
    assert_int_equal(
        parse_cbor(
            "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b"
            "001062236141200500 67766f6c7461676501615602fb405e066666666666a3006763757272656e"
            "74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccda3006763"
            "757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a300676375"
            "7272656e74062002fb3ff999999999999aa3006763757272656e74060002fb3ffb333333333333"),
        0);
    assert_int_equal(pack.count, 7);
    expect_currents();
    assert_int_equal(pack.records[4].value.kind, VALUE_FLOAT);
}

static void cbor_forms(void **state)
{
    (void)state;
    /* indefinite array and map, decimal fraction 273.15, true, bytes, negative integer */
    assert_int_equal(parse_cbor("9f bf 00 6161 02 c48221196ab3 ff a2 00 6162 04 f5"
                                "a2 00 6163 08 43 686920 a2 00 6164 02 3903e7 ff"),
                     0);
    assert_int_equal(pack.count, 4);
    expect(0, "a", NOW, 27315, -2);
    assert_int_equal(pack.records[1].value.kind, VALUE_BOOL);
    expect_text(2, "c", "aGkg");
    expect(3, "d", NOW, -1000, 0);
    /* NaN is a value that the sensor calls bad */
    assert_int_equal(parse_cbor("81 a2 00 6161 02 f97e00"), 0);
    assert_int_equal(pack.records[0].value.kind, VALUE_NULL);
    assert_int_equal(pack.records[0].value.quality, QUALITY_BAD_INVALID);
    /* an unknown field with a nested value is skipped, a text label taken */
    assert_int_equal(parse_cbor("81 a3 6178 82 a1 01 02 80 616e 6161 6176 07"), 0);
    expect(0, "a", NOW, 7, 0);
}

static void relative_times(void **state)
{
    (void)state;
    expect_json("[{\"n\":\"a\",\"t\":-2.5,\"v\":1},{\"n\":\"a\",\"t\":0,\"v\":1},"
                "{\"n\":\"a\",\"t\":60,\"v\":1},{\"n\":\"a\",\"t\":268435455,\"v\":1},"
                "{\"n\":\"a\",\"t\":268435456,\"v\":1}]",
                5);
    expect(0, "a", NOW - 2500, 1, 0);
    expect(1, "a", NOW, 1, 0);
    expect(2, "a", NOW + 60000, 1, 0);
    expect(3, "a", NOW + INT64_C(268435455000), 1, 0);
    expect(4, "a", INT64_C(268435456000), 1, 0);
    /* it is the sum that counts: base and offset below, together above */
    expect_json("[{\"bt\":268435450,\"n\":\"a\",\"t\":5,\"v\":1},{\"n\":\"a\",\"t\":6,\"v\":1}]",
                2);
    expect(0, "a", NOW + INT64_C(268435455000), 1, 0);
    expect(1, "a", INT64_C(268435456000), 1, 0);
}

static void base_values(void **state)
{
    (void)state;
    expect_json("[{\"bn\":\"x/\",\"bv\":273.15,\"bs\":100},{\"n\":\"a\",\"v\":0.05},{\"n\":\"a\"},"
                "{\"bn\":\"\",\"n\":\"b\",\"v\":-273.15},{\"bv\":0,\"n\":\"b\",\"s\":1}]",
                4);
    expect(0, "x/a", NOW, 27320, -2);
    expect(1, "x/a", NOW, 27315, -2);
    expect(2, "b", NOW, 0, -2);
    expect_json("[{\"bs\":100,\"n\":\"b\",\"s\":0.5}]", 1);
    expect(0, "b", NOW, 1005, -1);
    /* what has no exact sum is a double */
    expect_json("[{\"bv\":1e18,\"n\":\"b\",\"v\":1e-18}]", 1);
    assert_true(reading_double(&pack.records[0].value) == 1e18);
}

static void numbers_keep_their_form(void **state)
{
    (void)state;
    expect_json("[{\"n\":\"a\",\"v\":0.1},{\"n\":\"a\",\"v\":-1234567.89012345},"
                "{\"n\":\"a\",\"v\":9007199254740993},{\"n\":\"a\",\"v\":3.141592653589793},"
                "{\"n\":\"a\",\"v\":1e3},{\"n\":\"a\",\"v\":123456789012345678901234}]",
                6);
    expect(0, "a", NOW, 1, -1);
    expect(1, "a", NOW, -123456789012345, -8);
    assert_int_equal(pack.records[3].value.kind, VALUE_REAL);
    assert_true(pack.records[3].value.real == 3.141592653589793);
    assert_true(reading_double(&pack.records[4].value) == 1000);
    assert_true(reading_double(&pack.records[5].value) == 123456789012345678901234.0);
    expect_json("[{\"n\":\"a\",\"v\":9007199254740993}]", 1);
    expect(0, "a", NOW, 9007199254740993, 0);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int error;
    } cases[] = {
        {"", -EINVAL},
        {"{}", -EINVAL},
        {"[1]", -EINVAL},
        {"[{\"n\":\"a\",\"v\":1}", -EINVAL},
        {"[{\"v\":1}]", -EINVAL},                 /* no name at all */
        {"[{\"n\":\"a\",\"v\":\"1\"}]", -EINVAL}, /* a text is no number */
        {"[{\"n\":1,\"v\":1}]", -EINVAL},         /* a number is no name */
        {"[{\"n\":\"a\",\"vb\":1}]", -EINVAL},    /* nor a truth */
        {"[{\"n\":\"a\",\"v\":null}]", -EINVAL},
        {"[{\"n\":\"a\",\"v\":1,\"v\":2}]", -EINVAL},      /* twice */
        {"[{\"n\":\"a\",\"t\":1e300,\"v\":1}]", -EINVAL},  /* no time */
        {"[{\"bver\":11,\"n\":\"a\",\"v\":1}]", -ENOTSUP}, /* section 4.4 */
        {"[{\"n\":\"a\",\"v\":1,\"must_\":1}]", -ENOTSUP}, /* section 4.4 */
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse_json(cases[i].text), cases[i].error);
    }
    expect_json("[{\"bver\":10,\"n\":\"a\",\"v\":1,\"may\":{\"x\":[1]}}]", 1);
    expect_json("[]", 0);
}

static void hostile_cbor(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "9f",
        "81",
        "a0",
        "9bffffffffffffffff",         /* 2^64 - 1 records announced */
        "81bbffffffffffffffff00",     /* as many fields */
        "81a1005bffffffffffffffff61", /* a text of that length */
        "81a1007bffffffffffffffff61",
        "81a200616102",              /* the value is missing */
        "81a2006161 02 c4820102 00", /* something behind the pack */
        "81a2006161 02 c48219ffff",  /* half a fraction */
        "81a2006161 02 ff",          /* a break where a value belongs */
        "81a10061",                  /* half a name */
        "81a20061610261 31",         /* a text as value */
        "81a100 7f6161ff",           /* a name in pieces */
        "81a2006161 6178 8181818181818181818181818181818181818181818100", /* too deep */
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(parse_cbor(cases[i]) < 0);
    }
}

/* Each bound is reached, and passed by one. */
static void bounds(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "[{\"n\":\"");
    for (int i = 0; i < SENML_NAME_MAX; i++) {
        buffer_add_text(&text, "n");
    }
    size_t name_end = text.len;
    buffer_add_text(&text, "\",\"v\":1}]");
    assert_int_equal(parse_json(buffer_text(&text)), 0);
    text.len = name_end;
    buffer_add_text(&text, "n\",\"v\":1}]");
    assert_int_equal(parse_json(buffer_text(&text)), -EMSGSIZE);

    buffer_clear(&text);
    buffer_add_text(&text, "[{\"bn\":\"a\",\"v\":1}");
    for (int i = 1; i < SENML_RECORDS_MAX; i++) {
        buffer_add_text(&text, ",{\"v\":1}");
    }
    size_t records_end = text.len;
    buffer_add_text(&text, "]");
    expect_json(buffer_text(&text), SENML_RECORDS_MAX);
    text.len = records_end;
    buffer_add_text(&text, ",{\"v\":1}]");
    assert_int_equal(parse_json(buffer_text(&text)), -EMSGSIZE);

    buffer_clear(&text);
    while (text.len < SENML_BYTES_MAX - 1) {
        buffer_add_text(&text, " ");
    }
    buffer_add_text(&text, "[");
    assert_int_equal(parse_json(buffer_text(&text)), -EINVAL);
    buffer_add_text(&text, "]");
    assert_int_equal(parse_json(buffer_text(&text)), -EMSGSIZE);
}

static int parse_payload(unsigned format, const char *bytes, size_t len)
{
    senml_finish(&pack);
    return payload_parse(format, (const uint8_t *)bytes, len, NOW, &pack);
}

static void plain_values(void **state)
{
    (void)state;
    assert_int_equal(parse_payload(PAYLOAD_TEXT, " 23.50\r\n", 8), 0);
    expect(0, "", NOW, 235, -1);
    assert_int_equal(parse_payload(PAYLOAD_TEXT, "true", 4), 0);
    assert_int_equal(pack.records[0].value.kind, VALUE_BOOL);
    assert_int_equal(parse_payload(PAYLOAD_TEXT, "running", 7), 0);
    expect_text(0, "", "running");
    assert_int_equal(parse_payload(PAYLOAD_TEXT, "", 0), 0);
    assert_int_equal(pack.records[0].value.quality, QUALITY_BAD_INVALID);
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\x19\x03\xe8", 3), 0);
    expect(0, "", NOW, 1000, 0);
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\xf6", 1), 0);
    assert_int_equal(pack.records[0].value.kind, VALUE_NULL);
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\x62ok", 3), 0);
    expect_text(0, "", "ok");
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\x81\x01", 2), -EINVAL);
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\x01\x01", 2), -EINVAL);
    assert_int_equal(parse_payload(PAYLOAD_CBOR, "\xfb\x40", 2), -EINVAL);
    assert_int_equal(parse_payload(11542, "x", 1), -ENOTSUP);
    assert_false(payload_known(11542));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(single_datapoint, tear_down),
        cmocka_unit_test_teardown(multiple_datapoints, tear_down),
        cmocka_unit_test_teardown(historical_values, tear_down),
        cmocka_unit_test_teardown(multiple_measurements, tear_down),
        cmocka_unit_test_teardown(resolved_data, tear_down),
        cmocka_unit_test_teardown(multiple_data_types, tear_down),
        cmocka_unit_test_teardown(collection_of_resources, tear_down),
        cmocka_unit_test_teardown(setting_an_actuator, tear_down),
        cmocka_unit_test_teardown(cbor_of_section_6, tear_down),
        cmocka_unit_test_teardown(cbor_forms, tear_down),
        cmocka_unit_test_teardown(relative_times, tear_down),
        cmocka_unit_test_teardown(base_values, tear_down),
        cmocka_unit_test_teardown(numbers_keep_their_form, tear_down),
        cmocka_unit_test_teardown(what_is_refused, tear_down),
        cmocka_unit_test_teardown(hostile_cbor, tear_down),
        cmocka_unit_test_teardown(bounds, tear_down),
        cmocka_unit_test_teardown(plain_values, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
