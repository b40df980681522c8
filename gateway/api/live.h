/* live.h - GET /v1/live: server-sent events with the latest values.
 *
 * Once a second, and only when something changed, each client gets one event:
 *   event: live
 *   data: {"time","full":false,"devices":[{"name","state","values":{},"quality":{},"time"}]}
 * with the devices that changed; the first one is full. A client that has not taken the last event
 * yet gets nothing until it has, and then a full one: a slow reader loses the oldest and costs one
 * event of memory. Owned by the api thread. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/server.h"

enum { LIVE_CLIENTS_MAX = 8, LIVE_TICK_MS = 1000, LIVE_KEEPALIVE_MS = 15 * 1000 };

struct live;

must_check int live_create(struct event_base *base, const struct api_host *host,
                           struct live **ret_live);
/* Ends all streams. Takes NULL. Before the servers are destroyed. */
void live_destroy(struct live *live);

/* Makes the request a stream; device "" is all of them. -EBUSY: LIVE_CLIENTS_MAX are there,
 * nothing was sent. */
must_check int live_join(struct live *live, struct server *server, struct evhttp_request *request,
                         const char *device);
size_t live_clients(const struct live *live);
