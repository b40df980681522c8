/* The encoders against the documents that users see, and what replies mean. */
#include "gateway/base/clock.h"
#include "uplink/http/http.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

enum { SCANS = 8, POINTS = 4 };

static const struct store_point_name t01_points[] = {
    {"wind_speed", "m/s", 10}, {"power", "kW", 5}, {"grid_ok", "", 7}, {"odd \"name\"", "", 10}};
static const struct store_names t01 = {"t01", "{\"type\":\"V90\"}", POINTS, t01_points};
static const struct store_names t02 = {"t02", "", POINTS, t01_points};

struct fixture {
    struct scan *scans[SCANS];
    struct batch_record records[SCANS];
    struct batch batch;
    struct uplink_request request;
};

static struct scan *make_scan(uint32_t device, uint64_t seq, int64_t time_ms, uint16_t count)
{
    struct scan *s = calloc(1, scan_size_for(count, 16));
    assert_non_null(s);
    *s = (struct scan){.seq = seq, .time_ms = time_ms, .device = device, .count = count};
    for (uint16_t i = 0; i < count; i++) {
        s->readings[i] = (struct reading){
            .point = i, .kind = VALUE_DECIMAL, .exponent = -2, .integer = 842 + i};
    }
    return s;
}

static void add(struct fixture *f, struct scan *scan, const struct store_names *names)
{
    size_t i = f->batch.count++;
    f->scans[i] = scan;
    f->records[i] = (struct batch_record){.scan = scan, .names = names};
    f->batch.records = f->records;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->batch.gateway = "borssele-1";
    f->batch.store_id = "9f2c61d07a3b";
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->batch.count; i++) {
        free(f->scans[i]);
    }
    buffer_finish(&f->request.body);
    buffer_finish(&f->request.headers);
    free(f);
    return 0;
}

static const char *encode(struct fixture *f, int format)
{
    struct http_settings settings = {.format = format};
    assert_int_equal(uplink_http.encode(&settings, &f->batch, &f->request), 0);
    return buffer_text(&f->request.body);
}

static void one_turbine(struct fixture *f)
{
    struct scan *s = make_scan(7, 18231, 1769855400000, 3);
    s->readings[1] = (struct reading){.point = 1,
                                      .kind = VALUE_DECIMAL,
                                      .exponent = -1,
                                      .integer = 13125,
                                      .quality = QUALITY_UNCERTAIN};
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_BOOL, .integer = 1};
    add(f, s, &t01);
}

static void test_batch_is_as_promised(void **state)
{
    struct fixture *f = *state;
    one_turbine(f);
    assert_string_equal(
        encode(f, HTTP_BATCH),
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"records\":["
        "{\"seq\":18231,\"device\":\"t01\",\"time\":\"2026-01-31T10:30:00.000Z\","
        "\"tags\":{\"type\":\"V90\"},\"values\":{\"wind_speed\":8.42,\"power\":1312.5,"
        "\"grid_ok\":true},\"quality\":{\"power\":\"uncertain\"}}]}");
    assert_string_equal(f->request.content_type, "application/json");
}

static void test_batch_bad_and_foreign_points(void **state)
{
    struct fixture *f = *state;
    struct scan *s = make_scan(8, 1, 1769855400001, 4);
    s->readings[0] = (struct reading){.kind = VALUE_NULL, .quality = QUALITY_BAD_TIMEOUT};
    s->readings[1].point = 40; /* younger than these names */
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_TEXT, .text = {0, 3}};
    memcpy((char *)&s->readings[4], "a\"b", 3);
    s->text_len = 3;
    add(f, s, &t02);
    f->batch.stream = STREAM_AGGREGATE;
    s->window_s = 600;
    assert_string_equal(
        encode(f, HTTP_BATCH),
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"aggregate\","
        "\"records\":[{\"seq\":1,\"device\":\"t02\",\"time\":\"2026-01-31T10:30:00.001Z\","
        "\"window_s\":600,\"values\":{\"wind_speed\":null,\"point_40\":8.43,"
        "\"grid_ok\":\"a\\\"b\",\"odd \\\"name\\\"\":8.45},"
        "\"quality\":{\"wind_speed\":\"bad:timeout\"}}]}");
}

static void test_only_selected_readings_go_out(void **state)
{
    struct fixture *f = *state;
    static const uint16_t selected[] = {1};
    add(f, make_scan(7, 5, 0, 4), &t02);
    f->records[0].selected = selected;
    f->records[0].selected_count = 1;
    assert_string_equal(encode(f, HTTP_FLAT), "{\"location\":\"t02\",\"time\":"
                                              "\"1970-01-01T00:00:00.000Z\",\"power\":8.43}");
    assert_non_null(strstr(encode(f, HTTP_COLUMNS), "\"points\":[\"power\"]"));
}

