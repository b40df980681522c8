/* The parts of a sender that only count and compare: pauses, circuit, bucket, lanes, selection. */
#include "uplink/giveway.h"
#include "uplink/lane.h"
#include "uplink/pace.h"
#include "uplink/selector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

static uint64_t dice(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void test_pauses_grow_with_full_jitter(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    struct pace p = {0};
    int64_t now = 1000000, cap = PACE_BASE_MS;
    for (int i = 0; i < 14; i++) {
        int64_t longest = 0, shortest = INT64_MAX;
        for (int j = 0; j < 400; j++) {
            struct pace copy = p;
            int64_t pause = pace_failed(&copy, now, PACE_ANSWERED, -1, dice(&random));
            longest = pause > longest ? pause : longest;
            shortest = pause < shortest ? pause : shortest;
        }
        int64_t bound = cap < PACE_CAP_MS ? cap : PACE_CAP_MS;
        assert_true(longest <= bound && longest > bound * 9 / 10);
        assert_true(shortest >= PACE_FLOOR_MS && shortest <= bound / 4);
        (void)pace_failed(&p, now, PACE_ANSWERED, -1, 0);
        cap *= 2;
    }
}

static void test_retry_after_holds_for_everybody(void **state)
{
    (void)state;
    struct pace p = {0};
    assert_true(pace_failed(&p, 1000, PACE_ANSWERED, 7000, 3) >= 7000);
    assert_false(pace_circuit_open(&p));
    assert_false(pace_may_send(&p, 7999, 0));
    assert_int_equal(pace_wait_until(&p, 1000), 8000);
    assert_true(pace_may_send(&p, 8000, 3));
}

static void test_circuit_opens_and_lets_one_probe_through(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < PACE_CIRCUIT_FAILURES - 1; i++) {
        pace_failed(&p, 1000, PACE_ANSWERED, -1, 0);
        assert_true(pace_may_send(&p, 1000, 3));
    }
    pace_failed(&p, 1000, PACE_ANSWERED, -1, 0);
    assert_true(pace_circuit_open(&p));
    int64_t at = pace_wait_until(&p, 1000);
    assert_true(at > 1000);
    assert_true(pace_may_send(&p, at, 0));
    assert_false(pace_may_send(&p, at, 1));
    assert_true(pace_success(&p));
    assert_true(pace_may_send(&p, 1000, 3));
    assert_false(pace_success(&p));
}

static void test_a_short_outage_is_noticed_to_be_over_soon(void **state)
{
    (void)state;
    struct pace p = {0};
    int64_t now = 0;
    while (now < 30000) {
        now += pace_failed(&p, now, PACE_SILENT, -1, UINT64_MAX);
        assert_true(pace_wait_until(&p, now) == 0 || pace_wait_until(&p, now) <= now + 2000);
    }
    struct pace q = {.failures = 20, .failing_since_ms = 0};
    int64_t longest = 0;
    for (uint64_t i = 0; i < 100; i++) {
        struct pace copy = q;
        int64_t pause = pace_failed(&copy, 86400000, PACE_SILENT, -1, i * 600);
        longest = pause > longest ? pause : longest;
    }
    assert_true(longest > PACE_CAP_MS / 2 && longest <= PACE_CAP_MS);
}

static void test_held_probes_slowly(void **state)
{
    (void)state;
    struct pace p = {0};
    assert_true(pace_failed(&p, 0, PACE_HOLD, -1, 0) >= PACE_HOLD_MS / 2);
    assert_true(p.held && pace_circuit_open(&p));
    assert_false(pace_may_send(&p, 1000, 0));
    assert_true(pace_success(&p));
    assert_false(p.held);
}

static void test_bucket_keeps_to_its_rate(void **state)
{
    (void)state;
    struct bucket b;
    bucket_init(&b, 60000, 0); /* 1000 bytes a second */
    int64_t now = 0, sent = 0;
    while (now < 600000) {
        int64_t wait = bucket_wait_ms(&b, now);
        if (wait == 0) {
            bucket_spend(&b, 2500);
            sent += 2500;
        }
        now += wait > 0 ? wait : 1;
    }
    assert_in_range(sent, 595000, 605000);
    bucket_init(&b, 7, 0); /* slower than a byte a second: the rest is not lost */
    bucket_spend(&b, 7);
    now = 0;
    while (bucket_wait_ms(&b, now) > 0) {
        now += 100;
    }
    assert_in_range(now, 60000, 70000);
    bucket_init(&b, 0, 0);
    bucket_spend(&b, 1 << 30);
    assert_int_equal(bucket_wait_ms(&b, 0), 0);
}

