/* shunned.h - topics that the broker does not let us publish to.
 *
 * A broker that refuses a topic ends the connection with it (AWS IoT Core at once, mosquitto after
 * saying so), and all other messages on their way with it. So such a topic is not tried again for
 * some time; its messages are put off as if the broker had refused them again. Pure; times are
 * CLOCK_MONOTONIC milliseconds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MQTT_SHUNNED_MAX = 64, MQTT_SHUNNED_MS = 10000 };

struct mqtt_shunned {
    struct {
        uint64_t topic; /* hash */
        int64_t until_ms;
    } places[MQTT_SHUNNED_MAX]; /* the one that ends first makes room */
    uint64_t suspect;           /* hash, 0: none */
};

/* The broker has refused this topic. */
void mqtt_shunned_add(struct mqtt_shunned *s, const char *topic, int64_t now_ms);
/* The connection was lost while a message to it was the only one on its way; the second time in a
 * row that is taken for a refusal. */
void mqtt_shunned_suspect(struct mqtt_shunned *s, const char *topic, int64_t now_ms);
bool mqtt_shunned_has(const struct mqtt_shunned *s, const char *topic, int64_t now_ms);
