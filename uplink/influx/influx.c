#include "uplink/influx/influx.h"

#include "uplink/transport/keys.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define KEY(field) offsetof(struct influx_settings, field)

enum { TOKEN_MAX = 4096 };

static const char *const version_choices[] = {"v1", "v2", "v3", NULL};
/* InfluxDB knows no other than gzip. */
static const char *const compress_choices[] = {"none", "gzip", NULL};

static const struct config_key keys[] = {
    {
        .name = "url",
        .type = CONFIG_URL,
        .offset = KEY(transport.url),
        .required = true,
        .example = "https://influx.example.com:8086",
        .help = "the server, with its port; a path in it replaces the edition's own",
    },
    {
        .name = "version",
        .type = CONFIG_CHOICE,
        .offset = KEY(version),
        .required = true,
        .choices = version_choices,
        .example = "v2",
        .help = "edition of the write endpoint: /write, /api/v2/write, /api/v3/write_lp",
    },
    {
        .name = "org",
        .type = CONFIG_TEXT,
        .offset = KEY(org),
        .example = "wind",
        .help = "organisation, with version = v2",
    },
    {
        .name = "bucket",
        .type = CONFIG_TEXT,
        .offset = KEY(bucket),
        .example = "readings",
        .help = "bucket, with version = v2",
    },
    {
        .name = "db",
        .type = CONFIG_TEXT,
        .offset = KEY(db),
        .example = "wind",
        .help = "database, with version = v1 or v3",
    },
    {
        .name = "measurement",
        .type = CONFIG_TEXT,
        .offset = KEY(measurement),
        .fallback = "readings",
        .help = "measurement (table) that lines go to",
    },
    {
        .name = "token_file",
        .type = CONFIG_SECRET_FILE,
        .offset = KEY(transport.token),
        .example = "/etc/windrow/influx.token",
        .help = "file with the token; with version = v1 also user:password",
    },
    TRANSPORT_COMPRESS_KEY(struct influx_settings, transport, "gzip", compress_choices),
    TRANSPORT_TLS_KEYS(struct influx_settings, transport),
    TRANSPORT_LINE_KEYS(struct influx_settings, transport),
};

static void check_names(const struct influx_settings *s, struct config_errors *errors)
{
    if (s->version == INFLUX_V2) {
        if (s->bucket == NULL) {
            config_complain(errors, "bucket", "is needed with version = v2");
        }
        if (s->org == NULL) {
            config_complain(errors, "org", "is needed with version = v2");
        }
        if (s->db != NULL) {
            config_complain(errors, "db", "is for v1 and v3; v2 takes org and bucket");
        }
    } else {
        if (s->db == NULL) {
            config_complain(errors, "db", "is needed with version = v1 or v3");
        }
        if (s->bucket != NULL || s->org != NULL) {
            config_complain(errors, s->bucket != NULL ? "bucket" : "org",
                            "is for v2; v1 and v3 take db");
        }
    }
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct influx_settings *s = settings;
    transport_settings_check(&s->transport, errors);
    check_names(s, errors);
    struct uplink_request request;
    if (s->transport.url != NULL && influx_write_path(s, request.path, sizeof request.path) < 0) {
        config_complain(errors, s->version == INFLUX_V2 ? "bucket" : "db",
                        "is too long for the address of a request");
    }
    if (s->measurement != NULL && s->measurement[0] == '\0') {
        config_complain(errors, "measurement", "must not be empty");
    }
    if (s->transport.token.text != NULL && strlen(s->transport.token.text) > TOKEN_MAX) {
        config_complain(errors, "token_file", "holds more than %d bytes", (int)TOKEN_MAX);
    }
}

const struct config_table influx_config_table = {
    .section = "uplink",
    .variant = "influx",
    .size = sizeof(struct influx_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

static void add_parameter(struct buffer *to, char mark, const char *name, const char *value)
{
    if (value == NULL) {
        return;
    }
    buffer_printf(to, "%c%s=", mark, name);
    for (const char *at = value; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (isalnum(c) || strchr("-_.~", c) != NULL) {
            buffer_add_byte(to, c);
        } else {
            buffer_printf(to, "%%%02X", c);
        }
    }
}

int influx_write_path(const struct influx_settings *s, char *path, size_t size)
{
    static const char *const paths[] = {
        [INFLUX_V1] = "/write", [INFLUX_V2] = "/api/v2/write", [INFLUX_V3] = "/api/v3/write_lp"};
    auto_buffer struct buffer text = {.max = size - 1};
    const char *host = strstr(s->transport.url, "://");
    host = host != NULL ? host + 3 : s->transport.url;
    const char *given = strpbrk(host, "/?");
    if (given == NULL || strcmp(given, "/") == 0) {
        buffer_add_text(&text, paths[s->version] + (given != NULL ? 1 : 0));
    }
    char mark = given != NULL && strchr(given, '?') != NULL ? '&' : '?';
    add_parameter(&text, mark, "precision", s->version == INFLUX_V3 ? "nanosecond" : "ns");
    add_parameter(&text, '&', "org", s->org);
    add_parameter(&text, '&', "bucket", s->bucket);
    add_parameter(&text, '&', "db", s->db);
    const char *done = buffer_text(&text);
    if (done == NULL) {
        return -ENAMETOOLONG;
    }
    snprintf(path, size, "%s", done);
    return 0;
}

enum uplink_token influx_token(const struct influx_settings *s)
{
    static const enum uplink_token kinds[] = {[INFLUX_V1] = UPLINK_TOKEN_LOGIN,
                                              [INFLUX_V2] = UPLINK_TOKEN_TOKEN,
                                              [INFLUX_V3] = UPLINK_TOKEN_BEARER};
    return kinds[s->version];
}

static const struct transport_settings *transport_settings(const void *settings)
{
    return &((const struct influx_settings *)settings)->transport;
}

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    const struct influx_settings *s = settings;
    request->body.max = INFLUX_REQUEST_MAX;
    buffer_clear(&request->body);
    buffer_clear(&request->headers);
    request->content_type = "text/plain; charset=utf-8";
    request->token = influx_token(s);
    request->compressible = true;
    int r = influx_write_path(s, request->path, sizeof request->path);
    r = r < 0 ? r : influx_encode_lines(s->measurement, batch, &request->body);
    if (r < 0) {
        return r;
    }
    return buffer_failed(&request->body) || request->body.len > INFLUX_REQUEST_MAX ? -E2BIG : 0;
}

const struct uplink uplink_influx = {
    .name = "influx",
    .table = &influx_config_table,
    .max_records = INFLUX_RECORDS_MAX,
    .max_bytes = INFLUX_REQUEST_MAX,
    .encode = encode,
    .judge = influx_judge,
    .transport = &transport_http,
    .transport_settings = transport_settings,
    .probe = &influx_probe,
};
