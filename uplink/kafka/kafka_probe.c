#include "uplink/kafka/kafka.h"
#include "uplink/probe/probe.h"
#include "uplink/transport/errand.h"

#include <librdkafka/rdkafka.h>

static void before(struct probe *probe)
{
    probe_secret(probe, "password", &((const struct kafka_settings *)probe->settings)->line.token);
}

/* The first of the brokers; librdkafka asks the others, too. */
static bool target(const void *settings, struct probe_target *ret_target)
{
    enum { PORT = 9092 };
    const struct kafka_settings *s = settings;
    const char *broker = s->brokers.items[0];
    const char *host = broker[0] == '[' ? broker + 1 : broker;
    size_t len = strcspn(host, broker[0] == '[' ? "]" : ":");
    const char *colon = strchr(host + len, ':');
    *ret_target = (struct probe_target){.port = colon != NULL ? (int)strtol(colon + 1, NULL, 10)
                                                              : PORT,
                                        .tls = s->tls,
                                        .ca_file = s->line.ca_file,
                                        .crl_file = s->line.crl_file,
                                        .cert_file = s->line.cert_file,
                                        .key_file = s->line.key_file,
                                        .timeout_ms = s->line.connect_timeout_ms};
    snprintf(ret_target->host, sizeof ret_target->host, "%.*s", (int)len, host);
    return ret_target->port > 0;
}

static const char *mend_of(int code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
        return "compare sasl, user and password_file with the cluster's";
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return "grant the user or certificate IdempotentWrite on the cluster";
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        return "grant the user or certificate Describe and Write on the topic";
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return "make the topic, or let the cluster do so (auto.create.topics.enable)";
    default:
        return "is it Kafka that listens there, and on a port for what tls and sasl say?";
    }
}

static void say(struct probe *probe, const char *topic, const struct kafka_description *d)
{
    if (d->topic_code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        probe_say(probe, "topic", PROBE_BAD, mend_of(d->topic_code), "%s: %s", topic,
                  rd_kafka_err2str((rd_kafka_resp_err_t)d->topic_code));
    } else {
        probe_say(probe, "topic", PROBE_GOOD, NULL, "%s has %d partitions, on %d brokers", topic,
                  d->partitions, d->brokers);
    }
}

static void ask(struct probe *probe)
{
    static const struct kafka_producer_events none;
    const struct kafka_settings *s = probe->settings;
    auto_buffer struct buffer name = {0};
    kafka_write_topic(&name, s->topic, probe->gateway, "raw", "DEVICE");
    const char *topic = buffer_text(&name);
    char words[KAFKA_WORDS] = "no memory";
    struct kafka_producer *p = NULL;
    struct kafka_description d;
    probe_begin(probe);
    if (topic == NULL || kafka_producer_create(s, probe->gateway, s->line.token.text, false, &none,
                                               NULL, words, &p) < 0) {
        probe_say(probe, "topic", PROBE_BAD, "ca_file, cert_file, key_file: are they PEM?", "%s",
                  words);
        return;
    }
    int code = 0;
    if (kafka_producer_describe(p, topic, s->line.connect_timeout_ms, &d) == 0) {
        say(probe, topic, &d);
    } else {
        const char *why = kafka_producer_why(p, &code);
        probe_say(probe, "topic", PROBE_BAD, mend_of(code), "%s",
                  why[0] != '\0' ? why : "the brokers do not answer");
    }
    errand_drop(kafka_producer_bury(p));
}

const struct uplink_probe kafka_probe = {.before = before, .target = target, .ask = ask};
