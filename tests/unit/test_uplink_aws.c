/* The types for AWS: what they write, what replies mean, where keys and endpoints come from. */
#include "cloud_batch.h"
#include "uplink/aws/aws_parts.h"
#include "uplink/dynamodb/dynamodb.h"
#include "uplink/kinesis/kinesis.h"
#include "uplink/sqs/sqs.h"
#include "uplink/timestream/timestream.h"

#include <errno.h>
#include <math.h>
#include <sys/stat.h>

static const struct store_point_name points[] = {
    {"wind_speed", "m/s", 10}, {"power", "kW", 5}, {"grid_ok", "", 7}, {"device", "", 6}};
static const struct store_names t01 = {"t01", "{\"type\":\"V90\"}", 4, points};
static const struct store_names t02 = {"t02", "", 4, points};

#define AWS                                                                                        \
    {                                                                                              \
        .region = "eu-west-1", .credentials = "file:/etc/windrow/aws.ini"                          \
    }
static const struct timestream_settings timestream = {
    .aws = AWS, .database = "wind", .table = "readings", .measure = "readings"};
static const struct kinesis_settings kinesis = {.aws = AWS, .stream_name = "readings"};
static const struct sqs_settings sqs = {
    .aws = AWS, .queue_url = "https://sqs.eu-west-1.amazonaws.com/1/r.fifo"};
static const struct dynamodb_settings dynamodb = {.aws = AWS,
                                                  .table = "readings",
                                                  .user = "borssele",
                                                  .partition_key = "pk",
                                                  .sort_key = "ts",
                                                  .expire_after_ms = 3600000};

static const char *encode(struct cloud_batch *b, const struct uplink *type, const void *settings)
{
    assert_int_equal(type->encode(settings, &b->batch, &b->request), 0);
    return buffer_text(&b->request.body);
}

static void three_records(struct cloud_batch *b)
{
    cloud_add(b, cloud_scan(7, 1, 1000, 2), &t01);
    cloud_add(b, cloud_scan(7, 2, 2000, 2), &t01);
    cloud_add(b, cloud_scan(8, 1, 1000, 2), &t02);
}

/* The verdict's record of that reply, checked against how many are expected. */
static struct uplink_verdict expect(const struct uplink *type, const void *settings,
                                    struct cloud_batch *b, int status, const char *body,
                                    enum uplink_outcome outcome, size_t rejected)
{
    struct uplink_verdict v = cloud_judge(type, settings, b, status, body);
    if (v.outcome != outcome) {
        print_error("%s: outcome %d: %s\n", body, (int)v.outcome, v.why);
    }
    assert_int_equal(v.outcome, outcome);
    assert_int_equal(v.rejected_count, rejected);
    return v;
}

static void test_timestream_record(void **state)
{
    struct cloud_batch *b = *state;
    struct scan *s = cloud_add(b, cloud_scan(7, 18231, 1769855400000, 4), &t01);
    s->readings[1].quality = QUALITY_UNCERTAIN;
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_BOOL, .integer = 1};
    assert_string_equal(
        encode(b, &uplink_timestream, &timestream),
        "{\"DatabaseName\":\"wind\",\"TableName\":\"readings\",\"CommonAttributes\":{"
        "\"Dimensions\":[{\"Name\":\"gateway\",\"Value\":\"borssele-1\"},"
        "{\"Name\":\"store\",\"Value\":\"9f2c61d07a3b\"},{\"Name\":\"stream\",\"Value\":\"raw\"}],"
        "\"MeasureValueType\":\"MULTI\",\"TimeUnit\":\"NANOSECONDS\",\"Version\":1},\"Records\":["
        "{\"Dimensions\":[{\"Name\":\"device\",\"Value\":\"t01\"},"
        "{\"Name\":\"type\",\"Value\":\"V90\"}],\"Time\":\"1769855400000132810\","
        "\"MeasureName\":\"readings\",\"MeasureValues\":["
        "{\"Name\":\"seq\",\"Type\":\"BIGINT\",\"Value\":\"18231\"},"
        "{\"Name\":\"wind_speed\",\"Type\":\"DOUBLE\",\"Value\":\"8.42\"},"
        "{\"Name\":\"power\",\"Type\":\"DOUBLE\",\"Value\":\"8.43\"},"
        "{\"Name\":\"power_quality\",\"Type\":\"VARCHAR\",\"Value\":\"uncertain\"},"
        "{\"Name\":\"grid_ok\",\"Type\":\"BOOLEAN\",\"Value\":\"true\"},"
        "{\"Name\":\"device_\",\"Type\":\"DOUBLE\",\"Value\":\"8.45\"}]}]}");
    assert_string_equal((char *)b->request.headers.data,
                        "X-Amz-Target: Timestream_20181101.WriteRecords");
}

