#include "drivers/coap/settings.h"

#include "drivers/coap/target.h"

#include <errno.h>
#include <string.h>

#define KEY(member) .offset = offsetof(struct coap_settings, member)

static const char *const modes[] = {"get", "observe", "listen", NULL};

static const struct config_key device_keys[] = {
    {.name = "address",
     .type = CONFIG_TEXT,
     KEY(address),
     .example = "coaps://10.1.0.50/senml",
     .help =
         "coap://HOST[:PORT]/PATH, or coaps:// with a key or certificates; not with mode listen"},
    {.name = "mode",
     .type = CONFIG_CHOICE,
     KEY(mode),
     .fallback = "get",
     .choices = modes,
     .help = "get: asked each poll; observe: it tells by itself; listen: it posts to us"},
    {.name = "psk_identity",
     .type = CONFIG_TEXT,
     KEY(psk_identity),
     .example = "gw1",
     .help = "who we are, for a pre-shared key"},
    {.name = "psk_file",
     .type = CONFIG_SECRET_FILE,
     KEY(psk),
     .example = "/etc/windrow/mast.psk",
     .help = "the pre-shared key: its text, or its bytes in hex behind 0x"},
    {.name = "ca_file",
     .type = CONFIG_FILE,
     KEY(ca_file),
     .example = "/etc/windrow/field-ca.pem",
     .help = "who vouches for the device's certificate; its name must be the host's"},
    {.name = "cert_file",
     .type = CONFIG_FILE,
     KEY(cert_file),
     .example = "/etc/windrow/gw.pem",
     .help = "our own certificate, where the device asks for one"},
    {.name = "key_file",
     .type = CONFIG_PRIVATE_FILE,
     KEY(key_file),
     .example = "/etc/windrow/gw.key",
     .help = "its key"},
    {.name = "grace",
     .type = CONFIG_DURATION,
     KEY(grace_ms),
     .fallback = "5 s",
     .min = 100,
     .max = 600e3,
     .help = "how long after Max-Age an observed device may be late before it is asked anew"},
    {.name = "keepalive",
     .type = CONFIG_DURATION,
     KEY(keepalive_ms),
     .fallback = "25 s",
     .min = 0,
     .max = 86400e3,
     .help = "an observed device is pinged after so much silence; 0 s: never"},
};

static void check_security(const struct coap_settings *settings, bool secure,
                           struct config_errors *errors)
{
    bool psk = settings->psk.text != NULL, certificates = settings->ca_file != NULL;
    uint8_t key[COAP_KEY_MAX];
    size_t len;
    if (!secure && (psk || certificates)) {
        config_complain(errors, "address", "keys and certificates need coaps://");
    }
    if (secure && psk == certificates) {
        config_complain(errors, "address", "coaps:// needs either psk_file or ca_file");
    }
    if (psk != (settings->psk_identity != NULL)) {
        config_complain(errors, "psk_identity", "psk_identity and psk_file go together");
    }
    if (psk && coap_parse_key(settings->psk.text, key, &len) != 0) {
        config_complain(errors, "psk_file", "a key is 1 to %d bytes, as text or in hex behind 0x",
                        COAP_KEY_MAX);
    }
    if (settings->psk_identity != NULL && strlen(settings->psk_identity) > COAP_IDENTITY_MAX) {
        config_complain(errors, "psk_identity", "is longer than %d bytes", COAP_IDENTITY_MAX);
    }
    if ((settings->cert_file != NULL) != (settings->key_file != NULL)) {
        config_complain(errors, "key_file", "cert_file and key_file go together");
    }
    if (settings->cert_file != NULL && !certificates) {
        config_complain(errors, "cert_file", "needs ca_file");
    }
}

