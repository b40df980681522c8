#include "uplink/s3/s3.h"

#include "uplink/transport/keys.h"

#include <ctype.h>
#include <errno.h>

#define KEY(field) offsetof(struct s3_settings, field)

static const char *const style_choices[] = {"auto", "host", "path", NULL};

static const struct config_key keys[] = {
    AWS_CONFIG_KEYS(struct s3_settings, aws),
    {
        .name = "bucket",
        .type = CONFIG_TEXT,
        .offset = KEY(bucket),
        .required = true,
        .example = "wind-archive",
        .help = "name of the bucket; a batch is an object: batch_records, batch_interval",
    },
    {
        .name = "prefix",
        .type = CONFIG_TEXT,
        .offset = KEY(prefix),
        .fallback = "gateway={gateway}/stream={stream}/date={date}",
        .help = "what keys begin with; also {device}, {hour}, {year}, {month}, {day}",
    },
    {
        .name = "style",
        .type = CONFIG_CHOICE,
        .offset = KEY(style),
        .fallback = "auto",
        .choices = style_choices,
        .help = "where the bucket stands in the URL; auto: in the host name, with endpoint path",
    },
    {
        .name = "compress",
        .type = CONFIG_CHOICE,
        .offset = KEY(compress),
        .fallback = "gzip",
        .choices = transport_compress_choices,
        .help = "compression of the objects, newline-delimited JSON",
    },
    {
        .name = "storage_class",
        .type = CONFIG_TEXT,
        .offset = KEY(storage_class),
        .example = "STANDARD_IA",
        .help = "storage class of the objects; default: the bucket's own",
    },
    TRANSPORT_TLS_KEYS(struct s3_settings, aws.transport),
    TRANSPORT_LINE_KEYS(struct s3_settings, aws.transport),
};

/* Lower-case letters, digits, '-' and '.'; older buckets of one region may have more. */
static bool is_bucket(const char *name)
{
    size_t len = strlen(name);
    for (const char *at = name; *at != '\0'; at++) {
        if (!islower((unsigned char)*at) && !isdigit((unsigned char)*at) && *at != '-' &&
            *at != '.') {
            return false;
        }
    }
    return len >= 3 && len <= S3_BUCKET_MAX && isalnum((unsigned char)name[0]) &&
           isalnum((unsigned char)name[len - 1]) && strstr(name, "..") == NULL;
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct s3_settings *s = settings;
    char url[AWS_URL_MAX];
    aws_settings_check(&s->aws, errors);
    if (s->bucket != NULL && !is_bucket(s->bucket)) {
        config_complain(errors, "bucket", "'%.80s' is no name of a bucket", s->bucket);
    } else if (s->bucket != NULL && s->aws.region != NULL && s3_url(s, url) < 0) {
        config_complain(errors, "endpoint", "is too long with the bucket's name in it");
    }
    const char *fault = s3_prefix_fault(s->prefix);
    if (fault != NULL) {
        config_complain(errors, "prefix", "'%.130s' %s", s->prefix, fault);
    }
    for (const char *at = s->storage_class != NULL ? s->storage_class : ""; *at != '\0'; at++) {
        if (!isupper((unsigned char)*at) && *at != '_') {
            config_complain(errors, "storage_class", "is none, such as STANDARD_IA");
            break;
        }
    }
}

const struct config_table s3_config_table = {
    .section = "uplink",
    .variant = "s3",
    .size = sizeof(struct s3_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

/* The transport for AWS with the bucket's own URL. */
struct s3_transport {
    struct aws_settings settings;
    char url[AWS_URL_MAX];
    void *aws;
};

static void destroy(void *state)
{
    struct s3_transport *t = state;
    if (t != NULL) {
        aws_transport_destroy(t->aws);
        free(t);
    }
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    static const struct aws_service service = {
        .signing_name = "s3", .host = "s3", .path_as_is = true};
    const struct s3_settings *s = settings;
    struct s3_transport *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->settings = s->aws;
    t->settings.transport.url = t->url;
    int r = s3_url(s, t->url);
    r = r < 0 ? r : aws_transport_create(&service, &t->settings, gateway, parallel, &t->aws);
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
    return aws_transport_send(((struct s3_transport *)state)->aws, request, done, user);
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    return aws_transport_run(((struct s3_transport *)state)->aws, wake_fd, timeout_ms);
}

static uint64_t bytes_sent(const void *state)
{
    return aws_transport_bytes_sent(((const struct s3_transport *)state)->aws);
}

static void warning(const void *state, char *words, size_t size)
{
    aws_transport_warning(((const struct s3_transport *)state)->aws, words, size);
}

const struct transport transport_s3 = {
    .name = "s3",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
};

const struct uplink uplink_s3 = {
    .name = "s3",
    .table = &s3_config_table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = S3_TEXT_MAX,
    .together = s3_together,
    .encode = s3_encode,
    .judge = s3_judge,
    .transport = &transport_s3,
    .probe = &s3_probe,
};
