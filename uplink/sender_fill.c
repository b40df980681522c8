#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/store_clock.h"
#include "uplink/sender_loop.h"

#include <errno.h>
#include <string.h>

size_t sender_flights_in(const struct sender *s, enum flight_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < s->flight_count; i++) {
        n += s->flights[i].state == state;
    }
    return n;
}

void sender_look(struct sender *s)
{
    store_reader_backlog(s->reader, &s->backlog);
    for (unsigned l = 0; l < STORE_LANES; l++) {
        uint64_t all = s->backlog.readings[l], flying = 0;
        for (size_t i = 0; i < s->flight_count; i++) {
            const struct flight *f = &s->flights[i];
            flying += f->state != FLIGHT_FREE && f->lane == l ? f->readings : 0;
        }
        uint64_t left = flying < all ? all - flying : 0;
        double scan = all > 0 ? (double)s->backlog.scans[l] / (double)all : 0;
        s->left[l] = (uint64_t)((double)left * scan);
        s->left[l] += left > 0 && s->left[l] == 0;
    }
}

static struct flight *free_flight(struct sender *s)
{
    for (size_t i = 0; i < s->flight_count; i++) {
        if (s->flights[i].state == FLIGHT_FREE) {
            return &s->flights[i];
        }
    }
    return NULL;
}

static bool full_out(const struct sender *s, enum store_lane lane)
{
    for (size_t i = 0; i < s->flight_count; i++) {
        const struct flight *f = &s->flights[i];
        if (f->state != FLIGHT_FREE && f->lane == lane && f->full) {
            return true;
        }
    }
    return false;
}

/* Backfill leaves a place for what is live, and the line, too, when that is about to be sent. */
static bool gives_way(const struct sender *s, int64_t now_ms)
{
    if (!giveway_live(&s->giveway, now_ms)) {
        return false;
    }
    size_t out = 0;
    for (size_t i = 0; i < s->flight_count; i++) {
        out += s->flights[i].state != FLIGHT_FREE && s->flights[i].lane == STORE_LANE_BACKFILL;
    }
    int64_t due_ms = lane_deadline(&s->lanes[STORE_LANE_LIVE], s->common->batch_interval_ms);
    bool only_one = s->flight_count == 1;
    return (!only_one && out + 1 >= s->flight_count) ||
           giveway_waits(&s->giveway, now_ms, due_ms, only_one);
}

/* A backlog beside a live lane is always due; otherwise a batch is cut when full or old. */
static enum lane_due due(struct sender *s, enum store_lane lane, int64_t now_ms)
{
    if (lane == STORE_LANE_BACKFILL && bucket_wait_ms(&s->bucket, now_ms) > 0) {
        return LANE_NOT_DUE;
    }
    uint64_t waiting = s->left[lane];
    if (s->split && lane == STORE_LANE_BACKFILL) {
        bool may = waiting > 0 && !s->lanes[lane].blocked && !gives_way(s, now_ms);
        return may ? LANE_DUE_TIME : LANE_NOT_DUE;
    }
    return lane_due(&s->lanes[lane], now_ms, waiting, s->records_max, s->common->batch_interval_ms);
}

/* Streams in the order they are asked; a lane that is due because it is full is so by the bulk of
 * it, and the rarer streams go on waiting for their time. */
static unsigned due_streams(const struct sender *s, enum lane_due why)
{
    bool raw = (s->streams & 1u << STREAM_RAW) != 0;
    return why == LANE_DUE_FULL && raw ? 1u << STREAM_RAW : s->streams;
}

static bool take(struct sender *s, struct flight *f, enum store_lane lane, enum stream stream)
{
    int64_t max_age_ms = s->common->max_age_ms;
    int64_t expired = max_age_ms > 0 ? store_age_now_ms(s->store) - max_age_ms : INT64_MIN;
    bool got = false, backfill = s->split && lane == STORE_LANE_BACKFILL;
    size_t most = backfill ? giveway_records(&s->giveway, clock_mono_ms()) : s->records_max;
    int r = flight_take(f, s->store, s->reader, s->selector, lane, stream, most, s->part_max,
                        expired, &got);
    if (r < 0) {
        char words[100];
        snprintf(words, sizeof words, "reading the store: %s", strerror(-r));
        sender_note_error(s, words);
    }
    return got;
}

