/* How much of a serial line's time the bus makes use of: eight units on a pseudo-terminal that is
 * paced like a line (their thread takes the time of each character, and t3.5 before it answers),
 * asked for 60 registers each without a pause. The limit of the line is what requests, replies and
 * the silences of t3.5 take.
 *
 * Prints JSON lines {"bench","name","value","unit","limit","ratio"}; value and ratio are the share
 * of the limit, and the exit status is 1 when it is under 0.9. bench_rtu [SECONDS]: of each speed.
 */
#include "drivers/modbus/bus.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "tests/unit/rtu_peer.h"

#include <event2/event.h>
#include <stdlib.h>

enum { UNITS = 8, REGISTERS = 60 };

#define LEAST_SHARE 0.9 /* of issue "field": of what the line can carry */

static struct bus *bus;
static unsigned answers, errors;

static void on_done(struct session_request *request, const struct session_result *result)
{
    answers += result->error == DEVICE_ERROR_NONE;
    errors += result->error != DEVICE_ERROR_NONE;
    if (wire_submit(bus_wire(bus), request, false) != 0) {
        errors++;
    }
}

static void report(const char *name, unsigned baud, double value, const char *unit)
{
    printf("{\"bench\":\"rtu\",\"name\":\"%s %u\",\"value\":%.4g,\"unit\":\"%s\",\"limit\":%s,"
           "\"ratio\":%.4g}\n",
           name, baud, value, unit, unit[0] == 's' ? "0.9" : "null", value);
}

/* The share of the line's time at one speed. */
static double measure(struct event_base *base, unsigned baud, unsigned seconds)
{
    struct rtu_peer peer = {.baud = baud};
    struct session_request requests[UNITS];
    rtu_peer_start(&peer);
    const struct serial_settings settings = {
        .port = peer.path, .baud = baud, .parity = SERIAL_EVEN, .data_bits = 8, .stop_bits = 1};
    if (bus_create(base, "bench", &settings, &bus) != 0) {
        abort();
    }
    for (unsigned i = 0; i < UNITS; i++) {
        requests[i] = (struct session_request){
            .ask = {.function = MBAP_READ_HOLDING, .count = REGISTERS},
            .unit = (uint8_t)(i + 1),
            .timeout_ms = 1000,
            .done = on_done};
        if (wire_submit(bus_wire(bus), &requests[i], false) != 0) {
            abort();
        }
    }
    answers = errors = 0;
    int64_t began_ns = clock_mono_ns();
    const struct timeval length = {seconds, 0};
    event_base_loopexit(base, &length);
    event_base_dispatch(base);
    double took_us = (double)(clock_mono_ns() - began_ns) / 1000;
    double line_us = answers * (double)rtu_exchange_us(serial_line(&settings), &requests[0].ask);
    for (unsigned i = 0; i < UNITS; i++) {
        wire_cancel(bus_wire(bus), &requests[i]);
    }
    wire_put(bus_wire(bus));
    rtu_peer_stop(&peer);
    report("requests", baud, answers * 1e6 / took_us, "1/s");
    report("utilisation", baud, line_us / took_us, "share of the line's limit");
    return errors > 0 ? 0 : line_us / took_us;
}

int main(int argc, char **argv)
{
    static const unsigned speeds[] = {9600, 19200, 115200};
    unsigned seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 10;
    struct event_base *base = event_base_new();
    bool good = seconds > 0 && base != NULL;
    log_set_level(LOG_LEVEL_ERROR);
    for (size_t i = 0; i < ARRAY_SIZE(speeds) && good; i++) {
        good = measure(base, speeds[i], seconds) >= LEAST_SHARE;
    }
    event_base_free(base);
    return good ? 0 : 1;
}
