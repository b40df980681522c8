/* Writes over Modbus TCP: values to registers and back for every type and order, and what becomes
 * of a write against a slave that refuses, lies, keeps silent or is gone. */
#include "drivers/modbus/modbus_tcp.h"
#include "drivers/modbus/poller.h"
#include "drivers/modbus/write_now.h"
#include "drivers/modbus/write_value.h"
#include "gateway/base/log.h"
#include "modbus_peer.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

struct fixture {
    struct event_base *base;
    void *driver;
    struct peer peer;
    struct device device;
    struct config_device config;
    struct config_point points[2];
    struct registers_point addresses[2];
    struct modbus_settings settings;
    struct driver_request request;
    size_t asked;
    unsigned answers;
    int error;
    char why[200];
    json_t *result;
};

static struct fixture fixture;

int scan_submit(struct device *device, struct scan *scan)
{
    (void)device;
    (void)scan;
    return 0;
}

int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    (void)durable;
    (void)user;
    return scan_submit(device, scan);
}

bool scan_has_room(const struct device *device, size_t readings)
{
    (void)device;
    (void)readings;
    return true;
}

/* --- values --- */

static struct config_point point_of(struct registers_point *address, const char *scale,
                                    const char *offset)
{
    struct config_point point = {.name = "p", .address = address, .writable = true};
    assert_int_equal(decimal_parse(scale, &point.scale), 0);
    assert_int_equal(decimal_parse(offset, &point.offset), 0);
    return point;
}

/* What is encoded decodes to the same value, in every order. */
static void check_round_trip(uint8_t type, const char *scale, const char *offset, const char *value)
{
    for (uint8_t order = 0; order < 4; order++) {
        struct registers_point address = {
            .type = type, .order = order, .width = registers_width(type, 0)};
        struct config_point point = point_of(&address, scale, offset);
        struct reading raw, back = {0};
        struct mbap_request request;
        uint8_t data[WRITE_VALUE_BYTES] = {0};
        char why[WRITE_VALUE_WHY] = "", text[REGISTERS_TEXT_MAX];
        if (write_value_raw(&point, value, &raw, why) != 0) {
            fail_msg("%s as %s: %s", value, registers_type_name(type), why);
        }
        assert_int_equal(write_value_request(&address, &raw, false, data, &request), 0);
        assert_int_equal(request.function,
                         address.width == 1 ? MBAP_WRITE_REGISTER : MBAP_WRITE_REGISTERS);
        assert_true(write_value_matches(&address, &raw, data));
        registers_decode(&address, data, &back, text);
        struct decimal wanted, got;
        assert_int_equal(decimal_parse(value, &wanted), 0);
        if (back.kind == VALUE_DECIMAL) {
            assert_int_equal(decimal_scale(reading_decimal(&back), point.scale, point.offset, &got),
                             0);
            assert_true(decimal_to_double(got) == decimal_to_double(wanted));
        } else {
            double number = back.real * decimal_to_double(point.scale) +
                            decimal_to_double(point.offset);
            assert_true(number - decimal_to_double(wanted) < 1e-6 &&
                        decimal_to_double(wanted) - number < 1e-6);
        }
        data[0] ^= 1;
        assert_false(write_value_matches(&address, &raw, data));
    }
}

