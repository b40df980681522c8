/* http.h - the inside of type `http`: its settings and its encoders, one file a format.
 *
 * Pure, any thread. Each encoder appends the whole document to `out`; an append over the buffer's
 * bound latches it, and http_encode() turns that into -E2BIG. */
#pragma once

#include "uplink/out.h"
#include "uplink/transport/transport.h"
#include "uplink/uplink.h"

enum http_format { HTTP_BATCH, HTTP_COLUMNS, HTTP_TELEMETRY, HTTP_FLAT };
enum http_ack { HTTP_ACK_BODY, HTTP_ACK_STATUS };

struct http_settings {
    struct transport_settings transport;
    int format, ack;
};
extern const struct config_table http_config_table;

enum { HTTP_REQUEST_MAX = 8 * 1024 * 1024 }; /* bytes of a body before compression */

/* 0 or -ENOMEM. */
must_check int http_encode_batch(const struct batch *batch, struct buffer *out);
must_check int http_encode_columns(const struct batch *batch, struct buffer *out);
must_check int http_encode_telemetry(const struct batch *batch, struct buffer *out);
must_check int http_encode_flat(const struct batch *batch, struct buffer *out);

/* "Idempotency-Key: "STORE.STREAM.HASH"" with its quotes (RFC 8941 string) as a header line; the
 * hash is over (device, seq) of every record in order. */
void http_write_idempotency_key(const struct batch *batch, struct buffer *headers);

/* Judges by status, `ack` and the reply's JSON body. */
void http_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                struct uplink_verdict *ret_verdict);

extern const struct uplink_probe http_probe;
extern const struct uplink uplink_http;