static void check_settings(const void *data, struct config_errors *errors)
{
    const struct coap_settings *settings = data;
    struct target target;
    if (settings->mode == COAP_MODE_LISTEN) {
        if (settings->address != NULL) {
            config_complain(errors, "address", "a device that posts to us has no address");
        }
        if (settings->psk.text != NULL || settings->ca_file != NULL) {
            config_complain(errors, "mode",
                            "keys of devices that post stand in psks_file of [coap]");
        }
        return;
    }
    if (settings->address == NULL) {
        config_complain(errors, "address", "is missing; only mode = listen goes without");
        return;
    }
    if (target_parse(settings->address, &target) != 0) {
        config_complain(errors, "address", "'%.80s' is not coap://HOST[:PORT]/PATH or coaps://...",
                        settings->address);
        return;
    }
    check_security(settings, target.secure, errors);
}

const struct config_table coap_device_table = {
    .section = "device",
    .variant = "coap",
    .size = sizeof(struct coap_settings),
    .keys = device_keys,
    .key_count = ARRAY_SIZE(device_keys),
    .check = check_settings,
};

static const struct config_key section_keys[] = {
    {.name = "listen",
     .type = CONFIG_ENDPOINT,
     .offset = offsetof(struct coap_section, listen),
     .example = "127.0.0.1:5683",
     .help = "where devices with mode = listen post to, IP:PORT; coaps on the next port"},
    {.name = "psks_file",
     .type = CONFIG_SECRET_FILE,
     .offset = offsetof(struct coap_section, psks),
     .example = "/etc/windrow/coap.psks",
     .help = "lines IDENTITY DEVICE KEY: who may post as which device, over DTLS"},
};

static void check_section(const void *data, struct config_errors *errors)
{
    const struct coap_section *section = data;
    if (section->psks.text == NULL) {
        return;
    }
    if (section->listen == NULL) {
        config_complain(errors, "psks_file", "needs listen");
    }
    const char *text = section->psks.text;
    unsigned line = 0;
    struct coap_psk psk;
    int r;
    while ((r = coap_next_psk(&text, &line, &psk)) != -ENOENT) {
        if (r != 0) {
            config_complain(errors, "psks_file", "line %u is not IDENTITY DEVICE KEY", line);
        }
    }
}

const struct config_table coap_section_table = {
    .section = "coap",
    .size = sizeof(struct coap_section),
    .keys = section_keys,
    .key_count = ARRAY_SIZE(section_keys),
    .check = check_section,
};

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    return at == NULL ? -1 : (int)(at - digits);
}

int coap_parse_key(const char *text, uint8_t ret_key[COAP_KEY_MAX], size_t *ret_len)
{
    size_t len = strlen(text);
    if (strncmp(text, "0x", 2) != 0) {
        if (len == 0 || len > COAP_KEY_MAX) {
            return -EINVAL;
        }
        memcpy(ret_key, text, len);
        *ret_len = len;
        return 0;
    }
    if (len < 4 || len % 2 != 0 || len / 2 - 1 > COAP_KEY_MAX) {
        return -EINVAL;
    }
    for (size_t i = 2; i < len; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0) {
            return -EINVAL;
        }
        ret_key[i / 2 - 1] = (uint8_t)(high << 4 | low);
    }
    *ret_len = len / 2 - 1;
    return 0;
}

/* A word into a buffer of COAP_IDENTITY_MAX + 1, or -EINVAL. */
static int take_word(const char **at, const char *end, char *ret_word)
{
    while (*at < end && (**at == ' ' || **at == '\t' || **at == '\r')) {
        (*at)++;
    }
    size_t len = 0;
    while (*at < end && **at != ' ' && **at != '\t' && **at != '\r') {
        if (len >= COAP_IDENTITY_MAX * 2 + 2) {
            return -EINVAL;
        }
        ret_word[len++] = *(*at)++;
    }
    ret_word[len] = '\0';
    return len > 0 ? 0 : -EINVAL;
}

