/* bench_codec - bytes and nanoseconds a reading of the block codec on the pinned signal, beside the
 * order-0 entropy of the value deltas that the same run computes. */
#include "gateway/base/clock.h"
#include "gateway/store/codec/block.h"
#include "reference_signal.h"

#include <string.h>

enum { DAY = 86400, DELTA_MAX = 1 << 17 };

struct load {
    const char *name;
    int channels;
    const int *pick; /* NULL: all in order */
};

/* Decimals of a channel's register, by the ranges that reference_signal.h names. */
static int8_t exponent_of(int channel)
{
    static const struct {
        int end;
        int8_t exponent;
    } ranges[] = {{8, -2}, {13, -1}, {20, -2}, {36, -1}, {41, -1}, {44, -3}, {50, 0}};
    size_t i = 0;
    while (channel >= ranges[i].end) {
        i++;
    }
    return ranges[i].exponent;
}

static void fill(struct scan *scan, const struct load *load, const int32_t *row, uint32_t second)
{
    *scan = (struct scan){.seq = second + 1,
                          .time_ms = INT64_C(1769855400000) + (int64_t)second * 1000 + second % 3,
                          .boot_ms = 5000 + (int64_t)second * 1000 + second % 3,
                          .device = 7,
                          .count = (uint16_t)load->channels};
    for (int c = 0; c < load->channels; c++) {
        int channel = load->pick != NULL ? load->pick[c] : c;
        scan->readings[c] = (struct reading){.point = (uint16_t)c,
                                             .kind = VALUE_DECIMAL,
                                             .exponent = exponent_of(channel),
                                             .integer = row[channel]};
    }
}

/* Order-0 entropy of the deltas, a channel for itself, in bytes a reading. */
static double entropy(const struct scan *const *scans, int channels)
{
    double bits = 0;
    uint32_t *histogram = calloc(2 * DELTA_MAX, sizeof *histogram);
    for (int c = 0; histogram != NULL && c < channels; c++) {
        memset(histogram, 0, 2 * DELTA_MAX * sizeof *histogram);
        for (int i = 1; i < DAY; i++) {
            int64_t d = scans[i]->readings[c].integer - scans[i - 1]->readings[c].integer;
            d = d < -DELTA_MAX ? -DELTA_MAX : d >= DELTA_MAX ? DELTA_MAX - 1 : d;
            histogram[d + DELTA_MAX]++;
        }
        for (int i = 0; i < 2 * DELTA_MAX; i++) {
            if (histogram[i] > 0) {
                bits -= histogram[i] * log2((double)histogram[i] / (DAY - 1));
            }
        }
    }
    free(histogram);
    return bits / 8.0 / ((double)DAY * channels);
}

static void line(const char *name, uint32_t rows, const char *what, double value, const char *unit,
                 double limit)
{
    printf("{\"bench\":\"codec\",\"name\":\"%s, %u rows: %s\",\"value\":%.4f,\"unit\":\"%s\","
           "\"limit\":%.4f,\"ratio\":%.3f}\n",
           name, rows, what, value, unit, limit, value / limit);
}

static int measure(const struct load *load, const struct scan *const *scans, uint32_t rows)
{
    auto_buffer struct buffer coded = {0};
    auto_buffer struct buffer back = {0};
    size_t size = scan_size(scans[0]), bytes = 0;
    int64_t encode_ns = 0, decode_ns = 0;
    for (uint32_t at = 0; at < DAY; at += rows) {
        uint32_t n = DAY - at < rows ? DAY - at : rows;
        buffer_clear(&coded);
        buffer_clear(&back);
        struct codec_head head;
        int64_t t0 = clock_mono_ns();
        int r = codec_encode(scans + at, n, &coded);
        int64_t t1 = clock_mono_ns();
        r = r < 0 ? r : codec_decode(coded.data, coded.len, &back, &head);
        int64_t t2 = clock_mono_ns();
        if (r < 0 || back.len != n * size || memcmp(back.data, scans[at], back.len) != 0) {
            fprintf(stderr, "row %u: the decoded scans are not those encoded (%d)\n", at, r);
            return 1;
        }
        encode_ns += t1 - t0;
        decode_ns += t2 - t1;
        bytes += coded.len;
    }
    double readings = (double)DAY * load->channels;
    line(load->name, rows, "size against order-0 entropy", (double)bytes / readings, "B/reading",
         entropy(scans, load->channels));
    line(load->name, rows, "encode", (double)encode_ns / readings, "ns/reading", 12);
    line(load->name, rows, "decode", (double)decode_ns / readings, "ns/reading", 12);
    return 0;
}

static int run(const struct load *load, uint32_t rows)
{
    size_t size = scan_size_for((size_t)load->channels, 0);
    auto_free char *all = malloc(size * DAY);
    auto_free const struct scan **scans = malloc(sizeof *scans * DAY);
    if (all == NULL || scans == NULL) {
        return 1;
    }
    struct reference_signal signal;
    reference_signal_init(&signal, 1);
    for (uint32_t i = 0; i < DAY; i++) {
        int32_t row[REFERENCE_CHANNELS];
        reference_signal_next(&signal, row);
        fill((struct scan *)(all + i * size), load, row, i);
        scans[i] = (const struct scan *)(all + i * size);
    }
    return measure(load, (const struct scan *const *)scans, rows);
}

int main(void)
{
    const struct load loads[] = {{"20 channels", 20, reference_signal_20},
                                 {"50 channels", 50, NULL}};
    return run(&loads[0], 360) | run(&loads[1], 160) | run(&loads[0], 3600);
}
