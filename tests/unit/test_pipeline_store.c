/* The pipeline on the real store: threads, durable pushes, the ledger, and windows over a process
 * that dies in the middle of them. */
#include "gateway/base/clock.h"
#include "gateway/pipeline/pipeline.h"
#include "gateway/store/store.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

/* 2026-01-31T10:00:00Z */
#define TEN ((int64_t)1769853600000)

enum { DEVICES = 3, WAIT_MS = 60000 };

static const char *const all_points[] = {"*"};
static const struct config_gateway gateway = {.name = "gw", .clock = CONFIG_CLOCK_TRUSTED};
static const struct config_aggregate aggregate = {.name = "scada",
                                                  .window_ms = 600000,
                                                  .points = {.items = all_points, .count = 1},
                                                  .functions = FUNCTION_MEAN | FUNCTION_COUNT};
static const struct config_point points[] = {
    {.name = "speed",
     .unit = "m/s",
     .scale = {.mantissa = 1, .exponent = -2},
     .min = -INFINITY,
     .max = INFINITY},
    {.name = "state",
     .unit = "",
     .scale = {.mantissa = 1},
     .min = -INFINITY,
     .max = INFINITY,
     .on_change = true},
};
static const struct config_device configs[DEVICES] = {
    {.name = "t01", .points = {.list = points, .count = 2}},
    {.name = "t02", .points = {.list = points, .count = 2}},
    {.name = "t03", .points = {.list = points, .count = 2}},
};
static const struct config config = {
    .gateway = &gateway, .aggregates = &aggregate, .aggregate_count = 1};

/* Configurations here are static. */
const struct config *config_ref(const struct config *c)
{
    return c;
}

void config_unref(const struct config *c)
{
    (void)c;
}

struct site {
    char dir[64];
    int64_t keep_ms;
    struct store *store;
    struct pipeline *pipeline;
    struct device *devices[DEVICES];
};

static int open_site(struct site *site, int64_t commit_interval_ms)
{
    /* Nothing is kept for anybody: only the pipeline's own hold keeps what open windows need. */
    const struct store_settings settings = {.commit_interval_ms = commit_interval_ms,
                                            .keep_ms = site->keep_ms,
                                            .max_size_bytes = 64 << 20,
                                            .when_full = STORE_FULL_DROP_OLDEST};
    int r = store_open(site->dir, &settings, &site->store);
    if (r == 0) {
        r = pipeline_create(site->store, &config, &site->pipeline);
    }
    for (size_t i = 0; r == 0 && i < DEVICES; i++) {
        uint32_t id = 0;
        uint64_t seq[STREAM_COUNT];
        r = store_device(site->store, configs[i].name, "", &id);
        for (enum stream s = 0; s < STREAM_COUNT; s++) {
            seq[s] = store_last_seq(site->store, s, id);
        }
        r = r < 0 ? r : device_create(&config, &configs[i], id, seq, &site->devices[i]);
        r = r < 0 ? r : pipeline_add_device(site->pipeline, site->devices[i]);
    }
    return r < 0 ? r : pipeline_start(site->pipeline);
}

static void close_site(struct site *site)
{
    pipeline_stop(site->pipeline);
    for (size_t i = 0; i < DEVICES; i++) {
        device_unref(site->devices[i]);
    }
    pipeline_destroy(site->pipeline);
    store_close(site->store);
}

