/* push_body.h - the body of POST /sensor, out of foreign bytes.
 *
 * Pure: it knows no devices; a fuzz target feeds it. One flat object or an array of them:
 * {"location":"t01","time":"2026-01-31T10:30:00Z","wind_speed":8.42,"grid_ok":true}. `location` is
 * the device, `time` (RFC 3339, or seconds or milliseconds since 1970) may be left out; every other
 * member is a point with a number, a boolean, a string or null. Names point into the body. */
#pragma once

#include "gateway/base/json_reading.h"

enum {
    PUSH_OBJECTS_MAX = 256,
    PUSH_MEMBERS_MAX = 8192, /* of all objects */
    PUSH_WHY_MAX = 160
};

struct push_member {
    struct json_in_text name, text;
    struct reading reading; /* point is not set */
};

struct push_object {
    struct json_in_text location;
    int64_t time_ms; /* 0: not given */
    size_t first, count, text_len;
};

struct push_body {
    struct push_object objects[PUSH_OBJECTS_MAX];
    size_t object_count;
    struct push_member *members;
    size_t member_count, member_room;
    struct json_in_arena arena;
};

/* 0; -EINVAL: refused, -E2BIG: over a bound, -ENOMEM; ret_why says what is wrong and in which
 * object. push_body_finish() in any case; the body's bytes must outlive it. */
must_check int push_body_parse(const char *bytes, size_t len, struct push_body *ret_body,
                               char ret_why[PUSH_WHY_MAX]);
void push_body_finish(struct push_body *body);
