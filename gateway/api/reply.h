/* reply.h - how an answer leaves: headers, JSON, errors in one form.
 *
 * Owned by the api thread. Each function answers the request for good. */
#pragma once

#include "gateway/base/buffer.h"

#include <event2/http.h>

/* Sends `body`, whose memory moves to the answer; a failed buffer is answered with 500. A 503 says
 * when to try again. */
void reply_send(struct evhttp_request *request, int status, const char *content_type,
                struct buffer *body);

/* {"error":{"code","message"}} */
void reply_error(struct evhttp_request *request, int status, const char *code, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

/* The same as text, for an answer that is written on another thread. */
void reply_write_error(struct buffer *body, const char *code, const char *message);

/* The headers that every answer has. */
void reply_headers(struct evhttp_request *request, const char *content_type);

#define REPLY_JSON          "application/json"
#define REPLY_RETRY_AFTER_S "1"
