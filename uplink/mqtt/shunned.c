#include "uplink/mqtt/shunned.h"

#include "config/arena.h"

static uint64_t hash_topic(const char *topic)
{
    uint64_t hash = hash_text(HASH_START, topic);
    return hash != 0 ? hash : 1;
}

void mqtt_shunned_add(struct mqtt_shunned *s, const char *topic, int64_t now_ms)
{
    uint64_t hash = hash_topic(topic);
    size_t at = 0;
    for (size_t i = 0; i < MQTT_SHUNNED_MAX; i++) {
        if (s->places[i].topic == hash) {
            at = i;
            break;
        }
        at = s->places[i].until_ms < s->places[at].until_ms ? i : at;
    }
    s->places[at].topic = hash;
    s->places[at].until_ms = now_ms + MQTT_SHUNNED_MS;
}

void mqtt_shunned_suspect(struct mqtt_shunned *s, const char *topic, int64_t now_ms)
{
    uint64_t hash = hash_topic(topic);
    if (s->suspect == hash) {
        mqtt_shunned_add(s, topic, now_ms);
    }
    s->suspect = hash;
}

bool mqtt_shunned_has(const struct mqtt_shunned *s, const char *topic, int64_t now_ms)
{
    uint64_t hash = hash_topic(topic);
    for (size_t i = 0; i < MQTT_SHUNNED_MAX; i++) {
        if (s->places[i].topic == hash) {
            return now_ms < s->places[i].until_ms;
        }
    }
    return false;
}
