/* sqs.h - type `sqs`: SendMessageBatch of Amazon SQS. A message is a scan as `format = batch` has
 * it, with its origin. A queue whose name ends in ".fifo" gets the device as group and the identity
 * for its own deduplication. Pure. */
#pragma once

#include "uplink/aws/aws.h"

struct sqs_settings {
    struct aws_settings aws;
    const char *queue_url;
};
extern const struct config_table sqs_config_table;

enum {
    SQS_ENTRIES_MAX = 10,
    SQS_MESSAGES_MAX = 256 * 1024, /* bytes of all messages of a request */
    SQS_REQUEST_MAX = 1024 * 1024,
};

extern const struct aws_service sqs_service;
extern const struct uplink_probe sqs_probe;
extern const struct uplink uplink_sqs;
