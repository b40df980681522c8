/* What no type over HTTP takes for an acknowledgement: pages, empty and foreign answers, counts
 * that lie. Each type's own true answer is a lie to all others, and shows that the test can see. */
#include "cloud_batch.h"
#include "uplink/dynamodb/dynamodb.h"
#include "uplink/http/http.h"
#include "uplink/influx/influx.h"
#include "uplink/iot/iot.h"
#include "uplink/kinesis/kinesis.h"
#include "uplink/s3/s3.h"
#include "uplink/sqs/sqs.h"
#include "uplink/timestream/timestream.h"

#define AWS                                                                                        \
    {                                                                                              \
        .region = "eu-west-1", .credentials = "file:/etc/windrow/aws.ini"                          \
    }
enum { RECORDS = 3 };

static const struct store_point_name points[] = {{"wind_speed", "m/s", 10}, {"power", "kW", 5}};
static const struct store_names t01 = {"t01", "", 2, points}, t02 = {"t02", "", 2, points};
static const struct http_settings http = {.ack = HTTP_ACK_BODY};
static const struct influx_settings v1 = {.version = INFLUX_V1}, v2 = {.version = INFLUX_V2},
                                    v3 = {.version = INFLUX_V3};
static const struct iot_settings iot = {.topic = "t"};
static const struct kinesis_settings kinesis = {.aws = AWS, .stream_name = "s"};
static const struct sqs_settings sqs = {.aws = AWS, .queue_url = "https://q/1/r"};
static const struct dynamodb_settings dynamodb = {
    .aws = AWS, .table = "t", .user = "u", .partition_key = "pk", .sort_key = "ts"};
static const struct timestream_settings timestream = {
    .aws = AWS, .database = "d", .table = "t", .measure = "m"};
static const struct s3_settings s3 = {.aws = AWS, .bucket = "b", .prefix = "p"};

#define PUT "{\"SequenceNumber\":\"4\",\"ShardId\":\"s\"}"

/* truth NULL: it does not stand in the body. */
static const struct {
    const struct uplink *type;
    const void *settings;
    int status;
    const char *truth;
} types[] = {
    {&uplink_http, &http, 200, "{\"accepted\":3}"},
    {&uplink_influx, &v1, 204, ""},
    {&uplink_influx, &v2, 204, ""},
    {&uplink_influx, &v3, 204, ""},
    {&uplink_iot_https, &iot, 200, "{\"message\":\"OK\",\"traceId\":\"1-2\"}"},
    {&uplink_kinesis, &kinesis, 200,
     "{\"FailedRecordCount\":0,\"Records\":[" PUT "," PUT "," PUT "]}"},
    {&uplink_sqs, &sqs, 200, "{\"Successful\":[{\"Id\":\"0\"},{\"Id\":\"1\"},{\"Id\":\"2\"}]}"},
    {&uplink_dynamodb, &dynamodb, 200, "[{\"UnprocessedItems\":{}}]"},
    {&uplink_timestream, &timestream, 200, "{\"RecordsIngested\":{\"Total\":3}}"},
    {&uplink_s3, &s3, 200, NULL},
};

static size_t delivered(size_t which, const struct cloud_batch *b, int status, const char *body)
{
    struct uplink_verdict v = cloud_judge(types[which].type, types[which].settings, b, status,
                                          body);
    size_t n = v.outcome == UPLINK_DELIVERED ? b->batch.count - v.rejected_count : 0;
    if (v.outcome != UPLINK_DELIVERED) {
        assert_true(v.why[0] != '\0');
    }
    free(v.rejected);
    return n;
}

static void expect_none(size_t which, const struct cloud_batch *b, int status, const char *body)
{
    size_t n = delivered(which, b, status, body);
    if (n > 0) {
        print_error("%s believes %zu of %d under %d: %s\n", types[which].type->name, n, RECORDS,
                    status, body);
    }
    assert_int_equal(n, 0);
}

static int setup(void **state)
{
    int r = cloud_batch_setup(state);
    cloud_add(*state, cloud_scan(7, 1, 1000, 2), &t01);
    cloud_add(*state, cloud_scan(7, 2, 2000, 2), &t01);
    cloud_add(*state, cloud_scan(8, 1, 1000, 2), &t02);
    return r;
}

