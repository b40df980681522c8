/* schedule.h - when things are due: a timer wheel of 20 ms on the monotonic clock.
 *
 * One a field event base, used on its thread only; nothing here blocks or allocates after
 * schedule_create(). All that falls into one tick shares one wake-up (a timerfd), and the wheel
 * sleeps through empty ticks. Periodic entries are put together in bursts of up to SCHEDULE_BURST
 * starts a tick, and the bursts are staggered over the second, so that devices share wake-ups yet
 * never all fire at once. Times are milliseconds of CLOCK_MONOTONIC. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SCHEDULE_TICK_MS = 20,
    SCHEDULE_BURST = 64,
    SCHEDULE_BUCKETS = 200 /* of the lateness histogram */
};

struct event_base;
struct schedule;

/* Embedded in what waits; zero-initialised is idle. A timer fires once, on the first tick at or
 * after its time, and may be set again from its own callback. */
struct schedule_timer {
    struct schedule_timer *next, *previous;
    int64_t tick;
    void (*fire)(struct schedule_timer *timer);
};

/* Fires each period_ms. `skipped` is how many whole periods passed by unserved since the last call,
 * because the loop was late: they are not made up for. late_us is how long after its slot it
 * fires. */
struct schedule_entry {
    struct schedule_timer timer;
    struct schedule *schedule;
    int64_t period_ms;
    int64_t next_ms;
    unsigned slot; /* of the second, where its load is counted */
    void (*due)(struct schedule_entry *entry, unsigned skipped, int64_t late_us);
};

/* base NULL: nothing wakes up by itself and the owner calls schedule_run() (tests). Creating the
 * timerfd may fail: -errno. */
must_check int schedule_create(struct event_base *base, struct schedule **ret_schedule);
void schedule_destroy(struct schedule *schedule);

/* Sets or moves a timer; its `fire` must be filled. */
void schedule_set(struct schedule *schedule, struct schedule_timer *timer, int64_t delay_ms);
void schedule_cancel(struct schedule *schedule, struct schedule_timer *timer);
static inline bool schedule_is_set(const struct schedule_timer *timer)
{
    return timer->next != NULL;
}

/* Begins to fire, first within a period and a second from now and at most 11 s, wherever there
 * is room. The entry's `due` must be filled. */
void schedule_add(struct schedule *schedule, struct schedule_entry *entry, int64_t period_ms);
void schedule_remove(struct schedule_entry *entry);

/* Fires all that is due by now, and returns how many. */
unsigned schedule_run(struct schedule *schedule);

/* When the wheel must be run next, CLOCK_MONOTONIC ms; INT64_MAX: nothing waits. */
int64_t schedule_next_ms(const struct schedule *schedule);

/* Lateness of the periodic entries in microseconds: the value below which `share` (0..1) of them
 * lie, to 9 %; 1 gives the exact maximum. */
int64_t schedule_late_us(const struct schedule *schedule, double share);
uint64_t schedule_fired(const struct schedule *schedule);
void schedule_forget_lateness(struct schedule *schedule);
