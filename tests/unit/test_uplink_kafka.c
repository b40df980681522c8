/* Type kafka: topics, messages, what delivery reports mean, and the transport against librdkafka's
 * own mock cluster. */
#include "gateway/base/clock.h"
#include "tests/unit/batch_fixture.h"
#include "uplink/kafka/kafka.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

/* librdkafka makes its threads by C11's thrd_create(), which ThreadSanitizer does not see: it dies
 * in the first of them. */
#ifdef __SANITIZE_THREAD__
enum { THREADS_SEEN = 0 };
#else
enum { THREADS_SEEN = 1 };
#endif

static const char *const nowhere[] = {"127.0.0.1:1"};

static struct kafka_settings settings(int format)
{
    return (struct kafka_settings){.brokers = {nowhere, 1},
                                   .topic = "site.{gateway}.{stream}",
                                   .format = format,
                                   .compress = COMPRESS_ZSTD,
                                   .inflight = 4,
                                   .max_message = 960 * 1024,
                                   .line.timeout_ms = 5000,
                                   .line.connect_timeout_ms = 1000};
}

static void test_topics(void **state)
{
    (void)state;
    auto_buffer struct buffer out = {0};
    kafka_write_topic(&out, "a.{gateway}-{stream}_{device}", "gw 1", "raw", "t/1#\n\xff.x");
    assert_string_equal(buffer_text(&out), "a.gw_1-raw_t_1___.x");
    assert_null(kafka_topic_fault("windrow.{stream}"));
    assert_null(kafka_topic_fault("{device}"));
    static const char *const bad[] = {"", ".", "..", "a/b", "a b", "{devise}", "a{", "\xc3\xa4"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_non_null(kafka_topic_fault(bad[i]));
    }
    char name[KAFKA_TOPIC_MAX + 2];
    memset(name, 'a', sizeof name);
    name[KAFKA_TOPIC_MAX + 1] = '\0';
    assert_non_null(kafka_topic_fault(name));
    name[KAFKA_TOPIC_MAX] = '\0';
    assert_null(kafka_topic_fault(name));
}

static struct kafka_frame frame_at(struct batch_fixture *f, size_t *at)
{
    struct kafka_frame frame;
    assert_true(kafka_frame_next(&f->request.body, at, &frame));
    return frame;
}

static void test_messages(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 18231, 1);
    batch_add(f, &batch_t01, 7, 18232, 1);
    batch_add(f, &batch_t02, 8, 2, 1);
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    size_t at = 0;
    struct kafka_frame frame = frame_at(f, &at);
    static const char first[] = "{\"deviceId\":\"t01\",\"timestamp\":\"2026-01-31T10:30:18.231Z\","
                                "\"readings\":{\"wind_speed\":8.42},\"gateway\":\"borssele-1\","
                                "\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"seq\":18231}";
    assert_string_equal(frame.topic, "site.borssele-1.raw");
    assert_int_equal(frame.key_len, 3);
    assert_memory_equal(frame.key, "t01", 3);
    assert_int_equal(frame.len, sizeof first - 1);
    assert_memory_equal(frame.payload, first, frame.len);
    assert_int_equal(frame.records, 1);
    assert_true(frame.time_ms == 1769855418231);
    frame_at(f, &at);
    frame = frame_at(f, &at);
    assert_memory_equal(frame.key, "t\t0/2", 5);
    assert_false(kafka_frame_next(&f->request.body, &at, &frame));

    s = settings(MESSAGE_BATCH);
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    at = 0;
    assert_int_equal(frame_at(f, &at).records, 2);
    assert_int_equal(frame_at(f, &at).records, 1);
    assert_false(kafka_frame_next(&f->request.body, &at, &frame));
    s.max_message = KAFKA_RECORD_ROOM + 200;
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), -E2BIG);
}

static struct uplink_verdict judge(struct batch_fixture *f, int status, const char *code,
                                   const int16_t *fates, size_t count)
{
    struct uplink_reply reply = {.status = status,
                                 .code = code,
                                 .body = (const char *)fates,
                                 .len = count * sizeof *fates,
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "its words"};
    struct uplink_verdict verdict;
    kafka_judge(NULL, &f->batch, &reply, &verdict);
    return verdict;
}

static enum uplink_outcome outcome(struct batch_fixture *f, int16_t a, int16_t b, int16_t c)
{
    const int16_t fates[] = {a, b, c};
    struct uplink_verdict v = judge(f, 200, NULL, fates, 3);
    free(v.rejected);
    return v.outcome;
}

