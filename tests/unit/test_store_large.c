/* Large blocks: flushed out of the log, read by both lanes, kept, given back; and their format. */
#include "gateway/store/internal.h"
#include "gateway/store/large.h"
#include "store_site.h"

enum { DEVICES = 3 };

struct fixture {
    struct site site;
    uint64_t seq[STREAM_COUNT];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    f->site.streams |= 1u << STREAM_AGGREGATE;
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

/* Values that do not compress away as the fixture's do. */
static int64_t noise(const struct scan *scan, unsigned p)
{
    uint64_t x = scan->seq * 1000003 + scan->device * 131u + p * 7u + scan->stream;
    x = (x ^ x >> 31) * 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 27) * 0xBF58476D1CE4E5B9ull;
    return 1000 + (int64_t)(x >> 58);
}

static void append_scan(struct fixture *f, enum stream stream, uint32_t device)
{
    auto_free struct scan *scan = fixture_scan(stream, device, f->seq[stream], FIXTURE_POINTS);
    for (unsigned p = 0; p < FIXTURE_POINTS; p++) {
        scan->readings[p].integer = noise(scan, p);
    }
    assert_int_equal(store_append(f->site.store, scan), 0);
    if (stream == STREAM_RAW) {
        store_count(f->site.store, device, LEDGER_READ, FIXTURE_POINTS);
    }
}

static void check_scan(const struct scan *scan)
{
    assert_int_equal(scan->count, FIXTURE_POINTS);
    for (unsigned p = 0; p < FIXTURE_POINTS; p++) {
        assert_int_equal(scan->readings[p].integer, noise(scan, p));
    }
}

/* One scan of each device, ten a commit: fewer commits fill the pages of a device. */
static void append(struct fixture *f, unsigned commits)
{
    for (unsigned i = 0; i < commits; i++) {
        for (unsigned r = 0; r < 10; r++) {
            f->seq[STREAM_RAW]++;
            for (unsigned d = 0; d < DEVICES; d++) {
                append_scan(f, STREAM_RAW, f->site.devices[d]);
            }
            clock_advance_ms(1000);
        }
        f->seq[STREAM_AGGREGATE]++;
        append_scan(f, STREAM_AGGREGATE, f->site.devices[0]);
        assert_int_equal(store_commit(f->site.store), 0);
    }
}

/* Commits without scans, so that what was begun ends. */
static void settle_down(struct fixture *f)
{
    for (unsigned i = 0; i < 60; i++) {
        store_count(f->site.store, f->site.devices[0], LEDGER_DERIVED, 0);
        assert_int_equal(store_commit(f->site.store), 0);
    }
}

struct counting {
    enum key_type type;
    size_t count;
};

static int count_entry(void *user, const MDB_val *name, const MDB_val *value)
{
    struct counting *counting = user;
    (void)value;
    counting->count += ((const uint8_t *)name->mv_data)[0] == (uint8_t)counting->type;
    return 0;
}

static size_t entries(struct fixture *f, enum key_type type)
{
    MDB_txn *txn = NULL;
    struct counting counting = {.type = type};
    assert_int_equal(env_read(f->site.store->env, &txn), 0);
    assert_int_equal(env_walk(txn, count_entry, &counting), 0);
    env_read_end(f->site.store->env, txn);
    return counting.count;
}

static uint64_t flushed(struct fixture *f, unsigned d)
{
    return f->site.store->state.devices[f->site.devices[d] - 1].flushed[STREAM_RAW];
}

static void test_kept_scans_pass_into_blocks_that_fill_pages(void **state)
{
    struct fixture *f = *state;
    f->site.settings.keep_ms = 7ll * 86400000;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS + 100);
    settle_down(f);
    assert_in_range(entries(f, KEY_LARGE), DEVICES, 200);
    MDB_txn *txn = NULL;
    assert_int_equal(env_read(f->site.store->env, &txn), 0);
    for (unsigned d = 0; d < DEVICES; d++) {
        assert_in_range(flushed(f, d), FLUSH_BLOCKS * 9, f->seq[STREAM_RAW]);
        uint64_t seq = 1;
        struct large large;
        MDB_val value;
        for (; large_find(txn, STREAM_RAW, f->site.devices[d], seq, &large, &value) == 0;
             seq = large.last_seq + 1) {
            assert_int_equal(large.first_seq, seq);
            assert_int_equal(large.readings, large.scans * FIXTURE_POINTS);
            size_t page = 4096, rest = (value.mv_size + 16) % page;
            assert_true(rest == 0 || rest > page - page / 4 || value.mv_size < page);
        }
        assert_int_equal(seq, flushed(f, d) + 1);
    }
    env_read_end(f->site.store->env, txn);
    /* The log is left only with what fills no page. */
    assert_in_range(entries(f, KEY_WAL), 0, FLUSH_BLOCKS / 2 + 200);
    uint64_t blocks, bad;
    assert_int_equal(store_verify(f->site.store, &blocks, &bad), 0);
    assert_int_equal(bad, 0);
    assert_int_equal(blocks, entries(f, KEY_LARGE) + entries(f, KEY_WAL));
}

