/* A device that an endpoint does not take: the others are read on, in the log and in large blocks,
 * and nothing of it is lost meanwhile. */
#include "gateway/store/flush.h"
#include "gateway/store/lanes.h"
#include "store_site.h"

enum { DEVICES = 4, SCANS_A_COMMIT = 10 };

struct fixture {
    struct site site;
    uint64_t seq;
    uint64_t seen[DEVICES]; /* scans that were delivered */
    uint64_t last[STORE_LANES][DEVICES];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    clock_release(); /* it goes on */
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

static void append(struct fixture *f, unsigned commits)
{
    for (unsigned i = 0; i < commits; i++) {
        for (unsigned r = 0; r < SCANS_A_COMMIT; r++) {
            f->seq++;
            for (unsigned d = 0; d < DEVICES; d++) {
                assert_int_equal(
                    fixture_append(f->site.store, STREAM_RAW, f->site.devices[d], f->seq), 0);
            }
        }
        assert_int_equal(store_commit(f->site.store), 0);
    }
}

/* Delivers all that comes, in order within device and lane. */
static void drain(struct fixture *f, bool split)
{
    auto_buffer struct buffer arena = {0};
    for (unsigned idle = 0, turn = 0; idle < 4; turn++) {
        enum store_lane lane = split && turn % 2 == 0 ? STORE_LANE_LIVE : STORE_LANE_BACKFILL;
        const struct scan **scans;
        size_t count;
        assert_int_equal(store_reader_take(f->site.reader, lane, STREAM_RAW, 700, 1 << 20, &arena,
                                           &scans, &count),
                         0);
        idle = count == 0 ? idle + 1 : 0;
        for (size_t i = 0; i < count; i++) {
            fixture_check(scans[i]);
            unsigned d = scans[i]->device - f->site.devices[0];
            f->seen[d]++;
            assert_true(scans[i]->seq > f->last[lane][d]);
            f->last[lane][d] = scans[i]->seq;
        }
        assert_int_equal(fixture_settle(f->site.reader, scans, count, FATE_DELIVERED), 0);
        if (turn % 16 == 7) {
            assert_int_equal(store_commit(f->site.store), 0);
        }
    }
    assert_int_equal(store_commit(f->site.store), 0);
}

/* The first `held` devices stand at `stands` scans, all of the others is delivered. */
static void check_seen(const struct fixture *f, unsigned held, uint64_t stands)
{
    for (unsigned d = 0; d < DEVICES; d++) {
        assert_int_equal(f->seen[d], d < held ? stands : f->seq);
    }
    struct store_backlog backlog;
    store_reader_backlog(f->site.reader, &backlog);
    assert_int_equal(backlog.held, held * (f->seq - stands) * FIXTURE_POINTS);
    assert_int_equal(backlog.readings[STORE_LANE_LIVE] + backlog.readings[STORE_LANE_BACKFILL], 0);
    fixture_adds_up(f->site.store, (int)f->site.uplink);
}

static void hold_and_release(struct fixture *f, bool split, unsigned commits)
{
    append(f, 20);
    drain(f, split);
    uint64_t stands = f->seq;
    append(f, commits);
    assert_true(store_reader_hold(f->site.reader, f->site.devices[0]));
    assert_true(store_reader_hold(f->site.reader, f->site.devices[1]));
    drain(f, split);
    check_seen(f, 2, stands);
    append(f, commits);
    if (split) {
        store_reader_split(f->site.reader); /* an outage meanwhile */
    }
    append(f, 3);
    drain(f, split);
    check_seen(f, 2, stands);
    store_reader_release(f->site.reader, f->site.devices[1]);
    drain(f, split);
    assert_int_equal(f->seen[1], f->seq);
    check_seen(f, 1, stands);
    store_reader_release(f->site.reader, f->site.devices[0]);
    drain(f, split);
    check_seen(f, 0, 0);
    append(f, 1);
    drain(f, split);
    check_seen(f, 0, 0);
}

static void test_in_the_log(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, true);
    hold_and_release(f, true, 50);
}

static void test_in_large_blocks(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, true);
    hold_and_release(f, true, FLUSH_BLOCKS + 20);
}

static void test_with_a_single_lane(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, false);
    hold_and_release(f, false, 60);
}

/* Room for what is read ahead is bounded; the held device's scans must not take it all. */
static void test_what_is_held_takes_no_room(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, true);
    append(f, 1);
    drain(f, true);
    assert_true(store_reader_hold(f->site.reader, f->site.devices[0]));
    uint64_t scans = 2 * READER_STAGE_MAX / scan_size_for(FIXTURE_POINTS, 0);
    while (f->seq < scans) {
        append(f, 200);
        drain(f, true);
        assert_int_equal(f->seen[DEVICES - 1], f->seq);
    }
    check_seen(f, 1, SCANS_A_COMMIT);
}

static void test_a_restart_knows_of_no_hold(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, false);
    append(f, 30);
    assert_true(store_reader_hold(f->site.reader, f->site.devices[0]));
    drain(f, false);
    check_seen(f, 1, 0);
    site_shut(&f->site);
    site_open(&f->site, false);
    drain(f, false);
    check_seen(f, 0, 0);
}

static void test_what_is_in_flight_of_it_lands_as_usual(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, false);
    append(f, 1);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 6, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 6);
    unsigned d = scans[0]->device - f->site.devices[0];
    assert_true(store_reader_hold(f->site.reader, scans[0]->device));
    assert_false(store_reader_hold(f->site.reader, DEVICES + 1));
    assert_int_equal(fixture_settle(f->site.reader, scans, 4, FATE_DELIVERED), 0);
    store_reader_return(f->site.reader, STREAM_RAW, scans[0]->device, 5, 6);
    f->seen[d] = f->last[STORE_LANE_BACKFILL][d] = 4;
    drain(f, false);
    assert_int_equal(f->seen[d], 4);
    append(f, 5);
    drain(f, false);
    store_reader_release(f->site.reader, f->site.devices[d]);
    drain(f, false);
    check_seen(f, 0, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_in_the_log),
        TEST(test_in_large_blocks),
        TEST(test_with_a_single_lane),
        TEST(test_what_is_held_takes_no_room),
        TEST(test_a_restart_knows_of_no_hold),
        TEST(test_what_is_in_flight_of_it_lands_as_usual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
