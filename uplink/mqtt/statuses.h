/* statuses.h - which devices are there: told on change, retained, and anew with each connection.
 *
 * The sender's thread. A device is online when it answers, lost when its driver has given it up or
 * when it has failed for MQTT_SETTLE_MS: single failures are not told. The list follows the view's
 * order, which is by name. */
#pragma once

#include "uplink/host.h"
#include "uplink/mqtt/notes.h"

enum { MQTT_SETTLE_MS = 10000 };

enum mqtt_status { MQTT_STATUS_UNKNOWN, MQTT_STATUS_ONLINE, MQTT_STATUS_LOST };
/* "starting", "online", "lost". */
const char *mqtt_status_word(enum mqtt_status status);

struct mqtt_statuses {
    const struct mqtt_settings *settings;
    const char *gateway;
    struct mqtt_statuses_entry {
        char *name;
        int64_t failing_since_ms; /* monotonic, 0: it is not */
        enum mqtt_status now, told;
    } * list;
    size_t count;
};

void mqtt_statuses_finish(struct mqtt_statuses *statuses);
/* Brings the list to the view's devices. Of those that left, the retained message is taken away.
 * -ENOMEM only. */
must_check int mqtt_statuses_look(struct mqtt_statuses *statuses, const struct uplink_view *view,
                                  int64_t now_ms, struct mqtt_notes *notes);
/* Posts what has changed, as far as half of the notes' room goes. */
void mqtt_statuses_tell(struct mqtt_statuses *statuses, const struct uplink_view *view,
                        struct mqtt_notes *notes);
/* The connection is gone: everything is told again. */
void mqtt_statuses_down(struct mqtt_statuses *statuses);