static int parse_psk(const char *at, const char *end, struct coap_psk *ret_psk)
{
    char words[3][COAP_IDENTITY_MAX * 2 + 3], rest[COAP_IDENTITY_MAX * 2 + 3];
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (take_word(&at, end, words[i]) != 0 || (i < 2 && strlen(words[i]) > COAP_IDENTITY_MAX)) {
            return -EINVAL;
        }
    }
    struct coap_psk psk = {0};
    memcpy(psk.identity, words[0], strlen(words[0]));
    memcpy(psk.device, words[1], strlen(words[1]));
    if (take_word(&at, end, rest) == 0 || coap_parse_key(words[2], psk.key, &psk.key_len) != 0) {
        return -EINVAL;
    }
    *ret_psk = psk;
    return 0;
}

int coap_next_psk(const char **text, unsigned *line, struct coap_psk *ret_psk)
{
    while (**text != '\0') {
        const char *at = *text, *end = at + strcspn(at, "\n");
        *text = *end == '\n' ? end + 1 : end;
        (*line)++;
        at += strspn(at, " \t\r");
        if (at < end && *at != '#' && *at != ';') {
            return parse_psk(at, end, ret_psk);
        }
    }
    return -ENOENT;
}

int coap_parse_point(const struct config_point *point, const void *settings, void *ret_address,
                     char *ret_why, size_t why_size)
{
    (void)settings;
    struct coap_point parsed = {0};
    const char *source = point->source;
    size_t word = strcspn(source, " \t");
    size_t rest = word + strspn(source + word, " \t");
    parsed.by_path = word == 4 && strncmp(source, "path", 4) == 0;
    bool by_name = word == 5 && strncmp(source, "senml", 5) == 0;
    if ((!parsed.by_path && !by_name) || source[rest] == '\0' ||
        source[rest + strcspn(source + rest, " \t")] != '\0') {
        snprintf(ret_why, why_size, "expected 'senml NAME' or 'path /PATH'");
        return -EINVAL;
    }
    struct target target;
    if (parsed.by_path && (source[rest] != '/' || target_parse_path(source + rest, &target) != 0)) {
        snprintf(ret_why, why_size, "'%.60s' is not /PATH or /PATH?QUERY", source + rest);
        return -EINVAL;
    }
    if (by_name && strlen(source + rest) > COAP_PATH_MAX) {
        snprintf(ret_why, why_size, "the name is longer than %d bytes", COAP_PATH_MAX);
        return -EINVAL;
    }
    parsed.offset = (uint16_t)rest;
    memcpy(ret_address, &parsed, sizeof(parsed));
    return 0;
}

void coap_check_device(const struct config_device *device, struct config_errors *errors)
{
    if (device->points.count == 0) {
        config_complain(errors, "driver", "the device has no points: nothing would be read");
    }
    for (size_t i = 0; i < device->points.count; i++) {
        if (device->points.list[i].writable) {
            char key[160];
            snprintf(key, sizeof(key), "point.%.140s", device->points.list[i].name);
            config_complain(errors, key, "a CoAP point cannot be written");
        }
    }
}

int coap_describe_plan(const struct config_device *device, struct buffer *ret_text)
{
    const struct coap_settings *settings = device->settings;
    const char *verb = settings->mode == COAP_MODE_OBSERVE ? "observe" : "GET";
    bool named = false;
    if (settings->mode == COAP_MODE_LISTEN) {
        buffer_printf(ret_text, "posts to us: %zu points\n", device->points.count);
        return buffer_failed(ret_text) ? -ENOMEM : 0;
    }
    for (size_t i = 0; i < device->points.count; i++) {
        if (coap_point(device, i)->by_path) {
            buffer_printf(ret_text, "%s %s: point %s", verb, coap_point_text(device, i),
                          device->points.list[i].name);
        } else if (!named) {
            named = true;
            buffer_printf(ret_text, "%s %s: SenML", verb, settings->address);
        } else {
            continue;
        }
        if (settings->mode == COAP_MODE_GET) {
            buffer_printf(ret_text, ", each %.3g s", (double)device->poll_ms / 1000);
        }
        buffer_add_text(ret_text, "\n");
    }
    return buffer_failed(ret_text) ? -ENOMEM : 0;
}