static void test_timestream_bounds(void **state)
{
    struct cloud_batch *b = *state;
    struct scan *s = cloud_add(b, cloud_scan(7, 1, 0, 700), &t02); /* most names are numbers */
    assert_int_equal(timestream_parts(&b->batch, &b->records[0]), 7);
    s->readings[0] = (struct reading){.kind = VALUE_REAL, .real = (double)NAN};
    assert_non_null(strstr(encode(b, &uplink_timestream, &timestream),
                           "{\"Name\":\"wind_speed_quality\",\"Type\":\"VARCHAR\","
                           "\"Value\":\"bad:invalid\"}"));
    for (unsigned i = 0; i < 14; i++) {
        cloud_add(b, cloud_scan(7, 2 + i, 1 + i, 700), &t02);
    }
    assert_int_equal(uplink_timestream.encode(&timestream, &b->batch, &b->request), -E2BIG);
    b->batch.count = 14;
    assert_int_equal(uplink_timestream.encode(&timestream, &b->batch, &b->request), 0);
    /* The rejected index is one of the service's records, of which a scan has seven. */
    struct uplink_verdict v = expect(
        &uplink_timestream, &timestream, b, 419,
        "{\"__type\":\"x#RejectedRecordsException\",\"RejectedRecords\":["
        "{\"RecordIndex\":7,\"Reason\":\"too old\"},{\"RecordIndex\":13}]}",
        UPLINK_DELIVERED, 1);
    assert_int_equal(v.rejected[0].record, 1);
    assert_string_equal(v.rejected[0].why, "too old");
    free(v.rejected);
    b->batch.count = 15;
}

static void test_timestream_replies(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    static const struct {
        int status;
        const char *body;
        enum uplink_outcome outcome;
    } cases[] = {
        {200, "{\"RecordsIngested\":{\"Total\":3}}", UPLINK_DELIVERED},
        {200, "{\"RecordsIngested\":{\"Total\":2}}", UPLINK_RETRY},
        {200, "{\"RecordsIngested\":{\"Total\":\"3\"}}", UPLINK_RETRY},
        {200, "{}", UPLINK_RETRY},
        {200, "<html>Welcome</html>", UPLINK_RETRY},
        {204, "", UPLINK_RETRY},
        {0, "", UPLINK_RETRY},
        {400, "{\"__type\":\"ThrottlingException\"}", UPLINK_RETRY},
        {429, "{\"__type\":\"com.amazonaws.timestream.v20181101#ThrottlingException\"}",
         UPLINK_RETRY},
        {429, "slow down", UPLINK_RETRY},
        {421, "{\"__type\":\"InvalidEndpointException\"}", UPLINK_RETRY},
        {409, "{\"__type\":\"ConflictException\"}", UPLINK_RETRY},
        {500, "{\"__type\":\"InternalServerException\"}", UPLINK_RETRY},
        {503, "", UPLINK_RETRY},
        {403, "{\"__type\":\"AccessDeniedException\"}", UPLINK_HOLD},
        {400, "{\"__type\":\"AccessDeniedException:http://x/\"}", UPLINK_HOLD},
        {402, "{\"__type\":\"ServiceQuotaExceededException\"}", UPLINK_HOLD},
        {404, "{\"__type\":\"ResourceNotFoundException\"}", UPLINK_HOLD},
        {403, "{\"__type\":\"ExpiredTokenException\"}", UPLINK_HOLD},
        {403, "{\"__type\":\"InvalidSignatureException\",\"message\":\"no match\"}", UPLINK_HOLD},
        {403, "{\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired: 1\"}",
         UPLINK_RETRY},
        {400, "{\"__type\":\"ValidationException\"}", UPLINK_SPLIT},
        {413, "", UPLINK_SPLIT},
        {419, "{}", UPLINK_SPLIT},
        {419, "{\"RejectedRecords\":[{\"RecordIndex\":3}]}", UPLINK_SPLIT},
        {419, "{\"RejectedRecords\":[{\"RecordIndex\":-1}]}", UPLINK_SPLIT},
        {419, "{\"RejectedRecords\":[{\"RecordIndex\":\"1\"}]}", UPLINK_SPLIT},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        expect(&uplink_timestream, &timestream, b, cases[i].status, cases[i].body, cases[i].outcome,
               0);
    }
    struct timestream_settings iot = timestream;
    iot.aws.credentials = "iot:https://x/role-aliases/a/credentials";
    expect(&uplink_timestream, &iot, b, 403, "{\"__type\":\"ExpiredTokenException\"}", UPLINK_RETRY,
           0);
    b->batch.count = 1;
    expect(&uplink_timestream, &timestream, b, 400, "{\"__type\":\"ValidationException\"}",
           UPLINK_REJECTED, 0);
    b->batch.count = 3;
}

