/* sink.h - the receiving end: a small cloud for the demo, the tests and the benchmarks.
 *
 * HTTPS on one libevent base and one thread; SQLite behind it. It answers {"accepted":N} only after
 * the commit. Everything a client can make it hold is bounded: connections, their time, headers,
 * bodies before and after decompression. */
#pragma once

#include "uplink/sink/sink_db.h"

enum {
    SINK_CONNECTIONS_MAX = 512,  /* further ones wait in the kernel's backlog */
    SINK_BODY_MAX = 16 << 20,    /* bytes as sent */
    SINK_DECODED_MAX = 64 << 20, /* bytes after decompression */
    SINK_HEADERS_MAX = 16 << 10, /* bytes */
    SINK_HANDSHAKE_MS = 10000,   /* TLS, from accept on */
    SINK_REQUEST_MS = 120000,    /* a request, from its predecessor's answer on */
    SINK_IDLE_S = 60,            /* silence on a connection */
    SINK_ERROR_SIZE = 256
};

struct sink_options {
    const char *listen;     /* "127.0.0.1:8443"; port 0 takes a free one */
    const char *db;         /* NULL with discard */
    const char *cert, *key; /* PEM */
    const char *tokens;     /* NULL: everyone may do everything */
    const char *client_ca;  /* NULL: no client certificate is asked for */
    const char *aws_key;    /* NULL: no Timestream; "ID:SECRET": POST / is it, signed by that key */
    bool discard;
    /* Faults, for tests of what sends to it. */
    int fail_status;                 /* 0: none; the first fail_count posts are answered with it */
    uint64_t fail_count, lose_count; /* lose: kept, but the connection closes without an answer */
    bool captive;                    /* 200 and a login page, like a hotel's network */
    int64_t delay_ms;                /* before every answer */
    const char *reject_device;       /* NULL: none; that record is refused */
    int64_t reject_seq;
    /* 0: the bounds above. */
    size_t connections_max, body_max, decoded_max;
    int64_t handshake_ms, request_ms;
};

struct event_base;
struct sink;

/* -errno, and ret_error says what is wrong in words. The options must outlive the sink. */
must_check int sink_create(const struct sink_options *options, struct event_base *base,
                           struct sink **ret_sink, char ret_error[SINK_ERROR_SIZE]);
void sink_destroy(struct sink *sink);

uint16_t sink_port(const struct sink *sink);
size_t sink_connections(const struct sink *sink);

/* {"records","readings","repeats","conflicts",...} of the whole file, and what this run did. */
json_t *sink_stats(const struct sink *sink);

/* `windrow sink`: prints {"listening":...} to out, serves until SIGTERM or SIGINT, prints the
 * stats. Returns an exit status of gateway/cli/command.h. */
int sink_run(const struct sink_options *options, FILE *out);
