/* Bytes a reading at rest: the size of the file, whatever is in it. */
#include "store_bench.h"

#include <math.h>
#include <string.h>

enum { DAY_S = 86400, DELTA_MAX = 1 << 15, HAUTE_BORNE_COLUMNS = 128, DECIMALS_MAX = 4 };

/* How often each difference from the value before occurred, a channel for itself. */
struct deltas {
    uint32_t (*histogram)[2 * DELTA_MAX];
    int64_t *last; /* by device and channel */
    unsigned channels;
    uint64_t rows;
};

static void deltas_add(struct deltas *deltas, const struct scan *scan, unsigned device)
{
    int64_t *last = deltas->last + (size_t)device * deltas->channels;
    for (unsigned c = 0; c < deltas->channels; c++) {
        int64_t now = scan->readings[c].integer, d = now - last[c];
        last[c] = now;
        d = d < -DELTA_MAX ? -DELTA_MAX : d >= DELTA_MAX ? DELTA_MAX - 1 : d;
        deltas->histogram[c][d + DELTA_MAX] += scan->seq > 1 ? 1 : 0;
    }
}

/* Order-0 entropy in bytes a reading. */
static double deltas_entropy(const struct deltas *deltas)
{
    double bits = 0, all = 0;
    for (unsigned c = 0; c < deltas->channels; c++) {
        double total = 0;
        for (size_t i = 0; i < 2 * DELTA_MAX; i++) {
            total += deltas->histogram[c][i];
        }
        for (size_t i = 0; i < 2 * DELTA_MAX; i++) {
            double n = deltas->histogram[c][i];
            bits -= n > 0 ? n * log2(n / total) : 0;
        }
        all += total;
    }
    return all > 0 ? bits / 8 / all : 0;
}