static void test_kinesis(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    const char *text = encode(b, &uplink_kinesis, &kinesis);
    assert_non_null(
        strstr(text, "{\"StreamName\":\"readings\",\"Records\":[{\"Data\":\"eyJnYXRld"));
    assert_non_null(strstr(text, "\",\"PartitionKey\":\"t02\"}]}"));
    assert_string_equal(b->request.content_type, "application/x-amz-json-1.1");
    expect(&uplink_kinesis, &kinesis, b, 200,
           "{\"FailedRecordCount\":0,\"Records\":[{\"SequenceNumber\":\"1\"},"
           "{\"SequenceNumber\":\"2\"},{\"SequenceNumber\":\"3\"}]}",
           UPLINK_DELIVERED, 0);
    struct uplink_verdict v = expect(
        &uplink_kinesis, &kinesis, b, 200,
        "{\"FailedRecordCount\":1,\"Records\":[{\"SequenceNumber\":\"1\"},"
        "{\"ErrorCode\":\"ProvisionedThroughputExceededException\"},"
        "{\"SequenceNumber\":\"3\"}]}",
        UPLINK_DELIVERED, 1);
    assert_int_equal(v.rejected[0].record, 1);
    assert_true(v.rejected[0].again);
    assert_non_null(strstr(v.why, "once more"));
    free(v.rejected);
    static const char *const vague[] = {"{\"FailedRecordCount\":0}", "{\"Records\":[]}", "",
                                        "{\"Records\":[{},{},{}]}", "[]"};
    for (size_t i = 0; i < ARRAY_SIZE(vague); i++) {
        expect(&uplink_kinesis, &kinesis, b, 200, vague[i], UPLINK_RETRY, 0);
    }
}

static void test_sqs(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    const char *text = encode(b, &uplink_sqs, &sqs);
    assert_non_null(strstr(text, "\"Entries\":[{\"Id\":\"0\",\"MessageBody\":\"{\\\"gateway\\\""));
    assert_non_null(strstr(text, "\"MessageDeduplicationId\":\"9f2c61d07a3b.raw."));
    struct uplink_verdict v = expect(
        &uplink_sqs, &sqs, b, 200,
        "{\"Successful\":[{\"Id\":\"2\"}],\"Failed\":[{\"Id\":\"0\",\"SenderFault\":true,"
        "\"Code\":\"InvalidMessage\"},{\"Id\":\"1\",\"SenderFault\":false}]}",
        UPLINK_DELIVERED, 2);
    assert_false(v.rejected[0].again);
    assert_true(v.rejected[1].again);
    free(v.rejected);
    expect(&uplink_sqs, &sqs, b, 200, "{\"Successful\":[]}", UPLINK_RETRY, 0);
    expect(&uplink_sqs, &sqs, b, 200, "{}", UPLINK_RETRY, 0);
    expect(&uplink_sqs, &sqs, b, 400, "{\"__type\":\"com.amazonaws.sqs#QueueDoesNotExist\"}",
           UPLINK_HOLD, 0);
    expect(&uplink_sqs, &sqs, b, 400, "{\"__type\":\"BatchRequestTooLong\"}", UPLINK_SPLIT, 0);
    for (unsigned i = 0; i < 100; i++) {
        cloud_add(b, cloud_scan(8, 2 + i, i, 500), &t02);
    }
    assert_int_equal(uplink_sqs.encode(&sqs, &b->batch, &b->request), -E2BIG);
}

