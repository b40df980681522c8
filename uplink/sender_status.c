#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/store_clock.h"
#include "uplink/sender_loop.h"

#include <string.h>

/* A sample holds an answer at least, as long as there are any. */
enum { ETA_SAMPLE_MS = 2000, ETA_SAMPLE_MAX_MS = 60000 };

const char *sender_state_name(enum sender_state state)
{
    static const char *const names[] = {[SENDER_IDLE] = "idle",
                                        [SENDER_SENDING] = "sending",
                                        [SENDER_BACKING_OFF] = "backing off",
                                        [SENDER_HELD] = "held",
                                        [SENDER_STOPPED] = "stopped"};
    return (size_t)state < ARRAY_SIZE(names) ? names[state] : "?";
}

void sender_note_error(struct sender *s, const char *words)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->status.last_error, sizeof s->status.last_error, "%s", words);
    pthread_mutex_unlock(&s->lock);
}

static uint64_t a_second(uint64_t from, uint64_t to, int64_t passed_ms)
{
    return to > from ? (uint64_t)((double)(to - from) * 1000.0 / (double)passed_ms) : 0;
}

/* By what was sent, and by how fast the backlog has shrunk, over the last sample. */
static void estimate(struct sender *s, uint64_t waiting, int64_t now_ms)
{
    struct sender_status *to = &s->status;
    int64_t passed_ms = now_ms - s->eta_since_ms;
    bool silent = to->delivered == s->eta_delivered && passed_ms < ETA_SAMPLE_MAX_MS;
    if (waiting == 0) {
        to->backlog_eta_s = 0;
        to->delivered_per_s = to->bytes_per_s = 0;
    } else if (s->eta_since_ms == 0) {
        to->backlog_eta_s = -1;
    } else if (passed_ms < ETA_SAMPLE_MS || silent) {
        return;
    } else {
        uint64_t shrunk = a_second(waiting, s->eta_waiting, passed_ms);
        to->backlog_eta_s = shrunk > 0 ? (int64_t)(waiting / shrunk) + 1 : -1;
        to->delivered_per_s = a_second(s->eta_delivered, to->delivered, passed_ms);
        to->bytes_per_s = a_second(s->eta_bytes, to->bytes_sent, passed_ms);
    }
    s->eta_waiting = waiting;
    s->eta_delivered = to->delivered;
    s->eta_bytes = to->bytes_sent;
    s->eta_since_ms = now_ms;
}

/* Once when it begins to be so, and again when it has become more urgent: the words count days. */
static void warn(struct sender *s)
{
    char words[sizeof s->status.warning] = "";
    if (s->type->transport->warning != NULL) {
        s->type->transport->warning(s->transport, words, sizeof words);
    }
    if (strcmp(words, s->status.warning) == 0) {
        return; /* written by this thread alone */
    }
    if (words[0] != '\0') {
        log_warning("uplink %s: %s", s->config->name, words);
    }
    pthread_mutex_lock(&s->lock);
    memcpy(s->status.warning, words, sizeof words);
    pthread_mutex_unlock(&s->lock);
}

void sender_publish(struct sender *s, int64_t now_ms)
{
    uint64_t waiting = s->backlog.held;
    for (size_t i = 0; i < STORE_LANES; i++) {
        waiting += s->backlog.readings[i]; /* in flight as well */
    }
    warn(s);
    struct uplink_beside beside = {.commands = NULL};
    if (s->type->transport->beside != NULL) {
        s->type->transport->beside(s->transport, &beside);
    }
    bool sending = sender_flights_in(s, FLIGHT_SENDING) > 0;
    bool open = pace_circuit_open(&s->pace);
    pthread_mutex_lock(&s->lock);
    s->status.state = s->pace.held ? SENDER_HELD
                      : open       ? SENDER_BACKING_OFF
                      : sending    ? SENDER_SENDING
                                   : SENDER_IDLE;
    s->status.waiting = waiting;
    s->status.beside = beside;
    s->status.bytes_sent = s->type->transport->bytes_sent(s->transport);
    estimate(s, waiting, now_ms);
    s->oldest_ms = s->backlog.oldest_ms;
    s->retry_at_ms = s->pace.quiet_until_ms;
    pthread_mutex_unlock(&s->lock);
}

void sender_status(struct sender *sender, struct sender_status *ret_status)
{
    pthread_mutex_lock(&sender->lock);
    *ret_status = sender->status;
    int64_t oldest_ms = sender->oldest_ms, retry_at_ms = sender->retry_at_ms;
    pthread_mutex_unlock(&sender->lock);
    int64_t age_ms = oldest_ms != 0 ? store_now_ms(sender->store) - oldest_ms : 0;
    ret_status->lag_s = age_ms > 0 ? age_ms / 1000 : 0;
    int64_t left_ms = retry_at_ms - clock_mono_ms();
    ret_status->retry_in_ms = left_ms > 0 ? left_ms : 0;
}
