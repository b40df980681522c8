/* Readings handed over by hand: what waits is told apart, marked once, and counted once, whatever
 * the network does with it at the same time. */
#include "gateway/store/handover.h"
#include "gateway/store/ranges.h"
#include "gateway/store/store_clock.h"
#include "store_site.h"

enum { DEVICES = 2, SCANS = 30, OTHERS = 4 };

struct fixture {
    struct site site;
    uint64_t seq;
};

static void append(struct fixture *f, unsigned scans)
{
    for (unsigned i = 0; i < scans; i++) {
        f->seq++;
        for (unsigned d = 0; d < DEVICES; d++) {
            assert_int_equal(fixture_append(f->site.store, STREAM_RAW, f->site.devices[d], f->seq),
                             0);
        }
        clock_advance_ms(1000);
    }
    assert_int_equal(store_commit(f->site.store), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    f->site.uplink_name = "usb";
    site_open(&f->site, true);
    append(f, SCANS);
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

/* Scans first .. last of the first device, of which all but OTHERS readings were selected. */
static struct store_handed run_of(struct fixture *f, uint64_t first, uint64_t last)
{
    return (struct store_handed){.stream = STREAM_RAW,
                                 .device = f->site.devices[0],
                                 .first_seq = first,
                                 .last_seq = last,
                                 .readings = FIXTURE_POINTS,
                                 .selected = FIXTURE_POINTS - OTHERS};
}

static struct store_handover mark(struct fixture *f, uint64_t first, uint64_t last)
{
    struct store_handed run = run_of(f, first, last);
    struct store_handover done;
    assert_int_equal(store_hand_over(f->site.store, "usb", &run, 1, &done), 0);
    assert_int_equal(store_commit(f->site.store), 0);
    return done;
}

struct counting {
    const struct store_waiting *waiting;
    unsigned count;
};

static int count_waiting(void *user, const struct scan *scan)
{
    struct counting *w = user;
    w->count += store_waiting_has(w->waiting, scan);
    return 0;
}

static unsigned waiting_scans(struct fixture *f)
{
    struct store_waiting *waiting = NULL;
    assert_int_equal(store_waiting_load(f->site.store, "usb", &waiting), 0);
    assert_int_equal(store_waiting_streams(waiting), 1u << STREAM_RAW);
    struct counting w = {waiting, 0};
    assert_int_equal(store_history(f->site.store, STREAM_RAW, 0, 0, INT64_MAX, count_waiting, &w),
                     0);
    store_waiting_free(waiting);
    return w.count;
}

static void test_marked_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(waiting_scans(f), SCANS * DEVICES);
    struct store_handover done = mark(f, 1, 10);
    assert_int_equal(done.scans, 10);
    assert_int_equal(done.readings, 10 * (FIXTURE_POINTS - OTHERS));
    assert_int_equal(waiting_scans(f), SCANS * DEVICES - 10);
    done = mark(f, 5, 12);
    assert_int_equal(done.scans, 2);
    assert_int_equal(done.before, 6);
    site_shut(&f->site);
    site_open(&f->site, true);
    assert_int_equal(waiting_scans(f), SCANS * DEVICES - 12);
    struct ledger_device ledger = site_total(&f->site);
    assert_int_equal(ledger.fates[FATE_DELIVERED], 12 * (FIXTURE_POINTS - OTHERS));
    assert_int_equal(ledger.fates[FATE_NOT_SELECTED], 12 * OTHERS);
    assert_int_equal(fixture_drain(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW),
                     SCANS * DEVICES - 12);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
}

static void test_without_a_commit_nothing_is_marked(void **state)
{
    struct fixture *f = *state;
    struct store_handed run = run_of(f, 1, 10);
    struct store_handover done;
    assert_int_equal(store_hand_over(f->site.store, "usb", &run, 1, &done), 0);
    site_shut(&f->site);
    site_open(&f->site, true);
    assert_int_equal(waiting_scans(f), SCANS * DEVICES);
}

/* On their way over the network when they are marked: counted once, as what the last word says. */
static void test_on_their_way(void **state)
{
    struct fixture *f = *state;
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, 20, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 20);
    assert_int_equal(scans[0]->device, f->site.devices[0]);
    assert_int_equal(mark(f, 1, 30).scans, 30);
    struct ledger_device ledger = site_total(&f->site);
    assert_int_equal(ledger.fates[FATE_DELIVERED], 30 * (FIXTURE_POINTS - OTHERS));
    struct store_settlement s = {.device = f->site.devices[0], .first_seq = 1, .last_seq = 12};
    s.fates[FATE_DELIVERED] = 12 * (FIXTURE_POINTS - OTHERS);
    s.fates[FATE_NOT_SELECTED] = 12 * OTHERS;
    assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
    store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[0], 13, 20);
    assert_int_equal(store_commit(f->site.store), 0);
    ledger = site_total(&f->site);
    assert_int_equal(ledger.fates[FATE_DELIVERED], 30 * (FIXTURE_POINTS - OTHERS));
    assert_int_equal(ledger.fates[FATE_NOT_SELECTED], 30 * OTHERS);
    assert_int_equal(fixture_drain(f->site.reader, STORE_LANE_LIVE, STREAM_RAW), SCANS);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
}