static void test_values_of_every_type_and_order(void **state)
{
    (void)state;
    static const struct {
        uint8_t type;
        const char *scale, *offset, *value;
    } cases[] = {
        {REGISTERS_INT16, "1", "0", "-32768"},
        {REGISTERS_INT16, "0.01", "0", "-2.5"},
        {REGISTERS_INT16, "0.1", "-40", "21.5"},
        {REGISTERS_UINT16, "0.01", "0", "655.35"},
        {REGISTERS_UINT16, "10", "0", "120"},
        {REGISTERS_UINT16, "-1", "0", "-7"},
        {REGISTERS_UINT16, "0.25", "0", "12.75"},
        {REGISTERS_UINT16, "3", "1", "10"},
        {REGISTERS_INT32, "0.001", "0", "-2147483.648"},
        {REGISTERS_UINT32, "1", "0", "4294967295"},
        {REGISTERS_INT64, "1", "0", "-9223372036854775807"},
        {REGISTERS_UINT64, "1", "0", "9223372036854775807"},
        {REGISTERS_BCD16, "0.1", "0", "999.9"},
        {REGISTERS_BCD32, "1", "0", "99999999"},
        {REGISTERS_FLOAT32, "1", "0", "12.5"},
        {REGISTERS_FLOAT32, "0.5", "1", "0.1"},
        {REGISTERS_FLOAT64, "1", "0", "0.1"},
        {REGISTERS_FLOAT64, "2", "-3", "-1e-3"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        check_round_trip(cases[i].type, cases[i].scale, cases[i].offset, cases[i].value);
    }
}

static void test_values_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        uint8_t type;
        const char *scale, *value;
        int error;
    } cases[] = {
        {REGISTERS_INT16, "1", "32768", -ERANGE},
        {REGISTERS_INT16, "1", "0.5", -EINVAL},
        {REGISTERS_INT16, "0.01", "3.001", -EINVAL},
        {REGISTERS_INT16, "0.25", "0.3", -EINVAL},
        {REGISTERS_INT16, "3", "-1", -EINVAL},
        {REGISTERS_UINT16, "1", "-1", -ERANGE},
        {REGISTERS_UINT16, "1e-18", "1000", -ERANGE},
        {REGISTERS_UINT64, "1", "9223372036854775808", -ERANGE},
        {REGISTERS_BCD16, "1", "10000", -ERANGE},
        {REGISTERS_BCD16, "1", "-1", -ERANGE},
        {REGISTERS_FLOAT32, "1e-18", "1e18", 0},
        {REGISTERS_INT16, "1", "1e40", -ERANGE},
        {REGISTERS_INT16, "1", "", -EINVAL},
        {REGISTERS_INT16, "1", "0x10", -EINVAL},
        {REGISTERS_INT16, "1", "nan", -EINVAL},
        {REGISTERS_FLOAT32, "1", "inf", -EINVAL},
        {REGISTERS_BIT, "1", "2", -EINVAL},
        {REGISTERS_BIT, "1", "0.1", -EINVAL},
        {REGISTERS_STRING, "1", "1", -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct registers_point address = {.type = cases[i].type,
                                          .width = registers_width(cases[i].type, 2)};
        struct config_point point = point_of(&address, cases[i].scale, "0");
        struct reading raw;
        char why[WRITE_VALUE_WHY] = "";
        int r = write_value_raw(&point, cases[i].value, &raw, why);
        if (r != cases[i].error || (r < 0 && why[0] == '\0')) {
            fail_msg("%s as %s: %d %s", cases[i].value, registers_type_name(cases[i].type), r, why);
        }
    }
}

static void test_the_neighbours_of_a_value_are_named(void **state)
{
    (void)state;
    struct registers_point address = {.type = REGISTERS_INT16, .width = 1};
    struct config_point point = point_of(&address, "0.1", "0");
    struct reading raw;
    char why[WRITE_VALUE_WHY];
    assert_int_equal(write_value_raw(&point, "-2.55", &raw, why), -EINVAL);
    assert_non_null(strstr(why, "-2.6 and -2.5"));
}

/* --- the whole driver --- */

static void on_done(struct driver_request *request, int error, const char *why, json_t *result)
{
    struct fixture *f = request->user;
    f->answers++;
    f->error = error;
    snprintf(f->why, sizeof f->why, "%s", why != NULL ? why : "");
    json_decref(f->result);
    f->result = result;
}

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof *f);
    f->base = event_base_new();
    *state = f;
    peer_start(&f->peer, f->base);
    f->settings = (struct modbus_settings){
        .address = f->peer.address, .unit = 1, .max_gap = 16, .largest_request = 125};
    f->config = (struct config_device){.name = "t01",
                                       .driver = "modbus-tcp",
                                       .points = {.list = f->points, .count = 1},
                                       .poll_ms = 100000,
                                       .timeout_ms = 150,
                                       .settings = &f->settings};
    f->device.config = &f->config;
    return modbus_tcp_driver.create(f->base, NULL, &f->driver);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->device.driver_data != NULL) {
        modbus_tcp_driver.remove(f->driver, &f->device);
    }
    peer_stop(&f->peer);
    modbus_tcp_driver.destroy(f->driver);
    event_base_free(f->base);
    json_decref(f->result);
    return 0;
}

