/* Type s3: keys, objects, and what the service's replies mean. */
#include "tests/unit/batch_fixture.h"
#include "uplink/s3/s3.h"

#include <errno.h>
#include <zlib.h>

static struct s3_settings settings(int compress)
{
    return (struct s3_settings){
        .aws = {.region = "eu-west-1", .credentials = "file:/x", .transport = {.timeout_ms = 1000}},
        .bucket = "wind-archive",
        .prefix = "gateway={gateway}/stream={stream}/date={date}",
        .compress = compress};
}

static void test_prefixes(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t02, 8, 5, 1);
    auto_buffer struct buffer out = {0};
    s3_write_prefix(&out, "{gateway}/{stream}/{device}/{date}/{hour}/{year}{month}{day}/x",
                    &f->batch, f->records);
    assert_string_equal(buffer_text(&out), "borssele-1/raw/t_0_2/2026-01-31/10/20260131/x");
    f->batch.gateway = "..\xff"
                       "a\\b";
    buffer_clear(&out);
    s3_write_prefix(&out, "{gateway}", &f->batch, f->records);
    assert_string_equal(buffer_text(&out), "_._a_b");
    assert_null(s3_prefix_fault("gateway={gateway}/stream={stream}/date={date}"));
    assert_null(s3_prefix_fault("a"));
    static const char *const bad[] = {"",
                                      "/a",
                                      "a/",
                                      "a//b",
                                      ".",
                                      "a/../b",
                                      "a/{devise}",
                                      "a b",
                                      "a\xc3",
                                      "{",
                                      "{gateway}{gateway}{gateway}{gateway}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_non_null(s3_prefix_fault(bad[i]));
    }
    char longer[S3_PREFIX_MAX + 2];
    memset(longer, 'a', sizeof longer);
    longer[S3_PREFIX_MAX + 1] = '\0';
    assert_non_null(s3_prefix_fault(longer));
    longer[S3_PREFIX_MAX] = '\0';
    assert_null(s3_prefix_fault(longer));
}

/* The worst that prefix and names can make of it fits a request's path. */
static void test_the_longest_key_fits(void **state)
{
    struct batch_fixture *f = *state;
    char device[100], form[S3_PREFIX_MAX + 1];
    memset(device, '\n', sizeof device - 1);
    for (size_t i = 0; i < sizeof device - 3; i += 2) {
        memcpy(device + i, "\xc3\xa4", 2);
    }
    device[sizeof device - 1] = '\0';
    struct store_names names = {device, "", 4, batch_points};
    batch_add(f, &names, 8, 5, 1);
    f->batch.gateway = device;
    struct s3_settings s = settings(COMPRESS_GZIP);
    memset(form, '=', sizeof form - 1);
    memcpy(form, "{gateway}{device}{stream}", 25);
    form[sizeof form - 1] = '\0';
    s.prefix = form;
    s.style = S3_PATH;
    s.bucket = "a23456789012345678901234567890123456789012345678901234567890123";
    assert_null(s3_prefix_fault(form));
    assert_int_equal(s3_encode(&s, &f->batch, &f->request), 0);
    assert_true(strlen(f->request.path) > 700);
}

static void test_urls(void **state)
{
    (void)state;
    char url[AWS_URL_MAX];
    struct s3_settings s = settings(COMPRESS_GZIP);
    assert_int_equal(s3_url(&s, url), 0);
    assert_string_equal(url, "https://wind-archive.s3.eu-west-1.amazonaws.com");
    s.bucket = "wind.archive"; /* no certificate covers it in the host name */
    assert_int_equal(s3_url(&s, url), 0);
    assert_string_equal(url, "https://s3.eu-west-1.amazonaws.com");
    s.bucket = "wind-archive";
    s.aws.transport.url = "https://minio.example.com:9000/";
    assert_int_equal(s3_url(&s, url), 0);
    assert_string_equal(url, "https://minio.example.com:9000");
    s.style = S3_HOST;
    assert_int_equal(s3_url(&s, url), 0);
    assert_string_equal(url, "https://wind-archive.minio.example.com:9000");
    s.aws.transport.url = NULL;
    s.style = S3_PATH;
    s.aws.region = "cn-north-1";
    assert_int_equal(s3_url(&s, url), 0);
    assert_string_equal(url, "https://s3.cn-north-1.amazonaws.com.cn");
    s.aws.region = "eu west";
    assert_int_equal(s3_url(&s, url), -EINVAL);
}

static const char *header(const struct uplink_request *request, const char *name)
{
    const char *at = (const char *)request->headers.data, *end = at + request->headers.len;
    for (; at < end; at += strlen(at) + 1) {
        if (strncmp(at, name, strlen(name)) == 0) {
            return at + strlen(name);
        }
    }
    return "absent";
}

