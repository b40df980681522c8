#include "uplink/aws/aws_probe.h"
#include "uplink/kinesis/kinesis.h"

#include <string.h>

static const char *read_stream(const void *settings, const json_t *answer, struct buffer *found,
                               enum probe_verdict *ret_verdict)
{
    (void)settings;
    const json_t *stream = json_object_get(answer, "StreamDescriptionSummary");
    const char *status = json_string_value(json_object_get(stream, "StreamStatus"));
    buffer_printf(found, "the stream is %s, with %lld open shards",
                  status != NULL ? status : "not described",
                  (long long)json_integer_value(json_object_get(stream, "OpenShardCount")));
    if (status == NULL || (strcmp(status, "ACTIVE") != 0 && strcmp(status, "UPDATING") != 0)) {
        *ret_verdict = PROBE_BAD;
        return "is the stream being made or deleted? A captive portal would not know this form";
    }
    return NULL;
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    return aws_probe_target(&kinesis_service, settings, ret_target);
}

static void ask(struct probe *probe)
{
    const struct kinesis_settings *s = probe->settings;
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"StreamName\":");
    json_write_string(&body, s->stream_name, strlen(s->stream_name));
    buffer_add_byte(&body, '}');
    const struct aws_question question = {
        .target = "X-Amz-Target: Kinesis_20131202.DescribeStreamSummary",
        .action = "kinesis:DescribeStreamSummary",
        .content_type = "application/x-amz-json-1.1",
        .body = buffer_text(&body),
        .keys = "stream",
        .read = read_stream,
    };
    aws_probe_ask(probe, &question);
}

const struct uplink_probe kinesis_probe = {
    .before = aws_probe_credentials, .target = target, .ask = ask};
