/* write_point.h - POST /v1/write: a point is written, once, and the answer says what became of it.
 *
 * Owned by the api thread; write_request.h says what a body is. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/later.h"
#include "gateway/writes/write_request.h"

/* Answers the request, now (an error) or later. token: who asks, NULL over the socket. */
void write_point(const struct api_host *host, struct later *later, struct evhttp_request *request,
                 const char *token, const char *body, size_t len);
