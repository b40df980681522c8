/* Full with large blocks: thinned, dropped or paused, drained, and full again, twenty times each;
 * what was thinned is in the statistics and nowhere else. */
#include "gateway/store/store_clock.h"
#include "store_site.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

/* One thread writes and reads here, so the slow thread sanitizer has little to see in it. */
#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 2 };
#else
enum { ROUNDS = 20 };
#endif
enum { DEVICES = 3, COMMITS = 160, SCANS = 200, COUNT_RESULT = 4 };

struct fixture {
    struct site site;
    uint64_t seq, appended, refused;
    uint64_t raw, summarised, statistics; /* scans delivered; raw scans in statistics; readings */
    uint64_t last_raw[DEVICES + 1];
    int64_t earliest_ms; /* of statistics */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    f->site.streams |= 1u << STREAM_AGGREGATE;
    f->site.settings.max_size_bytes = 1 << 20;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    site_end(&f->site);
    free(f);
    return 0;
}

static void open_with(struct fixture *f, int when_full)
{
    f->site.settings.when_full = when_full;
    site_open(&f->site, false);
}

static uint64_t noise(uint64_t seq, uint32_t device, unsigned p)
{
    uint64_t x = seq * 1000003 + device * 131u + p * 7u;
    x = (x ^ x >> 31) * 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 27) * 0xBF58476D1CE4E5B9ull;
    return x >> 58;
}

static void append_one(struct fixture *f, uint32_t device)
{
    auto_free struct scan *scan = fixture_scan(STREAM_RAW, device, f->seq, FIXTURE_POINTS);
    for (unsigned p = 0; p < FIXTURE_POINTS; p++) {
        scan->readings[p].integer = (int64_t)noise(f->seq, device, p);
    }
    store_count(f->site.store, device, LEDGER_READ, FIXTURE_POINTS);
    int rc = store_append(f->site.store, scan);
    if (rc == 0) {
        f->appended++;
    } else {
        assert_int_equal(rc, -ENOSPC);
        f->refused++;
        store_count(f->site.store, device, LEDGER_DROPPED_DISK, FIXTURE_POINTS);
    }
}

static void fill_by(struct fixture *f, unsigned commits, unsigned scans)
{
    for (unsigned c = 0; c < commits; c++) {
        for (unsigned i = 0; i < scans; i++) {
            f->seq++;
            for (unsigned d = 0; d < DEVICES; d++) {
                append_one(f, f->site.devices[d]);
            }
            clock_advance_ms(1000);
        }
        int rc = store_commit(f->site.store);
        assert_true(rc == 0 || rc == -ENOSPC);
    }
}

static void fill(struct fixture *f)
{
    fill_by(f, COMMITS, SCANS);
}

static void take_raw(struct fixture *f, const struct scan *scan)
{
    assert_true(scan->seq > f->last_raw[scan->device]);
    f->last_raw[scan->device] = scan->seq;
    for (unsigned p = 0; p < FIXTURE_POINTS; p++) {
        assert_int_equal(scan->readings[p].integer, noise(scan->seq, scan->device, p));
    }
    f->raw++;
}

static void take_statistics(struct fixture *f, const struct scan *scan)
{
    const struct store_names *names = store_names(f->site.store, scan->device);
    assert_true(scan->window_s >= 600);
    assert_true(scan->time_ms >= f->earliest_ms);
    assert_int_equal(scan->time_ms % (scan->window_s * 1000ll), 0);
    assert_int_equal(scan->count, FIXTURE_POINTS * 5);
    f->statistics += scan->count;
    for (unsigned i = 0; i < scan->count; i++) {
        const struct reading *r = &scan->readings[i];
        const char *name = names->points[r->point].name;
        if (strcmp(name, "p0_count") == 0) {
            f->summarised += (uint64_t)r->integer;
        } else if (strcmp(name, "p0_mean") == 0) {
            assert_in_range((int64_t)(r->real * 100), 1, 6300 / 100 * 100);
        } else if (strcmp(name, "p0_min") == 0 || strcmp(name, "p0_max") == 0) {
            assert_in_range(r->integer, 0, 63);
        }
    }
}

static void drain_stream(struct fixture *f, enum stream stream)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    do {
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, stream, 500,
                                           1 << 20, &arena, &scans, &count),
                         0);
        for (size_t i = 0; i < count; i++) {
            if (stream == STREAM_RAW) {
                take_raw(f, scans[i]);
            } else {
                take_statistics(f, scans[i]);
            }
        }
        if (count > 0) {
            assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
        }
    } while (count > 0);
}

