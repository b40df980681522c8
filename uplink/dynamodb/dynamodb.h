/* dynamodb.h - the inside of type `dynamodb`: BatchWriteItem of Amazon DynamoDB.
 *
 * Pure, any thread. A reading is an item: partition key "USER#DEVICE.POINT", sort key seconds with
 * decimals, value, quality, identity and, where wanted, expires_at. Behind the milliseconds the
 * sort key has twelve digits of the seq: two scans of one millisecond are two items, and a repeat
 * is the same one, which a put overwrites with itself. packaging/cloud writes the same keys. A
 * request takes 25 items, so the body is chunks (aws.h), each a request. */
#pragma once

#include "uplink/aws/aws.h"

struct dynamodb_settings {
    struct aws_settings aws;
    const char *table, *user, *partition_key, *sort_key;
    int64_t expire_after_ms; /* 0: never */
};
extern const struct config_table dynamodb_config_table;

enum {
    DYNAMODB_ITEMS_MAX = 25,
    DYNAMODB_RECORDS_MAX = 50, /* scans in a body; with 20 points 40 requests */
    DYNAMODB_BODY_MAX = 16 * 1024 * 1024,
};

/* Where a chunk begins: reading `reading` of record `record`. */
struct dynamodb_place {
    size_t record, reading;
};
static inline bool dynamodb_at_end(const struct batch *batch, struct dynamodb_place place)
{
    return place.record == batch->count;
}

/* The place behind the chunk that begins there: 25 items at most, never the same key twice. */
struct dynamodb_place dynamodb_chunk_end(const struct batch *batch, struct dynamodb_place from);
struct dynamodb_place dynamodb_next(const struct batch *batch, struct dynamodb_place place);

/* Appends the keys' texts without quotes: "USER#DEVICE.POINT", and 1769855400.250000000018231. */
void dynamodb_write_partition(const struct dynamodb_settings *settings, const struct batch *batch,
                              struct dynamodb_place place, struct buffer *out);
void dynamodb_write_sort(const struct batch *batch, struct dynamodb_place place,
                         struct buffer *out);

int dynamodb_encode(const void *settings, const struct batch *batch,
                    struct uplink_request *request);
void dynamodb_judge(const void *settings, const struct batch *batch,
                    const struct uplink_reply *reply, struct uplink_verdict *ret_verdict);

extern const struct aws_service dynamodb_service;
extern const struct uplink_probe dynamodb_probe;
extern const struct uplink uplink_dynamodb;