struct drained {
    uint8_t *seen[STREAM_COUNT];
    uint64_t last[STREAM_COUNT][STORE_LANES][DEVICES + 2];
    size_t total[STREAM_COUNT];
};

static void check_taken(struct fixture *f, struct drained *drained, enum store_lane lane,
                        const struct scan *const *scans, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct scan *scan = scans[i];
        check_scan(scan);
        uint8_t *mark =
            &drained->seen[scan->stream][(scan->device - 1) * f->seq[scan->stream] + scan->seq - 1];
        assert_int_equal(*mark, 0);
        *mark = 1;
        uint64_t *last = &drained->last[scan->stream][lane][scan->device];
        assert_true(scan->seq > *last);
        *last = scan->seq;
        drained->total[scan->stream]++;
    }
    assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
}

/* Takes all of both lanes and streams in turn: every scan once, in order within device and lane. */
static void drain_all(struct fixture *f, bool split)
{
    auto_buffer struct buffer arena = {0};
    struct drained drained = {0};
    for (unsigned s = 0; s < STREAM_EVENT; s++) {
        drained.seen[s] = calloc((f->seq[s] + 1) * (DEVICES + 1), 1);
    }
    unsigned idle = 0;
    for (unsigned turn = 0; idle < 8; turn++) {
        enum store_lane lane = split && turn % 2 == 0 ? STORE_LANE_LIVE : STORE_LANE_BACKFILL;
        enum stream stream = turn / 2 % 2 == 0 ? STREAM_RAW : STREAM_AGGREGATE;
        const struct scan **scans;
        size_t count;
        assert_int_equal(
            store_reader_take(f->site.reader, lane, stream, 700, 1 << 20, &arena, &scans, &count),
            0);
        idle = count == 0 ? idle + 1 : 0;
        if (count > 0 && turn % 5 == 3) { /* now and then a request fails */
            for (size_t i = 0; i < count; i++) {
                store_reader_return(f->site.reader, stream, scans[i]->device, scans[i]->seq,
                                    scans[i]->seq);
            }
        } else if (count > 0) {
            check_taken(f, &drained, lane, scans, count);
        }
        if (turn % 16 == 7) {
            assert_int_equal(store_commit(f->site.store), 0);
        }
    }
    assert_int_equal(drained.total[STREAM_RAW], f->seq[STREAM_RAW] * DEVICES);
    assert_int_equal(drained.total[STREAM_AGGREGATE], f->seq[STREAM_AGGREGATE]);
    assert_int_equal(store_commit(f->site.store), 0);
    free(drained.seen[STREAM_RAW]);
    free(drained.seen[STREAM_AGGREGATE]);
}

static void drain_stream(struct fixture *f, enum stream stream)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    do {
        int rc = store_reader_take(f->site.reader, STORE_LANE_BACKFILL, stream, 700, 1 << 20,
                                   &arena, &scans, &count);
        if (rc == -EBADMSG) {
            count = 1; /* passed over: there may be more */
            continue;
        }
        assert_int_equal(rc, 0);
        if (count > 0) {
            assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
        }
    } while (count > 0);
}

/* A round begins when there is enough of each device, not after so many commits only. */
static void test_large_commits_pass_after_few_of_them(void **state)
{
    enum { COMMITS = 200 };
    struct fixture *f = *state;
    f->site.settings.keep_ms = 7ll * 86400000;
    site_open_aging(&f->site, false, 0);
    uint64_t a_commit = (10 * DEVICES + 1) * FIXTURE_POINTS;
    assert_in_range(FLUSH_READINGS * DEVICES / a_commit, FLUSH_BLOCKS_LEAST, COMMITS - 50);
    append(f, COMMITS);
    assert_in_range(entries(f, KEY_LARGE), DEVICES, COMMITS);
    assert_in_range(entries(f, KEY_WAL), 1, COMMITS - 50);
}

static void test_nothing_large_where_nothing_waits(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    for (unsigned i = 0; i < FLUSH_BLOCKS + 300; i++) {
        append(f, 1);
        drain_stream(f, STREAM_RAW);
        drain_stream(f, STREAM_AGGREGATE);
        assert_in_range(entries(f, KEY_WAL), 0, 3);
    }
    assert_int_equal(entries(f, KEY_LARGE), 0);
}