/* What SQS and its likes refuse in a message stands escaped, and comes out as it was. */
static void test_sqs_characters(void **state)
{
    struct cloud_batch *b = *state;
    static const char said[] = "a\xf0\x9f\x98\x80 \xef\xbf\xbe\xef\xbf\xbf \xef\xbf\xbd\xc3\xa9 "
                               "\xf4\x8f\xbf\xbd\x01z";
    cloud_text(cloud_add(b, cloud_scan(7, 1, 1000, 2), &t01), 1, said);
    json_t *body = json_loads(encode(b, &uplink_sqs, &sqs), 0, NULL);
    const char *message = json_string_value(
        json_object_get(json_array_get(json_object_get(body, "Entries"), 0), "MessageBody"));
    assert_non_null(message);
    assert_non_null(strstr(message, "a\\ud83d\\ude00 \\ufffe\\uffff \xef\xbf\xbd\xc3\xa9 \\udbff"));
    json_t *record = json_loads(message, 0, NULL);
    const char *text = json_string_value(
        json_object_get(json_object_get(record, "values"), t01.points[1].name));
    assert_non_null(text);
    assert_string_equal(text, said);
    json_decref(record);
    json_decref(body);
}

static void test_dynamodb_items(void **state)
{
    struct cloud_batch *b = *state;
    struct scan *s = cloud_add(b, cloud_scan(7, 5, 1769855400250, 3), &t01);
    s->readings[1] = (struct reading){
        .point = 1, .kind = VALUE_NULL, .quality = QUALITY_BAD_TIMEOUT};
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_REAL, .real = 1e300};
    const char *text = encode(b, &uplink_dynamodb, &dynamodb);
    assert_non_null(strstr(
        text,
        "{\"RequestItems\":{\"readings\":[{\"PutRequest\":{\"Item\":{"
        "\"pk\":{\"S\":\"borssele#t01.wind_speed\"},\"ts\":{\"N\":\"1769855400.250000000000005\"},"
        "\"value\":{\"N\":\"8.42\"},\"gateway\":{\"S\":\"borssele-1\"},"
        "\"store\":{\"S\":\"9f2c61d07a3b\"},\"stream\":{\"S\":\"raw\"},"
        "\"seq\":{\"N\":\"5\"},\"expires_at\":{\"N\":\"1769859000\"}}}}"));
    assert_non_null(strstr(text, "\"value\":{\"NULL\":true},\"quality\":{\"S\":\"bad:timeout\"}"));
    assert_non_null(strstr(text, "\"value\":{\"S\":\"1e+300\"}"));
    assert_null(strchr(text, '\n'));
}

/* 25 items a request; a key that would come twice begins a new one. */
static void test_dynamodb_chunks(void **state)
{
    struct cloud_batch *b = *state;
    cloud_add(b, cloud_scan(8, 1, 0, 30), &t02);
    cloud_add(b, cloud_scan(8, 2, 0, 10), &t02); /* the same millisecond */
    struct dynamodb_place at = {0};
    at = dynamodb_chunk_end(&b->batch, at);
    assert_true(at.record == 0 && at.reading == 25);
    at = dynamodb_chunk_end(&b->batch, at);
    assert_true(dynamodb_at_end(&b->batch, at)); /* 25..29 and 0..9 are other points */
    cloud_add(b, cloud_scan(8, 2, 0, 5), &t02);  /* the very same once more */
    at = dynamodb_chunk_end(&b->batch, (struct dynamodb_place){1, 0});
    assert_true(at.record == 2 && at.reading == 0);
}

/* Two scans of one millisecond are two items, and each of them the same one whatever batch it is
 * in: the seq stands behind the milliseconds. */
static void test_one_millisecond_holds_many_scans(void **state)
{
    struct cloud_batch *b = *state;
    cloud_add(b, cloud_scan(7, 18231, 1769855400250, 1), &t01);
    cloud_add(b, cloud_scan(7, 18232, 1769855400250, 1), &t01);
    const char *text = encode(b, &uplink_dynamodb, &dynamodb);
    assert_non_null(strstr(text, "\"ts\":{\"N\":\"1769855400.250000000018231\"}"));
    assert_non_null(strstr(text, "\"ts\":{\"N\":\"1769855400.250000000018232\"}"));
    assert_null(strchr(text, '\n')); /* one request */
    text = encode(b, &uplink_timestream, &timestream);
    assert_non_null(strstr(text, "\"Time\":\"1769855400250132810\""));
    assert_non_null(strstr(text, "\"Time\":\"1769855400250232810\""));
    b->batch.records++;
    b->batch.count = 1;
    assert_non_null(strstr(encode(b, &uplink_timestream, &timestream), "\"1769855400250232810\""));
    b->batch.records--;
    b->batch.count = 2;
    b->scans[0]->time_ms = INT64_MAX; /* a pushed time may be anything */
    b->scans[1]->time_ms = -5;
    assert_non_null(strstr(encode(b, &uplink_timestream, &timestream), "\"Time\":\"-4767190\""));
    assert_non_null(strstr(encode(b, &uplink_dynamodb, &dynamodb), "\"ts\":{\"N\":\"-0.005\"}"));
}

