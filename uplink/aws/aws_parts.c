#include "uplink/aws/aws_parts.h"

#include "uplink/aws/sigv4.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>

int aws_service_url(const char *host, const char *region, char ret_url[AWS_URL_MAX])
{
    for (const char *at = region; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at) && *at != '-') {
            return -EINVAL;
        }
    }
    if (region[0] == '\0' || strlen(region) > 60) {
        return -EINVAL;
    }
    snprintf(ret_url, AWS_URL_MAX, "https://%.80s.%s.amazonaws.com%s", host, region,
             strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    return 0;
}

int aws_parse_endpoints(const char *text, size_t len, char ret_url[AWS_URL_MAX],
                        int64_t *ret_minutes)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    const json_t *first = json_array_get(json_object_get(root, "Endpoints"), 0);
    const char *address = json_string_value(json_object_get(first, "Address"));
    const json_t *minutes = json_object_get(first, "CachePeriodInMinutes");
    int r = -EBADMSG;
    if (address != NULL && address[0] != '\0' && json_is_integer(minutes)) {
        char url[AWS_URL_MAX];
        int n = snprintf(url, sizeof url, "%s%s", strstr(address, "://") == NULL ? "https://" : "",
                         address);
        int64_t given = json_integer_value(minutes), most = INT64_C(7) * 24 * 60;
        if (n < (int)sizeof url && transport_url_check(url) == 0) {
            memcpy(ret_url, url, sizeof url);
            *ret_minutes = given < 0 ? 0 : given > most ? most : given;
            r = 0;
        }
    }
    json_decref(root);
    return r;
}

/* The parts of an address as they go over the wire. */
struct address {
    char host[300];
    char *path, *query; /* curl_free() */
};

static int take_host(CURLU *parts, struct address *a)
{
    char *host = NULL, *port = NULL;
    int r = -EINVAL;
    if (curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
        /* As libcurl writes the header: the port only where it is not the scheme's own. */
        CURLUcode c = curl_url_get(parts, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT);
        int n = snprintf(a->host, sizeof a->host, "%s%s%s", host, c == CURLUE_OK ? ":" : "",
                         c == CURLUE_OK ? port : "");
        r = n < (int)sizeof a->host ? 0 : -EINVAL;
    }
    curl_free(host);
    curl_free(port);
    return r;
}

static int split_url(const char *url, const char *more, struct address *a)
{
    auto_buffer struct buffer whole = {0};
    buffer_add_text(&whole, url);
    buffer_add_text(&whole, more);
    const char *text = buffer_text(&whole);
    CURLU *parts = curl_url();
    int r = text == NULL || parts == NULL                              ? -ENOMEM
            : curl_url_set(parts, CURLUPART_URL, text, 0) != CURLUE_OK ? -EINVAL
                                                                       : take_host(parts, a);
    if (r == 0) {
        r = curl_url_get(parts, CURLUPART_PATH, &a->path, 0) == CURLUE_OK ? 0 : -EINVAL;
        curl_url_get(parts, CURLUPART_QUERY, &a->query, 0);
    }
    curl_url_cleanup(parts);
    return r;
}

int aws_sign_request(const struct aws_signing *signing, struct uplink_request *request)
{
    struct address address = {0};
    char content_type[100];
    const char *lines[SIGV4_HEADERS_MAX];
    size_t count = 0;
    if (request->content_type != NULL) {
        snprintf(content_type, sizeof content_type, "Content-Type: %s", request->content_type);
        lines[count++] = content_type;
    }
    /* Copied, because the signature goes to the same buffer. */
    auto_buffer struct buffer own = {0};
    buffer_add(&own, request->headers.data, request->headers.len);
    const char *at = (const char *)own.data, *end = at + own.len;
    for (; at < end && count < SIGV4_HEADERS_MAX; at += strlen(at) + 1) {
        lines[count++] = at;
    }
    int r = buffer_failed(&own) ? -ENOMEM : split_url(signing->url, request->path, &address);
    if (r == 0) {
        struct sigv4_request what = {.method = request->method != NULL ? request->method : "POST",
                                     .host = address.host,
                                     .path = address.path,
                                     .query = address.query != NULL ? address.query : "",
                                     .headers = lines,
                                     .header_count = count,
                                     .body = request->body.data,
                                     .body_len = request->body.len,
                                     .path_as_is = signing->path_as_is};
        const struct aws_credentials *c = signing->credentials;
        struct sigv4_credentials keys = {
            .access_key = c->access_key,
            .secret_key = c->secret_key,
            .session_token = c->session_token[0] != '\0' ? c->session_token : NULL};
        r = sigv4_sign(&what, &keys, signing->region, signing->service, signing->time_ms,
                       &request->headers);
    }
    curl_free(address.path);
    curl_free(address.query);
    return r;
}

void aws_begin_request(struct uplink_request *request, size_t max, const char *target,
                       const char *content_type)
{
    request->body.max = max;
    buffer_clear(&request->body);
    buffer_clear(&request->headers);
    buffer_add(&request->headers, target, strlen(target) + 1);
    request->content_type = content_type;
    request->path[0] = '\0';
    request->compressible = false;
}

void aws_settings_check(const struct aws_settings *s, struct config_errors *errors)
{
    char url[AWS_URL_MAX];
    if (s->region != NULL && aws_service_url("x", s->region, url) < 0) {
        config_complain(errors, "region", "is no AWS region, such as eu-west-1");
    }
    if (s->transport.url != NULL && transport_url_check(s->transport.url) == -EPERM) {
        config_complain(errors, "endpoint",
                        "plain http is taken for loopback addresses only; use https");
    }
    transport_files_check(s->transport.ca_file, s->transport.cert_file, s->transport.key_file,
                          errors);
    if (s->transport.proxy_login.text != NULL && s->transport.proxy == NULL) {
        config_complain(errors, "proxy_login_file", "needs proxy, too");
    }
    enum aws_source source;
    const char *rest;
    if (s->credentials == NULL) {
        return;
    }
    if (aws_source_parse(s->credentials, &source, &rest) < 0) {
        config_complain(errors, "credentials", "is none of file:PATH, env:, iot:URL");
    } else if (source == AWS_FROM_FILE && rest[0] != '/') {
        config_complain(errors, "credentials", "file: wants a path from the root");
    } else if (source == AWS_FROM_IOT && transport_url_check(rest) < 0) {
        config_complain(errors, "credentials",
                        "iot: wants https://HOST/role-aliases/ALIAS/credentials");
    } else if (source == AWS_FROM_IOT && s->transport.cert_file == NULL) {
        config_complain(errors, "credentials", "iot: needs cert_file and key_file");
    }
}