static void test_judge(void **state)
{
    struct batch_fixture *f = *state;
    for (uint64_t i = 1; i <= 3; i++) {
        batch_add(f, &batch_t01, 7, i, 1);
    }
    assert_int_equal(outcome(f, 0, 0, 0), UPLINK_DELIVERED);
    assert_int_equal(outcome(f, 29, 29, 29), UPLINK_HOLD);
    assert_int_equal(outcome(f, KAFKA_UNACKNOWLEDGED, 3, 3), UPLINK_HOLD);
    assert_int_equal(outcome(f, 7, 7, 7), UPLINK_RETRY);
    assert_int_equal(outcome(f, 10, 10, 10), UPLINK_DELIVERED); /* all of them dead letters */
    int16_t none = 0;
    assert_int_equal(judge(f, 200, NULL, &none, 0).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 200, NULL, &none, 1).outcome, UPLINK_RETRY);
    assert_int_equal(judge(f, 0, NULL, &none, 0).outcome, UPLINK_RETRY);
    struct uplink_verdict v = judge(f, 413, NULL, &none, 0);
    assert_int_equal(v.outcome, UPLINK_SPLIT);
    assert_non_null(strstr(v.why, "max_message"));
    v = judge(f, 0, "-169", &none, 0);
    assert_int_equal(v.outcome, UPLINK_HOLD);
    assert_non_null(strstr(v.why, "password_file"));
    assert_non_null(strstr(v.why, "its words"));
    assert_int_equal(judge(f, 0, "-148", &none, 0).outcome, UPLINK_RETRY);
    /* What is refused for good is no message but a connection here: nothing is thrown away. */
    assert_int_equal(judge(f, 0, "10", &none, 0).outcome, UPLINK_RETRY);

    const int16_t mixed[] = {0, KAFKA_UNACKNOWLEDGED, 87};
    v = judge(f, 200, NULL, mixed, 3);
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected_count, 2);
    assert_int_equal(v.rejected[0].record, 1);
    assert_true(v.rejected[0].again);
    assert_string_equal(v.rejected[0].why, "its words");
    assert_int_equal(v.rejected[1].record, 2);
    assert_false(v.rejected[1].again);
    free(v.rejected);
}

struct answer {
    int status;
    char words[200];
    size_t len;
    int16_t fates[BATCH_SCANS_MAX];
};

static void on_answer(void *user, const struct uplink_reply *reply)
{
    struct answer *a = user;
    a->status = reply->status;
    a->len = reply->len;
    memcpy(a->fates, reply->body, reply->len < sizeof a->fates ? reply->len : sizeof a->fates);
    snprintf(a->words, sizeof a->words, "done: %s", reply->error);
}

static void run_until_answered(void *transport, const struct answer *a)
{
    int64_t until_ms = clock_mono_ms() + 60000;
    while (a->words[0] == '\0' && clock_mono_ms() < until_ms) {
        assert_int_equal(transport_kafka.run(transport, -1, 100), 0);
    }
    assert_true(a->words[0] != '\0');
}

static void test_nobody_there(void **state)
{
    if (!THREADS_SEEN) {
        skip();
    }
    struct batch_fixture *f = *state;
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    struct answer a = {0};
    void *transport;
    batch_add(f, &batch_t01, 7, 1, 1);
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_kafka.create(&s, "gw", 1, &transport), 0);
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), -EBUSY);
    run_until_answered(transport, &a);
    assert_int_equal(a.status, 0);
    assert_non_null(strstr(a.words, "refused"));
    transport_kafka.destroy(transport);
}

/* Without TLS nothing leaves the machine, whatever address a cluster names. */
static void test_plain_stays_here(void **state)
{
    if (!THREADS_SEEN) {
        skip();
    }
    struct batch_fixture *f = *state;
    static const char *const elsewhere[] = {"192.0.2.1:9092"};
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    s.brokers.items = elsewhere;
    struct answer a = {0};
    void *transport;
    batch_add(f, &batch_t01, 7, 1, 1);
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_kafka.create(&s, "gw", 1, &transport), 0);
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    run_until_answered(transport, &a);
    assert_non_null(strstr(a.words, "not permitted"));
    transport_kafka.destroy(transport);
}

struct cluster {
    rd_kafka_t *keeper;
    rd_kafka_mock_cluster_t *mock;
    const char *bootstrap;
};

