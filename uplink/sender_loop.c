#include "uplink/sender_loop.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <poll.h>
#include <string.h>

static bool stopping(const struct sender *s)
{
    return s->stop_by_ms != 0;
}

/* The store has something new. The live lane (or the only one) begins to wait for its batch. */
static void hear_store(struct sender *s, int64_t now_ms)
{
    struct pollfd store = {.fd = store_reader_eventfd(s->reader), .events = POLLIN};
    if (poll(&store, 1, 0) == 1) {
        store_reader_seen(s->reader);
        sender_look(s);
        lane_arrived(&s->lanes[s->split ? STORE_LANE_LIVE : STORE_LANE_BACKFILL], now_ms);
        if (s->split && s->left[STORE_LANE_LIVE] > 0) {
            giveway_arrived(&s->giveway, now_ms);
        }
        s->lanes[STORE_LANE_BACKFILL].blocked = false;
    }
}

static bool may_go(const struct sender *s, const struct flight *f, int64_t now_ms)
{
    return f->state == FLIGHT_READY ||
           (f->state == FLIGHT_PAUSED && (f->retry_at_ms <= now_ms || pace_circuit_open(&s->pace)));
}

static void charge(struct sender *s, const struct flight *f)
{
    s->body_bytes += f->request.body.len;
    uint64_t sent = s->type->transport->bytes_sent(s->transport);
    /* What compression has made of bodies so far stands for what it makes of this one. */
    double ratio = sent > 0 && s->body_bytes > 0 ? (double)sent / (double)s->body_bytes : 1.0;
    if (f->lane == STORE_LANE_BACKFILL) {
        bucket_spend(&s->bucket, (int64_t)((double)f->request.body.len * (ratio < 1 ? ratio : 1)));
    }
    pthread_mutex_lock(&s->lock);
    s->status.requests++;
    pthread_mutex_unlock(&s->lock);
}

static void send_flight(struct sender *s, struct flight *f)
{
    int r = flight_encode(f, s->type, s->config->settings, s->gateway, s->store_id);
    if (r == 0) {
        r = s->type->transport->send(s->transport, &f->request, sender_answer, f);
    }
    if (r < 0) {
        sender_unencodable(s, f, r);
        return;
    }
    f->state = FLIGHT_SENDING;
    f->sent_at_ms = clock_mono_ms();
    if (s->split && f->lane == STORE_LANE_LIVE) {
        giveway_sent(&s->giveway, f->sent_at_ms);
    }
    charge(s, f);
}

bool sender_turn_over(const struct sender *s)
{
    return clock_mono_ns() - s->turn_ns >= SENDER_TURN_NS;
}

/* Returns whether this turn has made enough: one request at least; the rest goes in the next. */
static bool launch_lane(struct sender *s, enum store_lane lane, int64_t now_ms)
{
    bool enough = false;
    for (size_t i = 0; i < s->flight_count && !enough; i++) {
        struct flight *f = &s->flights[i];
        if (f->lane != lane) {
            continue;
        }
        /* Again while it becomes smaller: each round is one encoding that did not fit. */
        while (may_go(s, f, now_ms) &&
               pace_may_send(&s->pace, now_ms, sender_flights_in(s, FLIGHT_SENDING))) {
            send_flight(s, f);
            enough = sender_turn_over(s);
        }
    }
    return enough;
}

static bool launch(struct sender *s, int64_t now_ms)
{
    return launch_lane(s, STORE_LANE_LIVE, now_ms) || launch_lane(s, STORE_LANE_BACKFILL, now_ms);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

/* When a flight that is not on its way may go; -1: none. */
static int64_t launch_deadline(const struct sender *s, int64_t now_ms)
{
    int64_t at = -1;
    bool open = pace_circuit_open(&s->pace);
    if (open && sender_flights_in(s, FLIGHT_SENDING) > 0) {
        return -1;
    }
    for (size_t i = 0; i < s->flight_count; i++) {
        const struct flight *f = &s->flights[i];
        if (f->state == FLIGHT_READY || (f->state == FLIGHT_PAUSED && open)) {
            at = sooner(at, now_ms);
        } else if (f->state == FLIGHT_PAUSED) {
            at = sooner(at, f->retry_at_ms);
        }
    }
    return at >= 0 && at < s->pace.quiet_until_ms ? s->pace.quiet_until_ms : at;
}

static int64_t timeout_ms(struct sender *s, int64_t now_ms)
{
    int64_t at = stopping(s) ? s->stop_by_ms
                             : sooner(sooner(launch_deadline(s, now_ms), sender_recall_at(s)),
                                      sender_fill_deadline(s, now_ms));
    if (at < 0) {
        return -1;
    }
    return at > now_ms ? at - now_ms : 0;
}

static bool finished(const struct sender *s, int64_t now_ms)
{
    return stopping(s) && (sender_flights_in(s, FLIGHT_SENDING) == 0 || now_ms >= s->stop_by_ms);
}

static void wait_for_more(struct sender *s)
{
    int64_t now_ms = clock_mono_ms();
    /* Asked to stop, its descriptor stays readable: only answers and the deadline count then. */
    int wake_fd = stopping(s) ? -1 : s->wake_fd;
    int r = s->type->transport->run(s->transport, wake_fd, timeout_ms(s, now_ms));
    if (r < 0) {
        sender_note_error(s, strerror(-r));
        struct pollfd pause = {.fd = s->stop_fd, .events = POLLIN};
        poll(&pause, 1, PACE_BASE_MS); /* a transport that fails at once must not spin */
    }
}

static void turn(struct sender *s, int64_t now_ms)
{
    s->turn_ns = clock_mono_ns();
    hear_store(s, now_ms);
    sender_recall(s, now_ms);
    sender_fill_live(s, now_ms);
    if (!launch(s, now_ms)) {
        sender_fill(s, now_ms);
        (void)launch(s, now_ms);
    }
}

void *sender_loop(void *user)
{
    struct sender *s = user;
    int64_t now_ms = clock_mono_ms();
    s->pace = (struct pace){0};
    s->part_max = s->part_limit;
    s->grown = s->rejects = 0;
    s->aside_count = 0;
    giveway_init(&s->giveway, s->common->batch_interval_ms, s->records_max);
    bucket_init(&s->bucket, s->common->backfill_rate, now_ms);
    lane_init(&s->lanes[STORE_LANE_LIVE]);
    lane_init(&s->lanes[STORE_LANE_BACKFILL]);
    sender_look(s);
    if (!s->split && s->left[STORE_LANE_BACKFILL] > 0) {
        lane_arrived(&s->lanes[STORE_LANE_BACKFILL], now_ms);
    }
    while (!finished(s, now_ms)) {
        if (!stopping(s)) {
            turn(s, now_ms);
        }
        sender_publish(s, now_ms);
        wait_for_more(s);
        now_ms = clock_mono_ms();
    }
    for (size_t i = 0; i < s->flight_count; i++) {
        if (s->flights[i].state != FLIGHT_FREE) {
            flight_return(&s->flights[i], s->reader);
        }
    }
    sender_publish(s, now_ms);
    return NULL;
}
