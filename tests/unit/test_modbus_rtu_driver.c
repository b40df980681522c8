/* The driver for serial buses whole: eight units on a line, one of them dead, and what a bus says
 * of its load. The pipeline is a double that counts scans. */
#include "drivers/modbus/modbus_rtu.h"
#include "drivers/modbus/settings.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "rtu_peer.h"

#include <errno.h>
#include <event2/event.h>
#include <limits.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { UNITS = 8 };

struct rig {
    struct device device; /* first */
    struct config_device config;
    struct config_point points[2];
    struct registers_point addresses[2];
    struct modbus_settings settings;
    unsigned scans;
    struct reading last[2]; /* by point */
};

struct fixture {
    struct event_base *base;
    void *driver;
    struct rtu_peer peer;
    struct serial_settings serial;
    struct config_bus bus;
    struct config config;
    struct rig rigs[UNITS];
};

static struct fixture fixture;

int scan_submit(struct device *device, struct scan *scan)
{
    struct rig *rig = (struct rig *)device;
    bool good = false;
    for (unsigned i = 0; i < scan->count; i++) {
        rig->last[scan->readings[i].point] = scan->readings[i];
        good = good || scan->readings[i].quality == QUALITY_GOOD;
    }
    rig->scans += good;
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
    (void)device;
    (void)readings;
    return true;
}

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof(*f));
    *state = f;
    f->base = event_base_new();
    rtu_peer_start(&f->peer);
    f->serial = (struct serial_settings){
        .port = f->peer.path, .baud = 115200, .data_bits = 8, .stop_bits = 1};
    f->bus = (struct config_bus){.name = "b1", .settings = &f->serial, .fingerprint = 1};
    f->config = (struct config){.buses = &f->bus, .bus_count = 1};
    return modbus_rtu_driver.create(f->base, &f->config, &f->driver);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < UNITS; i++) {
        if (f->rigs[i].device.driver_data != NULL) {
            modbus_rtu_driver.remove(f->driver, &f->rigs[i].device);
        }
    }
    modbus_rtu_driver.destroy(f->driver);
    rtu_peer_stop(&f->peer);
    event_base_free(f->base);
    return 0;
}

static struct rig *prepare_with(struct fixture *f, unsigned unit, int64_t poll_ms,
                                const char *first, const char *second)
{
    struct rig *rig = &f->rigs[unit - 1];
    char why[160];
    rig->settings = (struct modbus_settings){
        .bus = "b1", .unit = unit, .max_gap = 16, .largest_request = 125};
    for (size_t i = 0; i < 2; i++) {
        rig->points[i] = (struct config_point){.name = i == 0 ? "a" : "b",
                                               .source = i == 0 ? first : second,
                                               .address = &rig->addresses[i],
                                               .scale = {1, 0},
                                               .every = 1};
        assert_int_equal(modbus_parse_point(&rig->points[i], &rig->settings, &rig->addresses[i],
                                            why, sizeof(why)),
                         0);
    }
    rig->config = (struct config_device){.name = "unit",
                                         .driver = "modbus-rtu",
                                         .points = {rig->points, 2},
                                         .poll_ms = poll_ms,
                                         .timeout_ms = poll_ms,
                                         .settings = &rig->settings};
    rig->device.config = &rig->config;
    rig->device.owner = &f->config;
    return rig;
}

static struct rig *prepare(struct fixture *f, unsigned unit, int64_t poll_ms)
{
    return prepare_with(f, unit, poll_ms, "holding 7 uint16", "input 20 int32");
}

static void run_for(struct fixture *f, int64_t ms)
{
    const struct timeval most = {ms / 1000, ms % 1000 * 1000};
    event_base_loopexit(f->base, &most);
    event_base_dispatch(f->base);
}

static void start_all(struct fixture *f, int64_t poll_ms)
{
    for (unsigned unit = 1; unit <= UNITS; unit++) {
        struct rig *rig = prepare(f, unit, poll_ms);
        assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    }
}

/* The least that one of the neighbours of the dead third unit was polled meanwhile. */
static unsigned polls_of_neighbours(struct fixture *f, int64_t run_ms)
{
    unsigned before[UNITS], least = UINT_MAX;
    for (size_t i = 0; i < UNITS; i++) {
        before[i] = f->rigs[i].scans;
    }
    run_for(f, run_ms);
    for (size_t i = 0; i < UNITS; i++) {
        unsigned scans = f->rigs[i].scans - before[i];
        if (i == 2) {
            assert_int_equal(scans, 0);
            assert_int_equal(atomic_load(&f->rigs[i].device.health.state), DEVICE_DEAD);
        } else {
            least = scans < least ? scans : least;
        }
    }
    return least;
}

/* One dead of eight: the others keep at least 95 % of their polls, as soon as the machine has been
 * free for that long. Where it never was, what of the line's time the dead one got tells. */
