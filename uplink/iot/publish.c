#include "uplink/iot/iot.h"
#include "uplink/mqtt/mqtt.h"
#include "uplink/verdict.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>

static size_t group(const struct iot_settings *s, const struct batch *batch)
{
    return message_group(batch, s->payload, strstr(s->topic, "{device}") != NULL, 0);
}

size_t iot_together(const void *settings, const struct batch *batch)
{
    return group(settings, batch);
}

/* The topic is one segment of the path: its slashes are encoded, too. */
static int write_path(const struct iot_settings *s, const struct batch *batch,
                      struct uplink_request *request)
{
    auto_buffer struct buffer topic = {0}, path = {.max = sizeof request->path - 1};
    mqtt_write_topic(&topic, s->topic, batch->gateway, stream_name(batch->stream),
                     batch->records->names->device);
    buffer_add_text(&path, "/topics/");
    for (size_t i = 0; i < topic.len; i++) {
        unsigned char c = topic.data[i];
        if (isalnum(c) || (c != '\0' && strchr("-_.~", c) != NULL)) {
            buffer_add_byte(&path, c);
        } else {
            buffer_printf(&path, "%%%02X", c);
        }
    }
    buffer_add_text(&path, "?qos=1");
    const char *text = buffer_text(&path);
    if (text == NULL || buffer_failed(&topic)) {
        return -ENAMETOOLONG;
    }
    snprintf(request->path, sizeof request->path, "%s", text);
    return 0;
}

int iot_encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    const struct iot_settings *s = settings;
    struct message_writer writer = {0};
    if (group(s, batch) != batch->count) {
        return -E2BIG;
    }
    request->body.max = IOT_PAYLOAD_MAX * 2;
    buffer_clear(&request->body);
    buffer_clear(&request->headers);
    request->content_type = "application/json";
    request->compressible = false;
    int r = message_write(&request->body, &writer, s->payload, batch, 0, batch->count);
    message_writer_finish(&writer);
    if (r == 0 && (buffer_failed(&request->body) || request->body.len > (size_t)s->max_payload)) {
        r = -E2BIG;
    }
    return r < 0 ? r : write_path(s, batch, request);
}

static bool is_ok(const struct uplink_reply *reply)
{
    json_t *body = json_loadb(reply->body, reply->len, 0, NULL);
    const char *message = json_string_value(json_object_get(body, "message"));
    bool ok = message != NULL && strcmp(message, "OK") == 0 &&
              json_is_string(json_object_get(body, "traceId"));
    json_decref(body);
    return ok;
}

/* IoT Core does not look into a payload: what it refuses are topics, rights and sizes. */
void iot_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
               struct uplink_verdict *ret_verdict)
{
    (void)settings;
    enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
    if (class_of == VERDICT_SUCCESS && is_ok(reply)) {
        verdict_delivered(ret_verdict, batch);
    } else if (class_of == VERDICT_SUCCESS) {
        verdict_say(ret_verdict, UPLINK_RETRY, reply,
                    "the reply is not IoT Core's: a captive portal?");
    } else if (reply->status == 401 || reply->status == 403) {
        verdict_say(ret_verdict, UPLINK_HOLD, reply,
                    reply->status == 401
                        ? "IoT Core does not know the certificate (401): is it active?"
                        : "the certificate's policy does not allow this (403): iot:Publish on the "
                          "topic");
    } else if (class_of == VERDICT_BAD_DATA) {
        char what[80];
        snprintf(what, sizeof what, "IoT Core refuses the request (%d): topic, url", reply->status);
        verdict_say(ret_verdict, UPLINK_HOLD, reply, what);
    }
}
