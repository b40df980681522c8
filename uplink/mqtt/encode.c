#include "uplink/mqtt/mqtt.h"

#include <errno.h>

/* Reused from message to message of a batch. */
struct work {
    const struct mqtt_settings *settings;
    const struct batch *batch;
    struct message_writer writer;
    struct buffer topic, payload;
};

/* Events are what a control room calls alerts. */
static const char *topic_form(const struct work *w)
{
    const char *alerts = w->settings->alerts_topic;
    return w->batch->stream == STREAM_EVENT && alerts != NULL ? alerts : w->settings->topic;
}

static int add_message(struct work *w, size_t first, size_t count, struct buffer *body)
{
    buffer_clear(&w->topic);
    buffer_clear(&w->payload);
    mqtt_write_topic(&w->topic, topic_form(w), w->batch->gateway, stream_name(w->batch->stream),
                     w->batch->records[first].names->device);
    int r = message_write(&w->payload, &w->writer, w->settings->payload, w->batch, first, count);
    if (r < 0 || buffer_failed(&w->topic)) {
        return -ENOMEM;
    }
    if (buffer_failed(&w->payload) || w->payload.len > (size_t)w->settings->max_payload) {
        return -E2BIG;
    }
    mqtt_frame_add(body, &w->topic, &w->payload, count);
    return 0;
}

int mqtt_encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    struct work w = {.settings = settings, .batch = batch};
    w.payload.max = MQTT_REQUEST_MAX;
    request->body.max = MQTT_REQUEST_MAX;
    buffer_clear(&request->body);
    bool per_device = strstr(topic_form(&w), "{device}") != NULL;
    int r = 0;
    for (size_t i = 0, n; i < batch->count && r == 0; i += n) {
        n = message_group(batch, w.settings->payload, per_device, i);
        r = add_message(&w, i, n, &request->body);
    }
    message_writer_finish(&w.writer);
    buffer_finish(&w.topic);
    buffer_finish(&w.payload);
    return r == 0 && buffer_failed(&request->body) ? -E2BIG : r;
}