static void test_a_dead_unit_costs_its_neighbours_little(void **state)
{
    struct fixture *f = *state;
    enum { POLL_MS = 100, RUN_MS = 5000, ATTEMPTS = 6 };
    f->peer.silent_units = 1 << 3;
    start_all(f, POLL_MS);
    while (atomic_load(&f->rigs[2].device.health.state) != DEVICE_DEAD) {
        run_for(f, 100); /* the first rounds, until the breaker is open */
    }
    unsigned least = 0, asked = f->peer.unit_requests[3];
    int64_t began_ms = clock_mono_ms();
    for (int i = 0; i < ATTEMPTS && least < RUN_MS / POLL_MS * 95 / 100; i++) {
        least = polls_of_neighbours(f, RUN_MS);
    }
    asked = f->peer.unit_requests[3] - asked;
    assert_true(least >= RUN_MS / POLL_MS * 95 / 100 ||
                asked * POLL_MS <= (clock_mono_ms() - began_ms) * 5 / 100);
    for (size_t i = 0; i < UNITS; i++) {
        assert_true(i == 2 || f->rigs[i].last[0].integer == (int64_t)(100 * (i + 1) + 7));
    }
    assert_true(f->peer.unit_requests[3] >= 2);
    f->peer.silent_units = 0;
    int64_t end_ms = clock_mono_ms() + 60000;
    while (f->rigs[2].scans == 0 && clock_mono_ms() < end_ms) {
        run_for(f, 20);
    }
    assert_true(f->rigs[2].scans > 0);
    assert_int_equal(f->peer.broken, 0);
}

static void test_health_counts(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 1, 100);
    rig->config.timeout_ms = 40;
    assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    int64_t end_ms = clock_mono_ms() + 60000;
    while (rig->scans < 3 && clock_mono_ms() < end_ms) {
        run_for(f, 20);
    }
    assert_true(rig->scans >= 3);
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_GOOD);
    assert_true(atomic_load(&rig->device.health.rtt_us) > 0);
    f->peer.mode = RTU_PEER_BAD_CRC;
    const _Atomic uint64_t *framing = &rig->device.health.errors[DEVICE_ERROR_FRAMING];
    while (atomic_load(framing) == 0 && clock_mono_ms() < end_ms) {
        run_for(f, 20);
    }
    assert_true(atomic_load(framing) > 0);
    assert_int_equal(rig->last[0].quality, QUALITY_BAD_CONNECTION);
    f->peer.mode = RTU_PEER_GOOD;
}

struct answer {
    struct driver_request request; /* first */
    unsigned count;
    json_t *result;
};

static void on_answer(struct driver_request *request, int error, const char *why, json_t *result)
{
    struct answer *answer = (struct answer *)request;
    (void)why;
    assert_int_equal(error, 0);
    answer->count++;
    answer->result = result;
}

static void test_read_now(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = prepare(f, 2, 60000);
    assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    struct answer answer = {.request = {.deadline_ms = clock_mono_ms() + 60000, .done = on_answer}};
    assert_int_equal(modbus_rtu_driver.read_now(f->driver, &rig->device, &answer.request), 0);
    int64_t end_ms = clock_mono_ms() + 60000;
    while (answer.count == 0 && clock_mono_ms() < end_ms) {
        run_for(f, 5);
    }
    assert_int_equal(answer.count, 1);
    const json_t *points = json_object_get(answer.result, "points");
    assert_int_equal(json_array_size(points), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(points, 0), "raw_value")),
                     207);
    json_decref(answer.result);
}

/* Units on one bus share it; when all are gone, so is the thread, and the bus opens again. */
static void test_removal_and_return(void **state)
{
    struct fixture *f = *state;
    start_all(f, 50);
    run_for(f, 200);
    for (unsigned i = 0; i < UNITS; i++) {
        modbus_rtu_driver.remove(f->driver, &f->rigs[i].device);
        f->rigs[i].scans = 0;
    }
    /* As after a reload: another speed, so another bus. */
    f->bus.fingerprint = 2;
    f->serial.baud = 57600;
    start_all(f, 50);
    int64_t end_ms = clock_mono_ms() + 60000;
    for (unsigned i = 0; i < UNITS; i++) {
        while (f->rigs[i].scans == 0 && clock_mono_ms() < end_ms) {
            run_for(f, 10);
        }
        assert_true(f->rigs[i].scans > 0);
    }
}

static void test_load_of_a_bus(void **state)
{
    struct fixture *f = *state;
    auto_buffer struct buffer text = {0};
    struct config_device devices[2];
    devices[0] = prepare(f, 1, 1000)->config;
    devices[1] = prepare(f, 2, 1000)->config;
    f->config.devices = devices;
    f->config.device_count = 2;
    f->serial.baud = 9600;
    modbus_rtu_driver.describe_section(&f->config, "b1", &text, NULL);
    /* 10-bit characters: 15 and 17 bytes with two gaps of 3.5, twice: 96 ms. */
    assert_non_null(strstr(buffer_text(&text), "2 devices, 4 requests, 96 ms a round, 10 %"));
    assert_null(strstr(buffer_text(&text), "impossible"));
    devices[1].poll_ms = 50;
    buffer_clear(&text);
    modbus_rtu_driver.describe_section(&f->config, "b1", &text, NULL);
    assert_non_null(strstr(buffer_text(&text), "impossible, polls will be skipped"));
    f->config.devices = NULL;
    f->config.device_count = 0;
}

