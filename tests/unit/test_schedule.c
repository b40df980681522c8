/* The wheel, with the clock in the test's hands; and once with the real one. */
#include "drivers/schedule.h"
#include "gateway/base/clock.h"

#include <event2/event.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { ENTRIES = 770 };

struct counted {
    struct schedule_entry entry; /* first */
    unsigned calls, skipped;
    int64_t first_ms, last_ms, first_late_ms;
    bool leave;
};

static unsigned this_tick, busiest_tick;

static void on_due(struct schedule_entry *entry, unsigned skipped, int64_t late_us)
{
    struct counted *counted = (struct counted *)entry;
    if (counted->calls == 0) {
        counted->first_ms = clock_mono_ms();
        counted->first_late_ms = late_us / 1000;
    }
    counted->last_ms = clock_mono_ms();
    counted->calls++;
    counted->skipped += skipped;
    this_tick++;
    if (counted->leave) {
        schedule_remove(entry);
    }
}

static struct schedule *start(void)
{
    struct schedule *schedule;
    clock_hold(1700000000000, (int64_t)5000 * 1000000);
    assert_int_equal(schedule_create(NULL, &schedule), 0);
    return schedule;
}

/* Lets time pass in steps of 1 ms and wakes the wheel only when it asks for it; returns how often.
 */
static unsigned pass(struct schedule *schedule, int64_t ms)
{
    unsigned wakes = 0;
    busiest_tick = 0;
    for (int64_t i = 0; i < ms; i++) {
        clock_advance_ms(1);
        if (schedule_next_ms(schedule) <= clock_mono_ms()) {
            this_tick = 0;
            schedule_run(schedule);
            wakes += this_tick > 0;
            busiest_tick = this_tick > busiest_tick ? this_tick : busiest_tick;
        }
    }
    return wakes;
}

static void stop(struct schedule *schedule)
{
    schedule_destroy(schedule);
    clock_release();
}

static void test_770_devices_share_wake_ups_without_firing_at_once(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    static struct counted devices[ENTRIES];
    memset(devices, 0, sizeof(devices));
    for (size_t i = 0; i < ENTRIES; i++) {
        devices[i].entry.due = on_due;
        schedule_add(schedule, &devices[i].entry, 1000);
    }
    unsigned wakes = pass(schedule, 10000);
    assert_int_equal(wakes, 130); /* 13 bursts a second */
    assert_int_equal(busiest_tick, SCHEDULE_BURST);
    for (size_t i = 0; i < ENTRIES; i++) {
        assert_int_equal(devices[i].calls, 10);
        assert_int_equal(devices[i].skipped, 0);
        assert_int_equal(devices[i].last_ms - devices[i].first_ms, 9000);
    }
    assert_int_equal(schedule_fired(schedule), 7700);
    /* those that leave make room for those that come */
    for (size_t i = 0; i < ENTRIES; i++) {
        schedule_remove(&devices[i].entry);
    }
    assert_int_equal(pass(schedule, 2000), 0);
    stop(schedule);
}

static void test_more_than_a_full_second_is_spread_evenly(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    static struct counted devices[5000];
    memset(devices, 0, sizeof(devices));
    for (size_t i = 0; i < 5000; i++) {
        devices[i].entry.due = on_due;
        schedule_add(schedule, &devices[i].entry, 1000);
    }
    assert_int_equal(pass(schedule, 1000), 50);
    assert_int_equal(busiest_tick, 100);
    stop(schedule);
}

static void test_long_periods_are_spread_over_their_seconds(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    static struct counted devices[600];
    memset(devices, 0, sizeof(devices));
    for (size_t i = 0; i < 600; i++) {
        devices[i].entry.due = on_due;
        schedule_add(schedule, &devices[i].entry, 10000);
    }
    unsigned wakes = pass(schedule, 10000);
    assert_int_equal(wakes, 10);
    assert_in_range(busiest_tick, 60, 64);
    stop(schedule);
}

static void test_odd_periods_keep_their_mean(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    const int64_t periods[] = {20, 25, 333, 1500, 60000};
    struct counted entries[ARRAY_SIZE(periods)];
    memset(entries, 0, sizeof(entries));
    for (size_t i = 0; i < ARRAY_SIZE(periods); i++) {
        entries[i].entry.due = on_due;
        schedule_add(schedule, &entries[i].entry, periods[i]);
    }
    pass(schedule, 180000);
    for (size_t i = 0; i < ARRAY_SIZE(periods); i++) {
        int64_t expected = 180000 / periods[i];
        assert_in_range(entries[i].calls, expected - 2, expected + 1);
        assert_int_equal(entries[i].skipped, 0);
    }
    stop(schedule);
}

