/* transport.h - how a request reaches its endpoint and a reply comes back.
 *
 * Owned and called by the sender's thread only. Requests run in parallel; each ends with exactly
 * one `done`. TLS 1.2 or newer, host name and chain always checked; plain http:// is taken for
 * loopback addresses only. Which check failed is told in the reply's error text. The calling thread
 * must have SIGPIPE blocked or ignored (the sender blocks all signals). */
#pragma once

#include "uplink/beside.h"
#include "uplink/uplink.h"

enum transport_compress { COMPRESS_NONE, COMPRESS_GZIP, COMPRESS_ZSTD };
extern const char *const transport_compress_choices[];

struct transport_settings {
    const char *url;
    const char *ca_file, *cert_file, *crl_file;
    const char *key_file;             /* checked 0600 by the key table */
    struct config_secret token;       /* bearer; text NULL: none */
    const char *proxy;                /* NULL: by the environment, as libcurl does */
    struct config_secret proxy_login; /* USER:PASSWORD; text NULL: none */
    const char *alpn; /* at most TRANSPORT_ALPN_MAX bytes; NULL: what HTTP says of itself */
    int compress;
    int64_t timeout_ms, connect_timeout_ms;
    bool http2;
};

/* The bounds of a transport over HTTP. A reply's body is kept up to BODY_MAX bytes; what lies
 * beyond is not read and the connection is closed, as it is when headers do not come to an end.
 * Slower than LOW_SPEED for LOW_SPEED_S: broken. */
enum {
    TRANSPORT_BODY_MAX = 256 * 1024,
    TRANSPORT_REPLY_HEAD_MAX = 64 * 1024,
    TRANSPORT_HEADERS_MAX = 16,
    TRANSPORT_ALPN_MAX = 60,
    TRANSPORT_LOW_SPEED = 32, /* bytes a second */
    TRANSPORT_LOW_SPEED_S = 30,
};

struct uplink_host;

struct transport {
    const char *name;
    /* settings: what the type's transport_settings() gives, or the type's own struct where it has
     * none; both strings and settings outlive the transport. Does not touch the network. */
    int (*create)(const void *settings, const char *gateway, size_t parallel, void **ret_state);
    void (*destroy)(void *state);
    /* Optional, before the first send: the gateway that it may ask, and the uplink's name; both
     * outlive the transport. */
    int (*attach)(void *state, const struct uplink_host *host, const char *uplink);
    /* Takes the request's bytes by reference until done, which is never called in here; over HTTP
     * the method is POST. -EBUSY: `parallel` requests are on their way already. */
    int (*send)(void *state, const struct uplink_request *request,
                void (*done)(void *user, const struct uplink_reply *reply), void *user);
    /* Runs until wake_fd is readable, a request ended, or timeout_ms passed (-1: no limit); calls
     * done inside. */
    int (*run)(void *state, int wake_fd, int64_t timeout_ms);
    /* Bytes of headers and bodies as they went out, compressed. */
    uint64_t (*bytes_sent)(const void *state);
    /* Optional: what works still, but not for long (a certificate that expires, a changed file
     * that cannot be used), in words; "" when all is well. */
    void (*warning)(const void *state, char *words, size_t size);
    /* Optional: how it fares with what it does beside requests. */
    void (*beside)(const void *state, struct uplink_beside *ret_beside);
};

extern const struct transport transport_http; /* libcurl multi, transport/http_curl.c */

/* Whether requests may go to that URL: https to anywhere, http to a loopback address or
 * "localhost". -EINVAL: it is no URL or another scheme, -EPERM: plain http leaves this machine. */
must_check int transport_url_check(const char *url);

/* 127.0.0.0/8, [::1] or localhost. */
bool transport_is_loopback(const char *host);

/* Complains of a certificate without its key and the other way round, and warns where one of these
 * files (each may be NULL) expires within 30 days. For config_table.check of a type that has
 * them. */
void transport_files_check(const char *ca_file, const char *cert_file, const char *key_file,
                           struct config_errors *errors);

/* For config_table.check of a type: complains about the keys below as a whole. */
void transport_settings_check(const struct transport_settings *settings,
                              struct config_errors *errors);
