#include "uplink/iot/iot.h"

#include "uplink/mqtt/mqtt.h"
#include "uplink/transport/keys.h"

#include <errno.h>

#define KEY(field) offsetof(struct iot_settings, field)

static const struct config_key keys[] = {
    {
        .name = "url",
        .type = CONFIG_URL,
        .offset = KEY(transport.url),
        .required = true,
        .example = "https://abc-ats.iot.eu-west-1.amazonaws.com:8443",
        .help = "IoT Core's data endpoint, port 8443 or 443",
    },
    {
        .name = "topic",
        .type = CONFIG_TEXT,
        .offset = KEY(topic),
        .fallback = "sensors/{device}/telemetry",
        .help = "where messages go: {gateway}, {stream}, {device}; Basic Ingest: $aws/rules/NAME/",
    },
    {
        .name = "payload",
        .type = CONFIG_CHOICE,
        .offset = KEY(payload),
        .fallback = "batch",
        .choices = message_form_choices,
        .help = "what a message (a request) holds: one scan, one record, or many of a device",
    },
    {
        .name = "max_payload",
        .type = CONFIG_SIZE,
        .offset = KEY(max_payload),
        .fallback = "128 KiB",
        .min = 1024,
        .max = IOT_PAYLOAD_MAX,
        .help = "largest message; IoT Core takes 128 KB",
    },
    {
        .name = "alpn",
        .type = CONFIG_TEXT,
        .offset = KEY(transport.alpn),
        .example = IOT_ALPN,
        .help = "what to ask for in the TLS handshake; default: this for AWS on port 443",
    },
    TRANSPORT_TLS_KEYS(struct iot_settings, transport),
    TRANSPORT_LINE_KEYS(struct iot_settings, transport),
};

static void check(const void *settings, struct config_errors *errors)
{
    const struct iot_settings *s = settings;
    transport_settings_check(&s->transport, errors);
    if (s->transport.cert_file == NULL && s->transport.key_file == NULL) {
        config_complain(errors, "cert_file", "IoT Core knows a gateway by its certificate");
    }
    const char *fault = mqtt_topic_fault(s->topic, true, true);
    if (fault != NULL) {
        config_complain(errors, "topic", "'%.80s' %s", s->topic, fault);
    }
    if (s->transport.alpn != NULL &&
        (s->transport.alpn[0] == '\0' || strlen(s->transport.alpn) > TRANSPORT_ALPN_MAX)) {
        config_complain(errors, "alpn", "is to be 1 to %d bytes", TRANSPORT_ALPN_MAX);
    }
}

static const struct config_table table = {
    .section = "uplink",
    .variant = "iot-https",
    .size = sizeof(struct iot_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const char *iot_alpn(const struct iot_settings *settings)
{
    const char *url = settings->transport.url;
    size_t host = strcspn(url, ":") + 3, end = host + strcspn(url + host, "/");
    auto_buffer struct buffer text = {0};
    buffer_add(&text, url + host, end - host);
    const char *authority = buffer_text(&text);
    if (settings->transport.alpn != NULL || authority == NULL) {
        return settings->transport.alpn;
    }
    const char *aws = strstr(authority, ".amazonaws.com");
    const char *port = strrchr(authority, ':');
    return aws != NULL && (port == NULL || strcmp(port, ":443") == 0) ? IOT_ALPN : NULL;
}

/* That of HTTP, with settings of its own. */
struct iot_transport {
    struct transport_settings settings;
    void *http;
};

static void destroy(void *state)
{
    struct iot_transport *t = state;
    if (t != NULL && t->http != NULL) {
        transport_http.destroy(t->http);
    }
    free(t);
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    const struct iot_settings *s = settings;
    struct iot_transport *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->settings = s->transport;
    t->settings.alpn = iot_alpn(s);
    int r = transport_http.create(&t->settings, gateway, parallel, &t->http);
    if (r < 0) {
        destroy(t);
        return r;
    }
    *ret_state = t;
    return 0;
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    return transport_http.send(((struct iot_transport *)state)->http, request, done, user);
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    return transport_http.run(((struct iot_transport *)state)->http, wake_fd, timeout_ms);
}

static uint64_t bytes_sent(const void *state)
{
    return transport_http.bytes_sent(((const struct iot_transport *)state)->http);
}

static void warning(const void *state, char *words, size_t size)
{
    transport_http.warning(((const struct iot_transport *)state)->http, words, size);
}

static const struct transport transport_iot = {
    .name = "iot-https",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
};

static size_t records_limit(const void *settings)
{
    const struct iot_settings *s = settings;
    return s->payload == MESSAGE_BATCH ? SIZE_MAX : 1;
}

const struct uplink uplink_iot_https = {
    .name = "iot-https",
    .table = &table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = IOT_PAYLOAD_MAX,
    .records_limit = records_limit,
    .together = iot_together,
    .encode = iot_encode,
    .judge = iot_judge,
    .transport = &transport_iot,
    .probe = &iot_probe,
};
