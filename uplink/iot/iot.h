/* iot.h - the inside of type `iot-https`: messages to AWS IoT Core by HTTPS instead of MQTT, for
 * sites whose network lets nothing else out.
 *
 * A request is one message, POST /topics/TOPIC?qos=1, with the certificate of the thing. Encoder
 * and judge are pure; the transport is that of HTTP, with IoT Core's own ALPN on port 443. */
#pragma once

#include "uplink/message.h"
#include "uplink/transport/transport.h"

struct iot_settings {
    struct transport_settings transport;
    const char *topic;
    int payload; /* enum message_form */
    int64_t max_payload;
};

enum { IOT_PAYLOAD_MAX = 128 * 1024 };
#define IOT_ALPN "x-amzn-http-ca"

/* What IoT Core's port 443 wants to hear, NULL: nothing beside HTTP's. */
const char *iot_alpn(const struct iot_settings *settings);

size_t iot_together(const void *settings, const struct batch *batch);
int iot_encode(const void *settings, const struct batch *batch, struct uplink_request *request);
/* Delivered is 200 with {"message":"OK","traceId":"..."}. */
void iot_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
               struct uplink_verdict *ret_verdict);

extern const struct uplink_probe iot_probe;
extern const struct uplink uplink_iot_https;
