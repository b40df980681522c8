#include "uplink/kafka/kafka.h"

#include <ctype.h>
#include <errno.h>

/* Before each message; a request never leaves this process, so it is the machine's own order. */
struct head {
    uint32_t topic_len, key_len, payload_len, records;
    int64_t time_ms;
};

/* Reused from message to message of a batch. */
struct work {
    const struct kafka_settings *settings;
    const struct batch *batch;
    struct message_writer writer;
    struct buffer topic, payload;
};

static const char *const names[] = {"{gateway}", "{stream}", "{device}"};

static size_t placeholder(const char *at)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strncmp(at, names[i], strlen(names[i])) == 0) {
            return i;
        }
    }
    return ARRAY_SIZE(names);
}

static bool is_legal(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

void kafka_write_topic(struct buffer *out, const char *form, const char *gateway,
                       const char *stream, const char *device)
{
    const char *const values[] = {gateway, stream, device};
    while (*form != '\0') {
        size_t which = *form == '{' ? placeholder(form) : ARRAY_SIZE(names);
        if (which >= ARRAY_SIZE(names)) {
            out_bytes(out, form++, 1);
            continue;
        }
        for (const char *at = values[which]; *at != '\0'; at++) {
            out_bytes(out, is_legal(*at) ? at : "_", 1);
        }
        form += strlen(names[which]);
    }
}

const char *kafka_topic_fault(const char *form)
{
    size_t len = strlen(form);
    if (len == 0 || len > KAFKA_TOPIC_MAX || strcmp(form, ".") == 0 || strcmp(form, "..") == 0) {
        return "is no topic: 1 to 249 characters";
    }
    for (const char *at = form; *at != '\0';) {
        size_t which = *at == '{' ? placeholder(at) : ARRAY_SIZE(names);
        if (which >= ARRAY_SIZE(names) && !is_legal(*at)) {
            return *at == '{' ? "knows {gateway}, {stream} and {device} only"
                              : "may hold letters, digits, '.', '_' and '-' only";
        }
        at += which < ARRAY_SIZE(names) ? strlen(names[which]) : 1;
    }
    return NULL;
}

static void add_frame(struct buffer *body, const struct work *w, const struct batch_record *first,
                      size_t records)
{
    const char *key = first->names->device;
    struct head head = {.topic_len = (uint32_t)w->topic.len,
                        .key_len = (uint32_t)strlen(key),
                        .payload_len = (uint32_t)w->payload.len,
                        .records = (uint32_t)records,
                        .time_ms = first->scan->time_ms};
    buffer_add(body, &head, sizeof head);
    buffer_add(body, w->topic.data, w->topic.len);
    buffer_add_byte(body, '\0');
    buffer_add(body, key, head.key_len);
    buffer_add(body, w->payload.data, w->payload.len);
}

bool kafka_frame_next(const struct buffer *body, size_t *at, struct kafka_frame *ret_frame)
{
    struct head head;
    if (body->len - *at < sizeof head) {
        return false;
    }
    memcpy(&head, body->data + *at, sizeof head);
    const uint8_t *topic = body->data + *at + sizeof head;
    const uint8_t *key = topic + head.topic_len + 1;
    *ret_frame = (struct kafka_frame){.topic = (const char *)topic,
                                      .key = key,
                                      .key_len = head.key_len,
                                      .payload = key + head.key_len,
                                      .len = head.payload_len,
                                      .records = head.records,
                                      .time_ms = head.time_ms};
    *at += sizeof head + head.topic_len + 1 + head.key_len + head.payload_len;
    return true;
}

static int add_message(struct work *w, size_t first, size_t count, struct buffer *body)
{
    const struct batch_record *record = &w->batch->records[first];
    const char *device = record->names->device;
    buffer_clear(&w->topic);
    buffer_clear(&w->payload);
    kafka_write_topic(&w->topic, w->settings->topic, w->batch->gateway,
                      stream_name(w->batch->stream), device);
    int r = message_write(&w->payload, &w->writer, w->settings->format, w->batch, first, count);
    if (r < 0 || buffer_failed(&w->topic)) {
        return -ENOMEM;
    }
    size_t size = w->payload.len + strlen(device) + KAFKA_RECORD_ROOM;
    if (buffer_failed(&w->payload) || size > (size_t)w->settings->max_message) {
        return -E2BIG;
    }
    add_frame(body, w, record, count);
    return 0;
}

int kafka_encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    struct work w = {.settings = settings, .batch = batch};
    w.payload.max = KAFKA_REQUEST_MAX;
    request->body.max = KAFKA_REQUEST_MAX;
    buffer_clear(&request->body);
    int r = 0;
    for (size_t i = 0, n; i < batch->count && r == 0; i += n) {
        n = message_group(batch, w.settings->format, true, i);
        r = add_message(&w, i, n, &request->body);
    }
    message_writer_finish(&w.writer);
    buffer_finish(&w.topic);
    buffer_finish(&w.payload);
    return r == 0 && buffer_failed(&request->body) ? -E2BIG : r;
}
