/* Requests on their way: what is refused before a byte of data leaves, and how failures read. */
#include "certs_peer.h"
#include "cloud_peer.h"
#include "uplink/transport/reply_headers.h"
#include "uplink/transport/transport.h"
#include "uplink/transport/words.h"

#include <errno.h>
#include <openssl/x509_vfy.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <zlib.h>
#include <zstd.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

static char dir[] = "/tmp/windrow-transport-XXXXXX";

static const char *in_dir(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

struct outcome {
    bool done;
    int status;
    char body[128], error[300];
    size_t len;
    int64_t retry_after_ms, date_ms;
};

static void on_done(void *user, const struct uplink_reply *reply)
{
    struct outcome *o = user;
    *o = (struct outcome){.done = true,
                          .status = reply->status,
                          .len = reply->len,
                          .retry_after_ms = reply->retry_after_ms,
                          .date_ms = reply->date_ms};
    snprintf(o->body, sizeof o->body, "%s", reply->body);
    snprintf(o->error, sizeof o->error, "%s", reply->error);
}

static void add(struct buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

static enum uplink_token shown_as; /* in the next requests */

static struct outcome ask(const struct transport_settings *settings, const char *body)
{
    struct outcome o = {0};
    void *state = NULL;
    assert_int_equal(transport_http.create(settings, "gw", 2, &state), 0);
    auto_buffer struct buffer bytes = {0}, headers = {0};
    add(&bytes, body);
    buffer_add(&headers, "X-One: 1", 9);
    buffer_add(&headers, "X-Two: \"2\"", 11);
    struct uplink_request request = {.body = bytes,
                                     .content_type = "application/json",
                                     .path = "/path",
                                     .headers = headers,
                                     .token = shown_as,
                                     .compressible = true};
    assert_int_equal(transport_http.send(state, &request, on_done, &o), 0);
    for (int i = 0; i < 100 && !o.done; i++) {
        assert_int_equal(transport_http.run(state, -1, 1000), 0);
    }
    assert_true(o.done);
    transport_http.destroy(state);
    return o;
}

static struct transport_settings settings_for(const char *scheme, const char *host, int port)
{
    static char urls[4][100];
    static unsigned next;
    char *url = urls[next++ % 4];
    snprintf(url, sizeof urls[0], "%s://%s:%d", scheme, host, port);
    return (struct transport_settings){.url = url, .timeout_ms = 10000, .connect_timeout_ms = 5000};
}

/* What the last request looked like, and the answer to give. */
struct script {
    char head[4096], body[8192];
    size_t len;
    _Atomic(const char *) answer; /* changed while a connection is served */
    _Atomic int status;
};

static int answer(void *user, const struct cloud_request *request, char *text, size_t size)
{
    struct script *s = user;
    snprintf(s->head, sizeof s->head, "%s", request->head);
    s->len = request->len < sizeof s->body ? request->len : sizeof s->body - 1;
    memcpy(s->body, request->body, s->len);
    s->body[s->len] = '\0';
    if (s->status < 0) {
        return -1;
    }
    return s->answer != NULL ? snprintf(text, size, "%s", s->answer)
                             : cloud_reply(text, size, 200, "", "{\"accepted\":1}");
}

static struct cloud *plain_peer(struct script *s)
{
    return cloud_start(&(struct cloud_options){.answer = answer, .user = s});
}

static struct cloud *tls_peer(struct script *s, const char *cert)
{
    return cloud_start(&(struct cloud_options){
        .cert_file = in_dir(cert), .key_file = in_dir("key.pem"), .answer = answer, .user = s});
}

static void test_a_request_arrives_whole(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = tls_peer(&s, "good.pem");
    struct transport_settings t = settings_for("https", "localhost", cloud_port(p));
    t.ca_file = in_dir("ca.pem");
    t.token.text = "secret";
    struct outcome o = ask(&t, "{\"records\":[]}");
    assert_string_equal(o.error, "");
    assert_int_equal(o.status, 200);
    assert_string_equal(o.body, "{\"accepted\":1}");
    assert_memory_equal(s.head, "POST /path HTTP/1.1\r\n", 21);
    assert_non_null(strstr(s.head, "\r\nContent-Type: application/json"));
    assert_non_null(strstr(s.head, "\r\nAuthorization: Bearer secret"));
    assert_non_null(strstr(s.head, "\r\nX-One: 1\r\nX-Two: \"2\""));
    assert_null(strcasestr(s.head, "\r\nExpect:"));
    assert_null(strcasestr(s.head, "\r\nContent-Encoding:"));
    assert_string_equal(s.body, "{\"records\":[]}");
    cloud_stop(p);
}

/* As the editions of InfluxDB want them; a login may hold a colon more, and quotes. */
static void test_tokens_by_scheme(void **state)
{
    (void)state;
    static const struct {
        enum uplink_token how;
        const char *token, *shown;
    } cases[] = {
        {UPLINK_TOKEN_BEARER, "a:b", "\r\nAuthorization: Bearer a:b\r\n"},
        {UPLINK_TOKEN_TOKEN, "t0ken==", "\r\nAuthorization: Token t0ken==\r\n"},
        {UPLINK_TOKEN_LOGIN, "t0ken==", "\r\nAuthorization: Token t0ken==\r\n"},
        {UPLINK_TOKEN_LOGIN, "user:pass", "\r\nAuthorization: Basic dXNlcjpwYXNz\r\n"},
        {UPLINK_TOKEN_LOGIN, "u:\":", "\r\nAuthorization: Basic dToiOg==\r\n"},
    };
    struct script s = {0};
    struct cloud *p = plain_peer(&s);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct transport_settings t = settings_for("http", "127.0.0.1", cloud_port(p));
        t.token.text = cases[i].token;
        shown_as = cases[i].how;
        assert_int_equal(ask(&t, "x").status, 200);
        assert_non_null(strstr(s.head, cases[i].shown));
    }
    shown_as = UPLINK_TOKEN_BEARER;
    cloud_stop(p);
}

static void test_bodies_are_compressed(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = plain_peer(&s);
    struct transport_settings t = settings_for("http", "127.0.0.1", cloud_port(p));
    char text[4001], out[4001];
    memset(text, 'x', 4000);
    text[4000] = '\0';

    t.compress = COMPRESS_GZIP;
    assert_int_equal(ask(&t, text).status, 200);
    assert_non_null(strstr(s.head, "\r\nContent-Encoding: gzip"));
    z_stream z = {.next_in = (uint8_t *)s.body,
                  .avail_in = (uInt)s.len,
                  .next_out = (uint8_t *)out,
                  .avail_out = sizeof out};
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    inflateEnd(&z);
    assert_memory_equal(out, text, 4000);

    t.compress = COMPRESS_ZSTD;
    assert_int_equal(ask(&t, text).status, 200);
    assert_non_null(strstr(s.head, "\r\nContent-Encoding: zstd"));
    assert_int_equal(ZSTD_decompress(out, sizeof out, s.body, s.len), 4000);
    cloud_stop(p);
}

static void test_connections_are_kept(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = plain_peer(&s);
    struct transport_settings t = settings_for("http", "localhost", cloud_port(p));
    void *transport = NULL;
    assert_int_equal(transport_http.create(&t, "gw", 1, &transport), 0);
    struct uplink_request request = {.content_type = "text/plain"};
    for (int i = 0; i < 20; i++) {
        struct outcome o = {0};
        assert_int_equal(transport_http.send(transport, &request, on_done, &o), 0);
        assert_int_equal(transport_http.send(transport, &request, on_done, &o), -EBUSY);
        while (!o.done) {
            assert_int_equal(transport_http.run(transport, -1, 1000), 0);
        }
        assert_int_equal(o.status, 200);
    }
    assert_int_equal(cloud_requests(p), 20);
    assert_int_equal(cloud_connections(p), 1);
    assert_true(transport_http.bytes_sent(transport) > 20 * 50);
    transport_http.destroy(transport);
    cloud_stop(p);
}

static void test_refused_before_a_byte_leaves(void **state)
{
    (void)state;
    static const struct {
        const char *cert, *host, *words;
        bool crl, tls11, no_ca;
    } cases[] = {
        {"otherhost.pem", "localhost", "another host name", 0, 0, 0},
        {"expired.pem", "localhost", "has expired", 0, 0, 0},
        {"early.pem", "localhost", "not valid yet", 0, 0, 0},
        {"selfsigned.pem", "localhost", "self-signed", 0, 0, 0},
        {"good.pem", "localhost", "authority that we do not know", 0, 0, 1},
        {"revoked.pem", "localhost", "revoked", 1, 0, 0},
        {"good.pem", "localhost", "TLS older than 1.2", 0, 1, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct script s = {0};
        struct cloud_options options = {.cert_file = in_dir(cases[i].cert),
                                        .key_file = in_dir("key.pem"),
                                        .only_tls11 = cases[i].tls11,
                                        .answer = answer,
                                        .user = &s};
        struct cloud *p = cloud_start(&options);
        struct transport_settings t = settings_for("https", cases[i].host, cloud_port(p));
        t.ca_file = cases[i].no_ca ? NULL : in_dir("ca.pem");
        t.crl_file = cases[i].crl ? in_dir("crl.pem") : NULL;
        struct outcome o = ask(&t, "{\"secret\":1}");
        if (strstr(o.error, cases[i].words) == NULL) {
            fail_msg("%s: '%s' instead of '%s'", cases[i].cert, o.error, cases[i].words);
        }
        assert_int_equal(o.status, 0);
        assert_int_equal(cloud_bytes(p), 0);
        assert_int_equal(cloud_requests(p), 0);
        cloud_stop(p);
    }
}

static void test_a_revocation_list_lets_the_others_through(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = tls_peer(&s, "good.pem");
    struct transport_settings t = settings_for("https", "localhost", cloud_port(p));
    t.ca_file = in_dir("ca.pem");
    t.crl_file = in_dir("crl.pem");
    assert_int_equal(ask(&t, "x").status, 200);
    cloud_stop(p);
}

static void test_mutual_tls(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = cloud_start(&(struct cloud_options){.cert_file = in_dir("good.pem"),
                                                          .key_file = in_dir("key.pem"),
                                                          .client_ca_file = in_dir("ca.pem"),
                                                          .answer = answer,
                                                          .user = &s});
    struct transport_settings t = settings_for("https", "localhost", cloud_port(p));
    t.ca_file = in_dir("ca.pem");
    struct outcome o = ask(&t, "x");
    assert_int_equal(o.status, 0);
    assert_non_null(strstr(o.error, "client certificate"));
    t.cert_file = in_dir("selfsigned.pem");
    t.key_file = in_dir("key.pem");
    o = ask(&t, "x");
    assert_int_equal(o.status, 0);
    assert_non_null(strstr(o.error, "client certificate"));
    t.cert_file = in_dir("client.pem");
    assert_int_equal(ask(&t, "x").status, 200);
    cloud_stop(p);
}

static void test_failures_in_words(void **state)
{
    (void)state;
    struct script s = {0};
    struct cloud *p = plain_peer(&s);
    struct transport_settings t = settings_for("https", "localhost", cloud_port(p));
    assert_non_null(strstr(ask(&t, "x").error, "does not speak TLS"));
    t = settings_for("http", "127.0.0.1", cloud_port(p));
    s.status = -1;
    assert_non_null(strstr(ask(&t, "x").error, "closed the connection without an answer"));
    s.status = 0;
    s.answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    t.timeout_ms = 500;
    struct outcome o = ask(&t, "x");
    assert_int_equal(o.status, 0); /* a torn answer proves nothing */
    assert_non_null(strstr(o.error, "began to answer, but did not come to an end"));
    s.answer = "SSH-2.0-OpenSSH\r\n";
    assert_int_equal(ask(&t, "x").status, 0);
    cloud_stop(p);
    assert_non_null(strstr(ask(&t, "x").error, "refuses the connection"));
    t = settings_for("https", "no-such-host.invalid", 443);
    assert_non_null(strstr(ask(&t, "x").error, "does not resolve"));
    t = settings_for("https", "localhost", 1);
    t.ca_file = in_dir("nothing.pem");
    assert_true(ask(&t, "x").error[0] != '\0');
}

static void test_reply_headers_come_through(void **state)
{
    (void)state;
    struct script s = {.answer = "HTTP/1.1 503 Busy\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                 "Retry-After: Sun, 06 Nov 1994 08:51:37 GMT\r\n"
                                 "Content-Length: 4\r\n\r\nbusy"};
    struct cloud *p = plain_peer(&s);
    struct transport_settings t = settings_for("http", "127.0.0.1", cloud_port(p));
    struct outcome o = ask(&t, "x");
    assert_int_equal(o.status, 503);
    assert_int_equal(o.retry_after_ms, 120000);
    assert_int_equal(o.date_ms, 784111777000);
    s.answer = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(ask(&t, "x").status, 302);
    cloud_stop(p);
}

static int long_answer(void *user, const struct cloud_request *request, char *text, size_t size)
{
    (void)request;
    size_t len = *(size_t *)user;
    int head = snprintf(text, size, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    memset(text + head, ' ', len);
    return head + (int)len;
}

static void test_the_bound_on_a_body(void **state)
{
    (void)state;
    static const size_t lengths[][2] = {{TRANSPORT_BODY_MAX - 1, TRANSPORT_BODY_MAX - 1},
                                        {TRANSPORT_BODY_MAX + 1, TRANSPORT_BODY_MAX},
                                        {3 * TRANSPORT_BODY_MAX, TRANSPORT_BODY_MAX}};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        size_t len = lengths[i][0];
        struct cloud *p = cloud_start(&(struct cloud_options){.answer = long_answer, .user = &len});
        struct transport_settings t = settings_for("http", "127.0.0.1", cloud_port(p));
        struct outcome o = ask(&t, "x");
        assert_int_equal(o.status, 200);
        assert_int_equal(o.len, lengths[i][1]);
        cloud_stop(p);
    }
}

static void test_plain_http_stays_on_this_machine(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        int r;
    } cases[] = {
        {"https://ingest.example.com/v1", 0},
        {"http://127.0.0.1:8080/x", 0},
        {"http://127.9.9.9/", 0},
        {"http://[::1]:80/", 0},
        {"http://localhost/", 0},
        {"http://LOCALHOST/", 0},
        {"http://10.0.0.1/", -EPERM},
        {"http://localhost.example.com/", -EPERM},
        {"http://127.0.0.1.example.com/", -EPERM},
        {"http://localhost@evil.example/", -EPERM},
        {"ftp://127.0.0.1/", -EINVAL},
        {"file:///etc/passwd", -EINVAL},
        {"", -EINVAL},
        {"https://", -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct transport_settings t = {
            .url = cases[i].url, .timeout_ms = 1000, .connect_timeout_ms = 1000};
        void *transport = NULL;
        assert_int_equal(transport_url_check(cases[i].url), cases[i].r);
        assert_int_equal(transport_http.create(&t, "gw", 1, &transport), cases[i].r);
        if (cases[i].r == 0) {
            transport_http.destroy(transport);
        }
    }
}

static void test_a_wake_ends_the_wait(void **state)
{
    (void)state;
    struct transport_settings t = settings_for("http", "127.0.0.1", 1);
    void *transport = NULL;
    assert_int_equal(transport_http.create(&t, "gw", 1, &transport), 0);
    auto_close int fd = eventfd(1, EFD_NONBLOCK);
    assert_int_equal(transport_http.run(transport, fd, -1), 0); /* hangs if it were not heard */
    uint64_t value;
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    assert_int_equal(transport_http.run(transport, fd, 10), 0);
    transport_http.destroy(transport);
}

static void test_too_many_headers(void **state)
{
    (void)state;
    struct transport_settings t = settings_for("http", "127.0.0.1", 1);
    void *transport = NULL;
    assert_int_equal(transport_http.create(&t, "gw", 1, &transport), 0);
    auto_buffer struct buffer headers = {0};
    for (int i = 0; i <= TRANSPORT_HEADERS_MAX; i++) {
        buffer_add(&headers, "X-A: b", 7);
    }
    struct uplink_request request = {.content_type = "text/plain", .headers = headers};
    struct outcome o = {0};
    assert_int_equal(transport_http.send(transport, &request, on_done, &o), -E2BIG);
    transport_http.destroy(transport);
}

static int64_t retry_after(const char *value, const char *date)
{
    struct reply_headers h = {0};
    char line[100];
    snprintf(line, sizeof line, "retry-AFTER:  %s \r\n", value);
    reply_headers_line(&h, line, strlen(line));
    snprintf(line, sizeof line, "Date: %s\r\n", date);
    reply_headers_line(&h, line, strlen(line));
    return reply_retry_after_ms(&h, 784111777000);
}

static void test_retry_after(void **state)
{
    (void)state;
    assert_int_equal(retry_after("120", ""), 120000);
    assert_int_equal(retry_after("0", ""), 0);
    assert_int_equal(retry_after("99999999999999999999", ""), RETRY_AFTER_MAX_MS);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:38 GMT", ""), 1000);
    assert_int_equal(retry_after("Sun, 06 Nov 1994 08:49:36 GMT", ""), 0);
    /* Our clock may be wrong: the difference to the reply's own Date counts. */
    assert_int_equal(retry_after("Sun, 06 Nov 2094 08:49:47 GMT", "Sun, 06 Nov 2094 08:49:37 GMT"),
                     10000);
    assert_int_equal(retry_after("soon", ""), -1);
    assert_int_equal(retry_after("", ""), -1);
    assert_int_equal(retry_after("-5", ""), -1);
}

/* A signature has room for four digits of a year. */
static void test_dates_beyond_all_clocks(void **state)
{
    (void)state;
    static const char *const dates[] = {"Sun, 06 Nov 12345 08:49:37 GMT", "99999999999999999999",
                                        "Sun, 06 Nov 1000000000 08:49:37 GMT", "-1", ""};
    for (size_t i = 0; i < ARRAY_SIZE(dates); i++) {
        struct reply_headers h = {0};
        char line[100];
        snprintf(line, sizeof line, "Date: %s\r\n", dates[i]);
        reply_headers_line(&h, line, strlen(line));
        assert_true(h.date_ms >= 0 && h.date_ms < INT64_C(253402300800000));
    }
}

static void test_certificate_words(void **state)
{
    (void)state;
    assert_non_null(transport_certificate_words(X509_V_ERR_CERT_HAS_EXPIRED));
    assert_non_null(transport_certificate_words(X509_V_ERR_UNABLE_TO_GET_CRL));
    assert_null(transport_certificate_words(X509_V_OK));
}

static int make_files(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    unsetenv("ALL_PROXY");
    unsetenv("all_proxy");
    assert_non_null(mkdtemp(dir));
    certs_make(dir);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_arrives_whole),
        cmocka_unit_test(test_tokens_by_scheme),
        cmocka_unit_test(test_bodies_are_compressed),
        cmocka_unit_test(test_connections_are_kept),
        cmocka_unit_test(test_refused_before_a_byte_leaves),
        cmocka_unit_test(test_a_revocation_list_lets_the_others_through),
        cmocka_unit_test(test_mutual_tls),
        cmocka_unit_test(test_failures_in_words),
        cmocka_unit_test(test_reply_headers_come_through),
        cmocka_unit_test(test_the_bound_on_a_body),
        cmocka_unit_test(test_plain_http_stays_on_this_machine),
        cmocka_unit_test(test_a_wake_ends_the_wait),
        cmocka_unit_test(test_too_many_headers),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_dates_beyond_all_clocks),
        cmocka_unit_test(test_certificate_words),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
