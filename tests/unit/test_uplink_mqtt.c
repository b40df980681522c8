/* Type mqtt without a broker: topics, messages, and what acknowledgements mean. */
#include "tests/unit/batch_fixture.h"
#include "uplink/mqtt/mqtt.h"

#include <errno.h>
#include <mqtt_protocol.h>

static struct mqtt_settings settings(int payload)
{
    return (struct mqtt_settings){.url = "mqtt://127.0.0.1:1",
                                  .topic = "sensors/{device}/telemetry",
                                  .payload = payload,
                                  .inflight = 4,
                                  .max_payload = 128 * 1024,
                                  .keep_alive_ms = 60000,
                                  .line.timeout_ms = 1000,
                                  .line.connect_timeout_ms = 1000};
}

static void test_targets(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host;
        int port;
        bool tls, local, aws;
    } good[] = {
        {"mqtt://127.0.0.1", "127.0.0.1", 1883, false, true, false},
        {"mqtts://broker.example.com", "broker.example.com", 8883, true, false, false},
        {"mqtts://[::1]:443/", "::1", 443, true, true, false},
        {"MQTTS://localhost:1", "localhost", 1, true, true, false},
        {"mqtts://abc-ats.iot.eu-west-1.amazonaws.com:443", "abc-ats.iot.eu-west-1.amazonaws.com",
         443, true, false, true},
    };
    struct mqtt_target t;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(mqtt_target_parse(good[i].url, &t));
        assert_string_equal(t.host, good[i].host);
        assert_int_equal(t.port, good[i].port);
        assert_int_equal(t.tls, good[i].tls);
        assert_int_equal(t.local, good[i].local);
        assert_int_equal(t.aws, good[i].aws);
    }
    static const char *const bad[] = {"http://x",      "mqtts://x/path", "mqtts://x?q",
                                      "mqtts://:1",    "mqtts://[::1",   "mqtt://x:0",
                                      "mqtt://x:65536"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(mqtt_target_parse(bad[i], &t));
    }
}

static void test_topics(void **state)
{
    (void)state;
    auto_buffer struct buffer out = {0};
    mqtt_write_topic(&out, "a/{gateway}/{stream}/{device}/{x}", "gw", "raw", "t+0/1#\n\xff");
    assert_string_equal(buffer_text(&out), "a/gw/raw/t_0_1___/{x}");
    assert_null(mqtt_topic_fault("a/{gateway}/{device}", true, true));
    assert_null(mqtt_topic_fault("$aws/rules/r/1/2/3/4/5/6/7/8", true, true));
    assert_non_null(mqtt_topic_fault("$aws/rules/r/1/2/3/4/5/6/7/8/9", true, true));
    assert_null(mqtt_topic_fault("1/2/3/4/5/6/7/8", true, true));
    assert_non_null(mqtt_topic_fault("1/2/3/4/5/6/7/8/9", true, true));
    assert_null(mqtt_topic_fault("1/2/3/4/5/6/7/8/9", true, false));
    assert_non_null(mqtt_topic_fault("a/{devise}", true, false));
    assert_non_null(mqtt_topic_fault("a/{device}", false, false));
    assert_non_null(mqtt_topic_fault("a/+/b", true, false));
    assert_non_null(mqtt_topic_fault("", true, false));
}

static struct mqtt_frame frame_at(struct batch_fixture *f, size_t *at)
{
    struct mqtt_frame frame;
    assert_true(mqtt_frame_next(&f->request.body, at, &frame));
    return frame;
}

static void assert_payload(struct mqtt_frame frame, const char *expected)
{
    assert_int_equal(frame.len, strlen(expected));
    assert_memory_equal(frame.payload, expected, frame.len);
}

static void test_a_message_a_scan(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 18231, 1);
    struct scan *s = batch_add(f, &batch_t02, 8, 2, 2);
    s->readings[1] = (struct reading){.point = 1, .quality = QUALITY_BAD_TIMEOUT};
    s->window_s = 600;
    struct mqtt_settings telemetry = settings(MQTT_TELEMETRY);
    assert_int_equal(uplink_mqtt.encode(&telemetry, &f->batch, &f->request), 0);
    size_t at = 0;
    struct mqtt_frame frame = frame_at(f, &at);
    assert_string_equal(frame.topic, "sensors/t01/telemetry");
    assert_int_equal(frame.records, 1);
    assert_payload(frame, "{\"deviceId\":\"t01\",\"timestamp\":\"2026-01-31T10:30:18.231Z\","
                          "\"readings\":{\"wind_speed\":8.42},\"gateway\":\"borssele-1\","
                          "\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"seq\":18231}");
    frame = frame_at(f, &at);
    assert_string_equal(frame.topic, "sensors/t_0_2/telemetry");
    assert_payload(frame, "{\"deviceId\":\"t\\u00090/2\",\"timestamp\":"
                          "\"2026-01-31T10:30:00.002Z\",\"readings\":{\"wind_speed\":8.42,"
                          "\"power\":null},\"quality\":{\"power\":\"bad:timeout\"},"
                          "\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\","
                          "\"stream\":\"raw\",\"window_s\":600,\"seq\":2}");
    assert_false(mqtt_frame_next(&f->request.body, &at, &frame));
    struct mqtt_settings record = settings(MQTT_RECORD);
    f->batch.count = 1;
    assert_int_equal(uplink_mqtt.encode(&record, &f->batch, &f->request), 0);
    f->batch.count = 2;
    at = 0;
    assert_payload(frame_at(f, &at),
                   "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\","
                   "\"seq\":18231,\"device\":\"t01\",\"time\":\"2026-01-31T10:30:18.231Z\","
                   "\"tags\":{\"type\":\"V90\"},\"values\":{\"wind_speed\":8.42}}");
}

