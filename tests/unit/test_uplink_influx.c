/* Line protocol to the letter of its specification, and what each edition's replies mean. */
#include "cloud_batch.h"
#include "uplink/influx/influx.h"

#include <errno.h>
#include <math.h>

static const struct store_point_name points[] = {
    {"wind_speed", "m/s", 10}, {"power", "kW", 5}, {"grid_ok", "", 7}, {"odd, na=me", "", 10}};
static const struct store_names t01 = {"t01", "{\"type\":\"V90\"}", 4, points};
static const struct store_names t02 = {"t02", "", 4, points};

static const struct influx_settings v1 = {.transport = {.url = "http://127.0.0.1:8086"},
                                          .db = "wind",
                                          .measurement = "readings",
                                          .version = INFLUX_V1};
static const struct influx_settings v2 = {.transport = {.url = "https://influx.example.com:8086/"},
                                          .org = "my org",
                                          .bucket = "a&b/c",
                                          .measurement = "readings",
                                          .version = INFLUX_V2};
static const struct influx_settings v3 = {.transport = {.url = "https://i.example.com:8181"},
                                          .db = "wind",
                                          .measurement = "readings",
                                          .version = INFLUX_V3};

static const char *encode(struct cloud_batch *b, const struct influx_settings *settings)
{
    assert_int_equal(uplink_influx.encode(settings, &b->batch, &b->request), 0);
    const char *text = buffer_text(&b->request.body);
    assert_non_null(text);
    return text;
}

static void test_a_scan_is_a_line(void **state)
{
    struct cloud_batch *b = *state;
    struct scan *s = cloud_add(b, cloud_scan(7, 18231, 1769855400000, 3), &t01);
    s->readings[1].quality = QUALITY_UNCERTAIN;
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_BOOL, .integer = 1};
    cloud_add(b, cloud_scan(8, 4, 1769855401000, 1), &t02)->readings[0].integer = 84200;
    assert_string_equal(
        encode(b, &v1),
        "readings,device=t01,gateway=borssele-1,store=9f2c61d07a3b,stream=raw,type=V90 "
        "seq=18231i,wind_speed=8.42,power=8.43,power_quality=\"uncertain\",grid_ok=true "
        "1769855400000132810\n"
        "readings,device=t02,gateway=borssele-1,store=9f2c61d07a3b,stream=raw "
        "seq=4i,wind_speed=842 1769855401000400000\n");
}

static void test_values_that_the_protocol_lacks(void **state)
{
    struct cloud_batch *b = *state;
    struct scan *s = cloud_add(b, cloud_scan(8, 1, 5, 4), &t02);
    s->readings[0] = (struct reading){.kind = VALUE_NULL, .quality = QUALITY_BAD_TIMEOUT};
    s->readings[1] = (struct reading){.point = 1, .kind = VALUE_REAL, .real = (double)INFINITY};
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_REAL, .real = 1e-300};
    s->readings[3] = (struct reading){.point = 40, .kind = VALUE_FLOAT, .real = 0.1f};
    assert_non_null(strstr(
        encode(b, &v1), " seq=1i,wind_speed_quality=\"bad:timeout\",power_quality=\"bad:invalid\","
                        "grid_ok=1e-300,point_40=0.1 5100000\n"));
}

static void test_escaping(void **state)
{
    struct cloud_batch *b = *state;
    static const struct store_names odd = {
        "t 0,3=x", "{\"a b\":\"c,d\\\\\",\"empty\":\"\",\"store\":\"no\",\"n\":\"x\\ny\"}", 4,
        points};
    struct influx_settings s = v1;
    s.measurement = "my, table=1";
    struct scan *scan = cloud_add(b, cloud_scan(9, 1, 5, 2), &odd);
    cloud_text(scan, 0, "say \"hi\" \\ no\nmore, =\xff");
    scan->readings[1].point = 3;
    assert_string_equal(encode(b, &s),
                        "my\\,\\ table=1,a\\ b=c\\,d/,device=t\\ 0\\,3\\=x,gateway=borssele-1,"
                        "n=x\\ y,store=9f2c61d07a3b,stream=raw "
                        "seq=1i,wind_speed=\"say \\\"hi\\\" \\\\ no more, =\xef\xbf\xbd\","
                        "odd\\,\\ na\\=me=8.43 5100000\n");
}

