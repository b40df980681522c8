#include "uplink/timestream/timestream.h"

#include "uplink/transport/keys.h"

#include <string.h>

#define KEY(field) offsetof(struct timestream_settings, field)

static const struct config_key keys[] = {
    AWS_CONFIG_KEYS(struct timestream_settings, aws),
    {
        .name = "database",
        .type = CONFIG_TEXT,
        .offset = KEY(database),
        .required = true,
        .example = "wind",
        .help = "database of the table",
    },
    {
        .name = "table",
        .type = CONFIG_TEXT,
        .offset = KEY(table),
        .required = true,
        .example = "readings",
        .help = "table that records go to; let it take magnetic store writes",
    },
    {
        .name = "measure",
        .type = CONFIG_TEXT,
        .offset = KEY(measure),
        .fallback = "readings",
        .help = "measure name of the records",
    },
    TRANSPORT_TLS_KEYS(struct timestream_settings, aws.transport),
    TRANSPORT_LINE_KEYS(struct timestream_settings, aws.transport),
};

static void check_length(struct config_errors *errors, const char *key, const char *text,
                         size_t min, size_t max)
{
    size_t len = text != NULL ? strlen(text) : min;
    if (len < min || len > max) {
        config_complain(errors, key, "must have %zu to %zu characters", min, max);
    }
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct timestream_settings *s = settings;
    aws_settings_check(&s->aws, errors);
    check_length(errors, "database", s->database, 3, 256);
    check_length(errors, "table", s->table, 3, 256);
    check_length(errors, "measure", s->measure, 1, 200);
}

const struct config_table timestream_config_table = {
    .section = "uplink",
    .variant = "timestream",
    .size = sizeof(struct timestream_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const struct aws_service timestream_service = {
    .signing_name = "timestream",
    .host = "ingest.timestream",
    .discovery_target = "X-Amz-Target: Timestream_20181101.DescribeEndpoints",
    .content_type = "application/x-amz-json-1.0",
};

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    return aws_transport_create(&timestream_service,
                                &((const struct timestream_settings *)settings)->aws, gateway,
                                parallel, ret_state);
}

static const struct transport transport_timestream = AWS_TRANSPORT("timestream", create);

const struct uplink uplink_timestream = {
    .name = "timestream",
    .table = &timestream_config_table,
    .max_records = TIMESTREAM_RECORDS_MAX,
    .max_bytes = TIMESTREAM_REQUEST_MAX,
    .encode = timestream_encode,
    .judge = timestream_judge,
    .transport = &transport_timestream,
    .probe = &timestream_probe,
};
