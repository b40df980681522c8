/* write_request.h - a command as it comes from outside: JSON, over HTTP or MQTT.
 *
 * Pure, any thread. */
#pragma once

#include "gateway/base/json_reading.h"
#include "gateway/writes/writes.h"

enum { WRITE_REQUEST_MAX = 4096 /* bytes */ };

/* {"device":"t01","point":"pitch_sp","value":2.5,"id":"…","expires":"2026-01-31T10:30:00Z",
 * "timeout_ms":5000}: the value a number (exactly as it stands there), or true or false; expires
 * RFC 3339 or seconds since 1970; the last three may be left out. */
struct write_request {
    char id[WRITES_TEXT_MAX + 1]; /* "": none */
    char device[WRITES_TEXT_MAX + 1], point[WRITES_TEXT_MAX + 1], value[WRITES_TEXT_MAX + 1];
    int64_t expires_ms; /* UTC, 0: none */
    int64_t timeout_ms;
};
/* -EINVAL with ret_why in words; what could be read before the error stands in ret_request. */
must_check int write_request_parse(const char *body, size_t len, struct write_request *ret_request,
                                   const char **ret_why);

/* A value alone: a number keeps its digits, what is compared and written is what was meant. text
 * has room for WRITES_TEXT_MAX bytes and a NUL. False: it is none, the reader has latched why. */
must_check bool write_request_value(struct json_in *p, char *text);
