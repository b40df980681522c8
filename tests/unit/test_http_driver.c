/* The driver `http` against a server that does as the test says: what reaches the pipeline, what
 * the health says, and what is asked for. The pipeline is a double that keeps the last scan. */
#include "drivers/http/http_driver.h"
#include "drivers/http/http_fetch.h"
#include "drivers/http/http_pull.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

enum { POINTS_MAX = 8, LIMIT_MS = 60000 };

struct rig {
    struct device device; /* first */
    struct config_device config;
    struct config_point points[POINTS_MAX];
    struct http_point addresses[POINTS_MAX];
    struct http_device_settings settings;
    char url[80];
    unsigned scans;
    bool full;
    struct scan *scan;
};

struct fixture {
    struct event_base *base;
    struct evhttp *http;
    unsigned port;
    void *driver;
    struct rig rig;
    /* What the server does, and what it saw. */
    int status;
    const char *body, *etag, *retry_after;
    size_t huge;
    bool silent;
    struct evhttp_request *held;
    unsigned asked, conditional;
    char authorization[80], accept[80];
    int64_t asked_ms[64];
};

static struct fixture fixture;

int scan_submit(struct device *device, struct scan *scan)
{
    struct rig *rig = (struct rig *)device;
    rig->scans++;
    free(rig->scan);
    rig->scan = malloc(scan_size(scan));
    assert_non_null(rig->scan);
    memcpy(rig->scan, scan, scan_size(scan));
    return 0;
}

/* For the drivers of others, which the registry brings along. */
int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    (void)durable;
    (void)user;
    return scan_submit(device, scan);
}

bool scan_has_room(const struct device *device, size_t readings)
{
    const struct rig *rig = (const struct rig *)device;
    assert_int_equal(readings, rig->config.points.count);
    return !rig->full;
}

static void turn(struct fixture *f)
{
    const struct timeval soon = {.tv_usec = 5000};
    event_base_loopexit(f->base, &soon);
    event_base_dispatch(f->base);
}

#define run_until(f, condition)                                                                    \
    for (int64_t end_ms_ = clock_mono_ms() + LIMIT_MS; !(condition); turn(f)) {                    \
        if (clock_mono_ms() > end_ms_) {                                                           \
            fail_msg("not within %d ms: %s", LIMIT_MS, #condition);                                \
        }                                                                                          \
    }

static void serve(struct evhttp_request *request, void *user)
{
    struct fixture *f = user;
    struct evkeyvalq *in = evhttp_request_get_input_headers(request);
    struct evkeyvalq *out = evhttp_request_get_output_headers(request);
    f->asked_ms[f->asked % ARRAY_SIZE(f->asked_ms)] = clock_mono_ms();
    f->asked++;
    const char *match = evhttp_find_header(in, "If-None-Match");
    const char *authorization = evhttp_find_header(in, "Authorization");
    snprintf(f->authorization, sizeof f->authorization, "%s",
             authorization != NULL ? authorization : "");
    snprintf(f->accept, sizeof f->accept, "%s", evhttp_find_header(in, "Accept"));
    if (f->silent) {
        f->held = request;
        return;
    }
    if (f->etag != NULL) {
        evhttp_add_header(out, "ETag", f->etag);
    }
    if (f->retry_after != NULL) {
        evhttp_add_header(out, "Retry-After", f->retry_after);
    }
    if (match != NULL && f->etag != NULL && strcmp(match, f->etag) == 0) {
        f->conditional++;
        evhttp_send_reply(request, 304, "Not Modified", NULL);
        return;
    }
    if (f->status / 100 == 3) {
        evhttp_add_header(out, "Location", "http://127.0.0.1:1/elsewhere");
    }
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    evbuffer_add_printf(body, "%s", f->body);
    for (size_t i = 0; i < f->huge; i += 1000) {
        evbuffer_add_printf(body, "%1000d", 1);
    }
    evhttp_send_reply(request, f->status, "As told", NULL);
}

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof *f);
    *state = f;
    f->base = event_base_new();
    f->http = evhttp_new(f->base);
    struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(f->http, "127.0.0.1", 0);
    assert_non_null(bound);
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &len);
    f->port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    evhttp_set_gencb(f->http, serve, f);
    f->status = 200;
    f->body = "{\"wind\":{\"speed\":8.42,\"ok\":true},\"name\":\"mast\",\"at\":1769855400}";
    return http_driver.create(f->base, NULL, &f->driver);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->rig.device.driver_data != NULL) {
        http_driver.remove(f->driver, &f->rig.device);
    }
    http_driver.destroy(f->driver);
    evhttp_free(f->http);
    event_base_free(f->base);
    free(f->rig.scan);
    return 0;
}

static void add_point(struct rig *rig, const char *name, const char *source)
{
    char why[160] = "";
    size_t i = rig->config.points.count++;
    rig->points[i] = (struct config_point){
        .name = name, .source = source, .scale = {1, 0}, .every = 1};
    rig->points[i].address = &rig->addresses[i];
    int r = http_parse_point(&rig->points[i], &rig->settings, &rig->addresses[i], why, sizeof why);
    if (r != 0) {
        fail_msg("%s: %s", source, why);
    }
}

