/* commands.h - orders that come as messages: checked, handed to the writes, answered.
 *
 * The sender's thread. {"id","device","point","value","expires"} on command_topic; each is answered
 * on reply_topic with what became of it, as `POST /v1/write` answers. A message that comes twice
 * (QoS 1) is executed once by its id and answered again; a retained one is refused, because it
 * would come with every connection. */
#pragma once

#include "gateway/writes/write_request.h"
#include "uplink/host.h"
#include "uplink/mqtt/notes.h"

/* Tags of orders: the shadow's are below. */
#define MQTT_COMMAND_TAG ((uint64_t)1 << 63)

struct mqtt_commands {
    const struct mqtt_settings *settings;
    const char *uplink;
    char *filter, *reply_topic; /* NULL: off */
    struct remote *remote;      /* not owned */
    struct mqtt_notes *notes;
    uint64_t number, unanswered;   /* unanswered: no room for the reply */
    uint64_t taken, done, refused; /* for the status; refused: or failed */
    int64_t warn_at_ms;
};

/* -ENOMEM only. */
must_check int mqtt_commands_init(struct mqtt_commands *commands, const char *gateway);
void mqtt_commands_finish(struct mqtt_commands *commands);
/* Whether a message is one, and then takes it. */
bool mqtt_commands_take(struct mqtt_commands *commands, const char *topic, const void *payload,
                        size_t len, bool retained);
void mqtt_commands_answer(struct mqtt_commands *commands, const struct remote_answer *answer);

/* What is wrong with filter and replies, NULL: nothing. */
const char *mqtt_commands_fault(const struct mqtt_settings *settings, bool aws);
