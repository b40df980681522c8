/* write_point.h - POST /v1/write: a point is written, once, and the answer says what became of it.
 *
 * Owned by the api thread; the body's parser is pure. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/later.h"
#include "gateway/writes/writes.h"

enum { WRITE_POINT_BODY_MAX = 4096 };

/* {"device":"t01","point":"pitch_sp","value":2.5,"id":"…","timeout_ms":5000}: a number (exactly as
 * it stands there), or true or false; id and timeout_ms may be left out. */
struct write_request {
    char id[WRITES_TEXT_MAX + 1]; /* "": none */
    char device[WRITES_TEXT_MAX + 1], point[WRITES_TEXT_MAX + 1], value[WRITES_TEXT_MAX + 1];
    int64_t timeout_ms;
};
/* -EINVAL with ret_why in words. */
must_check int write_request_parse(const char *body, size_t len, struct write_request *ret_request,
                                   const char **ret_why);

/* Answers the request, now (an error) or later. token: who asks, NULL over the socket. */
void write_point(const struct api_host *host, struct later *later, struct evhttp_request *request,
                 const char *token, const char *body, size_t len);
