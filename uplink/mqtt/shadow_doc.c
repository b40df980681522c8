#include "uplink/mqtt/shadow_doc.h"

#include "gateway/base/clock.h"

/* A document that grows as far as its budget goes. */
struct draft {
    json_t *top;
    size_t left;
    bool failed;
};

size_t shadow_size(const json_t *json)
{
    return json_dumpb(json, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
}

/* Takes the value. False: it does not fit, or there is no memory. */
static bool put(struct draft *d, json_t *into, const char *key, json_t *value)
{
    size_t size = value != NULL ? shadow_size(value) + strlen(key) + 4 : 0;
    if (value == NULL || size == 0 || size > d->left) {
        d->failed = d->failed || value == NULL;
        json_decref(value);
        return false;
    }
    if (json_object_set_new(into, key, value) < 0) {
        d->failed = true; /* a name that is no UTF-8, or no memory: it is gone */
        return false;
    }
    d->left -= size;
    return true;
}

/* The object of that name, made when it is not there. */
static json_t *section(struct draft *d, json_t *in, const char *key)
{
    json_t *found = json_object_get(in, key);
    if (found == NULL && put(d, in, key, json_object())) {
        found = json_object_get(in, key);
    }
    return found;
}

/* An object that would stay empty is none in the service either. */
static void drop_empty(json_t *in, const char *key)
{
    if (json_object_size(json_object_get(in, key)) == 0) {
        json_object_del(in, key);
    }
}

static json_t *time_json(int64_t time_ms)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(time_ms, text);
    return json_string(text);
}

static void put_gateway(struct draft *d, const struct shadow_facts *facts)
{
    const struct uplink_view *view = facts->view;
    json_t *in = section(d, d->top, "gateway");
    put(d, in, "name", json_string(facts->gateway));
    put(d, in, "version", json_string(WINDROW_VERSION));
    put(d, in, "clock", json_string(view->clock));
    put(d, in, "uptime_s", json_integer(view->uptime_s));
    put(d, in, "waiting", json_integer((json_int_t)view->waiting));
    if (view->seconds_left >= 0) { /* null would take it away */
        put(d, in, "seconds_left", json_integer(view->seconds_left));
    }
}

static void put_counts(struct draft *d, const struct shadow_facts *facts)
{
    size_t counts[3] = {0};
    for (size_t i = 0; i < facts->view->device_count; i++) {
        counts[facts->statuses->list[i].now]++;
    }
    json_t *in = section(d, d->top, "counts");
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        put(d, in, mqtt_status_word((enum mqtt_status)i), json_integer((json_int_t)counts[i]));
    }
}

static void put_uplinks(struct draft *d, const struct uplink_view *view)
{
    json_t *all = section(d, d->top, "uplinks");
    for (size_t i = 0; i < view->uplink_count; i++) {
        put(d, all, view->uplinks[i].name,
            json_pack("{s:s, s:I}", "state", view->uplinks[i].state, "waiting",
                      (json_int_t)view->uplinks[i].waiting));
    }
    drop_empty(d->top, "uplinks");
}

static const struct shadow_slot *slot_of(const struct shadow_facts *facts, const char *device,
                                         const char *point)
{
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        const struct shadow_slot *slot = &facts->slots[i];
        if (slot->state != SLOT_FREE && strcmp(slot->device, device) == 0 &&
            strcmp(slot->point, point) == 0) {
            return slot;
        }
    }
    return NULL;
}

static void put_under(struct draft *d, json_t *all, const char *device, const char *point,
                      json_t *value)
{
    json_t *in = section(d, all, device);
    if (in == NULL) {
        json_decref(value);
        return;
    }
    put(d, in, point, value);
    drop_empty(all, device);
}

/* What was read back after a write is newer than what was polled before it. */
static const char *present_value(const struct uplink_view_point *point,
                                 const struct shadow_slot *slot)
{
    bool written = slot != NULL && slot->state == SLOT_ENDED && slot->read_back[0] != '\0';
    return written && point->time_ms <= slot->done_ms ? slot->read_back : point->value;
}

static void put_points(struct draft *d, const struct shadow_facts *facts, bool desired)
{
    const struct uplink_view *view = facts->view;
    json_t *all = section(d, d->top, "points");
    for (size_t i = 0; all != NULL && i < view->point_count; i++) {
        const struct uplink_view_point *point = &view->points[i];
        const char *device = point->device->config->name;
        const struct shadow_slot *slot = slot_of(facts, device, point->name);
        const char *value = present_value(point, slot);
        if ((slot != NULL) == desired && value[0] != '\0') {
            put_under(d, all, device, point->name, json_loads(value, JSON_DECODE_ANY, NULL));
        }
    }
    drop_empty(d->top, "points");
}

