/* scan.h - the thing that flows through the gateway: the readings of one device taken together.
 *
 * Plain data, no locking. A scan is one block of memory without pointers (texts lie behind the
 * readings), so it is copied with memcpy, put into rings and rebuilt from blocks. Its identity is
 * (store id, stream, device, seq). Times are UTC milliseconds; boot_ms is CLOCK_BOOTTIME. */
#pragma once

#include "gateway/base/buffer.h"
#include "gateway/base/decimal.h"

enum stream { STREAM_RAW, STREAM_AGGREGATE, STREAM_EVENT, STREAM_COUNT };

/* "raw", "aggregate", "event": as on the wire and in keys. */
const char *stream_name(enum stream stream);

enum value_kind {
    VALUE_NULL,    /* no value; the quality says why */
    VALUE_DECIMAL, /* integer * 10^exponent, exact */
    VALUE_REAL,    /* double */
    VALUE_FLOAT,   /* a float32 held in `real`: printed with the digits a float has */
    VALUE_BOOL,    /* integer is 0 or 1 */
    VALUE_TEXT,    /* UTF-8, text.len bytes at text.offset behind the readings */
    VALUE_KINDS
};

enum quality {
    QUALITY_GOOD,
    QUALITY_UNCERTAIN,      /* value present, its time or sensor is in doubt */
    QUALITY_BAD_TIMEOUT,    /* no answer */
    QUALITY_BAD_REFUSED,    /* the device answered with an exception */
    QUALITY_BAD_INVALID,    /* the device says "not available" (its sentinel, NaN) */
    QUALITY_BAD_RANGE,      /* outside min..max */
    QUALITY_BAD_TYPE,       /* the reply does not decode as the point's type */
    QUALITY_BAD_CONNECTION, /* no connection */
    QUALITY_COUNT
};

/* "good", "uncertain", "bad:timeout", ...: as on the wire. */
const char *quality_name(enum quality quality);
/* The quality of that name, or -EINVAL. */
must_check int quality_parse(const char *name, enum quality *ret_quality);

struct reading {
    uint16_t point;  /* from a driver: index in the device's points; in the store: its point id */
    uint8_t kind;    /* enum value_kind */
    uint8_t quality; /* enum quality; bad readings have VALUE_NULL */
    int8_t exponent; /* of a VALUE_DECIMAL */
    uint8_t reserved[3];
    union {
        int64_t integer;
        double real;
        struct {
            uint32_t offset, len;
        } text;
    };
};

struct scan {
    uint64_t seq;      /* within its device and stream, from 1 */
    int64_t time_ms;   /* UTC; of an aggregate: the start of its window */
    int64_t boot_ms;   /* CLOCK_BOOTTIME at time_ms; of an aggregate 0: on no clock of this boot */
    uint32_t device;   /* the store's device id */
    uint32_t window_s; /* of an aggregate, otherwise 0 */
    uint16_t stream;   /* enum stream */
    uint16_t count;    /* of readings */
    uint32_t text_len; /* bytes of text behind the readings */
    struct reading readings[];
};

enum { SCAN_READINGS_MAX = 4096, SCAN_TEXT_MAX = 65536 };

/* The bytes of a scan with its texts, a multiple of 8. */
size_t scan_size(const struct scan *scan);
size_t scan_size_for(size_t count, size_t text_len);

static inline const char *scan_text(const struct scan *scan, const struct reading *reading)
{
    return (const char *)&scan->readings[scan->count] + reading->text.offset;
}

static inline struct decimal reading_decimal(const struct reading *reading)
{
    return (struct decimal){.mantissa = reading->integer, .exponent = reading->exponent};
}

/* The value as a double; NaN for texts and missing values. */
double reading_double(const struct reading *reading);

/* Appends the value as JSON: a number, true or false, a string, or null. */
void reading_write_json(struct buffer *b, const struct scan *scan, const struct reading *reading);
