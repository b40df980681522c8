#include "uplink/s3/s3.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <time.h>

enum { HASH = 32, HASH_SHOWN = 16 }; /* bytes: 128 bits tell batches apart */

/* The first three are names, the others parts of the time. */
static const char *const words[] = {"{gateway}", "{stream}", "{device}", "{date}",
                                    "{hour}",    "{year}",   "{month}",  "{day}"};
static const char *const formats[ARRAY_SIZE(words)] = {
    [3] = "%Y-%m-%d", [4] = "%H", [5] = "%Y", [6] = "%m", [7] = "%d"};

static size_t placeholder(const char *at)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strncmp(at, words[i], strlen(words[i])) == 0) {
            return i;
        }
    }
    return ARRAY_SIZE(words);
}

/* What would make further segments, or is no text, becomes '_'; so does a '.' in front. */
static void add_name(struct buffer *out, const char *text)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + strnlen(text, S3_NAME_MAX);
    for (bool first = true; at < end; first = false) {
        size_t n = utf8_length(at, (size_t)(end - at));
        if (n == 0 || *at < ' ' || *at == 0x7f || *at == '/' || *at == '\\' ||
            (first && *at == '.')) {
            out_literal(out, "_");
            at++;
        } else {
            out_bytes(out, at, n);
            at += n;
        }
    }
}

static void add_time(struct buffer *out, const char *format, int64_t time_ms)
{
    char text[24];
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    out_bytes(out, text, strftime(text, sizeof text, format, &utc));
}

void s3_write_prefix(struct buffer *out, const char *form, const struct batch *batch,
                     const struct batch_record *record)
{
    const char *const names[] = {batch->gateway, stream_name(batch->stream), record->names->device};
    while (*form != '\0') {
        size_t which = *form == '{' ? placeholder(form) : ARRAY_SIZE(words);
        if (which >= ARRAY_SIZE(words)) {
            out_bytes(out, form++, 1);
            continue;
        }
        if (which < ARRAY_SIZE(names)) {
            add_name(out, names[which]);
        } else {
            add_time(out, formats[which], record->scan->time_ms);
        }
        form += strlen(words[which]);
    }
}

static bool is_plain(char c)
{
    return isalnum((unsigned char)c) || strchr("!-_.*'()=/", c) != NULL;
}

/* libcurl, and some stores, would take "." and ".." for steps in a tree. */
static bool has_odd_segment(const char *form)
{
    for (const char *at = form;; at++) {
        size_t len = strcspn(at, "/");
        if (len == 0 || (len == 1 && at[0] == '.') || (len == 2 && strncmp(at, "..", 2) == 0)) {
            return true;
        }
        at += len;
        if (*at == '\0') {
            return false;
        }
    }
}

const char *s3_prefix_fault(const char *form)
{
    unsigned names = 0;
    if (strlen(form) > S3_PREFIX_MAX) {
        return "is longer than 120 bytes";
    }
    if (has_odd_segment(form)) {
        return "has an empty segment, '.' or '..'";
    }
    for (const char *at = form; *at != '\0';) {
        size_t which = *at == '{' ? placeholder(at) : ARRAY_SIZE(words);
        if (which >= ARRAY_SIZE(words) && !is_plain(*at)) {
            return *at == '{' ? "knows {gateway}, {stream}, {device}, {date}, {hour}, {year}, "
                                "{month} and {day} only"
                              : "may hold letters, digits and !-_.*'()=/ only";
        }
        names += which < 3;
        at += which < ARRAY_SIZE(words) ? strlen(words[which]) : 1;
    }
    return names > 3 ? "names gateway, stream or device more than once" : NULL;
}

/* The identities, in order: the same for the same batch, and for no other. */
static int hash_identities(const struct batch *batch, uint8_t hash[HASH])
{
    auto_buffer struct buffer text = {0};
    buffer_printf(&text, "%s.%s", batch->store_id, stream_name(batch->stream));
    for (size_t i = 0; i < batch->count; i++) {
        const struct scan *scan = batch->records[i].scan;
        buffer_add_byte(&text, 0);
        buffer_add(&text, batch->records[i].names->device, strlen(batch->records[i].names->device));
        buffer_add_byte(&text, 0);
        buffer_add_varint(&text, scan->seq);
    }
    return !buffer_failed(&text) &&
                   EVP_Digest(text.data, text.len, hash, NULL, EVP_sha256(), NULL) == 1
               ? 0
               : -ENOMEM;
}

int s3_write_key(struct buffer *out, const struct s3_settings *settings, const struct batch *batch)
{
    static const char *const endings[] = {"", ".gz", ".zst"};
    uint8_t hash[HASH];
    int r = hash_identities(batch, hash);
    s3_write_prefix(out, settings->prefix, batch, batch->records);
    buffer_add_byte(out, '/');
    add_time(out, "%Y%m%dT%H%M%SZ", batch->records->scan->time_ms);
    buffer_add_byte(out, '-');
    for (size_t i = 0; i < HASH_SHOWN && r == 0; i++) {
        buffer_printf(out, "%02x", hash[i]);
    }
    buffer_printf(out, ".ndjson%s", endings[settings->compress]);
    return r < 0 || buffer_failed(out) ? -ENOMEM : 0;
}

size_t s3_together(const void *settings, const struct batch *batch)
{
    const struct s3_settings *s = settings;
    const struct batch_record *first = batch->records;
    bool by_hour = strstr(s->prefix, "{hour}") != NULL;
    bool by_device = strstr(s->prefix, "{device}") != NULL;
    int64_t unit_ms = by_hour ? 3600000 : 86400000;
    size_t n = 1;
    while (n < batch->count) {
        const struct batch_record *record = &first[n];
        if (record->scan->time_ms / unit_ms != first->scan->time_ms / unit_ms ||
            (by_device && record->scan->device != first->scan->device)) {
            break;
        }
        n++;
    }
    return n;
}

void s3_encode_key(struct buffer *out, const char *key, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)key[i];
        if (isalnum(c) || (c != '\0' && strchr("-_.~/", c) != NULL)) {
            buffer_add_byte(out, c);
        } else {
            buffer_printf(out, "%%%02X", c);
        }
    }
}

/* A certificate for *.s3.REGION.amazonaws.com does not cover names with dots. */
bool s3_bucket_in_host(const struct s3_settings *settings)
{
    bool ours = settings->aws.transport.url == NULL;
    return settings->style == S3_HOST ||
           (settings->style == S3_AUTO && ours && strchr(settings->bucket, '.') == NULL);
}

int s3_url(const struct s3_settings *settings, char ret_url[AWS_URL_MAX])
{
    char own[AWS_URL_MAX];
    const char *url = settings->aws.transport.url;
    if (url == NULL) {
        if (aws_service_url("s3", settings->aws.region, own) < 0) {
            return -EINVAL;
        }
        url = own;
    }
    const char *host = strstr(url, "://");
    if (host == NULL) {
        return -EINVAL;
    }
    host += 3;
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/') {
        len--; /* the path begins with one */
    }
    bool in_host = s3_bucket_in_host(settings);
    int n = snprintf(ret_url, AWS_URL_MAX, "%.*s%s%s%.*s", (int)(host - url), url,
                     in_host ? settings->bucket : "", in_host ? "." : "",
                     (int)(len - (size_t)(host - url)), host);
    return n < AWS_URL_MAX ? 0 : -EINVAL;
}