/* A point that is called like another one's quality, or like a dimension made unlike one. */
static void test_timestream_names_do_not_collide(void **state)
{
    struct cloud_batch *b = *state;
    static const struct store_point_name clash[] = {
        {"power", "", 5},           {"power_quality", "", 13},
        {"power_quality_", "", 14}, {"device", "", 6},
        {"device_", "", 7},         {"measure_name", "", 12},
        {"seq_quality", "", 11},    {"seq", "", 3}};
    static const struct store_names names = {"t01", "{\"type\":\"V90\"}", 8, clash};
    struct scan *s = cloud_add(b, cloud_scan(7, 1, 5, 8), &names);
    for (size_t i = 0; i < 8; i++) {
        s->readings[i].quality = QUALITY_UNCERTAIN;
    }
    json_t *body = json_loads(encode(b, &uplink_timestream, &timestream), 0, NULL);
    const json_t *record = json_array_get(json_object_get(body, "Records"), 0);
    const json_t *measures = json_object_get(record, "MeasureValues");
    json_t *seen = json_object();
    for (size_t i = 0; i < json_array_size(measures); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(measures, i), "Name"));
        json_object_set_new(seen, name, json_true());
    }
    assert_int_equal(json_array_size(measures), 17);
    assert_int_equal(json_object_size(seen), 17);
    static const char *const expected[] = {"power",         "power_quality", "power_quality_",
                                           "device_",       "device__",      "power_quality__",
                                           "measure_name_", "seq_"};
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_non_null(json_object_get(seen, expected[i]));
    }
    json_decref(seen);
    json_decref(body);
}

