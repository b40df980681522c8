#include "uplink/mqtt/statuses.h"

#include "gateway/base/clock.h"

#include <errno.h>

const char *mqtt_status_word(enum mqtt_status status)
{
    static const char *const words[] = {[MQTT_STATUS_UNKNOWN] = "starting",
                                        [MQTT_STATUS_ONLINE] = "online",
                                        [MQTT_STATUS_LOST] = "lost"};
    return words[status];
}

static void free_list(struct mqtt_statuses_entry *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].name);
    }
    free(list);
}

void mqtt_statuses_finish(struct mqtt_statuses *statuses)
{
    free_list(statuses->list, statuses->count);
    statuses->list = NULL;
    statuses->count = 0;
}

static const char *write_topic(const struct mqtt_statuses *statuses, const char *device,
                               struct buffer *topic)
{
    mqtt_write_topic(topic, statuses->settings->device_status_topic, statuses->gateway, NULL,
                     device);
    return buffer_text(topic);
}

/* An empty retained message takes the former one away. */
static void bid_farewell(const struct mqtt_statuses *statuses, const char *device,
                         struct mqtt_notes *notes)
{
    auto_buffer struct buffer topic = {0};
    if (statuses->settings->device_status_topic == NULL) {
        return;
    }
    const char *text = write_topic(statuses, device, &topic);
    if (text != NULL) {
        (void)!mqtt_notes_post(notes, text, "", 0, MQTT_NOTE_RETAIN | MQTT_NOTE_KEEP);
    }
}

static void settle(struct mqtt_statuses_entry *entry, enum device_state state, int64_t now_ms)
{
    bool failing = state == DEVICE_FAILING || state == DEVICE_DEAD;
    if (!failing) {
        entry->failing_since_ms = 0;
    } else if (entry->failing_since_ms == 0) {
        entry->failing_since_ms = now_ms;
    }
    if (state == DEVICE_GOOD) {
        entry->now = MQTT_STATUS_ONLINE;
    } else if (state == DEVICE_DEAD ||
               (failing && now_ms - entry->failing_since_ms >= MQTT_SETTLE_MS)) {
        entry->now = MQTT_STATUS_LOST;
    }
}

/* Both lists are by name. */
static int follow(struct mqtt_statuses *statuses, const struct uplink_view *view,
                  struct mqtt_statuses_entry *list, struct mqtt_notes *notes)
{
    size_t old = 0;
    for (size_t i = 0; i < view->device_count; i++) {
        const char *name = view->devices[i]->config->name;
        while (old < statuses->count && strverscmp(statuses->list[old].name, name) < 0) {
            bid_farewell(statuses, statuses->list[old++].name, notes);
        }
        if (old < statuses->count && strcmp(statuses->list[old].name, name) == 0) {
            list[i] = statuses->list[old];
            statuses->list[old++].name = NULL; /* moved */
        } else {
            list[i].name = strdup(name);
        }
        if (list[i].name == NULL) {
            return -ENOMEM;
        }
    }
    for (; old < statuses->count; old++) {
        bid_farewell(statuses, statuses->list[old].name, notes);
    }
    return 0;
}

static bool same_names(const struct mqtt_statuses *statuses, const struct uplink_view *view)
{
    bool same = statuses->count == view->device_count;
    for (size_t i = 0; same && i < view->device_count; i++) {
        same = strcmp(statuses->list[i].name, view->devices[i]->config->name) == 0;
    }
    return same;
}

int mqtt_statuses_look(struct mqtt_statuses *statuses, const struct uplink_view *view,
                       int64_t now_ms, struct mqtt_notes *notes)
{
    if (!same_names(statuses, view)) {
        struct mqtt_statuses_entry *list = calloc(view->device_count + 1, sizeof *list);
        if (list == NULL) {
            return -ENOMEM;
        }
        int r = follow(statuses, view, list, notes);
        mqtt_statuses_finish(statuses);
        if (r < 0) {
            free_list(list, view->device_count);
            return r;
        }
        statuses->list = list;
        statuses->count = view->device_count;
    }
    for (size_t i = 0; i < statuses->count; i++) {
        settle(&statuses->list[i], (enum device_state)view->devices[i]->health.state, now_ms);
    }
    return 0;
}

static void add_time(struct buffer *out, const char *key, int64_t time_ms)
{
    char text[CLOCK_TEXT_SIZE];
    if (time_ms != 0) {
        clock_format_utc(time_ms, text);
        buffer_printf(out, ",\"%s\":\"%s\"", key, text);
    }
}

static int tell(const struct mqtt_statuses *statuses, size_t i, const struct uplink_view *view,
                struct mqtt_notes *notes)
{
    auto_buffer struct buffer topic = {0}, payload = {0};
    const struct device *device = view->devices[i];
    const char *name = device->config->name;
    buffer_add_text(&payload, "{\"gateway\":");
    json_write_string(&payload, statuses->gateway, strlen(statuses->gateway));
    buffer_add_text(&payload, ",\"device\":");
    json_write_string(&payload, name, strlen(name));
    buffer_printf(&payload, ",\"status\":\"%s\"", mqtt_status_word(statuses->list[i].now));
    add_time(&payload, "time", view->time_ms);
    add_time(&payload, "last_good", device->health.last_good_ms);
    buffer_add_byte(&payload, '}');
    const char *text = write_topic(statuses, name, &topic);
    return text == NULL || buffer_failed(&payload)
               ? -ENOMEM
               : mqtt_notes_post(notes, text, payload.data, payload.len, MQTT_NOTE_RETAIN);
}

void mqtt_statuses_tell(struct mqtt_statuses *statuses, const struct uplink_view *view,
                        struct mqtt_notes *notes)
{
    if (statuses->settings->device_status_topic == NULL) {
        return;
    }
    for (size_t i = 0; i < statuses->count; i++) {
        struct mqtt_statuses_entry *entry = &statuses->list[i];
        if (entry->told == entry->now) {
            continue;
        }
        if (mqtt_notes_room(notes) <= MQTT_NOTES_MAX / 2 || tell(statuses, i, view, notes) < 0) {
            return;
        }
        entry->told = entry->now;
    }
}

void mqtt_statuses_down(struct mqtt_statuses *statuses)
{
    for (size_t i = 0; i < statuses->count; i++) {
        statuses->list[i].told = MQTT_STATUS_UNKNOWN;
    }
}
