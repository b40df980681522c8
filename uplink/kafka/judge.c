#include "uplink/kafka/kafka.h"
#include "uplink/verdict.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>

/* What is not named passes: the message is sent again. REJECTED is about the message itself. */
static const struct {
    int code;
    enum uplink_outcome outcome;
    const char *words; /* NULL: librdkafka's own */
} codes[] = {
    {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, UPLINK_REJECTED,
     "the topic takes no message as large as this: max.message.bytes of the topic, max_message"},
    {RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, UPLINK_REJECTED, NULL},
    {RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, UPLINK_REJECTED, NULL},
    {RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, UPLINK_REJECTED,
     "the topic does not take readings of that age: timestamp = sent"},
    {RD_KAFKA_RESP_ERR_INVALID_RECORD, UPLINK_REJECTED, NULL},
    {RD_KAFKA_RESP_ERR_POLICY_VIOLATION, UPLINK_REJECTED, NULL},
    {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, UPLINK_HOLD,
     "the cluster has no such topic and makes none by itself: topic"},
    {RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, UPLINK_HOLD,
     "the cluster has no such topic and makes none by itself: topic"},
    {RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, UPLINK_RETRY, NULL},
    {RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, UPLINK_HOLD, "the cluster does not take that name: topic"},
    {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, UPLINK_HOLD,
     "we may not write to that topic: rights of the user or certificate, topic"},
    {RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, UPLINK_HOLD,
     "we may not write idempotently: right IdempotentWrite of the user or certificate"},
    {RD_KAFKA_RESP_ERR__AUTHENTICATION, UPLINK_HOLD,
     "the broker does not let us in: user, password_file, sasl"},
    {RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, UPLINK_HOLD,
     "the broker does not let us in: user, password_file, sasl"},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, UPLINK_HOLD,
     "the broker does not know this way to log in: sasl"},
    {RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE, UPLINK_HOLD, "the broker wants no login: sasl"},
    {RD_KAFKA_RESP_ERR_SECURITY_DISABLED, UPLINK_HOLD, "the broker wants no login: sasl"},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE, UPLINK_HOLD,
     "the cluster is too old for this compression: compress"},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, UPLINK_HOLD,
     "the topic keeps messages in an old form: message.format.version of the topic"},
    {RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION, UPLINK_HOLD, "the cluster is too old (Kafka 0.11)"},
    {RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, UPLINK_HOLD, "the cluster is too old (Kafka 0.11)"},
    {RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, UPLINK_HOLD, NULL},
    {RD_KAFKA_RESP_ERR_INVALID_CONFIG, UPLINK_HOLD, NULL},
    {RD_KAFKA_RESP_ERR__INVALID_ARG, UPLINK_HOLD, NULL},
    {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, UPLINK_RETRY,
     "the topic has fewer replicas alive than it wants (min.insync.replicas)"},
};

static enum uplink_outcome outcome_of(int code, const char **ret_words)
{
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (codes[i].code == code) {
            *ret_words = codes[i].words != NULL ? codes[i].words
                                                : rd_kafka_err2str((rd_kafka_resp_err_t)code);
            return codes[i].outcome;
        }
    }
    *ret_words = rd_kafka_err2str((rd_kafka_resp_err_t)code);
    return UPLINK_RETRY;
}

/* Refused as a whole: our words, and behind them those that came with the code. */
static void judge_code(int code, const char *said, struct uplink_verdict *verdict)
{
    const char *words;
    enum uplink_outcome outcome = outcome_of(code, &words);
    *verdict = (struct uplink_verdict){
        .outcome = outcome == UPLINK_HOLD ? UPLINK_HOLD : UPLINK_RETRY, .retry_after_ms = -1};
    if (outcome == UPLINK_HOLD && said[0] != '\0') {
        snprintf(verdict->why, sizeof verdict->why, "%s (%.110s)", words, said);
    } else {
        snprintf(verdict->why, sizeof verdict->why, "%.190s", said[0] != '\0' ? said : words);
    }
}

static int code_at(const struct uplink_reply *reply, size_t i)
{
    int16_t code;
    memcpy(&code, reply->body + i * sizeof code, sizeof code);
    return code;
}

static int sort_record(const struct batch *batch, const struct uplink_reply *reply, size_t i,
                       struct uplink_verdict *verdict)
{
    int code = code_at(reply, i);
    const char *words = reply->error;
    if (code == KAFKA_ACKNOWLEDGED) {
        return 0;
    }
    if (code != KAFKA_UNACKNOWLEDGED && outcome_of(code, &words) == UPLINK_REJECTED) {
        return verdict_reject(verdict, batch, i, words, strlen(words));
    }
    return verdict_put_off(verdict, batch, i, words, strlen(words));
}

/* The first code of a record for which settings must be mended, 0: there is none. */
static int first_hold(const struct batch *batch, const struct uplink_reply *reply)
{
    const char *words;
    for (size_t i = 0; i < batch->count; i++) {
        int code = code_at(reply, i);
        if (code != KAFKA_UNACKNOWLEDGED && outcome_of(code, &words) == UPLINK_HOLD) {
            return code;
        }
    }
    return 0;
}

void kafka_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                 struct uplink_verdict *ret_verdict)
{
    (void)settings;
    if (reply->code != NULL) {
        judge_code((int)strtol(reply->code, NULL, 10), reply->error, ret_verdict);
        return;
    }
    enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
    if (class_of != VERDICT_SUCCESS) {
        if (ret_verdict->outcome == UPLINK_SPLIT) {
            snprintf(ret_verdict->why, sizeof ret_verdict->why,
                     "the topic takes smaller messages only: max.message.bytes, max_message");
        } else if (class_of == VERDICT_BAD_DATA) { /* not said by our transport */
            verdict_say(ret_verdict, UPLINK_RETRY, reply, "an answer that nobody understands");
        }
        return;
    }
    int r = reply->len == batch->count * sizeof(int16_t) ? 0 : -EBADMSG;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = sort_record(batch, reply, i, ret_verdict);
    }
    if (r < 0) {
        verdict_forget(ret_verdict);
        ret_verdict->outcome = UPLINK_RETRY;
        snprintf(ret_verdict->why, sizeof ret_verdict->why,
                 "the delivery reports do not fit the batch");
        return;
    }
    int hold = ret_verdict->rejected_count == batch->count ? first_hold(batch, reply) : 0;
    verdict_delivered(ret_verdict, batch);
    if (hold != 0 && ret_verdict->outcome == UPLINK_RETRY) {
        judge_code(hold, "", ret_verdict);
    }
}
