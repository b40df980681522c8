#include "uplink/mqtt/mqtt.h"

#include "uplink/transport/transport.h"

#define KEY(field) offsetof(struct mqtt_settings, field)

static const char *const protocol_choices[] = {"5", "3.1.1", NULL};

static const struct config_key keys[] = {
    {
        .name = "url",
        .type = CONFIG_URL,
        .offset = KEY(url),
        .required = true,
        .example = "mqtts://broker.example.com:8883",
        .help = "the broker; plain mqtt for loopback addresses only",
    },
    {
        .name = "topic",
        .type = CONFIG_TEXT,
        .offset = KEY(topic),
        .fallback = "sensors/{device}/telemetry",
        .help = "where messages go; {gateway}, {stream} and {device} are filled in",
    },
    {
        .name = "status_topic",
        .type = CONFIG_TEXT,
        .offset = KEY(status_topic),
        .fallback = "sensors/{gateway}/status",
        .word = "off",
        .help = "says online and, by the last will, offline (retained), or off",
    },
    {
        .name = "payload",
        .type = CONFIG_CHOICE,
        .offset = KEY(payload),
        .fallback = "telemetry",
        .choices = message_form_choices,
        .help = "what a message holds: one scan, one record of format = batch, or many of them",
    },
    {
        .name = "client_id",
        .type = CONFIG_TEXT,
        .offset = KEY(client_id),
        .example = "borssele-1",
        .help = "who we are to the broker (AWS: the thing); default: the gateway's name",
    },
    {
        .name = "user",
        .type = CONFIG_TEXT,
        .offset = KEY(user),
        .example = "windrow",
        .help = "user, where the broker wants one",
    },
    {
        .name = "password_file",
        .type = CONFIG_SECRET_FILE,
        .offset = KEY(password),
        .example = "/etc/windrow/mqtt",
        .help = "file with the user's password",
    },
    {
        .name = "ca_file",
        .type = CONFIG_FILE,
        .offset = KEY(ca_file),
        .example = "/etc/windrow/ca.pem",
        .help = "certificates that may vouch for the broker, instead of the system's",
    },
    {
        .name = "cert_file",
        .type = CONFIG_FILE,
        .offset = KEY(cert_file),
        .example = "/etc/windrow/gw.pem",
        .help = "this gateway's certificate (mutual TLS)",
    },
    {
        .name = "key_file",
        .type = CONFIG_PRIVATE_FILE,
        .offset = KEY(key_file),
        .example = "/etc/windrow/gw.key",
        .help = "the key of cert_file, without a passphrase",
    },
    {
        .name = "alpn",
        .type = CONFIG_TEXT,
        .offset = KEY(alpn),
        .example = "x-amzn-mqtt-ca",
        .help = "what to ask for in the TLS handshake; default: this for AWS IoT on port 443",
    },
    {
        .name = "protocol",
        .type = CONFIG_CHOICE,
        .offset = KEY(protocol),
        .fallback = "5",
        .choices = protocol_choices,
        .help = "version of MQTT; in 3.1.1 a broker cannot say that it refuses a message",
    },
    {
        .name = "inflight",
        .type = CONFIG_INT,
        .offset = KEY(inflight),
        .fallback = "100",
        .min = 1,
        .max = MQTT_INFLIGHT_MAX,
        .help = "messages that the broker has not yet acknowledged",
    },
    {
        .name = "publish_rate",
        .type = CONFIG_INT,
        .offset = KEY(publish_rate),
        .fallback = "auto",
        .min = 1,
        .max = 1e6,
        .word = "auto",
        .help = "messages a second; auto: 100 for AWS IoT, otherwise no limit",
    },
    {
        .name = "max_payload",
        .type = CONFIG_SIZE,
        .offset = KEY(max_payload),
        .fallback = "128 KiB",
        .min = 1024,
        .max = MQTT_REQUEST_MAX / 2.0,
        .help = "largest message; AWS IoT takes 128 KB",
    },
    {
        .name = "keep_alive",
        .type = CONFIG_DURATION,
        .offset = KEY(keep_alive_ms),
        .fallback = "60 s",
        .min = 5000,
        .max = 1200000,
        .help = "longest silence before the broker is asked whether it is there",
    },
    {
        .name = "timeout",
        .type = CONFIG_DURATION,
        .offset = KEY(timeout_ms),
        .fallback = "30 s",
        .min = 1000,
        .max = 600000,
        .help = "longest wait for the next acknowledgement",
    },
    {
        .name = "connect_timeout",
        .type = CONFIG_DURATION,
        .offset = KEY(connect_timeout_ms),
        .fallback = "10 s",
        .min = 100,
        .max = 120000,
        .help = "longest time for name, connection, TLS handshake and greeting",
    },
};

static void check_topics(const struct mqtt_settings *s, bool aws, struct config_errors *errors)
{
    const char *fault = mqtt_topic_fault(s->topic, true, aws);
    if (fault != NULL) {
        config_complain(errors, "topic", "'%.80s' %s", s->topic, fault);
    }
    if (s->payload != MQTT_BATCH && strstr(s->topic, "{device}") == NULL) {
        config_warn(errors, "topic", "has no {device}: all devices share one topic");
    }
    fault = s->status_topic != NULL ? mqtt_topic_fault(s->status_topic, false, aws) : NULL;
    if (fault != NULL) {
        config_complain(errors, "status_topic", "'%.80s' %s", s->status_topic, fault);
    }
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct mqtt_settings *s = settings;
    struct mqtt_target target = {0};
    if (s->url != NULL && !mqtt_target_parse(s->url, &target)) {
        config_complain(errors, "url", "is no mqtts://HOST or mqtts://HOST:PORT");
    } else if (s->url != NULL && !target.tls && !target.local) {
        config_complain(errors, "url",
                        "plain mqtt is taken for loopback addresses only; use mqtts");
    }
    check_topics(s, target.aws, errors);
    if ((s->cert_file != NULL) != (s->key_file != NULL)) {
        config_complain(errors, s->cert_file != NULL ? "cert_file" : "key_file", "needs %s, too",
                        s->cert_file != NULL ? "key_file" : "cert_file");
    }
    transport_expiry_check(s->ca_file, s->cert_file, errors);
    if (s->password.path != NULL && s->user == NULL) {
        config_complain(errors, "password_file", "needs user, too");
    }
    if (s->protocol == MQTT_3_1_1) {
        config_warn(errors, "protocol",
                    "in 3.1.1 a broker acknowledges what it then drops for want of rights");
    }
}

static const struct config_table table = {
    .section = "uplink",
    .variant = "mqtt",
    .size = sizeof(struct mqtt_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

/* A message a scan: few enough in a request that a lost connection repeats little. */
static size_t records_limit(const void *settings)
{
    const struct mqtt_settings *s = settings;
    return s->payload == MQTT_BATCH ? SIZE_MAX : MQTT_MESSAGES_MAX;
}

const struct uplink uplink_mqtt = {
    .name = "mqtt",
    .table = &table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = MQTT_REQUEST_MAX,
    .records_limit = records_limit,
    .encode = mqtt_encode,
    .judge = mqtt_judge,
    .transport = &transport_mqtt,
    .probe = &mqtt_probe,
};
