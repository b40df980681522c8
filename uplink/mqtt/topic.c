#include "uplink/mqtt/mqtt.h"

#include <arpa/inet.h>

static bool is_local(const char *host)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    return strcmp(host, "::1") == 0 || strcasecmp(host, "localhost") == 0;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t len = strlen(text), n = strlen(ending);
    return len >= n && strcasecmp(text + len - n, ending) == 0;
}

/* HOST, HOST:PORT, [V6] or [V6]:PORT; the key's type has checked that port and host are such. */
bool mqtt_target_parse(const char *url, struct mqtt_target *ret_target)
{
    struct mqtt_target t = {.tls = strncasecmp(url, "mqtts://", 8) == 0};
    if (!t.tls && strncasecmp(url, "mqtt://", 7) != 0) {
        return false;
    }
    const char *host = url + (t.tls ? 8 : 7);
    size_t authority = strcspn(host, "/?#");
    if (host[authority] != '\0' && strcmp(host + authority, "/") != 0) {
        return false; /* MQTT has no paths */
    }
    const char *end = host + authority, *port = NULL;
    if (host[0] == '[') {
        const char *close = memchr(host, ']', authority);
        if (close == NULL) {
            return false;
        }
        host++;
        port = close[1] == ':' ? close + 2 : NULL;
        end = close;
    } else {
        const char *colon = memchr(host, ':', authority);
        port = colon != NULL ? colon + 1 : NULL;
        end = colon != NULL ? colon : end;
    }
    size_t len = (size_t)(end - host);
    if (len == 0 || len >= sizeof t.host) {
        return false;
    }
    memcpy(t.host, host, len);
    long number = port != NULL ? strtol(port, NULL, 10) : t.tls ? 8883 : 1883;
    t.port = (int)number;
    t.local = is_local(t.host);
    t.aws = ends_with(t.host, ".amazonaws.com") || ends_with(t.host, ".amazonaws.com.cn");
    *ret_target = t;
    return number > 0 && number <= 65535;
}

static const char *const names[] = {"{gateway}", "{stream}", "{device}"};

static size_t placeholder(const char *at)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strncmp(at, names[i], strlen(names[i])) == 0) {
            return i;
        }
    }
    return ARRAY_SIZE(names);
}

static void add_name(struct buffer *out, const char *text)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + strlen(text);
    while (at < end) {
        size_t n = utf8_length(at, (size_t)(end - at));
        if (n == 0 || *at < ' ' || *at == 0x7f || strchr("/+#", (char)*at) != NULL) {
            out_literal(out, "_");
            at++;
        } else {
            out_bytes(out, at, n);
            at += n;
        }
    }
}

void mqtt_write_topic(struct buffer *out, const char *form, const char *gateway, const char *stream,
                      const char *device)
{
    const char *const values[] = {gateway, stream, device};
    while (*form != '\0') {
        size_t which = *form == '{' ? placeholder(form) : ARRAY_SIZE(names);
        if (which < ARRAY_SIZE(names)) {
            add_name(out, values[which] != NULL ? values[which] : "");
            form += strlen(names[which]);
        } else {
            out_bytes(out, form++, 1);
        }
    }
}

/* Slashes count from behind the rule's name in Basic Ingest, $aws/rules/RULE/... */
static size_t slashes(const char *form)
{
    static const char basic[] = "$aws/rules/";
    size_t n = 0;
    if (strncmp(form, basic, sizeof basic - 1) == 0) {
        const char *rest = strchr(form + sizeof basic - 1, '/');
        form = rest != NULL ? rest + 1 : "";
    }
    for (; *form != '\0'; form++) {
        n += *form == '/';
    }
    return n;
}

const char *mqtt_topic_fault(const char *form, bool with_device, bool aws)
{
    for (const char *at = strchr(form, '{'); at != NULL; at = strchr(at + 1, '{')) {
        size_t which = placeholder(at);
        if (which >= ARRAY_SIZE(names)) {
            return with_device ? "knows {gateway}, {stream} and {device} only"
                               : "knows {gateway} only";
        }
        if (which > 0 && !with_device) {
            return "is one for the whole gateway: it knows {gateway} only";
        }
    }
    if (form[0] == '\0' || strpbrk(form, "+#") != NULL) {
        return "is not to be empty, nor to hold + or #";
    }
    if (strlen(form) > MQTT_TOPIC_MAX) {
        return "is longer than 256 bytes";
    }
    return aws && slashes(form) > MQTT_AWS_SLASHES
               ? "has more than the 7 slashes that AWS IoT takes"
               : NULL;
}
