/* The sink as Timestream: what WriteRecords holds, and whose signature counts. */
#include "uplink/aws/sigv4.h"
#include "uplink/sink/sink_aws.h"
#include "uplink/sink/sink_timestream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static const int64_t now_ms = INT64_C(1769855400000);

/* ---- records ---- */

struct seen {
    struct buffer text;
    int stop;
};

static void add_value(struct buffer *to, const struct sink_value *v)
{
    if (v->kind == SINK_VALUE_INTEGER) {
        buffer_printf(to, "%lld", (long long)v->integer);
    } else if (v->kind == SINK_VALUE_REAL) {
        buffer_printf(to, "%g", v->real);
    } else if (v->kind == SINK_VALUE_TEXT) {
        buffer_printf(to, "'%.*s'", (int)v->text.len, v->text.at);
    } else {
        buffer_add_text(to, "null");
    }
}

static int take(void *user, const struct sink_record *r)
{
    struct seen *seen = user;
    buffer_printf(&seen->text, "[%.*s %.*s %.*s %.*s %lld %lld", (int)r->gateway.len, r->gateway.at,
                  (int)r->store.len, r->store.at, (int)r->stream.len, r->stream.at,
                  (int)r->device.len, r->device.at, (long long)r->seq, (long long)r->time_ms);
    for (size_t i = 0; i < r->count; i++) {
        const struct sink_reading *one = &r->readings[i];
        buffer_printf(&seen->text, " %.*s=", (int)one->point.len, one->point.at);
        add_value(&seen->text, &one->value);
        buffer_printf(&seen->text, "/%.*s", (int)one->quality.len, one->quality.at);
    }
    buffer_add_text(&seen->text, "]");
    return seen->stop;
}

/* What a request of that common part and those records holds, or "! why". */
static const char *parse(struct seen *seen, const char *common, const char *records)
{
    static char why[SINK_WHY_SIZE];
    auto_buffer struct buffer body = {0};
    const struct sink_taker taker = {.take = take, .user = seen};
    size_t count = 0;
    buffer_clear(&seen->text);
    buffer_printf(&body, "{\"DatabaseName\":\"wind\",\"TableName\":\"t\"%s%s,\"Records\":[%s]}",
                  common[0] != '\0' ? ",\"CommonAttributes\":" : "", common, records);
    int r = sink_timestream_parse((const char *)body.data, body.len, &taker, &count, why);
    if (r == -EINVAL) {
        return why;
    }
    assert_int_equal(r, seen->stop);
    assert_true(r < 0 || count > 0);
    return buffer_text(&seen->text);
}

#define D(name, value)       "{\"Name\":\"" name "\",\"Value\":\"" value "\"}"
#define TYPE(type)           "\",\"Type\":\"" type
#define M(name, type, value) D(name TYPE(type), value)

#define OF_ALL D("gateway", "g") "," D("store", "s") "," D("stream", "raw")
#define ORIGIN "\"Dimensions\":[" OF_ALL "]"
#define MULTI  "\"MeasureValueType\":\"MULTI\""
#define COMMON "{" ORIGIN "," MULTI ",\"TimeUnit\":\"NANOSECONDS\",\"Version\":1}"

#define SEQ                    M("seq", "BIGINT", "7")
#define NAMED                  ",\"MeasureName\":\"readings\",\"MeasureValues\":["
#define DEVICE                 "{\"Dimensions\":[" D("device", "t01") "],\"Time\":\""
#define RECORD(time, measures) DEVICE time "\"" NAMED SEQ measures "]}"

/* One measure more. */
#define AND(name, type, value) "," M(name, type, value)

static void test_records(void **state)
{
    (void)state;
    struct seen seen = {.stop = 0};
    const char *first = RECORD("1769855400250000007",
                               AND("power", "DOUBLE", "8.50") AND("ok", "BOOLEAN", "true")
                                   AND("power_quality", "VARCHAR", "uncertain"));
    assert_string_equal(parse(&seen, COMMON, first),
                        "[g s raw t01 7 1769855400250 power=8.5/uncertain ok=1/good]");
    /* A quality without its value, and names that only look like a quality's. */
    const char *second = RECORD(
        "5000007", AND("state", "VARCHAR", "run") AND("temp_quality_", "VARCHAR", "bad:timeout")
                       AND("a_quality", "VARCHAR", "fine") AND("b_quality", "VARCHAR", "uncertain")
                           AND("count", "BIGINT", "12"));
    assert_string_equal(parse(&seen, COMMON, second),
                        "[g s raw t01 7 5 state='run'/good temp=null/bad:timeout "
                        "a_quality='fine'/good count=12/good]");
    /* All of it in the record; milliseconds are the default. */
    const char *whole = "{\"Dimensions\":[" D("device", "d") "," D("gateway", "g") "," D(
        "store", "s") "," D("stream", "raw") "],\"Time\":\"12\"," MULTI NAMED SEQ AND("p", "DOUBLE",
                                                                                      "1e3") "]}";
    assert_string_equal(parse(&seen, "", whole), "[g s raw d 7 12 p=1000/good]");
    seen.stop = -EIO;
    parse(&seen, COMMON, RECORD("1", "") "," RECORD("2", ""));
    assert_string_equal(buffer_text(&seen.text), "[g s raw t01 7 0]");
    buffer_finish(&seen.text);
}

