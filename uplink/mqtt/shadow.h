/* shadow.h - the gateway's AWS IoT shadow: reports its state, does what is desired.
 *
 * The sender's thread; no input or output of its own: messages come in by shadow_received(), go out
 * as notes. Each connection begins with a `get`: what the service holds is the base that updates
 * are made against, with its version, so that a conflict (409) is seen, got anew and tried again.
 * A delta below the last known version is not looked at.
 *
 * Desired values stand as state.desired.points.DEVICE.POINT. Each is known by the service's own
 * timestamp of it (metadata), which stays the same while the document's version grows with every
 * report; the writes keep the last one of a point for as long as it is the last one, so that it is
 * executed once whatever ends or restarts. What came of it is reported in state.reported.writes. */
#pragma once

#include "uplink/mqtt/shadow_doc.h"

enum {
    SHADOW_ANSWER_MS = 5000,
    SHADOW_GAP_MS = 1000,    /* between updates, however urgent */
    SHADOW_REFRESH = 10,     /* intervals after which mere counters are reported */
    SHADOW_CONFLICTS_MAX = 5 /* in a row; then an update goes without its version */
};

struct shadow;
must_check int shadow_create(const struct mqtt_settings *settings, const char *gateway,
                             const struct uplink_host *host, struct remote *remote,
                             struct mqtt_notes *notes, struct shadow **ret_shadow);
void shadow_destroy(struct shadow *shadow);
/* The topics to listen to; NULL at the end. */
const char *shadow_topic(const struct shadow *shadow, size_t i);
/* All of them are subscribed to now; the connection is gone. */
void shadow_up(struct shadow *shadow, int64_t now_ms);
void shadow_down(struct shadow *shadow);
/* Whether the service has answered on this connection. */
bool shadow_is_heard(const struct shadow *shadow);
/* Its part of the status. */
void shadow_tell(const struct shadow *shadow, struct uplink_beside *ret_beside);
bool shadow_take(struct shadow *shadow, const char *topic, const void *payload, size_t len,
                 int64_t now_ms);
void shadow_answer(struct shadow *shadow, const struct remote_answer *answer, int64_t now_ms);
void shadow_step(struct shadow *shadow, const struct uplink_view *view,
                 const struct mqtt_statuses *statuses, int64_t now_ms);
