/* link.h - one connection to a broker, over libmosquitto.
 *
 * Everything is called by the sender's thread; what blocks (the look-up of the name, the TCP
 * connect) happens on a thread of its own, the dial. */
#pragma once

#include "uplink/mqtt/mqtt.h"

struct mqtt_link;
struct mqtt_link_events {
    void (*acknowledged)(void *user, int message, int reason);
    void (*subscribed)(void *user, int message, int reason); /* 0x80 and above: refused */
    void (*received)(void *user, const char *topic, const void *payload, size_t len, bool retained);
};
/* Begins to connect beside the caller's thread; password NULL: none. */
must_check int mqtt_link_create(const struct mqtt_settings *settings, const char *gateway,
                                const char *password, const struct mqtt_link_events *events,
                                void *user, struct mqtt_link **ret_link);
/* The dial that has not ended yet, to be dropped by the caller; NULL: it has. */
struct errand;
must_check struct errand *mqtt_link_take_dial(struct mqtt_link *link);
/* Tells the broker to announce that we left, where one is connected. */
void mqtt_link_destroy(struct mqtt_link *link);

enum mqtt_link_state { MQTT_DIALLING, MQTT_GREETING, MQTT_UP, MQTT_DOWN };
enum mqtt_link_state mqtt_link_state(const struct mqtt_link *link);
int mqtt_link_fd(const struct mqtt_link *link);
/* The end of the certificate that the broker has shown, while it is up; 0: none. */
int64_t mqtt_link_peer_until_ms(const struct mqtt_link *link);
short mqtt_link_wants(const struct mqtt_link *link);
/* Does what revents of mqtt_link_fd() allow, and the keep-alive. */
void mqtt_link_step(struct mqtt_link *link, short revents);
/* 0: *ret_message will be acknowledged; -E2BIG: larger than the broker takes; -EINVAL: the topic
 * is none; -ENOTCONN: it is down now. */
must_check int mqtt_link_publish(struct mqtt_link *link, const struct mqtt_frame *frame,
                                 int *ret_message);
/* A subscription of QoS 1. live_only: no retained messages, nor our own (as far as MQTT 5 goes). */
must_check int mqtt_link_subscribe(struct mqtt_link *link, const char *filter, bool live_only,
                                   int *ret_message);
/* Why it is down: in words; *ret_reason is the broker's reason code, 0: it gave none. contested:
 * another client seems to use our client_id. */
const char *mqtt_link_why(const struct mqtt_link *link, int *ret_reason, bool *ret_contested);
/* A reason code in words. */
const char *mqtt_reason_words(int reason);
