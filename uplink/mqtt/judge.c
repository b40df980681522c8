#include "uplink/mqtt/link.h"
#include "uplink/verdict.h"

#include <mqtt_protocol.h>

/* What the broker wants to be told differently, rather than later. */
static bool wants_other_settings(int reason)
{
    switch (reason) {
    case MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION:
    case MQTT_RC_CLIENTID_NOT_VALID:
    case MQTT_RC_BAD_USERNAME_OR_PASSWORD:
    case MQTT_RC_NOT_AUTHORIZED:
    case MQTT_RC_BANNED:
    case MQTT_RC_BAD_AUTHENTICATION_METHOD:
    case MQTT_RC_TOPIC_NAME_INVALID:
    case MQTT_RC_RETAIN_NOT_SUPPORTED:
    case MQTT_RC_QOS_NOT_SUPPORTED:
    case MQTT_RC_USE_ANOTHER_SERVER:
    case MQTT_RC_SERVER_MOVED:
        return true;
    default:
        return false;
    }
}

static bool refuses_data(int reason)
{
    return reason == MQTT_RC_PAYLOAD_FORMAT_INVALID || reason == MQTT_RC_PACKET_TOO_LARGE;
}

/* Refused as a whole: the connection, or what the broker said when it ended it. */
static void judge_reason(int reason, const char *words, struct uplink_verdict *verdict)
{
    *verdict = (struct uplink_verdict){
        .outcome = wants_other_settings(reason) ? UPLINK_HOLD : UPLINK_RETRY, .retry_after_ms = -1};
    snprintf(verdict->why, sizeof verdict->why, "%.190s", words);
}

static int sort_record(const struct batch *batch, const struct uplink_reply *reply, size_t i,
                       struct uplink_verdict *verdict)
{
    int reason = (uint8_t)reply->body[i];
    if (reason == MQTT_ACKNOWLEDGED) {
        return 0;
    }
    if (refuses_data(reason)) {
        const char *words = mqtt_reason_words(reason);
        return verdict_reject(verdict, batch, i, words, strlen(words));
    }
    const char *words = reason == MQTT_UNACKNOWLEDGED ? reply->error : mqtt_reason_words(reason);
    return verdict_put_off(verdict, batch, i, words, strlen(words));
}

void mqtt_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                struct uplink_verdict *ret_verdict)
{
    (void)settings;
    if (reply->code != NULL) {
        judge_reason((int)strtol(reply->code, NULL, 0), reply->error, ret_verdict);
        return;
    }
    if (verdict_by_status(reply, ret_verdict) != VERDICT_SUCCESS) {
        return;
    }
    int r = reply->len == batch->count ? 0 : -1, first = MQTT_ACKNOWLEDGED;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = sort_record(batch, reply, i, ret_verdict);
        first = first == MQTT_ACKNOWLEDGED ? (uint8_t)reply->body[i] : first;
    }
    if (r < 0) {
        verdict_forget(ret_verdict);
        verdict_say(ret_verdict, UPLINK_RETRY, reply, "the acknowledgements do not fit the batch");
        return;
    }
    bool all = ret_verdict->rejected_count == batch->count;
    if (all && first == MQTT_RC_NOT_AUTHORIZED) {
        /* That is about these topics, not the connection: each is put off by itself. */
        ret_verdict->outcome = UPLINK_DELIVERED;
        snprintf(ret_verdict->why, sizeof ret_verdict->why, "%s", mqtt_reason_words(first));
    } else if (all && wants_other_settings(first)) {
        verdict_forget(ret_verdict);
        judge_reason(first, mqtt_reason_words(first), ret_verdict);
    } else {
        verdict_delivered(ret_verdict, batch);
    }
}
