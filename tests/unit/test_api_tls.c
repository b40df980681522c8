/* The local API beyond loopback: TLS 1.2 or newer, a token for everything that says something. */
#include "tests/unit/mini_gateway.h"

#include <curl/curl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */
#include "tests/unit/mini_gateway.inc"

#define TOKEN "aaaaaaaaaaaaaaaaaaaaaaaa"

struct bench {
    struct mini mini;
    char cert[128], key[128];
    struct api *api; /* the one under test, beside that of `mini` */
};

/* A certificate for 127.0.0.1 that vouches for itself, and its key. */
static void make_certificate(const struct bench *bench)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    assert_true(key != NULL && cert != NULL);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"gw", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    X509_add_ext(cert, san, -1);
    X509_EXTENSION_free(san);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *file = fopen(bench->cert, "we");
    assert_int_equal(PEM_write_X509(file, cert), 1);
    fclose(file);
    file = fopen(bench->key, "we");
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    *state = bench;
    if (mini_start(&bench->mini, NULL) < 0) {
        return -1;
    }
    char path[128], why[200] = "";
    snprintf(bench->cert, sizeof bench->cert, "%s/gw.pem", bench->mini.dir);
    snprintf(bench->key, sizeof bench->key, "%s/gw.key", bench->mini.dir);
    snprintf(path, sizeof path, "%s/second.sock", bench->mini.dir);
    make_certificate(bench);
    struct api_settings settings = {
        .listen = "0.0.0.0:0", .cert_file = bench->cert, .key_file = bench->key};
    settings.tokens.path = "tokens";
    settings.tokens.text = "monitor read " TOKEN;
    struct api_host host = bench->mini.host;
    host.socket_path = path;
    return api_start(&host, &settings, &bench->api, why, sizeof why);
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    api_stop(bench->api);
    mini_stop(&bench->mini);
    free(bench);
    return 0;
}

static size_t take(char *data, size_t size, size_t count, void *user)
{
    buffer_add(user, data, size * count);
    return size * count;
}

/* GET over TLS; the status, or minus the curl code. */
static long get(const struct bench *bench, const char *path, const char *token, long tls_max,
                struct buffer *body)
{
    char url[200], header[100];
    CURL *curl = curl_easy_init();
    assert_non_null(curl);
    snprintf(url, sizeof url, "https://127.0.0.1:%u%s", api_port(bench->api), path);
    snprintf(header, sizeof header, "Authorization: Bearer %s", token);
    struct curl_slist *headers = token[0] != '\0' ? curl_slist_append(NULL, header) : NULL;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_CAINFO, bench->cert);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1 | tls_max);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)PEER_LIMIT_MS);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    buffer_clear(body);
    CURLcode code = curl_easy_perform(curl);
    long status = -(long)code;
    if (code == CURLE_OK) {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return status;
}

static void test_tokens_over_tls(void **state)
{
    struct bench *bench = *state;
    auto_buffer struct buffer body = {0};
    assert_int_equal(get(bench, "/v1/status", TOKEN, 0, &body), 200);
    assert_non_null(strstr(buffer_text(&body), "\"gateway\":\"borssele-1\""));
    assert_int_equal(get(bench, "/v1/status", "", 0, &body), 401);
    assert_null(strstr(buffer_text(&body), "borssele-1"));
    assert_int_equal(get(bench, "/v1/nothing", "", 0, &body), 401);
    assert_int_equal(get(bench, "/v1/status", TOKEN "x", 0, &body), 401);
    assert_int_equal(get(bench, "/", "", 0, &body), 200);
    assert_null(strstr(buffer_text(&body), "borssele-1"));
}

static void test_old_tls_and_plain_http_are_refused(void **state)
{
    struct bench *bench = *state;
    auto_buffer struct buffer body = {0};
    assert_true(get(bench, "/", TOKEN, CURL_SSLVERSION_MAX_TLSv1_1, &body) < 0);
    assert_int_equal(get(bench, "/", TOKEN, CURL_SSLVERSION_MAX_TLSv1_2, &body), 200);
    auto_close int fd = peer_tcp(api_port(bench->api));
    peer_say(fd, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    buffer_clear(&body);
    peer_hear(fd, &body, NULL);
    assert_int_equal(peer_status(&body), 0);
}

static void test_bad_files_are_named(void **state)
{
    struct bench *bench = *state;
    char why[200] = "", path[128];
    snprintf(path, sizeof path, "%s/third.sock", bench->mini.dir);
    struct api_settings settings = {
        .listen = "127.0.0.1:0", .cert_file = bench->key, .key_file = bench->key};
    struct api_host host = bench->mini.host;
    host.socket_path = path;
    struct api *api = NULL;
    assert_int_equal(api_start(&host, &settings, &api, why, sizeof why), -EINVAL);
    assert_non_null(strstr(why, bench->key));
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens_over_tls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_tls_and_plain_http_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_files_are_named, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
