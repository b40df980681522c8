/* Clock anchors: which time the readings of a boot have, decided once; first as rules, then by the
 * store with the clocks in a test's hand. */
#include "gateway/store/anchors.h"
#include "gateway/store/store_clock.h"
#include "tests/unit/store_drain.h"

/* 2026-01-31T10:00:00Z, and what a clock without a battery begins with. */
#define TEN   ((int64_t)1769853600000)
#define EPOCH ((int64_t)0)

static struct anchors_look look_at(uint8_t boot, bool vouched, int64_t offset_ms, int64_t boot_ms)
{
    struct anchors_look look = {.vouched = vouched, .offset_ms = offset_ms, .boot_ms = boot_ms};
    memset(look.boot, boot, sizeof(look.boot));
    return look;
}

/* Looks, and takes over what changes from that block on. */
static bool mind(struct anchors *a, struct anchors_look look, uint64_t first_block)
{
    struct anchor fresh;
    if (!anchors_plan(a, &look, &fresh)) {
        return false;
    }
    fresh.first_block = first_block;
    assert_int_equal(anchors_add(a, &fresh), 0);
    return true;
}

static void expect_fate(const struct anchors *a, uint64_t block, int64_t shift_ms, bool uncertain)
{
    struct anchor_fate fate = anchors_fate(a, block);
    assert_int_equal(fate.shift_ms, shift_ms);
    assert_int_equal(fate.uncertain, uncertain);
}

static void test_found_by_its_own_boot(void **state)
{
    (void)state;
    struct anchors a = {0};
    assert_true(mind(&a, look_at(1, false, EPOCH, 5000), 1));
    assert_false(mind(&a, look_at(1, false, EPOCH + ANCHORS_SAME_MS, 9000), 2));
    assert_int_equal(anchors_decided(&a), 1);
    assert_true(mind(&a, look_at(1, true, TEN, 60000), 7));
    assert_int_equal(anchors_decided(&a), UINT64_MAX);
    expect_fate(&a, 6, TEN, false);
    expect_fate(&a, 7, 0, false);
    assert_true(anchors_in_order(&a));
    anchors_finish(&a);
}

static void test_losing_touch_is_no_step(void **state)
{
    (void)state;
    struct anchors a = {0};
    assert_true(mind(&a, look_at(1, true, TEN, 5000), 1));
    assert_false(mind(&a, look_at(1, false, TEN, 50000), 5)); /* no NTP any more */
    assert_true(mind(&a, look_at(1, false, TEN + 100000, 60000), 6));
    assert_int_equal(a.list[1].offset_ms, TEN); /* time goes on as it was */
    assert_int_equal(anchors_decided(&a), 6);
    assert_true(mind(&a, look_at(1, false, TEN, 70000), 9)); /* set back again */
    expect_fate(&a, 6, 0, false);
    assert_int_equal(anchors_decided(&a), UINT64_MAX);
    anchors_finish(&a);
}

static void test_guessed_between_its_neighbours(void **state)
{
    (void)state;
    struct anchors a = {0};
    assert_true(mind(&a, look_at(1, true, TEN, 1000), 1));
    a.list[0].until_ms = 3600000;
    assert_true(mind(&a, look_at(2, false, EPOCH, 1000), 10)); /* begins where 1 ended */
    assert_int_equal(a.list[1].offset_ms, TEN + 3600000);
    a.list[1].until_ms = 60000;
    assert_true(mind(&a, look_at(3, false, TEN + 86400000, 1000), 20)); /* plausible: followed */
    assert_int_equal(a.list[2].offset_ms, TEN + 86400000);
    a.list[2].until_ms = 60000;
    assert_true(mind(&a, look_at(4, true, TEN + 7200000, 1000), 30)); /* but it was two hours */
    expect_fate(&a, 10, 0, true);
    expect_fate(&a, 20, TEN + 7200000 - 60000 - (TEN + 86400000), true);
    assert_true(anchors_in_order(&a));
    anchors_finish(&a);
}

