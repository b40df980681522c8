/* The bus: its thread, its mailbox and its port, against a line that misbehaves in every way. */
#include "drivers/modbus/bus.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "rtu_peer.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

struct fixture {
    struct event_base *base;
    struct rtu_peer peer;
    struct serial_settings settings;
    struct bus *bus;
};

/* A request with its copy of the result. */
struct ask {
    struct session_request request; /* first */
    struct session_result result;
    uint8_t data[RTU_FRAME_MAX];
    unsigned answers;
};

static struct fixture fixture;

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof(*f));
    *state = f;
    f->base = event_base_new();
    rtu_peer_start(&f->peer);
    f->settings = (struct serial_settings){.port = f->peer.path,
                                           .baud = 115200,
                                           .data_bits = 8,
                                           .stop_bits = 1,
                                           .parity = SERIAL_NONE,
                                           .broadcast_pause_ms = 20};
    return bus_create(f->base, "b1", &f->settings, &f->bus);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->bus != NULL) {
        wire_put(bus_wire(f->bus));
    }
    rtu_peer_stop(&f->peer);
    event_base_free(f->base);
    return 0;
}

static void on_done(struct session_request *request, const struct session_result *result)
{
    struct ask *ask = (struct ask *)request;
    ask->result = *result;
    ask->answers++;
    if (result->data_len > 0) {
        memcpy(ask->data, result->data, result->data_len);
    }
}

static struct ask ask_for(unsigned unit, unsigned first, unsigned count)
{
    return (struct ask){.request = {.ask = {.function = MBAP_READ_HOLDING,
                                            .first = (uint16_t)first,
                                            .count = (uint16_t)count},
                                    .unit = (uint8_t)unit,
                                    .timeout_ms = 100,
                                    .done = on_done}};
}

static void send_it(struct fixture *f, struct ask *ask)
{
    ask->answers = 0;
    assert_int_equal(wire_submit(bus_wire(f->bus), &ask->request, false), 0);
}

static void run_until_answered(struct fixture *f, struct ask *ask)
{
    int64_t end_ms = clock_mono_ms() + 60000;
    while (ask->answers == 0 && clock_mono_ms() < end_ms) {
        const struct timeval most = {1, 0};
        event_base_loopexit(f->base, &most);
        event_base_loop(f->base, EVLOOP_ONCE);
    }
    assert_int_equal(ask->answers, 1);
}

static enum device_error read_one(struct fixture *f, struct ask *ask)
{
    send_it(f, ask);
    run_until_answered(f, ask);
    return ask->result.error;
}

static void assert_read(struct fixture *f, unsigned unit, unsigned first)
{
    struct ask ask = ask_for(unit, first, 2);
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(ask.result.data_len, 4);
    assert_int_equal(mbap_get16(ask.data), 100 * unit + first);
    assert_int_equal(mbap_get16(ask.data + 2), 100 * unit + first + 1);
}

static void test_reads(void **state)
{
    struct fixture *f = *state;
    assert_read(f, 1, 0);
    assert_read(f, 247, 40);
    struct ask all = ask_for(3, 0, MBAP_READ_REGISTERS_MAX);
    assert_int_equal(read_one(f, &all), DEVICE_ERROR_NONE);
    assert_int_equal(all.result.data_len, 250);
    struct ask bits = ask_for(3, 1, 9);
    bits.request.ask.function = MBAP_READ_COILS;
    assert_int_equal(read_one(f, &bits), DEVICE_ERROR_NONE);
    assert_int_equal(bits.data[0], 0x55);
    assert_true(bits.result.rtt_us > 0);
}

static void test_silence_between_frames(void **state)
{
    struct fixture *f = *state;
    struct ask asks[20];
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
        asks[i] = ask_for(1, 0, 1);
        send_it(f, &asks[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
        run_until_answered(f, &asks[i]);
        asks[i].answers = 1;
    }
    assert_int_equal(f->peer.requests, 20);
    /* The peer takes its time stamp after its write, so a little of t3.5 may lie before it. */
    assert_true(f->peer.least_gap_ns > 1600000);
}

static void test_a_late_reply_is_not_taken_for_the_next(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_LATE;
    f->peer.delay_ms = 2150; /* into the silence of 500 ms that is waited for */
    f->peer.once = 1;
    struct ask late = ask_for(1, 50, 2), next = ask_for(1, 60, 2);
    late.request.timeout_ms = 2000;
    send_it(f, &late);
    send_it(f, &next);
    run_until_answered(f, &late);
    assert_int_equal(late.result.error, DEVICE_ERROR_TIMEOUT);
    assert_int_equal(late.result.mismatches, 1);
    run_until_answered(f, &next);
    assert_int_equal(next.result.error, DEVICE_ERROR_NONE);
    assert_int_equal(mbap_get16(next.data), 160);
}

/* After a damaged reply the line is in step again: at once, or on a busy machine, where the peer's
 * bytes come late, after another error; but never with a wrong value. */
static void assert_recovers(struct fixture *f, unsigned unit, unsigned first)
{
    struct ask ask = ask_for(unit, first, 2);
    unsigned tries = 1;
    while (read_one(f, &ask) != DEVICE_ERROR_NONE && tries < 5) {
        tries++;
    }
    assert_int_equal(ask.result.error, DEVICE_ERROR_NONE);
    assert_int_equal(mbap_get16(ask.data), 100 * unit + first);
}

static void test_damaged_replies(void **state)
{
    struct fixture *f = *state;
    static const enum rtu_peer_mode modes[] = {RTU_PEER_BAD_CRC, RTU_PEER_CUT,
                                               RTU_PEER_WRONG_FUNCTION, RTU_PEER_WRONG_COUNT,
                                               RTU_PEER_GARBAGE};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        f->peer.mode = (int)modes[i];
        f->peer.once = 1;
        struct ask bad = ask_for(1, 50, 2);
        assert_int_equal(read_one(f, &bad), DEVICE_ERROR_FRAMING);
        assert_recovers(f, 1, 60);
    }
}

