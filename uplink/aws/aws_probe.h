/* aws_probe.h - what `windrow uplink test` asks of services of AWS: credentials and one signed call
 * that only describes.
 *
 * The command's thread. Settings begin with struct aws_settings in all of these types. */
#pragma once

#include "uplink/aws/aws.h"
#include "uplink/probe/probe.h"

/* A call that changes nothing. */
struct aws_question {
    const char *target;       /* "X-Amz-Target: DynamoDB_20120810.DescribeTable" */
    const char *action;       /* "dynamodb:DescribeTable", as policies name it */
    const char *content_type; /* of the service's protocol */
    const char *body;
    const char *keys; /* of the section, when what it names does not exist: "table" */
    /* Reads the answer to 200: appends what it tells; a mend when it is not well, or NULL. */
    const char *(*read)(const void *settings, const json_t *answer, struct buffer *found,
                        enum probe_verdict *ret_verdict);
};

/* For uplink_probe.before. */
void aws_probe_credentials(struct probe *probe);
/* For uplink_probe.target: the service's public endpoint, or `endpoint`. */
bool aws_probe_target(const struct aws_service *service, const struct aws_settings *settings,
                      struct probe_target *ret_target);
/* For uplink_probe.ask; step "request". */
void aws_probe_ask(struct probe *probe, const struct aws_question *question);
