#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/sender_loop.h"

static struct sender_aside *find(struct sender *s, uint32_t device)
{
    for (size_t i = 0; i < s->aside_count; i++) {
        if (s->aside[i].device == device) {
            return &s->aside[i];
        }
    }
    return NULL;
}

/* The place of a device, a new one if there is room; NULL: there is none. */
static struct sender_aside *place(struct sender *s, uint32_t device)
{
    struct sender_aside *found = find(s, device);
    if (found == NULL && s->aside_count < SENDER_ASIDE_MAX) {
        found = &s->aside[s->aside_count++];
        *found = (struct sender_aside){.device = device};
    }
    return found;
}

static void step_aside(struct sender *s, struct sender_aside *a, const char *name, const char *why)
{
    if (!store_reader_hold(s->reader, a->device)) {
        return;
    }
    int64_t pause_ms = (int64_t)SENDER_ASIDE_MS << (a->times < 10 ? a->times : 10);
    pause_ms = pause_ms < SENDER_ASIDE_MAX_MS ? pause_ms : SENDER_ASIDE_MAX_MS;
    a->held = true;
    a->times++;
    a->until_ms = clock_mono_ms() + pause_ms;
    log_warning("uplink %s: device %s is not taken and stands aside: %s; kept, again in %lld s",
                s->config->name, name, why, (long long)pause_ms / 1000);
}

/* Whether there is a place for each of the part's devices; so there are those that are made. */
static bool places(struct sender *s, const struct flight *f)
{
    for (size_t i = f->from; i < f->to; i++) {
        if (place(s, f->records[i].scan->device) == NULL) {
            return false;
        }
    }
    return true;
}

/* What waits for the lanes is another thing than before. */
static void look_again(struct sender *s, int64_t now_ms)
{
    sender_look(s);
    for (unsigned l = 0; l < STORE_LANES; l++) {
        lane_arrived(&s->lanes[l], now_ms);
    }
}

/* The flight's scans go back to the store, where the devices of its part are passed over. */
static void set_aside(struct sender *s, struct flight *f, const char *why)
{
    size_t from = f->from, to = f->to;
    flight_return(f, s->reader);
    for (size_t i = from; i < to; i++) {
        const struct batch_record *record = &f->records[i];
        struct sender_aside *a = find(s, record->scan->device);
        if (a != NULL && !a->held) {
            step_aside(s, a, record->names->device, why);
        }
    }
    look_again(s, clock_mono_ms());
}

void sender_put_off(struct sender *s, struct flight *f, const struct uplink_verdict *verdict)
{
    sender_note_error(s, verdict->why);
    if (++f->put_offs >= SENDER_PUT_OFFS && places(s, f)) {
        set_aside(s, f, verdict->why);
        return;
    }
    int64_t most_ms = (int64_t)PACE_BASE_MS << (f->put_offs < 8 ? f->put_offs : 8);
    int64_t pause_ms = PACE_FLOOR_MS + (int64_t)(sender_roll(s) % (uint64_t)most_ms);
    pause_ms = pause_ms > verdict->retry_after_ms ? pause_ms : verdict->retry_after_ms;
    f->state = FLIGHT_PAUSED;
    f->retry_at_ms = clock_mono_ms() + pause_ms;
    pthread_mutex_lock(&s->lock);
    s->status.failures++;
    pthread_mutex_unlock(&s->lock);
}

void sender_taken(struct sender *s, const struct flight *f, size_t from, size_t to)
{
    for (size_t i = from; s->aside_count > 0 && i < to; i++) {
        struct sender_aside *a = find(s, f->records[i].scan->device);
        if (a != NULL && !a->held) {
            *a = s->aside[--s->aside_count];
        }
    }
}

void sender_recall(struct sender *s, int64_t now_ms)
{
    bool recalled = false;
    for (size_t i = 0; i < s->aside_count;) {
        struct sender_aside *a = &s->aside[i];
        if (a->until_ms > now_ms) {
            i++;
        } else if (a->held) {
            store_reader_release(s->reader, a->device);
            a->held = false;
            a->until_ms = now_ms + 2 * SENDER_ASIDE_MAX_MS;
            recalled = true;
            i++;
        } else {
            *a = s->aside[--s->aside_count];
        }
    }
    if (recalled) {
        look_again(s, now_ms);
    }
}

int64_t sender_recall_at(const struct sender *s)
{
    int64_t at = -1;
    for (size_t i = 0; i < s->aside_count; i++) {
        at = at < 0 || s->aside[i].until_ms < at ? s->aside[i].until_ms : at;
    }
    return at;
}
