#include "uplink/transport/reply_headers.h"

#include <ctype.h>
#include <curl/curl.h>
#include <string.h>

/* The value of that field as text; false when the line is another field or too long to matter. */
static bool field(const char *line, size_t len, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':') {
        return false;
    }
    const char *from = line + n + 1, *end = line + len;
    while (from < end && isspace((unsigned char)*from)) {
        from++;
    }
    while (end > from && isspace((unsigned char)end[-1])) {
        end--;
    }
    size_t count = (size_t)(end - from);
    if (count >= size || memchr(from, '\0', count) != NULL) {
        return false;
    }
    memcpy(value, from, count);
    value[count] = '\0';
    return true;
}

static int64_t date_ms(const char *text)
{
    const int64_t most_s = INT64_C(253402300799); /* the year 9999: signatures have four digits */
    time_t t = curl_getdate(text, NULL);
    return t > 0 && (int64_t)t <= most_s ? (int64_t)t * 1000 : 0;
}

void reply_headers_line(struct reply_headers *h, const char *line, size_t len)
{
    char date[64];
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        *h = (struct reply_headers){0};
    } else if (field(line, len, "Date", date, sizeof date)) {
        h->date_ms = date_ms(date);
    }
    const struct {
        const char *name;
        char *value;
        size_t size;
    } texts[] = {
        {"Retry-After", h->retry_after, sizeof h->retry_after},
        {"Content-Type", h->content_type, sizeof h->content_type},
        {"ETag", h->etag, sizeof h->etag},
        {"x-amz-checksum-sha256", h->checksum_sha256, sizeof h->checksum_sha256},
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (field(line, len, texts[i].name, texts[i].value, texts[i].size)) {
            return;
        }
    }
}

int64_t reply_retry_after_ms(const struct reply_headers *h, int64_t now_ms)
{
    const char *text = h->retry_after;
    if (text[0] == '\0') {
        return -1;
    }
    int64_t wait_ms = 0;
    size_t digits = strspn(text, "0123456789");
    if (text[digits] == '\0') {
        wait_ms = digits > 6 ? RETRY_AFTER_MAX_MS : strtoll(text, NULL, 10) * 1000;
    } else {
        int64_t at_ms = date_ms(text);
        if (at_ms == 0) {
            return -1;
        }
        wait_ms = at_ms - (h->date_ms != 0 ? h->date_ms : now_ms);
    }
    return wait_ms < 0 ? 0 : wait_ms > RETRY_AFTER_MAX_MS ? RETRY_AFTER_MAX_MS : wait_ms;
}