/* A frame of another unit is dropped, the right one behind it taken. */
static void test_foreign_reply(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_FOREIGN;
    struct ask ask = ask_for(1, 50, 2);
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(ask.result.mismatches, 1);
    assert_int_equal(mbap_get16(ask.data), 150);
}

/* On a busy machine the noise may come so late that it spoils the next request; the one after that
 * is good again, and no value is ever wrong. */
static void test_noise_behind_a_reply(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_NOISE;
    for (unsigned i = 0; i < 5; i++) {
        assert_recovers(f, 1, i);
    }
}

/* Whole replies of 65 bytes would take two seconds at this pace: the bus is not held that long. */
static void test_a_dripping_device(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_TORN;
    assert_recovers(f, 1, 5);
    f->peer.mode = RTU_PEER_DRIP;
    f->peer.once = 1;
    struct ask ask = ask_for(1, 0, 30);
    int64_t began_ms = clock_mono_ms();
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_FRAMING);
    assert_true(clock_mono_ms() - began_ms < 2600);
    assert_true(ask.result.cost_ms >= 200);
    assert_recovers(f, 1, 0);
}

static void test_exceptions(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_EXCEPTION;
    struct ask ask = ask_for(1, 0, 1);
    int64_t began_ms = clock_mono_ms();
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_EXCEPTION);
    assert_int_equal(ask.result.detail, 2);
    assert_true(clock_mono_ms() - began_ms < 50);
}

static void test_writes_and_broadcasts(void **state)
{
    struct fixture *f = *state;
    const uint8_t values[] = {0x12, 0x34, 0x56, 0x78};
    struct ask ask = ask_for(5, 10, 2);
    ask.request.ask.function = MBAP_WRITE_REGISTERS;
    ask.request.ask.data = values;
    ask.request.ask.data_len = 4;
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(f->peer.writes, 1);
    /* Nobody answers a broadcast: that is success, after the pause that devices need. */
    ask.request.unit = RTU_BROADCAST;
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(ask.result.data_len, 0);
    assert_true(ask.result.cost_ms >= 20);
    assert_int_equal(f->peer.writes, 2);
    struct ask nonsense = ask_for(RTU_BROADCAST, 0, 1);
    assert_int_equal(wire_submit(bus_wire(f->bus), &nonsense.request, false), -EINVAL);
    nonsense = ask_for(248, 0, 1);
    assert_int_equal(wire_submit(bus_wire(f->bus), &nonsense.request, false), -EINVAL);
}

static void test_the_queue_has_a_bound(void **state)
{
    struct fixture *f = *state;
    static struct ask asks[BUS_QUEUE_MAX + 2];
    unsigned taken = 0;
    f->peer.silent_units = 2;
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
        asks[i] = ask_for(1, 0, 1);
        int r = wire_submit(bus_wire(f->bus), &asks[i].request, i % 2 == 0);
        taken += r == 0;
        assert_true(r == 0 || r == -ENOBUFS);
    }
    assert_int_equal(taken, BUS_QUEUE_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
        wire_cancel(bus_wire(f->bus), &asks[i].request);
    }
    f->peer.silent_units = 0;
    assert_read(f, 2, 7);
    for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
        assert_int_equal(asks[i].answers, 0);
    }
}

/* In the middle of an hour's wait for a device that is silent. */
static void test_stop_is_prompt(void **state)
{
    struct fixture *f = *state;
    f->peer.silent_units = 2;
    struct ask ask = ask_for(1, 0, 1);
    ask.request.timeout_ms = 3600000;
    send_it(f, &ask);
    while (f->peer.requests == 0) {
        sched_yield();
    }
    wire_cancel(bus_wire(f->bus), &ask.request);
    int64_t began_ms = clock_mono_ms();
    wire_put(bus_wire(f->bus));
    f->bus = NULL;
    assert_true(clock_mono_ms() - began_ms < 200);
    assert_int_equal(ask.answers, 0);
}

