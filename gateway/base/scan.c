#include "gateway/base/scan.h"

#include <errno.h>
#include <math.h>
#include <string.h>

const char *stream_name(enum stream stream)
{
    static const char *const names[STREAM_COUNT] = {"raw", "aggregate", "event"};
    return stream < STREAM_COUNT ? names[stream] : "?";
}

static const char *const quality_names[QUALITY_COUNT] = {
    [QUALITY_GOOD] = "good",
    [QUALITY_UNCERTAIN] = "uncertain",
    [QUALITY_BAD_TIMEOUT] = "bad:timeout",
    [QUALITY_BAD_REFUSED] = "bad:refused",
    [QUALITY_BAD_INVALID] = "bad:invalid",
    [QUALITY_BAD_RANGE] = "bad:range",
    [QUALITY_BAD_TYPE] = "bad:type",
    [QUALITY_BAD_CONNECTION] = "bad:connection",
};

const char *quality_name(enum quality quality)
{
    return quality < QUALITY_COUNT ? quality_names[quality] : "bad:unknown";
}

int quality_parse(const char *name, enum quality *ret_quality)
{
    for (size_t i = 0; i < QUALITY_COUNT; i++) {
        if (strcmp(name, quality_names[i]) == 0) {
            *ret_quality = (enum quality)i;
            return 0;
        }
    }
    return -EINVAL;
}

size_t scan_size_for(size_t count, size_t text_len)
{
    return (sizeof(struct scan) + count * sizeof(struct reading) + text_len + 7) & ~(size_t)7;
}

size_t scan_size(const struct scan *scan)
{
    return scan_size_for(scan->count, scan->text_len);
}

double reading_double(const struct reading *reading)
{
    switch ((enum value_kind)reading->kind) {
    case VALUE_DECIMAL:
        return decimal_to_double(reading_decimal(reading));
    case VALUE_REAL:
    case VALUE_FLOAT:
        return reading->real;
    case VALUE_BOOL:
        return reading->integer != 0 ? 1.0 : 0.0;
    default:
        return NAN;
    }
}

void reading_write_json(struct buffer *b, const struct scan *scan, const struct reading *reading)
{
    switch ((enum value_kind)reading->kind) {
    case VALUE_DECIMAL:
        decimal_write(b, reading_decimal(reading));
        break;
    case VALUE_REAL:
        decimal_write_double(b, reading->real);
        break;
    case VALUE_FLOAT:
        decimal_write_float(b, reading->real);
        break;
    case VALUE_BOOL:
        buffer_add_text(b, reading->integer != 0 ? "true" : "false");
        break;
    case VALUE_TEXT:
        json_write_string(b, scan_text(scan, reading), reading->text.len);
        break;
    default:
        buffer_add_text(b, "null");
        break;
    }
}
