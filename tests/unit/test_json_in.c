/* The JSON reader, and the sink's view of values, against RFC 8259, and against jansson on the same
 * texts. */
#include "uplink/sink/sink_value.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static bool accepts(const char *text, size_t len)
{
    struct json_in_arena arena = {NULL};
    struct json_in p;
    json_in_init(&p, text, len, &arena);
    bool fine = json_in_skip(&p) && json_in_end(&p);
    json_in_arena_finish(&arena);
    return fine;
}

static const char *const sound[] = {
    "{}",
    "[]",
    " [ ] ",
    "{\"a\":1}",
    "{\"a\":[1,2,{\"b\":null}],\"c\":\"\\u00e9\\n\"}",
    "[true,false]",
    "-0",
    "0.5",
    "1e3",
    "1E-7",
    "-12.50e+2",
    "\"\\ud83d\\ude00\"",
    "\"\xc3\xa9\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
};

static const char *const broken[] = {
    "",
    " ",
    "{",
    "[",
    "{]",
    "[}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{,}",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{\"a\":1 \"b\":2}",
    "{a:1}",
    "'a'",
    "tru",
    "nul",
    "truefalse",
    "01",
    "-",
    "1.",
    ".5",
    "1e",
    "+1",
    "1.e3",
    "\"",
    "\"a",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\\ud800\\u0041\"",
    "\"\x01\"",
    "\"\xff\"",
    "\"\xc3\"",
    "\"\xed\xa0\x80\"",
    "\"\xf4\x90\x80\x80\"",
    "{} {}",
    "[]]",
    "NaN",
    "1e999",
    "\"\\",
};

static void test_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sound); i++) {
        if (!accepts(sound[i], strlen(sound[i]))) {
            fail_msg("refused: %s", sound[i]);
        }
    }
}

static void test_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        if (accepts(broken[i], strlen(broken[i]))) {
            fail_msg("accepted: %s", broken[i]);
        }
    }
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * JSON_IN_DEPTH_MAX + 3];
    memset(text, '[', JSON_IN_DEPTH_MAX + 1);
    memset(text + JSON_IN_DEPTH_MAX + 1, ']', JSON_IN_DEPTH_MAX + 1);
    assert_false(accepts(text, 2 * JSON_IN_DEPTH_MAX + 2));
    assert_true(accepts(text + 1, 2 * JSON_IN_DEPTH_MAX));
}

/* Every text that one byte's change makes out of the samples: both readers say the same. */
static void test_like_jansson(void **state)
{
    (void)state;
    static const char bytes[] = "{}[],:\"\\0e.-u \xc3";
    for (size_t s = 0; s < ARRAY_SIZE(sound) - 1; s++) {
        char text[128];
        size_t len = strlen(sound[s]);
        for (size_t at = 0; at < len; at++) {
            for (size_t b = 0; b < sizeof bytes - 1; b++) {
                memcpy(text, sound[s], len);
                text[at] = bytes[b];
                json_t *json = json_loadb(text, len, JSON_DECODE_ANY, NULL);
                if (accepts(text, len) != (json != NULL)) {
                    fail_msg("jansson %s: %.*s", json != NULL ? "takes" : "refuses", (int)len,
                             text);
                }
                json_decref(json);
            }
        }
    }
}

static struct sink_value value_of(const char *text)
{
    struct json_in_arena arena = {NULL};
    struct json_in p;
    struct sink_value value;
    json_in_init(&p, text, strlen(text), &arena);
    assert_true(sink_value_take(&p, &value) && json_in_end(&p));
    json_in_arena_finish(&arena);
    return value;
}

static void assert_integer(const char *text, int64_t expected)
{
    struct sink_value value = value_of(text);
    assert_int_equal(value.kind, SINK_VALUE_INTEGER);
    assert_true(value.integer == expected);
}

static void test_numbers(void **state)
{
    (void)state;
    assert_integer("13", 13);
    assert_integer("13.0", 13);
    assert_integer("1.3e1", 13);
    assert_integer("-0.0", 0);
    assert_integer("0e5", 0);
    assert_integer("true", 1);
    assert_integer("9007199254740993", 9007199254740993);
    static const char *const fractions[] = {"8.42",
                                            "-1312.5",
                                            "0.1",
                                            "1e-7",
                                            "123456789012345678.5",
                                            "2.5e-9",
                                            "0.30000000000000004",
                                            "1e300",
                                            "99999999999999999999999",
                                            "9007199254740993.5"};
    for (size_t i = 0; i < ARRAY_SIZE(fractions); i++) {
        struct sink_value value = value_of(fractions[i]);
        assert_int_equal(value.kind, SINK_VALUE_REAL);
        assert_true(value.real == strtod(fractions[i], NULL));
    }
}

static bool integer_of(const char *text, int64_t *ret_value)
{
    struct json_in_arena arena = {NULL};
    struct json_in p;
    json_in_init(&p, text, strlen(text), &arena);
    bool fine = json_in_enter(&p, JSON_IN_ARRAY) && json_in_element(&p) &&
                json_in_integer(&p, ret_value) && !json_in_element(&p) && json_in_end(&p);
    json_in_arena_finish(&arena);
    return fine;
}

static void test_whole_numbers(void **state)
{
    (void)state;
    static const char *const wrong[] = {"[-]",  "[00]", "[01]",  "[-00]", "[--1]",
                                        "[1.]", "[+1]", "[1.5]", "[1a]",  "[0x1]"};
    uint64_t rng = 88172645463325252u;
    int64_t value;
    for (int i = 0; i < 100000; i++) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        int64_t expected = (int64_t)rng >> (4 + rng % 60); /* all but those beyond 18 digits */
        char text[60];
        static const char *const forms[] = {"[%lld]", "[ %lld ]", "[%lld.0]", "[%llde0]"};
        snprintf(text, sizeof text, forms[i % 4], (long long)expected);
        if (llabs(expected) < 10000000000000000) {
            assert_true(integer_of(text, &value));
            assert_int_equal(value, expected);
        }
        assert_true(accepts(text, strlen(text)));
    }
    assert_true(integer_of("[-0]", &value) && value == 0);
    assert_true(integer_of("[1e3]", &value) && value == 1000);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(integer_of(wrong[i], &value));
    }
}

static void test_escapes(void **state)
{
    (void)state;
    static const char text[] =
        "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20ac\\ud83d\\ude00z\"";
    struct json_in_arena arena = {NULL};
    struct json_in p;
    struct json_in_text result;
    json_in_init(&p, text, sizeof text - 1, &arena);
    assert_true(json_in_string(&p, &result));
    assert_true(json_in_text_is(result, "a\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z"));
    json_in_arena_finish(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),   cmocka_unit_test(test_broken),
        cmocka_unit_test(test_depth),   cmocka_unit_test(test_like_jansson),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
