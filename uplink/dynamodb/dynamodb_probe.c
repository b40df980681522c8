#include "uplink/aws/aws_probe.h"
#include "uplink/dynamodb/dynamodb.h"

#include <string.h>

static const char *key_of(const json_t *table, const char *kind)
{
    const json_t *keys = json_object_get(table, "KeySchema");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *key = json_array_get(keys, i);
        const char *type = json_string_value(json_object_get(key, "KeyType"));
        const char *name = json_string_value(json_object_get(key, "AttributeName"));
        if (type != NULL && name != NULL && strcmp(type, kind) == 0) {
            return name;
        }
    }
    return "none";
}

/* "S", "N" or "B"; "" where the answer does not tell. */
static const char *type_of(const json_t *table, const char *attribute)
{
    const json_t *all = json_object_get(table, "AttributeDefinitions");
    for (size_t i = 0; i < json_array_size(all); i++) {
        const char *name = json_string_value(
            json_object_get(json_array_get(all, i), "AttributeName"));
        const char *type = json_string_value(
            json_object_get(json_array_get(all, i), "AttributeType"));
        if (name != NULL && type != NULL && strcmp(name, attribute) == 0) {
            return type;
        }
    }
    return "";
}

static bool is_other(const char *type, const char *wanted)
{
    return type[0] != '\0' && strcmp(type, wanted) != 0;
}

static const char *read_table(const void *settings, const json_t *answer, struct buffer *found,
                              enum probe_verdict *ret_verdict)
{
    const struct dynamodb_settings *s = settings;
    const json_t *table = json_object_get(answer, "Table");
    const char *status = json_string_value(json_object_get(table, "TableStatus"));
    const char *partition = key_of(table, "HASH"), *sort = key_of(table, "RANGE");
    buffer_printf(found, "the table is %s, its keys are %.60s and %.60s",
                  status != NULL ? status : "not described", partition, sort);
    if (status == NULL || (strcmp(status, "ACTIVE") != 0 && strcmp(status, "UPDATING") != 0)) {
        *ret_verdict = PROBE_BAD;
        return "is the table being made or deleted? A captive portal would not know this form";
    }
    if (strcmp(partition, s->partition_key) != 0 || strcmp(sort, s->sort_key) != 0) {
        *ret_verdict = PROBE_BAD;
        return "partition_key and sort_key must be called as the table's keys are";
    }
    if (is_other(type_of(table, partition), "S") || is_other(type_of(table, sort), "N")) {
        *ret_verdict = PROBE_BAD;
        return "the partition key must be a string (S) and the sort key a number (N): make the "
               "table anew";
    }
    return NULL;
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    return aws_probe_target(&dynamodb_service, settings, ret_target);
}

static void ask(struct probe *probe)
{
    const struct dynamodb_settings *s = probe->settings;
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"TableName\":");
    json_write_string(&body, s->table, strlen(s->table));
    buffer_add_byte(&body, '}');
    const struct aws_question question = {
        .target = "X-Amz-Target: DynamoDB_20120810.DescribeTable",
        .action = "dynamodb:DescribeTable",
        .content_type = "application/x-amz-json-1.0",
        .body = buffer_text(&body),
        .keys = "table",
        .read = read_table,
    };
    aws_probe_ask(probe, &question);
}

const struct uplink_probe dynamodb_probe = {
    .before = aws_probe_credentials, .target = target, .ask = ask};
