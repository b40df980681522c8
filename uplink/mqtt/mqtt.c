#include "uplink/mqtt/commands.h"

/* What AWS takes for the names of things and shadows. */
#define SHADOW_NAME_BYTES "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_-"
enum { THING_NAME_MAX = 128, SHADOW_NAME_MAX = 64 };

#include "uplink/transport/keys.h"

#define KEY(field) offsetof(struct mqtt_settings, field)

static const char *const protocol_choices[] = {"5", "3.1.1", NULL};
static const char *const shadow_choices[] = {"off", "reported", "full", NULL};
static const char *const write_choices[] = {"off", "allow", NULL};

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
        .name = "device_status_topic",
        .type = CONFIG_TEXT,
        .offset = KEY(device_status_topic),
        .fallback = "sensors/{device}/status",
        .word = "off",
        .help = "says of each device whether it is online or lost (retained), or off",
    },
    {
        .name = "alerts_topic",
        .type = CONFIG_TEXT,
        .offset = KEY(alerts_topic),
        .fallback = "sensors/{device}/alerts",
        .word = "off",
        .help = "where events go (send = events); off: to `topic` as all others",
    },
    {
        .name = "command_topic",
        .type = CONFIG_TEXT,
        .offset = KEY(command_topic),
        .example = "windrow/{gateway}/commands/+",
        .help = "where commands come in, a filter: {\"id\",\"device\",\"point\",\"value\","
                "\"expires\"}; default: none do",
    },
    {
        .name = "reply_topic",
        .type = CONFIG_TEXT,
        .offset = KEY(reply_topic),
        .fallback = "windrow/{gateway}/replies",
        .help = "where each command is answered",
    },
    {
        .name = "shadow",
        .type = CONFIG_CHOICE,
        .offset = KEY(shadow),
        .fallback = "off",
        .choices = shadow_choices,
        .help = "AWS IoT shadow: reported keeps it up to date, full also does what is desired in "
                "it (state.desired.points.DEVICE.POINT)",
    },
    {
        .name = "thing",
        .type = CONFIG_TEXT,
        .offset = KEY(thing),
        .example = "borssele-1",
        .help = "the thing whose shadow it is; default: the client_id",
    },
    {
        .name = "shadow_name",
        .type = CONFIG_TEXT,
        .offset = KEY(shadow_name),
        .example = "windrow",
        .help = "a named shadow instead of the classic one",
    },
    {
        .name = "shadow_interval",
        .type = CONFIG_DURATION,
        .offset = KEY(shadow_interval_ms),
        .fallback = "1 min",
        .min = 1000,
        .max = 86400000,
        .help = "a changed state is reported at most so often; counters alone at each tenth of it",
    },
    {
        .name = "writes",
        .type = CONFIG_CHOICE,
        .offset = KEY(writes),
        .fallback = "off",
        .choices = write_choices,
        .help = "allow: commands and the shadow may write write_points, where [gateway] "
                "allow_writes is yes, too",
    },
    {
        .name = "write_points",
        .type = CONFIG_LIST,
        .offset = KEY(write_points),
        .example = "t*.pitch_sp",
        .help = "which points they may write, patterns over DEVICE.POINT",
    },
    {
        .name = "write_expiry",
        .type = CONFIG_DURATION,
        .offset = KEY(write_expiry_ms),
        .fallback = "2 min",
        .min = 5000,
        .max = REMOTE_HORIZON_MAX_MS,
        .help = "a command may be good for so long, a desired value is",
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
    TRANSPORT_PASSWORD_KEY(struct mqtt_settings, line, "/etc/windrow/mqtt"),
    TRANSPORT_CA_KEY(struct mqtt_settings, line),
    TRANSPORT_IDENTITY_KEYS(KEY(line.cert_file), KEY(line.key_file)),
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
        .offset = KEY(line.timeout_ms),
        .fallback = "30 s",
        .min = 1000,
        .max = 600000,
        .help = "longest wait for the next acknowledgement",
    },
    {
        .name = "connect_timeout",
        .type = CONFIG_DURATION,
        .offset = KEY(line.connect_timeout_ms),
        .fallback = "10 s",
        .min = 100,
        .max = 120000,
        .help = "longest time for name, connection, TLS handshake and greeting",
    },
};

static void check_topic(const char *key, const char *form, bool with_device, bool aws,
                        struct config_errors *errors)
{
    const char *fault = form != NULL ? mqtt_topic_fault(form, with_device, aws) : NULL;
    if (fault != NULL) {
        config_complain(errors, key, "'%.80s' %s", form, fault);
    }
}

static void check_topics(const struct mqtt_settings *s, bool aws, struct config_errors *errors)
{
    check_topic("topic", s->topic, true, aws, errors);
    check_topic("alerts_topic", s->alerts_topic, true, aws, errors);
    check_topic("status_topic", s->status_topic, false, aws, errors);
    check_topic("device_status_topic", s->device_status_topic, true, aws, errors);
    check_topic("reply_topic", s->reply_topic, false, aws, errors);
    if (s->payload != MQTT_BATCH && strstr(s->topic, "{device}") == NULL) {
        config_warn(errors, "topic", "has no {device}: all devices share one topic");
    }
    if (s->device_status_topic != NULL && strstr(s->device_status_topic, "{device}") == NULL) {
        config_complain(errors, "device_status_topic",
                        "needs {device}: a retained message is the last word of its topic");
    }
    const char *fault = s->command_topic != NULL ? mqtt_commands_fault(s, aws) : NULL;
    if (fault != NULL) {
        config_complain(errors, "command_topic", "'%.80s' %s", s->command_topic, fault);
    }
}

/* Commands and a shadow that does what is desired are the only ways to write from here. */
static void check_writes(const struct mqtt_settings *s, struct config_errors *errors)
{
    if (s->writes && s->write_points.count == 0) {
        config_complain(errors, "write_points", "is needed by `writes = allow`: which points?");
    }
    if (s->writes && s->command_topic == NULL && s->shadow != MQTT_SHADOW_FULL) {
        config_warn(errors, "writes",
                    "nothing can be written without command_topic or `shadow = full`");
    }
    if (!s->writes && (s->command_topic != NULL || s->shadow == MQTT_SHADOW_FULL)) {
        config_warn(errors, s->command_topic != NULL ? "command_topic" : "shadow",
                    "everything is refused without `writes = allow`");
    }
}

static void check_name(const char *key, const char *name, size_t max, struct config_errors *errors)
{
    if (name != NULL && (strlen(name) > max || name[strspn(name, SHADOW_NAME_BYTES)] != '\0')) {
        config_complain(errors, key, "is letters, digits, - _ : and at most %zu of them", max);
    }
}

static void check_shadow(const struct mqtt_settings *s, bool aws, struct config_errors *errors)
{
    check_name("thing", s->thing, THING_NAME_MAX, errors);
    check_name("shadow_name", s->shadow_name, SHADOW_NAME_MAX, errors);
    if (s->shadow != MQTT_SHADOW_OFF && s->protocol != MQTT_5 && !aws) {
        config_complain(errors, "shadow", "needs protocol = 5, which bounds what a broker sends");
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
    check_writes(s, errors);
    check_shadow(s, target.aws, errors);
    transport_files_check(s->line.ca_file, s->line.cert_file, s->line.key_file, errors);
    if (s->line.token.path != NULL && s->user == NULL) {
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