static void test_lane_waits_for_count_or_age(void **state)
{
    (void)state;
    struct lane l;
    lane_init(&l);
    assert_int_equal(lane_due(&l, 5000, 0, 500, 1000), LANE_NOT_DUE);
    assert_int_equal(lane_deadline(&l, 1000), -1);
    lane_arrived(&l, 5000);
    lane_arrived(&l, 5500);
    assert_int_equal(lane_deadline(&l, 1000), 6000);
    assert_int_equal(lane_due(&l, 5999, 499, 500, 1000), LANE_NOT_DUE);
    assert_int_equal(lane_due(&l, 5999, 500, 500, 1000), LANE_DUE_FULL);
    assert_int_equal(lane_due(&l, 6000, 1, 500, 1000), LANE_DUE_TIME);
}

static void test_lane_of_busy_devices_asks_again(void **state)
{
    (void)state;
    struct lane l;
    lane_init(&l);
    lane_arrived(&l, 0);
    lane_emptied(&l, LANE_DUE_TIME, true); /* the rest belongs to devices of a full batch */
    assert_int_equal(lane_due(&l, 9000, 900, 500, 1000), LANE_NOT_DUE);
    lane_answered(&l, 9000, true, 100, 1000);
    assert_int_equal(lane_due(&l, 9000, 100, 500, 1000), LANE_DUE_TIME);
    /* Once: else small batches would chase each other where answers take long. */
    lane_emptied(&l, LANE_DUE_TIME, false);
    lane_answered(&l, 9500, false, 10, 1000); /* what is left has waited since its arrival */
    assert_int_equal(lane_due(&l, 9500, 10, 500, 1000), LANE_DUE_TIME);
    lane_emptied(&l, LANE_DUE_TIME, false);
    l.since_ms = 8000;
    lane_arrived(&l, 9400); /* just before the cut, and kept from it by its device */
    lane_emptied(&l, LANE_DUE_TIME, false);
    lane_answered(&l, 9500, false, 10, 1000);
    assert_int_equal(lane_due(&l, 9500, 10, 500, 1000), LANE_NOT_DUE);
    assert_int_equal(lane_deadline(&l, 1000), 10400);
    lane_init(&l);
    lane_answered(&l, 9500, false, 10, 1000);
    assert_int_equal(lane_deadline(&l, 1000), 10500);
    lane_init(&l);
    lane_answered(&l, 9500, true, 0, 1000);
    assert_int_equal(lane_deadline(&l, 1000), -1);
}

static void test_selection_by_globs(void **state)
{
    (void)state;
    static const char *const items[] = {"*.wind_speed", "t0[12].power"};
    static const struct config_list patterns = {items, 2}, none = {0};
    static const struct store_point_name points[] = {
        {"wind_speed", "", 10}, {"state", "", 5}, {"power", "", 5}};
    static const struct store_names t01 = {"t01", "", 3, points}, t03 = {"t03", "", 3, points},
                                    young = {"t01", "", 1, points};
    struct scan *scan = calloc(1, scan_size_for(3, 0));
    *scan = (struct scan){.count = 3, .device = 300};
    scan->readings[0].point = 2;
    scan->readings[1].point = 1;
    struct selector *s = NULL;
    assert_int_equal(selector_create(&patterns, &s), 0);
    uint16_t picks[3], count;
    bool all;
    assert_int_equal(selector_pick(s, scan, &t01, picks, &count, &all), 0);
    assert_false(all);
    assert_int_equal(count, 2);
    assert_int_equal(picks[0], 0);
    assert_int_equal(picks[1], 2);
    scan->device = 5;
    assert_int_equal(selector_pick(s, scan, &t03, picks, &count, &all), 0);
    assert_int_equal(count, 1);
    assert_int_equal(picks[0], 2);
    scan->device = 300; /* names were learned since */
    assert_int_equal(selector_pick(s, scan, &young, picks, &count, &all), 0);
    assert_int_equal(count, 1);
    scan->device = UINT32_MAX;
    assert_int_not_equal(selector_pick(s, scan, &t01, picks, &count, &all), 0);
    selector_destroy(s);
    assert_int_equal(selector_create(&none, &s), 0);
    assert_int_equal(selector_pick(s, scan, &t01, picks, &count, &all), 0);
    assert_true(all);
    selector_destroy(s);
    free(scan);
}

/* -- backfill gives way -- */

/* A thin line: a live request takes 120 ms, backfill a millisecond a record and the way. */
static int64_t drain_one(struct giveway *g, int64_t now_ms)
{
    size_t records = giveway_records(g, now_ms);
    int64_t took_ms = 100 + 3 * (int64_t)records;
    giveway_arrived(g, now_ms);
    giveway_answered(g, true, records, took_ms, now_ms);
    return took_ms;
}

