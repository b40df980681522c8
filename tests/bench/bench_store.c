/* bench_store [DEVICES [COMMITS [ROWS]]]: appends the reference signal (20 channels) of so many
 * turbines, ROWS scans of each a commit, then drains it; prints JSON lines. */
#include "gateway/base/clock.h"
#include "gateway/store/reader.h"
#include "reference_signal.h"

#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/resource.h>

enum { POINTS = 20 };

struct load {
    unsigned devices, commits, rows;
    struct reference_signal *signals;
    uint32_t *ids;
    struct scan *scans; /* of one commit, made before the clock starts */
    size_t scan_bytes;
    uint64_t seq;
};

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void say(const char *name, double value, const char *unit)
{
    printf("{\"bench\":\"store\",\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\"}\n", name, value,
           unit);
}

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

static struct scan *scan_at(struct load *load, size_t i)
{
    return (struct scan *)(void *)((uint8_t *)load->scans + i * load->scan_bytes);
}

static void make_scans(struct load *load)
{
    int64_t now = 1769855400000 + (int64_t)load->seq * 1000;
    for (unsigned r = 0; r < load->rows; r++) {
        load->seq++;
        for (unsigned d = 0; d < load->devices; d++) {
            int32_t row[REFERENCE_CHANNELS];
            reference_signal_next(&load->signals[d], row);
            struct scan *scan = scan_at(load, (size_t)r * load->devices + d);
            *scan = (struct scan){.seq = load->seq,
                                  .time_ms = now + r * 1000 + d % 20,
                                  .boot_ms = now + r * 1000 + d % 20 - 1769000000000,
                                  .device = load->ids[d],
                                  .count = POINTS};
            for (unsigned p = 0; p < POINTS; p++) {
                scan->readings[p] = (struct reading){.point = (uint16_t)p,
                                                     .kind = VALUE_DECIMAL,
                                                     .exponent = -2,
                                                     .integer = row[reference_signal_20[p]]};
            }
        }
    }
}

static void set_up(struct load *load, struct store *store)
{
    load->signals = calloc(load->devices, sizeof(*load->signals));
    load->ids = calloc(load->devices, sizeof(*load->ids));
    load->scan_bytes = scan_size_for(POINTS, 0);
    load->scans = calloc((size_t)load->devices * load->rows, load->scan_bytes);
    if (load->signals == NULL || load->ids == NULL || load->scans == NULL) {
        must(-ENOMEM, "set up");
    }
    for (unsigned d = 0; d < load->devices; d++) {
        char name[16];
        uint16_t point;
        reference_signal_init(&load->signals[d], d);
        snprintf(name, sizeof(name), "t%03u", d);
        must(store_device(store, name, "", &load->ids[d]), "device");
        for (unsigned p = 0; p < POINTS; p++) {
            snprintf(name, sizeof(name), "point_%u", p);
            must(store_point(store, load->ids[d], name, "", &point), "point");
        }
    }
}

static void append(struct load *load, struct store *store)
{
    double cpu = 0, wall = 0;
    for (unsigned c = 0; c < load->commits; c++) {
        make_scans(load);
        double cpu_from = cpu_seconds();
        int64_t from = clock_mono_ns();
        for (size_t i = 0; i < (size_t)load->devices * load->rows; i++) {
            must(store_append(store, scan_at(load, i)), "append");
        }
        must(store_commit(store), "commit");
        cpu += cpu_seconds() - cpu_from;
        wall += (double)(clock_mono_ns() - from) / 1e9;
    }
    double readings = (double)load->commits * load->rows * load->devices * POINTS;
    struct store_stat stat;
    store_stat(store, &stat);
    say("append_commit_per_cpu_s", readings / cpu, "readings/s");
    say("append_commit_per_s", readings / wall, "readings/s");
    say("cpu_per_commit", cpu / load->commits * 1e6, "us");
    say("wal_bytes_a_reading", (double)stat.bytes_appended / readings, "B");
    say("rest_bytes_a_reading", (double)stat.bytes / readings, "B");
    say("commit_us_max", (double)stat.commit_us_max, "us");
}

static void drain(struct store *store, unsigned uplink)
{
    struct store_reader *reader;
    must(store_reader_create(store, uplink, false, &reader), "reader");
    auto_buffer struct buffer arena = {0};
    double cpu = cpu_seconds();
    int64_t from = clock_mono_ns();
    uint64_t readings = 0, batches = 0;
    for (;; batches++) {
        const struct scan **scans;
        size_t count;
        must(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, 1000, 1 << 20, &arena,
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
                readings += scans[i]->count;
            }
            must(store_reader_settle(reader, &s), "settle");
        }
        if (batches % 100 == 99) {
            must(store_commit(store), "commit");
        }
    }
    cpu = cpu_seconds() - cpu;
    say("drain_per_s", (double)readings / ((double)(clock_mono_ns() - from) / 1e9), "readings/s");
    say("drain_per_cpu_s", (double)readings / cpu, "readings/s");
    say("drain_batches", (double)batches, "");
    store_reader_destroy(reader);
}

static void say_memory(void)
{
    char line[256];
    auto_fclose FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            say("rss_anon_with_bench", (double)strtol(line + 8, NULL, 10), "KiB");
        }
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    struct load load = {
        .devices = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 770,
        .commits = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 60,
        .rows = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1,
    };
    char dir[256];
    const char *base = getenv("BENCH_DIR");
    snprintf(dir, sizeof(dir), "%s/bench_store.XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    struct store_settings settings = {.commit_interval_ms = 1000,
                                      .max_size_bytes = -1,
                                      .keep_ms = argc > 4 ? strtoll(argv[4], NULL, 10) : 0};
    struct store *store;
    unsigned uplink;
    must(store_open(dir, &settings, &store), "open");
    must(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    set_up(&load, store);
    append(&load, store);
    say_memory();
    drain(store, uplink);
    say_memory();
    store_close(store);
    free(load.signals);
    free(load.ids);
    free(load.scans);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
