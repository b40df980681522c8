/* The driver whole, against a slave that misbehaves in every way: what reaches the pipeline, what
 * the health of a device says, and what neighbours notice. The pipeline is a double that keeps the
 * last scan. */
#include "drivers/modbus/modbus_tcp.h"
#include "drivers/modbus/poller.h"
#include "gateway/base/log.h"
#include "modbus_peer.h"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { POINTS_MAX = 80 };

/* A device with the double's view of it. */
struct rig {
    struct device device; /* first */
    struct config_device config;
    struct config_point points[POINTS_MAX];
    struct registers_point addresses[POINTS_MAX];
    char names[POINTS_MAX][12], sources[POINTS_MAX][40];
    struct modbus_settings settings;
    unsigned scans;
    bool full;
    struct scan *scan;
};

struct fixture {
    struct event_base *base;
    void *driver;
    struct peer peer;
    struct rig rigs[4];
};

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

/* Drivers that are linked in with the registry push. */
int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    (void)device;
    (void)scan;
    (void)durable;
    (void)user;
    return -ENOSYS;
}

bool scan_has_room(const struct device *device, size_t readings)
{
    const struct rig *rig = (const struct rig *)device;
    assert_true(readings <= rig->config.points.count);
    return !rig->full;
}

static struct fixture fixture;

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof(*f));
    f->base = event_base_new();
    *state = f;
    peer_start(&f->peer, f->base);
    return modbus_tcp_driver.create(f->base, NULL, &f->driver);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_SIZE(f->rigs); i++) {
        if (f->rigs[i].device.driver_data != NULL) {
            modbus_tcp_driver.remove(f->driver, &f->rigs[i].device);
        }
        free(f->rigs[i].scan);
    }
    peer_stop(&f->peer);
    modbus_tcp_driver.destroy(f->driver);
    event_base_free(f->base);
    return 0;
}

static void add_point(struct rig *rig, const char *source)
{
    char why[160];
    size_t i = rig->config.points.count++;
    snprintf(rig->names[i], sizeof(rig->names[i]), "p%zu", i);
    snprintf(rig->sources[i], sizeof(rig->sources[i]), "%s", source);
    rig->points[i] = (struct config_point){.name = rig->names[i],
                                           .source = rig->sources[i],
                                           .address = &rig->addresses[i],
                                           .scale = {1, 0},
                                           .every = 1};
    assert_int_equal(
        modbus_parse_point(&rig->points[i], &rig->settings, &rig->addresses[i], why, sizeof(why)),
        0);
}

/* Unit i + 1 of the peer; points as many holding registers from 0 on, `more` at the end. */
static struct rig *prepare(struct fixture *f, unsigned i, unsigned points)
{
    struct rig *rig = &f->rigs[i];
    rig->settings = (struct modbus_settings){
        .address = f->peer.address, .unit = (int64_t)i + 1, .max_gap = 16, .largest_request = 125};
    rig->config = (struct config_device){.name = "t01",
                                         .driver = "modbus-tcp",
                                         .points = {.list = rig->points},
                                         .poll_ms = 60,
                                         .timeout_ms = 60,
                                         .settings = &rig->settings};
    rig->device.config = &rig->config;
    for (unsigned p = 0; p < points; p++) {
        char source[40];
        snprintf(source, sizeof(source), "holding %u uint16", p);
        add_point(rig, source);
    }
    return rig;
}

static void start(struct fixture *f, struct rig *rig)
{
    assert_int_equal(modbus_tcp_driver.add(f->driver, &rig->device), 0);
}

static uint64_t errors_of(const struct rig *rig, enum device_error error)
{
    return atomic_load(&rig->device.health.errors[error]);
}

/* The reading of point i in the last scan. */
static const struct reading *reading_of(const struct rig *rig, unsigned i)
{
    const struct reading *found = NULL;
    for (unsigned k = 0; k < rig->scan->count; k++) {
        if (rig->scan->readings[k].point == i) {
            assert_null(found);
            found = &rig->scan->readings[k];
        }
    }
    return found;
}

static void assert_value(const struct rig *rig, unsigned i, int64_t value)
{
    const struct reading *reading = reading_of(rig, i);
    assert_non_null(reading);
    assert_int_equal(reading->quality, QUALITY_GOOD);
    assert_int_equal(reading->integer, value);
}

