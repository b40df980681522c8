/* json_out.h - JSON text written straight into a buffer.
 *
 * For answers that may hold fifteen thousand points: no tree is built. The commas are the writer's
 * business, the nesting is the caller's. No locking; failures stay latched in the buffer. */
#pragma once

#include "gateway/base/buffer.h"

struct json_out {
    struct buffer *b;
    bool comma; /* something stands before the next element */
};

/* An element that opens ('{' or '[') and the one that closes it; key NULL inside an array. */
void json_out_open(struct json_out *out, const char *key, char bracket);
void json_out_close(struct json_out *out, char bracket);

void json_out_text(struct json_out *out, const char *key, const char *text); /* NULL: null */
void json_out_uint(struct json_out *out, const char *key, uint64_t value);
void json_out_int(struct json_out *out, const char *key, int64_t value);
void json_out_real(struct json_out *out, const char *key, double value); /* NaN: null */
void json_out_bool(struct json_out *out, const char *key, bool value);
void json_out_null(struct json_out *out, const char *key);

/* RFC 3339 with milliseconds; 0 becomes null. */
void json_out_time(struct json_out *out, const char *key, int64_t wall_ms);

/* Writes the comma and the key only: the caller adds the value to out->b himself. */
void json_out_key(struct json_out *out, const char *key);