static int setup(void **state)
{
    struct site *site = calloc(1, sizeof *site);
    *state = site;
    return scratch_dir(site->dir, sizeof site->dir, "windrow-test") == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    struct site *site = *state;
    nftw(site->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(site);
    clock_release();
    return 0;
}

struct two {
    struct scan scan;
    struct reading readings[2];
};

static struct two make_scan(int64_t time_ms, int64_t speed, int64_t state)
{
    struct two two = {.scan = {.time_ms = time_ms, .count = 2}};
    two.scan.readings[0] = (struct reading){.kind = VALUE_DECIMAL, .integer = speed};
    two.scan.readings[1] = (struct reading){.point = 1, .kind = VALUE_DECIMAL, .integer = state};
    return two;
}

enum { SCANS_EACH = 3000 };

static void *drive(void *arg)
{
    struct device *device = arg;
    for (int64_t i = 0; i < SCANS_EACH; i++) {
        struct two two = make_scan(0, i, i / 100);
        while (scan_submit(device, &two.scan) == -ENOBUFS) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    return NULL;
}

struct seen {
    uint64_t last_seq, scans, readings;
};

static int see(void *user, const struct scan *scan)
{
    struct seen *seen = user;
    assert_true(scan->seq > seen->last_seq);
    seen->last_seq = scan->seq;
    seen->scans++;
    seen->readings += scan->count;
    return 0;
}

static void expect_ledger_adds_up(struct site *site, uint64_t read)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(site->store, -1, &total), 0);
    const uint64_t *c = total.counts;
    assert_int_equal(c[LEDGER_READ], read);
    assert_int_equal(c[LEDGER_READ], c[LEDGER_STORED] + c[LEDGER_SUPPRESSED] +
                                         c[LEDGER_DROPPED_OVERRUN] + c[LEDGER_DROPPED_DISK]);
}

static void test_threads_and_ledger(void **state)
{
    struct site *site = *state;
    assert_int_equal(open_site(site, 200), 0);
    pthread_t threads[DEVICES];
    for (size_t i = 0; i < DEVICES; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, drive, site->devices[i]), 0);
    }
    for (size_t i = 0; i < DEVICES; i++) {
        pthread_join(threads[i], NULL);
    }
    pipeline_stop(site->pipeline);
    uint64_t taken = 0;
    for (size_t i = 0; i < DEVICES; i++) {
        struct seen seen = {0};
        uint32_t id = site->devices[i]->id;
        assert_int_equal(store_history(site->store, STREAM_RAW, id, 0, INT64_MAX, see, &seen), 0);
        assert_int_equal(seen.last_seq, site->devices[i]->seq[STREAM_RAW]);
        assert_int_equal(seen.scans, SCANS_EACH);
        assert_int_equal(seen.readings, SCANS_EACH + SCANS_EACH / 100);
        taken += seen.last_seq * 2;
    }
    expect_ledger_adds_up(site, taken);
    close_site(site);
}

struct answer {
    pthread_mutex_t lock;
    pthread_cond_t told;
    int error;
};

static void tell(void *user, int error)
{
    struct answer *answer = user;
    pthread_mutex_lock(&answer->lock);
    answer->error = error;
    pthread_cond_signal(&answer->told);
    pthread_mutex_unlock(&answer->lock);
}

static int wait_for(struct answer *answer)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    int r = 0;
    pthread_mutex_lock(&answer->lock);
    while (answer->error > 0 && r == 0) {
        r = pthread_cond_timedwait(&answer->told, &answer->lock, &until);
    }
    pthread_mutex_unlock(&answer->lock);
    return answer->error;
}

struct events {
    struct site *site;
    uint64_t seq;  /* nothing is kept for anybody: the first ones may be gone */
    char last[64]; /* "kind: text" of the last one */
};

static int see_event(void *user, const struct scan *scan)
{
    struct events *events = user;
    events->seq = scan->seq;
    snprintf(events->last, sizeof events->last, "%.*s: %.*s", (int)scan->readings[0].text.len,
             scan_text(scan, &scan->readings[0]), (int)scan->readings[1].text.len,
             scan_text(scan, &scan->readings[1]));
    return 0;
}

static int look_for_events(void *user)
{
    struct events *events = user;
    return store_history(events->site->store, STREAM_EVENT, events->site->devices[0]->id, 0,
                         INT64_MAX, see_event, events);
}

static void expect_event(struct site *site, uint64_t seq, const char *begin)
{
    struct events events = {.site = site};
    /* Also more often than it commits by itself: that puts off commits, not the look at devices. */
    for (int i = 0; i < WAIT_MS / 10 && events.seq < seq; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        assert_int_equal(pipeline_call_durable(site->pipeline, look_for_events, &events), 0);
    }
    assert_int_equal(events.seq, seq);
    assert_memory_equal(events.last, begin, strlen(begin));
}

