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

struct mqtt_settings {
    const char *url, *topic, *status_topic; /* status_topic NULL: off */
    const char *client_id;                  /* NULL: the gateway's name */
    const char *user, *ca_file, *cert_file, *key_file, *alpn;
    struct config_secret password;
    int payload, protocol;
    int64_t inflight, max_payload;
    int64_t publish_rate; /* messages a second, 0: no limit, -1: as the broker is known to take */
    int64_t keep_alive_ms, timeout_ms, connect_timeout_ms;
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

/* One connection; link.c. Everything is called by the sender's thread. */
struct mqtt_link;
struct mqtt_link_events {
    void (*acknowledged)(void *user, int message, int reason);
};
/* Begins to connect beside the caller's thread. */
must_check int mqtt_link_create(const struct mqtt_settings *settings, const char *gateway,
                                const struct mqtt_link_events *events, void *user,
                                struct mqtt_link **ret_link);
/* The dial that has not ended yet, to be dropped by the caller; NULL: it has. */
struct errand;
must_check struct errand *mqtt_link_take_dial(struct mqtt_link *link);
/* Tells the broker to announce that we left, where one is connected. */
void mqtt_link_destroy(struct mqtt_link *link);

enum mqtt_link_state { MQTT_DIALLING, MQTT_GREETING, MQTT_UP, MQTT_DOWN };
enum mqtt_link_state mqtt_link_state(const struct mqtt_link *link);
int mqtt_link_fd(const struct mqtt_link *link);
short mqtt_link_wants(const struct mqtt_link *link);
/* Does what revents of mqtt_link_fd() allow, and the keep-alive. */
void mqtt_link_step(struct mqtt_link *link, short revents);
/* 0: *ret_message will be acknowledged; -E2BIG: larger than the broker takes; -EINVAL: the topic
 * is none; -ENOTCONN: it is down now. */
must_check int mqtt_link_publish(struct mqtt_link *link, const struct mqtt_frame *frame,
                                 int *ret_message);
/* Why it is down: in words; *ret_reason is the broker's reason code, 0: it gave none. contested:
 * another client seems to use our client_id. */
const char *mqtt_link_why(const struct mqtt_link *link, int *ret_reason, bool *ret_contested);
/* A reason code in words. */
const char *mqtt_reason_words(int reason);

extern const struct transport transport_mqtt;
extern const struct uplink_probe mqtt_probe;
extern const struct uplink uplink_mqtt;
