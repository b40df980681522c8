#include "store_bench.h"

#include "reference_signal.h"

#include <assert.h>
#include <ftw.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { RECORDED = 3600 };

static_assert((int)BENCH_CHANNELS_MAX == (int)REFERENCE_CHANNELS, "all channels of the signal");

void bench_must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench_store: %s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

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

static int channel_of(const struct bench_load *load, unsigned point)
{
    return load->channels == ARRAY_SIZE(reference_signal_20) ? reference_signal_20[point]
                                                             : (int)point;
}

struct scan *bench_load_scan(const struct bench_load *load, size_t i)
{
    return (struct scan *)(void *)((uint8_t *)load->scans + i * load->scan_bytes);
}

static void name_devices(struct bench_load *load, struct store *store)
{
    for (unsigned d = 0; d < load->devices; d++) {
        char name[16];
        uint16_t point;
        snprintf(name, sizeof(name), "t%03u", d);
        bench_must(store_device(store, name, "", &load->ids[d]), "device");
        for (unsigned p = 0; p < load->channels; p++) {
            snprintf(name, sizeof(name), "channel_%02d", channel_of(load, p));
            bench_must(store_point(store, load->ids[d], name, "", &point), "point");
        }
    }
}

void bench_load_init(struct bench_load *load, struct store *store)
{
    load->scan_bytes = scan_size_for(load->channels, 0);
    load->scan_count = (size_t)load->devices * load->rows;
    load->start_ms = 1769855400000;
    load->ids = calloc(load->devices, sizeof(*load->ids));
    load->scans = calloc(load->scan_count, load->scan_bytes);
    load->signals = calloc(load->recorded ? 1 : load->devices, sizeof(*load->signals));
    load->recording = load->recorded ? calloc(RECORDED, sizeof(*load->recording)) : NULL;
    bool made = load->ids != NULL && load->scans != NULL && load->signals != NULL &&
                (load->recording != NULL || !load->recorded);
    bench_must(made ? 0 : -ENOMEM, "load");
    for (unsigned d = 0; d < (load->recorded ? 1 : load->devices); d++) {
        reference_signal_init(&load->signals[d], d + 1);
    }
    for (unsigned i = 0; load->recorded && i < RECORDED; i++) {
        reference_signal_next(&load->signals[0], load->recording[i]);
    }
    name_devices(load, store);
}

void bench_load_finish(struct bench_load *load)
{
    free(load->ids);
    free(load->scans);
    free(load->signals);
    free(load->recording);
}

void bench_load_next(struct bench_load *load)
{
    for (unsigned r = 0; r < load->rows; r++) {
        load->seq++;
        int64_t now_ms = load->start_ms + (int64_t)load->seq * 1000;
        for (unsigned d = 0; d < load->devices; d++) {
            int32_t made[REFERENCE_CHANNELS];
            const int32_t *row = made;
            if (load->recorded) {
                row = load->recording[(load->seq + d * 97) % RECORDED];
            } else {
                reference_signal_next(&load->signals[d], made);
            }
            struct scan *scan = bench_load_scan(load, (size_t)r * load->devices + d);
            int64_t time_ms = now_ms + d % 20 + (int64_t)(load->seq % 3);
            *scan = (struct scan){.seq = load->seq,
                                  .time_ms = time_ms,
                                  .boot_ms = time_ms - 1769000000000,
                                  .device = load->ids[d],
                                  .count = (uint16_t)load->channels};
            for (unsigned p = 0; p < load->channels; p++) {
                int channel = channel_of(load, p);
                scan->readings[p] = (struct reading){.point = (uint16_t)p,
                                                     .kind = VALUE_DECIMAL,
                                                     .exponent = exponent_of(channel),
                                                     .integer = row[channel]};
            }
        }
    }
}

void bench_load_append(const struct bench_load *load, struct store *store)
{
    for (size_t i = 0; i < load->scan_count; i++) {
        bench_must(store_append(store, bench_load_scan(load, i)), "append");
    }
}

uint64_t bench_deliver(struct store_reader *reader, struct buffer *arena, uint64_t most)
{
    enum { SCANS = 1000, MEMORY = 1 << 20 };
    uint64_t readings = 0;
    while (most == 0 || readings < most) {
        const struct scan **scans = NULL;
        size_t count = 0;
        bench_must(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, SCANS, MEMORY, arena,
                                     &scans, &count),
                   "take");
        if (count == 0) {
            break;
        }
        for (size_t i = 0; i < count;) {
            struct store_settlement s = {.device = scans[i]->device, .first_seq = scans[i]->seq};
            for (; i < count && scans[i]->device == s.device; i++) {
                s.last_seq = scans[i]->seq;
                s.fates[FATE_DELIVERED] += scans[i]->count;
            }
            bench_must(store_reader_settle(reader, &s), "settle");
            readings += s.fates[FATE_DELIVERED];
        }
    }
    return readings;
}

int bench_line(const char *name, double value, const char *unit, enum bench_limit kind,
               double limit)
{
    printf("{\"bench\":\"store\",\"name\":\"%s\",\"value\":%.5g,\"unit\":\"%s\",", name, value,
           unit);
    if (kind == BENCH_SHOWN) {
        printf("\"limit\":null,\"ratio\":null}\n");
    } else {
        double ratio = kind == BENCH_AT_MOST ? value / limit : limit / value;
        printf("\"limit\":%.6g,\"ratio\":%.3f}\n", limit, ratio);
    }
    fflush(stdout);
    return (kind == BENCH_AT_MOST && !(value <= limit)) ||
           (kind == BENCH_AT_LEAST && !(value >= limit));
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double bench_cpu_s(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

double bench_wall_s(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double bench_anonymous_mib(void)
{
    char line[256];
    auto_fclose FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            return (double)strtol(line + 8, NULL, 10) / 1024;
        }
    }
    return 0;
}

int bench_by_size(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

void bench_store_make(struct bench_store *made, const char *base,
                      const struct store_settings *settings)
{
    snprintf(made->dir, sizeof(made->dir), "%s/bench_store.XXXXXX", base);
    bench_must(mkdtemp(made->dir) == NULL ? -errno : 0, base);
    bench_must(store_open(made->dir, settings, &made->store), "open");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void bench_store_remove(struct bench_store *made)
{
    store_close(made->store);
    made->store = NULL;
    nftw(made->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

uint64_t bench_store_file_bytes(const struct bench_store *made)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof(path), "%s/store/data.mdb", made->dir);
    return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_size;
}
