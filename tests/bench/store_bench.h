/* store_bench.h - what the parts of bench_store share: the load, and how figures are printed.
 *
 * A load is the reference signal of some turbines, one scan of each a second of its own time. */
#pragma once

#include "gateway/store/reader.h"

#include <errno.h>

enum { BENCH_CHANNELS_MAX = 50 };

struct reference_signal;

struct bench_load {
    unsigned devices, channels, rows; /* rows: scans of each device between two commits */
    /* Where the signal itself is not the point: an hour of one turbine for all of them, each
     * beginning elsewhere in it, since making a signal costs more than storing it. */
    bool recorded;
    int32_t (*recording)[BENCH_CHANNELS_MAX];
    struct reference_signal *signals;
    uint32_t *ids;
    struct scan *scans;
    size_t scan_bytes, scan_count;
    uint64_t seq;
    int64_t start_ms;
};

/* Ends the program with the reason when rc is negative. */
void bench_must(int rc, const char *what);

/* Names the devices and their points in the store; devices, channels, rows, recorded are set. */
void bench_load_init(struct bench_load *load, struct store *store);
void bench_load_finish(struct bench_load *load);
/* The scans of the next `rows` seconds, row by row, in load->scans. */
void bench_load_next(struct bench_load *load);
struct scan *bench_load_scan(const struct bench_load *load, size_t i);
/* Appends them all. */
void bench_load_append(const struct bench_load *load, struct store *store);

/* Takes what waits, at most so many readings (0: all), as delivered; returns how many. */
uint64_t bench_deliver(struct store_reader *reader, struct buffer *arena, uint64_t most);

/* One JSON line. The ratio is above 1 where the limit is not held; 1 is returned then. */
enum bench_limit { BENCH_SHOWN, BENCH_AT_MOST, BENCH_AT_LEAST };
int bench_line(const char *name, double value, const char *unit, enum bench_limit kind,
               double limit);

double bench_cpu_s(void);
double bench_wall_s(void);
double bench_anonymous_mib(void);
int bench_by_size(const void *a, const void *b); /* doubles, for qsort */

/* A store in a new folder below `base`, without limits but for its size. */
struct bench_store {
    char dir[200];
    struct store *store;
};
void bench_store_make(struct bench_store *made, const char *base,
                      const struct store_settings *settings);
void bench_store_remove(struct bench_store *made);
uint64_t bench_store_file_bytes(const struct bench_store *made);

/* The parts: `base` is the folder to work in; each returns how many limits were not held. */
int bench_rest(const char *base, unsigned channels, unsigned devices, double limit);
int bench_haute_borne(const char *base, const char *file);
int bench_rate(const char *base, unsigned commits);
int bench_device(const char *base, const char *counter, unsigned commits);
int bench_backlog(const char *base, double million_readings, double million_a_second);
