#include "uplink/transport/words.h"

#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

const char *transport_certificate_words(long verify_result)
{
    switch (verify_result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "its certificate has expired (or this machine's clock is ahead)";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "its certificate is not valid yet: is this machine's clock right?";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "its certificate is self-signed: nobody we trust vouches for it (ca_file)";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return "its certificate comes from an authority that we do not know (ca_file)";
    case X509_V_ERR_CERT_REVOKED:
        return "its certificate has been revoked";
    case X509_V_ERR_UNABLE_TO_GET_CRL:
        return "crl_file has no list of the authority that issued its certificate";
    case X509_V_ERR_CRL_HAS_EXPIRED:
        return "the revocation list in crl_file is out of date";
    case X509_V_ERR_CRL_NOT_YET_VALID:
        return "the revocation list in crl_file is not valid yet: is this machine's clock right?";
    case X509_V_ERR_INVALID_PURPOSE:
        return "its certificate is not meant for servers";
    default:
        return NULL;
    }
}

static const char *verify_words(CURL *easy, const char *detail)
{
    long result = X509_V_OK;
    curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
    const char *words = transport_certificate_words(result);
    if (words != NULL) {
        return words;
    }
    /* libcurl compares names itself: OpenSSL's result is then X509_V_OK. */
    if (strstr(detail, "subject name") != NULL || strstr(detail, "does not match") != NULL) {
        return "its certificate is for another host name";
    }
    return NULL;
}

static const char *handshake_words(const char *detail)
{
    static const char *const old[] = {"unsupported protocol", "protocol version",
                                      "wrong ssl version", "no protocols available"};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        if (strstr(detail, old[i]) != NULL) {
            return "it only offers TLS older than 1.2";
        }
    }
    if (strstr(detail, "wrong version number") != NULL || strstr(detail, "http request") != NULL ||
        strstr(detail, "packet length too long") != NULL) {
        return "it does not speak TLS on that port";
    }
    return NULL;
}

/* Alerts about our certificate arrive with the handshake, or (TLS 1.3) with the first read. */
static const char *client_certificate_words(const char *detail)
{
    if (strstr(detail, "certificate required") != NULL) {
        return "it wants a client certificate (cert_file, key_file)";
    }
    if (strstr(detail, "alert bad certificate") != NULL ||
        strstr(detail, "alert unknown ca") != NULL || strstr(detail, "alert certificate") != NULL ||
        strstr(detail, "alert decrypt") != NULL) {
        return "it does not accept our client certificate (cert_file)";
    }
    return NULL;
}

static const char *connect_words(CURL *easy)
{
    long os_error = 0;
    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
    switch (os_error) {
    case ECONNREFUSED:
        return "refuses the connection: is the service running, is the port right?";
    case ENETUNREACH:
    case EHOSTUNREACH:
        return "cannot be reached: no route";
    case ETIMEDOUT:
        return "does not answer";
    case ECONNRESET:
        return "broke the connection off";
    default:
        return "cannot be connected to";
    }
}

static const char *timeout_words(CURL *easy, const char *detail)
{
    curl_off_t name_us = 0, connect_us = 0, tls_us = 0;
    char *scheme = NULL;
    curl_easy_getinfo(easy, CURLINFO_NAMELOOKUP_TIME_T, &name_us);
    curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connect_us);
    curl_easy_getinfo(easy, CURLINFO_APPCONNECT_TIME_T, &tls_us);
    curl_easy_getinfo(easy, CURLINFO_SCHEME, &scheme);
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 0) {
        return "it began to answer, but did not come to an end in time";
    }
    if (strstr(detail, "esolving") != NULL) {
        return "its name was not resolved in time: name server?";
    }
    if (strstr(detail, "too slow") != NULL) {
        return "transfer too slow: the line hardly moves";
    }
    if (connect_us == 0) {
        return "no connection in time: wrong address, or a firewall that drops";
    }
    if (tls_us == 0 && scheme != NULL && strcasecmp(scheme, "https") == 0) {
        return "connected, but no TLS handshake in time";
    }
    return "connected, but no answer in time";
}

static const char *plain_words(CURL *easy, CURLcode code, const char *detail)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "its name does not resolve";
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "the proxy's name does not resolve";
    case CURLE_COULDNT_CONNECT:
        return connect_words(easy);
    case CURLE_OPERATION_TIMEDOUT:
        return timeout_words(easy, detail);
    case CURLE_PEER_FAILED_VERIFICATION:
        return verify_words(easy, detail);
    case CURLE_SSL_CONNECT_ERROR: {
        const char *words = handshake_words(detail);
        words = words != NULL ? words : client_certificate_words(detail);
        return words;
    }
    case CURLE_SSL_CERTPROBLEM:
        return "our cert_file and key_file cannot be used";
    case CURLE_SSL_CACERT_BADFILE:
        return "ca_file cannot be used";
    case CURLE_SSL_CRL_BADFILE:
        return "crl_file cannot be used";
    case CURLE_GOT_NOTHING:
        return "it closed the connection without an answer";
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR: {
        const char *words = client_certificate_words(detail);
        return words != NULL ? words : "the connection broke";
    }
    case CURLE_OUT_OF_MEMORY: /* what libcurl calls a line beyond its bound */
        return "a line of its answer does not end, or there is no memory left";
    case CURLE_PARTIAL_FILE:
        return "the connection broke within the answer";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return "what answers does not speak HTTP";
    default:
        return NULL;
    }
}

void transport_words(CURL *easy, CURLcode code, const char *detail, char text[WORDS_MAX])
{
    char *url = NULL, *host = NULL, *port = NULL;
    curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    CURLU *parts = curl_url();
    if (parts != NULL && url != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK) {
        curl_url_get(parts, CURLUPART_HOST, &host, 0);
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    }
    const char *words = plain_words(easy, code, detail);
    const char *more = detail[0] != '\0' ? detail : curl_easy_strerror(code);
    snprintf(text, WORDS_MAX, "%s:%s: %s%s%s%s", host != NULL ? host : "?",
             port != NULL ? port : "?", words != NULL ? words : "", words != NULL ? " (" : "", more,
             words != NULL ? ")" : "");
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
}

static const char *proxy_status_words(long status)
{
    switch (status) {
    case 401: /* what tinyproxy says where 407 is meant */
    case 407:
        return "wants a user and password, or others (proxy_login_file)";
    case 403:
        return "does not let us go there";
    case 502:
    case 503:
    case 504:
        return "cannot reach the endpoint";
    default:
        return "does not make the connection";
    }
}

bool transport_proxy_words(CURL *easy, CURLcode code, const char *proxy, char text[WORDS_MAX])
{
    long status = 0;
    curl_off_t connect_us = 0;
    curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &status);
    curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connect_us);
    const char *words = NULL;
    if (status >= 300) {
        snprintf(text, WORDS_MAX, "the proxy %.80s %s (%ld)", proxy, proxy_status_words(status),
                 status);
        return true;
    }
    if (code == CURLE_COULDNT_CONNECT) {
        words = connect_words(easy);
    } else if (code == CURLE_COULDNT_RESOLVE_PROXY) {
        words = "has a name that does not resolve";
    } else if (code == CURLE_OPERATION_TIMEDOUT && connect_us == 0) {
        words = "does not answer in time: wrong address, or a firewall that drops";
    }
    if (words != NULL) {
        snprintf(text, WORDS_MAX, "the proxy %.80s %s", proxy, words);
    }
    return words != NULL;
}
