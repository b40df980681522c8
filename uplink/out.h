/* out.h - JSON written straight into a buffer, for the encoders of all uplinks.
 *
 * Pure, any thread. Encoding is the hottest code of the way out: numbers are written in place,
 * names are rendered once a device. Writers that take `at` expect room for OUT_NUMBER_MAX bytes and
 * return the new end. */
#pragma once

#include "uplink/uplink.h"

#include <string.h>

enum { OUT_NUMBER_MAX = 64 };

/* Where the next n bytes go, or NULL after a failure. The buffer's `max` is checked only when it
 * grows: whoever finishes a document compares len with max. */
static inline char *out_room(struct buffer *b, size_t n)
{
    if (b->capacity - b->len >= n && !b->failed) {
        return (char *)b->data + b->len;
    }
    return (char *)buffer_reserve(b, n);
}

static inline void out_advance(struct buffer *b, const char *end)
{
    b->len = (size_t)(end - (char *)b->data);
}

static inline void out_bytes(struct buffer *b, const void *bytes, size_t len)
{
    char *at = out_room(b, len);
    if (at != NULL && len > 0) {
        memcpy(at, bytes, len);
        b->len += len;
    }
}
#define out_literal(b, text) out_bytes((b), "" text, sizeof(text) - 1)

char *out_uint(char *at, uint64_t value);
char *out_int(char *at, int64_t value);
/* With as many digits behind the point as the exponent says, "13.50": records of one device are
 * then equally long, which makes them a fifth smaller when compressed. The exponent must lie within
 * -18..18. */
char *out_decimal(char *at, struct decimal d);
/* 2026-01-31T10:30:00.000Z, without quotes. */
char *out_time(char *at, int64_t time_ms);

void out_number(struct buffer *b, int64_t value);

/* `,"name":` of every point of one device, rendered once; zero it before the first use. */
struct out_names {
    const struct store_names *names;
    struct buffer text;
    struct out_name {
        uint32_t offset, len; /* with the comma */
    } * keys;
    size_t count, capacity;
};
/* 0 or -ENOMEM. Does nothing when these names are in use already. */
must_check int out_names_use(struct out_names *n, const struct store_names *names);
void out_names_finish(struct out_names *n);
/* Appends the point's `,"name":`; a point without a name is "point_17". */
void out_key(struct buffer *b, const struct out_names *n, uint16_t point, bool comma);

/* Appends the members of a JSON object, `"name":value` for each selected reading; returns how many
 * of them are not QUALITY_GOOD. `comma`: also before the first one. */
size_t out_values(struct buffer *b, struct out_names *n, const struct batch_record *record,
                  bool comma);
/* Appends `"name":"bad:timeout"` for each selected reading that is not good. */
void out_qualities(struct buffer *b, const struct out_names *n, const struct batch_record *record);

/* The i-th selected reading, and how many there are. */
static inline const struct reading *record_reading(const struct batch_record *r, size_t i)
{
    return &r->scan->readings[r->selected != NULL ? r->selected[i] : i];
}

static inline size_t record_count(const struct batch_record *r)
{
    return r->selected != NULL ? r->selected_count : r->scan->count;
}
