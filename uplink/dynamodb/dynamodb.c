#include "uplink/dynamodb/dynamodb.h"

#include "uplink/transport/keys.h"

#define KEY(field) offsetof(struct dynamodb_settings, field)

static const struct config_key keys[] = {
    AWS_CONFIG_KEYS(struct dynamodb_settings, aws),
    {
        .name = "table",
        .type = CONFIG_TEXT,
        .offset = KEY(table),
        .required = true,
        .example = "readings",
        .help = "table that items go to",
    },
    {
        .name = "user",
        .type = CONFIG_TEXT,
        .offset = KEY(user),
        .example = "borssele",
        .help = "begin of the partition key USER#DEVICE.POINT; default: the gateway's name",
    },
    {
        .name = "partition_key",
        .type = CONFIG_TEXT,
        .offset = KEY(partition_key),
        .fallback = "pk",
        .help = "attribute of the partition key, a string",
    },
    {
        .name = "sort_key",
        .type = CONFIG_TEXT,
        .offset = KEY(sort_key),
        .fallback = "ts",
        .help = "attribute of the sort key, a number: seconds with decimals",
    },
    {
        .name = "expire_after",
        .type = CONFIG_DURATION,
        .offset = KEY(expire_after_ms),
        .min = 3600000,
        .max = 3650.0 * 86400000,
        .example = "90 d",
        .help = "sets expires_at (the table's TTL attribute) so long after a reading",
    },
    TRANSPORT_TLS_KEYS(struct dynamodb_settings, aws.transport),
    TRANSPORT_LINE_KEYS(struct dynamodb_settings, aws.transport),
};

static void check(const void *settings, struct config_errors *errors)
{
    aws_settings_check(&((const struct dynamodb_settings *)settings)->aws, errors);
}

const struct config_table dynamodb_config_table = {
    .section = "uplink",
    .variant = "dynamodb",
    .size = sizeof(struct dynamodb_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const struct aws_service dynamodb_service = {
    .signing_name = "dynamodb", .host = "dynamodb", .chunked = true};

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    return aws_transport_create(&dynamodb_service,
                                &((const struct dynamodb_settings *)settings)->aws, gateway,
                                parallel, ret_state);
}

static const struct transport transport_dynamodb = AWS_TRANSPORT("dynamodb", create);

const struct uplink uplink_dynamodb = {
    .name = "dynamodb",
    .table = &dynamodb_config_table,
    .max_records = DYNAMODB_RECORDS_MAX,
    .max_bytes = DYNAMODB_BODY_MAX,
    .encode = dynamodb_encode,
    .judge = dynamodb_judge,
    .transport = &transport_dynamodb,
    .probe = &dynamodb_probe,
};
