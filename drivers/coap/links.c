#include "drivers/coap/links.h"

#include <errno.h>
#include <string.h>

struct span {
    const char *at, *end;
};

static char peek(const struct span *span)
{
    return span->at < span->end ? *span->at : '\0';
}

static bool take(struct span *span, char c)
{
    if (peek(span) != c || c == '\0') {
        return false;
    }
    span->at++;
    return true;
}

static void skip_blanks(struct span *span)
{
    while (span->at < span->end && strchr(" \t\r\n", *span->at) != NULL && *span->at != '\0') {
        span->at++;
    }
}

/* Up to one of `stops`; a quoted text goes to its closing quote. */
static struct span take_value(struct span *span, const char *stops)
{
    struct span value = {span->at, span->at};
    if (take(span, '"')) {
        value.at = span->at;
        while (span->at < span->end && *span->at != '"') {
            span->at += *span->at == '\\' && span->end - span->at > 1 ? 2 : 1;
        }
        value.end = span->at;
        (void)take(span, '"');
        return value;
    }
    while (span->at < span->end && *span->at != '\0' && strchr(stops, *span->at) == NULL) {
        span->at++;
    }
    value.end = span->at;
    return value;
}

static bool is(const struct span *span, const char *word)
{
    size_t len = (size_t)(span->end - span->at);
    return strlen(word) == len && memcmp(span->at, word, len) == 0;
}

/* Printable or nothing: it is shown and may go into a configuration. */
static bool copy(char *to, size_t size, const struct span *from)
{
    size_t len = (size_t)(from->end - from->at);
    for (size_t i = 0; i < len; i++) {
        if (from->at[i] <= ' ' || from->at[i] > '~') {
            return false;
        }
    }
    if (len >= size) {
        return false;
    }
    memcpy(to, from->at, len);
    to[len] = '\0';
    return true;
}

/* "110 112" */
static void take_formats(struct link *link, struct span value)
{
    while (value.at < value.end) {
        unsigned number = 0;
        size_t digits = 0;
        for (; peek(&value) >= '0' && peek(&value) <= '9' && digits < 6; digits++) {
            number = number * 10 + (unsigned)(*value.at++ - '0');
        }
        if (digits > 0 && number <= UINT16_MAX && link->format_count < LINK_FORMATS_MAX) {
            link->formats[link->format_count++] = number;
        }
        if (value.at < value.end) {
            value.at++;
        }
    }
}

static void take_attribute(struct span *span, struct link *link)
{
    struct span name = take_value(span, "=;,"), value = {NULL, NULL};
    if (take(span, '=')) {
        value = take_value(span, ";,");
    }
    if (is(&name, "obs")) {
        link->observable = true;
    } else if (is(&name, "ct") && value.at != NULL) {
        take_formats(link, value);
    } else if (is(&name, "rt") && value.at != NULL) {
        (void)copy(link->type, sizeof(link->type), &value);
    }
}

int link_next(const char **text, size_t *len, struct link *ret_link)
{
    struct span span = {*text, *text + *len};
    while (span.at < span.end) {
        struct link link = {0};
        skip_blanks(&span);
        if (!take(&span, '<')) {
            break;
        }
        struct span path = take_value(&span, ">");
        if (!take(&span, '>')) {
            break;
        }
        skip_blanks(&span);
        while (take(&span, ';')) {
            skip_blanks(&span);
            take_attribute(&span, &link);
            skip_blanks(&span);
        }
        bool last = !take(&span, ',');
        *text = last ? span.end : span.at;
        *len = (size_t)(span.end - *text);
        if (path.at < path.end && *path.at == '/' && copy(link.path, sizeof(link.path), &path)) {
            *ret_link = link;
            return 0;
        }
        span.at = *text;
    }
    *text = span.end;
    *len = 0;
    return -ENOENT;
}

bool link_has_format(const struct link *link, unsigned format)
{
    for (size_t i = 0; i < link->format_count; i++) {
        if (link->formats[i] == format) {
            return true;
        }
    }
    return false;
}