static void test_a_backlog_is_delivered_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS * 2 + 100);
    assert_in_range(entries(f, KEY_LARGE), DEVICES, 1000);
    drain_all(f, false);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    struct store_stat stat;
    settle_down(f);
    store_stat(f->site.store, &stat);
    assert_int_equal(stat.waiting, 0);
    assert_int_equal(entries(f, KEY_LARGE), 0);
    assert_int_equal(entries(f, KEY_WAL), 0);
    assert_int_equal(stat.blocks, 0);
}

static void test_a_reader_that_lags_finds_what_has_passed_meanwhile(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, true, 0);
    append(f, 5);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, 10, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 10); /* in flight while the log goes by */
    uint32_t device = scans[0]->device;
    append(f, FLUSH_BLOCKS * 2);
    assert_true(flushed(f, 0) > 100);
    store_reader_return(f->site.reader, STREAM_RAW, device, 1, 10);
    drain_all(f, true);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_after_a_split_live_comes_first_and_nothing_twice(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, true, 0);
    append(f, FLUSH_BLOCKS * 2);
    store_reader_split(f->site.reader);
    append(f, 200);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, 10, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(scans[0]->seq, FLUSH_BLOCKS * 2 * 10 + 1);
    store_reader_return(f->site.reader, STREAM_RAW, scans[0]->device, scans[0]->seq,
                        scans[count - 1]->seq);
    append(f, FLUSH_BLOCKS + 200); /* what is live passes too */
    drain_all(f, true);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_devices_of_a_backlog_advance_together(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS * 2 + 100);
    auto_buffer struct buffer arena = {0};
    uint64_t last[DEVICES + 1] = {0};
    for (unsigned turn = 0; turn < 60; turn++) {
        const struct scan **scans;
        size_t count;
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 200,
                                           1 << 20, &arena, &scans, &count),
                         0);
        last[scans[0]->device] = scans[count - 1]->seq;
        assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
    }
    for (unsigned d = 0; d < DEVICES; d++) {
        assert_in_range(last[f->site.devices[d]], 1000,
                        8000); /* a block apart, not the whole backlog */
    }
}

static void test_all_is_there_after_a_start(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS + 60); /* in the midst of a flush */
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = flushed(f, 0);
        site_shut(&f->site);
        site_open_aging(&f->site, false, 0);
        assert_int_equal(flushed(f, 0), before);
        append(f, FLUSH_BLOCKS / 2);
    }
    drain_all(f, false);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static int count_scan(void *user, const struct scan *scan)
{
    uint64_t *last = user;
    check_scan(scan);
    assert_int_equal(scan->seq, last[scan->device] + 1);
    last[scan->device] = scan->seq;
    return 0;
}

static int first_scan(void *user, const struct scan *scan)
{
    *(struct scan *)user = *scan;
    return 1;
}

static void test_history_comes_from_blocks_and_log(void **state)
{
    struct fixture *f = *state;
    f->site.settings.keep_ms = 7ll * 86400000;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS * 2);
    uint64_t last[DEVICES + 1] = {0};
    assert_int_equal(
        store_history(f->site.store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, count_scan, last), 0);
    for (unsigned d = 0; d < DEVICES; d++) {
        assert_int_equal(last[f->site.devices[d]], f->seq[STREAM_RAW]);
    }
    struct scan scan = {0};
    int64_t from_ms = SITE_START_MS + 12345000;
    assert_int_equal(store_history(f->site.store, STREAM_RAW, f->site.devices[1], from_ms,
                                   from_ms + 5000, first_scan, &scan),
                     1);
    assert_int_equal(scan.time_ms, from_ms);
    assert_int_equal(scan.device, f->site.devices[1]);
}

