/* Request targets, times, globs, POST bodies, tokens and hosts: all that is decided by pure code.
 */
#include "gateway/api/access.h"
#include "gateway/api/query.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static void test_target(void **state)
{
    (void)state;
    struct query q;
    assert_int_equal(
        query_parse("/v1/history?point=t01.power&from=2026-01-31%2010%3A30&x&bin=1+h", &q), 0);
    assert_string_equal(q.path, "/v1/history");
    assert_string_equal(query_value(&q, "point"), "t01.power");
    assert_string_equal(query_value(&q, "from"), "2026-01-31 10:30");
    assert_string_equal(query_value(&q, "bin"), "1 h");
    assert_string_equal(query_value(&q, "x"), "");
    assert_null(query_value(&q, "to"));
    assert_int_equal(query_parse("/#part", &q), 0);
    assert_string_equal(q.path, "/");
    assert_int_equal(query_parse("/a?&&=3&b=c=d&", &q), 0);
    assert_string_equal(query_value(&q, "b"), "c=d");
}

static void test_target_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",     "v1/status", "*",        "/%",    "/%2",
        "/%zz", "/a%00b",    "/a?b=%0a", "/a\nb", "http://host/v1/status"};
    struct query q;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(query_parse(bad[i], &q), -EINVAL);
    }
}

/* Each bound is reached, and passed by one. */
static void test_target_bounds(void **state)
{
    (void)state;
    struct query q;
    char path[QUERY_PATH_MAX + 2] = "/";
    memset(path + 1, 'a', QUERY_PATH_MAX - 2);
    assert_int_equal(query_parse(path, &q), 0);
    path[QUERY_PATH_MAX - 1] = 'a';
    assert_int_equal(query_parse(path, &q), -E2BIG);
    assert_int_equal(query_parse("/?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1", &q), 0);
    assert_int_equal(q.count, QUERY_PARAMS_MAX);
    assert_int_equal(query_parse("/?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1", &q), -E2BIG);
    char text[QUERY_TEXT_MAX + 8] = "/?";
    memset(text + 2, 'x', QUERY_TEXT_MAX - 2); /* a name, its NUL, and the empty value's NUL */
    assert_int_equal(query_parse(text, &q), 0);
    text[QUERY_TEXT_MAX] = 'x';
    assert_int_equal(query_parse(text, &q), -E2BIG);
}

static void test_span(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"1h", 3600000}, {"90 min", 5400000}, {"500ms", 500},      {"7 d", 604800000},
                {"10", 10000},   {"1.5h", 5400000},   {"2 w", 1209600000}, {"30 s", 30000}};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t ms = 0;
        assert_int_equal(query_parse_span(good[i].text, &ms), 0);
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = {"", "h", "-1h", "1 hour", "inf", "nan", "0x10", " 1h", "1hh"};
    int64_t ms;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(query_parse_span(bad[i], &ms), -EINVAL);
    }
    assert_int_equal(query_parse_span("0", &ms), -ERANGE);
    assert_int_equal(query_parse_span("101 y", &ms), -ERANGE);
    assert_int_equal(query_parse_span("1e300", &ms), -ERANGE);
}

static void test_time(void **state)
{
    (void)state;
    const int64_t now_ms = 1769855400000; /* 2026-01-31T10:30:00Z */
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"2026-01-31T10:30:00Z", 1769855400000},
                {"2026-01-31T11:30:00+01:00", 1769855400000},
                {"2026-01-31 10:30", 1769855400000},
                {"2026-01-31 10:30:01", 1769855401000},
                {"2026-01-31", 1769817600000},
                {"1769855400000", 1769855400000},
                {"now", 1769855400000},
                {"-1h", 1769851800000}};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t ms = 0;
        assert_int_equal(query_parse_time(good[i].text, now_ms, &ms), 0);
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2026-13-01",
                                      "2026-01-31 10",
                                      "10:30",
                                      "--1h",
                                      "2026-01-31 10:30 Europe/Amsterdam and more words"};
    int64_t ms;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_true(query_parse_time(bad[i], now_ms, &ms) < 0);
    }
    assert_int_equal(query_parse_time("1234567890123456", now_ms, &ms), -ERANGE);
}

