/* sink_body.h - undoes a Content-Encoding, within a bound.
 *
 * Pure, any thread. A body of a few kilobytes can stand for gigabytes; what comes out is held to
 * max bytes whatever the compressed form promises. */
#pragma once

#include "gateway/base/buffer.h"

/* encoding is "gzip" or "zstd", in any case. Appends to out, at most max bytes in all. -EMSGSIZE
 * when it would be more, -EBADMSG when the bytes are broken or end early, -ENOTSUP for another
 * encoding. */
must_check int sink_body_decode(const char *encoding, const uint8_t *bytes, size_t len, size_t max,
                                struct buffer *out);
