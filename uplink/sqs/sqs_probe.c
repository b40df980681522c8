#include "uplink/aws/aws_probe.h"
#include "uplink/sqs/sqs.h"

#include <string.h>

static const char *read_queue(const void *settings, const json_t *answer, struct buffer *found,
                              enum probe_verdict *ret_verdict)
{
    (void)settings;
    const json_t *all = json_object_get(answer, "Attributes");
    const char *waiting = json_string_value(json_object_get(all, "ApproximateNumberOfMessages"));
    if (waiting == NULL) {
        buffer_add_text(found, "the answer does not describe the queue");
        *ret_verdict = PROBE_BAD;
        return "a captive portal, or an endpoint of something else";
    }
    buffer_printf(found, "the queue is there, about %.20s messages wait in it", waiting);
    return NULL;
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    return aws_probe_target(&sqs_service, settings, ret_target);
}

static void ask(struct probe *probe)
{
    const struct sqs_settings *s = probe->settings;
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"QueueUrl\":");
    json_write_string(&body, s->queue_url, strlen(s->queue_url));
    buffer_add_text(&body, ",\"AttributeNames\":[\"ApproximateNumberOfMessages\"]}");
    const struct aws_question question = {
        .target = "X-Amz-Target: AmazonSQS.GetQueueAttributes",
        .action = "sqs:GetQueueAttributes",
        .content_type = "application/x-amz-json-1.0",
        .body = buffer_text(&body),
        .keys = "queue_url",
        .read = read_queue,
    };
    aws_probe_ask(probe, &question);
}

const struct uplink_probe sqs_probe = {
    .before = aws_probe_credentials, .target = target, .ask = ask};