static void test_glob(void **state)
{
    (void)state;
    assert_true(query_glob("t*.power", "t01.power"));
    assert_true(query_glob("*", ""));
    assert_true(query_glob("*.wind_?peed", "t01.wind_speed"));
    assert_true(query_glob("a*b*c", "aXbYbZc"));
    assert_false(query_glob("t*.power", "t01.power2"));
    assert_false(query_glob("", "x"));
    /* A pattern that makes a backtracking matcher run for ever. */
    char text[4001];
    memset(text, 'a', 4000);
    text[4000] = '\0';
    assert_false(query_glob("*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
}

static int parse_read(const char *body, struct read_query *read)
{
    const char *why = NULL;
    int r = read_query_parse(body, strlen(body), read, &why);
    assert_non_null(why);
    return r;
}

static void test_read_body(void **state)
{
    (void)state;
    struct read_query read;
    assert_int_equal(parse_read("{\"device\":\"t01\",\"points\":[\"power\",\"state\"],"
                                "\"timeout_ms\":3000}",
                                &read),
                     0);
    assert_string_equal(read.device, "t01");
    assert_int_equal(read.count, 2);
    assert_string_equal(read.points[1].name, "state");
    assert_int_equal(read.timeout_ms, 3000);
    read_query_finish(&read);
    assert_int_equal(parse_read("{\"device\":\"t01\"}", &read), 0);
    assert_int_equal(read.count, 0);
    assert_int_equal(read.timeout_ms, 5000);
    read_query_finish(&read);
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"device\":7}",
                                      "{\"device\":\"\"}",
                                      "{\"device\":\"t01\",\"points\":\"power\"}",
                                      "{\"device\":\"t01\",\"points\":[1]}",
                                      "{\"device\":\"t01\",\"timeout_ms\":99}",
                                      "{\"device\":\"t01\",\"timeout_ms\":30001}",
                                      "{\"device\":\"t01\",\"timeout_ms\":\"1\"}",
                                      "{\"device\":\"t01\"} x"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(parse_read(bad[i], &read), -EINVAL);
    }
}

static void test_read_body_bounds(void **state)
{
    (void)state;
    struct read_query read;
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"device\":\"t01\",\"points\":[\"p\"");
    for (int i = 1; i < READ_POINTS_MAX; i++) {
        buffer_add_text(&body, ",\"p\"");
    }
    size_t len = body.len;
    buffer_add_text(&body, "]}");
    assert_int_equal(parse_read(buffer_text(&body), &read), 0);
    assert_int_equal(read.count, READ_POINTS_MAX);
    read_query_finish(&read);
    body.len = len;
    buffer_add_text(&body, ",\"p\"]}");
    assert_int_equal(parse_read(buffer_text(&body), &read), -EINVAL);
    const char *why;
    assert_int_equal(read_query_parse("{}", READ_BODY_MAX + 1, &read, &why), -EINVAL);
}

#define TOKEN_A "aaaaaaaaaaaaaaaaaaaaaaaa"
#define TOKEN_B "bbbbbbbbbbbbbbbbbbbbbbbb"

static struct access *make_access(const char *listen, const char *tokens)
{
    struct api_settings settings = {.listen = listen};
    settings.tokens.text = tokens;
    struct access *access = NULL;
    char why[200] = "";
    int r = access_create(&settings, "borssele-1", &access, why, sizeof why);
    if (r < 0) {
        fail_msg("%s", why);
    }
    return access;
}

static int judge(const struct access *access, const char *host, const char *authorization,
                 bool changes)
{
    const struct access_request request = {
        .host = host, .authorization = authorization, .changes = changes};
    const char *why = NULL;
    int status = access_judge(access, &request, &why);
    assert_true(status == 0 || why != NULL);
    return status;
}