static void test_boots_of_1970_end_before_the_first_that_knows(void **state)
{
    (void)state;
    struct anchors a = {0};
    assert_true(mind(&a, look_at(1, false, EPOCH, 1000), 1));
    a.list[0].until_ms = 60000;
    assert_true(mind(&a, look_at(2, false, EPOCH, 1000), 2));
    assert_int_equal(a.list[1].offset_ms, 60000);
    a.list[1].until_ms = 40000;
    assert_true(mind(&a, look_at(3, true, TEN, 1000), 3));
    expect_fate(&a, 2, TEN - 40000 - 60000, true);
    expect_fate(&a, 1, TEN - 40000 - 60000, true);
    assert_true(anchors_in_order(&a));
    anchors_finish(&a);
}

static void test_released_stay_as_they_went_out(void **state)
{
    (void)state;
    struct anchors a = {0};
    assert_true(mind(&a, look_at(1, false, TEN - 7200000, 1000), 1));
    a.list[0].released = 5;
    assert_int_equal(anchors_decided(&a), 5);
    assert_true(mind(&a, look_at(1, true, TEN, 60000), 9));
    expect_fate(&a, 4, 0, true);
    expect_fate(&a, 5, 7200000, false);
    anchors_finish(&a);
}

static void test_the_oldest_is_forgotten(void **state)
{
    (void)state;
    struct anchors a = {0};
    for (uint64_t i = 0; i < ANCHORS_MAX + 3; i++) {
        assert_true(mind(&a, look_at(1, true, TEN + (int64_t)i * 1000, 1000), i + 1));
        assert_int_equal(a.forgotten, i < ANCHORS_MAX ? 0 : i - ANCHORS_MAX + 1);
    }
    assert_int_equal(a.count, ANCHORS_MAX);
    assert_null(anchors_of(&a, 3));
    assert_int_equal(anchors_of(&a, 4)->offset_ms, TEN + 3000);
    anchors_finish(&a);
}

static void test_senders_times_are_their_own(void **state)
{
    (void)state;
    struct anchor_fate fate = {.offset_ms = 0, .shift_ms = TEN, .uncertain = false};
    struct {
        struct scan scan;
        struct reading reading;
    } s = {.scan = {.time_ms = TEN + 5, .boot_ms = 60000, .count = 1}};
    anchors_restamp(&fate, &s.scan);
    assert_int_equal(s.scan.time_ms, TEN + 5);
    s.scan.time_ms = 60000;
    anchors_restamp(&fate, &s.scan);
    assert_int_equal(s.scan.time_ms, TEN + 60000);
    assert_int_equal(s.scan.readings[0].quality, QUALITY_GOOD);
    s.scan = (struct scan){.time_ms = 60000, .boot_ms = 60000, .count = 1};
    s.scan.stream = STREAM_AGGREGATE; /* its window did not lie where it should */
    anchors_restamp(&fate, &s.scan);
    assert_int_equal(s.scan.readings[0].quality, QUALITY_UNCERTAIN);
}

static void test_record(void **state)
{
    (void)state;
    struct anchor a = {.first_block = 7,
                       .released = UINT64_MAX,
                       .offset_ms = TEN,
                       .shift_ms = -5,
                       .from_ms = 1,
                       .until_ms = 2,
                       .learned_ms = 3,
                       .boot = {1, 2, 3},
                       .state = ANCHOR_GUESSED};
    uint8_t record[ANCHOR_SIZE];
    struct anchor back;
    anchor_encode(&a, record);
    assert_int_equal(anchor_decode(record, sizeof(record), &back), 0);
    assert_memory_equal(&a, &back, sizeof(a));
    for (size_t i = 0; i < sizeof(record); i++) {
        record[i] ^= 4;
        assert_int_equal(anchor_decode(record, sizeof(record), &back), -EBADMSG);
        record[i] ^= 4;
    }
    assert_int_equal(anchor_decode(record, sizeof(record) - 1, &back), -EBADMSG);
}

/* ---- with a store ---- */

struct fixture {
    char *dir;
    struct store *store;
    struct store_reader *reader;
    uint32_t device;
    unsigned uplink;
};

