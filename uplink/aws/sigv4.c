#include "uplink/aws/sigv4.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { HASH = 32, HEX = 2 * HASH };

/* A header that is signed: name up to the colon, value behind it. */
struct header {
    const char *name, *value;
    size_t name_len;
};

struct text {
    const char *at;
    size_t len;
};

static void to_hex(const uint8_t hash[HASH], char hex[HEX + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < HASH; i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
    hex[HEX] = '\0';
}

static int sha256_hex(const void *bytes, size_t len, char hex[HEX + 1])
{
    uint8_t hash[HASH];
    if (EVP_Digest(bytes, len, hash, NULL, EVP_sha256(), NULL) != 1) {
        return -ENOMEM;
    }
    to_hex(hash, hex);
    return 0;
}

static int hmac(const uint8_t *key, size_t key_len, const void *text, size_t len, uint8_t out[HASH])
{
    unsigned out_len = HASH;
    return HMAC(EVP_sha256(), key, (int)key_len, text, len, out, &out_len) == NULL ? -ENOMEM : 0;
}

/* RFC 3986 unreserved characters and '/' stay; what is encoded already is encoded once more. */
static void add_encoded(struct buffer *to, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (isalnum(c) || strchr("-_.~/", c) != NULL) {
            buffer_add_byte(to, c);
        } else {
            buffer_printf(to, "%%%02X", c);
        }
    }
}

/* The path without ".", ".." and empty segments (RFC 3986 section 5.2.4), encoded. */
static void add_path(struct buffer *to, const char *path)
{
    auto_buffer struct buffer clean = {0};
    for (const char *at = path; *at != '\0';) {
        size_t len = strcspn(at, "/");
        if (len == 2 && strncmp(at, "..", 2) == 0) {
            while (clean.len > 0 && clean.data[--clean.len] != '/') {
            }
        } else if (len > 0 && !(len == 1 && *at == '.')) {
            buffer_add_byte(&clean, '/');
            buffer_add(&clean, at, len);
        }
        at += len;
        at += *at == '/' ? 1 : 0;
    }
    size_t given = strlen(path);
    if (clean.len == 0 || (given > 0 && path[given - 1] == '/')) {
        buffer_add_byte(&clean, '/');
    }
    add_encoded(to, (const char *)clean.data, clean.len);
    to->failed |= clean.failed;
}

static int compare_texts(const struct text *a, const struct text *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int r = n == 0 ? 0 : memcmp(a->at, b->at, n);
    return r != 0 ? r : (a->len > b->len) - (a->len < b->len);
}

/* By name, then by value; "=" must not take part in the order. */
static int compare_parameters(const void *x, const void *y)
{
    const struct text *a = x, *b = y;
    struct text name_a = {a->at, 0}, name_b = {b->at, 0};
    while (name_a.len < a->len && a->at[name_a.len] != '=') {
        name_a.len++;
    }
    while (name_b.len < b->len && b->at[name_b.len] != '=') {
        name_b.len++;
    }
    int r = compare_texts(&name_a, &name_b);
    if (r != 0) {
        return r;
    }
    struct text rest_a = {a->at + name_a.len, a->len - name_a.len};
    struct text rest_b = {b->at + name_b.len, b->len - name_b.len};
    return compare_texts(&rest_a, &rest_b);
}

static int add_query(struct buffer *to, const char *query)
{
    if (*query == '\0') {
        return 0;
    }
    size_t count = 1;
    for (const char *at = query; *at != '\0'; at++) {
        count += *at == '&' ? 1 : 0;
    }
    auto_free struct text *parameters = calloc(count, sizeof *parameters);
    if (parameters == NULL) {
        return -ENOMEM;
    }
    const char *at = query;
    for (size_t i = 0; i < count; i++) {
        parameters[i] = (struct text){at, strcspn(at, "&")};
        at += parameters[i].len + 1;
    }
    qsort(parameters, count, sizeof *parameters, compare_parameters);
    for (size_t i = 0; i < count; i++) {
        buffer_add_text(to, i > 0 ? "&" : "");
        buffer_add(to, parameters[i].at, parameters[i].len);
        if (memchr(parameters[i].at, '=', parameters[i].len) == NULL) {
            buffer_add_byte(to, '=');
        }
    }
    return 0;
}

