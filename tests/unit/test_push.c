/* POST /sensor: what its body may be, and what becomes of it on a real store and pipeline. */
#include "gateway/api/later.h"
#include "gateway/api/push_body.h"
#include "gateway/api/server.h"
#include "tests/unit/mini_gateway.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */
#include "tests/unit/mini_gateway.inc"

#define READ_TOKEN  "0123456789abcdef0123"
#define WRITE_TOKEN "fedcba9876543210fedc"

struct bench {
    struct mini mini;
    struct api *api; /* a second one, with tokens */
    char path[128];
};

/* The body alone. */

static struct push_body body;
static char why[PUSH_WHY_MAX];

static int parse(const char *text)
{
    push_body_finish(&body);
    why[0] = '\0';
    return push_body_parse(text, strlen(text), &body, why);
}

static void test_one_object(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"wind_speed\":8.42,\"location\":\"t01\",\"time\":1769855400,"
                           "\"grid_ok\":true,\"none\":null,\"word\":\"a\\u00e9\"}"),
                     0);
    assert_int_equal(body.object_count, 1);
    const struct push_object *object = &body.objects[0];
    assert_true(json_in_text_is(object->location, "t01"));
    assert_int_equal(object->time_ms, 1769855400000);
    assert_int_equal(object->count, 4);
    assert_int_equal(body.members[0].reading.integer, 842);
    assert_int_equal(body.members[0].reading.exponent, -2);
    assert_int_equal(body.members[1].reading.kind, VALUE_BOOL);
    assert_int_equal(body.members[2].reading.quality, QUALITY_BAD_INVALID);
    assert_int_equal(object->text_len, 3);
    push_body_finish(&body);
}

static void test_an_array(void **state)
{
    (void)state;
    assert_int_equal(parse("[{\"location\":\"a\",\"x\":1}, {\"location\":\"b\",\"x\":2,\"y\":3}]"),
                     0);
    assert_int_equal(body.object_count, 2);
    assert_int_equal(body.objects[1].first, 1);
    assert_int_equal(body.objects[1].count, 2);
    assert_int_equal(body.objects[1].time_ms, 0);
    push_body_finish(&body);
}

static void test_refusals_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "no JSON"},
        {"x", "no JSON"},
        {"{\"location\":\"a\",\"x\":1", "no JSON"},
        {"{\"location\":\"a\",\"x\":1}}", "no JSON"},
        {"3", "no JSON"},
        {"[]", "empty"},
        {"[[]]", "no JSON"},
        {"{}", "location"},
        {"{\"x\":1}", "location"},
        {"{\"location\":7,\"x\":1}", "location"},
        {"{\"location\":\"a\"}", "no value"},
        {"{\"location\":\"a\",\"location\":\"b\",\"x\":1}", "twice"},
        {"{\"location\":\"a\",\"x\":{\"y\":1}}", "'x' is neither"},
        {"{\"location\":\"a\",\"x\":[1]}", "'x' is neither"},
        {"{\"location\":\"a\",\"x\":1,\"time\":\"soon\"}", "`time`"},
        {"{\"location\":\"a\",\"x\":1,\"time\":1,\"time\":1}", "twice"},
        {"[{\"location\":\"a\",\"x\":1},{\"x\":1}]", "object 2: `location`"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(cases[i].text), -EINVAL);
        if (strstr(why, cases[i].why) == NULL) {
            fail_msg("%s: %s", cases[i].text, why);
        }
    }
    push_body_finish(&body);
}

static int parse_many(size_t objects, size_t members)
{
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "[");
    for (size_t i = 0; i < objects; i++) {
        buffer_printf(&text, "%s{\"location\":\"a\"", i > 0 ? "," : "");
        for (size_t k = 0; k < members; k++) {
            buffer_printf(&text, ",\"%zu\":%zu", k, i);
        }
        buffer_add_text(&text, "}");
    }
    buffer_add_text(&text, "]");
    return parse(buffer_text(&text));
}