/* That a device is lost is known after a restart, so that its return is told, and once. */
static void test_lost_and_returned(void **state)
{
    struct site *site = *state;
    site->keep_ms = 3600 * 1000; /* or the next commit lets the event go, seen or not */
    assert_int_equal(open_site(site, 20), 0);
    device_report_good(site->devices[0], 1000);
    device_report_error(site->devices[1], DEVICE_ERROR_TIMEOUT, 0, false); /* once is nothing */
    device_report_error(site->devices[0], DEVICE_ERROR_CLOSED, 0, true);
    expect_event(site, 1, "device-lost: closed: the device closed the connection");
    close_site(site);
    assert_int_equal(open_site(site, 20), 0);
    device_report_error(site->devices[0], DEVICE_ERROR_CLOSED, 0, true);
    expect_event(site, 1, "device-lost");
    device_report_good(site->devices[0], 1000);
    expect_event(site, 2, "device-returned: after ");
    close_site(site);
    assert_int_equal(open_site(site, 20), 0);
    device_report_good(site->devices[0], 1000);
    device_report_error(site->devices[0], DEVICE_ERROR_CLOSED, 0, true);
    expect_event(site, 3, "device-lost");
    close_site(site);
}

static void test_push_does_not_wait_for_the_interval(void **state)
{
    struct site *site = *state;
    assert_int_equal(open_site(site, 3600 * 1000), 0);
    struct answer answer = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
    struct two two = make_scan(0, 1, 1);
    assert_int_equal(scan_submit_pushed(site->devices[0], &two.scan, tell, &answer), 0);
    assert_int_equal(wait_for(&answer), 0);
    /* What a sender was told is on the disk: another process sees it. */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *store;
        struct seen seen = {0};
        int r = store_open_readonly(site->dir, &store);
        r = r < 0 ? r : store_history(store, STREAM_RAW, 0, 0, INT64_MAX, see, &seen);
        _exit(r == 0 && seen.scans == 1 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close_site(site);
}

/* Takes `seconds` scans a second apart and dies without a word once they are durable. */
static void live_and_die(const char *dir, int64_t from_ms, int64_t seconds)
{
    struct site site = {0};
    snprintf(site.dir, sizeof site.dir, "%s", dir);
    clock_hold(from_ms, from_ms * 1000);
    int r = open_site(&site, 1000);
    struct answer answer = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
    for (int64_t i = 0; r == 0 && i < seconds; i++) {
        for (size_t d = 0; r == 0 && d < DEVICES; d++) {
            bool last = i == seconds - 1 && d == DEVICES - 1;
            struct two two = make_scan(from_ms + i * 1000, 100 * i, 7);
            r = last ? scan_submit_pushed(site.devices[d], &two.scan, tell, &answer)
                     : scan_submit(site.devices[d], &two.scan);
        }
    }
    clock_advance_ms(seconds * 1000);
    _exit(r == 0 && wait_for(&answer) == 0 ? 0 : 1);
}

static void live_and_die_apart(const struct site *site, int64_t from_ms, int64_t seconds)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        live_and_die(site->dir, from_ms, seconds);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

struct results {
    uint64_t scans;
    int64_t count, start_ms; /* of the last one */
};

static int see_result(void *user, const struct scan *scan)
{
    struct results *results = user;
    results->scans++;
    results->start_ms = scan->time_ms;
    for (size_t i = 0; i < scan->count; i++) {
        if (scan->readings[i].exponent == 0) {
            results->count = scan->readings[i].integer;
            break;
        }
    }
    return 0;
}

static struct results results_of(struct site *site)
{
    struct results results = {0};
    assert_int_equal(store_history(site->store, STREAM_AGGREGATE, site->devices[0]->id, 0,
                                   INT64_MAX, see_result, &results),
                     0);
    return results;
}

static void test_windows_over_three_lives(void **state)
{
    struct site *site = *state;
    live_and_die_apart(site, TEN + 10000, 100);
    live_and_die_apart(site, TEN + 200000, 50);
    live_and_die_apart(site, TEN + 400000, 210); /* ten scans into the next window */
    clock_hold(TEN + 620000, TEN * 1000);
    assert_int_equal(open_site(site, 1000), 0);
    pipeline_stop(site->pipeline);
    struct results results = results_of(site);
    assert_int_equal(results.scans, 1);
    assert_int_equal(results.start_ms, TEN);
    assert_int_equal(results.count, 100 + 50 + 200);
    expect_ledger_adds_up(site, DEVICES * 2 * (100 + 50 + 210));
    close_site(site);
    /* And the next window has its ten, though nothing else keeps raw readings. */
    clock_hold(TEN + 1202000, TEN * 1000);
    assert_int_equal(open_site(site, 1000), 0);
    pipeline_stop(site->pipeline);
    results = results_of(site);
    assert_int_equal(results.start_ms, TEN + 600000);
    assert_int_equal(results.count, 10);
    close_site(site);
}

static int count_scans(void *user)
{
    struct site *site = user;
    return (int)store_last_seq(site->store, STREAM_RAW, site->devices[0]->id);
}

static void test_call_sees_what_came_before_it(void **state)
{
    struct site *site = *state;
    assert_int_equal(open_site(site, 3600 * 1000), 0);
    for (int i = 1; i <= 5; i++) {
        struct two two = make_scan(0, i, i);
        assert_int_equal(scan_submit(site->devices[0], &two.scan), 0);
    }
    assert_int_equal(pipeline_call(site->pipeline, count_scans, site), 5);
    close_site(site);
}

struct onlooker {
    struct site *site;
    _Atomic bool stop;
    uint64_t looks;
};

static void *look(void *arg)
{
    struct onlooker *onlooker = arg;
    struct site *site = onlooker->site;
    do {
        struct reading readings[2];
        int64_t times_ms[2];
        struct pipeline_stats stats;
        size_t count = pipeline_latest(site->pipeline, site->devices[0], readings, times_ms);
        pipeline_stats(site->pipeline, &stats);
        onlooker->looks += count + pipeline_live_version(site->pipeline) + stats.queue_peak;
        pipeline_event(site->pipeline, site->devices[0], "look", "again");
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    } while (!onlooker->stop || onlooker->looks == 0); /* however late it comes to run */
    return NULL;
}

/* As a reload does: the object changes, the name and its seq go on. */
static void replace(struct site *site, size_t i)
{
    struct device *old = site->devices[i];
    uint64_t seq[STREAM_COUNT];
    assert_int_equal(pipeline_retire_device(site->pipeline, old), 0);
    for (size_t s = 0; s < STREAM_COUNT; s++) {
        seq[s] = old->seq[s];
    }
    assert_int_equal(device_create(&config, old->config, old->id, seq, &site->devices[i]), 0);
    device_unref(old);
    assert_int_equal(pipeline_add_device(site->pipeline, site->devices[i]), 0);
}

static void test_devices_change_under_load(void **state)
{
    struct site *site = *state;
    assert_int_equal(open_site(site, 50), 0);
    struct onlooker onlooker = {.site = site};
    pthread_t looking, driving;
    assert_int_equal(pthread_create(&looking, NULL, look, &onlooker), 0);
    assert_int_equal(pthread_create(&driving, NULL, drive, site->devices[0]), 0);
    enum { RELOADS = 200 };
    for (int64_t i = 0; i < RELOADS; i++) {
        struct two two = make_scan(0, i, i);
        assert_int_equal(scan_submit(site->devices[1], &two.scan), 0);
        replace(site, 1);
    }
    pthread_join(driving, NULL);
    onlooker.stop = true;
    pthread_join(looking, NULL);
    assert_true(onlooker.looks > 0);
    pipeline_stop(site->pipeline);
    struct seen seen = {0};
    assert_int_equal(
        store_history(site->store, STREAM_RAW, site->devices[1]->id, 0, INT64_MAX, see, &seen), 0);
    assert_int_equal(seen.scans, RELOADS);
    assert_int_equal(seen.last_seq, RELOADS);
    expect_ledger_adds_up(site, 2 * (RELOADS + site->devices[0]->seq[STREAM_RAW]));
    close_site(site);
}

#define with_site(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_site(test_threads_and_ledger),
        with_site(test_lost_and_returned),
        with_site(test_push_does_not_wait_for_the_interval),
        with_site(test_windows_over_three_lives),
        with_site(test_devices_change_under_load),
        with_site(test_call_sees_what_came_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