static void test_kept_blocks_leave_when_they_are_old_enough(void **state)
{
    struct fixture *f = *state;
    f->site.settings.keep_ms = 3600000;
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS + 200);
    drain_all(f, false);
    settle_down(f);
    size_t large = entries(f, KEY_LARGE);
    assert_true(large > DEVICES);
    clock_advance_ms(3600000);
    settle_down(f);
    assert_int_equal(entries(f, KEY_LARGE), 0);
    assert_int_equal(entries(f, KEY_WAL), 0);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_what_is_too_old_expires_in_large_blocks(void **state)
{
    struct fixture *f = *state;
    site_open_aging(&f->site, false, 40000000);
    append(f, FLUSH_BLOCKS * 2);
    clock_advance_ms(50000000);
    for (unsigned i = 0; i < 8; i++) {
        settle_down(f);
    }
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    assert_int_equal(total.fates[FATE_EXPIRED],
                     (f->seq[STREAM_RAW] * DEVICES + f->seq[STREAM_AGGREGATE]) * FIXTURE_POINTS);
    assert_int_equal(total.waiting, 0);
    assert_int_equal(entries(f, KEY_LARGE), 0);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

/* Puts something else in the place of a large block. */
static void damage(struct fixture *f, uint32_t device, size_t at)
{
    MDB_txn *txn = NULL;
    struct large large;
    MDB_val value;
    assert_int_equal(env_write(f->site.store->env, &txn), 0);
    assert_int_equal(large_find(txn, STREAM_RAW, device, 2000, &large, &value), 0);
    auto_free uint8_t *copy = malloc(value.mv_size);
    memcpy(copy, value.mv_data, value.mv_size);
    copy[at] ^= 0x55;
    struct key key = key_large(STREAM_RAW, device, large.first_seq);
    assert_int_equal(env_put(txn, &key, copy, value.mv_size, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static void lose_a_block(struct fixture *f, size_t at)
{
    site_open_aging(&f->site, false, 0);
    append(f, FLUSH_BLOCKS * 2);
    damage(f, f->site.devices[1], at);
    uint64_t blocks, bad;
    assert_int_equal(store_verify(f->site.store, &blocks, &bad), 0);
    assert_int_equal(bad, 1);
    auto_buffer struct buffer arena = {0};
    size_t total = 0, count = 1;
    while (count > 0) {
        const struct scan **scans;
        int rc = store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 700, 1 << 20,
                                   &arena, &scans, &count);
        if (rc == -EBADMSG) {
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
        total += count;
        drain_stream(f, STREAM_AGGREGATE); /* it lies in the same blocks of the log, in memory */
        assert_int_equal(store_commit(f->site.store), 0);
    }
    assert_in_range(total, f->seq[STREAM_RAW] * DEVICES - 4000, f->seq[STREAM_RAW] * DEVICES - 100);
    settle_down(f);
    struct ledger_device sum;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &sum), 0);
    assert_int_equal(sum.waiting, 0);
    assert_int_equal(sum.fates[FATE_THINNED],
                     (f->seq[STREAM_RAW] * DEVICES - total) * FIXTURE_POINTS);
    assert_int_equal(entries(f, KEY_LARGE), 0);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void test_a_block_with_a_damaged_body_is_counted_and_blocks_nothing(void **state)
{
    lose_a_block(*state, LARGE_HEAD_SIZE + 100);
}

static void test_a_block_with_a_damaged_head_is_counted_and_blocks_nothing(void **state)
{
    lose_a_block(*state, 25);
}

static void test_the_format_refuses_what_is_not_its_own(void **state)
{
    (void)state;
    auto_buffer struct buffer value = {0};
    auto_free struct scan *scan = fixture_scan(STREAM_RAW, 7, 12, 3);
    const struct scan *const list[] = {scan};
    assert_int_equal(large_encode(list, 1, 9, 42, &value), 0);
    struct key key = key_large(STREAM_RAW, 7, 12);
    MDB_val name = {key.len, key.bytes}, data = {value.len, value.data};
    struct large large;
    assert_true(large_read(&name, &data, &large));
    assert_false(large.damaged);
    assert_int_equal(large.prev_seq, 9);
    assert_int_equal(large.last_seq, 12);
    assert_int_equal(large.readings, 3);
    assert_int_equal(large.written_ms, 42);
    auto_buffer struct buffer scans = {0};
    for (size_t i = 0; i < value.len; i++) {
        value.data[i] ^= 0x10;
        assert_true(large_read(&name, &data, &large));
        assert_true(large.damaged == (i < LARGE_HEAD_SIZE));
        assert_int_equal(large_decode(&large, value.data, value.len, &scans), -EBADMSG);
        value.data[i] ^= 0x10;
    }
    for (size_t len = 0; len < value.len; len++) {
        data.mv_size = len;
        assert_true(large_read(&name, &data, &large));
        assert_int_equal(large_decode(&large, value.data, len, &scans), -EBADMSG);
    }
    struct key other = key_number(KEY_WAL, 12);
    name = (MDB_val){other.len, other.bytes};
    assert_false(large_read(&name, &data, &large));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_kept_scans_pass_into_blocks_that_fill_pages),
        TEST(test_large_commits_pass_after_few_of_them),
        TEST(test_nothing_large_where_nothing_waits),
        TEST(test_a_backlog_is_delivered_once_and_in_order),
        TEST(test_a_reader_that_lags_finds_what_has_passed_meanwhile),
        TEST(test_after_a_split_live_comes_first_and_nothing_twice),
        TEST(test_devices_of_a_backlog_advance_together),
        TEST(test_all_is_there_after_a_start),
        TEST(test_history_comes_from_blocks_and_log),
        TEST(test_kept_blocks_leave_when_they_are_old_enough),
        TEST(test_what_is_too_old_expires_in_large_blocks),
        TEST(test_a_block_with_a_damaged_body_is_counted_and_blocks_nothing),
        TEST(test_a_block_with_a_damaged_head_is_counted_and_blocks_nothing),
        cmocka_unit_test(test_the_format_refuses_what_is_not_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
