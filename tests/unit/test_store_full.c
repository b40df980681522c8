/* Space: steady state, full by each rule, drained and accepting again, expiry, history that goes
 * first. Clocks are in the test's hand. */
#include "store_site.h"

struct fixture {
    struct site site;
    uint64_t seq;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, 1);
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

/* Readings that do not compress, one page a scan, so that the store fills quickly. */
enum { POINTS = 230 };

static int append_noise(struct fixture *f)
{
    auto_free struct scan *scan = fixture_scan(STREAM_RAW, f->site.devices[0], f->seq + 1, POINTS);
    for (unsigned p = 0; p < POINTS; p++) {
        scan->readings[p].kind = VALUE_REAL;
        uint64_t bits = (f->seq * POINTS + p + 1) * 0x9E3779B97F4A7C15ull;
        bits ^= bits >> 31;
        bits *= 0xBF58476D1CE4E5B9ull;
        memcpy(&scan->readings[p].real, &bits, sizeof(bits));
    }
    int rc = store_append(f->site.store, scan);
    store_count(f->site.store, f->site.devices[0], LEDGER_READ, POINTS);
    if (rc == 0) {
        f->seq++;
    } else {
        store_count(f->site.store, f->site.devices[0], LEDGER_DROPPED_DISK, POINTS);
    }
    return rc;
}

static size_t drain(struct fixture *f)
{
    auto_buffer struct buffer arena = {0};
    size_t total = 0, count;
    do {
        const struct scan **scans;
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 500,
                                           1 << 20, &arena, &scans, &count),
                         0);
        if (count > 0) {
            assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
        }
        total += count;
    } while (count > 0);
    return total;
}

static off_t file_size(const struct fixture *f)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof(path), "%s/store/data.mdb", f->site.dir);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static uint64_t fate(struct fixture *f, enum ledger_fate which)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    return total.fates[which];
}

static enum store_room room(struct fixture *f)
{
    struct store_stat stat;
    store_stat(f->site.store, &stat);
    assert_false(stat.disk_full); /* max_size is what is reached here */
    return stat.room;
}

/* Five seconds of commits that find room. */
static void has_room_again(struct fixture *f)
{
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
        assert_int_equal(drain(f), 1);
        clock_advance_ms(1000);
    }
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(room(f), STORE_ROOM_ENOUGH);
}

static void test_the_file_stays_small_in_steady_state(void **state)
{
    struct fixture *f = *state;
    f->site.settings.max_size_bytes = 64 << 20;
    site_open_aging(&f->site, false, 0);
    for (unsigned i = 0; i < 400; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
        assert_int_equal(drain(f), 1);
        clock_advance_ms(1000);
    }
    assert_in_range(file_size(f), 0, 128 * 4096);
    assert_int_equal(room(f), STORE_ROOM_ENOUGH);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_drop_oldest_twenty_rounds(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    uint64_t delivered = 0;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 400; i++) {
            assert_int_equal(append_noise(f), 0);
            assert_int_equal(store_commit(f->site.store), 0);
            clock_advance_ms(1000);
        }
        struct store_stat stat;
        store_stat(f->site.store, &stat);
        assert_in_range(stat.bytes, 0, f->site.settings.max_size_bytes);
        assert_in_range(stat.waiting, 100 * POINTS, 400 * POINTS); /* most of it is still in use */
        assert_int_equal(room(f), STORE_ROOM_DROPPING);
        delivered += drain(f);
        assert_int_equal(store_commit(f->site.store), 0);
        fixture_adds_up(f->site.store, (int)f->site.uplink);
        assert_int_equal(fate(f, FATE_DELIVERED), delivered * POINTS);
        assert_int_equal(fate(f, FATE_DELIVERED) + fate(f, FATE_THINNED), f->seq * POINTS);
    }
    assert_in_range(file_size(f), 0,
                    f->site.settings.max_size_bytes + f->site.settings.max_size_bytes / 4);
    has_room_again(f);
}

static void test_pause_refuses_and_goes_on_twenty_rounds(void **state)
{
    struct fixture *f = *state;
    f->site.settings.when_full = STORE_FULL_PAUSE;
    site_open_aging(&f->site, false, 0);
    for (unsigned round = 0; round < 20; round++) {
        unsigned stored = 0;
        while (append_noise(f) == 0) {
            assert_int_equal(store_commit(f->site.store), 0);
            assert_in_range(++stored, 1, 1000);
            clock_advance_ms(1000);
        }
        assert_int_equal(append_noise(f), -ENOSPC);
        assert_in_range(stored, 100, 1000);
        assert_int_equal(room(f), STORE_ROOM_REFUSING);
        assert_int_equal(store_commit(f->site.store), 0);
        assert_int_equal(drain(f), stored);
        for (unsigned i = 0; i < 20 && store_has_pending(f->site.store); i++) {
            assert_int_equal(store_commit(f->site.store), 0);
            clock_advance_ms(1000);
        }
        fixture_adds_up(f->site.store, (int)f->site.uplink);
        assert_int_equal(fate(f, FATE_THINNED), 0);
        assert_int_equal(fate(f, FATE_DELIVERED), f->seq * POINTS);
    }
    has_room_again(f);
}

