/* Type iot-https: requests and replies of AWS IoT Core's HTTPS publish. */
#include "tests/unit/batch_fixture.h"
#include "uplink/iot/iot.h"

#include <errno.h>

static struct iot_settings settings(int payload)
{
    return (struct iot_settings){
        .transport = {.url = "https://abc-ats.iot.eu-west-1.amazonaws.com:8443"},
        .topic = "$aws/rules/wind/sensors/{device}/{stream}",
        .payload = payload,
        .max_payload = IOT_PAYLOAD_MAX};
}

static void test_a_request_is_a_message(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t02, 8, 2, 1);
    struct iot_settings s = settings(MESSAGE_TELEMETRY);
    assert_int_equal(uplink_iot_https.records_limit(&s), 1);
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), 0);
    assert_string_equal(f->request.path,
                        "/topics/%24aws%2Frules%2Fwind%2Fsensors%2Ft_0_2%2Fraw?qos=1");
    static const char body[] = "{\"deviceId\":\"t\\u00090/2\",\"timestamp\":"
                               "\"2026-01-31T10:30:00.002Z\",\"readings\":{\"wind_speed\":8.42},"
                               "\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\","
                               "\"stream\":\"raw\",\"seq\":2}";
    assert_int_equal(f->request.body.len, sizeof body - 1);
    assert_memory_equal(f->request.body.data, body, sizeof body - 1);
}

static void test_a_batch_is_of_one_device(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 1, 1);
    batch_add(f, &batch_t01, 7, 2, 1);
    batch_add(f, &batch_t02, 8, 1, 1);
    struct iot_settings s = settings(MESSAGE_BATCH);
    assert_int_equal(iot_together(&s, &f->batch), 2);
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), -E2BIG);
    f->batch.count = 2;
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), 0);
    s.max_payload = 200;
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), -E2BIG);
    s = settings(MESSAGE_BATCH);
    s.topic = "all/{stream}";
    f->batch.count = 3;
    assert_int_equal(iot_together(&s, &f->batch), 3);
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), 0);
    assert_string_equal(f->request.path, "/topics/all%2Fraw?qos=1");
}

/* The worst that topic and names can make of it fits a request's path. */
static void test_the_longest_topic_fits_or_is_told(void **state)
{
    struct batch_fixture *f = *state;
    char form[257];
    memset(form, '/', 256);
    form[256] = '\0';
    batch_add(f, &batch_t01, 7, 1, 1);
    struct iot_settings s = settings(MESSAGE_TELEMETRY);
    s.topic = form;
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), 0);
    char device[1200];
    memset(device, 'a', sizeof device - 1);
    device[sizeof device - 1] = '\0';
    struct store_names names = {device, "", 4, batch_points};
    f->records[0].names = &names;
    s.topic = "{device}";
    assert_int_equal(iot_encode(&s, &f->batch, &f->request), -ENAMETOOLONG);
}

static void test_alpn(void **state)
{
    (void)state;
    struct iot_settings s = settings(MESSAGE_BATCH);
    assert_null(iot_alpn(&s));
    s.transport.url = "https://abc-ats.iot.eu-west-1.amazonaws.com";
    assert_string_equal(iot_alpn(&s), "x-amzn-http-ca");
    s.transport.url = "https://abc-ats.iot.cn-north-1.amazonaws.com.cn:443/";
    assert_string_equal(iot_alpn(&s), "x-amzn-http-ca");
    s.transport.url = "https://iot.example.com:443";
    assert_null(iot_alpn(&s));
    s.transport.alpn = "other";
    assert_string_equal(iot_alpn(&s), "other");
}

static struct uplink_verdict judge(struct batch_fixture *f, int status, const char *body)
{
    struct uplink_reply reply = {.status = status,
                                 .body = body,
                                 .len = strlen(body),
                                 .content_type = "application/json",
                                 .retry_after_ms = -1,
                                 .error = "no route"};
    struct uplink_verdict verdict;
    iot_judge(NULL, &f->batch, &reply, &verdict);
    return verdict;
}

static void test_judge(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 1, 1);
    static const char ok[] = "{\"message\":\"OK\",\"traceId\":\"6d2b7bf8-4c1b\"}";
    assert_int_equal(judge(f, 200, ok).outcome, UPLINK_DELIVERED);
    assert_int_equal(judge(f, 200, "").outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 200, "{\"message\":\"OK\"}").outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 200, "<html>").outcome, UPLINK_RETRY);
    static const struct {
        int status;
        enum uplink_outcome outcome;
        const char *words;
    } cases[] = {
        {400, UPLINK_HOLD, "topic"},       {401, UPLINK_HOLD, "active"},
        {403, UPLINK_HOLD, "iot:Publish"}, {404, UPLINK_HOLD, "url"},
        {413, UPLINK_SPLIT, "too large"},  {429, UPLINK_RETRY, "slow down"},
        {500, UPLINK_RETRY, "in trouble"}, {503, UPLINK_RETRY, "in trouble"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct uplink_verdict v = judge(f, cases[i].status, "{\"message\":null,\"traceId\":\"x\"}");
        assert_int_equal(v.outcome, cases[i].outcome);
        assert_non_null(strstr(v.why, cases[i].words));
    }
    assert_int_equal(judge(f, 0, "").outcome, UPLINK_RETRY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_request_is_a_message, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_a_batch_is_of_one_device, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_the_longest_topic_fits_or_is_told, batch_setup,
                                        batch_teardown),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test_setup_teardown(test_judge, batch_setup, batch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
