#include "uplink/aws/aws_probe.h"
#include "uplink/timestream/timestream.h"

#include <string.h>

static const char *read_table(const void *settings, const json_t *answer, struct buffer *found,
                              enum probe_verdict *ret_verdict)
{
    (void)settings;
    const json_t *table = json_object_get(answer, "Table");
    const char *status = json_string_value(json_object_get(table, "TableStatus"));
    const json_t *late = json_object_get(json_object_get(table, "MagneticStoreWriteProperties"),
                                         "EnableMagneticStoreWrites");
    const json_t *hours = json_object_get(json_object_get(table, "RetentionProperties"),
                                          "MemoryStoreRetentionPeriodInHours");
    buffer_printf(found, "the table is %s", status != NULL ? status : "not described");
    if (status == NULL || strcmp(status, "ACTIVE") != 0) {
        *ret_verdict = PROBE_BAD;
        return "is the table being made or deleted? A captive portal would not know this form";
    }
    if (!json_is_true(late)) {
        buffer_printf(found, ", but takes nothing older than %lld h",
                      (long long)json_integer_value(hours));
        *ret_verdict = PROBE_WARN;
        return "after a long outage older readings become dead letters: enable magnetic store "
               "writes for the table";
    }
    buffer_add_text(found, " and takes late readings, too");
    return NULL;
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    return aws_probe_target(&timestream_service, settings, ret_target);
}

static void ask(struct probe *probe)
{
    const struct timestream_settings *s = probe->settings;
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"DatabaseName\":");
    json_write_string(&body, s->database, strlen(s->database));
    buffer_add_text(&body, ",\"TableName\":");
    json_write_string(&body, s->table, strlen(s->table));
    buffer_add_byte(&body, '}');
    const struct aws_question question = {
        .target = "X-Amz-Target: Timestream_20181101.DescribeTable",
        .action = "timestream:DescribeTable",
        .content_type = "application/x-amz-json-1.0",
        .body = buffer_text(&body),
        .keys = "database, table",
        .read = read_table,
    };
    aws_probe_ask(probe, &question);
}

const struct uplink_probe timestream_probe = {
    .before = aws_probe_credentials, .target = target, .ask = ask};