/* A column of a table is a tag or a field, and each name once a line. */
static void test_names_do_not_collide(void **state)
{
    struct cloud_batch *b = *state;
    static const struct store_point_name clash[] = {{"seq", "", 3},
                                                    {"time", "", 4},
                                                    {"type", "", 4},
                                                    {"power", "", 5},
                                                    {"power_quality", "", 13}};
    static const struct store_names names = {"t01", "{\"type\":\"V90\",\"time\":\"x\"}", 5, clash};
    struct scan *s = cloud_add(b, cloud_scan(7, 1, 5, 5), &names);
    s->readings[3].quality = QUALITY_UNCERTAIN;
    assert_non_null(strstr(encode(b, &v1), "stream=raw,type=V90 seq=1i,seq_=8.42,time_=8.43,"
                                           "type_=8.44,power=8.45,power_quality_=\"uncertain\","
                                           "power_quality=8.46 5100000\n"));
}

/* Two windows that begin together are two rows. */
static void test_aggregates_tell_their_window(void **state)
{
    struct cloud_batch *b = *state;
    b->batch.stream = STREAM_AGGREGATE;
    cloud_add(b, cloud_scan(8, 1, 5, 1), &t02)->window_s = 600;
    cloud_add(b, cloud_scan(8, 2, 5, 1), &t02)->window_s = 60;
    const char *text = encode(b, &v1);
    assert_non_null(strstr(text, "stream=aggregate,window_s=600 seq=1i,"));
    assert_non_null(strstr(text, "stream=aggregate,window_s=60 seq=2i,"));
}

static void test_addresses_and_authorization(void **state)
{
    struct cloud_batch *b = *state;
    cloud_add(b, cloud_scan(8, 1, 5, 1), &t02);
    encode(b, &v1);
    assert_string_equal(b->request.path, "/write?precision=ns&db=wind");
    assert_int_equal(b->request.headers.len, 0); /* the token is the transport's */
    assert_int_equal(b->request.token, UPLINK_TOKEN_LOGIN);
    encode(b, &v2);
    assert_string_equal(b->request.path, "api/v2/write?precision=ns&org=my%20org&bucket=a%26b%2Fc");
    assert_int_equal(b->request.token, UPLINK_TOKEN_TOKEN);
    encode(b, &v3);
    assert_string_equal(b->request.path, "/api/v3/write_lp?precision=nanosecond&db=wind");
    assert_int_equal(b->request.token, UPLINK_TOKEN_BEARER);
    struct influx_settings own = v1;
    own.transport.url = "http://127.0.0.1:8480/insert/0/influx/write?extra_label=a";
    encode(b, &own);
    assert_string_equal(b->request.path, "&precision=ns&db=wind");
}

static void test_bounds(void **state)
{
    struct cloud_batch *b = *state;
    static char longest[1100], huge[INFLUX_REQUEST_MAX];
    memset(longest, 'x', sizeof longest - 1);
    memset(huge, 'y', sizeof huge - 1);
    struct influx_settings s = v1;
    s.db = longest;
    cloud_add(b, cloud_scan(8, 1, 5, 1), &t02);
    /* A fault of the configuration must not look like a record that is too large. */
    assert_int_equal(uplink_influx.encode(&s, &b->batch, &b->request), -ENAMETOOLONG);
    s.db = "wind";
    s.measurement = huge;
    assert_int_equal(uplink_influx.encode(&s, &b->batch, &b->request), -E2BIG);
}

/* -- what replies mean -- */

static void three_records(struct cloud_batch *b)
{
    cloud_add(b, cloud_scan(7, 1, 0, 1), &t01);
    cloud_add(b, cloud_scan(7, 2, 1, 1), &t01);
    cloud_add(b, cloud_scan(8, 1, 0, 1), &t02);
}

static enum uplink_outcome outcome(const struct influx_settings *s, struct cloud_batch *b,
                                   int status, const char *body)
{
    struct uplink_verdict v = cloud_judge(&uplink_influx, s, b, status, body);
    free(v.rejected);
    assert_true(v.outcome == UPLINK_DELIVERED || v.why[0] != '\0');
    return v.outcome;
}

static void test_only_204_is_success(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    const struct influx_settings *all[] = {&v1, &v2, &v3};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(outcome(all[i], b, 204, ""), UPLINK_DELIVERED);
        assert_int_equal(outcome(all[i], b, 200, ""), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 200, "<html>Welcome</html>"), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 202, ""), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 201, "{\"message\":\"partial\"}"), UPLINK_SPLIT);
        assert_int_equal(outcome(all[i], b, 413, ""), UPLINK_SPLIT);
        assert_int_equal(outcome(all[i], b, 429, ""), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 500, "timeout"), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 503, ""), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 0, ""), UPLINK_RETRY);
        assert_int_equal(outcome(all[i], b, 401, "{\"error\":\"unauthorized\"}"), UPLINK_HOLD);
        assert_int_equal(outcome(all[i], b, 403, ""), UPLINK_HOLD);
        assert_int_equal(outcome(all[i], b, 404, "{\"error\":\"database not found\"}"),
                         UPLINK_HOLD);
        assert_int_equal(outcome(all[i], b, 400, "{\"error\":\"database is required\"}"),
                         UPLINK_HOLD);
    }
}