int bench_rest(const char *base, unsigned channels, unsigned devices, double limit)
{
    struct store_settings settings = {.commit_interval_ms = 1000, .max_size_bytes = 1 << 30};
    struct bench_store at;
    bench_store_make(&at, base, &settings);
    unsigned uplink;
    bench_must(store_add_uplink(at.store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    struct bench_load load = {.devices = devices, .channels = channels, .rows = 1};
    bench_load_init(&load, at.store);
    struct deltas deltas = {.channels = channels};
    deltas.histogram = calloc(channels, sizeof(*deltas.histogram));
    deltas.last = calloc((size_t)devices * channels, sizeof(*deltas.last));
    bench_must(deltas.histogram == NULL || deltas.last == NULL ? -ENOMEM : 0, "deltas");
    for (unsigned second = 0; second < DAY_S; second++) {
        bench_load_next(&load);
        for (unsigned d = 0; d < devices; d++) {
            deltas_add(&deltas, bench_load_scan(&load, d), d);
        }
        bench_load_append(&load, at.store);
        bench_must(store_commit(at.store), "commit");
    }
    double readings = (double)DAY_S * devices * channels, entropy = deltas_entropy(&deltas);
    double bytes = (double)bench_store_file_bytes(&at) / readings;
    char name[120];
    snprintf(name, sizeof(name), "order-0 entropy of the deltas, %u channels", channels);
    bench_line(name, entropy, "B/reading", BENCH_SHOWN, 0);
    snprintf(name, sizeof(name), "at rest after a day at 1 Hz, %u turbines of %u channels", devices,
             channels);
    int bad = bench_line(name, bytes, "B/reading", BENCH_AT_MOST, limit);
    snprintf(name, sizeof(name), "the same beside the entropy, %u channels", channels);
    bad += bench_line(name, bytes / entropy, "times", BENCH_AT_MOST, 1.30);
    free(deltas.histogram);
    free(deltas.last);
    bench_load_finish(&load);
    bench_store_remove(&at);
    return bad;
}

/* A table of 10-minute records: which columns are decimals of how many places; -1: doubles. */
struct table {
    FILE *file;
    char line[8192];
    char *cells[HAUTE_BORNE_COLUMNS];
    int places[HAUTE_BORNE_COLUMNS];
};

enum { FIRST_VALUE = 3 }; /* behind the turbine, the gap and the time */

static size_t next_record(struct table *table)
{
    size_t count = 0;
    if (fgets(table->line, sizeof(table->line), table->file) == NULL) {
        return 0;
    }
    table->line[strcspn(table->line, "\r\n")] = '\0';
    for (char *rest = table->line, *cell;
         (cell = strsep(&rest, ",")) != NULL && count < HAUTE_BORNE_COLUMNS;) {
        table->cells[count++] = cell;
    }
    return count;
}

static void find_places(struct table *table)
{
    size_t count = next_record(table);
    while ((count = next_record(table)) > 0) {
        for (size_t i = FIRST_VALUE; i < count; i++) {
            const char *dot = strchr(table->cells[i], '.');
            int places = dot == NULL ? 0 : (int)strlen(dot + 1);
            int *known = &table->places[i];
            *known = places > DECIMALS_MAX || *known < 0 ? -1 : places > *known ? places : *known;
        }
    }
    rewind(table->file);
}

static struct reading reading_of(const struct table *table, size_t i)
{
    double value = strtod(table->cells[i], NULL);
    int places = table->places[i];
    struct reading reading = {.point = (uint16_t)(i - FIRST_VALUE), .kind = VALUE_REAL};
    if (places < 0) {
        reading.real = value;
        return reading;
    }
    reading.kind = VALUE_DECIMAL;
    reading.exponent = (int8_t)-places;
    reading.integer = llround(value * pow(10, places));
    return reading;
}

static uint64_t append_records(struct table *table, struct store *store, uint32_t device)
{
    struct scan *scan = calloc(1, scan_size_for(HAUTE_BORNE_COLUMNS, 0));
    bench_must(scan == NULL ? -ENOMEM : 0, "scan");
    uint64_t readings = 0, seq = 0;
    size_t count = next_record(table);
    while ((count = next_record(table)) > 0) {
        int64_t time_ms = 1504135800000 + (int64_t)seq * 600000;
        *scan = (struct scan){.seq = ++seq, .time_ms = time_ms, .device = device};
        for (size_t i = FIRST_VALUE; i < count; i++) {
            if (table->cells[i][0] != '\0') {
                scan->readings[scan->count++] = reading_of(table, i);
            }
        }
        readings += scan->count;
        bench_must(store_append(store, scan), "append");
        bench_must(store_commit(store), "commit");
    }
    free(scan);
    return readings;
}

int bench_haute_borne(const char *base, const char *file)
{
    struct table *table = calloc(1, sizeof(*table));
    bench_must(table == NULL ? -ENOMEM : 0, "table");
    table->file = fopen(file, "re");
    bench_must(table->file == NULL ? -errno : 0, file);
    find_places(table);
    struct store_settings settings = {.commit_interval_ms = 1000, .max_size_bytes = 1 << 30};
    struct bench_store at;
    bench_store_make(&at, base, &settings);
    unsigned uplink;
    uint32_t device;
    uint16_t point;
    bench_must(store_add_uplink(at.store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    bench_must(store_device(at.store, "R80711", "", &device), "device");
    for (unsigned i = 0; i < HAUTE_BORNE_COLUMNS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "column_%u", i);
        bench_must(store_point(at.store, device, name, "", &point), "point");
    }
    uint64_t before = bench_store_file_bytes(&at);
    uint64_t readings = append_records(table, at.store, device);
    bench_line("La Haute Borne, readings of one turbine", (double)readings, "readings", BENCH_SHOWN,
               0);
    bench_line("La Haute Borne at rest, a commit a record",
               (double)(bench_store_file_bytes(&at) - before) / (double)readings, "B/reading",
               BENCH_SHOWN, 0);
    struct store_stat stat;
    store_stat(at.store, &stat);
    bench_line("La Haute Borne, its blocks alone", stat.rest_bytes, "B/reading", BENCH_SHOWN, 0);
    bench_store_remove(&at);
    fclose(table->file);
    free(table);
    return 0;
}
