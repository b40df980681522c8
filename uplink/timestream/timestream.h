/* timestream.h - the inside of type `timestream`: WriteRecords of Amazon Timestream for
 * LiveAnalytics, multi-measure records.
 *
 * Pure, any thread. A scan is one record, or several where it has more measures than a record
 * takes; the service knows a record by dimensions, time and measure name. Version stays 1 for ever:
 * the same reading once more is the same record, never a newer one. */
#pragma once

#include "uplink/aws/aws.h"

struct timestream_settings {
    struct aws_settings aws;
    const char *database, *table, *measure;
};
extern const struct config_table timestream_config_table;

/* Bounds of the service (API reference of WriteRecords, "Quotas"). */
enum {
    TIMESTREAM_RECORDS_MAX = 100,
    TIMESTREAM_MEASURES_MAX = 256,
    TIMESTREAM_RECORD_BYTES = 2000, /* 2 KB of names and values, some for the time */
    TIMESTREAM_VALUE_MAX = 2048,
    TIMESTREAM_REQUEST_MAX = 1024 * 1024,
};

/* How many records of the service that one makes, at least 1. */
size_t timestream_parts(const struct batch *batch, const struct batch_record *record);

int timestream_encode(const void *settings, const struct batch *batch,
                      struct uplink_request *request);
void timestream_judge(const void *settings, const struct batch *batch,
                      const struct uplink_reply *reply, struct uplink_verdict *ret_verdict);

extern const struct aws_service timestream_service;
extern const struct uplink_probe timestream_probe;
extern const struct uplink uplink_timestream;