/* Sorted by lower-case name; equal names keep the order in which they were given. */
static int compare_headers(const struct header *a, const struct header *b)
{
    size_t n = a->name_len < b->name_len ? a->name_len : b->name_len;
    int r = strncasecmp(a->name, b->name, n);
    return r != 0 ? r : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

static void insert_header(struct header *headers, size_t *count, struct header header)
{
    size_t at = (*count)++;
    for (; at > 0 && compare_headers(&headers[at - 1], &header) > 0; at--) {
        headers[at] = headers[at - 1];
    }
    headers[at] = header;
}

static int collect_headers(const struct sigv4_request *request, const char *const *more,
                           struct header headers[SIGV4_HEADERS_MAX + 3], size_t *ret_count)
{
    *ret_count = 0;
    insert_header(headers, ret_count, (struct header){"host", request->host, 4});
    if (request->header_count > SIGV4_HEADERS_MAX) {
        return -EINVAL;
    }
    for (size_t i = 0; i < request->header_count + 2; i++) {
        const char *line = i < request->header_count ? request->headers[i]
                                                     : more[i - request->header_count];
        const char *colon = line == NULL ? NULL : strchr(line, ':');
        if (line != NULL && colon == NULL) {
            return -EINVAL;
        }
        if (line != NULL) {
            insert_header(headers, ret_count,
                          (struct header){line, colon + 1, (size_t)(colon - line)});
        }
    }
    return 0;
}

/* The value without white space around it, and single blanks inside. */
static void add_trimmed(struct buffer *to, const char *value)
{
    bool gap = false, begun = false;
    for (; *value != '\0'; value++) {
        if (isspace((unsigned char)*value)) {
            gap = begun;
            continue;
        }
        buffer_add_text(to, gap ? " " : "");
        buffer_add_byte(to, (uint8_t)*value);
        gap = false;
        begun = true;
    }
}

static void add_headers(struct buffer *canonical, struct buffer *names,
                        const struct header *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && compare_headers(&headers[i - 1], &headers[i]) == 0) {
            canonical->len--; /* the value joins the line before */
            buffer_add_byte(canonical, ',');
        } else {
            buffer_add_text(names, i > 0 ? ";" : "");
            for (size_t c = 0; c < headers[i].name_len; c++) {
                uint8_t lower = (uint8_t)tolower((unsigned char)headers[i].name[c]);
                buffer_add_byte(names, lower);
                buffer_add_byte(canonical, lower);
            }
            buffer_add_byte(canonical, ':');
        }
        add_trimmed(canonical, headers[i].value);
        buffer_add_byte(canonical, '\n');
    }
}

static int canonical_request(const struct sigv4_request *request, const struct header *headers,
                             size_t count, struct buffer *names, struct buffer *canonical)
{
    buffer_printf(canonical, "%s\n", request->method);
    if (request->path_as_is) {
        buffer_add_text(canonical, request->path[0] != '\0' ? request->path : "/");
    } else {
        add_path(canonical, request->path);
    }
    buffer_add_byte(canonical, '\n');
    int r = add_query(canonical, request->query);
    buffer_add_byte(canonical, '\n');
    add_headers(canonical, names, headers, count);
    buffer_add_byte(canonical, '\n');
    buffer_add(canonical, names->data, names->len);
    char hash[HEX + 1];
    r = r < 0 ? r : sha256_hex(request->body, request->body_len, hash);
    const char *payload = hash;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].name_len == 20 &&
            strncasecmp(headers[i].name, "x-amz-content-sha256", 20) == 0) {
            payload = headers[i].value + strspn(headers[i].value, " \t");
        }
    }
    buffer_printf(canonical, "\n%s", r < 0 ? "" : payload);
    return r;
}

/* The key of the day, region and service, applied to the text. */
static int signature(const char *secret, const char *scope[4], const struct buffer *text,
                     char hex[HEX + 1])
{
    auto_buffer struct buffer first = {0};
    buffer_printf(&first, "AWS4%s", secret);
    if (buffer_failed(&first)) {
        return -ENOMEM;
    }
    uint8_t key[HASH];
    int r = hmac(first.data, first.len, scope[0], strlen(scope[0]), key);
    for (size_t i = 1; r == 0 && i < 4; i++) {
        r = hmac(key, HASH, scope[i], strlen(scope[i]), key);
    }
    r = r < 0 ? r : hmac(key, HASH, text->data, text->len, key);
    explicit_bzero(first.data, first.len);
    to_hex(key, hex);
    explicit_bzero(key, sizeof key);
    return r;
}

int sigv4_sign(const struct sigv4_request *request, const struct sigv4_credentials *credentials,
               const char *region, const char *service, int64_t time_ms, struct buffer *ret_headers)
{
    char stamp[17], day[9], hash[HEX + 1];
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    snprintf(day, sizeof day, "%.8s", stamp);

    auto_buffer struct buffer date_line = {0}, token_line = {0}, names = {0}, canonical = {0},
                              text = {0};
    buffer_printf(&date_line, "X-Amz-Date: %s", stamp);
    if (credentials->session_token != NULL) {
        buffer_printf(&token_line, "X-Amz-Security-Token: %s", credentials->session_token);
    }
    const char *more[2] = {buffer_text(&date_line),
                           credentials->session_token != NULL ? buffer_text(&token_line) : NULL};
    struct header headers[SIGV4_HEADERS_MAX + 3];
    size_t count;
    int r = collect_headers(request, more, headers, &count);
    r = r < 0 ? r : canonical_request(request, headers, count, &names, &canonical);
    const char *scope[4] = {day, region, service, "aws4_request"};
    r = r < 0 ? r : sha256_hex(canonical.data, canonical.len, hash);
    if (r < 0) {
        return r;
    }
    buffer_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", stamp, day, region,
                  service, hash);
    if (buffer_failed(&text) || buffer_failed(&canonical) || buffer_failed(&names)) {
        return -ENOMEM;
    }
    r = signature(credentials->secret_key, scope, &text, hash);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(more) && more[i] != NULL; i++) {
        buffer_add(ret_headers, more[i], strlen(more[i]) + 1);
    }
    buffer_printf(ret_headers,
                  "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, "
                  "SignedHeaders=%.*s, Signature=%s",
                  credentials->access_key, day, region, service, (int)names.len,
                  (const char *)names.data, hash);
    buffer_add_byte(ret_headers, 0);
    return buffer_failed(ret_headers) ? -ENOMEM : 0;
}