static void test_delivered_history_goes_before_what_waits(void **state)
{
    struct fixture *f = *state;
    f->site.settings.keep_ms = 7 * 86400000ll;
    site_open_aging(&f->site, false, 0);
    for (unsigned i = 0; i < 100; i++) { /* waits: the oldest */
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
    }
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 40, 1 << 24,
                                       &arena, &scans, &count),
                     0);
    for (unsigned i = 0; i < 1000; i++) { /* delivered at once, kept as history */
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
        if (i == 0) {
            store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[0], 1, 100);
            continue;
        }
        if (i % 10 == 0) {
            assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 10,
                                               1 << 24, &arena, &scans, &count),
                             0);
            assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
            clock_advance_ms(1000);
        }
    }
    assert_int_equal(store_commit(f->site.store), 0);
    /* 1,100 scans came, 990 were sent, 256 fit: had what waits gone first, some would be lost. */
    assert_int_equal(fate(f, FATE_THINNED), 0);
    struct store_stat stat;
    store_stat(f->site.store, &stat);
    assert_int_equal(stat.waiting, 110 * POINTS);
    assert_int_equal(drain(f), 110);
}

static void test_dropped_while_in_flight_is_not_counted_twice(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    assert_int_equal(append_noise(f), 0);
    assert_int_equal(append_noise(f), 0);
    assert_int_equal(store_commit(f->site.store), 0);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 2, 1 << 24,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 2);
    for (unsigned i = 0; i < 400; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
    }
    uint64_t thinned = fate(f, FATE_THINNED);
    assert_true(thinned > 2 * POINTS);
    assert_int_equal(fixture_settle(f->site.reader, scans, 1, FATE_DELIVERED), 0);
    store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[0], 2, 2);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(fate(f, FATE_DELIVERED), POINTS);
    assert_int_equal(fate(f, FATE_THINNED), thinned - POINTS);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    drain(f);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(fate(f, FATE_DELIVERED) + fate(f, FATE_THINNED), f->seq * POINTS);
}

static void test_expiry_never_blocks_newer_data(void **state)
{
    struct fixture *f = *state;
    f->site.settings.max_size_bytes = 64 << 20;
    site_open_aging(&f->site, false, 60000);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
        clock_advance_ms(1000);
    }
    /* The sender is away: the writer expires by itself. */
    clock_advance_ms(40000);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
    }
    assert_int_equal(fate(f, FATE_EXPIRED), 30 * POINTS);
    /* What has grown too old since is passed over by the reader. */
    clock_advance_ms(15000);
    assert_int_equal(drain(f), 15);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(fate(f, FATE_EXPIRED), 45 * POINTS);
    assert_int_equal(fate(f, FATE_DELIVERED), 15 * POINTS);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_open_windows_hold_their_blocks(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    store_hold_since(f->site.store, SITE_START_MS + 5000);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_int_equal(store_commit(f->site.store), 0);
        clock_advance_ms(1000);
    }
    assert_int_equal(drain(f), 10);
    assert_int_equal(store_commit(f->site.store), 0);
    struct store_stat stat;
    store_stat(f->site.store, &stat);
    assert_int_equal(stat.blocks, 5);
    store_hold_since(f->site.store, INT64_MAX);
    store_set_note(f->site.store, "closed", 1);
    assert_int_equal(store_commit(f->site.store), 0);
    store_stat(f->site.store, &stat);
    assert_int_equal(stat.blocks, 0);
}

static void test_a_pending_commit_is_bounded(void **state)
{
    struct fixture *f = *state;
    f->site.settings.max_size_bytes = 64 << 20;
    site_open_aging(&f->site, false, 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(append_noise(f), 0);
        assert_in_range(store_pending_bytes(f->site.store), 1, STORE_PENDING_MAX + 16 * 1024);
    }
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(drain(f), 1000);
}

static void test_auto_stretches_where_little_arrives(void **state)
{
    struct fixture *f = *state;
    f->site.settings.max_size_bytes = 64 << 20;
    f->site.settings.commit_interval_ms = -1;
    site_open_aging(&f->site, false, 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(fixture_append(f->site.store, STREAM_RAW, f->site.devices[0], ++f->seq),
                         0);
        clock_advance_ms(1000);
        assert_int_equal(store_commit(f->site.store), 0);
    }
    assert_int_equal(store_commit_interval_ms(f->site.store), 10000);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned n = 0; n < 10; n++) {
            assert_int_equal(append_noise(f), 0);
        }
        clock_advance_ms(1000);
        assert_int_equal(store_commit(f->site.store), 0);
    }
    assert_int_equal(store_commit_interval_ms(f->site.store), 1000);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_STORE(test_the_file_stays_small_in_steady_state),
        WITH_STORE(test_drop_oldest_twenty_rounds),
        WITH_STORE(test_pause_refuses_and_goes_on_twenty_rounds),
        WITH_STORE(test_delivered_history_goes_before_what_waits),
        WITH_STORE(test_dropped_while_in_flight_is_not_counted_twice),
        WITH_STORE(test_expiry_never_blocks_newer_data),
        WITH_STORE(test_open_windows_hold_their_blocks),
        WITH_STORE(test_a_pending_commit_is_bounded),
        WITH_STORE(test_auto_stretches_where_little_arrives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