static void test_hosts_on_loopback(void **state)
{
    (void)state;
    struct access *access = make_access("127.0.0.1:8080", NULL);
    static const char *const ours[] = {"localhost", "LocalHost:8080", "127.0.0.1:8080",
                                       "[::1]:80",  "[::1]",          "borssele-1:8080"};
    static const char *const foreign[] = {"evil.example", "localhost.evil.example",      "",
                                          ":8080",        "127.0.0.1.evil.example:8080", "[::1",
                                          "[::2]:8080"};
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
        assert_int_equal(judge(access, ours[i], NULL, false), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
        assert_int_equal(judge(access, foreign[i], NULL, false), 403);
    }
    assert_int_equal(judge(access, NULL, NULL, false), 403);
    assert_int_equal(judge(access, "localhost", NULL, true), 403);
    const struct access_request socket = {.over_socket = true, .changes = true};
    const char *why;
    assert_int_equal(access_judge(access, &socket, &why), 0);
    access_destroy(access);
}

static void test_tokens(void **state)
{
    (void)state;
    struct access *access = make_access("0.0.0.0:8443", "# who\n\nmonitor read " TOKEN_A
                                                        "\r\n  scada  write  " TOKEN_B "\n");
    assert_int_equal(judge(access, "10.1.2.3:8443", "Bearer " TOKEN_A, false), 0);
    assert_int_equal(judge(access, "gw.example", "bearer " TOKEN_B, false), 0);
    assert_int_equal(judge(access, "gw.example", NULL, false), 401);
    assert_int_equal(judge(access, "gw.example", "Bearer ", false), 401);
    assert_int_equal(judge(access, "gw.example", "Bearer " TOKEN_A "a", false), 401);
    assert_int_equal(judge(access, "gw.example", "Basic " TOKEN_A, false), 401);
    assert_int_equal(judge(access, "gw.example", "Bearer aaaaaaaaaaaaaaaaaaaaaaab", false), 401);
    assert_int_equal(judge(access, "gw.example", "Bearer " TOKEN_B, true), 403);
    const struct access_request page = {.open = true};
    const char *why;
    assert_int_equal(access_judge(access, &page, &why), 0);
    access_destroy(access);
    /* Beyond loopback nothing is served without tokens, whatever the configuration check let by. */
    access = make_access("0.0.0.0:8443", NULL);
    assert_int_equal(judge(access, "gw.example", "Bearer " TOKEN_A, false), 401);
    access_destroy(access);
}

static void test_bad_tokens_file(void **state)
{
    (void)state;
    static const char *const bad[] = {"x read short\n", "x admin " TOKEN_A, "x read",
                                      "x read " TOKEN_A " more"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct api_settings settings = {.listen = "127.0.0.1:1"};
        settings.tokens.text = bad[i];
        struct access *access = NULL;
        char why[200] = "";
        assert_int_equal(access_create(&settings, "g", &access, why, sizeof why), -EINVAL);
        assert_non_null(strstr(why, "line 1"));
        assert_null(access);
    }
}

static void test_tokens_bound(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    for (int i = 0; i < ACCESS_TOKENS_MAX; i++) {
        buffer_printf(&text, "n%d read %024d\n", i, i);
    }
    struct access *access = make_access("127.0.0.1:1", buffer_text(&text));
    access_destroy(access);
    buffer_printf(&text, "last read " TOKEN_A "\n");
    struct api_settings settings = {.listen = "127.0.0.1:1"};
    settings.tokens.text = buffer_text(&text);
    char why[200];
    assert_int_equal(access_create(&settings, "g", &access, why, sizeof why), -EINVAL);
    assert_non_null(strstr(why, "line 65"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_target_refused),
        cmocka_unit_test(test_target_bounds),
        cmocka_unit_test(test_span),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_glob),
        cmocka_unit_test(test_read_body),
        cmocka_unit_test(test_read_body_bounds),
        cmocka_unit_test(test_hosts_on_loopback),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_bad_tokens_file),
        cmocka_unit_test(test_tokens_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
