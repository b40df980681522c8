/* JSON pointers: the examples of RFC 6901 section 5, many at once, and what a document may do. */
#include "drivers/http/json_pointer.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

enum { FOUND_MAX = 32 };

struct found {
    unsigned times;
    struct reading reading;
    char text[64];
};

static void on_found(void *user, size_t index, const struct reading *reading,
                     struct json_in_text text)
{
    struct found *found = (struct found *)user + index;
    assert_true(index < FOUND_MAX);
    found->times++;
    found->reading = *reading;
    snprintf(found->text, sizeof found->text, "%.*s", (int)text.len, text.at);
}

static int walk(const char *const *pointers, size_t count, const char *text, struct found *found)
{
    struct json_pointer_set set;
    const char *why = NULL;
    memset(found, 0, FOUND_MAX * sizeof *found);
    assert_int_equal(json_pointer_set_init(&set, pointers, count), 0);
    int r = json_pointer_walk(&set, text, strlen(text), on_found, found, &why);
    assert_true((r < 0) == (why != NULL));
    json_pointer_set_finish(&set);
    return r;
}

/* RFC 6901 section 5; "foo" itself is an array, so its value is none of ours. */
static void test_examples_of_the_rfc(void **state)
{
    (void)state;
    static const char document[] = "{\"foo\":[\"bar\",\"baz\"],\"\":0,\"a/b\":1,\"c%d\":2,"
                                   "\"e^f\":3,\"g|h\":4,\"i\\\\j\":5,\"k\\\"l\":6,\" \":7,"
                                   "\"m~n\":8}";
    static const char *const pointers[] = {"",     "/foo",  "/foo/0", "/",     "/a~1b",
                                           "/c%d", "/e^f",  "/g|h",   "/i\\j", "/k\"l",
                                           "/ ",   "/m~0n", "/foo/2", "/none"};
    struct found found[FOUND_MAX];
    assert_int_equal(walk(pointers, ARRAY_SIZE(pointers), document, found), 0);
    assert_int_equal(found[0].reading.quality, QUALITY_BAD_TYPE);
    assert_int_equal(found[1].reading.quality, QUALITY_BAD_TYPE);
    assert_int_equal(found[2].reading.kind, VALUE_TEXT);
    assert_string_equal(found[2].text, "bar");
    for (int i = 3; i <= 11; i++) {
        assert_int_equal(found[i].times, 1);
        assert_int_equal(found[i].reading.kind, VALUE_DECIMAL);
        assert_int_equal(found[i].reading.integer, i - 3);
    }
    assert_int_equal(found[12].times, 0);
    assert_int_equal(found[13].times, 0);
}

static void test_numbers_are_exact(void **state)
{
    (void)state;
    static const char *const pointers[] = {"/w/speed", "/w/big",    "/w/on", "/w/none",
                                           "/w/speed", "/list/1/x", "/w/obj"};
    struct found found[FOUND_MAX];
    assert_int_equal(
        walk(pointers, ARRAY_SIZE(pointers),
             "{\"w\":{\"speed\":8.42,\"big\":123456789012345678901,\"on\":true,\"none\":null,"
             "\"obj\":{\"x\":[1,{}]}},\"list\":[{\"x\":1},{\"y\":2,\"x\":-0.5e1}]}",
             found),
        0);
    assert_int_equal(found[0].reading.integer, 842);
    assert_int_equal(found[0].reading.exponent, -2);
    assert_int_equal(found[4].reading.integer, 842);
    assert_int_equal(found[1].reading.kind, VALUE_REAL);
    assert_int_equal(found[2].reading.kind, VALUE_BOOL);
    assert_int_equal(found[2].reading.integer, 1);
    assert_int_equal(found[3].reading.quality, QUALITY_BAD_INVALID);
    assert_true(decimal_to_double(reading_decimal(&found[5].reading)) < -4.999);
    assert_int_equal(found[6].reading.quality, QUALITY_BAD_TYPE);
}

static void test_a_broken_document_gives_nothing_to_trust(void **state)
{
    (void)state;
    static const char *const pointers[] = {"/a"};
    static const char *const broken[] = {"",
                                         "{",
                                         "{\"a\":1",
                                         "{\"a\":1}x",
                                         "{\"a\":01}",
                                         "[1,]",
                                         "{\"b\":[1 2],\"a\":1}",
                                         "<html>",
                                         "{\"a\":1e999}"};
    struct found found[FOUND_MAX];
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        assert_int_equal(walk(pointers, 1, broken[i], found), -EBADMSG);
    }
}

/* At the bounds: a name as long as a pointer can be, deeper nesting than is read. */
static void test_bounds(void **state)
{
    (void)state;
    char pointer[JSON_POINTER_MAX + 2], document[3 * JSON_POINTER_MAX + 64], deep[200];
    const char *why = NULL;
    memset(pointer, 'x', sizeof pointer);
    pointer[0] = '/';
    pointer[JSON_POINTER_MAX + 1] = '\0';
    assert_int_equal(json_pointer_check(pointer, &why), -EINVAL);
    pointer[JSON_POINTER_MAX] = '\0';
    assert_int_equal(json_pointer_check(pointer, &why), 0);
    snprintf(document, sizeof document, "{\"%s\":1,\"%sx\":2,\"%s/y\":{\"a\":3}}", pointer + 1,
             pointer + 1, pointer + 1);
    const char *const pointers[] = {pointer};
    struct found found[FOUND_MAX];
    assert_int_equal(walk(pointers, 1, document, found), 0);
    assert_int_equal(found[0].times, 1);
    assert_int_equal(found[0].reading.integer, 1);
    memset(deep, '[', 100);
    deep[100] = '\0';
    assert_int_equal(walk(pointers, 1, deep, found), -EBADMSG);
}

static void test_pointers_are_checked(void **state)
{
    (void)state;
    const char *why = NULL;
    static const char *const good[] = {"", "/", "/a/0", "/~0~1", "/a b", "/\xc3\xa9"};
    static const char *const bad[] = {"a", "#/a", "/~", "/~2", "/a~", "/a\n"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(json_pointer_check(good[i], &why), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(json_pointer_check(bad[i], &why), -EINVAL);
    }
}

static int time_of(const char *document, int64_t *ret_ms)
{
    struct json_in_arena arena = {0};
    struct json_in json;
    struct reading reading = {0};
    struct json_in_text text;
    json_in_init(&json, document, strlen(document), &arena);
    assert_true(json_reading_take(&json, &reading, &text));
    int r = json_reading_time(&reading, text, ret_ms);
    json_in_arena_finish(&arena);
    return r;
}

static void test_times(void **state)
{
    (void)state;
    static const char *const same[] = {"\"2026-01-31T10:30:00.250Z\"",
                                       "\"2026-01-31T11:30:00.250+01:00\"", "1769855400250",
                                       "1769855400.250", "1.76985540025e9"};
    static const char *const none[] = {"\"soon\"", "null",           "true", "0",  "-5",  "[]",
                                       "1e300",    "\"2026-01-31\"", "\"\"", "{}", "1e-9"};
    int64_t ms;
    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        assert_int_equal(time_of(same[i], &ms), 0);
        assert_int_equal(ms, 1769855400250);
    }
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        assert_int_equal(time_of(none[i], &ms), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_of_the_rfc),
        cmocka_unit_test(test_numbers_are_exact),
        cmocka_unit_test(test_a_broken_document_gives_nothing_to_trust),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_pointers_are_checked),
        cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
