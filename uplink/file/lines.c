#include "uplink/file/file.h"
#include "uplink/record.h"

#include <errno.h>

const char file_csv_header[] =
    "gateway,store,stream,device,seq,time,window_s,point,value,quality\n";

size_t file_whole_lines(const uint8_t *tail, size_t len)
{
    if (len == 0) {
        return 0;
    }
    const uint8_t *hole = memchr(tail, '\0', len);
    size_t sound = hole != NULL ? (size_t)(hole - tail) : len;
    const uint8_t *end = sound > 0 ? memrchr(tail, '\n', sound) : NULL;
    return end != NULL ? (size_t)(end - tail) + 1 : 0;
}

int file_encode_ndjson(const struct batch *batch, struct buffer *out)
{
    auto_buffer struct buffer open = {0};
    record_write_origin(&open, batch);
    struct record_writer writer = {0};
    int r = buffer_failed(&open) ? -ENOMEM : 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = record_write(out, &writer, (char *)open.data, open.len, &batch->records[i]);
        out_literal(out, "\n");
    }
    record_writer_finish(&writer);
    return r;
}

/* A field in quotes where it needs them; quotes within are doubled. Line ends become blanks: the
 * repair after a power cut relies on one line a row. */
static void add_field(struct buffer *out, const char *text, size_t len)
{
    bool quotes = false;
    for (size_t i = 0; i < len; i++) {
        quotes = quotes || strchr(",\"\r\n", text[i]) != NULL;
    }
    if (!quotes) {
        out_bytes(out, text, len);
        return;
    }
    out_literal(out, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"') {
            out_literal(out, "\"");
        }
        buffer_add_byte(out, c < ' ' ? ' ' : c);
    }
    out_literal(out, "\"");
}

static void add_point(struct buffer *out, const struct store_names *names, uint16_t point)
{
    if (point < names->point_count && names->points[point].name != NULL) {
        add_field(out, names->points[point].name, names->points[point].name_len);
    } else {
        buffer_printf(out, "point_%u", (unsigned)point);
    }
}

static void add_value(struct buffer *out, const struct scan *scan, const struct reading *reading)
{
    if (reading->kind == VALUE_TEXT) {
        add_field(out, scan_text(scan, reading), reading->text.len);
    } else if (reading->kind != VALUE_NULL) {
        reading_write_json(out, scan, reading);
    }
}

static void add_rows(struct buffer *out, const struct buffer *origin,
                     const struct batch_record *record)
{
    auto_buffer struct buffer head = {0};
    char time[OUT_NUMBER_MAX];
    out_bytes(&head, origin->data, origin->len);
    add_field(&head, record->names->device, strlen(record->names->device));
    *out_time(time, record->scan->time_ms) = '\0';
    buffer_printf(&head, ",%llu,%s,", (unsigned long long)record->scan->seq, time);
    if (record->scan->window_s != 0) {
        out_number(&head, record->scan->window_s);
    }
    out_literal(&head, ",");
    for (size_t i = 0, count = record_count(record); i < count; i++) {
        const struct reading *reading = record_reading(record, i);
        out_bytes(out, head.data, head.len);
        add_point(out, record->names, reading->point);
        out_literal(out, ",");
        add_value(out, record->scan, reading);
        out_literal(out, ",");
        buffer_add_text(out, quality_name((enum quality)reading->quality));
        out_literal(out, "\n");
    }
    out->failed = out->failed || buffer_failed(&head);
}

int file_encode_csv(const struct batch *batch, struct buffer *out)
{
    auto_buffer struct buffer origin = {0};
    add_field(&origin, batch->gateway, strlen(batch->gateway));
    out_literal(&origin, ",");
    add_field(&origin, batch->store_id, strlen(batch->store_id));
    buffer_printf(&origin, ",%s,", stream_name(batch->stream));
    if (buffer_failed(&origin)) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < batch->count; i++) {
        add_rows(out, &origin, &batch->records[i]);
    }
    return 0;
}
