#include "uplink/mqtt/shadow_slots.h"

#include <errno.h>

enum { TIMEOUT_MS = 5000 };

static void set_text(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text != NULL ? text : "");
}

static void end_slot(struct shadow_slot *slot, const char *outcome, const char *code,
                     const char *why)
{
    slot->state = SLOT_ENDED;
    set_text(slot->outcome, sizeof slot->outcome, outcome);
    set_text(slot->code, sizeof slot->code, code);
    set_text(slot->why, sizeof slot->why, why);
}

static struct shadow_slot *find(struct shadow_slots *slots, const char *device, const char *point)
{
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        struct shadow_slot *slot = &slots->list[i];
        if (slot->state != SLOT_FREE && strcmp(slot->device, device) == 0 &&
            strcmp(slot->point, point) == 0) {
            return slot;
        }
    }
    return NULL;
}

/* A free one, or the oldest of those whose value is not desired any more. */
static struct shadow_slot *make_room(struct shadow_slots *slots)
{
    struct shadow_slot *oldest = NULL;
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        struct shadow_slot *slot = &slots->list[i];
        if (slot->state == SLOT_FREE) {
            return slot;
        }
        if (slot->state == SLOT_ENDED && slot->seen != slots->look &&
            (oldest == NULL || slot->seen < oldest->seen)) {
            oldest = slot;
        }
    }
    return oldest;
}

/* What an earlier life of ours reported of the same value is final. */
static void recall(struct shadow_slot *slot, const json_t *reported)
{
    const json_t *in = json_object_get(json_object_get(reported, "writes"), slot->device);
    const json_t *told = json_object_get(in, slot->point);
    const char *value = json_string_value(json_object_get(told, "value"));
    const char *outcome = json_string_value(json_object_get(told, "outcome"));
    const json_t *ordered = json_object_get(told, "ordered");
    if (value != NULL && outcome != NULL && strcmp(value, slot->value) == 0 &&
        json_is_integer(ordered) && json_integer_value(ordered) == slot->ordered_s) {
        end_slot(slot, outcome, json_string_value(json_object_get(told, "code")),
                 json_string_value(json_object_get(told, "why")));
    }
}

static void take_value(struct shadow_slots *slots, const char *device, const char *point,
                       const json_t *value, const json_t *stamp, const json_t *reported)
{
    char text[WRITE_VALUE_MAX + 1];
    const json_t *ordered = json_object_get(stamp, "timestamp");
    int64_t ordered_s = json_is_integer(ordered) ? json_integer_value(ordered) : 0;
    struct shadow_slot *slot = find(slots, device, point);
    shadow_value(value, text);
    if (slot != NULL && slot->ordered_s == ordered_s && strcmp(slot->value, text) == 0) {
        slot->seen = slots->look; /* the same one again */
        return;
    }
    if (slot != NULL && ordered_s < slot->ordered_s) {
        return; /* a late word */
    }
    slot = slot != NULL ? slot : make_room(slots);
    if (slot == NULL || strlen(device) > WRITE_NAME_MAX || strlen(point) > WRITE_NAME_MAX) {
        slots->left_out++;
        return;
    }
    *slot = (struct shadow_slot){
        .state = SLOT_WAITING, .ordered_s = ordered_s, .seen = slots->look, .tag = ++slots->tag};
    set_text(slot->device, sizeof slot->device, device);
    set_text(slot->point, sizeof slot->point, point);
    set_text(slot->value, sizeof slot->value, text);
    if (text[0] == '\0') {
        end_slot(slot, "refused", "not_a_number", "a desired value is a number, true or false");
    } else if (ordered_s <= 0 || ordered_s > INT64_MAX / 2000) {
        end_slot(slot, "refused", "no_time", "its metadata does not say when it was desired");
    } else {
        recall(slot, reported);
    }
}

void shadow_slots_take(struct shadow_slots *slots, const struct shadow_message *message,
                       const json_t *reported)
{
    const char *device, *point;
    json_t *points, *value;
    slots->look++;
    slots->left_out = 0;
    /* Those that are there first, so that only what is not desired any more gives way. */
    json_object_foreach((json_t *)message->points, device, points)
    {
        json_object_foreach(points, point, value)
        {
            struct shadow_slot *slot = find(slots, device, point);
            if (slot != NULL) {
                slot->seen = slots->look;
            }
        }
    }
    json_object_foreach((json_t *)message->points, device, points)
    {
        const json_t *stamps = json_object_get(message->stamps, device);
        json_object_foreach(points, point, value)
        {
            take_value(slots, device, point, value, json_object_get(stamps, point), reported);
        }
    }
}

/* FNV-1a: tells values of one second apart; the series, device and point are compared as such. */
static uint64_t hash(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++) {
        h = (h ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return h;
}

void shadow_slots_step(struct shadow_slots *slots, int64_t now_ms)
{
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        struct shadow_slot *slot = &slots->list[i];
        char id[WRITE_ID_MAX + 1];
        if (slot->state != SLOT_WAITING || now_ms < slot->retry_ms) {
            continue;
        }
        snprintf(id, sizeof id, "shadow.%lld.%016llx", (long long)slot->ordered_s,
                 (unsigned long long)hash(slot->value));
        const struct write_command command = {.id = id,
                                              .device = slot->device,
                                              .point = slot->point,
                                              .value = slot->value,
                                              .who = slots->series,
                                              .timeout_ms = TIMEOUT_MS,
                                              .expires_ms = slot->ordered_s * 1000 +
                                                            slots->settings->write_expiry_ms,
                                              .standing = true,
                                              .order = slot->ordered_s};
        if (remote_order(slots->remote, &command, slot->tag) < 0) {
            return; /* at the bound: an answer makes room */
        }
        slot->state = SLOT_UNDER_WAY;
    }
}

static struct shadow_slot *of_tag(struct shadow_slots *slots, uint64_t tag)
{
    for (size_t i = 0; i < SHADOW_SLOTS_MAX; i++) {
        if (slots->list[i].state == SLOT_UNDER_WAY && slots->list[i].tag == tag) {
            return &slots->list[i];
        }
    }
    return NULL; /* another value took its place meanwhile */
}

bool shadow_slots_answer(struct shadow_slots *slots, const struct remote_answer *answer,
                         int64_t time_ms, int64_t now_ms)
{
    struct shadow_slot *slot = of_tag(slots, answer->tag);
    if (slot == NULL) {
        return false;
    }
    json_t *body = json_loads(answer->body, 0, NULL);
    const json_t *error = json_object_get(body, "error");
    const char *outcome = json_string_value(json_object_get(body, "outcome"));
    outcome = outcome != NULL ? outcome : "refused";
    bool passing = strcmp(outcome, "refused") == 0 &&
                   (answer->status == 429 || answer->status == 503);
    if (passing) {
        slot->state = SLOT_WAITING;
        slot->retry_ms = now_ms + SHADOW_AGAIN_MS;
    } else {
        end_slot(slot, outcome, json_string_value(json_object_get(error, "code")),
                 json_string_value(json_object_get(error, "message")));
        const json_t *read_back = json_object_get(body, "read_back");
        size_t len = read_back == NULL
                         ? 0
                         : json_dumpb(read_back, slot->read_back, sizeof slot->read_back - 1,
                                      JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        slot->read_back[len < sizeof slot->read_back ? len : 0] = '\0';
        slot->done_ms = time_ms;
    }
    json_decref(body);
    return !passing;
}
