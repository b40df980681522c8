#include "drivers/schedule.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/timerfd.h>

enum {
    SLOTS = 512,     /* of the wheel: 10.24 s; what is farther goes round */
    FRAME_MS = 1000, /* loads are balanced over one second */
    FRAME_SLOTS = FRAME_MS / SCHEDULE_TICK_MS,
    FRAME_STEP = 31, /* golden section of 50: each burst lands far from those before */
    SPREAD_SECONDS = 10,
    LOAD_UNIT = 1000, /* one start a second */
    OCTAVE = 8        /* buckets a doubling of lateness */
};

struct schedule {
    struct schedule_timer slots[SLOTS]; /* list heads */
    uint64_t used[SLOTS / 64];
    int64_t tick;     /* run up to here */
    int64_t armed_ms; /* what the timerfd is set to, INT64_MAX: off */
    int fd;
    struct event *event;
    bool running;
    int64_t load[FRAME_SLOTS]; /* starts a second in this tick of the second, in LOAD_UNIT */
    uint64_t added;
    uint64_t late[SCHEDULE_BUCKETS];
    uint64_t fired;
    int64_t late_max_us;
};

static void arm(struct schedule *schedule);

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)what;
    struct schedule *schedule = user;
    uint64_t expirations;
    if (read((int)fd, &expirations, sizeof(expirations)) < 0 && errno == EAGAIN) {
        return;
    }
    schedule->armed_ms = INT64_MAX;
    schedule_run(schedule);
}

static int attach(struct schedule *schedule, struct event_base *base)
{
    schedule->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (schedule->fd < 0) {
        return -errno;
    }
    schedule->event = event_new(base, schedule->fd, EV_READ | EV_PERSIST, on_timer, schedule);
    if (schedule->event == NULL || event_add(schedule->event, NULL) != 0) {
        return -ENOMEM;
    }
    return 0;
}

int schedule_create(struct event_base *base, struct schedule **ret_schedule)
{
    struct schedule *schedule = calloc(1, sizeof(*schedule));
    if (schedule == NULL) {
        return -ENOMEM;
    }
    schedule->fd = -1;
    schedule->armed_ms = INT64_MAX;
    schedule->tick = clock_mono_ms() / SCHEDULE_TICK_MS;
    for (size_t i = 0; i < SLOTS; i++) {
        schedule->slots[i].next = schedule->slots[i].previous = &schedule->slots[i];
    }
    int r = base != NULL ? attach(schedule, base) : 0;
    if (r != 0) {
        schedule_destroy(schedule);
        return r;
    }
    *ret_schedule = schedule;
    return 0;
}

void schedule_destroy(struct schedule *schedule)
{
    if (schedule == NULL) {
        return;
    }
    if (schedule->event != NULL) {
        event_free(schedule->event);
    }
    if (schedule->fd >= 0) {
        close(schedule->fd);
    }
    free(schedule);
}

static void set_tick(struct schedule *schedule, struct schedule_timer *timer, int64_t tick)
{
    schedule_cancel(schedule, timer);
    /* A tick that has been run already would wait a whole turn of the wheel. */
    timer->tick = tick > schedule->tick ? tick : schedule->tick + 1;
    unsigned slot = (unsigned)(timer->tick % SLOTS);
    struct schedule_timer *head = &schedule->slots[slot];
    timer->previous = head->previous;
    timer->next = head;
    head->previous->next = timer;
    head->previous = timer;
    schedule->used[slot / 64] |= (uint64_t)1 << (slot % 64);
    if (!schedule->running && timer->tick * SCHEDULE_TICK_MS < schedule->armed_ms) {
        arm(schedule);
    }
}

/* The first tick that ends at or after at_ms. */
static int64_t tick_of(int64_t at_ms)
{
    return (at_ms + SCHEDULE_TICK_MS - 1) / SCHEDULE_TICK_MS;
}

void schedule_set(struct schedule *schedule, struct schedule_timer *timer, int64_t delay_ms)
{
    set_tick(schedule, timer, tick_of(clock_mono_ms() + delay_ms));
}