static struct rig *prepare(struct fixture *f)
{
    struct rig *rig = &f->rig;
    snprintf(rig->url, sizeof rig->url, "http://127.0.0.1:%u/weather?q=x", f->port);
    rig->settings.url = rig->url;
    rig->config = (struct config_device){.name = "forecast",
                                         .driver = "http",
                                         .points = {.list = rig->points},
                                         .poll_ms = 40,
                                         .timeout_ms = 300,
                                         .settings = &rig->settings};
    rig->device.config = &rig->config;
    add_point(rig, "wind", "json /wind/speed");
    add_point(rig, "ok", "json  /wind/ok");
    add_point(rig, "name", "json /name");
    add_point(rig, "none", "json /none");
    return rig;
}

static void start(struct fixture *f)
{
    assert_int_equal(http_driver.add(f->driver, &f->rig.device), 0);
}

static uint64_t errors_of(const struct rig *rig, enum device_error error)
{
    return atomic_load(&rig->device.health.errors[error]);
}

static int state_of(const struct rig *rig)
{
    return atomic_load(&rig->device.health.state);
}

static void assert_values(const struct rig *rig)
{
    const struct scan *scan = rig->scan;
    assert_int_equal(scan->count, 4);
    assert_int_equal(scan->readings[0].integer, 842);
    assert_int_equal(scan->readings[0].exponent, -2);
    assert_int_equal(scan->readings[1].kind, VALUE_BOOL);
    assert_int_equal(scan->readings[2].kind, VALUE_TEXT);
    assert_memory_equal(scan_text(scan, &scan->readings[2]), "mast", 4);
    assert_int_equal(scan->readings[3].quality, QUALITY_BAD_INVALID);
}

static void test_values_arrive_at_their_rate(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    rig->settings.token.text = "0123456789abcdef";
    start(f);
    run_until(f, rig->scans >= 10);
    assert_values(rig);
    assert_string_equal(f->authorization, "Bearer 0123456789abcdef");
    assert_string_equal(f->accept, "application/json");
    assert_int_equal(state_of(rig), DEVICE_GOOD);
    /* 40 ms apart, on a wheel of 20 ms; a loaded machine may be late, never early. */
    assert_true(f->asked_ms[9] - f->asked_ms[0] >= 9 * 40 - 2 * SCHEDULE_TICK_MS);
    assert_int_equal(f->conditional, 0);
}

/* 304: the values stand, and are readings of the present time. */
static void test_unchanged_values_are_asked_for_conditionally(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    f->etag = "\"v1\"";
    start(f);
    run_until(f, f->conditional >= 3);
    run_until(f, rig->scans >= 4);
    assert_values(rig);
    assert_int_equal(state_of(rig), DEVICE_GOOD);
    assert_int_equal(atomic_load(&rig->device.health.failures), 0);
    f->etag = "\"v2\"";
    f->body = "{\"wind\":{\"speed\":9}}";
    unsigned scans = rig->scans;
    run_until(f, rig->scans > scans && rig->scan->readings[0].integer == 9);
}

static void test_an_unchanged_time_brings_nothing_new(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    rig->settings.time = "/at";
    start(f);
    run_until(f, f->asked >= 5);
    assert_int_equal(rig->scans, 1);
    assert_int_equal(rig->scan->time_ms, 1769855400000);
    assert_int_equal(state_of(rig), DEVICE_GOOD);
    f->body = "{\"wind\":{\"speed\":9},\"at\":\"2026-01-31T10:30:01Z\"}";
    run_until(f, rig->scans == 2);
    assert_int_equal(rig->scan->time_ms, 1769855401000);
    f->body = "{\"wind\":{\"speed\":9}}";
    run_until(f, errors_of(rig, DEVICE_ERROR_PAYLOAD) > 0);
}

static void expect_failure(struct fixture *f, enum device_error error, enum quality quality)
{
    struct rig *rig = &f->rig;
    run_until(f, errors_of(rig, error) > 0 && state_of(rig) != DEVICE_GOOD);
    assert_int_equal(rig->scan->count, 4);
    assert_int_equal(rig->scan->readings[0].quality, quality);
}

static void test_failures_are_told_apart(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    start(f);
    run_until(f, state_of(rig) == DEVICE_GOOD);
    f->status = 500;
    expect_failure(f, DEVICE_ERROR_EXCEPTION, QUALITY_BAD_REFUSED);
    assert_int_equal(atomic_load(&rig->device.health.last_detail), 500);
    f->status = 200;
    run_until(f, state_of(rig) == DEVICE_GOOD);
    f->body = "<html>login</html>";
    expect_failure(f, DEVICE_ERROR_PAYLOAD, QUALITY_BAD_TYPE);
    f->body = "{}";
    run_until(f, state_of(rig) == DEVICE_GOOD);
    f->status = 302;
    atomic_store(&rig->device.health.errors[DEVICE_ERROR_EXCEPTION], 0);
    expect_failure(f, DEVICE_ERROR_EXCEPTION, QUALITY_BAD_REFUSED);
    assert_int_equal(atomic_load(&rig->device.health.last_detail), 302);
}