static void start(struct fixture *f, const char *source, const char *scale)
{
    char why[160];
    f->points[0] = (struct config_point){
        .name = "p", .source = source, .address = &f->addresses[0], .every = 1, .writable = true};
    assert_int_equal(decimal_parse(scale, &f->points[0].scale), 0);
    assert_int_equal(
        modbus_parse_point(&f->points[0], &f->settings, &f->addresses[0], why, sizeof why), 0);
    assert_int_equal(modbus_tcp_driver.add(f->driver, &f->device), 0);
}

static int begin(struct fixture *f, const char *value, int64_t within_ms)
{
    f->request = (struct driver_request){.deadline_ms = clock_mono_ms() + within_ms,
                                         .points = &f->asked,
                                         .point_count = 1,
                                         .value = value,
                                         .done = on_done,
                                         .user = f};
    return modbus_tcp_driver.write(f->driver, &f->device, &f->request);
}

static void write_now(struct fixture *f, const char *value)
{
    unsigned answers = f->answers;
    assert_int_equal(begin(f, value, 3000), 0);
    run_until(f->base, 5000, f->answers > answers);
}

static void expect(struct fixture *f, const char *key, const char *text)
{
    const char *found = json_string_value(json_object_get(f->result, key));
    if (text == NULL ? found != NULL : found == NULL || strcmp(found, text) != 0) {
        fail_msg("%s: %s (%d %s)", key, found != NULL ? found : "-", f->error, f->why);
    }
}

static void test_a_register(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 int16", "0.1");
    write_now(f, "-12.5");
    expect(f, "outcome", "done");
    expect(f, "old", "102");
    expect(f, "written", "-12.5");
    expect(f, "read_back", "-12.5");
    assert_int_equal((int16_t)f->peer.registers[20], -125);
    assert_int_equal(f->peer.writes, 1);
    assert_int_equal(f->peer.write_function, MBAP_WRITE_REGISTER);
}

static void test_several_registers(void **state)
{
    struct fixture *f = *state;
    f->settings.byte_order = REGISTERS_CDAB;
    start(f, "holding 20 int32", "0.001");
    write_now(f, "1234.567");
    expect(f, "outcome", "done");
    assert_int_equal(f->peer.registers[20], 1234567 & 0xffff);
    assert_int_equal(f->peer.registers[21], 1234567 >> 16);
    assert_int_equal(f->peer.write_function, MBAP_WRITE_REGISTERS);
}

static void test_coils_and_bits(void **state)
{
    struct fixture *f = *state;
    start(f, "coil 7", "1");
    write_now(f, "0");
    expect(f, "outcome", "done");
    expect(f, "old", "true");
    expect(f, "read_back", "false");
    assert_int_equal(f->peer.registers[7], 0);
    assert_int_equal(f->peer.write_function, MBAP_WRITE_COIL);
    write_now(f, "1");
    assert_int_equal(f->peer.registers[7], 1);
    modbus_tcp_driver.remove(f->driver, &f->device);
    start(f, "holding 30 bit:2", "1");
    f->peer.registers[30] = 0xf0f0;
    write_now(f, "1");
    expect(f, "outcome", "done");
    assert_int_equal(f->peer.registers[30], 0xf0f4);
}

static void test_functions_15_and_16_where_asked_for(void **state)
{
    struct fixture *f = *state;
    f->settings.write_multiple = true;
    start(f, "coil 8", "1");
    write_now(f, "1");
    expect(f, "outcome", "done");
    assert_int_equal(f->peer.write_function, MBAP_WRITE_COILS);
    assert_int_equal(f->peer.registers[8], 1);
    modbus_tcp_driver.remove(f->driver, &f->device);
    start(f, "holding 20 uint16", "1");
    write_now(f, "5");
    expect(f, "outcome", "done");
    assert_int_equal(f->peer.write_function, MBAP_WRITE_REGISTERS);
}

static void test_a_refusal_is_a_failure(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    f->peer.write_exception = MBAP_ILLEGAL_VALUE;
    write_now(f, "5");
    expect(f, "outcome", "failed");
    expect(f, "old", "1020");
    expect(f, "written", NULL);
    assert_non_null(strstr(json_string_value(json_object_get(f->result, "why")), "illegal value"));
    assert_int_equal(f->peer.writes, 0);
}