static void test_telemetry(void **state)
{
    struct fixture *f = *state;
    one_turbine(f);
    add(f, make_scan(8, 2, 1769855401000, 1), &t02);
    assert_string_equal(encode(f, HTTP_TELEMETRY),
                        "[{\"deviceId\":\"t01\",\"timestamp\":\"2026-01-31T10:30:00.000Z\","
                        "\"readings\":{\"wind_speed\":8.42,\"power\":1312.5,\"grid_ok\":true}},"
                        "{\"deviceId\":\"t02\",\"timestamp\":\"2026-01-31T10:30:01.000Z\","
                        "\"readings\":{\"wind_speed\":8.42}}]");
}

static void test_flat_takes_one_scan(void **state)
{
    struct fixture *f = *state;
    struct http_settings settings = {.format = HTTP_FLAT};
    add(f, make_scan(7, 1, 0, 1), &t01);
    add(f, make_scan(7, 2, 0, 1), &t01);
    assert_int_equal(uplink_http.encode(&settings, &f->batch, &f->request), -E2BIG);
    assert_int_equal(uplink_http.records_limit(&settings), 1);
}

static void test_columns_split_where_the_seq_jumps(void **state)
{
    struct fixture *f = *state;
    add(f, make_scan(7, 1, 1000, 2), &t02);
    add(f, make_scan(7, 2, 2000, 2), &t02);
    f->scans[1]->readings[0].integer = 840;
    f->scans[1]->readings[1] = (struct reading){
        .point = 1, .kind = VALUE_NULL, .quality = QUALITY_BAD_RANGE};
    add(f, make_scan(7, 4, 4000, 1), &t02);
    assert_string_equal(
        encode(f, HTTP_COLUMNS),
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"blocks\":["
        "{\"device\":\"t02\",\"first_seq\":1,\"points\":[\"wind_speed\",\"power\"],"
        "\"time_ms\":{\"first\":1000,\"deltas\":[1000]},"
        "\"values\":[{\"scale\":0.01,\"deltas\":[842,-2]},[8.43,null]],"
        "\"quality\":[[1,1,\"bad:range\"]]},"
        "{\"device\":\"t02\",\"first_seq\":4,\"points\":[\"wind_speed\"],"
        "\"time_ms\":{\"first\":4000,\"deltas\":[]},"
        "\"values\":[{\"scale\":0.01,\"deltas\":[842]}]}]}");
}

static void test_columns_missing_point_is_null(void **state)
{
    struct fixture *f = *state;
    add(f, make_scan(7, 1, 1000, 1), &t02);
    add(f, make_scan(7, 2, 2000, 2), &t02);
    f->scans[1]->readings[0].integer = INT64_MIN;
    assert_non_null(
        strstr(encode(f, HTTP_COLUMNS), "\"values\":[[8.42,-92233720368547758.08],[null,8.43]]"));
}

static void test_too_large_asks_for_a_smaller_cut(void **state)
{
    struct fixture *f = *state;
    static char tags[HTTP_REQUEST_MAX];
    memset(tags, ' ', sizeof tags - 1);
    struct store_names huge = {"t03", tags, POINTS, t01_points};
    struct http_settings settings = {.format = HTTP_BATCH};
    add(f, make_scan(7, 1, 0, 1), &huge);
    assert_int_equal(uplink_http.encode(&settings, &f->batch, &f->request), -E2BIG);
}

static void test_idempotency_key(void **state)
{
    struct fixture *f = *state;
    one_turbine(f);
    encode(f, HTTP_BATCH);
    char first[100];
    snprintf(first, sizeof first, "%s", (char *)f->request.headers.data);
    assert_memory_equal(first, "Idempotency-Key: \"9f2c61d07a3b.raw.", 35);
    assert_int_equal(first[strlen(first) - 1], '"');
    encode(f, HTTP_BATCH);
    assert_string_equal(first, (char *)f->request.headers.data);
    f->scans[0]->seq++;
    encode(f, HTTP_BATCH);
    assert_string_not_equal(first, (char *)f->request.headers.data);
}

/* Without the zeros at the end of a fraction, which the slow writer leaves out. */
static void trim(char *text)
{
    char *end = strchr(text, '.') != NULL ? text + strlen(text) : NULL;
    while (end != NULL && (end[-1] == '0' || end[-1] == '.')) {
        *--end = '\0';
        end = strchr(text, '.') != NULL ? end : NULL;
    }
}