static void test_partial_writes_of_v1_and_v2(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    static const char some[] =
        "{\"error\":\"partial write: field type conflict: input field \\\"power\\\" dropped=1\"}";
    static const char all[] =
        "{\"code\":\"unprocessable entity\",\"message\":\"failure writing points to database: "
        "partial write: points beyond retention policy dropped=3\"}";
    assert_int_equal(outcome(&v1, b, 400, some), UPLINK_SPLIT);
    assert_int_equal(outcome(&v2, b, 422, some), UPLINK_SPLIT);
    assert_int_equal(outcome(&v1, b, 400, all), UPLINK_REJECTED);
    struct uplink_verdict v = cloud_judge(&uplink_influx, &v2, b, 422, all);
    assert_int_equal(v.outcome, UPLINK_REJECTED);
    assert_non_null(strstr(v.why, "unprocessable"));
    b->batch.count = 1;
    assert_int_equal(outcome(&v1, b, 400, some), UPLINK_REJECTED);
    assert_int_equal(outcome(&v1, b, 400, "{\"error\":\"unable to parse\"}"), UPLINK_REJECTED);
    b->batch.count = 3;
}

static void test_partial_writes_of_v3(void **state)
{
    struct cloud_batch *b = *state;
    three_records(b);
    static const char named[] =
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[{\"original_line\":\"x\","
        "\"line_number\":2,\"error_message\":\"invalid column type for column 'power'\"}]}";
    struct uplink_verdict v = cloud_judge(&uplink_influx, &v3, b, 400, named);
    assert_int_equal(v.outcome, UPLINK_DELIVERED);
    assert_int_equal(v.rejected_count, 1);
    assert_int_equal(v.rejected[0].record, 1);
    assert_string_equal(v.rejected[0].why, "invalid column type for column 'power'");
    free(v.rejected);
    assert_int_equal(outcome(&v1, b, 400, named), UPLINK_SPLIT); /* no promise of that edition */

    static const char *const vague[] = {
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[]}",
        "{\"error\":\"partial write of line protocol occurred\"}",
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[{\"line_number\":4}]}",
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[{\"line_number\":0}]}",
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[{}]}",
        "{\"error\":\"parsing failed for write_lp endpoint\",\"data\":{\"line_number\":2}}",
        "{\"error\":\"parsing failed for write_lp endpoint\",\"data\":[{\"line_number\":2}]}",
        "{\"error\":\"partial write of line protocol occurred\",\"data\":[{\"line_num",
        ""};
    for (size_t i = 0; i < ARRAY_SIZE(vague); i++) {
        assert_int_equal(outcome(&v3, b, 400, vague[i]), UPLINK_SPLIT);
    }
}

/* The hosted editions stop naming after 100 lines: then the rest is not known to be kept. */
static void test_a_list_cut_off_proves_nothing(void **state)
{
    struct cloud_batch *b = *state;
    for (unsigned i = 0; i < 200; i++) {
        cloud_add(b, cloud_scan(7, i + 1, i, 1), &t01);
    }
    auto_buffer struct buffer body = {0};
    for (unsigned count = 99; count <= 100; count++) {
        buffer_clear(&body);
        buffer_add_text(&body, "{\"error\":\"partial write of line protocol occurred\",\"data\":[");
        for (unsigned i = 0; i < count; i++) {
            buffer_printf(&body, "%s{\"line_number\":%u}", i > 0 ? "," : "", i + 1);
        }
        buffer_add_text(&body, "]}");
        assert_int_equal(outcome(&v3, b, 400, buffer_text(&body)),
                         count < 100 ? UPLINK_DELIVERED : UPLINK_SPLIT);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, cloud_batch_setup, cloud_batch_teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_scan_is_a_line),
        T(test_values_that_the_protocol_lacks),
        T(test_escaping),
        T(test_names_do_not_collide),
        T(test_aggregates_tell_their_window),
        T(test_addresses_and_authorization),
        T(test_bounds),
        T(test_only_204_is_success),
        T(test_partial_writes_of_v1_and_v2),
        T(test_partial_writes_of_v3),
        T(test_a_list_cut_off_proves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