static void open_store(struct fixture *f)
{
    f->store = fixture_open(f->dir, &fixture_settings);
    f->device = fixture_device(f->store, "t01", FIXTURE_POINTS);
    assert_int_equal(store_add_uplink(f->store, "cloud", 1u << STREAM_RAW, 0, &f->uplink), 0);
    assert_int_equal(store_reader_create(f->store, f->uplink, false, &f->reader), 0);
}

static void close_store(struct fixture *f)
{
    store_reader_destroy(f->reader);
    store_close(f->store);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->dir = fixture_dir();
    clock_hold(EPOCH + 60000, (int64_t)60000 * 1000000);
    open_store(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    fixture_remove(f->dir);
    free(f);
    clock_release();
    return 0;
}

static void mind_store(struct fixture *f, uint8_t boot, bool vouched, int64_t wait_ms)
{
    struct anchors_look look = look_at(boot, vouched, clock_offset_ms(), clock_boot_ms());
    int64_t moved_ms;
    assert_int_equal(store_clock_mind(f->store, &look, wait_ms, &moved_ms), 0);
}

/* One scan a second, and the look and the commit that belong to it. */
static void live(struct fixture *f, unsigned seconds, uint8_t boot, bool vouched, int64_t wait_ms)
{
    for (unsigned i = 0; i < seconds; i++) {
        clock_advance_ms(1000);
        uint64_t seq = store_last_seq(f->store, STREAM_RAW, f->device) + 1;
        struct scan *scan = fixture_scan(STREAM_RAW, f->device, seq, FIXTURE_POINTS);
        scan->time_ms = store_now_ms(f->store);
        assert_int_equal(store_append(f->store, scan), 0);
        store_count(f->store, f->device, LEDGER_READ, FIXTURE_POINTS);
        free(scan);
        mind_store(f, boot, vouched, wait_ms);
        assert_int_equal(store_commit(f->store), 0);
    }
}

/* Takes all there is and holds their times against start, start + 1 s, ... */
static size_t take(struct fixture *f, int64_t start_ms, enum quality quality, bool settle)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->reader, STORE_LANE_BACKFILL, STREAM_RAW, 500, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    for (size_t i = 0; i < count; i++) {
        fixture_check(scans[i]);
        assert_int_equal(scans[i]->time_ms, start_ms + (int64_t)i * 1000);
        assert_int_equal(scans[i]->readings[0].quality, quality);
    }
    if (count > 0 && settle) {
        assert_int_equal(fixture_settle(f->reader, scans, count, FATE_DELIVERED), 0);
    } else if (count > 0) {
        store_reader_return(f->reader, STREAM_RAW, f->device, scans[0]->seq, scans[count - 1]->seq);
    }
    return count;
}

static void test_store_holds_back_and_restamps(void **state)
{
    struct fixture *f = *state;
    mind_store(f, 1, false, 600000);
    live(f, 10, 1, false, 600000);
    assert_int_equal(take(f, 0, QUALITY_GOOD, true), 0);
    struct store_clock clock;
    store_clock(f->store, &clock);
    assert_false(clock.sure);
    assert_int_equal(clock.held, 10 * FIXTURE_POINTS);
    close_store(f); /* the daemon is started again in the same boot */
    open_store(f);
    mind_store(f, 1, false, 600000);
    store_clock(f->store, &clock);
    assert_int_equal(clock.held, 10 * FIXTURE_POINTS);
    assert_int_equal(take(f, 0, QUALITY_GOOD, true), 0);
    int64_t first_ms = clock_boot_ms() - 9000 + TEN;
    clock_hold(TEN + clock_boot_ms(), clock_mono_ns());
    mind_store(f, 1, true, 600000);
    assert_int_equal(take(f, first_ms, QUALITY_GOOD, false), 10);
    close_store(f);
    open_store(f); /* what was decided is durable */
    assert_int_equal(take(f, first_ms, QUALITY_GOOD, true), 10);
    fixture_adds_up(f->store, (int)f->uplink);
}