static void test_numbers_agree_with_the_slow_writer(void **state)
{
    (void)state;
    uint64_t rng = 88172645463325252u;
    auto_buffer struct buffer slow = {0};
    for (int i = 0; i < 200000; i++) {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        struct decimal d = {(int64_t)rng >> (rng % 64), (int8_t)((int)((rng >> 20) % 37) - 18)};
        char fast[OUT_NUMBER_MAX + 1];
        *out_decimal(fast, d) = '\0';
        buffer_clear(&slow);
        decimal_write(&slow, d);
        const char *point = strchr(fast, '.');
        assert_int_equal(point != NULL ? strlen(point + 1) : 0, d.exponent < 0 ? -d.exponent : 0);
        trim(fast);
        assert_string_equal(fast, buffer_text(&slow));
    }
    static const int64_t edges[] = {0, 1, -1, INT64_MAX, INT64_MIN, 4294967295, 4294967296};
    for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
        char fast[OUT_NUMBER_MAX + 1], expected[32];
        *out_int(fast, edges[i]) = '\0';
        snprintf(expected, sizeof expected, "%lld", (long long)edges[i]);
        assert_string_equal(fast, expected);
    }
}

/* Around the length up to which keys are copied in one piece; each at the end of the names, too. */
static void test_names_of_any_length(void **state)
{
    struct fixture *f = *state;
    enum { LONGEST = 100 };
    static const char letters[LONGEST + 1] =
        "abcdefghijklmnopqrstuvwxyz0123456789_abcdefghijklmnopq"
        "rstuvwxyz0123456789_abcdefghijklmnopqrstuvwxyz";
    struct store_point_name points[2];
    struct store_names names = {"t01", "", 2, points};
    add(f, make_scan(7, 1, 1769855400000, 2), &names);
    for (uint16_t len = 1; len <= LONGEST; len++) {
        char expected[2 * LONGEST + 60];
        points[0] = (struct store_point_name){letters, "", len};
        points[1] = (struct store_point_name){letters + LONGEST - len, "", len};
        snprintf(expected, sizeof expected, "\"values\":{\"%.*s\":8.42,\"%s\":8.43}}]}", (int)len,
                 letters, letters + LONGEST - len);
        assert_non_null(strstr(encode(f, HTTP_BATCH), expected));
    }
}

static void test_times_agree_with_the_clock(void **state)
{
    (void)state;
    for (int64_t day = -400; day < 2932900; day += 13) {
        int64_t ms = day * 86400000 + (day * 7919) % 86400000;
        char fast[OUT_NUMBER_MAX], slow[CLOCK_TEXT_SIZE];
        *out_time(fast, ms) = '\0';
        clock_format_utc(ms, slow);
        assert_string_equal(fast, slow);
    }
}

/* -- what replies mean -- */

static struct uplink_verdict judge(struct fixture *f, int ack, int status, const char *body)
{
    struct http_settings settings = {.ack = ack};
    struct uplink_reply reply = {.status = status,
                                 .body = body,
                                 .len = strlen(body),
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "no route"};
    struct uplink_verdict verdict;
    uplink_http.judge(&settings, &f->batch, &reply, &verdict);
    return verdict;
}

static void three_records(struct fixture *f)
{
    add(f, make_scan(7, 1, 0, 1), &t01);
    add(f, make_scan(7, 2, 0, 1), &t01);
    add(f, make_scan(8, 1, 0, 1), &t02);
}

static void test_delivered_needs_the_count(void **state)
{
    struct fixture *f = *state;
    three_records(f);
    assert_int_equal(judge(f, HTTP_ACK_BODY, 200, "{\"accepted\":3}").outcome, UPLINK_DELIVERED);
    static const char *const lies[] = {"",
                                       "{}",
                                       "<html>Welcome to Hotel WiFi</html>",
                                       "{\"accepted\":2}",
                                       "{\"accepted\":\"3\"}",
                                       "null",
                                       "3",
                                       "{\"accepted\":-1}",
                                       "{\"accepted\":3",
                                       "[{\"accepted\":3}]"};
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        struct uplink_verdict v = judge(f, HTTP_ACK_BODY, 200, lies[i]);
        assert_int_equal(v.outcome, UPLINK_RETRY);
        assert_non_null(strstr(v.why, "account"));
        assert_int_equal(judge(f, HTTP_ACK_STATUS, 204, lies[i]).outcome, UPLINK_DELIVERED);
    }
    assert_non_null(strstr(judge(f, HTTP_ACK_BODY, 200, lies[2]).why, "captive portal"));
}

static void test_a_body_beyond_the_bound_accounts_for_nothing(void **state)
{
    struct fixture *f = *state;
    three_records(f);
    auto_free char *body = malloc(TRANSPORT_BODY_MAX + 1);
    int n = snprintf(body, TRANSPORT_BODY_MAX, "{\"accepted\":3}");
    memset(body + n, ' ', (size_t)(TRANSPORT_BODY_MAX - n));
    body[TRANSPORT_BODY_MAX] = '\0';
    assert_int_equal(judge(f, HTTP_ACK_BODY, 200, body).outcome, UPLINK_RETRY);
    body[TRANSPORT_BODY_MAX - 1] = '\0';
    assert_int_equal(judge(f, HTTP_ACK_BODY, 200, body).outcome, UPLINK_DELIVERED);
}

