/* mqtt.h - the inside of type `mqtt`: messages of QoS 1 to a broker or to AWS IoT Core.
 *
 * A batch is encoded as frames, one a message; a reply holds one byte a record, which says whether
 * the broker has acknowledged the message it went in. Encoders and judge are pure. The transport is
 * the sender's thread's: it keeps at most `inflight` messages unacknowledged, and nothing outlives
 * the connection in libmosquitto, because our own store knows what was delivered. */
#pragma once

#include "uplink/message.h"
#include "uplink/transport/transport.h"

enum mqtt_payload {
    MQTT_TELEMETRY = MESSAGE_TELEMETRY,
    MQTT_RECORD = MESSAGE_RECORD,
    MQTT_BATCH = MESSAGE_BATCH,
};
enum mqtt_protocol { MQTT_5, MQTT_3_1_1 };
enum mqtt_shadow { MQTT_SHADOW_OFF, MQTT_SHADOW_REPORTED, MQTT_SHADOW_FULL };

struct mqtt_settings {
    const char *url, *topic, *alerts_topic;         /* alerts_topic NULL: as topic */
    const char *status_topic, *device_status_topic; /* NULL: off */
    const char *command_topic, *reply_topic;        /* command_topic NULL: no commands */
    const char *thing, *shadow_name;                /* NULL: the client_id; the classic shadow */
    int shadow, writes;
    struct config_list write_points; /* globs over DEVICE.POINT */
    int64_t write_expiry_ms, shadow_interval_ms;
    const char *client_id; /* NULL: the gateway's name */
    const char *user, *alpn;
    struct transport_settings line; /* TLS files, times, and as its token the password */
    int payload, protocol;
    int64_t inflight, max_payload;
    int64_t publish_rate; /* messages a second, 0: no limit, -1: as the broker is known to take */
    int64_t keep_alive_ms;
};

/* AWS IoT Core's quotas: 128 KB a payload, 100 publishes a second and 100 unacknowledged ones a
 * connection, 256 bytes and 7 slashes a topic. */
enum {
    MQTT_REQUEST_MAX = 8 * 1024 * 1024, /* bytes of a batch's messages */
    MQTT_MESSAGES_MAX = 100,            /* in a request */
    MQTT_INFLIGHT_MAX = 1000,
    MQTT_AWS_RATE = 100,
    MQTT_AWS_SLASHES = 7,
    MQTT_TOPIC_MAX = 256,
    MQTT_WORDS = 280,
    MQTT_INCOMING_MAX = 64 * 1024, /* bytes of a packet that a broker may send us (MQTT 5) */
    MQTT_NOTES_INFLIGHT = 8,       /* of side.h, beside the messages of batches */
};

/* Where `url` points; false: it is no mqtt:// or mqtts:// URL. topic.c */
struct mqtt_target {
    char host[256];
    int port;
    bool tls, local, aws; /* local: nothing leaves this machine */
};
bool mqtt_target_parse(const char *url, struct mqtt_target *ret_target);

/* Appends the template with {gateway}, {stream} and {device} filled in; what would change the
 * topic's levels or is no text in the names becomes '_'. No NUL. stream and device may be NULL
 * where the template has none of them. */
void mqtt_write_topic(struct buffer *out, const char *form, const char *gateway, const char *stream,
                      const char *device);
/* What is wrong with a template, NULL: nothing. aws: IoT Core's rules as well. */
const char *mqtt_topic_fault(const char *form, bool with_device, bool aws);

/* One message of a request's body. frames.c */
struct mqtt_frame {
    const char *topic; /* NUL-terminated */
    const uint8_t *payload;
    size_t len, records; /* how many of the batch's records are in it */
    bool retain;
};
void mqtt_frame_add(struct buffer *body, const struct buffer *topic, const struct buffer *payload,
                    size_t records);
/* The frame at *at, which moves on; false: there is none. */
bool mqtt_frame_next(const struct buffer *body, size_t *at, struct mqtt_frame *ret_frame);

int mqtt_encode(const void *settings, const struct batch *batch, struct uplink_request *request);

/* In a reply's body, a byte a record; otherwise a reason code of MQTT 5 (0x80 and above). */
enum { MQTT_ACKNOWLEDGED = 0, MQTT_UNACKNOWLEDGED = 1 };
void mqtt_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                struct uplink_verdict *ret_verdict);

extern const struct transport transport_mqtt;
extern const struct uplink_probe mqtt_probe;
extern const struct uplink uplink_mqtt;
