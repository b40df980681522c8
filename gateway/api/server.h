/* server.h - one listening socket under evhttp, with bounds that evhttp itself lacks.
 *
 * At `connections_max` the listener rests until a place is free (the kernel's queue waits); a
 * connection that idles, or drips a request, for SERVER_IDLE_MS is cut; an answer that is not taken
 * within SERVER_ANSWER_MS too, unless it is a stream. Headers and bodies have their sizes. Owned by
 * the api thread: every call and callback is made there. */
#pragma once

#include "gateway/base/cleanup.h"

#include <event2/event.h>
#include <event2/http.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SERVER_CONNECTIONS_MAX = 64,
    SERVER_HEADERS_MAX = 8 * 1024,
    SERVER_BODY_MAX = 64 * 1024,
    SERVER_IDLE_MS = 15 * 1000,
    SERVER_ANSWER_MS = 60 * 1000,
    SERVER_SWEEP_MS = 250,
};

struct server;

struct server_options {
    size_t connections_max; /* at most SERVER_CONNECTIONS_MAX */
    int64_t idle_ms, answer_ms;
    SSL_CTX *tls; /* NULL: plain; the server takes a reference */
    void (*handle)(struct server *server, struct evhttp_request *request, void *user);
    void *user;
};

/* Takes over fd, a listening socket, also on failure. */
must_check int server_create(struct event_base *base, int fd, const struct server_options *options,
                             struct server **ret_server);
/* Cuts all connections. Requests answered later must have been answered before. */
void server_destroy(struct server *server);

/* This answer has no end: it does not count as slow. */
void server_mark_stream(struct server *server, struct evhttp_request *request);

/* Connections held at present. */
size_t server_connections(const struct server *server);