static void test_store_releases_after_the_wait(void **state)
{
    struct fixture *f = *state;
    int64_t first_ms = EPOCH + 61000;
    mind_store(f, 1, false, 20000);
    live(f, 20, 1, false, 20000);
    assert_int_equal(take(f, 0, QUALITY_GOOD, true), 0);
    live(f, 6, 1, false, 20000);
    size_t out = take(f, first_ms, QUALITY_UNCERTAIN, false);
    assert_in_range(out, 4, 7);
    clock_hold(TEN + clock_boot_ms(), clock_mono_ns());
    mind_store(f, 1, true, 20000);
    close_store(f);
    open_store(f);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(f->reader, STORE_LANE_BACKFILL, STREAM_RAW, 500, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 26);
    for (size_t i = 0; i < count; i++) {
        bool early = i < out; /* it may have been delivered so: it stays like this */
        assert_int_equal(scans[i]->time_ms,
                         (early ? first_ms : first_ms + TEN) + (int64_t)i * 1000);
        assert_int_equal(scans[i]->readings[0].quality, early ? QUALITY_UNCERTAIN : QUALITY_GOOD);
    }
    assert_int_equal(fixture_settle(f->reader, scans, count, FATE_DELIVERED), 0);
}

static void test_store_of_no_wait_holds_nothing(void **state)
{
    struct fixture *f = *state;
    mind_store(f, 1, false, 0);
    live(f, 3, 1, false, 0);
    assert_int_equal(take(f, EPOCH + 61000, QUALITY_UNCERTAIN, true), 3);
}

/* The readings of the boot before wait for this one to learn the time, but not for ever. */
static void test_store_releases_an_earlier_boot(void **state)
{
    struct fixture *f = *state;
    mind_store(f, 1, false, 600000);
    live(f, 5, 1, false, 600000);
    close_store(f);
    clock_hold(EPOCH + 1000, 1000000000);
    open_store(f);
    mind_store(f, 2, false, 600000);
    assert_int_equal(take(f, 0, QUALITY_GOOD, true), 0);
    clock_advance_ms(600000);
    mind_store(f, 2, false, 600000);
    assert_int_equal(take(f, EPOCH + 61000, QUALITY_UNCERTAIN, true), 5);
}

static int count_scan(void *user, const struct scan *scan)
{
    int64_t *at = user;
    assert_true(scan->time_ms > *at);
    *at = scan->time_ms;
    return 0;
}

static void test_history_shows_the_times_as_they_are_known(void **state)
{
    struct fixture *f = *state;
    mind_store(f, 1, false, 600000);
    live(f, 5, 1, false, 600000);
    int64_t last_ms = 0;
    assert_int_equal(store_history(f->store, STREAM_RAW, 0, 0, TEN, count_scan, &last_ms), 0);
    assert_int_equal(last_ms, EPOCH + 65000);
    clock_hold(TEN + clock_boot_ms(), clock_mono_ns());
    mind_store(f, 1, true, 600000);
    live(f, 5, 1, true, 600000);
    last_ms = 0;
    assert_int_equal(store_history(f->store, STREAM_RAW, 0, 0, TEN, count_scan, &last_ms), 0);
    assert_int_equal(last_ms, 0);
    assert_int_equal(store_history(f->store, STREAM_RAW, 0, TEN, TEN + 70001, count_scan, &last_ms),
                     0);
    assert_int_equal(last_ms, TEN + 70000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_by_its_own_boot),
        cmocka_unit_test(test_losing_touch_is_no_step),
        cmocka_unit_test(test_guessed_between_its_neighbours),
        cmocka_unit_test(test_boots_of_1970_end_before_the_first_that_knows),
        cmocka_unit_test(test_released_stay_as_they_went_out),
        cmocka_unit_test(test_the_oldest_is_forgotten),
        cmocka_unit_test(test_senders_times_are_their_own),
        cmocka_unit_test(test_record),
        cmocka_unit_test_setup_teardown(test_store_holds_back_and_restamps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_store_releases_after_the_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_store_of_no_wait_holds_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_store_releases_an_earlier_boot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_history_shows_the_times_as_they_are_known, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