static void test_batches_are_grouped(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 1, 1);
    batch_add(f, &batch_t01, 7, 2, 1);
    batch_add(f, &batch_t02, 8, 1, 1);
    struct mqtt_settings s = settings(MQTT_BATCH);
    assert_int_equal(uplink_mqtt.encode(&s, &f->batch, &f->request), 0);
    size_t at = 0;
    assert_int_equal(frame_at(f, &at).records, 2);
    assert_int_equal(frame_at(f, &at).records, 1);
    s.topic = "all/{stream}";
    assert_int_equal(uplink_mqtt.encode(&s, &f->batch, &f->request), 0);
    at = 0;
    struct mqtt_frame frame = frame_at(f, &at);
    assert_string_equal(frame.topic, "all/raw");
    assert_int_equal(frame.records, 3);
    s.max_payload = 200;
    assert_int_equal(uplink_mqtt.encode(&s, &f->batch, &f->request), -E2BIG);
}

static struct uplink_verdict judge(struct batch_fixture *f, int status, const char *code,
                                   const char *fates, size_t len)
{
    struct uplink_reply reply = {.status = status,
                                 .code = code,
                                 .body = fates,
                                 .len = len,
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "its words"};
    struct uplink_verdict verdict;
    uplink_mqtt.judge(NULL, &f->batch, &reply, &verdict);
    return verdict;
}

static void test_judge(void **state)
{
    struct batch_fixture *f = *state;
    for (uint64_t i = 1; i <= 3; i++) {
        batch_add(f, &batch_t01, 7, i, 1);
    }
    assert_int_equal(judge(f, 200, NULL, "\0\0\0", 3).outcome, UPLINK_DELIVERED);
    assert_int_equal(judge(f, 200, NULL, "\0\0", 2).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 200, NULL, "", 0).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 0, NULL, "", 0).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 413, NULL, "", 0).outcome, UPLINK_SPLIT);
    assert_int_equal(judge(f, 400, "0x86", "", 0).outcome, UPLINK_HOLD);
    assert_int_equal(judge(f, 400, "0x87", "", 0).outcome, UPLINK_HOLD);
    assert_int_equal(judge(f, 400, "0x8e", "", 0).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 200, NULL, "\x90\x90\x90", 3).outcome, UPLINK_HOLD);

    /* The second was not acknowledged, the third is refused for what it is. */
    struct uplink_verdict v = judge(f, 200, NULL, "\0\x01\x99", 3);
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected_count, 2);
    assert_int_equal(v.rejected[0].record, 1);
    assert_true(v.rejected[0].again);
    assert_string_equal(v.rejected[0].why, "its words");
    assert_int_equal(v.rejected[1].record, 2);
    assert_false(v.rejected[1].again);
    free(v.rejected);
    /* Topics that are not allowed: the connection is, so each record is put off by itself. */
    v = judge(f, 200, NULL, "\x87\x87\x87", 3);
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(v.rejected[i].again);
    }
    free(v.rejected);
    v = judge(f, 200, NULL, "\x01\x01\x01", 3);
    assert_int_equal(v.outcome, UPLINK_RETRY);
    free(v.rejected);
}

static void on_answer(void *user, const struct uplink_reply *reply)
{
    char *words = user;
    snprintf(words, 200, "%d %s", reply->status, reply->error);
}

static void test_refused_connection_and_bounds(void **state)
{
    struct batch_fixture *f = *state;
    struct mqtt_settings s = settings(MQTT_TELEMETRY);
    char words[200] = "";
    void *transport;
    batch_add(f, &batch_t01, 7, 1, 1);
    assert_int_equal(uplink_mqtt.encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_mqtt.create(&s, "gw", 1, &transport), 0);
    assert_int_equal(transport_mqtt.send(transport, &f->request, on_answer, words), 0);
    assert_int_equal(transport_mqtt.send(transport, &f->request, on_answer, words), -EBUSY);
    for (int i = 0; i < 100 && words[0] == '\0'; i++) {
        assert_int_equal(transport_mqtt.run(transport, -1, 100), 0);
    }
    assert_int_equal(words[0], '0');
    assert_non_null(strstr(words, "refused"));
    transport_mqtt.destroy(transport);
    assert_int_equal(uplink_mqtt.records_limit(&s), MQTT_MESSAGES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_topics),
        cmocka_unit_test_setup_teardown(test_a_message_a_scan, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_batches_are_grouped, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_judge, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_refused_connection_and_bounds, batch_setup,
                                        batch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
