/* The local API over its socket and over TCP, on a real store and pipeline. */
#include "gateway/api/later.h"
#include "gateway/api/live.h"
#include "tests/unit/mini_gateway.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */
#include "tests/unit/mini_gateway.inc"

/* Ten seconds begin there, about a minute ago; the history looks where readings of late are. */
static int64_t t0;

static int set_up(void **state)
{
    struct mini *mini = malloc(sizeof *mini);
    *state = mini;
    t0 = (clock_wall_ms() / 10000 - 6) * 10000;
    return mini_start(mini, "127.0.0.1:0");
}

static int tear_down(void **state)
{
    mini_stop(*state);
    free(*state);
    return 0;
}

/* One request over the socket (port 0) or over TCP; the body as JSON, or NULL. */
static int ask_raw(struct mini *mini, unsigned port, const char *request, struct buffer *heard)
{
    auto_close int fd = port == 0 ? peer_unix(mini->socket) : peer_tcp(port);
    assert_true(fd >= 0);
    peer_say(fd, request);
    buffer_clear(heard);
    assert_true(peer_hear(fd, heard, NULL));
    return peer_status(heard);
}

static json_t *get(struct mini *mini, const char *path, int expected)
{
    char request[600];
    auto_buffer struct buffer heard = {0};
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             path);
    int status = ask_raw(mini, 0, request, &heard);
    if (status != expected) {
        fail_msg("%s: %s", path, buffer_text(&heard));
    }
    json_t *json = json_loads(peer_body(&heard), 0, NULL);
    assert_non_null(json);
    return json;
}