static void test_all_types_are_here(void **state)
{
    (void)state;
    for (size_t i = 0; i < uplinks_count; i++) {
        static const char *const others[] = {"file", "kafka", "mqtt", "postgres"};
        bool found = false;
        for (size_t k = 0; k < ARRAY_SIZE(types); k++) {
            found |= types[k].type == uplinks[i];
        }
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            found |= strcmp(others[k], uplinks[i]->name) == 0;
        }
        assert_true(found);
    }
}

static void test_the_truth_of_one_is_a_lie_to_all_others(void **state)
{
    static const int statuses[] = {200, 201, 202, 203, 205, 206, 299};
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(types); k++) {
            const char *body = types[k].truth;
            if (body == NULL || types[i].type == types[k].type) {
                continue;
            }
            expect_none(i, *state, types[k].status, body);
            for (size_t s = 0; s < ARRAY_SIZE(statuses); s++) {
                expect_none(i, *state, statuses[s], body);
            }
        }
        if (types[i].truth != NULL) {
            assert_int_equal(delivered(i, *state, types[i].status, types[i].truth), RECORDS);
        }
    }
}

static void test_what_anybody_may_answer(void **state)
{
    static const char *const bodies[] = {
        "",
        "OK",
        "{}",
        "[]",
        "[[]]",
        "null",
        "true",
        "3",
        "\"3\"",
        "[{}]",
        "[{},{},{}]",
        "<html>Please log in</html>",
        "{",
        "\xff\xfe",
        "[1]",
        "{\"ok\":true}",
        "{\"count\":3}",
        "{\"message\":\"OK\"}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(bodies); k++) {
            expect_none(i, *state, 200, bodies[k]);
            expect_none(i, *state, 302, bodies[k]);
            expect_none(i, *state, 500, bodies[k]);
        }
    }
}

static void expect_lies(void **state, const struct uplink *type, const char *const *bodies)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        for (size_t k = 0; types[i].type == type && bodies[k] != NULL; k++) {
            expect_none(i, *state, 200, bodies[k]);
        }
    }
}

static void test_counts_that_lie(void **state)
{
    static const char *const accepted[] = {"{\"accepted\":2}",
                                           "{\"accepted\":4}",
                                           "{\"accepted\":-3}",
                                           "{\"accepted\":3.0}",
                                           "{\"accepted\":\"3\"}",
                                           "{\"accepted\":18446744073709551619}",
                                           "{\"accepted\":3,\"rejected\":[{\"seq\":99}]}",
                                           "{\"accepted\":NaN}",
                                           NULL};
    static const char *const totals[] = {"{\"RecordsIngested\":{\"Total\":4}}",
                                         "{\"RecordsIngested\":{\"Total\":-3}}",
                                         "{\"RecordsIngested\":{\"Total\":3.0}}",
                                         "{\"RecordsIngested\":{\"Total\":4294967299}}",
                                         "{\"RecordsIngested\":3}",
                                         NULL};
    static const char *const puts[] = {"{\"FailedRecordCount\":0,\"Records\":[" PUT "," PUT "]}",
                                       "{\"FailedRecordCount\":0,\"Records\":[" PUT "," PUT "," PUT
                                       "," PUT "]}",
                                       "{\"FailedRecordCount\":0,\"Records\":[{},{},{}]}",
                                       "{\"FailedRecordCount\":0,\"Records\":[null,3,\"x\"]}",
                                       "{\"FailedRecordCount\":0}",
                                       NULL};
    static const char *const messages[] = {
        "{\"Successful\":[]}", "{\"Successful\":[{\"Id\":\"3\"},{\"Id\":\"-1\"},{\"Id\":1}]}",
        "{\"Successful\":[null,null,null]}", "{\"Successful\":{\"Id\":\"0\"}}", NULL};
    static const char *const items[] = {"[{\"UnprocessedItems\":null}]",
                                        "[{\"UnprocessedItems\":[]}]",
                                        "[{\"UnprocessedItems\":{\"t\":[{}]}}]",
                                        "[{\"UnprocessedItems\":{\"arn:t\":[{}]}}]",
                                        "[{\"failed\":200}]",
                                        NULL};
    expect_lies(state, &uplink_http, accepted);
    expect_lies(state, &uplink_timestream, totals);
    expect_lies(state, &uplink_kinesis, puts);
    expect_lies(state, &uplink_sqs, messages);
    expect_lies(state, &uplink_dynamodb, items);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, cloud_batch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_all_types_are_here),
        T(test_the_truth_of_one_is_a_lie_to_all_others),
        T(test_what_anybody_may_answer),
        T(test_counts_that_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
