#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/sender_loop.h"

#include <errno.h>
#include <string.h>

/* splitmix64: dice for the jitter. */
uint64_t sender_roll(struct sender *s)
{
    uint64_t z = (s->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fail(struct sender *s, struct flight *f, enum pace_failure kind, int64_t retry_after_ms,
                 const char *why)
{
    int64_t now_ms = clock_mono_ms();
    bool was_open = pace_circuit_open(&s->pace), was_held = s->pace.held;
    int64_t pause_ms = pace_failed(&s->pace, now_ms, kind, retry_after_ms, sender_roll(s));
    if (f->state != FLIGHT_FREE) {
        f->state = FLIGHT_PAUSED;
        f->retry_at_ms = now_ms + pause_ms;
    }
    sender_note_error(s, why);
    pthread_mutex_lock(&s->lock);
    s->status.failures++;
    pthread_mutex_unlock(&s->lock);
    /* Once when it begins to matter, not for every attempt. */
    if (pace_circuit_open(&s->pace) && (!was_open || was_held != s->pace.held)) {
        log_warning("uplink %s: %s; everything is kept, next attempt in %lld s", s->config->name,
                    why, (long long)(pause_ms + 999) / 1000);
    }
}

/* After an outage what has piled up becomes the backlog, and live begins anew. */
static void recover(struct sender *s)
{
    if (!pace_success(&s->pace)) {
        return;
    }
    log_info("uplink %s: delivers again", s->config->name);
    for (size_t i = 0; i < s->flight_count; i++) {
        if (s->flights[i].state == FLIGHT_PAUSED) {
            s->flights[i].state = FLIGHT_READY;
        }
        if (s->split) {
            s->flights[i].lane = STORE_LANE_BACKFILL;
        }
    }
    if (s->split) {
        store_reader_split(s->reader);
        lane_init(&s->lanes[STORE_LANE_LIVE]);
        lane_init(&s->lanes[STORE_LANE_BACKFILL]);
    }
}

static void count_result(struct sender *s, const struct flight_result *result, const char *why)
{
    pthread_mutex_lock(&s->lock);
    s->status.delivered += result->delivered;
    s->status.rejected += result->dead;
    if (result->delivered > 0) {
        s->status.last_delivered_ms = clock_wall_ms();
        s->status.last_error[0] = '\0';
    }
    pthread_mutex_unlock(&s->lock);
    if (result->dead > 0) {
        log_warning("uplink %s: %llu readings became dead letters: %s", s->config->name,
                    (unsigned long long)result->dead, why);
        sender_note_error(s, why);
    }
}

/* The size of requests that a 413 has taught grows again, slowly, up to what was configured. */
static void learn_size(struct sender *s, const struct flight *f)
{
    if (f->cap_max < s->part_max) {
        s->part_max = f->cap_max;
        s->grown = 0;
    } else if (++s->grown >= SENDER_GROW_AFTER && s->part_max < s->part_limit) {
        s->part_max = s->part_max * 2 < s->part_limit ? s->part_max * 2 : s->part_limit;
        s->grown = 0;
    }
}

static void settle(struct sender *s, struct flight *f, const struct uplink_verdict *verdict)
{
    struct flight_result result = {0};
    size_t from = f->from, to = f->to;
    int r = flight_settle(f, s->reader, verdict, &result);
    if (r < 0) {
        char words[100];
        snprintf(words, sizeof words, "settling with the store: %s", strerror(-r));
        fail(s, f, PACE_ANSWERED, -1, words);
        return;
    }
    count_result(s, &result, verdict->why);
    if (result.put_off > 0) {
        f->put_offs = result.delivered + result.dead > 0 ? 0 : f->put_offs;
        sender_put_off(s, f, verdict);
        return;
    }
    f->put_offs = 0;
    sender_taken(s, f, from, to);
    learn_size(s, f);
    if (f->state == FLIGHT_FREE) {
        sender_look(s);
        /* A device may have been kept from one lane by a batch of the other. */
        for (unsigned l = 0; l < STORE_LANES; l++) {
            lane_answered(&s->lanes[l], clock_mono_ms(), f->lane == l && f->full, s->left[l],
                          s->common->batch_interval_ms);
        }
    }
}

/* A service that refuses record after record is more likely told the wrong things than fed with
 * bad ones: then this is slow, so that nobody finds the whole store among the dead letters. */
static void reject(struct sender *s, struct flight *f, const struct uplink_verdict *verdict)
{
    struct uplink_verdict all = *verdict;
    all.outcome = UPLINK_REJECTED;
    settle(s, f, &all);
    if (++s->rejects < SENDER_REJECTS_BEFORE_HOLD) {
        recover(s);
        return;
    }
    char words[200];
    snprintf(words, sizeof words, "refuses every record: %.160s", verdict->why);
    fail(s, f, PACE_HOLD, -1, words);
}

static void act(struct sender *s, struct flight *f, const struct uplink_verdict *verdict,
                bool answered, bool too_large)
{
    switch (verdict->outcome) {
    case UPLINK_DELIVERED:
        s->rejects = 0;
        recover(s);
        settle(s, f, verdict);
        break;
    case UPLINK_RETRY:
        fail(s, f, answered ? PACE_ANSWERED : PACE_SILENT, verdict->retry_after_ms, verdict->why);
        break;
    case UPLINK_HOLD:
        fail(s, f, PACE_HOLD, verdict->retry_after_ms, verdict->why);
        break;
    case UPLINK_SPLIT:
        if (s->rejects < SENDER_REJECTS_BEFORE_HOLD) {
            recover(s); /* it answers, and about this batch */
        }
        if (!flight_shrink(f, too_large)) {
            reject(s, f, verdict);
        }
        break;
    case UPLINK_REJECTED:
        reject(s, f, verdict);
        break;
    }
}

void sender_answer(void *flight, const struct uplink_reply *reply)
{
    struct flight *f = flight;
    struct sender *s = f->sender;
    struct batch batch = flight_batch(f, s->gateway, s->store_id);
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    int64_t now_ms = clock_mono_ms();
    s->type->judge(s->config->settings, &batch, reply, &verdict);
    if (verdict.outcome == UPLINK_DELIVERED) {
        giveway_answered(&s->giveway, f->lane == STORE_LANE_BACKFILL, batch.count,
                         now_ms - f->sent_at_ms, now_ms);
    }
    f->state = FLIGHT_READY;
    act(s, f, &verdict, reply->status != 0, reply->status == 413);
    free(verdict.rejected);
}

void sender_unencodable(struct sender *s, struct flight *f, int r)
{
    if (r == -E2BIG && flight_shrink(f, true)) {
        return;
    }
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    if (r == -E2BIG) {
        snprintf(verdict.why, sizeof verdict.why, "one record alone is too large for a request");
        reject(s, f, &verdict);
        return;
    }
    snprintf(verdict.why, sizeof verdict.why, "making a request: %s", strerror(-r));
    fail(s, f, PACE_ANSWERED, -1, verdict.why);
}