/* One take of a lane, whichever stream has something; false: nothing there at present. */
static bool take_lane(struct sender *s, enum store_lane lane, enum lane_due why)
{
    static const enum stream order[] = {STREAM_EVENT, STREAM_AGGREGATE, STREAM_RAW};
    struct flight *f = free_flight(s);
    unsigned streams = due_streams(s, why);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        if ((streams & 1u << order[i]) != 0 && take(s, f, lane, order[i])) {
            return true;
        }
    }
    lane_emptied(&s->lanes[lane], why, full_out(s, lane));
    return false;
}

static void fill(struct sender *s, int64_t now_ms, unsigned lanes)
{
    static const enum store_lane order[] = {STORE_LANE_LIVE, STORE_LANE_BACKFILL};
    bool looked = false;
    while (free_flight(s) != NULL) {
        /* While the circuit is open one batch is enough to probe with. */
        bool busy = sender_flights_in(s, FLIGHT_FREE) < s->flight_count;
        if (now_ms < s->pace.quiet_until_ms || (pace_circuit_open(&s->pace) && busy)) {
            return;
        }
        bool took = false, live = false;
        for (size_t i = 0; i < ARRAY_SIZE(order) && !took; i++) {
            if ((lanes & 1u << order[i]) == 0) {
                continue;
            }
            if (!looked) {
                sender_look(s);
                looked = true;
            }
            enum lane_due why = due(s, order[i], now_ms);
            took = why != LANE_NOT_DUE && take_lane(s, order[i], why);
            live = order[i] == STORE_LANE_LIVE;
            looked = looked && !took;
        }
        if (!took || (!live && sender_turn_over(s))) {
            return;
        }
    }
}

void sender_fill(struct sender *s, int64_t now_ms)
{
    fill(s, now_ms,
         s->split ? 1u << STORE_LANE_LIVE | 1u << STORE_LANE_BACKFILL : 1u << STORE_LANE_BACKFILL);
}

void sender_fill_live(struct sender *s, int64_t now_ms)
{
    if (s->split) {
        fill(s, now_ms, 1u << STORE_LANE_LIVE);
    }
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

int64_t sender_fill_deadline(struct sender *s, int64_t now_ms)
{
    if (free_flight(s) == NULL) {
        return -1;
    }
    enum store_lane timed = s->split ? STORE_LANE_LIVE : STORE_LANE_BACKFILL;
    int64_t at = lane_deadline(&s->lanes[timed], s->common->batch_interval_ms);
    int64_t bucket_ms = bucket_wait_ms(&s->bucket, now_ms);
    if (!s->split && at >= 0) {
        at = at > now_ms + bucket_ms ? at : now_ms + bucket_ms;
    }
    if (s->left[STORE_LANE_BACKFILL] > 0 && bucket_ms > 0) {
        at = sooner(at, now_ms + bucket_ms);
    } else if (due(s, STORE_LANE_BACKFILL, now_ms) != LANE_NOT_DUE) {
        at = now_ms; /* the bucket filled since sender_fill() found it empty */
    }
    if (s->split && giveway_until(&s->giveway, now_ms) != 0 && s->left[STORE_LANE_BACKFILL] > 0) {
        at = sooner(at, giveway_until(&s->giveway, now_ms));
    }
    bool busy = sender_flights_in(s, FLIGHT_FREE) < s->flight_count;
    if (pace_circuit_open(&s->pace) && busy) {
        return -1;
    }
    return at >= 0 && at < s->pace.quiet_until_ms ? s->pace.quiet_until_ms : at;
}