static void test_a_body_over_the_bound_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    start(f);
    run_until(f, state_of(rig) == DEVICE_GOOD);
    f->huge = HTTP_FETCH_BODY_MAX + 1000;
    expect_failure(f, DEVICE_ERROR_PAYLOAD, QUALITY_BAD_TYPE);
}

static void test_silence_is_a_timeout_and_costs_periods(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    start(f);
    run_until(f, state_of(rig) == DEVICE_GOOD);
    f->silent = true;
    expect_failure(f, DEVICE_ERROR_TIMEOUT, QUALITY_BAD_TIMEOUT);
    assert_true(errors_of(rig, DEVICE_ERROR_OVERRUN) >= 2);
    run_until(f, state_of(rig) == DEVICE_DEAD);
}

static void test_nobody_listens(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    snprintf(rig->url, sizeof rig->url, "http://127.0.0.1:1/");
    start(f);
    run_until(f, errors_of(rig, DEVICE_ERROR_CONNECT) >= HTTP_PULL_DEAD_AFTER);
    assert_int_equal(atomic_load(&rig->device.health.last_detail), ECONNREFUSED);
    assert_int_equal(state_of(rig), DEVICE_DEAD);
    assert_int_equal(rig->scans, 0);
    snprintf(rig->url, sizeof rig->url, "http://127.0.0.1:%u/", f->port);
}

static void test_retry_after_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    f->status = 429;
    f->retry_after = "1";
    start(f);
    run_until(f, f->asked == 1);
    f->status = 200;
    run_until(f, rig->scans == 1);
    assert_int_equal(f->asked, 2);
    assert_true(f->asked_ms[1] - f->asked_ms[0] >= 1000 - SCHEDULE_TICK_MS);
}

static void test_a_full_queue_costs_polls(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f);
    rig->full = true;
    start(f);
    run_until(f, errors_of(rig, DEVICE_ERROR_OVERRUN) >= 3);
    assert_int_equal(f->asked, 0);
    assert_int_equal(rig->scans, 0);
}

/* With a request under way, and the server still holding it. */
static void test_removal_in_the_middle(void **state)
{
    struct fixture *f = *state;
    prepare(f);
    f->silent = true;
    start(f);
    run_until(f, f->held != NULL);
    http_driver.remove(f->driver, &f->rig.device);
    assert_null(f->rig.device.driver_data);
    unsigned asked = f->asked;
    for (int i = 0; i < 30; i++) {
        turn(f);
    }
    assert_int_equal(f->asked, asked);
    assert_int_equal(f->rig.scans, 0);
}

static void test_a_listening_device_is_marked(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = &f->rig;
    rig->settings.mode = HTTP_MODE_LISTEN;
    rig->config = (struct config_device){.name = "mast", .settings = &rig->settings};
    rig->config.points.list = rig->points;
    rig->device.config = &rig->config;
    add_point(rig, "wind", "json");
    assert_int_equal(http_driver.add(f->driver, &rig->device), 0);
    assert_true(atomic_load(&rig->device.takes_pushes));
    http_driver.remove(f->driver, &rig->device);
    assert_false(atomic_load(&rig->device.takes_pushes));
}

static void test_points_that_are_none(void **state)
{
    (void)state;
    struct http_device_settings settings = {0}, listening = {.mode = HTTP_MODE_LISTEN};
    struct http_point address;
    char why[160];
    static const char *const sources[] = {"", "jsonx", "json wind", "holding 0 uint16", "json /~"};
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
        const struct config_point point = {.name = "p", .source = sources[i]};
        why[0] = '\0';
        assert_int_equal(http_parse_point(&point, &settings, &address, why, sizeof why), -EINVAL);
        assert_true(why[0] != '\0');
    }
    const struct config_point cases[] = {
        {.name = "p", .source = "json /p", .has_invalid = true},
        {.name = "p", .source = "json /p", .order = "ABCD"},
        {.name = "p", .source = "json /p", .writable = true},
        {.name = "p", .source = "json /other"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(http_parse_point(&cases[i], &listening, &address, why, sizeof why),
                         -EINVAL);
    }
    const struct config_point good = {.name = "p", .source = "json /p"};
    assert_int_equal(http_parse_point(&good, &listening, &address, why, sizeof why), 0);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_arrive_at_their_rate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unchanged_values_are_asked_for_conditionally, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_unchanged_time_brings_nothing_new, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_failures_are_told_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_body_over_the_bound_is_not_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silence_is_a_timeout_and_costs_periods, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_listens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_retry_after_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_queue_costs_polls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_removal_in_the_middle, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_listening_device_is_marked, set_up, tear_down),
        cmocka_unit_test(test_points_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