static void test_a_stall_skips_whole_periods_and_counts_them(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    struct counted device = {.entry.due = on_due};
    schedule_add(schedule, &device.entry, 100);
    pass(schedule, 1000);
    unsigned before = device.calls;
    clock_advance_ms(12345);
    schedule_run(schedule);
    assert_int_equal(device.calls, before + 1);
    assert_in_range(device.skipped, 122, 124);
    assert_true(schedule_late_us(schedule, 1) >= 12200000);
    pass(schedule, 1000);
    assert_in_range(device.calls, before + 10, before + 12);
    stop(schedule);
}

struct single {
    struct schedule_timer timer; /* first */
    struct schedule *schedule;
    struct schedule_timer *other;
    unsigned fired;
    int64_t at_ms;
    int64_t again_ms;
};

static void on_single(struct schedule_timer *timer)
{
    struct single *single = (struct single *)timer;
    single->fired++;
    single->at_ms = clock_mono_ms();
    if (single->other != NULL) {
        schedule_cancel(single->schedule, single->other);
    }
    if (single->again_ms > 0) {
        schedule_set(single->schedule, timer, single->again_ms);
    }
}

static void test_timers_fire_on_the_first_tick_at_or_after_their_time(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    const int64_t delays[] = {0, 1, 20, 21, 500, 10240, 10260, 100000};
    struct single timers[ARRAY_SIZE(delays)];
    memset(timers, 0, sizeof(timers));
    int64_t now = clock_mono_ms();
    for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
        timers[i] = (struct single){.timer.fire = on_single, .schedule = schedule};
        schedule_set(schedule, &timers[i].timer, delays[i]);
        assert_true(schedule_is_set(&timers[i].timer));
    }
    pass(schedule, 100100);
    for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
        assert_int_equal(timers[i].fired, 1);
        assert_true(timers[i].at_ms - now >= delays[i]);
        assert_true(timers[i].at_ms - now <= delays[i] + SCHEDULE_TICK_MS);
        assert_false(schedule_is_set(&timers[i].timer));
    }
    assert_true(schedule_next_ms(schedule) == INT64_MAX);
    stop(schedule);
}

static void test_callbacks_may_move_and_cancel_timers_of_the_same_tick(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    struct single a = {.timer.fire = on_single, .schedule = schedule, .again_ms = 40};
    struct single b = {.timer.fire = on_single, .schedule = schedule};
    a.other = &b.timer;
    schedule_set(schedule, &a.timer, 100);
    schedule_set(schedule, &b.timer, 100);
    pass(schedule, 300);
    assert_int_equal(a.fired, 6);
    assert_int_equal(b.fired, 0);
    struct counted leaving = {.entry.due = on_due, .leave = true};
    schedule_add(schedule, &leaving.entry, 40);
    pass(schedule, 300);
    assert_int_equal(leaving.calls, 1);
    stop(schedule);
}

static void test_lateness_is_told_to_nine_percent(void **state)
{
    (void)state;
    struct schedule *schedule = start();
    struct counted device = {.entry.due = on_due};
    schedule_add(schedule, &device.entry, 1000);
    for (int i = 0; i < 100; i++) {
        int64_t next = schedule_next_ms(schedule);
        clock_advance_ms(next - clock_mono_ms() + (i < 90 ? 4 : 100));
        schedule_run(schedule);
    }
    assert_int_equal(schedule_fired(schedule), 100);
    assert_in_range(schedule_late_us(schedule, 0.5), 4000, 4400);
    assert_in_range(schedule_late_us(schedule, 0.95), 100000, 109000);
    assert_int_equal(schedule_late_us(schedule, 1), 100000);
    schedule_forget_lateness(schedule);
    assert_int_equal(schedule_late_us(schedule, 0.5), 0);
    stop(schedule);
}

static void test_it_wakes_up_by_itself(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct schedule *schedule;
    assert_int_equal(schedule_create(base, &schedule), 0);
    struct counted device = {.entry.due = on_due};
    schedule_add(schedule, &device.entry, 40);
    int64_t end = clock_mono_ms() + 60000;
    while (device.calls < 10 && clock_mono_ms() < end) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    assert_int_equal(device.calls, 10);
    /* Nine periods after the first slot, at which a busy machine may not have been punctual. */
    assert_true(device.last_ms - (device.first_ms - device.first_late_ms) >= 355);
    schedule_remove(&device.entry);
    schedule_destroy(schedule);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_770_devices_share_wake_ups_without_firing_at_once),
        cmocka_unit_test(test_more_than_a_full_second_is_spread_evenly),
        cmocka_unit_test(test_long_periods_are_spread_over_their_seconds),
        cmocka_unit_test(test_odd_periods_keep_their_mean),
        cmocka_unit_test(test_a_stall_skips_whole_periods_and_counts_them),
        cmocka_unit_test(test_timers_fire_on_the_first_tick_at_or_after_their_time),
        cmocka_unit_test(test_callbacks_may_move_and_cancel_timers_of_the_same_tick),
        cmocka_unit_test(test_lateness_is_told_to_nine_percent),
        cmocka_unit_test(test_it_wakes_up_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
