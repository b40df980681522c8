/* A site comes back after a long outage: what waits is drained while readings go on arriving, and a
 * commit is due every second. */
#include "gateway/store/flush.h"
#include "store_bench.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEVICES = 770, CHANNELS = 20, FILL_ROWS = 5, SLICE_MS = 10, COMMITS_MAX = 4000 };

static const double interval_s = 1.0;

struct drain {
    struct store_reader *reader;
    double a_second; /* readings that the network takes */
    _Atomic uint64_t readings;
    _Atomic bool stop;
};

static void wait_until(double wall_s)
{
    struct timespec t = {.tv_sec = (time_t)wall_s,
                         .tv_nsec = (long)((wall_s - (double)(time_t)wall_s) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

/* As an uplink's thread does it, at the pace of its network. */
static void *drain_run(void *user)
{
    struct drain *drain = user;
    auto_buffer struct buffer arena = {0};
    double from = bench_wall_s();
    while (!atomic_load(&drain->stop)) {
        double now = bench_wall_s(), due = (now - from) * drain->a_second;
        if (due > (double)drain->readings) {
            drain->readings += bench_deliver(drain->reader, &arena,
                                             (uint64_t)(due - (double)drain->readings) + 1);
        }
        wait_until(now + SLICE_MS / 1000.0);
    }
    return NULL;
}

static void fill(struct store *store, struct bench_load *load, double readings)
{
    while ((double)load->seq * DEVICES * CHANNELS < readings) {
        bench_load_next(load);
        bench_load_append(load, store);
        bench_must(store_commit(store), "commit");
    }
}

/* The pages of the file leave the cache: a gateway that was switched on has none of them. */
static void forget(const struct bench_store *at)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/store/data.mdb", at->dir);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    bench_must(fd < 0 ? -errno : -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "cache");
}

static int start_up(struct bench_store *at, const struct store_settings *settings)
{
    int bad = 0;
    for (int cold = 1; cold >= 0; cold--) {
        store_close(at->store);
        if (cold) {
            forget(at);
        }
        double from = bench_wall_s();
        bench_must(store_open(at->dir, settings, &at->store), "open");
        bad += bench_line(cold ? "start-up with that backlog, not in the page cache"
                               : "start-up with that backlog, in the page cache",
                          bench_wall_s() - from, "s", BENCH_AT_MOST, 3);
    }
    return bad;
}

/* What the commits were like; seconds. */
struct commits {
    double took[COMMITS_MAX], late[COMMITS_MAX], gap_max, anonymous_mib;
    size_t count;
};

static uint64_t waiting(struct store *store, unsigned uplink)
{
    struct ledger_device total = {0};
    bench_must(store_ledger_total(store, (int)uplink, &total), "ledger");
    return total.waiting;
}

/* A second of readings, a commit when it is due, until only the last seconds wait. */
static void go_on(struct store *store, unsigned uplink, struct bench_load *load,
                  struct commits *commits)
{
    double due = bench_wall_s() + interval_s, last = due - interval_s;
    while (commits->count < COMMITS_MAX &&
           waiting(store, uplink) > (uint64_t)3 * DEVICES * CHANNELS) {
        bench_load_next(load);
        wait_until(due);
        bench_load_append(load, store);
        double from = bench_wall_s();
        bench_must(store_commit(store), "commit");
        double now = bench_wall_s(), anonymous = bench_anonymous_mib();
        commits->took[commits->count] = now - from;
        commits->late[commits->count++] = now - due;
        commits->gap_max = now - last > commits->gap_max ? now - last : commits->gap_max;
        commits->anonymous_mib = anonymous > commits->anonymous_mib ? anonymous
                                                                    : commits->anonymous_mib;
        last = now;
        due += interval_s;
    }
}

static int report(struct commits *commits)
{
    size_t n = commits->count, p99 = n - 1 - n / 100;
    qsort(commits->took, n, sizeof(*commits->took), bench_by_size);
    qsort(commits->late, n, sizeof(*commits->late), bench_by_size);
    bench_line("commits meanwhile", (double)n, "commits", BENCH_SHOWN, 0);
    bench_line("a commit meanwhile, median", commits->took[n / 2] * 1e3, "ms", BENCH_SHOWN, 0);
    bench_line("a commit meanwhile, p99", commits->took[p99] * 1e3, "ms", BENCH_SHOWN, 0);
    bench_line("a commit meanwhile, longest", commits->took[n - 1] * 1e3, "ms", BENCH_SHOWN, 0);
    bench_line("behind its time, p99", commits->late[p99] * 1e3, "ms", BENCH_SHOWN, 0);
    int bad = bench_line("behind its time, most", commits->late[n - 1] * 1e3, "ms", BENCH_AT_MOST,
                         interval_s * 1e3);
    bad += bench_line("between two commits, longest", commits->gap_max * 1e3, "ms", BENCH_AT_MOST,
                      2 * interval_s * 1e3);
    return bad + bench_line("anonymous memory, bench included", commits->anonymous_mib, "MiB",
                            BENCH_AT_MOST, 48);
}

int bench_backlog(const char *base, double million_readings, double million_a_second)
{
    static struct commits commits;
    struct store_settings settings = {.commit_interval_ms = 1000, .max_size_bytes = -1};
    struct bench_store at;
    bench_store_make(&at, base, &settings);
    unsigned uplink;
    bench_must(store_add_uplink(at.store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    struct bench_load load = {
        .devices = DEVICES, .channels = CHANNELS, .rows = FILL_ROWS, .recorded = true};
    bench_load_init(&load, at.store);
    double from = bench_wall_s();
    fill(at.store, &load, million_readings * 1e6);
    double took = bench_wall_s() - from;
    double backlog = (double)waiting(at.store, uplink);
    bench_line("backlog", backlog, "readings", BENCH_SHOWN, 0);
    bench_line("backlog appended", backlog / took, "readings/s", BENCH_SHOWN, 0);
    bench_line("backlog in the file", (double)bench_store_file_bytes(&at) / backlog, "B/reading",
               BENCH_SHOWN, 0);
    int bad = start_up(&at, &settings);

    load.rows = 1;
    load.scan_count = DEVICES;
    struct drain drain = {.a_second = million_a_second * 1e6};
    pthread_t thread;
    bench_must(store_reader_create(at.store, uplink, false, &drain.reader), "reader");
    from = bench_wall_s();
    bench_must(-pthread_create(&thread, NULL, drain_run, &drain), "thread");
    go_on(at.store, uplink, &load, &commits);
    took = bench_wall_s() - from;
    atomic_store(&drain.stop, true);
    pthread_join(thread, NULL);
    bench_line("drained while 15,400 readings/s arrive", (double)drain.readings / took,
               "readings/s", BENCH_SHOWN, 0);
    bad += report(&commits);
    store_reader_destroy(drain.reader);
    bench_load_finish(&load);
    bench_store_remove(&at);
    return bad;
}