static void test_bounds(void **state)
{
    (void)state;
    assert_int_equal(parse_many(PUSH_OBJECTS_MAX, 1), 0);
    assert_int_equal(parse_many(PUSH_OBJECTS_MAX + 1, 1), -E2BIG);
    assert_int_equal(parse_many(2, PUSH_MEMBERS_MAX / 2), 0);
    assert_int_equal(parse_many(2, PUSH_MEMBERS_MAX / 2 + 1), -E2BIG);
    char text[JSON_READING_TEXT_MAX + 64];
    snprintf(text, sizeof text, "{\"location\":\"a\",\"x\":\"%0*d\"}", JSON_READING_TEXT_MAX, 1);
    assert_int_equal(parse(text), 0);
    snprintf(text, sizeof text, "{\"location\":\"a\",\"x\":\"%0*d\"}", JSON_READING_TEXT_MAX + 1,
             1);
    assert_int_equal(parse(text), -EINVAL);
    push_body_finish(&body);
}

/* The whole way. */

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    *state = bench;
    if (mini_start(&bench->mini, "127.0.0.1:0") < 0) {
        return -1;
    }
    char reason[200] = "";
    struct api_settings settings = {.listen = "127.0.0.1:0"};
    settings.tokens.text = "monitor read " READ_TOKEN "\nmast write " WRITE_TOKEN "\n";
    struct api_host host = bench->mini.host;
    snprintf(bench->path, sizeof bench->path, "%s/second.sock", bench->mini.dir);
    host.socket_path = bench->path;
    atomic_store(&bench->mini.devices[0]->takes_pushes, true);
    atomic_store(&bench->mini.devices[1]->takes_pushes, true);
    return api_start(&host, &settings, &bench->api, reason, sizeof reason);
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    api_stop(bench->api);
    mini_stop(&bench->mini);
    free(bench);
    return 0;
}

/* port 0: over the socket. */
static int post(struct bench *bench, unsigned port, const char *token, const char *text,
                struct buffer *heard)
{
    auto_buffer struct buffer request = {0};
    buffer_printf(&request,
                  "POST /sensor HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s%s%s"
                  "Content-Length: %zu\r\n\r\n%s",
                  token != NULL ? "Authorization: Bearer " : "", token != NULL ? token : "",
                  token != NULL ? "\r\n" : "", strlen(text), text);
    auto_close int fd = port == 0 ? peer_unix(bench->mini.socket) : peer_tcp(port);
    assert_true(fd >= 0);
    peer_say(fd, buffer_text(&request));
    buffer_clear(heard);
    assert_true(peer_hear(fd, heard, NULL));
    return peer_status(heard);
}

static void expect(struct bench *bench, const char *text, int status, const char *words)
{
    auto_buffer struct buffer heard = {0};
    int got = post(bench, 0, NULL, text, &heard);
    if (got != status || strstr(peer_body(&heard), words) == NULL) {
        fail_msg("%s: %s", text, buffer_text(&heard));
    }
}

static uint64_t stored(struct bench *bench)
{
    struct ledger_device total = {0};
    assert_int_equal(store_ledger_total(bench->mini.store, -1, &total), 0);
    return total.counts[LEDGER_STORED];
}

struct seen {
    unsigned scans;
    int64_t time_ms;
    double power;
    char text[16];
};

static int see(void *user, const struct scan *scan)
{
    struct seen *seen = user;
    seen->scans++;
    seen->time_ms = scan->time_ms;
    seen->power = reading_double(&scan->readings[0]);
    return 0;
}

/* What was answered with 200 is committed at that moment: no waiting here. */
static void test_accepted_is_stored(void **state)
{
    struct bench *bench = *state;
    expect(bench, "{\"location\":\"t01\",\"power\":13125,\"time\":\"2026-01-31T10:30:00Z\"}", 200,
           "{\"accepted\":1}");
    assert_int_equal(stored(bench), 1);
    struct seen seen = {0};
    assert_int_equal(store_history(bench->mini.store, STREAM_RAW, bench->mini.devices[0]->id, 0,
                                   INT64_MAX, see, &seen),
                     0);
    assert_int_equal(seen.scans, 1);
    assert_int_equal(seen.time_ms, 1769855400000);
    assert_true(seen.power > 1312.4 && seen.power < 1312.6);
    expect(
        bench,
        "[{\"location\":\"t01\",\"power\":1,\"wind\":2},{\"location\":\"t02\",\"grid_ok\":true}]",
        200, "{\"accepted\":2}");
    assert_int_equal(stored(bench), 4);
    assert_int_equal(atomic_load(&bench->mini.devices[1]->health.state), DEVICE_GOOD);
}