static void test_object(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 18231, 1);
    batch_add(f, &batch_t02, 8, 1, 1);
    struct s3_settings s = settings(COMPRESS_NONE);
    s.storage_class = "GLACIER_IR";
    assert_int_equal(s3_encode(&s, &f->batch, &f->request), 0);
    static const char first[] =
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"seq\":18231,"
        "\"device\":\"t01\",\"time\":\"2026-01-31T10:30:18.231Z\",\"tags\":{\"type\":\"V90\"},"
        "\"values\":{\"wind_speed\":8.42}}\n";
    assert_memory_equal(f->request.body.data, first, sizeof first - 1);
    assert_int_equal(f->request.body.data[f->request.body.len - 1], '\n');
    assert_string_equal(f->request.method, "PUT");
    static const char path[] = "/gateway%3Dborssele-1/stream%3Draw/date%3D2026-01-31/"
                               "20260131T103018Z-";
    assert_memory_equal(f->request.path, path, sizeof path - 1);
    assert_string_equal(f->request.path + sizeof path - 1 + 32, ".ndjson");
    assert_string_equal(header(&f->request, "x-amz-storage-class: "), "GLACIER_IR");
    assert_int_equal(strlen(header(&f->request, "Content-MD5: ")), 24);
    assert_int_equal(strlen(header(&f->request, "x-amz-checksum-sha256: ")), 44);
    assert_int_equal(strlen(header(&f->request, "x-amz-content-sha256: ")), 64);

    /* The same batch has the same key and bytes, another one another key. */
    char before[sizeof f->request.path];
    memcpy(before, f->request.path, sizeof before);
    assert_int_equal(s3_encode(&s, &f->batch, &f->request), 0);
    assert_string_equal(f->request.path, before);
    f->batch.count = 1;
    assert_int_equal(s3_encode(&s, &f->batch, &f->request), 0);
    assert_string_not_equal(f->request.path, before);
    f->batch.count = 2;

    s.compress = COMPRESS_GZIP;
    assert_int_equal(s3_encode(&s, &f->batch, &f->request), 0);
    char text[400];
    z_stream z = {.next_in = f->request.body.data,
                  .avail_in = (uInt)f->request.body.len,
                  .next_out = (Bytef *)text,
                  .avail_out = sizeof text};
    assert_int_equal(inflateInit2(&z, 31), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_memory_equal(text, first, sizeof first - 1);
    inflateEnd(&z);
}

static void test_together(void **state)
{
    struct batch_fixture *f = *state;
    static const int64_t midnight_ms = 1769904000000; /* 2026-02-01 */
    for (uint64_t i = 0; i < 6; i++) {
        struct scan *s = batch_add(f, i < 5 ? &batch_t01 : &batch_t02, i < 5 ? 7 : 8, i + 1, 1);
        s->time_ms = midnight_ms - 3 + (int64_t)i;
    }
    struct s3_settings s = settings(COMPRESS_GZIP);
    assert_int_equal(s3_together(&s, &f->batch), 3);
    struct batch rest = f->batch;
    rest.records += 3;
    rest.count = 3;
    assert_int_equal(s3_together(&s, &rest), 3);
    s.prefix = "{device}/{date}";
    assert_int_equal(s3_together(&s, &rest), 2);
    f->scans[4]->time_ms += 3600000;
    assert_int_equal(s3_together(&s, &rest), 2);
    s.prefix = "{date}/{hour}";
    assert_int_equal(s3_together(&s, &rest), 1);
}

static struct uplink_verdict judge(const struct s3_settings *s, struct batch_fixture *f, int status,
                                   const char *body, const char *etag, const char *sum)
{
    struct uplink_reply reply = {.status = status,
                                 .body = body,
                                 .len = strlen(body),
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "no route",
                                 .etag = etag,
                                 .checksum_sha256 = sum,
                                 .answers = &f->request};
    struct uplink_verdict verdict;
    s3_judge(s, &f->batch, &reply, &verdict);
    return verdict;
}

static void test_only_proof_is_delivered(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 1, 1);
    struct s3_settings s = settings(COMPRESS_NONE);
    /* The digests of "abc". */
    static const char headers[] = "Content-MD5: kAFQmDzST7DWlj99KOF/cg==\0x-amz-checksum-sha256: "
                                  "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    buffer_add(&f->request.headers, headers, sizeof headers);
    static const char good[] = "\"900150983cd24fb0d6963f7d28e17f72\"";
    static const char sum[] = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    assert_int_equal(judge(&s, f, 200, "", good, "").outcome, UPLINK_DELIVERED);
    assert_int_equal(judge(&s, f, 200, "", "\"0\"", sum).outcome, UPLINK_DELIVERED);
    assert_int_equal(judge(&s, f, 200, "", NULL, NULL).outcome, UPLINK_RETRY);
    assert_int_equal(judge(&s, f, 200, "", "", "").outcome, UPLINK_RETRY);
    assert_int_equal(judge(&s, f, 200, "<html>hello</html>", "\"0\"", "").outcome, UPLINK_RETRY);
    assert_int_equal(judge(&s, f, 200, "", "900150983cd24fb0d6963f7d28e17f72", "").outcome,
                     UPLINK_RETRY);
    buffer_clear(&f->request.headers);
    assert_int_equal(judge(&s, f, 200, "", good, sum).outcome, UPLINK_RETRY);
}

