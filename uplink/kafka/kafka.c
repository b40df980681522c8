#include "uplink/kafka/kafka.h"

#include "uplink/transport/keys.h"

#define KEY(field) offsetof(struct kafka_settings, field)

static const char *const sasl_choices[] = {"none", "plain", "scram-sha-256", "scram-sha-512", NULL};
static const char *const stamp_choices[] = {"sent", "scan", NULL};

static const struct config_key keys[] = {
    {
        .name = "brokers",
        .type = CONFIG_LIST,
        .offset = KEY(brokers),
        .required = true,
        .example = "kafka1.example.com:9093 kafka2.example.com:9093",
        .help = "brokers to ask first, HOST:PORT; they name all others of the cluster",
    },
    {
        .name = "topic",
        .type = CONFIG_TEXT,
        .offset = KEY(topic),
        .fallback = "windrow.{stream}",
        .help = "where messages go; {gateway}, {stream} and {device} are filled in",
    },
    {
        .name = "format",
        .type = CONFIG_CHOICE,
        .offset = KEY(format),
        .fallback = "telemetry",
        .choices = message_form_choices,
        .help = "what a message holds: one scan, one record of format = batch, or many of a device",
    },
    {
        .name = "timestamp",
        .type = CONFIG_CHOICE,
        .offset = KEY(stamp),
        .fallback = "sent",
        .choices = stamp_choices,
        .help = "a message's time; with scan the topic's retention may drop a backlog at once",
    },
    {
        .name = "client_id",
        .type = CONFIG_TEXT,
        .offset = KEY(client_id),
        .example = "borssele-1",
        .help = "who we are in the brokers' logs and quotas; default: the gateway's name",
    },
    {
        .name = "tls",
        .type = CONFIG_BOOL,
        .offset = KEY(tls),
        .fallback = "yes",
        .help = "no is taken for loopback addresses only",
    },
    {
        .name = "sasl",
        .type = CONFIG_CHOICE,
        .offset = KEY(sasl),
        .fallback = "none",
        .choices = sasl_choices,
        .help = "how user and password_file are shown to the brokers",
    },
    {
        .name = "user",
        .type = CONFIG_TEXT,
        .offset = KEY(user),
        .example = "windrow",
        .help = "user, with sasl",
    },
    TRANSPORT_PASSWORD_KEY(struct kafka_settings, line, "/etc/windrow/kafka"),
    TRANSPORT_TLS_KEYS(struct kafka_settings, line),
    {
        .name = "compress",
        .type = CONFIG_CHOICE,
        .offset = KEY(compress),
        .fallback = "zstd",
        .choices = transport_compress_choices,
        .help = "compression of batches of messages; zstd needs Kafka 2.1",
    },
    {
        .name = "inflight",
        .type = CONFIG_INT,
        .offset = KEY(inflight),
        .fallback = "10000",
        .min = 1,
        .max = KAFKA_INFLIGHT_MAX,
        .help = "messages that the cluster has not yet acknowledged",
    },
    {
        .name = "max_message",
        .type = CONFIG_SIZE,
        .offset = KEY(max_message),
        .fallback = "960 KiB",
        .min = 4096,
        .max = KAFKA_REQUEST_MAX / 2.0,
        .help = "largest message, and batch of them; at most the topic's max.message.bytes",
    },
    {
        .name = "timeout",
        .type = CONFIG_DURATION,
        .offset = KEY(line.timeout_ms),
        .fallback = "60 s",
        .min = 1000,
        .max = 300000,
        .help = "longest wait for the next acknowledgement",
    },
    {
        .name = "connect_timeout",
        .type = CONFIG_DURATION,
        .offset = KEY(line.connect_timeout_ms),
        .fallback = "10 s",
        .min = 1000,
        .max = 120000,
        .help = "longest time for connection and TLS handshake, and for a broker to come back",
    },
};

/* HOST, HOST:PORT, [V6] or [V6]:PORT; what is no such thing counts as somewhere else. */
static bool is_loopback(const char *broker)
{
    char host[64];
    size_t len = broker[0] == '[' ? strcspn(broker, "]") + 1 : strcspn(broker, ":");
    if (len >= sizeof host) {
        return false;
    }
    memcpy(host, broker, len);
    host[len] = '\0';
    return transport_is_loopback(host);
}

/* Whether it is HOST or HOST:PORT, V6 addresses in brackets. */
static bool is_broker(const char *broker)
{
    const char *host = broker[0] == '[' ? strchr(broker, ']') : broker;
    const char *colon = host != NULL ? strchr(host, ':') : NULL;
    char *end = NULL;
    long port = colon != NULL ? strtol(colon + 1, &end, 10) : 1;
    return host != NULL && colon != broker && port > 0 && port <= 65535 &&
           (end == NULL || *end == '\0') && strpbrk(broker, ",/@") == NULL;
}

static void check_brokers(const struct kafka_settings *s, struct config_errors *errors)
{
    for (size_t i = 0; i < s->brokers.count; i++) {
        const char *broker = s->brokers.items[i];
        if (!is_broker(broker)) {
            config_complain(errors, "brokers", "'%.80s' is no HOST:PORT", broker);
        } else if (!s->tls && !is_loopback(broker)) {
            config_complain(errors, "tls", "'%.80s' is not on this machine: tls = yes is needed",
                            broker);
        }
    }
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct kafka_settings *s = settings;
    check_brokers(s, errors);
    const char *fault = kafka_topic_fault(s->topic);
    if (fault != NULL) {
        config_complain(errors, "topic", "'%.80s' %s", s->topic, fault);
    }
    transport_files_check(s->line.ca_file, s->line.cert_file, s->line.key_file, errors);
    bool sasl = s->sasl != KAFKA_NO_SASL;
    if (sasl && (s->user == NULL || s->line.token.path == NULL)) {
        config_complain(errors, "sasl", "needs user and password_file, too");
    } else if (!sasl && (s->user != NULL || s->line.token.path != NULL)) {
        config_complain(errors, s->user != NULL ? "user" : "password_file",
                        "is of no use without sasl");
    }
}

static const struct config_table table = {
    .section = "uplink",
    .variant = "kafka",
    .size = sizeof(struct kafka_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const struct uplink uplink_kafka = {
    .name = "kafka",
    .table = &table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = KAFKA_REQUEST_MAX,
    .encode = kafka_encode,
    .judge = kafka_judge,
    .transport = &transport_kafka,
    .probe = &kafka_probe,
};
