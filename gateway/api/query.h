/* query.h - what a request asks for, out of foreign bytes.
 *
 * Pure: nothing is kept, nothing is asked of the clock; a fuzz target feeds all of it. Everything
 * is bounded before it is copied. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QUERY_PATH_MAX = 64,   /* the longest path we serve is far shorter */
    QUERY_TEXT_MAX = 1024, /* of all decoded names and values */
    QUERY_PARAMS_MAX = 8,
    READ_BODY_MAX = 16 * 1024,
    READ_POINTS_MAX = 256, /* names in one POST /v1/read */
};

/* A request target ("/v1/history?point=t01.power&bin=60") taken apart and percent-decoded. */
struct query {
    char path[QUERY_PATH_MAX];
    struct query_param {
        const char *name, *value; /* in `text`, NUL-terminated */
    } params[QUERY_PARAMS_MAX];
    size_t count;
    char text[QUERY_TEXT_MAX];
};

/* -EINVAL: no path, a bad percent escape, a control character or a NUL; -E2BIG: over a bound. */
must_check int query_parse(const char *target, struct query *ret_query);

/* The value of that parameter, NULL when it is not given. */
const char *query_value(const struct query *query, const char *name);

/* "2026-01-31T10:30:00Z", "2026-01-31 10:30", "2026-01-31" (all UTC), milliseconds since 1970, or
 * a span back from now ("-1h"). */
must_check int query_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms);

/* "1h", "90 min", "7 d", "500ms"; a bare number is seconds. Positive; -ERANGE over 100 years. */
must_check int query_parse_span(const char *text, int64_t *ret_ms);

/* The body of POST /v1/read: {"device":"t01","points":["power"],"timeout_ms":3000}. */
struct read_query {
    char device[128];
    struct {
        char name[128];
    } * points;         /* malloc'd */
    size_t count;       /* 0: all points */
    int64_t timeout_ms; /* 100..30000, 5000 when not given */
};
/* -EINVAL with ret_why in words. */
must_check int read_query_parse(const char *body, size_t len, struct read_query *ret_read,
                                const char **ret_why);
void read_query_finish(struct read_query *read);

/* Whether `text` fits the glob: '*' any run, '?' one character. Linear in practice. */
bool query_glob(const char *glob, const char *text);
