/* kafka.h - the inside of type `kafka`: messages to a topic of Apache Kafka, keyed by device.
 *
 * A batch is encoded as frames, one a message; a reply holds Kafka's error code for each record,
 * that of the message it went in. Encoders and judge are pure. The transport is the sender's
 * thread's; librdkafka's own threads are seen by nobody else. Nothing outlives a producer in its
 * queue that our own store does not know to be undelivered. */
#pragma once

#include "uplink/message.h"
#include "uplink/transport/transport.h"

enum kafka_sasl { KAFKA_NO_SASL, KAFKA_PLAIN, KAFKA_SCRAM_256, KAFKA_SCRAM_512 };
enum kafka_stamp { KAFKA_STAMP_SENT, KAFKA_STAMP_SCAN };

struct kafka_settings {
    struct config_list brokers; /* HOST or HOST:PORT */
    const char *topic;
    const char *client_id; /* NULL: the gateway's name */
    bool tls;
    const char *user;
    struct transport_settings line; /* TLS files, times, and as its token the password */
    int sasl, format, stamp, compress;
    int64_t inflight, max_message;
};

enum {
    KAFKA_REQUEST_MAX = 8 * 1024 * 1024, /* bytes of a batch's messages */
    KAFKA_QUEUE_KIB = 16 * 1024,         /* of messages that librdkafka holds copies of */
    KAFKA_INFLIGHT_MAX = 100000,
    KAFKA_TOPIC_MAX = 249,     /* bytes, by Kafka's own rule */
    KAFKA_RECORD_ROOM = 1024,  /* of max_message, for what Kafka puts around a message */
    KAFKA_CAREFUL_FIRST = 500, /* messages that go one by one after a batch was too large */
    KAFKA_WORDS = 400,
};

/* Appends the template with {gateway}, {stream} and {device} filled in; what Kafka does not take in
 * a topic's name becomes '_'. encode.c */
void kafka_write_topic(struct buffer *out, const char *form, const char *gateway,
                       const char *stream, const char *device);
/* What is wrong with a template, NULL: nothing. */
const char *kafka_topic_fault(const char *form);

/* One message of a request's body. */
struct kafka_frame {
    const char *topic; /* NUL-terminated */
    const uint8_t *key, *payload;
    size_t key_len, len, records; /* how many of the batch's records are in it */
    int64_t time_ms;              /* of its first record */
};
/* The frame at *at, which moves on; false: there is none. */
bool kafka_frame_next(const struct buffer *body, size_t *at, struct kafka_frame *ret_frame);

int kafka_encode(const void *settings, const struct batch *batch, struct uplink_request *request);

/* In a reply's body an int16_t a record: a code of rd_kafka_resp_err_t, or one of these. */
enum { KAFKA_ACKNOWLEDGED = 0, KAFKA_UNACKNOWLEDGED = INT16_MIN };
void kafka_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                 struct uplink_verdict *ret_verdict);

/* One producer with its threads; producer.c. Everything is called by the sender's thread. */
struct kafka_producer;
struct kafka_producer_events {
    /* What came of a message; `message` is what kafka_producer_send() was given. */
    void (*answered)(void *user, void *message, int code);
};
/* password: as it is now, NULL: none. single: each message is a batch of its own on the wire.
 * -EINVAL: librdkafka does not take the settings, ret_words says why. Connecting goes on by itself.
 */
must_check int kafka_producer_create(const struct kafka_settings *settings, const char *gateway,
                                     const char *password, bool single,
                                     const struct kafka_producer_events *events, void *user,
                                     char ret_words[KAFKA_WORDS],
                                     struct kafka_producer **ret_producer);
/* Ends it beside the caller's thread: drop the errand. NULL: it ended at once. */
struct errand;
must_check struct errand *kafka_producer_bury(struct kafka_producer *p);

int kafka_producer_fd(const struct kafka_producer *p);
/* Hears what there is to hear. */
void kafka_producer_step(struct kafka_producer *p);
/* 0: taken, it will be answered. -EAGAIN: the queue is full; otherwise *ret_code says what is wrong
 * with it, -EINVAL. */
must_check int kafka_producer_send(struct kafka_producer *p, const struct kafka_settings *settings,
                                   const struct kafka_frame *frame, void *message, int *ret_code);
/* Since when nothing good will come of it, and no broker can be reached (CLOCK_MONOTONIC), 0: they
 * are well. A dead one still answers for what it has on the wire. */
int64_t kafka_producer_dead_since_ms(const struct kafka_producer *p);
int64_t kafka_producer_down_since_ms(const struct kafka_producer *p);
bool kafka_producer_single(const struct kafka_producer *p);
uint64_t kafka_producer_bytes_sent(const struct kafka_producer *p);
/* The first end of the certificates that brokers have shown, 0: there was none. */
int64_t kafka_producer_peer_until_ms(const struct kafka_producer *p);
/* The last trouble in words, "" for none, and its code. */
const char *kafka_producer_why(const struct kafka_producer *p, int *ret_code);

/* What the cluster says of itself and a topic; blocks for at most timeout_ms. */
struct kafka_description {
    int brokers, partitions;
    int topic_code; /* rd_kafka_resp_err_t */
};
/* -EIO: kafka_producer_why() says it. */
must_check int kafka_producer_describe(struct kafka_producer *p, const char *topic,
                                       int64_t timeout_ms, struct kafka_description *ret);

extern const struct uplink_probe kafka_probe;
extern const struct transport transport_kafka;
extern const struct uplink uplink_kafka;