static void drain(struct fixture *f)
{
    for (unsigned turn = 0; turn < 30; turn++) {
        drain_stream(f, STREAM_RAW);
        drain_stream(f, STREAM_AGGREGATE);
        int rc = store_commit(f->site.store);
        assert_true(rc == 0 || rc == -ENOSPC);
    }
    /* What has left can be used again by the commit after that. */
    for (unsigned i = 0; i < 4; i++) {
        clock_advance_ms(2000);
        store_count(f->site.store, f->site.devices[0], LEDGER_DERIVED, 0);
        assert_int_equal(store_commit(f->site.store), 0);
    }
}

static off_t file_size(const struct fixture *f)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof(path), "%s/store/data.mdb", f->site.dir);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void round_and_round(struct fixture *f, int when_full)
{
    open_with(f, when_full);
    uint64_t appended = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t raw = f->raw;
        fill(f);
        assert_true(f->appended > appended + SCANS);
        appended = f->appended;
        drain(f);
        assert_true(f->raw > raw + 1000);
        fixture_adds_up(f->site.store, (int)f->site.uplink);
        struct ledger_device total;
        assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
        assert_int_equal(total.waiting, 0);
        assert_int_equal(total.counts[LEDGER_STORED], f->appended * FIXTURE_POINTS);
        assert_int_equal(total.counts[LEDGER_DROPPED_DISK], f->refused * FIXTURE_POINTS);
        assert_int_equal(total.fates[FATE_DELIVERED], f->raw * FIXTURE_POINTS + f->statistics);
        assert_int_equal(total.offered, total.counts[LEDGER_STORED] + total.counts[LEDGER_DERIVED]);
    }
    assert_in_range(file_size(f), 0,
                    f->site.settings.max_size_bytes + f->site.settings.max_size_bytes / 4);
}

static uint64_t fate(struct fixture *f, enum ledger_fate which)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    return total.fates[which];
}

static void test_thin_twenty_rounds(void **state)
{
    struct fixture *f = *state;
    round_and_round(f, STORE_FULL_THIN);
    assert_int_equal(f->refused, 0);
    assert_true(f->summarised > ROUNDS * 1000);
    /* Each raw scan was either delivered or is in statistics that were. */
    assert_int_equal(f->raw + f->summarised, f->appended);
    assert_int_equal(fate(f, FATE_THINNED), f->summarised * FIXTURE_POINTS);
}

static void test_drop_oldest_twenty_rounds(void **state)
{
    struct fixture *f = *state;
    round_and_round(f, STORE_FULL_DROP_OLDEST);
    assert_int_equal(f->refused, 0);
    assert_int_equal(f->statistics, 0);
    assert_int_equal(f->raw * FIXTURE_POINTS + fate(f, FATE_THINNED), f->appended * FIXTURE_POINTS);
}

static void test_pause_twenty_rounds(void **state)
{
    struct fixture *f = *state;
    round_and_round(f, STORE_FULL_PAUSE);
    assert_true(f->refused > 0);
    assert_int_equal(f->raw, f->appended);
    assert_int_equal(fate(f, FATE_THINNED), 0);
}

/* Commits so large, in a store so small, that blocks of the log must go before they have passed
 * into large ones: they become statistics as well. */
static void test_large_commits_are_thinned_too(void **state)
{
    struct fixture *f = *state;
    enum { LARGE = 1000 };
    f->site.settings.max_size_bytes = 512 * 1024;
    open_with(f, STORE_FULL_THIN);
    for (unsigned round = 0; round < ROUNDS / 2; round++) {
        fill_by(f, 12, LARGE);
        drain(f);
        fixture_adds_up(f->site.store, (int)f->site.uplink);
    }
    assert_int_equal(f->raw + f->summarised, f->appended);
    assert_int_equal(fate(f, FATE_THINNED), f->summarised * FIXTURE_POINTS);
}

static void mind(struct fixture *f, bool vouched)
{
    struct anchors_look look = {
        .vouched = vouched, .offset_ms = clock_offset_ms(), .boot_ms = clock_boot_ms()};
    int64_t moved_ms;
    assert_int_equal(store_clock_mind(f->site.store, &look, 86400000, &moved_ms), 0);
}