static void test_refused_is_not_stored(void **state)
{
    struct bench *bench = *state;
    expect(bench, "{\"location\":\"nobody\",\"power\":1}", 422, "no_such_device");
    expect(bench, "{\"location\":\"t\",\"power\":1}", 422, "no_such_device");
    expect(bench, "{\"location\":\"t03\",\"power\":1}", 422, "mode = listen");
    expect(bench, "{\"location\":\"t01\",\"powers\":1}", 422, "no point 'powers'");
    expect(bench, "{\"location\":\"t01\",\"power\":1,\"power\":2}", 422, "twice");
    expect(bench, "{\"location\":\"t01\",", 400, "bad_request");
    /* All or nothing: the first of these is sound. */
    expect(bench, "[{\"location\":\"t01\",\"power\":1},{\"location\":\"t02\",\"x\":1}]", 422,
           "no_such_point");
    assert_int_equal(stored(bench), 0);
}

static void test_tokens_decide(void **state)
{
    struct bench *bench = *state;
    static const char text[] = "{\"location\":\"t01\",\"power\":1}";
    auto_buffer struct buffer heard = {0};
    unsigned port = api_port(bench->api);
    assert_int_equal(post(bench, port, NULL, text, &heard), 401);
    assert_int_equal(post(bench, port, "wrongwrongwrongwrong", text, &heard), 401);
    assert_int_equal(post(bench, port, READ_TOKEN, text, &heard), 403);
    assert_int_equal(stored(bench), 0);
    assert_int_equal(post(bench, port, WRITE_TOKEN, text, &heard), 200);
    assert_int_equal(stored(bench), 1);
    /* Without a tokens file nobody has one, on loopback neither. */
    assert_int_equal(post(bench, api_port(bench->mini.api), NULL, text, &heard), 403);
}

/* The queue's bound: nothing is taken, and the sender learns when to come again. */
static void test_503_at_the_bound(void **state)
{
    struct bench *bench = *state;
    struct mini *mini = &bench->mini;
    pipeline_stop(mini->pipeline);
    size_t count = PIPELINE_QUEUE_READINGS / 4;
    auto_free struct scan *scan = calloc(1, scan_size_for(4, 0));
    scan->count = 4;
    for (size_t i = 0; i < count; i++) {
        int r = scan_submit(mini->devices[2], scan);
        if (r < 0) {
            assert_int_equal(r, -ENOBUFS);
            break;
        }
    }
    auto_buffer struct buffer heard = {0};
    assert_int_equal(post(bench, 0, NULL, "{\"location\":\"t01\",\"power\":1}", &heard), 503);
    assert_non_null(strstr(buffer_text(&heard), "\r\nRetry-After: 1\r\n"));
    assert_non_null(strstr(peer_body(&heard), "\"busy\""));
}

/* A kept connection: each answer takes a commit, not 44 ms more for a delayed acknowledgement. */
static void test_answers_do_not_wait_for_acknowledgements(void **state)
{
    struct bench *bench = *state;
    auto_close int fd = peer_tcp(api_port(bench->mini.api));
    static const char request[] = "GET /v1/devices HTTP/1.1\r\nHost: localhost\r\n\r\n";
    auto_buffer struct buffer heard = {0};
    int64_t best_us = INT64_MAX;
    for (int i = 0; i < 10; i++) {
        int64_t from_ns = clock_mono_ns();
        buffer_clear(&heard);
        peer_say(fd, request);
        assert_true(peer_hear(fd, &heard, "}]"));
        int64_t us = (clock_mono_ns() - from_ns) / 1000;
        best_us = us < best_us ? us : best_us;
    }
    assert_true(best_us < 20000);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_object),
        cmocka_unit_test(test_an_array),
        cmocka_unit_test(test_refusals_say_why),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test_setup_teardown(test_accepted_is_stored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_is_not_stored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tokens_decide, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_503_at_the_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_answers_do_not_wait_for_acknowledgements, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
