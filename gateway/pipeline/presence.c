#include "gateway/pipeline/presence.h"

#include "gateway/base/clock.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"
#include "gateway/store/store_clock.h"

/* The note says since when it is lost, in UTC milliseconds; 0: it is not. */
static void note_name(const struct track *track, char name[PIPELINE_NOTE_SIZE])
{
    snprintf(name, PIPELINE_NOTE_SIZE, "lost.%s", track->config->name);
}

static void set_lost(struct pipeline *p, struct track *track, int64_t since_ms)
{
    char name[PIPELINE_NOTE_SIZE];
    note_name(track, name);
    store_set_note(p->store, name, since_ms);
    track->lost_since_ms = since_ms;
}

static void say_lost(struct pipeline *p, struct track *track)
{
    char text[200];
    device_describe_error(track->device, text, sizeof text);
    if (pipeline_record(p, track->device, "device-lost", text) == 0) {
        set_lost(p, track, store_now_ms(p->store));
    }
}

static void say_returned(struct pipeline *p, struct track *track)
{
    char text[60];
    int64_t away_ms = store_now_ms(p->store) - track->lost_since_ms;
    snprintf(text, sizeof text, "after %lld s", (long long)(away_ms > 0 ? away_ms / 1000 : 0));
    if (pipeline_record(p, track->device, "device-returned", text) == 0) {
        set_lost(p, track, 0);
    }
}

static void look_at(struct pipeline *p, struct track *track, int64_t mono_ms)
{
    int state = atomic_load_explicit(&track->device->health.state, memory_order_relaxed);
    bool failing = state == DEVICE_FAILING || state == DEVICE_DEAD;
    if (track->lost_since_ms < 0) { /* not known yet */
        char name[PIPELINE_NOTE_SIZE];
        note_name(track, name);
        track->lost_since_ms = 0;
        (void)store_note(p->store, name, &track->lost_since_ms);
    }
    if (!failing) {
        track->failing_since_ms = 0;
    } else if (track->failing_since_ms == 0) {
        track->failing_since_ms = mono_ms;
    }
    bool lost = state == DEVICE_DEAD ||
                (failing && mono_ms - track->failing_since_ms >= PRESENCE_SETTLE_MS);
    if (lost && track->lost_since_ms == 0) {
        say_lost(p, track);
    } else if (state == DEVICE_GOOD && track->lost_since_ms != 0) {
        say_returned(p, track);
    }
}

void presence_look(struct pipeline *p)
{
    int64_t mono_ms = clock_mono_ms();
    for (size_t i = 0; i < p->track_count; i++) {
        if (p->tracks[i]->device != NULL) {
            look_at(p, p->tracks[i], mono_ms);
        }
    }
}
