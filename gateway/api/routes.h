/* routes.h - which request gets which answer.
 *
 * Owned by the api thread. */
#pragma once

#include "gateway/api/access.h"
#include "gateway/api/history.h"
#include "gateway/api/live.h"

struct routes {
    const struct api_host *host;
    struct access *access;
    struct later *later;
    struct live *live;
    struct history_desk *history;
};

/* Answers the request, now or later. */
void routes_handle(struct routes *routes, struct server *server, bool over_socket,
                   struct evhttp_request *request);
