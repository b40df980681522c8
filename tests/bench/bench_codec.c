/* bench_codec - bytes and nanoseconds a reading of the block codec on the pinned signal, beside the
 * order-0 entropy of the value deltas that the same run computes. Exits 1 when a limit is not held.
 */
#include "gateway/store/codec/block.h"
#include "reference_signal.h"

#include <string.h>
#include <time.h>

enum { DAY = 86400, DELTA_MAX = 1 << 17, LEAST_ROWS = 100, PASSES = 7 };

static const double SIZE_RATIO_MAX = 1.15;

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

/* 1: over its limit. */
static int line(const char *name, uint32_t rows, const char *what, double value, const char *unit,
                double limit)
{
    printf("{\"bench\":\"codec\",\"name\":\"%s, %u rows: %s\",\"value\":%.4f,\"unit\":\"%s\","
           "\"limit\":%.4f,\"ratio\":%.3f}\n",
           name, rows, what, value, unit, limit, value / limit);
    return value > limit;
}

/* The day's blocks one behind the other. */
struct blocks {
    struct buffer coded;
    size_t ends[DAY / LEAST_ROWS + 1];
};

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* CPU time of the whole day; -1: failed. */
static int64_t encode_day(const struct scan *const *scans, uint32_t rows, struct blocks *blocks)
{
    buffer_clear(&blocks->coded);
    int64_t from = cpu_ns();
    for (uint32_t at = 0; at < DAY; at += rows) {
        uint32_t n = DAY - at < rows ? DAY - at : rows;
        if (codec_encode(scans + at, n, &blocks->coded) < 0) {
            return -1;
        }
        blocks->ends[at / rows] = blocks->coded.len;
    }
    return cpu_ns() - from;
}

/* The same of decoding, which every pass compares with what was encoded. */
static int64_t decode_day(const struct scan *const *scans, uint32_t rows,
                          const struct blocks *blocks)
{
    auto_buffer struct buffer back = {0};
    size_t size = scan_size(scans[0]), from = 0;
    int64_t took = 0;
    for (uint32_t at = 0; at < DAY; at += rows) {
        uint32_t n = DAY - at < rows ? DAY - at : rows;
        size_t end = blocks->ends[at / rows];
        struct codec_head head;
        buffer_clear(&back);
        int64_t began = cpu_ns();
        int r = codec_decode(blocks->coded.data + from, end - from, &back, &head);
        took += cpu_ns() - began;
        if (r < 0 || back.len != n * size || memcmp(back.data, scans[at], back.len) != 0) {
            fprintf(stderr, "row %u: the decoded scans are not those encoded (%d)\n", at, r);
            return -1;
        }
        from = end;
    }
    return took;
}

/* The best of some passes: others work on this machine, too. */
static int measure(const struct load *load, const struct scan *const *scans, uint32_t rows)
{
    static struct blocks blocks;
    double readings = (double)DAY * load->channels;
    int64_t encode_ns = INT64_MAX, decode_ns = INT64_MAX;
    for (int pass = 0; pass < PASSES; pass++) {
        int64_t encode = encode_day(scans, rows, &blocks);
        int64_t decode = encode < 0 ? -1 : decode_day(scans, rows, &blocks);
        if (decode < 0) {
            return 1;
        }
        encode_ns = encode < encode_ns ? encode : encode_ns;
        decode_ns = decode < decode_ns ? decode : decode_ns;
    }
    double entropy_bytes = entropy(scans, load->channels);
    int bad = line(load->name, rows, "size", (double)blocks.coded.len / readings, "B/reading",
                   SIZE_RATIO_MAX * entropy_bytes);
    bad |= line(load->name, rows, "size against the order-0 entropy of the deltas",
                (double)blocks.coded.len / readings / entropy_bytes, "times", SIZE_RATIO_MAX);
    bad |= line(load->name, rows, "encode", (double)encode_ns / readings, "ns/reading", 12);
    bad |= line(load->name, rows, "decode", (double)decode_ns / readings, "ns/reading", 12);
    buffer_finish(&blocks.coded);
    return bad;
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
