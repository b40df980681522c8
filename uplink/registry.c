#include "uplink/dynamodb/dynamodb.h"
#include "uplink/file/file.h"
#include "uplink/http/http.h"
#include "uplink/influx/influx.h"
#include "uplink/iot/iot.h"
#include "uplink/kafka/kafka.h"
#include "uplink/kinesis/kinesis.h"
#include "uplink/mqtt/mqtt.h"
#include "uplink/postgres/postgres.h"
#include "uplink/s3/s3.h"
#include "uplink/sqs/sqs.h"
#include "uplink/timestream/timestream.h"

#include <string.h>

// clang-format off
const struct uplink *const uplinks[] = {
    &uplink_dynamodb,
    &uplink_file,
    &uplink_http,
    &uplink_influx,
    &uplink_iot_https,
    &uplink_kafka,
    &uplink_kinesis,
    &uplink_mqtt,
    &uplink_postgres,
    &uplink_s3,
    &uplink_sqs,
    &uplink_timestream,
    NULL,
};
// clang-format on
const size_t uplinks_count = ARRAY_SIZE(uplinks) - 1;

const struct uplink *uplink_find(const char *type)
{
    for (size_t i = 0; i < uplinks_count; i++) {
        if (strcmp(uplinks[i]->name, type) == 0) {
            return uplinks[i];
        }
    }
    return NULL;
}
