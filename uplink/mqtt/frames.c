#include "uplink/mqtt/mqtt.h"

/* Before each message; a request never leaves this process, so it is the machine's own order. */
struct head {
    uint32_t topic_len, payload_len, records;
};

void mqtt_frame_add(struct buffer *body, const struct buffer *topic, const struct buffer *payload,
                    size_t records)
{
    struct head head = {.topic_len = (uint32_t)topic->len,
                        .payload_len = (uint32_t)payload->len,
                        .records = (uint32_t)records};
    buffer_add(body, &head, sizeof head);
    buffer_add(body, topic->data, topic->len);
    buffer_add_byte(body, '\0');
    buffer_add(body, payload->data, payload->len);
}

bool mqtt_frame_next(const struct buffer *body, size_t *at, struct mqtt_frame *ret_frame)
{
    struct head head;
    if (body->len - *at < sizeof head) {
        return false;
    }
    memcpy(&head, body->data + *at, sizeof head);
    const uint8_t *topic = body->data + *at + sizeof head;
    *ret_frame = (struct mqtt_frame){.topic = (const char *)topic,
                                     .payload = topic + head.topic_len + 1,
                                     .len = head.payload_len,
                                     .records = head.records};
    *at += sizeof head + head.topic_len + 1 + head.payload_len;
    return true;
}