static void test_backfill_shrinks_to_the_line(void **state)
{
    (void)state;
    struct giveway g;
    giveway_init(&g, 1000, 500);
    giveway_arrived(&g, 0);
    giveway_answered(&g, false, 50, 120, 0);
    for (int64_t t = 0; t < 50; t++) {
        drain_one(&g, t * 100);
    }
    /* What a live request takes, half of it, and a sixteenth of batch_interval. */
    int64_t took_ms = drain_one(&g, 5000);
    assert_in_range(took_ms, (120 * 3 / 2 + 62) * 3 / 4, 120 * 3 / 2 + 62);
    /* Answers to larger ones that were on their way when it shrank change nothing. */
    size_t records = giveway_records(&g, 5000);
    giveway_answered(&g, true, records + 1, 5000, 5000);
    assert_int_equal(giveway_records(&g, 5000), records);
    /* A line that is never quick enough: small, but not nothing. */
    for (int i = 0; i < 50; i++) {
        giveway_answered(&g, true, giveway_records(&g, 5000), 5000, 5000);
    }
    assert_int_equal(giveway_records(&g, 5000), GIVEWAY_RECORDS_LEAST);
}

static void test_backfill_grows_again(void **state)
{
    (void)state;
    struct giveway g;
    giveway_init(&g, 1000, 500);
    giveway_arrived(&g, 0);
    giveway_answered(&g, false, 50, 120, 0);
    for (int i = 0; i < 40; i++) {
        giveway_answered(&g, true, giveway_records(&g, 0), 5000, 0);
    }
    for (int i = 0; i < 100; i++) {
        giveway_answered(&g, true, giveway_records(&g, 0), 130, 0);
    }
    assert_int_equal(giveway_records(&g, 0), 500);
    /* With nothing new to send there is nobody to give way to. */
    giveway_answered(&g, true, 500, 5000, 0);
    assert_in_range(giveway_records(&g, 0), 1, 499);
    assert_true(giveway_live(&g, 2 * 1000 + GIVEWAY_LIVE_MS));
    assert_int_equal(giveway_records(&g, 2 * 1000 + GIVEWAY_LIVE_MS + 1), 500);
    assert_false(giveway_live(&g, 2 * 1000 + GIVEWAY_LIVE_MS + 1));
}

static void test_backfill_waits_for_what_is_due(void **state)
{
    (void)state;
    struct giveway g;
    giveway_init(&g, 1000, 500);
    assert_false(giveway_waits(&g, 900, 1000, false)); /* nothing is known of the line */
    giveway_answered(&g, false, 50, 100, 0);
    giveway_answered(&g, true, 100, 200, 0);
    assert_false(giveway_waits(&g, 900, -1, false));
    assert_false(giveway_waits(&g, 849, 1000, false));
    assert_true(giveway_waits(&g, 850, 1000, false)); /* 200 less half of 100 before it is due */
    assert_false(giveway_waits(&g, 799, 1000, true));
    assert_true(giveway_waits(&g, 800, 1000, true));
    giveway_answered(&g, true, 100, 60000, 0);
    assert_false(giveway_waits(&g, 499, 1000, true)); /* never more than half of the time */
    assert_true(giveway_waits(&g, 500, 1000, true));

    giveway_sent(&g, 2000);
    assert_int_equal(giveway_until(&g, 2000), 2050);
    assert_true(giveway_waits(&g, 2049, -1, false));
    assert_false(giveway_waits(&g, 2050, -1, false));
    assert_int_equal(giveway_until(&g, 2050), 0);
}

static void test_a_quick_answer_is_forgotten_in_time(void **state)
{
    (void)state;
    struct giveway g;
    giveway_init(&g, 1000, 500);
    giveway_answered(&g, false, 50, 10, 0);
    giveway_sent(&g, 0);
    assert_int_equal(giveway_until(&g, 0), 5);
    for (int64_t t = 0; t <= 2 * GIVEWAY_WINDOW_MS + 2; t += GIVEWAY_WINDOW_MS + 1) {
        giveway_answered(&g, false, 50, 80, t); /* another way, and a longer one */
    }
    giveway_sent(&g, 100000);
    assert_int_equal(giveway_until(&g, 100000), 100040);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses_grow_with_full_jitter),
        cmocka_unit_test(test_retry_after_holds_for_everybody),
        cmocka_unit_test(test_circuit_opens_and_lets_one_probe_through),
        cmocka_unit_test(test_a_short_outage_is_noticed_to_be_over_soon),
        cmocka_unit_test(test_held_probes_slowly),
        cmocka_unit_test(test_bucket_keeps_to_its_rate),
        cmocka_unit_test(test_lane_waits_for_count_or_age),
        cmocka_unit_test(test_lane_of_busy_devices_asks_again),
        cmocka_unit_test(test_backfill_shrinks_to_the_line),
        cmocka_unit_test(test_backfill_grows_again),
        cmocka_unit_test(test_backfill_waits_for_what_is_due),
        cmocka_unit_test(test_a_quick_answer_is_forgotten_in_time),
        cmocka_unit_test(test_selection_by_globs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
