#include "uplink/mqtt/shadow_doc.h"

#include <errno.h>

static const json_t *object_at(const json_t *from, const char *key)
{
    const json_t *found = json_object_get(from, key);
    return json_is_object(found) ? found : NULL;
}

static const char *text_at(const json_t *from, const char *key)
{
    const char *text = json_string_value(json_object_get(from, key));
    return text != NULL ? text : "";
}

/* The delta of a message is its whole state, that of a document a member beside what is desired. */
static void find_parts(struct shadow_message *m, enum shadow_kind kind)
{
    const json_t *state = object_at(m->root, "state"), *stamps = object_at(m->root, "metadata");
    if (kind == SHADOW_UPDATE_DELTA) {
        m->points = object_at(state, "points");
        m->stamps = object_at(stamps, "points");
        return;
    }
    m->reported = object_at(state, "reported");
    m->desired = object_at(state, "desired");
    if (kind == SHADOW_GET_ACCEPTED) {
        m->points = object_at(object_at(state, "delta"), "points");
        m->stamps = object_at(object_at(stamps, "desired"), "points");
    }
}

int shadow_read(enum shadow_kind kind, const void *payload, size_t len,
                struct shadow_message *ret_message)
{
    struct shadow_message m = {.version = -1, .text = "", .token = ""};
    if (len > MQTT_INCOMING_MAX) {
        return -EBADMSG;
    }
    m.root = json_loadb(payload, len, 0, NULL);
    if (!json_is_object(m.root)) {
        json_decref(m.root);
        return -EBADMSG;
    }
    const json_t *version = json_object_get(m.root, "version");
    m.version = json_is_integer(version) ? json_integer_value(version) : -1;
    m.code = (int)json_integer_value(json_object_get(m.root, "code"));
    m.text = text_at(m.root, "message");
    m.token = text_at(m.root, "clientToken");
    find_parts(&m, kind);
    bool refusal = kind == SHADOW_GET_REJECTED || kind == SHADOW_UPDATE_REJECTED;
    if (refusal ? m.code == 0 : m.version < 0) {
        json_decref(m.root);
        return -EBADMSG;
    }
    *ret_message = m;
    return 0;
}

void shadow_message_finish(struct shadow_message *message)
{
    json_decref(message->root);
    *message = (struct shadow_message){0};
}

void shadow_value(const json_t *value, char text[WRITE_VALUE_MAX + 1])
{
    auto_buffer struct buffer b = {0};
    if (json_is_integer(value)) {
        buffer_printf(&b, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        decimal_write_double(&b, json_real_value(value)); /* 2.5 stays 2.5 */
    } else if (json_is_boolean(value)) {
        buffer_add_byte(&b, json_is_true(value) ? '1' : '0');
    }
    const char *shown = b.len <= WRITE_VALUE_MAX ? buffer_text(&b) : NULL;
    snprintf(text, WRITE_VALUE_MAX + 1, "%s", shown != NULL ? shown : "");
}
