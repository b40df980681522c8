/* write_record.h - what the store remembers of a command, as bytes and back.
 *
 * Pure, any thread. A record is made durable before anything is written to the device, and again
 * with the outcome; one that is still open at a start is a command whose outcome nobody knows. */
#pragma once

#include "gateway/base/buffer.h"

enum {
    WRITE_ID_MAX = 64,
    WRITE_NAME_MAX = 127, /* of a device, a point, who asked */
    WRITE_VALUE_MAX = 63,
    WRITE_BODY_MAX = 1024
};

struct write_record {
    int64_t time_ms; /* UTC, of the command */
    int status;      /* the HTTP status it was answered with; 0: open */
    bool chosen;     /* the id is the client's: a repeat may come */
    bool standing;   /* the last word of `who` on this point: kept until the next one (chosen) */
    bool afar;       /* it came through an uplink */
    int64_t order;   /* of standing ones: a later word has a higher number */
    char id[WRITE_ID_MAX + 1];
    char device[WRITE_NAME_MAX + 1], point[WRITE_NAME_MAX + 1], who[WRITE_NAME_MAX + 1];
    char value[WRITE_VALUE_MAX + 1];
    char body[WRITE_BODY_MAX + 1]; /* of the answer; "" while open */
};

void write_record_encode(const struct write_record *record, struct buffer *ret_bytes);
/* -EBADMSG, ret_record is undefined then. */
must_check int write_record_decode(const void *bytes, size_t len, struct write_record *ret_record);
/* Of one that decodes: whether a checksum says that it is what was written. */
bool write_record_is_sealed(const void *bytes);

/* The same command, whatever its id, who asked and when. */
bool write_record_same(const struct write_record *a, const struct write_record *b);
/* Both are words of the same one on the same point. */
bool write_record_rivals(const struct write_record *a, const struct write_record *b);