static void test_what_the_model_does_not_allow(void **state)
{
    (void)state;
    static const struct {
        const char *common, *records, *why;
    } cases[] = {
        {COMMON, "", "1 to 100"},
        {"", RECORD("1", ""), "dimension of gateway"},
        {COMMON, RECORD("x", ""), "Time is a number"},
        {COMMON, RECORD("-1", ""), "Time is a number"},
        {COMMON, RECORD("99999999999999999999", ""), "Time is a number"},
        {COMMON, RECORD("1", AND("p", "DOUBLE", "")), "1 to 2048"},
        {COMMON, RECORD("1", AND("p", "DOUBLE", "NaN")), "no number"},
        {COMMON, RECORD("1", AND("p", "DOUBLE", "1 2")), "no number"},
        {COMMON, RECORD("1", AND("p", "BOOLEAN", "1")), "true or false"},
        {COMMON, RECORD("1", AND("p", "TIMESTAMP", "1")), "unknown Type"},
        {COMMON, RECORD("1", AND("p", "DOUBLE", "1") AND("p", "DOUBLE", "1")), "twice"},
        {COMMON, RECORD("1", AND("", "DOUBLE", "1")), "measure's name"},
        {COMMON, RECORD("1", AND("seq", "BIGINT", "0")), "measure seq"},
        {COMMON, "{\"Dimensions\":[" D("gateway", "g") "],\"MeasureName\":\"m\"}", "both in"},
        {COMMON, "{\"MeasureName\":\"m\",\"Version\":0}", "Version"},
        {COMMON, "{\"Version\":1}", "MeasureName"},
        {COMMON, "7", "MeasureName"},
        {"{\"MeasureValueType\":\"DOUBLE\"," ORIGIN "}", RECORD("1", ""), "MULTI"},
        {"{\"TimeUnit\":\"DAYS\"," MULTI "," ORIGIN "}", RECORD("1", ""), "TimeUnit"},
    };
    struct seen seen = {.stop = 0};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *why = parse(&seen, cases[i].common, cases[i].records);
        if (strstr(why, cases[i].why) == NULL) {
            fail_msg("%zu: %s, not %s", i, why, cases[i].why);
        }
    }
    auto_buffer struct buffer many = {0};
    for (int i = 0; i < SINK_TIMESTREAM_MEASURES_MAX; i++) {
        buffer_printf(&many, "," M("p%d", "DOUBLE", "1"), i);
    }
    auto_buffer struct buffer record = {0};
    buffer_printf(&record, RECORD("1", "%s"), buffer_text(&many));
    assert_non_null(strstr(parse(&seen, COMMON, buffer_text(&record)), "1 to 256"));
    buffer_clear(&many);
    for (int i = 0; i <= SINK_TIMESTREAM_RECORDS_MAX; i++) {
        buffer_add_text(&many, i > 0 ? "," RECORD("1", "") : RECORD("1", ""));
    }
    assert_non_null(strstr(parse(&seen, COMMON, buffer_text(&many)), "1 to 100"));
    buffer_finish(&seen.text);
}

/* ---- signatures ---- */

struct signed_request {
    struct sink_request request;
    struct buffer added;
};

static void sign(struct signed_request *s, const char *id, const char *secret, const char *token,
                 const char *service, int64_t time_ms)
{
    static const char *const lines[] = {"Content-Type: application/x-amz-json-1.0",
                                        "X-Amz-Target: Timestream_20181101.WriteRecords"};
    const struct sigv4_request what = {.method = "POST",
                                       .host = "127.0.0.1:8443",
                                       .path = "/",
                                       .query = "",
                                       .headers = lines,
                                       .header_count = 2,
                                       .body = "{}",
                                       .body_len = 2};
    const struct sigv4_credentials keys = {id, secret, token};
    buffer_clear(&s->added);
    assert_int_equal(sigv4_sign(&what, &keys, "eu-west-1", service, time_ms, &s->added), 0);
    s->request = (struct sink_request){
        .method = SINK_POST, .path = "/", .body = (const uint8_t *)"{}", .len = 2};
    struct sink_header *h = s->request.headers;
    size_t n = 0;
    h[n++] = (struct sink_header){"Host", "127.0.0.1:8443"};
    h[n++] = (struct sink_header){"content-type", "application/x-amz-json-1.0"};
    h[n++] = (struct sink_header){"X-AMZ-TARGET", "Timestream_20181101.WriteRecords"};
    h[n++] = (struct sink_header){"Accept", "*/*"};
    char *at = (char *)s->added.data, *end = at + s->added.len;
    while (at < end) {
        char *value = strchr(at, ':');
        size_t len = strlen(at);
        *value = '\0';
        h[n] = (struct sink_header){at, value + 2};
        if (strcmp(at, "Authorization") == 0) {
            s->request.authorization = value + 2;
        }
        n++;
        at += len + 1;
    }
    s->request.header_count = n;
}

