/* transport.h - how a request reaches its endpoint and a reply comes back.
 *
 * Owned and called by the sender's thread only. Requests run in parallel; each ends with exactly
 * one `done`. TLS 1.2 or newer, host name and chain always checked; plain http:// is taken for
 * loopback addresses only. Which check failed is told in the reply's error text. */
#pragma once

#include "uplink/uplink.h"

enum transport_compress { COMPRESS_NONE, COMPRESS_GZIP, COMPRESS_ZSTD };

struct transport_settings {
    const char *url;
    const char *ca_file, *cert_file, *crl_file;
    const char *key_file; /* checked 0600 by the key table */
    const char *token;    /* bearer, NULL: none */
    int compress;
    int64_t timeout_ms, connect_timeout_ms;
    int http2; /* bool */
};

struct transport {
    const char *name;
    int (*create)(const struct transport_settings *settings, size_t parallel, void **ret_state);
    void (*destroy)(void *state);
    /* Takes the request's bytes by reference until done; method POST. */
    int (*send)(void *state, const struct uplink_request *request,
                void (*done)(void *user, const struct uplink_reply *reply), void *user);
    /* Runs for at most timeout_ms or until wake_fd is readable; calls done inside. */
    int (*run)(void *state, int wake_fd, int64_t timeout_ms);
    uint64_t (*bytes_sent)(const void *state);
};

extern const struct transport transport_http; /* libcurl multi, transport/http_curl.c */
