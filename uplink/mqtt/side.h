/* side.h - what the connection carries beside the batches: states of devices, commands, a shadow.
 *
 * The sender's thread; the transport tells it what happens to the connection and publishes its
 * notes. It makes connections of its own accord, at a growing distance, so that states and commands
 * do not depend on readings that flow. A broker that ends the connection for what is asked of it
 * here (IoT Core does, where the policy lacks it) costs the readings little: after
 * MQTT_SIDE_STRIKES of them in a row all this rests, for MQTT_SIDE_REST_MS and then twice as long
 * each time. */
#pragma once

#include "uplink/host.h"
#include "uplink/mqtt/link.h"
#include "uplink/mqtt/notes.h"

enum { MQTT_SIDE_STRIKES = 3, MQTT_SIDE_REST_MS = 60000, MQTT_SIDE_LOOK_MS = 1000 };

struct mqtt_side;
must_check int mqtt_side_create(const struct mqtt_settings *settings, const char *gateway,
                                const struct uplink_host *host, const char *uplink,
                                struct mqtt_side **ret_side);
void mqtt_side_destroy(struct mqtt_side *side);

void mqtt_side_up(struct mqtt_side *side, struct mqtt_link *link, int64_t now_ms);
/* Also when a connection could not be made. */
void mqtt_side_down(struct mqtt_side *side, int64_t now_ms);

/* As the link's events. */
void mqtt_side_received(struct mqtt_side *side, const char *topic, const void *payload, size_t len,
                        bool retained);
void mqtt_side_subscribed(struct mqtt_side *side, int message, int reason);
/* Whether it was one of the notes. */
bool mqtt_side_acknowledged(struct mqtt_side *side, int message, int reason);

/* Does what is due, while connected and while not. */
void mqtt_side_step(struct mqtt_side *side, int64_t now_ms);
void mqtt_side_tell(const struct mqtt_side *side, struct uplink_beside *ret_beside);
/* How long until it has something to do, or wants a connection. */
int64_t mqtt_side_wait_ms(const struct mqtt_side *side, int64_t now_ms);
/* What it wants published. */
struct mqtt_notes *mqtt_side_notes(struct mqtt_side *side);
/* Readable when mqtt_side_step() has something to do. */
int mqtt_side_fd(const struct mqtt_side *side);