static void test_every_kind_of_value_arrives(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 0);
    add_point(rig, "holding 5 int16");
    add_point(rig, "input 7 int32");
    add_point(rig, "discrete 3");
    add_point(rig, "coil 4");
    add_point(rig, "holding 20 float32");
    add_point(rig, "holding 40 string:6");
    add_point(rig, "holding 6 bit:3");
    f->peer.registers[20] = 0x4148; /* 12.5 */
    f->peer.registers[21] = 0;
    f->peer.registers[40] = 'W' << 8 | 'i';
    f->peer.registers[41] = 'n' << 8 | 'd';
    f->peer.registers[42] = 0;
    start(f, rig);
    int64_t before_ms = clock_boot_ms();
    run_until(f->base, 2000, rig->scans >= 3);
    assert_int_equal(rig->scan->count, 7);
    assert_in_range(rig->scan->boot_ms, before_ms, clock_boot_ms());
    assert_value(rig, 0, 1005);
    assert_value(rig, 1, (int64_t)1007 << 16 | 1008);
    assert_value(rig, 2, 1);
    assert_value(rig, 3, 0);
    assert_int_equal(reading_of(rig, 4)->kind, VALUE_FLOAT);
    assert_true(fabs(reading_of(rig, 4)->real - 12.5) < 1e-9);
    assert_int_equal(reading_of(rig, 5)->text.len, 4);
    assert_memory_equal(scan_text(rig->scan, reading_of(rig, 5)), "Wind", 4);
    assert_int_equal(reading_of(rig, 6)->kind, VALUE_BOOL);
    assert_value(rig, 6, 1006 >> 3 & 1);
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_GOOD);
    assert_int_equal(f->peer.accepted, 1);
    assert_int_equal(atomic_load(&rig->device.health.failures), 0);
}

static void test_slow_points_are_read_now_and_then(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 2);
    rig->points[1].every = 3;
    start(f, rig);
    unsigned with = 0;
    for (unsigned n = 1; n <= 7; n++) {
        run_until(f->base, 1000, rig->scans >= n);
        with += reading_of(rig, 1) != NULL;
    }
    assert_int_equal(with, 3); /* polls 0, 3 and 6 */
}

static void test_a_hole_is_found_and_remembered(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 60);
    f->peer.hole_first = 20;
    f->peer.hole_count = 10;
    start(f, rig);
    run_until(f->base, 2000, rig->scans >= 1);
    assert_int_equal(rig->scan->count, 60);
    for (unsigned i = 0; i < 60; i++) {
        if (i >= 20 && i < 30) {
            assert_int_equal(reading_of(rig, i)->quality, QUALITY_BAD_REFUSED);
            assert_int_equal(reading_of(rig, i)->kind, VALUE_NULL);
        } else {
            assert_value(rig, i, 1000 + i);
        }
    }
    assert_in_range(f->peer.requests, 20, 40);
    /* Joined again, the rest takes two requests a round, and refusals are over. */
    struct poller *poller = rig->device.driver_data;
    run_until(f->base, 4000, poller->plan.settled);
    assert_int_equal(poller->plan.request_count, 2);
    uint64_t failures = atomic_load(&rig->device.health.failures);
    unsigned scans = rig->scans, requests = f->peer.requests;
    run_until(f->base, 2000, rig->scans >= scans + 4);
    assert_int_equal(f->peer.requests - requests, 8);
    assert_int_equal(atomic_load(&rig->device.health.failures), failures);
    assert_int_equal(rig->scan->count, 60);
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_GOOD);
}

static void test_a_gap_is_marked_once(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    start(f, rig);
    run_until(f->base, 1000, rig->scans >= 2);
    f->peer.mode = PEER_SILENT;
    unsigned scans = rig->scans;
    run_until(f->base, 2000, atomic_load(&rig->device.health.state) == DEVICE_DEAD);
    assert_in_range(rig->scans - scans, 1, 2);
    assert_int_equal(rig->scan->count, 3);
    assert_int_equal(reading_of(rig, 0)->quality, QUALITY_BAD_TIMEOUT);
    scans = rig->scans;
    peer_run(f->base, 300);
    assert_int_equal(rig->scans, scans);
    assert_int_equal(errors_of(rig, DEVICE_ERROR_TIMEOUT), BREAKER_FAILURES);
    f->peer.mode = PEER_GOOD;
    run_until(f->base, 3000, rig->scans > scans);
    assert_value(rig, 2, 1002);
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_GOOD);
}

static void test_a_device_that_was_never_there_submits_nothing(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    peer_leave(&f->peer);
    start(f, rig);
    run_until(f->base, 2000, atomic_load(&rig->device.health.state) == DEVICE_DEAD);
    assert_int_equal(rig->scans, 0);
    assert_int_equal(atomic_load(&rig->device.health.last_error), DEVICE_ERROR_CONNECT);
    assert_int_equal(atomic_load(&rig->device.health.last_detail), ECONNREFUSED);
    peer_listen(&f->peer);
    run_until(f->base, 3000, rig->scans > 0);
}

