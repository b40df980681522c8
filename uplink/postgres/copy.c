#include "uplink/postgres/postgres.h"

/* Text of COPY: backslash, tab and line ends are escaped (PostgreSQL's manual, COPY, "Text
 * Format"). What the database could not store (NUL, bytes that are no UTF-8) becomes U+FFFD. */
static void add_text(struct buffer *out, const char *text, size_t len)
{
    for (const uint8_t *at = (const uint8_t *)text, *end = at + len; at < end;) {
        size_t n = utf8_length(at, (size_t)(end - at));
        const char *escaped = n == 0 || *at == '\0' ? "\xef\xbf\xbd"
                              : *at == '\\'         ? "\\\\"
                              : *at == '\t'         ? "\\t"
                              : *at == '\n'         ? "\\n"
                              : *at == '\r'         ? "\\r"
                                                    : NULL;
        if (escaped != NULL) {
            buffer_add_text(out, escaped);
        } else {
            out_bytes(out, at, n);
        }
        at += n > 0 ? n : 1;
    }
}

static void add_field(struct buffer *out, const char *text)
{
    add_text(out, text, strlen(text));
    out_literal(out, "\t");
}

static void add_point(struct buffer *out, const struct store_names *names, uint16_t point)
{
    if (point < names->point_count && names->points[point].name != NULL) {
        add_text(out, names->points[point].name, names->points[point].name_len);
    } else {
        buffer_printf(out, "point_%u", (unsigned)point);
    }
    out_literal(out, "\t");
}

/* value, text. */
static void add_value(struct buffer *out, const struct scan *scan, const struct reading *reading)
{
    switch (reading->kind) {
    case VALUE_TEXT:
        out_literal(out, "\\N\t");
        add_text(out, scan_text(scan, reading), reading->text.len);
        break;
    case VALUE_BOOL:
        out_bytes(out, reading->integer != 0 ? "1\t\\N" : "0\t\\N", 4);
        break;
    case VALUE_DECIMAL:
        reading_write_json(out, scan, reading);
        out_literal(out, "\t\\N");
        break;
    case VALUE_REAL:
    case VALUE_FLOAT:
        if (__builtin_isfinite(reading->real)) {
            reading_write_json(out, scan, reading);
            out_literal(out, "\t\\N");
            break;
        }
        __attribute__((fallthrough));
    default:
        out_literal(out, "\\N\t\\N");
    }
    out_literal(out, "\t");
}

static void add_rows(struct buffer *out, const struct buffer *origin,
                     const struct batch_record *record)
{
    const struct scan *scan = record->scan;
    auto_buffer struct buffer head = {0};
    char time[OUT_NUMBER_MAX];
    out_bytes(&head, origin->data, origin->len);
    add_field(&head, record->names->device);
    *out_time(time, scan->time_ms) = '\0';
    buffer_printf(&head, "%llu\t%s\t", (unsigned long long)scan->seq, time);
    if (scan->window_s != 0) {
        buffer_printf(&head, "%u\t", (unsigned)scan->window_s);
    } else {
        out_literal(&head, "\\N\t");
    }
    for (size_t i = 0, count = record_count(record); i < count; i++) {
        const struct reading *reading = record_reading(record, i);
        out_bytes(out, head.data, head.len);
        add_point(out, record->names, reading->point);
        add_value(out, scan, reading);
        buffer_add_text(out, quality_name((enum quality)reading->quality));
        out_literal(out, "\n");
    }
    out->failed = out->failed || buffer_failed(&head);
}

void postgres_encode_rows(const struct batch *batch, struct buffer *out)
{
    auto_buffer struct buffer origin = {0};
    add_field(&origin, batch->gateway);
    add_field(&origin, batch->store_id);
    add_field(&origin, stream_name(batch->stream));
    for (size_t i = 0; i < batch->count; i++) {
        add_rows(out, &origin, &batch->records[i]);
    }
    out->failed = out->failed || buffer_failed(&origin);
}