/* A map with a meter behind the common model, at one of the three places. */
static void lay_out_meter(uint16_t *registers, unsigned base, unsigned common, int16_t watts)
{
    memset(registers, 0, 65536 * sizeof(*registers));
    uint16_t *at = registers + base;
    *at++ = 0x5375;
    *at++ = 0x6e53;
    *at++ = 1;
    *at++ = (uint16_t)common;
    at += common;
    at[0] = 203;
    at[1] = 105;
    at[18] = (uint16_t)watts;
    at[22] = (uint16_t)-1;
    at[107] = 0xffff;
}

static void run_until_scans(struct fixture *f, struct rig *rig, unsigned scans)
{
    int64_t end_ms = clock_mono_ms() + 60000;
    while (rig->scans < scans && clock_mono_ms() < end_ms) {
        run_for(f, 10);
    }
    assert_true(rig->scans >= scans);
}

/* A model is found where it stands; one that is not there makes its points bad, and only those. */
static void test_models_found_and_missing(void **state)
{
    struct fixture *f = *state;
    static uint16_t map[65536];
    lay_out_meter(map, 50000, 66, -2070);
    f->peer.registers = map;
    struct rig *rig = prepare_with(f, 1, 50, "sunspec 203 W", "sunspec 103 W");
    assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    run_until_scans(f, rig, 3);
    assert_int_equal(rig->last[0].integer, -2070);
    assert_int_equal(rig->last[0].exponent, -1);
    assert_int_equal(rig->last[1].kind, VALUE_NULL);
    assert_int_equal(rig->last[1].quality, QUALITY_BAD_REFUSED);
    assert_true(atomic_load(&rig->device.health.errors[DEVICE_ERROR_EXCEPTION]) > 0);
    struct answer answer = {.request = {.deadline_ms = clock_mono_ms() + 60000, .done = on_answer}};
    assert_int_equal(modbus_rtu_driver.read_now(f->driver, &rig->device, &answer.request), 0);
    while (answer.count == 0) {
        run_for(f, 5);
    }
    const json_t *points = json_object_get(answer.result, "points");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(points, 0), "address")),
                     50002 + 68 + 18);
    assert_non_null(json_object_get(json_array_get(points, 1), "error"));
    json_decref(answer.result);
}

/* Nothing but points of a model that is not there: no polls in vain, and it is said. */
static void test_nothing_found(void **state)
{
    struct fixture *f = *state;
    static uint16_t map[65536];
    f->peer.registers = map;
    struct rig *rig = prepare_with(f, 1, 50, "sunspec 203 W", "sunspec 103 W");
    assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    int64_t end_ms = clock_mono_ms() + 60000;
    while (atomic_load(&rig->device.health.state) != DEVICE_FAILING && clock_mono_ms() < end_ms) {
        run_for(f, 10);
    }
    assert_int_equal(atomic_load(&rig->device.health.last_error), DEVICE_ERROR_EXCEPTION);
    unsigned requests = f->peer.requests;
    assert_int_equal(requests, 3);
    run_for(f, 500);
    assert_int_equal(f->peer.requests, requests);
}

/* The device is exchanged for one that keeps its models elsewhere: they are looked for again when
 * it is back. */
static void test_an_exchanged_device(void **state)
{
    struct fixture *f = *state;
    static uint16_t map[65536], other[65536];
    lay_out_meter(map, 40000, 66, 100);
    lay_out_meter(other, 0, 65, 200);
    f->peer.registers = map;
    struct rig *rig = prepare_with(f, 1, 50, "sunspec 203 W", "holding 40000 uint16");
    assert_int_equal(modbus_rtu_driver.add(f->driver, &rig->device), 0);
    run_until_scans(f, rig, 2);
    assert_int_equal(rig->last[0].integer, 100);
    f->peer.silent_units = 2;
    int64_t end_ms = clock_mono_ms() + 60000;
    while (atomic_load(&rig->device.health.state) != DEVICE_DEAD && clock_mono_ms() < end_ms) {
        run_for(f, 10);
    }
    assert_int_equal(atomic_load(&rig->device.health.state), DEVICE_DEAD);
    f->peer.registers = other;
    f->peer.silent_units = 0;
    while (rig->last[0].integer != 200 && clock_mono_ms() < end_ms + 10000) {
        run_for(f, 10);
    }
    assert_int_equal(rig->last[0].integer, 200);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_dead_unit_costs_its_neighbours_little, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_health_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_now, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_removal_and_return, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_load_of_a_bus, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_models_found_and_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_exchanged_device, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