static void test_rejected_records(void **state)
{
    struct fixture *f = *state;
    three_records(f);
    struct uplink_verdict v = judge(
        f, HTTP_ACK_BODY, 200,
        "{\"accepted\":2,\"rejected\":[{\"seq\":2,\"reason\":\"too old\"}]}");
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected_count, 1);
    assert_int_equal(v.rejected[0].record, 1);
    assert_string_equal(v.rejected[0].why, "too old");
    free(v.rejected);

    v = judge(f, HTTP_ACK_BODY, 422,
              "{\"accepted\":2,\"rejected\":[{\"seq\":1,\"device\":\"t02\"}]}");
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected[0].record, 2);
    free(v.rejected);

    v = judge(f, HTTP_ACK_BODY, 200, "{\"accepted\":2,\"rejected\":[{\"seq\":1}]}");
    assert_int_equal(v.outcome, UPLINK_SPLIT); /* t01 or t02? */
    v = judge(f, HTTP_ACK_BODY, 200, "{\"accepted\":2,\"rejected\":[{\"seq\":99}]}");
    assert_int_equal(v.outcome, UPLINK_RETRY);
    v = judge(f, HTTP_ACK_BODY, 400, "{\"rejected\":[{\"seq\":2}]}");
    assert_int_equal(v.outcome, UPLINK_SPLIT); /* nobody said the others were taken */
    v = judge(f, HTTP_ACK_BODY, 400, "<title>400 No required SSL certificate was sent</title>");
    assert_int_equal(v.outcome, UPLINK_HOLD); /* nginx: no fault of the data */
    assert_non_null(strstr(v.why, "cert_file"));
}

static void test_statuses(void **state)
{
    struct fixture *f = *state;
    three_records(f);
    static const struct {
        int status;
        enum uplink_outcome many, one;
    } cases[] = {
        {301, UPLINK_HOLD, UPLINK_HOLD},      {302, UPLINK_HOLD, UPLINK_HOLD},
        {400, UPLINK_SPLIT, UPLINK_REJECTED}, {401, UPLINK_HOLD, UPLINK_HOLD},
        {403, UPLINK_HOLD, UPLINK_HOLD},      {404, UPLINK_HOLD, UPLINK_HOLD},
        {405, UPLINK_HOLD, UPLINK_HOLD},      {407, UPLINK_HOLD, UPLINK_HOLD},
        {408, UPLINK_RETRY, UPLINK_RETRY},    {409, UPLINK_SPLIT, UPLINK_REJECTED},
        {410, UPLINK_HOLD, UPLINK_HOLD},      {413, UPLINK_SPLIT, UPLINK_SPLIT},
        {415, UPLINK_HOLD, UPLINK_HOLD},      {422, UPLINK_SPLIT, UPLINK_REJECTED},
        {425, UPLINK_RETRY, UPLINK_RETRY},    {429, UPLINK_RETRY, UPLINK_RETRY},
        {500, UPLINK_RETRY, UPLINK_RETRY},    {502, UPLINK_RETRY, UPLINK_RETRY},
        {503, UPLINK_RETRY, UPLINK_RETRY},    {504, UPLINK_RETRY, UPLINK_RETRY},
        {0, UPLINK_RETRY, UPLINK_RETRY},      {999, UPLINK_RETRY, UPLINK_RETRY},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        f->batch.count = 3;
        struct uplink_verdict v = judge(f, HTTP_ACK_BODY, cases[i].status, "gone fishing");
        assert_int_equal(v.outcome, cases[i].many);
        assert_true(v.why[0] != '\0');
        f->batch.count = 1;
        assert_int_equal(judge(f, HTTP_ACK_STATUS, cases[i].status, "").outcome, cases[i].one);
        f->batch.count = 3;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_batch_is_as_promised),
        T(test_batch_bad_and_foreign_points),
        T(test_only_selected_readings_go_out),
        T(test_telemetry),
        T(test_flat_takes_one_scan),
        T(test_columns_split_where_the_seq_jumps),
        T(test_columns_missing_point_is_null),
        T(test_too_large_asks_for_a_smaller_cut),
        T(test_idempotency_key),
        T(test_numbers_agree_with_the_slow_writer),
        T(test_names_of_any_length),
        T(test_times_agree_with_the_clock),
        T(test_delivered_needs_the_count),
        T(test_a_body_beyond_the_bound_accounts_for_nothing),
        T(test_rejected_records),
        T(test_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