void schedule_cancel(struct schedule *schedule, struct schedule_timer *timer)
{
    if (!schedule_is_set(timer)) {
        return;
    }
    timer->next->previous = timer->previous;
    timer->previous->next = timer->next;
    timer->next = timer->previous = NULL;
    unsigned slot = (unsigned)(timer->tick % SLOTS);
    if (schedule->slots[slot].next == &schedule->slots[slot]) {
        schedule->used[slot / 64] &= ~((uint64_t)1 << (slot % 64));
    }
}

int64_t schedule_next_ms(const struct schedule *schedule)
{
    for (int64_t tick = schedule->tick + 1; tick <= schedule->tick + SLOTS;) {
        unsigned slot = (unsigned)(tick % SLOTS);
        uint64_t rest = schedule->used[slot / 64] >> (slot % 64);
        if (rest != 0) {
            return (tick + __builtin_ctzll(rest)) * SCHEDULE_TICK_MS;
        }
        tick += 64 - slot % 64;
    }
    return INT64_MAX;
}

/* Sets the timerfd to the next used tick. */
static void arm(struct schedule *schedule)
{
    int64_t next_ms = schedule_next_ms(schedule);
    if (schedule->fd < 0 || next_ms == schedule->armed_ms) {
        return;
    }
    struct itimerspec at = {0};
    if (next_ms != INT64_MAX) {
        at.it_value.tv_sec = next_ms / 1000;
        at.it_value.tv_nsec = next_ms % 1000 * 1000000;
    }
    timerfd_settime(schedule->fd, TFD_TIMER_ABSTIME, &at, NULL);
    schedule->armed_ms = next_ms;
}

/* Fires what lies in one slot and is due. The due ones are moved to a list of their own first:
 * callbacks may set, move and cancel any timer, also into this very slot. */
static unsigned run_slot(struct schedule *schedule, unsigned slot, int64_t now_tick)
{
    struct schedule_timer *head = &schedule->slots[slot];
    struct schedule_timer due = {.next = &due, .previous = &due};
    for (struct schedule_timer *timer = head->next, *next; timer != head; timer = next) {
        next = timer->next;
        if (timer->tick <= now_tick) {
            schedule_cancel(schedule, timer);
            timer->next = &due;
            timer->previous = due.previous;
            due.previous->next = timer;
            due.previous = timer;
        }
    }
    unsigned fired = 0;
    while (due.next != &due) {
        struct schedule_timer *timer = due.next;
        schedule_cancel(schedule, timer);
        fired++;
        timer->fire(timer);
    }
    return fired;
}

unsigned schedule_run(struct schedule *schedule)
{
    int64_t now_tick = clock_mono_ms() / SCHEDULE_TICK_MS;
    unsigned fired = 0;
    schedule->running = true;
    /* After a long stall one turn of the wheel meets every slot. */
    int64_t from = schedule->tick + 1;
    if (now_tick - from >= SLOTS) {
        from = now_tick - SLOTS + 1;
    }
    for (int64_t tick = from; tick <= now_tick; tick++) {
        schedule->tick = tick > schedule->tick ? tick : schedule->tick;
        unsigned slot = (unsigned)(tick % SLOTS);
        if ((schedule->used[slot / 64] >> (slot % 64) & 1) != 0) {
            fired += run_slot(schedule, slot, tick);
        }
    }
    schedule->running = false;
    arm(schedule);
    return fired;
}

static unsigned bucket_of(int64_t us)
{
    if (us < OCTAVE) {
        return us < 0 ? 0 : (unsigned)us;
    }
    unsigned octave = 63U - (unsigned)__builtin_clzll((uint64_t)us);
    unsigned bucket = (octave - 2) * OCTAVE + (unsigned)(us >> (octave - 3) & 7);
    return bucket < SCHEDULE_BUCKETS ? bucket : SCHEDULE_BUCKETS - 1;
}

/* The largest lateness that goes to that bucket. */
static int64_t bucket_end(unsigned bucket)
{
    if (bucket < OCTAVE) {
        return bucket;
    }
    unsigned octave = bucket / OCTAVE + 2;
    return ((int64_t)(OCTAVE + bucket % OCTAVE + 1) << (octave - 3)) - 1;
}

