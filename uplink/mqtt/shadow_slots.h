/* shadow_slots.h - desired values on their way: from a delta through the writes to an outcome.
 *
 * The sender's thread. A refusal that may pass (too soon, device not there) is tried again until
 * the value's time is over; any other is final until the value is desired anew. */
#pragma once

#include "uplink/mqtt/shadow_doc.h"

struct shadow_slots {
    const struct mqtt_settings *settings;
    struct remote *remote; /* not owned */
    const char *series;    /* "shadow THING" or "shadow THING/NAME": whose words these are */
    struct shadow_slot list[SHADOW_SLOTS_MAX];
    size_t left_out;
    uint64_t tag, look; /* the last ones given */
};

enum { SHADOW_AGAIN_MS = 2000 };

/* Takes in what differs; `reported` (NULL: none) says what came of values in an earlier life. */
void shadow_slots_take(struct shadow_slots *slots, const struct shadow_message *message,
                       const json_t *reported);
/* Orders what is due. */
void shadow_slots_step(struct shadow_slots *slots, int64_t now_ms);
/* Whether the answer ended one: then there is something to report. time_ms: UTC. */
bool shadow_slots_answer(struct shadow_slots *slots, const struct remote_answer *answer,
                         int64_t time_ms, int64_t now_ms);
