/* bench_encode - what a reading costs on its way into a request: CPU nanoseconds and bytes of every
 * format of type http, plain and compressed, on the pinned signal: 20 points a scan, 500 scans a
 * request, in device order (20 devices of 25 scans, and one of 500). */
#include "gateway/base/clock.h"
#include "reference_signal.h"
#include "uplink/http/http.h"
#include "uplink/transport/compress.h"

#include <string.h>
#include <time.h>

enum { POINTS = 20, SCANS = 500, ROUNDS = 60 };

/* Decimals of a channel's register, by the ranges that reference_signal.h names. */
static int8_t exponent_of(int channel)
{
    static const int8_t tens[] = {-2, -1, -2, -1, -1, -3, 0};
    static const int ends[] = {8, 13, 20, 36, 41, 44, 50};
    size_t i = 0;
    while (channel >= ends[i]) {
        i++;
    }
    return tens[i];
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct scan *next_scan(struct reference_signal *signal, uint32_t device, uint64_t seq)
{
    int32_t row[REFERENCE_CHANNELS];
    reference_signal_next(signal, row);
    struct scan *scan = calloc(1, scan_size_for(POINTS, 0));
    if (scan == NULL) {
        abort();
    }
    *scan = (struct scan){.seq = seq,
                          .time_ms = INT64_C(1769855400000) + (int64_t)seq * 1000 +
                                     (int64_t)seq % 3,
                          .device = device,
                          .count = POINTS};
    for (uint16_t i = 0; i < POINTS; i++) {
        int channel = reference_signal_20[i];
        scan->readings[i] = (struct reading){.point = i,
                                             .kind = VALUE_DECIMAL,
                                             .exponent = exponent_of(channel),
                                             .integer = row[channel]};
    }
    return scan;
}

static void line(const char *what, unsigned devices, const char *unit, double value)
{
    printf("{\"bench\":\"encode\",\"name\":\"%s, %u scans a device\",\"value\":%.3f,"
           "\"unit\":\"%s\"}\n",
           what, SCANS / devices, value, unit);
}

static void measure_packed(const char *name, unsigned devices, int mode,
                           const struct uplink_request *request)
{
    struct compressor *c = NULL;
    auto_buffer struct buffer out = {0};
    if (compressor_create(mode, &c) < 0) {
        return;
    }
    double before = cpu_ns();
    for (int i = 0; i < ROUNDS; i++) {
        if (compressor_run(c, &request->body, request->dense, &out) < 0) {
            abort();
        }
    }
    char what[60];
    snprintf(what, sizeof what, "%s+%s", name, compressor_name(c));
    line(what, devices, "ns CPU to compress/reading",
         (cpu_ns() - before) / ROUNDS / SCANS / POINTS);
    line(what, devices, "B/reading", (double)out.len / SCANS / POINTS);
    compressor_destroy(c);
}

static void measure(const struct batch *batch, unsigned devices)
{
    static const char *const names[] = {"batch", "columns", "telemetry"};
    for (int format = HTTP_BATCH; format <= HTTP_TELEMETRY; format++) {
        struct http_settings settings = {.format = format};
        struct uplink_request request = {0};
        double before = cpu_ns();
        for (int i = 0; i < ROUNDS; i++) {
            if (uplink_http.encode(&settings, batch, &request) < 0) {
                abort();
            }
        }
        line(names[format], devices, "ns CPU to encode/reading",
             (cpu_ns() - before) / ROUNDS / SCANS / POINTS);
        line(names[format], devices, "B/reading", (double)request.body.len / SCANS / POINTS);
        measure_packed(names[format], devices, COMPRESS_GZIP, &request);
        measure_packed(names[format], devices, COMPRESS_ZSTD, &request);
        buffer_finish(&request.body);
        buffer_finish(&request.headers);
    }
}

static void run(unsigned devices)
{
    static struct batch_record records[SCANS];
    static struct store_names names[SCANS];
    static char device_names[SCANS][8], point_names[POINTS][16];
    static struct store_point_name points[POINTS];
    struct reference_signal signal;
    for (unsigned p = 0; p < POINTS; p++) {
        snprintf(point_names[p], sizeof point_names[p], "channel_%02d", reference_signal_20[p]);
        points[p] = (struct store_point_name){point_names[p], "", 10};
    }
    for (unsigned i = 0; i < SCANS; i++) {
        unsigned device = i / (SCANS / devices);
        if (i % (SCANS / devices) == 0) {
            reference_signal_init(&signal, device + 1);
            snprintf(device_names[device], sizeof device_names[device], "t%02u", device);
            names[device] = (struct store_names){device_names[device], "", POINTS, points};
        }
        records[i] = (struct batch_record){
            .scan = next_scan(&signal, device + 1, i % (SCANS / devices) + 18000),
            .names = &names[device],
            .selected_count = POINTS};
    }
    struct batch batch = {
        .gateway = "borssele-1", .store_id = "9f2c61d07a3b", .records = records, .count = SCANS};
    measure(&batch, devices);
    for (unsigned i = 0; i < SCANS; i++) {
        free((void *)(uintptr_t)records[i].scan);
    }
}

int main(void)
{
    run(20);
    run(1);
    return 0;
}
