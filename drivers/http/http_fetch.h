/* http_fetch.h - GET requests by libcurl inside the field's event loop.
 *
 * Field thread only; nothing blocks: sockets and timers of one curl multi handle are events of the
 * base, names are looked up by libcurl's own threads. TLS 1.2 or newer, host name and chain always
 * checked, redirects never followed. An answer's body has a bound; what is beyond ends the
 * connection. */
#pragma once

#include "drivers/http/http_keys.h"
#include "gateway/base/buffer.h"
#include "gateway/pipeline/device.h"

struct event_base;
struct http_fetcher;
struct http_fetch;

enum {
    HTTP_FETCH_BODY_MAX = 1024 * 1024, /* bytes of an answer, unpacked */
    HTTP_FETCH_HOST_CONNECTIONS = 4,   /* to one server at a time */
    HTTP_FETCH_CONNECTIONS_KEPT = 64,
    HTTP_FETCH_TAG_MAX = 256 /* characters of an ETag or Last-Modified that are remembered */
};

/* What came of a fetch; gone after `done` returns. */
struct http_answer {
    int status;              /* 0: none came */
    enum device_error error; /* of one that did not come */
    int detail;
    const char *why;  /* in words */
    const char *body; /* NUL behind it */
    size_t len;
    const char *etag, *last_modified; /* "" where absent */
    int64_t retry_after_ms;           /* -1: absent */
    int64_t rtt_us;
};

must_check int http_fetcher_create(struct event_base *base, struct http_fetcher **ret_fetcher);
/* All fetches must be gone. Takes NULL. */
void http_fetcher_destroy(struct http_fetcher *fetcher);

/* settings must outlive the fetch. -EINVAL: libcurl does not take them. */
must_check int http_fetch_create(struct http_fetcher *fetcher,
                                 const struct http_device_settings *settings, int64_t timeout_ms,
                                 void (*done)(void *user, const struct http_answer *answer),
                                 void *user, struct http_fetch **ret_fetch);
/* A running one ends without `done`. Takes NULL. Not from `done` itself. */
void http_fetch_destroy(struct http_fetch *fetch);

/* Asks; with If-None-Match and If-Modified-Since where they are not "". `done` is called once,
 * never before this returns. -EBUSY: one runs already. */
must_check int http_fetch_start(struct http_fetch *fetch, const char *etag,
                                const char *last_modified);