static void test_the_plug_is_pulled(void **state)
{
    struct fixture *f = *state;
    char link[] = "/tmp/windrow-bus-XXXXXX", why[160];
    int unused = mkstemp(link);
    close(unused);
    unlink(link);
    assert_int_equal(symlink(f->peer.path, link), 0);
    wire_put(bus_wire(f->bus));
    f->settings.port = link;
    assert_int_equal(bus_create(f->base, "b1", &f->settings, &f->bus), 0);
    assert_read(f, 1, 0);
    rtu_peer_unplug(&f->peer);
    unlink(link);
    struct ask ask = ask_for(1, 0, 1);
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_CLOSED);
    bus_trouble(f->bus, why, sizeof(why));
    assert_non_null(strstr(why, "unplugged"));
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_CONNECT);
    rtu_peer_start(&f->peer);
    assert_int_equal(symlink(f->peer.path, link), 0);
    int64_t end_ms = clock_mono_ms() + 60000;
    while (read_one(f, &ask) != DEVICE_ERROR_NONE && clock_mono_ms() < end_ms) {
        const struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
    assert_int_equal(ask.result.error, DEVICE_ERROR_NONE);
    bus_trouble(f->bus, why, sizeof(why));
    assert_string_equal(why, "");
    unlink(link);
}

static void test_ports_that_cannot_be_had(void **state)
{
    struct fixture *f = *state;
    char why[160];
    const struct {
        const char *port, *words;
    } cases[] = {{"/nonexistent/port", "unplugged, or under another name"},
                 {"/dev/null", "not a serial port"},
                 {f->peer.path, "another program uses it"},
                 {f->peer.path, "TIOCSRS485"}};
    int holder = open(f->peer.path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_int_equal(flock(holder, LOCK_EX), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ask ask = ask_for(1, 0, 1);
        wire_put(bus_wire(f->bus));
        f->settings.port = cases[i].port;
        if (i == 3) {
            close(holder);
            f->settings.rs485 = SERIAL_RTS_ON_SEND;
        }
        assert_int_equal(bus_create(f->base, "b1", &f->settings, &f->bus), 0);
        assert_int_equal(read_one(f, &ask), DEVICE_ERROR_CONNECT);
        assert_true(ask.result.detail > 0);
        bus_trouble(f->bus, why, sizeof(why));
        assert_non_null(strstr(why, cases[i].words));
    }
}

/* libmodbus's own select() would abort the process here. */
static void test_descriptors_above_1023(void **state)
{
    struct fixture *f = *state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur <= 1200) {
        skip();
    }
    int fds[1100];
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fds[i] >= 0);
    }
    assert_true(fds[ARRAY_SIZE(fds) - 1] > 1023);
    assert_read(f, 1, 0);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
}

static void test_pause_between_requests(void **state)
{
    struct fixture *f = *state;
    bus_ask_pause(f->bus, 30);
    bus_ask_pause(f->bus, 10);
    assert_read(f, 1, 0);
    int64_t began_ms = clock_mono_ms();
    assert_read(f, 1, 0);
    assert_read(f, 1, 0);
    assert_true(clock_mono_ms() - began_ms >= 58);
    assert_true(bus_busy_us(f->bus) >= 58000);
}

static void test_port_words(void **state)
{
    (void)state;
    struct serial_settings settings;
    char port[256], longest[300];
    assert_int_equal(serial_parse_port("/dev/ttyUSB0:9600N2", port, &settings), 0);
    assert_string_equal(settings.port, "/dev/ttyUSB0");
    assert_int_equal(settings.baud, 9600);
    assert_int_equal(settings.parity, SERIAL_NONE);
    assert_int_equal(settings.stop_bits, 2);
    assert_int_equal(serial_line(&settings).bits, 11);
    assert_int_equal(serial_parse_port("/dev/serial/by-path/pci-0:1:00.0-port0", port, &settings),
                     0);
    assert_string_equal(settings.port, "/dev/serial/by-path/pci-0:1:00.0-port0");
    assert_int_equal(settings.baud, 19200);
    assert_int_equal(settings.parity, SERIAL_EVEN);
    static const char *const wrong[] = {"",
                                        "ttyUSB0",
                                        "/dev/ttyUSB0:19201E1",
                                        "/dev/x:9600E3",
                                        "/dev/x:9600EE",
                                        "/dev/x:9600E",
                                        "/dev/x:9600E11"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(serial_parse_port(wrong[i], port, &settings), -EINVAL);
    }
    memset(longest, '/', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(serial_parse_port(longest, port, &settings), -EINVAL);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_port_words),
        cmocka_unit_test_setup_teardown(test_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silence_between_frames, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_late_reply_is_not_taken_for_the_next, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_replies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign_reply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_noise_behind_a_reply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_dripping_device, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_exceptions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writes_and_broadcasts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_queue_has_a_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stop_is_prompt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_plug_is_pulled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ports_that_cannot_be_had, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_descriptors_above_1023, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pause_between_requests, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