static void expect_error(json_t *json, const char *code)
{
    const json_t *error = json_object_get(json, "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_true(json_string_length(json_object_get(error, "message")) > 0);
    json_decref(json);
}

/* Every member that interface.md promises, with its type. */
static void test_status(void **state)
{
    struct mini *mini = *state;
    mini_put(mini, 0, t0, 13125, true, 842);
    mini_wait_stored(mini, 3);
    json_t *json = get(mini, "/v1/status", 200);
    const char *gateway, *version, *name, *device_state, *last_good;
    json_int_t uptime, polls, failures, waiting, bytes, max_bytes, read, stored, delivered,
        ledger_waiting, dead, dropped;
    double rtt_ms;
    int synchronised;
    json_error_t error;
    int r = json_unpack_ex(
        json, &error, 0,
        "{s:s, s:s, s:I, s:{s:b}, s:[{s:s,s:s,s:s,s:F,s:I,s:I}*], s:{s:I,s:I,s:I}, "
        "s:{s:I,s:I,s:I,s:I,s:I,s:I}}",
        "gateway", &gateway, "version", &version, "uptime_s", &uptime, "clock", "synchronised",
        &synchronised, "devices", "name", &name, "state", &device_state, "last_good", &last_good,
        "rtt_ms", &rtt_ms, "polls", &polls, "failures", &failures, "store", "waiting", &waiting,
        "bytes", &bytes, "max_bytes", &max_bytes, "ledger", "read", &read, "stored", &stored,
        "delivered", &delivered, "waiting", &ledger_waiting, "dead", &dead, "dropped", &dropped);
    if (r < 0) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(gateway, "borssele-1");
    assert_string_equal(name, "t01");
    assert_string_equal(device_state, "good");
    assert_true(uptime >= 90 && uptime < 120);
    assert_true(rtt_ms > 2.29 && rtt_ms < 2.31);
    assert_int_equal(polls, 1);
    assert_int_equal(read, 3);
    assert_int_equal(stored, 3);
    assert_int_equal(dropped, 0);
    assert_true(json_is_array(json_object_get(json, "uplinks")));
    const json_t *store = json_object_get(json, "store");
    assert_non_null(json_object_get(store, "oldest"));
    assert_non_null(json_object_get(store, "seconds_left"));
    assert_int_equal(json_array_size(json_object_get(json, "devices")), 3);
    json_decref(json);
}

static void test_devices(void **state)
{
    struct mini *mini = *state;
    device_report_error(mini->devices[1], DEVICE_ERROR_TIMEOUT, 0, true);
    json_t *json = get(mini, "/v1/devices?device=t02", 200);
    const json_t *device = json_array_get(json_object_get(json, "devices"), 0);
    assert_string_equal(json_string_value(json_object_get(device, "state")), "dead");
    assert_true(json_string_length(json_object_get(device, "last_error")) > 0);
    const json_t *errors = json_object_get(device, "errors");
    assert_int_equal(json_object_size(errors), 1);
    assert_int_equal(json_integer_value(json_object_get(errors, "timeout")), 1);
    assert_true(json_is_null(json_object_get(device, "last_good")));
    json_decref(json);
    expect_error(get(mini, "/v1/devices?device=t99", 404), "no_such_device");
}

static const json_t *point_of(const json_t *json, size_t i, const char *name)
{
    const json_t *point = json_array_get(json_object_get(json, "points"), i);
    assert_string_equal(json_string_value(json_object_get(point, "point")), name);
    return point;
}

static void test_points(void **state)
{
    struct mini *mini = *state;
    mini_put(mini, 0, t0, 13125, true, -1);
    json_t *json = get(mini, "/v1/points?select=t01", 200);
    assert_int_equal(json_array_size(json_object_get(json, "points")), 3);
    const json_t *power = point_of(json, 0, "power");
    assert_true(json_number_value(json_object_get(power, "value")) == 1312.5);
    assert_string_equal(json_string_value(json_object_get(power, "unit")), "kW");
    assert_string_equal(json_string_value(json_object_get(power, "quality")), "good");
    char time[CLOCK_TEXT_SIZE];
    clock_format_utc(t0, time);
    assert_string_equal(json_string_value(json_object_get(power, "time")), time);
    assert_true(json_is_true(json_object_get(point_of(json, 1, "grid_ok"), "value")));
    const json_t *wind = point_of(json, 2, "wind");
    assert_true(json_is_null(json_object_get(wind, "value")));
    assert_string_equal(json_string_value(json_object_get(wind, "quality")), "bad:timeout");
    json_decref(json);
    json = get(mini, "/v1/points?select=*.power", 200);
    assert_int_equal(json_array_size(json_object_get(json, "points")), 3);
    const json_t *never = json_array_get(json_object_get(json, "points"), 1);
    assert_true(json_is_null(json_object_get(never, "quality")));
    json_decref(json);
}

static void test_ledger(void **state)
{
    struct mini *mini = *state;
    mini_put(mini, 2, t0, 1, true, 1);
    mini_wait_stored(mini, 3);
    json_t *json = get(mini, "/v1/ledger", 200);
    const json_t *total = json_object_get(json, "total");
    assert_int_equal(json_integer_value(json_object_get(total, "read")), 3);
    assert_true(json_is_true(json_object_get(total, "adds_up")));
    assert_int_equal(json_array_size(json_object_get(json, "devices")), 3);
    assert_true(json_is_array(json_object_get(json, "uplinks")));
    json_decref(json);
}

static void test_history(void **state)
{
    struct mini *mini = *state;
    for (int i = 0; i < 20; i++) {
        mini_put(mini, 0, t0 + i * 1000, i * 10, true, i == 7 ? -1 : 800 + i);
    }
    mini_wait_stored(mini, 60);
    char path[200], from[CLOCK_TEXT_SIZE];
    clock_format_utc(t0 + 2000, from);
    snprintf(path, sizeof path, "/v1/history?point=t01.wind&from=%s&to=%" PRId64, from, t0 + 12000);
    json_t *json = get(mini, path, 200);
    const json_t *readings = json_object_get(json, "readings");
    assert_int_equal(json_array_size(readings), 10);
    const json_t *first = json_array_get(readings, 0);
    assert_true(json_number_value(json_object_get(first, "value")) == 8.02);
    assert_string_equal(json_string_value(json_object_get(json_array_get(readings, 5), "quality")),
                        "bad:timeout");
    assert_true(json_is_false(json_object_get(json, "truncated")));
    assert_string_equal(json_string_value(json_object_get(json, "unit")), "m/s");
    json_decref(json);
    snprintf(path, sizeof path, "/v1/history?point=t01.wind&from=%" PRId64 "&to=%" PRId64 "&bin=10",
             t0, t0 + 20000);
    json = get(mini, path, 200);
    const json_t *bins = json_object_get(json, "bins");
    assert_int_equal(json_array_size(bins), 2);
    const json_t *bin = json_array_get(bins, 0);
    assert_int_equal(json_integer_value(json_object_get(bin, "count")), 9);
    assert_int_equal(json_integer_value(json_object_get(bin, "bad")), 1);
    assert_true(json_number_value(json_object_get(bin, "max")) == 8.09);
    assert_true(json_number_value(json_object_get(bin, "min")) == 8.0);
    json_decref(json);
    expect_error(get(mini, "/v1/history?point=t99.wind", 404), "no_such_point");
    expect_error(get(mini, "/v1/history?point=t01.nothing", 404), "no_such_point");
    expect_error(get(mini, "/v1/history", 400), "bad_query");
    expect_error(get(mini, "/v1/history?point=t01.wind&from=yesterday", 400), "bad_query");
    expect_error(get(mini, "/v1/history?point=t01.wind&from=5&to=4", 400), "bad_query");
}

static void test_metrics(void **state)
{
    struct mini *mini = *state;
    mini_put(mini, 0, t0, 13125, true, 842);
    auto_buffer struct buffer heard = {0};
    ask_raw(mini, 0, "GET /metrics?points=1 HTTP/1.1\r\nConnection: close\r\n\r\n", &heard);
    const char *text = buffer_text(&heard);
    assert_non_null(strstr(text, "text/plain; version=0.0.4"));
    assert_non_null(strstr(text, "\nwindrow_device_up{device=\"t01\"} 1\n"));
    assert_non_null(strstr(text, "\nwindrow_device_polls_total{device=\"t01\"} 1\n"));
    assert_non_null(
        strstr(text, "\nwindrow_point_value{device=\"t01\",point=\"power\",unit=\"kW\"} 1312.5\n"));
    assert_non_null(strstr(text, "# TYPE windrow_store_bytes gauge\n"));
}

static void test_page(void **state)
{
    struct mini *mini = *state;
    auto_buffer struct buffer heard = {0};
    assert_int_equal(ask_raw(mini, 0, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", &heard), 200);
    const char *text = buffer_text(&heard);
    assert_non_null(strstr(text, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(text, "script-src 'sha256-"));
    /* Self-contained: nothing is loaded from anywhere. */
    assert_null(strstr(text, "http://"));
    assert_null(strstr(text, "https://"));
    assert_null(strstr(text, "src='"));
    assert_null(strstr(text, "innerHTML"));
}

static void test_wrong_requests(void **state)
{
    struct mini *mini = *state;
    auto_buffer struct buffer heard = {0};
    expect_error(get(mini, "/v1/nothing", 404), "not_found");
    expect_error(get(mini, "/v1/status%00", 400), "bad_request");
    expect_error(get(mini, "/v1/reload", 405), "wrong_method");
    assert_int_equal(
        ask_raw(mini, 0, "DELETE /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n", &heard), 405);
    assert_int_equal(
        ask_raw(mini, 0, "HEAD /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n", &heard), 200);
    assert_string_equal(peer_body(&heard), "");
}

static void test_tcp_may_look_but_not_touch(void **state)
{
    struct mini *mini = *state;
    unsigned port = api_port(mini->api);
    assert_int_not_equal(port, 0);
    auto_buffer struct buffer heard = {0};
    assert_int_equal(ask_raw(mini, port,
                             "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n"
                             "Connection: close\r\n\r\n",
                             &heard),
                     200);
    assert_int_equal(ask_raw(mini, port,
                             "GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n"
                             "Connection: close\r\n\r\n",
                             &heard),
                     403);
    assert_int_equal(ask_raw(mini, port,
                             "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                             "Connection: close\r\n\r\n",
                             &heard),
                     403);
    assert_int_equal(mini->reloads, 0);
}

static void test_reload(void **state)
{
    struct mini *mini = *state;
    static const char request[] = "POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\n"
                                  "Connection: close\r\n\r\n";
    auto_buffer struct buffer heard = {0};
    assert_int_equal(ask_raw(mini, 0, request, &heard), 200);
    mini->reload_errors = "windrow.ini:7: [store] keep: no duration\n";
    assert_int_equal(ask_raw(mini, 0, request, &heard), 422);
    assert_non_null(strstr(buffer_text(&heard), "windrow.ini:7"));
    assert_int_equal(mini->reloads, 2);
}

/* POST /v1/read with that body; the connection stays open for the answer. */
static int start_read(struct mini *mini, const char *body)
{
    char request[600];
    snprintf(request, sizeof request,
             "POST /v1/read HTTP/1.1\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
             strlen(body), body);
    int fd = peer_unix(mini->socket);
    assert_true(fd >= 0);
    peer_say(fd, request);
    return fd;
}

static void wait_for_question(struct mini *mini)
{
    for (int i = 0; i < PEER_LIMIT_MS && mini->done == NULL; i++) {
        poll(NULL, 0, 1);
    }
    assert_non_null(mini->done);
}

static int end_read(int fd, struct buffer *heard)
{
    buffer_clear(heard);
    assert_true(peer_hear(fd, heard, NULL));
    close(fd);
    return peer_status(heard);
}

static void test_read(void **state)
{
    struct mini *mini = *state;
    auto_buffer struct buffer heard = {0};
    int fd = start_read(mini, "{\"device\":\"t01\",\"points\":[\"wind\",\"power\"]}");
    wait_for_question(mini);
    assert_int_equal(mini->asked_points, 2);
    /* The api answers others while the device thinks. */
    json_decref(get(mini, "/v1/status", 200));
    mini->done(mini->done_arg, 0, NULL, json_pack("{s:s}", "device", "t01"));
    assert_int_equal(end_read(fd, &heard), 200);
    assert_string_equal(peer_body(&heard), "{\"device\":\"t01\"}");
    mini->done = NULL;
    fd = start_read(mini, "{\"device\":\"t01\"}");
    wait_for_question(mini);
    mini->done(mini->done_arg, -ETIMEDOUT, "no answer within 500 ms", NULL);
    assert_int_equal(end_read(fd, &heard), 504);
    assert_non_null(strstr(peer_body(&heard), "no answer within 500 ms"));
}

static void test_read_refused(void **state)
{
    struct mini *mini = *state;
    auto_buffer struct buffer heard = {0};
    assert_int_equal(end_read(start_read(mini, "{\"device\":\"t99\"}"), &heard), 404);
    assert_int_equal(
        end_read(start_read(mini, "{\"device\":\"t01\",\"points\":[\"nothing\"]}"), &heard), 404);
    assert_non_null(strstr(peer_body(&heard), "no point 'nothing'"));
    assert_int_equal(end_read(start_read(mini, "rubbish"), &heard), 400);
    static const struct {
        int error, status;
    } cases[] = {{-ENOSYS, 501}, {-EBUSY, 503}, {-ENOENT, 404}, {-EIO, 500}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        mini->ask_error = cases[i].error;
        assert_int_equal(end_read(start_read(mini, "{\"device\":\"t01\"}"), &heard),
                         cases[i].status);
    }
}

/* The device answers after the api has stopped. */
static void test_read_outlives_the_api(void **state)
{
    struct mini *mini = *state;
    auto_buffer struct buffer heard = {0};
    int fd = start_read(mini, "{\"device\":\"t01\"}");
    wait_for_question(mini);
    api_stop(mini->api);
    mini->api = NULL;
    mini->done(mini->done_arg, 0, NULL, json_object());
    end_read(fd, &heard);
}

static int join_live(struct mini *mini, const char *path)
{
    char request[300];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    int fd = peer_unix(mini->socket);
    assert_true(fd >= 0);
    peer_say(fd, request);
    return fd;
}

static void test_live(void **state)
{
    struct mini *mini = *state;
    mini_put(mini, 0, t0, 100, true, 100);
    auto_close int fd = join_live(mini, "/v1/live");
    auto_buffer struct buffer heard = {0};
    assert_true(peer_hear(fd, &heard, "\"t03\""));
    assert_non_null(strstr(buffer_text(&heard), "text/event-stream"));
    assert_non_null(strstr(buffer_text(&heard), "\"full\":true"));
    buffer_clear(&heard);
    mini_put(mini, 1, t0 + 1000, 4444, true, -1);
    assert_true(peer_hear(fd, &heard, "444.4"));
    assert_true(peer_hear(fd, &heard, "\"wind\":\"bad:timeout\""));
    auto_close int one = join_live(mini, "/v1/live?device=t02");
    buffer_clear(&heard);
    assert_true(peer_hear(one, &heard, "444.4"));
    assert_null(strstr(buffer_text(&heard), "t01"));
}

/* At the bound the next viewer is told so; one that leaves makes place. */
static void test_live_bound(void **state)
{
    struct mini *mini = *state;
    int fds[LIVE_CLIENTS_MAX];
    for (size_t i = 0; i < LIVE_CLIENTS_MAX; i++) {
        auto_buffer struct buffer heard = {0};
        fds[i] = join_live(mini, "/v1/live");
        assert_true(peer_hear(fds[i], &heard, "\"full\":true"));
    }
    expect_error(get(mini, "/v1/live", 503), "too_many");
    close(fds[0]);
    bool joined = false;
    for (int i = 0; i < PEER_LIMIT_MS / 50 && !joined; i++) {
        auto_buffer struct buffer heard = {0};
        fds[0] = join_live(mini, "/v1/live");
        peer_hear(fds[0], &heard, "}");
        joined = peer_status(&heard) == 200;
        if (!joined) {
            close(fds[0]);
            poll(NULL, 0, 50);
        }
    }
    assert_true(joined);
    for (size_t i = 0; i < LIVE_CLIENTS_MAX; i++) {
        close(fds[i]);
    }
}

static void test_second_daemon_is_told(void **state)
{
    struct mini *mini = *state;
    struct api *second = NULL;
    char why[200] = "";
    assert_int_equal(api_start(&mini->host, &mini->settings, &second, why, sizeof why),
                     -EADDRINUSE);
    assert_non_null(strstr(why, "another windrowd"));
    /* It left the first one's socket alone. */
    json_decref(get(mini, "/v1/status", 200));
}

static void test_taken_port_is_named(void **state)
{
    struct mini *mini = *state;
    char listen[64], path[96], why[200] = "";
    snprintf(listen, sizeof listen, "127.0.0.1:%u", api_port(mini->api));
    snprintf(path, sizeof path, "%s/second.sock", mini->dir);
    const struct api_settings settings = {.listen = listen};
    struct api_host host = mini->host;
    host.socket_path = path;
    struct api *second = NULL;
    assert_int_equal(api_start(&host, &settings, &second, why, sizeof why), -EADDRINUSE);
    assert_non_null(strstr(why, listen));
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define WITH_GATEWAY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_GATEWAY(test_status),
        WITH_GATEWAY(test_devices),
        WITH_GATEWAY(test_points),
        WITH_GATEWAY(test_ledger),
        WITH_GATEWAY(test_history),
        WITH_GATEWAY(test_metrics),
        WITH_GATEWAY(test_page),
        WITH_GATEWAY(test_wrong_requests),
        WITH_GATEWAY(test_tcp_may_look_but_not_touch),
        WITH_GATEWAY(test_reload),
        WITH_GATEWAY(test_read),
        WITH_GATEWAY(test_read_refused),
        WITH_GATEWAY(test_read_outlives_the_api),
        WITH_GATEWAY(test_live),
        WITH_GATEWAY(test_live_bound),
        WITH_GATEWAY(test_second_daemon_is_told),
        WITH_GATEWAY(test_taken_port_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