static json_t *slot_json(const struct shadow_slot *slot)
{
    json_t *json = json_pack("{s:s, s:I, s:s}", "value", slot->value, "ordered",
                             (json_int_t)slot->ordered_s, "outcome", slot->outcome);
    if (json != NULL && slot->code[0] != '\0') {
        json_object_set_new(json, "code", json_string(slot->code));
        json_object_set_new(json, "why", json_string(slot->why));
    }
    return json;
}

static void put_writes(struct draft *d, const struct shadow_facts *facts)
{
    json_t *all = section(d, d->top, "writes");
    for (size_t i = 0; all != NULL && i < SHADOW_SLOTS_MAX; i++) {
        const struct shadow_slot *slot = &facts->slots[i];
        if (slot->state == SLOT_ENDED) {
            put_under(d, all, slot->device, slot->point, slot_json(slot));
        }
    }
    drop_empty(d->top, "writes");
    if (facts->left_out > 0) {
        put(d, d->top, "desired_left_out", json_integer((json_int_t)facts->left_out));
    }
}

static size_t put_devices(struct draft *d, const struct shadow_facts *facts, json_t *all,
                          enum mqtt_status status)
{
    size_t left_out = 0;
    for (size_t i = 0; i < facts->view->device_count; i++) {
        const struct device *device = facts->view->devices[i];
        if (facts->statuses->list[i].now != status) {
            continue;
        }
        json_t *json = json_pack("{s:s}", "state", mqtt_status_word(status));
        int64_t last_good_ms = device->health.last_good_ms;
        if (json != NULL && last_good_ms != 0) {
            json_object_set_new(json, "last_good", time_json(last_good_ms));
        }
        left_out += !put(d, all, device->config->name, json);
    }
    return left_out;
}

json_t *shadow_report(const struct shadow_facts *facts, size_t budget)
{
    static const enum mqtt_status order[] = {MQTT_STATUS_LOST, MQTT_STATUS_UNKNOWN,
                                             MQTT_STATUS_ONLINE};
    enum { COUNT_ROOM = 40 }; /* devices_left_out itself */
    struct draft d = {.top = json_object(), .left = budget > COUNT_ROOM ? budget - COUNT_ROOM : 0};
    if (d.top == NULL) {
        return NULL;
    }
    put_gateway(&d, facts);
    put_counts(&d, facts);
    put_uplinks(&d, facts->view);
    put_points(&d, facts, true);
    put_writes(&d, facts);
    put_points(&d, facts, false);
    json_t *all = section(&d, d.top, "devices");
    size_t left_out = all == NULL ? facts->view->device_count : 0;
    for (size_t i = 0; all != NULL && i < ARRAY_SIZE(order); i++) {
        left_out += put_devices(&d, facts, all, order[i]);
    }
    drop_empty(d.top, "devices");
    if (left_out > 0) {
        d.left += COUNT_ROOM;
        put(&d, d.top, "devices_left_out", json_integer((json_int_t)left_out));
    }
    return d.top;
}

json_t *shadow_patch(const json_t *known, const json_t *want)
{
    json_t *patch = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)want, key, value)
    {
        json_t *old = json_object_get(known, key);
        if (json_is_object(old) && json_is_object(value)) {
            json_t *inner = shadow_patch(old, value);
            if (json_object_size(inner) > 0) {
                json_object_set(patch, key, inner);
            }
            json_decref(inner);
        } else if (!json_equal(old, value)) {
            json_object_set(patch, key, value);
        }
    }
    json_object_foreach((json_t *)known, key, value)
    {
        if (json_object_get(want, key) == NULL) {
            json_object_set_new(patch, key, json_null());
        }
    }
    return patch;
}

json_t *shadow_common(const json_t *known, const json_t *want)
{
    json_t *common = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)known, key, value)
    {
        json_t *other = json_object_get(want, key);
        if (json_is_object(value) && json_is_object(other)) {
            json_object_set_new(common, key, shadow_common(value, other));
        } else if (other != NULL) {
            json_object_set(common, key, value);
        }
    }
    return common;
}

static bool is_counter(const char *key)
{
    static const char *const counters[] = {"uptime_s", "waiting", "seconds_left", "last_good"};
    for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
        if (strcmp(key, counters[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether a patch holds more than counters that move; one that comes or goes is a change. */
static bool says_more(const json_t *patch)
{
    json_t *value;
    const char *key;
    json_object_foreach((json_t *)patch, key, value)
    {
        bool more = json_is_object(value) ? says_more(value) : !is_counter(key);
        if (more) {
            return true;
        }
    }
    return false;
}

bool shadow_differs(const json_t *known, const json_t *want)
{
    json_t *patch = shadow_patch(known, want);
    bool differs = says_more(patch);
    json_decref(patch);
    return differs;
}