static void test_judge(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 1, 1);
    struct s3_settings s = settings(COMPRESS_NONE), by_iot = s;
    by_iot.aws.credentials = "iot:https://x/";
    static const struct {
        int status;
        const char *code;
        enum uplink_outcome outcome;
        const char *words;
    } cases[] = {
        {503, "SlowDown", UPLINK_RETRY, "slow down"},
        {500, "InternalError", UPLINK_RETRY, "InternalError"},
        {400, "RequestTimeout", UPLINK_RETRY, "RequestTimeout"},
        {400, "BadDigest", UPLINK_RETRY, "damaged"},
        {403, "RequestTimeTooSkewed", UPLINK_RETRY, "clock"},
        {403, "SignatureDoesNotMatch", UPLINK_HOLD, "SignatureDoesNotMatch"},
        {403, "InvalidAccessKeyId", UPLINK_HOLD, "credentials"},
        {403, "AccessDenied", UPLINK_HOLD, "s3:PutObject"},
        {400, "ExpiredToken", UPLINK_HOLD, "ExpiredToken"},
        {404, "NoSuchBucket", UPLINK_HOLD, "bucket"},
        {400, "EntityTooLarge", UPLINK_SPLIT, "EntityTooLarge"},
        {400, "SomethingNew", UPLINK_HOLD, "refuses"},
        {301, "PermanentRedirect", UPLINK_HOLD, "region"},
        {307, "TemporaryRedirect", UPLINK_RETRY, "new"},
        {409, "OperationAborted", UPLINK_RETRY, "OperationAborted"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char body[200];
        snprintf(body, sizeof body, "<Error><Code>%s</Code><Message>m</Message></Error>",
                 cases[i].code);
        struct uplink_verdict v = judge(&s, f, cases[i].status, body, "", "");
        assert_int_equal(v.outcome, cases[i].outcome);
        assert_non_null(strstr(v.why, cases[i].words));
    }
    assert_int_equal(judge(&s, f, 0, "", "", "").outcome, UPLINK_RETRY);
    assert_int_equal(judge(&s, f, 301, "", "", "").outcome, UPLINK_HOLD);
    assert_int_equal(judge(&s, f, 429, "", "", "").outcome, UPLINK_RETRY);
    assert_int_equal(judge(&s, f, 400, "{\"x\":1}", "", "").outcome, UPLINK_HOLD);
    struct uplink_verdict v = judge(&s, f, 403,
                                    "{\"__type\":\"CredentialsMissing\","
                                    "\"message\":\"no such file\"}",
                                    "", "");
    assert_int_equal(v.outcome, UPLINK_HOLD);
    assert_non_null(strstr(v.why, "no such file"));
    v = judge(&by_iot, f, 400, "<Error><Code>ExpiredToken</Code></Error>", "", "");
    assert_int_equal(v.outcome, UPLINK_RETRY);
    v = judge(&s, f, 400,
              "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region>"
              "</Error>",
              "", "");
    assert_int_equal(v.outcome, UPLINK_HOLD);
    assert_non_null(strstr(v.why, "eu-central-1"));
}

static void test_errors_of_any_form(void **state)
{
    (void)state;
    struct s3_error e;
    static const char *const broken[] = {"", "<Error", "<Error><Code>", "<Error><Code>x",
                                         "<Code>NoSuchBucket</Code>"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        s3_parse_error(broken[i], strlen(broken[i]), &e);
        assert_string_equal(e.code, "");
    }
    char text[400] = "<Error><Code>";
    memset(text + 13, 'x', 200);
    memcpy(text + 213, "</Code></Error>", 16);
    s3_parse_error(text, strlen(text), &e);
    assert_int_equal(strlen(e.code), sizeof e.code - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prefixes, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_the_longest_key_fits, batch_setup, batch_teardown),
        cmocka_unit_test(test_urls),
        cmocka_unit_test_setup_teardown(test_object, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_together, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_only_proof_is_delivered, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_judge, batch_setup, batch_teardown),
        cmocka_unit_test(test_errors_of_any_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