static uint64_t backlog_of(struct fixture *f, enum store_lane lane)
{
    struct store_backlog backlog;
    store_reader_backlog(f->site.reader, &backlog);
    return backlog.readings[lane];
}

/* And the lanes were split anew meanwhile, as after an outage: the backlog ends when nothing of it
 * waits any more, not as many readings before that as were on their way. */
static void test_on_their_way_when_an_outage_ends(void **state)
{
    struct fixture *f = *state;
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, 20, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(mark(f, 1, 12).scans, 12);
    store_reader_split(f->site.reader);
    assert_int_equal(backlog_of(f, STORE_LANE_BACKFILL), (SCANS * DEVICES - 12) * FIXTURE_POINTS);
    struct store_settlement s = {.device = f->site.devices[0], .first_seq = 1, .last_seq = 12};
    s.fates[FATE_DELIVERED] = 12 * FIXTURE_POINTS;
    assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
    store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[0], 13, 20);
    append(f, 1);
    assert_int_equal(backlog_of(f, STORE_LANE_BACKFILL), (SCANS * DEVICES - 12) * FIXTURE_POINTS);
    assert_int_equal(backlog_of(f, STORE_LANE_LIVE), DEVICES * FIXTURE_POINTS);
    /* Marked after the split, so taken off at once. */
    assert_int_equal(mark(f, 13, 16).scans, 4);
    assert_int_equal(backlog_of(f, STORE_LANE_BACKFILL), (SCANS * DEVICES - 16) * FIXTURE_POINTS);
    assert_int_equal(backlog_of(f, STORE_LANE_LIVE), DEVICES * FIXTURE_POINTS);
    assert_int_equal(fixture_drain(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW),
                     SCANS * DEVICES - 16);
    assert_int_equal(backlog_of(f, STORE_LANE_BACKFILL), 0);
}

static void test_nonsense_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_handover done;
    struct store_handed runs[] = {run_of(f, 1, 10), run_of(f, 1, SCANS + 1)};
    assert_int_equal(store_hand_over(f->site.store, "usb", runs, 2, &done), -EINVAL);
    runs[1] = run_of(f, 0, 1);
    assert_int_equal(store_hand_over(f->site.store, "usb", runs, 2, &done), -EINVAL);
    runs[1] = run_of(f, 1, 2);
    runs[1].device = 77;
    assert_int_equal(store_hand_over(f->site.store, "usb", runs, 2, &done), -EINVAL);
    runs[1] = run_of(f, 1, 2);
    runs[1].selected = FIXTURE_POINTS + 1;
    assert_int_equal(store_hand_over(f->site.store, "usb", runs, 2, &done), -EINVAL);
    assert_int_equal(store_hand_over(f->site.store, "nobody", runs, 1, &done), -ENOENT);
    assert_int_equal(site_total(&f->site).waiting, SCANS * DEVICES * FIXTURE_POINTS);
    struct store_waiting *waiting;
    assert_int_equal(store_waiting_load(f->site.store, "nobody", &waiting), -ENOENT);
}

