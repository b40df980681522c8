#include "gateway/base/clock.h"
#include "uplink/transport/trust.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>

const char *const transport_compress_choices[] = {"none", "gzip", "zstd", NULL};

bool transport_is_loopback(const char *host)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    /* libcurl resolves "localhost" itself, never by DNS (since 7.78). */
    return strcmp(host, "[::1]") == 0 || strcasecmp(host, "localhost") == 0;
}

static int check_parts(CURLU *parts)
{
    char *scheme = NULL, *host = NULL;
    int r = -EINVAL;
    if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK || host[0] == '\0') {
        r = -EINVAL;
    } else if (strcmp(scheme, "https") == 0) {
        r = 0;
    } else if (strcmp(scheme, "http") == 0) {
        r = transport_is_loopback(host) ? 0 : -EPERM;
    }
    curl_free(scheme);
    curl_free(host);
    return r;
}

int transport_url_check(const char *url)
{
    CURLU *parts = curl_url();
    if (parts == NULL) {
        return -ENOMEM;
    }
    int r = curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK ? check_parts(parts) : -EINVAL;
    curl_url_cleanup(parts);
    return r;
}

void transport_files_check(const char *ca_file, const char *cert_file, const char *key_file,
                           struct config_errors *errors)
{
    if ((cert_file != NULL) != (key_file != NULL)) {
        config_complain(errors, cert_file != NULL ? "cert_file" : "key_file", "needs %s, too",
                        cert_file != NULL ? "key_file" : "cert_file");
    }
    char words[TRUST_WORDS_MAX];
    int64_t now_ms = clock_wall_ms();
    if (cert_file != NULL &&
        trust_expiry_words("the certificate", trust_file_until_ms(cert_file), now_ms, words)) {
        config_warn(errors, "cert_file", "%s", words);
    }
    if (ca_file != NULL &&
        trust_expiry_words("a certificate in it", trust_file_until_ms(ca_file), now_ms, words)) {
        config_warn(errors, "ca_file", "%s", words);
    }
}

void transport_settings_check(const struct transport_settings *settings,
                              struct config_errors *errors)
{
    int r = settings->url != NULL ? transport_url_check(settings->url) : 0;
    if (r == -EPERM) {
        config_complain(errors, "url",
                        "plain http is taken for loopback addresses only; use https");
    } else if (r < 0) {
        config_complain(errors, "url", "is no http or https URL");
    }
    if (settings->proxy_login.text != NULL && settings->proxy == NULL) {
        config_complain(errors, "proxy_login_file", "needs proxy, too");
    }
    transport_files_check(settings->ca_file, settings->cert_file, settings->key_file, errors);
}
