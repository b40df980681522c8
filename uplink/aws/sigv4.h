/* sigv4.h - AWS Signature Version 4 of one HTTP request.
 *
 * Pure (OpenSSL's hashes only), any thread. Canonical form as AWS documents it: dot segments and
 * empty ones removed from the path and the path encoded a second time (for S3 neither), the query
 * sorted, header values trimmed. libcurl's own signer is wrong for odd paths and queries and
 * cannot correct clock skew, which is why this exists. */
#pragma once

#include "gateway/base/buffer.h"

struct sigv4_credentials {
    const char *access_key, *secret_key;
    const char *session_token; /* NULL: none */
};

struct sigv4_request {
    const char *method, *host;
    const char *path;           /* as on the wire, percent-encoded, "" counts as "/" */
    const char *query;          /* as on the wire without '?', "" for none */
    const char *const *headers; /* "Name: value", those to be signed beside host */
    size_t header_count;        /* at most SIGV4_HEADERS_MAX */
    const void *body;
    size_t body_len;
    bool path_as_is; /* S3: each segment is encoded once, as on the wire, and stands for a key */
};

enum { SIGV4_HEADERS_MAX = 32 };

/* Appends the header lines to be added to the request, each ended by a NUL: X-Amz-Date,
 * X-Amz-Security-Token where there is a session token, Authorization. time_ms is UTC, with clock
 * skew already corrected. -EINVAL: too many headers or one without a colon; -ENOMEM. */
must_check int sigv4_sign(const struct sigv4_request *request,
                          const struct sigv4_credentials *credentials, const char *region,
                          const char *service, int64_t time_ms, struct buffer *ret_headers);