static void test_a_closed_connection_marks_bad_connection(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    start(f, rig);
    run_until(f->base, 1000, rig->scans >= 2);
    f->peer.mode = PEER_CLOSE;
    run_until(f->base, 1000, atomic_load(&rig->device.health.state) != DEVICE_GOOD);
    assert_int_equal(reading_of(rig, 1)->quality, QUALITY_BAD_CONNECTION);
}

static void test_busy_is_asked_again(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    rig->config.poll_ms = 400;
    f->peer.mode = PEER_EXCEPTION;
    f->peer.exception = MBAP_BUSY;
    f->peer.exceptions_left = 1;
    start(f, rig);
    run_until(f->base, 2000, rig->scans >= 1);
    assert_value(rig, 1, 1001);
    assert_int_equal(f->peer.requests, 2);
    assert_int_equal(atomic_load(&rig->device.health.failures), 0);
}

/* A silent device takes its first failed round two time-outs, from then on one. */
static void test_a_silent_device_is_not_asked_for_every_range(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 1);
    add_point(rig, "input 0 uint16");
    add_point(rig, "coil 0");
    add_point(rig, "discrete 0");
    rig->config.poll_ms = 200;
    f->peer.mode = PEER_SILENT;
    start(f, rig);
    run_until(f->base, 3000, atomic_load(&rig->device.health.state) == DEVICE_DEAD);
    assert_int_equal(f->peer.requests, POLLER_TIMEOUTS_MAX + 2);
    assert_int_equal(errors_of(rig, DEVICE_ERROR_OVERRUN), 0);
}

static void test_the_plan_in_words(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 2, 3);
    add_point(rig, "coil 7");
    rig->points[3].every = 10;
    auto_buffer struct buffer text = {0};
    assert_int_equal(modbus_tcp_driver.describe_plan(&rig->config, &text), 0);
    assert_string_equal(buffer_text(&text),
                        "unit 3 holding 0..2: 3 registers for 3 points, each 0.06 s\n"
                        "unit 3 coil 7: 1 bit for 1 point, each 0.6 s\n");
}

static void test_an_exception_refuses_without_opening_the_breaker(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    start(f, rig);
    run_until(f->base, 1000, rig->scans >= 1);
    f->peer.mode = PEER_EXCEPTION;
    f->peer.exception = MBAP_DEVICE_FAILURE;
    run_until(f->base, 2000, errors_of(rig, DEVICE_ERROR_EXCEPTION) >= 6);
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_FAILING);
    assert_int_equal(reading_of(rig, 1)->quality, QUALITY_BAD_REFUSED);
    assert_int_equal(f->peer.accepted, 1);
}

/* Three units on one connection, one of them dead: the others miss next to nothing. */
static void neighbours_of_a_dead_unit(struct fixture *f, uint32_t silent, uint32_t unreachable)
{
    for (unsigned i = 0; i < 3; i++) {
        start(f, prepare(f, i, 3));
    }
    run_until(f->base, 2000, f->rigs[0].scans > 2 && f->rigs[1].scans > 2 && f->rigs[2].scans > 2);
    assert_int_equal(f->peer.accepted, 1);
    f->peer.silent_units = silent;
    f->peer.unreachable_units = unreachable;
    run_until(f->base, 4000, atomic_load(&f->rigs[1].device.health.state) == DEVICE_DEAD);
    unsigned before = f->rigs[0].scans, probes = f->peer.unit_requests[2];
    peer_run(f->base, 1800); /* 30 periods, one probe at most */
    assert_true(f->rigs[0].scans - before >= 28);
    assert_in_range(f->peer.unit_requests[2] - probes, 0, 2);
    assert_int_equal(f->peer.accepted, 1);
    assert_int_equal(atomic_load(&f->rigs[0].device.health.failures), 0);
    assert_int_equal(atomic_load(&f->rigs[2].device.health.failures), 0);
}

static void test_a_silent_unit_costs_its_neighbours_little(void **state)
{
    neighbours_of_a_dead_unit(*state, 1U << 2, 0);
}

static void test_exception_11_is_the_device_not_the_connection(void **state)
{
    struct fixture *f = *state;
    neighbours_of_a_dead_unit(f, 0, 1U << 2);
    assert_int_equal(reading_of(&f->rigs[1], 0)->quality, QUALITY_BAD_TIMEOUT);
    assert_int_equal(atomic_load(&f->rigs[1].device.health.last_detail), MBAP_GATEWAY_TARGET);
}

static void test_one_silent_range_does_not_cost_the_others(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 1);
    rig->config.poll_ms = 150;
    add_point(rig, "holding 500 uint16");
    start(f, rig);
    run_until(f->base, 2000, rig->scans >= 1);
    f->peer.mode = PEER_LATE; /* each answer comes with the next question */
    run_until(f->base, 2000, atomic_load(&rig->device.health.failures) >= 1);
    assert_true(errors_of(rig, DEVICE_ERROR_MISMATCH) >= 1);
}