/* More gaps than are kept: the rest stays waiting, and is told. */
static void test_too_many_gaps(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++) {
        append(f, 3000);
    }
    uint64_t marked = 0, open = 0;
    for (uint64_t seq = 2; seq <= f->seq; seq += 2) {
        struct store_handed run = run_of(f, seq, seq);
        struct store_handover done;
        assert_int_equal(store_hand_over(f->site.store, "usb", &run, 1, &done), 0);
        marked += done.scans;
        open += done.open;
    }
    assert_int_equal(marked, RANGES_MAX);
    assert_int_equal(open, f->seq / 2 - RANGES_MAX);
    assert_int_equal(store_commit(f->site.store), 0);
    site_total(&f->site);
    assert_int_equal(mark(f, 1, f->seq).open, 0);
    assert_int_equal(site_total(&f->site).waiting, f->seq * FIXTURE_POINTS);
}

struct timed {
    uint64_t decided[DEVICES + 1], undecided[DEVICES + 1];
    uint64_t last_decided;
};

static int count_timed(void *user, const struct scan *scan, bool decided)
{
    struct timed *t = user;
    t->decided[scan->device] += decided;
    t->undecided[scan->device] += !decided;
    t->last_decided = decided && scan->seq > t->last_decided ? scan->seq : t->last_decided;
    return 0;
}

static struct timed look_at_times(struct store *store)
{
    struct timed t = {.last_decided = 0};
    assert_int_equal(store_history_timed(store, STREAM_RAW, INT64_MIN, INT64_MAX, count_timed, &t),
                     0);
    return t;
}

static void mind_clock(struct fixture *f, bool vouched, int64_t offset_ms)
{
    int64_t moved_ms;
    const struct anchors_look look = {
        .vouched = vouched, .offset_ms = offset_ms, .boot_ms = clock_boot_ms(), .boot = {1}};
    assert_int_equal(store_clock_mind(f->site.store, &look, 86400000, &moved_ms), 0);
}

/* What nobody has vouched for is told apart from what has its time for ever, for the writer and for
 * a reader that was opened before the clock was set back. */
static void test_times_that_are_not_decided(void **state)
{
    struct fixture *f = *state;
    const int64_t offset_ms = clock_wall_ms() - clock_boot_ms();
    struct store *reader;
    mind_clock(f, true, offset_ms);
    append(f, SCANS);
    assert_int_equal(store_open_readonly(f->site.dir, &reader), 0);
    assert_int_equal(look_at_times(reader).decided[1], 2 * SCANS);
    mind_clock(f, false, offset_ms + 7200000);
    append(f, SCANS);
    struct store *both[] = {f->site.store, reader};
    for (unsigned i = 0; i < 2; i++) {
        struct timed t = look_at_times(both[i]);
        assert_int_equal(t.decided[1] + t.undecided[1], 3 * SCANS);
        assert_true(t.undecided[1] >= SCANS && t.undecided[2] >= SCANS);
        assert_true(i == 1 || t.last_decided == 2 * SCANS);
    }
    mind_clock(f, true, offset_ms);
    append(f, 1);
    assert_int_equal(look_at_times(f->site.store).undecided[1], 0);
    store_close(reader);
    assert_int_equal(store_open_readonly(f->site.dir, &reader), 0);
    assert_int_equal(look_at_times(reader).undecided[2], 0);
    store_close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_marked_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_commit_nothing_is_marked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_on_their_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_on_their_way_when_an_outage_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nonsense_changes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_gaps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_times_that_are_not_decided, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
