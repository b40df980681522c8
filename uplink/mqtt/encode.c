#include "uplink/mqtt/mqtt.h"
#include "uplink/record.h"

#include <errno.h>

/* Reused from message to message of a batch. */
struct work {
    const struct mqtt_settings *settings;
    const struct batch *batch;
    struct record_writer writer;
    struct buffer topic, payload, origin;
};

/* {"deviceId":…,"timestamp":…,"readings":{…}} as in format = telemetry, and behind it what makes a
 * repeat known. */
static int write_telemetry(struct work *w, const struct batch_record *record)
{
    struct buffer *out = &w->payload;
    int r = out_names_use(&w->writer.names, record->names);
    if (r < 0) {
        return r;
    }
    out_literal(out, "{\"deviceId\":");
    json_write_string(out, record->names->device, strlen(record->names->device));
    out_literal(out, ",\"timestamp\":\"");
    char *at = out_room(out, OUT_NUMBER_MAX);
    if (at != NULL) {
        out_advance(out, out_time(at, record->scan->time_ms));
    }
    out_literal(out, "\",\"readings\":{");
    if (out_values(out, &w->writer.names, record, false) > 0) {
        out_literal(out, "},\"quality\":{");
        out_qualities(out, &w->writer.names, record);
    }
    out_literal(out, "},");
    /* The origin without its brace: "gateway", "store", "stream" and a comma. */
    out_bytes(out, w->origin.data + 1, w->origin.len - 1);
    if (record->scan->window_s != 0) {
        out_literal(out, "\"window_s\":");
        out_number(out, record->scan->window_s);
        out_literal(out, ",");
    }
    buffer_printf(out, "\"seq\":%llu}", (unsigned long long)record->scan->seq);
    return 0;
}

static int write_batch(struct work *w, const struct batch_record *records, size_t count)
{
    struct buffer *out = &w->payload;
    int r = 0;
    out_bytes(out, w->origin.data, w->origin.len);
    out_literal(out, "\"records\":[");
    for (size_t i = 0; i < count && r == 0; i++) {
        r = record_write(out, &w->writer, i == 0 ? "{" : ",{", i == 0 ? 1 : 2, &records[i]);
    }
    out_literal(out, "]}");
    return r;
}

static int write_payload(struct work *w, const struct batch_record *records, size_t count)
{
    switch (w->settings->payload) {
    case MQTT_TELEMETRY:
        return write_telemetry(w, records);
    case MQTT_RECORD:
        return record_write(&w->payload, &w->writer, (const char *)w->origin.data, w->origin.len,
                            records);
    default:
        return write_batch(w, records, count);
    }
}

/* How many records from `first` on go into one message. */
static size_t group(const struct work *w, size_t first)
{
    const struct batch *batch = w->batch;
    if (w->settings->payload != MQTT_BATCH) {
        return 1;
    }
    if (strstr(w->settings->topic, "{device}") == NULL) {
        return batch->count - first;
    }
    size_t n = 1;
    while (first + n < batch->count &&
           batch->records[first + n].scan->device == batch->records[first].scan->device) {
        n++;
    }
    return n;
}

static int add_message(struct work *w, size_t first, size_t count, struct buffer *body)
{
    const struct batch_record *records = w->batch->records + first;
    buffer_clear(&w->topic);
    buffer_clear(&w->payload);
    mqtt_write_topic(&w->topic, w->settings->topic, w->batch->gateway,
                     stream_name(w->batch->stream), records->names->device);
    int r = write_payload(w, records, count);
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
    record_write_origin(&w.origin, batch);
    int r = buffer_failed(&w.origin) ? -ENOMEM : 0;
    for (size_t i = 0, n; i < batch->count && r == 0; i += n) {
        n = group(&w, i);
        r = add_message(&w, i, n, &request->body);
    }
    record_writer_finish(&w.writer);
    buffer_finish(&w.topic);
    buffer_finish(&w.payload);
    buffer_finish(&w.origin);
    return r == 0 && buffer_failed(&request->body) ? -E2BIG : r;
}