/* Scans of a boot whose clock was wrong get their times when it is set; the statistics that they
 * become are of those times. */
static void test_statistics_have_the_times_that_were_decided(void **state)
{
    struct fixture *f = *state;
    enum { LARGE = 1000, EARLY = 3, LATE = 24, WRONG_MS = 1000000 };
    f->site.settings.max_size_bytes = 512 * 1024;
    clock_hold(WRONG_MS, 1000000000);
    open_with(f, STORE_FULL_THIN);
    mind(f, false);
    fill_by(f, EARLY, LARGE);
    int64_t boot_ms = clock_boot_ms();
    clock_hold(SITE_START_MS, boot_ms * 1000000);
    mind(f, true);
    f->earliest_ms = SITE_START_MS - (int64_t)EARLY * LARGE * 1000 - 86400000;
    fill_by(f, LATE, LARGE);
    drain(f);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    assert_true(f->summarised > (uint64_t)EARLY * LARGE * DEVICES); /* theirs, too */
    assert_int_equal(f->raw + f->summarised, f->appended);
}

/* What the child got acknowledged, in memory that outlives it. */
struct shared {
    _Atomic uint64_t commits, scans; /* scans: of each device */
};

static void live_until_killed(struct fixture *f, struct shared *shared)
{
    open_with(f, STORE_FULL_THIN);
    f->seq = store_last_seq(f->site.store, STREAM_RAW, f->site.devices[0]);
    for (;;) {
        fill_by(f, 1, 120);
        shared->scans = f->seq;
        shared->commits++;
    }
}

/* What a life leaves: sound blocks, a ledger that adds up and holds what was acknowledged. */
static void check_life(struct fixture *f, const struct shared *shared, bool deliver)
{
    uint64_t blocks, bad;
    open_with(f, STORE_FULL_THIN);
    assert_null(store_quarantined(f->site.store));
    assert_int_equal(store_verify(f->site.store, &blocks, &bad), 0);
    assert_int_equal(bad, 0);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    f->appended = 0;
    for (unsigned d = 0; d < DEVICES; d++) {
        uint64_t last = store_last_seq(f->site.store, STREAM_RAW, f->site.devices[d]);
        assert_true(last >= shared->scans);
        f->appended += last; /* from 1, without a gap */
    }
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    assert_int_equal(total.counts[LEDGER_STORED], f->appended * FIXTURE_POINTS);
    if (deliver) {
        drain(f);
        assert_int_equal(f->raw + f->summarised, f->appended);
        assert_int_equal(fate(f, FATE_THINNED), f->summarised * FIXTURE_POINTS);
        assert_int_equal(fate(f, FATE_DELIVERED), f->raw * FIXTURE_POINTS + f->statistics);
    }
    store_reader_destroy(f->site.reader);
    store_close(f->site.store);
    f->site.reader = NULL;
    f->site.store = NULL;
}

/* kill -9 while blocks are appended, flushed and thinned: each acknowledged scan is delivered or in
 * the statistics, once. WINDROW_THIN_KILLS: how often (9). */
static void test_kills_among_flush_and_thinning(void **state)
{
    struct fixture *f = *state;
    const char *asked = getenv("WINDROW_THIN_KILLS");
    unsigned kills = asked != NULL ? (unsigned)strtoul(asked, NULL, 10) : 9;
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    f->site.settings.max_size_bytes = 512 * 1024;
    for (unsigned i = 0; i < kills; i++) {
        uint64_t until = shared->commits + 5 + i * 7919 % 70;
        clock_hold(SITE_START_MS + (int64_t)i * 86400000, 1000000000);
        pid_t pid = fork();
        if (pid == 0) {
            live_until_killed(f, shared);
            _exit(1);
        }
        struct timespec pause = {.tv_nsec = (long)(i * 7919 % 10 + 1) * 300000};
        for (unsigned k = 0; k < 20000 && shared->commits < until; k++) {
            nanosleep(&pause, NULL);
        }
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check_life(f, shared, i % 3 == 2 || i + 1 == kills);
    }
    assert_true(f->summarised > 0);
    munmap(shared, sizeof(*shared));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_thin_twenty_rounds),
        TEST(test_drop_oldest_twenty_rounds),
        TEST(test_pause_twenty_rounds),
        TEST(test_large_commits_are_thinned_too),
        TEST(test_statistics_have_the_times_that_were_decided),
        TEST(test_kills_among_flush_and_thinning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