static void test_dynamodb_replies(void **state)
{
    struct cloud_batch *b = *state;
    cloud_add(b, cloud_scan(7, 1, 1000, 20), &t01);
    cloud_add(b, cloud_scan(7, 2, 2000, 20), &t01);
    cloud_add(b, cloud_scan(8, 1, 1000, 20), &t02);
    static const char *const none = "{\"UnprocessedItems\":{}}";
    char body[600];
    snprintf(body, sizeof body, "[%s,%s,%s]", none, none, none);
    expect(&uplink_dynamodb, &dynamodb, b, 200, body, UPLINK_DELIVERED, 0);

    /* One item of the second scan, written in another way. */
    snprintf(body, sizeof body,
             "[%s,{\"UnprocessedItems\":{\"readings\":[{\"PutRequest\":{\"Item\":{\"pk\":{\"S\":"
             "\"borssele#t01.point_12\"},\"ts\":{\"N\":\"2.0E0\"}}}}]}},%s]",
             none, none);
    struct uplink_verdict v = expect(&uplink_dynamodb, &dynamodb, b, 200, body, UPLINK_DELIVERED,
                                     1);
    assert_true(v.rejected[0].record == 1 && v.rejected[0].again);
    free(v.rejected);

    /* The second request of three was throttled: 25 items are in, so the first scan is. */
    snprintf(body, sizeof body,
             "[%s,{\"failed\":400,\"body\":\"{\\\"__type\\\":\\\"x#Throttling"
             "Exception\\\"}\"}]",
             none);
    v = expect(&uplink_dynamodb, &dynamodb, b, 200, body, UPLINK_DELIVERED, 2);
    assert_true(v.rejected[0].record == 1 && v.rejected[1].record == 2 && v.rejected[0].again);
    assert_non_null(strstr(v.rejected[0].why, "Throttling"));
    free(v.rejected);

    /* What is unprocessed under another form of the name, in no list, or is none of the chunk's,
     * may be any of its items: 25 are the first scan and a part of the second. */
    static const char *const odd[] = {
        "{\"arn:aws:dynamodb:eu-west-1:1:table/readings\":[{\"PutRequest\":{}}]}",
        "{\"readings\":{\"PutRequest\":{}}}",
        "{\"readings\":null}",
        "{\"readings\":[{\"PutRequest\":{\"Item\":{\"pk\":{\"S\":\"borssele#t09.point_1\"},"
        "\"ts\":{\"N\":\"1\"}}}}]}",
        "{\"readings\":[{\"DeleteRequest\":{}}]}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        snprintf(body, sizeof body, "[{\"UnprocessedItems\":%s},%s,%s]", odd[i], none, none);
        v = expect(&uplink_dynamodb, &dynamodb, b, 200, body, UPLINK_DELIVERED, 2);
        assert_true(v.rejected[0].record == 0 && v.rejected[1].record == 1 && v.rejected[1].again);
        free(v.rejected);
    }

    expect(&uplink_dynamodb, &dynamodb, b, 200, "[]", UPLINK_RETRY, 0);
    expect(&uplink_dynamodb, &dynamodb, b, 200, "[{}]", UPLINK_RETRY, 0);
    expect(&uplink_dynamodb, &dynamodb, b, 200, "<html>", UPLINK_RETRY, 0);
    expect(&uplink_dynamodb, &dynamodb, b, 400, "{\"__type\":\"ValidationException\"}",
           UPLINK_SPLIT, 0);
}

/* Whose keys are others would refuse every item: the settings are wrong, not the items. */
static void test_dynamodb_with_other_keys(void **state)
{
    struct cloud_batch *b = *state;
    static const char *const messages[] = {
        "The provided key element does not match the schema",
        "One of the required keys was not given a value",
        "One or more parameter values were invalid: Missing the key id in the item",
        "One or more parameter values were invalid: Type mismatch for key ts expected: S actual: N",
    };
    for (size_t i = 0; i < 2 * ARRAY_SIZE(messages); i++) {
        char body[300];
        snprintf(body, sizeof body, "{\"__type\":\"com.amazon.coral.validate#%s\",\"%s\":\"%s\"}",
                 "ValidationException", i % 2 == 0 ? "message" : "Message", messages[i / 2]);
        expect(&uplink_dynamodb, &dynamodb, b, 400, body, UPLINK_HOLD, 0);
    }
    expect(&uplink_dynamodb, &dynamodb, b, 400,
           "{\"__type\":\"ValidationException\",\"message\":\"Number overflow\"}", UPLINK_REJECTED,
           0);
}

/* A scan of which a later part is refused is refused; otherwise it would go round for ever. */
static void test_dynamodb_refuses_the_rest_of_one_scan(void **state)
{
    struct cloud_batch *b = *state;
    cloud_add(b, cloud_scan(7, 1, 1000, 30), &t01);
    expect(&uplink_dynamodb, &dynamodb, b, 200,
           "[{\"UnprocessedItems\":{}},{\"failed\":400,\"body\":\"{\\\"__type\\\":"
           "\\\"ValidationException\\\"}\"}]",
           UPLINK_REJECTED, 0);
}

/* -- keys and endpoints -- */

static int parse_ini(const char *text, struct aws_credentials *c)
{
    char words[AWS_WORDS_MAX] = "";
    int r = aws_credentials_parse_ini(text, strlen(text), c, words);
    assert_true((r == 0) == (words[0] == '\0'));
    return r;
}

static void test_credentials_file(void **state)
{
    (void)state;
    struct aws_credentials c;
    assert_int_equal(parse_ini("# x\n[other]\naws_access_key_id=A\naws_secret_access_key=B\n"
                               "[default]\r\naws_access_key_id = AKID \r\n"
                               "aws_secret_access_key=s/+=e\nregion = eu-west-1\n",
                               &c),
                     0);
    assert_string_equal(c.access_key, "AKID");
    assert_string_equal(c.secret_key, "s/+=e");
    assert_string_equal(c.session_token, "");
    assert_int_equal(parse_ini("[wind]\naws_access_key_id=A\naws_secret_access_key=B\n"
                               "aws_session_token=C\n[z]\naws_access_key_id=D",
                               &c),
                     0);
    assert_string_equal(c.access_key, "A");
    assert_string_equal(c.session_token, "C");
    assert_int_equal(parse_ini("", &c), -EINVAL);
    assert_int_equal(parse_ini("[default]\naws_access_key_id=A\n", &c), -EINVAL);
    assert_int_equal(parse_ini("nonsense\n", &c), -EINVAL);
    static char longest[2 * AWS_KEY_MAX] = "aws_access_key_id=";
    memset(longest + 18, 'A', AWS_KEY_MAX);
    assert_int_equal(parse_ini(longest, &c), -EINVAL);
}

static void test_credentials_of_the_provider(void **state)
{
    (void)state;
    struct aws_credentials c;
    char words[AWS_WORDS_MAX];
    static const char good[] =
        "{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"B\",\"sessionToken\":\"C\","
        "\"expiration\":\"2019-05-29T00:21:43Z\"}}";
    assert_int_equal(aws_credentials_parse_iot(good, strlen(good), &c, words), 0);
    assert_string_equal(c.session_token, "C");
    assert_int_equal(c.expires_ms, INT64_C(1559089303000));
    static const char *const bad[] = {
        "",
        "<html>",
        "{}",
        "{\"credentials\":{}}",
        "{\"credentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"B\",\"sessionToken\":\"C\"}"
        "}",
        "{\"credentials\":{\"accessKeyId\":1,\"secretAccessKey\":\"B\",\"sessionToken\":\"C\","
        "\"expiration\":\"2019-05-29T00:21:43Z\"}}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(aws_credentials_parse_iot(bad[i], strlen(bad[i]), &c, words), -EINVAL);
    }
}

static void test_sources(void **state)
{
    (void)state;
    enum aws_source source;
    const char *rest;
    assert_int_equal(aws_source_parse("file:/a", &source, &rest), 0);
    assert_true(source == AWS_FROM_FILE && strcmp(rest, "/a") == 0);
    assert_int_equal(aws_source_parse("env:", &source, &rest), 0);
    assert_int_equal(aws_source_parse("iot:https://x/", &source, &rest), 0);
    static const char *const bad[] = {"", "file:", "env:x", "iot:", "/etc/aws.ini"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(aws_source_parse(bad[i], &source, &rest), -EINVAL);
    }
}

static void test_endpoints(void **state)
{
    (void)state;
    char url[AWS_URL_MAX];
    int64_t minutes;
    assert_int_equal(aws_service_url("kinesis", "eu-west-1", url), 0);
    assert_string_equal(url, "https://kinesis.eu-west-1.amazonaws.com");
    assert_int_equal(aws_service_url("kinesis", "cn-north-1", url), 0);
    assert_string_equal(url, "https://kinesis.cn-north-1.amazonaws.com.cn");
    assert_int_equal(aws_service_url("kinesis", "evil.example/", url), -EINVAL);
    static const char good[] = "{\"Endpoints\":[{\"Address\":\"ingest-cell1.timestream.eu-west-1."
                               "amazonaws.com\",\"CachePeriodInMinutes\":1440}]}";
    assert_int_equal(aws_parse_endpoints(good, strlen(good), url, &minutes), 0);
    assert_string_equal(url, "https://ingest-cell1.timestream.eu-west-1.amazonaws.com");
    assert_int_equal(minutes, 1440);
    static const char *const bad[] = {
        "",
        "{}",
        "<html>",
        "{\"Endpoints\":[]}",
        "{\"Endpoints\":[{\"Address\":\"\",\"CachePeriodInMinutes\":1}]}",
        "{\"Endpoints\":[{\"Address\":\"x\"}]}",
        "{\"Endpoints\":[{\"Address\":\"http://example.com\",\"CachePeriodInMinutes\":1}]}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(aws_parse_endpoints(bad[i], strlen(bad[i]), url, &minutes), -EBADMSG);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cloud_batch_setup, cloud_batch_teardown)
    const struct CMUnitTest tests[] = {
        T(test_timestream_record),
        T(test_timestream_bounds),
        T(test_timestream_replies),
        T(test_kinesis),
        T(test_sqs),
        T(test_sqs_characters),
        T(test_dynamodb_items),
        T(test_dynamodb_chunks),
        T(test_one_millisecond_holds_many_scans),
        T(test_timestream_names_do_not_collide),
        T(test_dynamodb_replies),
        T(test_dynamodb_with_other_keys),
        T(test_dynamodb_refuses_the_rest_of_one_scan),
        cmocka_unit_test(test_credentials_file),
        cmocka_unit_test(test_credentials_of_the_provider),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
