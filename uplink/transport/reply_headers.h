/* reply_headers.h - the few header fields of a reply that decide what happens next. Pure. */
#pragma once

#include "uplink/uplink.h"

enum { RETRY_AFTER_MAX_MS = 86400000 }; /* a longer wish is cut to a day */

struct reply_headers {
    char content_type[80];
    char retry_after[64];
    char etag[80], checksum_sha256[64]; /* x-amz-checksum-sha256 */
    int64_t date_ms;                    /* 0: none */
};

/* Takes one header line as it came ("Name: value\r\n"). A status line begins a new reply. */
void reply_headers_line(struct reply_headers *h, const char *line, size_t len);

/* Retry-After in seconds or as an HTTP date (RFC 9110 section 10.2.3); a date counts from the
 * reply's own Date where it has one, because our clock may be wrong. -1: absent or nonsense. */
int64_t reply_retry_after_ms(const struct reply_headers *h, int64_t now_ms);
