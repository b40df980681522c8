/* Any reply at all to every type with a judge of its own: the first bytes choose type and status,
 * the rest is the body. A verdict names only records of the batch, each once, its words end, and
 * what no status of success carried is delivered only where partial success exists. */
#include "uplink/aws/aws_parts.h"
#include "uplink/dynamodb/dynamodb.h"
#include "uplink/influx/influx.h"
#include "uplink/iot/iot.h"
#include "uplink/kafka/kafka.h"
#include "uplink/kinesis/kinesis.h"
#include "uplink/s3/s3.h"
#include "uplink/sqs/sqs.h"
#include "uplink/timestream/timestream.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define AWS                                                                                        \
    {                                                                                              \
        .region = "eu-west-1", .credentials = "iot:https://x/"                                     \
    }
static const struct store_point_name points[] = {{"a", "", 1}, {"b", "", 1}};
static const struct store_names names[] = {{"t01", "", 2, points},
                                           {"t02", "{\"x\":\"y\"}", 2, points}};
static const struct influx_settings v1 = {.version = INFLUX_V1}, v2 = {.version = INFLUX_V2},
                                    v3 = {.version = INFLUX_V3};
static const struct timestream_settings timestream = {
    .aws = AWS, .database = "d", .table = "t", .measure = "m"};
static const struct kinesis_settings kinesis = {.aws = AWS, .stream_name = "s"};
static const struct sqs_settings sqs = {.aws = AWS, .queue_url = "q"};
static const struct dynamodb_settings dynamodb = {
    .aws = AWS, .table = "t", .user = "u", .partition_key = "pk", .sort_key = "ts"};

static const struct kafka_settings kafka = {.topic = "t"};
static const struct iot_settings iot = {.topic = "t"};
static const struct s3_settings s3 = {.aws = AWS, .bucket = "b", .prefix = "p"};

static const struct {
    const struct uplink *type;
    const void *settings;
} judges[] = {{&uplink_influx, &v1},
              {&uplink_influx, &v2},
              {&uplink_influx, &v3},
              {&uplink_timestream, &timestream},
              {&uplink_kinesis, &kinesis},
              {&uplink_sqs, &sqs},
              {&uplink_dynamodb, &dynamodb},
              {&uplink_kafka, &kafka},
              {&uplink_s3, &s3},
              {&uplink_iot_https, &iot}};

static void check(const struct batch *batch, const struct uplink_reply *reply, size_t which)
{
    struct uplink_verdict v;
    judges[which].type->judge(judges[which].settings, batch, reply, &v);
    bool partial = reply->status == 400 || reply->status == 419;
    if (v.outcome == UPLINK_DELIVERED && (reply->status < 200 || reply->status > 299) && !partial) {
        abort();
    }
    if ((v.outcome != UPLINK_DELIVERED && v.rejected_count > 0) ||
        v.rejected_count > batch->count || memchr(v.why, '\0', sizeof v.why) == NULL ||
        (v.outcome != UPLINK_DELIVERED && v.why[0] == '\0' && reply->status != 0)) {
        abort();
    }
    unsigned seen = 0;
    for (size_t i = 0; i < v.rejected_count; i++) {
        if (v.rejected[i].record >= batch->count || (seen & 1u << v.rejected[i].record) != 0 ||
            memchr(v.rejected[i].why, '\0', sizeof v.rejected[i].why) == NULL) {
            abort();
        }
        seen |= 1u << v.rejected[i].record;
    }
    free(v.rejected);
}

static void parse(const char *text, size_t len)
{
    struct aws_credentials credentials;
    char words[AWS_WORDS_MAX], url[AWS_URL_MAX];
    int64_t minutes;
    int r = aws_credentials_parse_ini(text, len, &credentials, words);
    if (r == 0 && credentials.access_key[0] == '\0') {
        abort();
    }
    r = aws_credentials_parse_iot(text, len, &credentials, words);
    r = aws_parse_endpoints(text, len, url, &minutes);
    if (r == 0 && (transport_url_check(url) != 0 || minutes < 0)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {0,   200, 201, 204, 301, 400, 401, 403, 404,
                                   409, 413, 419, 421, 422, 429, 500, 503};
    if (size < 3) {
        return 0;
    }
    struct scan *scan = calloc(4, scan_size_for(2, 0));
    struct batch_record records[4];
    for (size_t i = 0; i < 4; i++) {
        struct scan *s = (struct scan *)((char *)scan + i * scan_size_for(2, 0));
        *s = (struct scan){.seq = i + 1, .time_ms = (int64_t)i * 1000, .device = 1, .count = 2};
        s->readings[0] = (struct reading){.kind = VALUE_DECIMAL, .integer = 1};
        s->readings[1] = (struct reading){.point = 1, .kind = VALUE_BOOL, .integer = 1};
        records[i] = (struct batch_record){.scan = s, .names = &names[i / 2]};
    }
    struct batch batch = {
        .gateway = "g", .store_id = "s", .records = records, .count = 1 + (data[0] & 3u)};
    size_t len = size - 3;
    char *body = malloc(len + 1);
    memcpy(body, data + 3, len);
    body[len] = '\0';
    static char proof[] = "Content-MD5: kAFQmDzST7DWlj99KOF/cg==";
    const struct uplink_request request = {
        .headers = {.data = (uint8_t *)proof, .len = sizeof proof, .capacity = sizeof proof}};
    struct uplink_reply reply = {.status = statuses[data[1] % ARRAY_SIZE(statuses)],
                                 .body = body,
                                 .len = len,
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "",
                                 .etag = body,
                                 .checksum_sha256 = body,
                                 .answers = &request,
                                 .code = (data[0] & 4u) != 0 ? body : NULL};
    check(&batch, &reply, data[2] % ARRAY_SIZE(judges));
    parse(body, len);
    free(body);
    free(scan);
    return 0;
}
