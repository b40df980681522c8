/* kinesis.h - type `kinesis`: PutRecords of Amazon Kinesis Data Streams. A record of the stream is
 * a scan as `format = batch` has it, with its origin; the partition key is the device. Pure. */
#pragma once

#include "uplink/aws/aws.h"

struct kinesis_settings {
    struct aws_settings aws;
    const char *stream_name;
};
extern const struct config_table kinesis_config_table;

enum {
    KINESIS_RECORDS_MAX = 500,
    KINESIS_RECORD_MAX = 1024 * 1024,      /* bytes of data and partition key */
    KINESIS_REQUEST_MAX = 5 * 1024 * 1024, /* of all records, before they are written as text */
};

extern const struct aws_service kinesis_service;
extern const struct uplink_probe kinesis_probe;
extern const struct uplink uplink_kinesis;