static struct cluster make_cluster(void)
{
    char words[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    assert_int_equal(rd_kafka_conf_set(conf, "log_level", "2", words, sizeof words), 0);
    struct cluster c = {.keeper = rd_kafka_new(RD_KAFKA_PRODUCER, conf, words, sizeof words)};
    assert_non_null(c.keeper);
    c.mock = rd_kafka_mock_cluster_new(c.keeper, 1);
    assert_non_null(c.mock);
    c.bootstrap = rd_kafka_mock_cluster_bootstraps(c.mock);
    assert_int_equal(rd_kafka_mock_topic_create(c.mock, "site.gw.raw", 1, 1), 0);
    return c;
}

static void end_cluster(struct cluster *c)
{
    rd_kafka_mock_cluster_destroy(c->mock);
    rd_kafka_destroy(c->keeper);
}

/* Twenty messages where four may be unacknowledged, two of them refused as too large: the batch
 * says it first, then each for itself. */
static void test_bounds_and_too_large(void **state)
{
    if (!THREADS_SEEN) {
        skip();
    }
    struct batch_fixture *f = *state;
    struct cluster c = make_cluster();
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    s.brokers.items = &c.bootstrap;
    f->batch.gateway = "gw";
    enum { MESSAGES = 20 };
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        batch_add(f, &batch_t01, 7, i, 1);
    }
    void *transport;
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_kafka.create(&s, "gw", 1, &transport), 0);
    struct answer a = {0};
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    run_until_answered(transport, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.len, MESSAGES * sizeof(int16_t));
    for (size_t i = 0; i < MESSAGES; i++) {
        assert_int_equal(a.fates[i], KAFKA_ACKNOWLEDGED);
    }
    rd_kafka_mock_push_request_errors(c.mock, 0, 2, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    a = (struct answer){0};
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    run_until_answered(transport, &a);
    assert_non_null(strstr(a.words, "one by one"));
    for (size_t i = 0; i < MESSAGES && a.status == 200; i++) {
        assert_int_equal(a.fates[i], KAFKA_UNACKNOWLEDGED);
    }
    a = (struct answer){0};
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    run_until_answered(transport, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.fates[0], RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    assert_true(transport_kafka.bytes_sent(transport) < 1000000);
    transport_kafka.destroy(transport);
    end_cluster(&c);
}

/* Ten batches and more, of which the first is refused: what the library has not yet sent by then is
 * not sent behind it. Of the five that are on their way a broker refuses those behind it, too; the
 * mock cluster takes them. */
static void test_nothing_passes_a_refused_batch(void **state)
{
    if (!THREADS_SEEN) {
        skip();
    }
    struct batch_fixture *f = *state;
    struct cluster c = make_cluster();
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    s.brokers.items = &c.bootstrap;
    s.max_message = 1500;
    s.inflight = BATCH_SCANS_MAX;
    s.compress = COMPRESS_NONE;
    f->batch.gateway = "gw";
    for (uint64_t i = 1; i <= BATCH_SCANS_MAX; i++) {
        batch_add(f, &batch_t01, 7, i, 1);
    }
    assert_int_equal(rd_kafka_mock_broker_set_rtt(c.mock, 1, 100), 0);
    rd_kafka_mock_push_request_errors(c.mock, 0, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    void *transport;
    struct answer a = {0};
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_kafka.create(&s, "gw", 1, &transport), 0);
    assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
    run_until_answered(transport, &a);
    assert_non_null(strstr(a.words, "one by one"));
    if (a.status == 200) {
        assert_int_equal(a.fates[0], KAFKA_UNACKNOWLEDGED);
        assert_int_equal(a.fates[BATCH_SCANS_MAX - 1], KAFKA_UNACKNOWLEDGED);
    }
    transport_kafka.destroy(transport);
    end_cluster(&c);
}

/* A broker that goes and comes back while nothing is sent, or while something waits for it: the
 * same producer goes on. */
static void test_a_broker_that_comes_back(void **state)
{
    if (!THREADS_SEEN) {
        skip();
    }
    struct batch_fixture *f = *state;
    struct cluster c = make_cluster();
    struct kafka_settings s = settings(MESSAGE_TELEMETRY);
    s.brokers.items = &c.bootstrap;
    f->batch.gateway = "gw";
    s.line.connect_timeout_ms = s.line.timeout_ms =
        15000; /* longer than any pause between attempts */
    batch_add(f, &batch_t01, 7, 1, 1);
    void *transport;
    assert_int_equal(kafka_encode(&s, &f->batch, &f->request), 0);
    assert_int_equal(transport_kafka.create(&s, "gw", 1, &transport), 0);
    for (int round = 0; round < 3; round++) {
        struct answer a = {0};
        assert_int_equal(transport_kafka.send(transport, &f->request, on_answer, &a), 0);
        for (int i = 0; round == 2 && i < 4; i++) {
            assert_int_equal(transport_kafka.run(transport, -1, 50), 0);
        }
        assert_int_equal(rd_kafka_mock_broker_set_up(c.mock, 1), 0);
        run_until_answered(transport, &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.fates[0], KAFKA_ACKNOWLEDGED);
        assert_int_equal(rd_kafka_mock_broker_set_down(c.mock, 1), 0);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(transport_kafka.run(transport, -1, 50), 0);
        }
    }
    transport_kafka.destroy(transport);
    end_cluster(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topics),
        cmocka_unit_test_setup_teardown(test_messages, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_judge, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_plain_stays_here, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_bounds_and_too_large, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_passes_a_refused_batch, batch_setup,
                                        batch_teardown),
        cmocka_unit_test_setup_teardown(test_a_broker_that_comes_back, batch_setup, batch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
