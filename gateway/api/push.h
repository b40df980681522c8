/* push.h - POST /sensor: readings that devices send by themselves.
 *
 * Owned by the api thread. All of a request is checked before any of it is taken; it is answered
 * with {"accepted":N}, the number of objects, once all of them are on flash. 503 with Retry-After:
 * the queue is at its bound, the store is full, or too many pushes wait. Where a part of a request
 * was stored all the same (the queue filled up in between) the message says how much. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/later.h"

/* A pushed time may be that far ahead of a synchronised clock. */
enum { PUSH_AHEAD_MS = 86400000 };

/* Answers the request now (an error) or later. */
void push_sensor(const struct api_host *host, struct later *later, struct evhttp_request *request,
                 const char *bytes, size_t len);