static const struct sink_aws_key key = {.id = "AKID", .secret = "sec/ret:x"};

static const char *check(const struct signed_request *s)
{
    static struct sink_aws_refusal refusal;
    int r = sink_aws_check(&key, &s->request, now_ms, &refusal);
    assert_true(r == 0 || r == -EACCES);
    return r == 0 ? "good" : refusal.type;
}

static void test_keys(void **state)
{
    (void)state;
    struct sink_aws_key parsed;
    assert_int_equal(sink_aws_key_parse("AKID:sec/ret:x", &parsed), 0);
    assert_string_equal(parsed.id, "AKID");
    assert_string_equal(parsed.secret, "sec/ret:x");
    assert_int_equal(sink_aws_key_parse("AKID", &parsed), -EINVAL);
    assert_int_equal(sink_aws_key_parse(":x", &parsed), -EINVAL);
    assert_int_equal(sink_aws_key_parse("x:", &parsed), -EINVAL);
    char long_one[400];
    memset(long_one, 'a', sizeof long_one);
    long_one[20] = ':';
    long_one[sizeof long_one - 1] = '\0';
    assert_int_equal(sink_aws_key_parse(long_one, &parsed), -EINVAL);
}

static void test_signatures(void **state)
{
    (void)state;
    struct signed_request s = {.added = {0}};
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms);
    assert_string_equal(check(&s), "good");
    s.request.body = (const uint8_t *)"[]";
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms);
    s.request.headers[2].value = "Timestream_20181101.DescribeEndpoints";
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKID", "another", NULL, "timestream", now_ms);
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKIE", "sec/ret:x", NULL, "timestream", now_ms);
    assert_string_equal(check(&s), "UnrecognizedClientException");
    sign(&s, "AKID", "sec/ret:x", "a token", "timestream", now_ms);
    assert_string_equal(check(&s), "good");
    sign(&s, "AKID", "sec/ret:x", NULL, "kinesis", now_ms);
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms - SINK_AWS_SKEW_MS - 1000);
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms + SINK_AWS_SKEW_MS + 1000);
    assert_string_equal(check(&s), "InvalidSignatureException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms + SINK_AWS_SKEW_MS - 1000);
    assert_string_equal(check(&s), "good");
    buffer_finish(&s.added);
}

static void test_signatures_that_are_none(void **state)
{
    (void)state;
    static const char *const none[] = {
        "Bearer x",
        "AWS4-HMAC-SHA256 ",
        "AWS4-HMAC-SHA256 Credential=AKID",
        "AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/timestream/aws4_request",
        "AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/timestream/aws4_request, "
        "SignedHeaders=host, Signature=abc", /* leaves out what must be signed */
        "AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/timestream/aws3_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=abc"};
    struct signed_request s = {.added = {0}};
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        s.request.authorization = none[i];
        assert_string_equal(check(&s), "IncompleteSignatureException");
    }
    s.request.authorization = "AWS4-HMAC-SHA256 Credential=AKID/20260131/eu-west-1/timestream/"
                              "aws4_request, SignedHeaders=content-type;host;x-amz-date;"
                              "x-amz-target;absent, Signature=abc";
    assert_string_equal(check(&s), "InvalidSignatureException");
    s.request.authorization = NULL;
    assert_string_equal(check(&s), "MissingAuthenticationTokenException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms);
    s.request.headers[s.request.header_count++] = (struct sink_header){"x-amz-meta", "unsigned"};
    assert_string_equal(check(&s), "IncompleteSignatureException");
    sign(&s, "AKID", "sec/ret:x", NULL, "timestream", now_ms);
    s.request.header_count = 3; /* no X-Amz-Date */
    assert_string_equal(check(&s), "IncompleteSignatureException");
    buffer_finish(&s.added);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_what_the_model_does_not_allow),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_signatures_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