static void test_no_room_skips_and_counts(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 3);
    start(f, rig);
    run_until(f->base, 1000, rig->scans >= 1);
    rig->full = true;
    unsigned requests = f->peer.requests;
    run_until(f->base, 1000, errors_of(rig, DEVICE_ERROR_OVERRUN) >= 3);
    assert_int_equal(f->peer.requests, requests);
    rig->full = false;
    unsigned scans = rig->scans;
    run_until(f->base, 1000, rig->scans > scans);
}

static void test_a_slow_round_skips_whole_periods(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 1);
    rig->config.timeout_ms = 1000;
    f->peer.mode = PEER_DRIP; /* 11 bytes, 40 ms each: seven periods */
    start(f, rig);
    run_until(f->base, 3000, rig->scans >= 2);
    assert_in_range(errors_of(rig, DEVICE_ERROR_OVERRUN), 10, 16);
    assert_in_range(f->peer.requests, 2, 3);
    assert_int_equal(atomic_load(&rig->device.health.failures), 0);
}

static void test_quirks(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 6);
    rig->settings.one_request_per_point = true;
    rig->settings.close_after_round = true;
    rig->config.poll_ms = 200;
    start(f, rig);
    run_until(f->base, 2000, rig->scans >= 3);
    assert_int_equal(f->peer.requests, 18);
    assert_int_equal(f->peer.accepted, 3);
    run_until(f->base, 100, f->peer.open == 0);
}

static json_t *answer;
static int answer_error = 1;

static void on_answer(struct driver_request *request, int error, const char *why, json_t *result)
{
    (void)request;
    (void)why;
    answer_error = error;
    answer = result;
}

static void test_read_now_shows_every_decoding(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 0, 2);
    add_point(rig, "holding 20 float32");
    f->peer.registers[20] = 0x4148;
    f->peer.registers[21] = 0;
    rig->config.poll_ms = 60000;
    start(f, rig);
    const size_t wanted[] = {2, 0};
    struct driver_request request = {.deadline_ms = clock_mono_ms() + 60000,
                                     .points = wanted,
                                     .point_count = 2,
                                     .done = on_answer};
    answer_error = 1;
    assert_int_equal(modbus_tcp_driver.read_now(f->driver, &rig->device, &request), 0);
    assert_int_equal(answer_error, 1);
    run_until(f->base, 2000, answer_error != 1);
    assert_int_equal(answer_error, 0);
    json_t *point = json_array_get(json_object_get(answer, "points"), 0);
    assert_string_equal(json_string_value(json_object_get(point, "name")), "p2");
    assert_string_equal(json_string_value(json_array_get(json_object_get(point, "registers"), 0)),
                        "0x4148");
    json_t *decodings = json_object_get(point, "decodings");
    json_t *as_float = json_object_get(json_object_get(decodings, "float32"), "ABCD");
    assert_true(fabs(json_real_value(as_float) - 12.5) < 1e-9);
    json_t *as_int = json_object_get(json_object_get(decodings, "uint32"), "CDAB");
    assert_int_equal(json_integer_value(as_int), 0x4148);
    json_decref(answer);
    /* A device that goes takes its open questions with it. */
    f->peer.mode = PEER_SILENT;
    answer_error = 1;
    assert_int_equal(modbus_tcp_driver.read_now(f->driver, &rig->device, &request), 0);
    modbus_tcp_driver.remove(f->driver, &rig->device);
    assert_int_equal(answer_error, -ECANCELED);
    assert_null(answer);
}

#define driver_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        driver_test(test_every_kind_of_value_arrives),
        driver_test(test_slow_points_are_read_now_and_then),
        driver_test(test_a_hole_is_found_and_remembered),
        driver_test(test_a_gap_is_marked_once),
        driver_test(test_a_device_that_was_never_there_submits_nothing),
        driver_test(test_a_closed_connection_marks_bad_connection),
        driver_test(test_busy_is_asked_again),
        driver_test(test_a_silent_device_is_not_asked_for_every_range),
        driver_test(test_the_plan_in_words),
        driver_test(test_an_exception_refuses_without_opening_the_breaker),
        driver_test(test_a_silent_unit_costs_its_neighbours_little),
        driver_test(test_exception_11_is_the_device_not_the_connection),
        driver_test(test_one_silent_range_does_not_cost_the_others),
        driver_test(test_no_room_skips_and_counts),
        driver_test(test_a_slow_round_skips_whole_periods),
        driver_test(test_quirks),
        driver_test(test_read_now_shows_every_decoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
