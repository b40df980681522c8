#include "drivers/http/http_keys.h"

#include "drivers/http/json_pointer.h"
#include "uplink/transport/transport.h"

#include <errno.h>
#include <string.h>

#define KEY(member) .offset = offsetof(struct http_device_settings, member)

static const char *const modes[] = {"pull", "listen", NULL};

static const struct config_key keys[] = {
    {.name = "mode",
     .type = CONFIG_CHOICE,
     KEY(mode),
     .fallback = "pull",
     .choices = modes,
     .help = "pull asks a JSON API; with listen the device posts to POST /sensor of [api]"},
    {.name = "url",
     .type = CONFIG_URL,
     KEY(url),
     .example = "https://api.example.com/weather?q=Borssele",
     .help = "what is asked for; plain http for loopback addresses only"},
    {.name = "token_file",
     .type = CONFIG_SECRET_FILE,
     KEY(token),
     .example = "/etc/windrow/weather.token",
     .help = "file with the bearer token"},
    {.name = "ca_file",
     .type = CONFIG_FILE,
     KEY(ca_file),
     .example = "/etc/windrow/ca.pem",
     .help = "certificates that may vouch for the server, instead of the system's"},
    {.name = "cert_file",
     .type = CONFIG_FILE,
     KEY(cert_file),
     .example = "/etc/windrow/gw.pem",
     .help = "this gateway's certificate (mutual TLS)"},
    {.name = "key_file",
     .type = CONFIG_PRIVATE_FILE,
     KEY(key_file),
     .example = "/etc/windrow/gw.key",
     .help = "the key of cert_file, without a passphrase"},
    {.name = "time",
     .type = CONFIG_TEXT,
     KEY(time),
     .example = "/observed_at",
     .help = "JSON pointer to when the values were taken; an unchanged time brings nothing new"},
};

static void check_pull(const struct http_device_settings *settings, struct config_errors *errors)
{
    int r = settings->url == NULL ? 0 : transport_url_check(settings->url);
    const char *why;
    if (settings->url == NULL) {
        config_complain(errors, "url", "is required in mode pull");
    } else if (r < 0) {
        config_complain(errors, "url",
                        r == -EPERM ? "plain http is taken for loopback addresses only; use https"
                                    : "is no http or https URL");
    }
    if ((settings->cert_file == NULL) != (settings->key_file == NULL)) {
        config_complain(errors, settings->cert_file == NULL ? "key_file" : "cert_file",
                        "cert_file and key_file go together");
    }
    if (settings->time != NULL && json_pointer_check(settings->time, &why) < 0) {
        config_complain(errors, "time", "%s", why);
    }
}

static void check_settings(const void *data, struct config_errors *errors)
{
    const struct http_device_settings *settings = data;
    if (settings->mode == HTTP_MODE_PULL) {
        check_pull(settings, errors);
        return;
    }
    const struct {
        const char *name;
        bool given;
    } pulls[] = {
        {"url", settings->url != NULL},           {"token_file", settings->token.path != NULL},
        {"ca_file", settings->ca_file != NULL},   {"cert_file", settings->cert_file != NULL},
        {"key_file", settings->key_file != NULL}, {"time", settings->time != NULL}};
    for (size_t i = 0; i < ARRAY_SIZE(pulls); i++) {
        if (pulls[i].given) {
            config_complain(errors, pulls[i].name, "belongs to mode pull, not to mode listen");
        }
    }
}

const struct config_table http_device_table = {
    .section = "device",
    .variant = "http",
    .size = sizeof(struct http_device_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check_settings,
};

int http_parse_point(const struct config_point *point, const void *data, void *ret_address,
                     char *ret_why, size_t why_size)
{
    const struct http_device_settings *settings = data;
    static const char word[] = "json";
    const char *rest = point->source + sizeof word - 1;
    const char *why = "expected 'json', or 'json /pointer/to/the/value'";
    bool is_json = strncmp(point->source, word, sizeof word - 1) == 0 &&
                   (*rest == '\0' || *rest == ' ' || *rest == '\t');
    rest += is_json ? strspn(rest, " \t") : 0;
    int r = is_json ? json_pointer_check(rest, &why) : -EINVAL;
    if (r == 0 && settings->mode == HTTP_MODE_LISTEN && rest[0] != '\0' &&
        strcmp(rest + 1, point->name) != 0) {
        why = "in mode listen a point is named as in what the device posts: 'json' is enough";
        r = -EINVAL;
    }
    if (r == 0 && (point->has_invalid || point->order != NULL)) {
        why = "`invalid` and `order` are for registers; in JSON a missing value is null";
        r = -EINVAL;
    }
    if (r == 0 && point->writable) {
        why = "a point of driver http cannot be written";
        r = -EINVAL;
    }
    if (r < 0) {
        snprintf(ret_why, why_size, "%s", why);
        return r;
    }
    const struct http_point address = {.pointer = rest};
    memcpy(ret_address, &address, sizeof address);
    return 0;
}

void http_check_device(const struct config_device *device, struct config_errors *errors)
{
    if (device->points.count == 0) {
        config_complain(errors, "driver", "the device has no points: nothing would be read");
    }
    const struct http_device_settings *settings = device->settings;
    for (size_t i = 0; i < device->points.count && settings->mode == HTTP_MODE_LISTEN; i++) {
        const char *name = device->points.list[i].name;
        if (strcmp(name, "location") == 0 || strcmp(name, "time") == 0) {
            char key[80];
            snprintf(key, sizeof key, "point.%.64s", name);
            config_complain(errors, key, "this name says where and when in what the device posts");
        }
    }
}

int http_describe_plan(const struct config_device *device, struct buffer *ret_text)
{
    const struct http_device_settings *settings = device->settings;
    if (settings->mode == HTTP_MODE_LISTEN) {
        buffer_printf(ret_text, "waits for POST /sensor with \"location\":\"%s\"\n", device->name);
    } else {
        buffer_printf(ret_text, "GET %s for %zu point%s, each %.3g s\n", settings->url,
                      device->points.count, device->points.count == 1 ? "" : "s",
                      (double)device->poll_ms / 1000);
    }
    return buffer_failed(ret_text) ? -ENOMEM : 0;
}