static void note_lateness(struct schedule *schedule, int64_t late_us)
{
    schedule->late[bucket_of(late_us)]++;
    schedule->fired++;
    if (late_us > schedule->late_max_us) {
        schedule->late_max_us = late_us;
    }
}

static void on_entry(struct schedule_timer *timer)
{
    struct schedule_entry *entry = (struct schedule_entry *)timer;
    struct schedule *schedule = entry->schedule;
    int64_t now_us = clock_mono_ns() / 1000;
    int64_t late_us = now_us - timer->tick * SCHEDULE_TICK_MS * 1000;
    late_us = late_us > 0 ? late_us : 0;
    entry->next_ms += entry->period_ms;
    int64_t behind_ms = now_us / 1000 - entry->next_ms;
    unsigned skipped = 0;
    if (behind_ms >= 0) {
        skipped = (unsigned)(behind_ms / entry->period_ms) + 1;
        entry->next_ms += skipped * entry->period_ms;
    }
    set_tick(schedule, timer, tick_of(entry->next_ms));
    note_lateness(schedule, late_us);
    entry->due(entry, skipped, late_us);
}

static int64_t load_of(const struct schedule_entry *entry)
{
    int64_t load = (int64_t)LOAD_UNIT * FRAME_MS / entry->period_ms;
    return load > 0 ? load : 1;
}

/* The first slot of the second, in staggered order, with room for one more start; the least loaded
 * one when none has. */
static unsigned choose_slot(const struct schedule *schedule)
{
    unsigned least = 0;
    for (unsigned k = 0; k < FRAME_SLOTS; k++) {
        unsigned slot = k * FRAME_STEP % FRAME_SLOTS;
        if (schedule->load[slot] < (int64_t)SCHEDULE_BURST * LOAD_UNIT) {
            return slot;
        }
        least = schedule->load[slot] < schedule->load[least] ? slot : least;
    }
    return least;
}

void schedule_add(struct schedule *schedule, struct schedule_entry *entry, int64_t period_ms)
{
    entry->schedule = schedule;
    entry->period_ms = period_ms > SCHEDULE_TICK_MS ? period_ms : SCHEDULE_TICK_MS;
    entry->timer.fire = on_entry;
    entry->slot = choose_slot(schedule);
    schedule->load[entry->slot] += load_of(entry);
    int64_t now_ms = clock_mono_ms();
    int64_t first_ms = now_ms / FRAME_MS * FRAME_MS + entry->slot * SCHEDULE_TICK_MS;
    while (first_ms <= now_ms) {
        first_ms += entry->period_ms < FRAME_MS ? entry->period_ms : FRAME_MS;
    }
    /* Long periods start in turn over some seconds, so that a burst is one of each second; not
     * over all of theirs, because nobody waits ten minutes for a first reading. */
    int64_t seconds = entry->period_ms / FRAME_MS;
    seconds = seconds < SPREAD_SECONDS ? seconds : SPREAD_SECONDS;
    if (seconds > 1) {
        first_ms += (int64_t)(schedule->added % (uint64_t)seconds) * FRAME_MS;
    }
    schedule->added++;
    entry->next_ms = first_ms;
    set_tick(schedule, &entry->timer, tick_of(first_ms));
}

void schedule_remove(struct schedule_entry *entry)
{
    if (entry->schedule == NULL) {
        return;
    }
    schedule_cancel(entry->schedule, &entry->timer);
    entry->schedule->load[entry->slot] -= load_of(entry);
    entry->schedule = NULL;
}

int64_t schedule_late_us(const struct schedule *schedule, double share)
{
    uint64_t below = (uint64_t)(share * (double)schedule->fired), seen = 0;
    for (unsigned i = 0; i < SCHEDULE_BUCKETS && share < 1; i++) {
        seen += schedule->late[i];
        if (seen > below) {
            int64_t end = bucket_end(i);
            return end < schedule->late_max_us ? end : schedule->late_max_us;
        }
    }
    return schedule->late_max_us;
}

uint64_t schedule_fired(const struct schedule *schedule)
{
    return schedule->fired;
}

void schedule_forget_lateness(struct schedule *schedule)
{
    memset(schedule->late, 0, sizeof(schedule->late));
    schedule->fired = 0;
    schedule->late_max_us = 0;
}