static void test_what_reads_back_otherwise_is_a_failure(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    f->peer.ignores_writes = true;
    write_now(f, "5");
    expect(f, "outcome", "failed");
    expect(f, "read_back", "1020");
    assert_int_equal(f->peer.writes, 1);
}

/* The request went out, no answer came: nobody knows, and it is not sent again. */
static void test_no_answer_is_unknown(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    f->peer.swallows_writes = true;
    write_now(f, "5");
    expect(f, "outcome", "unknown");
    expect(f, "read_back", "5");
    assert_int_equal(f->peer.writes, 1);
    f->peer.swallows_writes = false;
    f->peer.closes_on_write = true;
    write_now(f, "6");
    expect(f, "outcome", "unknown");
    assert_int_equal(f->peer.writes, 2);
    assert_int_equal(f->peer.registers[20], 6);
}

static void test_what_cannot_be_read_is_not_written(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    f->peer.hole_first = 20;
    f->peer.hole_count = 1;
    write_now(f, "5");
    assert_int_equal(f->error, -EIO);
    assert_non_null(strstr(f->why, "illegal address"));
    f->peer.mode = PEER_SILENT;
    write_now(f, "5");
    assert_int_equal(f->error, -ETIMEDOUT);
    assert_int_equal(f->peer.writes, 0);
}

static void test_nobody_is_there(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    peer_stop(&f->peer);
    write_now(f, "5");
    assert_int_equal(f->error, -EIO);
    assert_non_null(strstr(f->why, "connection"));
}

static void test_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    struct driver_request second;
    assert_int_equal(begin(f, "5", 3000), 0);
    second = f->request;
    assert_int_equal(modbus_tcp_driver.write(f->driver, &f->device, &second), -EBUSY);
    run_until(f->base, 3000, f->answers == 1);
    expect(f, "outcome", "done");
    assert_int_equal(f->peer.writes, 1);
}

static void test_not_after_the_deadline(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    assert_int_equal(begin(f, "5", -1), -ETIMEDOUT);
    /* It passes while the old value is awaited: the peer drips for longer than that. */
    f->peer.mode = PEER_DRIP;
    f->config.timeout_ms = 2000;
    assert_int_equal(begin(f, "5", 200), 0);
    run_until(f->base, 5000, f->answers == 1);
    assert_int_equal(f->error, -ETIMEDOUT);
    assert_int_equal(f->peer.writes, 0);
}

static void test_only_what_is_writable_and_fits(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "0.1");
    write_now(f, "0.15");
    assert_int_equal(f->error, -EINVAL);
    assert_non_null(strstr(f->why, "0.1 and 0.2"));
    f->points[0].writable = false;
    assert_int_equal(begin(f, "1", 1000), -EINVAL);
    assert_int_equal(f->peer.requests, 0);
}

/* The device is taken out before, and after, the request went out. */
static void test_removal_in_the_middle(void **state)
{
    struct fixture *f = *state;
    start(f, "holding 20 uint16", "1");
    f->peer.mode = PEER_SILENT;
    assert_int_equal(begin(f, "5", 3000), 0);
    peer_run(f->base, 20);
    modbus_tcp_driver.remove(f->driver, &f->device);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->error, -ECANCELED);
    f->peer.mode = PEER_GOOD;
    f->peer.swallows_writes = true;
    start(f, "holding 20 uint16", "1");
    assert_int_equal(begin(f, "5", 3000), 0);
    run_until(f->base, 3000, f->peer.writes == 1);
    modbus_tcp_driver.remove(f->driver, &f->device);
    assert_int_equal(f->answers, 2);
    expect(f, "outcome", "unknown");
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_of_every_type_and_order),
        cmocka_unit_test(test_values_that_do_not_fit),
        cmocka_unit_test(test_the_neighbours_of_a_value_are_named),
        cmocka_unit_test_setup_teardown(test_a_register, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_several_registers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_coils_and_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_functions_15_and_16_where_asked_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_refusal_is_a_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_reads_back_otherwise_is_a_failure, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_no_answer_is_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_read_is_not_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_after_the_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_what_is_writable_and_fits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_removal_in_the_middle, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
