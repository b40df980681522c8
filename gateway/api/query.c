#include "gateway/api/query.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes up to one of `stops` or the end into [*to, end), ends it with a NUL and moves both. */
static int decode(const char **from, const char *stops, bool plus_is_blank, char **to, char *end)
{
    const char *at = *from;
    while (*at != '\0' && strchr(stops, *at) == NULL) {
        int c = (unsigned char)*at++;
        if (c == '%') {
            int high = hex_digit(at[0]), low = high < 0 ? -1 : hex_digit(at[1]);
            if (low < 0) {
                return -EINVAL;
            }
            c = high * 16 + low;
            at += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f) {
            return -EINVAL;
        }
        if (*to + 1 >= end) {
            return -E2BIG;
        }
        *(*to)++ = (char)c;
    }
    if (*to >= end) {
        return -E2BIG;
    }
    *(*to)++ = '\0';
    *from = at;
    return 0;
}

static int parse_param(struct query *q, const char **at, char **text)
{
    char *end = q->text + sizeof q->text;
    if (q->count == QUERY_PARAMS_MAX) {
        return -E2BIG;
    }
    struct query_param *param = &q->params[q->count];
    param->name = *text;
    int r = decode(at, "=&#", true, text, end);
    if (r < 0) {
        return r;
    }
    *at += **at == '=' ? 1 : 0;
    param->value = *text;
    r = decode(at, "&#", true, text, end);
    if (r < 0) {
        return r;
    }
    *at += **at == '&' ? 1 : 0;
    q->count += param->name[0] != '\0' ? 1 : 0;
    return 0;
}

int query_parse(const char *target, struct query *ret_query)
{
    struct query *q = ret_query;
    q->count = 0;
    const char *at = target;
    char *to = q->path;
    if (*at != '/') {
        return -EINVAL;
    }
    int r = decode(&at, "?#", false, &to, q->path + sizeof q->path);
    if (r < 0) {
        return r;
    }
    at += *at == '?' ? 1 : 0;
    char *text = q->text;
    while (r == 0 && *at != '\0' && *at != '#') {
        r = parse_param(q, &at, &text);
    }
    return r;
}

const char *query_value(const struct query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++) {
        if (strcmp(query->params[i].name, name) == 0) {
            return query->params[i].value;
        }
    }
    return NULL;
}

int query_parse_span(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1},   {"", 1e3},    {"s", 1e3},       {"min", 6e4},         {"m", 6e4},
                 {"h", 36e5}, {"d", 864e5}, {"w", 7 * 864e5}, {"y", 365.25 * 864e5}};
    if (*text < '0' || *text > '9') {
        return -EINVAL; /* strtod would take blanks, signs, "inf" and "0x" */
    }
    char *end;
    double value = strtod(text, &end);
    if (memchr(text, 'x', (size_t)(end - text)) != NULL) {
        return -EINVAL;
    }
    while (*end == ' ') {
        end++;
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(end, units[i].name) == 0) {
            double ms = value * units[i].ms;
            if (!(ms >= 1 && ms <= 100 * 365.25 * 864e5)) {
                return -ERANGE;
            }
            *ret_ms = (int64_t)ms;
            return 0;
        }
    }
    return -EINVAL;
}

/* Completes "2026-01-31" and "2026-01-31 10:30[:05]" to RFC 3339 in UTC. */
static int parse_calendar(const char *text, int64_t *ret_ms)
{
    static const char rest[] = "0000-00-00T00:00:00Z";
    char full[40];
    size_t len = strlen(text);
    if (len < 10 || len >= sizeof full) {
        return -EINVAL;
    }
    memcpy(full, text, len + 1);
    if (len > 10 && full[10] == ' ') {
        full[10] = 'T';
    }
    if (clock_parse_utc(full, ret_ms) == 0) {
        return 0;
    }
    if (len != 10 && len != 16 && len != 19) {
        return -EINVAL;
    }
    memcpy(full + len, rest + len, sizeof rest - len);
    return clock_parse_utc(full, ret_ms);
}

int query_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    if (strcmp(text, "now") == 0) {
        *ret_ms = now_ms;
        return 0;
    }
    if (text[0] == '-') {
        int64_t back_ms;
        int r = query_parse_span(text + 1, &back_ms);
        if (r == 0) {
            *ret_ms = now_ms - back_ms;
        }
        return r;
    }
    size_t digits = strspn(text, "0123456789");
    if (digits > 0 && text[digits] == '\0') {
        if (digits > 15) {
            return -ERANGE;
        }
        *ret_ms = strtoll(text, NULL, 10);
        return 0;
    }
    return parse_calendar(text, ret_ms);
}

static int take_name(const json_t *value, char *ret_name, size_t size)
{
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0' || strlen(text) >= size) {
        return -EINVAL;
    }
    memcpy(ret_name, text, strlen(text) + 1);
    return 0;
}

static int take_points(const json_t *array, struct read_query *read, const char **ret_why)
{
    *ret_why = "points is a list of at most 256 names";
    if (!json_is_array(array) || json_array_size(array) > READ_POINTS_MAX) {
        return -EINVAL;
    }
    size_t count = json_array_size(array);
    read->points = calloc(count > 0 ? count : 1, sizeof *read->points);
    if (read->points == NULL) {
        *ret_why = "out of memory";
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        char *name = read->points[i].name;
        if (take_name(json_array_get(array, i), name, sizeof read->points[i].name) < 0) {
            return -EINVAL;
        }
        read->count++;
    }
    return 0;
}

static int take_members(const json_t *root, struct read_query *read, const char **ret_why)
{
    *ret_why = "device is missing, no name, or too long";
    if (take_name(json_object_get(root, "device"), read->device, sizeof read->device) < 0) {
        return -EINVAL;
    }
    const json_t *points = json_object_get(root, "points");
    int r = points == NULL ? 0 : take_points(points, read, ret_why);
    if (r < 0) {
        return r;
    }
    const json_t *timeout = json_object_get(root, "timeout_ms");
    read->timeout_ms = timeout == NULL ? 5000 : json_integer_value(timeout);
    *ret_why = "timeout_ms is a number from 100 to 30000";
    return read->timeout_ms >= 100 && read->timeout_ms <= 30000 ? 0 : -EINVAL;
}

int read_query_parse(const char *body, size_t len, struct read_query *ret_read,
                     const char **ret_why)
{
    *ret_read = (struct read_query){0};
    *ret_why = "the body is no JSON object of at most 16 KiB";
    json_t *root = len <= READ_BODY_MAX ? json_loadb(body, len, 0, NULL) : NULL;
    int r = json_is_object(root) ? take_members(root, ret_read, ret_why) : -EINVAL;
    json_decref(root);
    if (r < 0) {
        read_query_finish(ret_read);
    }
    return r;
}

void read_query_finish(struct read_query *read)
{
    free(read->points);
    *read = (struct read_query){0};
}

bool query_glob(const char *glob, const char *text)
{
    /* On a mismatch only the last '*' takes one character more: no recursion, no blow-up. */
    const char *star = NULL, *mark = NULL;
    while (*text != '\0') {
        if (*glob == '*') {
            star = glob++;
            mark = text;
        } else if (*glob == '?' || *glob == *text) {
            glob++;
            text++;
        } else if (star != NULL) {
            glob = star + 1;
            text = ++mark;
        } else {
            return false;
        }
    }
    while (*glob == '*') {
        glob++;
    }
    return *glob == '\0';
}
