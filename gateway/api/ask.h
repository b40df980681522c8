/* ask.h - POST /v1/read: a question to a device, answered when the device has answered.
 *
 * Owned by the api thread. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/later.h"

/* Reads the body, asks the device, answers the request now (an error) or later. */
void ask_device(const struct api_host *host, struct later *later, struct evhttp_request *request,
                const char *body, size_t len);
